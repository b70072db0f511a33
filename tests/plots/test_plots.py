"""Every figure: drawn on the axes given, labelled, for few levels and for thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import bayeslmm as blm
from bayeslmm.bayes.posterior.datatree import predictive_draws
from bayeslmm.errors import SpecificationError
from bayeslmm.inference.diagnostics import simulated_residuals
from bayeslmm.model.fit import Fit
from bayeslmm.plots.intervals import arrow_lengths, emmeans_axes
from bayeslmm.plots.levels import DRAWN_LEVELS, caterpillar
from bayeslmm.plots.style import from_zero
from tests.inference.examples import fitted


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@cache
def trial(groups: int) -> Fit:
    found: Fit = trial_model(groups).fit()
    return found


@cache
def trial_model(groups: int) -> Any:
    """Three arms over visits; the text of a level has what a renderer would trip over."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": np.repeat(np.arange(groups), 4), "t": np.tile(np.arange(4.0), groups)})
    frame["arm"] = pd.Categorical(np.array(["$placebo$", "low_1", "high <b>"])[frame["id"] % 3])
    frame["y"] = 5 + frame["t"] * (1 + frame["arm"].cat.codes) + rng.normal(size=(groups,))[frame["id"]] + rng.normal(size=len(frame))
    frame["id"] = "s" + frame["id"].astype(str)
    return blm.LMM("y ~ arm * t + (1 | id)", frame)


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


POSTERIOR: dict[str, Callable[[Any], Any]] = {
    "forest": lambda post: post.plot.forest(),
    "dist": lambda post: post.plot.dist(),
    "trace": lambda post: post.plot.trace(["t"]),
    "rank": lambda post: post.plot.rank(["t", "sd__Intercept|id"]),
    "pairs": lambda post: post.plot.pairs(),
    "predictive": lambda post: post.plot.predictive(draws=12),
    "predictive by a factor": lambda post: post.plot.predictive(by="arm", draws=12),
    "a statistic": lambda post: post.plot.predictive("stat", stat="max", draws=40),
    "intervals by a factor": lambda post: post.plot.predictive("intervals", by="arm", draws=40),
    "ranef": lambda post: post.plot.ranef(),
    "lines": lambda post: post.plot.lines("t", by="arm"),
    "emmeans": lambda post: post.plot.emmeans("arm"),
    "priors": lambda post: post.model.priors.plot(),
    "comparison": lambda post: blm.compare(post.model.fit(), post).plot(),
}


@cache
def sampled() -> Any:
    return trial_model(200).sample(draws=100, seed=1)


@pytest.mark.parametrize("name", list(POSTERIOR))
def test_a_figure_of_draws_has_labels_and_can_be_drawn(name: str) -> None:
    axes = POSTERIOR[name](sampled())
    drawn = [ax for ax in (axes if isinstance(axes, list) else [axes]) if ax.axison]
    assert all(isinstance(ax, Axes) for ax in drawn)
    assert all(ax.get_xlabel() or ax.get_ylabel() or ax.get_title() for ax in (drawn if name != "pairs" else drawn[-1:]))
    drawn[0].figure.canvas.draw()


def test_intervals_of_draws_are_their_quantiles() -> None:
    post = sampled()
    place = post.plot.forest(["t"], conf_level=0.9)[0]
    thin = place.collections[0].get_segments()[0]
    np.testing.assert_allclose(thin[:, 0], np.quantile(post.draws.alpha[:, post.coef_names.index("t")], [0.05, 0.95]))


