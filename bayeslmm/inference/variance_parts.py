"""The variance of a response in its parts, fixed, random and error, averaged over the rows; and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.degrees_of_freedom import observed_information
from bayeslmm.likelihood.structured.residual_covariance import mean_unit_variance
from bayeslmm.results.estimates import Estimates

LOG_VARIANCE_STEP = 1e-5
"""Step of the central differences of the log variance in the covariance parameters."""


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variance of the fixed part over the rows, mean variance of the random part, mean variance of the errors."""

    fixed: float
    random: float
    error: float

    @property
    def total(self) -> float:
        return self.fixed + self.random + self.error


def variance_parts(fit: Estimates) -> VarianceParts:
    """What a new row's variance is made of: `var(X alpha)`, the mean of `z' D z`, the mean of `R_ii`."""
    fixed = fit.design.moments.X @ fit.fixef_kept
    random, error = unit_variances(fit, fit.point.x) * fit.problem.sigma2(fit.point.sigma2)
    return VarianceParts(float(np.var(fixed)) * fit.nobs / (fit.nobs - 1), float(random), float(error))


def unit_variances(fit: Fitted, x: Array) -> Array:
    """Mean variance of the random part and of the errors over the rows, in units of sigma^2, at parameters x."""
    design = fit.problem.design
    error = design.mean_inverse_weight if fit.problem.structured is None else mean_unit_variance(fit.problem, x)
    return np.array([sum(term_variances(fit, x)), error])


def term_variances(fit: Fitted, x: Array) -> list[float]:
    """The mean over the rows of `z' D z` of each random term, in units of sigma^2."""
    found = []
    for term, parameters in zip(fit.design.terms, fit.problem.random.terms, strict=True):
        root = parameters.root(x, term.moment_rows, fit.problem.standardization.weight_mean)
        own = np.einsum("nq,nq->n", root, root)
        related = None if term.relationship is None else np.diagonal(term.relationship)
        if related is not None and not (related == related[0]).all():
            own = own * related[term.group.codes]
        elif related is not None:
            own = own * related[0]
        found.append(float(own.mean()))
    return found


@dataclass(frozen=True, slots=True)
class EstimatedSd:
    """A standard deviation and the variance of its logarithm."""

    value: float
    log_variance: float


def residual_sd(fit: Fitted) -> EstimatedSd:
    """The sd of an observation around its own group."""
    return _estimated_sd(fit, np.array([0.0, 1.0]))


def total_sd(fit: Fitted) -> EstimatedSd:
    """The sd of an observation around the population: random effects and errors."""
    return _estimated_sd(fit, np.ones(2))


def _estimated_sd(fit: Fitted, weights: Array) -> EstimatedSd:
    x, sigma2 = fit.point.x, fit.problem.sigma2(fit.point.sigma2)
    slopes = np.zeros(len(x) + 1)
    slopes[-1] = 0.0 if fit.problem.criterion.held is not None else 1.0
    for k in range(len(x)):
        step = np.zeros(len(x))
        step[k] = LOG_VARIANCE_STEP
        up, down = (float(np.log(weights @ unit_variances(fit, x + move))) for move in (step, -step))
        slopes[k] = 0.25 * (up - down) / LOG_VARIANCE_STEP
    covariance = observed_information(fit).covariance
    return EstimatedSd(float(np.sqrt(sigma2 * (weights @ unit_variances(fit, x)))), float(slopes @ covariance @ slopes))
