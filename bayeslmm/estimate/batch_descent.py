"""Many searches side by side: BFGS, one call of the criterion for all that are not done yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.criterion import Criterion

SUFFICIENT_DECREASE = 1e-4
"""Share of the decrease that the slope promises that a step has to bring."""

ROUNDING = 1e-11
"""Change of the criterion, relative to its size, that may be rounding."""

LENGTH_CUT = 0.3
"""What the length of a step is multiplied by after one that is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class BatchValues:
    """The criterion of t searches, each at an x of its own: value (t,) and gradient (t, size). Who needs more of a point adds fields."""

    value: Array
    gradient: Array


@dataclass(frozen=True, slots=True)
class DescentRule:
    """When a search is done, and which steps it takes.

    decrease : predicted decrease of the criterion at which a search is done
    iterations : steps at most
    longest : longest step, in the norm of x
    relative : whether that is relative to the norm of x where it is larger than 1
    shortest : length, relative to the quasi-Newton step, below which a search has stalled
    gradient_decides : whether a step whose decrease would drown in rounding is judged by the gradient, and not simply allowed to rise by it
    """

    decrease: float = 1e-9
    iterations: int = 40
    longest: float = 2.0
    relative: bool = True
    shortest: float = 1e-6
    gradient_decides: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BatchDescent[Point: BatchValues]:
    """Where B searches ended: x (B, size), the criterion there, done (B,) whether by the rule; inverse (B, size, size) Hessians."""

    x: Array
    point: Point
    done: NDArray[np.bool_]
    inverse: Array


@dataclass(frozen=True, slots=True, eq=False)
class BatchFits:
    """x (B, size), sigma^2 (B,) and alpha (B, p) on standardized columns, the criterion (B,); settled : (B,) to be believed."""

    x: Array
    sigma2: Array
    alpha: Array
    value: Array
    settled: NDArray[np.bool_]


def descend_together[Point: BatchValues](
    at: Callable[[Codes, Array], Point],
    start: Array,
    inverse: Array,
    rule: DescentRule,
    hopeless: Callable[[Point], NDArray[np.bool_]] | None = None,
) -> BatchDescent[Point]:
    """Minimise from every row of start (B, size).

    at : the criterion of the searches named at a point x (t, size) of each; inverse : (B, size, size) approximate inverse Hessians at the
    start, positive definite; hopeless : which points (B,) of the start nothing is to be searched from
    """
    B, size = start.shape
    x, inverse, length = start.copy(), inverse.copy(), np.ones(B)
    point = at(np.arange(B), x)
    point = type(point)(*(getattr(point, field.name).copy() for field in fields(point)))
    value, gradient = point.value, point.gradient
    done, left_alone = np.full(B, size == 0), np.zeros(B, bool) if hopeless is None else hopeless(point)
    for _ in range(rule.iterations):
        step = -np.einsum("bij,bj->bi", inverse, gradient)
        predicted = -0.5 * np.einsum("bi,bi->b", step, gradient)
        done |= np.abs(predicted) < rule.decrease
        rows = np.flatnonzero(~done & ~left_alone & np.isfinite(value) & (length > rule.shortest))
        if len(rows) == 0:
            break
        move = step[rows] * length[rows, None]
        longest = rule.longest * np.maximum(1.0, np.linalg.norm(x[rows], axis=1)) if rule.relative else rule.longest
        move *= np.minimum(1.0, longest / np.maximum(np.linalg.norm(move, axis=1), 1e-300))[:, None]
        try:
            trial = at(rows, x[rows] + move)
        except np.linalg.LinAlgError:
            length[rows] *= 0.5
            continue
        better = _is_better(trial, value[rows], gradient[rows], move, rule)
        taken, refused = rows[better], rows[~better]
        update_inverses(inverse, taken, move[better], trial.gradient[better] - gradient[taken])
        x[taken] += move[better]
        for field in fields(point):
            getattr(point, field.name)[taken] = getattr(trial, field.name)[better]
        length[taken] = 1.0
        length[refused] *= LENGTH_CUT
    return BatchDescent(x, point, done & np.isfinite(value), inverse)


def _is_better(trial: BatchValues, value: Array, gradient: Array, move: Array, rule: DescentRule) -> NDArray[np.bool_]:
    slope = np.einsum("bi,bi->b", gradient, move)
    rounding = ROUNDING * np.abs(value)
    with np.errstate(invalid="ignore"):
        if not rule.gradient_decides:
            return np.asarray(trial.value < value + SUFFICIENT_DECREASE * slope + rounding)
        falls = trial.value < value + SUFFICIENT_DECREASE * slope
        level = np.abs(trial.value - value) <= 4.0 * rounding
        level &= np.linalg.norm(trial.gradient, axis=1) < np.linalg.norm(gradient, axis=1)
        return np.where(np.abs(slope) < rounding, level, falls)


def update_inverses(inverse: Array, rows: Codes, s: Array, y: Array) -> None:
    """BFGS on the inverse matrices of some searches, left as they are where the curvature is not positive."""
    sy = np.einsum("bi,bi->b", s, y)
    Hy = np.einsum("bij,bj->bi", inverse[rows], y)
    yHy = np.einsum("bi,bi->b", y, Hy)
    good = sy > 1e-10 * np.sqrt(np.maximum(np.einsum("bi,bi->b", s, s) * np.einsum("bi,bi->b", y, y), 1e-300))
    rows, s, Hy, sy, yHy = rows[good], s[good], Hy[good], sy[good], yHy[good]
    outer = np.einsum("bi,bj->bij", s, Hy) / sy[:, None, None]
    inverse[rows] += (1.0 + yHy / sy)[:, None, None] * np.einsum("bi,bj->bij", s, s) / sy[:, None, None] - outer - outer.transpose(0, 2, 1)


def inverse_newton_matrix(criterion: Criterion, x: Array, restricted: bool, flattest: float = 1e-4) -> Array:
    """The inverse Newton matrix at x, made positive definite: no direction flatter than `flattest` of the steepest; or the identity."""
    hessian = criterion.at(x, restricted).hessian
    if hessian is None or not np.all(np.isfinite(hessian)) or not len(x):
        return np.eye(len(x))
    values, vectors = np.linalg.eigh(hessian)
    values = np.maximum(np.abs(values), flattest * float(np.abs(values).max(initial=1e-300)))
    return np.asarray((vectors / values) @ vectors.T)
