"""The parameters of SAS's covariance structures, by name, from a covariance matrix.

PROC MIXED prints its own parameters: UN(2,1) is a covariance, CS a covariance, AR(1) a correlation, TOEP(2) a covariance, TOEPH(1) a
correlation, HF the lambda of Huynh and Feldt. A homogeneous structure of REPEATED without GROUP= and LOCAL hands its variance to the
row Residual ("factored"); anywhere else the variance is a row of its own, Variance. All of them are smooth functions of the matrix, so
that their standard errors follow by differentiating along the parameters of the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.errors import SpecificationError
from bayeslmm.spec.sas.structures import CovType
from bayeslmm.spec.sas.translation import CovBlock

Parameters = tuple[tuple[str, float], ...]


def factored(block: CovBlock) -> bool:
    """Whether the variance of the structure is printed as Residual."""
    return block.statement == "repeated" and not block.group and not block.local and block.type.name in _HOMOGENEOUS


def has_matrix_form(cov: CovType) -> bool:
    """Whether the parameters can be read off a covariance matrix: spatial and factor-analytic ones cannot."""
    return cov.kronecker or cov.name in _READERS or cov.name in _HOMOGENEOUS


def parameters(block: CovBlock, sigma: Array, outcomes: int = 0) -> Parameters:
    """Names and values of the CovParms rows of one block, the Residual row of a factored structure last.

    sigma : (t, t) covariance of the block; for TYPE=VC (1, 1), one per effect
    outcomes : number of levels of the first effect of a product of structures
    Raises SpecificationError for structures that have no matrix form.

    >>> parameters(CovBlock("repeated", CovType("AR(1)")), np.array([[4.0, 2.0], [2.0, 4.0]]))
    (('AR(1)', 0.5), ('Residual', 4.0))
    """
    cov = block.type
    if cov.kronecker:
        return _kronecker(block, sigma, outcomes)
    if cov.name == "VC":
        return ((block.effects[0] if block.effects else "Residual", float(sigma[0, 0])),)
    if cov.name in _HOMOGENEOUS:
        variance, rest = _HOMOGENEOUS[cov.name](sigma, cov.order)
        return (*rest, ("Residual", variance)) if factored(block) else (("Variance", variance), *rest)
    if cov.name not in _READERS:
        raise SpecificationError(f"the parameters of TYPE={cov.text} do not follow from a covariance matrix", remedy="use those of the fit")
    return _READERS[cov.name](sigma, cov.order)


def _correlation(sigma: Array, i: int, j: int) -> float:
    return float(sigma[i, j] / np.sqrt(sigma[i, i] * sigma[j, j]))


def _bands(t: int, order: int | None) -> int:
    return t if order is None else min(order, t)


def _variances(sigma: Array) -> Parameters:
    return tuple((f"Var({i + 1})", float(v)) for i, v in enumerate(np.diag(sigma)))


def _un(sigma: Array, order: int | None) -> Parameters:
    t, q = len(sigma), _bands(len(sigma), order)
    return tuple((f"UN({i + 1},{j + 1})", float(sigma[i, j])) for i in range(t) for j in range(max(0, i - q + 1), i + 1))


def _unr(sigma: Array, order: int | None) -> Parameters:
    t, q = len(sigma), _bands(len(sigma), order)
    pairs = ((i, j) for i in range(t) for j in range(max(0, i - q + 1), i))
    return (*_variances(sigma), *((f"Corr({i + 1},{j + 1})", _correlation(sigma, i, j)) for i, j in pairs))


def _first_correlation(name: str) -> Callable[[Array, int | None], Parameters]:
    return lambda sigma, _order: (*_variances(sigma), *(((name, _correlation(sigma, 1, 0)),) if len(sigma) > 1 else ()))


def _ante(sigma: Array, _order: int | None) -> Parameters:
    return (*_variances(sigma), *((f"Rho({k})", _correlation(sigma, k, k - 1)) for k in range(1, len(sigma))))


def _toeph(sigma: Array, order: int | None) -> Parameters:
    return (*_variances(sigma), *((f"TOEPH({k})", _correlation(sigma, k, 0)) for k in range(1, _bands(len(sigma), order))))


def _hf(sigma: Array, _order: int | None) -> Parameters:
    if len(sigma) == 1:
        return _variances(sigma)
    return (*_variances(sigma), ("HF", float((sigma[0, 0] + sigma[1, 1]) / 2 - sigma[1, 0])))


def _fa0(sigma: Array, order: int | None) -> Parameters:
    """The loadings of FA0(q), the first q columns of the Cholesky factor."""
    L = np.zeros_like(sigma)
    rest = sigma.copy()
    for k in range(_bands(len(sigma), order)):
        if rest[k, k] > 0:
            L[k:, k] = rest[k:, k] / np.sqrt(rest[k, k])
            rest = rest - np.outer(L[:, k], L[:, k])
    t, q = len(sigma), _bands(len(sigma), order)
    return tuple((f"FA({i + 1},{j + 1})", float(L[i, j])) for i in range(t) for j in range(min(i + 1, q)))


_READERS: Mapping[str, Callable[[Array, int | None], Parameters]] = {
    "UN": _un,
    "UNR": _unr,
    "CSH": _first_correlation("CSH"),
    "ARH(1)": _first_correlation("ARH(1)"),
    "ANTE(1)": _ante,
    "TOEPH": _toeph,
    "HF": _hf,
    "FA0": _fa0,
}


def _cs(sigma: Array, _order: int | None) -> tuple[float, Parameters]:
    shared = float(sigma[1, 0]) if len(sigma) > 1 else 0.0
    return float(sigma[0, 0]) - shared, (("CS", shared),)


def _ar1(sigma: Array, _order: int | None) -> tuple[float, Parameters]:
    return float(sigma[0, 0]), (("AR(1)", _correlation(sigma, 1, 0) if len(sigma) > 1 else 0.0),)


def _arma(sigma: Array, _order: int | None) -> tuple[float, Parameters]:
    gamma = _correlation(sigma, 1, 0) if len(sigma) > 1 else 0.0
    rho = float(sigma[2, 0] / sigma[1, 0]) if len(sigma) > 2 and gamma != 0 else 0.0
    return float(sigma[0, 0]), (("Rho", rho), ("Gamma", gamma))


def _toep(sigma: Array, order: int | None) -> tuple[float, Parameters]:
    return float(sigma[0, 0]), tuple((f"TOEP({k + 1})", float(sigma[k, 0])) for k in range(1, _bands(len(sigma), order)))


# The variance, then what is printed of the rest.
_HOMOGENEOUS: Mapping[str, Callable[[Array, int | None], tuple[float, Parameters]]] = {
    "CS": _cs,
    "AR(1)": _ar1,
    "ARMA(1,1)": _arma,
    "TOEP": _toep,
}


def _kronecker(block: CovBlock, sigma: Array, outcomes: int) -> Parameters:
    """UN over the outcomes, with the first visit; then the second structure, its first variance being 1."""
    visits = len(sigma) // outcomes
    first = sigma[::visits, ::visits]
    second = sigma[:visits, :visits] / sigma[0, 0]
    inner = CovType(block.type.name.partition("@")[2])
    correlation = _correlation(second, 1, 0) if visits > 1 else 0.0
    rest = _un(second, None) if inner.name == "UN" else ((inner.name, correlation),)
    names = [*block.effects, "", ""]
    return (*_labelled(names[0], _un(first, None)), *_labelled(names[1], rest))


def _labelled(effect: str, rows: Sequence[tuple[str, float]]) -> Parameters:
    """The first row of each structure carries the name of its effect."""
    return tuple((f"{effect} {name}".strip() if i == 0 else name, value) for i, (name, value) in enumerate(rows))
