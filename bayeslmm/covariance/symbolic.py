"""Structures that are given by Sigma itself; their factor is computed from it."""

from __future__ import annotations

from abc import abstractmethod

from bayeslmm.arrays import Array
from bayeslmm.covariance.protocol import Covariance
from bayeslmm.covariance.triangle import cholesky, factor_tangent


class ByMatrix(Covariance):
    """A structure that says Sigma(x) and dSigma/dx; T is the Cholesky factor, its derivative exact where Sigma is definite."""

    __slots__ = ()

    @abstractmethod
    def sigma(self, x: Array) -> Array:
        """Sigma (..., q, q), definite or not."""

    @abstractmethod
    def sigma_derivative(self, x: Array) -> Array:
        """dSigma/dx (..., size, q, q)."""

    def factor(self, x: Array) -> Array:
        return cholesky(self.sigma(x))

    def factor_derivative(self, x: Array) -> Array:
        return factor_tangent(self.factor(x), self.sigma_derivative(x))
