"""Conditional modes of the random effects (BLUPs), their covariances, and the variance of any linear predictor.

All of it comes from the factor that the criterion has already made. With `H_k = T M_k^-1 T'` for level k of the first factor, E_k and C_k
its cross-products with the remaining columns and with X, and Q the inverse of what remains after it (joint over those and X),

    var(x'(alpha^ - alpha) + z'(beta^ - beta)) / sigma^2 = z0' H_k z0 + d' Q d,     d = [z_rest; x] - [E_k C_k]' H_k z0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.blocked import BlockedCholesky
from bayeslmm.likelihood.random_effects.cross_products import Factor
from bayeslmm.likelihood.random_effects.iterative import IterativeSchur
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsState
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, SparseOffDiagonal, UnpairedOffDiagonal
from bayeslmm.likelihood.random_effects.schur import FactorColumns, SchurComplement
from bayeslmm.likelihood.structured.prediction import subject_mode_covariances, subject_modes, subject_rows
from bayeslmm.likelihood.threads import one_thread

BLOCK_ELEMENTS = 1 << 23
"""Entries of a dense block (rows x remaining columns) worked on at once."""

X_ELEMENTS = 1 << 20
"""Entries of X worked on at once: of a wide one no second copy is made."""


def conditional_modes(problem: Problem, point: CriterionPoint) -> list[Array]:
    """beta^ = E(beta | y) at the profiled alpha and sigma, (K, q) for every term in the order of the formula, on the user's columns."""
    own = _standardized_modes(problem, point)
    return [modes @ change.whole.T for modes, change in zip(own, problem.standardization.maps, strict=True)]


def linear_predictors(problem: Problem, point: CriterionPoint, X: Array, alpha: Array) -> Array:
    """X alpha of any rows; about the origins of far columns where alpha is that of the point."""
    c, own = problem.standardization, _own_alpha(problem, point, alpha)
    return np.asarray(X @ alpha if own is None else c.functions(X) @ own)


def population_means(problem: Problem, point: CriterionPoint, alpha: Array) -> Array:
    """X alpha + offset of all rows, likewise."""
    design, own = problem.design, _own_alpha(problem, point, alpha)
    if own is None or not design.in_memory:
        return design.linear_predictor(alpha)
    values = problem.standardization.design_rows(design) @ own
    return values if design.offset is None else values + design.offset


def conditional_means(problem: Problem, point: CriterionPoint, alpha: Array, modes: Sequence[Array]) -> Array:
    """X alpha + offset + Z beta of all rows at the conditional modes, likewise."""
    return sum(mode_effects(problem, point, modes), population_means(problem, point, alpha))


def _own_alpha(problem: Problem, point: CriterionPoint, alpha: Array) -> Array | None:
    """Coefficients on standardized columns that the user's alpha stands for; None where nothing is gained, or it is not the point's."""
    c = problem.standardization
    if not c.far or point.state is None:
        return None
    own = point.state.solution.alpha[0]
    return c.least_squares + c.y_scale * own if np.array_equal(problem.alpha(own), alpha) else None


def mode_effects(problem: Problem, point: CriterionPoint, modes: Sequence[Array]) -> list[Array]:
    """What the conditional modes (the user's, given) add to every row, Z b, (n,) for every term."""
    design, maps = problem.design, problem.standardization.maps
    if not any(change.far for change in maps):
        return [term.effects(own) for term, own in zip(design.terms, modes, strict=True)]
    return [
        np.einsum("qn,nq->n", change.columns(term.Z), own[term.group.codes])
        for term, change, own in zip(design.terms, maps, _standardized_modes(problem, point), strict=True)
    ]


def _standardized_modes(problem: Problem, point: CriterionPoint) -> list[Array]:
    if problem.structured is not None:
        return subject_modes(problem, point)
    state = _state(point)
    found: dict[int, Array] = {}
    with one_thread(problem.criterion.width):
        whole = state.modes()
    for factor, modes in zip(state.parameters.factors, whole, strict=True):
        beta = modes[:, 0].T
        if factor.root is not None:
            beta = factor.root @ beta
        for i, own in zip(factor.terms, factor.slices, strict=True):
            found[i] = problem.standardization.y_scale * beta[:, own]
    return [found[i] for i in range(len(found))]


