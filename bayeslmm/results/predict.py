"""Predictions for any rows: of the population, or given what the fit knows of their levels and subjects."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.data.columns import numbers
from bayeslmm.data.frame import read_table
from bayeslmm.errors import BayesLMMWarning, SpecificationError
from bayeslmm.likelihood.prediction import row_variances
from bayeslmm.likelihood.residuals import residual_sds
from bayeslmm.likelihood.subjects_prediction import ResidualPlace, subject_rows
from bayeslmm.results.newrows import Rows, listed, new_rows, own_rows
from bayeslmm.results.places import new_place, own_place
from bayeslmm.results.rows import conditional, demand_one_of, population
from bayeslmm.results.tidy import quantile

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Estimates, the variance of the estimated mean, and that of a new observation about it, (n,) each."""

    estimate: Array
    mean: Array
    outcome: Array


def predict(
    fit: Estimates, newdata: Any, *, level: str, interval: str | None, conf_level: float, new_levels: str, offset: Any
) -> pd.DataFrame:
    """`estimate[, std_error, conf_low, conf_high]`, row for row."""
    demand_one_of(level, ("conditional", "population"), "level")
    demand_one_of(new_levels, ("error", "population"), "new_levels")
    if interval is not None:
        demand_one_of(interval, ("confidence", "prediction"), "interval")
    if offset is not None and (newdata is None or not fit.model.given_offset):
        what = "offset= is for new data of a model whose offset was given as an array"
        remedy = "leave it out: the offset is known" if newdata is None else "leave it out, or put it into the formula"
        raise SpecificationError(what, "offset", remedy)
    rows = own_rows(fit) if newdata is None else new_rows(fit, newdata, level=level, new_levels=new_levels, offset=offset)
    if fit.problem.structured is not None:
        rows, found = _structured(fit, rows, newdata, level=level, interval=interval)
    else:
        found = _independent(fit, rows, newdata, level=level, interval=interval)
    columns = {"estimate": found.estimate}
    if interval is not None:
        error = np.sqrt(np.maximum(found.mean if interval == "confidence" else found.outcome, 0.0))
        half = quantile(conf_level) * error
        columns |= {"std_error": error, "conf_low": found.estimate - half, "conf_high": found.estimate + half}
    return table(columns, rows)


def table(columns: dict[str, Array], rows: Rows, above: int = 4) -> pd.DataFrame:
    """The columns beside the index of the rows, NaN in those that miss values, with a warning; above : frames up to the user's."""
    out = pd.DataFrame(columns, index=rows.index)
    if rows.missing.any():
        out.iloc[np.flatnonzero(rows.missing)] = np.nan
        count = int(rows.missing.sum())
        have = "a row has missing values and is" if count == 1 else f"{count} rows have missing values and are"
        what = f"{have} predicted as NaN"
        where = f"rows {listed(np.flatnonzero(rows.missing))}"
        warnings.warn(BayesLMMWarning(what, where, "fill the missing values, or drop these rows"), stacklevel=above)
    return out


def demand_outcomes(newdata: Any, level: str) -> None:
    """Refuse to learn from outcomes where there are none to learn from, or where they would not be used."""
    if newdata is None:
        raise SpecificationError("the outcomes of the fit's own rows are in it", "observed", "give newdata, or leave observed out")
    if level != "conditional":
        what = "a prediction of the population is given no outcomes"
        raise SpecificationError(what, f"level={level!r:.40}, observed", 'use level="conditional"')


# -- independent errors --------------------------------------------------------------------------------------------------------------------


def _independent(fit: Estimates, rows: Rows, newdata: Any, *, level: str, interval: str | None) -> Predicted:
    given = level == "conditional"
    if newdata is None:
        estimate = conditional(fit) if given else population(fit)
    else:
        estimate = _through_modes(fit, rows) if given else _mean(fit, rows)
    if interval is None:
        return Predicted(estimate, estimate, estimate)
    if given and any((code >= 0).any() for code in rows.codes):
        mean = row_variances(fit.problem, fit.point, rows.X, rows.Zs, rows.codes)
    else:
        mean = _population_variance(fit, rows)
    sds = residual_sds(fit.problem, fit.point) if newdata is None else _new_sds(fit, newdata, len(rows.X))
    return Predicted(estimate, mean, mean + _new_effects(fit, rows, given=given) + sds**2)


