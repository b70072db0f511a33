"""What figures of effects draw: lines are marginal means, differences are contrasts, marks stand where the numbers say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.draws import kernel_density
from bayeslmm.plots.style import local_line
from bayeslmm.plots.subjects import semivariances

WEEKS = (2.0, 4.0, 8.0, 12.0, 16.0)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def visits(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Three arms of unequal size over five visits, with drop-out."""
    rng = np.random.default_rng(seed)
    d = pd.DataFrame({"id": np.repeat(np.arange(n), 5), "week": np.tile(WEEKS, n)})
    d["arm"] = pd.Categorical(np.array(["placebo", "low", "high", "high"])[d["id"] % 4], categories=["placebo", "low", "high"])
    d["sex"] = np.where(rng.random(n) > 0.3, "f", "m")[d["id"]]
    d["base"] = rng.normal(50, 8, n)[d["id"]]
    growth = 0.1 * d["arm"].cat.codes * d["week"] * (1 + (d["sex"] == "f"))
    d["y"] = 30 + 0.4 * d["base"] + growth + rng.normal(0, 3, n)[d["id"]] + rng.normal(0, 2, len(d))
    names = [f"week {week:.0f}" for week in WEEKS]
    d["visit"] = pd.Categorical("week " + d["week"].astype(int).astype(str), categories=names, ordered=True)
    last = np.array(WEEKS)[rng.integers(0, 5, n)]
    return d[d["week"] <= np.where(rng.random(n) < 0.4, last, 16.0)[d["id"]]].assign(id=lambda f: "s" + f["id"].astype(str))


@cache
def over_visits() -> Any:
    return blm.LMM("y ~ base + sex * arm + arm * visit + (1 | id)", visits(), residual="ar1(visit | id)").fit()


@cache
def over_weeks() -> Any:
    return blm.LMM("log(y) ~ arm * week + sex + base + (week | id)", visits()).fit()


def drawn(ax: Any, label: str) -> Any:
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return line


def captions(ax: Any) -> str:
    return " ".join(text.get_text() for text in ax.texts).replace("\n", " ")


@pytest.mark.parametrize("scale", ["link", "response"])
def test_lines_are_marginal_means_averaged_over_other_factors(scale: Any) -> None:
    fit = over_weeks()
    ax = fit.plot.lines("week", by="arm", type=scale)
    for arm in ("placebo", "low", "high"):
        x, y = drawn(ax, arm).get_data()
        means = fit.emmeans("arm", at={"week": [x[0], x[-1]]}, by="week", type=scale).frame
        np.testing.assert_allclose([y[0], y[-1]], means[means["arm"] == arm]["estimate"], rtol=1e-10)
    assert ax.get_ylabel() == ("log(y)" if scale == "link" else "y")
    assert "averaged over sex" in captions(ax)
    assert "base at the mean" in captions(ax)


def test_data_and_lines_of_levels_can_be_left_out() -> None:
    fit = over_weeks()
    ax = fit.plot.lines("week", points=False, levels=False)
    assert not ax.collections[1:]
    assert len(ax.get_lines()) == 2
    both = fit.plot.lines("week", type="response")
    offsets = np.asarray(both.collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(offsets[:, 1]), np.sort(visits()["y"]))


def test_a_level_of_confidence_has_one_name_and_the_old_word_is_read() -> None:
    fit = over_weeks()
    bands = [fit.plot.lines("week", points=False, levels=False, **{word: 0.5}) for word in ("conf_level", "level")]
    first, second = (band.collections[0].get_paths()[0].vertices for band in bands)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(blm.errors.BayesLMMError):
        fit.plot.lines("week", level=0.5, conf_level=0.9)


@pytest.mark.parametrize("term", ["arm:visit", ["visit", "arm"], "~ arm | visit", "arm * visit"])
def test_an_interaction_of_factors_is_drawn_along_the_ordered_one(term: Any) -> None:
    fit = over_visits()
    (ax,) = fit.plot.effects(term)
    means = fit.emmeans("arm", by="visit").frame
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [f"week {week:.0f}" for week in WEEKS]
    for arm in ("placebo", "low", "high"):
        x, y = drawn(ax, arm).get_data()
        np.testing.assert_allclose(y, means[means["arm"] == arm]["estimate"], rtol=1e-10)
        np.testing.assert_allclose(x, np.arange(5), atol=0.2)
    assert "averaged over sex" in captions(ax)


