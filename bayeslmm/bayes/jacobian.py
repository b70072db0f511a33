"""log |dg/dy| of a response g(y), row by row: what turns densities of the transformed response into densities of the outcome itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array
from bayeslmm.errors import SpecificationError

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

    from bayeslmm.data.design import Design

RELATIVE_STEP = 1e-3
"""Steps of the five-point rule, relative to the outcome: its error is then 1e-12 for logarithms and powers."""


def outcome_columns(design: Design) -> list[str]:
    """The columns of the data that the left side of the formula reads."""
    return [str(name) for name in design.encoding.response_atom.columns]


def log_jacobian(design: Design, outcome: str | None = None) -> Array:
    """log |dg/dy| of every row, (n,), y the column `outcome`: the only one that the response reads unless it is named.

    Raises SpecificationError where the response is no smooth function of that column, row by row.
    """
    columns, text = outcome_columns(design), str(design.spec.formula.response)
    if outcome is None:
        if len(columns) != 1:
            raise SpecificationError(f"the response {text} is made of several columns", text, "make it a function of one column")
        outcome = columns[0]
    if columns == [text]:
        return np.zeros(design.nobs)
    frame = pd.DataFrame({name: design.frame[name] for name in columns})
    y = pd.to_numeric(frame[outcome], errors="coerce").to_numpy(float)
    size = np.abs(y)
    h = RELATIVE_STEP * np.where(size > 0, size, np.median(size[size > 0]) if (size > 0).any() else 1.0)

    def at(values: Array) -> Array:
        return design.encoding.response(frame.assign(**{outcome: values}))

    with np.errstate(all="ignore"):
        slope = (at(y - 2 * h) - 8 * at(y - h) + 8 * at(y + h) - at(y + 2 * h)) / (12 * h)
        odd = np.arange(len(y)) % 2 == 1
        alone = np.array_equal(at(np.where(odd, y, y + h))[odd], at(y)[odd])
        found = np.log(np.abs(slope))
    if not alone or not np.isfinite(found).all():
        raise SpecificationError(
            f"the response {text} is no smooth function of {outcome!r}, row by row: its density cannot be told from that of another scale",
            text,
            "compare models of one response",
        )
    return found


def outcome_jacobians(designs: Mapping[str, Design]) -> dict[str, Array] | None:
    """log |dg/dy| of every design (n,), y the one column of the data that all their responses are functions of; 0 where they are the same.

    None where there is no such column, or where its values or the rows differ.
    """
    first = next(iter(designs.values()))
    if any(len(d.y) != len(first.y) or not np.array_equal(d.rows, first.rows) for d in designs.values()):
        return None
    if all(np.array_equal(d.y, first.y) for d in designs.values()):
        return {name: np.zeros(d.nobs) for name, d in designs.items()}
    if not all(d.in_memory for d in designs.values()):
        return None
    shared = set.intersection(*(set(outcome_columns(d)) for d in designs.values()))
    if len(shared) != 1:
        return None
    (outcome,) = shared
    values = [d.frame[outcome].to_numpy() for d in designs.values()]
    if any(not np.array_equal(own, values[0]) for own in values[1:]):
        return None
    return {name: log_jacobian(d, outcome) for name, d in designs.items()}


def with_jacobian(elpd: ELPDData, log_jacobian: Array) -> ELPDData:
    """Predictive densities on the scale of the outcome; log_jacobian : (units,), summed over the rows of each that was left out."""
    pointwise = elpd.elpd_i + log_jacobian
    found: ELPDData = replace(elpd, elpd=float(pointwise.sum()), se=float(np.sqrt(pointwise.size * pointwise.var())), elpd_i=pointwise)
    return found
