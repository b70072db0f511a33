"""Cross-products of the rows of a table that an engine holds: its SQL adds them up, and only sums come back.

Beside sums a few rows are read: some two hundred, one for each level and each combination of levels that the model is to know, and as
many as X has columns, on which these are independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Design, Encoding
from bayeslmm.data.grouping import GroupCoder
from bayeslmm.data.identifiability import RANK_TOLERANCE
from bayeslmm.data.model_matrix import atoms_of
from bayeslmm.errors import NonFiniteError, SpecificationError
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, factors_of
from bayeslmm.likelihood.standardize import Standardization
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.partitions.design import SummedRows
from bayeslmm.partitions.first_pass import FirstPass
from bayeslmm.partitions.moments import (
    SPANNING_PIVOT,
    CoincidingFactors,
    ColumnMoments,
    IncrementalQR,
    SpanningRows,
    SumsByLevel,
    empty_sums,
)
from bayeslmm.partitions.sql import combination, lower_triangle, number_text, products
from bayeslmm.partitions.sums import Learning, check_no_learning, template_of
from bayeslmm.partitions.table import CompleteRows, EngineTable, frame_columns, packed_row, select_text, survey_table
from bayeslmm.specification.model_spec import ModelSpec


def sum_table(spec: ModelSpec, table: EngineTable, *, relationship: Mapping[str, Any] | None = None) -> SummedRows:
    """The cross-products of a table, and what only all its rows know.

    Errors: those of `build_design`; SpecificationError for structured errors, FormulaError for what SQL cannot say.
    """
    learning = Learning.of(spec, relationship, None)
    asked = learning.asked
    check_no_learning(spec, asked)
    columns = table.columns(asked.columns)
    for atom in (*_atoms(spec), asked.response, *asked.offsets):
        if atom.kind == "expression":
            columns.expression(atom)
    with one_thread():
        rows, survey, scale = survey_table(spec, asked, table, columns)
        learnt = learning.learnt(survey)
        engine = EncodedTable.of(rows, learnt.encoding, spec, scale)
        moments = _moments(engine)
        design, standardization = template_of(learning, survey, learnt, moments, scale)
        sums, coinciding = _sums_by_level(engine, design, standardization)
        _check_same_rows(sums.sums, survey, _rounding_of_fit(design, standardization, moments.largest))
        spanning = _find_spanning(engine, survey, design, standardization)
    return SummedRows(survey, moments, scale, sums, coinciding, spanning)


def _atoms(spec: ModelSpec) -> Iterator[Any]:
    for terms in (spec.formula.terms, *(term.terms for term in spec.formula.random)):
        yield from atoms_of(terms).values()


# -- the columns of the model --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTable:
    """The columns of a model in SQL.

    columns : of X, y and, where there is one, the offset, by their names in the stage `encoded`; blocks : those of every Z
    names : the same column -> what errors call it; weight : the name of the weights, or None
    """

    rows: CompleteRows
    encoding: Encoding
    stage: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    names: Mapping[str, str]
    weight: str | None
    shifted: bool

    @classmethod
    def of(cls, rows: CompleteRows, encoding: Encoding, spec: ModelSpec, scale: float) -> EncodedTable:
        """scale : what the weights are divided by"""
        sql = rows.columns
        called: dict[str, str] = {}
        names: dict[str, str] = {}

        def column(text: str, name: str) -> str:
            names.setdefault(called.setdefault(text, f"c{len(called)}"), name)
            return called[text]

        fixed = [column(text, name) for text, name in zip(sql.block(encoding.fixed_block), encoding.fixed_block.names, strict=True)]
        y = column(sql.pieces(encoding.response_atom, False)[0], "the response")
        shifts = [sql.pieces(atom, False)[0] for atom in encoding.offsets]
        shifts += [sql.number(encoding.offset_column)] if encoding.offset_column is not None else []
        offset = [column(" + ".join(shifts), "the offset")] if shifts else []
        blocks = tuple(
            tuple(column(text, name) for text, name in zip(sql.block(coder.block), coder.block.names, strict=True))
            for coder in encoding.random_coders
        )
        weight = [] if spec.weights is None else [f"{sql.number(spec.weights)} / {number_text(scale)} AS w"]
        stage = ", ".join([*sql.names.values(), *weight, *(f"{text} AS {own}" for text, own in called.items())])
        return cls(rows, encoding, f"SELECT {stage} FROM kept", (*fixed, y, *offset), blocks, names, "w" if weight else None, bool(offset))

    @property
    def response(self) -> tuple[str, str]:
        """The response, and what the offset leaves of it."""
        if not self.shifted:
            return self.columns[-1], self.columns[-1]
        return self.columns[-2], f"({self.columns[-2]} - {self.columns[-1]})"

    def values(self, selected: Sequence[str], stages: Sequence[tuple[str, str]] = (), source: str = "encoded") -> Array:
        """Numbers of one row of a query on the stages after `encoded`."""
        return self.rows.values(selected, [("encoded", self.stage), *stages], source)


def _moments(engine: EncodedTable) -> ColumnMoments:
    """Errors: NonFiniteError for a column that is not finite."""
    every = list(engine.names)
    y, left = engine.response
    atoms = engine.encoding.fixed_block.atoms
    pieces = {key: engine.rows.columns.pieces(atom, True) for key, atom in atoms.items()}
    selected = [*(f"sum(CASE WHEN isfinite({own}) THEN 0 ELSE 1 END)" for own in every), *(f"any_value({own})" for own in every)]
    selected += [f"max(abs({y}))", f"max(abs({left}))", f"min({left})", f"max({left})"]
    found = engine.values(selected)
    for own, wrong in zip(every, found.tolist(), strict=False):
        if wrong:
            name = engine.names[own]
            what = f"{name} is not finite" if name in ("the response", "the offset") else f"{name!r} is not finite"
            raise NonFiniteError(
                what, f"{int(wrong)} rows", "its argument is outside a function's domain there: shift it, or drop the rows"
            )
    origins = dict(zip(every, found[len(every) :].tolist(), strict=False))
    largest, most, low, high = found[-4:].tolist()
    totals = engine.rows.values([f"sum({text})" for own in pieces.values() for text in own]) if any(pieces.values()) else np.zeros(0)
    cuts = np.cumsum([len(own) for own in pieces.values()])[:-1]
    sums = dict(zip(pieces, np.split(totals, cuts), strict=True)) if pieces else {}
    sets = list(dict.fromkeys([engine.columns, *engine.blocks]))
    weighted = _triangles(engine, sets, origins, engine.weight)
    plain = _triangles(engine, sets, origins, None) if engine.weight is not None else {}
    none = [IncrementalQR() for _ in engine.blocks]
    return ColumnMoments(
        weighted[engine.columns],
        [weighted[own] for own in engine.blocks],
        plain.get(engine.columns, IncrementalQR()),
        [plain[own] for own in engine.blocks] if plain else none,
        sums,
        largest,
        most,
        low,
        high,
    )


RESOLVED = 1e-10
"""Squared length that is left of a column, as a share, below which rounding may have made it: it is looked at anew, magnified."""

SETTLED = 0.5
"""The share from which a triangle of inner products is as good as one of rows."""

ROUNDS = 4
"""Times that inner products are taken: two for columns that are not nearly collinear."""


@dataclass(slots=True, eq=False)
class _Triangle:
    """R of [1, columns - origin] by repeated triangles of inner products, each of the columns that the last one made orthogonal.

    change : the columns looked at next are [1, columns - origin] change
    dependent : columns that depend on earlier ones but for rounding, which is another each time: no later column is expressed by them
    """

    columns: tuple[str, ...]
    change: Array = field(init=False)
    R: Array = field(init=False)
    settled: bool = False
    dependent: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.change, self.R = np.eye(len(self.columns) + 1), np.eye(len(self.columns) + 1)

    def looked_at(self, origins: Mapping[str, float]) -> list[str]:
        """The columns in SQL."""
        basis = ["1e0", *(f"({own} - {number_text(origins[own])})" for own in self.columns)]
        return [combination(column, basis) for column in self.change.T]

    def update(self, products_: Array) -> None:
        """Take in the inner products of what was looked at."""
        size = len(products_)
        U, diagonal, settled = np.zeros((size, size)), np.diagonal(products_), True
        for j in range(size):
            if diagonal[j] == 0.0 or j in self.dependent:
                continue
            for i in range(j):
                U[i, j] = (products_[i, j] - U[:i, i] @ U[:i, j]) / U[i, i] if U[i, i] else 0.0
            left = diagonal[j] - U[:j, j] @ U[:j, j]
            # where rounding may have made what is left, the most that it can be
            outside = np.sqrt(max(left, RESOLVED * diagonal[j]))
            within = U[1:j, : j + 1] @ self.R[: j + 1, j]
            if 0 < j < size - 1 and outside * self.R[j, j] <= RANK_TOLERANCE * np.linalg.norm(within):
                self.dependent.add(j)
                continue
            settled &= bool(left >= SETTLED * diagonal[j])
            U[j, j] = outside
        self.R, self.settled = U @ self.R, settled
        # a column of zeros stays one
        inverse = np.linalg.inv(U + np.diag((np.diagonal(U) == 0.0).astype(float)))
        self.change = np.triu(self.change @ inverse)


def _triangles(
    engine: EncodedTable, sets: Sequence[tuple[str, ...]], origins: Mapping[str, float], weight: str | None
) -> dict[tuple[str, ...], IncrementalQR]:
    """For sets of columns what an incremental QR factorisation of all rows leaves; all of a round are one query."""
    found = {columns: _Triangle(columns) for columns in sets}
    for _ in range(ROUNDS):
        open_ = [triangle for triangle in found.values() if not triangle.settled]
        if not open_:
            break
        looked = [text for triangle in open_ for text in triangle.looked_at(origins)]
        stage = ", ".join([*(["w"] if weight else []), *(f"{text} AS t{i}" for i, text in enumerate(looked))])
        selected, begin = list[str](), 0
        for triangle in open_:
            own = [f"t{begin + j}" for j in range(len(triangle.columns) + 1)]
            selected, begin = selected + products(own, None, weight), begin + len(own)
        values = engine.values(selected, [("looked", f"SELECT {stage} FROM encoded")], "looked")
        at = 0
        for triangle in open_:
            size = len(triangle.columns) + 1
            count = size * (size + 1) // 2
            triangle.update(lower_triangle(values[at : at + count], size))
            at += count
    return {columns: IncrementalQR(np.array([origins[own] for own in columns]), triangle.R) for columns, triangle in found.items()}


# -- sums by level -------------------------------------------------------------------------------------------------------------------------

STEADY = 1e-5
"""The share by which products of standardized columns may miss theirs; other rows miss them by the inverse root of their number."""

FIT_ROUNDINGS = 16
"""Roundings of the products of far columns and a far response that a least-squares fit may hold."""


def _check_same_rows(total: Accumulator, survey: FirstPass, rounding: float) -> None:
    """Refuse a table that gives other rows each time it is read: standardized columns are orthogonal on those that they were found on.

    rounding : by which what is left of the response may miss it besides
    """
    some = max(total.r - 1, 1)
    missed = np.abs(total.Xy[:some] / max(total.n, 1) - np.eye(some, total.r))
    if total.n != survey.kept or not np.all(missed < STEADY + rounding * (np.arange(total.r) == total.r - 1)):
        raise SpecificationError(
            "the table gives other rows each time it is read, and its rows are added up several times",
            "table",
            "store what is drawn at random or sampled first: CREATE TABLE ... AS",
        )


def _rounding_of_fit(design: Design, standardization: Standardization, largest: float) -> float:
    """By how much of its scale rounding moves the fit that is taken off a response of this size, where it and X start far from 0."""
    products_ = np.sqrt(np.mean(design.X**2, axis=0)) @ np.abs(standardization.back)
    return float(FIT_ROUNDINGS * np.finfo(float).eps * products_.max(initial=1.0) * largest / standardization.y_scale)


def _sums_by_level(engine: EncodedTable, design: Design, standardization: Standardization) -> tuple[SumsByLevel, CoincidingFactors]:
    factors = factors_of(design)
    total = empty_sums(factors, [factor.K for factor in factors], len(design.kept) + 1, standardization)
    coders = [engine.encoding.random_coders[factor.terms[0]].group for factor in factors]
    stages, Xy, Z = _standardized_stages(engine, design, standardization)
    own = [[name for i in factor.terms for name in Z[i]] for factor in factors]
    total.n = int(engine.rows.values(["count(*)"])[0])
    total.Xy = lower_triangle(engine.values(products(Xy, None, engine.weight), stages, "standardized"), len(Xy))
    for f, coder in enumerate(coders):
        q = len(own[f])
        selected = products(own[f], None, engine.weight) + products(own[f], Xy, engine.weight)
        (codes,), values = _sums_of_levels(engine, stages, [coder], selected)
        count = q * (q + 1) // 2
        rows, columns = np.tril_indices(q)
        total.diagonal[f][rows[:, None], columns[:, None], codes] = values[:count]
        total.with_Xy[f][:, :, codes] = values[count:].reshape(q, len(Xy), -1)
    coinciding = CoincidingFactors()
    for f, g in total.pairs:
        _add_pairs(engine, stages, (coders[f], coders[g]), (own[f], own[g]), total, (f, g), coinciding)
    return SumsByLevel(factors, tuple(np.arange(factor.K) for factor in factors), total), coinciding


def _add_pairs(
    engine: EncodedTable,
    stages: Sequence[tuple[str, str]],
    coders: tuple[GroupCoder, GroupCoder],
    own: tuple[list[str], list[str]],
    total: Accumulator,
    pair: tuple[int, int],
    coinciding: CoincidingFactors,
) -> None:
    (rows, columns), values = _sums_of_levels(engine, stages, coders, products(own[0], own[1], engine.weight))
    for line, sums in zip(total.pairs[pair], values.reshape(len(own[0]), len(own[1]), -1), strict=True):
        for target, some in zip(line, sums, strict=True):
            target.add(rows, columns, some)
    one, other = (coder.factor for coder in coders)
    if one.name != other.name and one.size == other.size and len(rows) == one.size:
        partner = np.full(one.size, -1)
        partner[rows] = columns
        if (partner >= 0).all() and len(np.unique(columns)) == one.size:
            coinciding.partners[(one.name, other.name)] = partner


def _sums_of_levels(
    engine: EncodedTable, stages: Sequence[tuple[str, str]], coders: Sequence[GroupCoder], selected: Sequence[str]
) -> tuple[list[Codes], Array]:
    """Codes of the levels that meet, for every factor, and the sums (k, levels) of these."""
    rows = engine.rows
    names = list(dict.fromkeys(name for coder in coders for name in coder.factor.columns))
    calls = rows.calls(names)
    query = select_text([*calls, *selected], "standardized") + f" GROUP BY {', '.join(calls)}"
    found = rows.fetch(query, [("encoded", engine.stage), *stages])
    source = frame_columns(rows.rename_first(found, names))
    return [coder.codes(source) for coder in coders], found.iloc[:, len(names) :].to_numpy(np.float64).T


def _standardized_stages(
    engine: EncodedTable, design: Design, standardization: Standardization
) -> tuple[list[tuple[str, str]], list[str], list[list[str]]]:
    """Stages of a query, and the names in the last one of [X y] and of the columns of every Z."""
    found = standardization
    centred = _centred_columns([engine.columns[j] for j in design.kept], found.center)
    X = [f"x{k}" for k in range(len(design.kept))]
    columns = [f"{combination(change, centred)} AS {name}" for change, name in zip(found.B.T, X, strict=True)]
    Z: list[list[str]] = []
    for i, (block, change) in enumerate(zip(engine.blocks, found.maps, strict=True)):
        Z.append([f"z{i}_{a}" for a in range(len(block))])
        centred_Z = _centred_columns(block, change.center)
        columns += [f"{combination(own, centred_Z)} AS {name}" for own, name in zip(change.matrix.T, Z[-1], strict=True)]
    names = [*engine.rows.columns.names.values(), *(["w"] if engine.weight else [])]
    # the fit is taken off in standardized columns: in the user's an origin far away would cost digits
    y = f"({engine.response[1]} - {combination(found.least_squares, X)}) / {number_text(found.y_scale)}"
    relative = [] if engine.weight is None else [f"w / {number_text(found.weight_mean)} AS w"]
    passed = [*engine.rows.columns.names.values(), *relative, *X, *(name for own in Z for name in own)]
    stages = [
        ("changed", f"SELECT {', '.join([*names, *engine.columns, *columns])} FROM encoded"),
        ("standardized", f"SELECT {', '.join([*passed, f'{y} AS y'])} FROM changed"),
    ]
    return stages, [*X, "y"], Z


def _centred_columns(columns: Sequence[str], center: Array) -> list[str]:
    return [own if c == 0.0 else f"({own} - {number_text(c)})" for own, c in zip(columns, center.tolist(), strict=True)]


# -- rows that span the columns ------------------------------------------------------------------------------------------------------------


def _find_spanning(engine: EncodedTable, survey: FirstPass, design: Design, standardization: Standardization) -> SpanningRows:
    """From the rows shown; then, while they leave a direction of X out, the row that reaches farthest into it."""
    names = engine.encoding.fixed_block.columns
    spanning, p = SpanningRows(names), len(design.kept)
    roster = survey.roster()
    spanning.add(_encode_standardized(roster, design, standardization), lambda rows: roster.table.frame[list(names)].iloc[rows])
    stages, Xy, _ = _standardized_stages(engine, design, standardization)
    for _ in range(p):
        if spanning.complete or spanning.X is None:
            break
        _, lengths, directions = np.linalg.svd(spanning.X, full_matrices=True)
        if len(lengths) == p and lengths[-1] > SPANNING_PIVOT * lengths[0]:
            break
        reach = f"abs({combination(directions[-1], Xy[:-1])})"
        query = f"SELECT one.* FROM (SELECT arg_max({packed_row(engine.rows, names)}, {reach}) AS one FROM standardized) AS found"
        frame = engine.rows.rename_first(engine.rows.fetch(query, [("encoded", engine.stage), *stages]), names)
        _join(spanning, frame, design, standardization)
    return spanning


def _join(spanning: SpanningRows, frame: pd.DataFrame, design: Design, standardization: Standardization) -> None:
    spanning.add(_encode_standardized(frame_columns(frame), design, standardization), lambda rows: frame.iloc[rows])


def _encode_standardized(source: Columns, design: Design, standardization: Standardization) -> Array:
    X = design.encoding.fixed_block.encode(source)[:, list(design.kept)]
    return standardization.rows(X)
