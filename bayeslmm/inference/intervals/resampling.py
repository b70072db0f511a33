"""Resampled designs, reweighted subjects, and responses drawn from the model as their cross-products.

A level that is drawn twice becomes two levels, and so do the levels of every factor nested in it; factors that cross it keep theirs.

Structures over visits are refitted side by side from sums; structures over places, whose blocks are all different, one after the other.

Responses: with e ~ N(0, sigma^2 W^-1), u = [X Z]'W e is normal with covariance sigma^2 C, C = [X Z]'W[X Z], and e'We is sigma^2 (|z|^2 +
chi^2 with n - rank C degrees of freedom) where u = sigma C^(1/2) z. The root of C follows its blocks: the first factor's levels by
themselves, the components of the other factors given these, X given both. So a response of a million rows costs as much as its random
effects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bayeslmm._arrays import Array, Codes, concatenate_fields, symmetric
from bayeslmm._validation import require_name
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import BayesLMMError, InferenceError
from bayeslmm.estimate.batch_descent import BatchFits
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.fixed_effects.degrees_of_freedom import grouping_factors, is_nested, top_factor
from bayeslmm.inference.intervals.batch_refit import ResponseProducts
from bayeslmm.inference.intervals.batch_structured import (
    ReplicateSums,
    descend,
    evaluate,
    parts,
    poolable,
    subject_groups,
    weigh_subjects,
    whole_sample,
    without_each,
)
from bayeslmm.likelihood.identification import full_rank, pivoted_root
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.off_diagonal import UnpairedOffDiagonal
from bayeslmm.likelihood.random_effects.schur import ComponentBatch
from bayeslmm.likelihood.structured.pooled import many_matrices
from bayeslmm.likelihood.structured.residual_structure import BlockRows
from bayeslmm.likelihood.threads import one_thread


def resampling_factor(design: Design, group: str | None) -> GroupingFactor | None:
    """The factor whose levels are drawn: the one named, the top one, or None where the model has no groups (rows are drawn then)."""
    factors = {factor.name: factor for factor in grouping_factors(design)}
    if group is not None:
        if require_name(group, "group") not in factors:
            remedy = "use one of " + ", ".join(map(repr, factors)) if factors else "leave it out: rows are drawn"
            raise InferenceError(f"the model has no grouping factor {group!r}", "group", remedy)
        return factors[group]
    if not factors:
        return None
    try:
        return top_factor(design, "the case bootstrap")
    except InferenceError as error:
        raise InferenceError(error.what, error.where, "say which factor to draw from: group=" + " or ".join(map(repr, factors))) from None


def resample_design(design: Design, factor: GroupingFactor | None, drawn: Codes) -> Design:
    """The design of levels `drawn` of a factor (of rows, without a factor), each as often as it occurs there."""
    if any(term.relationship is not None for term in design.terms):
        raise InferenceError(
            "levels with a known relationship matrix cannot be drawn anew",
            "the case bootstrap",
            "use kind='parametric', which draws from the model",
        )
    codes = np.arange(design.nobs) if factor is None else factor.codes
    rows, copy = _rows_of(codes, drawn)

    def keys(own: GroupingFactor) -> Codes:
        """Levels are told apart by draw where their factor lies within the one drawn from."""
        return own.codes[rows] + copy * (int(own.codes.max()) + 1) if is_nested(own.codes, codes) else own.codes[rows]

    return design.take(rows, keys)


def without(design: Design, rows: NDArray[np.bool_]) -> Design:
    """The design without some rows; levels that lose all of theirs are gone."""
    return design.take(np.flatnonzero(~rows))


def _rows_of(codes: Codes, drawn: Codes) -> tuple[Codes, Codes]:
    """Rows of the levels drawn, one draw after the other, and which draw each row belongs to."""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(int(codes.max()) + 2))
    counts = starts[drawn + 1] - starts[drawn]
    copy = np.repeat(np.arange(len(drawn)), counts)
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[starts[drawn][copy] + inside], copy


@dataclass(frozen=True, slots=True, eq=False)
class VisitParameters:
    """B sets of parameters on the user's scale.

    alpha : (B, p) of the columns kept; R : (B, G, m, m) covariance over the visits by group of parameters
    settled : (B,) whether each fit is to be believed
    """

    alpha: Array
    R: Array
    settled: NDArray[np.bool_]

    @property
    def size(self) -> int:
        return len(self.alpha)

    def take(self, which: Codes | NDArray[np.bool_]) -> VisitParameters:
        """Some sets, in an order."""
        return VisitParameters(self.alpha[which], self.R[which], self.settled[which])


def visit_parameters(problem: Problem, x: Array, sigma2: Array, alpha: Array, settled: NDArray[np.bool_] | None = None) -> VisitParameters:
    """Parameters on the user's scale from x (B, size), sigma^2 and alpha on conditioned columns."""
    kernel, residual = problem.structured, problem.design.residual
    assert kernel is not None and residual is not None
    R0 = many_matrices(kernel.structure, x[:, kernel.residual_part], visit_block(problem))
    scale = np.array([problem.sigma2(float(s)) for s in sigma2])
    return VisitParameters(problem.alpha(alpha), scale[:, None, None, None] * R0, np.ones(len(x), bool) if settled is None else settled)


