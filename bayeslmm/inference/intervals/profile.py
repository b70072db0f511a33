"""Profile likelihood: the signed root of the profiled criterion along each parameter, and its limits.

As lme4, fits by REML are profiled by their ML criterion unless asked otherwise. Under "REML" a fixed effect is profiled by the likelihood
with the other fixed effects integrated out (the restricted likelihood itself does not see fixed effects).

Every point starts from what its neighbours found. Where the criterion does not reach a limit before the end of the parameter's range
(an sd of 0, a correlation of 1 in size), the end is the limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtri

from bayeslmm._arrays import Array
from bayeslmm._types import LikelihoodKind
from bayeslmm._validation import require_level, require_names, require_one_of
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.estimate import Estimate, estimate, require_outcome
from bayeslmm.inference.fixed_effects.degrees_of_freedom import parameter_covariance
from bayeslmm.inference.intervals.parameters import (
    CovarianceParameter,
    ParameterOnScale,
    RandomCorrelation,
    RandomSd,
    Scale,
    estimated_parameters,
    from_scale,
    parameter_gradient,
    parameter_unit,
    parameter_value,
    to_scale,
)
from bayeslmm.inference.intervals.profile_constraints import CoefficientConstraint, Constraint, constraint_of, joint_criterion
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import parameter_units
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.render import html_of_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import AxesLike, Names

ZETA_TOLERANCE = 3e-3
"""How near to a quantile zeta is brought by evaluations; the interpolation that follows adds three digits."""

MAX_POINTS = 40
VALLEY_SHARE = 0.6
"""Share of the quantile below which zeta at a Wald limit suggests another local minimum."""

CAREFUL_STEP = 0.2
"""Length of careful steps, in Wald intervals."""

VAGUE_ERROR = 3.0
"""Standard error on a log or Fisher z scale from which on an estimate is as good as at the end of its range."""

DEEP_DISTANCE = 6.0
"""Distance on a log or Fisher z scale beyond which the end of the range itself is looked at."""

MAX_STANDARD_ERRORS = 60.0
"""Standard errors beyond which no limit is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class CurvePoint:
    """One slice: the parameter's value, zeta, the free coordinates there, the criterion."""

    t: float
    zeta: float
    u: Array
    value: float


@dataclass(frozen=True, slots=True)
class ProfileLimit:
    """A confidence limit; note says why it is an end of the range or missing."""

    value: float
    note: str = ""


