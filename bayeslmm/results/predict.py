"""Predictions for any rows: of the population, of the levels that the fit knows, with standard errors and intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.columns import numbers
from bayeslmm.data.frame import read_table
from bayeslmm.data.weights import given_numbers
from bayeslmm.errors import BayesLMMWarning, PredictionError
from bayeslmm.likelihood.prediction import row_variances
from bayeslmm.likelihood.residuals import residual_sds
from bayeslmm.results.rows import conditional, demand_one_of, population
from bayeslmm.results.tidy import quantile

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates

SHOWN = 8
"""Levels and rows that a message lists."""

ESTIMABLE = 1e-7
"""Largest difference, relative to the column's size, between an aliased column and its combination of kept ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to predict, encoded.

    fixed : (n,) X alpha + offset; X : (n, p) columns kept; Zs, codes : per term; sds : (n,) residual sd
    codes are -1 where a level is new (and may be) or missing; `missing` marks rows that cannot be predicted
    """

    index: pd.Index[Any]
    X: Array
    offset: Array | None
    Zs: tuple[Array, ...]
    codes: tuple[Codes, ...]
    sds: Array
    missing: NDArray[np.bool_]


def predict(
    fit: Estimates, newdata: Any, *, level: str, interval: str | None, conf_level: float, new_levels: str, offset: Any
) -> pd.DataFrame:
    """`estimate[, std_error, conf_low, conf_high]`, row for row."""
    demand_one_of(level, ("conditional", "population"), "level")
    demand_one_of(new_levels, ("error", "population"), "new_levels")
    if interval is not None:
        demand_one_of(interval, ("confidence", "prediction"), "interval")
    if newdata is None:
        rows, estimate = _own_rows(fit), conditional(fit) if level == "conditional" else population(fit)
    else:
        rows = _new_rows(fit, newdata, level=level, new_levels=new_levels, offset=offset)
        estimate = _estimate(fit, rows, level)
    columns = {"estimate": estimate}
    if interval is not None:
        error = np.sqrt(_variance(fit, rows, level=level, prediction=interval == "prediction"))
        half = quantile(conf_level) * error
        columns |= {"std_error": error, "conf_low": estimate - half, "conf_high": estimate + half}
    out = pd.DataFrame(columns, index=rows.index)
    if rows.missing.any():
        out.loc[rows.missing] = np.nan
        where = f"rows {_listed(np.flatnonzero(rows.missing))}"
        warnings.warn(BayesLMMWarning(f"{int(rows.missing.sum())} rows have missing values and are predicted as NaN", where), stacklevel=3)
    return out


def _estimate(fit: Estimates, rows: Rows, level: str) -> Array:
    values = rows.X @ fit.fixef_kept
    if rows.offset is not None:
        values = values + rows.offset
    if level == "conditional":
        for Z, codes, beta in zip(rows.Zs, rows.codes, fit.modes, strict=True):
            values = values + np.where(codes >= 0, np.einsum("nq,nq->n", Z, beta[codes]), 0.0)
    return values


def _variance(fit: Estimates, rows: Rows, *, level: str, prediction: bool) -> Array:
    """Of what is estimated; with the variance of new effects and of the error for a prediction."""
    X = np.where(rows.missing[:, None], 0.0, rows.X)
    codes = rows.codes if level == "conditional" else tuple(np.full(len(X), -1) for _ in rows.codes)
    Zs = tuple(np.where(rows.missing[:, None], 0.0, Z) for Z in rows.Zs)
    if level == "conditional" and any((c >= 0).any() for c in codes):
        total = row_variances(fit.problem, fit.point, X, Zs, codes)
    else:
        total = np.einsum("np,pq,nq->n", X, fit.vcov_kept, X)
    if prediction:
        for Z, own, D in zip(Zs, codes, fit.covariances, strict=True):
            total = total + np.where(own < 0, np.einsum("na,ab,nb->n", Z, D, Z), 0.0)
        total = total + rows.sds**2
    return np.maximum(total, 0.0)


# -- rows --------------------------------------------------------------------------------------------------------------------------------


def _own_rows(fit: Estimates) -> Rows:
    design = fit.design
    Zs, codes = tuple(t.Z for t in design.terms), tuple(t.group.codes for t in design.terms)
    return Rows(design.index, design.X, design.offset, Zs, codes, residual_sds(fit.problem, fit.point), np.zeros(design.nobs, bool))


def _new_rows(fit: Estimates, newdata: Any, *, level: str, new_levels: str, offset: Any) -> Rows:
    encoding, design = fit.design.encoding, fit.design
    table = read_table(newdata, ())
    index = table.frame.index if isinstance(newdata, pd.DataFrame) else pd.RangeIndex(len(table))
    X_all, _ = encoding.fixed(newdata)
    missing = np.isnan(X_all).any(axis=1)
    X = X_all[:, list(design.kept)]
    if design.aliased:
        _demand_estimable(fit, X_all, missing)
    shift = encoding.offset(newdata)
    if fit.model.given_offset:
        shift = _given_offset(offset, table, shift)
    if shift is not None:
        missing |= np.isnan(shift)
    Zs: tuple[Array, ...] = ()
    codes: tuple[Codes, ...] = ()
    if design.terms and _needs_levels(newdata, fit, level):
        Zs, codes = zip(*encoding.random(newdata), strict=True)
        for Z in Zs:
            missing |= np.isnan(Z).any(axis=1)
        if level == "conditional":
            missing |= _settle_levels(fit, newdata, codes, new_levels)
    sds = _new_sds(fit, newdata, table, len(X))
    return Rows(index, X, shift, Zs, codes, sds, missing)


def _needs_levels(newdata: Any, fit: Estimates, level: str) -> bool:
    """Predictions of the population need no grouping columns; a prediction interval takes Z where it can be had."""
    if level == "conditional":
        return True
    present = read_table(newdata, ()).names
    coders = fit.design.encoding.random_coders
    return all(name in present for coder in coders for name in (*coder.block.columns, *coder.group.factor.columns))


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
            raise PredictionError(
                what, f"rows {_listed(np.flatnonzero(unseen))}", 'new_levels="population" gives them their expected effect, 0'
            )
    return missing


def _given_offset(offset: Any, table: Any, shift: Array | None) -> Array:
    if offset is None:
        raise PredictionError(
            "the model's offset was given as an array, which new data do not have",
            remedy="give `offset=` with one number per row of newdata, or fit with the offset as a column",
        )
    values = given_numbers(offset, "offset", table)
    return values if shift is None else values + shift


def _new_sds(fit: Estimates, newdata: Any, table: Any, n: int) -> Array:
    """sigma, or sigma / sqrt(w) where the model's weights are a column that the new data have."""
    name = fit.design.spec.weights
    if name is None or name not in table.names:
        return np.full(n, fit.sigma)
    weights = numbers(read_table(newdata, (name,)).series(name), name).values
    with np.errstate(divide="ignore"):
        return np.asarray(fit.sigma / np.sqrt(weights))


def _demand_estimable(fit: Estimates, X: Array, missing: NDArray[np.bool_]) -> None:
    """Rows in which an aliased column is the combination of kept columns that it was in the data of the fit; raises for others."""
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
            f"rows {_listed(np.flatnonzero(bad))}",
            "predict rows with combinations that occur in the data of the fit, or drop the aliased columns from the formula",
        )


def _listed(rows: Codes) -> str:
    shown = ", ".join(str(int(row)) for row in rows[:SHOWN])
    return shown + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
