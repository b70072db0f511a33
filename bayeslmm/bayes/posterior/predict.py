"""Linear predictors, errors, pointwise densities and predictions for any rows, draw by draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes, Mask, generator
from bayeslmm._types import IntervalKind, Level, PosteriorNewLevels
from bayeslmm._validation import require_flag, require_level, require_memory, require_one_of
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.data.columns import series_numbers
from bayeslmm.data.frame import read_table
from bayeslmm.likelihood.kernel import Solution
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.pooled import PooledSubjectsKernel, error_kinds, many_matrices, multiply_by_kind
from bayeslmm.likelihood.structured.prediction import ObservedRows, ResidualIndex, rows_given_levels, rows_given_observed
from bayeslmm.likelihood.structured.residual_covariance import many_scales, many_unit_sds
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.results.fitted import as_pandas, join_columns
from bayeslmm.results.predict import (
    NewData,
    encode_new_rows,
    fit_residual_index,
    fit_rows,
    new_residual_index,
    require_offset_applies,
    warn_unpredicted,
)
from bayeslmm.results.response_scale import ResponseScale, response_options, scale_name

if TYPE_CHECKING:
    from bayeslmm._types import ResponseType
    from bayeslmm.bayes.posterior.data import PosteriorData


DRAW_ELEMENTS = 8_000_000
"""Draws x rows worked on at once."""

BLOCKED_DRAW_ELEMENTS = 500_000
"""The same where every subject's rows are a block: the working set stays in cache."""

PREDICTION_DRAWS = 400
"""Draws that predictions under structured errors are made from: each is a mean and a variance, not one number."""


# -- the rows of the model -----------------------------------------------------------------------------------------------------------------


def linear_predictor(post: PosteriorData, chosen: Codes | None = None) -> Array:
    """X alpha + offset + Z beta (S, n) of all or some draws."""
    which = slice(None) if chosen is None else chosen
    S, n = post.draws.size if chosen is None else len(chosen), post.design.nobs
    require_memory(
        "draws by row", 4.0 * S * n, f"{S:,} draws of {n:,} rows", "sample fewer draws, or ask for some rows by predict(newdata)"
    )
    values = post.draws.alpha[which] @ post.design.X.T
    if post.design.offset is not None:
        values = values + post.design.offset
    for term, beta in zip(post.design.terms, post.draws.beta, strict=True):
        own = beta[which]
        for a in range(len(term.columns)):
            values += own[:, term.group.codes, a] * term.Z[:, a]
    return values


def design_sigma(post: PosteriorData) -> Array:
    """sigma (S,) as the design's weights count it."""
    return np.asarray(post.parameters["sigma"].values / np.sqrt(post.design.weight_scale))


def error_variance(post: PosteriorData, chosen: Codes | None = None) -> Array:
    """Variance of every error, (S, n), or (S, 1) where all are alike, of all or some draws."""
    which = slice(None) if chosen is None else chosen
    s2 = design_sigma(post)[which, None] ** 2
    if post.problem.structured is None:
        return s2 if post.design.weights is None else s2 / post.design.weights
    return np.asarray(s2 * many_unit_sds(post.problem, post.kernel_points[0][which]) ** 2)


def draw_posterior_errors(post: PosteriorData, chosen: Codes, rng: np.random.Generator) -> Array:
    """A draw of all errors for each of some draws, (len(chosen), n)."""
    z = rng.standard_normal((len(chosen), post.design.nobs))
    if post.design.residual is None:
        return np.asarray(np.sqrt(error_variance(post, chosen)) * z)
    s, scale, out = design_sigma(post)[chosen, None], _scales(post, chosen), np.empty_like(z)
    for draws, rows, kind, R in _error_blocks(post, chosen):
        out[draws, rows] = multiply_by_kind(cholesky(R), z[draws, rows][..., None], kind)[..., 0]
    return s * scale * out


def _scales(post: PosteriorData, chosen: Codes) -> Array:
    """What weights and a variance function multiply sds by, (len(chosen) or 1, n or 1)."""
    return many_scales(post.problem, post.kernel_points[0][chosen])


