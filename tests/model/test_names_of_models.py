"""Models that differ in anything but their formulas have different names in tables and representations."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"x": rng.normal(size=90), "g": np.repeat(np.arange(15), 6), "t": np.tile(np.arange(6), 15)})
    return data.assign(y=rng.normal(size=90) + data["x"], s=np.tile(list("ab"), 45), w=rng.uniform(1, 2, 90))


OPTIONS: list[dict[str, object]] = [
    {},
    {"residual": "ar1(t | g)"},
    {"residual": "cs(t | g)"},
    {"variance": "ident(s)"},
    {"variance": "power(w)"},
    {"residual": "ar1(t | g)", "variance": "ident(s)"},
    {"weights": "w"},
    {"offset": "w"},
    {"sigma": 1.5},
]


def test_no_two_models_are_called_alike() -> None:
    fits = [blm.LMM("y ~ x + s", frame(), **options).fit("ML") for options in OPTIONS]  # type: ignore[arg-type]
    for a, b in itertools.combinations(fits, 2):
        assert a.design.spec.title != b.design.spec.title
        assert repr(a).partition(": criterion")[0] != repr(b).partition(": criterion")[0]
        assert repr(a.model) != repr(b.model)
    assert fits[0].design.spec.title == "y ~ x + s"


@pytest.mark.parametrize("larger", OPTIONS[1:6])
def test_the_column_of_lrt_tells_structures_apart(larger: dict[str, str]) -> None:
    data = frame()
    table = blm.lrt(blm.LMM("y ~ x", data).fit(), blm.LMM("y ~ x", data, **larger).fit())  # type: ignore[arg-type]
    assert table["model"].iloc[0] == "y ~ x"
    assert all(text in table["model"].iloc[1] for text in larger.values())
    ranked = blm.compare_models([blm.LMM("y ~ x", data), blm.LMM("y ~ x", data, **larger)])  # type: ignore[arg-type]
    assert set(ranked["model"]) == set(table["model"])
