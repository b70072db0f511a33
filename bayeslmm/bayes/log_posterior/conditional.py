"""The log likelihood at given coefficients, random effects integrated out, and that of given errors.

    log p(y | alpha, D, R) = -1/2 [ log|V0| + n log(2 pi sigma^2) + (y - X alpha)' V0^-1 (y - X alpha) / sigma^2 ]

The covariance parameters are each structure's own x on the user's columns and in the user's units: for an unstructured D the lower triangle
of T column by column, for the others scales, then free shape parameters; then the free parameters of the variance function; then log sigma
where R has no scale of its own. All of it goes through the kernel that the criterion uses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bayeslmm._arrays import Array, Generator
from bayeslmm.bayes.log_posterior.density import AlphaPrior, Density, MarginalCoefficients, with_solution
from bayeslmm.bayes.log_posterior.layout import MatrixBlock, ParameterLayout, TermBlock, VarianceBlock
from bayeslmm.bayes.log_posterior.priors import ModelPriors
from bayeslmm.bayes.log_posterior.transforms import PositiveTransform, positive_transform
from bayeslmm.covariance.base import Covariance
from bayeslmm.likelihood.kernel import Solution
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, BlockDiagonalState
from bayeslmm.likelihood.structured.residual_covariance import residual_sets
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.specification.prior_families import Prior

NO_PRIORS = ModelPriors((), (), (), (), None)


@dataclass(frozen=True, slots=True, eq=False)
class NaturalTransform:
    """A structure's own parameters taken as they are."""

    covariance: Covariance

    @property
    def size(self) -> int:
        return self.covariance.size

    def values(self, phi: Array) -> Array:
        return phi

    def jacobian(self, phi: Array) -> Array:
        return np.eye(len(phi))

    def log_prior(self, phi: Array, volume: bool) -> Array:
        return np.zeros(phi.shape[:-1])

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        return np.zeros(len(phi))

    def inverse(self, x: Array, typical: float | None) -> Array:
        return x

    def draws(self, rng: Generator, n: int) -> Array:
        return np.full((n, self.size), np.nan)


def natural_layout(problem: Problem) -> ParameterLayout:
    """The parameters of a model one after the other, each as its structure has them."""
    begin, terms, sets = 0, [], []
    for term in problem.random.terms:
        terms.append(TermBlock(NaturalTransform(term.covariance), slice(begin, begin + term.covariance.size), term))
        begin += term.covariance.size
    for one in residual_sets(problem):
        sets.append(MatrixBlock(NaturalTransform(one.covariance), slice(begin, begin + one.covariance.size), one))
        begin += one.covariance.size
    variance, kernel = None, problem.structured
    if kernel is not None and kernel.variance.size:
        size = kernel.variance.size
        variance = VarianceBlock((Prior("flat"),) * size, np.zeros(size, np.int64), slice(begin, begin + size), np.ones(size))
        begin += size
    sigma: PositiveTransform | None = None
    size = begin
    if not sets:
        sigma, size = positive_transform((Prior("flat"),)), begin + 1
    return ParameterLayout(tuple(terms), tuple(sets), variance, sigma, slice(begin, size), None, size)


class ConditionalSolution(Solution):
    """A profile at an alpha that is given: nothing of alpha is left to be uncertain about."""

    @cached_property
    def information_inverse(self) -> Array:
        return np.zeros_like(self.root)


