"""The SAS text: comments, quotes, cases of letters, effects, options."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayeslmm.errors import BayesLMMError, FormulaError, FormulaLimitError
from bayeslmm.sas.language.effects import SASEffect
from bayeslmm.sas.language.statements import parse_program


def parsed(statements: str) -> object:
    return parse_program(f"proc mixed; class a b c id; {statements} run;")


def effects(text: str) -> list[str]:
    return [e.text for e in parse_program(f"proc mixed; class a b c id; model y = {text}; run;").model.effects]


def test_comments_of_every_kind_are_left_out() -> None:
    program = parse_program("""* a comment; proc mixed /* data=x */ data=a; *another, 'with a quote;
        %* a macro comment; model y = x /* z */ / s; /* ; */ run;""")
    assert program.proc.data == "a"
    assert program.model.effects == (SASEffect(("x",)),)
    assert program.model.solution


def test_the_case_of_keywords_and_names_does_not_matter() -> None:
    program = parse_program("PROC MIXED Data=A; CLASS Id; Model Y = X / S DdfM=Kr; RANDOM INT x / SUB=ID; RUN;")
    assert program.random[0].subject == SASEffect(("Id",))
    assert program.random[0].effects == (SASEffect(), SASEffect(("X",)))


def test_crossing_nesting_and_bars() -> None:
    assert effects("a|b") == ["a", "b", "a*b"]
    assert effects("a|b|c@2") == ["a", "b", "a*b", "c", "a*c", "b*c"]
    assert effects("a b(a) c*b(a)") == ["a", "b(a)", "c*b(a)"]
    assert effects("a|b(a)") == ["a", "b(a)"]
    assert effects("a(c)|b(c)") == ["a(c)", "b(c)", "a*b(c)"]
    assert effects("a b(c id)") == ["a", "b(c id)"]
    assert effects("a|x a") == ["a", "x", "a*x"]


def test_numbered_ranges_stand_for_their_variables() -> None:
    assert effects("x8-x11") == ["x8", "x9", "x10", "x11"]
    assert effects("x08-x10") == ["x08", "x09", "x10"]


def test_an_intercept_alone_is_a_model() -> None:
    assert effects("") == []


def test_quoted_labels_keep_their_text() -> None:
    program = parsed('model y = a; estimate \'it\'\'s; /* here */\' a 1 -1; estimate "a ""b""" a 1 +1 -.5 1e-1;')
    assert [e.label for e in program.estimates] == ["it's; /* here */", 'a "b"']  # type: ignore[attr-defined]
    assert program.estimates[1].row.fixed[0].values == (1.0, 1.0, -0.5, 0.1)  # type: ignore[attr-defined]


def test_coefficients_behind_a_bar_are_of_the_random_effects() -> None:
    program = parsed("model y = a; random id; estimate 'blup' intercept 1 a 1 | id 0 1 / subject 1 0 divisor=2 lower;")
    estimate = program.estimates[0]  # type: ignore[attr-defined]
    assert [c.effect.text for c in estimate.row.fixed] == ["Intercept", "a"]
    assert [c.values for c in estimate.row.random] == [(0.0, 1.0)]
    assert (estimate.divisor, estimate.tail, estimate.subject) == (2.0, "lower", (1.0, 0.0))


def test_contrasts_have_rows() -> None:
    contrast = parsed("model y = a; contrast 'a' a 1 -1 0, a 1 0 -1 / chisq df=10 e;").contrasts[0]  # type: ignore[attr-defined]
    assert len(contrast.rows) == 2
    assert (contrast.chisq, contrast.df, contrast.e) == (True, 10.0, True)


def test_values_of_parms_are_lists_and_steps() -> None:
    program = parsed("model y = a; parms (1 to 2 by .25) (1, 5, 2 to 4) (.3) / hold=1,3 noiter;")
    assert program.parms.values == ((1.0, 1.25, 1.5, 1.75, 2.0), (1.0, 5.0, 2.0, 3.0, 4.0), (0.3,))  # type: ignore[attr-defined]
    assert program.parms.hold == (1, 3)  # type: ignore[attr-defined]


def test_options_of_lsmeans() -> None:
    program = parsed(
        "model y = a b x z; lsmeans a b / diff=control('p' 'q') adjust=bon cl alpha=.1 at (x z)=(1 -2) at means slice=(a b) om;"
    )
    means = program.lsmeans[0]  # type: ignore[attr-defined]
    assert (means.diff, means.controls, means.adjust, means.alpha) == ("control", ("p", "q"), "bonferroni", 0.1)
    assert (means.at, means.at_means, means.om) == ((("x", 1.0), ("z", -2.0)), True, True)
    assert [e.text for e in means.slice] == ["a", "b"]


