"""The design of a model: y, X, random terms, residual design, and the encoding of new data.

Rows are those kept (no missing value, weight above 0), in the order of the data. Every array is read-only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, freeze, freeze_codes
from bayeslmm.data.columns import Columns, FactorColumn, Numbers
from bayeslmm.data.frame import names_of_columns, read_table, require_columns
from bayeslmm.data.grouping import GroupCoder, GroupingFactor
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.data.variables import EncodedVariable, FactorVariable
from bayeslmm.errors import Check, DataError, IdentifiabilityError, PredictionError

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.covariance.base import Covariance, StructureOrder
    from bayeslmm.data.origins import NearColumns
    from bayeslmm.formula.syntax import BarTerm, ResidualTerm, VarianceFactor
    from bayeslmm.specification.model_spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class RandomTerm:
    """One random-effects term: its grouping factor, its columns, and the shape of their covariance.

    Z : (n, q) float64, columns of the left side of the bar, one row per observation
    columns : q names, written as coefficients are
    relationship : (K, K) known matrix among the levels, in the order of `group.levels`; None is the identity
    moves : (q, q) what takes the columns about the origins of their covariates, as in `NearColumns`; None where that is Z itself
    """

    group: GroupingFactor
    Z: Array
    columns: tuple[str, ...]
    spec: BarTerm
    covariance: Covariance
    relationship: Array | None = None
    moves: Array | None = None

    @property
    def near_Z(self) -> Array:
        """Z about the origins of its covariates."""
        return self.Z if self.moves is None else self.Z @ self.moves

    @property
    def moment_rows(self) -> Array:
        """Rows whose mean products are those of all rows of Z: all of them."""
        return self.Z

    @property
    def by_level(self) -> sp.csr_array:
        """(n, K q) sparse: level after level, the columns of a level side by side."""
        n, q = self.Z.shape
        columns = (self.group.codes[:, None] * q + np.arange(q)).ravel()
        return sp.csr_array((self.Z.ravel(), columns, np.arange(0, n * q + 1, q)), shape=(n, self.group.size * q))

    def effects(self, values: Array) -> Array:
        """What coefficients (K, q) of the levels add to every row, Z b, (n,)."""
        return np.asarray(np.einsum("nq,nq->n", self.Z, values[self.group.codes]))


@dataclass(frozen=True, slots=True, eq=False)
class MomentRows:
    """Rows whose means and mean products are those of all rows, weights left aside: all of them, or a few that stand for all.

    columns : (m, all coefficients), aliased ones too; X : (m, p) those kept; y : (m,); offset : (m,), or None without one
    """

    columns: Array
    X: Array
    y: Array
    offset: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class CountedCells:
    """Combinations of values of columns with the number of rows of each; `counts` is None where each row of the frame is one."""

    frame: pd.DataFrame
    counts: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class ResidualDesign:
    """Where each row stands in the residual covariance: its subject, its visit or its place, its group of parameters.

    visit : (n,) index into `visit_levels`, or None for a spatial structure
    visit_levels : labels of the visits in order (1, 2, ... where the visit is the order of the rows)
    coords : (n, d) coordinates of a spatial structure; (n, 1) values of a numeric visit; else None
    group : the factor by whose levels the parameters differ, constant within subject; None for one set
    name, order : the structure and its order, as in toep(3)
    nugget : an independent part beside a spatial structure
    missing_visits : positions in `visit_levels` of visits that no kept row has (kept where dropping them would change spacing)
    positions : places of the visits of a structure that counts steps, where they are not 0, 1, 2, ...:
        whole-number times in units of their greatest common divisor, or visits beside some that no row has; of a Kronecker structure
        whose grid is too large the cells that have rows
    axes : levels of each visit column; a Kronecker structure such as us@ar1 has a visit for every combination of them
    places : of a Kronecker structure, `positions` of each visit column, or the coordinates of one that is a function of distances
    """

    spec: ResidualTerm
    subject: GroupingFactor
    visit: Codes | None
    visit_levels: tuple[Any, ...]
    coords: Array | None
    group: GroupingFactor | None
    name: str
    order: StructureOrder | None = None
    nugget: bool = False
    missing_visits: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    axes: tuple[tuple[Any, ...], ...] = ()
    places: tuple[tuple[float, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of levels of each visit column."""
        return tuple(len(levels) for levels in self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class VarianceDesign:
    """One factor of the variance function.

    covariate : (n,) values, or None for `fitted` and for `ident`
    strata : (n,) codes into `labels`: the parameters differ by stratum; None for one set. `ident` always has strata
    labels : labels of the strata; the first is the reference
    """

    spec: VarianceFactor
    kind: str
    covariate: Array | None
    strata: Codes | None
    labels: tuple[str, ...]

    @property
    def is_of_fitted(self) -> bool:
        """Whether the covariate is the fitted value."""
        return self.covariate is None and self.kind != "ident"


@dataclass(frozen=True, slots=True, eq=False)
class OwnFrame:
    """A copy of the data over the rows kept; `columns` are those that the model reads, picked when they are asked for."""

    copy: pd.DataFrame
    columns: tuple[str, ...]

    def select_columns(self) -> pd.DataFrame:
        """The columns of the model, a frame of its own."""
        return self.copy.copy() if self.copy.shape[1] == len(self.columns) else self.copy[list(self.columns)]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """y, X, the random terms and the residual design of a model over the rows kept.

    y : (n,) response, offset not subtracted
    X : (n, p) full column rank: columns `kept` of all the coefficients
    coef_names : all coefficients in the order of the formula; `aliased` are those dropped
    coef_terms : the term of the formula that each coefficient belongs to ("Intercept", "ARMCD", "ARMCD:AVISIT", ...)
    weights : (n,) > 0, scaled by a power of two to near 1 where their size is extreme; None for equal weights of 1
    weight_scale : weights as given = weights * weight_scale
    offset : (n,) sum of all offsets, or None
    rows : (n,) positions kept, in the data as read
    dropped : column (or "weights") -> rows that it cost
    own_frame : copy of the data over the rows kept; `frame` is its columns that the model reads
    notes : what is worth knowing; verdict "failed" only under `check="warn"`
    labelled : whether the data had an index of their own, as pandas frames do
    unidentified : why REML or ML would not be identified (empty: it is); priors make it fine, see `require_identified`
    near : X about the origins of covariates that start far from 0; None where that is X itself
    near_all : the same of all coefficients, where some are aliased
    """

    spec: ModelSpec
    y: Array
    X: Array
    coef_names: tuple[str, ...]
    kept: tuple[int, ...]
    aliased: tuple[str, ...]
    coef_terms: tuple[str, ...]
    weights: Array | None
    offset: Array | None
    terms: tuple[RandomTerm, ...]
    residual: ResidualDesign | None
    variance: tuple[VarianceDesign, ...]
    rows: Codes
    n_read: int
    n_dropped: int
    dropped: Mapping[str, int]
    index: pd.Index[Any]
    own_frame: OwnFrame
    notes: tuple[Check, ...]
    encoding: Encoding
    weight_scale: float = 1.0
    labelled: bool = True
    unidentified: tuple[IdentifiabilityError, ...] = field(default=())
    near: NearColumns | None = None
    near_all: NearColumns | None = None

    @property
    def near_X(self) -> Array:
        """(n, p) X about the origins of its covariates: what is orthogonalised, and what ranks are judged on."""
        return self.X if self.near is None else self.near.columns

    @property
    def nobs(self) -> int:
        """n, the number of rows kept."""
        return len(self.y)

    @property
    def in_memory(self) -> bool:
        """Whether the rows are at hand; a design of rows that were added up in parts has none."""
        return True

    @property
    def response_size(self) -> tuple[float, float, float]:
        """Largest absolute value and standard deviation of the response, largest absolute value of what the offset leaves of it."""
        largest, moved = float(np.abs(self.y).max()), self.y - self.y.sum() / len(self.y)
        spread = math.sqrt(float(moved @ moved) / len(self.y))
        return largest, spread, largest if self.offset is None else float(np.abs(self.y - self.offset).max())

    @property
    def frame(self) -> pd.DataFrame:
        """The columns that the model reads, over the rows kept: a copy."""
        return self.own_frame.select_columns()

    @property
    def moments(self) -> MomentRows:
        """Rows that have the moments of all rows: these."""
        columns = self.X if not self.aliased else self.encoding.encode_fixed(self.frame)[0]
        return MomentRows(columns, self.X, self.y, self.offset)

    @property
    def spanning_frame(self) -> pd.DataFrame:
        """Rows of the data on which the columns kept are as independent as on all rows: all of them."""
        return self.frame

    @property
    def cells(self) -> CountedCells:
        """How many rows have which values of the columns that the fixed effects read: row by row."""
        return CountedCells(self.frame, None)

    @property
    def mean_inverse_weight(self) -> float:
        """The mean of 1 / w."""
        return 1.0 if self.weights is None else float(np.mean(1.0 / self.weights))

    def column_mean(self, name: str) -> float:
        """The mean of a column of numbers that the model reads."""
        return float(self.frame[name].to_numpy(float).mean())

    def variable_means(self, key: str, values: Array) -> Array:
        """Means of the columns of a variable of the fixed effects over all rows. values : the columns on `spanning_frame`"""
        return np.asarray(values.mean(axis=0))

    @property
    def groups(self) -> dict[str, int]:
        """Grouping factor -> number of levels."""
        return {term.group.name: term.group.size for term in self.terms}

    def linear_predictor(self, alpha: Array, modes: Sequence[Array] = ()) -> Array:
        """X alpha + offset, and Z b of every term where modes are given, (n,)."""
        values = self.X @ alpha
        if self.offset is not None:
            values = values + self.offset
        if modes:
            for term, own in zip(self.terms, modes, strict=True):
                values = values + term.effects(own)
        return values

    def take(self, rows: Codes, keys: Callable[[GroupingFactor], Codes] | None = None) -> Design:
        """The design of the rows at some positions, each as often as it is named; levels that no row has are gone.

        keys : (rows,) what tells the levels of a factor apart, by default their codes. Notes are those of all rows and are left out.
        """
        found: dict[str, GroupingFactor] = {}

        def regroup(factor: GroupingFactor) -> GroupingFactor:
            if factor.name not in found:
                own = factor.codes[rows]
                first, codes = np.unique(own if keys is None else keys(factor), return_index=True, return_inverse=True)[1:]
                found[factor.name] = replace(factor, levels=factor.levels[own[first]], codes=freeze_codes(codes.ravel()))
            return found[factor.name]

        def part(values: Array | None) -> Array | None:
            return None if values is None else freeze(values[rows])

        def place(codes: Codes | None) -> Codes | None:
            return None if codes is None else freeze_codes(codes[rows])

        terms = []
        for term in self.terms:
            known = np.unique(term.group.codes[rows])
            relationship = None if term.relationship is None else freeze(term.relationship[np.ix_(known, known)])
            terms.append(replace(term, group=regroup(term.group), Z=freeze(term.Z[rows]), relationship=relationship))
        residual = self.residual
        if residual is not None:
            # groups of parameters stay, even one that is left without rows
            group = None if residual.group is None else replace(residual.group, codes=freeze_codes(residual.group.codes[rows]))
            visit, coords = place(residual.visit), part(residual.coords)
            residual = replace(residual, subject=regroup(residual.subject), visit=visit, coords=coords, group=group)
        return replace(
            self,
            y=freeze(self.y[rows]),
            X=freeze(self.X[rows]),
            near=None if self.near is None else self.near.take(rows),
            near_all=None if self.near_all is None else self.near_all.take(rows),
            weights=part(self.weights),
            offset=part(self.offset),
            terms=tuple(terms),
            residual=residual,
            variance=tuple(replace(f, covariate=part(f.covariate), strata=place(f.strata)) for f in self.variance),
            rows=freeze_codes(self.rows[rows]),
            index=self.index[rows],
            own_frame=replace(self.own_frame, copy=self.own_frame.copy.iloc[rows]),
            notes=(),
            unidentified=(),
        )

    def require_identified(self) -> None:
        """Raise the first reason why the likelihood alone does not identify the parameters; what `fit("REML")` and `fit("ML")` call."""
        if self.unidentified:
            raise self.unidentified[0]


@dataclass(frozen=True, slots=True)
class Covariate:
    """A column of numbers that the fixed effects read, over the rows kept. binary : whether it has no value but `low` and `high`"""

    mean: float
    low: float
    high: float
    integer: bool
    binary: bool

    @classmethod
    def of(cls, values: Array, *, integer: bool) -> Covariate:
        """That of a column."""
        low, high = float(values.min()), float(values.max())
        # the first rows say it of nearly every column
        binary = all(bool(((some == low) | (some == high)).all()) for some in (values[:64], values))
        return cls(float(values.mean()), low, high, integer, binary)


@dataclass(frozen=True, slots=True, eq=False)
class RandomCoder:
    """The columns and the grouping factor of one random term."""

    block: DesignBlock
    group: GroupCoder


@dataclass(frozen=True, eq=False)
class Encoding:
    """Columns of the model for any rows.

    Frames may hold other columns, in any order; only those needed are looked at. Rows with a missing value come back as NaN (or code -1).
    levels : factor column of the fixed effects -> its levels, in order
    covariates : column of numbers of the fixed effects -> mean and range
    """

    fixed_block: DesignBlock
    random_coders: tuple[RandomCoder, ...]
    offsets: tuple[EncodedVariable, ...]
    offset_column: str | None
    response_atom: EncodedVariable
    levels: Mapping[str, tuple[Any, ...]]
    covariates: Mapping[str, Covariate]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all fixed coefficients, aliased ones too."""
        return self.fixed_block.names

    @property
    def factors(self) -> Mapping[str, FactorVariable]:
        """The coded factors of the fixed effects, by the name of their atom."""
        return {atom.name: atom for atom in self.fixed_block.atoms.values() if isinstance(atom, FactorVariable)}

    def encode_fixed(self, frame: Any) -> tuple[Array, tuple[str, ...]]:
        """(n, all coefficients) and their names.

        Errors: `PredictionError` for an absent column, a level that the fit has not seen, a column of another kind.
        """
        return self.fixed_block.encode(_source(frame, self.fixed_columns)), self.fixed_block.names

    def random(self, frame: Any) -> tuple[tuple[Array, Codes], ...]:
        """Per term its Z (n, q) and the codes (n,) of its levels; -1 where the level is new or missing."""
        source = _source(frame, self.columns_of_terms)
        return tuple((coder.block.encode(source), coder.group.codes(source)) for coder in self.random_coders)

    def random_columns(self, frame: Any) -> tuple[Array, ...]:
        """Per term its Z (n, q), whatever the levels: the grouping columns are not read."""
        columns = tuple(dict.fromkeys(name for coder in self.random_coders for name in coder.block.columns))
        source = _source(frame, columns)
        return tuple(coder.block.encode(source) for coder in self.random_coders)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns of the data that it reads, but for the response."""
        offsets = [name for atom in self.offsets for name in atom.columns]
        return tuple(dict.fromkeys([*self.fixed_columns, *offsets, *self.columns_of_terms, *filter(None, [self.offset_column])]))

    @cached_property
    def fixed_columns(self) -> tuple[str, ...]:
        """Those of the fixed effects."""
        return self.fixed_block.columns

    @cached_property
    def columns_of_terms(self) -> tuple[str, ...]:
        """Those of the random terms and of their groups."""
        names = (name for coder in self.random_coders for name in (*coder.block.columns, *coder.group.factor.columns))
        return tuple(dict.fromkeys(names))

    def labels(self, frame: Any, term: int) -> NDArray[np.object_]:
        """(n,) labels of the levels of a term, new ones too; None where missing."""
        coder = self.random_coders[term].group
        return coder.labels(_source(frame, coder.factor.columns))

    def group(self, term: int) -> GroupingFactor:
        """The grouping factor of a term."""
        return self.random_coders[term].group.factor

    def offset(self, frame: Any) -> Array | None:
        """(n,) the sum of the offsets that are columns or expressions; None where the model has none of those."""
        columns = [name for atom in self.offsets for name in atom.columns]
        columns += [self.offset_column] if self.offset_column else []
        if not columns and not self.offsets:
            return None
        source = _source(frame, tuple(dict.fromkeys(columns)))
        total = np.zeros(len(source))
        for atom in self.offsets:
            total = total + atom.pieces(source, reduced=False)[0]
        return total + source.numbers(self.offset_column) if self.offset_column else total

    def response(self, frame: Any) -> Array:
        """(n,) the response of new data that have one; NaN where it is missing."""
        source = _source(frame, self.response_atom.columns)
        return np.array(self.response_atom.pieces(source, reduced=False)[0], dtype=np.float64)


def new_columns(frame: Any, wanted: Sequence[str]) -> Columns:
    """Columns of new data, each read at most once: those wanted, as far as the data have them.

    What stands for a frame wherever an `Encoding` takes one.
    """
    names = names_of_columns(frame)
    try:
        return _NewDataColumns(read_table(frame, () if names is None else [name for name in wanted if name in names]))
    except DataError as error:
        raise PredictionError(error.what, error.where, error.remedy) from error


def _source(frame: Any, columns: tuple[str, ...]) -> Columns:
    try:
        if isinstance(frame, Columns):
            require_columns(frame.table, columns)
            return frame
        return _NewDataColumns(read_table(frame, columns))
    except DataError as error:
        raise PredictionError(error.what, error.where, error.remedy) from error


class _NewDataColumns(Columns):
    """Columns of new data: what is wrong with them is wrong with the prediction."""

    __slots__ = ()

    def read_numbers(self, name: str) -> Numbers:
        try:
            return Columns.read_numbers(self, name)
        except DataError as error:
            raise PredictionError(error.what, error.where, error.remedy) from error

    def read_factor(self, name: str) -> FactorColumn:
        try:
            return Columns.read_factor(self, name)
        except DataError as error:
            raise PredictionError(error.what, error.where, error.remedy) from error
