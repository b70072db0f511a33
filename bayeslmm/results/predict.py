"""Predictions for any rows: of the population, or given the levels and subjects that the fit knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import IntervalKind, Level, NewLevels
from bayeslmm._validation import require_level, require_one_of
from bayeslmm.covariance.registry import goes_on, keeps_distance
from bayeslmm.data.columns import Columns, series_numbers
from bayeslmm.data.design import Design, ResidualDesign, VarianceDesign, new_columns
from bayeslmm.data.frame import ColumnTable, read_table, values_text
from bayeslmm.data.residual import place_within, unequal_gaps
from bayeslmm.data.rows import numbers_by_position
from bayeslmm.errors import BayesLMMWarning, PredictionError, SpecificationError, show_value, warn_user
from bayeslmm.likelihood.identification import Aliases
from bayeslmm.likelihood.prediction import linear_predictors, row_variances
from bayeslmm.likelihood.structured.prediction import LaterVisits, ResidualIndex, subject_means, subject_rows
from bayeslmm.likelihood.structured.residual_covariance import residual_sds
from bayeslmm.likelihood.structured.residual_structure import VarianceFunction
from bayeslmm.results.fitted import population_mean
from bayeslmm.results.response_scale import response_options, scale_name

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates


SHOWN_LABELS = 8
"""Levels and rows that a message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class NewData:
    """Rows to predict.

    X : (n, p) columns kept; offset : (n,) or None; Zs, codes : per term, empty where nothing is asked of them
    codes are -1 where a level is new or missing; `missing` marks rows that cannot be predicted: their values are 0
    """

    index: pd.Index[Any]
    X: Array
    offset: Array | None
    Zs: tuple[Array, ...]
    codes: tuple[Codes, ...]
    missing: NDArray[np.bool_]


def fit_rows(fit: Estimates) -> NewData:
    """The rows of the fit."""
    design = fit.design
    Zs, codes = tuple(t.Z for t in design.terms), tuple(t.group.codes for t in design.terms)
    return NewData(design.index, design.X, design.offset, Zs, codes, np.zeros(design.nobs, bool))


def encode_new_rows(fit: Estimates, newdata: Any, *, level: str, new_levels: str, offset: Any, spread: bool = False) -> NewData:
    """Rows of any frame. Raises PredictionError for what the fit does not know.

    spread : whether the variance of random effects is asked for: of the population it needs Z, not the grouping columns
    """
    encoding, design = fit.design.encoding, fit.design
    source = new_columns(newdata, encoding.columns)
    table = source.table
    index = table.frame.index if isinstance(newdata, pd.DataFrame) else pd.RangeIndex(len(table))
    X_all, _ = encoding.encode_fixed(source)
    missing = ~np.isfinite(X_all).all(axis=1)
    if design.aliased:
        require_estimable_rows(fit, X_all, missing)
    shift = encoding.offset(source)
    if fit.model.given_offset:
        shift = _given_offset(offset, table, shift)
    if shift is not None:
        missing |= ~np.isfinite(shift)
    Zs: tuple[Array, ...] = ()
    codes: tuple[Codes, ...] = ()
    if design.terms and level == "conditional":
        _require_groups(fit, newdata, table)
        Zs, codes = zip(*encoding.random(source), strict=True)
        missing |= _settle_levels(fit, source, codes, new_levels)
    elif design.terms and spread:
        Zs = encoding.random_columns(source)
        codes = tuple(np.full(len(table), -1) for _ in Zs)
    for Z in Zs:
        missing |= ~np.isfinite(Z).all(axis=1)
    # of a wide X no copy is made that is not needed
    X = X_all if len(design.kept) == X_all.shape[1] else X_all[:, list(design.kept)]
    if missing.any():
        zero = missing[:, None]
        X, Zs = np.where(zero, 0.0, X), tuple(np.where(zero, 0.0, Z) for Z in Zs)
        shift = None if shift is None else np.where(missing, 0.0, shift)
    return NewData(index, X, shift, Zs, codes, missing)


