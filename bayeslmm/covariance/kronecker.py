"""Kronecker products: an unstructured matrix between outcomes, another structure within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance, Derivatives, Invariance, Parameter
from bayeslmm.covariance.unstructured import Banded


def kron(left: Array, right: Array) -> Array:
    """The Kronecker product of the last two axes; leading axes broadcast."""
    product = left[..., :, None, :, None] * right[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], left.shape[-2] * right.shape[-2], left.shape[-1] * right.shape[-1])


@dataclass(frozen=True, slots=True)
class Kronecker(Covariance):
    """us@ar1, us@cs, us@us: Sigma = A (q1) x B (q2), B with its leading scale held at 1. Row (i, j) is i q2 + j.

    x and the natural parameters are those of A, then those of B without the leading one. Labels are the q1 of A, then the q2 of B.
    """

    name: str
    q: int
    outer: Banded
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
        return True

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        inner = tuple(replace(parameter, kind=f"inner_{parameter.kind}") for parameter in self.inner.natural_parameters[1:])
        return (*self.outer.natural_parameters, *inner)

    def natural_names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        outer = self.outer.natural_names_for(labels[: self.outer.q])
        inner = tuple(parameter.labelled(labels[self.outer.q :]) for parameter in self.natural_parameters[self.outer.size :])
        return outer + inner

    def component_names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        return self.natural_names_for(labels)

    def start(self) -> Array:
        return np.concatenate([self.outer.start(), self.inner.pinned().start()])

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
            return np.concatenate([self.outer.from_matrix(0.0 * a), self.inner.pinned().start()])
        scale, inner = self.inner.pinned().from_matrix(b)
        return np.concatenate([self.outer.from_matrix(a * scale**2), inner])
