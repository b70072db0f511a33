"""Iterative reweighting for variance functions of the fitted value, and centred starts for variance covariates.

Within a round the fitted values are held; the criterion of the last round is the one reported.

sigma is the sd where `exp(v)` has v = 0 and `power(v)` v = 1. Where all values lie far from there, as years do, the exponent and the
relative variances hang together along a curve that no search follows. The same model with v counted from its mean, in units of its spread,
has no such curve: it is estimated first, and its optimum said in the parameters asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm._types import LikelihoodKind
from bayeslmm.data.design import VarianceDesign
from bayeslmm.errors import Check
from bayeslmm.estimate.checks import DETERMINANT_CHECK, with_fewer_errors
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.likelihood.prediction import conditional_means, conditional_modes
from bayeslmm.likelihood.problem import Problem, build_problem

TOLERATED_DISTANCE = 4.0
"""Distance from 0, and factor between units, that a search does not mind: spreads of exp's covariate, powers of e for power's."""


@dataclass(frozen=True, slots=True, eq=False)
class _CentredCovariate:
    """A factor of the variance function about (v - center) / unit; for powers, about v / exp(center)."""

    factor: VarianceDesign
    center: float = 0.0
    unit: float = 1.0


def start_centred(problem: Problem, method: LikelihoodKind) -> Array | None:
    """x to start from, or None where the start of the problem does."""
    moved = [_centred_covariate(factor) for factor in problem.design.variance]
    if problem.structured is None or all(m.center == 0.0 and m.unit == 1.0 for m in moved):
        return None
    other = build_problem(replace(problem.design, variance=tuple(m.factor for m in moved)))
    x = np.array(estimate(other, method).x)
    begin, shift = problem.structured.variance_part.start, 0.0
    for m, size in zip(moved, problem.structured.variance.sizes, strict=True):
        part = slice(begin, begin + size)
        if m.factor.kind == "exp":
            x[part] /= m.unit
        elif m.factor.kind == "const_power" and m.center:
            x[begin] += x[begin + 1] * m.center
        # log v changes by this, and log sigma by as much the other way
        shift += float(x[part.stop - 1]) * m.center
        begin += size
    for term in problem.random.terms:
        x[term.part] = term.covariance.rescale(x[term.part], float(np.exp(shift)))
    value = problem.criterion.at(x, method == "REML", order=0).value
    start = problem.criterion.at(problem.start, method == "REML", order=0).value
    return freeze(x) if np.isfinite(value) and value < start else None


def _centred_covariate(factor: VarianceDesign) -> _CentredCovariate:
    v, shared = factor.covariate, factor.strata is None
    if v is None:
        return _CentredCovariate(factor)
    if factor.kind == "exp":
        center, unit = (float(v.mean()) if shared else 0.0), float(np.std(v)) or 1.0
        if abs(center) <= TOLERATED_DISTANCE * unit and 1.0 / TOLERATED_DISTANCE <= unit <= TOLERATED_DISTANCE:
            return _CentredCovariate(factor)
        return _CentredCovariate(replace(factor, covariate=freeze((v - center) / unit)), center, unit)
    center = float(np.mean(np.log(np.abs(v[v != 0.0])))) if np.any(v != 0.0) else 0.0
    if abs(center) <= TOLERATED_DISTANCE or not shared:
        return _CentredCovariate(factor)
    return _CentredCovariate(replace(factor, covariate=freeze(v / np.exp(center))), center)


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
    if start is None and problem.design.variance:
        start = start_centred(problem, method)
    found = estimate(problem, method, start=start, kept=kept)
    problem, found = _with_enough_probes(problem, found, method, kept)
    if problem.held_fitted is None or found.interrupted:
        return problem, found
    before, elapsed, path = weighted_fit_values(problem, found), found.elapsed, found.path
    change, step, lost = np.inf, 1.0, 0
    for _ in range(MAX_ROUNDS):
        problem = problem.with_fitted(before)
        found = estimate(problem, method, start=found.x, near=True, kept=kept)
        elapsed, path = elapsed + found.elapsed, path + found.path
        now = weighted_fit_values(problem, found)
        last, change = change, float(np.abs(now - before).max() / max(float(np.abs(before).max()), 1e-300))
        if change > SLOW_ROUND * last:
            step = max(0.5 * step, LEAST_STEP)
        before = before + step * (now - before)
        lost = 0 if found.converged else lost + 1
        if change < SETTLED_CHANGE or found.interrupted or lost == MAX_FAILED_ROUNDS:
            break
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
