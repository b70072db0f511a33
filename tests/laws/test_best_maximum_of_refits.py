"""Refits of few rows end where a fit of the same response ends: side by side, one by one, without a level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from bayeslmm.estimate.estimate import estimate
from bayeslmm.inference.fixed_effects.degrees_of_freedom import grouping_factors
from bayeslmm.inference.influence import case_deletions
from bayeslmm.inference.intervals.batch_refit import refit_many, standardize_response, with_response
from bayeslmm.inference.intervals.resampling import resampling_factor, without
from bayeslmm.results.fitted import simulate_responses
from benchmarks.random_designs import random_design
from benchmarks.structured_designs import structured_design

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

CLOSE = 1e-4
"""Difference of the criterion that counts."""


def fitted(model: blm.LMM, method: str) -> blm.Fit | None:
    """The fit, where the likelihood has a maximum."""
    try:
        fit = model.fit(method)
    except BayesLMMError:
        return None
    return fit if fit.converged and "bounded" not in fit.checks and fit.problem.size else None


def refits_above(seed: int, structured: bool, count: int) -> tuple[list[str], int]:
    """Which refits of a random design end above a fit of their own, and how many were compared."""
    design = structured_design(seed) if structured else random_design(seed)
    method = "REML" if design.reml else "ML"
    try:
        model = blm.LMM(design.formula, design.data, **design.options)
    except BayesLMMError:
        return [], 0
    fit = fitted(model, method)
    if fit is None or len(design.data) > 60 or fit.problem.is_iterative:
        return [], 0
    found: dict[str, tuple[float, float]] = {}
    problem, restricted = fit.problem, fit.restricted
    streams = np.random.SeedSequence(seed).spawn(count)
    Y = simulate_responses(problem, fit.fixef_kept, fit.estimate.theta, fit.estimate.sigma, streams)
    own = [fitted(model.with_response(y), method) for y in Y.T]
    together = None
    if problem.structured is None:
        together = refit_many(problem, standardize_response(problem, Y), restricted, fit.estimate.x)
    many = model.fit_many(pd.DataFrame(Y), method).glance().set_index("response")["loglik"]
    for b, one in enumerate(own):
        if one is None:
            continue
        alone = estimate(with_response(problem, one.design), method, start=fit.estimate.x)
        found[f"one by one, {b}"] = alone.criterion, one.criterion
        if together is not None and together.settled[b]:
            found[f"side by side, {b}"] = float(together.value[b]), one.criterion
        if b in many.index:
            found[f"fit_many, {b}"] = -2.0 * many[b], one.criterion
    if "g" in {factor.name for factor in grouping_factors(fit.design)}:
        factor = resampling_factor(fit.design, "g")
        for k, left in zip(range(count), case_deletions(fit, factor, refit=True), strict=False):
            one = fitted(model.with_design(without(fit.design, factor.codes == k)), method) if np.isfinite(left.sigma2) else None
            if one is not None:
                if structured:  # laid out anew as the fit; x, since theta has no place for a nugget of exp(-80)
                    value = left.problem.criterion.at(left.x, restricted, order=0).value
                else:
                    value = one.problem.criterion.at(one.problem.x(left.problem.theta(left.x)), restricted, order=0).value
                found[f"without level {k}"] = value, one.criterion
    return [name for name, (value, best) in found.items() if value > best + CLOSE], len(found)


@pytest.mark.parametrize("seed", [75])
def test_refits_end_where_fits_do(seed: int) -> None:
    above, compared = refits_above(seed, structured=False, count=5)
    assert above == []
    assert compared > 5


@pytest.mark.slow
@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_no_refit_ends_above_a_fit(seed: int, structured: bool) -> None:
    assert refits_above(seed, structured, count=6)[0] == []
