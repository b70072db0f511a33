"""Values as JSON can hold them, and back: tuples, mappings, dates and numbers that are not finite keep their nature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import Check, FormatError, StoreError


def told(value: Any) -> Any:
    """A value as JSON holds it. Errors: StoreError for one that it cannot."""
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.datetime64 | np.timedelta64) else pd.Series([value])[0]
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [told(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [told(item) for item in value]}
    if isinstance(value, Mapping):
        return {"mapping": [[told(key), told(item)] for key, item in value.items()]}
    if isinstance(value, np.ndarray):
        return told(value.tolist())
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, pd.Timestamp):
        return {"time": value.isoformat()}
    if isinstance(value, pd.Timedelta):
        return {"duration": value.isoformat()}
    if isinstance(value, Check):
        return {"check": [told(part) for part in (value.name, value.verdict, value.value, value.limit, value.remedy)]}
    raise StoreError(
        f"a value of type {type(value).__name__} cannot be stored", f"{value!r:.60}", "make it text or a number before fitting"
    )


_READ: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "tuple": lambda parts: tuple(untold(part) for part in parts),
    "mapping": lambda pairs: {untold(key): untold(item) for key, item in pairs},
    "decimal": Decimal,
    "time": pd.Timestamp,
    "duration": pd.Timedelta,
    "check": lambda parts: Check(*(untold(part) for part in parts)),
}


def untold(value: Any) -> Any:
    """The inverse of `told`."""
    if isinstance(value, list):
        return [untold(item) for item in value]
    if isinstance(value, dict):
        if len(value) != 1 or next(iter(value)) not in _READ:
            raise FormatError("the file holds a value of unknown kind", ", ".join(map(str, value))[:80], "save the fit again")
        kind, content = next(iter(value.items()))
        return _READ[kind](content)
    return value
