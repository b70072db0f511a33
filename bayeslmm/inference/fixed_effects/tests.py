"""t and F tests of the fixed effects under one choice of covariance and degrees of freedom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, Codes, Mask
from bayeslmm._types import DfName, Information, VcovName
from bayeslmm._validation import spell
from bayeslmm.errors import InferenceError, SpecificationError, show_value
from bayeslmm.estimate.estimate import Fitted, is_restricted, require_outcome
from bayeslmm.inference.fixed_effects import kenward_roger_random
from bayeslmm.inference.fixed_effects.degrees_of_freedom import (
    ByTerm,
    ConstantDegrees,
    Degrees,
    ObservedInformation,
    QuadraticDegrees,
    Satterthwaite,
    between_within,
    containment,
    found_once,
    observed_information,
)
from bayeslmm.inference.fixed_effects.kenward_roger import KenwardRoger, component_sizes, expected_curvature, kenward_roger, v_derivatives
from bayeslmm.inference.fixed_effects.sandwich import LEVERAGE_POWERS, Sandwich, sandwich
from bayeslmm.inference.fixed_effects.terms import column_units
from bayeslmm.likelihood.identification import DEPENDENT_ROWS, ROUNDED, basis
from bayeslmm.likelihood.standardize import Standardization

if TYPE_CHECKING:
    from bayeslmm._types import DfMethod, VcovMethod

DF_SYNONYMS = {
    **dict.fromkeys(("kr", "kenwardroger", "kenward"), "kenward-roger"),
    **dict.fromkeys(("kr-linear", "kenward-roger-lin", "kr-lin"), "kenward-roger-linear"),
    **dict.fromkeys(("satterth", "satt", "sat"), "satterthwaite"),
    **dict.fromkeys(("bw", "betwithin", "between"), "between-within"),
    "contain": "containment",
    **dict.fromkeys(("z", "normal", "none"), "asymptotic"),
}
"""What SAS, mmrm, emmeans and pbkrtest call degrees of freedom."""

VCOV_SYNONYMS = {
    "kr": "kenward-roger",
    "kr-linear": "kenward-roger-linear",
    "empirical": "CR0",
    "empirical-bias-reduced": "CR2",
    "empirical-jackknife": "CR3",
}
KERNELS = (kenward_roger_random,)
"""Where kernels answer `v_derivatives` outside its own module: importing them registers their answers."""


@dataclass(frozen=True, slots=True, eq=False)
class TTests:
    """Rows of L: estimate - rhs over its standard error against t(df)."""

    estimate: Array
    std_error: Array
    df: Array
    statistic: Array
    p_value: Array

    def limits(self, level: float) -> tuple[Array, Array]:
        """Confidence limits of the estimates."""
        half = special.stdtrit(self.df, 0.5 + 0.5 * level) * self.std_error
        return self.estimate - half, self.estimate + half


@dataclass(frozen=True, slots=True)
class FTest:
    """A joint test; statistic is scaled where the method scales it."""

    num_df: int
    den_df: float
    statistic: float
    p_value: float


@dataclass(frozen=True, slots=True, eq=False)
class FixedEffects:
    """The fixed effects on standardized columns, their covariance and their degrees of freedom, over the coefficients kept.

    names : of all coefficients, aliased ones too; kept : positions of the p kept among them
    alpha, vcov : on standardized columns, in the units of the response
    units : (p,) typical size of the user's columns; slopes : (p,) which of them have a covariate; factorial : terms that have a factor
    scaled : whether F is scaled by the method of the degrees of freedom

    L below is over the coefficients kept, as the user has them. Means far from where a covariate starts lose no digits: origins are taken
    off before anything is added.
    """

    names: tuple[str, ...]
    kept: tuple[int, ...]
    standardization: Standardization
    units: Array
    slopes: Mask
    factorial: frozenset[str]
    alpha: Array
    vcov: Array
    degrees: Degrees
    scaled: bool = True

    def t(self, L: Array, rhs: Array | float = 0.0) -> TTests:
        """t tests of the rows of L (r, p)."""
        L = np.atleast_2d(L)
        own = self.standardization.functions(L)
        estimate = own @ self.alpha
        se = np.sqrt(self.variances(L))
        df = self.degrees.rows(own) if len(own) else np.zeros(0)
        return _t_tests(estimate, se, df, rhs)

    def coefficients(self) -> TTests:
        """t tests of the coefficients; where degrees of freedom are counted, each has those of its term."""
        found = self.t(np.eye(len(self.alpha)))
        if not isinstance(self.degrees, ByTerm):
            return found
        return _t_tests(found.estimate, found.std_error, self.degrees.coefficients, 0.0)

    def of_mean(self, variables: frozenset[str]) -> FixedEffects:
        """The same for means over all but these variables: degrees of freedom that are counted become those of their term."""
        return replace(self, degrees=ConstantDegrees(self.degrees.of_mean(variables))) if isinstance(self.degrees, ByTerm) else self

    def denominators(self, L: Array) -> Array:
        """Degrees of freedom of the rows of L (r, p)."""
        return self.degrees.rows(self.standardization.functions(L))

    def covariance(self, L: Array) -> Array:
        """(r, r) of the estimates of the rows of L."""
        own = self.standardization.functions(L)
        return np.asarray(own @ self.vcov @ own.T)

    def variances(self, L: Array) -> Array:
        """(r,) of the estimates of the rows of L."""
        own = self.standardization.functions(L)
        return np.asarray(np.maximum(((own @ self.vcov) * own).sum(1), 0.0))

    def joint(self, L: Array, rhs: Array | float = 0.0) -> FTest:
        """The F test of L alpha = rhs; redundant rows are left out."""
        return self.f(self.standardization.functions(np.atleast_2d(L)), rhs)

    def f(self, own: Array, rhs: Array | float = 0.0, term: str | None = None) -> FTest:
        """The F test of rows over standardized coefficients.

        term : the term tested: methods that count take its degrees of freedom
        """
        size = np.linalg.norm(own, axis=1)
        real = size > 0
        unit, right = own[real] / size[real][:, None], np.broadcast_to(np.asarray(rhs, float), (len(own),))[real] / size[real]
        rows, turn = basis(unit)
        q = len(rows)
        if q == 0:
            return FTest(0, np.nan, np.nan, np.nan)
        if q < len(unit):
            _require_agreement(right, turn)
        gap = rows @ self.alpha - turn @ right
        wald = float(gap @ np.linalg.solve(rows @ self.vcov @ rows.T, gap)) / q
        if term is not None and isinstance(self.degrees, ByTerm):
            scale, df = 1.0, self.degrees.of_term(term)
        else:
            scale, df = self.degrees.joint(rows if q < len(unit) else self._in_common_units(own[real], term))
        statistic = wald * scale if self.scaled else wald
        p_value = special.fdtrc(q, df, statistic) if np.isfinite(df) else special.chdtrc(q, q * statistic)
        return FTest(q, df, statistic, float(p_value))

    def _in_common_units(self, own: Array, term: str | None) -> Array:
        """Slopes for a typical change of their columns: degrees of freedom of several rows do not depend on the units of covariates.

        term : the rows of a term that has factors have one unit
        """
        if term in self.factorial:
            return own
        change = np.abs(self.standardization.user_functions(own)) / self.units
        largest = change.max(axis=1, initial=0.0)[:, None]
        return own / np.where((change > ROUNDED * largest)[:, ~self.slopes].any(axis=1, keepdims=True), 1.0, largest)


CLOSE = 1e-2
"""A difference whose variance is a smaller share of its two rows' own is computed from the difference itself: digits would cancel."""


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """t tests of differences of two rows of L (m, p): products with (p, p) matrices are made for the m rows, not for every pair.

    forms : (k, m, m) of the rows less their mean: vcov first, then those of the degrees of freedom
    """

    effects: FixedEffects
    degrees: QuadraticDegrees
    L: Array
    estimate: Array
    forms: Array

    @classmethod
    def of(cls, effects: FixedEffects, L: Array) -> Differences | None:
        """Those of rows without NaN; None where the degrees of freedom need more than quadratic forms."""
        degrees = effects.degrees
        if not isinstance(degrees, QuadraticDegrees):
            return None
        own = effects.standardization.functions(L)
        own -= own.mean(axis=0)
        return cls(effects, degrees, L, own @ effects.alpha, np.stack([own @ M @ own.T for M in (effects.vcov, *degrees.forms)]))

    def t(self, first: Codes, second: Codes, rhs: Array) -> TTests:
        """Tests of rows `first` less rows `second`."""
        forms = self.forms
        own = np.diagonal(forms, axis1=1, axis2=2)
        values = (own[:, first] + own[:, second] - 2.0 * forms[:, first, second]).T
        estimate = self.estimate[first] - self.estimate[second]
        close = values[:, 0] <= CLOSE * (own[0, first] + own[0, second])
        se, df = np.sqrt(np.maximum(values[:, 0], 0.0)), self.degrees.from_forms(values[:, 1:])
        if close.any():
            exact = self.effects.t(self.L[first[close]] - self.L[second[close]])
            estimate[close], se[close], df[close] = exact.estimate, exact.std_error, exact.df
        return _t_tests(estimate, se, df, rhs)


