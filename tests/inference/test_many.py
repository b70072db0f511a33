"""Many responses side by side are what each of them is alone."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.inference.intervals.batch_refit import (
    ResponseProducts,
    evaluate_responses,
    lift_off_boundary,
    refit_many,
    standardize_response,
    with_response,
)
from tests.inference.examples import fitted

MODELS = ["slope", "uncorrelated", "weighted", "crossed", "crossed_slope", "nested", "exchangeable"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("restricted", [True, False])
def test_a_response_of_many_has_the_criterion_and_gradient_that_it_has_alone(name: str, restricted: bool) -> None:
    fit = fitted(name)
    problem, rng = fit.problem, np.random.default_rng(0)
    Y = fit.simulate(5, seed=3).to_numpy()
    x = fit.estimate.x + rng.normal(scale=0.3, size=(5, problem.size))
    together = evaluate_responses(
        problem.criterion, ResponseProducts.of(problem, standardize_response(problem, Y)), np.arange(5), x, restricted
    )
    for b in range(5):
        alone = with_response(problem, fit.model.with_response(Y[:, b]).design)
        point = alone.criterion.at(x[b], restricted, order=1)
        rebuilt = fit.model.with_response(Y[:, b]).problem
        np.testing.assert_allclose(together.value[b], point.value, rtol=1e-11)
        np.testing.assert_allclose(together.gradient[b], point.gradient, rtol=1e-7, atol=1e-7)
        # another conditioning of the same design: theta is what they share
        at = rebuilt.criterion.values(rebuilt.x(problem.theta(x[b]))[None], restricted)[0]
        np.testing.assert_allclose(together.value[b], at, rtol=1e-9)


@pytest.mark.parametrize("name", ["serial", "visits", "mixed_serial"])
def test_a_new_response_of_structured_errors_is_the_model_built_anew(name: str) -> None:
    fit = fitted(name)
    y = fit.simulate(1, seed=4).to_numpy()[:, 0]
    shared = with_response(fit.problem, fit.model.with_response(y).design)
    rebuilt = fit.model.with_response(y).problem
    x = fit.estimate.x
    at = rebuilt.criterion.values(rebuilt.x(fit.problem.theta(x))[None], True)[0]
    np.testing.assert_allclose(shared.criterion.values(x[None], True)[0], at, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_fits_side_by_side_end_where_fits_one_by_one_end(name: str) -> None:
    fit = fitted(name)
    Y = fit.simulate(30, seed=5).to_numpy()
    many = refit_many(fit.problem, standardize_response(fit.problem, Y), True, lift_off_boundary(fit.problem, fit.estimate.x))
    assert many.settled.mean() > 0.8
    for b in np.flatnonzero(many.settled):
        # the stopping rule is a predicted decrease of 1e-9, BFGS's idea of curvature within a factor of a few
        assert many.value[b] <= fit.refit(Y[:, b]).criterion + 1e-6
