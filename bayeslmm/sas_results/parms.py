"""PARMS: candidate starting values of the covariance parameters, and parameters held at their values.

SAS's parameters are functions psi(tau), tau = (x, log sigma); a point with given psi is found by Gauss-Newton, so every structure has one
without an inverse of its own. With some held the criterion before sigma is profiled out is minimised along psi_held = const.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from bayeslmm._arrays import Array, freeze
from bayeslmm.errors import Check, SpecificationError, warn_user
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.estimate.reweighting import fit_reweighted
from bayeslmm.inference.fixed_effects.degrees_of_freedom import (
    ObservedInformation,
    observed_information,
    parameter_sizes,
    pseudo_inverse,
)
from bayeslmm.inference.fixed_effects.kenward_roger import KenwardRoger, expected_curvature, improve
from bayeslmm.inference.fixed_effects.tests import Inference
from bayeslmm.likelihood.criterion import CriterionPoint
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import parameter_units
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.model.fit import Fit
from bayeslmm.model.lmm import LMM
from bayeslmm.sas.language.program import ParmsStatement
from bayeslmm.sas.translation import Translation
from bayeslmm.sas_results.covariance_parameters import CovarianceListing, tau_of


@dataclass(frozen=True, slots=True, eq=False)
class FreeParameters:
    """The directions of tau in which the parameters may move.

    basis : (size + 1, k) orthonormal; bend : (size + 1, size + 1) sum of multipliers times the curvature of what is held, which the
    Hessian of the criterion loses along the constraint
    """

    basis: Array
    second_derivative: Array


class FixedParameterFit(Fit):
    """A fit whose residual variance is not the one that its other parameters would have profiled out."""

    def __init__(self, model: LMM, problem: Problem, estimate: Estimate, sigma2: float) -> None:
        super().__init__(model, problem, estimate, estimate.elapsed)
        self._sigma2 = sigma2

    @cached_property
    def point(self) -> CriterionPoint:
        """The criterion at the optimum, with the residual variance as held."""
        return replace(self.problem.criterion.at(self.estimate.x, self.restricted), sigma2=self._sigma2)


class FixedParameterInference(Inference):
    """`Inference` along the free directions; None where all are free. improved : Kenward and Roger's adjustment is that of 2009."""

    def __init__(self, fit: Fit, free: FreeParameters | None, improved: bool = False) -> None:
        super().__init__(fit)
        self.free, self.improved = free, improved
        self._improved: KenwardRoger | None = None

    def adjustment(self, information: str, linear: bool) -> KenwardRoger:
        if not self.improved:
            return super().adjustment(information, linear)
        if self._improved is None:
            first, whole, point = super().adjustment(information, True), super().adjustment(information, False), self.fit.point
            # where V is linear in its parameters there is nothing to improve
            linear = np.array_equal(first.adjusted, whole.adjusted)
            self._improved = first if linear else improve(self.fit.problem, point.x, point.sigma2, self.tau_covariance(information), first)
        return self._improved

    def tau_covariance(self, information: str) -> Array:
        """Of (x, log sigma), by the observed or the expected information; the latter follows from that of the components psi(tau)."""
        if information == "observed":
            return self.curvature.covariance
        return expected_curvature(self.fit, self.curvature).covariance

    @cached_property
    def curvature(self) -> ObservedInformation:
        found = observed_information(self.fit)
        if self.free is None:
            return found
        sizes = parameter_sizes(self.fit.problem, self.fit.point.x)
        N = sizes[:, None] * np.linalg.qr(self.free.basis / sizes[:, None])[0]
        inner = 2.0 * pseudo_inverse(N.T @ (found.hessian - self.free.second_derivative) @ N) if N.shape[1] else np.zeros((0, 0))
        return replace(found, covariance=N @ inner @ N.T)


MAX_CANDIDATES = 10_000
REACHED_GAP = 1e-6
"""Largest gap, relative to the parameters, between those asked for and those of the point found."""


@dataclass(frozen=True, slots=True, eq=False)
class ParmsSearch:
    """A fit, the directions of tau left free (None: all), and the candidates tried with their -2 log likelihoods.

    variances : the residual variance that is best beside each candidate; () where the variance given is taken
    """

    fit: Fit
    free: FreeParameters | None = None
    held: tuple[int, ...] = ()
    candidates: tuple[tuple[float, ...], ...] = ()
    values: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()


