"""The first pass over partitions: levels, the rows that first show them, ranges of columns.

A row is kept for every level, and every combination of levels, that was not seen before; these few rows, in memory, teach the model its
columns and levels as all rows would.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Covariate, Design, Encoding
from bayeslmm.data.frame import ColumnTable, read_table
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.data.rows import ColumnPlan, complete_cases_of_part, read_weights
from bayeslmm.errors import DataError, NonFiniteError
from bayeslmm.partitions.partitions import Partitions
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


def read_parts(partitions: Partitions, spec: ModelSpec, asked: ColumnPlan) -> Iterator[PartRows]:
    """The partitions, one after the other, each checked as a frame in memory is.

    Errors: those of `build_design` for columns and rows, with the number of the partition.
    """
    for number, frame in enumerate(partitions.frames(asked.columns), start=1):
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
    """Columns of one part: X over all coefficients, Z of every term, the response less its offset.

    y : the response as given; shift : the offset, or None; root : roots of the weights, or None
    """

    y: Array
    X: Array
    Zs: tuple[Array, ...]
    shift: Array | None
    weights: Array | None

    @property
    def root(self) -> Array | None:
        """Roots of the weights."""
        return None if self.weights is None else np.sqrt(self.weights)

    @property
    def Xy(self) -> Array:
        """[X, y - offset], (n, p + 1)."""
        return np.column_stack([self.X, self.y if self.shift is None else self.y - self.shift])


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
        replace(term, Z=Z, group=replace(term.group, codes=codes[term.group.name]))
        for term, Z in zip(template.terms, columns.Zs, strict=True)
    )
    return replace(template, y=columns.y, X=columns.X[:, list(template.kept)], weights=columns.weights, offset=columns.shift, terms=terms)


FIRST_ROWS = 200
"""Rows that are kept of the first partition whatever their levels."""


@dataclass(slots=True)
class ColumnRange:
    """Sum and range of a column of numbers."""

    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    integer: bool = True

    def add(self, values: Array, *, integer: bool) -> None:
        """More values of the column."""
        self.total += float(values.sum())
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.integer = self.integer and integer


@dataclass(slots=True, eq=False)
class FirstPass:
    """What has been seen of the rows so far.

    groups : sets of columns whose combinations of levels are to be known
    """

    asked: ColumnPlan
    groups: tuple[tuple[str, ...], ...]
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, ColumnRange] = field(default_factory=dict)
    weights: float = 0.0
    log_weights: float = 0.0
    shown: list[pd.DataFrame] = field(default_factory=list)
    seen: dict[tuple[str, ...], set[Hashable]] = field(default_factory=dict)

    def add(self, part: PartRows) -> None:
        """One more partition."""
        self.read, self.kept = self.read + part.read, self.kept + len(part)
        for name, count in part.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        if not len(part):
            return
        source = part.source
        if part.weights is not None:
            self.weights += float(part.weights.sum())
            self.log_weights += float(np.log(part.weights).sum())
        natural = [name for name in self.asked.natural if source.is_factor(name)]
        for name in self.asked.natural:
            if not source.is_factor(name):
                numbers = source.read_numbers(name)
                self.ranges.setdefault(name, ColumnRange()).add(source.numbers(name), integer=numbers.integer)
        watched = dict.fromkeys([(name,) for name in (*natural, *self.asked.factors)] + list(self.groups))
        some = np.arange(0 if self.shown else min(FIRST_ROWS, len(part)))
        rows = np.unique(np.concatenate([some, *(self._unseen(source, columns) for columns in watched)]))
        if len(rows):
            positions = rows if source.rows is None else source.rows[rows]
            self.shown.append(source.table.frame[list(self.asked.columns)].iloc[positions])

    def _unseen(self, source: Columns, columns: tuple[str, ...]) -> Codes:
        """The first row of every combination of levels that was not seen before."""
        key, space = np.zeros(len(source), np.int64), 1
        for name in columns:
            size = len(source.read_factor(name).levels)
            key, space = key * size + source.codes(name), space * size
        first = _first_rows(key, space)
        labels = [source.read_factor(name).labels(source.codes(name)[first]).tolist() for name in columns]
        seen = self.seen.setdefault(columns, set())
        new = [place for place, label in zip(first, zip(*labels, strict=True), strict=True) if label not in seen]
        seen.update(zip(*labels, strict=True))
        return np.array(new, np.int64)

    def roster(self) -> Columns:
        """The rows kept so far, as the columns of a frame."""
        frame = pd.concat(self.shown, ignore_index=True)
        return Columns(ColumnTable(frame, tuple(map(str, frame.columns))), rows_in_all=self.kept)

    def covariate(self, name: str) -> Covariate:
        """Mean and range of a column of numbers over all rows kept."""
        found = self.ranges[name]
        return Covariate(found.total / self.kept, found.low, found.high, found.integer)


def _first_rows(key: Codes, space: int) -> Codes:
    """The first place of every key; by writing places down backwards where the space of keys is small, else by sorting."""
    if space > max(4 * len(key), 1024):
        return np.unique(key, return_index=True)[1].astype(np.int64)
    place = np.full(space, -1, np.int64)
    place[key[::-1]] = np.arange(len(key) - 1, -1, -1)
    return place[place >= 0]