def _require_groups(fit: Estimates, newdata: Any, table: ColumnTable) -> None:
    """Refuse new data without a grouping column by what can be done without it."""
    for coder in fit.design.encoding.random_coders:
        absent = [name for name in coder.group.factor.columns if name not in table.names]
        if absent and not (isinstance(newdata, pd.DataFrame) and absent[0] in newdata.index.names):
            what = f"newdata have no column {absent[0]!r}, whose levels conditional predictions are given"
            remedy = 'level="population" predicts without it; or add the column'
            raise PredictionError(what, f"columns of the data: {', '.join(map(repr, table.names[:SHOWN_LABELS]))}", remedy)


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
            shown = ", ".join(map(repr, names[:SHOWN_LABELS])) + (
                f" and {len(names) - SHOWN_LABELS} more" if len(names) > SHOWN_LABELS else ""
            )
            what = f"{len(names)} levels of {fit.design.terms[i].group.name!r} are not known to the fit: {shown}"
            remedy = 'new_levels="population" gives them their expected effect, 0; observed=True learns from outcomes of theirs'
            raise PredictionError(what, f"rows {list_rows(np.flatnonzero(unseen))}", remedy)
    return missing


def _given_offset(offset: Any, table: ColumnTable, shift: Array | None) -> Array:
    if offset is None:
        raise PredictionError(
            "the model's offset was given as an array, which new data do not have",
            remedy="give `offset=` with one number per row of newdata, or fit with the offset as a column",
        )
    values = numbers_by_position(offset, "offset", table)
    return values if shift is None else values + shift


def require_estimable_rows(fit: Estimates, X: Array, missing: NDArray[np.bool_]) -> None:
    """Raise for rows in which an aliased column is not the combination of kept columns that it was in the data of the fit."""
    design, standardization = fit.design, fit.problem.standardization
    rows = np.where(missing[:, None], 0.0, X)
    bad = ~Aliases.of(design, standardization).estimable(rows, standardization.functions(rows[:, list(design.kept)])) & ~missing
    if bad.any():
        raise PredictionError(
            f"{int(bad.sum())} rows are not estimable: the data of the fit could not tell {', '.join(design.aliased)} from others",
            f"rows {list_rows(np.flatnonzero(bad))}",
            "predict rows with combinations that occur in the data of the fit, or drop the aliased columns from the formula",
        )


def list_rows(rows: Codes) -> str:
    """Some row numbers as a message shows them."""
    shown = ", ".join(str(int(row)) for row in rows[:SHOWN_LABELS])
    return shown + (f" and {len(rows) - SHOWN_LABELS} more" if len(rows) > SHOWN_LABELS else "")


def fit_residual_index(fit: Estimates) -> ResidualIndex:
    """The rows of the fit."""
    kernel, residual, n = fit.problem.structured, fit.design.residual, fit.nobs
    assert kernel is not None
    log_scale = kernel.log_scale(fit.estimate.x)[0]
    scale = np.zeros(n) if log_scale is None else log_scale
    if residual is None:
        return ResidualIndex(np.full(n, -1), None, None, np.zeros(n, np.int64), scale)
    coords = None if residual.visit is not None else residual.coords
    group = np.zeros(n, np.int64) if residual.group is None else residual.group.codes
    return ResidualIndex(residual.subject.codes, residual.visit, coords, group, scale)


def new_residual_index(fit: Estimates, newdata: Any, fitted: Array) -> tuple[ResidualIndex, NDArray[np.bool_]]:
    """New rows, and those of them whose place is missing.

    fitted : (n,) x'alpha + z'beta of the new rows, for a variance function of it

    Raises PredictionError for visits and groups of parameters that the fit does not have.
    """
    residual, n = fit.design.residual, len(fitted)
    missing = np.zeros(n, bool)
    log_scale = _log_weights(fit, newdata, n) + _log_multiplier(fit, newdata, fitted)
    if residual is None:
        return ResidualIndex(np.full(n, -1), None, None, np.zeros(n, np.int64), log_scale), missing
    term = residual.spec
    table = read_table(newdata, (*term.visit, *term.subject, *term.group))
    subjects, known = row_labels(table, term.subject, n), residual.subject.places
    subject = np.array([known.get(label, -1) for label in subjects], dtype=np.int64)
    group = np.zeros(n, np.int64)
    if residual.group is not None:
        group = _require_labels(row_labels(table, term.group, n), residual.group.levels, residual.group.name, missing)
    visit, coords, later = None, None, None
    if residual.visit is not None:
        visit, later = _visits(residual, table, subjects, missing)
    elif residual.coords is not None:
        coords = np.column_stack([series_numbers(table.series(name), name).values for name in term.visit])
        missing |= np.isnan(coords).any(axis=1)
        coords = np.nan_to_num(coords)
    log_scale = np.where(np.isnan(log_scale), 0.0, log_scale)
    return ResidualIndex(subject, visit, coords, group, log_scale, later), missing


