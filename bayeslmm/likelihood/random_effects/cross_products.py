"""`[Z X y]' W [Z X y]`, added up over the rows once: all that the Gaussian likelihood needs of them.

Random terms with the same grouping factor are one *factor* with their columns side by side. The factor with the most columns in all comes
first and is block diagonal by level; a factor with a known relationship matrix never comes first, its columns are those of Z (L x I).
Cross-products are accumulated by level codes; no n x levels matrix exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from bayeslmm._arrays import Array, Codes, Mask
from bayeslmm.data.design import Design
from bayeslmm.errors import SizeError
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.random_effects.iterative import Probes, RemainingColumns, draw_probes
from bayeslmm.likelihood.random_effects.level_blocks import BlockDiagonal
from bayeslmm.likelihood.random_effects.off_diagonal import (
    DenseOffDiagonal,
    OffDiagonalBlock,
    UnpairedOffDiagonal,
    count_products,
    interleave,
    largest_component,
    level_squares,
    sparse_off_diagonal,
)
from bayeslmm.likelihood.random_effects.schur import ComponentLayout, FactorColumns, lay_out_components, lay_out_implicitly
from bayeslmm.likelihood.standardize import ColumnMap, Standardization, row_pieces

WAITING_ENTRIES = 1 << 20
"""Entries of sparse pieces that wait to be added up: memory is that of the pairs that occur, not of the rows."""


NESTING_ROWS_PER_LEVEL = 8
"""Rows per level of the first factor from which it pays to look whether all other levels follow from it."""

CROSSING_ROWS = 256
"""Rows that are looked at first: where levels cross they do so early."""


class PairSums:
    """Sums over the rows by pair of levels: a whole table where it is small, else sparse pieces."""

    __slots__ = ("full", "pieces", "shape", "table")

    def __init__(self, K: int, L: int) -> None:
        self.shape, self.pieces, self.full = (K, L), list[sp.coo_array](), WAITING_ENTRIES
        self.table = np.zeros(K * L) if TUNING.table_pairs >= K * L else None

    def add(self, row: Codes, column: Codes, values: Array) -> None:
        if self.table is not None:
            self.table += np.bincount(row * self.shape[1] + column, values, len(self.table))
        else:
            self.pieces.append(sp.coo_array((values, (row, column)), shape=self.shape).tocsr().tocoo())
            if sum(piece.nnz for piece in self.pieces) > self.full:
                self.pieces = [self._whole().tocoo()]
                self.full = max(WAITING_ENTRIES, 2 * self.pieces[0].nnz)

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

    def whole(self) -> sp.csr_array:
        """All sums as one matrix, every pair of a whole table included."""
        if self.table is None:
            return self._whole() if self.pieces else sp.csr_array(self.shape)
        K, L = self.shape
        return sp.csr_array((self.table, np.tile(np.arange(L), K), np.arange(0, K * L + 1, L)), shape=self.shape)

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


def row_products(Xy: Array, weighted: Array) -> Array:
    """Products of the columns with the same columns times weights, (r, r); both (r, rows)."""
    r, n = Xy.shape
    if r > THIN or n < LONG:
        return np.asarray(Xy @ weighted.T)
    out = np.empty((r, r))
    for i, column in enumerate(Xy):
        for j in range(i + 1):
            out[i, j] = out[j, i] = (column * weighted[j]).sum()
    return out


def pair_matrices(table: Sequence[Sequence[PairSums]]) -> list[list[sp.csr_array]]:
    """The sums of two factors, column by column of each, as matrices of one pattern: that of the pairs that met."""
    found = [[pairs.whole() for pairs in row] for row in table]
    if table[0][0].table is None:
        return found
    met = np.any([[M.data != 0.0 for M in row] for row in found], axis=(0, 1))
    first = found[0][0]
    indptr = np.concatenate([[0], np.cumsum(met)])[first.indptr]
    return [[sp.csr_array((M.data[met], M.indices[met], indptr), shape=M.shape) for M in row] for row in found]


type RowPieces = tuple[list[Codes], list[list[Array]], Array | None, Array]
"""Level codes and columns of every factor, weights, and weighted [X y] column by column."""


def by_cell(codes: list[Codes], Z: list[list[Array]], weights: Array | None, weighted: Array, K: int) -> RowPieces:
    """The same sums from fewer rows: where factors are nested and all have an intercept alone, a level of the first is one row.

    K : levels of the first factor. Anything else is handed back as it is.
    """
    n = len(codes[0])
    if n < NESTING_ROWS_PER_LEVEL * K or any(len(z) != 1 for z in Z):
        return codes, Z, weights, weighted
    owners = [_owner(codes[0], code, K) for code in codes[1:]]
    constants = [_constant(z[0]) for z in Z]
    if any(owner is None for owner in owners) or None in constants:
        return codes, Z, weights, weighted
    counts = np.bincount(codes[0], minlength=K)
    seen = np.flatnonzero(counts)
    size = counts.astype(float) if weights is None else np.bincount(codes[0], weights, K)
    Xy = np.array([_sums(codes[0], column, K, size if weights is None else None)[seen] for column in weighted])
    cells = [seen, *(owner[seen] for owner in owners if owner is not None)]
    return cells, [[np.full(len(seen), c)] for c in constants], size[seen], Xy


def _sums(code: Codes, column: Array, K: int, counts: Array | None) -> Array:
    """Sums of a column by level; counts (K,) or None: rows of the levels, which say it all of a column that does not vary."""
    constant = None if counts is None else _constant(column)
    return np.bincount(code, column, K) if counts is None or constant is None else constant * counts


def _owner(inner: Codes, outer: Codes, K: int) -> Codes | None:
    """The one level of `outer` that each level of `inner` (K of them) is met with; None where one is met with several."""
    owner = np.zeros(K, np.int64)
    for rows in (slice(0, CROSSING_ROWS), slice(None)):
        owner[inner[rows]] = outer[rows]
        if not np.array_equal(owner[inner[rows]], outer[rows]):
            return None
    return owner


def _constant(column: Array) -> float | None:
    first = column[0]
    return float(first) if column[-1] == first and (column == first).all() else None


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A grouping factor with the columns of all its terms.

    terms : positions of the terms in the design; slices : their columns within the factor
    root : (K, K) lower Cholesky factor of the relationship matrix, or None
    """

    name: str
    K: int
    terms: tuple[int, ...]
    slices: tuple[slice, ...]
    root: Array | None

    @property
    def q(self) -> int:
        return int(self.slices[-1].stop)


