"""p values and confidence limits of families of tests: Tukey, Dunnett, multivariate t, Holm, Bonferroni, Sidak, false discovery rate."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from scipy import optimize, special, stats

from bayeslmm.arrays import Array
from bayeslmm.errors import InferenceError, SpecificationError
from bayeslmm.inference.studentized_range import quantile, survival

METHODS = ("none", "tukey", "dunnett", "mvt", "holm", "bonferroni", "sidak", "fdr")
POINTS = 15
"""Base-2 logarithm of the number of directions in the integration of the multivariate t."""

SEED = 20_240_229

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
    pairs = max(m, means * (means - 1) // 2)
    if method == "tukey":
        out[member] = survival(t * np.sqrt(2.0), means, np.where(nu < LARGE, nu, np.inf))
    elif method in ("dunnett", "mvt"):
        law = Multivariate.of(R, _common(nu))
        out[member] = [law.outside(value) for value in t]
    elif method == "none":
        out[member] = plain
    elif method == "bonferroni":
        out[member] = m * plain
    elif method == "sidak":
        out[member] = -np.expm1(m * np.log1p(-plain))
    else:
        out[member] = _stepwise(method, plain)
    # no adjustment leaves the range from the plain p value to Bonferroni's, whatever the rounding of its integral
    out[member] = np.clip(out[member], plain, np.minimum(1.0, pairs * plain))
    return out


def critical_values(method: str, level: float, df: Array, correlation: Array, means: int) -> Array:
    """By how many standard errors simultaneous limits stand off; stepwise methods have Bonferroni's limits, "fdr" plain ones."""
    member = ~np.isnan(df)
    m, alpha = int(member.sum()), 1.0 - level
    if method == "tukey":
        out = np.full(len(df), np.nan)
        out[member] = [quantile(level, means, nu) / np.sqrt(2.0) for nu in df[member]]
        return out
    if method in ("dunnett", "mvt"):
        if not m:
            return np.full(len(df), np.nan)
        law = Multivariate.of(correlation[np.ix_(member, member)], _common(df[member]))
        return np.full(len(df), law.quantile(level, m))
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


@dataclass(frozen=True, slots=True, eq=False)
class Multivariate:
    """The largest |T| of a multivariate t whose correlation matrix R = A A', of rank r, may be singular.

    T = A u rho with u uniform on the sphere of r dimensions and rho^2 / r ~ F(r, df), so that
    P(max |T| > t) = E_u P(rho > t / max |A u|): one smooth average over directions, accurate far out in the tail.

    reach : (POINTS,) max |A u| over quasi-random directions
    """

    reach: Array
    rank: int
    df: float

    @classmethod
    def of(cls, R: Array, df: float) -> Multivariate:
        values, vectors = np.linalg.eigh(0.5 * (R + R.T))
        kept = values > 1e-9 * values.max()
        A = vectors[:, kept] * np.sqrt(values[kept])
        uniform = stats.qmc.Sobol(A.shape[1], rng=np.random.default_rng(SEED)).random_base2(POINTS)
        z = special.ndtri(np.clip(uniform, 1e-12, 1.0 - 1e-12))
        u = z / np.linalg.norm(z, axis=1, keepdims=True)
        return cls(np.abs(u @ A.T).max(axis=1), A.shape[1], df)

    def outside(self, t: float) -> float:
        """P(max |T| > t)."""
        radius = (t / self.reach) ** 2
        tail = stats.chi2.sf(radius, self.rank) if np.isinf(self.df) else stats.f.sf(radius / self.rank, self.rank, self.df)
        return float(np.mean(tail))

    def quantile(self, level: float, members: int) -> float:
        """t with P(max |T| <= t) = level."""
        low, high = float(stats.t.ppf(0.5 + 0.5 * level, self.df)), float(stats.t.isf(0.5 * (1.0 - level) / members, self.df))
        if self.rank == 1:
            return low
        return float(optimize.brentq(lambda t: self.outside(t) - (1.0 - level), 0.99 * low, 1.01 * high, xtol=1e-9))
