"""A number that no float holds is refused in words wherever one number is asked for; a float of 32 bits is as good as one of 64."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError
from tests.bayes import designs

BEYOND = [10**400, -(10**400), Fraction(10**400, 3), Decimal("1e400"), Decimal("nan"), np.float32("nan"), np.array([1.0, 2.0])]


@cache
def fit() -> Any:
    frame = designs.grouped().assign(y=lambda d: np.exp(d["y"]))
    return blm.LMM("log(y) ~ x + inner + (1 | g)", frame).fit()


@cache
def posterior() -> Any:
    return fit().model.sample(50, seed=1)


PLACES: dict[str, Callable[[Any], Any]] = {
    "sigma of a model": lambda v: blm.LMM("y ~ x + (1 | g)", designs.grouped(), sigma=v).fit(),
    "conf_level": lambda v: fit().tidy(conf_int=True, conf_level=v),
    "delta": lambda v: fit().emmeans("inner").pairs(delta=v),
    "equivalence": lambda v: fit().emmeans("inner").pairs(equivalence=v),
    "sd of an effect size": lambda v: fit().emmeans("inner").effect_size(v),
    "bias_adjust": lambda v: fit().emmeans("inner", type="response", bias_adjust=v),
    "rope, above": lambda v: posterior().rope(-1, v),
    "rope, below": lambda v: posterior().rope(v, 3),
    "prior": lambda v: blm.Priors(sigma=("half_normal", v)),
    "alpha of a power": lambda v: fit().power("x", alpha=v, nsim=2, seed=1),
}


@pytest.mark.parametrize("place", PLACES)
def test_numbers_that_are_no_floats_are_refused(place: str) -> None:
    for value in BEYOND:
        with pytest.raises(BayesLMMError):
            PLACES[place](value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("place", PLACES)
def test_a_float_of_32_bits_is_a_number(place: str) -> None:
    PLACES[place](np.float32(0.5))
