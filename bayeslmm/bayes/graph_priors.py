"""Prior families as distributions of PyMC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.tensor import TensorVariable

from bayeslmm.arrays import Array
from bayeslmm.bayes.axes import partial_factor
from bayeslmm.bayes.graph_transforms import PartialCorrelations
from bayeslmm.estimate.prior_density import lkj_draw, lkj_log_constant
from bayeslmm.spec.families import Prior

POSITIVE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "half_t": (pm.HalfStudentT, ("nu", "sigma")),
    "half_normal": (pm.HalfNormal, ("sigma",)),
    "half_cauchy": (pm.HalfCauchy, ("beta",)),
    "exponential": (pm.Exponential, ("lam",)),
    "gamma": (pm.Gamma, ("alpha", "beta")),
    "inverse_gamma": (pm.InverseGamma, ("alpha", "beta")),
    "uniform": (pm.Uniform, ("lower", "upper")),
    "flat": (pm.HalfFlat, ()),
}
"""Families of positive numbers: the distribution, and what it calls its parameters."""


def _columns(priors: Sequence[Prior]) -> list[Any]:
    """The parameters of several priors of one family: an array each, or one number for one prior."""
    found = np.array([prior.parameters for prior in priors], float).T
    return [column[0] if len(priors) == 1 else column for column in found]


def same_family(priors: Sequence[Prior]) -> bool:
    """Whether one vector can hold them all."""
    return len({prior.family for prior in priors}) == 1


def positive(name: str, priors: Sequence[Prior], start: Any, dims: tuple[str, ...] | None = None) -> TensorVariable:
    """A positive variable, or a vector of them under priors of one family; `start` is where a sampler begins."""
    family = priors[0].family
    size = {} if dims is None else {"dims": dims}
    if family == "gamma" and any(prior.parameters[1] == 0.0 for prior in priors):
        shape = np.array([prior.parameters[0] for prior in priors])
        variable = pm.HalfFlat(name, initval=start, **size)
        pm.Potential(f"{name}_prior", pt.sum((shape - 1.0) * pt.log(variable)))
        return variable
    distribution, names = POSITIVE[family]
    given = dict(zip(names, _columns(priors), strict=True))
    if family == "uniform":
        low, high = np.maximum(given["lower"], 0.0), given["upper"]
        given = {"lower": low, "upper": high}
        start = np.clip(start, low + 0.05 * (high - low), high - 0.05 * (high - low))
    return distribution(name, **given, initval=start, **size)


def real(name: str, prior: Prior) -> TensorVariable:
    """A number on the whole line or, for families of positive numbers, on the half of it."""
    if prior.family == "normal":
        return pm.Normal(name, *prior.parameters)
    if prior.family == "flat":
        return pm.Flat(name)
    if prior.family == "uniform":
        return pm.Uniform(name, *prior.parameters)
    return positive(name, [prior], None)


def correlation(name: str, q: int, eta: float, dims: tuple[str, str]) -> TensorVariable:
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
