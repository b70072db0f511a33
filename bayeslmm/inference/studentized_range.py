"""The studentized range (Tukey): the largest difference of k independent means over their estimated standard error.

    P(Q > q) = 1 - int f(s) k int phi(z) [Phi(z) - Phi(z - q s)]^(k - 1) dz ds,   df s^2 ~ chi2(df)

Both integrals are smooth and taken by Gauss-Legendre rules, for many q at once; absolute error below 1e-10 for df >= 2.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import optimize, special, stats

from bayeslmm.arrays import Array, readonly

NODES = 96
TAIL = 1e-15
"""Probability of the scale left out at either end."""


def survival(q: Array, k: int, df: Array) -> Array:
    """P(Q > q) for each q with its df; an infinite df has scale 1."""
    return np.array([_one(float(value), k, float(nu)) for value, nu in zip(q, df, strict=True)])


def quantile(level: float, k: int, df: float) -> float:
    """q with P(Q <= q) = level."""
    high = float(np.sqrt(2.0) * stats.t.isf((1.0 - level) / (k * (k - 1)), df))
    low = float(np.sqrt(2.0) * stats.t.isf((1.0 - level) / 2.0, df))
    if k == 2:
        return low
    return float(optimize.brentq(lambda q: _one(q, k, df) - (1.0 - level), 0.99 * low, 1.01 * high, xtol=1e-9))


@cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return readonly(nodes), readonly(weights)


def _rule(low: float, high: float) -> tuple[Array, Array]:
    nodes, weights = _legendre()
    return 0.5 * (high - low) * nodes + 0.5 * (high + low), 0.5 * (high - low) * weights


def _range_cdf(w: Array, k: int) -> Array:
    """P(range of k standard normals < w)."""
    z, weights = _rule(-8.5, 8.5)
    # z is the largest of the k: the others lie between z - w and z
    inside = special.ndtr(z) - special.ndtr(z - w[:, None])
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(k * (inside ** (k - 1)) @ (weights * density))


def _one(q: float, k: int, df: float) -> float:
    if q <= 0.0:
        return 1.0
    if not np.isfinite(df):
        return float(1.0 - _range_cdf(np.array([q]), k)[0])
    low, high = (0.5 * np.log(stats.chi2.ppf(p, df) / df) for p in (TAIL, 1.0 - TAIL))
    t, weights = _rule(float(low), float(high))
    s = np.exp(t)
    # density of log s, from that of the chi-square
    density = 2.0 * df * s**2 * stats.chi2.pdf(df * s**2, df)
    return float((weights * density) @ (1.0 - _range_cdf(q * s, k)))
