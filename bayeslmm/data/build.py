"""Build the `Design` of a specification and a data frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes, FrozenMapping, freeze, readonly
from bayeslmm._validation import require_mapping
from bayeslmm.covariance.base import Covariance, StructureOrder
from bayeslmm.covariance.registry import is_serial, keeps_distance, make, needs_order, takes_times
from bayeslmm.data import notes as checks
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Covariate, Design, Encoding, OwnFrame, RandomCoder, RandomTerm, ResidualDesign
from bayeslmm.data.frame import ColumnTable, nearest_names, read_table
from bayeslmm.data.grouping import GroupCoder, align_relationship, check_names, group_coder
from bayeslmm.data.identifiability import (
    Rank,
    check_not_extreme,
    column_rank,
    few_complete,
    lost_in_fixed,
    single_row_strata,
    undetermined_terms,
)
from bayeslmm.data.model_matrix import DesignBlock, train_block
from bayeslmm.data.origins import NearColumns, near_columns
from bayeslmm.data.residual import MAX_PLOTS, level_numbers, no_distances_error, residual_design, steps, variance_design
from bayeslmm.data.rows import (
    ColumnPlan,
    check_finite_offset,
    complete_cases,
    numbers_by_position,
    plan_columns,
    read_weights,
    scale_weights,
)
from bayeslmm.data.variables import EncodedVariable, FactorVariable, NumericVariable, Training, encode_variable
from bayeslmm.errors import Check, DataError, DesignError, RankError, SpecificationError
from bayeslmm.formula.syntax import BarTerm, Terms
from bayeslmm.specification.model_spec import ModelSpec

_SMALL = 200_000  # cells of a frame up to which copying all of it costs less than picking columns
_COPY_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3  # a shallow copy is then safe from changes of the original


def build_design(
    spec: ModelSpec,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    relationship: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Design:
    """The design of a model on a data frame.

    data : pandas, polars or pyarrow frame, anything else that narwhals reads, or a mapping of columns
    weights, offset : numbers by position, where they are not columns named in the spec
    relationship : grouping factor -> labelled square frame
    functions : the user's own functions of the formula
    Errors: `DataError` and its kinds for columns and rows, `RankError`, `SizeError` and `DesignError` for designs that no method can
    estimate. What only the likelihood cannot identify is not refused here: see `Design.unidentified`.

    >>> from bayeslmm.formula import parse_formula
    >>> data = {"y": [1.0, 2.5, 2.0, 4.0, 3.0, 5.5], "x": [0, 1, 2] * 2, "g": ["a", "a", "a", "b", "b", "b"]}
    >>> design = build_design(ModelSpec(parse_formula("y ~ x + (1 | g)")), data)
    >>> design.coef_names, design.groups, design.X.shape
    (('Intercept', 'x'), {'g': 2}, (6, 2))
    """
    own = require_mapping(functions, "functions", "{name: function}")
    if weights is not None and spec.weights is not None:
        raise SpecificationError("weights are given twice, as a column and as an array", f"column {spec.weights!r}", "give one")
    row_columns = tuple(name for name in (spec.weights, spec.offset) if name is not None)
    asked = plan_columns(spec.formula, spec.residual, spec.variance, row_columns)
    table = read_table(data, asked.columns)
    read = _read(spec, asked, table, weights, offset)
    training = Training(dict(spec.contrasts), own)
    return Assembly(spec, asked, read, training, isinstance(data, pd.DataFrame), dict(relationship or {})).design()


@dataclass(frozen=True, slots=True, eq=False)
class ColumnReader:
    """The columns over the rows kept, and what was given beside them over all rows."""

    source: Columns
    rows: Codes
    dropped: dict[str, int]
    weights: Array | None
    offset: Array | None


def _read(spec: ModelSpec, asked: ColumnPlan, table: ColumnTable, weights: Any, offset: Any) -> ColumnReader:
    source = Columns(table)
    prior = read_weights(spec.weights, weights, source)
    values = None if offset is None else numbers_by_position(offset, "offset", table)
    if values is not None:
        check_finite_offset(values, "the offset")
    extra = {} if values is None else {"offset": np.isnan(values)}
    kept = complete_cases(source, asked.roles(source), extra, prior, spec.weights or "weights", spec.missing)
    source.rows = kept.positions
    if kept.positions is None:
        return ColumnReader(source, readonly(np.arange(len(table))), {}, prior, values)
    rows = kept.positions
    return ColumnReader(
        source, readonly(rows), kept.dropped, None if prior is None else prior[rows], None if values is None else values[rows]
    )


@dataclass(frozen=True, slots=True, eq=False)
class EncodedColumns:
    """What rows teach: trained atoms, blocks of columns, grouping factors; with the columns of these rows.

    fixed, everything : the fixed effects, and all their columns, aliased ones too
    """

    response: EncodedVariable
    y: Array
    fixed: DesignBlock
    everything: Array
    terms: tuple[RandomTerm, ...]
    offset: Array | None
    encoding: Encoding


@dataclass(slots=True, eq=False)
class Assembly:
    """The parts of one design while they are put together; equal right-hand sides and equal groups are made once."""

    spec: ModelSpec
    asked: ColumnPlan
    read: ColumnReader
    training: Training
    labelled: bool
    relationship: dict[str, Any]
    _blocks: dict[tuple[Terms, bool], tuple[DesignBlock, Array]] = field(default_factory=dict)
    _groups: dict[tuple[str, ...], GroupCoder] = field(default_factory=dict)

    def design(self) -> Design:
        spec, source, rows = self.spec, self.read.source, self.read.rows
        learnt = self.learnt()
        y, fixed, everything, terms = learnt.y, learnt.fixed, learnt.everything, learnt.terms
        check_response_varies(self.asked.response.name, y.min(), y.max(), len(y))
        about = near_columns(fixed, source)
        found = require_rank(fixed, everything, len(y), about)
        whole = len(found.kept) == everything.shape[1]
        X = everything if whole else freeze(everything[:, found.kept])
        near = about if whole or about is None else near_columns(fixed, source, found.kept)
        near_X = X if near is None else near.columns
        residual, visit_notes = (None, []) if spec.residual is None else residual_design(spec.residual, source, rows)
        visit_notes += few_complete(residual, near_X)
        scaled, scale = scale_weights(self.read.weights)
        variance = tuple(variance_design(factor, source, rows) for factor in spec.variance)
        problems = checks.identification_problems(terms, residual, len(y), everything, held=spec.sigma is not None)
        problems += lost_in_fixed(terms, near_X) + single_row_strata(variance)
        notes = self._notes(fixed, found, terms, residual, visit_notes)
        return Design(
            spec=spec,
            y=y,
            X=X,
            coef_names=fixed.names,
            kept=found.kept,
            aliased=tuple(name for i, name in enumerate(fixed.names) if i not in found.kept) if len(found.kept) < len(fixed.names) else (),
            coef_terms=fixed.terms,
            weights=None if scaled is None else freeze(scaled.copy()),
            weight_scale=scale,
            offset=learnt.offset,
            terms=terms,
            residual=residual,
            variance=variance,
            rows=rows,
            n_read=len(source.table),
            n_dropped=len(source.table) - len(rows),
            dropped=FrozenMapping(self.read.dropped),
            index=self._index(),
            labelled=self.labelled,
            own_frame=self._own_frame(),
            notes=tuple(notes if spec.check == "error" else [*notes, *checks.identification_check(problems)]),
            encoding=learnt.encoding,
            unidentified=problems if spec.check == "error" else (),
            near=near,
            near_all=None if whole else about,
        )

    def learnt(self) -> EncodedColumns:
        """What these rows teach, whether or not they are all that there are."""
        response, y = self._response()
        fixed, everything = self._block(self.spec.formula.terms)
        terms, coders = self._terms()
        self._check_contrasts_used()
        offset, atoms = self._offset()
        return EncodedColumns(response, y, fixed, everything, terms, offset, self._make_encoding(fixed, coders, response, atoms))

    # ------------------------------------------------------------------------------------------------------- the columns

    def _block(self, terms: Terms, structure: str = "") -> tuple[DesignBlock, Array]:
        key = (terms, bool(structure) and is_serial(structure))
        if key not in self._blocks:
            training = replace(self.training, keep_unused=key[1])
            block = train_block(terms, self.read.source, training)
            columns = readonly(block.encode(self.read.source))
            check_not_extreme(columns, block.names)
            self._blocks[key] = block, columns
        return self._blocks[key]

    def _response(self) -> tuple[EncodedVariable, Array]:
        atom, source = self.asked.response, self.read.source
        # A column has been read as numbers by now, which a boolean is and no other factor.
        trained = NumericVariable(atom.name) if atom.kind == "column" else encode_variable(atom, source, self.training)
        pieces = trained.pieces(source, reduced=False)
        if len(pieces) != 1:
            raise DesignError(f"the response {atom.name!r} has {len(pieces)} columns", "", "fit one model per response")
        y = readonly(np.array(pieces[0], dtype=np.float64))
        check_not_extreme(y[:, None], (atom.name,))
        return trained, y

    def _terms(self) -> tuple[tuple[RandomTerm, ...], tuple[RandomCoder, ...]]:
        groups = tuple(dict.fromkeys(term.name for term in self.spec.formula.random))
        if self.relationship or self.spec.relationship:
            check_names(self.spec.relationship, self.relationship, groups)
        matrices: dict[str, Array] = {}
        terms, coders = [], []
        for bar in self.spec.formula.random:
            block, Z = self._block(bar.terms, bar.structure)
            if not block.names:
                raise DesignError(f"({bar.text}) has no columns", "", f"write (1 | {bar.name}) for a random intercept")
            if bar.group not in self._groups:
                self._groups[bar.group] = group_coder(self.read.source, bar.group)
            coder = self._groups[bar.group]
            if bar.name in self.relationship and bar.name not in matrices:
                matrices[bar.name] = align_relationship(bar.name, self.relationship[bar.name], coder.factor)
            covariance = self._covariance(bar, block)
            moves = None if (about := near_columns(block, self.read.source)) is None else about.moves
            terms.append(RandomTerm(coder.factor, Z, block.names, bar, covariance, matrices.get(bar.name), moves))
            coders.append(RandomCoder(block, coder))
        return tuple(terms), tuple(coders)

    def _covariance(self, bar: BarTerm, block: DesignBlock) -> Covariance:
        """The structure of the columns of a random term."""
        if "@" not in bar.structure:
            return _structure(bar.structure, len(block.names), bar.order, _places(bar, block, self.read.source))
        # the columns are cells, and those of the first factor of an interaction run fastest
        factors = [atom for atom in block.atoms.values() if isinstance(atom, FactorVariable)][::-1]
        dims = tuple(len(atom.levels) for atom in factors)
        if prod(dims) != len(block.names) or len(block.names) > MAX_PLOTS:
            shape = " x ".join(f"{size:,} levels of {atom.column!r}" for size, atom in zip(dims, factors, strict=True))
            remedy = "give columns without a contrast of their own, of few levels: (ar1(row):ar1(col) | trial)"
            what = f"({bar.text}) has {len(block.names):,} columns; a product takes every cell, up to {MAX_PLOTS:,}"
            raise DesignError(what, shape, remedy)
        structures = bar.structure.split("@")
        places = tuple(_axis(structure, atom, self.read.source) for structure, atom in zip(structures, factors, strict=True))
        return make(bar.structure, len(block.names), dims=dims, places=places)

    def _check_contrasts_used(self) -> None:
        """A coding for a column that is no factor of the model would be passed over in silence."""
        if not self.training.contrasts:
            return
        coded = {atom.column for block, _ in self._blocks.values() for atom in block.atoms.values() if isinstance(atom, FactorVariable)}
        for name in self.training.contrasts:
            if name not in coded:
                near = nearest_names(name, tuple(coded))
                numeric = (
                    f"write C({name}) in the formula if it holds labels" if name in self.asked.columns else "name a factor of the formula"
                )
                raise SpecificationError(
                    f"contrasts are given for {name!r}, which is not a factor of the formula",
                    f"factors: {', '.join(sorted(coded)) or 'none'}",
                    f"did you mean {near[0]!r}?" if near else numeric,
                )

    def _offset(self) -> tuple[Array | None, tuple[EncodedVariable, ...]]:
        source = self.read.source
        atoms = tuple(encode_variable(atom, source, self.training) for atom in self.asked.offsets)
        for atom in atoms:
            if isinstance(atom, FactorVariable):
                source.numbers(atom.column)  # which says what a factor is not
        parts = [atom.pieces(source, reduced=False)[0] for atom in atoms]
        parts += [source.numbers(self.spec.offset)] if self.spec.offset is not None else []
        parts += [self.read.offset] if self.read.offset is not None else []
        if not parts:
            return None, atoms
        total = np.sum(parts, axis=0)
        check_not_extreme(total[:, None], ("offset",))
        return freeze(total), atoms

    # ----------------------------------------------------------------------------------------------------- what surrounds

    def _notes(
        self, fixed: DesignBlock, found: Rank, terms: tuple[RandomTerm, ...], residual: Any, visit_notes: list[Check]
    ) -> list[Check]:
        source = self.read.source
        coded = [atom.column for atom in fixed.atoms.values() if isinstance(atom, FactorVariable)]
        visits = [name for name in self.asked.natural if source.is_factor(name)]
        notes = checks.column_notes(source, (*self.asked.factors, *coded, *visits), fixed, (block for block, _ in self._blocks.values()))
        notes += checks.design_notes(found, fixed.names, terms, residual is not None)
        if not any(note.name == "labels_in_several_groups" for note in notes):
            notes += checks.nesting_note(source, terms, self.asked.columns)
        notes += self._order_notes(residual)
        free = self.spec.residual is None and not self.spec.variance
        return notes + undetermined_terms(terms, free_errors=free) + visit_notes

    def _order_notes(self, residual: ResidualDesign | None) -> list[Check]:
        """About visits, of the errors and of serial random terms, in an order that their numbers contradict."""
        serial = {
            atom.column: atom.levels
            for bar in self.spec.formula.random
            if bar.structure and needs_order(bar.structure)
            for atom in self._block(bar.terms, bar.structure)[0].atoms.values()
            if isinstance(atom, FactorVariable)
        }
        notes = checks.order_note(serial, matters=True)
        return notes if notes or residual is None else checks.residual_order_note(residual)

    def _make_encoding(
        self, fixed: DesignBlock, coders: tuple[RandomCoder, ...], response: EncodedVariable, offsets: tuple[EncodedVariable, ...]
    ) -> Encoding:
        source = self.read.source
        factors = {atom.column: atom.levels for atom in fixed.atoms.values() if isinstance(atom, FactorVariable)}
        covariates = {name: _covariate(source, name) for name in fixed.columns if name not in factors and not source.is_factor(name)}
        return Encoding(fixed, coders, offsets, self.spec.offset, response, FrozenMapping(factors), FrozenMapping(covariates))

    def _index(self) -> pd.Index[Any]:
        source = self.read.source
        index = source.table.frame.index if self.labelled else pd.RangeIndex(len(source.table))
        return index if source.rows is None else index[source.rows]

    def _own_frame(self) -> OwnFrame:
        """A copy that later changes of the caller's frame cannot reach: of all columns where that is cheaper than picking some."""
        frame, rows, used = self.read.source.table.frame, self.read.source.rows, self.asked.columns
        if len(used) < frame.shape[1] and len(frame) * frame.shape[1] > _SMALL:
            frame = frame[list(used)]
        if rows is not None:
            return OwnFrame(frame.iloc[rows], used)
        return OwnFrame(frame.copy(deep=not _COPY_ON_WRITE), used)


