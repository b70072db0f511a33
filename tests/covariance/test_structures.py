"""What single structures promise: nesting, limits, meanings, registration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gamma, kv

from bayeslmm.covariance.linalg import cholesky
from bayeslmm.covariance.registry import STRUCTURES, description, make
from bayeslmm.covariance.serial import autocorrelations, partial_autocorrelations
from bayeslmm.covariance.spatial import PinnedLocated, SpatialCovariance, distance_matrix, matern_curve, typical_distance
from bayeslmm.errors import SpecificationError

Q = 4


def is_member(name: str, sigma: np.ndarray, tolerance: float = 1e-9, **options) -> bool:
    found = make(name, len(sigma), **options)
    return bool(np.allclose(found.matrix(found.from_matrix(sigma)), sigma, rtol=tolerance, atol=tolerance))


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("id", "diag"), ("diag", "us"), ("id", "cs"), ("cs", "csh"), ("csh", "us"), ("cs", "toep"), ("cs", "hf"), ("id", "ar1"),
        ("ar1", "ar1h"), ("ar1", "ad"), ("ar1", "toep"), ("ar1", "arma"), ("arma", "toep"), ("ad", "adh"), ("ar1h", "adh"), ("adh", "us"),
        ("toep", "toeph"), ("toeph", "us"), ("ar1h", "toeph"), ("csh", "toeph"), ("hf", "us"), ("diag", "un"),
    ],
)  # fmt: skip
def test_every_member_of_the_smaller_family_is_one_of_the_larger(small, large):
    rng = np.random.default_rng(4)
    covariance = make(small, Q)
    for _ in range(5):
        x = covariance.start() + 0.2 * rng.uniform(-1, 1, covariance.size)
        assert is_member(large, covariance.matrix(x))


def test_common_factors_lie_within_factors_with_own_variances():
    rng = np.random.default_rng(9)
    spare = make("fa1", 5, 1)
    assert is_member("fa", spare.matrix(spare.start() + 0.1 * rng.normal(size=spare.size)), 1e-6, order=1)
    full = make("fa0", Q, Q)
    assert full.size == make("us", Q).size
    assert is_member("us", full.matrix(rng.normal(size=full.size)))


def test_bands_are_empty_beyond_the_order():
    rng = np.random.default_rng(2)
    far = np.abs(np.subtract.outer(range(5), range(5))) >= 2
    for name in ("un", "toep", "toeph"):
        covariance = make(name, 5, 2)
        sigma = covariance.matrix(rng.normal(size=covariance.size))
        assert not np.abs(sigma[far]).max() > 1e-15
        assert np.isfinite(sigma).all()


@pytest.mark.parametrize("q", [2, 3, 6])
def test_compound_symmetry_reaches_its_negative_limit(q):
    covariance = make("cs", q)
    for rho in (-0.999 / (q - 1), -0.5 / (q - 1), 0.0, 0.999):
        x = covariance.from_natural(np.array([2.0, rho]))
        np.testing.assert_allclose(covariance.matrix(x), 4.0 * (np.eye(q) * (1 - rho) + rho), rtol=1e-12, atol=1e-12)
    for z in (-40.0, 40.0, -400.0, 400.0):
        factor, derivative = covariance.factor(np.array([1.0, z])), covariance.factor_derivative(np.array([1.0, z]))
        assert np.isfinite(factor).all()
        assert np.isfinite(derivative).all()
        rho = 1.0 if z > 0 else -1.0 / (q - 1)
        np.testing.assert_allclose(factor @ factor.T, np.eye(q) * (1 - rho) + rho, atol=1e-12)


def test_compound_symmetry_is_linear_in_variance_and_covariance():
    covariance = make("cs", 3)
    assert covariance.component_linear
    assert not covariance.linear
    assert covariance.component_names == ("var", "cov")
    np.testing.assert_allclose(covariance.components(covariance.from_matrix(np.eye(3) * 2 + 0.5)), [2.5, 0.5], rtol=1e-12)


def test_a_flipped_scale_stays_in_a_heterogeneous_family():
    covariance = make("csh", 3)
    x = covariance.start()
    flipped = x * np.where(np.arange(x.size) == 1, -1.0, 1.0)
    np.testing.assert_array_equal(covariance.matrix(flipped), covariance.matrix(x))


@given(st.lists(st.floats(-0.99, 0.99), min_size=1, max_size=7))
def test_partial_autocorrelations_reach_every_toeplitz_matrix(partial):
    k = np.array(partial)
    r = autocorrelations(k)[0]
    np.testing.assert_allclose(np.tanh(np.arctanh(partial_autocorrelations(r))), k, rtol=1e-4, atol=1e-5)
    lag = np.abs(np.subtract.outer(range(k.size + 1), range(k.size + 1)))
    # the smallest eigenvalue may be as small as the product of 1 - k^2, so only its sign up to rounding can be asked for
    assert np.linalg.eigvalsh(np.append(1.0, r)[lag])[0] > -1e-12


def test_partial_autocorrelations_of_an_autoregression_stop_after_the_first():
    np.testing.assert_allclose(partial_autocorrelations(0.7 ** np.arange(1.0, 6.0)), [0.7, 0, 0, 0, 0], atol=1e-14)


def test_an_indefinite_point_is_not_a_number():
    banded = make("toep", 5, 3)
    assert np.isnan(banded.factor(np.array([1.0, 2.0, 0.5]))).all()
    assert np.isnan(make("hf", 3).factor(np.array([1.0, 1.0, 1.0, 2.0]))).all()
    both = np.stack([banded.start(), np.array([1.0, 2.0, 0.5])])
    assert np.isfinite(banded.factor(both)[0]).all()
    assert np.isnan(banded.factor(both)[1]).all()


def test_the_factor_of_a_semidefinite_matrix():
    root = np.random.default_rng(0).normal(size=(5, 2))
    factor = cholesky(root @ root.T)
    np.testing.assert_allclose(factor @ factor.T, root @ root.T, atol=1e-12)
    assert np.isnan(cholesky(np.diag([1.0, -1.0]))).all()
    assert np.isnan(cholesky(np.array([[0.0, 1.0], [1.0, 1.0]]))).all()


class TestSpatial:
    coords = np.array([[0.0], [1.0], [2.0], [3.0]])

    def test_the_exponential_on_an_even_grid_is_autoregressive(self):
        for name in ("sp_exp", "sp_pow"):
            spatial, serial = make(name, 4, coords=self.coords), make("ar1", 4)
            x = np.array([1.3, 0.4])
            rho = np.exp(-np.exp(-0.4))
            np.testing.assert_allclose(spatial.matrix(x), serial.matrix(serial.from_natural(np.array([1.3, rho]))), rtol=1e-12)

    @pytest.mark.parametrize(
        ("name", "curve"),
        [
            ("sp_exp", lambda d: np.exp(-d / 2.5)),
            ("sp_gau", lambda d: np.exp(-((d / 2.5) ** 2))),
            ("sp_sph", lambda d: np.where(d < 2.5, 1 - 1.5 * d / 2.5 + 0.5 * (d / 2.5) ** 3, 0)),
            ("sp_lin", lambda d: np.maximum(1 - d / 2.5, 0)),
            ("sp_ratio", lambda d: 1 / (1 + (d / 2.5) ** 2)),
        ],
    )
    def test_the_curves_are_those_of_the_manuals(self, name, curve):
        covariance = make(name, 4, coords=self.coords)
        x = covariance.from_natural(np.array([2.0, 2.5]))
        np.testing.assert_allclose(covariance.matrix(x), 4.0 * curve(distance_matrix(self.coords)), rtol=1e-12, atol=1e-14)
        assert covariance.natural_names == ("sd", "range")

    @pytest.mark.parametrize("name", [name for name, structure in STRUCTURES.items() if structure.spatial])
    @pytest.mark.parametrize("nugget", [False, True])
    def test_subjects_with_places_of_their_own_are_a_loop(self, name, nugget):
        rng = np.random.default_rng(8)
        dimension = 1 if name == "sp_lin" else 2
        distances = distance_matrix(rng.uniform(0, 3, (3, 4, dimension)))
        covariance = make(name, 1, reach=typical_distance(distances), nugget=nugget)
        assert isinstance(covariance, SpatialCovariance)
        pinned = covariance.pin_scale()
        assert isinstance(pinned, PinnedLocated)
        x = covariance.start() + 0.2 * rng.uniform(-1, 0, (2, covariance.size))
        for i, d in enumerate(distances):
            here = covariance.at(d)
            for k in range(2):
                np.testing.assert_allclose(covariance.matrix_at(x, distances)[k, i], here.matrix(x[k]), rtol=1e-9, atol=1e-14)
                np.testing.assert_allclose(covariance.factor_at(x, distances)[k, i], here.factor(x[k]), rtol=1e-9, atol=1e-12)
                moved = covariance.factor_derivative_at(x, distances)[k, :, i]
                np.testing.assert_allclose(moved, here.factor_derivative(x[k]), rtol=1e-6, atol=1e-9)
                inner = pinned.factor_derivative_at(x[k, 1:], distances)
                np.testing.assert_allclose(inner[:, i] * x[k, 0], here.factor_derivative(x[k])[1:], rtol=1e-6, atol=1e-9)
        with_scale, without = covariance.correlation_derivative(x, distances), pinned.correlation_derivative(x[:, 1:], distances)
        np.testing.assert_array_equal(with_scale[:, 1:], without)
        np.testing.assert_allclose(pinned.correlation(x[:, 1:], distances), covariance.correlation(x, distances))
        np.testing.assert_allclose(pinned.factor_at(x[:, 1:], distances)[..., 0, 0], 1.0, rtol=1e-12)
        assert not with_scale[:, 0].any()

    @pytest.mark.parametrize("nu", [0.2, 0.5, 1.0, 1.5, 2.5, 10.0])
    def test_matern_is_the_bessel_function(self, nu):
        u = np.array([1e-4, 1e-2, 0.1, 0.5, 1.0, 3.0, 10.0])
        np.testing.assert_allclose(matern_curve(u, nu).value, 2 ** (1 - nu) / gamma(nu) * u**nu * kv(nu, u), rtol=1e-10)

    def test_matern_contains_the_exponential(self):
        half, exponential = make("matern", 4, coords=self.coords, nu=0.5), make("sp_exp", 4, coords=self.coords)
        np.testing.assert_allclose(half.matrix(np.array([1.0, 0.3])), exponential.matrix(np.array([1.0, 0.3])), rtol=1e-12)
        free = make("matern", 4, coords=self.coords)
        np.testing.assert_allclose(free.matrix(np.array([1.0, 0.3, np.log(0.5)])), exponential.matrix(np.array([1.0, 0.3])), rtol=1e-12)

    def test_the_start_follows_the_unit_of_the_coordinates(self):
        near, far = make("sp_exp", 4, coords=self.coords), make("sp_exp", 4, coords=1e6 * self.coords)
        np.testing.assert_allclose(near.matrix(near.start()), far.matrix(far.start()), rtol=1e-12)

    def test_equal_places_have_correlation_one(self):
        covariance = make("sp_exp", 2, coords=[[1.0], [1.0]])
        factor = covariance.factor(covariance.start())
        np.testing.assert_allclose(factor, [[1, 0], [1, 0]], atol=1e-12)


def test_a_product_is_a_product():
    covariance = make("us@ar1", 6, dims=(2, 3))
    outer, inner = make("us", 2), make("ar1", 3)
    a = outer.from_matrix(np.array([[2.0, 0.3], [0.3, 1.0]]))
    x = np.append(a, np.arctanh(0.6))
    np.testing.assert_allclose(covariance.matrix(x), np.kron(outer.matrix(a), inner.matrix(np.array([1.0, np.arctanh(0.6)]))), rtol=1e-12)
    names = covariance.natural_names_for(["iq", "mass", "t1", "t2", "t3"])
    assert names == ("var[iq]", "cov[mass,iq]", "var[mass]", "inner_rho")


def test_names_of_parameters():
    assert make("csh", 2).natural_names_for(["a", "b"]) == ("sd[a]", "sd[b]", "rho")
    assert make("adh", 3).component_names_for(["a", "b", "c"]) == ("var[a]", "var[b]", "var[c]", "rho[b,a]", "rho[c,b]")
    assert make("toep", 3).natural_names_for(["a", "b", "c"]) == ("sd", "rho[lag 1]", "rho[lag 2]")
    assert make("us", 2).natural_names == ("var_1", "cov_2_1", "var_2")


def test_pinning_gives_the_sd_of_the_first_row():
    sigma = np.array([[4.0, 1.0], [1.0, 9.0]])
    for name in ("us", "csh", "ar1h", "adh", "toeph"):
        scale, inner = make(name, 2).pin_scale().from_matrix(sigma)
        assert scale == pytest.approx(2.0)
        np.testing.assert_allclose(scale**2 * make(name, 2).pin_scale().matrix(inner), sigma, rtol=1e-12)


@pytest.mark.parametrize("name", ["cs", "csh", "ar1", "ar1h", "ad", "adh", "toep", "toeph"])
def test_a_single_row_has_a_single_variance(name):
    covariance = make(name, 1)
    assert covariance.size == 1
    np.testing.assert_array_equal(covariance.matrix(np.array([3.0])), [[9.0]])


def test_every_structure_is_described():
    for name in STRUCTURES:
        assert "parameter" in description(name)


@pytest.mark.parametrize(
    ("name", "q", "options"),
    [
        ("uss", 3, {}), ("arma", 2, {}), ("hf", 1, {}), ("ar1", 3, {"order": 2}), ("toep", 3, {"order": 0}), ("csh", 3, {"nugget": True}),
        ("us@ar1", 6, {"dims": (2, 2)}), ("lin", 3, {}), ("known", 2, {"matrices": [np.diag([1.0, -1.0])]}), ("matern", 2, {"nu": -1.0}),
        ("sp_exp", 3, {"coords": [[0.0], [1.0]]}), ("known", 2, {"matrices": [[[1.0, 0.5], [0.0, 1.0]]]}),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_with_a_remedy(name, q, options):
    with pytest.raises(SpecificationError) as caught:
        make(name, q, **options)
    assert caught.value.remedy
