"""The first grouping factor: block diagonal by level, eliminated level by level.

With `Lambda = I x T` the block of a level is `M = T' A T + I = L L'`, and everything else needs only `W = L^-1 T'`, because
`H = T M^-1 T' = W' W`. No inverse of Sigma = T T' is ever formed, so a singular T is as good as any other.

Arrays are kept level-last ("struct of arrays"): a 2 x 2 Cholesky of 100,000 levels is a dozen vector operations. A leading axis of
thetas (t) runs through everything; one theta is t = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Mask
from bayeslmm.likelihood.kernel import TUNING

GENERAL_PRODUCT_ROWS = 5
"""Rows up to which a general product is faster than a symmetric one."""

CHUNK_ELEMENTS = 8192
"""Elements of (thetas x levels) worked on at once: the working set stays in cache."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockFactor:
    """What elimination leaves behind.

    logdet : (t,) log |M| summed over levels
    Xy : (t, r, r) sum over levels of C' H C
    W : (q, q, t, K) L^-1 T'
    projected : (q, t, r, K) F C with F = I - A H, [X y] seen through the inverse; None when only the value was asked for
    B : (q, q, t, K) A - A H A; None likewise
    """

    logdet: Array
    Xy: Array
    W: Array
    projected: Array | None
    B: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class LevelSums:
    """What elimination adds up when nothing follows it: memory does not depend on the number of levels.

    logdet : (t,); Xy : (t, r, r) sum of C' H C
    products : (t, q, r, q, r) sum of (F C)(F C)'; B : (t, q, q) sum of A - A H A; None when only the value was asked for
    """

    logdet: Array
    Xy: Array
    products: Array | None
    B: Array | None


def _whiten(M: list[list[Array]], T: Array, q: int) -> tuple[Array, list[list[Array]]]:
    """|M| (t, k) and W = L^-1 T' from the lower triangle of M; each entry is a (t, k) array."""
    L: list[list[Array]] = [[np.empty(0)] * q for _ in range(q)]
    inverse: list[Array] = []
    det: Array | None = None
    for a in range(q):
        for b in range(a + 1):
            v = M[a][b]
            for c in range(b):
                v = v - L[a][c] * L[b][c]
            if a == b:
                det = v if det is None else det * v
                root = np.sqrt(v)
                L[a][a] = root
                inverse.append(1.0 / root)
            else:
                L[a][b] = v * inverse[b]
    W: list[list[Array]] = [[np.empty(0)] * q for _ in range(q)]
    for b in range(q):
        for a in range(q):
            start = T[:, b, a, None]
            v = start * inverse[a] if a == 0 else start
            for c in range(a):
                v = v - L[a][c] * W[c][b]
            W[a][b] = v * inverse[a] if a > 0 else v
    assert det is not None
    return det, W


LARGE_SD = 1e3
"""Relative standard deviations, in every direction, from which differences with A H are written without subtracting."""

LARGE_RATIO = 1e3
"""Ratio of the entries of T up to which its inverse keeps digits."""

WITHIN_LEVELS = 1e-12
"""Share of a column's sum of squares, left when every level has its own coefficients, that is rounding."""


def are_large(T: Array) -> Mask:
    """Which T of (t, q, q) are large in every direction, (t,)."""
    smallest = np.abs(T.diagonal(axis1=-2, axis2=-1)).min(-1)
    return np.asarray((smallest >= LARGE_SD) & (np.abs(T).max((-2, -1)) <= LARGE_RATIO * smallest))


