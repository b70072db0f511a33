"""Continuous-time first-order autoregression: correlation rho^|t_i - t_j| at real times, 0 < rho < 1.

nlme's corCAR1, and SAS's SP(POW) in one dimension. As R it is a function of the distances between the times of a subject's rows; as D its
rows stand at given times, by default 0, 1, 2, ....
"""

from __future__ import annotations

import numpy as np

from bayeslmm.covariance.base import Covariance, Request, Structure
from bayeslmm.covariance.composed import WithNugget
from bayeslmm.covariance.spatial import PowerCorrelation, Spatial, SpatialCovariance, typical_distance


def build(request: Request) -> Covariance:
    """s^2 rho^|t_i - t_j|, with a nugget where one is asked for."""
    times = np.asarray(request.positions or range(request.q), dtype=np.float64)
    distances = np.abs(np.subtract.outer(times, times)) if request.distances is None else request.distances
    reach = request.reach or typical_distance(distances)
    inner: Spatial = PowerCorrelation(request.q, distances, reach)
    if request.nugget:
        inner = WithNugget(request.q, inner, distances, reach)
    return SpatialCovariance(request.name, request.q, inner)


CAR1 = Structure(
    "car1",
    "continuous-time autoregressive: one variance, correlation rho^|t_i - t_j|",
    "2",
    build,
    takes="times",
    homogeneous=True,
    series=True,
    sas="SP(POW)",
    sas_row="SP(POW)",
)
