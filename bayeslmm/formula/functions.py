"""The closed table of what an expression may call: names, how many expressions, and which options."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

OptionKind = Literal["count", "number", "numbers", "flag", "word"]
MAX_BASIS_COLUMNS = 1000  # a poly or spline with more columns than this is a slip of the keyboard

CONSTANTS = frozenset({"pi"})
LITERALS = {"True": "True", "False": "False", "None": "None", "TRUE": "True", "FALSE": "False", "NULL": "None"}
# Words that start Python code. A column of this name is quoted in backticks.
RESERVED = frozenset({"lambda", "await", "and", "or", "not", "if", "else", "for", "in", "is", "import"})
CODINGS = frozenset({"C", "factor"})
CONTRASTS = frozenset({"treatment", "sum", "helmert", "poly", "diff", "sas"})


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
# What people of other languages type, and what it is here.
_ELSEWHERE = {
    "ns": "cr(x, df=3, constraints='center')",
    "s": "bs(x, df=4)",
    "te": "bs(x, df=4)",
    "ifelse": "a comparison inside I(): I(x > 3)",
    "relevel": 'C(x, Treatment("level"))',
    "as": "C(x)",
    "Q": "backticks: `strange name`",
    "cbind": "one model per response",
    "cs": "cr(x, df=3) for a spline; cs(x | g) is compound symmetry",
}


def function_remedy(name: str, functions: frozenset[str]) -> str:
    """The way out for a name that cannot be called."""
    last = name.rpartition(".")[2]
    if last != name and (last in FUNCTIONS or last in functions):
        return f"write {last}(...) without {name[: -len(last)]!r}"
    if name.partition(".")[0] in _ELSEWHERE:
        return f"write {_ELSEWHERE[name.partition('.')[0]]}"
    near = get_close_matches(name, [*FUNCTIONS, *CODINGS, *functions], n=2, cutoff=0.6)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f'{guess}a function of your own is passed as functions={{"{last}": ...}}'
