"""Linear functions of the coefficients from arrays, names or equations: estimability, tests, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from difflib import get_close_matches
from itertools import permutations
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, is_counted, label_text, numbers_of
from bayeslmm._validation import require_level
from bayeslmm.data.design import Design
from bayeslmm.data.expressions import atom_name
from bayeslmm.data.model_matrix import name_parts
from bayeslmm.errors import InferenceError, SpecificationError, printable_text, show_value
from bayeslmm.estimate.estimate import Fitted
from bayeslmm.inference.fixed_effects.tests import fixed_effects
from bayeslmm.inference.means.hypothesis import Hypothesis
from bayeslmm.likelihood.identification import Aliases
from bayeslmm.likelihood.standardize import Standardization
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.render import NotedFrame, add_notes

if TYPE_CHECKING:
    from bayeslmm._types import ArrayLike, DfMethod, Information, LinearFunction, Side, VcovMethod


COMPARISON_SIGN = re.compile(r"[<>]=?|!=|[≤≥≠]")
NUMBER_PATTERN = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

PARTS_REORDERED = 4
"""Factors of an interaction up to which an equation may write them in any order."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearFunctions:
    """L (r, all coefficients), what each row is compared with, and how it is called."""

    L: Array
    rhs: Array
    labels: tuple[str, ...]


def estimable_functions(hypotheses: Any, design: Design, standardization: Standardization, rhs: Any = 0) -> LinearFunctions:
    """L over the coefficients kept (r, p), from what the user gave over all coefficients or, as an array, over those kept.

    Errors: those of `linear_functions`; `InferenceError` for what is not estimable.
    """
    names = design.coef_names
    if design.aliased and _width(hypotheses) == len(design.kept):  # rows of X as it was fitted: nothing in them is aliased
        return linear_functions(hypotheses, [names[i] for i in design.kept], rhs)
    functions = linear_functions(hypotheses, names, rhs)
    return replace(functions, L=require_estimable(functions, design, standardization))


def _width(hypotheses: Any) -> int | None:
    """Weights of a row, where rows are numbers without names."""
    if isinstance(hypotheses, str | Mapping | pd.Series | pd.DataFrame):
        return None
    try:
        return int(np.atleast_2d(numbers_of(hypotheses, "L")).shape[-1])
    except SpecificationError:
        return None


def linear_functions(hypotheses: Any, names: Sequence[str], rhs: Any = 0) -> LinearFunctions:
    """L, from what the user gave.

    hypotheses : an array (r, p) or (p,) over all coefficients; {name: weight}; {label: any of these} ; an equation
        `"a - 2 * b = 0"`; a sequence of dicts or equations
    rhs : a number, or one per row; an equation with a right-hand side has its own
    Errors: `SpecificationError` for names that are not coefficients (the nearest is told), wrong widths, what is no equation.
    """
    rows, values, labels = _rows(hypotheses, tuple(names))
    L = np.array(rows, float).reshape(-1, len(names))
    if not np.any(L, axis=1).all():
        raise SpecificationError(
            "a contrast without a coefficient says nothing of the model", f"L = {show_value(hypotheses)}", "name a coefficient"
        )
    if not len(L) or not np.all(np.isfinite(L)):
        raise SpecificationError("a contrast needs finite weights", f"L = {show_value(hypotheses)}", "give one row of numbers per contrast")
    if isinstance(rhs, pd.Series) and not is_counted(rhs.index):
        rhs = align_labels(rhs, labels, "rhs=", whole=True)
    right = numbers_of(rhs, "rhs")
    if right.ndim > 1 or right.size not in (1, len(L)):
        raise SpecificationError(f"{right.size} right-hand sides for {len(L)} contrasts", "rhs=", "give one number, or one per row of L")
    if not np.isfinite(right).all():
        raise SpecificationError("rhs is not finite", f"rhs={show_value(rhs)}", "give one number, or one per row of L")
    right = np.broadcast_to(right, (len(L),))
    own = np.array([np.nan if v is None else v for v in values])
    if np.isinf(own).any():
        raise SpecificationError(
            "an equation has an infinite right-hand side", f"L = {show_value(hypotheses)}", "compare with a finite number"
        )
    return LinearFunctions(L, np.where(np.isnan(own), right, own), tuple(labels))


def _rows(hypotheses: Any, names: tuple[str, ...]) -> tuple[list[Array], list[float | None], list[str]]:
    if isinstance(hypotheses, str):
        row, value = parse_equation(hypotheses, names)
        return [row], [value], [" ".join(hypotheses.split())]
    if isinstance(hypotheses, pd.Series | pd.DataFrame):
        hypotheses = _by_label(hypotheses)
    if isinstance(hypotheses, Mapping):
        return _from_mapping(hypotheses, names)
    if isinstance(hypotheses, Sequence) and hypotheses and all(isinstance(part, str | Mapping | pd.Series) for part in hypotheses):
        parts = [_rows(part, names) for part in hypotheses]
        return [r for p in parts for r in p[0]], [v for p in parts for v in p[1]], [label for p in parts for label in p[2]]
    return _array(hypotheses, names)


