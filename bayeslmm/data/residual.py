"""The residual design: each row's subject, visit or coordinates, and parameter group; strata and covariates of a variance function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes
from bayeslmm.covariance.registry import has_own_sds, is_serial, is_spatial, keeps_distance, needs_order, sheds_visits, structure
from bayeslmm.data.columns import Columns, compact_codes
from bayeslmm.data.design import ResidualDesign, VarianceDesign
from bayeslmm.data.frame import rows_text, values_text
from bayeslmm.data.grouping import GroupingFactor, group_coder
from bayeslmm.data.notes import order_by_number, ordered_factor
from bayeslmm.errors import Check, DataError, SpecificationError
from bayeslmm.formula.syntax import ResidualTerm, VarianceFactor


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Visits in their order, and the visit of each row.

    levels, missing, positions, axes, places : as in `ResidualDesign`; values : (n, 1) numbers of a numeric visit
    """

    codes: Codes
    levels: tuple[Any, ...]
    missing: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    values: Array | None = None
    axes: tuple[tuple[Any, ...], ...] = ()
    places: tuple[tuple[float, ...], ...] = ()


def residual_design(term: ResidualTerm, source: Columns, rows: Codes) -> tuple[ResidualDesign, list[Check]]:
    """The residual design over the rows kept, and what is worth knowing about it.

    rows : positions of the rows kept, for errors
    Errors: `DataError` with the rows of duplicated visits or equal places, of a subject in two groups, of text without order.
    """
    subject = group_coder(source, term.subject).factor if term.subject else one_subject(len(source))
    group = group_coder(source, term.group).factor if term.group else None
    if group is not None:
        check_one_group(subject, group, rows)
    if is_spatial(term.structure):
        coords = _places(term, source, subject, rows)
        return residual_at(term, subject, group, None, coords), []
    visits = read_visits(term, source)
    check_no_duplicates(term, subject, visits, rows)
    return residual_at(term, subject, group, visits, visits.values), visit_notes(term, visits, source)


def residual_at(
    term: ResidualTerm, subject: GroupingFactor, group: GroupingFactor | None, visits: Visits | None, coords: Array | None
) -> ResidualDesign:
    """The residual design of rows whose subjects, groups and visits, or places, are known."""
    return ResidualDesign(
        spec=term,
        subject=subject,
        visit=None if visits is None else freeze_codes(visits.codes),
        visit_levels=() if visits is None else visits.levels,
        coords=None if coords is None else freeze(coords),
        group=group,
        name=term.structure,
        order=term.order,
        nugget=term.nugget,
        missing_visits=() if visits is None else visits.missing,
        positions=() if visits is None else visits.positions,
        axes=() if visits is None else visits.axes,
        places=() if visits is None else visits.places,
    )


def one_subject(rows: int) -> GroupingFactor:
    """Without a subject all rows are one."""
    return GroupingFactor("1", np.array(["1"], dtype=object), freeze_codes(np.zeros(rows, dtype=np.int64)), ())


def check_one_group(subject: GroupingFactor, group: GroupingFactor, rows: Codes) -> None:
    """Refuse a subject whose rows are in two groups. rows : their positions, for the error"""
    first = np.zeros(subject.size, dtype=np.int64)
    first[subject.codes[::-1]] = group.codes[::-1]
    differs = first[subject.codes] != group.codes
    if differs.any():
        at = int(np.flatnonzero(differs)[0])
        who = subject.codes[at]
        seen = group.levels[np.unique(group.codes[subject.codes == who])]
        raise DataError(
            f"{group.name!r} varies within subject {subject.levels[who]!r}: {values_text(seen)}",
            rows_text(rows[subject.codes == who]),
            "the parameters of a residual covariance can differ between subjects only",
        )


# ---------------------------------------------------------------------------------------------------------------- visits