@lru_cache(maxsize=256)
def _structure(name: str, size: int, order: StructureOrder | None, positions: tuple[float, ...]) -> Covariance:
    return make(name, size, order, positions=positions)


def _axis(structure: str, atom: FactorVariable, source: Columns) -> tuple[float, ...]:
    """Where the levels of one factor of a product stand."""
    at = level_numbers(atom.levels)
    if takes_times(structure):
        if at is None:
            raise no_distances_error(structure, atom.column, ", ".join(map(str, atom.levels[:6])))
        return at
    counts = at is not None and keeps_distance(structure) and source.kind(atom.column) == "number"
    return steps(structure, np.array(at), atom.column) if counts else ()


def _places(bar: BarTerm, block: DesignBlock, source: Columns) -> tuple[float, ...]:
    """Where the columns of `ar1(0 + C(t) | g)` and `car1(0 + f | g)` stand: at the numbers t, or the numbers that label f.

    Errors: `DataError` for car1 over columns that have no times.
    """
    timed = takes_times(bar.structure)
    if not timed and not keeps_distance(bar.structure):
        return ()
    factors = [atom for atom in block.atoms.values() if isinstance(atom, FactorVariable)]
    whole = len(factors) == 1 and len(block.atoms) == 1 and len(factors[0].levels) == len(block.names)
    if whole and (timed or source.kind(factors[0].column) == "number"):
        times = level_numbers(factors[0].levels)
        if times is not None:
            return times if timed else steps(bar.structure, np.array(times), factors[0].column)
    if timed:
        raise DataError(
            f"the columns of {bar.structure}({bar.text}) have no times",
            ", ".join(block.names[:6]),
            f"write {bar.structure}(0 + C(time) | {bar.name}) with a column of numbers, or a factor whose labels are increasing numbers",
        )
    return ()


