"""t and F tests of the fixed effects under one choice of covariance and degrees of freedom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm._arrays import Array, Mask
from bayeslmm._validation import spell
from bayeslmm.errors import InferenceError, SpecificationError
from bayeslmm.estimate.estimate import Fitted, is_restricted
from bayeslmm.inference.fixed_effects import kenward_roger_random as level_pieces
from bayeslmm.inference.fixed_effects import kenward_roger_structured as subject_pieces
from bayeslmm.inference.fixed_effects.degrees_of_freedom import (
    CoefficientDegrees,
    ConstantDegrees,
    Degrees,
    KenwardRogerDegrees,
    Satterthwaite,
    between_within,
    containment,
)
from bayeslmm.inference.fixed_effects.information import ObservedInformation, observed_information
from bayeslmm.inference.fixed_effects.kenward_roger import KenwardRoger, kenward_roger, v_derivatives
from bayeslmm.inference.fixed_effects.sandwich import LEVERAGE_POWERS, Sandwich, sandwich

if TYPE_CHECKING:
    from bayeslmm._types import DfMethod, Information, VcovMethod

DF_METHODS = ("satterthwaite", "kenward-roger", "kenward-roger-linear", "between-within", "containment", "residual", "asymptotic")
VCOV_METHODS = ("asymptotic", "kenward-roger", "kenward-roger-linear", "CR0", "CR1", "CR2", "CR3")
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
INFORMATION_KINDS = ("expected", "observed")
KERNELS = (level_pieces, subject_pieces)
"""Where kernels answer `v_derivatives`: importing them registers their answers."""


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
        half = stats.t.ppf(0.5 + 0.5 * level, self.df) * self.std_error
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
    """alpha, its covariance and its degrees of freedom, over the coefficients kept.

    names : of all coefficients, aliased ones too; kept : positions of the p kept among them
    scaled : whether F is scaled by the method of the degrees of freedom
    """

    names: tuple[str, ...]
    kept: tuple[int, ...]
    alpha: Array
    vcov: Array
    degrees: Degrees
    scaled: bool = True

    def t(self, L: Array, rhs: Array | float = 0.0) -> TTests:
        """t tests of the rows of L (r, p)."""
        L = np.atleast_2d(L)
        estimate = L @ self.alpha
        se = np.sqrt(np.maximum(np.einsum("rx,xy,ry->r", L, self.vcov, L), 0.0))
        df = self.degrees.rows(L) if len(L) else np.zeros(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = (estimate - rhs) / se
        return TTests(estimate, se, df, statistic, np.asarray(2.0 * stats.t.sf(np.abs(statistic), df)))

    def f(self, L: Array, rhs: Array | float = 0.0, own: Mask | None = None) -> FTest:
        """The F test of L alpha = rhs; redundant rows are left out.

        own : (p,) of bool, the coefficients of the term tested: methods that count take its degrees of freedom from those
        """
        L, rhs = independent_rows(L, rhs)
        q = len(L)
        if q == 0:
            return FTest(0, np.nan, np.nan, np.nan)
        gap = L @ self.alpha - rhs
        counted = own is not None and own.any() and isinstance(self.degrees, CoefficientDegrees)
        scale, df = self.degrees.joint(np.atleast_2d(own).astype(float) if counted and own is not None else L)
        wald = float(gap @ np.linalg.solve(L @ self.vcov @ L.T, gap)) / q
        statistic = wald * scale if self.scaled else wald
        return FTest(q, df, statistic, float(stats.f.sf(statistic, q, df)) if np.isfinite(df) else float(stats.chi2.sf(q * statistic, q)))


def independent_rows(L: Array, rhs: Array | float) -> tuple[Array, Array]:
    """An orthonormal basis of the rows of L where they are dependent, L itself where they are not."""
    L = np.atleast_2d(L)
    rhs = np.broadcast_to(np.asarray(rhs, float), (len(L),))
    size = np.linalg.norm(L, axis=1)
    unit = L / np.where(size > 0, size, 1.0)[:, None]
    left, values, _ = np.linalg.svd(unit, full_matrices=False)
    rank = int((values > 1e-8 * values.max(initial=0.0)).sum()) if values.size else 0
    if rank == len(L):
        return L, rhs
    basis = left[:, :rank].T
    right = rhs / np.where(size > 0, size, 1.0)
    if np.any(np.abs(right - basis.T @ (basis @ right)) > 1e-8 * max(1.0, float(np.abs(right).max(initial=0.0)))):
        where = "dependent rows of L with different right-hand sides"
        raise InferenceError("the contrasts contradict one another", where, "leave the redundant rows out")
    return basis @ unit, basis @ right


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
    df = _name("df", DF_SYNONYMS.get(spell(df), spell(df)), DF_METHODS, DF_SYNONYMS)
    if vcov is None:
        vcov = df if df.startswith("kenward") else "asymptotic"
    spelled = spell(vcov)
    vcov = _name("vcov", VCOV_SYNONYMS.get(spelled, spelled.upper() if spelled.startswith("cr") else spelled), VCOV_METHODS, VCOV_SYNONYMS)
    information = _name("information", spell(information), INFORMATION_KINDS)
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
        self._adjustments: dict[tuple[str, bool], KenwardRoger] = {}
        self._sandwiches: dict[str, Sandwich] = {}

    @cached_property
    def curvature(self) -> ObservedInformation:
        return observed_information(self.fit)

    def adjustment(self, information: str, linear: bool) -> KenwardRoger:
        """Kenward-Roger on standardized columns."""
        if not is_restricted(self.fit):
            raise InferenceError("Kenward-Roger is defined for REML fits", "this fit is by ML", "fit('REML'), or df='satterthwaite'")
        key = (information, linear)
        if key not in self._adjustments:
            assert self.fit.point.state is not None
            pieces = v_derivatives(self.fit.point.state, self.fit.problem, self.fit.point.x)
            self._adjustments[key] = kenward_roger(pieces, self.curvature, information, linear)
        return self._adjustments[key]

    def robust(self, kind: str) -> Sandwich:
        if kind not in self._sandwiches:
            self._sandwiches[kind] = sandwich(self.fit, kind, self.cluster)
        return self._sandwiches[kind]

    def covariance(self, choice: InferenceOptions) -> Array:
        """(p, p) on the user's columns."""
        if choice.vcov == "asymptotic":
            return self.fit.estimate.vcov
        if choice.vcov in LEVERAGE_POWERS:
            return self.robust(choice.vcov).vcov
        c = self.fit.problem.standardization
        adjusted = self.adjustment(choice.information, choice.vcov.endswith("linear")).adjusted
        return np.asarray(self.fit.point.sigma2 * c.y_scale**2 * (c.back @ adjusted @ c.back.T))

    def degrees(self, choice: InferenceOptions) -> Degrees:
        makers: dict[str, Callable[[], Degrees]] = {
            "asymptotic": lambda: ConstantDegrees(float("inf")),
            "residual": lambda: ConstantDegrees(float(self.fit.nobs - len(self.fit.estimate.alpha))),
            "between-within": lambda: CoefficientDegrees(between_within(self.fit.design)),
            "containment": lambda: CoefficientDegrees(containment(self.fit.design)),
            "satterthwaite": lambda: self._satterthwaite(choice),
            "kenward-roger": lambda: self._kenward_roger(choice, linear=False),
            "kenward-roger-linear": lambda: self._kenward_roger(choice, linear=True),
        }
        return makers[choice.df]()

    def _satterthwaite(self, choice: InferenceOptions) -> Degrees:
        if choice.vcov in LEVERAGE_POWERS:
            return self.robust(choice.vcov)
        return Satterthwaite(self.curvature, self.fit.problem.standardization.back)

    def _kenward_roger(self, choice: InferenceOptions, linear: bool) -> Degrees:
        return KenwardRogerDegrees(self.adjustment(choice.information, linear), self.fit.problem.standardization.back)

    def fixed_effects(self, choice: InferenceOptions) -> FixedEffects:
        design = self.fit.design
        return FixedEffects(
            design.coef_names,
            design.kept,
            self.fit.estimate.alpha,
            self.covariance(choice),
            self.degrees(choice),
            choice.vcov == choice.df,
        )


