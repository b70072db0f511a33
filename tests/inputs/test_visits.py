"""Visits, subjects and places of a residual structure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm import LMM
from bayeslmm.data.notes import order_by_number
from bayeslmm.errors import BayesLMMWarning, DataError, IdentifiabilityError
from tests.data.designs import build, days, notes


def test_visits_are_ordered_as_their_categories() -> None:
    data = days().assign(visit=lambda d: d["visit"].cat.reorder_categories([f"V{i}" for i in (6, 5, 4, 3, 2, 1)]))
    design = build("y ~ x", data, residual="ar1(visit | g)").residual
    assert design is not None
    assert design.visit_levels == ("V6", "V5", "V4", "V3", "V2", "V1")
    assert design.visit is not None
    assert design.visit[:6].tolist() == [5, 4, 3, 2, 1, 0]


def test_numeric_visits_are_their_sorted_values() -> None:
    design = build("y ~ x", days().iloc[::-1], residual="toep(day | g)").residual
    assert design is not None
    assert design.visit_levels == (0, 1, 2, 3, 4, 5)
    assert design.coords is not None
    assert design.coords[:2, 0].tolist() == [5.0, 4.0]


def test_unequal_gaps_are_noted_where_an_ordered_structure_goes_by_rank() -> None:
    data = days().assign(day=lambda d: d["day"] ** 2)
    for structure in ("toep", "ad"):
        assert notes(build("y ~ x", data, residual=f"{structure}(day | g)"))["unequal_gaps"].verdict == "noted"
    for structure in ("us", "ar1", "car1"):
        assert "unequal_gaps" not in notes(build("y ~ x", data, residual=f"{structure}(day | g)"))
    assert "unequal_gaps" not in notes(build("y ~ x", days(), residual="ar1(day | g)"))


@pytest.mark.parametrize("structure", ["ar1", "ar1h", "toep", "toeph", "ad", "adh"])
def test_text_has_no_order(structure: str) -> None:
    data = days().assign(visit=lambda d: d["visit"].astype(str))
    with pytest.raises(DataError, match="order"):
        build("y ~ x", data, residual=f"{structure}(visit | g)")


NUMBERED = st.lists(st.integers(1, 120), min_size=2, max_size=8, unique=True)


@given(NUMBERED, st.sampled_from(["w{}", "Week {}", "{} months", "visit-{}", "day {}h"]))
def test_labels_in_the_order_of_text_are_put_in_that_of_their_numbers(numbers: list[int], pattern: str) -> None:
    right = [pattern.format(number) for number in sorted(numbers)]
    text = sorted(right)
    assert order_by_number(text) == (() if text == right else tuple(right))
    assert order_by_number(["a", *text, "z"] if pattern != "{} months" else [*text, "z"])[-1:] in ((), ("z",))
    backwards = right[::-1]
    assert backwards == sorted(backwards) or not order_by_number(backwards), "any other order is one that somebody chose"


@pytest.mark.parametrize("residual", ["ar1(week | g)", "toeph(week | g)", "ad(week | g)", "us(week | g)", "cs(week | g)", None])
def test_visits_in_the_order_of_text_are_noted_with_what_mends_them(residual: str | None) -> None:
    formula = "y ~ x" if residual else "y ~ x + ar1(0 + week | g)"
    labels = [f"w{2**i}" for i in range(6)]
    data = days().assign(week=lambda d: pd.Categorical.from_codes(d["day"].astype(int), labels).astype(str).astype("category"))
    note = notes(build(formula, data, residual=residual))
    name = "visit_labels" if residual in ("us(week | g)", "cs(week | g)") else "visit_order"
    assert note[name].verdict == "noted"
    assert note[name].value == {"week": ("w1", "w16", "w2", "w32", "w4", "w8")}
    remedy = note[name].remedy.partition("data['week'] = ")[2]
    mended = data.assign(week=eval(remedy, {"pandas": pd, "data": data}))  # noqa: S307
    assert list(mended["week"].cat.categories) == labels
    assert not {"visit_order", "visit_labels"} & set(notes(build(formula, mended, residual=residual)))


def test_an_order_of_text_that_matters_is_a_warning_of_the_fit() -> None:
    data = days().assign(week=lambda d: ("w" + (2 ** d["day"].astype(int)).astype(str)).astype("category"))
    with pytest.warns(BayesLMMWarning, match="visit_order"):
        LMM("y ~ x", data, residual="ar1(week | g)", check="warn").fit()


@pytest.mark.parametrize("structure", ["us", "cs", "csh"])
def test_text_is_fine_where_order_does_not_matter(structure: str) -> None:
    data = days().assign(visit=lambda d: d["visit"].astype(str))
    design = build("y ~ x", data, residual=f"{structure}(visit | g)").residual
    assert design is not None
    assert len(design.visit_levels) == 6


def test_one_stands_for_the_order_of_the_rows() -> None:
    data = pd.concat([days().iloc[::2], days().iloc[1::2]])
    design = build("y ~ x", data, residual="ar1(1 | g)").residual
    assert design is not None
    assert design.visit is not None
    assert design.visit[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert design.visit[30:33].tolist() == [3, 4, 5]
    assert design.visit_levels == (1, 2, 3, 4, 5, 6)


def test_a_visit_that_occurs_twice_is_refused_with_its_rows() -> None:
    data = days()
    data.loc[8, "visit"] = "V2"
    with pytest.raises(DataError, match="subject 's1' and visit 'V2'") as caught:
        build("y ~ x", data, residual="us(visit | g)")
    assert caught.value.where == "rows 7, 8"


def test_a_visit_nobody_has_is_dropped_unless_spacing_would_change() -> None:
    data = days()[lambda d: d["visit"] != "V3"]
    free = build("y ~ x", data, residual="us(visit | g)")
    serial = build("y ~ x", data, residual="ar1(visit | g)")
    assert free.residual is not None
    assert serial.residual is not None
    assert free.residual.visit_levels == ("V1", "V2", "V4", "V5", "V6")
    assert "unused_levels" in notes(free)
    assert serial.residual.missing_visits == (2,)
    assert notes(serial)["visits_without_rows"].value == ("V3",)


def test_a_pair_of_visits_that_nobody_has_is_named() -> None:
    first = days()["g"].isin([f"s{i}" for i in range(5)])
    data = days()[~((days()["visit"] == "V2") & first) & ~((days()["visit"] == "V5") & ~first)]
    with pytest.raises(IdentifiabilityError, match="'V2' and 'V5'"):
        build("y ~ x", data, residual="us(visit | g)").require_identified()
    build("y ~ x", data, residual="ar1h(visit | g)").require_identified()


def test_subjects_with_one_visit_are_fine_unless_all_are_such() -> None:
    build("y ~ x", days().iloc[:-5], residual="us(visit | g)").require_identified()
    several = days().groupby("g", observed=True).sample(1, random_state=1)
    with pytest.raises(IdentifiabilityError, match="two rows"):
        build("y ~ x", several, residual="cs(visit | g)").require_identified()
    build("y ~ x", days().iloc[::6], residual="cs(visit | g)").require_identified()


def test_the_group_of_a_structure_is_constant_within_subject() -> None:
    design = build("y ~ x", days(), residual="us(visit | arm / g)").residual
    assert design is not None
    assert design.group is not None
    assert design.group.levels.tolist() == ["CTL", "TRT"]
    data = days()
    data.loc[2, "arm"] = "TRT"
    with pytest.raises(DataError, match="'arm' varies within subject 's0'"):
        build("y ~ x", data, residual="us(visit | arm / g)")


def test_more_than_a_hundred_visits_unstructured_are_refused() -> None:
    data = pd.DataFrame(
        {"y": np.random.default_rng(0).normal(size=303), "visit": np.tile(np.arange(101), 3), "g": np.repeat(list("abc"), 101)}
    )
    with pytest.raises(IdentifiabilityError, match="5151 parameters"):
        build("y ~ 1", data, residual="us(visit | g)").require_identified()
    build("y ~ 1", data, residual="us(visit | g)", check="warn").require_identified()


def test_equal_places_are_refused_unless_there_is_a_nugget() -> None:
    data = days()
    data.loc[9, "day"] = data.loc[10, "day"]
    with pytest.raises(DataError, match="equal coordinates") as caught:
        build("y ~ x", data, residual="sp_exp(day | g)")
    assert caught.value.where == "rows 9, 10"
    build("y ~ x", data, residual="sp_exp(day | g) + local")
    build("y ~ x", data, residual="sp_exp(day, x | g)")


def test_coordinates_are_kept_by_row() -> None:
    design = build("y ~ x", days(), residual="sp_gau(day, x | g)").residual
    assert design is not None
    assert design.coords is not None
    np.testing.assert_array_equal(design.coords, days()[["day", "x"]])
    assert design.visit is None


def test_a_kronecker_structure_has_all_pairs_of_outcome_and_visit() -> None:
    data = pd.concat([days().assign(outcome=name) for name in ("pain", "mood")], ignore_index=True).drop(index=[3])
    design = build("y ~ x", data, residual="us@ar1(outcome, visit | g)").residual
    assert design is not None
    assert design.shape == (2, 6)
    assert design.visit_levels[:2] == ("mood:V1", "mood:V2")
    assert design.visit is not None
    assert design.visit[0] == 6


def test_variance_functions_have_strata_and_covariates() -> None:
    design = build("y ~ x + (1 | g)", days(), variance="ident(arm) * power(fitted) * exp(day | visit)")
    kinds = [(factor.kind, factor.labels, factor.covariate is None) for factor in design.variance]
    assert kinds == [("ident", ("CTL", "TRT"), True), ("power", (), True), ("exp", ("V1", "V2", "V3", "V4", "V5", "V6"), False)]


def test_an_exponential_of_a_column_that_lies_too_far_from_zero_is_refused() -> None:
    frame = days()
    with pytest.raises(DataError, match="standard deviations away from 0") as refused:
        build("y ~ x + (1 | g)", frame.assign(unix=1.6e9 + frame["day"]), variance="exp(unix)")
    assert "from its mean" in refused.value.remedy
    build("y ~ x + (1 | g)", frame.assign(year=2000 + frame["day"]), variance="exp(year)")


def test_a_power_of_zero_is_refused() -> None:
    with pytest.raises(DataError, match="leaves no variance"):
        build("y ~ x + (1 | g)", days(), variance="power(day)")
