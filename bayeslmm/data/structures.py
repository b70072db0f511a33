"""What the data must know of a covariance structure, by name: whether its rows have an order, or a place."""

from __future__ import annotations

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
