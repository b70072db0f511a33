"""Independent errors of unequal variance beside random effects: V0 = I + W W' of every block by the QR decomposition of [W; I].

Rows are divided by the sds of their errors; W (k, m) has the random effects of the levels of a block, times their factor T. With

    | W  A |       | R11  R12 |
    | I  0 | = Q * |  0   A~  |      log |V0| = log |R11' R11|,  A' V0^-1 C = A~' C~,  V0^-1 A = the first k rows of [A - W B; -B]

for B = R11^-1 R12, a block of k rows costs k m^2 and not k^3, and neither the errors nor the random effects are rounded in the size of the
other. What asks for V0^-1 itself finds it in dense blocks, as those of other errors have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.design import Design
from bayeslmm.likelihood.kernel import TUNING, Solution, solve_rows, solve_Xy
from bayeslmm.likelihood.structured.blocks import RowBatch, independent_blocks, require_dense
from bayeslmm.likelihood.structured.kernel import (
    BlockDiagonalKernel,
    BlockDiagonalState,
    StructuredBlockFactor,
    level_columns,
    number_levels,
)

SOLVED_ELEMENTS = 500_000
"""Elements of columns worked on at once at many points."""

GATHERED_PRODUCTS = 256
"""Products of columns of a block up to which they are repeated for every row that meets it."""

WORTH = 4.0
"""How many times less the work of all blocks has to be."""


def is_low_rank(design: Design) -> bool:
    """Whether errors are independent and blocks have so few random effects that they cost less by these than by their rows."""
    if design.residual is not None or not design.terms:
        return False
    block = independent_blocks(design)
    rows = np.bincount(block).astype(float)
    columns = np.full(len(rows), float(design.X.shape[1] + 1))
    for term in design.terms:
        if term.relationship is not None:
            columns += len(term.group.levels) * term.Z.shape[1]
            continue
        first = np.unique(term.group.codes, return_index=True)[1]
        columns += term.Z.shape[1] * np.bincount(block[first], minlength=len(rows))
    low = float((rows * columns**2).sum())
    fits = low < TUNING.low_rank_work and float((rows * columns).sum()) < TUNING.low_rank_elements
    return fits and low * WORTH < float((rows**3).sum())


@dataclass(frozen=True, slots=True, eq=False)
class LowRankBlocks:
    """One batch of blocks at one x, in scaled rows.

    F : (B, k, levels, q) of every factor, the columns of a level next to each other; U : (B, k, r) [X y]
    W : (B, k, m), H : (B, k, m) = W R11^-1 with V0^-1 = I - H H'; inverse : (B, m, m) R11^-1
    """

    batch: RowBatch
    F: tuple[Array, ...]
    U: Array
    W: Array
    H: Array
    inverse: Array

    def row_inverses(self) -> tuple[Array, Array]:
        """The diagonal of V0^-1 (B, k) and V0^-1 [X y] (B, k, r)."""
        return 1.0 - (self.H**2).sum(-1), self.whiten(self.U)[:, : self.U.shape[1]]

    def whiten(self, A: Array) -> Array:
        """[A - W B; -B] for columns A (B, k, a) of the rows, (B, k + m, a)."""
        B = self.inverse @ (self.H.swapaxes(-1, -2) @ A)
        return np.concatenate([A - self.W @ B, -B], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class ComponentProducts:
    """Of rows (B, k): V0^-1 X (B, k, p), dV_i V0^-1 X and this whitened (size, B, ., p); by term F' V0^-1 X (B, levels, q, p)."""

    rows: Codes
    scores: Array
    moved: Array
    whitened: Array
    by_level: list[Array]


