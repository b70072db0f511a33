"""Variables encoded as columns: numbers, coded factors, expressions, stateful transforms; and the contrasts of factors."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, freeze, label_text
from bayeslmm.data.columns import Columns, LevelPlaces
from bayeslmm.data.expressions import Atom, Stateful, UserFunctions, evaluate_atom, require_row_by_row, train_stateful
from bayeslmm.data.frame import rows_text, values_text
from bayeslmm.errors import DataError, FormulaError, NonFiniteError, PredictionError, SpecificationError
from bayeslmm.specification.model_spec import ContrastMatrix, ContrastSpec

CONTRAST_CODINGS = ("treatment", "sum", "helmert", "poly", "diff", "sas")
_POLYNOMIAL = {1: ".L", 2: ".Q", 3: ".C"}


@dataclass(frozen=True, slots=True, eq=False)
class FactorCoding:
    """How the K levels of a factor become columns.

    fields : names of the r columns beside an intercept: ("T.TRT",)
    matrix : (K, r) their values per level; None for indicators of the levels `picked`
    picked : positions of the levels that indicators stand for
    full : names of the K indicator columns where no intercept is beside them
    """

    fields: tuple[str, ...]
    matrix: Array | None
    picked: tuple[int, ...]
    full: tuple[str, ...]


def coding(factor: str, levels: Sequence[Any], contrast: ContrastSpec = "treatment", base: Any = None) -> FactorCoding:
    """The coding of a factor with these levels (K >= 1).

    base : the reference level of a treatment coding; None is the first (the last for "sas")
    Errors: `SpecificationError` for an unknown name, an unknown base, a matrix without a row per level.
    """
    labels = tuple(str(level) for level in levels)
    if isinstance(contrast, ContrastMatrix):
        return _align_contrast(factor, tuple(map(label_text, levels)), contrast, labels)
    if not isinstance(contrast, str) and isinstance(contrast[0], str):
        contrast, base = contrast[0], contrast[1] if base is None else base
    if not isinstance(contrast, str):
        return _custom(factor, labels, contrast)
    if contrast in ("treatment", "sas"):
        reference = _reference(factor, list(levels), contrast, base)
        kept = tuple(i for i in range(len(labels)) if i != reference)
        return FactorCoding(tuple(f"T.{labels[i]}" for i in kept), None, kept, labels)
    if contrast not in CONTRAST_CODINGS:
        raise SpecificationError(
            f"unknown contrasts {contrast!r} for {factor!r}", "", f"one of {', '.join(CONTRAST_CODINGS)}, or a matrix with a row per level"
        )
    fields, matrix = _NAMED[contrast](labels)
    return FactorCoding(tuple(fields), freeze(matrix), (), labels)


def _reference(factor: str, levels: list[Any], contrast: str, base: Any) -> int:
    if base is None:
        return len(levels) - 1 if contrast == "sas" else 0
    if base not in levels:
        counted = type(base) is int and 0 <= base < len(levels)  # patsy and formulaic count levels from 0
        remedy = f"a level is named, not counted: {levels[base]!r}" if counted else "name one of them as the reference"
        raise SpecificationError(f"{base!r} is not a level of {factor!r}", f"levels {values_text(levels)}", remedy)
    return levels.index(base)


def _align_contrast(factor: str, keys: tuple[str, ...], contrast: ContrastMatrix, labels: tuple[str, ...]) -> FactorCoding:
    """Rows found by the levels, whatever their order; rows of levels that do not occur are left out."""
    rows: Sequence[Sequence[float]] = contrast.rows
    if contrast.levels:
        absent = [key for key in keys if key not in contrast.levels]
        if absent:
            what = f"the contrast matrix of {factor!r} has no row for {values_text(absent)}"
            raise SpecificationError(what, f"rows {values_text(contrast.levels)}", "label the rows by the levels")
        rows = [contrast.rows[contrast.levels.index(key)] for key in keys]
    coded = _custom(factor, labels, rows)
    return replace(coded, fields=contrast.names)


def _custom(factor: str, labels: tuple[str, ...], rows: Sequence[Sequence[float]]) -> FactorCoding:
    matrix = np.atleast_2d(np.asarray(rows, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[0] != len(labels) or not np.isfinite(matrix).all():
        shape = " x ".join(map(str, matrix.shape))
        raise SpecificationError(
            f"the contrast matrix of {factor!r} does not fit its {len(labels)} levels",
            f"matrix {shape}; levels {values_text(labels)}",
            "give one finite row per level that occurs, one column per contrast",
        )
    return FactorCoding(tuple(str(i + 1) for i in range(matrix.shape[1])), freeze(matrix), (), labels)


def _sum(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    matrix = np.eye(len(labels), len(labels) - 1)
    matrix[-1] = -1.0
    return [f"S.{label}" for label in labels[:-1]], matrix


def _helmert(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    """Each level against the mean of those before it, unscaled, as R has it."""
    matrix = np.zeros((len(labels), len(labels) - 1))
    for i in range(len(labels) - 1):
        matrix[: i + 1, i], matrix[i + 1, i] = -1.0, i + 1.0
    return [f"H.{label}" for label in labels[1:]], matrix


def _poly(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    """Orthonormal polynomials in 0..K-1 with positive leading coefficients."""
    scores = np.arange(len(labels)) - (len(labels) - 1) / 2
    q, r = np.linalg.qr(np.vander(scores, increasing=True))
    return [_POLYNOMIAL.get(d, f"^{d}") for d in range(1, len(labels))], (q * np.sign(np.diag(r)))[:, 1:]


def _diff(labels: tuple[str, ...]) -> tuple[list[str], Array]:
    """Each level against the one before it."""
    total = len(labels)
    matrix = np.repeat([np.arange(1.0, total)], total, axis=0) / total
    matrix[np.triu_indices(total, m=total - 1)] -= 1.0
    return [f"D.{label}" for label in labels[1:]], matrix


_NAMED = {"sum": _sum, "helmert": _helmert, "poly": _poly, "diff": _diff}

Pieces = list[NDArray[Any]]


class EncodedVariable(Protocol):
    """What a block of columns asks of an atom."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the data that it reads."""
        ...

    def fields(self, *, reduced: bool) -> Sequence[str]:
        """Names of its columns; `reduced` beside an intercept."""
        ...

    def pieces(self, source: Columns, *, reduced: bool) -> Pieces:
        """Its columns, each (n,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class NumericVariable:
    """A bare column of numbers."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    def fields(self, *, reduced: bool) -> Sequence[str]:
        return (self.name,)

    def pieces(self, source: Columns, *, reduced: bool) -> Pieces:
        return [source.numbers(self.name)]


