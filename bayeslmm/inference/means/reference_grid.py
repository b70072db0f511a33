"""The reference grid: all combinations of the levels of the factors, covariates at their means; what is asked of it, and its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import ContrastName, GridWeights
from bayeslmm._validation import require_mapping, require_memory, require_name, spell
from bayeslmm.data.design import Covariate, Design
from bayeslmm.errors import InferenceError, SizeError, SpecificationError, show_value
from bayeslmm.inference.means.multiplicity import (
    spell_method,
)

GRID_ELEMENTS = 20_000_000
"""Entries of the grid's design matrix beyond which averaging is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceGrid:
    """All combinations of values of the variables.

    values : variable -> its values, factors first; factors : those that are factors; frame : the combinations, the last variable fastest
    """

    values: Mapping[str, tuple[Any, ...]]
    factors: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(v) for v in self.values.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)


def reference_grid(design: Design, at: Mapping[str, Any] | None = None) -> ReferenceGrid:
    """The grid of a design.

    at : variable -> a value or values in place of its levels or its mean
    Errors: `SpecificationError` for names that are no variables, `InferenceError` for levels that the fit has not seen, `SizeError`.
    """
    levels, covariates = grid_factors(design), design.encoding.covariates
    values: dict[str, tuple[Any, ...]] = {name: tuple(found) for name, found in levels.items()}
    values |= {name: _covariate_values(c) for name, c in covariates.items()}
    for name, value in require_mapping(at, "at", '{"x": [0, 1]}').items():
        values[check_variable(name, tuple(values))] = _read_at(name, value, levels.get(name))
    total = int(np.prod([len(v) for v in values.values()], dtype=np.float64))
    if total * max(1, len(design.coef_names)) > GRID_ELEMENTS:
        raise SizeError(
            f"the reference grid has {total:,} rows",
            f"{len(values)} variables: {', '.join(values)}",
            "fix some of them: at={'factor': ['level']}",
        )
    numbers, what = 4.0 * total * (len(design.coef_names) + len(values)), f"the reference grid of {total:,} rows"
    require_memory("reference grid", numbers, what, "fix some factors: at={'factor': ['level']}")
    places = _places([len(v) for v in values.values()])
    columns = {name: _column(found, next(places), name in levels) for name, found in values.items()}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(total))
    for name in _other_columns(design, values):
        frame[name] = design.column_mean(name)
    return ReferenceGrid(values, tuple(levels), frame)


