"""F tests of the terms of the fixed effects, types 1 to 3.

Every term is written with all its indicator columns (overparameterised), X_o = X T with T (p, all columns). A function of those columns is
estimable just when it is a row a T, and then it is the function a of the coefficients in use: so the tests do not depend on the coding.

type 1 : a term beyond the terms before it; type 2 : beyond all terms that do not contain it; both by least squares in a metric
type 3 : SAS's: functions of the term and of the terms that contain it, orthogonal to those of the containing terms alone

A term is contained in another when both have the same covariates and the other has all its factors and more (SAS, lmerTest, mmrm): in
`f * x` the covariate x is contained in f:x, the factor f is not, and types 2 and 3 test it where x is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Design
from bayeslmm.data.frame import read_table
from bayeslmm.data.model_matrix import Term
from bayeslmm.data.variables import EncodedVariable, FactorVariable
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.tests import check_options, fixed_effects
from bayeslmm.likelihood.standardize import Standardization

if TYPE_CHECKING:
    from bayeslmm._types import AnovaType, DfMethod, Information, VcovMethod

RANK_DIRECTION = 1e-8
"""Relative size below which a direction is 0."""


@dataclass(frozen=True, slots=True)
class TermEffect:
    """A term with its factors and its covariates, as texts of atoms.

    where : its columns of T; free : positions of those in which no factor is at its first level
    widths : for every atom how many columns it has, and whether these are the levels of a factor
    """

    name: str
    factors: frozenset[str]
    covariates: frozenset[str]
    where: slice
    free: tuple[int, ...]
    widths: tuple[tuple[int, bool], ...]

    def contains(self, other: TermEffect) -> bool:
        """Whether `other` is marginal to this term."""
        return self.covariates == other.covariates and self.factors > other.factors


@dataclass(frozen=True, slots=True, eq=False)
class Hypotheses:
    """Effects in the order of the formula (the intercept too), T (p, all columns), and the inverse of `back`.

    unback : (p, p) coefficients of standardized columns from those of the user's
    gram : (p, p) X~'X~ of standardized columns
    """

    effects: tuple[TermEffect, ...]
    T: Array
    unback: Array
    gram: Array

    @property
    def tested(self) -> tuple[TermEffect, ...]:
        """All but the intercept."""
        return tuple(e for e in self.effects if e.factors or e.covariates)

    def rows(self, effect: TermEffect, kind: int, metric: Array | None = None) -> Array:
        """Independent rows of the hypothesis of a term, (q, p) over the coefficients kept.

        metric : (p, p) X' M X of standardized columns, by which types 1 and 2 are sequential; unweighted least squares by default
        """
        if kind == 3:
            return self._about_the_mean(self._in_units(self._type3(effect), effect), effect)
        if kind == 1:
            before = self.effects[: self.effects.index(effect)]
        else:
            before = tuple(e for e in self.effects if e != effect and not e.contains(effect))
        return self._in_units(self._beyond(effect, before, self.gram if metric is None else metric), effect)

    def _in_units(self, L: Array, effect: TermEffect) -> Array:
        """The same hypothesis with one row for each free level of the term: degrees of freedom by Satterthwaite depend on the rows."""
        own = L @ self.T[:, list(effect.free)]
        if not own.size:
            return L
        chosen: list[int] = []
        for j in range(own.shape[1]):
            trial = own[:, [*chosen, j]]
            size = np.linalg.norm(trial, axis=0)
            if size.min() > 0 and np.linalg.svd(trial / size, compute_uv=False).min() > RANK_DIRECTION:
                chosen.append(j)
            if len(chosen) == len(L):
                return np.linalg.solve(own[:, chosen], L)
        return L

    def _about_the_mean(self, L: Array, effect: TermEffect) -> Array:
        """Levels against the first become deviations of all levels but the last from their mean: the rows of sum contrasts."""
        if len(L) != len(effect.free):
            return L
        units: Array = np.eye(1)
        for width, factor in effect.widths:
            units = np.asarray(np.kron(units, np.eye(width - 1, k=-1) - 1.0 / width if factor else np.eye(width)))
        return np.asarray(units @ L)

    def _columns(self, effects: Sequence[TermEffect]) -> Array:
        empty = np.zeros((len(self.T), 0))
        return np.concatenate([empty, *(self.T[:, e.where] for e in effects)], axis=1)

    def _beyond(self, effect: TermEffect, before: Sequence[TermEffect], metric: Array) -> Array:
        """X_F' (I - P_before) X as rows over the coefficients."""
        root = np.linalg.cholesky(metric).T @ self.unback
        own, others = root @ self._columns([effect]), root @ self._columns(before)
        size = np.linalg.norm(own, axis=0)
        own = own[:, size > 0] / size[size > 0]
        if others.shape[1]:
            left, values, _ = np.linalg.svd(others / np.maximum(np.linalg.norm(others, axis=0), 1e-300), full_matrices=False)
            span = left[:, values > RANK_DIRECTION * values.max(initial=0.0)]
            own = own - span @ (span.T @ own)
        left, values, _ = np.linalg.svd(own, full_matrices=False)
        basis = left[:, values > RANK_DIRECTION]
        return np.asarray(basis.T @ root)

    def _type3(self, effect: TermEffect) -> Array:
        above = [e for e in self.effects if e.contains(effect)]
        outside = [e for e in self.effects if e != effect and e not in above]
        free = left_null_space(self._columns(outside))
        own, higher = free @ self._columns([effect]), free @ self._columns(above)
        scale = max(float(np.abs(own).max(initial=0.0)), float(np.abs(higher).max(initial=0.0)), 1e-300)
        own, higher = own / scale, higher / scale
        alone = left_null_space(own)
        # rows of `alone` are functions of the containing terms only; the hypothesis is orthogonal to them
        inner = alone @ (higher @ higher.T)
        chosen = left_null_space(inner.T)
        return np.asarray(chosen @ free)


