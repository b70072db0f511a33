"""Kinds of columns that frames of other libraries hold: each is read, or refused by a remedy that works."""

from __future__ import annotations

import datetime as dt
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError

ROWS = 48
_rng = np.random.default_rng(5)
BASE = {"y": _rng.normal(size=ROWS), "x": _rng.normal(size=ROWS), "g": [f"s{i}" for i in np.repeat(np.arange(8), 6)]}
STEPS = _rng.integers(0, 40, ROWS).tolist()

NESTED: dict[str, Any] = {
    "polars list": pl.Series([[1, 2]] * ROWS),
    "polars ragged list": pl.Series([[1], [1, 2]] * (ROWS // 2)),
    "polars array": pl.Series([[1, 2]] * ROWS, dtype=pl.Array(pl.Int64, 2)),
    "polars struct": pl.Series([{"u": 1, "v": 2}] * ROWS),
    "polars nested": pl.Series([[[1]]] * ROWS),
    "arrow list": pa.array([[1]] * ROWS),
    "arrow map": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
    "pandas list": pd.Series([[1, 2]] * ROWS),
    "pandas arrays": pd.Series([np.ones(2)] * ROWS),
}


def frames(column: Any) -> list[Any]:
    """The column as one of a frame of its own library, and of a mapping."""
    if isinstance(column, pl.Series):
        return [pl.DataFrame(BASE).with_columns(column.alias("q")), {**BASE, "q": column}]
    if isinstance(column, pa.Array):
        return [pa.table({**BASE, "q": column}), {**BASE, "q": column}]
    return [pd.DataFrame(BASE).assign(q=column)]


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("formula", ["y ~ q + (1 | g)", "y ~ x + (1 | q)", "y ~ C(q) + (1 | g)", "q ~ x + (1 | g)", "y ~ x + (q | g)"])
def test_nested_columns_are_refused_by_name(kind: str, formula: str) -> None:
    for frame in frames(NESTED[kind]):
        with pytest.raises(DataError, match="'q'"):
            blm.LMM(formula, frame)
        assert np.isfinite(blm.LMM("y ~ x + (1 | g)", frame).fit().criterion), "it harms nobody where it is not used"


INTEGERS: dict[str, Any] = {
    "polars Int128": pl.Series(STEPS, dtype=pl.Int128),
    "pandas objects": pd.Series(STEPS, dtype=object),
    "pandas objects of numpy": pd.Series([np.int32(step) for step in STEPS], dtype=object),
    "exploded": pd.DataFrame({"q": np.array_split(STEPS, 8)}).explode("q", ignore_index=True)["q"].astype(object),
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_in_any_clothes_are_numbers(kind: str) -> None:
    plain = blm.LMM("y ~ q + (1 | g)", {**BASE, "q": STEPS}).fit()
    for frame in frames(INTEGERS[kind]):
        assert blm.LMM("y ~ q + (1 | g)", frame).fit().criterion == plain.criterion
    missing = blm.LMM("y ~ q + (1 | g)", pd.DataFrame(BASE).assign(q=pd.Series([None, *STEPS[1:]], dtype=object)))
    assert dict(missing.design.dropped) == {"q": 1}


def test_objects_of_integers_that_float64_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(DataError, match="beyond 2"):
        blm.LMM("y ~ q + (1 | g)", pd.DataFrame(BASE).assign(q=pd.Series([2**60 + i for i in range(ROWS)], dtype=object)))


_days = [dt.datetime(2024, 1, 1) + dt.timedelta(days=step, hours=step) for step in STEPS]
TIMES: dict[str, Any] = {
    "datetimes": pd.Series(_days),
    "datetimes with a zone": pd.Series(_days).dt.tz_localize("Europe/Berlin"),
    "dates": pd.Series([day.date() for day in _days], dtype=object),
    "periods": pd.Series(pd.PeriodIndex(_days, freq="M")),
    "objects of periods": pd.Series(list(pd.PeriodIndex(_days, freq="D")), dtype=object),
    "timedeltas": pd.Series(pd.to_timedelta(STEPS, unit="h")),
    "objects of timedeltas": pd.Series([dt.timedelta(hours=step) for step in STEPS], dtype=object),
    "times of the day": pd.Series([dt.time(step % 24, step) for step in STEPS], dtype=object),
    "arrow dates": pd.Series([day.date() for day in _days], dtype=pd.ArrowDtype(pa.date32())),
    "arrow timestamps": pd.Series(_days, dtype=pd.ArrowDtype(pa.timestamp("us"))),
    "arrow durations": pd.Series(pd.to_timedelta(STEPS, unit="h")).astype(pd.ArrowDtype(pa.duration("us"))),
}


@pytest.mark.parametrize("kind", TIMES)
def test_the_remedy_for_times_is_an_expression_that_makes_numbers(kind: str) -> None:
    data = pd.DataFrame(BASE).assign(q=TIMES[kind])
    with pytest.raises(DataError, match="times") as caught:
        blm.LMM("y ~ q + (1 | g)", data)
    expression = caught.value.remedy.removeprefix("convert to a number first: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = eval(expression, {"data": data, "pandas": pd})  # noqa: S307 - the remedy is what is tested
        values = np.asarray(numbers, dtype=np.float64)
    assert np.unique(values).size > 1
    order = np.argsort(STEPS, kind="stable")
    if "times of the day" not in kind:
        assert (np.diff(values[order]) >= 0).all(), "later is larger"
    assert blm.LMM("y ~ q + (1 | g)", data.assign(q=numbers)).fit().fixef.index.tolist() == ["Intercept", "q"]


def test_a_relation_of_duckdb_is_a_frame() -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    relation = connection.from_df(pd.DataFrame(BASE).rename(columns={"g": "the group"}))
    fit = blm.LMM("y ~ x + (1 | `the group`)", relation).fit()
    assert fit.criterion == blm.LMM("y ~ x + (1 | g)", BASE).fit().criterion
    assert len(fit.predict(relation)) == ROWS
    with pytest.raises(BayesLMMError, match="'z'"):
        blm.LMM("y ~ z + (1 | `the group`)", relation)
