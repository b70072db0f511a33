"""Columns that are numbers to the eye: written as in other countries, Decimals beyond float64, signalling NaN; exact responses."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError, DesignError
from tests.inputs.every_argument import frame

WRITTEN: dict[str, tuple[Callable[[float], str], str]] = {
    "decimal comma": (lambda v: f"{v:.4f}".replace(".", ","), "decimal=','"),
    "point after the thousands": (lambda v: f"{1e6 * v:,.1f}".translate(str.maketrans(",.", ".,")), "decimal=','"),
    "comma after the thousands": (lambda v: f"{1e6 * v:,.0f}", "thousands=','"),
    "percent": (lambda v: f"{100 * v:.5f} %", "rstrip"),
}
FORMULAS = ["y ~ w + (1 | g)", "w ~ x + (1 | g)", "y ~ x + (w | g)", "y ~ log(w) + (1 | g)"]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("spoilt", [False, True])
def test_numbers_of_other_countries_are_no_factor(kind: str, formula: str, spoilt: bool) -> None:
    write, remedy = WRITTEN[kind]
    text = frame()["x"].map(write)
    if spoilt:
        text[::7] = "n.a."
    with pytest.raises(DataError, match="most of its values are numbers with") as told:
        blm.LMM(formula, frame().assign(w=text))
    assert remedy in told.value.remedy


@pytest.mark.parametrize("labels", [["0,5", "1,5"], ["10%", "20%"], ["1,000", "2,000"]])
def test_few_of_them_are_a_factor_where_one_may_stand(labels: list[str]) -> None:
    data = frame().assign(w=labels * 24)
    assert f"w[T.{labels[1]}]" in blm.LMM("y ~ w + (1 | g)", data).coef_names
    with pytest.raises(DataError, match="numbers with"):
        blm.LMM("w ~ x + (1 | g)", data)


def arrow_decimals(values: list[Decimal]) -> Any:
    return pd.array(values, dtype=pd.ArrowDtype(pytest.importorskip("pyarrow").decimal128(30, 0)))


@pytest.mark.parametrize("formula", FORMULAS[:3])
@pytest.mark.parametrize("hold", [pd.Series, arrow_decimals])
def test_decimals_that_float64_cannot_tell_apart_are_refused(hold: Callable[[list[Decimal]], Any], formula: str) -> None:
    values = [Decimal(2) ** 60 + i for i in range(48)]
    with pytest.raises(DataError, match=r"beyond 2\*\*53"):
        blm.LMM(formula, frame().assign(w=hold(values)))
    assert blm.LMM("y ~ x + (1 | w)", frame().assign(w=hold([value // 6 * 6 for value in values]))).groups["w"] > 1


def test_decimals_are_rounded_as_other_numbers_are() -> None:
    data = frame()
    exact = blm.LMM("y ~ x + (1 | g)", data).fit().criterion
    assert blm.LMM("y ~ x + (1 | g)", data.assign(x=[Decimal(repr(v)) for v in data["x"]])).fit().criterion == exact


@pytest.mark.parametrize(
    "ask",
    [
        lambda data: blm.LMM("y ~ w + (1 | g)", data),
        lambda data: blm.LMM("w ~ x + (1 | g)", data),
        lambda data: blm.LMM("y ~ x + (1 | w)", data),
        lambda data: blm.LMM("y ~ x", data, residual="us(w | g)"),
        lambda data: blm.LMM("y ~ x + (1 | g)", data, weights=data["w"].to_numpy()),
        lambda data: blm.from_partitions("y ~ w + (1 | g)", [data]),
        lambda data: blm.fit_by("y ~ x + (1 | g)", data, by="w"),
        lambda data: blm.LMM("y ~ w + (1 | g)", frame().assign(w=1.0 * np.arange(48))).fit().predict(data),
        lambda data: blm.proc_mixed("proc mixed; class w; model y = x; random w; run;", data),
    ],
)
@pytest.mark.parametrize("value", [Decimal("sNaN"), [1], {1}])
def test_what_cannot_be_compared_is_told_of(ask: Callable[[pd.DataFrame], Any], value: Any) -> None:
    values: list[Any] = [Decimal(i // 6) for i in range(48)]
    values[3] = value
    column = np.empty(48, dtype=object)
    column[:] = values
    with pytest.raises(BayesLMMError):
        ask(frame().assign(w=column))


@pytest.mark.parametrize("values", [[True, 2], [True, 1], [False, 0.0]])
def test_truth_values_beside_numbers_are_labels_of_two_types(values: list[Any]) -> None:
    with pytest.raises(DataError, match="several types") as told:
        blm.LMM("y ~ x + (1 | w)", frame().assign(w=pd.Series(values * 24, dtype=object)))
    assert told.value.where.count("(") == 2


EXACT = {"ones": lambda x: 0 * x + 1, "tenths": lambda x: 0 * x + 0.1, "nothing": lambda x: 0 * x, "a line": lambda x: 5 + 2 * x}


@pytest.mark.parametrize("residual", [None, "cs(v | g)"])
@pytest.mark.parametrize("exact", EXACT)
def test_a_response_that_the_fixed_effects_reproduce_is_told_of_by_every_door(exact: str, residual: str | None) -> None:
    data = frame()
    fit = blm.LMM("y ~ x + (1 | g)" if residual is None else "y ~ x", data, residual=residual).fit()
    response = EXACT[exact](data["x"].to_numpy())
    with pytest.raises(DesignError, match="reproduce the response exactly"):
        fit.refit(response)
    with pytest.warns(blm.errors.BayesLMMWarning):
        many = fit.model.fit_many(np.column_stack([data["y"], response]))
    assert "reproduce the response exactly" in many.failed["reason"].item()


def test_a_constant_response_of_parts_counts_all_rows() -> None:
    data = frame().assign(y=2.0)
    with pytest.raises(DesignError, match="2 in all 48 rows"):
        blm.from_partitions("y ~ x + (1 | g)", [data.iloc[:20], data.iloc[20:]])


def test_words_in_place_of_numbers_are_told_by_a_table_of_them() -> None:
    data = frame().assign(w=["no", "perhaps", "yes"] * 16)
    with pytest.raises(DataError) as told:
        blm.LMM("w ~ x + (1 | g)", data)
    assert ".map({'no': 0, 'perhaps': 1, 'yes': 2})" in told.value.remedy
    assert "to_numeric" not in told.value.remedy
