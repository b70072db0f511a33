"""Weights and offsets: by name, by position, checked row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayeslmm.data.build import build_design
from bayeslmm.errors import DataError, EmptyDataError, NonFiniteError, SpecificationError
from tests.data.designs import build, days

MODEL = "y ~ x + (1 | g)"
W = np.linspace(0.5, 2.0, 60)


@pytest.mark.parametrize("give", [lambda w: w, list, pd.Series, tuple])
def test_weights_by_position_are_those_of_a_column(give: Any) -> None:
    by_name = build(MODEL, days().assign(w=W), weights="w")
    by_position = build(MODEL, days(), weights=give(W))
    np.testing.assert_array_equal(by_name.weights, by_position.weights)


def test_rows_of_weight_zero_are_left_out_and_counted() -> None:
    design = build(MODEL, days(), weights=np.where(np.arange(60) < 2, 0.0, W))
    assert design.n_dropped == 2
    assert dict(design.dropped) == {"weights": 2}
    np.testing.assert_array_equal(design.weights, W[2:])


@pytest.mark.parametrize(("value", "error"), [(-1.0, DataError), (np.nan, DataError), (np.inf, NonFiniteError)])
def test_impossible_weights_are_refused_with_their_rows(value: float, error: type[Exception]) -> None:
    weights = W.copy()
    weights[[4, 9]] = value
    for given in ({"weights": weights}, {"weights": "w"}):
        with pytest.raises(error) as caught:
            build(MODEL, days().assign(w=weights), **given)
        assert caught.value.where == "rows 4, 9"


def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="59 values for 60 rows"):
        build(MODEL, days(), weights=W[1:])


def test_weights_that_are_text_are_refused() -> None:
    with pytest.raises(DataError, match="text"):
        build(MODEL, days(), weights=W.astype(str))


def test_a_series_with_another_index_is_refused() -> None:
    with pytest.raises(DataError, match="another index"):
        build(MODEL, days(), weights=pd.Series(W, index=np.arange(60)[::-1]))


def test_weights_given_twice_are_refused() -> None:
    spec = build(MODEL, days().assign(w=W), weights="w").spec
    with pytest.raises(SpecificationError, match="twice"):
        build_design(spec, days().assign(w=W), weights=W)


def test_all_weights_zero_leave_nothing() -> None:
    with pytest.raises(EmptyDataError, match="weights"):
        build(MODEL, days(), weights=np.zeros(60))


@pytest.mark.parametrize("size", [1e-300, 1e300, 5e-324, 1e308])
def test_weights_of_extreme_size_are_brought_near_one_without_losing_a_digit(size: float) -> None:
    design = build(MODEL, days(), weights=np.full(60, size))
    assert design.weights is not None
    assert 0.1 < design.weights.max() <= 1.0 or size == 1e308
    np.testing.assert_array_equal(design.weights * design.weight_scale, np.full(60, size))


def test_ordinary_weights_are_left_as_they_are() -> None:
    design = build(MODEL, days(), weights=W)
    assert design.weight_scale == 1.0
    np.testing.assert_array_equal(design.weights, W)


def test_offsets_of_formula_column_and_array_add_up() -> None:
    data = days().assign(o=1.5)
    design = build("y ~ x + offset(2 * day) + (1 | g)", data, offset="o")
    np.testing.assert_array_equal(design.offset, 2 * data["day"] + 1.5)
    np.testing.assert_array_equal(build(MODEL, data, offset=np.arange(60.0)).offset, np.arange(60.0))
    np.testing.assert_array_equal(design.encoding.offset(data.iloc[3:5]), [7.5, 9.5])


def test_rows_without_an_offset_are_dropped() -> None:
    offset = np.arange(60.0)
    offset[7] = np.nan
    assert dict(build(MODEL, days(), offset=offset).dropped) == {"offset": 1}
