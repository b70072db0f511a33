"""Power and sample size of tests of the fixed effects: by simulation, many fits side by side, and analytically.

Analytically a test statistic is noncentral t or F with the expected information at the assumed parameters and the degrees of freedom of
the method; in balanced designs that is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, seed_sequence
from bayeslmm._validation import STREAM_NUMBERS, require_count, require_memory, require_name, require_number, require_one_of
from bayeslmm.errors import BayesLMMError, InferenceError, SpecificationError, printable_text
from bayeslmm.inference.fixed_effects.tests import Inference, check_options, fixed_effects
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
from bayeslmm.inference.means.anova import make_hypotheses
from bayeslmm.inference.means.linear_functions import linear_functions, require_estimable
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import as_pandas, simulate_responses
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.trials.assumed import assumed_estimates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import Side

BATCH_DF = frozenset({"satterthwaite", "residual", "asymptotic"})
PREDICTED = 1e-12
"""Predicted decrease of the criterion at which a simulated trial is fitted."""

PART = 400
"""Simulated responses held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class PowerTest:
    """L alpha = rhs over the columns kept, and what rejects it: side and margin of one row, or limits of equivalence."""

    L: Array
    rhs: Array
    label: str
    side: Side = "two-sided"
    delta: float = 0.0
    equivalence: float | None = None

    def rejects(self, found: FunctionTests, alpha: float) -> Any:
        """(B,) whether t tests of the one row reject."""
        gap, se, df = found.estimate[:, 0] - self.rhs[0], found.std_error[:, 0], found.df[:, 0]
        if self.equivalence is not None:
            limit = special.stdtrit(df, 1.0 - alpha) * se
            return (gap - limit > -self.equivalence) & (gap + limit < self.equivalence)
        t = (gap - self.delta) / se
        if self.side == "two-sided":
            return np.abs(t) > special.stdtrit(df, 1.0 - 0.5 * alpha)
        return (t if self.side == "greater" else -t) > special.stdtrit(df, 1.0 - alpha)


