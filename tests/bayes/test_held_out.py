"""Levels left out by sums, folds, and transformed responses: against the density of the rest, each other, and a change of scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.held_out import density_without, held_out_densities, level_sets, log_likelihoods, predictive_densities
from bayeslmm.errors import InferenceError, SpecificationError
from bayeslmm.results.response_scale import log_jacobian
from tests.bayes import every_verb

PRIORS = {
    "flat": blm.Priors(),
    "normal": blm.Priors(alpha="normal"),
    "mixture": blm.Priors(alpha={"slopes": ("student_t", 3, 0, 2)}),
    "centred": blm.Priors(preset="brms"),
}
GROUPED = [name for name in every_verb.MODELS if name != "no random effects"]


# every model under one prior and one model under every prior; all pairs are slow tests
PAIRS = [
    pytest.param(name, prior, id=f"{name}-{prior}", marks=() if name == "slopes" or i % len(PRIORS) == k else pytest.mark.slow)
    for i, name in enumerate(GROUPED)
    for k, prior in enumerate(PRIORS)
]


@pytest.mark.parametrize(("name", "prior"), PAIRS)
def test_a_level_left_out_by_sums_is_the_gap_to_the_density_of_the_rest(name: str, prior: str) -> None:
    post = every_verb.MODELS[name]().updated(changes={"priors": PRIORS[prior]}).sample(draws=3, chains=1, seed=1, method="importance")
    group = post.design.terms[0].group.name if post.design.terms else None
    sets, labels, dim = level_sets(post, group)
    phi = post.draws.phi
    names = [f"{dim} {label}" for label in labels]
    found = held_out_densities(post, phi, sets, names, lambda _: None)
    full = log_likelihoods(post.density, phi)
    for k in (0, len(sets) // 2, len(sets) - 1):
        rest = predictive_densities(post.density, density_without(post.density, sets[k], names[k]), phi, full)
        np.testing.assert_allclose(found[:, k], rest, rtol=1e-7, atol=1e-7)


def test_a_level_without_which_a_coefficient_is_lost_is_refused_only_under_a_flat_prior() -> None:
    frame = every_verb.rows(12, 4, False, 1.0).assign(arm=lambda d: np.where(d["s"] == "s3", "b", "a"))
    with pytest.raises(InferenceError, match="s3"):
        blm.LMM("y ~ arm + (1 | s)", frame).sample(draws=50, seed=1).loo("group")
    proper = blm.LMM("y ~ arm + (1 | s)", frame, priors=blm.Priors(alpha="normal")).sample(draws=50, seed=1)
    assert np.isfinite(proper.loo("group", exact=False).elpd_i).all()


@pytest.mark.slow
def test_many_levels_are_left_out_without_a_design_for_each() -> None:
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(2000), 4)
    frame = pd.DataFrame({"g": g, "x": rng.normal(size=len(g)), "y": rng.normal(size=2000)[g] + rng.normal(size=len(g))})
    post = blm.LMM("y ~ x + (x | g)", frame.assign(g=g.astype(str))).sample(draws=250, seed=1)
    found = post.loo("group", exact=False)
    assert found.n_data_points == 2000
    assert found.elpd == pytest.approx(post.loo("group", exact=False).elpd)


# -- folds ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slopes", pytest.param("crossed, small", marks=pytest.mark.slow), "D and R"])
def test_as_many_folds_as_levels_leave_one_out(name: str) -> None:
    post = every_verb.MODELS[name]().sample(draws=250, seed=1)
    sets = level_sets(post, "s")[0]
    folds, alone = post.kfold(k=len(sets), by="s", seed=2), post.loo("group", "s", exact=True)
    # averages over 2000 weighted draws of densities that vary by some tenths, an outlying level's by more
    np.testing.assert_allclose(folds.elpd_i, alone.elpd_i, atol=0.2)
    assert abs(float(np.median(folds.elpd_i - alone.elpd_i))) < 0.02
    assert folds.n_folds == len(sets)


@pytest.mark.parametrize("levels", [10, 60])  # few rows of a fold are predicted one by one, many at once
def test_a_unit_of_a_fold_is_predicted_by_the_other_folds(levels: int) -> None:
    """Two folds of rows: with the covariance parameters held, the density of a row given the other half is normal in closed form."""
    frame = every_verb.rows(levels, 4, False, 1.0)
    held = blm.Priors(sd=("fixed", 0.8), alpha={"Intercept": ("normal", 0, 2), "x": ("normal", 0, 1)})
    post = blm.LMM("y ~ x + (1 | s)", frame, sigma=0.9, priors=held).sample(draws=50, seed=1)
    found = post.kfold(k=2, seed=5)
    folds = np.array_split(np.random.default_rng(np.random.SeedSequence(5).spawn(3)[0]).permutation(len(frame)), 2)
    X, y = np.column_stack([np.ones(len(frame)), frame["x"]]), frame["y"].to_numpy()
    same = frame["s"].to_numpy()[:, None] == frame["s"].to_numpy()
    V = 0.64 * same + 0.81 * np.eye(len(y)) + X @ np.diag([4.0, 1.0]) @ X.T
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(y)), fold)
        for i in fold:
            weights = np.linalg.solve(V[np.ix_(rest, rest)], V[rest, i])
            mean, variance = weights @ y[rest], V[i, i] - weights @ V[rest, i]
            expected = -0.5 * (np.log(2 * np.pi * variance) + (y[i] - mean) ** 2 / variance)
            assert float(found.elpd_i[i]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("arguments", [{"k": 1}, {"k": 10_000}, {"k": 2.5}, {"by": "nobody"}, {"by": "observation", "group": "s"}])
def test_folds_that_cannot_be_are_refused(arguments: dict[str, Any]) -> None:
    post = every_verb.MODELS["one factor"]().sample(draws=50, seed=1)
    with pytest.raises(SpecificationError):
        post.kfold(**arguments)


# -- transformed responses -----------------------------------------------------------------------------------------------------------------


def positive() -> pd.DataFrame:
    frame = every_verb.rows(14, 5, False, 1.0)
    return frame.assign(y=np.exp(0.3 * frame["y"]), b=2.0 + frame["w"])


@pytest.mark.parametrize(
    ("response", "slope"),
    [
        ("log(y)", lambda y, b: 1 / y),
        ("log10(y)", lambda y, b: 1 / (y * np.log(10))),
        ("sqrt(y)", lambda y, b: 0.5 / np.sqrt(y)),
        ("I(y ** 3)", lambda y, b: 3 * y**2),
        ("I(1 / y)", lambda y, b: 1 / y**2),
        ("I(3 - 2 * y)", lambda y, b: np.full(len(y), 2.0)),
        ("scale(y)", lambda y, b: np.full(len(y), 1 / np.std(y, ddof=1))),
        ("f(y)", lambda y, b: np.cosh(y)),
        ("y", lambda y, b: np.ones(len(y))),
    ],
)
def test_the_jacobian_of_a_response_is_its_derivative(response: str, slope: Any) -> None:
    frame = positive()
    design = blm.LMM(f"{response} ~ x + (1 | s)", frame, functions={"f": np.sinh} if "f(" in response else None).design
    np.testing.assert_allclose(log_jacobian(design), np.log(slope(frame["y"].to_numpy(), frame["b"].to_numpy())), atol=1e-9)


DRAWS: dict[str, Any] = {"seed": 1, "draws": 50}
"""What criteria of posteriors are told; those of fits draw nothing."""


@pytest.mark.parametrize("by", ["aic", "bic", "loo", "logo", "evidence"])
def test_a_linear_transformation_changes_no_comparison(by: Any) -> None:
    """I(2 * y + 1) is the same model of y as y itself, whatever compares them."""
    frame, priors = positive(), blm.Priors(preset="bambi")
    models = {text: blm.LMM(f"{text} ~ x + (1 | s)", frame, priors=priors) for text in ("y", "I(2 * y + 1)")}
    table = blm.compare_models(models, by=by, **(DRAWS if by in ("loo", "logo", "evidence") else {}))
    # weighted draws differ by what rounding does to them
    np.testing.assert_allclose(table["difference"], 0.0, atol=1e-6 if by in ("aic", "bic") else 0.02)


def test_the_log_of_a_log_normal_outcome_is_found_by_every_criterion() -> None:
    frame = positive()
    models = {text: blm.LMM(f"{text} ~ x + (1 | s)", frame, priors=blm.Priors(alpha="normal")) for text in ("y", "log(y)")}
    tables = {by: blm.compare_models(models, by=by, **DRAWS) for by in ("loo", "logo", "evidence")}
    tables["aic"] = blm.compare_models(models, by="aic")
    assert all(table["model"].iloc[0] == "log(y)" for table in tables.values())
    logged = models["log(y)"].fit("ML")
    assert tables["aic"]["loglik"].iloc[0] == pytest.approx(logged.loglik - np.log(frame["y"]).sum())
    own = models["log(y)"].sample(draws=50, seed=1)
    assert own.loo(jacobian=True).elpd == pytest.approx(own.loo().elpd - np.log(frame["y"]).sum())
    assert own.kfold(k=3, jacobian=True).elpd == pytest.approx(own.kfold(k=3).elpd - np.log(frame["y"]).sum())


@pytest.mark.parametrize("response", ["x", "I(y - b)"])
def test_responses_that_are_not_of_one_outcome_are_refused(response: str) -> None:
    frame = positive()
    one, other = blm.LMM("y ~ 1 + (1 | s)", frame), blm.LMM(f"{response} ~ 1 + (1 | s)", frame)
    if response == "I(y - b)":
        assert blm.compare_models({"a": one, "b": other})["difference"].notna().all()
        return
    with pytest.raises(SpecificationError):
        blm.compare_models({"a": one, "b": other})


def test_what_underflows_is_nothing_whatever_numpy_is_told_to_raise() -> None:
    model = every_verb.MODELS["one factor"]()
    with np.errstate(all="raise"):
        post = model.sample(draws=50, seed=1)
        assert np.isfinite(post.loo().elpd)
        assert np.isfinite(post.loo("group", exact=False).elpd)
        assert post.sensitivity()["prior"].notna().all()
