"""Cross-products summed over partitions, the incremental QR that standardizes them, and the design without rows.

A pass more is read where a level of a factor of the fixed effects, or of the left side of a bar, first shows itself after the first
partition with rows: its column must be known before columns can be measured.

Means, lengths and angles of the columns, hence their rank, their least-squares fit and the change of columns that conditions them, are
those of `R`. Columns are counted from the first row, so that an origin far away costs no digits and a constant column is exactly one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, FrozenMapping, freeze, freeze_codes
from bayeslmm.data import notes as checks
from bayeslmm.data.build import Assembly, ColumnReader, EncodedColumns, check_response_varies, require_rank
from bayeslmm.data.design import Design, Encoding, OwnFrame, RandomTerm
from bayeslmm.data.expressions import UserFunctions
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.data.model_matrix import atoms_of
from bayeslmm.data.rows import ColumnPlan, no_rows_error, plan_columns, scale_weights
from bayeslmm.data.variables import FactorVariable, Training
from bayeslmm.errors import Check, EmptyDataError, FormulaError, InferenceError, PredictionError, SpecificationError
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.problem import Problem, problem_from_sums
from bayeslmm.likelihood.random_effects.cross_products import Accumulator, add_rows, factors_of
from bayeslmm.likelihood.standardize import Standardization, find_standardization, row_pieces
from bayeslmm.partitions.first_pass import EncodedPart, FirstPass, PartRows, encode_part, in_partition, read_parts, rows_design
from bayeslmm.partitions.partitions import Partitions
from bayeslmm.specification.model_spec import ModelSpec


@dataclass(slots=True, eq=False)
class IncrementalQR:
    """R of [1, M - first row], rows times the roots of their weights."""

    origin: Array | None = None
    R: Array | None = None

    def add(self, M: Array, root: Array | None) -> None:
        """Rows (n, k) of the matrix, and the roots of their weights (n,) where they have any."""
        if not len(M):
            return
        if self.origin is None or self.R is None:
            self.origin, self.R = M[0].copy(), np.zeros((0, M.shape[1] + 1))
        for part in row_pieces(len(M)):
            block = np.empty((part.stop - part.start, M.shape[1] + 1))
            block[:, 0] = 1.0
            np.subtract(M[part], self.origin, out=block[:, 1:])
            if root is not None:
                block *= root[part, None]
            self.R = np.linalg.qr(np.vstack([self.R, block]), mode="r")

    def rows(self) -> Array:
        """k + 1 rows without weights whose means are those of all rows, and whose squares and products are, per row, theirs.

        (H R_1..k) sqrt((k + 1) / W) + origin, with H orthogonal, its first column constant, and W the sum of the weights.
        """
        assert self.origin is not None and self.R is not None
        m = len(self.origin) + 1
        R = np.zeros((m, m))
        R[: len(self.R)] = self.R
        total = R[0, 0]
        if total < 0:
            R[0] *= -1.0
        return np.asarray(_constant_first(m) @ R[:, 1:] * (np.sqrt(m) / abs(total)) + self.origin)


def _constant_first(m: int) -> Array:
    """An orthogonal matrix whose first column is constant: the reflection of the first axis to it."""
    normal = np.full(m, -1.0 / np.sqrt(m))
    normal[0] += 1.0
    square = float(normal @ normal)
    return np.eye(m) if square == 0.0 else np.eye(m) - 2.0 * np.outer(normal, normal) / square


ROW_ARRAYS = {
    "y": "the response",
    "X": "the rows of X",
    "weights": "the weights",
    "offset": "the offset",
    "rows": "the positions of the rows",
    "index": "the index of the rows",
    "own_frame": "the rows of the data",
    "Z": "the rows of Z",
    "codes": "the level of each row",
}
"""What only rows in memory have."""


def _absent(name: str) -> InferenceError | AttributeError:
    if name not in ROW_ARRAYS:
        return AttributeError(name)
    return InferenceError(
        f"this needs {ROW_ARRAYS[name]}, which were added up in parts and not kept",
        "a model from partitions",
        "give predict() the rows as newdata; or fit the model on a frame in memory, a sample of the groups where all do not fit",
    )


class _Factor(GroupingFactor):
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)


class _Term(RandomTerm):
    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)


class PartitionedDesign(Design):
    """The design of a model whose rows were read in parts: arrays over the rows are absent, and asking for one says so."""

    __slots__ = ("_nobs", "_response_size")
    _nobs: int
    _response_size: tuple[float, float, float]

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)

    @property
    def nobs(self) -> int:
        """n, the number of rows added up."""
        return self._nobs

    @property
    def in_memory(self) -> bool:
        """False: the rows were not kept."""
        return False

    @property
    def response_size(self) -> tuple[float, float, float]:
        """As of a design in memory."""
        return self._response_size


def drop_row_arrays(design: Design, nobs: int, response_size: tuple[float, float, float], known: Mapping[str, Any]) -> PartitionedDesign:
    """The design with its arrays over rows left out.

    design : of rows that stand for all; known : fields that differ from it. `weights` and `offset` are absent, or None where there are none
    """
    absent = {name for name in ROW_ARRAYS if not (name in ("weights", "offset") and known.get(name, 0) is None)}
    terms = {"terms": tuple(_copy(_Term, term, absent, {"group": _copy(_Factor, term.group, absent, {})}) for term in design.terms)}
    made: PartitionedDesign = _copy(PartitionedDesign, design, absent, {**known, **terms})
    object.__setattr__(made, "_nobs", nobs)
    object.__setattr__(made, "_response_size", response_size)
    return made


def _copy(kind: type[Any], value: Any, absent: set[str], changed: Mapping[str, Any]) -> Any:
    """A value of a subclass that holds the fields of another, but for those that are absent."""
    made = object.__new__(kind)
    for own_field in fields(value):
        if own_field.name not in absent:
            object.__setattr__(
                made, own_field.name, changed[own_field.name] if own_field.name in changed else getattr(value, own_field.name)
            )
    return made


def sum_partitions(
    spec: ModelSpec,
    partitions: Partitions,
    *,
    relationship: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Problem:
    """The problem of a model whose rows are read in parts; its design is without rows.

    Criterion, estimates and everything that follows from cross-products are those of the rows in memory, whatever their order and however
    they are divided. Memory is that of one partition, of the levels, and of the pairs of levels that occur.

    Errors: those of `build_design`, with the number of the partition; SpecificationError for structured errors, FormulaError for terms
    that learn from all rows at once.

    >>> from bayeslmm.formula import parse_formula
    >>> rows = [{"y": [1.0, 2.5, 2.0], "x": [0, 1, 2], "g": ["a"] * 3}, {"y": [4.0, 3.0, 5.5], "x": [0, 1, 2], "g": ["b"] * 3}]
    >>> problem = sum_partitions(ModelSpec(parse_formula("y ~ x + (1 | g)")), Partitions(rows))
    >>> problem.design.nobs, problem.design.groups
    (6, {'g': 2})
    """
    _check_errors_independent(spec)
    beside = tuple(name for name in (spec.weights, spec.offset) if name is not None)
    asked = plan_columns(spec.formula, None, (), beside)
    _check_no_learning(spec, asked)
    reading = _Reading(spec, asked, partitions, dict(relationship or {}), dict(functions or {}))
    with one_thread():
        return reading.problem()


def _check_errors_independent(spec: ModelSpec) -> None:
    if spec.residual is not None or spec.variance:
        raise SpecificationError(
            "rows in parts are added up for independent errors only",
            "residual" if spec.residual is not None else "variance",
            "express the correlation by random effects, or fit the model on a frame in memory",
        )


@dataclass(slots=True, eq=False)
class _ColumnTriangles:
    """What the columns measure: triangles of [X y] and of every Z, the range of the response."""

    Xy: IncrementalQR = field(default_factory=IncrementalQR)
    blocks: dict[int, IncrementalQR] = field(default_factory=dict)
    largest: float = 0.0
    left: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, columns: EncodedPart) -> None:
        Xy, root = columns.Xy, columns.root
        self.Xy.add(Xy, root)
        for i, Z in enumerate(columns.Zs):
            self.blocks.setdefault(i, IncrementalQR()).add(Z, root)
        self.largest = max(self.largest, float(np.abs(columns.y).max()))
        self.left = max(self.left, float(np.abs(Xy[:, -1]).max()))
        self.low, self.high = min(self.low, float(columns.y.min())), max(self.high, float(columns.y.max()))


@dataclass(slots=True, eq=False)
class _Reading:
    """The passes over the partitions of one model."""

    spec: ModelSpec
    asked: ColumnPlan
    partitions: Partitions
    relationship: dict[str, Any]
    functions: UserFunctions
    scale: float = 1.0

    def problem(self) -> Problem:
        survey, learnt, measured = self._first_pass()
        design = _template(self.spec, self.asked, survey, learnt, measured, self.scale)
        standardization = _standardization_of(design, survey, self.scale)
        total, alike = self._sums(design, standardization)
        problems = checks.identification_problems(design.terms, None, survey.kept, design.X, alike)
        notes = _notes(design, learnt, survey, problems)
        known: dict[str, Any] = {"notes": notes, "unidentified": problems if self.spec.check == "error" else ()}
        known |= {} if self.spec.weights is not None else {"weights": None}
        known |= {} if self.spec.offset is not None or self.spec.formula.offsets else {"offset": None}
        spread = float(np.std(design.y))
        rowless = drop_row_arrays(design, survey.kept, (measured.largest, spread, measured.left), known)
        return problem_from_sums(rowless, standardization, total.finish())

    def _parts(self) -> Any:
        return read_parts(self.partitions, self.spec, self.asked)

    # -- the first pass ------------------------------------------------------------------------------------------------------------------

    def _first_pass(self) -> tuple[FirstPass, EncodedColumns, _ColumnTriangles]:
        survey = FirstPass(self.asked, tuple(dict.fromkeys(term.group for term in self.spec.formula.random)))
        early: EncodedColumns | None = None
        measured: _ColumnTriangles | None = _ColumnTriangles()
        unproven = bool(self.functions)
        for part in self._parts():
            survey.add(part)
            if not len(part):
                continue
            if early is None:
                self.scale = scale_weights(part.weights)[1]
                early = self._learnt(survey, all_groups=False)
            if measured is not None and not self._measure(measured, part, early):
                measured = None
            if unproven and measured is not None and len(part) > 1:
                _check_row_by_row(early.encoding, part, self.functions)
                unproven = False
        if early is None:
            raise (
                no_rows_error(survey.dropped, survey.read)
                if survey.dropped
                else EmptyDataError("the partitions have no rows", "", "give data with at least one row per parameter")
            )
        learnt = self._learnt(survey, all_groups=True)
        if measured is None or _columns(early) != _columns(learnt):
            measured = _ColumnTriangles()
            for part in self._parts():
                if len(part):
                    with in_partition(part.number):
                        measured.add(encode_part(part, learnt.encoding, self.scale))
        return survey, learnt, measured

    def _measure(self, measured: _ColumnTriangles, part: PartRows, early: EncodedColumns) -> bool:
        """Whether the columns are known for all rows of the part."""
        with in_partition(part.number):
            try:
                measured.add(encode_part(part, early.encoding, self.scale))
            except PredictionError:
                return False
        return True

    def _learnt(self, survey: FirstPass, *, all_groups: bool) -> EncodedColumns:
        source = survey.roster()
        rows = freeze_codes(np.arange(len(source)))
        known = self.relationship if all_groups else {}
        training = Training(dict(self.spec.contrasts), self.functions)
        spec = self.spec if all_groups else replace(self.spec, relationship=())
        return Assembly(spec, self.asked, ColumnReader(source, rows, {}, None, None), training, False, known).learnt()

    # -- the second pass -----------------------------------------------------------------------------------------------------------------

    def _sums(
        self, design: Design, standardization: Standardization
    ) -> tuple[Accumulator, Callable[[GroupingFactor, GroupingFactor], bool]]:
        total = Accumulator.empty(factors_of(design), len(design.kept) + 1, standardization.maps)
        together = _CoincidingFactors()
        for part in self._parts():
            if len(part):
                with in_partition(part.number):
                    rows = rows_design(design, part, encode_part(part, design.encoding, self.scale))
                add_rows(total, rows, standardization)
                together.add(rows)
        return total, together.alike


@dataclass(slots=True, eq=False)
class _CoincidingFactors:
    """Which grouping factors with as many levels have divided all rows alike so far."""

    partners: dict[tuple[str, str], Any] = field(default_factory=dict)

    def add(self, rows: Design) -> None:
        groups = list({term.group.name: term.group for term in rows.terms}.values())
        for i, a in enumerate(groups):
            for b in groups[i + 1 :]:
                if a.size == b.size and self.partners.get((a.name, b.name), 0) is not None:
                    partner = self.partners.setdefault((a.name, b.name), np.full(a.size, -1))
                    known = partner[a.codes]
                    partner[a.codes] = np.where(known < 0, b.codes, known)
                    if (partner[a.codes] != b.codes).any():
                        self.partners[(a.name, b.name)] = None

    def alike(self, a: GroupingFactor, b: GroupingFactor) -> bool:
        pair = (a.name, b.name) if (a.name, b.name) in self.partners else (b.name, a.name)
        return self.partners.get(pair) is not None


# -- what the first pass amounts to ------------------------------------------------------------------------------------------------------


def _columns(learnt: EncodedColumns) -> list[Any]:
    """What decides the columns: names, levels and codings of every block."""
    blocks = [learnt.encoding.fixed_block, *(coder.block for coder in learnt.encoding.random_coders)]
    levels = [[atom.levels for atom in block.atoms.values() if isinstance(atom, FactorVariable)] for block in blocks]
    return [[block.names for block in blocks], levels]


def _check_no_learning(spec: ModelSpec, asked: ColumnPlan) -> None:
    """Refuse terms that learn from all rows: they would learn something else in each partition."""
    formula = spec.formula
    atoms = [atom for terms in (formula.terms, *(term.terms for term in formula.random)) for atom in atoms_of(terms).values()]
    for atom in (*atoms, asked.response, *asked.offsets):
        if atom.kind == "stateful":
            raise FormulaError(
                f"{atom.name!r} learns from all rows at once, which are read in parts",
                spec.formula.text,
                "write powers and logarithms, I(x ** 2), or compute the columns beforehand",
            )


def _check_row_by_row(encoding: Encoding, part: PartRows, functions: UserFunctions) -> None:
    """Refuse functions of the user's whose values depend on other rows."""
    half = replace(part, source=_first_half(part), weights=None)
    if not np.array_equal(encode_part(part, encoding).Xy[: len(half)], encode_part(half, encoding).Xy):
        raise FormulaError(
            "a function of the formula depends on other rows, which are read in parts",
            ", ".join(functions),
            "give functions that take each row by itself",
        )


