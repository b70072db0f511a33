"""What a notebook shows of every public object: a table or a line, never running what came with the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def model() -> Any:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"arm": np.repeat(["a", HOSTILE], 60), "id": np.tile(np.repeat(np.arange(20), 3), 2).astype(str)})
    frame["y"] = rng.normal(size=120) + rng.normal(size=20)[frame["id"].astype(int)]
    return blm.LMM("y ~ arm + (1 | id)", frame)


FORMS: dict[str, Callable[[Any], Any]] = {
    "fit": lambda model: model.fit(),
    "summary": lambda model: model.fit().summary(),
    "posterior": lambda model: model.sample(draws=100, seed=1),
    "posterior_emmeans": lambda model: model.sample(draws=100, seed=1).emmeans("arm"),
    "posterior_contrast": lambda model: model.sample(draws=100, seed=1).contrast(np.array([[0.0, 1.0]])),
    "emmeans": lambda model: model.fit().emmeans("arm"),
    "contrast": lambda model: model.fit().contrast(np.array([[0.0, 1.0]])),
    "profile": lambda model: model.fit().profile(),
    "bootstrap": lambda model: model.fit().bootstrap(10, seed=1),
    "comparison": lambda model: blm.compare(model.fit(), model.sample(draws=100, seed=1)),
    "priors": lambda model: model.priors,
    "calibration": lambda model: model.calibrate(5, draws=19, seed=1),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_a_notebook_shows_a_table(name: str, model: Any) -> None:
    found = FORMS[name](model)
    text = found._repr_html_()
    assert "<table" in text
    assert "<script>" not in text
    assert len(repr(found)) > 0


def test_numbers_of_a_posterior_are_those_of_its_table(model: Any) -> None:
    post = model.sample(draws=100, seed=1)
    for value in post.tidy()["estimate"]:
        assert f"{value:.4g}" in post._repr_html_()
