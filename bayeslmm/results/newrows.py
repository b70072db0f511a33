"""Rows to predict, encoded as the fit encoded its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.frame import Table, read_table
from bayeslmm.data.weights import given_numbers
from bayeslmm.errors import PredictionError

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates

SHOWN = 8
"""Levels and rows that a message lists."""

ESTIMABLE = 1e-7
"""Largest difference, relative to the column's size, between an aliased column and its combination of kept ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to predict.

    X : (n, p) columns kept; offset : (n,) or None; Zs, codes : per term, empty where the rows have no grouping columns
    codes are -1 where a level is new or missing; `missing` marks rows that cannot be predicted: their values are 0
    """

    index: pd.Index[Any]
    X: Array
    offset: Array | None
    Zs: tuple[Array, ...]
    codes: tuple[Codes, ...]
    missing: NDArray[np.bool_]


def own_rows(fit: Estimates) -> Rows:
    """The rows of the fit."""
    design = fit.design
    Zs, codes = tuple(t.Z for t in design.terms), tuple(t.group.codes for t in design.terms)
    return Rows(design.index, design.X, design.offset, Zs, codes, np.zeros(design.nobs, bool))


def new_rows(fit: Estimates, newdata: Any, *, level: str, new_levels: str, offset: Any) -> Rows:
    """Rows of any frame. Raises PredictionError for what the fit does not know."""
    encoding, design = fit.design.encoding, fit.design
    table = read_table(newdata, ())
    index = table.frame.index if isinstance(newdata, pd.DataFrame) else pd.RangeIndex(len(table))
    X_all, _ = encoding.fixed(newdata)
    missing = np.isnan(X_all).any(axis=1)
    if design.aliased:
        _demand_estimable(fit, X_all, missing)
    shift = encoding.offset(newdata)
    if fit.model.given_offset:
        shift = _given_offset(offset, table, shift)
    if shift is not None:
        missing |= np.isnan(shift)
    Zs: tuple[Array, ...] = ()
    codes: tuple[Codes, ...] = ()
    if design.terms and (level == "conditional" or _has_levels(table, fit)):
        Zs, codes = zip(*encoding.random(newdata), strict=True)
        for Z in Zs:
            missing |= np.isnan(Z).any(axis=1)
        if level == "conditional":
            missing |= _settle_levels(fit, newdata, codes, new_levels)
    zero = missing[:, None]
    X = np.where(zero, 0.0, X_all[:, list(design.kept)])
    return Rows(
        index, X, None if shift is None else np.where(missing, 0.0, shift), tuple(np.where(zero, 0.0, Z) for Z in Zs), codes, missing
    )


def _has_levels(table: Table, fit: Estimates) -> bool:
    """Predictions of the population need no grouping columns; a prediction interval takes Z where it can be had."""
    coders = fit.design.encoding.random_coders
    return all(name in table.names for coder in coders for name in (*coder.block.columns, *coder.group.factor.columns))


def _settle_levels(fit: Estimates, newdata: Any, codes: Sequence[Codes], new_levels: str) -> NDArray[np.bool_]:
    """Rows whose level is missing; raises for levels that the fit has not seen unless they may be new."""
    missing = np.zeros(len(codes[0]), bool)
    for i, code in enumerate(codes):
        if not (code < 0).any():
            continue
        labels = fit.design.encoding.labels(newdata, i)
        absent = np.array([label is None for label in labels])
        missing |= absent
        unseen = (code < 0) & ~absent
        if unseen.any() and new_levels == "error":
            names = list(dict.fromkeys(labels[unseen].tolist()))
            shown = ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            what = f"{len(names)} levels of {fit.design.terms[i].group.name!r} are not known to the fit: {shown}"
            remedy = 'new_levels="population" gives them their expected effect, 0; observed=True learns from outcomes of theirs'
            raise PredictionError(what, f"rows {listed(np.flatnonzero(unseen))}", remedy)
    return missing


def _given_offset(offset: Any, table: Table, shift: Array | None) -> Array:
    if offset is None:
        raise PredictionError(
            "the model's offset was given as an array, which new data do not have",
            remedy="give `offset=` with one number per row of newdata, or fit with the offset as a column",
        )
    values = given_numbers(offset, "offset", table)
    return values if shift is None else values + shift


def _demand_estimable(fit: Estimates, X: Array, missing: NDArray[np.bool_]) -> None:
    """Raise for rows in which an aliased column is not the combination of kept columns that it was in the data of the fit."""
    design = fit.design
    trained, names = design.encoding.fixed(design.frame)
    kept = list(design.kept)
    lost = [i for i in range(len(names)) if i not in set(kept)]
    weights = np.linalg.lstsq(trained[:, kept], trained[:, lost], rcond=None)[0]
    gap = np.abs(X[:, lost] - X[:, kept] @ weights)
    size = np.abs(X[:, lost]) + np.abs(X[:, kept]) @ np.abs(weights)
    bad = (gap > ESTIMABLE * np.maximum(size, 1e-300)).any(axis=1) & ~missing
    if bad.any():
        raise PredictionError(
            f"{int(bad.sum())} rows are not estimable: the data of the fit could not tell {', '.join(design.aliased)} from others",
            f"rows {listed(np.flatnonzero(bad))}",
            "predict rows with combinations that occur in the data of the fit, or drop the aliased columns from the formula",
        )


def listed(rows: Codes) -> str:
    """Some row numbers as a message shows them."""
    shown = ", ".join(str(int(row)) for row in rows[:SHOWN])
    return shown + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
