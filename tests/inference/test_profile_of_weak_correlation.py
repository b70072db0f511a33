"""Limits of a correlation beside an sd near 0: the profile is the lowest criterion, not the nearest minimum of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import bayeslmm as blm

QUANTILE = 3.841458820694124


def weak(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(10), 6), np.tile(np.arange(6.0), 10)
    b = rng.normal(size=(10, 2))
    y = 0.6 * b[g, 0] + 0.3 * (0.54 * b[g, 0] + 0.05 * b[g, 1]) * x + rng.normal(size=60)
    return pd.DataFrame({"g": g.astype(str), "x": x, "y": y})


def lowest(data: pd.DataFrame, r: float) -> float:
    """-2 log likelihood with the correlation at r, by dense matrices and many starts."""
    x, y = data.x.to_numpy()[:6], data.y.to_numpy().reshape(10, 6)
    Z = np.column_stack([np.ones(6), x])

    def value(theta: np.ndarray) -> float:
        a, b, s = np.exp(np.clip(theta, -12, 5))
        V = Z @ np.array([[a * a, r * a * b], [r * a * b, b * b]]) @ Z.T + s * s * np.eye(6)
        inverse = np.linalg.inv(V)
        e = y - Z @ np.linalg.solve(Z.T @ inverse @ Z, Z.T @ inverse @ y.mean(axis=0))
        return float(10 * np.linalg.slogdet(V)[1] + np.einsum("ij,jk,ik", e, inverse, e) + 60 * np.log(2 * np.pi))

    starts = [(np.log(a), np.log(b), 0.0) for a in (0.02, 0.3, 1.0) for b in (0.02, 0.3)]
    return min(float(minimize(value, start, method="BFGS").fun) for start in starts)


@pytest.mark.parametrize("seed", [0, 6, 8])
def test_limits_are_where_the_lowest_criterion_has_risen(seed: int) -> None:
    data = weak(seed)
    best = blm.LMM("y ~ x + (x | g)", data).fit("ML").criterion
    limit = blm.LMM("y ~ x + (x | g)", data).fit().confint("profile").set_index("term").loc["cor__Intercept.x|g", "conf_low"]
    if limit > -1.0:
        assert lowest(data, limit) - best == pytest.approx(QUANTILE, abs=2e-3)
    else:
        assert max(lowest(data, r) for r in (-0.5, -0.75, -0.9, -0.99)) - best < QUANTILE
