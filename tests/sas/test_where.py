"""WHERE conditions keep the rows that SAS keeps."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.errors import DataError
from bayeslmm.sas.language.statements import parse_program
from bayeslmm.sas.language.where import columns_in, rows_where

COLUMNS = {
    "x": np.array([1.0, 2.0, np.nan, 4.0]),
    "s": np.array(["Y", "N ", None, "Yes"], dtype=object),
    "k": np.array([1, 2, 3, 4]),
}


def rows(condition: str) -> list[int]:
    where = parse_program(f"proc mixed; model x = k; where {condition}; run;", ("x", "s", "k")).where
    assert where is not None
    return np.flatnonzero(rows_where(where, COLUMNS)).tolist()


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("x > 1", [1, 3]),
        ("x < 2", [0, 2]),  # a missing number is smaller than all others
        ("x gt 1 and k ne 4", [1]),
        ("x = . or x = 4", [2, 3]),
        ("x is missing", [2]),
        ("x is not null", [0, 1, 3]),
        ("not (x > 1)", [0, 2]),
        ("x ^= 2 & x ~= .", [0, 3]),
        ("k in (1, 3 4)", [0, 2, 3]),
        ("k not in (1 3)", [1, 3]),
        ("k between 2 and 3", [1, 2]),
        ("2 <= k <= 3", [1, 2]),
        ("s = 'Y'", [0]),
        ("s = 'N'", [1]),  # blanks at the end do not count
        ("s in ('Y', 'Yes')", [0, 3]),
        ("s = ' '", [2]),
        ("s contains 'Y'", [0, 3]),
        ("s like 'Y%'", [0, 3]),
        ("s like '_'", [0, 1]),
        ("S EQ 'Y' OR K GE 4", [0, 3]),
        ("x <> 2", [0, 2, 3]),
        ("x > -1.5", [0, 1, 3]),
    ],
)
def test_conditions(condition: str, kept: list[int]) -> None:
    assert rows(condition) == kept


@pytest.mark.parametrize("condition", ["s = 1", "x = 'a'", "x contains 'a'", "x like 'a'"])
def test_texts_and_numbers_are_not_compared(condition: str) -> None:
    with pytest.raises(DataError):
        rows(condition)


def test_the_variables_of_a_condition() -> None:
    where = parse_program("proc mixed; model x = k; where not (a = 1 or b in (2)) and c is missing; run;").where
    assert where is not None
    assert columns_in(where) == ("a", "b", "c")