def test_a_statistic_of_replicates_is_that_of_each_and_of_each_level() -> None:
    post = sampled()
    replicates = predictive_draws(post, 25, 0).reshape(100, -1)
    (place,) = [post.plot.predictive("stat", stat=np.ptp, draws=100)]
    heights = [patch.get_height() for patch in place.patches]
    assert heights == np.histogram(np.ptp(replicates, axis=1), bins=30)[0].tolist()
    assert place.lines[0].get_xdata()[0] == pytest.approx(np.ptp(post.design.y))
    for place, level in zip(post.plot.predictive("stat", by="arm", draws=100), sorted(post.design.frame["arm"].unique()), strict=True):
        own = post.design.frame["arm"].to_numpy() == level
        assert place.lines[0].get_xdata()[0] == pytest.approx(post.design.y[own].mean())
        assert f"share above: {np.mean(replicates[:, own].mean(axis=1) > post.design.y[own].mean()):.2f}" in [
            t.get_text() for t in place.texts
        ]


def test_intervals_of_replicates_are_their_quantiles() -> None:
    post = sampled()
    replicates = predictive_draws(post, 25, 0).reshape(100, -1)
    place = post.plot.predictive("intervals", draws=100, conf_level=0.8)
    ends = np.array([segment[:, 1] for segment in place.collections[0].get_segments()])
    order = np.argsort(replicates.mean(axis=0), kind="stable")
    np.testing.assert_allclose(ends.T, np.quantile(replicates[:, order], [0.1, 0.9], axis=0))
    np.testing.assert_allclose(place.lines[0].get_ydata(), post.design.y[order])


def test_options_of_predictive_figures_that_do_not_apply_are_refused() -> None:
    post = sampled()
    for arguments in ({"kind": "densities"}, {"stat": "mean"}, {"kind": "stat", "stat": "mode"}, {"by": "nobody"}, {"draws": 0}):
        with pytest.raises(SpecificationError):
            post.plot.predictive(**arguments)


def test_what_is_drawn_of_the_draws_can_be_named() -> None:
    post = sampled()
    assert len(post.plot.dist(["t", "sd__Observation"])) == 2
    assert len(post.plot.pairs(["t", "sd__Observation"])) == 4
    with pytest.raises(SpecificationError, match="nobody"):
        post.plot.trace("nobody")
    whole = plt.subplots()[1]
    assert all(part in whole.child_axes for part in post.plot.rank(["t", "sd__Observation"], ax=whole))


def test_means_along_a_variable_are_joined() -> None:
    fit = trial(9)
    (ax,) = fit.plot.emmeans("arm", by="t", at={"t": [0, 3]}, x="t")
    assert [line.get_xydata()[:, 1].size for line in ax.get_lines()] == [2, 2, 2]
    means = fit.emmeans("arm", by="t", at={"t": [0, 3]}).frame
    own = means[means["arm"] == "low_1"]["estimate"].to_numpy()
    assert any(np.allclose(line.get_ydata(), own) for line in ax.get_lines())
    with pytest.raises(SpecificationError, match="variable"):
        fit.plot.emmeans("arm", x="nothing")


