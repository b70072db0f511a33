"""Means on the scale of the response: inverses, ratios, bias; tests of one side and of equivalence; letters; effect sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import bayeslmm as blm
from bayeslmm._types import Adjustment
from bayeslmm.errors import BayesLMMError, SpecificationError
from bayeslmm.inference.means.hypothesis import compact_letters
from bayeslmm.inference.means.multiplicity import MultivariateT, critical_values, p_values
from bayeslmm.inference.means.studentized_range import studentized_range_quantile, studentized_range_sf
from bayeslmm.results.response_scale import response_scale

TRANSFORMATIONS = [
    "log(y)", "log2(y)", "log10(y)", "log1p(y)", "log(y + 1)", "sqrt(y)", "exp(y / 9)", "I(y**2)", "y**3", "1 / y", "-1 / sqrt(y)",
    "y**-0.5",
    "asin(sqrt(y / 20))", "log(y / 20 / (1 - y / 20))", "2**(y / 5)", "3 - 2 * y", "I(log(y) / 2)", "expm1(y / 9)", "atan(y)",
    "log2(y + 1 / 12)", "log(y) / log(2)", "I((y + 2 * pi)**0.5)", "sqrt(y + sqrt(2)) - (1 - 3)", "I((3 - 1) * y)",
]  # fmt: skip


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    g, f = np.repeat(np.arange(12), 6), np.tile(["a", "b", "c"], 24)
    y = np.exp(1.3 + 0.3 * (f == "b") + 0.25 * rng.standard_normal(12)[g] + 0.3 * rng.standard_normal(72))
    return pd.DataFrame({"y": np.clip(y, 0.3, 18.0), "f": f, "g": g.astype(str)})


@pytest.mark.parametrize("response", TRANSFORMATIONS)
def test_a_transformation_is_undone_with_its_derivatives(data: pd.DataFrame, response: str) -> None:
    design = blm.LMM(f"{response} ~ f + (1 | g)", data).design
    scale = response_scale(design)
    assert scale is not None
    np.testing.assert_allclose(scale.back(design.y), data["y"], rtol=1e-9)
    at, h = design.y[:20], 1e-4 * np.abs(design.y[:20])
    value, slope = scale.moments(at)
    np.testing.assert_allclose(value, data["y"][:20], rtol=1e-9)
    np.testing.assert_allclose(slope, (scale.back(at + h) - scale.back(at - h)) / (2 * h), rtol=1e-4, atol=1e-8)
    curved, moved = scale.moments(at, sd=2.0)
    np.testing.assert_allclose(curved - value, 2.0 * (scale.moments(at + h)[1] - scale.moments(at - h)[1]) / (2 * h), rtol=1e-3, atol=1e-6)
    change = (scale.moments(at + h, 2.0)[0] - scale.moments(at - h, 2.0)[0]) / (2 * h)
    np.testing.assert_allclose(moved, change, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*lie beyond the values:bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("response", TRANSFORMATIONS)
def test_predictions_go_back_end_by_end_and_say_their_scale(data: pd.DataFrame, response: str) -> None:
    fit = blm.LMM(f"{response} ~ f + (1 | g)", data).fit()
    scale = response_scale(fit.design)
    assert scale is not None
    for level, interval in [("conditional", None), ("population", "confidence"), ("conditional", "prediction")]:
        link = fit.predict(data, level, interval)
        back = fit.predict(data, level, interval, type="response")
        assert (link.attrs["scale"], back.attrs["scale"]) == (scale.name, "y")
        there = back["estimate"].notna()
        np.testing.assert_allclose(back["estimate"][there], scale.back(link["estimate"].to_numpy())[there], rtol=1e-12)
        if interval is not None:
            ends = np.sort([scale.back(link[end].to_numpy()) for end in ("conf_low", "conf_high")], axis=0)
            np.testing.assert_allclose(back[["conf_low", "conf_high"]].T, ends, rtol=1e-12)


@pytest.mark.parametrize("structure", [{}, {"variance": "ident(f)"}, {"weights": "w"}])
def test_a_prediction_adjusted_for_bias_adds_half_the_curvature_times_the_variance(data: pd.DataFrame, structure: dict[str, str]) -> None:
    """Of log(y): exp(m) (1 + v / 2), v the variance of a response about its mean: of errors, and of effects that are not given."""
    data = data.assign(w=np.linspace(0.5, 2.0, len(data)))
    fit = blm.LMM("log(y) ~ f + (1 | g)", data, **structure).fit()
    for level in ("conditional", "population"):
        plain = fit.predict(data, level, type="response")["estimate"].to_numpy()
        new, mean = (fit.predict(data, level, kind)["std_error"].to_numpy() for kind in ("prediction", "confidence"))
        found = fit.predict(data, level, "prediction", type="response", bias_adjust=True)
        np.testing.assert_allclose(found["estimate"], plain * (1.0 + 0.5 * (new**2 - mean**2)), rtol=1e-10)
        np.testing.assert_allclose(found["conf_low"], fit.predict(data, level, "prediction", type="response")["conf_low"], rtol=1e-12)
    given = fit.predict(data, "population", type="response", bias_adjust=0.3)["estimate"]
    np.testing.assert_allclose(given, plain * (1.0 + 0.5 * 0.09), rtol=1e-12)


def test_a_prediction_beyond_the_ends_of_the_scale_is_told(data: pd.DataFrame) -> None:
    fit = blm.LMM("sqrt(y) ~ x + (1 | g)", data.assign(x=data["y"])).fit()
    with pytest.warns(blm.errors.BayesLMMWarning, match="1 predictions lie beyond the values of sqrt"):
        found = fit.predict({"x": [1.0, -1000.0]}, "population", type="response")["estimate"]
    assert found.isna().tolist() == [False, True]


def test_predictions_of_new_subjects_and_of_sums_go_back_too(data: pd.DataFrame) -> None:
    formula = "log(y) ~ f + (1 | g)"
    fit, summed = blm.LMM(formula, data).fit(), blm.from_partitions(formula, [data.iloc[:36], data.iloc[36:]]).fit()
    new = data.head(4).assign(g="new")
    observed = fit.predict(new, observed=True, interval="confidence", type="response")
    np.testing.assert_allclose(np.log(observed["conf_low"]), fit.predict(new, observed=True, interval="confidence")["conf_low"])
    np.testing.assert_allclose(summed.predict(data, type="response"), fit.predict(data, type="response"), rtol=1e-6)
    even = blm.from_partitions("I(y**2) ~ f + (1 | g)", [data.iloc[:36], data.iloc[36:]]).fit()
    with pytest.raises(SpecificationError, match="the sign of the data"):
        even.predict(data, type="response")


@pytest.mark.parametrize("residual", [None, "ar1(t | g)"])
def test_draws_of_predictions_go_back_one_by_one(data: pd.DataFrame, residual: str | None) -> None:
    rows = data.assign(t=np.tile(np.arange(6.0), 12))
    post = blm.LMM("log(y) ~ f" + (" + (1 | g)" if residual is None else ""), rows, residual=residual).sample(20, chains=2, seed=1)
    for level in ("conditional", "population") if residual is None else ("conditional",):
        link = post.predict(rows, level, "prediction", draws=True, seed=3)
        back = post.predict(rows, level, "prediction", draws=True, seed=3, type="response")
        np.testing.assert_allclose(back, np.exp(link), rtol=1e-12)
        table = post.predict(rows, level, "confidence", type="response", seed=3)
        mean = np.exp(post.predict(rows, level, draws=True, seed=3))
        assert table.attrs["scale"] == "y"
        np.testing.assert_allclose(table["conf_low"], mean.quantile(0.025, axis=1), rtol=1e-12)
        without = post.predict(rows, level, type="response", seed=3)["estimate"]
        np.testing.assert_allclose(without, table["estimate"], rtol=1e-12)
    with pytest.raises(SpecificationError, match="type is"):
        post.emmeans("f", type=np.zeros(3), bias_adjust=True)


@pytest.mark.parametrize("response", ["sin(y)", "abs(y - 3)", "I((y - 3)**2)", "scale(y)", "round(y)", "I(y * y)"])
def test_what_cannot_be_undone_is_refused(data: pd.DataFrame, response: str) -> None:
    fit = blm.LMM(f"{response} ~ f + (1 | g)", data).fit()
    fit.emmeans("f").pairs()
    with pytest.raises(SpecificationError, match="transformed back"):
        fit.emmeans("f", type="response")


def test_ratios_and_means_of_logarithms(data: pd.DataFrame) -> None:
    fit = blm.LMM("log10(y) ~ f + (1 | g)", data).fit()
    link, back = fit.emmeans("f"), fit.emmeans("f", type="response")
    np.testing.assert_allclose(back.frame["estimate"], 10 ** link.frame["estimate"])
    np.testing.assert_allclose(back.frame["conf_high"], 10 ** link.frame["conf_high"])
    np.testing.assert_allclose(back.frame["std_error"], np.log(10) * back.frame["estimate"] * link.frame["std_error"])
    differences, ratios = link.pairs(), back.pairs()
    np.testing.assert_allclose(ratios["estimate"], 10 ** differences["estimate"])
    np.testing.assert_allclose(ratios["p_value"], differences["p_value"])
    assert ratios["contrast"].tolist() == ["a / b", "a / c", "b / c"]
    assert any("ratios of y" in note for note in ratios.notes)
    assert any("scale of log10(y)" in note for note in link.frame.notes)
    sd = np.sqrt(fit.varcorr["variance"].sum())
    adjusted = fit.emmeans("f", type="response", bias_adjust=True).frame["estimate"]
    np.testing.assert_allclose(adjusted, back.frame["estimate"] * (1 + 0.5 * (np.log(10) * sd) ** 2), rtol=1e-8)


def test_limits_end_where_the_scale_ends(data: pd.DataFrame) -> None:
    noisy = data.assign(y=np.random.default_rng(1).exponential(0.01, len(data)))
    frame = blm.LMM("sqrt(y) ~ f + (1 | g)", noisy.iloc[:12], check="warn").fit().emmeans("f", type="response", conf_level=0.9999).frame
    assert (frame["conf_low"] == 0).all()
    assert (frame["conf_low"] <= frame["estimate"]).all() and (frame["estimate"] <= frame["conf_high"]).all()


@pytest.mark.parametrize("adjust", ["none", "holm", "bonferroni", "sidak", "fdr", "mvt"])
def test_one_side_is_half_of_two_where_nothing_is_adjusted_and_limits_agree_with_tests(data: pd.DataFrame, adjust: str) -> None:
    means = blm.LMM("y ~ f + (1 | g)", data).fit().emmeans("f")
    greater, less = (means.pairs(adjust, side=side, delta=0.3) for side in ("greater", "less"))
    if adjust == "none":
        np.testing.assert_allclose(greater["p_value"] + less["p_value"], 1.0)
    if adjust in ("none", "bonferroni", "sidak", "mvt"):
        assert ((greater["p_value"] < 0.05) == (greater["conf_low"] > 0.3)).all()
        assert ((less["p_value"] < 0.05) == (less["conf_high"] < 0.3)).all()
    assert np.isinf(greater["conf_high"]).all() and np.isinf(less["conf_low"]).all()


def test_equivalence_is_two_one_sided_tests(data: pd.DataFrame) -> None:
    means = blm.LMM("y ~ f + (1 | g)", data).fit().emmeans("f")
    for limit in (0.5, 1.5, 3.0):
        found = means.pairs("none", equivalence=limit)
        upper, lower = means.pairs("none", side="less", delta=limit), means.pairs("none", side="greater", delta=-limit)
        np.testing.assert_allclose(found["p_value"], np.maximum(upper["p_value"], lower["p_value"]))
        inside = (found["conf_low"] > -limit) & (found["conf_high"] < limit)
        assert (inside == (found["p_value"] < 0.05)).all()
    with pytest.raises(SpecificationError):
        means.pairs(side="noninferiority")
    with pytest.raises(BayesLMMError):
        means.pairs(equivalence=-1.0)


def test_contrasts_of_coefficients_have_sides_and_limits(data: pd.DataFrame) -> None:
    fit = blm.LMM("y ~ f + (1 | g)", data).fit()
    two = fit.contrast("f[T.b] = 0").frame.iloc[0]
    assert two["conf_low"] < two["estimate"] < two["conf_high"]
    above = fit.contrast("f[T.b] = 0", side="greater", delta=-0.5).frame.iloc[0]
    assert above["p_value"] == pytest.approx(stats.t.sf((two["estimate"] + 0.5) / two["std_error"], two["df"]))
    assert above["conf_high"] == np.inf


def test_by_regroups_what_is_compared(data: pd.DataFrame) -> None:
    both = data.assign(h=np.tile(["p", "q"], 36))
    fit = blm.LMM("y ~ f * h + (1 | g)", both).fit()
    pd.testing.assert_frame_equal(fit.emmeans(["f", "h"]).pairs(by="h"), fit.emmeans("f", by="h").pairs())
    with pytest.raises(SpecificationError):
        fit.emmeans("f").pairs(by="h")


def test_effect_sizes_of_a_linear_model_are_those_of_emmeans(data: pd.DataFrame) -> None:
    fit = blm.LMM("y ~ f", data, residual=None).fit()
    pairs, sizes = fit.emmeans("f").pairs("none"), fit.emmeans("f").effect_size()
    d = pairs["estimate"] / fit.sigma
    np.testing.assert_allclose(sizes["estimate"], d, rtol=1e-9)
    np.testing.assert_allclose(sizes["std_error"], np.sqrt((pairs["std_error"] / fit.sigma) ** 2 + d**2 / (2 * (len(data) - 3))), rtol=1e-6)
    mixed = blm.LMM("y ~ f + (1 | g)", data).fit()
    total = np.sqrt(mixed.varcorr["variance"].sum())
    np.testing.assert_allclose(mixed.emmeans("f").effect_size("total")["estimate"], mixed.emmeans("f").pairs()["estimate"] / total)


@pytest.mark.parametrize("seed", range(6))
def test_letters_say_what_the_pairs_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = int(rng.integers(2, 12))
    means, pairs = rng.standard_normal(m), np.array([(i, j) for i in range(m) for j in range(i + 1, m)])
    differ = rng.random(len(pairs)) < 0.4 if seed % 2 else np.abs(means[pairs[:, 0]] - means[pairs[:, 1]]) > 0.8
    letters = compact_letters(means, pairs, differ)
    for (i, j), apart in zip(pairs, differ, strict=True):
        assert bool(set(letters[i]) & set(letters[j])) is not bool(apart)
    assert "a" in letters[int(np.argmin(means))]


def test_a_grid_of_more_variables_than_an_array_has_axes() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(rng.standard_normal((400, 80)), columns=[f"x{i}" for i in range(80)])
    frame = frame.assign(f=np.tile(["a", "b"], 200), g=np.repeat(np.arange(40), 10).astype(str), y=rng.standard_normal(400))
    fit = blm.LMM("y ~ f + " + " + ".join(f"x{i}" for i in range(80)) + " + (1 | g)", frame).fit()
    for weights in ("equal", "proportional", "outer", "cells", "flat"):
        means = fit.emmeans("f", weights=weights).frame
        mean = frame.drop(columns=["f", "g", "y"]).mean()
        wanted = fit.predict(pd.DataFrame([{**mean, "f": f} for f in "ab"]), level="population")["estimate"]
        np.testing.assert_allclose(means["estimate"], wanted, rtol=1e-9)


def test_notes_stay_with_parts_of_a_frame_and_print(data: pd.DataFrame) -> None:
    pairs = blm.LMM("sqrt(y) ~ f + (1 | g)", data).fit().emmeans("f").pairs("holm")
    assert any("Holm" in note for note in pairs.notes)
    assert pairs[["contrast", "p_value"]].notes == pairs.notes
    assert pairs.notes[0] in repr(pairs) and "degrees of freedom: satterthwaite" in repr(pairs.head(1))


def test_an_index_that_is_set_is_printed_and_row_numbers_are_not(data: pd.DataFrame) -> None:
    pairs = blm.LMM("y ~ f + (1 | g)", data).fit().emmeans("f").pairs()
    assert repr(pairs.nlargest(2, "estimate")).split()[0] == "contrast"
    for indexed in (
        pairs.set_index("contrast"),
        pairs.set_index(["contrast", "df"]),
        pairs.T,
        pd.concat({"both": pairs.set_index("contrast")}, axis=1),
    ):
        for label in indexed.index.to_frame().astype(str).to_numpy().ravel():
            assert label.split(".")[0] in repr(indexed) and label.split(".")[0] in indexed._repr_html_()


@pytest.mark.parametrize("adjust", ["tukey", "mvt", "bonferroni", "sidak", "holm", "fdr"])
def test_a_note_names_limits_where_they_say_what_the_p_values_say(adjust: Adjustment) -> None:
    """Limits that are of another method, or of none, may hold 0 beside a small p value or the other way round."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"f": np.tile(list("abcdefgh"), 12), "g": np.repeat(np.arange(12), 8).astype(str)})
    frame["y"] = frame["f"].map(dict(zip("abcdefgh", np.linspace(0.0, 1.0, 8), strict=True))) + rng.normal(size=96)
    means = blm.LMM("y ~ f + (1 | g)", frame).fit().emmeans("f")
    pairs = means.pairs(adjust)
    agree = bool(((pairs["p_value"] < 0.05) == (pairs["conf_low"] * pairs["conf_high"] > 0)).all())
    assert agree == any(note.startswith("p values and limits adjusted") for note in pairs.notes)
    theirs = {"holm": "bonferroni", "fdr": "none"}.get(adjust, adjust)
    np.testing.assert_allclose(pairs["conf_low"], means.pairs(theirs)["conf_low"], rtol=1e-10)


