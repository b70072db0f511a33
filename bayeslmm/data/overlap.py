"""Random terms that the fixed effects contain, strata of a variance function with one row, columns too large or too small to be squared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.data.design import RandomTerm, VarianceDesign
from bayeslmm.data.wording import values_text
from bayeslmm.errors import DataError, IdentifiabilityError

_PRIORS = 'give priors and use fit("MAP") or sample(); or check="warn" to go on'
_INSIDE = 1e-9  # what is left of a column outside the fixed effects, relative to its length, is rounding
_LARGEST = 1e151
_NARROW = 16


def lost_in_fixed(terms: Sequence[RandomTerm], X: Array) -> tuple[IdentifiabilityError, ...]:
    """Columns of random terms all of whose effects the fixed effects can mimic: their variance does not change the restricted likelihood.

    An effect of every level drawn at random lies in the span of X with probability 0 unless all do.
    """
    found, basis, rng = [], None, None
    for term in terms:
        A = term.relationship
        if X.shape[1] == 0 or (A is None and term.group.size > X.shape[1]):
            continue
        rng = rng or np.random.default_rng(0)
        effect = rng.standard_normal(term.group.size)
        effect = (effect if A is None else A @ effect)[term.group.codes]
        if basis is None:
            basis = np.linalg.qr(X / np.linalg.norm(X, axis=0))[0]
        for j, name in enumerate(term.columns):
            column = term.Z[:, j] * effect
            outside = column - basis @ (basis.T @ column)
            if np.linalg.norm(outside) <= _INSIDE * np.linalg.norm(column):
                what = f"the fixed effects contain every effect of {name!r} in ({term.spec.text}): its variance cannot be estimated"
                where = f"{term.group.size} levels of {term.group.name!r}, {X.shape[1]} fixed effects"
                found.append(IdentifiabilityError(what, where, f"drop the random term, or the fixed one; or {_PRIORS}"))
                break
    return tuple(found)


def lone_rows(variance: Sequence[VarianceDesign]) -> tuple[IdentifiabilityError, ...]:
    """Strata of `ident()` with one row: a standard deviation of 0 there leaves the likelihood without a bound."""
    found = []
    for factor in variance:
        if factor.kind != "ident" or factor.strata is None:
            continue
        alone = np.flatnonzero(np.bincount(factor.strata, minlength=len(factor.labels)) == 1)
        if len(alone):
            shown = values_text([factor.labels[i] for i in alone])
            what = f"levels of {factor.spec.covariate!r} have one row, which has no sd of its own: {shown}"
            found.append(IdentifiabilityError(what, f"ident({factor.spec.covariate})", f"join levels; or {_PRIORS}"))
    return tuple(found)


def refuse_extreme(columns: Array, names: Sequence[str]) -> None:
    """Refuse columns whose squares would overflow or vanish."""
    if not columns.size:
        return
    if columns.shape[1] <= _NARROW:  # extremes down the columns of a long matrix of short rows take twenty times as long
        extremes = [(column.max(), column.min()) for column in columns.T]
    else:
        extremes = list(zip(columns.max(axis=0), columns.min(axis=0), strict=True))
    for name, (high, low) in zip(names, extremes, strict=True):
        size = max(high, -low)
        if size > _LARGEST or 0.0 < size < 1.0 / _LARGEST:
            what = f"the values of {name!r} are of size {size:.3g}, whose square is no number"
            raise DataError(what, f"column {name!r}", "change its unit")
