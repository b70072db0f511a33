"""Which of the remaining columns make up which dense block: one for each connected component, or one for all.

Two levels belong to the same component when some level of the first factor meets both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from bayeslmm.arrays import Codes, readonly


@dataclass(frozen=True, slots=True)
class Span:
    """The columns of one remaining factor: level l, column a at `offset + l * q + a`."""

    offset: int
    K: int
    q: int

    @property
    def stop(self) -> int:
        return self.offset + self.K * self.q


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Components of one shape: the same number of levels of each factor.

    index : (B, s) columns of the components, in the order of the factors
    counts : levels of each factor in a component
    begin : where the (B, s, s) blocks start in flat storage
    """

    index: Codes
    counts: tuple[int, ...]
    begin: int

    @property
    def size(self) -> int:
        return int(self.index.size * self.index.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class RestLayout:
    """Which columns make up which block, and where an entry lies in flat storage."""

    spans: tuple[Span, ...]
    batches: tuple[Batch, ...]
    m: int
    flat: int
    target: Codes
    stride: Codes

    def local(self, batch: Batch) -> list[tuple[int, slice]]:
        """For each factor present in the batch: its number, and its slice of the local columns."""
        found, begin = [], 0
        for f, (count, span) in enumerate(zip(batch.counts, self.spans, strict=True)):
            if count:
                found.append((f, slice(begin, begin + count * span.q)))
            begin += count * span.q
        return found


@lru_cache(maxsize=32)
def _whole(spans: tuple[Span, ...]) -> RestLayout:
    """All columns as one block."""
    m = spans[-1].stop
    column = readonly(np.arange(m))
    return RestLayout(spans, (Batch(column[None], tuple(s.K for s in spans), 0),), m, m * m, readonly(column * m), column)


def _apart(span: Span) -> RestLayout:
    """Every level of one factor by itself."""
    K, q, m = span.K, span.q, span.stop
    place = np.arange(q)
    target = (np.arange(K)[:, None] * (q * q) + place * q).ravel()
    return RestLayout((span,), (Batch(np.arange(m).reshape(K, q), (1,), 0),), m, m * q, target, np.tile(place, K))


def layout(spans: Sequence[Span], links: tuple[Codes, Codes] | None) -> RestLayout:
    """Components of the remaining columns.

    links : row and column of entries sorted by row; entries of a row tie their columns together. None ties everything
    """
    if links is None:
        return _whole(tuple(spans))
    rows, columns = links
    if len(spans) == 1:
        level = columns // spans[0].q
        if bool(((rows[1:] != rows[:-1]) | (level[1:] == level[:-1])).all()):
            return _apart(spans[0])
    m = spans[-1].stop
    column_factor = np.concatenate([np.full(s.K * s.q, f) for f, s in enumerate(spans)])
    # levels of a factor hold together: tie the q columns of a level
    first_column = np.concatenate([s.offset + np.repeat(np.arange(s.K) * s.q, s.q) for s in spans])
    K = int(rows[-1]) + 1
    row = np.concatenate([rows, K + np.arange(m)])
    column = np.concatenate([K + columns, K + first_column])
    graph = sp.coo_array((np.ones(len(row)), (row, column)), shape=(K + m, K + m)).tocsr()
    found = connected_components(graph, directed=False)[1][K:]
    component = np.unique(found, return_inverse=True)[1].astype(np.int64)
    count = int(component.max()) + 1
    levels = np.zeros((count, len(spans)), np.int64)
    np.add.at(levels, (component, column_factor), 1)
    levels //= np.array([s.q for s in spans])
    shapes, shape_of = np.unique(levels, axis=0, return_inverse=True)
    shape_of = shape_of.ravel()
    order = np.lexsort((np.arange(m), component))
    starts = np.concatenate([[0], np.cumsum(np.bincount(component, minlength=count))])
    batches, begin = [], 0
    target, stride = np.empty(m, np.int64), np.empty(m, np.int64)
    for number, shape in enumerate(shapes):
        members = np.flatnonzero(shape_of == number)
        s = int(starts[members[0] + 1] - starts[members[0]])
        index = order[starts[members][:, None] + np.arange(s)]
        batch = Batch(index, tuple(int(c) for c in shape), begin)
        place = np.arange(s)
        target[index] = begin + np.arange(len(members))[:, None] * s * s + place * s
        stride[index] = place
        batches.append(batch)
        begin += batch.size
    return RestLayout(tuple(spans), tuple(batches), m, begin, target, stride)