def _visits(
    residual: ResidualDesign, table: ColumnTable, subjects: Sequence[Any], missing: NDArray[np.bool_]
) -> tuple[Codes, LaterVisits | None]:
    """The visit of each row; and all visits, where the structure goes on at times that the fit does not have."""
    name = ", ".join(residual.spec.visit)
    if residual.spec.visit:
        labels = row_labels(table, residual.spec.visit, len(subjects))
    else:
        # the visits are the order of the rows of a subject, 1, 2, ...
        number = {subject: i for i, subject in enumerate(dict.fromkeys(subjects))}
        labels = (place_within(np.array([number[subject] for subject in subjects], dtype=np.int64)) + 1).tolist()
    unknown = {label for label in labels if label is not None} - set(residual.visit_levels)
    if unknown and _goes_on(residual):
        later = _later(residual, sorted(unknown), name)
        return _require_labels(labels, later.levels, name, missing), later
    if unknown and not residual.spec.visit:
        wrong = np.array([label in unknown for label in labels])
        what = f"the fit knows no row number {min(unknown)} of a subject: it has the numbers {values_text(residual.visit_levels)}"
        raise PredictionError(what, f"rows {list_rows(np.flatnonzero(wrong))}", "name a column for the visit in the residual structure")
    return _require_labels(labels, residual.visit_levels, name, missing), None


def _goes_on(residual: ResidualDesign) -> bool:
    """Whether the covariance is known at other times: a structure that counts steps of numbers, without parameters of single visits."""
    numbers = residual.coords is not None or not residual.spec.visit
    if not numbers or not goes_on(residual.name, residual.order):
        return False
    return keeps_distance(residual.name) or not unequal_gaps(residual.visit_levels)


def _later(residual: ResidualDesign, unknown: list[float], name: str) -> LaterVisits:
    """The visits of the fit and unknown ones. Raises PredictionError for times between the steps."""
    known = np.asarray(residual.visit_levels, dtype=np.float64)
    steps = np.asarray(residual.positions or range(len(known)), dtype=np.float64)
    unit = (known[-1] - known[0]) / steps[-1] if len(known) > 1 else 1.0
    levels = tuple(sorted({*residual.visit_levels, *unknown}))
    at = (np.asarray(levels, dtype=np.float64) - known[0]) / unit
    between = np.abs(at - np.round(at)) > 1e-9 * np.maximum(np.abs(at), 1.0)
    if between.any():
        shown = values_text([level for level, off in zip(levels, between, strict=True) if off])
        what = f"{residual.name} counts steps of {unit:g} in {name!r}, and new times lie between them: {shown}"
        raise PredictionError(what, f"{name!r}", f"use car1({name} | ...), which takes any times")
    whole = np.round(at).astype(np.int64)
    return LaterVisits(levels, tuple((whole - whole[0]).tolist()), np.searchsorted(np.asarray(levels, dtype=np.float64), known))


def row_labels(table: ColumnTable, columns: Sequence[str], n: int) -> list[Any]:
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


def _require_labels(labels: Sequence[Any], levels: Iterable[Any], name: str, missing: NDArray[np.bool_]) -> Codes:
    known = {level: i for i, level in enumerate(levels)}
    codes = np.array([known.get(label, -1) for label in labels], dtype=np.int64)
    absent = np.array([label is None for label in labels], dtype=bool)
    unseen = (codes < 0) & ~absent
    if unseen.any():
        new = list(dict.fromkeys(label for label, wrong in zip(labels, unseen, strict=True) if wrong))
        shown = ", ".join(map(repr, new[:SHOWN_LABELS])) + (f" and {len(new) - SHOWN_LABELS} more" if len(new) > SHOWN_LABELS else "")
        what = f"{len(new)} levels of {name!r} are not known to the fit: {shown}"
        raise PredictionError(
            what,
            f"rows {list_rows(np.flatnonzero(unseen))}",
            "use the levels of the fit: " + ", ".join(map(str, list(levels)[:SHOWN_LABELS])),
        )
    missing |= absent
    return np.maximum(codes, 0)


def _log_weights(fit: Estimates, newdata: Any, n: int) -> Array:
    """-log(w)/2 on the scale of the kernel; weight 1 where the new data have none."""
    design, c = fit.design, fit.problem.standardization
    if design.weights is None:
        return np.zeros(n)
    name, table = design.spec.weights, read_table(newdata, ())
    weights = (
        series_numbers(read_table(newdata, (name,)).series(name), name).values if name is not None and name in table.names else np.ones(n)
    )
    with np.errstate(divide="ignore"):
        return np.asarray(-0.5 * np.log(weights / (design.weight_scale * c.weight_mean)))


