"""Marginal means: what is averaged, how, and what is said of it."""

from __future__ import annotations

import itertools
import re
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError, PredictionError, SpecificationError
from bayeslmm.inference.means.multiplicity import ADJUSTMENTS_ELSEWHERE, contrast_method
from tests.inference.frames import split_plot, unbalanced


@pytest.fixture(scope="module")
def fit() -> blm.Fit:
    return blm.LMM("y ~ a * b + x + (1 | g)", unbalanced()).fit()


def test_balanced_means_are_the_means() -> None:
    data = split_plot()
    means = blm.LMM("y ~ variety * nitrogen + (1 | block / variety)", data).fit().emmeans("variety").frame.set_index("variety")["estimate"]
    np.testing.assert_allclose(means, data.groupby("variety")["y"].mean(), rtol=1e-9)


def test_they_are_predictions_over_the_grid(fit: blm.Fit) -> None:
    at = unbalanced()["x"].mean()
    grid = pd.DataFrame([{"a": a, "b": b, "x": at} for a in "xyz" for b in "pq"])
    predicted = grid.assign(y=fit.predict(grid, level="population")["estimate"]).groupby("a")["y"].mean()
    np.testing.assert_allclose(fit.emmeans("a").frame["estimate"], predicted, rtol=1e-10)
    np.testing.assert_allclose(
        fit.emmeans("a", at={"b": "q"}).frame["estimate"], fit.emmeans("~ a | b").frame.query("b == 'q'")["estimate"]
    )


@pytest.mark.parametrize("coding", ["sum", "helmert"])
def test_they_do_not_depend_on_the_coding(fit: blm.Fit, coding: str) -> None:
    other = blm.LMM("y ~ a * b + x + (1 | g)", unbalanced(), contrasts={"a": coding, "b": coding}).fit()
    columns = ["estimate", "std_error", "df"]
    np.testing.assert_allclose(other.emmeans(["a", "b"]).frame[columns], fit.emmeans(["a", "b"]).frame[columns], rtol=1e-5)


@pytest.mark.parametrize("methods", ["pairwise", ["revpairwise", "effect"], ["poly", "pairwise"], ["trt.vs.ctrl", "identity"]])
@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_interactions_are_contrasts_of_contrasts(fit: blm.Fit, methods: Any, order: list[str]) -> None:
    cells, names = fit.emmeans(order), [methods] * 2 if isinstance(methods, str) else methods
    table = {tuple(row[name] for name in order): row.estimate for _, row in cells.frame.iterrows()}
    levels = [list(dict.fromkeys(key[i] for key in table)) for i in range(2)]
    rows = [contrast_method(name, own).of(np.eye(len(own))) for name, own in zip(names, levels, strict=True)]
    value = np.array([[table[first, second] for second in levels[1]] for first in levels[0]])
    found = cells.contrast(interaction=methods)
    np.testing.assert_allclose(found["estimate"], (rows[0] @ value @ rows[1].T).ravel(), rtol=1e-9, atol=1e-9 * np.abs(value).max())
    weights = {
        label: [
            first[levels[0].index(key[0])] * second[levels[1].index(key[1])]
            for key in (tuple(row[name] for name in order) for _, row in cells.frame.iterrows())
        ]
        for label, (first, second) in zip(found["contrast"], itertools.product(*rows), strict=True)
    }
    columns = ["contrast", "std_error", "df", "p_value", "conf_low"]
    pd.testing.assert_frame_equal(pd.DataFrame(found)[columns], pd.DataFrame(cells.contrast(weights))[columns])


def test_names_of_r_and_weights_by_label(fit: blm.Fit) -> None:
    means = fit.emmeans("a")
    for foreign, own in {"trt.vs.ctrl1": "trt.vs.ctrl", "dunnett": "trt.vs.ctrl", "tukey": "pairwise", "Eff": "effect"}.items():
        pd.testing.assert_frame_equal(means.contrast(foreign), means.contrast(own))  # type: ignore[arg-type]
    weights = {"z": 1.0, "x": -1.0}
    named = means.contrast({"z - x": weights})
    pd.testing.assert_frame_equal(named, means.contrast({"z - x": pd.Series(weights)}))
    assert named["estimate"].item() == pytest.approx(means.contrast({"z - x": [-1, 0, 1]})["estimate"].item())
    with pytest.raises(SpecificationError, match="'w'"):
        means.contrast({"wrong": {"w": 1.0, "x": -1.0}})
    with pytest.raises(SpecificationError, match="did you mean 'x'"):
        means.contrast("trt.vs.ctrl", ref="X")


