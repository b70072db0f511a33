"""Pooling of analyses of completed data: Rubin's rules, jackknife, bootstrap, and bootstrap with multiple imputation.

Every rule takes estimates (K, ...) with the K analyses first, whatever follows, and gives estimate, standard error and degrees of freedom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from bayeslmm._arrays import Array
from bayeslmm._types import Side
from bayeslmm._validation import require_one_of

Rule = Literal["single", "jackknife", "bootstrap", "rubin", "bootstrap-mi"]


@dataclass(frozen=True, slots=True, eq=False)
class Replication:
    """What the completed data sets are to one another, and so how their analyses are pooled.

    weights : (K, N) how often each subject counts, None where all count once; D : imputations of one bootstrap sample
    """

    rule: Rule
    weights: Array | None = None
    D: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Estimates with standard errors and degrees of freedom, of one shape; mcse : Monte Carlo standard error of the estimate.

    draws : (B, ...) ordered bootstrap estimates where the limits are their percentiles, else None
    """

    estimate: Array
    std_error: Array
    df: Array
    mcse: Array
    draws: Array | None = None

    def statistic(self, null: Array | float = 0.0) -> Array:
        """Estimate less the value of the hypothesis, over the standard error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((self.estimate - null) / self.std_error)

    def p_value(self, alternative: Side, null: Array | float = 0.0) -> Array:
        """Of the hypothesis that the quantity is `null`."""
        t = self.statistic(null)
        below = self._below(null) if self.draws is not None else np.asarray(special.stdtr(self.df, -t))
        p = {"less": 1.0 - below, "greater": below, "two-sided": 2.0 * np.minimum(below, 1.0 - below)}[alternative]
        if self.draws is None and alternative != "greater":
            p = special.stdtr(self.df, t) if alternative == "less" else 2.0 * special.stdtr(self.df, -np.abs(t))
        return np.asarray(p)

    def _below(self, null: Array | float) -> Array:
        """The share of the bootstrap distribution below a value, between its points as the percentiles are."""
        assert self.draws is not None
        B, shape = len(self.draws), self.draws.shape[1:]
        level = np.arange(1, B + 1) / (B + 1)
        found = [
            np.interp(at, own, level) for at, own in zip(np.broadcast_to(null, shape).ravel(), self.draws.reshape(B, -1).T, strict=True)
        ]
        return np.array(found).reshape(shape)

    def limits(self, level: float, alternative: Side) -> tuple[Array, Array]:
        """Confidence limits; one-sided ones on the side that the test leaves open: "greater" bounds the quantity from below."""
        tail = 0.5 * (1.0 - level) if alternative == "two-sided" else 1.0 - level
        low, high = self._quantile(tail), self._quantile(1.0 - tail)
        if alternative == "greater":
            high = np.full_like(high, np.inf)
        if alternative == "less":
            low = np.full_like(low, -np.inf)
        return low, high

    def _quantile(self, p: float) -> Array:
        if self.draws is not None:
            return np.asarray(np.quantile(self.draws, p, axis=0, method="weibull"))
        return np.asarray(self.estimate + special.stdtrit(self.df, p) * self.std_error)


def pool_rubin(estimates: Array, std_errors: Array, df: Array | float, rule: str = "barnard-rubin") -> Pooled:
    """Rubin's rules; df with Barnard and Rubin's correction (1999) for the degrees of freedom of the complete data, or Rubin's (1987).

    >>> found = pool_rubin(np.array([1.0, 2.0, 3.0]), np.ones(3), 50.0)
    >>> round(float(found.estimate), 3), round(float(found.std_error), 3)
    (2.0, 1.528)
    """
    require_one_of(rule, ("barnard-rubin", "rubin"), "df")
    M = len(estimates)
    within, between = (std_errors**2).mean(axis=0), estimates.var(axis=0, ddof=1)
    total = within + (1.0 + 1.0 / M) * between
    complete = np.broadcast_to(np.asarray(df, float), total.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (1.0 + 1.0 / M) * between / total
        old = (M - 1) / share**2
        if rule == "rubin":
            found = np.where(share > 0, old, np.inf)
        else:
            observed = np.where(np.isinf(complete), np.inf, (complete + 1.0) / (complete + 3.0) * complete * (1.0 - share))
            found = 1.0 / (1.0 / old + 1.0 / observed)
            found = np.where(share > 0, found, observed)
    return Pooled(estimates.mean(axis=0), np.sqrt(total), found, np.sqrt(between / M))


def pool_jackknife(estimates: Array) -> Pooled:
    """The whole sample first, then without each subject; normal limits about the estimate of the whole sample."""
    whole, out = estimates[0], estimates[1:]
    n = len(out)
    se = np.sqrt((n - 1) / n * ((out - out.mean(axis=0)) ** 2).sum(axis=0))
    return Pooled(whole, se, np.full_like(se, np.inf), np.zeros_like(se))


def pool_bootstrap(estimates: Array, interval: str = "percentile") -> Pooled:
    """The whole sample first, then bootstrap samples; limits are percentiles or normal."""
    require_one_of(interval, ("percentile", "normal"), "interval")
    whole, draws = estimates[0], estimates[1:]
    se = draws.std(axis=0, ddof=1)
    return Pooled(whole, se, np.full_like(se, np.inf), np.zeros_like(se), np.sort(draws, axis=0) if interval == "percentile" else None)


def pool_bootstrap_mi(estimates: Array, D: int) -> Pooled:
    """D imputations of each bootstrap sample, side by side (von Hippel and Bartlett 2021)."""
    by_sample = estimates.reshape(-1, D, *estimates.shape[1:])
    B, means = len(by_sample), by_sample.mean(axis=1)
    between = D * means.var(axis=0, ddof=1)
    within = ((by_sample - means[:, None]) ** 2).sum((0, 1)) / (B * (D - 1))
    variance = (1.0 + 1.0 / B) * (between - within) / D + within / (B * D)
    down = ((B + 1) / (B * D)) ** 2 * between**2 / (B - 1) + within**2 / (B * D**2 * (D - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.maximum(3.0, variance**2 / down)
        se = np.sqrt(np.where(variance > 0, variance, np.nan))
    return Pooled(means.mean(axis=0), se, df, np.sqrt(between / (B * D)))


def monte_carlo(
    estimates: Array, std_errors: Array, df: Any, rule: str, level: float, alternative: Side, null: Array | float = 0.0
) -> dict[str, Array]:
    """Jackknife over the imputations: Monte Carlo standard errors of what Rubin's rules give."""
    M = len(estimates)
    found = []
    for k in range(M):
        kept = np.arange(M) != k
        one = pool_rubin(estimates[kept], std_errors[kept], df, rule)
        low, high = one.limits(level, alternative)
        found.append((one.estimate, one.std_error, low, high, one.p_value(alternative, null)))
    names = ("estimate", "std_error", "conf_low", "conf_high", "p_value")
    with np.errstate(invalid="ignore"):
        spread = [
            np.sqrt((M - 1) / M * ((values - values.mean(axis=0)) ** 2).sum(axis=0)) for values in map(np.array, zip(*found, strict=True))
        ]
    return dict(zip(names, spread, strict=True))
