"""Checks of arguments where they enter: words, names, numbers, counts, switches, mappings, functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, cast

import numpy as np

from bayeslmm.errors import SpecificationError

MAX_COUNT = 2**31 - 1
"""Of anything that is counted: more than this is a slip."""

MAX_SIZE = 1e300
"""Of one number that a user gives: whole numbers may be beyond floats."""


def require_one_of(value: str, allowed: tuple[str, ...], argument: str) -> None:
    """Raise SpecificationError unless the value of an option is one of those it may have."""
    if not isinstance(value, str) or value not in allowed:
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, "use one of " + ", ".join(map(repr, allowed)))


def spell(value: Any) -> str:
    """A word as options are compared: small letters, hyphens between its parts."""
    return "-".join(str(value).strip().lower().replace("_", "-").split())


def find_word[Word: str](value: Any, allowed: tuple[Word, ...], argument: str, synonyms: Mapping[str, Word] | None = None) -> Word:
    """The word that a value means, whatever its letters' size and its hyphens, or what it is called elsewhere.

    Errors: SpecificationError for a word that is none.
    """
    known = {spell(word): word for word in allowed} | dict(synonyms or {})
    if not isinstance(value, str) or spell(value) not in known:
        raise SpecificationError(f"{argument} is {value!r}", argument, "use one of " + ", ".join(map(repr, allowed)))
    return known[spell(value)]


def require_count(value: Any, argument: str) -> int:
    """Raise SpecificationError unless the value is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, "give a whole number, 1 or more")
    if int(value) > MAX_COUNT:
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, f"give a whole number, {MAX_COUNT:,} at most")
    return int(value)


def require_number(value: Any, argument: str, *, above: float = -math.inf, below: float = math.inf) -> float:
    """One finite number between two others, as a float. Raise SpecificationError for anything else."""
    numeric: Any = value if isinstance(value, Real) and not isinstance(value, bool | np.bool_) else math.nan
    number = float(numeric) if -MAX_SIZE < numeric < MAX_SIZE else math.nan
    if above < number < below:
        return number
    wanted = [f"above {above:g}"] * (above > -math.inf) + [f"below {below:g}"] * (below < math.inf)
    raise SpecificationError(f"{argument} is {value!r:.60}", argument, " ".join(["give a number", " and ".join(wanted)]).strip())


def require_mapping(value: Any, argument: str, example: str) -> dict[Any, Any]:
    """A mapping as a dict, empty for None. Raise SpecificationError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, f"give a mapping: {example}")
    return dict(value)


def require_function(value: Any, argument: str) -> Callable[..., Any]:
    """A function. Raise SpecificationError for anything else."""
    if not callable(value):
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, "give a function")
    return cast("Callable[..., Any]", value)


def require_level(value: Any, argument: str = "conf_level") -> float:
    """The level of confidence as a float. Raise SpecificationError unless it is one number between 0 and 1."""
    level = float(value) if isinstance(value, Real) and not isinstance(value, bool) else np.nan
    if 0.0 < level < 1.0:
        return level
    meant = f"; did you mean {level / 100.0:.15g}?" if 1.0 < level < 100.0 else ""
    raise SpecificationError(f"the confidence level is {value!r:.60}", argument, f"give a number between 0 and 1, such as 0.95{meant}")


def require_flag(value: Any, argument: str) -> bool:
    """The switch as a bool. Raise SpecificationError for all but True and False: a word or a number says something by its truth alone."""
    if not isinstance(value, bool | np.bool_):
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, "use True or False")
    return bool(value)


def require_name(value: Any, argument: str) -> str:
    """One name of a column or a factor. Raise SpecificationError for what is no text."""
    if not isinstance(value, str):
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, "give one name, as text")
    return value


def require_names(value: Any, argument: str) -> list[str]:
    """One name or several, as a list. Raise SpecificationError for what is no text, and for no name at all."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise SpecificationError(f"{argument} is {value!r:.60}", argument, "give a name, or a list of names")
    return names
