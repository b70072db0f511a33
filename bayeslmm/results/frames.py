"""Frames as plain arrays and JSON: numbers as they are, labels as codes and a list."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.errors import StoreError
from bayeslmm.results.plain import told, untold

Arrays = dict[str, NDArray[Any]]


def store_series(series: pd.Series[Any], name: str, arrays: Arrays) -> dict[str, Any]:
    """Put the values of a column into `arrays` under `name`; what else is needed is returned."""
    dtype: Any = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        series = series.convert_dtypes(dtype_backend="numpy_nullable")
        dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufc":
        arrays[name] = series.to_numpy()
        return {"kind": "numbers"}
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        arrays[name] = series.to_numpy().view(np.int64)
        return {"kind": "times", "dtype": dtype.str}
    if isinstance(dtype, pd.CategoricalDtype):
        arrays[name] = np.asarray(series.cat.codes)
        categories = {"text": isinstance(dtype.categories.dtype, pd.StringDtype), "labels": told(dtype.categories.tolist())}
        return {"kind": "categories", "ordered": bool(dtype.ordered), **categories}
    if isinstance(dtype, pd.StringDtype) or pd.api.types.is_object_dtype(dtype):
        codes, labels = pd.factorize(series, use_na_sentinel=True)
        arrays[name] = codes
        return {"kind": "labels", "text": isinstance(dtype, pd.StringDtype), "labels": told(list(labels))}
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and getattr(dtype, "kind", "O") in "biuf":
        arrays[f"{name}/missing"] = series.isna().to_numpy()
        arrays[name] = series.fillna(0).to_numpy(
            dtype=np.dtype(dtype.kind + str(getattr(dtype, "itemsize", 8))) if dtype.kind != "b" else np.bool_
        )
        return {"kind": "nullable", "dtype": str(dtype)}
    raise StoreError(f"a column of {dtype} cannot be stored", name, "convert it to numbers, text or categories before fitting")


def open_series(told_of: dict[str, Any], name: str, arrays: Arrays) -> Any:
    """The values that `store_series` put away."""
    values, kind = arrays[name], told_of["kind"]
    if kind == "numbers":
        return values
    if kind == "times":
        return values.view(np.dtype(told_of["dtype"]))
    if kind == "nullable":
        missing = arrays[f"{name}/missing"]
        return pd.Series(values).astype(told_of["dtype"]).mask(missing).array
    labels = untold(told_of["labels"])
    if kind == "categories":
        categories = pd.Index(labels, dtype="str") if told_of["text"] else pd.Index(labels)
        return pd.Categorical.from_codes(values, categories=categories, ordered=told_of["ordered"])
    table = np.empty(len(labels) + 1, dtype=object)
    table[:-1] = labels
    table[-1] = None
    return pd.array(table[values], dtype="str") if told_of["text"] else table[values]


def store_index(index: pd.Index[Any], name: str, arrays: Arrays) -> dict[str, Any]:
    """An index, of several levels too."""
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "names": told(list(index.names))}
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    parts = [store_series(pd.Series(level.array), f"{name}/{i}", arrays) for i, level in enumerate(levels)]
    return {"levels": parts, "several": isinstance(index, pd.MultiIndex), "names": told(list(index.names))}


def open_index(told_of: dict[str, Any], name: str, arrays: Arrays) -> pd.Index[Any]:
    """The index that `store_index` put away."""
    names = untold(told_of["names"])
    if "range" in told_of:
        start, stop, step = told_of["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    levels = [open_series(part, f"{name}/{i}", arrays) for i, part in enumerate(told_of["levels"])]
    return pd.MultiIndex.from_arrays(levels, names=names) if told_of["several"] else pd.Index(levels[0], name=names[0])


def store_frame(frame: pd.DataFrame, name: str, arrays: Arrays) -> dict[str, Any]:
    """The columns of a frame, without its index."""
    columns = [[told(column), store_series(frame[column], f"{name}/{i}", arrays)] for i, column in enumerate(frame.columns)]
    return {"columns": columns}


def open_frame(told_of: dict[str, Any], name: str, arrays: Arrays, rows: int) -> pd.DataFrame:
    """The frame that `store_frame` put away, rows numbered from 0."""
    columns = {untold(column): open_series(part, f"{name}/{i}", arrays) for i, (column, part) in enumerate(told_of["columns"])}
    return pd.DataFrame(columns, index=pd.RangeIndex(rows))