def read_visits(term: ResidualTerm, source: Columns) -> Visits:
    """The visits of the rows kept."""
    if not term.visit:
        return visits_by_order(term.structure, places_within(term, source))
    factors = term.structure.split("@")
    structures = factors if len(factors) == len(term.visit) else [term.structure] * len(term.visit)
    parts = [_visit_column(structure, source, column) for structure, column in zip(structures, term.visit, strict=True)]
    if len(parts) == 1:
        return parts[0]
    codes = parts[0].codes
    for part in parts[1:]:
        codes = codes * len(part.levels) + part.codes
    if "@" in term.structure and prod(len(part.levels) for part in parts) > MAX_PLOTS:
        return _cells_with_rows(term, parts, codes)
    levels = [str(level) for level in parts[0].levels]
    for part in parts[1:]:
        levels = [f"{left}:{right}" for left in levels for right in part.levels]
    present = np.bincount(codes, minlength=len(levels)) > 0
    if "@" not in term.structure and not present.all():
        occurring = tuple(np.array(levels, dtype=object)[present])
        return Visits((np.cumsum(present) - 1)[codes], occurring, axes=(occurring,))
    axes, absent = tuple(part.levels for part in parts), tuple(np.flatnonzero(~present).tolist())
    places = tuple(_places_of(*each) for each in zip(structures, term.visit, parts, strict=True)) if "@" in term.structure else ()
    return Visits(codes, tuple(levels), absent, axes=axes, places=places)


MAX_PLOTS = 4_000
"""Cells of the grid of a product of structures: R over all of them is one matrix."""


def _cells_with_rows(term: ResidualTerm, parts: Sequence[Visits], codes: Codes) -> Visits:
    """The cells of a large grid that rows have, as of places that are anywhere.

    Errors: `DataError` where these are too many, or a factor has variances of its own.
    """
    cells, own = np.unique(codes, return_inverse=True)
    if len(cells) > MAX_PLOTS or not structure(term.structure).homogeneous:
        shape = " x ".join(f"{len(part.levels):,} levels of {column!r}" for part, column in zip(parts, term.visit, strict=True))
        what = f"the grid of {term.text!r} has {prod(len(part.levels) for part in parts):,} cells, and the limit is {MAX_PLOTS:,}"
        raise DataError(what, shape, f"round the columns to a grid, or give each subject its own numbers from 1 in {term.visit[0]!r}")
    sizes = tuple(len(part.levels) for part in parts)
    at = [level.tolist() for level in np.unravel_index(cells, sizes)]
    levels = tuple(":".join(str(part.levels[k]) for part, k in zip(parts, cell, strict=True)) for cell in zip(*at, strict=True))
    places = tuple(_places_of(*each) for each in zip(term.structure.split("@"), term.visit, parts, strict=True))
    axes = tuple(part.levels for part in parts)
    return Visits(own.astype(np.int64), levels, (), tuple(cells.tolist()), axes=axes, places=places)


def _places_of(structure: str, column: str, axis: Visits) -> tuple[float, ...]:
    """Where the levels of one column of a product stand: at steps, or at their own numbers for a function of distances.

    Errors: `DataError` for labels that are no numbers.
    """
    if not is_spatial(structure):
        return axis.positions
    at = level_numbers(axis.levels)
    if at is None:
        raise no_distances_error(structure, column, values_text(axis.levels))
    return at


def no_distances_error(structure: str, column: str, levels: str) -> DataError:
    """That the levels of a factor have no places, which a structure asks for."""
    what = f"{structure!r} is a function of distances, and the levels of {column!r} are no increasing numbers"
    return DataError(what, levels, f"give a column of numbers, or ar1({column}), which counts steps")


def level_numbers(levels: Sequence[Any]) -> tuple[float, ...] | None:
    """Labels that are increasing numbers, as numbers."""
    found = pd.to_numeric(pd.Series([str(level) for level in levels]), errors="coerce").to_numpy(np.float64)
    return tuple(found.tolist()) if np.isfinite(found).all() and (np.diff(found) > 0).all() else None


