"""The variables of covariance matrices: D of every grouping factor, R of every set of parameters, under the names that draws have.

What is a variable of its own: standard deviations, correlation matrices, and the one correlation of cs and ar1. The shape parameters of
other structures lie on the structure's own unconstrained axes, with their prior and its volume there; what users call them is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor import TensorVariable

from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.priors import shape_limits
from bayeslmm.bayes.log_posterior.transforms import ScaledTransform, Transform, UnstructuredTransform, positive_transform
from bayeslmm.bayes.posterior.data import matrix_correlations
from bayeslmm.bayes.pymc_model.distributions import (
    ArrayAndJacobian,
    LogJacobian,
    ReportedArray,
    ValueAndGradient,
    lkj_correlation,
    positive_variable,
    same_family,
)
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.unstructured import Diagonal, band_positions
from bayeslmm.specification.prior_families import Prior


@dataclass(frozen=True, slots=True, eq=False)
class GraphMatrix:
    """A covariance matrix in a graph: the structure, its own parameters x, its factor T, its sds (q,)."""

    covariance: Covariance
    x: TensorVariable
    T: TensorVariable
    sds: TensorVariable

    @property
    def correlated(self) -> bool:
        return self.covariance.q > 1 and self.covariance.name not in ("diag", "id")


@dataclass(frozen=True, slots=True)
class MatrixNames:
    """What the variables of one matrix are called.

    sd, corr : of the vector of sds and of the correlation matrix; dim : of both; suffix : of shape parameters, as in `rho | Subject`
    labels : of the rows
    """

    sd: str
    corr: str
    dim: str
    suffix: str
    labels: tuple[str, ...]


def factor_op(covariance: Covariance, x: TensorVariable) -> TensorVariable:
    """T of any structure."""

    def both(values: Array) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            return covariance.factor(values), covariance.factor_derivative(values)

    return ArrayAndJacobian(both, covariance.size, (covariance.q, covariance.q))(x)[0]


def sd_vector(name: str, priors: Sequence[Prior], dim: str, labels: Sequence[str]) -> TensorVariable:
    """sds (q,) as one variable where their priors are of one family, else each by its label."""
    if same_family(priors):
        return positive_variable(name, priors, (dim,))
    parts = [positive_variable(f"{name}[{label}]", [prior]) for label, prior in zip(labels, priors, strict=True)]
    return pm.Deterministic(name, pt.stack(parts), dims=(dim,))


def unstructured_matrix(sds: TensorVariable, axes: UnstructuredTransform, covariance: Covariance, name: str, dim: str) -> GraphMatrix:
    """us: T = diag(sd) L with L L' the correlation matrix."""
    q = covariance.q
    L = pt.ones((1, 1)) if q == 1 else pt.linalg.cholesky(lkj_correlation(name, q, axes.eta, (dim, f"{dim}_bis")))
    T = sds[:, None] * L
    return GraphMatrix(covariance, T[band_positions(q, q)], T, sds)


def scaled_matrix(sds: TensorVariable, axes: ScaledTransform, covariance: Covariance, names: MatrixNames) -> GraphMatrix:
    """S C(z) S: `sds` (1,) or (q,) as the structure has them."""
    every = pt.broadcast_to(sds, (covariance.q,)) if axes.sds.count == 1 else sds
    if isinstance(covariance, Diagonal):
        return GraphMatrix(covariance, sds, pt.diag(sds), every)
    z = shape_parameters(axes, covariance, names)
    x = sds if z is None else pt.concatenate([sds, z])
    T = every[:, None] * pt.eye(covariance.q) if z is None else factor_op(covariance, x)
    return GraphMatrix(covariance, x, T, every)


def shape_parameters(axes: ScaledTransform, covariance: Covariance, names: MatrixNames) -> TensorVariable | None:
    """z of a correlation structure, its natural parameters by name."""
    inner, k = axes.correlation, axes.sds.count
    if not inner.size:
        return None
    called = [name + names.suffix for name in covariance.natural_names_for(names.labels)[k:]]
    if inner.size == 1 and inner.parameters[0].kind == "rho" and _is_uniform(inner, axes.shapes[0]):
        return one_correlation(called[0], inner, axes.shapes[0])
    shape_axes = ScaledTransform(positive_transform(()), inner, axes.shapes)
    z = transformed_parameters(f"axis{names.suffix}" if names.suffix else "axis_residual", shape_axes, inner.start())
    for j, name in enumerate(called):
        pm.Deterministic(name, ReportedArray(partial(_entry, inner.natural, j), ())(z))
    return z


