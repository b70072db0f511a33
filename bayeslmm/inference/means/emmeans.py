"""Estimated marginal means and trends, and what is said about their differences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, label_text
from bayeslmm._validation import require_flag, require_level, require_name
from bayeslmm.data.design import Design
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.tests import FixedEffects, fixed_effects
from bayeslmm.inference.means.linear_functions import restrict_to_kept
from bayeslmm.inference.means.multiplicity import ContrastFamily, adjustment_name, contrast_method, critical_values, p_values, require_pairs
from bayeslmm.inference.means.reference_grid import ReferenceGrid, average_grid, check_variable, grid_factors, reference_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import Adjustment, AxesLike, ContrastMethod, DfMethod, GridWeights, Information, Names, Values, VcovMethod

TREND_STEP = 1e-4
"""Half the step of the slope of a covariate, as a fraction of its range."""


@dataclass(frozen=True, slots=True, eq=False)
class EMMeans:
    """Marginal means (or slopes) of the levels of factors.

    frame : the factor columns, then `estimate, std_error, df, conf_low, conf_high, statistic, p_value`; NaN where not estimable
    L : (m, p) rows over the coefficients kept; NaN rows are not estimable
    offsets : (m,) what the offset adds; notes : what a reader should know
    """

    frame: pd.DataFrame
    L: Array
    offsets: Array
    specs: tuple[str, ...]
    by: tuple[str, ...]
    effects: FixedEffects
    conf_level: float
    notes: tuple[str, ...]

    def pairs(self, adjust: Adjustment | None = None, reverse: bool = False) -> pd.DataFrame:
        """All differences of two means, within the levels of `by`.

        Parameters
        ----------
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, optional
            "tukey" (default), "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr" or "none".
        reverse : bool, default False
            Whether differences are taken the other way round.

        Returns
        -------
        DataFrame
            `contrast`, the `by` columns, `estimate, std_error, df, conf_low, conf_high, statistic, p_value`.

        Examples
        --------
        >>> emmeans(fit, "Days", at={"Days": [0, 9]}).pairs()["contrast"].tolist()
        ['0 - 9']
        """
        return self.contrast("revpairwise" if require_flag(reverse, "reverse") else "pairwise", adjust)

    def contrast(self, method: ContrastMethod = "effect", adjust: Adjustment | None = None, ref: str | float | None = None) -> pd.DataFrame:
        """Contrasts of the means, within the levels of `by`; columns as in `pairs`.

        Parameters
        ----------
        method : str, Mapping or array_like, default "effect"
            "pairwise", "revpairwise", "trt.vs.ctrl", "poly", "consec", "effect", "identity", {label: weights} or an array.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, optional
            What goes with the method by default ("tukey" for pairs, "dunnett" against a control, "mvt" for neighbours).
        ref : str or float, optional
            The control of "trt.vs.ctrl".

        Returns
        -------
        DataFrame
            One row for each contrast.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).contrast("revpairwise")["estimate"].round(2).tolist()
        [94.21]
        """
        frames = [self._family(rows, method, adjust, ref) for rows in self._groups()]
        return pd.concat(frames, ignore_index=True)

    def joint(self) -> pd.DataFrame:
        """F tests that the means are all equal, one row for each level of `by`: `num_df, den_df, statistic, p_value`.

        Returns
        -------
        DataFrame
            One row for each level of `by`.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).joint()["num_df"].tolist()
        [1]
        """
        rows = []
        for group in self._groups():
            fine = group[np.isfinite(self.L[group]).all(axis=1)]
            L = self.L[fine[1:]] - self.L[fine[:1]]
            test = self.effects.joint(L, self.offsets[fine[:1]] - self.offsets[fine[1:]])
            key = {name: self.frame[name].iloc[group[0]] for name in self.by}
            rows.append(key | {"num_df": test.num_df, "den_df": test.den_df, "statistic": test.statistic, "p_value": test.p_value})
        return pd.DataFrame(rows)

    def plot(self, comparisons: bool = False, adjust: Adjustment = "tukey", x: str | None = None, ax: AxesLike = None) -> list[Axes]:
        """Means with their intervals, a panel for each level of `by`; or joined lines along one of the variables.

        Parameters
        ----------
        comparisons : bool, default False
            Also arrows whose overlap says which pairs do not differ under `adjust`.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, default "tukey"
            Adjustment of p values and limits for several comparisons.
        x : str, optional
            The variable that goes along the axis in one panel.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = emmeans(fit, "Days", at={"Days": [0, 9]}).plot()
        """
        from bayeslmm.plots.intervals import emmeans_axes

        return emmeans_axes(self, comparisons, adjust, x, ax)

    def _groups(self) -> list[Any]:
        """Rows of the frame for every combination of the `by` columns."""
        if not self.by:
            return [np.arange(len(self.frame))]
        return [np.asarray(rows) for rows in self.frame.groupby(list(self.by), sort=False, observed=True).indices.values()]

    def _labels(self, rows: Any) -> list[str]:
        return [" ".join(label_text(self.frame[name].iloc[i]) for name in self.specs) or "overall" for i in rows]

    def _family(self, rows: Any, method: Any, adjust: str | None, ref: Any) -> pd.DataFrame:
        made: ContrastFamily = contrast_method(method, self._labels(rows), ref)
        name = adjustment_name(adjust) if adjust is not None else made.adjust
        require_pairs(name, made.pairwise)
        L, shift = _weighted_rows(made.weights, self.L[rows]), _weighted_rows(made.weights, self.offsets[rows][:, None])[:, 0]
        table = with_tests(self.effects, L, shift, self.conf_level, name, int(np.isfinite(self.L[rows]).all(axis=1).sum()))
        lead = {"contrast": list(made.labels)} | {name: [self.frame[name].iloc[rows[0]]] * len(made.labels) for name in self.by}
        return pd.concat([pd.DataFrame(lead, index=table.index), table], axis=1)

    def __repr__(self) -> str:
        return "\n".join([self.frame.to_string(index=False), *self.notes])

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False) + "".join(f"<p>{escape(note)}</p>" for note in self.notes)


def _weighted_rows(weights: Array, rows: Array) -> Array:
    """weights @ rows, where NaN rows count only if they have a weight."""
    bad = ~np.isfinite(rows).all(axis=1)
    out = weights @ np.where(bad[:, None], 0.0, rows)
    out[(np.abs(weights[:, bad]) > 0).any(axis=1)] = np.nan
    return np.asarray(out)


def with_tests(effects: FixedEffects, L: Array, shift: Array, level: float, adjust: str = "none", means: int = 0) -> pd.DataFrame:
    """Estimates with limits and tests against 0, NaN where L is."""
    fine = np.isfinite(L).all(axis=1)
    out = {name: np.full(len(L), np.nan) for name in ("estimate", "std_error", "df", "conf_low", "conf_high", "statistic", "p_value")}
    t = effects.t(L[fine], -shift[fine])
    for name, values in {"estimate": t.estimate + shift[fine], "std_error": t.std_error, "df": t.df, "statistic": t.statistic}.items():
        out[name][fine] = values
    if adjust == "none":
        out["p_value"][fine] = t.p_value
        crosses = critical_values("none", level, t.df, np.eye(len(t.df)), means)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            R = effects.covariance(L[fine]) / np.outer(t.std_error, t.std_error)
        out["p_value"][fine] = p_values(adjust, t.statistic, t.df, R, means)
        crosses = critical_values(adjust, level, t.df, R, means)
    out["conf_low"][fine] = out["estimate"][fine] - crosses * t.std_error
    out["conf_high"][fine] = out["estimate"][fine] + crosses * t.std_error
    return pd.DataFrame(out)


# -- doors -------------------------------------------------------------------------------------------------------------------------------


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
) -> EMMeans:
    """Marginal means: the model's predictions over a grid of all factor levels, covariates at their means, averaged over what is not asked.

    specs : a variable or variables, also as "~ ARMCD | AVISIT"; by : variables whose levels are kept apart
    at : variable -> values in place of its levels or its mean
    weights : "equal", "proportional" (to the frequencies of what is averaged over), "outer", "cells" or "flat" (cells that have data)

    >>> emmeans(fit, "Days", at={"Days": [0, 9]}).frame["estimate"].round(2).tolist()
    [251.41, 345.61]
    """
    grid = reference_grid(fit.design, at)
    wanted, given = _wanted_variables(specs, by, grid)
    mean = average_grid(grid, (*wanted, *given), weights, fit.design)
    rows, offset = fit.design.encoding.fixed(grid.frame)[0], _offset(fit.design, grid)
    effects = fixed_effects(fit, df, vcov, information, cluster).of_mean(frozenset((*wanted, *given)))
    notes = _interaction_note(fit.design, (*wanted, *given))
    return _made(fit, effects, mean.of(rows), mean.of(offset), grid, mean.places, wanted, given, conf_level, notes)


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
    own = dict(at or {})
    own.setdefault(var, covariates[var].mean)
    grid = reference_grid(design, own)
    wanted, given = _wanted_variables(specs or (), by, grid)
    mean = average_grid(grid, (*wanted, *given), weights, design)
    slopes = _derivative(design, grid.frame, var)
    effects = fixed_effects(fit, df, vcov, information, cluster).of_mean(frozenset((*wanted, *given, var)))
    L = mean.of(slopes)
    return _made(fit, effects, L, np.zeros(len(L)), grid, mean.places, wanted, given, conf_level, (f"slopes of {var}",))


def _derivative(design: Design, frame: pd.DataFrame, var: str) -> Array:
    """Rows of the fixed effects differentiated along a covariate, by three points; at an end of its range, within it: splines end there."""
    covariate = design.encoding.covariates[var]
    low, high = covariate.low, covariate.high
    step = TREND_STEP * ((high - low) or 1.0)
    at = frame[var].to_numpy(float)
    inside = (low <= at) & (at <= high) & (low < high)
    side = np.where(inside & (at - step < low), 1.0, np.where(inside & (at + step > high), -1.0, 0.0))
    places = np.where(side == 0.0, np.array([[-1.0], [0.0], [1.0]]), side * np.array([[0.0], [1.0], [2.0]]))
    weights = np.where(side == 0.0, np.array([[-0.5], [0.0], [0.5]]), side * np.array([[-1.5], [2.0], [-0.5]]))
    rows = [design.encoding.fixed(frame.assign(**{var: at + step * place}))[0] for place in places]
    return np.asarray(sum(weight[:, None] * row for weight, row in zip(weights, rows, strict=True)) / step)


def _made(
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
) -> EMMeans:
    """Assemble means: rows that are not estimable are NaN, and it is said."""
    conf_level = require_level(conf_level)
    empty = ~np.isfinite(L).all(axis=1)
    own, estimable = restrict_to_kept(np.where(empty[:, None], 0.0, L), fit.design, fit.problem.standardization)
    own = np.where((estimable & ~empty)[:, None], own, np.nan)
    columns = {name: _levels(grid, name, places[:, j]) for j, name in enumerate((*specs, *by))}
    table = with_tests(effects, own, offset, conf_level)
    frame = pd.concat([pd.DataFrame(columns, index=table.index), table], axis=1)
    if not estimable.all():
        how_many = f"{int((~estimable).sum())} of {len(estimable)} means are not estimable"
        notes = (*notes, f"{how_many}: the data have no rows in some cells that they average")
    return EMMeans(frame, own, offset, specs, by, effects, conf_level, notes)


def _levels(grid: ReferenceGrid, name: str, places: Any) -> Any:
    values = np.empty(len(grid.values[name]), dtype=object)
    values[:] = grid.values[name]
    found = values[places]
    if name in grid.factors:
        return pd.Categorical(found, categories=list(dict.fromkeys(values)))
    return found.astype(float)


def _offset(design: Design, grid: ReferenceGrid) -> Array:
    offset = design.encoding.offset(grid.frame)
    if offset is None:
        given = design.moments.offset
        return np.full(len(grid.frame), 0.0 if given is None else float(given.mean()))
    return offset


def _wanted_variables(specs: Any, by: Any, grid: ReferenceGrid) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names before and after the bar."""
    given = _names(by, grid)
    if isinstance(specs, str) and specs not in grid.names:
        left, _, right = specs.rpartition("~")[2].partition("|")
        specs, given = left, (*given, *_names(right, grid))
    wanted = tuple(name for name in _names(specs, grid) if name not in given)
    return wanted, tuple(dict.fromkeys(given))


def _names(given: Any, grid: ReferenceGrid) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        given = [given] if given in grid.names else [part.strip() for part in re.split(r"[*+:,]", given) if part.strip() not in ("", "1")]
    if not isinstance(given, Sequence):
        raise SpecificationError(f"{given!r} names no variables", "specs=", "a name, a list of names, or '~ a | b'")
    return tuple(dict.fromkeys(check_variable(name, grid.names) for name in given))


def _interaction_note(design: Design, kept: tuple[str, ...]) -> tuple[str, ...]:
    """Averaging over a factor that interacts with one that is kept."""
    factors = design.encoding.levels
    for term in dict.fromkeys(design.coef_terms):
        parts = [p for p in term.split(":") if p in factors]
        if any(p in kept for p in parts) and any(p not in kept for p in parts):
            return ("results may be misleading: what is averaged over takes part in interactions",)
    return ()
