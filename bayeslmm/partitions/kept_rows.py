"""Rows of models whose likelihood is no function of sums: the columns that they read, put together from all parts.

Errors that depend on more of a subject than its visits (random effects or weights beside a residual structure, places, a variance function)
make every row count by itself at every value of the parameters. What is kept is as wide as the formula, not as the data.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import pandas as pd

from bayeslmm.covariance.registry import is_spatial
from bayeslmm.data.frame import read_table, with_native_bytes
from bayeslmm.data.rows import no_data_error, plan_columns
from bayeslmm.partitions.first_pass import in_partition
from bayeslmm.partitions.partitions import Partitions, process_pool
from bayeslmm.specification.model_spec import ModelSpec


def needs_every_row(spec: ModelSpec) -> bool:
    """Whether the likelihood asks for more than sums over rows, and over subjects with the same visits."""
    if spec.variance:
        return True
    residual = spec.residual
    return residual is not None and (bool(spec.formula.random) or spec.weights is not None or is_spatial(residual.structure))


def columns_of_model(spec: ModelSpec) -> tuple[str, ...]:
    """The columns of the data that a model reads."""
    columns = tuple(name for name in (spec.weights, spec.offset) if name is not None)
    return plan_columns(spec.formula, spec.residual, spec.variance, columns).columns


def gather_rows(spec: ModelSpec, partitions: Partitions) -> pd.DataFrame:
    """The columns that a model reads, of all rows, in the order of the partitions.

    Errors: those of reading a frame, with the number of the partition; EmptyDataError without rows.

    >>> from bayeslmm.formula import parse_formula
    >>> parts = Partitions([{"y": [1.0, 2.0], "x": [0, 1], "z": [5, 5]}, {"y": [3.0], "x": [2], "z": [5]}])
    >>> gather_rows(ModelSpec(parse_formula("y ~ x")), parts).shape
    (3, 2)
    """
    columns = columns_of_model(spec)
    with process_pool(partitions.workers) as pool:
        frames = partitions.reduce(partial(_read_frames, columns), lambda one, later: one + later, columns, pool) or []
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        raise no_data_error("the partitions")
    rows: pd.DataFrame = pd.concat(filled, ignore_index=True)
    return rows


def _read_frames(columns: tuple[str, ...], number: int, frames: Iterable[Any]) -> list[pd.DataFrame]:
    found = []
    for frame in frames:
        with in_partition(number):
            found.append(with_native_bytes(read_table(frame, columns).frame[list(columns)]))
    return found
