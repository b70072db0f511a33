"""Shares of the variance with limits by parametric bootstrap and by grouping factor; standardized data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, seed_sequence
from bayeslmm._validation import require_count, require_flag, require_level
from bayeslmm.data.variables import NumericVariable
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.variance_parts import term_variances, variance_parts
from bayeslmm.results.estimates import Estimates


def shares_table(
    fit: Estimates, table: Callable[[Estimates], pd.DataFrame], conf_int: bool, conf_level: float, n: int, seed: int | None
) -> pd.DataFrame:
    """A table of shares; with limits `estimate, std_error, conf_low, conf_high`: percentiles of parametric replicates."""
    level, count = require_level(conf_level), require_count(n, "n")
    seed_sequence(seed)
    if not require_flag(conf_int, "conf_int"):
        return table(fit)

    def shares(one: Estimates) -> dict[str, float]:
        frame = table(one)
        if "group" not in frame:
            return {str(name): float(frame[name].iloc[0]) for name in frame}
        rows = frame.set_index("group")
        return {f"{group}: {name}": float(value) for name in rows for group, value in rows[str(name)].items()}

    found = bootstrap(fit, count, seed, statistic=shares)
    low, high = np.nanquantile(found.frame.to_numpy(float), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    columns = {"estimate": found.estimate.to_numpy(float), "std_error": found.frame.std(ddof=1).to_numpy(float)}
    return pd.DataFrame(columns | {"conf_low": low, "conf_high": high}, index=list(found.frame.columns))


def icc_by_factor(fit: Estimates) -> pd.DataFrame:
    """`group, adjusted, unadjusted`: the share of each grouping factor in the variance, without and with that of the fixed part."""
    parts, sigma2 = variance_parts(fit), fit.problem.sigma2(fit.point.sigma2)
    own: dict[str, float] = {}
    for term, variance in zip(fit.design.terms, term_variances(fit, fit.point.x), strict=True):
        own[term.group.name] = own.get(term.group.name, 0.0) + variance * sigma2
    values = np.array(list(own.values()))
    return pd.DataFrame({"group": list(own), "adjusted": values / (parts.random + parts.error), "unadjusted": values / parts.total})


def standardized_data(fit: Estimates) -> tuple[pd.DataFrame, Array]:
    """The data with every covariate that stands by itself over its sd, about its mean; and the response, as the model has it, likewise."""
    design = fit.design
    if design.weights is not None or design.offset is not None:
        raise SpecificationError(
            "a model with weights or an offset has no standardized coefficients", "standardized()", "scale the columns"
        )
    block = design.encoding.fixed_block
    alone = {atom.name for atom in block.atoms.values() if isinstance(atom, NumericVariable)}
    within = {name for atom in block.atoms.values() if not isinstance(atom, NumericVariable) for name in atom.columns}
    frame = design.frame.copy()
    for name in alone - within:
        values = frame[name].to_numpy(float)
        frame[name] = (values - values.mean()) / values.std(ddof=1)
    return frame, (design.y - design.y.mean()) / design.y.std(ddof=1)