def _mean(fit: Estimates, rows: Rows) -> Array:
    values = rows.X @ fit.fixef_kept
    return values if rows.offset is None else values + rows.offset


def _through_modes(fit: Estimates, rows: Rows) -> Array:
    """The mean and z'beta of the levels that the fit knows."""
    values = _mean(fit, rows)
    for Z, codes, beta in zip(rows.Zs, rows.codes, fit.modes, strict=True):
        values = values + np.where(codes >= 0, np.einsum("nq,nq->n", Z, beta[codes]), 0.0)
    return values


def _population_variance(fit: Estimates, rows: Rows) -> Array:
    return np.asarray(np.einsum("np,pq,nq->n", rows.X, fit.vcov_kept, rows.X))


def _new_effects(fit: Estimates, rows: Rows, *, given: bool) -> Array:
    """z' D z of the terms whose level is new, or of all terms where none is given."""
    total = np.zeros(len(rows.X))
    for Z, codes, D in zip(rows.Zs, rows.codes, fit.covariances, strict=bool(rows.Zs)):
        new = codes < 0 if given else np.ones(len(codes), bool)
        total += np.where(new, np.einsum("na,ab,nb->n", Z, D, Z), 0.0)
    return total


def _new_sds(fit: Estimates, newdata: Any, n: int) -> Array:
    """sigma, or sigma / sqrt(w) where the model's weights are a column that the new data have."""
    name = fit.design.spec.weights
    if name is None or name not in read_table(newdata, ()).names:
        return np.full(n, fit.sigma)
    weights = numbers(read_table(newdata, (name,)).series(name), name).values
    with np.errstate(divide="ignore"):
        return np.asarray(fit.sigma / np.sqrt(weights))


# -- structured errors ------------------------------------------------------------------------------------------------------------------


def _structured(fit: Estimates, rows: Rows, newdata: Any, *, level: str, interval: str | None) -> tuple[Rows, Predicted]:
    """Given the subject's observed outcomes: what was observed is returned as it is, and the variance of the mean is alpha's alone."""
    given = level == "conditional"
    if not given and interval != "prediction":
        return rows, Predicted(_mean(fit, rows), variance := _population_variance(fit, rows), variance)
    place, rows = _placed(fit, rows, newdata)
    known = rows.codes if rows.codes else tuple(np.full(len(rows.X), -1) for _ in fit.design.terms)
    Zs = rows.Zs if rows.Zs else tuple(np.zeros((len(rows.X), len(D))) for D in fit.covariances)
    if not given:
        nowhere = tuple(np.full(len(rows.X), -1) for _ in known)
        alone = replace(place, subject=np.full(len(rows.X), -1))
        outcome = subject_rows(fit.problem, fit.point, rows.X, Zs, nowhere, alone)[1]
        return rows, Predicted(_mean(fit, rows), _population_variance(fit, rows), outcome + _new_effects(fit, rows, given=False))
    gained, outcome, mean = subject_rows(fit.problem, fit.point, rows.X, Zs, known, place)
    if fit.design.residual is None and interval == "confidence":
        mean = subject_rows(fit.problem, fit.point, rows.X, Zs, known, None)[1]
    return rows, Predicted(_mean(fit, rows) + gained, mean, outcome + _new_effects(fit, rows, given=True))


def _placed(fit: Estimates, rows: Rows, newdata: Any) -> tuple[ResidualPlace, Rows]:
    if newdata is None:
        return own_place(fit), rows
    without = _through_modes(fit, rows) if rows.codes else _mean(fit, rows)
    place, missing = new_place(fit, newdata, without if rows.offset is None else without - rows.offset)
    return place, replace(rows, missing=rows.missing | missing)
