"""Columns of a frame as numbers or as factor codes, and every reason to refuse one.

Numbers, factors and times are told apart by dtype alone (text, categories, booleans and enumerations are factors; integers are numbers),
so that a model does not change its meaning with the values that happen to be there.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, Mask, label_text
from bayeslmm.data.frame import ColumnTable, require_unicode, rows_text, values_text
from bayeslmm.errors import DataError, NonFiniteError


def is_narrow(space: int, rows: int) -> bool:
    """Whether counting `space` keys costs less than sorting or hashing the rows."""
    return space <= max(4 * rows, 1024)


def codes_by_counting(key: NDArray[Any], space: int) -> tuple[Codes, Codes]:
    """Sorted distinct keys of 0, ..., space - 1, and each row's place among them, by counting."""
    distinct = np.bincount(key, minlength=space).nonzero()[0]
    place = np.empty(space, dtype=np.int64)
    place[distinct] = np.arange(len(distinct))
    return distinct, place[key]


def compact_codes(key: Codes, space: int) -> tuple[Codes, Codes]:
    """`codes_by_counting`, or the same by sorting where the space of keys is large."""
    if is_narrow(space, len(key)):
        return codes_by_counting(key, space)
    combinations, codes = np.unique(key, return_inverse=True)
    return combinations, codes


ColumnKind = Literal["number", "factor", "text", "boolean", "time", "complex", "object"]

TRANSPORT_ZERO = 2.0**-260
"""What readers of SAS transport files make of its zero: 5.397605e-79."""
EXACT_INTEGERS = 2**53
"""Integers beyond this are not all numbers of float64."""
_FEW_LABELS = 6  # shown in a remedy
_FEW_TEXTS = 500  # rows up to which setting up a hash table takes longer than a dictionary
_BY_LETTER: dict[str, ColumnKind] = {"f": "number", "i": "number", "u": "number", "b": "boolean", "c": "complex", "M": "time", "m": "time"}


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A column of numbers.

    values : (n,) float64, NaN where missing; may share memory with the data, so copy before keeping
    missing : (n,) or None when nothing is missing
    integer : whether the column holds integers by dtype
    """

    values: Array
    missing: Mask | None
    integer: bool


@dataclass(frozen=True, slots=True, eq=False)
class FactorColumn:
    """A column of labels.

    codes : (n,) signed integers, -1 where missing
    levels : labels, possibly with some that no row has
    kind : what the column was
    """

    codes: NDArray[Any]
    levels: NDArray[np.object_]
    kind: ColumnKind
    missing: Mask | None

    def labels(self, codes: NDArray[Any]) -> NDArray[np.object_]:
        """The label of each code, None for -1."""
        table = np.empty(len(self.levels) + 1, dtype=object)
        table[:-1] = self.levels
        return np.asarray(table[codes], dtype=object)


def kind_of(series: pd.Series[Any]) -> ColumnKind:
    """The nature of a column. Object columns are looked into: text, booleans, Decimals (numbers), anything else is "object"."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _BY_LETTER.get(dtype.kind) or _object_kind(series)
    if isinstance(dtype, pd.CategoricalDtype):
        return "factor"
    if isinstance(dtype, pd.StringDtype):
        return "text"
    return _extension_kind(series)


def _extension_kind(series: pd.Series[Any]) -> ColumnKind:
    dtype: Any = series.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if isinstance(dtype, pd.PeriodDtype | pd.DatetimeTZDtype):
        return "time"
    if isinstance(dtype, pd.ArrowDtype):
        text = str(dtype)
        if text.startswith("dictionary"):
            return "factor"
        if text.startswith(("decimal", "double", "float", "halffloat", "int", "uint")):
            return "number"
        return "text" if "string" in text else "time" if text.startswith(("date", "time", "duration")) else "object"
    return _BY_LETTER.get(dtype.kind) or _object_kind(series)


