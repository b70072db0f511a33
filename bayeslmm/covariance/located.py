"""Spatial structures: a scale and a correlation of distances, also for subjects with places of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance.protocol import Covariance, Pinned
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.covariance.spatial import Spatial
from bayeslmm.covariance.triangle import cholesky, factor_tangent
from bayeslmm.errors import SpecificationError


@dataclass(frozen=True, slots=True, eq=False)
class Located(Homogeneous):
    """s^2 f(distances): the methods of every structure for one set of places, and `..._at` for any others.

    x (..., size), distances (B, k, k) or (k, k); results are (..., B, k, k), derivatives (..., size, B, k, k), the entry of the scale
    included (0 for a correlation).
    """

    @property
    def spatial(self) -> bool:
        return True

    @property
    def curve(self) -> Spatial:
        """The correlation function."""
        if not isinstance(self.correlation_, Spatial):
            raise SpecificationError(f"'{self.name}' is not a function of distances", self.name, "use one of the sp_ structures")
        return self.correlation_

    def at(self, distances: Array) -> Located:
        """The same structure for one other set of places, distances (k, k); its start stays."""
        return Located(self.name, distances.shape[-1], self.curve.at(distances))

    def correlation(self, x: Array, distances: Array) -> Array:
        """C (..., B, k, k)."""
        return self.curve.matrix_at(self.curve.natural(x[..., 1:]), distances)

    def correlation_derivative(self, x: Array, distances: Array) -> Array:
        """dC/dx (..., size, B, k, k)."""
        inner = self.curve.free_derivative_at(x[..., 1:], distances)
        return np.concatenate([np.zeros_like(np.take(inner, [0], axis=-1 - distances.ndim)), inner], axis=-1 - distances.ndim)

    def matrix_at(self, x: Array, distances: Array) -> Array:
        """Sigma (..., B, k, k)."""
        variance = np.square(x[..., 0]).reshape(x.shape[:-1] + (1,) * distances.ndim)
        return np.asarray(variance * self.correlation(x, distances))

    def factor_at(self, x: Array, distances: Array) -> Array:
        """T (..., B, k, k), lower triangular; NaN for places where Sigma is not positive semi-definite."""
        scale = x[..., 0].reshape(x.shape[:-1] + (1,) * distances.ndim)
        return np.asarray(scale * cholesky(self.correlation(x, distances)))

    def factor_derivative_at(self, x: Array, distances: Array) -> Array:
        """dT/dx (..., size, B, k, k)."""
        axis = -1 - distances.ndim
        shape = cholesky(self.correlation(x, distances))
        scale = x[..., 0].reshape(x.shape[:-1] + (1,) * (distances.ndim + 1))
        moved = np.moveaxis(self.curve.free_derivative_at(x[..., 1:], distances), axis, -3)
        inner = np.moveaxis(factor_tangent(shape, moved), -3, axis)
        return np.concatenate([np.expand_dims(shape, axis), scale * inner], axis=axis)

    def pinned(self) -> PinnedLocated:
        """The correlation alone, its scale held at 1."""
        return PinnedLocated(self)


@dataclass(frozen=True, slots=True, eq=False)
class PinnedLocated(Pinned):
    """A spatial structure whose scale is held at 1; x lacks the scale."""

    @property
    def located(self) -> Located:
        """The full structure."""
        full: Covariance = self.covariance
        assert isinstance(full, Located)
        return full

    def correlation(self, x: Array, distances: Array) -> Array:
        """C (..., B, k, k)."""
        return self.located.correlation(self.padded(x), distances)

    def correlation_derivative(self, x: Array, distances: Array) -> Array:
        """dC/dx (..., size, B, k, k)."""
        return self.located.curve.free_derivative_at(x, distances)

    def factor_at(self, x: Array, distances: Array) -> Array:
        """T0 (..., B, k, k)."""
        return self.located.factor_at(self.padded(x), distances)

    def factor_derivative_at(self, x: Array, distances: Array) -> Array:
        """dT0/dx (..., size, B, k, k)."""
        full = self.located.factor_derivative_at(self.padded(x), distances)
        return np.take(full, np.arange(1, full.shape[-1 - distances.ndim]), axis=-1 - distances.ndim)
