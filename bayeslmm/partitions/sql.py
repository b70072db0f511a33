"""Columns of a formula as SQL: arithmetic, functions, codings of factors, as an engine computes them row by row."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.data.expressions import CONSTANT_VALUES, Atom
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.data.variables import EncodedVariable, ExpressionVariable, FactorVariable, NumericVariable
from bayeslmm.errors import DataError, FormulaError

INTEGERS = frozenset(sign + size + "INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")) | {"INTEGER", "UINTEGER"}
FLOATS = frozenset({"FLOAT", "DOUBLE"})

NAN = "CAST('NaN' AS DOUBLE)"

_FUNCTIONS: Mapping[str, str] = {
    "I": "({0})",
    "abs": "abs({0})",
    "acos": "acos({0})",
    "asin": "asin({0})",
    "atan": "atan({0})",
    "ceil": "ceil({0})",
    "cos": "cos({0})",
    "cosh": "cosh({0})",
    "exp": "exp({0})",
    # exp(x) - 1 and log(1 + x) without loss near 0
    "expm1": "(2e0 * exp(({0}) / 2e0) * sinh(({0}) / 2e0))",
    "floor": "floor({0})",
    "log": "ln({0})",
    "log10": "log10({0})",
    "log1p": "(CASE WHEN 1e0 + ({0}) = 1e0 THEN ({0}) ELSE ln(1e0 + ({0})) * (({0}) / ((1e0 + ({0})) - 1e0)) END)",
    "log2": "log2({0})",
    "maximum": f"(CASE WHEN isnan({{0}}) OR isnan({{1}}) THEN {NAN} ELSE greatest({{0}}, {{1}}) END)",
    "minimum": f"(CASE WHEN isnan({{0}}) OR isnan({{1}}) THEN {NAN} ELSE least({{0}}, {{1}}) END)",
    "round": "round_even({0}, 0)",
    "sign": "CAST(sign({0}) AS DOUBLE)",
    "sin": "sin({0})",
    "sinh": "sinh({0})",
    "sqrt": "sqrt({0})",
    "tan": "tan({0})",
    "tanh": "tanh({0})",
}
# engines give the remainder the sign of the dividend; here it has that of the divisor
_REMAINDER = "(CASE WHEN ({0}) % ({1}) <> 0e0 AND (({0}) % ({1}) < 0e0) <> (({1}) < 0e0) THEN ({0}) % ({1}) + ({1}) ELSE ({0}) % ({1}) END)"
_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "(({0}) + ({1}))",
    ast.Sub: "(({0}) - ({1}))",
    ast.Mult: "(({0}) * ({1}))",
    ast.Div: "(({0}) / ({1}))",
    ast.Pow: "pow({0}, {1})",
}
_COMPARE: Mapping[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "=", ast.NotEq: "<>"}


def number_text(value: float) -> str:
    """A number as SQL reads it to the last digit: with an exponent, since without one it is a decimal."""
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"


def quoted_name(name: str) -> str:
    """The name of a column."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(value: str) -> str:
    """A text."""
    return "'" + value.replace("'", "''") + "'"


def combination(coefficients: Iterable[float], columns: Iterable[str]) -> str:
    """A linear combination of columns, zeros left out."""
    parts = [f"{number_text(c)} * {column}" for c, column in zip(coefficients, columns, strict=True) if c != 0.0]
    return "(" + (" + ".join(parts) or "0e0") + ")"


@dataclass(frozen=True, slots=True)
class SqlColumns:
    """The columns of a table. names : column -> how SQL calls it; types : column -> its type in the engine"""

    names: Mapping[str, str]
    types: Mapping[str, str]

    def is_number(self, name: str) -> bool:
        """Whether a column holds numbers."""
        kind = self.types[name]
        return kind in INTEGERS or kind in FLOATS or kind.startswith("DECIMAL")

    def is_text(self, name: str) -> bool:
        """Whether a column holds labels of text."""
        return self.types[name] == "VARCHAR" or self.types[name].startswith("ENUM")

    def check(self, name: str) -> None:
        """Refuse a column of another type. Errors: DataError"""
        if not (self.is_number(name) or self.is_text(name) or self.types[name] == "BOOLEAN"):
            raise DataError(
                f"column {name!r} is of type {self.types[name]}",
                "numbers, text, enumerations and booleans are read from a table",
                "cast it in the query that makes the table",
            )

    def is_missing(self, name: str) -> str:
        """Whether a value is missing."""
        own = self.names[name]
        return f"({own} IS NULL OR isnan({own}))" if self.types[name] in FLOATS else f"({own} IS NULL)"

    def number(self, name: str) -> str:
        """The values as numbers."""
        return f"CAST({self.names[name]} AS DOUBLE)"

    def is_level(self, name: str, level: Any) -> str:
        """Whether a row has a level of a factor."""
        own = self.names[name]
        if self.is_text(name):
            return f"{own} = {quoted_text(str(level))}"
        if self.types[name] == "BOOLEAN":
            return f"{own} = {'TRUE' if level else 'FALSE'}"
        return f"{own} = {int(level)}" if self.types[name] in INTEGERS else f"{self.number(name)} = {number_text(level)}"

    def block(self, block: DesignBlock) -> list[str]:
        """The columns of a right-hand side."""
        return [" * ".join(factors) if factors else "1e0" for factors in block.products(self.pieces)]

    def pieces(self, variable: EncodedVariable, reduced: bool) -> list[str]:
        """The columns of a variable. Errors: FormulaError for what SQL cannot say"""
        if isinstance(variable, NumericVariable):
            return [self.number(variable.name)]
        if isinstance(variable, ExpressionVariable):
            return [self.expression(variable.atom)]
        assert isinstance(variable, FactorVariable)
        levels = [self.is_level(variable.column, level) for level in variable.levels]
        if reduced and variable.coding.matrix is not None:
            return [_cases(levels, column) for column in variable.coding.matrix.T]
        picked = variable.coding.picked if reduced else range(len(levels))
        return [f"(CASE WHEN {levels[i]} THEN 1e0 ELSE 0e0 END)" for i in picked]

    def expression(self, atom: Atom) -> str:
        """The value of an expression. Errors: FormulaError for what SQL cannot say"""
        return _Translation(self, atom).number(atom.node)