def visit_labels(term: ResidualTerm, source: Columns) -> tuple[list[Any], Codes]:
    """Labels of visits, as `read_visits` calls them, whether or not all are there; and the label of each row kept."""
    labels: list[Any] = []
    codes = np.zeros(len(source), dtype=np.int64)
    for column in term.visit:
        if source.kind(column) == "number":
            values, own = np.unique(source.numbers(column), return_inverse=True)
            names: list[Any] = list(map(_plain, values.tolist()))
        else:
            names, own = source.read_factor(column).levels.tolist(), source.codes(column)
        codes = codes * len(names) + own
        labels = [f"{left}:{right}" for left in labels for right in names] if labels else names
    return labels, codes


def places_within(term: ResidualTerm, source: Columns) -> Codes:
    """The place of each row kept among all the rows of its subject, from 0: a row left out for a missing value keeps its own."""
    key = np.zeros(len(source.table), dtype=np.int64)
    unknown = np.zeros(len(key), dtype=np.bool_)
    for column in term.subject:
        factor = source.read_factor(column)
        unknown |= factor.codes < 0
        key = compact_codes(key * (len(factor.levels) + 1) + factor.codes + 1, (int(key.max()) + 1) * (len(factor.levels) + 1))[1]
    key[unknown] = -1
    place = place_within(key)
    return place if source.rows is None else place[source.rows]


