"""Several searches side by side: BFGS, one call of the criterion for all that are not done yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes

ITERATIONS = 40

SETTLED = 1e-9
"""Predicted decrease of the criterion at which a search is done."""

REACH = 2.0
"""Longest step, in the norm of x and relative to it where that is larger."""

type ManyValues = Callable[[Codes, Array], tuple[Array, Array]]
"""Values (t,) and gradients (t, size) of the searches named, at a point x (t, size) of each."""


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Where the searches ended: x (B, size), value (B,), settled (B,) whether by the gradient; inverse (B, size, size) Hessians."""

    x: Array
    value: Array
    settled: NDArray[np.bool_]
    inverse: Array


def descend_together(at: ManyValues, start: Array, inverse: Array, iterations: int = ITERATIONS) -> Ends:
    """Minimise from every row of start (B, size); inverse : (B, size, size) approximate inverse Hessians there, positive definite."""
    B, size = start.shape
    x, inverse, length = start.copy(), inverse.copy(), np.ones(B)
    value, gradient = (a.copy() for a in at(np.arange(B), x))
    done = np.zeros(B, bool) if size else np.ones(B, bool)
    for _ in range(iterations):
        step = -np.einsum("bij,bj->bi", inverse, gradient)
        predicted = -0.5 * np.einsum("bi,bi->b", step, gradient)
        done |= predicted < SETTLED
        rows = np.flatnonzero(~done & np.isfinite(value))
        if len(rows) == 0:
            break
        move = step[rows] * length[rows, None]
        reach = REACH * np.maximum(1.0, np.linalg.norm(x[rows], axis=1))
        move *= np.minimum(1.0, reach / np.maximum(np.linalg.norm(move, axis=1), 1e-300))[:, None]
        try:
            trial, slope = at(rows, x[rows] + move)
        except np.linalg.LinAlgError:
            length[rows] *= 0.5
            continue
        lower = trial < value[rows] + 1e-4 * np.einsum("bi,bi->b", gradient[rows], move) + 1e-11 * np.abs(value[rows])
        taken, kept = rows[lower], rows[~lower]
        _update(inverse, taken, move[lower], slope[lower] - gradient[taken])
        x[taken] += move[lower]
        value[taken], gradient[taken] = trial[lower], slope[lower]
        length[taken] = 1.0
        length[kept] *= 0.3
        done[kept[length[kept] < 1e-6]] = True
    return Ends(x, value, done & (length > 1e-5) & np.isfinite(value), inverse)


def _update(inverse: Array, rows: Codes, s: Array, y: Array) -> None:
    """BFGS on the inverse matrices of some searches, left as they are where the curvature is not positive."""
    sy = np.einsum("bi,bi->b", s, y)
    Hy = np.einsum("bij,bj->bi", inverse[rows], y)
    yHy = np.einsum("bi,bi->b", y, Hy)
    good = sy > 1e-10 * np.sqrt(np.maximum(np.einsum("bi,bi->b", s, s) * np.einsum("bi,bi->b", y, y), 1e-300))
    rows, s, Hy, sy, yHy = rows[good], s[good], Hy[good], sy[good], yHy[good]
    outer = np.einsum("bi,bj->bij", s, Hy) / sy[:, None, None]
    inverse[rows] += (1.0 + yHy / sy)[:, None, None] * np.einsum("bi,bj->bij", s, s) / sy[:, None, None] - outer - outer.transpose(0, 2, 1)
