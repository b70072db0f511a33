"""The optimum of a criterion, with its convergence checks and what follows from it at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm._types import FitMethod, LikelihoodKind
from bayeslmm.data.design import Design
from bayeslmm.data.identifiability import FEW_SUBJECTS_CHECK
from bayeslmm.errors import BayesLMMError, Check, DesignError, IdentifiabilityError, InferenceError
from bayeslmm.estimate.batch_descent import (
    CONTINUED_ENDS,
    SCOUTED,
    SCOUTED_STEPS,
    is_crowded,
    plain_points,
    points_aside,
    residual_points,
    search_ends,
    trial_points,
    valleys_aside,
)
from bayeslmm.estimate.checks import (
    MAX_RESTARTS,
    NULL_DIRECTION,
    SINGULAR_SD,
    BoundaryCheck,
    check_boundary,
    determinant_check,
    step_beyond,
    step_off,
)
from bayeslmm.estimate.error_boundary import (
    OWN_SD,
    VANISHING_SD,
    error_boundary_checks,
    find_unbounded,
    reproduces_response,
    singular_errors,
    vanishing_strata,
    without_strata,
)
from bayeslmm.estimate.newton import (
    DECREASE_TOLERANCE,
    MACHINE_EPSILON,
    MAX_EVALUATIONS,
    Interrupted,
    Outcome,
    limit_of_convergence,
    minimise_criterion,
)
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.prediction import conditional_means, conditional_modes
from bayeslmm.likelihood.problem import Problem, by_sums
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, RandomEffectsState, RowState
from bayeslmm.likelihood.structured.residual_covariance import is_lost_in_rounding, mean_unit_variance, typical_sd
from bayeslmm.likelihood.threads import one_thread

PREDICTED_DECREASE = 1e-8
"""Largest predicted decrease of the criterion at an optimum."""


def estimate_checks(problem: Problem, outcome: Outcome[CriterionPoint], certificate: BoundaryCheck, interrupted: bool) -> tuple[Check, ...]:
    """Convergence, the boundary, and what the design had to say."""
    return (
        _convergence(problem, outcome, interrupted),
        *_boundary(problem, outcome, certificate),
        *determinant_check(problem, outcome.point),
        *problem.design.notes,
    )


FEWER_PARAMETERS = "use a structure with fewer parameters, or one with a variance of each visit's own (fa, not fa0)"


def _convergence(problem: Problem, outcome: Outcome[CriterionPoint], interrupted: bool) -> Check:
    predicted = outcome.predicted
    if interrupted:
        return Check("convergence", "failed", "interrupted", PREDICTED_DECREASE, "the best point so far is kept; fit again to go on")
    if outcome.converged:
        return Check("convergence", "passed", predicted, limit_of_convergence(predicted, PREDICTED_DECREASE))
    vanishing = vanishing_strata(problem, outcome.point.x, VANISHING_SD)
    if vanishing:
        remedy = f"the residual sd of {', '.join(vanishing)} goes to 0: {OWN_SD}"
        return Check("convergence", "failed", predicted, PREDICTED_DECREASE, remedy)
    singular = singular_errors(problem, outcome.point.x)
    if singular:
        remedy = f"the covariance of {', '.join(singular)} becomes singular: {FEWER_PARAMETERS}"
        return Check("convergence", "failed", predicted, PREDICTED_DECREASE, remedy)
    remedy = "simplify the random effects, or look at `fit.path` for a criterion that keeps falling"
    return Check("convergence", "failed", predicted, PREDICTED_DECREASE, remedy)


def _boundary(problem: Problem, outcome: Outcome[CriterionPoint], certificate: BoundaryCheck) -> list[Check]:
    found = []
    for term, slope in zip(problem.design.terms, certificate.slopes, strict=True):
        if slope is None:
            continue
        tolerance = -1e-6 * max(1.0, abs(outcome.point.value))
        label = f"singular: {term.spec.text}"
        certified = slope >= tolerance
        remedy = (
            "a variance is 0 or a correlation is 1 in size; fixed effects and their standard errors are right, "
            "but consider a simpler term or a boundary-avoiding prior (fit('MAP'))"
        )
        if term.columns == ("Intercept",):
            remedy += f"; rows of a level that are less alike than others are described by residual='cs(1 | {term.group.name})'"
        found.append(Check(label, "noted" if certified else "failed", slope, 0.0, remedy))
    return found + error_boundary_checks(problem, outcome.point.x)


EXACT_VARIANCE = 1e-18
"""Residual variance, relative to the least-squares one, below which the fit is exact and the likelihood unbounded."""

EXACT_VARIANCE_FROM_SUMS = 1e-14
"""The same where the rows are known by their cross-products alone, which cannot tell so small a variance from their own rounding."""

DOUBTFUL_VARIANCE = 1e-6
"""Relative residual variance below which the residuals are looked at: cross-products of crossed factors begin to lose them."""

NO_RESIDUALS = 1e-6
"""Share of r^2 below which squared residuals are none: what is left is the size of the random effects, which goes to 0 with sigma."""

OWN_SQUARES = 1e-9
"""Relative rounding of the sum of squares of a standardized response."""

HIDDEN_VARIANCE, HIDDEN_RESIDUALS = 1e-9, 0.05
"""Relative residual variance from which sums tell squared residuals no better than to this share of r^2, below which there are none."""

VANISHED_VARIANCE = 1e-9
"""Generalised variance of structured errors, relative to the least-squares one, that stands for none."""


ALL_EXPLAINED = "the random effects reproduce the response exactly, or so nearly that its residuals are lost in rounding"


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """The optimum of one criterion.

    x, theta : parameters on standardized columns and on the user's
    sigma : residual standard deviation (user's scale); alpha : (p,) coefficients of the columns kept; vcov : (p, p) theirs
    criterion : -2 log likelihood (ML) or its restricted form (REML)
    gradient : of the profiled criterion in x
    path : every evaluation, (x, value)
    hessian : of the criterion in x, where the search was not the usual one and kept it
    """

    method: FitMethod
    x: Array
    theta: Array
    sigma: float
    alpha: Array
    vcov: Array
    criterion: float
    gradient: Array
    path: tuple[tuple[Array, float], ...]
    converged: bool
    interrupted: bool
    singular: bool
    checks: tuple[Check, ...]
    elapsed: float
    hessian: Array | None = None

    @property
    def is_assumed(self) -> bool:
        """Whether the parameters were assumed: no outcome, no criterion."""
        return bool(np.isnan(self.criterion))

    @property
    def restricted(self) -> bool:
        """Whether alpha was integrated out: REML, and MAP."""
        return self.method != "ML"


def estimate(
    problem: Problem, method: LikelihoodKind = "REML", start: Array | None = None, *, near: bool = False, kept: bool = False
) -> Estimate:
    """Minimise the criterion.

    method : "REML" or "ML"; start : x, by default where the problem says; kept : Ctrl-C gives the best point so far, marked
    near : the start is the optimum of nearly the same problem, whose other minima were looked for
    Raises DesignError when the residual variance is 0 at the optimum, KeyboardInterrupt where nothing is kept.
    """
    with one_thread(problem.criterion.width):
        return _estimate(problem, method, start, near, kept)


def _estimate(problem: Problem, method: LikelihoodKind, start: Array | None, near: bool, kept: bool) -> Estimate:
    begin = time.perf_counter()
    restricted, interrupted = method == "REML", False
    check_not_exact(problem)
    if problem.structured is not None and not near and reproduces_response(problem):  # its sds would go to 0 each in its own time
        raise _exact_error(ALL_EXPLAINED)
    bounds = require_bounded(problem, restricted)
    if bounds:  # where nothing is left of the residuals there is no end to be exact about
        problem = by_sums(problem)
    try:
        outcome, certificate = _search(problem, restricted, start, near)
    except Interrupted as stopped:
        if not kept:
            raise
        interrupted = True
        outcome, certificate = _lowest_point(problem, restricted, stopped)
    point = outcome.point
    if not np.isfinite(point.value) or point.state is None:
        singular = singular_errors(problem, problem.start)
        remedy = f"{', '.join(singular)} is singular: {FEWER_PARAMETERS}" if singular else "look for a term that explains every observation"
        raise DesignError("the likelihood does not exist at any point tried", ", ".join(singular), remedy)
    by_rows = problem.structured is not None or isinstance(point.state, RowState)
    exact = EXACT_VARIANCE if by_rows else EXACT_VARIANCE_FROM_SUMS
    if point.sigma2 * _unit_variance(problem, point.x) < exact or (
        point.sigma2 < DOUBTFUL_VARIANCE and _is_rounding(problem, point, restricted)
    ):
        raise _exact_error(ALL_EXPLAINED)
    arrived = outcome.converged and outcome.predicted <= PREDICTED_DECREASE
    if problem.structured is not None and not arrived and _is_degenerate(problem, point, restricted):
        raise _exact_error("the response is constant within subjects, or exact: the errors are perfectly correlated")
    if not (outcome.converged or interrupted) and problem.design.spec.check == "error":
        _check_bounded(problem)
    found = make_estimate(problem, method, outcome, certificate, time.perf_counter() - begin, interrupted)
    return replace(found, checks=(*found.checks, *bounds)) if bounds else found


def _lowest_point(problem: Problem, restricted: bool, stopped: Interrupted) -> tuple[Outcome[CriterionPoint], BoundaryCheck]:
    """The lowest point of a search that was broken off."""
    x, value = min(stopped.path, key=lambda evaluation: evaluation[1])
    if not np.isfinite(value):
        raise stopped
    point = problem.criterion.at(x, restricted)
    return Outcome(point, False, np.nan, stopped.path), check_boundary(problem, point, restricted)


def _check_bounded(problem: Problem) -> None:
    """Refuse a search that did not end where the likelihood of an unstructured covariance has no maximum."""
    for note in problem.design.notes:
        if note.name == FEW_SUBJECTS_CHECK:
            what = f"the likelihood grows as the covariance of the errors becomes singular: {note.value}"
            remedy = 'use a structure with fewer parameters; or give priors and use fit("MAP") or sample(); or check="warn" to go on'
            raise IdentifiabilityError(what, problem.design.spec.residual.text if problem.design.spec.residual else "", remedy)


def _is_degenerate(problem: Problem, point: CriterionPoint, restricted: bool) -> bool:
    """Whether the determinant of V per row, relative to the least-squares variance, has fallen to rounding."""
    assert point.state is not None
    df = problem.criterion.df(restricted)
    generalised = float(point.state.solution.logdet[0]) / df + float(np.log(max(point.sigma2, 1e-300)))
    return generalised < float(np.log(VANISHED_VARIANCE))


def search(problem: Problem, restricted: bool, start: Array | None = None) -> tuple[Outcome[CriterionPoint], BoundaryCheck]:
    """The lowest point that Newton's method finds from `start`, by default where the problem says, and from what looks better elsewhere."""
    with one_thread(problem.criterion.width):
        return _search(problem, restricted, start)


IMMEDIATE_EVALUATIONS = 2
"""Evaluations in which a search ends that began at the optimum: linear equations of the moments of all rows have no second solution."""

ERROR_STARTS = 2
"""How many searches begin besides where the structure of the errors calls for it."""


def _search(problem: Problem, restricted: bool, start: Array | None, near: bool = False) -> tuple[Outcome[CriterionPoint], BoundaryCheck]:
    # a criterion of n rows is known to about n roundings: what is left to gain below that could not be seen, and moves no parameter
    tolerance = max(DECREASE_TOLERANCE, 2.0 * MACHINE_EPSILON * problem.criterion.n)
    path: list[tuple[Array, float]] = []
    outcome = minimise_criterion(problem, restricted, problem.start if start is None else start, tolerance)
    at_once = start is None and len(outcome.path) <= IMMEDIATE_EVALUATIONS
    path += outcome.path
    try:
        outcome, certificate = _off_boundary(problem, restricted, outcome, tolerance, path)
        crowded = not near and is_crowded(problem)

        def lowest(starts: list[Array]) -> tuple[Outcome[CriterionPoint], BoundaryCheck]:
            best, check = outcome, certificate
            for x in starts:
                if best.converged:  # else whatever is lower counts
                    scout = _search_off_boundary(problem, restricted, x, SCOUTED, path, SCOUTED_STEPS)[0]
                    if scout.point.value > best.point.value - SCOUTED:
                        continue
                    x = scout.point.x
                found, seen = _search_off_boundary(problem, restricted, x, tolerance, path)
                if found.point.value < best.point.value and not _is_lost(problem, restricted, found, best, crowded):
                    best, check = found, seen
            return best, check

        # the way to an sd of 0 has no end: what lies there is known before anything is compared with it
        outcome, certificate = lowest([] if near else without_strata(problem, outcome.point.x))
        looked = not at_once and bool(problem.random.size or crowded)
        starts = [lower.x for lower in _lower_points(problem, restricted, outcome.point, crowded)] if looked else []
        if not at_once and problem.size:
            unit = typical_sd(problem, outcome.point.x)
            starts += valleys_aside(problem, restricted, outcome.point.x, outcome.point.value, unit)
        if crowded and problem.structured is not None:
            starts += list(points_aside(problem, restricted, outcome.point.x))
        outcome, certificate = lowest(starts + ([] if near else _starts_of_errors(problem, restricted, outcome.point)))
    except Interrupted as stopped:
        raise Interrupted((*path, *stopped.path)) from None
    point, certificate = at_boundary(problem, outcome.point, restricted, certificate)
    bare = without_nugget(problem, point, restricted)
    if bare is not None:
        point, certificate = bare, replace(certificate, nearly=True)
    if vanishing_strata(problem, point.x) or (problem.random.size and singular_errors(problem, point.x)):
        certificate = replace(certificate, nearly=True)
    return Outcome(point, outcome.converged, outcome.predicted, tuple(path)), certificate


def _is_lost(problem: Problem, restricted: bool, found: Outcome[CriterionPoint], known: Outcome[CriterionPoint], crowded: bool) -> bool:
    """Whether a lower end is one of rounding, or of a likelihood without a bound at errors that are singular, and the end known is not."""
    if crowded and is_lost_in_rounding(problem, found.point.x) and not is_lost_in_rounding(problem, known.point.x):
        return True
    return not found.point.value + _rounding_of_value(problem, found.point, restricted) < known.point.value


def _is_rounding(problem: Problem, point: CriterionPoint, restricted: bool) -> bool:
    """Whether so small a residual variance is only rounding: that of the rows is another, or without residuals has no end."""
    if problem.structured is not None or problem.criterion.held is not None or not problem.design.terms:
        return False  # a sigma that is held may be any share of the residuals
    if _has_own_rows(problem):
        squares = _squares_of_rows(problem, point) / (problem.criterion.df(restricted) * problem.sigma2(point.sigma2))
        if squares > 2.0:
            return True
        vanished = squares < NO_RESIDUALS
    else:
        sums = problem.criterion.df(restricted) * point.sigma2
        vanished = point.sigma2 < HIDDEN_VARIANCE and sums - _penalty(point) < HIDDEN_RESIDUALS * sums
    return vanished and _falls_with_sigma(problem, point, restricted)


def _falls_with_sigma(problem: Problem, point: CriterionPoint, restricted: bool) -> bool:
    """Whether the criterion has fallen since sigma was ten times as large beside the same effects, as it does by 4.6 for each row left.

    By REML it need not: where fixed effects take what is left within levels, a sigma of 0 is the end of a likelihood that is bounded.
    """
    x = point.x.copy()
    for term in problem.random.terms:
        T = term.covariance.factor(x[term.part])
        x[term.part] = term.covariance.from_matrix(0.01 * T @ T.T)
    return problem.criterion.at(x, restricted).value > point.value + 1.0


def _penalty(point: CriterionPoint) -> float:
    """u'u of the spherical random effects at their modes, which is r^2 less the squared residuals; on standardized columns."""
    state = point.state
    assert isinstance(state, RandomEffectsState)
    return sum(
        float((np.linalg.lstsq(T[0], modes[:, 0], rcond=None)[0] ** 2).sum())
        for T, modes in zip(state.parameters.blocks(state.x), state.modes(), strict=True)
    )


def _rounding_of_value(problem: Problem, point: CriterionPoint, restricted: bool) -> float:
    """How far the criterion by sums lies below that of the squared residuals of the rows at the same coefficients alone."""
    by_rows = problem.structured is not None or isinstance(point.state, RowState)
    if by_rows or problem.criterion.held is not None or not (problem.design.terms and _has_own_rows(problem)):
        return 0.0
    df = problem.criterion.df(restricted)
    return df * float(np.log(max(1.0, _squares_of_rows(problem, point) / (df * problem.sigma2(point.sigma2)))))


def _has_own_rows(problem: Problem) -> bool:
    """Whether the rows of the design are those of the sums: a refit has sums of fewer rows, or of another response, on the same columns."""
    kernel, n = problem.criterion.kernel, problem.criterion.n
    if not problem.design.in_memory or n != problem.design.nobs:
        return False
    # a response is standardized to a mean square of 1
    return not isinstance(kernel, RandomEffectsKernel) or abs(float(kernel.cross.Xy[-1, -1]) - n) <= OWN_SQUARES * n


def _squares_of_rows(problem: Problem, point: CriterionPoint) -> float:
    """e'We of e = y - X alpha - Z beta on the user's scale: no more than r^2, of which sigma^2 is made, but for rounding."""
    assert point.state is not None
    design, alpha = problem.design, problem.alpha(point.state.solution.alpha[0])
    residual = design.y - conditional_means(problem, point, alpha, conditional_modes(problem, point))
    return float((residual**2 if design.weights is None else design.weights * residual**2).sum())


def _starts_of_errors(problem: Problem, restricted: bool, point: CriterionPoint) -> list[Array]:
    """Where a search begins besides, because of the structure of the errors."""
    trial = residual_points(problem, point.x)
    if not len(trial):
        return []
    values = problem.criterion.values(trial, restricted)
    return [trial[i] for i in np.argsort(values, kind="stable")[:ERROR_STARTS] if np.isfinite(values[i])]


def _search_off_boundary(
    problem: Problem, restricted: bool, x: Array, tolerance: float, path: list[tuple[Array, float]], iterations: int = MAX_EVALUATIONS
) -> tuple[Outcome[CriterionPoint], BoundaryCheck]:
    outcome = minimise_criterion(problem, restricted, x, tolerance, iterations)
    path += outcome.path
    return _off_boundary(problem, restricted, outcome, tolerance, path)


def _off_boundary(
    problem: Problem, restricted: bool, outcome: Outcome[CriterionPoint], tolerance: float, path: list[tuple[Array, float]]
) -> tuple[Outcome[CriterionPoint], BoundaryCheck]:
    """From beyond every boundary that is none, or that has a lower point behind it, once more; path : grows by what is evaluated."""
    certificate = check_boundary(problem, outcome.point, restricted)
    for _ in range(MAX_RESTARTS):
        if not certificate.singular:
            break
        downhill = certificate.worst < -1e-6 * max(1.0, abs(outcome.point.value))
        lower = (step_off if downhill else step_beyond)(problem, outcome.point, certificate, restricted)
        if lower is None:
            break
        outcome = minimise_criterion(problem, restricted, lower.x, tolerance)
        path += outcome.path
        certificate = check_boundary(problem, outcome.point, restricted)
    return outcome, certificate


def _lower_points(problem: Problem, restricted: bool, point: CriterionPoint, crowded: bool) -> list[CriterionPoint]:
    """Lower points away from the end of a search; those of other minima that are lower too where rows are few."""
    below = point.value - 1e-9 * max(1.0, abs(point.value))
    trial = trial_points(problem, point.x, typical_sd(problem, point.x)) if crowded else plain_points(problem, point.x)
    values = problem.criterion.values(trial, restricted)
    if crowded:
        trial, values = search_ends(by_sums(problem), restricted, point.value, trial, values)
    return [problem.criterion.at_in_one_thread(trial[i], restricted) for i in np.argsort(values)[:CONTINUED_ENDS] if values[i] < below]


NO_NUGGET = -80.0
"""A nugget's free parameter at which its share is exactly 0."""


def without_nugget(problem: Problem, point: CriterionPoint, restricted: bool) -> CriterionPoint | None:
    """The point with nuggets that have fallen to nothing at exactly 0, where that is no worse; None where there are none."""
    x = point.x.copy()
    at = problem.nuggets[x[problem.nuggets] < SMALL_NUGGET]
    if not len(at):
        return None
    x[at] = NO_NUGGET
    trial = problem.criterion.at(x, restricted)
    return trial if np.isfinite(trial.value) and trial.value <= point.value + 16 * MACHINE_EPSILON * abs(point.value) else None


SMALL_NUGGET = -7.0
"""A nugget's free parameter, the logit of its share, below which 0 is tried."""


def at_boundary(
    problem: Problem, point: CriterionPoint, restricted: bool, certificate: BoundaryCheck
) -> tuple[CriterionPoint, BoundaryCheck]:
    """The end of a search with directions that are nearly 0 at exactly 0.

    On the way to a variance of 0 the criterion falls with its square: a search may end before it is there.
    """
    if certificate.nearly:
        there = snap_to_boundary(problem, point, restricted, SINGULAR_SD)
        if there.value < point.value:
            again = check_boundary(problem, there, restricted)
            if again.worst >= 0.0:
                return there, again
    return (snap_to_boundary(problem, point, restricted) if certificate.singular else point), certificate


def snap_to_boundary(problem: Problem, point: CriterionPoint, restricted: bool, size: float = NULL_DIRECTION) -> CriterionPoint:
    """Directions of relative sds below `size` set to exactly 0, where the criterion does not mind."""
    x = point.x.copy()
    limit = size * typical_sd(problem, point.x)
    for term in problem.random.terms:
        T = term.covariance.factor(x[term.part])
        left, sizes, right = np.linalg.svd(T)
        if sizes.min(initial=np.inf) < limit:
            kept = (left * np.where(sizes < limit, 0.0, sizes)) @ right
            x[term.part] = term.covariance.from_matrix(kept @ kept.T)
    trial = problem.criterion.at(x, restricted)
    close = 1e-9 + 16 * MACHINE_EPSILON * abs(point.value)
    return trial if np.isfinite(trial.value) and trial.value <= point.value + close else point


def _unit_variance(problem: Problem, x: Array) -> float:
    """The mean of R0's diagonal: what sigma^2 stands for may be far from the size of the errors under a variance function."""
    if problem.structured is None:
        return 1.0
    return mean_unit_variance(problem, x) * problem.standardization.weight_mean


def require_bounded(problem: Problem, restricted: bool) -> list[Check]:
    """Refuse a likelihood that grows without end; a check that fails where it may."""
    found = find_unbounded(problem, restricted)
    if found is None:
        return []
    method = "restricted likelihood" if restricted else "likelihood"
    if found.strata:
        response, end = f"response in {found.strata}", f"the residual sd of {found.strata} goes"
        simpler = "join levels of what the errors differ by"
    else:
        response, end, simpler = "response", "sigma goes", "use a simpler random part"
    remedy = simpler + ("" if restricted else ", or REML") + '; or give priors and use fit("MAP") or sample()'
    if found.surely and problem.design.spec.check == "error":
        reason = f"{found.what} reproduce any {response}: the {method} grows without end as {end} to 0"
        raise IdentifiabilityError(reason, problem.design.spec.formula.text, remedy + '; or check="warn" to go on')
    verb = "reproduce any" if found.surely else "can reproduce a"
    return [Check("bounded", "failed", f"{found.what} {verb} {response}, the {method} then grows without end as {end} to 0", None, remedy)]


def check_not_exact(problem: Problem) -> None:
    """A response that the fixed effects reproduce has no residual variance."""
    largest, spread, left = problem.design.response_size
    if left == 0.0 or problem.standardization.y_scale <= max(64 * MACHINE_EPSILON * largest, 1e-13 * spread):
        raise _exact_error("the fixed effects reproduce the response exactly")


def _exact_error(what: str) -> BayesLMMError:
    return DesignError(
        f"{what}: the residual variance is 0 and the likelihood unbounded",
        where="the response",
        remedy="look for a term that repeats the response or identifies every row",
    )


def estimates_at(problem: Problem, point: CriterionPoint) -> dict[str, Any]:
    """What follows from a point alone: x, theta, sigma, alpha, vcov, the criterion and its gradient."""
    assert point.state is not None
    solution, c = point.state.solution, problem.standardization
    vcov = point.sigma2 * c.y_scale**2 * (c.back @ solution.information_inverse[0] @ c.back.T)
    return {
        "x": freeze(point.x),
        "theta": freeze(problem.theta(point.x)),
        "sigma": float(np.sqrt(problem.sigma2(point.sigma2))),
        "alpha": freeze(problem.alpha(solution.alpha[0])),
        "vcov": freeze(0.5 * (vcov + vcov.T)),
        "criterion": point.value,
        "gradient": freeze(point.gradient),
    }


def make_estimate(
    problem: Problem,
    method: FitMethod,
    outcome: Outcome[CriterionPoint],
    certificate: BoundaryCheck,
    elapsed: float,
    interrupted: bool = False,
) -> Estimate:
    """What follows from the best point and from how it was found."""
    return Estimate(
        method=method,
        **estimates_at(problem, outcome.point),
        path=outcome.path,
        converged=outcome.converged,
        interrupted=interrupted,
        singular=certificate.singular or certificate.nearly,
        checks=estimate_checks(problem, outcome, certificate, interrupted),
        elapsed=elapsed,
    )


class Fitted(Protocol):
    """A design, its problem, the optimum, and the criterion evaluated there."""

    @property
    def design(self) -> Design: ...
    @property
    def problem(self) -> Problem: ...
    @property
    def estimate(self) -> Estimate: ...
    @property
    def point(self) -> CriterionPoint: ...
    @property
    def nobs(self) -> int: ...
    @property
    def sigma(self) -> float: ...


def is_restricted(fit: Fitted) -> bool:
    """Whether the criterion is the restricted one: REML, and MAP, which integrates a flat alpha out as well."""
    return fit.estimate.method != "ML"


def require_outcome(fit: Fitted, verb: str) -> None:
    """Refuse a verb that reads the outcome where parameters were assumed."""
    if fit.estimate.is_assumed:
        raise InferenceError(f"{verb} needs an outcome, and this fit has assumed parameters", "assume", "fit a model to data")


def require_finished[F: Fitted](fit: F) -> F:
    """The fit that a verb goes on from; KeyboardInterrupt where Ctrl-C ended it early."""
    if fit.estimate.interrupted:
        raise KeyboardInterrupt
    return fit