def place_within(codes: Codes) -> Codes:
    """0, 1, 2, ... over the rows of each subject, in the order of the rows."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(codes)])
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes)) - np.repeat(starts, lengths)
    return place


def visits_by_order(structure: str, place: Codes) -> Visits:
    """Visits that are the order of the rows of a subject, 1, 2, ..."""
    return _drop_absent_visits(structure, tuple(range(1, int(place.max()) + 2)), place)


def row_places(residual: ResidualDesign) -> Codes | None:
    """The place of each row among all rows of its subject, where the visits are the order of the rows."""
    if residual.spec.visit or residual.visit is None:
        return None
    return np.asarray(residual.visit_levels, dtype=np.int64)[residual.visit] - 1


def with_blank_rows(frame: pd.DataFrame, subject: Sequence[str], place: Codes) -> tuple[pd.DataFrame, Codes]:
    """Rows at known places with the rows before them that are gone, known by their subject alone; and the row of each, -1 for those."""
    key = np.zeros(len(frame), dtype=np.int64) if not subject else frame.groupby(list(subject), observed=True).ngroup().to_numpy()
    order = np.lexsort((place, key))
    before = np.r_[-1, place[order][:-1]]
    before[np.r_[True, np.diff(key[order]) != 0]] = -1
    gone = np.empty(len(frame), dtype=np.int64)
    gone[order] = place[order] - before - 1
    row = np.repeat(np.arange(len(frame)), gone + 1)
    there = np.zeros(len(row), dtype=np.bool_)
    there[np.cumsum(gone + 1) - 1] = True
    whole = frame.iloc[row].reset_index(drop=True)
    for name in whole.columns.difference(list(subject)):
        values = whole[name]
        # whole numbers and booleans stay what they are beside a missing value
        whole[name] = (values.convert_dtypes() if getattr(values.dtype, "kind", "O") in "iub" else values).where(there)
    return whole, np.where(there, row, -1)


def _visit_column(structure: str, source: Columns, column: str) -> Visits:
    kind = source.kind(column)
    if kind == "number":
        values = source.numbers(column)
        levels, codes = np.unique(values, return_inverse=True)
        times = tuple(map(_plain, levels))
        at = steps(structure, levels, column) if keeps_distance(structure) else ()
        return Visits(codes.astype(np.int64), times, positions=at, values=values[:, None], axes=(times,))
    if kind == "text" and needs_order(structure):
        levels = source.read_factor(column).levels.tolist()
        raise DataError(
            f"the order of the visits matters to {structure!r}, and column {column!r} is text without an order",
            f"sorted as text they would be {values_text(levels)}",
            f"give an ordered factor: {ordered_factor(column, order_by_number(levels))}",
        )
    return _drop_absent_visits(structure, tuple(source.read_factor(column).levels), source.codes(column).astype(np.int64))


def steps(structure: str, times: Array, column: str) -> tuple[int, ...]:
    """Places of increasing times in units of their greatest common divisor; empty where they are 0, 1, 2, ... in any unit.

    Errors: `DataError` for fractions with unequal gaps, whose unit cannot be told.
    """
    gaps = np.diff(times)
    if not unequal_gaps(times):
        return ()
    if not (np.isfinite(times).all() and (times == np.round(times)).all()):
        raise DataError(
            f"the times in {column!r} have unequal gaps and are not whole numbers, and {structure!r} counts steps",
            f"gaps from {gaps.min():g} to {gaps.max():g}",
            f"use car1({column} | ...), which takes any times, or a factor of the visits",
        )
    unit = np.gcd.reduce(gaps.astype(np.int64))
    return tuple(np.concatenate([[0], np.cumsum(gaps.astype(np.int64) // unit)]).tolist())


def _drop_absent_visits(structure: str, levels: tuple[Any, ...], codes: Codes) -> Visits:
    """Visits without those that no row kept has, where dropping them changes no spacing."""
    present = np.bincount(codes, minlength=len(levels)) > 0
    seen = np.flatnonzero(present)
    if is_serial(structure) and sheds_visits(structure):
        # what lies before the first visit or after the last changes no spacing
        levels, codes, present, seen = levels[seen[0] : seen[-1] + 1], codes - seen[0], present[seen[0] : seen[-1] + 1], seen - seen[0]
    if is_serial(structure) and not has_own_sds(structure):
        return Visits(codes, levels, tuple(np.flatnonzero(~present).tolist()), axes=(levels,))
    positions = tuple(seen.tolist()) if is_serial(structure) and not present.all() else ()
    kept = tuple(level for level, there in zip(levels, present.tolist(), strict=True) if there)
    return Visits((np.cumsum(present) - 1)[codes], kept, positions=positions, axes=(kept,))


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def check_no_duplicates(term: ResidualTerm, subject: GroupingFactor, visits: Visits, rows: Codes) -> None:
    """Refuse two rows of a subject at one visit. rows : their positions, for the error"""
    key = subject.codes * len(visits.levels) + visits.codes
    space = subject.size * len(visits.levels)
    counts = np.bincount(key, minlength=space) if space <= 8 * len(key) + 1024 else None
    if counts is not None and counts.max(initial=0) <= 1:
        return
    values, number = np.unique(key, return_counts=True)
    if (number <= 1).all():
        return
    twice = values[number > 1][0]
    who, when = divmod(int(twice), len(visits.levels))
    where = rows_text(rows[key == twice])
    more = int((number > 1).sum()) - 1
    raise DataError(
        f"several rows share subject {subject.levels[who]!r} and visit {visits.levels[when]!r}",
        where + (f"; and {more} more such pairs" if more else ""),
        f"aggregate them, or use a random effect instead of {term.text!r}",
    )


def _absent_visits(term: ResidualTerm, visits: Visits, source: Columns) -> tuple[Any, ...]:
    """Levels of a visit factor that no row has, where the structure does not keep them."""
    if len(term.visit) != 1 or source.kind(term.visit[0]) != "factor":
        return ()
    return tuple(level for level in source.read_factor(term.visit[0]).levels if level not in visits.levels)


def visit_notes(term: ResidualTerm, visits: Visits, source: Columns) -> list[Check]:
    """What is worth knowing about the visits."""
    notes = []
    left_out = _absent_visits(term, visits, source)
    if left_out:
        remedy = "left out: the structure does not depend on their spacing"
        if visits.positions:
            remedy = "left out, since no row bears on their sd; the spacing of the others stays"
        notes.append(Check("visits_without_rows", "noted", value=left_out, remedy=remedy))
    if visits.missing and "@" not in term.structure:  # a cell without rows has no spacing to keep
        levels = tuple(visits.levels[i] for i in visits.missing)
        notes.append(Check("visits_without_rows", "noted", value=levels, remedy="kept, since dropping a visit would change the spacing"))
    if visits.values is not None and needs_order(term.structure) and not keeps_distance(term.structure) and unequal_gaps(visits.levels):
        remedy = f"the gaps between visits are unequal; {term.structure} counts visits: car1({', '.join(term.visit)} | ...) counts time"
        notes.append(Check("unequal_gaps", "noted", value=visits.levels, remedy=remedy))
    return notes


def unequal_gaps(levels: Sequence[Any] | Array) -> bool:
    """Whether increasing numbers stand at unequal distances."""
    gaps = np.diff(np.asarray(levels, dtype=np.float64))
    return bool(len(gaps) > 1 and gaps.max() - gaps.min() > 1e-9 * gaps.max())


# ---------------------------------------------------------------------------------------------------------------- places


def _places(term: ResidualTerm, source: Columns, subject: GroupingFactor, rows: Codes) -> Array:
    if not term.visit:
        raise SpecificationError(f"{term.structure!r} needs coordinates", term.text, f"name the columns: {term.structure}(x, y | subject)")
    coords = np.column_stack([source.numbers(column) for column in term.visit])
    if not term.nugget:
        _check_places_apart(subject, coords, term, rows)
    return coords


def _check_places_apart(subject: GroupingFactor, coords: Array, term: ResidualTerm, rows: Codes) -> None:
    order = np.lexsort((*coords.T[::-1], subject.codes))
    sorted_places, sorted_subjects = coords[order], subject.codes[order]
    equal = (np.diff(sorted_subjects) == 0) & (np.diff(sorted_places, axis=0) == 0).all(axis=1)
    if equal.any():
        at = int(np.flatnonzero(equal)[0])
        pair: NDArray[Any] = np.sort(rows[order[at : at + 2]])
        whose = f" of subject {subject.levels[sorted_subjects[at]]!r}" if term.subject else ""
        within = (
            "" if term.subject else f"; name the subjects, {term.structure}({', '.join(term.visit)} | subject), within which rows correlate"
        )
        raise DataError(
            f"two rows{whose} have equal coordinates {tuple(map(_plain, sorted_places[at]))}",
            rows_text(pair) + (f"; {int(equal.sum())} such pairs in all" if equal.sum() > 1 else ""),
            f"aggregate them, or add a nugget: {term.text} + local{within}",
        )


FARTHEST = 2_000
"""Standard deviations from 0 at which an exponential of a covariate has no size any more that numbers hold."""


def variance_design(factor: VarianceFactor, source: Columns, rows: Codes) -> VarianceDesign:
    """One factor of the variance function over the rows kept.

    Errors: `DataError` where the covariate of a power is 0, which would make the variance 0, or that of an exponential so far from 0
    that sigma, the standard deviation there, is no number.
    """
    strata = _strata(factor, source)
    covariate = None
    if factor.kind != "ident" and factor.covariate != "fitted":
        covariate = source.numbers(factor.covariate)
        zero = covariate == 0
        if factor.kind == "power" and zero.any():
            raise DataError(
                f"column {factor.covariate!r} is 0, and a power of 0 leaves no variance",
                rows_text(rows[zero]),
                f"use const_power({factor.covariate}), or shift the column",
            )
        if factor.kind == "exp" and abs(float(covariate.mean())) > FARTHEST * float(covariate.std()) > 0.0:
            raise DataError(
                f"column {factor.covariate!r} is more than {FARTHEST:,} of its standard deviations away from 0, where sigma is the sd",
                f"variance={factor.kind}({factor.covariate})",
                "count it from its mean in a column of its own: the exponent stays, and sigma is the residual sd there",
            )
    return VarianceDesign(
        spec=factor,
        kind=factor.kind,
        covariate=None if covariate is None else freeze(covariate.copy()),
        strata=None if strata is None else strata.codes,
        labels=() if strata is None else tuple(map(str, strata.levels)),
    )


def _strata(factor: VarianceFactor, source: Columns) -> GroupingFactor | None:
    columns = ((factor.covariate,) if factor.kind == "ident" else ()) + factor.group
    return group_coder(source, columns).factor if columns else None
