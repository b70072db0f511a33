"""The Schur complement of the first factor, in dense blocks by connected component.

Two levels belong to the same component when some level of the first factor meets both. Nested factors give thousands of small blocks
(worked on in batches of equal shape), crossed factors one large block (LAPACK).
With `S = Lambda' U Lambda + I`, everything that follows needs `Q = Lambda S^-1 Lambda'`, so a singular Lambda is no special case.

A large component is kept as packed triangles. Thousands of crossed levels are one block of hundreds of megabytes. It is written twice, U
and the factor of S, and the factor becomes Q in its own place when derivatives are asked for: a value alone needs no inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.linalg import blas, lapack
from scipy.sparse.csgraph import connected_components

from bayeslmm._arrays import Array, Codes, equal_rows, readonly, symmetric
from bayeslmm.likelihood.kernel import TUNING

SINGLE_VECTORS = 8
"""Products with up to this many vectors go one by one: a matrix product would first copy the triangle into a form of its own."""


def _times(triangle: Array, M: Array) -> Array:
    """The symmetric matrix with this lower triangle, times M (s, k)."""
    if M.shape[1] > SINGLE_VECTORS:
        return np.asarray(blas.dsymm(1.0, triangle.T, M, lower=0))
    out = np.empty_like(M)
    for j in range(M.shape[1]):
        out[:, j] = blas.dsymv(1.0, triangle.T, np.ascontiguousarray(M[:, j]), lower=0)
    return out


@dataclass(slots=True, eq=False)
class PackedBlock:
    """U, and either the Cholesky factor of S = Lambda U Lambda + I or Q = Lambda S^-1 Lambda.

    lower : (s, s) U on and below the diagonal; above it anything
    scale : (s,) the diagonal of Lambda
    local : for each factor present: its number, and its slice of the columns
    solved : (s, r) S^-1 Lambda v of [X y] v
    """

    lower: Array
    scale: Array
    local: Sequence[tuple[int, slice]]
    logdet: Array
    solved: Array
    _held: Array
    _inverted: bool = False

    @property
    def U(self) -> Array:
        """(1, 1, s, s), a new array."""
        return symmetric(self.lower)[None, None]

    @property
    def Q(self) -> Array:
        """(1, 1, s, s), a new array."""
        return symmetric(self._inverse())[None, None]

    def _inverse(self) -> Array:
        """Q on and below the diagonal, zeros above; takes the place of the factor."""
        if not self._inverted:
            self._held = lapack.dpotri(self._held.T, lower=0, overwrite_c=1)[0].T
            self._held *= self.scale
            self._held *= self.scale[:, None]
            self._inverted = True
        return self._held

    def lower_Q(self) -> Array:
        """Entries of Q on and below the diagonal, zeros above, (1, s s); not a copy."""
        return self._inverse().reshape(1, -1)

    def times_U(self, M: Array) -> Array:
        """U M for M (1, 1, s, k)."""
        return _times(self.lower, M[0, 0])[None, None]

    def times_Q(self, M: Array) -> Array:
        """Q M for M (1, 1, s, k)."""
        if self._inverted:
            return _times(self._held, M[0, 0])[None, None]
        return (self.scale[:, None] * _solve(self._held, self.scale[:, None] * M[0, 0]))[None, None]

    @property
    def Qv(self) -> Array:
        """Q v of [X y], (1, 1, s, r)."""
        return (self.scale[:, None] * self.solved)[None, None]

    def solved_Xy(self, p: int) -> Array:
        """S^-1 Lambda V of X, (1, 1, s, p)."""
        return self.solved[None, None, :, :p]

    def solved_rows(self, part: slice) -> Array:
        """S^-1 Lambda V of one factor's columns, (1, 1, k, r)."""
        return self.solved[None, None, part]

    def own_products(self) -> list[tuple[int, Array]]:
        """For each factor: sum over its levels of U Lambda S^-1, (1, 1, 1); 0 where Lambda is, since S^-1 is then I."""
        Q, found = self._inverse(), []
        for i, (f, rows) in enumerate(self.local):
            theta = float(self.scale[rows.start])
            own = np.diagonal(Q)[rows]
            if abs(theta) >= 1.0:
                # U Lambda S^-1 = (I - S^-1) / Lambda, without a difference of large numbers
                total = (len(own) - float(own.sum()) / theta**2) / theta
            elif theta == 0.0:
                total = 0.0
            else:
                total = (self._products(i, Q) - float(np.diagonal(self.lower)[rows] @ own)) / theta
            found.append((f, np.full((1, 1, 1), total)))
        return found

    def _products(self, i: int, Q: Array) -> float:
        """Products of U and Q over the rows of one factor, those of its diagonal twice."""
        rows, total = self.local[i][1], 0.0
        for j, (_, columns) in enumerate(self.local):
            first, second = (rows, columns) if j <= i else (columns, rows)
            product = float(np.einsum("ij,ij->", self.lower[first, second], Q[first, second]))
            total += 2.0 * product if i == j else product
        return total