def _t_tests(estimate: Array, se: Array, df: Array, rhs: Array | float) -> TTests:
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (estimate - rhs) / se
    return TTests(estimate, se, df, statistic, np.asarray(2.0 * special.stdtr(df, -np.abs(statistic))))


def _require_agreement(right: Array, turn: Array) -> None:
    """Right-hand sides of dependent rows must depend on one another as the rows do."""
    if np.any(np.abs(right - turn.T @ (turn @ right)) > DEPENDENT_ROWS * np.abs(right).max(initial=0.0)):
        where = "dependent rows of L with different right-hand sides"
        raise InferenceError("the contrasts contradict one another", where, "leave the redundant rows out")


# -- choices ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """df, vcov and information, checked; vcov None has become what belongs to df."""

    df: str
    vcov: str
    information: str


def check_options(df: str = "satterthwaite", vcov: str | None = None, information: str = "expected") -> InferenceOptions:
    """Check the three options of every test.

    Errors: `SpecificationError` for an unknown name, `InferenceError` for a robust covariance with Kenward-Roger.
    """
    df = _name("df", DF_SYNONYMS.get(spell(df), spell(df)), get_args(DfName), DF_SYNONYMS)
    if vcov is None:
        vcov = df if df.startswith("kenward") else "asymptotic"
    spelled = spell(vcov)
    vcov = _name(
        "vcov", VCOV_SYNONYMS.get(spelled, spelled.upper() if spelled.startswith("cr") else spelled), get_args(VcovName), VCOV_SYNONYMS
    )
    information = _name("information", spell(information), get_args(Information))
    if vcov in LEVERAGE_POWERS and df.startswith("kenward"):
        raise InferenceError(
            "a robust covariance has no Kenward-Roger degrees of freedom",
            f"df={df!r} with vcov={vcov!r}",
            "use df='satterthwaite', which is that of Bell and McCaffrey then",
        )
    return InferenceOptions(df, vcov, information)


