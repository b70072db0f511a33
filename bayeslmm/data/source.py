"""Columns as the model reads them: each read once, over all rows first (to see what is missing), then over the rows kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.columns import FactorColumn, Kind, Mask, Numbers, factor, kind_of, mixed_objects, not_numbers, numbers, spoilt_numbers
from bayeslmm.data.frame import Table

FACTORS: frozenset[Kind] = frozenset({"factor", "text", "boolean"})


@dataclass(slots=True, eq=False)
class Columns:
    """The columns of a table, read at most once each.

    rows : positions kept; None is all of them. `missing` masks are over all rows of the table, values over those kept
    """

    table: Table
    rows: Codes | None = None
    _kinds: dict[str, Kind] = field(default_factory=dict)
    _numbers: dict[str, Numbers] = field(default_factory=dict)
    _factors: dict[str, FactorColumn] = field(default_factory=dict)
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    def kind(self, name: str) -> Kind:
        """The nature of a column."""
        if name not in self._kinds:
            self._kinds[name] = kind_of(self.table.series(name))
        return self._kinds[name]

    def is_factor(self, name: str) -> bool:
        """Whether the bare column is a factor in a formula."""
        return self.kind(name) in FACTORS

    def read_numbers(self, name: str) -> Numbers:
        """The whole column as numbers."""
        if name not in self._numbers:
            self._numbers[name] = numbers(self.table.series(name), name)
        return self._numbers[name]

    def read_factor(self, name: str) -> FactorColumn:
        """The whole column as labels."""
        if name not in self._factors:
            self._factors[name] = factor(self.table.series(name), name, self._kinds.get(name))
        return self._factors[name]

    def missing(self, name: str, *, as_factor: bool) -> Mask | None:
        """Where the column has no value; None when it has one everywhere."""
        return self.read_factor(name).missing if as_factor else self.read_numbers(name).missing

    def numbers(self, name: str) -> Array:
        """The column as numbers over the rows kept; a view where that is all of them."""
        return self._over_kept("numbers", name, self.read_numbers(name).values)

    def codes(self, name: str) -> NDArray[Any]:
        """The codes of a factor over the rows kept, into `read_factor(name).levels`."""
        return self._over_kept("codes", name, self.read_factor(name).codes)

    def absent(self, name: str) -> Mask | None:
        """(levels,) whether no row that is kept has the level of a factor; None when every level occurs."""
        key = ("absent", name)
        if key not in self._kept:
            column, codes = self.read_factor(name), self.codes(name)
            labelled = codes if column.missing is None else codes[codes >= 0]
            counts = np.bincount(labelled, minlength=len(column.levels))
            self._kept[key] = None if counts.all() else counts == 0
        return cast(Mask | None, self._kept[key])

    def _over_kept(self, what: str, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if self.rows is None:
            return values
        key = (what, name)
        if key not in self._kept:
            self._kept[key] = values[self.rows]
        return cast(NDArray[Any], self._kept[key])

    def values(self, name: str) -> NDArray[Any]:
        """Numbers, or the labels of a factor."""
        if not self.is_factor(name):
            return self.numbers(name)
        return self.read_factor(name).labels(self.codes(name))

    def refuse_unfit(self, name: str) -> None:
        """Refuse a column that cannot be a term by itself: times, complex numbers, objects, text that is mostly numbers."""
        kind = self.kind(name)
        series = self.table.series(name) if kind in ("time", "complex", "object", "text") else None
        if series is None:
            return
        if kind == "object":
            raise mixed_objects(series, name)
        if kind != "text":
            raise not_numbers(series, name, kind)
        spoilt = spoilt_numbers(series, name)
        if spoilt is not None:
            raise spoilt
