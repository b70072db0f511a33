"""The covariance parameters under SAS's names, against published listings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bayeslmm.errors import SpecificationError
from bayeslmm.sas.language.covariance_types import CovType, sas_type
from bayeslmm.sas.translation import CovBlock
from bayeslmm.sas_results.covariance_parameters import block_parameters, has_matrix_form

LISTINGS = (
    "sas_us_simple_reml",
    "sas_us_full_ml",
    "sas_cs_simple_ml",
    "sas_csh_simple_reml",
    "sas_ar1_simple_ml",
    "sas_ar1h_simple_reml",
    "sas_adh_simple_reml",
    "sas_toeph_simple_ml",
)


@pytest.mark.parametrize("name", LISTINGS)
def test_names_and_values_are_those_of_the_listing(name: str, reference: Path) -> None:
    case = json.loads((reference / f"{name}.json").read_text())
    cov = sas_type(case["residual"]["structure"])
    assert cov is not None
    sigma = np.array(case["outputs"]["residual_cov"]["matrix"])
    printed = case["outputs"]["residual_params"]
    found = block_parameters(CovBlock("repeated", cov, ("AVISIT",), "USUBJID"), sigma)
    assert [name for name, _ in found] == printed["names"]
    # Five printed digits.
    np.testing.assert_allclose([value for _, value in found], printed["estimate"], rtol=2e-4, atol=2e-4)


def test_with_groups_the_variance_has_a_row_of_its_own() -> None:
    sigma = np.array([[5.0, 2.0], [2.0, 5.0]])
    assert block_parameters(CovBlock("repeated", CovType("CS"), group="arm"), sigma) == (("Variance", 3.0), ("CS", 2.0))
    assert block_parameters(CovBlock("random", CovType("AR(1)")), sigma) == (("Variance", 5.0), ("AR(1)", 0.4))


def test_the_other_structures_have_their_rows() -> None:
    sigma = np.array([[4.0, 1.0, 0.5], [1.0, 4.0, 1.0], [0.5, 1.0, 4.0]])

    def rows(cov: CovType) -> dict[str, float]:
        return dict(block_parameters(CovBlock("repeated", cov), sigma))

    assert rows(CovType("TOEP")) == {"TOEP(2)": 1.0, "TOEP(3)": 0.5, "Residual": 4.0}
    assert rows(CovType("TOEP", 2)) == {"TOEP(2)": 1.0, "Residual": 4.0}
    assert rows(CovType("ARMA(1,1)")) == {"Rho": 0.5, "Gamma": 0.25, "Residual": 4.0}
    assert rows(CovType("HF")) == {"Var(1)": 4.0, "Var(2)": 4.0, "Var(3)": 4.0, "HF": 3.0}
    assert rows(CovType("UN", 2)) == {"UN(1,1)": 4.0, "UN(2,1)": 1.0, "UN(2,2)": 4.0, "UN(3,2)": 1.0, "UN(3,3)": 4.0}
    assert rows(CovType("UNR"))["Corr(3,1)"] == 0.125
    assert block_parameters(CovBlock("random", CovType(), ("a*b",)), np.array([[2.0]])) == (("a*b", 2.0),)


def test_loadings_are_the_cholesky_factor() -> None:
    L = np.array([[2.0, 0], [1, 3], [0.5, -1]])
    found = block_parameters(CovBlock("random", CovType("FA0", 2)), L @ L.T)
    assert [name for name, _ in found] == ["FA(1,1)", "FA(2,1)", "FA(2,2)", "FA(3,1)", "FA(3,2)"]
    np.testing.assert_allclose([value for _, value in found], [2, 1, 3, 0.5, -1])


def test_a_product_names_its_effects() -> None:
    first = np.array([[4.0, 1.0], [1.0, 9.0]])
    second = 0.5 ** np.abs(np.subtract.outer(range(3), range(3)))
    found = block_parameters(CovBlock("repeated", CovType("UN@AR(1)"), ("Var", "Year"), "Child"), np.kron(first, second), outcomes=2)
    assert found == (("Var UN(1,1)", 4.0), ("UN(2,1)", 1.0), ("UN(2,2)", 9.0), ("Year AR(1)", 0.5))


def test_structures_without_a_matrix_form_say_so() -> None:
    assert not has_matrix_form(CovType("SP(POW)", None, ("t",)))
    assert not has_matrix_form(CovType("FA", 1))
    with pytest.raises(SpecificationError, match="do not follow"):
        block_parameters(CovBlock("repeated", CovType("SP(POW)", None, ("t",))), np.eye(2))
