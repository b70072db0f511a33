"""Whether intervals and tests hold their level in a fit's own design: data simulated from the fit, refitted and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, Mask, seed_sequence, unspent
from bayeslmm._validation import require_count, require_names, require_one_of
from bayeslmm.errors import BayesLMMError, SpecificationError, printable_text
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.fixed_effects.tests import fixed_effects
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.means.anova import make_hypotheses
from bayeslmm.inference.tidy import confint
from bayeslmm.likelihood.structured.residual_covariance import visit_covariances
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import simulate_responses
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.predict import two_sided_quantile
from bayeslmm.study_design.power import read_test
from bayeslmm.study_design.simulated_trials import SimulatedFits, batchable, simulate_fits, singular_fits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.reports.page import Page

SIDE_BY_SIDE = {"wald": "asymptotic", "satterthwaite": "satterthwaite", "residual": "residual"}
ONE_BY_ONE = ("kenward-roger", "sandwich", "profile", "bootstrap")
TEST_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "wald": ("asymptotic", None),
    "residual": ("residual", None),
    "satterthwaite": ("satterthwaite", None),
    "kenward-roger": ("kenward-roger", None),
    "sandwich": ("satterthwaite", "CR2"),
}
"""Degrees of freedom and covariance of the methods that test."""

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
    terms : DataFrame
        `method, term, df, size, conf_low, conf_high, n`: of the F tests of terms that have several degrees of freedom, the share that
        rejects the true values. A few hundred data sets at most.
    """

    frame: pd.DataFrame
    variances: pd.DataFrame
    singular: float
    failed: float
    n: int
    conf_level: float
    covered: Mapping[str, Array]
    terms: pd.DataFrame = field(default_factory=pd.DataFrame)

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
        from bayeslmm.study_design.figures import coverage_figure

        return coverage_figure(self.frame, self.conf_level, ax)

    def __repr__(self) -> str:
        terms = f"\n\n{self.terms.round(4).to_string(index=False)}" if len(self.terms) else ""
        return printable_text(f"{self.advice}\n{self.frame.round(4).to_string(index=False)}{terms}")


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
    from bayeslmm.study_design.figures import coverage_figure

    section = page.section("Can inference be trusted in this design?")
    section.text(f"{check.n:,} data sets were simulated from the fit on its own design, and fitted again.")
    section.text(check.advice)
    height = 1.4 + 0.35 * check.frame["term"].nunique()
    section.figure(
        draw_figure(lambda ax: coverage_figure(check.frame, check.conf_level, ax), 7.2, height),
        f"Coverage of intervals of {100 * check.conf_level:g} %, with the Monte Carlo limits of the coverage.",
    )
    section.table(check.frame, "Coverage of intervals, and size of tests of the true value.")
    if len(check.terms):
        section.table(check.terms, "Size of the F tests of terms with several degrees of freedom.")
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
        if not base.settled.any():
            raise _without_fits(methods)
    slow = [m for m in methods if base is None or m not in SIDE_BY_SIDE]
    terms = _terms_of_several(fit) if TEST_OPTIONS.keys() & set(methods) else {}
    singly = _one_by_one(fit, slow, methods, terms, min(n, SLOW), unspent(seeds), n, conf_level) if slow or terms else None
    covered = {} if singly is None else singly.covered
    for method in methods:
        if base is not None and method in SIDE_BY_SIDE:
            df: Any = {"wald": np.inf, "residual": float(fit.nobs - p)}.get(method, base.tests.df)
            half = special.stdtrit(df, 0.5 + 0.5 * conf_level) * base.tests.std_error
            inside = np.where(np.isfinite(half), np.abs(base.tests.estimate - fit.fixef_kept) <= half, np.nan)
            covered[method] = np.where(base.settled[:, None], inside, np.nan)
        rows.append(_coverage(method, names, covered[method]))
    whole = pd.concat(rows, ignore_index=True)
    if base is not None:
        values, singular, settled = _parameters_side_by_side(fit, base), singular_fits(fit, base.x[base.settled]), base.settled
    else:
        assert singly is not None
        values, singular, settled = singly.parameters[singly.fitted], singly.singular[singly.fitted], singly.fitted
    sizes = [] if singly is None else [_sizes(method, terms, found, 1.0 - conf_level) for method, found in singly.p_values.items()]
    return InferenceCheck(
        whole,
        _bias(fit, values),
        float(singular.mean()),
        1.0 - float(settled.mean()),
        n,
        conf_level,
        {method: covered[method] for method in methods},
        pd.concat(sizes, ignore_index=True) if sizes else pd.DataFrame(),
    )


