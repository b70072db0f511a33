"""Evaluation of the atoms of a formula: columns, arithmetic, codings, stateful transforms.

An expression is evaluated by a walk over its syntax tree with a closed table of functions: a formula is data, never code.

Columns go in under plain names, so that no name of the data can collide with one of formulaic's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array
from bayeslmm.data.columns import Columns
from bayeslmm.errors import DataError, FormulaError, PredictionError
from bayeslmm.formula.syntax import CODINGS, REMEMBERED


def atom_name(atom: str) -> str:
    """A bare column in backticks without them; anything else as it is."""
    return atom[1:-1].replace("``", "`") if is_quoted(atom) else atom


def is_quoted(atom: str) -> bool:
    """Whether the atom is nothing but a name in backticks."""
    return len(atom) > 2 and atom[0] == atom[-1] == "`" and "`" not in atom[1:-1].replace("``", "")


AtomKind = Literal["column", "expression", "coding", "stateful"]
UserFunctions = Mapping[str, Callable[..., Any]]

STATEFUL = frozenset({"poly", "bs", "cr", "cc", "center", "scale", "standardize"})
CONSTANT_VALUES: Mapping[str, float] = {"pi": float(np.pi)}


def _as_it_is(x: Any) -> Any:
    """What stands within `I()`."""
    return x


STATELESS: UserFunctions = {
    "I": _as_it_is,
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "log": np.log,
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "round": np.round,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}
BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
    ast.FloorDiv: np.floor_divide,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_QUOTED = re.compile(r"`((?:[^`]|``)+)`|(\"[^\"]*\"|'[^']*')")


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """One atom of a term.

    name : as coefficients are named after it: `x`, `I(x ** 2)`, `poly(x, 2)`
    node : its syntax tree; names in backticks appear there as the keys of `aliases`
    columns : the columns that it reads, in order
    """

    name: str
    kind: AtomKind
    node: ast.expr
    aliases: Mapping[str, str]
    columns: tuple[str, ...]


@lru_cache(maxsize=4096)
def read_atom(text: str) -> Atom:
    """The atom that a text says. Its names are columns, except those called and the constants."""
    if is_quoted(text) or text.isidentifier():
        name = atom_name(text)
        return Atom(name, "column", ast.Name("_quoted0"), {"_quoted0": name}, (name,))
    safe, aliases = _strip_backticks(text)
    try:
        node = ast.parse(safe, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise FormulaError("an expression cannot be read", text, "quote strange column names in backticks") from None
    called = {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    columns = tuple(dict.fromkeys(aliases.get(name, name) for name in _names(node)))
    return Atom(_name(node, aliases), _kind(node, called), node, aliases, columns)


def _kind(node: ast.expr, called: set[str]) -> AtomKind:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CODINGS:
        return "coding"
    return "stateful" if called & STATEFUL else "expression"


def _names(node: ast.expr) -> list[str]:
    """Column names in the order written; not the functions called, the constants, nor a coding named in C(f, sum)."""
    found: list[str] = []
    if isinstance(node, ast.Call):
        inside = node.args[:1] if isinstance(node.func, ast.Name) and node.func.id in CODINGS else node.args
        for part in [*inside, *(keyword.value for keyword in node.keywords if keyword.arg != "levels")]:
            found += _names(part)
    elif isinstance(node, ast.Name):
        found += [node.id] if node.id not in CONSTANT_VALUES else []
    else:
        for child in ast.iter_child_nodes(node):
            found += _names(child) if isinstance(child, ast.expr) else []
    return found


def _strip_backticks(text: str) -> tuple[str, dict[str, str]]:
    """The text with `strange names` replaced by plain ones and `^` read as a power, quotations left alone."""
    aliases: dict[str, str] = {}
    parts: list[str] = []
    at = 0
    for match in _QUOTED.finditer(text):
        parts.append(text[at : match.start()].replace("^", "**"))
        if match.group(1) is None:
            parts.append(match.group(0))
        else:
            alias = f"_quoted{len(aliases)}"
            aliases[alias] = match.group(1).replace("``", "`")
            parts.append(alias)
        at = match.end()
    parts.append(text[at:].replace("^", "**"))
    return "".join(parts).strip(), aliases


def _name(node: ast.expr, aliases: Mapping[str, str]) -> str:
    text = ast.unparse(node)
    for alias, name in aliases.items():
        text = re.sub(rf"(?<!\w){alias}(?!\w)", lambda _, name=name: "`" + name.replace("`", "``") + "`", text)  # type: ignore[misc]
    return text


# ------------------------------------------------------------------------------------------------------------ evaluation


class ColumnSource(Protocol):
    """Where an expression finds its columns."""

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The column as numbers, or an error."""
        ...

    def values(self, name: str) -> NDArray[Any]:
        """The column as numbers or, if it is a factor, as labels."""
        ...

    def __len__(self) -> int: ...


