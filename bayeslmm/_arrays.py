"""Shape aliases, read-only arrays, and seeds made into random generators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from numbers import Integral
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeslmm.errors import Check, SpecificationError, UnknownCheckError, show_value

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]
Generator = np.random.Generator


class FrozenMapping[Key, Value](Mapping[Key, Value]):
    """A mapping that is not changed; unlike a mapping proxy it can be copied and pickled."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[Key, Value]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: Key) -> Value:
        return self._values[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class Checks(FrozenMapping[str, Check]):
    """Checks by name, printed a line each."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Check:
        try:
            return self._values[name]
        except KeyError:
            near = [known for known in self if str(name).lower() in known.lower()]
            remedy = f"did you mean {' or '.join(map(repr, near[:2]))}?" if near else f"there are {', '.join(map(repr, self))}"
            raise UnknownCheckError(f"there is no check {name!r}", "checks", remedy) from None

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {check.text}" for name, check in self.items()) or "no checks"


def freeze(values: ArrayLike) -> Array:
    """A float64 C-contiguous copy-if-needed that cannot be written to."""
    return _frozen_copy(values, np.float64)


def freeze_codes(values: ArrayLike) -> Codes:
    """Integer codes that cannot be written to."""
    return _frozen_copy(values, np.int64)


def _frozen_copy[Number: np.generic](values: ArrayLike, kind: type[Number]) -> NDArray[Number]:
    array = np.ascontiguousarray(values, dtype=kind)
    if array.flags.writeable:
        array = array.copy() if array is values else array
        array.flags.writeable = False
    return array


def concatenate_fields[Value](parts: Sequence[Value]) -> Value:
    """Values of a dataclass of arrays as one, each array after the other along its first axis."""
    kind: Any = type(parts[0])
    return cast(Value, kind(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(kind))))


def equal_rows(rows: NDArray[Any]) -> tuple[Codes, Codes]:
    """The first of the rows that are equal, by where they begin, and which of these each row is; rows : (n, any), without NaN.

    Rows are compared as bytes: NumPy makes each column a field of its own, which takes seconds where there are thousands.

    >>> equal_rows(np.array([[2.0, 1.0], [0.0, 3.0], [2.0, 1.0]]))
    (array([0, 1]), array([0, 1, 0]))
    """
    n, width = rows.shape
    if not width:
        return np.zeros(min(n, 1), np.int64), np.zeros(n, np.int64)
    exact = np.ascontiguousarray(rows + 0.0 if rows.dtype.kind == "f" else rows)  # -0.0 is 0.0
    packed = exact.view(np.dtype((np.void, exact.itemsize * width))).ravel()
    _, first, kind = np.unique(packed, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[kind].astype(np.int64)


def fill_mask(values: Any) -> Any:
    """A masked array as numbers, NaN where it is masked; anything else as it is."""
    return np.ma.filled(values.astype(np.float64), np.nan) if isinstance(values, np.ma.MaskedArray) else values


def is_counted(labels: Any) -> bool:
    """Whether the labels of pandas only count, from 0 on: those of what was given none."""
    # by name: formulas are read without pandas
    return type(labels).__name__ == "RangeIndex" and bool(labels.start == 0 and labels.step == 1)


def _is_labelled(values: Any) -> bool:
    return hasattr(values, "iloc") and not all(map(is_counted, values.axes))


def numbers_of(values: Any, argument: str, remedy: str = "give numbers", *, labelled: bool = False) -> Array:
    """Numbers of any shape as an array, NaN where they are missing or masked.

    labelled : labels were matched by the caller, or say nothing of what is asked; otherwise what has some is refused

    Errors: `SpecificationError` for what is no real numbers: nothing, text, times and complex numbers too, of which NumPy would make some.
    """
    if not labelled and _is_labelled(values):
        what = f"{argument} has labels, and is read by position"
        raise SpecificationError(what, f"{argument}: {show_value(values)}", "give it without labels, in order: .to_numpy()")
    try:
        array = fill_mask(values)
        kind = getattr(getattr(array, "dtype", None), "kind", None) or np.asarray(array).dtype.kind  # a dtype of polars has no kind
        if array is None or kind in "cmMSU" or (kind == "O" and any(isinstance(v, str | bytes) for v in np.asarray(array).ravel())):
            raise TypeError
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError, ArithmeticError):
        raise SpecificationError(f"{argument} is {show_value(values)}", argument, remedy) from None


def symmetric(lower: Array) -> Array:
    """The symmetric matrix whose lower triangle is given (last two axes)."""
    if lower.shape[-1] == 1:
        return lower
    return np.where(np.tri(lower.shape[-1], dtype=bool), lower, np.swapaxes(lower, -1, -2))


def is_covariance(matrix: Array) -> bool:
    """Whether a square matrix is finite, symmetric to rounding and positive definite, whatever the units of its rows."""
    sd = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    if not np.isfinite(matrix).all() or not (sd > 0.0).all():
        return False
    correlation = matrix / np.outer(sd, sd)
    return bool(np.allclose(correlation, correlation.T) and np.linalg.eigvalsh(correlation)[0] > 0.0)


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The same array, its write flag cleared."""
    array.flags.writeable = False
    return array


def seed_sequence(seed: Any) -> np.random.SeedSequence:
    """The source of random numbers of a seed: None for a fresh one, a whole number of 0 or more, or several of them.

    Errors: SpecificationError for what is no seed.

    >>> seed_sequence(1).entropy
    1
    """
    if isinstance(seed, np.random.SeedSequence):
        return seed
    several = (isinstance(seed, np.ndarray) and seed.ndim == 1) or (
        isinstance(seed, Sequence) and not isinstance(seed, str | bytes | memoryview)
    )
    if seed is not None and not (all(map(_whole, seed)) and len(seed) if several else _whole(seed)):
        raise SpecificationError(f"seed is {show_value(seed)}", "seed", "give a whole number, 0 or more, or None")
    return np.random.SeedSequence(seed)


def unspent(seed: np.random.SeedSequence) -> np.random.SeedSequence:
    """The same source of random numbers before any other was made from it.

    >>> source = seed_sequence(1)
    >>> len(source.spawn(3)), unspent(source).n_children_spawned
    (3, 0)
    """
    return np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)


def generator(seed: Any) -> np.random.Generator:
    """Random numbers from a seed, as `seed_sequence` takes it.

    >>> generator(1).integers(10) == generator(1).integers(10)
    True
    """
    return np.random.default_rng(seed_sequence(seed))


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def label_text(label: Any) -> str:
    """A label as text: whole numbers without their point, whatever missing values have made of their column; several side by side.

    >>> label_text(308.0), label_text(2.5), label_text("a")
    ('308', '2.5', 'a')
    """
    if isinstance(label, tuple):
        return " ".join(map(label_text, label))
    return str(int(label)) if isinstance(label, float | np.floating) and float(label).is_integer() else str(label)
