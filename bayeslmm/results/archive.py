"""The archive of a saved object: a zip of one JSON text (values, labels, frames) and plain arrays, no code, a checksum of every byte.

The archive comment ends with the SHA-256 of all bytes before it, so that nothing is read of a file that was altered or cut short. Sizes are
compared with what is there before anything is allocated.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import math
import os
import stat
import struct
import tokenize
import zipfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._io import DATED, write_atomically
from bayeslmm.data.frame import text_array
from bayeslmm.errors import Check, FormatError, MismatchError, StoreError, show_value

# a moment is a date too: what is narrower comes first
_WRITTEN: dict[type, Callable[[Any], Any]] = {
    Decimal: lambda value: {"decimal": str(value)},
    pd.Timestamp: lambda value: {"time": value.isoformat()},
    pd.Timedelta: lambda value: {"duration": value.isoformat()},
    datetime.date: lambda value: {"date": value.isoformat()},
    datetime.time: lambda value: {"clock": value.isoformat()},
    pd.Interval: lambda value: {"interval": [to_json(value.left), to_json(value.right), value.closed]},
    pd.Period: lambda value: {"period": [value.ordinal, value.freqstr]},
    bytes: lambda value: {"bytes": value.hex()},
    Check: lambda check: {"check": [to_json(part) for part in (check.name, check.verdict, check.value, check.limit, check.remedy)]},
}

_READ: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "tuple": lambda parts: tuple(from_json(part) for part in parts),
    "mapping": lambda pairs: {from_json(key): from_json(item) for key, item in pairs},
    "decimal": Decimal,
    "time": pd.Timestamp,
    "duration": pd.Timedelta,
    "date": datetime.date.fromisoformat,
    "clock": datetime.time.fromisoformat,
    "interval": lambda ends: pd.Interval(from_json(ends[0]), from_json(ends[1]), ends[2]),
    "period": lambda parts: pd.Period(ordinal=parts[0], freq=parts[1]),
    "bytes": bytes.fromhex,
    "check": lambda parts: Check(*(from_json(part) for part in parts)),
}

FILE_FORMAT = "bayeslmm fit"
FILE_VERSION = 1
CONTENT_MEMBER = "fit.json"
MAX_FILE_BYTES = 1 << 36
"""Bytes of the largest file that is opened."""

BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
"""What zip files, JSON, numbers and npy headers raise that are not as they were written."""

_DIGEST = 64
_KINDS = "biuf"


def write_archive(path: Path, content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file at exactly this path, or leave what is there. Errors: StoreError."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        numbered = {name: f"{number}.npy" for number, name in enumerate(arrays)}
        header = {"format": FILE_FORMAT, "version": FILE_VERSION, "arrays": numbered, "content": content}
        archive.writestr(zipfile.ZipInfo(CONTENT_MEMBER, DATED), json.dumps(header, allow_nan=False, ensure_ascii=False))
        for name, member in numbered.items():
            archive.writestr(zipfile.ZipInfo(member, DATED), _npy(arrays[name]))
        archive.comment = b"sha256:" + b"0" * _DIGEST
    body = stream.getvalue()[:-_DIGEST]
    write_atomically(path, body + hashlib.sha256(body).hexdigest().encode())


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What `write_archive` wrote.

    Errors: StoreError for a file that cannot be read, FormatError for one that is not ours or was cut short, MismatchError for one that was
    altered or is newer than this package.
    """
    data = _content(path)
    _require_intact(data, path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _members(archive, path)
    except BROKEN as error:
        raise FormatError(f"the file cannot be taken apart: {error}"[:400], str(path), "save the fit again") from None


def _content(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device is not waited for."""
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_FILE_BYTES:
                raise StoreError("this is no regular file, or too large for a saved fit", str(path), "name a file written by save()")
            return file.read()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise StoreError(f"the file cannot be read: {reason}", str(path), "name a file written by save()") from None


def _require_intact(data: bytes, path: Path) -> None:
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if not data.startswith(b"PK\x03\x04") or not body.endswith(b"sha256:"):
        raise FormatError("this is no saved fit, or one that was cut short", f"{path}, {len(data):,} bytes", "save the fit again")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise MismatchError("the file was altered since it was written: its checksum differs", str(path), "save the fit again")


def _members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in archive.infolist()):
        raise FormatError("members of the file are compressed, which save() does not do", str(path), "save the fit again")
    header = json.loads(archive.read(CONTENT_MEMBER))
    if header["format"] != FILE_FORMAT:
        raise FormatError("this is no saved fit", str(path), "name a file written by save()")
    if header["version"] != FILE_VERSION:
        raise MismatchError(
            f"the file has version {header['version']} of the format, this package reads {FILE_VERSION}",
            str(path),
            "update bayeslmm, or save the fit again",
        )
    arrays = {name: _array(archive.read(member), f"{path}, {member}") for name, member in header["arrays"].items()}
    return header["content"], arrays


def _npy(array: NDArray[Any]) -> bytes:
    if array.dtype.kind not in _KINDS:
        raise StoreError(f"an array of {array.dtype} cannot be stored", "save", "turn the column into numbers or text first")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _array(data: bytes, where: str) -> NDArray[Any]:
    """An array whose header asks for exactly the bytes that follow it."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise FormatError("an array has another version of the npy format", where, "save the fit again")
    shape, columnwise, dtype = np.lib.format.read_array_header_1_0(stream)
    left = len(data) - stream.tell()
    if dtype.kind not in _KINDS or any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != left:
        what = f"an array says {' x '.join(map(str, shape))} of {dtype} and has {left:,} bytes"
        raise FormatError(what, where, "save the fit again")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if columnwise else "C").copy(order="K")


def floats_in(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.float64]:
    """An array of a file that has to hold floats. Errors: FormatError."""
    if arrays[name].dtype != np.float64:
        raise FormatError(f"{name} holds {arrays[name].dtype} and not floats", name, "save the fit again")
    return arrays[name]


def places_in(arrays: Mapping[str, NDArray[Any]], name: str, below: int) -> NDArray[np.int64]:
    """An array of a file that has to hold places from 0 to below a number, for what sums by place writes where they point.

    Errors: FormatError.
    """
    values = arrays[name]
    if values.dtype.kind != "i" or (values.size and not 0 <= int(values.min()) <= int(values.max()) < below):
        raise FormatError(f"{name} points to other places than the {below:,} there are", name, "save the fit again")
    return values


def to_json(value: Any) -> Any:
    """Convert a value to JSON types. Errors: StoreError for a type that has none."""
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.datetime64 | np.timedelta64) else pd.Series([value])[0]
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [to_json(item) for item in value]}
    if isinstance(value, Mapping):
        return {"mapping": [[to_json(key), to_json(item)] for key, item in value.items()]}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    for kind, write in _WRITTEN.items():
        if isinstance(value, kind):
            return write(value)
    raise StoreError(
        f"a value of type {type(value).__name__} cannot be stored", f"{show_value(value)}", "make it text or a number before fitting"
    )


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if len(value) != 1 or next(iter(value)) not in _READ:
            raise FormatError("the file holds a value of unknown kind", ", ".join(map(str, value))[:80], "save the fit again")
        kind, content = next(iter(value.items()))
        return _READ[kind](content)
    return value


