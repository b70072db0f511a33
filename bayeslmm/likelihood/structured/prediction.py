"""Conditional modes under structured errors, their covariances, and predictions given all observed outcomes.

For a new row with covariance c to the observed outcomes (through shared levels of random terms and, within a subject, through R)

    E(y_new | y) = x'alpha + c' V^-1 (y - X alpha),    var = v - c' V^-1 c + d' C d,   d = x - X' V^-1 c,  C = (X' V^-1 X)^-1.

All in units of sigma on rows divided by S, or by the weights alone; c is sparse, V^-1 block diagonal. At one point, or at many draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, Codes, freeze_codes
from bayeslmm.data.design import ResidualDesign
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.kernel import Solution
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.kernel import BlockDiagonalState, StructuredBlockFactor, add_effects
from bayeslmm.likelihood.structured.low_rank import LowRankKernel, LowRankState
from bayeslmm.likelihood.structured.pooled import InvertedBlocks, PooledSubjectsKernel, many_matrices
from bayeslmm.likelihood.structured.residual_structure import (
    BlockRows,
    GroupedStructure,
    VisitStructure,
    residual_covariance,
    residual_free,
    residual_natural,
)

ROUNDING_VARIANCE = 1e-14
"""Variance of what is predicted given the data, relative to its variance without them, that stands for none."""


@dataclass(frozen=True, slots=True, eq=False)
class ResidualIndex:
    """Where new rows stand in the residual structure.

    subject : (n,) code among the subjects observed, -1 for none of them
    place : (n,) visit index, or None; coords : (n, d), or None
    group : (n,) number of the parameter set; log_scale : (n,) log of S (variance function and weights, as the kernel has it)
    later : visits beside those of the fit, to which `place` points then; None where there are none
    """

    subject: Codes
    place: Codes | None
    coords: Array | None
    group: Codes
    log_scale: Array
    later: LaterVisits | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LaterVisits:
    """The visits of the fit and others of a structure that counts steps, in order.

    levels : their labels; steps : their places, the first 0; known : (m,) where those of the fit are among them
    """

    levels: tuple[Any, ...]
    steps: tuple[int, ...]
    known: Codes

    def residual(self, residual: ResidualDesign) -> ResidualDesign:
        """A residual design over all of them."""
        visit = None if residual.visit is None else freeze_codes(self.known[residual.visit])
        return replace(residual, visit=visit, visit_levels=self.levels, positions=self.steps, axes=(self.levels,), missing_visits=())


def subject_modes(problem: Problem, point: CriterionPoint) -> list[Array]:
    """Conditional modes of every term, (K, q), on standardized columns and the user's scale of the response."""
    state = _state(point)
    found = []
    for term, data, a in zip(problem.random.terms, state.kernel.data.terms, state.scores(), strict=True):
        related = a if data.relationship is None else a @ data.relationship
        D = term.covariance.matrix(state.x[term.part])
        found.append(problem.standardization.y_scale * (D @ related).T)
    return found


def subject_mode_covariances(problem: Problem, point: CriterionPoint) -> list[Array]:
    """var(beta_k | y, alpha) of every term, (K, q, q), user's scale."""
    state = _state(point)
    scale = point.sigma2 * problem.standardization.y_scale**2
    found = []
    for i, (term, data) in enumerate(zip(problem.random.terms, state.kernel.data.terms, strict=True)):
        D = term.covariance.matrix(state.x[term.part])
        size = np.ones(data.K) if data.relationship is None else np.diagonal(data.relationship)
        inner = _level_information(state, i)
        whole = term.map.whole
        found.append(scale * (whole @ (size[:, None, None] * D - D @ inner @ D) @ whole.T))
    return found


