"""One dense Cholesky factor of `[Z Lambda, X, y]' W [Z Lambda, X, y] + [I, 0, 0]`, for random effects of few columns.

Where the columns of every factor fit in one small dense matrix, looking for structure costs more than arithmetic. With K the inverse of
the factor L, the last row of L and K holds the halves of alpha-hat and of the modes, and `A = [U Lambda, V] K'` gives

    Z'P Z = U - A A',    Z'P Z Lambda = A K,    without the last column of A, which is Z'P y over the last entry of L;

the middle one without any difference of large numbers. Columns of A that belong to X are left out for maximum likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes, readonly
from bayeslmm.covariance.base import Covariance
from bayeslmm.likelihood.kernel import TUNING, Solution
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts

KEPT_DERIVATIVES = 30
"""Parameters up to which movements of T, the same for all data of one layout, are kept for the next fit: two megabytes at most."""


@dataclass(frozen=True, slots=True, eq=False)
class DenseLayout:
    """Where the blocks of all levels lie, for factors of K levels and q columns.

    m : columns of Z; width : Q, the sum of all q
    cells, wide : positions of the blocks of all levels in an (m, m) and in an (m + r, m + r) matrix
    entries : the position of each in the (Q, Q) matrix of all factors' T; corner : the diagonal behind m in the wide matrix
    """

    m: int
    width: int
    cells: Codes
    wide: Codes
    entries: Codes
    corner: slice

    def spread(self, blocks: Array) -> Array:
        """Blocks (k, Q, Q) on the levels of their factors, (k, m, m)."""
        out = np.zeros((len(blocks), self.m * self.m))
        out[:, self.cells] = blocks.reshape(len(blocks), -1)[:, self.entries]
        return out.reshape(len(blocks), self.m, self.m)

    def sum_blocks(self, M: Array) -> Array:
        """Sums over levels of the blocks of M (m, m), on the diagonal of (Q, Q)."""
        return np.bincount(self.entries, M.ravel()[self.cells], self.width**2).reshape(self.width, self.width)


@lru_cache(maxsize=64)
def _layout(sizes: tuple[tuple[int, int], ...], r: int) -> DenseLayout:
    """sizes : (K, q) of every factor."""
    m, width = sum(K * q for K, q in sizes), sum(q for _, q in sizes)
    rows, columns, entries, begin, place = [], [], [], 0, 0
    for K, q in sizes:
        own, inner = begin + np.arange(K * q).reshape(K, q), place + np.arange(q)
        rows.append(np.repeat(own, q, axis=1).ravel())
        columns.append(np.tile(own, (1, q)).ravel())
        entries.append(np.tile((inner[:, None] * width + inner).ravel(), K))
        begin, place = begin + K * q, place + q
    row, column = np.concatenate(rows), np.concatenate(columns)
    M = m + r
    return DenseLayout(m, width, row * m + column, row * M + column, np.concatenate(entries), slice(m * (M + 1), None, M + 1))


@lru_cache(maxsize=16)
def _steady(layout: DenseLayout, covariances: tuple[tuple[Covariance, int], ...]) -> tuple[Array, Array]:
    """What does not move with x where every T is linear in it: dT (k, Q, Q) and dLambda (k, m, m).

    covariances : of the terms in the order of the formula, each with the place of its columns in (Q, Q)
    """
    dT = np.zeros((sum(covariance.size for covariance, _ in covariances), layout.width, layout.width))
    begin = 0
    for covariance, place in covariances:
        stop, end = begin + covariance.size, place + covariance.q
        dT[begin:stop, place:end, place:end] = covariance.factor_derivative(np.zeros(covariance.size))
        begin = stop
    return readonly(dT), readonly(layout.spread(dT))


@dataclass(frozen=True, eq=False)
class DenseCrossProducts:
    """Cross-products of all columns as one matrix: products (m + r, m + r) is [Z X y]'W[Z X y]; p : columns of X."""

    parameters: RandomParameters
    products: Array
    p: int
    layout: DenseLayout

    @property
    def m(self) -> int:
        return self.layout.m

    @cached_property
    def starts(self) -> list[int]:
        """Where the columns of each factor begin in (Q, Q), and the end."""
        return [0, *accumulate(factor.q for factor in self.parameters.factors)]

    @cached_property
    def steady(self) -> tuple[Array, Array] | None:
        """dT and dLambda where they do not move with x."""
        terms = self.parameters.terms
        if not all(term.covariance.factor_linear for term in terms):
            return None
        places = dict[int, int]()
        for begin, factor in zip(self.starts, self.parameters.factors, strict=False):
            places |= {i: begin + own.start for i, own in zip(factor.terms, factor.slices, strict=True)}
        made = _steady if self.parameters.size <= KEPT_DERIVATIVES else _steady.__wrapped__
        return made(self.layout, tuple((term.covariance, places[i]) for i, term in enumerate(terms)))

    def parameter_derivatives(self, x: Array) -> Array:
        """dT of every parameter, (k, Q, Q)."""
        out = np.zeros((self.parameters.size, self.layout.width, self.layout.width))
        for f, own, part, dT in self.parameters.derivatives(x[None]):
            place = slice(self.starts[f] + own.start, self.starts[f] + own.stop)
            out[part, place, place] = dT[0]
        return out

    def T(self, x: Array) -> Array:
        """T of all factors on the diagonal of (Q, Q), flat."""
        if self.steady is not None:
            dT = self.steady[0]
            return np.asarray(x @ dT.reshape(len(dT), -1))
        T = np.zeros((self.layout.width, self.layout.width))
        for begin, block in zip(self.starts, self.parameters.blocks(x[None]), strict=False):
            stop = begin + block.shape[-1]
            T[begin:stop, begin:stop] = block[0]
        return T.ravel()

    def lam(self, x: Array) -> Array:
        """[Lambda, I] (m + r, m + r)."""
        out = np.zeros(self.products.size)
        out[self.layout.corner] = 1.0
        out[self.layout.wide] = self.T(x)[self.layout.entries]
        return out.reshape(self.products.shape)

    def evaluate(self, x: Array) -> DenseFactor | None:
        """The profile at x (size,); None where the matrix is not positive definite."""
        lam = self.lam(x)
        moved = self.products @ lam
        return self._factorize(x, lam, moved, lam.T @ moved)

    def evaluate_many(self, x: Array) -> FewPoints | None:
        """The profile at x (t, size) and its slopes; None where T is not linear in x. Raises LinAlgError."""
        if self.steady is None:
            return None
        t, m = len(x), self.m
        dT = self.steady[0]
        lam = np.zeros((t, self.products.size))
        lam[:, self.layout.corner] = 1.0
        lam[:, self.layout.wide] = (x @ dT.reshape(len(dT), -1))[:, self.layout.entries]
        lam = lam.reshape(t, *self.products.shape)
        moved = self.products[:m] @ lam
        matrix = lam.swapaxes(1, 2) @ (self.products @ lam)
        matrix[:, np.arange(m), np.arange(m)] += 1.0
        L = np.linalg.cholesky(matrix)
        # row by row a lower factor is, column by column, an upper one: LAPACK needs no copy
        return FewPoints(self, moved, L, np.array([lapack.dtrtri(own.T)[0].T for own in L]))

    def at_unit(self, x: Array) -> DenseFactor | None:
        """`evaluate` where x is known to make every T an identity matrix."""
        return self._factorize(x, np.eye(self.m), self.products, self.products.copy())

    def _factorize(self, x: Array, lam: Array, moved: Array, matrix: Array) -> DenseFactor | None:
        m = self.m
        matrix.ravel()[: m * (len(matrix) + 1) : len(matrix) + 1] += 1.0
        # the transpose of a symmetric matrix is itself, in the order that LAPACK wants
        L, failed = lapack.dpotrf(matrix.T, lower=1, clean=1)
        if failed:
            return None
        K, failed = lapack.dtrtri(L, lower=1)
        return None if failed else DenseFactor(self, x, lam[:m, :m], moved[:m], L, K)


