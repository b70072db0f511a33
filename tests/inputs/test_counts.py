"""How many draws, replications, chains: a whole number of 1 or more, wherever it is asked; and levels between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bayeslmm.errors import SpecificationError
from tests.inputs.frames import fit, model, posterior, refused

VERBS: dict[str, Callable[[Any], Any]] = {
    "draws": lambda n: model().sample(draws=n),
    "chains": lambda n: model().sample(draws=20, chains=n),
    "bootstrap": lambda n: fit().bootstrap(n),
    "simulate": lambda n: fit().simulate(n),
    "prior_predictive": lambda n: model().prior_predictive(n),
    "posterior_predictive": lambda n: posterior().posterior_predictive(n),
    "calibrate": lambda n: model().calibrate(n),
    "calibrate draws": lambda n: model().calibrate(2, draws=n),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("count", [0, -3, 1.5, "10", True], ids=str)
def test_what_is_no_count_is_refused(verb: str, count: Any) -> None:
    refused(lambda: VERBS[verb](count), SpecificationError)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, np.nan, "0.9"], ids=str)
def test_a_credible_level_lies_between_0_and_1(level: Any) -> None:
    refused(lambda: posterior().predict(interval="confidence", conf_level=level), SpecificationError, "confidence level")