def _level_information(state: BlockDiagonalState, i: int) -> Array:
    """Z_k' V^-1 Z_k of every level (K, q, q), Z_k all rows that level k reaches through the relationship matrix."""
    data = state.kernel.data.terms[i]
    q = data.Z.shape[1]
    if isinstance(state, LowRankState):
        return state.level_information(i)
    out = np.zeros((data.K, q, q))
    for part in state.row_states:
        Z, codes = part.Z[i], data.codes[part.batch.rows]
        if data.relationship is None:
            mine = (codes[:, :, None] == codes[:, None, :]).astype(float)
            t = (part.inverse * mine) @ Z
            for a in range(q):
                for b in range(q):
                    out[:, a, b] += np.bincount(codes.ravel(), (Z[..., a] * t[..., b]).ravel(), data.K)
        else:
            for B in range(len(codes)):
                reach = data.relationship[:, codes[B]][:, :, None] * Z[B]
                out += np.einsum("kia,ij,kjb->kab", reach, part.inverse[B], reach, optimize=True)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class ObservedRows:
    """The observed rows at t points x (t, size).

    solution : the profile in alpha; divisor : (1, n or 1) what rows were divided by
    blocks : V0^-1 of the blocks that some rows are in, made where a new row is tied to one: rows that were added up have none
    error_sds : (t or 1, n or 1) the sds of their errors that this leaves, but for R0
    """

    x: Array
    solution: Solution
    blocks: Callable[[Codes], Sequence[InvertedBlocks]]
    divisor: Array
    error_sds: Array

    @classmethod
    def at_point(cls, state: BlockDiagonalState, v: Array | None = None) -> ObservedRows:
        """Those of one evaluation; v : (r, m) columns [X y] v that are asked of them, all of [X y] where None."""
        log_scale = state.kernel.log_scale(state.x)[0]

        def blocks(rows: Codes) -> list[InvertedBlocks]:
            return [
                InvertedBlocks(
                    part.batch.rows, part.U if v is None else part.U @ v, part.inverse[None], np.arange(len(part.U)), _lower(state, part)
                )
                for part in state.blocks_of(rows)
            ]

        return cls(state.x[None], state.solution, blocks, np.exp(_or_zeros(log_scale))[None], np.ones((1, 1)))

    @classmethod
    def at_points(cls, patterns: PooledSubjectsKernel, x: Array, solution: Solution) -> ObservedRows:
        """Those of many x; solution : with alpha's prior in it."""
        kernel = patterns.kernel
        error_sds = np.ones((1, 1))
        if kernel.variance.size:
            error_sds = np.exp(kernel.variance.log_multipliers(x[:, kernel.variance_part], np.arange(kernel.data.n)))
        whole = cache(lambda: list(patterns.invert_blocks(patterns.all_rows(), x)))
        return cls(
            x,
            solution,
            lambda _: whole(),
            np.exp(_or_zeros(kernel.data.log_weight_scale))[None],
            error_sds,
        )


def _lower(state: BlockDiagonalState, part: StructuredBlockFactor) -> Array | None:
    """The Cholesky factor (1, B, k, k) of V0 of every block; None where V0 has none in rounding."""
    ZT = [Z @ T for Z, T in zip(part.Z, state.kernel.random_factors(state.x), strict=True)]
    try:
        return np.linalg.cholesky(add_effects(part.R, part.link, ZT))[None]
    except np.linalg.LinAlgError:
        return None


def _or_zeros(log_scale: Array | None) -> Array:
    return np.zeros(1) if log_scale is None else log_scale


@dataclass(frozen=True, slots=True, eq=False)
class SparseCovariances:
    """Covariances of new rows with those observed, in scaled rows: values (t, m) at pairs of rows new (m,) and old (m,), each once."""

    new: Codes
    old: Codes
    values: Array


