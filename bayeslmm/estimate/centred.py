"""Where to start a search under a variance function whose covariate lies far from 0, or is very large or small.

sigma is the sd where `exp(v)` has v = 0 and `power(v)` v = 1. Where all values lie far from there, as years do, the exponent and the
relative variances hang together along a curve that no search follows. The same model with v counted from its mean, in units of its spread,
has no such curve: it is estimated first, and its optimum said in the parameters asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayeslmm.arrays import Array, frozen
from bayeslmm.data.design import VarianceDesign
from bayeslmm.estimate.estimate import estimate
from bayeslmm.likelihood.criterion import Method
from bayeslmm.likelihood.problem import Problem, build

NEAR = 4.0
"""Distance from 0, and factor between units, that a search does not mind: spreads of exp's covariate, powers of e for power's."""


@dataclass(frozen=True, slots=True, eq=False)
class _Moved:
    """A factor of the variance function about (v - center) / unit; for powers, about v / exp(center)."""

    factor: VarianceDesign
    center: float = 0.0
    unit: float = 1.0


def centred_start(problem: Problem, method: Method) -> Array | None:
    """x to start from, or None where the start of the problem does."""
    moved = [_moved(factor) for factor in problem.design.variance]
    if problem.structured is None or all(m.center == 0.0 and m.unit == 1.0 for m in moved):
        return None
    other = build(replace(problem.design, variance=tuple(m.factor for m in moved)))
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
    return frozen(x) if np.isfinite(value) and value < start else None


def _moved(factor: VarianceDesign) -> _Moved:
    v, shared = factor.covariate, factor.strata is None
    if v is None:
        return _Moved(factor)
    if factor.kind == "exp":
        center, unit = (float(v.mean()) if shared else 0.0), float(np.std(v)) or 1.0
        if abs(center) <= NEAR * unit and 1.0 / NEAR <= unit <= NEAR:
            return _Moved(factor)
        return _Moved(replace(factor, covariate=frozen((v - center) / unit)), center, unit)
    center = float(np.mean(np.log(np.abs(v[v != 0.0])))) if np.any(v != 0.0) else 0.0
    if abs(center) <= NEAR or not shared:
        return _Moved(factor)
    return _Moved(replace(factor, covariate=frozen(v / np.exp(center))), center)
