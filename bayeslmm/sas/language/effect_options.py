"""The options of RANDOM, REPEATED, LSMEANS, ESTIMATE, CONTRAST and PARMS; the statements LSMESTIMATE and SLICE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from bayeslmm.sas.language.covariance_types import parse_type
from bayeslmm.sas.language.effects import SASEffect, parse_effect, parse_effects
from bayeslmm.sas.language.options import (
    OptionTable,
    RefusedOption,
    StatementOption,
    after_equals,
    constant_value,
    read_block_numbers,
    read_dataset,
    read_effect,
    read_flag,
    read_fraction,
    read_many,
    read_nonzero,
    read_number_value,
    read_one_of,
    read_positive,
    read_slices,
    read_whole,
    slash_options,
)
from bayeslmm.sas.language.program import Diff, LevelCoefficient, LSMeansStatement, LSMEstimateRow, LSMEstimateStatement, SliceStatement
from bayeslmm.sas.language.tokens import SASCursor

_SUBJECT: OptionTable = {
    "type": StatementOption("type", after_equals(parse_type)),
    "subject": StatementOption("subject", after_equals(read_effect)),
    "sub": StatementOption("subject", after_equals(read_effect)),
    "group": StatementOption("group", after_equals(read_effect)),
    "grp": StatementOption("group", after_equals(read_effect)),
}


def _matrix_displays(**tables: str) -> Mapping[str, StatementOption]:
    """Options that show a matrix of some subjects; the value is (ODS table, numbers of the subjects)."""

    def option(table: str) -> StatementOption:
        return StatementOption("shown", lambda cursor: ((table, read_block_numbers(cursor)),), gather=True)

    return {name: option(table) for name, table in tables.items()}


def _whole_matrix(**tables: str) -> Mapping[str, StatementOption]:
    return {name: StatementOption("shown", constant_value(((table, ()),)), gather=True) for name, table in tables.items()}


RANDOM_OPTIONS: OptionTable = {
    **_SUBJECT,
    **_whole_matrix(g="G", gcorr="GCorr", gi="InvG", gc="CholG", gci="InvCholG"),
    **_matrix_displays(v="V", vcorr="VCorr", vi="InvV", vc="CholV", vci="InvCholV"),
    "s": StatementOption("solution", read_flag),
    "solution": StatementOption("solution", read_flag),
    "cl": StatementOption("cl", read_flag),
    "alpha": StatementOption("alpha", after_equals(read_fraction)),
    "gdata": StatementOption("gdata", after_equals(read_dataset)),
    "ldata": StatementOption("ldata", after_equals(read_dataset)),
    "nofullz": StatementOption("nofullz", read_flag),
    "ratios": StatementOption("ratios", read_flag),
}


def _local(cursor: SASCursor) -> bool | tuple[SASEffect, ...]:
    """Nothing, or `=exp(x a)`: the effects of the log of the variance."""
    token = cursor.token
    if not cursor.accept("="):
        return True
    kind = cursor.word()
    if kind != "exp":
        cursor.not_supported_at(token, f"LOCAL={kind.upper()}(...) is not supported", "LMM(..., variance='power(fitted)')")
    effects = cursor.in_brackets(lambda: parse_effects(cursor))
    if not effects:
        cursor.fail_at(token, "LOCAL=EXP() names no effect", "local=exp(x)")
    return effects


REPEATED_OPTIONS: OptionTable = {
    **_SUBJECT,
    **_matrix_displays(r="R", rcorr="RCorr", ri="InvR", rc="CholR", rci="InvCholR"),
    "local": StatementOption("local", _local),
    "ldata": RefusedOption("known matrices are those of a random effect: random id / type=lin(1) ldata=a"),
    "hlm": RefusedOption("use the tests of fixed effects with ddfm=kr"),
    "hlps": RefusedOption("use the tests of fixed effects with ddfm=kr"),
    "localw": RefusedOption("WEIGHT applies to the whole of R"),
    "nolocalw": RefusedOption("WEIGHT applies to the whole of R"),
    "nonlocalw": RefusedOption("WEIGHT applies to the whole of R"),
    "sscp": RefusedOption("leave it out"),
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


def _adjust(cursor: SASCursor) -> str:
    """`=method`; what stands in brackets steers a simulation, where the integral is computed."""
    method = str(after_equals(read_one_of(_ADJUST, _ADJUST_REFUSED))(cursor))
    if cursor.accept("("):
        while not cursor.accept(")"):
            if cursor.at_end:
                cursor.fail("this bracket is not closed")
            cursor.take()
    return method


def _diff(cursor: SASCursor) -> tuple[str, tuple[str, ...]]:
    """Nothing, `=all`, `=control`, `=control('a' 'b')`."""
    if not cursor.accept("="):
        return "all", ()
    kind = str(read_one_of({word: word for word in get_args(Diff)}, {"anom": "compare each mean with CONTRAST"})(cursor))
    if kind == "all" or not cursor.accept("("):
        return kind, ()
    levels: list[str] = []
    while not cursor.accept(")"):
        levels.append(cursor.take().text if cursor.token.kind in {"string", "name", "number"} else cursor.label())
    return kind, tuple(levels)


def _at(cursor: SASCursor) -> tuple[tuple[str, float | None], ...]:
    """`MEANS`, `x=3`, or `(x z)=(1 2)`; MEANS is the pair ("", None)."""
    if cursor.sees_word("means"):
        cursor.take()
        return (("", None),)
    start = cursor.token
    names = cursor.in_brackets(lambda: _names(cursor)) if cursor.sees("(") else (cursor.name(),)
    cursor.expect("=")
    values = read_many(read_number_value)(cursor) if cursor.sees("(") else (cursor.number(),)
    if len(names) != len(values):
        cursor.fail_at(start, f"AT names {len(names)} covariates and gives {len(values)} values")
    return tuple(zip(names, values, strict=True))


def _names(cursor: SASCursor) -> tuple[str, ...]:
    names = [cursor.name()]
    while not cursor.sees(")"):
        cursor.accept(",")
        names.append(cursor.name())
    return tuple(names)


def _margins(cursor: SASCursor) -> bool:
    token = cursor.token
    if cursor.accept("="):
        remedy = "OM alone takes the margins of the data that are analysed"
        cursor.not_supported_at(token, "the margins of another data set (OM=) are not supported", remedy)
    return True


LSMEANS_OPTIONS: OptionTable = {
    "diff": StatementOption("diff", _diff),
    "diffs": StatementOption("diff", _diff),
    "pdiff": StatementOption("diff", _diff),
    "adjust": StatementOption("adjust", _adjust),
    "adj": StatementOption("adjust", _adjust),
    "cl": StatementOption("cl", read_flag),
    "alpha": StatementOption("alpha", after_equals(read_fraction)),
    "at": StatementOption("at", _at, gather=True),
    "bylevel": StatementOption("bylevel", read_flag),
    "om": StatementOption("om", _margins),
    "obsmargins": StatementOption("om", _margins),
    "e": StatementOption("e", read_flag),
    "df": StatementOption("df", after_equals(read_positive)),
    "slice": StatementOption("slice", read_slices, gather=True),
    "cov": StatementOption("cov", read_flag),
    "corr": StatementOption("corr", read_flag),
    "adjdfe": StatementOption("adjdfe", after_equals(read_one_of({"source": "source", "row": "row"}))),
    "singular": RefusedOption("leave it out"),
}

_VALUES = after_equals(read_many(read_number_value))


def _plain_list(cursor: SASCursor) -> tuple[float, ...]:
    """Numbers after SUBJECT or GROUP, with or without `=`."""
    return tuple(_VALUES(cursor) if cursor.sees("=") else read_many(read_number_value)(cursor))


_COEFFICIENTS: OptionTable = {
    "df": StatementOption("df", after_equals(read_positive)),
    "e": StatementOption("e", read_flag),
    "subject": StatementOption("subject", _plain_list),
    "group": StatementOption("group", _plain_list),
    "grp": StatementOption("group", _plain_list),
    "singular": RefusedOption("leave it out: estimability is judged at 1e-4, as in SAS"),
}

ESTIMATE_OPTIONS: OptionTable = {
    **_COEFFICIENTS,
    "divisor": StatementOption("divisor", after_equals(read_nonzero)),
    "cl": StatementOption("cl", read_flag),
    "alpha": StatementOption("alpha", after_equals(read_fraction)),
    "lower": StatementOption("tail", constant_value("lower")),
    "lowertailed": StatementOption("tail", constant_value("lower")),
    "upper": StatementOption("tail", constant_value("upper")),
    "uppertailed": StatementOption("tail", constant_value("upper")),
}

CONTRAST_OPTIONS: OptionTable = {**_COEFFICIENTS, "chisq": StatementOption("chisq", read_flag)}

_PARMS_BOUND = "variances stay at or above 0 and correlations below 1 by construction"

PARMS_OPTIONS: OptionTable = {
    "hold": StatementOption("hold", after_equals(read_many(read_whole))),
    "eqcons": StatementOption("hold", after_equals(read_many(read_whole))),
    "noiter": StatementOption("noiter", read_flag),
    "lowerb": RefusedOption(_PARMS_BOUND),
    "upperb": RefusedOption(_PARMS_BOUND),
    "nobound": RefusedOption(_PARMS_BOUND),
    "noprofile": StatementOption("noprofile", read_flag),
    "ols": RefusedOption("give the starting values"),
    "parmsdata": RefusedOption("write the values in the PARMS statement"),
    "pdata": RefusedOption("write the values in the PARMS statement"),
    "ratios": RefusedOption("give the variances themselves"),
}


def matrix_values(values: dict[str, Any], blocks: str) -> dict[str, Any]:
    """The fields of `Random` and `Repeated` from their options: the matrices shown, of which subjects, the effects of LOCAL=EXP()."""
    if isinstance(values.get("local"), tuple):
        values["dispersion"] = values.pop("local")
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
    if held := tuple((name, value) for name, value in at if value is not None):
        values["at"] = held
    return values


_SETTING = ("adjust", "adj", "adjdfe", "alpha", "at", "bylevel", "cl", "df", "e", "om", "obsmargins", "singular")


def _joint(cursor: SASCursor) -> bool:
    """`joint`, or `joint(label='text')` with nothing else."""
    if cursor.sees("("):
        cursor.not_supported_at(cursor.token, "what stands in brackets after JOINT is not supported", "joint")
    return True


def _divisors(cursor: SASCursor) -> tuple[float, ...]:
    """`=2`, `=2,3` or `=(2 3)`."""
    return tuple(after_equals(read_many(read_nonzero))(cursor))


def _test_values(cursor: SASCursor) -> tuple[float, ...]:
    return tuple(after_equals(read_many(read_number_value))(cursor))


LSMESTIMATE_OPTIONS: OptionTable = {
    **{name: LSMEANS_OPTIONS[name] for name in _SETTING},
    "divisor": StatementOption("divisor", _divisors),
    "joint": StatementOption("joint", _joint),
    "ftest": StatementOption("joint", _joint),
    "chisq": StatementOption("chisq", read_flag),
    "lower": StatementOption("tail", constant_value("lower")),
    "lowertailed": StatementOption("tail", constant_value("lower")),
    "upper": StatementOption("tail", constant_value("upper")),
    "uppertailed": StatementOption("tail", constant_value("upper")),
    "testvalue": StatementOption("testvalue", _test_values),
    "testmean": StatementOption("testvalue", _test_values),
    "elsm": RefusedOption("E shows the coefficients of the parameters"),
    "stepdown": RefusedOption("ADJUST= without STEPDOWN"),
    "category": RefusedOption("it is of models with several responses"),
}

SLICE_OPTIONS: OptionTable = {
    **{name: option for name, option in LSMEANS_OPTIONS.items() if name not in {"slice", "cov", "corr"}},
    "sliceby": StatementOption("by", read_slices, gather=True),
    "nof": StatementOption("nof", read_flag),
    "means": StatementOption("means_shown", read_flag),
    "stepdown": RefusedOption("ADJUST= without STEPDOWN"),
}


def read_lsmestimate(cursor: SASCursor) -> LSMEstimateStatement:
    """LSMESTIMATE effect 'label' values divisor=n, 'label' values, ... / options."""
    spot = cursor.place()
    effect = parse_effect(cursor)
    rows = [_read_row(cursor)]
    while cursor.accept(","):
        rows.append(_read_row(cursor))
    values = slash_options(cursor, LSMESTIMATE_OPTIONS)
    own: dict[str, Any] = {name: values.pop(name) for name in ("divisor", "joint", "chisq", "tail", "testvalue") if name in values}
    shared = own.pop("divisor", ())
    for name, numbers in (("DIVISOR", shared), ("TESTVALUE", own.get("testvalue", ()))):
        if len(numbers) > len(rows):
            cursor.fail(f"{name}= gives {len(numbers)} values for {len(rows)} rows")
    rows = [LSMEstimateRow(r.label, r.values, r.levels, r.divisor * (shared[i] if i < len(shared) else 1.0)) for i, r in enumerate(rows)]
    adjust = values.pop("adjust", "none")
    means = LSMeansStatement((effect,), adjust=adjust, **lsmeans_values(values), spot=spot)
    return LSMEstimateStatement(means, tuple(rows), **own)


def _read_row(cursor: SASCursor) -> LSMEstimateRow:
    label = cursor.take().text if cursor.token.kind == "string" else ""
    values: list[float] = []
    levels: list[LevelCoefficient] = []
    start = cursor.token
    while not (cursor.at_options or cursor.sees(",") or cursor.sees_word("divisor")):
        if cursor.accept("["):
            value = cursor.number()
            cursor.accept(",")
            at = [cursor.integer()]
            while not cursor.sees("]"):
                cursor.accept(",")
                at.append(cursor.integer())
            cursor.expect("]")
            levels.append(LevelCoefficient(value, tuple(at)))
        else:
            values.append(cursor.number())
    if bool(values) == bool(levels):
        cursor.fail_at(start, "a row has one number for each mean, or numbers by level", "lsmestimate a 'A - C' 1 0 -1; or [1, 1] [-1, 3]")
    divisor = 1.0
    if cursor.sees_word("divisor"):
        cursor.take()
        divisor = after_equals(read_nonzero)(cursor)
    return LSMEstimateRow(label, tuple(values), tuple(levels), divisor)


def read_slice(cursor: SASCursor) -> SliceStatement:
    """SLICE effect / sliceby=a diff options."""
    spot = cursor.place()
    effect = parse_effect(cursor)
    values = slash_options(cursor, SLICE_OPTIONS)
    own: dict[str, Any] = {name: values.pop(name) for name in ("by", "nof", "means_shown") if name in values}
    return SliceStatement(LSMeansStatement((effect,), **lsmeans_values(values), spot=spot), **own)
