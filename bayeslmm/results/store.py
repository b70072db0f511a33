"""A fit and its model as values and arrays to save, and what of a file is checked against the model that is built again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, freeze, readonly
from bayeslmm._io import as_path
from bayeslmm.data.design import Design
from bayeslmm.data.residual import row_places
from bayeslmm.errors import FormatError, MismatchError
from bayeslmm.estimate.estimate import Estimate, estimates_at
from bayeslmm.likelihood.problem import Problem
from bayeslmm.partitions.design import GIVEN_OFFSET, GIVEN_WEIGHTS, PartitionedDesign, SummedRows
from bayeslmm.partitions.sums import problem_of_sums, sum_design
from bayeslmm.results.archive import Arrays, from_json, open_index, store_frame, store_index, to_json, write_archive
from bayeslmm.results.estimates import Estimates, FittedModel
from bayeslmm.results.stored_sums import store_sums
from bayeslmm.specification.model_spec import ModelArguments

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
    held = weighting_fitted_values(fit.problem)
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
        beside = model.stored()[1]
        columns_of = {name: column for name, column in (("weights", GIVEN_WEIGHTS), ("offset", GIVEN_OFFSET)) if name in beside}
        arguments = replace(model.arguments, **cast(Any, columns_of))
        columns = {column: np.asarray(beside[name]) for name, column in columns_of.items()}
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


def weighting_fitted_values(problem: Problem) -> Array | None:
    """The fitted values that the variance function was given, where it has any."""
    if problem.structured is None:
        return None
    factors = zip(problem.design.variance, problem.structured.variance.values, strict=True)
    return next((values for factor, values in factors if factor.covariate is None and factor.kind != "ident"), None)


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
    return Estimate(**values)


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


def _as_list(value: Any) -> str:
    return ", ".join(f"{number:.6g}" for number in np.ravel(value)[:6])