def test_an_adjustment_asks_for_the_differences() -> None:
    assert parsed("model y = a; lsmeans a / adjust=tukey;").lsmeans[0].diff == "all"  # type: ignore[attr-defined]
    assert parsed("model y = a; lsmeans a / adjust=dunnett;").lsmeans[0].diff == "control"  # type: ignore[attr-defined]


def test_alpha_alone_asks_for_the_limits() -> None:
    program = parse_program("proc mixed alpha=.1; model y = x / alpha=.1; run;")
    assert program.proc.cl
    assert program.model.cl


def test_matrices_of_chosen_subjects() -> None:
    program = parsed("model y = a; random int / sub=id g gcorr v=2,5 vcorr=2; repeated / sub=id type=cs r=1 3 rcorr;")
    assert program.random[0].displays == ("G", "GCorr", "V", "VCorr")  # type: ignore[attr-defined]
    assert program.random[0].v_blocks == (2, 5)  # type: ignore[attr-defined]
    assert program.repeated.displays == ("R", "RCorr")  # type: ignore[attr-defined]
    assert program.repeated.blocks == (1, 3)  # type: ignore[attr-defined]


def test_reference_levels() -> None:
    program = parse_program("proc mixed; class a(ref='B') b(ref=first) c d(ref=last) / ref=first; model y = a; run;")
    assert [(c.reference, c.value) for c in program.classes] == [("value", "B"), ("first", ""), ("first", ""), ("last", "")]


def test_titles_are_kept_and_ods_is_left_alone() -> None:
    program = parse_program("""title 'A'; title3 'C'; ods graphics on; options nodate ls=80;
        proc mixed; model y=x; footnote 'F'; run; ods _all_ close;""")
    assert program.titles == ("A", "C")
    assert program.footnotes == ("F",)
    assert len(program.ods) == 2


@pytest.mark.parametrize("place", ["before", "within"])
@pytest.mark.parametrize(
    ("statement", "near"),
    [
        ("ods zork;", ""),
        ("ods grahpics on;", "GRAPHICS"),
        ("ods graphics zork;", ""),
        ("ods graphics / zork;", ""),
        ("ods graphics on / reset=all widht=4in;", "WIDTH"),
    ],
)
def test_what_ods_does_not_know_is_named_at_its_place(statement: str, near: str, place: str) -> None:
    text = f"{statement} proc mixed; model y=x; run;" if place == "before" else f"proc mixed; model y=x; {statement} run;"
    with pytest.raises(FormulaError) as caught:
        parse_program(text)
    assert caught.value.where.splitlines()[-1].rstrip().endswith("^")
    assert near in caught.value.remedy


def test_options_of_figures_are_read_past_with_their_values() -> None:
    program = parse_program("""ods graphics on / width=4in height=3.5cm imagename='a' labelmax=(100) reset=index(1) noborder;
        ods select CovParms; proc mixed; model y=x; ods html file='a.html'; run;""")
    assert len(program.ods) == 3
    assert program.notes == ("ODS SELECT COVPARMS is left out: every table is in the result",)


def test_data_set_options_may_filter() -> None:
    program = parse_program("proc mixed data=lib.a(where=(x > 1)); model y = x; run;")
    assert program.proc.data == "lib.a"
    assert program.proc.data_options.where is not None


def test_a_spot_shows_the_line_and_the_place() -> None:
    with pytest.raises(FormulaError) as caught:
        parse_program("proc mixed;\n  model y = x / solutoin;\nrun;")
    assert "line 2, column 17" in caught.value.where
    assert caught.value.where.splitlines()[-1].rstrip().endswith("^")
    assert "SOLUTION" in caught.value.remedy


def test_limits_are_met_before_anything_is_built() -> None:
    with pytest.raises(FormulaLimitError):
        parse_program("proc mixed; model y = x;" + " " * 70_000)
    with pytest.raises(FormulaLimitError):
        effects("|".join(f"v{i}" for i in range(18)))
    with pytest.raises(FormulaLimitError):
        parse_program("proc mixed; model y = x; where " + "(" * 3000 + "x=1" + ")" * 3000 + "; run;")
    with pytest.raises(FormulaLimitError):
        parse_program("proc mixed; model y = x; parms (1 to 2 by 1e-9); run;")
    with pytest.raises(FormulaLimitError):
        effects("x1-x99999999999")


@given(st.text(alphabet="proc mixed;modely=xabc*|()/'\"@-+.,123 \n%&", max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever is written, there is a program or an error of ours."""
    for program in (text, f"proc mixed; class a; model y = {text}; run;", f"proc mixed; model y = x; where {text}; run;"):
        with contextlib.suppress(BayesLMMError):
            parse_program(program)
