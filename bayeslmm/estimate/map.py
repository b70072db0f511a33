"""The marginal posterior mode as an estimate: alpha and beta integrated out, priors on sds and correlations as a user states them.

The mode is that of the density of (sds, correlations, sigma), without the Jacobian of any axis: under flat priors it is the REML estimate,
and blme's sd^1.5 keeps it off the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array, frozen
from bayeslmm.errors import Check
from bayeslmm.estimate.boundary import NULL
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.likelihood.levels_kernel import Solution
from bayeslmm.likelihood.problem import Problem

SMALL = 1e-4
"""A relative sd below this, on conditioned columns, counts as singular, as it does for REML."""


@dataclass(frozen=True, slots=True, eq=False)
class Maximum:
    """Where a posterior density is highest.

    x, sigma : on conditioned columns; solution : the profile in alpha there, its prior included; value : log density
    """

    x: Array
    sigma: float
    solution: Solution
    value: float
    path: tuple[tuple[Array, float], ...]
    converged: bool
    predicted: float
    interrupted: bool


def map_summary(problem: Problem, maximum: Maximum, elapsed: float) -> Estimate:
    """What follows from the mode; `criterion` is the restricted criterion there, without the prior, as elsewhere."""
    c = problem.conditioning
    x, singular = _vanished(problem, maximum.x)
    inverse = maximum.solution.information_inverse[0]
    vcov = maximum.sigma**2 * c.y_scale**2 * (c.back @ inverse @ c.back.T)
    point = problem.criterion.at(x, True)
    # sigma is at the mode too, not profiled out
    ratio = point.sigma2 / maximum.sigma**2
    criterion = point.value + problem.criterion.df(restricted=True) * (ratio - 1.0 - float(np.log(ratio)))
    return Estimate(
        method="MAP",
        x=frozen(x),
        theta=frozen(problem.theta(x)),
        sigma=float(np.sqrt(problem.sigma2(maximum.sigma**2))),
        alpha=frozen(problem.alpha(maximum.solution.alpha[0])),
        vcov=frozen(0.5 * (vcov + vcov.T)),
        criterion=criterion,
        gradient=frozen(point.gradient),
        hessian=None if point.hessian is None else frozen(point.hessian),
        path=tuple((at, 2.0 * value) for at, value in maximum.path),
        converged=maximum.converged,
        interrupted=maximum.interrupted,
        singular=singular,
        checks=(_convergence(maximum), *_boundary(problem, x), *problem.design.notes),
        elapsed=elapsed,
    )


def _vanished(problem: Problem, x: Array) -> tuple[Array, bool]:
    """x with the directions that fell towards 0 at exactly 0, and whether there were any."""
    out, singular = x.copy(), False
    for term in problem.random.terms:
        T = term.covariance.factor(x[term.part])
        left, sizes, right = np.linalg.svd(T)
        singular = singular or bool(sizes.min(initial=1.0) < SMALL)
        if sizes.min(initial=1.0) < SMALL:
            kept = (left * np.where(sizes < SMALL, 0.0, sizes)) @ right
            out[term.part] = term.covariance.from_matrix(kept @ kept.T)
    return out, singular


def _convergence(maximum: Maximum) -> Check:
    if maximum.interrupted:
        return Check("convergence", "failed", "interrupted", 1e-8, "the best point so far is kept; fit again to go on")
    if maximum.converged:
        return Check("convergence", "passed", maximum.predicted, 1e-8)
    return Check("convergence", "failed", maximum.predicted, 1e-8, "give proper priors, or simplify the random effects")


def _boundary(problem: Problem, x: Array) -> list[Check]:
    found = []
    for term, own in zip(problem.design.terms, problem.random.terms, strict=True):
        smallest = float(np.linalg.svd(own.covariance.factor(x[own.part]), compute_uv=False).min(initial=1.0))
        if smallest < NULL:
            remedy = 'the mode lies on the boundary: Priors(preset="blme") keeps it off'
            found.append(Check(f"singular: {term.spec.text}", "noted", smallest, NULL, remedy))
    return found
