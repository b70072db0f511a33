"""Whether ranks are uniform: the smallest pointwise binomial tail of their distribution, and its exact probability under uniformity.

Säilynoja, Bürkner and Vehtari (2022) hold the whole distribution of ranks against simultaneous limits. Counts of uniform ranks are
multinomial, so independent Poisson counts given their sum: the probability that the distribution stays within limits everywhere is a
chain of convolutions, exact, where simulated sets of ranks would give no p value below one over their number.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, poisson

from bayeslmm.arrays import Array, Codes

FINE = 1e-3
"""Relative precision of a tail."""


def distribution(ranks: Codes, draws: int) -> Array:
    """Share of ranks below 1, 2, ..., `draws`."""
    counts = np.bincount(ranks, minlength=draws + 1)
    return np.asarray(np.cumsum(counts)[:-1] / len(ranks))


def smallest_tail(ranks: Codes, draws: int) -> float:
    """Smallest two-sided binomial tail over the distribution of ranks."""
    n, x = len(ranks), np.arange(1, draws + 1) / (draws + 1)
    counts = np.rint(distribution(ranks, draws) * n)
    return float(np.minimum(binom.cdf(counts, n, x), binom.sf(counts - 1, n, x)).min())


def limits(tail: float, n: int, draws: int) -> tuple[Codes, Codes]:
    """Smallest and largest counts of n ranks below 1, ..., `draws` with no binomial tail of `tail` or less."""
    x = np.arange(1, draws + 1) / (draws + 1)
    return np.asarray(binom.ppf(tail, n, x), np.int64), np.asarray(binom.isf(tail, n, x), np.int64)


def chance(tail: float, n: int, draws: int) -> float:
    """Probability that n uniform ranks have a smallest tail of `tail` or less."""
    # what is equal but for rounding counts as equal
    low, high = limits(tail * (1.0 + 1e-9), n, draws)
    if np.any(low > high):
        return 1.0
    step = poisson.pmf(np.arange(n + 1), n / (draws + 1))
    # probabilities of the counts first, first + 1, ... that have stayed within the limits so far
    inside, first = np.ones(1), 0
    for a, b in zip(np.append(low, n), np.append(high, n), strict=True):
        reached = np.zeros(n + 1)
        reached[first:] = np.convolve(inside, step)[: n + 1 - first]
        inside, first = reached[a : b + 1], int(a)
    stays = float(inside[0] / poisson.pmf(n, n))
    # 1 - stays is lost in rounding below about 1e-12; the sum of all tails bounds it there
    return float(np.clip(1.0 - stays, 0.0, min(1.0, 2.0 * draws * tail)))


def simultaneous(level: float, n: int, draws: int) -> float:
    """The largest tail that n uniform ranks stay above everywhere with a probability of at least 1 - `level`."""

    def excess(log_tail: float) -> float:
        return chance(float(np.exp(log_tail)), n, draws) - level

    lowest, highest = float(np.log(level / (2.0 * draws))), float(np.log(level))
    if excess(highest) <= 0.0:
        return level
    # chance climbs in steps, since counts are whole: the foot of the step is meant
    return float(np.exp(brentq(excess, lowest - FINE, highest, xtol=FINE) - FINE))
