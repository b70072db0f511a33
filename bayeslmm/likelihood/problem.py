"""A design made ready to be evaluated: standardization, cross-products, kernel and criterion, and the maps between x and theta."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import MAX_SIZE
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.spatial import SpatialCovariance
from bayeslmm.data.design import Design
from bayeslmm.errors import SpecificationError
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.parameters import RandomParameters, random_parameters
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, CrossProducts, cross_products, dense_remaining, factors_of
from bayeslmm.likelihood.random_effects.iterative import draw_probes
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState, Rows
from bayeslmm.likelihood.standardize import Standardization, standardize_rows
from bayeslmm.likelihood.starting_values import moment_start, range_start, residual_start, scoring_start
from bayeslmm.likelihood.structured.blocks import (
    PooledBatch,
    RowBatch,
    block_of,
    independent_blocks,
    is_poolable,
    order_rows,
    pool_by_pattern,
)
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, SubjectData, TermColumns
from bayeslmm.likelihood.structured.low_rank import LowRankKernel, is_low_rank
from bayeslmm.likelihood.structured.residual_structure import (
    GroupedStructure,
    IndependentErrors,
    VarianceFunction,
    residual_free,
    residual_natural,
    residual_structure,
    variance_function,
)
from bayeslmm.likelihood.threads import one_thread

CORRELATION_LIMIT = 4.5
"""Largest |z| of a correlation tanh(z): beyond it (0.9998) the correlation counts as 1."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that estimation and sampling need of a design, its rows read once.

    x is on the optimiser's axes, theta on the user's columns; both run over the terms in the order of the formula.
    sums : the cross-products as they were added up, where the rows were not kept: they can be laid out anew
    """

    design: Design
    standardization: Standardization
    criterion: Criterion
    random: RandomParameters
    begin: Callable[[], Array]
    sums: Accumulator | None = None

    @cached_property
    def start(self) -> Array:
        """x at which a search begins."""
        with one_thread(self.criterion.width):
            return self.begin()

    @property
    def size(self) -> int:
        return self.criterion.size

    def cross_products_for_many(self) -> CrossProducts:
        """The cross-products laid out for many theta at once."""
        if self.sums is not None:
            return self.sums.finish(small=False)
        return cross_products(self.design, self.standardization, small=False)

    @cached_property
    def axis_units(self) -> Array:
        """(size,) what a move of about 1 is for each parameter of x: those of a variance function are in the units of its covariate."""
        kernel, units = self.structured, np.ones(self.size)
        if kernel is not None and kernel.variance.size:
            slopes = kernel.variance.log_multiplier(kernel.variance.start())[1]
            largest = np.abs(slopes).max(axis=1)
            units[kernel.variance_part] = 1.0 / np.where(largest > 0.0, largest, 1.0)
        return units

    @property
    def structured(self) -> BlockDiagonalKernel | None:
        """The kernel of structured errors, where there are any."""
        kernel = self.criterion.kernel
        return kernel if isinstance(kernel, BlockDiagonalKernel) else None

    @property
    def held_fitted(self) -> Array | None:
        """(n,) fitted values, without the offset, that a variance function of them is given; None where there is none."""
        if self.structured is None:
            return None
        factors = zip(self.design.variance, self.structured.variance.values, strict=True)
        return next((values for factor, values in factors if factor.is_of_fitted), None)

    def with_fitted(self, fitted: Array) -> Problem:
        """The same with other fitted values for the variance function of them."""
        kernel = self.structured
        assert kernel is not None
        variance = replace(kernel.variance, values=variance_function(self.design, fitted).values)
        return replace(self, criterion=replace(self.criterion, kernel=replace(kernel, variance=variance)))

    @property
    def is_iterative(self) -> bool:
        """Whether one theta and one response is evaluated at a time, by sparse products."""
        kernel = self.criterion.kernel
        return isinstance(kernel, RandomEffectsKernel) and kernel.cross.remaining is not None

    @property
    def has_rows(self) -> bool:
        """Whether crossed effects so large that cross-products lose the residuals are evaluated by rows."""
        kernel = self.criterion.kernel
        return isinstance(kernel, RandomEffectsKernel) and kernel.rows is not None

    def is_diverging(self, x: Array) -> bool:
        """Whether a shape parameter on an unconstrained axis has left for infinity: a correlation at its bound, to four digits."""
        return bool(np.any(np.abs(x[self.shapes] - self._shape_origins(x)) > CORRELATION_LIMIT))

    @cached_property
    def nuggets(self) -> Codes:
        """Positions in x of the shares of variance that R's `+ local` adds."""
        kernel = self.structured
        if kernel is None or not isinstance(kernel.structure, GroupedStructure):
            return np.zeros(0, np.int64)
        parameters, size = kernel.structure.covariance.natural_parameters, kernel.structure.covariance.size
        own = np.array([k for k, parameter in enumerate(parameters) if parameter.kind == "nugget"], dtype=np.int64)
        return np.concatenate([kernel.residual_part.start - 1 + g * size + own for g in range(kernel.structure.groups)])

    @cached_property
    def shapes(self) -> Codes:
        """Positions in x of parameters that are neither scales nor entries of a factor."""
        found = [term.part.start + _shapes(term.covariance) for term in self.random.terms]
        kernel = self.structured
        if kernel is not None and isinstance(kernel.structure, GroupedStructure):
            size = kernel.structure.covariance.size
            every = np.concatenate([g * size + _shapes(kernel.structure.covariance) for g in range(kernel.structure.groups)])
            found.append(kernel.residual_part.start - 1 + every)
        if kernel is not None:
            found.append(kernel.variance_part.start + np.flatnonzero(kernel.variance.positive()))
        return np.concatenate([*found, np.zeros(0, np.int64)]).astype(np.int64)

    def _shape_origins(self, x: Array) -> Array:
        """What `shapes` are counted from: a range from a typical distance, so that the unit of places does not matter; others from 0."""
        origins = np.zeros(self.size)
        for term in self.random.terms:
            origins[term.part] = _origins(term.covariance)
        kernel = self.structured
        if kernel is not None:
            origins[kernel.variance_part] = kernel.variance.origins(x[kernel.variance_part])
        if kernel is not None and isinstance(kernel.structure, GroupedStructure):
            begin, covariance = kernel.residual_part.start - 1, kernel.structure.covariance
            every = np.tile(_origins(covariance), kernel.structure.groups)
            origins[begin + 1 : begin + len(every)] = every[1:]  # the first scale is sigma
        return origins[self.shapes]

    def theta(self, x: Array) -> Array:
        """theta of the random terms, then the natural parameters of R0 and of the variance function."""
        w = self.standardization.weight_mean
        parts = [term.theta(x[term.part], w) for term in self.random.terms]
        kernel = self.structured
        if kernel is not None:
            parts += [residual_natural(kernel.structure, x[kernel.residual_part]), kernel.variance.natural(x[kernel.variance_part])]
        return np.concatenate([*parts, np.zeros(0)])

    def x(self, theta: Array) -> Array:
        """The inverse of `theta`."""
        theta, w = np.asarray(theta, float), self.standardization.weight_mean
        parts = [term.x(theta[term.part], w) for term in self.random.terms]
        kernel = self.structured
        if kernel is not None:
            parts += [residual_free(kernel.structure, theta[kernel.residual_part]), kernel.variance.free(theta[kernel.variance_part])]
        return np.concatenate([*parts, np.zeros(0)])

    def relative_covariances(self, x: Array) -> list[Array]:
        """D / sigma^2 of every term on the user's columns."""
        return [term.relative(x[term.part], self.standardization.weight_mean) for term in self.random.terms]

    def sigma2(self, conditioned: float) -> float:
        """sigma^2 on the user's scale."""
        c = self.standardization
        return conditioned * c.y_scale**2 * c.weight_mean

    def alpha(self, conditioned: Array) -> Array:
        """Coefficients of the columns kept, on the user's scale."""
        c = self.standardization
        return np.asarray(c.alpha0 + c.y_scale * (conditioned @ c.back.T))

    def gradient_theta(self, theta: Array, restricted: bool) -> Array:
        """Derivative of the profiled criterion in theta; exact at singular theta too."""
        x = self.x(theta)
        point = self.criterion.at(x, restricted, order=1)
        w = self.standardization.weight_mean
        if point.state is None:
            return np.full(len(theta), np.nan)
        if isinstance(point.state, RandomEffectsState) and point.state.has_own_derivatives:
            return np.asarray(np.linalg.lstsq(self._jacobian(x, slice(0, self.size)).T, point.gradient, rcond=None)[0])
        out = np.zeros(len(theta))
        G = point.state.sigma_gradients(restricted, point.sigma2)
        for term, g in zip(self.random.terms, G, strict=True):
            user = term.map.inverse.T @ g @ term.map.inverse * w
            out[term.part] = np.einsum("ab,iab->i", user, term.theta_derivative(np.asarray(theta[term.part], float)))
        if self.structured is not None:
            errors = slice(self.random.size, self.size)
            out[errors] = np.linalg.lstsq(self._jacobian(x, errors).T, point.gradient[errors], rcond=None)[0]
        return out

    def _jacobian(self, x: Array, part: slice) -> Array:
        """d theta / d x of some parameters, by differences of the fourth order: a smooth map of each structure's own."""
        step = 1e-3 * np.eye(len(x))[part]
        near, far = ([self.theta(x + s * h)[part] - self.theta(x - s * h)[part] for h in step] for s in (1.0, 2.0))
        return np.asarray((8.0 * np.array(near) - np.array(far)) / 12e-3).reshape(len(step), len(step)).T


