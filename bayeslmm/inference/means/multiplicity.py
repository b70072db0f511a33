"""Contrasts among means, their multiplicity adjustments (Tukey, Dunnett, multivariate t, Holm, Bonferroni, Sidak, FDR)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array, Codes, is_counted, numbers_of
from bayeslmm._types import Adjustment, ContrastName
from bayeslmm._validation import require_memory
from bayeslmm.errors import InferenceError, SizeError, SpecificationError, show_value, spell_out
from bayeslmm.inference.fixed_effects.tests import Differences, FixedEffects, TTests
from bayeslmm.inference.means.hypothesis import NEEDS_CORRELATION, Hypothesis
from bayeslmm.inference.means.linear_functions import align_labels
from bayeslmm.inference.means.studentized_range import studentized_range_quantile, studentized_range_sf
from bayeslmm.likelihood.identification import pivoted_root

AS_R = {"tukey": "pairwise", "dunnett": "trt.vs.ctrl", "trt.vs.ctrl1": "trt.vs.ctrl", "eff": "effect"}
"""Further names that R's emmeans has for families of contrasts."""

SQUARE = ("effect", "eff", "poly")
"""Methods whose every contrast has a weight for every mean."""

CONTRAST_NUMBERS = 48
"""What the label, the places and the tests of one contrast take, in numbers."""

POLYNOMIALS = ("linear", "quadratic", "cubic", "quartic")


@dataclass(frozen=True, slots=True, eq=False)
class ContrastFamily:
    """Contrasts of m means and the adjustment that goes with them.

    weights : (r, m), one row per contrast; None where each is a difference of two, or a mean by itself
    differences : (r, 2) positions of those two; pairwise : they are all pairs
    """

    labels: tuple[str, ...]
    weights: Array | None
    adjust: str
    pairwise: bool = False
    differences: Codes | None = None

    @property
    def comparisons(self) -> bool:
        """Whether every contrast compares: its weights add up to 0."""
        if self.weights is None:
            return self.differences is not None
        return bool(np.all(np.abs(self.weights.sum(axis=1)) <= 1e-6 * np.abs(self.weights).max(axis=1)))

    def of(self, values: Array, start: int = 0, stop: int | None = None) -> Array:
        """The contrasts (r, ...) of values of the means (m, ...), or some of them; NaN where one with a weight is NaN."""
        if self.differences is not None:
            first, second = self.differences[start:stop].T
            return np.asarray(values[first] - values[second])
        if self.weights is None:
            return values[start:stop]
        weights, flat = self.weights[start:stop], values.reshape(len(values), -1)
        bad = ~np.isfinite(flat).all(axis=1)
        out = weights @ np.where(bad[:, None], 0.0, flat)
        out[(np.abs(weights[:, bad]) > 0).any(axis=1)] = np.nan
        return np.asarray(out.reshape(-1, *values.shape[1:]))


