"""Influence: of single observations by leverage, of whole groups by leaving them out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bayeslmm.arrays import Array
from bayeslmm.data.design import GroupingFactor
from bayeslmm.errors import BayesLMMWarning, InferenceError
from bayeslmm.inference import doors
from bayeslmm.inference.deletions import Deletion, deletions, demand_likelihood
from bayeslmm.inference.hat import leverage
from bayeslmm.inference.replicates import Statistic, redesigned, statistic_values
from bayeslmm.inference.resampling import resampling_factor, without
from bayeslmm.results.fit import Fit
from bayeslmm.results.rows import demand_one_of

SURE, LONG = 3.0, 60.0
"""Seconds after which a run without a bar knows how long it will be, and from which it says so."""


def influence(
    fit: Fit, group: str | None = None, *, values: str = "estimates", refit: bool = True, progress: bool | None = None
) -> pd.DataFrame:
    """How much the fit rests on single observations, or on the levels of a grouping factor.

    Without `group`: `hat` (leverage) and `cooks_distance` of every row, `h / (1 - h)^2 r^2 / p` with the Pearson residual r, as lme4.
    With it: `level`, one column per coefficient, `cooks_distance`, `(K - p) / K (a - a_k)' vcov^-1 (a - a_k) / p` for the coefficients a_k
    without level k of K, as lme4.

    values : "estimates", the coefficients without the level; "dfbetas", (a - a_k) in standard errors of the fit without it
    refit : estimate covariance parameters again without each level; False holds them, which is quick and usually near
    progress : a bar on the terminal; by default where there is one. A long run without a bar warns of how long it will be

    Levels without which the model is not identified have NaN. Ctrl-C keeps the levels that are done, with a warning.

    >>> fit.influence("Subject").columns.tolist()
    ['level', 'Intercept', 'Days', 'cooks_distance']
    """
    demand_one_of(values, ("estimates", "dfbetas"), "values")
    if group is None:
        return _rows(fit)
    demand_likelihood(fit, "influence of groups")
    factor = resampling_factor(fit.design, group)
    assert factor is not None
    found = _gathered(fit, factor, refit, progress)
    alpha = np.array([deletion.alpha for deletion in found])
    change = fit.fixef_kept - alpha
    errors = np.sqrt(np.array([np.diagonal(deletion.vcov) for deletion in found]))
    shown = alpha if values == "estimates" else change / errors
    p = len(fit.fixef_kept)
    distance = np.einsum("kx,xy,ky->k", change, np.linalg.inv(fit.vcov_kept), change) * _share(factor.size, p)
    columns = np.full((len(found), len(fit.design.coef_names)), np.nan)
    columns[:, list(fit.design.kept)] = shown
    frame = pd.DataFrame(columns, columns=list(fit.design.coef_names))
    frame.insert(0, "level", factor.levels[: len(found)].tolist())
    return frame.assign(cooks_distance=distance)


def _gathered(fit: Fit, factor: GroupingFactor, refit: bool, progress: bool | None) -> list[Deletion]:
    """Level by level, as far as one gets."""
    found: list[Deletion] = []
    source = deletions(fit, factor, refit)
    with doors.progress_bar("influence", factor.size, progress) as advance:
        try:
            for deletion in source if doors.bar_shown(progress) else _foretold(source, factor.size, refit):
                found.append(deletion)
                advance(1)
        except KeyboardInterrupt:
            if not found:
                raise
            what = f"interrupted after {len(found):,} of {factor.size:,} levels"
            warnings.warn(BayesLMMWarning(what, factor.name, "the levels done are kept, the others left out"), stacklevel=5)
    return found


def _foretold(source: Iterator[Deletion], size: int, refit: bool) -> Iterator[Deletion]:
    """The same, with a warning once it is clear that all of them will take long."""
    begin, told = time.perf_counter(), False
    for done, deletion in enumerate(source, start=1):
        elapsed = time.perf_counter() - begin
        if not told and elapsed > SURE:
            told, total = True, elapsed / done * size
            if total > LONG:
                what = f"leaving out each of {size:,} levels will take about {_duration(total)}"
                remedy = "refit=False holds covariance parameters and is quick; Ctrl-C keeps" if refit else "Ctrl-C keeps"
                warnings.warn(BayesLMMWarning(what, "influence", f"{remedy} the levels done; progress=True shows a bar"), stacklevel=6)
        yield deletion


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _share(K: int, p: int) -> float:
    return (K - p) / (K * p) if p else float("nan")


def _rows(fit: Fit) -> pd.DataFrame:
    hat, p = leverage(fit), len(fit.fixef_kept)
    if p == 0:
        raise InferenceError(
            "a model without fixed effects has no Cook's distance", "influence", "name a grouping factor: influence('group')"
        )
    pearson = fit.residuals("pearson")
    with np.errstate(divide="ignore", invalid="ignore"):
        cooks = (pearson / (1.0 - hat)) ** 2 * hat / p
    return pd.DataFrame({"hat": hat, "cooks_distance": cooks}, index=fit.design.index)


def jackknife(fit: Fit, group: str | None, statistic: Statistic | None) -> Array:
    """All parameters, or a statistic, without each level of the top grouping factor (each row, without groups); (K, values)."""
    try:
        factor = resampling_factor(fit.design, group)
    except InferenceError:
        # crossed factors under a parametric bootstrap: the one with the fewest levels stands for independent parts of the data
        factor = min((term.group for term in fit.design.terms), key=lambda g: g.size)
    if statistic is None:
        return np.array([deletion.parameters for deletion in deletions(fit, factor, refit=True)])
    codes = np.arange(fit.nobs) if factor is None else factor.codes
    found = []
    for level in range(int(codes.max()) + 1):
        model = redesigned(fit.model, without(fit.design, codes == level))
        found.append(statistic_values(statistic(model.fit(fit.method))))
    return np.array(found)
