"""A nugget on a correlation, and a correlation seen at some of its rows only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Parameter
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.spatial import Spatial
from bayeslmm.errors import SpecificationError


@dataclass(frozen=True, slots=True, eq=False)
class WithNugget(Spatial):
    """(1 - w) C + w I, w = 1 / (1 + exp(-z)): `+ local` of PROC MIXED, the nugget of nlme. r = (those of C, w).

    Around a serial correlation only the methods without distances are of use.
    """

    q: int
    inner: Correlation
    distances: Array
    reach: float

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*self.inner.parameters, Parameter("nugget"))

    @property
    def needs_order(self) -> bool:
        return self.inner.needs_order

    def start(self) -> Array:
        return np.append(self.inner.start(), np.log(0.2 / 0.8))

    def natural(self, z: Array) -> Array:
        share = 0.5 * (1.0 + np.tanh(0.5 * z[..., -1:]))
        return np.concatenate([self.inner.natural(z[..., :-1]), share], axis=-1)

    def natural_jacobian(self, z: Array) -> Array:
        jacobian = np.zeros((*z.shape, self.size))
        jacobian[..., :-1, :-1] = self.inner.natural_jacobian(z[..., :-1])
        jacobian[..., -1, -1] = 0.25 / np.cosh(np.clip(0.5 * z[..., -1], -300.0, 300.0)) ** 2
        return jacobian

    def from_natural(self, r: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            free = np.log(r[..., -1:]) - np.log1p(-r[..., -1:])
        return np.concatenate([self.inner.from_natural(r[..., :-1]), free], axis=-1)

    def _mixed(self, share: Array, base: Array, axes: int) -> Array:
        kept = (1.0 - share).reshape(share.shape + (1,) * axes)
        return np.asarray(kept * base + (1.0 - kept) * np.eye(base.shape[-1]))

    def _first(self, share: Array, base: Array, d1: Array, axes: int) -> Array:
        kept = (1.0 - share).reshape(share.shape + (1,) * (axes + 1))
        last = np.expand_dims(np.eye(base.shape[-1]) - base, -1 - axes)
        return np.concatenate([kept * d1, last], axis=-1 - axes)

    def _second(self, share: Array, d1: Array, d2: Array, axes: int) -> Array:
        kept = (1.0 - share).reshape(share.shape + (1,) * (axes + 2))
        # C is linear in w: its column and row of second derivatives are -dC/dr, the corner is 0
        beside = np.concatenate([kept * d2, np.expand_dims(-d1, -1 - axes)], axis=-1 - axes)
        corner = np.zeros_like(np.take(d1, [0], axis=-1 - axes))
        below = np.concatenate([-d1, corner], axis=-1 - axes)
        return np.concatenate([beside, np.expand_dims(below, -2 - axes)], axis=-2 - axes)

    def matrix(self, r: Array) -> Array:
        return self._mixed(r[..., -1], self.inner.matrix(r[..., :-1]), 2)

    def first(self, r: Array) -> Array:
        inner = r[..., :-1]
        return self._first(r[..., -1], self.inner.matrix(inner), self.inner.first(inner), 2)

    def second(self, r: Array) -> Array:
        inner = r[..., :-1]
        return self._second(r[..., -1], self.inner.first(inner), self.inner.second(inner), 2)

    def _spatial(self) -> Spatial:
        if not isinstance(self.inner, Spatial):
            raise SpecificationError("this structure is not a function of distances", remedy="use a spatial structure such as sp_exp")
        return self.inner

    def at(self, distances: Array) -> WithNugget:
        return replace(self, q=distances.shape[-1], distances=distances, inner=self._spatial().at(distances))

    def matrix_at(self, r: Array, distances: Array) -> Array:
        return self._mixed(r[..., -1], self._spatial().matrix_at(r[..., :-1], distances), distances.ndim)

    def first_at(self, r: Array, distances: Array) -> Array:
        inner, spatial = r[..., :-1], self._spatial()
        return self._first(r[..., -1], spatial.matrix_at(inner, distances), spatial.first_at(inner, distances), distances.ndim)

    def second_at(self, r: Array, distances: Array) -> Array:
        inner, spatial = r[..., :-1], self._spatial()
        return self._second(r[..., -1], spatial.first_at(inner, distances), spatial.second_at(inner, distances), distances.ndim)


@dataclass(frozen=True, slots=True)
class SelectedRows(Correlation):
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
