"""The parser of PROC MIXED: one reader for each statement, program text in, `MixedProgram` out.

Around the steps the text may hold comments, `run; quit;`, ODS statements (every table comes back as a frame; ODS OUTPUT gives it
another name), TITLE and FOOTNOTE (printed with the listing), and what `tokens` leaves out. All else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from bayeslmm.errors import FormulaLimitError, SpecificationError
from bayeslmm.sas.language import effect_options
from bayeslmm.sas.language import options as proc_options
from bayeslmm.sas.language.effect_options import read_lsmestimate, read_slice
from bayeslmm.sas.language.effects import SASEffect, parse_effect, parse_effects
from bayeslmm.sas.language.options import read_options, slash_options
from bayeslmm.sas.language.program import (
    ByVariable,
    ClassVariable,
    CoefficientRow,
    Coefficients,
    ContrastStatement,
    EstimateStatement,
    LSMeansStatement,
    MixedProgram,
    ModelStatement,
    ParmsStatement,
    ProcStatement,
    RandomStatement,
    RepeatedStatement,
)
from bayeslmm.sas.language.tokens import SASCursor, SASToken, prepare_text, syntax_error, tokenize_program
from bayeslmm.sas.language.where import Condition, parse_condition

MAX_PARMS = 100_000

_REFERENCE_WORDS = {"first", "last"}


def read_proc(cursor: SASCursor) -> ProcStatement:
    """PROC MIXED, its name already read."""
    spot = cursor.place()
    return ProcStatement(**proc_options.proc_values(read_options(cursor, proc_options.PROC_OPTIONS)), spot=spot)


def read_class(cursor: SASCursor) -> tuple[ClassVariable, ...]:
    """CLASS a b(ref='x') / ref=first."""
    found = list(cursor.until_options(lambda: _class_variable(cursor)))
    if not found:
        cursor.fail("CLASS names no variable")
    common = _class_options(cursor) if cursor.accept("/") else {}
    variables = [replace(variable, **{**common, **own}) for variable, own in found]
    cursor.finish()
    names = [v.name for v in variables]
    if twice := next((n for n in names if names.count(n) > 1), None):
        cursor.fail(f"CLASS names {twice} twice")
    return tuple(variables)


def _class_variable(cursor: SASCursor) -> tuple[ClassVariable, dict[str, Any]]:
    """The variable, and its own options."""
    name = cursor.name()
    return ClassVariable(name), cursor.in_brackets(lambda: _class_options(cursor)) if cursor.sees("(") else {}


def _class_options(cursor: SASCursor) -> dict[str, Any]:
    """REF= and DESCENDING, as fields of `ClassVariable`."""
    found: dict[str, Any] = {}
    while not cursor.at_end and not cursor.sees(")"):
        token = cursor.token
        word = cursor.word()
        if word in {"descending", "desc"}:
            found["descending"] = True
        elif word == "ref":
            cursor.expect("=")
            found["reference"], found["value"] = _reference(cursor)
        else:
            remedy = "REF= and DESCENDING are; levels are not cut"
            cursor.not_supported_at(token, f"the option {token.text.upper()} of the CLASS statement is not supported", remedy)
    return found


def _reference(cursor: SASCursor) -> tuple[str, str]:
    value = cursor.take()
    if value.kind == "name" and value.lower in _REFERENCE_WORDS:
        return value.lower, ""
    if value.kind not in {"string", "number"}:
        cursor.fail_at(value, "REF= takes FIRST, LAST or a quoted level")
    return "value", value.text.strip()


def read_model_statement(cursor: SASCursor) -> ModelStatement:
    """MODEL response = effects / options."""
    spot = cursor.place()
    start = cursor.token
    response = cursor.name("the response")
    if cursor.token.kind == "name" or cursor.sees("("):
        cursor.not_supported_at(
            start, "MODEL has one response, a column as it is", "stack several responses in one column, with a class for which it is"
        )
    cursor.expect("=")
    effects = parse_effects(cursor)
    return ModelStatement(response, effects, **proc_options.model_values(slash_options(cursor, proc_options.MODEL_OPTIONS)), spot=spot)


def read_random(cursor: SASCursor) -> RandomStatement:
    """RANDOM effects / options."""
    spot = cursor.place()
    effects = parse_effects(cursor, intercept=True)
    if not effects:
        cursor.fail("RANDOM names no effect", "random intercept / subject=id;")
    values = effect_options.matrix_values(slash_options(cursor, effect_options.RANDOM_OPTIONS), "v_blocks")
    return RandomStatement(effects, **effect_options.limits_values(values), spot=spot)


def read_repeated(cursor: SASCursor) -> RepeatedStatement:
    """REPEATED effect / options."""
    spot = cursor.place()
    effects = parse_effects(cursor)
    values = effect_options.matrix_values(slash_options(cursor, effect_options.REPEATED_OPTIONS), "blocks")
    return RepeatedStatement(effects, **values, spot=spot)


def read_lsmeans(cursor: SASCursor) -> LSMeansStatement:
    """LSMEANS effects / options."""
    spot = cursor.place()
    effects = parse_effects(cursor)
    if not effects:
        cursor.fail("LSMEANS names no effect")
    return LSMeansStatement(effects, **effect_options.lsmeans_values(slash_options(cursor, effect_options.LSMEANS_OPTIONS)), spot=spot)


def read_estimate(cursor: SASCursor) -> EstimateStatement:
    """ESTIMATE 'label' effect values ... | effect values ... / options."""
    spot = cursor.place()
    label = cursor.label()
    row = _read_row(cursor)
    if cursor.sees(","):
        cursor.fail("ESTIMATE has one row", "several rows are a CONTRAST, or several ESTIMATE statements")
    values = slash_options(cursor, effect_options.ESTIMATE_OPTIONS)
    return EstimateStatement(label, row, **effect_options.limits_values(values), spot=spot)


def read_contrast(cursor: SASCursor) -> ContrastStatement:
    """CONTRAST 'label' row, row, ... / options."""
    spot = cursor.place()
    label = cursor.label()
    rows = [_read_row(cursor)]
    while cursor.accept(","):
        rows.append(_read_row(cursor))
    return ContrastStatement(label, tuple(rows), **slash_options(cursor, effect_options.CONTRAST_OPTIONS), spot=spot)


def _read_row(cursor: SASCursor) -> CoefficientRow:
    fixed = _coefficients(cursor)
    random = _coefficients(cursor) if cursor.accept("|") else ()
    if not fixed and not random:
        cursor.fail("expected an effect and its coefficients here", "trt 1 -1 0")
    return CoefficientRow(fixed, random)


def _coefficients(cursor: SASCursor) -> tuple[Coefficients, ...]:
    found: dict[SASEffect, Coefficients] = {}
    while not (cursor.at_options or cursor.sees("|") or cursor.sees(",")):
        start = cursor.token
        effect = parse_effect(cursor, intercept=True)
        if cursor.sees("[") or cursor.sees("{"):
            cursor.not_supported_at(
                cursor.token, "coefficients by level ([1, 2 3]) are not read", "give one number for each column, in order"
            )
        values: list[float] = []
        while cursor.sees_number():
            values.append(cursor.number())
        if not values:
            cursor.fail(f"no coefficients are given for {effect.text}")
        if effect in found:
            cursor.fail_at(start, f"{effect.text} is given twice")
        found[effect] = Coefficients(effect, tuple(values))
    return tuple(found.values())


def read_parms(cursor: SASCursor) -> ParmsStatement:
    """PARMS (values) (values) ... / options."""
    spot = cursor.place()
    values = cursor.until_options(lambda: cursor.in_brackets(lambda: _candidates(cursor)))
    options = slash_options(cursor, effect_options.PARMS_OPTIONS)
    if not values:
        cursor.fail("PARMS gives no values", "parms (1.5) (0.3) (1);")
    return ParmsStatement(values, **options, spot=spot)


def _candidates(cursor: SASCursor) -> tuple[float, ...]:
    """`1, 2, 5 to 6 by .5`."""
    found: list[float] = []
    while not cursor.sees(")"):
        first = cursor.number()
        found += _steps(cursor, first) if cursor.sees_word("to") else [first]
        cursor.accept(",")
    if not found:
        cursor.fail("expected a number here")
    return tuple(found)


def _steps(cursor: SASCursor, first: float) -> list[float]:
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
        raise FormulaLimitError(f"PARMS has more than {MAX_PARMS} values", cursor.place(), "take larger steps")
    return [round(first + i * step, 12) for i in range(count)]


def read_condition(cursor: SASCursor) -> Condition:
    """WHERE condition."""
    condition = parse_condition(cursor)
    cursor.finish()
    return condition


def read_by(cursor: SASCursor) -> tuple[ByVariable, ...]:
    """BY a descending b notsorted."""
    variables: list[ByVariable] = []
    unsorted = False
    while not cursor.at_end:
        token = cursor.token
        descending = cursor.sees_word("descending")
        if descending:
            cursor.take()
        if cursor.sees_word("groupformat"):
            cursor.not_supported_at(token, "GROUPFORMAT in BY is not supported", "groups are formed by the values of the frame")
        if cursor.sees_word("notsorted"):
            cursor.take()
            unsorted = True
            continue
        variables.append(ByVariable(cursor.name(), descending))
    if not variables:
        cursor.fail("BY names no variable")
    return tuple(replace(variable, unsorted=unsorted) for variable in variables)


def read_names(cursor: SASCursor) -> tuple[str, ...]:
    """ID a b."""
    names = cursor.until_options(cursor.name)
    cursor.finish()
    return names


def read_weight(cursor: SASCursor) -> str:
    """WEIGHT w."""
    name = cursor.name()
    cursor.finish()
    return name


def read_text(cursor: SASCursor) -> str:
    """TITLE and FOOTNOTE: the quoted text."""
    parts: list[str] = []
    while not cursor.at_end:
        parts.append(cursor.take().text)
    return " ".join(parts)


# What may be written once, what any number of times.
SINGLE_STATEMENTS: Mapping[str, tuple[str, Callable[[SASCursor], Any]]] = {
    "class": ("classes", read_class),
    "classes": ("classes", read_class),
    "model": ("model", read_model_statement),
    "repeated": ("repeated", read_repeated),
    "parms": ("parms", read_parms),
    "parameters": ("parms", read_parms),
    "weight": ("weight", read_weight),
    "where": ("where", read_condition),
    "by": ("by", read_by),
    "id": ("id", read_names),
}
REPEATABLE_STATEMENTS: Mapping[str, tuple[str, Callable[[SASCursor], Any]]] = {
    "random": ("random", read_random),
    "lsmeans": ("lsmeans", read_lsmeans),
    "lsmean": ("lsmeans", read_lsmeans),
    "estimate": ("estimates", read_estimate),
    "contrast": ("contrasts", read_contrast),
    "lsmestimate": ("lsmestimates", read_lsmestimate),
    "slice": ("slices", read_slice),
}
IGNORED_STATEMENTS: Mapping[str, str] = {
    "attrib": "levels are the values of the frame, and columns are printed by name",
    "format": "levels are the values of the frame; convert the column where the format makes other groups",
    "informat": "the columns of the frame have been read",
    "label": "columns are printed by name",
    "nloptions": "the optimiser has its own limits",
    "performance": "it changes no number",
    "store": "result.fit.save(path) keeps the fit",
}
REFUSED_STATEMENTS: Mapping[str, str] = {
    "code": "fit.save(path) keeps the fit",
    "effect": "make the columns first, or give the model as a formula: bs(x), poly(x)",
    "freq": "repeat the rows",
    "means": "LSMEANS; raw means are data.groupby(...).mean()",
    "output": "MODEL ... / outp=name outpm=name",
    "prior": "the posterior is result.model.sample()",
    "test": "F tests are printed for every effect; others are a CONTRAST",
}

_PAGE_OPTIONS = frozenset(
    {"center", "date", "formdlim", "linesize", "ls", "missing", "nocenter", "nodate", "nonumber", "nonotes", "notes", "number"}
    | {"orientation", "pageno", "pagesize", "ps"}
)
_ODS_STATEMENTS = frozenset(
    {"_all_", "csv", "csvall", "decimal_align", "document", "epub", "epub2", "epub3", "escapechar", "excel", "exclude", "graphics"}
    | {"html", "html3", "html4", "html5", "htmlcss", "latex", "layout", "listing", "markup", "noproctitle", "noptitle", "noresults"}
    | {"nousegopt", "output", "package", "path", "pcl", "pdf", "phtml", "powerpoint", "preferences", "printer", "proclabel"}
    | {"proctitle", "ps", "ptitle", "region", "results", "rtf", "select", "show", "tagsets", "text", "trace", "usegopt", "verify"}
    | {"wml", "word", "xml"}
)
_GRAPHICS_OPTIONS = frozenset(
    {"antialias", "antialiasmax", "attrpriority", "border", "byline", "dataskinmax", "discretemax", "drilltarget", "groupmax"}
    | {"height", "imagefmt", "imagemap", "imagename", "labelmax", "labelplacement", "linepatternobsmax", "loessmaxobs", "loessobsmax"}
    | {"maxlegendarea", "nbinsmax", "noantialias", "noborder", "noimagemap", "noscale", "noscalemarkers", "nosubpixel", "nxybinsmax"}
    | {"obsmax", "outputfmt", "panelcellmax", "pop", "push", "reset", "scale", "scalemarkers", "show", "stepplotmax", "subpixel"}
    | {"tipmax", "width"}
)
_FOLLOWS_MODEL = frozenset({"random", "repeated", "lsmeans", "lsmean", "estimate", "contrast", "lsmestimate", "slice"})


@dataclass(slots=True)
class _Step:
    """What has been read of the step so far."""

    fields: dict[str, Any] = field(default_factory=dict)
    many: dict[str, list[Any]] = field(default_factory=dict)
    texts: dict[str, dict[int, str]] = field(default_factory=lambda: {"title": {}, "footnote": {}})
    ods: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finished: bool = False

    def next_step(self) -> _Step:
        """The next step, under the same titles and footnotes."""
        return _Step(texts={stem: dict(numbered) for stem, numbered in self.texts.items()})

    def program(self) -> MixedProgram:
        read: dict[str, Any] = dict(self.fields)
        read |= {name: tuple(values) for name, values in self.many.items()}
        read |= {f"{name}s": tuple(text for _, text in sorted(numbered.items())) for name, numbered in self.texts.items()}
        return MixedProgram(**read, ods=tuple(self.ods), notes=tuple(dict.fromkeys(self.notes)))


@lru_cache(maxsize=64)
def parse_programs(program: str, columns: tuple[str, ...] = ()) -> tuple[MixedProgram, ...]:
    """Read the PROC MIXED steps of a program; each has the titles, footnotes and ODS statements that hold when it is run.

    columns : names of the data's columns; the program may write them in any case. Without them the first spelling of a name is kept.

    Raises FormulaError for text that is not SAS, SpecificationError for SAS that is not supported (the statement or option is named),
    FormulaLimitError for a text that is too long or has too many effects. Each error shows the spot.

    >>> text = "title 'A'; proc mixed; model y = x; run; title 'B'; proc mixed; model y = z; run;"
    >>> [p.titles for p in parse_programs(text)]
    [('A',), ('B',)]
    """
    prepared = prepare_text(program)
    text, step, names = prepared.text, _Step(), _spellings(columns)
    steps: list[MixedProgram] = []
    between: list[tuple[SASToken, ...]] = []  # what stands behind a step is for the next one, if there is one
    for tokens in _statements(text, tokenize_program(text)):
        if step.finished and _is_global(tokens[0].lower):
            between.append(tokens)
            continue
        if "proc" in step.fields and tokens[0].lower == "proc":
            steps.append(_complete_program(text, step))
            step = step.next_step()
            for waiting in between:
                _read(text, waiting, step, names)
            between.clear()
        _read(text, tokens, step, names)
    for waiting in between:
        _read(text, waiting, step, names)
    steps.append(_complete_program(text, step))
    return tuple(replace(found, notes=(*prepared.notes, *found.notes)) for found in steps)


def parse_program(program: str, columns: tuple[str, ...] = ()) -> MixedProgram:
    """Read a program of one PROC MIXED step; see `parse_programs`.

    >>> p = parse_program("proc mixed data=a; class id; model y = x / s; random int / sub=id; run;")
    >>> p.model.response, p.class_names, p.random[0].subject.text
    ('y', ('id',), 'id')
    """
    steps = parse_programs(program, columns)
    if len(steps) > 1:
        raise SpecificationError(f"the program has {len(steps)} PROC MIXED steps", "", "give them one by one, or to proc_mixed together")
    return steps[0]


def _complete_program(text: str, step: _Step) -> MixedProgram:
    if "proc" not in step.fields:
        syntax_error(text, 0, "the program has no PROC MIXED statement", "proc mixed data=a; model y = x / solution; run;")
    if "model" not in step.fields:
        syntax_error(text, len(text), "the program has no MODEL statement", "model y = x / solution;")
    return step.program()


def _spellings(columns: tuple[str, ...]) -> dict[str, str]:
    """Each column under its own name, and in lower case where that is one column alone."""
    lower = [c.lower() for c in columns]
    return {c.lower(): c for c in columns if lower.count(c.lower()) == 1} | {c: c for c in columns}


def _statements(program: str, tokens: tuple[SASToken, ...]) -> Iterator[tuple[SASToken, ...]]:
    start = 0
    for index, token in enumerate(tokens):
        if token.kind == "end":
            if index > start:
                yield tokens[start : index + 1]
            start = index + 1
    if start < len(tokens):
        syntax_error(program, tokens[-1].position + len(tokens[-1].text), "the last statement has no semicolon")


def _read(program: str, tokens: tuple[SASToken, ...], step: _Step, names: dict[str, str]) -> None:
    head = tokens[0]
    if head.kind != "name":
        syntax_error(program, head.position, f"a statement cannot start with `{head.text}`")
    word = head.lower
    cursor = SASCursor(program, tokens[1:], word.upper(), names)
    if word == "proc":
        _read_proc(cursor, step)
    elif _is_global(word):
        _read_global(cursor, head, step)
    elif word in {"run", "quit"}:
        cursor.finish()
        step.finished = step.finished or "proc" in step.fields
    else:
        _read_statement(cursor, head, step)


def _read_proc(cursor: SASCursor, step: _Step) -> None:
    cursor.word()  # every other procedure is left out before
    cursor.statement = "PROC MIXED"
    step.fields["proc"] = read_proc(cursor)


def _is_global(word: str) -> bool:
    stem = word.rstrip("0123456789")
    return word in {"ods", "options", "option"} or stem in {"title", "footnote"}


def _read_global(cursor: SASCursor, head: SASToken, step: _Step) -> None:
    stem = head.lower.rstrip("0123456789")
    if stem in step.texts:
        number = int(head.lower[len(stem) :] or 1)
        # a title takes away those below it
        step.texts[stem] = {k: text for k, text in step.texts[stem].items() if k < number}
        if text := read_text(cursor):
            step.texts[stem][number] = text
    elif stem == "ods":
        _read_ods(cursor, step)
    else:
        _read_system_options(cursor, step)


def _read_ods(cursor: SASCursor, step: _Step) -> None:
    """OUTPUT gives tables another name; figures, destinations and selections change no number, and are left out."""
    cursor.statement = "ODS"
    start = cursor.token
    word = cursor.word()
    if word not in _ODS_STATEMENTS:
        cursor.fail_at(start, f"{start.text.upper()} is not a statement of ODS", _nearest(word, _ODS_STATEMENTS))
    if word == "graphics":
        _read_graphics(cursor)
    written = f"{start.text} {read_text(cursor)}".rstrip()
    step.ods.append(written)
    if word in {"select", "exclude"}:
        step.notes.append(f"ODS {written.upper()} is left out: every table is in the result")


def _read_graphics(cursor: SASCursor) -> None:
    """Figures are not drawn: on, off and the names of options are read, and nothing else may stand there."""
    cursor.statement = "ODS GRAPHICS"
    if cursor.token.lower in {"on", "off"}:
        cursor.take()
    if not cursor.accept("/"):
        cursor.finish()
    while not cursor.at_end:
        start = cursor.token
        name = cursor.word()
        if name not in _GRAPHICS_OPTIONS:
            cursor.fail_at(start, f"{start.text.upper()} is not an option of ODS GRAPHICS", _nearest(name, _GRAPHICS_OPTIONS))
        if cursor.accept("="):
            cursor.take_value()
            if cursor.sees("("):  # reset=index(1)
                cursor.take_value()


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, sorted(known), 2)
    return f"did you mean {' or '.join(n.upper() for n in near)}?" if near else "leave it out: it changes no number"


def _read_system_options(cursor: SASCursor, step: _Step) -> None:
    """Those that lay out pages change nothing here; others are left out with a note, but for those that leave out rows."""
    while not cursor.at_end:
        token = cursor.take()
        name = token.lower
        if name in {"obs", "firstobs"}:
            cursor.not_supported_at(token, f"the system option {token.text.upper()} is not supported", "take the rows of the frame")
        if name not in _PAGE_OPTIONS:
            step.notes.append(f"OPTIONS {token.text.upper()} is left out")
        if cursor.accept("="):
            cursor.take_value()


def _read_statement(cursor: SASCursor, head: SASToken, step: _Step) -> None:
    word = head.lower
    if word in IGNORED_STATEMENTS:
        step.notes.append(f"{head.text.upper()} is left out: {IGNORED_STATEMENTS[word]}")
        return
    if word in REFUSED_STATEMENTS:
        cursor.not_supported_at(head, f"the {head.text.upper()} statement is not supported", REFUSED_STATEMENTS[word])
    if word not in SINGLE_STATEMENTS and word not in REPEATABLE_STATEMENTS:
        near = get_close_matches(word, [*SINGLE_STATEMENTS, *REPEATABLE_STATEMENTS, "proc", "run"], 2)
        remedy = f"did you mean {' or '.join(n.upper() for n in near)}?" if near else "a missing semicolon above makes one statement of two"
        cursor.fail_at(head, f"{head.text.upper()} is not a statement of PROC MIXED", remedy)
    _check_place(cursor, head, step)
    if word in REPEATABLE_STATEMENTS:
        name, read = REPEATABLE_STATEMENTS[word]
        step.many.setdefault(name, []).append(read(cursor))
        return
    name, read = SINGLE_STATEMENTS[word]
    if name in step.fields:
        cursor.fail_at(head, f"the {head.text.upper()} statement is given twice", "PROC MIXED takes it once")
    step.fields[name] = read(cursor)


def _check_place(cursor: SASCursor, head: SASToken, step: _Step) -> None:
    if "proc" not in step.fields:
        cursor.fail_at(head, f"{head.text.upper()} stands before PROC MIXED", "start with: proc mixed data=a;")
    if step.finished:
        cursor.fail_at(head, f"{head.text.upper()} stands after RUN", "put it before RUN")
    if head.lower in _FOLLOWS_MODEL and "model" not in step.fields:
        cursor.fail_at(head, f"{head.text.upper()} stands before MODEL", "MODEL comes first")
    if head.lower in {"class", "classes"} and "model" in step.fields:
        cursor.fail_at(head, "CLASS stands after MODEL", "CLASS comes first")
