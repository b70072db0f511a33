"""A trust-region Newton method on sign-free parameters, with pivoted unstructured terms.

A relative standard deviation and its negative give the same model, so no axis has a bound; a variance of 0 is an ordinary point where the
derivative vanishes. The matrix is the average information plus the curvature of the parameterisation; where it is not positive definite
its eigenvalues are taken by their size.

Where the first pivot of T is small and the rows below it are not, as in `T = [[0, 0], [a, b]]`, the entries of a row may be turned into
one another without a change of Sigma = T T': the criterion is level along a circle, and no quadratic model follows that. With the largest
pivots first (a pivoted Cholesky factorisation) what is small stands last and nothing turns. T is the same, its rows are exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import lapack

from bayeslmm._arrays import Array
from bayeslmm.estimate.rotation import Rotation, rotate_problem
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import parameter_units

MAX_EVALUATIONS = 200

DECREASE_TOLERANCE = 1e-12
"""Predicted decrease at which a search ends."""

REFINED_DECREASE = 1e-16
"""Predicted decrease, 1e-8 standard errors from the optimum, above which a last step is taken that no value can judge."""

ROUGH_TOLERANCE = 1e-8
"""Tolerance above which a search is not to end at an optimum: it scouts, or its value is known no better."""

MACHINE_EPSILON = float(np.finfo(float).eps)

DIVERGED_DECREASE = 1e-8
"""Predicted decrease below which an optimum at infinity counts as reached."""


ROUNDING_DECREASE = 1e-8
"""Predicted decrease below which a value that rises by as much instead is only rounding, larger than its size alone lets one think."""

MEASURE_AFTER = 30
"""Evaluations, more where parameters are more, after which the matrix is measured: differences of gradients cost one each."""

STANDSTILL_DECREASE = 1e-6
"""Predicted decrease below which a search that rounding keeps from going on has arrived: gradients that promise more are rounding too."""

STALLED_DECREASE = 1.0
"""Predicted decrease (of -2 log likelihood) below which a long search is stalled by a poor Hessian, which is then measured."""

DIFFERENCE_STEP = 1e-5
"""Step of those differences, relative to 1 + |x|."""

SADDLE = 2e-6
"""Negative curvature, relative to 1 and to the value, at which a stationary point is no minimum: half of it is a slope in Sigma."""

AWAY = 0.3
"""Length of the first step away from such a point; five times shorter until the value falls."""

SECANT_DISAGREEMENT = 0.05
"""Relative difference of the actual from the predicted decrease above which a secant update of the Hessian is tried."""


type Test = Callable[[Array], bool]


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
class _LeftPoint:
    """What is remembered of a point that the search has left: not the state behind it, which may be hundreds of megabytes."""

    x: Array
    value: float
    gradient: Array
    hessian: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome[E: Evaluation]:
    """The best point, whether the predicted decrease fell below the tolerance, and every evaluation (x, value).

    left : the search was broken off at a point that `leaving` did not want to go on from
    """

    point: E
    converged: bool
    predicted: float
    path: tuple[tuple[Array, float], ...]
    left: bool = False


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a search, with every evaluation (x, value) so far: for the verb that promises to keep what it has."""

    def __init__(self, path: tuple[tuple[Array, float], ...]) -> None:
        super().__init__()
        self.path = path


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
    outer, own = gap[:, None] * change, change[:, None] * change
    return np.asarray(S + (outer + outer.T - own * (float(gap @ step) / along)) / along)


def _decrease(hessian: Array, gradient: Array) -> float | None:
    """What a full step would gain by a positive definite matrix; None where it is not."""
    if not len(gradient):
        return 0.0
    _, step, failed = lapack.dposv(hessian, gradient)
    return None if failed else 0.5 * float(gradient @ step)


def _finite(M: Array) -> bool:
    """Whether all entries are numbers: their sum then is one."""
    return math.isfinite(float(M.sum()))


