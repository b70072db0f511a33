"""ADJUST= of LSMEANS and LSMESTIMATE: adjusted p values and simultaneous limits of a family of differences, under SAS's names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from bayeslmm._arrays import Array
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.fixed_effects.tests import TTests
from bayeslmm.inference.means.multiplicity import critical_values, p_values

EQUAL = 1e-6
"""Relative spread of standard errors below which a comparison is Tukey's own and not Kramer's."""

NODES = np.linspace(-1.0, 1.0, 2001)
"""Of the integral over the logarithm of the residual sd, whose density vanishes on both sides: the trapezoidal rule is exact there."""

TAIL = 80.0
"""What lies further out than a density of exp(-80) is nothing."""

_NAMES = {"dunnett": "Dunnett-Hsu", "smm": "SMM", "simulate": "Simulated"}


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """name : as the column Adjustment says it; p : (r,); lower, upper : (r,) half widths of simultaneous limits, inf on a free side."""

    name: str
    p: Array
    lower: Array
    upper: Array


def adjusted(method: str, tests: TTests, df: Array, correlation: Array, means: int, alpha: float, tail: str = "") -> Adjusted:
    """Adjust a family of comparisons.

    df : (r,) of the adjustment: those of the effect in the table of Type 3 tests, or with ADJDFE=ROW each row's own
    correlation : (r, r) of the estimates; means : how many means they compare
    tail : "lower" or "upper" for one-sided comparisons
    """
    df = np.where(np.isfinite(tests.statistic), df, np.nan)
    if method == "scheffe":
        p, width = _scheffe(tests, df, correlation, alpha)
    elif tail:
        p, width = _one_sided(method, tests, df, correlation, alpha, -1.0 if tail == "lower" else 1.0)
    elif method == "smm":
        m = int(np.isfinite(df).sum())
        p = _each(df, lambda i: modulus_sf(abs(float(tests.statistic[i])), float(df[i]), m))
        width = _each(df, lambda i: modulus_isf(alpha, float(df[i]), m))
    else:
        ours = "mvt" if method == "simulate" else method
        p = p_values(ours, tests.statistic, df, correlation, means)
        width = critical_values(ours, 1.0 - alpha, df, correlation, means)
    half = width * tests.std_error
    free = np.where(np.isfinite(half), np.inf, np.nan)
    return Adjusted(_name(method, tests), p, free if tail == "lower" else half, free if tail == "upper" else half)


def check_adjustment(method: str, diff: str) -> None:
    """Raise where a method is not for this family: "all" differences, or those from a control."""
    if method == "tukey" and diff != "all":
        raise SpecificationError("ADJUST=TUKEY is for all differences", f"DIFF={diff.upper()}", "adjust=dunnett compares with a control")
    if method == "dunnett" and diff == "all":
        raise SpecificationError("ADJUST=DUNNETT compares with a control", "DIFF", "diff=control, or adjust=tukey for all differences")


def one_sided(tests: TTests, tail: str) -> Array:
    """p values of one-sided tests, not adjusted."""
    return np.asarray(stats.t.cdf(tests.statistic, tests.df) if tail == "lower" else stats.t.sf(tests.statistic, tests.df))


def _name(method: str, tests: TTests) -> str:
    if method == "tukey":
        se = tests.std_error[np.isfinite(tests.std_error)]
        return "Tukey" if len(se) == 0 or np.ptp(se) <= EQUAL * se.max() else "Tukey-Kramer"
    return _NAMES.get(method) or method.capitalize()


def _scheffe(tests: TTests, df: Array, correlation: Array, alpha: float) -> tuple[Array, Array]:
    member = np.isfinite(df)
    values = np.linalg.eigvalsh(correlation[np.ix_(member, member)])
    q = max(int((values > 1e-8 * values.max(initial=0.0)).sum()), 1)
    return np.asarray(stats.f.sf(tests.statistic**2 / q, q, df)), np.asarray(np.sqrt(q * stats.f.isf(alpha, q, df)))


def _one_sided(method: str, tests: TTests, df: Array, correlation: Array, alpha: float, sign: float) -> tuple[Array, Array]:
    """p values and critical values of comparisons to one side of the control; sign : -1 below it, 1 above."""
    statistic, member = sign * tests.statistic, np.isfinite(df)
    m = int(member.sum())
    plain = np.asarray(stats.t.sf(statistic, df))
    if method == "bonferroni":
        return np.minimum(1.0, m * plain), np.asarray(stats.t.isf(alpha / max(m, 1), df))
    if method == "sidak":
        level = -np.expm1(np.log1p(-alpha) / max(m, 1))
        return np.asarray(-np.expm1(m * np.log1p(-plain))), np.asarray(stats.t.isf(level, df))
    bounds = np.asarray(stats.t.isf(alpha, df)), np.asarray(stats.t.isf(alpha / max(m, 1), df))
    if m < 2:
        return plain, bounds[0]
    if method == "smm":
        p = _each(df, lambda i: modulus_sf(float(statistic[i]), float(df[i]), m, sides=1))
        return p, _each(df, lambda i: modulus_isf(alpha, float(df[i]), m, sides=1))
    law: Any = stats.multivariate_t(  # type: ignore[call-overload]
        np.zeros(m), correlation[np.ix_(member, member)], df=float(df[member].mean()), allow_singular=True
    )

    def above(t: float) -> float:
        """P(max T > t)"""
        return 1.0 - float(law.cdf(np.full(m, t), random_state=1))

    p = _each(df, lambda i: max(above(float(statistic[i])), float(plain[i])))
    critical = _root(above, alpha, float(bounds[0][member].min()), float(bounds[1][member].max()))
    return p, np.where(member, critical, np.nan)


def _each(df: Array, value: Callable[[int], float]) -> Array:
    return np.array([value(i) if np.isfinite(df[i]) else np.nan for i in range(len(df))])


def modulus_sf(t: float, df: float, m: int, sides: int = 2) -> float:
    """P(max |T_i| > t), or with one side of T_i, of m independent normals over one chi: the studentized maximum modulus."""
    span = max(TAIL / df, np.sqrt(TAIL / df))
    z = NODES * span
    log_density = df * (z - 0.5 * np.expm1(2.0 * z))
    weights = np.exp(log_density - log_density.max())
    inside = stats.norm.sf(t * np.exp(z)) * sides
    return float(weights @ -np.expm1(m * np.log1p(-np.minimum(inside, 1.0))) / weights.sum())


def modulus_isf(alpha: float, df: float, m: int, sides: int = 2) -> float:
    """The point that the studentized maximum modulus exceeds with this probability."""
    low, high = stats.t.isf(alpha / sides, df), stats.t.isf(alpha / (sides * m), df)
    return _root(lambda t: modulus_sf(t, df, m, sides), alpha, float(low), float(high))


def _root(above: Callable[[float], float], alpha: float, low: float, high: float) -> float:
    """Between a plain critical value and Bonferroni's, a little widened against rounding."""
    return float(optimize.brentq(lambda t: above(t) - alpha, low - 0.01, high + 0.01, xtol=1e-10))