@dataclass(frozen=True, slots=True, eq=False)
class PowerCurve:
    """Power of a test over sizes of a design.

    Examples take `power = fit.power("Days", nsim=50, n=[6, 12], along="Subject", seed=1)`.

    Attributes
    ----------
    frame : DataFrame
        `n, power, conf_low, conf_high, nsim, failed, singular, estimate_bias`.
    along : str
        What n counts.
    """

    frame: pd.DataFrame
    test: str
    along: str
    alpha: float
    method: str

    def required(self, power: float = 0.9) -> int:
        """The smallest n whose power is at least this, between the sizes tried along a curve that does not fall.

        Parameters
        ----------
        power : float, default 0.9
            Power to be reached.

        Returns
        -------
        int
            The size.

        Raises
        ------
        InferenceError
            Where no size tried has this power.

        Examples
        --------
        >>> power.required(0.5) >= 6
        True
        """
        power = require_number(power, "power", above=0.0, below=1.0)
        n = self.frame["n"].to_numpy(float)
        curve = np.maximum.accumulate(self.frame["power"].to_numpy(float))
        if curve[-1] < power:
            what = f"no size tried has a power of {power:g}: {curve[-1]:.3f} at {n[-1]:g}"
            raise InferenceError(what, f"along {self.along}", "try larger sizes")
        at = int(np.argmax(curve >= power))
        if at == 0:
            return int(n[0])
        z = special.ndtri(np.clip(curve[at - 1 : at + 1], 1e-12, 1 - 1e-12))
        share = (special.ndtri(power) - z[0]) / (z[1] - z[0])
        return int(np.ceil(n[at - 1] + share * (n[at] - n[at - 1]) - 1e-9))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Power along n with its Monte Carlo band.

        Parameters
        ----------
        ax : Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = power.plot()
        """
        from bayeslmm.trials.report import power_figure

        return power_figure(self.frame, self.along, self.test, self.alpha, ax)

    def __repr__(self) -> str:
        return printable_text(f"Power of {self.test} at level {self.alpha:g} ({self.method})\n{self.frame.to_string(index=False)}")


known_arguments(PowerCurve)


def power(
    fit: Estimates,
    test: Any,
    *,
    alpha: float,
    nsim: int,
    n: Sequence[int] | int | None,
    along: str | None,
    df: str,
    method: str,
    seed: int | None,
    side: Side,
    delta: float,
    equivalence: float | None,
    dropout: Any = None,
) -> PowerCurve:
    """`Fit.power`."""
    require_one_of(method, ("simulation", "analytic"), "method")
    require_one_of(side, ("two-sided", "greater", "less"), "side")
    alpha, delta = require_number(alpha, "alpha", above=0.0, below=1.0), require_number(delta, "delta")
    nsim = require_count(nsim, "nsim")
    if (side != "two-sided" or delta != 0.0) and equivalence is not None:
        raise SpecificationError("equivalence has two sides of its own", "equivalence", "leave side and delta out")
    if equivalence is not None:
        equivalence = require_number(equivalence, "equivalence", above=0.0)
    if dropout is not None and method == "analytic":
        raise SpecificationError(
            "drop-out is simulated", "dropout", 'use method="simulation", or a skeleton without the rows expected to be lost'
        )
    df = check_options(df, None, "expected").df
    factor = _factor(fit, along)
    sizes = [_levels(fit, factor)] if n is None else sorted({require_count(v, "n") for v in np.atleast_1d(np.asarray(n)).tolist()})
    if not sizes:
        raise SpecificationError("n names no size", "n", "give the numbers of levels to be tried")
    if n is not None and along is None:
        raise SpecificationError("n is given, and not along what", "along", "name the grouping factor that is extended")
    rows = []
    for size, stream in zip(sizes, seed_sequence(seed).spawn(len(sizes)), strict=True):
        own = fit if n is None else extend_model(fit, factor, size)
        asked = read_test(own, test, side, delta, equivalence)
        if method == "analytic":
            rows.append(
                {"n": size, "power": analytic_power(own, asked, alpha, df), "nsim": 0, "failed": 0, "singular": 0, "estimate_bias": 0.0}
            )
        else:
            rows.append({"n": size} | _simulate_power(own, asked, alpha, nsim, df, stream, dropout))
    frame = pd.DataFrame(rows)
    low, high = _limits(frame["power"].to_numpy(float), (frame["nsim"] - frame["failed"]).to_numpy(float))
    frame.insert(2, "conf_low", low)
    frame.insert(3, "conf_high", high)
    return PowerCurve(frame, str(test), factor, float(alpha), method)


def _limits(power: Array, trials: Array) -> tuple[Array, Array]:
    """Clopper and Pearson's 95 % limits; the power itself where nothing was simulated."""
    hits = power * trials
    with np.errstate(invalid="ignore"):
        low, high = special.betaincinv(hits, trials - hits + 1.0, 0.025), special.betaincinv(hits + 1.0, trials - hits, 0.975)
    low, high = np.where(hits > 0, low, 0.0), np.where(hits < trials, high, 1.0)
    return np.where(trials > 0, low, power), np.where(trials > 0, high, power)


