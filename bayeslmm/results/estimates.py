"""`Estimates`: every number of a fit, made when it is asked for; information criteria as lme4, mmrm or SAS count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Checks, Codes, freeze, numbers_of, readonly
from bayeslmm._validation import require_memory
from bayeslmm.errors import BayesLMMWarning, Check, PredictionError, SpecificationError, show_value, spell_out
from bayeslmm.estimate.error_boundary import vanished_parameters
from bayeslmm.likelihood.identification import undetermined_parameters
from bayeslmm.likelihood.prediction import conditional_covariances, conditional_means, conditional_modes
from bayeslmm.likelihood.structured.residual_covariance import error_covariance, one_sigma, residual_parameters, visit_covariances
from bayeslmm.results.random_effects import merge_covariances, residual_rows, varcorr_frame, varcorr_rows

if TYPE_CHECKING:
    from bayeslmm._types import ArrayLike, CountingRule, FitMethod, Frame, Seed
    from bayeslmm.data.design import Design
    from bayeslmm.estimate.estimate import Estimate
    from bayeslmm.likelihood.criterion import CriterionPoint
    from bayeslmm.likelihood.problem import Problem
    from bayeslmm.specification.model_spec import ModelArguments

METHOD_TITLES = {"REML": "REML", "ML": "maximum likelihood", "MAP": "maximum a posteriori"}
"""What a method of estimation is called in a heading."""

DF_TITLES = {
    "asymptotic": "z tests",
    "satterthwaite": "t tests, Satterthwaite's degrees of freedom",
    "kenward-roger": "t tests, Kenward-Roger degrees of freedom and standard errors",
    "kenward-roger-linear": "t tests, Kenward-Roger (linear) degrees of freedom and standard errors",
    "between-within": "t tests, between-within degrees of freedom",
    "containment": "t tests, containment degrees of freedom",
    "residual": "t tests, residual degrees of freedom",
}
"""What tests under a choice of degrees of freedom are called in a heading."""


@dataclass(frozen=True, slots=True)
class InformationCriteria:
    """What an information criterion counts.

    lme4 counts every estimated parameter and every observation. mmrm and SAS count covariance parameters only under REML, and subjects in
    BIC; SAS counts the fixed effects of an ML fit.

    Attributes
    ----------
    criterion : float
        -2 log likelihood.
    coefficients : int
        Numbers of parameters.
    covariance : int
        Numbers of parameters.
    subjects : int
        Those that BIC counts.
    """

    rule: CountingRule
    restricted: bool
    criterion: float
    nobs: int
    coefficients: int
    covariance: int
    subjects: int

    @property
    def parameters(self) -> int:
        """The parameters that the criteria count."""
        fixed_too = self.rule == "lme4" or (self.rule == "sas" and not self.restricted)
        return self.covariance + (self.coefficients if fixed_too else 0)

    @property
    def aic(self) -> float:
        return self.criterion + 2.0 * self.parameters

    @property
    def aicc(self) -> float:
        k = self.parameters
        if self.rule == "lme4":
            rest = self.nobs - k - 1
            return self.aic + 2.0 * k * (k + 1) / rest if rest > 0 else float("nan")
        rows = max(k + 2, self.nobs - (self.coefficients if self.restricted else 0))
        return self.criterion + 2.0 * k * rows / (rows - k - 1)

    @property
    def bic(self) -> float:
        rows = self.nobs if self.rule == "lme4" else self.subjects
        return self.criterion + float(np.log(rows)) * self.parameters


WARNED_NOTES = frozenset(
    {
        "aliased_columns",
        "condition_number",
        "empty_labels",
        "few_complete_subjects",
        "repeated_parameters",
        "visit_order",
        "visits_without_rows",
    }
)
"""Notes of a design that are worth a warning though nothing failed."""


class FittedModel(Protocol):
    """What a fit asks of its model. arguments : the arguments that made it"""

    arguments: ModelArguments

    @property
    def formula(self) -> str: ...
    @property
    def counting(self) -> CountingRule: ...
    @property
    def subjects(self) -> int | None: ...
    @property
    def design(self) -> Design: ...
    @property
    def given_offset(self) -> bool: ...
    def fit(self, method: FitMethod = "REML") -> Estimates: ...
    def with_response(self, y: ArrayLike) -> FittedModel: ...
    def updated(
        self, formula: str | None = None, data: Frame | None = None, changes: Mapping[str, object] | None = None
    ) -> FittedModel: ...
    def stored(self) -> tuple[dict[str, object], dict[str, Array | pd.DataFrame]]: ...
    def simulated(self, alpha: Array, theta: Array, sigma: float, nsim: int, seed: Seed | None) -> pd.DataFrame: ...


class Estimates:
    """Point estimates of one model and all that follows from them without looking to the right.

    problem : the standardized design; elapsed : seconds that the fit took
    Frames are made anew at each access: what is done to them does not reach the fit. Examples take
    `fit = blm.LMM("Reaction ~ Days + (Days | Subject)", sleepstudy).fit()`.
    """

    def __init__(self, model: FittedModel, problem: Problem, estimate: Estimate, elapsed: float) -> None:
        self.model = model
        self.problem = problem
        self.estimate = estimate
        self.elapsed = elapsed

    # -- where the numbers come from -----------------------------------------------------------------------------------------------------

    @property
    def design(self) -> Design:
        """The design of the model."""
        return self.model.design

    @cached_property
    def point(self) -> CriterionPoint:
        """The criterion at the optimum with gradient and Newton matrix."""
        return self.problem.criterion.at(self.estimate.x, self.restricted)

    @property
    def restricted(self) -> bool:
        """Whether the criterion is the restricted one."""
        return self.estimate.restricted

    @property
    def method(self) -> FitMethod:
        """ "REML", "ML" or "MAP"."""
        return self.estimate.method

    @property
    def formula(self) -> str:
        """The formula as given."""
        return self.model.formula

    # -- fixed effects -------------------------------------------------------------------------------------------------------------------

    @property
    def fixef_kept(self) -> Array:
        """(p,) coefficients of the columns kept."""
        return self.estimate.alpha

    @property
    def vcov_kept(self) -> Array:
        """(p, p) their covariance matrix."""
        return self.estimate.vcov

    def expanded(self, values: Array) -> Array:
        """Values of the columns kept put among all the coefficients, NaN where a column was aliased; matrices in both directions.

        Parameters
        ----------
        values : ndarray
            (p, ...) values of the columns kept.

        Returns
        -------
        ndarray
            (p_all, ...) values.

        Examples
        --------
        >>> fit.expanded(fit.contrast_rows(sleepstudy)[0]).tolist()
        [1.0, 0.0]
        """
        p, kept = len(self.design.coef_names), list(self.design.kept)
        values = numbers_of(values, "values")
        if not values.ndim or any(side != len(kept) for side in values.shape):
            raise SpecificationError(f"values has shape {values.shape}", "values", f"give one number for each of {len(kept)} columns kept")
        out = np.full((p,) * np.ndim(values), np.nan)
        out[np.ix_(*[kept] * np.ndim(values))] = values
        return out

    @property
    def fixef(self) -> pd.Series[float]:
        """Fixed effects by name; NaN for aliased columns.

        >>> fit.fixef.round(4).to_dict()
        {'Intercept': 251.4051, 'Days': 10.4673}
        """
        return pd.Series(self.expanded(self.fixef_kept), index=list(self.design.coef_names), name="estimate")

    @property
    def vcov(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects.

        >>> fit.vcov.round(2).to_numpy().tolist()
        [[46.57, -1.45], [-1.45, 2.39]]
        """
        names = list(self.design.coef_names)
        return pd.DataFrame(self.expanded(self.vcov_kept), index=names, columns=names)

    # -- covariance parameters -----------------------------------------------------------------------------------------------------------

    @property
    def sigma(self) -> float:
        """Residual standard deviation; at the reference level of a variance function; NaN for a heterogeneous structure of the errors.

        >>> round(fit.sigma, 3)
        25.592
        """
        return self._sigma if one_sigma(self.problem) else float("nan")

    @property
    def _sigma(self) -> float:
        """The leading standard deviation of R, whatever its structure."""
        return self.estimate.sigma * float(np.sqrt(self.design.weight_scale))

    @property
    def theta(self) -> Array:
        """Relative covariance factor, column-wise lower triangle per term, terms in the order of the formula.

        >>> fit.theta.round(4).tolist()
        [0.9667, 0.0152, 0.2309]
        """
        scale = self.design.weight_scale
        return self.estimate.theta if scale == 1.0 else np.asarray(readonly(self.estimate.theta / np.sqrt(scale)))

    @cached_property
    def covariances(self) -> tuple[Array, ...]:
        """Covariance matrix of every random term, (q, q), in the order of the formula."""
        scale = self.estimate.sigma**2
        return tuple(freeze(scale * relative) for relative in self.problem.relative_covariances(self.estimate.x))

    @property
    def D(self) -> dict[str, pd.DataFrame]:
        """Grouping factor -> covariance matrix of its random effects, terms on one factor side by side.

        >>> fit.D["Subject"].loc["Days", "Days"].round(3).item()
        35.072
        """
        return merge_covariances(self.design.terms, self.covariances)

    @property
    def varcorr(self) -> pd.DataFrame:
        """Variances, covariances, standard deviations and correlations: `group, term1, term2, variance, sd, corr`.

        The residual comes last: its one sd, or where variances of the errors differ by visit, those of the visits and their correlations.

        >>> fit.varcorr["sd"].round(3).tolist()
        [24.74, 5.922, nan, 25.592]
        """
        return varcorr_frame(
            [
                *varcorr_rows(self.design.terms, self.covariances),
                *residual_rows(self.problem, self.estimate.x[None], np.array([self._sigma])),
            ]
        )

    @property
    def R(self) -> pd.DataFrame | dict[str, pd.DataFrame] | None:
        """Covariance of the errors over visits, by group where it differs; None for independent errors.

        >>> fit.R is None
        True
        """
        found, residual = visit_covariances(self.problem, self.estimate.x, self._sigma), self.design.residual
        if found is None or residual is None:
            return None
        names = list(residual.visit_levels)
        frames = [pd.DataFrame(matrix, index=names, columns=names) for matrix in found]
        return frames[0] if residual.group is None else dict(zip(residual.group.levels.tolist(), frames, strict=True))

    @property
    def error_parameters(self) -> list[tuple[str, float]]:
        """Names and values of `residual_params`."""
        found = residual_parameters(self.problem, self.estimate.x, self._sigma)
        zero = vanished_parameters(self.problem, self.estimate.x).zero if found else frozenset()
        return [(name, 0.0 if name in zero else value) for name, value in found]

    @property
    def residual_params(self) -> pd.Series[float]:
        """Parameters of the residual structure and of the variance function, by name.

        >>> len(fit.residual_params)
        0
        """
        found = self.error_parameters
        values = [value for _, value in found]
        return pd.Series(values, index=pd.Index([name for name, _ in found], dtype="str"), name="estimate", dtype=float)

    def marginal_cov(self, level: str | float) -> pd.DataFrame:
        """V over the rows of one subject: a level of the residual structure's subject, or of the first grouping factor.

        Parameters
        ----------
        level : str or float
            Level of the subject of the residual structure, or of the first grouping factor.

        Returns
        -------
        DataFrame
            V, labelled by row.

        Raises
        ------
        PredictionError
            For a level that the data do not have.

        Examples
        --------
        >>> fit.marginal_cov("308").shape
        (10, 10)
        """
        rows = self._rows_of(level)
        size = float(len(rows)) ** 2
        require_memory("marginal covariance", 4.0 * size, f"V over {len(rows):,} rows", "name a level with fewer rows")
        V = error_covariance(self.problem, self.point, rows)
        for term, matrix in zip(self.design.terms, self.covariances, strict=True):
            Z, codes = term.Z[rows], term.group.codes[rows]
            known = (codes[:, None] == codes).astype(float) if term.relationship is None else term.relationship[np.ix_(codes, codes)]
            V = V + known * (Z @ matrix @ Z.T)
        index = self.design.index[rows]
        return pd.DataFrame(V, index=index, columns=index)

    def _rows_of(self, level: Any) -> Codes:
        residual = self.design.residual
        factors = [residual.subject] if residual is not None else [term.group for term in self.design.terms[:1]]
        label = spell_out(level)
        for factor in factors:
            found = [i for i, known in enumerate(factor.levels) if known is level or str(known) == label]
            if found:
                return np.flatnonzero(factor.codes == found[0])
        name = factors[0].name if factors else "a grouping factor, of which the model has none"
        raise PredictionError(f"{show_value(level)} is not a level of {name}", remedy="see `model.groups` and `ranef()` for the levels")

    # -- random effects ------------------------------------------------------------------------------------------------------------------

    @cached_property
    def modes(self) -> tuple[Array, ...]:
        """Conditional modes of every term, (K, q); where parameters are assumed, and no outcome tells them, their expectation 0."""
        if self.estimate.is_assumed:
            return tuple(np.zeros((term.group.size, len(term.columns))) for term in self.design.terms)
        return tuple(readonly(mode) for mode in conditional_modes(self.problem, self.point))

    @cached_property
    def conditional_mean(self) -> Array:
        """X alpha + offset + Z beta, (n,): figures and residuals ask for it again and again."""
        if self.estimate.is_assumed:
            return readonly(self.design.linear_predictor(self.fixef_kept, self.modes))
        return readonly(conditional_means(self.problem, self.point, self.fixef_kept, self.modes))

    @cached_property
    def mode_covariances(self) -> tuple[Array, ...]:
        """Conditional covariance of the random effects of every level, (K, q, q) for every term."""
        return tuple(readonly(block) for block in conditional_covariances(self.problem, self.point))

    # -- the criterion and what counts -----------------------------------------------------------------------------------------------------

    @property
    def criterion(self) -> float:
        """-2 log likelihood, or its restricted form.

        >>> round(fit.criterion, 4)
        1743.6283
        """
        return self.estimate.criterion

    @property
    def loglik(self) -> float:
        """Log likelihood, restricted under REML.

        >>> round(fit.loglik, 4)
        -871.8141
        """
        return -0.5 * self.criterion

    @property
    def counts(self) -> InformationCriteria:
        """What the information criteria count."""
        design = self.design
        factors = [term.group for term in design.terms] if design.residual is None else [design.residual.subject]
        subject = max(factors, key=lambda factor: factor.size, default=None)
        counted = design.nobs if subject is None else subject.size
        subjects = counted if self.model.subjects is None else self.model.subjects
        return InformationCriteria(
            self.model.counting, self.restricted, self.criterion, self.nobs, len(design.kept), self.df_model - len(design.kept), subjects
        )

    @property
    def aic(self) -> float:
        """Akaike's criterion.

        >>> round(fit.aic, 4)
        1755.6283
        """
        return self.counts.aic

    @property
    def aicc(self) -> float:
        """Akaike's criterion for small samples.

        >>> round(fit.aicc, 3)
        1756.114
        """
        return self.counts.aicc

    @property
    def bic(self) -> float:
        """Schwarz's criterion.

        >>> round(fit.bic, 3)
        1774.786
        """
        return self.counts.bic

    @property
    def nobs(self) -> int:
        """Number of rows used.

        >>> fit.nobs
        180
        """
        return self.design.nobs

    @property
    def df_model(self) -> int:
        """Number of estimated parameters: coefficients, covariance parameters, sigma.

        >>> fit.df_model
        6
        """
        return len(self.design.kept) + self.problem.size + (self.problem.criterion.held is None)

    @property
    def rows(self) -> Codes:
        """Positions in the data of the rows used.

        >>> fit.rows[:3].tolist()
        [0, 1, 2]
        """
        return self.design.rows

    # -- how it went ---------------------------------------------------------------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether the search ended at an optimum.

        >>> fit.converged
        True
        """
        return self.estimate.converged

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search; the estimates are then the best found so far.

        >>> fit.interrupted
        False
        """
        return self.estimate.interrupted

    @property
    def singular(self) -> bool:
        """Whether a variance is 0 or a correlation 1 in size.

        >>> fit.singular
        False
        """
        return self.estimate.singular

    @property
    def path(self) -> tuple[tuple[Array, float], ...]:
        """Every evaluation of the search: parameters on the optimiser's axes, criterion.

        >>> len(fit.path) < 20
        True
        """
        return self.estimate.path

    @cached_property
    def checks(self) -> Mapping[str, Check]:
        """Verdicts about the fit and its design, by name.

        >>> fit.checks["convergence"].verdict
        'passed'
        """
        found: dict[str, Check] = {}
        for check in (*self.estimate.checks, *undetermined_parameters(self.problem)):
            name, number = check.name, 2
            while name in found:
                name, number = f"{check.name} ({number})", number + 1
            found[name] = check
        return Checks(found)

    def warning(self) -> BayesLMMWarning | None:
        """The one warning of this fit, or None when nothing failed.

        Returns
        -------
        BayesLMMWarning or None
            The warning.

        Examples
        --------
        >>> fit.warning() is None
        True
        """
        failed = [c for c in self.checks.values() if c.verdict == "failed" or (c.verdict == "noted" and c.name in WARNED_NOTES)]
        if not failed:
            return None
        what = "; ".join(f"{check.name}: {_shown_value(check.value)}" for check in failed)
        remedies = list(dict.fromkeys(check.remedy for check in failed if check.remedy))
        return BayesLMMWarning(what, f"fit of {self.formula}", "; ".join(remedies))


def _shown_value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