def test_adjustments_of_r_and_sas_are_told_by_ours(fit: blm.Fit) -> None:
    for foreign, remedy in ADJUSTMENTS_ELSEWHERE.items():
        with pytest.raises(SpecificationError, match=re.escape(remedy)):
            fit.emmeans("a").pairs(adjust=foreign)  # type: ignore[arg-type]
        own = remedy.split('"')[1]
        assert len(fit.emmeans("a").pairs(adjust=own if own != "dunnett" else "none")) == 3  # type: ignore[arg-type]


def test_an_interaction_takes_a_family_for_each_variable(fit: blm.Fit) -> None:
    cells = fit.emmeans(["a", "b"])
    same = cells.contrast("pairwise", interaction=True)["estimate"]
    np.testing.assert_array_equal(cells.contrast(interaction="pairwise")["estimate"], same)
    for wrong in (["pairwise"], ["pairwise", "poly", "poly"], {"a": 1}, 3, ["pairwise", 1]):
        with pytest.raises(SpecificationError, match="each variable"):
            cells.contrast(interaction=wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecificationError, match="unknown contrasts"):
        cells.contrast(interaction="simple")  # type: ignore[arg-type]


def test_weights_say_how_the_rest_is_averaged(fit: blm.Fit) -> None:
    data, cells = unbalanced(), fit.emmeans(["a", "b"]).frame
    value = {(r.a, r.b): r.estimate for r in cells.itertuples()}
    share = data["b"].value_counts(normalize=True)
    proportional = [sum(share[b] * value[a, b] for b in "pq") for a in "xyz"]
    np.testing.assert_allclose(fit.emmeans("a", weights="proportional").frame["estimate"], proportional, rtol=1e-10)
    within = data.groupby("a")["b"].value_counts(normalize=True)
    by_cell = [sum(within[a, b] * value[a, b] for b in "pq") for a in "xyz"]
    np.testing.assert_allclose(fit.emmeans("a", weights="cells").frame["estimate"], by_cell, rtol=1e-10)
    equal, flat, outer = (fit.emmeans("a", weights=w).frame["estimate"] for w in ("equal", "flat", "outer"))
    np.testing.assert_allclose(flat, equal)
    np.testing.assert_allclose(outer, proportional)


def test_pairs_are_differences_within_by(fit: blm.Fit) -> None:
    means = fit.emmeans("a", by="b")
    pairs = means.pairs(adjust="none")
    assert pairs["contrast"].tolist() == ["x - y", "x - z", "y - z"] * 2
    assert pairs["b"].tolist() == ["p"] * 3 + ["q"] * 3
    frame = means.frame.set_index(["b", "a"])["estimate"]
    assert pairs["estimate"].iloc[4] == pytest.approx(frame["q", "x"] - frame["q", "z"])
    direct = fit.contrast("a[T.z] + a[T.z]:b[T.q] = 0").frame.iloc[0]
    np.testing.assert_allclose(-pairs["estimate"].iloc[4], direct["estimate"])
    np.testing.assert_allclose(pairs[["std_error", "df"]].iloc[4].astype(float), direct[["std_error", "df"]].astype(float))
    low, high = pairs["conf_low"], pairs["conf_high"]
    assert ((low * high > 0) == (pairs["p_value"] < 0.05)).all()


@pytest.mark.parametrize("adjust", ["tukey", "dunnett", "mvt", "holm", "bonferroni", "sidak", "fdr"])
def test_an_adjustment_lies_between_none_and_bonferroni(fit: blm.Fit, adjust: str) -> None:
    means = fit.emmeans("a")
    plain, most, ours = (means.pairs(adjust=name)["p_value"] for name in ("none", "bonferroni", adjust))
    assert (ours >= plain - 1e-12).all()
    assert (ours <= most + 1e-12).all()


def test_adjusted_limits_agree_with_adjusted_p_values(fit: blm.Fit) -> None:
    means = fit.emmeans("a")
    for adjust in ("tukey", "mvt", "sidak", "bonferroni"):
        pairs = means.pairs(adjust=adjust)
        covers = (pairs["conf_low"] < 0) & (pairs["conf_high"] > 0)
        assert (covers == (pairs["p_value"] > 0.05)).all()


def test_families_of_contrasts(fit: blm.Fit) -> None:
    means = fit.emmeans("a")
    value = means.frame["estimate"].to_numpy()
    assert means.contrast("revpairwise")["contrast"].tolist() == ["y - x", "z - x", "z - y"]
    control = means.contrast("trt.vs.ctrl", ref="z")
    assert control["contrast"].tolist() == ["x - z", "y - z"]
    np.testing.assert_allclose(means.contrast("poly")["estimate"], [value[2] - value[0], value[0] - 2 * value[1] + value[2]])
    np.testing.assert_allclose(means.contrast("effect")["estimate"], value - value.mean())
    np.testing.assert_allclose(means.contrast("consec")["estimate"], np.diff(value))
    np.testing.assert_allclose(means.contrast({"rest": [1, -0.5, -0.5]})["estimate"], value[0] - value[1:].mean())
    with pytest.raises(InferenceError, match="all pairs"):
        means.contrast("effect", adjust="tukey")
    with pytest.raises(SpecificationError, match="one weight per mean"):
        means.contrast({"rest": [1, -1]})


