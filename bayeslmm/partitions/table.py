"""The rows of a table that an engine holds: those that are kept, their levels and ranges, asked in SQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.data.columns import EXACT_INTEGERS, Columns, inexact_integers_error
from bayeslmm.data.frame import ColumnTable, absent_column_error
from bayeslmm.data.rows import ColumnPlan, missing_values_error, no_data_error, no_rows_error, read_weights, scale_weights, weights_error
from bayeslmm.errors import DataError, NonFiniteError, SpecificationError
from bayeslmm.partitions.first_pass import COUNT, FIRST_ROWS, MAX_CELLS, ColumnRange, FirstPass
from bayeslmm.partitions.kept_rows import columns_of_model
from bayeslmm.partitions.partitions import ROWS_PER_READ, Partitions
from bayeslmm.partitions.sql import FLOATS, INTEGERS, SqlColumns, number_text, quoted_name
from bayeslmm.specification.model_spec import ModelSpec

_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class EngineTable:
    """A table that DuckDB holds, or finds in files.

    relation : a relation of DuckDB
    view : what queries call it: a name of its own, for a query that was broken off leaves its view in the connection, and another of that
        name would read what is gone
    """

    relation: Any
    view: str = field(default_factory=lambda: f"bayeslmm_table_{next(_NUMBERS)}")

    @classmethod
    def of(cls, table: object) -> EngineTable:
        """From a relation of DuckDB, or an expression of Ibis on DuckDB. Errors: SpecificationError for anything else"""
        module = type(table).__module__.partition(".")[0]
        known: Any = table
        if module in ("duckdb", "_duckdb") and hasattr(known, "query"):
            if not hasattr(known, "columns"):  # a connection queries too
                remedy = 'give one of its tables: connection.table("visits"), or connection.sql("SELECT ...")'
                raise SpecificationError("the table is a connection of DuckDB", "table", remedy)
            return cls(known)
        if module == "ibis" and hasattr(known, "get_backend"):
            backend = known.get_backend()
            if backend.name != "duckdb":
                what = f"the table is held by {backend.name}"
                raise SpecificationError(what, "table", "give an Ibis table on DuckDB, which reads other databases by ATTACH")
            # tables in memory that the expression reads are made known to the engine
            backend._run_pre_execute_hooks(known)
            return cls(backend.con.sql(str(backend.compile(known))))
        if isinstance(table, str):
            remedy = "make a relation of it: duckdb.sql(query), or duckdb.read_parquet(path) of files"
            raise SpecificationError("the table is a text", "table", remedy)
        remedy = "give a relation of DuckDB or an Ibis table; a frame in memory goes to LMM, parts of one to from_partitions"
        raise SpecificationError(f"the table is a {type(table).__name__}", "table", remedy)

    def in_parts(self, spec: ModelSpec) -> Partitions:
        """The columns that a model reads, handed out in parts, sorted by the subjects of its errors.

        Errors: SpecificationError for visits that are the order of rows.
        """
        if spec.residual is not None and not spec.residual.visit:
            what = "the visits are the order of the rows, and the rows of a table have none"
            raise SpecificationError(what, spec.residual.text, "name the column of the visits: ar1(visit | id)")
        used = columns_of_model(spec)
        self.columns(used)
        order = "" if spec.residual is None else ", ".join(map(quoted_name, spec.residual.subject))
        query = f"SELECT {', '.join(map(quoted_name, used))} FROM {self.view}" + (f" ORDER BY {order}" if order else "")
        return Partitions(partial(_frames_of, self, query))

    def fetch(self, query: str) -> pd.DataFrame:
        """The result of a query. Errors: DataError for what the engine refuses"""
        refused: type[Exception] = import_module("duckdb").Error
        try:
            found: pd.DataFrame = self.relation.query(self.view, query).df()
        except refused as error:
            raise _engine_error(error) from error
        except RuntimeError as error:
            # what is raised where Ctrl-C hits the engine in a conversion; another time the query is answered then
            try:
                self.relation.query(self.view, query).df()
            except Exception:
                raise _engine_error(error) from error
            raise KeyboardInterrupt from None
        return found

    def columns(self, used: Sequence[str]) -> SqlColumns:
        """The columns that are read, each called by its place. Errors: DataError for one that is absent or of another type"""
        types = dict(zip(map(str, self.relation.columns), map(str, self.relation.types), strict=True))
        for name in used:
            if name not in types:
                raise absent_column_error(name, tuple(types))
        columns = SqlColumns({name: f"r{i}" for i, name in enumerate(used)}, types)
        for name in used:
            columns.check(name)
        return columns


def _engine_error(error: Exception) -> DataError:
    return DataError(f"the engine refuses: {error}", "the table", "look at the query that makes the table")


def _frames_of(table: EngineTable, query: str) -> Iterator[pd.DataFrame]:
    """The result of a query in parts. Errors: DataError for what the engine refuses"""
    refused: type[Exception] = import_module("duckdb").Error
    try:
        with table.relation.query(table.view, query).to_arrow_reader(ROWS_PER_READ) as reader:
            for batch in reader:
                yield batch.to_pandas()
    except refused as error:
        raise _engine_error(error) from error


@dataclass(frozen=True, slots=True, eq=False)
class CompleteRows:
    """The rows of a table that a model takes. rows : the query of their columns"""

    table: EngineTable
    columns: SqlColumns
    rows: str

    def fetch(self, select: str, stages: Sequence[tuple[str, str]] = ()) -> pd.DataFrame:
        """The result of a query on `kept`. stages : named queries, each on those before it"""
        named = ", ".join(f"{name} AS ({query})" for name, query in (("kept", self.rows), *stages))
        return self.table.fetch(f"WITH {named} {select}")

    def values(self, selected: Sequence[str], stages: Sequence[tuple[str, str]] = (), source: str = "kept") -> Array:
        """Numbers of one row."""
        return np.asarray(self.fetch(select_text(selected, source), stages).to_numpy(np.float64)[0])

    def rename_first(self, frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        """The first columns of a result by their names in the table."""
        return frame.iloc[:, : len(names)].set_axis(list(names), axis=1)

    def calls(self, names: Sequence[str]) -> list[str]:
        """How SQL calls some columns."""
        return [self.columns.names[name] for name in names]


def select_text(selected: Sequence[str], source: str) -> str:
    return f"SELECT {', '.join(f'{value} AS s{i}' for i, value in enumerate(selected))} FROM {source}"


def frame_columns(frame: pd.DataFrame, rows_in_all: int = 0) -> Columns:
    return Columns(ColumnTable(frame, tuple(map(str, frame.columns))), rows_in_all=rows_in_all)


# -- the rows that are kept, their levels and ranges ---------------------------------------------------------------------------------------


def survey_table(spec: ModelSpec, asked: ColumnPlan, table: EngineTable, columns: SqlColumns) -> tuple[CompleteRows, FirstPass, float]:
    """The rows kept, what the first pass over parts would have seen, and what the weights are divided by."""
    every = ", ".join(f"{quoted_name(name)} AS {own}" for name, own in columns.names.items())
    whole = CompleteRows(table, columns, f"SELECT {every} FROM {table.view}")
    numbers = [name for name in dict.fromkeys((*asked.natural, *asked.numbers)) if name in asked.numbers or columns.is_number(name)]
    _check_are_numbers(whole, numbers)
    survey = FirstPass.of(spec, asked)
    present = " AND ".join(f"NOT {columns.is_missing(name)}" for name in columns.names)
    positive = "TRUE" if spec.weights is None else f"{columns.names[spec.weights]} > 0"
    dropped = _count(whole, survey, numbers, spec)
    if survey.read == 0:
        raise no_data_error()
    rows = CompleteRows(table, columns, f"SELECT * FROM ({whole.rows}) AS whole WHERE {present} AND {positive}")
    survey.dropped = dropped
    survey.kept = int(rows.values(["count(*)"])[0]) if dropped else survey.read
    if survey.kept == 0:
        raise no_rows_error(dropped, survey.read)
    scale = _weigh(rows, survey, spec)
    _find_ranges(rows, survey, numbers)
    _show_levels(rows, survey, asked)
    survey.cells = _cells(rows, survey, [name for name in survey.fixed if name not in numbers or name in asked.factors])
    return rows, survey, scale


def _check_are_numbers(whole: CompleteRows, numbers: Sequence[str]) -> None:
    labels = [name for name in numbers if whole.columns.is_text(name)]
    if labels:
        calls = whole.calls(labels)
        source = frame_columns(whole.rename_first(whole.fetch(f"SELECT {', '.join(calls)} FROM kept LIMIT {FIRST_ROWS}"), labels))
        for name in labels:
            source.read_numbers(name)
        raise DataError(f"column {labels[0]!r} is text where numbers are needed", "", "cast it in the query that makes the table")


def _count(whole: CompleteRows, survey: FirstPass, numbers: Sequence[str], spec: ModelSpec) -> dict[str, int]:
    """Rows that each column costs, weights of 0 with the missing values. Errors: those of columns and weights"""
    columns = whole.columns
    names = list(columns.names)
    infinite = [name for name in numbers if columns.types[name] in FLOATS]
    large = [name for name in numbers if columns.types[name] in INTEGERS]
    counts = whole.values(
        [
            "count(*)",
            *(f"count(*) FILTER (WHERE {columns.is_missing(name)})" for name in names),
            *(f"count(*) FILTER (WHERE isinf({columns.names[name]}))" for name in infinite),
            *(f"count(*) FILTER (WHERE abs({columns.number(name)}) > {EXACT_INTEGERS})" for name in large),
        ]
    ).astype(np.int64)
    survey.read = int(counts[0])
    missing = dict(zip(names, counts[1:].tolist(), strict=False))
    for name, count in zip((*infinite, *large), counts[1 + len(names) :].tolist(), strict=True):
        if count and name in infinite:
            what = f"column {name!r} holds infinite values"
            raise NonFiniteError(what, f"{count} rows", "replace them, by NULL where they stand for missing values")
        if count:
            raise inexact_integers_error(name, f"{count} rows")
    dropped = {name: count for name, count in missing.items() if count}
    if spec.weights is not None and survey.read:
        dropped |= _check_weights(whole, spec.weights)
    lost = [name for name in missing if name in dropped and missing[name]]
    if lost and spec.missing == "raise":
        raise missing_values_error(lost[0], f"{missing[lost[0]]} rows")
    return dropped


def _check_weights(whole: CompleteRows, name: str) -> dict[str, int]:
    """How many weights are 0. Errors: those of weights in memory"""
    columns, own = whole.columns, whole.columns.number(name)
    absent = columns.is_missing(name)
    selected = [
        f"count(*) FILTER (WHERE {absent})",
        f"count(*) FILTER (WHERE {own} < 0)",
        f"count(*) FILTER (WHERE {own} = 0)",
        f"min({own}) FILTER (WHERE {own} > 0)",
        f"max({own})",
    ]
    missing, negative, zero, low, high = whole.values(selected)
    for wrong, what in ((missing, "missing"), (negative, "negative")):
        if wrong:
            raise weights_error(name, what, f"{int(wrong)} rows")
    # what the smallest and the largest one are refused for is said in one place
    read_weights(name, None, frame_columns(pd.DataFrame({name: [low, high] if high > 0 else [0.0]})))
    return {name: int(zero)} if zero else {}


def _weigh(rows: CompleteRows, survey: FirstPass, spec: ModelSpec) -> float:
    if spec.weights is None:
        return 1.0
    own = rows.columns.number(spec.weights)
    survey.weights, survey.log_weights, survey.inverse_weights, high = rows.values(
        [f"sum({own})", f"sum(ln({own}))", f"sum(1e0 / {own})", f"max({own})"]
    ).tolist()
    return scale_weights(np.array([high]))[1]


def _find_ranges(rows: CompleteRows, survey: FirstPass, numbers: Sequence[str]) -> None:
    if not numbers:
        return
    own = [rows.columns.number(name) for name in numbers]
    lows, highs = rows.values([f"{word}({number})" for word in ("min", "max") for number in own]).reshape(2, -1)
    # sums are counted from the lowest value: an origin far away costs no digits
    above = [f"sum({number} - {number_text(low)})" for number, low in zip(own, lows, strict=True)]
    between = [
        f"count(*) FILTER (WHERE {n} <> {number_text(a)} AND {n} <> {number_text(b)})" for n, a, b in zip(own, lows, highs, strict=True)
    ]
    totals, others = rows.values([*above, *between]).reshape(2, -1)
    for name, low, high, total, other in zip(numbers, lows.tolist(), highs.tolist(), totals, others, strict=True):
        integer = rows.columns.types[name] in INTEGERS or rows.columns.types[name] == "BOOLEAN"
        values = None if other else frozenset((low, high))
        survey.ranges[name] = ColumnRange(float(total) + survey.kept * low, low, high, integer, values)


def _show_levels(rows: CompleteRows, survey: FirstPass, asked: ColumnPlan) -> None:
    """Some rows, and one for each level and each combination of levels that is to be known."""
    calls = ", ".join(rows.calls(asked.columns))
    survey.shown = [rows.rename_first(rows.fetch(f"SELECT {calls} FROM kept LIMIT {FIRST_ROWS}"), asked.columns)]
    labels = [name for name in asked.natural if not rows.columns.is_number(name)]
    for together in dict.fromkeys([(name,) for name in (*labels, *asked.factors)] + list(survey.groups)):
        by = ", ".join(rows.calls(together))
        found = rows.fetch(
            f"SELECT one.* FROM (SELECT any_value({packed_row(rows, asked.columns)}) AS one FROM kept GROUP BY {by}) AS found"
        )
        survey.shown.append(rows.rename_first(found, asked.columns))


def packed_row(rows: CompleteRows, names: Sequence[str]) -> str:
    """A whole row as one value, so that its columns stay together."""
    return f"struct_pack({', '.join(f'{own} := {own}' for own in rows.calls(names))})"


def _cells(rows: CompleteRows, survey: FirstPass, coded: Sequence[str]) -> pd.DataFrame | None:
    """Counts of the combinations of factors and columns of two values; None where there are too many."""
    binary = [name for name in survey.fixed if name not in coded and survey.ranges[name].values is not None]
    names = [*coded, *binary]
    selected = [*rows.calls(coded), *(rows.columns.number(name) for name in binary), "count(*)"]
    by = f" GROUP BY {', '.join(rows.calls(names))} LIMIT {MAX_CELLS + 1}" if names else ""
    found = rows.fetch(select_text(selected, "kept") + by)
    if len(found) > MAX_CELLS:
        return None
    source = frame_columns(rows.rename_first(found, names))
    values: dict[Any, Any] = {name: source.read_factor(name).labels(source.codes(name)) for name in coded}
    values |= {name: source.numbers(name) for name in binary}
    return pd.DataFrame({**values, COUNT: found.iloc[:, -1].to_numpy(np.int64)})
