"""Does it matter how the optimum was looked for? The same criterion from other starts and by other methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from bayeslmm.arrays import Array
from bayeslmm.estimate.estimate import search
from bayeslmm.results.fit import Fit
from bayeslmm.seeds import generator

BIG = 1e300


def allfit(fit: Fit, starts: int = 5, seed: int = 0) -> pd.DataFrame:
    """One row per search: `search, criterion, excess, max_change, converged`, as lme4's allFit.

    Newton from the default start, from `starts` random ones, then L-BFGS-B, BFGS and Nelder-Mead of SciPy from the default start.
    excess : criterion above that of the fit (a negative one means that the fit is not at the optimum)
    max_change : largest change of a fixed effect in its standard errors

    >>> bool(allfit(fit)["excess"].abs().max() < 1e-3)
    True
    """
    problem, restricted = fit.problem, fit.restricted
    rng = generator(seed)
    begin = problem.start
    rows = []

    def add(name: str, run: Callable[[], tuple[Array, bool]]) -> None:
        x, converged = run()
        point = problem.criterion.at(x, restricted, order=0)
        change = np.nan
        if point.state is not None and len(fit.fixef_kept):
            alpha = problem.alpha(point.state.solution.alpha[0])
            change = float(np.max(np.abs(alpha - fit.fixef_kept) / np.sqrt(np.diagonal(fit.vcov_kept))))
        excess = point.value - fit.criterion
        rows.append({"search": name, "criterion": point.value, "excess": excess, "max_change": change, "converged": converged})

    def newton(start: Array) -> tuple[Array, bool]:
        outcome = search(problem, restricted, start)[0]
        return outcome.point.x, outcome.converged

    def other(method: str) -> tuple[Array, bool]:
        run: Any = minimize
        if method == "Nelder-Mead":
            options = {"maxiter": 2000 * len(begin), "xatol": 1e-8, "fatol": 1e-9}
            found = run(lambda x: _value(fit, x), begin, method="Nelder-Mead", options=options)
        else:
            found = run(lambda x: _value(fit, x), begin, method=method, jac=lambda x: _gradient(fit, x))
        return np.asarray(found.x), bool(found.success)

    add("newton", partial(newton, begin))
    for number in range(starts):
        start = begin * np.exp(rng.normal(size=len(begin))) + 0.3 * rng.normal(size=len(begin))
        add(f"newton, start {number + 1}", partial(newton, start))
    if len(begin):
        for method in ("L-BFGS-B", "BFGS", "Nelder-Mead"):
            add(method, partial(other, method))
    return pd.DataFrame(rows)


def _value(fit: Fit, x: Array) -> float:
    value = float(fit.problem.criterion.values(x[None], fit.restricted)[0])
    return value if np.isfinite(value) else BIG


def _gradient(fit: Fit, x: Array) -> Array:
    return np.nan_to_num(fit.problem.criterion.at(x, fit.restricted, order=1).gradient)