def _shapes(covariance: Covariance) -> Codes:
    """Parameters of a structure on unconstrained axes; none where x is the factor itself."""
    if covariance.name in ("us", "un", "diag", "id", "fa0"):
        return np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(covariance.size), covariance.scales)


def _origins(covariance: Covariance) -> Array:
    """Where the shape parameters of a structure start from."""
    origins = np.zeros(covariance.size)
    if isinstance(covariance, SpatialCovariance):
        origins[1] = covariance.start()[1]
    return origins


def build_problem(design: Design, fitted: Array | None = None) -> Problem:
    """Condition the columns and add up the cross-products.

    fitted : (n,) what stands for the fitted value in a variance function of it (least squares by default)
    """
    with one_thread():
        standardization, Xy = standardize_rows(design)
        if design.residual is not None or design.variance:
            return _structured_problem(design, standardization, fitted)
        problem = problem_from_sums(design, standardization, cross_products(design, standardization, Xy))
    kernel = problem.criterion.kernel
    if not isinstance(kernel, RandomEffectsKernel) or len(kernel.cross.factors) < 2 or len(design.y) > ROWS_KEPT:
        return problem
    by_rows = Rows(kernel.cross, partial(_row_kernel, design, standardization))
    return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, rows=by_rows)))


ROWS_KEPT = 400
"""Rows that very large crossed effects are evaluated from."""


