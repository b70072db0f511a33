"""What a saved fit holds: the model as it was said, the rows it used, and its estimates to the bit."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.arrays import Array, frozen, readonly
from bayeslmm.data.design import Design
from bayeslmm.errors import FormatError, MismatchError
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.likelihood.problem import Problem
from bayeslmm.results.container import write_container
from bayeslmm.results.frames import Arrays, open_index, store_frame, store_index
from bayeslmm.results.plain import told, untold
from bayeslmm.spec.atomic import as_path

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates, Model

AGREES = 1e-8
"""Largest difference, relative to its size, between a stored criterion and the one evaluated on opening: BLAS libraries differ by less."""


def save(fit: Estimates, path: str | Path) -> None:
    """Write a fit to exactly this path. Errors: StoreError."""
    content, arrays = stored_fit(fit)
    write_container(as_path(path), content, arrays)


def stored_fit(fit: Estimates) -> tuple[dict[str, Any], Arrays]:
    """A fit as JSON values and arrays."""
    arrays: Arrays = {}
    content = stored_model(fit.model, arrays)
    content |= {"estimate": _store_estimate(fit.estimate, arrays), "elapsed": fit.elapsed}
    held = held_fitted(fit.problem)
    if held is not None:
        arrays["fitted"] = held
    return content, arrays


def stored_model(model: Model, arrays: Arrays) -> dict[str, Any]:
    """A model as it was said with the rows it used, as JSON values and arrays."""
    said, beside = model.stored()
    design = model.design
    content = {
        "said": told(said),
        "beside": {
            name: store_frame(value, f"beside/{name}", arrays) if hasattr(value, "columns") else None for name, value in beside.items()
        },
        "frame": store_frame(design.frame, "frame", arrays),
        "index": store_index(design.index, "index", arrays),
        "rows": [design.n_read, told(dict(design.dropped))],
        "coefficients": list(design.coef_names),
        "notes": told(list(design.notes)),
    }
    for name, value in beside.items():
        if not hasattr(value, "columns"):
            arrays[f"beside/{name}"] = np.asarray(value, float)
    arrays["rows"], arrays["y"], arrays["X"] = design.rows, design.y, design.X
    return content


def held_fitted(problem: Problem) -> Array | None:
    """The fitted values that the variance function was given, where it has any."""
    if problem.structured is None:
        return None
    factors = zip(problem.design.variance, problem.structured.variance.values, strict=True)
    return next((values for factor, values in factors if factor.covariate is None and factor.kind != "ident"), None)


def _store_estimate(estimate: Estimate, arrays: Arrays) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for field in fields(estimate):
        value = getattr(estimate, field.name)
        if field.name == "path":
            arrays["path/x"] = np.array([x for x, _ in value]).reshape(len(value), len(estimate.x))
            arrays["path/value"] = np.array([v for _, v in value], float)
        elif isinstance(value, np.ndarray):
            arrays[f"estimate/{field.name}"] = value
        else:
            plain[field.name] = told(value)
    return plain


def open_estimate(plain: dict[str, Any], arrays: Arrays) -> Estimate:
    """The estimates of a saved fit."""
    values: dict[str, Any] = {name: untold(value) for name, value in plain.items()}
    values |= {name.removeprefix("estimate/"): frozen(array) for name, array in arrays.items() if name.startswith("estimate/")}
    values["path"] = tuple(zip(map(frozen, arrays["path/x"]), map(float, arrays["path/value"]), strict=True))
    return Estimate(**values)


def open_design(design: Design, content: dict[str, Any], arrays: Arrays) -> Design:
    """The design built again of the rows used, with its place in the data as read.

    Errors: MismatchError where this package makes other columns of the same rows.
    """
    y = frozen(arrays["y"])
    if list(design.coef_names) != content["coefficients"] or not _alike(design.X, arrays["X"]):
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
        X=frozen(arrays["X"]),
        rows=readonly(arrays["rows"]),
        n_read=n_read,
        n_dropped=n_read - design.nobs,
        dropped=untold(dropped),
        index=open_index(content["index"], "index", arrays),
        notes=tuple(untold(content["notes"])),
        unidentified=(),
    )


def _alike(X: Array, stored: Array) -> bool:
    """Whether two machines would call the columns the same: splines and polynomials differ in the last digits."""
    return X.shape == stored.shape and bool(np.allclose(X, stored, rtol=1e-9, atol=1e-9 * float(np.abs(stored).max(initial=0.0))))


def demand_same_criterion(problem: Problem, estimate: Estimate, path: str) -> None:
    """Raise MismatchError unless the criterion at the stored optimum is the stored one. That of MAP holds priors and is not evaluated."""
    if estimate.method not in ("REML", "ML"):
        return
    value = float(problem.criterion.values(estimate.x[None], estimate.restricted)[0])
    if not abs(value - estimate.criterion) <= AGREES * max(1.0, abs(estimate.criterion)):
        raise MismatchError(
            f"the criterion of the saved fit is {estimate.criterion:.6f}; evaluated again it is {value:.6f}", path, "fit the model again"
        )