class LowRankState(BlockDiagonalState):
    """One evaluation at one x; dense blocks are made where something asks for them."""

    kernel: LowRankKernel

    def __init__(self, kernel: LowRankKernel, x: Array, solution: Solution, blocks: Sequence[LowRankBlocks], slopes: Array) -> None:
        super().__init__(kernel, x, solution, [], [], slopes)
        self.blocks = blocks

    def with_solution(self, solution: Solution) -> LowRankState:
        return LowRankState(self.kernel, self.x, solution, self.blocks, self.slopes)

    @property
    def n(self) -> float:
        return float(self.kernel.data.n)

    @cached_property
    def rows(self) -> list[StructuredBlockFactor]:
        require_dense(self.kernel.data.rows)
        return self._factorize(self.kernel.data.rows)

    def _held_blocks(self, asked: NDArray[np.bool_]) -> list[StructuredBlockFactor]:
        touched = [(batch, np.flatnonzero(asked[batch.rows].any(axis=1))) for batch in self.kernel.data.rows]
        return self._factorize([batch.part(own) for batch, own in touched if len(own)])

    @cached_property
    def _whitened(self) -> list[tuple[Array, list[Array]]]:
        """[X y] and every F of each batch, whitened: (B, k + m, r) and (B, k + m, levels q)."""
        found = []
        for part in self.blocks:
            flat = [F.reshape(*F.shape[:2], -1) for F in part.F]
            white = part.whiten(np.concatenate([part.U, *flat], axis=-1))
            pieces = np.split(white, np.cumsum([part.U.shape[-1], *(own.shape[-1] for own in flat)])[:-1], axis=-1)
            found.append((pieces[0], pieces[1:]))
        return found

    def whitened_columns(self) -> list[tuple[LowRankBlocks, Array]]:
        """Batches and their [X y], whitened (B, k + m, r)."""
        return [(part, white) for part, (white, _) in zip(self.blocks, self._whitened, strict=True)]

    @cached_property
    def residual_scores(self) -> list[Array]:
        return [(white @ self.v)[:, : part.U.shape[1]] for part, (white, _) in zip(self.blocks, self._whitened, strict=True)]

    def _moments(self, restricted: bool) -> list[tuple[list[Array], Array]]:
        """Of d logdet and of e e': what they make of the levels of every factor, (q, q) each, and of the variance function's parameters."""
        p, factors = self.kernel.data.r - 1, self.kernel.random.factors
        logdets, squares = ([np.zeros((f.q, f.q)) for f in factors] for _ in range(2))
        moved = np.zeros((2, self.kernel.data.n))
        Q = self.solution.information_inverse[0]
        for part, (U, Fs) in zip(self.blocks, self._whitened, strict=True):
            X, e, k = U[..., :p], U @ self.v, part.U.shape[1]
            for f, F in enumerate(Fs):
                q = factors[f].q
                whole = np.concatenate([X, e[..., None]], axis=-1).swapaxes(-1, -2) @ F
                levels = whole.reshape(len(F), p + 1, -1, q)
                own = F.reshape(*F.shape[:2], -1, q)
                logdets[f] += np.einsum("bkla,bklc->ac", own, own, optimize=True)
                if restricted:
                    logdets[f] -= np.einsum("bxla,xz,bzlc->ac", levels[:, :p], Q, levels[:, :p], optimize=True)
                squares[f] += np.einsum("bla,blc->ac", levels[:, p], levels[:, p])
            rows = part.batch.rows
            moved[0, rows] = 1.0 - (part.H**2).sum(-1)
            if restricted:
                moved[0, rows] -= ((X[:, :k] @ Q) * X[:, :k]).sum(-1)
            moved[1, rows] = e[:, :k] ** 2
        both = 2.0 * self.slopes @ moved.T
        return [(logdets, both[:, 0]), (squares, both[:, 1])]

    def _gathered(self, moments: tuple[list[Array], Array]) -> Array:
        blocks, variance = moments
        out = np.zeros(self.kernel.size)
        self._chain_random(blocks, out)
        out[self.kernel.variance_part] = variance
        return out

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        logdets, squares = self._moments(restricted)
        return self._gathered(logdets)[None], -self._gathered(squares)[None]

    def gradient(self, restricted: bool, sigma2: float) -> Array:
        logdets, squares = self._moments(restricted)
        return self._gathered(logdets) - self._gathered(squares) / sigma2

    def _random_moments(self, restricted: bool, sigma2: float) -> list[Array]:
        (logdets, _), (squares, _) = self._moments(restricted)
        return [a - b / sigma2 for a, b in zip(logdets, squares, strict=True)]

    def expected_information(self) -> tuple[Array, Array]:
        moves = [term.covariance.matrix_derivative(self.x[term.part]) for term in self.kernel.random.terms]
        return self.information(moves, [2.0 * self.slopes[:, part.batch.rows] for part in self.blocks])

    def information(self, moves: Sequence[Array], diagonals: Sequence[Array]) -> tuple[Array, Array]:
        """tr(V0^-1 dV_i V0^-1 dV_j) and tr(V0^-1 dV_i).

        moves : dSigma of every term, (size, q, q); diagonals : of every batch what else moves the variances of its rows, (others, B, k)
        """
        random, others = self.kernel.random, len(diagonals[0])
        size = random.size + others
        total, trace, errors = np.zeros((size, size)), np.zeros(size), slice(random.size, size)
        where = [(f, i, own) for f, factor in enumerate(random.factors) for i, own in zip(factor.terms, factor.slices, strict=True)]
        for part, (_, Fs), diagonal in zip(self.blocks, self._whitened, diagonals, strict=True):
            k, shaped = part.U.shape[1], [F.reshape(*F.shape[:2], -1, random.factors[f].q) for f, F in enumerate(Fs)]
            for number, (f, i, own) in enumerate(where):
                mine, dSigma, F = random.terms[i].part, moves[i], shaped[f][..., own]
                trace[mine] += np.einsum("bkla,bklc,iac->i", F, F, dSigma, optimize=True)
                scores = np.einsum("bkla,bklc,iac->bki", F[:, :k], F[:, :k], dSigma, optimize=True)
                total[mine, errors] += np.einsum("bki,jbk->ij", scores, diagonal)
                for g, j, other in where[: number + 1]:
                    G = shaped[g][..., other]
                    C = F.reshape(*F.shape[:2], -1).swapaxes(-1, -2) @ G.reshape(*G.shape[:2], -1)
                    flat = C.reshape(len(C), *F.shape[2:], *G.shape[2:]).swapaxes(2, 3).reshape(-1, F.shape[-1] * G.shape[-1])
                    products = (flat.T @ flat).reshape((F.shape[-1], G.shape[-1]) * 2)  # sum over pairs of levels of C_ac C_bd
                    total[mine, random.terms[j].part] += np.einsum("acbd,iab,jcd->ij", products, dSigma, moves[j], optimize=True)
            if others:
                h = 1.0 - (part.H**2).sum(-1)
                trace[errors] += np.einsum("jbk,bk->j", diagonal, h)
                inner = np.einsum("bkm,jbk,bkn->jbmn", part.H, diagonal, part.H, optimize=True).reshape(others, -1)
                own_rows = np.einsum("ibk,jbk,bk->ij", diagonal, diagonal, 2.0 * h - 1.0, optimize=True)
                total[errors, errors] += own_rows + inner @ inner.T
        # one order of every two different terms was added, and of a term and the errors
        whole = total + total.T
        for same in (*(term.part for term in random.terms), errors):
            whole[same, same] = total[same, same]
        return whole, trace

    def component_products(self, moves: Sequence[Array], diagonals: Sequence[Array]) -> Iterator[ComponentProducts]:
        """What Kenward-Roger asks of every batch; moves, diagonals : as `information` takes them."""
        random, p = self.kernel.random, self.kernel.data.r - 1
        for part, (U, _), diagonal in zip(self.blocks, self._whitened, diagonals, strict=True):
            N = U[:, : part.U.shape[1], :p]
            reached = [np.einsum("bkla,bkx->blax", F, N, optimize=True) for F in part.F]
            Y = np.zeros((random.size + len(diagonal), *N.shape))
            met: list[Array] = [np.zeros(0)] * len(random.terms)
            for factor, F, A in zip(random.factors, part.F, reached, strict=True):
                for i, own in zip(factor.terms, factor.slices, strict=True):
                    met[i] = A[:, :, own]
                    Y[random.terms[i].part] = np.einsum("bkla,iac,blcx->ibkx", F[..., own], moves[i], met[i], optimize=True)
            Y[random.size :] = diagonal[..., None] * N
            yield ComponentProducts(part.batch.rows, N, Y, np.stack([part.whiten(own) for own in Y]), met)

    def scores(self) -> list[Array]:
        found = [np.zeros((t.Z.shape[1], t.K)) for t in self.kernel.data.terms]
        for part, (U, Fs) in zip(self.blocks, self._whitened, strict=True):
            e = U @ self.v
            for factor, F in zip(self.kernel.random.factors, Fs, strict=True):
                levels = np.einsum("bkc,bk->bc", F, e).reshape(len(F), -1, factor.q)
                for i, own in zip(factor.terms, factor.slices, strict=True):
                    self._add_level_scores(found[i], part.batch.rows, i, levels[..., own])
        return found

    def _level_places(self, i: int, part: LowRankBlocks) -> tuple[Codes, Codes]:
        """The block of a batch that every level of a term is in, -1 for none, and its number there, (K,) each."""
        term = self.kernel.data.terms[i]
        block, number = np.full(term.K, -1), np.zeros(term.K, np.int64)
        codes = term.codes[part.batch.rows]
        block[codes], number[codes] = np.arange(len(codes))[:, None], number_levels(codes)
        return block, number

    def level_information(self, i: int) -> Array:
        """Z_k' V0^-1 Z_k of every level of a term (K, q, q), Z_k all rows that level k reaches through the relationship matrix."""
        term = self.kernel.data.terms[i]
        factors = self.kernel.random.factors
        f = next(f for f, factor in enumerate(factors) if i in factor.terms)
        own = factors[f].slices[factors[f].terms.index(i)]
        out = np.zeros((term.K, term.Z.shape[1], term.Z.shape[1]))
        for part, (_, Fs) in zip(self.blocks, self._whitened, strict=True):
            F = Fs[f].reshape(*Fs[f].shape[:2], -1, factors[f].q)[..., own]
            if term.relationship is not None:
                L = np.linalg.cholesky(term.relationship)
                return np.asarray(np.einsum("kl,rla,kj,rjc->kac", L, F[0], L, F[0], optimize=True))
            block, number = self._level_places(i, part)
            met = np.flatnonzero(block >= 0)
            out[met] = np.einsum("brla,brlc->blac", F, F, optimize=True)[block[met], number[met]]
        return out

    def meet(self, reached: Sequence[Array], codes: Sequence[Codes], columns: Array | None) -> Array:
        """[X y]' V0^-1 c and c' V0^-1 c (n, r + 1) of new rows whose covariances c with those observed come through levels alone.

        reached : D z (n, q) of every term; codes : (n,) their levels, -1 for none; columns : v for [X y] v in the place of [X y]
        """
        r = self.kernel.data.r if columns is None else columns.shape[1]
        out = np.zeros((len(codes[0]), r + 1))
        for part, (U, Fs) in zip(self.blocks, self._whitened, strict=True):
            F = np.concatenate(Fs, axis=-1)
            products = np.concatenate([U if columns is None else U @ columns, F], axis=-1).swapaxes(-1, -2) @ F
            block, new, effects = self._effects_of(part, reached, codes)
            alike = products[0].size <= GATHERED_PRODUCTS
            step = max(1, SOLVED_ELEMENTS // (products[0].size if alike else F.shape[-1]))
            starts = [0, len(block)] if alike else [*np.flatnonzero(np.diff(block, prepend=-1)), len(block)]
            bounds = [begin for low, high in pairwise(starts) for begin in range(low, high, step)]
            for begin, end in pairwise([*bounds, len(block)]):
                a = effects[begin:end].toarray()
                found = (products[block[begin:end]] @ a[..., None])[..., 0] if alike else a @ products[block[begin]].T
                np.add.at(out, new[begin:end], np.column_stack([found[:, :r], (found[:, r:] * a).sum(-1)]))
        return out

    def _effects_of(self, part: LowRankBlocks, reached: Sequence[Array], codes: Sequence[Codes]) -> tuple[Codes, Codes, sp.csr_array]:
        """Pairs of a block and a new row that is tied to it, in order, and what c is made of there: (pairs, m) weights of F's columns."""
        n, begin, pairs, columns, values = len(codes[0]), 0, [], [], []
        for factor, F in zip(self.kernel.random.factors, part.F, strict=True):
            for i, own in zip(factor.terms, factor.slices, strict=True):
                relationship, places = self.kernel.data.terms[i].relationship, np.arange(factor.q)[own]
                if relationship is None:
                    block, number = self._level_places(i, part)
                    new = np.flatnonzero((codes[i] >= 0) & (block[codes[i]] >= 0))
                    level, value, tied = number[codes[i][new]], reached[i][new], block[codes[i][new]]
                else:  # a column of the root for every level: all are reached
                    share = np.linalg.cholesky(relationship)[codes[i]]
                    new, level = np.nonzero((codes[i] >= 0)[:, None] & (share != 0.0))
                    value, tied = share[new, level][:, None] * reached[i][new], np.zeros(len(new), np.int64)
                pairs.append(np.repeat(tied * n + new, len(places)))
                columns.append((begin + level[:, None] * factor.q + places).ravel())
                values.append(value.ravel())
            begin += F.shape[2] * factor.q
        keys, pair = np.unique(np.concatenate(pairs), return_inverse=True)
        effects = sp.csr_array((np.concatenate(values), (pair, np.concatenate(columns))), shape=(len(keys), begin))
        return *np.divmod(keys, n), effects


_COLUMNS: WeakKeyDictionary[LowRankKernel, dict[int, tuple[Array, list[Array]]]] = WeakKeyDictionary()


def _reduce(W: Array, U: Array) -> tuple[Array, Array, Array]:
    """log |I + W W'| (...), R11 (..., m, m) and what is left of U, (..., r, r), for W (..., k, m) and U (..., k, r)."""
    k, m, r = *W.shape[-2:], U.shape[-1]
    stacked = np.zeros((*W.shape[:-2], k + m, m + r))
    stacked[..., :k, :m], stacked[..., :k, m:], stacked[..., k:, :m] = W, U, np.eye(m)
    R = np.linalg.qr(stacked, mode="r")
    R11 = R[..., :m, :m]
    return 2.0 * np.log(np.abs(np.diagonal(R11, axis1=-2, axis2=-1))).sum(-1), R11, R[..., m:, m:]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LowRankKernel(BlockDiagonalKernel):
    """Independent errors whose sds are a function of parameters, beside random effects."""

    def evaluate_one(self, x: Array) -> LowRankState:
        log_scale, slopes = self.log_scale(x)
        logdet = 0.0 if log_scale is None else 2.0 * float(log_scale.sum())
        Ts, blocks, reduced = [T[0] for T in self.random.blocks(x[None])], [], []
        for batch in self.data.rows:
            U, F = self._columns(batch)
            if log_scale is not None:
                divisor = np.exp(-log_scale[batch.rows])
                U, F = U * divisor[..., None], [own * divisor[..., None, None] for own in F]
            W = np.concatenate([(own @ T).reshape(*U.shape[:2], -1) for own, T in zip(F, Ts, strict=True)], axis=-1)
            determinant, R11, left = _reduce(W, U)
            inverse = np.linalg.inv(R11)
            logdet += float(determinant.sum())
            reduced.append(left.reshape(-1, self.data.r))
            blocks.append(LowRankBlocks(batch, tuple(F), U, W, W @ inverse, inverse))
        return LowRankState(self, x, solve_rows(logdet, np.concatenate(reduced)), blocks, slopes)

    def solve(self, x: Array) -> Solution:
        """The profiles at x (t, size), many at once."""
        t, r = len(x), self.data.r
        log_weights, Ts = self.data.log_weight_scale, self.random.blocks(x)
        logdet = np.full(t, 0.0 if log_weights is None else 2.0 * float(log_weights.sum()))
        Xy = np.zeros((t, r, r))
        for batch in self.data.rows:
            U, F = self._columns(batch)
            step = max(1, SOLVED_ELEMENTS // (U.size + 3 * sum(own.size for own in F)))
            for begin in range(0, t, step):
                cut = slice(begin, begin + step)
                log_scale = self.variance.log_multipliers(x[cut, self.variance_part], batch.rows)
                logdet[cut] += 2.0 * log_scale.sum((1, 2))
                if log_weights is not None:
                    log_scale += log_weights[batch.rows]
                divisor = np.exp(-log_scale)[..., None]
                W = [(own @ T[cut, None, None]).reshape(*divisor.shape[:3], -1) for own, T in zip(F, Ts, strict=True)]
                determinant, _, left = _reduce(np.concatenate(W, axis=-1) * divisor, U * divisor)
                logdet[cut] += determinant.sum(1)
                flat = left.reshape(len(left), -1, r)
                Xy[cut] += flat.swapaxes(-1, -2) @ flat
        return solve_Xy(logdet, Xy)

    def _columns(self, batch: RowBatch) -> tuple[Array, list[Array]]:
        """[X y] (B, k, r) and the columns of the levels of every factor (B, k, levels, q), not divided by anything yet; made once."""
        known = _COLUMNS.setdefault(self, {})
        found = known.get(id(batch))
        if found is None:
            rows, terms, F = batch.rows, self.data.terms, []
            for factor in self.random.factors:
                Z = np.concatenate([terms[i].Z[rows] for i in factor.terms], axis=-1)
                F.append(level_columns(terms[factor.terms[0]], rows, Z).reshape(*rows.shape, -1, factor.q))
            found = known[id(batch)] = self.data.Xy[rows], F
        return found

    def columns_of(self, batch: RowBatch) -> int:
        """Random effects of a block of a batch: its levels, the most that a block has, times their effects."""
        return sum(F.shape[2] * F.shape[3] for F in self._columns(batch)[1])

    def apply_inverses(self, x: Array, errors: Sequence[Array]) -> list[Array]:
        """V0^-1 e at many x (t, size) for rows (t, B, k) of every batch, divided by the sds of their errors."""
        found = [np.empty_like(own) for own in errors]
        for i, row in enumerate(x):
            for part, own, out in zip(self.evaluate_one(row).blocks, errors, found, strict=True):
                out[i] = part.whiten(own[i][..., None])[:, : own.shape[-1], 0]
        return found
