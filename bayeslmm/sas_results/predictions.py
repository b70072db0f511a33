"""Predictable functions L alpha + M beta of any number of random coefficients, through V as one matrix.

L alpha^ + M beta^,   beta^ = G Z' V^-1 (y - X alpha^)
    variance of the error = M G M' - k' V^-1 k + d C d',   k = Z G M',  d = L - k' V^-1 X,  C = (X' V^-1 X)^-1

Slow and obvious: for the few rows of ESTIMATE and CONTRAST, SolutionR's degrees of freedom, and residual diagnostics.

Rows without a response are predicted too: OUTP= gives them what the observed rows of their subject say through V,
x' alpha + c' V^-1 (y - X alpha).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import linalg, special

from bayeslmm._arrays import Array, Codes
from bayeslmm.errors import SizeError, SpecificationError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import combined_df
from bayeslmm.inference.fixed_effects.tests import FTest, TTests
from bayeslmm.inference.influence import DETERMINED
from bayeslmm.likelihood.prediction import row_variances
from bayeslmm.likelihood.structured.residual_covariance import marginal_covariance, parameter_units, residual_sds, unit_covariances
from bayeslmm.model.lmm import LMM
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas_results.covariance_parameters import random_covariance, tau_of
from bayeslmm.sas_results.run import COUNTING, ProgramRun
from bayeslmm.sas_results.tables.fixed_effects import t_quantile

MAX_V_ROWS = 5000
PREDICTABLE_STEP = 1e-4
"""Step in tau of the derivatives of the variances."""


@dataclass(frozen=True, slots=True, eq=False)
class MixedEquations:
    """G Z' M' and what belongs to one tau: k (n, m), MGM (m, m), V^-1 k, V^-1 X, C."""

    k: Array
    prior: Array
    solved_k: Array
    solved_X: Array
    C: Array

    def errors(self, L: Array) -> Array:
        """(m, m) covariance of the errors of prediction."""
        d = L - self.k.T @ self.solved_X
        return np.asarray(self.prior - self.k.T @ self.solved_k + d @ self.C @ d.T)


class PredictableFunctions:
    """The predictable functions of a run."""

    def __init__(self, run: ProgramRun) -> None:
        self.run = run
        n = run.fit.nobs
        if n > MAX_V_ROWS:
            raise SizeError(
                f"functions of random effects need V of {n} rows as one matrix",
                f"the limit is {MAX_V_ROWS} rows",
                "leave out the part behind the bar",
            )

    def estimate(self, L: Array, M: Array) -> Array:
        """L alpha^ + M beta^."""
        fit = self.run.fit
        beta = np.array([fit.modes[c.term][c.level, c.column] for c in self.run.random])
        return np.asarray(L @ fit.fixef_kept + M @ beta)

    def at(self, M: Array, tau: Array) -> MixedEquations:
        """Solve at tau."""
        problem = self.run.fit.problem
        design = problem.design
        k = np.zeros((design.nobs, len(M)))
        prior = np.zeros((len(M), len(M)))
        for t, term in enumerate(design.terms):
            own = [(i, c) for i, c in enumerate(self.run.random) if c.term == t]
            W = np.zeros((len(M), term.group.size, term.Z.shape[1]))
            for i, c in own:
                W[:, c.level, c.column] = M[:, i]
            D = random_covariance(problem, t, tau)
            WD = W @ D
            if term.relationship is not None:
                WD = np.einsum("kl,mlq->mkq", term.relationship, WD)
            k += np.einsum("nq,mnq->nm", term.Z, WD[:, term.group.codes])
            prior += np.einsum("akq,bkq->ab", WD, W)
        V = problem.sigma2(float(np.exp(2.0 * tau[-1]))) * marginal_covariance(problem, tau[:-1])
        factor = linalg.cho_factor(V, lower=True)
        X = design.X
        VX, Vk = linalg.cho_solve(factor, X), linalg.cho_solve(factor, k)
        return MixedEquations(k, prior, Vk, VX, np.linalg.inv(X.T @ VX))

    def _tau(self) -> Array:
        fit = self.run.fit
        return tau_of(fit.estimate.x, fit.point.sigma2)

    def tests(self, L: Array, M: Array, df: float | None = None) -> TTests:
        """t tests of the rows."""
        estimate, errors = self.estimate(L, M), self.at(M, self._tau()).errors(L)
        se = np.sqrt(np.maximum(np.diagonal(errors), 0.0))
        degrees = self.degrees(L, M, df)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(se > 0, estimate / se, np.nan)
        return TTests(estimate, se, degrees, t, np.asarray(2.0 * special.stdtr(degrees, -np.abs(t))))

    def joint(self, L: Array, M: Array, df: float | None = None) -> FTest:
        """The F test of all rows."""
        estimate, errors = self.estimate(L, M), self.at(M, self._tau()).errors(L)
        values, vectors = np.linalg.eigh(errors)
        kept = values > 1e-9 * values.max(initial=0.0)
        q = int(kept.sum())
        basis = vectors[:, kept].T
        statistic = float(((basis @ estimate) ** 2 / values[kept]).sum() / q)
        den = combined_df(self.degrees(basis @ L, basis @ M, df)) if df is None else df
        return FTest(q, den, statistic, float(special.fdtrc(q, den, statistic)))

    def degrees(self, L: Array, M: Array, df: float | None = None) -> Array:
        """Of the residual where the method counts, by Satterthwaite's approximation where it does not."""
        if df is not None or self.run.translation.df in COUNTING:
            return np.full(len(L), self.run.counted.rest if df is None else df)
        tau = self._tau()
        variance = np.diagonal(self.at(M, tau).errors(L))
        slopes, units = [], np.append(parameter_units(self.run.fit.problem, tau[:-1]), 1.0)
        for i in range(len(tau)):
            move = np.zeros(len(tau))
            move[i] = PREDICTABLE_STEP * max(units[i], abs(tau[i]))
            ends = [np.diagonal(self.at(M, tau + sign * move).errors(L)) for sign in (1.0, -1.0)]
            slopes.append((ends[0] - ends[1]) / (2.0 * move[i]))
        g = np.stack(slopes, axis=1)
        spread = np.einsum("rt,ts,rs->r", g, self.run.inference.curvature.covariance, g)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * variance**2 / spread)


