"""Responses drawn from the model as their cross-products alone: no row is made.

With e ~ N(0, sigma^2 W^-1), u = [X Z]'W e is normal with covariance sigma^2 C, C = [X Z]'W[X Z], and e'We is sigma^2 (|z|^2 + chi^2 with
n - rank C degrees of freedom) where u = sigma C^(1/2) z. The root of C follows its blocks: the first factor's levels by themselves, the
components of the other factors given these, X given both. So a response of a million rows costs as much as its random effects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from bayeslmm._arrays import Array, Codes, symmetric
from bayeslmm.likelihood.identification import pivoted_root
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.off_diagonal import UnpairedOffDiagonal
from bayeslmm.likelihood.random_effects.schur import ComponentBatch
from bayeslmm.likelihood.response_products import RESPONSE_ELEMENTS, ResponseProducts

ROOT_ROUNDING = 1e3 * float(np.finfo(float).eps)
"""Rounding of a difference of sums, relative to these: what is left below it is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class SemidefiniteRoot:
    """S = R R' of a positive semi-definite matrix from its pivoted Cholesky factor.

    R : (s, rank); pivots : (rank,) rows of R that are lower triangular
    """

    R: Array
    pivots: Codes

    @classmethod
    def of(cls, S: Array, scale: float) -> SemidefiniteRoot:
        """scale : size of what S is a difference of, which tells zeros from rounding."""
        s = len(S)
        if not s:
            return cls(np.zeros((0, 0)), np.zeros(0, np.int64))
        return cls(*pivoted_root(S, s * ROOT_ROUNDING * scale))

    def scores(self, M: Array) -> Array:
        """B (.., rank) with B R' = M, where the rows of M (.., s) lie in the space of S."""
        if not len(self.pivots):
            return np.zeros((len(M), 0))
        return np.asarray(solve_triangular(self.R[self.pivots], M[:, self.pivots].T, lower=True, check_finite=False).T)


@dataclass(frozen=True, slots=True, eq=False)
class ComponentRoots:
    """Components of the other factors' columns, all of one shape, given the first factor.

    index : (B, s) columns; own : (B, s, s) their cross-products; root : (B, s, s) of what is left of these given the first factor, columns
    beyond its rank 0; X : (p, B, s) what X has in common with the variates behind `root`
    """

    index: Codes
    own: Array
    root: Array
    X: Array


@dataclass(frozen=True, slots=True, eq=False)
class ColumnValues:
    """A number for every column and response: X (p, B), first (q, K, B) of the first factor, rest (m, B) of the others."""

    X: Array
    first: Array
    rest: Array

    def dot(self, other: ColumnValues) -> Array:
        """Sums of products over the columns, (B,)."""
        pairs = ((self.X, other.X), (self.first, other.first), (self.rest, other.rest))
        return np.asarray(sum((a * b).reshape(-1, a.shape[-1]).sum(axis=0) for a, b in pairs))

    def plus(self, factor: float, other: ColumnValues) -> ColumnValues:
        """These and `factor` times others."""
        return ColumnValues(self.X + factor * other.X, self.first + factor * other.first, self.rest + factor * other.rest)


