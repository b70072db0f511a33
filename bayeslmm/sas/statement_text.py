"""Names, numbers, effects, conditions and the statements about means, as SAS writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bayeslmm.sas.language.effects import INTERCEPT_EFFECT, SASEffect
from bayeslmm.sas.language.program import LSMeansStatement, LSMEstimateRow, LSMEstimateStatement, SliceStatement
from bayeslmm.sas.language.where import (
    BooleanCondition,
    ColumnReference,
    Condition,
    ConstantValue,
    FunctionCall,
    InList,
    IsTrue,
    Negation,
    Operand,
    WhereComparison,
)

_PLAIN_NAME = re.compile(r"[A-Za-z_]\w{0,31}\Z", re.ASCII)


def sas_name(name: str) -> str:
    return name if _PLAIN_NAME.match(name) else sas_quoted(name) + "n"


def sas_quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sas_number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def effect_words(effect: SASEffect) -> str:
    if effect == INTERCEPT_EFFECT:
        return "intercept"
    nested = f"({' '.join(map(sas_name, effect.nested))})" if effect.nested else ""
    return "*".join(map(sas_name, effect.crossed)) + nested


def flag_words(**options: bool) -> Iterator[str]:
    yield from (name for name, said in options.items() if said)


def limit_words(cl: bool, alpha: float) -> Iterator[str]:
    yield from ["cl"] if cl else []
    yield from [f"alpha={sas_number(alpha)}"] if alpha != 0.05 else []


def lsmeans_words(means: LSMeansStatement) -> Iterator[str]:
    if means.diff is not None:
        controls = f"({' '.join(map(sas_quoted, means.controls))})" if means.controls else ""
        yield "diff" if means.diff == "all" else f"diff={means.diff}{controls}"
    yield from [f"adjust={means.adjust}"] if means.adjust != "none" else []
    yield from [f"adjdfe={means.adjdfe}"] if means.adjdfe != "source" else []
    yield from flag_words(bylevel=means.bylevel, om=means.om, e=means.e, cov=means.cov, corr=means.corr)
    yield from (f"at {sas_name(name)}={sas_number(value)}" for name, value in means.at)
    yield from ["at means"] if means.at_means else []
    yield from [f"slice=({' '.join(map(effect_words, means.slice))})"] if means.slice else []
    yield from [f"df={sas_number(means.df)}"] if means.df is not None else []
    yield from limit_words(means.cl, means.alpha)


def slice_words(statement: SliceStatement) -> Iterator[str]:
    """Options of SLICE."""
    yield from [f"sliceby=({' '.join(map(effect_words, statement.by))})"] if statement.by else []
    yield from flag_words(nof=statement.nof, means=statement.means_shown)
    yield from lsmeans_words(statement.means)


def lsmestimate_words(statement: LSMEstimateStatement) -> Iterator[str]:
    """Options of LSMESTIMATE."""
    yield from lsmeans_words(statement.means)
    yield from flag_words(joint=statement.joint, chisq=statement.chisq)
    yield from [statement.tail] if statement.tail else []
    yield from [f"testvalue=({' '.join(map(sas_number, statement.testvalue))})"] if statement.testvalue else []


def lsmestimate_row(row: LSMEstimateRow) -> str:
    """`'label' 1 -1 divisor=2`."""
    label = [sas_quoted(row.label)] if row.label else []
    at = [f"[{sas_number(c.value)}, {' '.join(map(str, c.levels))}]" for c in row.levels]
    divisor = [f"divisor={sas_number(row.divisor)}"] if row.divisor != 1.0 else []
    return " ".join([*label, *map(sas_number, row.values), *at, *divisor])


_SIGNS = {"+", "-", "*", "/", "**", "||"}


def condition_text(condition: Condition) -> str:
    """A WHERE condition as SAS writes it, in parentheses wherever it has parts."""
    match condition:
        case WhereComparison(op, left, right, beginning):
            return f"{_operand(left)} {op}{':' if beginning else ''} {_operand(right)}"
        case InList(left, values, beginning):
            return f"{_operand(left)} in{':' if beginning else ''} ({', '.join(_operand(ConstantValue(v)) for v in values)})"
        case IsTrue(operand):
            return _operand(operand)
        case Negation(part):
            return f"not ({condition_text(part)})"
        case BooleanCondition(op, parts):
            return f" {op} ".join(f"({condition_text(part)})" for part in parts)


def _operand(operand: Operand) -> str:
    match operand:
        case ColumnReference(name):
            return sas_name(name)
        case FunctionCall(name, arguments):
            shown = [_operand(argument) for argument in arguments]
            return f"({f' {name} '.join(shown)})" if name in _SIGNS else f"{name}({', '.join(shown)})"
        case ConstantValue(value):
            return "." if value is None else sas_quoted(value) if isinstance(value, str) else sas_number(value)