def conditional_covariances(problem: Problem, point: CriterionPoint) -> list[Array]:
    """var(beta_k | y, alpha) = sigma^2 [Lambda (Lambda'Z'WZ Lambda + I)^-1 Lambda']_kk, (K, q, q) for every term, in formula order."""
    if problem.structured is not None:
        return subject_mode_covariances(problem, point)
    state = _state(point)
    found: dict[int, Array] = {}
    scale = point.sigma2 * problem.standardization.y_scale**2
    with one_thread(problem.criterion.width):
        blocks = _inverse_blocks(state.levels)
    for factor, block in zip(state.parameters.factors, blocks, strict=True):
        for i, own in zip(factor.terms, factor.slices, strict=True):
            whole = problem.standardization.maps[i].whole
            found[i] = scale * (whole @ block[:, own, own] @ whole.T)
    return [found[i] for i in range(len(found))]


def row_variances(problem: Problem, point: CriterionPoint, X: Array, Zs: Sequence[Array], codes: Sequence[Codes]) -> Array:
    """Variance of `x'(alpha^ - alpha) + z'(beta^ - beta)` for any rows, (n,), on the user's scale.

    X : (n, p) columns kept; Zs : (n, q) for every term in the order of the formula; codes : (n,) levels, -1 leaves the term out
    """
    if problem.structured is not None:
        return subject_rows(problem, point, X, Zs, codes, None)[1]
    state = _state(point)
    scale = point.sigma2 * problem.standardization.y_scale**2
    out = np.empty(len(X))
    with one_thread(problem.criterion.width):
        if _shares_levels(state.levels, len(X)):
            rows = PredictorRows(problem, state, problem.standardization.functions(X), Zs, codes)
            return np.asarray(scale * rows.variances_by_level())
        step = min(rows_at_once(state.levels), max(1, X_ELEMENTS // max(1, X.shape[1])))
        for part in (slice(begin, min(begin + step, len(X))) for begin in range(0, len(X), step)):
            rows = PredictorRows(
                problem, state, problem.standardization.functions(X[part]), [Z[part] for Z in Zs], [c[part] for c in codes]
            )
            out[part] = scale * rows.variances()
    return out


def _state(point: CriterionPoint) -> RandomEffectsState:
    assert isinstance(point.state, RandomEffectsState)
    return point.state


def _shares_levels(levels: BlockedCholesky, n: int) -> bool:
    """Whether n rows are so many that products of each level of the first factor with one dense Q are made once, and looked up."""
    rest, coupling = levels.rest, levels.cross.coupling
    if not isinstance(rest, SchurComplement) or levels.first is None or levels.cross.first is None or coupling is None:
        return False
    dense = len(rest.layout.batches) == 1 and len(rest.layout.batches[0].index) == 1
    plain = not isinstance(coupling, UnpairedOffDiagonal) and all(factor.root is None for factor in levels.cross.rest_factors)
    return dense and plain and n > 2 * levels.cross.first.K


def rows_at_once(levels: BlockedCholesky) -> int:
    """How many rows may be seen by all remaining columns at once."""
    m = 1
    if isinstance(levels.rest, IterativeSchur):
        m = levels.rest.layout.m
    elif levels.rest is not None:
        # only a component worked on densely asks for memory
        m = max(batch.index.shape[1] for batch in levels.rest.layout.batches)
    return max(1, BLOCK_ELEMENTS // m)


# -- the diagonal blocks of the inverse ------------------------------------------------------------------------------------------------


def _inverse_blocks(levels: BlockedCholesky) -> list[Array]:
    """(K, q, q) diagonal blocks of Lambda (Lambda'Z'WZ Lambda + I)^-1 Lambda' of every factor, on standardized columns."""
    found = []
    if isinstance(levels.rest, IterativeSchur):
        own, inner = levels.rest.inverse_blocks()
        H = levels.rest.H
        return [np.ascontiguousarray((H + np.einsum("abk,bck,cdk->adk", H, inner, H)).transpose(2, 0, 1)), *own]
    if levels.first is not None:
        H = np.einsum("catk,cbtk->abtk", levels.first.W, levels.first.W)
        if levels.rest is not None and levels.cross.coupling is not None and not isinstance(levels.cross.coupling, UnpairedOffDiagonal):
            inner = levels.cross.coupling.gather(levels.rest.flat_Q())
            H = H + np.einsum("abtk,bctk,cdtk->adtk", H, inner, H)
        found.append(np.ascontiguousarray(H[:, :, 0].transpose(2, 0, 1)))
    if levels.rest is not None:
        for span, factor in zip(levels.rest.layout.spans, levels.cross.rest_factors, strict=True):
            found.append(_rest_blocks(levels.rest, span, factor))
    return found


def _rest_blocks(rest: SchurComplement, span: FactorColumns, factor: Factor) -> Array:
    out = np.empty((span.K, span.q, span.q))
    for batch, block in zip(rest.layout.batches, rest.blocks, strict=True):
        for _, part in rest.layout.local(batch):
            index = batch.index[:, part]
            if not (span.offset <= index[0, 0] < span.stop):
                continue
            Q = block.Q[0][:, part, part]
            if factor.root is not None:
                return _related_blocks(Q[0], factor.root, span)
            B, width = index.shape
            tiles = Q.reshape(B, width // span.q, span.q, width // span.q, span.q)
            own = tiles[:, np.arange(width // span.q), :, np.arange(width // span.q), :].transpose(1, 0, 2, 3)
            out[(index[:, :: span.q] - span.offset) // span.q] = own
    return out


def _related_blocks(Q: Array, root: Array, span: FactorColumns) -> Array:
    """Diagonal blocks of (L x I) Q (L x I)'."""
    half = np.einsum("kl,lamb->kamb", root, Q.reshape(span.K, span.q, span.K, span.q))
    return np.asarray(np.einsum("kamb,km->kab", half, root))


# -- rows --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class ProjectedRows:
    """Rows [z0; z_rest; x] after the first factor and the rest are taken out, on standardized columns.

    first : (q, n) L^-1 T' z0, or None where no factor comes first; codes : (n,) their levels of it
    rest : (n, m) d = z_rest - E_k' H_k z0, or None
    Xy : (n, s) x - C_k' H_k z0 - V' Q d, which is W^-1 V0^-1 x of rows of the design
    """

    first: Array | None
    codes: Codes | None
    rest: sp.csr_array | None
    Xy: Array


class PredictorRows:
    """Some rows on standardized columns, seen by factor.

    Xy : (n, s) the first s columns of [X y], standardized; Zs : (n, q) for every term in the order of the formula, on the user's
        columns; codes : (n,) levels, -1 leaves the term out
    """

    def __init__(self, problem: Problem, state: RandomEffectsState, Xy: Array, Zs: Sequence[Array], codes: Sequence[Codes]) -> None:
        self.levels = state.levels
        self.Xy = Xy
        self.z: list[Array] = []
        self.codes: list[Codes] = []
        for factor in state.parameters.factors:
            z = np.zeros((len(Xy), factor.q))
            for i, own in zip(factor.terms, factor.slices, strict=True):
                z[:, own] = np.where(codes[i][:, None] >= 0, Zs[i] @ problem.standardization.maps[i].whole, 0.0)
            self.z.append(z)
            self.codes.append(np.maximum(codes[factor.terms[0]], 0))

    def project(self) -> ProjectedRows:
        """What is left of the rows."""
        levels, size = self.levels, self.Xy.shape[1]
        first, h, d, Xy = None, None, None, self.Xy
        if levels.first is not None:
            h, first, Xy = self._through_first(levels)
        if levels.rest is not None:
            d = self._rest_rows(levels, h)
            Xy = Xy - np.asarray(d @ levels.rest.QV[0, :, :size])
        return ProjectedRows(first, None if first is None else self.codes[0], d, Xy)

    def variances(self) -> Array:
        """(n,) of [x] without y, in units of sigma^2."""
        levels, seen = self.levels, self.project()
        total = np.einsum("nx,nx->n", seen.Xy @ levels.solution.information_inverse[0], seen.Xy)
        if seen.first is not None:
            total += np.einsum("an,an->n", seen.first, seen.first)
        if seen.rest is not None and levels.rest is not None:
            rest = levels.rest
            total += rest.quadratic_forms(seen.rest) if isinstance(rest, IterativeSchur) else _quadratic(rest, seen.rest)
        return np.asarray(total)

    def variances_by_level(self) -> Array:
        """The same where `_shares_levels`: with r = z_rest, d = r - sum_a h_a E_a of the level, so that d' Q d needs E_a Q of each level.

        d' Q d = r' Q r - 2 sum_a h_a (E_a Q) r + sum_ab h_a h_b E_a Q E_b'
        """
        levels = self.levels
        rest, coupling = levels.rest, levels.cross.coupling
        assert isinstance(rest, SchurComplement) and isinstance(coupling, DenseOffDiagonal | SparseOffDiagonal)
        h, first, X = self._through_first(levels)
        index = rest.layout.batches[0].index[0]
        Q, QV = rest.blocks[0].Q[0, 0], rest.QV[0, :, : X.shape[1]]
        place = np.empty(len(index), np.int64)
        place[index] = np.arange(len(index))
        columns, z = self._rest_entries()
        total = np.einsum("an,an->n", first, first)
        own = place[columns]
        for a, left in enumerate(z.T):
            X = X - left[:, None] * QV[columns[:, a]]
            for b, right in enumerate(z.T):
                total += left * right * Q[own[:, a], own[:, b]]
        order = np.argsort(self.codes[0], kind="stable")
        step = max(1, BLOCK_ELEMENTS // (len(index) * coupling.q))
        K = int(self.codes[0].max()) + 1
        bounds = np.searchsorted(self.codes[0][order], np.append(np.arange(0, K, step), K))
        for number, (begin, stop) in enumerate(pairwise(bounds)):
            rows, low = order[begin:stop], number * step
            k, above = self.codes[0][rows] - low, min(low + step, K)
            E = [_dense_rows(coupling, a, slice(low, above))[:, index] for a in range(coupling.q)]
            for a, Ea in enumerate(E):
                EQ = Ea @ Q
                total[rows] -= 2.0 * h[rows, a] * np.einsum("nw,nw->n", z[rows], EQ[k[:, None], own[rows]])
                X[rows] += h[rows, a, None] * (Ea @ QV[index])[k]
                for b, Eb in enumerate(E):
                    total[rows] += h[rows, a] * h[rows, b] * np.einsum("km,km->k", EQ, Eb)[k]
        return np.asarray(total + np.einsum("nx,nx->n", X @ levels.solution.information_inverse[0], X))

    def _rest_entries(self) -> tuple[Codes, Array]:
        """Columns (n, w) of z_rest that are not 0 and their values (n, w)."""
        assert self.levels.rest is not None
        spans = self.levels.rest.layout.spans
        columns = [span.offset + k[:, None] * span.q + np.arange(span.q) for span, k in zip(spans, self.codes[1:], strict=True)]
        return np.concatenate(columns, axis=1), np.concatenate(self.z[1:], axis=1)

    def _through_first(self, levels: BlockedCholesky) -> tuple[Array, Array, Array]:
        """h = H_k z0 (n, q), L^-1 T' z0 (q, n), and x - C_k' h."""
        assert levels.first is not None
        assert levels.cross.first is not None
        k, z = self.codes[0], self.z[0]
        W = levels.first.W[:, :, 0, k]
        Wz = np.einsum("abn,nb->an", W, z)
        h = np.einsum("abn,an->nb", W, Wz)
        Xy = self.Xy - np.einsum("axn,na->nx", levels.cross.first.C[:, : self.Xy.shape[1], k], h)
        return h, Wz, Xy

    def _rest_rows(self, levels: BlockedCholesky, h: Array | None) -> sp.csr_array:
        """z_rest - E_k' H_k z0, (n, m)."""
        assert levels.rest is not None
        n, skip = len(self.Xy), int(levels.first is not None)
        blocks = []
        spans, factors = levels.rest.layout.spans, levels.cross.rest_factors
        for span, factor, z, k in zip(spans, factors, self.z[skip:], self.codes[skip:], strict=True):
            columns = (k[:, None] * span.q + np.arange(span.q)).ravel()
            block = sp.csr_array((z.ravel(), columns, np.arange(0, n * span.q + 1, span.q)), shape=(n, span.K * span.q))
            if factor.root is not None:
                block = sp.csr_array(block @ sp.csr_array(sp.kron(sp.csr_array(factor.root), sp.eye_array(span.q))))
            blocks.append(block)
        out = sp.csr_array(sp.hstack(blocks))
        coupling = levels.cross.coupling
        if h is not None and coupling is not None:
            for a in range(coupling.q):
                E = (
                    sp.csr_array(coupling.E[a][self.codes[0]])
                    if isinstance(coupling, DenseOffDiagonal)
                    else coupling.columns[a][self.codes[0]]
                )
                out = sp.csr_array(out - sp.diags_array(h[:, a]) @ E)
        return out


def _dense_rows(coupling: DenseOffDiagonal | SparseOffDiagonal, a: int, levels: slice) -> Array:
    """E_a of some levels of the first factor, (k, m)."""
    return coupling.E[a][levels] if isinstance(coupling, DenseOffDiagonal) else coupling.columns[a][levels].toarray()


def _quadratic(rest: SchurComplement, d: sp.csr_array) -> Array:
    """d' Q d of every row."""
    total = np.zeros(d.shape[0])
    by_column = d.tocsc()
    for batch, block in zip(rest.layout.batches, rest.blocks, strict=True):
        B, s = batch.index.shape
        own = by_column[:, batch.index.ravel()]
        if B == 1:
            dense = own.toarray()
            total += np.einsum("nm,nm->n", dense @ block.Q[0, 0], dense)
        else:
            Q = sp.bsr_array((block.Q[0], np.arange(B), np.arange(B + 1)), shape=(B * s, B * s))
            total += np.asarray(own.multiply(own @ Q).sum(axis=1)).ravel()
    return total
