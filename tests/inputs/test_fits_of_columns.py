"""Columns through the whole of a fit: the numbers of the rows used, whatever frame and type they came in (rows 1 to 6, 30 to 43)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bayeslmm as blm
from bayeslmm.errors import DataError, FormulaError, NonFiniteError
from tests.inputs.frames import MODEL, fit, noted, refused, visits, warned

WIDE = "y ~ x + k + arm + (day | g)"


def test_a_fit_with_missing_values_is_the_fit_of_the_complete_rows() -> None:
    data = visits()
    data.loc[[3, 8], "x"] = np.nan
    data.loc[[8, 20], "y"] = np.nan
    found, warnings = warned(lambda: fit(MODEL, data))
    assert found.criterion == fit(MODEL, visits().drop(index=[3, 8, 20])).criterion
    assert (found.nobs, found.model.n_dropped, warnings) == (57, 3, [])
    assert "3 of 60 dropped" in str(found.summary(df="asymptotic"))


def test_an_empty_label_beside_missing_ones_is_one_warning() -> None:
    data = visits().assign(g=lambda d: d["g"].astype(object))
    data.loc[:5, "g"], data.loc[[8], "g"] = "", None
    found, (warning,) = warned(lambda: fit(MODEL, data))
    assert "empty_labels" in warning.what
    assert found.model.groups == {"g": 10}


@pytest.mark.parametrize("expression", ["log(day)", "log(x)", "I(1 / day)", "exp(1000 * day)", "sqrt(x)"])
def test_a_function_outside_its_domain_names_the_rows(expression: str) -> None:
    error = refused(lambda: fit(f"y ~ {expression} + (1 | g)"), NonFiniteError)
    assert error.where.startswith("row")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "convert",
    [
        lambda d: d.convert_dtypes(),
        lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
        lambda d: d.assign(g=d["g"].astype("string"), x=d["x"].astype("Float64"), k=d["k"].astype("Int64")),
        lambda d: d.assign(x=pd.arrays.SparseArray(d["x"])),
        lambda d: d.assign(g=d["g"].astype("category").cat.add_categories("nobody")),
        lambda d: d.assign(x=d["x"].to_numpy().astype(">f8"), k=d["k"].to_numpy().astype(">i4")),
        lambda d: d.assign(k=[Decimal(int(k)) for k in d["k"]]),
        lambda d: d.assign(k=pd.Series([Decimal(int(k)) for k in d["k"]], dtype=pd.ArrowDtype(pa.decimal128(10, 2)))),
        lambda d: pa.concat_tables([pa.Table.from_pandas(d.iloc[:40]), pa.Table.from_pandas(d.iloc[40:])]),
        pl.from_pandas,
        lambda d: pl.from_pandas(d).lazy(),
        lambda d: pl.from_pandas(d).with_columns(pl.col("g").cast(pl.Categorical)),
        pa.Table.from_pandas,
        pa.RecordBatch.from_pandas,
        dict,
        lambda d: {name: column.tolist() for name, column in d.items()},
        lambda d: {name: column.to_numpy()[::-1] for name, column in d[::-1].items()},
        lambda d: d.set_axis([7] * 60),
        lambda d: d.set_index([d["g"].rename("who"), d["h"].rename("what")]),
    ],
)
def test_every_kind_of_frame_gives_the_same_fit_and_the_same_predictions(convert: Any) -> None:
    data = convert(visits())
    found, expected = blm.LMM(WIDE, data).fit(), fit(WIDE)
    assert found.criterion == expected.criterion
    np.testing.assert_allclose(found.predict(data)["estimate"], expected.fitted(), rtol=0, atol=1e-12)  # sums in another order
    assert len(found.augment(data)) == 60
    parts, whole = (blm.from_partitions("y ~ x + k + arm + (1 | g)", [part]).fit() for part in (data, visits()))
    assert parts.criterion == pytest.approx(whole.criterion, rel=1e-12)
    by, each = (blm.fit_by("y ~ x + k + (1 | g)", part, by="arm").tidy(df="asymptotic") for part in (data, visits()))
    np.testing.assert_allclose(by["estimate"], each["estimate"], rtol=1e-9)


def test_missing_values_of_every_kind_lose_the_same_rows() -> None:
    data = visits().astype({"x": "Float64", "k": "Int64", "g": "string", "arm": "string"})
    for row, column in ((3, "x"), (4, "k"), (5, "g"), (6, "arm")):
        data.loc[row, column] = pd.NA
    expected = fit("y ~ x + k + arm + (1 | g)", visits().drop(index=[3, 4, 5, 6])).criterion
    for frame in (data, pl.from_pandas(data), pa.Table.from_pandas(data)):
        found = blm.LMM("y ~ x + k + arm + (1 | g)", frame).fit()
        assert found.criterion == expected
        assert dict(found.model.design.dropped) == {"g": 1, "x": 1, "k": 1, "arm": 1}


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "<f4", "longdouble", "int8", "uint8", "uint64", ">i8"])
@pytest.mark.parametrize("column", ["x", "y"])
def test_any_width_and_order_of_bytes_is_read_exactly(dtype: str, column: str) -> None:
    values = np.arange(60) * 7 % 13
    arrays = {name: part.to_numpy() for name, part in visits().items()}
    found = fit(MODEL, arrays | {column: values.astype(dtype)})
    assert found.criterion == fit(MODEL, visits().assign(**{column: values.astype(float)})).criterion


def test_integers_beyond_float64_are_refused_only_where_a_digit_would_be_lost() -> None:
    refused(lambda: fit(MODEL, visits().assign(x=np.arange(60) + 2**60)), DataError, r"2\*\*53")
    refused(lambda: fit(MODEL, visits().assign(x=np.arange(60).astype("uint64") + np.uint64(2**63))), DataError, r"2\*\*53")
    assert fit(MODEL, visits().assign(x=np.arange(60) * 2**55)).converged


@pytest.mark.parametrize("column", ["x", "y", "g"])
def test_complex_numbers_lose_no_part_in_silence(column: str) -> None:
    refused(lambda: fit(MODEL, visits().assign(**{column: np.arange(60) % 5 + 1j})), DataError)


def test_groups_may_be_any_labels_of_one_type() -> None:
    expected, number = fit().criterion, visits()["g"].str[1:].astype(int)
    times = pd.to_datetime("2020-01-01") + pd.to_timedelta(number, "D")
    for labels in (number, number + 0.5, number + 2**60, times, number.astype(object), [(int(i), "a") for i in number]):
        assert fit(MODEL, visits().assign(g=labels)).criterion == expected


def test_numbers_become_factors_only_when_told() -> None:
    assert list(fit("y ~ k + (1 | g)").fixef.index) == ["Intercept", "k"]
    assert "few_integer_values" in noted(fit("y ~ k + (1 | g)"))
    assert list(fit("y ~ factor(k) + (1 | g)").fixef.index) == ["Intercept", "factor(k)[T.2]", "factor(k)[T.3]"]


NAMES = [
    *("a b", "a.b", "a-b", "ä", "日本", "a`b", "1", "Intercept", "Residual", "sigma", "chain", "draw", "log", "I", "C", "T", "pi"),
    *("a:b", "a*b", "a|b", "a~b", "(", '"', "'", "\\", "a\nb", "[x]", "offset", "factor", "__class__", "True", "lambda", "%", "{a}"),
    *("estimate", "fitted", "fixed", "resid", "term", "group", "level", "Observation", "alpha", "theta", "_", "0", "-1", " "),
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_strange_name_is_a_column_like_any_other(name: str, tmp_path: Path) -> None:
    quoted, data = "`" + name.replace("`", "``") + "`", visits().rename(columns={"x": name})
    found, plain = fit(f"y ~ {quoted} + (1 + {quoted} | g)", data), fit("y ~ x + (1 + x | g)")
    assert found.criterion == plain.criterion
    assert found.fixef.index.is_unique
    assert found.predict(data)["estimate"].to_numpy() == pytest.approx(found.fitted(), abs=1e-12)
    assert found.emtrends(name).frame["estimate"].item() == pytest.approx(plain.fixef["x"], rel=1e-9)
    assert len(found.tidy("all")) == len(plain.tidy("all"))
    assert len(found.augment()) == 60
    found.save(tmp_path / "fit")
    assert blm.load(tmp_path / "fit").fixef.equals(found.fixef)
    found.model.write(tmp_path / "model.toml")
    assert blm.read_model(tmp_path / "model.toml", data).spec == found.model.spec


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_strange_name_of_a_group_is_a_group_like_any_other(name: str) -> None:
    quoted, data = "`" + name.replace("`", "``") + "`", visits().rename(columns={"g": name})
    found = fit(f"y ~ x + (1 | {quoted})", data)
    assert found.criterion == fit().criterion
    assert found.model.groups == {name: 10}
    assert list(found.ranef()) == [name]
    assert str(found.summary(df="asymptotic"))


def test_a_column_called_intercept_and_the_intercept_are_two_coefficients() -> None:
    found = fit("y ~ Intercept + (1 | g)", visits().rename(columns={"x": "Intercept"}))
    assert found.fixef.to_numpy() == pytest.approx(fit().fixef.to_numpy(), rel=1e-12)
    assert found.fixef.index.is_unique


@pytest.mark.parametrize("text", ["y ~ x\u200b + (1 | g)", "\ufeffy ~ x + (1 | g)"])
def test_letters_that_do_not_print_are_named(text: str) -> None:
    assert "U+" in refused(lambda: fit(text), FormulaError).what


def test_a_letter_of_another_alphabet_is_pointed_out() -> None:
    assert "CYRILLIC" in refused(lambda: fit("y ~ \u0445 + (1 | g)"), DataError).where


@pytest.mark.parametrize("name", ["q", "np", "pd", "fit", "visits", "__builtins__", "X"])
def test_a_name_is_never_found_outside_the_data(name: str) -> None:
    refused(lambda: fit(f"y ~ {name} + (1 | g)"), DataError, "no column")


def test_an_absent_column_is_named_wherever_it_is_asked_for() -> None:
    for options in ({"residual": "us(visitt | g)"}, {"variance": "ident(armm)"}, {"weights": "ww"}, {"offset": "ww"}):
        refused(lambda options=options: fit("y ~ x", **options), DataError, "no column")


def test_a_transform_outside_its_domain_is_refused_without_a_warning_of_numpy() -> None:
    refused(lambda: fit("y ~ poly(log(day), 2) + (1 | g)"), DataError, "poly")


@pytest.mark.skipif(int(pd.__version__.partition(".")[0]) < 3, reason="without copies on write a frame is what it became")
def test_a_frame_that_is_changed_later_changes_no_update() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=40), "x": rng.normal(size=40), "g": np.tile(list("abcd"), 10)})
    fit = blm.LMM("y ~ x + (1 | g)", frame).fit()
    expected = blm.LMM("y ~ 1 + (1 | g)", frame.copy()).fit().criterion
    frame.loc[:, "y"] = 0.0
    frame["g"] = "z"
    assert fit.update(". ~ . - x").criterion == expected
