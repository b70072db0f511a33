"""One partition as the model reads it: checked columns, the rows kept, what was dropped; and its rows as a design."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.data.blocks import Block
from bayeslmm.data.design import Design
from bayeslmm.data.encoding import Encoding
from bayeslmm.data.frame import read_table
from bayeslmm.data.plan import Plan
from bayeslmm.data.rows import left_rows
from bayeslmm.data.source import Columns
from bayeslmm.data.weights import read_weights
from bayeslmm.errors import DataError, NonFiniteError
from bayeslmm.scale.partitions import Partitions
from bayeslmm.spec.model import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The rows kept of one partition.

    number : counts from 1; source : its columns over the rows kept; read : rows that it has; dropped : column -> rows that it cost
    """

    number: int
    source: Columns
    read: int
    dropped: dict[str, int]
    weights: Array | None

    def __len__(self) -> int:
        return len(self.source)


def parts(partitions: Partitions, spec: ModelSpec, asked: Plan) -> Iterator[Part]:
    """The partitions, one after the other, each checked as a frame in memory is.

    Errors: those of `build_design` for columns and rows, with the number of the partition.
    """
    for number, frame in enumerate(partitions.frames(asked.columns), start=1):
        with within(number):
            yield _part(number, frame, spec, asked)


def _part(number: int, frame: object, spec: ModelSpec, asked: Plan) -> Part:
    table = read_table(frame, asked.columns)
    source = Columns(table)
    weights = read_weights(spec.weights, None, source)
    kept = left_rows(source, asked.roles(source), {}, weights, spec.weights or "weights", spec.missing)
    source.rows = kept.positions
    if kept.positions is not None and weights is not None:
        weights = weights[kept.positions]
    return Part(number, source, len(table), kept.dropped, weights)


@contextmanager
def within(number: int) -> Iterator[None]:
    """What is wrong with the data is wrong in this partition."""
    try:
        yield
    except DataError as error:
        where = f"partition {number}" + (f": {error.where}" if error.where and not error.where.startswith("partition") else "")
        raise type(error)(error.what, where, error.remedy) from None


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Columns of one part: X over all coefficients, Z of every term, the response less its offset.

    y : the response as given; shift : the offset, or None; root : roots of the weights, or None
    """

    y: Array
    X: Array
    Zs: tuple[Array, ...]
    shift: Array | None
    weights: Array | None

    @property
    def root(self) -> Array | None:
        """Roots of the weights."""
        return None if self.weights is None else np.sqrt(self.weights)

    @property
    def border(self) -> Array:
        """[X, y - offset], (n, p + 1)."""
        return np.column_stack([self.X, self.y if self.shift is None else self.y - self.shift])


def encode(part: Part, encoding: Encoding, scale: float = 1.0) -> Encoded:
    """The columns of a part. scale : what the weights are divided by.

    Errors: PredictionError for a level of a factor that the encoding has not learnt, NonFiniteError for a column that is not finite.
    """
    source, blocks = part.source, {}
    for block in (encoding.fixed_block, *(coder.block for coder in encoding.random_coders)):
        if id(block) not in blocks:
            blocks[id(block)] = _finite(block.encode(source), block)
    y = np.array(encoding.response_atom.pieces(source, reduced=False)[0], dtype=np.float64)
    if not np.isfinite(y).all():
        raise NonFiniteError(
            "the response is not finite", "", "its argument is outside the function's domain there: shift it, or drop the rows"
        )
    shifts = [atom.pieces(source, reduced=False)[0] for atom in encoding.offsets]
    shifts += [source.numbers(encoding.offset_column)] if encoding.offset_column is not None else []
    return Encoded(
        y,
        blocks[id(encoding.fixed_block)],
        tuple(blocks[id(coder.block)] for coder in encoding.random_coders),
        np.sum(shifts, axis=0) if shifts else None,
        None if part.weights is None else part.weights / scale,
    )


def _finite(columns: Array, block: Block) -> Array:
    if np.isfinite(columns).all():
        return columns
    names = [name for name, fine in zip(block.names, np.isfinite(columns).all(axis=0), strict=True) if not fine]
    raise NonFiniteError(f"{names[0]!r} is not finite", "", "its argument is outside a function's domain there: shift it, or drop the rows")


def rows_design(template: Design, part: Part, columns: Encoded) -> Design:
    """The rows of a part as a design, levels coded as in the template."""
    coders = template.encoding.random_coders
    codes = {name: coder.group.codes(part.source) for name, coder in {c.group.factor.name: c for c in coders}.items()}
    terms = tuple(
        replace(term, Z=Z, group=replace(term.group, codes=codes[term.group.name]))
        for term, Z in zip(template.terms, columns.Zs, strict=True)
    )
    return replace(template, y=columns.y, X=columns.X[:, list(template.kept)], weights=columns.weights, offset=columns.shift, terms=terms)
