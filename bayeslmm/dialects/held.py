"""Covariance parameters that PARMS holds at their values: only the free ones are uncertain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.inference.fixed_effects import Inference
from bayeslmm.inference.tau import Curvature, curvature, pseudo_inverse
from bayeslmm.likelihood.criterion import Point
from bayeslmm.likelihood.problem import Problem
from bayeslmm.model import LMM
from bayeslmm.results.fit import Fit


@dataclass(frozen=True, slots=True, eq=False)
class Free:
    """The directions of tau in which the parameters may move.

    basis : (size + 1, k) orthonormal; bend : (size + 1, size + 1) sum of multipliers times the curvature of what is held, which the
    Hessian of the criterion loses along the constraint
    """

    basis: Array
    bend: Array


class HeldFit(Fit):
    """A fit whose residual variance is not the one that its other parameters would have profiled out."""

    def __init__(self, model: LMM, problem: Problem, estimate: Estimate, sigma2: float) -> None:
        super().__init__(model, problem, estimate, estimate.elapsed)
        self._sigma2 = sigma2

    @cached_property
    def point(self) -> Point:
        """The criterion at the optimum, with the residual variance as held."""
        return replace(self.problem.criterion.at(self.estimate.x, self.restricted), sigma2=self._sigma2)


class HeldInference(Inference):
    """`Inference` along the free directions; None where all are free."""

    def __init__(self, fit: Fit, free: Free | None) -> None:
        super().__init__(fit)
        self.free = free

    @cached_property
    def curvature(self) -> Curvature:
        found = curvature(self.fit)
        if self.free is None:
            return found
        N = self.free.basis
        inner = 2.0 * pseudo_inverse(N.T @ (found.hessian - self.free.bend) @ N) if N.shape[1] else np.zeros((0, 0))
        return replace(found, covariance=N @ inner @ N.T)
