"""The off-diagonal blocks E between the first factor and the remaining columns, sparse or dense.

The Schur complement of the first factor is `U = A_rest - sum_k E_k' H_k E_k`: linear in the entries of the H_k. When each level meets
few of the others, the coefficients are kept as a sparse matrix over (entry of U) x (level), one for each entry of H: a Schur complement
and its pull-back are then sparse products. When most meet most, a dense E and BLAS are faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from bayeslmm._arrays import Array, Codes, symmetric

PRODUCTS_AT_ONCE = 1 << 16
"""Pairwise products made at once: what they pass through stays in cache, and on the heap."""


TOGETHER = 8
"""Thetas evaluated at once from which the products of a level's entries are made once for all of them."""

PAIR_PRODUCTS = 1 << 22
"""Most products of a level's entries that are kept while many thetas are evaluated."""


def lower_entries(q: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(q) for b in range(a + 1)]


@dataclass(frozen=True, slots=True, eq=False)
class _ByLevel:
    """E by level in compressed rows.

    columns : (q,) list of (K, m) sparse matrices with a common pattern; transposed : their transposes
    """

    columns: tuple[sp.csr_array, ...]
    transposed: tuple[sp.csc_array | sp.csr_array, ...]

    @property
    def q(self) -> int:
        return len(self.columns)

    @property
    def K(self) -> int:
        return int(self.columns[0].shape[0])

    def times(self, V: Array) -> Array:
        """E_k V: V (t, m, s) -> (q, t, s, K)."""
        t, m, s = V.shape
        flat = np.ascontiguousarray(V.transpose(1, 0, 2)).reshape(m, t * s)
        if self.q == 1:
            return (self.columns[0] @ flat).reshape(1, -1, t, s).transpose(0, 2, 3, 1)
        return np.stack([(E @ flat).reshape(-1, t, s).transpose(1, 2, 0) for E in self.columns])

    def transpose_times(self, V: Array) -> Array:
        """sum_k E_k' V_k: V (q, t, s, K) -> (t, m, s)."""
        q, t, s, K = V.shape
        total: Array | None = None
        for a in range(q):
            part = self.transposed[a] @ np.ascontiguousarray(V[a].reshape(t * s, K).T)
            total = part if total is None else total + part
        assert total is not None
        return np.ascontiguousarray(total.reshape(-1, t, s).transpose(1, 0, 2))


