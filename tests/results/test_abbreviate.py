"""Short names over the correlations of the fixed effects."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import bayeslmm as blm
from bayeslmm.model.summary import WIDTH, abbreviate
from bayeslmm.results.render import NAME_WIDTH, TEXT_WIDTH, TextTable, table_lines


def test_names_are_shortened_as_in_lme4_and_stay_apart() -> None:
    names = ["Intercept", "Days", "Treatment", "ARMCD[T.TRT]", "ARMCD[T.PBO]", "ARMCD[T.TRT]:VISITN"]
    assert abbreviate(names) == ["(Intr)", "Days", "Trtmnt", "ARMTRT", "ARMPBO", "AT:VIS"]
    assert abbreviate(["Intercept", "visit10", "visit11"]) == ["(Intr)", "vist10", "vist11"]


def test_names_that_would_be_alike_are_none() -> None:
    assert abbreviate(["ABCDEFGHIJ", "ABCDEFGHIK"]) is None


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=30), unique=True, max_size=6))
def test_short_names_are_short_and_differ(names: list[str]) -> None:
    found = abbreviate(names)
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


@given(
    st.tuples(st.text("ab_[]", max_size=50), st.text("ab_[]", max_size=50)),
    st.lists(st.text("abcdefgh", min_size=1, max_size=12), unique=True, min_size=2, max_size=12),
    st.integers(1, 6),
)
def test_names_of_rows_that_are_cut_stay_apart(ends: tuple[str, str], middles: list[str], columns: int) -> None:
    names = [f"{ends[0]}{middle}.{ends[1]}" for middle in middles]
    rows = tuple((name, *("0.12345",) * columns) for name in names)
    lines = table_lines(TextTable("", ("", *(f"column {j}" for j in range(columns))), rows, 1))
    shown = [line[2:].split("  ")[0] for line in lines[1 : len(names) + 1]]
    assert len(set(shown)) == len(names), shown


def test_forty_levels_with_long_names_are_told_apart() -> None:
    names = [f"factor[T.a_long_treatment_name_{k:02d}_with_a_long_end]" for k in range(40)]
    rows = tuple((name, "0.36764", "0.27281", "759.2", "1.35", "0.1782") for name in names)
    lines = table_lines(TextTable("", ("", "Estimate", "Std.Error", "df", "t", "p"), rows, 1))
    assert len(lines) == 41
    assert max(map(len, lines)) <= TEXT_WIDTH
    assert all(f"_{k:02d}_" in line for k, line in enumerate(lines[1:]))
    assert len(lines[1].split()[0]) >= NAME_WIDTH
