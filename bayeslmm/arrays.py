"""Shape aliases and read-only arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


def frozen(values: ArrayLike) -> Array:
    """A float64 C-contiguous copy-if-needed that cannot be written to."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.flags.writeable:
        array = array.copy() if array is values else array
        array.flags.writeable = False
    return array


def frozen_codes(values: ArrayLike) -> Codes:
    """Integer codes that cannot be written to."""
    array = np.ascontiguousarray(values, dtype=np.int64)
    if array.flags.writeable:
        array = array.copy() if array is values else array
        array.flags.writeable = False
    return array


def symmetric(lower: Array) -> Array:
    """The symmetric matrix whose lower triangle is given (last two axes)."""
    strict = np.tril(lower, -1)
    return np.tril(lower) + np.swapaxes(strict, -1, -2)


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, its write flag cleared."""
    array.flags.writeable = False
    return array
