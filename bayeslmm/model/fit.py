"""`Fit`: what can be asked of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.model import _fit_doors as doors
from bayeslmm.model.summary import Summary, summarise
from bayeslmm.model.tidy import tidy_table
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import as_pandas, augment_columns, fitted_values, join_columns, residuals
from bayeslmm.results.predict import predict_rows, require_outcomes
from bayeslmm.results.random_effects import coefficient_frames, mode_frames, sd_frames
from bayeslmm.results.store import save

if TYPE_CHECKING:
    from pathlib import Path


class Fit(Estimates):
    """A fitted model: estimates as attributes (see `Estimates`), everything else as verbs.

    Made by `LMM.fit`; examples take `fit = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()`.
    """

    # -- tables --------------------------------------------------------------------------------------------------------------------------

    def summary(self, df: str = "satterthwaite", vcov: str | None = None, *, information: str = "expected") -> Summary:
        """What a person wants to see, as text and as HTML: criterion, random effects, errors, fixed effects, checks.

        >>> print(str(fit.summary(df="asymptotic")).splitlines()[0])
        Linear mixed model fit by REML
        """
        return summarise(self, df, vcov, information)

    def tidy(
        self,
        effects: str = "fixed",
        conf_int: bool = False,
        conf_level: float = 0.95,
        df: str = "satterthwaite",
        vcov: str | None = None,
        conf_method: str = "wald",
        *,
        information: str = "expected",
    ) -> pd.DataFrame:
        """One row per parameter: `effect, group, level, term, estimate, std_error, df, statistic, p_value[, conf_low, conf_high]`.

        effects : "fixed", "ran_pars", "ran_vals" or "all"
        df : degrees of freedom of the tests; "asymptotic" is the normal distribution
        conf_method : "wald", "profile" or "bootstrap"

        >>> fit.tidy(df="asymptotic")[["term", "estimate"]].round(2).to_numpy().tolist()
        [['Intercept', 251.41], ['Days', 10.47]]
        """
        return tidy_table(
            self, effects, conf_int=conf_int, conf_level=conf_level, df=df, vcov=vcov, information=information, conf_method=conf_method
        )

    def glance(self) -> pd.DataFrame:
        """One row: `nobs, sigma, loglik, aic, bic, criterion, df_residual`.

        >>> fit.glance()["df_residual"].item()
        174
        """
        row = {"nobs": self.nobs, "sigma": self.sigma, "loglik": self.loglik, "aic": self.aic, "bic": self.bic}
        return pd.DataFrame([row | {"criterion": self.criterion, "df_residual": self.nobs - self.df_model}])

    def augment(self, data: Any = None) -> pd.DataFrame:
        """The data with `fitted` (conditional), `fixed` (population), `resid`, `pearson` and what else the rows have.

        data : other data than those of the fit; levels that the fit does not know have the fitted value of the population

        >>> fit.augment().columns.tolist()
        ['Reaction', 'Days', 'Subject', 'fitted', 'fixed', 'resid', 'pearson']
        """
        if data is None:
            return join_columns(self.design.frame, augment_columns(self))
        frame = as_pandas(data)
        columns = {
            "fitted": self.predict(data, new_levels="population")["estimate"],
            "fixed": self.predict(data, level="population")["estimate"],
        }
        if set(self.design.encoding.response_atom.columns) <= set(map(str, frame.columns)):
            columns["resid"] = self.design.encoding.response(data) - columns["fitted"]
        return join_columns(frame, columns)

    # -- random effects and rows ---------------------------------------------------------------------------------------------------------

    def ranef(self, se: bool = False) -> Any:
        """Conditional modes: grouping factor -> frame of levels x terms; with `se` a pair (modes, conditional sds) of each.

        >>> fit.ranef()["Subject"].loc["308"].round(3).tolist()
        [2.259, 9.199]
        """
        modes = mode_frames(self)
        if not se:
            return modes
        sds = sd_frames(self)
        return {group: (modes[group], sds[group]) for group in modes}

    def coef(self) -> dict[str, pd.DataFrame]:
        """Coefficients of every level: fixed effects plus conditional modes.

        >>> fit.coef()["Subject"].loc["308"].round(3).tolist()
        [253.664, 19.666]
        """
        return coefficient_frames(self)

    def fitted(self, level: str = "conditional") -> Array:
        """Fitted values, (nobs,): "conditional" on the random effects, or of the "population".

        >>> fit.fitted(level="population")[:2].round(2).tolist()
        [251.41, 261.87]
        """
        return fitted_values(self, level)

    def residuals(self, kind: str = "response") -> Array:
        """Residuals, (nobs,).

        kind : "response"; "pearson", divided by the fitted residual sd; "normalized", whitened by the Cholesky factor of each subject's R;
            "marginal", from the population

        >>> fit.residuals()[:2].round(3).tolist()
        [-4.104, -14.625]
        """
        return residuals(self, kind)

    def predict(
        self,
        newdata: Any = None,
        level: str = "conditional",
        interval: str | None = None,
        conf_level: float = 0.95,
        new_levels: str = "error",
        *,
        offset: Any = None,
        observed: bool = False,
    ) -> pd.DataFrame:
        """Predictions row for row: `estimate`, and with an interval `std_error, conf_low, conf_high` (normal quantiles).

        newdata : any frame; None for the rows of the fit. Rows with missing values are NaN, with a warning
        level : "conditional" on the random effects, or of the "population"
        interval : "confidence", of the mean; "prediction", of a new observation, whose sd is then the `std_error`
        new_levels : "error", or "population": a level that the fit does not know has its expected effect, 0, and its variance enters the
            prediction interval
        offset : one number per row, where the offset of the model was given as an array
        observed : True learns from the outcomes that newdata have of levels that the fit does not know: their random effects, the
            outcomes of theirs that are missing, and the fixed effects are what they are given all outcomes together; covariance parameters
            stay. Without, such outcomes are not read

        Raises PredictionError for absent columns, levels that the fit does not know, and rows that are not estimable.

        >>> fit.predict({"Days": [10], "Subject": ["308"]}).round(2).to_numpy().tolist()
        [[450.33]]
        >>> new = {"Days": [0, 1, 9], "Subject": ["new"] * 3, "Reaction": [300.0, 310.0, None]}
        >>> fit.predict(new, observed=True)["estimate"].round(1).tolist()
        [283.4, 295.1, 388.8]
        """
        if observed:
            require_outcomes(newdata, level)
            return cast("pd.DataFrame", doors.infer("predict_dynamic", self, newdata, interval, conf_level, offset=offset))
        return predict_rows(self, newdata, level=level, interval=interval, conf_level=conf_level, new_levels=new_levels, offset=offset)

    def contrast_rows(self, newdata: Any) -> Array:
        """X over the columns kept for new rows, (n, p).

        >>> fit.contrast_rows({"Days": [3]}).tolist()
        [[1.0, 3.0]]
        """
        return np.asarray(self.design.encoding.fixed(newdata)[0][:, list(self.design.kept)])

    # -- other fits ----------------------------------------------------------------------------------------------------------------------

    def simulate(self, nsim: int = 1, seed: int | None = None) -> pd.DataFrame:
        """Responses drawn from the fitted model with new random effects and errors, one column per simulation.

        The columns do not depend on `nsim`: the first is the same for any number.

        >>> fit.simulate(2, seed=1).shape
        (180, 2)
        """
        return self.model.simulated(self.fixef_kept, self.theta, self._sigma, nsim, seed)

    def refit(self, y: Any) -> Fit:
        """The same model, fitted by the same method to another response.

        y : (nobs,) or as long as the data; on the scale of the left side of the formula

        >>> round(fit.refit(2 * sleepstudy["Reaction"]).sigma / fit.sigma, 6)
        2.0
        """
        fit: Fit = self.model.with_response(y).fit(self.method)
        return fit

    def update(self, formula: str | None = None, data: Any = None, **changes: Any) -> Fit:
        """The model with another formula, data or argument, fitted by the same method.

        formula : a dot stands for what was there: `". ~ . + x"`, `". ~ . - (Days | Subject) + (1 | Subject)"`, `"log(.) ~ ."`
        changes : arguments of `LMM`

        >>> fit.update(". ~ . - (Days | Subject) + (1 | Subject)").df_model
        4
        """
        method = changes.pop("method", self.method)
        fit: Fit = self.model.updated(formula, data, changes).fit(method)
        return fit

    def save(self, path: str | Path) -> None:
        """Write the fit to one file at exactly this path; `blm.load(path)` opens it again, equal to the bit.

        The file is a zip of JSON and .npy members with checksums; it replaces an older one only when it is complete.
        Raises StoreError where it cannot be written, or where the model cannot be told (user functions are named, not stored).

        >>> fit.save("sleepstudy.fit"); blm.load("sleepstudy.fit").criterion == fit.criterion
        True
        """
        save(self, path)

    # -- verbs that live in the rooms to the right -----------------------------------------------------------------------------------------

    def anova(self, type: int = 3, df: str = "satterthwaite", **options: Any) -> Any:  # noqa: A002
        """F tests of the terms: `term, sum_sq, num_df, den_df, statistic, p_value`; type 1, 2 or 3.

        >>> fit.anova()["num_df"].tolist()
        [1]
        """
        return doors.infer("anova", self, type=type, df=df, **options)

    def contrast(self, L: Any, rhs: Any = 0, **options: Any) -> Any:
        """Tests of linear functions of the coefficients: rows one by one (`.frame`), and together (`.joint`).

        >>> fit.contrast("Days = 10").frame["estimate"].round(2).tolist()
        [0.47]
        """
        return doors.infer("contrast", self, L, rhs=rhs, **options)

    def emmeans(self, specs: Any, by: Any = None, at: Any = None, **options: Any) -> Any:
        """Marginal means of the levels of factors.

        >>> fit.emmeans("Days", at={"Days": [0, 9]}).frame["estimate"].round(2).tolist()
        [251.41, 345.61]
        """
        return doors.infer("emmeans", self, specs, by=by, at=at, **options)

    def emtrends(self, var: str, specs: Any = None, **options: Any) -> Any:
        """Slopes of a covariate, by the levels of factors.

        >>> fit.emtrends("Days").frame["estimate"].round(2).tolist()
        [10.47]
        """
        return doors.infer("emtrends", self, var, specs, **options)

    def confint(self, method: str = "wald", level: float = 0.95, **options: Any) -> Any:
        """Confidence intervals: `term, conf_low, conf_high`; "wald", "profile" or "bootstrap".

        >>> fit.confint().columns.tolist()[-2:]
        ['conf_low', 'conf_high']
        """
        return doors.infer("confint", self, method=method, level=level, **options)

    def profile(self, **options: Any) -> Any:
        """The profiled likelihood of every parameter.

        >>> profile = fit.profile()
        """
        return doors.infer("profile", self, **options)

    def bootstrap(self, n: int = 1000, seed: int | None = None, **options: Any) -> Any:
        """Refits to simulated responses or to resampled groups.

        >>> replicates = fit.bootstrap(3, seed=1)
        """
        return doors.infer("bootstrap", self, n, seed=seed, **options)

    def ranova(self, **options: Any) -> Any:
        """Likelihood-ratio tests of the random terms: `term, npar, loglik, aic, statistic, df, p_value`.

        >>> fit.ranova()["term"].tolist()
        ['<none>', 'Days in (Days | Subject)']
        """
        return doors.infer("ranova", self, **options)

    def r2(self, **options: Any) -> Any:
        """Shares of the variance explained: `conditional, marginal`.

        >>> fit.r2()["marginal"].round(2).item()
        0.28
        """
        return doors.infer("r2", self, **options)

    def icc(self, **options: Any) -> Any:
        """Intraclass correlation: `adjusted, unadjusted`.

        >>> fit.icc()["adjusted"].round(2).item()
        0.72
        """
        return doors.infer("icc", self, **options)

    def influence(self, group: str | None = None, **options: Any) -> Any:
        """Leverage and Cook's distance of every row, or the fit without each level of a grouping factor.

        >>> fit.influence().columns.tolist()
        ['hat', 'cooks_distance']
        """
        return doors.infer("influence", self, group=group, **options)

    def covariance(self, vcov: str = "asymptotic", **options: Any) -> Any:
        """Covariance matrix of the fixed effects under an adjustment: "kenward-roger", "CR0" to "CR3", ...

        >>> fit.covariance(vcov="CR2").shape
        (2, 2)
        """
        return doors.infer("covariance", self, vcov=vcov, **options)

    def to_marginaleffects(self) -> Any:
        """The fit as the package marginaleffects takes models.

        >>> adapter = fit.to_marginaleffects()
        """
        return doors.infer("to_marginaleffects", self)

    def report(
        self,
        path: str | Path | None = None,
        title: str | None = None,
        df: str = "satterthwaite",
        *,
        posterior: Any = None,
        seed: int | None = None,
    ) -> str:
        """One HTML file that needs nothing else: model, data, estimates, variances, checks, figures, marginal means, provenance.

        path : where to write it; without one, the text is only returned
        posterior : of the same model, to stand beside the estimates; seed : that its draws were made with

        >>> "Fixed effects" in fit.report(df="asymptotic")
        True
        """
        return doors.report(self, path, title=title, df=df, posterior=posterior, seed=seed)

    @property
    def plot(self) -> Any:
        """Figures, each with `ax=`: `plot.fitted()`, `.residuals()`, `.qq()`, `.ranef()`, `.lines(x, by)`, ...

        >>> axes = fit.plot.fitted()
        """
        return doors.plots(self)

    # -- what the package maketables asks of a model ---------------------------------------------------------------------------------------

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        table: pd.DataFrame = doors.infer("maketables_coefficients", self)
        return table

    @property
    def __maketables_depvar__(self) -> str:
        return self.design.spec.formula.response

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N", "groups", "sigma", "aic"]

    def __maketables_stat__(self, key: str) -> Any:
        return doors.infer("maketables_statistic", self, key)

    # -- how it looks --------------------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "" if self.converged else ", interrupted" if self.interrupted else ", not converged"
        return f"Fit({self.method} of {self.formula}: criterion {self.criterion:.4f}, nobs {self.nobs}{state})"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
