"""The columns of Z as SAS lists them, where each is in our terms, and known matrices among them from the data sets of GDATA= and LDATA=.

A matrix stands in one of two forms: `row, col, value`, what is not named being 0; or `row, col1, ..., coln`. LDATA= has `parm` beside, the
number of the matrix. Rows and columns are numbered as SAS orders the columns of Z: by the levels of the effect, over all rows read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import require_mapping
from bayeslmm.data.design import Design, RandomTerm
from bayeslmm.errors import DataError, SpecificationError
from bayeslmm.sas.glm_coding import format_level, glm_columns
from bayeslmm.sas.language.covariance_types import VC
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.translation import CovBlock, RandomEffect, Translation
from bayeslmm.sas_results.rows import ProgramRows, combine_classes, whole_frame_of


@dataclass(frozen=True, slots=True)
class RandomColumn:
    """One random coefficient.

    labels : class variable of the effect -> level; subject : "Person 1", "" without SUBJECT=
    term, level, column : position of the term, of the level of its grouping factor, of the column within the level
    block : position of its covariance block
    """

    effect: GLMEffect
    labels: Mapping[str, str]
    subject: str
    term: int
    level: int
    column: int
    block: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A column of a structure: its effect, its levels, its position among the columns of the term."""

    effect: GLMEffect
    labels: Mapping[str, str]
    column: int


def structure_orders(translation: Translation, rows: ProgramRows, design: Design) -> dict[int, Codes]:
    """Term -> positions of SAS's columns among those of the term, for structures over several columns."""
    found = {}
    for number, block in enumerate(translation.blocks):
        if block.statement == "random" and block.type != VC and not block.type.known:
            places = _places(translation, number, rows, design)
            found[block.terms[0]] = np.array([place.column for place in places], dtype=np.int64)
    return found


def sas_random_columns(translation: Translation, rows: ProgramRows, design: Design) -> tuple[RandomColumn, ...]:
    """All of them, statement by statement."""
    found: list[RandomColumn] = []
    begin = 0
    blocks = [block for block in translation.blocks if block.statement == "random"]
    while begin < len(blocks):
        # the blocks of one statement with SUBJECT= are listed together, subject by subject
        end = begin + 1
        while end < len(blocks) and blocks[begin].subject and _is_same_block(blocks[begin], blocks[end]):
            end += 1
        parts = [list(_of_block(translation, number, rows, design)) for number in range(begin, end)]
        merged = [column for part in parts for column in part]
        if blocks[begin].subject:
            order = {subject: k for k, subject in enumerate(_subjects_in_order(merged))}
            merged.sort(key=lambda column: order[column.subject])
        found += merged
        begin = end
    return tuple(found)


def _is_same_block(one: CovBlock, other: CovBlock) -> bool:
    return one.subject == other.subject and one.type == other.type and one.group == other.group


def _subjects_in_order(columns: list[RandomColumn]) -> list[str]:
    first = {column.subject: column.level for column in reversed(columns)}
    return sorted(first, key=lambda subject: first[subject])


def _of_block(translation: Translation, number: int, rows: ProgramRows, design: Design) -> Iterator[RandomColumn]:
    block = translation.blocks[number]
    term = design.terms[block.terms[0]]
    effect = _effects(translation, block)[0]
    first = np.zeros(term.group.size, dtype=np.int64)
    first[term.group.codes[::-1]] = np.arange(design.nobs)[::-1]
    subject = [_label(rows, design, effect.subject, i, block.subject) for i in first.tolist()]
    if block.type == VC or block.type.known:
        present = np.bincount(term.group.codes, (term.Z[:, 0] != 0).astype(float), term.group.size) > 0
        for k, i in enumerate(first.tolist()):
            if present[k] or effect.effect.continuous:
                yield RandomColumn(
                    effect.effect,
                    {name: _level(rows, design, name, i) for name in effect.effect.classes},
                    subject[k],
                    block.terms[0],
                    k,
                    0,
                    number,
                )
        return
    places = _places(translation, number, rows, design)
    inside = np.bincount(term.group.codes, np.abs(term.Z).sum(axis=1), term.group.size) > 0
    for k in range(term.group.size):
        if inside[k]:
            for place in places:
                yield RandomColumn(place.effect, place.labels, subject[k], block.terms[0], k, place.column, number)


def _effects(translation: Translation, block: CovBlock) -> list[RandomEffect]:
    return [random for random in translation.random if random.term == block.terms[0]]


def _label(rows: ProgramRows, design: Design, names: tuple[str, ...], row: int, text: str) -> str:
    """`Person 1`: the subject as it is printed."""
    return f"{text} {' '.join(_level(rows, design, name, row) for name in names)}" if names else ""


def _level(rows: ProgramRows, design: Design, name: str, row: int) -> str:
    at = int(design.rows[row])
    if name in rows.classes:
        found = rows.classes[name]
        return str(found.levels[found.codes[at]])
    return format_level(rows.data[name].iloc[at])


def _places(translation: Translation, number: int, rows: ProgramRows, design: Design) -> list[_Place]:
    """The columns of a structure in SAS's order, each found among the columns of the term by its values."""
    block = translation.blocks[number]
    term = design.terms[block.terms[0]]
    factor = _indicator(block, rows, design)
    found = []
    for random in _effects(translation, block):
        effect = random.effect
        covariates = {name: rows.frame[name].to_numpy(np.float64)[design.rows] for name in effect.continuous}
        classes = {name: rows.at(name) for name in effect.classes}
        layout = glm_columns([effect], classes, covariates, design.nobs, intercept=effect == GLMEffect())
        for j, column in enumerate(layout.columns):
            labels = dict(zip(effect.classes, column.labels, strict=True))
            found.append(_Place(effect, labels, _match(term, layout.X[:, j] * factor)))
    return found


def _indicator(block: CovBlock, rows: ProgramRows, design: Design) -> Array:
    if not block.group:
        return np.ones(design.nobs)
    return rows.frame[f"{block.group}={block.level}"].to_numpy(np.float64)[design.rows]


def _match(term: RandomTerm, values: Array) -> int:
    scale = max(float(np.abs(values).max(initial=0.0)), 1e-300)
    gap = np.abs(term.Z - values[:, None]).max(axis=0) / scale
    if gap.min(initial=np.inf) > 1e-9:
        raise DataError(f"a column of the random effects is not found in ({term.spec.text})", remedy="give each effect a RANDOM statement")
    return int(np.argmin(gap))


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