@dataclass(frozen=True, slots=True, eq=False)
class UnpairedOffDiagonal(_ByLevel):
    """E by level in compressed rows, for products with vectors alone."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseOffDiagonal(_ByLevel):
    """E by level in compressed rows, and the map from H to the flat entries of U.

    products : for each entry a >= b of H, the (flat, K) sparse matrix of coefficients; only lower entries of U are targets
    gathers : the transposes of `products`; squares : for each entry a >= b, the (K, m) products E_a E_b of a level with itself
    own : (m,) where the diagonal entry of a column lies in flat storage
    """

    products: tuple[sp.csc_array, ...]
    gathers: tuple[sp.csr_array, ...]
    squares: tuple[sp.csr_array, ...]
    own: Codes
    flat: int

    def schur(self, W: Array) -> Array:
        """sum_k E_k' H_k E_k in flat storage (lower entries): (t, flat)."""
        t = W.shape[2]
        total: Array | None = None
        for (a, b), product in zip(lower_entries(self.q), self.products, strict=True):
            H = W[0, 0] * W[0, 0] if self.q == 1 else np.einsum("ctk,ctk->tk", W[:, a], W[:, b])
            part = (product @ H[0])[None] if t == 1 else (product @ np.ascontiguousarray(H.T)).T
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None
        return total

    def gather(self, Q: Array) -> Array:
        """E_k Q E_k' of every level, (q, q, t, K); Q : (t, flat) symmetric, only entries on and below the diagonals are read."""
        q, t, K = self.q, len(Q), self.columns[0].shape[0]
        out = np.empty((q, q, t, K))
        entries, own = (Q[0], Q[0, self.own]) if t == 1 else (np.ascontiguousarray(Q.T), np.ascontiguousarray(Q[:, self.own].T))
        for (a, b), gather, square in zip(lower_entries(q), self.gathers, self.squares, strict=True):
            # what lies below the diagonal stands for two entries, and a product off the diagonal of H for two products
            out[a, b] = ((gather @ entries) * (2.0 if a == b else 1.0) - square @ own).T
            out[b, a] = out[a, b]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class DenseOffDiagonal:
    """E as a dense array; used with a known relationship matrix and where nearly every pair of levels meets.

    E : (q, K, m)
    """

    E: Array

    @property
    def q(self) -> int:
        return int(self.E.shape[0])

    @property
    def flat(self) -> int:
        return int(self.E.shape[2]) ** 2

    def _pairs(self, t: int) -> list[Array] | None:
        """For each entry a >= b of H the products E_a E_b' of every level, (K, m * m); None where they cost more than they save."""
        q, K, m = self.E.shape
        if t < TOGETHER or q * q * K * m * m > PAIR_PRODUCTS:
            return None
        found = [np.einsum("ki,kj->kij", self.E[a], self.E[b]) for a, b in lower_entries(q)]
        return [(M if a == b else M + M.transpose(0, 2, 1)).reshape(K, m * m) for (a, b), M in zip(lower_entries(q), found, strict=True)]

    def schur(self, W: Array) -> Array:
        q, t, m = self.q, W.shape[2], self.E.shape[2]
        pairs = self._pairs(t)
        if pairs is not None:
            H = [np.einsum("ctk,ctk->tk", W[:, a], W[:, b]) for a, b in lower_entries(q)]
            return np.asarray(sum(h @ M for h, M in zip(H, pairs, strict=True)))
        out = np.zeros((t, m, m))
        for i in range(t):
            for a in range(q):
                Y = sum(W[a, c, i][:, None] * self.E[c] for c in range(q))
                out[i] += np.asarray(Y).T @ np.asarray(Y)
        return out.reshape(t, m * m)

    def gather(self, Q: Array) -> Array:
        q, t, K, m = self.q, len(Q), self.E.shape[1], self.E.shape[2]
        out = np.empty((q, q, t, K))
        pairs = self._pairs(t)
        if pairs is not None:
            all_full = symmetric(Q.reshape(t, m, m)).reshape(t, m * m)
            for (a, b), M in zip(lower_entries(q), pairs, strict=True):
                out[a, b] = (all_full @ M.T) * (1.0 if a == b else 0.5)
                out[b, a] = out[a, b]
            return out
        for i in range(t):
            full = symmetric(Q[i].reshape(m, m))
            for a, b in lower_entries(q):
                out[a, b, i] = np.einsum("km,km->k", self.E[a] @ full, self.E[b])
                out[b, a, i] = out[a, b, i]
        return out

    def times(self, V: Array) -> Array:
        return np.stack([np.ascontiguousarray(np.matmul(E, V).transpose(0, 2, 1)) for E in self.E])

    def transpose_times(self, V: Array) -> Array:
        total = sum(np.matmul(E.T, V[a].transpose(0, 2, 1)) for a, E in enumerate(self.E))
        return np.asarray(total)


FactorisedOffDiagonal = SparseOffDiagonal | DenseOffDiagonal
OffDiagonalBlock = FactorisedOffDiagonal | UnpairedOffDiagonal


