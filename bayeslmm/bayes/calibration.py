"""Simulation-based calibration (Talts, Betancourt, Simpson, Vehtari and Gelman) of the sampler on a user's own design.

Parameters drawn from the priors, a response from them, a posterior of that response: the rank of the truth among the draws is uniform
if, and almost only if, prior, likelihood and sampler belong together. Priors keep the scale of the data given. A flat alpha has no prior
to draw from, but nothing depends on where it lies, so it is held at the least-squares estimate.

Säilynoja, Bürkner and Vehtari (2022) hold the whole distribution of ranks against simultaneous limits. Counts of uniform ranks are
multinomial, so independent Poisson counts given their sum: the probability that the distribution stays within limits everywhere is a
chain of convolutions, exact, where simulated sets of ranks would give no p value below one over their number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binom, poisson

from bayeslmm._arrays import Array, Codes, Generator, seed_sequence
from bayeslmm._validation import STREAM_NUMBERS, require_count, require_memory
from bayeslmm.bayes.held_out import on_other_problem
from bayeslmm.bayes.log_posterior.density import Density, density, require_room_for_draws
from bayeslmm.bayes.log_posterior.priors import improper_priors
from bayeslmm.bayes.posterior.data import PosteriorData, PosteriorDraws
from bayeslmm.bayes.posterior.predict import draw_posterior_errors, linear_predictor, log_likelihood
from bayeslmm.bayes.posterior.tables import parameter_draws
from bayeslmm.bayes.sampling.importance import resample_systematically, sample_importance
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.bayes.sampling.nuts import sample_nuts
from bayeslmm.bayes.sampling.prior_predictive import draw_beta, draw_phi
from bayeslmm.bayes.sampling.random_effects import joint_draws
from bayeslmm.errors import Check, PriorError, SamplingError
from bayeslmm.likelihood.problem import build_problem
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.results.render import html_of_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm._types import AxesLike

TAIL_PRECISION = 1e-3
"""Relative precision of a tail."""


def rank_distribution(ranks: Codes, draws: int) -> Array:
    """Share of ranks below 1, 2, ..., `draws`."""
    counts = np.bincount(ranks, minlength=draws + 1)
    return np.asarray(np.cumsum(counts)[:-1] / len(ranks))


def smallest_tail(ranks: Codes, draws: int) -> float:
    """Smallest two-sided binomial tail over the distribution of ranks."""
    n, x = len(ranks), np.arange(1, draws + 1) / (draws + 1)
    counts = np.rint(rank_distribution(ranks, draws) * n)
    return float(np.minimum(binom.cdf(counts, n, x), binom.sf(counts - 1, n, x)).min())


def binomial_limits(tail: float, n: int, draws: int) -> tuple[Codes, Codes]:
    """Smallest and largest counts of n ranks below 1, ..., `draws` with no binomial tail of `tail` or less."""
    x = np.arange(1, draws + 1) / (draws + 1)
    return np.asarray(binom.ppf(tail, n, x), np.int64), np.asarray(binom.isf(tail, n, x), np.int64)


def tail_probability(tail: float, n: int, draws: int) -> float:
    """Probability that n uniform ranks have a smallest tail of `tail` or less."""
    # what is equal but for rounding counts as equal
    low, high = binomial_limits(tail * (1.0 + 1e-9), n, draws)
    if np.any(low > high):
        return 1.0
    step = poisson.pmf(np.arange(n + 1), n / (draws + 1))
    # probabilities of the counts first, first + 1, ... that have stayed within the limits so far
    inside, first = np.ones(1), 0
    for a, b in zip(np.append(low, n), np.append(high, n), strict=True):
        reached = np.zeros(n + 1)
        reached[first:] = np.convolve(inside, step)[: n + 1 - first]
        inside, first = reached[a : b + 1], int(a)
    stays = float(inside[0] / poisson.pmf(n, n))
    # 1 - stays is lost in rounding below about 1e-12; the sum of all tails bounds it there
    return float(np.clip(1.0 - stays, 0.0, min(1.0, 2.0 * draws * tail)))


def simultaneous_tail(level: float, n: int, draws: int) -> float:
    """The largest tail that n uniform ranks stay above everywhere with a probability of at least 1 - `level`."""

    def excess(log_tail: float) -> float:
        return tail_probability(float(np.exp(log_tail)), n, draws) - level

    lowest, highest = float(np.log(level / (2.0 * draws))), float(np.log(level))
    if excess(highest) <= 0.0:
        return level
    # chance climbs in steps, since counts are whole: the foot of the step is meant
    return float(np.exp(brentq(excess, lowest - TAIL_PRECISION, highest, xtol=TAIL_PRECISION) - TAIL_PRECISION))


PosteriorSampler = Callable[[Density, int, Generator], PosteriorDraws]

REPLICATION_DRAWS = 1000
"""Weighted draws of a replication."""

NUTS_THINNING = 6
"""Steps of NUTS between draws kept."""

CALIBRATION_LEVEL = 0.01
"""How often a right sampler may fail: all quantities of a calibration together."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of true parameters among posterior draws.

    Attributes
    ----------
    ranks : DataFrame
        Frame (n, quantities) of numbers of draws below the truth, 0 to `draws`.
    lost : int
        Replications that no posterior was drawn for.
    elapsed : float
        Seconds.
    """

    ranks: pd.DataFrame
    draws: int
    lost: int
    elapsed: float

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per quantity: `quantity, mean_rank, p_value`; mean rank as a share, p value of the test that ranks are uniform.

        The test looks at the distribution of the ranks everywhere at once: its statistic is the smallest pointwise binomial tail, its
        p value exact, so that it may be held against a level divided by however many tests there are.
        """
        rows = []
        for name in self.ranks:
            own = self.ranks[name].to_numpy()
            p = tail_probability(smallest_tail(own, self.draws), len(own), self.draws)
            rows.append({"quantity": name, "mean_rank": float(own.mean()) / self.draws, "p_value": p})
        return pd.DataFrame(rows)

    @cached_property
    def checks(self) -> dict[str, Check]:
        """Whether the ranks of every quantity are uniform, all quantities together tested at 1 %, and whether replications were lost."""
        frame = self.frame
        worst, limit = float(frame["p_value"].min()), CALIBRATION_LEVEL / len(frame)
        name = str(frame["quantity"][int(frame["p_value"].argmin())])
        uniform = Check(
            "uniform", "passed" if worst >= limit else "failed", worst, limit, "" if worst >= limit else f"look at {name}: plot()"
        )
        lost = Check(
            "lost",
            "passed" if not self.lost else "noted",
            self.lost,
            0,
            "" if not self.lost else "the prior draws data that no sampler takes",
        )
        return {"uniform": uniform, "lost": lost}

    def plot(self, ax: AxesLike = None) -> list[Axes]:
        """The distribution of the ranks minus that of uniform ones, with a simultaneous 95% band; a quantity that leaves it in red.

        Parameters
        ----------
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = model.calibrate(20, seed=1).plot()
        """
        found = {str(name): rank_distribution(self.ranks[name].to_numpy(), self.draws) for name in self.ranks}
        from bayeslmm.plots.intervals import calibration_axes

        return calibration_axes(found, self.band(), ax)

    def band(self) -> tuple[Array, Array, Array]:
        """Places, lower and upper limits between which the distribution of uniform ranks lies everywhere, 95 times of 100.

        Returns
        -------
        tuple of ndarray, ndarray, ndarray
            Three arrays of one length.

        Examples
        --------
        >>> places, low, high = model.calibrate(20, seed=1).band()
        >>> len(places) == len(low) == len(high)
        True
        """
        n, x = len(self.ranks), np.arange(1, self.draws + 1) / (self.draws + 1)
        low, high = binomial_limits(simultaneous_tail(0.05, n, self.draws), n, self.draws)
        return x, low / n, high / n

    def __repr__(self) -> str:
        return f"Calibration({len(self.ranks)} replications, {self.draws} draws each, uniform: {self.checks['uniform'].verdict})"

    def _repr_html_(self) -> str:
        return html_of_frame(repr(self), self.frame)


