"""Draws of responses under structured errors as sums by pattern of visits: no row is drawn.

The c subjects of a pattern of k visits have errors E (c, k), rows from N(0, R), and columns A (c, k p), of which A'A = L L' is known, L of
rank m. With the orthonormal Q of A = Q L',

    A'E = L W,    E'E = W'W + S,    W = Q'E: m rows from N(0, R),    S from Wishart(c - m, R), independent of W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.inference.intervals.batch_structured import ELEMENTS, Kinds, ReplicateSums, subject_groups
from bayeslmm.likelihood.identification import pivoted_root
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.blocks import PooledBatch, sum_by_pattern
from bayeslmm.likelihood.structured.residual_structure import BlockRows

ROUNDING_PIVOT = 1e-12
"""Pivot of A'A, relative to the largest, below which no direction is left."""


@dataclass(frozen=True, slots=True, eq=False)
class PatternColumns:
    """Patterns of k visits: count (C,) subjects; XX (C, k, p, k, p) products of their columns; root of each, (k p, m)."""

    block: BlockRows
    count: Array
    XX: Array
    root: tuple[Array, ...]

    @classmethod
    def of(cls, batch: PooledBatch) -> PatternColumns:
        """Those of summed products of rows of [X y]."""
        C, k = batch.block.shape
        r = round(batch.G.shape[2] ** 0.5)
        XX = np.ascontiguousarray(batch.G.reshape(C, k, k, r, r)[..., :-1, :-1].transpose(0, 1, 3, 2, 4))
        flat = XX.reshape(C, k * (r - 1), k * (r - 1))
        return cls(batch.block, batch.count, XX, tuple(_root(0.5 * (S + S.T), int(n)) for S, n in zip(flat, batch.count, strict=True)))


def _root(S: Array, most: int) -> Array:
    """L with L L' = S, of at most so many columns."""
    size = float(np.diagonal(S).max(initial=0.0))
    if size <= 0.0:
        return np.zeros((len(S), 0))
    return pivoted_root(S, ROUNDING_PIVOT * size)[0][:, :most]


@dataclass(frozen=True, slots=True, eq=False)
class PatternSampler:
    """Draws of the sums of responses."""

    problem: Problem
    patterns: tuple[PatternColumns, ...]

    @classmethod
    def of(cls, problem: Problem) -> PatternSampler:
        """From a problem whose V depends on the visits alone; its subjects are added up where they have not been."""
        kernel = problem.structured
        assert kernel is not None
        batches: Sequence[PooledBatch] = kernel.data.pooled
        if problem.design.in_memory:
            groups = subject_groups(problem)
            sizes = [len(own.block.group) for own in groups]
            batches = [
                PooledBatch(np.bincount(own.kind, minlength=C).astype(float), sum_by_pattern(own.Xy, own.kind, C), own.block)
                for own, C in zip(groups, sizes, strict=True)
            ]
        return cls(problem, tuple(PatternColumns.of(batch) for batch in batches))

    @property
    def step(self) -> int:
        """How many responses are drawn at once."""
        cells = sum(own.XX.size // max(1, own.XX.shape[2]) for own in self.patterns)
        return int(max(1, ELEMENTS // max(1, 4 * cells)))

    def draw(self, x: Array, sigma2: float, alpha: Array, streams: Sequence[np.random.SeedSequence]) -> ReplicateSums:
        """Sums of responses with mean X alpha and errors of covariance sigma2 R0(x), one for every stream, on standardized columns."""
        kernel, B, p = self.problem.structured, len(streams), len(alpha)
        assert kernel is not None
        generators = [np.random.default_rng(stream) for stream in streams]
        kinds = []
        for own in self.patterns:
            C, k = own.block.shape
            factors = cholesky(sigma2 * kernel.structure.matrices(x[kernel.residual_part], own.block))
            XY, YY = np.empty((B, C, k * k, p)), np.empty((B, C, k * k))
            for c, (L, factor) in enumerate(zip(own.root, factors, strict=True)):
                m, count = L.shape[1], int(own.count[c])
                W, S = (np.stack(draws) for draws in zip(*(_errors(rng, m, count, k) for rng in generators), strict=True))
                W, S = W @ factor.T, factor @ S @ factor.T
                mean = own.XX[c] @ alpha  # (k, p, k): products of columns with means
                with_y = mean + (L @ W).reshape(B, k, p, k)
                XY[:, c] = _symmetric(with_y.transpose(0, 1, 3, 2)).reshape(B, k * k, p)
                cross = np.einsum("baid,i->bad", with_y, alpha)
                YY[:, c] = (cross + (cross - np.einsum("aid,i->ad", mean, alpha)).swapaxes(1, 2) + W.swapaxes(1, 2) @ W + S).reshape(B, -1)
            count_of = np.broadcast_to(own.count, (B, C))
            XX = own.XX.transpose(0, 1, 3, 2, 4).reshape(1, C, k * k, p * p)
            kinds.append(Kinds(own.block, count_of, XX, XY, YY))
        return ReplicateSums(tuple(kinds), np.full(B, float(self.problem.criterion.n)))


def _symmetric(products: Array) -> Array:
    """(B, k, k, p) alike in both visits: V^-1 is."""
    return np.asarray(0.5 * (products + products.swapaxes(1, 2)))


def _errors(rng: np.random.Generator, m: int, count: int, k: int) -> tuple[Array, Array]:
    """m rows of k standard normals, and the products of count - m more."""
    W, left = rng.standard_normal((m, k)), count - m
    if left < k:
        E = rng.standard_normal((left, k))
        return W, E.T @ E
    T = np.tril(rng.standard_normal((k, k)), -1)
    T[np.arange(k), np.arange(k)] = np.sqrt(rng.chisquare(left - np.arange(k)))
    return W, T @ T.T
