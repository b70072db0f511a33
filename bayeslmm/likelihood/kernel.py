"""What the criterion asks of a kernel, and the kernel for random effects with independent errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.likelihood.crossproducts import CrossProducts
from bayeslmm.likelihood.levels_kernel import LevelsState, Solution, evaluate
from bayeslmm.likelihood.parameters import RandomParameters

SINGULAR = 1e-8
"""Diagonal entries of T below this are not divided by."""


class State(Protocol):
    """One evaluation of a kernel at some parameters x (t, size)."""

    @property
    def solution(self) -> Solution: ...

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        """d(log determinants)/dx and d r2/dx, (t, size) each."""
        ...

    def average_information(self) -> Array:
        """w_i' P w_j of the working variates, (size, size); one x only."""
        ...

    def curvature(self, restricted: bool, weight: float) -> Array:
        """tr(G d2Sigma / dx_i dx_j) with G the derivative of the criterion in Sigma, as far as it is cheap; one x only."""
        ...


class Kernel(Protocol):
    """Cross-products in, log |V0| and [X y]' V0^-1 [X y] out."""

    @property
    def size(self) -> int: ...

    def evaluate(self, x: Array, derivatives: bool) -> State: ...


@dataclass(frozen=True, slots=True, eq=False)
class RandomEffectsState:
    """An evaluation of the kernel of random effects."""

    parameters: RandomParameters
    x: Array
    levels: LevelsState

    @property
    def solution(self) -> Solution:
        return self.levels.solution

    def gradients(self, restricted: bool) -> tuple[Array, Array]:
        scores = self.levels.scores()
        r2 = [-2.0 * np.einsum("atk,btk->tab", a, a) @ T for a, T in zip(scores, self.levels.Ts, strict=True)]
        return self.parameters.chain(self.x, self.levels.logdet_adjoints(restricted)), self.parameters.chain(self.x, r2)

    def _directions(self) -> list[tuple[int, slice, int, Array, Array]]:
        """(factor, columns, parameter, dT, dSigma) of every parameter, the matrices of the whole factor."""
        found = []
        for f, own, part, dT in self.parameters.derivatives(self.x):
            T = self.levels.Ts[f][0]
            for i in range(part.stop - part.start):
                whole = np.zeros_like(T)
                whole[own, own] = dT[0, i]
                dS = whole @ T.T
                found.append((f, own, part.start + i, whole, dS + dS.T))
        return sorted(found, key=lambda d: d[2])

    def average_information(self) -> Array:
        return self.levels.average_information([(f, dS) for f, _, _, _, dS in self._directions()], self.levels.scores())

    def curvature(self, restricted: bool, weight: float) -> Array:
        adjoints = self.levels.logdet_adjoints(restricted)
        scores = self.levels.scores()
        size = self.x.shape[1]
        out = np.zeros((size, size))
        G = []
        for a, T, gT in zip(scores, self.levels.Ts, adjoints, strict=True):
            if np.abs(np.diagonal(T[0])).min(initial=np.inf) > SINGULAR:
                G.append(0.5 * np.linalg.solve(T[0].T, gT[0].T).T - weight * a[:, 0] @ a[:, 0].T)
            else:
                G.append(np.zeros_like(T[0]))
        directions = self._directions()
        for i, (f, _, _, dTi, _) in enumerate(directions):
            for j, (g, _, _, dTj, _) in enumerate(directions[: i + 1]):
                if f == g:
                    out[i, j] = out[j, i] = 2.0 * np.sum((G[f] @ dTi) * dTj)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class RandomEffectsKernel:
    """Random effects with independent errors."""

    parameters: RandomParameters
    cross: CrossProducts

    @property
    def size(self) -> int:
        return self.parameters.size

    def evaluate(self, x: Array, derivatives: bool) -> RandomEffectsState:
        return RandomEffectsState(self.parameters, x, evaluate(self.cross, self.parameters.blocks(x), derivatives))
