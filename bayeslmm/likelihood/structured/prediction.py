"""Conditional modes under structured errors, their covariances, and predictions given all observed outcomes.

For a new row with covariance c to the observed outcomes (through shared levels of random terms and, within a subject, through R)

    E(y_new | y) = x'alpha + c' V^-1 (y - X alpha),    var = v - c' V^-1 c + d' C d,   d = x - X' V^-1 c,  C = (X' V^-1 X)^-1.

All in units of sigma on rows divided by S; c is sparse, V^-1 block diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from bayeslmm._arrays import Array, Codes, freeze_codes
from bayeslmm.data.design import ResidualDesign
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.kernel import BlockDiagonalState
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
    """Conditional modes of every term, (K, q), user's scale."""
    state = _state(point)
    found = []
    for term, data, a in zip(problem.random.terms, state.kernel.data.terms, state.scores(), strict=True):
        related = a if data.relationship is None else a @ data.relationship
        D = term.covariance.matrix(state.x[term.part])
        found.append(problem.standardization.y_scale * (term.map.whole @ D @ related).T)
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


def subject_rows(
    problem: Problem, point: CriterionPoint, X: Array, Zs: Sequence[Array], codes: Sequence[Codes], place: ResidualIndex | None
) -> tuple[Array, Array, Array]:
    """What the observed outcomes add to x'alpha at new rows, the variance of what is predicted, and how much of it is alpha's: (n,) each.

    With `place` the thing predicted is the outcome itself, its error included; without, x'alpha + z'beta. Terms at code -1 are left out.
    """
    state = _state(point)
    c = problem.standardization
    kernel = state.kernel
    n, N = kernel.data.n, len(X)
    log_scale = kernel.log_scale(state.x)[0]
    scale = np.ones(n) if log_scale is None else np.exp(log_scale)
    C = sp.csr_array((N, n))
    own = np.zeros(N)
    for i, (term, data) in enumerate(zip(problem.random.terms, kernel.data.terms, strict=True)):
        D = term.covariance.matrix(state.x[term.part])
        z = np.where(codes[i][:, None] >= 0, Zs[i] @ term.map.whole, 0.0)
        level = np.maximum(codes[i], 0)
        size = np.ones(data.K) if data.relationship is None else np.diagonal(data.relationship)
        own += np.einsum("na,ab,nb->n", z, D, z) * size[level]
        rows = problem.design.terms[i].group.sorted_rows
        C = C + _through_levels(z @ D, level, data.Z, scale, rows, data.relationship)
    if place is not None:
        residual, variance = _through_errors(problem, state, place)
        C, own = C + residual, own + variance
    gained, left, d = _condition_on_observed(state, sp.csr_array(C), c.functions(X), own)
    through_alpha = np.einsum("nx,xz,nz->n", d, state.solution.information_inverse[0], d)
    unit, variance = point.sigma2 * c.y_scale**2, left + through_alpha
    # an outcome that was observed has no variance left: what the differences leave of it is rounding
    return c.y_scale * gained, unit * np.where(variance > ROUNDING_VARIANCE * own, variance, 0.0), unit * through_alpha


def _through_levels(zD: Array, level: Codes, Z: Array, scale: Array, rows: tuple[Codes, Codes], relationship: Array | None) -> sp.csr_array:
    """z' D Z' over shared or related levels, (N, n) sparse; rows : of every level, in order, and where each level begins."""
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
    values = share[pair] * np.einsum("na,na->n", zD[new[pair]], Z[old]) / scale[old]
    return sp.csr_array((values, (new[pair], old)), shape=(len(level), len(Z)))


def _through_errors(problem: Problem, state: BlockDiagonalState, place: ResidualIndex) -> tuple[sp.csr_array, Array]:
    """Covariances (N, n) of new errors with those observed, these divided by S, and the new errors' variances."""
    n, N = state.kernel.data.n, len(place.subject)
    s = np.exp(place.log_scale)
    structure, residual, phi = state.kernel.structure, problem.design.residual, state.phi
    if not isinstance(structure, GroupedStructure) or residual is None:
        return sp.csr_array((N, n)), s**2
    if place.later is not None:
        natural, residual = residual_natural(structure, phi), place.later.residual(residual)
        structure = VisitStructure(residual_covariance(residual), structure.groups)
        phi = residual_free(structure, natural)
    own = structure.matrices(phi, _points(place))[:, 0, 0]
    known = np.flatnonzero(place.subject >= 0)
    if not len(known):
        return sp.csr_array((N, n)), own * s**2
    order, starts = residual.subject.sorted_rows
    counts = starts[place.subject[known] + 1] - starts[place.subject[known]]
    new = np.repeat(known, counts)
    offset = np.cumsum(counts) - counts
    old = order[np.arange(counts.sum()) - np.repeat(offset, counts) + np.repeat(starts[place.subject[known]], counts)]
    pairs = _pairs(place, new, residual, old)
    values = structure.matrices(phi, pairs)[:, 0, 1] * s[new]
    return sp.csr_array((values, (new, old)), shape=(N, n)), own * s**2


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


def _condition_on_observed(state: BlockDiagonalState, C: sp.csr_array, X: Array, own: Array) -> tuple[Array, Array, Array]:
    """c' V^-1 (y - X alpha), v - c' V^-1 c and x - X' V^-1 c of every row of C."""
    gained, left, d = np.zeros(len(own)), own.copy(), X.copy()
    if not C.nnz:  # rows of new subjects alone: those observed say nothing of them
        return gained, left, d
    p = X.shape[1]
    new, (batch, position) = np.repeat(np.arange(len(own)), np.diff(C.indptr)), state.positions
    batch, position = batch[C.indices], position[C.indices]
    for number in np.unique(batch):
        part, e, mine = state.row_states[number], state.residual_scores[number], batch == number
        k = part.batch.rows.shape[1]
        # only blocks that the new rows meet
        blocks, local = np.unique(position[mine] // k, return_inverse=True)
        b = len(blocks)
        met = sp.csr_array((C.data[mine], (new[mine], local * k + position[mine] % k)), shape=(len(own), b * k))
        inverse = part.inverse[blocks]
        gained += met @ e[blocks].ravel()
        d -= met @ (inverse @ part.U[blocks, :, :p]).reshape(b * k, p)
        within = sp.bsr_array((inverse, np.arange(b), np.arange(b + 1)), shape=(b * k, b * k))
        left -= np.asarray(met.multiply(met @ within).sum(axis=1)).ravel()
    return gained, left, d


def _state(point: CriterionPoint) -> BlockDiagonalState:
    assert isinstance(point.state, BlockDiagonalState)
    return point.state