def fixed_effects(fit: Fitted, df: DfMethod, vcov: VcovMethod | None, information: Information, cluster: str | None = None) -> FixedEffects:
    """The fixed effects of a fit under a choice of options."""
    return Inference(fit, cluster).fixed_effects(check_options(df, vcov, information))


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
    effects = fixed_effects(fit, df, vcov, information, cluster)
    tests = effects.t(np.eye(len(effects.alpha)))
    columns = {
        "estimate": tests.estimate,
        "std_error": tests.std_error,
        "df": tests.df,
        "statistic": tests.statistic,
        "p_value": tests.p_value,
    }
    kept = list(effects.kept)
    table: dict[str, object] = {"term": list(effects.names)}
    for name, values in columns.items():
        whole = np.full(len(effects.names), np.nan)
        whole[kept] = values
        table[name] = whole
    return pd.DataFrame(table)


def covariance(
    fit: Fitted, vcov: VcovMethod = "asymptotic", information: Information = "expected", cluster: str | None = None
) -> pd.DataFrame:
    """The covariance of the fixed effects under an adjustment; rows and columns of aliased coefficients are NaN.

    vcov : "asymptotic", "kenward-roger", "kenward-roger-linear", "CR0" to "CR3"
    """
    choice = check_options(df="asymptotic", vcov=vcov, information=information)
    names, kept = fit.design.coef_names, list(fit.design.kept)
    whole = np.full((len(names), len(names)), np.nan)
    whole[np.ix_(kept, kept)] = Inference(fit, cluster).covariance(choice)
    return pd.DataFrame(whole, index=list(names), columns=list(names))
