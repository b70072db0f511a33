"""Whole programs: macro variables, what stands around PROC MIXED, several steps, BY groups that fail, names of ODS OUTPUT, KEEP=."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import (
    BayesLMMError,
    BayesLMMWarning,
    DataError,
    DesignError,
    FormulaError,
    IdentifiabilityError,
    SpecificationError,
)
from bayeslmm.sas.language.tokens import prepare_text
from tests.sas_results.sets import data

STEP = "proc mixed {}; class Subject; model distance = age {}; random int / sub=Subject; {} run;"

WHOLE = """
options nodate fullstimer; libname x 'c:/y';
%let y = distance; %let right=Sex
   age;
data two; set one; if x = 1 then delete; datalines;
1 2 it's ; 3
;
run;
proc sort data=two; by Subject; run;
title 'first &y'; title2 "second &y";
ods output Tests3=t3 SolutionF=work.sf;
* it's a comment with &nothing;
proc mixed data=two plots=(residualpanel(a=1) box); class Subject Sex; model &y = &right / s outp=p(keep=Subject age pred);
  random int / sub=Subject; label distance='mm'; format Sex $f.; store abc; run;
proc print data=t3; run;
title 'other';
proc mixed data=two method=ml plots(only)=all; class Subject; model &y.=age; random int/subject=Subject; run; quit;
proc means data=p; var pred; run;
ods _all_ close;
"""


def growth() -> pd.DataFrame:
    return data("nlme", "Orthodont")


def test_a_whole_program_gives_a_result_for_each_step() -> None:
    results = blm.proc_mixed(WHOLE, growth())
    assert isinstance(results, list)
    first, second = results
    assert [r.title for r in results] == ["first &y", "other"]
    assert first.runs[0].translation.program.titles == ("first &y", "second distance")
    alone = blm.proc_mixed("proc mixed; class Subject Sex; model distance = Sex age / s; random int / sub=Subject; run;", growth())
    assert first["t3"].equals(alone["Tests3"])
    assert first["SF"].equals(alone["SolutionF"])
    assert first["p"].columns.tolist() == ["age", "Subject", "Pred"]
    notes = " ".join(first.notes)
    for word in ("LIBNAME", "DATA two", "PROC SORT", "PROC PRINT", "PROC MEANS", "FULLSTIMER", "LABEL", "FORMAT", "STORE", "PLOTS"):
        assert word in notes
    assert second.fit.criterion == pytest.approx(blm.LMM("distance ~ age + (1 | Subject)", growth()).fit("ML").criterion, abs=1e-7)


def test_what_is_left_out_keeps_the_lines_of_errors() -> None:
    with pytest.raises(FormulaError, match="line 5"):
        blm.proc_mixed("data a;\n set b;\nrun;\nproc mixed;\n modle y = x;\nrun;", growth())


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("%let a = b; %let c = &a.d; z &c;", "z bd;"),
        (" " * 5000 + "/* a */" * 500, "/* a */" * 500),
        ("%LET A=1;y &a &A;", "y 1 1;"),
        ("y '&a';", "y '&a';"),
        ("data q; input x; cards4;\n1;\n;;;;\nrun; z;", "z;"),
        ("proc glm; model y = x; title 'T'; quit; z;", "title 'T'; z;"),
        ("/* data a; */ z;", "/* data a; */ z;"),
    ],
)
def test_surroundings(text: str, kept: str) -> None:
    assert " ".join(prepare_text(text).text.split()) == kept


def test_a_macro_variable_without_a_value_is_named() -> None:
    for program in ("proc mixed; model distance = &age; run;", "proc mixed; where age > 3 &age < 9; model distance = age; run;"):
        with pytest.raises(SpecificationError, match="macro variable age has no value"):
            blm.proc_mixed(program, growth())
    with pytest.raises(SpecificationError, match="macro language"):
        blm.proc_mixed("%macro a; proc mixed; model distance = age; run; %mend;", growth())
    with pytest.raises(FormulaError, match="no PROC MIXED"):
        blm.proc_mixed("proc sort data=a; run;", growth())


@pytest.mark.parametrize("bad", ["first", "last"])
def test_a_by_group_that_cannot_be_fitted_loses_only_itself(bad: str) -> None:
    frame = growth().assign(site=lambda d: np.where(d["Sex"] == "Male", "b", "c"), distance=lambda d: d["distance"].astype(float))
    spoilt = frame[frame["Subject"].isin(["M01", "F01"])].assign(site="a" if bad == "first" else "d", distance=3.0)
    program = STEP.format("", "", "by site;")
    with pytest.warns(BayesLMMWarning, match="1 of 3 BY groups could not be fitted: site="):
        result = blm.proc_mixed(program, pd.concat([frame, spoilt]))
    alone = blm.proc_mixed(program, frame)
    assert result["CovParms"].equals(alone["CovParms"])
    assert set(result.fit) == {"b", "c"}
    name = spoilt["site"].iloc[0]
    assert any(f"site={name} is left out" in note and "constant" in note for note in result.notes)
    assert f"ERROR: site={name}" in result.listing
    with pytest.raises(DesignError, match="constant") as caught:
        blm.proc_mixed(program, spoilt)
    assert f"site={name}" in caught.value.where


def test_what_is_not_identified_is_fitted_on_request() -> None:
    frame = growth().groupby("Subject", observed=True).head(1)
    program = STEP.format("", "", "")
    with pytest.raises(IdentifiabilityError):
        blm.proc_mixed(program, frame)
    with pytest.warns(BayesLMMWarning):
        result = blm.proc_mixed(program, frame, check="warn")
    assert result["CovParms"]["Estimate"].sum() > 0
    with pytest.raises(SpecificationError, match="check"):
        blm.proc_mixed(program, frame, check="no")  # type: ignore[arg-type]


def test_output_columns_that_are_not_there_are_named() -> None:
    with pytest.raises(SpecificationError, match="KEEP= names nope"):
        blm.proc_mixed(STEP.format("", "/ outp=p(keep=nope)", ""), growth())
    table = blm.proc_mixed(STEP.format("", "/ outpm=p(drop=pred sex)", ""), growth())["p"]
    assert "Pred" not in table and "Sex" not in table and "Resid" in table


def test_nofullz_changes_nothing_since_levels_that_do_not_occur_have_no_columns() -> None:
    text = "proc mixed; class Subject Sex; model distance = age Sex; random int age / sub=Subject type=vc {}; run;"
    plain, asked = (blm.proc_mixed(text.format(option), growth()) for option in ("", "nofullz"))
    assert plain["CovParms"].equals(asked["CovParms"])


DATA_SET = "proc mixed data=d({}); class Subject Sex; model distance = age Sex / s; random int / subject=Subject; {} run;"


def _chosen(frame: pd.DataFrame) -> pd.DataFrame:
    return blm.proc_mixed(DATA_SET.format("", ""), frame)["SolutionF"]


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ("keep=Subject sex age distance", lambda d: d),
        ("drop=extra", lambda d: d),
        ("firstobs=5 obs=80", lambda d: d.iloc[4:80]),
        ("obs=max firstobs=9", lambda d: d.iloc[8:]),
        ("where=(age > 8) obs=60", lambda d: d[d["age"] > 8].iloc[:60]),
    ],
)
def test_data_set_options_choose_rows_and_columns(options: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    frame = growth().assign(extra=1.0)
    pd.testing.assert_frame_equal(blm.proc_mixed(DATA_SET.format(options, ""), frame)["SolutionF"], _chosen(change(frame)))


def test_columns_are_renamed_before_a_condition_is_read() -> None:
    frame = growth()
    given = frame.rename(columns={"distance": "y0", "age": "YEARS"})
    options = "rename=(y0=distance years=age) where=(age > 8)"
    found = blm.proc_mixed(DATA_SET.format(options, ""), given)
    pd.testing.assert_frame_equal(found["SolutionF"], _chosen(frame[frame["age"] > 8]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("keep=Subject nope", "KEEP= names nope"),
        ("drop=nope", "DROP= names nope"),
        ("rename=(nope=age)", "RENAME= names nope"),
        ("rename=(Sex=age)", "second column age"),
        ("keep=Subject Sex age", "no column distance"),
        ("firstobs=5000", "leaves no row"),
        ("obs=5 obs=6", "given twice"),
    ],
)
def test_data_set_options_that_cannot_be_met_are_refused(options: str, says: str) -> None:
    with pytest.raises(BayesLMMError, match=says):
        blm.proc_mixed(DATA_SET.format(options, ""), growth())


def test_groups_that_stand_together_need_no_order() -> None:
    frame = growth().sort_values("Sex", ascending=False, kind="stable")
    text = "proc mixed; class Subject; model distance = age / s; random int / subject=Subject; by Sex {}; run;"
    given, by_value = (blm.proc_mixed(text.format(word), frame)["SolutionF"] for word in ("notsorted", ""))
    assert given["Sex"].tolist() == by_value["Sex"].tolist()[::-1]
    keys = ["Sex", "Effect"]
    pd.testing.assert_frame_equal(given.sort_values(keys, ignore_index=True), by_value.sort_values(keys, ignore_index=True))
    with pytest.raises(DataError, match="do not stand together"):
        blm.proc_mixed(text.format("notsorted"), growth().sample(frac=1.0, random_state=1))


@pytest.mark.parametrize("words", ["Sex(descending)", "Sex(desc) Subject(ref=first)", "Sex / descending"])
def test_descending_levels_have_the_first_as_their_reference(words: str) -> None:
    text = "proc mixed; class {} {}; model distance = age Sex / s; random int / subject=Subject; run;"
    rest = "" if "Subject" in words or "/" in words else "Subject"
    words = words.replace("Sex /", "Subject Sex /")
    found = blm.proc_mixed(text.format(rest, words), growth())
    sex = found["SolutionF"].loc[found["SolutionF"]["Effect"] == "Sex"]
    assert sex["Sex"].tolist() == ["Male", "Female"]
    assert sex["Estimate"].tolist()[1] == 0.0
    plain = _chosen(growth())
    assert sex["Estimate"].tolist()[0] == pytest.approx(-plain.loc[plain["Effect"] == "Sex", "Estimate"].tolist()[0], rel=1e-9)
