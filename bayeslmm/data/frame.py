"""Data frames of any library as one `ColumnTable`, checked as a whole; rows and names as error messages spell them.

pandas frames are taken as they are; polars, pyarrow, relations of DuckDB and whatever else narwhals reads, and mappings of columns, are
turned into one column by column, the used ones only. narwhals is imported when such a frame arrives.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import DataError

# Letters of other alphabets that print like Latin ones: what a formula typed on another keyboard contains.
_LOOK_ALIKE = str.maketrans(
    "авеіјкмнорсѕтухԁԛԝһАВЕІЈКМНОРСЅТУХҮΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ",
    "abeijkmhopcstyxdqwhABEIJKMHOPCSTYXYABEZHIKMNOPTYXovp",
)


def rows_text(rows: NDArray[Any] | Sequence[int], limit: int = 6) -> str:
    """`rows 3, 17 and 40`, or the first few and the number of them; positions count from 0."""
    total = len(rows)
    if total == 1:
        return f"row {int(rows[0])}"
    shown = ", ".join(str(int(row)) for row in rows[:limit])
    return f"rows {shown}" if total <= limit else f"rows {shown}, ... ({total} in all)"


def values_text(values: Iterable[Any], limit: int = 6) -> str:
    """A few values as Python spells them."""
    items = list(values)
    shown = ", ".join(repr(_plain(item)) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown}, ... ({len(items)} in all)"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def skeleton(name: str) -> str:
    """What a name looks like: one normal form, no invisible characters, look-alike letters made Latin."""
    folded = unicodedata.normalize("NFKC", name)
    visible = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return visible.translate(_LOOK_ALIKE)


def strange_characters(name: str) -> str:
    """The characters of a name that are not plain ASCII, by code and by name."""
    found = dict.fromkeys(letter for letter in name if not " " <= letter <= "~")
    return ", ".join(f"U+{ord(letter):04X} {unicodedata.name(letter, 'unnamed')}" for letter in found)


def nearest_names(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Up to three names that the writer may have meant, look-alikes first, then other case, then near spelling."""
    twins = [other for other in names if other != name and skeleton(other) == skeleton(name)]
    cased = [other for other in names if other.casefold() == name.casefold()]
    near = get_close_matches(name, names, 3, 0.6)
    return tuple(dict.fromkeys([*twins, *cased, *near]))[:3]


