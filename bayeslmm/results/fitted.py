"""Fitted values, residuals and conditional modes of a fit's own rows and levels, and responses simulated for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, freeze, label_text, numbers_of, seed_sequence
from bayeslmm._types import Level, ResidualKind
from bayeslmm._validation import STREAM_NUMBERS, require_count, require_memory, require_number, require_one_of
from bayeslmm.data.design import Design
from bayeslmm.data.frame import read_table, require_distinct_names, with_native_bytes
from bayeslmm.data.model_matrix import name_parts
from bayeslmm.errors import DataError, NonFiniteError, SpecificationError
from bayeslmm.likelihood.prediction import population_means
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import ErrorDraws, residual_sds, whiten_errors
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.random_effects import terms_by_group

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates


def population_mean(fit: Estimates) -> Array:
    """X alpha + offset, (n,)."""
    return population_means(fit.problem, fit.point, fit.fixef_kept)


def fitted_values(fit: Estimates, level: str) -> Array:
    require_one_of(level, get_args(Level), "level")
    return fit.conditional_mean.copy() if level == "conditional" else population_mean(fit)


def residuals(fit: Estimates, kind: str) -> Array:
    require_one_of(kind, get_args(ResidualKind), "kind")
    y = fit.design.y
    if kind == "marginal":
        return y - population_mean(fit)
    errors = y - fit.conditional_mean
    if kind == "pearson":
        return np.asarray(errors / residual_sds(fit.problem, fit.point))
    return whiten_errors(fit.problem, fit.point, errors) if kind == "normalized" else errors


def augment_columns(fit: Estimates) -> dict[str, Any]:
    """`fitted`, `fixed`, `resid`, `pearson`, and offset and weights where the model has them."""
    design, fixed = fit.design, population_mean(fit)
    values = fit.conditional_mean
    errors = design.y - values
    columns = {"fitted": values, "fixed": fixed, "resid": errors, "pearson": errors / residual_sds(fit.problem, fit.point)}
    if design.offset is not None:
        columns["offset"] = design.offset
    if design.weights is not None:
        columns["weights"] = design.weights * design.weight_scale
    return columns


def join_columns(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """The frame with new columns; a name that the frame already has gets a dot in front."""
    out = frame.copy()
    for name, values in columns.items():
        free = name
        while free in out.columns:
            free = f".{free}"
        out[free] = np.asarray(values)
    return out


def as_pandas(data: Any) -> pd.DataFrame:
    """All columns of any frame, as pandas."""
    if not isinstance(data, pd.DataFrame):
        return with_native_bytes(read_table(data, ()).frame)
    require_distinct_names(data.columns.tolist())
    return with_native_bytes(data)


def mode_frames(fit: Estimates) -> dict[str, pd.DataFrame]:
    """Grouping factor -> conditional modes, levels x columns of all its terms."""
    return _frames(fit, fit.modes)


def sd_frames(fit: Estimates) -> dict[str, pd.DataFrame]:
    """Grouping factor -> conditional standard deviations of the same shape."""
    return _frames(fit, [np.sqrt(np.maximum(np.diagonal(C, axis1=1, axis2=2), 0.0)) for C in fit.mode_covariances])


def _frames(fit: Estimates, values: Sequence[Array]) -> dict[str, pd.DataFrame]:
    terms, frames = fit.design.terms, {}
    for group, members in terms_by_group(terms).items():
        levels = pd.Index(terms[members[0]].group.levels.tolist(), name=group, tupleize_cols=False)
        names = [name for i in members for name in terms[i].columns]
        frames[group] = pd.DataFrame(np.hstack([values[i] for i in members]), index=levels, columns=names)
    return frames


def coefficient_frames(fit: Estimates) -> dict[str, pd.DataFrame]:
    """Grouping factor -> fixed effects plus conditional modes, levels x coefficients; a random column without a fixed one stands alone."""
    return {group: add_fixed(modes, fit.fixef) for group, modes in mode_frames(fit).items()}


def add_fixed(modes: pd.DataFrame, fixed: pd.Series[float]) -> pd.DataFrame:
    """Fixed effects plus the random effects of the same columns; the factors of an interaction may come in another order there."""
    own = {name_parts(name): name for name in fixed.index}
    columns = [own.get(name_parts(name), name) for name in modes.columns]
    names = [*fixed.index, *dict.fromkeys(name for name in columns if name not in fixed.index)]
    values = np.tile([fixed.get(name, 0.0) for name in names], (len(modes), 1))
    for name, effects in zip(columns, modes.to_numpy().T, strict=True):
        values[:, names.index(name)] += effects
    return pd.DataFrame(values, index=modes.index, columns=names)


def parameters_of(params: Mapping[str, Any], design: Design, size: int) -> tuple[Array, Array, float]:
    """alpha (p,) of the columns kept, theta and sigma from a mapping; coefficients may be given by name."""
    if not isinstance(params, Mapping):
        raise SpecificationError(f"params is a {type(params).__name__}", "params", 'give {"alpha": ..., "theta": ..., "sigma": ...}')
    unknown = set(params) - {"alpha", "theta", "sigma"}
    absent = {"alpha", "theta", "sigma"} - set(params) - ({"theta"} if size == 0 else set())
    if unknown or absent:
        what = f"parameters unknown: {', '.join(sorted(unknown))}" if unknown else f"parameters missing: {', '.join(sorted(absent))}"
        raise SpecificationError(what, "params", 'give {"alpha": ..., "theta": ..., "sigma": ...}')
    alpha = params["alpha"]
    if isinstance(alpha, Mapping | pd.Series):
        alpha = dict(alpha)
        extra = [str(name) for name in alpha if name not in design.coef_names]
        if extra:
            near = get_close_matches(extra[0], design.coef_names, 1, 0.4)
            remedy = f"did you mean {near[0]!r}?" if near else f"coefficients: {', '.join(design.coef_names)}"
            raise SpecificationError(f"there are no coefficients {', '.join(extra)}", "alpha", remedy)
        missing = [name for name in design.coef_names if name not in alpha and name not in design.aliased]
        if missing:
            raise SpecificationError(f"coefficients missing: {', '.join(missing)}", "alpha", "give one number per coefficient")
        alpha = [alpha[design.coef_names[i]] for i in design.kept]
    alpha, theta = numbers_of(alpha, "alpha"), np.atleast_1d(numbers_of(params.get("theta", ()), "theta"))
    sigma = require_number(params["sigma"], "sigma")
    for name, values, length in (("alpha", alpha, len(design.kept)), ("theta", theta, size)):
        if values.shape != (length,) or not np.all(np.isfinite(values)):
            what = f"{name} is not {length} finite numbers"
            raise SpecificationError(what, f"{name}, of shape {values.shape}", f"give {length} numbers")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise SpecificationError(f"sigma is {sigma}", "sigma", "give a standard deviation")
    return alpha, theta, sigma


def simulate(fit: Estimates, nsim: int, seed: int | None) -> pd.DataFrame:
    """Responses drawn from the fitted model, one column per simulation."""
    return fit.model.simulated(fit.fixef_kept, fit.theta, fit._sigma, nsim, seed)


def simulate_frame(problem: Problem, alpha: Array, theta: Array, sigma: float, nsim: int, seed: Any) -> pd.DataFrame:
    """`sim_1`, `sim_2`, ... over the rows used; each column has a stream of its own, so that it does not depend on how many there are."""
    nsim, n = require_count(nsim, "nsim"), problem.design.nobs
    what = f"{nsim:,} simulations of {n:,} rows"
    require_memory("simulated responses", float(nsim) * (3 * n + STREAM_NUMBERS), what, "simulate in parts, each with a seed of its own")
    drawn = simulate_responses(problem, alpha, theta, sigma, seed_sequence(seed).spawn(nsim))
    return pd.DataFrame(drawn, index=problem.design.index, columns=[f"sim_{number + 1}" for number in range(nsim)])


def simulate_responses(problem: Problem, alpha: Array, theta: Array, sigma: float, streams: Sequence[np.random.SeedSequence]) -> Array:
    """One response for every stream of random numbers, (n, len(streams))."""
    design = problem.design
    x = problem.x(theta)
    mean = design.X @ alpha + (0.0 if design.offset is None else design.offset)
    roots = [
        term.map.whole @ _root(sigma**2 * term.standardized_covariance(x, problem.standardization.weight_mean))
        for term in problem.random.terms
    ]
    known = {id(term.relationship): _root(term.relationship) for term in design.terms if term.relationship is not None}
    errors = ErrorDraws.at(problem, x)
    sds = None if problem.held_fitted is None else _SdsOfMeans(problem, x)
    out = np.empty((design.nobs, len(streams)), order="F")
    for column, stream in zip(out.T, streams, strict=True):
        rng = np.random.default_rng(stream)
        noise = errors.draw(sigma, rng)
        column[:] = mean
        for term, root in zip(design.terms, roots, strict=True):
            beta = rng.standard_normal((term.group.size, len(root))) @ root.T
            if term.relationship is not None:
                beta = known[id(term.relationship)] @ beta
            column += term.effects(beta)
        column += noise if sds is None else noise * sds.relative(column)
    return out


class _SdsOfMeans:
    """Standard deviations of errors that depend on the means of the response drawn, relative to those at the fitted values held."""

    def __init__(self, problem: Problem, x: Array) -> None:
        kernel = problem.structured
        assert kernel is not None and problem.held_fitted is not None
        self.problem, self.delta = problem, x[kernel.variance_part]
        self.held = self._logs(problem.held_fitted)

    def _logs(self, fitted: Array) -> Array:
        kernel = self.problem.with_fitted(fitted).structured
        assert kernel is not None
        return kernel.variance.log_multiplier(self.delta)[0]

    def relative(self, means: Array) -> Array:
        """(n,) at these means, which have the offset."""
        offset = self.problem.design.offset
        return np.asarray(np.exp(self._logs(means if offset is None else means - offset) - self.held))


def _root(matrix: Array) -> Array:
    """A square root of a positive semi-definite matrix, which does not change where it is singular by rounding only."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def require_same_rows(values: Any, design: Design, name: str) -> None:
    """Raise DataError for labelled rows that are not those of the data in their order; labels that only count rows are none."""
    if not isinstance(values, pd.Series | pd.DataFrame) or values.index.equals(pd.RangeIndex(len(values))):
        return
    own = values.index if len(values) == design.nobs else values.index[design.rows] if len(values) == design.n_read else design.index
    if not own.equals(design.index):
        where = f"they begin with {label_text(values.index[0])!r}"
        remedy = f"sort {name} as the data, or give {name}.to_numpy() if the order is right"
        raise DataError(f"the rows of {name} have other labels than those of the data, or another order", where, remedy)


def new_response(design: Design, y: Any) -> Design:
    """A design with another response.

    y : one number per row used, or per row of the data (those not used are passed over), or one column of them as `simulate(1)` gives it
    Raises DataError for another length, NonFiniteError for values that are missing or infinite.
    """
    if getattr(y, "shape", ())[1:] == (1,):
        y = y.iloc[:, 0] if isinstance(y, pd.DataFrame) else y[:, 0]
    require_same_rows(y, design, "y")
    values = numbers_of(y, "y", labelled=True)
    if values.ndim != 1 or len(values) not in (design.nobs, design.n_read):
        shape = " x ".join(map(str, values.shape))
        where = f"{design.nobs} rows are used, {design.n_read} were read"
        remedy = "model.fit_many(Y) fits every column of a table" if values.ndim == 2 else "give one number per row"
        raise DataError(f"the new response has shape {shape}", where, remedy)
    if len(values) != design.nobs:
        values = values[design.rows]
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        what = "the new response has values that are missing or infinite"
        raise NonFiniteError(what, f"{len(bad)} rows, the first is {bad[0]}", "fill them in")
    return replace(design, y=freeze(values))
