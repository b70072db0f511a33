"""`fit("MAP")`: the marginal posterior mode under a model's priors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bayeslmm.bayes.density import density
from bayeslmm.bayes.mode import find_mode
from bayeslmm.errors import PriorError
from bayeslmm.estimate.estimate import Estimate, refuse_exact
from bayeslmm.estimate.map import Maximum, map_summary


def map_estimate(model: Any) -> Estimate:
    """The mode of p(sds, correlations, sigma | y), alpha and beta integrated out.

    Stated on the parameters themselves, not on the axes of the search: flat priors give the REML estimate.
    Raises PriorError where flat priors leave the parameters unidentified.
    """
    begin = time.perf_counter()
    problem = model.problem
    refuse_exact(problem)
    target = density(problem, model.spec.priors).without_volume()
    scales = [row for own in target.priors.terms for row in own.sds]
    loose = [row for row in scales if row.prior.family == "flat"]
    if problem.design.unidentified and loose:
        raise PriorError(problem.design.unidentified[0].what, loose[0].label, "give it a proper prior, or leave it to the default")
    mode = find_mode(target)
    x, s = target.kernel_points(mode.phi[None])
    found = target.alpha.integrate(problem.criterion.kernel.solve(x), s**2)
    path = tuple((phi, value) for phi, value in mode.path)
    maximum = Maximum(x[0], float(s[0]), found.solution, mode.value, path, mode.converged, mode.predicted, mode.interrupted)
    if not np.isfinite(mode.value):
        raise PriorError("the posterior density is 0 wherever it was tried", "priors", "widen the uniform priors")
    return map_summary(problem, maximum, time.perf_counter() - begin)