class _QuadraticModel:
    """The quadratic model at a point: the matrix with or without what the secants say it lacks, whichever foretold the last gain better."""

    def __init__(self, size: int) -> None:
        self.S, self.corrected, self.taught = np.zeros((size, size)), False, False

    def axes(self, hessian: Array) -> tuple[Array, Array]:
        """Positive eigenvalues and eigenvectors."""
        signed, vectors = np.linalg.eigh(hessian + self.S if self.corrected else hessian)
        values = np.abs(signed)
        return np.maximum(values, 1e-9 * max(1e-300, float(values.max(initial=0.0)))), vectors

    def learn(self, before: Evaluation, after: Evaluation, hessian: Array | None) -> None:
        """From a step: which matrix foretold the gain better, and what `hessian`, that of either end, lacks."""
        assert before.hessian is not None
        step = after.x - before.x
        gain = before.value - after.value
        plain = -float(before.gradient @ step + 0.5 * step @ before.hessian @ step)
        if self.taught:
            corrected = plain - 0.5 * float(step @ self.S @ step)
            self.corrected = abs(gain - corrected) < abs(gain - plain)
        if hessian is not None and _finite(after.gradient):
            S = _secant(self.S, step, after.gradient - before.gradient, hessian)
            self.taught = _finite(S)
            self.S = S if self.taught else np.zeros_like(S)
            self.corrected = self.corrected or gain < 0.5 * plain


