"""Resampled designs: levels of a grouping factor, or rows, drawn anew.

A level that is drawn twice becomes two levels, and so do the levels of every factor nested in it; factors that cross it keep theirs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Codes
from bayeslmm._validation import require_name
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import InferenceError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import grouping_factors, is_nested, top_factor


def resampling_factor(design: Design, group: str | None) -> GroupingFactor | None:
    """The factor whose levels are drawn: the one named, the top one, or None where the model has no groups (rows are drawn then)."""
    factors = {factor.name: factor for factor in grouping_factors(design)}
    if group is not None:
        if require_name(group, "group") not in factors:
            raise InferenceError(f"the model has no grouping factor {group!r}", "group", "use one of " + ", ".join(map(repr, factors)))
        return factors[group]
    if not factors:
        return None
    try:
        return top_factor(design, "the case bootstrap")
    except InferenceError as error:
        raise InferenceError(error.what, error.where, "say which factor to draw from: group=" + " or ".join(map(repr, factors))) from None


def resample_design(design: Design, factor: GroupingFactor | None, drawn: Codes) -> Design:
    """The design of levels `drawn` of a factor (of rows, without a factor), each as often as it occurs there."""
    if any(term.relationship is not None for term in design.terms):
        raise InferenceError(
            "levels with a known relationship matrix cannot be drawn anew",
            "the case bootstrap",
            "use kind='parametric', which draws from the model",
        )
    codes = np.arange(design.nobs) if factor is None else factor.codes
    rows, copy = _rows_of(codes, drawn)

    def keys(own: GroupingFactor) -> Codes:
        """Levels are told apart by draw where their factor lies within the one drawn from."""
        return own.codes[rows] + copy * (int(own.codes.max()) + 1) if is_nested(own.codes, codes) else own.codes[rows]

    return design.take(rows, keys)


def without(design: Design, rows: NDArray[np.bool_]) -> Design:
    """The design without some rows; levels that lose all of theirs are gone."""
    return design.take(np.flatnonzero(~rows))


def _rows_of(codes: Codes, drawn: Codes) -> tuple[Codes, Codes]:
    """Rows of the levels drawn, one draw after the other, and which draw each row belongs to."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(int(codes.max()) + 2))
    counts = starts[drawn + 1] - starts[drawn]
    copy = np.repeat(np.arange(len(drawn)), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[starts[drawn][copy] + inside], copy
