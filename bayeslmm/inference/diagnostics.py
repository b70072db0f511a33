"""Diagnostics of a fit: R2 and ICC, conditional AIC, simulated residuals, other optimisers (`allfit`).

The conditional AIC: for predictions of the groups at hand, where the marginal AIC is for groups yet to come.

    cAIC = -2 log p(y | alpha^, beta^) + 2 (rho + 1),   rho = sum_i d y^_i / d y_i

rho is the trace of the leverage plus what y moves through the covariance parameters (Greven and Kneib 2010), found by the implicit
function theorem: theta moves with y by `-H^-1 d2f / dtheta dy`, f the profiled criterion, whose derivative in y is `2 d / r2 V0^-1 e`.

Simulated residuals rank each observation among responses simulated from the fit (as DHARMa), with new random effects and new errors:
under a right model they are uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, generator, seed_sequence
from bayeslmm.errors import InferenceError
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.fixed_effects.degrees_of_freedom import pseudo_inverse
from bayeslmm.inference.influence import leverage
from bayeslmm.inference.variance_components import variance_parts
from bayeslmm.likelihood.prediction import conditional_means, conditional_modes
from bayeslmm.likelihood.structured.residual_covariance import parameter_units, residual_sds
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import population_mean, residuals, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import AxesLike


def r2(fit: Estimates) -> pd.DataFrame:
    """Nakagawa's R2, one row: `conditional` (fixed and random part), `marginal` (fixed part); random slopes as Johnson (2014).

    >>> fit.r2().round(3).to_numpy().tolist()
    [[0.799, 0.279]]
    """
    parts = variance_parts(fit)
    return pd.DataFrame({"conditional": [(parts.fixed + parts.random) / parts.total], "marginal": [parts.fixed / parts.total]})


def icc(fit: Estimates) -> pd.DataFrame:
    """Intraclass correlation, one row: `adjusted` (of what the fixed part leaves), `unadjusted` (of the whole variance).

    >>> fit.icc().round(3).to_numpy().tolist()
    [[0.722, 0.521]]
    """
    parts = variance_parts(fit)
    return pd.DataFrame({"adjusted": [parts.random / (parts.random + parts.error)], "unadjusted": [parts.random / parts.total]})


CAIC_STEP = 1e-4
"""Step of the central differences in x: their error is of its square."""


def caic(fit: Estimates) -> pd.DataFrame:
    """One row: `caic, loglik` (conditional), `df` (rho), `df_known` (the trace of the leverage, as if covariance parameters were known).

    Raises InferenceError for structured errors, under which an observed outcome is its own best prediction.

    >>> caic(fit)["df"].round(1).item() > caic(fit)["df_known"].round(1).item()
    True
    """
    if fit.problem.structured is not None:
        raise InferenceError(
            "the conditional AIC is not defined for structured errors", "residual= or variance=", "compare by aic, or by loo of a posterior"
        )
    sds = residual_sds(fit.problem, fit.point)
    loglik = -0.5 * float(np.sum((residuals(fit, "response") / sds) ** 2) + 2.0 * np.log(sds).sum() + fit.nobs * np.log(2.0 * np.pi))
    known = float(leverage(fit).sum())
    df = known + _parameter_uncertainty(fit)
    return pd.DataFrame({"caic": [-2.0 * loglik + 2.0 * (df + 1.0)], "loglik": [loglik], "df": [df], "df_known": [known]})


def _parameter_uncertainty(fit: Estimates) -> float:
    """sum_i (d y^_i / d theta)' (d theta / d y_i)."""
    size, x = fit.problem.size, fit.estimate.x
    units = parameter_units(fit.problem, x)
    if size == 0:
        return 0.0
    moved, slopes, H = np.empty((size, fit.nobs)), np.empty((size, fit.nobs)), np.empty((size, size))
    for k in range(size):
        step = np.zeros(size)
        step[k] = CAIC_STEP * units[k]
        up, down = _at(fit, x + step), _at(fit, x - step)
        moved[k], slopes[k], H[k] = ((a - b) / (2.0 * step[k]) for a, b in zip(up, down, strict=True))
    return -float(np.einsum("jn,jk,kn->", moved, pseudo_inverse(0.5 * (H + H.T), units), slopes))


