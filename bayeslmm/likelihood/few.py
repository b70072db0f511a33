"""Random effects of few columns in all: one Cholesky factorisation of `[Z Lambda, X, y]' W [Z Lambda, X, y] + [I, 0, 0]` tells everything.

Where the columns of every factor fit in one small dense matrix, looking for structure costs more than arithmetic. With K the inverse of
the factor L, the last row of L and K holds the halves of alpha-hat and of the modes, and `A = [U Lambda, V_x] K'` gives

    Z'P Z = U - A A',    Z'P Z Lambda = A K,    Z'P y = V_y - A h,    h the last row of L,

the middle one without any difference of large numbers. Columns of A that belong to X are left out for maximum likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import lapack

from bayeslmm.arrays import Array, Codes
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.levels_kernel import Solution
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.rest import BATCHED


@dataclass(frozen=True, eq=False)
class FewColumns:
    """Cross-products of all columns as one matrix, and where the entries of every T lie in Lambda.

    products : (m + r, m + r) [Z X y]'W[Z X y]; m : columns of Z; p : of X
    cells : positions in an (m, m) matrix of the blocks of all levels; entries : theirs in the (Q, Q) matrix of all factors' T
    width : Q
    """

    parameters: RandomParameters
    products: Array
    m: int
    p: int
    cells: Codes
    entries: Codes
    width: int

    @cached_property
    def unit(self) -> Array:
        """(m + r, m + r) ones where Lambda leaves X and y alone."""
        out = np.zeros_like(self.products)
        own = np.arange(self.m, len(out))
        out[own, own] = 1.0
        return out

    @cached_property
    def steady(self) -> tuple[Array, Array, Array] | None:
        """What does not move with x where every T is linear in it: dT (k, Q, Q), dLambda (k, m, m) and, flat, within [Lambda, I]."""
        if not all(term.covariance.factor_linear for term in self.parameters.terms):
            return None
        dT = self.movements(np.zeros(self.parameters.size))
        dLambda = self.spread(dT)
        whole = np.zeros((len(dT), *self.products.shape))
        whole[:, : self.m, : self.m] = dLambda
        return dT, dLambda, whole.reshape(len(dT), -1)

    def movements(self, x: Array) -> Array:
        """dT of every parameter, (k, Q, Q)."""
        out = np.zeros((self.parameters.size, self.width, self.width))
        starts = np.cumsum([0, *(factor.q for factor in self.parameters.factors)])
        for f, own, part, dT in self.parameters.derivatives(x[None]):
            place = slice(starts[f] + own.start, starts[f] + own.stop)
            out[part, place, place] = dT[0]
        return out

    def spread(self, blocks: Array) -> Array:
        """Blocks (k, Q, Q) on the levels of their factors, (k, m, m)."""
        out = np.zeros((len(blocks), self.m * self.m))
        out[:, self.cells] = blocks.reshape(len(blocks), -1)[:, self.entries]
        return out.reshape(len(blocks), self.m, self.m)

    def gathered(self, M: Array) -> Array:
        """Sums over levels of the blocks of M (m, m), on the diagonal of (Q, Q)."""
        return np.bincount(self.entries, M.ravel()[self.cells], self.width**2).reshape(self.width, self.width)

    def lam(self, x: Array) -> Array:
        """[Lambda, I] (m + r, m + r)."""
        if self.steady is not None:
            return self.unit + (x @ self.steady[2]).reshape(self.unit.shape)
        T = np.zeros((1, self.width, self.width))
        begin = 0
        for block in self.parameters.blocks(x[None]):
            stop = begin + block.shape[-1]
            T[0, begin:stop, begin:stop] = block[0]
            begin = stop
        out = self.unit.copy()
        out[: self.m, : self.m] = self.spread(T)[0]
        return out

    def evaluate(self, x: Array) -> FewPoint | None:
        """The profile at x (size,); None where the matrix is not positive definite."""
        m = self.m
        lam = self.lam(x)
        moved = self.products @ lam
        matrix = lam.T @ moved
        matrix.ravel()[: m * (len(matrix) + 1) : len(matrix) + 1] += 1.0
        # the transpose of a symmetric matrix is itself, in the order that LAPACK wants
        L, failed = lapack.dpotrf(matrix.T, lower=1, clean=1)
        if failed:
            return None
        K, failed = lapack.dtrtri(L, lower=1)
        return None if failed else FewPoint(self, x, lam[:m, :m], moved[:m], L, K)


@dataclass(frozen=True, eq=False)
class FewPoint:
    """One evaluation: Lambda (m, m), moved = [U Lambda, V] (m, m + r), the factor L and its inverse K."""

    data: FewColumns
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
            border=(corner @ corner.T)[None],
            root=corner[None, :p, :p],
            logdet_X=logs[m : m + p].sum(keepdims=True),
            alpha=(-last * self.K[-1, m:-1])[None],
            r2=np.array([last * last]),
            root_inverse=self.K[None, m:-1, m:-1],
        )

    @cached_property
    def A(self) -> Array:
        """(m, m + p), its last p columns of X."""
        return self.moved[:, :-1] @ self.K[:-1, :-1].T

    @cached_property
    def scores(self) -> Array:
        """a = Z'P y, (m,)."""
        return np.asarray(self.moved[:, -1] - self.A @ self.L[-1, :-1])

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
        return self.data.spread(self.dT) if steady is None else steady[1]

    @cached_property
    def dT(self) -> Array:
        steady = self.data.steady
        return self.data.movements(self.x) if steady is None else steady[0]

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

    def information(self, restricted: bool) -> Array:
        """Sums over levels of [Z'P Z] (REML) or [Z'V0^-1 Z] (ML), factor after factor on the diagonal of (Q, Q)."""
        A = self.A if restricted else self.A[:, : self.data.m]
        return self.data.gathered(self.data.products[: self.data.m, : self.data.m] - A @ A.T)

    @cached_property
    def squares(self) -> Array:
        """Sums over levels of a a', likewise."""
        return self.data.gathered(self.scores[:, None] * self.scores)

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        """2 (AI - AI_s AI_s' / AI_ss), the average information with sigma profiled out, plus the curvature of the parameters."""
        m, w = self.data.m, self.working
        seen = w @ self.A
        average = (w @ self.data.products[:m, :m]) @ w.T - seen @ seen.T
        slope = self.r2_slope / sigma2
        dT = self.dT
        G = self.information(restricted) - self.squares / sigma2
        curved = (G @ dT).reshape(len(dT), -1) @ dT.reshape(len(dT), -1).T
        return np.asarray(average / sigma2 - slope[:, None] * (slope / df) + 2.0 * curved)