def absent_name(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Where and remedy of an error about a column that is not there."""
    near = nearest_names(name, names)
    twin = next((other for other in near if skeleton(other) == skeleton(name)), None)
    if twin is not None:
        odd = strange_characters(name + twin)
        return (
            f"column {twin!r} looks the same but is spelled with other characters ({odd})",
            f"rename the column, or copy its name: {twin!r}",
        )
    if re.match(r"var(Ident|Power|Exp|Const\w*|Comb|Fixed)\(", name):
        return (
            "",
            'functions of the variance are the argument variance="ident(g)", "power(x)", "exp(x)"; weights= is a column of precisions',
        )
    if name in ("Intercept", "(Intercept)", "const") and not near:
        return "", f"a formula has an intercept by itself: leave out {name}, and 0 with it; priors name it Intercept"
    if "." in name and set(name.split(".")) <= set(names):
        return "", f"an interaction is written with a colon: {name.replace('.', ':')}"
    listed = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    remedy = "did you mean " + " or ".join(map(repr, near)) + "?" if near else "add the column to the data, or correct the formula"
    return f"columns of the data: {listed or 'none'}", remedy


_PLAIN_NAME = re.compile(r"[^\W\d]\w*(\.\w+)*")


def unquoted_names(text: str, data: Any) -> tuple[str, ...]:
    """Columns whose names a formula reads in backticks only, and which stand in the text without them; the longest first."""
    names = sorted((name for name in names_of_columns(data) or () if not _PLAIN_NAME.fullmatch(name)), key=len, reverse=True)
    return tuple(name for name in names if re.search(rf"(?<![`\w]){re.escape(name)}(?![`\w])", text))


_FEW_COLUMNS = 6  # up to which it takes less to take out all columns of a frame than some by name
_GIVE_A_FRAME = "give a pandas, polars or pyarrow frame, or a mapping of column names to columns of equal length"


@dataclass(frozen=True, slots=True, eq=False)
class ColumnTable:
    """Columns by name.

    given : pandas frame with unique string names (the caller's own object when that is pandas: never written to), or columns of one length
    names : all names of the data, also of columns that were not read
    """

    given: pd.DataFrame | Mapping[str, Any]
    names: tuple[str, ...]
    _series: dict[str, pd.Series[Any]] = field(default_factory=dict)
    _rows: int = field(init=False)

    def __post_init__(self) -> None:
        columns = self.given
        rows = len(columns) if isinstance(columns, pd.DataFrame) else len(next(iter(columns.values()), ()))
        object.__setattr__(self, "_rows", rows)

    def __len__(self) -> int:
        return self._rows

    @property
    def frame(self) -> pd.DataFrame:
        """The columns as a frame; where there was none, it is made when it is asked for: one row is read in a third of its time."""
        if not isinstance(self.given, pd.DataFrame):
            object.__setattr__(self, "given", pd.DataFrame({name: self.series(name) for name in self.given}))
        return cast("pd.DataFrame", self.given)

    def series(self, name: str) -> pd.Series[Any]:
        """The column, or an error that names the nearest ones; nothing outside the data is looked at."""
        if name not in self._series:
            try:
                column = self.given[name]
            except KeyError:
                raise absent_column_error(name, self.names) from None
            self._series[name] = column if isinstance(column, pd.Series) else pd.Series(column, name=name)
        return self._series[name]

    def dtypes(self) -> Iterable[tuple[str, Any]]:
        """Each column and its dtype."""
        if not isinstance(self.given, pd.DataFrame):
            return [(name, self.series(name).dtype) for name in self.given]
        if len(self._series) == self.given.shape[1]:
            return [(name, series.dtype) for name, series in self._series.items()]
        return zip(self.frame.columns.tolist(), self.frame.dtypes.to_numpy(), strict=True)


def absent_column_error(name: str, names: Sequence[str]) -> DataError:
    """The error for a column that the data do not have."""
    where, remedy = absent_name(name, names)
    return DataError(f"the data have no column {name!r}", where, remedy)


def read_table(data: Any, used: Sequence[str]) -> ColumnTable:
    """The columns `used` of any frame.

    Errors: `DataError` for text, arrays and other things that are not frames, for columns of several levels, duplicated names, names that
    only look alike, absent columns, two-dimensional columns, columns of unequal length and text that is not Unicode.
    """
    if isinstance(data, pd.DataFrame):
        table = _pandas_table(data, used)
    elif isinstance(data, Mapping):
        table = _mapping_table(data, used)
    else:
        refusal = _refusal(data)
        if refusal is not None:
            raise refusal
        return _foreign_table(data, used)
    for name in used or (() if isinstance(data, pd.DataFrame) else table.names):
        require_unicode(name, table.given[name])
    return table


def require_unicode(name: str, column: Any) -> None:
    """Raise DataError for text that no file, no page and no own type of pandas can hold: halves of a pair, as a wrong encoding leaves."""
    labels = getattr(getattr(column, "dtype", None), "categories", column)
    dtype = getattr(labels, "dtype", None)
    plain = dtype is not None and not (isinstance(dtype, np.dtype) and dtype.kind in "OU")
    texts = [name] if plain else [name, *(label for label in labels if isinstance(label, str))]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        odd = next(text for text in texts if any("\ud800" <= sign <= "\udfff" for sign in text))
        remedy = "read the data with the encoding that they were written in"
        raise DataError(f"column {name!a} holds text that is not Unicode", f"lone surrogates, as in {odd!a}", remedy) from None


def _refusal(data: Any) -> DataError | None:
    kind = type(data).__name__
    if isinstance(data, str | bytes) or hasattr(data, "__fspath__"):
        return DataError(
            "the data are text where a frame is expected", f"got {kind}", "read the file first, for example with pandas.read_csv"
        )
    if isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        return DataError(f"the data are a {kind} of rows", "", "make a frame of the rows: pandas.DataFrame(rows)")
    if isinstance(data, np.ndarray | list | tuple | set | pd.Series) or data is None:
        return DataError(f"the data are a {kind}, which has no named columns", "", _GIVE_A_FRAME)
    return None


# ---------------------------------------------------------------------------------------------------------------- pandas


def require_distinct_names(names: Sequence[Hashable]) -> None:
    """Raise DataError for names of columns that stand twice: which of them is meant, nobody says."""
    if len(set(names)) < len(names):
        counts = Counter(names)
        shown = ", ".join(repr(str(name)) for name in counts if counts[name] > 1)
        raise DataError("column names occur more than once", f"columns {shown}", "rename or drop one of each")


def csv_names(source: Path | BytesIO, separator: str = ",") -> list[str]:
    """The names in the first line of a CSV, no two of them equal: pandas would rename the second of two without a word."""
    names: list[str] = pd.read_csv(source, sep=separator, header=None, nrows=1, dtype=str).iloc[0].dropna().tolist()
    require_distinct_names(names)
    return names


def _pandas_table(data: pd.DataFrame, used: Sequence[str]) -> ColumnTable:
    if isinstance(data.columns, pd.MultiIndex):
        shown = ", ".join(map(str, data.columns[:3]))
        raise DataError(
            "the columns of the frame have several levels (MultiIndex)",
            f"columns {shown}, ...",
            "flatten them: data.columns = ['_'.join(map(str, c)) for c in data.columns]",
        )
    names = tuple(data.columns.tolist())
    require_distinct_names(names)
    if not all(isinstance(name, str) for name in names):
        names = tuple(map(str, names))
        return _pandas_table(data.set_axis(list(names), axis=1), used)
    _require_columns(data.index.names, used, names)
    taken: Any = data.items() if len(names) <= _FEW_COLUMNS else ()
    return ColumnTable(data, names, dict(taken))


def require_columns(table: ColumnTable, used: Sequence[str]) -> None:
    """Raise what `read_table` raises for columns that are absent, or look like another."""
    index = table.given.index.names if isinstance(table.given, pd.DataFrame) else ()
    _require_columns(index, used, table.names)


def _require_columns(index: Sequence[Hashable], used: Sequence[str], names: tuple[str, ...]) -> None:
    for name in used:
        if name not in names:
            if name in index:
                where = f"{name!r} is a level of the index"
                raise DataError(f"the data have no column {name!r}", where, "make it one: data.reset_index()")
            raise absent_column_error(name, names)
    _check_look_alikes(used, names)


def with_native_bytes(data: pd.DataFrame) -> pd.DataFrame:
    """A frame whose numbers have the machine's order of bytes: pandas cannot take rows of others."""
    swapped = {name: dtype.newbyteorder("=") for name, dtype in data.dtypes.items() if isinstance(dtype, np.dtype) and not dtype.isnative}
    return data.astype(swapped) if swapped else data


def names_of_columns(data: Any) -> tuple[str, ...] | None:
    """Names of the columns of a frame or a mapping; None where only reading it tells."""
    if isinstance(data, Mapping):
        return tuple(map(str, data))
    if isinstance(data, pd.DataFrame):
        return tuple(map(str, data.columns.tolist()))
    names = None if hasattr(data, "collect") else getattr(data, "columns", None)  # a lazy frame warns that its columns cost something
    return tuple(map(str, names)) if isinstance(names, list | pd.Index) else None


def _check_look_alikes(used: Sequence[str], names: Sequence[str]) -> None:
    """A name of the formula that some other column is spelled alike to: nobody can see which of the two was meant."""
    if "".join(names).isascii():
        return
    looks: dict[str, list[str]] = {}
    for name in names:
        looks.setdefault(skeleton(name), []).append(name)
    for name in used:
        twins = looks.get(skeleton(name), [])
        if len(twins) > 1:
            odd = "; ".join(filter(None, map(strange_characters, twins)))
            raise DataError(
                f"column {name!r} has a look-alike in the data", f"{len(twins)} columns print the same ({odd})", "rename one of them"
            )


# --------------------------------------------------------------------------------------------------------------- mapping


def _mapping_table(data: Mapping[Any, Any], used: Sequence[str]) -> ColumnTable:
    names = tuple(str(name) for name in data)
    for name in used:
        if name not in data:
            raise absent_column_error(name, names)
    _check_look_alikes(used, names)
    columns = {str(name): _one_column(str(name), data[name]) for name in (used or data)}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError("the columns have unequal lengths", shown, "give columns of one length")
    return ColumnTable(columns, names)


def _one_column(name: str, values: Any) -> Any:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        remedy = f"of one row, its values stand in lists: {{{name!r}: [...]}}" if np.isscalar(values) else _GIVE_A_FRAME
        raise DataError(f"column {name!r} is not a column but a {type(values).__name__}", "", remedy)
    if isinstance(values, pd.Series | pd.Index):
        return values.array  # by position: an index of its own would be aligned
    if _is_foreign_series(values):
        if hasattr(values, "type") and not hasattr(values, "chunks"):  # an Array of pyarrow: a column of its tables is chunked
            values = import_module("pyarrow").chunked_array([values])
        return _foreign_column(import_module("narwhals.stable.v1").from_native(values, series_only=True))
    if isinstance(values, pd.api.extensions.ExtensionArray):
        return values
    if np.ndim(values) != 1:
        shape = " x ".join(map(str, np.shape(values)))
        raise DataError(f"column {name!r} has {np.ndim(values)} dimensions", f"shape {shape}", "give one column per name")
    return values if isinstance(values, np.ndarray) else list(values)


def _is_foreign_series(values: Any) -> bool:
    root = type(values).__module__.partition(".")[0]
    return root in ("polars", "pyarrow", "modin", "cudf") and root in sys.modules


# ------------------------------------------------------------------------------------------------- anything narwhals reads


def _foreign_table(data: Any, used: Sequence[str]) -> ColumnTable:
    narwhals = import_module("narwhals.stable.v1")
    if type(data).__name__ == "RecordBatch" and type(data).__module__.startswith("pyarrow"):
        data = import_module("pyarrow").Table.from_batches([data])
    if isinstance(named := getattr(data, "column_names", None), list):  # of pyarrow, which allows a name to stand twice
        require_distinct_names(named)
    try:
        frame = narwhals.from_native(data)
    except TypeError:
        raise DataError(f"the data are a {type(data).__name__}, which is not a frame", "", _GIVE_A_FRAME) from None
    if not hasattr(frame, "collect_schema"):  # `columns` of a lazy frame would warn of its cost
        raise DataError(f"the data are a {type(data).__name__}, which is not a frame", "", _GIVE_A_FRAME)
    names = tuple(frame.collect_schema().names())
    require_distinct_names(names)
    for name in used:
        if name not in names:
            raise absent_column_error(name, names)
    _check_look_alikes(used, names)
    chosen = list(used or names)
    if narwhals.get_level(frame) == "interchange":  # a relation of DuckDB, a table of Ibis: the engine hands its rows over
        return ColumnTable(frame.select(chosen).to_pandas(), names)
    eager = frame.select(chosen).collect() if isinstance(frame, narwhals.LazyFrame) else frame
    return ColumnTable(pd.DataFrame({name: _foreign_column(eager[name]) for name in chosen}), names)


def _foreign_column(series: Any) -> Any:
    """A narwhals Series as what pandas would hold: numbers as numpy (missing as NaN), enumerations as Categorical, the rest as objects."""
    dtype = series.dtype
    if dtype.is_decimal():
        series = series.cast(import_module("narwhals.stable.v1").Float64)
    kind = str(dtype)
    if kind.endswith("Int128"):  # numpy has none
        return _as_objects(series.to_list())
    if dtype.is_numeric() and series.null_count() == 0:
        return series.to_numpy()
    if dtype.is_integer():
        return pd.array(series.to_list(), dtype="UInt64" if dtype.is_unsigned_integer() else "Int64")
    if dtype.is_numeric():
        return series.to_numpy().astype(np.float64)
    if kind.startswith(("Enum", "Categorical")):
        return _foreign_categorical(series, kind)
    if kind == "Boolean":
        return pd.array(series.to_list(), dtype="boolean")
    if kind.startswith(("Datetime", "Date", "Duration")):
        return pd.Series(pd.to_datetime(series.to_list()) if kind.startswith("Date") else pd.to_timedelta(series.to_list())).array
    return text_array(series.to_list()) if kind == "String" else _as_objects(series.to_list())


def text_array(values: Sequence[str | None] | NDArray[np.object_]) -> Any:
    """Text that keeps what is missing: pandas' own type of text, objects before pandas 3, whose "str" makes a label "None" of None."""
    column = pd.array(values, dtype="str")  # type: ignore[call-overload, unused-ignore]
    return column if isinstance(column.dtype, pd.StringDtype) else np.array(values, dtype=object)


def _as_objects(values: list[Any]) -> NDArray[np.object_]:
    """One object per row, also where rows are lists of one length, of which numpy would make a matrix."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def _foreign_categorical(series: Any, kind: str) -> pd.Categorical:
    """An Enum or an arrow dictionary has an order of its own; a polars Categorical is interned text and is sorted."""
    values = series.to_list()
    if kind.startswith("Categorical") and type(series.to_native()).__module__.startswith("polars"):
        categories = sorted(set(values) - {None})
    else:
        categories = list(dict.fromkeys(series.cat.get_categories().to_list()))
    place: dict[Any, int] = {category: code for code, category in enumerate(categories)} | {None: -1}
    codes = np.array([place[value] for value in values], dtype=np.int64)
    return cast(pd.Categorical, pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(categories)))