def read_test(fit: Estimates, test: Any, side: Side, delta: float, equivalence: float | None) -> PowerTest:
    """What is tested: a coefficient, a contrast, or a term of the analysis of variance.

    Errors: `SpecificationError` for unknown names, `InferenceError` for what is not estimable or has no direction.
    """
    design, names = fit.design, list(fit.design.coef_names)
    if isinstance(test, str) and test not in names:
        hypotheses = make_hypotheses(fit)
        for effect, rows in zip(hypotheses.tested, hypotheses.rows(3), strict=True):
            if effect.name == test:
                L = np.atleast_2d(rows) @ np.linalg.inv(fit.problem.standardization.back)
                if len(L) > 1 and (side != "two-sided" or delta or equivalence is not None):
                    what = f"term {test!r} has {len(L)} degrees of freedom, and no direction"
                    raise InferenceError(what, "side, delta, equivalence", "name one contrast")
                return PowerTest(L, np.zeros(len(L)), test, side, float(delta), None if equivalence is None else float(equivalence))
    given = {test: 1.0} if isinstance(test, str) and test in names else test
    functions = linear_functions(given, names)
    L = require_estimable(functions, design, fit.problem.standardization)
    if len(L) != 1:
        raise SpecificationError(f"{len(L)} contrasts are given", "test", "give one contrast, or the name of a term")
    return PowerTest(L, functions.rhs, str(test), side, float(delta), None if equivalence is None else float(equivalence))


# -- other sizes ---------------------------------------------------------------------------------------------------------------------------


def _factor(fit: Estimates, along: str | None) -> str:
    names = [term.group.name for term in fit.design.terms]
    if fit.design.residual is not None:
        names.append(fit.design.residual.subject.name)
    if along is None:
        return names[0] if names else "row"
    if require_name(along, "along") not in names:
        raise SpecificationError(
            f"along is {along!r}", "along", "use a grouping factor: " + (", ".join(dict.fromkeys(names)) or "the model has none")
        )
    return along


def _levels(fit: Estimates, factor: str) -> int:
    for term in fit.design.terms:
        if term.group.name == factor:
            return int(term.group.size)
    residual = fit.design.residual
    return fit.nobs if residual is None else int(residual.subject.size)


def extend_model(fit: Estimates, factor: str, n: int) -> Estimates:
    """The same parameters on a design of n levels of a factor: the first of the data, and copies of them in turn."""
    model: Any = fit.model
    if any(term.relationship is not None for term in fit.design.terms):
        raise SpecificationError("levels with a known relationship cannot be added", factor, "give a skeleton of the size wanted")
    frame = as_pandas(model.data)
    if factor not in frame.columns:
        raise SpecificationError(f"{factor!r} is no column of the data", "along", "name a factor that is one column")
    labels = list(dict.fromkeys(frame[factor].tolist()))
    groups = dict(iter(frame.groupby(factor, observed=True, sort=False)))
    made = [groups[labels[i % len(labels)]].assign(**{factor: f"{labels[i % len(labels)]}_{i // len(labels) + 1}"}) for i in range(n)]
    whole = pd.concat(made, ignore_index=True)
    try:
        other = model.updated(None, whole, {})
        if len(other.design.kept) != len(fit.fixef_kept):
            what = f"a design of {n} levels of {factor} does not identify all coefficients"
            raise InferenceError(what, f"n={n}", "give a larger n, or order the skeleton so that its first levels cover all factors")
        return assumed_estimates(other, fit.fixef_kept, fit.theta, fit._sigma, fit.method)
    except BayesLMMError as error:
        raise InferenceError(f"a design of {n} levels of {factor} cannot be fitted: {error.what}", f"n={n}", "give a larger n") from error


# -- analytic ------------------------------------------------------------------------------------------------------------------------------


