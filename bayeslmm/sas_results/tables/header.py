"""ODS tables at the head of a listing: ModelInfo, ClassLevels, Dimensions, NObs, IterHistory, ConvergenceStatus, ParmSearch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.sas.language.covariance_types import VC, CovType
from bayeslmm.sas_results.run.parms import profiles_residual
from bayeslmm.sas_results.run.run import ProgramRun
from bayeslmm.sas_results.tables.covariance import free_parameters

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
    "SP(EXP)": "Spatial Exponential",
    "SP(GAU)": "Spatial Gaussian",
    "SP(POW)": "Spatial Power",
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
    rows = [
        ("Data Set", program.proc.data.upper() or "_LAST_"),
        ("Dependent Variable", program.model.response),
        ("Weight Variable", program.weight),
        ("Covariance Structure" if len(structures) < 2 else "Covariance Structures", ", ".join(structures) or "Diagonal"),
        ("Subject Effect" if len(set(subjects)) < 2 else "Subject Effects", ", ".join(dict.fromkeys(subjects))),
        ("Group Effect" if len(groups) < 2 else "Group Effects", ", ".join(groups)),
        ("Estimation Method", t.method),
        ("Residual Variance Method", "Profile" if profiles_residual(t) else "None"),
        ("Fixed Effects SE Method", _SE[t.vcov]),
        ("Degrees of Freedom Method", _DF[t.df]),
    ]
    told = [row for row in rows if row[1]]
    return pd.DataFrame({"Descr": [d for d, _ in told], "Value": [v for _, v in told]})


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
    rows = [("Covariance Parameters", len(run.parameter_rows)), ("Columns in X", len(run.layout.columns))]
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
    converged, g, h = run.fit.converged, definite_g(run), _definite_hessian(run)
    bad = " and ".join(name for name, definite in (("final G matrix", g), ("final Hessian", h)) if not definite)
    reason = "Convergence criteria met." if converged else "Did not converge."
    if converged and bad:
        reason = f"Convergence criteria met but {bad} {'are' if ' and ' in bad else 'is'} not positive definite."
    return pd.DataFrame({"Reason": [reason], "Status": [int(not converged)], "pdG": [int(g)], "pdH": [int(h)]})


def definite_g(run: ProgramRun) -> bool:
    """Whether the covariance matrix of every random term is positive definite: no variance of 0, no correlation of 1."""
    return all(_definite(D) for D in run.fit.covariances)


def _definite_hessian(run: ProgramRun) -> bool:
    """Whether the Hessian at the estimates is positive definite in the parameters that are neither held nor at their bound."""
    if run.search.held:
        return True
    hessian = run.inference.curvature.hessian
    at_bound = not free_parameters(run).all()
    # a parameter at its bound leaves directions in which nothing moves
    moving = np.diagonal(hessian) > DEFINITE * np.diagonal(hessian).max(initial=0.0)
    if not at_bound and not moving.all():
        return False
    return _definite(hessian[np.ix_(moving, moving)])


def _definite(matrix: Array) -> bool:
    variances = np.diagonal(matrix)
    if not len(variances):
        return True
    if not (variances > 0).all():
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
