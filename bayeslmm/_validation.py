"""Checks of options: one of several words, a whole number."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from bayeslmm.errors import SpecificationError


def require_one_of(value: str, allowed: tuple[str, ...], argument: str) -> None:
    """Raise SpecificationError unless the value of an option is one of those it may have."""
    if value not in allowed:
        raise SpecificationError(f"{argument} is {value!r}", argument, "use one of " + ", ".join(map(repr, allowed)))


def require_count(value: Any, argument: str) -> int:
    """Raise SpecificationError unless the value is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise SpecificationError(f"{argument} is {value!r}", argument, "give a whole number, 1 or more")
    return int(value)
