"""The studentized range: the largest difference of k independent means over their estimated standard error.

    P(Q > q) = int f(s) G(q s) ds,   G(w) = k int phi(z) Phi(z)^(k-1) [1 - (1 - Phi(z - w) / Phi(z))^(k-1)] dz,   df s^2 ~ chi2(df)

Against the range of two means, that is Student's t, the law for any k is a smooth and nearly straight line on normal scores,

    y = Phi^-1 P(Q <= q)   over   x = Phi^-1 P(|t| <= q / sqrt 2):

a few Chebyshev nodes in x and in 1 / df say it for any number of statistics, with a relative error of the tail below 1e-8.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.polynomial import chebyshev
from scipy import special

from bayeslmm._arrays import Array, readonly

MAXIMUM_NODES = 96
"""Nodes of the integral over the largest of the k."""

SCALE_NODES = 28
"""Nodes of the integral over log s, on each of its four parts."""

SMALL_SHARE = 1e-5
STEP_HALF = 0.8
"""The parts end where this share of the scale lies below, and so far on either side of the step."""

RANGE_NODES, RANGE_STEPS = 100, 4096
"""Chebyshev nodes of the range at a known scale, and steps of its table."""

SCORE_NODES, DF_NODES = 36, 16
"""Chebyshev nodes in x and in 1 / df."""

LOWEST, HIGHEST = -8.0, 7.0
"""Normal scores y below which the tail is 1, and x above which (tails below 1e-12) it is a constant times that of t."""

LARGEST_RANGE = 12.0
"""The score of k = 2 beyond which a range of normals is not reached."""

SCARCE_DF, SCARCE_NODES = 0.3, 4000
"""Degrees of freedom below which the scale is integrated out for each range, and steps of that."""

OMITTED_TAIL = 1e-17
"""Probability of the scale, and of the largest, left out at either end."""


def studentized_range_sf(q: Array, k: int, df: Array) -> Array:
    """P(Q > q) for each q with its df; an infinite df has scale 1."""
    q, df = np.asarray(q, float), np.broadcast_to(np.asarray(df, float), np.shape(q))
    x = _score(q, df)
    if k == 2 or not len(q):
        return np.asarray(special.ndtr(-x))
    scarce = df < SCARCE_DF
    if scarce.any():
        out = np.empty(len(q))
        out[scarce], out[~scarce] = _scarce_tails(q[scarce], k, df[scarce]), studentized_range_sf(q[~scarce], k, df[~scarce])
        return out
    inside = np.minimum(x, HIGHEST)
    return np.asarray(special.ndtr(-_interpolate(inside, _inverse(df), k)) * special.ndtr(-x) / special.ndtr(-inside))


def _scarce_tails(q: Array, k: int, df: Array) -> Array:
    """The same where the scale is mostly 0 or huge, by the range instead: P(Q <= q) = E P(df s^2 >= df R^2 / q^2)."""
    edges = np.linspace(0.0, LARGEST_RANGE, SCARCE_NODES + 1)
    shares = np.diff(_range_tails(edges, k)[1])
    middle = 0.5 * (edges[1:] + edges[:-1])
    with np.errstate(divide="ignore"):
        below = special.gammaincc(0.5 * df[:, None], 0.5 * df[:, None] * (middle / q[:, None]) ** 2) @ shares
    return np.asarray(1.0 - below)


def studentized_range_quantile(level: float, k: int, df: Array) -> Array:
    """q with P(Q <= q) = level, for each df."""
    df = np.atleast_1d(np.asarray(df, float))
    wanted = float(special.ndtri(level))
    if k == 2 or not len(df):
        return _point(np.full(len(df), wanted), df)
    at = _nodes(_inverse(df), DF_NODES)
    return _point(_through(at, _score_of(wanted, _inverse(at), k), _inverse(df)), df)


def _inverse(values: Array) -> Array:
    """1 / values, where 0 and infinity are each other's."""
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.asarray(values, float))


# -- interpolation -----------------------------------------------------------------------------------------------------------------------


