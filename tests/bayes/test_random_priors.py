"""Posteriors under priors of random families and sizes, against weights of an independent proposal and of densities by SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as blm
from bayeslmm._arrays import Array

LogDensity = Callable[[Array], Array]
PROPOSALS, DF, LEVELS = 150_000, 4.0, np.array([0.025, 0.25, 0.5, 0.75, 0.975])


def real_prior(rng: np.random.Generator, scale: float) -> tuple[Any, LogDensity]:
    m, s, df = float(rng.normal(0.0, scale)), float(scale * np.exp(rng.normal(0.0, 0.8))), float(rng.uniform(1.5, 8.0))
    families: list[tuple[Any, LogDensity]] = [
        (("normal", m, s), stats.norm(m, s).logpdf),
        (("student_t", df, m, s), stats.t(df, m, s).logpdf),
        (("cauchy", m, s), stats.cauchy(m, s).logpdf),
        (("laplace", m, s), stats.laplace(m, s).logpdf),
        ("flat", np.zeros_like),
    ]
    return families[rng.integers(len(families))]


def positive_prior(rng: np.random.Generator, scale: float) -> tuple[Any, LogDensity]:
    s, a, df = float(scale * np.exp(rng.normal(0.0, 0.7))), float(rng.uniform(1.2, 5.0)), float(rng.uniform(1.5, 8.0))
    families: list[tuple[Any, LogDensity]] = [
        (("half_normal", s), stats.halfnorm(scale=s).logpdf),
        (("half_t", df, s), lambda v: stats.t(df, 0.0, s).logpdf(v) + np.log(2.0)),
        (("half_cauchy", s), stats.halfcauchy(scale=s).logpdf),
        (("exponential", 1.0 / s), stats.expon(scale=s).logpdf),
        (("lognormal", float(np.log(s)), 0.6), stats.lognorm(0.6, scale=s).logpdf),
        (("gamma", a, a / s), stats.gamma(a, scale=s / a).logpdf),
        (("uniform", 0.0, 20.0 * s), stats.uniform(0.0, 20.0 * s).logpdf),
        (("inverse_gamma", a, a * s), stats.invgamma(a, scale=a * s).logpdf),
        (("truncated_normal", s, 0.5 * s), stats.truncnorm(-2.0, np.inf, s, 0.5 * s).logpdf),
    ]
    return families[rng.integers(len(families))]


def log_likelihood(rows: Array, weights: Array, codes: Array, alpha: Array, sigma: Array, sd: Array) -> Array:
    """log p(y | alpha, sigma, sd) of many points, rows [1, x, y]; one level after the other."""
    total = np.zeros(len(sd))
    for k in np.unique(codes):
        own, v = rows[codes == k], sigma[:, None] ** 2 / weights[codes == k]
        e = own[:, 2] - alpha @ own[:, :2].T
        precision, score = (1.0 / v).sum(axis=1), (e / v).sum(axis=1)
        square = (e**2 / v).sum(axis=1) - sd**2 * score**2 / (1.0 + sd**2 * precision)
        total -= 0.5 * (np.log(2.0 * np.pi * v).sum(axis=1) + np.log1p(sd**2 * precision) + square)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_a_posterior_is_that_of_its_priors(seed: int) -> None:
    """Weights, an offset, missing rows, units from .01 to 100 and names that clash, as it falls."""
    rng = np.random.default_rng(100 + seed)
    group, column = [("g h", "x"), ("x", "z"), ("alpha", "sigma"), ("G", "chain")][rng.integers(4)]
    G, n, scale = int(rng.integers(4, 12)), int(rng.integers(2, 8)), float(10.0 ** rng.uniform(-2.0, 2.0))
    g, x = np.repeat(np.arange(G), n), rng.normal(size=G * n) * 10.0 ** rng.uniform(-2.0, 2.0)
    weights, offset = rng.uniform(0.3, 3.0, G * n) ** rng.integers(2), rng.normal(size=G * n) * rng.integers(2)
    effects = 0.8 * rng.normal(size=G) * rng.integers(2)
    y = scale * (rng.normal() + rng.normal() * x / x.std() + effects[g] + rng.normal(size=G * n)) + offset
    seen = rng.random(G * n) > 0.15
    frame = pd.DataFrame({"y": np.where(seen, y, np.nan), column: x, group: g.astype(str), "w": weights, "o": offset})
    of_intercept, of_slope = real_prior(rng, 2.0 * scale), real_prior(rng, 2.0 * scale / x.std())
    of_sd, of_sigma = positive_prior(rng, scale), positive_prior(rng, scale)
    priors = blm.Priors(alpha={"Intercept": of_intercept[0], column: of_slope[0]}, sd=of_sd[0], sigma=of_sigma[0])
    model = blm.LMM(f"y ~ {column} + (1 | `{group}`)", frame, priors=priors, missing="drop", weights="w", offset="o", check="warn")
    post = model.sample(seed=1)
    sd = next(name for name in post.parameters if name.startswith("sd"))
    ours = np.column_stack([post.draws.alpha, post.parameters["sigma"].values.ravel(), post.parameters[sd].values.ravel()])

    centred = np.column_stack([ours[:, :2], np.log(ours[:, 2:])])
    root = np.linalg.cholesky(1.3 * np.cov(centred, rowvar=False))
    z = rng.standard_normal((PROPOSALS, 4)) / np.sqrt(rng.chisquare(DF, PROPOSALS) / DF)[:, None]
    z[: PROPOSALS // 5] *= 3.0
    proposals = np.median(centred, axis=0) + z @ root.T
    narrow, wide = (stats.multivariate_t(np.zeros(4), c**2 * np.eye(4), DF).logpdf(z) for c in (1.0, 3.0))
    theirs = np.column_stack([proposals[:, :2], np.exp(proposals[:, 2:])])
    rows = np.column_stack([np.ones(G * n), x, y - offset])[seen]
    log_weights = log_likelihood(rows, weights[seen], g[seen], theirs[:, :2], theirs[:, 2], theirs[:, 3])
    log_weights += of_intercept[1](theirs[:, 0]) + of_slope[1](theirs[:, 1]) + of_sigma[1](theirs[:, 2]) + of_sd[1](theirs[:, 3])
    log_weights += proposals[:, 2:].sum(axis=1) - np.logaddexp(np.log(0.8) + narrow, np.log(0.2) + wide)
    share = np.exp(log_weights - log_weights.max())
    share /= share.sum()
    assert 1.0 / (share**2).sum() > 1500.0
    for mine, own in zip(ours.T, theirs.T, strict=True):
        order = np.argsort(own)
        quantiles = own[order][np.searchsorted(np.cumsum(share[order]), LEVELS)]
        below = (mine[:, None] <= quantiles).mean(axis=0)
        np.testing.assert_allclose(below, LEVELS, atol=0.035)
