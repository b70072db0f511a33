"""Subjects of rows read in parts: their visits, and products of their rows summed by pattern of visits.

The rows of a subject stand in one part, or in parts that follow each other. So the subjects at the two ends of what has been read stay
open, with their rows, until the neighbouring parts are known; all others are added up. Of their labels hashes are kept: a subject that
comes back later is found, and so is one of the fit among new rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, freeze_codes, label_text
from bayeslmm.covariance.registry import is_unstructured
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Design, ResidualDesign
from bayeslmm.data.grouping import GroupCoder, GroupingFactor, group_coder
from bayeslmm.data.identifiability import few_together
from bayeslmm.data.notes import residual_order_note
from bayeslmm.data.residual import (
    Visits,
    check_no_duplicates,
    check_one_group,
    one_subject,
    place_within,
    read_visits,
    residual_at,
    visit_labels,
    visit_notes,
    visits_by_order,
)
from bayeslmm.errors import Check, DataError, InferenceError
from bayeslmm.formula.syntax import ResidualTerm
from bayeslmm.likelihood.starting_values import start_of_patterns
from bayeslmm.likelihood.structured.blocks import PooledBatch, merge_pooled, pool_all
from bayeslmm.likelihood.structured.residual_structure import VisitStructure, residual_structure
from bayeslmm.partitions.design import WITHOUT_ROWS, AddedUpFactor, VisitPatterns, without_codes

type Hashes = NDArray[np.uint64]


# -- labels that were not kept -------------------------------------------------------------------------------------------------------------


def hash_labels(labels: Sequence[Any]) -> Hashes:
    """64 bits of each label, the same wherever and whenever it is read."""
    texts = np.empty(len(labels), dtype=object)
    texts[:] = [str(label) if type(label) in (str, int) else label_text(label) for label in labels]
    return np.asarray(pd.util.hash_array(texts, categorize=False), dtype=np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class HashedLabels:
    """Labels of which sorted hashes were kept."""

    hashes: Hashes

    def get(self, label: Any, otherwise: int) -> int:
        """The place of a label among the hashes; `otherwise` where it is not among them."""
        (own,) = hash_labels([label])
        at = int(np.searchsorted(self.hashes, own))
        return at if at < len(self.hashes) and self.hashes[at] == own else otherwise


class CountedSubjects(AddedUpFactor):
    """Subjects whose labels were not kept: how many there are, and hashes of their labels."""

    __slots__ = ("hashes",)
    hashes: Hashes

    @classmethod
    def of(cls, name: str, columns: tuple[str, ...], hashes: Hashes) -> CountedSubjects:
        """hashes : of the labels, sorted"""
        made = object.__new__(cls)
        for key, value in (("name", name), ("columns", columns), ("hashes", hashes)):
            object.__setattr__(made, key, value)
        return made

    def __getattr__(self, name: str) -> Any:
        if name == "levels":
            raise InferenceError(
                f"this needs the labels of {self.name!r}: its subjects were counted and their labels not kept",
                WITHOUT_ROWS,
                "fit the model on a frame in memory, a sample of the subjects where all do not fit",
            )
        return super().__getattr__(name)

    @property
    def size(self) -> int:
        """How many subjects there are."""
        return len(self.hashes)

    @property
    def places(self) -> Any:
        """Label -> place among the hashes."""
        return HashedLabels(self.hashes)


# -- the rows of a part --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class SubjectCoder:
    """How rows find their visits and the group of parameters of their subject.

    visits : None where they are the order of the rows of a subject, which parts know for their own rows only
    """

    term: ResidualTerm
    visits: Visits | None
    group: GroupCoder | None
    notes: tuple[Check, ...]

    @classmethod
    def of(cls, term: ResidualTerm, shown: Columns) -> SubjectCoder:
        """From rows that show every visit and every group."""
        group = group_coder(shown, term.group) if term.group else None
        if not term.visit:
            return cls(term, None, group, ())
        visits = read_visits(term, shown)
        return cls(term, visits, group, tuple(visit_notes(term, visits, shown)))

    def read(self, source: Columns, number: int) -> SubjectRows:
        """Subjects, visits and groups of the rows kept of a part."""
        positions = np.arange(len(source.table)) if source.rows is None else source.rows
        if self.visits is not None:
            subject = self._subject(source)
            place, seen = self._visits(source, self.visits), subject.codes
            length = np.bincount(subject.codes, minlength=subject.size)
            levels: Visits = replace(self.visits, codes=place)
        else:
            # a row left out keeps its place among the rows of its subject
            named = np.ones(len(source.table), dtype=np.bool_)
            for column in self.term.subject:
                named &= source.read_factor(column).codes >= 0
            rows = np.flatnonzero(named)
            whole = self._subject(replace(source, rows=rows, _kept={}))
            seen, length = whole.codes, np.bincount(whole.codes, minlength=whole.size)
            kept = np.searchsorted(rows, positions)
            place = place_within(whole.codes)[kept]
            subject = replace(whole, codes=freeze_codes(whole.codes[kept]))
            levels = Visits(place, tuple(range(1, int(place.max(initial=0)) + 2)))
        group = np.zeros(len(place), np.int64) if self.group is None else self.group.codes(source)
        check_no_duplicates(self.term, subject, levels, positions)
        if self.group is not None:
            check_one_group(subject, replace(self.group.factor, codes=freeze_codes(group)), positions)
        ends = (int(seen[0]), int(seen[-1])) if len(seen) else ()
        return SubjectRows(subject, place, group, length, tuple(dict.fromkeys(ends)), number)

    def _subject(self, source: Columns) -> GroupingFactor:
        if self.term.subject:
            return group_coder(source, self.term.subject).factor
        return one_subject(len(source))

    def _visits(self, source: Columns, visits: Visits) -> Codes:
        labels, codes = visit_labels(self.term, source)
        place = {label: i for i, label in enumerate(visits.levels)}
        found = np.array([place.get(label, -1) for label in labels], dtype=np.int64)[codes]
        if found.min(initial=0) < 0:
            what = f"there is a visit that was not there when the rows were read first: {labels[codes[found.argmin()]]!r}"
            raise DataError(what, ", ".join(self.term.visit), "give partitions that hold the same rows each time")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class SubjectRows:
    """Subjects of the rows kept of part `number`.

    place : (n,) visits; group : (n,); length : rows of each subject, those left out too; ends : subjects of the first and last row
    """

    subject: GroupingFactor
    place: Codes
    group: Codes
    length: Codes
    ends: tuple[int, ...]
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class OpenSubject:
    """A subject that may go on in a neighbouring part. length : rows read of it, those left out too"""

    label: Any
    place: Codes
    group: Codes
    Xy: Array
    length: int
    number: int

    def append(self, later: OpenSubject, term: ResidualTerm) -> OpenSubject:
        """With the rows of the part behind. Errors: DataError for two rows at one visit, and for two groups."""
        moved = later.place if term.visit else later.place + self.length
        place, group = np.concatenate([self.place, moved]), np.concatenate([self.group, later.group])
        where = f"partitions {self.number} and {later.number}"
        if len(np.unique(place)) < len(place):
            remedy = f"aggregate them, or use a random effect instead of {term.text!r}"
            raise DataError(f"several rows of subject {self.label!r} are at one visit", where, remedy)
        if len(np.unique(group)) > 1:
            remedy = "the parameters of a residual covariance can differ between subjects only"
            raise DataError(f"{':'.join(term.group)!r} varies within subject {self.label!r}", where, remedy)
        Xy = np.concatenate([own for own in (self.Xy, later.Xy) if len(own)] or [self.Xy])
        return OpenSubject(self.label, place, group, Xy, self.length + later.length, later.number)


# -- sums ----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class SubjectSums:
    """Subjects of consecutive rows: those at the ends open, the others added up by pattern of visits.

    ends : none, the only one, or the first and the last; closed : hashes of subjects that were added up
    unseen : hashes of those all of whose rows were left out
    """

    coder: SubjectCoder
    batches: tuple[PooledBatch, ...] = ()
    ends: tuple[OpenSubject, ...] = ()
    closed: tuple[Hashes, ...] = ()
    unseen: tuple[Hashes, ...] = ()

    @classmethod
    def of(cls, coder: SubjectCoder, design: Design, source: Columns, Xy: Array, number: int) -> SubjectSums:
        """Those of the rows kept of a part. design : that stands for all rows; Xy : (n, r)"""
        rows = coder.read(source, number)
        subject, ends = rows.subject, []
        for end in rows.ends:
            own = np.flatnonzero(subject.codes == end)
            ends.append(OpenSubject(subject.levels[end], rows.place[own], rows.group[own], Xy[own], int(rows.length[end]), number))
        count = np.bincount(subject.codes, minlength=subject.size)
        inner = np.setdiff1d(np.arange(subject.size), rows.ends)
        seen, unseen = inner[count[inner] > 0], inner[count[inner] == 0]
        closed, absent = ((hash_labels(subject.levels[which].tolist()),) if len(which) else () for which in (seen, unseen))
        kept = ~np.isin(subject.codes, rows.ends)
        batches = _pool_subjects(coder, design, subject.codes[kept], rows.place[kept], rows.group[kept], Xy[kept]) if kept.any() else ()
        return cls(coder, batches, tuple(ends), closed, absent)

    def merge(self, later: SubjectSums, design: Design) -> SubjectSums:
        """Those of both, the rows of `later` behind these."""
        ends, later_ends = self.ends, later.ends
        if ends and later_ends and ends[-1].label == later_ends[0].label:
            ends, later_ends = (*ends[:-1], ends[-1].append(later_ends[0], self.coder.term)), later_ends[1:]
        ends += later_ends
        outer = (ends[0], ends[-1]) if len(ends) > 1 else ends
        both = SubjectSums(self.coder, self.batches + later.batches, outer, self.closed + later.closed, self.unseen + later.unseen)
        return both._add_up(ends[1:-1], design)

    def close(self, design: Design) -> SubjectSums:
        """With nothing left open."""
        return replace(self, ends=())._add_up(self.ends, design)

    def _add_up(self, subjects: Sequence[OpenSubject], design: Design) -> SubjectSums:
        """With the rows of other subjects among the sums."""
        batches, closed, unseen = list(self.batches), list(self.closed), list(self.unseen)
        for one in subjects:
            (closed if len(one.place) else unseen).append(hash_labels([one.label]))
            if len(one.place):
                batches += _pool_subjects(self.coder, design, np.zeros(len(one.place), np.int64), one.place, one.group, one.Xy)
        return replace(self, batches=tuple(merge_pooled(batches)), closed=tuple(closed), unseen=tuple(unseen))

    def scattered_hashes(self) -> Hashes:
        """Hashes of subjects that came back after others had been read."""
        every = np.sort(np.concatenate([*self.closed, *self.unseen, np.zeros(0, np.uint64)]))
        again: Hashes = every[1:][every[1:] == every[:-1]]
        return again


def _pool_subjects(coder: SubjectCoder, design: Design, subject: Codes, place: Codes, group: Codes, Xy: Array) -> tuple[PooledBatch, ...]:
    """Products of rows summed by pattern of visits. subject : (n,) codes"""
    codes = np.unique(subject, return_inverse=True)[1].astype(np.int64)
    own = GroupingFactor("", np.empty(int(codes.max()) + 1, dtype=object), codes, ())
    sets = None if coder.group is None else replace(coder.group.factor, codes=group)
    levels = tuple(range(int(place.max()) + 1)) if coder.visits is None else coder.visits.levels
    residual = residual_at(coder.term, own, sets, Visits(place, levels), None)
    return pool_all(replace(design, y=Xy[:, -1], residual=residual), Xy)


# -- patterns ------------------------------------------------------------------------------------------------------------------------------


def patterns_of_parts(sums: SubjectSums, design: Design) -> VisitPatterns:
    """Sums by pattern of visits of rows read in parts, all of which have been read. design : that stands for all rows"""
    coder, batches = sums.coder, sums.batches
    visits = coder.visits
    if visits is None:
        present = np.unique(np.concatenate([np.asarray(batch.block.place).ravel() for batch in batches]))
        visits = visits_by_order(coder.term.structure, present)
        table = np.full(int(present.max()) + 1, -1)
        table[present] = visits.codes
        batches = tuple(replace(b, block=replace(b.block, place=table[b.block.place])) for b in batches)
    hashes = np.sort(np.concatenate(sums.closed))
    subject = CountedSubjects.of(":".join(coder.term.subject) or "1", coder.term.subject, hashes)
    group = None if coder.group is None else coder.group.factor
    coords = None if visits.values is None else np.zeros((0, 1))
    nobody = GroupingFactor(subject.name, np.empty(0, dtype=object), np.zeros(0, np.int64), subject.columns)
    shown = residual_at(coder.term, nobody, group, replace(visits, codes=np.zeros(0, np.int64)), coords)
    structure = residual_structure(replace(design, residual=shown))
    assert isinstance(structure, VisitStructure)
    notes = (*residual_order_note(shown), *coder.notes, *_few_complete(shown, batches))
    return VisitPatterns(batches, replace(without_codes(shown), subject=subject), start_of_patterns(structure, batches), notes)


def _few_complete(residual: ResidualDesign, batches: Sequence[PooledBatch]) -> list[Check]:
    """`few_complete` from sums by pattern of visits."""
    if not is_unstructured(residual.name, residual.order):
        return []
    found, m = [], len(residual.visit_levels)
    for at in range(1 if residual.group is None else residual.group.size):
        patterns, counts, sums = [], [], []
        for batch in batches:
            assert batch.block.place is not None
            own = np.flatnonzero(batch.block.group[:, 0] == at)
            has = np.zeros((len(own), m), dtype=bool)
            has[np.arange(len(own))[:, None], batch.block.place[own]] = True
            patterns.append(has)
            counts.append(batch.count[own])
            sums += [(batch.block.place[i], batch.G[i]) for i in own]
        has, r = np.concatenate(patterns), round(batches[0].G.shape[2] ** 0.5)
        found += few_together(residual, at, has, np.concatenate(counts), r - 1, partial(_combined_products, has, sums, r))
    return found


def _combined_products(has: NDArray[np.bool_], sums: Sequence[tuple[Codes, Array]], r: int, visits: NDArray[np.bool_], a: Array) -> Array:
    """`products` of `few_together` from sums by pattern of visits. sums : of each pattern, its visits and (k k, r r) products of [X y]"""
    total = np.zeros(r * r)
    for i in np.flatnonzero(has[:, visits].all(axis=1)).tolist():
        place, G = sums[i]
        total += np.outer(a[place], a[place]).ravel() @ G
    return total.reshape(r, r)[: r - 1, : r - 1]