def test_the_joint_test_of_means_is_the_type_3_test(fit: blm.Fit) -> None:
    joint, table = fit.emmeans("a").joint().iloc[0], fit.anova().set_index("term").loc["a"]
    assert joint["statistic"] == pytest.approx(table["statistic"])
    assert joint["num_df"] == table["num_df"]


def test_slopes_are_the_coefficients_of_slopes() -> None:
    fit = blm.LMM("y ~ a * x + I(x**2) + (1 | g)", unbalanced()).fit()
    at = unbalanced()["x"].mean()
    slopes = fit.emtrends("x", "a")
    wanted = fit.fixef["x"] + 2 * at * fit.fixef.filter(like="I(x").item() + np.array([0, fit.fixef["a[T.y]:x"], fit.fixef["a[T.z]:x"]])
    np.testing.assert_allclose(slopes.frame["estimate"], wanted, rtol=1e-6)
    np.testing.assert_allclose(
        slopes.pairs("none")["std_error"].iloc[0], fit.tidy().set_index("term").loc["a[T.y]:x", "std_error"], rtol=1e-6
    )
    with pytest.raises(SpecificationError, match="no slope"):
        fit.emtrends("a")


def test_a_covariate_can_be_asked_for_at_values(fit: blm.Fit) -> None:
    frame = fit.emmeans("x", at={"x": [18, 22]}).frame
    assert frame["x"].tolist() == [18.0, 22.0]
    assert np.diff(frame["estimate"]).item() == pytest.approx(4 * fit.fixef["x"])


def test_a_covariate_of_two_values_is_averaged_like_a_factor() -> None:
    data = unbalanced().assign(z=lambda d: (d["b"] == "q").astype(int) * 10)
    fit = blm.LMM("y ~ z * x + (1 | g)", data).fit()
    assert fit.emmeans("z").frame["z"].tolist() == [0.0, 10.0]


def test_an_offset_is_added_at_its_mean() -> None:
    data = unbalanced()
    plain = blm.LMM("y ~ a + (1 | g)", data.assign(y=data["y"] - data["w"])).fit().emmeans("a").frame["estimate"]
    for model in (blm.LMM("y ~ a + (1 | g)", data, offset="w"), blm.LMM("y ~ a + offset(w) + (1 | g)", data)):
        np.testing.assert_allclose(model.fit().emmeans("a").frame["estimate"], plain + data["w"].mean(), rtol=1e-7)


@pytest.mark.filterwarnings("ignore:aliased_columns")
def test_what_is_not_estimable_is_missing_and_said() -> None:
    data = unbalanced()
    fit = blm.LMM("y ~ a * b + (1 | g)", data[(data["a"] != "z") | (data["b"] != "q")]).fit()
    means = fit.emmeans(["a", "b"])
    missing = means.frame.set_index(["a", "b"])["estimate"].isna()
    assert missing["z", "q"]
    assert missing.sum() == 1
    assert any("not estimable" in note for note in means.notes)
    pairs = means.pairs(adjust="tukey")
    assert pairs["p_value"].isna().sum() == 5
    assert fit.emmeans("a").frame["estimate"].isna().tolist() == [False, False, True]
    assert fit.emmeans("a", weights="cells").frame["estimate"].notna().all()


def test_averaging_over_an_interaction_is_said(fit: blm.Fit) -> None:
    assert any("misleading" in note for note in fit.emmeans("a").notes)
    assert not fit.emmeans(["a", "b"]).notes


def test_names_and_levels_are_checked(fit: blm.Fit) -> None:
    with pytest.raises(SpecificationError, match="not a variable"):
        fit.emmeans("aa")
    with pytest.raises(InferenceError, match="not a level"):
        fit.emmeans("a", at={"b": "r"})
    with pytest.raises(SpecificationError, match="covariate"):
        fit.emmeans("a", at={"x": "high"})
    with pytest.raises(SpecificationError, match="proportional"):
        fit.emmeans("a", weights="proportion")
    with pytest.raises(SpecificationError, match="tukey"):
        fit.emmeans("a").pairs(adjust="tuky")
    with pytest.raises(SpecificationError, match="confidence"):
        fit.emmeans("a", conf_level=95)


