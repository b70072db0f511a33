"""A column whose name a formula reads in backticks only: without them the error says so, with them the model is read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, FormulaError

NAMES = ["RT (ms)", "log freq", "korrekt?", "trial no.", "2nd", "x-1", "a:b", "Größe in cm", "p.", "% fat", "dose [mg]", "km/h", "for test"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["{} ~ t + (1 | g)", "y ~ {} + (1 | g)", "y ~ t * {} + (1 | g)", "y ~ ({} | g)", "y ~ t + (1 | {})"])
def test_a_strange_name_is_told_of_backticks(name: str, place: str) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=24), "t": rng.normal(size=24), "g": np.tile(list("abcd"), 6)})
    frame[name] = np.tile(list("uvw"), 8) if place.endswith("(1 | {})") else rng.normal(size=24)
    with pytest.raises((FormulaError, DataError)) as caught:
        blm.LMM(place.format(name), frame)
    assert f"`{name}`" in caught.value.remedy
    assert blm.LMM(place.format(f"`{name}`"), frame, check="warn").nobs == 24


def test_an_error_about_something_else_keeps_its_own_remedy() -> None:
    frame = pd.DataFrame({"y": [1.0, 2.0, 3.0], "x y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 1.0]})
    with pytest.raises(DataError) as caught:
        blm.LMM("y ~ z + `x y`", frame)
    assert "backticks" not in caught.value.remedy


@pytest.mark.parametrize("weights", ["varIdent(form = ~ 1 | g)", "varPower()", "varConstPower(form = ~ x)"])
def test_weights_of_nlme_are_told_of_variance(weights: str) -> None:
    with pytest.raises(DataError) as caught:
        blm.LMM("y ~ x", {"y": [1.0, 2.0, 3.0], "x": [0.0, 1.0, 1.0]}, weights=weights)
    assert 'variance="' in caught.value.remedy


@pytest.mark.parametrize("term", ["(1 | vm(g, A))", "(1 | giv(g))", "(1 | ped(g))"])
def test_pedigrees_of_asreml_are_told_of_relationship(term: str) -> None:
    with pytest.raises(FormulaError) as caught:
        blm.LMM(f"y ~ {term}", {"y": [1.0, 2.0, 3.0], "g": list("aab")})
    assert "relationship=" in caught.value.remedy
