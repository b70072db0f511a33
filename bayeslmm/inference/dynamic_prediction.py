"""Dynamic prediction: subjects that the fit has never seen, given the outcomes that they have shown so far.

Covariance parameters and sigma are held at those of the fit. The observed outcomes of new levels are added to its rows, and everything else
(fixed effects, random effects, errors that are correlated over visits) is what it is given all outcomes together. Outcomes of levels that
the fit knows are not read again: they are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes
from bayeslmm._types import IntervalKind
from bayeslmm._validation import require_one_of
from bayeslmm.data.columns import series_numbers
from bayeslmm.data.design import Design
from bayeslmm.data.frame import read_table
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import PredictionError
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.prediction import conditional_modes, linear_predictors, row_variances
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.structured.prediction import ResidualIndex, subject_rows
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.predict import (
    NewData,
    encode_new_rows,
    new_effects,
    new_residual_index,
    prediction_frame,
    row_labels,
    two_sided_quantile,
)


@dataclass(frozen=True, slots=True, eq=False)
class _ExtendedRows:
    """Rows to predict with codes among all levels, and the problem of the fit's rows and the observed new ones."""

    rows: NewData
    codes: tuple[Codes, ...]
    place: ResidualIndex | None
    problem: Problem
    point: CriterionPoint
    weights: Array


def predict_dynamic(
    fit: Estimates, newdata: Any, interval: str | None = None, conf_level: float = 0.95, *, offset: Any = None
) -> pd.DataFrame:
    """Predictions of new subjects given their observed outcomes, row for row: `estimate[, std_error, conf_low, conf_high]`.

    newdata : rows of any subjects with the columns of the model; the response where it was observed, missing where it is to come
    interval : "confidence" for the mean, "prediction" for a new outcome; under structured errors an observed outcome is its own

    Raises PredictionError for what the fit cannot encode, and for a variance function of the fitted value.

    >>> new = pd.DataFrame({"Subject": ["new"] * 3, "Days": [0, 1, 9], "Reaction": [300.0, 310.0, None]})
    >>> bool(predict_dynamic(fit, new)["estimate"][2] > fit.predict(new, level="population")["estimate"][2])
    True
    """
    if interval is not None:
        require_one_of(interval, get_args(IntervalKind), "interval")
    _require_possible(fit)
    found = _extend_rows(fit, newdata, offset)
    estimate, mean, outcome = _predict_structured(found) if fit.problem.structured is not None else _independent(found)
    unseen = new_effects(fit, replace(found.rows, codes=found.codes), conditional=True)
    columns = {"estimate": estimate}
    if interval is not None:
        error = np.sqrt(np.maximum(mean if interval == "confidence" else outcome + unseen, 0.0))
        half = two_sided_quantile(conf_level) * error
        columns |= {"std_error": error, "conf_low": estimate - half, "conf_high": estimate + half}
    return prediction_frame(columns, found.rows)


def _require_possible(fit: Estimates) -> None:
    residual = fit.design.residual
    if fit.problem.held_fitted is not None:
        raise PredictionError(
            "a variance function of the fitted value cannot be held while outcomes are added", "variance=", "use fit.predict"
        )
    if residual is not None and residual.visit is not None and not residual.spec.visit:
        raise PredictionError("visits are the order of the rows", "residual=", "name a column for the visit: ar1(visit | subject)")
    if any(term.relationship is not None for term in fit.design.terms):
        raise PredictionError("new levels have no place in a relationship matrix", "relationship=", "fit again with a matrix that has them")


def _independent(found: _ExtendedRows) -> tuple[Array, Array, Array]:
    rows, problem = found.rows, found.problem
    estimate = _mean(found)
    for Z, codes, modes in zip(rows.Zs, found.codes, conditional_modes(problem, found.point), strict=True):
        estimate = estimate + np.where(codes >= 0, np.einsum("nq,nq->n", Z, modes[codes]), 0.0)
    mean = row_variances(problem, found.point, rows.X, rows.Zs, found.codes)
    return estimate, mean, mean + problem.sigma2(found.point.sigma2) / found.weights


def _predict_structured(found: _ExtendedRows) -> tuple[Array, Array, Array]:
    gained, outcome, mean = subject_rows(found.problem, found.point, found.rows.X, found.rows.Zs, found.codes, found.place)
    if found.problem.design.residual is None:
        mean = subject_rows(found.problem, found.point, found.rows.X, found.rows.Zs, found.codes, None)[1]
    return _mean(found) + gained, mean, outcome


def _mean(found: _ExtendedRows) -> Array:
    assert found.point.state is not None
    values = linear_predictors(found.problem, found.point, found.rows.X, found.problem.alpha(found.point.state.solution.alpha[0]))
    return values if found.rows.offset is None else values + found.rows.offset


# -- the rows of the fit and those observed since ------------------------------------------------------------------------------------------