def _cases(levels: Sequence[str], values: Array) -> str:
    return "(CASE " + " ".join(f"WHEN {level} THEN {number_text(v)}" for level, v in zip(levels, values, strict=True)) + " END)"


@dataclass(frozen=True, slots=True)
class _Translation:
    columns: SqlColumns
    atom: Atom

    def number(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._read_name(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return number_text(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return f"(-({self.number(node.operand)}))" if isinstance(node.op, ast.USub) else self.number(node.operand)
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return self._compare(node.left, node.ops[0], node.comparators[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node.func.id, [self.number(part) for part in node.args])
        raise self._unsayable(f"{ast.unparse(node)!r}")

    def _unsayable(self, what: str) -> FormulaError:
        return FormulaError(f"{what} cannot be said in SQL", self.atom.name, "compute the column in the query that makes the table")

    def _column(self, node: ast.expr) -> str | None:
        if not isinstance(node, ast.Name) or (node.id in CONSTANT_VALUES and node.id not in self.atom.aliases):
            return None
        return self.atom.aliases.get(node.id, node.id)

    def _read_name(self, node: ast.Name) -> str:
        name = self._column(node)
        if name is None:
            return number_text(CONSTANT_VALUES[node.id])
        if self.columns.is_text(name):
            raise FormulaError(f"column {name!r} is text where numbers are needed", self.atom.name, "compare it with a label")
        return self.columns.number(name)

    def _binary(self, node: ast.BinOp) -> str:
        left, right = self.number(node.left), self.number(node.right)
        if isinstance(node.op, ast.Mod):
            return _REMAINDER.format(left, right)
        if isinstance(node.op, ast.FloorDiv):
            return f"round_even((({left}) - {_REMAINDER.format(left, right)}) / ({right}), 0)"
        return _BINARY[type(node.op)].format(left, right)

    def _call(self, name: str, arguments: Sequence[str]) -> str:
        wanted = 2 if name in ("maximum", "minimum") else 1
        if name not in _FUNCTIONS or len(arguments) != wanted:
            raise self._unsayable(f"{name}()")
        return _FUNCTIONS[name].format(*arguments)

    def _compare(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> str:
        symbol = _COMPARE[type(operator)]
        if self._is_text(left) or self._is_text(right):
            if not (self._is_text(left) and self._is_text(right)):
                raise self._unsayable("a comparison of text with numbers")
            return f"(CASE WHEN {self._text(left)} {symbol} {self._text(right)} THEN 1e0 ELSE 0e0 END)"
        a, b = self.number(left), self.number(right)
        # engines order NaN above all numbers; it differs from everything, itself too
        unlike = "1e0" if isinstance(operator, ast.NotEq) else "0e0"
        return f"(CASE WHEN isnan({a}) OR isnan({b}) THEN {unlike} WHEN ({a}) {symbol} ({b}) THEN 1e0 ELSE 0e0 END)"

    def _is_text(self, node: ast.expr) -> bool:
        name = self._column(node)
        return self.columns.is_text(name) if name is not None else isinstance(node, ast.Constant) and isinstance(node.value, str)

    def _text(self, node: ast.expr) -> str:
        name = self._column(node)
        if name is not None:
            # an enumeration is compared as the text of its labels
            return f"CAST({self.columns.names[name]} AS VARCHAR)"
        assert isinstance(node, ast.Constant)
        return quoted_text(str(node.value))


def products(columns: Sequence[str], others: Sequence[str] | None, weight: str | None) -> list[str]:
    """Sums of products of columns, times the weight: all with all others, or the lower triangle with themselves."""
    pairs = (
        [(a, b) for i, a in enumerate(columns) for b in columns[: i + 1]] if others is None else [(a, b) for a in columns for b in others]
    )
    return [f"sum({a} * {b})" if weight is None else f"sum({a} * {b} * {weight})" for a, b in pairs]


def lower_triangle(values: Array, size: int) -> Array:
    """(size, size) symmetric, from the sums of `products` of columns with themselves."""
    out = np.zeros((size, size))
    out[np.tril_indices(size)] = values
    return np.asarray(out + np.tril(out, -1).T)