def by_sums(problem: Problem) -> Problem:
    """The problem by its cross-products alone, where a criterion that is a little wrong far out does no harm."""
    kernel = problem.criterion.kernel
    if not problem.has_rows or not isinstance(kernel, RandomEffectsKernel):
        return problem
    return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, rows=None)))


def _row_kernel(design: Design, standardization: Standardization, parameters: RandomParameters) -> BlockDiagonalKernel:
    """The kernel of independent errors by rows, each times the root of its weight as in the cross-products."""
    everything = slice(0, design.X.shape[0])
    weights = standardization.weights(design, everything)
    root = np.ones((everything.stop, 1)) if weights is None else np.sqrt(weights)[:, None]
    terms = tuple(replace(term, Z=root * term.Z) for term in _term_columns(design, standardization))
    blocks = tuple(RowBatch(rows, block_of(design, rows)) for rows in order_rows(design, independent_blocks(design)))
    data = SubjectData(root * standardization.Xy(design, everything), terms, None, blocks, (), (), everything.stop)
    return BlockDiagonalKernel(parameters, IndependentErrors(), VarianceFunction((), (), 0), data)


def _term_columns(design: Design, standardization: Standardization) -> tuple[TermColumns, ...]:
    return tuple(
        TermColumns(m.apply(t.Z), t.group.codes, len(t.group.levels), t.relationship)
        for t, m in zip(design.terms, standardization.maps, strict=True)
    )


