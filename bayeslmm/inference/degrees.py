"""Denominator degrees of freedom: one protocol for single contrasts and for several at once.

L is on the user's columns, one row per contrast, columns those kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.inference.kenward_roger import KenwardRoger
from bayeslmm.inference.tau import Curvature


class Degrees(Protocol):
    """What t and F tests ask of a method."""

    def rows(self, L: Array) -> Array:
        """(r,) degrees of freedom of each row of L (r, p)."""
        ...

    def joint(self, L: Array) -> tuple[float, float]:
        """Scale of the F statistic, and denominator degrees of freedom, of L (q, p) of full row rank."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same for every contrast: n - p, or infinity."""

    value: float

    def rows(self, L: Array) -> Array:
        return np.full(len(L), self.value)

    def joint(self, L: Array) -> tuple[float, float]:
        return 1.0, self.value


@dataclass(frozen=True, slots=True, eq=False)
class ByCoefficient:
    """Counted for each coefficient; a contrast has the smallest of those it involves.

    values : (p,)
    """

    values: Array

    def rows(self, L: Array) -> Array:
        return np.array([self._smallest(row[None]) for row in L])

    def joint(self, L: Array) -> tuple[float, float]:
        return 1.0, self._smallest(L)

    def _smallest(self, L: Array) -> float:
        size = np.abs(L).max(axis=0, initial=0.0)
        involved = size > 1e-10 * size.max(initial=0.0)
        return float(self.values[involved].min(initial=np.inf)) if involved.any() else np.nan


@dataclass(frozen=True, slots=True, eq=False)
class Satterthwaite:
    """Moments of the estimated variance of a contrast: df = 2 v^2 / var(v), var(v) by the delta method.

    back : (p, p) from conditioned columns to the user's; curvature : on conditioned columns
    """

    curvature: Curvature
    back: Array

    def rows(self, L: Array) -> Array:
        own = L @ self.back
        variance = np.einsum("rx,xy,ry->r", own, self.curvature.C, own)
        slopes = np.einsum("rx,txy,ry->rt", own, self.curvature.slopes, own, optimize=True)
        spread = np.einsum("rt,ts,rs->r", slopes, self.curvature.covariance, slopes)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * variance**2 / spread)

    def joint(self, L: Array) -> tuple[float, float]:
        return fai_cornelius(self, L, self.back @ self.curvature.C @ self.back.T)


@dataclass(frozen=True, slots=True, eq=False)
class KenwardRogerDegrees:
    """Kenward and Roger's, on the user's columns."""

    adjustment: KenwardRoger
    back: Array

    def rows(self, L: Array) -> Array:
        return self.adjustment.rows(L @ self.back)

    def joint(self, L: Array) -> tuple[float, float]:
        return self.adjustment.joint(L @ self.back)


def fai_cornelius(method: Degrees, L: Array, vcov: Array) -> tuple[float, float]:
    """Several contrasts at once: t tests on the eigenvectors of their covariance, put together by Fai and Cornelius (1996)."""
    if len(L) == 1:
        return 1.0, float(method.rows(L)[0])
    _, vectors = np.linalg.eigh(L @ vcov @ L.T)
    return 1.0, combined(method.rows(vectors.T @ L))


def combined(df: Array) -> float:
    """Denominator degrees of freedom of the mean of squared t statistics: the F whose mean is theirs."""
    q = len(df)
    if np.all(np.abs(df - df[0]) <= 1e-8 * np.abs(df[0])):
        return float(df.mean())
    if np.any(df <= 2.0):
        return 2.0
    mean = float(np.sum(df / (df - 2.0)))
    return float(2.0 * mean / (mean - q)) if mean > q else float("inf")
