"""The collapsed posterior against long runs of the hierarchical graph, stored: two programs that share priors, data and nothing else.

Every mean, sd and 5, 50, 95 % quantile of alpha, sigma, sds, correlations and random effects must agree within Monte Carlo error: within
as many combined standard errors as all comparisons together exceed by chance once in a thousand sets of draws (Bonferroni), and without a
drift of the whole: the mean of their squares is that of noise.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, norm

import bayeslmm as blm
from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.priors import resolve
from tests.bayes.reference.cases import CASES, PROBABILITIES, model, path, scalars
from tests.bayes.reference.make import faults

STATISTICS = ("mean", "sd", *(f"q{100 * p:g}" for p in PROBABILITIES))
CHANCE = 1e-3
DRAWS = 4000


@cache
def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path(name).read_text(encoding="utf-8"))
    return found


@cache
def collapsed(name: str) -> blm.Posterior:
    return model(name).sample(draws=DRAWS, seed=1)


def described(values: Array, n: float) -> dict[str, tuple[float, float]]:
    """Each statistic with its Monte Carlo standard error, of draws worth n independent ones."""
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    fourth = float(((values - mean) ** 4).mean())
    found = {"mean": (mean, sd / np.sqrt(n)), "sd": (sd, np.sqrt(max(fourth / sd**4 - 1.0, 0.0) / n) * sd / 2.0)}
    for p in PROBABILITIES:
        # a standard error to either side, in probability, mapped to the draws
        sides = beta.ppf(norm.cdf([-1.0, 1.0]), n * p + 1.0, n * (1.0 - p) + 1.0)
        low, high = np.quantile(values, sides)
        found[f"q{100 * p:g}"] = (float(np.quantile(values, p)), 0.5 * float(high - low))
    return found


def gaps(post: blm.Posterior, reference: dict[str, dict[str, float]]) -> dict[str, float]:
    """Difference over combined standard error of every statistic of every scalar."""
    n, found = worth(post), {}
    posterior = post.tree["posterior"]
    # cor_<group> holds the entries of corr_<group> once more
    drawn = dict(scalars({str(key): posterior[key] for key in posterior.data_vars if not str(key).startswith("cor_")}))
    assert drawn.keys() == reference.keys()
    for scalar, values in drawn.items():
        own = described(values.ravel(), n)
        for statistic in STATISTICS:
            theirs, error = reference[scalar][statistic], reference[scalar][f"{statistic}_se"]
            value, mine = own[statistic]
            found[f"{scalar} {statistic}"] = (value - theirs) / np.hypot(mine, error)
    return found


def worth(post: blm.Posterior) -> float:
    """Independent draws that resampled ones stand for: their own number and that of the weighted ones behind them."""
    assert post.method == "importance"
    return 1.0 / (1.0 / post.draws.size + 1.0 / float(post.checks["importance_ess"].value))


def limit() -> float:
    """The largest gap in standard errors that chance allows over all cases."""
    count = sum(len(stored(name)["scalars"]) for name in CASES) * len(STATISTICS)
    return float(norm.isf(0.5 * CHANCE / count))


@pytest.mark.parametrize("name", CASES)
def test_a_reference_is_a_long_run_without_divergences(name: str) -> None:
    found = stored(name)
    assert faults(found) == []
    assert found["draws"] * found["chains"] >= 40_000
    assert {key: found[key] for key in CASES[name]} == CASES[name]


@pytest.mark.parametrize("name", CASES)
def test_the_collapsed_posterior_is_that_of_the_hierarchical_graph(name: str) -> None:
    found = gaps(collapsed(name), stored(name)["scalars"])
    worst = max(found, key=lambda key: abs(found[key]))
    assert abs(found[worst]) < limit(), worst


@pytest.mark.parametrize("name", CASES)
def test_gaps_are_no_larger_than_noise(name: str) -> None:
    """Scalars are correlated, so that the mean square of standard normal gaps spreads; above 2 would be another posterior."""
    assert float(np.mean(np.square(list(gaps(collapsed(name), stored(name)["scalars"]).values())))) < 2.0


def test_a_somewhat_narrower_prior_is_another_posterior() -> None:
    """The comparison has teeth: an sd's prior of two thirds the scale no longer agrees."""
    own = model("Dyestuff")
    scale = 2.5 * float(own.y.std(ddof=1))
    assert resolve(own.problem, None).terms[0].sds[0].prior.parameters == pytest.approx((3.0, scale))
    narrower = blm.Priors(sd=("half_t", 3, 2.0 / 3.0 * scale))
    post = blm.LMM(CASES["Dyestuff"]["formula"], blm.load_dataset("Dyestuff"), priors=narrower).sample(draws=DRAWS, seed=1)
    found = gaps(post, stored("Dyestuff")["scalars"])
    assert max(map(abs, found.values())) > limit()
