"""The signed root of the profiled criterion along one parameter, zeta(t) = sign(t - t^) sqrt(f(t) - f^), found where it is asked for.

Every point starts from what its neighbours found. Where the criterion does not reach a limit before the end of the parameter's range
(an sd of 0, a correlation of 1 in size), the end is the limit.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.inference.parameters import Scale, from_scale, to_scale
from bayeslmm.inference.slices import Slice

CLOSE = 3e-3
"""How near to a quantile zeta is brought by evaluations; the interpolation that follows adds three digits."""

EVALUATIONS = 40
LEFT = 0.6
"""Share of the quantile below which zeta at a Wald limit is a sign of another valley."""

SHORT = 0.2
"""Length of careful steps, in Wald intervals."""

VAGUE = 3.0
"""Standard error on a log or Fisher z scale from which on an estimate is as good as at the end of its range."""

DEEP = 6.0
"""Distance on a log or Fisher z scale beyond which the end of the range itself is looked at."""

FAR = 60.0
"""Standard errors beyond which no limit is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class CurvePoint:
    """One slice: the parameter's value, zeta, the free coordinates there, the criterion."""

    t: float
    zeta: float
    u: Array
    value: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A confidence limit; note says why it is an end of the range or missing."""

    value: float
    note: str = ""


@dataclass(slots=True, eq=False)
class Curve:
    """zeta of one parameter; points are kept in order of t.

    estimate, error : t^ and its standard error on `scale`; low, high : ends of the range; unit : what counts as a large change of t
    """

    term: str
    slice: Slice
    scale: Scale
    estimate: float
    error: float
    best: float
    tau: Array
    low: float
    high: float
    unit: float = 1.0
    points: list[CurvePoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.points = [CurvePoint(self.estimate, 0.0, self.slice.start(self.tau), self.best)]

    def at(self, t: float) -> CurvePoint:
        """The slice at t, evaluated once."""
        place = bisect_left(self.points, t, key=lambda point: point.t)
        if place < len(self.points) and self.points[place].t == t:
            return self.points[place]
        held = self.slice.lowest(t, self._predicted(t, place))
        rise = max(held.value - self.best, 0.0)
        zeta = float(np.copysign(np.sqrt(rise), t - self.estimate)) if np.isfinite(rise) else float(np.copysign(np.inf, t - self.estimate))
        point = CurvePoint(t, zeta, held.u, held.value)
        if np.isfinite(rise):
            self.points.insert(place, point)
        return point

    def _predicted(self, t: float, place: int) -> Array:
        """Free coordinates expected at t: the line, or the parabola, through the two or three points nearest to it."""
        near = sorted(self.points[max(place - 3, 0) : place + 3], key=lambda p: abs(p.t - t))[:3]
        first = near[0]
        span = max(abs(p.t - q.t) for p in near for q in near)
        if len(near) == 1 or abs(t - first.t) > 2.0 * span or min(abs(p.t - first.t) for p in near[1:]) < 1e-9 * span:
            return first.u
        weights = [np.prod([(t - q.t) / (p.t - q.t) for q in near if q is not p]) for p in near]
        return np.asarray(sum(w * p.u for w, p in zip(weights, near, strict=True)))

    def limit(self, quantile: float) -> Limit:
        """The t at which zeta is `quantile` (negative for a lower limit), or the end of the range, or NaN with a note."""
        sign = 1.0 if quantile > 0 else -1.0
        if not np.isfinite(self.error) or (self.scale != "plain" and self.error > VAGUE):
            return self._by_doubling(quantile, sign)
        s0 = to_scale(self.scale, self.estimate)
        step = sign * abs(quantile) * self.error
        inside, outside = self.points_around(quantile, sign)
        note = ""
        if outside is None and inside.t == self.estimate:
            note = self._first(s0 + step, quantile)
            inside, outside = self.points_around(quantile, sign)
        for _ in range(EVALUATIONS):
            if outside is not None:
                break
            reach = self._beyond(inside, quantile, s0) if not note else to_scale(self.scale, inside.t) + SHORT * step
            if self._too_far(abs(reach - s0), abs(step), sign):
                return self._from_end(quantile, sign)
            point = self.at(from_scale(self.scale, reach))
            inside, outside = self.points_around(quantile, sign)
            if not np.isfinite(point.zeta):
                return self._from_end(quantile, sign)
        if outside is None:
            return Limit(float("nan"), f"{self.term}: the criterion does not rise far enough")
        return Limit(self._between(inside, outside, quantile), note)

    def _too_far(self, reach: float, step: float, sign: float) -> bool:
        return reach > FAR * self.error or (self._has_end(sign) and (reach > 4.0 * step or reach > DEEP))

    def _by_doubling(self, quantile: float, sign: float) -> Limit:
        """From an estimate near an end of its range, where its scale is of no use: steps of the parameter itself, each twice the last."""
        end, away = (self.high if sign > 0 else self.low), self.unit / 16.0
        if abs(end - self.estimate) < 1e-3 * self.unit:
            return self._from_end(quantile, sign)
        for _ in range(EVALUATIONS):
            t = self.estimate + sign * away
            if sign * (t - end) >= 0:
                return self._from_end(quantile, sign)
            self.at(t)
            inside, outside = self.points_around(quantile, sign)
            if outside is not None:
                return Limit(self._between(inside, outside, quantile))
            away *= 2.0
        return Limit(float("nan"), f"{self.term}: no {'upper' if sign > 0 else 'lower'} limit was found")

    def _first(self, reach: float, quantile: float) -> str:
        """One step to where a Wald interval ends. A correlation whose criterion hardly rises there has left its valley.

        Where an sd may be 0 any correlation fits: a long step can end in that valley, although the criterion rises in the one of the
        estimate. Then the point is taken back, and the way is gone in short steps.
        """
        if self.scale == "fisher" and abs(reach) > DEEP:
            reach = float(np.copysign(DEEP, reach))
        point = self.at(from_scale(self.scale, reach))
        if self.scale != "fisher" or not np.isfinite(point.zeta) or abs(point.zeta) > LEFT * abs(quantile):
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

    def _beyond(self, inside: CurvePoint, quantile: float, s0: float) -> float:
        """A step on the scale past where the secant through the estimate expects the quantile."""
        s = to_scale(self.scale, inside.t)
        return s0 + (s - s0) * (min(max(1.02 * quantile / inside.zeta, 1.1), 2.0) if inside.zeta else 2.0)

    def _has_end(self, sign: float) -> bool:
        return bool(np.isfinite(self.high if sign > 0 else self.low))

    def _from_end(self, quantile: float, sign: float) -> Limit:
        end = self.high if sign > 0 else self.low
        if not np.isfinite(end):
            return Limit(float("nan"), f"{self.term}: no {'upper' if sign > 0 else 'lower'} limit was found")
        if self.estimate == end:
            return Limit(end, f"{self.term}: the estimate is at the end of the range, {end:g}")
        point = self.at(end)
        if abs(point.zeta) < abs(quantile):
            return Limit(end, f"{self.term}: the {'upper' if sign > 0 else 'lower'} limit is the end of the range, {end:g}")
        inside, outside = self.points_around(quantile, sign)
        return Limit(self._between(inside, outside or point, quantile))

    def _between(self, inside: CurvePoint, outside: CurvePoint, quantile: float) -> float:
        """The root between two points that bracket it: interpolation kept inside the bracket until a point is close, and once more."""
        for _ in range(EVALUATIONS):
            near = inside if abs(inside.zeta - quantile) < abs(outside.zeta - quantile) else outside
            low, high = min(inside.t, outside.t), max(inside.t, outside.t)
            t = self._interpolated(inside, outside, quantile)
            if abs(near.zeta - quantile) < CLOSE or high - low < 1e-12 * max(abs(low), abs(high)):
                return t
            if not low < t < high:
                t = 0.5 * (low + high)
            point = self.at(t)
            if not np.isfinite(point.zeta):
                return float("nan")
            inside, outside = (point, outside) if abs(point.zeta) < abs(quantile) else (inside, point)
        return self._interpolated(inside, outside, quantile)

    def _interpolated(self, inside: CurvePoint, outside: CurvePoint, quantile: float) -> float:
        """t at the quantile: the parabola of t in zeta through the bracket and the next nearest point, or the secant."""
        others = [p for p in self.points if p is not inside and p is not outside and np.isfinite(p.zeta)]
        third = min(others, key=lambda p: abs(p.zeta - quantile), default=None)
        slope = (outside.t - inside.t) / (outside.zeta - inside.zeta)
        secant = inside.t + slope * (quantile - inside.zeta)
        if third is None or min(abs(third.zeta - inside.zeta), abs(third.zeta - outside.zeta)) < 1e-6:
            return secant
        bend = ((third.t - inside.t) / (third.zeta - inside.zeta) - slope) / (third.zeta - outside.zeta)
        curved = secant + bend * (quantile - inside.zeta) * (quantile - outside.zeta)
        return curved if min(inside.t, outside.t) < curved < max(inside.t, outside.t) else secant
