"""`Fit`: what can be asked of a fitted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, seed_sequence
from bayeslmm._io import require_html_place
from bayeslmm._types import Side
from bayeslmm._validation import require_flag, require_level, require_number, require_one_of
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.model.summary import Summary, summarise
from bayeslmm.results import foreign_names
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import (
    as_pandas,
    augment_columns,
    coefficient_frames,
    fitted_values,
    join_columns,
    mode_frames,
    residuals,
    sd_frames,
    simulate,
)
from bayeslmm.results.foreign_names import AnsweringClass, known_arguments, public_verbs, refuse_outcome
from bayeslmm.results.predict import on_response, predict_rows, require_estimable_rows, require_outcomes
from bayeslmm.results.store import save

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal, overload

    from bayeslmm._types import (
        AnovaType,
        ArrayLike,
        BootstrapInterval,
        BootstrapKind,
        CheckMode,
        Coding,
        ConfMethod,
        DfMethod,
        Effects,
        FitMethod,
        Frame,
        Functions,
        GridWeights,
        InfluenceValues,
        Information,
        IntervalKind,
        Level,
        LikelihoodKind,
        LinearFunction,
        Missing,
        Names,
        NewLevels,
        ResidualKind,
        ResponseType,
        RowValues,
        StatisticValues,
        TableFormat,
        Values,
        VarianceFunctionOf,
        VarianceScale,
        VcovMethod,
    )
    from bayeslmm.bayes.posterior.posterior import Posterior
    from bayeslmm.inference.intervals.bootstrap import Bootstrap
    from bayeslmm.inference.intervals.profile import Profile
    from bayeslmm.inference.means.linear_functions import Contrast
    from bayeslmm.inference.means.marginal_means import EMMeans
    from bayeslmm.model.fit_plots import FitPlots
    from bayeslmm.reports.page import HtmlPage
    from bayeslmm.specification.priors import Priors
    from bayeslmm.study_design.assumed import Matrix
    from bayeslmm.study_design.inference_check import InferenceCheck
    from bayeslmm.study_design.power import PowerCurve
    from bayeslmm.trials.imputations import Imputations


class Unchanged(Enum):
    """The value of an argument of `Fit.update` that is left as it was."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Unchanged.KEEP


def _require_kind(value: object, kind: type, argument: str, source: str) -> None:
    if not isinstance(value, kind):
        raise SpecificationError(f"{argument} is a {type(value).__name__}", argument, f"give what {source} returned")


