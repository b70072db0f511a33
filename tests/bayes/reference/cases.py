"""The models with a stored reference posterior, and the scalars of a posterior by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import bayeslmm as blm
from bayeslmm._arrays import Array

FOLDER = Path(__file__).parent
PROBABILITIES = (0.05, 0.5, 0.95)
LEVELS = 20
"""Levels of a grouping factor whose random effects are compared."""

CASES: dict[str, dict[str, str]] = {
    "Dyestuff": {"data": "Dyestuff", "formula": "Yield ~ 1 + (1 | Batch)"},
    "sleepstudy": {"data": "sleepstudy", "formula": "Reaction ~ Days + (Days | Subject)"},
    "Penicillin": {"data": "Penicillin", "formula": "diameter ~ 1 + (1 | plate) + (1 | sample)"},
    "Pastes": {"data": "Pastes", "formula": "strength ~ 1 + (1 | batch / cask)"},
    "Machines": {"data": "Machines", "formula": "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)"},
    "trial": {"data": "trial", "formula": "BCVA_CHG ~ VISITN + BCVA_BL + (1 | USUBJID)"},
    "Orthodont ar1": {"data": "Orthodont", "formula": "distance ~ age * Sex + (1 | Subject)", "residual": "ar1(age | Subject)"},
}


def model(name: str) -> blm.LMM:
    """The model of a case under the default priors."""
    own = dict(CASES[name])
    data = blm.load_dataset(own.pop("data"))
    # random effects are stored by position: levels in the order of their labels
    groups = [name for name in ("Worker", "Subject") if name in data]
    return blm.LMM(data=data.astype(dict.fromkeys(groups, str)), check="warn", **own)


def path(name: str) -> Path:
    return FOLDER / f"{name.replace(' ', '_')}.json"


def scalars(variables: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
    """Name and draws (chains, draws) of every scalar, from arrays (chains, draws, ...).

    Of a correlation matrix what is below the diagonal, of random effects those of the first levels.
    """
    for name, values in variables.items():
        array = np.asarray(values, float)
        if name.startswith("corr_"):
            rows, columns = np.tril_indices(array.shape[-1], -1)
            yield from ((f"{name}[{i},{j}]", array[..., i, j]) for i, j in zip(rows, columns, strict=True))
            continue
        if name.startswith("beta_"):
            array = array[:, :, :LEVELS]
        for index in np.ndindex(array.shape[2:]):
            label = ",".join(map(str, index))
            yield (f"{name}[{label}]" if label else name), array[(slice(None), slice(None), *index)]