def test_an_effect_of_numbers_is_a_band_over_their_range() -> None:
    fit = over_weeks()
    (ax,) = fit.plot.effects("week:arm", conf_level=0.8, df="asymptotic")
    x, y = drawn(ax, "high").get_data()
    assert (x[0], x[-1]) == (2.0, 16.0)
    means = fit.emmeans("arm", at={"week": [2.0, 16.0]}, by="week", conf_level=0.8, df="asymptotic").frame.query("arm == 'high'")
    np.testing.assert_allclose([y[0], y[-1]], means["estimate"], rtol=1e-10)
    band = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in ax.collections])
    assert band.min() <= means["conf_low"].min()
    assert band.max() == pytest.approx(fit.emmeans("arm", at={"week": [16.0]}, conf_level=0.8, df="asymptotic").frame["conf_high"].max())


def test_a_third_variable_has_panels_and_another_number_has_three_lines() -> None:
    data = visits()
    fit = blm.LMM("y ~ arm * visit * sex + week:base + (1 | id)", data).fit()
    axes = fit.plot.effects(["arm", "visit", "sex"])
    assert [ax.get_title() for ax in axes] == ["sex f", "sex m"]
    (ax,) = fit.plot.effects("week:base")
    rows = fit.augment()["base"].to_numpy()
    labels = [float(line.get_label()) for line in ax.get_lines()]
    np.testing.assert_allclose(labels, [rows.mean() - rows.std(), rows.mean(), rows.mean() + rows.std()], rtol=1e-3)


def test_every_term_of_a_model_has_its_effect() -> None:
    """As the model names it: with expressions, powers, quoted columns."""
    data = visits().rename(columns={"base": "base: at *start*"})
    formula = "y ~ poly(week, 2) * arm + I(week**3) + `base: at *start*`:sex + log(week * 2) + (1 | id)"
    fit = blm.LMM(formula, data, check="warn").fit()
    for term in dict.fromkeys(fit.model.design.coef_terms):
        if term not in ("1", "Intercept"):
            assert fit.plot.effects(term, df="asymptotic"), term


def test_more_lines_than_can_be_told_apart_are_refused() -> None:
    for draw in (lambda: over_weeks().plot.lines("week", by="y"), lambda: over_weeks().plot.profiles(by="y")):
        with pytest.raises(SpecificationError, match="more than"):
            draw()


def test_terms_that_are_none_are_refused() -> None:
    fit = over_visits()
    for term in ("id", "arm:nope", "", [], 3):
        with pytest.raises(SpecificationError):
            fit.plot.effects(term)
    with pytest.raises(SpecificationError, match="no variable"):
        fit.plot.effects("arm", x="visit")


def test_differences_over_visits_are_contrasts_from_the_first_level() -> None:
    fit = over_visits()
    named, found = fit.plot.differences("arm", by="visit")[0], fit.plot.differences()[0]
    table = fit.emmeans("arm", by="visit").contrast("trt.vs.ctrl", "none")
    for name in ("low - placebo", "high - placebo"):
        own = table[table["contrast"] == name]
        np.testing.assert_allclose(drawn(found, name).get_ydata(), own["estimate"])
        np.testing.assert_allclose(drawn(named, name).get_ydata(), own["estimate"])
    ends = np.concatenate([[path.vertices[:, 1] for path in part.get_paths()] for part in found.collections])
    np.testing.assert_allclose(np.sort(ends[:, 0]), np.sort(table["conf_low"]))
    other = fit.plot.differences("arm", by="visit", method="pairwise", ref=None, adjust="tukey")[0]
    assert {line.get_label() for line in other.get_lines()} >= {"placebo - low", "placebo - high", "low - high"}


def test_differences_over_numbers_are_at_those_of_the_data() -> None:
    (ax,) = over_weeks().plot.differences("arm", by="week")
    np.testing.assert_allclose(drawn(ax, "low - placebo").get_xdata(), WEEKS, atol=0.2)