@dataclass(slots=True, eq=False)
class ProfileCurve:
    """zeta of one parameter; points are kept in order of t.

    estimate, error : t^ and its standard error on `scale`; low, high : ends of the range; unit : what counts as a large change of t
    along : the scale that t itself is on
    """

    term: str
    slice: Constraint
    scale: Scale
    estimate: float
    error: float
    best: float
    tau: Array
    low: float
    high: float
    unit: float = 1.0
    along: Scale = "plain"
    points: list[CurvePoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.points = [CurvePoint(self.estimate, 0.0, self.slice.start(self.tau), self.best)]

    def value_at(self, t: float) -> float:
        """The parameter's value at t."""
        return from_scale(self.along, t)

    def at(self, t: float) -> CurvePoint:
        """The slice at t, evaluated once."""
        place = bisect_left(self.points, t, key=lambda point: point.t)
        if place < len(self.points) and self.points[place].t == t:
            return self.points[place]
        held = self.slice.lowest(t, self._predict_start(t, place))
        rise = max(held.value - self.best, 0.0)
        zeta = float(np.copysign(np.sqrt(rise), t - self.estimate)) if np.isfinite(rise) else float(np.copysign(np.inf, t - self.estimate))
        point = CurvePoint(t, zeta, held.u, held.value)
        if np.isfinite(rise):
            self.points.insert(place, point)
        return point

    def _predict_start(self, t: float, place: int) -> Array:
        """Free coordinates expected at t: the line, or the parabola, through the two or three points nearest to it."""
        near = sorted(self.points[max(place - 3, 0) : place + 3], key=lambda p: abs(p.t - t))[:3]
        first = near[0]
        span = max(abs(p.t - q.t) for p in near for q in near)
        if len(near) == 1 or abs(t - first.t) > 2.0 * span or min(abs(p.t - first.t) for p in near[1:]) < 1e-9 * span:
            return first.u
        weights = [np.prod([(t - q.t) / (p.t - q.t) for q in near if q is not p]) for p in near]
        return np.asarray(sum(w * p.u for w, p in zip(weights, near, strict=True)))

    def limit(self, quantile: float) -> ProfileLimit:
        """The t at which zeta is `quantile` (negative for a lower limit), or the end of the range, or NaN with a note."""
        sign = 1.0 if quantile > 0 else -1.0
        if not np.isfinite(self.estimate):
            return ProfileLimit(float("nan"), f"{self.term}: there is no estimate, an sd is 0")
        if not np.isfinite(self.error) or (self.scale != "plain" and self.error > VAGUE_ERROR):
            return self._by_doubling(quantile, sign)
        s0 = to_scale(self.scale, self.estimate)
        step = sign * abs(quantile) * self.error
        if from_scale(self.scale, s0 + step) == self.estimate:
            return ProfileLimit(float("nan"), f"{self.term}: its standard error is 0, as at the end of a range")
        inside, outside = self.points_around(quantile, sign)
        note = ""
        if outside is None and inside.t == self.estimate:
            note = self._first(s0 + step, quantile)
            inside, outside = self.points_around(quantile, sign)
        for _ in range(MAX_POINTS):
            if outside is not None:
                break
            reach = self._extrapolate(inside, quantile, s0) if not note else to_scale(self.scale, inside.t) + CAREFUL_STEP * step
            if self._too_far(abs(reach - s0), abs(step), sign):
                return self._from_end(quantile, sign)
            point = self.at(from_scale(self.scale, reach))
            inside, outside = self.points_around(quantile, sign)
            if not np.isfinite(point.zeta):
                return self._from_end(quantile, sign)
        if outside is None:
            return ProfileLimit(float("nan"), f"{self.term}: the criterion does not rise far enough")
        return ProfileLimit(self._between(inside, outside, quantile), note)

    def _too_far(self, reach: float, step: float, sign: float) -> bool:
        return reach > MAX_STANDARD_ERRORS * self.error or (self._has_end(sign) and (reach > 4.0 * step or reach > DEEP_DISTANCE))

    def _by_doubling(self, quantile: float, sign: float) -> ProfileLimit:
        """From an estimate near an end of its range, where its scale is of no use: steps of the parameter itself, each twice the last."""
        end, away = (self.high if sign > 0 else self.low), self.unit / 16.0
        if abs(end - self.estimate) < 1e-3 * self.unit:
            return self._from_end(quantile, sign)
        for _ in range(MAX_POINTS):
            t = self.estimate + sign * away
            if sign * (t - end) >= 0:
                return self._from_end(quantile, sign)
            self.at(t)
            inside, outside = self.points_around(quantile, sign)
            if outside is not None:
                return ProfileLimit(self._between(inside, outside, quantile))
            away *= 2.0
        return ProfileLimit(float("nan"), f"{self.term}: no {'upper' if sign > 0 else 'lower'} limit was found")

    def _first(self, reach: float, quantile: float) -> str:
        """One step to where a Wald interval ends. A correlation whose criterion hardly rises there has left its valley.

        Where an sd may be 0 any correlation fits: a long step can end in that valley, although the criterion rises in the one of the
        estimate. Then the point is taken back, and the way is gone in short steps.
        """
        if self.scale == "fisher" and abs(reach) > DEEP_DISTANCE:
            reach = float(np.copysign(DEEP_DISTANCE, reach))
        point = self.at(from_scale(self.scale, reach))
        if self.scale != "fisher" or not np.isfinite(point.zeta) or abs(point.zeta) > VALLEY_SHARE * abs(quantile):
            return ""
        self.points.remove(point)
        return f"{self.term}: beyond the limit the criterion falls again, to {point.zeta**2:.2f} above the optimum, where an sd is near 0"

    def points_around(self, quantile: float, sign: float) -> tuple[CurvePoint, CurvePoint | None]:
        """The outermost point short of the quantile on its side of the estimate, and the innermost one beyond it."""
        side = [p for p in self.points if sign * (p.t - self.estimate) >= 0]
        short = [p for p in side if sign * p.zeta < abs(quantile)]
        inside = max(short, key=lambda p: sign * p.t)
        beyond = [p for p in side if sign * p.zeta >= abs(quantile) and sign * p.t > sign * inside.t]
        return inside, min(beyond, key=lambda p: sign * p.t) if beyond else None

    def _extrapolate(self, inside: CurvePoint, quantile: float, s0: float) -> float:
        """A step on the scale past where the secant through the estimate expects the quantile."""
        s = to_scale(self.scale, inside.t)
        return s0 + (s - s0) * (min(max(1.02 * quantile / inside.zeta, 1.1), 2.0) if inside.zeta else 2.0)

    def _has_end(self, sign: float) -> bool:
        return bool(np.isfinite(self.high if sign > 0 else self.low))

    def _from_end(self, quantile: float, sign: float) -> ProfileLimit:
        end = self.high if sign > 0 else self.low
        if not np.isfinite(end):
            return ProfileLimit(float("nan"), f"{self.term}: no {'upper' if sign > 0 else 'lower'} limit was found")
        if self.estimate == end:
            return ProfileLimit(end, f"{self.term}: the estimate is at the end of the range, {end:g}")
        point = self.at(end)
        if abs(point.zeta) < abs(quantile):
            return ProfileLimit(end, f"{self.term}: the {'upper' if sign > 0 else 'lower'} limit is the end of the range, {end:g}")
        inside, outside = self.points_around(quantile, sign)
        return ProfileLimit(self._between(inside, outside or point, quantile))

    def _between(self, inside: CurvePoint, outside: CurvePoint, quantile: float) -> float:
        """The root between two points that bracket it: interpolation kept inside the bracket until a point is close, and once more."""
        for _ in range(MAX_POINTS):
            near = inside if abs(inside.zeta - quantile) < abs(outside.zeta - quantile) else outside
            low, high = min(inside.t, outside.t), max(inside.t, outside.t)
            t = self._interpolate(inside, outside, quantile)
            if abs(near.zeta - quantile) < ZETA_TOLERANCE or high - low < 1e-12 * max(abs(low), abs(high)):
                return t
            if not low < t < high:
                t = 0.5 * (low + high)
            point = self.at(t)
            if not np.isfinite(point.zeta):
                return float("nan")
            inside, outside = (point, outside) if abs(point.zeta) < abs(quantile) else (inside, point)
        return self._interpolate(inside, outside, quantile)

    def _interpolate(self, inside: CurvePoint, outside: CurvePoint, quantile: float) -> float:
        """t at the quantile: the parabola of t in zeta through the bracket and the next nearest point, or the secant."""
        others = [p for p in self.points if p is not inside and p is not outside and np.isfinite(p.zeta)]
        third = min(others, key=lambda p: abs(p.zeta - quantile), default=None)
        slope = (outside.t - inside.t) / (outside.zeta - inside.zeta)
        secant = inside.t + slope * (quantile - inside.zeta)
        if third is None or min(abs(third.zeta - inside.zeta), abs(third.zeta - outside.zeta)) < 1e-6:
            return secant
        second_derivative = ((third.t - inside.t) / (third.zeta - inside.zeta) - slope) / (third.zeta - outside.zeta)
        curved = secant + second_derivative * (quantile - inside.zeta) * (quantile - outside.zeta)
        return curved if min(inside.t, outside.t) < curved < max(inside.t, outside.t) else secant


ZETA_STEP = 0.5
"""Distance of neighbouring points of a profile, in zeta."""


@dataclass(frozen=True, slots=True, eq=False)
class ProfileOrigin:
    """The optimum that a profile starts from: the problem, tau^, the criterion there, the covariance of tau."""

    problem: Problem
    restricted: bool
    estimate: Estimate
    tau: Array
    covariance: Array


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The profiled criterion of every parameter.

    Attributes
    ----------
    frame : DataFrame
        One row per point: `term` (what is held), `value`, `zeta`, `criterion`.
    notes : tuple of str
        What is worth knowing: ends of a range that a limit ran into.
    """

    frame: pd.DataFrame
    criterion: str
    curves: tuple[ProfileCurve, ...]
    notes: tuple[str, ...]

    def confint(self, level: float = 0.95, *, conf_level: float | None = None) -> pd.DataFrame:
        """Limits at which zeta is a normal quantile: `term, conf_low, conf_high`; notes in `attrs["notes"]`.

        Parameters
        ----------
        level : float, default 0.95
            Level of the limits, between 0 and 1.
        conf_level : float, optional
            Level of the limits, between 0 and 1.

        Returns
        -------
        DataFrame
            One row for each parameter.

        Examples
        --------
        >>> fit.profile().confint().columns.tolist()
        ['term', 'conf_low', 'conf_high']
        """
        return limits_frame(self.curves, level if conf_level is None else conf_level)

    def plot(self, absolute: bool = False, ax: AxesLike = None) -> list[Axes]:
        """zeta of every parameter against its value: a straight line where a Wald interval is right.

        Parameters
        ----------
        absolute : bool, default False
            The size of zeta, as a valley.
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = fit.profile(terms=["Days"]).plot()
        """
        from bayeslmm.plots.intervals import profile_axes

        return profile_axes(self, absolute, ax)

    def __repr__(self) -> str:
        return f"Profile({self.criterion}: {len(self.curves)} parameters, {len(self.frame)} points)"

    def _repr_html_(self) -> str:
        return html_of_frame(repr(self), self.confint())


known_arguments(Profile)


def profile(fit: Estimates, criterion: LikelihoodKind = "ML", terms: Names | None = None, level: float = 0.99) -> Profile:
    """Trace the profiled criterion of every parameter until a limit of `level` is passed on both sides.

    criterion : "ML" (lme4's choice, for REML fits too) or "REML"; terms : some parameters only, as `confint` names them

    >>> fit.profile(terms=["Days"]).frame["term"].unique().tolist()
    ['Days']
    """
    quantile = -float(ndtri(0.5 * (1.0 - require_level(level, "level"))))
    curves = profile_curves(fit, criterion, terms)
    notes: list[str] = []
    for curve in curves:
        for sign in (-1.0, 1.0):
            notes += trace_curve(curve, sign, quantile)
    frame = pd.concat([_points(curve) for curve in curves], ignore_index=True) if curves else _points(None)
    return Profile(frame, criterion, tuple(curves), tuple(dict.fromkeys(notes)))


def profile_limits(fit: Estimates, level: float = 0.95, criterion: LikelihoodKind = "ML", terms: Names | None = None) -> pd.DataFrame:
    """Profile confidence limits alone: only as many points of each profile as its two limits need."""
    return limits_frame(profile_curves(fit, criterion, terms), level, fit.design.aliased if terms is None else ())


def limits_frame(curves: Sequence[ProfileCurve], level: float, aliased: Sequence[str] = ()) -> pd.DataFrame:
    """`term, conf_low, conf_high`, notes in `attrs["notes"]`; aliased coefficients have none."""
    quantile = -float(ndtri(0.5 * (1.0 - require_level(level, "level"))))
    found = [(curve.limit(-quantile), curve.limit(quantile)) for curve in curves]
    pairs = list(zip(curves, found, strict=True))
    frame = pd.DataFrame(
        {
            "term": [*(curve.term for curve in curves), *aliased],
            "conf_low": [*(curve.value_at(low.value) for curve, (low, _) in pairs), *[np.nan] * len(aliased)],
            "conf_high": [*(curve.value_at(high.value) for curve, (_, high) in pairs), *[np.nan] * len(aliased)],
        }
    )
    frame.attrs["notes"] = tuple(limit.note for pair in found for limit in pair if limit.note)
    return frame


# -- the curves of a fit ---------------------------------------------------------------------------------------------------------------


def profile_origin(fit: Estimates, criterion: LikelihoodKind) -> ProfileOrigin:
    """The optimum of the criterion to be profiled: that of the fit, or a refit from where the fit ended."""
    require_one_of(criterion, get_args(LikelihoodKind), "criterion")
    problem = fit.problem
    found = fit.estimate if fit.method == criterion else estimate(problem, "ML" if criterion == "ML" else "REML", start=fit.estimate.x)
    restricted = criterion == "REML"
    point = problem.criterion.at(found.x, restricted, order=0)
    tau = np.append(found.x, 0.5 * np.log(point.sigma2))
    sizes = np.append(parameter_units(problem, found.x), 1.0)
    hessian = joint_criterion(problem.criterion, tau, restricted).hessian
    covariance = np.full((len(tau), len(tau)), np.nan) if hessian is None else np.array(parameter_covariance(hessian, sizes))
    if problem.criterion.held is not None:
        covariance[-1] = covariance[:, -1] = 0.0
    return ProfileOrigin(problem, restricted, found, tau, covariance)


def profile_curves(fit: Estimates, criterion: LikelihoodKind, terms: Names | None) -> list[ProfileCurve]:
    """The curve of every parameter, covariance parameters first."""
    require_outcome(fit, "profile")
    base = profile_origin(fit, criterion)
    parameters = {parameter.term: parameter for parameter in estimated_parameters(base.problem)}
    coefficients = {fit.design.coef_names[k]: j for j, k in enumerate(fit.design.kept)}
    chosen = _choose_terms(terms, [*parameters, *coefficients], fit.design.aliased)
    curves = []
    for term in chosen:
        if term in parameters:
            curves.append(_parameter_curve(base, parameters[term]))
        else:
            curves.append(_coefficient_curve(base, term, coefficients[term]))
    return curves


def _choose_terms(terms: Names | None, known: Sequence[str], aliased: Sequence[str]) -> list[str]:
    if terms is None:
        return list(known)
    asked = require_names(terms, "terms")
    for term in asked:
        if term in aliased:
            raise SpecificationError(f"{term!r} is aliased and has no interval", "terms", "name a coefficient that was estimated")
        if term not in known:
            raise SpecificationError(f"there is no parameter {term!r}", "terms", "use one of " + ", ".join(map(repr, known)))
    return asked


def _parameter_curve(base: ProfileOrigin, profiled: CovarianceParameter) -> ProfileCurve:
    # a correlation at distance 1 may be any power of another: only its scale can be walked along
    along = profiled.scale == "loglog"
    parameter = ParameterOnScale(profiled) if along else profiled
    value = parameter_value(parameter, base.problem, base.tau)
    error = standard_error(parameter, base.problem, base.tau, base.covariance)
    unit = parameter_unit(parameter, base.problem, base.tau)
    held: Constraint = constraint_of(base.problem, parameter, base.restricted, error if np.isfinite(error) and error > 0 else 1.0, unit)
    share = parameter.scale == "logit"
    low = 0.0 if isinstance(parameter, RandomSd) or share else -1.0 if isinstance(parameter, RandomCorrelation) else -np.inf
    high = 1.0 if isinstance(parameter, RandomCorrelation) or share else np.inf
    return ProfileCurve(
        parameter.term,
        held,
        parameter.scale,
        value,
        error,
        base.estimate.criterion,
        base.tau,
        low,
        high,
        unit,
        profiled.scale if along else "plain",
    )


def _coefficient_curve(base: ProfileOrigin, term: str, j: int) -> ProfileCurve:
    value, error = float(base.estimate.alpha[j]), float(np.sqrt(base.estimate.vcov[j, j]))
    held = CoefficientConstraint(base.problem, base.restricted, j)
    start = held.lowest(value, base.tau[:-1])
    # the integrated likelihood of a REML profile has a maximum of its own, near to the estimate but not at it
    best = start.value if base.restricted else base.estimate.criterion
    return ProfileCurve(term, held, "plain", value, error, best, base.tau, -np.inf, np.inf, error)


def standard_error(parameter: CovarianceParameter, problem: Problem, tau: Array, covariance: Array) -> float:
    """Of a covariance parameter on its scale, by the delta method; NaN at the end of its range."""
    if not np.isfinite(to_scale(parameter.scale, parameter_value(parameter, problem, tau))):
        return float("nan")
    slope = parameter_gradient(parameter, problem, tau)
    if not np.all(np.isfinite(slope)):
        return float("nan")
    return float(np.sqrt(max(float(slope @ covariance @ slope), 0.0)))


# -- tracing -----------------------------------------------------------------------------------------------------------------------------


def trace_curve(curve: ProfileCurve, sign: float, quantile: float) -> list[str]:
    """Points about `ZETA_STEP` apart in zeta until the quantile is passed; notes of an end of the range."""
    limit: ProfileLimit = curve.limit(sign * quantile)
    end = limit.value
    if np.isfinite(end):
        for wanted in np.arange(ZETA_STEP, quantile, ZETA_STEP):
            curve.at(_between_points(curve, sign * wanted, end))
        curve.at(end)
    return [limit.note] if limit.note else []


def _between_points(curve: ProfileCurve, zeta: float, end: float) -> float:
    """Where zeta is about what is wanted, by a line between the two points that have it between them."""
    points: list[CurvePoint] = [p for p in curve.points if np.isfinite(p.zeta)]
    place = np.interp(zeta, [p.zeta for p in points], [p.t for p in points])
    low, high = min(curve.estimate, end), max(curve.estimate, end)
    return float(np.clip(place, low, high))


def _points(curve: ProfileCurve | None) -> pd.DataFrame:
    points = [] if curve is None else curve.points
    return pd.DataFrame(
        {
            "term": ["" if curve is None else curve.term] * len(points),
            "value": [] if curve is None else [curve.value_at(p.t) for p in points],
            "zeta": [p.zeta for p in points],
            "criterion": [p.value for p in points],
        }
    )
