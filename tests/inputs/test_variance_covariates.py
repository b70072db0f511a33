"""A variance function does not depend on where its covariate starts, nor on its unit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import bayeslmm as blm
from tests.inputs.frames import visits


def fitted(variance: str, **columns: object) -> blm.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return blm.LMM("y ~ x + (1 | g)", visits().assign(**columns), variance=variance).fit()


@pytest.mark.parametrize("unit", [1e6, 1e3, 1e-3, 1e-6, 1e-9])
def test_the_unit_of_the_covariate_of_exp_does_not_matter(unit: float) -> None:
    day = visits()["day"]
    plain, other = fitted("exp(day)"), fitted("exp(z)", z=day * unit)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-7)
    assert other.residual_params["expon"] * unit == pytest.approx(plain.residual_params["expon"], rel=1e-5)
    assert other.sigma == pytest.approx(plain.sigma, rel=1e-6)


@pytest.mark.parametrize("year", [100, 2000, -2000])
def test_the_origin_of_the_covariate_of_exp_does_not_matter(year: float) -> None:
    day = visits()["day"]
    plain, other = fitted("exp(day)"), fitted("exp(z)", z=day + year)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-7)
    assert not other.singular
    # sigma is the sd where the covariate is 0
    assert np.log(other.sigma / plain.sigma) == pytest.approx(-year * plain.residual_params["expon"], rel=1e-4)
    np.testing.assert_allclose(other.residuals("pearson"), plain.residuals("pearson"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unit", [1e6, 1e-6, 1e-9])
def test_the_unit_of_the_covariate_of_power_does_not_matter(unit: float) -> None:
    value = visits()["day"] + 1
    plain, other = fitted("power(z)", z=value), fitted("power(z)", z=value * unit)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-7)
    assert other.residual_params["power"] == pytest.approx(plain.residual_params["power"], rel=1e-5)


@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_strata_share_the_unit(unit: float) -> None:
    day = visits()["day"]
    plain, other = fitted("exp(day | arm)"), fitted("exp(z | arm)", z=day * unit)
    assert other.criterion == pytest.approx(plain.criterion, abs=1e-7)