def _first_half(part: PartRows) -> Any:
    rows = np.arange(part.read) if part.source.rows is None else part.source.rows
    return replace(part.source, rows=rows[: len(rows) // 2], _kept={})


def _template(
    spec: ModelSpec, asked: ColumnPlan, survey: FirstPass, learnt: EncodedColumns, measured: _ColumnTriangles, scale: float
) -> Design:
    """A design of a few rows that stand for all: their means, squares and products are those of all rows."""
    columns = measured.Xy.rows()
    everything, y = columns[:, :-1], columns[:, -1]
    check_response_varies(asked.response.name, np.array([measured.low, measured.high]))
    found = require_rank(learnt.fixed, everything, survey.kept)
    kept, names = found.kept, learnt.fixed.names
    terms = tuple(
        replace(term, Z=freeze(measured.blocks[i].rows()), group=replace(term.group, codes=freeze_codes(np.zeros(0, np.int64))))
        for i, term in enumerate(learnt.terms)
    )
    covariates = {name: survey.covariate(name) for name in learnt.encoding.covariates if name in survey.ranges}
    return Design(
        spec=spec,
        y=freeze(y.copy()),
        X=freeze(everything[:, list(kept)]),
        coef_names=names,
        kept=kept,
        aliased=tuple(name for i, name in enumerate(names) if i not in kept),
        coef_terms=learnt.fixed.terms,
        weights=None,
        offset=None,
        terms=terms,
        residual=None,
        variance=(),
        rows=freeze_codes(np.arange(len(y))),
        n_read=survey.read,
        n_dropped=survey.read - survey.kept,
        dropped=FrozenMapping(survey.dropped),
        index=pd.RangeIndex(len(y)),
        own_frame=OwnFrame(pd.DataFrame(), asked.columns),
        notes=tuple(checks.design_notes(found, names, terms, None)),
        encoding=replace(learnt.encoding, covariates=FrozenMapping(covariates)),
        weight_scale=scale,
    )


def _standardization_of(design: Design, survey: FirstPass, scale: float) -> Standardization:
    """The change of columns that the rows which stand for all ask for, with what only the weights of all rows know."""
    found = find_standardization(design)
    if design.spec.weights is None:
        return found
    mean = survey.weights / survey.kept / scale
    return replace(found, weight_mean=mean, logdet_weights=survey.log_weights - survey.kept * float(np.log(mean * scale)))


def _notes(design: Design, learnt: EncodedColumns, survey: FirstPass, problems: Any) -> tuple[Check, ...]:
    source = survey.roster()
    coded = [atom.column for atom in learnt.fixed.atoms.values() if isinstance(atom, FactorVariable)]
    blocks = (coder.block for coder in learnt.encoding.random_coders)
    about = checks.column_notes(source, (*survey.asked.factors, *coded), learnt.fixed, blocks)
    # the rows kept show every level, not every number
    notes = [*(note for note in about if note.name != "few_integer_values"), *design.notes]
    return tuple(notes if design.spec.check == "error" else [*notes, *checks.identification_check(problems)])
