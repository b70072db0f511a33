"""MODEL / INFLUENCE: what deleting a row, a few rows, or a level of an effect would do, with the covariance parameters as they are.

With K = V^-1, S = K X, F = (X'K X)^-1 and P = K - S F S', deleting the rows U moves the coefficients by F S_U' g, g = P_UU^-1 (P y)_U,
takes (P y)_U' g off the residual sum of squares y'Py, and leaves F_(U) = (F^-1 - S_U' K_UU^-1 S_U)^-1; the residual variance follows where
it is profiled (SAS/STAT, The MIXED Procedure, "Residuals and Influence Diagnostics").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import SizeError, SpecificationError
from bayeslmm.likelihood.structured.residual_covariance import marginal_covariance
from bayeslmm.sas.language.effects import glm_effect
from bayeslmm.sas_results.parms import profiles_residual
from bayeslmm.sas_results.rows import class_of
from bayeslmm.sas_results.run import ProgramRun
from bayeslmm.sas_results.variance_components import MOST_ROWS


@dataclass(frozen=True, slots=True, eq=False)
class _Whole:
    """The fit to all rows, on standardized columns."""

    X: Array
    residual: Array
    predicted: Array
    V: Array
    K: Array
    F: Array
    S: Array
    P: Array
    Py: Array
    squares: float
    df: int
    profiled: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Deletion:
    """Without the rows: alpha - alpha_(U), the residual variance over that of all rows, F_(U) at the old variance; prediction errors."""

    move: Array
    ratio: float
    F: Array
    press: Array


def influence_table(run: ProgramRun) -> pd.DataFrame:
    """One row for each row used, or for each level of EFFECT=.

    Index, Observed, PredMean, Residual, Leverage, PRESSRes, Student, RStudent, [RMSE,] CookD, DFFITS, COVRATIO; with EFFECT= or SIZE=
    Level, NumObs, PRESS, CookD, MDFFITS, COVRATIO, COVTRACE[, RMSE].
    """
    request = run.program.model.influence
    assert request is not None
    whole = _whole(run)
    if request.effect is None and request.size == 1:
        return pd.DataFrame([_row_diagnostics(run, whole, i) for i in range(len(whole.X))])
    return pd.DataFrame([_set_diagnostics(run, whole, label, rows) for label, rows in _sets(run)])


def _whole(run: ProgramRun) -> _Whole:
    fit, problem = run.fit, run.fit.problem
    design, c = fit.design, problem.standardization
    n, p = design.X.shape
    if n > MOST_ROWS:
        raise SizeError(
            f"INFLUENCE takes a dense matrix of {n:,} rows", "MODEL / INFLUENCE", f"up to {MOST_ROWS:,} rows; fit.influence() otherwise"
        )
    if run.components is not None and not (run.components.t > 0.0).all():
        raise SpecificationError("INFLUENCE is not there where a variance is not above 0", run.program.model.spot, "leave NOBOUND out")
    V = problem.sigma2(fit.point.sigma2) * marginal_covariance(problem, fit.estimate.x)
    X = c.Xy(design, slice(0, n))[:, :-1]
    y = design.y if design.offset is None else design.y - design.offset
    K = np.linalg.inv(V)
    S = K @ X
    F = np.linalg.inv(X.T @ S) if p else np.zeros((0, 0))
    P = K - S @ F @ S.T
    Py = P @ y
    predicted = X @ (F @ (S.T @ y))
    squares = float(y @ Py)
    df = n - p if fit.restricted else n
    return _Whole(X, y - predicted, predicted, V, K, F, S, P, Py, squares, df, profiles_residual(run.translation))


def _delete(whole: _Whole, rows: Codes) -> _Deletion | None:
    """None where the rows decide a coefficient alone."""
    block = np.ix_(rows, rows)
    P = whole.P[block]
    if (
        np.linalg.eigvalsh(P @ np.linalg.inv(whole.K[block])).min() < 1e-10
        if len(rows) > 1
        else P[0, 0] <= 1e-10 * whole.K[rows[0], rows[0]]
    ):
        return None
    gap = np.linalg.solve(P, whole.Py[rows])
    taken = float(whole.Py[rows] @ gap)
    left = whole.df - len(rows)
    ratio = (whole.squares - taken) / left / (whole.squares / whole.df) if whole.profiled and left > 0 else 1.0
    S = whole.S[rows]
    F = np.linalg.inv(np.linalg.inv(whole.F) - S.T @ np.linalg.solve(whole.K[block], S))
    move = whole.F @ (S.T @ gap)
    return _Deletion(move, ratio, F, whole.residual[rows] + whole.X[rows] @ move)


def _measures(whole: _Whole, found: _Deletion) -> dict[str, float]:
    """CookD, MDFFITS, COVRATIO, COVTRACE."""
    r = max(len(whole.F), 1)
    after = found.ratio * found.F
    inverse = np.linalg.inv(whole.F)
    _, before = np.linalg.slogdet(whole.F)
    _, now = np.linalg.slogdet(after)
    return {
        "CookD": float(found.move @ inverse @ found.move) / r,
        "MDFFITS": float(found.move @ np.linalg.solve(after, found.move)) / r,
        "COVRATIO": float(np.exp(now - before)),
        "COVTRACE": abs(float(np.trace(inverse @ after)) - len(whole.F)),
    }


def _rmse(run: ProgramRun, found: _Deletion | None) -> dict[str, float]:
    """The residual sd without the rows, where there is one residual variance."""
    if not profiles_residual(run.translation):
        return {}
    variance = run.parameter_rows[-1].value
    return {"RMSE": float(np.sqrt(variance * found.ratio)) if found is not None else np.nan}


def _row_diagnostics(run: ProgramRun, whole: _Whole, i: int) -> dict[str, float]:
    found = _delete(whole, np.array([i]))
    x, residual = whole.X[i], whole.residual[i]
    spread = float(whole.V[i, i] - x @ whole.F @ x)
    student = residual / np.sqrt(spread) if spread > 0 else np.nan
    row: dict[str, float] = {
        "Index": int(run.fit.design.rows[i]) + 1,
        "Observed": whole.predicted[i] + residual,
        "PredMean": whole.predicted[i],
    }
    row |= {"Residual": residual, "Leverage": float(x @ whole.F @ whole.S[i])}
    if found is None:
        names = ("PRESSRes", "Student", "RStudent", *_rmse(run, None), "CookD", "DFFITS", "COVRATIO")
        return row | dict.fromkeys(names, np.nan)
    measures = _measures(whole, found)
    row |= {"PRESSRes": float(found.press[0]), "Student": student, "RStudent": student / np.sqrt(found.ratio)} | _rmse(run, found)
    change = float(x @ found.move) / float(np.sqrt(found.ratio * (x @ whole.F @ x)))
    return row | {"CookD": measures["CookD"], "DFFITS": change, "COVRATIO": measures["COVRATIO"]}


def _set_diagnostics(run: ProgramRun, whole: _Whole, label: str, rows: Codes) -> dict[str, float | str]:
    found = _delete(whole, rows)
    row: dict[str, float | str] = {"Level": label, "NumObs": len(rows)}
    if found is None:
        return row | dict.fromkeys(("PRESS", "CookD", "MDFFITS", "COVRATIO", "COVTRACE", *_rmse(run, None)), np.nan)
    return row | {"PRESS": float(found.press @ found.press)} | _measures(whole, found) | _rmse(run, found)


def _sets(run: ProgramRun) -> Iterator[tuple[str, Codes]]:
    """The levels of EFFECT=, or SIZE= rows after one another."""
    request, n = run.program.model.influence, run.fit.nobs
    assert request is not None
    if request.effect is None:
        for begin in range(0, n, request.size):
            yield f"{begin + 1}-{min(begin + request.size, n)}", np.arange(begin, min(begin + request.size, n))
        return
    effect = glm_effect(request.effect, run.program.class_names)
    if effect.continuous or not effect.classes:
        what = f"INFLUENCE(EFFECT={request.effect.text}) is not an effect of class variables"
        raise SpecificationError(what, run.program.model.spot, "name variables of the CLASS statement")
    found = class_of(run.rows, effect.classes)
    codes = np.asarray(found.codes)[run.fit.design.rows]
    for code in np.unique(codes):
        yield found.levels[code], np.flatnonzero(codes == code)
