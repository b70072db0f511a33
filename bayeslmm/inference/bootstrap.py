"""The bootstrap: refits to responses drawn from the model, or to levels of the top grouping factor drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from bayeslmm.arrays import Array
from bayeslmm.errors import InferenceError
from bayeslmm.inference import doors
from bayeslmm.inference.deletions import demand_likelihood
from bayeslmm.inference.influence import jackknife
from bayeslmm.inference.profile import checked_level
from bayeslmm.inference.replicates import Batch, Cases, Parametric, Statistic, statistic_names, statistic_values
from bayeslmm.inference.tables import parameter_names, parameter_table
from bayeslmm.results.fit import Fit
from bayeslmm.results.html import html_of_frame
from bayeslmm.results.rows import demand_count, demand_one_of
from bayeslmm.seeds import seeded

BATCH = 250
"""Replicates between two looks at the clock and the keyboard."""


@dataclass(eq=False)
class Bootstrap:
    """Replicates of a bootstrap.

    frame : one row per replicate that succeeded, one column per parameter (named as `confint` names them) or value of the statistic;
        the index is the replicate's number, and replicate i is the same for any `n` and any number of workers
    estimate : the same values of the fit itself; failures : replicate -> why its fit failed; interrupted : Ctrl-C ended it early
    """

    fit: Fit
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

        >>> fit.bootstrap(20, seed=1).summary().columns.tolist()
        ['term', 'estimate', 'bias', 'std_error']
        """
        values = self.frame.to_numpy()
        return pd.DataFrame(
            {
                "term": self.frame.columns,
                "estimate": self.estimate.to_numpy(),
                "bias": np.nanmean(values, axis=0) - self.estimate.to_numpy(),
                "std_error": np.nanstd(values, axis=0, ddof=1),
            }
        )

    def confint(self, level: float = 0.95, interval: str = "percentile") -> pd.DataFrame:
        """Limits: `term, conf_low, conf_high`.

        interval : "percentile"; "basic", the percentiles mirrored at the estimate; "bca", percentiles shifted for bias and for the change
            of the standard error with the parameter (the acceleration is a jackknife over the groups)

        >>> fit.bootstrap(50, seed=1).confint(0.9, "basic").columns.tolist()
        ['term', 'conf_low', 'conf_high']
        """
        demand_one_of(interval, ("percentile", "basic", "bca"), "interval")
        tails = np.array([0.5 * (1.0 - checked_level(level)), 0.5 * (1.0 + level)])
        values, center = self.frame.to_numpy(), self.estimate.to_numpy()
        if len(values) < 2:
            raise InferenceError(f"there are {len(values)} replicates", "bootstrap", "draw more: 1000 for limits")
        shares = self._shifted(tails) if interval == "bca" else np.tile(tails, (values.shape[1], 1))
        limits = np.array([_quantiles(column, own) for column, own in zip(values.T, shares, strict=True)])
        if interval == "basic":
            limits = _within_range(list(self.frame.columns), 2.0 * center[:, None] - limits[:, ::-1])
        return pd.DataFrame({"term": self.frame.columns, "conf_low": limits[:, 0], "conf_high": limits[:, 1]})

    @cached_property
    def acceleration(self) -> Array:
        """a of BCa: a sixth of the skewness of the jackknife values, with their sign."""
        values = jackknife(self.fit, self.group, self.statistic)
        gap = np.nanmean(values, axis=0) - values
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.nansum(gap**3, axis=0) / (6.0 * np.nansum(gap**2, axis=0) ** 1.5)
        return np.nan_to_num(found)

    def _shifted(self, tails: Array) -> Array:
        values, center = self.frame.to_numpy(), self.estimate.to_numpy()
        below = np.nanmean(np.where(np.isnan(values), np.nan, (values < center) + 0.5 * (values == center)), axis=0)
        shift = ndtri(np.clip(below, 1.0 / len(values), 1.0 - 1.0 / len(values)))[:, None]
        z = shift + ndtri(tails)
        return np.asarray(ndtr(shift + z / (1.0 - self.acceleration[:, None] * z)))

    def plot(self, **options: Any) -> Any:
        """Histograms of the replicates with the estimate; see `bayeslmm.plots.bootstrap_axes`."""
        return doors.plot("bootstrap_axes", self, **options)

    def __repr__(self) -> str:
        failed = f", {self.n_failed} failed" if self.failures else ""
        return f"Bootstrap({self.kind}: {len(self.frame)} replicates{failed}{', interrupted' if self.interrupted else ''})"

    def _repr_html_(self) -> str:
        return html_of_frame(repr(self), self.confint())


