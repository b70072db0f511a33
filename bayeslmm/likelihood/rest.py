"""The factors that remain after the first: a Schur complement S kept as dense blocks, one for each connected component.

Two levels belong to the same component when some level of the first factor meets both. Nested factors give thousands of small blocks
(worked on in batches of equal shape), crossed factors one large block (LAPACK).
With `S = Lambda' U Lambda + I`, everything that follows needs `Q = Lambda S^-1 Lambda'`, so a singular Lambda is no special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import lapack

from bayeslmm.arrays import Array, symmetric
from bayeslmm.likelihood.large import LARGE, LargeBlock, large_block
from bayeslmm.likelihood.layout import Batch, RestLayout, Span

SKEWED = 1e3
"""Ratio of the entries of a factor above which it is not divided by."""

BATCHED = 48
"""Blocks up to this size are factorised in batches; larger ones one at a time by LAPACK."""

TOGETHER = 96
"""Columns of all factors up to which they are one dense block: looking for structure among so few costs more than arithmetic."""


def scale_columns(M: Array, local: list[tuple[int, slice]], spans: Sequence[Span], Ts: Sequence[Array]) -> Array:
    """M Lambda over the last axis; M (t, B, i, s), Ts[f] (t, q, q)."""
    out = np.empty_like(M)
    for f, part in local:
        q = spans[f].q
        if q == 1:
            out[..., part] = M[..., part] * Ts[f][:, 0, 0][:, None, None, None]
        else:
            block = M[..., part].reshape(*M.shape[:-1], -1, q)
            out[..., part] = np.matmul(block, Ts[f][:, None, None]).reshape(*M.shape[:-1], -1)
    return out


def _transposed(M: Array) -> Array:
    return M.swapaxes(-1, -2)


def _inverse(S: Array) -> tuple[Array, Array]:
    """log |S| (t, B) and S^-1 of symmetric positive definite blocks (t, B, s, s); NaN where not positive definite."""
    t, B, s = S.shape[:3]
    if s == 1:
        return np.log(S[..., 0, 0]), 1.0 / S
    if s <= BATCHED:
        L = np.linalg.cholesky(S)
        Li = np.linalg.inv(L)
        return 2.0 * np.log(L.diagonal(axis1=-2, axis2=-1)).sum(-1), _transposed(Li) @ Li
    logdet, out = np.empty((t, B)), np.empty_like(S)
    for i in range(t):
        for b in range(B):
            factor, info = lapack.dpotrf(S[i, b].T, lower=0, clean=0, overwrite_a=0)
            if info:
                raise np.linalg.LinAlgError("Matrix is not positive definite")
            logdet[i, b] = 2.0 * np.log(np.diagonal(factor)).sum()
            inverse = lapack.dpotri(factor, lower=0, overwrite_c=1)[0]
            upper = np.triu(inverse)
            out[i, b] = upper + np.triu(inverse, 1).T
    return logdet, out


@dataclass(frozen=True, slots=True, eq=False)
class BlockState:
    """One batch after factorisation: U (t, B, s, s) symmetric, X = Lambda S^-1, Q = Lambda S^-1 Lambda'.

    solved, Qv : (t, B, s, r) S^-1 Lambda' v of the border v, and Q v
    local : for each factor present: its number, its slice of the columns, its T (t, q, q)
    """

    U: Array
    X: Array
    Q: Array
    solved: Array
    Qv: Array
    local: Sequence[tuple[int, slice, Array]]

    def times_U(self, M: Array) -> Array:
        """U M for M (t, B, s, k)."""
        return self.U @ M

    def times_Q(self, M: Array) -> Array:
        """Q M for M (t, B, s, k)."""
        return self.Q @ M

    def lower_Q(self) -> Array:
        """Entries of Q, (t, B s s); only those on and below the diagonals are meant."""
        return self.Q.reshape(len(self.Q), -1)

    def solved_border(self, p: int) -> Array:
        """S^-1 Lambda' V of the first p columns of the border, (t, B, s, p)."""
        return self.solved[..., :p]

    def solved_rows(self, part: slice) -> Array:
        """S^-1 Lambda' V of one factor's columns, (t, B, k, r)."""
        return self.solved[:, :, part]

    def own_products(self) -> list[tuple[int, Array]]:
        """For each factor: sum over its levels of U Lambda S^-1, (t, q, q)."""
        found = []
        for f, part, T in self.local:
            q = T.shape[-1]
            X = self.X[..., part]
            total = np.empty((len(T), q, q))
            if _divisible(T):
                # U Lambda S^-1 = Lambda'^-1 (I - S^-1)
                for a in range(q):
                    for b in range(q):
                        total[:, a, b] = np.diagonal(X[..., part, :][..., a::q, b::q], axis1=-2, axis2=-1).sum((-1, -2))
                levels = X.shape[1] * X.shape[3] // q
                if q == 1:
                    total = (levels - total / T) / T
                else:
                    total = np.linalg.solve(_transposed(T), levels * np.eye(q) - np.linalg.solve(T, total))
            else:
                for a in range(q):
                    rows = self.U[..., part, :][..., a::q, :]
                    for b in range(q):
                        total[:, a, b] = np.einsum("tBij,tBji->t", rows, X[..., b::q])
            found.append((f, total))
        return found


