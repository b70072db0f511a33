"""When a figure agrees with one as it was printed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm.cli.verify import PublishedValue, agrees, last_digit


@pytest.mark.parametrize(
    ("published", "unit"), [("24.740", 1e-3), ("180", 1.0), ("-0.5", 0.1), ("3.32E+03", 10.0), ("1.5e-4", 1e-5), ("0.00000", 1e-5)]
)
def test_trailing_zeros_are_digits(published: str, unit: float) -> None:
    assert last_digit(published) == unit


@given(st.decimals(-10_000, 10_000, places=3))
def test_a_number_agrees_with_itself_and_its_neighbours_but_no_further(value) -> None:
    text, exact = f"{value:.3f}", float(value)
    assert agrees(text, exact)
    assert agrees(text, exact + 0.001)
    assert agrees(text, exact - 0.00099)
    assert not agrees(text, exact + 0.00101)
    assert agrees(text, exact + 0.0029, units=3)


def test_a_bound_is_a_bound() -> None:
    assert agrees("<.0001", 9e-5)
    assert not agrees("<.0001", 1.1e-4)


@pytest.mark.parametrize("ours", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_agrees_with_none(ours: float) -> None:
    assert not agrees("0.0", ours)


def test_a_figure_is_named_by_its_path() -> None:
    figure = PublishedValue(("sd", "Subject", "Days"), "5.922", 5.9221)
    assert figure.name == "sd.Subject.Days"
    assert figure.agrees
