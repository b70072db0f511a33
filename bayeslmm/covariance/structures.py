"""The structures of the package: a row for each, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm.covariance.arma import ARMA
from bayeslmm.covariance.base import Covariance, Request, Structure
from bayeslmm.covariance.composed import CAR1, Given, Known, Linear, SelectedRows, WithNugget, huynh_feldt
from bayeslmm.covariance.correlation import Correlation, Exchangeable, IdentityCorrelation
from bayeslmm.covariance.factor_analytic import FactorAnalytic, FactorAnalytic0
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.registry import unavailable
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.covariance.serial import ARMA11, AnteDependent, Autoregressive, Toeplitz
from bayeslmm.covariance.spatial import IsotropicCorrelation, Matern, PowerCorrelation, Spatial, SpatialCovariance, typical_distance
from bayeslmm.covariance.unstructured import Banded, Diagonal

Builder = Callable[[Request], Covariance]


def _build_scaled(request: Request, correlation: Correlation, heterogeneous: bool) -> Covariance:
    q = request.q
    inner = IdentityCorrelation(q) if q == 1 and not request.nugget else correlation
    if request.nugget:
        inner = WithNugget(q, correlation, np.zeros((q, q)), 1.0)
    return (Heterogeneous if heterogeneous else Homogeneous)(request.name, q, inner)


def _pair(correlation: Callable[[Request], Correlation]) -> tuple[Builder, Builder]:
    """The homogeneous and the heterogeneous structure around a correlation."""

    def place(request: Request) -> Correlation:
        if not request.positions or request.name.startswith("ar1") or request.lags:
            return correlation(request)
        at = tuple(int(place) for place in request.positions)
        return SelectedRows(request.q, correlation(replace(request, q=at[-1] + 1, positions=())), at)

    return (lambda request: _build_scaled(request, place(request), False)), (lambda request: _build_scaled(request, place(request), True))


def _order(request: Request) -> int:
    """The order asked for, all bands by default; never more than the dimension."""
    return min(request.order or request.q, request.q)


def _factors(request: Request) -> int:
    return min(request.order or 1, request.q)


def _build_fa(request: Request) -> Covariance:
    return FactorAnalytic(request.name, request.q, _factors(request), request.name == "fa1")


def _build_spatial(request: Request) -> Covariance:
    distances = request.distances if request.distances is not None else (request.reach or 1.0) * (1.0 - np.eye(request.q))
    reach = request.reach or typical_distance(distances)
    inner: Spatial
    if request.name == "matern":
        inner = Matern(request.q, distances, reach, request.nu)
    elif request.name == "sp_pow":
        inner = PowerCorrelation(request.q, distances, reach)
    else:
        inner = IsotropicCorrelation(request.q, request.name, distances, reach)
    return SpatialCovariance(request.name, request.q, WithNugget(request.q, inner, distances, reach) if request.nugget else inner)


def _matrices(request: Request) -> Array:
    if request.matrices is None or request.matrices.shape[1:] != (request.q, request.q) or not request.matrices.shape[0]:
        raise unavailable(f"'{request.name}' needs known matrices of dimension {request.q}", "give matrices=[A1, A2, ...]")
    if not np.allclose(request.matrices, np.swapaxes(request.matrices, 1, 2), rtol=1e-10, atol=0.0):
        raise unavailable("a known covariance matrix is not symmetric", "pass (A + A.T) / 2 if the difference is rounding")
    return request.matrices


def _build_known(request: Request) -> Covariance:
    matrix = _matrices(request)[0]
    root = cholesky(matrix)
    if not np.isfinite(root).all():
        raise unavailable("the known covariance matrix is not positive semi-definite", "check its units and its order of rows")
    return Known(request.name, request.q, Given(request.q, matrix, freeze(root)))


def _steps(request: Request) -> tuple[int, ...]:
    return tuple(int(place) for place in request.positions)


_ID = _pair(lambda request: IdentityCorrelation(request.q))
_CS = _pair(lambda request: Exchangeable(request.q))
_AR = _pair(lambda request: Autoregressive(request.q, _steps(request)))
_AD = _pair(lambda request: AnteDependent(request.q))
_TOEP = _pair(lambda request: Toeplitz(request.q, _order(request) - 1) if _order(request) > 1 else IdentityCorrelation(request.q))
_ARMA = _pair(lambda request: ARMA(request.q, *request.lags, _steps(request)) if request.lags else ARMA11(request.q))

STRUCTURE_ROWS: tuple[Structure, ...] = (
    Structure(
        "us",
        "unstructured: every variance and covariance free",
        "t(t+1)/2",
        lambda r: Banded(r.name, r.q, _order(r)),
        has_nugget=True,
        sas="UN",
    ),
    Structure(
        "un",
        "the first q bands of an unstructured matrix",
        "q(2t-q+1)/2",
        lambda r: Banded(r.name, r.q, _order(r)),
        takes="order",
        needs_order=True,
        has_nugget=True,
        sas="UN(q)",
    ),
    Structure("diag", "independent, one variance each", "t", lambda r: Diagonal(r.name, r.q, 1), has_nugget=True, sas="UN(1)"),
    Structure("id", "independent, one variance", "1", _ID[0], homogeneous=True, has_nugget=True, sas="TOEP(1)"),
    Structure(
        "cs",
        "compound symmetry: one variance, one correlation down to -1/(t-1)",
        "2",
        _CS[0],
        homogeneous=True,
        has_nugget=True,
        sas="CS",
        sas_row="CS",
    ),
    Structure(
        "csh", "heterogeneous compound symmetry: t variances, one correlation", "t+1", _CS[1], has_nugget=True, sas="CSH", sas_row="CSH"
    ),
    Structure(
        "ar1",
        "first-order autoregressive: one variance, correlation rho^|i-j|",
        "2",
        _AR[0],
        needs_order=True,
        serial=True,
        homogeneous=True,
        series=True,
        sas="AR(1)",
        sas_row="AR(1)",
    ),
    Structure(
        "ar1h",
        "heterogeneous autoregressive: t variances, correlation rho^|i-j|",
        "t+1",
        _AR[1],
        needs_order=True,
        serial=True,
        sas="ARH(1)",
        sas_row="ARH(1)",
    ),
    Structure(
        "ad",
        "ante-dependence: one variance, a correlation for each pair of neighbours",
        "t",
        _AD[0],
        needs_order=True,
        homogeneous=True,
        sas_row="Rho({})",
    ),
    Structure(
        "adh",
        "heterogeneous ante-dependence (ANTE(1)): t variances, t-1 correlations",
        "2t-1",
        _AD[1],
        needs_order=True,
        sas="ANTE(1)",
        sas_row="Rho({})",
    ),
    Structure(
        "toep",
        "Toeplitz: one variance, a correlation for each lag (of the first q bands)",
        "q",
        _TOEP[0],
        takes="order",
        needs_order=True,
        serial=True,
        homogeneous=True,
        sas="TOEP",
        sas_row="TOEP({})",
    ),
    Structure(
        "toeph",
        "heterogeneous Toeplitz: t variances, a correlation for each lag",
        "t+q-1",
        _TOEP[1],
        takes="order",
        needs_order=True,
        serial=True,
        sas="TOEPH",
        sas_row="TOEPH({})",
    ),
    Structure(
        "arma",
        "ARMA(p, q), by default (1, 1): one variance, correlation gamma rho^(|i-j|-1)",
        "p+q+1",
        _ARMA[0],
        takes="orders",
        needs_order=True,
        serial=True,
        homogeneous=True,
        minimum=3,
        series=True,
        sas="ARMA(1,1)",
    ),
    Structure(
        "hf",
        "Huynh-Feldt: t variances, covariance (v_i + v_j)/2 - lambda",
        "t+1",
        lambda r: huynh_feldt(r.name, r.q),
        minimum=2,
        has_nugget=True,
        sas="HF",
        sas_row="HF",
    ),
    Structure(
        "fa",
        "q common factors and t own variances",
        "q(2t-q+1)/2+t",
        _build_fa,
        takes="order",
        inner=False,
        has_nugget=True,
        sas="FA",
    ),
    Structure(
        "fa0",
        "q common factors only, of rank q",
        "q(2t-q+1)/2",
        lambda r: FactorAnalytic0(r.name, r.q, _factors(r)),
        takes="order",
        inner=False,
        sas="FA0",
    ),
    Structure(
        "fa1",
        "q common factors and one own variance",
        "q(2t-q+1)/2+1",
        _build_fa,
        takes="order",
        inner=False,
        has_nugget=True,
        sas="FA1",
    ),
    Structure(
        "lin",
        "a sum of known matrices, each times a coefficient",
        "q",
        lambda r: Linear(r.name, r.q, _matrices(r)),
        takes="matrices",
        formula="",
    ),
    Structure("known", "one known matrix times a variance", "1", _build_known, takes="matrices", formula=""),
    Structure(
        "sp_exp",
        "spatial exponential: exp(-d/range)",
        "2",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(EXP)",
        sas_row="SP(EXP)",
    ),
    Structure(
        "sp_gau",
        "spatial Gaussian: exp(-(d/range)^2)",
        "2",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(GAU)",
        sas_row="SP(GAU)",
    ),
    Structure(
        "sp_pow",
        "spatial power: rho^d",
        "2",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(POW)",
        sas_row="SP(POW)",
    ),
    Structure(
        "sp_sph",
        "spatial spherical: 1 - 1.5 d/range + 0.5 (d/range)^3 within the range",
        "2",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(SPH)",
        sas_row="SP(SPH)",
    ),
    Structure(
        "sp_lin",
        "spatial linear: 1 - d/range within the range",
        "2",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(LIN)",
        sas_row="SP(LIN)",
    ),
    Structure(
        "sp_ratio",
        "spatial rational quadratic: 1/(1 + (d/range)^2)",
        "2",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
    ),
    Structure(
        "matern",
        "Matern with range and smoothness nu (given, or free)",
        "3",
        _build_spatial,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(MATERN)",
    ),
    CAR1,
)
"""The structures of the package, in the order in which they are listed."""
