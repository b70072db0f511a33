"""MODEL / INFLUENCE: what deleting a row, a few rows, or a level of an effect does, the covariance parameters held or estimated again.

With K = V^-1, S = K X, F = (X'K X)^-1 and P = K - S F S', deleting the rows U moves the coefficients by F S_U' g, g = P_UU^-1 (P y)_U,
takes (P y)_U' g off the residual sum of squares y'Py, and leaves F_(U) = (F^-1 - S_U' K_UU^-1 S_U)^-1; the residual variance follows where
it is profiled (SAS/STAT, The MIXED Procedure, "Residuals and Influence Diagnostics").
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, SizeError, SpecificationError
from bayeslmm.likelihood.structured.residual_covariance import marginal_covariance
from bayeslmm.model.fit import Fit
from bayeslmm.sas.language.effects import glm_effect
from bayeslmm.sas_results.parms import fit_at_values, profiles_residual
from bayeslmm.sas_results.rows import class_of
from bayeslmm.sas_results.run import ProgramRun
from bayeslmm.sas_results.tables.model_information import covariance_parameter_rows, iteration_history
from bayeslmm.sas_results.variance_components import MOST_ROWS

DEFAULT_TUPLES = 50
MOST_TUPLES = 100_000


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


@dataclass(frozen=True, slots=True, eq=False)
class _Refit:
    """The program run again without the rows, with what it moves: as `_Deletion`, F_(U) at its own covariance parameters.

    there : all rows at those covariance parameters
    """

    move: Array
    ratio: float
    F: Array
    press: Array
    run: ProgramRun
    there: Fit


def influence_table(run: ProgramRun) -> pd.DataFrame:
    """One row for each row used, for each level of EFFECT=, or for each of the SIZE= rows that can be left out together.

    With KEEP= so many of them, and of SIZE= 50, the most influential first: by the likelihood distance where the residual variance is
    profiled or ITER= is given, else by PRESS.

    Index, Observed, PredMean, Residual, Leverage, PRESSRes, Student, RStudent, [RMSE,] CookD, DFFITS, COVRATIO; with EFFECT= or SIZE=
    Level, NumObs, PRESS, CookD, MDFFITS, COVRATIO, COVTRACE[, RMSE]. With ITER= above 0 the covariance parameters are estimated again
    without the rows: Iter, CookDCP, [MDFFITSCP,] COVRATIOCP, [COVTRACECP,] and the distance RLD or LD beside. With ESTIMATES Parm1, ...,
    and with ITER= CovP1, ....
    """
    request = run.program.model.influence
    assert request is not None
    whole = _whole(run)
    one = request.effect is None and request.size == 1
    keep = DEFAULT_TUPLES if request.keep is None and request.size > 1 else request.keep
    lines, distances = [], []
    for label, rows in _sets(run):
        found: _Deletion | _Refit | None = _delete(whole, rows)
        if request.iter > 0 and found is not None:
            found = _refit(run, whole, rows)
        row = _row_diagnostics(run, whole, int(rows[0]), found) if one else _set_diagnostics(run, whole, label, rows, found)
        more = _again(run, found, whole_row=one) if request.iter > 0 else {}
        lines.append(row | more | (_estimates(run, found) if request.estimates else {}))
        distances.append(_overall(run, whole, found))
    order = range(len(lines)) if keep is None else np.argsort(-np.array(distances), kind="stable")[:keep].tolist()
    return pd.DataFrame([lines[k] for k in order])


def _overall(run: ProgramRun, whole: _Whole, found: _Deletion | _Refit | None) -> float:
    """What the sets are ordered by; where the rows decide a coefficient there is nothing to go by."""
    if found is None:
        return -np.inf
    if isinstance(found, _Refit):
        return _distance(run, found)
    if not whole.profiled:
        return float(found.press @ found.press)
    away = 0.0 if run.fit.restricted else float(found.move @ np.linalg.solve(whole.F, found.move))
    return whole.df * float(np.log(found.ratio)) + (whole.squares + away) / found.ratio - whole.squares


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


def _refit(run: ProgramRun, whole: _Whole, rows: Codes) -> _Refit | None:
    """None where the model without the rows is another one, or has no fit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BayesLMMWarning)
            again = run.without(rows)
    except BayesLMMError:
        return None
    design, known = again.fit.design, run.fit.design
    if [design.coef_names[k] for k in design.kept] != [known.coef_names[k] for k in known.kept]:
        return None
    on_standardized = run.fit.problem.standardization.coefficients
    move = on_standardized(run.fit.fixef.to_numpy()[list(known.kept)] - again.fit.fixef.to_numpy()[list(design.kept)])
    F = on_standardized(on_standardized(_covariance(again)).T)
    ratio = again.parameter_rows[-1].value / run.parameter_rows[-1].value if whole.profiled else 1.0
    there = fit_at_values(run.model, run.listing, run.fit.estimate, np.array([row.value for row in again.parameter_rows]))
    return _Refit(move, ratio, F, whole.residual[rows] + whole.X[rows] @ move, again, there)