class _Search[E: Evaluation]:
    """The best point so far, what is believed about its surroundings, and every evaluation."""

    def __init__(self, function: Callable[[Array], E], start: E, tolerance: float, diverging: Test | None, leaving: Test | None) -> None:
        self.function, self.tolerance, self.diverging, self.leaving = function, tolerance, diverging, leaving
        self.point = start
        self.before: _LeftPoint | None = None
        self.path = [(start.x, start.value)]
        self.radius, self.predicted, self.stalled, self.surprised = 1.0, np.inf, 0, False
        self.model = _QuadraticModel(len(start.x))
        self.axes: tuple[Array, Array] | None = None
        self.measured, self.definite = 0, True

    def outcome(self, converged: bool, *, left: bool = False) -> Outcome[E]:
        return Outcome(self.point, converged, self.predicted, tuple(self.path), left)

    def _gain(self, values: Array, vectors: Array, gradient: Array) -> float:
        slope = vectors.T @ gradient
        return 0.5 * float(slope @ (slope / values))

    def is_settled(self) -> Outcome[E] | None:
        """Whether anything is left to gain at the point; the matrix of the last point is asked first, it is often near enough to tell."""
        point = self.point
        if self.axes is not None:
            self.predicted = self._gain(*self.axes, point.gradient)
            if self.predicted <= self.tolerance:
                return self.outcome(True)
        if point.hessian is None or not _finite(point.hessian):
            return self.outcome(False)
        if len(self.path) - self.measured >= max(MEASURE_AFTER, len(point.x)) and self.predicted < STALLED_DECREASE:
            self._measure(point.hessian)
        if self.before is not None:
            if self.surprised:
                self.model.learn(self.before, point, point.hessian)
            self.before = None
        self.definite = False
        if not self.model.corrected:
            left = _decrease(point.hessian, point.gradient)
            self.definite = left is not None
            if left is not None and left <= self.tolerance:
                self.predicted = left
                return self.outcome(True)
        self.axes = self.model.axes(point.hessian)
        self.predicted = self._gain(*self.axes, point.gradient)
        if self.predicted <= self.tolerance:
            return self.outcome(True)
        far = self.predicted <= DIVERGED_DECREASE and self.diverging is not None and self.diverging(point.x)
        return self.outcome(True) if far else None

    def escape(self) -> bool:
        """Whether a stationary point was a saddle, and is left: a variance of 0 has no slope in theta, whatever is behind it."""
        hessian, value = self.point.hessian, self.point.value
        if self.definite or hessian is None or not _finite(hessian):
            return False
        signed, vectors = np.linalg.eigh(hessian)
        if signed[0] >= -SADDLE * max(1.0, abs(value)):
            return False
        for size in AWAY * 0.2 ** np.arange(6.0):
            for step in (size * vectors[:, 0], -size * vectors[:, 0]):
                trial = self.function(self.point.x + step)
                self.path.append((trial.x, trial.value))
                if trial.value < value - 8.0 * MACHINE_EPSILON * abs(value):
                    self.point, self.before, self.axes = trial, None, None
                    self.radius, self.stalled = max(self.radius, 1.0), 0
                    return True
        return False

    def refine(self, found: Outcome[E]) -> Outcome[E]:
        """A step further where the gradient says that it is nearer to the optimum: the value is flat long before estimates are."""
        point = self.point
        last = self.tolerance <= ROUGH_TOLERANCE and REFINED_DECREASE < found.predicted <= self.tolerance
        if not last or point.hessian is None or not _finite(point.hessian):
            return found
        values, vectors = self.model.axes(point.hessian)
        trial = self.function(point.x - vectors @ (vectors.T @ point.gradient / values))
        self.path.append((trial.x, trial.value))
        left = self._gain(values, vectors, trial.gradient)
        if trial.value <= point.value + 8.0 * MACHINE_EPSILON * abs(point.value) and left < self._gain(values, vectors, point.gradient):
            self.point, self.predicted = trial, left
        return self.outcome(True)

    def _measure(self, hessian: Array) -> None:
        """What the matrix lacks at the point, by differences of the gradient: where it is far from the truth secants learn too slowly."""
        x, gradient = self.point.x, self.point.gradient
        H = np.empty((len(x), len(x)))
        for i, size in enumerate(DIFFERENCE_STEP * (1.0 + np.abs(x))):
            moved = x.copy()
            moved[i] += size
            trial = self.function(moved)
            self.path.append((trial.x, trial.value))
            H[i] = (trial.gradient - gradient) / size
        self.measured = len(self.path)
        S = 0.5 * (H + H.T) - hessian
        if _finite(S):
            self.model.S, self.model.corrected, self.model.taught = S, True, True
            self.before = None

    def advance(self) -> Outcome[E] | None:
        """Try a step and judge it by what the model foretold."""
        assert self.axes is not None
        values, vectors = self.axes
        point, slope = self.point, vectors.T @ self.point.gradient
        step = _restricted_step(values, slope, self.radius)
        trial = self.function(point.x + vectors @ step)
        self.path.append((trial.x, trial.value))
        modelled = -float(slope @ step + 0.5 * (step @ (values * step)))
        gain, noise = point.value - trial.value, 8.0 * MACHINE_EPSILON * abs(point.value)
        rounded = (modelled <= noise and abs(gain) <= 4 * noise) or gain <= -modelled >= -ROUNDING_DECREASE
        if math.isfinite(trial.value) and rounded:
            return self._stall(trial)
        ratio, length = gain / modelled if modelled > 0 else -1.0, _length(step)
        if ratio > 1e-4:
            self.before, self.point = _LeftPoint(point.x, point.value, point.gradient, point.hessian), trial
            self.surprised = self.surprised or abs(ratio - 1.0) > SECANT_DISAGREEMENT
            self.radius = max(self.radius, 3.0 * length) if ratio > 0.75 else 0.5 * length if ratio < 0.25 else self.radius
            return self.outcome(False, left=True) if self.leaving is not None and self.leaving(trial.x) else None
        if math.isfinite(trial.value):
            self.model.learn(point, trial, point.hessian)
        self.radius = 0.25 * length
        return self._is_halted() if self.radius < 1e-13 * (1.0 + _length(point.x)) else None

    def _stall(self, trial: E) -> Outcome[E] | None:
        """The value can no longer tell: the gradient still can."""
        self.stalled += 1
        if _length(trial.gradient) < _length(self.point.gradient):
            self.before, self.point = None, trial
        return self._is_halted() if self.stalled >= 3 else None

    def _is_halted(self) -> Outcome[E]:
        """Where rounding ends the search: a matrix that vanishes promises anything, the gradient no more than itself times a step."""
        self.predicted = min(self.predicted, _length(self.point.gradient) * (1.0 + _length(self.point.x)))
        return self.outcome(self.predicted <= STANDSTILL_DECREASE)


