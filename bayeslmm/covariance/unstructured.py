"""Unstructured, banded and diagonal matrices: x is the Cholesky factor itself, so Sigma is never indefinite."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bayeslmm._arrays import Array, Codes, readonly
from bayeslmm._validation import require_memory
from bayeslmm.covariance.base import Covariance, Derivatives, Invariance, Parameter, per_row
from bayeslmm.covariance.linalg import cholesky, definite_factor, trapezoidal


@lru_cache(maxsize=256)
def band_positions(q: int, order: int) -> tuple[Codes, Codes]:
    """Rows and columns of the first `order` bands of the lower triangle, column by column."""
    cells = [(row, col) for col in range(q) for row in range(col, min(q, col + order))]
    rows, cols = (np.array(axis, dtype=np.int64) for axis in zip(*cells, strict=True))
    return readonly(rows), readonly(cols)


@lru_cache(maxsize=64)
def _units(q: int, order: int) -> tuple[Array, Array]:
    """dT/dx (size, q, q), one 1 each, and dSigma of the (co)variances, their symmetric image."""
    rows, cols = band_positions(q, order)
    lower = np.zeros((rows.size, q, q))
    lower[np.arange(rows.size), rows, cols] = 1.0
    both = np.maximum(lower, np.swapaxes(lower, -1, -2))
    return readonly(lower), readonly(both)


def linear_derivatives(values: Array, basis: Array) -> Derivatives:
    """Sigma = sum_k values_k basis_k, its constant first and vanishing second derivatives."""
    size, q = basis.shape[0], basis.shape[-1]
    return np.einsum("k,kij->ij", values, basis), basis, np.zeros((size, size, q, q))


@dataclass(frozen=True, slots=True)
class Banded(Covariance):
    """us and un(order): every (co)variance of the first `order` bands; x is the band of T, column by column.

    A banded positive definite matrix has a banded Cholesky factor and the other way round. Natural: (co)variances, linear.
    """

    name: str
    q: int
    order: int
    _flat: Codes = field(init=False, repr=False, compare=False)
    _unit: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = min(self.order, self.q)
        cells = order * self.q - order * (order - 1) // 2
        what = f"the derivatives of {cells:,} (co)variances of {self.q:,} columns"
        require_memory("covariances", 2.0 * cells * self.q**2, what, "take a structure of few parameters: diag, cs, ar1, fa")
        rows, cols = band_positions(self.q, self.order)
        object.__setattr__(self, "_flat", readonly(rows * self.q + cols))
        object.__setattr__(self, "_unit", _units(self.q, self.order)[0])

    @property
    def size(self) -> int:
        return self._flat.size

    @property
    def scales(self) -> Codes:
        rows, cols = band_positions(self.q, self.order)
        return np.flatnonzero(rows == cols)

    @property
    def rows(self) -> Codes:
        return band_positions(self.q, self.order)[0]

    @property
    def degrees(self) -> Codes:
        return np.ones(self.size, dtype=np.int64)

    @property
    def invariance(self) -> Invariance:
        return "any" if self.order == self.q else "diagonal"

    @property
    def needs_order(self) -> bool:
        return 1 < self.order < self.q

    @property
    def linear(self) -> bool:
        return True

    @property
    def factor_linear(self) -> bool:
        return True

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        rows, cols = band_positions(self.q, self.order)
        return tuple(
            Parameter("var", (row,)) if row == col else Parameter("cov", (row, col))
            for row, col in zip(rows.tolist(), cols.tolist(), strict=True)
        )

    def start(self) -> Array:
        x = np.zeros(self.size)
        x[self.scales] = 1.0
        return x

    def factor(self, x: Array) -> Array:
        q = self.q
        if x.ndim == 1:
            lower = np.zeros(q * q)
            lower[self._flat] = x
            return lower.reshape(q, q)
        stacked = np.zeros((*x.shape[:-1], q * q))
        stacked[..., self._flat] = x
        return stacked.reshape(*x.shape[:-1], q, q)

    def factor_derivative(self, x: Array) -> Array:
        return self._unit if x.ndim == 1 else np.broadcast_to(self._unit, (*x.shape[:-1], *self._unit.shape))

    def _take(self, matrix: Array) -> Array:
        return matrix.reshape(*matrix.shape[:-2], self.q**2)[..., self._flat]

    def from_matrix(self, sigma: Array) -> Array:
        if self.q == 1:
            return np.asarray(np.sqrt(np.maximum(sigma[0], 0.0)))
        if self.order < self.q:
            sigma = np.where(np.tri(self.q, k=self.order - 1) * np.tri(self.q, k=self.order - 1).T > 0, sigma, 0.0)
        return self._take(definite_factor(sigma))

    def map_rows(self, x: Array, A: Array) -> Array:
        if self.invariance == "any":
            return self._take(trapezoidal(A @ self.factor(x)))
        return self.rescale_rows(x, np.diagonal(A))

    def natural(self, x: Array) -> Array:
        return self._take(self.matrix(x))

    def from_natural(self, values: Array) -> Array:
        lower = self.factor(np.asarray(values, dtype=np.float64))
        return self._take(cholesky(lower + np.swapaxes(np.tril(lower, -1), -1, -2)))

    def natural_derivatives(self, values: Array) -> Derivatives:
        return linear_derivatives(values, _units(self.q, self.order)[1])


@dataclass(frozen=True, slots=True)
class Diagonal(Banded):
    """diag: independent rows, one scale each. Natural: sds; components: variances, linear."""

    @property
    def invariance(self) -> Invariance:
        return "diagonal"

    @property
    def linear(self) -> bool:
        return False

    @property
    def component_linear(self) -> bool:
        return True

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return per_row("sd", self.q)

    @property
    def component_parameters(self) -> tuple[Parameter, ...]:
        return per_row("var", self.q)

    def natural(self, x: Array) -> Array:
        return np.abs(x)

    def from_natural(self, values: Array) -> Array:
        return np.array(values, dtype=np.float64)

    def natural_derivatives(self, values: Array) -> Derivatives:
        unit = _units(self.q, 1)[1]
        second = np.zeros((self.q, self.q, self.q, self.q))
        second[np.arange(self.q), np.arange(self.q)] = 2.0 * unit
        return np.diag(values**2), 2.0 * values[:, None, None] * unit, second

    def components(self, x: Array) -> Array:
        return np.square(x)

    def from_components(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sqrt(values)

    def component_derivatives(self, values: Array) -> Derivatives:
        return linear_derivatives(values, _units(self.q, 1)[1])