def _log_multiplier(fit: Estimates, newdata: Any, fitted: Array) -> Array:
    kernel = fit.problem.structured
    if kernel is None or not kernel.variance.size:
        return np.zeros(len(fitted))
    factors = tuple(_new_variance(factor, newdata) for factor in fit.design.variance)
    values = tuple(fitted if f.is_of_fitted else f.covariate for f in factors)
    return VarianceFunction(factors, values, len(fitted)).log_multiplier(fit.estimate.x[kernel.variance_part])[0]


def _new_variance(factor: VarianceDesign, newdata: Any) -> VarianceDesign:
    columns = ((factor.spec.covariate,) if factor.kind == "ident" else ()) + factor.spec.group
    covariate, strata = None, None
    if factor.covariate is not None:
        covariate = series_numbers(
            read_table(newdata, (factor.spec.covariate,)).series(factor.spec.covariate), factor.spec.covariate
        ).values
    if columns:
        table = read_table(newdata, columns)
        labels = [None if label is None else str(label) for label in row_labels(table, columns, len(table))]
        strata = _require_labels(labels, factor.labels, ":".join(columns), np.zeros(len(table), bool))
    return replace(factor, covariate=covariate, strata=strata)


def two_sided_quantile(conf_level: float, df: Any = np.inf) -> Any:
    """The two-sided quantile of t with `df` degrees of freedom (normal where infinite)."""
    tail, df = 0.5 + 0.5 * require_level(conf_level), np.asarray(df, float)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(df), ndtri(tail), stdtrit(np.where(np.isinf(df), 1.0, df), tail))


def with_limits(table: pd.DataFrame, conf_level: float) -> pd.DataFrame:
    """A table of `estimate, std_error, df` with `conf_low, conf_high` by quantiles of t."""
    half = two_sided_quantile(conf_level, table["df"].to_numpy(float)) * table["std_error"].to_numpy(float)
    return table.assign(conf_low=table["estimate"] - half, conf_high=table["estimate"] + half)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Estimates, the variance of the estimated mean, and that of a new observation about it, (n,) each."""

    estimate: Array
    mean: Array
    outcome: Array


def predict_rows(
    fit: Estimates, newdata: Any, *, level: str, interval: str | None, conf_level: float, new_levels: str, offset: Any
) -> pd.DataFrame:
    """`estimate[, std_error, conf_low, conf_high]`, row for row."""
    require_one_of(level, get_args(Level), "level")
    level = "population" if fit.estimate.is_assumed else level  # nothing is observed
    require_one_of(new_levels, get_args(NewLevels), "new_levels")
    if interval is not None:
        require_one_of(interval, get_args(IntervalKind), "interval")
    require_level(conf_level)
    require_offset_applies(offset, newdata, fit.model.given_offset)
    rows = (
        fit_rows(fit)
        if newdata is None
        else encode_new_rows(fit, newdata, level=level, new_levels=new_levels, offset=offset, spread=interval == "prediction")
    )
    if fit.problem.structured is not None:
        rows, found = _condition_on_observed(fit, rows, newdata, level=level, interval=interval)
    else:
        found = _independent(fit, rows, newdata, level=level, interval=interval)
    columns = {"estimate": found.estimate}
    if interval is not None:
        error = np.sqrt(np.maximum(found.mean if interval == "confidence" else found.outcome, 0.0))
        half = two_sided_quantile(conf_level) * error
        columns |= {"std_error": error, "conf_low": found.estimate - half, "conf_high": found.estimate + half}
    return prediction_frame(columns, rows)


def on_response(
    predicted: Callable[[IntervalKind | None], pd.DataFrame],
    design: Design,
    interval: IntervalKind | None,
    type: Any,  # noqa: A002
    bias_adjust: Any,
) -> pd.DataFrame:
    """Predictions on the scale asked for, which `attrs["scale"]` names: limits taken back end by end, standard errors by the delta method.

    predicted : predictions on the scale of the model, with an interval or None
    bias_adjust : True adds half the curvature times the variance of a new response about its mean; a number is its sd. Limits of a new
        response are quantiles, which need none.
    """
    scale, adjusts = response_options(design, type, bias_adjust)
    table = predicted(interval)
    if scale is None:
        return _on_scale(table, scale_name(design, type))
    sd = np.full(len(table), 0.0 if adjusts is None else adjusts)
    if adjusts is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BayesLMMWarning)
            new, mean = (predicted(kind)["std_error"].to_numpy(float) for kind in ("prediction", "confidence"))
        sd = np.sqrt(np.maximum(new**2 - mean**2, 0.0))
    link = {name: table[name].to_numpy(float) for name in table.columns}
    value, slope = scale.moments(link["estimate"], sd)
    beyond = np.isnan(value) & ~np.isnan(link["estimate"])
    if beyond.any():
        what = f"{int(beyond.sum())} predictions lie beyond the values of {scale.name} and are NaN"
        warn_user(BayesLMMWarning(what, f"rows {list_rows(np.flatnonzero(beyond))}", 'use type="link" to see them'))
    columns = {"estimate": value}
    if interval is not None:
        columns["std_error"] = np.abs(slope) * link["std_error"]
        low, high = scale.limits(link["conf_low"], link["conf_high"], sd if interval == "confidence" else 0.0)
        columns |= {"conf_low": low, "conf_high": high}
    return _on_scale(pd.DataFrame(columns, index=table.index), scale_name(design, type))


def _on_scale(table: pd.DataFrame, name: str) -> pd.DataFrame:
    table.attrs["scale"] = name
    return table


def require_offset_applies(offset: Any, newdata: Any, has_offset: bool) -> None:
    """Refuse an offset beside rows that have one already, or whose model has none; has_offset : whether the model's was an array."""
    if offset is not None and (newdata is None or not has_offset):
        what = "offset= is for new data of a model whose offset was given as an array"
        remedy = "leave it out: the offset is known" if newdata is None else "leave it out, or put it into the formula"
        raise SpecificationError(what, "offset", remedy)


