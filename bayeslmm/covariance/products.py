"""Separable covariances: the Kronecker product of any structures, one for each column of visits (`us@ar1`, `ar1@ar1`, `ar1@id`, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import prod

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance, Derivatives, Invariance, Parameter
from bayeslmm.covariance.composed import WithNugget
from bayeslmm.covariance.correlation import Correlation, Exchangeable, IdentityCorrelation
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.covariance.serial import Autoregressive
from bayeslmm.covariance.spatial import PowerCorrelation


def kron(left: Array, right: Array) -> Array:
    """The Kronecker product of the last two axes; leading axes broadcast."""
    product = left[..., :, None, :, None] * right[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], left.shape[-2] * right.shape[-2], left.shape[-1] * right.shape[-1])


def _of_inner(parameters: Sequence[Parameter], ahead: int = 0) -> tuple[Parameter, ...]:
    """Parameters of the second factor, told from those of the first by their kind; ahead : rows of the first, counted before theirs."""
    return tuple(
        replace(parameter, kind=f"inner_{parameter.kind}", rows=tuple(row + ahead for row in parameter.rows)) for parameter in parameters
    )


@dataclass(frozen=True, slots=True)
class Kronecker(Covariance):
    """Sigma = A (q1) x B (q2), B with its leading scale held at 1. Row (i, j) is i q2 + j.

    x and the natural parameters are those of A, then those of B without the leading one. Labels are the q1 of A, then the q2 of B.
    """

    name: str
    q: int
    outer: Covariance
    inner: Covariance

    @property
    def size(self) -> int:
        return self.outer.size + self.inner.size - 1

    @property
    def scales(self) -> Codes:
        return self.outer.scales

    @property
    def degrees(self) -> Codes:
        return np.concatenate([self.outer.degrees, np.zeros(self.inner.size - 1, dtype=np.int64)])

    @property
    def invariance(self) -> Invariance:
        return "scalar"

    @property
    def needs_order(self) -> bool:
        return self.outer.needs_order or self.inner.needs_order

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return (*self.outer.natural_parameters, *_of_inner(self.inner.natural_parameters[1:]))

    def natural_names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        outer = self.outer.natural_names_for(labels[: self.outer.q])
        inner = self.inner.natural_names_for(labels[self.outer.q :])[1:]
        return (*outer, *(f"inner_{name}" for name in inner))

    def component_names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        return self.natural_names_for(labels)

    def start(self) -> Array:
        return np.concatenate([self.outer.start(), self.inner.pin_scale().start()])

    def _split(self, values: Array) -> tuple[Array, Array]:
        cut = self.outer.size
        return values[..., :cut], np.concatenate([np.ones((*values.shape[:-1], 1)), values[..., cut:]], axis=-1)

    def factor(self, x: Array) -> Array:
        outer, inner = self._split(x)
        return kron(self.outer.factor(outer), self.inner.factor(inner))

    def factor_derivative(self, x: Array) -> Array:
        outer, inner = self._split(x)
        left = kron(self.outer.factor_derivative(outer), self.inner.factor(inner)[..., None, :, :])
        right = kron(self.outer.factor(outer)[..., None, :, :], self.inner.factor_derivative(inner)[..., 1:, :, :])
        return np.concatenate([left, right], axis=-3)

    def natural(self, x: Array) -> Array:
        outer, inner = self._split(x)
        return np.concatenate([self.outer.natural(outer), self.inner.natural(inner)[..., 1:]], axis=-1)

    def from_natural(self, values: Array) -> Array:
        outer, inner = self._split(values)
        return np.concatenate([self.outer.from_natural(outer), self.inner.from_natural(inner)[..., 1:]], axis=-1)

    def natural_derivatives(self, values: Array) -> Derivatives:
        outer, inner = self._split(values)
        a, da, d2a = self.outer.natural_derivatives(outer)
        b, db, d2b = self.inner.natural_derivatives(inner)
        db, d2b = db[1:], d2b[1:, 1:]
        mixed = kron(da[:, None], db[None])
        upper = np.concatenate([kron(d2a, b), mixed], axis=1)
        lower = np.concatenate([np.swapaxes(mixed, 0, 1), kron(a, d2b)], axis=1)
        return kron(a, b), np.concatenate([kron(da, b), kron(a, db)]), np.concatenate([upper, lower])

    def from_matrix(self, sigma: Array) -> Array:
        """The nearest product: the leading singular pair of Sigma rearranged block by block."""
        q1, q2 = self.outer.q, self.inner.q
        blocks = sigma.reshape(q1, q2, q1, q2).transpose(0, 2, 1, 3).reshape(q1 * q1, q2 * q2)
        left, values, right = np.linalg.svd(blocks, full_matrices=False)
        a, b = values[0] * left[:, 0].reshape(q1, q1), right[0].reshape(q2, q2)
        if np.trace(b) < 0:
            a, b = -a, -b
        if values[0] == 0.0 or b[0, 0] <= 0.0:
            return np.concatenate([self.outer.from_matrix(0.0 * a), self.inner.pin_scale().start()])
        scale, inner = self.inner.pin_scale().from_matrix(b)
        return np.concatenate([self.outer.from_matrix(a * scale**2), inner])


_DEFINITE = (Autoregressive, IdentityCorrelation, Exchangeable, PowerCorrelation)
"""Correlations that are definite at every z, over any rows."""


@dataclass(frozen=True, slots=True, eq=False)
class KroneckerCorrelation(Correlation):
    """C = A(r1) x B(r2), two correlation matrices: r and z are those of A, then those of B."""

    q: int
    outer: Correlation
    inner: Correlation

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*self.outer.parameters, *_of_inner(self.inner.parameters, self.outer.q))

    @property
    def needs_order(self) -> bool:
        return self.outer.needs_order or self.inner.needs_order

    @property
    def linear(self) -> bool:
        return self.outer.linear and self.inner.linear and 0 in (self.outer.size, self.inner.size)

    @property
    def definite(self) -> bool:
        return all(factor.definite or isinstance(factor, _DEFINITE) for factor in (self.outer, self.inner))

    def split(self, values: Array) -> tuple[Array, Array]:
        """Parameters of A, and of B."""
        cut = self.outer.size
        return values[..., :cut], values[..., cut:]

    def start(self) -> Array:
        return np.concatenate([self.outer.start(), self.inner.start()])

    def other_starts(self) -> Array:
        outer, inner = self.outer.other_starts(), self.inner.other_starts()
        kept = [np.concatenate([z, self.inner.start()]) for z in outer] + [np.concatenate([self.outer.start(), z]) for z in inner]
        return np.array(kept).reshape(-1, self.size)

    def natural(self, z: Array) -> Array:
        outer, inner = self.split(z)
        return np.concatenate([self.outer.natural(outer), self.inner.natural(inner)], axis=-1)

    def natural_jacobian(self, z: Array) -> Array:
        outer, inner = self.split(z)
        jacobian, cut = np.zeros((*z.shape, self.size)), self.outer.size
        jacobian[..., :cut, :cut] = self.outer.natural_jacobian(outer)
        jacobian[..., cut:, cut:] = self.inner.natural_jacobian(inner)
        return jacobian

    def from_natural(self, r: Array) -> Array:
        outer, inner = self.split(r)
        return np.concatenate([self.outer.from_natural(outer), self.inner.from_natural(inner)], axis=-1)

    def matrix(self, r: Array) -> Array:
        outer, inner = self.split(r)
        return kron(self.outer.matrix(outer), self.inner.matrix(inner))

    def first(self, r: Array) -> Array:
        outer, inner = self.split(r)
        left = kron(self.outer.first(outer), self.inner.matrix(inner)[..., None, :, :])
        right = kron(self.outer.matrix(outer)[..., None, :, :], self.inner.first(inner))
        return np.concatenate([left, right], axis=-3)

    def second(self, r: Array) -> Array:
        outer, inner = self.split(r)
        mixed = kron(self.outer.first(outer)[..., :, None, :, :], self.inner.first(inner)[..., None, :, :, :])
        left = kron(self.outer.second(outer), self.inner.matrix(inner)[..., None, None, :, :])
        right = kron(self.outer.matrix(outer)[..., None, None, :, :], self.inner.second(inner))
        upper = np.concatenate([left, mixed], axis=-3)
        return np.concatenate([upper, np.concatenate([np.swapaxes(mixed, -4, -3), right], axis=-3)], axis=-4)

    def closest(self, matrix: Array) -> Array:
        q1, q2 = self.outer.q, self.inner.q
        blocks = matrix.reshape(q1, q2, q1, q2)
        # along one factor where the other stands still, whose correlation is 1 there
        outer, inner = np.einsum("ikjk->ijk", blocks), np.einsum("kikj->ijk", blocks)
        return np.concatenate([self.outer.closest(_known_mean(outer)), self.inner.closest(_known_mean(inner))])

    def factor(self, z: Array) -> Array:
        outer, inner = self.split(z)
        return kron(self.outer.factor(outer), self.inner.factor(inner))

    def factor_derivative(self, z: Array) -> Array:
        outer, inner = self.split(z)
        left = kron(self.outer.factor_derivative(outer), self.inner.factor(inner)[..., None, :, :])
        right = kron(self.outer.factor(outer)[..., None, :, :], self.inner.factor_derivative(inner))
        return np.concatenate([left, right], axis=-3)


@dataclass(frozen=True, slots=True, eq=False)
class KroneckerCells(Correlation):
    """Some cells of a product, q of them: C[k, l] = A[i_k, i_l] B[j_k, j_l], without the matrix of the whole grid."""

    q: int
    whole: KroneckerCorrelation
    cells: tuple[int, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.whole.parameters

    @property
    def needs_order(self) -> bool:
        return self.whole.needs_order

    @property
    def definite(self) -> bool:
        return self.whole.definite

    def start(self) -> Array:
        return self.whole.start()

    def natural(self, z: Array) -> Array:
        return self.whole.natural(z)

    def natural_jacobian(self, z: Array) -> Array:
        return self.whole.natural_jacobian(z)

    def from_natural(self, r: Array) -> Array:
        return self.whole.from_natural(r)

    def matrix(self, r: Array) -> Array:
        return _pick(self.whole, r, np.array(self.cells))

    def first(self, r: Array) -> Array:
        return _pick_first(self.whole, r, np.array(self.cells))

    def second(self, r: Array) -> Array:
        return _pick_second(self.whole, r, np.array(self.cells))

    def closest(self, matrix: Array) -> Array:
        row, column = np.divmod(np.array(self.cells), self.whole.inner.q)
        outer = _mean_by_pair(matrix, row, np.equal.outer(column, column), self.whole.outer.q)
        inner = _mean_by_pair(matrix, column, np.equal.outer(row, row), self.whole.inner.q)
        return np.concatenate([self.whole.outer.closest(outer), self.whole.inner.closest(inner)])


def _pick(correlation: Correlation, r: Array, cells: Codes) -> Array:
    if not isinstance(correlation, KroneckerCorrelation):
        return np.asarray(correlation.matrix(r)[..., cells[:, None], cells])
    (outer, inner), (row, column) = correlation.split(r), np.divmod(cells, correlation.inner.q)
    return _pick(correlation.outer, outer, row) * _pick(correlation.inner, inner, column)


def _pick_first(correlation: Correlation, r: Array, cells: Codes) -> Array:
    if not isinstance(correlation, KroneckerCorrelation):
        return np.asarray(correlation.first(r)[..., cells[:, None], cells])
    (outer, inner), (row, column) = correlation.split(r), np.divmod(cells, correlation.inner.q)
    left = _pick_first(correlation.outer, outer, row) * _pick(correlation.inner, inner, column)[..., None, :, :]
    right = _pick(correlation.outer, outer, row)[..., None, :, :] * _pick_first(correlation.inner, inner, column)
    return np.concatenate([left, right], axis=-3)


def _pick_second(correlation: Correlation, r: Array, cells: Codes) -> Array:
    if not isinstance(correlation, KroneckerCorrelation):
        return np.asarray(correlation.second(r)[..., cells[:, None], cells])
    (outer, inner), (row, column) = correlation.split(r), np.divmod(cells, correlation.inner.q)
    mixed = (
        _pick_first(correlation.outer, outer, row)[..., :, None, :, :] * _pick_first(correlation.inner, inner, column)[..., None, :, :, :]
    )
    left = _pick_second(correlation.outer, outer, row) * _pick(correlation.inner, inner, column)[..., None, None, :, :]
    right = _pick(correlation.outer, outer, row)[..., None, None, :, :] * _pick_second(correlation.inner, inner, column)
    upper = np.concatenate([left, mixed], axis=-3)
    return np.concatenate([upper, np.concatenate([np.swapaxes(mixed, -4, -3), right], axis=-3)], axis=-4)


def _mean_by_pair(matrix: Array, codes: Codes, counted: Array, size: int) -> Array:
    """Means (size, size) of the entries of a matrix by the codes of their rows, NaN where no counted one is known."""
    seen = counted.astype(bool) & np.isfinite(matrix)
    pair = (codes[:, None] * size + codes)[seen]
    number = np.bincount(pair, minlength=size * size)
    total = np.bincount(pair, matrix[seen], size * size)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).reshape(size, size)


def _known_mean(values: Array) -> Array:
    """Means over the last axis of what is known, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def product_of(name: str, parts: Sequence[Covariance], nugget: bool = False, cells: tuple[int, ...] = ()) -> Covariance:
    """The product `a@b@c` of structures, with a nugget where one is asked for; over some cells where each factor has one variance.

    Then the product is a variance times a product of correlations.
    """
    q, names = prod(part.q for part in parts), name.split("@")
    if all(isinstance(part, Homogeneous) for part in parts):
        correlation = reduce(_correlations, [part.correlation_ for part in parts if isinstance(part, Homogeneous)])
        if cells and isinstance(correlation, KroneckerCorrelation):
            q, correlation = len(cells), KroneckerCells(len(cells), correlation, cells)
        return Homogeneous(name, q, WithNugget(q, correlation, np.zeros((q, q)), 1.0) if nugget else correlation)
    *before, last = parts
    for k in range(len(before) - 1, -1, -1):
        last = Kronecker("@".join(names[k:]), before[k].q * last.q, before[k], last)
    return last


def _correlations(outer: Correlation, inner: Correlation) -> Correlation:
    return KroneckerCorrelation(outer.q * inner.q, outer, inner)


def axis_sizes(covariance: Covariance) -> tuple[tuple[int, bool], ...]:
    """Number of levels of each factor of a product, and whether one parameter says all its correlations; () where it is no product."""
    if isinstance(covariance, Kronecker):
        return (*_axis_or_whole(covariance.outer), *_axis_or_whole(covariance.inner))
    if isinstance(covariance, Homogeneous) and isinstance(covariance.correlation_, KroneckerCorrelation):
        return _correlation_axes(covariance.correlation_)
    return ()


def _axis_or_whole(covariance: Covariance) -> tuple[tuple[int, bool], ...]:
    return axis_sizes(covariance) or ((covariance.q, isinstance(covariance, Homogeneous) and covariance.correlation_.size == 1),)


def _correlation_axes(correlation: Correlation) -> tuple[tuple[int, bool], ...]:
    if isinstance(correlation, KroneckerCorrelation):
        return (*_correlation_axes(correlation.outer), *_correlation_axes(correlation.inner))
    return ((correlation.q, correlation.size == 1),)
