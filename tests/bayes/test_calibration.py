"""`calibrate`: right samplers pass, wrong ones are found. `make sbc` runs eight scenarios with a thousand replications each."""

from __future__ import annotations

from itertools import product
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.calibration import Calibration, binomial_limits, calibrate, simultaneous_tail, smallest_tail, tail_probability
from tests.bayes.calibration_suite import (
    EXPENSIVE,
    OTHER_PRIORS,
    PLANTED,
    SCENARIOS,
    SEED,
    PolynomialSampler,
    expensive,
    failing,
    narrow_alpha,
    narrow_prior,
    run,
    run_planted,
    scenario,
    with_other_priors,
)
from tests.bayes.designs import grouped

mpl.use("Agg")


def test_the_sampler_passes_on_a_small_design() -> None:
    found = scenario("slopes").calibrate(60, draws=49, seed=1)
    assert found.checks["uniform"].verdict == "passed"
    assert {"x", "sd__x|g", "cor__Intercept.x|g", "sd__Observation|Residual", "log likelihood", "last row"} <= set(found.frame["quantity"])
    assert found.ranks.to_numpy().max() <= 49


@pytest.mark.slow
def test_a_planted_error_is_found_with_few_replications() -> None:
    assert calibrate(scenario("intercepts"), 250, seed=2, sampler=narrow_alpha).checks["uniform"].verdict == "failed"


HELD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "sigma": ({"sigma": 0.8}, {}, "sd__Observation|Residual"),
    "sigma by its prior": ({}, {"sigma": ("fixed", 0.8)}, "sd__Observation|Residual"),
    "sd": ({}, {"sd": {"g": ("fixed", 0.7)}}, "sd__Intercept|g"),
}


@pytest.mark.parametrize("held", list(HELD))
def test_what_is_held_has_no_rank_and_everything_else_has_one(held: str) -> None:
    options, priors, name = HELD[held]
    own = {"sd": ("half_normal", 1.5)} | ({} if options else {"sigma": ("half_normal", 1.5)}) | priors
    model = blm.LMM("y ~ x + (1 | g)", grouped(groups=6, each=4), priors=blm.Priors(alpha="normal", **own), **options)
    found = model.calibrate(20, draws=19, seed=1)
    others = {"Intercept", "x", "sd__Intercept|g", "sd__Observation|Residual", "Intercept|g g0", "log likelihood", "last row"} - {name}
    assert set(found.ranks.columns) == others
    assert found.checks["uniform"].verdict == "passed"


def test_same_seed_same_ranks() -> None:
    first, again = (scenario("intercepts", "flat").calibrate(3, seed=5).ranks for _ in range(2))
    assert first.equals(again)


def test_the_plot_has_a_panel_for_every_quantity_and_a_band_that_holds_uniform_ranks() -> None:
    rng = np.random.default_rng(0)
    frame = scenario("intercepts").calibrate(2, seed=1).ranks
    uniform = frame.iloc[:0].reindex(range(200)).apply(lambda column: rng.integers(0, 100, len(column)))
    found = Calibration(uniform, 99, 0, 0.0)
    assert found.checks["uniform"].verdict == "passed"
    axes = found.plot()
    assert sum(ax.get_visible() for ax in axes) == uniform.shape[1]
    x, low, high = found.band()
    assert np.all((low <= x) & (x <= high))


def test_the_statistic_is_a_binomial_tail() -> None:
    assert smallest_tail(np.zeros(50, np.int64), 9) == pytest.approx(0.1**50)
    assert tail_probability(0.1**50, 50, 9) == pytest.approx(0.0, abs=1e-45)


def test_p_values_are_the_shares_of_all_sets_of_ranks() -> None:
    """Every set of 5 ranks among 3 draws, all 1,024 equally likely."""
    tails = np.array([smallest_tail(np.array(ranks), 3) for ranks in product(range(4), repeat=5)])
    for tail in np.unique(tails):
        assert tail_probability(float(tail), 5, 3) == pytest.approx(np.mean(tails <= tail * (1.0 + 1e-9)), abs=1e-12)