@dataclass(frozen=True, slots=True, eq=False)
class FactorVariable:
    """A factor: its levels in the fit and their coding."""

    name: str
    column: str
    levels: tuple[Any, ...]
    coding: FactorCoding

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def width(self, *, reduced: bool) -> int:
        """Number of columns."""
        return len(self.coding.fields) if reduced else len(self.coding.full)

    def fields(self, *, reduced: bool) -> Sequence[str]:
        fields = self.coding.fields if reduced else self.coding.full
        return tuple(f"{self.name}[{label}]" for label in fields)

    def pieces(self, source: Columns, *, reduced: bool) -> Pieces:
        codes = factor_codes(source, self.column, self.levels)
        missing = codes < 0
        some_missing = bool(missing.any())
        if reduced and self.coding.matrix is not None:
            pieces = list(self.coding.matrix[codes].T)
        else:
            picked = self.coding.picked if reduced else range(len(self.levels))
            pieces = [codes == i for i in picked]
        return [np.where(missing, np.nan, piece) for piece in pieces] if some_missing else pieces


def factor_codes(source: Columns, column: str, levels: tuple[Any, ...]) -> NDArray[Any]:
    """Codes into the levels of the fit, -1 where missing.

    Errors: `PredictionError` for a level that the fit has not seen; a fixed effect of it does not exist.
    """
    here = source.read_factor(column).levels
    codes = source.codes(column)
    if len(here) == len(levels) and tuple(here) == levels:
        return codes
    place = LevelPlaces.of(levels)
    table = np.array([at if (at := place(level)) >= 0 else -2 for level in here] + [-1], dtype=np.int64)
    mapped: NDArray[Any] = table[codes]
    if (mapped == -2).any():
        unseen = [level for i, level in enumerate(here) if table[i] == -2 and (codes == i).any()]
        raise PredictionError(
            f"factor {column!r} has levels that the fit has not seen: {values_text(unseen)}",
            f"{rows_text(np.flatnonzero(mapped == -2))}; levels of the fit: {values_text(levels)}",
            "drop these rows, or fit the model on data that have these levels",
        )
    return mapped


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionVariable:
    """An expression without memory: `log(x)`, `I(x ** 2)`, a function of the user's own."""

    atom: Atom
    functions: UserFunctions
    width: int

    @property
    def columns(self) -> tuple[str, ...]:
        return self.atom.columns

    def fields(self, *, reduced: bool) -> Sequence[str]:
        return _number_columns(self.atom.name, self.width)

    def pieces(self, source: Columns, *, reduced: bool) -> Pieces:
        values = evaluate_atom(self.atom, source, self.functions)
        return [values] if values.ndim == 1 else list(values.T)


def _number_columns(name: str, width: int) -> tuple[str, ...]:
    return (name,) if width == 0 else tuple(f"{name}[{i + 1}]" for i in range(width))


@dataclass(frozen=True, slots=True, eq=False)
class StatefulVariable:
    """A transform that remembers the rows of the fit: `poly`, `bs`, `center`, ..."""

    atom: Atom
    state: Stateful

    @property
    def columns(self) -> tuple[str, ...]:
        return self.atom.columns

    def fields(self, *, reduced: bool) -> Sequence[str]:
        return tuple(self.atom.name + suffix for suffix in self.state.suffixes)

    def pieces(self, source: Columns, *, reduced: bool) -> Pieces:
        return list(self.state.encode(source).T)


