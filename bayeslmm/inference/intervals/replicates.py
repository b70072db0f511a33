"""Replicates of a fit: responses drawn from the model, or levels of a grouping factor drawn anew, and the fits to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, numbers_of
from bayeslmm._types import LikelihoodKind, StatisticValues
from bayeslmm.data.design import Design
from bayeslmm.errors import BayesLMMError, SpecificationError, show_value
from bayeslmm.estimate.batch_descent import BatchFits
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.estimate.reweighting import fit_reweighted
from bayeslmm.inference.intervals.batch_refit import (
    lift_off_boundary,
    problem_of_products,
    refit_many,
    refit_products,
    standardize_response,
    with_response,
)
from bayeslmm.inference.intervals.batch_structured import descend, poolable, problem_of_replicate
from bayeslmm.inference.intervals.drawn_patterns import PatternSampler
from bayeslmm.inference.intervals.parameters import parameter_values
from bayeslmm.inference.intervals.resampling import ProductSampler, laid_out, resample_design, resampling_factor
from bayeslmm.likelihood.identification import full_rank
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import simulate_responses

Statistic = Callable[[Any], StatisticValues]
"""A function of a fit, of the class that the bootstrap was given."""


@dataclass(frozen=True, slots=True, eq=False)
class Replicates:
    """Replicates `numbers`: their values (B, parameters), NaN where a fit failed, and why it did."""

    numbers: tuple[int, ...]
    values: Array
    reasons: tuple[str, ...]


SUMS_FROM_ROWS = 5_000
"""Rows from which the sums of a parametric replicate are drawn; the replicates of fewer are the fits to the columns of `simulate`."""

ROWS_PER_PAIR = 20.0
"""Pairs of columns of the other factors, per row, up to which drawing sums costs less than drawing rows."""


class ParametricResampler:
    """Responses drawn from the fitted model: their sums alone where nothing asks for the rows, and these are many."""

    def __init__(self, fit: Estimates, statistic: Statistic | None, names: Sequence[str]) -> None:
        self.fit, self.statistic = fit, statistic
        self.names = list(names)
        self.start = lift_off_boundary(fit.problem, fit.estimate.x)

    @property
    def together(self) -> bool:
        """Whether replicates go through the kernel side by side."""
        problem = self.fit.problem
        return self.statistic is None and problem.structured is None and problem.size > 0 and not problem.is_iterative

    @cached_property
    def sampler(self) -> ProductSampler | None:
        """What draws the sums; None where rows are drawn."""
        problem = self.fit.problem
        if self.statistic is not None or problem.structured is not None or problem.is_iterative:
            return None
        cross, n = laid_out(problem), problem.criterion.n
        m = 0 if cross.V0 is None else len(cross.V0)
        by_rows = problem.design.in_memory and (n < SUMS_FROM_ROWS or m * m > ROWS_PER_PAIR * n)
        return None if by_rows else ProductSampler.of(problem)

    @cached_property
    def pattern_sampler(self) -> PatternSampler | None:
        """What draws the sums by pattern of visits under structured errors; None where rows are drawn."""
        problem = self.fit.problem
        by_rows = problem.design.in_memory and problem.criterion.n < SUMS_FROM_ROWS
        if self.statistic is not None or by_rows or not poolable(problem) or problem.size == 0 or problem.criterion.held is not None:
            return None
        return PatternSampler.of(problem)

    def run(self, numbers: Sequence[int], streams: Sequence[np.random.SeedSequence]) -> Replicates:
        """Draw and fit some replicates."""
        fit, sampler, patterns = self.fit, self.sampler, self.pattern_sampler
        if patterns is not None:
            step = patterns.step
            found = [self._by_patterns(patterns, numbers[i : i + step], streams[i : i + step]) for i in range(0, len(numbers), step)]
            return _concatenate(found)
        if sampler is not None:
            step = sampler.step
            found = [self._by_sums(sampler, numbers[i : i + step], streams[i : i + step]) for i in range(0, len(numbers), step)]
            return _concatenate(found)
        Y = simulate_responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, streams)
        if not self.together:
            return _one_by_one(numbers, self.names, [partial(self._refit_one, y) for y in Y.T])
        many = refit_many(fit.problem, standardize_response(fit.problem, Y), fit.restricted, self.start)
        return self._refit_unsettled(numbers, many, lambda b: self._refit_one(Y[:, b]))

    def _by_sums(self, sampler: ProductSampler, numbers: Sequence[int], streams: Sequence[np.random.SeedSequence]) -> Replicates:
        fit, problem = self.fit, self.fit.problem
        sigma2 = fit.estimate.sigma**2 / problem.sigma2(1.0)
        products = sampler.draw(fit.estimate.x, sigma2, standardize_alpha(problem, fit.fixef_kept), streams)

        def alone(b: int) -> Array:
            start = self.start if problem.size else None
            found = estimate(problem_of_products(problem, products, b), _method(fit), start=start)
            return _values(problem, found, fit.model, None, type(fit), self.names)

        if not self.together:
            return _one_by_one(numbers, self.names, [partial(alone, b) for b in range(products.count)])
        return self._refit_unsettled(numbers, refit_products(problem, products, fit.restricted, self.start), alone)

    def _by_patterns(self, sampler: PatternSampler, numbers: Sequence[int], streams: Sequence[np.random.SeedSequence]) -> Replicates:
        fit, problem = self.fit, self.fit.problem
        sigma2 = fit.estimate.sigma**2 / problem.sigma2(1.0)
        sums = sampler.draw(fit.estimate.x, sigma2, standardize_alpha(problem, fit.fixef_kept), streams)

        def alone(b: int) -> Array:
            found = estimate(problem_of_replicate(problem, sums.part(np.array([b]))), _method(fit), start=self.start)
            return _values(problem, found, fit.model, None, type(fit), self.names)

        return self._refit_unsettled(numbers, descend(problem, sums, self.start, fit.restricted), alone)

    def _refit_unsettled(self, numbers: Sequence[int], many: BatchFits, alone: Callable[[int], Array]) -> Replicates:
        """Fits made side by side; those that have not settled are made again by themselves."""
        values = parameter_values(self.fit.problem, many.x, many.sigma2, many.alpha)
        rest = np.flatnonzero(~many.settled)
        again = _one_by_one([numbers[int(b)] for b in rest], self.names, [partial(alone, int(b)) for b in rest])
        values[rest] = again.values
        reasons = [""] * len(numbers)
        for b, reason in zip(rest, again.reasons, strict=True):
            reasons[b] = reason
        return Replicates(tuple(numbers), values, tuple(reasons))

    def _refit_one(self, y: Array) -> Array:
        fit = self.fit
        model = fit.model.with_response(y)
        start = self.start if fit.problem.size else None
        problem, found = fit_reweighted(with_response(fit.problem, model.design), _method(fit), start=start)
        return _values(problem, found, model, self.statistic, type(fit), self.names)


def _concatenate(parts: Sequence[Replicates]) -> Replicates:
    """One after the other."""
    numbers = tuple(chain.from_iterable(part.numbers for part in parts))
    reasons = tuple(chain.from_iterable(part.reasons for part in parts))
    return Replicates(numbers, np.concatenate([part.values for part in parts]), reasons)


def standardize_alpha(problem: Problem, alpha: Array) -> Array:
    """Coefficients on standardized columns."""
    c = problem.standardization
    return c.coefficients((alpha - c.alpha0) / c.y_scale)


class CaseResampler:
    """Levels of the top grouping factor drawn with replacement; rows where there is none."""

    def __init__(self, fit: Estimates, statistic: Statistic | None, names: Sequence[str], group: str | None) -> None:
        self.fit, self.statistic = fit, statistic
        self.factor = resampling_factor(fit.design, group)
        self.names = list(names)
        resample_design(fit.design, self.factor, np.zeros(1, np.int64))

    def run(self, numbers: Sequence[int], streams: Sequence[np.random.SeedSequence]) -> Replicates:
        """Draw and fit some replicates."""
        K = self.fit.nobs if self.factor is None else self.factor.size
        draws = [np.random.default_rng(stream).integers(0, K, K) for stream in streams]
        return _one_by_one(numbers, self.names, [partial(self._refit_one, drawn) for drawn in draws])

    def _refit_one(self, drawn: NDArray[np.int64]) -> Array:
        fit = self.fit
        design = resample_design(fit.design, self.factor, drawn)
        if not full_rank(design.near_X):
            raise np.linalg.LinAlgError("columns of X are collinear in the rows drawn")
        problem, found = fit_reweighted(build_problem(design), _method(fit))
        return _values(problem, found, with_design(fit.model, design), self.statistic, type(fit), self.names)


def with_design(model: Any, design: Design) -> Any:
    """The model of a fit with another design, for a statistic that asks a fit about its model."""
    moved = copy(model)
    moved.design = design
    moved.__dict__.pop("problem", None)
    return moved


def _method(fit: Estimates) -> LikelihoodKind:
    return "ML" if fit.method == "ML" else "REML"


def statistic_values(statistic: Statistic, fit: Estimates) -> pd.Series[float]:
    """A statistic of a fit by name: the names that it has, or places. Errors: SpecificationError where it fails, or gives no numbers."""
    try:
        value: Any = statistic(fit)
    except BayesLMMError:
        raise
    except Exception as error:
        what = f"the statistic failed: {type(error).__name__}: {error}"
        raise SpecificationError(what, "statistic", "it is called with a fit, and gives numbers") from error
    labelled = isinstance(value, Mapping | pd.Series)
    numbers = list(value.values()) if isinstance(value, Mapping) else value
    try:
        if isinstance(value, Mapping) and any(np.size(number) != 1 for number in numbers):
            raise TypeError  # a name has one number
        found = np.atleast_1d(numbers_of(numbers, "statistic", labelled=isinstance(value, pd.Series))).ravel()
        names = [str(name) for name in value.keys()] if labelled else [f"statistic_{i + 1}" for i in range(found.size)]  # noqa: SIM118
        if not names or len(set(names)) < len(names):
            raise TypeError
    except (TypeError, SpecificationError):
        what = f"the statistic gives a {type(value).__name__}, which is no numbers, or no numbers of distinct names"
        raise SpecificationError(what, f"{show_value(value)}", "return a number, an array, a Series or a dict of numbers") from None
    return pd.Series(found, index=names, name="estimate")


def replicate_values(statistic: Statistic, fit: Estimates, names: Sequence[str]) -> Array:
    """A statistic of a replicate in the order of these names. Errors: as `statistic_values`, and for other names than these."""
    found = statistic_values(statistic, fit)
    if set(found.index) != set(names):
        what = f"the statistic gives {', '.join(found.index):.60}, and of the fit itself {', '.join(names):.60}"
        raise SpecificationError(what, "statistic", "return the same names, or the same number of values, for every fit")
    if np.isinf(found).any():
        raise SpecificationError("the statistic is infinite", "statistic", "return finite numbers, or NaN for what a fit has not")
    return np.asarray(found[list(names)], float)


def _values(
    problem: Problem, found: Estimate, model: Any, statistic: Statistic | None, kind: type[Estimates], names: Sequence[str]
) -> Array:
    if not found.converged:
        raise BayesLMMError("the search did not converge", "a replicate", "its failure is counted; see Bootstrap.failures")
    if statistic is not None:
        return replicate_values(statistic, kind(model, problem, found, 0.0), names)
    sigma2 = np.array([found.sigma**2 / problem.sigma2(1.0)])
    return np.asarray(parameter_values(problem, found.x[None], sigma2, standardize_alpha(problem, found.alpha)[None])[0])


def _one_by_one(numbers: Sequence[int], names: Sequence[str], fits: Sequence[Callable[[], Array]]) -> Replicates:
    values, reasons = np.full((len(fits), len(names)), np.nan), []
    for b, fit in enumerate(fits):
        try:
            values[b] = fit()
            reasons.append("")
        except (BayesLMMError, np.linalg.LinAlgError, FloatingPointError) as error:
            reasons.append(getattr(error, "what", str(error)) or type(error).__name__)
    return Replicates(tuple(numbers), values, tuple(reasons))