@dataclass(frozen=True, eq=False)
class ConditionalAlpha(AlphaPrior):
    """alpha held at `value` (p,), on the user's scale."""

    value: Array

    @cached_property
    def conditioned(self) -> Array:
        c = self.problem.standardization
        return np.asarray(np.linalg.solve(c.back, self.value - c.alpha0) / c.y_scale) if len(self.value) else self.value

    def integrate(self, solution: Solution, s2: Array, variances: Array | None = None) -> MarginalCoefficients:
        criterion, t = self.problem.criterion, len(s2)
        alpha = np.broadcast_to(self.conditioned, (t, len(self.conditioned)))
        away = np.einsum("tqp,tq->tp", solution.root, alpha - solution.alpha)
        r2 = solution.r2 + np.sum(away**2, axis=-1)
        value = solution.logdet + criterion.n * np.log(s2) + r2 / s2 + criterion.constant(False) - criterion.n
        return MarginalCoefficients(value, ConditionalSolution(solution.logdet, solution.Xy, solution.root, solution.logdet_X, alpha, r2))


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalLikelihood:
    """log p(y | alpha, covariance parameters) of a problem, with its gradient."""

    problem: Problem
    layout: ParameterLayout

    @property
    def size(self) -> int:
        """Number of covariance parameters."""
        return self.layout.size

    def at(self, own: Array, alpha: Array) -> tuple[float, Array, Array]:
        """Value, gradient in the covariance parameters and in alpha; -inf and zeros where there is no likelihood."""
        try:
            with one_thread(self.problem.criterion.width), np.errstate(all="ignore"):
                value, d_own, d_alpha, _ = self._at(own, alpha)
        except np.linalg.LinAlgError:
            value = -np.inf
        if not np.isfinite(value):
            return -np.inf, np.zeros(self.size), np.zeros(len(alpha))
        return value, d_own, d_alpha

    def _at(self, own: Array, alpha: Array) -> tuple[float, Array, Array, tuple[BlockDiagonalState | None, float]]:
        conditional = ConditionalAlpha(self.problem, (), None, np.asarray(alpha, float))
        density = Density(self.problem, NO_PRIORS, self.layout, conditional)
        x, s = density.kernel_points(np.asarray(own, float)[None])
        if not (np.isfinite(x).all() and s[0] > 0.0):
            raise np.linalg.LinAlgError
        s2 = float(s[0]) ** 2
        state = self.problem.criterion.kernel.evaluate(x, derivatives=True)
        found = conditional.integrate(state.solution, s**2)
        fixed = with_solution(state, found)
        d_own = -0.5 * density.deviance_gradient(own, x, s2, fixed, found)
        away = found.solution.alpha[0] - state.solution.alpha[0]
        d_alpha = np.zeros(len(alpha))
        if len(alpha):
            c, p = self.problem.standardization, len(alpha)
            d_alpha = -np.linalg.solve(c.back.T, state.solution.Xy[0, :p, :p] @ away) / (c.y_scale * s2)
        return -0.5 * float(found.value[0]), d_own, d_alpha, (fixed if isinstance(fixed, BlockDiagonalState) else None, s2)


def conditional_likelihood(problem: Problem) -> ConditionalLikelihood:
    """The likelihood of a problem at given alpha."""
    return ConditionalLikelihood(problem, natural_layout(problem))


@dataclass(frozen=True, slots=True, eq=False)
class ErrorLikelihood:
    """log N(e | 0, R) of all errors at once, with its gradient: a residual structure seen by a graph that holds every beta."""

    whole: Problem
    layout: ParameterLayout

    def at(self, own: Array, errors: Array) -> tuple[float, Array, Array]:
        """Value, gradient in the parameters of R and in the errors (n,)."""
        try:
            with one_thread(), np.errstate(all="ignore"):
                value, d_own, d_errors = self._at(own, errors)
        except np.linalg.LinAlgError:
            value = -np.inf
        if not np.isfinite(value):
            return -np.inf, np.zeros(self.layout.size), np.zeros(len(errors))
        return value, d_own, d_errors

    def _at(self, own: Array, errors: Array) -> tuple[float, Array, Array]:
        y_scale, kernel = self.whole.standardization.y_scale, self.whole.structured
        assert kernel is not None
        data = kernel.data
        rows = replace(
            data, Xy=np.asarray(errors, float)[:, None] / y_scale, rows=(*data.rows, *data.pooled_rows), pooled=(), pooled_rows=()
        )
        criterion = replace(self.whole.criterion, kernel=replace(kernel, data=rows), p=0)
        value, d_own, _, (state, s2) = ConditionalLikelihood(replace(self.whole, criterion=criterion), self.layout)._at(own, np.zeros(0))
        assert state is not None
        d_errors = np.zeros(len(errors))
        for part, score in zip(state.rows, state.residual_scores, strict=True):
            d_errors[part.batch.rows.ravel()] = -(score / part.scale).ravel() / (s2 * y_scale)
        return value, d_own, d_errors


def error_likelihood(problem: Problem) -> ErrorLikelihood:
    """The likelihood of the errors of a model with a residual structure."""
    alone = build_problem(replace(problem.design, terms=()), fitted=None)
    kernel = alone.structured
    assert kernel is not None
    # the variance function stays that of the whole model: its covariate may be the fitted value
    own = problem.structured
    assert own is not None
    alone = replace(
        alone,
        criterion=replace(alone.criterion, kernel=BlockDiagonalKernel(RandomParameters((), ()), own.structure, own.variance, kernel.data)),
    )
    return ErrorLikelihood(alone, natural_layout(alone))
