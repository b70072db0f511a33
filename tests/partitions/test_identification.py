"""What the data cannot identify is told of sums as it is of rows: random effects within the fixed ones, levels of one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import IdentifiabilityError
from bayeslmm.partitions.table import EngineTable

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

FIXED = ("1", "0 + g", "1 + g", "g * x", "0 + g:x", "half + x", "x + rare", "g + x", "0 + half:x")
RANDOM = ("(1 | g)", "(0 + x | g)", "(x | g)", "(x || g)", "(1 | half) + (0 + x | g)", "(1 | g) + (1 | row)", "(x | row)", "(on | row)")


def rows_of(seed: int) -> pd.DataFrame:
    """Levels in levels, a covariate near its origin or far from it, a row for each level of `row` or two."""
    rng = np.random.default_rng(seed)
    n, K = int(rng.integers(60, 200)), int(rng.integers(3, 9))
    g = rng.integers(0, K, n)
    made = pd.DataFrame({"g": g.astype(str), "half": (g // 2).astype(str), "y": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n)})
    made["x"] = (rng.normal(size=n) + rng.choice([0.0, 1e4])) * 2.0 ** rng.integers(-20, 20)
    made["rare"], made["on"] = np.where(np.arange(n) < 3, 1.0, 0.0), np.where(rng.random(n) < 0.5, made["x"], 0.0)
    made["row"] = np.arange(n) // int(rng.integers(1, 3))
    return made


def told(make: Callable[..., blm.LMM], formula: str, data: Any, options: dict[str, Any]) -> float | str:
    try:
        return make(formula, data, **options).fit().criterion
    except IdentifiabilityError as refused:
        return refused.what


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 30))])
def test_sums_refuse_what_rows_refuse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(seed)
    cut = int(rng.integers(1, len(rows)))
    sources = ((blm.from_partitions, [rows[:cut], rows[cut:]]), (blm.from_table, duckdb.from_df(rows)))
    for fixed, random in zip(rng.permutation(FIXED)[:2], rng.permutation(RANDOM)[:2], strict=True):
        formula = f"y ~ {fixed} + {random}"
        options: dict[str, Any] = {"weights": "w", "sigma": 1.0} if rng.random() < 0.4 else {}
        whole = told(blm.LMM, formula, rows, options)
        for make, data in sources:
            found = told(make, formula, data, options)
            assert found == whole if isinstance(whole, str) else found == pytest.approx(whole, rel=1e-7), formula


@pytest.mark.parametrize("sigma", [1e-2, 1e-3])
def test_a_known_sigma_far_below_the_residuals_is_no_exact_fit(sigma: float) -> None:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"g": np.arange(120) % 12, "x": rng.normal(size=120)})
    rows["y"] = 10.0 * (rows["x"] + rng.normal(size=12)[rows["g"]] + rng.normal(size=120))
    whole = blm.LMM("y ~ x + (1 | g)", rows, sigma=sigma).fit()
    parts = blm.from_partitions("y ~ x + (1 | g)", [rows[:50], rows[50:]], sigma=sigma).fit()
    assert whole.criterion == pytest.approx(parts.criterion, rel=1e-9)
    assert whole.fixef.to_numpy() == pytest.approx(parts.fixef.to_numpy(), rel=1e-7)


def test_a_view_that_a_broken_query_left_is_nothing_to_the_next_table() -> None:
    rows = rows_of(6)
    left, table = (EngineTable.of(duckdb.from_df(rows.copy())) for _ in range(2))
    assert left.view != table.view
    duckdb.execute(f"CREATE OR REPLACE TEMP VIEW {left.view} AS SELECT 1 AS nothing")
    assert len(table.fetch(f"FROM {table.view}")) == len(rows)