def visit_block(problem: Problem) -> BlockRows:
    """Every group of parameters over all visits."""
    residual = problem.design.residual
    assert residual is not None
    groups = 1 if residual.group is None else residual.group.size
    if residual.visit is not None:
        m = len(residual.visit_levels)
        return BlockRows(np.tile(np.arange(m), (groups, 1)), None, np.repeat(np.arange(groups)[:, None], m, axis=1), None)
    assert residual.coords is not None
    places = np.unique(residual.coords, axis=0)
    distances = np.sqrt(((places[:, None] - places[None]) ** 2).sum(-1))
    m = len(places)
    return BlockRows(None, np.tile(distances, (groups, 1, 1)), np.repeat(np.arange(groups)[:, None], m, axis=1), None)


def refit_without_each(problem: Problem, start: Array, restricted: bool, progress: Callable[[int], None] | None = None) -> VisitParameters:
    """The fit without each subject of the design, in the order of its levels."""
    residual = problem.design.residual
    assert residual is not None
    N = residual.subject.size
    weights = 1.0 - np.eye(N)
    if not poolable(problem):
        return _one_by_one(problem, start, restricted, weights, progress)
    groups = subject_groups(problem)
    whole, cells = whole_sample(groups), sum(group.matrix_cells for group in groups)
    found = _in_parts(problem, cells, N, lambda part: without_each(groups, whole, part, np.arange(N)), start, restricted, progress)
    return _settle_by_rows(problem, start, restricted, weights, found)


def fits_without_each(problem: Problem, level_of: Codes, size: int, start: Array, restricted: bool) -> Iterator[tuple[BatchFits, Array]]:
    """The fits without each of the levels 0 .. size - 1, in parts, with their (X' V0^-1 X)^-1 (b, p, p), on conditioned columns.

    level_of : (subjects,) the level of each subject of a problem that is `poolable`
    """
    groups = subject_groups(problem)
    whole = whole_sample(groups)
    for part in parts(size, sum(group.matrix_cells for group in groups)):
        with one_thread():
            sums = without_each(groups, whole, part, level_of)
            fits = descend(problem, sums, start, restricted)
            C = evaluate(problem, sums, fits.x, restricted).C
        yield fits, C


def fit_reweighted_subjects(
    problem: Problem, start: Array, restricted: bool, weights: Array, progress: Callable[[int], None] | None = None
) -> VisitParameters:
    """The fits in which subject i counts weights[b, i] times."""
    if not poolable(problem):
        return _one_by_one(problem, start, restricted, weights, progress)
    groups = subject_groups(problem)
    cells = sum(group.cells for group in groups)
    found = _in_parts(problem, cells, len(weights), lambda part: weigh_subjects(groups, weights[part]), start, restricted, progress)
    return _settle_by_rows(problem, start, restricted, weights, found)


def _in_parts(
    problem: Problem,
    cells: int,
    B: int,
    sums: Callable[[Codes], ReplicateSums],
    start: Array,
    restricted: bool,
    progress: Callable[[int], None] | None,
) -> VisitParameters:
    found = []
    with one_thread():
        for part in parts(B, cells):
            fits = descend(problem, sums(part), start, restricted)
            found.append(visit_parameters(problem, fits.x, fits.sigma2, fits.alpha, fits.settled))
            if progress is not None:
                progress(int(part[-1]) + 1)
    return concatenate_fields(found)