known_arguments(Calibration)


def calibrate(model: Any, n: int = 200, draws: int = 99, seed: int | None = None, sampler: PosteriorSampler | None = None) -> Calibration:
    """Simulation-based calibration of a model's design, priors and sampler.

    n : replications; draws : of each posterior; sampler : (density, draws, rng) -> Draws, the collapsed one by default

    Raises PriorError where a prior of a covariance parameter is improper, SamplingError where no replication could be sampled.

    >>> model.calibrate(20, seed=1).ranks.shape[0]
    20
    """
    require_count(n, "n")
    require_count(draws, "draws")
    begin = time.perf_counter()
    target = density(model.problem, model.spec.priors)
    require_room_for_draws(target, float(draws) + n, f"{n:,} replications of {draws:,} draws")
    require_memory("draws", float(n) * STREAM_NUMBERS, f"{n:,} replications", "ask for fewer replications")
    loose = [row for row in improper_priors(target.priors) if row.kind != "alpha"]
    if loose:
        names = ", ".join(row.label for row in loose[:6])
        raise PriorError(
            f"nothing can be drawn from improper priors: {names}", names, "give them proper priors, or leave them to the defaults"
        )
    streams = seed_sequence(seed).spawn(n)
    chosen = collapsed_draws if sampler is None else sampler
    rows = []
    for stream in streams:
        rng = np.random.default_rng(stream)
        truth, y = simulate_from_prior(model, target, rng)
        found = replicate(model, target, truth, y, draws, rng, chosen)
        if found is not None:
            rows.append(found)
    if not rows:
        raise SamplingError("no replication could be sampled", "calibrate", "give tighter priors")
    return Calibration(pd.DataFrame(rows), draws, n - len(rows), time.perf_counter() - begin)


