"""Sums over rows by level, and by pair of levels, while rows are coming in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bayeslmm.arrays import Array, Codes

SMALL = 1 << 15
"""Tables of this many pairs of levels are kept whole: sparse bookkeeping would cost more than the arithmetic."""

PAIRS = 1 << 20
"""Entries of sparse pieces that wait to be added up: memory is that of the pairs that occur, not of the rows."""


REPEATED = 8
"""Rows per level of the first factor from which it pays to look whether all other levels follow from it."""

HEAD = 256
"""Rows that are looked at first: where levels cross they do so early."""


class PairSums:
    """Sums over the rows by pair of levels: a whole table where it is small, else sparse pieces."""

    __slots__ = ("full", "pieces", "shape", "table")

    def __init__(self, K: int, L: int) -> None:
        self.shape, self.pieces, self.full = (K, L), list[sp.coo_array](), PAIRS
        self.table = np.zeros(K * L) if K * L <= SMALL else None

    def add(self, row: Codes, column: Codes, values: Array) -> None:
        if self.table is not None:
            self.table += np.bincount(row * self.shape[1] + column, values, len(self.table))
        else:
            self.pieces.append(sp.coo_array((values, (row, column)), shape=self.shape).tocsr().tocoo())
            if sum(piece.nnz for piece in self.pieces) > self.full:
                self.pieces = [self._whole().tocoo()]
                self.full = max(PAIRS, 2 * self.pieces[0].nnz)

    def copy(self) -> PairSums:
        """The same sums, to go on with."""
        out = PairSums(*self.shape)
        if self.table is not None:
            out.table = self.table.copy()
        elif self.pieces:
            if len(self.pieces) > 1:
                self.pieces = [self._whole().tocoo()]
            out.pieces, out.full = list(self.pieces), self.full
        return out

    def _whole(self) -> sp.csr_array:
        """All pieces as one matrix, entries that cancel kept: patterns must stay alike."""
        row, column = (np.concatenate([piece.coords[axis] for piece in self.pieces]) for axis in (0, 1))
        return sp.coo_array((np.concatenate([piece.data for piece in self.pieces]), (row, column)), shape=self.shape).tocsr()

    def entries(self) -> tuple[Codes, Codes, Array]:
        """Row, column and sum of every pair, those of a whole table that never met included; sorted by row and column.

        Sparse pieces are converted in one go: adding sparse matrices would drop entries that cancel, and patterns must stay alike.
        """
        K, L = self.shape
        if self.table is not None:
            return np.repeat(np.arange(K), L), np.tile(np.arange(L), K), self.table
        if len(self.pieces) == 1:
            (row, column), data = self.pieces[0].coords, self.pieces[0].data
            return row.astype(np.int64), column.astype(np.int64), data
        whole = self._whole()
        return np.repeat(np.arange(K), np.diff(whole.indptr)), whole.indices.astype(np.int64), whole.data


@dataclass(frozen=True, slots=True, eq=False)
class LevelSlice:
    """The levels that a piece of rows has: of many, sorted rows have a few that lie together."""

    code: Codes
    span: slice

    @classmethod
    def of(cls, code: Codes, K: int) -> LevelSlice:
        if len(code) >= K or not len(code):
            return cls(code, slice(0, K))
        low, high = int(code.min()), int(code.max())
        return cls(code - low if low else code, slice(low, high + 1))

    def add(self, total: Array, values: Array) -> None:
        """total (K,) plus the sums of the values by level."""
        sums = np.bincount(self.code, values, self.span.stop - self.span.start)
        if len(sums) == len(total):
            total += sums
        else:
            total[self.span] += sums


THIN, LONG = 5, 4096
"""Columns up to which, and rows from which, cross-products are summed one by one, in pairs.

It takes no longer for so few columns, and BLAS loses two digits where a response has few values: its partial sums all round alike.
"""


def row_products(border: Array, weighted: Array) -> Array:
    """Products of the columns with the same columns times weights, (r, r); both (r, rows)."""
    r, n = border.shape
    if r > THIN or n < LONG:
        return np.asarray(border @ weighted.T)
    out = np.empty((r, r))
    for i, column in enumerate(border):
        for j in range(i + 1):
            out[i, j] = out[j, i] = (column * weighted[j]).sum()
    return out


type Rows = tuple[list[Codes], list[list[Array]], Array | None, Array]
"""Level codes and columns of every factor, weights, and the weighted border column by column."""


def by_cell(codes: list[Codes], Z: list[list[Array]], weights: Array | None, weighted: Array, K: int) -> Rows:
    """The same sums from fewer rows: where factors are nested and all have an intercept alone, a level of the first is one row.

    K : levels of the first factor. Anything else is handed back as it is.
    """
    n = len(codes[0])
    if n < REPEATED * K or any(len(z) != 1 for z in Z):
        return codes, Z, weights, weighted
    owners = [_owner(codes[0], code, K) for code in codes[1:]]
    constants = [_constant(z[0]) for z in Z]
    if any(owner is None for owner in owners) or None in constants:
        return codes, Z, weights, weighted
    counts = np.bincount(codes[0], minlength=K)
    seen = np.flatnonzero(counts)
    size = counts.astype(float) if weights is None else np.bincount(codes[0], weights, K)
    border = np.array([_sums(codes[0], column, K, size if weights is None else None)[seen] for column in weighted])
    cells = [seen, *(owner[seen] for owner in owners if owner is not None)]
    return cells, [[np.full(len(seen), c)] for c in constants], size[seen], border


def _sums(code: Codes, column: Array, K: int, counts: Array | None) -> Array:
    """Sums of a column by level; counts (K,) or None: rows of the levels, which say it all of a column that does not vary."""
    constant = None if counts is None else _constant(column)
    return np.bincount(code, column, K) if counts is None or constant is None else constant * counts


def _owner(inner: Codes, outer: Codes, K: int) -> Codes | None:
    """The one level of `outer` that each level of `inner` (K of them) is met with; None where one is met with several."""
    owner = np.zeros(K, np.int64)
    for rows in (slice(0, HEAD), slice(None)):
        owner[inner[rows]] = outer[rows]
        if not np.array_equal(owner[inner[rows]], outer[rows]):
            return None
    return owner


def _constant(column: Array) -> float | None:
    first = column[0]
    return float(first) if column[-1] == first and (column == first).all() else None