def left_null_space(M: Array) -> Array:
    """Rows a (orthonormal) with a M = 0, (r, len(M))."""
    if M.shape[1] == 0 or not M.any():
        return np.eye(len(M))
    size = np.linalg.norm(M, axis=0)
    left, values, _ = np.linalg.svd(M[:, size > 0] / size[size > 0])
    rank = int((values > RANK_DIRECTION * values.max()).sum())
    return np.asarray(left[:, rank:].T)


def make_hypotheses(design: Design, standardization: Standardization) -> Hypotheses:
    """Write the design with all indicator columns and find T."""
    block = design.encoding.fixed_block
    source = Columns(read_table(design.frame, block.columns))
    columns: dict[str, Array] = {}
    effects, parts, begin = [], [], 0
    X = (design.X - standardization.center) @ standardization.B
    gram = X.T @ X
    for term in map(Term, design.spec.formula.terms):
        for key in term.atoms:
            if key not in columns:
                columns[key] = _all_columns(block.atoms[key], source)
        own = _product(term, columns, design.nobs)
        # X'X_o at once: the overparameterised columns are never kept
        parts.append(np.linalg.solve(gram, X.T @ own))
        factors = frozenset(key for key in term.atoms if isinstance(block.atoms[key], FactorVariable) and _complete(block.atoms[key]))
        name = _name(term, design)
        widths = tuple((columns[key].shape[1], key in factors) for key in term.atoms)
        where = slice(begin, begin + own.shape[1])
        effects.append(TermEffect(name, factors, frozenset(term.atoms) - factors, where, _free(widths, begin), widths))
        begin += own.shape[1]
    T = standardization.back @ np.concatenate(parts, axis=1) if parts else np.zeros((X.shape[1], 0))
    return Hypotheses(tuple(effects), T, np.linalg.inv(standardization.back), gram)


def _free(widths: Sequence[tuple[int, bool]], begin: int) -> tuple[int, ...]:
    """Columns of a product in which no factor is at its first level."""
    shape = [width for width, _ in widths]
    factor = np.array([is_factor for _, is_factor in widths], bool)
    index = np.indices(shape).reshape(len(shape), int(np.prod(shape)))
    fine = np.all((index > 0) | ~factor[:, None], axis=0)
    return tuple(int(i) + begin for i in np.flatnonzero(fine))


def _name(term: Term, design: Design) -> str:
    """The term as `coef_terms` calls it."""
    if not term.atoms:
        return "Intercept"
    wanted = frozenset(term.name.split(":"))
    return next((t for t in design.coef_terms if frozenset(t.split(":")) == wanted), term.name)


def _complete(atom: EncodedVariable) -> bool:
    """Whether a factor's own coding spans all its levels beside an intercept."""
    if not isinstance(atom, FactorVariable):
        return False
    if atom.coding.matrix is None:
        return True
    K = len(atom.levels)
    return int(np.linalg.matrix_rank(np.column_stack([np.ones(K), atom.coding.matrix]))) == K


def _all_columns(atom: EncodedVariable, source: Columns) -> Array:
    """The columns of an atom: an indicator per level of a factor."""
    reduced = not _complete(atom)
    return np.column_stack([np.asarray(piece, float) for piece in atom.pieces(source, reduced=reduced)])


def _product(term: Term, columns: dict[str, Array], n: int) -> Array:
    def times(left: Array, right: Array) -> Array:
        return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)

    return reduce(times, [columns[key] for key in term.atoms], np.ones((n, 1)))


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
    if type not in ANOVA_TYPES:
        raise SpecificationError(f"unknown type of F tests {type!r}", "type=", "1 (sequential), 2 or 3 (marginal)")
    choice = check_options(df, vcov, information)
    effects = fixed_effects(fit, df, vcov, information, cluster)
    asked = make_hypotheses(fit.design, fit.problem.standardization)
    metric = None
    if choice.df in ("containment", "residual") and fit.point.state is not None:
        metric = np.linalg.inv(fit.point.state.solution.information_inverse[0])
    terms = np.array(fit.design.coef_terms)[list(fit.design.kept)]
    rows = []
    for effect in asked.tested:
        L = asked.rows(effect, ANOVA_TYPES[type], metric if ANOVA_TYPES[type] == 1 else None)
        test = effects.f(L, own=terms == effect.name)
        sum_sq = test.statistic * fit.sigma**2 * test.num_df if choice.df == "satterthwaite" else np.nan
        rows.append((effect.name, sum_sq, test.num_df, test.den_df, test.statistic, test.p_value))
    return pd.DataFrame(rows, columns=["term", "sum_sq", "num_df", "den_df", "statistic", "p_value"])
