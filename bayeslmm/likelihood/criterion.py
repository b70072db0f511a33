"""The criterion: -2 log likelihood, or its restricted form, with sigma and alpha profiled out.

f = log |V0| [+ log |X' V0^-1 X|] + d (1 + log(2 pi r2 / d)),   d = n [- p]

Every estimate, profile, bootstrap and posterior calls this one object. It works on standardized columns; constants that the standardization
changed are put back, so its value is that of the data as given.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.likelihood.kernel import Kernel, Solution, State
from bayeslmm.likelihood.standardize import Standardization
from bayeslmm.likelihood.threads import (
    one_thread,
)


@dataclass(frozen=True, eq=False)
class CriterionPoint:
    """The criterion at one x. sigma2 and alpha are on standardized columns.

    Attributes
    ----------
    newton : callable or None
        Makes the Newton matrix when it is first asked for; None where only value, or value and gradient, were.
    """

    x: Array
    value: float
    gradient: Array
    newton: Callable[[], Array] | None
    sigma2: float
    state: State | None

    @cached_property
    def hessian(self) -> Array | None:
        """The Newton matrix: average or expected information with sigma profiled out, and the curvature of the parameters."""
        return None if self.newton is None else self.newton()


@dataclass(frozen=True, slots=True, eq=False)
class Criterion:
    """n, p, the standardization and a kernel; `fixed_logdet` is log |R0| where weights fix it, 0 where the kernel counts it."""

    n: int
    p: int
    standardization: Standardization
    kernel: Kernel
    width: int = 0
    fixed_logdet: float = 0.0
    held: float | None = None

    @property
    def size(self) -> int:
        return self.kernel.size

    def df(self, restricted: bool) -> int:
        return self.n - self.p if restricted else self.n

    def constant(self, restricted: bool) -> float:
        """What the value gains on the way back from standardized columns."""
        c = self.standardization
        total = self.df(restricted) * (1.0 + math.log(2.0 * math.pi) + 2.0 * math.log(c.y_scale)) + self.fixed_logdet
        return float(total + (c.logdet_X if restricted else 0.0))

    def values(self, x: Array, restricted: bool) -> Array:
        """The criterion at many x (t, size) by the same code; inf where it does not exist."""
        try:
            with one_thread(self.width), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return self.of_solution(self.kernel.solve(x), restricted)
        except np.linalg.LinAlgError:
            if len(x) == 1:
                return np.array([np.inf])
            return np.concatenate([self.values(row[None], restricted) for row in x])

    def of_solution(self, solution: Solution, restricted: bool) -> Array:
        """The criterion (t,) where the kernel has been solved at t points; inf where it does not exist."""
        df = self.df(restricted)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = solution.logdet + self.of_errors(solution.r2, df) + self.constant(restricted)
            if restricted:
                value = value + solution.logdet_X
        return np.where(np.isfinite(value) & (solution.r2 > 0), value, np.inf)

    def sigma2_of(self, r2: Array, df: int | Array) -> Array:
        """sigma^2 (t,) at residual sums of squares (t,): profiled out, or as it is held."""
        return r2 / df if self.held is None else np.full_like(r2, self.held)

    def of_errors(self, r2: Array, df: int | Array) -> Array:
        """df log sigma^2 + r2 / sigma^2 - df, (t,)."""
        return df * np.log(r2 / df) if self.held is None else df * (math.log(self.held) - 1.0) + r2 / self.held

    def values_and_gradients(self, x: Array, restricted: bool) -> tuple[Array, Array]:
        """Values (t,) and gradients (t, size) at many x; inf and NaN where the criterion does not exist."""
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                state = self.kernel.evaluate_many(x)
                value = self.of_solution(state.solution, restricted)
                logdet, r2 = state.gradients(restricted)
                return value, logdet + r2 / self.sigma2_of(state.solution.r2, self.df(restricted))[:, None]
        except np.linalg.LinAlgError:
            if len(x) == 1:
                return np.array([np.inf]), np.full(x.shape, np.nan)
            each = [self.values_and_gradients(row[None], restricted) for row in x]
            return np.concatenate([value for value, _ in each]), np.concatenate([slope for _, slope in each])

    def at(self, x: Array, restricted: bool, order: int = 2) -> CriterionPoint:
        """Value, gradient (order 1) and Newton matrix (order 2) at one x."""
        with one_thread(self.width):
            return self.at_in_one_thread(x, restricted, order)

    def at_in_one_thread(self, x: Array, restricted: bool, order: int = 2) -> CriterionPoint:
        """`at` for a caller who has limited the threads already, around many evaluations."""
        x = np.asarray(x, float)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                if np.isfinite(x).all():
                    return self._at(x, restricted, order)
        except np.linalg.LinAlgError:
            pass
        return CriterionPoint(x, np.inf, np.full(len(x), np.nan), None, np.nan, None)

    def _at(self, x: Array, restricted: bool, order: int) -> CriterionPoint:
        state = self.kernel.evaluate(x[None], derivatives=order > 0)
        solution, df = state.solution, self.df(restricted)
        r2_now = float(solution.r2[0])
        value = math.inf
        if r2_now > 0:
            value = float(solution.logdet[0]) + float(self.of_errors(solution.r2, df)[0]) + self.constant(restricted)
        if restricted:
            value += float(solution.logdet_X[0])
        if not math.isfinite(value):
            return CriterionPoint(x, math.inf, np.full(len(x), np.nan), None, np.nan, None)
        sigma2 = float(self.sigma2_of(solution.r2, df)[0])
        if order == 0:
            return CriterionPoint(x, value, np.full(len(x), np.nan), None, sigma2, state)
        logdet, r2 = (g[0] for g in state.gradients(restricted))
        gradient = logdet + r2 / sigma2
        # a sigma that is held is not profiled out: the degrees of freedom do not enter
        profiled = df if self.held is None else sys.maxsize
        newton = partial(state.newton_matrix, restricted, sigma2, profiled) if order > 1 else None
        return CriterionPoint(x, value, gradient, newton, sigma2, state)
