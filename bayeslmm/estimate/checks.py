"""What can be said about an optimum, as values with a verdict, a limit and a remedy."""

from __future__ import annotations

from bayeslmm.errors import Check
from bayeslmm.estimate.boundary import Certificate
from bayeslmm.estimate.newton import Outcome
from bayeslmm.likelihood.criterion import Point
from bayeslmm.likelihood.problem import Problem

PREDICTED = 1e-8
"""Largest predicted decrease of the criterion at an optimum."""


def estimate_checks(problem: Problem, outcome: Outcome[Point], certificate: Certificate) -> tuple[Check, ...]:
    """Convergence, the boundary, and what the design had to say."""
    return (
        _convergence(outcome),
        *_boundary(problem, outcome, certificate),
        *problem.design.notes,
    )


def _convergence(outcome: Outcome[Point]) -> Check:
    predicted = outcome.predicted
    if outcome.interrupted:
        return Check("convergence", "failed", "interrupted", PREDICTED, "the best point so far is kept; fit again to go on")
    if outcome.converged:
        return Check("convergence", "passed", predicted, PREDICTED)
    remedy = "simplify the random effects, or look at `fit.path` for a criterion that keeps falling"
    return Check("convergence", "failed", predicted, PREDICTED, remedy)


def _boundary(problem: Problem, outcome: Outcome[Point], certificate: Certificate) -> list[Check]:
    found = []
    for term, slope in zip(problem.design.terms, certificate.slopes, strict=True):
        if slope is None:
            continue
        tolerance = -1e-6 * max(1.0, abs(outcome.point.value))
        label = f"singular: {term.spec.text}"
        certified = slope >= tolerance
        remedy = (
            "a variance is 0 or a correlation is 1 in size; fixed effects and their standard errors are right, "
            "but consider a simpler term or a boundary-avoiding prior (fit('MAP'))"
        )
        if term.columns == ("Intercept",):
            remedy += f"; rows of a level that are less alike than others are described by residual='cs(1 | {term.group.name})'"
        found.append(Check(label, "noted" if certified else "failed", slope, 0.0, remedy))
    return found
