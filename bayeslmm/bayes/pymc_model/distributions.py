"""Prior families as PyMC distributions, transforms of variables, and the kernel as PyTensor ops.

No node has `__props__`: two nodes are equal only if they are one and the same object, so no cache can take the data of one model for
those of another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import Transform
from pytensor.gradient import grad_not_implemented
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import generate_fallback_impl, numba_funcify
from pytensor.tensor import TensorVariable

from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.density import AlphaPrior
from bayeslmm.bayes.log_posterior.transforms import partial_factor
from bayeslmm.errors import PriorError
from bayeslmm.specification.prior_families import FAMILIES, Prior, lkj_draw, lkj_log_constant, lkj_shapes, partial_positions

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


class ReportedArray(Op):  # type: ignore[misc]
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


def _ignore_object_mode(op: Any, node: Any = None, **options: Any) -> Any:
    """In numba a node runs as Python, which is what is wanted: PyTensor need not say so each time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return generate_fallback_impl(op, node, **options)


for _node in (ValueAndGradient, ArrayAndJacobian, ReportedArray):
    numba_funcify.register(_node)(_ignore_object_mode)


class StandardizedCoefficients(Transform):  # type: ignore[misc]
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


class LogJacobian(Transform):  # type: ignore[misc]
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


DISTRIBUTIONS: dict[str, Any] = {
    distribution.__name__: distribution
    for distribution in (
        pm.HalfStudentT,
        pm.HalfNormal,
        pm.HalfCauchy,
        pm.Exponential,
        pm.Gamma,
        pm.InverseGamma,
        pm.LogNormal,
        pm.TruncatedNormal,
        pm.Uniform,
        pm.Flat,
        pm.Normal,
        pm.StudentT,
        pm.Cauchy,
        pm.Laplace,
    )
}
"""PyMC's distributions by the names that the families have for them."""


def _columns(priors: Sequence[Prior]) -> list[Any]:
    """The parameters of several priors of one family: an array each, or one number for one prior."""
    found = np.array([prior.parameters for prior in priors], float).T
    return [column[0] if len(priors) == 1 else column for column in found]


def same_family(priors: Sequence[Prior]) -> bool:
    """Whether one vector can hold them all."""
    return len({prior.family for prior in priors}) == 1


def positive_variable(name: str, priors: Sequence[Prior], dims: tuple[str, ...] | None = None) -> TensorVariable:
    """A positive variable, or a vector of them under priors of one family; one that is held is no variable."""
    family = priors[0].family
    size = {} if dims is None else {"dims": dims}
    if family == "fixed":
        held = _columns(priors)[0]
        return pm.Deterministic(name, pt.as_tensor_variable(held if dims is None else np.atleast_1d(held)), **size)
    powers = [_power(prior) for prior in priors]
    if any(power is not None for power in powers):
        variable = pm.HalfFlat(name, **size)
        power = np.array([0.0 if value is None else value for value in powers])
        if power.any():
            pm.Potential(f"{name}_prior", pt.sum(power * pt.log(variable)))
        return variable
    arguments = parameters(priors)
    if family == "uniform":
        arguments["lower"] = np.maximum(arguments["lower"], 0.0)
    if family == "truncated_normal":
        arguments["lower"] = 0.0
    return DISTRIBUTIONS[FAMILIES[family].graph[0]](name, **arguments, **size)


def _power(prior: Prior) -> float | None:
    """c of an improper density v^c; None of a proper one."""
    if prior.family == "gamma" and prior.parameters[1] == 0.0:
        return prior.parameters[0] - 1.0
    return {"flat": 0.0, "flat_log": -1.0}.get(prior.family)


def parameters(priors: Sequence[Prior]) -> dict[str, Any]:
    """What PyMC calls the parameters of priors of one family. Errors: PriorError for a family that PyMC does not have."""
    if not FAMILIES[priors[0].family].graph[0]:
        raise PriorError(f"PyMC has no {priors[0].family} prior", priors[0].family, "model.sample() draws without a graph")
    return dict(zip(FAMILIES[priors[0].family].graph[1], _columns(priors), strict=True))


def real_variable(name: str, prior: Prior) -> TensorVariable:
    """A number on the whole line or, for families of positive numbers, on the half of it."""
    family = FAMILIES[prior.family]
    if family.support in ("real", "interval"):
        return DISTRIBUTIONS[family.graph[0]](name, **parameters([prior]))
    return positive_variable(name, [prior])


def coefficients(name: str, alpha: AlphaPrior, dims: tuple[str, ...]) -> TensorVariable:
    """alpha under its priors: one distribution where they are of one family, else a flat one and what each adds."""
    c = alpha.problem.standardization
    own: dict[str, Any] = {"dims": dims}
    if len(c.alpha0):
        own["default_transform"] = StandardizedCoefficients(c.alpha0, c.y_scale * c.back)
    if alpha.means is None and alpha.priors and same_family(alpha.priors) and not alpha.flat:
        arguments = {key: np.atleast_1d(column) for key, column in parameters(alpha.priors).items()}
        return DISTRIBUTIONS[FAMILIES[alpha.priors[0].family].graph[0]](name, **arguments, **own)

    def refuse_draws(mark: Array, rng: Any = None, size: Any = None) -> Array:  # noqa: ARG001
        raise PriorError("nothing can be drawn from flat priors of alpha", name, 'use Priors(alpha="normal")')

    if own.get("default_transform") is not None:
        own["transform"] = own.pop("default_transform")
    value = pm.CustomDist(
        name,
        np.array(c.alpha0),
        logp=lambda value, mark: pt.zeros_like(value).sum(axis=-1) + 0.0 * mark.sum(),
        random=refuse_draws,
        support_point=lambda rv, size, mark: mark,
        signature="(p)->(p)",
        **own,
    )
    stated = value if alpha.means is None else pt.concatenate([value[:1] + value[1:] @ pt.as_tensor_variable(alpha.means[1:]), value[1:]])
    parts = [
        pm.logp(DISTRIBUTIONS[FAMILIES[prior.family].graph[0]].dist(**parameters([prior])), stated[j])
        for j, prior in enumerate(alpha.priors)
        if prior.family != "flat"
    ]
    if parts:
        pm.Potential(f"{name}_prior", pt.sum(pt.stack(parts)))
    return value


def lkj_correlation(name: str, q: int, eta: float, dims: tuple[str, str]) -> TensorVariable:
    """A q x q correlation matrix, LKJ(eta): density proportional to |C|^(eta - 1)."""
    constant = lkj_log_constant(q, eta)

    def logp(value: TensorVariable, centre: TensorVariable, shape: TensorVariable) -> TensorVariable:  # noqa: ARG001
        return (shape - 1.0) * 2.0 * pt.sum(pt.log(pt.diagonal(pt.linalg.cholesky(value)))) - constant

    def random(centre: Array, shape: Array, rng: np.random.Generator | None = None, size: Any = None) -> Array:  # noqa: ARG001
        count = int(np.prod(size)) if size else 1
        drawn = lkj_draw(q, float(np.ravel(shape)[0]), np.random.default_rng() if rng is None else rng, count)
        L = partial_factor(np.arctanh(drawn), q)
        C = L @ L.swapaxes(-1, -2)
        return C.reshape((*size, q, q)) if size else C[0]

    return pm.CustomDist(
        name,
        # the centre is what tells PyMC the size of a draw
        np.eye(q),
        np.float64(eta),
        logp=logp,
        random=random,
        support_point=lambda rv, size, centre, shape: pt.eye(q),
        signature="(q,q),()->(q,q)",
        transform=PartialCorrelations(q),
        dims=dims,
    )
