"""Options after `/` (and those of the PROC statement): a table for each statement says what is read, what is refused, and why.

A reader takes the cursor just after the option's name and returns a value. An option that SAS has and we do not is in the table as a
`Refused` with the way out; an option that SAS does not have is an error that names the nearest ones.

The options of PROC MIXED and of its MODEL statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from bayeslmm.sas.language.effects import INTERCEPT, Effect, parse_effect
from bayeslmm.sas.language.tokens import Cursor, Token
from bayeslmm.sas.language.where import Condition, parse_condition

Reader = Callable[[Cursor], Any]


@dataclass(frozen=True, slots=True)
class Option:
    """An option that is read into the field; `gather` keeps the values of repeated options in a tuple."""

    field: str
    read: Reader
    gather: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An option of SAS that is not supported, with what to do instead."""

    remedy: str


Table = Mapping[str, Option | Refused]


def read_options(cursor: Cursor, table: Table) -> dict[str, Any]:
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


def slash_options(cursor: Cursor, table: Table) -> dict[str, Any]:
    """Options after a slash; none when the statement ends without one."""
    values = read_options(cursor, table) if cursor.accept("/") else {}
    cursor.finish()
    return values


def _look_up(cursor: Cursor, start: Token, option: Option | Refused | None, table: Table) -> Option:
    if option is None:
        _unknown(cursor, start, table)
    if isinstance(option, Refused):
        cursor.refuse_at(start, f"the option {start.text.upper()} of the {cursor.statement} statement is not supported", option.remedy)
    return option


def _unknown(cursor: Cursor, start: Token, table: Table) -> NoReturn:
    known = [name for name, o in table.items() if isinstance(o, Option)]
    near = get_close_matches(start.lower, known, 3) or sorted(known)
    cursor.fail_at(
        start,
        f"{start.text.upper()} is not an option of the {cursor.statement} statement",
        f"one of {', '.join(name.upper() for name in near)}",
    )


def flag(_cursor: Cursor) -> bool:
    """An option that is there or not."""
    return True


def constant(value: Any) -> Reader:
    """An option without a value of its own."""
    return lambda _cursor: value


def after_equals(read: Reader) -> Reader:
    """`= value`."""

    def reader(cursor: Cursor) -> Any:
        cursor.expect("=")
        return read(cursor)

    return reader


def number(cursor: Cursor) -> float:
    """A number."""
    return cursor.number()


def positive(cursor: Cursor) -> float:
    """A number above 0."""
    token = cursor.token
    value = cursor.number()
    if not value > 0:
        cursor.fail_at(token, "expected a number above 0 here")
    return value


def nonzero(cursor: Cursor) -> float:
    """A number other than 0."""
    token = cursor.token
    value = cursor.number()
    if value == 0:
        cursor.fail_at(token, "expected a number other than 0 here")
    return value


def fraction(cursor: Cursor) -> float:
    """A number between 0 and 1."""
    token = cursor.token
    value = cursor.number()
    if not 0 < value < 1:
        cursor.fail_at(token, "expected a number between 0 and 1 here", "alpha=0.05 gives 95% limits")
    return value


def whole(cursor: Cursor) -> int:
    """A whole number from 1 up."""
    return cursor.integer()


def listed(read: Reader) -> Reader:
    """One or more values, with commas or without, in parentheses or without."""

    def reader(cursor: Cursor) -> tuple[Any, ...]:
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


def one_of(choices: Mapping[str, Any], refused: Mapping[str, str] | None = None) -> Reader:
    """One of a few words; `refused` are the words that SAS has besides, each with its remedy."""

    def reader(cursor: Cursor) -> Any:
        token = cursor.token
        word = cursor.word()
        if refused and word in refused:
            cursor.refuse_at(token, f"{token.text.upper()} is not supported in the {cursor.statement} statement", refused[word])
        if word not in choices:
            near = ", ".join(dict.fromkeys(name.upper() for name in choices))
            cursor.fail_at(token, f"{token.text.upper()} is not a choice here", f"one of {near}")
        return choices[word]

    return reader


def dataset(cursor: Cursor) -> str:
    """The name of a data set: `name` or `library.name`."""
    name = cursor.take().text if cursor.token.kind in {"name", "string"} else cursor.name("the name of a data set")
    return f"{name}.{cursor.name('the name of a data set')}" if cursor.accept(".") else name


def one_effect(cursor: Cursor) -> Effect:
    """An effect such as `id`, `a*b`, `site(region)`; INTERCEPT is the effect of no variable."""
    return parse_effect(cursor, intercept=True) if cursor.sees_word("intercept") else parse_effect(cursor)


