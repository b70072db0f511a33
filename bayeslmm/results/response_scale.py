"""The scale of the response: the inverse of its transformation in the formula, with the derivatives that standard errors and bias need.

A transformation is a chain of steps, `log(y + 1)` an addition and a logarithm. Each step is undone by a function h of one number, of which
three derivatives are known; the chain rule puts them together. It must give back the data: a step that is not one to one on them is none.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._types import ResponseType
from bayeslmm._validation import MAX_SIZE, number_below, require_flag, require_one_of
from bayeslmm.data.design import Design
from bayeslmm.data.expressions import BINARY, CONSTANT_VALUES, STATELESS, Atom, read_atom
from bayeslmm.data.variables import ExpressionVariable
from bayeslmm.errors import SpecificationError

type Derivatives = tuple[Array, Array, Array, Array]
"""A function and its first three derivatives."""

ROUND_TRIP = 1e-6
"""Largest error, relative to the spread of the response, with which a transformation gives back the data."""


@dataclass(frozen=True, slots=True)
class InverseStep:
    """What undoes one step: h with its derivatives, on the values low..high that the step takes; signed : whatever the sign of the data."""

    undo: Callable[[Array], Derivatives]
    low: float = -np.inf
    high: float = np.inf
    signed: bool = True


@dataclass(frozen=True, slots=True)
class ResponseScale:
    """From the scale of the model back to that of the response.

    name : as in the formula; inner : what is inside the outermost logarithm, whose ratios a difference is
    base : of that logarithm, None where the outermost step is none; odds : it is a logit, and ratios are of odds
    """

    name: str
    inner: str
    steps: tuple[InverseStep, ...]
    base: float | None = None
    odds: bool = False

    def back(self, values: Array) -> Array:
        """Responses of limits on the scale of the model; what lies beyond the scale's ends is at its ends."""
        with np.errstate(all="ignore"):
            for step in self.steps:
                values = step.undo(np.clip(values, step.low, step.high))[0]
        return values

    def moments(self, values: Array, sd: float | Array = 0.0) -> tuple[Array, Array]:
        """Response and its slope, NaN beyond the ends of the scale.

        sd : of the response around the values: the mean of a curve is not the curve at the mean, by half its curvature times sd^2
        """
        f0, f1 = np.array(values, float), np.ones_like(values)
        f2, f3 = np.zeros_like(f0), np.zeros_like(f0)
        with np.errstate(all="ignore"):
            for step in self.steps:
                inside = np.where((f0 < step.low) | (f0 > step.high), np.nan, f0)
                h0, h1, h2, h3 = step.undo(inside)
                f3 = h3 * f1**3 + 3.0 * h2 * f1 * f2 + h1 * f3
                f2 = h2 * f1**2 + h1 * f2
                f0, f1 = h0, h1 * f1
            half = 0.5 * sd**2
            return f0 + half * f2, f1 + half * f3

    def limits(self, low: Array, high: Array, sd: float | Array = 0.0) -> tuple[Array, Array]:
        """Confidence limits taken back, in order."""
        ends = [self.moments(end, sd)[0] if np.any(sd) else self.back(end) for end in (low, high)]
        return np.minimum(*ends), np.maximum(*ends)

    def ratio(self, differences: Array) -> Array:
        """Differences on a logarithmic scale as ratios."""
        assert self.base is not None
        return np.asarray(self.base**differences)


def response_scale(design: Design) -> ResponseScale | None:
    """The scale of a model's response; None where the response is a column as it is.

    Errors: `SpecificationError` where the response is transformed by what is not one to one on the data.
    """
    variable = design.encoding.response_atom
    if not isinstance(variable, ExpressionVariable):
        atom = read_atom(design.spec.formula.response)
        if atom.kind == "column":
            return None
        raise _not_invertible(atom, "it remembers the rows of the fit")
    atom = variable.atom
    if not design.in_memory:
        found = _chain(atom, positive=False)
        if not all(step.signed for step in found.steps):
            raise _not_invertible(atom, "the rows, which would tell the sign of the data, were not kept")
        return found if found.steps else None
    column = design.frame[atom.columns[0]].to_numpy(float)
    found = _chain(atom, bool(np.all(column > 0)))
    if not found.steps:
        return None
    spread = float(np.ptp(column)) or 1.0
    if not np.all(np.abs(found.back(np.asarray(design.y, float)) - column) <= ROUND_TRIP * spread):
        raise _not_invertible(atom, f"it is not one to one on the values of {atom.columns[0]!r}")
    return found


