"""Log densities of the prior families, their derivatives and draws from them; LKJ on partial correlations.

Densities are on the scale that a user speaks of: standard deviations, correlations, coefficients. Axes and Jacobians are the business of
whoever calls. An improper family has density 1 (flat) or a power (gamma with rate 0), known up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from bayeslmm.arrays import Array, Codes, readonly
from bayeslmm.spec.families import Prior

Generator = np.random.Generator

HALF = frozenset({"half_t", "half_normal", "half_cauchy", "exponential", "gamma", "inverse_gamma"})
"""Families of positive numbers."""


def _student(df: float, scale: float, v: Array) -> Array:
    constant = gammaln(0.5 * (df + 1.0)) - gammaln(0.5 * df) - 0.5 * np.log(df * np.pi) - np.log(scale)
    return np.asarray(constant - 0.5 * (df + 1.0) * np.log1p((v / scale) ** 2 / df))


def _student_slope(df: float, scale: float, v: Array) -> Array:
    return -(df + 1.0) * v / (df * scale**2 + v**2)


def _normal(mean: float, sd: float, v: Array) -> Array:
    return np.asarray(-0.5 * np.log(2.0 * np.pi) - np.log(sd) - 0.5 * ((v - mean) / sd) ** 2)


def _gamma(shape: float, rate: float, v: Array) -> Array:
    constant = shape * np.log(rate) - gammaln(shape) if rate > 0 else 0.0
    return np.asarray(constant + (shape - 1.0) * np.log(v) - rate * v)


def _inverse_gamma(shape: float, scale: float, v: Array) -> Array:
    return np.asarray(shape * np.log(scale) - gammaln(shape) - (shape + 1.0) * np.log(v) - scale / v)


@dataclass(frozen=True, slots=True)
class Family:
    """log p(v), its derivative, and draws; each takes the parameters first."""

    log_density: Callable[..., Array]
    slope: Callable[..., Array]
    draw: Callable[..., Array]


FAMILIES: dict[str, Family] = {
    "half_t": Family(
        lambda df, s, v: np.log(2.0) + _student(df, s, v),
        _student_slope,
        lambda df, s, rng, n: np.abs(s * rng.standard_t(df, n)),
    ),
    "half_cauchy": Family(
        lambda s, v: np.log(2.0) + _student(1.0, s, v),
        lambda s, v: _student_slope(1.0, s, v),
        lambda s, rng, n: np.abs(s * rng.standard_cauchy(n)),
    ),
    "half_normal": Family(
        lambda s, v: np.log(2.0) + _normal(0.0, s, v),
        lambda s, v: -v / s**2,
        lambda s, rng, n: np.abs(s * rng.standard_normal(n)),
    ),
    "exponential": Family(lambda r, v: np.log(r) - r * v, lambda r, v: np.full_like(v, -r), lambda r, rng, n: rng.exponential(1.0 / r, n)),
    "gamma": Family(_gamma, lambda a, r, v: (a - 1.0) / v - r, lambda a, r, rng, n: rng.gamma(a, 1.0 / r, n)),
    "inverse_gamma": Family(
        _inverse_gamma,
        lambda a, s, v: -(a + 1.0) / v + s / v**2,
        lambda a, s, rng, n: s / rng.gamma(a, 1.0, n),
    ),
    "uniform": Family(
        lambda a, b, v: np.full_like(v, -np.log(b - a)),
        lambda a, b, v: np.zeros_like(v),
        lambda a, b, rng, n: rng.uniform(a, b, n),
    ),
    "flat": Family(lambda v: np.zeros_like(v), lambda v: np.zeros_like(v), lambda rng, n: np.full(n, np.nan)),
    "normal": Family(_normal, lambda m, s, v: -(v - m) / s**2, lambda m, s, rng, n: rng.normal(m, s, n)),
}


def log_density(prior: Prior, values: Array) -> Array:
    """log p(v), -inf outside the support; values of any shape.

    >>> float(log_density(Prior("exponential", (2.0,)), np.array(0.0)).round(4))
    0.6931
    """
    v = np.asarray(values, float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out = FAMILIES[prior.family].log_density(*prior.parameters, v)
    return np.where(inside(prior, v), out, -np.inf)


def slope(prior: Prior, values: Array) -> Array:
    """d log p / dv."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(FAMILIES[prior.family].slope(*prior.parameters, np.asarray(values, float)))


def inside(prior: Prior, values: Array) -> Array:
    """Where the density is positive."""
    if prior.family == "uniform":
        return np.asarray((values >= prior.parameters[0]) & (values <= prior.parameters[1]))
    if prior.family in HALF:
        return np.asarray(values >= 0.0)
    return np.ones(np.shape(values), bool)


def draw(prior: Prior, rng: Generator, n: int) -> Array:
    """n draws; NaN from an improper prior."""
    if not proper(prior):
        return np.full(n, np.nan)
    return np.asarray(FAMILIES[prior.family].draw(*prior.parameters, rng, n))


def proper(prior: Prior) -> bool:
    """Whether the density integrates to 1."""
    return prior.family != "flat" and not (prior.family == "gamma" and prior.parameters[1] == 0.0)


# -- LKJ ---------------------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def partial_positions(q: int) -> tuple[Codes, Codes]:
    """Row and column of every canonical partial correlation, row by row."""
    rows, columns = np.tril_indices(q, -1)
    return readonly(rows), readonly(columns)


def lkj_shapes(q: int, eta: float) -> Array:
    """b of every partial correlation z, (z + 1)/2 ~ Beta(b, b), when the correlation matrix is LKJ(eta)."""
    return np.asarray(eta + 0.5 * (q - 2 - partial_positions(q)[1]))


def lkj_log_constant(q: int, eta: float) -> float:
    """Minus the log normalising constant of LKJ in terms of its partial correlations on (-1, 1)."""
    b = lkj_shapes(q, eta)
    return float(np.sum(2.0 * gammaln(b) - gammaln(2.0 * b) + (2.0 * b - 1.0) * np.log(2.0)))


def lkj_draw(q: int, eta: float, rng: Generator, n: int) -> Array:
    """Partial correlations of n draws, (n, q (q - 1) / 2)."""
    b = lkj_shapes(q, eta)
    return np.asarray(2.0 * rng.beta(b, b, (n, len(b))) - 1.0)
