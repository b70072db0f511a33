"""One reader for each statement of PROC MIXED."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bayeslmm.errors import FormulaLimitError
from bayeslmm.spec.sas import effect_options, proc_options
from bayeslmm.spec.sas.cursor import Cursor
from bayeslmm.spec.sas.effects import Effect, parse_effect, parse_effects
from bayeslmm.spec.sas.options import read_options, slash_options
from bayeslmm.spec.sas.program import (
    By,
    ClassVariable,
    Coefficients,
    Contrast,
    Estimate,
    LSMeans,
    Model,
    Parms,
    Proc,
    Random,
    Repeated,
    Row,
)
from bayeslmm.spec.sas.where import Condition, parse_condition

MAX_PARMS = 100_000

_REFERENCE_WORDS = {"first", "last"}


def read_proc(cursor: Cursor) -> Proc:
    """PROC MIXED, its name already read."""
    spot = cursor.here()
    return Proc(**proc_options.proc_values(read_options(cursor, proc_options.PROC)), spot=spot)


def read_class(cursor: Cursor) -> tuple[ClassVariable, ...]:
    """CLASS a b(ref='x') / ref=first."""
    variables = list(cursor.until_options(lambda: _class_variable(cursor)))
    if not variables:
        cursor.fail("CLASS names no variable")
    if cursor.accept("/"):
        reference = _class_option(cursor)
        variables = [ClassVariable(v.name, *reference) if v.reference == "last" and not v.value else v for v in variables]
    cursor.finish()
    names = [v.name for v in variables]
    if twice := next((n for n in names if names.count(n) > 1), None):
        cursor.fail(f"CLASS names {twice} twice")
    return tuple(variables)


def _class_variable(cursor: Cursor) -> ClassVariable:
    name = cursor.name()
    return ClassVariable(name, *cursor.bracketed(lambda: _class_option(cursor))) if cursor.sees("(") else ClassVariable(name)


def _class_option(cursor: Cursor) -> tuple[Any, str]:
    token = cursor.token
    if cursor.word() != "ref":
        cursor.refuse_at(token, f"the option {token.text.upper()} of the CLASS statement is not supported", "REF= is; levels are not cut")
    cursor.expect("=")
    value = cursor.take()
    if value.kind == "name" and value.lower in _REFERENCE_WORDS:
        return value.lower, ""
    if value.kind not in {"string", "number"}:
        cursor.fail_at(value, "REF= takes FIRST, LAST or a quoted level")
    return "value", value.text.strip()


def read_model(cursor: Cursor) -> Model:
    """MODEL response = effects / options."""
    spot = cursor.here()
    start = cursor.token
    response = cursor.name("the response")
    if cursor.token.kind == "name" or cursor.sees("("):
        cursor.refuse_at(
            start, "MODEL has one response, a column as it is", "stack several responses in one column, with a class for which it is"
        )
    cursor.expect("=")
    effects = parse_effects(cursor)
    return Model(response, effects, **proc_options.model_values(slash_options(cursor, proc_options.MODEL)), spot=spot)


def read_random(cursor: Cursor) -> Random:
    """RANDOM effects / options."""
    spot = cursor.here()
    effects = parse_effects(cursor, intercept=True)
    if not effects:
        cursor.fail("RANDOM names no effect", "random intercept / subject=id;")
    values = effect_options.matrix_values(slash_options(cursor, effect_options.RANDOM), "v_blocks")
    return Random(effects, **effect_options.limits_values(values), spot=spot)


def read_repeated(cursor: Cursor) -> Repeated:
    """REPEATED effect / options."""
    spot = cursor.here()
    effects = parse_effects(cursor)
    values = effect_options.matrix_values(slash_options(cursor, effect_options.REPEATED), "blocks")
    return Repeated(effects, **values, spot=spot)


def read_lsmeans(cursor: Cursor) -> LSMeans:
    """LSMEANS effects / options."""
    spot = cursor.here()
    effects = parse_effects(cursor)
    if not effects:
        cursor.fail("LSMEANS names no effect")
    return LSMeans(effects, **effect_options.lsmeans_values(slash_options(cursor, effect_options.LSMEANS)), spot=spot)


def read_estimate(cursor: Cursor) -> Estimate:
    """ESTIMATE 'label' effect values ... | effect values ... / options."""
    spot = cursor.here()
    label = cursor.label()
    row = _row(cursor)
    if cursor.sees(","):
        cursor.fail("ESTIMATE has one row", "several rows are a CONTRAST, or several ESTIMATE statements")
    values = slash_options(cursor, effect_options.ESTIMATE)
    return Estimate(label, row, **effect_options.limits_values(values), spot=spot)


def read_contrast(cursor: Cursor) -> Contrast:
    """CONTRAST 'label' row, row, ... / options."""
    spot = cursor.here()
    label = cursor.label()
    rows = [_row(cursor)]
    while cursor.accept(","):
        rows.append(_row(cursor))
    return Contrast(label, tuple(rows), **slash_options(cursor, effect_options.CONTRAST), spot=spot)


def _row(cursor: Cursor) -> Row:
    fixed = _coefficients(cursor)
    random = _coefficients(cursor) if cursor.accept("|") else ()
    if not fixed and not random:
        cursor.fail("expected an effect and its coefficients here", "trt 1 -1 0")
    return Row(fixed, random)


def _coefficients(cursor: Cursor) -> tuple[Coefficients, ...]:
    found: dict[Effect, Coefficients] = {}
    while not (cursor.at_options or cursor.sees("|") or cursor.sees(",")):
        start = cursor.token
        effect = parse_effect(cursor, intercept=True)
        if cursor.sees("[") or cursor.sees("{"):
            cursor.refuse_at(cursor.token, "coefficients by level ([1, 2 3]) are not read", "give one number for each column, in order")
        values: list[float] = []
        while cursor.sees_number():
            values.append(cursor.number())
        if not values:
            cursor.fail(f"no coefficients are given for {effect.text}")
        if effect in found:
            cursor.fail_at(start, f"{effect.text} is given twice")
        found[effect] = Coefficients(effect, tuple(values))
    return tuple(found.values())


def read_parms(cursor: Cursor) -> Parms:
    """PARMS (values) (values) ... / options."""
    spot = cursor.here()
    values = cursor.until_options(lambda: cursor.bracketed(lambda: _candidates(cursor)))
    options = slash_options(cursor, effect_options.PARMS)
    if not values:
        cursor.fail("PARMS gives no values", "parms (1.5) (0.3) (1);")
    return Parms(values, **options, spot=spot)


def _candidates(cursor: Cursor) -> tuple[float, ...]:
    """`1, 2, 5 to 6 by .5`."""
    found: list[float] = []
    while not cursor.sees(")"):
        first = cursor.number()
        found += _steps(cursor, first) if cursor.sees_word("to") else [first]
        cursor.accept(",")
    if not found:
        cursor.fail("expected a number here")
    return tuple(found)


def _steps(cursor: Cursor, first: float) -> list[float]:
    start = cursor.take()
    last = cursor.number()
    step = 1.0
    if cursor.sees_word("by"):
        cursor.take()
        step = cursor.number()
    if step == 0 or (last - first) / step < 0:
        cursor.fail_at(start, "these steps never arrive")
    # Half a step in 1e6 of slack, so that `17 to 20 by .1` ends at 20 whatever the rounding of .1.
    count = int((last - first) / step + 1e-6) + 1
    if count > MAX_PARMS:
        raise FormulaLimitError(f"PARMS has more than {MAX_PARMS} values", cursor.here(), "take larger steps")
    return [round(first + i * step, 12) for i in range(count)]


def read_condition(cursor: Cursor) -> Condition:
    """WHERE condition."""
    condition = parse_condition(cursor)
    cursor.finish()
    return condition


def read_by(cursor: Cursor) -> tuple[By, ...]:
    """BY a descending b."""
    variables: list[By] = []
    while not cursor.at_end:
        token = cursor.token
        descending = cursor.sees_word("descending")
        if descending:
            cursor.take()
        if cursor.sees_word("notsorted", "groupformat"):
            cursor.refuse_at(token, f"{cursor.token.text.upper()} in BY is not supported", "groups are formed by value, sorted or not")
        variables.append(By(cursor.name(), descending))
    if not variables:
        cursor.fail("BY names no variable")
    return tuple(variables)


def read_names(cursor: Cursor) -> tuple[str, ...]:
    """ID a b."""
    names = cursor.until_options(cursor.name)
    cursor.finish()
    return names


def read_weight(cursor: Cursor) -> str:
    """WEIGHT w."""
    name = cursor.name()
    cursor.finish()
    return name


def read_text(cursor: Cursor) -> str:
    """TITLE and FOOTNOTE: the quoted text."""
    parts: list[str] = []
    while not cursor.at_end:
        parts.append(cursor.take().text)
    return " ".join(parts)


# What may be written once, what any number of times.
ONCE: Mapping[str, tuple[str, Callable[[Cursor], Any]]] = {
    "class": ("classes", read_class),
    "classes": ("classes", read_class),
    "model": ("model", read_model),
    "repeated": ("repeated", read_repeated),
    "parms": ("parms", read_parms),
    "parameters": ("parms", read_parms),
    "weight": ("weight", read_weight),
    "where": ("where", read_condition),
    "by": ("by", read_by),
    "id": ("id", read_names),
}
MANY: Mapping[str, tuple[str, Callable[[Cursor], Any]]] = {
    "random": ("random", read_random),
    "lsmeans": ("lsmeans", read_lsmeans),
    "lsmean": ("lsmeans", read_lsmeans),
    "estimate": ("estimates", read_estimate),
    "contrast": ("contrasts", read_contrast),
}
REFUSED: Mapping[str, str] = {
    "attrib": "name and convert the columns of the frame instead",
    "code": "fit.save(path) keeps the fit",
    "effect": "make the columns first, or give the model as a formula: bs(x), poly(x)",
    "format": "class levels are the values of the frame: convert the column instead",
    "freq": "repeat the rows",
    "informat": "convert the columns of the frame instead",
    "label": "columns are printed by name",
    "lsmestimate": "write the ESTIMATE or CONTRAST statement, or use fit.emmeans(...).contrast(...)",
    "means": "LSMEANS; raw means are data.groupby(...).mean()",
    "nloptions": "leave it out",
    "output": "MODEL ... / outp=name outpm=name",
    "performance": "leave it out",
    "prior": "the posterior is result.model.sample()",
    "slice": "LSMEANS effect / slice=factor",
    "store": "result.fit.save(path)",
    "test": "F tests are printed for every effect; others are a CONTRAST",
}
