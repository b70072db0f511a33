"""F tests of the terms of the fixed effects, and the hypotheses that they are about.

type 1 : a term beyond the terms before it; type 2 : beyond all terms that do not contain it; both by least squares in a metric
type 3 : SAS's: functions of the term and of the terms that contain it, orthogonal to those of the containing terms alone

A term is contained in another when both have the same covariates and the other has all its factors and more (SAS, lmerTest, mmrm): in
`f * x` the covariate x is contained in f:x, the factor f is not, and types 2 and 3 test it where x is 0.

Hypotheses are rows over standardized coefficients, found from all indicator columns of the terms: they do not depend on the coding. What
they span is what a test is about; degrees of freedom by Satterthwaite depend on the rows too, and these are lmerTest's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import special

from bayeslmm._arrays import Array
from bayeslmm._validation import find_word, spell
from bayeslmm.errors import SpecificationError, show_value
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.terms import IndicatorTerms, TermEffect, indicator_terms
from bayeslmm.inference.fixed_effects.tests import check_options, fixed_effects
from bayeslmm.likelihood.identification import EPSILON, ROUNDED, left_null_space
from bayeslmm.likelihood.threads import one_thread

if TYPE_CHECKING:
    from bayeslmm._types import AnovaType, DfMethod, Information, VcovMethod


@dataclass(frozen=True, slots=True, eq=False)
class Hypotheses:
    """The terms of a model, and what is tested of each.

    own : effect name -> rows (q, p) of the coefficients of the term itself, as functions of standardized ones
    mixed : whether there are random terms: rows are lmerTest's then, mmrm's without
    """

    terms: IndicatorTerms
    own: Mapping[str, Array]
    mixed: bool

    @property
    def tested(self) -> tuple[TermEffect, ...]:
        """All but the intercept."""
        return tuple(e for e in self.terms.effects if not e.is_intercept)

    def rows(self, kind: int, metric: Array | None = None) -> list[Array]:
        """Independent rows of the hypothesis of every term tested, (q, p) over standardized coefficients.

        metric : (p, p) X~' M X~, by which types 1 and 2 are sequential; unweighted least squares by default
        """
        metric = self.terms.gram if metric is None else metric
        if kind == 1:
            return self._sequential(metric)
        return [self._of(effect, kind, metric) for effect in self.tested]

    def _of(self, effect: TermEffect, kind: int, metric: Array) -> Array:
        effects = self.terms.effects
        above = [e for e in effects if e.contains(effect)]
        outside = [e for e in effects if e is not effect and not e.contains(effect)]
        if not above:
            # what the term has beyond all others: its own coefficients, where those leave the columns of the others alone
            rows, (columns, sizes) = self.own[effect.name], self.terms.all_but([effect])
            # a product of covariates that start far off is known to the last digit of what it is before it is centred
            known = ROUNDED * np.linalg.norm(columns, axis=0) + 64 * EPSILON * sizes
            if len(rows) and bool(np.all(np.abs(rows @ columns) <= known * np.linalg.norm(rows, axis=1)[:, None])):
                rows = self._in_units(rows, effect, outside)
                return rows if self.mixed or kind == 2 else _about_the_mean(rows, effect)
        if kind == 3:
            rows = self._in_units(self._type3(effect, above, outside), effect, outside)
            return rows if self.mixed else _about_the_mean(rows, effect)
        root = np.linalg.cholesky(metric).T
        return self._sequential_rows(effect, outside, root, _span(root @ self.terms.columns(outside)), self.mixed)

    def _sequential(self, metric: Array) -> list[Array]:
        """Every term beyond those before it; what they span grows term by term."""
        root = np.linalg.cholesky(metric).T
        span = np.zeros((len(root), 0))
        before: list[TermEffect] = []
        found: list[Array] = []
        for effect in self.terms.effects:
            if not effect.is_intercept:
                found.append(self._sequential_rows(effect, before, root, span))
            columns = root @ self.terms.columns([effect], before)
            span = np.concatenate([span, _span(_without(columns, span), np.linalg.norm(columns, axis=0))], axis=1)
            before.append(effect)
        return found

    def _sequential_rows(
        self, effect: TermEffect, before: Sequence[TermEffect], root: Array, span: Array, eliminated: bool = True
    ) -> Array:
        """X_F' (I - P_before) X as rows over the coefficients; eliminated, each is free of the columns of the term before its own."""
        columns = root @ self.terms.columns([effect], before)
        basis = _span(_without(columns, span), np.linalg.norm(columns, axis=0))
        rows = self._in_units(basis.T @ root, effect, before)
        if not eliminated:
            return rows
        free = _without(root @ self._free(effect, before), span)
        chosen = _independent(free, np.linalg.norm(root @ self._free(effect, before), axis=0), len(rows))
        if len(chosen) < len(rows):
            return rows
        upper = np.linalg.qr(free[:, chosen], mode="r")
        return np.asarray((upper / np.diagonal(upper)[:, None]) @ rows)

    def _type3(self, effect: TermEffect, above: Sequence[TermEffect], outside: Sequence[TermEffect]) -> Array:
        columns = self.terms.columns(outside)
        free = left_null_space(columns, np.linalg.norm(columns, axis=0))
        own, higher = (self.terms.columns(part, outside) for part in ([effect], above))
        alone = left_null_space(free @ own, np.linalg.norm(own, axis=0))
        # rows of `alone` are functions of the containing terms only; the hypothesis is orthogonal to them
        pulled = free @ higher
        inner = pulled @ (alone @ pulled).T
        return np.asarray(left_null_space(inner, np.linalg.norm(inner, axis=0)) @ free)

    def _free(self, effect: TermEffect, spanning: Sequence[TermEffect]) -> Array:
        """The columns of the term in which no factor is at its first level."""
        spans = {(e.factors, e.covariates) for e in spanning}
        return self.terms.own(effect, spans)[:, list(effect.free)]

    def _in_units(self, L: Array, effect: TermEffect, spanning: Sequence[TermEffect]) -> Array:
        """The same hypothesis with one row for each free level of the term."""
        own = L @ self._free(effect, spanning)
        chosen = _independent(own, np.linalg.norm(self._free(effect, spanning), axis=0), len(L))
        return np.linalg.solve(own[:, chosen], L) if len(chosen) == len(L) else L