def bootstrap(
    fit: Fit,
    n: int = 1000,
    seed: int | None = None,
    *,
    kind: str = "parametric",
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

    Refits that fail are counted and kept apart; Ctrl-C keeps what is done.

    >>> boot = fit.bootstrap(100, seed=1)
    >>> len(boot.frame), boot.n_failed
    (100, 0)
    """
    demand_count(n, "n")
    demand_count(workers, "workers")
    demand_one_of(kind, ("parametric", "case"), "kind")
    demand_likelihood(fit, "the bootstrap")
    center = own_values(fit, statistic)
    names = list(center.index)
    runner = Parametric(fit, statistic, names) if kind == "parametric" else Cases(fit, statistic, names, group)
    streams = seeded(seed).spawn(int(n))
    batches, interrupted = _run(runner, streams, int(workers), progress)
    failures = {number: reason for batch in batches for number, reason in zip(batch.numbers, batch.reasons, strict=True) if reason}
    return Bootstrap(fit, kind, group, statistic, _frame(runner, batches), center, failures, interrupted)


def own_values(fit: Fit, statistic: Statistic | None) -> pd.Series[float]:
    """What a replicate reports, of the fit itself, by name."""
    if statistic is not None:
        value = statistic(fit)
        return pd.Series(statistic_values(value), index=statistic_names(value), name="estimate")
    c = fit.problem.conditioning
    alpha = np.linalg.solve(c.back, (fit.fixef_kept - c.alpha0) / c.y_scale) if len(fit.fixef_kept) else fit.fixef_kept
    values = parameter_table(fit.problem, fit.estimate.x[None], np.array([fit.point.sigma2]), alpha[None])[0]
    return pd.Series(values, index=parameter_names(fit.problem), name="estimate")


def _run(
    runner: Parametric | Cases, streams: Sequence[np.random.SeedSequence], workers: int, progress: bool | None
) -> tuple[list[Batch], bool]:
    """All batches, or those done before Ctrl-C."""
    size = min(BATCH, -(-len(streams) // workers))
    parts = [range(begin, min(begin + size, len(streams))) for begin in range(0, len(streams), size)]
    done: list[Batch] = []

    def one(part: range) -> Batch:
        return runner.run(list(part), [streams[i] for i in part])

    with doors.progress_bar("bootstrap", len(streams), progress) as advance:
        try:
            if workers == 1:
                for part in parts:
                    done.append(one(part))
                    advance(len(part))
                return done, False
            with ThreadPoolExecutor(workers) as pool:
                for batch in pool.map(one, parts):
                    done.append(batch)
                    advance(len(batch.numbers))
        except KeyboardInterrupt:
            return done, True
    return done, False


def _frame(runner: Parametric | Cases, batches: Sequence[Batch]) -> pd.DataFrame:
    """Replicates that succeeded."""
    numbers = [number for batch in batches for number in batch.numbers]
    values = np.concatenate([batch.values for batch in batches]) if batches else np.zeros((0, len(runner.names)))
    good = np.array([not reason for batch in batches for reason in batch.reasons], bool)
    return pd.DataFrame(values[good], index=pd.Index(np.array(numbers, int)[good], name="replicate"), columns=runner.names)


def _quantiles(values: Array, shares: Array) -> Array:
    """Quantiles as `(n + 1) p`-th order statistics; NaN where nothing is left."""
    values = values[np.isfinite(values)]
    return np.quantile(values, np.clip(shares, 0.0, 1.0), method="weibull") if len(values) > 1 else np.full(len(shares), np.nan)


def _within_range(names: Sequence[str], limits: Array) -> Array:
    """Limits of standard deviations not below 0, of correlations within -1 and 1."""
    low = np.array([0.0 if name.startswith("sd__") else -1.0 if name.startswith("cor__") else -np.inf for name in names])
    high = np.array([1.0 if name.startswith("cor__") else np.inf for name in names])
    return np.clip(limits, low[:, None], high[:, None])
