"""Power and sample size of tests of the fixed effects: by simulation, many fits side by side, and analytically.

Analytically a test statistic is noncentral t or F with the expected information at the assumed parameters and the degrees of freedom of
the method; in balanced designs that is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, numbers_of, seed_sequence, unspent
from bayeslmm._types import Side
from bayeslmm._validation import require_count, require_name, require_number, require_one_of
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import BayesLMMError, InferenceError, SpecificationError, printable_text
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.fixed_effects.tests import Inference, check_options, fixed_effects
from bayeslmm.inference.intervals.batch_refit import (
    FunctionTests,
)
from bayeslmm.inference.intervals.batch_structured import poolable
from bayeslmm.inference.means.anova import make_hypotheses
from bayeslmm.inference.means.linear_functions import estimable_functions
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import as_pandas, simulate_responses
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.study_design.assumed import assumed_estimates
from bayeslmm.study_design.simulated_trials import (
    Dropout,
    SimulatedFits,
    batchable,
    model_of_trial,
    read_dropout,
    simulate_fits,
    singular_fits,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    """Power of tests over sizes of a design, or over sizes of an effect.

    Examples take `power = fit.power("Days", nsim=50, n=[6, 12], along="Subject", seed=1)`.

    Attributes
    ----------
    frame : DataFrame
        `n, power, conf_low, conf_high, nsim, failed, singular, estimate_bias`; before them `test` where several are asked for, and
        `effect` where it is.
    along : str
        What n counts; "effect" along an effect.
    """

    frame: pd.DataFrame
    test: str
    along: str
    alpha: float
    method: str

    def required(self, power: float = 0.9) -> int | float:
        """The smallest n, or along an effect the effect nearest to 0, whose power is at least this, of every test.

        Between the sizes tried the curve is one that does not fall.

        Parameters
        ----------
        power : float, default 0.9
            Power to be reached.

        Returns
        -------
        int or float
            The size; an effect is a float.

        Raises
        ------
        InferenceError
            Where no size tried has this power, and for effects on both sides of 0.

        Examples
        --------
        >>> curve.required(0.5) >= 6
        True
        """
        power = require_number(power, "power", above=0.0, below=1.0)
        own = [frame for _, frame in self.frame.groupby("test", sort=False)] if "test" in self.frame else [self.frame]
        found = max((self._required(frame, power) for frame in own), key=abs)
        return found if self.along == "effect" else int(np.ceil(found - 1e-9))

    def _required(self, frame: pd.DataFrame, power: float) -> float:
        """Of one test."""
        n = frame["effect" if self.along == "effect" else "n"].to_numpy(float)
        if n.min() < 0.0 < n.max():
            raise InferenceError("the effects tried lie on both sides of 0", "required", "try effects of one sign")
        order = np.argsort(np.abs(n), kind="stable")
        n, curve = n[order], np.maximum.accumulate(frame["power"].to_numpy(float)[order])
        if curve[-1] < power:
            what = f"no size tried has a power of {power:g}: {curve[-1]:.3f} at {n[-1]:g}"
            raise InferenceError(what, f"along {self.along}", "try larger sizes")
        at = int(np.argmax(curve >= power))
        if at == 0:
            return float(n[0])
        z = special.ndtri(np.clip(curve[at - 1 : at + 1], 1e-12, 1 - 1e-12))
        share = (special.ndtri(power) - z[0]) / (z[1] - z[0])
        return float(n[at - 1] + share * (n[at] - n[at - 1]))

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
        >>> axes = curve.plot()
        """
        from bayeslmm.study_design.figures import power_figure

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
    effect: Any = None,
) -> PowerCurve:
    """`Fit.power`."""
    require_one_of(method, ("simulation", "analytic"), "method")
    require_one_of(side, get_args(Side), "side")
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
    asked = list(test) if _are_several(test) else [test]
    effects = [None] if effect is None else read_effects(effect, sizes, asked)
    rows: list[dict[str, Any]] = []
    for size, value, stream in zip(
        sizes * len(effects), effects * len(sizes), seed_sequence(seed).spawn(len(sizes) * len(effects)), strict=True
    ):
        own = fit if n is None else extend_model(fit, factor, size)
        tests = [read_test(own, one, side, delta, equivalence) for one in asked]
        if value is not None:
            own = move_effect(own, tests[0], value)
        if method == "analytic":
            nothing = {"nsim": 0, "failed": 0, "singular": 0, "estimate_bias": 0.0}
            found = [{"power": analytic_power(own, one, alpha, df)} | nothing for one in tests]
        else:
            found = _simulate_power(own, tests, alpha, nsim, df, stream, dropout)
        known = {} if value is None else {"effect": value}
        rows += [{"test": one.label, "n": size} | known | row for one, row in zip(tests, found, strict=True)]
    frame = pd.DataFrame(rows)
    low, high = _limits(frame["power"].to_numpy(float), (frame["nsim"] - frame["failed"]).to_numpy(float))
    place = frame.columns.get_loc("power")
    assert isinstance(place, int)
    frame.insert(place + 1, "conf_low", low)
    frame.insert(place + 2, "conf_high", high)
    frame = frame.sort_values("test", key=lambda labels: labels.map([one.label for one in tests].index), kind="stable", ignore_index=True)
    title, along = ", ".join(one.label for one in tests), factor if effect is None else "effect"
    return PowerCurve(frame if len(asked) > 1 else frame.drop(columns="test"), title, along, float(alpha), method)