def _without_fits(methods: Sequence[str]) -> SpecificationError:
    remedy = "use other methods, or a design with more levels or fewer parameters"
    return SpecificationError("no simulated data set could be fitted by these methods", ", ".join(methods), remedy)


def _terms_of_several(fit: Estimates) -> dict[str, Array]:
    """Term -> L (q, p) of its test, for terms of several degrees of freedom."""
    found = {}
    for name in (effect.name for effect in make_hypotheses(fit).tested):
        if name not in fit.design.coef_names and len(L := read_test(fit, name, "two-sided", 0.0, None).L) > 1:
            found[name] = L
    return found


def _sizes(method: str, terms: Mapping[str, Array], p_values: Array, alpha: float) -> pd.DataFrame:
    known = np.isfinite(p_values).all(axis=1)
    count, hits = int(known.sum()), (p_values[known] < alpha).sum(axis=0, dtype=np.float64)
    low, high = _exact_limits(hits, count)
    df = [len(L) for L in terms.values()]
    size = hits / count if count else np.full(len(df), np.nan)
    return pd.DataFrame({"method": method, "term": list(terms), "df": df, "size": size, "conf_low": low, "conf_high": high, "n": count})


def _exact_limits(hits: Array, count: int) -> tuple[Array, Array]:
    """Clopper and Pearson's 95 % limits of shares."""
    low = np.where(hits > 0, special.betaincinv(hits, count - hits + 1.0, 0.025), 0.0)
    return low, np.where(hits < count, special.betaincinv(hits + 1.0, count - hits, 0.975), 1.0)


def _coverage(method: str, names: list[str], covered: Array) -> pd.DataFrame:
    inside = covered[np.isfinite(covered).all(axis=1)]
    count, hits = len(inside), inside.sum(axis=0)
    low, high = _exact_limits(hits, count)
    share = hits / count
    return pd.DataFrame(
        {"method": method, "term": names, "coverage": share, "conf_low": low, "conf_high": high, "size": 1.0 - share, "n": count}
    )


@dataclass(frozen=True, slots=True, eq=False)
class _SingleRefits:
    """What fits one after the other tell, NaN where one failed.

    covered : by method (n, p); p_values : by method (n, terms) of the true values; parameters : (n, k) variances
    fitted, singular : (n,)
    """

    covered: dict[str, Array]
    p_values: dict[str, Array]
    parameters: Array
    fitted: Mask
    singular: Mask


