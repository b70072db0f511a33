"""Checks of an optimum: at a boundary (KKT), of the Monte Carlo error of a determinant.

At Sigma = T T' with null space N, stationarity in T says G T = 0 for G = d criterion / d Sigma; Sigma is then a minimum over all positive
semi-definite matrices near by just when N' G N has no negative eigenvalue. If it has one, adding a little of its eigenvector to Sigma goes
downhill, and the search goes on from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Covariance
from bayeslmm.errors import Check, Verdict
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem, with_more_probes
from bayeslmm.likelihood.random_effects.kernel import MonteCarlo, RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.structured.residual_covariance import typical_sd

NULL_DIRECTION = 1e-5
"""A direction of T smaller than this (relative standard deviation on standardized columns) counts as 0."""


SINGULAR_SD = 1e-4
"""Relative standard deviation below which a fit is called singular: the limit of lme4's isSingular."""


MAX_RESTARTS = 8
"""How often a search may be taken off a false boundary."""

TRIED_SDS = (0.3, 1.0, 3.0)
"""Relative standard deviations at which a direction that is 0 is tried."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryCheck:
    """Per term: the null directions of Sigma and the smallest derivative along them (None where Sigma is not singular).

    nearly : whether a term has a relative standard deviation below 1e-4 on standardized columns
    """

    slopes: tuple[float | None, ...]
    directions: tuple[Array | None, ...]
    nearly: bool

    @property
    def singular(self) -> bool:
        return any(slope is not None for slope in self.slopes)

    @property
    def worst(self) -> float:
        return min((slope for slope in self.slopes if slope is not None), default=0.0)


def is_regular(T: Array, limit: float) -> bool:
    """Whether no singular value of a lower triangular T can be below `limit`: |det T| bounds the smallest, the others are at most |T|."""
    diagonal = np.abs(T.diagonal())
    smallest = float(diagonal.min(initial=np.inf))
    if len(T) == 1 or smallest < limit:
        return smallest >= limit
    return float(diagonal.prod()) >= limit * math.sqrt(float(np.vdot(T, T))) ** (len(T) - 1)


def null_directions(covariance: Covariance) -> int:
    """How many a structure of low rank has wherever it is: its boundary is a rank below its own."""
    return int((~covariance.factor(covariance.start()).any(axis=0)).sum())


def smallest_size(sizes: Array, below: int) -> Array:
    """The smallest singular value of T that need not be 0, (...); sizes : (..., q) in decreasing order."""
    return np.asarray(sizes[..., : sizes.shape[-1] - below].min(axis=-1, initial=np.inf))


def check_boundary(problem: Problem, point: CriterionPoint, restricted: bool) -> BoundaryCheck:
    """Look along the null directions of every term's Sigma."""
    slopes: list[float | None] = []
    directions: list[Array | None] = []
    gradients: list[Array] | None = None
    unit, nearly, k = typical_sd(problem, point.x), False, len(problem.random.terms)
    for i, term in enumerate(problem.random.terms):
        T = term.covariance.factor(point.x[term.part])
        if point.state is None or is_regular(T, SINGULAR_SD * unit):
            slopes.append(None)
            directions.append(None)
            continue
        left, sizes, _ = np.linalg.svd(T)
        below = null_directions(term.covariance)
        nearly = nearly or bool(smallest_size(sizes, below) < SINGULAR_SD * unit)
        null = left[:, sizes < NULL_DIRECTION * unit]
        if null.shape[1] <= below:
            slopes.append(None)
            directions.append(None)
            continue
        if gradients is None:
            try:
                gradients = point.state.sigma_gradients(restricted, point.sigma2)
            except np.linalg.LinAlgError:  # so near to a likelihood without a bound that nothing can be told of what is beside
                return BoundaryCheck((None,) * k, (None,) * k, nearly=True)
        if term.covariance.invariance == "any":
            values, vectors = np.linalg.eigh(null.T @ gradients[i] @ null)
            slopes.append(float(values[0]))
            directions.append(null @ vectors[:, 0])
        else:
            slope, direction = _check_structured(gradients[i], T, NULL_DIRECTION * unit)
            slopes.append(slope)
            directions.append(direction)
    return BoundaryCheck(tuple(slopes), tuple(directions), nearly)


def _check_structured(G: Array, T: Array, limit: float) -> tuple[float, Array]:
    """Diagonal and one-scale structures: each variance that is 0 on its own."""
    zero = np.linalg.norm(T, axis=1) < limit
    if not zero.any():
        return 0.0, np.zeros(len(T))
    slopes = np.where(zero, np.diagonal(G), np.inf)
    worst = int(np.argmin(slopes))
    return float(slopes[worst]), np.eye(len(T))[worst]


def step_off(problem: Problem, point: CriterionPoint, certificate: BoundaryCheck, restricted: bool) -> CriterionPoint | None:
    """A lower point off the boundary, along the steepest null direction; None if there is none."""
    unit = typical_sd(problem, point.x) ** 2
    for i in np.argsort([0.0 if s is None else s for s in certificate.slopes]):
        slope, direction = certificate.slopes[i], certificate.directions[i]
        if slope is None or direction is None or slope >= 0:
            continue
        term = problem.random.terms[i]
        Sigma = term.covariance.matrix(point.x[term.part])
        size = max(1e-2 * unit, float(np.trace(Sigma)) * 1e-2)
        for _ in range(12):
            x = point.x.copy()
            x[term.part] = term.covariance.from_matrix(Sigma + size * np.outer(direction, direction))
            trial = problem.criterion.at(x, restricted)
            if trial.value < point.value:
                return trial
            size *= 0.2
    return None


def step_beyond(problem: Problem, point: CriterionPoint, certificate: BoundaryCheck, restricted: bool) -> CriterionPoint | None:
    """A lower point far from a boundary that is a minimum, along the null directions; None if none is seen.

    Few levels, or a term that another one nearly contains, may give the likelihood a maximum at 0 and a higher one elsewhere.
    """
    unit, found = typical_sd(problem, point.x) ** 2, []
    for term, direction in zip(problem.random.terms, certificate.directions, strict=True):
        if direction is None:
            continue
        Sigma = term.covariance.matrix(point.x[term.part])
        for size in TRIED_SDS:
            x = point.x.copy()
            x[term.part] = term.covariance.from_matrix(Sigma + unit * size**2 * np.outer(direction, direction))
            found.append(x)
    values = problem.criterion.values(np.array(found), restricted)
    least = int(np.argmin(values))
    if values[least] >= point.value - 1e-9 * max(1.0, abs(point.value)):
        return None
    return problem.criterion.at(found[least], restricted)


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
