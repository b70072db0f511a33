"""Which rows a model keeps: no missing value in a column that it reads, and weight above 0."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array, Codes
from bayeslmm.data.columns import Mask
from bayeslmm.data.source import Columns
from bayeslmm.data.wording import rows_text
from bayeslmm.errors import EmptyDataError, MissingDataError


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """positions : of the rows kept, None for all; dropped : column -> rows that it cost."""

    positions: Codes | None
    dropped: dict[str, int]


def kept_rows(
    source: Columns, roles: Iterable[tuple[str, bool]], extra: dict[str, Mask], weights: Array | None, weights_name: str, missing: str
) -> Kept:
    """The rows that are kept.

    roles : columns that the model reads, and whether as a factor
    extra : masks of what was given beside the data, such as an offset array
    Errors: `MissingDataError` under missing="raise"; `EmptyDataError` when nothing is left, naming the column that emptied the data.
    """
    rows = len(source.table)
    if rows == 0:
        raise EmptyDataError("the data have no rows", "", "give data with at least one row per parameter")
    kept = left_rows(source, roles, extra, weights, weights_name, missing)
    if kept.positions is not None and not len(kept.positions):
        raise emptied(kept.dropped, rows)
    return kept


def left_rows(
    source: Columns, roles: Iterable[tuple[str, bool]], extra: dict[str, Mask], weights: Array | None, weights_name: str, missing: str
) -> Kept:
    """`kept_rows` of a part of the data, of which nothing may be left."""
    rows = len(source.table)
    masks = {name: mask for name, as_factor in roles if (mask := source.missing(name, as_factor=as_factor)) is not None}
    masks |= {name: mask for name, mask in extra.items() if mask.any()}
    if masks and missing == "raise":
        name, mask = next(iter(masks.items()))
        raise MissingDataError(
            f"column {name!r} holds missing values", rows_text(np.flatnonzero(mask)), 'fill or drop them, or use missing="drop"'
        )
    if weights is not None and not weights.all():
        masks[weights_name] = masks.get(weights_name, np.zeros(rows, dtype=bool)) | (weights == 0)
    if not masks:
        return Kept(None, {})
    dropped = {name: int(mask.sum()) for name, mask in masks.items()}
    return Kept(np.flatnonzero(~np.logical_or.reduce(list(masks.values()))), dropped)


def emptied(dropped: dict[str, int], rows: int) -> EmptyDataError:
    """The error for data of which nothing is left."""
    worst = max(dropped, key=lambda name: dropped[name])
    told = ", ".join(f"{name}: {count} of {rows}" for name, count in dropped.items())
    return EmptyDataError(
        f"no row is left: column {worst!r} empties the data",
        f"missing values (or weights of 0): {told}",
        "fill the column, or leave it out",
    )