def _by_label(hypotheses: pd.Series[Any] | pd.DataFrame) -> Any:
    """A labelled row or table as mappings of its labels; one that only counts its columns is an array."""
    labels = hypotheses.columns if isinstance(hypotheses, pd.DataFrame) else hypotheses.index
    if is_counted(labels):
        return hypotheses.to_numpy()
    _require_distinct(labels, "L")
    if isinstance(hypotheses, pd.Series):
        return hypotheses.to_dict()
    rows = [dict(zip(labels, row, strict=True)) for row in hypotheses.to_numpy()]
    if is_counted(hypotheses.index):
        return rows
    _require_distinct(hypotheses.index, "L")
    return dict(zip(hypotheses.index, rows, strict=True))


def _require_distinct(labels: pd.Index[Any], where: str) -> None:
    if not labels.is_unique:
        twice = str(labels[labels.duplicated()][0])
        raise SpecificationError(f"the label {twice!r} stands twice", where, "give every label once, or an array without labels")


def align_labels(values: pd.Series[Any], labels: Sequence[str], where: str, whole: bool = False) -> Array:
    """Values in the order of these labels, 0 where one is not given; `whole` asks for all of them. Values that are only counted stay.

    Errors: `SpecificationError` for a label that is none of these, or stands twice.
    """
    if is_counted(values.index):
        return numbers_of(values, where)
    found = pd.Series(numbers_of(values, where, labelled=True), index=[label_text(label) for label in values.index])
    _require_distinct(found.index, where)
    unknown = [label for label in found.index if label not in labels]
    absent = [label for label in labels if label not in found.index] if whole else []
    if unknown or absent:
        what = f"{unknown[0]!r} is none of the labels" if unknown else f"there is no value for {absent[0]!r}"
        raise SpecificationError(what, f"{where}; labels: {', '.join(labels)}", "label the values so, or give an array in this order")
    return np.asarray(found.reindex(list(labels), fill_value=0.0), float)


def _from_mapping(hypotheses: Mapping[Any, Any], names: tuple[str, ...]) -> tuple[list[Array], list[float | None], list[str]]:
    if all(isinstance(weight, Real | Decimal | np.generic) or getattr(weight, "shape", None) == () for weight in hypotheses.values()):
        row = np.zeros(len(names))
        for name, weight in hypotheses.items():
            row[coefficient_position(str(name), names)] += numbers_of(weight, f"the weight of {name}")
        return [row], [None], [row_label(row, names)]
    rows, values, labels = [], [], []
    for label, part in hypotheses.items():
        r, v, _ = _rows(part, names)
        rows += r
        values += v
        labels += [str(label)] if len(r) == 1 else [f"{label}[{i + 1}]" for i in range(len(r))]
    return rows, values, labels


def _array(hypotheses: Any, names: tuple[str, ...]) -> tuple[list[Array], list[float | None], list[str]]:
    try:
        L = np.atleast_2d(numbers_of(hypotheses, "L"))
    except SpecificationError:
        raise SpecificationError(
            "a contrast is an array, a dict of coefficients or an equation",
            f"L = {show_value(hypotheses)}",
            f'write it as "{names[-1]} = 0"',
        ) from None
    if L.ndim != 2 or L.shape[1] != len(names):
        raise SpecificationError(
            f"L has {L.shape[-1]} columns and the model {len(names)} coefficients",
            f"coefficients: {', '.join(names)}",
            "give one weight per coefficient, in this order, or name the coefficients",
        )
    return list(L), [None] * len(L), [row_label(row, names) for row in L]


def row_label(row: Array, names: Sequence[str]) -> str:
    """A row as a sum: `ARMCD[T.TRT] - 2 * x`."""
    text = ""
    for weight, name in zip(row, names, strict=True):
        if weight == 0.0:
            continue
        sign = " - " if weight < 0 else " + "
        size = "" if abs(weight) == 1.0 else f"{abs(weight):.4g} * "
        text += f"{sign if text else sign.strip().replace('+', '')}{size}{name}"
    return text or "0"


