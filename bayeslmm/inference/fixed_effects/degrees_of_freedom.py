"""The information of the covariance parameters, and denominator degrees of freedom (Satterthwaite, containment and others).

The criterion before sigma is profiled out is

    f(x, sigma) = log |V0| [+ log |X' V0^-1 X|] + d log(2 pi sigma^2) + r2(x) / sigma^2.

Its second derivatives in sigma are exact at the optimum; those in x are central differences of the analytic gradient at fixed sigma, so
that any kernel will do. Where evaluations are many sparse products each, the average information takes the place of the differences.

The covariance of tau is twice the inverse of the Hessian over the directions in which f curves at all: at a variance of 0 the axis of its
standard deviation is a direction in which the covariance of alpha does not move, and it drops out.

L is over standardized coefficients, one row per contrast, columns those kept.

Degrees of freedom by counting: between and within subjects (mmrm), containment (nlme). They belong to terms: a term has those of the
innermost stratum within whose levels any of its indicator columns changes, so that no coding and no order of levels counts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np

from bayeslmm._arrays import Array, Codes, Mask, freeze
from bayeslmm.data.design import Design
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.data.model_matrix import Term
from bayeslmm.errors import InferenceError
from bayeslmm.estimate.estimate import Fitted, is_restricted
from bayeslmm.inference.fixed_effects.terms import IndicatorTerms, column_products, indicator_columns, indicator_terms
from bayeslmm.likelihood.identification import DEPENDENT_ROWS, left_null_space
from bayeslmm.likelihood.kernel import State
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState
from bayeslmm.likelihood.standardize import Standardization
from bayeslmm.likelihood.structured.residual_covariance import parameter_units
from bayeslmm.likelihood.threads import one_thread

INFORMATION_STEP = 1e-3
"""Step of the differences in standard errors of x: the error is of its square, far above rounding."""

FLAT_CURVATURE = 1e-8
"""Curvature, relative to the largest, below which a direction of tau is not identified."""


@dataclass(frozen=True, slots=True, eq=False)
class ObservedInformation:
    """Second-order facts at the optimum, on standardized columns and in units of sigma.

    C : (p, p) (X' V0^-1 X)^-1
    slopes : (k, p, p) d(sigma^2 C)/d tau at sigma = 1; k = size + 1, log sigma last
    hessian : (k, k) of the criterion; covariance : (k, k) 2 H^-1 over the directions that are identified
    """

    C: Array
    slopes: Array
    hessian: Array
    covariance: Array


_FOUND: WeakKeyDictionary[State, dict[Hashable, Any]] = WeakKeyDictionary()


def found_once[T](fit: Fitted, key: Hashable, find: Callable[[], T]) -> T:
    """What `find` gives for a fit: found by the first verb that asks, kept as long as the evaluation at the optimum is.

    What is kept holds arrays alone: with a reference to the fit neither would ever be freed.
    """
    assert fit.point.state is not None
    known = _FOUND.setdefault(fit.point.state, {})
    key = (key, fit.estimate.method, fit.point.sigma2)
    if key not in known:
        known[key] = find()
    found: T = known[key]
    return found


def observed_information(fit: Fitted) -> ObservedInformation:
    """The second derivatives of the criterion of a fit at its optimum."""
    return found_once(fit, "observed information", lambda: _differentiate(fit))


def _differentiate(fit: Fitted) -> ObservedInformation:
    point, problem = fit.point, fit.problem
    assert point.state is not None
    size, reml = problem.size, is_restricted(fit)
    sigma2, df = point.sigma2, problem.criterion.df(reml)
    C = point.state.solution.information_inverse[0]
    _, r2 = (g[0] for g in point.state.gradients(reml))
    found = point.state.average_derivatives(reml, sigma2) if isinstance(point.state, RandomEffectsState) else None
    inner, moved = _by_differences(fit, reml) if found is None else found
    H = np.zeros((size + 1, size + 1))
    H[:size, :size] = inner
    H[size, :size] = H[:size, size] = -2.0 * r2 / sigma2
    H[size, size] = 4.0 * float(point.state.solution.r2[0]) / sigma2 if df else 0.0
    if problem.criterion.held is not None:
        H[size] = H[:, size] = 0.0  # a sigma that is held is no direction
    slopes = np.concatenate([moved, 2.0 * C[None]])
    return ObservedInformation(freeze(C), freeze(slopes), freeze(H), parameter_covariance(H, parameter_sizes(problem, point.x)))


def parameter_sizes(problem: Problem, x: Array) -> Array:
    """(size + 1,) units of (x, log sigma): those of its axes; a parameter of 1e4 is no less curved for its length."""
    return np.append(np.maximum(parameter_units(problem, x), np.abs(x)), 1.0)


def curvature_sizes(H: Array, sizes: Array) -> Array:
    """Units (size + 1,) in which no parameter curves more than log sigma, the last: a shorter one where `sizes` is too long for it.

    What is negligible beside one parameter of a huge curvature, as a small sd of a variance function far from 0 has, need not be so.
    """
    own, most = np.diagonal(H) * sizes**2, H[-1, -1]
    sharp = (own > most) & (most > 0.0)
    return np.asarray(sizes * np.sqrt(np.where(sharp, most / np.where(sharp, own, 1.0), 1.0)))


def parameter_covariance(H: Array, sizes: Array) -> Array:
    """2 H^-1 over the directions of tau that are identified."""
    return freeze(2.0 * pseudo_inverse(H, curvature_sizes(H, sizes)))


def _by_differences(fit: Fitted, reml: bool) -> tuple[Array, Array]:
    """Second derivatives in x (size, size), and d C / d x (size, p, p)."""
    steps = _steps(fit)
    size = len(steps)
    gradients, covariances = _around(fit, steps, reml)
    H = (gradients[:size] - gradients[size:]) / (2.0 * steps[:, None])
    return 0.5 * (H + H.T), (covariances[:size] - covariances[size:]) / (2.0 * steps[:, None, None])


def pseudo_inverse(H: Array, sizes: Array | None = None, flat: float = FLAT_CURVATURE) -> Array:
    """The inverse over the eigenvectors with positive, not negligible eigenvalues; NaN where there are no derivatives at all.

    sizes : what each parameter is measured in, by default 1; flat : what is negligible, relative to the largest
    """
    if sizes is not None:
        return sizes[:, None] * pseudo_inverse(H * np.outer(sizes, sizes), flat=flat) * sizes
    if not np.isfinite(H).all():
        return np.full_like(H, np.nan)
    values, vectors = np.linalg.eigh(H)
    kept = values > flat * values.max(initial=0.0)
    return np.asarray((vectors[:, kept] / values[kept]) @ vectors[:, kept].T)


def _steps(fit: Fitted) -> Array:
    """A small fraction of the standard error of each x, as the Newton matrix has it, and of the size of x.

    Near a variance of 0 the criterion is a function of x^2: the standard error of x is far longer than the way on which it is a parabola.
    """
    units = parameter_units(fit.problem, fit.point.x)
    hessian = fit.point.hessian if fit.point.hessian is not None else fit.estimate.hessian
    if hessian is None or not np.all(np.isfinite(hessian)):
        return 1e-4 * units
    diagonal = np.diagonal(hessian) * units**2
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(2.0 / diagonal)
    sizes = np.abs(fit.point.x / units)
    near = INFORMATION_STEP * np.maximum(sizes, INFORMATION_STEP)
    longest = 1e-2 * np.maximum(sizes, 1.0)
    return np.asarray(units * np.clip(np.minimum(np.where(diagonal > 0, INFORMATION_STEP * errors, 1e-4), near), 1e-7, longest))


def _around(fit: Fitted, steps: Array, reml: bool) -> tuple[Array, Array]:
    """Gradient at fixed sigma (2 size, size) and C (2 size, p, p) at x + h_i e_i, then at x - h_i e_i."""
    x, size = fit.point.x, len(steps)
    moves = np.diag(steps)
    at = np.concatenate([x + moves, x - moves])
    p = fit.problem.criterion.p
    gradients, covariances = np.empty((2 * size, size)), np.empty((2 * size, p, p))
    kernel = fit.problem.criterion.kernel
    with one_thread(fit.problem.criterion.width):
        together = kernel.evaluate_together(at) if isinstance(kernel, RandomEffectsKernel) else None
        if together is not None:
            logdet, r2 = together.gradients(reml)
            return logdet + r2 / fit.point.sigma2, together.solution.information_inverse
        for i, row in enumerate(at):
            try:
                state = kernel.evaluate(row[None], derivatives=True)
            except np.linalg.LinAlgError:  # a range that has run off: one step on V is singular to rounding, and nothing is known there
                gradients[i], covariances[i] = np.nan, np.nan
                continue
            logdet, r2 = state.gradients(reml)
            gradients[i] = logdet[0] + r2[0] / fit.point.sigma2
            covariances[i] = state.solution.information_inverse[0]
    return gradients, covariances


INVOLVED = 1e-9
"""Share of a column by which a contrast changes with it that is more than rounding."""


class Degrees(Protocol):
    """What t and F tests ask of a method."""

    def rows(self, L: Array) -> Array:
        """(r,) degrees of freedom of each row of L (r, p)."""
        ...

    def joint(self, L: Array) -> tuple[float, float]:
        """Scale of the F statistic, and denominator degrees of freedom, of L (q, p) of full row rank."""
        ...


@runtime_checkable
class QuadraticDegrees(Degrees, Protocol):
    """A method that asks of a contrast L only quadratic forms L M L'."""

    @property
    def forms(self) -> Sequence[Array]:
        """The (p, p) matrices M."""
        ...

    def from_forms(self, values: Array) -> Array:
        """(r,) degrees of freedom from the forms (r, matrices) of r contrasts."""
        ...


@dataclass(frozen=True, slots=True)
class ConstantDegrees:
    """The same for every contrast: n - p, or infinity."""

    value: float

    @property
    def forms(self) -> tuple[Array, ...]:
        return ()

    def rows(self, L: Array) -> Array:
        return np.full(len(L), self.value)

    def from_forms(self, values: Array) -> Array:
        return np.full(len(values), self.value)

    def joint(self, L: Array) -> tuple[float, float]:
        return 1.0, self.value


@dataclass(frozen=True, slots=True, eq=False)
class ByTerm:
    """Counted for each term of the fixed effects; a contrast has the smallest of the terms that it involves.

    values : of every effect of `terms`, the intercept too; coefficients : (p,) of every coefficient kept, those of its term

    A contrast involves a term when it changes with one of the term's indicator columns. Where a covariate starts does not count: what
    involves a factor involves its products with covariates.
    """

    terms: IndicatorTerms
    values: Array
    coefficients: Array

    def rows(self, L: Array) -> Array:
        return np.array([self._smallest(row[None]) for row in L])

    def joint(self, L: Array) -> tuple[float, float]:
        return 1.0, self._smallest(L)

    def of_term(self, name: str) -> float:
        """Of a term by its name."""
        return float(next(value for effect, value in zip(self.terms.effects, self.values, strict=True) if effect.name == name))

    def of_mean(self, variables: frozenset[str]) -> float:
        """Of a mean over all but these variables: of the term that has just them, or the smallest of the terms that they make up."""
        effects = self.terms.effects
        same = [e.variables == variables for e in effects]
        inside = [e.variables <= variables and not (e.is_intercept and variables) for e in effects]
        around = [e.variables >= variables for e in effects]
        chosen = next(np.flatnonzero(found) for found in (same, inside, around, [True] * len(effects)) if any(found))
        return float(self.values[chosen].min())

    def _smallest(self, L: Array) -> float:
        effects = self.terms.effects
        touched = {(e.factors, e.covariates) for e, changes in zip(effects, self._changes(L), strict=True) if changes}
        involved = [any(factors == e.factors and some <= e.covariates for factors, some in touched) for e in effects]
        return float(self.values[involved].min(initial=np.inf)) if any(involved) else np.nan

    def _changes(self, L: Array) -> list[bool]:
        """For every effect whether some row changes with one of its columns."""
        size = np.linalg.norm(L, axis=1)
        unit = L[size > 0] / size[size > 0][:, None]
        found = []
        for effect in self.terms.effects:
            columns = self.terms.columns([effect], self.terms.effects)
            found.append(bool(np.any(np.abs(unit @ columns) > INVOLVED * np.linalg.norm(columns, axis=0))))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Satterthwaite:
    """Moments of the estimated variance of a contrast: df = 2 v^2 / var(v), var(v) by the delta method."""

    curvature: ObservedInformation

    @property
    def forms(self) -> Sequence[Array]:
        return (self.curvature.C, *self.curvature.slopes)

    def rows(self, L: Array) -> Array:
        return self.from_forms(np.column_stack([((L @ M) * L).sum(1) for M in self.forms]))

    def from_forms(self, values: Array) -> Array:
        variance, slopes = values[:, 0], values[:, 1:]
        spread = ((slopes @ self.curvature.covariance) * slopes).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 * variance**2 / spread)

    def joint(self, L: Array) -> tuple[float, float]:
        return fai_cornelius(self, L, self.curvature.C)