def _covariance(run: ProgramRun) -> Array:
    kept = list(run.fit.design.kept)
    return np.asarray(run.fit.vcov)[np.ix_(kept, kept)]


def _again(run: ProgramRun, found: _Deletion | _Refit | None, *, whole_row: bool) -> dict[str, float]:
    """What the covariance parameters do without the rows, and how far the (restricted) likelihood of all rows falls at the estimates."""
    names = ("CookDCP", "MDFFITSCP", "COVRATIOCP", "COVTRACECP")
    distance = "RLD" if run.fit.restricted else "LD"
    if not isinstance(found, _Refit):
        values: dict[str, float] = dict.fromkeys(("Iter", *names, distance), np.nan)
    else:
        before, after = covariance_parameter_rows(run), covariance_parameter_rows(found.run)
        free = before.free & after.free
        move = (before.values - after.values)[free]
        old, new = before.covariance[np.ix_(free, free)], after.covariance[np.ix_(free, free)]
        moved = np.linalg.solve(old, new) if len(move) else np.eye(0)
        numbers = (
            float(move @ np.linalg.solve(old, move)),
            float(move @ np.linalg.solve(new, move)),
            float(np.linalg.det(moved)),
            abs(float(np.trace(moved)) - len(move)),
        )
        values = {"Iter": float(iteration_history(found.run)["Iteration"].max()), **dict(zip(names, numbers, strict=True))}
        values[distance] = _distance(run, found)
    return {name: value for name, value in values.items() if not whole_row or name not in ("MDFFITSCP", "COVTRACECP")}


def _distance(run: ProgramRun, found: _Refit) -> float:
    """Twice what the log likelihood of all rows falls; the restricted one is a function of the covariance parameters alone."""
    there = found.there
    fallen = there.criterion - run.criterion
    if run.fit.restricted:
        return float(fallen)
    kept, own = list(run.fit.design.kept), list(found.run.fit.design.kept)
    away = there.fixef.to_numpy()[kept] - found.run.fit.fixef.to_numpy()[own]
    return float(fallen + away @ np.linalg.solve(np.asarray(there.vcov)[np.ix_(kept, kept)], away))


def _estimates(run: ProgramRun, found: _Deletion | _Refit | None) -> dict[str, float]:
    """SAS's coefficients without the rows, and with ITER= the covariance parameters."""
    alpha = run.fit.fixef.to_numpy()[list(run.fit.design.kept)]
    left = np.full(len(alpha), np.nan) if found is None else alpha - run.fit.problem.standardization.back @ found.move
    parameters = np.zeros(len(run.layout.columns))
    parameters[run.space.kept] = run.T @ left
    values = {f"Parm{k + 1}": float(value) for k, value in enumerate(parameters)}
    if isinstance(found, _Refit):
        values |= {f"CovP{k + 1}": row.value for k, row in enumerate(found.run.parameter_rows)}
    elif run.program.model.influence is not None and run.program.model.influence.iter > 0:
        values |= {f"CovP{k + 1}": np.nan for k in range(len(run.parameter_rows))}
    return values


def _measures(whole: _Whole, found: _Deletion | _Refit) -> dict[str, float]:
    """CookD, MDFFITS, COVRATIO, COVTRACE."""
    r = max(len(whole.F), 1)
    after = found.F if isinstance(found, _Refit) else found.ratio * found.F
    inverse = np.linalg.inv(whole.F)
    _, before = np.linalg.slogdet(whole.F)
    _, now = np.linalg.slogdet(after)
    return {
        "CookD": float(found.move @ inverse @ found.move) / r,
        "MDFFITS": float(found.move @ np.linalg.solve(after, found.move)) / r,
        "COVRATIO": float(np.exp(now - before)),
        "COVTRACE": abs(float(np.trace(inverse @ after)) - len(whole.F)),
    }


def _rmse(run: ProgramRun, found: _Deletion | _Refit | None) -> dict[str, float]:
    """The residual sd without the rows, where there is one residual variance."""
    if not profiles_residual(run.translation):
        return {}
    variance = run.parameter_rows[-1].value
    return {"RMSE": float(np.sqrt(variance * found.ratio)) if found is not None else np.nan}