def _settle_by_rows(problem: Problem, start: Array, restricted: bool, weights: Array, found: VisitParameters) -> VisitParameters:
    """The sets that have not settled, fitted by themselves to rows: near a singular R sums lack the digits that tell ends apart."""
    rest = np.flatnonzero(~found.settled)
    if not len(rest):
        return found
    order = np.arange(found.size)
    order[rest] = found.size + np.arange(len(rest))
    return concatenate_fields([found, _one_by_one(problem, start, restricted, weights[rest], None)]).take(order)


def _one_by_one(
    problem: Problem, start: Array, restricted: bool, weights: Array, progress: Callable[[int], None] | None
) -> VisitParameters:
    design = problem.design
    assert design.residual is not None
    found = []
    for b, own in enumerate(weights):
        drawn = np.repeat(np.arange(len(own)), own.astype(np.int64))
        try:
            again = resample_design(design, design.residual.subject, drawn)
            if not full_rank(again.X):
                raise np.linalg.LinAlgError("columns of X are collinear in the rows drawn")
            other = build_problem(again)
            outcome, _ = search(other, restricted, start)
            point = outcome.point
            assert point.state is not None
            one = visit_parameters(
                problem, point.x[None], np.array([other.sigma2(point.sigma2) / problem.sigma2(1.0)]), point.state.solution.alpha
            )
            found.append(VisitParameters(other.alpha(point.state.solution.alpha), one.R, np.array([outcome.converged])))
        except (BayesLMMError, np.linalg.LinAlgError, AssertionError):
            lost = visit_parameters(problem, start[None], np.ones(1), np.zeros((1, problem.criterion.p)))
            found.append(VisitParameters(np.full_like(lost.alpha, np.nan), np.full_like(lost.R, np.nan), np.zeros(1, bool)))
        if progress is not None:
            progress(b + 1)
    return concatenate_fields(found)


DRAWN_ELEMENTS = 4_000_000
"""Entries of [Z' W y] that are drawn at once."""

ROOT_ROUNDING = 1e3 * float(np.finfo(float).eps)
"""Rounding of a difference of sums, relative to these: what is left below it is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class SemidefiniteRoot:
    """S = R R' of a positive semi-definite matrix from its pivoted Cholesky factor.

    R : (s, rank); pivots : (rank,) rows of R that are lower triangular
    """

    R: Array
    pivots: Codes

    @classmethod
    def of(cls, S: Array, scale: float) -> SemidefiniteRoot:
        """scale : size of what S is a difference of, which tells zeros from rounding."""
        s = len(S)
        if not s:
            return cls(np.zeros((0, 0)), np.zeros(0, np.int64))
        return cls(*pivoted_root(S, s * ROOT_ROUNDING * scale))

    def scores(self, M: Array) -> Array:
        """B (.., rank) with B R' = M, where the rows of M (.., s) lie in the space of S."""
        if not len(self.pivots):
            return np.zeros((len(M), 0))
        return np.asarray(solve_triangular(self.R[self.pivots], M[:, self.pivots].T, lower=True, check_finite=False).T)


@dataclass(frozen=True, slots=True, eq=False)
class ComponentRoots:
    """Components of the other factors' columns, all of one shape, given the first factor.

    index : (B, s) columns; own : (B, s, s) their cross-products; root : (B, s, s) of what is left of these given the first factor, columns
    beyond its rank 0; X : (p, B, s) what X has in common with the variates behind `root`
    """

    index: Codes
    own: Array
    root: Array
    X: Array


@dataclass(frozen=True, slots=True, eq=False)
class ColumnValues:
    """A number for every column and response: X (p, B), first (q, K, B) of the first factor, rest (m, B) of the others."""

    X: Array
    first: Array
    rest: Array

    def dot(self, other: ColumnValues) -> Array:
        """Sums of products over the columns, (B,)."""
        pairs = ((self.X, other.X), (self.first, other.first), (self.rest, other.rest))
        return np.asarray(sum((a * b).reshape(-1, a.shape[-1]).sum(axis=0) for a, b in pairs))

    def plus(self, factor: float, other: ColumnValues) -> ColumnValues:
        """These and `factor` times others."""
        return ColumnValues(self.X + factor * other.X, self.first + factor * other.first, self.rest + factor * other.rest)


