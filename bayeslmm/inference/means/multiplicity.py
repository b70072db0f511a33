"""Contrasts among means and their multiplicity adjustments: Tukey, Dunnett, multivariate t, Holm, Bonferroni, Sidak, FDR.

The studentized range (Tukey): the largest difference of k independent means over their estimated standard error.

    P(Q > q) = 1 - int f(s) k int phi(z) [Phi(z) - Phi(z - q s)]^(k - 1) dz ds,   df s^2 ~ chi2(df)

Both integrals are smooth and taken by Gauss-Legendre rules, for many q at once; absolute error below 1e-10 for df >= 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from bayeslmm._arrays import Array, readonly
from bayeslmm.errors import InferenceError, SpecificationError
from bayeslmm.inference.means.linear_functions import align_labels

CONTRAST_METHODS = ("pairwise", "revpairwise", "trt.vs.ctrl", "poly", "consec", "effect", "identity")
POLYNOMIALS = ("linear", "quadratic", "cubic", "quartic")


@dataclass(frozen=True, slots=True, eq=False)
class ContrastFamily:
    """weights : (r, m) over m means, one row per contrast; adjust : the adjustment that goes with it; pairwise : all pairs."""

    labels: tuple[str, ...]
    weights: Array
    adjust: str
    pairwise: bool = False


def contrast_method(method: Any, means: Sequence[str], ref: Any = None) -> ContrastFamily:
    """The contrasts of a method among m means with these labels.

    method : a name of METHODS, or {label: weights} or an array (r, m) of the user's own
    ref : the control of "trt.vs.ctrl", a label or a position; the first by default
    """
    if not isinstance(method, str):
        return _custom(method, means)
    m = len(means)
    makers = {
        "pairwise": lambda: _pairs(means, list(combinations(range(m), 2)), "tukey", pairwise=True),
        "revpairwise": lambda: _pairs(means, [(j, i) for i, j in combinations(range(m), 2)], "tukey", pairwise=True),
        "trt.vs.ctrl": lambda: _against(means, _reference(ref, means)),
        "consec": lambda: _pairs(means, [(i + 1, i) for i in range(m - 1)], "mvt"),
        "poly": lambda: _poly(m),
        "effect": lambda: ContrastFamily(tuple(f"{a} effect" for a in means), np.eye(m) - 1.0 / m, "fdr"),
        "identity": lambda: ContrastFamily(tuple(means), np.eye(m), "none"),
    }
    name = method.strip().lower().replace("_", ".").replace("eff", "effect").replace("effectect", "effect")
    if name not in makers:
        near = get_close_matches(name, CONTRAST_METHODS, 1, 0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        raise SpecificationError(
            f"unknown contrasts {method!r}", "method=", f"{remedy}one of {', '.join(CONTRAST_METHODS)}, or {{label: weights}}"
        )
    return makers[name]()


def _pairs(means: Sequence[str], pairs: Sequence[tuple[int, int]], adjust: str, pairwise: bool = False) -> ContrastFamily:
    weights = np.zeros((len(pairs), len(means)))
    for row, (i, j) in zip(weights, pairs, strict=True):
        row[i], row[j] = 1.0, -1.0
    return ContrastFamily(tuple(f"{means[i]} - {means[j]}" for i, j in pairs), weights, adjust, pairwise)


def _against(means: Sequence[str], control: int) -> ContrastFamily:
    return _pairs(means, [(i, control) for i in range(len(means)) if i != control], "dunnett")


def _reference(ref: Any, means: Sequence[str]) -> int:
    if ref is None:
        return 0
    if str(ref) in means:
        return list(means).index(str(ref))
    if isinstance(ref, int) and -len(means) <= ref < len(means):
        return ref % len(means)
    raise SpecificationError(f"{ref!r} is none of the means", f"means: {', '.join(means)}", "name the control, or give its position")


def _poly(m: int) -> ContrastFamily:
    """Orthogonal polynomials with the smallest whole numbers where there are any."""
    scores = np.arange(m) - (m - 1) / 2
    q, r = np.linalg.qr(np.vander(scores, increasing=True))
    rows = (q * np.sign(np.diag(r))).T[1:]
    names = [POLYNOMIALS[d] if d < len(POLYNOMIALS) else f"degree {d + 1}" for d in range(m - 1)]
    return ContrastFamily(tuple(names), np.array([_whole(row) for row in rows]).reshape(-1, m), "none")


def _whole(row: Array) -> Array:
    unit = row / np.abs(row[np.abs(row) > 1e-9]).min()
    for factor in range(1, 61):
        if np.all(np.abs(unit * factor - np.round(unit * factor)) < 1e-7):
            return np.asarray(np.round(unit * factor))
    return np.asarray(unit)


def _custom(method: Any, means: Sequence[str]) -> ContrastFamily:
    if isinstance(method, pd.DataFrame):
        rows = [row for _, row in method.iterrows()]
        counted = isinstance(method.index, pd.RangeIndex)
        labels = tuple(f"contrast {i + 1}" if counted else str(label) for i, label in enumerate(method.index))
    elif isinstance(method, Mapping):
        labels, rows = tuple(map(str, method)), list(method.values())
    else:
        rows = [method] if isinstance(method, pd.Series) else list(np.atleast_2d(np.asarray(method, float)))
        labels = tuple(f"contrast {i + 1}" for i in range(len(rows)))
    weights = []
    for label, row in zip(labels, rows, strict=True):
        own = align_labels(row, means, f"contrast {label!r}") if isinstance(row, pd.Series) else row
        values = np.asarray(own, float).ravel()
        if len(values) != len(means) or not np.all(np.isfinite(values)):
            where = f"contrast {label!r}; means: {', '.join(means)}"
            raise SpecificationError(f"{len(values)} weights for {len(means)} means", where, "give one weight per mean")
        weights.append(values)
    return ContrastFamily(labels, np.array(weights).reshape(-1, len(means)), "none")


QUADRATURE_NODES = 96
OMITTED_TAIL = 1e-15
"""Probability of the scale left out at either end."""


def studentized_range_sf(q: Array, k: int, df: Array) -> Array:
    """P(Q > q) for each q with its df; an infinite df has scale 1."""
    return np.array([_one(float(value), k, float(nu)) for value, nu in zip(q, df, strict=True)])


def studentized_range_quantile(level: float, k: int, df: float) -> float:
    """q with P(Q <= q) = level."""
    high = float(np.sqrt(2.0) * stats.t.isf((1.0 - level) / (k * (k - 1)), df))
    low = float(np.sqrt(2.0) * stats.t.isf((1.0 - level) / 2.0, df))
    if k == 2:
        return low
    return float(optimize.brentq(lambda q: _one(q, k, df) - (1.0 - level), 0.99 * low, 1.01 * high, xtol=1e-9))


@cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    return readonly(nodes), readonly(weights)


def _rule(low: float, high: float) -> tuple[Array, Array]:
    nodes, weights = _legendre()
    return 0.5 * (high - low) * nodes + 0.5 * (high + low), 0.5 * (high - low) * weights


def _range_cdf(w: Array, k: int) -> Array:
    """P(range of k standard normals < w)."""
    z, weights = _rule(-8.5, 8.5)
    # z is the largest of the k: the others lie between z - w and z
    inside = special.ndtr(z) - special.ndtr(z - w[:, None])
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(k * (inside ** (k - 1)) @ (weights * density))


def _one(q: float, k: int, df: float) -> float:
    if q <= 0.0:
        return 1.0
    if not np.isfinite(df):
        return float(1.0 - _range_cdf(np.array([q]), k)[0])
    low, high = (0.5 * np.log(stats.chi2.ppf(p, df) / df) for p in (OMITTED_TAIL, 1.0 - OMITTED_TAIL))
    t, weights = _rule(float(low), float(high))
    s = np.exp(t)
    # density of log s, from that of the chi-square
    density = 2.0 * df * s**2 * stats.chi2.pdf(df * s**2, df)
    return float((weights * density) @ (1.0 - _range_cdf(q * s, k)))


ADJUSTMENTS = ("none", "tukey", "dunnett", "mvt", "holm", "bonferroni", "sidak", "fdr")
LOG2_DIRECTIONS = 15
"""Base-2 logarithm of the number of directions in the integration of the multivariate t."""

DIRECTIONS_SEED = 20_240_229

INFINITE_DF = 1e5
"""Degrees of freedom from here on are infinite to the integrals."""


def adjustment_name(adjust: str) -> str:
    """The name of an adjustment, checked."""
    name = str(adjust).strip().lower()
    if name in ADJUSTMENTS:
        return name
    near = get_close_matches(name, ADJUSTMENTS, 1, 0.5)
    remedy = f"did you mean {near[0]!r}? " if near else ""
    raise SpecificationError(f"unknown adjustment {adjust!r}", "adjust=", f"{remedy}one of {', '.join(ADJUSTMENTS)}")


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
        out[member] = studentized_range_sf(t * np.sqrt(2.0), means, np.where(nu < INFINITE_DF, nu, np.inf))
    elif method in ("dunnett", "mvt"):
        law = MultivariateT.of(R, _common(nu))
        out[member] = [law.outside(value) for value in t]
    elif method == "sidak":
        out[member] = -np.expm1(m * np.log1p(-plain))
    else:
        out[member] = adjust_p_values(method, plain)
    # no adjustment leaves the range from the plain p value to Bonferroni's, whatever the rounding of its integral
    out[member] = np.clip(out[member], plain, np.minimum(1.0, pairs * plain))
    return out


def critical_values(method: str, level: float, df: Array, correlation: Array, means: int) -> Array:
    """By how many standard errors simultaneous limits stand off; stepwise methods have Bonferroni's limits, "fdr" plain ones."""
    member = ~np.isnan(df)
    m, alpha = int(member.sum()), 1.0 - level
    if method == "tukey":
        out = np.full(len(df), np.nan)
        out[member] = [studentized_range_quantile(level, means, nu) / np.sqrt(2.0) for nu in df[member]]
        return out
    if method in ("dunnett", "mvt"):
        if not m:
            return np.full(len(df), np.nan)
        law = MultivariateT.of(correlation[np.ix_(member, member)], _common(df[member]))
        return np.full(len(df), law.quantile(level, m))
    each = {"bonferroni": alpha / max(m, 1), "holm": alpha / max(m, 1), "sidak": -np.expm1(np.log1p(-alpha) / max(m, 1))}.get(method, alpha)
    return np.asarray(stats.t.isf(0.5 * each, df))


