"""A fit and its model as values and arrays to save, sums in the place of rows too, and what of a file is checked on opening."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, freeze, readonly
from bayeslmm._io import as_path
from bayeslmm._types import FitMethod
from bayeslmm.data.design import Design, ResidualDesign
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.data.residual import row_places
from bayeslmm.errors import Check, FormatError, MismatchError, show_value
from bayeslmm.estimate.estimate import Estimate, estimates_at
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.cross_products import factors_of
from bayeslmm.likelihood.structured.blocks import PooledBatch
from bayeslmm.likelihood.structured.residual_structure import BlockRows
from bayeslmm.partitions.design import GIVEN_OFFSET, GIVEN_WEIGHTS, PartitionedDesign, SummedRows, VisitPatterns, without_codes
from bayeslmm.partitions.first_pass import COUNT, ColumnRange, FirstPass
from bayeslmm.partitions.moments import CoincidingFactors, ColumnMoments, IncrementalQR, SpanningRows, SumsByLevel, empty_sums
from bayeslmm.partitions.subjects import CountedSubjects
from bayeslmm.partitions.sums import Learning, problem_of_sums, sum_design, template_of
from bayeslmm.results.archive import (
    Arrays,
    floats_in,
    from_json,
    open_frame,
    open_index,
    places_in,
    store_frame,
    store_index,
    to_json,
    write_archive,
)
from bayeslmm.results.estimates import Estimates, FittedModel
from bayeslmm.specification.model_spec import ModelArguments, ModelSpec

CRITERION_AGREEMENT = 1e-8
"""Largest difference, relative to its size, between a stored criterion and the one evaluated on opening: BLAS libraries differ by less."""

ESTIMATE_AGREEMENT = 1e-6
"""The same of an estimate, in standard errors or relative to its size."""


def save(fit: Estimates, path: str | Path, *, rows: bool = True) -> None:
    """Write a fit to exactly this path. rows : whether they are kept, where the model has them. Errors: StoreError."""
    content, arrays = stored_fit(fit, rows=rows)
    write_archive(as_path(path), content, arrays)


def stored_fit(fit: Estimates, *, rows: bool = True) -> tuple[dict[str, Any], Arrays]:
    """A fit as JSON values and arrays. rows : whether those of the data are among them"""
    arrays: Arrays = {}
    summed, estimate = None if rows else AddedUp.of(fit.model), fit.estimate
    content = stored_model(fit.model, arrays, summed)
    if summed is not None and fit.design.in_memory:
        estimate = _on_axes_of_sums(fit, summed.problem())
    content["estimate"] = _store_estimate(estimate, arrays)
    held = fit.problem.held_fitted
    if held is not None:
        arrays["fitted"] = held
    return content, arrays


def _on_axes_of_sums(fit: Estimates, problem: Problem) -> Estimate:
    """The estimates with x on the axes of the sums, which differ by signs.

    Errors: MismatchError for other numbers than those of the rows.
    """
    estimate = replace(fit.estimate, x=freeze(problem.x(fit.problem.theta(fit.estimate.x))))
    require_same_estimates(problem, estimate, "save(rows=False)")
    return estimate


@dataclass(frozen=True, slots=True, eq=False)
class AddedUp:
    """A model whose rows were added up. arguments : its arguments, with columns that stand for arrays of weights and offsets"""

    arguments: ModelArguments
    rows: SummedRows

    @classmethod
    def of(cls, model: FittedModel) -> AddedUp:
        """Errors: SpecificationError where V depends on more of a subject than its visits."""
        if isinstance(model.design, PartitionedDesign):
            return cls(model.arguments, model.design.summed)
        arrays = model.stored()[1]
        columns_of = {name: column for name, column in (("weights", GIVEN_WEIGHTS), ("offset", GIVEN_OFFSET)) if name in arrays}
        arguments = replace(model.arguments, **cast(Any, columns_of))
        columns = {column: np.asarray(arrays[name]) for name, column in columns_of.items()}
        return cls(arguments, sum_design(model.design, arguments.spec(), columns, **_known_of_model(arguments)))

    def problem(self) -> Problem:
        """The problem of the sums."""
        return problem_of_sums(self.arguments.spec(), self.rows, **_known_of_model(self.arguments))


def _known_of_model(arguments: ModelArguments) -> dict[str, Any]:
    """What a model knows beside its spec and its rows."""
    arrays = arguments.arrays()
    return {name: arrays[name] for name in ("relationship", "functions")}


def stored_model(model: FittedModel, arrays: Arrays, summed: AddedUp | None = None) -> dict[str, Any]:
    """The arguments of a model as JSON values and arrays, with its rows; with their sums where these are given or it has no rows."""
    arguments, values = model.stored()
    design = model.design
    if isinstance(design, PartitionedDesign):
        summed = AddedUp.of(model)
    if summed is not None:
        arguments |= {"weights": summed.arguments.weights, "offset": summed.arguments.offset}
        values = {name: value for name, value in values.items() if isinstance(value, pd.DataFrame)}
    content: dict[str, Any] = {
        "said": to_json(arguments),
        "beside": {
            name: store_frame(value, f"beside/{name}", arrays) if isinstance(value, pd.DataFrame) else None
            for name, value in values.items()
        },
    }
    if summed is not None:
        return content | {"sums": store_sums(summed.rows, arrays)}
    content |= {
        "frame": store_frame(design.frame, "frame", arrays),
        "index": store_index(design.index, "index", arrays),
        "labelled": design.labelled,
        "rows": [design.n_read, to_json(dict(design.dropped))],
        "coefficients": list(design.coef_names),
        "notes": to_json(list(design.notes)),
    }
    for name, value in values.items():
        if not isinstance(value, pd.DataFrame):
            arrays[f"beside/{name}"] = np.asarray(value, float)
    arrays["rows"], arrays["y"], arrays["X"] = design.rows, design.y, design.X
    places = None if design.residual is None else row_places(design.residual)
    if places is not None:
        arrays["places"] = places
    return content


def _store_estimate(estimate: Estimate, arrays: Arrays) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for field in fields(estimate):
        value = getattr(estimate, field.name)
        if field.name == "elapsed":
            continue  # equal fits are equal files
        if field.name == "path":
            # a search for the posterior mode has the prior's axes too
            arrays["path/x"] = np.array([x for x, _ in value]) if value else np.zeros((0, len(estimate.x)))
            arrays["path/value"] = np.array([v for _, v in value], float)
        elif isinstance(value, np.ndarray):
            arrays[f"estimate/{field.name}"] = value
        else:
            plain[field.name] = to_json(value)
    return plain


def open_estimate(plain: dict[str, Any], arrays: Arrays) -> Estimate:
    """The estimates of a saved fit."""
    values: dict[str, Any] = {"elapsed": math.nan} | {name: from_json(value) for name, value in plain.items()}
    values |= {name.removeprefix("estimate/"): freeze(array) for name, array in arrays.items() if name.startswith("estimate/")}
    values["path"] = tuple(zip(map(freeze, arrays["path/x"]), map(float, arrays["path/value"]), strict=True))
    found = Estimate(**values)
    for kind, names in _KINDS_OF_ESTIMATES.items():
        for name in names:
            value = values[name]
            if not isinstance(value, kind) or (kind is float and isinstance(value, bool)):
                raise FormatError(f"{name} of the saved fit is {show_value(value)}", name, "save the fit again")
    if found.method not in get_args(FitMethod) or not all(isinstance(check, Check) for check in found.checks):
        raise FormatError(f"the saved fit is one by {show_value(found.method)}, or its checks are none", "method", "save the fit again")
    return found


_KINDS_OF_ESTIMATES: dict[type, tuple[str, ...]] = {
    str: ("method",),
    float: ("sigma", "criterion"),
    bool: ("converged", "interrupted", "singular"),
    tuple: ("checks",),
    np.ndarray: ("x", "theta", "alpha", "vcov", "gradient"),
}


def open_design(design: Design, content: dict[str, Any], arrays: Arrays) -> Design:
    """The design built again of the rows used, with its place in the data as read.

    Errors: MismatchError where this package makes other columns of the same rows.
    """
    y = freeze(arrays["y"])
    if list(design.coef_names) != content["coefficients"] or not _columns_agree(design.X, arrays["X"]):
        raise MismatchError(
            "this version of the package makes other columns of the saved rows",
            f"coefficients saved: {', '.join(content['coefficients'][:6])}",
            "fit the model again",
        )
    if len(y) != design.nobs or len(arrays["rows"]) != design.nobs:
        raise FormatError("the rows of the file have different lengths", "rows", "save the fit again")
    n_read, dropped = content["rows"]
    return replace(
        design,
        y=y,
        X=freeze(arrays["X"]),
        rows=readonly(arrays["rows"]),
        n_read=n_read,
        n_dropped=n_read - design.nobs,
        dropped=from_json(dropped),
        index=open_index(content["index"], "index", arrays),
        labelled=content.get("labelled", True),
        notes=tuple(from_json(content["notes"])),
        unidentified=(),
    )


def _columns_agree(X: Array, stored: Array) -> bool:
    """Whether two machines would call the columns the same: splines and polynomials differ in the last digits."""
    return X.shape == stored.shape and bool(np.allclose(X, stored, rtol=1e-9, atol=1e-9 * float(np.abs(stored).max(initial=0.0))))


def require_same_estimates(problem: Problem, estimate: Estimate, path: str, mode: Callable[[], Mapping[str, Any]] | None = None) -> None:
    """Raise unless what follows from the rows and x is what is stored: shapes and every estimate; of a mode shapes alone without `mode`.

    mode : evaluates the estimates of a posterior mode again, for which its priors are needed
    Errors: FormatError for another shape, MismatchError for other numbers.
    """
    p, size = len(problem.design.kept), problem.size
    shapes = {"x": (size,), "theta": problem.theta(problem.start).shape, "alpha": (p,), "vcov": (p, p), "gradient": (size,)}
    values = {"x": estimate.x, "theta": estimate.theta, "alpha": estimate.alpha, "vcov": estimate.vcov, "gradient": estimate.gradient}
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise FormatError(f"{name} has shape {values[name].shape}, the model {shape}", path, "fit the model again")
    if estimate.method == "MAP" and mode is None:
        return
    again = estimates_at(problem, problem.criterion.at(estimate.x, estimate.restricted)) if mode is None else mode()
    for name, stored, value, allowed in _compare_estimates(estimate, again, problem.theta(estimate.x)):
        if not np.all(np.abs(np.asarray(stored) - np.asarray(value)) <= allowed):
            what = f"{name} of the saved fit is {_as_list(stored)}; evaluated again it is {_as_list(value)}"
            raise MismatchError(what, path, "fit the model again")


def _compare_estimates(stored: Estimate, again: Mapping[str, Any], theta: Array) -> Iterator[tuple[str, Any, Any, Any]]:
    """Estimates with the same evaluated again, and the difference that is allowed: of coefficients in standard errors. theta : of x"""
    errors, share = np.sqrt(np.diagonal(again["vcov"])), ESTIMATE_AGREEMENT
    yield "the criterion", stored.criterion, again["criterion"], CRITERION_AGREEMENT * max(1.0, abs(again["criterion"]))
    yield "sigma", stored.sigma, again["sigma"], share * again["sigma"]
    for value in (again["theta"], theta):
        yield "theta", stored.theta, value, share * np.maximum(1.0, np.abs(value))
    yield "alpha", stored.alpha, again["alpha"], share * errors
    yield "vcov", stored.vcov, again["vcov"], share * np.outer(errors, errors)
    if stored.method != "MAP":
        yield "the gradient", stored.gradient, again["gradient"], share * max(1.0, abs(again["criterion"]))


def _as_list(value: Any) -> str:
    return ", ".join(f"{number:.6g}" for number in np.ravel(value)[:6])


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
        "ranges": {
            name: [r.total, r.low, r.high, r.integer, None if r.values is None else sorted(r.values)] for name, r in survey.ranges.items()
        },
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
    if not (0.0 < scale < math.inf) or (spec.weights is None and scale != 1.0):
        raise FormatError(f"weights are said to be divided by {scale:g}", "sums", "save the fit again")
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
    total.n, total.Xy = n, _sums_in(arrays, "sums/Xy", total.Xy.shape)
    for f in range(len(factors)):
        total.diagonal[f] = _sums_in(arrays, f"sums/diagonal/{f}", total.diagonal[f].shape)
        total.with_Xy[f] = _sums_in(arrays, f"sums/with_Xy/{f}", total.with_Xy[f].shape)
    for (f, g), lines in total.pairs.items():
        for a, line in enumerate(lines):
            for b, pairs in enumerate(line):
                place, (K, L) = f"sums/pairs/{f}/{g}/{a}/{b}", pairs.shape
                row, column = places_in(arrays, f"{place}/row", K), places_in(arrays, f"{place}/column", L)
                pairs.add(row, column, floats_in(arrays, f"{place}/values"))
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
        within = f"sums/patterns/{i}"
        count, G = (floats_in(arrays, f"{within}/{name}") for name in ("count", "G"))
        place = places_in(arrays, f"{within}/place", max(1, len(levels_of)))
        group = places_in(arrays, f"{within}/group", max(1, len(factors["group"].levels) if "group" in factors else 1))
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


def _sums_in(arrays: Arrays, name: str, shape: tuple[int, ...]) -> Array:
    """Finite sums of the shape that the model gives them. Errors: FormatError."""
    values = floats_in(arrays, name)
    if values.shape != shape or not np.isfinite(values).all():
        raise FormatError(f"{name} is not {' x '.join(map(str, shape))} finite numbers", name, "save the fit again")
    return values.copy()


def _frame(content: Any, name: str, arrays: Arrays) -> pd.DataFrame:
    return open_frame(content[0], name, arrays, int(content[1]))


def _store_triangle(triangle: IncrementalQR, name: str, arrays: Arrays) -> None:
    if triangle.R is not None and triangle.origin is not None:
        arrays[f"{name}/R"], arrays[f"{name}/origin"] = triangle.R, triangle.origin


def _triangle(name: str, arrays: Arrays) -> IncrementalQR:
    return IncrementalQR(arrays[f"{name}/origin"], arrays[f"{name}/R"]) if f"{name}/R" in arrays else IncrementalQR()
