"""Stateful transforms through formulaic, one atom at a time: what `poly`, `bs`, `cr`, `center`, ... learn is kept and applied to new rows.

Columns go in under plain names, so that no name of the data can collide with one of formulaic's.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.data.expressions import CONSTANTS, STATELESS, Atom, Functions
from bayeslmm.data.source import Columns
from bayeslmm.errors import DataError, PredictionError


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
                raise PredictionError(
                    f"{_last_line(error)}", ", ".join(self.names.values()), "keep to the range of the data fitted"
                ) from error
        return out


def train_stateful(atom: Atom, source: Columns, functions: Functions) -> Stateful:
    """The transform as these rows teach it."""
    renamed = {name: f"column_{i}" for i, name in enumerate(atom.columns)}
    text = ast.unparse(_Renamed(atom, renamed).visit(ast.parse(ast.unparse(atom.node), mode="eval")))
    names = {plain: name for name, plain in renamed.items()}
    context = {**STATELESS, **CONSTANTS, **functions}
    frame, _ = _inputs(names, source)
    formulaic = import_module("formulaic")
    try:
        with np.errstate(all="ignore"):
            result = formulaic.Formula(f"0 + {text}").get_model_matrix(frame, context=context, output="pandas", na_action="ignore")
    except Exception as error:
        raise DataError(f"{atom.name!r} cannot be computed: {_last_line(error)}", "", "check its arguments") from error
    if not np.isfinite(result.to_numpy()).all():
        raise DataError(f"{atom.name!r} is not finite", "", "check its arguments: a constant column cannot be scaled")
    return Stateful(result.model_spec, tuple(str(name).removeprefix(text) for name in result.columns), names, context)


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
