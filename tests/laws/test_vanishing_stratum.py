"""A level of ident() whose residual variance goes to 0: a boundary, reached and named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm


def one_exact_level(seed: int) -> pd.DataFrame:
    """Level A of t shows the random effect itself, level B with errors."""
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(20), 4), np.tile(list("ABBB"), 20)
    return pd.DataFrame({"g": g, "t": t, "y": rng.normal(size=20)[g] + np.where(t == "A", 0.0, rng.normal(size=80))})


@pytest.mark.parametrize("order", ["AB", "BA"])
@pytest.mark.parametrize("seed", [5, 6])
def test_a_residual_sd_that_goes_to_0_is_a_boundary(order: str, seed: int) -> None:
    data = one_exact_level(seed)
    data["t"] = pd.Categorical(data.t, list(order))
    fit = blm.LMM("y ~ t + (1 | g)", data, variance="ident(t)").fit()
    ratio = fit.residual_params[f"ratio[{order[1]}]"]
    assert (ratio if order == "BA" else 1.0 / ratio) < 1e-4
    assert fit.converged
    assert fit.singular
    assert "residual sd is 0" in fit.checks["singular: ident(t)[A]"].remedy


@pytest.mark.parametrize("seed", [5, 6])
def test_the_order_of_the_levels_does_not_matter(seed: int) -> None:
    data = one_exact_level(seed)
    criteria = [
        blm.LMM("y ~ t + (1 | g)", data.assign(t=pd.Categorical(data.t, list(order))), variance="ident(t)").fit().criterion
        for order in ("AB", "BA")
    ]
    assert criteria[0] == pytest.approx(criteria[1], abs=1e-5)


def test_levels_that_differ_are_not_singular() -> None:
    rng = np.random.default_rng(1)
    g, t = np.repeat(np.arange(20), 4), np.tile(list("AABB"), 20)
    y = rng.normal(size=20)[g] + np.where(t == "A", 0.05, 1.0) * rng.normal(size=80)
    fit = blm.LMM("y ~ t + (1 | g)", pd.DataFrame({"g": g, "t": t, "y": y}), variance="ident(t)").fit()
    assert fit.converged
    assert not fit.singular