def fai_cornelius(method: Degrees, L: Array, vcov: Array) -> tuple[float, float]:
    """Several contrasts at once: t tests on the eigenvectors of their covariance, put together by Fai and Cornelius (1996)."""
    if len(L) == 1:
        return 1.0, float(method.rows(L)[0])
    _, vectors = np.linalg.eigh(L @ vcov @ L.T)
    return 1.0, combined_df(method.rows(vectors.T @ L))


def combined_df(df: Array) -> float:
    """Denominator degrees of freedom of the mean of squared t statistics: the F whose mean is theirs."""
    q = len(df)
    if df.max() <= (1.0 + 1e-8) * df.min():
        return float(df.mean())
    if np.any(df <= 2.0):
        return 2.0
    mean = q + float(np.sum(2.0 / (df - 2.0)))
    return float(2.0 * mean / (mean - q)) if mean > q else float("inf")


def grouping_factors(design: Design) -> list[GroupingFactor]:
    """Grouping factors of the random terms, and the subject of a residual structure, once each, fewest levels first."""
    found: dict[str, GroupingFactor] = {}
    for term in design.terms:
        found.setdefault(term.group.name, term.group)
    if design.residual is not None:
        found.setdefault(design.residual.subject.name, design.residual.subject)
    return sorted(found.values(), key=lambda g: len(g.levels))


