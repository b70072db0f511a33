"""`Posterior`: draws from the posterior of a model, and the verbs of a fit on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast, overload

import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._io import as_path
from bayeslmm._validation import require_flag, require_level, require_names
from bayeslmm.bayes.log_posterior.priors import require_evidence
from bayeslmm.bayes.loo import cross_validate, leave_one_out
from bayeslmm.bayes.model_table import tables
from bayeslmm.bayes.posterior import datatree
from bayeslmm.bayes.posterior import predict as posterior_rows
from bayeslmm.bayes.posterior import tables as posterior_tables
from bayeslmm.bayes.posterior.data import PosteriorData, save_posterior
from bayeslmm.bayes.posterior.hypotheses import judge_hypotheses, rope_shares, sensitivity
from bayeslmm.bayes.sampling.prior_predictive import prior_predictive
from bayeslmm.errors import SamplingError, escape_control
from bayeslmm.results import foreign_names
from bayeslmm.results.foreign_names import AnsweringClass, known_arguments
from bayeslmm.results.render import describe_checks, html_of_frame

if TYPE_CHECKING:
    import xarray
    from arviz_stats.utils import ELPDData

    from bayeslmm._types import (
        ArrayLike,
        Effects,
        Frame,
        GridWeights,
        IntervalKind,
        LeaveOut,
        Level,
        LinearFunction,
        Names,
        PosteriorNewLevels,
        ResponseType,
        SamplingMethod,
        SummaryKind,
        TableFormat,
        Values,
    )
    from bayeslmm.bayes.posterior.plots import PosteriorPlots
    from bayeslmm.bayes.posterior.tables import PosteriorContrast, PosteriorMeans
    from bayeslmm.results.estimates import Estimates
    from bayeslmm.specification.priors import Priors


ESTIMATE_COLUMNS = ["estimate", "std_error", "conf_low", "conf_high"]


class SampledModel(Protocol):
    """A model that can be sampled."""

    def sample(self, draws: int, chains: int, seed: int | None, method: SamplingMethod) -> Posterior: ...


class Posterior(PosteriorData, metaclass=AnsweringClass):
    """Draws of every parameter of a model: fixed effects, covariance parameters, random effects.

    Made by `LMM.sample`; examples take `post = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).sample(seed=1)`.
    """

    @property
    def log_evidence(self) -> float:
        """log p(y), from the importance weights. Raises PriorError where a prior is improper, SamplingError for Markov chains.

        >>> proper = blm.LMM(post.formula, sleepstudy, priors=blm.Priors(alpha="normal"))
        >>> bool(-893 < proper.sample(seed=1).log_evidence < -891)
        True
        """
        require_evidence(self.density.priors)
        if self.evidence is None:
            raise SamplingError("Markov chains give no evidence", self.method, 'use model.sample(method="importance")')
        return self.evidence

    @cached_property
    def tree(self) -> xarray.DataTree:
        """An ArviZ `DataTree`: posterior, sample_stats, log_prior, log_likelihood, observed_data, constant_data.

        Draws in it are not to be written to: they are the posterior's own.

        Examples
        --------
        >>> sorted(post.tree.posterior.data_vars)[:3]
        ['alpha', 'beta_Subject', 'cor_Subject']
        """
        return datatree.build_tree(self)

    # -- tables ----------------------------------------------------------------------------------------------------------------------------

    def summary(
        self,
        var_names: Names | None = None,
        *,
        filter_vars: Literal["like", "regex"] | None = None,
        coords: Mapping[str, Values] | None = None,
        kind: SummaryKind = "all",
        ci_prob: float | None = None,
        ci_kind: Literal["eti", "hdi"] | None = None,
        round_to: int | Literal["auto", "none"] | None = "auto",
        skipna: bool = False,
    ) -> pd.DataFrame:
        """ArviZ's summary of coefficients and covariance parameters: mean, sd, interval, ess, r_hat.

        The arguments are those of `arviz.summary`; `var_names` are all coefficients and covariance parameters unless given.

        Parameters
        ----------
        var_names : str or sequence of str, optional
            Parameters; all coefficients and covariance parameters by default.
        filter_vars : {"like", "regex"}, optional
            How names are matched, as in ArviZ.
        coords : Mapping of str to value or sequence of values, optional
            Dimension -> its labels shown.
        kind : {"all", "stats", "diagnostics"}, default "all"
            Which columns.
        ci_prob : float, optional
            Probability of the intervals.
        ci_kind : {"eti", "hdi"}, optional
            "eti", quantiles, or "hdi", the highest density.
        round_to : int or {"auto", "none"} or None, default "auto"
            Digits, as in ArviZ.
        skipna : bool, default False
            Whether NaN draws are passed over.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> post.summary().index.tolist()[:3]
        ['alpha[Intercept]', 'alpha[Days]', 'sigma']
        """
        return posterior_tables.summarize_draws(
            self,
            datatree.parameter_tree(self),
            var_names,
            filter_vars=filter_vars,
            coords=coords,
            kind=kind,
            ci_prob=ci_prob,
            ci_kind=ci_kind,
            round_to=round_to,
            skipna=skipna,
        )

    def tidy(
        self, effects: Effects = "fixed", conf_int: bool = False, conf_level: float = 0.95, *, innovation: bool = False
    ) -> pd.DataFrame:
        """One row per parameter: `effect, group, level, term, estimate, std_error[, conf_low, conf_high]`: mean, sd, quantiles.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals", "all"}, default "fixed"
            Which parameters: "fixed", "ran_pars" (variances), "ran_vals" (random effects) or "all".
        conf_int : bool, default False
            Whether to give limits.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        innovation : bool, default False
            Whether "ran_pars" has the standard deviation of an error given those before it too, `sd_innovation`: that which `brms` calls
            sigma beside `ar()` and `arma()`. Of residual structures `ar1` and `arma` alone.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> post.tidy()["term"].tolist()
        ['Intercept', 'Days']
        """
        level = require_level(conf_level)
        return posterior_tables.tidy_draws(self, effects, level if require_flag(conf_int, "conf_int") else None, innovation)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Posterior means: `group, term1, term2, variance, sd, corr`, the residual last.

        >>> post.varcorr["group"].tolist()
        ['Subject', 'Subject', 'Subject', 'Residual']
        """
        return posterior_tables.mean_varcorr(self)

    @overload
    def ranef(self, se: Literal[False] = False) -> dict[str, pd.DataFrame]: ...
    @overload
    def ranef(self, se: Literal[True]) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]: ...
    def ranef(self, se: bool = False) -> dict[str, pd.DataFrame] | dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
        """Posterior means of the random effects: grouping factor -> frame of levels x terms; with `se` a pair (means, sds) of each.

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
        >>> post.ranef()["Subject"].shape
        (18, 2)
        """
        return (
            posterior_tables.ranef_with_sds(self)
            if require_flag(se, "se", 'ranef()["g"] are those of the factor g')
            else posterior_tables.mean_ranef(self)
        )

    @property
    def fixef(self) -> pd.Series[float]:
        """Posterior means of the fixed effects by name; NaN for aliased columns.

        >>> post.fixef.index.tolist()
        ['Intercept', 'Days']
        """
        return posterior_tables.mean_fixef(self)

    # -- rows ------------------------------------------------------------------------------------------------------------------------------

    def predict(
        self,
        newdata: Frame | None = None,
        level: Level = "conditional",
        interval: IntervalKind | None = None,
        conf_level: float = 0.95,
        new_levels: PosteriorNewLevels = "error",
        *,
        offset: ArrayLike | None = None,
        seed: int | None = None,
        draws: bool = False,
        type: ResponseType = "link",  # noqa: A002
    ) -> pd.DataFrame:
        """Posterior means row for row: `estimate`, and with an interval `std_error, conf_low, conf_high` (quantiles).

        Parameters
        ----------
        newdata : DataFrame or Mapping, optional
            Any frame; None for the rows of the model. Rows with missing values are NaN, with a warning.
        level : {"conditional", "population"}, default "conditional"
            "conditional" on the random effects (and, with structured errors, on the subject's observed outcomes) or "population".
        interval : {"confidence", "prediction"}, optional
            "confidence", of the mean; "prediction", of a new observation.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        new_levels : {"error", "population", "sample"}, default "error"
            "error"; "population": the effects of a level that the model does not know are 0, and drawn from D in a prediction interval;
            "sample": drawn from D in every interval.
        offset : array_like, optional
            One number per row, where the offset of the model was given as an array.
        seed : int, optional
            Of the errors and new effects of intervals.
        draws : bool, default False
            Instead, rows by draws, columns labelled by (chain, draw): of the mean, or with `interval="prediction"` of new observations; 400
            of them given the other outcomes of structured errors.
        type : {"link", "response"}, default "link"
            "link", as the model has the response; "response" takes every draw back from `log(y)`, `sqrt(y)`, ...; `attrs["scale"]` of the
            frame names the scale.

        Returns
        -------
        DataFrame
            One row for each row of the data.

        Examples
        --------
        >>> post.predict({"Days": [10], "Subject": ["308"]})["estimate"].round(-1).tolist()
        [450.0]
        """
        return posterior_rows.predict_posterior(
            self,
            newdata,
            level=level,
            interval=interval,
            conf_level=conf_level,
            new_levels=new_levels,
            offset=offset,
            seed=seed,
            draws=draws,
            type=type,
        )

    def augment(self, data: Frame | None = None) -> pd.DataFrame:
        """The data with `fitted` (posterior mean), `fixed`, `resid`.

        Parameters
        ----------
        data : DataFrame or Mapping, optional
            Data, in any frame with named columns.

        Returns
        -------
        DataFrame
            The columns of the data and those.

        Examples
        --------
        >>> post.augment().columns.tolist()[-3:]
        ['fitted', 'fixed', 'resid']
        """
        return posterior_rows.augment_posterior(self, data)

    def posterior_predictive(self, draws: int | None = None, seed: int | None = None) -> xarray.DataTree:
        """`tree` with responses drawn from the posterior as its group `posterior_predictive`, as `az.plot_ppc_dist` takes it.

        Parameters
        ----------
        draws : int, optional
            Draws of each chain; all of them by default. New errors, the same random effects.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.

        Returns
        -------
        xarray.DataTree
            The draws as ArviZ has them.

        Examples
        --------
        >>> post.posterior_predictive(10, seed=1)["posterior_predictive"]["Reaction"].shape
        (4, 10, 180)
        """
        return datatree.add_predictive(self, self.tree, draws, seed)

    def prior_predictive(self, draws: int = 500, seed: int | None = None) -> xarray.DataTree:
        """`tree` with draws from the priors as its groups `prior` and `prior_predictive`, as `az.plot_prior_posterior` takes it.

        Improper priors are stood in for, as `LMM.prior_predictive` says.

        Parameters
        ----------
        draws : int, default 500
            Number of draws, of one chain.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.

        Returns
        -------
        xarray.DataTree
            The draws as ArviZ has them.

        Examples
        --------
        >>> post.prior_predictive(50, seed=1)["prior"]["sd_Subject"].shape
        (1, 50, 2)
        """
        drawn = prior_predictive(self.model, draws, seed)
        for group in ("prior", "prior_predictive"):
            self.tree[group] = drawn[group]
        return self.tree

    def log_likelihood(self) -> Array:
        """(S, n) log density of every observation given alpha, beta and, with structured errors, the subject's other observations.

        Returns
        -------
        ndarray
            (S, n) log densities.

        Examples
        --------
        >>> post.log_likelihood().shape
        (4000, 180)
        """
        return posterior_rows.log_likelihood(self)

    def loo(
        self,
        by: LeaveOut = "observation",
        group: str | None = None,
        exact: bool | None = None,
        seed: int = 0,
        *,
        jacobian: bool = False,
        progress: bool | None = None,
    ) -> ELPDData:
        """Expected log predictive density by leaving out, random effects integrated out: an ArviZ `ELPDData`.

        Parameters
        ----------
        by : {"observation", "group"}, default "observation"
            "observation", or "group", a level of a grouping factor with all its rows.
        group : str, optional
            Grouping factor of "group", where there are several.
        exact : bool, optional
            True samples the posterior given the rest for each; None does so where it is cheap and where weights are not to be trusted.
        seed : int, default 0
            Seed of the random numbers, 0 or more; None draws a new one.
        jacobian : bool, default False
            Of the outcome rather than of its transformation: log |dg/dy| of a response g(y) is added.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        ELPDData
            As ArviZ has it.

        Examples
        --------
        >>> post.loo(by="group").n_data_points
        18
        """
        return leave_one_out(self, by, group, exact, seed, jacobian=jacobian, progress=progress)

    def kfold(
        self,
        k: int = 10,
        by: str = "observation",
        group: str | None = None,
        seed: int = 0,
        *,
        jacobian: bool = False,
        progress: bool | None = None,
    ) -> ELPDData:
        """Expected log predictive density by k random folds, each predicted by the posterior given the others: an ArviZ `ELPDData`.

        A density is a mean over 2,000 weighted draws of the covariance parameters given the other folds; over 250, so that its Monte Carlo
        error is three times as large, where a fold has more than 500 rows or an evaluation is dear.

        Parameters
        ----------
        k : int, default 10
            Number of folds.
        by : str, default "observation"
            "observation", "group", a level of a grouping factor with all its rows, or the name of that factor.
        group : str, optional
            Grouping factor.
        seed : int, default 0
            Seed of the random numbers, 0 or more; None draws a new one.
        jacobian : bool, default False
            As in `loo`.
        progress : bool, optional
            Whether to show a bar; None does where there is a terminal and it takes long.

        Returns
        -------
        ELPDData
            As ArviZ has it.

        Examples
        --------
        >>> post.kfold(k=3, by="Subject").n_data_points
        18
        """
        return cross_validate(self, k, by, group, seed, jacobian=jacobian, progress=progress)

    def sensitivity(self) -> pd.DataFrame:
        """How the posterior answers to a power of its priors or of the likelihood: `prior, likelihood, diagnosis`, one row per parameter.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> post.sensitivity().columns.tolist()
        ['prior', 'likelihood', 'diagnosis']
        """
        return sensitivity(self)

    # -- functions of the coefficients -----------------------------------------------------------------------------------------------------

    def contrast(self, L: LinearFunction, rhs: ArrayLike = 0, conf_level: float = 0.95) -> PosteriorContrast:
        """Linear functions of the coefficients: `term, estimate, std_error, conf_low, conf_high, probability` (that it is above rhs).

        Parameters
        ----------
        L : array_like, Mapping, str or sequence of str
            Array, mapping of names or strings, as in `Fit.contrast`.
        rhs : array_like, default 0
            Values that the linear functions are tested against, one for each row or one for all.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        PosteriorContrast
            The functions, with `.frame` and `.draws`.

        Examples
        --------
        >>> post.contrast("Days = 10").frame.columns.tolist()
        ['term', 'estimate', 'std_error', 'conf_low', 'conf_high', 'probability']
        """
        return posterior_tables.posterior_contrast(self, L, rhs, conf_level)

    def emmeans(
        self,
        specs: Names,
        by: Names | None = None,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        conf_level: float = 0.95,
        *,
        type: ResponseType = "link",  # noqa: A002
        bias_adjust: bool | float = False,
    ) -> PosteriorMeans:
        """Marginal means of the levels of factors: `.frame`, `.pairs()`, `.draws`; `type="response"` takes every draw back.

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
            Weights of what a mean averages over.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        type : {"link", "response"}, default "link"
            The response as the model has it, or taken back from `log(y)`, `sqrt(y)`, ...: pairs of logarithms are ratios then.
        bias_adjust : bool or float, default False
            Whether means taken back are adjusted for the curvature by half the variance of responses; a number is the sd to take.

        Returns
        -------
        PosteriorMeans
            The means.

        Examples
        --------
        >>> post.emmeans("Days", at={"Days": [0, 9]}).frame["estimate"].round(-1).tolist()
        [250.0, 350.0]
        """
        return posterior_tables.posterior_emmeans(self, specs, by, at, weights, conf_level, type, bias_adjust)

    def emtrends(
        self,
        var: str,
        specs: Names | None = None,
        by: Names | None = None,
        at: Mapping[str, Values] | None = None,
        weights: GridWeights = "equal",
        conf_level: float = 0.95,
    ) -> PosteriorMeans:
        """Slopes of a covariate, by the levels of factors: `.frame`, `.pairs()`, `.draws`.

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
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        PosteriorMeans
            The slopes.

        Examples
        --------
        >>> post.emtrends("Days").frame["estimate"].round(0).tolist()
        [10.0]
        """
        return posterior_tables.posterior_emtrends(self, var, specs, by, at, weights, conf_level)

    def hypothesis(self, statements: Names, conf_level: float = 0.95) -> pd.DataFrame:
        """Statements about the coefficients: `hypothesis, estimate, std_error, conf_low, conf_high, probability, bayes_factor`.

        `probability`: Of the statement; of a point, at even odds a priori.

        `bayes_factor`: Posterior over prior odds; of a point, the posterior density there over the prior's; NaN under a flat prior.

        Parameters
        ----------
        statements : str or sequence of str
            Such as "Days > 0", "a - b < 2" or "Days = 10", one or several.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            One row for each statement.

        Examples
        --------
        >>> bool(post.hypothesis("Days > 0")["probability"].item() > 0.99)
        True
        """
        return judge_hypotheses(self, require_names(statements, "statements"), conf_level)

    def rope(self, low: float, high: float, terms: Names | None = None, conf_level: float = 0.95) -> pd.DataFrame:
        """Share of each coefficient's posterior within a region of practical equivalence to none, and of its central interval.

        Parameters
        ----------
        low : float
            Lower limit of the region.
        high : float
            Upper limit of the region.
        terms : str or sequence of str, optional
            Names of parameters; all of them by default.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            One row for each coefficient.

        Examples
        --------
        >>> post.rope(-1, 1, "Days")["probability"].tolist()
        [0.0]
        """
        return rope_shares(self, low, high, None if terms is None else require_names(terms, "terms"), conf_level)

    def coef(self) -> dict[str, pd.DataFrame]:
        """Posterior means of the coefficients of every level: fixed effects plus random effects.

        Returns
        -------
        dict of str to DataFrame
            Grouping factor -> frame of levels x coefficients.

        Examples
        --------
        >>> post.coef()["Subject"].shape
        (18, 2)
        """
        return posterior_tables.coefficient_draws(self)

    def icc(self, conf_level: float = 0.95) -> pd.DataFrame:
        """Intraclass correlations, draw by draw: rows `adjusted`, `unadjusted`; `estimate, std_error, conf_low, conf_high`.

        Parameters
        ----------
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            Two rows.

        Examples
        --------
        >>> post.icc().index.tolist()
        ['adjusted', 'unadjusted']
        """
        return posterior_tables.icc_draws(self, conf_level)

    def update(
        self,
        formula: str | None = None,
        data: Frame | None = None,
        *,
        priors: Priors | None = None,
        draws: int = 1000,
        chains: int = 4,
        seed: int | None = None,
        method: SamplingMethod = "auto",
    ) -> Posterior:
        """The posterior of the model with another formula, other data or other priors.

        Parameters
        ----------
        formula : str, optional
            A dot stands for what was there: `". ~ . - (Days | Subject) + (1 | Subject)"`.
        data : DataFrame or Mapping, optional
            New data; those of the model by default.
        priors : Priors, optional
            New priors; those of the model by default.
        draws : int, default 1000
            Draws of each chain.
        chains : int, default 4
            Number of chains.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.
        method : {"auto", "collapsed", "hierarchical", "importance", "nuts"}, default "auto"
            As in `LMM.sample`.

        Returns
        -------
        Posterior
            The new posterior.

        Examples
        --------
        >>> post.update(". ~ . - (Days | Subject) + (1 | Subject)", seed=1).formula
        'Reaction ~ 1 + Days + (1 | Subject)'
        >>> bool(post.update(priors=blm.Priors(alpha={"Days": ("normal", 0, 1)}), seed=1).fixef["Days"] < 5)
        True
        """
        model = cast("SampledModel", self.model.updated(formula, data, {} if priors is None else {"priors": priors}))
        return model.sample(draws, chains, seed, method)

    def r2(self, conf_level: float = 0.95) -> pd.DataFrame:
        """Shares of the variance explained, draw by draw: rows `conditional`, `marginal`; `estimate, std_error, conf_low, conf_high`.

        Parameters
        ----------
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            Two rows.

        Examples
        --------
        >>> post.r2().index.tolist()
        ['conditional', 'marginal']
        """
        return posterior_tables.r2_draws(self, conf_level)

    def to_table(
        self,
        *others: PosteriorData | Estimates,
        format: TableFormat | None = None,  # noqa: A002
        labels: Mapping[str, str] | Sequence[str] | None = None,
        path: str | Path | None = None,
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
        conf_level : float, default 0.95
            Level of the intervals.

        Returns
        -------
        str or bytes
            The table: text, or the bytes of a Word document.

        Examples
        --------
        >>> print(post.to_table(format="markdown").splitlines()[0])
        |  | Reaction |  |
        """
        return tables(self, *others, format=format, labels=labels, path=path, conf_level=conf_level)

    # -- figures and files -----------------------------------------------------------------------------------------------------------------

    @property
    def plot(self) -> PosteriorPlots:
        """Figures, each with `ax=`: `plot.forest()`, `.dist()`, `.trace()`, `.rank()`, `.pairs()`, `.predictive()`, `.ranef()`, ...

        >>> axes = post.plot.forest()
        """
        from bayeslmm.bayes.posterior.plots import PosteriorPlots

        return PosteriorPlots(self)

    def save(self, path: str | Path, rows: bool = True) -> None:
        """Write draws and model to one file at exactly this path; `blm.load(path)` opens it again.

        Parameters
        ----------
        path : str or Path
            File to write.
        rows : bool, default True
            Whether the rows of the data are kept. Without, what needs no rows is there: tables, means, `predict(newdata)`.

        Raises
        ------
        StoreError
            Where it cannot be written.

        Examples
        --------
        >>> post.save("sleepstudy.post"); blm.load("sleepstudy.post").tidy().equals(post.tidy())
        True
        """
        save_posterior(self, as_path(path), rows=require_flag(rows, "rows"))

    def __repr__(self) -> str:
        state = ", interrupted" if self.interrupted else ""
        failed = [name for name, check in self.checks.items() if check.verdict == "failed"]
        state += f", failed: {', '.join(failed)}" if failed else ""
        return f"Posterior({escape_control(self.formula)}: {self.draws.size} draws by {self.method}{state})"

    def _repr_html_(self) -> str:
        tables = [self.tidy(effects, conf_int=True)[["group", "term", *ESTIMATE_COLUMNS]] for effects in ("fixed", "ran_pars")]
        return html_of_frame(repr(self), pd.concat(tables, ignore_index=True), list(describe_checks(self.checks.values())))


# a call and no decorator: editors complete the verbs of an undecorated class
known_arguments(Posterior, attributes=foreign_names.POSTERIOR_ATTRIBUTES)