def held_sigma2(design: Design, standardization: Standardization) -> float | None:
    """sigma^2 on standardized columns where the spec holds it. SpecificationError where it is no number there."""
    sigma = design.spec.sigma
    if sigma is None:
        return None
    unit = standardization.y_scale * math.sqrt(standardization.weight_mean * design.weight_scale)
    ratio = sigma / unit
    if 1.0 / MAX_SIZE < ratio * ratio < MAX_SIZE:
        return ratio * ratio
    what = f"sigma is {sigma:g}, and the residuals of the response are of the size {unit:.3g}: their squares cannot be compared"
    raise SpecificationError(what, "sigma", "give the residual sd in the units of the response")


def problem_from_sums(design: Design, standardization: Standardization, cross: CrossProducts, sums: Accumulator | None = None) -> Problem:
    """The problem of a design whose rows have been added up; the rows are not looked at again.

    sums : the same before they were laid out, where the design has no rows to add up again
    """
    parameters = random_parameters([(t.covariance, m) for t, m in zip(design.terms, standardization.maps, strict=True)], cross.factors)
    kernel = RandomEffectsKernel(parameters, cross)
    begin: Callable[[], Array] = partial(_start, kernel)
    if cross.remaining is not None:
        start = begin()
        kernel, begin = _enough_probes(kernel, start), partial(np.copy, start)
        cross = kernel.cross
    width = max((b.index.shape[1] for b in cross.rest.batches), default=0) if cross.rest is not None else 0
    held = held_sigma2(design, standardization)
    criterion = Criterion(cross.n, cross.p, standardization, kernel, width, -standardization.logdet_weights, held)
    return Problem(design, standardization, criterion, parameters, begin, sums)


def _enough_probes(kernel: RandomEffectsKernel, start: Array) -> RandomEffectsKernel:
    """The kernel with as many probes as the start asks for, found from the first few; dense blocks where so many would cost more."""
    cross = kernel.cross
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            state = kernel.evaluate(start[None], derivatives=True)
            sigma2 = float(state.solution.r2[0]) / (cross.n - cross.p)
            error = state.monte_carlo()
            share = error.share(state.newton_matrix(True, sigma2, cross.n - cross.p)) if error is not None and sigma2 > 0.0 else 0.0
    except np.linalg.LinAlgError:
        return kernel
    if share <= PROBE_TARGET:
        return kernel
    assert cross.probes is not None and cross.remaining is not None
    needed = cross.probes.exact.shape[1] + max(cross.probes.count, 1) * (share / PROBE_TARGET) ** 2
    if TUNING.prefers_dense(cross.remaining.layout.m, needed * cross.remaining.multiplications):
        return replace(kernel, cross=dense_remaining(cross))
    return replace(kernel, cross=with_more_probes(cross, share / PROBE_TARGET))


PROBE_TARGET = 0.005
"""Monte Carlo error of an estimate, as a share of its standard error, for which probes are drawn."""