def response_options(design: Design, type: Any, bias_adjust: Any) -> tuple[ResponseScale | None, float | None]:  # noqa: A002
    """The scale to go back to, None to stay; the sd of responses that means are adjusted by: 0 for none, None for that of the model."""
    require_one_of(type, get_args(ResponseType), "type")
    number = isinstance(bias_adjust, Real) and not isinstance(bias_adjust, bool | np.bool_)
    if number and not number_below(bias_adjust, MAX_SIZE) > 0:
        raise SpecificationError(f"bias_adjust is {bias_adjust!r}", "bias_adjust", "use True, False or a standard deviation")
    wanted = number or require_flag(bias_adjust, "bias_adjust")
    if type == "link":
        if wanted:
            raise SpecificationError("bias is adjusted for on the scale of the response", "bias_adjust", 'add type="response"')
        return None, 0.0
    scale = response_scale(design)
    if scale is None or not wanted:
        return scale, 0.0
    return scale, float(bias_adjust) if number else None


def scale_name(design: Design, type: str = "link") -> str:  # noqa: A002
    """What a mean is of: the response as the formula has it, or on its own scale the column."""
    atom = read_atom(design.spec.formula.response)
    return atom.columns[0] if type == "response" and len(atom.columns) == 1 else atom.name


def transformed_response(design: Design) -> str | None:
    """The response as the formula has it, where that is not a column as it is."""
    atom = read_atom(design.spec.formula.response)
    return None if atom.kind == "column" else atom.name


def _not_invertible(atom: Atom, why: str) -> SpecificationError:
    return SpecificationError(f"the response {atom.name!r} cannot be transformed back: {why}", "type='response'", "leave type out")


def _chain(atom: Atom, positive: bool) -> ResponseScale:
    """Steps from the outermost, by a walk down the one branch that holds the column."""
    node: ast.expr = _inside(atom.node)
    base, odds, inner = None, False, atom.name
    steps: list[InverseStep] = []
    if len(atom.columns) != 1:
        raise _not_invertible(atom, "it reads several columns")
    if (logit := _logit_argument(node)) is not None:
        base, odds, inner, node = math.e, True, _text(logit, atom), _inside(logit)
        steps.append(InverseStep(_expit))
    while not isinstance(node, ast.Name):
        first = not steps
        node, step, logarithm = _step(node, atom, positive)
        node = _inside(node)
        steps.append(step)
        if first and logarithm is not None:
            base = logarithm
            inner = f"{_text(node, atom)} + 1" if step.undo is _expm1 else _text(node, atom)
    return ResponseScale(atom.name, inner, tuple(steps), base, odds)


def _text(node: ast.expr, atom: Atom) -> str:
    text = ast.unparse(node)
    for alias, name in atom.aliases.items():
        text = text.replace(alias, name)
    return text


