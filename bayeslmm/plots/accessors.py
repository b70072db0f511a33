"""`fit.plot`: every figure of a fit, by name.

`post.plot`: every figure of a posterior, by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._arrays import Array
from bayeslmm.model.fit import Fit
from bayeslmm.plots import draws as figures
from bayeslmm.plots.intervals import bootstrap_axes, emmeans_axes, forest_axes, profile_axes
from bayeslmm.plots.lines import lines_axes
from bayeslmm.plots.random_effects import influence_axes, ranef_axes, ranef_of_draws
from bayeslmm.plots.residuals import acf_axes, fitted_axes, leverage_axes, qq_axes, residual_axes
from bayeslmm.plots.style import bare, panels


class FitPlots:
    """Figures of a fit. Each takes `ax=` and returns Matplotlib axes; those of several panels take and return a list of them."""

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def __call__(self, ax: Any = None) -> list[Axes]:
        """The four figures to look at first: observed against fitted, residuals, their quantiles, the largest influence of rows.

        >>> axes = fit.plot()
        """
        axes = panels(ax, 4, width=4.6, height=3.6)
        first, second, third, fourth = axes
        return [self.fitted(ax=first), self.residuals(ax=second), self.qq(ax=third), self.leverage(ax=fourth)]

    def lines(self, x: str, by: str | None = None, *, levels: bool = True, level: float = 0.95, ax: Axes | None = None) -> Axes:
        """The data against x with the fitted line of the population and a thin one for each level.

        >>> axes = fit.plot.lines("Days", by="Subject")
        """
        return lines_axes(self._fit, x, by, levels=levels, level=level, ax=ax)

    def fitted(self, level: str = "conditional", ax: Axes | None = None) -> Axes:
        """Observed against fitted values.

        >>> axes = fit.plot.fitted()
        """
        return fitted_axes(self._fit, level, ax)

    def residuals(self, kind: str = "pearson", against: str | None = None, ax: Axes | None = None) -> Axes:
        """Residuals against fitted values, or against a column.

        >>> axes = fit.plot.residuals(against="Days")
        """
        return residual_axes(self._fit, kind, against, ax)

    def qq(self, kind: str = "normalized", ax: Axes | None = None) -> Axes:
        """Normal quantiles of the residuals.

        >>> axes = fit.plot.qq()
        """
        return qq_axes(self._fit, kind, ax)

    def acf(self, kind: str = "normalized", lags: int | None = None, ax: Axes | None = None) -> Axes:
        """Autocorrelation of the residuals within subjects: what a structure of the errors leaves over.

        >>> axes = fit.plot.acf()
        """
        return acf_axes(self._fit, kind, lags, ax)

    def ranef(self, group: str | None = None, level: float = 0.95, sort: bool = True, ax: Any = None) -> list[Axes]:
        """The caterpillar of a grouping factor, one panel per random column.

        >>> axes = fit.plot.ranef()
        """
        return ranef_axes(self._fit, group, level, sort, ax)

    def leverage(self, ax: Axes | None = None) -> Axes:
        """Residuals against leverage, the most influential rows named.

        >>> axes = fit.plot.leverage()
        """
        return leverage_axes(self._fit, ax)

    def influence(self, group: str, ax: Axes | None = None, *, refit: bool | None = None) -> Axes:
        """Cook's distance of the levels of a grouping factor.

        >>> axes = fit.plot.influence("Subject")
        """
        return influence_axes(self._fit, group, ax, refit=refit)

    def profile(self, absolute: bool = False, ax: Any = None, **options: Any) -> list[Axes]:
        """zeta of every parameter; `options` are those of `fit.profile`.

        >>> axes = fit.plot.profile(terms=["Days"])
        """
        return profile_axes(self._fit.profile(**options), absolute, ax)

    def confint(self, method: str = "wald", level: float = 0.95, ax: Axes | None = None, **options: Any) -> Axes:
        """Fixed effects with their limits; `options` are those of `fit.confint`.

        >>> axes = fit.plot.confint()
        """
        return forest_axes(self._fit, method, level, ax=ax, **options)

    def bootstrap(self, n: int = 1000, seed: int | None = None, level: float = 0.95, ax: Any = None, **options: Any) -> list[Axes]:
        """Histograms of bootstrap replicates.

        >>> axes = fit.plot.bootstrap(50, seed=1)
        """
        return bootstrap_axes(self._fit.bootstrap(n, seed, **options), level, ax)

    def emmeans(
        self, specs: Any, by: Any = None, comparisons: bool = False, x: str | None = None, ax: Any = None, **options: Any
    ) -> list[Axes]:
        """Marginal means, with comparison arrows on request; along the variable `x` as joined lines. `options` are those of `fit.emmeans`.

        >>> axes = fit.plot.emmeans("Days", at={"Days": [0, 9]})
        """
        return emmeans_axes(self._fit.emmeans(specs, by=by, **options), comparisons, x=x, ax=ax)

    def __repr__(self) -> str:
        names = "acf, bootstrap, confint, emmeans, fitted, influence, leverage, lines, profile, qq, ranef, residuals"
        return f"figures of {self._fit!r}: {names}"


class PosteriorPlots:
    """Figures of a posterior. Each takes `ax=` and returns Matplotlib axes; those of several panels take and return a list of them.

    The figures of arviz-plots take the same draws: `arviz.plot_forest(post.tree)`.
    """

    def __init__(self, post: Any, draws: figures.DrawTable, kinds: Mapping[str, str], priors: Mapping[str, str]) -> None:
        """Draws by the names of the tidy table, the kind of each, and the label that its prior has among the curves of `model.priors`."""
        self._post, self._draws, self._kinds, self._priors = post, draws, kinds, priors

    def __call__(self, ax: Any = None) -> list[Axes]:
        """What to look at first: the densities of all parameters, and their priors.

        >>> axes = post.plot()
        """
        return self.dist(ax=ax)

    def _chosen(self, terms: Sequence[str] | str | None, most: int = figures.PARAMETER_PANELS) -> dict[str, Array]:
        return {name: self._draws[name] for name in figures.choose_parameters(self._draws, terms, most)}

    def _of_how_many(self, terms: Sequence[str] | str | None) -> int:
        return len(self._draws) if terms is None else 0

    def forest(
        self, terms: Sequence[str] | str | None = None, *, conf_level: float = 0.95, intercept: bool = False, ax: Any = None
    ) -> list[Axes]:
        """Intervals of coefficients, of sds, of correlations and other parameters: a panel for each kind.

        intercept : show it too, though its scale may dwarf the others'

        >>> axes = post.plot.forest()
        """
        found = self._chosen(terms, len(self._draws))
        if terms is None and not intercept and sum(self._kinds[name] == "coefficient" for name in found) > 1:
            found.pop("Intercept", None)
        return figures.forest_of_draws(found, self._kinds, conf_level, ax)

    def dist(self, terms: Sequence[str] | str | None = None, *, conf_level: float = 0.95, prior: bool = True, ax: Any = None) -> list[Axes]:
        """The density of every parameter, and dashed that of its prior.

        >>> axes = post.plot.dist(["sd__Days|Subject"])
        """
        found = self._chosen(terms)
        return figures.density_axes(found, self._curves(list(found)) if prior else {}, conf_level, self._of_how_many(terms), ax)

    def _curves(self, names: list[str]) -> dict[str, tuple[Array, Array]]:
        curves: pd.DataFrame = self._post.model.priors.curves()
        own = {label: (part["value"].to_numpy(float), part["density"].to_numpy(float)) for label, part in curves.groupby("label")}
        return {name: own[self._priors[name]] for name in names if self._priors.get(name) in own}

    def trace(self, terms: Sequence[str] | str | None = None, ax: Any = None) -> list[Axes]:
        """Draws in their order, a colour for each chain.

        >>> axes = post.plot.trace(["Days", "sd__Days|Subject"])
        """
        return figures.trace_axes(self._chosen(terms), self._of_how_many(terms), ax)

    def rank(self, terms: Sequence[str] | str | None = None, ax: Any = None) -> list[Axes]:
        """Whether the chains agree: ranks of each chain's draws among all, against uniform ones.

        >>> axes = post.plot.rank(["Days"])
        """
        return figures.rank_axes(self._chosen(terms), self._of_how_many(terms), ax)

    def pairs(self, terms: Sequence[str] | str | None = None, ax: Any = None) -> list[Axes]:
        """Every two parameters against each other; the covariance parameters unless others are named.

        >>> axes = post.plot.pairs(["sd__Intercept|Subject", "sd__Days|Subject"])
        """
        if terms is None:
            terms = [name for name in self._draws if self._kinds[name] != "coefficient"][: figures.PAIRED_PARAMETERS]
        return figures.pair_axes(self._chosen(terms), ax)

    def predictive(self, draws: int = 50, seed: int | None = 0, ax: Axes | None = None) -> Axes:
        """Responses drawn from the posterior against the response.

        >>> axes = post.plot.predictive(20)
        """
        chains = self._post.chains
        group = self._post.posterior_predictive(draws=max(1, draws // chains), seed=seed)
        design = self._post.design
        name = bare(design.spec.formula.response)
        values = np.asarray(next(iter(group.data_vars.values())))
        return figures.predictive_axes(values.reshape(-1, values.shape[-1])[:draws], design.y, name, ax)

    def ranef(self, group: str | None = None, level: float = 0.95, sort: bool = True, ax: Any = None) -> list[Axes]:
        """The caterpillar of a grouping factor: posterior means and quantiles, one panel per random column.

        >>> axes = post.plot.ranef()
        """
        return ranef_of_draws(self._post, group, level, sort, ax)

    def lines(self, x: str, by: str | None = None, *, levels: bool = True, level: float = 0.95, ax: Axes | None = None) -> Axes:
        """The data against x with the posterior mean line of the population, its band, and a thin line for each level.

        >>> axes = post.plot.lines("Days")
        """
        return lines_axes(self._post, x, by, levels=levels, level=level, ax=ax)

    def emmeans(self, specs: Any, by: Any = None, x: str | None = None, ax: Any = None, **options: Any) -> Any:
        """Marginal means, along the variable `x` as joined lines; `options` are those of `post.emmeans`.

        >>> axes = post.plot.emmeans("Days", at={"Days": [0, 9]})
        """
        return self._post.emmeans(specs, by=by, **options).plot(x=x, ax=ax)

    def __repr__(self) -> str:
        return f"figures of {self._post!r}: dist, emmeans, forest, lines, pairs, predictive, rank, ranef, trace"
