"""Antedependence: one correlation for each pair of neighbours (`ad`, `adh`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.correlation import LARGEST_CORRELATION, Correlation, sech2
from bayeslmm.covariance.linalg import transpose


@dataclass(frozen=True, slots=True)
class AnteDependent(Correlation):
    """C[i, j] = rho_j ... rho_(i-1): a free correlation, tanh(z), for each pair of neighbours.

    With P the lower triangle of C, L[:, j] = P[:, j] sqrt(1 - rho_(j-1)^2), and dP/drho_k = P[:, k+1] P[k, :].
    """

    q: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(Parameter("rho", (k + 1, k)) for k in range(self.q - 1))

    def start(self) -> Array:
        return np.full(self.q - 1, np.arctanh(0.3))

    def natural(self, z: Array) -> Array:
        return np.tanh(z)

    def natural_jacobian(self, z: Array) -> Array:
        return np.asarray(sech2(z)[..., None] * np.eye(self.q - 1))

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.arctanh(r)

    def _products(self, r: Array) -> Array:
        """P (..., q, q), lower triangular."""
        lower = np.zeros((*r.shape[:-1], self.q, self.q))
        lower[..., 0, 0] = 1.0
        for row in range(1, self.q):
            lower[..., row, :row] = lower[..., row - 1, :row] * r[..., row - 1, None]
            lower[..., row, row] = 1.0
        return lower

    def matrix(self, r: Array) -> Array:
        lower = self._products(r)
        return np.asarray(lower + transpose(lower) - np.eye(self.q))

    def first(self, r: Array) -> Array:
        lower = self._products(r)
        half = np.einsum("...ik,...kj->...kij", lower[..., 1:], lower[..., :-1, :])
        return np.asarray(half + transpose(half))

    def second(self, r: Array) -> Array:
        lower = self._products(r)
        # k < l: P[i, l+1] P[l, k+1] P[k, j]; the triangle of P makes the other orders vanish
        half = np.einsum("...il,...lk,...kj->...klij", lower[..., 1:], lower[..., :-1, 1:], lower[..., :-1, :])
        half = half + np.swapaxes(half, -4, -3)
        return np.asarray(half + transpose(half))

    def closest(self, matrix: Array) -> Array:
        return np.clip(np.nan_to_num(np.diagonal(matrix, -1)), -LARGEST_CORRELATION, LARGEST_CORRELATION)

    def _innovations(self, z: Array) -> Array:
        return np.concatenate([np.ones((*z.shape[:-1], 1)), np.sqrt(sech2(z))], axis=-1)

    def factor(self, z: Array) -> Array:
        return np.asarray(self._products(np.tanh(z)) * self._innovations(z)[..., None, :])

    def factor_derivative(self, z: Array) -> Array:
        rho, speed, innovation = np.tanh(z), sech2(z), self._innovations(z)
        lower = self._products(rho)
        moved = np.einsum("...ik,...kj->...kij", lower[..., 1:] * speed[..., None, :], lower[..., :-1, :])
        slowed = -(rho * np.sqrt(speed))[..., :, None] * np.eye(self.q)[1:]
        return np.asarray(moved * innovation[..., None, None, :] + lower[..., None, :, :] * slowed[..., None, :])