def contrast_method(method: Any, means: Sequence[str], ref: Any = None) -> ContrastFamily:
    """The contrasts of a method among m means with these labels.

    method : a name of METHODS, or {label: weights} or an array (r, m) of the user's own
    ref : the control of "trt.vs.ctrl", a label or a position; the first by default
    """
    pairs = isinstance(method, str) and "pair" in method
    count = len(means) * (len(means) - 1) / 2 if pairs else len(means)
    numbers = count * (CONTRAST_NUMBERS + (2 * len(means) if method in SQUARE else 0)) if isinstance(method, str) else 0.0
    require_memory("contrasts", numbers, f"{count:,.0f} contrasts of {len(means):,} means", "keep fewer apart, or by=")
    if not isinstance(method, str):
        _require_no_control(ref, "weights of your own")
        return _custom(method, means)
    m = len(means)
    makers = {
        "pairwise": lambda: _pairs(means, list(combinations(range(m), 2)), "tukey", pairwise=True),
        "revpairwise": lambda: _pairs(means, [(j, i) for i, j in combinations(range(m), 2)], "tukey", pairwise=True),
        "trt.vs.ctrl": lambda: _pairs(means, [(i, j) for j in [_reference(ref, means)] for i in range(m) if i != j], "dunnett"),
        "consec": lambda: _pairs(means, [(i + 1, i) for i in range(m - 1)], "mvt"),
        "poly": lambda: _poly(m),
        "effect": lambda: ContrastFamily(tuple(f"{a} effect" for a in means), np.eye(m) - 1.0 / m, "fdr"),
        "identity": lambda: ContrastFamily(tuple(means), None, "none"),
    }
    name = spell_method(method)
    if name not in makers:
        near = get_close_matches(name, get_args(ContrastName), 1, 0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        raise SpecificationError(
            f"unknown contrasts {method!r}", "method=", f"{remedy}one of {', '.join(get_args(ContrastName))}, or {{label: weights}}"
        )
    if name != "trt.vs.ctrl":
        _require_no_control(ref, repr(name))
    return makers[name]()


def interaction_family(methods: Any, method: Any, variables: Sequence[tuple[str, Sequence[str]]], ref: Any = None) -> ContrastFamily:
    """Contrasts of contrasts: one family for each variable, and every product of one contrast of each.

    methods : True for `method` of every variable, a name for all of them, or a name for each
    variables : name and the level of every mean, one for each variable
    """
    own = [method] * len(variables) if methods is True else [methods] * len(variables) if isinstance(methods, str) else methods
    if not variables or not isinstance(own, Sequence) or len(own) != len(variables) or not all(isinstance(name, str) for name in own):
        named = ", ".join(name for name, _ in variables)
        where = f"interaction={show_value(methods)}; variables: {named}"
        raise SpecificationError(
            "an interaction takes a family of contrasts for each variable", where, 'use "pairwise", or a name for each'
        )
    labels: tuple[str, ...] = ("",)
    weights = np.ones((1, len(variables[0][1]) if variables else 1))
    require_memory("contrasts", float(weights.size) * 8.0, f"interactions of {weights.size:,} means", "keep fewer apart, or by=")
    for name, (_, found) in zip(own, variables, strict=True):
        levels = list(dict.fromkeys(found))
        made = contrast_method(name, levels, ref if spell_method(name) == "trt.vs.ctrl" else None)
        place = np.array([levels.index(level) for level in found])
        factor = made.of(np.eye(len(levels)))[:, place]
        numbers = float(len(weights) * len(factor) * factor.shape[1])
        require_memory(
            "contrasts", numbers, f"{len(weights) * len(factor):,} contrasts of {len(place):,} means", "keep fewer apart, or by="
        )
        weights = (weights[:, None, :] * factor).reshape(-1, len(place))
        labels = tuple(f"{a} : {b}" if a else b for a in labels for b in (f"({label})" for label in made.labels))
    return ContrastFamily(labels, weights, "none")


def spell_method(method: str) -> str:
    """The name of a family of contrasts as it is listed, from the spellings of R's emmeans."""
    name = method.strip().lower().replace("_", ".")
    return AS_R.get(name, name)


def _require_no_control(ref: Any, method: str) -> None:
    if ref is not None:
        raise SpecificationError(f"ref is {show_value(ref)}, and {method} has no control", "ref=", 'leave it out, or use "trt.vs.ctrl"')


def _pairs(means: Sequence[str], pairs: Sequence[tuple[int, int]], adjust: str, pairwise: bool = False) -> ContrastFamily:
    labels = tuple(f"{means[i]} - {means[j]}" for i, j in pairs)
    return ContrastFamily(labels, None, adjust, pairwise, np.array(pairs, np.int64).reshape(-1, 2))


def _reference(ref: Any, means: Sequence[str]) -> int:
    if ref is None:
        return 0
    if (label := spell_out(ref)) in means:
        return list(means).index(label)
    if isinstance(ref, int) and not isinstance(ref, bool) and -len(means) <= ref < len(means):
        return ref % len(means)
    near = [name for name in means if name.casefold() == label.casefold()] or get_close_matches(label, means, 1, 0.6)
    remedy = f"did you mean {near[0]!r}?" if near else "name the control, or give its position"
    raise SpecificationError(f"{show_value(ref)} is none of the means", f"means: {', '.join(means)}", remedy)


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
        counted = is_counted(method.index)
        labels = tuple(f"contrast {i + 1}" if counted else str(label) for i, label in enumerate(method.index))
    elif isinstance(method, Mapping):
        labels, rows = tuple(map(str, method)), list(method.values())
    else:
        rows = [method] if isinstance(method, pd.Series) else list(np.atleast_2d(numbers_of(method, "method")))
        labels = tuple(f"contrast {i + 1}" for i in range(len(rows)))
    weights = []
    for label, row in zip(labels, rows, strict=True):
        labelled = pd.Series(row, dtype=object) if isinstance(row, Mapping) else row
        own = align_labels(labelled, means, f"contrast {label!r}") if isinstance(labelled, pd.Series) else row
        values = numbers_of(own, f"contrast {label!r}").ravel()
        if len(values) != len(means) or not np.all(np.isfinite(values)):
            where = f"contrast {label!r}; means: {', '.join(means)}"
            raise SpecificationError(f"{len(values)} weights for {len(means)} means", where, "give one weight per mean")
        weights.append(values)
    if not weights or not np.any(weights, axis=1).all():
        what = "a contrast without a mean says nothing of them"
        raise SpecificationError(what, f"method = {show_value(method)}; means: {', '.join(means)}", "give weights that are not all 0")
    return ContrastFamily(labels, np.array(weights).reshape(-1, len(means)), "none")


ADJUSTMENTS_ELSEWHERE = {
    **dict.fromkeys(("lsd", "fisher", "t", "no", "unadjusted"), 'write "none": t tests of each difference, without adjustment'),
    **dict.fromkeys(("bh", "benjamini-hochberg", "fdr_bh"), 'write "fdr", which is Benjamini and Hochberg\'s'),
    **dict.fromkeys(("hsd", "tukeyhsd", "tukey-kramer"), 'write "tukey", which is the same'),
    "games-howell": 'write "tukey", of a model whose variances differ: variance="ident(group)"',
    **dict.fromkeys(("single-step", "simulate", "smm"), 'write "mvt", which is the same without simulation'),
    "dunnettx": 'write "dunnett", which is exact',
    "hochberg": 'write "holm", which holds its level without an assumption, and rejects no more',
    **dict.fromkeys(("snk", "duncan"), 'write "tukey": ranges in steps do not hold the level of the family'),
    "scheffe": 'write "mvt", which is exact for the contrasts that are asked for',
}
"""Adjustment in R, SAS or of agronomy's packages -> what to write here, and what that is beside it."""

LOG2_DIRECTIONS = 15
"""Base-2 logarithm of the number of directions in the integration of the multivariate t."""

DIRECTIONS_SEED = 20_240_229

OUTSIDE_NODES = 128
"""Statistics whose tails are integrated one by one."""

TINY = 1e-290
"""Tail probabilities from here down are 0."""

INFINITE_DF = 1e5
"""Degrees of freedom from here on are infinite to the integrals."""


def adjustment_name(adjust: str) -> str:
    """The name of an adjustment, checked."""
    name = spell_out(adjust).strip().lower()
    if isinstance(adjust, str) and name in get_args(Adjustment):
        return name
    near = get_close_matches(name, get_args(Adjustment), 1)
    remedy = ADJUSTMENTS_ELSEWHERE.get(name, f"did you mean {near[0]!r}?" if near else "write another")
    raise SpecificationError(
        f"unknown adjustment {show_value(adjust)}", "adjust=", f"{remedy}; there are {', '.join(get_args(Adjustment))}"
    )


def p_values(method: str, statistic: Array, df: Array, correlation: Array | None, means: int, side: str = "two-sided") -> Array:
    """Adjusted p values of a family of t statistics; NaN rows (not estimable) are no members.

    correlation : (r, r) of the estimates, for Dunnett's test and the multivariate t; means : how many means Tukey's pairs come from
    side : "greater" or "less" for one tail
    """
    member = np.isfinite(statistic)
    out = np.full(len(statistic), np.nan)
    if not member.any():
        return out
    t, nu = -statistic[member] if side == "less" else statistic[member], df[member]
    t = np.abs(t) if side == "two-sided" else t
    plain = np.asarray((2.0 if side == "two-sided" else 1.0) * special.stdtr(nu, -t))
    m = len(t)
    pairs = max(m, means * (means - 1) // 2)
    if method == "tukey":
        out[member] = studentized_range_sf(t * np.sqrt(2.0), means, np.where(nu < INFINITE_DF, nu, np.inf))
    elif method in NEEDS_CORRELATION:
        assert correlation is not None
        law = MultivariateT.of(correlation[np.ix_(member, member)], _common(nu), side == "two-sided")
        out[member] = law.outside_many(t)
    elif method == "sidak":
        with np.errstate(divide="ignore"):
            out[member] = -np.expm1(m * np.log1p(-plain))
    else:
        out[member] = adjust_p_values(method, plain)
    # no adjustment leaves the range from the plain p value to Bonferroni's, whatever the rounding of its integral
    out[member] = np.clip(out[member], plain, np.minimum(1.0, pairs * plain))
    return out


def critical_values(method: str, level: float, df: Array, correlation: Array | None, means: int, side: str = "two-sided") -> Array:
    """By how many standard errors simultaneous limits stand off; stepwise methods have Bonferroni's limits, "fdr" plain ones."""
    member = ~np.isnan(df)
    m, alpha = int(member.sum()), 1.0 - level
    if method == "tukey":
        out = np.full(len(df), np.nan)
        if m:
            finite = np.where(df[member] < INFINITE_DF, df[member], np.inf)
            out[member] = studentized_range_quantile(level, means, finite) / np.sqrt(2.0)
        return out
    if method in NEEDS_CORRELATION:
        if not m:
            return np.full(len(df), np.nan)
        assert correlation is not None
        law = MultivariateT.of(correlation[np.ix_(member, member)], _common(df[member]), side == "two-sided")
        return np.full(len(df), law.quantile(level, m))
    each = {"bonferroni": alpha / max(m, 1), "holm": alpha / max(m, 1), "sidak": -np.expm1(np.log1p(-alpha) / max(m, 1))}.get(method, alpha)
    return np.asarray(-special.stdtrit(df, (0.5 if side == "two-sided" else 1.0) * each))


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


LOG_RADII = np.linspace(-6.0, 12.0, 4001)
"""Logarithms of the radii at which the tail of a radius is tabulated."""


@dataclass(frozen=True, slots=True, eq=False)
class RadiusTail:
    """P(rho > x) of a radius with rho^2 / rank ~ F(rank, df), by a cubic spline of its logarithm in log x.

    Hundreds of statistics times thousands of directions ask for it: the incomplete beta function would take minutes.
    Below the nodes P(rho <= x) goes as x^rank, beyond them the tail is a power of x, or below the range of numbers.
    """

    log_tail: Callable[[Array], Array]
    last: float
    slope: float
    rank: int

    @classmethod
    def of(cls, rank: int, df: float) -> RadiusTail:
        from scipy.interpolate import CubicSpline

        squares = np.exp(2.0 * LOG_RADII)
        tail = special.chdtrc(rank, squares) if np.isinf(df) else special.fdtrc(rank, df, squares / rank)
        nodes = LOG_RADII[tail > TINY]
        spline = CubicSpline(nodes, np.log(tail[: len(nodes)]))
        slope = float(spline(nodes[-1], 1)) if len(nodes) == len(LOG_RADII) else -np.inf
        return cls(spline, float(nodes[-1]), slope, rank)

    def sf(self, radius: Array) -> Array:
        """P(rho > radius), radius >= 0."""
        with np.errstate(divide="ignore"):
            place = np.log(radius)
        inside = np.clip(place, LOG_RADII[0], self.last)
        found = np.exp(self.log_tail(inside))
        low, high = place < LOG_RADII[0], place > self.last
        found[low] = 1.0 - (1.0 - found[low]) * np.exp(self.rank * (place[low] - LOG_RADII[0]))
        found[high] *= np.exp(self.slope * (place[high] - self.last))
        return np.asarray(found)


def _root(R: Array) -> Array:
    """A (r, rank) with orthogonal columns and A A' = R, a correlation matrix.

    All pairs of m means are m (m - 1) / 2 contrasts of rank m - 1: Cholesky's factor with pivots ends at the rank.
    """
    U, values, _ = np.linalg.svd(pivoted_root(R, 1e-9)[0], full_matrices=False)
    kept = values**2 > 1e-9 * values[0] ** 2
    return np.asarray(U[:, kept] * values[kept])


@dataclass(frozen=True, slots=True, eq=False)
class MultivariateT:
    """The largest T, or |T|, of a multivariate t whose correlation matrix R = A A', of rank r, may be singular.

    T = A u rho with u uniform on the sphere of r dimensions and rho^2 / r ~ F(r, df), so that
    P(max |T| > t) = E_u P(rho > t / max |A u|): one smooth average over directions, accurate far out in the tail.

    reach : (POINTS,) max |A u|, or max A u for one side, over quasi-random directions
    """

    reach: Array
    rank: int
    df: float
    tail: RadiusTail
    two_sided: bool = True

    @classmethod
    def of(cls, R: Array, df: float, two_sided: bool = True) -> MultivariateT:
        from scipy.stats.qmc import Sobol

        A = _root(R)
        uniform = Sobol(A.shape[1], rng=np.random.default_rng(DIRECTIONS_SEED)).random_base2(LOG2_DIRECTIONS)
        z = special.ndtri(np.clip(uniform, 1e-12, 1.0 - 1e-12))
        u = z / np.linalg.norm(z, axis=1, keepdims=True)
        T = u @ A.T
        return cls((np.abs(T) if two_sided else T).max(axis=1), A.shape[1], df, RadiusTail.of(A.shape[1], df), two_sided)

    def outside(self, t: float) -> float:
        """P(max |T| > t), or P(max T > t)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            tail = self.tail.sf(np.abs(t / self.reach))
        if not self.two_sided:
            # a direction that leads down leaves only what is below 0, and one that leads up is always above
            tail = np.where(self.reach > 0, tail, 0.0) if t >= 0 else np.where(self.reach < 0, 1.0 - tail, 1.0)
        return float(np.mean(tail))

    def outside_many(self, t: Array) -> Array:
        """P(max |T| > t) of many t: beyond OUTSIDE_NODES of them a spline of its logarithm over asinh(t)."""
        if len(t) <= OUTSIDE_NODES:
            return np.array([self.outside(value) for value in t])
        from scipy.interpolate import CubicSpline

        place = np.arcsinh(t)
        nodes = np.linspace(place.min(), place.max(), OUTSIDE_NODES)
        if nodes[0] == nodes[-1]:
            return np.full(len(t), self.outside(float(t[0])))
        found = np.array([self.outside(float(value)) for value in np.sinh(nodes)])
        kept = found > TINY
        if kept.sum() < 2:
            return np.where(place > nodes[0], 0.0, found[0])
        inside = place <= nodes[kept][-1]
        return np.asarray(np.where(inside, np.exp(CubicSpline(nodes[kept], np.log(found[kept]))(place)), 0.0))

    def quantile(self, level: float, members: int) -> float:
        """t with P(max |T| <= t) = level."""
        from scipy.optimize import brentq

        tails = 2.0 if self.two_sided else 1.0
        low, high = (float(-special.stdtrit(self.df, (1.0 - level) / tails / number)) for number in (1, members))
        if self.rank == 1 and (self.two_sided or members == 1):
            return low
        return float(brentq(lambda t: self.outside(t) - (1.0 - level), 0.99 * low - 0.01, 1.01 * high + 0.01, xtol=1e-9))


TESTED_AT_ONCE = 2_000_000
"""Entries of the rows of contrasts that are tested at once."""

MANY_PAIRS = 10
"""Differences for each mean from which what the means share is computed once."""

PAIRS_AT_ONCE = 200_000
"""Differences that are tested at once."""

LARGEST_FAMILY = 5_000
"""Contrasts beyond which an adjustment by their correlations is refused."""


def _pieces(
    effects: FixedEffects, made: ContrastFamily, L: Array, shift: Array, block: int, *, correlated: bool
) -> Iterator[tuple[Codes, Array, TTests]]:
    """The contrasts that are estimable, some at a time: their positions, what is added to their estimates, and their tests."""
    count = len(made.labels)
    if made.differences is not None and not correlated and count > MANY_PAIRS * len(L):
        told = np.isfinite(L).all(axis=1)
        among = Differences.of(effects, L[told])
        if among is not None:
            row = np.cumsum(told) - 1
            estimable = np.flatnonzero(told[made.differences].all(axis=1))
            for start in range(0, len(estimable), PAIRS_AT_ONCE):
                place = estimable[start : start + PAIRS_AT_ONCE]
                first, second = made.differences[place].T
                own = shift[first] - shift[second]
                yield place, own, among.t(row[first], row[second], -own)
            return
    for start in range(0, count, block):
        rows, own = made.of(L, start, start + block), made.of(shift, start, start + block)
        fine = np.isfinite(rows).all(axis=1)
        yield start + np.flatnonzero(fine), own[fine], effects.t(rows[fine], -own[fine])


def family_tests(
    effects: FixedEffects, made: ContrastFamily, L: Array, shift: Array, level: float, adjust: str, means: int, hypothesis: Hypothesis
) -> dict[str, Array]:
    """Columns: estimates of contrasts of the rows of L, limits and tests, NaN where L is; as many rows at once as memory has room for."""
    count = len(made.labels)
    names = ("estimate", "std_error", "df", "conf_low", "conf_high", "statistic", "p_value")
    out = {name: np.full(count, np.nan) for name in names}
    if adjust in NEEDS_CORRELATION and count > LARGEST_FAMILY:
        raise SizeError(
            f"the correlations of {count:,} contrasts are {count:,} x {count:,} numbers",
            f"adjust={adjust!r}",
            'use adjust="sidak" or "holm"',
        )
    block = max(1, count) if adjust in NEEDS_CORRELATION else max(1, TESTED_AT_ONCE // max(L.shape[1], 1))
    R = None
    for place, own, t in _pieces(effects, made, L, shift, block, correlated=adjust in NEEDS_CORRELATION):
        out["estimate"][place], out["std_error"][place], out["df"][place] = t.estimate + own, t.std_error, t.df
        if adjust in NEEDS_CORRELATION:
            R = np.eye(count)
            with np.errstate(invalid="ignore", divide="ignore"):
                R[np.ix_(place, place)] = effects.covariance(made.of(L)[place]) / np.outer(t.std_error, t.std_error)
    out["statistic"] = hypothesis.statistic(out["estimate"], out["std_error"])
    out["p_value"] = p_values(adjust, out["statistic"], out["df"], R, means, hypothesis.tail)
    half = critical_values(adjust, level, out["df"], R, means, hypothesis.tail) * out["std_error"]
    out["conf_low"], out["conf_high"] = hypothesis.limits(out["estimate"], half)
    return out