def check_response_varies(name: str, low: float, high: float, rows: int) -> None:
    """Refuse a response of one value."""
    if rows > 1 and low == high:
        raise DesignError(f"the response {name!r} is constant: {low:g} in all {rows} rows", "", "check the column and the rows")


def require_rank(fixed: DesignBlock, X: Array, rows: int, about: NearColumns | None = None) -> Rank:
    """The independent columns of X.

    rows : number of rows that X has, or stands for
    about : X about the origins of its covariates, by which it is judged
    Errors: `RankError` where they are as many as the rows.
    """
    remedy, size = "drop terms, or use a random effect for factors of many levels", X.shape[1]
    most = ", ".join(f"{term}: {n} columns" for term, n in Counter(fixed.terms).most_common(3) if n > 1)
    if size > rows:
        raise RankError(f"the fixed effects have {size} columns, and there are {rows} rows", most, remedy)
    intercept = bool(fixed.scopes) and not fixed.scopes[0]
    found = column_rank(X, intercept=intercept) if about is None else _near_rank(about, intercept=intercept)
    if len(found.kept) >= rows:
        what = f"the fixed effects have {len(found.kept)} independent columns for {rows} rows: nothing is left to estimate variances from"
        raise RankError(what, most, remedy)
    return found


def _near_rank(about: NearColumns, *, intercept: bool) -> Rank:
    order = about.order
    found = column_rank(about.columns[:, order], intercept=intercept)
    return replace(found, kept=tuple(sorted(int(order[j]) for j in found.kept)))


def _covariate(source: Columns, name: str) -> Covariate:
    return Covariate.of(source.numbers(name), integer=source.read_numbers(name).integer)