def test_subgroups_are_differences_within_levels_with_the_test_of_the_interaction() -> None:
    fit = over_visits()
    ax = fit.plot.subgroups("arm")
    within = fit.emmeans("arm", by="sex").contrast("trt.vs.ctrl", "none")
    overall = fit.emmeans("arm").contrast("trt.vs.ctrl", "none")
    expected = np.concatenate([overall["estimate"], within["estimate"]])
    found = np.concatenate([drawn(ax, name).get_xdata() for name in ("low - placebo", "high - placebo")])
    np.testing.assert_allclose(np.sort(found), np.sort(expected))
    test = fit.contrast([f"sex[T.m]:arm[T.{arm}] = 0" for arm in ("low", "high")]).joint
    labels = [tick.get_text().replace("\n", " ") for tick in ax.get_yticklabels()]
    assert f"(interaction p = {test['p_value'].item() if hasattr(test['p_value'], 'item') else test['p_value']:.2g})" in labels[2]
    subjects = visits().groupby("sex")["id"].nunique()
    assert labels[:2] == [f"  m (n = {subjects['m']})", f"  f (n = {subjects['f']})"]


def test_subgroups_of_a_fit_without_rows_have_no_counts(tmp_path: Path) -> None:
    fit = blm.LMM("y ~ sex * arm + arm * visit", visits(), residual="ar1(visit | id)").fit()
    fit.save(tmp_path / "fit", rows=False)
    texts = [[tick.get_text() for tick in one.plot.subgroups("arm").get_yticklabels()] for one in (fit, blm.load(tmp_path / "fit"))]
    assert texts[1] == [text.split(" (n = ")[0] for text in texts[0]]


def test_subgroups_of_a_model_without_the_interaction_are_refused() -> None:
    fit = over_weeks()
    for factors in (None, "sex"):
        with pytest.raises(SpecificationError, match=r"interact.*arm"):
            fit.plot.subgroups("arm", factors)


def test_profiles_have_means_by_arm_and_by_when_subjects_were_last_seen() -> None:
    data = visits()
    axes = over_visits().plot.profiles(by="arm")
    last = data.groupby("id")["week"].transform("max")
    for ax, arm in zip(axes, ("placebo", "low", "high"), strict=True):
        assert ax.get_title() == f"arm {arm} (n = {data[data['arm'] == arm]['id'].nunique()})"
        for week in sorted(last[data["arm"] == arm].unique()):
            own = data[(data["arm"] == arm) & (last == week)]
            line = drawn(ax, f"last seen at week {week:.0f}")
            np.testing.assert_allclose(line.get_ydata(), own.groupby("week")["y"].mean())
    whole = over_visits().plot.profiles(dropout=False, levels=False)[0]
    np.testing.assert_allclose(drawn(whole, f"observed mean (n = {data['id'].nunique()})").get_ydata(), data.groupby("week")["y"].mean())


def test_semivariances_are_those_of_all_pairs() -> None:
    """By the definition: half the mean squared difference of the pairs of a subject that are so far apart."""
    rng = np.random.default_rng(1)
    subject, place, values = rng.integers(0, 8, 60), rng.integers(0, 6, 60).astype(float), rng.normal(size=60)
    found = semivariances(values, place[:, None], subject)
    i, j = np.triu_indices(60, 1)
    same = subject[i] == subject[j]
    apart, half = np.abs(place[i] - place[j])[same], 0.5 * (values[i] - values[j])[same] ** 2
    np.testing.assert_allclose(found.distance, np.unique(apart))
    np.testing.assert_allclose(found.value, [half[apart == distance].mean() for distance in found.distance])
    assert found.pairs.sum() == same.sum()


@pytest.mark.parametrize("unit", [2.0**-40, 2.0**30])
def test_semivariances_do_not_depend_on_the_unit_of_time(unit: float) -> None:
    rng = np.random.default_rng(2)
    subject, place, values = rng.integers(0, 8, 60), rng.integers(0, 6, (60, 2)).astype(float), rng.normal(size=60)
    whole, other = semivariances(values, place, subject), semivariances(values, unit * place, subject)
    np.testing.assert_allclose(other.distance, unit * whole.distance, rtol=1e-12)
    np.testing.assert_array_equal(other.pairs, whole.pairs)
    np.testing.assert_allclose(other.value, whole.value, rtol=1e-12)


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**30])
@pytest.mark.parametrize("curve", [lambda x: kernel_density(x), lambda x: local_line(x, np.sin(x / np.ptp(x)))], ids=["density", "line"])
def test_curves_do_not_depend_on_the_unit_of_their_axis(curve: Any, unit: float) -> None:
    x = np.random.default_rng(3).gamma(2.0, size=200)
    (at, values), (at_unit, values_unit) = curve(x), curve(unit * x)
    np.testing.assert_allclose(at_unit, unit * at, rtol=1e-9)
    np.testing.assert_allclose(values_unit / np.abs(values_unit).max(), values / np.abs(values).max(), rtol=1e-6)


