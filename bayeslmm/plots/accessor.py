"""`fit.plot`: every figure of a fit, by name."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from bayeslmm.plots.influence import influence_axes
from bayeslmm.plots.intervals import bootstrap_axes, forest_axes, profile_axes
from bayeslmm.plots.lines import lines_axes
from bayeslmm.plots.means import emmeans_axes
from bayeslmm.plots.random_effects import ranef_axes
from bayeslmm.plots.rows import fitted_axes, leverage_axes, qq_axes, residual_axes
from bayeslmm.plots.serial import acf_axes
from bayeslmm.plots.style import panels
from bayeslmm.results.fit import Fit


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
