"""`fit.plot`: every figure of a fit, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._types import RanefPlot
from bayeslmm._validation import require_flag, require_level, require_name, require_one_of
from bayeslmm.inference.influence import influence, influence_of_rows, sampled_rows
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.intervals.profile import profile
from bayeslmm.inference.means.effects import (
    difference_table,
    effect_table,
    interaction_p_value,
    line_table,
    subgroup_table,
    term_variables,
)
from bayeslmm.inference.means.emmeans import emmeans
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.inference.tidy import confint
from bayeslmm.plots.effects import effect_axes, is_ordered, subgroup_axes
from bayeslmm.plots.intervals import bootstrap_axes, emmeans_axes, forest_axes, profile_axes
from bayeslmm.plots.levels import influence_axes, lines_axes, ranef_axes, ranef_pairs_axes, ranef_quantiles_axes
from bayeslmm.plots.residuals import acf_axes, fitted_axes, leverage_axes, qq_axes, residual_axes
from bayeslmm.plots.style import panels, percent
from bayeslmm.plots.subjects import covariance_axes, covariance_matrices, profiles_axes, variogram_axes
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import fitted_values, mode_frames
from bayeslmm.results.foreign_names import PLOT_ATTRIBUTES, known_arguments, public_verbs, refuse_outcome
from bayeslmm.results.response_scale import response_options, scale_name

if TYPE_CHECKING:
    from bayeslmm._types import (
        Adjustment,
        AxesLike,
        BootstrapInterval,
        BootstrapKind,
        ConfMethod,
        ContrastMethod,
        DfMethod,
        GridWeights,
        Information,
        Level,
        LikelihoodKind,
        Names,
        ResidualKind,
        ResponseType,
        StatisticValues,
        Values,
        VcovMethod,
    )


REFITTED = 300
"""Levels up to which a figure of influence estimates covariance parameters again without each."""


class FitPlots:
    """Figures of a fit. Each takes `ax=` and returns Matplotlib axes; those of several panels take and return a list of them."""

    def __init__(self, fit: Estimates) -> None:
        self._fit = fit

    def __call__(self, ax: AxesLike = None) -> list[Axes]:
        """The four figures to look at first: observed against fitted, residuals, their quantiles, the largest influence of rows.

        Parameters
        ----------
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot()
        """
        axes = panels(ax, 4, width=4.6, height=3.6)
        first, second, third, fourth = axes
        return [self.fitted(ax=first), self.residuals(ax=second), self.qq(ax=third), self.leverage(ax=fourth)]

    def lines(
        self,
        x: str,
        by: str | None = None,
        *,
        levels: bool = True,
        points: bool = True,
        conf_level: float = 0.95,
        type: ResponseType = "link",  # noqa: A002
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        ax: Axes | None = None,
    ) -> Axes:
        """The data against x with the fitted line of the population and a thin one for each level.

        The line is of marginal means: averaged over the other factors, other covariates at their means, as the caption says.

        Parameters
        ----------
        x : str
            Variable along the horizontal axis.
        by : str, optional
            Factor that tells lines apart.
        levels : bool, default True
            Whether a thin line is drawn for each level of the first grouping factor.
        points : bool, default True
            Whether the data are drawn.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        type : {"link", "response"}, default "link"
            "link", as the model has the response; "response", taken back from `log(y)`, `sqrt(y)`, ...
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of the levels of factors that are averaged over.
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.lines("Days", by="Subject")
        """
        fit, design = self._fit, self._fit.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> EMMeans:
            return emmeans(fit, names, by, at, weights, df="asymptotic", conf_level=conf_level, type=type)

        def population(split: str | None) -> tuple[pd.DataFrame, Sequence[str]]:
            table = line_table(design, ask, x, split, at, weights)
            return table.frame, table.notes

        return lines_axes(
            design,
            lambda: fitted_values(fit, "conditional"),
            population,
            x,
            by,
            levels=levels,
            points=points,
            conf_level=conf_level,
            scale=response_options(design, type, bias_adjust=False)[0],
            label=scale_name(design, type),
            ax=ax,
        )

    def effects(
        self,
        term: Names,
        x: str | None = None,
        ax: AxesLike = None,
        *,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        information: Information = "expected",
        conf_level: float = 0.95,
        cluster: str | None = None,
        type: ResponseType = "link",  # noqa: A002
        bias_adjust: bool | float = False,
    ) -> list[Axes]:
        """What a term of the fixed effects does: marginal means over the range or the levels of its variables, with intervals.

        The variables of an interaction are an axis, lines and panels, in this order; numbers go along the axis, and others of them have
        lines at their mean and one sd to either side. The rest is averaged over as marginal means are, which the caption says.

        Parameters
        ----------
        term : str or sequence of str
            A term of the fixed effects, `"arm:visit"`, or its variables.
        x : str, optional
            The variable along the horizontal axis.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of the levels of factors that are averaged over.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.
        type : {"link", "response"}, default "link"
            "link", as the model has the response; "response", taken back from `log(y)`, `sqrt(y)`, ...
        bias_adjust : bool or float, default False
            With "response": means of responses, which are not the inverse at the mean; a number is the sd of a response about it.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.effects("Days")
        """
        design = self._fit.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> EMMeans:
            return emmeans(self._fit, names, by, at, weights, df, vcov, information, conf_level, cluster, type, bias_adjust)

        table = effect_table(design, ask, term_variables(design, term), x, at, weights)
        label = f"marginal mean, {scale_name(design, type)} ({percent(conf_level)} interval)"
        joined = bool(table.lines) or is_ordered(design, table.x)
        return effect_axes(table.frame, table.x, table.lines, table.parts, label, notes=table.notes, joined=joined, ax=ax)

    def differences(
        self,
        specs: Names | None = None,
        by: Names | None = None,
        ax: AxesLike = None,
        *,
        method: ContrastMethod = "trt.vs.ctrl",
        ref: str | float | None = None,
        adjust: Adjustment | None = "none",
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        type: ResponseType = "link",  # noqa: A002
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        information: Information = "expected",
        conf_level: float = 0.95,
        cluster: str | None = None,
    ) -> list[Axes]:
        """Differences between levels along another variable, such as those of arms over visits, with intervals and the line of none.

        Parameters
        ----------
        specs : str or sequence of str, optional
            Factors whose levels are compared; by default one that interacts with a variable that has an order.
        by : str or sequence of str, optional
            Where they are compared: the first along the axis, others a panel each; by default that variable, such as the visit.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        method : str, Mapping or array_like, default "trt.vs.ctrl"
            Family of contrasts, as of marginal means: "trt.vs.ctrl", "pairwise", a mapping of label to weights.
        ref : str or float, optional
            The control of "trt.vs.ctrl", the first level by default.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "dunnett", "mvt", "fdr", "none"}, default "none"
            Adjustment of the limits for the comparisons at one place; None for what goes with the method.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of the levels of factors that are averaged over.
        type : {"link", "response"}, default "link"
            "response" takes means of a transformed response back first: differences on a logarithm become ratios, and the line is at 1.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.differences("Days", at={"Days": [0, 3, 6, 9]})
        """
        design = self._fit.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> EMMeans:
            return emmeans(self._fit, names, by, at, weights, df, vcov, information, conf_level, cluster, type)

        table = difference_table(design, ask, lambda means: means.contrast(method, adjust, ref), specs, by, at, weights)
        label = f"{table.label(scale_name(design))} ({percent(conf_level)} interval)"
        joined = table.x != "contrast"
        return effect_axes(table.frame, table.x, table.lines, table.parts, label, notes=table.notes, joined=joined, null=table.null, ax=ax)

    def subgroups(
        self,
        treatment: str,
        factors: Names | None = None,
        ax: Axes | None = None,
        *,
        method: ContrastMethod = "trt.vs.ctrl",
        ref: str | float | None = None,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        information: Information = "expected",
        conf_level: float = 0.95,
        cluster: str | None = None,
    ) -> Axes:
        """A forest of the differences between treatments: of all, and within the levels of factors that interact with the treatment.

        Beside each its number, and for each factor the p value of the test that the differences are the same at all its levels.

        Parameters
        ----------
        treatment : str
            Factor whose levels are compared.
        factors : str or sequence of str, optional
            Factors of subgroups; by default all without an order that interact with the treatment.
        ax : Axes, optional
            Axes to draw on; a new figure without.
        method : str, Mapping or array_like, default "trt.vs.ctrl"
            Family of contrasts, as of marginal means.
        ref : str or float, optional
            The control of "trt.vs.ctrl", the first level by default.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of the levels of factors that are averaged over.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> rows = sleepstudy.assign(late=sleepstudy["Days"] > 4, half=sleepstudy["Subject"].astype(str) < "335")
        >>> axes = blm.LMM("Reaction ~ late * half + (1 | Subject)", rows).fit().plot.subgroups("late", "half")
        """
        design = self._fit.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> EMMeans:
            return emmeans(self._fit, names, by, at, weights, df, vcov, information, conf_level, cluster)

        def differ(means: EMMeans) -> pd.DataFrame:
            return means.contrast(method, "none", ref)

        table, notes = subgroup_table(design, ask, differ, interaction_p_value, treatment, factors, at, weights)
        return subgroup_axes(table, f"difference, {scale_name(design)} ({percent(conf_level)} interval)", notes=notes, ax=ax)

    def profiles(
        self, by: str | None = None, x: str | None = None, ax: AxesLike = None, *, dropout: bool = True, levels: bool = True
    ) -> list[Axes]:
        """Observed profiles of subjects over time, thin, and observed means, a line for each time at which subjects were last seen.

        Parameters
        ----------
        by : str, optional
            Factor with a panel for each level, such as the arm.
        x : str, optional
            Time along the horizontal axis; by default the visit of the residual structure, or a column that differs within subjects.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        dropout : bool, default True
            Whether subjects are told apart by when they were last seen.
        levels : bool, default True
            Whether profiles are drawn beside the means.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.profiles()
        """
        design = self._fit.design
        return profiles_axes(design, design.y, scale_name(design), by, x, dropout=dropout, levels=levels, ax=ax)

    def variogram(self, kind: ResidualKind = "pearson", x: str | None = None, ax: Axes | None = None) -> Axes:
        """Semivariances of residuals within subjects by their distance: what correlation is left, or what a structure makes of it.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized", "marginal"}, default "pearson"
            "response", "pearson", "normalized" or "marginal".
        x : str, optional
            Column whose distances count; by default the visit or the place of the residual structure, or a time within subjects.
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.variogram()
        """
        return variogram_axes(self._fit, kind, x, ax)

    def covariance(self, ax: AxesLike = None) -> list[Axes]:
        """Correlations of the errors over visits, R, and of the random effects of each factor, D, as colours and numbers.

        Parameters
        ----------
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.covariance()
        """
        return covariance_axes(covariance_matrices(self._fit.D, self._fit.R), ax)

    def fitted(self, level: Level = "conditional", ax: Axes | None = None) -> Axes:
        """Observed against fitted values.

        Parameters
        ----------
        level : {"conditional", "population"}, default "conditional"
            "conditional" on the random effects, or of the "population".
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.fitted()
        """
        return fitted_axes(self._fit, level, ax)

    def residuals(self, kind: ResidualKind = "pearson", against: str | None = None, ax: Axes | None = None) -> Axes:
        """Residuals against fitted values, or against a column.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized", "marginal"}, default "pearson"
            "response", "pearson", "normalized" or "marginal".
        against : str, optional
            Column along the horizontal axis; the fitted values by default.
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.residuals(against="Days")
        """
        return residual_axes(self._fit, kind, against, ax)

    def qq(self, kind: ResidualKind = "normalized", ax: Axes | None = None) -> Axes:
        """Normal quantiles of the residuals.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized", "marginal"}, default "normalized"
            "response", "pearson", "normalized" or "marginal".
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.qq()
        """
        return qq_axes(self._fit, kind, ax)

    def acf(self, kind: ResidualKind = "normalized", lags: int | None = None, ax: Axes | None = None) -> Axes:
        """Autocorrelation of the residuals within subjects: what a structure of the errors leaves over.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized", "marginal"}, default "normalized"
            "response", "pearson", "normalized" or "marginal".
        lags : int, optional
            Longest lag.
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.acf()
        """
        return acf_axes(self._fit, kind, lags, ax)

    def ranef(
        self,
        group: str | None = None,
        conf_level: float = 0.95,
        sort: bool = True,
        ax: AxesLike = None,
        *,
        kind: RanefPlot = "caterpillar",
    ) -> list[Axes]:
        """The random effects of a grouping factor: a caterpillar for each column, their normal quantiles, or columns in pairs.

        Parameters
        ----------
        group : str, optional
            Grouping factor; the first by default.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        sort : bool, default True
            Whether levels of a caterpillar are sorted by their mode.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        kind : {"caterpillar", "qq", "pairs"}, default "caterpillar"
            "caterpillar", modes with intervals; "qq", against normal quantiles; "pairs", every two columns against each other.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.ranef()
        >>> (axes,) = fit.plot.ranef(kind="pairs")
        """
        require_level(conf_level)
        require_flag(sort, "sort")
        require_one_of(kind, get_args(RanefPlot), "kind")
        if kind == "caterpillar":
            return ranef_axes(self._fit, group, conf_level, sort, ax)
        return (ranef_quantiles_axes if kind == "qq" else ranef_pairs_axes)(mode_frames(self._fit), group, ax)

    def leverage(self, ax: Axes | None = None) -> Axes:
        """Residuals against leverage, the most influential rows named.

        Parameters
        ----------
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.leverage()
        """
        rows = sampled_rows(self._fit)
        return leverage_axes(self._fit, influence_of_rows(self._fit, rows), rows, ax)

    def influence(self, group: str, ax: Axes | None = None, *, refit: bool | None = None) -> Axes:
        """Cook's distance of the levels of a grouping factor.

        Parameters
        ----------
        group : str
            Grouping factor whose levels are left out.
        ax : Axes, optional
            Axes to draw on; a new figure without.
        refit : bool, optional
            Covariance parameters estimated again without each level; None does so up to a few hundred levels.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.influence("Subject")
        """
        refits = self._fit.design.groups.get(require_name(group, "group"), 0) <= REFITTED
        return influence_axes(influence(self._fit, group, refit=refits if refit is None else refit), group, ax)

    def profile(
        self,
        absolute: bool = False,
        ax: AxesLike = None,
        *,
        criterion: LikelihoodKind = "ML",
        terms: Names | None = None,
        conf_level: float = 0.99,
    ) -> list[Axes]:
        """zeta of every parameter; `criterion`, `terms` and `conf_level` as in `fit.profile`.

        Parameters
        ----------
        absolute : bool, default False
            Whether the size of zeta is drawn, as a valley.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        criterion : {"REML", "ML"}, default "ML"
            Likelihood that is profiled, "REML" or "ML"; for intervals by default that of the fit.
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        conf_level : float, default 0.99
            Level of the limits, between 0 and 1.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.profile(terms=["Days"])
        """
        return profile_axes(profile(self._fit, criterion, terms, conf_level), absolute, ax)

    def confint(
        self,
        method: ConfMethod = "wald",
        conf_level: float = 0.95,
        ax: Axes | None = None,
        *,
        intercept: bool = False,
        terms: Names | None = None,
        criterion: LikelihoodKind | None = None,
        n: int | None = None,
        seed: int | None = None,
        kind: BootstrapKind | None = None,
        interval: BootstrapInterval | None = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> Axes:
        """Fixed effects with their limits; the other arguments are those of `fit.confint`.

        Parameters
        ----------
        method : {"wald", "profile", "bootstrap"}, default "wald"
            "wald", "profile" or "bootstrap".
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        ax : Axes, optional
            Axes to draw on; a new figure without.
        intercept : bool, default False
            Show it too, though its scale may dwarf the others'.
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        criterion : {"REML", "ML"}, optional
            Of `fit.confint`.
        n : int, optional
            Of `fit.confint`.
        seed : int, optional
            Of `fit.confint`.
        kind : {"parametric", "case"}, optional
            Of `fit.confint`.
        interval : {"percentile", "basic", "bca"}, optional
            Of `fit.confint`.
        workers : int, optional
            Of `fit.confint`.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.confint()
        """
        limits = confint(
            self._fit,
            method,
            conf_level,
            terms=terms,
            criterion=criterion,
            n=n,
            seed=seed,
            kind=kind,
            interval=interval,
            workers=workers,
            progress=progress,
        )
        return forest_axes(self._fit, limits, method, conf_level, intercept, ax)

    def bootstrap(
        self,
        n: int = 1000,
        seed: int | None = None,
        conf_level: float = 0.95,
        ax: AxesLike = None,
        *,
        kind: BootstrapKind = "parametric",
        group: str | None = None,
        statistic: Callable[[Estimates], StatisticValues] | None = None,
        workers: int = 1,
        progress: bool | None = None,
    ) -> list[Axes]:
        """Histograms of bootstrap replicates; the other arguments are those of `fit.bootstrap`.

        Parameters
        ----------
        n : int, default 1000
            Number of replicates.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        kind : {"parametric", "case"}, default "parametric"
            Of `fit.bootstrap`.
        group : str, optional
            Of `fit.bootstrap`.
        statistic : callable, optional
            What is computed of each refit: a function of a fit that gives numbers, by name or in order.
        workers : int, default 1
            Threads that share the replicates, which do not depend on their number; at most four for each core are started.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.bootstrap(50, seed=1)
        """
        require_level(conf_level)
        found = bootstrap(self._fit, n, seed, kind=kind, group=group, statistic=statistic, workers=workers, progress=progress)
        return bootstrap_axes(found, conf_level, ax)

    def emmeans(
        self,
        specs: Names,
        by: Names | None = None,
        comparisons: bool = False,
        x: str | None = None,
        ax: AxesLike = None,
        *,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        information: Information = "expected",
        conf_level: float = 0.95,
        cluster: str | None = None,
        type: ResponseType = "link",  # noqa: A002
        bias_adjust: bool | float = False,
    ) -> list[Axes]:
        """Marginal means, with comparison arrows on request; along the variable `x` as joined lines.

        The other arguments are those of `fit.emmeans`.

        Parameters
        ----------
        specs : str or sequence of str
            Factors whose levels, or combinations of levels, have a mean each.
        by : str or sequence of str, optional
            Factors with a panel for each level.
        comparisons : bool, default False
            Whether arrows are drawn whose overlap says which pairs do not differ under `adjust`.
        x : str, optional
            Variable along the horizontal axis.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held in the reference grid; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of what a mean averages over.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.
        type : {"link", "response"}, default "link"
            "link", as the model has the response; "response", taken back from `log(y)`, `sqrt(y)`, ...
        bias_adjust : bool or float, default False
            With "response": means of responses, which are not the inverse at the mean; a number is the sd of a response about it.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.emmeans("Days", at={"Days": [0, 9]})
        """
        means = emmeans(self._fit, specs, by, at, weights, df, vcov, information, conf_level, cluster, type, bias_adjust)
        return emmeans_axes(means, comparisons, x=x, ax=ax)

    def __repr__(self) -> str:
        names = sorted(name for name in dir(self) if not name.startswith("_"))
        return f"figures of {self._fit!r}: {', '.join(names)}"


known_arguments(FitPlots, {"level": "conf_level"}, PLOT_ATTRIBUTES)


def _fit_of(figures: FitPlots) -> Estimates:
    return figures._fit


class AssumedFitPlots(FitPlots):
    """Figures of assumed parameters: those that show an outcome, or what was estimated from one, are refused."""

    acf = refuse_outcome(FitPlots.acf, _fit_of, "plot.{}")
    fitted = refuse_outcome(FitPlots.fitted, _fit_of, "plot.{}")
    influence = refuse_outcome(FitPlots.influence, _fit_of, "plot.{}")
    leverage = refuse_outcome(FitPlots.leverage, _fit_of, "plot.{}")
    lines = refuse_outcome(FitPlots.lines, _fit_of, "plot.{}")
    profile = refuse_outcome(FitPlots.profile, _fit_of, "plot.{}")
    profiles = refuse_outcome(FitPlots.profiles, _fit_of, "plot.{}")
    qq = refuse_outcome(FitPlots.qq, _fit_of, "plot.{}")
    ranef = refuse_outcome(FitPlots.ranef, _fit_of, "plot.{}")
    residuals = refuse_outcome(FitPlots.residuals, _fit_of, "plot.{}")
    variogram = refuse_outcome(FitPlots.variogram, _fit_of, "plot.{}")


public_verbs(AssumedFitPlots)
