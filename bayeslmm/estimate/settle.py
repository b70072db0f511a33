"""A variance function of the fitted value: the fit depends on the weights, the weights on the fit, until they settle (as nlme does).

Within a round the fitted values are held; the criterion of the last round is the one reported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.errors import Check
from bayeslmm.estimate.centred import centred_start
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.likelihood.criterion import Method
from bayeslmm.likelihood.problem import Problem, build
from bayeslmm.likelihood.subjects_prediction import subject_modes

ROUNDS = 60

LOST = 5
"""Rounds one after the other whose search does not end: what is left is a valley without a bottom."""

SETTLED = 1e-9
"""Largest change of a fitted value, relative to their size, between two rounds."""


def depends_on_fitted(problem: Problem) -> bool:
    """Whether the variance function has the fitted value for a covariate."""
    return any(factor.covariate is None and factor.kind != "ident" for factor in problem.design.variance)


def settled(problem: Problem, method: Method) -> tuple[Problem, Estimate]:
    """Estimate, round after round where the variance depends on the fitted value; the problem returned is that of the last round."""
    found = estimate(problem, method, start=centred_start(problem, method) if problem.design.variance else None)
    if not depends_on_fitted(problem) or found.interrupted:
        return problem, found
    before, elapsed, path = fitted_values(problem, found), found.elapsed, found.path
    change, lost = np.inf, 0
    for _ in range(ROUNDS):
        problem = build(problem.design, before)
        found = estimate(problem, method, start=found.x)
        elapsed, path = elapsed + found.elapsed, path + found.path
        now = fitted_values(problem, found)
        change = float(np.abs(now - before).max() / max(float(np.abs(before).max()), 1e-300))
        before = now
        lost = 0 if found.converged else lost + 1
        if change < SETTLED or found.interrupted or lost == LOST:
            break
    verdict = Check(
        "variance of the fitted value",
        "passed" if change < SETTLED else "failed",
        change,
        SETTLED,
        "" if change < SETTLED else "weights and fit do not settle; use a covariate instead of the fitted value",
    )
    return problem, replace(
        found, elapsed=elapsed, path=path, converged=found.converged and change < SETTLED, checks=(*found.checks, verdict)
    )


def fitted_values(problem: Problem, found: Estimate) -> Array:
    """x'alpha + z'beta of every row, without the offset."""
    design = problem.design
    point = problem.criterion.at(found.x, found.restricted, order=0)
    out = design.X @ found.alpha
    for term, modes in zip(design.terms, subject_modes(problem, point), strict=True):
        out = out + np.einsum("na,na->n", term.Z, modes[term.group.codes])
    return np.asarray(out)