def _divisible(T: Array) -> bool:
    """Whether a factor is large in every direction: dividing by it loses nothing, and what it multiplies would lose digits."""
    size = np.abs(np.diagonal(T, axis1=-2, axis2=-1)).min()
    return bool(size >= 1.0 and np.abs(T).max() <= SKEWED * size)


def _divided(rows: Array, T: Array) -> Array:
    """T'^-1 times the rows of every level; rows (t, B, k, r)."""
    q = T.shape[-1]
    if q == 1:
        return np.asarray(rows / T[:, :, :, None])
    levels = rows.reshape(*rows.shape[:2], -1, q, rows.shape[3])
    return np.linalg.solve(_transposed(T)[:, None, None], levels).reshape(rows.shape)


@dataclass(frozen=True, eq=False)
class RestState:
    """All components after factorisation.

    Ts : (t, q, q) of every factor
    logdet : (t,) log |S|
    QV : (t, m, r) Q U_rb
    border : (t, r, r) U_br Q U_rb, what the border loses
    """

    layout: RestLayout
    Ts: tuple[Array, ...]
    logdet: Array
    blocks: tuple[BlockState | LargeBlock, ...]
    V: Array
    QV: Array
    border: Array

    def apply_Q(self, M: Array) -> Array:
        """Q M for M (t, m, s)."""
        out = np.empty_like(M)
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            out[:, batch.index] = block.times_Q(M[:, batch.index])
        return out

    def apply_U(self, M: Array) -> Array:
        """U M for M (t, m, s)."""
        out = np.empty_like(M)
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            out[:, batch.index] = block.times_U(M[:, batch.index])
        return out

    def flat_Q(self) -> Array:
        """Q in flat storage (t, flat); only entries on and below the diagonals are meant. A view where there is one batch."""
        if len(self.blocks) == 1:
            return self.blocks[0].lower_Q()
        return np.concatenate([block.lower_Q() for block in self.blocks], axis=1)

    @cached_property
    def seen(self) -> Array:
        """V - U Q V, the border seen through V0^-1, (t, m, r).

        Where variances are large this is a small difference of large numbers, but also Lambda'^-1 times what was solved for.
        """
        out = np.empty_like(self.V)
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            whole: Array | None = None
            for f, part in self.layout.local(batch):
                index = batch.index[:, part]
                if _divisible(self.Ts[f]):
                    out[:, index] = _divided(block.solved_rows(part), self.Ts[f])
                else:
                    v = self.V[:, batch.index]
                    whole = v - block.times_U(block.Qv) if whole is None else whole
                    out[:, index] = whole[..., part, :]
        return out

    def solved_border(self, p: int) -> Array:
        """S^-1 Lambda' V of the first p columns of the border, (t, m, p)."""
        out = np.empty((*self.V.shape[:2], p))
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            out[:, batch.index] = block.solved_border(p)
        return out

    def logdet_gradients(self, Qxx: Array, Rx: Array, N: Array) -> list[Array]:
        """d logdet / dT of every factor, (t, q, q) each: 2 sum over levels of [U Lambda S^-1 - Rx Qxx N']."""
        t = len(Qxx)
        out = [np.zeros((t, s.q, s.q)) for s in self.layout.spans]
        for block in self.blocks:
            for f, own in block.own_products():
                out[f] += 2.0 * own
        for f, span in enumerate(self.layout.spans):
            part = slice(span.offset, span.stop)
            left = (Rx[:, part] @ Qxx).reshape(t, span.K, span.q, -1)
            right = N[:, part].reshape(t, span.K, span.q, -1)
            out[f] -= 2.0 * np.einsum("tlax,tlbx->tab", left, right)
        return out

    def information_blocks(self, f: int, Qxx: Array, Rx: Array) -> Array:
        """sum over levels of [Z' P Z] of factor f, (t, q, q), without dividing by Lambda: U - U Q U - Rx Qxx Rx'."""
        span = self.layout.spans[f]
        t, q = len(Qxx), span.q
        total = np.zeros((t, q, q))
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            for g, part in self.layout.local(batch):
                if g != f:
                    continue
                rows = block.U[..., part, :]
                UQ = rows @ block.Q
                for a in range(q):
                    for b in range(q):
                        own = np.diagonal(rows[..., part][..., a::q, b::q], axis1=-2, axis2=-1).sum((-1, -2))
                        total[:, a, b] += own - np.einsum("tBij,tBij->t", UQ[..., a::q, :], rows[..., b::q, :])
        R = Rx[:, span.offset : span.stop].reshape(t, span.K, q, -1)
        return np.asarray(total - np.einsum("tlax,txz,tlbz->tab", R, Qxx, R))


