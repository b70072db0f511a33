"""Checks where arguments enter: words, names, numbers, counts, switches, mappings, functions, and memory before it is asked for."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, cast

import numpy as np

from bayeslmm.errors import SizeError, SpecificationError, show_value, spell_out

MAX_COUNT = 2**31 - 1
"""Of anything that is counted: more than this is a slip."""

MAX_PROCESSES = 60
"""Of one pool: Windows has no more."""

MAX_SIZE = 1e300
"""Of one number that a user gives: whole numbers may be beyond floats."""


def _no_word(value: Any, allowed: tuple[str, ...], argument: str) -> SpecificationError:
    """The error for a word that an option does not have; one that is nearly another is answered by that one."""
    spelt = {spell(word): word for word in allowed}
    near = get_close_matches(spell(value), spelt, 1) if isinstance(value, str) else []
    meant = f"did you mean {spelt[near[0]]!r}? " if near else ""
    return SpecificationError(f"{argument} is {show_value(value)}", argument, f"{meant}use one of {', '.join(map(repr, allowed))}")


def require_one_of(value: str, allowed: tuple[str, ...], argument: str) -> None:
    """Raise SpecificationError unless the value of an option is one of those it may have."""
    if not isinstance(value, str) or value not in allowed:
        raise _no_word(value, allowed, argument)


def spell(value: Any) -> str:
    """A word as options are compared: small letters, hyphens between its parts."""
    return "-".join(spell_out(value).strip().lower().replace("_", "-").split())


def find_word[Word: str](value: Any, allowed: tuple[Word, ...], argument: str, synonyms: Mapping[str, Word] | None = None) -> Word:
    """The word that a value means, whatever its letters' size and its hyphens, or what it is called elsewhere.

    Errors: SpecificationError for a word that is none.
    """
    known = {spell(word): word for word in allowed} | dict(synonyms or {})
    if not isinstance(value, str) or spell(value) not in known:
        raise _no_word(value, allowed, argument)
    return known[spell(value)]


def require_count(value: Any, argument: str) -> int:
    """Raise SpecificationError unless the value is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, "give a whole number, 1 or more")
    if int(value) > MAX_COUNT:
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, f"give a whole number, {MAX_COUNT:,} at most")
    return int(value)


WORKERS_PER_CORE = 4
"""Processes or threads that are started at most: some wait for files. More would only fill the memory."""


def require_workers(value: Any) -> int:
    """A count of workers, held to what the machine has cores for. Errors: as `require_count`."""
    return min(require_count(value, "workers"), WORKERS_PER_CORE * (os.cpu_count() or 1), MAX_PROCESSES)


def number_below(value: Any, size: float) -> float:
    """A real number, or an array of no dimensions, as a float where it is less than a size either way; NaN for anything else."""
    one = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(one, bool | np.bool_) or not isinstance(one, Real | Decimal) or (isinstance(one, Decimal) and one.is_nan()):
        return math.nan
    # a float of 32 bits cannot be compared with sizes beyond its own, an integer may be none of 64
    numeric: Any = float(one) if isinstance(one, np.floating | Decimal) else one
    return float(numeric) if -size < numeric < size else math.nan


def require_number(value: Any, argument: str, *, above: float = -math.inf, below: float = math.inf) -> float:
    """One finite number between two others, as a float. Raise SpecificationError for anything else."""
    number = number_below(value, MAX_SIZE)
    if above < number < below:
        return number
    wanted = [f"above {above:g}"] * (above > -math.inf) + [f"below {below:g}"] * (below < math.inf)
    raise SpecificationError(f"{argument} is {show_value(value)}", argument, " ".join(["give a number", " and ".join(wanted)]).strip())


