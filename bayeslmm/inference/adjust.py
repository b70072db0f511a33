"""p values and confidence limits of families of tests: Tukey, Dunnett, multivariate t, Holm, Bonferroni, Sidak, false discovery rate."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import numpy as np
from scipy import optimize, stats

from bayeslmm.arrays import Array
from bayeslmm.errors import InferenceError, SpecificationError

METHODS = ("none", "tukey", "dunnett", "mvt", "holm", "bonferroni", "sidak", "fdr")
POINTS = 20_000
"""Points per dimension of the quasi-random integration of the multivariate t."""

LARGE = 1e5
"""Degrees of freedom from here on are infinite to the integrals."""


def named(adjust: str) -> str:
    """The name of an adjustment, checked."""
    name = str(adjust).strip().lower()
    if name in METHODS:
        return name
    near = get_close_matches(name, METHODS, 1, 0.5)
    remedy = f"did you mean {near[0]!r}? " if near else ""
    raise SpecificationError(f"unknown adjustment {adjust!r}", "adjust=", f"{remedy}one of {', '.join(METHODS)}")


def p_values(method: str, statistic: Array, df: Array, correlation: Array, means: int) -> Array:
    """Adjusted two-sided p values of a family of t statistics; NaN rows (not estimable) are no members.

    correlation : (r, r) of the estimates; means : how many means the pairs of Tukey's test come from
    """
    member = np.isfinite(statistic)
    out = np.full(len(statistic), np.nan)
    if not member.any():
        return out
    t, nu, R = np.abs(statistic[member]), df[member], correlation[np.ix_(member, member)]
    plain = np.asarray(2.0 * stats.t.sf(t, nu))
    m = len(t)
    if method == "tukey":
        out[member] = stats.studentized_range.sf(t * np.sqrt(2.0), means, np.minimum(nu, LARGE))
    elif method in ("dunnett", "mvt"):
        out[member] = [_outside(value, R, _common(nu)) for value in t]
    elif method == "none":
        out[member] = plain
    elif method == "bonferroni":
        out[member] = m * plain
    elif method == "sidak":
        out[member] = -np.expm1(m * np.log1p(-plain))
    else:
        out[member] = _stepwise(method, plain)
    return np.asarray(np.clip(out, 0.0, 1.0))


def critical_values(method: str, level: float, df: Array, correlation: Array, means: int) -> Array:
    """By how many standard errors simultaneous limits stand off; stepwise methods have Bonferroni's limits, "fdr" plain ones."""
    member = np.isfinite(df)
    m, alpha = int(member.sum()), 1.0 - level
    if method == "tukey":
        out = np.full(len(df), np.nan)
        out[member] = [_studentized(level, means, nu) for nu in df[member]]
        return out
    if method in ("dunnett", "mvt"):
        R = correlation[np.ix_(member, member)]
        return np.full(len(df), _equicoordinate(level, R, _common(df[member])) if m else np.nan)
    each = {"bonferroni": alpha / max(m, 1), "holm": alpha / max(m, 1), "sidak": -np.expm1(np.log1p(-alpha) / max(m, 1))}.get(method, alpha)
    return np.asarray(stats.t.isf(0.5 * each, df))


def demand_pairs(method: str, pairwise: bool) -> None:
    """Tukey's test is one of all pairs."""
    if method == "tukey" and not pairwise:
        remedy = "use adjust='mvt' (exact for any family), 'sidak' or 'holm'"
        raise InferenceError("Tukey's adjustment is for all pairs of means", "adjust='tukey'", remedy)


def _stepwise(method: str, p: Array) -> Array:
    m, order = len(p), np.argsort(p)
    out = np.empty(m)
    if method == "holm":
        out[order] = np.maximum.accumulate((m - np.arange(m)) * p[order])
    else:
        out[order[::-1]] = np.minimum.accumulate((m / np.arange(m, 0, -1)) * p[order[::-1]])
    return np.minimum(1.0, out)


def _common(df: Array) -> float:
    """One df for the joint distribution: the mean of those of the family."""
    value = float(np.mean(np.minimum(df, LARGE)))
    return np.inf if value >= LARGE else value


def _outside(t: float, R: Array, df: float) -> float:
    """P(max |T| > t) for a multivariate t with correlation R, which may be singular."""
    R = 0.5 * (R + R.T)
    m = len(R)
    if m == 1:
        return float(2.0 * stats.t.sf(t, df))
    upper = np.full(m, t)
    seed = np.random.default_rng(20_240_229)
    inside = _box(R, df)(upper, -upper, seed)
    return float(min(max(1.0 - float(inside), 0.0), min(1.0, m * 2.0 * stats.t.sf(t, df))))


def _box(R: Array, df: float) -> Callable[[Array, Array, np.random.Generator], float]:
    """The probability of a box."""
    m = len(R)
    zero: Any = np.zeros(m)
    if np.isfinite(df):
        student: Any = stats.multivariate_t
        law = student(zero, R, df=df, allow_singular=True)
        return lambda upper, lower, seed: float(law.cdf(upper, maxpts=POINTS * m, lower_limit=lower, random_state=seed))
    normal: Any = stats.multivariate_normal
    return lambda upper, lower, seed: float(normal.cdf(upper, zero, R, allow_singular=True, maxpts=POINTS * m, lower_limit=lower, rng=seed))


def _equicoordinate(level: float, R: Array, df: float) -> float:
    low, high = float(stats.t.ppf(0.5 + 0.5 * level, df)), float(stats.t.isf(0.5 * (1.0 - level) / len(R), df))
    if len(R) == 1 or high - low < 1e-8:
        return low
    return float(optimize.brentq(lambda t: _outside(t, R, df) - (1.0 - level), low - 1e-6, high + 1e-6, xtol=1e-5))


def _studentized(level: float, means: int, df: float) -> float:
    return float(stats.studentized_range.ppf(level, means, min(df, LARGE)) / np.sqrt(2.0))