def coefficient_position(name: str, names: Sequence[str]) -> int:
    """Where a coefficient stands; the factors of an interaction may come in any order."""
    given, name = name, name.strip()
    plain = atom_name(name)
    spelled = plain if plain != name else plain.replace("(Intercept)", "Intercept")  # R's word, and not a column of that name
    spaced = [f"`{given}`"] if given != name else []  # as columns are called whose names begin or end with a space
    for exact in (given, *spaced, name, *([plain] if plain != name else [])):
        if exact in names:
            return list(names).index(exact)
    for wanted in (name_parts(name), name_parts(spelled), (f"`{plain}`",)):
        for i, own in enumerate(names):
            if name_parts(own) == wanted:
                return i
    near = get_close_matches(name, names, 1, 0.4)
    remedy = f"did you mean {near[0]!r}? " if near else ""
    raise SpecificationError(f"{name!r} is not a coefficient", f"coefficients: {', '.join(names)}", remedy + "see fit.fixef")


# -- equations -------------------------------------------------------------------------------------------------------------------------


def parse_equation(text: str, names: Sequence[str]) -> tuple[Array, float | None]:
    """Weights (p,) and the right-hand side of `a - 2 * b = 0`; None where there is no `=`.

    A coefficient is written as it is called, whatever its name holds: the longest name that fits is taken first.
    """
    return _Equation(text, _spellings(names), list(names)).parse()


def _spellings(names: Sequence[str]) -> dict[str, int]:
    """Ways to write each coefficient, the longest first: expressions with or without spaces, factors of an interaction in any order."""
    found = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(names):
        parts = name_parts(name)
        orders = permutations(parts) if len(parts) <= PARTS_REORDERED else [parts]
        for order in orders:
            found.setdefault(":".join(order), i)
    return dict(sorted(found.items(), key=lambda item: len(item[0]), reverse=True))


