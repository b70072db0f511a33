"""SAS's GLM coding: an indicator column for every level of every class effect, in SAS's order, and what depends on the others.

A class variable has its levels sorted (numbers as numbers, texts as texts), the reference level last. An effect has a column for every
combination of levels that occurs; the last class variable varies fastest. Columns that depend on earlier ones get the coefficient 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes
from bayeslmm.errors import DataError, SizeError
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.language.program import ClassVariable, Order

MAX_GLM_ENTRIES = 200_000_000  # 1.6 GB

# A column whose part not explained by the earlier ones is shorter than this, relative to the column itself, depends on them. With
# columns of size 1 the rounding of the projection is about 1e-15; two covariates collinear to 1e-6 are still told apart.
SINGULAR_COLUMN = 1e-9

ROUNDED_SUM = 1e-14
"""What a sum misses by rounding, relative to what is added up."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassLevels:
    """A class variable: its formatted levels in SAS's order, the reference last, and the level of every row.

    codes : (n,) positions in `levels`; -1 where the variable is missing
    """

    name: str
    levels: tuple[str, ...]
    codes: Codes


@dataclass(frozen=True, slots=True)
class GLMColumn:
    """One column of X: its effect (position in the layout), and the level of each of the effect's class variables."""

    effect: int
    codes: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GLMLayout:
    """The columns of X as SAS orders them, and the matrix itself.

    effects : the intercept first when there is one; columns : one entry per column; blocks : the columns of each effect
    X : (n, P) float64; near : (n, P) the same of covariates less their means, where earlier columns make up for them
    shift : (P, P) sparse unit upper triangle, X = near shift
    """

    effects: tuple[GLMEffect, ...]
    columns: tuple[GLMColumn, ...]
    blocks: tuple[slice, ...]
    X: Array
    near: Array
    shift: sp.csr_array

    def position(self, effect: GLMEffect) -> int | None:
        """Where the effect stands; None when it is not in the model."""
        return self.effects.index(effect) if effect in self.effects else None


def format_level(value: Any) -> str:
    """A value as SAS prints a level: 8.0 is "8", a text loses the blanks at its end."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, float, np.integer, np.floating)):
        return f"{float(value):.12g}"
    return str(value).rstrip()


def class_levels(
    variable: ClassVariable, values: Sequence[Any] | NDArray[Any], order: Order = "formatted", known: Sequence[Any] = ()
) -> ClassLevels:
    """The levels of a class variable in SAS's order.

    values : (n,) numbers or texts; what pandas takes for missing is missing
    order : of the PROC statement; "internal" takes the order of `known` (the categories of an ordered column) when it is given
    Raises DataError when REF= names a level that does not occur.

    >>> class_levels(ClassVariable("time"), [10, 9, 8, 10]).levels
    ('8', '9', '10')
    """
    distinct, codes = _distinct(values)
    labels = [None if v is pd.NA or v is None or v != v or (isinstance(v, str) and not v.strip()) else format_level(v) for v in distinct]
    counts: dict[str, int] = {}
    for label, count in zip(labels, np.bincount(codes, minlength=len(distinct)), strict=True):
        if label is not None:
            counts[label] = counts.get(label, 0) + int(count)
    first = {label: value for label, value in zip(reversed(labels), reversed(distinct), strict=True) if label is not None}
    levels = _order_levels({label: first[label] for label in counts}, order, counts, known)
    levels = _reference_last(variable, levels[::-1] if variable.descending else levels)
    position = {label: i for i, label in enumerate(levels)}
    places = np.array([-1 if label is None else position[label] for label in labels], dtype=np.int64)
    return ClassLevels(variable.name, tuple(levels), freeze_codes(places[codes]))


def _distinct(values: Sequence[Any] | NDArray[Any]) -> tuple[list[Any], Codes]:
    """The values that occur, in the order in which they first do, and which of them each row has; 1 and True are two."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        _, where, inverse = np.unique(values, return_index=True, return_inverse=True)
        order = np.argsort(where, kind="stable")
        return values[where[order]].tolist(), np.argsort(order)[inverse].astype(np.int64)
    place: dict[Any, int] = {}
    codes = [place.setdefault((value.__class__, value), len(place)) for value in values]
    return [value for _, value in place], np.array(codes, dtype=np.int64)


