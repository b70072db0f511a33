"""The syntax tree of a formula and its text, its parts as frozen values, and what an expression may call. Chains are flat."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from bayeslmm.covariance.base import StructureOrder

OptionKind = Literal["count", "number", "numbers", "flag", "word"]
MAX_BASIS_COLUMNS = 1000  # a poly or spline with more columns than this is a slip of the keyboard

CONSTANTS = frozenset({"pi"})
LITERALS = {"True": "True", "False": "False", "None": "None", "TRUE": "True", "FALSE": "False", "NULL": "None"}
# Words that start Python code. A column of this name is quoted in backticks.
RESERVED = frozenset({"lambda", "await", "and", "or", "not", "if", "else", "for", "in", "is", "import"})
CODINGS = frozenset({"C", "factor"})
CONTRASTS = ("treatment", "sum", "helmert", "poly", "diff", "sdif", "sas")


@dataclass(frozen=True, slots=True)
class Signature:
    """least..most expressions over columns, then options that may be given by place or by name."""

    least: int = 1
    most: int = 1
    options: tuple[tuple[str, OptionKind], ...] = ()

    def usage(self, name: str) -> str:
        """How the function is written, as a remedy."""
        if self.most > 2:
            return f"{name}() takes columns, numbers and strings"
        inside = [*("x", "z")[: self.most], *(f"{option}=" for option, _ in self.options)]
        return f"it is written {name}({', '.join(inside)})"


OWN_FUNCTION = Signature(0, 100)  # a function of the user's: its arguments are its own affair


def _spline(*more: tuple[str, OptionKind]) -> Signature:
    ends: tuple[tuple[str, OptionKind], ...] = (("lower_bound", "number"), ("upper_bound", "number"))
    return Signature(options=(("df", "count"), ("knots", "numbers"), *more, *ends, ("extrapolation", "word")))


_ELEMENTWISE = (
    "I abs acos asin atan ceil cos cosh exp expm1 floor log log10 log1p log2 round sign sin sinh sqrt tan tanh".split()  # noqa: SIM905
)
FUNCTIONS: dict[str, Signature] = {
    **{name: Signature() for name in _ELEMENTWISE},
    "maximum": Signature(2, 2),
    "minimum": Signature(2, 2),
    "poly": Signature(options=(("degree", "count"), ("raw", "flag"))),
    "bs": _spline(("degree", "count"), ("include_intercept", "flag")),
    "cr": _spline(("constraints", "word")),
    "cc": _spline(("constraints", "word")),
    "center": Signature(),
    "scale": Signature(options=(("center", "flag"), ("scale", "flag"), ("ddof", "number"))),
    "standardize": Signature(options=(("center", "flag"), ("rescale", "flag"), ("ddof", "number"))),
}
# Modules whose name before a function says nothing more: `np.log` is `log`; and what numpy calls otherwise.
_MODULES = ("np", "numpy", "math")
_NUMPY_NAMES = {"absolute": "abs", "fabs": "abs", "arccos": "acos", "arcsin": "asin", "arctan": "atan", "rint": "round", "around": "round"}
_NUMPY_NAMES |= {"fmax": "maximum", "fmin": "minimum"}
REMEMBERED = "center(x) and standardize(x) remember the mean and the sd of the fit"
# What people of other languages type, and what it is here.
_ELSEWHERE = {
    "ns": "cr(x, df=3, constraints='center')",
    "s": "bs(x, df=4)",
    "te": "bs(x, df=4)",
    "ifelse": "a comparison inside I(): I(x > 3)",
    "relevel": 'C(x, Treatment("level"))',
    "as": "C(x)",
    "cbind": "one model per response",
    **dict.fromkeys(("mean", "average", "median", "std", "sd", "var", "nanmean"), f"center(x) for x - mean(x): {REMEMBERED}"),
    **dict.fromkeys(("zscore", "normalize", "minmax", "demean", "rescale"), f"standardize(x): {REMEMBERED}"),
    **dict.fromkeys(("square", "pow", "power"), "I(x**2)"),
    "cube": "I(x**3)",
    **dict.fromkeys(("where", "case_when", "cut"), "a comparison inside I(): I(x > 3) is 1 where it holds; for more classes make a column"),
    **dict.fromkeys(("Categorical", "category", "categorical", "ordered", "as.character"), "C(x)"),
    **dict.fromkeys(("as.numeric", "as.integer", "as.double", "float", "int"), "x alone: a column is numbers by its dtype"),
    **dict.fromkeys(("vm", "giv", "ped", "nrm"), "(1 | g), and relationship={'g': A} as an argument of the model"),
    "Error": "the strata of aov as random effects: Error(g/f) is (1 | g) + (1 | g:f), or (f | g)",
    "zerocorr": "diag(x | g), or (x || g)",
    "fulldummy": "(0 + f | g)",
    "ar": 'the covariance of the errors as residual="ar1(time | g)"',
    **dict.fromkeys(("ma", "arma"), 'the covariance of the errors as residual="arma(time | g, 1, 1)"'),
    "cosy": 'the covariance of the errors as residual="cs(time | g)"',
    "unstr": 'the covariance of the errors as residual="us(time | g)"',
    "fcor": "the model with random effects or residual=; a known covariance among levels is relationship={'g': A}",
    "gr": "(1 | g); a known matrix is relationship={'g': A}; a covariance for each level of a factor is not here",
    **dict.fromkeys(("bf", "brmsformula"), "the formula alone; a model of sigma is variance="),
    "mvbind": "one model per response",
    **dict.fromkeys(
        ("se", "trunc", "cens", "weights"), "weights=1/se**2 and sigma=1.0 as arguments of the model for known standard errors"
    ),
    "cs": "cr(x, df=3) for a spline; cs(x | g) is compound symmetry",
    "numFactor": 'coordinates as columns: residual="sp_exp(x | g) + local", of two sp_exp(east, north | g) + local',
    "dummy": "I(f == 'level')",
    **dict.fromkeys(("at", "idh"), "diag(0 + f | g), a variance for each level of f"),
    **dict.fromkeys(("corh", "corgh", "coruh"), "csh(0 + f | g), or us(0 + f | g) with a correlation for each pair"),
    **dict.fromkeys(("cor", "corv", "coruv"), "cs(0 + f | g)"),
    **dict.fromkeys(("idv", "ide"), "(1 | g)"),
    **{f"{name}v": f'{name}(0 + f | g), or residual="{name}(t | g)"' for name in ("ar1", "toep")},
    "leg": "poly(x, 2)",
    **dict.fromkeys(("spl", "dev"), "bs(x, df=4): smooth terms with a penalty are not here"),
}


_COMBINATIONS = frozenset({"interaction", "paste", "paste0", "str_c", "unite"})
_NOT_HERE = {
    "mo": "monotonic effects are not here: C(x) has an effect for each step, x alone a straight line",
    "me": "errors in covariates are not here: brms has them",
    "mi": "columns are not imputed in the model: impute them beforehand; outcomes may be missing",
    **dict.fromkeys(("gp", "t2"), "smooth terms with a penalty are not here: bs(x, df=4) and cr(x, df=4) are splines"),
    **dict.fromkeys(("car", "sar"), "errors of neighbouring areas are not here: residual='sp_exp(x, y)' has distances"),
    **dict.fromkeys(("mm", "mmc"), "terms of several memberships are not here"),
    **dict.fromkeys(("lag", "lead", "shift", "diff", "cumsum", "rank"), "make the column beforehand: its value depends on other rows"),
}
FOREIGN_MODULES = frozenset({*_MODULES, "scipy", "pd", "pandas", "patsy", "stats", "base"})
_COMMON = ("log", "exp", "sqrt", "abs", "I", "center", "standardize", "poly", "bs", "cr", "C")


def own_name(name: str) -> str:
    """What a function or constant is called here: `np.log` is `log`, `np.pi` is `pi`, `as.factor` is `factor`; other names as they are.

    >>> own_name("np.log"), own_name("math.pi"), own_name("z.log")
    ('log', 'pi', 'z.log')
    """
    module, dot, last = name.rpartition(".")
    if dot and module in _MODULES:
        last = _NUMPY_NAMES.get(last, last)
        return last if last in FUNCTIONS or last in CONSTANTS else name
    return "factor" if name == "as.factor" else name


def function_remedy(name: str, functions: frozenset[str], columns: Sequence[str]) -> str:
    """The way out for a name that cannot be called. columns : what it was called with, where these are columns"""
    last = name.rpartition(".")[2]
    if last != name and (last in FUNCTIONS or last in functions):
        return (
            f"write {last}(...) without {name[: -len(last)]!r}"
            if name.partition(".")[0] in FOREIGN_MODULES
            else f"write {last}({name[: -len(last) - 1]})"
        )
    if (known := _known_remedy(name, columns)) is not None:
        return known
    near = get_close_matches(last, [*FUNCTIONS, *CODINGS, *functions], n=2, cutoff=0.6)
    guess = f"did you mean {' or '.join(near)}? " if near else f"there are {', '.join(_COMMON)} and more; "
    return f'{guess}a function of your own is passed as functions={{"{last}": ...}}'


def column_remedy(name: str, columns: Sequence[str]) -> str:
    """The way out for a function where only a column can stand."""
    return _known_remedy(name, columns) or "compute the column beforehand and name it"


def _known_remedy(name: str, columns: Sequence[str]) -> str | None:
    for word in (name, name.rpartition(".")[2], name.partition(".")[0]):
        if word in _COMBINATIONS:
            return f"write {':'.join(columns) if len(columns) > 1 else 'a:b'}, a level for each combination"
        if word in _ELSEWHERE and len(columns) == 1:
            return f"write {re.sub(r'\bx\b', lambda _: columns[0], _ELSEWHERE[word])}"
        if word in _ELSEWHERE:
            return f"write {_ELSEWHERE[word]}"
        if word in _NOT_HERE:
            return _NOT_HERE[word]
    return None


@dataclass(frozen=True, slots=True)
class Name:
    """A column; `quote_name` where the formula has it in backticks."""

    name: str
    quoted: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Value:
    """A number, a string, or True, False, None; `text` is how Python prints it."""

    text: str
    kind: str  # "number", "string", "literal"
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """`[1, 2]`, as an option of a function."""

    items: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arguments, option=value)`; the function is in the closed table or the user's own."""

    function: str
    arguments: tuple[Node, ...]
    options: tuple[tuple[str, Node], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x`, `+x` in arithmetic."""

    sign: str
    operand: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Operands joined by operators of one precedence, read from the left: first (op operand)*."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Power:
    """`base ** exponent`; in the algebra of terms the exponent is a small integer."""

    base: Node
    exponent: Node
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Signed summands of the algebra of terms; `0` and `1` are Values."""

    items: tuple[tuple[str, Node], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Bar:
    """`(left | group)`, `(left || group)`, or either in a wrapper with its structure and order.

    lefts : what stands before the bar, split at its commas; group : empty for a residual structure without a bar
    """

    structure: str | None
    lefts: tuple[Sum, ...]
    double: bool
    group: Node
    order: StructureOrder | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Offset:
    """`offset(expression)`."""

    expression: Node
    start: int
    end: int


Node = Name | Value | ListLiteral | Call | Unary | Chain | Power | Sum | Bar | Offset

_PRECEDENCE = {"==": 0, "!=": 0, "<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2}
_UNARY, _POWER, _ATOM = 3, 4, 5


def quote_name(name: str) -> str:
    """A column's name as a formula writes it: in backticks unless it is a plain identifier.

    >>> quote_name("Days"), quote_name("log.radon"), quote_name("a`b")
    ('Days', '`log.radon`', '`a``b`')
    """
    plain = name.isidentifier() and not keyword.iskeyword(name) and name not in LITERALS and name not in RESERVED
    # Python reads identifiers in their NFKC form: another form would name another column once an expression is evaluated.
    return name if plain and (name.isascii() or unicodedata.is_normalized("NFKC", name)) else "`" + name.replace("`", "``") + "`"


def name_text(node: Name) -> str:
    """A column; a quoted `pi` stays quoted, for without backticks it is the number."""
    return f"`{node.name}`" if node.quoted and node.name in CONSTANTS else quote_name(node.name)


def expression_text(node: Node) -> str:
    """Arithmetic and calls, as Python prints them: `I(x ** 2)`, `bs(x, df=4)`."""
    if isinstance(node, Name):
        return name_text(node)
    if isinstance(node, Value):
        return node.text
    if isinstance(node, ListLiteral):
        return "[" + ", ".join(map(expression_text, node.items)) + "]"
    if isinstance(node, Call):
        options = (f"{key}={expression_text(value)}" for key, value in node.options)
        return f"{node.function}({', '.join([*map(expression_text, node.arguments), *options])})"
    if isinstance(node, Unary):
        return node.sign + _at_least(node.operand, _UNARY)
    if isinstance(node, Power):
        return f"{_at_least(node.base, _POWER + 1)} ** {_at_least(node.exponent, _POWER)}"
    if isinstance(node, Chain):
        own = _precedence(node)
        parts = [_at_least(node.first, own + (own == 0))]
        for operator, operand in node.rest:
            parts += [operator, _at_least(operand, own + 1)]
        return " ".join(parts)
    raise TypeError(f"no expression: {type(node).__name__}")  # pragma: no cover - expressions hold nothing else


def _precedence(node: Node) -> int:
    if isinstance(node, Chain):
        return _PRECEDENCE[node.rest[0][0]]
    if isinstance(node, Unary):
        return _UNARY
    return _POWER if isinstance(node, Power) else _ATOM


def _at_least(node: Node, least: int) -> str:
    text = expression_text(node)
    return f"({text})" if _precedence(node) < least else text


_TERMS = {"*": 1, "/": 1, "%in%": 2, ":": 3}


def term_text(node: Node) -> str:
    """A summand of the algebra of terms: `a * b`, `a:b`, `(a + b)**2`."""
    if isinstance(node, Sum):
        return f"({summands_text(node.items)})"
    if isinstance(node, Power):
        return f"{term_text(node.base)}**{expression_text(node.exponent)}"
    if isinstance(node, Chain) and node.rest[0][0] in _TERMS:
        own = _TERMS[node.rest[0][0]]
        parts = [_factor(node.first, own)]
        for operator, operand in node.rest:
            parts += [":" if operator == ":" else f" {operator} ", _factor(operand, own + 1)]
        return "".join(parts)
    return expression_text(node)


def _factor(node: Node, least: int) -> str:
    text = term_text(node)
    return f"({text})" if isinstance(node, Chain) and _TERMS[node.rest[0][0]] < least else text


def summands_text(items: tuple[tuple[str, Node], ...]) -> str:
    """Signed summands: `a + b - a:b`."""
    text = " ".join(f"{sign} {term_text(node)}" for sign, node in items)
    return text.removeprefix("+ ")


def group_text(columns: tuple[str, ...]) -> str:
    """A grouping factor: `batch:cask`."""
    return ":".join(map(quote_name, columns))


Terms = tuple[tuple[str, ...], ...]
"""The terms of a right-hand side by degree, the factors of each as text; () is the intercept."""

VarianceKind = Literal["ident", "power", "exp", "const_power"]


@dataclass(frozen=True, slots=True)
class BarTerm:
    """One random-effects term `(left | group)`, after `||`, `/` and `*` have been expanded.

    structure : covariance of the term's columns: "us" unless a wrapper says otherwise, e.g. "diag", "cs", "ar1", "us@ar1"
    order : number of bands or factors, as in `toep(0 + visit | g, 2)`, or p and q of arma; None when the structure has none
    left : right-hand-side text of the columns, in formulaic's syntax: "1 + Days", "0 + Machine"
    group : columns whose interaction is the grouping factor, bare names: ("batch", "cask")
    text : the term as lme4 would print it: "1 + Days | Subject"
    terms : the terms of `left` by degree, the factors of each as text: ((), ("Days",)); () is the intercept
    """

    structure: str
    order: StructureOrder | None
    left: str
    group: tuple[str, ...]
    text: str
    terms: Terms

    @property
    def name(self) -> str:
        """Name of the grouping factor: "batch:cask"."""
        return ":".join(self.group)


@dataclass(frozen=True, slots=True)
class Formula:
    """A two-sided formula taken apart.

    response : text of the left side: "log(y)"
    fixed : right-hand-side text without bars and offsets, always with its intercept spelled: "1 + Days", "0 + x"
    random : the bar terms, in the order written
    offsets : the expressions inside `offset(...)`
    text : the formula as given, runs of white space made one
    terms : the terms of `fixed` by degree, the factors of each as text: ((), ("x",), ("x", "log(z)")); () is the intercept
    """

    response: str
    fixed: str
    random: tuple[BarTerm, ...]
    offsets: tuple[str, ...]
    text: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class ResidualTerm:
    """A covariance structure of the errors within a subject: `us(AVISIT | ARMCD / USUBJID)`.

    structure : "us", "ar1", "sp_exp", "us@ar1", ...
    order : number of bands or factors, as in `toep(VISIT | ID, 2)`, or p and q of `arma(1 | ID, 2, 1)`; None when the structure has none
    visit : columns before the bar (visits, coordinates, or outcome and visit); () is the literal 1: the order of the rows
    subject : columns whose interaction is the subject; () when all rows are one series, as in `ar1(Year)`
    group : columns whose levels have parameters of their own; () when all subjects share them
    nugget : True for `... + local`: sigma^2 I is added
    text : the canonical text
    """

    structure: str
    order: StructureOrder | None
    visit: tuple[str, ...]
    subject: tuple[str, ...]
    group: tuple[str, ...]
    nugget: bool
    text: str


@dataclass(frozen=True, slots=True)
class VarianceFactor:
    """One factor of a variance function of the residual sd.

    kind : "ident" (a sd per level), "power" (|v|^d), "exp" (exp(d v)), "const_power" (c + |v|^d)
    covariate : a column, or "fitted" for the fitted value
    group : columns with a parameter per level; () if none
    """

    kind: VarianceKind
    covariate: str
    group: tuple[str, ...]