def _row_diagnostics(run: ProgramRun, whole: _Whole, i: int, found: _Deletion | _Refit | None) -> dict[str, Any]:
    x, residual = whole.X[i], whole.residual[i]
    spread = float(whole.V[i, i] - x @ whole.F @ x)
    student = residual / np.sqrt(spread) if spread > 0 else np.nan
    row: dict[str, Any] = {
        "Index": int(run.fit.design.rows[i]) + 1,
        "Observed": whole.predicted[i] + residual,
        "PredMean": whole.predicted[i],
    }
    row |= {"Residual": residual, "Leverage": float(x @ whole.F @ whole.S[i])}
    if found is None:
        names = ("PRESSRes", "Student", "RStudent", *_rmse(run, None), "CookD", "DFFITS", "COVRATIO")
        return row | dict.fromkeys(names, np.nan)
    measures = _measures(whole, found)
    outside = student / np.sqrt(found.ratio)
    if isinstance(found, _Refit):
        outside = residual / np.sqrt(_spread(found.there, x, i))
    row |= {"PRESSRes": float(found.press[0]), "Student": student, "RStudent": outside} | _rmse(run, found)
    scale = x @ found.F @ x if isinstance(found, _Refit) else found.ratio * (x @ whole.F @ x)
    change = float(x @ found.move) / float(np.sqrt(scale))
    return row | {"CookD": measures["CookD"], "DFFITS": change, "COVRATIO": measures["COVRATIO"]}


def _spread(fit: Fit, x: Array, i: int) -> float:
    """The variance of the residual of a row at the covariance parameters of a fit; x : its standardized columns."""
    V = fit.problem.sigma2(fit.point.sigma2) * marginal_covariance(fit.problem, fit.estimate.x)
    X = fit.problem.standardization.Xy(fit.design, slice(0, len(V)))[:, :-1]
    return float(V[i, i] - x @ np.linalg.solve(X.T @ np.linalg.solve(V, X), x))


def _set_diagnostics(run: ProgramRun, whole: _Whole, label: str, rows: Codes, found: _Deletion | _Refit | None) -> dict[str, Any]:
    row: dict[str, Any] = {"Level": label, "NumObs": len(rows)}
    if found is None:
        return row | dict.fromkeys(("PRESS", "CookD", "MDFFITS", "COVRATIO", "COVTRACE", *_rmse(run, None)), np.nan)
    return row | {"PRESS": float(found.press @ found.press)} | _measures(whole, found) | _rmse(run, found)


def _sets(run: ProgramRun) -> Iterator[tuple[str, Codes]]:
    """The levels of EFFECT=, or every SIZE= of the rows, by their numbers in the data; of those that SELECT= names."""
    request, used = run.program.model.influence, run.fit.design.rows
    assert request is not None
    if request.effect is None:
        chosen = np.flatnonzero(np.isin(used + 1, request.select)) if request.select else np.arange(len(used))
        if request.select and len(chosen) < request.size:
            what = f"INFLUENCE(SELECT=): {len(chosen)} of the rows {', '.join(map(str, request.select[:20]))} are used"
            raise SpecificationError(what, run.program.model.spot, f"{request.size} or more numbers of rows that miss nothing")
        if (count := comb(len(chosen), request.size)) > MOST_TUPLES:
            what = f"INFLUENCE(SIZE={request.size}) leaves {count:,} sets of rows out, one after the other"
            raise SizeError(what, run.program.model.spot, f"name fewer rows: size={request.size} select=1 2 3 (up to {MOST_TUPLES:,} sets)")
        for rows in combinations(chosen.tolist(), request.size):
            yield " ".join(str(used[row] + 1) for row in rows), np.array(rows)
        return
    effect = glm_effect(request.effect, run.program.class_names)
    if effect.continuous or not effect.classes:
        what = f"INFLUENCE(EFFECT={request.effect.text}) is not an effect of class variables"
        raise SpecificationError(what, run.program.model.spot, "name variables of the CLASS statement")
    found = class_of(run.rows, effect.classes)
    codes = np.asarray(found.codes)[used]
    if wrong := [k for k in request.select if k > len(found.levels)]:
        what = f"INFLUENCE(SELECT={wrong[0]}): {effect.name} has {len(found.levels)} levels"
        raise SpecificationError(what, run.program.model.spot, "count them in the order of the table of EFFECT= alone")
    for code in np.unique(codes):
        if request.select and code + 1 not in request.select:
            continue
        yield found.levels[code], np.flatnonzero(codes == code)
