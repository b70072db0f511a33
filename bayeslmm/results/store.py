"""The file of a fit: a zip of one JSON text and plain arrays, no compression, no code, a checksum of every byte.

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, freeze, readonly
from bayeslmm._io import as_path, write_atomically
from bayeslmm.data.design import Design, ResidualDesign
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.data.residual import row_places
from bayeslmm.errors import Check, FormatError, MismatchError, StoreError
from bayeslmm.estimate.estimate import Estimate, estimates_at
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import factors_of
from bayeslmm.likelihood.structured.kernel import PooledBatch
from bayeslmm.likelihood.structured.residual_structure import BlockRows
from bayeslmm.partitions.first_pass import COUNT, ColumnRange, FirstPass
from bayeslmm.partitions.moments import CoincidingFactors, ColumnMoments, IncrementalQR, SpanningRows, SumsByLevel, empty_sums
from bayeslmm.partitions.sums import (
    GIVEN_OFFSET,
    GIVEN_WEIGHTS,
    Learning,
    PartitionedDesign,
    SummedRows,
    VisitPatterns,
    problem_of_sums,
    sum_design,
    template_of,
    without_codes,
)
from bayeslmm.results.estimates import Estimates, FittedModel
from bayeslmm.specification.model_spec import ModelArguments, ModelSpec

FILE_FORMAT = "bayeslmm fit"
FILE_VERSION = 1
CONTENT_MEMBER = "fit.json"
MAX_FILE_BYTES = 1 << 36
"""Bytes of the largest file that is opened."""

BROKEN = (
    ArithmeticError,
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
_KINDS = "biufc"
_DATED = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file at exactly this path, or leave what is there. Errors: StoreError."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        numbered = {name: f"{number}.npy" for number, name in enumerate(arrays)}
        told = {"format": FILE_FORMAT, "version": FILE_VERSION, "arrays": numbered, "content": content}
        archive.writestr(zipfile.ZipInfo(CONTENT_MEMBER, _DATED), json.dumps(told, allow_nan=False, ensure_ascii=False))
        for name, member in numbered.items():
            archive.writestr(zipfile.ZipInfo(member, _DATED), _npy(arrays[name]))
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
    told = json.loads(archive.read(CONTENT_MEMBER))
    if told["format"] != FILE_FORMAT:
        raise FormatError("this is no saved fit", str(path), "name a file written by save()")
    if told["version"] != FILE_VERSION:
        raise MismatchError(
            f"the file has version {told['version']} of the format, this package reads {FILE_VERSION}",
            str(path),
            "update bayeslmm, or save the fit again",
        )
    arrays = {name: _array(archive.read(member), f"{path}, {member}") for name, member in told["arrays"].items()}
    return told["content"], arrays


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
        f"a value of type {type(value).__name__} cannot be stored", f"{value!r:.60}", "make it text or a number before fitting"
    )


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
    if any(is_such(held) for is_such in (types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string)):
        return series.convert_dtypes(dtype_backend="numpy_nullable")
    return series.astype(object).where(series.notna(), None)


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
    dtype: Any = "str" if told_of["text"] else told_of.get("dtype")
    return table[values] if dtype is None else pd.array(table[values], dtype=dtype)


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


CRITERION_AGREEMENT = 1e-8
"""Largest difference, relative to its size, between a stored criterion and the one evaluated on opening: BLAS libraries differ by less."""

ESTIMATE_AGREEMENT = 1e-6
"""The same of an estimate, in standard errors or relative to its size."""


def save(fit: Estimates, path: str | Path, *, rows: bool = True) -> None:
    """Write a fit to exactly this path. rows : whether they are kept, where the model has them. Errors: StoreError."""
    content, arrays = stored_fit(fit, rows=rows)
    write_archive(as_path(path), content, arrays)


def stored_fit(fit: Estimates, *, rows: bool = True) -> tuple[dict[str, Any], Arrays]:
    """A fit as JSON values and arrays. rows : whether those of the data are among them"""
    arrays: Arrays = {}
    summed, estimate = None if rows else AddedUp.of(fit.model), fit.estimate
    content = stored_model(fit.model, arrays, summed)
    if summed is not None and fit.design.in_memory:
        estimate = _on_axes_of_sums(fit, summed.problem())
    content["estimate"] = _store_estimate(estimate, arrays)
    held = weighting_fitted_values(fit.problem)
    if held is not None:
        arrays["fitted"] = held
    return content, arrays


def _on_axes_of_sums(fit: Estimates, problem: Problem) -> Estimate:
    """The estimates with x on the axes of the sums, which differ by signs.

    Errors: MismatchError for other numbers than those of the rows.
    """
    estimate = replace(fit.estimate, x=freeze(problem.x(fit.problem.theta(fit.estimate.x))))
    require_same_estimates(problem, estimate, "save(rows=False)")
    return estimate


@dataclass(frozen=True, slots=True, eq=False)
class AddedUp:
    """A model whose rows were added up. said : its arguments, with columns that stand for arrays of weights and offsets"""

    said: ModelArguments
    rows: SummedRows

    @classmethod
    def of(cls, model: FittedModel) -> AddedUp:
        """Errors: SpecificationError where V depends on more of a subject than its visits."""
        if isinstance(model.design, PartitionedDesign):
            return cls(model.said, model.design.summed)
        beside = model.stored()[1]
        given = {name: column for name, column in (("weights", GIVEN_WEIGHTS), ("offset", GIVEN_OFFSET)) if name in beside}
        said = replace(model.said, **cast(Any, given))
        columns = {column: np.asarray(beside[name]) for name, column in given.items()}
        return cls(said, sum_design(model.design, said.spec(), columns, **_known(said)))

    def problem(self) -> Problem:
        """The problem of the sums."""
        return problem_of_sums(self.said.spec(), self.rows, **_known(self.said))


def _known(said: ModelArguments) -> dict[str, Any]:
    """What a model knows beside its spec and its rows."""
    arrays = said.arrays()
    return {name: arrays[name] for name in ("relationship", "functions")}


def stored_model(model: FittedModel, arrays: Arrays, summed: AddedUp | None = None) -> dict[str, Any]:
    """A model as it was said, as JSON values and arrays, with its rows; with their sums where these are given or it has no rows."""
    said, beside = model.stored()
    design = model.design
    if isinstance(design, PartitionedDesign):
        summed = AddedUp.of(model)
    if summed is not None:
        said |= {"weights": summed.said.weights, "offset": summed.said.offset}
        beside = {name: value for name, value in beside.items() if isinstance(value, pd.DataFrame)}
    content: dict[str, Any] = {
        "said": to_json(said),
        "beside": {
            name: store_frame(value, f"beside/{name}", arrays) if isinstance(value, pd.DataFrame) else None
            for name, value in beside.items()
        },
    }
    if summed is not None:
        return content | {"sums": store_sums(summed.rows, arrays)}
    content |= {
        "frame": store_frame(design.frame, "frame", arrays),
        "index": store_index(design.index, "index", arrays),
        "labelled": design.labelled,
        "rows": [design.n_read, to_json(dict(design.dropped))],
        "coefficients": list(design.coef_names),
        "notes": to_json(list(design.notes)),
    }
    for name, value in beside.items():
        if not isinstance(value, pd.DataFrame):
            arrays[f"beside/{name}"] = np.asarray(value, float)
    arrays["rows"], arrays["y"], arrays["X"] = design.rows, design.y, design.X
    places = None if design.residual is None else row_places(design.residual)
    if places is not None:
        arrays["places"] = places
    return content


def weighting_fitted_values(problem: Problem) -> Array | None:
    """The fitted values that the variance function was given, where it has any."""
    if problem.structured is None:
        return None
    factors = zip(problem.design.variance, problem.structured.variance.values, strict=True)
    return next((values for factor, values in factors if factor.covariate is None and factor.kind != "ident"), None)


def _store_estimate(estimate: Estimate, arrays: Arrays) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for field in fields(estimate):
        value = getattr(estimate, field.name)
        if field.name == "elapsed":
            continue  # equal fits are equal files
        if field.name == "path":
            # a search for the posterior mode has the prior's axes too
            arrays["path/x"] = np.array([x for x, _ in value]) if value else np.zeros((0, len(estimate.x)))
            arrays["path/value"] = np.array([v for _, v in value], float)
        elif isinstance(value, np.ndarray):
            arrays[f"estimate/{field.name}"] = value
        else:
            plain[field.name] = to_json(value)
    return plain


def open_estimate(plain: dict[str, Any], arrays: Arrays) -> Estimate:
    """The estimates of a saved fit."""
    values: dict[str, Any] = {"elapsed": math.nan} | {name: from_json(value) for name, value in plain.items()}
    values |= {name.removeprefix("estimate/"): freeze(array) for name, array in arrays.items() if name.startswith("estimate/")}
    values["path"] = tuple(zip(map(freeze, arrays["path/x"]), map(float, arrays["path/value"]), strict=True))
    return Estimate(**values)


def open_design(design: Design, content: dict[str, Any], arrays: Arrays) -> Design:
    """The design built again of the rows used, with its place in the data as read.

    Errors: MismatchError where this package makes other columns of the same rows.
    """
    y = freeze(arrays["y"])
    if list(design.coef_names) != content["coefficients"] or not _columns_agree(design.X, arrays["X"]):
        raise MismatchError(
            "this version of the package makes other columns of the saved rows",
            f"coefficients saved: {', '.join(content['coefficients'][:6])}",
            "fit the model again",
        )
    if len(y) != design.nobs or len(arrays["rows"]) != design.nobs:
        raise FormatError("the rows of the file have different lengths", "rows", "save the fit again")
    n_read, dropped = content["rows"]
    return replace(
        design,
        y=y,
        X=freeze(arrays["X"]),
        rows=readonly(arrays["rows"]),
        n_read=n_read,
        n_dropped=n_read - design.nobs,
        dropped=from_json(dropped),
        index=open_index(content["index"], "index", arrays),
        labelled=content.get("labelled", True),
        notes=tuple(from_json(content["notes"])),
        unidentified=(),
    )


def _columns_agree(X: Array, stored: Array) -> bool:
    """Whether two machines would call the columns the same: splines and polynomials differ in the last digits."""
    return X.shape == stored.shape and bool(np.allclose(X, stored, rtol=1e-9, atol=1e-9 * float(np.abs(stored).max(initial=0.0))))


def require_same_estimates(problem: Problem, estimate: Estimate, path: str) -> None:
    """Raise unless what follows from the rows and x is what is stored: shapes, and for REML and ML every estimate; MAP has priors as well.

    Errors: FormatError for another shape, MismatchError for other numbers.
    """
    p, size = len(problem.design.kept), problem.size
    shapes = {"x": (size,), "theta": problem.theta(problem.start).shape, "alpha": (p,), "vcov": (p, p), "gradient": (size,)}
    values = {"x": estimate.x, "theta": estimate.theta, "alpha": estimate.alpha, "vcov": estimate.vcov, "gradient": estimate.gradient}
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise FormatError(f"{name} has shape {values[name].shape}, the model {shape}", path, "fit the model again")
    if estimate.method not in ("REML", "ML"):
        return
    again = estimates_at(problem, problem.criterion.at(estimate.x, estimate.restricted))
    for name, stored, value, allowed in _compared(estimate, again):
        if not np.all(np.abs(np.asarray(stored) - np.asarray(value)) <= allowed):
            what = f"{name} of the saved fit is {_listed(stored)}; evaluated again it is {_listed(value)}"
            raise MismatchError(what, path, "fit the model again")


def _compared(stored: Estimate, again: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, Any]]:
    """Estimates with the same evaluated again, and the difference that is allowed: in standard errors for coefficients."""
    errors, share = np.sqrt(np.diagonal(again["vcov"])), ESTIMATE_AGREEMENT
    yield "the criterion", stored.criterion, again["criterion"], CRITERION_AGREEMENT * max(1.0, abs(again["criterion"]))
    yield "sigma", stored.sigma, again["sigma"], share * again["sigma"]
    yield "theta", stored.theta, again["theta"], share * np.maximum(1.0, np.abs(again["theta"]))
    yield "alpha", stored.alpha, again["alpha"], share * errors
    yield "vcov", stored.vcov, again["vcov"], share * np.outer(errors, errors)


def _listed(value: Any) -> str:
    return ", ".join(f"{number:.6g}" for number in np.ravel(value)[:6])


# -- rows that were added up in parts ------------------------------------------------------------------------------------------------------


def store_sums(rows: SummedRows, arrays: Arrays) -> dict[str, Any]:
    """Put sums into `arrays`; what else is needed is returned."""
    survey, moments = rows.survey, rows.moments
    roster = survey.roster().table.frame
    cells = None if survey.cells is None else survey.cells.rename(columns={COUNT: str(COUNT)})
    assert rows.spanning.frame is not None and rows.spanning.X is not None
    for name, triangles in (("blocks", moments.blocks), ("plain_blocks", moments.plain_blocks)):
        for i, block in enumerate(triangles):
            _store_triangle(block, f"sums/{name}/{i}", arrays)
    _store_triangle(moments.columns, "sums/columns", arrays)
    _store_triangle(moments.plain_columns, "sums/plain_columns", arrays)
    for i, own in enumerate(moments.sums.values()):
        arrays[f"sums/variables/{i}"] = own
    total = rows.sums.sums
    arrays["sums/Xy"] = total.Xy
    for f, (diagonal, with_Xy) in enumerate(zip(total.diagonal, total.with_Xy, strict=True)):
        arrays[f"sums/diagonal/{f}"], arrays[f"sums/with_Xy/{f}"] = diagonal, with_Xy
    for (f, g), lines in total.pairs.items():
        for a, line in enumerate(lines):
            for b, pairs in enumerate(line):
                row, column, values = pairs.entries()
                arrays[f"sums/pairs/{f}/{g}/{a}/{b}/row"], arrays[f"sums/pairs/{f}/{g}/{a}/{b}/column"] = row, column
                arrays[f"sums/pairs/{f}/{g}/{a}/{b}/values"] = values
    alike = [list(pair) for pair, partner in rows.coinciding.partners.items() if partner is not None]
    arrays["sums/spanning"] = rows.spanning.X
    return {
        "roster": [store_frame(roster, "sums/roster", arrays), len(roster)],
        "cells": None if cells is None else [store_frame(cells, "sums/cells", arrays), len(cells)],
        "spanning": [store_frame(rows.spanning.frame, "sums/spanning_frame", arrays), len(rows.spanning.frame)],
        "counts": [survey.read, survey.kept, total.n],
        "dropped": dict(survey.dropped),
        "ranges": {name: [r.total, r.low, r.high, r.integer, _sorted_values(r.values)] for name, r in survey.ranges.items()},
        "weights": [survey.weights, survey.log_weights, survey.inverse_weights, rows.scale],
        "variables": list(moments.sums),
        "response": [moments.largest, moments.left, moments.low, moments.high],
        "blocks": len(moments.blocks),
        "alike": alike,
        "states": {name: _stored_state(state) for name, state in rows.states.items()},
        "notes": None if rows.notes is None else to_json(list(rows.notes)),
        "patterns": None if rows.patterns is None else _store_patterns(rows.patterns, arrays),
    }


def open_sums(spec: ModelSpec, content: Mapping[str, Any], arrays: Arrays, known: Mapping[str, Any]) -> SummedRows:
    """The sums that `store_sums` put away. known : relationship matrices and functions of the model"""
    told = content
    states = {name: _opened_state(state) for name, state in told.get("states", {}).items()}
    learning = Learning.of(spec, known["relationship"], known["functions"], states)
    survey = FirstPass.of(spec, learning.asked)
    survey.shown = [_frame(told["roster"], "sums/roster", arrays)]
    survey.read, survey.kept, n = (int(count) for count in told["counts"])
    survey.dropped = {name: int(count) for name, count in told["dropped"].items()}
    survey.ranges = {
        name: ColumnRange(total, low, high, bool(integer), None if values is None else frozenset(values))
        for name, (total, low, high, integer, values) in told["ranges"].items()
    }
    survey.weights, survey.log_weights, survey.inverse_weights, scale = (float(value) for value in told["weights"])
    survey.cells = None if told["cells"] is None else _frame(told["cells"], "sums/cells", arrays).rename(columns={str(COUNT): COUNT})
    moments = ColumnMoments(
        _triangle("sums/columns", arrays),
        [_triangle(f"sums/blocks/{i}", arrays) for i in range(told["blocks"])],
        _triangle("sums/plain_columns", arrays),
        [_triangle(f"sums/plain_blocks/{i}", arrays) for i in range(told["blocks"])],
        {key: arrays[f"sums/variables/{i}"] for i, key in enumerate(told["variables"])},
        *(float(value) for value in told["response"]),
    )
    learnt = learning.learnt(survey)
    design, standardization = template_of(learning, survey, learnt, moments, scale)
    factors = factors_of(design)
    total = empty_sums(factors, [factor.K for factor in factors], len(design.kept) + 1, standardization)
    total.n, total.Xy = n, arrays["sums/Xy"].copy()
    for f in range(len(factors)):
        total.diagonal[f], total.with_Xy[f] = arrays[f"sums/diagonal/{f}"].copy(), arrays[f"sums/with_Xy/{f}"].copy()
    for (f, g), lines in total.pairs.items():
        for a, line in enumerate(lines):
            for b, pairs in enumerate(line):
                row, column, values = (arrays[f"sums/pairs/{f}/{g}/{a}/{b}/{part}"] for part in ("row", "column", "values"))
                pairs.add(row, column, values)
    sums = SumsByLevel(factors, tuple(np.arange(factor.K) for factor in factors), total)
    alike = CoincidingFactors({(a, b): np.zeros(0, np.int64) for a, b in told["alike"]})
    spanning = SpanningRows(
        design.encoding.fixed_block.columns, arrays["sums/spanning"], _frame(told["spanning"], "sums/spanning_frame", arrays), True
    )
    notes = None if told.get("notes") is None else tuple(from_json(told["notes"]))
    patterns = None if told.get("patterns") is None else _open_patterns(spec, told["patterns"], arrays)
    return SummedRows(survey, moments, scale, sums, alike, spanning, states, notes, patterns, (learnt, design, standardization))


def _store_patterns(patterns: VisitPatterns, arrays: Arrays) -> dict[str, Any]:
    """Put sums by pattern of visits into `arrays`; what else is needed is returned."""
    for i, batch in enumerate(patterns.batches):
        assert batch.block.place is not None
        named = {"count": batch.count, "G": batch.G, "place": batch.block.place, "group": batch.block.group}
        arrays |= {f"sums/patterns/{i}/{name}": values for name, values in named.items()}
    arrays["sums/patterns/start"] = patterns.start
    residual = patterns.residual
    factors = {name: factor for name, factor in (("subject", residual.subject), ("group", residual.group)) if factor is not None}
    return {
        "batches": len(patterns.batches),
        "numeric": residual.coords is not None,
        "visits": to_json([residual.visit_levels, residual.missing_visits, residual.positions, residual.axes]),
        **{name: to_json([factor.name, factor.levels.tolist(), list(factor.columns)]) for name, factor in factors.items()},
    }


def _open_patterns(spec: ModelSpec, told: Mapping[str, Any], arrays: Arrays) -> VisitPatterns:
    """The inverse of `_store_patterns`."""
    term, nowhere = spec.residual, np.zeros(0, np.int64)
    assert term is not None
    factors = {}
    for key in ("subject", "group"):
        if key in told:
            name, labels, columns = from_json(told[key])
            levels = np.empty(len(labels), dtype=object)
            levels[:] = labels
            factors[key] = GroupingFactor(name, levels, nowhere, tuple(columns))
    levels_of, missing, positions, axes = from_json(told["visits"])
    batches = []
    for i in range(told["batches"]):
        count, G, place, group = (arrays[f"sums/patterns/{i}/{name}"] for name in ("count", "G", "place", "group"))
        batches.append(PooledBatch(count, G, BlockRows(place, None, group, None)))
    residual = ResidualDesign(
        spec=term,
        subject=factors["subject"],
        visit=nowhere,
        visit_levels=levels_of,
        coords=np.zeros((0, 1)) if told["numeric"] else None,
        group=factors.get("group"),
        name=term.structure,
        order=term.order,
        nugget=term.nugget,
        missing_visits=missing,
        positions=positions,
        axes=axes,
    )
    return VisitPatterns(tuple(batches), without_codes(residual), arrays["sums/patterns/start"])


def _stored_state(value: Any) -> Any:
    """What a transform remembers as JSON values; an array stays one."""
    if isinstance(value, Mapping):
        return {"mapping": [[to_json(key), _stored_state(item)] for key, item in value.items()]}
    return {"array": to_json(value)} if isinstance(value, np.ndarray) else to_json(value)


def _opened_state(value: Any) -> Any:
    """The inverse of `_stored_state`."""
    if isinstance(value, dict) and set(value) == {"mapping"}:
        return {from_json(key): _opened_state(item) for key, item in value["mapping"]}
    return np.asarray(from_json(value["array"])) if isinstance(value, dict) and set(value) == {"array"} else from_json(value)


def _sorted_values(values: frozenset[float] | None) -> list[float] | None:
    return None if values is None else sorted(values)


def _frame(told: Any, name: str, arrays: Arrays) -> pd.DataFrame:
    return open_frame(told[0], name, arrays, int(told[1]))


def _store_triangle(triangle: IncrementalQR, name: str, arrays: Arrays) -> None:
    if triangle.R is not None and triangle.origin is not None:
        arrays[f"{name}/R"], arrays[f"{name}/origin"] = triangle.R, triangle.origin


def _triangle(name: str, arrays: Arrays) -> IncrementalQR:
    return IncrementalQR(arrays[f"{name}/origin"], arrays[f"{name}/R"]) if f"{name}/R" in arrays else IncrementalQR()