def _error_blocks(post: PosteriorData, chosen: Codes) -> Iterator[tuple[slice, Codes, Codes, Array]]:
    """For some draws at once: which of `chosen`, the rows (B, k) of subjects, their kinds (B,), and R0 (t, C, k, k) of every kind."""
    kernel, x = post.problem.structured, post.kernel_points[0][chosen]
    assert kernel is not None
    step = max(1, BLOCKED_DRAW_ELEMENTS // (2 * post.design.nobs))
    for rows, kinds in error_kinds(post.design):
        for begin in range(0, len(chosen), step):
            draws = slice(begin, min(begin + step, len(chosen)))
            yield draws, rows, kinds.kind, many_matrices(kernel.structure, x[draws, kernel.residual_part], kinds.block)


def log_likelihood(post: PosteriorData, chosen: Codes | None = None) -> Array:
    """log p(y_i | alpha, beta, R, the other observations of i's subject), (S, n): with independent errors that of y_i alone.

    chosen : some of the draws
    """
    errors = post.design.y - linear_predictor(post, chosen)
    if post.design.residual is None:
        v = error_variance(post, chosen)
        return np.asarray(-0.5 * (np.log(2.0 * np.pi * v) + errors**2 / v))
    return _leave_one_out(post, errors, np.arange(post.size) if chosen is None else chosen)


def _leave_one_out(post: PosteriorData, errors: Array, chosen: Codes) -> Array:
    """With C = R^-1 and g = C e: the density of e_i given the others is normal with precision C_ii and error g_i / C_ii."""
    scale = design_sigma(post)[chosen, None] * _scales(post, chosen)
    errors, out = errors / scale, np.empty_like(errors)
    for draws, rows, kind, R in _error_blocks(post, chosen):
        C = np.linalg.inv(R)
        g = multiply_by_kind(C, errors[draws, rows][..., None], kind)[..., 0]
        c = np.diagonal(C, axis1=-2, axis2=-1)[:, kind]
        out[draws, rows] = 0.5 * (np.log(c) - np.log(2.0 * np.pi) - g**2 / c)
    return out - np.log(scale)


# -- predictions ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class DrawEstimates:
    """What encoding of new rows asks of a fit, at one draw."""

    post: PosteriorData
    x: Array

    @property
    def design(self) -> Any:
        return self.post.design

    @property
    def problem(self) -> Problem:
        return self.post.problem

    @property
    def model(self) -> Any:
        return self.post.model

    @property
    def estimate(self) -> DrawEstimates:
        return self

    @property
    def nobs(self) -> int:
        return self.post.design.nobs


def predict_posterior(
    post: PosteriorData,
    newdata: Any,
    *,
    level: str,
    interval: str | None,
    conf_level: float,
    new_levels: str,
    offset: Any,
    seed: int | None,
    draws: bool = False,
    type: ResponseType = "link",  # noqa: A002
) -> pd.DataFrame:
    """`estimate[, std_error, conf_low, conf_high]`, row for row; with `draws` a column for each draw, labelled by chain and draw.

    type : "response" takes every draw back to the scale of the response, which `attrs["scale"]` names
    """
    scale = response_options(post.design, type, bias_adjust=False)[0]
    require_one_of(level, get_args(Level), "level")
    require_one_of(new_levels, get_args(PosteriorNewLevels), "new_levels")
    if interval is not None:
        require_one_of(interval, get_args(IntervalKind), "interval")
    require_level(conf_level)
    # one draw of a mean given the other outcomes is uncertain, as they are
    kind = "confidence" if require_flag(draws, "draws") and interval is None else interval
    fit: Any = DrawEstimates(post, post.kernel_points[0][0])
    require_offset_applies(offset, newdata, fit.model.given_offset)
    known = "error" if new_levels == "error" else "population"
    spread = new_levels == "sample" or interval == "prediction"
    asked = PredictionRequest(newdata, level == "conditional", kind, spread, conf_level, draws, scale)
    rows = (
        rows_of_model(post)
        if newdata is None
        else encode_new_rows(fit, newdata, level=level, new_levels=known, offset=offset, spread=asked.effects)
    )
    rng = generator(seed)
    if post.problem.structured is not None and (level == "conditional" or interval == "prediction"):
        rows, columns = _conditional_normals(post, rows, asked, rng)
    else:
        columns = _independent(post, rows, asked, rng)
    out = pd.DataFrame(columns, index=rows.index) if isinstance(columns, dict) else _draw_frame(post, columns, rows.index)
    if rows.missing.any():
        out.iloc[np.flatnonzero(rows.missing)] = np.nan
        warn_unpredicted(rows.missing)
    out.attrs["scale"] = scale_name(post.design, type)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class PredictionRequest:
    """What is to be predicted.

    effects : draw the effects of new levels from D; draws : every draw, not what they say together; scale : that draws are taken back from
    """

    newdata: Any
    given: bool
    interval: str | None
    effects: bool
    conf_level: float
    draws: bool
    scale: ResponseScale | None

    def back(self, values: Array) -> Array:
        """Values on the scale asked for."""
        return values if self.scale is None else self.scale.back(values)


def _draw_frame(post: PosteriorData, drawn: RowDraws, index: pd.Index[Any]) -> pd.DataFrame:
    """Rows by draws."""
    chains = np.divmod(drawn.chosen, post.size // post.chains)
    return pd.DataFrame(drawn.values.T, index, pd.MultiIndex.from_arrays(chains, names=["chain", "draw"]))


@dataclass(frozen=True, slots=True, eq=False)
class RowDraws:
    """values (len(chosen), rows) of some draws."""

    values: Array
    chosen: Codes


def _summarize_draws(values: Array, asked: PredictionRequest) -> dict[str, Array]:
    """Of draws (S, n)."""
    out = {"estimate": values.mean(0)}
    if asked.interval is not None:
        tail = 0.5 - 0.5 * asked.conf_level
        low, high = np.quantile(values, [tail, 1.0 - tail], axis=0)
        out |= {"std_error": values.std(0, ddof=1), "conf_low": low, "conf_high": high}
    return out


def _independent(post: PosteriorData, rows: NewData, asked: PredictionRequest, rng: np.random.Generator) -> dict[str, Array] | RowDraws:
    if asked.interval is None and asked.scale is None:
        return {"estimate": mean_predictor(post, rows, asked.given)}
    sds = _unit_sds(post, rows, asked)
    parts, drawn = [], []
    step = max(1, DRAW_ELEMENTS // post.draws.size)
    for begin in range(0, len(rows.X), step):
        part = slice(begin, begin + step)
        mean = post.draws.alpha @ rows.X[part].T
        if rows.offset is not None:
            mean = mean + rows.offset[part]
        for Z, codes, beta in zip(rows.Zs, rows.codes, post.draws.beta, strict=bool(rows.Zs)):
            if asked.given:
                for a in range(Z.shape[1]):
                    mean += np.where(codes[part] >= 0, beta[:, np.maximum(codes[part], 0), a] * Z[part, a], 0.0)
        values = mean
        if asked.effects:
            values = mean + np.sqrt(_unknown(post, rows, part, asked)) * rng.standard_normal(mean.shape)
        if asked.interval == "prediction":
            values = values + design_sigma(post)[:, None] * sds[part] * rng.standard_normal(mean.shape)
        if asked.draws:
            drawn.append(asked.back(values))
            continue
        found = _summarize_draws(asked.back(values), asked)
        found["estimate"] = asked.back(mean).mean(0)
        parts.append(found)
    if asked.draws:
        return RowDraws(np.concatenate([np.zeros((post.size, 0)), *drawn], axis=1), np.arange(post.size))
    if not parts:
        return _summarize_draws(np.zeros((2, 0)), asked)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _unknown(post: PosteriorData, rows: NewData, part: slice, asked: PredictionRequest, chosen: Codes | slice = slice(None)) -> Array:
    """z'Dz (S, rows) of the terms whose level is not known, or of all terms for the population, at all or some draws."""
    phi = post.draws.phi[chosen]
    total = np.zeros((len(phi), len(rows.X[part])))
    if not asked.effects:
        return total
    for Z, codes, block in zip(rows.Zs, rows.codes, post.density.layout.terms, strict=bool(rows.Zs)):
        new = codes[part] < 0 if asked.given else np.ones(len(codes[part]), bool)
        if new.any():
            total += new * np.einsum("na,sab,nb->sn", Z[part], block.covariance(phi), Z[part], optimize=True)
    return total


def _unit_sds(post: PosteriorData, rows: NewData, asked: PredictionRequest) -> Array:
    """sd of a new error in units of the design's sigma."""
    design = post.design
    if asked.interval != "prediction":
        return np.ones(len(rows.X))
    if asked.newdata is None:
        return np.ones(design.nobs) if design.weights is None else 1.0 / np.sqrt(design.weights)
    name = design.spec.weights
    if name is None or name not in read_table(asked.newdata, ()).names:
        return np.full(len(rows.X), float(np.sqrt(design.weight_scale)))
    weights = series_numbers(read_table(asked.newdata, (name,)).series(name), name).values
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt(design.weight_scale / weights))


# -- structured errors ---------------------------------------------------------------------------------------------------------------------


def _conditional_normals(
    post: PosteriorData, rows: NewData, asked: PredictionRequest, rng: np.random.Generator
) -> tuple[NewData, dict[str, Array] | RowDraws]:
    """A normal distribution for each of some draws: alpha and beta integrated out, the subject's observed outcomes given."""
    chosen = np.unique(np.linspace(0, post.draws.size - 1, PREDICTION_DRAWS).astype(int))
    if asked.newdata is None and _knows_outcomes(post, asked):
        known = asked.back(post.design.y)
        if asked.draws:
            return rows, RowDraws(np.tile(known, (len(chosen), 1)), chosen)
        return rows, _summarize_draws(np.tile(known, (2, 1)), asked) | {"estimate": known}
    means, draws, missing = [], [], rows.missing
    with one_thread():
        for gone, mean, variance in _given_draws(post, rows, asked, chosen):
            missing = missing | gone
            means.append(asked.back(mean))
            draws.append(asked.back(mean + np.sqrt(np.maximum(variance, 0.0)) * rng.standard_normal(mean.shape)))
    values = np.concatenate(draws)
    if asked.draws:
        return replace(rows, missing=missing), RowDraws(values, chosen)
    found = _summarize_draws(values, asked)
    found["estimate"] = np.concatenate(means).mean(axis=0)
    return replace(rows, missing=missing), found


def _knows_outcomes(post: PosteriorData, asked: PredictionRequest) -> bool:
    """Whether an outcome given all that were observed is the one observed: errors are parts of it, but for those of a nugget."""
    residual = post.design.spec.residual
    return asked.given and residual is not None and not residual.nugget


def _given_draws(post: PosteriorData, rows: NewData, asked: PredictionRequest, chosen: Codes) -> Iterator[tuple[Mask, Array, Array]]:
    """Some draws at once: the rows that have no place, and means and variances (t, n)."""
    problem, patterns, N = post.problem, post.density.pooled, len(rows.X)
    assert isinstance(patterns, PooledSubjectsKernel)
    codes = (rows.codes or _nowhere(post, N)) if asked.given else _nowhere(post, N)
    Zs = rows.Zs or tuple(np.zeros((N, len(term.columns))) for term in post.design.terms)
    step = max(1, BLOCKED_DRAW_ELEMENTS // (post.design.nobs + N * (2 * problem.criterion.p + 8)))
    for begin in range(0, len(chosen), step):
        draws = chosen[begin : begin + step]
        x, s2 = post.kernel_points[0][draws], post.kernel_points[1][draws] ** 2
        solution = post.density.integrate(patterns.solve(x), s2, post.draws.phi[draws]).solution
        mean = problem.alpha(solution.alpha) @ rows.X.T
        place, log_scale, gone = _places(post, x, asked, mean)
        given = _rows_given(post, patterns, x, solution, s2, rows.X, Zs, codes)
        gained, outcome, of_mean = given(place, log_scale)
        if post.design.residual is None and asked.interval == "confidence":
            of_mean = given(None, None)[1]
        variance = outcome if asked.interval == "prediction" else of_mean
        if asked.effects:
            variance = variance + _unknown(post, rows, slice(None), asked, draws)
        yield gone, mean + gained + (0.0 if rows.offset is None else rows.offset), variance


def _rows_given(
    post: PosteriorData,
    patterns: PooledSubjectsKernel,
    x: Array,
    solution: Solution,
    s2: Array,
    X: Array,
    Zs: Sequence[Array],
    codes: Sequence[Codes],
) -> Callable[[ResidualIndex | None, Array | None], tuple[Array, Array, Array]]:
    """What the observed rows make of new ones at some draws, for places in R (None: the mean alone) and log scales of their sds."""
    if patterns.low_rank is not None:
        low = patterns.low_rank
        return lambda _, log_scale: rows_given_levels(post.problem, low, x, solution, s2, X, Zs, codes, log_scale)
    observed = ObservedRows.at_points(patterns, x, solution)

    def given(place: ResidualIndex | None, log_scale: Array | None) -> tuple[Array, Array, Array]:
        places = None if place is None or log_scale is None else (place, log_scale)
        return rows_given_observed(post.problem, observed, s2, X, Zs, codes, places)

    return given


def _nowhere(post: PosteriorData, rows: int) -> tuple[Codes, ...]:
    """Codes of rows without a level of any term."""
    return tuple(np.full(rows, -1) for _ in post.design.terms)


def _places(post: PosteriorData, x: Array, asked: PredictionRequest, mean: Array) -> tuple[ResidualIndex, Array, Mask]:
    """Where the rows stand in R, the log of what multiplies their sds (t or 1, n), and which of them have no place; mean : (t, n)."""
    scales = []
    for own, fitted in zip(x, mean, strict=True):
        fit: Any = DrawEstimates(post, own)
        if asked.newdata is None:
            place, gone = fit_residual_index(fit), np.zeros(len(fitted), bool)
        else:
            place, gone = new_residual_index(fit, asked.newdata, fitted)
        scales.append(place.log_scale)
        if post.density.layout.variance is None:
            break
    if not asked.given:
        place = replace(place, subject=np.full(len(place.subject), -1))
    return place, np.stack(scales), gone


def augment_posterior(post: PosteriorData, data: Any) -> pd.DataFrame:
    """The data with `fitted`, `fixed`, `resid`: posterior means."""
    if data is None:
        values = {"fitted": linear_predictor_mean(post), "fixed": fixed_mean(post)}
        return join_columns(post.design.frame, values | {"resid": post.design.y - values["fitted"]})
    frame = as_pandas(data)
    columns: dict[str, Any] = {
        "fitted": _means(post, data, "conditional", "population"),
        "fixed": _means(post, data, "population", "error"),
    }
    if set(post.design.encoding.response_atom.columns) <= set(map(str, frame.columns)):
        columns["resid"] = post.design.encoding.response(data) - columns["fitted"]
    return join_columns(frame, columns)


def _means(post: PosteriorData, data: Any, level: str, new_levels: str) -> Any:
    found = predict_posterior(post, data, level=level, interval=None, conf_level=0.95, new_levels=new_levels, offset=None, seed=None)
    return found["estimate"]


def fixed_mean(post: PosteriorData) -> Array:
    """Mean of X alpha + offset, (n,)."""
    return mean_predictor(post, rows_of_model(post), conditional=False)


def linear_predictor_mean(post: PosteriorData) -> Array:
    """Mean of X alpha + offset + Z beta, (n,)."""
    return mean_predictor(post, rows_of_model(post), conditional=True)


def rows_of_model(post: PosteriorData) -> NewData:
    """The rows that the model was sampled on."""
    fit: Any = post
    return fit_rows(fit)


def mean_predictor(post: PosteriorData, rows: NewData, conditional: bool) -> Array:
    """Posterior mean of X alpha + offset (+ Z beta, given the levels), (n,): that of alpha and beta, no draws x rows."""
    values = np.asarray(rows.X @ post.draws.alpha.mean(0))
    if rows.offset is not None:
        values = values + rows.offset
    if conditional:
        for Z, codes, beta in zip(rows.Zs, rows.codes, post.draws.beta, strict=bool(rows.Zs)):
            known = codes >= 0
            values = values + np.where(known, np.einsum("nq,nq->n", Z, beta.mean(0)[np.where(known, codes, 0)]), 0.0)
    return values