def _inside(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "I" and len(node.args) == 1:
        node = node.args[0]
    return node


def _logit_argument(node: ast.expr) -> ast.expr | None:
    """p of `log(p / (1 - p))`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log" and len(node.args) == 1):
        return None
    share = _inside(node.args[0])
    if not (isinstance(share, ast.BinOp) and isinstance(share.op, ast.Div) and isinstance(share.right, ast.BinOp)):
        return None
    rest = share.right
    one = isinstance(rest.left, ast.Constant) and rest.left.value == 1 and isinstance(rest.op, ast.Sub)
    return share.left if one and ast.dump(share.left) == ast.dump(rest.right) else None


def _step(node: ast.expr, atom: Atom, positive: bool) -> tuple[ast.expr, InverseStep, float | None]:
    """The outermost step: what is inside it, what undoes it, and the base where it is a logarithm."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return node.operand, _affine(-1.0, 0.0), None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and node.func.id in _FUNCTIONS:
        step, base = _FUNCTIONS[node.func.id]
        return node.args[0], step, base
    if isinstance(node, ast.BinOp):
        left, right = _constant(node.left, atom), _constant(node.right, atom)
        if right is not None and left is None:
            return node.left, _undo_right(node.op, right, atom, positive), None
        if left is not None and right is None:
            return node.right, _undo_left(node.op, left, atom, positive), None
    raise _not_invertible(atom, f"{_text(node, atom)} has no inverse that is known")


def _constant(node: ast.expr, atom: Atom) -> float | None:
    """The number that an expression without columns is."""
    if isinstance(node, ast.Constant):
        return float(node.value) if isinstance(node.value, int | float) else None
    if isinstance(node, ast.Name):
        return CONSTANT_VALUES.get(node.id) if node.id not in atom.aliases else None
    function: Callable[..., Any] | None = None
    parts: Sequence[ast.expr] = ()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        function, parts = np.negative, [node.operand]
    elif isinstance(node, ast.BinOp):
        function, parts = BINARY.get(type(node.op)), [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        function, parts = STATELESS.get(node.func.id), node.args
    values = [value for part in parts if (value := _constant(part, atom)) is not None]
    if function is None or len(values) < len(parts):
        return None
    with np.errstate(all="ignore"):
        found = float(function(*values))
    return found if np.isfinite(found) else None


def _undo_right(operator: ast.operator, c: float, atom: Atom, positive: bool) -> InverseStep:
    """Of u + c, u - c, u * c, u / c, u ** c."""
    if isinstance(operator, ast.Add | ast.Sub):
        return _affine(1.0, -c if isinstance(operator, ast.Add) else c)
    if isinstance(operator, ast.Mult | ast.Div) and c != 0.0:
        return _affine(1.0 / c if isinstance(operator, ast.Mult) else c, 0.0)
    if isinstance(operator, ast.Pow) and c != 0.0:
        odd = c > 0 and c % 2 == 1
        return InverseStep(_power(1.0 / c, odd), -np.inf if odd and not positive else 0.0, signed=c % 2.0 != 0.0)
    raise _not_invertible(atom, "an operation has no inverse that is known")


def _undo_left(operator: ast.operator, c: float, atom: Atom, positive: bool) -> InverseStep:
    """Of c + u, c - u, c * u, c / u, c ** u."""
    if isinstance(operator, ast.Add | ast.Sub):
        return _affine(1.0, -c) if isinstance(operator, ast.Add) else _affine(-1.0, c)
    if isinstance(operator, ast.Mult) and c != 0.0:
        return _affine(1.0 / c, 0.0)
    if isinstance(operator, ast.Div) and c != 0.0:
        ends = ((0.0, np.inf) if c > 0 else (-np.inf, 0.0)) if positive else (-np.inf, np.inf)
        return InverseStep(lambda v: (c / v, -c / v**2, 2.0 * c / v**3, -6.0 * c / v**4), *ends)
    if isinstance(operator, ast.Pow) and c > 0.0 and c != 1.0:
        scale = 1.0 / np.log(c)
        return InverseStep(lambda v: (scale * np.log(v), scale / v, -scale / v**2, 2.0 * scale / v**3), 0.0)
    raise _not_invertible(atom, "an operation has no inverse that is known")


def _affine(slope: float, shift: float) -> InverseStep:
    return InverseStep(lambda v: (slope * v + shift, np.full_like(v, slope), np.zeros_like(v), np.zeros_like(v)))


def _power(k: float, odd: bool) -> Callable[[Array], Derivatives]:
    def undo(v: Array) -> Derivatives:
        size = np.abs(v) if odd else v
        sign = np.sign(v) if odd else np.ones_like(v)
        slopes = (k, k * (k - 1.0), k * (k - 1.0) * (k - 2.0))
        first, second, third = (c * size ** (k - d) if c else np.zeros_like(v) for d, c in enumerate(slopes, 1))
        return sign * size**k, first, sign * second, third

    return undo


def _exponential(rate: float, shift: float = 0.0) -> Callable[[Array], Derivatives]:
    def undo(v: Array) -> Derivatives:
        value = np.exp(rate * v)
        return value + shift, rate * value, rate**2 * value, rate**3 * value

    return undo


def _expit(v: Array) -> Derivatives:
    s = 1.0 / (1.0 + np.exp(-v))
    slope = s * (1.0 - s)
    return s, slope, slope * (1.0 - 2.0 * s), slope * (1.0 - 6.0 * slope)


def _logarithm(shift: float) -> Callable[[Array], Derivatives]:
    return lambda v: (np.log(v + shift), 1.0 / (v + shift), -1.0 / (v + shift) ** 2, 2.0 / (v + shift) ** 3)


def _tan(v: Array) -> Derivatives:
    t = np.tan(v)
    slope = 1.0 + t**2
    return t, slope, 2.0 * t * slope, 2.0 * slope * (1.0 + 3.0 * t**2)


_expm1 = _exponential(1.0, -1.0)
_FUNCTIONS: dict[str, tuple[InverseStep, float | None]] = {
    "log": (InverseStep(_exponential(1.0)), math.e),
    "log2": (InverseStep(_exponential(float(np.log(2.0)))), 2.0),
    "log10": (InverseStep(_exponential(float(np.log(10.0)))), 10.0),
    "log1p": (InverseStep(_expm1), math.e),
    "exp": (InverseStep(_logarithm(0.0), 0.0), None),
    "expm1": (InverseStep(_logarithm(1.0), -1.0), None),
    "sqrt": (InverseStep(_power(2.0, odd=False), 0.0), None),
    "asin": (InverseStep(lambda v: (np.sin(v), np.cos(v), -np.sin(v), -np.cos(v)), -0.5 * np.pi, 0.5 * np.pi), None),
    "atan": (InverseStep(_tan, -0.5 * np.pi, 0.5 * np.pi), None),
}

RELATIVE_STEP = 1e-3
"""Steps of the five-point rule, relative to the outcome: its error is then 1e-12 for logarithms and powers."""


def outcome_columns(design: Design) -> list[str]:
    """The columns of the data that the left side of the formula reads."""
    return [str(name) for name in design.encoding.response_atom.columns]


def log_jacobian(design: Design, outcome: str | None = None) -> Array:
    """log |dg/dy| of every row, (n,), y the column `outcome`: the only one that the response reads unless it is named.

    Raises SpecificationError where the response is no smooth function of that column, row by row.
    """
    columns, text = outcome_columns(design), str(design.spec.formula.response)
    if outcome is None:
        if len(columns) != 1:
            raise SpecificationError(f"the response {text} is made of several columns", text, "make it a function of one column")
        outcome = columns[0]
    if columns == [text]:
        return np.zeros(design.nobs)
    frame = pd.DataFrame({name: design.frame[name] for name in columns})
    y = pd.to_numeric(frame[outcome], errors="coerce").to_numpy(float)
    size = np.abs(y)
    h = RELATIVE_STEP * np.where(size > 0, size, np.median(size[size > 0]) if (size > 0).any() else 1.0)

    def at(values: Array) -> Array:
        return design.encoding.response(frame.assign(**{outcome: values}))

    with np.errstate(all="ignore"):
        slope = (at(y - 2 * h) - 8 * at(y - h) + 8 * at(y + h) - at(y + 2 * h)) / (12 * h)
        odd = np.arange(len(y)) % 2 == 1
        alone = np.array_equal(at(np.where(odd, y, y + h))[odd], at(y)[odd])
        found = np.log(np.abs(slope))
    if not alone or not np.isfinite(found).all():
        raise SpecificationError(
            f"the response {text} is no smooth function of {outcome!r}, row by row: its density cannot be told from that of another scale",
            text,
            "compare models of one response",
        )
    return found


def outcome_jacobians(designs: Mapping[str, Design]) -> dict[str, Array] | None:
    """log |dg/dy| of every design (n,), y the one column of the data that all their responses are functions of; 0 where they are the same.

    None where there is no such column, or where its values or the rows differ.
    """
    first = next(iter(designs.values()))
    if any(len(d.y) != len(first.y) or not np.array_equal(d.rows, first.rows) for d in designs.values()):
        return None
    if all(np.array_equal(d.y, first.y) for d in designs.values()):
        return {name: np.zeros(d.nobs) for name, d in designs.items()}
    if not all(d.in_memory for d in designs.values()):
        return None
    shared = set.intersection(*(set(outcome_columns(d)) for d in designs.values()))
    if len(shared) != 1:
        return None
    (outcome,) = shared
    values = [d.frame[outcome].to_numpy() for d in designs.values()]
    if any(not np.array_equal(own, values[0]) for own in values[1:]):
        return None
    return {name: log_jacobian(d, outcome) for name, d in designs.items()}