def _are_several(test: Any) -> bool:
    """Whether several tests are asked for: a list of names, equations or mappings."""
    return (
        isinstance(test, Sequence) and not isinstance(test, str) and all(isinstance(one, str | Mapping) for one in test) and len(test) > 0
    )


def read_effects(effect: Any, sizes: Sequence[int], tests: Sequence[Any]) -> list[float]:
    """True values of what is tested, in order, each once.

    Errors: `SpecificationError` where there are several tests or sizes, and for values that are no numbers.
    """
    if len(sizes) > 1 or len(tests) > 1:
        what = "effects go with one size" if len(sizes) > 1 else "an effect is that of one test"
        raise SpecificationError(what, "effect", "ask for one curve at a time")
    values = np.atleast_1d(numbers_of(effect, "effect", labelled=True))
    if isinstance(effect, bool) or values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise SpecificationError("effect names no finite values", "effect", "give a number, or a list of numbers")
    return [float(value) for value in np.unique(values)]


def move_effect(fit: Estimates, test: PowerTest, value: float) -> Estimates:
    """The same parameters, but for what is tested: the coefficients in it are moved, as little as may be.

    Errors: `InferenceError` for a term of several degrees of freedom, whose effect is no one number.
    """
    if len(test.L) > 1:
        what = f"term {test.label!r} has {len(test.L)} degrees of freedom, and no one effect"
        raise InferenceError(what, "effect", "name one contrast, or change coefficients by with_params(alpha=...)")
    row, alpha = test.L[0], fit.fixef_kept
    moved = alpha + row * (test.rhs[0] + value - row @ alpha) / (row @ row)
    return assumed_estimates(fit.model, moved, fit.theta, fit._sigma, fit.method)


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
    hypothesis = {test: 1.0} if isinstance(test, str) and test in names else test
    functions = estimable_functions(hypothesis, design, fit.problem.standardization)
    if len(functions.L) != 1:
        raise SpecificationError(f"{len(functions.L)} contrasts are given", "test", "give one contrast, or the name of a term")
    return PowerTest(functions.L, functions.rhs, str(test), side, float(delta), None if equivalence is None else float(equivalence))


# -- other sizes ---------------------------------------------------------------------------------------------------------------------------


def _drawn_factors(design: Design) -> list[GroupingFactor]:
    """The factors whose levels are drawn: of the random terms, then the subjects of the errors."""
    return [*(term.group for term in design.terms), *([] if design.residual is None else [design.residual.subject])]


def _drawn_names(fit: Estimates) -> list[str]:
    """Their names, each once."""
    return list(dict.fromkeys(group.name for group in _drawn_factors(fit.design)))


def _factor(fit: Estimates, along: str | None) -> str:
    names, covariates = _drawn_names(fit), list(fit.design.encoding.covariates)
    if along is None:
        return names[0] if names else "row"
    if require_name(along, "along") not in [*names, *covariates]:
        raise SpecificationError(
            f"along is {along!r}", "along", f"use a grouping factor or a covariate: {', '.join([*names, *covariates])}"
        )
    return along


def _levels(fit: Estimates, factor: str) -> int:
    for group in _drawn_factors(fit.design):
        if group.name == factor:
            return group.size
    return fit.nobs if factor == "row" else len(np.unique(as_pandas(fit.model.data)[factor].to_numpy(float)))  # type: ignore[attr-defined]


def extend_model(fit: Estimates, factor: str, n: int) -> Estimates:
    """The same parameters on a design of n levels of a factor, or n values of a covariate."""
    model: Any = fit.model
    if any(term.relationship is not None for term in fit.design.terms):
        raise SpecificationError("levels with a known relationship cannot be added", factor, "give a skeleton of the size wanted")
    frame = as_pandas(model.data)
    if factor not in frame.columns:
        raise SpecificationError(f"{factor!r} is no column of the data", "along", "name a factor that is one column")
    whole = _add_levels(frame, fit.design, factor, n) if factor in _drawn_names(fit) else _add_values(frame, factor, n)
    try:
        other = model.updated(None, whole, {})
        if len(other.design.kept) != len(fit.fixef_kept):
            what = f"a design of {n} levels of {factor} does not identify all coefficients"
            raise InferenceError(what, f"n={n}", "give a larger n, or order the skeleton so that its first levels cover all factors")
        if other.problem.size != fit.problem.size:
            what = f"the covariance over {n} values of {factor} has other parameters"
            raise InferenceError(what, f"n={n}", "use a structure whose parameters do not depend on the visits, or give a skeleton")
        return assumed_estimates(other, fit.fixef_kept, fit.theta, fit._sigma, fit.method)
    except BayesLMMError as error:
        raise InferenceError(f"a design of {n} levels of {factor} cannot be fitted: {error.what}", f"n={n}", "give a larger n") from error


