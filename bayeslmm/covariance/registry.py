"""The list of structures, and the one door that builds them by name.

Names of covariance structures, and what their syntax allows.

What the data must know of a covariance structure, by name: whether its rows have an order, or a place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from bayeslmm._arrays import Array, freeze
from bayeslmm.covariance.antedependence import AnteDependent
from bayeslmm.covariance.autoregressive import ARMA11, Autoregressive
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.correlation import Correlation, IdentityCorrelation
from bayeslmm.covariance.exchangeable import Exchangeable
from bayeslmm.covariance.factor_analytic import FactorAnalytic, FactorAnalytic0
from bayeslmm.covariance.huynh_feldt import Given, Known, Linear, huynh_feldt
from bayeslmm.covariance.kronecker import Kronecker
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.matern import Matern
from bayeslmm.covariance.modifiers import SelectedRows, WithNugget
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.covariance.spatial import (
    IsotropicCorrelation,
    PowerCorrelation,
    Spatial,
    SpatialCovariance,
    distance_matrix,
    typical_distance,
)
from bayeslmm.covariance.toeplitz import Toeplitz
from bayeslmm.covariance.unstructured import Banded, Diagonal
from bayeslmm.errors import SpecificationError


@dataclass(frozen=True, slots=True)
class Request:
    """What `make` was asked for, checked."""

    name: str
    q: int
    order: int | None
    distances: Array | None
    reach: float | None
    dims: tuple[int, int] | None
    matrices: Array | None
    nu: float | None
    nugget: bool
    positions: tuple[int, ...] = ()


Builder = Callable[[Request], Covariance]


@dataclass(frozen=True, slots=True)
class Structure:
    """What can be said of a structure before its dimension is known.

    count : number of parameters in terms of the dimension t and the order q, as PROC MIXED's manual writes it
    takes : "" or which extra argument of `make` it takes: "order", "places", "dims", "matrices"
    minimum : smallest dimension at which its parameters can be told apart
    """

    name: str
    description: str
    count: str
    build: Builder
    takes: str = ""
    needs_order: bool = False
    homogeneous: bool = False
    minimum: int = 1

    @property
    def spatial(self) -> bool:
        """A function of distances."""
        return self.takes == "places"


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
        if not request.positions:
            return correlation(request)
        whole = correlation(replace(request, q=request.positions[-1] + 1, positions=()))
        return SelectedRows(request.q, whole, request.positions)

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
    return Kronecker(request.name, request.q, Banded("us", outer, outer), make(request.name.split("@")[1], inner))


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


_ID = _pair(lambda request: IdentityCorrelation(request.q))
_CS = _pair(lambda request: Exchangeable(request.q))
_AR = _pair(lambda request: Autoregressive(request.q))
_AD = _pair(lambda request: AnteDependent(request.q))
_TOEP = _pair(lambda request: Toeplitz(request.q, _order(request) - 1) if _order(request) > 1 else IdentityCorrelation(request.q))
_ARMA = _pair(lambda request: ARMA11(request.q))

_ALL = (
    Structure("us", "unstructured: every variance and covariance free", "t(t+1)/2", lambda r: Banded(r.name, r.q, _order(r))),
    Structure("un", "the first q bands of an unstructured matrix", "q(2t-q+1)/2", lambda r: Banded(r.name, r.q, _order(r)), "order", True),
    Structure("diag", "independent, one variance each", "t", lambda r: Diagonal(r.name, r.q, 1)),
    Structure("id", "independent, one variance", "1", _ID[0], homogeneous=True),
    Structure("cs", "compound symmetry: one variance, one correlation down to -1/(t-1)", "2", _CS[0], homogeneous=True),
    Structure("csh", "heterogeneous compound symmetry: t variances, one correlation", "t+1", _CS[1]),
    Structure("ar1", "first-order autoregressive: one variance, correlation rho^|i-j|", "2", _AR[0], "", True, True),
    Structure("ar1h", "heterogeneous autoregressive: t variances, correlation rho^|i-j|", "t+1", _AR[1], "", True),
    Structure("ad", "ante-dependence: one variance, a correlation for each pair of neighbours", "t", _AD[0], "", True, True),
    Structure("adh", "heterogeneous ante-dependence (ANTE(1)): t variances, t-1 correlations", "2t-1", _AD[1], "", True),
    Structure("toep", "Toeplitz: one variance, a correlation for each lag (of the first q bands)", "q", _TOEP[0], "order", True, True),
    Structure("toeph", "heterogeneous Toeplitz: t variances, a correlation for each lag", "t+q-1", _TOEP[1], "order", True),
    Structure("arma", "ARMA(1,1): one variance, correlation gamma rho^(|i-j|-1)", "3", _ARMA[0], "", True, True, 3),
    Structure("hf", "Huynh-Feldt: t variances, covariance (v_i + v_j)/2 - lambda", "t+1", lambda r: huynh_feldt(r.name, r.q), minimum=2),
    Structure("fa", "q common factors and t own variances", "q(2t-q+1)/2+t", _factor_analytic, "order"),
    Structure("fa0", "q common factors only, of rank q", "q(2t-q+1)/2", lambda r: FactorAnalytic0(r.name, r.q, _factors(r)), "order"),
    Structure("fa1", "q common factors and one own variance", "q(2t-q+1)/2+1", _factor_analytic, "order"),
    Structure("us@ar1", "unstructured between outcomes, autoregressive within", "t1(t1+1)/2+1", _kronecker, "dims", True),
    Structure("us@cs", "unstructured between outcomes, compound symmetry within", "t1(t1+1)/2+1", _kronecker, "dims", True),
    Structure("us@us", "unstructured between outcomes and within", "t1(t1+1)/2+t2(t2+1)/2-1", _kronecker, "dims", True),
    Structure("lin", "a sum of known matrices, each times a coefficient", "q", lambda r: Linear(r.name, r.q, _matrices(r)), "matrices"),
    Structure("known", "one known matrix times a variance", "1", _known, "matrices"),
    Structure("sp_exp", "spatial exponential: exp(-d/range)", "2", _located, "places", homogeneous=True),
    Structure("sp_gau", "spatial Gaussian: exp(-(d/range)^2)", "2", _located, "places", homogeneous=True),
    Structure("sp_pow", "spatial power: rho^d", "2", _located, "places", homogeneous=True),
    Structure("sp_sph", "spatial spherical: 1 - 1.5 d/range + 0.5 (d/range)^3 within the range", "2", _located, "places", homogeneous=True),
    Structure("sp_lin", "spatial linear: 1 - d/range within the range", "2", _located, "places", homogeneous=True),
    Structure("sp_ratio", "spatial rational quadratic: 1/(1 + (d/range)^2)", "2", _located, "places", homogeneous=True),
    Structure("matern", "Matern with range and smoothness nu (given, or free)", "3", _located, "places", homogeneous=True),
)

STRUCTURES: Mapping[str, Structure] = MappingProxyType({structure.name: structure for structure in _ALL})


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
    order: int | None = None,
    *,
    coords: ArrayLike | None = None,
    distances: ArrayLike | None = None,
    reach: float | None = None,
    dims: tuple[int, int] | None = None,
    matrices: Sequence[ArrayLike] | ArrayLike | None = None,
    nu: float | None = None,
    nugget: bool = False,
    positions: Sequence[int] = (),
) -> Covariance:
    """The covariance structure `name` of dimension q.

    order : bands of un, toep, toeph (all of them if None); factors of fa, fa0, fa1 (1 if None)
    coords, distances : (q, d) places, or (q, q) distances between them, for spatial structures; without, all distances are 1
    reach : a typical distance, where the range of a spatial structure starts; from the distances if None
    dims : (q1, q2) for Kronecker structures, q = q1 q2
    matrices : (k, q, q) for lin, (1, q, q) for known
    nu : a fixed smoothness for matern
    positions : increasing places of the q rows among more, for serial structures that count steps; by default 0, 1, ..., q - 1
    nugget : adds a share of variance that is not correlated at any distance (homogeneous structures)
    Raises SpecificationError.

    >>> make("cs", 4).natural_names
    ('sd', 'rho')
    """
    found = structure(name)
    if q < found.minimum:
        raise _not_available(f"'{name}' needs at least {found.minimum} rows, not {q}", "use us, cs or diag for so few")
    if order is not None and (found.takes != "order" and name != "us"):
        raise _not_available(f"'{name}' takes no order", f"write {name}(...) without ({order}; ...)")
    if order is not None and order < 1:
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
    return found.build(Request(name, q, order, given, reach, dims, known, nu, nugget, tuple(positions)))


SPATIAL = ("sp_exp", "sp_gau", "sp_pow", "sp_sph", "sp_lin", "sp_ratio", "matern")
ORDERED = ("un", "toep", "toeph", "fa", "fa0", "fa1")  # take a number of bands or factors after the bar
PLAIN = ("us", "un", "diag", "id", "cs", "csh", "ar1", "ar1h", "toep", "toeph", "ad", "adh", "arma", "hf", "fa", "fa0", "fa1")
NAMES = (*PLAIN, *SPATIAL)
KRONECKER = ("us", "cs", "ar1")  # factors of a product over outcomes and visits
# Structures with a free diagonal, or a free first band, already contain sigma^2 I: a nugget beside them is not identified.
FULL = ("us", "un", "diag", "id", "cs", "csh", "hf", "fa", "fa1")
MAX_ORDER = 1000


def is_structure(name: str) -> bool:
    """Whether it names a structure; a Kronecker product is written `us@ar1`.

    >>> is_structure("us@ar1"), is_structure("poly")
    (True, False)
    """
    if "@" in name:
        left, _, right = name.partition("@")
        return left in ("us", "un") and right in KRONECKER
    return name in NAMES


def canonical(name: str, order: int | None) -> str:
    """`un` without a number of bands is `us`."""
    name = "us" + name[2:] if name.startswith("un@") else name
    return "us" if name == "un" and order is None else name


def nearest_structures(name: str) -> str:
    """A remedy for a name that is none."""
    near = get_close_matches(name, NAMES, n=3, cutoff=0.5)
    return ("did you mean " + " or ".join(near) + "?") if near else "use one of " + ", ".join(NAMES)


_SERIAL = frozenset({"ar1", "ar1h", "toep", "toeph", "arma"})
_ORDERED = _SERIAL | {"ad", "adh", "un"}
_FREE = frozenset({"us", "un"})


def is_spatial(name: str) -> bool:
    """Whether the covariance is a function of coordinates."""
    return name.startswith("sp_") or name == "matern"


def is_serial(name: str) -> bool:
    """Whether the covariance counts steps, so that a level which no row has may not be dropped."""
    return not _SERIAL.isdisjoint(name.split("@"))


def sheds_visits(name: str) -> bool:
    """Whether a serial structure has parameters of a visit, or of a lag, that vanish with the visit."""
    return name in ("toep", "toeph", "ar1h")


def has_own_sds(name: str) -> bool:
    """Whether a serial structure has an sd for each visit."""
    return name in ("toeph", "ar1h")


def needs_order(name: str) -> bool:
    """Whether the order of the visits matters."""
    return not _ORDERED.isdisjoint(name.split("@"))


def is_unstructured(name: str, order: int | None) -> bool:
    """Whether every pair of visits has a covariance of its own."""
    return name in _FREE and order is None


def absorbs_identity(name: str) -> bool:
    """Whether adding a multiple of the identity stays in the family, so that it cannot be told from independent errors."""
    return not (is_spatial(name) or name in ("ar1", "ar1h", "arma") or "@" in name)


def absorbs_constant(name: str, order: int | None) -> bool:
    """Whether adding one number to all entries stays in the family, so that it cannot be told from a random intercept."""
    return order is None and name in ("us", "un", "cs", "toep", "hf")
