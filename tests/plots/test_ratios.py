"""Differences of a transformed response as figures: ratios about 1; subgroups of a posterior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior.tables import larger_at_first


@pytest.fixture(scope="module")
def trial() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(40), 3)
    frame = pd.DataFrame({"id": g, "week": pd.Categorical(np.tile(["w1", "w2", "w4"], 40), ordered=True)})
    frame["arm"], frame["sex"] = np.array(["a", "b"])[g % 2], np.array(["f", "m"])[(g // 2) % 2]
    frame["y"] = np.exp(2 + 0.4 * (frame["arm"] == "b") * (frame["sex"] == "f") + rng.normal(0, 0.2, 40)[g] + rng.normal(0, 0.3, 120))
    return frame


@pytest.fixture(scope="module", params=["log(y)", "log10(y)", "sqrt(y)", "y"])
def fit(request: pytest.FixtureRequest, trial: pd.DataFrame) -> blm.Fit:
    return blm.LMM(f"{request.param} ~ arm * week + arm * sex + (1 | id)", trial).fit()


def drawn(axes: Any) -> tuple[str, float, np.ndarray]:
    """The label, the place of the line across, and the estimates of a figure of differences."""
    (ax,) = axes
    across = [line for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    return ax.get_ylabel(), float(across[0].get_ydata()[0]), np.asarray(ax.lines[-1].get_ydata(), float)


@pytest.mark.parametrize("door", ["fit", "posterior"])
def test_differences_on_the_scale_of_the_response(fit: blm.Fit, door: str) -> None:
    source: Any = fit if door == "fit" else fit.model.sample(draws=50, seed=1)
    link_label, none, link = drawn(source.plot.differences("arm", by="week"))
    label, null, found = drawn(source.plot.differences("arm", by="week", type="response"))
    assert none == 0.0
    assert link_label.startswith("difference")
    table = source.emmeans("arm", by="week", type="response").contrast("trt.vs.ctrl")
    np.testing.assert_allclose(found, table["estimate"])
    if fit.model.spec.formula.response.startswith("log"):
        assert null == 1.0
        assert label.startswith("ratio of y")
        assert np.all((found > 1) == (link > 0)) or door == "posterior"
    else:
        assert null == 0.0
        assert label.startswith("difference")


def test_subgroups_of_a_posterior(trial: pd.DataFrame) -> None:
    post = blm.LMM("log(y) ~ arm * sex + arm * week + (1 | id)", trial).sample(draws=200, seed=1)
    ax = post.plot.subgroups("arm")
    told = [tick.get_text().replace("\n", " ") for tick in ax.get_yticklabels()]
    means = post.emmeans("arm", by="sex")
    table = means.contrast("trt.vs.ctrl")
    estimates = np.sort(np.concatenate([np.asarray(line.get_xdata(), float) for line in ax.lines[1:]]))
    whole = post.emmeans("arm").contrast("trt.vs.ctrl")["estimate"]
    np.testing.assert_allclose(estimates, np.sort([*table["estimate"], *whole]))
    share = larger_at_first(means, "trt.vs.ctrl", None)
    assert any(f"= {share:.2g})" in line for line in told), told
    assert share > 0.5  # the difference is simulated among women, the first
