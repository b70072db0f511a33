"""The KKT check of a boundary: is a variance of 0 an optimum, or only a point where the derivative in theta vanishes?

At Sigma = T T' with null space N, stationarity in T says G T = 0 for G = d criterion / d Sigma; Sigma is then a minimum over all positive
semi-definite matrices near by just when N' G N has no negative eigenvalue. If it has one, adding a little of its eigenvector to Sigma goes
downhill, and the search goes on from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import unit_sds

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


def typical_sd(problem: Problem, x: Array) -> float:
    """The size of the errors in units of sigma: far from 1 where the covariate of a variance function lies far from 0."""
    if problem.structured is None or not problem.design.variance:
        return 1.0
    return float(np.sqrt(np.mean(unit_sds(problem, x) ** 2) * problem.standardization.weight_mean))


def check_boundary(problem: Problem, point: CriterionPoint, restricted: bool) -> BoundaryCheck:
    """Look along the null directions of every term's Sigma."""
    slopes: list[float | None] = []
    directions: list[Array | None] = []
    gradients: list[Array] | None = None
    unit, nearly = typical_sd(problem, point.x), False
    for i, term in enumerate(problem.random.terms):
        T = term.covariance.factor(point.x[term.part])
        if point.state is None or is_regular(T, SINGULAR_SD * unit):
            slopes.append(None)
            directions.append(None)
            continue
        left, sizes, _ = np.linalg.svd(T)
        nearly = nearly or bool(sizes.min(initial=np.inf) < SINGULAR_SD * unit)
        null = left[:, sizes < NULL_DIRECTION * unit]
        if null.shape[1] == 0:
            slopes.append(None)
            directions.append(None)
            continue
        if gradients is None:
            gradients = point.state.sigma_gradients(restricted, point.sigma2)
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
