"""`load`: a saved fit, opened and evaluated again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Codes, readonly
from bayeslmm._io import as_path
from bayeslmm._validation import require_mapping
from bayeslmm.data.residual import with_blank_rows
from bayeslmm.errors import FormatError, StoreError
from bayeslmm.estimate.estimate import Estimate
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.model.fit import Fit
from bayeslmm.model.lmm import LMM
from bayeslmm.model.partitioned import model_of_sums
from bayeslmm.results.archive import BROKEN, Arrays, from_json, open_frame, read_archive
from bayeslmm.results.foreign_names import answers_keywords
from bayeslmm.results.store import open_design, open_estimate, open_sums, require_same_estimates
from bayeslmm.specification.model_spec import ModelArguments
from bayeslmm.specification.priors import Priors

if TYPE_CHECKING:
    from bayeslmm._types import Functions
    from bayeslmm.bayes.posterior.posterior import Posterior


@answers_keywords
def load(path: str | Path, functions: Functions | None = None) -> Fit | Posterior:
    """Open what `Fit.save` or `Posterior.save` wrote: equal to the bit, on the rows that it used.

    Parameters
    ----------
    path : str or Path
        File that was written.
    functions : Mapping of str to callable, optional
        The user's own functions of the formula, where it has any: code is never stored.

    Returns
    -------
    Fit or Posterior
        What was saved.

    Raises
    ------
    StoreError
        For a file that cannot be read.
    FormatError
        For one that is no saved fit or was cut short.
    MismatchError
        For one that was altered, is newer than the package, or whose criterion is another when it is evaluated again.

    Examples
    --------
    >>> fit.save("sleepstudy.fit"); blm.load("sleepstudy.fit").fixef.equals(fit.fixef)
    True
    """
    callables = require_mapping(functions, "functions", "{name: function}")
    content, arrays = read_archive(as_path(path))
    try:
        return _open_object(content, arrays, callables, str(path))
    except BROKEN as error:
        raise FormatError(f"the file lacks a part of a fit: {type(error).__name__} {error}", str(path), "save the fit again") from error


def _open_object(content: dict[str, Any], arrays: Arrays, functions: dict[str, Callable[..., Any]], path: str) -> Fit | Posterior:
    stored = from_json(content["said"])
    absent = [name for name in stored["functions"] if name not in functions]
    if absent:
        raise StoreError(
            f"the formula uses functions that a file cannot hold: {', '.join(absent)}", path, "give load(path, functions={...})"
        )
    whole = _arguments(stored, content, arrays, functions)
    model = _model_of_sums(whole, content, arrays) if "sums" in content else _model_of_rows(stored, whole, content, arrays)
    problem = model.problem if "sums" in content else build_problem(model.design, arrays.get("fitted"))
    if "posterior" in content:
        return _open_posterior(model, problem, content, arrays, path)
    estimate = open_estimate(content["estimate"], arrays)
    require_same_estimates(problem, estimate, path, _mode(model, problem, estimate) if estimate.method == "MAP" else None)
    return Fit(model, problem, estimate, content.get("elapsed", math.nan))


def _mode(model: LMM, problem: Problem, estimate: Estimate) -> Callable[[], Mapping[str, Any]]:
    from bayeslmm.bayes.sampling.mode import mode_again

    return lambda: mode_again(problem, model.spec.priors, estimate)


def _model_of_sums(arguments: ModelArguments, content: dict[str, Any], arrays: Arrays) -> LMM:
    """The model of rows that were added up."""
    loaded = arguments.arrays()
    known = {name: loaded[name] for name in ("relationship", "functions")}
    stored, rows = from_json(content["said"]), open_sums(arguments.spec(), content["sums"], arrays, known)
    return model_of_sums(arguments, rows, None, stored["counting"], stored["subjects"])


def _model_of_rows(stored: dict[str, Any], whole: ModelArguments, content: dict[str, Any], arrays: Arrays) -> LMM:
    """The model of the rows that the file has."""
    frame = open_frame(content["frame"], "frame", arrays, len(arrays["y"]))
    if "places" in arrays and stored["missing"] == "drop":
        frame, whole = _with_blank_rows(frame, whole, arrays["places"])
    model = LMM.of(whole, frame, stored["counting"], stored["subjects"])
    model.design = open_design(model.design, content, arrays)
    return model


def _with_blank_rows(frame: pd.DataFrame, arguments: ModelArguments, place: Codes) -> tuple[pd.DataFrame, ModelArguments]:
    """The rows used with those gone before them, without which the order of the rows would be another."""
    residual = arguments.spec().residual
    assert residual is not None
    frame, row = with_blank_rows(frame, residual.subject, place)
    weights, offset = (values[row] if isinstance(values, np.ndarray) else values for values in (arguments.weights, arguments.offset))
    return frame, replace(arguments, weights=weights, offset=offset)


def _open_posterior(model: LMM, problem: Problem, content: dict[str, Any], arrays: Arrays, path: str) -> Posterior:
    """The posterior that `save` wrote, its model built again.

    Errors: MismatchError unless the density at the first draw is the stored one.
    """
    from bayeslmm.bayes.log_posterior.density import density
    from bayeslmm.bayes.posterior.data import PosteriorDraws, require_same_density
    from bayeslmm.bayes.posterior.posterior import Posterior

    values = content["posterior"]
    beta = tuple(readonly(arrays[f"draws/beta/{i}"]) for i in range(values["terms"]))
    target = density(problem, model.spec.priors)
    phi, log_density = arrays["draws/phi"], arrays["draws/log_density"]
    if target.layout.variance is not None and "variance_units" not in values:  # older files: in the units of the covariates
        phi = phi.copy()
        phi[:, target.layout.variance.part] /= target.layout.variance.units
        log_density = log_density + target.layout.variance.log_volume
    draws = PosteriorDraws(readonly(phi), readonly(arrays["draws/alpha"]), beta, readonly(log_density))
    post = Posterior(
        model,
        target,
        draws,
        chains=values["chains"],
        method=values["method"],
        checks={check.name: check for check in from_json(values["checks"])},
        elapsed=values.get("elapsed", math.nan),
        evidence=values["evidence"],
        interrupted=values["interrupted"],
        statistics={name.removeprefix("statistics/"): array for name, array in arrays.items() if name.startswith("statistics/")},
    )
    require_same_density(post, path)
    return post


def _arguments(stored: dict[str, Any], content: dict[str, Any], arrays: Arrays, functions: dict[str, Callable[..., Any]]) -> ModelArguments:
    """The arguments, with the arrays that stood beside it, over the rows used."""
    whole = ModelArguments(
        stored["formula"],
        stored["residual"],
        stored["variance"],
        stored["weights"],
        stored["offset"],
        dict(stored["contrasts"]),
        {},
        None if stored["priors"] is None else Priors(**stored["priors"]),
        stored["missing"],
        stored["check"],
        functions,
        stored.get("sigma"),
    )
    matrices = {}
    for name, told_of in content["beside"].items():
        if told_of is None:
            values = arrays[f"beside/{name}"]
            whole = replace(whole, weights=values) if name == "weights" else replace(whole, offset=values)
        else:
            group = name.removeprefix("relationship/")
            matrix = open_frame(told_of, f"beside/{name}", arrays, len(told_of["columns"]))
            matrices[group] = matrix.set_axis(matrix.columns, axis=0)
    return replace(whole, relationship=matrices)