def analytic_power(fit: Estimates, test: PowerTest, alpha: float, df: str) -> float:
    """The power at the parameters of the fit."""
    if df in ("satterthwaite", "kenward-roger", "kenward-roger-linear") and fit.restricted:
        # with the expected information both methods have the same degrees of freedom of a single contrast
        degrees: Any = Inference(fit).adjustment("expected", False)
    else:
        degrees = fixed_effects(fit, df, None, "expected").degrees  # type: ignore[arg-type]
    V = fit.vcov_kept
    gap = test.L @ fit.fixef_kept - test.rhs
    if len(test.L) > 1:
        q = len(test.L)
        nu = float(degrees.joint(test.L @ fit.problem.standardization.back)[1])
        noncentral = float(gap @ np.linalg.solve(test.L @ V @ test.L.T, gap))
        return _noncentral_f(alpha, q, nu, noncentral)
    nu, se = float(degrees.rows(test.L @ fit.problem.standardization.back)[0]), float(np.sqrt(test.L @ V @ test.L.T)[0, 0])
    if test.equivalence is not None:
        t = float(special.stdtrit(nu, 1.0 - alpha))
        low, high = (float(gap[0]) + test.equivalence) / se, (float(gap[0]) - test.equivalence) / se
        return float(max(0.0, _nct_cdf(-t, nu, high) - _nct_cdf(t, nu, low)))
    noncentral = (float(gap[0]) - test.delta) / se
    if test.side == "two-sided":
        return _noncentral_f(alpha, 1, nu, noncentral**2)
    shift = noncentral if test.side == "greater" else -noncentral
    return float(1.0 - _nct_cdf(float(special.stdtrit(nu, 1.0 - alpha)), nu, shift))


def _noncentral_f(alpha: float, q: int, nu: float, noncentral: float) -> float:
    if not np.isfinite(nu):
        return float(1.0 - special.chndtr(special.chdtri(q, alpha), q, noncentral)) if noncentral > 0 else alpha
    return float(1.0 - special.ncfdtr(q, nu, noncentral, special.fdtri(q, nu, 1.0 - alpha))) if noncentral > 0 else alpha


def _nct_cdf(t: float, nu: float, noncentral: float) -> float:
    return float(special.ndtr(t - noncentral) if not np.isfinite(nu) else special.nctdtr(nu, noncentral, t))


# -- simulation ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedFits:
    """Refits of simulated responses: tests of q functions, x (B, size), sigma^2 (B,), and which are to be believed."""

    tests: FunctionTests
    x: Array
    sigma2: Array
    settled: Any