def sparse_off_diagonal(
    rows: Codes, columns: Codes, values: Array, K: int, m: int, target: Codes, stride: Codes, flat: int
) -> SparseOffDiagonal:
    """Build from entries sorted by row, then column.

    rows, columns : (nnz,) level of the first factor, column of the rest
    values : (q, nnz)
    target, stride : (m,) flat position of a column's first lower entry within its own block, and its local position there, such that the
        entry (i, j) of U, i >= j in the same block, lies at `target[i] + stride[j]`
    """
    q = len(values)
    indptr = np.searchsorted(rows, np.arange(K + 1))
    E = tuple(sp.csr_array((values[a], columns, indptr), shape=(K, m)) for a in range(q))
    counts = np.diff(indptr)
    bounds = np.concatenate([[0], np.cumsum(counts * (counts + 1) // 2)])
    narrow = flat < 2**31 and bounds[-1] < 2**31
    index: NDArray[np.signedinteger] = np.empty(bounds[-1], np.int32 if narrow else np.int64)
    data = np.empty((q * (q + 1) // 2, bounds[-1]))
    for part in _portions(bounds):
        low, high = _pairs(indptr, part)
        own = slice(bounds[part.start], bounds[part.stop])
        index[own] = target[columns[high]] + stride[columns[low]]
        for e, (a, b) in enumerate(lower_entries(q)):
            np.multiply(values[a, high], values[b, low], out=data[e, own])
            if a != b:
                data[e, own] += values[b, high] * values[a, low]
    bounds = bounds.astype(index.dtype)
    products = tuple(sp.csc_array((d, index, bounds), shape=(flat, K)) for d in data)
    gathers = tuple(sp.csr_array((d, index, bounds), shape=(K, flat)) for d in data)
    squares = tuple(sp.csr_array((values[a] * values[b], E[0].indices, E[0].indptr), shape=(K, m)) for a, b in lower_entries(q))
    transposed = tuple(sp.csc_array((e.data, e.indices, e.indptr), shape=(m, K)) for e in E)
    return SparseOffDiagonal(E, transposed, products, gathers, squares, target + stride, flat)


def interleave(columns: Sequence[sp.csr_array]) -> sp.csr_array:
    """(K, L q) with the q matrices (K, L) of a common pattern as columns of each level, side by side."""
    q, first = len(columns), columns[0]
    if q == 1:
        return first
    data = np.stack([M.data for M in columns], axis=1).ravel()
    index = (first.indices[:, None].astype(np.int64) * q + np.arange(q)).ravel()
    return sp.csr_array((data, index, first.indptr.astype(np.int64) * q), shape=(first.shape[0], first.shape[1] * q))


def level_squares(met: Sequence[Sequence[sp.csr_array]]) -> dict[tuple[int, int, int, int], sp.csr_array]:
    """E_ac E_bd + E_bc E_ad by level of the other factor and the first, (L, K), for a >= b and c >= d; met[a][c] (K, L) of one pattern."""
    pattern = met[0][0]
    # one transpose of positions serves all
    order = sp.csr_array((np.arange(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape).T.tocsr()
    found = {}
    for a, b in lower_entries(len(met)):
        for c, d in lower_entries(len(met[0])):
            values = met[a][c].data * met[b][d].data + met[b][c].data * met[a][d].data
            found[a, b, c, d] = sp.csr_array((values[order.data], order.indices, order.indptr), shape=order.shape)
    return found


def largest_component(met: Sequence[tuple[sp.csr_array, int]], enough: int) -> int:
    """Columns of the largest connected component: levels of the other factors are connected where one level of the first meets both.

    met : for each other factor (K, L) which levels meet, and its columns; enough : columns beyond which none larger is looked for. A few
        pairs of each level tell most often.
    """
    thinned = _component([(_thin(M), q) for M, q in met])
    return thinned if thinned > enough else _component(met)


SCATTERED = (40503, 60493)
"""Multipliers that take entries from here and there in the rows."""


def _thin(M: sp.csr_array) -> sp.csr_array:
    """Two entries of every row, scattered over its columns."""
    counts = np.diff(M.indptr).astype(np.int64)
    some = np.flatnonzero(counts)
    at = np.concatenate([M.indptr[some] + (some * step) % counts[some] for step in SCATTERED])
    return sp.coo_array((np.ones(2 * len(some)), (np.tile(some, 2), M.indices[at])), shape=M.shape).tocsr()


def _component(met: Sequence[tuple[sp.csr_array, int]]) -> int:
    K = met[0][0].shape[0]
    whole = sp.hstack([M for M, _ in met], format="csr")
    graph = sp.block_array([[None, whole], [whole.T, None]], format="csr")
    labels = connected_components(graph, directed=False)[1][K:]
    return int(np.bincount(labels, np.concatenate([np.full(M.shape[1], q) for M, q in met])).max())


def _portions(bounds: Codes) -> Iterator[slice]:
    """Rows with about `PRODUCTS_AT_ONCE` pairwise products at a time: what is worked on stays small beside what is kept."""
    begin = 0
    while begin < len(bounds) - 1:
        stop = max(begin + 1, int(np.searchsorted(bounds, bounds[begin] + PRODUCTS_AT_ONCE, side="right")) - 1)
        yield slice(begin, stop)
        begin = stop


def _pairs(indptr: Codes, part: slice) -> tuple[Codes, Codes]:
    """Positions of every pair of entries of a row, low <= high, for some rows; by row, then high, then low."""
    counts = np.diff(indptr[part.start : part.stop + 1])
    entries = np.arange(indptr[part.start], indptr[part.stop])
    first = np.repeat(indptr[part.start : part.stop], counts)
    repeat = entries - first + 1
    before = np.cumsum(repeat) - repeat
    return np.arange(repeat.sum()) - np.repeat(before - first, repeat), np.repeat(entries, repeat)


def count_products(rows: Codes, K: int) -> int:
    """How many pairwise products a sparse map would hold."""
    counts = np.bincount(rows, minlength=K).astype(np.int64)
    return int((counts * (counts + 1) // 2).sum())
