"""Numbers with labels are matched by label or refused, whatever holds them; what is no real number is refused and not made one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bayeslmm as blm
from tests.inputs.frames import refused, visits

FORMULA = "y ~ x * arm + k + (1 | g)"
ROWS = len(visits())


@cache
def estimates(kind: str) -> Any:
    model = blm.LMM(FORMULA, visits(), priors=blm.Priors(alpha="normal"))
    return model.sample(40, 2, seed=1) if kind == "posterior" else model.fit("ML" if kind == "ML" else "REML")


HOLDERS: dict[str, Callable[[pd.Series], Any]] = {
    "Series": lambda s: s,
    "objects": lambda s: s.astype(object),
    "nullable": lambda s: s.astype("Float64"),
    "Arrow": lambda s: s.astype("float64[pyarrow]"),
    "categorical labels": lambda s: s.set_axis(pd.CategoricalIndex(s.index)),
    "labels of text": lambda s: s.set_axis(s.index.astype("string")),
    "frame of one row": lambda s: s.to_frame().T,
    "dict": dict,
    "single arrays": lambda s: {name: np.array(value) for name, value in s.items()},
    "decimals": lambda s: {name: Decimal(str(value)) for name, value in s.items()},
    "fractions": lambda s: {name: Fraction(float(value)) for name, value in s.items()},
}


@pytest.mark.parametrize("kind", ["REML", "ML", "posterior"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_weights_of_coefficients_go_by_name(kind: str, holder: str) -> None:
    found = estimates(kind)
    names = list(found.fixef.index)
    weights = np.random.default_rng(4).normal(size=len(names)).round(6)
    expected = found.contrast(weights).frame.iloc[0].drop("term")
    for order in (names[::-1], sorted(names)):
        given = HOLDERS[holder](pd.Series(dict(zip(names, weights, strict=True)))[order])
        np.testing.assert_allclose(found.contrast(given).frame.iloc[0].drop("term").astype(float), expected.astype(float), rtol=1e-9)


@pytest.mark.parametrize("name", ["(Intercept)", "Intercept", "x:arm", "1", "sigma", "arm[T.TRT]"])
def test_a_column_in_backticks_is_no_other_coefficient(name: str) -> None:
    plain, quoted = estimates("REML"), f"`{name}`"
    fit = blm.LMM(FORMULA.replace("x", quoted), visits().rename(columns={"x": name})).fit()
    for given in ({quoted: 1.0}, f"{quoted} = 0", f"2 * {quoted} - {quoted}", [{quoted: 1}], pd.Series({quoted: 1.0})):
        assert fit.contrast(given).frame["estimate"].item() == pytest.approx(plain.fixef["x"], rel=1e-9)


Y = visits()["y"] + 0.25
RESPONSES: dict[str, Any] = {
    "Series": Y,
    "nullable": Y.astype("Float64"),
    "Arrow": Y.astype("float64[pyarrow]"),
    "objects": Y.astype(object),
    "polars": pl.Series(Y.to_numpy()),
    "pyarrow": pa.array(Y),
    "tuple": tuple(Y),
    "decimals": [Decimal(str(y)) for y in Y],
    "fractions": [Fraction(float(y)) for y in Y],
    "big-endian": Y.to_numpy().astype(">f8"),
    "masked": np.ma.array(Y),
    "column": Y.to_numpy()[:, None],
    "frame": Y.to_frame(),
    "a longer index": Y.set_axis(pd.RangeIndex(ROWS)),
}
NO_RESPONSES: dict[str, Any] = {
    "other labels": Y.set_axis(range(1, ROWS + 1)),
    "another order": Y.sample(frac=1, random_state=1),
    "several levels": Y.set_axis(pd.MultiIndex.from_product([["a"], range(ROWS)])),
    "one label": Y.set_axis([0] * ROWS),
    "times": pd.Series(pd.date_range("2020", periods=ROWS)),
    "times of a zone": pd.Series(pd.date_range("2020", periods=ROWS, tz="UTC")),
    "Arrow times": pd.Series(pd.date_range("2020", periods=ROWS)).astype(pd.ArrowDtype(pa.timestamp("ns"))),
    "numpy times": np.arange(ROWS).astype("datetime64[D]"),
    "durations": np.arange(ROWS).astype("timedelta64[s]"),
    "dates": [dt.date(2020, 1, 1)] * ROWS,
    "complex": Y.to_numpy() + 1j,
    "complex list": list(Y.to_numpy() + 1j),
    "digits": Y.astype(str),
    "digits in an array": Y.to_numpy().astype(str),
    "bytes": Y.to_numpy().astype(bytes),
    "cube": np.ones((ROWS, 2, 2)),
    "one number": 1.0,
    "nothing": None,
    "too large": [10**400] * ROWS,
}


@pytest.mark.parametrize("holder", RESPONSES)
def test_another_response_is_read_from_anything_that_holds_numbers(holder: str) -> None:
    expected = estimates("REML").refit(Y.to_numpy()).criterion
    assert estimates("REML").refit(RESPONSES[holder]).criterion == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("holder", NO_RESPONSES)
def test_another_response_is_never_read_by_position_nor_made_of_what_is_no_number(holder: str) -> None:
    given = NO_RESPONSES[holder]
    refused(lambda: estimates("REML").refit(given))
    if not isinstance(given, list | tuple | float | None):
        refused(lambda: estimates("REML").model.fit_many(given if getattr(given, "ndim", 2) != 1 else pd.DataFrame({"y": given})))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spoilt", [1j, np.datetime64("2020"), "3", b"3"], ids=["complex", "time", "digits", "bytes"])
def test_arrays_beside_the_data_hold_real_numbers(spoilt: Any) -> None:
    fit, row = estimates("REML"), np.array([spoilt] * 5)
    new = fit.model.simulate
    for call in (
        lambda: fit.contrast(row),
        lambda: fit.contrast("x", rhs=row[:1]),
        lambda: fit.model.criterion(row[:1]),
        lambda: fit.model.gradient(row[:1]),
        lambda: new({"alpha": row, "theta": [1.0], "sigma": 1.0}),
        lambda: new({"alpha": np.ones(5), "theta": row[:1], "sigma": 1.0}),
        lambda: fit.with_params(alpha=row),
        lambda: fit.expanded(row),
        lambda: fit.emmeans("arm").contrast(row[:2]),
    ):
        refused(call)
