"""A trust-region Newton method on sign-free axes.

A relative standard deviation and its negative give the same model, so no axis has a bound; a variance of 0 is an ordinary point where the
derivative vanishes. The matrix is the average information plus the curvature of the parameterisation; where it is not positive definite
its eigenvalues are taken by their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayeslmm.arrays import Array

ITERATIONS = 200

EPSILON = float(np.finfo(float).eps)

ESCAPED = 1e-8
"""Predicted decrease below which an optimum at infinity counts as reached."""


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


def _length(v: Array) -> float:
    return math.sqrt(float(v @ v))


def _restricted_step(values: Array, slope: Array, radius: float) -> Array:
    """The minimiser of the model within the radius, on the axes of the eigenvectors."""
    step = -slope / values
    if _length(step) <= radius:
        return step
    # More and Sorensen: Newton on 1/|step| - 1/radius, which is nearly linear in the shift
    shift = 0.0
    for _ in range(8):
        shifted = values + shift
        length = _length(slope / shifted)
        if abs(length - radius) < 0.05 * radius:
            break
        shift = max(0.0, shift + length**2 / float(((slope / shifted) ** 2 / shifted).sum()) * (length / radius - 1.0))
    return -slope / (values + shift)


def _secant(S: Array, step: Array, change: Array, hessian: Array) -> Array:
    """What the matrix lacks, so that (matrix + S) step = change of the gradient: the update of Dennis, Gay and Welsch (NL2SOL, 1981)."""
    along = float(change @ step)
    if along <= 1e-12 * _length(change) * _length(step):
        return S
    lacking = change - hessian @ step
    present = float(step @ S @ step)
    if present != 0.0:
        S = S * min(1.0, abs(float(step @ lacking) / present))
    gap = lacking - S @ step
    outer = np.outer(gap, change)
    return np.asarray(S + (outer + outer.T) / along - float(gap @ step) * np.outer(change, change) / along**2)


class _Model:
    """The quadratic model at a point: the matrix with or without what the secants say it lacks, whichever foretold the last gain better."""

    def __init__(self, size: int) -> None:
        self.S, self.corrected = np.zeros((size, size)), False

    def axes(self, hessian: Array) -> tuple[Array, Array]:
        """Positive eigenvalues and eigenvectors."""
        values, vectors = np.linalg.eigh(hessian + self.S if self.corrected else hessian)
        return np.maximum(np.abs(values), 1e-9 * max(1e-300, float(np.abs(values).max(initial=0.0)))), vectors

    def learn(self, before: Evaluation, after: Evaluation, hessian: Array | None) -> None:
        """From a step: which matrix foretold the gain better, and what `hessian`, that of either end, lacks."""
        assert before.hessian is not None
        step = after.x - before.x
        gain = before.value - after.value
        plain = -float(before.gradient @ step + 0.5 * step @ before.hessian @ step)
        if self.S.any():
            corrected = plain - 0.5 * float(step @ self.S @ step)
            self.corrected = abs(gain - corrected) < abs(gain - plain)
        if hessian is not None and np.isfinite(after.gradient).all():
            self.S = _secant(self.S, step, after.gradient - before.gradient, hessian)
            if not np.isfinite(self.S).all():
                self.S = np.zeros_like(self.S)
            self.corrected = self.corrected or gain < 0.5 * plain


def minimise[E: Evaluation](
    function: Callable[[Array], E],
    start: E,
    tolerance: float = 1e-12,
    iterations: int = ITERATIONS,
    escaping: Callable[[Array], bool] | None = None,
) -> Outcome[E]:
    """Minimise a function whose evaluations carry gradient and matrix.

    Stops when the predicted decrease is below `tolerance`, or below the rounding error of the value, or below `ESCAPED` where the optimum
    lies at infinity (`escaping(x)`: a correlation on its way to 1). Ctrl-C returns the best point so far.
    """
    point, path = start, [(start.x, start.value)]
    radius, predicted, stalled = 1.0, np.inf, 0
    model = _Model(len(start.x))
    before: E | None = None
    values = vectors = None
    try:
        for _ in range(iterations):
            if values is not None and vectors is not None:
                # the matrix of the last point is near enough to tell that nothing is left to gain
                predicted = float(0.5 * ((vectors.T @ point.gradient) ** 2 / values).sum())
                if predicted <= tolerance:
                    return Outcome(point, True, predicted, tuple(path))
            if point.hessian is None or not np.isfinite(point.hessian).all():
                return Outcome(point, False, predicted, tuple(path))
            if before is not None:
                model.learn(before, point, point.hessian)
                before = None
            values, vectors = model.axes(point.hessian)
            slope = vectors.T @ point.gradient
            predicted = float(0.5 * (slope**2 / values).sum())
            if predicted <= tolerance or (predicted <= ESCAPED and escaping is not None and escaping(point.x)):
                return Outcome(point, True, predicted, tuple(path))
            step = _restricted_step(values, slope, radius)
            trial = function(point.x + vectors @ step)
            path.append((trial.x, trial.value))
            modelled = -float(slope @ step + 0.5 * (values * step**2).sum())
            noise = 8.0 * EPSILON * abs(point.value)
            gain = point.value - trial.value
            ratio = gain / modelled if modelled > 0 else -1.0
            length = _length(step)
            if math.isfinite(trial.value) and modelled <= noise and abs(gain) <= 4 * noise:
                # the value can no longer tell: the gradient still can
                stalled += 1
                if _length(trial.gradient) < _length(point.gradient):
                    point = trial
                if stalled >= 3:
                    return Outcome(point, True, predicted, tuple(path))
            elif ratio > 1e-4:
                before, point = point, trial
                radius = max(radius, 3.0 * length) if ratio > 0.75 else 0.5 * length if ratio < 0.25 else radius
            else:
                if math.isfinite(trial.value):
                    model.learn(point, trial, point.hessian)
                radius = 0.25 * length
                if radius < 1e-13 * (1.0 + _length(point.x)):
                    return Outcome(point, predicted <= 1e-6, predicted, tuple(path))
    except KeyboardInterrupt:
        return Outcome(point, False, predicted, tuple(path), interrupted=True)
    return Outcome(point, False, predicted, tuple(path))
