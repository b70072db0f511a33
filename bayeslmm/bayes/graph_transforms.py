"""Axes for the variables of a graph: each changes what a sampler moves along, none changes the variable that a user sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.transforms import Transform
from pytensor.tensor import TensorVariable

from bayeslmm.arrays import Array
from bayeslmm.bayes.op import ValueAndGradient
from bayeslmm.estimate.prior_density import lkj_shapes, partial_positions


class ConditionedCoefficients(Transform):  # type: ignore[misc]
    """alpha = origin + B a: a sampler sees coefficients of centred, orthogonal columns, wherever the covariates start."""

    name = "conditioned"
    ndim_supp = 1

    def __init__(self, origin: Array, B: Array) -> None:
        self.origin, self.B = origin, B
        self.inverse, self.log_volume = np.linalg.inv(B), float(np.linalg.slogdet(B)[1])

    def backward(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return pt.as_tensor_variable(self.origin) + value @ self.B.T

    def forward(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return (value - self.origin) @ self.inverse.T

    def log_jac_det(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return value.sum(axis=-1).zeros_like() + self.log_volume


class PartialCorrelations(Transform):  # type: ignore[misc]
    """A correlation matrix by the inverse hyperbolic tangents z of its canonical partial correlations, row by row."""

    name = "partial"
    ndim_supp = 1

    def __init__(self, q: int) -> None:
        self.q = q
        rows, columns = partial_positions(q)
        self.at = (rows, columns)

    def factor(self, z: TensorVariable) -> TensorVariable:
        """L, lower triangular with rows of length 1."""
        Z = pt.zeros((self.q, self.q))[self.at].set(z)
        log_left = pt.cumsum(log_sech(Z), axis=1)
        before = pt.concatenate([pt.zeros((self.q, 1)), log_left[:, :-1]], axis=1)
        L = (pt.tanh(Z) + pt.eye(self.q)) * pt.exp(before)
        # lets PyTensor take cholesky(L L') for L
        L.tag.lower_triangular = True
        return L

    def backward(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        L = self.factor(value)
        return L @ L.mT

    def forward(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        L = pt.linalg.cholesky(value)
        before = pt.concatenate([pt.ones((self.q, 1)), 1.0 - pt.cumsum(L**2, axis=1)[:, :-1]], axis=1)
        return pt.arctanh((L / pt.sqrt(pt.maximum(before, 1e-300)))[self.at])

    def log_jac_det(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return pt.sum(2.0 * lkj_shapes(self.q, 1.0) * log_sech(value), axis=-1)


class Volume(Transform):  # type: ignore[misc]
    """No change of the variable, an axis already; the volume that it has there of the parameters that its prior speaks of."""

    name = "volume"
    ndim_supp = 1

    def __init__(self, function: Callable[[Array], tuple[float, Array]], size: int) -> None:
        self.volume = ValueAndGradient(function, (size,))

    def backward(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return pt.as_tensor_variable(value).copy()

    def forward(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return pt.as_tensor_variable(value).copy()

    def log_jac_det(self, value: TensorVariable, *inputs: Any) -> TensorVariable:
        return self.volume(value)[0]


def log_sech(z: TensorVariable) -> TensorVariable:
    """log(1 / cosh z), finite for any z."""
    size = pt.abs(z)
    return -(size + pt.log1p(pt.exp(-2.0 * size)) - np.log(2.0))
