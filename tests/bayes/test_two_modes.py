"""A posterior with two modes, of a covariate whose slope between levels is another than within them, is sampled as a grid has it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.bayes.sampling.mode import PosteriorMode, find_mode


def contextual(seed: int) -> pd.DataFrame:
    """Five to thirteen levels of three to seven rows."""
    rng = np.random.default_rng(seed)
    K, m = int(rng.integers(5, 14)), int(rng.integers(3, 8))
    g = np.repeat(np.arange(K), m)
    means = rng.normal(size=K) * 10 ** rng.uniform(0, 1)
    x = means[g] + rng.normal(size=K * m)
    slopes = rng.normal(size=2)
    effects = rng.normal(size=K) * 10 ** rng.uniform(-0.5, 0.7)
    y = slopes[0] * (x - means[g]) + slopes[1] * means[g] + effects[g] + rng.normal(size=K * m) * 10 ** rng.uniform(-0.2, 0.8)
    return pd.DataFrame({"y": y, "x": x, "g": g})


def grid(target: Density, mode: PosteriorMode, count: int = 400) -> tuple[Array, Array]:
    """Points (count^2, 2) far around all modes and their normalised weights."""
    ends = np.array(
        [own.phi + side * 12 * np.sqrt(np.diag(np.linalg.inv(own.precision))) for own in (mode, *mode.others) for side in (-1, 1)]
    )
    axes = [np.linspace(low, high, count) for low, high in zip(ends.min(axis=0), ends.max(axis=0), strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    values = target.values(points)
    weights = np.exp(values - values.max())
    return points, weights / weights.sum()


@pytest.mark.parametrize("seed", [54, 206, *(pytest.param(k, marks=pytest.mark.slow) for k in (3, 13, 75, 395, 399))])
def test_draws_have_the_shares_of_a_grid(seed: int) -> None:
    post = blm.LMM("y ~ x + (1 | g)", contextual(seed)).sample(5000, seed=1)
    mode = find_mode(post.density)
    assert len(mode.others) == 1
    points, weights = grid(post.density, mode)
    mean = weights @ points
    sd = np.sqrt(weights @ (points - mean) ** 2)
    assert np.abs(post.draws.phi.mean(axis=0) - mean).max() < 0.03 * sd.max()
    between = 0.5 * (mode.phi[0] + mode.others[0].phi[0])
    assert (post.draws.phi[:, 0] < between).mean() == pytest.approx(weights[points[:, 0] < between].sum(), abs=0.01)
    assert post.checks["pareto_k"].verdict == "passed"
    assert post.checks["modes"].verdict == "noted"


def test_chains_that_seldom_cross_say_so() -> None:
    model = blm.LMM("y ~ x + (1 | g)", contextual(54))
    assert model.sample(50, seed=1, method="nuts").checks["modes"].verdict == "failed"
    assert "modes" not in blm.LMM("Reaction ~ Days + (1 | Subject)", blm.load_dataset("sleepstudy")).sample(50, seed=1).checks
