"""LSMESTIMATE and SLICE: the statements that are about least-squares means, read with the options that LSMEANS has."""

from __future__ import annotations

from typing import Any

from bayeslmm.sas.language.effect_options import LSMEANS_OPTIONS, lsmeans_values
from bayeslmm.sas.language.effects import parse_effect
from bayeslmm.sas.language.options import (
    OptionTable,
    RefusedOption,
    StatementOption,
    after_equals,
    constant_value,
    read_flag,
    read_many,
    read_nonzero,
    read_number_value,
    read_slices,
    slash_options,
)
from bayeslmm.sas.language.program import LevelCoefficient, LSMeansStatement, LSMEstimateRow, LSMEstimateStatement, SliceStatement
from bayeslmm.sas.language.tokens import SASCursor

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
    spot = cursor.here()
    effect = parse_effect(cursor)
    rows = [_row(cursor)]
    while cursor.accept(","):
        rows.append(_row(cursor))
    values = slash_options(cursor, LSMESTIMATE_OPTIONS)
    own: dict[str, Any] = {name: values.pop(name) for name in ("divisor", "joint", "chisq", "tail", "testvalue") if name in values}
    shared = own.pop("divisor", ())
    for name, given in (("DIVISOR", shared), ("TESTVALUE", own.get("testvalue", ()))):
        if len(given) > len(rows):
            cursor.fail(f"{name}= gives {len(given)} values for {len(rows)} rows")
    rows = [LSMEstimateRow(r.label, r.values, r.levels, r.divisor * (shared[i] if i < len(shared) else 1.0)) for i, r in enumerate(rows)]
    adjust = values.pop("adjust", "none")
    means = LSMeansStatement((effect,), adjust=adjust, **lsmeans_values(values), spot=spot)
    return LSMEstimateStatement(means, tuple(rows), **own)


def _row(cursor: SASCursor) -> LSMEstimateRow:
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
    spot = cursor.here()
    effect = parse_effect(cursor)
    values = slash_options(cursor, SLICE_OPTIONS)
    own: dict[str, Any] = {name: values.pop(name) for name in ("by", "nof", "means_shown") if name in values}
    return SliceStatement(LSMeansStatement((effect,), **lsmeans_values(values), spot=spot), **own)
