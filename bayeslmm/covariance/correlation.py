"""The base class of correlation structures, and the identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.linalg import cholesky, factor_tangent

# a correlation estimated at its limit is taken this far inside, where its unconstrained image is finite
LARGEST_CORRELATION = 1.0 - 1e-9


def sech2(z: Array) -> Array:
    """d tanh(z) / dz, without cancellation."""
    return np.asarray(1.0 / np.cosh(np.clip(z, -300.0, 300.0)) ** 2)


def mean_or(values: Array, otherwise: float) -> float:
    """The mean of the finite values, or a default if there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else otherwise


class Correlation(ABC):
    """A family of correlation matrices C(r), natural parameters r(z), z unconstrained. All but `closest` accept leading axes."""

    __slots__ = ()
    q: int

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """What each entry of r is about."""

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    @property
    def needs_order(self) -> bool:
        """The order of the rows matters."""
        return True

    @property
    def linear(self) -> bool:
        """C is linear in r."""
        return False

    @abstractmethod
    def start(self) -> Array:
        """z (size,)."""

    @abstractmethod
    def natural(self, z: Array) -> Array:
        """r (..., size)."""

    @abstractmethod
    def natural_jacobian(self, z: Array) -> Array:
        """dr/dz (..., size of r, size of z)."""

    @abstractmethod
    def from_natural(self, r: Array) -> Array:
        """z (..., size)."""

    @abstractmethod
    def matrix(self, r: Array) -> Array:
        """C (..., q, q)."""

    @abstractmethod
    def first(self, r: Array) -> Array:
        """dC/dr (..., size, q, q)."""

    @abstractmethod
    def second(self, r: Array) -> Array:
        """d2C/dr2 (..., size, size, q, q)."""

    @abstractmethod
    def closest(self, matrix: Array) -> Array:
        """r of a correlation matrix (q, q), NaN where nothing is known: exact for members."""

    def factor(self, z: Array) -> Array:
        """L (..., q, q), lower triangular, C = L L'."""
        return cholesky(self.matrix(self.natural(z)))

    def factor_derivative(self, z: Array) -> Array:
        """dL/dz (..., size, q, q)."""
        r = self.natural(z)
        derivative = np.einsum("...rz,...rij->...zij", self.natural_jacobian(z), self.first(r))
        return factor_tangent(cholesky(self.matrix(r)), derivative)


def lag_matrix(q: int) -> Array:
    """|i - j| (q, q)."""
    return np.abs(np.subtract.outer(np.arange(q), np.arange(q))).astype(np.float64)


@dataclass(frozen=True, slots=True)
class IdentityCorrelation(Correlation):
    """C = I."""

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return ()

    @property
    def needs_order(self) -> bool:
        return False

    @property
    def linear(self) -> bool:
        return True

    def start(self) -> Array:
        return np.empty(0)

    def natural(self, z: Array) -> Array:
        return z

    def natural_jacobian(self, z: Array) -> Array:
        return np.empty((*z.shape, 0))

    def from_natural(self, r: Array) -> Array:
        return r

    def matrix(self, r: Array) -> Array:
        return np.broadcast_to(np.eye(self.q), (*r.shape[:-1], self.q, self.q))

    def first(self, r: Array) -> Array:
        return np.empty((*r.shape, self.q, self.q))

    def second(self, r: Array) -> Array:
        return np.empty((*r.shape, 0, self.q, self.q))

    def closest(self, matrix: Array) -> Array:
        return np.empty((*matrix.shape[:-2], 0))

    def factor(self, z: Array) -> Array:
        return self.matrix(z)

    def factor_derivative(self, z: Array) -> Array:
        return self.first(z)
