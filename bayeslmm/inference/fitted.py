"""What the rooms of inference read of a fit: a protocol that `Fit` meets, and that a test can meet with four attributes."""

from __future__ import annotations

from typing import Protocol

from bayeslmm.data.design import Design
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.likelihood.criterion import Point
from bayeslmm.likelihood.problem import Problem


class Fitted(Protocol):
    """A design, its problem, the optimum, and the criterion evaluated there."""

    @property
    def design(self) -> Design: ...
    @property
    def problem(self) -> Problem: ...
    @property
    def estimate(self) -> Estimate: ...
    @property
    def point(self) -> Point: ...
    @property
    def nobs(self) -> int: ...
    @property
    def sigma(self) -> float: ...


def restricted(fit: Fitted) -> bool:
    """Whether the criterion is the restricted one: REML, and MAP, which integrates a flat alpha out as well."""
    return fit.estimate.method != "ML"
