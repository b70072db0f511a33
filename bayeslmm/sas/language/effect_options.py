"""The options of RANDOM, REPEATED, LSMEANS, ESTIMATE, CONTRAST and PARMS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bayeslmm.sas.language.covariance_types import parse_type
from bayeslmm.sas.language.options import (
    Option,
    Refused,
    Table,
    after_equals,
    block_numbers,
    constant,
    flag,
    fraction,
    listed,
    nonzero,
    number,
    one_effect,
    one_of,
    positive,
    slices,
    whole,
)
from bayeslmm.sas.language.tokens import Cursor

_KNOWN_MATRIX = "a known matrix goes to LMM(..., relationship={name: matrix})"

_SUBJECT: Table = {
    "type": Option("type", after_equals(parse_type)),
    "subject": Option("subject", after_equals(one_effect)),
    "sub": Option("subject", after_equals(one_effect)),
    "group": Option("group", after_equals(one_effect)),
    "grp": Option("group", after_equals(one_effect)),
    "ldata": Refused(_KNOWN_MATRIX),
}


def _shown(**tables: str) -> Mapping[str, Option]:
    """Options that show a matrix of some subjects; the value is (ODS table, numbers of the subjects)."""

    def option(table: str) -> Option:
        return Option("shown", lambda cursor: ((table, block_numbers(cursor)),), gather=True)

    return {name: option(table) for name, table in tables.items()}


def _whole_matrix(**tables: str) -> Mapping[str, Option]:
    return {name: Option("shown", constant(((table, ()),)), gather=True) for name, table in tables.items()}


RANDOM: Table = {
    **_SUBJECT,
    **_whole_matrix(g="G", gcorr="GCorr", gi="InvG", gc="CholG", gci="InvCholG"),
    **_shown(v="V", vcorr="VCorr", vi="InvV", vc="CholV", vci="InvCholV"),
    "s": Option("solution", flag),
    "solution": Option("solution", flag),
    "cl": Option("cl", flag),
    "alpha": Option("alpha", after_equals(fraction)),
    "gdata": Refused(_KNOWN_MATRIX),
    "nofullz": Refused("levels that do not occur get no random effect here"),
    "ratios": Refused(_KNOWN_MATRIX),
}


def _local(cursor: Cursor) -> bool:
    token = cursor.token
    if cursor.accept("="):
        kind = cursor.word().upper()
        remedy = "LMM(..., variance='power(fitted)')" if kind == "POM" else "LMM(..., variance='exp(x)'), 'ident(a)' or a product of them"
        cursor.refuse_at(token, f"LOCAL={kind}(...) is not supported", remedy)
    return True


REPEATED: Table = {
    **_SUBJECT,
    **_shown(r="R", rcorr="RCorr", ri="InvR", rc="CholR", rci="InvCholR"),
    "local": Option("local", _local),
    "hlm": Refused("use the tests of fixed effects with ddfm=kr"),
    "hlps": Refused("use the tests of fixed effects with ddfm=kr"),
    "localw": Refused("WEIGHT applies to the whole of R"),
    "nolocalw": Refused("WEIGHT applies to the whole of R"),
    "nonlocalw": Refused("WEIGHT applies to the whole of R"),
    "sscp": Refused("leave it out"),
}

_ADJUST = {
    "bon": "bonferroni",
    "bonferroni": "bonferroni",
    "dunnett": "dunnett",
    "scheffe": "scheffe",
    "sidak": "sidak",
    "simulate": "simulate",
    "smm": "smm",
    "gt2": "smm",
    "t": "none",
    "tukey": "tukey",
}
_ADJUST_REFUSED = {"nelson": "adjust=tukey, bon, sidak, scheffe, smm, simulate or dunnett"}
_DIFFS = {"all": "all", "control": "control", "controll": "controll", "controlu": "controlu"}


def _adjust(cursor: Cursor) -> str:
    """`=method`; what stands in brackets steers a simulation, where the integral is computed."""
    method = str(after_equals(one_of(_ADJUST, _ADJUST_REFUSED))(cursor))
    if cursor.accept("("):
        while not cursor.accept(")"):
            if cursor.at_end:
                cursor.fail("this bracket is not closed")
            cursor.take()
    return method


def _diff(cursor: Cursor) -> tuple[str, tuple[str, ...]]:
    """Nothing, `=all`, `=control`, `=control('a' 'b')`."""
    if not cursor.accept("="):
        return "all", ()
    kind = str(one_of(_DIFFS, {"anom": "compare each mean with CONTRAST"})(cursor))
    if kind == "all" or not cursor.accept("("):
        return kind, ()
    levels: list[str] = []
    while not cursor.accept(")"):
        levels.append(cursor.take().text if cursor.token.kind in {"string", "name", "number"} else cursor.label())
    return kind, tuple(levels)


def _at(cursor: Cursor) -> tuple[tuple[str, float | None], ...]:
    """`MEANS`, `x=3`, or `(x z)=(1 2)`; MEANS is the pair ("", None)."""
    if cursor.sees_word("means"):
        cursor.take()
        return (("", None),)
    start = cursor.token
    names = cursor.bracketed(lambda: _names(cursor)) if cursor.sees("(") else (cursor.name(),)
    cursor.expect("=")
    values = listed(number)(cursor) if cursor.sees("(") else (cursor.number(),)
    if len(names) != len(values):
        cursor.fail_at(start, f"AT names {len(names)} covariates and gives {len(values)} values")
    return tuple(zip(names, values, strict=True))


def _names(cursor: Cursor) -> tuple[str, ...]:
    names = [cursor.name()]
    while not cursor.sees(")"):
        cursor.accept(",")
        names.append(cursor.name())
    return tuple(names)


def _margins(cursor: Cursor) -> bool:
    token = cursor.token
    if cursor.accept("="):
        remedy = "OM alone takes the margins of the data that are analysed"
        cursor.refuse_at(token, "the margins of another data set (OM=) are not supported", remedy)
    return True


LSMEANS: Table = {
    "diff": Option("diff", _diff),
    "diffs": Option("diff", _diff),
    "pdiff": Option("diff", _diff),
    "adjust": Option("adjust", _adjust),
    "adj": Option("adjust", _adjust),
    "cl": Option("cl", flag),
    "alpha": Option("alpha", after_equals(fraction)),
    "at": Option("at", _at, gather=True),
    "bylevel": Option("bylevel", flag),
    "om": Option("om", _margins),
    "obsmargins": Option("om", _margins),
    "e": Option("e", flag),
    "df": Option("df", after_equals(positive)),
    "slice": Option("slice", slices, gather=True),
    "cov": Option("cov", flag),
    "corr": Option("corr", flag),
    "adjdfe": Option("adjdfe", after_equals(one_of({"source": "source", "row": "row"}))),
    "singular": Refused("leave it out"),
}

_VALUES = after_equals(listed(number))


def _plain_list(cursor: Cursor) -> tuple[float, ...]:
    """Numbers after SUBJECT or GROUP, with or without `=`."""
    return tuple(_VALUES(cursor) if cursor.sees("=") else listed(number)(cursor))


_COEFFICIENTS: Table = {
    "df": Option("df", after_equals(positive)),
    "e": Option("e", flag),
    "subject": Option("subject", _plain_list),
    "group": Option("group", _plain_list),
    "grp": Option("group", _plain_list),
    "singular": Refused("leave it out: estimability is judged at 1e-4, as in SAS"),
}

ESTIMATE: Table = {
    **_COEFFICIENTS,
    "divisor": Option("divisor", after_equals(nonzero)),
    "cl": Option("cl", flag),
    "alpha": Option("alpha", after_equals(fraction)),
    "lower": Option("tail", constant("lower")),
    "lowertailed": Option("tail", constant("lower")),
    "upper": Option("tail", constant("upper")),
    "uppertailed": Option("tail", constant("upper")),
}

CONTRAST: Table = {**_COEFFICIENTS, "chisq": Option("chisq", flag)}

_PARMS_BOUND = "variances stay at or above 0 and correlations below 1 by construction"

PARMS: Table = {
    "hold": Option("hold", after_equals(listed(whole))),
    "eqcons": Option("hold", after_equals(listed(whole))),
    "noiter": Option("noiter", flag),
    "lowerb": Refused(_PARMS_BOUND),
    "upperb": Refused(_PARMS_BOUND),
    "nobound": Refused(_PARMS_BOUND),
    "noprofile": Refused("leave it out"),
    "ols": Refused("give the starting values"),
    "parmsdata": Refused("write the values in the PARMS statement"),
    "pdata": Refused("write the values in the PARMS statement"),
    "ratios": Refused("give the variances themselves"),
}


def matrix_values(values: dict[str, Any], blocks: str) -> dict[str, Any]:
    """The fields of `Random` and `Repeated` from their options: the matrices shown, and the subjects of which they are shown."""
    shown: tuple[tuple[str, tuple[int, ...]], ...] = values.pop("shown", ())
    if shown:
        values["displays"] = tuple(dict.fromkeys(table for table, _ in shown))
        if numbers := tuple(dict.fromkeys(n for _, group in shown for n in group)):
            values[blocks] = numbers
    return values


def limits_values(values: dict[str, Any]) -> dict[str, Any]:
    """ALPHA= alone asks for the limits as well."""
    if "alpha" in values:
        values.setdefault("cl", True)
    return values


def lsmeans_values(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of `LSMeans` from its options: DIFF= gives two, AT MEANS is a field of its own, ADJUST= asks for differences."""
    if "diff" in values:
        values["diff"], values["controls"] = values["diff"]
    elif values.get("adjust", "none") != "none":
        values["diff"] = "control" if values["adjust"] == "dunnett" else "all"
    limits_values(values)
    at = values.pop("at", ())
    if any(value is None for _, value in at):
        values["at_means"] = True
    if given := tuple((name, value) for name, value in at if value is not None):
        values["at"] = given
    return values