def _order_levels(values: Mapping[str, Any], order: Order, counts: Mapping[str, int], known: Sequence[Any]) -> list[str]:
    """values : one of each level, in the order in which they occur; counts : its rows"""
    if order == "data":
        return list(values)
    ranked = _sort_levels(values)
    if order == "freq":
        return sorted(ranked, key=lambda label: -counts[label])
    if order == "internal" and known:
        rank = {format_level(value): i for i, value in enumerate(known)}
        return sorted(ranked, key=lambda label: rank.get(label, len(rank)))
    return ranked


def _sort_levels(values: Mapping[str, Any]) -> list[str]:
    numeric = all(isinstance(v, (int, float, np.integer, np.floating)) for v in values.values())
    return sorted(values, key=lambda label: float(values[label])) if numeric else sorted(values)


def _reference_last(variable: ClassVariable, levels: list[str]) -> list[str]:
    if not levels or variable.reference == "last":
        return levels
    reference = levels[0] if variable.reference == "first" else format_level(variable.value)
    if reference not in levels:
        raise DataError(
            f"REF='{variable.value}' is not a level of {variable.name}",
            f"CLASS {variable.name}",
            f"its levels are {', '.join(levels[:20])}{', ...' if len(levels) > 20 else ''}",
        )
    return [level for level in levels if level != reference] + [reference]


def glm_columns(
    effects: Sequence[GLMEffect],
    classes: Mapping[str, ClassLevels],
    covariates: Mapping[str, Array],
    n: int,
    *,
    intercept: bool = True,
    empty: bool = False,
) -> GLMLayout:
    """The columns of X (or, with `empty=True`, of Z, where combinations that do not occur have columns too).

    classes : the class variables of the effects; covariates : the continuous ones, (n,) each; n : number of rows
    intercept : put the column of ones first
    Raises SizeError when the matrix would not fit in memory.
    """
    found = (GLMEffect(),) * intercept + tuple(e for e in effects if e != GLMEffect())
    cells = [_cells(effect, classes, n, empty) for effect in found]
    width = sum(len(levels) for levels, _ in cells)
    if n * width > MAX_GLM_ENTRIES:
        raise SizeError(f"X would have {n} rows and {width} columns", remedy="make the class with the most levels a random effect")
    columns: list[GLMColumn] = []
    blocks: list[slice] = []
    for k, (effect, (levels, _)) in enumerate(zip(found, cells, strict=True)):
        start = len(columns)
        columns += [GLMColumn(k, combination, _labels(effect, combination, classes)) for combination in levels]
        blocks.append(slice(start, len(columns)))

    def fill(values: Mapping[str, Array]) -> Array:
        X = np.zeros((n, width))
        for effect, block, (_, which) in zip(found, blocks, cells, strict=True):
            value = np.prod([values[name] for name in effect.continuous], axis=0) if effect.continuous else np.ones(n)
            rows = np.flatnonzero(which >= 0)
            X[rows, block.start + which[rows]] = np.broadcast_to(value, n)[rows]
        return freeze(X)

    X, origins = fill(covariates), _origins(found, covariates)
    near = fill({name: values - origins.get(name, 0.0) for name, values in covariates.items()}) if origins else X
    return GLMLayout(found, tuple(columns), tuple(blocks), X, near, _shift(found, columns, blocks, origins))


def _origins(effects: Sequence[GLMEffect], covariates: Mapping[str, Array]) -> dict[str, float]:
    """The means of the covariates that may be taken off: earlier effects span what each effect that has them then lacks."""
    free = {name for effect in effects for name in effect.continuous if len(covariates[name])}
    while True:
        held = {
            name
            for k, effect in enumerate(effects)
            if any(_home(effects[:k], effect, gone) is None for gone in _droppable_places(effect, free))
            for name in effect.continuous
        }
        if not held & free:
            return {name: float(np.mean(covariates[name])) for name in sorted(free)}
        free -= held


def _droppable_places(effect: GLMEffect, free: set[str]) -> list[tuple[int, ...]]:
    """Places among the covariates of an effect where an origin may stand for the covariate."""
    places = [i for i, name in enumerate(effect.continuous) if name in free]
    return [gone for size in range(1, len(places) + 1) for gone in combinations(places, size)]


