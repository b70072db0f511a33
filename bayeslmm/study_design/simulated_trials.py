"""Trials simulated from a fit, with drop-out, and refitted side by side where their sums allow it, else one after the other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, Codes, Generator, numbers_of
from bayeslmm._validation import STREAM_NUMBERS, require_memory
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, SpecificationError
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.fixed_effects.tests import fixed_effects
from bayeslmm.inference.intervals.batch_refit import (
    FunctionTests,
    ResponseProducts,
    function_tests,
    grouped_rows,
    points_of_responses,
    refit_many,
    responses,
    standardize_response,
)
from bayeslmm.inference.intervals.batch_structured import descend, parts, points_of_sums, poolable, subject_groups
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import as_pandas, simulate_responses

BATCH_DF = frozenset({"satterthwaite", "residual", "asymptotic"})
PREDICTED = 1e-12
"""Predicted decrease of the criterion at which a simulated trial is fitted."""

PART = 400
"""Simulated responses held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedFits:
    """Refits of simulated responses: tests of q functions, x (B, size), sigma^2 (B,), and which are to be believed."""

    tests: FunctionTests
    x: Array
    sigma2: Array
    settled: Any


def simulate_fits(fit: Estimates, L: Array, nsim: int, seed: Any, df: str, dropout: Dropout | None = None) -> SimulatedFits:
    """Simulate from a fit and refit, many side by side; what has not settled, or has no finite test, is fitted by itself."""
    numbers = float(nsim) * (fit.problem.size + 4 * len(L) + STREAM_NUMBERS)
    require_memory("replicates", numbers, f"{nsim:,} simulations", "simulate fewer: 10,000 are plenty")
    streams, start, restricted = seed.spawn(nsim), fit.estimate.x, fit.restricted
    truncated = None if dropout is None else truncate_subjects(fit, dropout)
    problem = fit.problem if truncated is None else truncated.problem
    found, groups = [], subject_groups(problem) if poolable(problem) else ()
    rng = np.random.default_rng(seed.spawn(1)[0])
    for part in parts(nsim, max(1, 4_000_000 // PART)):
        simulated = simulate_responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, [streams[i] for i in part])
        visits = None if dropout is None else dropout.draw_visits(rng, len(part))
        Y = standardize_response(problem, simulated if truncated is None else simulated[truncated.rows])
        if poolable(problem):
            counts = None if truncated is None or visits is None else truncated.counts(visits)
            sums = responses(groups, Y.T[:, grouped_rows(problem)], counts)
            fits: Any = descend(problem, sums, start, restricted, PREDICTED)
            at, rows = points_of_sums(problem, sums, restricted), sums.rows
        else:
            fits = refit_many(problem, Y, restricted, start)
            at, rows = (
                points_of_responses(problem, ResponseProducts.of(problem, Y), restricted),
                np.full(len(part), float(problem.criterion.n)),
            )
        tests = function_tests(problem, at, fits.x, rows, L[None], df)
        found.append(_refit_unsettled(fit, simulated, SimulatedFits(tests, fits.x, fits.sigma2, fits.settled), L, df, dropout, visits))
    joined = FunctionTests(
        *(np.concatenate(own) for own in zip(*((f.tests.estimate, f.tests.std_error, f.tests.df) for f in found), strict=True))
    )
    x, sigma2, settled = (np.concatenate(own) for own in zip(*((f.x, f.sigma2, f.settled) for f in found), strict=True))
    return SimulatedFits(joined, x, sigma2, settled)


def _refit_unsettled(
    fit: Estimates, Y: Array, found: SimulatedFits, L: Array, df: str, dropout: Dropout | None, visits: Codes | None
) -> SimulatedFits:
    """The fits whose search or tests came to nothing side by side, made again by themselves."""
    t = found.tests
    tested = np.isfinite(t.estimate + t.std_error).all(axis=1) & ~np.isnan(t.df).any(axis=1)
    rest = np.flatnonzero(~(found.settled & tested))
    if not len(rest):
        return found
    values = (t.estimate, t.std_error, t.df, found.x, found.sigma2, found.settled)
    estimate, std_error, degrees, x, sigma2, settled = (own.copy() for own in values)
    settled[rest] = False
    for b in rest:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BayesLMMWarning)
                own = require_finished(model_of_trial(fit, Y[:, b], dropout, visits, b).fit(fit.method))
            single = fixed_effects(own, df, None, "expected").t(L)  # type: ignore[arg-type]
        except BayesLMMError:
            continue
        estimate[b], std_error[b], degrees[b] = single.estimate, single.std_error, single.df
        x[b], sigma2[b] = own.estimate.x, own.problem.sigma2(own.point.sigma2) / fit.problem.sigma2(1.0)
        settled[b] = True
    return SimulatedFits(FunctionTests(estimate, std_error, degrees), x, sigma2, settled)