def block_numbers(cursor: Cursor) -> tuple[int, ...]:
    """The optional `=1,3` of R, V and their kin: which subjects are shown; the first by default."""
    return tuple(listed(whole)(cursor)) if cursor.accept("=") else (1,)


def degrees(cursor: Cursor) -> float | None:
    """A number of degrees of freedom; `.` keeps the default."""
    return None if cursor.accept(".") else positive(cursor)


def slices(cursor: Cursor) -> tuple[Effect, ...]:
    """`=a` or `=(a b)`."""
    cursor.expect("=")
    if not cursor.accept("("):
        return (one_effect(cursor),)
    effects: list[Effect] = []
    while not cursor.accept(")"):
        effects.append(one_effect(cursor))
    return tuple(effects)


def is_whole_data(subject: Effect | None) -> bool:
    """Whether a SUBJECT= effect makes all rows one subject: none given, or INTERCEPT."""
    return subject is None or subject == INTERCEPT


_ORDERS = {"formatted": "formatted", "internal": "internal", "data": "data", "freq": "freq"}
_METHODS = {"reml": "reml", "ml": "ml"}
_OTHER_METHOD = "method=reml and method=ml are there; the REML estimates of balanced data are the ANOVA estimates"
_METHODS_REFUSED = dict.fromkeys(("mivque0", "type1", "type2", "type3"), _OTHER_METHOD)
_DIAGNOSTIC = "the frames of result.fit hold what it is made of"


def _data(cursor: Cursor) -> tuple[str, Condition | None]:
    """`=name` or `=name(where=(condition))`."""
    cursor.expect("=")
    name = dataset(cursor)
    condition: Condition | None = None
    if cursor.accept("("):
        while not cursor.accept(")"):
            token = cursor.token
            if cursor.word() != "where":
                remedy = "change the frame before the program is run"
                cursor.refuse_at(token, f"the data set option {token.text.upper()}= is not supported", remedy)
            cursor.expect("=")
            condition = cursor.bracketed(lambda: parse_condition(cursor))
    return name, condition


def _empirical(cursor: Cursor) -> bool:
    if cursor.accept("="):
        token = cursor.token
        if cursor.word() != "classical":
            remedy = "EMPIRICAL is the classical sandwich; fit.tidy(vcov='CR2') and 'CR3' are the bias-corrected ones"
            cursor.refuse_at(token, f"EMPIRICAL={token.text.upper()} is not supported", remedy)
    return True


def _listing_limit(cursor: Cursor) -> int:
    return cursor.integer() if cursor.accept("=") else 0


def _optional_wald(cursor: Cursor) -> str:
    return str(one_of({"wald": "wald"})(cursor)) if cursor.accept("=") else "default"


def _optional_count(cursor: Cursor) -> int:
    return cursor.integer() if cursor.accept("=") else 1


def _convergence(name: str) -> Option:
    def reader(cursor: Cursor) -> tuple[str, float]:
        return name, (positive(cursor) if cursor.accept("=") else 1e-8)

    return Option("criterion", reader)


def _plots(cursor: Cursor) -> bool:
    """PLOTS=NONE alone."""
    token = cursor.token
    if not (cursor.accept("=") and cursor.sees_word("none")):
        what = "the option PLOTS of the PROC MIXED statement is not supported"
        cursor.refuse_at(token, what, "the figures of a fit are at result.fit.plot")
    cursor.take()
    return True


PROC: Table = {
    "data": Option("data", _data),
    "method": Option("method", after_equals(one_of(_METHODS, _METHODS_REFUSED))),
    "empirical": Option("empirical", _empirical),
    "covtest": Option("covtest", flag),
    "cl": Option("cl", _optional_wald),
    "alpha": Option("alpha", after_equals(fraction)),
    "noclprint": Option("noclprint", _listing_limit),
    "noinfo": Option("noinfo", flag),
    "info": Option("info", flag),
    "noitprint": Option("noitprint", flag),
    "itdetails": Option("itdetails", flag),
    "ic": Option("ic", flag),
    "infocrit": Option("ic", flag),
    "asycov": Option("asycov", flag),
    "asycorr": Option("asycorr", flag),
    "ratio": Option("ratio", flag),
    "noprofile": Option("noprofile", flag),
    "dfbw": Option("dfbw", flag),
    "order": Option("order", after_equals(one_of(_ORDERS))),
    "maxiter": Option("maxiter", after_equals(whole)),
    "maxfunc": Option("maxfunc", after_equals(whole)),
    "convf": _convergence("convf"),
    "convg": _convergence("convg"),
    "convh": _convergence("convh"),
    "scoring": Option("scoring", _optional_count),
    "namelen": Option("namelen", after_equals(whole)),
    "lognote": Option("lognote", flag),
    "plots": Option("plots", _plots),
    "plot": Option("plots", _plots),
    "absolute": Refused("convergence is judged by the gradient and the Hessian: see result.fit.checks"),
    "anovaf": Refused("F tests: ddfm=kr, satterth, contain, bw or residual"),
    "mmeq": Refused(_DIAGNOSTIC),
    "mmeqsol": Refused(_DIAGNOSTIC),
    "nobound": Refused("a variance below 0 is a negative correlation: repeated / type=cs subject=... allows it"),
    "ranks": Refused(_DIAGNOSTIC),
    "sigiter": Refused(_DIAGNOSTIC),
    "update": Refused("leave it out"),
}

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
}
_KR2 = "ddfm=kr is Kenward and Roger (1997); its improvement of 2009 is not there"
_DDFM_REFUSED = {
    "kenwardroger2": _KR2,
    "kr2": _KR2,
    "none": "result.fit.tidy(df='asymptotic') uses the normal distribution",
}


