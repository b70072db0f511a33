"""The mode of a posterior density and its curvature, by the same trust-region Newton method as REML."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.bayes.density import Density
from bayeslmm.estimate.estimate import EXACT, search
from bayeslmm.estimate.newton import minimise
from bayeslmm.likelihood.kernel import RandomEffectsKernel

STEP = 2e-3
"""Of second differences of values, on axes where a posterior sd is .1 to 1."""

GRADIENT_STEP = 1e-4
"""Of differences of gradients."""

WORTH, FEW = 16, 12
"""With structured errors, values are taken where this many share a batch and dimensions are few: there are 2 d^2 of them."""

ITERATIONS = 60
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ModePoint:
    """Minus the log density, as the minimiser reads it."""

    x: Array
    value: float
    gradient: Array
    hessian: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """Where the density is highest.

    precision : (d, d) minus the Hessian of the log density; predicted : what another step could gain
    """

    phi: Array
    value: float
    gradient: Array
    precision: Array
    converged: bool
    predicted: float
    path: tuple[tuple[Array, float], ...]
    interrupted: bool

    @property
    def evaluations(self) -> int:
        return len(self.path)


def precision(density: Density, phi: Array) -> Array:
    """Minus the Hessian of the log density: from values in one batch, or from gradients where a batch costs as much as its points."""
    d, many = density.size, density.value_batch
    if many > 1 and isinstance(density.problem.criterion.kernel, RandomEffectsKernel):
        return _from_values(density, phi)
    if density.pooled is not None and many >= WORTH and d <= FEW:
        return _from_values(density, phi)
    rows = [density.at(phi + GRADIENT_STEP * e).gradient - density.at(phi - GRADIENT_STEP * e).gradient for e in np.eye(d)]
    H = -np.array(rows) / (2.0 * GRADIENT_STEP)
    return 0.5 * (H + H.T)


def _from_values(density: Density, phi: Array) -> Array:
    """Central second differences, 1 + 2 d + 2 d (d - 1) points at once."""
    d = len(phi)
    E = STEP * np.eye(d)
    rows, columns = np.tril_indices(d, -1)
    corners = [s * E[rows] + t * E[columns] for s in (1, -1) for t in (1, -1)]
    values = density.values(phi + np.concatenate([np.zeros((1, d)), E, -E, *corners]))
    centre, plus, minus = values[0], values[1 : d + 1], values[d + 1 : 2 * d + 1]
    pp, pm, mp, mm = values[2 * d + 1 :].reshape(4, -1)
    H = np.diag((plus + minus - 2.0 * centre) / STEP**2)
    H[rows, columns] = H[columns, rows] = (pp - pm - mp + mm) / (4.0 * STEP**2)
    return -H


def start(density: Density) -> Array:
    """phi of the REML estimate, variances of 0 lifted; of the kernel's own start where there is no estimate."""
    problem = density.problem
    outcome, _ = search(problem, True, problem.start)
    point = outcome.point
    if np.isfinite(point.value) and point.sigma2 > EXACT:
        phi = density.phi_of(point.x, float(np.sqrt(point.sigma2)))
        if np.isfinite(density.at(phi).value):
            return phi
    return density.phi_of(problem.start, 0.7)


def find_mode(density: Density, begin: Array | None = None) -> Mode:
    """Climb from `begin`, by default from the REML estimate."""

    def evaluate(phi: Array) -> ModePoint:
        found = density.at(phi)
        if not np.isfinite(found.value):
            return ModePoint(phi, np.inf, found.gradient, None)
        return ModePoint(phi, -found.value, -found.gradient, precision(density, phi))

    outcome = minimise(evaluate, evaluate(start(density) if begin is None else begin), TOLERANCE, ITERATIONS)
    point = outcome.point
    H = np.eye(density.size) if point.hessian is None else point.hessian
    return Mode(point.x, -point.value, -point.gradient, H, outcome.converged, outcome.predicted, outcome.path, outcome.interrupted)
