"""Independent blocks of rows, and subjects without random effects added up by pattern of visits.

When a block's V depends only on which visits were seen (no random effects, weights or variance function), subjects with the same pattern
are added up once: `G = sum_i x_ia x_ib'`, and no row is needed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from bayeslmm._arrays import Array, Codes, equal_rows
from bayeslmm._validation import require_memory
from bayeslmm.data.design import Design
from bayeslmm.errors import SizeError
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.structured.residual_structure import BlockRows


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Blocks of k rows: rows (B, k) positions in the design."""

    rows: Codes
    block: BlockRows

    def part(self, own: Codes) -> RowBatch:
        """Some of the blocks."""
        return self if len(own) == len(self.rows) else RowBatch(self.rows[own], self.block.part(own))


@dataclass(frozen=True, slots=True, eq=False)
class PooledBatch:
    """Patterns of k visits: count (B,) subjects, G (B, k k, r r) their summed products of rows of [X y]."""

    count: Array
    G: Array
    block: BlockRows


def independent_blocks(design: Design) -> Codes:
    """(n,) the independent block that each row belongs to."""
    n = len(design.y)
    factors = [(term.group.codes, len(term.group.levels)) for term in design.terms]
    if any(term.relationship is not None for term in design.terms):
        return np.zeros(n, np.int64)
    if design.residual is not None:
        factors.append((design.residual.subject.codes, len(design.residual.subject.levels)))
    if not factors:
        return np.arange(n)
    if len(factors) == 1:
        return factors[0][0]
    offsets = np.cumsum([0, *(K for _, K in factors)])
    first = factors[0][0]
    row = np.concatenate([first for _ in factors[1:]])
    column = np.concatenate([codes + offset for (codes, _), offset in zip(factors[1:], offsets[1:], strict=False)])
    graph = sp.coo_array((np.ones(len(row)), (row, column)), shape=(offsets[-1], offsets[-1]))
    labels = connected_components(graph, directed=False)[1]
    return np.unique(labels[first], return_inverse=True)[1].astype(np.int64)


def _too_many_together(design: Design, rows: int) -> SizeError:
    """Why so many rows have one covariance matrix, which is worked on whole, and what to do."""
    most = f"at most {TUNING.structured_rows:,} rows"
    if design.residual is None:
        what, where = f"a variance function beside random effects works at once on all rows that they tie together: {rows:,}", "variance="
        remedy = f"give weights= in its place, drop the random effects, or fit a sample with {most} of each level"
    elif not design.terms:
        what, where = f"a subject has {rows:,} rows, whose errors have one covariance matrix", "residual="
        remedy = f"take means over parts of the series, or split it into subjects of {most}"
    else:
        what, where = f"a residual structure ties {rows:,} rows together", "random effects on factors that cross the subjects"
        remedy = "nest the random effects' grouping factors with the subjects, or drop the residual structure"
    return SizeError(what, where, remedy)


def require_dense(batches: Sequence[RowBatch]) -> None:
    """Raise SizeError where blocks that are fitted by their random effects have too many rows for what asks for V itself."""
    most = max((batch.rows.shape[1] for batch in batches), default=0)
    if most > TUNING.structured_rows:
        what = f"this needs the covariance matrix of all rows that random effects tie together: {most:,}"
        remedy = f"tests, predictions and refits do without it; or fit a sample with at most {TUNING.structured_rows:,} rows of each level"
        raise SizeError(what, "variance= beside random effects", remedy)


def order_rows(design: Design, cluster: Codes, *, dense: bool = True) -> list[Codes]:
    """(B, k) row positions for every block size, rows of a block by subject and visit; dense : V of a block is worked on whole."""
    subject = cluster if design.residual is None else design.residual.subject.codes
    visit = np.zeros(len(cluster), np.int64)
    if design.residual is not None and design.residual.visit is not None:
        visit = design.residual.visit
    order = np.lexsort((np.arange(len(cluster)), visit, subject, cluster))
    sizes = np.bincount(cluster)
    if dense and sizes.max() > TUNING.structured_rows:
        raise _too_many_together(design, int(sizes.max()))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    found = []
    for k in np.unique(sizes[sizes > 0]):
        members = np.flatnonzero(sizes == k)
        found.append(order[starts[members][:, None] + np.arange(k)])
    return found