def _places(sizes: Sequence[int]) -> Iterator[Codes]:
    """Per variable the position of its value in every row of the grid, the last variable fastest; any number of variables."""
    total = int(np.prod(sizes, dtype=np.int64))
    repeats = total
    for size in sizes:
        repeats //= size
        yield np.tile(np.repeat(np.arange(size), repeats), total // (size * repeats))


def grid_factors(design: Design) -> dict[str, tuple[Any, ...]]:
    """Factor columns of the fixed effects with their levels: those coded, then those that only an expression reads, as `I(f == "b")`."""
    encoding = design.encoding
    read = [name for name in encoding.fixed_block.columns if name not in encoding.levels and name not in encoding.covariates]
    inside = {name: tuple(pd.Categorical(design.cells.frame[name]).remove_unused_categories().categories) for name in read}
    return {**encoding.levels, **inside}


def check_variable(name: str, known: Sequence[str]) -> str:
    """The name, if the fixed effects read such a column."""
    if require_name(name, "the name of a variable") in known:
        return name
    near = get_close_matches(str(name), known, 1, 0.6)
    remedy = f"did you mean {near[0]!r}?" if near else "name a column that the fixed effects read, or add it to the formula"
    raise SpecificationError(f"{name!r} is not a variable of the fixed effects", f"variables: {', '.join(known) or 'none'}", remedy)


def _covariate_values(covariate: Covariate) -> tuple[float, ...]:
    """Both values of a column that has two, which is not averaged away before the model is applied to it; else its mean."""
    return tuple(dict.fromkeys((covariate.low, covariate.high))) if covariate.binary else (covariate.mean,)


def _read_at(name: str, wanted: Any, levels: tuple[Any, ...] | None) -> tuple[Any, ...]:
    several = isinstance(wanted, list | tuple | set | range | pd.Series | pd.Index) or (isinstance(wanted, np.ndarray) and wanted.ndim > 0)
    values = tuple(wanted) if several else (wanted,)
    if not values:
        raise SpecificationError(f"no value of {name!r} is given", "at=", "give one value or more")
    if levels is None:
        try:
            numbers = tuple(float(v) for v in values)
        except (TypeError, ValueError):
            raise SpecificationError(f"{name!r} is a covariate", f"at={{{name!r}: {show_value(wanted)}}}", "give numbers") from None
        if not np.all(np.isfinite(numbers)):
            raise SpecificationError(f"a value of {name!r} is not finite", f"at={{{name!r}: {show_value(wanted)}}}", "give finite numbers")
        return numbers
    by_text = {str(level): level for level in levels}
    found = []
    for value in values:
        if str(value) not in by_text:
            near = get_close_matches(str(value), by_text, 1, 0.4)
            remedy = f"did you mean {near[0]!r}? " if near else ""
            where = f"levels: {', '.join(by_text)}"
            raise InferenceError(f"{value!r} is not a level of {name!r} in this fit", where, f"{remedy}use a level that the fit has seen")
        found.append(by_text[str(value)])
    return tuple(found)


def _column(values: tuple[Any, ...], index: Codes, factor: bool) -> Any:
    """Values as the fit's own data had them: labels stay labels."""
    if not factor:
        return np.array(values, float)[index]
    if not all(isinstance(v, str | bool | int | float | np.generic) for v in values):
        return pd.Categorical([values[i] for i in index], categories=list(values))
    return pd.Series(list(values)).array[index]


def _other_columns(design: Design, values: Mapping[str, Any]) -> list[str]:
    """Columns that only the offsets read."""
    encoding = design.encoding
    names = [name for atom in encoding.offsets for name in atom.columns]
    names += [encoding.offset_column] if encoding.offset_column else []
    return [name for name in dict.fromkeys(names) if name not in values]


@dataclass(frozen=True, slots=True, eq=False)
class GridAverages:
    """Which rows of the grid make up which mean, and with what weights.

    cell : (rows,) number of the mean; weight : (rows,) adding up to 1 in each, NaN where no row has weight
    places : (m, kept) positions of the kept variables' values, the first variable fastest
    """

    cell: Codes
    weight: Array
    places: Codes

    def of(self, rows: Array) -> Array:
        """Means (m, ...) of values on the grid (rows, ...)."""
        out = np.zeros((len(self.places), *rows.shape[1:]))
        np.add.at(out, self.cell, self.weight.reshape(-1, *[1] * (rows.ndim - 1)) * rows)
        return out


def average_grid(grid: ReferenceGrid, kept: Sequence[str], weights: str, design: Design) -> GridAverages:
    """How the grid is averaged over what is not kept.

    weights : "equal", "proportional" or "outer" (joint or single frequencies of what is averaged over), "cells" (frequencies of all
        variables), "flat" (equal, cells without data left out)
    """
    if not isinstance(weights, str) or weights not in get_args(GridWeights):
        near = get_close_matches(spell(weights), get_args(GridWeights), 1, 0.4)
        remedy = f"did you mean {near[0]!r}? " if near else ""
        if spell(weights) in ("om", "obsmargins"):  # PROC MIXED counts rows without a response too
            remedy = '"proportional" is OM of PROC MIXED where no response is missing; '
        raise SpecificationError(f"unknown weights {show_value(weights)}", "weights=", f"{remedy}one of {', '.join(get_args(GridWeights))}")
    sizes = [len(grid.values[name]) for name in kept]
    index = dict(zip(grid.names, _places(grid.shape), strict=True))
    cell, size = np.zeros(len(grid.frame), np.int64), 1
    for name, own in zip(kept, sizes, strict=True):
        cell, size = cell + index[name] * size, size * own
    density = _density(grid, weights, design, [index[name] for name in grid.names if name not in kept])
    total = np.bincount(cell, density, size)
    weight = density / np.where(total > 0, total, np.nan)[cell]
    places = list(_places(sizes[::-1]))[::-1]
    return GridAverages(cell, weight, np.array(places, np.int64).reshape(len(sizes), size).T)


def _density(grid: ReferenceGrid, weights: str, design: Design, others: Sequence[Codes]) -> Array:
    """Unnormalised weights of the rows of the grid.

    others : for each variable that is averaged over, the position of its value in each row
    """
    rows = len(grid.frame)
    if weights == "equal":
        return np.ones(rows)
    counts = _counts(grid, design)
    if weights == "cells":
        return counts
    if weights == "flat":
        return (counts > 0).astype(float)
    if weights == "proportional":
        joint = np.zeros(rows, np.int64)
        for place in others:
            joint = joint * (int(place.max()) + 1) + place
        return np.bincount(joint, counts)[joint]
    out = np.ones(rows)
    for place in others:
        out = out * np.bincount(place, counts)[place]
    return out


def _counts(grid: ReferenceGrid, design: Design) -> Array:
    """How many rows of the data lie in each row of the grid; covariates with several values in the grid count by their nearest value."""
    cells = design.cells
    key, inside = np.zeros(len(cells.frame), np.int64), np.ones(len(cells.frame), bool)
    for name, values in grid.values.items():
        if len(values) == 1 and name not in grid.factors:
            continue
        column = cells.frame[name]
        if name in grid.factors:
            place = {str(v): i for i, v in enumerate(values)}
            code = column.astype(object).map(lambda v, place=place: place.get(str(v), -1)).to_numpy(np.int64)
        else:
            code = np.abs(column.to_numpy(float)[:, None] - np.array(values, float)).argmin(axis=1)
        inside &= code >= 0
        key = key * len(values) + np.maximum(code, 0)
    weights = None if cells.counts is None else cells.counts[inside]
    return np.bincount(key[inside], weights, len(grid.frame)).astype(float)


def level_column(grid: ReferenceGrid, name: str, places: Any) -> Any:
    values = np.empty(len(grid.values[name]), dtype=object)
    values[:] = grid.values[name]
    found = values[places]
    if name in grid.factors:
        return pd.Categorical(found, categories=list(dict.fromkeys(values)))
    return found.astype(float)


def grid_offset(design: Design, grid: ReferenceGrid) -> Array:
    offset = design.encoding.offset(grid.frame)
    if offset is None:
        summary = design.moments.offset
        return np.full(len(grid.frame), 0.0 if summary is None else float(summary.mean()))
    return offset


def wanted_variables(specs: Any, by: Any, grid: ReferenceGrid) -> tuple[tuple[str, ...], tuple[str, ...], ContrastName | Literal[""]]:
    """Names before and after the bar, and the contrasts asked for before the tilde."""
    by_names = _names(by, grid)
    asked: ContrastName | Literal[""] = ""
    if isinstance(specs, str) and specs not in grid.names:
        before, _, side = specs.rpartition("~")
        asked = _asked_contrasts(before.strip(), side.strip())
        left, _, right = side.partition("|")
        specs, by_names = left, (*by_names, *_names(right, grid))
    wanted = tuple(name for name in _names(specs, grid) if name not in by_names)
    return wanted, tuple(dict.fromkeys(by_names)), asked


def _asked_contrasts(before: str, side: str) -> ContrastName | Literal[""]:
    """The family of contrasts that stands before the tilde, as in R's emmeans."""
    name = spell_method(before)
    if name and name not in get_args(ContrastName):
        what = f"{before!r} names no contrasts, and nothing else stands on the left of the means' formula"
        raise SpecificationError(what, "specs=", f'write "~ {side}", or one of {", ".join(get_args(ContrastName))} on the left')
    found: ContrastName | Literal[""] = cast(Any, name)
    return found


def _names(names: Any, grid: ReferenceGrid) -> tuple[str, ...]:
    if names is None:
        return ()
    if isinstance(names, str):
        names = [names] if names in grid.names else [part.strip() for part in re.split(r"[*+:,]", names) if part.strip() not in ("", "1")]
    if not isinstance(names, Sequence):
        raise SpecificationError(f"{show_value(names)} names no variables", "specs=", "a name, a list of names, or '~ a | b'")
    return tuple(dict.fromkeys(check_variable(name, grid.names) for name in names))


def averaging_note(grid: ReferenceGrid, kept: tuple[str, ...], weights: str) -> tuple[str, ...]:
    """What is averaged over, where that is of consequence."""
    others = [name for name in grid.names if name not in kept and len(grid.values[name]) > 1]
    return (f"averaged over {', '.join(others)} (weights: {weights})",) if others else ()


def interaction_note(design: Design, kept: tuple[str, ...]) -> tuple[str, ...]:
    """Averaging over a factor that interacts with one that is kept."""
    factors = design.encoding.levels
    for term in dict.fromkeys(design.coef_terms):
        parts = [p for p in term.split(":") if p in factors]
        if any(p in kept for p in parts) and any(p not in kept for p in parts):
            return ("results may be misleading: what is averaged over takes part in interactions",)
    return ()
