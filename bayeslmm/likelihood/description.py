"""Which factorisation evaluates a problem, with its blocks, the multiplications of an evaluation and the memory that it keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from scipy.sparse import csc_array, csr_array

from bayeslmm._arrays import Array
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.iterative import RemainingColumns
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, SparseOffDiagonal
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from bayeslmm.likelihood.structured.low_rank import LowRankKernel

Factorisation = Literal[
    "least squares", "dense Cholesky", "blocked Cholesky", "conjugate gradients", "block-diagonal Cholesky", "block-diagonal QR"
]

Kept = Array | csr_array | csc_array | None

FACTORISATIONS: dict[Factorisation, str] = {
    "least squares": "no random effects: one factor of X'WX",
    "dense Cholesky": "all columns of Z, X and y in one dense factor",
    "blocked Cholesky": "the first grouping factor level by level, the others by their Schur complement",
    "conjugate gradients": "the first grouping factor level by level, the others by sparse products and conjugate gradients",
    "block-diagonal Cholesky": "V subject by subject, or pattern of visits by pattern",
    "block-diagonal QR": "the rows of every level, or of levels that rows tie together, by their random effects",
}


@dataclass(frozen=True, slots=True)
class BlockDescription:
    """Blocks of one shape.

    Attributes
    ----------
    what : str
        What a block is.
    count, size : int
        Number of blocks, and columns of each.
    """

    what: str
    count: int
    size: int


@dataclass(frozen=True, slots=True, repr=False)
class KernelDescription:
    """How the likelihood of a model is evaluated; prints as a few lines.

    Attributes
    ----------
    factorisation : str
        "least squares", "dense Cholesky", "blocked Cholesky", "conjugate gradients", "block-diagonal Cholesky" or
        "block-diagonal QR".
    blocks : tuple of BlockDescription
        The blocks that are factorised; of "conjugate gradients" they are also its preconditioner.
    off_diagonal : str
        How the first factor meets the others: "sparse", "dense", or "" where nothing does.
    multiplications : float
        Multiplications of one value of the criterion, to leading order; a gradient takes about three times as many.
    memory : int
        Bytes that are kept between evaluations: cross-products, or the rows in blocks.
    probes : int
        Random vectors from which a determinant is estimated, the same at every theta; 0 where it is exact.
    """

    factorisation: Factorisation
    blocks: tuple[BlockDescription, ...]
    off_diagonal: str
    multiplications: float
    memory: int
    probes: int = 0

    def __str__(self) -> str:
        lines = [f"{self.factorisation}: {FACTORISATIONS[self.factorisation]}"]
        lines += [f"  {block.count:,} x {block.what}, {block.size:,} x {block.size:,}" for block in self.blocks]
        lines += [f"  {self.off_diagonal} blocks between the first factor and the others"] if self.off_diagonal else []
        lines += [f"  the determinant from {self.probes:,} probes: see checks['log_determinant'] of a fit"] if self.probes else []
        return "\n".join([*lines, f"  one value: about {self.multiplications:,.0f} multiplications; kept: {self.memory / 1e6:,.3f} MB"])

    __repr__ = __str__


def describe_problem(problem: Problem) -> KernelDescription:
    """The factorisation that evaluates a problem. Nothing is evaluated; rows are read if they have not been."""
    kernel = problem.criterion.kernel
    if isinstance(kernel, LowRankKernel):
        return _low_rank(kernel)
    if isinstance(kernel, BlockDiagonalKernel):
        return _block_diagonal(kernel)
    assert isinstance(kernel, RandomEffectsKernel)
    cross, r = kernel.cross, kernel.cross.p + 1
    memory = _bytes(_arrays_of(cross))
    if not cross.factors:
        return KernelDescription("least squares", (BlockDescription("fixed effects", 1, cross.p),), "", _cholesky(cross.p, 1), memory)
    if kernel.dense is not None:
        block = BlockDescription("random effects, fixed effects and response", 1, kernel.dense.m + r)
        return KernelDescription("dense Cholesky", (block,), "", _cholesky(block.size, 0), memory + kernel.dense.products.nbytes)
    return _describe_blocked(cross, memory)


def _describe_blocked(cross: CrossProducts, memory: int) -> KernelDescription:
    blocks, total, r = [], 0.0, cross.p + 1
    if cross.first is not None:
        K, q = cross.first.K, cross.first.q
        blocks.append(BlockDescription(f"level of {cross.factors[0].name}", K, q))
        total += K * (_cholesky(q, r) + q * r * r)
    if cross.remaining is not None:
        return _iterative(cross, cross.remaining, tuple(blocks), total, memory)
    others = " and ".join(factor.name for factor in cross.rest_factors)
    for batch in cross.rest.batches if cross.rest is not None else ():
        count, size = batch.index.shape
        what = f"component of {others}" if len(cross.rest_factors) > 1 or count != cross.rest_factors[0].K else f"level of {others}"
        blocks.append(BlockDescription(what, count, size))
        total += count * (_cholesky(size, r) + size * r * r)
    kind = ""
    if isinstance(cross.coupling, SparseOffDiagonal):
        kind, total = "sparse", total + sum(float(product.nnz) for product in cross.coupling.products)
    elif isinstance(cross.coupling, DenseOffDiagonal):
        q, K, m = cross.coupling.E.shape
        kind, total = "dense", total + float(K) * q * m * (m + q)
    return KernelDescription("blocked Cholesky", tuple(blocks), kind, total, memory)


def _iterative(
    cross: CrossProducts, remaining: RemainingColumns, blocks: tuple[BlockDescription, ...], total: float, memory: int
) -> KernelDescription:
    assert cross.probes is not None
    for factor in cross.rest_factors:
        blocks += (BlockDescription(f"level of {factor.name}", factor.K, factor.q),)
    vectors = cross.probes.exact.shape[1] + cross.probes.count + cross.p + 1
    return KernelDescription(
        "conjugate gradients", blocks, "sparse", total + vectors * remaining.multiplications, memory, cross.probes.count
    )


def _low_rank(kernel: LowRankKernel) -> KernelDescription:
    data, blocks, total = kernel.data, [], 0.0
    for batch in data.rows:
        (count, k), m = batch.rows.shape, kernel.columns_of(batch)
        blocks.append(BlockDescription(f"block of {k:,} rows", count, m))
        total += 2.0 * count * k * (m + data.r) ** 2
    kept: list[Kept] = [data.Xy, data.log_weight_scale, *(term.Z for term in data.terms)]
    return KernelDescription("block-diagonal QR", tuple(blocks), "", total, _bytes(kept))


def _block_diagonal(kernel: BlockDiagonalKernel) -> KernelDescription:
    data, blocks, total = kernel.data, [], 0.0
    kept: list[Kept] = [data.Xy, data.log_weight_scale, *(term.Z for term in data.terms)]
    for batch in data.rows:
        count, k = batch.rows.shape
        blocks.append(BlockDescription("subject of rows", count, k))
        total += count * (_cholesky(k, data.r) + k * data.r**2 + sum(k * k * term.Z.shape[1] for term in data.terms))
    for pattern in data.pooled:
        count, k = pattern.count.size, round(pattern.G.shape[1] ** 0.5)
        blocks.append(BlockDescription(f"pattern of visits, of {pattern.count.sum():,.0f} subjects", count, k))
        total += count * (_cholesky(k, k) + (k * data.r) ** 2)
        kept.append(pattern.G)
    return KernelDescription("block-diagonal Cholesky", tuple(blocks), "", total, _bytes(kept))


def _cholesky(n: int, columns: int) -> float:
    """Multiplications of a Cholesky factorisation and of one solve for some columns."""
    return float(n) ** 3 / 6.0 + float(n) ** 2 * columns / 2.0


def _arrays_of(cross: CrossProducts) -> list[Kept]:
    found: list[Kept] = [cross.Xy, cross.U0, cross.V0]
    if cross.first is not None:
        found += [cross.first.A, cross.first.C]
    if isinstance(cross.coupling, DenseOffDiagonal):
        found.append(cross.coupling.E)
    elif cross.coupling is not None:
        found += [*cross.coupling.columns, *cross.coupling.transposed]
    if isinstance(cross.coupling, SparseOffDiagonal):
        found += [*cross.coupling.products, *cross.coupling.gathers, *cross.coupling.squares]
    if cross.remaining is not None:
        found += [*cross.remaining.blocks, cross.remaining.pairs, *(M for squares in cross.remaining.squares for M in squares.values())]
    if cross.probes is not None:
        found += [cross.probes.exact, cross.probes.random]
    return found


def _bytes(arrays: Iterable[Kept]) -> int:
    """Bytes of arrays, each buffer counted once."""
    buffers: dict[int, int] = {}
    for array in arrays:
        parts = () if array is None else (array.data, array.indices, array.indptr) if isinstance(array, csr_array | csc_array) else (array,)
        for part in parts:
            buffers[part.__array_interface__["data"][0]] = part.nbytes
    return sum(buffers.values())
