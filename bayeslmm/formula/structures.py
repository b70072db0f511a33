"""Names of covariance structures, and what their syntax allows."""

from __future__ import annotations

from difflib import get_close_matches

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