def subject_rows(
    problem: Problem, point: CriterionPoint, X: Array, Zs: Sequence[Array], codes: Sequence[Codes], place: ResidualIndex | None
) -> tuple[Array, Array, Array]:
    """What the observed outcomes add to x'alpha at new rows, the variance of what is predicted, and how much of it is alpha's: (n,) each.

    With `place` the thing predicted is the outcome itself, its error included; without, x'alpha + z'beta. Terms at code -1 are left out.
    """
    state, unit = _state(point), np.array([point.sigma2])
    if isinstance(state, LowRankState):
        met, own = _meet_levels(problem, state, Zs, codes, None if place is None else place.log_scale, None)
        found = _given_observed(problem, state.solution, unit, X, met[None], own[None])
    else:
        places = None if place is None else (place, place.log_scale[None])
        found = rows_given_observed(problem, ObservedRows.at_point(state), unit, X, Zs, codes, places)
    gained, outcome, of_mean = found
    return gained[0], outcome[0], of_mean[0]


def subject_means(problem: Problem, point: CriterionPoint, Zs: Sequence[Array], codes: Sequence[Codes], place: ResidualIndex) -> Array:
    """The first of `subject_rows` alone, (n,): one column of what the observed rows left stands for all of [X y]."""
    state = _state(point)
    if isinstance(state, LowRankState):
        return np.asarray(problem.standardization.y_scale * _meet_levels(problem, state, Zs, codes, None, state.v[:, None])[0][:, 0])
    observed = ObservedRows.at_point(state, state.v[:, None])
    covariances, own = _covariances(problem, observed, Zs, codes, (place, place.log_scale[None]))
    return np.asarray(problem.standardization.y_scale * _meet(observed, covariances, own.shape, 1)[0, :, 0])


def rows_given_levels(
    problem: Problem,
    kernel: LowRankKernel,
    x: Array,
    solution: Solution,
    sigma2: Array,
    X: Array,
    Zs: Sequence[Array],
    codes: Sequence[Codes],
    log_scale: Array | None,
) -> tuple[Array, Array, Array]:
    """`rows_given_observed` at t points x where new rows are tied to observed ones through levels alone; log_scale : (t or 1, n)."""
    scales = [None] * len(x) if log_scale is None else np.broadcast_to(log_scale, (len(x), len(X)))
    found = [_meet_levels(problem, kernel.evaluate_one(own), Zs, codes, scale, None) for own, scale in zip(x, scales, strict=True)]
    return _given_observed(problem, solution, sigma2, X, *(np.stack(part) for part in zip(*found, strict=True)))


def rows_given_observed(
    problem: Problem,
    observed: ObservedRows,
    sigma2: Array,
    X: Array,
    Zs: Sequence[Array],
    codes: Sequence[Codes],
    place: tuple[ResidualIndex, Array] | None,
) -> tuple[Array, Array, Array]:
    """`subject_rows` at t points with residual variances sigma2 (t,): (t, n) each; place : with its log scales (t or 1, n)."""
    covariances, own = _covariances(problem, observed, Zs, codes, place)
    met = _meet(observed, covariances, own.shape, X.shape[1] + 1)
    return _given_observed(problem, observed.solution, sigma2, X, met, own)


def _given_observed(problem: Problem, solution: Solution, sigma2: Array, X: Array, met: Array, own: Array) -> tuple[Array, Array, Array]:
    """What observed rows make of new ones, (t, n) each; met : (t, n, p + 2) [X y]' V^-1 c and c' V^-1 c; own : (t, n) variances."""
    c, p = problem.standardization, met.shape[-1] - 2
    d = c.functions(X) - met[..., :p]
    gained = met[..., p] - (met[..., :p] @ solution.alpha[..., None])[..., 0]
    left, through_alpha = own - met[..., p + 1], ((d @ solution.information_inverse) * d).sum(-1)
    unit, variance = sigma2[:, None] * c.y_scale**2, left + through_alpha
    # an outcome that was observed has no variance left: what the differences leave of it is rounding
    return c.y_scale * gained, unit * np.where(variance > ROUNDING_VARIANCE * own, variance, 0.0), unit * through_alpha


