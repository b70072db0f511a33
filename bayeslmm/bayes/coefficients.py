"""alpha integrated out of the likelihood: flat as in REML, or under a normal prior, from the border [X y]' V0^-1 [X y] alone.

With conditioned alpha = alpha0 + B a and prior precision L (0 where flat), u = prior mean - alpha0:

    M = X'V0^-1X + s^2 B'LB,   a^ = M^-1 (X'V0^-1 y + s^2 B'L u),
    -2 log p = log|V0| + n log(2 pi s^2) + [(y - X a^)'V0^-1 (y - X a^)] / s^2 + (B a^ - u)'L(B a^ - u)
               + log|M / s^2| - 2 log|B| - p log 2 pi + k log 2 pi - log|L_k|,   k the coefficients with a prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.levels_kernel import Solution
from bayeslmm.likelihood.problem import Problem
from bayeslmm.spec.families import Prior

LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class Integrated:
    """-2 log p(y | covariances) at some points, and what it says about alpha.

    value : (t,)
    solution : the profile in alpha with the prior in it: alpha its mean, root of its precision times s^2, r2 without the prior
    """

    value: Array
    solution: Solution


def repeated(solution: Solution, t: int) -> Solution:
    """A solution at t points: a model without random effects is solved once for all of them."""
    if len(solution.r2) == t:
        return solution
    parts = (solution.logdet, solution.border, solution.root, solution.logdet_X, solution.alpha, solution.r2)
    return Solution(*(np.repeat(part, t, axis=0) for part in parts))


@dataclass(frozen=True, eq=False)
class AlphaPrior:
    """Independent normal or flat priors of the coefficients kept."""

    problem: Problem
    priors: tuple[Prior, ...]

    @cached_property
    def flat(self) -> bool:
        return all(prior.family == "flat" for prior in self.priors)

    @cached_property
    def proper(self) -> bool:
        return all(prior.family == "normal" for prior in self.priors)

    @cached_property
    def mean(self) -> Array:
        return np.array([prior.parameters[0] if prior.family == "normal" else 0.0 for prior in self.priors])

    @cached_property
    def precision(self) -> Array:
        return np.array([prior.parameters[1] ** -2 if prior.family == "normal" else 0.0 for prior in self.priors])

    @cached_property
    def _B(self) -> Array:
        return self.problem.conditioning.y_scale * self.problem.conditioning.back

    @cached_property
    def _quadratic(self) -> tuple[Array, Array, Array]:
        """B'LB, B'Lu and u."""
        u = self.mean - self.problem.conditioning.alpha0
        LB = self.precision[:, None] * self._B
        return self._B.T @ LB, LB.T @ u, u

    @cached_property
    def _constant(self) -> float:
        """log|L_k| - k log 2 pi + p log 2 pi + 2 log|B|, with the sign that -2 log p needs."""
        known = self.precision > 0
        k, p = int(known.sum()), len(self.precision)
        log_B = float(np.linalg.slogdet(self._B)[1]) if p else 0.0
        return float((k - p) * LOG_2PI - np.log(self.precision[known]).sum() - 2.0 * log_B)

    def integrate(self, solution: Solution, s2: Array) -> Integrated:
        """At some points with residual variance s2 (t,) on conditioned columns."""
        criterion = self.problem.criterion
        solution = repeated(solution, len(s2))
        if self.flat:
            df = criterion.df(True)
            value = solution.logdet + solution.logdet_X + df * np.log(s2) + solution.r2 / s2 + criterion.constant(True) - df
            return Integrated(value, solution)
        p = len(self.precision)
        inner, linear, u = self._quadratic
        XX, Xy, yy = solution.border[:, :p, :p], solution.border[:, :p, p], solution.border[:, p, p]
        root = np.linalg.cholesky(XX + s2[:, None, None] * inner)
        half = np.linalg.solve(root, (Xy + s2[:, None] * linear)[..., None])
        mean = np.linalg.solve(root.swapaxes(-1, -2), half)[..., 0]
        r2 = yy - 2.0 * np.einsum("tp,tp->t", Xy, mean) + np.einsum("tp,tpq,tq->t", mean, XX, mean)
        away = mean @ self._B.T - u
        logdet = 2.0 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
        value = solution.logdet + criterion.n * np.log(s2) + r2 / s2 + (away**2) @ self.precision + logdet - p * np.log(s2)
        value = value + criterion.constant(False) - criterion.n + self._constant
        return Integrated(value, Solution(solution.logdet, solution.border, root, logdet, mean, r2))

    def log_sigma_slope(self, found: Integrated, s2: float) -> float:
        """d(-2 log p) / d log s at fixed covariances relative to s^2, one point."""
        solution, p = found.solution, len(self.precision)
        inverse = solution.information_inverse[0]
        trace = float(np.sum(inverse * solution.border[0, :p, :p])) if p else 0.0
        return 2.0 * (self.problem.criterion.n - trace - float(solution.r2[0]) / s2)