def _is_uniform(inner: Correlation, prior: Prior) -> bool:
    """Whether a prior is uniform over possible correlations."""
    low, high = shape_limits(inner)
    return prior.family == "uniform" and prior.parameters[0] >= low - 1e-9 and prior.parameters[1] <= high


def one_correlation(name: str, inner: Correlation, prior: Prior) -> TensorVariable:
    """z (1,) of a structure with one correlation, such as ar1 or cs, which is a variable by its own name."""
    rho = pm.Uniform(name, *prior.parameters)

    def both(r: Array) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            z = inner.from_natural(r)
            return z, 1.0 / inner.natural_jacobian(z)

    return ArrayAndJacobian(both, 1, (1,))(rho[None])[0]


def transformed_parameters(name: str, axes: Transform, start: Array) -> TensorVariable:
    """Parameters on unconstrained axes, with the prior of what they stand for; a sampler adds the volume, a mode does not."""

    def density(phi: Array, volume: bool) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            value = float(axes.log_prior(phi[None], volume)[0])
            return value, np.nan_to_num(axes.prior_gradient(phi, volume)) if np.isfinite(value) else np.zeros(axes.size)

    def volume(phi: Array) -> tuple[float, Array]:
        inside, outside = density(phi, True), density(phi, False)
        return inside[0] - outside[0], inside[1] - outside[1]

    own = ValueAndGradient(partial(density, volume=False), (axes.size,))

    def random(mark: Array, rng: np.random.Generator | None = None, size: Any = None) -> Array:  # noqa: ARG001
        drawn = axes.draws(np.random.default_rng() if rng is None else rng, int(np.prod(size)) if size else 1)
        return drawn.reshape((*size, axes.size)) if isinstance(size, tuple) and size else drawn[0]

    return pm.CustomDist(
        name,
        np.zeros(axes.size),
        logp=lambda value, mark: own(value)[0],
        random=random,
        support_point=lambda rv, size, mark: pt.as_tensor_variable(start),
        signature="(k)->(k)",
        transform=LogJacobian(volume, axes.size),
    )


def general_matrix(axes: Transform, covariance: Covariance, names: MatrixNames, start: Array) -> GraphMatrix:
    """Any other structure, wholly on its own axes."""

    def both(phi: Array) -> tuple[Array, Array]:
        return axes.values(phi[None])[0], axes.jacobian(phi).T

    phi = transformed_parameters(f"axis{names.suffix}" if names.suffix else "axis_residual", axes, start)
    x = ArrayAndJacobian(both, axes.size, (covariance.size,))(phi)[0]
    T = factor_op(covariance, x)
    return GraphMatrix(covariance, x, T, pt.sqrt(pt.sum(T**2, axis=1)))


def report_correlations(name: str, matrices: Sequence[GraphMatrix], dim: str) -> None:
    """The correlations of block-diagonal matrices that are no variable themselves."""
    sizes = [m.covariance.size for m in matrices]

    def block(x: Array) -> Array:
        parts, begin = [], 0
        for m, size in zip(matrices, sizes, strict=True):
            parts.append(m.covariance.matrix(x[begin : begin + size]))
            begin += size
        q = sum(len(part) for part in parts)
        whole, at = np.zeros((q, q)), 0
        for part in parts:
            whole[at : at + len(part), at : at + len(part)] = part
            at += len(part)
        return matrix_correlations(whole)

    q = sum(m.covariance.q for m in matrices)
    pm.Deterministic(name, ReportedArray(block, (q, q))(pt.concatenate([m.x for m in matrices])), dims=(dim, f"{dim}_bis"))


def _entry(natural: object, j: int, z: Array) -> Array:
    assert callable(natural)
    return np.asarray(natural(z)[j])


def covariance_matrix(axes: Transform, covariance: Covariance, sds: TensorVariable | None, names: MatrixNames, start: Array) -> GraphMatrix:
    """The matrix of any structure; `sds` where the structure has them apart; `start` is phi to begin from."""
    if isinstance(axes, UnstructuredTransform):
        assert sds is not None
        return unstructured_matrix(sds, axes, covariance, names.corr, names.dim)
    if isinstance(axes, ScaledTransform):
        assert sds is not None
        return scaled_matrix(sds, axes, covariance, names)
    return general_matrix(axes, covariance, names, start)
