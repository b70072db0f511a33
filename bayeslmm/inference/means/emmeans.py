"""Estimated marginal means and trends: averages of predictions, or of their slopes, over a reference grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._validation import require_level, require_mapping, require_name
from bayeslmm.data.design import Design
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.tests import FixedEffects, check_options, fixed_effects
from bayeslmm.inference.means.hypothesis import Hypothesis
from bayeslmm.inference.means.linear_functions import restrict_to_kept
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.inference.means.multiplicity import (
    contrast_method,
    family_tests,
)
from bayeslmm.inference.means.reference_grid import (
    ReferenceGrid,
    average_grid,
    averaging_note,
    check_variable,
    grid_factors,
    grid_offset,
    interaction_note,
    level_column,
    reference_grid,
    wanted_variables,
)
from bayeslmm.inference.variance_components import unit_variances
from bayeslmm.results.render import add_notes
from bayeslmm.results.response_scale import ResponseScale, response_options, transformed_response

if TYPE_CHECKING:
    from bayeslmm._types import (
        DfMethod,
        GridWeights,
        Information,
        Names,
        ResponseType,
        Values,
        VcovMethod,
    )

TREND_STEP, LONGEST_TREND_STEP = 1e-4, 1e-2
"""Half the step of the slope of a covariate, as a fraction of its range: where it starts near 0, and at most."""


def emmeans(
    fit: Fitted,
    specs: Names,
    by: Names | None = None,
    at: Mapping[str, Values] | None = None,
    weights: GridWeights = "equal",
    df: DfMethod = "satterthwaite",
    vcov: VcovMethod | None = None,
    information: Information = "expected",
    conf_level: float = 0.95,
    cluster: str | None = None,
    type: ResponseType = "link",  # noqa: A002
    bias_adjust: bool | float = False,
) -> EMMeans:
    """Marginal means: the model's predictions over a grid of all factor levels, covariates at their means, averaged over what is not asked.

    specs : a variable or variables, also as "~ ARMCD | AVISIT", or "pairwise ~ ARMCD" with the contrasts to go with the means
    by : variables whose levels are kept apart
    at : variable -> values in place of its levels or its mean
    weights : "equal", "proportional" (to the frequencies of what is averaged over), "outer", "cells" or "flat" (cells that have data)
    type : "link", as the model has the response; "response", taken back from `log(y)`, `sqrt(y)`, ...: pairs of logarithms are ratios then
    bias_adjust : with "response", True adds half the curvature times the variance of a response about its mean, so that means are of
        responses; a number is the sd to take

    >>> emmeans(fit, "Days", at={"Days": [0, 9]}).frame["estimate"].round(2).tolist()
    [251.41, 345.61]
    """
    scale, sd = scale_and_sd(fit, type, bias_adjust)
    grid = reference_grid(fit.design, at)
    wanted, by_names, asked = wanted_variables(specs, by, grid)
    mean = average_grid(grid, (*wanted, *by_names), weights, fit.design)
    rows, offset = fit.design.encoding.encode_fixed(grid.frame)[0], grid_offset(fit.design, grid)
    effects = fixed_effects(fit, df, vcov, information, cluster).of_mean(frozenset((*wanted, *by_names)))
    notes = (*averaging_note(grid, (*wanted, *by_names), weights), *interaction_note(fit.design, (*wanted, *by_names)))
    notes = (*notes, *_scale_notes(fit.design, scale, sd))
    made = _assemble_means(fit, effects, mean.of(rows), mean.of(offset), grid, mean.places, wanted, by_names, conf_level, notes, df, vcov)
    made = replace(made, asked=asked)
    return made if scale is None else _take_back_means(made, scale, sd)


def scale_and_sd(fit: Fitted, type: Any, bias_adjust: Any) -> tuple[ResponseScale | None, float]:  # noqa: A002
    """The scale to go back to, None to stay, and the sd of responses that means are adjusted by."""
    scale, sd = response_options(fit.design, type, bias_adjust)
    if sd is None:
        sd = float(np.sqrt(unit_variances(fit, fit.point.x).sum() * fit.problem.sigma2(fit.point.sigma2)))
    return scale, sd


def _scale_notes(design: Design, scale: ResponseScale | None, sd: float) -> tuple[str, ...]:
    if scale is None:
        name = transformed_response(design)
        return () if name is None else (f"on the scale of {name}, not of the response",)
    adjusted = (f"adjusted for bias with the sd {sd:.4g}",) if sd else ()
    return (f"taken back from the scale of {scale.name}", *adjusted)


def _take_back_means(means: EMMeans, scale: ResponseScale, sd: float) -> EMMeans:
    """Means and limits taken back; standard errors by the delta method; tests stay."""
    frame = pd.DataFrame(means.frame)
    value, slope = scale.moments(frame["estimate"].to_numpy(float), sd)
    low, high = scale.limits(frame["conf_low"].to_numpy(float), frame["conf_high"].to_numpy(float), sd)
    table = frame.assign(estimate=value, std_error=np.abs(slope) * frame["std_error"], conf_low=low, conf_high=high)
    notes = getattr(means.frame, "notes", ())
    return replace(means, frame=add_notes(table, notes), scale=scale)


def emtrends(
    fit: Fitted,
    var: str,
    specs: Names | None = None,
    by: Names | None = None,
    at: Mapping[str, Values] | None = None,
    weights: GridWeights = "equal",
    df: DfMethod = "satterthwaite",
    vcov: VcovMethod | None = None,
    information: Information = "expected",
    conf_level: float = 0.95,
    cluster: str | None = None,
) -> EMMeans:
    """Slopes of a covariate, by the levels of factors: the derivative of the prediction at the covariate's mean, or at `at[var]`.

    >>> emtrends(fit, "Days").frame["estimate"].round(2).tolist()
    [10.47]
    """
    design = fit.design
    covariates = design.encoding.covariates
    if require_name(var, "var") not in covariates:
        check_variable(var, (*covariates, *grid_factors(design)))
        where = f"covariates: {', '.join(covariates) or 'none'}"
        raise SpecificationError(f"{var!r} is a factor and has no slope", where, "use emmeans and its pairs")
    own = require_mapping(at, "at", '{"x": [0, 1]}')
    own.setdefault(var, covariates[var].mean)
    grid = reference_grid(design, own)
    wanted, by_names, asked = wanted_variables(() if specs is None else specs, by, grid)
    mean = average_grid(grid, (*wanted, *by_names), weights, design)
    slopes = _derivative(design, grid.frame, var)
    effects = fixed_effects(fit, df, vcov, information, cluster).of_mean(frozenset((*wanted, *by_names, var)))
    L = mean.of(slopes)
    notes = (f"slopes of {var}", *averaging_note(grid, (*wanted, *by_names), weights), *_scale_notes(design, None, 0.0))
    made = _assemble_means(fit, effects, L, np.zeros(len(L)), grid, mean.places, wanted, by_names, conf_level, notes, df, vcov)
    return replace(made, asked=asked)


def _derivative(design: Design, frame: pd.DataFrame, var: str) -> Array:
    """Rows of the fixed effects differentiated along a covariate, by three points; at an end of its range, within it: splines end there."""
    covariate = design.encoding.covariates[var]
    low, high = covariate.low, covariate.high
    span = (high - low) or 1.0
    at = frame[var].to_numpy(float)
    # farther from 0 a longer step, for values there are rounder; a power of 2, which adds without rounding
    known = np.cbrt(np.finfo(float).eps * np.abs(at).max(initial=0.0) / span)
    step = 2.0 ** np.round(np.log2(span * np.clip(known, TREND_STEP, LONGEST_TREND_STEP)))
    inside = (low <= at) & (at <= high) & (low < high)
    side = np.where(inside & (at - step < low), 1.0, np.where(inside & (at + step > high), -1.0, 0.0))
    places = np.where(side == 0.0, np.array([[-1.0], [0.0], [1.0]]), side * np.array([[0.0], [1.0], [2.0]]))
    weights = np.where(side == 0.0, np.array([[-0.5], [0.0], [0.5]]), side * np.array([[-1.5], [2.0], [-0.5]]))
    rows = [design.encoding.encode_fixed(frame.assign(**{var: at + step * place}))[0] for place in places]
    return np.asarray(sum(weight[:, None] * row for weight, row in zip(weights, rows, strict=True)) / step)


def _assemble_means(
    fit: Fitted,
    effects: FixedEffects,
    L: Array,
    offset: Array,
    grid: ReferenceGrid,
    places: Any,
    specs: tuple[str, ...],
    by: tuple[str, ...],
    conf_level: float,
    notes: tuple[str, ...],
    df: Any,
    vcov: Any,
) -> EMMeans:
    """Assemble means: rows that are not estimable are NaN, and it is said."""
    conf_level = require_level(conf_level)
    empty = ~np.isfinite(L).all(axis=1)
    own, estimable = restrict_to_kept(np.where(empty[:, None], 0.0, L), fit.design, fit.problem.standardization)
    own = np.where((estimable & ~empty)[:, None], own, np.nan)
    columns: dict[str, Any] = {name: level_column(grid, name, places[:, j]) for j, name in enumerate((*specs, *by))}
    identity = contrast_method("identity", [""] * len(own))
    columns |= family_tests(effects, identity, own, offset, conf_level, "none", 0, Hypothesis())
    if not estimable.all():
        how_many = f"{int((~estimable).sum())} of {len(estimable)} means are not estimable"
        notes = (*notes, f"{how_many}: the data have no rows in some cells that they average")
    choice = check_options(df, vcov)
    about = f"degrees of freedom: {choice.df}" + (f"; covariance {choice.vcov}" if choice.vcov.startswith("CR") else "")
    return EMMeans(add_notes(columns, (*notes, about)), own, offset, specs, by, effects, conf_level, notes, fit, None, about)