def limit_of_convergence(predicted: float, limit: float) -> float:
    """What decided that a search has converged: `limit`, or, where rounding kept it from going on, that of a standstill."""
    return limit if predicted <= limit else STANDSTILL_DECREASE


def minimise[E: Evaluation](
    function: Callable[[Array], E],
    start: E,
    tolerance: float = DECREASE_TOLERANCE,
    iterations: int = MAX_EVALUATIONS,
    diverging: Test | None = None,
    leaving: Test | None = None,
) -> Outcome[E]:
    """Minimise a function whose evaluations carry gradient and matrix.

    Stops when the predicted decrease is below `tolerance`, or below the rounding error of the value, or below `DIVERGED_DECREASE`
    where the optimum lies at infinity (`diverging(x)`: a correlation on its way to 1). A point with `leaving(x)` is handed back at once.
    A stationary point along which the criterion falls, a variance of 0 that ought not to be, is left again. Ctrl-C raises `Interrupted`.
    """
    search = _Search(function, start, tolerance, diverging, leaving)
    del start  # what the search has left behind is let go, the start as well
    try:
        for _ in range(iterations):
            found = search.is_settled() or search.advance()
            if found is not None and not (found.converged and search.escape()):
                return search.refine(found) if found.converged else found
    except KeyboardInterrupt:
        raise Interrupted(tuple(search.path)) from None
    return search.outcome(False)


PIVOT_SHARE = 0.3
"""A pivot is exchanged when its conditional variance is below this share of the largest conditional variance."""

NEGLIGIBLE_VARIANCE = 1e-3
"""Relative variances on standardized columns below this are not pivoted."""

MAX_REORDERINGS = 6
"""How often axes are chosen anew."""

STRETCHED = 1e3
"""A relative standard deviation from which its own size is the unit of its axis: its curvature would be lost beside that of others."""


def minimise_criterion(
    problem: Problem, restricted: bool, start: Array, tolerance: float, iterations: int = MAX_EVALUATIONS
) -> Outcome[CriterionPoint]:
    """The optimum found from a start; everything in the outcome is on the axes of the problem."""
    own = [i for i, term in enumerate(problem.random.terms) if term.covariance.invariance == "any" and term.covariance.q > 1]
    path: tuple[tuple[Array, float], ...] = ()
    moved, x = problem, start
    for left in range(MAX_REORDERINGS, -1, -1):
        if left and needs_pivoting(moved, own, x):
            moved, x = _pivot(problem, own, unrotated_x(moved, x))
        try:
            outcome = _search_rotated(moved, problem, restricted, x, tolerance, iterations, own if left else (), last=not left)
        except Interrupted as stopped:
            raise Interrupted(path + _unrotated_path(moved, problem, stopped.path)) from None
        path += _unrotated_path(moved, problem, outcome.path)
        x = outcome.point.x
        if not outcome.left:
            break
    point = outcome.point if moved is problem else problem.criterion.at_in_one_thread(unrotated_x(moved, x), restricted)
    return Outcome(point, outcome.converged, outcome.predicted, path)


def _unrotated_path(moved: Problem, problem: Problem, path: tuple[tuple[Array, float], ...]) -> tuple[tuple[Array, float], ...]:
    return path if moved is problem else tuple((unrotated_x(moved, at), value) for at, value in path)


