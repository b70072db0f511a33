"""Estimates beside posteriors, and models beside models."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.bayes import designs

mpl.use("Agg")


@cache
def slopes() -> Any:
    return designs.model("slopes")


@cache
def posterior() -> Any:
    return slopes().sample(draws=500, seed=1)


def test_one_row_per_parameter_and_source() -> None:
    reml, ml, mode = slopes().fit(), slopes().fit("ML"), designs.model("slopes", blm.Priors(preset="blme")).fit("MAP")
    table = blm.compare(reml, ml, posterior(), {"mode": mode}).frame
    assert list(dict.fromkeys(table["source"])) == ["REML", "ML", "posterior", "mode"]
    assert table.groupby("source").size().tolist() == [6, 6, 6, 6]
    own = table[table["source"] == "posterior"]
    np.testing.assert_allclose(own["gap"], 0.0, atol=1e-12)
    first = table[(table["source"] == "REML") & (table["term"] == "x")]
    post = own[own["term"] == "x"]
    gap = (first["estimate"].item() - post["estimate"].item()) / post["std_error"].item()
    assert first["gap"].item() == pytest.approx(gap)


def test_the_pull_of_the_prior_is_the_derivative_of_the_mean() -> None:
    """Against importance weights for a power of the prior a little off 1."""
    post = posterior()
    frame = blm.compare(post).frame
    prior = post.density.without_volume().log_prior(post.draws.phi)
    sigma = post.parameters["sigma"].values
    h, means = 1e-4, []
    for power in (h, -h):
        w = np.exp(power * (prior - prior.mean()))
        means.append(float((w * sigma).sum() / w.sum()))
    own = frame[frame["term"] == "sd__Observation"]["pull"].item()
    assert own == pytest.approx((means[0] - means[1]) / (2 * h) / sigma.std(), rel=1e-4)


def test_draws_of_a_graph_and_of_bambi_are_read_by_their_names() -> None:
    xarray = pytest.importorskip("xarray")
    post = posterior()
    shape = ("chain", "draw")
    drawn = {"Intercept": post.draws.alpha[:, 0], "x": post.draws.alpha[:, 1], "sigma": post.parameters["sigma"].values}
    drawn |= {"1|g_sigma": post.parameters["sd_g"].values[:, 0], "x|g_sigma": post.parameters["sd_g"].values[:, 1]}
    bambi = xarray.DataTree.from_dict({"posterior": xarray.Dataset({k: (shape, post.reshape_draws(v)) for k, v in drawn.items()})})
    table = blm.compare(post, {"graph": post.tree, "bambi": bambi}).frame
    assert np.nanmax(np.abs(table["gap"])) < 1e-9
    assert table.groupby("source", sort=False).size().to_dict() == {"posterior": 6, "graph": 6, "bambi": 5}


def test_the_forest_has_a_line_for_every_parameter() -> None:
    axes = blm.compare(slopes().fit(), posterior()).plot()
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["Intercept", "x", "sd__Intercept | g"]


def test_sources_of_other_models_are_refused() -> None:
    with pytest.raises(blm.errors.SpecificationError) as caught:
        blm.compare(slopes().fit(), designs.model("intercepts").fit())
    assert "compare_models" in caught.value.remedy


@pytest.mark.parametrize("by", ["aic", "bic", "loo", "logo", "evidence"])
def test_models_are_ranked(by: str) -> None:
    priors = blm.Priors(alpha="normal")
    steep = designs.grouped(sd=(1.0, 2.0))
    models = {"intercepts": blm.LMM("y ~ x + (1 | g)", steep, priors=priors), "slopes": blm.LMM("y ~ x + (x | g)", steep, priors=priors)}
    table = blm.compare_models(models, by=by) if by in ("aic", "bic") else blm.compare_models(models, by=by, draws=250)
    assert table["model"].tolist() == ["slopes", "intercepts"]
    assert table["weight"].sum() == pytest.approx(1.0)
    assert table["difference"].iloc[0] == 0.0


def test_reml_fits_of_other_fixed_effects_are_refitted_by_ml() -> None:
    smaller = blm.LMM("y ~ 1 + (x | g)", designs.grouped())
    with pytest.warns(blm.errors.BayesLMMWarning, match="refitted by ML"):
        table = blm.compare_models({"a": slopes().fit(), "b": smaller.fit()})
    assert table.set_index("model").loc["b", "aic"] == pytest.approx(smaller.fit("ML").aic)


def test_the_evidence_needs_proper_priors() -> None:
    with pytest.raises(blm.errors.PriorError):
        blm.compare_models({"a": slopes()}, by="evidence", draws=100)


def test_power_scaling_sees_a_prior_that_matters() -> None:
    weak = posterior().sensitivity()
    strong = designs.model("slopes", blm.Priors(sigma=("half_normal", 0.1))).sample(draws=500, seed=1).sensitivity()
    name = "sd__Observation|Residual"
    assert strong.loc[name, "prior"] > 5 * weak.loc[name, "prior"]


def test_bambi_gets_what_it_can_express() -> None:
    pytest.importorskip("bambi")
    found = designs.model("independent slopes").to_bambi()
    assert str(found.formula.main) == "y ~ 1 + x + (1|g) + (0 + x|g)"
    for name, what in (
        ("slopes", "correlated"),
        ("ar1 errors", "residual"),
        ("weights and offset", "weights"),
        ("related", "relationship"),
    ):
        with pytest.raises(blm.errors.SpecificationError) as caught:
            designs.model(name).to_bambi()
        assert what in caught.value.what


def changed_in_tests() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g, t = np.divmod(np.arange(60), 6)
    frame = pd.DataFrame({"x": rng.normal(size=60), "z": rng.uniform(0.5, 2.0, 60), "g": g, "t": t, "f": [f"f{k}" for k in t % 2]})
    frame["h"] = [f"h{k}" for k in t % 3]
    return frame.assign(y=frame["x"] + rng.normal(size=10)[g] + rng.normal(size=60))


CHANGED, RELATED = changed_in_tests(), pd.DataFrame(0.5 * np.eye(10) + 0.5)


@pytest.mark.parametrize("what", ["x", "weights", "variance", "residual", "group", "offset"])
def test_sources_of_one_formula_and_other_data_are_not_compared(what: str) -> None:
    frame = designs.grouped()
    own = blm.LMM("y ~ x + (1 | g)", frame).fit()
    options: dict[str, Any] = {"weights": {"weights": "w"}, "variance": {"variance": "exp(x)"}, "residual": {"residual": "ar1(visit | g)"}}
    options["offset"] = {"offset": "o"}
    moved = {"x": frame.assign(x=frame["x"] ** 3), "group": frame.assign(g=np.roll(frame["g"], 3))}
    other = blm.LMM("y ~ x + (1 | g)", moved.get(what, frame), **options.get(what, {})).fit()
    with pytest.raises(SpecificationError, match="differ in"):
        blm.compare(own, other)
    assert len(blm.compare(own, blm.LMM("y ~ x + (1 | g)", frame).fit()).frame)


ALIKE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"formula": "y~x+z+(1|g)"}),
    ({}, {"formula": "y ~ z + x + (1 | g)"}),
    ({"formula": "y ~ x + (1 | g) + (1 | h)"}, {"formula": "y ~ x + (1 | h) + (1 | g)"}),
    ({"priors": blm.Priors(alpha="normal")}, {"priors": blm.Priors(preset="brms")}),
    ({"weights": "z"}, {"formula": "y ~ 1 + x + z + (1 | g)", "weights": CHANGED["z"].to_numpy()}),
]
UNLIKE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"data": CHANGED.assign(x=CHANGED["x"] + 1e-9)}),
    ({}, {"data": CHANGED.iloc[::-1]}),
    ({"weights": "z"}, {"weights": 2.0 * CHANGED["z"].to_numpy()}),
    ({"offset": "z"}, {"offset": "x"}),
    ({"residual": "ar1(t | g)"}, {"residual": "ar1(t | g)", "data": CHANGED.assign(t=(CHANGED["t"] + 3) % 6)}),
    ({"variance": "exp(x)"}, {"variance": "exp(z)"}),
    ({"variance": "ident(f)"}, {"variance": "ident(h)"}),
    ({}, {"sigma": 1.0}),
    ({"formula": "y ~ f + (1 | g)", "contrasts": {"f": "sum"}}, {"formula": "y ~ f + (1 | g)"}),
    ({"formula": "y ~ x + cs(0 + f | g)"}, {"formula": "y ~ x + us(0 + f | g)"}),
    ({"formula": "y ~ own(x) + (1 | g)", "functions": {"own": np.sin}}, {"formula": "y ~ own(x) + (1 | g)", "functions": {"own": np.cos}}),
    ({"relationship": {"g": RELATED}}, {"relationship": {"g": RELATED @ RELATED}}),
]


@pytest.mark.parametrize(("one", "other", "same"), [*((a, b, True) for a, b in ALIKE), *((a, b, False) for a, b in UNLIKE)])
def test_one_model_is_known_however_written_and_another_by_whatever_differs(one: Any, other: Any, same: bool) -> None:
    fits = [blm.LMM(**{"formula": "y ~ x + z + (1 | g)", "data": CHANGED, "check": "warn", **own}).fit() for own in (one, other)]
    if not same:
        with pytest.raises(SpecificationError, match="different models or data"):
            blm.compare(*fits)
        return
    frame = blm.compare(*fits).frame
    left, right = (own.reset_index(drop=True) for _, own in frame.groupby("source"))
    assert left[["group", "term"]].equals(right[["group", "term"]])
    np.testing.assert_allclose(left["estimate"], right["estimate"], rtol=1e-4, atol=1e-6)


def test_hold_outs_of_other_factors_are_not_paired() -> None:
    frame = designs.grouped(groups=6, each=6).assign(k=lambda d: [f"k{i}" for i in np.tile(np.arange(6), 6)])
    models = {name: blm.LMM(f"y ~ x + (1 | {name})", frame) for name in ("g", "k")}
    for others, levels in (
        (models, 6),
        (models | {"k": blm.LMM("y ~ x + (1 | k)", frame.assign(k=frame["k"].str[-1].eq("1")), check="warn")}, 2),
    ):
        with pytest.raises(SpecificationError, match="leave out different things") as caught:
            blm.compare_models(others, by="logo", draws=50)
        assert caught.value.where == f"g: 6 levels of g; k: {levels} levels of k"
    same = frame.assign(k=frame["g"].str.upper())
    table = blm.compare_models({"g": models["g"], "k": blm.LMM("y ~ x + (1 | k)", same)}, by="logo", draws=50)
    assert table["difference"].abs().max() < 0.5


@pytest.mark.parametrize("priors", [{"sd": {"g": ("fixed", 0.7)}}, {"sigma": ("fixed", 1.2)}])
def test_what_is_held_has_no_spread_and_no_gap(priors: dict[str, Any]) -> None:
    own = designs.model("intercepts", blm.Priors(alpha="normal", **priors))
    post = own.sample(draws=100, seed=1)
    name = "sd__Intercept" if "sd" in priors else "sd__Observation"
    assert post.tidy("ran_pars").set_index("term").loc[name, "std_error"] == 0.0
    frame = blm.compare(blm.LMM(own.formula, designs.grouped()).fit(), post).frame
    held = frame["term"] == name
    assert frame.loc[held, "gap"].isna().all()
    assert frame.loc[~held, "gap"].abs().max() < 10
    assert frame.loc[held & (frame["source"] == "posterior"), "pull"].tolist() == [0.0]