class Fit(Estimates, metaclass=AnsweringClass):
    """A fitted model: estimates as attributes (see `Estimates`), everything else as verbs.

    Made by `LMM.fit`; examples take `fit = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()`.
    """

    # -- tables --------------------------------------------------------------------------------------------------------------------------

    def summary(self, df: DfMethod = "satterthwaite", vcov: VcovMethod | None = None, *, information: Information = "expected") -> Summary:
        """What a person wants to see, as text and as HTML: criterion, random effects, errors, fixed effects, checks.

        Parameters
        ----------
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".

        Returns
        -------
        Summary
            A value that prints itself.

        Examples
        --------
        >>> print(str(fit.summary(df="asymptotic")).splitlines()[0])
        Linear mixed model fit by REML
        """
        return summarise(self, df, vcov, information)

    def tidy(
        self,
        effects: Effects = "fixed",
        conf_int: bool = False,
        conf_level: float = 0.95,
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        conf_method: ConfMethod = "wald",
        *,
        information: Information = "expected",
        innovation: bool = False,
    ) -> pd.DataFrame:
        """One row per parameter: `effect, group, level, term, estimate, std_error, df, statistic, p_value[, conf_low, conf_high]`.

        Standard errors of "ran_pars" are of standard deviations and correlations, by the delta method from the observed information; that
        of a variance, as PROC MIXED prints it, is `2 * estimate * std_error`. A parameter at its boundary has none.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals", "all"}, default "fixed"
            Which parameters: "fixed", "ran_pars" (variances), "ran_vals" (random effects) or "all".
        conf_int : bool, default False
            Whether to give limits.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        conf_method : {"wald", "profile", "bootstrap"}, default "wald"
            How limits are made: "wald", "profile" or "bootstrap".
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        innovation : bool, default False
            Whether "ran_pars" has the standard deviation of an error given those before it too, `sd_innovation`: that which `brms` calls
            sigma beside `ar()` and `arma()`. Of residual structures `ar1` and `arma` alone.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> fit.tidy(df="asymptotic")[["term", "estimate"]].round(2).to_numpy().tolist()
        [['Intercept', 251.41], ['Days', 10.47]]
        """
        from bayeslmm.inference.tidy import tidy_table

        return tidy_table(
            self,
            effects,
            conf_int=conf_int,
            conf_level=conf_level,
            df=df,
            vcov=vcov,
            information=information,
            conf_method=conf_method,
            innovation=innovation,
        )

    def glance(self) -> pd.DataFrame:
        """One row: `nobs, sigma, loglik, aic, bic, criterion, df_residual`.

        Returns
        -------
        DataFrame
            One row.

        Examples
        --------
        >>> fit.glance()["df_residual"].item()
        174
        """
        row = {"nobs": self.nobs, "sigma": self.sigma, "loglik": self.loglik, "aic": self.aic, "bic": self.bic}
        return pd.DataFrame([row | {"criterion": self.criterion, "df_residual": self.nobs - self.df_model}])

    def augment(self, data: Frame | None = None) -> pd.DataFrame:
        """The data with `fitted` (conditional), `fixed` (population), `resid`, `pearson` and what else the rows have.

        Parameters
        ----------
        data : DataFrame or Mapping, optional
            Other data than those of the fit; levels that the fit does not know have the fitted value of the population.

        Returns
        -------
        DataFrame
            The columns of the data and those.

        Examples
        --------
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

    if TYPE_CHECKING:

        @overload
        def ranef(self, se: Literal[False] = False) -> dict[str, pd.DataFrame]: ...
        @overload
        def ranef(self, se: Literal[True]) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]: ...

    def ranef(self, se: bool = False) -> dict[str, pd.DataFrame] | dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """Conditional modes: grouping factor -> frame of levels x terms; with `se` a pair (modes, conditional sds) of each.

        Parameters
        ----------
        se : bool, default False
            Whether standard deviations come too.

        Returns
        -------
        dict of str to DataFrame or dict of str to tuple of DataFrame, DataFrame
            Frames by grouping factor.

        Examples
        --------
        >>> fit.ranef()["Subject"].loc["308"].round(3).tolist()
        [2.259, 9.199]
        """
        modes = mode_frames(self)
        if not require_flag(se, "se", 'ranef()["g"] are those of the factor g'):
            return modes
        sds = sd_frames(self)
        return {group: (modes[group], sds[group]) for group in modes}

    def coef(self) -> dict[str, pd.DataFrame]:
        """Coefficients of every level: fixed effects plus conditional modes.

        Returns
        -------
        dict of str to DataFrame
            Grouping factor -> frame of levels x coefficients.

        Examples
        --------
        >>> fit.coef()["Subject"].loc["308"].round(3).tolist()
        [253.664, 19.666]
        """
        return coefficient_frames(self)

    def fitted(self, level: Level = "conditional") -> pd.Series[float] | Array:
        """Fitted values, (nobs,), with the index of the rows used; an array where the data have no index.

        Parameters
        ----------
        level : {"conditional", "population"}, default "conditional"
            "conditional" on the random effects, or of the "population".

        Returns
        -------
        Series or ndarray
            (nobs,) values.

        Examples
        --------
        >>> fit.fitted(level="population")[:2].round(2).tolist()
        [251.41, 261.87]
        """
        return self._by_row(fitted_values(self, level), "fitted")

    def residuals(self, kind: ResidualKind = "response") -> pd.Series[float] | Array:
        """Residuals, (nobs,), with the index of the rows used; an array where the data have no index.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized", "marginal"}, default "response"
            "response"; "pearson", divided by the fitted residual sd; "normalized", whitened by the Cholesky factor of each subject's R;
            "marginal", from the population.

        Returns
        -------
        Series or ndarray
            (nobs,) values.

        Examples
        --------
        >>> fit.residuals()[:2].round(3).tolist()
        [-4.104, -14.625]
        """
        return self._by_row(residuals(self, kind), "residual")

    def _by_row(self, values: Array, name: str) -> pd.Series[float] | Array:
        return pd.Series(values, index=self.design.index, name=name) if self.design.labelled else values

    def predict(
        self,
        newdata: Frame | None = None,
        level: Level = "conditional",
        interval: IntervalKind | None = None,
        conf_level: float = 0.95,
        new_levels: NewLevels = "error",
        *,
        offset: ArrayLike | None = None,
        observed: bool = False,
        type: ResponseType = "link",  # noqa: A002
        bias_adjust: bool | float = False,
    ) -> pd.DataFrame:
        """Predictions row for row: `estimate`, and with an interval `std_error, conf_low, conf_high` (normal quantiles).

        Parameters
        ----------
        newdata : DataFrame or Mapping, optional
            Any frame; None for the rows of the fit. Rows with missing values are NaN, with a warning.
        level : {"conditional", "population"}, default "conditional"
            "conditional" on the random effects, or of the "population".
        interval : {"confidence", "prediction"}, optional
            "confidence", of the mean; "prediction", of a new observation, whose sd is then the `std_error`.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        new_levels : {"error", "population"}, default "error"
            "error", or "population": a level that the fit does not know has its expected effect, 0, and its variance enters the prediction
            interval.
        offset : array_like, optional
            One number per row, where the offset of the model was given as an array.
        observed : bool, default False
            True learns from the outcomes that newdata have of levels that the fit does not know: their random effects, the outcomes of
            theirs that are missing, and the fixed effects are what they are given all outcomes together; covariance parameters stay.
            Without, such outcomes are not read.
        type : {"link", "response"}, default "link"
            "link", as the model has the response; "response", taken back from `log(y)`, `sqrt(y)`, ...; `attrs["scale"]` of the frame
            names the scale.
        bias_adjust : bool or float, default False
            With "response": predict means of responses, which are not the inverse at the mean; a number is the sd of a response about it.

        Returns
        -------
        DataFrame
            One row for each row of the data.

        Raises
        ------
        PredictionError
            For absent columns, levels that the fit does not know, and rows that are not estimable.

        Examples
        --------
        >>> fit.predict({"Days": [10], "Subject": ["308"]}).round(2).to_numpy().tolist()
        [[450.33]]
        >>> new = {"Days": [0, 1, 9], "Subject": ["new"] * 3, "Reaction": [300.0, 310.0, None]}
        >>> fit.predict(new, observed=True)["estimate"].round(1).tolist()
        [283.4, 295.1, 388.8]
        >>> logged = blm.LMM("log(Reaction) ~ Days + (Days | Subject)", sleepstudy).fit()
        >>> logged.predict({"Days": [10]}, level="population", type="response").round(1).to_numpy().tolist()
        [[353.1]]
        """
        if require_flag(observed, "observed"):
            require_outcomes(newdata, level)

        def predicted(kind: IntervalKind | None) -> pd.DataFrame:
            if not observed:
                return predict_rows(self, newdata, level=level, interval=kind, conf_level=conf_level, new_levels=new_levels, offset=offset)
            from bayeslmm.inference.dynamic_prediction import predict_dynamic

            return predict_dynamic(self, newdata, kind, conf_level, offset=offset)

        return on_response(predicted, self.design, interval, type, bias_adjust)

    def contrast_rows(self, newdata: Frame) -> Array:
        """X over the columns kept for new rows, (n, p): `contrast` takes such rows, and differences of them.

        Parameters
        ----------
        newdata : DataFrame or Mapping
            New rows, in any frame.

        Returns
        -------
        ndarray
            (n, p) rows, NaN where a covariate is missing.

        Raises
        ------
        PredictionError
            For absent columns, unknown levels, and rows that are not estimable.

        Examples
        --------
        >>> fit.contrast_rows({"Days": [3]}).tolist()
        [[1.0, 3.0]]
        """
        X, _ = self.design.encoding.encode_fixed(newdata)
        if self.design.aliased:
            require_estimable_rows(self, X, ~np.isfinite(X).all(axis=1))
        return np.asarray(X[:, list(self.design.kept)])

    # -- other fits ----------------------------------------------------------------------------------------------------------------------

    def simulate(self, nsim: int = 1, seed: int | None = None) -> pd.DataFrame:
        """Responses drawn from the fitted model with new random effects and errors, one column per simulation.

        The columns do not depend on `nsim`: the first is the same for any number.

        Parameters
        ----------
        nsim : int, default 1
            Number of simulated responses.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.

        Returns
        -------
        DataFrame
            (nobs, nsim) responses.

        Examples
        --------
        >>> fit.simulate(2, seed=1).shape
        (180, 2)
        """
        return simulate(self, nsim, seed)

    def with_params(
        self,
        *,
        alpha: float | Sequence[float] | Mapping[str, float] | Array | None = None,
        sd: float | Sequence[float] | Mapping[str, float] | Mapping[str, Sequence[float]] | None = None,
        corr: float | Array | Mapping[str, float | Array] | None = None,
        sigma: float | None = None,
        R: Matrix | Mapping[str, Matrix] | None = None,
    ) -> Fit:
        """The same design at other parameters, without outcome: for `power` and `simulate`.

        Parameters
        ----------
        alpha : float or sequence of float or Mapping of str to float or ndarray, optional
            Coefficients by name (the others stay), or all of them.
        sd : float or sequence of float or Mapping of str to float or Mapping of str to sequence of float, optional
            Standard deviations of the random effects, by grouping factor.
        corr : float or ndarray or Mapping of str to float or ndarray, optional
            Their correlations, by grouping factor.
        sigma : float, optional
            Residual standard deviation; with a residual structure that of the first visit, and all others in proportion.
        R : ndarray or sequence of sequence of float or DataFrame or Mapping of str to one of these, optional
            Covariance matrix of the errors over visits; where the structure differs by group, group -> matrix changes some of them.

        Returns
        -------
        Fit
            A fit whose parameters are those.

        Examples
        --------
        >>> fit.with_params(alpha={"Days": 5.0}).fixef["Days"].round(6).item()
        5.0
        """
        from bayeslmm.study_design.assumed import estimates_with

        found = estimates_with(self, alpha=alpha, sd=sd, corr=corr, sigma=sigma, R=R)
        return AssumedFit(found.model, found.problem, found.estimate, 0.0)

    def power(
        self,
        test: LinearFunction,
        *,
        alpha: float = 0.05,
        nsim: int = 1000,
        n: int | Sequence[int] | None = None,
        along: str | None = None,
        df: DfMethod = "satterthwaite",
        method: Literal["simulation", "analytic"] = "simulation",
        seed: int | None = None,
        side: Side = "two-sided",
        delta: float = 0.0,
        equivalence: float | None = None,
        dropout: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
        effect: float | Sequence[float] | None = None,
    ) -> PowerCurve:
        """Power of a test at the parameters of this fit: the share of simulated data sets in which it rejects, or analytically.

        Parameters
        ----------
        test : array_like, Mapping, str or sequence of str
            A coefficient, a contrast, or a term of `anova`; a list of them is judged in the same simulated data.
        alpha : float, default 0.05
            Level of the test.
        nsim : int, default 1000
            Simulated data sets for each size.
        n : int or sequence of int, optional
            Sizes to try.
        along : str, optional
            What n counts: levels of a grouping factor, whose own subjects or classes are copied with it, or values of a covariate
            (visits), which go on in steps as the last.
        df : str, default "satterthwaite"
            Degrees of freedom of the test.
        method : {"simulation", "analytic"}, default "simulation"
            "simulation"; or "analytic": noncentral t or F with the expected information and the degrees of freedom of the method.
        seed : int, optional
            Same seed, same power.
        side : {"two-sided", "greater", "less"}, default "two-sided"
            "greater" or "less" for one-sided tests, about a margin (non-inferiority: `side="greater", delta=-margin`).
        delta : float, default 0.0
            "greater" or "less" for one-sided tests, about a margin (non-inferiority: `side="greater", delta=-margin`).
        equivalence : float, optional
            Two one-sided tests within plus and minus this.
        dropout : sequence of float or Mapping of str to sequence of float, optional
            Share of subjects gone by each visit, of all, or by the levels of a factor (the arm).
        effect : float or sequence of float, optional
            True values of what is tested, in place of what the parameters say: a curve along the effect.

        Returns
        -------
        PowerCurve
            Power with its Monte Carlo limits, one row for each size and test; with a figure.

        Examples
        --------
        >>> round(fit.power("Days", method="analytic").frame["power"].item(), 3)
        1.0
        """
        from bayeslmm.study_design.power import power

        return power(
            self,
            test,
            alpha=alpha,
            nsim=nsim,
            n=n,
            along=along,
            df=df,
            method=method,
            seed=seed,
            side=side,
            delta=delta,
            equivalence=equivalence,
            dropout=dropout,
            effect=effect,
        )

    def check_inference(
        self,
        n: int = 2000,
        seed: int | None = None,
        methods: Sequence[str] = ("wald", "satterthwaite"),
        *,
        conf_level: float = 0.95,
    ) -> InferenceCheck:
        """Can inference be trusted in this very design? Data simulated from the fit, refitted: coverage, size, bias, singular fits.

        Parameters
        ----------
        n : int, default 2000
            Simulated data sets.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.
        methods : sequence of str, default ("wald", "satterthwaite")
            "wald", "satterthwaite", "residual" (refitted side by side), "kenward-roger", "sandwich", "profile", "bootstrap" (one after the
            other, of which at most 200 are run). F tests of terms with several degrees of freedom are run one after the other too.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        InferenceCheck
            Coverage, size, bias, and what follows from them.

        Examples
        --------
        >>> fit.check_inference(50, seed=1).frame.columns.tolist()[:3]
        ['method', 'term', 'coverage']
        """
        from bayeslmm.study_design.inference_check import check_inference

        return check_inference(self, n, seed, methods, conf_level)

    def refit(self, y: ArrayLike) -> Fit:
        """The same model, fitted by the same method to another response.

        Parameters
        ----------
        y : array_like
            (nobs,) or as long as the data, or a frame of one column; on the scale of the left side of the formula.

        Returns
        -------
        Fit
            The new fit.

        Examples
        --------
        >>> round(fit.refit(2 * sleepstudy["Reaction"]).sigma / fit.sigma, 6)
        2.0
        """
        return self._of(self.model.with_response(y).fit(self.method))

    def update(
        self,
        formula: str | None = None,
        data: Frame | None = None,
        *,
        method: FitMethod | None = None,
        residual: str | Unchanged | None = KEEP,
        variance: str | Unchanged | None = KEEP,
        weights: RowValues | Unchanged | None = KEEP,
        offset: RowValues | Unchanged | None = KEEP,
        contrasts: Mapping[str, Coding] | Unchanged | None = KEEP,
        relationship: Mapping[str, pd.DataFrame] | Unchanged | None = KEEP,
        priors: Priors | Unchanged | None = KEEP,
        missing: Missing | Unchanged = KEEP,
        check: CheckMode | Unchanged = KEEP,
        functions: Functions | Unchanged | None = KEEP,
    ) -> Fit:
        """The model with another formula, data or argument, fitted by the same method or another.

        The other arguments are those of `LMM`.

        Parameters
        ----------
        formula : str, optional
            A dot stands for what was there: `". ~ . + x"`, `". ~ . - (Days | Subject) + (1 | Subject)"`, `"log(.) ~ ."`.
        data : DataFrame or Mapping, optional
            New data; those of the fit by default.
        method : {"REML", "ML", "MAP"}, optional
            "REML", "ML" or "MAP"; that of the fit by default.
        residual : str, optional
            Structure of R in mmrm's syntax, `"us(AVISIT | USUBJID)"`; None is independent errors.
        variance : str, optional
            Variance function of the errors, `"ident(Sex) * power(age)"`.
        weights : str or array_like, optional
            Column, array or Series of prior weights; the residual variance is sigma^2 / w, and 0 leaves a row out.
        offset : str or array_like, optional
            Column or array added to the linear predictor.
        contrasts : Mapping of str to str or array_like, optional
            Factor -> "treatment", "sum", "helmert", "poly", a pair of coding and reference level, or a matrix.
        relationship : Mapping of str to DataFrame, optional
            Grouping factor -> labelled frame of the known covariance of its levels.
        priors : Priors, optional
            Priors of the parameters, for MAP estimates and posteriors.
        missing : {"drop", "raise"}, optional
            "drop" leaves rows with missing values out, "raise" refuses them.
        check : {"error", "warn"}, optional
            "error" refuses a design that cannot identify its parameters; "warn" goes on.
        functions : Mapping of str to callable, optional
            The user's own functions of the formula, by name.

        Returns
        -------
        Fit
            The new fit.

        Examples
        --------
        >>> fit.update(". ~ . - (Days | Subject) + (1 | Subject)").df_model
        4
        """
        options = {
            "residual": residual,
            "variance": variance,
            "weights": weights,
            "offset": offset,
            "contrasts": contrasts,
            "relationship": relationship,
            "priors": priors,
            "missing": missing,
            "check": check,
            "functions": functions,
        }
        changes = {name: value for name, value in options.items() if value is not KEEP}
        return self._of(self.model.updated(formula, data, changes).fit(self.method if method is None else method))

    def save(self, path: str | Path, rows: bool = True) -> None:
        """Write the fit to one file at exactly this path; `blm.load(path)` opens it again, equal to the bit.

        The file is a zip of JSON and .npy members with checksums; it replaces an older one only when it is complete.

        Parameters
        ----------
        path : str or Path
            File to write.
        rows : bool, default True
            Whether the rows of the fit are kept. Without, the file holds sums and levels: enough for estimates, tests, means and
            `predict(newdata)`, to rounding; verbs that need the rows (`residuals`, `simulate`, ...) raise an error that says so.

        Raises
        ------
        StoreError
            Where it cannot be written, or where the model cannot be told (user functions are named, not stored).

        Examples
        --------
        >>> fit.save("sleepstudy.fit"); blm.load("sleepstudy.fit").criterion == fit.criterion
        True
        """
        save(self, path, rows=require_flag(rows, "rows"))

    @staticmethod
    def _of(fit: Estimates) -> Fit:
        assert isinstance(fit, Fit)
        return fit

    # -- inference -----------------------------------------------------------------------------------------------------------------------

    def anova(
        self,
        type: AnovaType = 3,  # noqa: A002
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        *,
        information: Information = "expected",
        cluster: str | None = None,
        effect_size: Literal["eta", "omega", "epsilon"] | None = None,
        conf_level: float = 0.95,
    ) -> pd.DataFrame:
        """F tests of the terms: `term, sum_sq, num_df, den_df, statistic, p_value`; type 1, 2 or 3.

        Parameters
        ----------
        type : {1, 2, 3, "I", "II", "III"}, default 3
            Type of the hypotheses: 1 sequential, 2 by marginality, 3 every term given all others.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.
        effect_size : {"eta", "omega", "epsilon"}, optional
            Adds partial eta, omega or epsilon squared of each term, from F and its degrees of freedom, with limits from the noncentral F
            distribution.
        conf_level : float, default 0.95
            Level of these limits, of both sides; R's effectsize gives by default the lower one of `conf_level=0.9`.

        Returns
        -------
        DataFrame
            One row for each term.

        Examples
        --------
        >>> fit.anova()["num_df"].tolist()
        [1]
        >>> fit.anova(effect_size="omega").columns.tolist()[-3:]
        ['partial_omega_squared', 'conf_low', 'conf_high']
        """
        from bayeslmm.inference.means.anova import add_effect_sizes, anova

        level = require_level(conf_level)
        if effect_size is not None:
            return add_effect_sizes(anova(self, type, df, vcov, information, cluster), effect_size, level)
        return anova(self, type, df, vcov, information, cluster)

    def contrast(
        self,
        L: LinearFunction,
        rhs: ArrayLike = 0,
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        *,
        information: Information = "expected",
        cluster: str | None = None,
        side: Side = "two-sided",
        delta: float = 0.0,
        equivalence: float | None = None,
        conf_level: float = 0.95,
    ) -> Contrast:
        """Tests of linear functions of the coefficients: rows one by one (`.frame`), and together (`.joint`).

        Parameters
        ----------
        L : array_like, Mapping, str or sequence of str
            Weights of the coefficients, a row each: an array in the order of the coefficients, a mapping by name, or equations as text.
            Where columns are aliased, an array may also have the columns kept alone, as `contrast_rows` gives them.
        rhs : array_like, default 0
            Values that the linear functions are tested against, one for each row or one for all.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.
        side : {"two-sided", "greater", "less"}, default "two-sided"
            One-sided tests and limits: `side="greater", delta=-margin` is non-inferiority.
        delta : float, default 0
            What the estimate minus `rhs` is compared with.
        equivalence : float, optional
            Two one-sided tests that the estimate minus `rhs` lies within plus and minus this.
        conf_level : float, default 0.95
            Level of confidence.

        Returns
        -------
        Contrast
            The tests, with `.frame` and `.joint`.

        Examples
        --------
        >>> fit.contrast("Days = 10").frame["estimate"].round(2).tolist()
        [0.47]
        """
        from bayeslmm.inference.means.linear_functions import contrast

        return contrast(self, L, rhs, df, vcov, information, cluster, side, delta, equivalence, conf_level)

    def emmeans(
        self,
        specs: Names,
        by: Names | None = None,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        *,
        information: Information = "expected",
        conf_level: float = 0.95,
        cluster: str | None = None,
        type: ResponseType = "link",  # noqa: A002
        bias_adjust: bool | float = False,
    ) -> EMMeans:
        """Marginal means of the levels of factors; `type="response"` takes `log(y)`, `sqrt(y)`, ... back to y.

        Parameters
        ----------
        specs : str or sequence of str
            Factors whose levels, or combinations of levels, have a mean each; also as "~ arm | visit", or as "pairwise ~ arm",
            "trt.vs.ctrl ~ arm | visit" and so on, which give the result its `.contrasts`.
        by : str or sequence of str, optional
            Factors within whose levels means are compared.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held in the reference grid; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of what a mean averages over: "equal", "proportional", "outer", "cells" or "flat".
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
            The response as the model has it, or taken back from `log(y)`, `sqrt(y)`, ...: pairs of logarithms are ratios then.
        bias_adjust : bool or float, default False
            Whether means taken back are adjusted for the curvature by half the variance of responses; a number is the sd to take.

        Returns
        -------
        EMMeans
            The means, with their contrasts and figure.

        Examples
        --------
        >>> fit.emmeans("Days", at={"Days": [0, 9]}).frame["estimate"].round(2).tolist()
        [251.41, 345.61]
        """
        from bayeslmm.inference.means.emmeans import emmeans

        return emmeans(self, specs, by, at, weights, df, vcov, information, conf_level, cluster, type, bias_adjust)

    def emtrends(
        self,
        var: str,
        specs: Names | None = None,
        by: Names | None = None,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        df: DfMethod = "satterthwaite",
        vcov: VcovMethod | None = None,
        *,
        information: Information = "expected",
        conf_level: float = 0.95,
        cluster: str | None = None,
    ) -> EMMeans:
        """Slopes of a covariate, by the levels of factors.

        Parameters
        ----------
        var : str
            Numeric covariate whose slopes are asked for.
        specs : str or sequence of str, optional
            Factors whose levels, or combinations of levels, have a mean each.
        by : str or sequence of str, optional
            Factors within whose levels means are compared.
        at : Mapping of str to value or sequence of values, optional
            Variable -> the value, or values, at which it is held in the reference grid; covariates are at their mean by default.
        weights : {"equal", "proportional", "outer", "cells", "flat"}, default "equal"
            Weights of what a slope averages over.
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
        EMMeans
            The slopes, with their contrasts and figure.

        Examples
        --------
        >>> fit.emtrends("Days").frame["estimate"].round(2).tolist()
        [10.47]
        """
        from bayeslmm.inference.means.emmeans import emtrends

        return emtrends(self, var, specs, by, at, weights, df, vcov, information, conf_level, cluster)

    def confint(
        self,
        method: ConfMethod = "wald",
        level: float = 0.95,
        *,
        conf_level: float | None = None,
        terms: Names | None = None,
        criterion: LikelihoodKind | None = None,
        n: int | None = None,
        seed: int | None = None,
        kind: BootstrapKind | None = None,
        interval: BootstrapInterval | None = None,
        workers: int | None = None,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Confidence intervals: `term, conf_low, conf_high`; "wald", "profile" or "bootstrap".

        Parameters
        ----------
        method : {"wald", "profile", "bootstrap"}, default "wald"
            "wald", "profile" or "bootstrap".
        level : float, default 0.95
            Level of the limits, between 0 and 1.
        conf_level : float, optional
            Level of the limits, between 0 and 1.
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        criterion : {"REML", "ML"}, optional
            Likelihood that is profiled, "REML" or "ML"; for intervals by default that of the fit.
        n : int, optional
            Replicates of the bootstrap, 1000 by default.
        seed : int, optional
            Seed of the bootstrap.
        kind : {"parametric", "case"}, optional
            Of the bootstrap: "parametric", or "case" for resampled groups.
        interval : {"percentile", "basic", "bca"}, optional
            Limits of the bootstrap: "percentile", "basic" or "bca".
        workers : int, optional
            Threads of the bootstrap.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> fit.confint().columns.tolist()[-2:]
        ['conf_low', 'conf_high']
        """
        from bayeslmm.inference.tidy import confint

        return confint(
            self,
            method,
            level if conf_level is None else conf_level,
            terms=terms,
            criterion=criterion,
            n=n,
            seed=seed,
            kind=kind,
            interval=interval,
            workers=workers,
            progress=progress,
        )

    def profile(
        self, criterion: LikelihoodKind = "ML", terms: Names | None = None, level: float = 0.99, *, conf_level: float | None = None
    ) -> Profile:
        """The profiled likelihood of every parameter.

        Parameters
        ----------
        criterion : {"REML", "ML"}, default "ML"
            Likelihood that is profiled, "REML" or "ML"; for intervals by default that of the fit.
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        level : float, default 0.99
            Level of the limits, between 0 and 1.
        conf_level : float, optional
            Level of the limits, between 0 and 1.

        Returns
        -------
        Profile
            The curves, with their limits and figure.

        Examples
        --------
        >>> profile = fit.profile()
        """
        from bayeslmm.inference.intervals.profile import profile

        return profile(self, criterion, terms, level if conf_level is None else conf_level)

    def bootstrap(
        self,
        n: int = 1000,
        seed: int | None = None,
        *,
        kind: BootstrapKind = "parametric",
        group: str | None = None,
        statistic: Callable[[Fit], StatisticValues] | None = None,
        workers: int = 1,
        progress: bool | None = None,
    ) -> Bootstrap:
        """Refits to simulated responses or to resampled groups.

        Parameters
        ----------
        n : int, default 1000
            Number of replicates.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.
        kind : {"parametric", "case"}, default "parametric"
            "parametric" simulates responses, "case" draws groups anew. Of 5,000 rows and more the sums of a response that the likelihood
            needs are simulated and not its rows, where no `statistic` asks for these.
        group : str, optional
            Grouping factor whose levels are drawn; the top one by default.
        statistic : callable, optional
            What is computed of each refit: a function of a fit that gives numbers, by name or in order.
        workers : int, default 1
            Threads that share the replicates, which do not depend on their number; at most four for each core are started.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        Bootstrap
            The replicates, with their limits and figure.

        Examples
        --------
        >>> replicates = fit.bootstrap(3, seed=1)
        """
        from bayeslmm.inference.intervals.bootstrap import bootstrap

        return bootstrap(self, n, seed, kind=kind, group=group, statistic=statistic, workers=workers, progress=progress)

    def ranova(self, boundary: bool = True) -> pd.DataFrame:
        """Likelihood-ratio tests of the random terms: `term, npar, loglik, aic, statistic, df, p_value`.

        Parameters
        ----------
        boundary : bool, default True
            Whether p values of variances tested at 0 are those of a mixture of chi-squares; False gives the plain chi-square.

        Returns
        -------
        DataFrame
            One row for each random term.

        Examples
        --------
        >>> fit.ranova()["term"].tolist()
        ['<none>', 'Days in (Days | Subject)']
        """
        from bayeslmm.inference.lrt import ranova

        return ranova(self, boundary)

    def r2(self, conf_int: bool = False, conf_level: float = 0.95, *, n: int = 500, seed: int | None = None) -> pd.DataFrame:
        """Shares of the variance explained: `conditional, marginal`.

        Parameters
        ----------
        conf_int : bool, default False
            Rows `conditional`, `marginal` with `estimate, std_error, conf_low, conf_high` by parametric bootstrap instead.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        n : int, default 500
            Replicates of the bootstrap.
        seed : int, optional
            Same seed, same limits.

        Returns
        -------
        DataFrame
            One row, or one for each share.

        Examples
        --------
        >>> fit.r2()["marginal"].round(2).item()
        0.28
        """
        from bayeslmm.inference.diagnostics import r2
        from bayeslmm.inference.variance_components import shares_table

        return shares_table(self, r2, conf_int, conf_level, n, seed)

    def icc(
        self,
        conf_int: bool = False,
        conf_level: float = 0.95,
        *,
        by: Literal["factor"] | None = None,
        n: int = 500,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Intraclass correlation: `adjusted, unadjusted`.

        Parameters
        ----------
        conf_int : bool, default False
            Rows with `estimate, std_error, conf_low, conf_high` by parametric bootstrap instead.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        by : {"factor"}, optional
            One row for each grouping factor, whose shares add up to those of all.
        n : int, default 500
            Replicates of the bootstrap.
        seed : int, optional
            Same seed, same limits.

        Returns
        -------
        DataFrame
            One row, or one for each grouping factor or correlation.

        Examples
        --------
        >>> fit.icc()["adjusted"].round(2).item()
        0.72
        """
        from bayeslmm.inference.diagnostics import icc
        from bayeslmm.inference.variance_components import icc_by_factor, shares_table

        if by is not None:
            require_one_of(by, ("factor",), "by")
        return shares_table(self, icc if by is None else icc_by_factor, conf_int, conf_level, n, seed)

    def varcomp(self, scale: VarianceScale = "variance", se: bool = True, conf_int: bool = False, conf_level: float = 0.95) -> pd.DataFrame:
        """Variance components with standard errors: `group, term, estimate, std_error`.

        Standard errors are by the delta method from the observed information; limits are normal on the log scale (covariances: as they
        are; correlations: Fisher's z). A component at the end of its range has neither, and a note says so.

        Parameters
        ----------
        scale : {"variance", "sd"}, default "variance"
            Variances and covariances, or standard deviations and correlations.
        se : bool, default True
            Whether standard errors come too.
        conf_int : bool, default False
            Whether limits, `conf_low, conf_high`, come too.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            One row for each component, those of the errors last.

        Examples
        --------
        >>> fit.varcomp()[["term", "estimate", "std_error"]].round(1).to_numpy().tolist()[0]
        ['var__Intercept', 612.1, 288.8]
        """
        from bayeslmm.inference.variance_components import varcomp

        return varcomp(self, scale, se, conf_int, conf_level)

    def ratio(self, numerator: Names | VarianceFunctionOf, of: Names = "total", conf_level: float = 0.95) -> pd.DataFrame:
        """A ratio of variance components, or another function of them: `term, estimate, std_error, conf_low, conf_high`.

        Heritability, repeatability, total gauge R&R. Names are those of grouping factors (the mean variance over the rows of all its
        terms), of single variances, `"Intercept|animal"`, `"Residual"` and `"total"`. Standard errors are by the delta method, limits
        normal on the logit scale for a share, on the log scale for another ratio, and as they are for a function.

        Parameters
        ----------
        numerator : str, sequence of str or callable
            Variances whose sum stands above; or a function of a mapping of all variances by name that gives a number, such as
            `lambda v: 4 * v["sire"] / v["total"]`.
        of : str or sequence of str, default "total"
            Variances whose sum stands below.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            One row.

        Examples
        --------
        >>> fit.ratio("Subject")[["estimate", "std_error"]].round(2).to_numpy().tolist()
        [[0.72, 0.07]]
        """
        from bayeslmm.inference.variance_components import ratio

        return ratio(self, numerator, of, conf_level)

    def standardized(self, df: DfMethod = "satterthwaite", conf_level: float = 0.95) -> pd.DataFrame:
        """Coefficients in standard deviations of the response for one of each covariate: those of the model on standardized data.

        Covariates that a function such as `log(x)` reads stay as they are, and so do factors; powers and products written `I(x ** 2)` or
        `I(x * z)` are those of the standardized covariates.

        Parameters
        ----------
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            Columns as in `tidy(conf_int=True)`.

        Examples
        --------
        >>> fit.standardized().set_index("term").loc["Days", "estimate"].round(3).item()
        0.535
        """
        from bayeslmm.inference.variance_components import standardized_data

        frame, response = standardized_data(self)
        model = self.model.updated(None, frame, {})
        again = self._of(require_finished(model.with_response(response).fit(self.method)))
        return again.tidy(conf_int=True, conf_level=conf_level, df=df)

    def to_table(
        self,
        *others: Fit | Posterior,
        format: TableFormat | None = None,  # noqa: A002
        labels: Mapping[str, str] | Sequence[str] | None = None,
        path: str | Path | None = None,
        df: DfMethod = "satterthwaite",
        conf_level: float = 0.95,
    ) -> str | bytes:
        """The model, and others beside it, as a table for a paper: fixed and random part, R2, ICC, criterion, notes.

        Parameters
        ----------
        *others : Fit or Posterior
            What stands beside it.
        format : {"html", "latex", "docx", "rtf", "markdown"}, optional
            Language of the table; by default what `path` ends in, and HTML without it.
        labels : Mapping of str to str or sequence of str, optional
            What terms are called in the table, or headings of the models.
        path : str or Path, optional
            File to write.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        conf_level : float, default 0.95
            Level of the intervals.

        Returns
        -------
        str or bytes
            The table: text, or the bytes of a Word document.

        Examples
        --------
        >>> print(fit.to_table(format="markdown").splitlines()[0])
        |  | Reaction |  |
        """
        from bayeslmm.bayes.model_table import tables

        return tables(self, *others, format=format, labels=labels, path=path, df=df, conf_level=conf_level)

    def influence(
        self,
        group: str | None = None,
        *,
        values: InfluenceValues = "estimates",
        refit: bool = True,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Leverage and Cook's distance of every row, or the fit without each level of a grouping factor.

        Parameters
        ----------
        group : str, optional
            Grouping factor whose levels are left out; None is about rows.
        values : {"estimates", "dfbetas"}, default "estimates"
            "estimates", the coefficients without each level, or "dfbetas", their changes in standard errors.
        refit : bool, default True
            Whether covariance parameters are estimated again without each level.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        DataFrame
            One row for each row or level.

        Examples
        --------
        >>> fit.influence().columns.tolist()
        ['hat', 'cooks_distance']
        """
        from bayeslmm.inference.influence import influence

        return influence(self, group, values=values, refit=refit, progress=progress)

    def covariance(
        self, vcov: VcovMethod = "asymptotic", information: Information = "expected", cluster: str | None = None
    ) -> pd.DataFrame:
        """Covariance matrix of the fixed effects under an adjustment: "kenward-roger", "CR0" to "CR3", ...

        Parameters
        ----------
        vcov : str, default "asymptotic"
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters: "expected" or "observed".
        cluster : str, optional
            Grouping factor or column over whose levels a cluster-robust covariance is summed; by default the top grouping factor.

        Returns
        -------
        DataFrame
            (p, p) labelled by coefficient.

        Examples
        --------
        >>> fit.covariance(vcov="CR2").shape
        (2, 2)
        """
        from bayeslmm.inference.fixed_effects.tests import covariance

        return covariance(self, vcov, information, cluster)

    def to_marginaleffects(self) -> Any:
        """The fit as the package marginaleffects takes models.

        Returns
        -------
        object
            What `marginaleffects` takes as a model.

        Examples
        --------
        >>> adapter = fit.to_marginaleffects()
        """
        from bayeslmm.model.interop import to_marginaleffects

        return to_marginaleffects(self)

    def report(
        self,
        path: str | Path | None = None,
        title: str | None = None,
        df: DfMethod = "satterthwaite",
        *,
        vcov: VcovMethod | None = None,
        information: Information = "expected",
        posterior: Posterior | None = None,
        imputations: Imputations | None = None,
        analysis: str | None = None,
        seed: int | None = None,
        alternative: Side = "two-sided",
        null: float = 0.0,
        conf_level: float = 0.95,
        inference_check: InferenceCheck | None = None,
    ) -> HtmlPage:
        """One HTML file that needs nothing else: model, data, estimates, variances, checks, figures, marginal means, provenance.

        Parameters
        ----------
        path : str or Path, optional
            Where to write it; without one, the text is only returned.
        title : str, optional
            Title of the page; by default one made from the model.
        df : str, default "satterthwaite"
            Method of the denominator degrees of freedom: "satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within",
            "containment", "residual", or "asymptotic", the normal distribution.
        vcov : str, optional
            Covariance matrix of the fixed effects: that of the model, "kenward-roger", or cluster-robust "CR0" to "CR3"; by default what
            `df` asks for.
        information : {"expected", "observed"}, default "expected"
            Information of the covariance parameters; with `df="kenward-roger"`, "observed" is what SAS and mmrm report.
        posterior : Posterior, optional
            Of the same model, to stand beside the estimates.
        imputations : Imputations, optional
            Of the same trial: who was imputed and why, and what it does to the estimate.
        analysis : str, optional
            How the imputations are analysed, as in their `analyse`.
        seed : int, optional
            Seed that the draws were made with.
        alternative : {"two-sided", "less", "greater"}, default "two-sided"
            Of the imputations' tests, as in `pool`.
        null : float, default 0.0
            Of the imputations' tests, as in `pool`: minus the margin of a trial of non-inferiority where more is better.
        conf_level : float, default 0.95
            Level of the imputations' limits.
        inference_check : InferenceCheck, optional
            What `check_inference` found of this fit's design.

        Returns
        -------
        HtmlPage
            The page, a str that is shown by its sections and its size.

        Examples
        --------
        >>> "Fixed effects" in fit.report(df="asymptotic")
        True
        """
        from bayeslmm.reports.fit import fit_page

        require_html_place(path)
        seed_sequence(seed)
        options: dict[str, Any] = {"title": title, "df": df, "vcov": vcov, "information": information, "seed": seed}
        sections: list[Callable[[Any], None]] = []
        if posterior is not None:
            from bayeslmm.bayes.comparison import compare
            from bayeslmm.bayes.posterior.posterior import Posterior

            _require_kind(posterior, Posterior, "posterior", "model.sample()")
            options |= {"posterior": posterior, "comparison": compare(self, posterior)}
        if imputations is not None:
            from bayeslmm.trials.imputations import Imputations
            from bayeslmm.trials.report import EffectOptions, add_imputations, check_analysis

            _require_kind(imputations, Imputations, "imputations", "blm.impute(...)")
            asked = EffectOptions(analysis, (), conf_level, alternative, null)
            check_analysis(imputations, asked)
            sections.append(lambda page: add_imputations(page, imputations, asked))
        else:
            require_one_of(alternative, get_args(Side), "alternative")
            if analysis is not None or alternative != "two-sided" or require_number(null, "null") or require_level(conf_level) != 0.95:
                where = "analysis, alternative, null, conf_level"
                raise SpecificationError("there are no imputations to analyse", where, "give imputations=, or leave these out")
        if inference_check is not None:
            from bayeslmm.study_design.inference_check import InferenceCheck, add_inference_check

            _require_kind(inference_check, InferenceCheck, "inference_check", "fit.check_inference()")
            sections.append(lambda page: add_inference_check(page, inference_check))
        return fit_page(self, more=lambda page: [add(page) for add in sections], **options).finish(path)

    @property
    def plot(self) -> FitPlots:
        """Figures, each with `ax=`: `plot.fitted()`, `.residuals()`, `.qq()`, `.ranef()`, `.lines(x, by)`, ...

        >>> axes = fit.plot.fitted()
        """
        from bayeslmm.model.fit_plots import FitPlots

        return FitPlots(self)

    # -- what the package maketables asks of a model ---------------------------------------------------------------------------------------

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        from bayeslmm.model.interop import maketables_coefficients

        return maketables_coefficients(self)

    @property
    def __maketables_depvar__(self) -> str:
        return self.design.spec.formula.response

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N", "groups", "sigma", "aic"]

    def __maketables_stat__(self, key: str) -> float | str | None:
        from bayeslmm.model.interop import maketables_statistic

        return maketables_statistic(self, key)

    # -- how it looks --------------------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        state = "" if self.converged else ", interrupted" if self.interrupted else ", not converged"
        return f"Fit({self.method} of {self.design.spec.title}: criterion {self.criterion:.4f}, nobs {self.nobs}{state})"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


# a call and no decorator: editors complete the verbs of an undecorated class
known_arguments(Fit, attributes=foreign_names.FIT_ATTRIBUTES)


class AssumedFit(Fit):
    """A `Fit` whose parameters were assumed: what needs an outcome is refused by name, everything else works.

    Random effects are predicted by their expectation, 0.

    >>> blm.assume("y ~ x + (1 | g)", {"x": [0, 1] * 6, "g": list("aabbccddeeff")}, alpha=[0, 1], sd=1, sigma=1).fixef.round(6).tolist()
    [0.0, 1.0]
    """

    augment = refuse_outcome(Fit.augment, lambda fit: fit)
    coef = refuse_outcome(Fit.coef, lambda fit: fit)
    influence = refuse_outcome(Fit.influence, lambda fit: fit)
    profile = refuse_outcome(Fit.profile, lambda fit: fit)
    ranef = refuse_outcome(Fit.ranef, lambda fit: fit)
    ranova = refuse_outcome(Fit.ranova, lambda fit: fit)
    report = refuse_outcome(Fit.report, lambda fit: fit)
    residuals = refuse_outcome(Fit.residuals, lambda fit: fit)
    save = refuse_outcome(Fit.save, lambda fit: fit)
    standardized = refuse_outcome(Fit.standardized, lambda fit: fit)
    update = refuse_outcome(Fit.update, lambda fit: fit)

    @property
    def plot(self) -> FitPlots:
        """Figures of what is assumed: `plot.effects(term)`, `.emmeans(specs)`, `.confint()`, `.covariance()`, `.differences(by)`."""
        from bayeslmm.model.fit_plots import AssumedFitPlots

        return AssumedFitPlots(self)

    def __repr__(self) -> str:
        return f"Fit({self.design.spec.title} at assumed parameters: nobs {self.nobs})"


public_verbs(AssumedFit)