def _search_rotated(
    moved: Problem, problem: Problem, restricted: bool, x: Array, tolerance: float, iterations: int, own: Sequence[int], *, last: bool
) -> Outcome[CriterionPoint]:
    """One search on the axes of `moved`, which ends where they are no longer in order."""

    def evaluate(x: Array) -> CriterionPoint:
        return moved.criterion.at_in_one_thread(x, restricted)

    units = parameter_units(problem, x)
    stretched = problem.has_rows and bool((np.abs(x) >= STRETCHED).any())
    if stretched:
        units = np.maximum(units, np.abs(x))

    def leaves(x: Array) -> bool:
        grown = problem.has_rows and not stretched and bool((np.abs(x) >= STRETCHED).any())
        return not last and (grown or needs_pivoting(moved, own, x))

    if bool((units == 1.0).all()):
        return minimise(evaluate, evaluate(x), tolerance, iterations, diverging=problem.is_diverging, leaving=leaves)

    def scaled_at(u: Array) -> _ScaledPoint:
        return _ScaledPoint(evaluate(u * units), units)

    def leaves_scaled(u: Array) -> bool:
        return leaves(u * units)

    try:
        found = minimise(
            scaled_at,
            scaled_at(x / units),
            tolerance,
            iterations,
            diverging=lambda u: problem.is_diverging(u * units),
            leaving=leaves_scaled,
        )
    except Interrupted as stopped:
        raise Interrupted(tuple((u * units, value) for u, value in stopped.path)) from None
    path = tuple((u * units, value) for u, value in found.path)
    return Outcome(found.point.point, found.converged, found.predicted, path, found.left)


@dataclass(frozen=True, slots=True, eq=False)
class _ScaledPoint:
    """A point of the criterion on axes on which a move of about 1 is as much for every parameter."""

    point: CriterionPoint
    units: Array

    @property
    def x(self) -> Array:
        return self.point.x / self.units

    @property
    def value(self) -> float:
        return self.point.value

    @property
    def gradient(self) -> Array:
        return self.point.gradient * self.units

    @property
    def hessian(self) -> Array | None:
        H = self.point.hessian
        return None if H is None else np.asarray(H * self.units[:, None] * self.units)


def _triangle(problem: Problem, i: int, x: Array) -> Array:
    """The triangular T of an unstructured term on the axes of the problem."""
    term = problem.random.terms[i]
    covariance = term.covariance.inner if isinstance(term.covariance, Rotation) else term.covariance
    return covariance.factor(x[term.part])


def needs_pivoting(problem: Problem, own: Sequence[int], x: Array) -> bool:
    """Whether a pivot of one of these terms is small beside what is left behind it."""
    for i in own:
        term = problem.random.terms[i]
        if term.covariance.q == 2 and term.covariance.size == 3:
            # asked at every point of a search: the three entries of T are x itself
            pivot, row, last = x[term.part].tolist()
            below = row * row + last * last
            if below > NEGLIGIBLE_VARIANCE and pivot * pivot < PIVOT_SHARE * below:
                return True
        elif _has_small_pivot(_triangle(problem, i, x)):
            return True
    return False


def _has_small_pivot(T: Array) -> bool:
    squares = T * T
    left = squares[:, ::-1].cumsum(axis=1)[:, ::-1].max(axis=0)
    return bool(((squares.diagonal() < PIVOT_SHARE * left) & (left > NEGLIGIBLE_VARIANCE)).any())


def _pivot(problem: Problem, own: Sequence[int], x: Array) -> tuple[Problem, Array]:
    """The problem with its largest pivots first at x, and x there."""
    moved, found = problem, x.copy()
    for i in own:
        T = _triangle(problem, i, x)
        if not _has_small_pivot(T):
            continue
        order = lapack.dpstrf(T @ T.T, lower=1)[1] - 1
        moved = rotate_problem(moved, i, np.eye(len(T))[:, order])
        term = moved.random.terms[i]
        assert isinstance(term.covariance, Rotation)
        found[term.part] = term.covariance.onto(x[term.part])
    return moved, found


def unrotated_x(problem: Problem, x: Array) -> Array:
    """x on axes that are not turned."""
    found = x.copy()
    for term in problem.random.terms:
        if isinstance(term.covariance, Rotation):
            found[term.part] = term.covariance.plain(x[term.part])
    return found