def simulate_fits(fit: Estimates, L: Array, nsim: int, seed: Any, df: str) -> SimulatedFits:
    """Simulate from a fit and refit, many side by side."""
    problem, restricted = fit.problem, fit.restricted
    numbers = float(nsim) * (problem.size + 4 * len(L) + STREAM_NUMBERS)
    require_memory("replicates", numbers, f"{nsim:,} simulations", "simulate fewer: 10,000 are plenty")
    theta = fit.estimate.theta
    found, groups = [], subject_groups(problem) if poolable(problem) else ()
    start = fit.estimate.x
    streams = seed.spawn(nsim)
    for part in parts(nsim, max(1, 4_000_000 // PART)):
        Y = standardize_response(
            problem, simulate_responses(problem, fit.fixef_kept, theta, fit.estimate.sigma, [streams[i] for i in part])
        )
        if poolable(problem):
            sums = responses(groups, Y.T[:, grouped_rows(problem)])
            fits: Any = descend(problem, sums, start, restricted, PREDICTED)
            at = points_of_sums(problem, sums, restricted)
        else:
            fits = refit_many(problem, Y, restricted, start)
            at = points_of_responses(problem, ResponseProducts.of(problem, Y), restricted)
        tests = function_tests(problem, at, fits.x, float(problem.criterion.n), L[None], df)
        found.append(SimulatedFits(tests, fits.x, fits.sigma2, fits.settled))
    joined = FunctionTests(
        *(np.concatenate(own) for own in zip(*((f.tests.estimate, f.tests.std_error, f.tests.df) for f in found), strict=True))
    )
    x, sigma2, settled = (np.concatenate(own) for own in zip(*((f.x, f.sigma2, f.settled) for f in found), strict=True))
    return SimulatedFits(joined, x, sigma2, settled)


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


def _simulate_power(fit: Estimates, test: PowerTest, alpha: float, nsim: int, df: str, seed: Any, dropout: Any) -> dict[str, Any]:
    if len(test.L) == 1 and dropout is None and batchable(fit, df):
        found = simulate_fits(fit, test.L, nsim, seed, df)
        good = found.settled & np.isfinite(found.tests.df[:, 0] + found.tests.std_error[:, 0]) | (found.settled & (df == "asymptotic"))
        rejected = test.rejects(found.tests, alpha)[good]
        estimates, singular, failed = found.tests.estimate[good, 0], int(singular_fits(fit, found.x[good]).sum()), int((~good).sum())
    else:
        rejected, estimates, singular, failed = _one_by_one(fit, test, alpha, nsim, df, seed, dropout)
    if not len(rejected):
        raise InferenceError("no simulated data set could be fitted and tested", "power", "give a larger n, or simplify the model")
    bias = float(np.mean(estimates) - (test.L @ fit.fixef_kept)[0]) if len(test.L) == 1 else float("nan")
    return {"power": float(np.mean(rejected)), "nsim": nsim, "failed": failed, "singular": singular, "estimate_bias": bias}


@dataclass(frozen=True, slots=True, eq=False)
class Dropout:
    """Shares of subjects that are gone by each visit: subject (n,) and visit (n,) of every row, gone (subjects, visits)."""

    subject: Array
    visit: Array
    gone: Array

    def kept(self, rng: np.random.Generator) -> Any:
        """(n,) rows that are still observed: a subject that has gone does not come back."""
        u = rng.random(len(self.gone))
        return self.gone[self.subject.astype(int), self.visit.astype(int)] <= u[self.subject.astype(int)]


def read_dropout(fit: Estimates, dropout: Any) -> Dropout:
    """Drop-out by visit, of all subjects or by the levels of a factor of the fixed effects.

    Errors: `SpecificationError` for levels that are none, and shares that are none or fall.
    """
    residual, design = fit.design.residual, fit.design
    if residual is None or residual.visit is None:
        raise SpecificationError("drop-out is by visit, and the model has none", "dropout", "give a residual structure over visits")
    m, N = len(residual.visit_levels), residual.subject.size
    shares = dropout if hasattr(dropout, "keys") else {None: dropout}
    table = {str(key): np.asarray(values, dtype=np.float64) for key, values in shares.items()}
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
    return Dropout(residual.subject.codes.astype(float), residual.visit.astype(float), np.stack([table[label] for label in labels]))


def _one_by_one(
    fit: Estimates, test: PowerTest, alpha: float, nsim: int, df: str, seed: Any, dropout: Any
) -> tuple[Array, Array, int, int]:
    """Fits one after the other, for methods and tests that are not laid out side by side."""
    Y = simulate_responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, seed.spawn(nsim))
    rejected, estimates, singular, failed = [], [], 0, 0
    model: Any = fit.model
    lost = None if dropout is None else read_dropout(fit, dropout)
    rng = np.random.default_rng(seed.spawn(1)[0])
    for y in Y.T:
        try:
            other = model.with_response(y) if lost is None else _observed_model(fit, y, lost.kept(rng))
            own = other.fit(fit.method)
            effects = fixed_effects(own, df, None, "expected")  # type: ignore[arg-type]
            if len(test.L) > 1:
                rejected.append(effects.joint(test.L, test.rhs).p_value < alpha)
                estimates.append(0.0)
            else:
                t = effects.t(test.L)
                one = FunctionTests(t.estimate[None], t.std_error[None], t.df[None])
                rejected.append(bool(test.rejects(one, alpha)[0]))
                estimates.append(float(t.estimate[0]))
            singular += int(own.singular)
        except BayesLMMError:
            failed += 1
    return np.array(rejected, float), np.array(estimates), singular, failed


def _observed_model(fit: Estimates, y: Array, kept: Any) -> Any:
    """The model of the rows that are left of a simulated trial, whose outcome is a column of its own: the response may be a function."""
    model: Any = fit.model
    frame = as_pandas(model.data).iloc[fit.design.rows]
    name = "simulated"
    while name in frame:
        name += "_"
    return model.updated(f"{name} ~ .", frame.assign(**{name: y})[kept], {})
