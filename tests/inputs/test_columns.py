"""Columns that cannot be used are refused by name, row and remedy; those that can, whatever their type, give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.errors import DataError, DesignError, EmptyDataError, MissingDataError, NonFiniteError, RankError, SizeError
from tests.data.designs import build, days, notes

MODEL = "y ~ x + (1 | g)"


def with_value(column: str, value: Any, rows: tuple[int, ...] = (3, 8)) -> pd.DataFrame:
    data = days()
    data.loc[list(rows), column] = value
    return data


# ------------------------------------------------------------------------------------------------------------ what values


def test_missing_values_drop_their_rows_and_are_counted() -> None:
    data = with_value("x", np.nan)
    data.loc[[8, 20], "y"] = np.nan
    design = build(MODEL, data)
    assert design.nobs == 57
    assert design.n_dropped == 3
    assert dict(design.dropped) == {"y": 2, "x": 2}
    assert design.rows.tolist() == [i for i in range(60) if i not in (3, 8, 20)]


def test_missing_values_are_an_error_when_asked() -> None:
    with pytest.raises(MissingDataError, match="'x'") as caught:
        build(MODEL, with_value("x", np.nan), missing="raise")
    assert caught.value.where == "rows 3, 8"


@pytest.mark.parametrize("column", ["y", "x"])
def test_infinite_values_are_refused_with_their_rows(column: str) -> None:
    with pytest.raises(NonFiniteError, match=repr(column)) as caught:
        build(MODEL, with_value(column, np.inf))
    assert caught.value.where == "rows 3, 8"


@pytest.mark.parametrize("mark", ["NA", "", "."])
@pytest.mark.parametrize("column", ["x", "y"])
def test_numbers_spoilt_by_a_mark_are_not_a_factor(mark: str, column: str) -> None:
    data = days()
    data[column] = data[column].astype(str)
    data.loc[[3, 8, 9], column] = mark
    with pytest.raises(DataError, match=column) as caught:
        build(MODEL, data)
    assert "3 values" in caught.value.where
    assert "pandas.to_numeric" in caught.value.remedy


def test_numbers_stored_as_text_are_refused() -> None:
    with pytest.raises(DataError, match="'y'"):
        build(MODEL, days().assign(y=lambda d: d["y"].astype(str)))


@settings(max_examples=25, deadline=None)
@given(
    codes=st.lists(st.one_of(st.integers(-9, 99).map(str), st.sampled_from(["1.5", "2e3", "007"])), min_size=2, max_size=6, unique=True),
    seed=st.integers(0, 99),
)
def test_repeated_codes_of_text_are_a_factor_and_noted(codes: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [*codes, *codes, *rng.choice(codes, 30).tolist()]
    data = pd.DataFrame({"y": rng.normal(size=len(rows)), "k": rows, "g": rng.integers(0, 5, len(rows))})
    design = build("y ~ k + (1 | g)", data)
    coded = build("y ~ C(k) + (1 | g)", data)
    assert design.coef_names == ("Intercept", *(f"k[T.{code}]" for code in sorted(codes)[1:]))
    assert np.array_equal(design.X, coded.X)
    assert notes(design)["numbers_as_text"].value == ("k",)
    assert "numbers_as_text" not in notes(coded), "C() says that it is a factor"
    assert notes(build("y ~ 1 + (k | g)", data, check="warn"))["numbers_as_text"].value == ("k",)
    spoilt = data.assign(k=data["k"].where(data.index != 3, "."))
    with pytest.raises(DataError, match="1 values cannot be read"):
        build("y ~ k + (1 | g)", spoilt)
    assert build("y ~ C(k) + (1 | g)", spoilt).coef_names[-1].startswith("C(k)[T.")
    unique = data.assign(k=[f"{value:.6f}" for value in rng.normal(size=len(data))])
    with pytest.raises(DataError, match="most of its values are numbers"):
        build("y ~ k + (1 | g)", unique)


def test_levels_that_look_like_numbers_are_fine_behind_the_bar_and_as_categories() -> None:
    data = days().assign(g=lambda d: d["g"].str[1:], x=lambda d: pd.Categorical(d["k"].astype(str)))
    assert build(MODEL, data).coef_names == ("Intercept", "x[T.2]", "x[T.3]")


@pytest.mark.parametrize("absent", [None, np.nan])
def test_rows_without_a_group_are_dropped_and_counted(absent: Any) -> None:
    design = build(MODEL, days().assign(g=lambda d: d["g"].astype(object).where(d.index != 7, absent)))
    assert dict(design.dropped) == {"g": 1}


def test_an_empty_label_beside_missing_ones_is_a_level_and_noted() -> None:
    data = days().assign(g=lambda d: d["g"].astype(object))
    data.loc[0, "g"], data.loc[1, "g"] = "", None
    assert notes(build(MODEL, data))["empty_labels"].value == ("g",)


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(EmptyDataError):
        build(MODEL, days().iloc[:0])


def test_the_column_that_empties_the_data_is_named() -> None:
    with pytest.raises(EmptyDataError, match="'x'"):
        build(MODEL, days().assign(x=np.nan))
    with pytest.raises(EmptyDataError, match="'x'"):
        build(MODEL, days().assign(x=None))


def test_a_constant_response_is_refused() -> None:
    with pytest.raises(DesignError, match="constant"):
        build(MODEL, days().assign(y=3.5))


def test_a_function_outside_its_domain_is_refused_with_the_rows() -> None:
    data = days().assign(x=lambda d: d["x"].abs() + 1)
    data.loc[5, "x"] = 0.0
    with pytest.raises(NonFiniteError) as caught:
        build("y ~ log(x) + (1 | g)", data)
    assert caught.value.where == "row 5"


# ------------------------------------------------------------------------------------------------------------- what types


@pytest.mark.parametrize(
    "times",
    [pd.date_range("2020-01-01", periods=60), pd.to_timedelta(np.arange(60), "D"), pd.period_range("2020-01", periods=60, freq="M")],
)
def test_times_in_x_are_refused(times: Any) -> None:
    with pytest.raises(DataError, match="times") as caught:
        build(MODEL, days().assign(x=times))
    assert "convert to a number first" in caught.value.remedy


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="complex"):
        build(MODEL, days().assign(x=lambda d: d["x"] + 1j))


def test_a_column_of_objects_that_are_numbers_is_refused() -> None:
    with pytest.raises(DataError, match="objects") as caught:
        build(MODEL, days().assign(x=lambda d: d["x"].astype(object)))
    assert "to_numeric" in caught.value.remedy


def test_labels_of_mixed_types_are_refused() -> None:
    data = days().assign(g=[1, "1"] * 30)
    with pytest.raises(DataError, match="several types"):
        build(MODEL, data)


def test_integers_that_float64_cannot_tell_apart_are_refused_as_numbers_only() -> None:
    data = days().assign(k=lambda d: d["k"].astype("uint64") + 2**60)
    with pytest.raises(DataError, match=r"2\*\*53"):
        build("y ~ k + (1 | g)", data)
    assert build("y ~ x + (1 | k)", data).groups == {"k": 3}


def as_decimal(values: pd.Series[Any]) -> Any:
    return [Decimal(repr(float(value))) for value in values]


@pytest.mark.parametrize(
    "convert",
    [
        as_decimal,
        lambda x: x.astype("Float64"),
        lambda x: x.astype("float64[pyarrow]"),
        lambda x: x.to_numpy().astype(">f8"),
        lambda x: np.repeat(x.to_numpy(), 2)[::2],
    ],
)
def test_numbers_of_any_type_are_the_same_numbers(convert: Any) -> None:
    data = days()
    expected = build(MODEL, data)
    got = build(MODEL, data.assign(x=convert(data["x"])))
    np.testing.assert_array_equal(got.X, expected.X)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "Int64", "int32[pyarrow]", ">i4"])
def test_narrow_numbers_are_widened(dtype: str) -> None:
    data = days().assign(x=lambda d: d["day"].to_numpy().astype(dtype) if dtype[0] == ">" else d["day"].astype(dtype))
    assert build(MODEL, data).X[:, 1].tolist() == data["day"].tolist()
    assert build("y ~ 1 + (1 | x)", data).groups == {"x": 6}


def test_nullable_numbers_with_missing_values_lose_their_rows() -> None:
    data = days().assign(x=lambda d: d["day"].astype("Int64").where(d.index != 4))
    assert build(MODEL, data).n_dropped == 1


def test_read_only_arrays_are_left_alone() -> None:
    y = np.arange(60.0) % 7
    y.flags.writeable = False
    assert build(MODEL, {"y": y, "x": days()["x"].to_numpy(), "g": days()["g"].to_numpy()}).nobs == 60


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object", "bool[pyarrow]"])
def test_booleans_are_factors_of_false_and_true(dtype: str) -> None:
    data = days().assign(x=lambda d: (d["x"] > 0).astype(dtype))
    design = build(MODEL, data)
    assert design.coef_names == ("Intercept", "x[T.True]")
    np.testing.assert_array_equal(design.X[:, 1], data["x"].astype(float))


def test_members_of_an_enumeration_are_levels_in_their_order() -> None:
    arm = Enum("arm", ["placebo", "active"])
    data = days().assign(x=[arm.placebo, arm.active] * 30)
    assert build(MODEL, data).coef_names == ("Intercept", "x[T.active]")


@pytest.mark.parametrize(
    "convert", [pl.from_pandas, lambda d: pl.from_pandas(d).lazy(), pa.Table.from_pandas, dict, lambda d: d.to_dict("list")]
)
def test_every_kind_of_frame_gives_the_same_design(convert: Any) -> None:
    data = days()
    formula = "y ~ x * arm + k + (x | g) + (1 | h)"
    expected, got = build(formula, data), build(formula, convert(data))
    np.testing.assert_array_equal(got.X, expected.X)
    assert got.coef_names == expected.coef_names
    assert [term.group.levels.tolist() for term in got.terms] == [term.group.levels.tolist() for term in expected.terms]
    np.testing.assert_array_equal(got.terms[0].group.codes, expected.terms[0].group.codes)


def test_a_polars_enumeration_keeps_its_order_and_missing_values_their_rows() -> None:
    data = pl.from_pandas(days()).with_columns(
        arm=pl.Series(["TRT", "CTL"] * 30, dtype=pl.Enum(["TRT", "CTL"])), x=pl.Series([None, *np.arange(59.0) % 5])
    )
    design = build("y ~ arm + x + (1 | g)", data)
    assert design.coef_names == ("Intercept", "arm[T.CTL]", "x")
    assert dict(design.dropped) == {"x": 1}


# ------------------------------------------------------------------------------------------------------------ what frames


@pytest.mark.parametrize("data", ["data.csv", np.ones((3, 3)), [{"y": 1}], None, 3, pd.Series([1.0])])
def test_things_that_are_no_frames_are_refused(data: Any) -> None:
    with pytest.raises(DataError):
        build(MODEL, data)


def test_columns_of_unequal_length_are_refused_with_the_lengths() -> None:
    with pytest.raises(DataError, match="unequal") as caught:
        build(MODEL, {"y": [1.0, 2.0], "x": [1.0, 2.0, 3.0], "g": ["a", "b"]})
    assert "x: 3" in caught.value.where


@pytest.mark.parametrize("column", [np.ones((60, 2)), "text", 3.0])
def test_columns_that_are_not_one_column_are_refused(column: Any) -> None:
    with pytest.raises(DataError, match="'x'"):
        build(MODEL, {**days().to_dict("list"), "x": column})


def twice_in_pandas() -> pd.DataFrame:
    return pd.concat([days(), days()[["x"]]], axis=1)


def twice_in_arrow() -> pa.Table:
    data = days()
    return pa.Table.from_arrays([pa.array(data[name]) for name in [*data, "x"]], names=[*data, "x"])


@pytest.mark.parametrize("twice", [twice_in_pandas, twice_in_arrow, lambda: twice_in_arrow().to_batches()[0]])
@pytest.mark.parametrize(
    "read",
    [
        partial(build, MODEL),
        partial(blm.fit_by, "y ~ 1 + (1 | g)", by="x"),
        lambda data: blm.from_partitions(MODEL, [data]),
        lambda data: blm.LMM(MODEL, days()).fit().augment(data),
        lambda data: blm.LMM(MODEL, days()).fit_many(data),
    ],
    ids=["fit", "by", "partitions", "augment", "many"],
)
def test_repeated_column_names_are_refused(read: Callable[[Any], object], twice: Callable[[], Any]) -> None:
    with pytest.raises(DataError, match="more than once") as caught:
        read(twice())
    assert "'x'" in caught.value.where


def test_columns_of_several_levels_are_refused() -> None:
    data = days()
    data.columns = pd.MultiIndex.from_product([["a"], data.columns])
    with pytest.raises(DataError, match="MultiIndex"):
        build(MODEL, data)


def test_rows_of_several_levels_are_carried_along() -> None:
    data = days().set_index(["g", "visit"], drop=False)
    data.loc[("s0", "V2"), "x"] = np.nan
    design = build(MODEL, data)
    assert design.index.equals(data.index.delete(1))


def test_an_absent_column_is_named_with_its_neighbours() -> None:
    with pytest.raises(DataError, match="no column 'aram'") as caught:
        build("y ~ aram + (1 | g)", days())
    assert "'arm'" in caught.value.remedy


@pytest.mark.parametrize("formula", ["y ~ os + (1 | g)", "y ~ x + (1 | print)", "pd ~ x + (1 | g)"])
def test_names_are_never_looked_up_outside_the_data(formula: str) -> None:
    with pytest.raises(DataError, match="no column"):
        build(formula, days())


def test_names_that_only_look_alike_are_pointed_out() -> None:
    latin, cyrillic = "dose", "dоse"
    with pytest.raises(DataError, match="no column") as caught:
        build("y ~ dose + (1 | g)", days().rename(columns={"x": cyrillic}))
    assert "CYRILLIC" in caught.value.where
    with pytest.raises(DataError, match="look-alike"):
        build("y ~ dose + (1 | g)", days().rename(columns={"x": cyrillic, "k": latin}))


def test_composed_and_decomposed_names_are_pointed_out() -> None:
    with pytest.raises(DataError) as caught:
        build("y ~ caf\u00e9 + (1 | g)", days().rename(columns={"x": "cafe\u0301"}))
    assert "COMBINING" in caught.value.where


@pytest.mark.parametrize(
    "name", ["two words", "log.radon", "a-b", "größe", "tick`ed", "1", "Intercept", "Residual", "sigma", "chain", "draw", "0"]
)
def test_strange_column_names_work_in_backticks(name: str) -> None:
    quoted = "`" + name.replace("`", "``") + "`"
    data = days()
    expected = build("y ~ x + (x | g)", data)
    design = build(f"y ~ {quoted} + ({quoted} | g)", data.rename(columns={"x": name}))
    np.testing.assert_array_equal(design.X, expected.X)
    np.testing.assert_array_equal(design.terms[0].Z, expected.terms[0].Z)
    assert len(set(design.coef_names)) == 2


def test_columns_numbered_instead_of_named_are_found_by_their_number() -> None:
    data = days()[["y", "x", "g"]].set_axis([0, 1, 2], axis=1)
    assert build("`0` ~ `1` + (1 | `2`)", data).nobs == 60


# ------------------------------------------------------------------------------------------------------------- what sizes


def test_more_coefficients_than_rows_are_refused() -> None:
    data = days().iloc[:8].assign(f=list("abcdefgh"))
    with pytest.raises(RankError, match="9 columns, and there are 8 rows"):
        build("y ~ f + x + (1 | g)", data)


@pytest.mark.parametrize("formula", ["y ~ a + (1 | g)", "y ~ a:b + (1 | g)"])
def test_a_factor_of_very_many_levels_is_refused_before_anything_is_built(formula: str) -> None:
    levels = pd.Categorical.from_codes(np.arange(100_000) % 50_000, categories=[f"l{i}" for i in range(50_000)])
    data = {"y": np.arange(100_000.0), "a": levels, "b": levels[::-1], "g": np.arange(100_000) % 7}
    with pytest.raises(SizeError, match="would take") as caught:
        build(formula, data)
    assert "(1 | a" in caught.value.remedy
