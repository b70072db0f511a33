"""What stands for rows that were added up: their sums, sums by pattern of visits, and a design that says which rows are missed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.data.build import EncodedColumns
from bayeslmm.data.design import CountedCells, Design, MomentRows, RandomTerm, ResidualDesign
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import Check, InferenceError, SpecificationError
from bayeslmm.likelihood.standardize import Standardization
from bayeslmm.likelihood.starting_values import residual_start
from bayeslmm.likelihood.structured.blocks import PooledBatch, is_poolable, pool_all
from bayeslmm.likelihood.structured.residual_structure import residual_structure
from bayeslmm.partitions.first_pass import COUNT, FirstPass
from bayeslmm.partitions.moments import CoincidingFactors, ColumnMoments, SpanningRows, SumsByLevel

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
    "visit": "the visit of each row",
}
"""What only rows in memory have."""

WITHOUT_ROWS = "a model from partitions, or of a file saved with rows=False"
"""Where rows are missed."""

GIVEN_WEIGHTS, GIVEN_OFFSET = "weights given beside the data", "offset given beside the data"
"""Columns that stand for arrays once the rows are gone."""


def _absent(name: str) -> InferenceError | AttributeError:
    if name not in ROW_ARRAYS:
        return AttributeError(name)
    return InferenceError(
        f"this needs {ROW_ARRAYS[name]}: rows were added up and not kept",
        WITHOUT_ROWS,
        "give predict() the rows as newdata; or fit the model on a frame in memory, a sample of the groups where all do not fit, "
        "and save it with its rows",
    )


class WithAbsentFields:
    """An object some of whose fields are not there: asking for one says so; copies, pickles and its text do without."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise _absent(name)

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({', '.join(self.__getstate__())})"

    def __getstate__(self) -> dict[str, Any]:
        found = dict(getattr(self, "__dict__", {}))
        for name in (name for kind in type(self).__mro__ for name in getattr(kind, "__slots__", ()) if not name.startswith("__")):
            with suppress(AttributeError):
                found[name] = object.__getattribute__(self, name)
        return found

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


class AddedUpFactor(WithAbsentFields, GroupingFactor):
    """A grouping factor without the level of each row."""

    __slots__ = ()


class AbsentRows:
    """Stands where an array over the rows would; whoever looks at its values is told that they were not kept."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise _absent(self.name)

    def __getitem__(self, rows: Any) -> Any:
        raise _absent(self.name)

    def __len__(self) -> int:
        raise _absent(self.name)


class _Term(WithAbsentFields, RandomTerm):
    __slots__ = ("_moment_rows",)
    _moment_rows: Array

    @property
    def moment_rows(self) -> Array:
        """Rows whose mean products are those of all rows of Z."""
        return self._moment_rows


@dataclass(frozen=True, slots=True, eq=False)
class RowSummary:
    """What is kept of the rows of a design beside cross-products by level.

    moments, Zs : rows with the moments of all rows, of X, y and the offset, and of every Z; spanning : rows on which X has full rank
    cells : None where they were too many; variable_means : of variables of the fixed effects; column_means : of columns of numbers
    response_size : as of a design in memory
    """

    nobs: int
    response_size: tuple[float, float, float]
    moments: MomentRows
    Zs: tuple[Array, ...]
    spanning: pd.DataFrame
    cells: pd.DataFrame | None
    variable_means: Mapping[str, Array]
    column_means: Mapping[str, float]
    mean_inverse_weight: float


class PartitionedDesign(WithAbsentFields, Design):
    """The design of a model whose rows were read in parts: arrays over the rows are absent, and asking for one says so."""

    __slots__ = ("summary", "summed")
    summary: RowSummary
    summed: SummedRows

    @property
    def nobs(self) -> int:
        """n, the number of rows added up."""
        return self.summary.nobs

    @property
    def in_memory(self) -> bool:
        """False: the rows were not kept."""
        return False

    @property
    def response_size(self) -> tuple[float, float, float]:
        """As of a design in memory."""
        return self.summary.response_size

    @property
    def moments(self) -> MomentRows:
        """A few rows that have the moments of all rows."""
        return self.summary.moments

    @property
    def spanning_frame(self) -> pd.DataFrame:
        """Rows of the data on which the columns kept are as independent as on all rows: as many as there are columns."""
        return self.summary.spanning

    @property
    def cells(self) -> CountedCells:
        """How many rows have which values of factors, and of columns of two values."""
        cells = self.summary.cells
        if cells is None:
            raise InferenceError(
                "the factors of the fixed effects have too many combinations of levels to be counted",
                WITHOUT_ROWS,
                'use weights="equal"',
            )
        return CountedCells(_Cells(cells.drop(columns=COUNT)), cells[COUNT].to_numpy(np.float64))

    @property
    def mean_inverse_weight(self) -> float:
        """The mean of 1 / w."""
        return self.summary.mean_inverse_weight

    def column_mean(self, name: str) -> float:
        """The mean of a column of numbers that the model reads."""
        return self.summary.column_means[name]

    def variable_means(self, key: str, values: Array) -> Array:
        """Means of the columns of a variable of the fixed effects over all rows."""
        return self.summary.variable_means[key]


class _Cells(pd.DataFrame):
    """Values of cells; a column of more than two numbers has none."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and key not in self.columns:
            raise InferenceError(
                f"{key!r} has more than two values: its rows were added up and not counted by them",
                WITHOUT_ROWS,
                'use weights="equal", or fit the model on a frame in memory',
            )
        return super().__getitem__(key)