def factors_of(design: Design) -> tuple[Factor, ...]:
    """Factors, the one to eliminate first at the front (unless it has a relationship matrix)."""
    found: dict[tuple[str, bool], list[int]] = {}
    for number, term in enumerate(design.terms):
        key = (term.group.name, term.relationship is not None)
        found.setdefault(key, []).append(number)
    factors = []
    for (name, known), members in found.items():
        slices, begin = [], 0
        for i in members:
            slices.append(slice(begin, begin + len(design.terms[i].columns)))
            begin = slices[-1].stop
        first = design.terms[members[0]]
        root = _root(first.relationship) if known and first.relationship is not None else None
        factors.append(Factor(name, len(first.group.levels), tuple(members), tuple(slices), root))
    return tuple(sorted(factors, key=lambda f: (f.root is not None, -f.K, f.q)))


def _root(matrix: Array) -> Array:
    """A lower factor of a positive semi-definite matrix."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        return np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T, mode="r").T


@dataclass(frozen=True, slots=True, eq=False)
class CrossProducts:
    """All cross-products of a standardized design.

    Xy : (r, r) [X y]'W[X y]
    first : the first factor by level, or None
    rest : layout of the other factors' m columns, or None; U0 (flat,) their lower cross-products, V0 (m, r) those with [X y]
    remaining, probes : in the place of U0 where its dense blocks would be too large
    """

    n: int
    p: int
    factors: tuple[Factor, ...]
    Xy: Array
    first: BlockDiagonal | None
    rest: ComponentLayout | None
    U0: Array | None
    V0: Array | None
    coupling: OffDiagonalBlock | None
    remaining: RemainingColumns | None = None
    probes: Probes | None = None

    @property
    def rest_factors(self) -> tuple[Factor, ...]:
        return self.factors[1:] if self.first is not None else self.factors


@dataclass(slots=True, eq=False)
class Accumulator:
    """Cross-products while rows are coming in; pieces may come from anywhere.

    shared : for each factor, the columns of X that are columns of the factor too, and which: they are added up once
    signs : (q,) for each factor, those that standardization gave its columns: rows in another order may turn them
    """

    factors: tuple[Factor, ...]
    r: int
    Xy: Array
    diagonal: list[Array]
    with_Xy: list[Array]
    pairs: dict[tuple[int, int], list[list[PairSums]]]
    shared: list[dict[int, int]]
    signs: list[Array]
    n: int = 0

    @classmethod
    def empty(cls, factors: tuple[Factor, ...], r: int, maps: Sequence[ColumnMap]) -> Accumulator:
        """maps : how the columns of every random term are changed"""
        shared: list[dict[int, int]] = [{} for _ in factors]
        for known, factor in zip(shared, factors, strict=True):
            for i, own in zip(factor.terms, factor.slices, strict=True):
                if maps[i].shared:
                    known |= {j: own.start + j for j in range(r - 1)}
        diagonal = [np.zeros((f.q, f.q, f.K)) for f in factors]
        with_Xy = [np.zeros((f.q, r, f.K)) for f in factors]
        pairs = {
            (i, j): [[PairSums(f.K, g.K) for _ in range(g.q)] for _ in range(f.q)]
            for i, f in enumerate(factors)
            for j, g in enumerate(factors[i + 1 :], start=i + 1)
        }
        signs = [np.concatenate([np.where(np.diagonal(maps[i].whole) < 0.0, -1.0, 1.0) for i in f.terms]) for f in factors]
        return cls(factors, r, np.zeros((r, r)), diagonal, with_Xy, pairs, shared, signs)

    def add(self, codes: list[Codes], Z: list[list[Array]], Xy: Array, weights: Array | None) -> None:
        """A piece of rows: level codes and columns of every factor, [X y] column by column (r, rows), weights."""
        self.n += Xy.shape[1]
        weighted = Xy if weights is None else Xy * weights
        self.Xy += row_products(Xy, weighted)
        if len(codes) > 1:
            codes, Z, weights, weighted = by_cell(codes, Z, weights, weighted, self.factors[0].K)
        for f, (code, z) in enumerate(zip(codes, Z, strict=True)):
            here = LevelSlice.of(code, self.factors[f].K)
            for a, za in enumerate(z):
                own = za if weights is None else za * weights
                for b in range(a + 1):
                    here.add(self.diagonal[f][a, b], own * z[b])
                for j, column in enumerate(weighted):
                    if j not in self.shared[f]:
                        here.add(self.with_Xy[f][a, j], za * column)
        for (f, g), table in self.pairs.items():
            for a, za in enumerate(Z[f]):
                own = za if weights is None else za * weights
                for b, zb in enumerate(Z[g]):
                    table[a][b].add(codes[f], codes[g], own * zb)

    def copy(self) -> Accumulator:
        """The same sums, to go on with."""
        return replace(
            self,
            Xy=self.Xy.copy(),
            diagonal=[block.copy() for block in self.diagonal],
            with_Xy=[block.copy() for block in self.with_Xy],
            pairs={key: [[pairs.copy() for pairs in row] for row in table] for key, table in self.pairs.items()},
        )

    def complete(self) -> Accumulator:
        """With both triangles, and the columns that X and a factor share, written out; more rows may be added."""
        for block, with_Xy, shared in zip(self.diagonal, self.with_Xy, self.shared, strict=True):
            for a in range(len(block)):
                for b in range(a):
                    block[b, a] = block[a, b]
            for j, b in shared.items():
                with_Xy[:, j] = block[:, b]
        return self

    def finish(self, *, small: bool = True) -> CrossProducts:
        """small : one theta at a time is to be evaluated, so that a few crossed levels stay in one dense block"""
        self.complete()
        Xy = 0.5 * (self.Xy + self.Xy.T)
        if not self.factors:
            return CrossProducts(self.n, self.r - 1, (), Xy, None, None, None, None, None)
        total = sum(factor.K * factor.q for factor in self.factors)
        has_first = TUNING.eliminates_first(len(self.factors), total, self.factors[0].root is not None, small)
        first = BlockDiagonal(self.diagonal[0], self.with_Xy[0]) if has_first else None
        if len(self.factors) == int(has_first):
            return CrossProducts(self.n, self.r - 1, self.factors, Xy, first, None, None, None, None)
        if first is not None and all(factor.root is None for factor in self.factors):
            met = self._large_component()
            if met is not None:
                return self._implicit(first, met)
        where, U0, V0, coupling = self._rest(int(has_first))
        return CrossProducts(self.n, self.r - 1, self.factors, Xy, first, where, U0, V0, coupling)

    def _spans(self, rest: range) -> list[FactorColumns]:
        spans, offset = [], 0
        for f in rest:
            factor = self.factors[f]
            spans.append(FactorColumns(offset, factor.K, factor.q))
            offset += factor.K * factor.q
        return spans

    def _V0(self, rest: range) -> Array:
        return np.concatenate([self.with_Xy[f].transpose(2, 0, 1).reshape(-1, self.r) for f in rest])

    def _large_component(self) -> list[list[list[sp.csr_array]]] | None:
        """How the first factor meets each other one, where some connected component of these is too large for a dense block."""
        rest = range(1, len(self.factors))
        if self._spans(rest)[-1].stop <= TUNING.component_columns:
            return None
        met = [pair_matrices(self.pairs[(0, f)]) for f in rest]
        size = largest_component([(own[0][0], self.factors[f].q) for f, own in zip(rest, met, strict=True)], TUNING.component_columns)
        return met if size > TUNING.component_columns else None

    def _implicit(self, first: BlockDiagonal, met: list[list[list[sp.csr_array]]]) -> CrossProducts:
        """The remaining columns by sparse products alone."""
        rest = range(1, len(self.factors))
        spans, q = self._spans(rest), self.factors[0].q
        columns = tuple(sp.csr_array(sp.hstack([interleave(own[a]) for own in met], format="csr")) for a in range(q))
        squares = tuple(level_squares(own) for own in met)
        between: list[list[sp.sparray | None]] = [[None] * len(rest) for _ in rest]
        for f, g in self._rest_pairs(rest):
            whole = sp.vstack([interleave(row) for row in pair_matrices(self.pairs[(f, g)])], format="csr")
            # row a K + k of what was stacked is column a of level k
            order = np.arange(whole.shape[0]).reshape(self.factors[f].q, self.factors[f].K).T.ravel()
            between[f - 1][g - 1] = sp.csr_array(whole[order])
            between[g - 1][f - 1] = sp.csr_array(whole[order].T)
        for i, span in enumerate(spans):
            between[i][i] = sp.csr_array((span.K * span.q,) * 2)
        remaining = RemainingColumns(
            lay_out_implicitly(spans),
            tuple(np.ascontiguousarray(self.diagonal[f].transpose(2, 0, 1)) for f in rest),
            sp.csr_array(sp.block_array(between, format="csr")) if len(spans) > 1 else None,
            squares,
            np.concatenate([np.tile(self.signs[f], self.factors[f].K) for f in rest]),
        )
        coupling = UnpairedOffDiagonal(columns, tuple(sp.csr_array(E.T) for E in columns))
        probes = draw_probes(remaining, TUNING.probes)
        Xy = 0.5 * (self.Xy + self.Xy.T)
        return CrossProducts(
            self.n, self.r - 1, self.factors, Xy, first, remaining.layout, None, self._V0(rest), coupling, remaining, probes
        )

    def _rest(self, skip: int) -> tuple[ComponentLayout, Array, Array, OffDiagonalBlock | None]:
        rest = range(skip, len(self.factors))
        spans = self._spans(rest)
        offset = spans[-1].stop
        roots = [self.factors[f].root for f in rest]
        related = any(root is not None for root in roots)
        rows, columns, values = (
            self._first_entries(rest, spans) if skip else (np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0)))
        )
        K = self.factors[0].K
        small = TUNING.is_one_component(offset, K * offset * len(values))
        links = (rows, columns) if skip and not related and not small else None
        where = lay_out_components(spans, links)
        if where.flat > TUNING.remaining_elements:
            what = f"the crossed grouping factors need a dense block of {where.flat:,} numbers, {8e-9 * where.flat:,.0f} GB"
            sizes = ", ".join(f"{factor.K:,} levels" for factor in self.factors)
            raise SizeError(what, sizes, "leave out the smaller term, or fit a subset: crossing so many levels has no sparse factor")
        U0 = np.zeros(where.flat)
        if links is None and all(pairs.table is not None for key in self._rest_pairs(rest) for row in self.pairs[key] for pairs in row):
            self._fill(U0.reshape(offset, offset), rest, spans)
        else:
            for lower_rows, lower_columns, lower_values in self._lower_entries(rest, spans):
                # no entry comes twice
                U0[where.target[lower_rows] + where.stride[lower_columns]] = lower_values
        V0 = self._V0(rest)
        coupling: OffDiagonalBlock | None = None
        if skip:
            # a square of all columns: several components of one shape have one batch too
            fits = where.flat == offset**2 and K * offset * len(values) < TUNING.dense_off_diagonal
            crowded = small or (fits and TUNING.is_crowded(count_products(rows, K), K * offset**2))
            if related or crowded:
                E = np.zeros((len(values), K, offset))
                E[:, rows, columns] = values
                coupling = DenseOffDiagonal(_times_relationship(E, spans, roots) if related else E)
            else:
                coupling = sparse_off_diagonal(rows, columns, values, K, offset, where.target, where.stride, where.flat)
        if related:
            U0, V0 = _related_rest(U0, V0, where, roots)
        return where, U0, V0, coupling

    def _first_entries(self, rest: range, spans: list[FactorColumns]) -> tuple[Codes, Codes, Array]:
        """E by level of the first factor: row, column, (q, nnz) values, sorted by row and column."""
        q = self.factors[0].q
        rows, columns, values = [], [], []
        for f, span in zip(rest, spans, strict=True):
            for b in range(span.q):
                row, column, _ = self.pairs[(0, f)][0][b].entries()
                own = np.stack([self.pairs[(0, f)][a][b].entries()[2] for a in range(q)])
                met = self._met(0, f)
                rows.append(row if met is None else row[met])
                columns.append(span.offset + (column if met is None else column[met]) * span.q + b)
                values.append(own if met is None else own[:, met])
        if len(rows) == 1:
            return rows[0], columns[0], values[0]
        row, column = np.concatenate(rows), np.concatenate(columns)
        order = np.argsort(row * (int(column.max()) + 1) + column, kind="stable")
        return row[order], column[order], np.concatenate(values, axis=1)[:, order]

    def _met(self, f: int, g: int) -> Mask | None:
        """Which pairs of a whole table have met, for any of the columns; None where only those that have are kept."""
        if self.pairs[(f, g)][0][0].table is None:
            return None
        return np.any([[pairs.table != 0.0 for pairs in row] for row in self.pairs[(f, g)]], axis=(0, 1))

    @staticmethod
    def _rest_pairs(rest: range) -> list[tuple[int, int]]:
        return [(f, g) for f in rest for g in range(f + 1, rest.stop)]

    def _fill(self, U: Array, rest: range, spans: list[FactorColumns]) -> None:
        """The lower entries of one dense block (m, m) from whole tables: equal columns of a factor's levels lie q apart."""
        flat, m = U.reshape(-1), len(U)
        for f, span in zip(rest, spans, strict=True):
            step = span.q * (m + 1)
            for a in range(span.q):
                for b in range(a + 1):
                    begin = (span.offset + a) * m + span.offset + b
                    flat[begin : begin + (span.K - 1) * step + 1 : step] = self.diagonal[f][a, b]
        for f, g in self._rest_pairs(rest):
            columns, rows = spans[f - rest.start], spans[g - rest.start]
            for a, line in enumerate(self.pairs[(f, g)]):
                for b, pairs in enumerate(line):
                    assert pairs.table is not None
                    own = U[rows.offset + b : rows.stop : rows.q, columns.offset + a : columns.stop : columns.q]
                    own[:] = pairs.table.reshape(pairs.shape).T

    def _lower_entries(self, rest: range, spans: list[FactorColumns]) -> Iterable[tuple[Codes, Codes, Array]]:
        for f, span in zip(rest, spans, strict=True):
            level = np.arange(span.K) * span.q + span.offset
            for a in range(span.q):
                for b in range(a + 1):
                    yield level + a, level + b, self.diagonal[f][a, b]
        for f, g in self._rest_pairs(rest):
            one, other = spans[f - rest.start], spans[g - rest.start]
            # pairs of different components have no place, and have never met
            met = self._met(f, g)
            for a, line in enumerate(self.pairs[(f, g)]):
                for b, pairs in enumerate(line):
                    row, column, data = pairs.entries()
                    if met is not None:
                        row, column, data = row[met], column[met], data[met]
                    yield other.offset + column * other.q + b, one.offset + row * one.q + a, data


