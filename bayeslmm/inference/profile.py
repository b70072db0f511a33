"""Profile likelihood: how far the criterion rises as one parameter after the other is held away from its estimate.

As lme4, fits by REML are profiled by their ML criterion unless asked otherwise. Under "REML" a fixed effect is profiled by the likelihood
with the other fixed effects integrated out (the restricted likelihood itself does not see fixed effects).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from bayeslmm.arrays import Array
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.estimate import Estimate, estimate
from bayeslmm.inference import doors
from bayeslmm.inference.curves import Curve, CurvePoint, Limit
from bayeslmm.inference.joint import joint
from bayeslmm.inference.parameters import (
    Parameter,
    RandomCorrelation,
    RandomSd,
    covariance_parameters,
    gradient,
    sigmas,
    to_scale,
    value_of,
)
from bayeslmm.inference.slices import CoefficientSlice, Slice, slice_of
from bayeslmm.inference.tau import pseudo_inverse
from bayeslmm.likelihood.problem import Problem
from bayeslmm.results.fit import Fit
from bayeslmm.results.html import html_of_frame
from bayeslmm.results.rows import demand_one_of

STEP = 0.5
"""Distance of neighbouring points of a profile, in zeta."""


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """The optimum that a profile starts from: the problem, tau^, the criterion there, the covariance of tau."""

    problem: Problem
    restricted: bool
    estimate: Estimate
    tau: Array
    covariance: Array


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The profiled criterion of every parameter.

    frame : one row per point: `term` (what is held), `value`, `zeta`, `criterion`
    notes : what is worth knowing: ends of a range that a limit ran into
    """

    frame: pd.DataFrame
    criterion: str
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]

    def confint(self, level: float = 0.95) -> pd.DataFrame:
        """Limits at which zeta is a normal quantile: `term, conf_low, conf_high`; notes in `attrs["notes"]`.

        >>> fit.profile().confint().columns.tolist()
        ['term', 'conf_low', 'conf_high']
        """
        return limits_frame(self.curves, level)

    def plot(self, **options: Any) -> Any:
        """zeta of every parameter against its value; see `bayeslmm.plots.profile_axes`."""
        return doors.plot("profile_axes", self, **options)

    def __repr__(self) -> str:
        return f"Profile({self.criterion}: {len(self.curves)} parameters, {len(self.frame)} points)"

    def _repr_html_(self) -> str:
        return html_of_frame(repr(self), self.confint())


def profile(fit: Fit, criterion: str = "ML", terms: Sequence[str] | None = None, level: float = 0.99) -> Profile:
    """Trace the profiled criterion of every parameter until a limit of `level` is passed on both sides.

    criterion : "ML" (lme4's choice, for REML fits too) or "REML"; terms : some parameters only, as `confint` names them

    >>> fit.profile(terms=["Days"]).frame["term"].unique().tolist()
    ['Days']
    """
    quantile = -float(ndtri(0.5 * (1.0 - checked_level(level))))
    curves = curves_of(fit, criterion, terms)
    notes: list[str] = []
    for curve in curves:
        for sign in (-1.0, 1.0):
            notes += trace(curve, sign, quantile)
    frame = pd.concat([_points(curve) for curve in curves], ignore_index=True) if curves else _points(None)
    return Profile(frame, criterion, tuple(curves), tuple(dict.fromkeys(notes)))


def profile_limits(fit: Fit, level: float = 0.95, criterion: str = "ML", terms: Sequence[str] | None = None) -> pd.DataFrame:
    """Profile confidence limits alone: only as many points of each profile as its two limits need."""
    return limits_frame(curves_of(fit, criterion, terms), level, fit.design.aliased if terms is None else ())


def limits_frame(curves: Sequence[Curve], level: float, aliased: Sequence[str] = ()) -> pd.DataFrame:
    """`term, conf_low, conf_high`, notes in `attrs["notes"]`; aliased coefficients have none."""
    quantile = -float(ndtri(0.5 * (1.0 - checked_level(level))))
    found = [(curve.limit(-quantile), curve.limit(quantile)) for curve in curves]
    frame = pd.DataFrame(
        {
            "term": [*(curve.term for curve in curves), *aliased],
            "conf_low": [*(low.value for low, _ in found), *[np.nan] * len(aliased)],
            "conf_high": [*(high.value for _, high in found), *[np.nan] * len(aliased)],
        }
    )
    frame.attrs["notes"] = tuple(limit.note for pair in found for limit in pair if limit.note)
    return frame


def checked_level(level: float) -> float:
    """The level, if it is one."""
    if not (isinstance(level, int | float) and 0.0 < level < 1.0):
        raise SpecificationError(f"the confidence level is {level!r}", "level", "give a number between 0 and 1, such as 0.95")
    return float(level)


# -- the curves of a fit ---------------------------------------------------------------------------------------------------------------


