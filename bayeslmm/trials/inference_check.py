"""Whether intervals and tests hold their level in a fit's own design: data simulated from the fit, refitted and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, seed_sequence, unspent
from bayeslmm._validation import require_count, require_names, require_one_of
from bayeslmm.errors import BayesLMMError, SpecificationError, printable_text
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.fixed_effects.tests import fixed_effects
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.tidy import confint
from bayeslmm.likelihood.structured.residual_covariance import visit_covariances
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import simulate_responses
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.predict import two_sided_quantile
from bayeslmm.trials.power import SimulatedFits, batchable, simulate_fits, singular_fits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.reports.page import Page

SIDE_BY_SIDE = {"wald": "asymptotic", "satterthwaite": "satterthwaite", "residual": "residual"}
ONE_BY_ONE = ("kenward-roger", "sandwich", "profile", "bootstrap")
SLOW = 200
"""Simulated data sets of methods that are run one after the other."""

PREFERENCE = ("satterthwaite", "kenward-roger", "profile", "bootstrap", "sandwich", "residual", "wald")
"""Order of methods that a simulation does not tell apart: the package's own first, then by what they take account of."""

SURE = 0.05
"""Chance that some method of equal coverage is taken for another, or off its level, over all coefficients."""


@dataclass(frozen=True, slots=True, eq=False)
class InferenceCheck:
    """Coverage and size by method and coefficient, bias of variances, and what follows.

    Examples take `check = fit.check_inference(50, seed=1)`.

    Attributes
    ----------
    frame : DataFrame
        `method, term, coverage, conf_low, conf_high, size, n`; size is the share of tests of the true value that reject.
    variances : DataFrame
        `parameter, true, mean, bias`, bias relative to the true value.
    singular : float
        Shares of the refits.
    failed : float
        Shares of the refits.
    covered : dict of str to ndarray
        By method, whether each data set's interval of each coefficient holds the true value; NaN where a refit failed. Row by row the data
        sets are the same for all methods.
    """

    frame: pd.DataFrame
    variances: pd.DataFrame
    singular: float
    failed: float
    n: int
    conf_level: float
    covered: Mapping[str, Array]

    @property
    def alike(self) -> tuple[str, ...]:
        """The method whose coverage is nearest to its level, and those that this simulation does not tell apart from it.

        Methods are compared in the same data sets: what counts is in how many of them one interval holds the true value and the other
        does not (McNemar), over all coefficients at once.

        >>> set(check.alike) <= set(check.frame["method"])
        True
        """
        gaps = {method: _gaps(inside, self.conf_level) for method, inside in self.covered.items()}
        best = min(sorted(gaps, key=PREFERENCE.index), key=lambda method: float(gaps[method].max()))
        same = [m for m in gaps if m == best or not _is_worse(self.covered[m], self.covered[best], self.conf_level)]
        return tuple(sorted(same, key=PREFERENCE.index))

    @property
    def advice(self) -> str:
        """One sentence: which method to use here, and how far it can be trusted.

        >>> check.advice.startswith("Use")
        True
        """
        chosen = self.alike
        own = self.frame[self.frame["method"].isin(chosen)]
        low, high = own["coverage"].min(), own["coverage"].max()
        limit = float(special.ndtri(1.0 - 0.5 * SURE / len(own)))
        errors = np.sqrt(self.conf_level * (1.0 - self.conf_level) / own["n"])
        off = (own["coverage"] - self.conf_level).abs()
        fine = bool((off <= limit * errors).all())
        level = f"{100 * self.conf_level:g}%"
        sure = "within the error of this simulation" if fine else f"off the level of {level} by up to {off.max():.1%}"
        tail = f"; {self.singular:.0%} of the refits were singular" if self.singular > 0.01 else ""
        if len(chosen) == 1:
            return f"Use {chosen[0]}: its intervals cover {low:.1%} to {high:.1%} in this design, {sure}{tail}."
        names = f"{', '.join(chosen[:-1])} or {chosen[-1]}"
        return f"Use {names}, not distinguishable here: their intervals cover {low:.1%} to {high:.1%} in this design, {sure}{tail}."

    def plot(self, ax: Axes | None = None) -> Axes:
        """Coverage of every method and coefficient with its Monte Carlo limits.

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
        >>> axes = check.plot()
        """
        from bayeslmm.trials.report import coverage_figure

        return coverage_figure(self.frame, self.conf_level, ax)

    def __repr__(self) -> str:
        return printable_text(f"{self.advice}\n{self.frame.round(4).to_string(index=False)}")


