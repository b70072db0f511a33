"""Closest members of a structure: damped least squares on the free parameters, for structures without a closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from bayeslmm.arrays import Array

Residual = Callable[[Array], tuple[Array, Array]]


def least_squares(residual: Residual, start: Array, radius: float = np.inf, iterations: int = 200) -> tuple[Array, float]:
    """Levenberg-Marquardt: x and the sum of squares reached.

    residual(x) gives e (m,) and de/dx (m, size); NaN is stepped away from. No entry moves further than `radius` from its start.
    """
    x, damping = start, 1e-3
    error, slope = residual(x)
    total = float(error @ error)
    if not (np.isfinite(total) and np.isfinite(slope).all()):
        return x, np.inf
    for _ in range(iterations):
        curvature, downhill = slope.T @ slope, -slope.T @ error
        ridge = damping * (np.diag(curvature) + 1e-12 * max(float(np.trace(curvature)), 1e-300))
        step = np.linalg.lstsq(curvature + np.diag(ridge), downhill, rcond=None)[0]
        moved = np.clip(x + step, start - radius, start + radius)
        trial_error, trial_slope = residual(moved)
        trial = float(trial_error @ trial_error)
        if trial < total and np.isfinite(trial_slope).all():
            gain, total = total - trial, trial
            x, error, slope, damping = moved, trial_error, trial_slope, max(damping / 10.0, 1e-15)
            if gain <= 1e-16 * total or total < 1e-30:
                break
        else:
            damping *= 10.0
            if damping > 1e12:
                break
    return x, total


def best_of(residual: Residual, starts: Iterable[Array], radius: float = np.inf) -> Array:
    """The x with the smallest sum of squares over several starts."""
    found = [least_squares(residual, start, radius) for start in starts]
    return min(found, key=lambda pair: pair[1])[0]
