"""The posterior mode and its curvature, by the same trust-region Newton method as REML; the MAP estimate.

The mode is that of the density of (sds, correlations, sigma), without the Jacobian of any axis: under flat priors it is the REML estimate,
and blme's sd^1.5 keeps it off the boundary.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm.bayes.log_posterior.density import Density, density
from bayeslmm.errors import Check, FormatError, MismatchError, PriorError
from bayeslmm.estimate.batch_descent import scaled_lines, shared_line
from bayeslmm.estimate.checks import NULL_DIRECTION
from bayeslmm.estimate.estimate import EXACT_VARIANCE, Estimate, check_not_exact, search
from bayeslmm.estimate.newton import Interrupted, limit_of_convergence, minimise
from bayeslmm.likelihood.kernel import Solution
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.structured.residual_covariance import typical_sd
from bayeslmm.results.store import CRITERION_AGREEMENT
from bayeslmm.specification.priors import Priors

VALUE_STEP = 2e-3
"""Of second differences of values, on axes where a posterior sd is .1 to 1."""

GRADIENT_STEP = 1e-4
"""Of differences of gradients."""

GRADIENT_VALUES = 2
"""Batches of values that cost what a gradient does."""

WORTH, FEW = 16, 12
"""With structured errors, values are taken where this many share a batch and dimensions are few: there are 2 d^2 of them."""

NEUTRAL_SIGMA = 0.7
"""sigma on the standardized scale, where no estimate says where to begin: half the variance of y is error."""

MODE_ITERATIONS = 60
MODE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ModePoint:
    """Minus the log density, as the minimiser reads it."""

    x: Array
    value: float
    gradient: Array
    hessian: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMode:
    """Where the density is highest.

    precision : (d, d) minus the Hessian of the log density; predicted : what another step could gain
    others : lower modes, where covariates have another slope between levels than within them
    """

    phi: Array
    value: float
    gradient: Array
    precision: Array
    converged: bool
    predicted: float
    path: tuple[tuple[Array, float], ...]
    others: tuple[PosteriorMode, ...] = ()

    @property
    def evaluations(self) -> int:
        return len(self.path)

    @property
    def log_mass(self) -> float:
        """Log of the integral of the density around the mode, as a normal has it, but for a constant of all modes."""
        return self.value - 0.5 * float(np.log(np.maximum(np.linalg.eigvalsh(self.precision), 0.05)).sum())


def mode_precision(density: Density, phi: Array) -> Array:
    """Minus the Hessian of the log density: from values in one batch, or from gradients where a batch costs as much as its points."""
    d, many = density.size, density.value_batch
    if many > 1 and 2 * d * d <= GRADIENT_VALUES * 2 * d * many and isinstance(density.problem.criterion.kernel, RandomEffectsKernel):
        return _from_values(density, phi)
    if density.pooled is not None and many >= WORTH and d <= FEW:
        return _from_values(density, phi)
    rows = [density.at(phi + GRADIENT_STEP * e).gradient - density.at(phi - GRADIENT_STEP * e).gradient for e in np.eye(d)]
    H = -np.array(rows) / (2.0 * GRADIENT_STEP)
    return 0.5 * (H + H.T)


@np.errstate(invalid="ignore")
def _from_values(density: Density, phi: Array) -> Array:
    """Central second differences, 1 + 2 d + 2 d (d - 1) points at once."""
    d = len(phi)
    E = VALUE_STEP * np.eye(d)
    rows, columns = np.tril_indices(d, -1)
    corners = [s * E[rows] + t * E[columns] for s in (1, -1) for t in (1, -1)]
    values = density.values(phi + np.concatenate([np.zeros((1, d)), E, -E, *corners]))
    centre, plus, minus = values[0], values[1 : d + 1], values[d + 1 : 2 * d + 1]
    pp, pm, mp, mm = values[2 * d + 1 :].reshape(4, -1)
    H = np.diag((plus + minus - 2.0 * centre) / VALUE_STEP**2)
    H[rows, columns] = H[columns, rows] = (pp - pm - mp + mm) / (4.0 * VALUE_STEP**2)
    return -H


def mode_start(density: Density) -> Array:
    """phi of the REML estimate, variances of 0 lifted; of the kernel's own start where there is no estimate."""
    problem = density.problem
    outcome, _ = search(problem, True)
    point = outcome.point
    if np.isfinite(point.value) and point.sigma2 > EXACT_VARIANCE:
        phi = density.phi_of(point.x, float(np.sqrt(point.sigma2)))
        if np.isfinite(density.at(phi).value):
            return phi
    return density.phi_of(problem.start, NEUTRAL_SIGMA)


def find_mode(density: Density, begin: Array | None = None) -> PosteriorMode:
    """Climb from `begin`, by default from the REML estimate, and from other valleys that the criterion has beside the top.

    Ctrl-C raises `Interrupted`, with points of this density alone.
    """
    try:
        first = mode_start(density) if begin is None else begin
    except Interrupted:
        raise KeyboardInterrupt from None
    found = _climb(density, first)
    if begin is None and not found.converged:
        # where the likelihood has no bound, REML ends at a sigma near 0, where densities are rounding; priors have their mode elsewhere
        again = _climb(density, density.phi_of(density.problem.start, NEUTRAL_SIGMA))
        found = again if again.converged else found
    return found if begin is not None or not found.converged else _with_others(density, found)


