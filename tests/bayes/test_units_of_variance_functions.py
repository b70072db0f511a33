"""Draws of a variance function's parameter move with the unit of its covariate, and nothing else moves."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


@cache
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "x": rng.gamma(2.0, size=96)})
    data["y"] = np.repeat(rng.normal(size=12), 8) + rng.normal(size=96) * np.exp(0.3 * data["x"])
    return data


@pytest.mark.parametrize("unit", [2.0**20, 2.0**-20])
@pytest.mark.parametrize("prior", [None, 0.5])
def test_draws_do_not_depend_on_the_unit_of_a_covariate(unit: float, prior: float | None) -> None:
    posts = []
    for size in (1.0, unit):
        priors = None if prior is None else blm.Priors(sd=("half_t", 3, 2), sigma=("half_t", 3, 2), expon=("normal", 0.0, prior / size))
        model = blm.LMM("y ~ 1 + (1 | g)", frame().assign(x=size * frame()["x"]), variance="exp(x)", priors=priors)
        posts.append(model.sample(draws=100, chains=2, seed=1))
    one, two = (post.tree.posterior for post in posts)
    assert set(one.data_vars) == set(two.data_vars)
    for name in one.data_vars:
        scale = unit if name == "expon" else 1.0
        np.testing.assert_allclose(scale * two[name].to_numpy(), one[name].to_numpy(), rtol=1e-6, atol=1e-8)
    if prior is not None:
        assert posts[1].evidence == pytest.approx(posts[0].evidence, abs=1e-6)