def dense_remaining(cross: CrossProducts) -> CrossProducts:
    """The same with the remaining columns as one dense block, where they were left to sparse products."""
    remaining, coupling = cross.remaining, cross.coupling
    assert remaining is not None and isinstance(coupling, UnpairedOffDiagonal) and cross.first is not None
    spans = remaining.layout.spans
    where = lay_out_components(spans, None)
    U = np.zeros((where.m, where.m)) if remaining.pairs is None else remaining.pairs.toarray()
    for span, block in zip(spans, remaining.blocks, strict=True):
        level = span.offset + np.arange(span.K) * span.q
        for a in range(span.q):
            for b in range(span.q):
                U[level + a, level + b] = block[:, a, b]
    E = coupling.columns
    rows = np.repeat(np.arange(coupling.K), np.diff(E[0].indptr))
    if count_products(rows, coupling.K) > TUNING.sparse_products and coupling.K * where.m * coupling.q < TUNING.dense_off_diagonal:
        met: OffDiagonalBlock = DenseOffDiagonal(np.stack([M.toarray() for M in E]))
    else:
        values = np.stack([M.data for M in E])
        columns = E[0].indices.astype(np.int64)
        met = sparse_off_diagonal(rows, columns, values, coupling.K, where.m, where.target, where.stride, where.flat)
    return replace(cross, rest=where, U0=np.tril(U).ravel(), coupling=met, remaining=None, probes=None)


