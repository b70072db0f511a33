"""A correlation structure of which some rows are never seen: the rest keep their distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.parameters import Parameter


@dataclass(frozen=True, slots=True)
class AtPositions(Correlation):
    """The rows and columns `positions` (q of them) of a correlation matrix of more rows; its parameters are the same."""

    q: int
    inner: Correlation
    positions: tuple[int, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.inner.parameters

    @property
    def needs_order(self) -> bool:
        return self.inner.needs_order

    @property
    def linear(self) -> bool:
        return self.inner.linear

    def start(self) -> Array:
        return self.inner.start()

    def natural(self, z: Array) -> Array:
        return self.inner.natural(z)

    def natural_jacobian(self, z: Array) -> Array:
        return self.inner.natural_jacobian(z)

    def from_natural(self, r: Array) -> Array:
        return self.inner.from_natural(r)

    def _picked(self, matrices: Array) -> Array:
        at = np.array(self.positions)
        return np.asarray(matrices[..., at[:, None], at])

    def matrix(self, r: Array) -> Array:
        return self._picked(self.inner.matrix(r))

    def first(self, r: Array) -> Array:
        return self._picked(self.inner.first(r))

    def second(self, r: Array) -> Array:
        return self._picked(self.inner.second(r))

    def closest(self, matrix: Array) -> Array:
        whole = np.full((*matrix.shape[:-2], self.inner.q, self.inner.q), np.nan)
        at = np.array(self.positions)
        whole[..., at[:, None], at] = matrix
        return self.inner.closest(whole)
