"""Grouping factors as contiguous integer codes over the levels that occur, and known relationship matrices among levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes, readonly
from bayeslmm.data.columns import Columns, LevelPlaces, compact_codes
from bayeslmm.data.frame import nearest_names, values_text
from bayeslmm.errors import DataError, NonFiniteError, SpecificationError


@dataclass(frozen=True, eq=False)
class GroupingFactor:
    """A grouping factor as integer codes.

    name : the columns joined by ":", as in `batch:cask`
    levels : (K,) labels that occur, in the order of the categories or sorted; `A:1` for an interaction, first factor slowest
    codes : (n,) int64, 0..K-1; every level occurs
    columns : the columns whose interaction the factor is
    """

    name: str
    levels: NDArray[np.object_]
    codes: Codes
    columns: tuple[str, ...]

    @property
    def size(self) -> int:
        """K, the number of levels."""
        return len(self.levels)

    @cached_property
    def places(self) -> dict[Any, int]:
        """Label -> code; made when new rows come."""
        return {level: i for i, level in enumerate(self.levels.tolist())}

    @cached_property
    def sorted_rows(self) -> tuple[Codes, Codes]:
        """Rows in the order of their levels (n,), and where each level begins (K + 1,)."""
        order = np.argsort(self.codes, kind="stable")
        return order, np.searchsorted(self.codes[order], np.arange(self.size + 1))


@dataclass(frozen=True, eq=False)
class GroupCoder:
    """How rows find their level: the levels of each column and, for an interaction, which combinations occur.

    levels : for each column, the labels that the fit has, in order
    combinations : sorted keys of the combinations that occur (mixed radix, first column slowest); None for one column
    """

    factor: GroupingFactor
    levels: tuple[NDArray[np.object_], ...]
    combinations: Codes | None

    @cached_property
    def places(self) -> tuple[Callable[[Any], int], ...]:
        """For each column, label -> position among the levels of the fit; made when new rows come."""
        return tuple(LevelPlaces.of(levels.tolist()) for levels in self.levels)

    @cached_property
    def quoted(self) -> bool:
        """Whether labels that hold a colon are quoted: without, two levels would be called alike."""
        return self.combinations is not None and _are_ambiguous(_label_parts(self.combinations, self.levels))

    def codes(self, source: Columns) -> Codes:
        """(n,) codes into the levels of the fit; -1 for a level that the fit has not seen or a missing label."""
        parts = [_known_places(source, column, place) for column, place in zip(self.factor.columns, self.places, strict=True)]
        if self.combinations is None:
            return parts[0]
        key = np.zeros(len(source), dtype=np.int64)
        known = np.ones(len(source), dtype=bool)
        for part, levels in zip(parts, self.levels, strict=True):
            known &= part >= 0
            key = key * len(levels) + part
        found = np.minimum(np.searchsorted(self.combinations, key), len(self.combinations) - 1)
        known &= self.combinations[found] == key
        return np.where(known, found, -1)

    def labels(self, source: Columns) -> NDArray[np.object_]:
        """(n,) the label of each row's level, seen or not; None where a column is missing."""
        parts = [source.read_factor(column).labels(source.codes(column)) for column in self.factor.columns]
        if len(parts) == 1:
            return parts[0]
        rows = [None if None in row else join_labels(list(map(str, row)), self.quoted) for row in zip(*parts, strict=True)]
        labels = np.empty(len(rows), dtype=object)
        labels[:] = rows
        return labels


def _known_places(source: Columns, column: str, place: Callable[[Any], int]) -> Codes:
    """(n,) where the labels of a column stand among the levels of the fit; -1 for what is none of them or is missing."""
    here, codes = source.read_factor(column).levels, source.codes(column)
    if len(codes) < len(here):  # of a few rows the levels are looked up, not all that a categorical column may have
        return np.array([place(here[code]) if code >= 0 else -1 for code in codes.tolist()], dtype=np.int64)
    return np.asarray(np.array([*map(place, here), -1], dtype=np.int64)[codes])


def group_coder(source: Columns, columns: Sequence[str]) -> GroupCoder:
    """The grouping factor of an interaction of columns over the rows kept, and how new rows find their level."""
    parts = [_compress(source, column) for column in columns]
    name = ":".join(columns)
    if len(parts) == 1:
        codes, levels = parts[0]
        return GroupCoder(_factor(name, levels, codes, columns), (levels,), None)
    key, sizes = parts[0][0].astype(np.int64), [len(levels) for _, levels in parts]
    for (codes, _), size in zip(parts[1:], sizes[1:], strict=True):
        key = key * size + codes
    combinations, codes = compact_codes(key, prod(sizes))
    labels = _labels(combinations, [levels for _, levels in parts])
    return GroupCoder(_factor(name, labels, codes, columns), tuple(readonly(levels) for _, levels in parts), readonly(combinations))


def _factor(name: str, levels: NDArray[np.object_], codes: NDArray[Any], columns: Sequence[str]) -> GroupingFactor:
    return GroupingFactor(name, readonly(levels), freeze_codes(codes), tuple(columns))


def _compress(source: Columns, column: str) -> tuple[NDArray[Any], NDArray[np.object_]]:
    """Codes over the levels that the rows kept have, and those levels."""
    levels, codes, absent = source.read_factor(column).levels, source.codes(column), source.absent(column)
    if absent is None:
        return codes, levels.copy()
    return (np.cumsum(~absent) - 1)[codes], levels[~absent]