def _times_relationship(M: Array, spans: list[FactorColumns], roots: list[Array | None]) -> Array:
    """M (.., m) times L x I on the columns of factors with a relationship matrix."""
    out = M.copy()
    for span, root in zip(spans, roots, strict=True):
        if root is not None:
            block = M[..., span.offset : span.stop].reshape(*M.shape[:-1], span.K, span.q)
            out[..., span.offset : span.stop] = np.einsum("...ka,kl->...la", block, root).reshape(*M.shape[:-1], -1)
    return out


def _related_rest(U0: Array, V0: Array, where: ComponentLayout, roots: list[Array | None]) -> tuple[Array, Array]:
    m = where.m
    lower = U0.reshape(m, m)
    full = np.tril(lower) + np.tril(lower, -1).T
    spans = list(where.spans)
    full = _times_relationship(_times_relationship(full, spans, roots).T.copy(), spans, roots)
    return np.tril(full).reshape(-1), _times_relationship(V0.T.copy(), spans, roots).T.copy()


def cross_products(design: Design, standardization: Standardization, Xy: Array | None = None, *, small: bool = True) -> CrossProducts:
    """One pass over the rows of a design in memory.

    Xy : (p + 1, n) [X y] of all rows, where it is there already
    small : laid out for one theta at a time; False for many at once
    """
    total = Accumulator.empty(factors_of(design), design.X.shape[1] + 1, standardization.maps)
    add_rows(total, design, standardization, Xy)
    return total.finish(small=small)


def add_rows(total: Accumulator, design: Design, standardization: Standardization, Xy: Array | None = None) -> None:
    """Add all rows of a design to the sums; its levels are coded as the factors of `total` are."""
    for part in row_pieces(len(design.y)):
        total.add(*summands(total.factors, design, standardization, part, Xy))


def summands(
    factors: Sequence[Factor], design: Design, standardization: Standardization, part: slice, Xy: Array | None = None
) -> tuple[list[Codes], list[list[Array]], Array, Array | None]:
    """What `Accumulator.add` takes of a piece of the rows. Xy : theirs, where it is there already."""
    p = design.X.shape[1]
    if Xy is None:
        Xy = standardization.Xy_columns(design, part)
    codes, columns = [], []
    for factor in factors:
        codes.append(design.terms[factor.terms[0]].group.codes[part])
        own: list[Array] = []
        for i in factor.terms:
            change = standardization.maps[i]
            own += list(Xy[:p] if change.shared else change.columns(design.terms[i].Z[part]))
        columns.append(own)
    return codes, columns, Xy, standardization.weights(design, part)
