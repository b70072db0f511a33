"""The kernel as nodes of a PyTensor graph: value and derivative come out of one evaluation, as two outputs.

No node has `__props__`: two nodes are equal only if they are one and the same object, so no cache can take the data of one model for
those of another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import grad_not_implemented
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import generate_fallback_impl, numba_funcify

from bayeslmm.arrays import Array

Outputs = list[list[Any]]


class ValueAndGradient(Op):  # type: ignore[misc]
    """A scalar function of vectors and its gradients: outputs (value, gradient in the first input, in the second, ...).

    function : called with arrays, gives (value, gradient, ...) for the first `len(sizes)` inputs; any more inputs are data
    """

    def __init__(self, function: Callable[..., tuple[Any, ...]], sizes: Sequence[int]) -> None:
        self.function, self.sizes = function, tuple(sizes)

    def make_node(self, *inputs: Variable) -> Apply:
        own = [pt.as_tensor_variable(value).astype("float64") for value in inputs]
        return Apply(self, own, [pt.dscalar(), *(pt.TensorType("float64", shape=(size,))() for size in self.sizes)])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: Outputs) -> None:
        found = self.function(*inputs)
        outputs[0][0] = np.asarray(found[0], dtype=np.float64)
        for place, gradient in zip(outputs[1:], found[1:], strict=True):
            place[0] = np.asarray(gradient, dtype=np.float64)

    def infer_shape(self, node: Apply, shapes: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [(), *((size,) for size in self.sizes)]

    def pullback(self, inputs: Sequence[Variable], outputs: Sequence[Variable], cotangents: Sequence[Variable]) -> list[Variable]:
        mine = [cotangents[0] * gradient for gradient in outputs[1:]]
        why = "the likelihood is differentiable in its parameters only"
        return mine + [grad_not_implemented(self, i, inputs[i], why) for i in range(len(mine), len(inputs))]


class ArrayAndJacobian(Op):  # type: ignore[misc]
    """An array as a function of one vector and its derivatives: outputs (value (...), derivative (size, ...)).

    function : vector (size,) -> (value, derivative)
    """

    def __init__(self, function: Callable[[Array], tuple[Array, Array]], size: int, shape: tuple[int, ...]) -> None:
        self.function, self.size, self.shape = function, size, shape

    def make_node(self, x: Variable) -> Apply:
        outputs = [pt.TensorType("float64", shape=self.shape)(), pt.TensorType("float64", shape=(self.size, *self.shape))()]
        return Apply(self, [pt.as_tensor_variable(x).astype("float64")], outputs)

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: Outputs) -> None:
        value, derivative = self.function(inputs[0])
        outputs[0][0] = np.array(value, dtype=np.float64)
        outputs[1][0] = np.array(derivative, dtype=np.float64)

    def infer_shape(self, node: Apply, shapes: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [self.shape, (self.size, *self.shape)]

    def pullback(self, inputs: Sequence[Variable], outputs: Sequence[Variable], cotangents: Sequence[Variable]) -> list[Variable]:
        return [(outputs[1].reshape((self.size, -1)) @ cotangents[0].ravel()).reshape((self.size,))]


class Reported(Op):  # type: ignore[misc]
    """An array read off a vector, for people and not for derivatives."""

    def __init__(self, function: Callable[[Array], Array], shape: tuple[int, ...]) -> None:
        self.function, self.shape = function, shape

    def make_node(self, x: Variable) -> Apply:
        return Apply(self, [pt.as_tensor_variable(x).astype("float64")], [pt.TensorType("float64", shape=self.shape)()])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: Outputs) -> None:
        outputs[0][0] = np.array(self.function(inputs[0]), dtype=np.float64)

    def infer_shape(self, node: Apply, shapes: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [self.shape]

    def pullback(self, inputs: Sequence[Variable], outputs: Sequence[Variable], cotangents: Sequence[Variable]) -> list[Variable]:
        return [grad_not_implemented(self, 0, inputs[0], "a value reported for people")]


def _quietly(op: Any, node: Any = None, **options: Any) -> Any:
    """In numba a node runs as Python, which is what is wanted: PyTensor need not say so each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return generate_fallback_impl(op, node, **options)


for _node in (ValueAndGradient, ArrayAndJacobian, Reported):
    numba_funcify.register(_node)(_quietly)