def _interpolate(x: Array, inverse: Array, k: int) -> Array:
    """y at each (x, 1 / df): interpolated in 1 / df and, between where y starts and the largest x, in x."""
    at_df = _nodes(inverse, DF_NODES)
    lows = _score_of(LOWEST, _inverse(at_df), k)
    low, high = _through(at_df, lows, inverse), max(float(x.max()), float(lows.max()) + 1.0)
    share = np.maximum((x - low) / (high - low), 0.0)
    if SCORE_NODES * len(at_df) >= len(x):
        return _scores(np.maximum(x, low), _inverse(inverse), k)
    at_x = 0.5 + 0.5 * chebyshev.chebpts2(SCORE_NODES)
    grid = lows + at_x[:, None] * (high - lows)
    table = _scores(grid.ravel(), np.tile(_inverse(at_df), SCORE_NODES), k).reshape(grid.shape)
    middle = np.linalg.solve(_basis(at_x, at_x), np.linalg.solve(_basis(at_df, at_df), table.T).T)
    return np.asarray(np.einsum("ni,ni->n", _basis(at_x, share) @ middle, _basis(at_df, inverse)))


def _score_of(y: float, df: Array, k: int) -> Array:
    """x at which the score is y, for each df: by secants, for the curve is nearly straight, kept between what is too low and too high."""
    low, high = np.full(len(df), -10.0), np.full(len(df), HIGHEST + 1.0)
    before, x = high, np.full(len(df), max(0.0, y))
    value = _scores(before, df, k) - y
    for _ in range(80):
        found = _scores(x, df, k) - y
        low, high = np.where(found < 0, x, low), np.where(found >= 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            after = x - found * (x - before) / (found - value)
        after = np.where((after > low) & (after < high) & (np.abs(found) < 2.0), after, 0.5 * (low + high))
        before, value, x = x, found, after
        if np.abs(x - before).max() < 1e-10:
            break
    return x


def _through(at: Array, values: Array, where: Array) -> Array:
    return np.asarray(_basis(at, where) @ np.linalg.solve(_basis(at, at), values))


def _nodes(values: Array, count: int) -> Array:
    """Chebyshev nodes over the range of the values; the value itself where there is but one."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-12 * high:
        return np.array([low])
    return np.asarray(0.5 * (low + high) + 0.5 * (high - low) * chebyshev.chebpts2(count))


def _basis(nodes: Array, where: Array) -> Array:
    """Chebyshev polynomials over the range of the nodes, (n, nodes)."""
    if len(nodes) == 1:
        return np.ones((len(where), 1))
    return np.asarray(chebyshev.chebvander((2.0 * where - nodes[0] - nodes[-1]) / (nodes[-1] - nodes[0]), len(nodes) - 1))


# -- the law -----------------------------------------------------------------------------------------------------------------------------


def _score(q: Array, df: Array) -> Array:
    """x: the normal score of P(|t| <= q / sqrt 2)."""
    t = np.asarray(q) / np.sqrt(2.0)
    tail = 2.0 * np.where(np.isfinite(df), special.stdtr(np.where(np.isfinite(df), df, 1.0), -t), special.ndtr(-t))
    return np.asarray(np.where(t > 0, -special.ndtri(np.minimum(tail, 1.0)), -np.inf))


def _point(x: Array, df: Array) -> Array:
    """q that has this score."""
    tail = 0.5 * special.ndtr(-x)
    finite = np.isfinite(df)
    return np.asarray(-np.sqrt(2.0) * np.where(finite, special.stdtrit(np.where(finite, df, 1.0), tail), special.ndtri(tail)))


def _scores(x: Array, df: Array, k: int) -> Array:
    """y at each x with its df, by integration over the scale."""
    q, finite = _point(x, df), np.isfinite(df)
    half = 0.5 * np.where(finite, df, 1.0)
    # with next to no df a share of the scales underflows
    ends = [0.5 * np.log(np.maximum(special.gammaincinv(half, p), np.finfo(float).tiny) / half) for p in (OMITTED_TAIL, SMALL_SHARE)]
    high = 0.5 * np.log(special.gammainccinv(half, OMITTED_TAIL) / half)
    # where the range of the k passes its median the integrand falls as a step
    step = np.log(_median_range(k) / np.maximum(q, 1e-300))
    ends += [np.clip(step - STEP_HALF, ends[0], high), np.clip(step + STEP_HALF, ends[0], high), high]
    parts = np.sort(np.stack(ends, axis=1), axis=1)
    t, weights = (part.reshape(len(x), -1) for part in _rule(parts[:, :-1], parts[:, 1:], SCALE_NODES))
    log_constant = np.log(2.0) + half * np.log(half) - special.gammaln(half)
    weights = weights * np.exp(log_constant[:, None] + 2.0 * half[:, None] * t - half[:, None] * np.exp(2.0 * t))
    y = _range_scores(q[:, None] * np.exp(t), k)
    above, below = (np.einsum("xs,xs->x", weights, special.ndtr(side)) for side in (-y, y))
    mixed = np.where(above < 0.5, -special.ndtri(above), special.ndtri(below))
    return np.asarray(np.where(finite, mixed, _range_scores(q, k)))


def _range_scores(w: Array, k: int) -> Array:
    """Normal scores of P(range of k standard normals <= w), from their table over the score of k = 2, by cubics."""
    low, step, table = _range_table(k)
    at = (np.clip(_score(w, np.full(np.shape(w), np.inf)), low, LARGEST_RANGE) - low) / step
    i = np.clip(at.astype(np.int64), 1, len(table) - 3)
    f = at - i
    a, b, c, d = (table[i + j] for j in (-1, 0, 1, 2))
    return np.asarray(b + f * ((c - a / 3.0 - b / 2.0 - d / 6.0) + f * (0.5 * (a + c) - b + f * ((d - a) / 6.0 + 0.5 * (b - c)))))


@cache
def _range_table(k: int) -> tuple[float, float, Array]:
    """The lowest score of k = 2, where that of k is nothing, a step, and the scores of k in these steps."""
    infinite = np.full(RANGE_NODES, np.inf)
    low = float(_score(np.array([_range_at(special.ndtr(LOWEST - 2.0), k)]), infinite[:1])[0])
    nodes = chebyshev.chebpts1(RANGE_NODES)
    above, below = _range_tails(_point(0.5 * (low + LARGEST_RANGE) + 0.5 * (LARGEST_RANGE - low) * nodes, infinite), k)
    y = np.where(above < 0.5, -special.ndtri(above), special.ndtri(below))
    table = chebyshev.chebval(np.linspace(-1.0, 1.0, RANGE_STEPS), chebyshev.chebfit(nodes, y, RANGE_NODES - 1))
    return low, (LARGEST_RANGE - low) / (RANGE_STEPS - 1), readonly(table)


@cache
def _median_range(k: int) -> float:
    return _range_at(0.5, k)


def _range_at(p: float, k: int) -> float:
    """w with P(range of k standard normals <= w) = p, to a thousandth."""
    low, high = 1e-60, 20.0
    while high > 1.001 * low:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if _range_tails(np.array([middle]), k)[1][0] > p else (middle, high)
    return high


def _range_tails(w: Array, k: int) -> tuple[Array, Array]:
    """P(range > w), P(range <= w), each with its own relative accuracy."""
    start = float(special.ndtri(OMITTED_TAIL ** (1.0 / k)))
    z, weights = _rule(np.full(len(w), start), np.maximum(8.5, 0.5 * w + 8.5), MAXIMUM_NODES)
    largest = special.log_ndtr(z)
    # given the largest, the share of the others that lie w or more below it
    share = np.minimum(special.log_ndtr(z - w[:, None]) - largest, -1e-300)
    near = np.maximum(share, -np.log(2.0))
    log_all_above = (k - 1) * np.where(share < near, np.log1p(-np.exp(np.minimum(share, -np.log(2.0)))), np.log(-np.expm1(near)))
    weights = weights * k * np.exp(-0.5 * z**2 + (k - 1) * largest) / np.sqrt(2.0 * np.pi)
    return np.einsum("wz,wz->w", weights, -np.expm1(log_all_above)), np.einsum("wz,wz->w", weights, np.exp(log_all_above))


@cache
def _legendre(count: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return readonly(nodes), readonly(weights)


def _rule(low: Array, high: Array, count: int) -> tuple[Array, Array]:
    """Nodes and weights between each low and high."""
    nodes, weights = _legendre(count)
    half = 0.5 * (high - low)[..., None]
    return half * nodes + 0.5 * (high + low)[..., None], half * weights