def _object_kind(series: pd.Series[Any]) -> ColumnKind:
    # values are told apart ten times as fast as a Series of them
    inferred = pd.api.types.infer_dtype(series.to_numpy() if isinstance(series.dtype, np.dtype) else series, skipna=True)
    if inferred == "string":
        return "text"
    if inferred == "boolean":
        return "boolean"
    if inferred == "decimal":
        _refuse_signals(series)
    if inferred in ("integer", "decimal", "empty"):  # integers are what `explode` leaves
        return "number"
    if inferred == "complex":
        return "complex"
    if inferred.startswith(("datetime", "date", "timedelta", "period", "time")):
        return "time"
    return "text" if _all_enum(series.to_numpy()) else "object"


def _refuse_signals(series: pd.Series[Any]) -> None:
    """A signalling NaN is missing to nobody: whoever compares it, pandas too, ends in an exception of `decimal`."""
    rows = np.flatnonzero([isinstance(value, Decimal) and value.is_snan() for value in series.to_numpy()])
    if len(rows):
        raise DataError(f"column {series.name!r} holds signalling NaN", rows_text(rows), "put NaN or None where a value is missing")


def _all_enum(values: NDArray[Any]) -> bool:
    if len(values) and type(values[0]) is str:
        return False
    present = values[~pd.isna(values)]
    return len(present) > 0 and all(isinstance(value, Enum) for value in present)


# --------------------------------------------------------------------------------------------------------------- numbers


def series_numbers(series: pd.Series[Any], name: str) -> Numbers:
    """The column as float64.

    Errors: `NonFiniteError` for infinite values, `DataError` for text, times, complex numbers, objects and integers that float64
    cannot hold; each names the column, the rows and the way out.
    """
    dtype = series.dtype
    letter = dtype.kind if isinstance(dtype, np.dtype) else ""
    if letter == "f":
        return _check_finite(np.asarray(series.to_numpy(), dtype=np.float64), name, integer=False)
    if letter and letter in "iub":
        values = series.to_numpy()
        if letter != "b" and values.itemsize == 8:
            _check_exact(values, name)
        return Numbers(values.astype(np.float64), None, integer=True)
    kind = kind_of(series)
    if kind not in ("number", "boolean"):
        raise not_numbers_error(series, name, kind)
    integer = getattr(dtype, "kind", "O") in "iub" or (dtype == np.dtype(object) and _all_integers(series))
    if kind == "number" and (integer or _are_decimals(series)):
        _check_exact(series.to_numpy(dtype=object, na_value=0) if integer else _written_integers(series), name)
    values = _object_floats(series) if dtype == np.dtype(object) else series.to_numpy(dtype=np.float64, na_value=np.nan)
    return _check_finite(values, name, integer=integer)


def _all_integers(series: pd.Series[Any]) -> bool:
    return pd.api.types.infer_dtype(series.to_numpy(), skipna=True) == "integer"


def _are_decimals(series: pd.Series[Any]) -> bool:
    if isinstance(series.dtype, pd.ArrowDtype):
        return str(series.dtype).startswith("decimal")
    return series.dtype == np.dtype(object) and pd.api.types.infer_dtype(series.to_numpy(), skipna=True) == "decimal"


def _written_integers(series: pd.Series[Any]) -> NDArray[Any]:
    """Decimals that are written as integers, digit by digit, 0 for others: a fraction is rounded as any other number is."""
    values = series.to_numpy(dtype=object)
    whole = [int(v) if isinstance(v, Decimal) and v.is_finite() and v.as_tuple().exponent == 0 else 0 for v in values]
    return np.array(whole, dtype=object)


def _object_floats(series: pd.Series[Any]) -> Array:
    missing = series.isna().to_numpy()
    values = np.full(len(series), np.nan)
    values[~missing] = [float(value) for value in series.to_numpy()[~missing]]
    return values


def _check_finite(values: Array, name: str, *, integer: bool) -> Numbers:
    if np.isfinite(values).all():
        return Numbers(values, None, integer)
    infinite = np.isinf(values)
    if infinite.any():
        rows = np.flatnonzero(infinite)
        raise NonFiniteError(
            f"column {name!r} holds infinite values", rows_text(rows), "replace them, by NaN where they stand for missing values"
        )
    return Numbers(values, np.isnan(values), integer)


