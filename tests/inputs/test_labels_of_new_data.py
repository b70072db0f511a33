"""Labels of new data find their level, whether a frame holds them as numbers or as text; what is absent is named with the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import PredictionError


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"x": rng.normal(size=120), "g": np.repeat(np.arange(301, 321), 6), "k": np.tile([1, 5, 10], 40)})
    return data.assign(y=rng.normal(size=120) + data["x"] + rng.normal(size=20)[data["g"] - 301])


CLOTHES: dict[str, Any] = {
    "integers": lambda s: s.astype(int),
    "text": lambda s: s.astype(str),
    "floats": lambda s: s.astype(float),
    "objects": lambda s: s.astype(object),
    "categories": lambda s: s.astype(str).astype("category"),
    "categories of numbers": lambda s: s.astype("category"),
    "nullable": lambda s: s.astype("Int64"),
}


@pytest.mark.parametrize("fitted", CLOTHES)
@pytest.mark.parametrize("given", CLOTHES)
def test_a_number_and_its_text_are_one_label(fitted: str, given: str) -> None:
    data = frame()
    dressed = data.assign(g=CLOTHES[fitted](data["g"]), k=CLOTHES[fitted](data["k"]))
    fit = blm.LMM("y ~ x + C(k) + (1 | g) + (1 | g:k)", dressed).fit()
    other = data.assign(g=CLOTHES[given](data["g"]), k=CLOTHES[given](data["k"]))
    assert np.array_equal(fit.predict(other)["estimate"].to_numpy(), fit.predict(dressed)["estimate"].to_numpy())
    with pytest.raises(PredictionError, match="not known to the fit"):
        fit.predict(other.assign(g=CLOTHES[given](data["g"] + 100)))
    with pytest.raises(PredictionError, match="not seen"):
        fit.predict(other.assign(k=CLOTHES[given](data["k"] + 100)))


def test_text_that_is_not_the_number_is_another_label() -> None:
    data = frame().assign(g=lambda d: d["g"].astype(str))
    fit = blm.LMM("y ~ x + (1 | g)", data).fit()
    for label in ("0301", "301.0", " 301"):
        with pytest.raises(PredictionError, match="not known"):
            fit.predict({"x": [0.0], "g": [label]})


def test_without_the_grouping_column_the_population_is_named() -> None:
    data = frame()
    for formula in ("y ~ x + (1 | g)", "y ~ x + (x | g) + (1 | k)", "y ~ x + (1 | g / k)"):
        fit = blm.LMM(formula, data, check="warn").fit()
        with pytest.raises(PredictionError, match=r"'[gk]'") as caught:
            fit.predict({"x": [1.0]})
        assert 'level="population"' in caught.value.remedy
        assert np.isfinite(fit.predict({"x": [1.0]}, level="population")["estimate"].item())
        with pytest.raises(PredictionError, match="reset_index"):
            fit.predict(data.set_index(["g", "k"]))
