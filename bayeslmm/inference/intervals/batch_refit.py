"""Refits of one model to many responses side by side, from cross-products of the responses; their t tests.

Every replicate starts at the estimate of the fit with its Newton matrix and goes on by BFGS; an iteration evaluates all that are not done
in one call of the kernel. What has not settled, or has settled on a boundary that is none, is fitted by itself.

Satterthwaite's degrees of freedom are those of one fit: f(x, log sigma) is the criterion before sigma is profiled out, its Hessian by
central differences of the analytic gradient, var(v) of the variance v of a function by the delta method, df = 2 v^2 / var(v).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, concatenate_fields
from bayeslmm.data.design import Design
from bayeslmm.estimate.batch_descent import BatchFits, BatchValues, DescentRule, descend_together, inverse_newton_matrix, lowest_ends
from bayeslmm.estimate.checks import NULL_DIRECTION
from bayeslmm.inference.intervals.batch_structured import Kinds, Points, ReplicateSums, SubjectGroup
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.blocked import evaluate_blocked
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts, Factor
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.random_effects.level_blocks import BlockDiagonal
from bayeslmm.likelihood.structured.blocks import pool_by_pattern
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from bayeslmm.likelihood.structured.residual_covariance import parameter_units, typical_sd
from bayeslmm.likelihood.threads import one_thread


def standardize_response(problem: Problem, Y: Array) -> Array:
    """Responses (n, B) or (n,) on the standardized scale."""
    c, design = problem.standardization, problem.design
    mean = design.near_X @ c.near_alpha0
    if design.offset is not None:
        mean = mean + design.offset
    return np.asarray((Y - (mean if Y.ndim == 1 else mean[:, None])) / c.y_scale)


def with_response(problem: Problem, design: Design) -> Problem:
    """The problem of a design that differs in its response alone; X, Z and what depends on them are shared."""
    y = standardize_response(problem, design.y)
    kernel = problem.criterion.kernel
    if isinstance(kernel, RandomEffectsKernel):
        return replace(problem_of_products(problem, ResponseProducts.of(problem, y[:, None]), 0), design=design)
    assert isinstance(kernel, BlockDiagonalKernel)
    Xy = kernel.data.Xy.copy()
    Xy[:, -1] = y
    groups = [pool_by_pattern(problem.design, batch.rows, Xy[batch.rows]) for batch in kernel.data.pooled_rows]
    data = replace(kernel.data, Xy=Xy, pooled=tuple(group for group in groups if group is not None))
    return replace(problem, design=design, criterion=replace(problem.criterion, kernel=replace(kernel, data=data)))


@dataclass(frozen=True, slots=True, eq=False)
class BatchPoint:
    """The criterion of t responses, each at an x of its own: (t,), (t, size), (t,), (t, p)."""

    value: Array
    gradient: Array
    sigma2: Array
    alpha: Array
    state: RandomEffectsState


def evaluate_responses(criterion: Criterion, products: ResponseProducts, which: Codes, x: Array, restricted: bool) -> BatchPoint:
    """Value and gradient of the criterion for responses `which`, at x (t, size)."""
    kernel = criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    levels = evaluate_blocked(products.repeat_for(which), kernel.parameters.blocks(x))
    state = RandomEffectsState(kernel.parameters, x, levels)
    sigma2 = criterion.sigma2_of(state.solution.r2, criterion.df(restricted))
    logdet, r2 = state.gradients(restricted)
    value = criterion.of_solution(state.solution, restricted)
    return BatchPoint(value, logdet + r2 / sigma2[:, None], sigma2, state.solution.alpha, state)


def evaluate_values(criterion: Criterion, products: ResponseProducts, which: Codes, x: Array, restricted: bool) -> Array:
    """The criterion alone, (t,), for responses `which`, at x (t, size)."""
    kernel = criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    levels = evaluate_blocked(products.repeat_for(which), kernel.parameters.blocks(x), derivatives=False)
    return criterion.of_solution(RandomEffectsState(kernel.parameters, x, levels).solution, restricted)


LIFTED_SD = 0.2
"""Relative standard deviation put where the fit has 0: at 0 itself a gradient sees nothing."""


def refit_many(problem: Problem, Y: Array, restricted: bool, start: Array) -> BatchFits:
    """Fit responses Y (n, B), standardized, from x = start."""
    return refit_products(problem, ResponseProducts.of(problem, Y), restricted, start)


def refit_products(problem: Problem, products: ResponseProducts, restricted: bool, start: Array) -> BatchFits:
    """Fit responses known by their cross-products, from x = start."""
    parts = []
    with one_thread(problem.criterion.width):
        inverse = inverse_newton_matrix(problem.criterion, start, restricted)
        for begin in range(0, products.count, products.step):
            which = np.arange(begin, min(begin + products.step, products.count))
            inverses, starts = np.tile(inverse, (len(which), 1, 1)), np.tile(start, (len(which), 1))
            parts.append(descend_responses(problem, products, which, restricted, starts, inverses))
    return concatenate_fields(parts)


def problem_of_products(problem: Problem, products: ResponseProducts, b: int) -> Problem:
    """The problem of one response that is known by its cross-products; its design's rows keep the response they had."""
    kernel = problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, cross=products.one(b))))