def random_weights(
    run: ProgramRun, coefficients: Mapping[GLMEffect, Sequence[float]], subject: Sequence[float], group: Sequence[float]
) -> Array:
    """M (columns of Z,) of the part behind the bar.

    Numbers fill the columns of their effect in order, within each subject; SUBJECT gives each subject its coefficient, the first one 1
    where it is left out. Too many are cut.
    """
    if group:
        raise SpecificationError("GROUP coefficients of ESTIMATE and CONTRAST are not supported", "", "list the random effects by SUBJECT")
    columns = run.random
    out = np.zeros(len(columns))
    for effect, values in coefficients.items():
        mine = [i for i, column in enumerate(columns) if column.effect == effect]
        subjects = list(dict.fromkeys(columns[i].subject for i in mine))
        shares = dict(zip(subjects, subject or (1.0,), strict=False))
        for name in subjects:
            own = [i for i in mine if columns[i].subject == name]
            for i, value in zip(own, values, strict=False):
                out[i] = shares.get(name, 0.0) * value
    return out


def predictions_table(run: ProgramRun, *, conditional: bool) -> pd.DataFrame:
    """The data (the ID variables alone where the program names some), Pred, StdErrPred, DF, Alpha, Lower, Upper, Resid, ..."""
    out = run.rows.data.copy()
    if run.program.id:
        out = out[list(dict.fromkeys([*run.program.id, run.program.model.response]))].copy()
    columns = _columns(run, conditional=conditional)
    n = len(out)
    for name, (rows, values) in columns.items():
        whole = np.full(n, np.nan)
        whole[rows] = values
        out[name] = whole
    return out


def _columns(run: ProgramRun, *, conditional: bool) -> dict[str, tuple[Codes, Array]]:
    fit, model = run.fit, run.program.model
    design = fit.design
    pred = np.asarray(fit.fitted("conditional" if conditional else "population"))
    X = design.X
    if conditional and design.terms:
        Zs, codes = [t.Z for t in design.terms], [t.group.codes for t in design.terms]
        variance = row_variances(fit.problem, fit.point, X, Zs, codes)
    else:
        variance = run.base.variances(X)
    rows = np.asarray(design.rows)
    df = _degrees(run, X)
    absent = _absent(run)
    if len(absent):
        more_X, more_pred, more_variance = _predict_unobserved(run, absent, conditional=conditional)
        rows, pred, variance = np.concatenate([rows, absent]), np.concatenate([pred, more_pred]), np.concatenate([variance, more_variance])
        df = np.concatenate([df, _degrees(run, more_X)])
    se = np.sqrt(np.maximum(variance, 0.0))
    half = t_quantile(1.0 - 0.5 * model.alphap, df) * se
    columns = {"Pred": (rows, pred), "StdErrPred": (rows, se), "DF": (rows, df), "Alpha": (rows, np.full(len(rows), model.alphap))}
    columns |= {"Lower": (rows, pred - half), "Upper": (rows, pred + half)}
    used = np.asarray(design.rows)
    residual = design.y - pred[: len(used)]
    columns["Resid"] = (used, residual)
    if model.residual or model.vciry:
        columns |= {name: (used, values) for name, values in _diagnostics(run, residual, conditional=conditional).items()}
    return columns


def _degrees(run: ProgramRun, X: Array) -> Array:
    return np.full(len(X), run.counted.rest) if run.translation.df in COUNTING else np.asarray(run.base.denominators(X))