@lru_cache(maxsize=16)
def _labels(names: tuple[str, ...]) -> pd.Index[str]:
    return pd.Index(names)


def prediction_frame(columns: dict[str, Array], rows: NewData) -> pd.DataFrame:
    """The columns beside the index of the rows, NaN in those that miss values, with a warning."""
    # one block: eight times faster than column by column, which counts where one row is asked for
    values = np.column_stack(list(columns.values())) if len(columns) > 1 else np.array([*columns.values()]).T
    out = pd.DataFrame(values, index=rows.index, columns=_labels(tuple(columns)), copy=False)
    if rows.missing.any():
        out.iloc[np.flatnonzero(rows.missing)] = np.nan
        warn_unpredicted(rows.missing)
    return out


def warn_unpredicted(missing: NDArray[np.bool_]) -> None:
    """Warn of rows that have no prediction: of missing values, and of values such as -1 in log(x)."""
    count = int(missing.sum())
    have, them, are = ("a row has", "it", "is") if count == 1 else (f"{count} rows have", "them", "are")
    what = f"{have} missing values, or the formula has no value for {them}, and {are} predicted as NaN"
    where = f"rows {list_rows(np.flatnonzero(missing))}"
    warn_user(BayesLMMWarning(what, where, "fill the missing values, or drop these rows"))


def require_outcomes(newdata: Any, level: str) -> None:
    """Refuse to learn from outcomes where there are none to learn from, or where they would not be used."""
    if newdata is None:
        raise SpecificationError("the outcomes of the fit's own rows are in it", "observed", "give newdata, or leave observed out")
    if level != "conditional":
        what = "a prediction of the population is given no outcomes"
        raise SpecificationError(what, f"level={show_value(level)}, observed", 'use level="conditional"')


# -- independent errors --------------------------------------------------------------------------------------------------------------------


def _independent(fit: Estimates, rows: NewData, newdata: Any, *, level: str, interval: str | None) -> Prediction:
    conditional = level == "conditional"
    if newdata is None:
        estimate = fit.conditional_mean.copy() if conditional else population_mean(fit)
    else:
        estimate = _through_modes(fit, rows) if conditional else _mean(fit, rows)
    if interval is None:
        return Prediction(estimate, estimate, estimate)
    if conditional and any((code >= 0).any() for code in rows.codes):
        mean = row_variances(fit.problem, fit.point, rows.X, rows.Zs, rows.codes)
    else:
        mean = _population_variance(fit, rows)
    sds = residual_sds(fit.problem, fit.point) if newdata is None else _new_sds(fit, newdata, len(rows.X))
    return Prediction(estimate, mean, mean + new_effects(fit, rows, conditional=conditional) + sds**2)


