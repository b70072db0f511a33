"""The covariance parameters of a structure as PROC MIXED lists them: its names, its order, its scale."""

from __future__ import annotations

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.covariance.banded import Banded
from bayeslmm.covariance.kronecker import Kronecker
from bayeslmm.covariance.protocol import Covariance
from bayeslmm.covariance.scaled import Homogeneous
from bayeslmm.errors import SpecificationError

Listing = tuple[tuple[str, float], ...]

# the names of what is not a variance; {} is the lag or the serial number
_NAMES = {
    "csh": "CSH",
    "ar1": "AR(1)",
    "ar1h": "ARH(1)",
    "ad": "Rho({})",
    "adh": "Rho({})",
    "toeph": "TOEPH({})",
    "hf": "HF",
    "sp_exp": "SP(EXP)",
    "sp_gau": "SP(GAU)",
    "sp_pow": "SP(POW)",
    "sp_sph": "SP(SPH)",
    "sp_lin": "SP(LIN)",
}


def sas_parameters(covariance: Covariance, x: Array, *, grouped: bool = False) -> Listing:
    """Names and estimates of the CovParms table, without subject and group.

    x : (size,) of the whole matrix (R itself, not R / sigma^2). grouped : with GROUP= the residual variance is called Variance and leads.
    """
    if isinstance(covariance, Kronecker):
        outer, inner = x[: covariance.outer.size], np.append(1.0, x[covariance.outer.size :])
        between = sas_parameters(covariance.outer, outer)
        return between + tuple(row for row in sas_parameters(covariance.inner, inner) if row[0] not in ("Residual", "UN(1,1)"))
    if isinstance(covariance, Banded):
        return _unstructured(covariance, x)
    if isinstance(covariance, Homogeneous):
        return _homogeneous(covariance, x, grouped)
    if covariance.name in _NAMES:
        values, q = covariance.components(x), covariance.q
        return (*_numbered("Var({})", values[:q]), *_numbered(_NAMES[covariance.name], values[q:]))
    return tuple(zip(covariance.component_names, covariance.components(x).tolist(), strict=True))


def _numbered(pattern: str, values: Array) -> Listing:
    return tuple((pattern.format(k + 1), float(value)) for k, value in enumerate(values))


def _unstructured(covariance: Banded, x: Array) -> Listing:
    """UN(i,j), row by row."""
    sigma, bands = covariance.matrix(x), covariance.order
    cells = [(row, col) for row in range(covariance.q) for col in range(max(0, row + 1 - bands), row + 1)]
    return tuple((f"UN({row + 1},{col + 1})", float(sigma[row, col])) for row, col in cells)


def _homogeneous(covariance: Homogeneous, x: Array, grouped: bool) -> Listing:
    values = covariance.natural(x)
    variance, rest = float(values[0] ** 2), values[1:]
    if covariance.nugget:
        # the part that is shared, its parameters, and what LOCAL adds
        share = float(rest[-1])
        return (("Variance", (1.0 - share) * variance), *_shape(covariance, rest[:-1], variance), ("Residual", share * variance))
    if covariance.name == "cs" and rest.size:
        variance, rest = variance * (1.0 - float(rest[0])), variance * rest
    shape = _shape(covariance, rest, variance)
    return (("Variance", variance), *shape) if grouped else (*shape, ("Residual", variance))


def _shape(covariance: Homogeneous, rest: Array, variance: float) -> Listing:
    if covariance.name == "cs":
        return _numbered("CS", rest)
    if covariance.name == "arma":
        return (("Rho", float(rest[0])), ("Gamma", float(rest[1])))
    if covariance.name == "toep":
        return tuple((f"TOEP({lag + 2})", float(r) * variance) for lag, r in enumerate(rest))
    if covariance.name == "sp_lin":
        return _numbered(_NAMES["sp_lin"], 1.0 / rest)
    if covariance.name == "matern":
        return tuple((f"SP(MATERN){suffix}", float(r)) for suffix, r in zip((" Range", " Smoothness"), rest, strict=False))
    if not rest.size:
        return ()
    if covariance.name not in _NAMES:
        raise SpecificationError(f"PROC MIXED has no structure '{covariance.name}'", remedy="use the names of `residual_params`")
    return _numbered(_NAMES[covariance.name], rest)