@dataclass(frozen=True, eq=False)
class DenseFactor:
    """One evaluation: Lambda (m, m), moved = [U Lambda, V] (m, m + r), the factor L and its inverse K."""

    data: DenseCrossProducts
    x: Array
    Lambda: Array
    moved: Array
    L: Array
    K: Array

    @cached_property
    def solution(self) -> Solution:
        m, p = self.data.m, self.data.p
        diagonal = self.L.diagonal()
        logs = 2.0 * np.log(diagonal)
        corner = self.L[m:, m:]
        last = float(diagonal[-1])
        return Solution(
            logdet=logs[:m].sum(keepdims=True),
            Xy=(corner @ corner.T)[None],
            root=corner[None, :p, :p],
            logdet_X=logs[m : m + p].sum(keepdims=True),
            alpha=(-last * self.K[-1, m:-1])[None],
            r2=np.array([last * last]),
            root_inverse=self.K[None, m:-1, m:-1],
        )

    @cached_property
    def A(self) -> Array:
        """(m, m + r), the p columns of X before the last, which is a over the last entry of L."""
        return self.moved @ self.K.T

    @cached_property
    def scores(self) -> Array:
        """a = Z'P y, (m,)."""
        return np.asarray(self.L[-1, -1] * self.A[:, -1])

    @cached_property
    def spherical(self) -> Array:
        """u = Lambda' a, the modes before Lambda, (m,)."""
        return np.asarray(-float(self.L[-1, -1]) * self.K[-1, : self.data.m])

    def modes(self) -> list[Array]:
        """beta of every factor, (q, 1, K)."""
        beta, found, begin = self.Lambda @ self.spherical, [], 0
        for factor in self.data.parameters.factors:
            stop = begin + factor.K * factor.q
            found.append(beta[begin:stop].reshape(factor.K, factor.q).T[:, None])
            begin = stop
        return found

    @cached_property
    def dLambda(self) -> Array:
        steady = self.data.steady
        return self.data.layout.spread(self.dT) if steady is None else steady[1]

    @cached_property
    def dT(self) -> Array:
        steady = self.data.steady
        return self.data.parameter_derivatives(self.x) if steady is None else steady[0]

    @cached_property
    def working(self) -> Array:
        """dSigma a of every parameter, (k, m), Sigma = Lambda Lambda'."""
        d = self.dLambda
        return np.asarray(d @ self.spherical + (self.scores @ d) @ self.Lambda.T)

    @cached_property
    def r2_slope(self) -> Array:
        """d r2/dx, (k,)."""
        return np.asarray(-(self.working @ self.scores))

    def logdet_slope(self, restricted: bool) -> Array:
        """d(log determinants)/dx, (k,)."""
        m = self.data.m
        k = len(self.K) - 1 if restricted else m
        seen = self.A[:, :k] @ self.K[:k, :m]
        return np.asarray(2.0 * (self.dLambda.reshape(len(self.dLambda), -1) @ seen.ravel()))

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        """2 (AI - AI_s AI_s' / AI_ss), the average information with sigma profiled out, plus the curvature of the parameters."""
        m, w = self.data.m, self.working
        U, dT = self.data.products[:m, :m], self.dT
        seen = w @ self.A[:, :-1]
        average = (w @ U) @ w.T - seen @ seen.T
        slope = self.r2_slope / sigma2
        # sums over levels of Z'P Z (REML) or Z'V0^-1 Z (ML) less a a' / sigma^2
        taken = self.A.copy()
        taken[:, -1] *= self.L[-1, -1] / math.sqrt(sigma2)
        if not restricted:
            taken[:, m:-1] = 0.0
        G = self.data.layout.sum_blocks(U - taken @ taken.T)
        curved = (G @ dT).reshape(len(dT), -1) @ dT.reshape(len(dT), -1).T
        return np.asarray(average / sigma2 - slope[:, None] * (slope / df) + 2.0 * curved)


