"""The columns of Z as SAS lists them: subject by subject, effect by effect, level by level; and where each is in our terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.design import Design, RandomTerm
from bayeslmm.errors import DataError
from bayeslmm.sas.glm_coding import format_level, glm_columns
from bayeslmm.sas.language.covariance_types import VC
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.translation import CovBlock, RandomEffect, Translation
from bayeslmm.sas_results.rows import ProgramRows


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
                yield RandomColumn(effect.effect, _labels(rows, design, effect.effect, i), subject[k], block.terms[0], k, 0, number)
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


def _labels(rows: ProgramRows, design: Design, effect: GLMEffect, row: int) -> dict[str, str]:
    return {name: _level(rows, design, name, row) for name in effect.classes}


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
