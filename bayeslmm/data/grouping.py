"""Grouping factors: columns, or interactions of columns, as contiguous integer codes over the levels that occur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Codes, frozen_codes, readonly
from bayeslmm.data.design import GroupingFactor
from bayeslmm.data.occurring import occurring
from bayeslmm.data.source import Columns


@dataclass(frozen=True, eq=False)
class GroupCoder:
    """How rows find their level: the levels of each column and, for an interaction, which combinations occur.

    levels : for each column, the labels that the fit has, in order
    combinations : sorted keys of the combinations that occur (mixed radix, first column slowest); None for one column
    """

    factor: GroupingFactor
    levels: tuple[NDArray[np.object_], ...]
    combinations: Codes | None

    @cached_property
    def places(self) -> tuple[dict[Any, int], ...]:
        """For each column, label -> position among the levels of the fit; made when new rows come."""
        return tuple({level: i for i, level in enumerate(levels.tolist())} for levels in self.levels)

    def codes(self, source: Columns) -> Codes:
        """(n,) codes into the levels of the fit; -1 for a level that the fit has not seen or a missing label."""
        key = np.zeros(len(source), dtype=np.int64)
        known = np.ones(len(source), dtype=bool)
        for column, place in zip(self.factor.columns, self.places, strict=True):
            here = source.read_factor(column).levels
            table = np.array([place.get(level, -1) for level in here] + [-1], dtype=np.int64)
            part = table[source.codes(column)]
            known &= part >= 0
            key = key * len(place) + part
        if self.combinations is not None:
            found = np.minimum(np.searchsorted(self.combinations, key), len(self.combinations) - 1)
            known &= self.combinations[found] == key
            key = found
        return np.where(known, key, -1)

    def labels(self, source: Columns) -> NDArray[np.object_]:
        """(n,) the label of each row's level, seen or not; None where a column is missing."""
        parts = [source.read_factor(column).labels(source.codes(column)) for column in self.factor.columns]
        if len(parts) == 1:
            return parts[0]
        rows = [None if None in row else ":".join(map(str, row)) for row in zip(*parts, strict=True)]
        labels = np.empty(len(rows), dtype=object)
        labels[:] = rows
        return labels


def group_coder(source: Columns, columns: Sequence[str]) -> GroupCoder:
    """The grouping factor of an interaction of columns over the rows kept, and how new rows find their level."""
    parts = [_compressed(source, column) for column in columns]
    name = ":".join(columns)
    if len(parts) == 1:
        codes, levels = parts[0]
        return GroupCoder(_factor(name, levels, codes, columns), (levels,), None)
    key, sizes = parts[0][0].astype(np.int64), [len(levels) for _, levels in parts]
    for (codes, _), size in zip(parts[1:], sizes[1:], strict=True):
        key = key * size + codes
    combinations, codes = occurring(key, prod(sizes))
    labels = _labels(combinations, [levels for _, levels in parts])
    return GroupCoder(_factor(name, labels, codes, columns), tuple(readonly(levels) for _, levels in parts), readonly(combinations))


def _factor(name: str, levels: NDArray[np.object_], codes: NDArray[Any], columns: Sequence[str]) -> GroupingFactor:
    return GroupingFactor(name, readonly(levels), frozen_codes(codes), tuple(columns))


def _compressed(source: Columns, column: str) -> tuple[NDArray[Any], NDArray[np.object_]]:
    """Codes over the levels that the rows kept have, and those levels."""
    levels, codes, absent = source.read_factor(column).levels, source.codes(column), source.absent(column)
    if absent is None:
        return codes, levels.copy()
    return (np.cumsum(~absent) - 1)[codes], levels[~absent]


def _labels(combinations: Codes, levels: list[NDArray[np.object_]]) -> NDArray[np.object_]:
    """`A:1` for each combination."""
    rest, parts = combinations, []
    for names in reversed(levels):
        texts = [str(name) for name in names.tolist()]
        parts.append([texts[i] for i in (rest % len(names)).tolist()])
        rest = rest // len(names)
    labels = np.empty(len(combinations), dtype=object)
    labels[:] = [":".join(row) for row in zip(*reversed(parts), strict=True)]
    return labels
