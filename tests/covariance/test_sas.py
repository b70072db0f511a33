"""PROC MIXED's names, order and scale of covariance parameters."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.covariance.registry import make
from bayeslmm.sas_results.covariance_parameters import sas_parameters

SIGMA = np.array([[4.0, 1.0, 0.5], [1.0, 4.0, 1.0], [0.5, 1.0, 4.0]])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("us", ["UN(1,1)", "UN(2,1)", "UN(2,2)", "UN(3,1)", "UN(3,2)", "UN(3,3)"]),
        ("cs", ["CS", "Residual"]),
        ("csh", ["Var(1)", "Var(2)", "Var(3)", "CSH"]),
        ("ar1", ["AR(1)", "Residual"]),
        ("ar1h", ["Var(1)", "Var(2)", "Var(3)", "ARH(1)"]),
        ("adh", ["Var(1)", "Var(2)", "Var(3)", "Rho(1)", "Rho(2)"]),
        ("toep", ["TOEP(2)", "TOEP(3)", "Residual"]),
        ("toeph", ["Var(1)", "Var(2)", "Var(3)", "TOEPH(1)", "TOEPH(2)"]),
        ("arma", ["Rho", "Gamma", "Residual"]),
        ("hf", ["Var(1)", "Var(2)", "Var(3)", "HF"]),
        ("id", ["Residual"]),
    ],
)
def test_names_as_printed(name, wanted):
    covariance = make(name, 3)
    assert [row[0] for row in sas_parameters(covariance, covariance.from_matrix(SIGMA))] == wanted


def test_values_of_compound_symmetry_are_the_covariance_and_what_is_left():
    covariance = make("cs", 3)
    x = covariance.from_matrix(np.full((3, 3), 5.7) + 81.0 * np.eye(3))
    assert sas_parameters(covariance, x) == (("CS", pytest.approx(5.7)), ("Residual", pytest.approx(81.0)))
    assert [row[0] for row in sas_parameters(covariance, x, grouped=True)] == ["Variance", "CS"]


def test_values_of_toeplitz_are_covariances():
    covariance = make("toep", 3)
    found = dict(sas_parameters(covariance, covariance.from_matrix(SIGMA)))
    assert found == pytest.approx({"TOEP(2)": 1.0, "TOEP(3)": 0.5, "Residual": 4.0})


def test_a_spatial_structure_with_local():
    covariance = make("sp_exp", 3, coords=[[0.0], [1.0], [3.0]], nugget=True)
    x = covariance.from_natural(np.array([2.0, 1.5, 0.25]))
    found = dict(sas_parameters(covariance, x))
    assert found == pytest.approx({"Variance": 3.0, "SP(EXP)": 1.5, "Residual": 1.0})


def test_a_product():
    covariance = make("us@ar1", 4, dims=(2, 2))
    names = [row[0] for row in sas_parameters(covariance, covariance.start())]
    assert names == ["UN(1,1)", "UN(2,1)", "UN(2,2)", "AR(1)"]


def test_the_published_estimates_come_back():
    published = [92.3009, 38.5178, 35.2148, 176.37, 0.413]
    covariance = make("ar1h", 4)
    x = covariance.from_components(np.array(published))
    assert [row[1] for row in sas_parameters(covariance, x)] == pytest.approx(published)