# -------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, slots=True)
class Training:
    """What training needs beside the rows.

    keep_unused : levels that no row has are kept, since dropping them would change the spacing of an order-dependent structure
    states : name of a stateful atom -> what other rows have taught it, where these are not to
    """

    contrasts: Mapping[str, ContrastSpec] = field(default_factory=dict)
    functions: UserFunctions = field(default_factory=dict)
    keep_unused: bool = False
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def encode_variable(atom: Atom, source: Columns, training: Training) -> EncodedVariable:
    """The atom as these rows teach it.

    Errors: `DataError` for a column that cannot be a term, `NonFiniteError` for an expression that is not finite.
    """
    if atom.kind == "column":
        name = atom.columns[0]
        if source.is_factor(name):
            source.check_usable(name)
            return _factor_atom(atom.name, name, source, training, training.contrasts.get(name, "treatment"))
        source.check_usable(name)
        return NumericVariable(name)
    if atom.kind == "coding":
        return _coded_atom(atom, source, training)
    if training.functions:
        require_row_by_row(atom, source, training.functions)
    if atom.kind == "stateful":
        return StatefulVariable(atom, train_stateful(atom, source, training.functions, training.states.get(atom.name)))
    values = evaluate_atom(atom, source, training.functions)
    _check_shape(atom, values, len(source))
    _check_values_finite(atom, values, source)
    return ExpressionVariable(atom, training.functions, 0 if values.ndim == 1 else values.shape[1])


def _check_shape(atom: Atom, values: NDArray[Any], rows: int) -> None:
    if values.ndim not in (1, 2) or len(values) != rows:
        shape = " x ".join(map(str, values.shape))
        raise DataError(
            f"{atom.name!r} gives {shape} values for {rows} rows", "", "a function of the formula returns one value, or one row, per row"
        )


def _check_values_finite(atom: Atom, values: NDArray[Any], source: Columns) -> None:
    bad = ~np.isfinite(values if values.ndim == 1 else values.sum(axis=1))
    if bad.any():
        rows = np.flatnonzero(bad) if source.rows is None else source.rows[bad]
        raise NonFiniteError(
            f"{atom.name!r} is not finite",
            rows_text(rows),
            "its argument is outside the function's domain there: shift it, or drop the rows",
        )


def levels_in_use(source: Columns, column: str) -> tuple[Any, ...]:
    """The levels that the rows kept have, in order."""
    here, absent = source.read_factor(column).levels, source.absent(column)
    return tuple(here) if absent is None else tuple(here[~absent])


def _factor_atom(
    name: str, column: str, source: Columns, training: Training, contrast: ContrastSpec, base: Any = None, levels: Any = None
) -> FactorVariable:
    found = tuple(source.read_factor(column).levels) if training.keep_unused else levels_in_use(source, column)
    if levels is not None:
        absent = [level for level in found if level not in levels]
        if absent:
            raise DataError(f"{name!r} leaves out levels that the data have", f"{values_text(absent)}", "name every level that occurs")
        found = tuple(level for level in levels if level in found)
    return FactorVariable(name, column, found, coding(column, found, contrast, base))


_NAMED_CONTRASTS = {name: name for name in CONTRAST_CODINGS} | {"sdif": "diff"}


def _coded_atom(atom: Atom, source: Columns, training: Training) -> FactorVariable:
    """`C(x)`, `C(x, Sum)`, `C(x, Treatment("b"))`, `C(x, levels=["b", "a"])`, `factor(x)`."""
    call = atom.node
    if not isinstance(call, ast.Call) or not call.args or not isinstance(call.args[0], ast.Name):
        raise FormulaError("C() takes a column", atom.name, "compute the column beforehand, then code it")
    column = atom.columns[0]
    contrast: ContrastSpec = training.contrasts.get(column, "treatment")
    base = levels = None
    if len(call.args) > 1:
        contrast, base = _named_contrast(call.args[1], atom)
    for keyword in call.keywords:
        if keyword.arg == "levels":
            levels = ast.literal_eval(keyword.value)
        elif keyword.arg in ("contrasts", "contrast"):
            contrast, base = _named_contrast(keyword.value, atom)
    return _factor_atom(atom.name, column, source, training, contrast, base, levels)


def _named_contrast(node: ast.expr, atom: Atom) -> tuple[ContrastSpec, Any]:
    base = None
    if isinstance(node, ast.Call):
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        base = arguments[0].value if arguments and isinstance(arguments[0], ast.Constant) else None
        node = node.func
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else getattr(node, "value", "")
    contrast = _NAMED_CONTRASTS.get(str(name).lower())
    if contrast is None:
        raise FormulaError(
            f"unknown contrasts in {atom.name!r}", "", f"one of {', '.join(_NAMED_CONTRASTS)}, or contrasts={{...}} for a matrix"
        )
    return contrast, base
