"""The distribution of a likelihood ratio when variances are tested at 0, the edge of what they can be.

A column added to a random term brings a variance that cannot be negative, and covariances with the other columns that are free. One column:
half chi2(d - 1), half chi2(d) with d the parameters added (Self and Liang 1987; Stram and Lee 1994). Several columns in terms of their own:
binomial weights. k columns in one unstructured term: the cone of positive semi-definite k x k matrices, whose weights are known for k = 2
and simulated for more. Weights are those of an identity information: exact for one column, an approximation for several.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import sqrt

import numpy as np
from scipy import stats

from bayeslmm.arrays import Array
from bayeslmm.data.design import Design, RandomTerm

DRAWS = 20_000
"""Draws for a cone of 3 x 3 matrices or larger."""

HALVES = np.array([0.5, 0.5])
TWO_BY_TWO = np.array([(1.0 - sqrt(0.5)) / 2.0, sqrt(0.125), sqrt(0.125), (1.0 - sqrt(0.5)) / 2.0])


@dataclass(frozen=True, slots=True)
class Mixture:
    """blocks : sizes of the cones, one for each unstructured set of columns tested at 0; free : parameters tested inside their range."""

    blocks: tuple[int, ...]
    free: int

    def p_value(self, statistic: float) -> float:
        """P(statistic or larger)."""
        if not np.isfinite(statistic):
            return float("nan")
        if statistic <= 0.0:
            return 1.0
        known = [HALVES if k == 1 else TWO_BY_TWO for k in self.blocks if k <= 2]
        weights: Array = reduce(np.convolve, known, np.ones(1))
        apart = sum((_cone_draws(k) for k in self.blocks if k > 2), start=np.zeros(1))
        tails = [w * np.mean(_tail(statistic - apart, j + self.free)) for j, w in enumerate(weights)]
        return float(sum(tails))


def _tail(value: Array, df: int) -> Array:
    """chi2 with 0 degrees of freedom is 0."""
    return np.asarray((value <= 0.0).astype(float) if df == 0 else stats.chi2.sf(value, df))


def _cone_draws(k: int) -> Array:
    """Squared length of a standard normal symmetric matrix projected on the positive semi-definite ones, (DRAWS,)."""
    rng = np.random.default_rng(k)
    M = rng.standard_normal((DRAWS, k, k))
    # unit variance on the diagonal, one half off it: standard normal in the Frobenius norm
    values = np.linalg.eigvalsh((M + M.swapaxes(-1, -2)) / 2.0)
    return np.asarray(np.sum(np.maximum(values, 0.0) ** 2, axis=1))


def mixture(null: Design, alternative: Design, added: int) -> Mixture | None:
    """What a likelihood ratio of two designs is compared with; None where no variance is tested at 0, or which ones cannot be told.

    added : parameters that the alternative has more
    """
    blocks = added_columns(null, alternative)
    if not blocks:
        return None
    free = added - sum(k * (k + 1) // 2 for k in blocks)
    return Mixture(tuple(blocks), free) if free >= 0 else None


def added_columns(null: Design, alternative: Design) -> list[int]:
    """Sizes of the sets of random columns that only the alternative has; empty where the null is not the alternative without some."""
    if (null.residual is None) != (alternative.residual is None):
        return []
    had, blocks = _columns(null), []
    if not set(had) <= set(_columns(alternative)):
        return []
    for term in alternative.terms:
        new = [c for c in term.columns if (term.group.name, c) not in had]
        if not new:
            continue
        if _independent(term):
            blocks += [1] * len(new)
        elif term.covariance.name in ("us", "un"):
            blocks.append(len(new))
        else:
            return []
    return blocks


def _columns(design: Design) -> list[tuple[str, str]]:
    return [(term.group.name, column) for term in design.terms for column in term.columns]


def _independent(term: RandomTerm) -> bool:
    return term.covariance.name == "diag" or len(term.columns) == 1
