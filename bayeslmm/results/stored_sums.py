"""Sums of rows as JSON values and arrays of a file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm.likelihood.random_effects.cross_products import factors_of
from bayeslmm.partitions.first_pass import COUNT, ColumnRange, FirstPass
from bayeslmm.partitions.level_sums import CoincidingFactors, SumsByLevel, empty_sums
from bayeslmm.partitions.moments import ColumnMoments, IncrementalQR, SpanningRows
from bayeslmm.partitions.sums import Learning, SummedRows, template_of
from bayeslmm.results.store import open_frame, store_frame
from bayeslmm.specification.model_spec import ModelSpec

type Arrays = dict[str, NDArray[Any]]


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
    for i, total in enumerate(moments.sums.values()):
        arrays[f"sums/variables/{i}"] = total
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
        "ranges": {name: [r.total, r.low, r.high, r.integer, _listed(r.values)] for name, r in survey.ranges.items()},
        "weights": [survey.weights, survey.log_weights, survey.inverse_weights, rows.scale],
        "variables": list(moments.sums),
        "response": [moments.largest, moments.left, moments.low, moments.high],
        "blocks": len(moments.blocks),
        "alike": alike,
    }


def open_sums(spec: ModelSpec, content: Mapping[str, Any], arrays: Arrays, known: Mapping[str, Any]) -> SummedRows:
    """The sums that `store_sums` put away. known : relationship matrices and functions of the model"""
    told = content
    learning = Learning.of(spec, known["relationship"], known["functions"])
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
    design, standardization = template_of(learning, survey, learning.learnt(survey), moments, scale)
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
    return SummedRows(survey, moments, scale, sums, alike, spanning)


def _listed(values: frozenset[float] | None) -> list[float] | None:
    return None if values is None else sorted(values)


def _frame(told: Any, name: str, arrays: Arrays) -> pd.DataFrame:
    return open_frame(told[0], name, arrays, int(told[1]))


def _store_triangle(triangle: IncrementalQR, name: str, arrays: Arrays) -> None:
    if triangle.R is not None and triangle.origin is not None:
        arrays[f"{name}/R"], arrays[f"{name}/origin"] = triangle.R, triangle.origin


def _triangle(name: str, arrays: Arrays) -> IncrementalQR:
    return IncrementalQR(arrays[f"{name}/origin"], arrays[f"{name}/R"]) if f"{name}/R" in arrays else IncrementalQR()