def is_nested(inner: Codes, outer: Codes) -> bool:
    """Whether every level of `inner` lies within one level of `outer`."""
    first = np.zeros(int(inner.max()) + 1, outer.dtype)
    first[inner] = outer
    return bool(np.array_equal(first[inner], outer))


def varies_within(X: Array, codes: Codes) -> Mask:
    """Which columns of X change within some level, (p,) of bool."""
    first = np.zeros(int(codes.max()) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return np.asarray(np.any(X[first[codes]] != X, axis=0))


def top_factor(design: Design, what: str) -> GroupingFactor:
    """The factor within whose levels all others lie."""
    factors = grouping_factors(design)
    if not factors:
        raise InferenceError(f"{what} needs groups of rows, and this model has none", "", "use df='residual'")
    top = factors[0]
    for other in factors[1:]:
        if not is_nested(other.codes, top.codes):
            raise InferenceError(
                f"{what} needs one factor within whose levels all others lie",
                f"{other.name} is crossed with {top.name}",
                "use df='satterthwaite' or df='kenward-roger', which do not count levels",
            )
    return top


def between_within(design: Design, standardization: Standardization) -> ByTerm:
    """subjects - 1 - rank of the terms constant within them for those; rows - subjects - rank of the others for these and the intercept.

    This is mmrm's count, and SAS's DDFM=BETWITHIN but for TYPE=UN.
    """
    return _count_strata(design, standardization, [top_factor(design, "df='between-within'")])


def containment(design: Design, standardization: Standardization) -> ByTerm:
    """nlme's rule: a term belongs to the innermost stratum in which it varies, and the intercept to the last.

    Stratum i of groups nested in one another has m_i - m_(i-1) - p_i degrees of freedom, m_0 = 1 with an intercept, the rows last.
    """
    factors = [g for g in grouping_factors(design) if any(t.group.name == g.name for t in design.terms)]
    _check_not_crossed(factors)
    return _count_strata(design, standardization, factors)


def _count_strata(design: Design, standardization: Standardization, factors: Sequence[GroupingFactor]) -> ByTerm:
    """What the terms of every stratum leave of its levels.

    factors : each nested in the one before it
    """
    terms = indicator_terms(design, standardization)
    rows = indicator_columns(design, design.frame)
    strata = np.array([_stratum(term, columns, design.nobs, factors) for term, _, columns in rows], int)
    X = standardization.design_rows(design)
    ones = np.linalg.solve(terms.gram, X.sum(axis=0))
    has_constant = bool(abs(float(ones @ terms.gram @ ones) - design.nobs) < DEPENDENT_ROWS * design.nobs)
    begin = ones[:, None] if has_constant else np.zeros((len(ones), 0))
    sizes = [int(has_constant), *(len(g.levels) for g in factors), design.nobs]
    spent, values = int(has_constant), []
    for i in range(len(sizes) - 1):
        inside = [e for e, own in zip(terms.effects, strata, strict=True) if own <= i and not e.is_intercept]
        columns = np.concatenate([begin, terms.columns(inside, terms.effects)], axis=1)
        together = len(columns) - len(left_null_space(columns, np.linalg.norm(columns, axis=0)))
        values.append(float(sizes[i + 1] - sizes[i] - (together - spent)))
        spent = together
    strata[[e.is_intercept for e in terms.effects]] = len(factors)
    of_effect = np.array(values)[strata]
    by_name = {e.name: value for e, value in zip(terms.effects, of_effect, strict=True)}
    return ByTerm(terms, of_effect, np.array([by_name[design.coef_terms[k]] for k in design.kept]))


def _stratum(term: Term, columns: dict[str, Array], n: int, factors: Sequence[GroupingFactor]) -> int:
    """How many of the factors the term varies within."""
    every = column_products(term, columns, n)
    return sum(bool(varies_within(every, g.codes).any()) for g in factors)


def _check_not_crossed(factors: Sequence[GroupingFactor]) -> None:
    for outer, inner in pairwise(factors):
        if not is_nested(inner.codes, outer.codes):
            raise InferenceError(
                "containment counts groups nested in one another",
                f"{inner.name} is crossed with {outer.name}",
                "use df='satterthwaite' or df='kenward-roger'",
            )
