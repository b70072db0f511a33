"""Known matrices of random effects, read from the data sets of GDATA= and LDATA=.

A matrix stands in one of two forms: `row, col, value`, what is not named being 0; or `row, col1, ..., coln`. LDATA= has `parm` beside, the
number of the matrix. Rows and columns are numbered as SAS orders the columns of Z: by the levels of the effect, over all rows read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._validation import require_mapping
from bayeslmm.errors import DataError, SpecificationError
from bayeslmm.sas.translation import CovBlock, Translation
from bayeslmm.sas_results.rows import ProgramRows, combine_classes, whole_frame_of


def named_data_sets(data_sets: Mapping[str, Any] | None) -> dict[str, pd.DataFrame]:
    """Frames by their names in lower case, the columns in lower case too."""
    found = {}
    for name, frame in require_mapping(data_sets, "data_sets", "{'a': frame}").items():
        read = whole_frame_of(frame)
        found[str(name).lower().removeprefix("work.")] = read.set_axis([str(column).lower() for column in read.columns], axis=1)
    return found


def known_matrices(translation: Translation, rows: ProgramRows, data_sets: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Column of the levels -> the labelled matrix among them, for every random effect that has one."""
    blocks = [block for block in translation.blocks if block.data_set]
    levels = {block.levels: _levels(translation, rows, block) for block in blocks}
    whole = [block for block in blocks if block.type.name != "LIN"]
    found = {}
    if whole:
        sizes = [len(levels[block.levels]) for block in whole]
        ends = np.cumsum(sizes)
        G = _matrix(_data_set(whole[0].data_set, data_sets), whole[0].data_set, int(ends[-1]))
        inside = np.zeros(G.shape, bool)
        for block, end, size in zip(whole, ends.tolist(), sizes, strict=True):
            own = slice(end - size, end)
            inside[own, own] = True
            found[block.levels] = _label_matrix(G[own, own], levels[block.levels])
        if np.any(G[~inside] != 0.0):
            what = "the G of GDATA= has covariances between the columns of different effects"
            raise SpecificationError(what, whole[0].data_set, "make one effect of them: random trait*animal / gdata=g")
    for block in blocks:
        if block.type.name == "LIN":
            frame, size = _data_set(block.data_set, data_sets), len(levels[block.levels])
            if "parm" not in frame.columns:
                raise DataError("LDATA= has no column parm", block.data_set, "number the matrices: parm = 1, 2, ..., in every row")
            part = frame[_numbers(frame, "parm", block.data_set) == block.type.order]
            if part.empty:
                raise DataError(f"LDATA= has no matrix {block.type.order}", block.data_set, "parm counts from 1 to the q of TYPE=LIN(q)")
            found[block.levels] = _label_matrix(_matrix(part, block.data_set, size), levels[block.levels])
    return found


def _levels(translation: Translation, rows: ProgramRows, block: CovBlock) -> tuple[str, ...]:
    columns = next(derived.of for derived in translation.derived if derived.name == block.levels)
    return combine_classes(block.levels, [rows.classes[name] for name in columns]).levels


def _label_matrix(matrix: Array, labels: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(matrix, index=list(labels), columns=list(labels))


def _data_set(name: str, data_sets: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    found = data_sets.get(name.lower().removeprefix("work."))
    if found is None:
        names = f"; data_sets has {', '.join(data_sets)}" if data_sets else ""
        raise DataError(
            f"the program reads the data set {name}, which is not given{names}", name, f"proc_mixed(..., data_sets={{{name!r}: frame}})"
        )
    return found


def _numbers(frame: pd.DataFrame, name: str, where: str) -> Array:
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"the column {name} of a known matrix has a value that is no number", where, "fill it")
    return values


def _matrix(frame: pd.DataFrame, where: str, size: int) -> Array:
    """A symmetric matrix of `size` rows; an element of which only the mirror image is named is that."""
    if "row" not in frame.columns:
        raise DataError("the data set of a known matrix has no column row", where, "row, col, value; or row, col1, col2, ...")
    places = _numbers(frame, "row", where)
    if {"col", "value"} <= set(frame.columns):
        columns, values = _numbers(frame, "col", where), _numbers(frame, "value", where)
    else:
        names = [f"col{k + 1}" for k in range(size)]
        absent = [name for name in names if name not in frame.columns]
        if absent:
            what = f"the known matrix has no column {absent[0]}: the effect has {size} levels"
            raise DataError(what, where, "row, col, value; or row and a column for each level")
        values = np.stack([_numbers(frame, name, where) for name in names], axis=1).ravel()
        places, columns = np.repeat(places, size), np.tile(np.arange(1.0, size + 1.0), len(frame))
    for numbers in (places, columns):
        if np.any((numbers != np.round(numbers)) | (numbers < 1) | (numbers > size)):
            raise DataError(
                f"row and col of a known matrix go from 1 to the {size} levels of the effect",
                where,
                "levels are counted as SAS orders them",
            )
    named, found = np.zeros((size, size), bool), np.zeros((size, size))
    at = (places.astype(np.int64) - 1, columns.astype(np.int64) - 1)
    found[at], named[at] = values, True
    return np.where(named, found, found.T)
