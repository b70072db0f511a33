"""The bootstrap: standard errors, intervals and failures of a fit's replicates; the jackknife behind the BCa limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from bayeslmm._arrays import Array, seed_sequence
from bayeslmm._types import BootstrapInterval, BootstrapKind
from bayeslmm._validation import (
    STREAM_NUMBERS,
    find_word,
    require_count,
    require_flag,
    require_function,
    require_level,
    require_memory,
    require_one_of,
    require_workers,
)
from bayeslmm.errors import BayesLMMWarning, InferenceError, SpecificationError, show_value, warn_user
from bayeslmm.estimate.estimate import require_finished, require_outcome
from bayeslmm.inference.influence import case_deletions, require_likelihood
from bayeslmm.inference.intervals.parameters import parameter_names, parameter_values
from bayeslmm.inference.intervals.replicates import (
    CaseResampler,
    ParametricResampler,
    Replicates,
    Statistic,
    replicate_values,
    standardize_alpha,
    statistic_values,
    with_design,
)
from bayeslmm.inference.intervals.resampling import resampling_factor, without
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.render import html_of_frame, progress_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import AxesLike


def jackknife(fit: Estimates, group: str | None, statistic: Statistic | None, names: Sequence[str]) -> Array:
    """All parameters, or a statistic, without each level of the top grouping factor (each row, without groups); (K, values)."""
    try:
        factor = resampling_factor(fit.design, group)
    except InferenceError:
        # crossed factors under a parametric bootstrap: the one with the fewest levels stands for independent parts of the data
        factor = min((term.group for term in fit.design.terms), key=lambda g: g.size)
    if statistic is None:
        return np.array([deletion.parameters for deletion in case_deletions(fit, factor, refit=True)])
    codes = np.arange(fit.nobs) if factor is None else factor.codes
    found = []
    for level in range(int(codes.max()) + 1):
        model = with_design(fit.model, without(fit.design, codes == level))
        found.append(replicate_values(statistic, require_finished(model.fit(fit.method)), names))
    return np.array(found)


REPLICATES_AT_ONCE = 250
"""Replicates between two looks at the clock and the keyboard."""


@dataclass(eq=False)
class Bootstrap:
    """Replicates of a bootstrap.

    Attributes
    ----------
    frame : DataFrame
        One row per replicate that succeeded, one column per parameter (named as `confint` names them) or value of the statistic; the index
        is the replicate's number, and replicate i is the same for any `n` and any number of workers.
    estimate : Series
        The same values of the fit itself.
    failures : dict of int to str
        Replicate -> why its fit failed.
    interrupted : bool
        Ctrl-C ended it early.
    """

    fit: Estimates
    kind: str
    group: str | None
    statistic: Statistic | None
    frame: pd.DataFrame
    estimate: pd.Series[float]
    failures: dict[int, str]
    interrupted: bool

    @property
    def n_failed(self) -> int:
        """How many refits failed; they are not in `frame`."""
        return len(self.failures)

    def summary(self) -> pd.DataFrame:
        """`term, estimate, bias, std_error`.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> fit.bootstrap(20, seed=1).summary().columns.tolist()
        ['term', 'estimate', 'bias', 'std_error']
        """
        values = self.frame.to_numpy()
        return pd.DataFrame(
            {
                "term": self.frame.columns,
                "estimate": self.estimate.to_numpy(),
                "bias": _of_numbers(np.mean, values, 1) - self.estimate.to_numpy(),
                "std_error": _of_numbers(partial(np.std, ddof=1), values, 2),
            }
        )

    def tidy(self, conf_int: bool = False, conf_level: float = 0.95, interval: BootstrapInterval = "percentile") -> pd.DataFrame:
        """One row per parameter: `term, estimate, bias, std_error[, conf_low, conf_high]`.

        Parameters
        ----------
        conf_int : bool, default False
            Whether to give limits.
        conf_level : float, default 0.95
            Level of the limits, between 0 and 1.
        interval : {"percentile", "basic", "bca"}, default "percentile"
            Kind of limits.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> fit.bootstrap(50, seed=1).tidy(conf_int=True).columns.tolist()
        ['term', 'estimate', 'bias', 'std_error', 'conf_low', 'conf_high']
        """
        table, conf_level = self.summary(), require_level(conf_level)
        interval = find_word(interval, get_args(BootstrapInterval), "interval")
        if not require_flag(conf_int, "conf_int"):
            return table
        limits = self.confint(conf_level, interval)
        return table.assign(conf_low=limits["conf_low"], conf_high=limits["conf_high"])

    def confint(self, level: float = 0.95, interval: BootstrapInterval = "percentile", *, conf_level: float | None = None) -> pd.DataFrame:
        """Limits: `term, conf_low, conf_high`.

        Parameters
        ----------
        level : float, default 0.95
            Level of the limits, between 0 and 1.
        interval : {"percentile", "basic", "bca"}, default "percentile"
            "percentile"; "basic", the percentiles mirrored at the estimate; "bca", percentiles shifted for bias and for the change of the
            standard error with the parameter (the acceleration is a jackknife over the groups).
        conf_level : float, optional
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> fit.bootstrap(50, seed=1).confint(0.9, "basic").columns.tolist()
        ['term', 'conf_low', 'conf_high']
        """
        interval = find_word(interval, get_args(BootstrapInterval), "interval")
        level = require_level(level, "level") if conf_level is None else require_level(conf_level)
        tails = np.array([0.5 * (1.0 - level), 0.5 * (1.0 + level)])
        values, center = self.frame.to_numpy(), self.estimate.to_numpy()
        if len(values) < 2:
            raise InferenceError(f"there are {len(values)} replicates", "bootstrap", "draw more: 1000 for limits")
        shares = self._shift_quantile(tails) if interval == "bca" else np.tile(tails, (values.shape[1], 1))
        limits = np.array([_quantiles(column, own) for column, own in zip(values.T, shares, strict=True)])
        self._warn_of_ends(level, shares)
        if interval == "basic":
            limits = _within_range(list(self.frame.columns), 2.0 * center[:, None] - limits[:, ::-1])
        return pd.DataFrame({"term": self.frame.columns, "conf_low": limits[:, 0], "conf_high": limits[:, 1]})

    def _warn_of_ends(self, level: float, shares: Array) -> None:
        """Warn where a limit lies beyond the outermost replicate: the k-th of n stands for the share k / (n + 1)."""
        count = np.isfinite(self.frame.to_numpy()).sum(axis=0)
        place = np.minimum(shares, 1.0 - shares).min(axis=1) * (count + 1.0)
        beyond = (place < 1.0 - 1e-9) & (count > 1)
        if beyond.any():
            names, need = list(self.frame.columns[beyond]), int(np.ceil(2.0 / (1.0 - level)))
            what = f"limits at {level:.15g} lie beyond the outermost of {int(count[beyond].min()):,} replicates, which stand in for them"
            where = ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
            warn_user(BayesLMMWarning(what, where, f"draw {max(need, 2 * len(self.frame)):,} replicates or more"))

    @cached_property
    def acceleration(self) -> Array:
        """a of BCa: a sixth of the skewness of the jackknife values, with their sign."""
        require_outcome(self.fit, 'interval="bca"')
        values = jackknife(self.fit, self.group, self.statistic, list(self.frame.columns))
        gap = np.nanmean(values, axis=0) - values
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.nansum(gap**3, axis=0) / (6.0 * np.nansum(gap**2, axis=0) ** 1.5)
        return np.nan_to_num(found)

    def _shift_quantile(self, tails: Array) -> Array:
        values, center = self.frame.to_numpy(), self.estimate.to_numpy()
        below = np.nanmean(np.where(np.isnan(values), np.nan, (values < center) + 0.5 * (values == center)), axis=0)
        shift = ndtri(np.clip(below, 1.0 / len(values), 1.0 - 1.0 / len(values)))[:, None]
        z = shift + ndtri(tails)
        return np.asarray(ndtr(shift + z / (1.0 - self.acceleration[:, None] * z)))

    def plot(self, level: float = 0.95, ax: AxesLike = None) -> list[Axes]:
        """A histogram of the replicates of every parameter, with the estimate and percentile limits.

        Parameters
        ----------
        level : float, default 0.95
            Level of the limits, between 0 and 1.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.bootstrap(50, seed=1).plot()
        """
        from bayeslmm.plots.intervals import bootstrap_axes

        return bootstrap_axes(self, level, ax)

    def __repr__(self) -> str:
        failed = f", {self.n_failed} failed" if self.failures else ""
        return f"Bootstrap({self.kind}: {len(self.frame)} replicates{failed}{', interrupted' if self.interrupted else ''})"

    def _repr_html_(self) -> str:
        return html_of_frame(repr(self), self.confint())


known_arguments(Bootstrap)


def bootstrap(
    fit: Estimates,
    n: int = 1000,
    seed: int | None = None,
    *,
    kind: BootstrapKind = "parametric",
    group: str | None = None,
    statistic: Statistic | None = None,
    workers: int = 1,
    progress: bool | None = None,
) -> Bootstrap:
    """Refit to n simulated or resampled data sets.

    kind : "parametric", responses drawn from the fitted model; "case", levels of the top grouping factor drawn with replacement
    group : the factor to draw from under "case", where there is no single top one
    statistic : a function of a `Fit` that gives numbers (array, Series or dict); all parameters by default
    workers : threads that share the replicates; results do not depend on it
    progress : a bar on the terminal; by default where there is one

    Refits that fail are counted and kept apart; Ctrl-C keeps what is done, with a warning, or raises where nothing is.

    >>> boot = fit.bootstrap(100, seed=1)
    >>> len(boot.frame), boot.n_failed
    (100, 0)
    """
    n, workers = require_count(n, "n"), require_workers(workers)
    require_one_of(kind, get_args(BootstrapKind), "kind")
    if group is not None and kind == "parametric":
        what = f"group is {show_value(group)}, and a parametric bootstrap draws no groups"
        raise SpecificationError(what, "group", 'leave it out, or use kind="case"')
    require_likelihood(fit, "the bootstrap")
    if kind == "case":
        require_outcome(fit, 'bootstrap(kind="case")')
    center = reported_values(fit, statistic)
    names = list(center.index)
    require_memory("replicates", float(n) * (2 * len(names) + STREAM_NUMBERS), f"{n:,} replicates", "draw fewer: 10,000 are plenty")
    runner = ParametricResampler(fit, statistic, names) if kind == "parametric" else CaseResampler(fit, statistic, names, group)
    streams = seed_sequence(seed).spawn(n)
    batches, interrupted = _run(runner, streams, workers, progress)
    if interrupted:
        done = sum(len(batch.numbers) for batch in batches)
        if not done:
            raise KeyboardInterrupt
        what = f"interrupted after {done:,} of {n:,} replicates"
        warn_user(BayesLMMWarning(what, "bootstrap", "what follows is from these alone; draw again for the rest"))
    failures = {number: reason for batch in batches for number, reason in zip(batch.numbers, batch.reasons, strict=True) if reason}
    return Bootstrap(fit, kind, group, statistic, _frame(runner, batches), center, failures, interrupted)


def reported_values(fit: Estimates, statistic: Statistic | None) -> pd.Series[float]:
    """What a replicate reports, of the fit itself, by name."""
    if statistic is not None:
        found = statistic_values(require_function(statistic, "statistic"), fit)
        if not np.isfinite(found).all():
            what = f"the statistic of the fit itself is not finite: {found[~np.isfinite(found)].to_dict()!r:.60}"
            raise SpecificationError(what, "statistic", "return finite numbers: leave out what this fit has not")
        return found
    alpha = standardize_alpha(fit.problem, fit.fixef_kept)
    values = parameter_values(fit.problem, fit.estimate.x[None], np.array([fit.point.sigma2]), alpha[None])[0]
    return pd.Series(values, index=parameter_names(fit.problem), name="estimate")


def _run(
    runner: ParametricResampler | CaseResampler, streams: Sequence[np.random.SeedSequence], workers: int, progress: bool | None
) -> tuple[list[Replicates], bool]:
    """All batches, or those done before Ctrl-C."""
    size = min(REPLICATES_AT_ONCE, -(-len(streams) // workers))
    parts = [range(begin, min(begin + size, len(streams))) for begin in range(0, len(streams), size)]
    done: list[Replicates] = []

    def one(part: range) -> Replicates:
        return runner.run(list(part), [streams[i] for i in part])

    with progress_bar("bootstrap", len(streams), progress) as advance:
        try:
            if workers == 1:
                for part in parts:
                    done.append(one(part))
                    advance(len(part))
                return done, False
            with ThreadPoolExecutor(workers) as pool:
                try:
                    for batch in pool.map(one, parts):
                        done.append(batch)
                        advance(len(batch.numbers))
                except KeyboardInterrupt:
                    pool.shutdown(cancel_futures=True)
                    raise
        except KeyboardInterrupt:
            return done, True
    return done, False


def _frame(runner: ParametricResampler | CaseResampler, batches: Sequence[Replicates]) -> pd.DataFrame:
    """Replicates that succeeded."""
    numbers = [number for batch in batches for number in batch.numbers]
    values = np.concatenate([batch.values for batch in batches]) if batches else np.zeros((0, len(runner.names)))
    good = np.array([not reason for batch in batches for reason in batch.reasons], bool)
    return pd.DataFrame(values[good], index=pd.Index(np.array(numbers, int)[good], name="replicate"), columns=runner.names)


def _of_numbers(function: Callable[[Array], Any], values: Array, least: int) -> Array:
    """A function of the values of each column (n, k) that are no NaN; NaN where fewer than `least` are left."""
    known = [column[~np.isnan(column)] for column in values.T]
    return np.array([function(column) if len(column) >= least else np.nan for column in known])


def _quantiles(values: Array, shares: Array) -> Array:
    """Quantiles as `(n + 1) p`-th order statistics; NaN where nothing is left."""
    values = values[np.isfinite(values)]
    return np.quantile(values, np.clip(shares, 0.0, 1.0), method="weibull") if len(values) > 1 else np.full(len(shares), np.nan)


def _within_range(names: Sequence[str], limits: Array) -> Array:
    """Limits of standard deviations not below 0, of correlations within -1 and 1."""
    low = np.array([0.0 if name.startswith("sd__") else -1.0 if name.startswith("cor__") else -np.inf for name in names])
    high = np.array([1.0 if name.startswith("cor__") else np.inf for name in names])
    return np.clip(limits, low[:, None], high[:, None])
