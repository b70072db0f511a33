"""Factor-analytic structures: a few common factors, with or without variances of their own for the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bayeslmm._arrays import Array, Codes, readonly
from bayeslmm.covariance.base import Covariance, Derivatives, Invariance, MatrixCovariance, Parameter, per_row
from bayeslmm.covariance.linalg import best_of, transpose, trapezoidal


@lru_cache(maxsize=64)
def trapezoid(q: int, order: int) -> tuple[Codes, Codes]:
    """Rows and columns of a lower trapezoidal q x order matrix, column by column."""
    cells = [(row, col) for col in range(order) for row in range(col, q)]
    rows, cols = (np.array(axis, dtype=np.int64) for axis in zip(*cells, strict=True))
    return readonly(rows), readonly(cols)


def loading_parameters(q: int, order: int) -> tuple[Parameter, ...]:
    """`loading1_2` is the loading of row 2 on factor 1."""
    rows, cols = trapezoid(q, order)
    return tuple(Parameter(f"loading{col + 1}", (row,)) for row, col in zip(rows.tolist(), cols.tolist(), strict=True))


def leading_loadings(matrix: Array, order: int) -> Array:
    """Loadings (q, order) of the best approximation of a symmetric matrix by `order` factors; of a rank less, some are exactly 0."""
    values, vectors = np.linalg.eigh(matrix)
    rounding = 8.0 * len(matrix) * np.finfo(np.float64).eps
    values = np.where(values > rounding * values[-1], values, 0.0)[-order:]
    loadings = trapezoidal(vectors[:, -order:] * np.sqrt(values))
    return np.where(np.abs(loadings) > rounding * np.sqrt(values[-1]), loadings, 0.0)


def loading_derivatives(loadings: Array, order: int) -> tuple[Array, Array]:
    """d(Lambda Lambda') (m, q, q) and its second derivative (m, m, q, q) in the trapezoidal entries, Lambda (q, order)."""
    rows, cols = trapezoid(loadings.shape[0], order)
    unit = np.zeros((rows.size, *loadings.shape))
    unit[np.arange(rows.size), rows, cols] = 1.0
    first = unit @ loadings.T
    second = np.einsum("aik,bjk->abij", unit, unit)
    return first + transpose(first), second + transpose(second)


@dataclass(frozen=True, slots=True)
class FactorAnalytic0(Covariance):
    """fa0(order): Lambda Lambda', of rank `order`; x is Lambda, which is the left part of T. Natural parameters: the loadings."""

    name: str
    q: int
    order: int
    _unit: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows, cols = trapezoid(self.q, self.order)
        unit = np.zeros((rows.size, self.q, self.q))
        unit[np.arange(rows.size), rows, cols] = 1.0
        object.__setattr__(self, "_unit", readonly(unit))

    @property
    def size(self) -> int:
        return int(self._unit.shape[0])

    @property
    def scales(self) -> Codes:
        rows, cols = trapezoid(self.q, self.order)
        return np.flatnonzero(rows == cols)

    @property
    def rows(self) -> Codes:
        return trapezoid(self.q, self.order)[0]

    @property
    def degrees(self) -> Codes:
        return np.ones(self.size, dtype=np.int64)

    @property
    def invariance(self) -> Invariance:
        return "any"

    @property
    def factor_linear(self) -> bool:
        return True

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return loading_parameters(self.q, self.order)

    def start(self) -> Array:
        rows, cols = trapezoid(self.q, self.order)
        return np.where(rows == cols, 1.0, np.where(rows >= self.order, 0.5, 0.0))

    def factor(self, x: Array) -> Array:
        rows, cols = trapezoid(self.q, self.order)
        lower = np.zeros((*x.shape[:-1], self.q, self.q))
        lower[..., rows, cols] = x
        return lower

    def factor_derivative(self, x: Array) -> Array:
        return np.broadcast_to(self._unit, (*x.shape[:-1], *self._unit.shape))

    def from_matrix(self, sigma: Array) -> Array:
        return np.asarray(leading_loadings(sigma, self.order)[trapezoid(self.q, self.order)])

    def map_rows(self, x: Array, A: Array) -> Array:
        loadings = self.factor(x)[:, : self.order]
        return np.asarray(trapezoidal(A @ loadings)[trapezoid(self.q, self.order)])

    def natural(self, x: Array) -> Array:
        return np.array(x, dtype=np.float64)

    def from_natural(self, values: Array) -> Array:
        return np.array(values, dtype=np.float64)

    def natural_derivatives(self, values: Array) -> Derivatives:
        loadings = self.factor(values)[:, : self.order]
        return loadings @ loadings.T, *loading_derivatives(loadings, self.order)


@dataclass(frozen=True, slots=True)
class FactorAnalytic(MatrixCovariance):
    """fa(order): Lambda Lambda' + diag(psi^2); fa1(order): Lambda Lambda' + psi^2 I.

    x = (s, angle, other psi, other loadings): s is the sd of the first row, psi_1 = s cos(angle), Lambda[0, 0] = s sin(angle), so
    that s can be held at 1 and a row without variance of its own lies inside. Natural: the loadings, then the variances psi^2.
    """

    name: str
    q: int
    order: int
    common: bool

    @property
    def _own(self) -> int:
        return 1 if self.common else self.q

    @property
    def size(self) -> int:
        return self._own + trapezoid(self.q, self.order)[0].size

    @property
    def scales(self) -> Codes:
        return np.concatenate([[0], np.arange(2, 1 + self._own)]).astype(np.int64)

    @property
    def degrees(self) -> Codes:
        degrees = np.ones(self.size, dtype=np.int64)
        degrees[1] = 0
        return degrees

    @property
    def rows(self) -> Codes:
        own = np.arange(1, self._own)
        return np.concatenate([[0, -1], own, trapezoid(self.q, self.order)[0][1:]]).astype(np.int64)

    @property
    def invariance(self) -> Invariance:
        return "scalar" if self.common else "diagonal"

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        own = (Parameter("unique"),) if self.common else per_row("unique", self.q)
        return (*loading_parameters(self.q, self.order), *own)

    def start(self) -> Array:
        rows, cols = trapezoid(self.q, self.order)
        loadings = np.where((rows >= self.order) | (rows == cols), np.sqrt(0.3 / self.order), 0.0)
        return self.from_natural(np.concatenate([loadings, np.full(self._own, 0.7)]))

    def _own_and_loadings(self, x: Array) -> tuple[Array, Array]:
        """psi (..., 1 or q) and Lambda (..., q, order)."""
        s, angle = x[..., :1], x[..., 1:2]
        psi = np.concatenate([s * np.cos(angle), x[..., 2 : 1 + self._own]], axis=-1)
        loadings = np.zeros((*x.shape[:-1], self.q, self.order))
        loadings[(..., *trapezoid(self.q, self.order))] = np.concatenate([s * np.sin(angle), x[..., 1 + self._own :]], axis=-1)
        return psi, loadings

    def sigma(self, x: Array) -> Array:
        psi, loadings = self._own_and_loadings(x)
        return np.asarray(loadings @ transpose(loadings) + np.square(psi)[..., None] * np.eye(self.q))

    def _own_units(self) -> Array:
        unit = np.eye(self.q)
        return unit[None] if self.common else unit[:, :, None] * unit[:, None, :]

    def sigma_derivative(self, x: Array) -> Array:
        psi, loadings = self._own_and_loadings(x)
        rows, cols = trapezoid(self.q, self.order)
        by_own = 2.0 * psi[..., None, None] * self._own_units()
        edge = np.eye(self.q)[rows][:, :, None] * np.swapaxes(loadings, -1, -2)[..., cols, None, :]
        by_loading = edge + transpose(edge)
        s, cos, sin = x[..., 0, None, None], np.cos(x[..., 1, None, None]), np.sin(x[..., 1, None, None])
        own, common = by_own[..., 0, :, :], by_loading[..., 0, :, :]
        rotated = np.stack([cos * own + sin * common, s * (cos * common - sin * own)], axis=-3)
        return np.concatenate([rotated, by_own[..., 1:, :, :], by_loading[..., 1:, :, :]], axis=-3)

    def natural(self, x: Array) -> Array:
        psi, loadings = self._own_and_loadings(x)
        return np.concatenate([loadings[(..., *trapezoid(self.q, self.order))], np.square(psi)], axis=-1)

    def from_natural(self, values: Array) -> Array:
        count = self.size - self._own
        with np.errstate(invalid="ignore"):
            loadings, psi = values[..., :count], np.sqrt(values[..., count:])
        s = np.hypot(psi[..., :1], loadings[..., :1])
        return np.concatenate([s, np.arctan2(loadings[..., :1], psi[..., :1]), psi[..., 1:], loadings[..., 1:]], axis=-1)

    def natural_derivatives(self, values: Array) -> Derivatives:
        count = self.size - self._own
        loadings = np.zeros((self.q, self.order))
        loadings[trapezoid(self.q, self.order)] = values[:count]
        first, second_derivative = loading_derivatives(loadings, self.order)
        second = np.zeros((self.size, self.size, self.q, self.q))
        second[:count, :count] = second_derivative
        units = self._own_units()
        sigma = loadings @ loadings.T + np.einsum("k,kij->ij", values[count:], units)
        return sigma, np.concatenate([first, units]), second

    def from_matrix(self, sigma: Array) -> Array:
        scale = float(np.sqrt(max(np.trace(sigma) / self.q, 0.0)))
        if scale == 0.0:
            return np.asarray(self.start() * np.where(self.degrees == 1, 0.0, 1.0))
        target, rows = sigma / scale**2, np.tril_indices(self.q)

        def residual(x: Array) -> tuple[Array, Array]:
            return (self.sigma(x) - target)[rows], self.sigma_derivative(x)[:, rows[0], rows[1]].T

        return self.rescale(best_of(residual, [self._principal(target, share) for share in (0.5, 0.1, 0.9)]), scale)

    def _principal(self, target: Array, share: float) -> Array:
        """Principal-axis start: own variances a share of the diagonal, then a few rounds of eigenvectors of what is left."""
        own = share * np.clip(np.diag(target), 1e-8, None)
        for _ in range(30):
            if self.common:
                own = np.full(self.q, own.mean())
            loadings = leading_loadings(target - np.diag(own), self.order)
            own = np.clip(np.diag(target) - (loadings**2).sum(1), 1e-6, None)
        values = own.mean(keepdims=True) if self.common else own
        return self.from_natural(np.concatenate([loadings[trapezoid(self.q, self.order)], values]))