def _home(earlier: Sequence[GLMEffect], effect: GLMEffect, gone: tuple[int, ...]) -> int | None:
    """The effect before whose columns add up to those of `effect` without some of its covariates."""
    rest = sorted(name for i, name in enumerate(effect.continuous) if i not in gone)
    return next((k for k, e in enumerate(earlier) if sorted(e.continuous) == rest and set(e.classes) >= set(effect.classes)), None)


def _shift(
    effects: Sequence[GLMEffect], columns: Sequence[GLMColumn], blocks: Sequence[slice], origins: Mapping[str, float]
) -> sp.csr_array:
    """X = near shift: the products of covariates multiplied out around their origins."""
    P = len(columns)
    rows, at, values = list(range(P)), list(range(P)), [1.0] * P
    for k, effect in enumerate(effects):
        for gone in _droppable_places(effect, set(origins)):
            home = _home(effects[:k], effect, gone)
            assert home is not None
            places = [effects[home].classes.index(name) for name in effect.classes]
            members: dict[tuple[int, ...], list[int]] = {}
            for i in range(blocks[home].start, blocks[home].stop):
                members.setdefault(tuple(columns[i].codes[place] for place in places), []).append(i)
            size = float(np.prod([origins[effect.continuous[i]] for i in gone]))
            for j in range(blocks[k].start, blocks[k].stop):
                own = members.get(columns[j].codes, [])
                rows, at, values = rows + own, at + [j] * len(own), values + [size] * len(own)
    return sp.csr_array((values, (rows, at)), shape=(P, P))


def _labels(effect: GLMEffect, combination: tuple[int, ...], classes: Mapping[str, ClassLevels]) -> tuple[str, ...]:
    return tuple(classes[name].levels[code] for name, code in zip(effect.classes, combination, strict=True))


def _cells(effect: GLMEffect, classes: Mapping[str, ClassLevels], n: int, empty: bool) -> tuple[list[tuple[int, ...]], Codes]:
    """The combinations of levels that have a column, sorted, and the combination of each row (-1 where a class is missing)."""
    names = effect.classes
    if not names:
        return [()], np.zeros(n, dtype=np.int64)
    codes = np.stack([classes[name].codes for name in names])
    sizes = tuple(len(classes[name].levels) for name in names)
    present = (codes >= 0).all(axis=0)
    index = np.full(codes.shape[1], -1, dtype=np.int64)
    index[present] = np.ravel_multi_index(tuple(codes[:, present]), sizes)
    if empty:
        return [tuple(int(i) for i in c) for c in np.ndindex(sizes)], index
    used, inverse = np.unique(index[present], return_inverse=True)
    index[present] = inverse
    combinations = np.stack(np.unravel_index(used, sizes), axis=1)
    return [tuple(int(i) for i in row) for row in combinations], index


def class_variables(effects: Sequence[GLMEffect]) -> tuple[str, ...]:
    """All class variables of some effects, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(e.classes for e in effects)))


def covariate_names(effects: Sequence[GLMEffect]) -> tuple[str, ...]:
    """All continuous variables of some effects, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(e.continuous for e in effects)))


@dataclass(frozen=True, slots=True, eq=False)
class RowSpace:
    """The estimable functions of a model in GLM coding.

    kept : (r,) columns that do not depend on earlier ones
    near : (r, P) every column of GLMLayout.near in terms of the kept ones
    C : (r, P) the same of X = X[:, kept] C; its rows span the estimable functions
    """

    kept: Codes
    near: Array
    C: Array

    def moves(self, layout: GLMLayout) -> Array:
        """W (r, r), a unit upper triangle: X[:, kept] = near[:, kept] W."""
        return np.asarray(self.near @ layout.shift[:, self.kept])

    @property
    def rank(self) -> int:
        """Rank of X."""
        return len(self.kept)


