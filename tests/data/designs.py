"""Small designs for the tests of `data`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.data.build import build_design
from bayeslmm.data.design import Design
from bayeslmm.errors import Check
from bayeslmm.formula.parse import parse_formula, parse_residual, parse_variance
from bayeslmm.specification.model_spec import ModelSpec


def build(formula: str, data: Any, *, residual: str | None = None, variance: str | None = None, **options: Any) -> Design:
    """The design of a formula on data; names of columns, or arrays, as weights and offset."""
    beside = {name: options.pop(name) for name in ("weights", "offset") if not isinstance(options.get(name), str | None)}
    given = {name: options.pop(name) for name in ("relationship", "functions") if name in options}
    spec = ModelSpec(
        parse_formula(formula, frozenset(given.get("functions", {}))),
        residual=None if residual is None else parse_residual(residual),
        variance=() if variance is None else parse_variance(variance),
        relationship=tuple(given.get("relationship", ())),
        contrasts=tuple(options.pop("contrasts", {}).items()),
        **options,
    )
    return build_design(spec, data, **beside, **given)


def notes(design: Design) -> dict[str, Check]:
    """Notes by name: what passed is none."""
    return {note.name: note for note in design.notes if note.verdict != "passed"}


def days(seed: int = 1) -> pd.DataFrame:
    """Ten subjects, six rows each: y and x numbers, k small integers, arm and visit factors, g the subject."""
    rng = np.random.default_rng(seed)
    n = 60
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "k": np.tile([1, 2, 3], 20),
            "arm": pd.Categorical(np.repeat(["CTL", "TRT"], 30)),
            "visit": pd.Categorical(np.tile([f"V{i}" for i in range(1, 7)], 10), ordered=True),
            "day": np.tile(np.arange(6.0), 10),
            "g": np.repeat([f"s{i}" for i in range(10)], 6),
            "h": np.tile([f"i{i}" for i in range(6)], 10),
        }
    )
