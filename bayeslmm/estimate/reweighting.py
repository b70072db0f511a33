"""Iterative reweighting for variance functions of the fitted value, and centred starts for variance covariates.

Within a round the fitted values are held; the criterion of the last round is the one reported.

sigma is the sd where `exp(v)` has v = 0 and `power(v)` v = 1. Where all values lie far from there, as years do, the exponent and the
relative variances hang together along a curve that no search follows. The same model with v counted from its mean, in units of its spread,
has no such curve: it is estimated first, and its optimum said in the parameters asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm._types import LikelihoodKind
from bayeslmm.data.design import VarianceDesign
from bayeslmm.errors import Check, DesignError
from bayeslmm.estimate.checks import DETERMINANT_CHECK, with_fewer_errors
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.formula.parse import variance_text
from bayeslmm.likelihood.prediction import conditional_means, conditional_modes
from bayeslmm.likelihood.problem import Problem, build_problem

TOLERATED_DISTANCE = 4.0
"""Distance from 0, and factor between units, that a search does not mind: spreads of exp's covariate, powers of e for power's."""


@dataclass(frozen=True, slots=True, eq=False)
class _CentredCovariate:
    """The covariate of a factor of the variance function about (v - center) / unit; for powers, about v / exp(center)."""

    kind: str
    center: float = 0.0
    unit: float = 1.0

    @property
    def moves(self) -> bool:
        return self.center != 0.0 or self.unit != 1.0

    def apply(self, values: Array) -> Array:
        return (values - self.center) / self.unit if self.kind == "exp" else values / np.exp(self.center)


@dataclass(frozen=True, slots=True, eq=False)
class _CentredVariances:
    """The same model with the covariates of its variance function centred, and its parameters x in both."""

    problem: Problem
    covariates: tuple[_CentredCovariate, ...]

    @classmethod
    def of(cls, problem: Problem) -> _CentredVariances | None:
        """None where nothing is far enough off to be moved."""
        if problem.structured is None:
            return None
        variance = problem.structured.variance
        covariates = tuple(_centred_covariate(f, v) for f, v in zip(variance.factors, variance.values, strict=True))
        return cls(problem, covariates) if any(c.moves for c in covariates) else None

    def move(self, problem: Problem) -> Problem:
        """A problem of this design with its covariates centred as these."""
        kernel = problem.structured
        assert kernel is not None
        own = zip(self.covariates, kernel.variance.values, strict=True)
        values = tuple(v if v is None else freeze(c.apply(v)) for c, v in own)
        variance = replace(kernel.variance, values=values)
        return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, variance=variance)))

    def uncentre(self, x: Array) -> Array:
        """x of the model asked for, from that of the centred one."""
        x, shift = np.array(x), 0.0
        for c, part in self._parts():
            if c.kind == "exp":
                x[part] /= c.unit
            elif c.kind == "const_power" and c.moves:
                x[part.start] += x[part.start + 1] * c.center
            shift += float(x[part.stop - 1]) * c.center if c.moves else 0.0
        return self._rescale(x, shift)

    def centre(self, x: Array) -> Array:
        """The inverse of `uncentre`."""
        x, shift = np.array(x), 0.0
        for c, part in self._parts():
            shift += float(x[part.stop - 1]) * c.center if c.moves else 0.0
            if c.kind == "exp":
                x[part] *= c.unit
            elif c.kind == "const_power" and c.moves:
                x[part.start] -= x[part.start + 1] * c.center
        return self._rescale(x, -shift)

    def _rescale(self, x: Array, shift: float) -> Array:
        """log of the multiplier changes by this, and log sigma by as much the other way."""
        for term in self.problem.random.terms:
            x[term.part] = term.covariance.rescale(x[term.part], float(np.exp(shift)))
        return x

    def _parts(self) -> Iterator[tuple[_CentredCovariate, slice]]:
        kernel = self.problem.structured
        assert kernel is not None
        begin = kernel.variance_part.start
        for c, size in zip(self.covariates, kernel.variance.sizes, strict=True):
            yield c, slice(begin, begin + size)
            begin += size


def start_centred(problem: Problem, method: LikelihoodKind) -> Array | None:
    """x to start from, or None where the start of the problem does."""
    centred = _CentredVariances.of(problem)
    if centred is None:
        return None
    x = centred.uncentre(estimate(centred.move(problem), method).x)
    value = problem.criterion.at(x, method == "REML", order=0).value
    start = problem.criterion.at(problem.start, method == "REML", order=0).value
    return freeze(x) if np.isfinite(value) and value < start else None


def _centred_covariate(factor: VarianceDesign, v: Array | None) -> _CentredCovariate:
    shared, kind = factor.strata is None, factor.kind
    tolerated = 0.0 if factor.is_of_fitted else TOLERATED_DISTANCE
    if v is None:
        return _CentredCovariate(kind)
    if kind == "exp":
        center, unit = (float(v.mean()) if shared else 0.0), float(np.std(v)) or 1.0
        if abs(center) <= tolerated * unit and 1.0 / TOLERATED_DISTANCE <= unit <= TOLERATED_DISTANCE:
            return _CentredCovariate(kind)
        return _CentredCovariate(kind, center, unit)
    center = float(np.mean(np.log(np.abs(v[v != 0.0])))) if np.any(v != 0.0) else 0.0
    return _CentredCovariate(kind) if abs(center) <= tolerated or not shared else _CentredCovariate(kind, center)


MAX_ROUNDS = 200

SLOW_ROUND = 0.9
LEAST_STEP = 0.25
"""Of the way to the new fitted values, which is halved down to this after a round that leaves more than such a share of the last change:
whole steps may go to and fro between two fits for ever, around a point where weights and fit agree."""

MAX_FAILED_ROUNDS = 5
"""Rounds in a row whose search does not converge, after which the objective is taken to have no minimum."""

SETTLED_CHANGE = 1e-9
"""Largest change of a fitted value, relative to their size, between two rounds."""


def fit_reweighted(problem: Problem, method: LikelihoodKind, *, start: Array | None = None, kept: bool = False) -> tuple[Problem, Estimate]:
    """Estimate, round after round where the variance depends on the fitted value; the problem returned is that of the last round.

    start : x, by default where the problem says; kept : Ctrl-C gives the best point so far, marked as interrupted
    """
    if problem.held_fitted is not None:
        return _settle_weights(problem, method, start, kept)
    if start is None and problem.design.variance:
        start = start_centred(problem, method)
    found = estimate(problem, method, start=start, kept=kept)
    return _with_enough_probes(problem, found, method, kept)


def _settle_weights(problem: Problem, method: LikelihoodKind, start: Array | None, kept: bool) -> tuple[Problem, Estimate]:
    """Fits in turns with weights of the fit before, about typical fitted values; the last in the parameters asked for.

    The first weights, where no start has any, are those of the fit with equal variances.
    """
    if start is None:
        equal = build_problem(replace(problem.design, variance=()))
        problem = problem.with_fitted(weighted_fit_values(equal, estimate(equal, method)))
    centred = _CentredVariances.of(problem)
    inner = problem if centred is None else centred.move(problem)
    found = estimate(inner, method, start=start if start is None or centred is None else centred.centre(start), kept=kept)
    elapsed, path, change, step, lost = found.elapsed, found.path, np.inf, 1.0, 0
    before = weighted_fit_values(inner, found)
    for _ in range(0 if found.interrupted else MAX_ROUNDS):
        problem = problem.with_fitted(before)
        inner = problem if centred is None else centred.move(problem)
        found = estimate(inner, method, start=found.x, near=True, kept=kept)
        elapsed, path = elapsed + found.elapsed, path + found.path
        now = weighted_fit_values(inner, found)
        last, change = change, float(np.abs(now - before).max() / max(float(np.abs(before).max()), 1e-300))
        if change > SLOW_ROUND * last:
            step = max(0.5 * step, LEAST_STEP)
        before = before + step * (now - before)
        lost = 0 if found.converged else lost + 1
        if change < SETTLED_CHANGE or found.interrupted or lost == MAX_FAILED_ROUNDS:
            break
    if centred is not None:
        with np.errstate(over="ignore"):
            x = centred.uncentre(found.x)
            value = problem.criterion.at(x, method == "REML", order=0).value if np.isfinite(x).all() else np.inf
        if not np.isfinite(value):
            raise _unwritten(problem, x)
        outer = estimate(problem, method, start=x, near=True, kept=kept)
        elapsed, path = elapsed + outer.elapsed, outer.path
        found = replace(outer, interrupted=found.interrupted or outer.interrupted)
    if found.interrupted:
        return problem, replace(found, elapsed=elapsed, path=path)
    verdict = Check(
        "variance of the fitted value",
        "passed" if change < SETTLED_CHANGE else "failed",
        change,
        SETTLED_CHANGE,
        "" if change < SETTLED_CHANGE else "weights and fit do not settle; use a covariate instead of the fitted value",
    )
    return problem, replace(
        found, elapsed=elapsed, path=path, converged=found.converged and change < SETTLED_CHANGE, checks=(*found.checks, verdict)
    )


def _unwritten(problem: Problem, x: Array) -> DesignError:
    """The error of a fit whose sigma, the sd at a fitted value of 1 or 0, is no floating-point number."""
    kernel = problem.structured
    assert kernel is not None
    largest = float(np.abs(x[kernel.variance_part]).max(initial=0.0))
    what = f"the variance function runs off to a parameter of {largest:.3g}, where sigma is no number any more"
    remedy = "means that hardly differ tell no variance function: leave it out, or use a covariate"
    return DesignError(what, variance_text(problem.design.spec.variance), remedy)


MOST_ENLARGEMENTS = 3
"""How often probes are made more."""


def _with_enough_probes(problem: Problem, found: Estimate, method: LikelihoodKind, kept: bool) -> tuple[Problem, Estimate]:
    """Estimated again from more probes while their Monte Carlo error is too large a share of the standard errors."""
    for _ in range(MOST_ENLARGEMENTS):
        if found.interrupted or not any(check.name == DETERMINANT_CHECK and check.verdict == "failed" for check in found.checks):
            break
        more = with_fewer_errors(problem, problem.criterion.at(found.x, method == "REML"))
        if more is None:
            break
        problem = more
        again = estimate(problem, method, start=found.x, near=True, kept=kept)
        found = replace(again, elapsed=found.elapsed + again.elapsed, path=found.path + again.path)
    return problem, found


def weighted_fit_values(problem: Problem, found: Estimate) -> Array:
    """x'alpha + z'beta of every row, without the offset."""
    design = problem.design
    point = problem.criterion.at(found.x, found.restricted, order=0)
    means = conditional_means(problem, point, found.alpha, conditional_modes(problem, point))
    return means if design.offset is None else means - design.offset