def _at(fit: Estimates, x: Array) -> tuple[Array, Array, Array]:
    """Fitted values, the derivative of the criterion in y, its gradient in x, at other covariance parameters."""
    problem, design = fit.problem, fit.design
    point = problem.criterion.at(x, fit.restricted, order=1)
    assert point.state is not None
    fitted = conditional_means(problem, point, problem.alpha(point.state.solution.alpha[0]), conditional_modes(problem, point))
    weights = 1.0 if design.weights is None else design.weights
    # V0^-1 (y - X alpha) = W (y - X alpha - Z beta), and r2 / d is sigma^2
    return fitted, 2.0 * weights * (design.y - fitted) / problem.sigma2(point.sigma2), point.gradient


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedResiduals:
    """values : (nobs,) in (0, 1); fitted : (nobs,) population means; simulations : (nobs, n) responses; observed : (nobs,)."""

    values: Array
    fitted: Array
    simulations: Array
    observed: Array

    def tests(self) -> pd.DataFrame:
        """`test, statistic, p_value`: uniformity (Kolmogorov-Smirnov), dispersion (variance about the mean against that of simulations),
        outliers (observations beyond all simulations).

        Observations of one group are dependent; p values are a guide, not a verdict.

        >>> simulated_residuals(fit, seed=1).tests()["test"].tolist()
        ['uniformity', 'dispersion', 'outliers']
        """
        from scipy import stats

        ks = stats.kstest(self.values, "uniform")
        center = self.simulations.mean(axis=1)
        own, drawn = np.var(self.observed - center), np.var(self.simulations - center[:, None], axis=0)
        share = float(np.mean(drawn >= own))
        n = self.simulations.shape[1]
        outside = int(np.sum((self.observed < self.simulations.min(axis=1)) | (self.observed > self.simulations.max(axis=1))))
        outliers = stats.binomtest(outside, len(self.observed), 2.0 / (n + 1))
        return pd.DataFrame(
            {
                "test": ["uniformity", "dispersion", "outliers"],
                "statistic": [float(ks.statistic), float(own / drawn.mean()), float(outside)],
                "p_value": [float(ks.pvalue), min(1.0, 2.0 * min(share, 1.0 - share) + 1.0 / n), float(outliers.pvalue)],
            }
        )

    def plot(self, ax: AxesLike = None) -> list[Axes]:
        """Uniform quantiles, and values against fitted ranks.

        >>> axes = simulated_residuals(fit, seed=1).plot()
        """
        from bayeslmm.plots.residuals import simulated_axes

        return simulated_axes(self, ax)


def simulated_residuals(fit: Estimates, n: int = 250, seed: int | None = None) -> SimulatedResiduals:
    """Rank every observation among n simulated ones; ties and gaps between ranks are filled at random.

    >>> simulated_residuals(fit, seed=1).values.shape
    (180,)
    """
    if isinstance(n, bool) or int(n) != n or n < 20:
        raise InferenceError(f"{n!r} simulations are too few to rank among", "n", "give 100 or more")
    simulations = simulate(fit, int(n), seed).to_numpy()
    observed = fit.design.y
    below, upto = (simulations < observed[:, None]).sum(axis=1), (simulations <= observed[:, None]).sum(axis=1)
    jitter = np.random.default_rng(seed_sequence(seed).spawn(int(n) + 1)[-1]).uniform(size=len(observed))
    values = (below + jitter * (upto - below + 1)) / (n + 1)
    return SimulatedResiduals(values, population_mean(fit), simulations, observed)


LARGE_CRITERION = 1e300


def allfit(fit: Estimates, starts: int = 5, seed: int = 0) -> pd.DataFrame:
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
        from scipy.optimize import minimize

        run: Any = minimize
        if method == "Nelder-Mead":
            options = {"maxiter": 2000 * len(begin), "xatol": 1e-8, "fatol": 1e-9}
            found = run(lambda x: _value(fit, x), begin, method="Nelder-Mead", options=options)
        else:
            found = run(
                lambda x: _value(fit, x),
                begin,
                method=method,
                jac=lambda x: np.nan_to_num(fit.problem.criterion.at(x, fit.restricted, order=1).gradient),
            )
        return np.asarray(found.x), bool(found.success)

    add("newton", partial(newton, begin))
    for number in range(starts):
        start = begin * np.exp(rng.normal(size=len(begin))) + 0.3 * rng.normal(size=len(begin))
        add(f"newton, start {number + 1}", partial(newton, start))
    if len(begin):
        for method in ("L-BFGS-B", "BFGS", "Nelder-Mead"):
            add(method, partial(other, method))
    return pd.DataFrame(rows)


def _value(fit: Estimates, x: Array) -> float:
    value = float(fit.problem.criterion.values(x[None], fit.restricted)[0])
    return value if np.isfinite(value) else LARGE_CRITERION