Arrays = dict[str, NDArray[Any]]


def store_series(series: pd.Series[Any], name: str, arrays: Arrays) -> dict[str, Any]:
    """Put the values of a column into `arrays` under `name`; what else is needed is returned."""
    dtype: Any = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        series = _from_arrow(series, dtype)
        dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufc":
        arrays[name] = series.to_numpy()
        return {"kind": "numbers"}
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        arrays[name] = series.to_numpy().view(np.int64)
        return {"kind": "times", "dtype": dtype.str}
    if isinstance(dtype, pd.DatetimeTZDtype):
        arrays[name] = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().view(np.int64)
        return {"kind": "times", "dtype": f"<M8[{dtype.unit}]", "zone": str(dtype.tz)}
    if isinstance(dtype, pd.CategoricalDtype):
        arrays[name] = np.asarray(series.cat.codes)
        categories = {"text": isinstance(dtype.categories.dtype, pd.StringDtype), "labels": to_json(dtype.categories.tolist())}
        return {"kind": "categories", "ordered": bool(dtype.ordered), **categories}
    if isinstance(dtype, pd.IntervalDtype | pd.PeriodDtype):
        return {**store_series(series.astype(object), name, arrays), "dtype": str(dtype)}
    if isinstance(dtype, pd.StringDtype) or pd.api.types.is_object_dtype(dtype):
        codes, labels = pd.factorize(series, use_na_sentinel=True)
        arrays[name] = codes
        return {"kind": "labels", "text": isinstance(dtype, pd.StringDtype), "labels": to_json(list(labels))}
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and getattr(dtype, "kind", "O") in "biuf":
        arrays[f"{name}/missing"] = series.isna().to_numpy()
        arrays[name] = series.fillna(0).to_numpy(
            dtype=np.dtype(dtype.kind + str(getattr(dtype, "itemsize", 8))) if dtype.kind != "b" else np.bool_
        )
        return {"kind": "nullable", "dtype": str(dtype)}
    raise StoreError(f"a column of {dtype} cannot be stored", name, "convert it to numbers, text or categories before fitting")