def _about_the_mean(L: Array, effect: TermEffect) -> Array:
    """Levels against the first become deviations of all levels but the last from their mean: the rows of sum contrasts."""
    if len(L) != len(effect.free):
        return L
    units: Array = np.eye(1)
    for width, factor in effect.widths:
        # the first factor is fastest
        units = np.asarray(np.kron(np.eye(width - 1, k=-1) - 1.0 / width if factor else np.eye(width), units))
    return np.asarray(units @ L)


def _without(columns: Array, span: Array) -> Array:
    """What of the columns lies outside an orthonormal span; taken off twice."""
    for _ in range(2):
        columns = columns - span @ (span.T @ columns)
    return columns


def _span(columns: Array, size: Array | None = None) -> Array:
    """An orthonormal basis of columns; what rounding left of columns of this size is nothing."""
    size = np.linalg.norm(columns, axis=0) if size is None else size
    length = np.linalg.norm(columns, axis=0)
    real = length > ROUNDED * size
    if not real.any():
        return np.zeros((len(columns), 0))
    left, values, _ = np.linalg.svd(columns[:, real] / length[real], full_matrices=False)
    return np.asarray(left[:, values > _rounding_of(length[real] / size[real]) * values.max()])


def _rounding_of(share: Array) -> float:
    """Rounding of columns of which a share is left, relative to what is left."""
    return min(1e-3, ROUNDED / float(share.min(initial=1.0)))


def _independent(columns: Array, size: Array, wanted: int) -> list[int]:
    """The first columns that do not depend on those before them, as many as wanted."""
    if 0 < wanted <= min(columns.shape):
        first = columns[:, :wanted]
        lengths = np.linalg.norm(first, axis=0)
        if bool((lengths > ROUNDED * size[:wanted]).all()):
            outside = np.abs(np.diagonal(np.linalg.qr(first / lengths, mode="r")))
            if bool(np.all(outside > np.minimum(1e-3, ROUNDED / (lengths / size[:wanted])))):
                return list(range(wanted))
    chosen: list[int] = []
    basis = np.zeros((len(columns), 0))
    for j in range(columns.shape[1]):
        if len(chosen) == wanted:
            break
        length = float(np.linalg.norm(columns[:, j]))
        if length <= ROUNDED * size[j]:
            continue
        rest = _without(columns[:, [j]] / length, basis)
        left = float(np.linalg.norm(rest))
        if left > _rounding_of(np.array([length / size[j]])):
            chosen.append(j)
            basis = np.concatenate([basis, rest / left], axis=1)
    return chosen


def make_hypotheses(fit: Fitted) -> Hypotheses:
    """What is tested of the terms of a fit."""
    design, standardization = fit.design, fit.problem.standardization
    coefficients = standardization.functions(np.eye(len(design.kept)))
    names = np.array(design.coef_terms)[list(design.kept)]
    terms = indicator_terms(design, standardization)
    return Hypotheses(terms, {e.name: coefficients[names == e.name] for e in terms.effects}, bool(design.terms))