def _name(option: str, name: str, known: tuple[str, ...], also: Any = ()) -> str:
    if name in known:
        return name
    near = get_close_matches(name, [*known, *also], 1, 0.5)
    remedy = f"did you mean {near[0]!r}? " if near else ""
    raise SpecificationError(f"unknown {option} {name!r}", f"{option}=", f"{remedy}one of {', '.join(known)}")


class Inference:
    """Everything about one fit that a choice may ask for, each found once."""

    def __init__(self, fit: Fitted, cluster: str | None = None) -> None:
        self.fit, self.cluster = fit, cluster
        self._sandwiches: dict[str, Sandwich] = {}

    @property
    def curvature(self) -> ObservedInformation:
        """The observed information; where parameters are assumed, and no outcome observes them, the expected one."""
        observed = observed_information(self.fit)
        if not self.fit.estimate.is_assumed:
            return observed
        return found_once(self.fit, "expected information", lambda: expected_curvature(self.fit, observed))

    def adjustment(self, information: str, linear: bool) -> KenwardRoger:
        """Kenward-Roger on standardized columns."""
        if not is_restricted(self.fit):
            raise InferenceError("Kenward-Roger is defined for REML fits", "this fit is by ML", "fit('REML'), or df='satterthwaite'")
        return found_once(self.fit, ("Kenward-Roger", information, linear), lambda: self._kenward_roger(information, linear))

    def _kenward_roger(self, information: str, linear: bool) -> KenwardRoger:
        point, problem = self.fit.point, self.fit.problem
        assert point.state is not None
        pieces, held = v_derivatives(point.state, problem, point.x), problem.criterion.held is not None
        return kenward_roger(pieces, self.curvature, information, linear, component_sizes(problem, point.x), problem.random.size, held=held)

    def robust(self, kind: str) -> Sandwich:
        require_outcome(self.fit, f"vcov={kind!r}")
        if kind not in self._sandwiches:
            self._sandwiches[kind] = sandwich(self.fit, kind, self.cluster)
        return self._sandwiches[kind]

    def covariance(self, choice: InferenceOptions) -> Array:
        """(p, p) on standardized columns, in the units of the response."""
        if choice.vcov in LEVERAGE_POWERS:
            return self.robust(choice.vcov).vcov
        if choice.vcov == "asymptotic":
            assert self.fit.point.state is not None
            own = self.fit.point.state.solution.information_inverse[0]
        else:
            own = self.adjustment(choice.information, choice.vcov.endswith("linear")).adjusted
        return np.asarray(own * (self.fit.point.sigma2 * self.fit.problem.standardization.y_scale**2))

    def degrees(self, choice: InferenceOptions) -> Degrees:
        makers: dict[str, Callable[[], Degrees]] = {
            "asymptotic": lambda: ConstantDegrees(float("inf")),
            "residual": lambda: ConstantDegrees(float(self.fit.nobs - len(self.fit.estimate.alpha))),
            "between-within": lambda: between_within(self.fit.design, self.fit.problem.standardization),
            "containment": lambda: containment(self.fit.design, self.fit.problem.standardization),
            "satterthwaite": lambda: self._satterthwaite(choice),
            "kenward-roger": lambda: self.adjustment(choice.information, linear=False),
            "kenward-roger-linear": lambda: self.adjustment(choice.information, linear=True),
        }
        return makers[choice.df]()

    def _satterthwaite(self, choice: InferenceOptions) -> Degrees:
        if choice.vcov in LEVERAGE_POWERS:
            return self.robust(choice.vcov)
        return Satterthwaite(self.curvature)

    def fixed_effects(self, choice: InferenceOptions) -> FixedEffects:
        return self.of(self.covariance(choice), self.degrees(choice), choice.vcov == choice.df)

    def of(self, covariance: Array, degrees: Degrees, scaled: bool) -> FixedEffects:
        """The fixed effects with a covariance (p, p) on standardized columns."""
        design, c = self.fit.design, self.fit.problem.standardization
        assert self.fit.point.state is not None
        alpha = c.least_squares + c.y_scale * self.fit.point.state.solution.alpha[0]
        return FixedEffects(design.coef_names, design.kept, c, *column_units(design, c), alpha, covariance, degrees, scaled)