@pytest.mark.parametrize("k", [3, 4, 12, 60])
@pytest.mark.parametrize("df", [(3.0, 3.0), (4.0, 25.0), (40.0, 1e4), (np.inf, np.inf)])
def test_many_statistics_have_the_tails_that_each_has_alone(k: int, df: tuple[float, float]) -> None:
    rng = np.random.default_rng(k)
    q, nu = rng.uniform(0.2, 12.0, 3000), rng.uniform(*df, 3000) if np.isfinite(df[1]) else np.full(3000, np.inf)
    together, alone = studentized_range_sf(q, k, nu), studentized_range_sf(q[:60], k, nu[:60])
    np.testing.assert_allclose(together[:60], alone, rtol=2e-6, atol=2e-7)
    point = studentized_range_quantile(0.95, k, nu[:60])
    np.testing.assert_allclose(studentized_range_sf(point, k, nu[:60]), 0.05, rtol=1e-6)


def test_one_sided_families_are_those_of_independent_statistics() -> None:
    law = MultivariateT.of(np.eye(3), np.inf, two_sided=False)
    for t in (-1.0, 0.0, 0.7, 2.5):
        assert law.outside(t) == pytest.approx(1.0 - special.ndtr(t) ** 3, rel=3e-3)
    df, t = np.full(3, 15.0), np.array([0.5, -2.2, 3.1])
    np.testing.assert_allclose(p_values("sidak", t, df, None, 0, "greater"), 1.0 - (1.0 - stats.t.sf(t, 15)) ** 3)
    np.testing.assert_allclose(critical_values("bonferroni", 0.95, df, None, 0, "less"), stats.t.isf(0.05 / 3, 15))