def test_p_values_of_uniform_ranks_are_uniform() -> None:
    rng = np.random.default_rng(3)
    p = np.array([tail_probability(smallest_tail(ranks, 99), 200, 99) for ranks in rng.integers(0, 100, (1000, 200))])
    for level in (0.01, 0.05, 0.3):
        # 3.5 standard errors
        assert np.mean(p <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1.0 - level) / 1000))


@pytest.mark.parametrize(("n", "draws"), [(20, 9), (200, 99), (1000, 99)])
def test_the_band_is_as_narrow_as_its_level_allows(n: int, draws: int) -> None:
    tail = simultaneous_tail(0.05, n, draws)
    assert 0.03 < tail_probability(tail, n, draws) <= 0.05
    assert tail_probability(1.02 * tail, n, draws) > 0.05 or np.array_equal(
        binomial_limits(1.02 * tail, n, draws), binomial_limits(tail, n, draws)
    )


def test_improper_priors_have_nothing_to_draw_from() -> None:
    with pytest.raises(blm.errors.PriorError) as caught:
        blm.LMM("y ~ x + (1 | g)", grouped(), priors=blm.Priors(sd=("flat",))).calibrate(2)
    assert "sd g" in caught.value.what


def test_a_prior_flat_on_log_sigma_is_improper() -> None:
    with pytest.raises(blm.errors.PriorError) as caught:
        blm.LMM("y ~ x + (1 | g)", grouped(), priors=blm.Priors(sd=("half_normal", 1.5), sigma="flat_log")).calibrate(2)
    assert "sigma" in caught.value.what


def test_ranks_are_uniform_under_a_prior_of_long_tails() -> None:
    found = calibrate(with_other_priors("t, lognormal"), 50, draws=49, seed=1)
    assert found.lost == 0
    assert found.checks["uniform"].verdict == "passed"


@pytest.mark.sbc
def test_a_wrong_scale_of_a_prior_of_long_tails_is_found() -> None:
    name = "Cauchy, truncated normal"
    assert not failing(calibrate(with_other_priors(name), OTHER_PRIORS[name][3], seed=SEED, sampler=narrow_prior), len(OTHER_PRIORS)).empty


@pytest.mark.sbc
@pytest.mark.parametrize("name", OTHER_PRIORS)
def test_ranks_are_uniform_under_other_priors_and_beside_what_is_held(name: str) -> None:
    found = calibrate(with_other_priors(name), OTHER_PRIORS[name][3], seed=SEED)
    assert found.lost == 0
    held = {"held sigma": {"sd__Observation|Residual"}, "held sd": {"sd__Intercept|g"}}.get(name, set())
    quantities = set(found.frame["quantity"])
    assert "log likelihood" in quantities
    assert not held & quantities
    assert failing(found, len(OTHER_PRIORS)).empty, found.frame


@pytest.mark.sbc
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_thousand_replications_are_uniform(name: str) -> None:
    found = run(name)
    assert found.lost == 0
    assert failing(found).empty, found.frame


@pytest.mark.sbc
@pytest.mark.parametrize("name", PLANTED)
def test_planted_errors_are_found(name: str) -> None:
    assert not failing(run_planted(name)).empty


@pytest.mark.sbc
@pytest.mark.parametrize("name", EXPENSIVE)
def test_truths_lie_anywhere_among_draws_by_polynomials(name: str) -> None:
    sampler = PolynomialSampler()
    found = calibrate(expensive(name), EXPENSIVE[name][1], seed=SEED, sampler=sampler)
    assert sampler.by_polynomials > 0.8 * sampler.in_all
    assert found.lost == 0
    assert "log likelihood" in set(found.frame["quantity"])
    assert failing(found, len(EXPENSIVE)).empty, found.frame