def _meet_levels(
    problem: Problem,
    state: LowRankState,
    Zs: Sequence[Array],
    codes: Sequence[Codes],
    log_scale: Array | None,
    columns: Array | None,
) -> tuple[Array, Array]:
    """`_meet` (n, r + 1) where new rows are tied to observed ones through levels alone, and the variances (n,) of what is predicted."""
    own, reached = np.zeros(len(codes[0])), []
    for term, data, Z, code in zip(problem.random.terms, state.kernel.data.terms, Zs, codes, strict=True):
        z = np.where(code[:, None] >= 0, Z @ term.map.whole, 0.0)
        zD = z @ term.covariance.matrix(state.x[term.part])
        own += (zD * z).sum(-1) * (1.0 if data.relationship is None else np.diagonal(data.relationship)[np.maximum(code, 0)])
        reached.append(zD)
    if log_scale is not None:
        own += np.exp(2.0 * log_scale)
    return state.meet(reached, codes, columns), own


def _covariances(
    problem: Problem, observed: ObservedRows, Zs: Sequence[Array], codes: Sequence[Codes], place: tuple[ResidualIndex, Array] | None
) -> tuple[list[SparseCovariances], Array]:
    """Of new rows with those observed, and their own variances (t, n)."""
    kernel, x = problem.structured, observed.x
    assert kernel is not None
    found, own = [], np.zeros((len(x), len(place[0].group if place is not None else codes[0])))
    for i, (term, data) in enumerate(zip(problem.random.terms, kernel.data.terms, strict=True)):
        D = term.covariance.matrix(x[:, term.part])
        z = np.where(codes[i][:, None] >= 0, Zs[i] @ term.map.whole, 0.0)
        level = np.maximum(codes[i], 0)
        size = np.ones(data.K) if data.relationship is None else np.diagonal(data.relationship)
        zD = z @ D
        own += (zD * z).sum(-1) * size[level]
        rows = problem.design.terms[i].group.sorted_rows
        found.append(_through_levels(zD, level, data.Z, observed.divisor, rows, data.relationship))
    if place is not None:
        residual, variance = _through_errors(problem, observed, *place)
        own += variance
        found += [] if residual is None else [residual]
    return found, own


def _through_levels(
    zD: Array, level: Codes, Z: Array, divisor: Array, rows: tuple[Codes, Codes], relationship: Array | None
) -> SparseCovariances:
    """z' D Z' over shared or related levels; rows : of every level, in order, and where each level begins."""
    order, starts = rows
    if relationship is None:
        new, other, share = np.arange(len(level)), level, np.ones(len(level))
    else:
        related = relationship[level]
        new, other = np.nonzero(related)
        share = related[new, other]
    counts = starts[other + 1] - starts[other]
    pair = np.repeat(np.arange(len(other)), counts)
    old = order[np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[other][pair]]
    values = share[pair] * (zD[:, new[pair]] * Z[old]).sum(-1) / np.broadcast_to(divisor, (1, len(Z)))[:, old]
    return SparseCovariances(new[pair], old, values)


def _through_errors(
    problem: Problem, observed: ObservedRows, place: ResidualIndex, log_scale: Array
) -> tuple[SparseCovariances | None, Array]:
    """Covariances of new errors with those observed, and the new errors' variances (t, N)."""
    kernel, residual = problem.structured, problem.design.residual
    assert kernel is not None
    s, structure, phi = np.exp(log_scale), kernel.structure, observed.x[:, kernel.residual_part]
    if not isinstance(structure, GroupedStructure) or residual is None:
        return None, s**2
    if place.later is not None:
        natural, residual = [residual_natural(structure, own) for own in phi], place.later.residual(residual)
        structure = VisitStructure(residual_covariance(residual), structure.groups)
        phi = np.stack([residual_free(structure, own) for own in natural])
    own = many_matrices(structure, phi, _points(place))[..., 0, 0] * s**2
    known = np.flatnonzero(place.subject >= 0)
    if not len(known):
        return None, own
    order, starts = residual.subject.sorted_rows
    counts = starts[place.subject[known] + 1] - starts[place.subject[known]]
    new = np.repeat(known, counts)
    offset = np.cumsum(counts) - counts
    old = order[np.arange(counts.sum()) - np.repeat(offset, counts) + np.repeat(starts[place.subject[known]], counts)]
    between = many_matrices(structure, phi, _pairs(place, new, residual, old))[..., 0, 1]
    error_sds = np.broadcast_to(observed.error_sds, (len(observed.error_sds), problem.design.nobs))
    return SparseCovariances(new, old, between * s[:, new] * error_sds[:, old]), own


