"""What names nothing of the model, or says nothing, is refused and not passed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bayeslmm.errors import SpecificationError
from tests.inputs.frames import fit, model, posterior, refused

EMPTY = [{}, "2 = 2", "x = x", "x - x = 0", [0, 0], ["x = 0", "1 = 1"], {"one": {}}]


@pytest.mark.parametrize("given", EMPTY, ids=repr)
def test_a_contrast_of_no_coefficient_is_refused(given: Any) -> None:
    refused(lambda: fit().contrast(given), SpecificationError, "without a coefficient")
    refused(lambda: posterior().contrast(given), SpecificationError, "without a coefficient")


def test_an_infinite_right_side_is_refused() -> None:
    refused(lambda: fit().contrast("x = 1e999"), SpecificationError, "infinite")


def test_a_report_has_degrees_of_freedom_that_exist() -> None:
    refused(lambda: fit().report(df="nonsense"), SpecificationError, "unknown df 'nonsense'")


def test_a_coefficient_that_is_none_is_told_its_nearest() -> None:
    alpha = {"Intercept": 1.0, "x": 1.0, "Intercpt": 99.0}
    error = refused(lambda: model().simulate({"alpha": alpha, "theta": [1], "sigma": 1}), SpecificationError, "Intercpt")
    assert error.remedy == "did you mean 'Intercept'?"


@pytest.mark.parametrize("draw", [lambda seed: fit().simulate(seed=seed), lambda seed: fit().bootstrap(3, seed=seed)])
def test_no_numbers_are_no_seed(draw: Callable[[Any], Any]) -> None:
    for seed in ([], (), np.array([], int)):
        refused(lambda seed=seed: draw(seed), SpecificationError, "seed")
