"""The likelihood of structured errors, with or without random effects: V0 in independent dense blocks.

    V0 = Z D0 Z' + S R0(phi) S

Rows are divided by S (variance function, weights) first; every derivative is the contraction of one adjoint of V0 with what a parameter
does to V0. Blocks without random effects are pooled by pattern of visits, and then the cost does not depend on the number of subjects.

Blocks of one size are worked on together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes, symmetric
from bayeslmm.likelihood.kernel import Solution, solve_rows, solve_Xy, stack_solutions
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.structured.blocks import (
    PooledBatch,
    RowBatch,
)
from bayeslmm.likelihood.structured.residual_structure import ResidualStructure, VarianceFunction

DERIVATIVE_ELEMENTS = 20_000_000
"""Elements of derivative matrices held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class TermColumns:
    """A random term as the kernel of blocks sees it: standardized columns (n, q), codes (n,), relationship or None."""

    Z: Array
    codes: Codes
    K: int
    relationship: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class SubjectData:
    """Standardized rows and their blocks.

    Xy : (n, r) [X y] not yet divided by anything; log_weight_scale : (n,) -log(w)/2, or None
    pooled_rows : the rows of the pooled blocks, for residuals and predictions
    """

    Xy: Array
    terms: tuple[TermColumns, ...]
    log_weight_scale: Array | None
    rows: tuple[RowBatch, ...]
    pooled: tuple[PooledBatch, ...]
    pooled_rows: Sequence[RowBatch]
    n: int

    @property
    def r(self) -> int:
        return int(self.Xy.shape[1])


@dataclass(frozen=True, eq=False)
class StructuredBlockFactor:
    """One batch of blocks after factorisation, in scaled rows.

    U : (B, k, r); Z : per term (B, k, q); link : per term (B, k, k) relationship or same-level mask
    R, V inverse : (B, k, k); s : (B, k) the scale that rows were divided by
    root : (B, k, k) with root' root = V^-1, where V itself would hide R behind the random effects; None elsewhere
    """

    batch: RowBatch
    U: Array
    Z: tuple[Array, ...]
    link: tuple[Array, ...]
    R: Array
    inverse: Array
    scale: Array
    root: Array | None

    def part(self, own: Codes) -> StructuredBlockFactor:
        """Some of the blocks."""
        if len(own) == len(self.U):
            return self
        Z, link = tuple(each[own] for each in self.Z), tuple(each[own] for each in self.link)
        root = None if self.root is None else self.root[own]
        return StructuredBlockFactor(self.batch.part(own), self.U[own], Z, link, self.R[own], self.inverse[own], self.scale[own], root)

    @cached_property
    def whitened(self) -> Array:
        """root [X y], (B, k, r)."""
        assert self.root is not None
        return np.asarray(self.root @ self.U)

    def unwhiten(self, adjoint: Array) -> Array:
        """What belongs to V where there is a root, in whose coordinates the adjoint is; the adjoint itself elsewhere."""
        return adjoint if self.root is None else np.asarray(self.root.swapaxes(-1, -2) @ adjoint @ self.root)


@dataclass(frozen=True, slots=True, eq=False)
class PooledBlockFactor:
    batch: PooledBatch
    R: Array
    inverse: Array


def add_effects(R: Array, links: Sequence[Array], ZT: Sequence[Array]) -> Array:
    """V0 = R + the sum over terms of link * Z T T' Z', (B, k, k)."""
    V = R.copy()
    for link, own in zip(links, ZT, strict=True):
        V += (own @ own.swapaxes(-1, -2)) * link
    return V


LARGE_BLOCK = 64
"""Rows from which a block is inverted by itself: less than half the work of a general solve, and more calls."""


def _inverse(V: Array) -> tuple[Array, Array]:
    """log |V| (B,) and V^-1 of positive definite blocks (B, k, k)."""
    L = np.linalg.cholesky(V)
    logdet = 2.0 * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1)
    if V.shape[-1] >= LARGE_BLOCK:
        return logdet, symmetric(np.array([lapack.dpotri(own.T, lower=0)[0].T for own in L]))
    Li = np.linalg.solve(L, np.broadcast_to(np.eye(V.shape[-1]), V.shape))
    return logdet, Li.swapaxes(-1, -2) @ Li


