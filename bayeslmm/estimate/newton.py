"""A trust-region Newton method on sign-free axes.

A relative standard deviation and its negative give the same model, so no axis has a bound; a variance of 0 is an ordinary point where the
derivative vanishes. The matrix is the average information plus the curvature of the parameterisation; where it is not positive definite
its eigenvalues are taken by their size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayeslmm.arrays import Array

ITERATIONS = 200


class Evaluation(Protocol):
    """What the minimiser reads of a point."""

    @property
    def x(self) -> Array: ...
    @property
    def value(self) -> float: ...
    @property
    def gradient(self) -> Array: ...
    @property
    def hessian(self) -> Array | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Outcome[E: Evaluation]:
    """The best point, whether the predicted decrease fell below the tolerance, and every evaluation (x, value)."""

    point: E
    converged: bool
    predicted: float
    path: tuple[tuple[Array, float], ...]
    interrupted: bool = False


def _restricted_step(values: Array, slope: Array, radius: float) -> Array:
    """The minimiser of the model within the radius, on the axes of the eigenvectors."""
    step = -slope / values
    if np.linalg.norm(step) <= radius:
        return step
    low, high = 0.0, float(np.linalg.norm(slope)) / radius
    for _ in range(50):
        middle = 0.5 * (low + high)
        if np.linalg.norm(slope / (values + middle)) > radius:
            low = middle
        else:
            high = middle
    return -slope / (values + high)


def minimise[E: Evaluation](function: Callable[[Array], E], start: E, tolerance: float = 1e-12, iterations: int = ITERATIONS) -> Outcome[E]:
    """Minimise a function whose evaluations carry gradient and matrix.

    Stops when the predicted decrease is below `tolerance` or below the rounding error of the value. Ctrl-C returns the best point so far.
    """
    point, path = start, [(start.x, start.value)]
    radius, predicted, stalled = 1.0, np.inf, 0
    try:
        for _ in range(iterations):
            hessian = point.hessian
            if hessian is None or not np.all(np.isfinite(hessian)):
                return Outcome(point, False, predicted, tuple(path))
            values, vectors = np.linalg.eigh(hessian)
            values = np.maximum(np.abs(values), 1e-9 * max(1e-300, float(np.abs(values).max())))
            slope = vectors.T @ point.gradient
            predicted = float(0.5 * np.sum(slope**2 / values))
            if predicted <= tolerance:
                return Outcome(point, True, predicted, tuple(path))
            step = _restricted_step(values, slope, radius)
            trial = function(point.x + vectors @ step)
            path.append((trial.x, trial.value))
            modelled = -float(slope @ step + 0.5 * np.sum(values * step**2))
            noise = 8.0 * np.finfo(float).eps * abs(point.value)
            gain = point.value - trial.value
            ratio = gain / modelled if modelled > 0 else -1.0
            length = float(np.linalg.norm(step))
            if np.isfinite(trial.value) and modelled <= noise and abs(gain) <= 4 * noise:
                # the value can no longer tell: the gradient still can
                stalled += 1
                if np.linalg.norm(trial.gradient) < np.linalg.norm(point.gradient):
                    point = trial
                if stalled >= 3:
                    return Outcome(point, True, predicted, tuple(path))
            elif ratio > 1e-4:
                point = trial
                radius = max(radius, 3.0 * length) if ratio > 0.75 else 0.5 * length if ratio < 0.25 else radius
            else:
                radius = 0.25 * length
                if radius < 1e-13 * (1.0 + float(np.linalg.norm(point.x))):
                    return Outcome(point, predicted <= 1e-6, predicted, tuple(path))
    except KeyboardInterrupt:
        return Outcome(point, False, predicted, tuple(path), interrupted=True)
    return Outcome(point, False, predicted, tuple(path))