def row_space(layout: GLMLayout) -> RowSpace:
    """Sweep the columns of X from the left: those that depend on earlier ones are dropped, and written in terms of those kept.

    Covariates are swept near their origins, where columns depend on one another in the same way and lose no digits.
    """
    R = _triangle(layout.near)
    length = np.sqrt(np.einsum("ij,ij->j", R, R))
    basis = np.zeros((R.shape[0], min(R.shape)))
    kept: list[int] = []
    for j in range(R.shape[1]):
        rest = R[:, j].copy()
        for _ in range(2):  # once more, against the rounding of the first projection
            done = basis[:, : len(kept)]
            rest -= done @ (done.T @ rest)
        if (size := float(np.linalg.norm(rest))) > SINGULAR_COLUMN * length[j]:
            basis[:, len(kept)] = rest / size
            kept.append(j)
    C = _in_terms_of(R[:, kept], R) if kept else np.zeros((0, R.shape[1]))
    moved = np.asarray(C @ layout.shift)
    return RowSpace(freeze_codes(kept), freeze(C), freeze(_from_origins(moved[:, kept], moved)))


def _from_origins(W: Array, columns: Array) -> Array:
    """W^-1 columns, W a unit upper triangle: coefficients of columns near their origins as coefficients of the columns themselves.

    A whole number missed by the rounding of what is added up is that number.
    """
    if not len(W):
        return columns
    inverse = solve_triangular(W, np.eye(len(W)), unit_diagonal=True)
    found, size = inverse @ columns, np.abs(inverse) @ np.abs(columns)
    whole = np.round(found)
    return np.where(np.abs(found - whole) <= ROUNDED_SUM * size, whole, found)


def _in_terms_of(basis: Array, columns: Array) -> Array:
    """The coefficients (r, k) with which columns (n, k) depend on a basis (n, r).

    Rounding is taken out: what contributes less than 1e-12 of a column is 0, and a whole number missed by 1e-9 is that number, since
    the columns of classes depend on one another with coefficients 0, 1 and -1.
    """
    scale = np.sqrt(np.einsum("ij,ij->j", basis, basis))
    size = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    share = np.linalg.lstsq(basis / scale, columns, rcond=None)[0]
    found = np.where(np.abs(share) < 1e-12 * size, 0.0, share / scale[:, None])
    whole = np.round(found)
    return np.where((whole != 0) & (np.abs(found - whole) < 1e-9), whole, found)


def _triangle(X: Array) -> Array:
    """R of X = QR: the columns of X and of R depend on one another in the same way."""
    return np.asarray(np.linalg.qr(X, mode="r")) if X.shape[0] > X.shape[1] else X.copy()


def bridge(layout: GLMLayout, space: RowSpace, X: Array) -> Array:
    """T (r, p) that takes our coefficients to SAS's nonzero ones: b[kept] = T a.

    X : (n, p) our columns, of full rank, spanning the same space
    Raises DataError when they do not.
    """
    kept = layout.near[:, space.kept]
    T = _in_terms_of(kept, X) if space.rank else np.zeros((0, X.shape[1]))
    largest = np.abs(X).max(axis=0, initial=0.0)
    spread = np.abs(X - X.mean(axis=0)).max(axis=0, initial=0.0) if len(X) else largest
    allowed = 1e-7 * np.where(spread > 0, spread, largest) + ROUNDED_SUM * largest
    if space.rank != X.shape[1] or (np.abs(kept @ T - X) > allowed).any():
        raise DataError(
            f"the columns in GLM coding (rank {space.rank}) and those of the fitted model ({X.shape[1]}) do not span the same space",
            remedy="scale the covariates of the MODEL statement: columns are nearly collinear",
        )
    return freeze(_from_origins(space.moves(layout), T))


def estimable(space: RowSpace, L: Array, tolerance: float = 1e-4) -> NDArray[np.bool_]:
    """Which rows of L (m, P) are estimable: L = L[:, kept] C, column by column up to `tolerance` of what is added up there."""
    mine = L[:, space.kept]
    gap = np.abs(mine @ space.C - L)
    size = np.abs(mine) @ np.abs(space.C) + np.abs(L)
    return np.asarray((gap <= tolerance * size).all(axis=1), dtype=np.bool_)


def rows_on_our_columns(space: RowSpace, T: Array, L: Array) -> Array:
    """Rows of L on SAS's columns (m, P), taken to our coefficients (m, p)."""
    return freeze(L[:, space.kept] @ T)
