"""Parameters so far out that squares pass the largest number: the criterion says that it does not exist there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(12), 4)
    x = rng.normal(size=48)
    return pd.DataFrame({"y": x + rng.normal(size=48), "x": x, "p": np.exp(x), "g": g.astype(str), "v": np.tile(np.arange(4), 12)})


@pytest.mark.parametrize(
    ("formula", "residual", "variance"),
    [
        ("y ~ x", None, "exp(x)"),
        ("y ~ x + (1 | g)", None, "power(p)"),
        ("y ~ x", "ar1h(v | g)", None),
        ("y ~ x + (1 | g)", "fa0(v | g, 1)", "exp(x)"),
        ("y ~ x + (x | g)", None, None),
    ],
)
def test_no_parameter_is_too_large_to_be_evaluated(formula: str, residual: str | None, variance: str | None) -> None:
    problem = blm.LMM(formula, rows(), residual=residual, variance=variance).problem
    rng = np.random.default_rng(1)
    for power in np.linspace(0.0, 3.0, 25):
        for sign in (-1.0, 1.0):
            x = problem.start + sign * 10.0**power * rng.uniform(0.5, 1.0, problem.size)
            for restricted in (True, False):
                value = problem.criterion.at(x, restricted, order=1).value
                assert value == np.inf or np.isfinite(value)
