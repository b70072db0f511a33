"""Shape aliases and read-only arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


def frozen(values: ArrayLike) -> Array:
    """A float64 C-contiguous copy-if-needed that cannot be written to."""
    return _frozen(values, np.float64)


def frozen_codes(values: ArrayLike) -> Codes:
    """Integer codes that cannot be written to."""
    return _frozen(values, np.int64)


def _frozen[Number: np.generic](values: ArrayLike, kind: type[Number]) -> NDArray[Number]:
    array = np.ascontiguousarray(values, dtype=kind)
    if array.flags.writeable:
        array = array.copy() if array is values else array
        array.flags.writeable = False
    return array


def chained[Value](parts: Sequence[Value]) -> Value:
    """Values of a dataclass of arrays as one, each array after the other along its first axis."""
    kind: Any = type(parts[0])
    return cast(Value, kind(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(kind))))


def symmetric(lower: Array) -> Array:
    """The symmetric matrix whose lower triangle is given (last two axes)."""
    if lower.shape[-1] == 1:
        return lower
    strict = np.tril(lower, -1)
    return np.tril(lower) + np.swapaxes(strict, -1, -2)


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, its write flag cleared."""
    array.flags.writeable = False
    return array
