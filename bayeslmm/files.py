"""`read_model` and `LMM.write`: models in spec files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bayeslmm.data import load_dataset
from bayeslmm.errors import SpecificationError, StoreError
from bayeslmm.model import LMM
from bayeslmm.results.rows import whole_frame
from bayeslmm.spec import SpecFile, read_spec, write_spec


def read_model(path: str | Path, data: Any = None, relationship: Mapping[str, Any] | None = None) -> LMM:
    """The model of a spec file (TOML).

    data : a frame, in place of the data that the file names; needed where it names none
    relationship : grouping factor -> labelled frame, in place of the files that it names

    Raises SpecificationError with file and key path.

    >>> model.write("sleepstudy.toml"); blm.read_model("sleepstudy.toml", sleepstudy).nobs
    180
    """
    file = read_spec(path)
    frame = _factored(_data(file) if data is None else data, file)
    given = dict(relationship or {})
    matrices = {group: given[group] if group in given else _matrix(file, group) for group in file.spec.relationship}
    model = LMM.from_spec(file.spec, frame, counting=file.dialect, relationship=matrices or None)
    model.file = file if data is None else replace(file, data=None)
    return model


def write_model(model: LMM, path: str | Path) -> None:
    """Write the spec of a model. Raises StoreError for what a file cannot say: arrays, matrices, functions given in Python."""
    told, said = model.file, model.said
    beside = {"weights": said.weights, "offset": said.offset}
    for name, given in beside.items():
        if given is not None and not isinstance(given, str):
            raise StoreError(f"a file cannot hold {name} given as an array", name, "put them into the data as a column and name it")
    if told is not None and told.spec == model.spec:
        write_spec(path, replace(told, path=None))
        return
    write_spec(path, SpecFile(model.spec, dialect=model.counting))


def _data(file: SpecFile) -> pd.DataFrame:
    source = file.data
    if source is not None and source.name is not None:
        return load_dataset(source.name)
    if source is not None and source.file is not None:
        return _table(file.read_data(), source.file, f"{file.path}, data.file")
    raise SpecificationError("the file names no data", str(file.path or "spec"), "give read_model(path, data=...)")


def _table(content: bytes, name: str, where: str) -> pd.DataFrame:
    separator = "\t" if name.lower().endswith((".tsv", ".tab")) else ","
    try:
        return pd.read_csv(io.BytesIO(content), sep=separator)
    except (ValueError, UnicodeDecodeError) as error:
        raise SpecificationError(f"{name!r} is no table: {error}", where, "give a CSV file with a line of names") from None


def _matrix(file: SpecFile, group: str) -> pd.DataFrame:
    name = dict(file.relationship_files).get(group, "")
    frame = _table(file.read_relationship(group), name, f"{file.path}, model.relationship.{group}")
    matrix = frame.set_index(frame.columns[0])
    return matrix.set_axis(matrix.index, axis=1) if [str(label) for label in matrix.index] == list(matrix.columns) else matrix


def _factored(data: Any, file: SpecFile) -> Any:
    """The data with the columns of the table `[factors]` as categories."""
    if not file.factors:
        return data
    frame = whole_frame(data)
    columns = {}
    for column, levels in file.factors:
        if column not in frame.columns:
            raise SpecificationError(f"the data have no column {column!r}", f"{file.path}, factors.{column}", "name a column of the data")
        columns[column] = _factor(frame[column], levels, f"{file.path}, factors.{column}")
    return frame.assign(**columns)


def _factor(values: pd.Series[Any], levels: Sequence[Any] | None, where: str) -> Any:
    if levels is None:
        return values if isinstance(values.dtype, pd.CategoricalDtype) else values.astype("category")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    found = pd.Categorical(values, categories=list(levels))
    lost = values[pd.isna(found) & values.notna().to_numpy()]
    if len(lost):
        shown = ", ".join(repr(label) for label in lost.unique()[:8])
        raise SpecificationError(f"the data have levels that the file does not list: {shown}", where, "list every level")
    return found
