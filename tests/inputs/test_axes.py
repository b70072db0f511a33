"""`ax=` takes Matplotlib axes and refuses anything else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.diagnostics import simulated_residuals
from bayeslmm.model.fit_plots import FitPlots
from tests.inputs.frames import fit, refused


@cache
def fitted() -> blm.Fit:
    return fit("y ~ x + arm + (1 | g)")


FIGURES: dict[str, Callable[[Any], Any]] = {
    "fitted": lambda ax: fitted().plot.fitted(ax=ax),
    "residuals": lambda ax: fitted().plot.residuals(ax=ax),
    "residuals by a factor": lambda ax: fitted().plot.residuals(against="arm", ax=ax),
    "qq": lambda ax: fitted().plot.qq(ax=ax),
    "ranef": lambda ax: fitted().plot.ranef(ax=ax),
    "lines": lambda ax: fitted().plot.lines("x", ax=ax),
    "leverage": lambda ax: fitted().plot.leverage(ax=ax),
    "influence": lambda ax: fitted().plot.influence("g", ax=ax),
    "profile": lambda ax: fitted().plot.profile(terms=["x"], ax=ax),
    "confint": lambda ax: fitted().plot.confint(ax=ax),
    "bootstrap": lambda ax: fitted().plot.bootstrap(3, seed=1, ax=ax),
    "emmeans": lambda ax: fitted().plot.emmeans("arm", ax=ax),
    "effects": lambda ax: fitted().plot.effects("arm", ax=ax),
    "differences": lambda ax: fitted().plot.differences("arm", ax=ax),
    "subgroups": lambda ax: fit("y ~ arm * h + (1 | g)").plot.subgroups("arm", "h", ax=ax),
    "covariance": lambda ax: fit("y ~ arm + (day | g)").plot.covariance(ax=ax),
    "profiles": lambda ax: fitted().plot.profiles(x="x", ax=ax),
    "variogram": lambda ax: fitted().plot.variogram(x="x", ax=ax),
    "acf": lambda ax: fitted().plot.acf(ax=ax),
    "simulated residuals": lambda ax: simulated_residuals(fitted(), 100, seed=1).plot(ax=ax),
}


def test_every_figure_of_a_fit_is_asked() -> None:
    assert {name for name in vars(FitPlots) if not name.startswith("_")} <= set(FIGURES)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("ax", [3, "axes", plt], ids=["number", "text", "module"])
def test_what_is_no_axes_is_refused(figure: str, ax: Any) -> None:
    assert refused(lambda: FIGURES[figure](ax), SpecificationError).where == "ax"


def test_a_figure_in_place_of_axes_is_refused() -> None:
    figure = plt.figure()
    refused(lambda: fitted().plot.fitted(ax=figure), SpecificationError, "ax is a Figure")
    plt.close(figure)