def block_of(design: Design, rows: Codes) -> BlockRows:
    """Where some blocks of rows (B, k) stand in the residual structure."""
    residual = design.residual
    if residual is None:
        return BlockRows(None, None, np.zeros(rows.shape, np.int64), None)
    group = np.zeros(rows.shape, np.int64) if residual.group is None else residual.group.codes[rows]
    subject = residual.subject.codes[rows]
    alone = bool((subject == subject[:, :1]).all())
    same = None if alone else (subject[:, :, None] == subject[:, None, :]).astype(float)
    place = None if residual.visit is None else residual.visit[rows]
    distances = None
    if residual.coords is not None and residual.visit is None:
        points = residual.coords[rows]
        distances = np.sqrt(((points[:, :, None] - points[:, None, :]) ** 2).sum(-1))
    return BlockRows(place, distances, group, same)


def is_poolable(design: Design) -> bool:
    """Whether V depends on the pattern of visits alone."""
    return not design.terms and not design.variance and design.weights is None and design.residual is not None


def pool_all(design: Design, Xy: Array) -> tuple[PooledBatch, ...]:
    """All blocks of a poolable design over visits summed by pattern, however few share one. Xy : (n, r)."""
    blocks = order_rows(design, independent_blocks(design))
    return tuple(batch for index in blocks if (batch := pool_by_pattern(design, index, Xy[index], always=True)) is not None)


def pool_by_pattern(design: Design, rows: Codes, Xy: Array, *, always: bool = False) -> PooledBatch | None:
    """Blocks (B, k) summed by pattern; None where patterns are about as many as blocks, unless `always`. Xy : (B, k, r)."""
    residual = design.residual
    assert residual is not None
    if residual.visit is not None:
        key = residual.visit[rows]
    elif residual.coords is not None:
        place = np.unique(residual.coords, axis=0, return_inverse=True)[1].ravel()
        key = place[rows]
    else:
        return None
    if residual.group is not None:
        key = np.column_stack([key, residual.group.codes[rows[:, 0]]])
    first, pattern = equal_rows(key)
    B, k, r = Xy.shape
    if not always and not TUNING.pools_patterns(B, len(first), k, r):
        return None
    G = sum_by_pattern(Xy, pattern, len(first))
    return PooledBatch(np.bincount(pattern).astype(float), G, block_of(design, rows[first]))


def sum_by_pattern(Xy: Array, pattern: Codes, count: int) -> Array:
    """Products of rows of [X y] summed by pattern, (count, k k, r r); Xy : (B, k, r)."""
    _, k, r = Xy.shape
    order = np.argsort(pattern, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(pattern, minlength=count))])
    require_memory(
        "visit patterns",
        float(count) * (k * r) ** 2,
        f"products of rows for {count:,} patterns of {k} visits",
        "fit a sample of the subjects in memory, or bring the visits to fewer",
    )
    G = np.empty((count, k * k, r * r))
    for s in range(count):
        flat = Xy[order[bounds[s] : bounds[s + 1]]].reshape(-1, k * r)
        G[s] = (flat.T @ flat).reshape(k, r, k, r).transpose(0, 2, 1, 3).reshape(k * k, r * r)
    return G


def merge_pooled(batches: Iterable[PooledBatch]) -> tuple[PooledBatch, ...]:
    """Sums by pattern of several sets of subjects over visits, as those of all of them: one batch for each number of visits."""
    by_size: dict[int, list[PooledBatch]] = {}
    for batch in batches:
        by_size.setdefault(batch.block.shape[1], []).append(batch)
    return tuple(own[0] if len(own) == 1 else _merge_batches(own) for _, own in sorted(by_size.items()))


def _merge_batches(batches: Sequence[PooledBatch]) -> PooledBatch:
    """Patterns of equally many visits."""
    place, group = np.concatenate([np.asarray(b.block.place) for b in batches]), np.concatenate([b.block.group for b in batches])
    first, pattern = equal_rows(np.column_stack([place, group[:, 0]]))
    require_memory(
        "visit patterns",
        float(len(first)) * batches[0].G[0].size,
        f"products of rows for {len(first):,} patterns of {place.shape[1]} visits",
        "fit a sample of the subjects in memory, or bring the visits to fewer",
    )
    G, begin = np.zeros((len(first), *batches[0].G.shape[1:])), 0
    for batch in batches:
        G[pattern[begin : begin + len(batch.count)]] += batch.G
        begin += len(batch.count)
    count = np.bincount(pattern, np.concatenate([batch.count for batch in batches]))
    return PooledBatch(count, G, BlockRows(place[first], None, group[first], None))
