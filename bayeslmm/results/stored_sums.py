"""Sums over rows that were read in parts, as values and arrays to save: what stands for the rows in the file of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.data.design import ResidualDesign
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.likelihood.random_effects.cross_products import factors_of
from bayeslmm.likelihood.structured.kernel import PooledBatch
from bayeslmm.likelihood.structured.residual_structure import BlockRows
from bayeslmm.partitions.design import SummedRows, VisitPatterns, without_codes
from bayeslmm.partitions.first_pass import COUNT, ColumnRange, FirstPass
from bayeslmm.partitions.moments import CoincidingFactors, ColumnMoments, IncrementalQR, SpanningRows, SumsByLevel, empty_sums
from bayeslmm.partitions.subjects import CountedSubjects
from bayeslmm.partitions.sums import Learning, template_of
from bayeslmm.results.archive import Arrays, from_json, open_frame, store_frame, to_json
from bayeslmm.specification.model_spec import ModelSpec


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
    states = {name: _opened_state(state) for name, state in content.get("states", {}).items()}
    in_parts = content.get("patterns") is not None and content["patterns"].get("counted") is not None
    learning = Learning.of(spec, known["relationship"], known["functions"], states, structured=in_parts)
    survey = FirstPass.of(spec, learning.asked)
    survey.shown = [_frame(content["roster"], "sums/roster", arrays)]
    survey.read, survey.kept, n = (int(count) for count in content["counts"])
    survey.dropped = {name: int(count) for name, count in content["dropped"].items()}
    survey.ranges = {
        name: ColumnRange(total, low, high, bool(integer), None if values is None else frozenset(values))
        for name, (total, low, high, integer, values) in content["ranges"].items()
    }
    survey.weights, survey.log_weights, survey.inverse_weights, scale = (float(value) for value in content["weights"])
    survey.cells = None if content["cells"] is None else _frame(content["cells"], "sums/cells", arrays).rename(columns={str(COUNT): COUNT})
    moments = ColumnMoments(
        _triangle("sums/columns", arrays),
        [_triangle(f"sums/blocks/{i}", arrays) for i in range(content["blocks"])],
        _triangle("sums/plain_columns", arrays),
        [_triangle(f"sums/plain_blocks/{i}", arrays) for i in range(content["blocks"])],
        {key: arrays[f"sums/variables/{i}"] for i, key in enumerate(content["variables"])},
        *(float(value) for value in content["response"]),
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
    alike = CoincidingFactors({(a, b): np.zeros(0, np.int64) for a, b in content["alike"]})
    spanning = SpanningRows(
        design.encoding.fixed_block.columns, arrays["sums/spanning"], _frame(content["spanning"], "sums/spanning_frame", arrays), True
    )
    notes = None if content.get("notes") is None else tuple(from_json(content["notes"]))
    patterns = None if content.get("patterns") is None else _open_patterns(spec, content["patterns"], arrays)
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
    counted = factors.pop("subject") if isinstance(residual.subject, CountedSubjects) else None
    if isinstance(counted, CountedSubjects):
        arrays["sums/patterns/subjects"] = counted.hashes.view(np.int64)
    return {
        "batches": len(patterns.batches),
        "counted": None if counted is None else [counted.name, list(counted.columns)],
        "notes": to_json(list(patterns.notes)),
        "numeric": residual.coords is not None,
        "visits": to_json([residual.visit_levels, residual.missing_visits, residual.positions, residual.axes, residual.places]),
        **{name: to_json([factor.name, factor.levels.tolist(), list(factor.columns)]) for name, factor in factors.items()},
    }


def _open_patterns(spec: ModelSpec, content: Mapping[str, Any], arrays: Arrays) -> VisitPatterns:
    """The inverse of `_store_patterns`."""
    term, nowhere = spec.residual, np.zeros(0, np.int64)
    assert term is not None
    factors = {}
    for key in ("subject", "group"):
        if key in content:
            name, labels, columns = from_json(content[key])
            levels = np.empty(len(labels), dtype=object)
            levels[:] = labels
            factors[key] = GroupingFactor(name, levels, nowhere, tuple(columns))
    subject = factors.get("subject") or GroupingFactor("", np.empty(0, dtype=object), nowhere, ())
    levels_of, missing, positions, axes, *places = from_json(content["visits"])
    batches = []
    for i in range(content["batches"]):
        count, G, place, group = (arrays[f"sums/patterns/{i}/{name}"] for name in ("count", "G", "place", "group"))
        batches.append(PooledBatch(count, G, BlockRows(place, None, group, None)))
    residual = ResidualDesign(
        spec=term,
        subject=subject,
        visit=nowhere,
        visit_levels=levels_of,
        coords=np.zeros((0, 1)) if content["numeric"] else None,
        group=factors.get("group"),
        name=term.structure,
        order=term.order,
        nugget=term.nugget,
        missing_visits=missing,
        positions=positions,
        places=places[0] if places else (),
        axes=axes,
    )
    rowless, notes = without_codes(residual), tuple(from_json(content["notes"])) if "notes" in content else ()
    if content.get("counted") is not None:
        name, columns = content["counted"]
        counted = CountedSubjects.of(name, tuple(columns), arrays["sums/patterns/subjects"].view(np.uint64))
        rowless = replace(rowless, subject=counted)
    return VisitPatterns(tuple(batches), rowless, arrays["sums/patterns/start"], notes)


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


def _frame(content: Any, name: str, arrays: Arrays) -> pd.DataFrame:
    return open_frame(content[0], name, arrays, int(content[1]))


def _store_triangle(triangle: IncrementalQR, name: str, arrays: Arrays) -> None:
    if triangle.R is not None and triangle.origin is not None:
        arrays[f"{name}/R"], arrays[f"{name}/origin"] = triangle.R, triangle.origin


def _triangle(name: str, arrays: Arrays) -> IncrementalQR:
    return IncrementalQR(arrays[f"{name}/origin"], arrays[f"{name}/R"]) if f"{name}/R" in arrays else IncrementalQR()
