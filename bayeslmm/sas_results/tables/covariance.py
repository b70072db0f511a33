"""CovParms, AsyCov and AsyCorr; fit statistics, information criteria and the null model test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bayeslmm._arrays import Array
from bayeslmm.inference.fixed_effects.information import pseudo_inverse
from bayeslmm.inference.fixed_effects.kenward_roger import v_derivatives
from bayeslmm.likelihood.problem import Problem
from bayeslmm.results.estimates import InformationCriteria
from bayeslmm.sas_results.run.covariance_parameters import CovParm, tau_of
from bayeslmm.sas_results.run.run import ProgramRun

NULL_SPEC = 1e-10
"""A variance below this, relative to the largest, is 0."""


AT_ONE = 1e-7
"""A correlation nearer than this to 1 or -1 is at its bound."""


@dataclass(frozen=True, slots=True, eq=False)
class CovarianceParameters:
    """The covariance parameters of a run, and their covariance matrix; NaN for those held and those at 0."""

    rows: tuple[CovParm, ...]
    covariance: Array
    free: NDArray[np.bool_]

    @property
    def values(self) -> Array:
        """(m,)"""
        return np.array([row.value for row in self.rows])

    @property
    def errors(self) -> Array:
        """(m,) standard errors."""
        return np.where(self.free, np.sqrt(np.maximum(np.diagonal(self.covariance), 0.0)), np.nan)


def covariance_parameter_rows(run: ProgramRun) -> CovarianceParameters:
    """The rows of the table with their covariance, by the observed information or, with SCORING=, the expected one."""
    problem = run.fit.problem
    J = run.listing.jacobian(tau_of(run.fit.estimate.x, run.fit.point.sigma2))
    return CovarianceParameters(run.parameter_rows, J @ _tau_covariance(run, problem) @ J.T, free_parameters(run))


def free_parameters(run: ProgramRun) -> NDArray[np.bool_]:
    """Which covariance parameters are neither held nor at their bound."""
    rows = run.parameter_rows
    values = np.array([row.value for row in rows])
    zero = np.array([row.positive for row in rows]) & (values <= NULL_SPEC * float(np.abs(values).max(initial=0.0)))
    one = np.array([row.correlation for row in rows]) & (np.abs(values) >= 1.0 - AT_ONE)
    return ~zero & ~one & ~np.isin(np.arange(len(rows)), run.search.held)


def _tau_covariance(run: ProgramRun, problem: Problem) -> Array:
    if run.translation.information == "observed" or run.search.held:
        return run.inference.curvature.covariance
    assert run.fit.point.state is not None
    pieces = v_derivatives(run.fit.point.state, problem, run.fit.point.x)
    information = pieces.expected_information(run.inference.curvature.C)
    # the information of tau follows from that of the components, psi(tau)
    return 2.0 * pseudo_inverse(pieces.jacobian.T @ information @ pieces.jacobian)


def cov_parms_frame(run: ProgramRun) -> pd.DataFrame:
    """CovParm, Subject, Group, [Ratio,] Estimate, [StdErr, ZValue, ProbZ,] [Alpha, Lower, Upper]."""
    found = covariance_parameter_rows(run)
    proc, rows, values = run.program.proc, found.rows, found.values
    columns: dict[str, Any] = {"CovParm": [r.name for r in rows]}
    if any(r.subject for r in rows):
        columns["Subject"] = [r.subject for r in rows]
    if any(r.group for r in rows):
        columns["Group"] = [r.group for r in rows]
    if proc.ratio and rows and rows[-1].name == "Residual":
        columns["Ratio"] = values / values[-1]
    columns["Estimate"] = values
    if proc.covtest:
        columns |= _tests(found)
    if proc.cl:
        columns |= _limits(found, proc.alpha, wald=proc.cl == "wald")
    return pd.DataFrame(columns)


def _tests(found: CovarianceParameters) -> dict[str, Any]:
    """Wald tests: one-sided for what cannot be below 0."""
    z = found.values / found.errors
    one_sided = np.array([row.positive for row in found.rows])
    return {"StdErr": found.errors, "ZValue": z, "ProbZ": np.where(one_sided, stats.norm.sf(z), 2.0 * stats.norm.sf(np.abs(z)))}


def _limits(found: CovarianceParameters, alpha: float, *, wald: bool) -> dict[str, Any]:
    """Satterthwaite's chi-square limits, nu = 2 Z^2, for what cannot be below 0; Wald limits for the rest."""
    values, errors = found.values, found.errors
    half = stats.norm.isf(0.5 * alpha) * errors
    lower, upper = values - half, values + half
    if not wald:
        by_chi = np.array([row.positive for row in found.rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            nu = 2.0 * (values / errors) ** 2
            lower = np.where(by_chi, nu * values / stats.chi2.isf(0.5 * alpha, nu), lower)
            upper = np.where(by_chi, nu * values / stats.chi2.isf(1.0 - 0.5 * alpha, nu), upper)
    return {"Alpha": np.where(np.isfinite(errors), alpha, np.nan), "Lower": lower, "Upper": upper}


def asymptotic_frame(run: ProgramRun, *, correlation: bool) -> pd.DataFrame:
    """Row, CovParm, CovP1, CovP2, ..."""
    found = covariance_parameter_rows(run)
    matrix = np.where(np.outer(found.free, found.free), found.covariance, 0.0)
    if correlation:
        root = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix = np.where(np.outer(root, root) > 0, matrix / np.outer(root, root), 0.0)
        matrix[np.diag_indices(len(matrix))] = 1.0
    columns: dict[str, Any] = {"Row": np.arange(1, len(matrix) + 1), "CovParm": [r.name for r in found.rows]}
    return pd.DataFrame(columns | {f"CovP{j + 1}": matrix[:, j] for j in range(len(matrix))})


# -- what the criterion says ---------------------------------------------------------------------------------------------------------------


def parameter_counts(run: ProgramRun) -> InformationCriteria:
    """SAS counts the covariance parameters that are neither held nor at their bound."""
    return replace(run.fit.counts, covariance=int(free_parameters(run).sum()))


def criterion_name(run: ProgramRun) -> str:
    """As the tables of SAS call it."""
    return "-2 Res Log Likelihood" if run.fit.restricted else "-2 Log Likelihood"


def fit_statistics(run: ProgramRun) -> pd.DataFrame:
    """Descr, Value."""
    told = parameter_counts(run)
    smaller = "(Smaller is Better)"
    names = [criterion_name(run), f"AIC {smaller}", f"AICC {smaller}", f"BIC {smaller}"]
    return pd.DataFrame({"Descr": names, "Value": [run.fit.criterion, told.aic, told.aicc, told.bic]})


def information_criteria(run: ProgramRun) -> pd.DataFrame:
    """Neg2LogLike, Parms, AIC, AICC, HQIC, BIC, CAIC."""
    told = parameter_counts(run)
    d, s, value = told.parameters, told.subjects, run.fit.criterion
    with np.errstate(divide="ignore", invalid="ignore"):
        hqic = value + 2.0 * d * float(np.log(np.log(s)))
    row = {"Neg2LogLike": value, "Parms": d, "AIC": told.aic, "AICC": told.aicc, "HQIC": hqic, "BIC": told.bic}
    return pd.DataFrame([row | {"CAIC": value + d * (float(np.log(s)) + 1.0)}])


def null_test(run: ProgramRun) -> pd.DataFrame:
    """DF, ChiSq, ProbChiSq against independent errors with one variance."""
    chisq = max(null_criterion(run.fit.problem, run.fit.restricted) - run.fit.criterion, 0.0)
    df = parameter_counts(run).covariance - 1
    p = float(stats.chi2.sf(chisq, df)) if df > 0 else 1.0
    return pd.DataFrame({"DF": [df], "ChiSq": [chisq], "ProbChiSq": [p]})


def null_criterion(problem: Problem, restricted: bool) -> float:
    """-2 (restricted) log likelihood of weighted least squares."""
    design = problem.design
    n, p = design.X.shape
    w = np.ones(n) if design.weights is None else design.weights
    y = design.y if design.offset is None else design.y - design.offset
    root = np.sqrt(w)
    Q, R = np.linalg.qr(design.X * root[:, None])
    rest = y * root - Q @ (Q.T @ (y * root))
    d = n - p if restricted else n
    value = d * (1.0 + np.log(2.0 * np.pi * float(rest @ rest) / d)) - float(np.log(w).sum())
    return float(value + 2.0 * np.log(np.abs(np.diagonal(R))).sum()) if restricted else float(value)
