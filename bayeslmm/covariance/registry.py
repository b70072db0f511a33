"""The list of structures, and the door that builds one by name."""

from __future__ import annotations

from bayeslmm.covariance.banded import Banded, Diagonal
from bayeslmm.covariance.correlation import Autoregressive, Exchangeable, Independent
from bayeslmm.covariance.protocol import Covariance
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.errors import SpecificationError


def make(name: str, q: int, order: int | None = None) -> Covariance:
    """The structure called `name` of dimension q."""
    if name in ("us", "un"):
        return Banded(name, q, min(order or q, q))
    if name == "diag":
        return Diagonal(name, q, 1)
    if name == "id" or (q == 1 and name in ("cs", "ar1")):
        return Homogeneous(name, q, Independent(q))
    if q == 1 and name in ("csh", "ar1h"):
        return Heterogeneous(name, q, Independent(q))
    if name in ("cs", "csh"):
        return (Homogeneous if name == "cs" else Heterogeneous)(name, q, Exchangeable(q))
    if name in ("ar1", "ar1h"):
        return (Homogeneous if name == "ar1" else Heterogeneous)(name, q, Autoregressive(q))
    raise SpecificationError(f"unknown covariance structure '{name}'")


STRUCTURES = ("us", "diag", "id", "cs", "csh", "ar1", "ar1h")
