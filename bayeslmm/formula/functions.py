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
CONTRASTS = frozenset({"treatment", "sum", "helmert", "poly", "diff", "sdif", "sas"})


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
    "zerocorr": "diag(x | g), or (x || g)",
    "fulldummy": "(0 + f | g)",
    **dict.fromkeys(("ar", "arma", "cosy", "unstr"), 'the covariance of the errors as residual="ar1(time | g)"'),
    "gr": "(1 | g), and relationship={'g': A} for a known matrix",
    **dict.fromkeys(
        ("se", "trunc", "cens", "weights"), "weights=1/se**2 and sigma=1.0 as arguments of the model for known standard errors"
    ),
    "cs": "cr(x, df=3) for a spline; cs(x | g) is compound symmetry",
}


_NOT_HERE = {
    "mo": "monotonic effects are not here: C(x) has an effect for each step, x alone a straight line",
    "me": "errors in covariates are not here: brms has them",
    "mi": "columns are not imputed in the model: impute them beforehand; outcomes may be missing",
    **dict.fromkeys(("gp", "t2"), "smooth terms with a penalty are not here: bs(x, df=4) and cr(x, df=4) are splines"),
    **dict.fromkeys(("mm", "mmc"), "terms of several memberships are not here"),
    **dict.fromkeys(("lag", "lead", "shift", "diff", "cumsum", "rank"), "make the column beforehand: its value depends on other rows"),
}
FOREIGN_MODULES = frozenset({*_MODULES, "scipy", "pd", "pandas", "patsy", "stats", "base"})
_COMMON = ("log", "exp", "sqrt", "abs", "I", "center", "standardize", "poly", "bs", "cr", "C")


def own_name(name: str) -> str:
    """What a function is called here: `np.log` is `log`, `numpy.arcsin` is `asin`, `as.factor` is `factor`; other names as they are.

    >>> own_name("np.log"), own_name("z.log")
    ('log', 'z.log')
    """
    module, dot, last = name.rpartition(".")
    if dot and module in _MODULES:
        last = _NUMPY_NAMES.get(last, last)
        return last if last in FUNCTIONS else name
    return "factor" if name == "as.factor" else name


def function_remedy(name: str, functions: frozenset[str]) -> str:
    """The way out for a name that cannot be called."""
    last = name.rpartition(".")[2]
    if last != name and (last in FUNCTIONS or last in functions):
        return (
            f"write {last}(...) without {name[: -len(last)]!r}"
            if name.partition(".")[0] in FOREIGN_MODULES
            else f"write {last}({name[: -len(last) - 1]})"
        )
    if (known := _known_remedy(name)) is not None:
        return known
    near = get_close_matches(last, [*FUNCTIONS, *CODINGS, *functions], n=2, cutoff=0.6)
    guess = f"did you mean {' or '.join(near)}? " if near else f"there are {', '.join(_COMMON)} and more; "
    return f'{guess}a function of your own is passed as functions={{"{last}": ...}}'


def column_remedy(name: str) -> str:
    """The way out for a function where only a column can stand."""
    return _known_remedy(name) or "compute the column beforehand and name it"


def _known_remedy(name: str) -> str | None:
    for word in (name, name.rpartition(".")[2], name.partition(".")[0]):
        if word in _ELSEWHERE:
            return f"write {_ELSEWHERE[word]}"
        if word in _NOT_HERE:
            return _NOT_HERE[word]
    return None