def _check_exact(values: NDArray[Any], name: str) -> None:
    if not len(values) or (values.max() <= EXACT_INTEGERS and values.min() >= -EXACT_INTEGERS):
        return
    large = np.flatnonzero((values > EXACT_INTEGERS) | (values < -EXACT_INTEGERS))
    rows = large[[int(float(values[i])) != int(values[i]) for i in large]]
    if not len(rows):
        return
    raise inexact_integers_error(name, rows_text(rows))


def inexact_integers_error(name: str, rows: str) -> DataError:
    """That a column holds integers which are no numbers of float64."""
    what = f"column {name!r} holds integers beyond 2**53, which float64 cannot tell apart"
    return DataError(what, rows, "subtract a constant first; an identifier belongs behind the bar or in C()")


def not_numbers_error(series: pd.Series[Any], name: str, kind: ColumnKind) -> DataError:
    """Why a column is not numbers, and what turns it into numbers."""
    where = f"column {name!r}, dtype {series.dtype}"
    if kind == "time":
        remedy = f"convert to a number first: {_time_as_number(series, f'data[{name!r}]')}"
        return DataError(f"column {name!r} holds times, which have no unit in a linear model", where, remedy)
    if kind == "complex":
        return DataError(f"column {name!r} holds complex numbers", where, "take the real part, or model the parts apart")
    if kind == "text":
        column = f"data[{name!r}]"
        remedy = _time_as_number(series, column) if _reads_as_dates(series) else _text_as_number(series, column)
        spoilt = spoilt_numbers_error(series, name) or _foreign_numbers_error(series.dropna().unique(), name)
        return spoilt or DataError(f"column {name!r} is text where numbers are needed", where, f"convert it to a number first: {remedy}")
    if kind == "factor":
        readable = pd.to_numeric(pd.Series(series.cat.categories.astype(str)), errors="coerce").notna().all()
        remedy = f"convert it: data[{name!r}].astype(float)" if readable else "its levels are no numbers: name a column of numbers"
        return DataError(f"column {name!r} is a factor where numbers are needed", where, remedy)
    return mixed_objects_error(series, name)


def _reads_as_dates(series: pd.Series[Any]) -> bool:
    present = series.dropna().unique()[:_FEW_TEXTS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return len(present) > 0 and bool(pd.notna(pd.to_datetime(pd.Series(present), errors="coerce")).all())


def _time_as_number(series: pd.Series[Any], column: str) -> str:
    """The expression that makes numbers of a column of times: days, hours of the day, or the count of a period."""
    found = pd.api.types.infer_dtype(series.astype(object), skipna=True)
    if found == "period":
        return f"pandas.PeriodIndex({column}).astype('int64')"
    if found == "time":
        return f"pandas.to_timedelta({column}.astype(str)) / pandas.Timedelta(hours=1)"
    if found.startswith("timedelta"):
        return f"pandas.to_timedelta({column}) / pandas.Timedelta(days=1)"
    return f"(pandas.to_datetime({column}) - pandas.to_datetime({column}).min()) / pandas.Timedelta(days=1)"


def _text_as_number(series: pd.Series[Any], column: str) -> str:
    """The expression that makes numbers of text: read, or of words that are none, given by a table."""
    labels = list(dict.fromkeys(map(str, series.dropna())))
    if any(_is_number(label) for label in labels) or not labels:
        return f"pandas.to_numeric({column})"
    shown = ", ".join(f"{label!r}: {place}" for place, label in enumerate(sorted(labels)[:_FEW_LABELS]))
    return f"{column}.map({{{shown}{', ...' if len(labels) > _FEW_LABELS else ''}}}), in the order that they have"


def mixed_objects_error(series: pd.Series[Any], name: str) -> DataError:
    """An object column that is neither text nor numbers by dtype."""
    types = sorted({type(value).__name__ for value in series.dropna()})
    remedy = f"give it a dtype: pandas.to_numeric(data[{name!r}]) for numbers, .astype(str) for labels"
    return DataError(f"column {name!r} is a column of objects ({', '.join(types)})", f"dtype {series.dtype}", remedy)


def spoilt_numbers_error(series: pd.Series[Any], name: str, rows_in_all: int = 0) -> DataError | None:
    """The error for text that reads as numbers and is no factor; None for honest text and for codes.

    Labels most of which are numbers while some cannot be read are a spoilt number. Labels that are all numbers are the codes of a factor,
    unless there are nearly as many as rows: then they are a covariate that came in as text.

    rows_in_all : how many rows the series stands for, where that is more than it has
    """
    present = series.dropna()
    if not len(present):
        return None
    counts = present.astype(object).value_counts(sort=False)
    labels = counts.index.to_numpy()
    unreadable = np.array([not _is_number(label) for label in labels])
    if 2 * counts.to_numpy()[unreadable].sum() >= len(present):
        covariate = 2 * len(labels) > max(len(present), rows_in_all)  # few labels are those of a factor
        return _foreign_numbers_error(labels, name) if covariate else None
    bad = labels[unreadable]
    if not len(bad) and 2 * len(labels) <= max(len(present), rows_in_all):
        return None
    rows = np.flatnonzero(series.isin(bad).to_numpy()) if len(bad) else np.array([], dtype=np.int64)
    value = (
        f"{len(rows)} values cannot be read as numbers: {values_text(bad)}; {rows_text(rows)}"
        if len(bad)
        else f"every value reads as a number, and {len(labels)} of {len(present)} are different"
    )
    remedy = f"data[{name!r}] = pandas.to_numeric(data[{name!r}], errors='coerce'); for a factor: C({name}) or .astype('category')"
    return DataError(f"column {name!r} is text, but most of its values are numbers", value, remedy)


_FOREIGN = {
    r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?": (
        "a comma after the thousands",
        "pandas.to_numeric({column}.str.replace(',', '')), or read the file with thousands=','",
    ),
    r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+": (
        "a decimal comma",
        "pandas.to_numeric({column}.str.replace('.', '').str.replace(',', '.')), or read the file with decimal=','",
    ),
    r"[+-]?\d+(\.\d+)?\s?%": ("a percent sign", "pandas.to_numeric({column}.str.rstrip('% ')) / 100"),
}
"""How numbers are written that Python does not read -> what they have, and what makes numbers of them."""


