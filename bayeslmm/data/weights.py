"""Weights and offsets: a column's name, an array or a Series, checked, as long as the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.arrays import Array
from bayeslmm.data.columns import numbers
from bayeslmm.data.frame import Table
from bayeslmm.data.source import Columns
from bayeslmm.data.wording import rows_text
from bayeslmm.errors import DataError, NonFiniteError

_LARGE = 2.0**60  # weights beyond this, or below its inverse, are brought near 1: squares of residuals times 1e300 overflow

_RANGE = 1e30  # of weights, beyond which the small ones are lost beside the large


def given_numbers(values: Any, name: str, table: Table) -> Array:
    """(n,) numbers given beside the data, by position.

    Errors: `DataError` for another length, text, or a Series whose index is not that of the data.
    """
    if isinstance(values, pd.Series):
        if not values.index.equals(table.frame.index):
            raise DataError(
                f"the {name} are a Series with another index than the data",
                f"{len(values)} values for {len(table)} rows",
                f"they are matched by position: put them into the data as a column, or give {name}.to_numpy()",
            )
        series = values
    else:
        array = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if array.ndim != 1:
            raise DataError(f"the {name} have {array.ndim} dimensions", "", "give one number per row")
        series = pd.Series(array)
    if len(series) != len(table):
        raise DataError(f"the {name} have {len(series)} values for {len(table)} rows", "", "give one number per row of the data")
    return numbers(series, name).values


def read_weights(column: str | None, values: Any, source: Columns) -> Array | None:
    """(n,) prior weights over all rows, or None.

    Errors: `DataError` with the rows of negative or missing weights, `NonFiniteError` of infinite ones.
    """
    if values is None and column is None:
        return None
    name = "weights" if column is None else column
    weights = source.read_numbers(name).values if values is None and column is not None else given_numbers(values, "weights", source.table)
    for wrong, what in ((np.isnan(weights), "missing"), (weights < 0, "negative")):
        if wrong.any():
            raise DataError(
                f"{name!r} holds {what} weights",
                rows_text(np.flatnonzero(wrong)),
                "drop these rows, or give weights of 0 to leave them out",
            )
    given = weights[weights > 0]
    if len(given) and given.max() / _RANGE > given.min():
        raise DataError(
            f"{name!r} holds weights from {given.min():g} to {given.max():g}",
            f"smallest in {rows_text(np.flatnonzero(weights == given.min()))}",
            "give weights within 30 orders of magnitude, or 0 to leave rows out",
        )
    return weights


def scaled_weights(weights: Array | None) -> tuple[Array | None, float]:
    """Weights near 1 and the power of two that they were divided by: 1 unless their size is extreme.

    A power of two changes no digit. Only sigma^2 sees the scale: sigma^2 / w = (sigma^2 / scale) / (w / scale).
    """
    if weights is None or not len(weights):
        return weights, 1.0
    largest = float(weights.max())
    if 1.0 / _LARGE < largest < _LARGE:
        return weights, 1.0
    exponent = min(int(np.frexp(largest)[1]), 1023)
    return np.ldexp(weights, -exponent), float(np.ldexp(1.0, exponent))


def refuse_infinite(values: NDArray[np.float64], name: str) -> None:
    """Refuse an offset that is not finite where it is not missing."""
    bad = np.isinf(values)
    if bad.any():
        raise NonFiniteError(f"{name} is infinite", rows_text(np.flatnonzero(bad)), "give finite numbers")
