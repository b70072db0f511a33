"""The registry of covariance structures: what is registered, a structure made by its name, and what a name says before that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from math import prod
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from bayeslmm._arrays import freeze
from bayeslmm.covariance.base import Covariance, Request, Structure, StructureOrder
from bayeslmm.covariance.products import product_of
from bayeslmm.covariance.spatial import distance_matrix
from bayeslmm.errors import SpecificationError


def unavailable(what: str, remedy: str) -> SpecificationError:
    return SpecificationError(what, "covariance structure", remedy)


_ROWS: dict[str, Structure] = {}


def register(row: Structure) -> Structure:
    """Make a structure known to formulas, data checks, D, R, SAS and PyMC.

    Raises SpecificationError where the name is taken by another.
    """
    if row.name in _ROWS:
        raise unavailable(f"there is a covariance structure '{row.name}' already", "give it another name")
    _ROWS[row.name] = row
    return row


STRUCTURES: Mapping[str, Structure] = MappingProxyType(_ROWS)


def structure(name: str) -> Structure:
    """The registered structure of that name, or the product that `a@b` is; SpecificationError with the nearest names otherwise."""
    if "@" in name:
        return _product(name)
    if name not in STRUCTURES:
        near = get_close_matches(name, STRUCTURES, 3)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(STRUCTURES)}"
        raise unavailable(f"there is no covariance structure '{name}'", remedy)
    return STRUCTURES[name]


@lru_cache(maxsize=256)
def _product(name: str) -> Structure:
    """What is known of a product by what is known of its factors: it counts steps, needs an order, is told by one series where one does."""
    factors = [structure(factor) for factor in name.split("@")]
    return Structure(
        name,
        "the product of " + " and ".join(factor.name for factor in factors),
        " + ".join(f"({factor.count})" for factor in factors) + f" - {len(factors) - 1}",
        _build_product,
        takes="dims",
        needs_order=any(factor.needs_order for factor in factors),
        serial=any(factor.serial for factor in factors),
        homogeneous=all(factor.homogeneous for factor in factors),
        formula="both" if all(factor.formula == "both" for factor in factors) else "R",
        series=any(factor.series for factor in factors),
        sas="UN@" + factors[1].sas if name in _SAS_PRODUCTS else "",
    )


_SAS_PRODUCTS = ("us@ar1", "us@cs", "us@us")


def _build_product(request: Request) -> Covariance:
    names, dims = request.name.split("@"), request.dims
    cells = tuple(int(cell) for cell in request.positions)
    if dims is None or len(dims) != len(names) or (len(cells) or prod(dims)) != request.q:
        what = f"'{request.name}' needs the dimensions of its {len(names)} factors, with product {request.q}"
        raise unavailable(what, "give dims=(outcomes, visits)")
    parts = [_factor(name, q, at) for name, q, at in zip(names, dims, request.places or ((),) * len(dims), strict=True)]
    return product_of(request.name, parts, request.nugget, cells)


def _factor(name: str, q: int, places: tuple[float, ...]) -> Covariance:
    """One factor, its rows at places that are steps, or coordinates where it is a function of distances; by default 0, 1, 2, ..."""
    if structure(name).spatial:
        at = np.array(places or range(q), dtype=np.float64)
        return make(name, q, distances=np.abs(np.subtract.outer(at, at)))
    return make(name, q, positions=places)


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
    dims: tuple[int, ...] | None = None,
    matrices: Sequence[ArrayLike] | ArrayLike | None = None,
    nu: float | None = None,
    nugget: bool = False,
    positions: Sequence[float] = (),
    places: Sequence[Sequence[float]] = (),
) -> Covariance:
    """The covariance structure `name` of dimension q.

    order : bands of un, toep, toeph (all of them if None); factors of fa, fa0, fa1 (1 if None); (p, q) of arma ((1, 1) if None)
    coords, distances : (q, d) places, or (q, q) distances between them, for spatial structures; without, all distances are `reach`, or 1
    reach : a typical distance, where the range of a spatial structure starts; from the distances if None
    dims : (q1, q2, ...) for products of structures, q = q1 q2 ...
    matrices : (k, q, q) for lin, (1, q, q) for known
    nu : a fixed smoothness for matern
    positions : increasing places of the q rows, for serial structures that count steps, or times for car1; by default 0, 1, ..., q - 1;
        of a product of homogeneous structures the cells of its grid that the rows are, by default all
    places : of a product, the positions or the coordinates of the rows of each factor
    nugget : adds a share of variance that is not correlated at any distance (homogeneous structures)
    Raises SpecificationError.

    >>> make("cs", 4).natural_names
    ('sd', 'rho')
    """
    found = structure(name)
    lags = (order if isinstance(order, tuple) else (1, 1)) if found.takes == "orders" else None
    minimum = found.minimum if lags is None else sum(lags) + 1
    if q < minimum:
        raise unavailable(f"'{name}' needs at least {minimum} rows, not {q}", "use us, cs or diag for so few")
    if order is not None and not _order_fits(found, order):
        raise unavailable(f"'{name}' takes {_ORDERS.get(found.takes, 'no order')}", f"write {name}(...) without ({order}; ...)")
    if lags is not None and (min(lags) < 0 or sum(lags) < 1):
        raise unavailable(f"the orders of '{name}' are {lags[0]} and {lags[1]}", "give orders of 0 or more, one of them above 0")
    if isinstance(order, int) and order < 1:
        raise unavailable(f"the order of '{name}' is {order}", "give an order of 1 or more")
    if nugget and not found.homogeneous:
        raise unavailable(f"'{name}' has variances of its own and takes no nugget", "drop `+ local`")
    if nu is not None and not nu > 0:
        raise unavailable(f"the smoothness nu is {nu}", "give nu > 0, such as 0.5, 1.5 or 2.5")
    apart = None if coords is None else distance_matrix(np.atleast_2d(np.asarray(coords, dtype=np.float64)))
    coordinates = apart if distances is None else np.asarray(distances, dtype=np.float64)
    if coordinates is not None and coordinates.shape != (q, q):
        raise unavailable(f"{coordinates.shape[0]} places for {q} rows", "give one row of coordinates for each row of the matrix")
    known = None if matrices is None else freeze(np.asarray(matrices, dtype=np.float64))
    known = known[None] if known is not None and known.ndim == 2 else known
    bands = order if isinstance(order, int) else None
    own_lags = None if lags == (1, 1) else lags
    at = tuple(map(tuple, places))
    return found.build(Request(name, q, bands, coordinates, reach, dims, known, nu, nugget, tuple(positions), own_lags, at))


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
    return tuple(name for name, row in STRUCTURES.items() if row.formula in allowed)


def is_structure(name: str) -> bool:
    """Whether it names a structure; a Kronecker product of any two or more is written `us@ar1`.

    >>> is_structure("us@ar1"), is_structure("ar1@ar1"), is_structure("poly")
    (True, True, False)
    """
    factors = [STRUCTURES.get(factor) for factor in name.split("@")]
    return all(row is not None and row.formula != "" for row in factors) and all(row is not None and row.inner for row in factors[1:])


def canonical(name: str, order: StructureOrder | None) -> str:
    """`un` without a number of bands is `us`."""
    return name if order is not None else "@".join("us" if factor == "un" else factor for factor in name.split("@"))


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
    "corLin": "sp_lin(x, y | g) as residual=",
    "corRatio": "sp_ratio(x, y | g) as residual=",
    "pdDiag": "diag(x | g), or (x || g)",
    "pdIdent": "id(x | g)",
    "pdCompSymm": "cs(x | g)",
    **dict.fromkeys(("pdSymm", "pdLogChol", "pdNatural"), "(x | g)"),
    "pdBlocked": "a term for each block: (1 | g) + (0 + x | g)",
    "gr": "(1 | g), and relationship={'g': A} for a known matrix",
    "ar": "ar1(time | g) as residual=",
    **{f"{name}v": f"{name}(...): a product has one variance, whichever factor carries it" for name in ("id", "ar1")},
    "idh": "diag(...), a variance for each level",
    **dict.fromkeys(("exp", "iexp", "aexp"), "sp_exp(x, y), or a product of sp_exp(x) and sp_exp(y)"),
    **dict.fromkeys(("gau", "igau", "agau"), "sp_gau(x, y), or a product of sp_gau(x) and sp_gau(y)"),
    **dict.fromkeys(("mtrn", "mat"), "matern(x, y)"),
    **dict.fromkeys(("corh", "cor", "corv", "coruv", "coruh"), "cs, csh or us"),
    **dict.fromkeys(("un", "unstructured", "unstr"), "us(t | g)"),
    **dict.fromkeys(("hetar1", "arh1", "arh"), "ar1h(0 + f | g)"),
    **dict.fromkeys(("homcs", "cosy", "exchangeable"), "cs(0 + f | g)"),
    **dict.fromkeys(("homtoep", "toeplitz"), "toep(0 + f | g)"),
    "homdiag": "id(0 + f | g)",
    "AR": "ar1(t | g)",
    "ou": 'car1(0 + C(t) | g), or residual="sp_exp(t | g) + local"',
    "rr": "fa0(0 + f | g, 2) for rank 2",
    **dict.fromkeys(("propto", "equalto"), "(1 | g), and relationship={'g': A} for a known matrix"),
}
"""Names of structures in nlme, glmmTMB, brms, asreml and MixedModels.jl -> what is written here."""


def nearest_structures(name: str) -> str:
    """A remedy for a name that is none."""
    if name in _ELSEWHERE:
        return f"write {_ELSEWHERE[name]}"
    near = get_close_matches(name, names(), n=3, cutoff=0.5)
    return ("did you mean " + " or ".join(near) + "?") if near else "use one of " + ", ".join(names())


def takes_order(name: str) -> bool:
    """Whether a number of bands or factors may stand after the bar."""
    return structure(name).takes == "order"


def takes_orders(name: str) -> bool:
    """Whether two orders, p and q, may stand after the bar."""
    return structure(name).takes == "orders"


def fits_series(name: str, order: StructureOrder | None) -> bool:
    """Whether one series of rows can tell its parameters: their number does not grow with the rows."""
    found = structure(name)
    return found.series or (found.serial and found.homogeneous and order is not None)


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
    return structure(name).serial


def has_own_sds(name: str) -> bool:
    """Whether a serial structure has an sd for each visit."""
    return "@" not in name and is_serial(name) and not STRUCTURES[name].homogeneous


def goes_through(name: str) -> bool:
    """Whether a row that no data has tells something of its own covariance with others: one among steps, or a cell of a product."""
    return "@" in name or (is_serial(name) and not has_own_sds(name))


def sheds_visits(name: str) -> bool:
    """Whether a serial structure has parameters of a visit, or of a lag, that vanish with the visit."""
    return has_own_sds(name) or ("@" not in name and is_serial(name) and takes_order(name))


def keeps_distance(name: str) -> bool:
    """Whether whole-number times keep their distance: a serial structure without a parameter of its own for each lag."""
    return is_serial(name) and not takes_order(name)


def needs_order(name: str) -> bool:
    """Whether the order of the visits matters."""
    return structure(name).needs_order


def has_nugget(name: str) -> bool:
    """Whether its diagonal is free, so that a nugget beside it is not identified."""
    return "@" not in name and STRUCTURES[name].has_nugget


def is_one_variance(name: str) -> bool:
    """Whether all that it is over a single visit is the variance of that visit."""
    return "@" not in name and STRUCTURES[name].minimum == 1 and not is_spatial(name) and make(name, 1).size == 1


def is_unstructured(name: str, order: StructureOrder | None) -> bool:
    """Whether every pair of visits has a covariance of its own."""
    return name in ("us", "un") and order is None


def absorbs_identity(name: str, order: StructureOrder | None, q: int) -> bool:
    """Whether adding a multiple of the identity stays in the family over q rows, so that it cannot be told from independent errors."""
    if name == "fa0" and isinstance(order, int) and order < q:  # a matrix of that rank
        return False
    if "@" in name:  # beside identities alone
        others = [factor for factor in name.split("@") if factor != "id"]
        return len(others) == 0 or (len(others) == 1 and absorbs_identity(others[0], None, q))
    return not (is_spatial(name) or name in ("ar1", "ar1h", "arma"))


def absorbs_constant(name: str, order: StructureOrder | None) -> bool:
    """Whether adding one number to all entries stays in the family, so that it cannot be told from a random intercept."""
    return order is None and name in ("us", "un", "cs", "toep", "hf")