def test_a_line_of_a_level_stays_within_a_level_of_the_factor() -> None:
    """A level of the grouping factor that meets several arms has a line in each, not one through their average."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame([(b, a, t) for b in "pqrst" for a in "uv" for t in range(4)], columns=["block", "arm", "t"])
    frame["y"] = frame["t"] + 10 * (frame["arm"] == "u") + rng.normal(size=5)[frame["block"].map("pqrst".index)] + rng.normal(size=40) / 9
    ax = blm.LMM("y ~ arm + t + (1 | block)", frame).fit().plot.lines("t", by="arm")
    thin = [line for line in ax.get_lines() if line.get_linewidth() < 1 and len(line.get_xdata())]
    assert len(thin) == 10


def test_lines_hold_levels_that_meet() -> None:
    """The most frequent levels of nested factors need not occur together, and their combination is not estimable then."""
    frame = pd.DataFrame({"a": list("pqr") * 8 + ["s"] * 10, "block": np.arange(34) % 5, "x": np.arange(34.0) % 7})
    frame["h"] = np.where(frame["a"] == "s", "v", "u")
    frame["y"] = frame["x"] + np.sin(np.arange(34))
    ax = blm.LMM("y ~ h + a + x + (1 | block)", frame).fit().plot.lines("x")
    thick = max((line for line in ax.get_lines()), key=lambda line: line.get_linewidth())
    assert np.isfinite(thick.get_ydata()).all()


def test_residuals_by_thousands_of_levels_are_bands() -> None:
    ax = trial(3000).plot.residuals(against="id")
    assert "3,000 levels" in ax.get_xlabel()
    assert len(ax.get_lines()) == 2


def test_autocorrelations_are_those_of_nlme() -> None:
    """plot(ACF(f, resType = "n")) of nlme 3.1-162 on Ovary, with the levels of Mare in the order of the rows."""
    mares = "follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time) + diag(sin(2 * pi * Time) | Mare)"
    ovary = blm.load_dataset("nlme/Ovary")
    for residual, kind, told in (
        ("ar1(1 | Mare)", "normalized", [-0.12097745, 0.03129727, -0.05279814]),
        (None, "pearson", [0.37948013, 0.17972202, 0.03569275]),
    ):
        ax = blm.LMM(mares, ovary, residual=residual).fit().plot.acf(kind, lags=3)
        np.testing.assert_allclose(ax.get_lines()[-1].get_ydata(), told, atol=2e-5)
    with pytest.raises(SpecificationError, match="no subjects"):
        fitted("plain").plot.acf()


def test_the_first_look_has_four_panels() -> None:
    assert len(trial(9).plot()) == 4


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


def test_leverage_of_many_rows_is_shown_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("bayeslmm.inference.influence")
    fit = blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy")).fit()
    monkeypatch.setattr(module, "ROWS_SHOWN", 40)
    rows = module.sampled_rows(fit)
    pd.testing.assert_frame_equal(module.influence_of_rows(fit, rows), fit.influence().iloc[rows])
    assert "40 of 180 rows" in fit.plot.leverage().get_xlabel()


def test_means_of_arms_over_visits_go_along_the_visits() -> None:
    rng = np.random.default_rng(1)
    visit = pd.Categorical(np.tile(["w1", "w2", "w3"], 40), categories=["w1", "w2", "w3"], ordered=True)
    data = pd.DataFrame({"y": rng.standard_normal(120), "visit": visit, "arm": np.repeat(["a", "b"], 60), "id": np.repeat(range(40), 3)})
    fit = blm.LMM("y ~ arm * visit + (1 | id)", data, check="warn").fit()
    for means in (fit.emmeans(["arm", "visit"]), fit.emmeans("arm", by="visit"), fit.emmeans("visit", by="arm")):
        (axes,) = means.plot()
        assert [text.get_text() for text in axes.get_xticklabels()] == ["w1", "w2", "w3"]
    assert len(fit.emmeans("arm").plot()) == 1


@pytest.mark.parametrize("places", [(-1.0, 1.0), (0.0, 1.0), (0.0, 1.0, 10.0)])
def test_points_stay_at_the_values_of_a_numeric_x(places: tuple[float, ...]) -> None:
    """A contrast of two values has its points where its lines end, each value a tick."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": np.tile(places, 60), "g": np.repeat([f"s{i}" for i in range(12)], 5 * len(places))})
    frame["y"] = rng.normal(size=len(frame))
    model = blm.LMM("y ~ x + (1 | g)", frame, check="warn")
    for source in (model.fit(), model.sample(draws=25, seed=1)):
        ax = source.plot.lines("x")
        shown = ax.collections[0].get_offsets()[:, 0]
        assert np.abs(shown[:, None] - np.array(places)).min(axis=1).max() <= 0.02 * np.ptp(places)
        assert ax.get_xticks().tolist() == list(places)


def few_rows(n: int = 6) -> Any:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"x": np.arange(float(n)), "y": rng.normal(size=n)})
    return blm.LMM("y ~ x", frame, check="warn").fit()


@pytest.mark.parametrize(("rows", "drawn"), [(6, False), (14, False), (40, True)])
def test_a_local_mean_is_of_more_points_than_a_zigzag(rows: int, drawn: bool) -> None:
    ax = few_rows(rows).plot.residuals()
    assert ("local mean" in [line.get_label() for line in ax.get_lines()]) == drawn