def drop_row_arrays(design: Design, summary: RowSummary, known: Mapping[str, Any]) -> PartitionedDesign:
    """The design with its arrays over rows left out.

    design : of rows that stand for all; known : fields that differ from it. `weights` and `offset` are absent, or None where there are none
    """
    absent = {name for name in ROW_ARRAYS if not (name in ("weights", "offset") and known.get(name, 0) is None)}
    terms = []
    for term, rows in zip(design.terms, summary.Zs, strict=True):
        moved = copy_without(_Term, term, absent, {"group": copy_without(AddedUpFactor, term.group, absent, {})})
        object.__setattr__(moved, "_moment_rows", rows)
        terms.append(moved)
    made: PartitionedDesign = copy_without(PartitionedDesign, design, absent, {**known, "terms": tuple(terms)})
    object.__setattr__(made, "summary", summary)
    return made


def copy_without(kind: type[Any], value: Any, absent: set[str], changed: Mapping[str, Any]) -> Any:
    """A value of a subclass that holds the fields of another, but for those that are absent."""
    made = object.__new__(kind)
    for own_field in fields(value):
        if own_field.name not in absent:
            object.__setattr__(
                made, own_field.name, changed[own_field.name] if own_field.name in changed else getattr(value, own_field.name)
            )
    return made


@dataclass(frozen=True, slots=True, eq=False)
class VisitPatterns:
    """Products of rows summed over the subjects with the same visits, as structured errors need them.

    residual : the residual design, its arrays over rows absent; start : of its parameters, where a search begins
    notes : about the visits, where the notes of the design do not have them
    """

    batches: tuple[PooledBatch, ...]
    residual: ResidualDesign
    start: Array
    notes: tuple[Check, ...] = ()

    @classmethod
    def of(cls, design: Design, standardization: Standardization) -> VisitPatterns:
        """Those of a design in memory. Errors: SpecificationError where V depends on more of a subject than its visits."""
        residual = design.residual
        if residual is None or residual.visit is None or not is_poolable(design):
            raise SpecificationError(
                "this model's likelihood needs every row: its errors depend on more than the visits of a subject",
                ", ".join(name for name, there in _beyond_visits(design) if there),
                "save the fit with its rows; structured errors alone, over visits, are kept as sums",
            )
        Xy = standardization.Xy(design, slice(0, design.nobs))
        start = residual_start(design, residual_structure(design), Xy[:, -1], False)
        return cls(pool_all(design, Xy), without_codes(residual), start)

    def some_subjects(self, most: int) -> ResidualDesign:
        """A residual design of up to so many subjects of every pattern, with codes."""
        subject, visit, group, begin = [], [], [], 0
        for batch in self.batches:
            assert batch.block.place is not None
            which = np.repeat(np.arange(len(batch.count)), np.minimum(batch.count, most).astype(np.int64))
            k = batch.block.shape[1]
            subject.append(begin + np.repeat(np.arange(len(which)), k))
            visit.append(batch.block.place[which].ravel())
            group.append(batch.block.group[which].ravel())
            begin += len(which)
        levels = np.empty(begin, dtype=object)
        own = GroupingFactor(self.residual.subject.name, levels, np.concatenate(subject), self.residual.subject.columns)
        known = self.residual.group
        sets = None if known is None else GroupingFactor(known.name, known.levels, np.concatenate(group), known.columns)
        return replace(self.residual, subject=own, visit=np.concatenate(visit), coords=None, group=sets)


def _beyond_visits(design: Design) -> list[tuple[str, bool]]:
    spatial = design.residual is not None and design.residual.visit is None
    random, weights = bool(design.terms), design.weights is not None
    return [("random effects", random), ("weights", weights), ("variance", bool(design.variance)), ("places of rows", spatial)]


def without_codes(residual: ResidualDesign) -> ResidualDesign:
    """A residual design over visits whose arrays over rows are absent."""
    subject: GroupingFactor = copy_without(AddedUpFactor, residual.subject, {"codes"}, {})
    group = None if residual.group is None else copy_without(AddedUpFactor, residual.group, {"codes"}, {})
    coords = None if residual.coords is None else cast(Any, AbsentRows("visit"))
    return replace(residual, subject=subject, group=group, visit=cast(Any, AbsentRows("visit")), coords=coords)


@dataclass(frozen=True, slots=True, eq=False)
class SummedRows:
    """All that the passes over the rows leave of them: what a problem is made of, and what a file keeps.

    scale : what the weights were divided by
    states : name of a stateful atom -> what the rows have taught it
    notes : those of the design in memory whose rows they were; None where rows were read in parts
    patterns : of visits, under structured errors
    made : what the survey teaches and the template of the design, where they are known already
    """

    survey: FirstPass
    moments: ColumnMoments
    scale: float
    sums: SumsByLevel
    coinciding: CoincidingFactors
    spanning: SpanningRows
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[Check, ...] | None = None
    patterns: VisitPatterns | None = None
    made: tuple[EncodedColumns, Design, Standardization] | None = None
