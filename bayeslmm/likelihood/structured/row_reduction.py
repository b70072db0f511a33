"""Rows that share all levels and the variance of their error, rotated so that few of them carry all that the likelihood sees.

Errors of one variance stay independent under a rotation of their rows, and [Z X y] becomes the triangle of its QR decomposition: beyond its
columns all rows are 0, and have no part in a block any more. The likelihood is the same to rounding; a block of k rows that has g such sets
of r columns costs (g r)^3 in the place of k^3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayeslmm._arrays import Array, Codes, equal_rows
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.blocks import RowBatch, block_of
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel

WORTH = 4.0
"""How many times less the work of all blocks has to be."""


def reduce_rows(problem: Problem) -> Problem | None:
    """The problem with rotated rows, whose criterion is the same in x; None where errors are correlated or little is gained."""
    kernel = problem.structured
    if not isinstance(kernel, BlockDiagonalKernel) or problem.design.residual is not None or not kernel.data.terms or not kernel.data.rows:
        return None
    data, batches = kernel.data, kernel.data.rows
    width = data.r + sum(term.Z.shape[1] for term in data.terms)
    if max(batch.rows.shape[1] for batch in batches) <= width:
        return None
    cell = _cells(kernel)
    count = np.bincount(cell)
    if count.max() <= width:
        return None
    order = np.argsort(cell, kind="stable")
    place = np.empty(data.n, np.int64)
    place[order] = np.arange(data.n) - np.repeat(np.cumsum(count) - count, count)
    kept = place < np.minimum(count, width)[cell]
    found, before, after = [], 0.0, 0.0
    for batch in batches:
        size = kept[batch.rows].sum(axis=1)
        before += float(len(batch.rows)) * batch.rows.shape[1] ** 3
        after += float((size.astype(float) ** 3).sum())
        for k in np.unique(size):
            own = batch.rows[size == k]
            found.append(own[kept[own]].reshape(len(own), k))
    if before < WORTH * (after + data.n):
        return None
    found.append(np.flatnonzero(~kept)[:, None])
    together = np.column_stack([*(term.Z for term in data.terms), data.Xy])
    for rows in np.split(order, np.cumsum(count)[:-1]):
        if len(rows) > width:
            together[rows[:width]], together[rows[width:]] = np.linalg.qr(together[rows], mode="r"), 0.0
    bounds = np.cumsum([term.Z.shape[1] for term in data.terms])
    parts = np.split(together, bounds, axis=1)
    terms = tuple(replace(term, Z=Z) for term, Z in zip(data.terms, parts[:-1], strict=True))
    rotated = replace(data, Xy=parts[-1], terms=terms, rows=tuple(RowBatch(rows, block_of(problem.design, rows)) for rows in found))
    return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, data=rotated)))


def _cells(kernel: BlockDiagonalKernel) -> Codes:
    """Which rows share the levels of all terms and whatever the variance of their errors depends on, (n,)."""
    data = kernel.data
    seen: list[Codes | Array | None] = [term.codes for term in data.terms]
    for factor, values in zip(kernel.variance.factors, kernel.variance.values, strict=True):
        seen += [factor.strata, values]
    seen.append(data.log_weight_scale)
    return equal_rows(np.column_stack([np.asarray(part, float) for part in seen if part is not None]))[1]
