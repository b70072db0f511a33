"""ODS tables of the model: ModelInfo, ClassLevels, Dimensions, IterHistory, CovParms, AsyCov, FitStatistics, the null model test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from bayeslmm._arrays import Array
from bayeslmm.likelihood.problem import Problem
from bayeslmm.results.estimates import InformationCriteria
from bayeslmm.sas.language.covariance_types import VC, CovType
from bayeslmm.sas_results.covariance_parameters import CovParm, tau_of
from bayeslmm.sas_results.parms import FixedParameterInference, profiles_residual
from bayeslmm.sas_results.run import ProgramRun

NULL_SPEC = 1e-10
"""A variance below this, in units of its own, is 0."""


AT_ONE = 1e-7
"""A correlation nearer than this to 1 or -1 is at its bound."""


@dataclass(frozen=True, slots=True, eq=False)
class CovarianceParameters:
    """The covariance parameters of a run, and their covariance matrix; NaN for those held and those at 0."""

    rows: tuple[CovParm, ...]
    covariance: Array
    free: NDArray[np.bool_]

    def parameter_rows(self) -> CovarianceParameters:
        """Without what is no parameter."""
        kept = [k for k, row in enumerate(self.rows) if not row.known]
        return CovarianceParameters(tuple(self.rows[k] for k in kept), self.covariance[np.ix_(kept, kept)], self.free[kept])

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
    if run.components is not None:
        return CovarianceParameters(run.parameter_rows, run.inference.curvature.covariance, free_parameters(run))
    J = run.listing.jacobian(tau_of(run.fit.estimate.x, run.fit.point.sigma2))
    return CovarianceParameters(run.parameter_rows, J @ _tau_covariance(run) @ J.T, free_parameters(run))


def free_parameters(run: ProgramRun) -> NDArray[np.bool_]:
    """Which covariance parameters are neither held nor at their bound."""
    rows = run.parameter_rows
    values = np.array([row.value for row in rows])
    if run.components is not None:
        return np.asarray(values != 0.0)
    units = run.listing.units(tau_of(run.fit.estimate.x, run.fit.point.sigma2))
    zero = np.array([row.ends_at_zero for row in rows]) & (values <= NULL_SPEC * units)
    one = np.array([row.correlation for row in rows]) & (np.abs(values) >= 1.0 - AT_ONE)
    gone = np.array([row.vanished for row in rows], bool)
    return np.asarray(~zero & ~one & ~gone & ~np.isin(np.arange(len(rows)), run.search.held))


def _tau_covariance(run: ProgramRun) -> Array:
    inference = run.inference
    assert isinstance(inference, FixedParameterInference)
    return inference.tau_covariance("observed" if run.search.held else run.translation.information)


def cov_parms_frame(run: ProgramRun) -> pd.DataFrame:
    """CovParm, Subject, Group, [Ratio,] Estimate, [StdErr, ZValue, ProbZ,] [Alpha, Lower, Upper]."""
    found = covariance_parameter_rows(run).parameter_rows()
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
        columns |= _tests(found, bounded=not proc.nobound)
    if proc.cl:
        columns |= _limits(found, proc.alpha, wald=proc.cl == "wald" or proc.nobound)
    return pd.DataFrame(columns)


def _tests(found: CovarianceParameters, *, bounded: bool) -> dict[str, Any]:
    """Wald tests: one-sided for what cannot be below 0."""
    z = found.values / found.errors
    one_sided = np.array([row.positive and bounded and row.value >= 0.0 for row in found.rows])
    return {"StdErr": found.errors, "ZValue": z, "ProbZ": np.where(one_sided, special.ndtr(-z), 2.0 * special.ndtr(-np.abs(z)))}


def _limits(found: CovarianceParameters, alpha: float, *, wald: bool) -> dict[str, Any]:
    """Satterthwaite's chi-square limits, nu = 2 Z^2, for what cannot be below 0; Wald limits for the rest."""
    values, errors = found.values, found.errors
    half = -special.ndtri(0.5 * alpha) * errors
    lower, upper = values - half, values + half
    if not wald:
        by_chi = np.array([row.positive and row.value > 0.0 for row in found.rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            nu = 2.0 * (values / errors) ** 2
            lower = np.where(by_chi, nu * values / special.chdtri(nu, 0.5 * alpha), lower)
            upper = np.where(by_chi, nu * values / special.chdtri(nu, 1.0 - 0.5 * alpha), upper)
    return {"Alpha": np.where(np.isfinite(errors), alpha, np.nan), "Lower": lower, "Upper": upper}


def asymptotic_frame(run: ProgramRun, *, correlation: bool) -> pd.DataFrame:
    """Row, CovParm, CovP1, CovP2, ..."""
    found = covariance_parameter_rows(run).parameter_rows()
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
    return replace(run.fit.counts, criterion=run.criterion, covariance=int(free_parameters(run).sum()))


def criterion_name(run: ProgramRun) -> str:
    """As the tables of SAS call it."""
    return "-2 Res Log Likelihood" if run.fit.restricted else "-2 Log Likelihood"


def fit_statistics(run: ProgramRun) -> pd.DataFrame:
    """Descr, Value."""
    counts = parameter_counts(run)
    smaller = "(Smaller is Better)"
    names = [criterion_name(run), f"AIC {smaller}", f"AICC {smaller}", f"BIC {smaller}"]
    return pd.DataFrame({"Descr": names, "Value": [run.criterion, counts.aic, counts.aicc, counts.bic]})


def information_criteria(run: ProgramRun) -> pd.DataFrame:
    """Neg2LogLike, Parms, AIC, AICC, HQIC, BIC, CAIC."""
    counts = parameter_counts(run)
    d, s, value = counts.parameters, counts.subjects, run.criterion
    with np.errstate(divide="ignore", invalid="ignore"):
        hqic = value + 2.0 * d * float(np.log(np.log(s)))
    row = {"Neg2LogLike": value, "Parms": d, "AIC": counts.aic, "AICC": counts.aicc, "HQIC": hqic, "BIC": counts.bic}
    return pd.DataFrame([row | {"CAIC": value + d * (float(np.log(s)) + 1.0)}])


def null_test(run: ProgramRun) -> pd.DataFrame:
    """DF, ChiSq, ProbChiSq against independent errors with one variance."""
    chisq = max(null_criterion(run.fit.problem, run.fit.restricted) - run.criterion, 0.0)
    df = parameter_counts(run).covariance - 1
    p = float(special.chdtrc(df, chisq)) if df > 0 else 1.0
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


_LONG = {
    "VC": "Variance Components",
    "UN": "Unstructured",
    "UNR": "Unstructured using Correlations",
    "CS": "Compound Symmetry",
    "CSH": "Heterogeneous Compound Symmetry",
    "AR(1)": "Autoregressive",
    "ARH(1)": "Heterogeneous Autoregressive",
    "ANTE(1)": "Ante-dependence",
    "ARMA(1,1)": "Autoregressive Moving Average",
    "TOEP": "Toeplitz",
    "TOEPH": "Heterogeneous Toeplitz",
    "HF": "Huynh-Feldt",
    "FA": "Factor Analytic",
    "FA0": "No Diagonal Factor Analytic",
    "FA1": "Equal Diagonal Factor Analytic",
    "LIN": "Linear",
    "SP(EXP)": "Spatial Exponential",
    "SP(GAU)": "Spatial Gaussian",
    "SP(POW)": "Spatial Power",
    "SP(POWA)": "Spatial Anisotropic Power",
    "SP(SPH)": "Spatial Spherical",
    "SP(LIN)": "Spatial Linear",
    "SP(MATERN)": "Spatial Matern",
    "UN@AR(1)": "Unstructured @ Autoregressive",
    "UN@CS": "Unstructured @ Compound Symmetry",
    "UN@UN": "Unstructured @ Unstructured",
}
_DF = {
    "containment": "Containment",
    "between-within": "Between-Within",
    "residual": "Residual",
    "satterthwaite": "Satterthwaite",
    "kenward-roger": "Kenward-Roger",
    "kenward-roger-linear": "Kenward-Roger (First Order)",
}
_SE = {
    "asymptotic": "Model-Based",
    "CR0": "Empirical",
    "kenward-roger": "Kenward-Roger",
    "kenward-roger-linear": "Kenward-Roger (First Order)",
}


_METHODS = {"type1": "Type 1", "type2": "Type 2", "type3": "Type 3", "mivque0": "MIVQUE0"}


def _long(cov: CovType) -> str:
    order = f" ({cov.order} factors)" if cov.name.startswith("FA") and (cov.order or 0) > 1 else ""
    banded = "Banded " if cov.order is not None and cov.name.startswith(("UN", "TOEP")) else ""
    return banded + _LONG.get(cov.name, cov.name) + order


def model_info(run: ProgramRun) -> pd.DataFrame:
    """Descr, Value."""
    program, t = run.program, run.translation
    structures = list(dict.fromkeys(_long(r.type) for r in program.random))
    repeated = program.repeated
    if repeated is not None and (repeated.type != VC or not structures):
        structures = list(dict.fromkeys([*structures, _long(repeated.type)]))
    subjects = [r.subject.text for r in program.random if r.subject is not None and r.subject.text != "Intercept"]
    if repeated is not None and repeated.subject is not None and repeated.subject.text != "Intercept":
        subjects.append(repeated.subject.text)
    groups = list(dict.fromkeys(b.group for b in t.blocks if b.group))
    improved = program.model.ddfm == "kenwardroger2"
    rows = [
        ("Data Set", program.proc.data.upper() or "_LAST_"),
        ("Dependent Variable", program.model.response),
        ("Weight Variable", program.weight),
        ("Covariance Structure" if len(structures) < 2 else "Covariance Structures", ", ".join(structures) or "Diagonal"),
        ("Subject Effect" if len(set(subjects)) < 2 else "Subject Effects", ", ".join(dict.fromkeys(subjects))),
        ("Group Effect" if len(groups) < 2 else "Group Effects", ", ".join(groups)),
        ("Estimation Method", _METHODS.get(program.proc.method, t.method)),
        ("Residual Variance Method", "Factor" if program.proc.method in _METHODS else "Profile" if profiles_residual(t) else "None"),
        ("Fixed Effects SE Method", "Kenward-Roger2" if improved else _SE[t.vcov]),
        ("Degrees of Freedom Method", "Kenward-Roger2" if improved else _DF[t.df]),
    ]
    shown = [row for row in rows if row[1]]
    return pd.DataFrame({"Descr": [d for d, _ in shown], "Value": [v for _, v in shown]})


def class_level_table(run: ProgramRun) -> pd.DataFrame:
    """Class, Levels, Values."""
    limit = run.program.proc.noclprint
    rows = []
    for name in run.program.class_names:
        levels = run.rows.classes[name].levels
        values = "not printed" if limit is not None and len(levels) >= limit else " ".join(levels)
        rows.append({"Class": name, "Levels": len(levels), "Values": values})
    return pd.DataFrame(rows)


def dimensions(run: ProgramRun) -> pd.DataFrame:
    """Descr, Value."""
    subjects = run.rows.subjects
    columns, longest = len(run.random), len(run.rows.data)
    count = run.rows.subject_count
    rows = [("Covariance Parameters", len([row for row in run.parameter_rows if not row.known])), ("Columns in X", len(run.layout.columns))]
    if subjects is None:
        rows.append(("Columns in Z", columns))
    else:
        longest = int(np.bincount(subjects[subjects >= 0]).max(initial=0))
        rows.append(("Columns in Z per Subject" if columns else "Columns in Z", _columns_per_subject(run)))
    rows += [("Subjects", count), ("Max Obs per Subject", longest)]
    return pd.DataFrame({"Descr": [d for d, _ in rows], "Value": [v for _, v in rows]})


def _columns_per_subject(run: ProgramRun) -> int:
    """The most random coefficients that a subject has."""
    if not run.random or run.rows.subjects is None:
        return 0
    subject = run.rows.subjects[run.fit.design.rows]
    counts = np.zeros(run.rows.subject_count, dtype=np.int64)
    for t, term in enumerate(run.fit.design.terms):
        width = len({c.column for c in run.random if c.term == t})
        first = np.zeros(term.group.size, dtype=np.int64)
        first[term.group.codes] = subject
        counts += width * np.bincount(first, minlength=len(counts))
    return int(counts.max(initial=0))


def number_of_observations(run: ProgramRun) -> pd.DataFrame:
    """Label, N."""
    read, used = len(run.rows.data), run.fit.nobs
    labels = [f"Number of Observations {what}" for what in ("Read", "Used", "Not Used")]
    return pd.DataFrame({"Label": labels, "N": [read, used, read - used]})


def iteration_history(run: ProgramRun) -> pd.DataFrame:
    """Iteration, Evaluations, M2ResLogLike or M2LogLike, Criterion: the relative distance to the last value."""
    values = np.array([value for _, value in run.fit.path])
    name = "M2ResLogLike" if run.fit.restricted else "M2LogLike"
    distance = np.abs(values - values[-1]) / max(1.0, abs(float(values[-1])))
    steps = np.arange(len(values))
    return pd.DataFrame({"Iteration": steps, "Evaluations": np.ones(len(steps), dtype=np.int64), name: values, "Criterion": distance})


DEFINITE = 1e-8
"""Smallest eigenvalue, of a matrix with ones on its diagonal, that is not rounding."""


def convergence_status(run: ProgramRun) -> pd.DataFrame:
    """Reason, Status (0 is well), pdG, pdH."""
    converged = run.fit.converged if run.components is None else run.components.stationary
    g, h = definite_g(run), _definite_hessian(run)
    bad = " and ".join(name for name, definite in (("final G matrix", g), ("final Hessian", h)) if not definite)
    reason = "Convergence criteria met." if converged else "Did not converge."
    if converged and bad:
        reason = f"Convergence criteria met but {bad} {'are' if ' and ' in bad else 'is'} not positive definite."
    return pd.DataFrame({"Reason": [reason], "Status": [int(not converged)], "pdG": [int(g)], "pdH": [int(h)]})


def definite_g(run: ProgramRun) -> bool:
    """Whether the covariance matrix of every random term is positive definite: no variance of 0, no correlation of 1."""
    if run.components is not None:
        return bool((run.components.t[:-1] > 0.0).all())
    return all(_definite(D) for D in run.fit.covariances)


def _definite_hessian(run: ProgramRun) -> bool:
    """Whether the Hessian at the estimates is positive definite in the parameters that are neither held nor at their bound."""
    if run.search.held:
        return True
    hessian = run.inference.curvature.hessian
    if run.components is not None:
        return _definite(hessian)
    free = free_parameters(run)
    if not free.all():
        # in the parameters that can move: those at their bound leave directions in which nothing does
        tau = tau_of(run.fit.estimate.x, run.fit.point.sigma2)
        moves = np.linalg.pinv((run.listing.jacobian(tau) / run.listing.units(tau)[:, None])[free])
        return _definite(moves.T @ hessian @ moves)
    # what the design cannot tell apart is flat, whatever the rounding of differences makes of it
    return "repeated_parameters" not in run.fit.checks and _definite(hessian)


def _definite(matrix: Array) -> bool:
    variances = np.diagonal(matrix)
    if not len(variances):
        return True
    if not (np.isfinite(matrix).all() and (variances > 0).all()):
        return False
    root = np.sqrt(variances)
    return bool(np.linalg.eigvalsh(matrix / np.outer(root, root)).min() > DEFINITE)


def parameter_search(run: ProgramRun) -> pd.DataFrame:
    """CovP1, CovP2, ..., [Variance,] ResLogLike, M2ResLogLike (LogLike, M2LogLike by ML) of every candidate of PARMS."""
    res = "Res" if run.fit.restricted else ""
    columns: dict[str, object] = {f"CovP{k + 1}": list(column) for k, column in enumerate(zip(*run.search.candidates, strict=True))}
    if run.search.variances:
        columns["Variance"] = list(run.search.variances)
    values = np.array(run.search.values)
    return pd.DataFrame(columns | {f"{res}LogLike": -0.5 * values, f"M2{res}LogLike": values})