@dataclass(frozen=True, eq=False)
class FewPoints:
    """Evaluations at many x: moved (t, m, m + r), L and K (t, m + r, m + r) as in `DenseFactor`; values and gradients."""

    data: DenseCrossProducts
    moved: Array
    L: Array
    K: Array

    @cached_property
    def solution(self) -> Solution:
        m, p = self.data.m, self.data.p
        logs = 2.0 * np.log(self.L.diagonal(axis1=1, axis2=2))
        corner, last = self.L[:, m:, m:], self.L[:, -1, -1]
        return Solution(
            logdet=logs[:, :m].sum(1),
            Xy=corner @ corner.swapaxes(1, 2),
            root=corner[:, :p, :p],
            logdet_X=logs[:, m : m + p].sum(1),
            alpha=-last[:, None] * self.K[:, -1, m:-1],
            r2=last * last,
            root_inverse=self.K[:, m:-1, m:-1],
        )

    def _slopes(self, M: Array) -> Array:
        """sum dLambda_i * M for every parameter, (t, k); M (t, m, m)."""
        layout = self.data.layout
        t, square = len(M), layout.width**2
        place = layout.entries + square * np.arange(t)[:, None]
        gathered = np.bincount(place.ravel(), M.reshape(t, -1)[:, layout.cells].ravel(), t * square)
        assert self.data.steady is not None
        dT = self.data.steady[0]
        return np.asarray(gathered.reshape(t, -1) @ dT.reshape(len(dT), -1).T)

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        """d(log determinants)/dx and d r2/dx, (t, size) each."""
        m, last = self.data.m, self.L[:, -1, -1, None]
        A = self.moved @ self.K.swapaxes(1, 2)
        k = A.shape[2] - 1 if restricted else m
        logdet = 2.0 * self._slopes(A[:, :, :k] @ self.K[:, :k, :m])
        scores, spherical = last * A[:, :, -1], -last * self.K[:, -1, :m]
        return logdet, -2.0 * self._slopes(scores[:, :, None] * spherical[:, None, :])