@dataclass(frozen=True, slots=True, eq=False)
class ProductSampler:
    """Draws of the cross-products of responses.

    root : (q, q, K) root of every level's Z'WZ; inverse : (q, q, K) that of its pseudo-inverse; components : the other factors'
    X_root : (p, rank) given all random columns; kept_first (q, K), kept_rest (m,) : 0 where a block has no more rank
    """

    problem: Problem
    cross: CrossProducts
    root: Array
    inverse: Array
    components: tuple[ComponentRoots, ...]
    X_root: Array
    kept_first: Array
    kept_rest: Array

    @classmethod
    def of(cls, problem: Problem) -> ProductSampler:
        """The root of C, found once, for models without structured errors whose cross-products are laid out in blocks."""
        cross, p = laid_out(problem), problem.criterion.p
        XX = cross.Xy[:p, :p].copy()
        A, fixed = (np.zeros((0, 0, 0)), np.zeros((0, p, 0))) if cross.first is None else (cross.first.A, cross.first.fixed(p))
        root, inverse, kept = _level_roots(A)
        whitened = np.einsum("ack,apk->cpk", inverse, fixed)
        XX -= np.tensordot(whitened, whitened, ([0, 2], [0, 2]))
        found: list[ComponentRoots] = []
        kept_rest = np.zeros(0 if cross.V0 is None else len(cross.V0))
        if cross.rest is not None and cross.U0 is not None and cross.V0 is not None:
            left, common = cross.U0, cross.V0[:, :p].T
            if cross.coupling is not None:
                assert not isinstance(cross.coupling, UnpairedOffDiagonal)
                left = left - cross.coupling.schur(inverse.transpose(1, 0, 2)[:, :, None])[0]
                given = np.einsum("ack,cpk->apk", inverse, whitened)
                common = common - cross.coupling.transpose_times(given[:, None])[0].T
            for batch in cross.rest.batches:
                one = _component_roots(batch, cross.U0, left, common, kept_rest)
                XX -= np.tensordot(one.X, one.X, ([1, 2], [1, 2]))
                found.append(one)
        last = SemidefiniteRoot.of(XX, float(np.diagonal(cross.Xy)[:p].max(initial=0.0)))
        return cls(problem, cross, root, inverse, tuple(found), last.R, kept, kept_rest)

    @property
    def step(self) -> int:
        """How many responses are drawn at once."""
        return max(1, RESPONSE_ELEMENTS // max(1, 8 * (self.kept_first.size + self.kept_rest.size)))

    @property
    def rank(self) -> int:
        """Rank of [X Z]."""
        return int(self.kept_first.sum() + self.kept_rest.sum()) + len(self.X_root.T)

    def draw(self, x: Array, sigma2: float, alpha: Array, streams: Sequence[np.random.SeedSequence]) -> ResponseProducts:
        """One response for every stream of random numbers, at parameters on standardized columns: x (size,), sigma^2, alpha (p,)."""
        cross, sigma, B = self.cross, float(np.sqrt(sigma2)), len(streams)
        (q, K), m, r = self.kept_first.shape, len(self.kept_rest), self.X_root.shape[1]
        T = [own[0] for own in self.problem.random.blocks(x[None])]
        skip = int(cross.first is not None)
        beta = ColumnValues(np.tile(alpha[:, None], B), np.zeros((q, K, B)), np.zeros((m, B)))
        z = ColumnValues(np.empty((r, B)), np.empty((q, K, B)), np.empty((m, B)))
        squares = np.empty(B)
        for b, stream in enumerate(streams):
            rng = np.random.default_rng(stream)
            if skip:
                beta.first[..., b] = sigma * (T[0] @ rng.standard_normal((q, K)))
            others = [sigma * (rng.standard_normal((f.K, f.q)) @ own.T) for f, own in zip(cross.rest_factors, T[skip:], strict=True)]
            beta.rest[:, b] = np.concatenate([*(own.ravel() for own in others), np.zeros(0)])
            z.first[..., b] = self.kept_first * rng.standard_normal((q, K))
            z.rest[:, b] = self.kept_rest * rng.standard_normal(m)
            z.X[:, b] = rng.standard_normal(r)
            squares[b] = 2.0 * rng.standard_gamma(0.5 * max(cross.n - self.rank, 0))
        mean, errors = self._gram(beta), self._errors(z)
        found = mean.plus(sigma, errors)
        yy = beta.dot(mean.plus(2.0 * sigma, errors)) + sigma2 * (z.dot(z) + squares)
        return ResponseProducts(cross, found.X, yy, found.first if skip else None, None if cross.rest is None else found.rest)

    def _gram(self, beta: ColumnValues) -> ColumnValues:
        """C times coefficients."""
        cross, p = self.cross, self.cross.p
        X, first, rest = cross.Xy[:p, :p] @ beta.X, np.zeros_like(beta.first), np.zeros_like(beta.rest)
        if cross.first is not None:
            fixed = cross.first.fixed(p)
            X += np.tensordot(fixed, beta.first, ([0, 2], [0, 1]))
            first += np.einsum("ack,ckb->akb", cross.first.A, beta.first) + np.tensordot(fixed, beta.X, (1, 0))
        if cross.V0 is not None:
            X += cross.V0[:, :p].T @ beta.rest
            rest += cross.V0[:, :p] @ beta.X
            for part in self.components:
                rest[part.index] += part.own @ beta.rest[part.index]
        if cross.coupling is not None:
            first += cross.coupling.times(beta.rest[None])[:, 0].transpose(0, 2, 1)
            rest += cross.coupling.transpose_times(np.ascontiguousarray(beta.first.transpose(0, 2, 1)[:, None]))[0]
        return ColumnValues(X, first, rest)

    def _errors(self, z: ColumnValues) -> ColumnValues:
        """The root of C times standard normal variates."""
        cross = self.cross
        X, rest = self.X_root @ z.X, np.zeros_like(z.rest)
        first = np.einsum("ack,ckb->akb", self.root, z.first)
        given = np.einsum("ack,ckb->akb", self.inverse, z.first)
        if cross.first is not None:
            X += np.tensordot(cross.first.fixed(cross.p), given, ([0, 2], [0, 1]))
        if cross.coupling is not None:
            rest += cross.coupling.transpose_times(np.ascontiguousarray(given.transpose(0, 2, 1)[:, None]))[0]
        for part in self.components:
            own = z.rest[part.index]
            rest[part.index] += part.root @ own
            X += np.tensordot(part.X, own, 2)
        return ColumnValues(X, first, rest)


def laid_out(problem: Problem) -> CrossProducts:
    """The cross-products of a problem without structured errors, in blocks."""
    kernel = problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel) and kernel.cross.remaining is None
    return kernel.cross


def _level_roots(A: Array) -> tuple[Array, Array, Array]:
    """Roots of A and of its pseudo-inverse for every level, (q, q, K), and (q, K) 1 up to its rank; A (q, q, K)."""
    values, vectors = np.linalg.eigh(A.transpose(2, 0, 1))
    kept = values > len(A) * ROOT_ROUNDING * values.max(axis=1, initial=0.0)[:, None]
    sizes = np.sqrt(np.where(kept, values, 1.0))[:, None] if len(A) else np.ones((len(values), 1, 0))
    root, inverse = (vectors * own * kept[:, None] for own in (sizes, 1.0 / sizes))
    return root.transpose(1, 2, 0), inverse.transpose(1, 2, 0), kept.T.astype(float)


def _component_roots(batch: ComponentBatch, own: Array, left: Array, common: Array, kept: Array) -> ComponentRoots:
    """Roots of components of one shape; own, left : flat storage; common : (p, m); kept : (m,) 1 is put for every variate in use."""
    index, s = batch.index, batch.index.shape[1]
    place = slice(batch.begin, batch.begin + batch.size)
    whole, given = (symmetric(flat[place].reshape(-1, s, s)) for flat in (own, left))
    roots, X = np.zeros(whole.shape), np.zeros((len(common), *index.shape))
    for i, columns in enumerate(index):
        one = SemidefiniteRoot.of(given[i], float(np.diagonal(whole[i]).max(initial=0.0)))
        rank = len(one.pivots)
        roots[i, :, :rank], X[:, i, :rank] = one.R, one.scores(common[:, columns])
        kept[columns[:rank]] = 1.0
    return ComponentRoots(index, whole, roots, X)