def _extend_rows(fit: Estimates, newdata: Any, offset: Any) -> _ExtendedRows:
    design = fit.design
    rows = encode_new_rows(fit, newdata, level="conditional" if design.terms else "population", new_levels="population", offset=offset)
    y = _outcomes(fit, newdata, len(rows.X))
    subject = _subject_labels(fit, newdata, len(rows.X))
    labels = [design.encoding.labels(newdata, i) for i in range(len(design.terms))]
    new = np.zeros(len(y), bool)
    for term, own in zip(design.terms, labels, strict=True):
        new |= ~np.isin(own.astype(str), term.group.levels.astype(str))
    if design.residual is not None:
        new |= ~np.isin(subject.astype(str), design.residual.subject.levels.astype(str))
    added = np.flatnonzero(np.isfinite(y) & new & ~rows.missing)
    without = rows.X @ fit.fixef_kept
    place, absent = new_residual_index(fit, newdata, without) if fit.problem.structured is not None else (None, np.zeros(len(y), bool))
    added = added[~absent[added]]
    groups = [_grow(term.group, own, added) for term, own in zip(design.terms, labels, strict=True)]
    residual = None if design.residual is None else _grow(design.residual.subject, subject, added)
    weights = _weights(fit, newdata, len(y))
    whole = _stack(design, rows, y, weights, added, groups, residual, place)
    problem = build_problem(whole)
    x = problem.x(fit.estimate.theta)
    point = problem.criterion.at(x, fit.restricted, order=1)
    if point.state is None:
        what = "the outcomes observed have a singular covariance: a new subject has a visit, or a place, more than once"
        raise PredictionError(what, ", ".join(sorted(set(subject[added].astype(str)))), "keep one row for each visit of a subject")
    point = replace(point, sigma2=fit.estimate.sigma**2 / problem.sigma2(1.0))
    codes = tuple(_codes(group, own) for group, own in zip(groups, labels, strict=True))
    if place is not None and residual is not None:
        place = replace(place, later=None, subject=_codes(residual, subject), log_scale=_relative(place.log_scale, fit.problem, problem))
    return _ExtendedRows(replace(rows, missing=rows.missing | absent), codes, place, problem, point, weights)


def _relative(log_scale: Array, before: Problem, after: Problem) -> Array:
    """log S of new rows, which counts weights from their mean over the rows of a problem."""
    return np.asarray(log_scale + 0.5 * np.log(after.standardization.weight_mean / before.standardization.weight_mean))


def _outcomes(fit: Estimates, newdata: Any, n: int) -> Array:
    """The response of new rows, NaN where it is missing or there is no such column."""
    names = set(read_table(newdata, ()).names)
    return fit.design.encoding.response(newdata) if set(fit.design.encoding.response_atom.columns) <= names else np.full(n, np.nan)


def _subject_labels(fit: Estimates, newdata: Any, n: int) -> NDArray[np.object_]:
    residual = fit.design.residual
    if residual is None:
        return np.array([None] * n, dtype=object)
    found = np.empty(n, dtype=object)
    found[:] = row_labels(read_table(newdata, residual.spec.subject), residual.spec.subject, n)
    return found


def _grow(factor: GroupingFactor, labels: NDArray[np.object_], added: Codes) -> GroupingFactor:
    """The factor with the new levels of the rows added, and their codes behind its own."""
    known = {str(level): i for i, level in enumerate(factor.levels)}
    extra = []
    for label in labels[added]:
        if str(label) not in known:
            known[str(label)] = len(known)
            extra.append(label)
    levels = np.empty(len(known), dtype=object)
    levels[: factor.size] = factor.levels
    levels[factor.size :] = extra
    codes = np.concatenate([factor.codes, [known[str(label)] for label in labels[added]]])
    return replace(factor, levels=levels, codes=freeze_codes(codes))


def _codes(factor: GroupingFactor, labels: NDArray[np.object_]) -> Codes:
    known = {str(level): i for i, level in enumerate(factor.levels)}
    return np.array([known.get(str(label), -1) for label in labels], dtype=np.int64)


def _weights(fit: Estimates, newdata: Any, n: int) -> Array:
    """Prior weights of new rows on the scale of the design; 1 where there are none."""
    name = fit.design.spec.weights
    if fit.design.weights is None or name is None or name not in read_table(newdata, ()).names:
        return np.full(n, 1.0 / fit.design.weight_scale)
    return np.asarray(series_numbers(read_table(newdata, (name,)).series(name), name).values / fit.design.weight_scale)


def _stack(
    design: Design,
    rows: NewData,
    y: Array,
    weights: Array,
    added: Codes,
    groups: Sequence[GroupingFactor],
    subject: GroupingFactor | None,
    place: ResidualIndex | None,
) -> Design:
    """The design of the fit with rows added."""

    def both(own: Array | None, more: Array | None) -> Array | None:
        return None if own is None or more is None else freeze(np.concatenate([own, more[added]]))

    terms = tuple(
        replace(term, group=group, Z=freeze(np.concatenate([term.Z, Z[added]])))
        for term, group, Z in zip(design.terms, groups, rows.Zs, strict=True)
    )
    residual = design.residual
    if residual is not None and subject is not None and place is not None:
        residual = residual if place.later is None else place.later.residual(residual)
        group = residual.group
        residual = replace(
            residual,
            subject=subject,
            visit=_join(residual.visit, place.place, added),
            coords=both(residual.coords, place.coords) if residual.visit is None else None,
            group=None if group is None else replace(group, codes=freeze_codes(np.concatenate([group.codes, place.group[added]]))),
        )
    variance = design.variance
    if variance and len(added):
        raise PredictionError("outcomes cannot be added to a model with a variance function", "variance=", "use fit.predict")
    return replace(
        design,
        y=freeze(np.concatenate([design.y, y[added]])),
        X=freeze(np.concatenate([design.X, rows.X[added]])),
        near=None if design.near is None else design.near.extend(rows.X[added]),
        near_all=None,
        weights=both(design.weights, weights),
        offset=both(design.offset, rows.offset),
        terms=terms,
        residual=residual,
        notes=(),
    )


def _join(own: Codes | None, more: Codes | None, added: Codes) -> Codes | None:
    return None if own is None or more is None else freeze_codes(np.concatenate([own, more[added]]))
