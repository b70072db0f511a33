"""Degrees of freedom by counting: between and within subjects (mmrm), containment (nlme)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.design import Design, GroupingFactor
from bayeslmm.errors import InferenceError

Flags = NDArray[np.bool_]


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


def varies_within(X: Array, codes: Codes) -> Flags:
    """Which columns of X change within some level, (p,) of bool."""
    first = np.zeros(int(codes.max()) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return np.asarray(np.any(X[first[codes]] != X, axis=0))


def constant_columns(X: Array) -> Flags:
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
    _refuse_crossed(factors)
    constant = constant_columns(X)
    stratum = np.sum([varies_within(X, g.codes) for g in factors], axis=0)
    sizes = [int(constant.any()), *(len(g.levels) for g in factors), design.nobs]
    values = [sizes[i + 1] - sizes[i] - int(((stratum == i) & ~constant).sum()) for i in range(len(sizes) - 1)]
    stratum[constant] = len(factors)
    return np.asarray(np.array(values, float)[stratum])


def _refuse_crossed(factors: Sequence[GroupingFactor]) -> None:
    for outer, inner in pairwise(factors):
        if not is_nested(inner.codes, outer.codes):
            raise InferenceError(
                "containment counts groups nested in one another",
                f"{inner.name} is crossed with {outer.name}",
                "use df='satterthwaite' or df='kenward-roger'",
            )
