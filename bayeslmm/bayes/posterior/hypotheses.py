"""What draws say of statements about the coefficients, and how that depends on priors and data (power-scaling).

The draws are joint ones of alpha and the covariance parameters, beta integrated out: a power of the priors is one of all of them, alpha's
included, and a power of the likelihood is one of p(y | alpha, covariance parameters).
"""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr

from bayeslmm._arrays import Array, generator
from bayeslmm._validation import MAX_SIZE, number_below, require_level
from bayeslmm.bayes.posterior.data import PosteriorData
from bayeslmm.bayes.posterior.datatree import joint_log_prior
from bayeslmm.bayes.posterior.tables import equal_tailed_limits, parameter_draws
from bayeslmm.errors import SpecificationError, optional, show_value
from bayeslmm.inference.means.linear_functions import estimable_functions
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.specification.prior_families import FAMILIES, is_mixture

if TYPE_CHECKING:
    from bayeslmm.bayes.posterior.data import PosteriorData


SIGNS = re.compile(r"(<=|>=|==|=|<|>)")

CONDITIONAL_DRAWS = 1000
"""Draws whose conditional densities are averaged."""

PRIOR_DRAWS = 20_000
"""Draws of the scales of mixed priors that a prior probability is averaged over."""


def judge_hypotheses(post: PosteriorData, statements: list[str], conf_level: float) -> pd.DataFrame:
    """One row per statement `left > right`, `left < right` or `left = right`, both sides linear in the coefficients."""
    rows, conf_level = [], require_level(conf_level)
    for text in statements:
        parts = SIGNS.split(text)
        if len(parts) != 3:
            raise SpecificationError(f"{text!r} is no statement about coefficients", "hypothesis", 'write it as "x > 0" or "a - b = 0"')
        left, sign, right = (part.strip() for part in parts)
        _require_coefficients(post, text)
        functions = estimable_functions([f"{left} = {right}"], post.design, post.problem.standardization)
        L = functions.L[0]
        draws = post.draws.alpha @ L - functions.rhs[0]
        low, high = equal_tailed_limits(draws, conf_level)
        at = float(functions.rhs[0])
        probability, factor = _point(post, L, at) if sign in ("=", "==") else _half(post, L, at, draws, sign)
        rows.append((text, draws.mean(), draws.std(ddof=1), low, high, probability, factor))
    return pd.DataFrame(rows, columns=["hypothesis", "estimate", "std_error", "conf_low", "conf_high", "probability", "bayes_factor"])


def _require_coefficients(post: PosteriorData, text: str) -> None:
    """Refuse a statement about a covariance parameter, which is asked of its draws."""
    words = set(re.findall(r"[\w.]+", text)) - {word for name in post.design.coef_names for word in re.findall(r"[\w.]+", name)}
    named = sorted(word for word in words if word == "sigma" or word.startswith(("sd_", "corr_", "cor_")))
    if named:
        remedy = f'ask its draws: (post.tree.posterior["{named[0].partition("__")[0]}"] > 1).mean(), with .sel(...) where there are several'
        raise SpecificationError(f"{text!r} is about a covariance parameter, not about coefficients", "hypothesis", remedy)


def _half(post: PosteriorData, L: Array, rhs: float, draws: Array, sign: str) -> tuple[float, float]:
    """Posterior probability of one side, and its posterior odds over its prior odds."""
    above = sign.startswith(">")
    inside = float(np.mean(draws > 0 if above else draws < 0))
    prior = _prior_normals(post, L)
    if prior is None:
        return inside, np.nan
    mean, sd = prior
    before = float(ndtr((mean - rhs) / sd if above else (rhs - mean) / sd).mean())
    odds = inside / (1.0 - inside) if inside < 1.0 else np.inf
    return inside, odds * (1.0 - before) / before


def _point(post: PosteriorData, L: Array, rhs: float) -> tuple[float, float]:
    """Savage and Dickey's ratio: the posterior density over the prior density at the point, and the probability at even prior odds."""
    prior = _prior_normals(post, L)
    if prior is None:
        return np.nan, np.nan
    chosen = np.unique(np.linspace(0, post.draws.size - 1, min(post.draws.size, CONDITIONAL_DRAWS)).astype(int))
    means, sds = _posterior_normals(post, L, chosen)
    factor = float(_density(rhs, means, sds).mean() / _density(rhs, *prior).mean())
    return factor / (1.0 + factor), factor


def _density(at: float, mean: Array, sd: Array) -> Array:
    return np.asarray(np.exp(-0.5 * ((at - mean) / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi)))


def _posterior_normals(post: PosteriorData, L: Array, chosen: Array) -> tuple[Array, Array]:
    """Mean and sd of L alpha given the covariance parameters of some draws: its distribution there is normal."""
    target, phi, c = post.density, post.draws.phi[chosen], post.problem.standardization
    means, sds = np.empty(len(phi)), np.empty(len(phi))
    row = c.y_scale * c.back.T @ L
    with one_thread(post.problem.criterion.width):
        for begin in range(0, len(phi), target.value_batch):
            part = slice(begin, begin + target.value_batch)
            x, s = target.kernel_points(phi[part])
            solution = target.kernel.solve(x) if target.pooled is None else target.pooled.solve(x)
            found = target.integrate(solution, s**2, phi[part]).solution
            means[part] = L @ c.alpha0 + found.alpha @ row
            sds[part] = s * np.sqrt(np.einsum("a,tab,b->t", row, found.information_inverse, row))
    return means, sds