known_arguments(InferenceCheck)


def _gaps(inside: Array, level: float) -> Array:
    """(p,) how far coverage is from its level."""
    return np.asarray(np.abs(np.nanmean(inside, axis=0) - level))


def _is_worse(inside: Array, best: Array, level: float) -> bool:
    """Whether a method is farther from its level than another by more than the error of a simulation, in some coefficient."""
    shared = min(len(inside), len(best))
    both = np.isfinite(inside[:shared]).all(axis=1) & np.isfinite(best[:shared]).all(axis=1)
    one, other = inside[:shared][both], best[:shared][both]
    more, less = ((one > other).sum(axis=0), (one < other).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(more - less) / np.sqrt(more + less)
    sure = z > special.ndtri(1.0 - 0.5 * SURE / one.shape[1])
    return bool((sure & (_gaps(one, level) > _gaps(other, level))).any())


def add_inference_check(page: Page, check: InferenceCheck) -> None:
    """The section of a check of inference: the advice, coverage and size by method, bias of the variances."""
    from bayeslmm.reports.page import draw_figure
    from bayeslmm.trials.report import coverage_figure

    section = page.section("Can inference be trusted in this design?")
    section.text(f"{check.n:,} data sets were simulated from the fit on its own design, and fitted again.")
    section.text(check.advice)
    height = 1.4 + 0.35 * check.frame["term"].nunique()
    section.figure(
        draw_figure(lambda ax: coverage_figure(check.frame, check.conf_level, ax), 7.2, height),
        f"Coverage of intervals of {100 * check.conf_level:g} %, with the Monte Carlo limits of the coverage.",
    )
    section.table(check.frame, "Coverage of intervals, and size of tests of the true value.")
    if len(check.variances):
        section.table(check.variances, "Variances: the true ones, the means of their estimates, and the relative bias.")
    section.text(f"Singular refits: {check.singular:.1%}; failed: {check.failed:.1%}.", "note")


def check_inference(fit: Estimates, n: int, seed: int | None, methods: Sequence[str], conf_level: float) -> InferenceCheck:
    """`Fit.check_inference`."""
    n = require_count(n, "n")
    two_sided_quantile(conf_level)
    methods = require_names(methods, "methods")
    for method in methods:
        require_one_of(method, (*SIDE_BY_SIDE, *ONE_BY_ONE), "methods")
    p = len(fit.fixef_kept)
    names = [fit.design.coef_names[i] for i in fit.design.kept]
    seeds = seed_sequence(seed)
    rows: list[pd.DataFrame] = []
    base: SimulatedFits | None = None
    together = batchable(fit, "satterthwaite")
    if together:
        base = simulate_fits(fit, np.eye(p), n, unspent(seeds), "satterthwaite" if "satterthwaite" in methods else "asymptotic")
    slow = [m for m in methods if base is None or m not in SIDE_BY_SIDE]
    covered = _one_by_one(fit, slow, min(n, SLOW), unspent(seeds), n, conf_level) if slow else {}
    for method in methods:
        if base is not None and method in SIDE_BY_SIDE:
            df: Any = {"wald": np.inf, "residual": float(fit.nobs - p)}.get(method, base.tests.df)
            half = special.stdtrit(df, 0.5 + 0.5 * conf_level) * base.tests.std_error
            inside = np.where(np.isfinite(half), np.abs(base.tests.estimate - fit.fixef_kept) <= half, np.nan)
            covered[method] = np.where(base.settled[:, None], inside, np.nan)
        rows.append(_coverage(method, names, covered[method]))
    singular, failed, variances = _spread(fit, base)
    return InferenceCheck(pd.concat(rows, ignore_index=True), variances, singular, failed, n, conf_level, covered)


def _coverage(method: str, names: list[str], covered: Array) -> pd.DataFrame:
    inside = covered[np.isfinite(covered).all(axis=1)]
    count, hits = len(inside), inside.sum(axis=0)
    low = np.where(hits > 0, special.betaincinv(hits, count - hits + 1.0, 0.025), 0.0)
    high = np.where(hits < count, special.betaincinv(hits + 1.0, count - hits, 0.975), 1.0)
    share = hits / count
    return pd.DataFrame(
        {"method": method, "term": names, "coverage": share, "conf_low": low, "conf_high": high, "size": 1.0 - share, "n": count}
    )


def _one_by_one(
    fit: Estimates, methods: Sequence[str], n: int, seeds: np.random.SeedSequence, whole: int, level: float
) -> dict[str, Array]:
    """Whether each interval covers, (n, p) by method, NaN where a refit failed: in the first n of `whole` data sets."""
    Y = simulate_responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, seeds.spawn(whole)[:n])
    ways: dict[str, Callable[[Any], tuple[Array, Array]]] = {
        "wald": lambda own: fixed_effects(own, "asymptotic", None, "expected").t(np.eye(len(own.fixef_kept))).limits(level),
        "residual": lambda own: fixed_effects(own, "residual", None, "expected").t(np.eye(len(own.fixef_kept))).limits(level),
        "satterthwaite": lambda own: fixed_effects(own, "satterthwaite", None, "expected").t(np.eye(len(own.fixef_kept))).limits(level),
        "kenward-roger": lambda own: fixed_effects(own, "kenward-roger", None, "expected").t(np.eye(len(own.fixef_kept))).limits(level),
        "sandwich": lambda own: fixed_effects(own, "satterthwaite", "CR2", "expected").t(np.eye(len(own.fixef_kept))).limits(level),
        "profile": lambda own: _profile_limits(own, level),
        "bootstrap": lambda own: _bootstrap_limits(own, level),
    }
    found = {method: np.full((n, len(fit.fixef_kept)), np.nan) for method in methods}
    for b, y in enumerate(Y.T):
        try:
            own = require_finished(fit.model.with_response(y).fit(fit.method))
            limits = {method: ways[method](own) for method in methods}
        except BayesLMMError:
            continue
        for method, (low, high) in limits.items():
            found[method][b] = (low <= fit.fixef_kept) & (fit.fixef_kept <= high)
    if not all(np.isfinite(inside).any() for inside in found.values()):
        raise SpecificationError("no simulated data set could be fitted by these methods", ", ".join(methods), "use other methods")
    return found


