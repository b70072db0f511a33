"""Where new rows stand in the errors: subject, visit or coordinates, group of parameters, and what multiplies sigma."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.columns import numbers
from bayeslmm.data.design import ResidualDesign, VarianceDesign
from bayeslmm.data.frame import Table, read_table
from bayeslmm.data.source import Columns
from bayeslmm.errors import PredictionError
from bayeslmm.likelihood.subjects_prediction import ResidualPlace
from bayeslmm.likelihood.variance_function import VarianceFunction
from bayeslmm.results.newrows import SHOWN, listed

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates


def own_place(fit: Estimates) -> ResidualPlace:
    """The rows of the fit."""
    kernel, residual, n = fit.problem.structured, fit.design.residual, fit.nobs
    assert kernel is not None
    log_scale = kernel.log_scale(fit.estimate.x)[0]
    scale = np.zeros(n) if log_scale is None else log_scale
    if residual is None:
        return ResidualPlace(np.full(n, -1), None, None, np.zeros(n, np.int64), scale)
    coords = None if residual.visit is not None else residual.coords
    group = np.zeros(n, np.int64) if residual.group is None else residual.group.codes
    return ResidualPlace(residual.subject.codes, residual.visit, coords, group, scale)


def new_place(fit: Estimates, newdata: Any, fitted: Array) -> tuple[ResidualPlace, NDArray[np.bool_]]:
    """New rows, and those of them whose place is missing.

    fitted : (n,) x'alpha + z'beta of the new rows, for a variance function of it

    Raises PredictionError for visits and groups of parameters that the fit does not have.
    """
    residual, n = fit.design.residual, len(fitted)
    missing = np.zeros(n, bool)
    log_scale = _log_weights(fit, newdata, n) + _log_multiplier(fit, newdata, fitted)
    if residual is None:
        return ResidualPlace(np.full(n, -1), None, None, np.zeros(n, np.int64), log_scale), missing
    term = residual.spec
    table = read_table(newdata, (*term.visit, *term.subject, *term.group))
    subject = _codes(row_labels(table, term.subject, n), residual.subject.levels)
    group = np.zeros(n, np.int64)
    if residual.group is not None:
        group = _demanded(row_labels(table, term.group, n), residual.group.levels, residual.group.name, missing)
    visit, coords = None, None
    if residual.visit is not None:
        visit = _visits(residual, table, subject, missing)
    elif residual.coords is not None:
        coords = np.column_stack([numbers(table.series(name), name).values for name in term.visit])
        missing |= np.isnan(coords).any(axis=1)
        coords = np.nan_to_num(coords)
    log_scale = np.where(np.isnan(log_scale), 0.0, log_scale)
    return ResidualPlace(subject, visit, coords, group, log_scale), missing


def _visits(residual: ResidualDesign, table: Table, subject: Codes, missing: NDArray[np.bool_]) -> Codes:
    if residual.spec.visit:
        labels = row_labels(table, residual.spec.visit, len(subject))
        return _demanded(labels, residual.visit_levels, ", ".join(residual.spec.visit), missing)
    # the visits are the order of the rows of a subject
    order = np.argsort(subject, kind="stable")
    ordered = subject[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty(len(subject), np.int64)
    place[order] = np.arange(len(subject)) - first
    beyond = place >= len(residual.visit_levels)
    if beyond.any():
        what = f"the fit has at most {len(residual.visit_levels)} rows of a subject, newdata have more"
        raise PredictionError(what, f"rows {listed(np.flatnonzero(beyond))}", "name a column for the visit in the residual structure")
    return place


def row_labels(table: Table, columns: Sequence[str], n: int) -> list[Any]:
    """The label of each row, as grouping factors and visits are labelled; None where it is missing."""
    if not columns:
        return ["1"] * n
    source = Columns(table)
    parts = []
    for name in columns:
        if source.kind(name) == "number":
            values = source.numbers(name)
            parts.append([None if np.isnan(v) else int(v) if float(v).is_integer() else float(v) for v in values])
        else:
            parts.append(list(source.values(name)))
    if len(parts) == 1:
        return parts[0]
    return [None if None in row else ":".join(map(str, row)) for row in zip(*parts, strict=True)]


def _codes(labels: Sequence[Any], levels: Iterable[Any]) -> Codes:
    known = {level: i for i, level in enumerate(levels)}
    return np.array([known.get(label, -1) for label in labels], dtype=np.int64)


def _demanded(labels: Sequence[Any], levels: Iterable[Any], name: str, missing: NDArray[np.bool_]) -> Codes:
    codes = _codes(labels, levels)
    absent = np.array([label is None for label in labels], dtype=bool)
    unseen = (codes < 0) & ~absent
    if unseen.any():
        new = list(dict.fromkeys(label for label, wrong in zip(labels, unseen, strict=True) if wrong))
        shown = ", ".join(map(repr, new[:SHOWN])) + (f" and {len(new) - SHOWN} more" if len(new) > SHOWN else "")
        what = f"{len(new)} levels of {name!r} are not known to the fit: {shown}"
        raise PredictionError(
            what, f"rows {listed(np.flatnonzero(unseen))}", "use the levels of the fit: " + ", ".join(map(str, list(levels)[:SHOWN]))
        )
    missing |= absent
    return np.maximum(codes, 0)


def _log_weights(fit: Estimates, newdata: Any, n: int) -> Array:
    """-log(w)/2 on the scale of the kernel; weight 1 where the new data have none."""
    design, c = fit.design, fit.problem.conditioning
    if design.weights is None:
        return np.zeros(n)
    name, table = design.spec.weights, read_table(newdata, ())
    weights = numbers(read_table(newdata, (name,)).series(name), name).values if name is not None and name in table.names else np.ones(n)
    with np.errstate(divide="ignore"):
        return np.asarray(-0.5 * np.log(weights / (design.weight_scale * c.weight_mean)))


def _log_multiplier(fit: Estimates, newdata: Any, fitted: Array) -> Array:
    kernel = fit.problem.structured
    if kernel is None or not kernel.variance.size:
        return np.zeros(len(fitted))
    factors = tuple(_new_variance(factor, newdata) for factor in fit.design.variance)
    values = tuple(fitted if f.covariate is None and f.kind != "ident" else f.covariate for f in factors)
    return VarianceFunction(factors, values, len(fitted)).log_multiplier(fit.estimate.x[kernel.variance_part])[0]


def _new_variance(factor: VarianceDesign, newdata: Any) -> VarianceDesign:
    columns = ((factor.spec.covariate,) if factor.kind == "ident" else ()) + factor.spec.group
    covariate, strata = None, None
    if factor.covariate is not None:
        covariate = numbers(read_table(newdata, (factor.spec.covariate,)).series(factor.spec.covariate), factor.spec.covariate).values
    if columns:
        table = read_table(newdata, columns)
        labels = [None if label is None else str(label) for label in row_labels(table, columns, len(table))]
        strata = _demanded(labels, factor.labels, ":".join(columns), np.zeros(len(table), bool))
    return replace(factor, covariate=covariate, strata=strata)
