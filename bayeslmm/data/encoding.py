"""What new data go through: the encoding learnt from the rows of the fit, which learns nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.atoms import FactorAtom, TrainedAtom
from bayeslmm.data.blocks import Block
from bayeslmm.data.columns import FactorColumn, Numbers
from bayeslmm.data.design import GroupingFactor
from bayeslmm.data.frame import read_table
from bayeslmm.data.grouping import GroupCoder
from bayeslmm.data.source import Columns
from bayeslmm.errors import DataError, PredictionError


@dataclass(frozen=True, slots=True)
class Covariate:
    """A column of numbers that the fixed effects read, over the rows kept."""

    mean: float
    low: float
    high: float
    integer: bool


@dataclass(frozen=True, slots=True, eq=False)
class RandomCoder:
    """The columns and the grouping factor of one random term."""

    block: Block
    group: GroupCoder


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Columns of the model for any rows.

    Frames may hold other columns, in any order; only those needed are looked at. Rows with a missing value come back as NaN (or code -1).
    levels : factor column of the fixed effects -> its levels, in order
    covariates : column of numbers of the fixed effects -> mean and range
    """

    fixed_block: Block
    random_coders: tuple[RandomCoder, ...]
    offsets: tuple[TrainedAtom, ...]
    offset_column: str | None
    response_atom: TrainedAtom
    levels: Mapping[str, tuple[Any, ...]]
    covariates: Mapping[str, Covariate]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all fixed coefficients, aliased ones too."""
        return self.fixed_block.names

    @property
    def factors(self) -> Mapping[str, FactorAtom]:
        """The coded factors of the fixed effects, by the name of their atom."""
        return {atom.name: atom for atom in self.fixed_block.atoms.values() if isinstance(atom, FactorAtom)}

    def fixed(self, frame: Any) -> tuple[Array, tuple[str, ...]]:
        """(n, all coefficients) and their names.

        Errors: `PredictionError` for an absent column, a level that the fit has not seen, a column of another kind.
        """
        return self.fixed_block.encode(_source(frame, self.fixed_block.columns)), self.fixed_block.names

    def random(self, frame: Any) -> tuple[tuple[Array, Codes], ...]:
        """Per term its Z (n, q) and the codes (n,) of its levels; -1 where the level is new or missing."""
        columns = tuple(name for coder in self.random_coders for name in (*coder.block.columns, *coder.group.factor.columns))
        source = _source(frame, tuple(dict.fromkeys(columns)))
        return tuple((coder.block.encode(source), coder.group.codes(source)) for coder in self.random_coders)

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


def _source(frame: Any, columns: tuple[str, ...]) -> Columns:
    try:
        return _Checked(read_table(frame, columns))
    except DataError as error:
        raise PredictionError(error.what, error.where, error.remedy) from error


class _Checked(Columns):
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