def _labels(combinations: Codes, levels: Sequence[NDArray[np.object_]]) -> NDArray[np.object_]:
    """`A:1` for each combination; a part that holds a colon is quoted where two combinations would be called alike."""
    parts = _label_parts(combinations, levels)
    quoted, labels = _are_ambiguous(parts), np.empty(len(combinations), dtype=object)
    labels[:] = [join_labels(row, quoted) for row in parts]
    return labels


def _label_parts(combinations: Codes, levels: Sequence[NDArray[np.object_]]) -> list[tuple[str, ...]]:
    """The levels of the columns of each combination, as text."""
    rest, parts = combinations, []
    for names in reversed(levels):
        texts = [str(name) for name in names.tolist()]
        parts.append([texts[i] for i in (rest % len(names)).tolist()])
        rest = rest // len(names)
    return list(zip(*reversed(parts), strict=True))


def _are_ambiguous(parts: list[tuple[str, ...]]) -> bool:
    return len({join_labels(row, quoted=False) for row in parts}) < len(parts)


def join_labels(parts: Sequence[str], quoted: bool) -> str:
    """`A:1`; where labels are quoted, `p:q` and `r` are `` `p:q`:r ``."""
    return ":".join(f"`{part}`" if quoted and ":" in part else part for part in parts)


_SYMMETRY = 1e-8  # of the largest entry: a matrix printed with nine digits passes
_SIZE = 1e9  # beyond this, or below its inverse, a search that starts at equal variances starts too far away
_NEGATIVE = 1e-8  # an eigenvalue below minus this fraction of the largest is more than rounding


def check_names(names: tuple[str, ...], relationship: Mapping[str, Any], groups: tuple[str, ...]) -> None:
    """Refuse a matrix for a factor that no random term has, and a factor whose matrix is not there."""
    for name in relationship:
        if name not in groups:
            near = nearest_names(name, groups)
            raise SpecificationError(
                f"a relationship is given for {name!r}, which is not a grouping factor of the model",
                f"grouping factors: {', '.join(groups) or 'none'}",
                f"did you mean {near[0]!r}?" if near else f"add a term such as (1 | {name})",
            )
    for name in names:
        if name not in relationship:
            raise SpecificationError(
                f"the relationship matrix of {name!r} is missing", "", f"give relationship={{{name!r}: labelled frame}}"
            )


def align_relationship(name: str, matrix: Any, factor: GroupingFactor) -> Array:
    """(K, K) the matrix over the levels of the factor, in their order.

    Errors: `DataError` for a matrix without labels, with labels twice, without some level, not symmetric or not positive semi-definite.
    """
    if not isinstance(matrix, pd.DataFrame):
        raise DataError(
            f"the relationship of {name!r} has no labels",
            f"got a {type(matrix).__name__}",
            "give a pandas.DataFrame whose index and columns are the levels",
        )
    rows, columns = _places(name, matrix.index, "rows"), _places(name, matrix.columns, "columns")
    order = [[_find(level, places) for level in factor.levels] for places in (rows, columns)]
    absent = [level for level, row, column in zip(factor.levels, *order, strict=True) if row is None or column is None]
    if absent:
        raise DataError(
            f"the relationship of {name!r} lacks {len(absent)} levels that the data have: {values_text(absent)}",
            f"matrix {matrix.shape[0]} x {matrix.shape[1]}",
            "add them, or drop their rows from the data",
        )
    for label, column in matrix.items():
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
            raise DataError(f"the relationship of {name!r} is not real numbers", f"column {label!r}, dtype {column.dtype}", "give numbers")
    values = matrix.to_numpy(dtype=np.float64)[np.ix_(np.asarray(order[0]), np.asarray(order[1]))]
    _check_proper(name, values, factor)
    return freeze(0.5 * (values + values.T))


def _places(name: str, labels: pd.Index[Any], side: str) -> dict[Any, int]:
    if not labels.is_unique:
        twice = values_text(labels[labels.duplicated()].unique())
        raise DataError(f"the {side} of the relationship of {name!r} hold labels twice: {twice}", "", "keep one of each")
    return {label: i for i, label in enumerate(labels.tolist())}


def _find(level: Any, places: Mapping[Any, int]) -> int | None:
    """By label, or by its text where the matrix was read from a file and the levels are numbers."""
    return places.get(level, places.get(str(level)))


def _check_proper(name: str, values: Array, factor: GroupingFactor) -> None:
    if not np.isfinite(values).all():
        raise NonFiniteError(f"the relationship of {name!r} holds missing or infinite values", "", "fill the matrix")
    gap = np.abs(values - values.T)
    largest = float(np.abs(values).max())
    if gap.max() > _SYMMETRY * largest:
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        raise DataError(
            f"the relationship of {name!r} is not symmetric",
            f"levels {factor.levels[i]!r} and {factor.levels[j]!r}: {values[i, j]:.6g} and {values[j, i]:.6g}",
            "average it with its transpose if the difference is rounding",
        )
    if not 1.0 / _SIZE < largest < _SIZE:
        raise DataError(
            f"the relationship of {name!r} is of size {largest:.3g}", f"{len(values)} levels", "scale it so that its diagonal is near 1"
        )
    if _positive(values, largest):
        return
    smallest = float(np.linalg.eigvalsh(values)[0])
    if smallest < -_NEGATIVE * largest:
        raise DataError(
            f"the relationship of {name!r} is not positive semi-definite",
            f"its smallest eigenvalue is {smallest:.3g}",
            "a matrix of covariances has none below 0: check the pedigree, or project it",
        )


def _positive(values: Array, largest: float) -> bool:
    """Whether a Cholesky succeeds, which costs a tenth of the eigenvalues."""
    try:
        np.linalg.cholesky(values + 1e-12 * largest * np.eye(len(values)))
    except np.linalg.LinAlgError:
        return False
    return True