@dataclass(frozen=True, slots=True, eq=False)
class ProductSampler:
    """Draws of the cross-products of responses.

    root : (q, q, K) root of every level's Z'WZ; inverse : (q, q, K) that of its pseudo-inverse; components : the other factors'
    X_root : (p, rank) given all random columns; kept_first (q, K), kept_rest (m,) : 0 where a block has no more rank
    """

    problem: Problem
    cross: CrossProducts
    root: Array
    inverse: Array
    components: tuple[ComponentRoots, ...]
    X_root: Array
    kept_first: Array
    kept_rest: Array

    @classmethod
    def of(cls, problem: Problem) -> ProductSampler:
        """The root of C, found once, for models without structured errors whose cross-products are laid out in blocks."""
        cross, p = laid_out(problem), problem.criterion.p
        XX = cross.Xy[:p, :p].copy()
        A, fixed = (np.zeros((0, 0, 0)), np.zeros((0, p, 0))) if cross.first is None else (cross.first.A, cross.first.fixed_products(p))
        root, inverse, kept = _level_roots(A)
        whitened = np.einsum("ack,apk->cpk", inverse, fixed)
        XX -= np.tensordot(whitened, whitened, ([0, 2], [0, 2]))
        found: list[ComponentRoots] = []
        kept_rest = np.zeros(0 if cross.V0 is None else len(cross.V0))
        if cross.rest is not None and cross.U0 is not None and cross.V0 is not None:
            left, common = cross.U0, cross.V0[:, :p].T
            if cross.coupling is not None:
                assert not isinstance(cross.coupling, UnpairedOffDiagonal)
                left = left - cross.coupling.schur(inverse.transpose(1, 0, 2)[:, :, None])[0]
                projection = np.einsum("ack,cpk->apk", inverse, whitened)
                common = common - cross.coupling.transpose_times(projection[:, None])[0].T
            for batch in cross.rest.batches:
                one = _component_roots(batch, cross.U0, left, common, kept_rest)
                XX -= np.tensordot(one.X, one.X, ([1, 2], [1, 2]))
                found.append(one)
        last = SemidefiniteRoot.of(XX, float(np.diagonal(cross.Xy)[:p].max(initial=0.0)))
        return cls(problem, cross, root, inverse, tuple(found), last.R, kept, kept_rest)

    @property
    def step(self) -> int:
        """How many responses are drawn at once."""
        return max(1, DRAWN_ELEMENTS // max(1, 8 * (self.kept_first.size + self.kept_rest.size)))

    @property
    def rank(self) -> int:
        """Rank of [X Z]."""
        return int(self.kept_first.sum() + self.kept_rest.sum()) + len(self.X_root.T)

    def draw(self, x: Array, sigma2: float, alpha: Array, streams: Sequence[np.random.SeedSequence]) -> ResponseProducts:
        """One response for every stream of random numbers, at parameters on standardized columns: x (size,), sigma^2, alpha (p,)."""
        cross, sigma, B = self.cross, float(np.sqrt(sigma2)), len(streams)
        (q, K), m, r = self.kept_first.shape, len(self.kept_rest), self.X_root.shape[1]
        T = [own[0] for own in self.problem.random.blocks(x[None])]
        skip = int(cross.first is not None)
        beta = ColumnValues(np.tile(alpha[:, None], B), np.zeros((q, K, B)), np.zeros((m, B)))
        z = ColumnValues(np.empty((r, B)), np.empty((q, K, B)), np.empty((m, B)))
        squares = np.empty(B)
        for b, stream in enumerate(streams):
            rng = np.random.default_rng(stream)
            if skip:
                beta.first[..., b] = sigma * (T[0] @ rng.standard_normal((q, K)))
            others = [sigma * (rng.standard_normal((f.K, f.q)) @ own.T) for f, own in zip(cross.rest_factors, T[skip:], strict=True)]
            beta.rest[:, b] = np.concatenate([*(own.ravel() for own in others), np.zeros(0)])
            z.first[..., b] = self.kept_first * rng.standard_normal((q, K))
            z.rest[:, b] = self.kept_rest * rng.standard_normal(m)
            z.X[:, b] = rng.standard_normal(r)
            squares[b] = 2.0 * rng.standard_gamma(0.5 * max(cross.n - self.rank, 0))
        mean, errors = self._gram(beta), self._errors(z)
        found = mean.plus(sigma, errors)
        yy = beta.dot(mean.plus(2.0 * sigma, errors)) + sigma2 * (z.dot(z) + squares)
        return ResponseProducts(cross, found.X, yy, found.first if skip else None, None if cross.rest is None else found.rest)

    def _gram(self, beta: ColumnValues) -> ColumnValues:
        """C times coefficients."""
        cross, p = self.cross, self.cross.p
        X, first, rest = cross.Xy[:p, :p] @ beta.X, np.zeros_like(beta.first), np.zeros_like(beta.rest)
        if cross.first is not None:
            fixed = cross.first.fixed_products(p)
            X += np.tensordot(fixed, beta.first, ([0, 2], [0, 1]))
            first += np.einsum("ack,ckb->akb", cross.first.A, beta.first) + np.tensordot(fixed, beta.X, (1, 0))
        if cross.V0 is not None:
            X += cross.V0[:, :p].T @ beta.rest
            rest += cross.V0[:, :p] @ beta.X
            for part in self.components:
                rest[part.index] += part.own @ beta.rest[part.index]
        if cross.coupling is not None:
            first += cross.coupling.times(beta.rest[None])[:, 0].transpose(0, 2, 1)
            rest += cross.coupling.transpose_times(np.ascontiguousarray(beta.first.transpose(0, 2, 1)[:, None]))[0]
        return ColumnValues(X, first, rest)

    def _errors(self, z: ColumnValues) -> ColumnValues:
        """The root of C times standard normal variates."""
        cross = self.cross
        X, rest = self.X_root @ z.X, np.zeros_like(z.rest)
        first = np.einsum("ack,ckb->akb", self.root, z.first)
        projection = np.einsum("ack,ckb->akb", self.inverse, z.first)
        if cross.first is not None:
            X += np.tensordot(cross.first.fixed_products(cross.p), projection, ([0, 2], [0, 1]))
        if cross.coupling is not None:
            rest += cross.coupling.transpose_times(np.ascontiguousarray(projection.transpose(0, 2, 1)[:, None]))[0]
        for part in self.components:
            own = z.rest[part.index]
            rest[part.index] += part.root @ own
            X += np.tensordot(part.X, own, 2)
        return ColumnValues(X, first, rest)


def laid_out(problem: Problem) -> CrossProducts:
    """The cross-products of a problem without structured errors, in blocks."""
    kernel = problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel) and kernel.cross.remaining is None
    return kernel.cross


