"""The rows used: complete cases with positive weight; weights, offsets, and the columns that a specification reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, Mask, fill_mask
from bayeslmm.covariance.registry import is_spatial
from bayeslmm.data.columns import Columns, series_numbers
from bayeslmm.data.expressions import Atom, read_atom
from bayeslmm.data.frame import ColumnTable, rows_text
from bayeslmm.data.model_matrix import atoms_of
from bayeslmm.errors import DataError, EmptyDataError, MissingDataError, NonFiniteError
from bayeslmm.formula.syntax import Formula, ResidualTerm, VarianceFactor


@dataclass(frozen=True, slots=True, eq=False)
class UsedRows:
    """positions : of the rows kept, None for all; dropped : column -> rows that it cost."""

    positions: Codes | None
    dropped: dict[str, int]


def complete_cases(
    source: Columns, roles: Iterable[tuple[str, bool]], extra: dict[str, Mask], weights: Array | None, weights_name: str, missing: str
) -> UsedRows:
    """The rows that are kept.

    roles : columns that the model reads, and whether as a factor
    extra : masks of what was given beside the data, such as an offset array
    Errors: `MissingDataError` under missing="raise"; `EmptyDataError` when nothing is left, naming the column that emptied the data.
    """
    rows = len(source.table)
    if rows == 0:
        raise no_data_error()
    kept = complete_cases_of_part(source, roles, extra, weights, weights_name, missing)
    if kept.positions is not None and not len(kept.positions):
        raise no_rows_error(kept.dropped, rows)
    return kept


def no_data_error(source: str = "the data") -> EmptyDataError:
    """That there are no rows at all."""
    return EmptyDataError(f"{source} have no rows", "", "give data with at least one row per parameter")


def missing_values_error(name: str, rows: str) -> MissingDataError:
    """That a column has gaps which the model may not leave out."""
    return MissingDataError(f"column {name!r} holds missing values", rows, 'fill or drop them, or use missing="drop"')


def weights_error(name: str, kind: str, rows: str) -> DataError:
    """That weights are missing or negative."""
    return DataError(f"{name!r} holds {kind} weights", rows, "drop these rows, or give weights of 0 to leave them out")


def complete_cases_of_part(
    source: Columns, roles: Iterable[tuple[str, bool]], extra: dict[str, Mask], weights: Array | None, weights_name: str, missing: str
) -> UsedRows:
    """`complete_cases` of a part of the data, of which nothing may be left."""
    rows = len(source.table)
    masks = {name: mask for name, as_factor in roles if (mask := source.missing_mask(name, as_factor=as_factor)) is not None}
    masks |= {name: mask for name, mask in extra.items() if mask.any()}
    if masks and missing == "raise":
        name, mask = next(iter(masks.items()))
        raise missing_values_error(name, rows_text(np.flatnonzero(mask)))
    if weights is not None and not weights.all():
        masks[weights_name] = masks.get(weights_name, np.zeros(rows, dtype=bool)) | (weights == 0)
    if not masks:
        return UsedRows(None, {})
    dropped = {name: int(mask.sum()) for name, mask in masks.items()}
    return UsedRows(np.flatnonzero(~np.logical_or.reduce(list(masks.values()))), dropped)


def no_rows_error(dropped: dict[str, int], rows: int) -> EmptyDataError:
    """The error for data of which nothing is left."""
    worst = max(dropped, key=lambda name: dropped[name])
    counts = ", ".join(f"{name}: {count} of {rows}" for name, count in dropped.items())
    return EmptyDataError(
        f"no row is left: column {worst!r} empties the data",
        f"missing values (or weights of 0): {counts}",
        "fill the column, or leave it out",
    )


_LARGE = 2.0**60  # weights beyond this, or below its inverse, are brought near 1: squares of residuals times 1e300 overflow

_RANGE = 1e30  # of weights, beyond which the small ones are lost beside the large


def numbers_by_position(values: Any, name: str, table: ColumnTable) -> Array:
    """(n,) numbers given beside the data, by position.

    Errors: `DataError` for another length, text, or a Series whose index is not that of the data.
    """
    if isinstance(values, pd.Series):
        if not values.index.equals(table.frame.index):
            raise DataError(
                f"{name} is a Series with another index than the data",
                f"{len(values)} values for {len(table)} rows",
                f"they are matched by position: put them into the data as a column, or give {name}.to_numpy()",
            )
        series = values
    else:
        array = np.asarray(fill_mask(values))
        if array.ndim != 1:
            raise DataError(f"{name} has {array.ndim} dimensions", "", "give one number per row")
        series = pd.Series(array, name=name)
    if len(series) != len(table):
        raise DataError(f"{name} has {len(series)} values for {len(table)} rows", "", "give one number per row of the data")
    return series_numbers(series, name).values


def read_weights(column: str | None, values: Any, source: Columns) -> Array | None:
    """(n,) prior weights over all rows, or None.

    Errors: `DataError` with the rows of negative or missing weights, `NonFiniteError` of infinite ones.
    """
    if values is None and column is None:
        return None
    name = "weights" if column is None else column
    weights = (
        source.read_numbers(name).values if values is None and column is not None else numbers_by_position(values, "weights", source.table)
    )
    for wrong, what in ((np.isnan(weights), "missing"), (weights < 0, "negative")):
        if wrong.any():
            raise weights_error(name, what, rows_text(np.flatnonzero(wrong)))
    positive = weights[weights > 0]
    if len(positive) and positive.max() / _RANGE > positive.min():
        raise DataError(
            f"{name!r} holds weights from {positive.min():g} to {positive.max():g}",
            f"smallest in {rows_text(np.flatnonzero(weights == positive.min()))}",
            "give weights within 30 orders of magnitude, or 0 to leave rows out",
        )
    return weights


def scale_weights(weights: Array | None) -> tuple[Array | None, float]:
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


def check_finite_offset(values: NDArray[np.float64], name: str) -> None:
    """Refuse an offset that is not finite where it is not missing."""
    bad = np.isinf(values)
    if bad.any():
        raise NonFiniteError(f"{name} is infinite", rows_text(np.flatnonzero(bad)), "give finite numbers")


@dataclass(frozen=True, slots=True, eq=False)
class ColumnPlan:
    """response, offsets : their atoms; columns : every column of the data that the model reads, the response first.

    numbers, factors : columns that are read as such whatever they are; natural : columns whose kind decides
    """

    response: Atom
    offsets: tuple[Atom, ...]
    columns: tuple[str, ...]
    natural: tuple[str, ...]
    numbers: tuple[str, ...]
    factors: tuple[str, ...]

    def roles(self, source: Columns) -> Iterator[tuple[str, bool]]:
        """Each column and whether it is read as a factor."""
        for name in self.numbers:
            yield name, False
        for name in self.factors:
            yield name, True
        for name in self.natural:
            yield name, source.is_factor(name)


@lru_cache(maxsize=256)
def plan_columns(
    formula: Formula,
    residual: ResidualTerm | None,
    variance: tuple[VarianceFactor, ...],
    row_columns: tuple[str, ...],
) -> ColumnPlan:
    """The plan of a model.

    row_columns : names of the weights and offset columns, where there are such
    """
    response = read_atom(formula.response.strip())
    offsets = tuple(read_atom(text.strip()) for text in formula.offsets)
    atoms = [atom for terms in (formula.terms, *(term.terms for term in formula.random)) for atom in atoms_of(terms).values()]
    natural = _unique(name for atom in (*atoms, *offsets) if atom.kind != "coding" for name in atom.columns)
    coded = [name for atom in atoms if atom.kind == "coding" for name in atom.columns]
    grouped = [name for term in formula.random for name in term.group]
    numbers, strata = _of_errors(residual, variance)
    visits = () if residual is None or is_spatial(residual.structure) else residual.visit
    factors = _unique((*coded, *grouped, *strata))
    return ColumnPlan(
        response=response,
        offsets=offsets,
        columns=_unique((*response.columns, *natural, *visits, *factors, *numbers, *row_columns)),
        natural=_unique((*natural, *visits)),
        numbers=_unique((*response.columns, *numbers, *row_columns)),
        factors=factors,
    )


def _of_errors(residual: ResidualTerm | None, variance: tuple[VarianceFactor, ...]) -> tuple[list[str], list[str]]:
    """Columns that the residual structure and the variance function read as numbers, and as factors."""
    numbers = [factor.covariate for factor in variance if factor.kind != "ident" and factor.covariate != "fitted"]
    factors = [name for factor in variance for name in ((factor.covariate,) if factor.kind == "ident" else ()) + factor.group]
    if residual is not None:
        factors += [*residual.subject, *residual.group]
        numbers += residual.visit if is_spatial(residual.structure) else ()
    return numbers, factors


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