def test_leverages_that_are_alike_stay_on_an_axis_of_their_size() -> None:
    """Of a balanced design leverages differ in their rounding."""
    frame = pd.DataFrame({"g": np.repeat(list("abcdefghijkl"), 6), "t": np.tile(list("uvwxyz"), 12)})
    frame["y"] = np.random.default_rng(0).normal(size=72)
    ax = blm.LMM("y ~ t + (1 | g)", frame).fit().plot.leverage()
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert high - low > 0.5 * high
    assert not ax.xaxis.get_offset_text().get_text()


def test_names_of_points_do_not_stand_on_one_another() -> None:
    for fit in (few_rows(), few_rows(40), trial(9), trial(3000)):
        ax = fit.plot.leverage()
        ax.figure.canvas.draw()
        boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
        middles = np.sort([0.5 * (box.y0 + box.y1) for box in boxes])
        assert np.diff(middles).min() > 0.6 * boxes[0].height


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_title_set_afterwards_stands_clear_of_the_legend(name: str) -> None:
    for ax in np.atleast_1d(np.asarray(FIGURES[name](trial(9)), dtype=object)).ravel():
        ax.set_title("A title\nof two lines")
        for _ in range(2):  # layout and legend settle by the first
            ax.figure.canvas.draw()
        legend = ax.get_legend()
        assert legend is None or not legend.get_window_extent().overlaps(ax.title.get_window_extent())


def test_marks_of_values_close_to_one_another_are_not_cut_above() -> None:
    for values in ([1.10], [1.10, 1.11], [1e-9, 2e-9]):
        ax = plt.subplots()[1]
        ax.plot(range(len(values)), values, "o")
        from_zero(ax)
        bottom, top = ax.get_ylim()
        assert bottom == 0.0
        assert top >= 1.04 * max(values)


def test_a_legend_is_of_what_is_drawn() -> None:
    """One row for each level of the group: there is no line of a level."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"g": np.repeat([f"s{i}" for i in range(12)], 2), "t": np.repeat(np.arange(12.0), 2), "y": rng.normal(size=24)})
    ax = blm.LMM("y ~ t + (1 | g)", frame).fit().plot.lines("t")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["population, 95% band"]


def test_long_names_are_folded_and_stay_on_the_figure() -> None:
    rng = np.random.default_rng(6)
    names = [f"subject number {i} of a long study in Antananarivo" for i in range(10)]
    frame = pd.DataFrame({"g": np.repeat(names, 4), "y": rng.normal(size=40) + rng.normal(size=10).repeat(4)})
    (ax,) = blm.LMM("y ~ 1 + (1 | g)", frame).fit().plot.ranef()
    ax.figure.canvas.draw()
    labels = ax.get_yticklabels()
    assert {label.get_text().replace("\n", " ") for label in labels} == set(names)
    assert min(label.get_window_extent().x0 for label in labels) >= 0.0
    assert ax.get_window_extent().width > 0.3 * ax.figure.bbox.width


def test_a_caterpillar_of_many_levels_draws_what_a_page_can_show() -> None:
    """Both ends and every so many between; what it says is of all levels."""
    rng = np.random.default_rng(3)
    modes = rng.normal(size=40_000)
    _, ax = plt.subplots()
    caterpillar(ax, modes, modes - 1.0, modes + 1.0, list(range(len(modes))), sort=True)
    drawn = np.asarray(ax.collections[-1].get_offsets())
    assert len(drawn) == DRAWN_LEVELS
    assert drawn[0].tolist() == [modes.min(), 0.0] and drawn[-1].tolist() == [modes.max(), len(modes) - 1.0]
    away = int((np.abs(modes) > 1.0).sum())
    assert ax.texts[0].get_text() == f"40,000 levels,\n{away:,} away from 0"
    plt.close("all")