def _climb(density: Density, begin: Array) -> PosteriorMode:
    def evaluate(phi: Array) -> ModePoint:
        found = density.at(phi)
        precision = mode_precision(density, phi) if np.isfinite(found.value) else None
        if precision is None or not np.isfinite(precision).all():
            return ModePoint(phi, np.inf, found.gradient, None)
        return ModePoint(phi, -found.value, -found.gradient, precision)

    outcome = minimise(evaluate, evaluate(begin), MODE_TOLERANCE, MODE_ITERATIONS)
    point = outcome.point
    H = np.eye(density.size) if point.hessian is None else point.hessian
    return PosteriorMode(point.x, -point.value, -point.gradient, H, outcome.converged, outcome.predicted, outcome.path)


def _with_others(density: Density, mode: PosteriorMode) -> PosteriorMode:
    """The highest of the modes in the valleys beside this one, with the lower ones that hold a share of the posterior."""
    found = [mode]
    for begin in _starts_aside(density, mode):
        try:
            other = _climb(density, begin)
        except Interrupted as stopped:
            raise Interrupted((*(step for own in found for step in own.path), *stopped.path)) from None
        apart = all(float((other.phi - m.phi) @ m.precision @ (other.phi - m.phi)) > APART**2 for m in found)
        if other.converged and apart and np.linalg.eigvalsh(other.precision).min() > 0.0:
            found.append(other)
    first = max(found, key=lambda own: own.value)
    most = max(own.log_mass for own in found)
    rest = tuple(own for own in found if own is not first and own.log_mass > most + LEAST_LOG_SHARE)
    return replace(first, others=rest, path=tuple(step for own in found for step in own.path)) if len(found) > 1 else first


def _starts_aside(density: Density, mode: PosteriorMode) -> list[Array]:
    """phi in other valleys along the sizes of random effects, or what errors share, sigma everywhere the best for them."""
    problem = density.problem
    if problem.is_iterative or not problem.size or problem.criterion.held is not None:
        return []
    x, _ = density.kernel_points(mode.phi[None])
    lines = scaled_lines(problem, x[0], typical_sd(problem, x[0])) + shared_line(problem, x[0])
    begins = []
    for line in lines:
        sigma2 = (problem.criterion.at(own, restricted=True).sigma2 for own in line.points)
        phi = np.array([density.phi_of(x, float(np.sqrt(s2))) for x, s2 in zip(line.points, sigma2, strict=True) if s2 > 0.0])
        if len(phi) < len(line.points):
            continue
        begins += [phi[i] for i in line.other_valleys(-density.values(phi), -mode.value)]
    return begins


APART = 3.0
"""Posterior sds between two modes that are not one."""

LEAST_LOG_SHARE = -14.0
"""Log share of the posterior below which a mode is left out: no draw would fall there."""

SINGULAR_MODE_SD = 1e-4
"""A relative sd below this, on standardized columns, counts as singular, as it does for REML."""


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorMaximum:
    """Where a posterior density is highest.

    x, sigma : on standardized columns; solution : the profile in alpha there, its prior included; value : log density
    """

    x: Array
    sigma: float
    solution: Solution
    value: float
    path: tuple[tuple[Array, float], ...]
    converged: bool
    predicted: float
    interrupted: bool


def map_summary(problem: Problem, maximum: PosteriorMaximum, elapsed: float) -> Estimate:
    """What follows from the mode and from how it was found."""
    x, singular = _set_vanishing_to_zero(problem, maximum.x)
    return Estimate(
        method="MAP",
        **_estimates_of(problem, x, maximum.sigma, maximum.solution),
        path=tuple((at, 2.0 * value) for at, value in maximum.path),
        converged=maximum.converged,
        interrupted=maximum.interrupted,
        singular=singular,
        checks=(_convergence(maximum), *_boundary(problem, x), *problem.design.notes),
        elapsed=elapsed,
    )


def _estimates_of(problem: Problem, x: Array, sigma: float, solution: Solution) -> dict[str, Any]:
    """What follows from a point alone; `criterion` is the restricted criterion there, without the prior, as elsewhere."""
    c = problem.standardization
    vcov = sigma**2 * c.y_scale**2 * (c.back @ solution.information_inverse[0] @ c.back.T)
    point = problem.criterion.at(x, True)
    # sigma is at the mode too, not profiled out
    ratio = point.sigma2 / sigma**2
    return {
        "x": freeze(x),
        "theta": freeze(problem.theta(x)),
        "sigma": float(np.sqrt(problem.sigma2(sigma**2))),
        "alpha": freeze(problem.alpha(solution.alpha[0])),
        "vcov": freeze(0.5 * (vcov + vcov.T)),
        "criterion": point.value + problem.criterion.df(restricted=True) * (ratio - 1.0 - float(np.log(ratio))),
        "gradient": freeze(point.gradient),
        "hessian": None if point.hessian is None else freeze(point.hessian),
    }