def simulate_from_prior(model: Any, target: Density, rng: Generator) -> tuple[PosteriorDraws, Array]:
    """One draw of all parameters from the priors, and a response."""
    drawn = target.alpha.draws(rng, 1)
    # a flat prior says nothing: the estimate of least squares stands in, and nothing is ranked against it
    alpha = np.where(np.isnan(drawn), target.problem.standardization.alpha0, drawn)
    phi = draw_phi(target, alpha, rng)
    truth = PosteriorDraws(phi, alpha, draw_beta(target, phi, rng), np.zeros(1))
    post = PosteriorData(model, target, truth, chains=1, method="prior", checks={}, elapsed=0.0)
    return truth, (linear_predictor(post) + draw_posterior_errors(post, np.arange(1), rng))[0]


def replicate(
    model: Any, target: Density, truth: PosteriorDraws, y: Array, draws: int, rng: Generator, sampler: PosteriorSampler
) -> dict[str, int] | None:
    """Ranks of the truth among draws of the posterior of y, by quantity; None where nothing could be drawn."""
    own = on_other_problem(target, build_problem(replace(target.problem.design, y=y)))
    try:
        found = sampler(own, draws, rng)
    except (np.linalg.LinAlgError, SamplingError):
        return None
    both = PosteriorDraws(
        np.concatenate([truth.phi, found.phi]),
        np.concatenate([truth.alpha, found.alpha]),
        tuple(np.concatenate(pair) for pair in zip(truth.beta, found.beta, strict=True)),
        np.zeros(1 + found.size),
    )
    post = PosteriorData(model, own, both, chains=1, method="calibration", checks={}, elapsed=0.0)
    # what is held has no rank: the truth and all draws are one number
    return {name: int(np.sum(values[1:] < values[0])) for name, values in ranked_quantities(post).items() if np.ptp(values) > 0}


def ranked_quantities(post: PosteriorData) -> dict[str, Array]:
    """What is ranked: coefficients, covariance parameters, an effect of each grouping factor, the log likelihood, and one fitted row."""
    found = dict(zip(post.coef_names, post.draws.alpha.T, strict=True))
    for group, name, values in parameter_draws(post):
        found[f"{name}|{group}"] = values
    for term, beta in zip(post.design.terms, post.draws.beta, strict=True):
        found[f"{term.columns[0]}|{term.group.name} {term.group.levels[0]}"] = beta[:, 0, 0]
    found["log likelihood"] = log_likelihood(post).sum(axis=1)
    found["last row"] = linear_predictor(post)[:, -1]
    return found


def collapsed_draws(target: Density, draws: int, rng: Generator) -> PosteriorDraws:
    """Draws as `LMM.sample` makes them: importance sampling, or NUTS where its weights are not to be trusted."""
    mode = find_mode(target)
    found = sample_importance(target.values, mode, max(REPLICATION_DRAWS, 4 * draws), rng)
    if found.trusted:
        phi = found.points[resample_systematically(found.weights, draws, rng)]
    else:

        def function(phi: Array) -> tuple[float, Array]:
            at = target.at(phi)
            return at.value, at.gradient

        stream = np.random.SeedSequence(int(rng.integers(2**63)))
        phi = sample_nuts(function, mode, NUTS_THINNING * draws, 1, [stream]).points[0, ::NUTS_THINNING]
    joint = joint_draws(target, phi, rng)
    return PosteriorDraws(phi, joint.alpha, joint.beta, np.zeros(len(phi)))
