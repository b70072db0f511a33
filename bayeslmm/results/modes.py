"""Conditional modes of the random effects, level by level, with their standard deviations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.data.model_matrix import name_parts
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.random_effects import terms_by_group


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
