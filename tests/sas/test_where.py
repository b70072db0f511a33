"""WHERE conditions keep the rows that SAS keeps."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.errors import BayesLMMError, DataError
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
        ("not missing(x)", [0, 1, 3]),
        ("missing(x) or missing(s)", [2]),
        ("upcase(s) = 'YES'", [3]),
        ("lowcase(substr(s, 1, 1)) = 'n'", [1]),
        ("substr(s, 2) eq 'es'", [3]),
        ("s =: 'Y'", [0, 3]),
        ("s in: ('Y', 'No')", [0, 3]),
        ("s =: 'Yesterday'", [3]),  # the column is three wide
        ("s not in: ('Y')", [1, 2]),
        ("k in (1:3)", [0, 1, 2]),
        ("k not in (1:2, 4)", [2]),
        ("mod(k, 2) = 0", [1, 3]),
        ("mod(k, 2)", [0, 2]),
        ("x + 1 > 2", [1, 3]),
        ("(x + k) / 2 = k", [0, 1, 3]),
        ("2 * (k - 1) ** 2 >= 8 and x", [3]),
        ("-k + 3 > 0", [0, 1]),
        ("-2 ** 2 = 0 - k", [3]),
        ("x < 0", [2]),
        ("x * 0 < 0", [2]),  # arithmetic on a missing number is missing
        ("sum(x, k) = 3 or max(x, k) = 4", [2, 3]),
        ("n(x, k) = 1", [2]),
        ("round(k / 3, .1) = .7", [1]),
        ("int(k / 2) = 1", [1, 2]),
        ("length(s) = 3", [3]),
        ("index(s, 'e') > 0", [3]),
        ("find(s, 'E', 'i')", [3]),
        ("scan('a b-c', k) = 'c'", [2]),
        ("s || '!' = 'Y!'", [0]),
        ("cats(s, k) = 'Y1'", None),
        ("catx('-', s, 'a') in ('a', 'N-a')", [1, 2]),
        ("coalesce(x, 9) > 3", [2, 3]),
        ("compress(s, 'e') = 'Ys'", [3]),
        ("abs(x - 3) <= 1", [1, 2, 3]),
        ("sqrt(x - 2) >= 0", [1, 3]),
        ("x between k - 1 and k", [0, 1, 3]),
        ("(k = 1 or k = 2) and (x + 1) > 2", [1]),
    ],
)
def test_conditions(condition: str, kept: list[int] | None) -> None:
    if kept is None:  # a number where a text is wanted
        with pytest.raises(DataError, match="takes a text"):
            rows(condition)
    else:
        assert rows(condition) == kept


@pytest.mark.parametrize("condition", ["upcas(s) = 'Y'", "put(k, 3.) = '1'", "substr(s) = 'a'", "k in (1:99999999)", "x +", "x 1", "s"])
def test_what_is_no_condition_is_refused(condition: str) -> None:
    with pytest.raises(BayesLMMError):
        rows(condition)


@pytest.mark.parametrize("text", ["(" * 9000 + "x", "-" * 9000 + "x", "k" + " < k" * 9000, "abs(" * 9000 + "x"])
def test_deep_conditions_are_refused_in_words(text: str) -> None:
    with pytest.raises(BayesLMMError):
        rows(text)


@pytest.mark.parametrize("condition", ["s = 1", "x = 'a'", "x contains 'a'", "x like 'a'"])
def test_texts_and_numbers_are_not_compared(condition: str) -> None:
    with pytest.raises(DataError):
        rows(condition)


def test_the_variables_of_a_condition() -> None:
    where = parse_program("proc mixed; model x = k; where not (a = 1 or b in (2)) and c is missing; run;").where
    assert where is not None
    assert columns_in(where) == ("a", "b", "c")
