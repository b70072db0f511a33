"""The fast kernels equal the dense definition, and their derivatives equal differences: laws 6 and 7."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayeslmm.likelihood.random_effects.cross_products import cross_products
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from tests.laws.definition import define
from tests.laws.designs import MIXED, RESIDUAL, Example, mixed, random_x, related, structured

EXAMPLES = (
    [pytest.param(mixed(name, weighted=weighted), id=f"{name}{', weighted' * weighted}") for name in MIXED for weighted in (False, True)]
    + [pytest.param(related(), id="relationship")]
    + [pytest.param(structured(r), id=r) for r in RESIDUAL]
    + [pytest.param(structured(r, weighted=True), id=f"{r}, weighted") for r in RESIDUAL[:10]]
    + [pytest.param(structured("ar1(visit | subject)", random=" + (1 | site)"), id="ar1 within, random above")]
    + [pytest.param(structured("ar1(visit | subject)", random=" + (1 | subject)", weighted=True), id="ar1 and intercept, weighted")]
    + [pytest.param(structured(None, random=" + (1 | subject)", variance="ident(arm)"), id="ident")]
    + [pytest.param(structured(None, random=" + (x | site)", variance="exp(time) * ident(arm)", weighted=True), id="exp * ident, weighted")]
    + [pytest.param(structured("ar1(visit | subject)", variance="ident(arm)"), id="ar1 and ident")]
    + [
        pytest.param(
            structured("cs(visit | subject)", random=" + (1 | site)", variance="const_power(w | arm)"), id="cs and const_power by arm"
        )
    ]
)


@pytest.mark.parametrize("restricted", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_kernel_equals_the_definition(example: Example, restricted: bool) -> None:
    problem = example.model(check="warn").problem
    for seed in range(3):
        x = random_x(problem, seed)
        if seed == 2 and problem.random.size and problem.random.terms[0].covariance.name in ("us", "diag", "id"):
            x[0] = 0.0  # a standard deviation of exactly 0
        judge = define(problem, x, restricted)
        point = problem.criterion.at(x, restricted, order=1)
        # 1e-10 of the criterion; both sides round at about 1e-13
        assert point.value == pytest.approx(judge.value, rel=1e-10)
        assert problem.sigma2(point.sigma2) == pytest.approx(judge.sigma2, rel=1e-9)
        np.testing.assert_allclose(problem.alpha(point.state.solution.alpha[0]), judge.alpha, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("restricted", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_gradient_equals_differences(example: Example, restricted: bool) -> None:
    problem = example.model(check="warn").problem
    x = random_x(problem, 7)
    point = problem.criterion.at(x, restricted, order=1)
    step = 1e-5
    moves = np.concatenate([x + step * np.eye(len(x)), x - step * np.eye(len(x))])
    values = problem.criterion.values(moves, restricted)
    differences = (values[: len(x)] - values[len(x) :]) / (2 * step)
    # central differences of step 1e-5 carry about 1e-9 of the curvature and 1e-13 / 1e-5 of rounding
    np.testing.assert_allclose(point.gradient, differences, rtol=1e-6, atol=2e-7 * np.abs(differences).max() + 1e-7)


@pytest.mark.parametrize("small", [True, False], ids=["one block", "first eliminated"])
@pytest.mark.parametrize("restricted", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("example", [mixed(name, weighted=True) for name in MIXED] + [related()], ids=[*MIXED, "relationship"])
def test_few_columns_as_one_matrix_equal_levels_one_by_one(example: Example, restricted: bool, small: bool) -> None:
    problem = example.model(check="warn").problem
    criterion = problem.criterion
    assert isinstance(criterion.kernel, RandomEffectsKernel)
    assert criterion.kernel.dense is not None
    cross = cross_products(problem.design, problem.standardization, small=small)
    by_level = replace(criterion, kernel=replace(criterion.kernel, cross=cross, together=False))
    x = random_x(problem, 4)
    for at in (x, np.where(np.arange(len(x)) == 0, 0.0, x)):  # a standard deviation of exactly 0 too
        one, other = criterion.at(at, restricted), by_level.at(at, restricted)
        assert one.value == pytest.approx(other.value, rel=1e-13)
        np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-9, atol=1e-9 * np.abs(other.gradient).max())
        np.testing.assert_allclose(one.hessian, other.hessian, rtol=1e-9, atol=1e-9 * np.abs(other.hessian).max())
        for name in ("alpha", "information_inverse", "Xy", "root", "logdet_X"):
            mine, theirs = getattr(one.state.solution, name), getattr(other.state.solution, name)
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())


@pytest.mark.parametrize("name", MIXED)
def test_the_gradient_level_by_level_equals_differences(name: str) -> None:
    problem = mixed(name).model().problem
    kernel = replace(problem.criterion.kernel, together=False)
    criterion, x, step = replace(problem.criterion, kernel=kernel), random_x(problem, 7), 1e-5
    moves = np.concatenate([x + step * np.eye(len(x)), x - step * np.eye(len(x))])
    values = criterion.values(moves, True)
    differences = (values[: len(x)] - values[len(x) :]) / (2 * step)
    np.testing.assert_allclose(
        criterion.at(x, True, order=1).gradient, differences, rtol=1e-6, atol=2e-7 * np.abs(differences).max() + 1e-7
    )


@pytest.mark.parametrize("name", MIXED)
def test_many_thetas_at_once_equal_one_at_a_time(name: str) -> None:
    problem = mixed(name).model().problem
    x = np.stack([random_x(problem, seed) for seed in range(6)])
    together = problem.criterion.values(x, True)
    alone = [problem.criterion.at(row, True, order=0).value for row in x]
    np.testing.assert_allclose(together, alone, rtol=1e-13)


@pytest.mark.parametrize("example", [mixed(name) for name in MIXED] + [structured(r) for r in RESIDUAL], ids=[*MIXED, *RESIDUAL])
def test_theta_and_back_is_the_same_model(example: Example) -> None:
    problem = example.model(check="warn").problem
    x = random_x(problem, 3)
    again = problem.x(problem.theta(x))
    assert problem.criterion.at(again, True, 0).value == pytest.approx(problem.criterion.at(x, True, 0).value, rel=1e-12)


@pytest.mark.parametrize("name", [n for n in MIXED if n not in ("csh", "toeph")])
def test_the_user_s_gradient_is_that_of_the_user_s_criterion(name: str) -> None:
    model = mixed(name).model()
    theta = model.problem.theta(random_x(model.problem, 5))
    step = 1e-6
    differences = [(model.criterion(theta + step * e) - model.criterion(theta - step * e)) / (2 * step) for e in np.eye(len(theta))]
    np.testing.assert_allclose(model.gradient(theta), differences, rtol=1e-5, atol=1e-5 * np.abs(differences).max())


def test_the_newton_matrix_is_near_the_hessian_at_the_optimum() -> None:
    # average information: equal in expectation, within some tens of percent on 90 rows
    model = mixed("crossed").model()
    fit = model.fit()
    problem, x = model.problem, fit.estimate.x
    step = 1e-4
    rows = [
        (problem.criterion.at(x + step * e, True, 1).gradient - problem.criterion.at(x - step * e, True, 1).gradient) / (2 * step)
        for e in np.eye(len(x))
    ]
    ratio = np.linalg.eigvals(np.linalg.solve(np.array(rows), fit.point.hessian)).real
    assert ratio.min() > 0.5
    assert ratio.max() < 2.0
