"""The Monte Carlo error of the criterion and of every estimate, where a determinant is estimated from probes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayeslmm.errors import Check, Verdict
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem, with_more_probes
from bayeslmm.likelihood.random_effects.kernel import MonteCarlo, RandomEffectsKernel, RandomEffectsState

LARGEST_SHARE = 0.01
"""Largest Monte Carlo error of an estimate, as a share of its standard error."""

DETERMINANT_CHECK = "log_determinant"


def monte_carlo_shares(problem: Problem, point: CriterionPoint) -> tuple[MonteCarlo, float, float] | None:
    """The error at an optimum, and the largest one of any covariance parameter and any fixed effect, as shares of standard errors."""
    state = point.state
    error = state.monte_carlo() if isinstance(state, RandomEffectsState) else None
    if error is None or point.hessian is None or state is None:
        return None
    back = problem.standardization.back
    moved = back @ error.alpha_slopes.T @ error.covariance(point.hessian) @ error.alpha_slopes @ back.T
    variances = point.sigma2 * np.einsum("ax,xy,ay->a", back, state.solution.information_inverse[0], back)
    fixed = float(np.sqrt(np.maximum(np.diagonal(moved), 0.0) / variances).max(initial=0.0))
    return error, error.share(point.hessian), fixed


def determinant_check(problem: Problem, point: CriterionPoint) -> list[Check]:
    """The check "log_determinant": its value is the standard deviation of the criterion's error."""
    found = monte_carlo_shares(problem, point)
    if found is None:
        return []
    error, covariance, fixed = found
    verdict: Verdict = "noted" if max(covariance, fixed) <= LARGEST_SHARE else "failed"
    what = f"{error.probes:,} probes" if error.probes else "every direction"
    text = (
        f"the determinant is estimated from {what}: the Monte Carlo error of the criterion is {error.criterion:.2g}, "
        f"that of a covariance parameter at most {100 * covariance:.2g} % of its standard error, of a fixed effect {100 * fixed:.2g} %"
    )
    if verdict == "failed":
        text += f", more than {100 * LARGEST_SHARE:g} %; leave out a factor whose levels few others meet or that holds levels of another"
    return [Check(DETERMINANT_CHECK, verdict, error.criterion, None, text)]


def with_fewer_errors(problem: Problem, point: CriterionPoint) -> Problem | None:
    """The same problem with as many probes as leave no estimate an error of more than half of what is allowed; None where it has them."""
    found, kernel = monte_carlo_shares(problem, point), problem.criterion.kernel
    if found is None or not isinstance(kernel, RandomEffectsKernel):
        return None
    times = max(1.0, 2.0 * max(found[1:]) / LARGEST_SHARE)
    more = replace(kernel, cross=with_more_probes(kernel.cross, times))
    if more.cross.probes is None or more.cross.probes.count == found[0].probes:
        return None
    return replace(problem, criterion=replace(problem.criterion, kernel=more))