def fixed_effects(fit: Fitted, df: DfMethod, vcov: VcovMethod | None, information: Information, cluster: str | None = None) -> FixedEffects:
    """The fixed effects of a fit under a choice of options."""
    choice = check_options(df, vcov, information)
    require_robust(choice.vcov, cluster)
    return Inference(fit, cluster).fixed_effects(choice)


def require_robust(vcov: str, cluster: str | None) -> None:
    """Refuse clusters beside a covariance that has none."""
    if cluster is not None and vcov not in LEVERAGE_POWERS:
        what = f"cluster is {show_value(cluster)}, and the covariance {vcov!r} has no clusters"
        raise SpecificationError(what, "cluster", 'leave it out, or choose vcov="CR2"')


def coefficient_columns(
    fit: Fitted, df: DfMethod, vcov: VcovMethod | None, information: Information, cluster: str | None = None
) -> dict[str, Any]:
    """The columns of `coefficient_table`: a list of terms, then arrays."""
    effects = fixed_effects(fit, df, vcov, information, cluster)
    tests = effects.coefficients()
    columns = {
        "estimate": tests.estimate,
        "std_error": tests.std_error,
        "df": tests.df,
        "statistic": tests.statistic,
        "p_value": tests.p_value,
    }
    kept = list(effects.kept)
    table: dict[str, Any] = {"term": list(effects.names)}
    for name, values in columns.items():
        whole = np.full(len(effects.names), np.nan)
        whole[kept] = values
        table[name] = whole
    return table


def coefficient_table(
    fit: Fitted,
    df: DfMethod = "satterthwaite",
    vcov: VcovMethod | None = None,
    information: Information = "expected",
    cluster: str | None = None,
) -> pd.DataFrame:
    """t tests of all coefficients: `term, estimate, std_error, df, statistic, p_value`; NaN in the rows of aliased ones.

    df, vcov, information : as everywhere; cluster : the grouping factor that a robust covariance clusters by
    """
    return pd.DataFrame(coefficient_columns(fit, df, vcov, information, cluster))


def covariance(
    fit: Fitted, vcov: VcovMethod = "asymptotic", information: Information = "expected", cluster: str | None = None
) -> pd.DataFrame:
    """The covariance of the fixed effects under an adjustment; rows and columns of aliased coefficients are NaN.

    vcov : "asymptotic", "kenward-roger", "kenward-roger-linear", "CR0" to "CR3"
    """
    choice = check_options(df="asymptotic", vcov=vcov, information=information)
    require_robust(choice.vcov, cluster)
    names, kept = fit.design.coef_names, list(fit.design.kept)
    whole = np.full((len(names), len(names)), np.nan)
    back = fit.problem.standardization.back
    whole[np.ix_(kept, kept)] = back @ Inference(fit, cluster).covariance(choice) @ back.T
    return pd.DataFrame(whole, index=list(names), columns=list(names))
