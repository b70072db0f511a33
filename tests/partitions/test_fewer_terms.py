"""Tests of random terms from sums: those of the rows in memory."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from tests.laws.designs import frame
from tests.partitions.test_partitions import divided

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

FORMULAS = (
    "y ~ x + (x | subject)",
    "y ~ x + z + (x + z | subject) + (1 | item)",
    "y ~ I(x + 1e4) + (I(x + 1e4) | subject)",
    "y ~ x * f + (0 + f | item)",
    "y ~ x + (x || subject) + (z | item)",
    "y ~ x + (1 | site/subject)",
    "y ~ x + (1 + x | item) + (0 + f | subject)",
    "y ~ z + cs(0 + f | item) + diag(1 + z | subject)",
)


def rows() -> pd.DataFrame:
    return frame(3, 160).dropna()


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize(("formula", "options"), [(text, {}) for text in FORMULAS] + [(FORMULAS[1], {"weights": "w", "offset": "z"})])
def test_random_terms_are_tested_by_sums_as_by_rows(formula: str, options: dict[str, Any], method: Any) -> None:
    data = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = blm.LMM(formula, data, **options).fit(method)
        parts = blm.from_partitions(formula, divided(data, 0), **options).fit(method)
    one, other = whole.ranova(), parts.ranova()
    assert one["term"].tolist() == other["term"].tolist()
    assert one["npar"].tolist() == other["npar"].tolist()
    for column in ("loglik", "aic"):
        assert other[column].to_numpy() == pytest.approx(one[column].to_numpy(), rel=1e-9)
    assert other["statistic"].to_numpy() == pytest.approx(one["statistic"].to_numpy(), abs=1e-6, nan_ok=True)
    away = one["statistic"] > 1e-6  # at 0 the p value jumps from a half to one
    assert other["p_value"][away].to_numpy() == pytest.approx(one["p_value"][away].to_numpy(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_random_terms_of_random_designs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = frame(seed + 10, 120).dropna()
    some = ["(x | subject)", "(z || item)", "(1 | site)", "(0 + f | item:site)", "(z | site:subject)"]
    bars = [str(bar) for bar in rng.choice(some, 2, replace=False)]
    formula = "y ~ x + f + " + " + ".join(bars)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = blm.LMM(formula, data, check="warn").fit().ranova()
        parts = blm.from_partitions(formula, divided(data, seed), check="warn").fit().ranova()
    assert whole["term"].tolist() == parts["term"].tolist()
    assert parts["loglik"].to_numpy() == pytest.approx(whole["loglik"].to_numpy(), rel=1e-8)


def test_a_table_and_a_file_without_rows() -> None:
    duckdb = pytest.importorskip("duckdb")
    data = rows()
    whole = blm.LMM(FORMULAS[0], data).fit().ranova()
    table = blm.from_table(FORMULAS[0], duckdb.from_df(data)).fit().ranova()
    pd.testing.assert_frame_equal(whole, table, rtol=1e-6)
