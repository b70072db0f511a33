"""The first pass: which levels there are, which rows show them, and what the rows amount to.

A row is kept for every level, and every combination of levels, that was not seen before; these few rows, in memory, teach the model its
columns and levels as all rows would.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.encoding import Covariate
from bayeslmm.data.frame import Table
from bayeslmm.data.plan import Plan
from bayeslmm.data.source import Columns
from bayeslmm.scale.parts import Part

FIRST = 200
"""Rows that are kept of the first partition whatever their levels."""


@dataclass(slots=True)
class Range:
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
class Survey:
    """What has been seen of the rows so far.

    groups : sets of columns whose combinations of levels are to be known
    """

    asked: Plan
    groups: tuple[tuple[str, ...], ...]
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    weights: float = 0.0
    log_weights: float = 0.0
    shown: list[pd.DataFrame] = field(default_factory=list)
    seen: dict[tuple[str, ...], set[Hashable]] = field(default_factory=dict)

    def add(self, part: Part) -> None:
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
                self.ranges.setdefault(name, Range()).add(source.numbers(name), integer=numbers.integer)
        watched = dict.fromkeys([(name,) for name in (*natural, *self.asked.factors)] + list(self.groups))
        some = np.arange(0 if self.shown else min(FIRST, len(part)))
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
        return Columns(Table(frame, tuple(map(str, frame.columns))))

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
