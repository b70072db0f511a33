"""What a service hands to predict: rows as records, single values, values that the formula cannot be computed for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, DataError, PredictionError, SpecificationError

ROW: dict[str, Any] = {"price": 4.0, "promo": True, "store": "s1"}


@pytest.fixture(scope="module")
def model() -> blm.LMM:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {"price": rng.uniform(1.0, 9.0, 60), "promo": np.tile([True, False], 30), "store": np.repeat([f"s{i}" for i in range(6)], 10)}
    )
    return blm.LMM("y ~ log(price) + promo + (1 | store)", frame.assign(y=rng.normal(size=60)))


@pytest.mark.parametrize("rows", [[ROW], (ROW, ROW), ROW], ids=["list", "tuple", "scalars"])
def test_rows_that_are_no_columns_are_told_how_they_become_some(model: blm.LMM, rows: Any) -> None:
    with pytest.raises(PredictionError) as caught:
        model.fit().predict(rows)
    assert ("pandas.DataFrame(rows)" if not isinstance(rows, dict) else "'price': [...]") in caught.value.remedy
    with pytest.raises(DataError):
        blm.LMM("price ~ 1", rows)
    made = pd.DataFrame(rows if not isinstance(rows, dict) else {name: [value] for name, value in rows.items()})
    assert len(model.fit().predict(made)) == len(made)


@pytest.mark.parametrize("price", [-1.0, 0.0, None, np.nan])
def test_a_value_that_the_formula_has_none_for_is_named_as_such(model: blm.LMM, price: float | None) -> None:
    new = {name: [value, value] for name, value in (ROW | {"price": 2.0}).items()} | {"price": [2.0, price]}
    for asked in (model.fit(), model.sample(draws=10, chains=1, seed=1)):
        with pytest.warns(BayesLMMWarning, match="or the formula has no value for it"):
            found = asked.predict(new)["estimate"]
        assert found.notna().tolist() == [True, False]


def test_a_table_is_a_relation() -> None:
    duckdb = pytest.importorskip("duckdb")
    for wrong, told in ((duckdb.connect(), "connection.table"), ("select 1", "duckdb.sql"), ("rows.parquet", "read_parquet")):
        with pytest.raises(SpecificationError) as caught:
            blm.from_table("y ~ x + (1 | g)", wrong)
        assert told in caught.value.remedy