def require_pairs(method: str, pairwise: bool) -> None:
    """Tukey's test is one of all pairs."""
    if method == "tukey" and not pairwise:
        remedy = "use adjust='mvt' (exact for any family), 'sidak' or 'holm'"
        raise InferenceError("Tukey's adjustment is for all pairs of means", "adjust='tukey'", remedy)


def adjust_p_values(method: str, p: Array) -> Array:
    """p values of one family, adjusted by what needs nothing else: "none", "bonferroni", "holm", "fdr" or "bh" (Benjamini-Hochberg)."""
    m, order = len(p), np.argsort(p, kind="stable")
    out = np.empty(m)
    if method == "none":
        return p
    if method == "bonferroni":
        out[:] = m * p
    elif method == "holm":
        out[order] = np.maximum.accumulate((m - np.arange(m)) * p[order])
    else:
        out[order[::-1]] = np.minimum.accumulate((m / np.arange(m, 0, -1)) * p[order[::-1]])
    return np.minimum(1.0, out)


def _common(df: Array) -> float:
    """One df for the joint distribution: the mean of those of the family."""
    value = float(np.mean(np.minimum(df, INFINITE_DF)))
    return np.inf if value >= INFINITE_DF else value


@dataclass(frozen=True, slots=True, eq=False)
class MultivariateT:
    """The largest |T| of a multivariate t whose correlation matrix R = A A', of rank r, may be singular.

    T = A u rho with u uniform on the sphere of r dimensions and rho^2 / r ~ F(r, df), so that
    P(max |T| > t) = E_u P(rho > t / max |A u|): one smooth average over directions, accurate far out in the tail.

    reach : (POINTS,) max |A u| over quasi-random directions
    """

    reach: Array
    rank: int
    df: float

    @classmethod
    def of(cls, R: Array, df: float) -> MultivariateT:
        values, vectors = np.linalg.eigh(0.5 * (R + R.T))
        kept = values > 1e-9 * values.max()
        A = vectors[:, kept] * np.sqrt(values[kept])
        uniform = stats.qmc.Sobol(A.shape[1], rng=np.random.default_rng(DIRECTIONS_SEED)).random_base2(LOG2_DIRECTIONS)
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