@dataclass(frozen=True, slots=True, eq=False)
class BlockDiagonal:
    """Cross-products of the first factor.

    A : (q, q, K) Z'WZ by level
    C : (q, r, K) Z'W[X y] by level; (q, t, r, K) where every theta has a response of its own
    """

    A: Array
    C: Array

    @property
    def q(self) -> int:
        return int(self.A.shape[0])

    @property
    def K(self) -> int:
        return int(self.A.shape[2])

    def fixed_products(self, p: int) -> Array:
        """Z'WX by level, (q, p, K): the same for every response."""
        return (self.C if self.C.ndim == 3 else self.C[:, 0])[:, :p]

    def eliminate(self, T: Array, derivatives: bool) -> BlockFactor:
        """Eliminate every level for each theta; T : (t, q, q) lower triangular."""
        t, q, K, r = len(T), self.q, self.K, self.C.shape[-2]
        if K * t <= CHUNK_ELEMENTS:
            return self.part(slice(0, K), T, derivatives)
        logdet, Xy = np.zeros(t), np.zeros((t, r, r))
        W = np.empty((q, q, t, K))
        projected = np.empty((q, t, r, K)) if derivatives else None
        B = np.empty((q, q, t, K)) if derivatives else None
        for part in self.pieces(t):
            state = self.part(part, T, derivatives)
            logdet += state.logdet
            Xy += state.Xy
            W[..., part] = state.W
            if projected is not None and B is not None:
                projected[..., part], B[..., part] = state.projected, state.B
        return BlockFactor(logdet, Xy, W, projected, B)

    def large(self, Xy: Array, T: Array) -> tuple[BlockFactor, Array]:
        """The levels at some large T (t, q, q), and what the border is without them, (t, r, r), in sums of like sign alone.

        With b_k = A_k^- C_k the coefficients of each level's own least squares,

            [X y]'W[X y] - sum C' H C = ([X y]'W[X y] - sum C' b) + sum b' F C,    F C = Sigma^-1 H C;

        the bracket does not depend on T, and is exactly 0 for columns of X that are constant within levels.
        """
        A, C = self.A.transpose(2, 0, 1), self.C.transpose(2, 0, 1)
        own = np.linalg.pinv(A, rcond=WITHIN_LEVELS, hermitian=True) @ C
        within = Xy - np.einsum("kar,kas->rs", C, own)
        none = np.diagonal(within) <= WITHIN_LEVELS * np.diagonal(Xy)
        within[none] = within[:, none] = 0.0
        state = self.part(slice(0, self.K), T, derivatives=False)
        inverse = np.linalg.inv(T)
        precision = inverse.swapaxes(-1, -2) @ inverse
        H = np.einsum("tab,cbtk,cdtk->adtk", precision, state.W, state.W, optimize=True)
        projected = np.einsum("abtk,brk->atrk", H, self.C)
        B = np.einsum("abtk,bck->actk", H, self.A)
        net = within + np.einsum("kar,atsk->trs", own, projected, optimize=True)
        factor = BlockFactor(state.logdet, state.Xy, state.W, projected, 0.5 * (B + B.swapaxes(0, 1)))
        return factor, 0.5 * (net + net.swapaxes(-1, -2))

    def pieces(self, t: int) -> Iterator[slice]:
        """Levels in pieces that stay in cache."""
        step = max(1, CHUNK_ELEMENTS // t)
        for begin in range(0, self.K, step):
            yield slice(begin, min(begin + step, self.K))

    def sums(self, T: Array, derivatives: bool) -> LevelSums:
        """Eliminate every level and keep only sums over levels."""
        t, q, r = len(T), self.q, self.C.shape[-2]
        logdet, Xy = np.zeros(t), np.zeros((t, r, r))
        products, B = np.zeros((t, q * r, q * r)), np.zeros((t, q, q))
        for part in self.pieces(t):
            state = self.part(part, T, derivatives)
            logdet += state.logdet
            Xy += state.Xy
            if state.projected is not None and state.B is not None:
                flat = state.projected.transpose(1, 0, 2, 3).reshape(t, q * r, -1)
                products += gram(flat)
                B += state.B.sum(-1).transpose(2, 0, 1)
        if not derivatives:
            return LevelSums(logdet, Xy, None, None)
        return LevelSums(logdet, Xy, products.reshape(t, q, r, q, r), B)

    def part(self, part: slice, T: Array, derivatives: bool) -> BlockFactor:
        """Eliminate some levels."""
        A, C = self.A[:, :, part], self.C[..., part]
        if C.ndim == 3 and A.shape[2] * len(T) <= TUNING.batched_levels:
            return _eliminate_batched(A, C, T, derivatives)
        logdet, W = _eliminate_unrolled(A, T) if self.q <= TUNING.unrolled_columns else _factor_batched(A, T)
        Y = _times(W, C)
        Xy = gram(Y).sum(0)
        stacked = np.array(W)
        if not derivatives:
            return BlockFactor(logdet, Xy, stacked, None, None)
        AW = _cross(A, W)
        projected = (C if C.ndim == 4 else C[:, None]) - _times(AW, Y)
        return BlockFactor(logdet, Xy, stacked, projected, _remainder(A, AW))


def gram(Y: Array) -> Array:
    """Y Y' of a few long rows, (.., r, r); Y (.., r, k).

    By a copy: what NumPy knows to be symmetric it gives to a routine that takes several times as long for so few rows.
    """
    return np.asarray(np.matmul(Y, (Y.copy() if Y.shape[-2] <= GENERAL_PRODUCT_ROWS else Y).swapaxes(-1, -2)))


def _eliminate_batched(A: Array, C: Array, T: Array, derivatives: bool) -> BlockFactor:
    """A few levels, as batches of small matrices."""
    q = len(A)
    Ak, Ck = A.transpose(2, 0, 1), C.transpose(2, 0, 1)
    Tt = T.swapaxes(-1, -2)[:, None]
    L = np.linalg.cholesky(Tt @ Ak @ T[:, None] + np.eye(q))
    logdet = 2.0 * np.log(L.diagonal(axis1=-2, axis2=-1)).sum((-1, -2))
    W = np.linalg.inv(L) @ Tt
    Y = W @ Ck
    flat = Y.reshape(len(T), -1, Y.shape[-1])
    Xy = flat.swapaxes(-1, -2) @ flat
    if not derivatives:
        return BlockFactor(logdet, Xy, W.transpose(2, 3, 0, 1), None, None)
    AW = Ak @ W.swapaxes(-1, -2)
    projected, B = Ck - AW @ Y, Ak - AW @ AW.swapaxes(-1, -2)
    return BlockFactor(logdet, Xy, W.transpose(2, 3, 0, 1), projected.transpose(2, 0, 3, 1), B.transpose(2, 3, 0, 1))


def _times(W: list[list[Array]], C: Array) -> Array:
    """sum_c W[a][c] C[c], (q, t, r, k); C (q, r, k) or (q, t, r, k)."""
    out = []
    for row in W:
        total = row[0][:, None, :] * C[0]
        for c in range(1, len(row)):
            total += row[c][:, None, :] * C[c]
        out.append(total)
    return np.array(out)


def _cross(A: Array, W: list[list[Array]]) -> list[list[Array]]:
    """A W', (t, k) each."""
    q = len(A)
    out = []
    for a in range(q):
        row = []
        for b in range(q):
            total = A[a, 0] * W[b][0]
            for c in range(1, q):
                total += A[a, c] * W[b][c]
            row.append(total)
        out.append(row)
    return out


def _remainder(A: Array, AW: list[list[Array]]) -> Array:
    """A - A H A, (q, q, t, k)."""
    q = len(A)
    out = np.empty((q, q, *AW[0][0].shape))
    for a in range(q):
        for b in range(a + 1):
            total = A[a, b] - AW[a][0] * AW[b][0]
            for c in range(1, q):
                total -= AW[a][c] * AW[b][c]
            out[a, b] = out[b, a] = total
    return out


def _eliminate_unrolled(A: Array, T: Array) -> tuple[Array, list[list[Array]]]:
    det, W = factor_unrolled(A, T)
    return np.log(det).sum(-1), W


def factor_unrolled(A: Array, T: Array) -> tuple[Array, list[list[Array]]]:
    """|M| (t, k) of every level, and W = L^-1 T' as q x q arrays (t, k)."""
    q, t, k = len(A), len(T), A.shape[2]
    # T'AT for all levels at once is one GEMM with the Kronecker square of T'
    kron = (T[:, :, None, :, None] * T[:, None, :, None, :]).transpose(0, 3, 4, 1, 2).reshape(t, q * q, q * q)
    M = np.matmul(kron, A.reshape(q * q, k)).reshape(t, q, q, k)
    for a in range(q):
        M[:, a, a] += 1.0
    return _whiten([[M[:, a, b] for b in range(a + 1)] for a in range(q)], T, q)


def _factor_batched(A: Array, T: Array) -> tuple[Array, list[list[Array]]]:
    q = len(A)
    Tt = T.swapaxes(-1, -2)[:, None]
    M = Tt @ A.transpose(2, 0, 1)[None] @ T[:, None] + np.eye(q)
    L = np.linalg.cholesky(M)
    logdet = 2.0 * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum((-1, -2))
    W = np.linalg.solve(L, np.broadcast_to(Tt, L.shape))
    return logdet, [[np.ascontiguousarray(W[:, :, a, b]) for b in range(q)] for a in range(q)]