def fit_with_parms(model: LMM, translation: Translation, make: Callable[[], CovarianceListing]) -> ParmsSearch:
    """Fit the model of a program, PARMS and all."""
    parms = translation.program.parms
    model.design.require_identified()
    if parms is None and not any(block.data_set and block.type.name != "LIN" for block in translation.blocks):
        problem, found = fit_reweighted(model.problem, translation.method)
        return ParmsSearch(_warn(Fit(model, problem, found, found.elapsed)))
    problem, restricted, listing = model.problem, translation.method == "REML", make()
    found = estimate(problem, translation.method)
    first = tau_of(found.x, _standardized_sigma2(problem, found))
    names = listing.rows(first)
    known = [k for k, row in enumerate(names) if row.known]
    if parms is None:
        candidates: tuple[tuple[float, ...], ...] = (tuple(1.0 if row.known else row.value for row in names),)
    else:
        candidates = tuple(_with_ones(values, known) for values in _candidates(parms, len(names) - len(known)))
    points: list[Array] = []
    for candidate in candidates:  # neighbours in the grid lead to one another
        points.append(_point(listing, points[-1] if points else first, first, np.array(candidate)))
    variances: tuple[float, ...] = ()
    if profiles_residual(translation) and not known:
        points = [_profile_scale(problem, tau, restricted) for tau in points]
        variances = tuple(listing.residual(tau) for tau in points)
    values = tuple(_value(problem, tau, restricted) for tau in points)
    best = points[int(np.argmin(values))]
    free_rows = [k for k in range(len(names)) if k not in known]
    if parms is not None and any(k > len(free_rows) for k in parms.hold):
        what = f"HOLD={max(parms.hold)}: there are {len(free_rows)} covariance parameters"
        raise SpecificationError(what, parms.spot, "number them as the CovParms table lists them")
    noiter, asked = (False, ()) if parms is None else (parms.noiter, parms.hold)
    held = tuple(range(len(names))) if noiter else tuple(sorted({*known, *(free_rows[k - 1] for k in asked)}))
    if not held:
        return ParmsSearch(Fit(model, problem, found, found.elapsed), None, (), candidates, values, variances)
    tau, free = _minimize_held(listing, best, held, restricted)
    estimates = _estimate_at(problem, found, tau)
    fit = FixedParameterFit(model, problem, estimates, float(np.exp(2.0 * tau[-1])))
    return ParmsSearch(fit, free, held, candidates, values, variances)


def fit_at_values(model: LMM, listing: CovarianceListing, found: Estimate, wanted: Array) -> Fit:
    """The fit whose covariance parameters have these values."""
    first = tau_of(found.x, _standardized_sigma2(model.problem, found))
    tau = _point(listing, np.append(model.problem.start, first[-1]), first, wanted)
    return FixedParameterFit(model, model.problem, _estimate_at(model.problem, found, tau), float(np.exp(2.0 * tau[-1])))


def profiles_residual(translation: Translation) -> bool:
    """Whether the residual variance is profiled out: PARMS then give the others relative to it, unless some are held at their values."""
    parms = translation.program.parms
    kept = translation.program.proc.noprofile or (parms is not None and (parms.noprofile or bool(parms.hold)))
    return translation.residual and not kept


def _profile_scale(problem: Problem, tau: Array, restricted: bool) -> Array:
    """The same covariance but for its scale, which is the best one."""
    return tau_of(tau[:-1], problem.criterion.at(tau[:-1], restricted).sigma2)


def _warn(fit: Fit) -> Fit:
    """A search that failed is worth a warning; columns that depend on others are how SAS codes classes."""
    warning = fit.warning()
    if warning is not None and any(check.verdict == "failed" for check in fit.checks.values()):
        warn_user(warning)
    return fit


def _with_ones(values: tuple[float, ...], known: list[int]) -> tuple[float, ...]:
    """Values of all parameters from those of the free ones: what is known is 1."""
    found = list(values)
    for k in known:
        found.insert(k, 1.0)
    return tuple(found)


def _candidates(parms: ParmsStatement, count: int) -> tuple[tuple[float, ...], ...]:
    if len(parms.values) != count:
        raise SpecificationError(
            f"PARMS gives values for {len(parms.values)} of {count} covariance parameters", parms.spot, "one list in parentheses for each"
        )
    total = int(np.prod([len(values) for values in parms.values]))
    if total > MAX_CANDIDATES:
        raise SpecificationError(f"PARMS has {total} combinations", parms.spot, f"give {MAX_CANDIDATES} at most")
    return tuple(product(*parms.values))


def _standardized_sigma2(problem: Problem, found: Estimate) -> float:
    return found.sigma**2 / problem.sigma2(1.0)


def _value(problem: Problem, tau: Array, restricted: bool) -> float:
    """-2 log likelihood at tau, sigma as given."""
    return _joint(problem, tau, restricted)[0]


def _joint(problem: Problem, tau: Array, restricted: bool) -> tuple[float, Array]:
    """log|V0| [+ log|X'V0^-1 X|] + d (log 2 pi sigma^2) + r2 / sigma^2 and its gradient in tau."""
    criterion = problem.criterion
    with one_thread(criterion.width), np.errstate(all="ignore"):
        try:
            state = criterion.kernel.evaluate(tau[None, :-1], derivatives=True)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros(len(tau))
        solution, d, sigma2 = state.solution, criterion.df(restricted), float(np.exp(2.0 * tau[-1]))
        logdet, slope = (g[0] for g in state.gradients(restricted))
        r2 = float(solution.r2[0]) / sigma2
        value = float(solution.logdet[0]) + (float(solution.logdet_X[0]) if restricted else 0.0)
        value += d * (2.0 * tau[-1] - 1.0) + r2 + criterion.constant(restricted)
    return value, np.append(logdet + slope / sigma2, 2.0 * (d - r2))