def _mean(fit: Estimates, rows: NewData) -> Array:
    values = linear_predictors(fit.problem, fit.point, rows.X, fit.fixef_kept)
    return values if rows.offset is None else values + rows.offset


def _through_modes(fit: Estimates, rows: NewData) -> Array:
    """The mean and z'beta of the levels that the fit knows."""
    values = _mean(fit, rows)
    for Z, codes, beta in zip(rows.Zs, rows.codes, fit.modes, strict=True):
        own = np.einsum("nq,nq->n", Z, beta[codes])
        values = values + (np.where(codes >= 0, own, 0.0) if (codes < 0).any() else own)
    return values


def _population_variance(fit: Estimates, rows: NewData) -> Array:
    assert fit.point.state is not None
    c, own = fit.problem.standardization, fit.problem.standardization.functions(rows.X)
    inverse = fit.point.state.solution.information_inverse[0]
    return np.asarray(fit.point.sigma2 * c.y_scale**2 * ((own @ inverse) * own).sum(1))


def new_effects(fit: Estimates, rows: NewData, *, conditional: bool) -> Array:
    """z' D z of the terms whose level is new, or of all terms where none is given."""
    total = np.zeros(len(rows.X))
    for i, (Z, codes) in enumerate(zip(rows.Zs, rows.codes, strict=True)):
        new = codes < 0 if conditional else np.ones(len(codes), bool)
        root = fit.problem.random.terms[i].root(fit.estimate.x, Z, fit.problem.standardization.weight_mean)
        total += np.where(new, np.einsum("nq,nq->n", root, root), 0.0)
    return fit.problem.sigma2(fit.point.sigma2) * total


def _new_sds(fit: Estimates, newdata: Any, n: int) -> Array:
    """sigma, or sigma / sqrt(w) where the model's weights are a column that the new data have."""
    name = fit.design.spec.weights
    if name is None or name not in read_table(newdata, ()).names:
        return np.full(n, fit.sigma)
    weights = series_numbers(read_table(newdata, (name,)).series(name), name).values
    with np.errstate(divide="ignore"):
        return np.asarray(fit.sigma / np.sqrt(weights))


# -- structured errors ------------------------------------------------------------------------------------------------------------------


def _condition_on_observed(fit: Estimates, rows: NewData, newdata: Any, *, level: str, interval: str | None) -> tuple[NewData, Prediction]:
    """Given the subject's observed outcomes: what was observed is returned as it is, and the variance of the mean is alpha's alone."""
    conditional = level == "conditional"
    if not conditional and interval != "prediction":
        return rows, Prediction(_mean(fit, rows), variance := _population_variance(fit, rows), variance)
    place, rows = _with_residual_index(fit, rows, newdata)
    known = rows.codes if rows.codes else tuple(np.full(len(rows.X), -1) for _ in fit.design.terms)
    Zs = rows.Zs if rows.Zs else tuple(np.zeros((len(rows.X), len(D))) for D in fit.covariances)
    if not conditional:
        nowhere = tuple(np.full(len(rows.X), -1) for _ in known)
        alone = replace(place, subject=np.full(len(rows.X), -1))
        outcome = subject_rows(fit.problem, fit.point, rows.X, Zs, nowhere, alone)[1]
        return rows, Prediction(_mean(fit, rows), _population_variance(fit, rows), outcome + new_effects(fit, rows, conditional=False))
    if interval is None:
        mean = _mean(fit, rows) + subject_means(fit.problem, fit.point, Zs, known, place)
        return rows, Prediction(mean, mean, mean)
    gained, outcome, mean = subject_rows(fit.problem, fit.point, rows.X, Zs, known, place)
    if fit.design.residual is None and interval == "confidence":
        mean = subject_rows(fit.problem, fit.point, rows.X, Zs, known, None)[1]
    return rows, Prediction(_mean(fit, rows) + gained, mean, outcome + new_effects(fit, rows, conditional=True))


def _with_residual_index(fit: Estimates, rows: NewData, newdata: Any) -> tuple[ResidualIndex, NewData]:
    if newdata is None:
        return fit_residual_index(fit), rows
    without = _through_modes(fit, rows) if rows.codes else _mean(fit, rows)
    place, missing = new_residual_index(fit, newdata, without if rows.offset is None else without - rows.offset)
    return place, replace(rows, missing=rows.missing | missing)