def _prior_normals(post: PosteriorData, L: Array) -> tuple[Array, Array] | None:
    """L alpha a priori as a mixture of normals, means and sds; None where a coefficient in it has a flat prior."""
    alpha = post.density.alpha
    own = L.copy()
    if alpha.means is not None:
        own[1:] -= L[0] * alpha.means[1:]
    used = np.flatnonzero(own)
    if any(alpha.priors[j].family == "flat" for j in used):
        return None
    u = generator(0).standard_normal((PRIOR_DRAWS, len(used)))
    variance = np.zeros(PRIOR_DRAWS)
    for column, j in enumerate(used):
        prior, mixture = alpha.priors[j], FAMILIES[alpha.priors[j].family].mixture
        spread = mixture(*prior.parameters, u[:, column])[0] if mixture is not None and is_mixture(prior) else prior.parameters[1] ** 2
        variance += own[j] ** 2 * spread
    return np.full(PRIOR_DRAWS, own @ alpha.mean), np.sqrt(variance)


def rope_shares(post: PosteriorData, low: float, high: float, terms: list[str] | None, conf_level: float) -> pd.DataFrame:
    """Share of the posterior of each coefficient within [low, high], and of its central interval."""
    first_end, last_end = (v if isinstance(v, float) and math.isinf(v) else number_below(v, MAX_SIZE) for v in (low, high))
    for argument, value, end in (("low", low, first_end), ("high", high, last_end)):
        if math.isnan(end):
            raise SpecificationError(
                f"{argument} is {show_value(value)}", argument, 'give two numbers, and terms after them: rope(-1, 1, "x")'
            )
    if not first_end < last_end:
        raise SpecificationError(f"the region from {show_value(low)} to {show_value(high)} is empty", "rope", "give low below high")
    names = post.coef_names if terms is None else terms
    unknown = [name for name in names if name not in post.coef_names]
    if unknown:
        raise SpecificationError(f"there is no coefficient {unknown[0]!r}", "rope", "use one of " + ", ".join(post.coef_names))
    rows = []
    for name in names:
        draws = post.draws.alpha[:, post.coef_names.index(name)]
        first, last = equal_tailed_limits(draws, conf_level)
        inside = (draws >= first_end) & (draws <= last_end)
        central = (draws >= first) & (draws <= last)
        share = inside[central].mean() if central.any() else np.nan  # a narrow interval may hold no draw
        rows.append((name, draws.mean(), first, last, inside.mean(), share))
    return pd.DataFrame(rows, columns=["term", "estimate", "conf_low", "conf_high", "probability", "of_interval"])


NO_CONFLICT = "fine"
"""The diagnosis of a parameter that neither priors nor likelihood move too much."""


def sensitivity(post: PosteriorData, threshold: float = 0.05) -> pd.DataFrame:
    """`az.psense_summary` of the coefficients and covariance parameters: change of the posterior with a power of prior or likelihood.

    Prior: of alpha and the covariance parameters. Likelihood: of y given both, beta integrated out. Columns `prior, likelihood, diagnosis`.

    >>> sensitivity(post).columns.tolist()
    ['prior', 'likelihood', 'diagnosis']
    """
    xarray = optional("xarray")
    dims, coords = ("chain", "draw"), {"chain": np.arange(post.chains), "draw": np.arange(post.draws.size // post.chains)}
    prior = joint_log_prior(post)
    likelihood = post.density.log_likelihood_given(post.draws.phi, post.draws.alpha)
    values = dict(zip(post.coef_names, post.draws.alpha.T, strict=True))
    values |= {f"{name}|{group}": draws for group, name, draws in parameter_draws(post)}
    # what is held answers to nothing, and ArviZ would divide 0 by 0
    moved = {j: v for j, v in enumerate(values.values()) if np.ptp(v) > 0}
    # by number: a user's name may be that of a dim, or hold a slash
    groups = {
        "posterior": xarray.Dataset({f"parameter {j}": (dims, post.reshape_draws(v)) for j, v in moved.items()}, coords=coords),
        "log_prior": xarray.Dataset({"priors": (dims, post.reshape_draws(prior))}, coords=coords),
        "log_likelihood": xarray.Dataset({"y": (dims, post.reshape_draws(likelihood))}, coords=coords),
    }
    log = logging.getLogger("arviz_stats.psense")
    log.addFilter(_pass_no_record)  # it points at its table where a diagnosis is made; here the table is the answer
    try:
        table: pd.DataFrame = optional("arviz_stats").psense_summary(xarray.DataTree.from_dict(groups), threshold=threshold)
    finally:
        log.removeFilter(_pass_no_record)
    table = table.set_axis(list(moved)).reindex(range(len(values))).set_axis(list(values)).fillna({"prior": 0.0, "likelihood": 0.0})
    # ArviZ's sign for nothing to say is no letter: a terminal without Unicode could not print it
    return table.assign(diagnosis=table["diagnosis"].replace("\N{CHECK MARK}", NO_CONFLICT).fillna(NO_CONFLICT))


def _pass_no_record(record: logging.LogRecord) -> bool:  # noqa: ARG001 - a filter of logging
    """Lets no message through."""
    return False
