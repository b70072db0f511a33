"""Known relationship matrices: labelled, symmetric, positive semi-definite, brought into the order of the levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array, frozen
from bayeslmm.data.design import GroupingFactor
from bayeslmm.data.wording import nearest_names, values_text
from bayeslmm.errors import DataError, NonFiniteError, SpecificationError

_SYMMETRY = 1e-8  # of the largest entry: a matrix printed with nine digits passes
_SIZE = 1e9  # beyond this, or below its inverse, a search that starts at equal variances starts too far away
_NEGATIVE = 1e-8  # an eigenvalue below minus this fraction of the largest is more than rounding


def check_names(names: tuple[str, ...], given: Mapping[str, Any], groups: tuple[str, ...]) -> None:
    """Refuse a matrix for a factor that no random term has, and a factor whose matrix is not there."""
    for name in given:
        if name not in groups:
            near = nearest_names(name, groups)
            raise SpecificationError(
                f"a relationship is given for {name!r}, which is not a grouping factor of the model",
                f"grouping factors: {', '.join(groups) or 'none'}",
                f"did you mean {near[0]!r}?" if near else f"add a term such as (1 | {name})",
            )
    for name in names:
        if name not in given:
            raise SpecificationError(
                f"the relationship matrix of {name!r} is missing", "", f"give relationship={{{name!r}: labelled frame}}"
            )


def aligned(name: str, matrix: Any, factor: GroupingFactor) -> Array:
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
    _refuse_improper(name, values, factor)
    return frozen(0.5 * (values + values.T))


def _places(name: str, labels: pd.Index[Any], side: str) -> dict[Any, int]:
    if not labels.is_unique:
        twice = values_text(labels[labels.duplicated()].unique())
        raise DataError(f"the {side} of the relationship of {name!r} hold labels twice: {twice}", "", "keep one of each")
    return {label: i for i, label in enumerate(labels.tolist())}


def _find(level: Any, places: Mapping[Any, int]) -> int | None:
    """By label, or by its text where the matrix was read from a file and the levels are numbers."""
    return places.get(level, places.get(str(level)))


def _refuse_improper(name: str, values: Array, factor: GroupingFactor) -> None:
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
