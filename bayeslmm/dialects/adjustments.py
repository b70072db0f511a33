"""ADJUST= of LSMEANS: adjusted p values and limits of differences, under SAS's names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bayeslmm.arrays import Array
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.adjust import critical_values, p_values
from bayeslmm.inference.fixed_effects import TTests

EQUAL = 1e-6
"""Relative spread of standard errors below which a comparison is Tukey's own and not Kramer's."""


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """name : as the column Adjustment says it; p : (r,); half : (r,) half widths of simultaneous limits."""

    name: str
    p: Array
    half: Array


def adjusted(method: str, tests: TTests, correlation: Array, means: int, alpha: float, diff: str) -> Adjusted:
    """Adjust a family of differences.

    correlation : (r, r) of the differences; means : how many means they are of; diff : "all", "control", "controll" or "controlu"
    """
    if method == "tukey" and diff != "all":
        raise SpecificationError("ADJUST=TUKEY is for all differences", f"DIFF={diff.upper()}", "adjust=dunnett compares with a control")
    if method == "dunnett" and diff == "all":
        raise SpecificationError("ADJUST=DUNNETT compares with a control", "DIFF", "diff=control, or adjust=tukey for all differences")
    if method == "scheffe":
        return _scheffe(tests, correlation, alpha)
    p = p_values(method, tests.statistic, tests.df, correlation, means)
    if diff in ("controll", "controlu"):
        p = _one_sided(method, tests, correlation, diff)
    half = critical_values(method, 1.0 - alpha, tests.df, correlation, means) * tests.std_error
    return Adjusted(_name(method, tests), p, half)


def one_sided(tests: TTests, diff: str) -> Array:
    """p values of DIFF=CONTROLL (less than the control) and CONTROLU (more), not adjusted."""
    return np.asarray(stats.t.cdf(tests.statistic, tests.df) if diff == "controll" else stats.t.sf(tests.statistic, tests.df))


def _name(method: str, tests: TTests) -> str:
    if method == "tukey":
        se = tests.std_error[np.isfinite(tests.std_error)]
        return "Tukey" if len(se) == 0 or np.ptp(se) <= EQUAL * se.max() else "Tukey-Kramer"
    if method == "dunnett":
        return "Dunnett-Hsu"
    return method.capitalize()


def _scheffe(tests: TTests, correlation: Array, alpha: float) -> Adjusted:
    member = np.isfinite(tests.statistic)
    values = np.linalg.eigvalsh(correlation[np.ix_(member, member)])
    q = int((values > 1e-8 * values.max(initial=0.0)).sum())
    p = stats.f.sf(tests.statistic**2 / max(q, 1), max(q, 1), tests.df)
    half = np.sqrt(q * stats.f.isf(alpha, max(q, 1), tests.df)) * tests.std_error
    return Adjusted("Scheffe", np.asarray(p), np.asarray(half))


def _one_sided(method: str, tests: TTests, correlation: Array, diff: str) -> Array:
    plain = one_sided(tests, diff)
    member = np.isfinite(tests.statistic)
    m = int(member.sum())
    if method == "bonferroni":
        return np.minimum(1.0, m * plain)
    if method == "sidak":
        return np.asarray(-np.expm1(m * np.log1p(-plain)))
    if method != "dunnett" or m < 2:
        return plain
    sign = -1.0 if diff == "controll" else 1.0
    R = correlation[np.ix_(member, member)]
    law = stats.multivariate_t(np.zeros(m), R, df=round(float(tests.df[member].mean())), allow_singular=True)
    out = np.full(len(plain), np.nan)
    # P(max T > t)
    out[member] = [1.0 - float(law.cdf(np.full(m, t), random_state=1)) for t in sign * tests.statistic[member]]
    return np.asarray(np.maximum(out, plain))
