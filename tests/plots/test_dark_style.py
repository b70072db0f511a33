"""In a style of light text on a dark or transparent ground every line and every word of a figure can be seen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.text import Text

import bayeslmm as blm
from bayeslmm.plots.style import cloud

FIGURES: dict[str, Callable[[blm.Fit], Any]] = {
    "lines": lambda fit: fit.plot.lines("Days"),
    "fitted": lambda fit: fit.plot.fitted(),
    "residuals": lambda fit: fit.plot.residuals(),
    "qq": lambda fit: fit.plot.qq(),
    "ranef": lambda fit: fit.plot.ranef(),
    "ranef qq": lambda fit: fit.plot.ranef(kind="qq"),
    "ranef pairs": lambda fit: fit.plot.ranef(kind="pairs"),
    "influence": lambda fit: fit.plot.influence("Subject"),
    "leverage": lambda fit: fit.plot.leverage(),
    "differences": lambda fit: fit.plot.differences("arm"),
    "effects": lambda fit: fit.plot.effects("arm"),
    "confint": lambda fit: fit.plot.confint(),
    "covariance": lambda fit: fit.plot.covariance(),
    "profiles": lambda fit: fit.plot.profiles(x="Days"),
    "means": lambda fit: fit.emmeans("arm").plot(),
    "power": lambda fit: fit.power("Days", n=[9, 18, 27], along="Subject", method="analytic").plot(),
}


@pytest.fixture(scope="module")
def fit() -> blm.Fit:
    data = blm.load_dataset("sleepstudy")
    arm = np.where(pd.factorize(data["Subject"])[0] % 2, "a", "b")
    return blm.LMM("Reaction ~ Days + arm + (Days | Subject)", data.assign(arm=arm)).fit()


def contrast(color: Any, ground: float) -> float:
    """The ratio of luminances of the Web Content Accessibility Guidelines, of a colour with its transparency on a grey ground."""
    red, green, blue, alpha = to_rgba(color)
    shown = np.array([red, green, blue]) * alpha + ground * (1.0 - alpha)
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    own = float(linear @ [0.2126, 0.7152, 0.0722])
    below = ground / 12.92 if ground <= 0.04045 else ((ground + 0.055) / 1.055) ** 2.4
    return (max(own, below) + 0.05) / (min(own, below) + 0.05)


def set_off(line: Line2D) -> bool:
    """Whether a line is only the edge of the ground's colour around another."""
    return line.get_linewidth() > 4.0


@pytest.mark.parametrize("style", ["dark", "transparent", "light"])
@pytest.mark.parametrize("name", FIGURES)
def test_lines_and_words_stand_out_from_the_ground(name: str, style: str, fit: blm.Fit) -> None:
    rc: dict[str, Any] = {"figure.facecolor": "none", "axes.facecolor": "none"} if style == "transparent" else {}
    with plt.style.context(["default" if style == "light" else "dark_background", rc]):
        drawn = FIGURES[name](fit)
        figure: Any = np.ravel(np.asarray(drawn, dtype=object))[0].get_figure()
        figure.canvas.draw()
        ground = 1.0 if style == "light" else 0.0
        for line in figure.findobj(Line2D):
            if line.get_visible() and len(line.get_xdata()) > 1 and line.get_linestyle() not in ("None", "") and not set_off(line):
                opaque = to_rgba(line.get_color())[:3]
                assert contrast(opaque, ground) > 1.5, f"a line of colour {line.get_color()}"
        for text in figure.findobj(Text):
            if text.get_visible() and text.get_text().strip() and not (name == "covariance" and text.get_fontsize() < 8):
                assert contrast(text.get_color(), ground) > 3.0, f"{text.get_text()!r} in {text.get_color()}"
        plt.close(figure)


@pytest.mark.parametrize("style", ["dark", "light"])
def test_cells_stand_out_and_bands_stand_back(style: str, fit: blm.Fit) -> None:
    """The cell of a single draw is seen, and the band behind every other row is near the ground."""
    post = fit.model.sample(draws=50, seed=1)
    ground = 1.0 if style == "light" else 0.0
    with plt.style.context("default" if style == "light" else "dark_background"):
        x = np.random.default_rng(1).normal(size=25_000)
        ax = plt.figure().add_subplot()
        cloud(ax, x, x + np.random.default_rng(2).normal(size=25_000))
        cells = [ax.collections[0], *(cell for panel in post.plot.pairs() for cell in panel.collections if cell.get_array() is not None)]
        for cell in cells:
            values = np.asarray(cell.get_array())
            assert min(contrast(color, ground) for color in cell.get_cmap()(np.linspace(0.0, 1.0, 9))) > 1.25 and len(values)
        bands = [patch for panel in np.ravel(np.asarray(blm.compare(fit, post).plot(), dtype=object)) for patch in panel.patches]
        assert bands and max(contrast(patch.get_facecolor(), ground) for patch in bands) < 1.4
        plt.close("all")


@pytest.mark.parametrize("style", ["dark", "light"])
def test_bands_of_curves_are_seen(style: str, fit: blm.Fit) -> None:
    draws: tuple[Callable[[], Any], ...] = (
        lambda: fit.plot.lines("Days"),
        lambda: fit.power("Days", n=[9, 18], along="Subject", nsim=20, seed=1).plot(),
    )
    with plt.style.context("default" if style == "light" else "dark_background"):
        for draw in draws:
            bands = [band for band in np.ravel(np.asarray(draw(), dtype=object))[0].collections if isinstance(band, PolyCollection)]
            assert bands
            for band in bands:
                assert contrast(band.get_facecolor()[0], 1.0 if style == "light" else 0.0) > 1.25
        plt.close("all")


@pytest.mark.parametrize("rows", [2, 3, 12])
def test_lags_are_whole_numbers(rows: int) -> None:
    g = np.repeat(np.arange(6), rows)
    data = pd.DataFrame({"g": g.astype(str), "y": np.random.default_rng(rows).normal(size=len(g)) + g})
    ax = blm.LMM("y ~ 1 + (1 | g)", data).fit().plot.acf()
    low, high = ax.get_xlim()
    shown = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert shown and all(float(tick).is_integer() for tick in shown)
    plt.close("all")


def test_labels_of_a_forest_stay_within_the_figure(fit: blm.Fit) -> None:
    """Three kinds of parameters have narrow panels, and what stands below each is not cut at the edge."""
    panels = fit.model.sample(draws=50, seed=1).plot.forest()
    figure = panels[0].figure
    figure.canvas.draw()
    ends = [panel.xaxis.label.get_window_extent() for panel in panels]
    assert len(ends) == 3 and all(end.x0 >= 0 and end.x1 <= figure.bbox.x1 and end.y0 >= 0 for end in ends)
    assert all(one.x1 < other.x0 for one, other in pairwise(ends))
    plt.close("all")
