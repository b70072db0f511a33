"""Whatever draws random numbers takes a seed by the same rule, and refuses what is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bayeslmm._arrays import generator, seed_sequence
from bayeslmm.datasets import simulate_trial
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.diagnostics import allfit
from tests.inputs.frames import fit, model, posterior, refused

VERBS: dict[str, Callable[[Any], Any]] = {
    "simulate": lambda seed: fit().simulate(1, seed=seed),
    "bootstrap": lambda seed: fit().bootstrap(2, seed=seed),
    "allfit": lambda seed: allfit(fit(), 1, seed=seed),
    "sample": lambda seed: model().sample(draws=20, seed=seed),
    "hierarchical": lambda seed: model().sample(draws=20, seed=seed, method="hierarchical"),
    "prior_predictive": lambda seed: model().prior_predictive(5, seed=seed),
    "calibrate": lambda seed: model().calibrate(2, seed=seed),
    "predict": lambda seed: posterior().predict(interval="prediction", seed=seed),
    "posterior_predictive": lambda seed: posterior().posterior_predictive(5, seed=seed),
    "simulate_trial": lambda seed: simulate_trial(10, seed=seed),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seed", [-1, 1.5, "12", True, [1, -2], {1: 2}], ids=str)
def test_what_is_no_seed_is_refused(verb: str, seed: Any) -> None:
    assert refused(lambda: VERBS[verb](seed), SpecificationError, "seed").where == "seed"


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), [1, 2], 2**70])
def test_a_seed_gives_the_numbers_that_numpy_gives(seed: Any) -> None:
    expected = np.random.default_rng(seed).standard_normal(3)
    np.testing.assert_array_equal(generator(seed).standard_normal(3), expected)
    np.testing.assert_array_equal(generator(np.random.SeedSequence(seed)).standard_normal(3), expected)


def test_without_a_seed_numbers_differ() -> None:
    assert seed_sequence(None).entropy != seed_sequence(None).entropy