def test_a_parameter_that_never_moves_is_a_narrow_peak() -> None:
    for held in (0.0, 2.0**-60, -3.0):
        at, values = kernel_density(np.full(50, held))
        assert at[0] < held < at[2]
        assert values[1] > 0
        assert at[2] - at[0] <= 0.0021 * (abs(held) or 1.0)


def test_the_variogram_has_what_the_structure_says() -> None:
    fit = over_visits()
    ax = fit.plot.variogram()
    R = fit.R.to_numpy()
    corr = R[0] / R[0, 0]
    np.testing.assert_allclose(drawn(ax, "the model's errors").get_ydata(), 1.0 - corr[1:], rtol=1e-6)
    assert over_weeks().plot.variogram("normalized").get_xlabel() == "distance in week"


def test_matrices_are_correlations_with_their_sds() -> None:
    fit = over_weeks()
    (ax,) = fit.plot.covariance()
    texts = [text.get_text() for text in ax.texts]
    D = fit.D["id"].to_numpy()
    sd = np.sqrt(np.diag(D))
    corr = f"{D[0, 1] / sd[0] / sd[1]:.2f}"
    assert texts == [f"{sd[0]:.3g}", corr, corr, f"{sd[1]:.3g}"]
    assert [ax.get_title() for ax in over_visits().plot.covariance()] == ["errors"]
    with pytest.raises(SpecificationError, match="neither a residual structure"):
        blm.LMM("y ~ arm + (1 | id)", visits()).fit().plot.covariance()


def test_random_effects_against_normal_quantiles_and_in_pairs() -> None:
    fit = over_weeks()
    modes = fit.ranef()["id"]
    qq = fit.plot.ranef(kind="qq")
    assert len(qq) == 2
    (pairs,) = fit.plot.ranef(kind="pairs")
    np.testing.assert_allclose(np.asarray(pairs.collections[0].get_offsets()), modes.to_numpy())
    with pytest.raises(SpecificationError, match="one random effect"):
        over_visits().plot.ranef(kind="pairs")


def test_figures_of_draws_are_of_their_means_and_quantiles() -> None:
    post = blm.LMM("log(y) ~ arm * week + sex + (1 | id)", visits(24)).sample(40, chains=2, seed=1)
    at = {"week": [2.0, 16.0]}
    means = post.emmeans("arm", by="week", at=at, type="response").frame.query("arm == 'high'")
    for ax in (post.plot.lines("week", by="arm", type="response"), post.plot.effects("arm:week", type="response")[0]):
        y = drawn(ax, "high").get_ydata()
        np.testing.assert_allclose([y[0], y[-1]], means["estimate"], rtol=1e-10)
    (ax,) = post.plot.differences("arm", by="week", at=at)
    table = post.emmeans("arm", by="week", at=at).contrast("trt.vs.ctrl").query("contrast == 'high - placebo'")
    np.testing.assert_allclose(drawn(ax, "high - placebo").get_ydata(), table["estimate"])


def test_effects_of_sums_over_parts_are_those_of_the_rows() -> None:
    data = visits()
    formula = "y ~ arm * week + sex + (1 | id)"
    fit, summed = blm.LMM(formula, data).fit(), blm.from_partitions(formula, [data.iloc[:100], data.iloc[100:]]).fit()
    for name, draw in {
        "effects": lambda f: f.plot.effects("arm:week"),
        "differences": lambda f: f.plot.differences("arm", by="week"),
    }.items():
        own, other = draw(fit)[0].get_lines()[-1], draw(summed)[0].get_lines()[-1]
        np.testing.assert_allclose(other.get_ydata()[[0, -1]], own.get_ydata()[[0, -1]], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("levels", [10, 7, 4, 2])
def test_every_panel_says_its_numbers(levels: int) -> None:
    """Panels share their axis: the lowest of each column has its numbers, whatever stands below it or does not."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": np.tile(list("uv"), 200), "b": np.repeat([f"b{i}" for i in range(levels)], 400 // levels + 1)[:400]})
    fit = blm.LMM("y ~ a * b", frame.assign(y=rng.normal(size=400))).fit()
    axes = fit.emmeans("a", by="b").plot()
    axes[0].figure.canvas.draw()
    bottom: dict[int, Any] = {}
    for ax in axes:
        bottom[round(ax.get_position().x0, 2)] = ax
    for ax in bottom.values():
        assert any(label.get_text() and label.get_visible() for label in ax.get_xticklabels())
