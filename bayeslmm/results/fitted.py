"""Fitted values, residuals and conditional modes of a fit's own rows and levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm._validation import require_one_of
from bayeslmm.data.frame import read_table
from bayeslmm.data.model_matrix import name_parts
from bayeslmm.likelihood.structured.residual_covariance import residual_sds, whiten_errors
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.random_effects import terms_by_group

if TYPE_CHECKING:
    from bayeslmm.results.estimates import Estimates


def population_mean(fit: Estimates) -> Array:
    """X alpha + offset, (n,)."""
    design = fit.design
    values = design.X @ fit.fixef_kept
    return values if design.offset is None else values + design.offset


def conditional_mean(fit: Estimates) -> Array:
    """X alpha + offset + Z beta, (n,)."""
    values = population_mean(fit)
    for term, beta in zip(fit.design.terms, fit.modes, strict=True):
        values = values + np.einsum("nq,nq->n", term.Z, beta[term.group.codes])
    return values


def fitted_values(fit: Estimates, level: str) -> Array:
    require_one_of(level, ("conditional", "population"), "level")
    return conditional_mean(fit) if level == "conditional" else population_mean(fit)


def residuals(fit: Estimates, kind: str) -> Array:
    require_one_of(kind, ("response", "pearson", "normalized", "marginal"), "kind")
    y = fit.design.y
    if kind == "marginal":
        return y - population_mean(fit)
    errors = y - conditional_mean(fit)
    if kind == "pearson":
        return np.asarray(errors / residual_sds(fit.problem, fit.point))
    return whiten_errors(fit.problem, fit.point, errors) if kind == "normalized" else errors


def augment_columns(fit: Estimates) -> dict[str, Any]:
    """`fitted`, `fixed`, `resid`, `pearson`, and offset and weights where the model has them."""
    design, fixed = fit.design, population_mean(fit)
    values = conditional_mean(fit)
    errors = design.y - values
    columns = {"fitted": values, "fixed": fixed, "resid": errors, "pearson": errors / residual_sds(fit.problem, fit.point)}
    if design.offset is not None:
        columns["offset"] = design.offset
    if design.weights is not None:
        columns["weights"] = design.weights * design.weight_scale
    return columns


def join_columns(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """The frame with new columns; a name that the frame already has gets a dot in front."""
    out = frame.copy()
    for name, values in columns.items():
        free = name
        while free in out.columns:
            free = f".{free}"
        out[free] = np.asarray(values)
    return out


def as_pandas(data: Any) -> pd.DataFrame:
    """All columns of any frame, as pandas."""
    return read_table(data, ()).frame if not isinstance(data, pd.DataFrame) else data


def mode_frames(fit: Estimates) -> dict[str, pd.DataFrame]:
    """Grouping factor -> conditional modes, levels x columns of all its terms."""
    return _frames(fit, fit.modes)


def sd_frames(fit: Estimates) -> dict[str, pd.DataFrame]:
    """Grouping factor -> conditional standard deviations of the same shape."""
    return _frames(fit, [np.sqrt(np.maximum(np.diagonal(C, axis1=1, axis2=2), 0.0)) for C in fit.mode_covariances])


def _frames(fit: Estimates, values: Sequence[Array]) -> dict[str, pd.DataFrame]:
    terms, frames = fit.design.terms, {}
    for group, members in terms_by_group(terms).items():
        levels = pd.Index(terms[members[0]].group.levels.tolist(), name=group)
        names = [name for i in members for name in terms[i].columns]
        frames[group] = pd.DataFrame(np.hstack([values[i] for i in members]), index=levels, columns=names)
    return frames


def coefficient_frames(fit: Estimates) -> dict[str, pd.DataFrame]:
    """Grouping factor -> fixed effects plus conditional modes, levels x coefficients; a random column without a fixed one stands alone."""
    return {group: add_fixed(modes, fit.fixef) for group, modes in mode_frames(fit).items()}


def add_fixed(modes: pd.DataFrame, fixed: pd.Series[float]) -> pd.DataFrame:
    """Fixed effects plus the random effects of the same columns; the factors of an interaction may come in another order there."""
    own = {name_parts(name): name for name in fixed.index}
    columns = [own.get(name_parts(name), name) for name in modes.columns]
    names = [*fixed.index, *dict.fromkeys(name for name in columns if name not in fixed.index)]
    values = np.tile([fixed.get(name, 0.0) for name in names], (len(modes), 1))
    for name, effects in zip(columns, modes.to_numpy().T, strict=True):
        values[:, names.index(name)] += effects
    return pd.DataFrame(values, index=modes.index, columns=names)