HIDDEN_ERRORS = 1e6
"""Variance of a row, relative to that of its error, from which V as a sum keeps too few digits of R."""


def _factorize_apart(R: Array, effects: list[Array]) -> tuple[Array, Array]:
    """log |R + W W'| (B,) and a root of its inverse, by the singular values of L^-1 W, R = L L'; effects : parts of W, (B, k, m) each.

    What the largest effects span is kept apart from the rest: neither is rounded in the size of the other.
    """
    L = np.linalg.cholesky(R)
    W = np.linalg.solve(L, np.concatenate(effects, axis=-1))
    left, sizes, _ = np.linalg.svd(W, full_matrices=W.shape[-1] < W.shape[-2])
    shrink = np.ones(left.shape[:-1])
    shrink[:, : sizes.shape[-1]] = 1.0 / np.sqrt(1.0 + sizes**2)
    logdet = 2.0 * np.log(np.diagonal(L, axis1=-2, axis2=-1)).sum(-1) - 2.0 * np.log(shrink).sum(-1)
    # left' L^-1, by the transpose
    rotated = np.linalg.solve(L.swapaxes(-1, -2), left).swapaxes(-1, -2)
    return logdet, shrink[..., None] * rotated


def level_columns(term: TermColumns, rows: Codes, ZT: Array) -> Array:
    """Z T of some blocks as a column for each level and effect, (B, k, m q): levels in the order of the first rows that have them."""
    B, k, q = ZT.shape
    codes = term.codes[rows]
    if term.relationship is None:
        number = number_levels(codes)
        shares = (number[:, :, None] == np.arange(number.max() + 1)).astype(float)
    else:
        shares = np.linalg.cholesky(term.relationship)[codes]
    return np.asarray((shares[..., None] * ZT[:, :, None, :]).reshape(B, k, shares.shape[-1] * q))


def number_levels(codes: Codes) -> Codes:
    """The levels of every block (B, k) numbered from 0 in the order of the first rows that have them."""
    each = codes + (int(codes.max()) + 1) * np.arange(len(codes))[:, None]
    first, which = np.unique(each, return_index=True, return_inverse=True)[1:]
    place = np.argsort(np.argsort(first))[which.reshape(codes.shape)]
    return np.asarray(place - place[:, :1])


def level_mask(term: TermColumns, rows: Codes) -> Array:
    """(B, k, k) relationship of the levels of two rows, or 1 where they share a level."""
    codes = term.codes[rows]
    if term.relationship is not None:
        return np.asarray(term.relationship[codes[:, :, None], codes[:, None, :]])
    return np.asarray(codes[:, :, None] == codes[:, None, :], float)