def _from_arrow(series: pd.Series[Any], dtype: pd.ArrowDtype) -> pd.Series[Any]:
    """A column of Arrow's as one of NumPy or pandas; what they have no type for, such as dates, decimals and dictionaries, as objects."""
    from pyarrow import types

    held = dtype.pyarrow_dtype
    if any(is_such(held) for is_such in (types.is_boolean, types.is_integer, types.is_floating)):
        return series.convert_dtypes(dtype_backend="numpy_nullable")
    objects = series.astype(object).where(series.notna(), None)
    return pd.Series(text_array(objects.to_numpy())) if types.is_string(held) or types.is_large_string(held) else objects


def open_series(told_of: dict[str, Any], name: str, arrays: Arrays) -> Any:
    """The values that `store_series` put away."""
    values, kind = arrays[name], told_of["kind"]
    if kind == "numbers":
        return values
    if kind == "times":
        times = values.view(np.dtype(told_of["dtype"]))
        return pd.Series(times).dt.tz_localize("UTC").dt.tz_convert(told_of["zone"]).array if "zone" in told_of else times
    if kind == "nullable":
        missing = arrays[f"{name}/missing"]
        return pd.Series(values).astype(told_of["dtype"]).mask(missing).array
    labels = from_json(told_of["labels"])
    if kind == "categories":
        categories = pd.Index(labels, dtype="str") if told_of["text"] else pd.Index(labels)
        return pd.Categorical.from_codes(values, categories=categories, ordered=told_of["ordered"])
    table = np.empty(len(labels) + 1, dtype=object)
    table[:-1] = labels
    table[-1] = None
    if told_of["text"]:
        return text_array(table[values])
    return table[values] if "dtype" not in told_of else pd.array(table[values], dtype=told_of["dtype"])


def store_index(index: pd.Index[Any], name: str, arrays: Arrays) -> dict[str, Any]:
    """An index, of several levels too."""
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "names": to_json(list(index.names))}
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    parts = [store_series(pd.Series(level.array), f"{name}/{i}", arrays) for i, level in enumerate(levels)]
    return {"levels": parts, "several": isinstance(index, pd.MultiIndex), "names": to_json(list(index.names))}


def open_index(told_of: dict[str, Any], name: str, arrays: Arrays) -> pd.Index[Any]:
    """The index that `store_index` put away."""
    names = from_json(told_of["names"])
    if "range" in told_of:
        start, stop, step = told_of["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    levels = [open_series(part, f"{name}/{i}", arrays) for i, part in enumerate(told_of["levels"])]
    return pd.MultiIndex.from_arrays(levels, names=names) if told_of["several"] else pd.Index(levels[0], name=names[0])


def store_frame(frame: pd.DataFrame, name: str, arrays: Arrays) -> dict[str, Any]:
    """The columns of a frame, without its index."""
    columns = [[to_json(column), store_series(frame[column], f"{name}/{i}", arrays)] for i, column in enumerate(frame.columns)]
    return {"columns": columns}


def open_frame(told_of: dict[str, Any], name: str, arrays: Arrays, rows: int) -> pd.DataFrame:
    """The frame that `store_frame` put away, rows numbered from 0."""
    columns = {from_json(column): open_series(part, f"{name}/{i}", arrays) for i, (column, part) in enumerate(told_of["columns"])}
    return pd.DataFrame(columns, index=pd.RangeIndex(rows))
