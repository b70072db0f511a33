"""A response that the levels of a factor reproduce is refused, or fails a check, whatever else the model has and whatever its size."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError


def exact(seed: int) -> tuple[str, pd.DataFrame, dict[str, Any]]:
    """40 to 8,000 rows; a response constant within schools, or a line there, beside classes nested or crossed."""
    rng = np.random.default_rng(seed)
    schools, n = int(rng.integers(4, 60)), int(np.exp(rng.uniform(np.log(40), np.log(8000))))
    s = rng.integers(0, schools, n)
    c = (
        s * 1000 + rng.integers(0, n // (schools * 4) + 2, n)
        if rng.random() < 0.5
        else rng.integers(0, max(3, n // int(rng.integers(3, 8))), n)
    )
    x = rng.normal(size=n) * 10 ** rng.uniform(-3, 3)
    y = (rng.normal(size=schools) * 10 ** rng.uniform(-6, 6))[s]
    kind = str(rng.choice(["level", "line", "slopes"]))
    if kind != "level":
        y = y + x * (rng.normal(size=schools)[s] if kind == "slopes" else rng.normal())
    data = pd.DataFrame({"y": y, "x": x, "s": s, "c": c, "z": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n)})
    term = "(x | s)" if kind == "slopes" else "(1 | s)"
    formula = str(rng.choice([term, f"{term} + (1 | c)", f"{term} + (z | c)", f"z + {term} + (1 | c)"]))
    return f"y ~ x + {formula}", data, {"weights": "w"} if rng.random() < 0.3 else {}


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(k, marks=pytest.mark.slow) for k in range(4, 150))])
@pytest.mark.parametrize("parts", [False, True])
def test_no_fit_of_an_exact_response_passes(seed: int, parts: bool) -> None:
    formula, data, options = exact(seed)
    half = len(data) // 2
    try:
        fit: Any = (
            blm.from_partitions(formula, [data[:half], data[half:]], **options).fit() if parts else blm.LMM(formula, data, **options).fit()
        )
    except BayesLMMError:
        return
    rounding = 64 * sys.float_info.epsilon * float(data["y"].abs().max())
    assert fit.checks["convergence"].verdict == "failed" or fit.sigma < rounding


def test_the_size_of_a_school_is_no_response_of_its_pupils() -> None:
    rng = np.random.default_rng(1)
    school = rng.integers(0, 60, 6000)
    size = rng.integers(100, 1600, 60)[school]
    data = pd.DataFrame({"size": size, "school": school, "child": rng.integers(0, 1700, 6000), "math": rng.normal(size=6000)})
    with pytest.raises(BayesLMMError, match="exactly"):
        blm.LMM("size ~ math + (math | child) + (1 | school)", data).fit()