def with_more_probes(cross: CrossProducts, times: float) -> CrossProducts:
    """So many that the Monte Carlo error falls by a factor, or as many as are ever taken."""
    assert cross.remaining is not None and cross.probes is not None
    count = min(math.ceil(max(cross.probes.count, 1) * times**2), max(TUNING.most_probes, cross.probes.count))
    return replace(cross, probes=draw_probes(cross.remaining, count))


def _start(kernel: RandomEffectsKernel) -> Array:
    """Near the optimum where sums tell where that is, else relative variances of 1."""
    parameters, cross = kernel.parameters, kernel.cross
    near = moment_start(parameters, cross) if kernel.dense is None else scoring_start(kernel.dense, cross.n - cross.p)
    return np.concatenate([*(term.covariance.start() for term in parameters.terms), np.zeros(0)]) if near is None else near


def _structured_problem(design: Design, standardization: Standardization, fitted: Array | None) -> Problem:
    """The problem of a design with a residual structure or a variance function: rows stay, in blocks."""
    n, p = design.X.shape
    everything = slice(0, n)
    Xy = standardization.Xy(design, everything)
    weights = standardization.weights(design, everything)
    log_scale = None if weights is None else -0.5 * np.log(weights)
    structure = residual_structure(design)
    if fitted is None:
        fitted = design.near_X @ standardization.near_alpha0
    variance = variance_function(design, fitted)
    terms = tuple(
        TermColumns(m.apply(t.Z), t.group.codes, len(t.group.levels), t.relationship)
        for t, m in zip(design.terms, standardization.maps, strict=True)
    )
    low_rank = is_low_rank(design)
    rows, groups, row_batches = _blocks(design, Xy, dense=not low_rank)
    parameters = random_parameters([(t.covariance, m) for t, m in zip(design.terms, standardization.maps, strict=True)], factors_of(design))
    made = LowRankKernel if low_rank else BlockDiagonalKernel
    kernel = made(parameters, structure, variance, SubjectData(Xy, terms, log_scale, rows, groups, row_batches, n))
    residual = Xy[:, p] if log_scale is None else Xy[:, p] / np.exp(log_scale)
    start = np.concatenate(
        [
            *(term.covariance.start() for term in parameters.terms),
            residual_start(design, structure, residual, bool(design.terms)),
            variance.start(),
        ]
    )
    criterion = Criterion(n, p, standardization, kernel, held=held_sigma2(design, standardization))
    return Problem(design, standardization, criterion, parameters, partial(range_start, criterion, kernel, start))


def problem_from_patterns(
    design: Design,
    standardization: Standardization,
    n: int,
    patterns: tuple[PooledBatch, ...],
    row_batches: Sequence[RowBatch],
    start: Array,
) -> Problem:
    """The problem of n rows under structured errors that were added up by pattern of visits; the rows are not looked at again.

    row_batches : stands where the rows of the patterns would, and says that they are gone to whoever goes through them
    """
    p = len(design.kept)
    structure, parameters = residual_structure(design), random_parameters([], ())
    data = SubjectData(np.zeros((0, p + 1)), (), None, (), patterns, row_batches, 0)
    kernel = BlockDiagonalKernel(parameters, structure, VarianceFunction((), (), 0), data)
    criterion = Criterion(n, p, standardization, kernel)
    return Problem(design, standardization, criterion, parameters, partial(range_start, criterion, kernel, start))


def _blocks(design: Design, Xy: Array, *, dense: bool) -> tuple[tuple[RowBatch, ...], tuple[PooledBatch, ...], tuple[RowBatch, ...]]:
    """Blocks to be worked on row by row, those pooled by pattern, and the rows behind these."""
    rows, groups, row_batches = [], [], []
    for index in order_rows(design, independent_blocks(design), dense=dense):
        batch = RowBatch(index, block_of(design, index))
        together = pool_by_pattern(design, index, Xy[index]) if is_poolable(design) else None
        if together is None:
            rows.append(batch)
        else:
            groups.append(together)
            row_batches.append(batch)
    return tuple(rows), tuple(groups), tuple(row_batches)