def _solve(factor: Array, M: Array) -> Array:
    return np.asarray(lapack.dpotrs(factor.T, M, lower=0)[0])


def factorise_packed(lower: Array, scale: Array, local: Sequence[tuple[int, slice]], v: Array) -> PackedBlock:
    """Factorise S.

    lower : (s, s) U on and below the diagonal; scale : (s,); v : (s, r) [X y]
    Raises LinAlgError where S is not positive definite.
    """
    s = len(lower)
    S = lower * scale
    S *= scale[:, None]
    S.reshape(-1)[:: s + 1] += 1.0
    # what LAPACK calls the upper triangle of a matrix by columns is the lower one by rows
    factor, failed = lapack.dpotrf(S.T, lower=0, clean=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("Matrix is not positive definite")
    held = factor.T
    logdet = 2.0 * float(np.log(np.diagonal(held)).sum())
    return PackedBlock(lower, scale, local, np.array([[logdet]]), _solve(held, scale[:, None] * v), held)


@dataclass(frozen=True, slots=True)
class FactorColumns:
    """The columns of one remaining factor: level l, column a at `offset + l * q + a`."""

    offset: int
    K: int
    q: int

    @property
    def stop(self) -> int:
        return self.offset + self.K * self.q


@dataclass(frozen=True, slots=True, eq=False)
class ComponentBatch:
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
class ComponentLayout:
    """Which columns make up which block, and where an entry lies in flat storage."""

    spans: tuple[FactorColumns, ...]
    batches: tuple[ComponentBatch, ...]
    m: int
    flat: int
    target: Codes
    stride: Codes

    def local(self, batch: ComponentBatch) -> list[tuple[int, slice]]:
        """For each factor present in the batch: its number, and its slice of the local columns."""
        found, begin = [], 0
        for f, (count, span) in enumerate(zip(batch.counts, self.spans, strict=True)):
            if count:
                found.append((f, slice(begin, begin + count * span.q)))
            begin += count * span.q
        return found


@lru_cache(maxsize=32)
def _one_component(spans: tuple[FactorColumns, ...]) -> ComponentLayout:
    """All columns as one block."""
    m = spans[-1].stop
    column = readonly(np.arange(m))
    return ComponentLayout(spans, (ComponentBatch(column[None], tuple(s.K for s in spans), 0),), m, m * m, readonly(column * m), column)


def _level_components(span: FactorColumns) -> ComponentLayout:
    """Every level of one factor by itself."""
    K, q, m = span.K, span.q, span.stop
    place = np.arange(q)
    target = (np.arange(K)[:, None] * (q * q) + place * q).ravel()
    return ComponentLayout((span,), (ComponentBatch(np.arange(m).reshape(K, q), (1,), 0),), m, m * q, target, np.tile(place, K))


def lay_out_implicitly(spans: Sequence[FactorColumns]) -> ComponentLayout:
    """Columns of which no block is stored."""
    none = readonly(np.zeros(0, np.int64))
    return ComponentLayout(tuple(spans), (), spans[-1].stop, 0, none, none)


def lay_out_components(spans: Sequence[FactorColumns], links: tuple[Codes, Codes] | None) -> ComponentLayout:
    """Components of the remaining columns.

    links : row and column of entries sorted by row; entries of a row tie their columns together. None ties everything
    """
    if links is None:
        return _one_component(tuple(spans))
    rows, columns = links
    if len(spans) == 1:
        level = columns // spans[0].q
        if bool(((rows[1:] != rows[:-1]) | (level[1:] == level[:-1])).all()):
            return _level_components(spans[0])
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
        batch = ComponentBatch(index, tuple(int(c) for c in shape), begin)
        place = np.arange(s)
        target[index] = begin + np.arange(len(members))[:, None] * s * s + place * s
        stride[index] = place
        batches.append(batch)
        begin += batch.size
    return ComponentLayout(tuple(spans), tuple(batches), m, begin, target, stride)


DIVISIBLE_RATIO = 1e3
"""Ratio of the entries of a factor above which it is not divided by."""


def scale_columns(M: Array, local: list[tuple[int, slice]], spans: Sequence[FactorColumns], Ts: Sequence[Array]) -> Array:
    """M Lambda over the last axis; M (t, B, i, s), Ts[f] (t, q, q)."""
    if all(spans[f].q == 1 for f, _ in local):
        scale = np.concatenate([np.repeat(Ts[f][:, 0], part.stop - part.start, axis=1) for f, part in local], axis=1)
        return np.asarray(M * scale[:, None, None])
    out = np.empty_like(M)
    for f, part in local:
        q = spans[f].q
        if q == 1:
            out[..., part] = M[..., part] * Ts[f][:, 0, 0][:, None, None, None]
        else:
            block = M[..., part].reshape(*M.shape[:-1], -1, q)
            out[..., part] = np.matmul(block, Ts[f][:, None, None]).reshape(*M.shape[:-1], -1)
    return out


def _transpose(M: Array) -> Array:
    return M.swapaxes(-1, -2)


def _inverse(S: Array) -> tuple[Array, Array]:
    """log |S| (t, B) and S^-1 of symmetric positive definite blocks (t, B, s, s); NaN where not positive definite."""
    t, B, s = S.shape[:3]
    if s == 1:
        return np.log(S[..., 0, 0]), 1.0 / S
    if s <= TUNING.batched_columns:
        L = np.linalg.cholesky(S)
        Li = np.linalg.inv(L)
        return 2.0 * np.log(L.diagonal(axis1=-2, axis2=-1)).sum(-1), _transpose(Li) @ Li
    logdet, out = np.empty((t, B)), np.empty_like(S)
    for i in range(t):
        for b in range(B):
            factor, info = lapack.dpotrf(S[i, b].T, lower=0, clean=0, overwrite_a=0)
            if info:
                raise np.linalg.LinAlgError("Matrix is not positive definite")
            logdet[i, b] = 2.0 * np.log(np.diagonal(factor)).sum()
            # the upper triangle of a column-wise matrix is the lower one of its rows
            out[i, b] = lapack.dpotri(factor, lower=0, overwrite_c=1)[0].T
    return logdet, symmetric(out)


@dataclass(frozen=True, slots=True, eq=False)
class SchurBlock:
    """One batch after factorisation: U (t, B, s, s) symmetric, X = Lambda S^-1, Q = Lambda S^-1 Lambda'.

    solved, Qv : (t, B, s, r) S^-1 Lambda' v of [X y] v, and Q v
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

    def solved_Xy(self, p: int) -> Array:
        """S^-1 Lambda' V of X, (t, B, s, p)."""
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
            if is_divisible(T):
                # U Lambda S^-1 = Lambda'^-1 (I - S^-1)
                for a in range(q):
                    for b in range(q):
                        total[:, a, b] = np.diagonal(X[..., part, :][..., a::q, b::q], axis1=-2, axis2=-1).sum((-1, -2))
                levels = X.shape[1] * X.shape[3] // q
                if q == 1:
                    total = (levels - total / T) / T
                else:
                    total = np.linalg.solve(_transpose(T), levels * np.eye(q) - np.linalg.solve(T, total))
            else:
                for a in range(q):
                    rows = self.U[..., part, :][..., a::q, :]
                    for b in range(q):
                        total[:, a, b] = np.einsum("tBij,tBji->t", rows, X[..., b::q])
            found.append((f, total))
        return found


def is_divisible(T: Array) -> bool:
    """Whether a factor is large in every direction: dividing by it loses nothing, and what it multiplies would lose digits."""
    size = np.abs(np.diagonal(T, axis1=-2, axis2=-1)).min()
    return bool(size >= 1.0 and np.abs(T).max() <= DIVISIBLE_RATIO * size)


def _divide(rows: Array, T: Array) -> Array:
    """T'^-1 times the rows of every level; rows (t, B, k, r)."""
    q = T.shape[-1]
    if q == 1:
        return np.asarray(rows / T[:, :, :, None])
    levels = rows.reshape(*rows.shape[:2], -1, q, rows.shape[3])
    return np.linalg.solve(_transpose(T)[:, None, None], levels).reshape(rows.shape)


@dataclass(frozen=True, eq=False)
class SchurComplement:
    """All components after factorisation.

    Ts : (t, q, q) of every factor
    logdets : (t, B) log |S| of the components of every batch
    QV : (t, m, r) Q U_rb
    Xy : (t, r, r) U_br Q U_rb, what [X y] loses
    """

    layout: ComponentLayout
    Ts: tuple[Array, ...]
    logdets: tuple[Array, ...]
    blocks: tuple[SchurBlock | PackedBlock, ...]
    V: Array
    QV: Array
    Xy: Array

    @property
    def logdet(self) -> Array:
        """log |S|, (t,)."""
        return np.asarray(sum((part.sum(-1) for part in self.logdets), np.zeros(len(self.V))))

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
    def projected(self) -> Array:
        """V - U Q V, [X y] seen through V0^-1, (t, m, r).

        Where variances are large this is a small difference of large numbers, but also Lambda'^-1 times what was solved for.
        """
        out = np.empty_like(self.V)
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            whole: Array | None = None
            for f, part in self.layout.local(batch):
                index = batch.index[:, part]
                if is_divisible(self.Ts[f]):
                    out[:, index] = _divide(block.solved_rows(part), self.Ts[f])
                else:
                    v = self.V[:, batch.index]
                    whole = v - block.times_U(block.Qv) if whole is None else whole
                    out[:, index] = whole[..., part, :]
        return out

    def solved_Xy(self, p: int) -> Array:
        """S^-1 Lambda' V of X, (t, m, p)."""
        out = np.empty((*self.V.shape[:2], p))
        for batch, block in zip(self.layout.batches, self.blocks, strict=True):
            out[:, batch.index] = block.solved_Xy(p)
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


def factorise(where: ComponentLayout, uflat: Array, V: Array, Ts: Sequence[Array]) -> SchurComplement:
    """Factorise S = Lambda' U Lambda + I.

    uflat : (t, flat) lower entries of U
    V : (t, m, r) U between the remaining columns and [X y]
    Ts : (t, q, q) for each remaining factor
    """
    t, r = len(uflat), V.shape[2]
    Xy, QV = np.zeros((t, r, r)), np.empty_like(V)
    blocks: list[SchurBlock | PackedBlock] = []
    logdets: list[Array] = []
    for batch in where.batches:
        v = V[:, batch.index]
        block, part = _factorise_batch(where, batch, uflat[:, batch.begin : batch.begin + batch.size], v, Ts)
        logdets.append(part)
        QV[:, batch.index] = block.Qv
        Xy += (_transpose(v) @ block.Qv).sum(1)
        blocks.append(block)
    return SchurComplement(where, tuple(Ts), tuple(logdets), tuple(blocks), V, QV, Xy)


SAME_DECIMALS = 12
"""Decimals, in units of the largest of their batch, to which blocks of two components must agree to be of one kind."""

FEWER_KINDS = 4
"""Components for each kind from which kinds are worth working on."""


@dataclass(frozen=True, slots=True, eq=False)
class ComponentKinds:
    """Components whose blocks of U are equal whatever x is: one of each kind is factorised for all.

    layout : of one component of each kind, in flat storage of their own; entries : where that lies in the storage of all
    members : for every batch the components of each kind
    """

    layout: ComponentLayout
    entries: Codes
    members: tuple[tuple[Codes, ...], ...]


def find_component_kinds(where: ComponentLayout, flat: Array) -> ComponentKinds | None:
    """The kinds of components; flat : (e, flat) everything that U is made of. None where they are about as many as components."""
    count = sum(len(batch.index) for batch in where.batches)
    if FEWER_KINDS * len(where.batches) > count:
        return None
    batches, entries, members, begin = [], [], [], 0
    for batch in where.batches:
        B, s = batch.index.shape
        rows, columns = np.tril_indices(s)
        own = flat[:, batch.begin : batch.begin + batch.size].reshape(-1, B, s * s)
        seen = own[:, :, rows * s + columns].swapaxes(0, 1).reshape(B, -1)
        size = max(float(np.abs(seen).max(initial=0.0)), np.finfo(float).tiny)
        first, kind = equal_rows(np.round(seen / size, SAME_DECIMALS))
        batches.append(ComponentBatch(batch.index[first], batch.counts, begin))
        entries.append((batch.begin + first[:, None] * (s * s) + np.arange(s * s)).ravel())
        members.append(tuple(np.flatnonzero(kind == c) for c in range(len(first))))
        begin += len(first) * s * s
    if FEWER_KINDS * sum(map(len, members)) > count:
        return None
    layout = ComponentLayout(where.spans, tuple(batches), where.m, begin, where.target, where.stride)
    return ComponentKinds(layout, np.concatenate(entries), tuple(members))


def solve_kinds(where: ComponentLayout, kinds: ComponentKinds, uflat: Array, V: Array, Ts: Sequence[Array]) -> tuple[Array, Array]:
    """log |S| (t,) and what [X y] loses (t, r, r), as `factorise` has them; uflat : (t, flat) of the kinds alone."""
    t, r = len(uflat), V.shape[2]
    logdet, Xy = np.zeros(t), np.zeros((t, r, r))
    transposed = [T.swapaxes(-1, -2) for T in Ts]
    for whole, batch, members in zip(where.batches, kinds.layout.batches, kinds.members, strict=True):
        local, s = where.local(whole), whole.index.shape[1]
        lower = uflat[:, batch.begin : batch.begin + batch.size].reshape(t, -1, s, s)
        each, inverse, scaled = _invert(where, local, symmetric(lower), Ts)
        logdet += each @ np.array([float(len(own)) for own in members])
        for c, own in enumerate(members):
            b = _scale_rows(V[:, whole.index[own]], local, where.spans, transposed)
            b = np.ascontiguousarray(b.swapaxes(1, 2)).reshape(t, s, -1)
            solved = inverse[:, c] @ b
            solved += inverse[:, c] @ (b - scaled[:, c] @ solved)
            Xy += b.reshape(t, -1, r).swapaxes(-1, -2) @ solved.reshape(t, -1, r)
    return logdet, Xy


def _invert(where: ComponentLayout, local: list[tuple[int, slice]], U: Array, Ts: Sequence[Array]) -> tuple[Array, Array, Array]:
    """log |S| (t, B), S^-1 and S = Lambda' U Lambda + I of symmetric blocks U (t, B, s, s)."""
    scaled = scale_columns(_transpose(scale_columns(U, local, where.spans, Ts)), local, where.spans, Ts)
    diagonal = np.arange(U.shape[-1])
    scaled[..., diagonal, diagonal] += 1.0
    return *_inverse(scaled), scaled


def _factorise_batch(
    where: ComponentLayout, batch: ComponentBatch, uflat: Array, v: Array, Ts: Sequence[Array]
) -> tuple[SchurBlock | PackedBlock, Array]:
    """One batch, and log |S| of its blocks (t, B)."""
    t, (B, s) = len(uflat), batch.index.shape
    local = where.local(batch)
    lower = uflat.reshape(t, B, s, s)
    if t == B == 1 and s >= TUNING.packed_columns and all(where.spans[f].q == 1 for f, _ in local):
        scale = np.concatenate([np.full(part.stop - part.start, Ts[f][0, 0, 0]) for f, part in local])
        large = factorise_packed(lower[0, 0], scale, local, v[0, 0])
        return large, large.logdet
    U = symmetric(lower)
    logdet, inverse, scaled = _invert(where, local, U, Ts)
    transposed = [T.swapaxes(-1, -2) for T in Ts]
    X = _transpose(scale_columns(inverse, local, where.spans, transposed))
    Q = scale_columns(X, local, where.spans, transposed)
    b = _scale_rows(v, local, where.spans, transposed)
    solved = inverse @ b
    # the explicit inverse loses digits where levels nearly repeat each other and variances are large: once more with what is left
    solved += inverse @ (b - scaled @ solved)
    Qv = _scale_rows(solved, local, where.spans, Ts)
    return SchurBlock(U, X, Q, solved, Qv, [(f, own, Ts[f]) for f, own in local]), logdet


def _scale_rows(M: Array, local: list[tuple[int, slice]], spans: Sequence[FactorColumns], Ts: Sequence[Array]) -> Array:
    """Lambda M, or Lambda' M where the Ts are transposed; M (t, B, s, k)."""
    return _transpose(scale_columns(_transpose(M), local, spans, [_transpose(T) for T in Ts]))
