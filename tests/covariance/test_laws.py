"""One class of laws that every registered structure inherits, over random x."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.registry import STRUCTURES
from tests.covariance.cases import CASES, Case

STEP = 1e-6
# central differences of step 1e-6 on values near 1: truncation 1e-12, rounding 1e-16 / 1e-6
DIFFERENCE = 1e-7


def differences(function, at: Array) -> Array:
    """Central differences of an array-valued function, parameter axis first."""
    units = np.eye(at.size)
    return np.stack([(function(at + STEP * e) - function(at - STEP * e)) / (2 * STEP) for e in units])


def close(found: Array, wanted: Array, tolerance: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * max(1.0, np.abs(wanted).max(initial=0.0)))


def found_again(case: Case) -> float:
    """How closely a member is recovered: rounding, but for those found by least squares along a nearly flat valley."""
    if case.label.startswith("matern+nugget"):
        return 1e-4
    return 1e-5 if case.label.startswith(("fa/", "fa(", "fa1")) else 1e-7


LONG = {case.label for case in CASES if case.label.startswith(("matern+nugget", "matern@ad+nugget")) and not case.label.endswith("/2")}
"""Bessel functions of many points: a minute for all."""


@pytest.fixture(params=[pytest.param(case, id=case.label, marks=[pytest.mark.slow] if case.label in LONG else []) for case in CASES])
def case(request) -> Case:
    return request.param


@pytest.fixture
def covariance(case) -> Covariance:
    return case.build()


@pytest.fixture(params=range(2))
def x(request, case, covariance) -> Array:
    return case.draw(np.random.default_rng(100 + request.param), covariance)


def test_every_registered_structure_has_cases():
    named = {case.label.split("/")[0].split("(")[0].split("+")[0].split(" ")[0] for case in CASES}
    assert {name for name in named if "@" not in name} == set(STRUCTURES)


class TestLaws:
    def test_the_number_of_parameters_is_the_manuals(self, case, covariance):
        assert covariance.size == case.count == covariance.start().size
        assert len(covariance.natural_names) == len(set(covariance.natural_names)) == covariance.size
        assert len(covariance.component_names) == len(set(covariance.component_names)) == covariance.size

    def test_the_factor_is_lower_triangular_and_gives_sigma(self, covariance, x):
        factor = covariance.factor(x)
        assert np.isfinite(factor).all()
        np.testing.assert_array_equal(factor, np.tril(factor))
        close(factor @ factor.T, covariance.matrix(x), 1e-14)

    def test_the_start_is_definite_and_has_a_derivative(self, covariance):
        start = covariance.start()
        assert np.isfinite(covariance.factor_derivative(start)).all()
        if covariance.name != "fa0":
            assert np.linalg.eigvalsh(covariance.matrix(start))[0] > 1e-6

    def test_the_start_is_no_saddle(self, covariance):
        gradient = covariance.matrix_derivative(covariance.start())
        assert (np.abs(gradient).max(axis=(1, 2)) > 1e-8).all()

    def test_the_derivative_of_the_factor_is_that_of_differences(self, covariance, x):
        close(covariance.factor_derivative(x), differences(covariance.factor, x), 2 * DIFFERENCE)

    def test_the_derivative_of_sigma_is_the_product_rule(self, covariance, x):
        close(covariance.matrix_derivative(x), differences(covariance.matrix, x), 2 * DIFFERENCE)

    def test_leading_axes_are_a_loop(self, case, covariance):
        rng = np.random.default_rng(7)
        stack = np.stack([[case.draw(rng, covariance) for _ in range(2)] for _ in range(3)])
        for method in (covariance.factor, covariance.factor_derivative, covariance.matrix, covariance.natural, covariance.components):
            looped = np.stack([[method(x) for x in row] for row in stack])
            np.testing.assert_allclose(method(stack), looped, rtol=1e-12, atol=1e-14)
        again = covariance.from_natural(covariance.natural(stack))
        close(covariance.matrix(again), covariance.matrix(stack), 1e-8)
        close(covariance.matrix(covariance.rescale(stack, 2.0)), 4.0 * covariance.matrix(stack), 1e-12)

    def test_natural_parameters_go_there_and_back(self, covariance, x):
        close(covariance.matrix(covariance.from_natural(covariance.natural(x))), covariance.matrix(x), 1e-8)
        close(covariance.matrix(covariance.from_components(covariance.components(x))), covariance.matrix(x), 1e-8)

    def test_a_member_is_found_again(self, case, covariance, x):
        sigma = covariance.matrix(x)
        close(covariance.matrix(covariance.from_matrix(sigma)), sigma, found_again(case))

    def test_any_matrix_has_a_close_member(self, covariance):
        root = np.random.default_rng(5).normal(size=(covariance.q, covariance.q))
        found = covariance.matrix(covariance.from_matrix(root @ root.T))
        assert np.isfinite(found).all()
        if covariance.name == "lin":
            return  # its nearest member with coefficients that are not negative may be 0
        assert 0.1 < np.trace(found) / np.trace(root @ root.T) < 10

    def test_rescaling_multiplies_sigma(self, covariance, x):
        close(covariance.matrix(covariance.rescale(x, 3.0)), 9.0 * covariance.matrix(x), 1e-12)

    def test_sigma_does_not_see_the_sign_of_all_scales(self, covariance, x):
        close(covariance.matrix(covariance.rescale(x, -1.0)), covariance.matrix(x), 1e-12)

    def test_derivatives_in_natural_parameters(self, covariance, x):
        values = covariance.natural(x)
        sigma, first, second = covariance.natural_derivatives(values)
        close(sigma, covariance.matrix(x), 1e-10)
        close(first, differences(lambda v: covariance.natural_derivatives(v)[0], values), DIFFERENCE)
        close(second, differences(lambda v: covariance.natural_derivatives(v)[1], values), DIFFERENCE)
        np.testing.assert_allclose(second, np.swapaxes(second, 0, 1), rtol=1e-12, atol=1e-12)
        assert not covariance.linear or not second.any()

    def test_derivatives_in_components(self, covariance, x):
        values = covariance.components(x)
        # variances near 0 bend sharply: the differences are taken away from there
        if values.min() < 1e-2 and covariance.component_parameters[0].kind == "var":
            values = np.where([p.kind == "var" for p in covariance.component_parameters], np.maximum(values, 0.1), values)
        sigma, first, second = covariance.component_derivatives(values)
        close(covariance.matrix(covariance.from_components(values)), sigma, 1e-8)
        close(first, differences(lambda v: covariance.component_derivatives(v)[0], values), DIFFERENCE)
        close(second, differences(lambda v: covariance.component_derivatives(v)[1], values), DIFFERENCE)
        assert not covariance.component_linear or not second.any()

    def test_the_jacobians_of_the_readings(self, covariance):
        x = covariance.start() + 0.02 * np.arange(1, covariance.size + 1) / covariance.size
        first = covariance.natural_derivatives(covariance.natural(x))[1]
        if np.linalg.matrix_rank(first.reshape(covariance.size, -1)) < covariance.size:
            pytest.skip("more parameters than the matrix tells apart: natural values are not a function of Sigma")
        close(covariance.natural_jacobian(x), differences(covariance.natural, x).T, 1e-6)
        close(covariance.component_jacobian(x), differences(covariance.components, x).T, 1e-6)

    def test_zero_scales_stay_finite(self, covariance, x):
        if covariance.name in ("hf",):
            pytest.skip("no member of hf has a row without variance beside others with variance")
        for position in covariance.scales:
            singular = x.copy()
            singular[position] = 0.0
            assert np.isfinite(covariance.factor(singular)).all()
            assert np.isfinite(covariance.factor_derivative(singular)).all()
            assert np.isfinite(covariance.natural(singular)).all()

    def test_the_whole_matrix_may_be_zero(self, covariance, x):
        nothing = covariance.rescale(x, 0.0)
        assert not covariance.factor(nothing).any()
        assert np.isfinite(covariance.factor_derivative(nothing)).all()
        assert np.isfinite(covariance.from_matrix(np.zeros((covariance.q, covariance.q)))).all()

    def test_with_its_leading_scale_held_at_one(self, covariance, x):
        pinned, sigma = covariance.pin_scale(), covariance.matrix(x)
        scale, inner = pinned.split(x)
        assert inner.size == pinned.size == covariance.size - 1
        close(scale**2 * pinned.matrix(inner), sigma, 1e-9)
        close(covariance.matrix(pinned.full(scale, inner)), sigma, 1e-9)
        if covariance.name not in ("lin", "known"):
            assert pinned.matrix(inner)[0, 0] == pytest.approx(1.0, abs=1e-12)
        close(pinned.factor_derivative(inner), differences(pinned.factor, inner) if inner.size else pinned.factor_derivative(inner), 5e-6)
        np.testing.assert_array_equal(pinned.scales, covariance.scales[1:] - 1)
        assert np.isfinite(pinned.factor(pinned.start())).all()

    def test_rows_may_be_rescaled_where_the_family_allows_it(self, covariance, x):
        c = np.linspace(0.5, 2.0, covariance.q) if covariance.invariance != "scalar" else np.full(covariance.q, 1.7)
        moved = covariance.matrix(covariance.rescale_rows(x, c))
        close(moved, c[:, None] * covariance.matrix(x) * c, 1e-12)

    def test_a_map_the_family_is_closed_under_moves_x(self, covariance, x):
        q = covariance.q
        free = np.random.default_rng(6).normal(size=(q, q))
        maps = {"any": free, "diagonal": np.diag(np.linspace(0.5, 2.0, q)), "scalar": 1.7 * np.eye(q)}
        A = maps[covariance.invariance]
        close(covariance.matrix(covariance.map_rows(x, A)), A @ covariance.matrix(x) @ A.T, 1e-12)

    def test_invariance(self, case, covariance, x):
        rng = np.random.default_rng(3)
        q = covariance.q
        maps = {"any": rng.normal(size=(q, q)), "diagonal": np.diag(rng.uniform(0.5, 2.0, q)), "scalar": 1.7 * np.eye(q)}
        moved = maps[covariance.invariance] @ covariance.matrix(x) @ maps[covariance.invariance].T
        close(covariance.matrix(covariance.from_matrix(moved)), moved, found_again(case))

    def test_names_carry_the_labels(self, covariance):
        labels = [f"VIS{k}" for k in range(1, 1 + covariance.q + 2)]
        for names in (covariance.natural_names_for(labels), covariance.component_names_for(labels)):
            assert len(set(names)) == covariance.size