def _points(place: ResidualIndex) -> BlockRows:
    N = len(place.subject)
    return BlockRows(
        None if place.place is None else place.place[:, None],
        None if place.coords is None or place.place is not None else np.zeros((N, 1, 1)),
        place.group[:, None],
        None,
    )


def _pairs(place: ResidualIndex, new: Codes, residual: ResidualDesign, old: Codes) -> BlockRows:
    """Blocks of two rows: a new one and an observed one of its subject."""
    group = np.repeat(place.group[new][:, None], 2, axis=1)
    if residual.visit is not None and place.place is not None:
        return BlockRows(np.column_stack([place.place[new], residual.visit[old]]), None, group, None)
    assert residual.coords is not None and place.coords is not None
    distance = np.linalg.norm(place.coords[new] - residual.coords[old], axis=1)
    blocks = np.zeros((len(new), 2, 2))
    blocks[:, 0, 1] = blocks[:, 1, 0] = distance
    return BlockRows(None, blocks, group, None)


def _meet(observed: ObservedRows, covariances: Sequence[SparseCovariances], shape: tuple[int, ...], columns: int) -> Array:
    """U' V^-1 c of the columns U of the observed rows, and c' V^-1 c, of every new row: (t, N, columns + 1)."""
    t, N = shape
    tied = np.concatenate([*(part.old for part in covariances), np.zeros(0, np.int64)])
    blocks = observed.blocks(tied) if len(tied) else []
    batch, position = np.empty((2, 1 + max((int(block.rows.max()) for block in blocks), default=-1)), np.int64)
    for number, block in enumerate(blocks):
        batch[block.rows], position[block.rows] = number, np.arange(block.rows.size).reshape(block.rows.shape)
    met = np.zeros((t, N, columns + 1))
    for number, block in enumerate(blocks):
        B, k = block.rows.shape
        mine = [batch[part.old] == number for part in covariances]
        # a new row and a block that it is tied to; rows of new subjects alone have none
        keys = [part.new[own] * B + position[part.old[own]] // k for part, own in zip(covariances, mine, strict=True)]
        pairs, pair = _number(np.concatenate(keys))
        if not len(pairs):
            continue
        (new, at), begin, c = np.divmod(pairs, B), 0, np.zeros((t, len(pairs), k))
        for part, own_pairs in zip(covariances, mine, strict=True):
            old = part.old[own_pairs]
            c[:, pair[begin : begin + len(old)], position[old] % k] += part.values[:, own_pairs]
            begin += len(old)
        products, explained = block.meet(c, at)
        found = np.concatenate([products, explained[..., None]], axis=-1)
        if (new[1:] != new[:-1]).all():
            met[:, new] += found
        else:
            np.add.at(met.swapaxes(0, 1), new, found.swapaxes(0, 1))
    return met


def _number(keys: Codes) -> tuple[Codes, Codes]:
    """The distinct keys in order, and which of them each is: as `np.unique`, many times faster where they stand in order already."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)]
    number = np.empty(len(keys), np.int64)
    number[order] = np.cumsum(first) - 1
    return ordered[first], number


def _state(point: CriterionPoint) -> BlockDiagonalState:
    assert isinstance(point.state, BlockDiagonalState)
    return point.state
