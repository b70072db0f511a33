"""The first pass over partitions: levels, the rows that first show them, ranges of columns, counts of cells.

A row is kept for every level, and every combination of levels, that was not seen before; these few rows, in memory, teach the model its
columns and levels as all rows would. What two sets of rows have shown is merged, so that parts may be read anywhere, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Covariate, Design, Encoding
from bayeslmm.data.frame import ColumnTable, read_table, with_native_bytes
from bayeslmm.data.model_matrix import DesignBlock, atoms_of
from bayeslmm.data.rows import ColumnPlan, complete_cases_of_part, plan_columns, read_weights
from bayeslmm.errors import DataError, NonFiniteError
from bayeslmm.specification.model_spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class PartRows:
    """The rows kept of one partition.

    number : counts from 1; source : its columns over the rows kept; read : rows that it has; dropped : column -> rows that it cost
    """

    number: int
    source: Columns
    read: int
    dropped: dict[str, int]
    weights: Array | None

    def __len__(self) -> int:
        return len(self.source)

    def frame(self, rows: Codes, columns: Sequence[str]) -> pd.DataFrame:
        """Columns of some of the rows kept."""
        positions = rows if self.source.rows is None else self.source.rows[rows]
        return with_native_bytes(self.source.table.frame)[list(columns)].iloc[positions]


def read_parts(number: int, frames: Iterable[Any], spec: ModelSpec, asked: ColumnPlan) -> Iterator[PartRows]:
    """The frames of a partition, one after the other, each checked as a frame in memory is.

    Errors: those of `build_design` for columns and rows, with the number of the partition.
    """
    for frame in frames:
        with in_partition(number):
            yield _read_part(number, frame, spec, asked)


def _read_part(number: int, frame: object, spec: ModelSpec, asked: ColumnPlan) -> PartRows:
    table = read_table(frame, asked.columns)
    source = Columns(table)
    weights = read_weights(spec.weights, None, source)
    kept = complete_cases_of_part(source, asked.roles(source), {}, weights, spec.weights or "weights", spec.missing)
    source.rows = kept.positions
    if kept.positions is not None and weights is not None:
        weights = weights[kept.positions]
    return PartRows(number, source, len(table), kept.dropped, weights)


@contextmanager
def in_partition(number: int) -> Iterator[None]:
    """What is wrong with the data is wrong in this partition."""
    try:
        yield
    except DataError as error:
        where = f"partition {number}" + (f": {error.where}" if error.where and not error.where.startswith("partition") else "")
        raise type(error)(error.what, where, error.remedy) from None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPart:
    """Columns of one part: X over all coefficients, Z of every term, the response as given, the offset or None, the weights or None."""

    y: Array
    X: Array
    Zs: tuple[Array, ...]
    shift: Array | None
    weights: Array | None


def encode_part(part: PartRows, encoding: Encoding, scale: float = 1.0) -> EncodedPart:
    """The columns of a part. scale : what the weights are divided by.

    Errors: PredictionError for a level of a factor that the encoding has not learnt, NonFiniteError for a column that is not finite.
    """
    source, blocks = part.source, {}
    for block in (encoding.fixed_block, *(coder.block for coder in encoding.random_coders)):
        if id(block) not in blocks:
            blocks[id(block)] = _finite(block.encode(source), block)
    y = np.array(encoding.response_atom.pieces(source, reduced=False)[0], dtype=np.float64)
    if not np.isfinite(y).all():
        raise NonFiniteError(
            "the response is not finite", "", "its argument is outside the function's domain there: shift it, or drop the rows"
        )
    shifts = [atom.pieces(source, reduced=False)[0] for atom in encoding.offsets]
    shifts += [source.numbers(encoding.offset_column)] if encoding.offset_column is not None else []
    return EncodedPart(
        y,
        blocks[id(encoding.fixed_block)],
        tuple(blocks[id(coder.block)] for coder in encoding.random_coders),
        np.sum(shifts, axis=0) if shifts else None,
        None if part.weights is None else part.weights / scale,
    )


def _finite(columns: Array, block: DesignBlock) -> Array:
    if np.isfinite(columns).all():
        return columns
    names = [name for name, fine in zip(block.names, np.isfinite(columns).all(axis=0), strict=True) if not fine]
    raise NonFiniteError(f"{names[0]!r} is not finite", "", "its argument is outside a function's domain there: shift it, or drop the rows")


def rows_design(template: Design, part: PartRows, columns: EncodedPart) -> Design:
    """The rows of a part as a design, levels coded as in the template."""
    coders = template.encoding.random_coders
    codes = {name: coder.group.codes(part.source) for name, coder in {c.group.factor.name: c for c in coders}.items()}
    terms = tuple(
        replace(term, Z=Z, moves=None, group=replace(term.group, codes=codes[term.group.name]))
        for term, Z in zip(template.terms, columns.Zs, strict=True)
    )
    X = columns.X[:, list(template.kept)]
    return replace(template, y=columns.y, X=X, near=None, near_all=None, weights=columns.weights, offset=columns.shift, terms=terms)


FIRST_ROWS = 200
"""Rows that are kept of the first partition whatever their levels."""

MAX_CELLS = 100_000
"""Cells of the factors of the fixed effects beyond which they are not counted."""

COUNT: Any = 0
"""Label of the column of counts: no text, as the labels of data are."""


@dataclass(frozen=True, slots=True)
class ColumnRange:
    """Sum and range of a column of numbers. values : those that it has, None where there are more than two"""

    total: float
    low: float
    high: float
    integer: bool
    values: frozenset[float] | None

    @classmethod
    def of(cls, values: Array, *, integer: bool) -> ColumnRange:
        """That of a column."""
        found = Covariate.of(values, integer=integer)
        return cls(float(values.sum()), found.low, found.high, integer, frozenset((found.low, found.high)) if found.binary else None)

    def merge(self, other: ColumnRange) -> ColumnRange:
        """That of both."""
        values = None if self.values is None or other.values is None else self.values | other.values
        return ColumnRange(
            self.total + other.total,
            min(self.low, other.low),
            max(self.high, other.high),
            self.integer and other.integer,
            values if values is not None and len(values) <= 2 else None,
        )


@dataclass(slots=True, eq=False)
class FirstPass:
    """What has been seen of the rows so far.

    groups : sets of columns whose combinations of levels are to be known; fixed : columns that the fixed effects read
    seen : combinations of levels, of each set of columns
    counted : columns that only name the subjects of structured errors, whose labels are not kept
    cells : a row for each combination of values of the columns of `fixed` that have levels, or two values, with its count in the column
        `COUNT`; None where there are too many
    """

    asked: ColumnPlan
    groups: tuple[tuple[str, ...], ...]
    fixed: tuple[str, ...]
    counted: frozenset[str] = frozenset()
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, ColumnRange] = field(default_factory=dict)
    weights: float = 0.0
    log_weights: float = 0.0
    inverse_weights: float = 0.0
    shown: list[pd.DataFrame] = field(default_factory=list)
    seen: dict[tuple[str, ...], pd.Index[Any]] = field(default_factory=dict)
    cells: pd.DataFrame | None = field(default_factory=pd.DataFrame)

    @classmethod
    def of(cls, spec: ModelSpec, asked: ColumnPlan) -> FirstPass:
        """Nothing seen yet."""
        fixed = dict.fromkeys(name for atom in atoms_of(spec.formula.terms).values() for name in atom.columns)
        groups, counted, term = [bar.group for bar in spec.formula.random], frozenset[str](), spec.residual
        if term is not None and {*term.subject, *term.visit, *term.group} <= set(asked.columns):
            groups += [(name,) for name in term.visit] + [own for own in (term.visit, term.group) if own]
            of_formula = plan_columns(spec.formula, None, (), ()).columns
            counted = frozenset(term.subject) - {*of_formula, *term.visit, *term.group}
        return cls(asked, tuple(dict.fromkeys(groups)), tuple(fixed), counted)

    def add(self, part: PartRows) -> None:
        """One more part."""
        self.read, self.kept = self.read + part.read, self.kept + len(part)
        for name, count in part.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        if not len(part):
            return
        source = part.source
        if part.weights is not None:
            self.weights += float(part.weights.sum())
            self.log_weights += float(np.log(part.weights).sum())
            self.inverse_weights += float((1.0 / part.weights).sum())
        numbers = [name for name in dict.fromkeys((*self.asked.natural, *self.asked.numbers)) if not source.is_factor(name)]
        for name in numbers:
            found = ColumnRange.of(source.numbers(name), integer=source.read_numbers(name).integer)
            self.ranges[name] = self.ranges[name].merge(found) if name in self.ranges else found
        some = np.arange(0 if self.shown else min(FIRST_ROWS, len(part)))
        rows = np.unique(np.concatenate([some, *(self._unseen(source, columns) for columns in self._watched_sets(source))]))
        if len(rows):
            self.shown.append(part.frame(rows, [name for name in self.asked.columns if name not in self.counted]))
        self._count(part, numbers)

    def _watched_sets(self, source: Columns) -> list[tuple[str, ...]]:
        natural = [name for name in self.asked.natural if source.is_factor(name)]
        factors = [name for name in self.asked.factors if name not in self.counted]
        return list(dict.fromkeys([(name,) for name in (*natural, *factors)] + list(self.groups)))

    def _unseen(self, source: Columns, columns: tuple[str, ...]) -> Codes:
        """The first row of every combination of levels that was not seen before."""
        first = _first_rows(*_combine_levels(source, columns))
        labels = [source.read_factor(name).labels(source.codes(name)[first]) for name in columns]
        index = pd.Index(labels[0], dtype=object) if len(columns) == 1 else pd.MultiIndex.from_arrays(labels)
        known = self.seen.get(columns)
        if known is None:
            self.seen[columns] = index
            return first
        new = ~index.isin(known)
        if new.any():
            self.seen[columns] = known.append(index[new])
        return first[new]

    def _count(self, part: PartRows, numbers: Sequence[str]) -> None:
        if self.cells is None:
            return
        source = part.source
        coded = [name for name in self.fixed if name not in numbers or name in self.asked.factors]
        binary = [name for name in self.fixed if name not in coded and self.ranges[name].values is not None]
        halves = {name: (source.numbers(name) == self.ranges[name].high).astype(np.int64) for name in binary}
        key, space = _combine_levels(source, coded)
        for name in binary:
            key, space = key * 2 + halves[name], space * 2
        first, count = np.unique(key, return_index=True, return_counts=True)[1:]
        columns: dict[Any, Any] = {name: source.read_factor(name).labels(source.codes(name)[first]) for name in coded}
        columns |= {name: source.numbers(name)[first] for name in binary}
        self.cells = _merged_cells(self.cells, pd.DataFrame({**columns, COUNT: count}))

    def merge(self, later: FirstPass) -> FirstPass:
        """What both have seen, `later` after this."""
        self.read, self.kept = self.read + later.read, self.kept + later.kept
        for name, count in later.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        for name, found in later.ranges.items():
            self.ranges[name] = self.ranges[name].merge(found) if name in self.ranges else found
        self.weights, self.log_weights = self.weights + later.weights, self.log_weights + later.log_weights
        self.inverse_weights += later.inverse_weights
        if not self.shown:
            self.shown, self.seen = later.shown, later.seen
        elif later.shown:
            table = later.table()
            source = Columns(table)
            rows = np.unique(
                np.concatenate([self._unseen(source, columns) for columns in self._watched_sets(source)] + [np.zeros(0, np.int64)])
            )
            if len(rows):
                self.shown.append(table.frame.iloc[rows])
        self.cells = None if self.cells is None or later.cells is None else _merged_cells(self.cells, later.cells)
        return self

    def forget(self, names: Sequence[str]) -> None:
        """Give the rows kept one value in some columns, which teach nothing: no outcome is to be told."""
        one = {name: self.shown[0][name].iloc[:1] for name in names} if self.shown else {}
        self.shown = [rows.assign(**{name: value.take([0] * len(rows)).array for name, value in one.items()}) for rows in self.shown]

    def table(self) -> ColumnTable:
        """The rows kept so far."""
        frame = pd.concat(self.shown, ignore_index=True)
        return ColumnTable(frame, tuple(map(str, frame.columns)))

    def roster(self) -> Columns:
        """The rows kept so far, as the columns of a frame."""
        return Columns(self.table(), rows_in_all=self.kept)

    def covariate(self, name: str) -> Covariate:
        """Mean and range of a column of numbers over all rows kept."""
        found = self.ranges[name]
        return Covariate(found.total / self.kept, found.low, found.high, found.integer, found.values is not None)


def _combine_levels(source: Columns, columns: Sequence[str]) -> tuple[Codes, int]:
    """A key for every combination of levels, and how many there could be."""
    key, space = np.zeros(len(source), np.int64), 1
    for name in columns:
        size = len(source.read_factor(name).levels)
        if space * size >= 1 << 62:
            key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            space = int(key.max()) + 1
        key, space = key * size + source.codes(name), space * size
    return key, space


def _first_rows(key: Codes, space: int) -> Codes:
    """The first place of every key; by writing places down backwards where the space of keys is small, else by sorting."""
    if space > max(4 * len(key), 1024):
        return np.unique(key, return_index=True)[1].astype(np.int64)
    place = np.full(space, -1, np.int64)
    place[key[::-1]] = np.arange(len(key) - 1, -1, -1)
    return place[place >= 0]


def _merged_cells(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame | None:
    """Cells over the columns that both have, with the sums of their counts."""
    if one.empty or other.empty:
        return other if one.empty else one
    both = [name for name in one.columns if name in other.columns and name != COUNT]
    frame = pd.concat([one[[*both, COUNT]], other[[*both, COUNT]]], ignore_index=True)
    counts = frame.pop(COUNT)
    key = np.zeros(len(frame), np.int64)
    for name in both:
        codes, levels = pd.factorize(frame[name])
        key = np.unique(key * len(levels) + codes, return_inverse=True)[1].astype(np.int64)
    first = np.unique(key, return_index=True)[1]
    if len(first) > MAX_CELLS:
        return None
    found = frame.iloc[first].reset_index(drop=True)
    found[COUNT] = np.bincount(key, counts).astype(np.int64)
    return found
