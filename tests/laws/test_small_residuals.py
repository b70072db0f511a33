"""Crossed effects thousands of times the residuals: what is left after them is the least-squares residual with both factors fixed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.random_effects.schur import PackedBlock

SIZES = {"blocks": (200, 50, 2000), "large": (400, TUNING.packed_columns + 44, 4000), "components": (120, 30, 1500)}


def data(sizes: tuple[int, int, int], sd: float, apart: bool) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    K, L, n = sizes
    a, b = rng.integers(0, K, n), rng.integers(0, L, n)
    if apart:  # two components: even levels meet even ones
        b = b - b % 2 + a % 2
    x = rng.normal(size=n)
    y = 1 + x + rng.normal(size=K)[a] + rng.normal(size=L)[b] + sd * rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})


def residual_sd(frame: pd.DataFrame) -> float:
    """Both factors as fixed effects."""
    X = np.column_stack([frame["x"], pd.get_dummies(frame["a"]), pd.get_dummies(frame["b"])]).astype(float)
    _, _, rank, _ = np.linalg.lstsq(X, frame["y"], rcond=None)
    residual = frame["y"] - X @ np.linalg.lstsq(X, frame["y"], rcond=None)[0]
    return float(np.sqrt((residual**2).sum() / (len(frame) - rank)))


@pytest.mark.parametrize("sd", [1e-3, 3e-4])
@pytest.mark.parametrize("name", SIZES)
def test_crossed_effects_far_above_the_residuals_are_fitted(name: str, sd: float) -> None:
    frame = data(SIZES[name], sd, name == "components")
    fit = blm.LMM("y ~ x + (1 | a) + (1 | b)", frame).fit()
    blocks = fit.point.state.levels.rest.blocks
    assert any(isinstance(block, PackedBlock) for block in blocks) == (name == "large")
    # random effects of size 1 differ from fixed ones by their shrinkage, of order sd^2; rounding leaves the criterion four digits after
    # the point, with which the search ends within a thousandth of a standard error of the variances
    assert fit.sigma == pytest.approx(residual_sd(frame), rel=2e-5)
    plain = blm.LMM("y ~ x + (1 | a) + (1 | b)", data(SIZES[name], 0.03, name == "components")).fit()
    np.testing.assert_allclose(fit.theta * fit.sigma, plain.theta * plain.sigma, rtol=5e-3)


def test_the_gradient_holds_far_beyond_the_optimum() -> None:
    problem = blm.LMM("y ~ x + (1 | a) + (1 | b)", data(SIZES["blocks"], 1e-3, False)).problem
    x = np.array([3e3, 2e3])
    point = problem.criterion.at(x, True, order=1)
    moves = np.concatenate([x * (1 + 1e-3 * np.eye(2)), x * (1 - 1e-3 * np.eye(2))])
    values = np.array([problem.criterion.at(move, True, order=0).value for move in moves])
    np.testing.assert_allclose(point.gradient * x, (values[:2] - values[2:]) / 2e-3, rtol=1e-2)


@pytest.mark.parametrize("sd", [1e-5, 1e-7])
@pytest.mark.parametrize("random", ["(1 | g) + (1 | h)", "(x | g) + (1 | h)"])
def test_few_rows_of_crossed_effects_are_fitted_to_the_last_digits(random: str, sd: float) -> None:
    rng = np.random.default_rng(0)
    g, h, x = np.repeat(np.arange(6), 4), np.tile(np.arange(3), 8), rng.normal(size=24)
    y = x + rng.normal(size=6)[g] + rng.normal(size=3)[h] + sd * rng.normal(size=24)
    frame = pd.DataFrame({"y": y, "x": x, "a": g, "b": h, "g": g.astype(str), "h": h.astype(str)})
    model = blm.LMM(f"y ~ x + {random}", frame, check="warn")
    fit = model.fit()
    assert fit.converged
    for i, size in enumerate(fit.theta):
        for share in (0.99, 1.01):
            theta = fit.theta.copy()
            theta[i] = share * size
            assert model.criterion(theta) >= fit.criterion - 1e-7
    if "(x" not in random:
        assert fit.sigma == pytest.approx(residual_sd(frame), rel=1e-5)
        # conditional modes leave the least-squares residuals with both factors fixed
        assert float((fit.residuals() ** 2).sum()) == pytest.approx(fit.sigma**2 * 15, rel=1e-4)