class BlockDiagonalState:
    """One evaluation at one x; adjoints are found when first asked for."""

    def __init__(
        self,
        kernel: BlockDiagonalKernel,
        x: Array,
        solution: Solution,
        rows: list[StructuredBlockFactor],
        pooled: list[PooledBlockFactor],
        slopes: Array,
    ) -> None:
        self.kernel, self.x, self.solution = kernel, x, solution
        self.pooled, self.slopes = pooled, slopes
        self._rows = rows
        self._kept: dict[bool, tuple[list[Array], list[Array]]] = {}

    @property
    def rows(self) -> list[StructuredBlockFactor]:
        """The blocks that were not added up."""
        return self._rows

    def with_solution(self, solution: Solution) -> BlockDiagonalState:
        """The same with another profile in alpha, as of a penalised one."""
        return BlockDiagonalState(self.kernel, self.x, solution, self.rows, self.pooled, self.slopes)

    @property
    def _states(self) -> list[StructuredBlockFactor | PooledBlockFactor]:
        return [*self.rows, *self.pooled]

    @property
    def n(self) -> float:
        """Rows, those that were added up too."""
        pooled = sum(float(part.batch.count.sum()) * part.R.shape[-1] for part in self.pooled)
        return float(pooled + sum(part.batch.rows.size for part in self.rows))

    @property
    def phi(self) -> Array:
        return np.asarray(self.x[self.kernel.residual_part])

    @cached_property
    def _set_derivatives(self) -> Array:
        return self.kernel.structure.set_derivatives(self.phi)

    @cached_property
    def v(self) -> Array:
        """(-alpha, 1)."""
        return np.concatenate([-self.solution.alpha[0], [1.0]])

    @cached_property
    def row_states(self) -> list[StructuredBlockFactor]:
        """All rows in their blocks, those of pooled subjects too."""
        return [*self.rows, *self._factorize(self.kernel.data.pooled_rows)]

    def blocks_of(self, rows: Codes) -> list[StructuredBlockFactor]:
        """The blocks of `row_states` that some rows are in."""
        asked = np.zeros(self.kernel.data.n, np.bool_)
        asked[rows] = True
        pooled = [(batch, np.flatnonzero(asked[batch.rows].any(axis=1))) for batch in self.kernel.data.pooled_rows]
        return [*self._held_blocks(asked), *self._factorize([batch.part(own) for batch, own in pooled if len(own)])]

    def _held_blocks(self, asked: NDArray[np.bool_]) -> list[StructuredBlockFactor]:
        """Those of `rows` that have some of the rows asked for, (n,)."""
        touched = [(state, np.flatnonzero(asked[state.batch.rows].any(axis=1))) for state in self.rows]
        return [state.part(own) for state, own in touched if len(own)]

    def _factorize(self, batches: Sequence[RowBatch]) -> list[StructuredBlockFactor]:
        kernel, (log_scale, _) = self.kernel, self.kernel.log_scale(self.x)
        T, whole = kernel.random_factors(self.x), kernel.structure.set_matrices(self.phi)
        apart = kernel.hides_errors(T, self.phi, log_scale, whole)
        return [kernel.factorize(batch, self.phi, T, log_scale, whole, apart=apart)[0] for batch in batches]

    @cached_property
    def positions(self) -> tuple[Codes, Codes]:
        """The batch of `row_states` that each row is in and its position there, block after block, (n,) each."""
        batch, position = np.empty((2, self.kernel.data.n), np.int64)
        for number, part in enumerate((*self.kernel.data.rows, *self.kernel.data.pooled_rows)):
            rows = part.rows.ravel()
            batch[rows], position[rows] = number, np.arange(len(rows))
        return batch, position

    @cached_property
    def residual_scores(self) -> list[Array]:
        """e = V0^-1 (y - X alpha) of the blocks of `row_states`, (B, k) in scaled rows."""
        return [(state.inverse @ (state.U @ self.v)[..., None])[..., 0] for state in self.row_states]

    def adjoints(self, restricted: bool) -> tuple[list[Array], list[Array]]:
        """For every batch (rows, then pooled): d logdet / dV0 and sum of e e', (B, k, k) each; of root V0 root' where there is a root."""
        if restricted in self._kept:
            return self._kept[restricted]
        p = self.kernel.data.r - 1
        Qxx = self.solution.information_inverse[0] if restricted else np.zeros((p, p))
        logdets, squares = [], []
        for state in self.rows:
            left, ViU = (state.inverse, state.inverse @ state.U) if state.root is None else (np.eye(state.R.shape[-1]), state.whitened)
            e, ViX = ViU @ self.v, ViU[..., :p]
            logdets.append(left - (ViX @ Qxx) @ ViX.swapaxes(-1, -2))
            squares.append(e[..., :, None] * e[..., None, :])
        Qfull = np.zeros((p + 1, p + 1))
        Qfull[:p, :p] = Qxx
        for part in self.pooled:
            k = part.R.shape[-1]
            both = part.batch.G @ np.stack([Qfull.ravel(), np.outer(self.v, self.v).ravel()], axis=1)
            g, h = (both[..., i].reshape(-1, k, k) for i in (0, 1))
            logdets.append(part.batch.count[:, None, None] * part.inverse - part.inverse @ g @ part.inverse)
            squares.append(part.inverse @ h @ part.inverse)
        self._kept[restricted] = (logdets, squares)
        return logdets, squares

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        logdets, squares = self.adjoints(restricted)
        return self._contract(logdets)[None], -self._contract(squares)[None]

    def gradient(self, restricted: bool, sigma2: float) -> Array:
        """d criterion / dx (size,) at a given sigma^2: both adjoints contracted as one."""
        logdets, squares = self.adjoints(restricted)
        return self._contract([a - b / sigma2 for a, b in zip(logdets, squares, strict=True)])

    def _contract(self, adjoints: list[Array]) -> Array:
        kernel, out = self.kernel, np.zeros(self.kernel.size)
        self._chain_random(self.random_adjoints(adjoints), out)
        phi, residual, variance = self.phi, out[kernel.residual_part], out[kernel.variance_part]
        for state, adjoint in zip(self._states, adjoints, strict=True) if len(residual) or len(variance) else ():
            if isinstance(state, StructuredBlockFactor):
                adjoint = state.unwhiten(adjoint)
            if len(residual):
                residual += kernel.structure.contract(phi, self._set_derivatives, state.batch.block, adjoint)
            if len(variance) and isinstance(state, StructuredBlockFactor):
                moved = 2.0 * (adjoint * state.R).sum(-1)
                variance += np.einsum("ibk,bk->i", self.slopes[:, state.batch.rows], moved)
        return out

    def _chain_random(self, blocks: list[Array], out: Array) -> None:
        """Fill in what the parameters of random effects move; blocks : `random_adjoints`."""
        random = self.kernel.random
        if blocks:
            T = random.blocks(self.x[None])
            moved = [2.0 * (G @ t[0])[None] for G, t in zip(blocks, T, strict=True)]
            out[: random.size] = random.chain(random.derivatives(self.x[None]), moved)[0]

    def random_adjoints(self, adjoints: list[Array]) -> list[Array]:
        """sum over levels of Z' adjoint Z for every factor, in the order of the kernel's factors, (q, q)."""
        kernel = self.kernel
        if not kernel.random.terms:
            return []
        out = [np.zeros((f.q, f.q)) for f in kernel.random.factors]
        for state, adjoint in zip(self.rows, adjoints, strict=False):
            for number, factor in enumerate(kernel.random.factors):
                Z = state.Z[factor.terms[0]] if len(factor.terms) == 1 else np.concatenate([state.Z[i] for i in factor.terms], axis=-1)
                if state.root is None:
                    reached = (adjoint * state.link[factor.terms[0]]) @ Z
                else:  # V^-1 rounds what Z' V^-1 Z is for large effects, and root Z does not
                    Z = self._whitened_effects(state, factor.terms[0], Z)
                    reached = adjoint @ Z
                    Z, reached = (M.reshape(*M.shape[:2], -1, factor.q) for M in (Z, reached))
                out[number] += Z.reshape(-1, factor.q).T @ reached.reshape(-1, factor.q)
        return out

    def _whitened_effects(self, state: StructuredBlockFactor, term: int, Z: Array) -> Array:
        """root Z of every level of a term's factor, (B, k, m q)."""
        assert state.root is not None
        return np.asarray(state.root @ level_columns(self.kernel.data.terms[term], state.batch.rows, Z))

    def sigma_gradients(self, restricted: bool, sigma2: float) -> list[Array]:
        G: dict[int, Array] = {}
        for factor, g in zip(self.kernel.random.factors, self._random_moments(restricted, sigma2), strict=True):
            for i, own in zip(factor.terms, factor.slices, strict=True):
                G[i] = 0.5 * (g[own, own] + g[own, own].T)
        return [G[i] for i in range(len(G))]

    def _random_moments(self, restricted: bool, sigma2: float) -> list[Array]:
        logdets, squares = self.adjoints(restricted)
        return self.random_adjoints([a - b / sigma2 for a, b in zip(logdets, squares, strict=True)])

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        """Expected information of x with sigma profiled out, and the curvature that a sign-free scale needs at 0."""
        information, trace = self.expected_information()
        # the information is that of all rows: beside the square of a trace over fewer it need not be positive, or is 0
        H = information - np.outer(trace, trace) / max(df, self.n)
        size = self.kernel.random.size
        if size:
            H[:size, :size] += self._curvature(restricted, sigma2)
        return H

    def _curvature(self, restricted: bool, sigma2: float) -> Array:
        random = self.kernel.random
        G = self.sigma_gradients(restricted, sigma2)
        out = np.zeros((random.size, random.size))
        for term, g in zip(random.terms, G, strict=True):
            dT = term.covariance.factor_derivative(self.x[term.part])
            out[term.part, term.part] = 2.0 * np.einsum("iab,ac,jcb->ij", dT, g, dT)
        return out

    def expected_information(self) -> tuple[Array, Array]:
        """tr(V^-1 dV_i V^-1 dV_j) and tr(V^-1 dV_i) over x."""
        size = self.kernel.size
        total, trace = np.zeros((size, size)), np.zeros(size)
        moves = [term.covariance.matrix_derivative(self.x[term.part]) for term in self.kernel.random.terms]
        for state in self._states if size else ():
            B, k = state.R.shape[:2]
            step = max(1, DERIVATIVE_ELEMENTS // max(1, size * k * k))
            for begin in range(0, B, step):
                part = slice(begin, begin + step)
                if isinstance(state, StructuredBlockFactor) and state.root is not None:
                    M = self._whitened_derivatives(state, state.root[part], part, moves)
                else:
                    M = state.inverse[part] @ self.parameter_derivatives(state, part, moves)
                count = state.batch.count[part] if isinstance(state, PooledBlockFactor) else np.ones(len(state.R[part]))
                weighted = M * count[:, None, None]
                trace += np.einsum("ibkk->i", weighted)
                total += weighted.reshape(size, -1) @ M.swapaxes(-1, -2).reshape(size, -1).T
        return 0.5 * (total + total.T), trace

    def parameter_derivatives(self, state: StructuredBlockFactor | PooledBlockFactor, part: slice, moves: list[Array]) -> Array:
        """dV0/dx_i of a batch's blocks, (size, B, k, k), in scaled rows; moves : dSigma/dx of every random term."""
        kernel = self.kernel
        B, k = state.R[part].shape[:2]
        out = np.zeros((kernel.size, B, k, k))
        if isinstance(state, StructuredBlockFactor):
            for i, (term, dSigma) in enumerate(zip(kernel.random.terms, moves, strict=True)):
                out[term.part] = self.random_derivative(state, part, i, dSigma)
            if len(self.slopes):
                slope = self.slopes[:, state.batch.rows[part]]
                out[kernel.variance_part] = (slope[..., :, None] + slope[..., None, :]) * state.R[part]
        out[kernel.residual_part] = kernel.structure.derivatives(self.phi, self._set_derivatives, state.batch.block.part(part))
        return out

    def _whitened_derivatives(self, state: StructuredBlockFactor, root: Array, part: slice, moves: list[Array]) -> Array:
        """root dV0/dx_i root', (size, B, k, k): its traces and those of its products are those of V0^-1 dV0/dx_i."""
        out = root @ self.parameter_derivatives(state, part, moves) @ root.swapaxes(-1, -2)
        for i, (term, dSigma) in enumerate(zip(self.kernel.random.terms, moves, strict=True)):
            effects = self._whitened_effects(state, i, state.Z[i])[part]
            F = effects.reshape(*effects.shape[:2], -1, dSigma.shape[-1])
            moved = np.einsum("bkma,iac->ibkmc", F, dSigma).reshape(len(dSigma), *effects.shape)
            out[term.part] = moved @ effects.swapaxes(-1, -2)
        return np.asarray(out)

    def random_derivative(self, state: StructuredBlockFactor, part: slice, term: int, dSigma: Array) -> Array:
        """Z dSigma Z' of a term, (len(dSigma), B, k, k)."""
        Z = state.Z[term][part]
        return np.asarray(((Z @ dSigma[:, None]) @ Z.swapaxes(-1, -2)) * state.link[term][part])

    def scores(self) -> list[Array]:
        """a = Z' V0^-1 (y - X alpha) by level of every term, (q, K), before any relationship matrix."""
        found = [np.zeros((t.Z.shape[1], t.K)) for t in self.kernel.data.terms]
        for state, e in zip(self.row_states, self.residual_scores, strict=True) if found else ():
            for i, term in enumerate(self.kernel.data.terms):
                if state.root is not None:
                    self._add_large_scores(found[i], state, i)
                    continue
                codes = term.codes[state.batch.rows].ravel()
                for a in range(term.Z.shape[1]):
                    found[i][a] += np.bincount(codes, (state.Z[i][..., a] * e).ravel(), term.K)
        return found

    def _add_large_scores(self, total: Array, state: StructuredBlockFactor, i: int) -> None:
        """The scores of a batch, added to those of a term, by root Z: V^-1 rounds what is left of large effects."""
        effects = self._whitened_effects(state, i, state.Z[i])
        found = np.einsum("bkc,bk->bc", effects, state.whitened @ self.v).reshape(len(effects), -1, len(total))
        self._add_level_scores(total, state.batch.rows, i, found)

    def _add_level_scores(self, total: Array, rows: Codes, i: int, found: Array) -> None:
        """Scores (B, levels, q) of the levels of a term in some blocks of rows (B, k), added to those of all levels (q, K)."""
        term = self.kernel.data.terms[i]
        if term.relationship is not None:  # columns of its root
            total += np.linalg.solve(np.linalg.cholesky(term.relationship).T, found.sum(axis=0)).T
            return
        codes = term.codes[rows]
        level = np.full(found.shape[:2], -1)
        np.put_along_axis(level, number_levels(codes), codes, axis=1)
        block, place = np.nonzero(level >= 0)
        np.add.at(total.T, level[block, place], found[block, place])


@dataclass(frozen=True, slots=True, eq=False)
class BlockDiagonalStates:
    """Evaluations at several x, one after the other: values and gradients."""

    states: tuple[BlockDiagonalState, ...]

    @property
    def solution(self) -> Solution:
        return stack_solutions([state.solution for state in self.states])

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        pairs = [state.gradients(restricted) for state in self.states]
        return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        """Of the first x."""
        return self.states[0].newton_matrix(restricted, sigma2, df)

    def sigma_gradients(self, restricted: bool, sigma2: float) -> list[Array]:
        """Of the first x."""
        return self.states[0].sigma_gradients(restricted, sigma2)


@dataclass(frozen=True, slots=True, eq=False)
class BlockDiagonalKernel:
    """Structured errors: x = (random terms, residual structure, variance function)."""

    random: RandomParameters
    structure: ResidualStructure
    variance: VarianceFunction
    data: SubjectData

    @property
    def size(self) -> int:
        return self.random.size + self.structure.size + self.variance.size

    @property
    def residual_part(self) -> slice:
        return slice(self.random.size, self.random.size + self.structure.size)

    @property
    def variance_part(self) -> slice:
        return slice(self.size - self.variance.size, self.size)

    def solve(self, x: Array) -> Solution:
        return stack_solutions([self.evaluate_one(row).solution for row in x])

    def evaluate(self, x: Array, derivatives: bool) -> BlockDiagonalState | BlockDiagonalStates:
        if len(x) == 1:
            return self.evaluate_one(x[0])
        return BlockDiagonalStates(tuple(self.evaluate_one(row) for row in x))

    def evaluate_many(self, x: Array) -> BlockDiagonalStates:
        return BlockDiagonalStates(tuple(self.evaluate_one(row) for row in x))

    def log_scale(self, x: Array) -> tuple[Array | None, Array]:
        """log of what rows are divided by, (n,), and its derivatives in the variance parameters."""
        if not self.variance.size:
            return self.data.log_weight_scale, np.zeros((0, self.data.n))
        log_v, slopes = self.variance.log_multiplier(x[self.variance_part])
        return log_v if self.data.log_weight_scale is None else log_v + self.data.log_weight_scale, slopes

    def evaluate_one(self, x: Array) -> BlockDiagonalState:
        """The profile at one x (size,)."""
        log_scale, slopes = self.log_scale(x)
        T = self.random_factors(x)
        phi = x[self.residual_part]
        logdet = 0.0 if log_scale is None else 2.0 * float(log_scale.sum())
        Xy = np.zeros((self.data.r, self.data.r))
        rows, pooled = [], []
        whole = self.structure.set_matrices(phi)
        apart = self.hides_errors(T, phi, log_scale, whole)
        for batch in self.data.rows:
            state, part = self.factorize(batch, phi, T, log_scale, whole, apart=apart)
            rows.append(state)
            logdet += part
            flat = (state.inverse @ state.U).reshape(-1, self.data.r)
            Xy += state.U.reshape(-1, self.data.r).T @ flat
        for group in self.data.pooled:
            R = self.structure.matrices(phi, group.block, whole)
            each, inverse = _inverse(R)
            logdet += float(group.count @ each)
            Xy += np.einsum("bk,bkr->r", inverse.reshape(len(R), -1), group.G).reshape(self.data.r, self.data.r)
            pooled.append(PooledBlockFactor(group, R, inverse))
        if apart:
            solution = solve_rows(logdet, np.concatenate([part.whitened.reshape(-1, self.data.r) for part in rows]))
        else:
            solution = solve_Xy(np.array([logdet]), 0.5 * (Xy + Xy.T)[None])
        return BlockDiagonalState(self, x, solution, rows, pooled, slopes)

    def hides_errors(self, factors: list[Array], phi: Array, log_scale: Array | None, whole: Array) -> bool:
        """Whether the random effects of a row are so large beside its error that V as a sum would lose it."""
        if not any(T.size and np.abs(T).max() > 1.0 for T in factors):
            return False  # asked at every evaluation, and hardly ever more than this
        effects = sum(((term.Z @ T) ** 2).sum(axis=1) for term, T in zip(self.data.terms, factors, strict=True))
        scaled = np.asarray(effects if log_scale is None else effects * np.exp(-2.0 * log_scale))
        if scaled.max() < 1e-4 * HIDDEN_ERRORS:
            return False
        errors = [np.einsum("bkk->bk", self.structure.matrices(phi, batch.block, whole)) for batch in self.data.rows]
        return any(bool((scaled[batch.rows] > HIDDEN_ERRORS * R).any()) for batch, R in zip(self.data.rows, errors, strict=True))

    def random_factors(self, x: Array) -> list[Array]:
        """T of every term, Sigma = T T'."""
        return [term.covariance.factor(x[term.part]) for term in self.random.terms]

    def factorize(
        self, batch: RowBatch, phi: Array, factors: list[Array], log_scale: Array | None, whole: Array, *, apart: bool = False
    ) -> tuple[StructuredBlockFactor, float]:
        """The blocks of a batch at some parameters, and the sum of their log determinants; apart : V not as a sum.

        whole : the structure's `set_matrices` at phi
        """
        U = self.data.Xy[batch.rows]
        scale = np.ones(batch.rows.shape)
        Z = [term.Z[batch.rows] for term in self.data.terms]
        if log_scale is not None:
            scale = np.exp(log_scale[batch.rows])
            U = U / scale[..., None]
            Z = [z / scale[..., None] for z in Z]
        R = self.structure.matrices(phi, batch.block, whole)
        links, ZT = [level_mask(term, batch.rows) for term in self.data.terms], [z @ T for z, T in zip(Z, factors, strict=True)]
        root = None
        if apart:
            effects = [level_columns(term, batch.rows, own) for term, own in zip(self.data.terms, ZT, strict=True)]
            logdet, root = _factorize_apart(R, effects)
            inverse = root.swapaxes(-1, -2) @ root
        else:
            logdet, inverse = _inverse(add_effects(R, links, ZT))
        return StructuredBlockFactor(batch, U, tuple(Z), tuple(links), R, inverse, scale, root), float(logdet.sum())
