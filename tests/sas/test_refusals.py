"""What is not supported is refused by its name, with the spot and a way out."""

from __future__ import annotations

import pytest

from bayeslmm.errors import DataError, FormulaError, SpecificationError
from bayeslmm.sas.language.statements import parse_program
from bayeslmm.sas.translate import translate

HEAD = "proc mixed; class a b id v; model y = a x"

UNSUPPORTED = {
    "macro variable": "proc mixed data=&d; model y=x; run;",
    "EMPIRICAL=MBN": "proc mixed empirical=mbn; model y=x; run;",
    "INDSNAME": "proc mixed data=a(indsname=x); model y=x; run;",
    "TRUNCATE": "proc mixed; class a / truncate; model y=a; run;",
    "one response": "proc mixed; model y z = x; run;",
    "LDATA": f"{HEAD}; repeated / type=lin(1) ldata=k subject=id; run;",
    "TYPE=SP(EXPA)": f"{HEAD}; repeated / type=sp(expa)(x) subject=id; run;",
    "LOCAL=POM": f"{HEAD}; repeated / local=pom(p); run;",
    "HLM": f"{HEAD}; repeated v / subject=id type=un hlm; run;",
    "NELSON": f"{HEAD}; lsmeans a / adjust=nelson; run;",
    "ANOM": f"{HEAD}; lsmeans a / diff=anom; run;",
    "OM": f"{HEAD}; lsmeans a / om=other; run;",
    "coefficients by level": f"{HEAD}; estimate 'a' a [1, 2] [-1, 3]; run;",
    "STEPDOWN": f"{HEAD}; lsmestimate a 1 -1 / adjust=bon stepdown; run;",
    "ELSM": f"{HEAD}; lsmestimate a 1 -1 / elsm; run;",
    "PRIOR": f"{HEAD}; prior / out=p; run;",
    "GROUPFORMAT": f"{HEAD}; by b groupformat; run;",
    "LOWERB": f"{HEAD}; parms (1) / lowerb=0; run;",
    "function PUT": f"{HEAD}; where put(a, 8.) = 'B'; run;",
    "literal": f"{HEAD}; where x > '01'x; run;",
    "x--z": f"{HEAD}; random x--z / type=toep(1); run;",
    "OBS": "options obs=100; proc mixed; model y=x; run;",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_program(UNSUPPORTED[name])
    said = caught.value.what.upper()
    assert all(word in said.replace("(A--B)", "X--Z") for word in name.upper().split() if word not in {"FUNCTION", "ONE"})
    assert caught.value.where.startswith("line 1, column")
    assert caught.value.remedy


NOT_SAS = {
    "no semicolon": "proc mixed; model y = x",
    "no model": "proc mixed; class a; run;",
    "no step": "model y = x;",
    "empty": "",
    "unknown statement": "proc mixed; modle y = x; run;",
    "unknown option": "proc mixed; model y = x / slution; run;",
    "two models": "proc mixed; model y = x; model y = z; run;",
    "random before model": "proc mixed; random id; model y = x; run;",
    "class after model": "proc mixed; model y = x; class a; run;",
    "statement after run": "proc mixed; model y = x; run; lsmeans a;",
    "open quote": "proc mixed; model y = x; estimate 'a x 1; run;",
    "open comment": "proc mixed; model y = x; /* run;",
    "label missing": "proc mixed; model y = x; estimate x 1; run;",
    "no coefficients": "proc mixed; model y = x; estimate 'a' x; run;",
    "unknown structure": "proc mixed; model y = x; random int / type=ar sub=id; run;",
    "structure with a wrong order": "proc mixed; model y = x; random int / type=ar(2) sub=id; run;",
    "a product of others": "proc mixed; model y = x; repeated a b / type=cs@un sub=id; run;",
    "spatial without coordinates": "proc mixed; model y = x; repeated / type=sp(pow) sub=id; run;",
    "alpha beyond 1": "proc mixed alpha=5; model y = x; run;",
    "nested in itself": "proc mixed; class a; model y = a(a); run;",
    "option twice": "proc mixed; model y = x / ddfm=kr ddfm=bw; run;",
    "class twice": "proc mixed; class a a; model y = a; run;",
    "htype 4": "proc mixed; model y = x / htype=4; run;",
    "a name that is a number": "proc mixed; model y = 2x; run;",
    "at without values": "proc mixed; class a; model y = a x; lsmeans a / at (x)=(1 2); run;",
    "random without effects": "proc mixed; model y = x; random / subject=id; run;",
    "divisor 0": "proc mixed; model y = x; estimate 'a' x 1 / divisor=0; run;",
    "a foreign character": "proc mixed; model y = x \\ z; run;",
}


@pytest.mark.parametrize("name", NOT_SAS)
def test_text_that_is_not_sas_is_shown_where_it_fails(name: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_program(NOT_SAS[name])
    assert caught.value.what
    assert "line 1, column" in caught.value.where


UNTRANSLATABLE = {
    "is not a class": "proc mixed; class id; model y = x; repeated time / subject=id type=ar(1); run;",
    "single realisation": "proc mixed; model y = x; random z; run;",
    "linearly dependent": "proc mixed; class id a; model y = x; random int a / subject=id type=un; run;",
    "needs the levels of a": "proc mixed; class id a; model y = x; random int / subject=id group=a; run;",
    "two effects": "proc mixed; class id a v; model y = x; repeated v / subject=id type=un@ar(1); run;",
    "at most one effect": "proc mixed; class id a v; model y = x; repeated a v / subject=id type=un; run;",
    "LOCAL adds": "proc mixed; class id; model y = x; repeated / subject=id local; run;",
    "EMPIRICAL cannot be combined": "proc mixed empirical; model y = x / ddfm=kr; run;",
    "LSMEANS: b is not an effect": "proc mixed; class a b; model y = a; lsmeans b; run;",
    "LSMEANS: x has a continuous": "proc mixed; class a; model y = a x; lsmeans x; run;",
    "AT names z": "proc mixed; class a; model y = a x; lsmeans a / at z=1; run;",
    "ESTIMATE 'e': b is not an effect": "proc mixed; class a b; model y = a; estimate 'e' b 1 -1; run;",
    "CONTRAST 'c': the intercept is not": "proc mixed; class a; model y = a / noint; contrast 'c' intercept 1; run;",
    "the RANDOM statement": "proc mixed; class a id; model y = a; random id; estimate 'e' a 1 | a 1; run;",
    "the response y is a CLASS": "proc mixed; class y; model y = x; run;",
    "an effect of the model too": "proc mixed; model y = y x; run;",
    "DDF= gives 2 values": "proc mixed; model y = x / ddf=1,2; run;",
    "not supported in RANDOM": "proc mixed; class id; model y = x; random int / subject=id type=sp(pow)(t); run;",
    "nested within a variable": "proc mixed; class a; model y = a(x); run;",
}


@pytest.mark.parametrize("what", UNTRANSLATABLE)
def test_what_cannot_be_said_here_is_refused_by_name(what: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        translate(UNTRANSLATABLE[what])
    assert what in caught.value.what
    assert "line 1, column" in caught.value.where
    assert caught.value.remedy


def test_a_column_that_is_not_there_is_named_with_its_neighbours() -> None:
    with pytest.raises(DataError) as caught:
        translate("proc mixed; class USUBJID; model chg = vsit; random int / subject=usubjid; run;", columns=["usubjid", "CHG", "VISIT"])
    assert caught.value.what == "there is no column vsit"
    assert caught.value.where == "the MODEL statement"
    assert "visit" in caught.value.remedy
