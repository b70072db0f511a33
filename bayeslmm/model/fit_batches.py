"""Fits of one model to every column of a frame of responses, those with the same rows side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Codes, Mask, equal_rows, fill_mask, numbers_of
from bayeslmm._types import LikelihoodKind
from bayeslmm._validation import require_one_of
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, DataError, SpecificationError, warn_user
from bayeslmm.estimate.estimate import require_finished
from bayeslmm.inference.intervals.resampling import without
from bayeslmm.likelihood.identification import full_rank
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.model.fit import Fit
from bayeslmm.model.many_fits import BatchModel, ManyFits, ResponseBatch
from bayeslmm.results.fitted import as_pandas, require_same_rows
from bayeslmm.results.render import progress_bar

if TYPE_CHECKING:
    from bayeslmm._types import ArrayLike, Frame


def fit_many(model: BatchModel, Y: Frame | ArrayLike, method: LikelihoodKind = "REML", progress: bool | None = None) -> ManyFits:
    """Fit the design of a model to every column of Y; see `LMM.fit_many`."""
    require_one_of(method, get_args(LikelihoodKind), "method")
    keys, values = _responses(model, Y)
    count = values.shape[1]
    finite = np.isfinite(values)
    batches: list[ResponseBatch] = []
    fits: dict[int, Fit] = {}
    failures: dict[int, str] = {}
    source = partial(_fit_response, model, finite, values, method)
    with progress_bar("responses", count, progress) as advance:
        for members, rows in _patterns(finite):
            try:
                own = _with_rows(model, rows)
                together = len(members) > 1 and isinstance(own.problem.criterion.kernel, RandomEffectsKernel)
                together = together and own.problem.criterion.held is None and not own.problem.is_iterative
            except BayesLMMError as error:
                failures |= dict.fromkeys(members.tolist(), str(error))
                advance(len(members))
                continue
            left = members
            if together:
                batch = ResponseBatch.of(own, members, values[np.ix_(rows, members)], method == "REML", advance)
                if batch is not None:
                    left = np.setdiff1d(members, batch.members)
                    batches.append(batch)
            # what does not settle side by side is searched by itself
            for i in left.tolist():
                fitted = attempt_fit(partial(source, i))
                if isinstance(fitted, str):
                    failures[i] = fitted
                else:
                    fits[i] = fitted
                if not together:
                    advance(1)
    warn_of_failures(failures, count, "responses")
    return ManyFits(keys, method, batches, fits, failures, source)


def _fit_response(model: BatchModel, finite: Mask, values: Array, method: LikelihoodKind, position: int) -> Fit:
    """The fit of one response: a function of the module, so that many fits can be pickled."""
    rows = finite[:, position]
    return require_finished(_with_rows(model, rows).with_response(values[rows, position]).fit(method))


def attempt_fit(make: Callable[[], Fit]) -> Fit | str:
    """A fit, or why there is none; its own warnings are in its checks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BayesLMMWarning)
            return make()
    except BayesLMMError as error:
        return str(error)


def warn_of_failures(failures: Mapping[int, str], count: int, what: str) -> None:
    """One warning for all that could not be fitted."""
    if failures:
        first = next(iter(failures.values()))
        where = f"the first: {first.splitlines()[0]:.200}"
        warn_user(BayesLMMWarning(f"{len(failures)} of {count} {what} could not be fitted", where, "see `failed`"))


def _responses(model: BatchModel, Y: Any) -> tuple[pd.DataFrame, Array]:
    """Names of the responses and their values (nobs, B) on the rows of the model, NaN where missing."""
    design = model.design
    if not design.in_memory:
        raise SpecificationError("a model of partitions has no rows to put responses beside", "fit_many", "make the model of a frame")
    table = np.asarray(fill_mask(Y)) if isinstance(Y, np.ndarray | list | tuple) else None
    if table is not None and table.ndim not in (1, 2):
        raise DataError(f"Y has {table.ndim} axes", "Y", "give one row for each row of the data, one column for each response")
    frame = as_pandas(Y) if table is None else pd.DataFrame(table)
    if frame.shape[1] == 0:
        raise DataError("there are no responses", "Y", "give one column for each")
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"two responses are called {twice!r}", "Y", "give each column a name of its own")
    if len(frame) not in (design.nobs, design.n_read):
        where = f"{design.nobs} rows are used, {design.n_read} were read"
        raise DataError(f"Y has {len(frame)} rows", where, "give one row for each row of the data")
    require_same_rows(Y, design, "Y")
    plain = all(dtype.kind in "biuf" for dtype in frame.dtypes)
    values = (
        frame.to_numpy(dtype=float, na_value=np.nan)
        if plain
        else np.column_stack([numbers_of(column, f"the response {name!r}", labelled=True) for name, column in frame.items()])
    )
    if len(values) != design.nobs:
        values = values[design.rows]
    if np.isinf(values).any():
        wrong = frame.columns[np.isinf(values).any(axis=0)][0]
        raise DataError(f"the response {wrong!r} has infinite values", "Y", "make them missing, or mend them")
    return pd.DataFrame({"response": list(frame.columns)}), values


def _patterns(finite: NDArray[np.bool_]) -> Iterator[tuple[Codes, NDArray[np.bool_]]]:
    """Responses that have the same rows: their positions, and those rows as flags."""
    if finite.all():
        yield np.arange(finite.shape[1]), finite[:, 0]
        return
    packed = np.packbits(finite, axis=0).T
    first, which = equal_rows(packed)
    for k, i in enumerate(first):
        yield np.flatnonzero(which == k), finite[:, i]


def _with_rows(model: BatchModel, rows: NDArray[np.bool_]) -> BatchModel:
    """The model on some of its rows."""
    if rows.all():
        return model
    if not rows.any():
        raise DataError("every value of the response is missing", "Y", "leave the response out")
    design = model.design
    if not full_rank(design.near_X[rows]):
        raise DataError("the rows that are left do not tell the fixed effects apart", "a response with missing values", "leave it out")
    return model.with_design(without(design, ~rows))