def _foreign_numbers_error(labels: Any, name: str) -> DataError | None:
    """The error for numbers that are written as in another country; None for other text."""
    for pattern, (what, way) in _FOREIGN.items():
        written = [label for label in labels if isinstance(label, str) and re.fullmatch(pattern, label.strip())]
        others = sum(_is_number(label) for label in labels)
        if len(written) and 2 * (len(written) + others) > len(labels):
            remedy = f"data[{name!r}] = {way.format(column=f'data[{name!r}]')}; for a factor: C({name}) or .astype('category')"
            return DataError(f"column {name!r} is text, but most of its values are numbers with {what}", values_text(written), remedy)
    return None


def are_codes(levels: NDArray[np.object_]) -> bool:
    """Whether labels of text are all numbers to the eye: "0", "5", "10"."""
    return len(levels) > 0 and all(isinstance(level, str) and _is_number(level) for level in levels)


def _is_number(label: Any) -> bool:
    try:
        float(label)
    except (TypeError, ValueError):
        return False
    return str(label).strip().lower() not in ("nan", "inf", "-inf", "infinity")


# --------------------------------------------------------------------------------------------------------------- factors


def series_factor(series: pd.Series[Any], name: str, kind: ColumnKind | None = None) -> FactorColumn:
    """The column as labels: categories in their order, everything else sorted.

    Errors: `DataError` for labels of mixed types, which cannot be ordered and of which 1 and "1" would be two levels.
    """
    kind, dtype = kind or kind_of(series), series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _categorical(series.array, kind, name)
    if isinstance(dtype, pd.ArrowDtype) and kind == "factor":
        return _categorical(pd.Categorical(series.astype(object)), kind, name)
    if kind == "object":
        _check_not_mixed(series, name)
    letter = dtype.kind if isinstance(dtype, np.dtype) else ""
    if letter == "O" and kind == "text" and _all_enum(series.to_numpy()):
        return _enumeration(series, kind)
    if letter == "b":
        return FactorColumn(series.to_numpy().astype(np.int64), np.array([False, True], dtype=object), kind, None)
    if letter in ("i", "u") and (near := _close_integers(series.to_numpy())) is not None:
        return FactorColumn(near[0], near[1], kind, None)
    if kind == "text" and len(series) <= _FEW_TEXTS:
        codes, levels = _few_texts(series)
        return FactorColumn(codes, levels, kind, _missing_mask(codes))
    codes, levels = _factorize(series)
    if kind == "boolean":
        levels = np.array([bool(level) for level in levels] + [None], dtype=object)[:-1]
    order = _sorted_order(levels, name)
    rank = np.empty(len(order) + 1, dtype=np.int64)
    rank[order], rank[-1] = np.arange(len(order)), -1
    return FactorColumn(rank[codes], levels[order], kind, _missing_mask(codes))


