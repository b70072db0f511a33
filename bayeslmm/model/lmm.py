"""`LMM`: a formula and data made into a model that can be fitted, sampled, simulated and written down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from bayeslmm._arrays import Array, numbers_of
from bayeslmm._types import FitMethod, LikelihoodKind
from bayeslmm._validation import find_word, require_one_of, spell
from bayeslmm.data.build import build_design
from bayeslmm.data.design import Design
from bayeslmm.data.frame import unquoted_names
from bayeslmm.errors import ConvergenceError, DataError, FormulaError, SpecificationError, optional_packages, show_value, warn_user
from bayeslmm.estimate.reweighting import fit_reweighted
from bayeslmm.formula.update import update_formula, without_structure
from bayeslmm.likelihood.description import KernelDescription, describe_problem
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.model.fit import Fit
from bayeslmm.results import foreign_names
from bayeslmm.results.fitted import new_response, parameters_of, simulate_frame
from bayeslmm.results.foreign_names import AnsweringClass, known_arguments
from bayeslmm.specification.model_spec import ModelArguments, plain_coding

if TYPE_CHECKING:
    from pathlib import Path

    import bambi as bmb
    import pymc as pm
    import xarray

    from bayeslmm._types import (
        ArrayLike,
        CheckMode,
        Coding,
        CountingRule,
        DfMethod,
        Frame,
        Functions,
        GraphForm,
        Missing,
        RowValues,
        Sampler,
        SamplingMethod,
        Seed,
    )
    from bayeslmm.bayes.calibration import Calibration
    from bayeslmm.bayes.posterior.posterior import Posterior
    from bayeslmm.bayes.sampling.prior_predictive import ResolvedPriors
    from bayeslmm.model.many_fits import ManyFits
    from bayeslmm.specification.model_spec import ModelSpec
    from bayeslmm.specification.priors import Priors
    from bayeslmm.specification.spec_file import SpecFile


def random_columns(design: Design) -> sp.csc_array:
    """(n, sum of K q): term after term in the order of the formula."""
    blocks = [term.by_level for term in design.terms]
    return sp.csc_array(sp.hstack(blocks)) if blocks else sp.csc_array((design.nobs, 0))


SEARCHES = frozenset({"lbfgs", "l-bfgs-b", "bfgs", "cg", "powell", "nm", "nelder-mead", "newton", "basinhopping", "bobyqa", "nloptwrap"})
"""What other packages call methods of optimisation."""


class LMM(metaclass=AnsweringClass):
    """A linear mixed model `y = X alpha + Z beta + eps`, `beta ~ N(0, D)`, `eps ~ N(0, R)`: spec and design. Nothing is estimated yet.

    Parameters
    ----------
    formula : str
        lme4's syntax, `"y ~ x + (x | g)"`; a random term may be wrapped in a structure for D, `cs(0 + visit | g)`.
    data : DataFrame or Mapping
        Pandas, polars or pyarrow frame, or a mapping of columns; copied as far as it is used.
    residual : str, optional
        Structure of R in mmrm's syntax, `"us(AVISIT | USUBJID)"`; None is independent errors. `"us(AVISIT | ARM / USUBJID)"` has parameters
        for each arm, `"sp_exp(x, y | field) + local"` coordinates and a nugget, `"ar1(row):ar1(col)"` a product of structures over a grid.
    variance : str, optional
        Variance function of the errors, `"ident(Sex) * power(age)"`.
    weights : str or array_like, optional
        Column, array or Series of prior weights (the residual variance is sigma^2 / w); 0 leaves a row out.
    offset : str or array_like, optional
        Column or array added to the linear predictor.
    contrasts : Mapping of str to str or array_like, optional
        Factor -> "treatment", ("treatment", reference level), "sum", "helmert", "poly", "diff" (each level against the one before), or a
        matrix: a labelled frame matches its rows to levels, and its columns name the coefficients.
    relationship : Mapping of str to DataFrame, optional
        Grouping factor -> labelled frame of the known covariance of its levels.
    priors : Priors, optional
        `Priors`, for `fit("MAP")` and `sample()`.
    missing : {"drop", "raise"}, default "drop"
        "drop" leaves rows with missing values out, "raise" refuses them.
    check : {"error", "warn"}, default "error"
        "error" refuses a design that cannot identify its parameters; "warn" goes on.
    functions : Mapping of str to callable, optional
        Name -> callable of the row's own values, for the formula.
    sigma : float, optional
        The residual sd where it is known, and not estimated: known standard errors are `weights=1/se**2, sigma=1.0`.

    Raises
    ------
    FormulaError
        Each with what, where and remedy.
    DataError
        Each with what, where and remedy.
    DesignError
        Each with what, where and remedy.
    SpecificationError
        Each with what, where and remedy.

    Examples
    --------
    >>> model = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy)
    >>> model.nobs, model.groups
    (180, {'Subject': 18})
    """

    def __init__(
        self,
        formula: str,
        data: Frame,
        *,
        residual: str | None = None,
        variance: str | None = None,
        weights: RowValues | None = None,
        offset: RowValues | None = None,
        contrasts: Mapping[str, Coding] | None = None,
        relationship: Mapping[str, pd.DataFrame] | None = None,
        priors: Priors | None = None,
        missing: Missing = "drop",
        check: CheckMode = "error",
        functions: Functions | None = None,
        sigma: float | None = None,
    ) -> None:
        self._start(
            ModelArguments(formula, residual, variance, weights, offset, contrasts, relationship, priors, missing, check, functions, sigma),
            data,
            "lme4",
            None,
        )

    @classmethod
    def of(cls, arguments: ModelArguments, data: Frame, counting: CountingRule = "lme4", subjects: int | None = None) -> LMM:
        """The model of these arguments.

        Parameters
        ----------
        arguments : ModelArguments
            Arguments of `LMM` as given.
        data : DataFrame or Mapping
            Data, in any frame with named columns.
        counting : {"lme4", "mmrm", "sas"}, default "lme4"
            By whose rule `aic` and `bic` count, "lme4", "mmrm" or "sas".
        subjects : int, optional
            How many `bic` counts, where not those with rows.

        Returns
        -------
        LMM
            The model.

        Examples
        --------
        >>> blm.LMM.of(model.arguments, sleepstudy).nobs
        180
        """
        model = cls.__new__(cls)
        model._start(arguments, data, counting, subjects)
        return model

    @classmethod
    def from_spec(
        cls,
        spec: ModelSpec,
        data: Frame,
        *,
        counting: CountingRule = "lme4",
        weights: RowValues | None = None,
        offset: RowValues | None = None,
        relationship: Mapping[str, pd.DataFrame] | None = None,
        functions: Functions | None = None,
        subjects: int | None = None,
    ) -> LMM:
        """The model of a spec; arrays, matrices and functions beside it.

        Parameters
        ----------
        spec : ModelSpec
            Model specification.
        data : DataFrame or Mapping
            Data, in any frame with named columns.
        counting : {"lme4", "mmrm", "sas"}, default "lme4"
            By whose rule `aic` and `bic` count.
        weights : str or array_like, optional
            Column, array or Series of prior weights; the residual variance is sigma^2 / w, and 0 leaves a row out.
        offset : str or array_like, optional
            Column or array added to the linear predictor.
        relationship : Mapping of str to DataFrame, optional
            Grouping factor -> labelled frame of the known covariance of its levels.
        functions : Mapping of str to callable, optional
            The user's own functions of the formula, by name.
        subjects : int, optional
            Number that `bic` counts; by default that of those with rows.

        Returns
        -------
        LMM
            The model.

        Examples
        --------
        >>> blm.LMM.from_spec(model.spec, sleepstudy).fit().criterion == fit.criterion
        True
        """
        arguments = ModelArguments.of_spec(spec, weights=weights, offset=offset, relationship=relationship, functions=functions)
        model = cls.__new__(cls)
        model._start(arguments, data, counting, subjects, spec)
        return model

    def _start(
        self, arguments: ModelArguments, data: Any, counting: CountingRule, subjects: int | None, spec: ModelSpec | None = None
    ) -> None:
        # a view that pandas copies when the user's frame is written to: `update` reads the rows that the model was made of
        self._data = data.copy(deep=False) if isinstance(data, pd.DataFrame) else data
        self.arguments, self.counting, self.subjects = arguments, counting, subjects
        self.file: SpecFile | None = None
        try:
            self.design: Design = build_design(arguments.spec() if spec is None else spec, data, **arguments.arrays())
        except (FormulaError, DataError) as error:
            strange = unquoted_names(
                " ".join(t for t in (arguments.formula, arguments.residual, arguments.variance) if isinstance(t, str)), data
            )
            if not strange:
                raise
            quoted = " and ".join(f"`{name}`" for name in strange[:3])
            raise type(error)(error.what, error.where, f"a column with such a name stands in backticks: {quoted}") from None
        if self.design.spec.priors is not None:
            # a prior of a parameter that the model does not have is an error now, not when it is sampled
            from bayeslmm.bayes.sampling.prior_predictive import resolved_priors

            resolved_priors(self)

    # -- estimating ----------------------------------------------------------------------------------------------------------------------

    def fit(self, method: FitMethod = "REML") -> Fit:
        """Estimate by "REML", "ML", or "MAP" (the marginal posterior mode under the priors).

        Warns at most once, with everything that failed. Ctrl-C returns the best point so far, `fit.interrupted`.

        Parameters
        ----------
        method : {"REML", "ML", "MAP"}, default "REML"
            "REML", "ML", or "MAP" (the marginal posterior mode under the priors).

        Returns
        -------
        Fit
            The estimates; with everything that failed in one warning.

        Raises
        ------
        IdentifiabilityError
            Where the data say nothing about a parameter.
        DesignError
            Where the likelihood is unbounded.
        ConvergenceError
            When there is nothing usable.

        Examples
        --------
        >>> round(model.fit("ML").criterion, 4)
        1751.9393
        """
        if not isinstance(method, str) or spell(method) in SEARCHES:
            what = f"method is {show_value(method)}: it says what is maximised, not how it is searched for"
            raise SpecificationError(what, "method", 'leave it out, or give "REML", "ML" or "MAP"')
        name = find_word(method, get_args(FitMethod), "method")
        begin = time.perf_counter()
        if name == "MAP":
            from bayeslmm.bayes.sampling.mode import map_estimate

            problem, found = self.problem, map_estimate(self)
        else:
            self.design.require_identified()
            problem, found = fit_reweighted(self.problem, "REML" if name == "REML" else "ML", kept=True)
        fit = Fit(self, problem, found, time.perf_counter() - begin)
        if not np.isfinite(found.criterion):
            what = "the search found no point where the likelihood exists"
            raise ConvergenceError(what, f"fit of {self.formula}", "simplify the model", fit)
        warning = fit.warning()
        if warning is not None:
            warn_user(warning)
        return fit

    def fit_many(self, Y: Frame | ArrayLike, method: LikelihoodKind = "REML", progress: bool | None = None) -> ManyFits:
        """Fit the same design to every column of Y.

        Parameters
        ----------
        Y : DataFrame or Mapping or array_like
            (n, B) a frame or an array, one response a column, on the scale of the left side of the formula; rows as the data of the model.
            Missing values are left out, response by response; responses with the same missing rows share their sums.
        method : {"REML", "ML"}, default "REML"
            "REML" or "ML".
        progress : bool, optional
            Whether to show a bar; by default where there is a terminal.

        Returns
        -------
        ManyFits
            What could not be fitted is counted, named and left out of its tables.

        Raises
        ------
        DataError
            For another number of rows, columns that are not numbers, names that stand twice.

        Examples
        --------
        >>> model.fit_many(pd.DataFrame({"a": model.y, "b": 2 * model.y})).varcorr["sd"].round(2).tolist()[:2]
        [24.74, 5.92]
        """
        from bayeslmm.model.fit_batches import fit_many

        return fit_many(self, Y, method, progress)

    @cached_property
    def problem(self) -> Problem:
        """The standardized design with its cross-products: the rows are read once, when this is first asked for."""
        return build_problem(self.design)

    def describe(self) -> KernelDescription:
        """How the likelihood is evaluated: the factorisation, its blocks, and what one evaluation costs.

        Returns
        -------
        KernelDescription
            Prints as a few lines; `factorisation`, `blocks`, `off_diagonal`, `multiplications`, `memory` (bytes) are its fields.

        Examples
        --------
        >>> model.describe().factorisation
        'dense Cholesky'
        """
        return describe_problem(self.problem)

    def criterion(self, theta: ArrayLike, method: LikelihoodKind = "REML") -> float:
        """The profiled criterion at theta: -2 log likelihood ("ML") or its restricted form ("REML").

        Parameters
        ----------
        theta : array_like
            (n_theta,) relative Cholesky factors of D by column, then the parameters of the errors.
        method : {"REML", "ML"}, default "REML"
            "REML" or "ML".

        Returns
        -------
        float
            The criterion.

        Examples
        --------
        >>> abs(model.criterion(fit.theta) - fit.criterion) < 1e-8
        True
        """
        x = self.problem.x(self._theta(theta))
        return float(self.problem.criterion.values(x[None], _is_restricted(method))[0])

    def gradient(self, theta: ArrayLike, method: LikelihoodKind = "REML") -> Array:
        """Derivative of the criterion in theta.

        Parameters
        ----------
        theta : array_like
            (n_theta,) relative Cholesky factors of D by column, then the parameters of the errors.
        method : {"REML", "ML"}, default "REML"
            "REML" or "ML".

        Returns
        -------
        ndarray
            (n_theta,) derivatives.

        Examples
        --------
        >>> bool(abs(model.gradient(fit.theta)).max() < 1e-3)
        True
        """
        scale = np.sqrt(self.design.weight_scale)
        return np.asarray(scale * self.problem.gradient_theta(self._theta(theta), _is_restricted(method)))

    def _theta(self, theta: Any) -> Array:
        remedy = f"give {self.problem.size} numbers: the relative covariance factor term by term, lower triangles column by column"
        values = np.atleast_1d(numbers_of(theta, "theta", remedy))
        if values.shape != (self.problem.size,) or not np.all(np.isfinite(values)):
            what = f"theta has shape {values.shape}" if values.shape != (self.problem.size,) else "theta is not finite"
            raise SpecificationError(what, "theta", remedy)
        return values * np.sqrt(self.design.weight_scale) if self.design.weight_scale != 1.0 else values

    def simulate(self, params: Mapping[str, ArrayLike | Mapping[str, float]], nsim: int = 1, seed: int | None = None) -> pd.DataFrame:
        """Responses drawn at given parameters, one column per simulation.

        Parameters
        ----------
        params : Mapping of str to array_like or Mapping of str to float
            "alpha" (one number per coefficient, or a mapping by name), "theta", "sigma".
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
        >>> model.simulate({"alpha": [250, 10], "theta": [1, 0, 0.2], "sigma": 25}, nsim=2, seed=1).shape
        (180, 2)
        """
        alpha, theta, sigma = parameters_of(params, self.design, self.problem.size)
        return self.simulated(alpha, theta, sigma, nsim, seed)

    def simulated(self, alpha: Array, theta: Array, sigma: float, nsim: int, seed: Seed | None) -> pd.DataFrame:
        """`simulate` with the parameters of the columns kept, as a fit has them.

        Parameters
        ----------
        alpha : ndarray
            (p,) coefficients of the columns kept.
        theta : ndarray
            (n_theta,) relative Cholesky factors of D by column, then the parameters of the errors.
        sigma : float
            Residual standard deviation.
        nsim : int
            Number of simulated responses.
        seed : int or sequence of int or None
            Seed of the random numbers, 0 or more; None draws a new one.

        Returns
        -------
        DataFrame
            (nobs, nsim) responses.

        Examples
        --------
        >>> model.simulated(fit.fixef_kept, fit.theta, fit.sigma, 2, seed=1).shape
        (180, 2)
        """
        scale = np.sqrt(self.design.weight_scale)
        return simulate_frame(self.problem, alpha, theta * scale, sigma / scale, nsim, seed)

    # -- what was built ------------------------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> ModelSpec:
        """The arguments of the model, without its data."""
        return self.design.spec

    @property
    def formula(self) -> str:
        """The formula as given.

        >>> model.formula
        'Reaction ~ Days + (Days | Subject)'
        """
        return self.spec.formula.text

    @property
    def nobs(self) -> int:
        """Number of rows used.

        >>> model.nobs
        180
        """
        return self.design.nobs

    @property
    def n_dropped(self) -> int:
        """Number of rows left out, for missing values or weights of 0; `model.design.dropped` says which column cost them.

        >>> model.n_dropped
        0
        """
        return self.design.n_dropped

    @property
    def groups(self) -> dict[str, int]:
        """Grouping factor -> number of levels.

        >>> model.groups
        {'Subject': 18}
        """
        return self.design.groups

    @property
    def y(self) -> Array:
        """(n,) the response.

        >>> model.y[:2].tolist()
        [249.56, 258.7047]
        """
        return self.design.y

    @property
    def data(self) -> Frame:
        """The data as given, rows that are not used included.

        >>> len(model.data)
        180
        """
        frame: Frame = self._data
        return frame

    @property
    def X(self) -> Array:
        """(n, p) the columns of the fixed effects, without aliased ones.

        >>> model.X[:2].tolist()
        [[1.0, 0.0], [1.0, 1.0]]
        """
        return self.design.X

    @cached_property
    def Z(self) -> sp.csc_array:
        """(n, sum of K q) sparse: term after term in the order of the formula, level after level within a term.

        >>> model.Z.shape
        (180, 36)
        """
        return random_columns(self.design)

    @property
    def coef_names(self) -> list[str]:
        """Names of all fixed effects, aliased ones too.

        >>> model.coef_names
        ['Intercept', 'Days']
        """
        return list(self.design.coef_names)

    # -- related models ------------------------------------------------------------------------------------------------------------------

    @property
    def given_offset(self) -> bool:
        """Whether an offset was given as an array."""
        return self.arguments.offset is not None and not isinstance(self.arguments.offset, str)

    def with_response(self, y: ArrayLike) -> LMM:
        """The same design with another response, on the scale of the left side of the formula.

        Parameters
        ----------
        y : array_like
            (n,) response on the scale of the left side of the formula.

        Returns
        -------
        LMM
            The model.

        Examples
        --------
        >>> model.with_response(2 * model.y).y[:2].tolist()
        [499.12, 517.4094]
        """
        return self.with_design(new_response(self.design, y))

    def with_design(self, design: Design) -> LMM:
        """The same arguments on another design: other responses, or fewer rows.

        Parameters
        ----------
        design : Design
            Design to put in place of the model's.

        Returns
        -------
        LMM
            The model.

        Examples
        --------
        >>> model.with_design(model.design).nobs
        180
        """
        model = LMM.__new__(LMM)
        model.arguments, model.counting, model.subjects, model._data, model.file = (
            self.arguments,
            self.counting,
            self.subjects,
            self._data,
            None,
        )
        model.design = design
        return model

    def updated(self, formula: str | None = None, data: Frame | None = None, changes: Mapping[str, object] | None = None) -> LMM:
        """The model with another formula (a dot stands for what was there), data or arguments.

        Parameters
        ----------
        formula : str, optional
            New formula, in which a dot stands for what was there.
        data : DataFrame or Mapping, optional
            New data; those of the model by default.
        changes : Mapping of str to object, optional
            Arguments of `LMM` to put in place of the model's, by name.

        Returns
        -------
        LMM
            The model.

        Examples
        --------
        >>> model.updated(". ~ . + log1p(Days)").coef_names
        ['Intercept', 'Days', 'log1p(Days)']
        """
        options = dict(changes or {})
        if isinstance(formula, str) and self.counting == "mmrm":  # the formula of this model has its covariance structure in it
            formula, structure = without_structure(formula)
            options = options if structure is None else {"residual": structure} | options
        text = self.arguments.formula if formula is None else update_formula(self.spec.formula, formula)
        arguments = self.arguments.change(text, options)
        return LMM.of(arguments, self._data if data is None else data, self.counting, self.subjects)

    # -- posterior and programs ------------------------------------------------------------------------------------------------------------

    def sample(
        self,
        draws: int = 1000,
        chains: int = 4,
        seed: int | None = None,
        method: SamplingMethod = "auto",
        *,
        sampler: Sampler | None = None,
        tune: int | None = None,
        sampler_options: Mapping[str, object] | None = None,
    ) -> Posterior:
        """The posterior of the model.

        Parameters
        ----------
        draws : int, default 1000
            Draws of each chain.
        chains : int, default 4
            Number of chains.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.
        method : {"auto", "collapsed", "hierarchical", "importance", "nuts"}, default "auto"
            "auto", "collapsed" (random effects integrated out) or "hierarchical" (every random effect a variable).
        sampler : {"auto", "nutpie", "pymc"}, optional
            Program that samples the hierarchical model, "nutpie" or "pymc".
        tune : int, optional
            Warm-up draws of each chain of the hierarchical model.
        sampler_options : Mapping of str to object, optional
            Options of that program, by name.

        Returns
        -------
        Posterior
            The draws, with their checks.

        Examples
        --------
        >>> post = model.sample(draws=200, seed=1)
        """
        from bayeslmm.bayes.sampling.sample import sample

        return sample(self, draws, chains, seed, method, sampler=sampler, tune=tune, sampler_options=sampler_options)

    def to_pymc(self, form: GraphForm = "marginal") -> pm.Model:
        """The `pymc.Model`, "marginal" or "hierarchical".

        Parameters
        ----------
        form : {"marginal", "hierarchical"}, default "marginal"
            "marginal", random effects integrated out, or "hierarchical", every random effect a variable.

        Returns
        -------
        pm.Model
            The model, ready to be sampled.

        Examples
        --------
        >>> graph = model.to_pymc("hierarchical")
        """
        with optional_packages():
            from bayeslmm.bayes.pymc_model.model import to_pymc
        return to_pymc(self, form)

    def to_bambi(self) -> bmb.Model:
        """The equivalent `bambi.Model`.

        Returns
        -------
        bmb.Model
            The model, with the same priors.

        Raises
        ------
        SpecificationError
            For what Bambi cannot express.

        Examples
        --------
        >>> bambi_model = model.to_bambi()
        """
        with optional_packages():
            from bayeslmm.bayes.pymc_model.bambi import to_bambi
        return to_bambi(self)

    def calibrate(self, n: int = 200, draws: int = 99, seed: int | None = None) -> Calibration:
        """Simulation-based calibration on this design: ranks of true parameters among draws, with a test and a plot.

        Parameters
        ----------
        n : int, default 200
            Replications.
        draws : int, default 99
            Draws of each posterior.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.

        Returns
        -------
        Calibration
            Ranks, their test and their figure.

        Examples
        --------
        >>> model.calibrate(20, seed=1).ranks.shape[0]
        20
        """
        from bayeslmm.bayes.calibration import calibrate

        return calibrate(self, n, draws, seed)

    def prior_predictive(self, draws: int = 500, seed: int | None = None) -> xarray.DataTree:
        """Parameters and responses drawn from the priors, as an ArviZ `DataTree`.

        Parameters
        ----------
        draws : int, default 500
            Number of draws.
        seed : int, optional
            Seed of the random numbers, 0 or more; None draws a new one.

        Returns
        -------
        xarray.DataTree
            Groups `prior` and `prior_predictive`.

        Examples
        --------
        >>> tree = model.prior_predictive(10, seed=1)
        """
        from bayeslmm.bayes.sampling.prior_predictive import prior_predictive

        return prior_predictive(self, draws, seed)

    @property
    def priors(self) -> ResolvedPriors:
        """The priors in use, those not given scaled from the data.

        >>> resolved = model.priors
        """
        from bayeslmm.bayes.sampling.prior_predictive import resolved_priors

        return resolved_priors(self)

    def write(self, path: str | Path) -> None:
        """Write the spec as TOML; `blm.read_model(path, data)` reads it back.

        Parameters
        ----------
        path : str or Path
            File to write.

        Examples
        --------
        >>> model.write("sleepstudy.toml"); blm.read_model("sleepstudy.toml", sleepstudy).formula
        'Reaction ~ Days + (Days | Subject)'
        """
        from bayeslmm.specification.toml import write_model

        write_model(self.spec, self.arguments, self.file, self.counting, path)

    def to_sas(self, data: str = "", method: LikelihoodKind = "REML", df: DfMethod | None = None) -> str:
        """The SAS PROC MIXED program of the model.

        Parameters
        ----------
        data : str, default ""
            Name of the data set in the program.
        method : {"REML", "ML"}, default "REML"
            "REML" or "ML".
        df : str, optional
            Method of the degrees of freedom as `Fit` names it; None leaves SAS's default.

        Returns
        -------
        str
            The program.

        Raises
        ------
        SpecificationError
            For what SAS cannot say.

        Examples
        --------
        >>> print(model.to_sas("sleepstudy").splitlines()[3].strip())
        random intercept Days / type=un subject=Subject;
        """
        require_one_of(method, get_args(LikelihoodKind), "method")
        from bayeslmm.sas.to_sas import to_sas

        arrays = [name for name, values in self.arguments.by_row().items() if values is not None]
        return to_sas(self.design, self._data, arrays, data=data, method=method, df=df)

    def stored(self) -> tuple[dict[str, object], dict[str, Array | pd.DataFrame]]:
        """What a file needs to build the model again: plain values, and arrays.

        Returns
        -------
        tuple of dict of str to object, dict of str to ndarray or DataFrame
            Plain values, and arrays by name.

        Examples
        --------
        >>> model.stored()[0]["formula"]
        'Reaction ~ Days + (Days | Subject)'
        """
        design = self.design
        plain = self.arguments.stored() | {
            "contrasts": {name: plain_coding(coding) for name, coding in design.spec.contrasts},
            "counting": self.counting,
            "subjects": self.subjects,
        }
        arrays: dict[str, Array | pd.DataFrame] = {
            name: np.asarray(values, float)[design.rows] for name, values in self.arguments.by_row().items() if values is not None
        }
        for term in design.terms:
            if term.relationship is not None:
                labels = term.group.levels.tolist()
                arrays[f"relationship/{term.group.name}"] = pd.DataFrame(term.relationship, index=labels, columns=labels)
        return plain, arrays

    def __repr__(self) -> str:
        groups = "".join(f", {name} {size}" for name, size in self.groups.items())
        return f"LMM({self.spec.title}: {self.nobs} rows, {len(self.design.kept)} coefficients{groups})"


# a call and no decorator: editors complete the verbs of an undecorated class
known_arguments(LMM, attributes=foreign_names.MODEL_ATTRIBUTES)


def _is_restricted(method: str) -> bool:
    require_one_of(method, get_args(LikelihoodKind), "method")
    return method == "REML"
