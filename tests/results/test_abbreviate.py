"""Short names over the correlations of the fixed effects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.model.summary import WIDTH, abbreviated


def test_names_are_shortened_as_in_lme4_and_stay_apart() -> None:
    names = ["Intercept", "Days", "Treatment", "ARMCD[T.TRT]", "ARMCD[T.PBO]", "ARMCD[T.TRT]:VISITN"]
    assert abbreviated(names) == ["(Intr)", "Days", "Trtmnt", "ARMTRT", "ARMPBO", "AT:VIS"]
    assert abbreviated(["Intercept", "visit10", "visit11"]) == ["(Intr)", "vist10", "vist11"]


def test_names_that_would_be_alike_are_none() -> None:
    assert abbreviated(["ABCDEFGHIJ", "ABCDEFGHIK"]) is None


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=30), unique=True, max_size=6))
def test_short_names_are_short_and_differ(names: list[str]) -> None:
    found = abbreviated(names)
    assert found is None or (len(set(found)) == len(names) and all(len(name) <= WIDTH for name in found))


def test_a_summary_reads_at_eighty_columns() -> None:
    trial = blm.load_dataset("trial")
    text = str(blm.LMM("BCVA_CHG ~ RACE + BCVA_BL + ARMCD * VISITN + (1 | USUBJID)", trial).fit().summary())
    assert "(Intr)" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_coefficients_that_look_alike_are_numbered() -> None:
    trial = blm.load_dataset("trial").assign(BASELINE_SCORE_A=lambda d: d["BCVA_BL"] ** 2, BASELINE_SCORE_B=lambda d: d["BCVA_BL"] ** 3)
    text = str(blm.LMM("BCVA_CHG ~ BASELINE_SCORE_A + BASELINE_SCORE_B + (1 | USUBJID)", trial).fit().summary())
    assert "[2] BASELINE_SCORE_A" in text
