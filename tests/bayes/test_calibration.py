"""`calibrate`: right samplers pass, wrong ones are found. `make sbc` runs eight scenarios with a thousand replications each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.calibration import Calibration, calibrate, collapsed, smallest_tail
from bayeslmm.bayes.density import Density
from bayeslmm.bayes.leave_out import over
from bayeslmm.bayes.posterior import Draws
from bayeslmm.likelihood.problem import build
from tests.bayes.designs import grouped, relationship

mpl.use("Agg")

SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "intercepts": ("y ~ x + (1 | g)", {}),
    "slopes": ("y ~ x + (x | g)", {}),
    "independent slopes": ("y ~ x + (x || g)", {}),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", {}),
    "nested, weights": ("y ~ x + (1 | g / inner)", {"weights": "w"}),
    "related": ("y ~ x + (1 | g)", {"relationship": {"g": relationship(8)}}),
    "serial errors": ("y ~ x + (1 | g)", {"residual": "ar1(visit | g)"}),
    "variance function": ("y ~ x + (1 | g)", {"variance": "exp(x)"}),
}


def scenario(name: str, alpha: str = "normal") -> blm.LMM:
    formula, more = SCENARIOS[name]
    # tails of the default half-t(3) make data that no design would meet; the sampler is what is tested here
    priors = blm.Priors(alpha=alpha, sd=("half_normal", 1.5), sigma=("half_normal", 1.5))
    return blm.LMM(formula, grouped(), priors=priors, check="warn", **more)


def no_volume(target: Density, draws: int, rng: np.random.Generator) -> Draws:
    """Planted: the Jacobian of the axes is forgotten."""
    return collapsed(target.without_volume(), draws, rng)


def narrow_alpha(target: Density, draws: int, rng: np.random.Generator) -> Draws:
    """Planted: alpha is drawn with .7 of its sd."""
    found = collapsed(target, draws, rng)
    centre = found.alpha.mean(0)
    return replace(found, alpha=centre + 0.7 * (found.alpha - centre))


def no_weights(target: Density, draws: int, rng: np.random.Generator) -> Draws:
    """Planted: the likelihood does not see the weights."""
    return collapsed(over(target, build(replace(target.problem.design, weights=None))), draws, rng)


PLANTED = {"no_volume": ("slopes", no_volume), "narrow_alpha": ("intercepts", narrow_alpha), "no_weights": ("nested, weights", no_weights)}


def test_the_sampler_passes_on_a_small_design() -> None:
    found = scenario("slopes").calibrate(60, draws=49, seed=1)
    assert found.checks["uniform"].verdict == "passed"
    assert {"x", "sd__x|g", "cor__Intercept.x|g", "sd__Observation|Residual", "log likelihood", "last row"} <= set(found.frame["quantity"])
    assert found.ranks.to_numpy().max() <= 49


def test_a_planted_error_is_found_with_few_replications() -> None:
    assert calibrate(scenario("intercepts"), 250, seed=2, sampler=narrow_alpha).checks["uniform"].verdict == "failed"


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


def test_improper_priors_have_nothing_to_draw_from() -> None:
    with pytest.raises(blm.errors.PriorError) as caught:
        blm.LMM("y ~ x + (1 | g)", grouped(), priors=blm.Priors(sd=("flat",))).calibrate(2)
    assert "sd g" in caught.value.what


@pytest.mark.sbc
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_thousand_replications_are_uniform(name: str) -> None:
    found = scenario(name).calibrate(1000, seed=7)
    assert found.lost == 0
    assert found.checks["uniform"].verdict == "passed", found.frame


@pytest.mark.sbc
@pytest.mark.parametrize("name", PLANTED)
def test_planted_errors_are_found(name: str) -> None:
    where, sampler = PLANTED[name]
    assert calibrate(scenario(where), 1000, seed=7, sampler=sampler).checks["uniform"].verdict == "failed"