def evaluate_atom(atom: Atom, source: ColumnSource, functions: UserFunctions) -> NDArray[Any]:
    """The value of an expression over columns: (n,) or, from a function of the user's, (n, k) float64."""
    with np.errstate(all="ignore"):
        value = _Walk(atom, source, functions).value(atom.node)
    return np.asarray(np.broadcast_to(value, len(source)) if np.ndim(value) == 0 else value, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Walk:
    atom: Atom
    source: ColumnSource
    functions: UserFunctions

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._read_name(node.id)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            operand = self.value(node.operand)
            return -operand if isinstance(node.op, ast.USub) else operand
        if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            return BINARY[type(node.op)](self._number(node.left), self._number(node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return self._compare(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._call(node, node.func.id)
        raise FormulaError(f"{ast.unparse(node)!r} cannot be evaluated in a formula", self.atom.name, "compute the column beforehand")

    def _read_name(self, name: str) -> Any:
        if name in CONSTANT_VALUES and name not in self.atom.aliases:
            return CONSTANT_VALUES[name]
        return self.source.numbers(self.atom.aliases.get(name, name))

    def _number(self, node: ast.expr) -> Any:
        value = self.value(node)
        return float(value) if isinstance(value, int) else value

    def _compare(self, node: ast.Compare) -> Any:
        return _COMPARE[type(node.ops[0])](self._any(node.left), self._any(node.comparators[0])).astype(np.float64)

    def _any(self, node: ast.expr) -> Any:
        """Either side of a comparison: a factor may be compared with a label."""
        if isinstance(node, ast.Name) and not (node.id in CONSTANT_VALUES and node.id not in self.atom.aliases):
            return self.source.values(self.atom.aliases.get(node.id, node.id))
        return self.value(node)

    def _call(self, node: ast.Call, name: str) -> Any:
        if name in self.functions:
            keywords = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg}
            return self._own(name, [self._any(part) for part in node.args], keywords)
        if name in STATELESS:
            return STATELESS[name](*(self._number(part) for part in node.args))
        if name in STATEFUL | CODINGS:
            raise FormulaError(f"{name}() cannot stand here", self.atom.name, "use it as a term of its own")
        raise FormulaError(f"unknown function {name!r}", self.atom.name, f"pass it as functions={{{name!r}: ...}}")

    def _own(self, name: str, values: list[Any], options: Mapping[str, Any]) -> Any:
        """A function of the user's: whatever it raises is told with its name."""
        try:
            found = self.functions[name](*values, **options)
        except Exception as error:
            what = f"the function {name!r} failed: {type(error).__name__}: {error}"
            raise FormulaError(what, self.atom.name, "it is called with read-only arrays, one per column") from error
        try:
            if np.iscomplexobj(found):
                raise FormulaError(f"the function {name!r} gives complex numbers", self.atom.name, "return real numbers")
            return np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            what = f"the function {name!r} gives a {type(found).__name__} that is no array of numbers"
            raise FormulaError(what, self.atom.name, "return one number, or one row of numbers, per row") from None


@dataclass(frozen=True, slots=True, eq=False)
class _SomeRows:
    """Some rows of a source."""

    source: ColumnSource
    rows: NDArray[np.int64]

    def numbers(self, name: str) -> NDArray[np.float64]:
        values = self.source.numbers(name)[self.rows]
        values.flags.writeable = False
        return values

    def values(self, name: str) -> NDArray[Any]:
        values = self.source.values(name)[self.rows]
        values.flags.writeable = False
        return values

    def __len__(self) -> int:
        return len(self.rows)


_ROUNDING = 1e-8  # of the largest value of a function: vectorised arithmetic differs in last digits with the place of a row


def require_row_by_row(atom: Atom, source: ColumnSource, functions: UserFunctions) -> None:
    """Refuse a function of the user's that gives a row another value when other rows stand beside it.

    New data are other rows: a function that looks at all of them, such as `x - mean(x)`, would predict another value for the same row
    among one, two or a hundred. Single rows, those with the extremes of each column among them, every other row, and all rows backwards are
    computed again.
    """
    calls = [node for node in ast.walk(atom.node) if isinstance(node, ast.Call) and getattr(node.func, "id", "") in functions]
    if len(source) < 2:
        return
    for call in calls:
        with np.errstate(all="ignore"):
            whole = _by_row(_Walk(atom, source, functions).value(call), len(source))
        if whole is None:
            continue  # refused by its shape, where the whole expression is computed
        largest = float(np.max(np.abs(whole), where=np.isfinite(whole), initial=0.0))
        for rows in _parts_of_rows(atom, source, whole):
            found = _of_part(call, atom, _SomeRows(source, rows), functions)
            if (
                found is None
                or found.shape != whole[rows].shape
                or not np.allclose(found, whole[rows], rtol=0.0, atol=_ROUNDING * largest, equal_nan=True)
            ):
                raise _depends_on_rows(call, atom, rows, whole, found)


def _by_row(value: Any, rows: int) -> Array | None:
    """(n, k) values of a function; None where they are not one, or one row, per row."""
    array = np.asarray(value, dtype=np.float64)
    array = np.broadcast_to(array, rows) if array.ndim == 0 else array
    return array.reshape(rows, -1) if array.ndim in (1, 2) and len(array) == rows else None


def _of_part(call: ast.Call, atom: Atom, part: _SomeRows, functions: UserFunctions) -> Array | None:
    """The values of a function over some rows; None where it cannot do without the others."""
    try:
        with np.errstate(all="ignore"):
            return _by_row(_Walk(atom, part, functions).value(call), len(part))
    except FormulaError:
        return None


def _parts_of_rows(atom: Atom, source: ColumnSource, whole: Array) -> list[NDArray[np.int64]]:
    n = len(source)
    columns = [values for name in atom.columns if (values := source.values(name)).dtype.kind == "f"]
    extremes = [place(values) for values in (*columns, whole[:, 0]) for place in (np.nanargmin, np.nanargmax) if not np.isnan(values).all()]
    singles = dict.fromkeys([0, n // 2, n - 1, *map(int, extremes)])
    return [np.array([row]) for row in singles] + [np.arange(0, n, 2), np.arange(n)[::-1]]


def _depends_on_rows(call: ast.Call, atom: Atom, rows: NDArray[np.int64], whole: Array, found: Array | None) -> FormulaError:
    name = getattr(call.func, "id", "")
    what = f"the function {name!r} gives a row another value when other rows stand beside it, so that new data cannot be predicted"
    finding = "it fails" if found is None or found.shape != whole[rows].shape else _first_gap(rows, whole, found)
    where = f"{_name(call, atom.aliases)}: {finding}"
    return FormulaError(what, where, f"{REMEMBERED}; or compute the column beforehand")


def _first_gap(rows: NDArray[np.int64], whole: Array, found: Array) -> str:
    gap = np.where(np.isnan(found) == np.isnan(whole[rows]), np.abs(found - whole[rows]), np.inf)
    row, column = np.unravel_index(int(np.nanargmax(gap)), gap.shape)
    alone = "alone" if len(rows) == 1 else f"among {len(rows)}, in another order" if len(rows) == len(whole) else f"among {len(rows)}"
    return f"row {rows[row]} is {whole[rows[row], column]:.6g} among {len(whole)} rows, {found[row, column]:.6g} {alone}"


@dataclass(frozen=True, slots=True, eq=False)
class Stateful:
    """A trained transform.

    spec : formulaic's ModelSpec of the one atom; suffixes : what its column names add to the name of the atom
    names : plain name -> column of the data
    """

    spec: Any
    suffixes: tuple[str, ...]
    names: dict[str, str]
    context: dict[str, Any]

    @property
    def state(self) -> Mapping[str, Any]:
        """What the rows have taught: knots, means, norms."""
        return dict(self.spec.transform_state)

    def encode(self, source: Columns) -> Array:
        """(n, k) columns; NaN in the rows where an input is missing.

        Errors: `PredictionError` where the transform does not reach, such as a spline outside its boundary knots.
        """
        frame, complete = _inputs(self.names, source)
        out = np.full((len(source), len(self.suffixes)), np.nan)
        if complete.any():
            try:
                out[complete] = _matrix(self.spec, frame[complete], self.context)
            except Exception as error:
                message = _last_line(error)
                for plain, name in self.names.items():
                    message = message.replace(plain, name)
                raise PredictionError(message, ", ".join(self.names.values()), "keep to the range of the data fitted") from error
        return out


def train_stateful(atom: Atom, source: Columns, functions: UserFunctions, state: Mapping[str, Any] | None = None) -> Stateful:
    """The transform as these rows teach it, or as a `state` remembers it that other rows have taught."""
    renamed = {name: f"column_{i}" for i, name in enumerate(atom.columns)}
    text = ast.unparse(_Renamed(atom, renamed).visit(ast.parse(ast.unparse(atom.node), mode="eval")))
    names = {plain: name for name, plain in renamed.items()}
    context = {**STATELESS, **CONSTANT_VALUES, **functions}
    frame, _ = _inputs(names, source)
    formulaic = import_module("formulaic")
    try:
        with np.errstate(all="ignore"):
            asked = formulaic.Formula(f"0 + {text}")
            keywords = {} if state is None else {"transform_state": dict(state)}
            known = formulaic.ModelSpec.from_spec(asked, output="pandas", na_action="ignore", **keywords)
            result = known.get_model_matrix(frame, context=context)
    except Exception as error:
        raise DataError(f"{atom.name!r} cannot be computed: {_last_line(error)}", "", "check its arguments") from error
    if not np.isfinite(result.to_numpy()).all():
        raise DataError(f"{atom.name!r} is not finite", "", "check its arguments: a constant column cannot be scaled")
    suffixes = tuple(str(name).removeprefix(text) for name in result.columns)
    if suffixes and suffixes[0] == "[0]" and "poly" in text:  # formulaic counts raw powers from 0, orthogonal ones from 1
        suffixes = tuple(f"[{i + 1}]" for i in range(len(suffixes)))
    return Stateful(result.model_spec, suffixes, names, context)


def _inputs(names: dict[str, str], source: Columns) -> tuple[pd.DataFrame, Any]:
    frame = pd.DataFrame({plain: source.numbers(name) for plain, name in names.items()})
    return frame, np.isfinite(frame.to_numpy()).all(axis=1)


def _matrix(spec: Any, frame: pd.DataFrame, context: dict[str, Any]) -> Array:
    return np.asarray(spec.get_model_matrix(frame, context=context), dtype=np.float64)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


class _Renamed(ast.NodeTransformer):
    """The expression with its columns under plain names; functions and constants keep theirs."""

    def __init__(self, atom: Atom, renamed: dict[str, str]) -> None:
        self.atom, self.renamed = atom, renamed

    def visit_Call(self, node: ast.Call) -> ast.Call:
        node.args = [self.visit(part) for part in node.args]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        plain = self.renamed.get(self.atom.aliases.get(node.id, node.id))
        return ast.Name(plain, node.ctx) if plain else node
