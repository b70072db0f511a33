"""Resampled designs: levels of a grouping factor, or rows, drawn anew.

A level that is drawn twice becomes two levels, and so do the levels of every factor nested in it; factors that cross it keep theirs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import InferenceError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import grouping_factors, is_nested, top_factor


def resampling_factor(design: Design, group: str | None) -> GroupingFactor | None:
    """The factor whose levels are drawn: the one named, the top one, or None where the model has no groups (rows are drawn then)."""
    factors = {factor.name: factor for factor in grouping_factors(design)}
    if group is not None:
        if group not in factors:
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
    return _pick_levels(design, rows, copy, codes)


def without(design: Design, rows: NDArray[np.bool_]) -> Design:
    """The design without some rows; levels that lose all of theirs are gone."""
    kept = np.flatnonzero(~rows)
    return _pick_levels(design, kept, np.zeros(len(kept), np.int64), np.zeros(design.nobs, np.int64))


def _rows_of(codes: Codes, drawn: Codes) -> tuple[Codes, Codes]:
    """Rows of the levels drawn, one draw after the other, and which draw each row belongs to."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(int(codes.max()) + 2))
    counts = starts[drawn + 1] - starts[drawn]
    copy = np.repeat(np.arange(len(drawn)), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[starts[drawn][copy] + inside], copy


def _pick_levels(design: Design, rows: Codes, copy: Codes, outer: Codes) -> Design:
    """Rows of a design with levels told apart by draw where their factor lies within the one drawn from."""
    seen: dict[str, GroupingFactor] = {}

    def regrouped(factor: GroupingFactor) -> GroupingFactor:
        if factor.name not in seen:
            own = factor.codes[rows]
            key = own + copy * (int(factor.codes.max()) + 1) if is_nested(factor.codes, outer) else own
            first, codes = np.unique(key, return_index=True, return_inverse=True)[1:]
            seen[factor.name] = replace(factor, levels=factor.levels[own[first]], codes=freeze_codes(codes.ravel()))
        return seen[factor.name]

    def part(values: Array | None) -> Array | None:
        return None if values is None else freeze(values[rows])

    terms = []
    for term in design.terms:
        group = regrouped(term.group)
        relationship = term.relationship
        if relationship is not None:
            known = np.searchsorted(np.arange(term.group.size), np.unique(term.group.codes[rows]))
            relationship = freeze(relationship[np.ix_(known, known)])
        terms.append(replace(term, group=group, Z=freeze(term.Z[rows]), relationship=relationship))
    residual = design.residual
    if residual is not None:
        residual = replace(
            residual,
            subject=regrouped(residual.subject),
            visit=None if residual.visit is None else freeze_codes(residual.visit[rows]),
            coords=part(residual.coords),
            group=None if residual.group is None else replace(residual.group, codes=freeze_codes(residual.group.codes[rows])),
        )
    variance = tuple(
        replace(f, covariate=part(f.covariate), strata=None if f.strata is None else freeze_codes(f.strata[rows])) for f in design.variance
    )
    return replace(
        design,
        y=freeze(design.y[rows]),
        X=freeze(design.X[rows]),
        weights=part(design.weights),
        offset=part(design.offset),
        terms=tuple(terms),
        residual=residual,
        variance=variance,
        rows=freeze_codes(design.rows[rows]),
        index=design.index[rows],
        own_frame=replace(design.own_frame, copy=design.own_frame.copy.iloc[rows]),
        notes=(),
        unidentified=(),
    )