def _close_integers(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.object_]] | None:
    """Codes and sorted levels of integers that lie close together; None for anything else."""
    if not np.can_cast(values.dtype, np.int64) or not len(values):
        return None
    low, high = int(values.min()), int(values.max())
    if not is_narrow(high - low + 1, len(values)):
        return None
    places, codes = codes_by_counting(values.astype(np.int64) - low, high - low + 1)
    return codes, (places + low).astype(object)


def _few_texts(series: pd.Series[Any]) -> tuple[NDArray[Any], NDArray[np.object_]]:
    """Codes and sorted levels of a short column of text, -1 where missing."""
    labels = series.tolist()
    place = dict.fromkeys(labels, -1)
    levels = sorted(label for label in place if isinstance(label, str))
    place.update(zip(levels, range(len(levels)), strict=True))
    return np.fromiter(map(place.__getitem__, labels), np.int64, len(labels)), np.array(levels, dtype=object)


def _factorize(series: pd.Series[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    dtype, values = series.dtype, cast(Any, series.array)
    if isinstance(dtype, np.dtype) and not dtype.isnative:
        values = series.to_numpy().astype(dtype.newbyteorder("="))
    elif isinstance(dtype, np.dtype) and dtype.kind in "biufcO":
        values = series.to_numpy()
        if dtype.kind == "f" and (values == TRANSPORT_ZERO).any():
            values = np.where(values == TRANSPORT_ZERO, 0.0, values)
    codes, uniques = pd.factorize(values)
    return codes, np.asarray(uniques.astype(object), dtype=object)


def _sorted_order(levels: NDArray[np.object_], name: str) -> NDArray[np.int64]:
    try:
        if len(levels) and isinstance(levels[0], int | float):
            plain = np.array(levels.tolist())
            if plain.dtype.kind in "iuf":  # objects are compared one by one, thirty times slower
                return np.argsort(plain, kind="stable")
        return np.argsort(levels, kind="stable")
    except TypeError:
        raise _mixed_labels(levels, name) from None


def _missing_mask(codes: NDArray[Any]) -> Mask | None:
    return codes < 0 if len(codes) and codes.min() < 0 else None


def _categorical(values: Any, kind: ColumnKind, name: str) -> FactorColumn:
    levels = np.asarray(values.categories, dtype=object)
    if values.categories.dtype == object and pd.api.types.infer_dtype(levels).startswith("mixed"):
        raise _mixed_labels(levels, name)
    return FactorColumn(values.codes, levels, kind, _missing_mask(values.codes))


def _enumeration(series: pd.Series[Any], kind: ColumnKind) -> FactorColumn:
    """Members of a Python enumeration, in the order of its definition."""
    enumeration: type[Enum] = type(series.dropna().iloc[0])
    members = list(enumeration)
    place = {member: i for i, member in enumerate(members)}
    codes = np.array([place.get(value, -1) for value in series], dtype=np.int64)
    return FactorColumn(codes, np.array([member.name for member in members], dtype=object), kind, _missing_mask(codes))


def require_labels(series: pd.Series[Any], name: str) -> None:
    """Refuse objects that cannot be told apart by their value, lists, sets, frames, signalling NaN, and text that is not Unicode."""
    require_unicode(name, series)
    if kind_of(series) == "object" and any(value.__hash__ is None for value in series):
        types = ", ".join(sorted({type(value).__name__ for value in series.dropna()}))
        what = f"column {name!r} holds {types} objects, which are no labels"
        raise DataError(what, f"dtype {series.dtype}", f"make them text: data[{name!r}].astype(str)")


def _check_not_mixed(series: pd.Series[Any], name: str) -> None:
    """Numbers of several types compare; numbers beside text do not, even where nothing needs sorting."""
    require_labels(series, name)
    present = series.dropna()
    families = {"number" if _is_plain_number(value) else type(value).__name__ for value in present}
    if len(families) > 1:
        raise _mixed_labels(present, name)


def _is_plain_number(value: Any) -> bool:
    """A number that is no truth value, which Python takes for 0 or 1."""
    return isinstance(value, int | float | Decimal | np.number) and not isinstance(value, bool)


def _mixed_labels(levels: Any, name: str) -> DataError:
    first: dict[str, Any] = {}
    for level in levels:
        first.setdefault(type(level).__name__, level)
    examples = ", ".join(f"{value!r} ({kind})" for kind, value in first.items())
    return DataError(f"column {name!r} holds labels of several types", examples, f"make them one type: data[{name!r}].astype(str)")


@dataclass(frozen=True, slots=True)
class LevelPlaces:
    """Where a label stands among levels, -1 where it is none of them.

    A number and its text are one label where the other is not there: 308 is found among "308", "309", and "308" among 308, 309.
    """

    exact: Mapping[Any, int]
    as_text: Mapping[str, int]

    @classmethod
    def of(cls, levels: Sequence[Any]) -> LevelPlaces:
        exact = {level: i for i, level in enumerate(levels)}
        as_text = {label_text(level): i for level, i in exact.items() if _is_number_or_text(level)}
        return cls(exact, as_text if len(as_text) == len(exact) else {})

    def __call__(self, label: Any) -> int:
        found = self.exact.get(label, -1)
        return self.as_text.get(label_text(label), -1) if found < 0 and _is_number_or_text(label) else found


def _is_number_or_text(label: Any) -> bool:
    return isinstance(label, int | float | np.number | str) and not isinstance(label, bool)


FACTOR_KINDS: frozenset[ColumnKind] = frozenset({"factor", "text", "boolean"})


@dataclass(slots=True, eq=False)
class Columns:
    """The columns of a table, read at most once each.

    rows : positions kept; None is all of them. `missing_mask` masks are over all rows of the table, values over those kept
    rows_in_all : how many rows the table stands for, where it holds some of them
    """

    table: ColumnTable
    rows: Codes | None = None
    rows_in_all: int = 0
    _kinds: dict[str, ColumnKind] = field(default_factory=dict)
    _numbers: dict[str, Numbers] = field(default_factory=dict)
    _factors: dict[str, FactorColumn] = field(default_factory=dict)
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    def kind(self, name: str) -> ColumnKind:
        """The nature of a column."""
        if name not in self._kinds:
            self._kinds[name] = kind_of(self.table.series(name))
        return self._kinds[name]

    def is_factor(self, name: str) -> bool:
        """Whether the bare column is a factor in a formula."""
        return self.kind(name) in FACTOR_KINDS

    def read_numbers(self, name: str) -> Numbers:
        """The whole column as numbers."""
        if name not in self._numbers:
            self._numbers[name] = series_numbers(self.table.series(name), name)
        return self._numbers[name]

    def read_factor(self, name: str) -> FactorColumn:
        """The whole column as labels."""
        if name not in self._factors:
            self._factors[name] = series_factor(self.table.series(name), name, self._kinds.get(name))
        return self._factors[name]

    def missing_mask(self, name: str, *, as_factor: bool) -> Mask | None:
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

    def check_usable(self, name: str) -> None:
        """Refuse a column that cannot be a term by itself: times, complex numbers, objects, text that is mostly numbers."""
        kind = self.kind(name)
        series = self.table.series(name) if kind in ("time", "complex", "object", "text") else None
        if series is None:
            return
        if kind == "object":
            raise mixed_objects_error(series, name)
        if kind != "text":
            raise not_numbers_error(series, name, kind)
        spoilt = spoilt_numbers_error(series, name, self.rows_in_all)
        if spoilt is not None:
            raise spoilt