def require_mapping(value: Any, argument: str, example: str) -> dict[Any, Any]:
    """A mapping as a dict, empty for None. Raise SpecificationError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, f"give a mapping: {example}")
    return dict(value)


def require_function(value: Any, argument: str) -> Callable[..., Any]:
    """A function. Raise SpecificationError for anything else."""
    if not callable(value):
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, "give a function")
    return cast("Callable[..., Any]", value)


def require_level(value: Any, argument: str = "conf_level") -> float:
    """The level of confidence as a float. Raise SpecificationError unless it is one number between 0 and 1, and its tail is too."""
    level = number_below(value, MAX_SIZE)
    if 0.5 < 0.5 + 0.5 * level < 1.0:
        return level
    meant = f"; did you mean {level / 100.0:.15g}?" if 1.0 < level < 100.0 else ""
    raise SpecificationError(
        f"the confidence level is {show_value(value)}", argument, f"give a number between 0 and 1, such as 0.95{meant}"
    )


def require_flag(value: Any, argument: str, otherwise: str = "") -> bool:
    """The switch as a bool. Raise SpecificationError for all but True and False: a word or a number says something by its truth alone.

    otherwise : what to write for what else may have been meant
    """
    if not isinstance(value, bool | np.bool_):
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, "; ".join(filter(None, ("use True or False", otherwise))))
    return bool(value)


def require_name(value: Any, argument: str) -> str:
    """One name of a column or a factor. Raise SpecificationError for what is no text."""
    if not isinstance(value, str):
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, "give one name, as text")
    return value


def require_names(value: Any, argument: str) -> list[str]:
    """One name or several, as a list. Raise SpecificationError for what is no text, and for no name at all."""
    try:
        names = [value] if isinstance(value, str) else list(value)
    except TypeError:
        names = []  # not iterable, or an array of no dimensions, which says that it is
    if not names or not all(isinstance(name, str) for name in names):
        raise SpecificationError(f"{argument} is {show_value(value)}", argument, "give a name, or a list of names")
    return names


BYTES = 8
"""Of a number."""

SMALL = 1 << 26
"""Numbers that are asked for without a look at what is free."""

STREAM_NUMBERS = 64
"""What a stream of random numbers of its own takes, in numbers."""

UNKNOWN = 1 << 33
"""Bytes taken to be free where the system does not tell."""

SHARE = 0.8
"""Of the free memory that one request may take."""

PLACES = {
    "reference grid": "levels of all factors multiplied x coefficients (emmeans, emtrends)",
    "contrasts": "pairs of means (pairs, contrast); their correlations have a limit of their own",
    "replicates": "replicates x reported values (bootstrap, power, check_inference)",
    "simulated responses": "simulations x rows (simulate)",
    "prior draws": "draws x (parameters, random effects, rows) (prior_predictive)",
    "draws": "draws x chains x (parameters, random effects) (sample, calibrate)",
    "draws by row": "draws x rows (posterior predictions, log likelihood, leave-one-out)",
    "marginal covariance": "rows of a level x rows of a level (marginal_cov)",
    "design": "columns x (rows, columns) (LMM)",
    "covariances": "(co)variances x columns of a random term, or visits, squared (us, un, without a structure)",
    "visit patterns": "patterns of visits x (visits x coefficients)^2 (residual= of from_partitions, save(rows=False))",
    "imputations": "samples x subjects x visits, samples x visits x visits (impute)",
}
"""Every place whose size grows with a product of what a user gives, and the factors. Columns of X and Z beyond these, blocks of crossed
factors and structures over many rows have limits of their own, where they are built: they are refused at any size of the machine."""


def require_memory(place: str, numbers: float, what: str, remedy: str) -> None:
    """Raise SizeError where so many numbers are not free; `place` is one of PLACES, `what` says what they are.

    >>> require_memory("draws", 10.0, "10 draws", "ask for fewer")
    """
    if numbers <= SMALL:
        return
    free = free_bytes()
    if BYTES * numbers > SHARE * free:
        may_take = f"{_size(SHARE * free)} of the {_size(free)} that are free may be taken"
        raise SizeError(f"{what} would take {_size(BYTES * numbers)}, and {may_take}", f"{place}: {PLACES[place]}", remedy)


def free_bytes() -> float:
    """Bytes that this process may still ask for: of the machine, and of its own limit."""
    return min(_of_the_machine(), _of_the_process())


def _of_the_machine() -> float:
    found = _field("/proc/meminfo", "MemAvailable:")
    return UNKNOWN if found is None else 1024.0 * found


def _of_the_process() -> float:
    if sys.platform == "win32":
        return math.inf
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _field("/proc/self/status", "VmSize:")
    return math.inf if limit == resource.RLIM_INFINITY or used is None else max(0.0, limit - 1024.0 * used)


def _field(path: str, name: str) -> float | None:
    """A number of kilobytes from a file of the system."""
    try:
        with open(path, encoding="utf-8") as file:
            return next((float(line.split()[1]) for line in file if line.startswith(name)), None)
    except OSError:
        return None


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