def _level_roots(A: Array) -> tuple[Array, Array, Array]:
    """Roots of A and of its pseudo-inverse for every level, (q, q, K), and (q, K) 1 up to its rank; A (q, q, K)."""
    values, vectors = np.linalg.eigh(A.transpose(2, 0, 1))
    kept = values > len(A) * ROOT_ROUNDING * values.max(axis=1, initial=0.0)[:, None]
    sizes = np.sqrt(np.where(kept, values, 1.0))[:, None] if len(A) else np.ones((len(values), 1, 0))
    root, inverse = (vectors * own * kept[:, None] for own in (sizes, 1.0 / sizes))
    return root.transpose(1, 2, 0), inverse.transpose(1, 2, 0), kept.T.astype(float)


def _component_roots(batch: ComponentBatch, own: Array, left: Array, common: Array, kept: Array) -> ComponentRoots:
    """Roots of components of one shape; own, left : flat storage; common : (p, m); kept : (m,) 1 is put for every variate in use."""
    index, s = batch.index, batch.index.shape[1]
    place = slice(batch.begin, batch.begin + batch.size)
    whole, left_out = (symmetric(flat[place].reshape(-1, s, s)) for flat in (own, left))
    roots, X = np.zeros(whole.shape), np.zeros((len(common), *index.shape))
    for i, columns in enumerate(index):
        one = SemidefiniteRoot.of(left_out[i], float(np.diagonal(whole[i]).max(initial=0.0)))
        rank = len(one.pivots)
        roots[i, :, :rank], X[:, i, :rank] = one.R, one.scores(common[:, columns])
        kept[columns[:rank]] = 1.0
    return ComponentRoots(index, whole, roots, X)