def _point(listing: CovarianceListing, near: Array, start: Array, wanted: Array) -> Array:
    """tau at which the covariance parameters have the values wanted: by Newton from a point nearby, else by a search from afar."""
    scale = np.maximum(np.abs(wanted), 1e-3 * listing.units(start))

    def gap(tau: Array) -> Array:
        return np.asarray((listing.values(tau) - wanted) / scale)

    def slopes(tau: Array) -> Array:
        return listing.jacobian(tau) / scale[:, None]

    found = _newton(gap, slopes, near)
    if found is not None:
        return found
    from scipy import optimize

    for begin in (start, np.append(listing.problem.start, start[-1])):
        search = optimize.least_squares(gap, begin, jac=slopes, xtol=1e-15, ftol=1e-15, gtol=1e-15)
        if float(np.abs(search.fun).max(initial=0.0)) < REACHED_GAP:
            return np.asarray(search.x)
    names = ", ".join(f"{row.name} = {value:g}" for row, value in zip(listing.rows(start), wanted, strict=True))
    raise SpecificationError(
        f"PARMS: no covariance of this model has {names}", "PARMS", "variances above 0, correlations below 1, in the order of the table"
    )


def _newton(gap: Callable[[Array], Array], slopes: Callable[[Array], Array], near: Array) -> Array | None:
    """The root near a point; None where a few steps do not get there."""
    tau = near
    with np.errstate(all="ignore"):
        for _ in range(8):
            miss = gap(tau)
            if float(np.abs(miss).max(initial=0.0)) < 1e-13:
                return tau
            step = np.linalg.lstsq(slopes(tau), miss, rcond=None)[0]
            if not np.isfinite(step).all():
                return None
            tau = tau - step
    return tau if float(np.abs(gap(tau)).max(initial=0.0)) < 1e-12 else None


def _minimize_held(listing: CovarianceListing, start: Array, held: tuple[int, ...], restricted: bool) -> tuple[Array, FreeParameters]:
    """The minimum along psi_held = const, and the directions left."""
    from scipy import optimize

    index, problem = list(held), listing.problem
    wanted = listing.values(start)[index]
    scale = np.maximum(np.abs(wanted), 1e-8 * listing.units(start)[index])

    def slopes(tau: Array) -> Array:
        return listing.jacobian(tau)[index] / scale[:, None]

    held_there: Any = optimize.NonlinearConstraint(lambda t: (listing.values(t)[index] - wanted) / scale, 0.0, 0.0, jac=slopes)
    tau = start
    if len(index) < len(start):
        with np.errstate(over="ignore"):  # a step may go far before it is taken back
            found: Any = optimize.minimize(  # type: ignore[call-overload]
                lambda t: _joint(problem, t, restricted)[0],
                start,
                jac=lambda t: _joint(problem, t, restricted)[1],
                method="SLSQP",
                constraints=held_there,
                tol=1e-13,
            )
        tau = np.asarray(found.x)
    J = slopes(tau)
    _, s, Vt = np.linalg.svd(J)
    basis = np.ascontiguousarray(Vt[int((s > 1e-10 * s.max(initial=0.0)).sum()) :].T)
    multipliers = np.linalg.lstsq(J.T, _joint(problem, tau, restricted)[1], rcond=None)[0]
    return tau, FreeParameters(basis, _second_derivative(slopes, tau, np.append(parameter_units(problem, tau[:-1]), 1.0), multipliers))


def _second_derivative(slopes: Callable[[Array], Array], tau: Array, units: Array, multipliers: Array) -> Array:
    """Second derivative of multipliers' psi, by central differences of its gradient."""
    columns = []
    for i in range(len(tau)):
        move = np.zeros(len(tau))
        move[i] = 1e-4 * max(units[i], abs(tau[i]))
        columns.append(multipliers @ (slopes(tau + move) - slopes(tau - move)) / (2.0 * move[i]))
    found = np.stack(columns)
    return np.asarray(0.5 * (found + found.T))


def _estimate_at(problem: Problem, found: Estimate, tau: Array) -> Estimate:
    """The estimate whose covariance parameters are those of tau."""
    point = problem.criterion.at(tau[:-1], found.restricted)
    assert point.state is not None
    c, sigma2 = problem.standardization, float(np.exp(2.0 * tau[-1]))
    solution = point.state.solution
    vcov = sigma2 * c.y_scale**2 * (c.back @ solution.information_inverse[0] @ c.back.T)
    value = _value(problem, tau, found.restricted)
    return replace(
        found,
        x=freeze(tau[:-1]),
        theta=freeze(problem.theta(tau[:-1])),
        sigma=float(np.sqrt(problem.sigma2(sigma2))),
        alpha=freeze(problem.alpha(solution.alpha[0])),
        vcov=freeze(0.5 * (vcov + vcov.T)),
        criterion=value,
        gradient=freeze(point.gradient),
        path=((freeze(tau[:-1]), value),),
        singular=False,
        checks=(Check("convergence", "noted", "covariance parameters held by PARMS", None),),
    )