class _Equation:
    """Sums of products of a number and a coefficient, on both sides."""

    def __init__(self, text: str, spellings: dict[str, int], names: list[str]) -> None:
        self.text, self.spellings, self.names, self.at = text, spellings, names, 0

    def parse(self) -> tuple[Array, float | None]:
        weights, constant = self._sum()
        value: float | None = None
        if self._take("==") or self._take("="):
            right, number = self._sum()
            weights, constant = weights - right, constant - number
            value = 0.0
        self._space()
        if self.at < len(self.text):
            raise self._error()
        if constant and value is None:
            raise SpecificationError(f"a number stands alone in {self.text!r}", "", "write an equation: coefficients = number")
        return weights, None if value is None else -constant

    def _sum(self) -> tuple[Array, float]:
        weights, constant = np.zeros(len(self.names)), 0.0
        sign = -1.0 if self._take("-") else 1.0
        self._take("+")
        while True:
            name, factor = self._product()
            if name is None:
                constant += sign * factor
            else:
                weights[name] += sign * factor
            if self._take("-"):
                sign = -1.0
            elif self._take("+"):
                sign = 1.0
            else:
                return weights, constant

    def _product(self) -> tuple[int | None, float]:
        name, factor = self._factor()
        while True:
            if self._take("*"):
                other, value = self._factor()
                if name is not None and other is not None:
                    raise SpecificationError(
                        f"a product of coefficients is not linear: {self.text!r}", "", "see fit.bootstrap for other functions"
                    )
                name, factor = name if other is None else other, factor * value
            elif self._take("/"):
                other, value = self._factor()
                if other is not None or value == 0.0:
                    raise SpecificationError(f"a quotient of coefficients is not linear: {self.text!r}", "", "divide by a number")
                factor /= value
            else:
                return name, factor

    def _factor(self) -> tuple[int | None, float]:
        self._space()
        rest = self.text[self.at :]
        for spelled, position in self.spellings.items():
            if rest.startswith(spelled) and not _goes_on(rest, len(spelled)):
                self.at += len(spelled)
                return position, 1.0
        if rest.startswith("`") and "`" in rest[1:]:
            end = rest.index("`", 1)
            self.at += end + 1
            return coefficient_position(rest[: end + 1], self.names), 1.0
        found = NUMBER_PATTERN.match(rest)
        if found and not _goes_on(rest, found.end()):
            self.at += found.end()
            return None, float(found.group())
        raise self._error()

    def _take(self, sign: str) -> bool:
        self._space()
        if self.text.startswith(sign, self.at):
            self.at += len(sign)
            return True
        return False

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _error(self) -> SpecificationError:
        rest = self.text[self.at :].strip()
        comparison = COMPARISON_SIGN.match(rest)
        if comparison:
            equation = f"{self.text[: self.at].strip()} = {rest[comparison.end() :].strip()}"
            return SpecificationError(
                f"a contrast is an equation, and {self.text!r} compares by {comparison.group()!r}",
                "",
                f'write "{equation}": of a posterior, `probability` is then that of the left side being larger',
            )
        word = re.split(r"\s*[-+*/=]\s*", rest, maxsplit=1)[0].strip() if rest else ""
        if not word:
            return SpecificationError(f"{self.text!r} ends where a coefficient is expected", "", 'write it as "a - 2 * b = 0"')
        near = get_close_matches(word, self.names, 1, 0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        if word.startswith((",", "(")) and "," in self.text:  # statsmodels' way
            remedy = 'several equations stand in a list: ["a = 0", "b = 0"]; '
        where = f"in {self.text!r}; coefficients: {', '.join(self.names)}"
        return SpecificationError(f"{word!r} is not a coefficient", where, remedy + "names are those of fit.fixef")


def _goes_on(text: str, end: int) -> bool:
    """Whether a name or number would be cut in two here."""
    return end < len(text) and (text[end].isalnum() or text[end] in "_[.:(") and (text[end - 1].isalnum() or text[end - 1] in "_.])")


# -- what can be estimated ---------------------------------------------------------------------------------------------------------------


def restrict_to_kept(L: Array, design: Design, standardization: Standardization) -> tuple[Array, NDArray[np.bool_]]:
    """L over the coefficients kept (r, p), and which rows can be estimated (r,)."""
    own = L[:, list(design.kept)]
    if not design.aliased:
        return own, np.ones(len(L), bool)
    return own, Aliases.of(design, standardization).estimable(L, standardization.functions(own))


def require_estimable(functions: LinearFunctions, design: Design, standardization: Standardization) -> Array:
    """L over the coefficients kept.

    Errors: `InferenceError` naming the rows that are not estimable.
    """
    L, estimable = restrict_to_kept(functions.L, design, standardization)
    if not estimable.all():
        wrong = [label for label, fine in zip(functions.labels, estimable, strict=True) if not fine]
        raise InferenceError(
            f"not estimable: {'; '.join(wrong)}",
            f"aliased coefficients: {', '.join(design.aliased)}",
            "the data say nothing about this function of the coefficients: drop the aliased terms, or combine levels",
        )
    return L


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """What the data say of linear functions of the coefficients.

    `estimate` is the left side minus the right side.

    Attributes
    ----------
    frame : NotedFrame
        One row per contrast, `term, estimate, std_error, df, statistic, p_value, conf_low, conf_high`.
    joint : DataFrame
        One row, `num_df, den_df, statistic, p_value`.
    """

    frame: NotedFrame
    joint: pd.DataFrame

    def __repr__(self) -> str:
        return printable_text(f"{self.frame!r}\n\njointly:\n{self.joint.to_string(index=False)}")

    def _repr_html_(self) -> str:
        return f"{self.frame._repr_html_()}\n{printable_text(self.joint.to_html(index=False))}"


known_arguments(Contrast)


def contrast(
    fit: Fitted,
    L: LinearFunction,
    rhs: ArrayLike = 0,
    df: DfMethod = "satterthwaite",
    vcov: VcovMethod | None = None,
    information: Information = "expected",
    cluster: str | None = None,
    side: Side = "two-sided",
    delta: float = 0.0,
    equivalence: float | None = None,
    conf_level: float = 0.95,
) -> Contrast:
    """Test linear functions of the coefficients.

    L : an array with one weight per coefficient, a dict {coefficient: weight}, an equation "ARMCD[T.TRT] - 2 * x = 0",
        or a list or dict of these
    rhs : what the rows of L are compared with, unless an equation says it
    side, delta, equivalence : one-sided tests, margins and two one-sided tests of the estimate minus rhs

    >>> contrast(fit, "Days = 10").frame["estimate"].round(2).tolist()
    [0.47]
    """
    hypothesis, level = Hypothesis.read(side, delta, equivalence), require_level(conf_level)
    functions = estimable_functions(L, fit.design, fit.problem.standardization, rhs)
    effects = fixed_effects(fit, df, vcov, information, cluster)
    single, joint = effects.t(functions.L, functions.rhs), effects.joint(functions.L, functions.rhs)
    estimate = single.estimate - functions.rhs
    statistic = hypothesis.statistic(estimate, single.std_error)
    low, high = hypothesis.limits(estimate, hypothesis.critical(level, single.df) * single.std_error)
    columns = {
        "term": list(functions.labels),
        "estimate": estimate,
        "std_error": single.std_error,
        "df": single.df,
        "statistic": statistic,
        "p_value": hypothesis.p(statistic, single.df),
        "conf_low": low,
        "conf_high": high,
    }
    together = {"num_df": joint.num_df, "den_df": joint.den_df, "statistic": joint.statistic, "p_value": joint.p_value}
    return Contrast(add_notes(pd.DataFrame(columns), hypothesis.notes), pd.DataFrame([together]))
