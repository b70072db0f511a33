"""The registry of covariance structures: one row each, the function that builds them by name, and what a name says before that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from bayeslmm._arrays import Array, freeze
from bayeslmm.covariance.arma import ARMA
from bayeslmm.covariance.base import Covariance, Request, Structure, StructureOrder
from bayeslmm.covariance.composed import CAR1, Given, Known, Kronecker, Linear, SelectedRows, WithNugget, huynh_feldt
from bayeslmm.covariance.correlation import Correlation, Exchangeable, IdentityCorrelation
from bayeslmm.covariance.factor_analytic import FactorAnalytic, FactorAnalytic0
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.covariance.serial import ARMA11, AnteDependent, Autoregressive, Toeplitz
from bayeslmm.covariance.spatial import (
    IsotropicCorrelation,
    Matern,
    PowerCorrelation,
    Spatial,
    SpatialCovariance,
    distance_matrix,
    typical_distance,
)
from bayeslmm.covariance.unstructured import Banded, Diagonal
from bayeslmm.errors import SpecificationError

Builder = Callable[[Request], Covariance]


def _not_available(what: str, remedy: str) -> SpecificationError:
    return SpecificationError(what, "covariance structure", remedy)


def _scaled(request: Request, correlation: Correlation, heterogeneous: bool) -> Covariance:
    q = request.q
    inner = IdentityCorrelation(q) if q == 1 and not request.nugget else correlation
    if request.nugget:
        inner = WithNugget(q, correlation, np.zeros((q, q)), 1.0)
    return (Heterogeneous if heterogeneous else Homogeneous)(request.name, q, inner)


def _pair(correlation: Callable[[Request], Correlation]) -> tuple[Builder, Builder]:
    """The homogeneous and the heterogeneous structure around a correlation."""

    def placed(request: Request) -> Correlation:
        if not request.positions or request.name.startswith("ar1") or request.lags:
            return correlation(request)
        at = tuple(int(place) for place in request.positions)
        return SelectedRows(request.q, correlation(replace(request, q=at[-1] + 1, positions=())), at)

    return (lambda request: _scaled(request, placed(request), False)), (lambda request: _scaled(request, placed(request), True))


def _order(request: Request) -> int:
    """The order asked for, all bands by default; never more than the dimension."""
    return min(request.order or request.q, request.q)


def _factors(request: Request) -> int:
    return min(request.order or 1, request.q)


def _factor_analytic(request: Request) -> Covariance:
    return FactorAnalytic(request.name, request.q, _factors(request), request.name == "fa1")


def _located(request: Request) -> Covariance:
    distances = request.distances if request.distances is not None else 1.0 - np.eye(request.q)
    reach = request.reach or typical_distance(distances)
    inner: Spatial
    if request.name == "matern":
        inner = Matern(request.q, distances, reach, request.nu)
    elif request.name == "sp_pow":
        inner = PowerCorrelation(request.q, distances, reach)
    else:
        inner = IsotropicCorrelation(request.q, request.name, distances, reach)
    return SpatialCovariance(request.name, request.q, WithNugget(request.q, inner, distances, reach) if request.nugget else inner)


def _kronecker(request: Request) -> Covariance:
    if request.dims is None or request.dims[0] * request.dims[1] != request.q:
        raise _not_available(
            f"'{request.name}' needs the dimensions of its two factors, with product {request.q}", "give dims=(outcomes, visits)"
        )
    outer, inner = request.dims
    return Kronecker(
        request.name, request.q, Banded("us", outer, outer), make(request.name.split("@")[1], inner, positions=request.positions)
    )


def _matrices(request: Request) -> Array:
    if request.matrices is None or request.matrices.shape[1:] != (request.q, request.q) or not request.matrices.shape[0]:
        raise _not_available(f"'{request.name}' needs known matrices of dimension {request.q}", "give matrices=[A1, A2, ...]")
    if not np.allclose(request.matrices, np.swapaxes(request.matrices, 1, 2), rtol=1e-10, atol=0.0):
        raise _not_available("a known covariance matrix is not symmetric", "pass (A + A.T) / 2 if the difference is rounding")
    return request.matrices


def _known(request: Request) -> Covariance:
    matrix = _matrices(request)[0]
    root = cholesky(matrix)
    if not np.isfinite(root).all():
        raise _not_available("the known covariance matrix is not positive semi-definite", "check its units and its order of rows")
    return Known(request.name, request.q, Given(request.q, matrix, freeze(root)))


def _steps(request: Request) -> tuple[int, ...]:
    return tuple(int(place) for place in request.positions)


_ID = _pair(lambda request: IdentityCorrelation(request.q))
_CS = _pair(lambda request: Exchangeable(request.q))
_AR = _pair(lambda request: Autoregressive(request.q, _steps(request)))
_AD = _pair(lambda request: AnteDependent(request.q))
_TOEP = _pair(lambda request: Toeplitz(request.q, _order(request) - 1) if _order(request) > 1 else IdentityCorrelation(request.q))
_ARMA = _pair(lambda request: ARMA(request.q, *request.lags, _steps(request)) if request.lags else ARMA11(request.q))

_ROWS: dict[str, Structure] = {}


def register(row: Structure) -> Structure:
    """Make a structure known to formulas, data checks, D, R, SAS and PyMC.

    Raises SpecificationError where the name is taken by another.
    """
    if row.name in _ROWS:
        raise _not_available(f"there is a covariance structure '{row.name}' already", "give it another name")
    _ROWS[row.name] = row
    return row


for _row in (
    Structure(
        "us",
        "unstructured: every variance and covariance free",
        "t(t+1)/2",
        lambda r: Banded(r.name, r.q, _order(r)),
        has_nugget=True,
        inner=True,
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
        inner=True,
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
        inner=True,
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
    Structure("fa", "q common factors and t own variances", "q(2t-q+1)/2+t", _factor_analytic, takes="order", has_nugget=True, sas="FA"),
    Structure(
        "fa0",
        "q common factors only, of rank q",
        "q(2t-q+1)/2",
        lambda r: FactorAnalytic0(r.name, r.q, _factors(r)),
        takes="order",
        sas="FA0",
    ),
    Structure("fa1", "q common factors and one own variance", "q(2t-q+1)/2+1", _factor_analytic, takes="order", has_nugget=True, sas="FA1"),
    Structure(
        "us@ar1",
        "unstructured between outcomes, autoregressive within",
        "t1(t1+1)/2+1",
        _kronecker,
        takes="dims",
        needs_order=True,
        serial=True,
        formula="R",
        series=True,
        sas="UN@AR(1)",
    ),
    Structure(
        "us@cs",
        "unstructured between outcomes, compound symmetry within",
        "t1(t1+1)/2+1",
        _kronecker,
        takes="dims",
        formula="R",
        sas="UN@CS",
    ),
    Structure(
        "us@us", "unstructured between outcomes and within", "t1(t1+1)/2+t2(t2+1)/2-1", _kronecker, takes="dims", formula="R", sas="UN@UN"
    ),
    Structure(
        "lin",
        "a sum of known matrices, each times a coefficient",
        "q",
        lambda r: Linear(r.name, r.q, _matrices(r)),
        takes="matrices",
        formula="",
    ),
    Structure("known", "one known matrix times a variance", "1", _known, takes="matrices", formula=""),
    Structure(
        "sp_exp",
        "spatial exponential: exp(-d/range)",
        "2",
        _located,
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
        _located,
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
        _located,
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
        _located,
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
        _located,
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
        _located,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
    ),
    Structure(
        "matern",
        "Matern with range and smoothness nu (given, or free)",
        "3",
        _located,
        takes="places",
        homogeneous=True,
        formula="R",
        series=True,
        sas="SP(MATERN)",
    ),
    CAR1,
):
    register(_row)

STRUCTURES: Mapping[str, Structure] = MappingProxyType(_ROWS)


def structure(name: str) -> Structure:
    """The registered structure of that name; SpecificationError with the nearest names otherwise."""
    if name not in STRUCTURES:
        near = get_close_matches(name, STRUCTURES, 3)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(STRUCTURES)}"
        raise _not_available(f"there is no covariance structure '{name}'", remedy)
    return STRUCTURES[name]


def description(name: str) -> str:
    """One line on a structure, with its number of parameters (t the dimension, q the order).

    >>> description("ar1h")
    'heterogeneous autoregressive: t variances, correlation rho^|i-j| (t+1 parameters)'
    """
    found = structure(name)
    return f"{found.description} ({found.count} parameter{'' if found.count == '1' else 's'})"


def make(
    name: str,
    q: int,
    order: StructureOrder | None = None,
    *,
    coords: ArrayLike | None = None,
    distances: ArrayLike | None = None,
    reach: float | None = None,
    dims: tuple[int, int] | None = None,
    matrices: Sequence[ArrayLike] | ArrayLike | None = None,
    nu: float | None = None,
    nugget: bool = False,
    positions: Sequence[float] = (),
) -> Covariance:
    """The covariance structure `name` of dimension q.

    order : bands of un, toep, toeph (all of them if None); factors of fa, fa0, fa1 (1 if None); (p, q) of arma ((1, 1) if None)
    coords, distances : (q, d) places, or (q, q) distances between them, for spatial structures; without, all distances are 1
    reach : a typical distance, where the range of a spatial structure starts; from the distances if None
    dims : (q1, q2) for Kronecker structures, q = q1 q2
    matrices : (k, q, q) for lin, (1, q, q) for known
    nu : a fixed smoothness for matern
    positions : increasing places of the q rows, for serial structures that count steps, or times for car1; by default 0, 1, ..., q - 1
    nugget : adds a share of variance that is not correlated at any distance (homogeneous structures)
    Raises SpecificationError.

    >>> make("cs", 4).natural_names
    ('sd', 'rho')
    """
    found = structure(name)
    lags = (order if isinstance(order, tuple) else (1, 1)) if found.takes == "orders" else None
    minimum = found.minimum if lags is None else sum(lags) + 1
    if q < minimum:
        raise _not_available(f"'{name}' needs at least {minimum} rows, not {q}", "use us, cs or diag for so few")
    if order is not None and not _order_fits(found, order):
        raise _not_available(f"'{name}' takes {_ORDERS.get(found.takes, 'no order')}", f"write {name}(...) without ({order}; ...)")
    if lags is not None and (min(lags) < 0 or sum(lags) < 1):
        raise _not_available(f"the orders of '{name}' are {lags[0]} and {lags[1]}", "give orders of 0 or more, one of them above 0")
    if isinstance(order, int) and order < 1:
        raise _not_available(f"the order of '{name}' is {order}", "give an order of 1 or more")
    if nugget and not found.homogeneous:
        raise _not_available(f"'{name}' has variances of its own and takes no nugget", "drop `+ local`")
    if nu is not None and not nu > 0:
        raise _not_available(f"the smoothness nu is {nu}", "give nu > 0, such as 0.5, 1.5 or 2.5")
    places = None if coords is None else distance_matrix(np.atleast_2d(np.asarray(coords, dtype=np.float64)))
    given = places if distances is None else np.asarray(distances, dtype=np.float64)
    if given is not None and given.shape != (q, q):
        raise _not_available(f"{given.shape[0]} places for {q} rows", "give one row of coordinates for each row of the matrix")
    known = None if matrices is None else freeze(np.asarray(matrices, dtype=np.float64))
    known = known[None] if known is not None and known.ndim == 2 else known
    bands = order if isinstance(order, int) else None
    own_lags = None if lags == (1, 1) else lags
    return found.build(Request(name, q, bands, given, reach, dims, known, nu, nugget, tuple(positions), own_lags))


_ORDERS: Mapping[str, str] = {"order": "one order", "orders": "two orders, p and q"}


def _order_fits(found: Structure, order: StructureOrder) -> bool:
    """Whether a structure has an order of this kind."""
    if isinstance(order, tuple):
        return found.takes == "orders"
    return found.takes == "order" or found.name == "us"


MAX_ORDER = 1000


def names(where: str = "") -> tuple[str, ...]:
    """The structures that a formula may name for D ("D"), or for D or R (""); products apart."""
    allowed = ("both",) if where == "D" else ("both", "R")
    return tuple(name for name, row in STRUCTURES.items() if row.formula in allowed and "@" not in name)


def _row_of(name: str) -> Structure:
    """The row of a structure; of a product, that of its right factor, whose steps and order count."""
    return STRUCTURES[name.rpartition("@")[2]]


def is_structure(name: str) -> bool:
    """Whether it names a structure; a Kronecker product is written `us@ar1`.

    >>> is_structure("us@ar1"), is_structure("poly")
    (True, False)
    """
    if "@" in name:
        left, _, right = name.partition("@")
        return left in ("us", "un") and right in STRUCTURES and STRUCTURES[right].inner
    return name in STRUCTURES and STRUCTURES[name].formula != ""


def canonical(name: str, order: StructureOrder | None) -> str:
    """`un` without a number of bands is `us`."""
    name = "us" + name[2:] if name.startswith("un@") else name
    return "us" if name == "un" and order is None else name


_ELSEWHERE = {
    "zerocorr": "diag(x | g), or (x || g)",
    "fulldummy": "(0 + f | g)",
    "corAR1": "ar1(t | g) as residual=, for corAR1(form = ~ t | g)",
    "corCAR1": "car1(t | g) as residual=",
    "corARMA": "arma(t | g) as residual=",
    "corCompSymm": "cs(t | g) as residual=",
    "corSymm": "us(t | g) as residual=, which is corSymm with varIdent(form = ~ 1 | t)",
    "corExp": "sp_exp(x, y | g) as residual=",
    "corGaus": "sp_gau(x, y | g) as residual=",
    "corSpher": "sp_sph(x, y | g) as residual=",
    "pdDiag": "diag(x | g), or (x || g)",
    "pdIdent": "id(x | g)",
    "pdCompSymm": "cs(x | g)",
    "pdSymm": "(x | g)",
    "pdBlocked": "a term for each block: (1 | g) + (0 + x | g)",
    "gr": "(1 | g), and relationship={'g': A} for a known matrix",
    "ar": "ar1(time | g) as residual=",
    "un": "us(t | g)",
}
"""Names of structures in nlme, brms and MixedModels.jl -> what is written here."""


def nearest_structures(name: str) -> str:
    """A remedy for a name that is none."""
    if name in _ELSEWHERE:
        return f"write {_ELSEWHERE[name]}"
    near = get_close_matches(name, names(), n=3, cutoff=0.5)
    return ("did you mean " + " or ".join(near) + "?") if near else "use one of " + ", ".join(names())


def takes_order(name: str) -> bool:
    """Whether a number of bands or factors may stand after the bar."""
    return STRUCTURES[name].takes == "order"


def takes_orders(name: str) -> bool:
    """Whether two orders, p and q, may stand after the bar."""
    return STRUCTURES[name].takes == "orders"


def fits_series(name: str, order: StructureOrder | None) -> bool:
    """Whether one series of rows can tell its parameters: their number does not grow with the rows."""
    if "@" in name:
        return STRUCTURES[name].series
    return STRUCTURES[name].series or (STRUCTURES[name].serial and STRUCTURES[name].homogeneous and order is not None)


def goes_on(name: str, order: StructureOrder | None) -> bool:
    """Whether the same parameters say the covariance at further steps."""
    return "@" not in name and is_serial(name) and not has_own_sds(name) and (not takes_order(name) or order is not None)


def takes_coordinates(name: str) -> bool:
    """Whether several coordinates may stand before the bar."""
    return "@" not in name and STRUCTURES[name].spatial


def is_spatial(name: str) -> bool:
    """Whether R is a function of coordinates or of real times."""
    return "@" not in name and STRUCTURES[name].by_distance


def takes_times(name: str) -> bool:
    """Whether its rows stand at real times."""
    return "@" not in name and STRUCTURES[name].takes == "times"


def is_serial(name: str) -> bool:
    """Whether the covariance counts steps, so that a level which no row has may not be dropped."""
    return _row_of(name).serial


def has_own_sds(name: str) -> bool:
    """Whether a serial structure has an sd for each visit."""
    return "@" not in name and is_serial(name) and not STRUCTURES[name].homogeneous


def sheds_visits(name: str) -> bool:
    """Whether a serial structure has parameters of a visit, or of a lag, that vanish with the visit."""
    return has_own_sds(name) or ("@" not in name and is_serial(name) and takes_order(name))


def keeps_distance(name: str) -> bool:
    """Whether whole-number times keep their distance: a serial structure without a parameter of its own for each lag."""
    return is_serial(name) and not takes_order(name.rpartition("@")[2])


def needs_order(name: str) -> bool:
    """Whether the order of the visits matters."""
    return _row_of(name).needs_order


def has_nugget(name: str) -> bool:
    """Whether its diagonal is free, so that a nugget beside it is not identified."""
    return "@" not in name and STRUCTURES[name].has_nugget


def is_one_variance(name: str) -> bool:
    """Whether all that it is over a single visit is the variance of that visit."""
    return "@" not in name and STRUCTURES[name].minimum == 1 and not is_spatial(name) and make(name, 1).size == 1


def is_unstructured(name: str, order: StructureOrder | None) -> bool:
    """Whether every pair of visits has a covariance of its own."""
    return name in ("us", "un") and order is None


def absorbs_identity(name: str) -> bool:
    """Whether adding a multiple of the identity stays in the family, so that it cannot be told from independent errors."""
    return not (is_spatial(name) or name in ("ar1", "ar1h", "arma") or "@" in name)


def absorbs_constant(name: str, order: StructureOrder | None) -> bool:
    """Whether adding one number to all entries stays in the family, so that it cannot be told from a random intercept."""
    return order is None and name in ("us", "un", "cs", "toep", "hf")
