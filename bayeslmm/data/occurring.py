"""Integers as codes over those that occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Codes


def is_narrow(space: int, rows: int) -> bool:
    """Whether counting `space` keys costs less than sorting or hashing the rows."""
    return space <= max(4 * rows, 1024)


def counted(key: NDArray[Any], space: int) -> tuple[Codes, Codes]:
    """Sorted distinct keys of 0, ..., space - 1, and each row's place among them, by counting."""
    distinct = np.bincount(key, minlength=space).nonzero()[0]
    place = np.empty(space, dtype=np.int64)
    place[distinct] = np.arange(len(distinct))
    return distinct, place[key]


def occurring(key: Codes, space: int) -> tuple[Codes, Codes]:
    """`counted`, or the same by sorting where the space of keys is large."""
    if is_narrow(space, len(key)):
        return counted(key, space)
    combinations, codes = np.unique(key, return_inverse=True)
    return combinations, codes
