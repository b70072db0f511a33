"""The kernel of random effects with independent errors: value, gradient, Newton matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.likelihood.kernel import Solution, solve_Xy, stack_solutions
from bayeslmm.likelihood.parameters import RandomParameters
from bayeslmm.likelihood.random_effects.blocked import BlockedCholesky, evaluate_blocked
from bayeslmm.likelihood.random_effects.cross_products import CrossProducts
from bayeslmm.likelihood.random_effects.dense import DenseCrossProducts, DenseFactor, FewPoints, dense_cross_products
from bayeslmm.likelihood.random_effects.level_blocks import LARGE_SD

SINGULAR_VALUE = 1e-8
"""Singular values of T below this are not divided by."""


@dataclass(frozen=True, eq=False)
class RandomEffectsState:
    """An evaluation of the kernel of random effects."""

    parameters: RandomParameters
    x: Array
    levels: BlockedCholesky

    @property
    def solution(self) -> Solution:
        return self.levels.solution

    def modes(self) -> list[Array]:
        """Conditional modes beta of every factor, (q, t, K), on the standardized columns (before L of a relationship matrix)."""
        return self.levels.modes()

    @cached_property
    def derivatives(self) -> list[tuple[int, slice, slice, Array]]:
        """For every term: its factor, its columns there, its part of x, dT/dx (t, size, q, q)."""
        return self.parameters.derivatives(self.x)

    @cached_property
    def _r2_slope(self) -> Array:
        return self.parameters.chain(self.derivatives, [-2.0 * S @ T for S, T in zip(self.levels.squares, self.levels.Ts, strict=True)])

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        return self.parameters.chain(self.derivatives, self.levels.logdet_adjoints(restricted)), self._r2_slope

    @cached_property
    def _parameter_derivatives(self) -> list[Array]:
        """dT of the parameters of every factor, (k, q, q), the matrices of the whole factor."""
        found: list[list[Array]] = [[] for _ in self.levels.Ts]
        for f, own, _, dT in self.derivatives:
            q = self.levels.Ts[f].shape[-1]
            if own.stop - own.start == q:
                found[f].append(dT[0])
                continue
            whole = np.zeros((dT.shape[1], q, q))
            whole[:, own, own] = dT[0]
            found[f].append(whole)
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in found]

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        # 2 (AI - AI_s AI_s' / AI_ss), the average information with sigma profiled out
        halves = [dT @ T[0].T for dT, T in zip(self._parameter_derivatives, self.levels.Ts, strict=True)]
        information = self.levels.average_information([half + half.swapaxes(-1, -2) for half in halves])
        order = self.parameters.order
        if order is not None:
            information = information[order[:, None], order]
        slope = self._r2_slope[0] / sigma2
        return np.asarray(information / sigma2 - slope[:, None] * slope / df + self.curvature(restricted, 1.0 / sigma2))

    def sigma_gradients(self, restricted: bool, sigma2: float) -> list[Array]:
        """G = d criterion / d(Sigma) of every term, in the order of the formula."""
        G: dict[int, Array] = {}
        information = self.levels.information(restricted)
        for factor, block, square in zip(self.parameters.factors, information, self.levels.squares, strict=True):
            whole = block[0] - square[0] / sigma2
            for i, own in zip(factor.terms, factor.slices, strict=True):
                G[i] = 0.5 * (whole[own, own] + whole[own, own].T)
        return [G[i] for i in range(len(G))]

    def curvature(self, restricted: bool, weight: float) -> Array:
        """2 tr(G dT_i dT_j') with G the derivative of the criterion in Sigma: what the parameterisation adds."""
        out = np.zeros((self.x.shape[1], self.x.shape[1]))
        begin = 0
        for G, dT in zip(self._factor_gradients(restricted, weight), self._parameter_derivatives, strict=True):
            part = slice(begin, begin + len(dT))
            out[part, part] = 2.0 * ((G @ dT).reshape(len(dT), -1) @ dT.reshape(len(dT), -1).T)
            begin = part.stop
        order = self.parameters.order
        return out if order is None else out[order[:, None], order]

    def _factor_gradients(self, restricted: bool, weight: float) -> list[Array]:
        """d criterion / d Sigma of every factor: from gT = 2 G T where T can be divided by, else from the cross-products."""
        smooth = all(float(np.abs(T[0].diagonal()).min(initial=np.inf)) > SINGULAR_VALUE for T in self.levels.Ts)
        if smooth:
            adjoints = self.levels.logdet_adjoints(restricted)
            halves = [0.5 * np.linalg.solve(T[0].T, g[0].T).T for T, g in zip(self.levels.Ts, adjoints, strict=True)]
        else:
            halves = [g[0] for g in self.levels.information(restricted)]
        return [g - weight * square[0] for g, square in zip(halves, self.levels.squares, strict=True)]


class DenseState(RandomEffectsState):
    """An evaluation of few columns as one matrix; what is asked of levels is found level by level when it is first asked for."""

    def __init__(self, kernel: RandomEffectsKernel, point: DenseFactor) -> None:
        own = {"parameters": kernel.parameters, "x": point.x[None], "kernel": kernel, "point": point}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    kernel: RandomEffectsKernel
    point: DenseFactor

    @cached_property
    def levels(self) -> BlockedCholesky:
        return self.kernel.by_level(self.x, derivatives=True).levels

    @property
    def solution(self) -> Solution:
        return self.point.solution

    def modes(self) -> list[Array]:
        return self.point.modes()

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        return self.point.logdet_slope(restricted)[None], self.point.r2_slope[None]

    def newton_matrix(self, restricted: bool, sigma2: float, df: int) -> Array:
        return self.point.newton_matrix(restricted, sigma2, df)


@dataclass(frozen=True, eq=False)
class RandomEffectsKernel:
    """Random effects with independent errors.

    together : one x at a time may be evaluated with all columns as one matrix, where they are few
    """

    parameters: RandomParameters
    cross: CrossProducts
    together: bool = True

    @property
    def size(self) -> int:
        return self.parameters.size

    @cached_property
    def dense(self) -> DenseCrossProducts | None:
        return dense_cross_products(self.parameters, self.cross) if self.together else None

    def solve(self, x: Array) -> Solution:
        if len(x) == 1 and not x.any():
            return solve_Xy(np.zeros(1), self.cross.Xy[None])
        if len(x) > 1 and self._large(x):
            return stack_solutions([self.solve(row[None]) for row in x])
        return self.by_level(x, derivatives=False).solution

    def _large(self, x: Array) -> bool:
        """Whether a single factor's T may be so large that levels are better evaluated one x at a time."""
        return len(self.cross.factors) == 1 and float(np.abs(x).max(initial=0.0)) >= LARGE_SD

    def by_level(self, x: Array, derivatives: bool) -> RandomEffectsState:
        """The profile at x (t, size), level by level."""
        return RandomEffectsState(self.parameters, x, evaluate_blocked(self.cross, self.parameters.blocks(x), derivatives))

    def evaluate_many(self, x: Array) -> FewPoints | RandomEffectsState:
        found = self.dense.evaluate_many(x) if self.dense is not None else None
        return self.by_level(x, derivatives=True) if found is None else found

    def evaluate(self, x: Array, derivatives: bool) -> RandomEffectsState:
        if self.dense is not None and derivatives and len(x) == 1 and not self._large(x):
            point = self.dense.evaluate(x[0])
            if point is not None:
                return DenseState(self, point)
        return self.by_level(x, derivatives)
