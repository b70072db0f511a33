"""`post.plot`: every figure of a posterior, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, overload

import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._arrays import Array
from bayeslmm._types import PredictiveKind
from bayeslmm._validation import require_count, require_flag, require_level, require_one_of
from bayeslmm.bayes.posterior import tables
from bayeslmm.bayes.posterior.data import PosteriorData
from bayeslmm.bayes.posterior.datatree import predictive_draws
from bayeslmm.bayes.posterior.predict import linear_predictor_mean
from bayeslmm.bayes.posterior.tables import parameter_draws
from bayeslmm.bayes.sampling.prior_predictive import resolved_priors
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.means.effects import difference_table, effect_table, line_table, subgroup_table, term_variables
from bayeslmm.plots import draws as figures
from bayeslmm.plots.effects import effect_axes, is_ordered, subgroup_axes
from bayeslmm.plots.levels import lines_axes, ranef_of_draws
from bayeslmm.plots.residuals import column_of
from bayeslmm.plots.style import percent
from bayeslmm.results.foreign_names import POSTERIOR_PLOT_ATTRIBUTES, known_arguments
from bayeslmm.results.response_scale import response_options, scale_name

if TYPE_CHECKING:
    from bayeslmm._types import AxesLike, ContrastMethod, GridWeights, Names, PredictiveStatistic, ResponseType, Values


class PosteriorPlots:
    """Figures of a posterior. Each takes `ax=` and returns Matplotlib axes; those of several panels take and return a list of them.

    The figures of arviz-plots take the same draws: `arviz.plot_forest(post.tree)`.
    """

    def __init__(self, post: PosteriorData) -> None:
        """Draws by the names of the tidy table, the kind of each, and the label that its prior has among the curves of `model.priors`."""
        self._post = post
        named: dict[str, Array] = {name: post.draws.alpha[:, j] for j, name in enumerate(post.coef_names)}
        self._kinds, self._priors = dict.fromkeys(named, "coefficient"), {name: f"alpha {name}" for name in named}
        errors = {row.term: row.label for row in post.density.priors.rows() if row.kind in ("sigma", "residual")}
        for group, name, values in parameter_draws(post):
            label = name if group == "Residual" else f"{name}|{group}"
            named[label] = values
            is_sd, is_correlation = name.startswith(("sd", "sigma")), name.startswith("cor")
            self._kinds[label] = "sd" if is_sd else "correlation" if is_correlation else "parameter of the errors"
            self._priors[label] = f"corr {group}" if name.startswith("cor__") else f"sd {group}/{name.removeprefix('sd__')}"
            if group == "Residual":
                self._priors[label] = errors.get(name, "sigma")
        self._draws: figures.DrawTable = {name: post.reshape_draws(values) for name, values in named.items()}

    def __call__(self, ax: AxesLike = None) -> list[Axes]:
        """What to look at first: the densities of all parameters, and their priors.

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
        >>> axes = post.plot()
        """
        return self.dist(ax=ax)

    def _chosen(self, terms: Names | None, most: int = figures.PARAMETER_PANELS) -> dict[str, Array]:
        return {name: self._draws[name] for name in figures.choose_parameters(self._draws, terms, most)}

    def _of_how_many(self, terms: Names | None) -> int:
        return len(self._draws) if terms is None else 0

    def forest(self, terms: Names | None = None, *, conf_level: float = 0.95, intercept: bool = False, ax: AxesLike = None) -> list[Axes]:
        """Intervals of coefficients, of sds, of correlations and other parameters: a panel for each kind.

        Parameters
        ----------
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        intercept : bool, default False
            Show it too, though its scale may dwarf the others'.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.forest()
        """
        found, conf_level = self._chosen(terms, len(self._draws)), require_level(conf_level)
        if not require_flag(intercept, "intercept") and terms is None and sum(self._kinds[name] == "coefficient" for name in found) > 1:
            found.pop("Intercept", None)
        return figures.forest_of_draws(found, self._kinds, conf_level, ax)

    def dist(self, terms: Names | None = None, *, conf_level: float = 0.95, prior: bool = True, ax: AxesLike = None) -> list[Axes]:
        """The density of every parameter, and dashed that of its prior.

        Parameters
        ----------
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        prior : bool, default True
            Whether densities of priors are drawn too.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.dist(["sd__Days|Subject"])
        """
        found, conf_level = self._chosen(terms), require_level(conf_level)
        return figures.density_axes(
            found, self._curves(list(found)) if require_flag(prior, "prior") else {}, conf_level, self._of_how_many(terms), ax
        )

    def _curves(self, names: list[str]) -> dict[str, tuple[Array, Array]]:
        curves = resolved_priors(self._post.model).curves()
        own = {label: (part["value"].to_numpy(float), part["density"].to_numpy(float)) for label, part in curves.groupby("label")}
        return {name: own[self._priors[name]] for name in names if self._priors.get(name) in own}

    def trace(self, terms: Names | None = None, ax: AxesLike = None) -> list[Axes]:
        """Draws in their order, a colour for each chain.

        Parameters
        ----------
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.trace(["Days", "sd__Days|Subject"])
        """
        return figures.trace_axes(self._chosen(terms), self._of_how_many(terms), ax)

    def rank(self, terms: Names | None = None, ax: AxesLike = None) -> list[Axes]:
        """Whether the chains agree: ranks of each chain's draws among all, against uniform ones.

        Parameters
        ----------
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.rank(["Days"])
        """
        return figures.rank_axes(self._chosen(terms), self._of_how_many(terms), ax)

    def pairs(self, terms: Names | None = None, ax: AxesLike = None) -> list[Axes]:
        """Every two parameters against each other; the covariance parameters unless others are named.

        Parameters
        ----------
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.pairs(["sd__Intercept|Subject", "sd__Days|Subject"])
        """
        if terms is None:
            terms = [name for name in self._draws if self._kinds[name] != "coefficient"][: figures.PAIRED_PARAMETERS]
        return figures.pair_axes(self._chosen(terms), ax)

    @overload
    def predictive(
        self,
        kind: PredictiveKind = "density",
        by: None = None,
        stat: PredictiveStatistic | None = None,
        *,
        draws: int | None = None,
        conf_level: float = 0.95,
        seed: int | None = 0,
        ax: Axes | None = None,
    ) -> Axes: ...
    @overload
    def predictive(
        self,
        kind: PredictiveKind = "density",
        by: str = ...,
        stat: PredictiveStatistic | None = None,
        *,
        draws: int | None = None,
        conf_level: float = 0.95,
        seed: int | None = 0,
        ax: AxesLike = None,
    ) -> list[Axes]: ...
    def predictive(
        self,
        kind: PredictiveKind = "density",
        by: str | None = None,
        stat: PredictiveStatistic | None = None,
        *,
        draws: int | None = None,
        conf_level: float = 0.95,
        seed: int | None = 0,
        ax: AxesLike = None,
    ) -> Axes | list[Axes]:
        """Responses drawn from the posterior against the response: axes, with `by` a list of them.

        Parameters
        ----------
        kind : {"density", "stat", "intervals"}, default "density"
            "density" of all of them; "stat": a statistic of each replicate, and the share of replicates above the observed one; "intervals"
            of every observation, in the order of their means.
        by : str, optional
            A column or grouping factor, a panel for each of its levels.
        stat : str or callable, optional
            "mean", "median", "sd", "min", "max", or a function of an array that gives a number.
        draws : int, optional
            Replicates, 50 densities and 1,000 of the others unless given.
        conf_level : float, default 0.95
            Level of the intervals.
        seed : int or None, default 0
            Seed of the random numbers, 0 or more; None draws a new one.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes or list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.predictive("stat", stat="max", draws=200)
        """
        require_one_of(kind, get_args(PredictiveKind), "kind")
        require_level(conf_level)
        if stat is not None and kind != "stat":
            raise SpecificationError(f"stat does not apply to kind={kind!r}", "stat", 'use kind="stat"')
        post, design = self._post, self._post.design
        own: str | PredictiveStatistic = "mean" if stat is None else stat
        if not callable(own):
            require_one_of(own, tuple(figures.PREDICTIVE_STATISTICS), "stat")
        count = (50 if kind == "density" else 1000) if draws is None else require_count(draws, "draws")
        values = predictive_draws(post, -(-count // post.chains), seed)
        found = figures.Replicated(values.reshape(-1, values.shape[-1])[:count], design.y, scale_name(design))
        panel: tuple[Callable[[Axes, figures.Replicated], None], tuple[str, str]]
        if kind == "density":
            panel = figures.draw_densities, (found.name, "density")
        elif kind == "stat":
            named = getattr(own, "__name__", "statistic") if callable(own) else own
            panel = (
                figures.draw_statistic(own if callable(own) else figures.PREDICTIVE_STATISTICS[own]),
                (f"{named} of {found.name}", "replicates"),
            )
        else:
            panel = figures.draw_intervals(require_level(conf_level)), ("observations by predicted mean", found.name)
        split = None if by is None else column_of(design, by, "by")
        axes = figures.predictive_panels(found, panel[0], split, panel[1], ax)
        return axes[0] if split is None else axes

    def ranef(self, group: str | None = None, conf_level: float = 0.95, sort: bool = True, ax: AxesLike = None) -> list[Axes]:
        """The caterpillar of a grouping factor: posterior means and quantiles, one panel per random column.

        Parameters
        ----------
        group : str, optional
            Grouping factor.
        conf_level : float, default 0.95
            Level of the quantiles.
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
        >>> axes = post.plot.ranef()
        """
        return ranef_of_draws(
            tables.mean_ranef(self._post), tables.tidy_draws(self._post, "ran_vals", require_level(conf_level)), group, sort, ax
        )

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
        """The data against x with the posterior mean line of the population and a thin one for each level.

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
        >>> axes = post.plot.lines("Days", by="Subject")
        """
        post, design = self._post, self._post.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> tables.PosteriorMeans:
            return tables.posterior_emmeans(post, names, by, at, weights, conf_level, type)

        def population(split: str | None) -> tuple[pd.DataFrame, Sequence[str]]:
            table = line_table(design, ask, x, split, at, weights)
            return table.frame, table.notes

        return lines_axes(
            design,
            lambda: linear_predictor_mean(post),
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
        conf_level: float = 0.95,
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
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
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
        >>> axes = post.plot.effects("Days")
        """
        design = self._post.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> tables.PosteriorMeans:
            return tables.posterior_emmeans(self._post, names, by, at, weights, conf_level, type, bias_adjust)

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
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        type: ResponseType = "link",  # noqa: A002
        conf_level: float = 0.95,
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
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of the levels of factors that are averaged over.
        type : {"link", "response"}, default "link"
            "response" takes means of a transformed response back first: differences on a logarithm become ratios, and the line is at 1.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.differences("Days", at={"Days": [0, 3, 6, 9]})
        """
        design = self._post.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> tables.PosteriorMeans:
            return tables.posterior_emmeans(self._post, names, by, at, weights, conf_level, type)

        table = difference_table(design, ask, lambda means: means.contrast(method, ref), specs, by, at, weights)
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
        conf_level: float = 0.95,
    ) -> Axes:
        """A forest of the differences between treatments: of all, and within the levels of factors that interact with the treatment.

        Beside each its number, and for a factor of two levels the posterior probability that the difference is larger at the first.

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
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> rows = sleepstudy.assign(late=sleepstudy["Days"] > 4, half=sleepstudy["Subject"].astype(str) < "335")
        >>> drawn = blm.LMM("Reaction ~ late * half + (1 | Subject)", rows).sample(draws=50, seed=1)
        >>> axes = drawn.plot.subgroups("late", "half")
        """
        design = self._post.design

        def ask(names: Sequence[str], by: Sequence[str], at: Mapping[str, Any], weights: GridWeights) -> tables.PosteriorMeans:
            return tables.posterior_emmeans(self._post, names, by, at, weights, conf_level)

        def differ(means: tables.PosteriorMeans) -> pd.DataFrame:
            return means.contrast(method, ref)

        def larger_at_first(means: tables.PosteriorMeans) -> float:
            return tables.larger_at_first(means, method, ref)

        table, notes = subgroup_table(design, ask, differ, larger_at_first, treatment, factors, at, weights)
        label = f"difference, {scale_name(design)} ({percent(conf_level)} interval)"
        return subgroup_axes(table, label, notes=notes, measure="P(larger at the first)", ax=ax)

    def emmeans(
        self,
        specs: Names,
        by: Names | None = None,
        x: str | None = None,
        ax: AxesLike = None,
        *,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        conf_level: float = 0.95,
    ) -> list[Axes]:
        """Marginal means, along the variable `x` as joined lines; the other arguments are those of `post.emmeans`.

        Parameters
        ----------
        specs : str or sequence of str
            Factors whose levels, or combinations of levels, have a mean each.
        by : str or sequence of str, optional
            Factors with a panel for each level.
        x : str, optional
            Variable along the horizontal axis.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held in the reference grid; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of what a mean averages over.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = post.plot.emmeans("Days", at={"Days": [0, 9]})
        """
        return tables.posterior_emmeans(self._post, specs, by, at, weights, conf_level).plot(x=x, ax=ax)

    def __repr__(self) -> str:
        names = sorted(name for name in dir(self) if not name.startswith("_"))
        return f"figures of {self._post!r}: {', '.join(names)}"


known_arguments(PosteriorPlots, {"level": "conf_level"}, POSTERIOR_PLOT_ATTRIBUTES)