def dense_cross_products(parameters: RandomParameters, cross: CrossProducts) -> DenseCrossProducts | None:
    """All columns as one matrix; None where there are none, or too many."""
    found = _one_factor(cross) if cross.rest is None else _all_factors(cross) if cross.first is None else None
    if found is None:
        return None
    U, V = found
    m = len(U)
    products = np.empty((m + cross.p + 1, m + cross.p + 1))
    products[:m, :m], products[:m, m:], products[m:, :m], products[m:, m:] = U, V, V.T, cross.Xy
    return DenseCrossProducts(parameters, products, cross.p, _layout(tuple((f.K, f.q) for f in cross.factors), cross.p + 1))


def _one_factor(cross: CrossProducts) -> tuple[Array, Array] | None:
    """U and V of a single factor."""
    first = cross.first
    if first is None or not TUNING.is_dense(first.K * first.q, eliminated=True) or first.C.ndim != 3:
        return None
    m, level = first.K * first.q, np.arange(first.K)
    U = np.zeros((first.K, first.q, first.K, first.q))
    U[level, :, level, :] = first.A.transpose(2, 0, 1)
    return U.reshape(m, m), first.C.transpose(2, 0, 1).reshape(m, -1)


def _all_factors(cross: CrossProducts) -> tuple[Array, Array] | None:
    """U and V of factors kept in one block."""
    assert cross.rest is not None and cross.U0 is not None and cross.V0 is not None
    m = cross.rest.m
    if not TUNING.is_dense(m, eliminated=False) or len(cross.rest.batches) != 1:
        return None
    lower = cross.U0.reshape(m, m)  # zeros above the diagonal
    U = lower + lower.T
    U.ravel()[:: m + 1] *= 0.5
    return U, cross.V0