def mode_again(problem: Problem, priors: Priors | None, estimate: Estimate) -> dict[str, Any]:
    """The estimates of a saved mode evaluated again, at the point of its path that they were made of: the one nearest to them.

    `path` : twice minus the log density there, stored and evaluated again. Errors: FormatError for a path of other parameters.
    """
    target = density(problem, priors).without_volume()
    points = [at for at, _ in estimate.path]
    if not points or any(at.shape != (target.size,) for at in points):
        raise FormatError(f"the path of the search has not the {target.size} parameters of the posterior", "path", "fit the model again")
    x, s = target.kernel_points(np.array(points))
    theta = np.array([problem.theta(at) for at in x])  # of sums of rows, the axes of x may have other signs
    distance = np.sum((theta - estimate.theta) ** 2, axis=1) + (1.0 - estimate.sigma / (s * target.sigma_unit)) ** 2
    nearest = int(np.argmin(distance))
    phi = points[nearest][None]
    found = target.integrate(problem.criterion.kernel.solve(x[[nearest]]), s[[nearest]] ** 2, phi)
    value = -2.0 * float(target.at(phi[0]).value)
    stored = estimate.path[nearest][1]
    if not abs(stored - value) <= CRITERION_AGREEMENT * max(1.0, abs(value)):
        what = f"twice minus the log density of the mode is {stored:.6f} in the saved fit; evaluated again it is {value:.6f}"
        raise MismatchError(what, "path", "fit the model again")
    return _estimates_of(problem, _set_vanishing_to_zero(problem, x[nearest])[0], float(s[nearest]), found.solution)


def _set_vanishing_to_zero(problem: Problem, x: Array) -> tuple[Array, bool]:
    """x with the directions that fell towards 0 at exactly 0, and whether there were any."""
    out, singular = x.copy(), False
    for term in problem.random.terms:
        T = term.covariance.factor(x[term.part])
        left, sizes, right = np.linalg.svd(T)
        singular = singular or bool(sizes.min(initial=1.0) < SINGULAR_MODE_SD)
        if sizes.min(initial=1.0) < SINGULAR_MODE_SD:
            kept = (left * np.where(sizes < SINGULAR_MODE_SD, 0.0, sizes)) @ right
            out[term.part] = term.covariance.from_matrix(kept @ kept.T)
    return out, singular


def _convergence(maximum: PosteriorMaximum) -> Check:
    if maximum.interrupted:
        return Check("convergence", "failed", "interrupted", 1e-8, "the best point so far is kept; fit again to go on")
    if maximum.converged:
        return Check("convergence", "passed", maximum.predicted, limit_of_convergence(maximum.predicted, 1e-8))
    return Check("convergence", "failed", maximum.predicted, 1e-8, "give proper priors, or simplify the random effects")


def _boundary(problem: Problem, x: Array) -> list[Check]:
    found = []
    for term, own in zip(problem.design.terms, problem.random.terms, strict=True):
        smallest = float(np.linalg.svd(own.covariance.factor(x[own.part]), compute_uv=False).min(initial=1.0))
        if smallest < NULL_DIRECTION:
            remedy = 'the mode lies on the boundary: Priors(preset="blme") keeps it off'
            found.append(Check(f"singular: {term.spec.text}", "noted", smallest, NULL_DIRECTION, remedy))
    return found


def map_estimate(model: Any) -> Estimate:
    """The mode of p(sds, correlations, sigma | y), alpha and beta integrated out.

    Stated on the parameters themselves, not on the axes of the search: flat priors give the REML estimate.
    Raises PriorError where flat priors leave the parameters unidentified.
    """
    begin = time.perf_counter()
    problem = model.problem
    check_not_exact(problem)
    target = density(problem, model.spec.priors).without_volume()
    scales = [row for own in target.priors.terms for row in own.sds]
    loose = [row for row in scales if row.prior.family == "flat"]
    if problem.design.unidentified and loose:
        raise PriorError(problem.design.unidentified[0].what, loose[0].label, "give it a proper prior, or leave it to the default")
    try:
        mode = find_mode(target)
        phi, value, path, converged, predicted, interrupted = mode.phi, mode.value, mode.path, mode.converged, mode.predicted, False
    except Interrupted as stopped:
        path, converged, predicted, interrupted = stopped.path, False, np.nan, True
        phi, value = min(path, key=lambda evaluation: evaluation[1])
        value = -value
    x, s = target.kernel_points(phi[None])
    found = target.integrate(problem.criterion.kernel.solve(x), s**2, phi[None])
    maximum = PosteriorMaximum(x[0], float(s[0]), found.solution, value, path, converged, predicted, interrupted)
    if not np.isfinite(value):
        raise PriorError("the posterior density is 0 wherever it was tried", "priors", "widen the uniform priors")
    return map_summary(problem, maximum, time.perf_counter() - begin)