def _profile_limits(own: Any, level: float) -> tuple[Array, Array]:
    names = [own.design.coef_names[i] for i in own.design.kept]
    table = confint(own, "profile", level, terms=names).set_index("term").loc[names]
    return table["conf_low"].to_numpy(float), table["conf_high"].to_numpy(float)


def _bootstrap_limits(own: Any, level: float) -> tuple[Array, Array]:
    replicates = bootstrap(own, 200, 1)
    if replicates.interrupted:
        raise KeyboardInterrupt
    table = replicates.confint(level).set_index("term").loc[[own.design.coef_names[i] for i in own.design.kept]]
    return table["conf_low"].to_numpy(float), table["conf_high"].to_numpy(float)


def _spread(fit: Estimates, base: SimulatedFits | None) -> tuple[float, float, pd.DataFrame]:
    """Shares of singular and failed refits, and the bias of the variances."""
    if base is None:
        return float("nan"), float("nan"), pd.DataFrame(columns=["parameter", "true", "mean", "bias"])
    x, s2 = base.x[base.settled], base.sigma2[base.settled]
    scale = np.array([fit.problem.sigma2(float(v)) for v in s2])
    rows: list[tuple[str, float, float]] = []
    draws = [fit.problem.relative_covariances(row) for row in x]
    for i, (term, true) in enumerate(zip(fit.design.terms, fit.covariances, strict=True)):
        found = np.mean([s * np.diagonal(own[i]) for s, own in zip(scale, draws, strict=True)], axis=0)
        rows += [
            (f"{name} | {term.group.name}", float(t), float(f)) for name, t, f in zip(term.columns, np.diagonal(true), found, strict=True)
        ]
    R = visit_covariances(fit.problem, fit.estimate.x, fit._sigma)
    if R is None:
        rows.append(("Residual", fit._sigma**2, float(scale.mean())))
    else:
        each = [visit_covariances(fit.problem, row, float(np.sqrt(s))) for row, s in zip(x, scale, strict=True)]
        mean = np.mean([own for own in each if own is not None], axis=0)
        for g in range(len(R)):
            labels = fit.design.residual.visit_levels if fit.design.residual is not None else ()
            rows += [(f"R[{label}]", float(R[g, j, j]), float(mean[g, j, j])) for j, label in enumerate(labels)]
    frame = pd.DataFrame(rows, columns=["parameter", "true", "mean"])
    return float(singular_fits(fit, x).mean()), 1.0 - float(base.settled.mean()), frame.assign(bias=frame["mean"] / frame["true"] - 1.0)
