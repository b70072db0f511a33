"""Sums that merge: cross-products by level, means and mean products of columns (incremental QR), rows that span the columns.

Means, lengths and angles of the columns, hence their rank, their least-squares fit and the change of columns that conditions them, are
those of the triangle `R` of an incremental QR. Columns are counted from the first row, so that an origin far away costs no digits and a
constant column is exactly one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy.linalg import qr

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, Factor, PairSums, summands
from bayeslmm.likelihood.standardize import Standardization, row_pieces
from bayeslmm.partitions.first_pass import EncodedPart


def _present(codes: Codes, K: int) -> Codes:
    """The levels that occur, in order."""
    return np.flatnonzero(np.bincount(codes, minlength=K)) if 4 * len(codes) > K else np.unique(codes)


def empty_sums(factors: Sequence[Factor], sizes: Sequence[int], r: int, standardization: Standardization) -> Accumulator:
    """Sums of nothing yet. factors : of all levels, which decide where tables are whole; sizes : of the levels that there are here"""
    own = tuple(replace(factor, K=size) for factor, size in zip(factors, sizes, strict=True))
    made = Accumulator.empty(own, r, standardization.maps)
    for (f, g), lines in made.pairs.items():
        if TUNING.table_pairs < factors[f].K * factors[g].K:
            for line in lines:
                for pairs in line:
                    pairs.table = None
    return made


@dataclass(slots=True, eq=False)
class SumsByLevel:
    """Cross-products over some levels. levels : of every factor, codes among all levels, in order"""

    factors: tuple[Factor, ...]
    levels: tuple[Codes, ...]
    sums: Accumulator

    @classmethod
    def of(cls, factors: tuple[Factor, ...], design: Design, standardization: Standardization) -> SumsByLevel:
        """Those of the rows of a part."""
        codes = [design.terms[factor.terms[0]].group.codes for factor in factors]
        levels = tuple(_present(own, factor.K) for own, factor in zip(codes, factors, strict=True))
        sums = empty_sums(factors, [len(own) for own in levels], len(design.kept) + 1, standardization)
        for rows in row_pieces(len(design.y)):
            own_codes, Z, Xy, weights = summands(factors, design, standardization, rows)
            places = [np.searchsorted(own, code) for own, code in zip(levels, own_codes, strict=True)]
            sums.add(places, Z, Xy, weights)
        return cls(factors, levels, sums)

    @classmethod
    def of_nothing(cls, factors: tuple[Factor, ...], design: Design, standardization: Standardization) -> SumsByLevel:
        """Those of no rows."""
        levels = tuple(np.zeros(0, np.int64) for _ in factors)
        return cls(factors, levels, empty_sums(factors, [0] * len(factors), len(design.kept) + 1, standardization))

    def merge(self, later: SumsByLevel, standardization: Standardization) -> SumsByLevel:
        """Those of the rows of both."""
        levels = tuple(np.union1d(a, b) for a, b in zip(self.levels, later.levels, strict=True))
        if all(len(both) == len(own) for both, own in zip(levels, self.levels, strict=True)):
            self._absorb(later)
            return self
        made = SumsByLevel(self.factors, levels, empty_sums(self.factors, [len(own) for own in levels], self.sums.r, standardization))
        made._absorb(self)
        made._absorb(later)
        return made

    def _absorb(self, part: SumsByLevel) -> None:
        """Add sums over levels that are among these."""
        total, own = self.sums, part.sums
        places = [np.searchsorted(levels, some) for levels, some in zip(self.levels, part.levels, strict=True)]
        total.n += own.n
        total.Xy += own.Xy
        for f, place in enumerate(places):
            if len(place) == total.factors[f].K:
                total.diagonal[f] += own.diagonal[f]
                total.with_Xy[f] += own.with_Xy[f]
            else:
                total.diagonal[f][:, :, place] += own.diagonal[f]
                total.with_Xy[f][:, :, place] += own.with_Xy[f]
        for (f, g), lines in own.pairs.items():
            for whole, some in zip(total.pairs[(f, g)], lines, strict=True):
                for target, pairs in zip(whole, some, strict=True):
                    _add_pairs(target, pairs, places[f], places[g])


def _add_pairs(target: PairSums, pairs: PairSums, rows: Codes, columns: Codes) -> None:
    if pairs.table is None and not pairs.pieces:
        return
    row, column, values = pairs.entries()
    target.add(rows[row], columns[column], values)


@dataclass(slots=True, eq=False)
class CoincidingFactors:
    """Which grouping factors with as many levels have divided all rows alike so far."""

    partners: dict[tuple[str, str], Codes | None] = field(default_factory=dict)

    def add(self, rows: Design) -> None:
        """The rows of a part."""
        groups = list({term.group.name: term.group for term in rows.terms}.values())
        for i, a in enumerate(groups):
            for b in groups[i + 1 :]:
                if a.size == b.size:
                    partner = np.full(a.size, -1)
                    partner[a.codes] = b.codes
                    self._join((a.name, b.name), partner if (partner[a.codes] == b.codes).all() else None)

    def merge(self, later: CoincidingFactors) -> CoincidingFactors:
        """What the rows of both say."""
        for pair, partner in later.partners.items():
            self._join(pair, partner)
        return self

    def _join(self, pair: tuple[str, str], partner: Codes | None) -> None:
        known = self.partners.setdefault(pair, partner)
        if known is not None and partner is not None:
            both = (known >= 0) & (partner >= 0)
            self.partners[pair] = np.where(known >= 0, known, partner) if (known == partner)[both].all() else None
        else:
            self.partners[pair] = None

    def alike(self, a: GroupingFactor, b: GroupingFactor) -> bool:
        """Whether two factors divide the rows alike."""
        pair = (a.name, b.name) if (a.name, b.name) in self.partners else (b.name, a.name)
        return self.partners.get(pair) is not None


@dataclass(slots=True, eq=False)
class IncrementalQR:
    """R of [1, M - first row], rows times the roots of their weights."""

    origin: Array | None = None
    R: Array | None = None

    def add(self, M: Array, root: Array | None) -> None:
        """Rows (n, k) of the matrix, and the roots of their weights (n,) where they have any."""
        if not len(M):
            return
        if self.origin is None or self.R is None:
            self.origin, self.R = M[0].copy(), np.zeros((0, M.shape[1] + 1))
        for part in row_pieces(len(M)):
            block = np.empty((part.stop - part.start, M.shape[1] + 1))
            block[:, 0] = 1.0
            np.subtract(M[part], self.origin, out=block[:, 1:])
            if root is not None:
                block *= root[part, None]
            self.R = np.linalg.qr(np.vstack([self.R, block]), mode="r")

    def merge(self, later: IncrementalQR) -> None:
        """The rows of another as well, counted from the first row of these."""
        if later.origin is None or later.R is None:
            return
        if self.origin is None or self.R is None:
            self.origin, self.R = later.origin, later.R
            return
        moved = later.R.copy()
        moved[:, 1:] += moved[:, :1] * (later.origin - self.origin)
        self.R = np.linalg.qr(np.vstack([self.R, moved]), mode="r")

    def rows(self) -> Array:
        """k + 1 rows without weights whose means are those of all rows, and whose squares and products are, per row, theirs.

        (H R_1..k) sqrt((k + 1) / W) + origin, with H orthogonal, its first column constant, and W the sum of the weights.
        """
        assert self.origin is not None and self.R is not None
        m = len(self.origin) + 1
        R = np.zeros((m, m))
        R[: len(self.R)] = self.R
        total = R[0, 0]
        if total < 0:
            R[0] *= -1.0
        return np.asarray(_constant_first(m) @ R[:, 1:] * (np.sqrt(m) / abs(total)) + self.origin)


def _constant_first(m: int) -> Array:
    """An orthogonal matrix whose first column is constant: the reflection of the first axis to it."""
    normal = np.full(m, -1.0 / np.sqrt(m))
    normal[0] += 1.0
    square = float(normal @ normal)
    return np.eye(m) if square == 0.0 else np.eye(m) - 2.0 * np.outer(normal, normal) / square


@dataclass(slots=True, eq=False)
class ColumnMoments:
    """Moments of [X y offset] and of every Z, with the weights and without; the range of the response; sums of variables.

    plain_columns, plain_blocks : the moments without weights, where there are weights; largest, left : largest absolute value of the
        response, and of what the offset leaves of it; sums : variable of the fixed effects that is no factor -> sums of its columns
    """

    columns: IncrementalQR = field(default_factory=IncrementalQR)
    blocks: list[IncrementalQR] = field(default_factory=list)
    plain_columns: IncrementalQR = field(default_factory=IncrementalQR)
    plain_blocks: list[IncrementalQR] = field(default_factory=list)
    sums: dict[str, Array] = field(default_factory=dict)
    largest: float = 0.0
    left: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, rows: EncodedPart, block: DesignBlock, source: Columns) -> None:
        """The rows of a part. block : of the fixed effects; source : the rows that it is to encode"""
        shift = [] if rows.shift is None else [rows.shift]
        matrix = np.column_stack([rows.X, rows.y, *shift])
        root = None if rows.weights is None else np.sqrt(rows.weights)
        while len(self.blocks) < len(rows.Zs):
            self.blocks.append(IncrementalQR())
            self.plain_blocks.append(IncrementalQR())
        self.columns.add(matrix, root)
        for own, Z in zip(self.blocks, rows.Zs, strict=True):
            own.add(Z, root)
        if root is not None:
            self.plain_columns.add(matrix, None)
            for own, Z in zip(self.plain_blocks, rows.Zs, strict=True):
                own.add(Z, None)
        for key, atom in block.atoms.items():
            total = np.array([piece.sum() for piece in atom.pieces(source, reduced=True)], dtype=np.float64)
            self.sums[key] = self.sums.get(key, 0.0) + total
        left = rows.y if rows.shift is None else rows.y - rows.shift
        self.largest = max(self.largest, float(np.abs(rows.y).max()))
        self.left = max(self.left, float(np.abs(left).max()))
        self.low, self.high = min(self.low, float(left.min())), max(self.high, float(left.max()))

    def merge(self, later: ColumnMoments) -> ColumnMoments:
        """Those of both."""
        if not self.blocks:
            self.blocks, self.plain_blocks = later.blocks, later.plain_blocks
        else:
            for own, other in zip((*self.blocks, *self.plain_blocks), (*later.blocks, *later.plain_blocks), strict=len(later.blocks) > 0):
                own.merge(other)
        self.columns.merge(later.columns)
        self.plain_columns.merge(later.plain_columns)
        for key, total in later.sums.items():
            self.sums[key] = self.sums[key] + total if key in self.sums else total
        self.largest, self.left = max(self.largest, later.largest), max(self.left, later.left)
        self.low, self.high = min(self.low, later.low), max(self.high, later.high)
        return self

    @property
    def unweighted(self) -> tuple[IncrementalQR, list[IncrementalQR]]:
        """The moments without weights."""
        return (self.columns, self.blocks) if self.plain_columns.R is None else (self.plain_columns, self.plain_blocks)


SPANNING_PIVOT = 1e-4
"""The last pivot against the first from which rows count as spanning the columns: they do so to 12 digits."""

CANDIDATES = 4096
"""Rows among which some are chosen at once."""


@dataclass(slots=True, eq=False)
class SpanningRows:
    """Rows of the data on which the standardized columns of X are independent: as many as there are columns, chosen by their pivots."""

    columns: tuple[str, ...]
    X: Array | None = None
    frame: pd.DataFrame | None = None
    complete: bool = False

    def add(self, X: Array, taken: Callable[[Codes], pd.DataFrame]) -> None:
        """Rows of X (n, p), and how rows of the data are taken."""
        for begin in range(0, len(X), CANDIDATES):
            if self.complete:
                return
            self._choose(X[begin : begin + CANDIDATES], partial(_taken_from, taken, begin))

    def merge(self, later: SpanningRows) -> SpanningRows:
        """The better of the rows of both."""
        if not self.complete and later.X is not None and later.frame is not None:
            frame = later.frame
            self._choose(later.X, lambda rows: frame.iloc[rows])
        return self

    def _choose(self, X: Array, taken: Callable[[Codes], pd.DataFrame]) -> None:
        p = X.shape[1]
        known = np.zeros((0, p)) if self.X is None else self.X
        together = np.vstack([known, X])
        R, order = qr(together.T, mode="r", pivoting=True, check_finite=False) if p else (np.zeros((0, 0)), np.arange(1))
        pivots = np.abs(np.diagonal(R))
        rank = int(np.sum(pivots > 1e-10 * pivots[0])) if len(pivots) else 0
        chosen = np.sort(np.asarray(order[: max(rank, 1)], np.int64))
        self.complete = rank == p and (p == 0 or pivots[p - 1] >= SPANNING_PIVOT * pivots[0])
        old, new = chosen[chosen < len(known)], chosen[chosen >= len(known)] - len(known)
        frames = ([] if self.frame is None else [self.frame.iloc[old]]) + ([taken(new)] if len(new) else [])
        self.X, self.frame = together[chosen], pd.concat(frames, ignore_index=True)


def _taken_from(taken: Callable[[Codes], pd.DataFrame], begin: int, rows: Codes) -> pd.DataFrame:
    """Rows counted from `begin`."""
    return taken(rows + begin)