def base_of(fit: Fit, criterion: str) -> Base:
    """The optimum of the criterion to be profiled: that of the fit, or a refit from where the fit ended."""
    demand_one_of(criterion, ("ML", "REML"), "criterion")
    problem = fit.problem
    found = fit.estimate if fit.method == criterion else estimate(problem, "ML" if criterion == "ML" else "REML", start=_unstuck(fit))
    restricted = criterion == "REML"
    point = problem.criterion.at(found.x, restricted, order=0)
    tau = np.append(found.x, 0.5 * np.log(point.sigma2))
    hessian = joint(problem.criterion, tau, restricted).hessian
    covariance = np.full((len(tau), len(tau)), np.nan) if hessian is None else 2.0 * pseudo_inverse(hessian)
    return Base(problem, restricted, found, tau, covariance)


def _unstuck(fit: Fit) -> Array:
    """x of a fit; where it is singular the derivative in theta vanishes, and the search starts afresh."""
    return fit.problem.start if fit.singular else fit.estimate.x


def curves_of(fit: Fit, criterion: str, terms: Sequence[str] | None) -> list[Curve]:
    """The curve of every parameter, covariance parameters first."""
    base = base_of(fit, criterion)
    parameters = {parameter.term: parameter for parameter in covariance_parameters(base.problem)}
    coefficients = {fit.design.coef_names[k]: j for j, k in enumerate(fit.design.kept)}
    chosen = _chosen(terms, [*parameters, *coefficients], fit.design.aliased)
    curves = []
    for term in chosen:
        if term in parameters:
            curves.append(_parameter_curve(base, parameters[term]))
        else:
            curves.append(_coefficient_curve(base, term, coefficients[term]))
    return curves


def _chosen(terms: Sequence[str] | None, known: Sequence[str], aliased: Sequence[str]) -> list[str]:
    if terms is None:
        return list(known)
    asked = [terms] if isinstance(terms, str) else list(terms)
    for term in asked:
        if term in aliased:
            raise SpecificationError(f"{term!r} is aliased and has no interval", "terms", "name a coefficient that was estimated")
        if term not in known:
            raise SpecificationError(f"there is no parameter {term!r}", "terms", "use one of " + ", ".join(map(repr, known)))
    return asked


def _parameter_curve(base: Base, parameter: Parameter) -> Curve:
    value = value_of(parameter, base.problem, base.tau)
    error = standard_error(parameter, base.problem, base.tau, base.covariance)
    held: Slice = slice_of(base.problem, parameter, base.restricted, error if np.isfinite(error) and error > 0 else 1.0)
    low = 0.0 if isinstance(parameter, RandomSd) else -1.0 if isinstance(parameter, RandomCorrelation) else -np.inf
    high = 1.0 if isinstance(parameter, RandomCorrelation) else np.inf
    unit = 1.0 if isinstance(parameter, RandomCorrelation) else max(abs(value), float(sigmas(base.problem, base.tau[None])[0]))
    return Curve(parameter.term, held, parameter.scale, value, error, base.estimate.criterion, base.tau, low, high, unit)


def _coefficient_curve(base: Base, term: str, j: int) -> Curve:
    value, error = float(base.estimate.alpha[j]), float(np.sqrt(base.estimate.vcov[j, j]))
    held = CoefficientSlice(base.problem, base.restricted, j)
    start = held.lowest(value, base.tau[:-1])
    # the integrated likelihood of a REML profile has a maximum of its own, near to the estimate but not at it
    best = start.value if base.restricted else base.estimate.criterion
    return Curve(term, held, "plain", value, error, best, base.tau, -np.inf, np.inf, error)


def standard_error(parameter: Parameter, problem: Problem, tau: Array, covariance: Array) -> float:
    """Of a covariance parameter on its scale, by the delta method; NaN at the end of its range."""
    if not np.isfinite(to_scale(parameter.scale, value_of(parameter, problem, tau))):
        return float("nan")
    slope = gradient(parameter, problem, tau)
    if not np.all(np.isfinite(slope)):
        return float("nan")
    return float(np.sqrt(max(float(slope @ covariance @ slope), 0.0)))


# -- tracing -----------------------------------------------------------------------------------------------------------------------------


def trace(curve: Curve, sign: float, quantile: float) -> list[str]:
    """Points about `STEP` apart in zeta until the quantile is passed; notes of an end of the range."""
    limit: Limit = curve.limit(sign * quantile)
    end = limit.value
    if np.isfinite(end):
        for wanted in np.arange(STEP, quantile, STEP):
            curve.at(_between_points(curve, sign * wanted, end))
        curve.at(end)
    return [limit.note] if limit.note else []


def _between_points(curve: Curve, zeta: float, end: float) -> float:
    """Where zeta is about what is wanted, by a line between the two points that have it between them."""
    points: list[CurvePoint] = [p for p in curve.points if np.isfinite(p.zeta)]
    place = np.interp(zeta, [p.zeta for p in points], [p.t for p in points])
    low, high = min(curve.estimate, end), max(curve.estimate, end)
    return float(np.clip(place, low, high))


def _points(curve: Curve | None) -> pd.DataFrame:
    points = [] if curve is None else curve.points
    return pd.DataFrame(
        {
            "term": ["" if curve is None else curve.term] * len(points),
            "value": [p.t for p in points],
            "zeta": [p.zeta for p in points],
            "criterion": [p.value for p in points],
        }
    )