def factorise(where: RestLayout, uflat: Array, V: Array, Ts: Sequence[Array]) -> RestState:
    """Factorise S = Lambda' U Lambda + I.

    uflat : (t, flat) lower entries of U
    V : (t, m, r) U between the remaining columns and the border
    Ts : (t, q, q) for each remaining factor
    """
    t, r = len(uflat), V.shape[2]
    logdet, border = np.zeros(t), np.zeros((t, r, r))
    QV = np.empty_like(V)
    blocks: list[BlockState | LargeBlock] = []
    for batch in where.batches:
        v = V[:, batch.index]
        block, part = _factorised(where, batch, uflat[:, batch.begin : batch.begin + batch.size], v, Ts)
        logdet += part.sum(-1)
        QV[:, batch.index] = block.Qv
        border += (_transposed(v) @ block.Qv).sum(1)
        blocks.append(block)
    return RestState(where, tuple(Ts), logdet, tuple(blocks), V, QV, border)


def _factorised(where: RestLayout, batch: Batch, uflat: Array, v: Array, Ts: Sequence[Array]) -> tuple[BlockState | LargeBlock, Array]:
    """One batch, and log |S| of its blocks (t, B)."""
    t, (B, s) = len(uflat), batch.index.shape
    local = where.local(batch)
    lower = uflat.reshape(t, B, s, s)
    if t == B == 1 and s >= LARGE and all(where.spans[f].q == 1 for f, _ in local):
        scale = np.concatenate([np.full(part.stop - part.start, Ts[f][0, 0, 0]) for f, part in local])
        large = large_block(lower[0, 0], scale, local, v[0, 0])
        return large, large.logdet
    U = symmetric(lower)
    scaled = scale_columns(_transposed(scale_columns(U, local, where.spans, Ts)), local, where.spans, Ts)
    scaled[..., np.arange(s), np.arange(s)] += 1.0
    logdet, inverse = _inverse(scaled)
    transposed = [T.swapaxes(-1, -2) for T in Ts]
    X = _transposed(scale_columns(inverse, local, where.spans, transposed))
    Q = scale_columns(X, local, where.spans, transposed)
    b = _scaled_rows(v, local, where.spans, transposed)
    solved = inverse @ b
    # the explicit inverse loses digits where levels nearly repeat each other and variances are large: once more with what is left
    solved += inverse @ (b - scaled @ solved)
    Qv = _scaled_rows(solved, local, where.spans, Ts)
    return BlockState(U, X, Q, solved, Qv, [(f, own, Ts[f]) for f, own in local]), logdet


def _scaled_rows(M: Array, local: list[tuple[int, slice]], spans: Sequence[Span], Ts: Sequence[Array]) -> Array:
    """Lambda M, or Lambda' M where the Ts are transposed; M (t, B, s, k)."""
    return _transposed(scale_columns(_transposed(M), local, spans, [_transposed(T) for T in Ts]))
