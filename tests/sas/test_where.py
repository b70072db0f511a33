"""WHERE conditions keep the rows that SAS keeps."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import BayesLMMError, DataError
from bayeslmm.sas.language.statements import parse_program
from bayeslmm.sas.language.where import columns_in, rows_where
from bayeslmm.sas_results.rows import select_rows

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


DAYS = [date(2019, 12, 31), date(2020, 1, 1), None, date(2020, 6, 30), date(1955, 2, 3)]
FROM_1960 = [None if day is None else float((day - date(1960, 1, 1)).days) for day in DAYS]
DATE_COLUMNS = {
    "numbers": FROM_1960,
    "dates": pd.Series(DAYS, dtype=object),
    "stamps": pd.to_datetime(pd.Series(DAYS, dtype=object)),
    "periods": pd.to_datetime(pd.Series(DAYS, dtype=object)).dt.to_period("D"),
    "zoned": pd.to_datetime(pd.Series(DAYS, dtype=object)).dt.tz_localize("Europe/Vienna"),
}


@pytest.mark.parametrize("kind", DATE_COLUMNS)
@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("when >= '01JAN2020'd", [1, 3]),
        ('when < "01jan20"d', [0, 2, 4]),  # a missing date is before all others
        ("when between '1-jan-2020'd and '31dec2020'd", [1, 3]),
        ("'01jan2020'd <= when < '01jul2020'd", [1, 3]),
        ("when in ('31dec2019'd, '30jun2020'd)", [0, 3]),
        ("when = mdy(6, 30, 2020)", [3]),
        ("year(when) = 2020 and month(when) le 6", [1, 3]),
        ("qtr(when) eq 4 or weekday(when) = 4", [0, 1]),
        ("day(when) = 3", [4]),
        ("when is missing", [2]),
        ("not missing(when) and when > '01jan2020'd - 1", [1, 3]),
        ("when > .", [0, 1, 3, 4]),
        ("when >= '01jan2020:00:00:00'dt", [1, 3]),
    ],
)
def test_dates_are_days_since_1960(kind: str, condition: str, kept: list[int]) -> None:
    if kind == "numbers" and "'dt" in condition:
        return  # a number of days is none of seconds
    frame = pd.DataFrame({"when": DATE_COLUMNS[kind], "row": range(5)})
    program = parse_program(f"proc mixed; model row = ; where {condition}; run;", ("row", "when"))
    assert select_rows(frame, program)["row"].tolist() == kept


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("at < '01jan2020:9:30'dt", [0]),
        ("at = '1jan2020:10:00:30'dt", [1]),
        ("datepart(at) = '01jan2020'd", [0, 1]),
        ("timepart(at) > '09:00 pm't", [2]),
        ("hour(at) = 10 and minute(at) = 0 and second(at) = 30", [1]),
        ("year(datepart(at)) = 2021", [2]),
    ],
)
def test_datetimes_are_seconds(condition: str, kept: list[int]) -> None:
    frame = pd.DataFrame({"at": pd.to_datetime(["2020-01-01 09:00:00", "2020-01-01 10:00:30", "2021-05-05 22:00:00"]), "row": range(3)})
    program = parse_program(f"proc mixed; model row = ; where {condition}; run;", ("row", "at"))
    assert select_rows(frame, program)["row"].tolist() == kept


@pytest.mark.parametrize("condition", ["at > '01jan2020'd", "year(at) = 2020", "at between '01jan2019'd and '01jan2022'd"])
def test_times_of_day_are_not_taken_for_dates(condition: str) -> None:
    frame = pd.DataFrame({"at": pd.to_datetime(["2020-01-01 09:00:00", "2020-01-01 10:00:30"]), "row": range(2)})
    program = parse_program(f"proc mixed; model row = ; where {condition}; run;", ("row", "at"))
    with pytest.raises(DataError, match="times of day"):
        select_rows(frame, program)


@pytest.mark.parametrize("literal", ["'31feb2020'd", "'2020-01-01'd", "'25:99't", "'01jan2020'dt", "'0jan2020'd", "'01foo2020'd"])
def test_what_is_no_date_is_refused_in_its_place(literal: str) -> None:
    with pytest.raises(BayesLMMError, match="is no"):
        parse_program(f"proc mixed; model x = k; where x > {literal}; run;", ("x", "s", "k"))