def test_degrees_of_freedom_and_covariance_are_those_asked_for(fit: blm.Fit) -> None:
    for options in ({"df": "kenward-roger"}, {"df": "satterthwaite", "vcov": "CR2"}, {"df": "asymptotic"}):
        frame, table = fit.emmeans("x", at={"x": [0.0, 1.0]}, **options), fit.tidy(**options).set_index("term").loc["x"]
        pair = frame.pairs(adjust="none").iloc[0]
        assert pair["std_error"] == pytest.approx(table["std_error"], rel=1e-6)
        assert pair["df"] == pytest.approx(table["df"], rel=1e-6)


@pytest.mark.parametrize("kind", ["text", "category", "boolean"])
def test_a_factor_that_only_an_expression_reads_is_in_the_grid(kind: str) -> None:
    data = unbalanced()
    data["k"] = {"text": data["b"], "category": data["b"].astype("category"), "boolean": data["b"] == "q"}[kind]
    expression = "I(k * 1)" if kind == "boolean" else "I(k == 'q')"
    inside = blm.LMM(f"y ~ {expression} + a + (1 | g)", data).fit()
    coded = blm.LMM("y ~ b + a + (1 | g)", data).fit()
    for weights in ("equal", "proportional"):
        expected = coded.emmeans("a", weights=weights).frame["estimate"].to_numpy()
        assert inside.emmeans("a", weights=weights).frame["estimate"].to_numpy() == pytest.approx(expected, rel=1e-6)
    assert inside.emmeans("k").frame["estimate"].to_numpy() == pytest.approx(coded.emmeans("b").frame["estimate"].to_numpy(), rel=1e-6)


@pytest.mark.parametrize("term", ["bs(x, df=5)", "cr(x, df=4)", "poly(x, 3)", "x", "a * bs(x, df=4)"])
@pytest.mark.parametrize("unit", [1.0, 1e5])
def test_slopes_reach_both_ends_of_the_range(term: str, unit: float) -> None:
    data = unbalanced()
    data["x"] *= unit
    fit = blm.LMM(f"y ~ {term} + b + (1 | g)", data).fit()
    low, high = data["x"].min(), data["x"].max()
    h = 1e-4 * (high - low)
    slopes = fit.emtrends("x", "x", at={"x": [low, high]}).frame["estimate"].to_numpy()
    for slope, inner in zip(slopes, [[low, low + h, low + 2 * h], [high, high - h, high - 2 * h]], strict=True):
        means = fit.emmeans("x", at={"x": inner}).frame["estimate"].to_numpy()
        expected = means @ [-1.5, 2.0, -0.5] / (inner[1] - inner[0])
        assert slope == pytest.approx(expected, rel=1e-3, abs=1e-3 / unit)


def test_beyond_a_spline_the_column_is_named() -> None:
    data = unbalanced()
    fit = blm.LMM("y ~ bs(x, df=5) + (1 | g)", data).fit()
    with pytest.raises(PredictionError, match=r"bs\(x, df=5\)"):
        fit.emtrends("x", at={"x": data["x"].max() + 1})


LEFT_SIDES = {
    "pairwise": "pairwise",
    "revpairwise": "revpairwise",
    "trt.vs.ctrl": "trt.vs.ctrl",
    "consec": "consec",
    "poly": "poly",
    "eff": "effect",
    "Tukey": "pairwise",
}


@pytest.mark.parametrize(("left", "method"), LEFT_SIDES.items())
@pytest.mark.parametrize("right", ["f", "f | k", "f*k"])
def test_the_left_side_of_a_formula_asks_for_contrasts(left: str, method: Any, right: str) -> None:
    fit = _of_left_sides()
    both, means = fit.emmeans(f"{left} ~ {right}"), fit.emmeans(f"~ {right}")
    pd.testing.assert_frame_equal(both.frame, means.frame)
    pd.testing.assert_frame_equal(both.contrasts, means.contrast(method))
    assert repr(both) == f"{means!r}\n\n{both.contrasts!r}"
    assert means.contrasts.equals(means.pairs())


def test_slopes_take_a_left_side_and_other_words_are_refused() -> None:
    fit = _of_left_sides()
    assert fit.emtrends("x", "pairwise ~ f").contrasts.equals(fit.emtrends("x", "f").pairs())
    for wrong in ("nonsense ~ f", "y ~ f", "pairwise + 1 ~ f"):
        with pytest.raises(SpecificationError, match="pairwise"):
            fit.emmeans(wrong)


@cache
def _of_left_sides() -> blm.Fit:
    r = np.random.default_rng(5)
    d = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "f": np.tile(list("abcd"), 24), "k": np.tile(list("uuvv"), 24)[r.permutation(96)]})
    d["x"] = r.normal(size=96)
    d["y"] = d["x"] * (d["f"] == "b") + r.normal(size=12)[d["g"]] + r.normal(size=96)
    return blm.LMM("y ~ f * x + k + (1 | g)", d).fit()