ANOVA_TYPES: dict[object, int] = {1: 1, 2: 2, 3: 3, "1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}


def anova(
    fit: Fitted,
    type: AnovaType = 3,  # noqa: A002
    df: DfMethod = "satterthwaite",
    vcov: VcovMethod | None = None,
    information: Information = "expected",
    cluster: str | None = None,
) -> pd.DataFrame:
    """F tests of the terms: `term, sum_sq, num_df, den_df, statistic, p_value`.

    type : 1 (sequential), 2 (beyond the terms that do not contain it) or 3 (SAS's; does not depend on the coding). A term contains
        another with the same covariates and fewer factors: `f:x` contains `x`, not `f`, whose test is where x is 0: centre x for its mean
    df : as everywhere. `sum_sq` is F sigma^2 num_df for "satterthwaite", NaN otherwise. Under "containment" and "residual" type 1 is
        sequential in the metric of the estimated V, as nlme's `anova`; else in that of least squares, as lmerTest's and SAS's

    >>> anova(fit)["num_df"].tolist()
    [1]
    """
    if not isinstance(type, str | int | float) or type not in ANOVA_TYPES:
        remedy = "1 (sequential), 2 or 3 (of the means over the other terms)"
        if hasattr(type, "criterion"):
            remedy = "write blm.lrt(one, other) to compare two fits"
        elif spell(type) == "marginal":
            remedy += "; nlme's are tests of a term's coefficients: fit.contrast([...]).joint"
        raise SpecificationError(f"unknown type of F tests {show_value(type)}", "type=", remedy)
    choice = check_options(df, vcov, information)
    with one_thread():
        effects = fixed_effects(fit, df, vcov, information, cluster)
        asked = make_hypotheses(fit)
        metric = None
        if ANOVA_TYPES[type] == 1 and choice.df in ("containment", "residual") and fit.point.state is not None:
            metric = np.linalg.inv(fit.point.state.solution.information_inverse[0])
        tests = [effects.f(L, term=e.name) for e, L in zip(asked.tested, asked.rows(ANOVA_TYPES[type], metric), strict=True)]
    rows = []
    for effect, test in zip(asked.tested, tests, strict=True):
        sum_sq = test.statistic * fit.sigma**2 * test.num_df if choice.df == "satterthwaite" else np.nan
        rows.append((effect.name, sum_sq, test.num_df, test.den_df, test.statistic, test.p_value))
    return pd.DataFrame(rows, columns=["term", "sum_sq", "num_df", "den_df", "statistic", "p_value"])


EFFECT_SIZES: dict[str, str] = {
    **dict.fromkeys(("eta", "eta2", "eta-squared", "partial-eta", "partial-eta-squared"), "eta"),
    **dict.fromkeys(("omega", "omega2", "omega-squared", "partial-omega", "partial-omega-squared"), "omega"),
    **dict.fromkeys(("epsilon", "epsilon2", "epsilon-squared", "partial-epsilon", "partial-epsilon-squared"), "epsilon"),
}
"""Effect sizes of an F test by every name."""


def add_effect_sizes(table: pd.DataFrame, kind: str, conf_level: float) -> pd.DataFrame:
    """A table of F tests with partial eta, omega or epsilon squared of each, made from F and its degrees of freedom, and their limits.

    With k = num_df they are k F / (k F + den_df), k (F - 1) / (k F + den_df + 1) and k (F - 1) / (k F + den_df), and not below 0; the
    limits are those of the noncentral F distribution that F is the upper and the lower quantile of.

    Errors: `SpecificationError` for a kind that is none.
    """
    find_word(kind, tuple(EFFECT_SIZES), "effect_size")
    word, tail = EFFECT_SIZES[spell(kind)], 0.5 * (1.0 - conf_level)
    F, num, den = (table[name].to_numpy(float) for name in ("statistic", "num_df", "den_df"))
    ends = [np.array([_noncentrality(*row, p) for row in zip(F, num, den, strict=True)]) for p in (1.0 - tail, tail)]
    low, high = (_partial_share(word, end / num, num, den) for end in ends)
    return table.assign(**{f"partial_{word}_squared": _partial_share(word, F, num, den), "conf_low": low, "conf_high": high})


def _partial_share(word: str, F: Array, num: Array, den: Array) -> Array:
    gain = num * (F if word == "eta" else F - 1.0)
    with np.errstate(invalid="ignore"):
        share = gain / (num * F + den + (1.0 if word == "omega" else 0.0))
    return np.where(np.isfinite(den), np.maximum(share, 0.0), np.nan)


def _noncentrality(F: float, num: float, den: float, p: float) -> float:
    """The noncentrality under which F is the quantile p; 0 where it lies below that of the central distribution."""
    if not (np.isfinite(F) and np.isfinite(den)):
        return np.nan
    if special.fdtr(num, den, F) <= p:
        return 0.0
    low, high = 0.0, 2.0 * num * F + 10.0
    while special.ncfdtr(num, den, high, F) > p:
        low, high = high, 2.0 * high
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if special.ncfdtr(num, den, middle, F) > p else (low, middle)
    return 0.5 * (low + high)


BISECTIONS = 60
"""Halvings until nothing is left of an interval."""
