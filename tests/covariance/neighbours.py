"""Neighbouring rows alone are correlated: the one file of a structure that somebody adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Covariance, Parameter, Request, Structure
from bayeslmm.covariance.correlation import Correlation, sech2
from bayeslmm.covariance.scaled import Homogeneous


@dataclass(frozen=True, slots=True)
class Neighbours(Correlation):
    """C = I + rho B, B 1 beside the diagonal; |rho| < 1/2 is definite at any dimension."""

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("rho"),)

    @property
    def linear(self) -> bool:
        return True

    def start(self) -> Array:
        return np.array([0.2])

    def natural(self, z: Array) -> Array:
        return np.asarray(0.5 * np.tanh(z))

    def natural_jacobian(self, z: Array) -> Array:
        return np.asarray(0.5 * sech2(z)[..., None])

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.arctanh(2.0 * r))

    def matrix(self, r: Array) -> Array:
        return np.asarray(np.eye(self.q) + r[..., None] * self._beside())

    def first(self, r: Array) -> Array:
        return np.broadcast_to(self._beside(), (*r.shape, self.q, self.q))

    def second(self, r: Array) -> Array:
        return np.zeros((*r.shape, 1, self.q, self.q))

    def closest(self, matrix: Array) -> Array:
        known = np.diagonal(matrix, -1)
        known = known[np.isfinite(known)]
        return np.array([np.clip(known.mean() if known.size else 0.0, -0.499, 0.499)])

    def _beside(self) -> Array:
        return np.asarray(np.eye(self.q, k=1) + np.eye(self.q, k=-1))


def build(request: Request) -> Covariance:
    """The structure of a request."""
    return Homogeneous(request.name, request.q, Neighbours(request.q))


NEIGHBOURS = Structure(
    "neighbours",
    "one variance, one correlation of neighbours",
    "2",
    build,
    needs_order=True,
    serial=True,
    homogeneous=True,
    sas="NEIGHBOURS",
    sas_row="NB",
)
