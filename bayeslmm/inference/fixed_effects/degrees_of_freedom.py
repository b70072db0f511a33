"""Denominator degrees of freedom: Satterthwaite, Kenward-Roger, between-within (mmrm), containment (nlme), residual.

L is on the user's columns, one row per contrast, columns those kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from bayeslmm._arrays import Array, Codes, Mask
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import InferenceError
from bayeslmm.inference.fixed_effects.information import ObservedInformation
from bayeslmm.inference.fixed_effects.kenward_roger import KenwardRoger


class Degrees(Protocol):
    """What t and F tests ask of a method."""

    def rows(self, L: Array) -> Array:
        """(r,) degrees of freedom of each row of L (r, p)."""
        ...

    def joint(self, L: Array) -> tuple[float, float]:
        """Scale of the F statistic, and denominator degrees of freedom, of L (q, p) of full row rank."""
        ...


@dataclass(frozen=True, slots=True)
class ConstantDegrees:
    """The same for every contrast: n - p, or infinity."""

    value: float

    def rows(self, L: Array) -> Array:
        return np.full(len(L), self.value)

    def joint(self, L: Array) -> tuple[float, float]:
        return 1.0, self.value


@dataclass(frozen=True, slots=True, eq=False)
class CoefficientDegrees:
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

    back : (p, p) from standardized columns to the user's; curvature : on standardized columns
    """

    curvature: ObservedInformation
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
    return 1.0, combined_df(method.rows(vectors.T @ L))


def combined_df(df: Array) -> float:
    """Denominator degrees of freedom of the mean of squared t statistics: the F whose mean is theirs."""
    q = len(df)
    if np.all(np.abs(df - df[0]) <= 1e-8 * np.abs(df[0])):
        return float(df.mean())
    if np.any(df <= 2.0):
        return 2.0
    mean = float(np.sum(df / (df - 2.0)))
    return float(2.0 * mean / (mean - q)) if mean > q else float("inf")


def grouping_factors(design: Design) -> list[GroupingFactor]:
    """Grouping factors of the random terms, and the subject of a residual structure, once each, fewest levels first."""
    found: dict[str, GroupingFactor] = {}
    for term in design.terms:
        found.setdefault(term.group.name, term.group)
    if design.residual is not None:
        found.setdefault(design.residual.subject.name, design.residual.subject)
    return sorted(found.values(), key=lambda g: len(g.levels))


def is_nested(inner: Codes, outer: Codes) -> bool:
    """Whether every level of `inner` lies within one level of `outer`."""
    first = np.zeros(int(inner.max()) + 1, outer.dtype)
    first[inner] = outer
    return bool(np.array_equal(first[inner], outer))


def varies_within(X: Array, codes: Codes) -> Mask:
    """Which columns of X change within some level, (p,) of bool."""
    first = np.zeros(int(codes.max()) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return np.asarray(np.any(X[first[codes]] != X, axis=0))


def constant_columns(X: Array) -> Mask:
    """Which columns hold one value other than 0."""
    return np.asarray(np.all(X[:1] == X, axis=0) & (X[0] != 0))


def top_factor(design: Design, what: str) -> GroupingFactor:
    """The factor within whose levels all others lie."""
    factors = grouping_factors(design)
    if not factors:
        raise InferenceError(f"{what} needs groups of rows, and this model has none", "", "use df='residual'")
    top = factors[0]
    for other in factors[1:]:
        if not is_nested(other.codes, top.codes):
            raise InferenceError(
                f"{what} needs one factor within whose levels all others lie",
                f"{other.name} is crossed with {top.name}",
                "use df='satterthwaite' or df='kenward-roger', which do not count levels",
            )
    return top


def between_within(design: Design) -> Array:
    """subjects - 1 - columns constant within them for those columns; rows - subjects - columns that vary for the others and the intercept.

    This is mmrm's count, and SAS's DDFM=BETWITHIN but for TYPE=UN.
    """
    subject = top_factor(design, "df='between-within'")
    X = design.X
    constant, within = constant_columns(X), varies_within(X, subject.codes)
    has_intercept = int(constant.any())
    outer = len(subject.levels) - int((~within & ~constant).sum()) - has_intercept
    inner = design.nobs - len(subject.levels) - int(within.sum())
    return np.where(within | constant, float(inner), float(outer))


def containment(design: Design) -> Array:
    """nlme's rule: a column belongs to the innermost stratum in which it varies, and the intercept to the last.

    Stratum i of groups nested in one another has m_i - m_(i-1) - p_i degrees of freedom, m_0 = 1 with an intercept, the rows last.
    """
    factors = [g for g in grouping_factors(design) if any(t.group.name == g.name for t in design.terms)]
    X = design.X
    if not factors:
        return np.full(X.shape[1], float(design.nobs - X.shape[1]))
    _check_not_crossed(factors)
    constant = constant_columns(X)
    stratum = np.sum([varies_within(X, g.codes) for g in factors], axis=0)
    sizes = [int(constant.any()), *(len(g.levels) for g in factors), design.nobs]
    values = [sizes[i + 1] - sizes[i] - int(((stratum == i) & ~constant).sum()) for i in range(len(sizes) - 1)]
    stratum[constant] = len(factors)
    return np.asarray(np.array(values, float)[stratum])


def _check_not_crossed(factors: Sequence[GroupingFactor]) -> None:
    for outer, inner in pairwise(factors):
        if not is_nested(inner.codes, outer.codes):
            raise InferenceError(
                "containment counts groups nested in one another",
                f"{inner.name} is crossed with {outer.name}",
                "use df='satterthwaite' or df='kenward-roger'",
            )