def batchable(fit: Estimates, df: str) -> bool:
    """Whether simulated responses can be refitted side by side, and tested."""
    side_by_side = isinstance(fit.problem.criterion.kernel, RandomEffectsKernel) and not fit.problem.is_iterative
    return isinstance(df, str) and df in BATCH_DF and fit.method != "MAP" and (poolable(fit.problem) or side_by_side)


def singular_fits(fit: Estimates, x: Array) -> Any:
    """(B,) whether a covariance of random effects has lost a direction."""
    out = np.zeros(len(x), bool)
    for term in fit.problem.random.terms:
        sizes = np.linalg.svd(term.covariance.factor(x[:, term.part]), compute_uv=False)
        out |= sizes.min(axis=-1) < 1e-4
    return out


# -- drop-out ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Dropout:
    """Shares of subjects that are gone by each visit: subject (n,) and visit (n,) of every row, gone (subjects, visits)."""

    subject: Codes
    visit: Codes
    gone: Array

    def draw_visits(self, rng: Generator, nsim: int) -> Codes:
        """(nsim, subjects) how many visits each subject is there for: one that has gone does not come back."""
        return np.asarray((self.gone <= rng.random((nsim, len(self.gone)))[..., None]).sum(axis=-1))

    def kept(self, visits: Codes) -> Any:
        """(n,) rows that are still observed when subjects are there for these numbers of visits."""
        return self.visit < visits[self.subject]


@dataclass(frozen=True, slots=True, eq=False)
class TruncatedSubjects:
    """A problem in which every subject stands once for each number of visits that it may be there for, to be counted 0 times or once.

    rows : of the fit's design; subject, visits : (levels,) of each subject of the problem, which one it is and for how many visits
    """

    problem: Problem
    rows: Codes
    subject: Codes
    visits: Codes

    def counts(self, visits: Codes) -> Array:
        """(B, levels) how often each counts where the subjects are there for these numbers of visits (B, subjects)."""
        return np.asarray(visits[:, self.subject] == self.visits, float)


def truncate_subjects(fit: Estimates, dropout: Dropout) -> TruncatedSubjects:
    """The subjects of a fit, each as often as drop-out may end it."""
    N, m = dropout.gone.shape
    ends = [j for j in range(1, m + 1) if j == m or (dropout.gone[:, j] > dropout.gone[:, j - 1]).any()]
    rows = [np.flatnonzero(dropout.visit < j) for j in ends]
    key = np.concatenate([dropout.subject[own] + N * j for own, j in zip(rows, ends, strict=True)])
    taken, levels = np.concatenate(rows), np.unique(key)
    name = fit.design.residual.subject.name if fit.design.residual is not None else ""
    other = fit.design.take(taken, lambda factor: key if factor.name == name else factor.codes[taken])
    return TruncatedSubjects(build_problem(other), taken, levels % N, levels // N)


def read_dropout(fit: Estimates, dropout: Any) -> Dropout:
    """Drop-out by visit, of all subjects or by the levels of a factor of the fixed effects.

    Errors: `SpecificationError` for levels that are none, and shares that are none or fall.
    """
    residual, design = fit.design.residual, fit.design
    if residual is None or residual.visit is None:
        raise SpecificationError("drop-out is by visit, and the model has none", "dropout", "give a residual structure over visits")
    m, N = len(residual.visit_levels), residual.subject.size
    shares = dropout if hasattr(dropout, "keys") else {None: dropout}
    table = {str(key): numbers_of(values, "dropout") for key, values in shares.items()}
    for key, values in table.items():
        if values.shape != (m,) or np.any(values < 0) or np.any(values >= 1) or np.any(np.diff(values) < 0):
            where = "dropout" if key == "None" else f"dropout of {key}"
            raise SpecificationError(
                "drop-out is a share of subjects gone by each visit", where, f"give {m} numbers from 0 to below 1 that do not fall"
            )
    labels = np.full(N, "None", dtype=object)
    if hasattr(dropout, "keys"):
        frame = design.frame
        found = [c for c in design.encoding.levels if set(table) == {str(v) for v in design.encoding.levels[c]}]
        if not found:
            raise SpecificationError(
                f"no factor has the levels {', '.join(table)}", "dropout", "give every level of one factor of the formula"
            )
        labels[residual.subject.codes] = frame[found[0]].astype(str).to_numpy(object)
    return Dropout(residual.subject.codes, residual.visit, np.stack([table[label] for label in labels]))


def model_of_trial(fit: Estimates, y: Array, dropout: Dropout | None, visits: Codes | None, b: int | np.integer[Any]) -> Any:
    """The model of the rows that are left of trial b; after drop-out the outcome is a column, since the response may be a function."""
    model: Any = fit.model
    if dropout is None or visits is None:
        return model.with_response(y)
    frame = as_pandas(model.data).iloc[fit.design.rows]
    name = "simulated"
    while name in frame:
        name += "_"
    return model.updated(f"{name} ~ .", frame.assign(**{name: y})[dropout.kept(visits[b])], {})
