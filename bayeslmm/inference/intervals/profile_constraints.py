"""The lowest criterion with one parameter held at a value.

Wherever it can be, what is held becomes an entry of x (`rotate_problem`), so that an sd of 0 and a correlation of 1 are ordinary points
and the rest is a search without constraints. What has no such axes goes by an augmented Lagrangian.

The criterion before sigma is profiled out: a function of tau = (x, nu), nu = log sigma on standardized columns.

    f(x, nu) = log |V0| [+ log |X' V0^-1 X|] + d (log 2 pi + 2 nu) + r2(x) exp(-2 nu)

Its minimum over nu is the profiled criterion. What is held fixed in a profile, an sd say, involves both.

Only the part of [X y] in the cross-products knows of X and y; the blocks of the random effects stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.estimate.batch_descent import is_crowded, residual_points, trial_points
from bayeslmm.estimate.checks import MAX_RESTARTS, NULL_DIRECTION, TRIED_SDS
from bayeslmm.estimate.newton import Evaluation, minimise
from bayeslmm.estimate.rotation import rotate_problem, rotated_x, rotation_towards
from bayeslmm.inference.intervals.parameters import (
    CovarianceParameter,
    ErrorSd,
    RandomCorrelation,
    RandomSd,
    parameter_gradient,
    parameter_value,
    to_scale,
)
from bayeslmm.likelihood.criterion import Criterion, CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.level_blocks import BlockDiagonal
from bayeslmm.likelihood.structured.blocks import PooledBatch
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, SubjectData
from bayeslmm.likelihood.structured.residual_covariance import parameter_units, typical_sd
from bayeslmm.likelihood.threads import one_thread


@dataclass(frozen=True, slots=True, eq=False)
class JointInformation:
    """f, its gradient and Newton matrix at tau; `x` is tau, as the minimiser calls it."""

    x: Array
    value: float
    gradient: Array
    hessian: Array | None


def joint_criterion(criterion: Criterion, tau: Array, restricted: bool) -> JointInformation:
    """Evaluate f; infinite where it does not exist."""
    nowhere = JointInformation(tau, np.inf, np.full(len(tau), np.nan), None)
    if not np.all(np.isfinite(tau)) or abs(tau[-1]) > 300.0:
        return nowhere
    try:
        with one_thread(criterion.width), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = _joint(criterion, tau, restricted)
    except np.linalg.LinAlgError:
        return nowhere
    return found if np.isfinite(found.value) else nowhere


def _joint(criterion: Criterion, tau: Array, restricted: bool) -> JointInformation:
    x, nu = tau[:-1], known_log_sigma(criterion, float(tau[-1]))
    state = criterion.kernel.evaluate(x[None], derivatives=True)
    solution, df, sigma2 = state.solution, criterion.df(restricted), float(np.exp(2.0 * nu))
    r2 = float(solution.r2[0]) / sigma2
    value = float(solution.logdet[0]) + df * (2.0 * nu - 1.0) + r2 + criterion.constant(restricted)
    if restricted:
        value += float(solution.logdet_X[0])
    logdet, slope = (g[0] for g in state.gradients(restricted))
    slope = slope / sigma2
    k = len(tau)
    H = np.empty((k, k))
    # sigma is a parameter here, not profiled out: the degrees of freedom do not enter
    H[:-1, :-1] = state.newton_matrix(restricted, sigma2, sys.maxsize)
    H[-1, :-1] = H[:-1, -1] = -2.0 * slope
    H[-1, -1] = 4.0 * r2
    if criterion.held is not None:  # nu is no direction
        H[-1] = H[:, -1] = 0.0
        H[-1, -1] = 1.0
        return JointInformation(tau, value, np.append(logdet + slope, 0.0), H)
    return JointInformation(tau, value, np.append(logdet + slope, 2.0 * (df - r2)), H)


def known_log_sigma(criterion: Criterion, nu: float) -> float:
    """log sigma on standardized columns: as the model holds it, or nu."""
    return nu if criterion.held is None else 0.5 * float(np.log(criterion.held))


def replace_Xy(criterion: Criterion, M: Array) -> Criterion:
    """The criterion of [X y] M, M (p + 1, s); the last of the s columns is the response."""
    kernel = criterion.kernel
    if isinstance(kernel, RandomEffectsKernel):
        moved: RandomEffectsKernel | BlockDiagonalKernel = replace(kernel, cross=_cross(kernel.cross, M))
    else:
        assert isinstance(kernel, BlockDiagonalKernel)
        moved = replace(kernel, data=_rows(kernel.data, M))
    return replace(criterion, p=M.shape[1] - 1, kernel=moved)


def _cross(cross: CrossProducts, M: Array) -> CrossProducts:
    Xy = M.T @ cross.Xy @ M
    first = cross.first
    if first is not None:
        first = BlockDiagonal(first.A, np.ascontiguousarray(np.einsum("ark,rs->ask", first.C, M)))
    V0 = None if cross.V0 is None else cross.V0 @ M
    return replace(cross, p=M.shape[1] - 1, Xy=0.5 * (Xy + Xy.T), first=first, V0=V0)


def _rows(data: SubjectData, M: Array) -> SubjectData:
    return replace(data, Xy=data.Xy @ M, pooled=tuple(_recombine_pooled(batch, M, data.r) for batch in data.pooled))


def _recombine_pooled(batch: PooledBatch, M: Array, r: int) -> PooledBatch:
    B, kk = batch.G.shape[:2]
    G = M.T @ batch.G.reshape(B, kk, r, r) @ M
    return replace(batch, G=np.ascontiguousarray(G).reshape(B, kk, -1))


def hold_coefficient(problem: Problem, j: int, value: float) -> Criterion:
    """The criterion over the other coefficients, coefficient j of the columns kept held at a value (user's scale)."""
    c = problem.standardization
    b = c.back[j]
    p = len(b)
    shift = (value - c.alpha0[j]) / c.y_scale / float(b @ b)
    # the coefficients that keep b' alpha are those of an orthonormal basis of what is orthogonal to b
    others = np.linalg.qr(b[:, None], mode="complete")[0][:, 1:]
    M = np.zeros((p + 1, p))
    M[:p, : p - 1] = others
    M[:p, p - 1] = -shift * b
    M[p, p - 1] = 1.0
    return replace_Xy(problem.criterion, M)


TRIED_LENGTHS = (0.02, 0.2, 1.0)
"""Relative sds of the two effects whose correlation is held, from which the search begins besides."""

SEARCHED_AGAIN = 2
"""How many of these points."""

LAST_STEP_DECREASE = 1e-6
"""Predicted decrease at which the last Newton step is taken without another evaluation: what is left is a small part of it where the
criterion is a parabola, which along the narrow valley of a variance function far from 0 it is over short ways only."""

RANGE_ENDS = {"log": 30.0, "logit": 30.0, "fisher": 7.0, "plain": np.inf}
"""How far out on a scale the ends of a range are looked at, logarithms from that of a unit: a correlation of 1 - 2e-6."""

MULTIPLIER_ROUNDS = 15
"""Multiplier updates of the augmented Lagrangian, and Newton steps onto the slice."""


@dataclass(frozen=True, slots=True, eq=False)
class ConstrainedMinimum:
    """The minimum over a slice: what was free there, and the criterion."""

    u: Array
    value: float


class Constraint(Protocol):
    """A parameter that can be held."""

    def start(self, tau: Array) -> Array:
        """The free coordinates of a point tau of the model."""
        ...

    def lowest(self, value: float, start: Array) -> ConstrainedMinimum:
        """The minimum with the parameter at `value`, searched from free coordinates."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Point:
    """What the minimiser reads."""

    x: Array
    value: float
    gradient: Array
    hessian: Array | None


def _descend(function: Callable[[Array], Evaluation], start: Array, tolerance: float = LAST_STEP_DECREASE) -> tuple[Array, float]:
    """Where the minimum is and what it is, the last Newton step of a nearly converged search included."""
    outcome = minimise(function, function(start), tolerance)
    for _ in range(MAX_RESTARTS):
        lower = _beyond_zeros(function, outcome.point)
        if lower is None:
            break
        outcome = minimise(function, lower, tolerance)
    point = outcome.point
    if not (outcome.converged and point.hessian is not None and 1e-12 < outcome.predicted <= tolerance):
        return point.x, point.value
    values, vectors = np.linalg.eigh(point.hessian)
    values = np.maximum(np.abs(values), 1e-9 * float(np.abs(values).max()))
    return point.x - vectors @ (vectors.T @ point.gradient / values), point.value - outcome.predicted


def _beyond_zeros(function: Callable[[Array], Evaluation], point: Evaluation) -> Evaluation | None:
    """A lower point far from a coordinate that is 0, as for the optimum itself: a variance of 0 may be one minimum of several."""
    below = point.value - 1e-9 * max(1.0, abs(point.value))
    for i in np.flatnonzero(np.abs(point.x) < NULL_DIRECTION):
        for size in TRIED_SDS:
            x = point.x.copy()
            x[i] = size
            trial = function(x)
            if trial.value < below:
                return trial
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _ConstraintOverX:
    """A slice whose free coordinates are x: what is held is not among them, and takes sigma along."""

    problem: Problem
    restricted: bool

    def start(self, tau: Array) -> Array:
        return tau[:-1]


@dataclass(frozen=True, slots=True, eq=False)
class CoefficientConstraint(_ConstraintOverX):
    """A fixed effect: X loses a column and y what the held coefficient explains; j counts the columns kept."""

    j: int

    def lowest(self, value: float, start: Array) -> ConstrainedMinimum:
        criterion = hold_coefficient(self.problem, self.j, value)

        def function(x: Array) -> CriterionPoint:
            return criterion.at(x, self.restricted)

        x, lowest = _descend(function, start)
        if is_crowded(self.problem):
            trial = trial_points(self.problem, x, typical_sd(self.problem, x))
            values = criterion.values(trial, self.restricted)
            best = int(np.argmin(values))
            if values[best] < lowest:
                x, lowest = _descend(function, trial[best])
        return ConstrainedMinimum(x, lowest)


@dataclass(frozen=True, slots=True, eq=False)
class SigmaConstraint(_ConstraintOverX):
    """sigma of independent errors; unit : sigma in the units of the data at nu = 0."""

    unit: float

    def lowest(self, value: float, start: Array) -> ConstrainedMinimum:
        nu = np.log(value / self.unit)

        def function(x: Array) -> _Point:
            found = joint_criterion(self.problem.criterion, np.append(x, nu), self.restricted)
            return _Point(x, found.value, found.gradient[:-1], None if found.hessian is None else found.hessian[:-1, :-1])

        x, lowest = _descend(function, start)
        return ConstrainedMinimum(x, lowest)


@dataclass(frozen=True, slots=True, eq=False)
class SdConstraint:
    """sd = exp(nu) c |x_k|, on axes where it is one entry of x; position : the term that was turned, or None."""

    problem: Problem
    restricted: bool
    k: int
    c: float
    position: int | None

    def start(self, tau: Array) -> Array:
        x = tau[:-1] if self.position is None else rotated_x(self.problem, self.position, tau[:-1])
        return np.append(np.delete(x, self.k), tau[-1])

    def _tau(self, u: Array, value: float) -> Array:
        nu = known_log_sigma(self.problem.criterion, float(u[-1]))
        return np.insert(u, self.k, value / (self.c * np.exp(nu)))

    def lowest(self, value: float, start: Array) -> ConstrainedMinimum:
        def function(u: Array) -> _Point:
            tau = self._tau(u, value)
            found = joint_criterion(self.problem.criterion, tau, self.restricted)
            if found.hessian is None:
                return _Point(u, np.inf, found.gradient[:-1], None)
            J = np.insert(np.eye(len(u)), self.k, 0.0, axis=0)
            if self.problem.criterion.held is None:
                # x_k = s exp(-nu) / c bends as nu moves
                J[self.k, -1] = -tau[self.k]
            H = J.T @ found.hessian @ J
            H[-1, -1] -= found.gradient[self.k] * J[self.k, -1]
            return _Point(u, found.value, J.T @ found.gradient, H)

        u, lowest = _descend(function, start)
        return ConstrainedMinimum(u, lowest)


@dataclass(frozen=True, slots=True, eq=False)
class CorrelationConstraint:
    """A correlation of an unstructured term, sigma profiled out.

    On the turned axes row a of the user's factor is (c T_00, 0, ...) and row b is (d T_00 + e T_10, e T_11, 0, ...): with the correlation
    held, row b is its own length times (r, sqrt(1 - r^2)), which is linear in (T_00, length).
    """

    problem: Problem
    restricted: bool
    position: int
    d: float
    e: float

    @property
    def _places(self) -> tuple[int, int, int]:
        """T_00, T_10, T_11 in x."""
        term = self.problem.random.terms[self.position]
        return term.part.start, term.part.start + 1, term.part.start + term.covariance.q

    def start(self, tau: Array) -> Array:
        x = rotated_x(self.problem, self.position, tau[:-1])
        i, j, k = self._places
        length = float(np.hypot(self.d * x[i] + self.e * x[j], self.e * x[k]))
        u = np.delete(x, k)
        # a length of 0 has no direction to hold
        u[i], u[j] = max(abs(x[i]), 1e-3), max(length, 1e-3 * self.e)
        return u

    def _map(self, r: float, sign: float, size: int) -> Array:
        """x = B u, u = x with T_10 become the length and T_11 gone."""
        i, j, k = self._places
        B = np.insert(np.eye(size - 1), k, 0.0, axis=0)
        B[j] = 0.0
        # where the signs of T_00 and the length differ the correlation would be -r: it is mirrored back
        B[j, j], B[j, i] = sign * r / self.e, -self.d / self.e
        B[k, j] = np.sqrt(max(1.0 - r * r, 0.0)) / self.e
        return B

    def lowest(self, value: float, start: Array) -> ConstrainedMinimum:
        i, j, _ = self._places

        def function(u: Array) -> _Point:
            B = self._map(value, 1.0 if u[i] * u[j] >= 0 else -1.0, len(u) + 1)
            found = self.problem.criterion.at(B @ u, self.restricted)
            return _Point(u, found.value, B.T @ found.gradient, None if found.hessian is None else B.T @ found.hessian @ B)

        u, lowest = _descend(function, start)
        # with a correlation that the data do not like one of the two sds goes to 0, and which of them the nearest minimum does not know
        trial = np.tile(u, (len(TRIED_LENGTHS) ** 2, 1))
        trial[:, [i, j]] = [(a, b) for a in TRIED_LENGTHS for b in TRIED_LENGTHS]
        values = self.problem.criterion.values(trial @ self._map(value, 1.0, len(u) + 1).T, self.restricted)
        for k in np.argsort(values)[:SEARCHED_AGAIN]:
            if np.isfinite(values[k]):
                other, found = _descend(function, trial[k])
                if found < lowest:
                    u, lowest = other, found
        return ConstrainedMinimum(u, lowest)


@dataclass(frozen=True, slots=True, eq=False)
class LagrangianConstraint:
    """Any other parameter, by an augmented Lagrangian on its scale; error : its standard error there; unit : a large value of it."""

    problem: Problem
    restricted: bool
    parameter: CovarianceParameter
    error: float
    unit: float

    def start(self, tau: Array) -> Array:
        return tau

    def lowest(self, value: float, start: Array) -> ConstrainedMinimum:
        reach, origin = RANGE_ENDS[self.parameter.scale], np.log(self.unit) if self.parameter.scale == "log" else 0.0
        target = float(np.clip(to_scale(self.parameter.scale, value), origin - reach, origin + reach))
        best = self._search(start, target)
        for tau in self._other_starts(best.u, target):
            found = self._search(tau, target)
            if found.value < best.value:
                best = found
        return best

    def _other_starts(self, tau: Array, target: float) -> list[Array]:
        """The lowest of the points that a search for the optimum tries, moved onto the slice."""
        criterion = self.problem.criterion
        found = []
        for x in residual_points(self.problem, tau[:-1]):
            sigma2 = criterion.at(x, self.restricted, order=0).sigma2
            moved = self._onto_slice(np.append(x, 0.5 * np.log(sigma2) if sigma2 > 0 else tau[-1]), target)
            found.append((joint_criterion(criterion, moved, self.restricted).value, moved))
        return [moved for value, moved in sorted(found, key=lambda pair: pair[0])[:SEARCHED_AGAIN] if np.isfinite(value)]

    def _search(self, start: Array, target: float) -> ConstrainedMinimum:
        weight, multiplier, tau = 1e3 / self.error**2, 0.0, self._onto_slice(start, target)
        for _ in range(MULTIPLIER_ROUNDS):
            tau = _descend(self._penalized_criterion(target, weight, multiplier), tau, 1e-8)[0]
            gap = self._gap(tau, target)
            multiplier += weight * gap
            if abs(gap) < 1e-6 * self.error:
                break
        return ConstrainedMinimum(tau, joint_criterion(self.problem.criterion, tau, self.restricted).value)

    def _onto_slice(self, tau: Array, target: float) -> Array:
        """The nearest point with the parameter at its target: a penalty that begins far off leads to other minima."""
        units = np.append(parameter_units(self.problem, tau[:-1]), 1.0) ** 2
        if self.problem.criterion.held is not None:
            units[-1] = 0.0
        for _ in range(MULTIPLIER_ROUNDS):
            gap, slope = self._gap(tau, target), parameter_gradient(self.parameter, self.problem, tau)
            size = float(slope @ (units * slope))
            if not (np.isfinite(gap) and np.isfinite(size) and size > 0.0) or abs(gap) < 1e-6 * self.error:
                break
            tau = tau - units * slope * gap / size
        return tau

    def _gap(self, tau: Array, target: float) -> float:
        return to_scale(self.parameter.scale, parameter_value(self.parameter, self.problem, tau)) - target

    def _penalized_criterion(self, target: float, weight: float, multiplier: float) -> Callable[[Array], _Point]:
        def function(tau: Array) -> _Point:
            found: JointInformation = joint_criterion(self.problem.criterion, tau, self.restricted)
            if found.hessian is None:
                return _Point(tau, np.inf, found.gradient, None)
            gap, slope = self._gap(tau, target), parameter_gradient(self.parameter, self.problem, tau)
            if self.problem.criterion.held is not None:
                slope[-1] = 0.0
            if not (np.isfinite(gap) and np.all(np.isfinite(slope))):
                return _Point(tau, np.inf, found.gradient, None)
            value = found.value + multiplier * gap + 0.5 * weight * gap**2
            pull = multiplier + weight * gap
            return _Point(tau, value, found.gradient + pull * slope, found.hessian + weight * np.outer(slope, slope))

        return function


def constraint_of(problem: Problem, parameter: CovarianceParameter, restricted: bool, error: float, unit: float) -> Constraint:
    """How a covariance parameter is held; error : its standard error on its scale; unit : a large value of it."""
    if isinstance(parameter, ErrorSd):
        return SigmaConstraint(problem, restricted, parameter_value(parameter, problem, np.append(problem.start, 0.0)))
    if isinstance(parameter, RandomSd):
        found = _sd_constraint(problem, parameter, restricted)
        if found is not None:
            return found
    if isinstance(parameter, RandomCorrelation) and problem.random.terms[parameter.position].covariance.name == "us":
        return _correlation_constraint(problem, parameter, restricted)
    return LagrangianConstraint(problem, restricted, parameter, error, unit)


def _sd_constraint(problem: Problem, parameter: RandomSd, restricted: bool) -> Constraint | None:
    """On turned axes where the term is unstructured, on its own where the sd is an entry of x; None where it is neither."""
    position, a = parameter.position, parameter.column
    term = problem.random.terms[position]
    covariance, begin, unit = term.covariance, term.part.start, problem.standardization.y_scale
    row = term.map.whole[a]
    if covariance.name == "us" and covariance.q > 1:
        moved = rotate_problem(problem, position, rotation_towards([row]))
        return SdConstraint(moved, restricted, begin, unit * float(np.linalg.norm(row)), position)
    if covariance.q == 1 or covariance.name == "diag":
        return SdConstraint(problem, restricted, begin + a, unit * float(abs(row[a])), None)
    if covariance.homogeneous and list(covariance.scales) == [0] and "@" not in covariance.name:
        return SdConstraint(problem, restricted, begin, unit * float(abs(row[a])), None)
    return None


def _correlation_constraint(problem: Problem, parameter: RandomCorrelation, restricted: bool) -> Constraint:
    a, b = parameter.columns
    whole = problem.random.terms[parameter.position].map.whole
    turn = rotation_towards([whole[a], whole[b]])
    d, e = (whole[b] @ turn)[:2]
    return CorrelationConstraint(rotate_problem(problem, parameter.position, turn), restricted, parameter.position, float(d), float(e))