def _one_by_one(
    fit: Estimates,
    slow: Sequence[str],
    methods: Sequence[str],
    terms: Mapping[str, Array],
    n: int,
    seeds: np.random.SeedSequence,
    whole: int,
    level: float,
) -> _SingleRefits:
    """Intervals of slow methods, F tests of terms by all methods that test: in the first n of `whole` data sets."""
    Y = simulate_responses(fit.problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, seeds.spawn(whole)[:n])
    resamples: list[int] = seeds.spawn(1)[0].generate_state(n, np.uint64).tolist()
    p, tested = len(fit.fixef_kept), [method for method in methods if method in TEST_OPTIONS] if terms else []
    covered = {method: np.full((n, p), np.nan) for method in slow}
    p_values = {method: np.full((n, len(terms)), np.nan) for method in tested}
    parameters = np.full((n, len(_parameters(fit))), np.nan)
    fitted, singular = np.zeros(n, bool), np.zeros(n, bool)

    def limits(own: Any, method: str, seed: int) -> tuple[Array, Array]:
        if method not in TEST_OPTIONS:
            return _profile_limits(own, level) if method == "profile" else _bootstrap_limits(own, level, seed)
        df, vcov = TEST_OPTIONS[method]
        return fixed_effects(own, df, vcov, "expected").t(np.eye(p)).limits(level)

    def tests(own: Any, method: str) -> list[float]:
        effects = fixed_effects(own, *TEST_OPTIONS[method], "expected")
        return [effects.joint(L, L @ fit.fixef_kept).p_value for L in terms.values()]

    for b, y in enumerate(Y.T):
        try:
            own = require_finished(fit.model.with_response(y).fit(fit.method))
            inside = {method: limits(own, method, resamples[b]) for method in slow}
            found = {method: tests(own, method) for method in tested}
        except BayesLMMError:
            continue
        for method, (low, high) in inside.items():
            covered[method][b] = (low <= fit.fixef_kept) & (fit.fixef_kept <= high)
        for method, values in found.items():
            p_values[method][b] = values
        fitted[b], singular[b], parameters[b] = True, own.singular, list(_parameters(own).values())
    if not fitted.any():
        raise _without_fits(methods)
    return _SingleRefits(covered, p_values, parameters, fitted, singular)


def _profile_limits(own: Any, level: float) -> tuple[Array, Array]:
    names = [own.design.coef_names[i] for i in own.design.kept]
    table = confint(own, "profile", level, terms=names).set_index("term").loc[names]
    return table["conf_low"].to_numpy(float), table["conf_high"].to_numpy(float)


def _bootstrap_limits(own: Any, level: float, seed: int) -> tuple[Array, Array]:
    replicates = bootstrap(own, 200, seed)
    if replicates.interrupted:
        raise KeyboardInterrupt
    table = replicates.confint(level).set_index("term").loc[[own.design.coef_names[i] for i in own.design.kept]]
    return table["conf_low"].to_numpy(float), table["conf_high"].to_numpy(float)


def _parameters(fit: Estimates) -> dict[str, float]:
    """The variances of a fit by their names."""
    R = visit_covariances(fit.problem, fit.estimate.x, fit._sigma)
    return dict(zip(_parameter_names(fit, R), _flat(fit.covariances, R, fit._sigma**2), strict=True))


def _parameter_names(fit: Estimates, R: Array | None) -> list[str]:
    names = [f"{name} | {term.group.name}" for term in fit.design.terms for name in term.columns]
    if R is None:
        return [*names, "Residual"]
    residual = fit.design.residual
    assert residual is not None
    groups = [""] if len(R) == 1 or residual.group is None else [f" | {level}" for level in residual.group.levels]
    return [*names, *(f"R[{label}]{group}" for group in groups for label in residual.visit_levels)]


def _flat(covariances: Sequence[Array], R: Array | None, residual: float) -> list[float]:
    diagonals = [np.diagonal(D) for D in covariances]
    own = [residual] if R is None else np.diagonal(R, axis1=1, axis2=2).ravel()
    return [float(v) for v in np.concatenate([*diagonals, own])]


def _parameters_side_by_side(fit: Estimates, base: SimulatedFits) -> Array:
    """(B, k) the variances of the refits that settled."""
    rows = []
    for x, s2 in zip(base.x[base.settled], base.sigma2[base.settled], strict=True):
        scale = fit.problem.sigma2(float(s2))
        R = visit_covariances(fit.problem, x, float(np.sqrt(scale)))
        rows.append(_flat([scale * D for D in fit.problem.relative_covariances(x)], R, scale))
    return np.array(rows).reshape(len(rows), len(_parameters(fit)))


def _bias(fit: Estimates, values: Array) -> pd.DataFrame:
    """The bias of the variances."""
    true = _parameters(fit)
    frame = pd.DataFrame({"parameter": list(true), "true": list(true.values()), "mean": values.mean(axis=0)})
    return frame.assign(bias=frame["mean"] / frame["true"] - 1.0)
