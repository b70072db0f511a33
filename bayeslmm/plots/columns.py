"""Columns of the data as a figure takes them: numbers, or levels at places 0, 1, 2, ..."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array, Codes
from bayeslmm.errors import SpecificationError


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of the rows of a fit: its values (n,) on an axis; its levels, or None for numbers."""

    name: str
    values: Array
    levels: tuple[Any, ...] | None

    @property
    def codes(self) -> Codes:
        """Level of every row; distinct numbers count as levels."""
        return np.unique(self.values, return_inverse=True)[1] if self.levels is None else self.values.astype(np.int64)

    @property
    def labels(self) -> tuple[Any, ...]:
        """What the levels are called."""
        return tuple(np.unique(self.values).tolist()) if self.levels is None else self.levels


def column_of(fit: Any, name: str, argument: str) -> Column:
    """A column that the model of a fit or a posterior reads, or one of its grouping factors (`batch:cask` too).

    Raises SpecificationError for another name.
    """
    for term in fit.design.terms:
        if term.group.name == name:
            return Column(name, term.group.codes.astype(float), tuple(term.group.levels.tolist()))
    frame = fit.design.own_frame.copy
    if name not in frame.columns:
        near = get_close_matches(str(name), [str(c) for c in frame.columns], 1)
        remedy = f"did you mean {near[0]!r}?" if near else "use one of " + ", ".join(map(str, frame.columns[:12]))
        raise SpecificationError(f"the data of the fit have no column {name!r}", argument, remedy)
    return as_column(name, frame[name])


def as_column(name: str, series: pd.Series[Any]) -> Column:
    """Numbers as they are, everything else by its levels: categories in their order, others sorted."""
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        return Column(name, series.to_numpy(float), None)
    if isinstance(series.dtype, pd.CategoricalDtype):
        present = [level for level in series.cat.categories if (series == level).any()]
    else:
        present = sorted(series.astype(str).unique())
        series = series.astype(str)
    places = {level: float(i) for i, level in enumerate(present)}
    return Column(name, np.array([places[value] for value in series]), tuple(present))
