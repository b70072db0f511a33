"""A function passed to a formula is one of the row: what looks at other rows would predict another value, and is refused at the fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.errors import FormulaError

WHOLE: dict[str, Callable[..., Any]] = {
    "mean": lambda x: x.mean(),
    "zscore": lambda x: (x - x.mean()) / x.std(),
    "minmax": lambda x: (x - x.min()) / (x.max() - x.min()),
    "largest": lambda x: x / x.max(),
    "rank": lambda x: np.argsort(np.argsort(x)).astype(float),
    "cumulated": np.cumsum,
    "before": lambda x: np.r_[0.0, x[:-1]],
    "winsorized": lambda x: np.clip(x, *np.quantile(x, [0.05, 0.95])),
    "above": lambda x: (x > np.median(x)).astype(float),
    "baseline": lambda x: x - x[0],
    "smooth": lambda x: np.convolve(x, [0.3, 0.4, 0.3], "same"),
    "gradient": np.gradient,
    "rows": lambda x: x * len(x),
    "ends": lambda x: np.column_stack([x, x - x.max()]),
    "noise": lambda x: x * np.random.default_rng().normal(size=len(x)),
}
BY_ROW: dict[str, Callable[..., Any]] = {
    "square": lambda x: x**2,
    "waves": lambda x: np.column_stack([np.sin(x), np.cos(x), np.exp(x / 10)]),
    "steps": lambda x: np.floor(x) + (x > 1),
    "far": lambda x: np.expm1(x) - 1e3,
    "hinge": lambda x: np.maximum(x - 2.5, 0.0),
    "constant": lambda x: 2.5 + 0 * x,
}


def frame(seed: int, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"x": rng.normal(3, 1, n), "z": rng.normal(size=n), "g": rng.integers(0, max(2, n // 6), n)})
    return data.assign(y=rng.normal(size=n) + data["x"])


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), seed=st.integers(0, 999), n=st.integers(20, 400), scale=st.sampled_from([1.0, 1e-9, 1e9]))
def test_what_looks_at_other_rows_is_refused(name: str, seed: int, n: int, scale: float) -> None:
    data = frame(seed, n).assign(x=lambda d: scale * d["x"])
    for text in ("y ~ f(x) + (1 | g)", "y ~ I(x - f(x)) * z + (1 | g)", "y ~ z + (center(f(x)) | g)", "y ~ z + offset(f(x)) + (1 | g)"):
        with pytest.raises(FormulaError, match="other rows stand beside") as caught:
            blm.LMM(text, data, functions={"f": WHOLE[name]})
        assert "center(x)" in caught.value.remedy
        assert "f(x): " in caught.value.where


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(sorted(BY_ROW)), seed=st.integers(0, 999), n=st.integers(30, 400), scale=st.sampled_from([1.0, 1e-9, 1e9]))
def test_what_looks_at_its_row_alone_is_read(name: str, seed: int, n: int, scale: float) -> None:
    data = frame(seed, n)
    function = BY_ROW[name]
    model = blm.LMM(
        "y ~ z + f(x) + (1 | g)", data.assign(x=scale * data["x"]), functions={"f": lambda x: function(x / scale)}, check="warn"
    )
    values = np.reshape(function(data["x"].to_numpy()), (n, -1))
    columns = [model.design.coef_names.index(name) for name in model.design.coef_names if name.startswith("f(x)")]
    if name != "constant":
        np.testing.assert_allclose(model.design.X[:, columns], values, rtol=1e-9, atol=1e-12)


def test_a_response_is_a_function_of_its_row_too() -> None:
    data = frame(1, 60)
    with pytest.raises(FormulaError, match="'f'"):
        blm.LMM("f(y) ~ x + (1 | g)", data, functions={"f": WHOLE["zscore"]})


@pytest.mark.parametrize("word", ["center", "standardize"])
def test_the_remedy_predicts_the_same_value_among_any_rows(word: str) -> None:
    data = frame(2, 120)
    fit = blm.LMM(f"y ~ {word}(x) + (1 | g)", data).fit()
    whole = fit.predict(data)["estimate"].to_numpy()
    for rows in ([5], [5, 80], range(60)):
        np.testing.assert_allclose(fit.predict(data.iloc[list(rows)])["estimate"], whole[list(rows)], rtol=1e-13)
