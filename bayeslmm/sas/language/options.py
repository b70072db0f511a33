"""Options after `/` and of the PROC statement: what is read, what is refused, and why.

A reader takes the cursor just after the option's name and returns a value. An option that SAS has and we do not is in the table as a
`RefusedOption` with the way out; an option that SAS does not have is an error that names the nearest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn, get_args

from bayeslmm.sas.language.effects import INTERCEPT_EFFECT, SASEffect, parse_effect
from bayeslmm.sas.language.program import DataSetOptions, InfluenceRequest, Method, Order
from bayeslmm.sas.language.tokens import SASCursor, SASToken
from bayeslmm.sas.language.where import parse_condition

ValueReader = Callable[[SASCursor], Any]


@dataclass(frozen=True, slots=True)
class StatementOption:
    """An option that is read into the field; `gather` keeps the values of repeated options in a tuple."""

    field: str
    read: ValueReader
    gather: bool = False


@dataclass(frozen=True, slots=True)
class RefusedOption:
    """An option of SAS that is not supported, with what to do instead."""

    remedy: str


OptionTable = Mapping[str, StatementOption | RefusedOption]


def read_options(cursor: SASCursor, table: OptionTable) -> dict[str, Any]:
    """Options up to the end of the statement, as values by field."""
    values: dict[str, Any] = {}
    while not cursor.at_end:
        start = cursor.token
        if start.kind != "name":
            cursor.fail(f"expected an option of the {cursor.statement} statement here")
        name = cursor.word()
        option = _look_up(cursor, start, table.get(name), table)
        value = option.read(cursor)
        if option.gather:
            values[option.field] = values.get(option.field, ()) + value
        elif option.field in values and values[option.field] != value:
            cursor.fail_at(start, f"the option {start.text.upper()} is given twice, with different values")
        else:
            values[option.field] = value
    return values


def slash_options(cursor: SASCursor, table: OptionTable) -> dict[str, Any]:
    """Options after a slash; none when the statement ends without one."""
    values = read_options(cursor, table) if cursor.accept("/") else {}
    cursor.finish()
    return values


def _look_up(cursor: SASCursor, start: SASToken, option: StatementOption | RefusedOption | None, table: OptionTable) -> StatementOption:
    if option is None:
        _unknown(cursor, start, table)
    if isinstance(option, RefusedOption):
        cursor.not_supported_at(
            start, f"the option {start.text.upper()} of the {cursor.statement} statement is not supported", option.remedy
        )
    return option


def _unknown(cursor: SASCursor, start: SASToken, table: OptionTable) -> NoReturn:
    known = [name for name, o in table.items() if isinstance(o, StatementOption)]
    near = get_close_matches(start.lower, known, 3) or sorted(known)
    cursor.fail_at(
        start,
        f"{start.text.upper()} is not an option of the {cursor.statement} statement",
        f"one of {', '.join(name.upper() for name in near)}",
    )


def read_flag(_cursor: SASCursor) -> bool:
    """An option that is there or not."""
    return True


def constant_value(value: Any) -> ValueReader:
    """An option without a value of its own."""
    return lambda _cursor: value


def after_equals(read: ValueReader) -> ValueReader:
    """`= value`."""

    def reader(cursor: SASCursor) -> Any:
        cursor.expect("=")
        return read(cursor)

    return reader


def read_number_value(cursor: SASCursor) -> float:
    """A number."""
    return cursor.number()


def read_positive(cursor: SASCursor) -> float:
    """A number above 0."""
    token = cursor.token
    value = cursor.number()
    if not value > 0:
        cursor.fail_at(token, "expected a number above 0 here")
    return value


def read_nonzero(cursor: SASCursor) -> float:
    """A number other than 0."""
    token = cursor.token
    value = cursor.number()
    if value == 0:
        cursor.fail_at(token, "expected a number other than 0 here")
    return value


def read_fraction(cursor: SASCursor) -> float:
    """A number between 0 and 1."""
    token = cursor.token
    value = cursor.number()
    if not 0 < value < 1:
        cursor.fail_at(token, "expected a number between 0 and 1 here", "alpha=0.05 gives 95% limits")
    return value


def read_whole(cursor: SASCursor) -> int:
    """A whole number from 1 up."""
    return cursor.integer()


def read_many(read: ValueReader) -> ValueReader:
    """One or more values, with commas or without, in parentheses or without."""

    def reader(cursor: SASCursor) -> tuple[Any, ...]:
        if cursor.accept("("):
            values = [read(cursor)]
            while not cursor.sees(")"):
                cursor.accept(",")
                values.append(read(cursor))
            cursor.expect(")")
            return tuple(values)
        values = [read(cursor)]
        while cursor.accept(",") or cursor.sees_number():
            values.append(read(cursor))
        return tuple(values)

    return reader


def read_one_of(choices: Mapping[str, Any], refused: Mapping[str, str] | None = None) -> ValueReader:
    """One of a few words; `refused` are the words that SAS has besides, each with its remedy."""

    def reader(cursor: SASCursor) -> Any:
        token = cursor.token
        word = cursor.word()
        if refused and word in refused:
            cursor.not_supported_at(token, f"{token.text.upper()} is not supported in the {cursor.statement} statement", refused[word])
        if word not in choices:
            near = ", ".join(dict.fromkeys(name.upper() for name in choices))
            cursor.fail_at(token, f"{token.text.upper()} is not a choice here", f"one of {near}")
        return choices[word]

    return reader


def read_dataset(cursor: SASCursor) -> str:
    """The name of a data set: `name` or `library.name`."""
    name = cursor.take().text if cursor.token.kind in {"name", "string"} else cursor.name("the name of a data set")
    return f"{name}.{cursor.name('the name of a data set')}" if cursor.accept(".") else name


def read_effect(cursor: SASCursor) -> SASEffect:
    """An effect such as `id`, `a*b`, `site(region)`; INTERCEPT is the effect of no variable."""
    return parse_effect(cursor, intercept=True) if cursor.sees_word("intercept") else parse_effect(cursor)


def read_block_numbers(cursor: SASCursor) -> tuple[int, ...]:
    """The optional `=1,3` of R, V and their kin: which subjects are shown; the first by default."""
    return tuple(read_many(read_whole)(cursor)) if cursor.accept("=") else (1,)


def read_degrees(cursor: SASCursor) -> float | None:
    """A number of degrees of freedom; `.` keeps the default."""
    return None if cursor.accept(".") else read_positive(cursor)


def read_slices(cursor: SASCursor) -> tuple[SASEffect, ...]:
    """`=a` or `=(a b)`."""
    cursor.expect("=")
    if not cursor.accept("("):
        return (read_effect(cursor),)
    effects: list[SASEffect] = []
    while not cursor.accept(")"):
        effects.append(read_effect(cursor))
    return tuple(effects)


def is_whole_data(subject: SASEffect | None) -> bool:
    """Whether a SUBJECT= effect makes all rows one subject: none given, or INTERCEPT."""
    return subject is None or subject == INTERCEPT_EFFECT


_DIAGNOSTIC = "the frames of result.fit hold what it is made of"


def _data(cursor: SASCursor) -> tuple[str, DataSetOptions]:
    """`=name` or `=name(keep=a b rename=(a=c) where=(condition) obs=10)`."""
    cursor.expect("=")
    name = read_dataset(cursor)
    found: dict[str, Any] = {}
    if cursor.accept("("):
        while not cursor.accept(")"):
            token = cursor.token
            option = _DATA_SET_OPTIONS.get(cursor.word())
            if option is None:
                remedy = "KEEP=, DROP=, RENAME=, WHERE=, FIRSTOBS= and OBS= are; change the frame before the program is run"
                cursor.not_supported_at(token, f"the data set option {token.text.upper()}= is not supported", remedy)
            if option.field in found:
                cursor.fail_at(token, f"the data set option {token.text.upper()}= is given twice")
            cursor.expect("=")
            found[option.field] = option.read(cursor)
    return name, DataSetOptions(**found)


def _column_list(cursor: SASCursor) -> tuple[str, ...]:
    """Names up to the next option."""
    names: list[str] = []
    while cursor.token.kind == "name" and not cursor.ahead.is_symbol("="):
        names.append(cursor.name())
    return tuple(names)


def _new_names(cursor: SASCursor) -> tuple[tuple[str, str], ...]:
    """`(old=new ...)`."""
    cursor.expect("(")
    pairs: list[tuple[str, str]] = []
    while not cursor.accept(")"):
        old = cursor.name()
        cursor.expect("=")
        pairs.append((old, cursor.name()))
    return tuple(pairs)


def _last_row(cursor: SASCursor) -> int | None:
    """A whole number, or MAX."""
    if cursor.sees_word("max"):
        cursor.take()
        return None
    return cursor.integer()


_DATA_SET_OPTIONS: Mapping[str, StatementOption] = {
    "keep": StatementOption("keep", _column_list),
    "drop": StatementOption("drop", _column_list),
    "rename": StatementOption("rename", _new_names),
    "where": StatementOption("where", lambda cursor: cursor.in_brackets(lambda: parse_condition(cursor))),
    "firstobs": StatementOption("first", read_whole),
    "obs": StatementOption("last", _last_row),
}


def _empirical(cursor: SASCursor) -> bool:
    if cursor.accept("="):
        token = cursor.token
        if cursor.word() != "classical":
            remedy = "EMPIRICAL is the classical sandwich; fit.tidy(vcov='CR2') and 'CR3' are the bias-corrected ones"
            cursor.not_supported_at(token, f"EMPIRICAL={token.text.upper()} is not supported", remedy)
    return True


def _listing_limit(cursor: SASCursor) -> int:
    return cursor.integer() if cursor.accept("=") else 0


def _optional_wald(cursor: SASCursor) -> str:
    return str(read_one_of({"wald": "wald"})(cursor)) if cursor.accept("=") else "default"


def _optional_count(cursor: SASCursor) -> int:
    return cursor.integer() if cursor.accept("=") else 1


def _convergence(name: str) -> StatementOption:
    def reader(cursor: SASCursor) -> tuple[str, float]:
        return name, (read_positive(cursor) if cursor.accept("=") else 1e-8)

    return StatementOption("criterion", reader)


def _plots(cursor: SASCursor) -> bool:
    """Whether figures are asked for: `plots`, `plots=none`, `plots(only)=(a(x) b)`."""
    if cursor.sees("("):
        cursor.take_value()
    if not cursor.accept("="):
        return True
    asked = not cursor.sees_word("none")
    cursor.take_value()
    if cursor.sees("("):
        cursor.take_value()
    return asked


PROC_OPTIONS: OptionTable = {
    "data": StatementOption("data", _data),
    "method": StatementOption("method", after_equals(read_one_of({word: word for word in get_args(Method)}))),
    "empirical": StatementOption("empirical", _empirical),
    "covtest": StatementOption("covtest", read_flag),
    "cl": StatementOption("cl", _optional_wald),
    "alpha": StatementOption("alpha", after_equals(read_fraction)),
    "noclprint": StatementOption("noclprint", _listing_limit),
    "noinfo": StatementOption("noinfo", read_flag),
    "info": StatementOption("info", read_flag),
    "noitprint": StatementOption("noitprint", read_flag),
    "itdetails": StatementOption("itdetails", read_flag),
    "ic": StatementOption("ic", read_flag),
    "infocrit": StatementOption("ic", read_flag),
    "asycov": StatementOption("asycov", read_flag),
    "asycorr": StatementOption("asycorr", read_flag),
    "ratio": StatementOption("ratio", read_flag),
    "noprofile": StatementOption("noprofile", read_flag),
    "nobound": StatementOption("nobound", read_flag),
    "mmeq": StatementOption("mmeq", read_flag),
    "mmeqsol": StatementOption("mmeqsol", read_flag),
    "dfbw": StatementOption("dfbw", read_flag),
    "order": StatementOption("order", after_equals(read_one_of({word: word for word in get_args(Order)}))),
    "maxiter": StatementOption("maxiter", after_equals(read_whole)),
    "maxfunc": StatementOption("maxfunc", after_equals(read_whole)),
    "convf": _convergence("convf"),
    "convg": _convergence("convg"),
    "convh": _convergence("convh"),
    "scoring": StatementOption("scoring", _optional_count),
    "namelen": StatementOption("namelen", after_equals(read_whole)),
    "lognote": StatementOption("lognote", read_flag),
    "plots": StatementOption("plots", _plots),
    "plot": StatementOption("plots", _plots),
    "absolute": RefusedOption("convergence is judged by the gradient and the Hessian: see result.fit.checks"),
    "anovaf": RefusedOption("F tests: ddfm=kr, satterth, contain, bw or residual"),
    "ranks": RefusedOption(_DIAGNOSTIC),
    "sigiter": RefusedOption(_DIAGNOSTIC),
    "update": RefusedOption("leave it out"),
}


def _output_data(cursor: SASCursor) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """`=name` or `=name(keep=a b drop=c)`."""
    cursor.expect("=")
    name = read_dataset(cursor)
    named: dict[str, tuple[str, ...]] = {"keep": (), "drop": ()}
    if cursor.accept("("):
        while not cursor.accept(")"):
            token = cursor.token
            option = cursor.word()
            if option not in named:
                remedy = "KEEP= and DROP= are; change the frame that comes back"
                cursor.not_supported_at(token, f"the data set option {token.text.upper()}= is not supported", remedy)
            cursor.expect("=")
            named[option] += _column_list(cursor)
    return name, named["keep"], named["drop"]


_DDFM = {
    "contain": "contain",
    "betwithin": "betwithin",
    "bw": "betwithin",
    "residual": "residual",
    "resid": "residual",
    "res": "residual",
    "satterthwaite": "satterthwaite",
    "satterthwait": "satterthwaite",
    "satterth": "satterthwaite",
    "satt": "satterthwaite",
    "sat": "satterthwaite",
    "kenwardroger": "kenwardroger",
    "kenwardrog": "kenwardroger",
    "kenrog": "kenwardroger",
    "kr": "kenwardroger",
    "kenwardroger2": "kenwardroger2",
    "kr2": "kenwardroger2",
}
_DDFM_REFUSED = {
    "none": "result.fit.tidy(df='asymptotic') uses the normal distribution",
}


def _ddfm(cursor: SASCursor) -> tuple[str, bool]:
    """`=method` or `=kr(firstorder)`."""
    cursor.expect("=")
    method = str(read_one_of(_DDFM, _DDFM_REFUSED)(cursor))
    if method == "kenwardroger" and cursor.accept("("):
        read_one_of({"firstorder": True, "linear": True})(cursor)
        cursor.expect(")")
        return method, True
    return method, False


def _htypes(cursor: SASCursor) -> tuple[int, ...]:
    cursor.expect("=")
    token = cursor.token
    types = tuple(dict.fromkeys(read_many(read_whole)(cursor)))
    if not set(types) <= {1, 2, 3}:
        cursor.fail_at(token, "HTYPE= takes 1, 2 and 3")
    return types


def _e(kind: int) -> StatementOption:
    return StatementOption("e", constant_value((kind,)), gather=True)


def _influence(cursor: SASCursor) -> InfluenceRequest:
    """`influence`, `influence(effect=id)`, `influence(size=2 select=3 8 9 keep=5)`, `influence(effect=id iter=5 estimates)`."""
    table: OptionTable = {
        "effect": StatementOption("effect", after_equals(read_effect)),
        "eff": StatementOption("effect", after_equals(read_effect)),
        "size": StatementOption("size", after_equals(read_whole)),
        "iter": StatementOption("iter", after_equals(read_number_value)),
        "estimates": StatementOption("estimates", read_flag),
        "est": StatementOption("estimates", read_flag),
        "keep": StatementOption("keep", after_equals(read_whole)),
        "select": StatementOption("select", after_equals(_whole_numbers)),
    }
    if not cursor.accept("("):
        return InfluenceRequest()
    values: dict[str, Any] = {}
    while not cursor.accept(")"):
        start = cursor.token
        if start.kind != "name":
            cursor.fail("expected an option of INFLUENCE here")
        option = _look_up(cursor, start, table.get(cursor.word()), table)
        values[option.field] = option.read(cursor)
        if values.get("iter", 0.0) < 0.0:
            cursor.fail_at(start, "ITER= is a number of iterations, 0 or more", "influence(iter=5)")
        cursor.accept(",")
    if "effect" in values and "size" in values:
        cursor.fail("EFFECT= and SIZE= of INFLUENCE exclude one another")
    return InfluenceRequest(**values)


def _whole_numbers(cursor: SASCursor) -> tuple[int, ...]:
    """`13 14 18` or `13, 14, 18`; what follows is the next option."""
    values = [cursor.integer()]
    while cursor.sees_number() or (cursor.accept(",") and cursor.sees_number()):
        values.append(cursor.integer())
    return tuple(dict.fromkeys(values))


_INVERSE = "result.fit.vcov holds the covariance matrix of the fixed effects"

MODEL_OPTIONS: OptionTable = {
    "s": StatementOption("solution", read_flag),
    "solution": StatementOption("solution", read_flag),
    "noint": StatementOption("noint", read_flag),
    "ddfm": StatementOption("ddfm", _ddfm),
    "ddf": StatementOption("ddf", after_equals(read_many(read_degrees))),
    "htype": StatementOption("htype", _htypes),
    "e": _e(0),
    "e1": _e(1),
    "e2": _e(2),
    "e3": _e(3),
    "lcomponents": StatementOption("lcomponents", read_flag),
    "intercept": StatementOption("intercept", read_flag),
    "int": StatementOption("intercept", read_flag),
    "notest": StatementOption("notest", read_flag),
    "chisq": StatementOption("chisq", read_flag),
    "cl": StatementOption("cl", read_flag),
    "alpha": StatementOption("alpha", after_equals(read_fraction)),
    "alphap": StatementOption("alphap", after_equals(read_fraction)),
    "covb": StatementOption("covb", read_flag),
    "covbi": StatementOption("covbi", read_flag),
    "corrb": StatementOption("corrb", read_flag),
    "outp": StatementOption("outp", _output_data),
    "outpred": StatementOption("outp", _output_data),
    "outpm": StatementOption("outpm", _output_data),
    "outpredm": StatementOption("outpm", _output_data),
    "residual": StatementOption("residual", read_flag),
    "residuals": StatementOption("residual", read_flag),
    "vciry": StatementOption("vciry", read_flag),
    "influence": StatementOption("influence", _influence),
    "contain": StatementOption("ddfm", constant_value(("contain", False))),
    "fullx": RefusedOption("columns of levels that do not occur carry no information"),
    "nocontain": RefusedOption("name the method: ddfm=residual"),
    "singchol": RefusedOption("leave it out: the conditioning of the columns does not need it"),
    "singres": RefusedOption("leave it out: the conditioning of the columns does not need it"),
    "singular": RefusedOption("leave it out: dependent columns are found by their angle to the others"),
    "xpvix": RefusedOption(_INVERSE),
    "xpvixi": RefusedOption(_INVERSE),
    "zeta": RefusedOption("leave it out"),
}


def proc_values(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Proc` from its options: DATA= gives two; INFO and LOGNOTE ask for what is so anyway."""
    for name in ("info", "lognote"):
        values.pop(name, None)
    if "data" in values:
        values["data"], values["data_options"] = values["data"]
    if "alpha" in values:  # ALPHA= alone asks for the limits as well, here and in MODEL
        values.setdefault("cl", "default")
    return values


def model_values(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of `ModelStatement` from its options: DDFM= gives two, OUTP= and OUTPM= three."""
    for name in ("outp", "outpm"):
        if name in values:
            values[name], values[f"{name}_keep"], values[f"{name}_drop"] = values[name]
    if "ddfm" in values:
        values["ddfm"], values["firstorder"] = values["ddfm"]
    if "alpha" in values:
        values.setdefault("cl", True)
    if "e" in values:
        values["e"] = tuple(sorted(set(values["e"])))
    return values