def _absent(run: ProgramRun) -> Codes:
    """Rows that lack nothing but the response."""
    response = run.program.model.response
    frame = run.rows.frame
    needed = [name for name in run.model_columns if name != response]
    complete = frame[needed].notna().all(axis=1).to_numpy() if needed else np.ones(len(frame), dtype=np.bool_)
    if run.program.weight:
        complete = complete & (frame[run.program.weight] > 0).to_numpy()
    return np.flatnonzero(complete & frame[response].isna().to_numpy())


def _predict_unobserved(run: ProgramRun, absent: Codes, *, conditional: bool) -> tuple[Array, Array, Array]:
    """X, predicted value and variance of the rows without a response."""
    fit = run.fit
    X = fit.design.encoding.encode_fixed(run.rows.frame.iloc[absent])[0][:, list(fit.design.kept)]
    if not conditional:
        return X, X @ fit.fixef_kept, run.base.variances(X)
    used = np.asarray(fit.design.rows)
    rows = np.concatenate([used, absent])
    if len(rows) > MAX_V_ROWS:
        what = f"OUTP= of {len(absent)} rows without a response needs V of {len(rows)} rows as one matrix"
        raise SizeError(what, f"the limit is {MAX_V_ROWS} rows", "use OUTPM=, or leave these rows out")
    V, R = _covariance_over(run, rows)
    n = len(used)
    c, Vo = V[:n, n:], V[:n, :n]
    # what is predicted is the mean of the row given its random effects; with no random effects the outcome itself
    prior = np.diagonal(V)[n:] - (np.diagonal(R)[n:] if fit.design.terms else 0.0)
    solved = linalg.cho_solve(linalg.cho_factor(Vo, lower=True), np.column_stack([c, fit.design.X, fit.design.y]))
    k = c.shape[1]
    Vc, VX, Vy = solved[:, :k], solved[:, k:-1], solved[:, -1]
    d = X - c.T @ VX
    pred = X @ fit.fixef_kept + c.T @ (Vy - VX @ fit.fixef_kept)
    C = np.linalg.inv(fit.design.X.T @ VX)
    variance = prior - np.einsum("ni,ni->i", c, Vc) + np.einsum("np,pq,nq->n", d, C, d)
    return X, pred, variance


def _covariance_over(run: ProgramRun, rows: Codes) -> tuple[Array, Array]:
    """V and R over rows with and without a response: those of the same model with any response in its place."""
    values = np.full(len(run.rows.frame), np.nan)
    values[rows] = np.random.default_rng(1).standard_normal(len(rows))
    # all rows are handed on, since the order of the rows may be their visit
    frame = run.rows.frame.assign(**{run.program.model.response: values})
    model = LMM.from_spec(replace(run.model.spec, check="warn"), frame, counting="sas")
    problem, own = model.problem, np.searchsorted(model.design.rows, rows)
    x = problem.x(run.fit.problem.theta(run.fit.estimate.x))
    scale = run.fit.problem.sigma2(run.fit.point.sigma2)
    V, R = marginal_covariance(problem, x), unit_covariances(problem, x, np.arange(len(rows))[None])[0]
    return scale * V[np.ix_(own, own)], scale * R[np.ix_(own, own)]


def _diagnostics(run: ProgramRun, residual: Array, *, conditional: bool) -> dict[str, Array]:
    """StudentResid and PearsonResid; with VCIRY ScaledDep and ScaledResid, by the Cholesky factor of V."""
    fit, model = run.fit, run.program.model
    if fit.nobs > MAX_V_ROWS:
        raise SizeError(
            f"residual diagnostics need V of {fit.nobs} rows as one matrix", "RESIDUAL, VCIRY", f"the limit is {MAX_V_ROWS} rows"
        )
    scale = fit.problem.sigma2(fit.point.sigma2)
    V = scale * marginal_covariance(fit.problem, fit.estimate.x)
    X = fit.design.X
    left = V - X @ fit.vcov_kept @ X.T
    found: dict[str, Array] = {}
    if model.residual:
        if conditional:
            R = scale * unit_covariances(fit.problem, fit.estimate.x, np.arange(fit.nobs)[None])[0]
            K = np.linalg.solve(V, R).T
            own, sd = np.einsum("ni,ij,nj->n", K, left, K, optimize=True), residual_sds(fit.problem, fit.point)
        else:
            own, sd = np.diagonal(left), np.sqrt(np.diagonal(V))
        apart = own > DETERMINED * sd**2
        found["StudentResid"] = np.where(apart, residual / np.sqrt(np.where(apart, own, 1.0)), np.nan)
        found["PearsonResid"] = residual / sd
    if model.vciry:
        L = np.linalg.cholesky(V)
        found["ScaledDep"] = linalg.solve_triangular(L, fit.design.y, lower=True)
        found["ScaledResid"] = linalg.solve_triangular(L, fit.design.y - X @ fit.fixef_kept, lower=True)
    return found