def few_columns(parameters: RandomParameters, cross: CrossProducts) -> FewColumns | None:
    """All columns as one matrix; None where there are none, or too many."""
    found = _lone(cross) if cross.rest is None else _together(cross) if cross.first is None else None
    if found is None:
        return None
    U, V = found
    m = len(U)
    products = np.block([[U, V], [V.T, cross.border]])
    cells, entries, begin, place = [], [], 0, 0
    width = sum(factor.q for factor in cross.factors)
    for factor in cross.factors:
        own = begin + np.arange(factor.K * factor.q).reshape(factor.K, factor.q)
        cells.append((own[:, :, None] * m + own[:, None, :]).ravel())
        inner = place + np.arange(factor.q)
        entries.append(np.tile((inner[:, None] * width + inner).ravel(), factor.K))
        begin, place = begin + own.size, place + factor.q
    return FewColumns(parameters, products, m, cross.p, np.concatenate(cells), np.concatenate(entries), width)


def _lone(cross: CrossProducts) -> tuple[Array, Array] | None:
    """U and V of a single factor."""
    first = cross.first
    if first is None or first.K * first.q > BATCHED or first.C.ndim != 3:
        return None
    m, level = first.K * first.q, np.arange(first.K)
    U = np.zeros((first.K, first.q, first.K, first.q))
    U[level, :, level, :] = first.A.transpose(2, 0, 1)
    return U.reshape(m, m), first.C.transpose(2, 0, 1).reshape(m, -1)


def _together(cross: CrossProducts) -> tuple[Array, Array] | None:
    """U and V of factors kept in one block."""
    assert cross.rest is not None and cross.U0 is not None and cross.V0 is not None
    m = cross.rest.m
    if m > BATCHED or len(cross.rest.batches) != 1:
        return None
    lower = np.tril(cross.U0.reshape(m, m))
    return lower + np.tril(lower, -1).T, cross.V0
