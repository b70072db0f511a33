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


TURNED = ("Intercept", "x", "k")
"""Random terms, in the order of the formula."""


def assumed(**given: Any) -> pd.DataFrame:
    """D at parameters that are given."""
    return blm.assume("y ~ x + k + (x + k | g)", visits().drop(columns="y"), alpha=[0.0, 1.0, 1.0], sigma=1.0, **given).D["g"]


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_assumed_variances_go_by_the_names_of_terms(order: tuple[int, ...]) -> None:
    sd, corr = pd.Series([1.0, 2.0, 3.0], index=TURNED), pd.DataFrame([[1.0, 0.1, 0.2], [0.1, 1.0, 0.3], [0.2, 0.3, 1.0]], TURNED, TURNED)
    names = [TURNED[i] for i in order]
    plain = assumed(sd=[1.0, 2.0, 3.0], corr=corr.to_numpy())
    np.testing.assert_allclose(assumed(sd=sd[names], corr=corr.loc[names, names]), plain, rtol=1e-9)
    np.testing.assert_allclose(assumed(sd=sd.reset_index(drop=True), corr=corr.to_numpy()), plain, rtol=1e-9)
    refused(lambda: assumed(sd=sd.set_axis(list("pqr"))))
    refused(lambda: assumed(sd=sd, corr=corr.set_axis(list("pqr"), axis=0)))


@pytest.mark.parametrize("labels", [list("ba"), ["x", "y"], range(1, -1, -1), [1, 0], pd.Index([1.0, 0.0])], ids=str)
def test_what_has_no_labels_is_given_none(labels: Any) -> None:
    model = estimates("REML").model
    values = pd.Series([1.0, 2.0], index=labels)
    trial = trial_of_three_visits()
    refused(lambda: model.criterion(pd.Series([1.0], index=["g"])))
    refused(lambda: estimates("REML").expanded(values))
    refused(lambda: trial.delta(pd.Series([1.0, 2.0, 3.0], index=[*labels, 7])))
    refused(lambda: trial.analyse("y ~ arm", delta=pd.Series(1.0, index=[f"r{i}" for i in range(72)])))
    refused(lambda: trial.analyse(lambda _: {"m": values}))


def test_the_estimates_of_a_function_go_by_name() -> None:
    trial = trial_of_three_visits()
    given = pd.Series({"df": 9.0, "std_error": 0.5, "estimate": 7.0})
    found = [
        trial.analyse(lambda _, one=one: {"m": one}).pool() for one in (given, given.to_dict(), (7.0, 0.5, 9.0), pd.Series([7.0, 0.5, 9.0]))
    ]
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0])


@cache
def trial_of_three_visits() -> Any:
    from tests.inputs.every_argument import objects

    return objects()["Imputations"]


@pytest.mark.parametrize("value", [pd.DataFrame({"a": [1.0]}), pd.DataFrame([[1.0]], index=["a"])], ids=["columns", "rows"])
def test_a_statistic_is_no_frame(value: pd.DataFrame) -> None:
    refused(lambda: estimates("REML").bootstrap(3, seed=1, statistic=lambda _: value))


def test_counted_labels_in_another_order_are_labels() -> None:
    weights = pd.Series([1.0, 2.0])[::-1]
    refused(lambda: estimates("REML").contrast({"a": {"x": 1.0}, "b": {"k": 1.0}}, rhs=weights))


SPACED = {"ab": 1.0, "a b": 2.0, "Intercept ": 4.0, " ab": 8.0, "a  b": 16.0}
"""Columns that differ by spaces, and the slope of each."""


@cache
def spaced() -> Any:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {name: rng.normal(size=96) for name in SPACED} | {"g": np.repeat(list("pqrs"), 24), "f": np.tile(["u v", "uv"], 48)}
    )
    frame["y"] = 32.0 + sum(slope * frame[name] for name, slope in SPACED.items()) + 64.0 * (frame["f"] == "uv") * frame["ab"]
    frame["y"] += 1e-3 * rng.normal(size=96)
    terms = " + ".join(f"`{name}`" for name in SPACED)
    return blm.LMM(f"y ~ {terms} + f:ab + (0 + `a b` | g)", frame, check="warn").fit()


@pytest.mark.parametrize("name", SPACED)
def test_spaces_of_a_name_belong_to_it(name: str) -> None:
    for L in ({name: 1.0}, {f"`{name}`": 1.0}, f"`{name}` = 0", f"2 * `{name}` - `{name}` = 0"):
        assert abs(spaced().contrast(L).frame["estimate"].item() - SPACED[name]) < 0.01, L
    assert abs(spaced().contrast({"Intercept": 1.0}).frame["estimate"].item() - 32.0) < 0.01
    assert abs(spaced().contrast("Intercept = 0").frame["estimate"].item() - 32.0) < 0.01


def test_the_coefficients_of_a_level_are_those_of_its_own_column() -> None:
    assert (spaced().coef()["g"]["a b"] - SPACED["a b"]).abs().max() < 0.01
    for L in ({"ab:f[T.uv]": 1.0}, {"f[T.uv]:ab": 1.0}, "ab:f[T.uv] = 0"):
        assert abs(spaced().contrast(L).frame["estimate"].item() - 64.0) < 0.01