def lift_off_boundary(problem: Problem, x: Array) -> Array:
    """x with the null directions of every term's T lifted to `LIFTED_SD` of the errors."""
    out, sd = x.copy(), LIFTED_SD * typical_sd(problem, x)
    for term in problem.random.terms:
        T = term.covariance.factor(x[term.part])
        left, sizes, right = np.linalg.svd(T)
        if sizes.min(initial=np.inf) < sd * 1e-2:
            lifted = (left * np.maximum(sizes, sd)) @ right
            out[term.part] = term.covariance.from_matrix(lifted @ lifted.T)
    return out


def descend_responses(
    problem: Problem, products: ResponseProducts, which: Codes, restricted: bool, start: Array, inverse: Array
) -> BatchFits:
    """BFGS for responses `which` side by side, from x = start (B, size) with inverse Newton matrices (B, size, size)."""
    criterion = problem.criterion

    def at(rows: Codes, where: Array) -> BatchValues:
        found = evaluate_responses(criterion, products, which[rows], where, restricted)
        return BatchValues(found.value, found.gradient)

    def values_at(rows: Codes, where: Array) -> Array:
        return evaluate_values(criterion, products, which[rows], where, restricted)

    ends = lowest_ends(problem, restricted, at, descend_together(at, start, inverse, DescentRule()), DescentRule(), values_at)
    point = evaluate_responses(criterion, products, which, ends.x, restricted)
    settled = ends.done & _are_optima(problem, products, which, ends.x, restricted)
    return BatchFits(ends.x, point.sigma2, point.alpha, ends.point.value, settled)


def _are_optima(problem: Problem, products: ResponseProducts, which: Codes, x: Array, restricted: bool) -> NDArray[np.bool_]:
    """Whether each replicate's boundary, where it is at one, is an optimum: no null direction of Sigma along which the criterion falls."""
    parameters = problem.random
    singular = np.zeros(len(x), bool)
    for term in parameters.terms:
        singular |= np.linalg.svd(term.covariance.factor(x[:, term.part]), compute_uv=False).min(axis=-1) < 1e2 * NULL_DIRECTION
    good = np.ones(len(x), bool)
    rows = np.flatnonzero(singular)
    if len(rows) == 0:
        return good
    point = evaluate_responses(problem.criterion, products, which[rows], x[rows], restricted)
    information = point.state.levels.information(restricted)
    for f, (factor, T) in enumerate(zip(parameters.factors, point.state.levels.Ts, strict=True)):
        G = information[f] - point.state.levels.squares[f] / point.sigma2[:, None, None]
        for own in factor.slices:
            good[rows] &= _slopes(G[:, own, own], T[:, own, own]) >= -1e-6 * np.maximum(1.0, np.abs(point.value))
    return good


