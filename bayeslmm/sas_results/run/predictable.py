"""Predictable functions L alpha + M beta of any number of random coefficients, through V as one matrix.

    L alpha^ + M beta^,   beta^ = G Z' V^-1 (y - X alpha^)
    variance of the error = M G M' - k' V^-1 k + d C d',   k = Z G M',  d = L - k' V^-1 X,  C = (X' V^-1 X)^-1

Slow and obvious: for the few rows of ESTIMATE and CONTRAST, SolutionR's degrees of freedom, and residual diagnostics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from bayeslmm._arrays import Array
from bayeslmm.errors import SizeError, SpecificationError
from bayeslmm.inference.fixed_effects.degrees_of_freedom import combined_df
from bayeslmm.inference.fixed_effects.tests import FTest, TTests
from bayeslmm.likelihood.definition import marginal_covariance
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas_results.run.covariance_parameters import random_covariance, tau_of
from bayeslmm.sas_results.run.run import COUNTING, ProgramRun

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
        return TTests(estimate, se, degrees, t, np.asarray(2.0 * stats.t.sf(np.abs(t), degrees)))

    def joint(self, L: Array, M: Array, df: float | None = None) -> FTest:
        """The F test of all rows."""
        estimate, errors = self.estimate(L, M), self.at(M, self._tau()).errors(L)
        values, vectors = np.linalg.eigh(errors)
        kept = values > 1e-9 * values.max(initial=0.0)
        q = int(kept.sum())
        turned = vectors[:, kept].T
        statistic = float(((turned @ estimate) ** 2 / values[kept]).sum() / q)
        den = combined_df(self.degrees(turned @ L, turned @ M, df)) if df is None else df
        return FTest(q, den, statistic, float(stats.f.sf(statistic, q, den)))

    def degrees(self, L: Array, M: Array, df: float | None = None) -> Array:
        """Of the residual where the method counts, by Satterthwaite's approximation where it does not."""
        if df is not None or self.run.translation.df in COUNTING:
            return np.full(len(L), self.run.counted.rest if df is None else df)
        tau = self._tau()
        variance = np.diagonal(self.at(M, tau).errors(L))
        slopes = []
        for i in range(len(tau)):
            move = np.zeros(len(tau))
            move[i] = PREDICTABLE_STEP * max(1.0, abs(tau[i]))
            ends = [np.diagonal(self.at(M, tau + sign * move).errors(L)) for sign in (1.0, -1.0)]
            slopes.append((ends[0] - ends[1]) / (2.0 * move[i]))
        g = np.stack(slopes, axis=1)
        spread = np.einsum("rt,ts,rs->r", g, self.run.inference.curvature.covariance, g)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * variance**2 / spread)


def random_weights(run: ProgramRun, given: Mapping[GLMEffect, Sequence[float]], subject: Sequence[float], group: Sequence[float]) -> Array:
    """M (columns of Z,) of the part behind the bar.

    Numbers fill the columns of their effect in order, within each subject; SUBJECT gives each subject its coefficient, the first one 1
    where it is left out. Too many are cut.
    """
    if group:
        raise SpecificationError("GROUP coefficients of ESTIMATE and CONTRAST are not supported", "", "list the random effects by SUBJECT")
    columns = run.random
    out = np.zeros(len(columns))
    for effect, values in given.items():
        mine = [i for i, column in enumerate(columns) if column.effect == effect]
        subjects = list(dict.fromkeys(columns[i].subject for i in mine))
        shares = dict(zip(subjects, subject or (1.0,), strict=False))
        for name in subjects:
            own = [i for i in mine if columns[i].subject == name]
            for i, value in zip(own, values, strict=False):
                out[i] = shares.get(name, 0.0) * value
    return out
