"""`fit.plot`: every figure of a fit, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._validation import require_level, require_name
from bayeslmm.inference.influence import influence, influence_of_rows, sampled_rows
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.intervals.profile import profile
from bayeslmm.inference.means.emmeans import emmeans
from bayeslmm.inference.tidy import confint
from bayeslmm.plots.intervals import bootstrap_axes, emmeans_axes, forest_axes, profile_axes
from bayeslmm.plots.levels import influence_axes, lines_axes, ranef_axes
from bayeslmm.plots.residuals import acf_axes, fitted_axes, leverage_axes, qq_axes, residual_axes
from bayeslmm.plots.style import closes_on_error, panels
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import fitted_values
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.predict import predict_rows

if TYPE_CHECKING:
    from bayeslmm._types import (
        AxesLike,
        BootstrapInterval,
        BootstrapKind,
        ConfMethod,
        DfMethod,
        GridWeights,
        Information,
        Level,
        LikelihoodKind,
        Names,
        ResidualKind,
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

    @closes_on_error
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

    @closes_on_error
    def lines(self, x: str, by: str | None = None, *, levels: bool = True, level: float = 0.95, ax: Axes | None = None) -> Axes:
        """The data against x with the fitted line of the population and a thin one for each level.

        Parameters
        ----------
        x : str
            Variable along the horizontal axis.
        by : str, optional
            Factor that tells lines apart.
        levels : bool, default True
            Levels drawn: names, how many, or all.
        level : float, default 0.95
            "conditional" or "population".
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
        fit = self._fit

        def population(rows: pd.DataFrame) -> pd.DataFrame:
            return predict_rows(fit, rows, level="population", interval="confidence", conf_level=level, new_levels="error", offset=None)

        return lines_axes(fit.design, lambda: fitted_values(fit, "conditional"), population, x, by, levels=levels, level=level, ax=ax)

    @closes_on_error
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

    @closes_on_error
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

    @closes_on_error
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

    @closes_on_error
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

    @closes_on_error
    def ranef(self, group: str | None = None, level: float = 0.95, sort: bool = True, ax: AxesLike = None) -> list[Axes]:
        """The caterpillar of a grouping factor, one panel per random column.

        Parameters
        ----------
        group : str, optional
            Grouping factor.
        level : float, default 0.95
            Level of the limits.
        sort : bool, default True
            Whether levels are sorted by their mode.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.ranef()
        """
        return ranef_axes(self._fit, group, level, sort, ax)

    @closes_on_error
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

    @closes_on_error
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
        few = self._fit.design.groups.get(require_name(group, "group"), 0) <= REFITTED
        return influence_axes(influence(self._fit, group, refit=few if refit is None else refit), group, ax)

    @closes_on_error
    def profile(
        self,
        absolute: bool = False,
        ax: AxesLike = None,
        *,
        criterion: LikelihoodKind = "ML",
        terms: Names | None = None,
        level: float = 0.99,
    ) -> list[Axes]:
        """zeta of every parameter; `criterion`, `terms` and `level` as in `fit.profile`.

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
        level : float, default 0.99
            Level of the limits, between 0 and 1.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.profile(terms=["Days"])
        """
        return profile_axes(profile(self._fit, criterion, terms, level), absolute, ax)

    @closes_on_error
    def confint(
        self,
        method: ConfMethod = "wald",
        level: float = 0.95,
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
        level : float, default 0.95
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
            level,
            terms=terms,
            criterion=criterion,
            n=n,
            seed=seed,
            kind=kind,
            interval=interval,
            workers=workers,
            progress=progress,
        )
        return forest_axes(self._fit, limits, method, level, intercept, ax)

    @closes_on_error
    def bootstrap(
        self,
        n: int = 1000,
        seed: int | None = None,
        level: float = 0.95,
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
        level : float, default 0.95
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
            Number of processes; 1 works in this one.
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
        level = require_level(level, "level")
        found = bootstrap(self._fit, n, seed, kind=kind, group=group, statistic=statistic, workers=workers, progress=progress)
        return bootstrap_axes(found, level, ax)

    @closes_on_error
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

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.plot.emmeans("Days", at={"Days": [0, 9]})
        """
        means = emmeans(self._fit, specs, by, at, weights, df, vcov, information, conf_level, cluster)
        return emmeans_axes(means, comparisons, x=x, ax=ax)

    @closes_on_error
    def __repr__(self) -> str:
        names = "acf, bootstrap, confint, emmeans, fitted, influence, leverage, lines, profile, qq, ranef, residuals"
        return f"figures of {self._fit!r}: {names}"


known_arguments(FitPlots)