def _slopes(G: Array, T: Array) -> Array:
    """The smallest derivative along the null directions of each T, (t,); 0 where there are none."""
    left, sizes, _ = np.linalg.svd(T)
    null = left * (sizes < 1e2 * NULL_DIRECTION)[:, None, :]
    return np.minimum(np.linalg.eigvalsh(null.transpose(0, 2, 1) @ (0.5 * (G + G.transpose(0, 2, 1))) @ null).min(axis=-1), 0.0)


RESPONSE_ELEMENTS = 400_000
"""Entries of [Z' W y] held at once when many responses are evaluated together: what stays in a processor's cache."""


@dataclass(frozen=True, eq=False)
class ResponseProducts:
    """What many responses share with the columns.

    Xy : (p, B), yy : (B,); first : (q, K, B) Z'Wy of the first factor, rest : (m, B) of the others
    """

    cross: CrossProducts
    Xy: Array
    yy: Array
    first: Array | None
    rest: Array | None

    @classmethod
    def of(cls, problem: Problem, Y: Array) -> ResponseProducts:
        """One pass over the rows; Y (n, B) standardized."""
        kernel, design, c = problem.criterion.kernel, problem.design, problem.standardization
        assert isinstance(kernel, RandomEffectsKernel)
        everything = slice(0, len(Y))
        w = c.weights(design, everything)
        weighted = Y if w is None else Y * w[:, None]
        X = c.Xy(design, everything)[:, :-1]
        cross = kernel.cross
        blocks = [_level_products(problem, factor, weighted) for factor in cross.factors]
        first = blocks[0] if cross.first is not None else None
        others = blocks[int(cross.first is not None) :]
        rest = np.concatenate([b.transpose(1, 0, 2).reshape(-1, Y.shape[1]) for b in others]) if others else None
        return cls(cross, X.T @ weighted, np.einsum("nb,nb->b", Y, weighted), first, rest)

    @property
    def count(self) -> int:
        return len(self.yy)

    def some(self, which: Codes) -> ResponseProducts:
        """The products of some of the responses."""
        first = None if self.first is None else self.first[..., which]
        rest = None if self.rest is None else self.rest[:, which]
        return ResponseProducts(self.cross, self.Xy[:, which], self.yy[which], first, rest)

    def one(self, b: int) -> CrossProducts:
        """The cross-products of one response."""
        found = self._make_crossed(np.array([b]))
        first = None if found.first is None else BlockDiagonal(found.first.A, np.ascontiguousarray(found.first.C[:, 0]))
        return replace(found, Xy=found.Xy[0], first=first, V0=None if found.V0 is None else found.V0[0])

    def repeat_for(self, which: Codes) -> CrossProducts:
        """The cross-products of some responses, one for each theta."""
        return self._make_crossed(which)

    @cached_property
    def step(self) -> int:
        """How many responses are worked on at once."""
        cross = self.cross
        size = 0 if cross.first is None else cross.first.A.shape[0] * cross.first.K
        size += 0 if cross.rest is None else cross.rest.m + cross.rest.flat
        return max(1, RESPONSE_ELEMENTS // max(1, size * (cross.p + 1)))

    def _make_crossed(self, which: Codes) -> CrossProducts:
        cross, p, t = self.cross, self.cross.p, len(which)
        Xy = np.empty((t, p + 1, p + 1))
        Xy[:, :p, :p] = cross.Xy[:p, :p]
        Xy[:, p, :p] = Xy[:, :p, p] = self.Xy[:, which].T
        Xy[:, p, p] = self.yy[which]
        first = None
        if cross.first is not None and self.first is not None:
            q, K = cross.first.q, cross.first.K
            C = np.empty((q, t, p + 1, K))
            C[:, :, :p] = cross.first.C[:, None, :p]
            C[:, :, p] = self.first[:, :, which].transpose(0, 2, 1)
            first = BlockDiagonal(cross.first.A, C)
        V0 = None
        if cross.V0 is not None and self.rest is not None:
            V0 = np.empty((t, *cross.V0.shape))
            V0[:, :, :p] = cross.V0[:, :p]
            V0[:, :, p] = self.rest[:, which].T
        return replace(cross, Xy=Xy, first=first, V0=V0)


def _level_products(problem: Problem, factor: Factor, weighted: Array) -> Array:
    """Z'Wy of a factor by level, (q, K, B), the columns of its relationship matrix's root included."""
    design, c = problem.design, problem.standardization
    n = len(weighted)
    codes = design.terms[factor.terms[0]].group.codes
    found = []
    for i in factor.terms:
        for column in c.maps[i].apply(design.terms[i].Z).T:
            by_level = sp.csr_array((column, (codes, np.arange(n))), shape=(factor.K, n))
            products = by_level @ weighted
            found.append(products if factor.root is None else factor.root.T @ products)
    return np.stack(found)


STEP = 1e-3
"""Step of the differences in standard errors of x."""


@dataclass(frozen=True, slots=True, eq=False)
class FunctionTests:
    """Estimates, standard errors and degrees of freedom of q functions, (B, q) each."""

    estimate: Array
    std_error: Array
    df: Array


def responses(groups: tuple[SubjectGroup, ...], subject_y: Array, weights: Array | None = None) -> ReplicateSums:
    """Sums of replicates that differ in their responses.

    subject_y : one array (B, n, k) for each group of subjects would not be of one shape: (B, rows) on the conditioned scale, rows in the
        order of the groups, subject by subject; weights : (B, subjects) how often each subject counts, or None
    """
    B, begin, kinds, rows = len(subject_y), 0, [], np.zeros(len(subject_y))
    for group in groups:
        n, k, r = group.Xy.shape
        p, C = r - 1, group.block.shape[0]
        Y = subject_y[:, begin : begin + n * k].reshape(B, n, k)
        begin += n * k
        X = group.Xy[..., :p]
        member = np.zeros((n, C))
        member[np.arange(n), group.kind] = 1.0
        own = np.ones((1, n)) if weights is None else weights[:, group.subjects]
        XX = (X[:, :, None, :, None] * X[:, None, :, None, :]).reshape(n, k * k, p * p)
        counted = own[:, :, None] * member
        shared = np.einsum("bnc,nx->bcx", counted, XX.reshape(n, -1), optimize=True).reshape(len(own), C, k * k, p * p)
        XY, YY = np.empty((B, C, k * k, p)), np.empty((B, C, k * k))
        for c in range(C):
            i = np.flatnonzero(group.kind == c)
            w = np.ones((1, len(i))) if weights is None else own[:, i]
            scaled = Y[:, i] * w[..., None]
            cross = np.einsum("bil,ikp->bklp", scaled, X[i], optimize=True)
            XY[:, c] = (0.5 * (cross + cross.swapaxes(1, 2))).reshape(B, k * k, p)
            YY[:, c] = np.einsum("bik,bil->bkl", scaled, Y[:, i], optimize=True).reshape(B, k * k)
        count = np.broadcast_to(counted.sum(axis=1), (B, C))
        kinds.append(Kinds(group.block, count, shared, XY, YY))
        rows += k * own.sum(axis=1)
    return ReplicateSums(tuple(kinds), rows)


def grouped_rows(problem: Problem) -> Codes:
    """Rows of the design in the order in which `responses` takes them."""
    kernel = problem.structured
    assert kernel is not None
    return np.concatenate([batch.rows.ravel() for batch in (*kernel.data.rows, *kernel.data.pooled_rows)])


type PointsAt = Callable[[Array], Points]
"""The criterion of every replicate at x (B, size) of its own."""


def points_of_responses(problem: Problem, products: ResponseProducts, restricted: bool) -> PointsAt:
    """The points of a model of random effects for many responses."""

    def some(which: Codes, x: Array) -> Points:
        found = evaluate_responses(problem.criterion, products, which, x, restricted)
        solution = found.state.solution
        r2 = found.state.gradients(restricted)[1]
        return Points(found.value, found.gradient, found.sigma2, found.alpha, solution.information_inverse, r2, solution.r2)

    def at(x: Array) -> Points:
        parts = [np.arange(begin, min(begin + products.step, len(x))) for begin in range(0, len(x), products.step)]
        return concatenate_fields([some(which, x[which]) for which in parts])

    return at


def function_tests(problem: Problem, at: PointsAt, x: Array, rows: Array | float, L: Array, df: str) -> FunctionTests:
    """Tests of L (1 or B, q, p) on the user's columns at the estimates x (B, size).

    rows : numbers of rows, for df="residual"; df : "satterthwaite", "residual" or "asymptotic"
    """
    point = at(x)
    c = problem.standardization
    own = np.broadcast_to(L @ c.back, (len(x), L.shape[1], L.shape[2]))
    unit = np.einsum("bqp,bpr,bqr->bq", own, point.C, own, optimize=True)
    estimate = np.einsum("bqp,bp->bq", np.broadcast_to(L, own.shape), problem.alpha(point.alpha))
    std_error = np.sqrt(np.maximum(unit * point.sigma2[:, None], 0.0)) * c.y_scale * np.sqrt(c.weight_mean)
    if df == "asymptotic":
        return FunctionTests(estimate, std_error, np.full_like(unit, np.inf))
    if df == "residual":
        left = np.broadcast_to(rows, (len(x),)) - problem.criterion.p
        return FunctionTests(estimate, std_error, np.broadcast_to(left[:, None], unit.shape))
    return FunctionTests(estimate, std_error, satterthwaite_df(problem, at, x, point, own, unit))


def satterthwaite_df(problem: Problem, at: PointsAt, x: Array, point: Points, own: Array, unit: Array) -> Array:
    """Degrees of freedom (B, q) of functions own (B, q, p) of standardized coefficients, whose variance over sigma^2 is unit (B, q)."""
    B, size = x.shape
    steps = _steps(problem, x)
    H, slopes = np.zeros((B, size + 1, size + 1)), np.zeros((B, unit.shape[1], size + 1))
    for i in range(size):
        move = np.zeros_like(x)
        move[:, i] = steps[:, i]
        sides = [at(x + sign * move) for sign in (1.0, -1.0)]
        gradient = [s.gradient - s.r2_gradient / s.sigma2[:, None] + s.r2_gradient / point.sigma2[:, None] for s in sides]
        H[:, i, :size] = (gradient[0] - gradient[1]) / (2.0 * steps[:, i : i + 1])
        moved = [np.einsum("bqp,bpr,bqr->bq", own, s.C, own, optimize=True) for s in sides]
        slopes[:, :, i] = (moved[0] - moved[1]) / (2.0 * steps[:, i : i + 1])
    H[:, :size, :size] = 0.5 * (H[:, :size, :size] + H[:, :size, :size].swapaxes(1, 2))
    H[:, size, :size] = H[:, :size, size] = -2.0 * point.r2_gradient / point.sigma2[:, None]
    H[:, size, size] = 4.0 * point.r2 / point.sigma2
    slopes[:, :, size] = 2.0 * unit
    if problem.criterion.held is not None:
        H[:, size] = H[:, :, size] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = 2.0 * np.einsum("bqt,bts,bqs->bq", slopes, _inverse(H), slopes, optimize=True)
        return np.asarray(2.0 * unit**2 / spread)


def _steps(problem: Problem, x: Array) -> Array:
    middle = x.mean(axis=0)
    hessian, units = problem.criterion.at(middle, True).hessian, parameter_units(problem, middle)
    diagonal = np.ones(x.shape[1]) if hessian is None else np.diagonal(hessian) * units**2
    errors = np.sqrt(2.0 / np.where(diagonal > 0, diagonal, 1.0))
    return np.broadcast_to(units * np.clip(STEP * errors, 1e-7, 1e-2), x.shape)


def _inverse(H: Array) -> Array:
    """Inverses over the directions in which each Hessian curves."""
    good = np.isfinite(H).all((1, 2))
    values, vectors = np.linalg.eigh(np.where(good[:, None, None], H, np.eye(H.shape[-1])))
    kept = values > 1e-8 * values.max(axis=1, keepdims=True)
    inverse = (vectors * np.where(kept, 1.0 / np.where(kept, values, 1.0), 0.0)[:, None, :]) @ vectors.swapaxes(1, 2)
    return np.where(good[:, None, None], inverse, np.nan)