def _ddfm(cursor: Cursor) -> tuple[str, bool]:
    """`=method` or `=kr(firstorder)`."""
    cursor.expect("=")
    method = str(one_of(_DDFM, _DDFM_REFUSED)(cursor))
    if method == "kenwardroger" and cursor.accept("("):
        one_of({"firstorder": True, "linear": True})(cursor)
        cursor.expect(")")
        return method, True
    return method, False


def _htypes(cursor: Cursor) -> tuple[int, ...]:
    cursor.expect("=")
    token = cursor.token
    types = tuple(dict.fromkeys(listed(whole)(cursor)))
    if not set(types) <= {1, 2, 3}:
        cursor.fail_at(token, "HTYPE= takes 1, 2 and 3")
    return types


def _e(kind: int) -> Option:
    return Option("e", constant((kind,)), gather=True)


_INVERSE = "result.fit.vcov holds the covariance matrix of the fixed effects"

MODEL: Table = {
    "s": Option("solution", flag),
    "solution": Option("solution", flag),
    "noint": Option("noint", flag),
    "ddfm": Option("ddfm", _ddfm),
    "ddf": Option("ddf", after_equals(listed(degrees))),
    "htype": Option("htype", _htypes),
    "e": _e(0),
    "e1": _e(1),
    "e2": _e(2),
    "e3": _e(3),
    "intercept": Option("intercept", flag),
    "int": Option("intercept", flag),
    "notest": Option("notest", flag),
    "chisq": Option("chisq", flag),
    "cl": Option("cl", flag),
    "alpha": Option("alpha", after_equals(fraction)),
    "alphap": Option("alphap", after_equals(fraction)),
    "covb": Option("covb", flag),
    "covbi": Option("covbi", flag),
    "corrb": Option("corrb", flag),
    "outp": Option("outp", after_equals(dataset)),
    "outpred": Option("outp", after_equals(dataset)),
    "outpm": Option("outpm", after_equals(dataset)),
    "outpredm": Option("outpm", after_equals(dataset)),
    "residual": Option("residual", flag),
    "residuals": Option("residual", flag),
    "vciry": Option("vciry", flag),
    "contain": Option("ddfm", constant(("contain", False))),
    "fullx": Refused("columns of levels that do not occur carry no information"),
    "influence": Refused("result.fit.influence(group) holds the diagnostics of deleting a subject"),
    "lcomponents": Refused("test the rows one by one with ESTIMATE"),
    "nocontain": Refused("name the method: ddfm=residual"),
    "singchol": Refused("leave it out: the conditioning of the columns does not need it"),
    "singres": Refused("leave it out: the conditioning of the columns does not need it"),
    "singular": Refused("leave it out: dependent columns are found by their angle to the others"),
    "xpvix": Refused(_INVERSE),
    "xpvixi": Refused(_INVERSE),
    "zeta": Refused("leave it out"),
}


def proc_values(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Proc` from its options: DATA= gives two; INFO, LOGNOTE and PLOTS=NONE ask for what is so anyway."""
    for name in ("info", "lognote", "plots"):
        values.pop(name, None)
    if "data" in values:
        values["data"], values["data_where"] = values["data"]
    if "alpha" in values:  # ALPHA= alone asks for the limits as well, here and in MODEL
        values.setdefault("cl", "default")
    return values


def model_values(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Model` from its options: DDFM= gives two."""
    if "ddfm" in values:
        values["ddfm"], values["firstorder"] = values["ddfm"]
    if "alpha" in values:
        values.setdefault("cl", True)
    if "e" in values:
        values["e"] = tuple(sorted(set(values["e"])))
    return values