def _add_levels(frame: pd.DataFrame, design: Design, factor: str, n: int) -> pd.DataFrame:
    """Rows of n levels of a factor: the first of the data, and copies of them in turn, whose own subjects and classes are new ones too."""
    labels = list(dict.fromkeys(frame[factor].tolist()))
    groups = dict(iter(frame.groupby(factor, observed=True, sort=False)))
    within = {column for group in _drawn_factors(design) for column in group.columns if column != factor}
    nested = [
        column
        for column in within - set(design.encoding.fixed_block.columns)
        if (frame.groupby(column, observed=True)[factor].nunique() == 1).all()
    ]
    made = []
    for i in range(n):
        label, copy = labels[i % len(labels)], i // len(labels) + 1
        own = groups[label]
        inner = {column: [f"{value}_{copy}" for value in own[column]] for column in nested}
        made.append(own.assign(**{factor: f"{label}_{copy}"}, **inner))
    return pd.concat(made, ignore_index=True)


def _add_values(frame: pd.DataFrame, covariate: str, n: int) -> pd.DataFrame:
    """Rows at n values of a covariate: the first of the data, and further ones at its last step, with all else as at the last."""
    if not pd.api.types.is_numeric_dtype(frame[covariate]):
        what = f"{covariate!r} is a factor: every level has coefficients of its own"
        raise SpecificationError(what, "along", "write it as numbers, or give a skeleton of each size")
    values = np.unique(frame[covariate].to_numpy(float))
    kept = frame[frame[covariate].isin(values[:n])]
    step = values[-1] - values[-2] if len(values) > 1 else 1.0
    last = frame[frame[covariate] == values[-1]]
    more = [last.assign(**{covariate: values[-1] + step * (i + 1)}) for i in range(n - len(values))]
    whole: pd.DataFrame = pd.concat([kept, *more], ignore_index=True)
    return whole


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


def _simulate_power(
    fit: Estimates, tests: Sequence[PowerTest], alpha: float, nsim: int, df: str, seed: np.random.SeedSequence, dropout: Any
) -> list[dict[str, Any]]:
    """Of each test, all in the same simulated data sets."""
    lost = None if dropout is None else read_dropout(fit, dropout)
    side_by_side = batchable(fit, df) and (lost is None or poolable(fit.problem))
    together = [test for test in tests if len(test.L) == 1] if side_by_side else []
    found = simulate_fits(fit, np.concatenate([test.L for test in together]), nsim, unspent(seed), df, lost) if together else None
    return [
        _summarise_power(fit, test, nsim, _select_test(fit, found, k, test, alpha, df))
        if found is not None and (k := next((i for i, own in enumerate(together) if own is test), -1)) >= 0
        else _summarise_power(fit, test, nsim, _one_by_one(fit, test, alpha, nsim, df, unspent(seed), lost))
        for test in tests
    ]


def _select_test(fit: Estimates, found: SimulatedFits, k: int, test: PowerTest, alpha: float, df: str) -> tuple[Array, Array, int, int]:
    """Rejections and estimates of the k-th of several tests, and how many refits are singular and failed."""
    own = FunctionTests(found.tests.estimate[:, [k]], found.tests.std_error[:, [k]], found.tests.df[:, [k]])
    good = found.settled & np.isfinite(own.df[:, 0] + own.std_error[:, 0]) | (found.settled & (df == "asymptotic"))
    return test.rejects(own, alpha)[good], own.estimate[good, 0], int(singular_fits(fit, found.x[good]).sum()), int((~good).sum())


def _summarise_power(fit: Estimates, test: PowerTest, nsim: int, found: tuple[Array, Array, int, int]) -> dict[str, Any]:
    rejected, estimates, singular, failed = found
    if not len(rejected):
        raise InferenceError("no simulated data set could be fitted and tested", "power", "give a larger n, or simplify the model")
    bias = float(np.mean(estimates) - (test.L @ fit.fixef_kept)[0]) if len(test.L) == 1 else float("nan")
    return {"power": float(np.mean(rejected)), "nsim": nsim, "failed": failed, "singular": singular, "estimate_bias": bias}


def _one_by_one(
    fit: Estimates, test: PowerTest, alpha: float, nsim: int, df: str, seed: Any, dropout: Dropout | None
) -> tuple[Array, Array, int, int]:
    """Fits one after the other, for methods and tests that are not laid out side by side."""
    Y = simulate_responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, seed.spawn(nsim))
    rejected, estimates, singular, failed = [], [], 0, 0
    visits = None if dropout is None else dropout.draw_visits(np.random.default_rng(seed.spawn(1)[0]), nsim)
    for b, y in enumerate(Y.T):
        try:
            own = require_finished(model_of_trial(fit, y, dropout, visits, b).fit(fit.method))
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
