"""Replicates of a bootstrap: what each of them draws, and its fit. Every replicate has a stream of random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.arrays import Array
from bayeslmm.data.design import Design
from bayeslmm.errors import BayesLMMError
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.inference.many import fit_many, off_boundary
from bayeslmm.inference.resampling import resampled, resampling_factor
from bayeslmm.inference.responses import conditioned, with_response
from bayeslmm.inference.tables import parameter_table
from bayeslmm.likelihood.criterion import Method
from bayeslmm.likelihood.problem import Problem, build
from bayeslmm.results.fit import Fit
from bayeslmm.results.simulate import responses

Statistic = Callable[[Fit], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Replicates `numbers`: their values (B, parameters), NaN where a fit failed, and why it did."""

    numbers: tuple[int, ...]
    values: Array
    reasons: tuple[str, ...]


class Parametric:
    """Responses drawn from the fitted model."""

    def __init__(self, fit: Fit, statistic: Statistic | None, names: Sequence[str]) -> None:
        self.fit, self.statistic = fit, statistic
        self.names = list(names)
        self.start = off_boundary(fit.problem.random, fit.estimate.x)

    @property
    def together(self) -> bool:
        """Whether replicates go through the kernel side by side."""
        return self.statistic is None and self.fit.problem.structured is None and self.fit.problem.size > 0

    def run(self, numbers: Sequence[int], streams: Sequence[np.random.SeedSequence]) -> Batch:
        """Draw and fit some replicates."""
        fit = self.fit
        Y = responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, streams)
        if not self.together:
            return _one_by_one(numbers, self.names, [partial(self._alone, y) for y in Y.T])
        many = fit_many(fit.problem, conditioned(fit.problem, Y), fit.restricted, self.start)
        values = parameter_table(fit.problem, many.x, many.sigma2, many.alpha)
        rest = np.flatnonzero(~many.settled)
        again = _one_by_one([numbers[int(b)] for b in rest], self.names, [partial(self._alone, Y[:, b]) for b in rest])
        values[rest] = again.values
        reasons = [""] * len(numbers)
        for b, reason in zip(rest, again.reasons, strict=True):
            reasons[b] = reason
        return Batch(tuple(numbers), values, tuple(reasons))

    def _alone(self, y: Array) -> Array:
        fit = self.fit
        model = fit.model.with_response(y)
        problem = with_response(fit.problem, model.design)
        start = self.start if fit.problem.size else None
        return _values(problem, estimate(problem, _method(fit), start=start), model, self.statistic)


class Cases:
    """Levels of the top grouping factor drawn with replacement; rows where there is none."""

    def __init__(self, fit: Fit, statistic: Statistic | None, names: Sequence[str], group: str | None) -> None:
        self.fit, self.statistic = fit, statistic
        self.factor = resampling_factor(fit.design, group)
        self.names = list(names)
        resampled(fit.design, self.factor, np.zeros(1, np.int64))

    def run(self, numbers: Sequence[int], streams: Sequence[np.random.SeedSequence]) -> Batch:
        """Draw and fit some replicates."""
        K = self.fit.nobs if self.factor is None else self.factor.size
        draws = [np.random.default_rng(stream).integers(0, K, K) for stream in streams]
        return _one_by_one(numbers, self.names, [partial(self._alone, drawn) for drawn in draws])

    def _alone(self, drawn: NDArray[np.int64]) -> Array:
        fit = self.fit
        design = resampled(fit.design, self.factor, drawn)
        if np.linalg.matrix_rank(design.X) < design.X.shape[1]:
            raise np.linalg.LinAlgError("columns of X are collinear in the rows drawn")
        problem = build(design)
        model = redesigned(fit.model, design)
        return _values(problem, estimate(problem, _method(fit)), model, self.statistic)


def redesigned(model: Any, design: Design) -> Any:
    """The model of a fit with another design, for a statistic that asks a fit about its model."""
    moved = copy(model)
    moved.design = design
    moved.__dict__.pop("problem", None)
    return moved


def _method(fit: Fit) -> Method:
    return "ML" if fit.method == "ML" else "REML"


def statistic_names(value: Any) -> list[str]:
    """Names of a statistic's values: those it has, or numbers."""
    if isinstance(value, pd.Series):
        return [str(name) for name in value.index]
    if isinstance(value, dict):
        return [str(name) for name in value]
    return [f"statistic_{i + 1}" for i in range(np.atleast_1d(np.asarray(value, float)).size)]


def statistic_values(value: Any) -> Array:
    """A statistic as a flat array."""
    if isinstance(value, dict):
        value = list(value.values())
    return np.asarray(np.atleast_1d(np.asarray(value, float)).ravel())


def _values(problem: Problem, found: Estimate, model: Any, statistic: Statistic | None) -> Array:
    if found.interrupted:
        raise KeyboardInterrupt
    if not found.converged:
        raise BayesLMMError("the search did not converge", "a replicate", "its failure is counted; see Bootstrap.failures")
    if statistic is not None:
        return statistic_values(statistic(Fit(model, problem, found, 0.0)))
    c = problem.conditioning
    sigma2 = np.array([found.sigma**2 / problem.sigma2(1.0)])
    alpha = np.linalg.solve(c.back, (found.alpha - c.alpha0) / c.y_scale) if len(found.alpha) else found.alpha
    return np.asarray(parameter_table(problem, found.x[None], sigma2, alpha[None])[0])


def _one_by_one(numbers: Sequence[int], names: Sequence[str], fits: Sequence[Callable[[], Array]]) -> Batch:
    values, reasons = np.full((len(fits), len(names)), np.nan), []
    for b, fit in enumerate(fits):
        try:
            values[b] = fit()
            reasons.append("")
        except (BayesLMMError, np.linalg.LinAlgError, FloatingPointError) as error:
            reasons.append(getattr(error, "what", str(error)) or type(error).__name__)
    return Batch(tuple(numbers), values, tuple(reasons))
