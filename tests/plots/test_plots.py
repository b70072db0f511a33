"""Every figure: drawn on the axes given, labelled, for few levels and for thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.inference import simulated_residuals
from bayeslmm.plots import emmeans_axes
from bayeslmm.plots.means import arrow_lengths
from bayeslmm.results.fit import Fit
from tests.inference_intervals.examples import fitted


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@cache
def trial(groups: int) -> Fit:
    """Three arms over visits; the text of a level has what a renderer would trip over."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": np.repeat(np.arange(groups), 4), "t": np.tile(np.arange(4.0), groups)})
    frame["arm"] = pd.Categorical(np.array(["$placebo$", "low_1", "high <b>"])[frame["id"] % 3])
    frame["y"] = 5 + frame["t"] * (1 + frame["arm"].cat.codes) + rng.normal(size=(groups,))[frame["id"]] + rng.normal(size=len(frame))
    frame["id"] = "s" + frame["id"].astype(str)
    return blm.LMM("y ~ arm * t + (1 | id)", frame).fit()


FIGURES: dict[str, Callable[[Fit], Any]] = {
    "lines": lambda fit: fit.plot.lines("t", by="arm"),
    "lines_group": lambda fit: fit.plot.lines("t", by="id"),
    "lines_factor": lambda fit: fit.plot.lines("arm"),
    "fitted": lambda fit: fit.plot.fitted(),
    "residuals": lambda fit: fit.plot.residuals(),
    "residuals_factor": lambda fit: fit.plot.residuals("response", against="arm"),
    "residuals_marginal": lambda fit: fit.plot.residuals("marginal", against="t"),
    "qq": lambda fit: fit.plot.qq(),
    "ranef": lambda fit: fit.plot.ranef(),
    "leverage": lambda fit: fit.plot.leverage(),
    "influence": lambda fit: fit.plot.influence("id", refit=False),
    "confint": lambda fit: fit.plot.confint(),
    "emmeans": lambda fit: fit.plot.emmeans("arm", by="t", at={"t": [0, 3]}, comparisons=True),
}


@pytest.mark.parametrize("groups", [9, 3000])
@pytest.mark.parametrize("name", list(FIGURES))
def test_a_figure_has_axes_with_labels_and_can_be_drawn(name: str, groups: int) -> None:
    axes = FIGURES[name](trial(groups))
    for ax in axes if isinstance(axes, list) else [axes]:
        assert isinstance(ax, Axes)
        assert ax.get_xlabel() or ax.get_ylabel()
    first = axes[0] if isinstance(axes, list) else axes
    first.figure.canvas.draw()
    assert len(first.get_yticklabels()) <= 70


def test_figures_are_drawn_on_the_axes_given() -> None:
    fit = fitted("slope")
    for draw in (fit.plot.fitted, fit.plot.residuals, fit.plot.qq, fit.plot.leverage, fit.plot.confint):
        ax = plt.subplots()[1]
        assert draw(ax=ax) is ax
    pair = plt.subplots(1, 2)[1]
    assert fit.plot.ranef(ax=pair) == list(pair)
    with pytest.raises(SpecificationError, match="2 panels"):
        fit.plot.ranef(ax=[plt.subplots()[1]])


def test_one_axes_given_is_divided_among_the_panels() -> None:
    whole = plt.subplots()[1]
    parts = fitted("slope").plot.ranef(ax=whole)
    assert len(parts) == 2
    assert all(part in whole.child_axes for part in parts)
    whole.figure.canvas.draw()


def test_a_profile_and_a_bootstrap_have_a_panel_for_each_parameter() -> None:
    fit = fitted("slope")
    assert len(fit.plot.profile()) == 7
    assert len(fit.plot.profile(absolute=True, terms=["time"])) == 1
    assert len(fit.plot.bootstrap(30, seed=1)) == 7
    assert len(fit.profile(terms=["time"]).plot()) == 1
    assert len(simulated_residuals(fit, seed=1).plot()) == 2


def test_arrows_overlap_just_where_a_pair_does_not_differ() -> None:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"g": np.repeat(list("abcd"), 40), "id": np.tile(np.repeat(np.arange(20).astype(str), 2), 4)})
    frame["y"] = np.repeat([0.0, 0.25, 1.0, 1.1], 40) + rng.normal(size=20)[frame["id"].astype(int)] + rng.normal(size=160) * 0.6
    means = blm.LMM("y ~ g + (1 | id)", frame).fit().emmeans("g")
    assert len(emmeans_axes(means, comparisons=True)) == 1
    length, center = arrow_lengths(means, "tukey"), means.frame["estimate"].to_numpy()
    pairs = means.pairs("tukey")
    i, j = np.triu_indices(4, 1)
    apart = np.abs(center[i] - center[j]) > length[i] + length[j]
    np.testing.assert_array_equal(apart, pairs["p_value"] < 0.05)


def test_unknown_columns_are_named_with_what_is_near() -> None:
    with pytest.raises(SpecificationError, match="tine"):
        fitted("slope").plot.lines("tine")
    with pytest.raises(SpecificationError, match="grouping factor"):
        fitted("slope").plot.ranef("nobody")
    with pytest.raises(SpecificationError, match="random effects"):
        fitted("plain").plot.ranef()
