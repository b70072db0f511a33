"""Conditional modes, their covariances and predictions are what Henderson's equations say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from tests.results.henderson import equations

MODELS = {
    "one factor": "y ~ x + (x | g)",
    "two terms on one factor": "y ~ x + (x || g)",
    "crossed": "y ~ x + (x | g) + (1 | h)",
    "crossed both ways": "y ~ x + (1 | g) + (x | h)",
    "nested": "y ~ x + (1 | h/g)",
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def any_fit(request: pytest.FixtureRequest, crossed: pd.DataFrame) -> blm.Fit:
    return blm.LMM(request.param, crossed, weights="w").fit()


def test_modes_solve_hendersons_equations(any_fit: blm.Fit) -> None:
    solution = equations(any_fit).solution
    ours = np.concatenate([*(modes.ravel() for modes in any_fit.modes), any_fit.fixef_kept])
    assert np.allclose(ours, solution, rtol=1e-7, atol=1e-8)


def test_conditional_covariances_hold_alpha_fixed(any_fit: blm.Fit) -> None:
    whole = equations(any_fit)
    random = len(whole.solution) - len(any_fit.fixef_kept)
    given_alpha = np.linalg.inv(np.linalg.inv(whole.inverse)[:random, :random])
    begin = 0
    for block in any_fit.mode_covariances:
        K, q = block.shape[:2]
        for k in range(K):
            part = slice(begin + k * q, begin + (k + 1) * q)
            assert np.allclose(block[k], given_alpha[part, part], rtol=1e-6, atol=1e-9)
        begin += K * q


def test_the_variance_of_a_conditional_prediction_is_that_of_hendersons_equations(any_fit: blm.Fit) -> None:
    whole = equations(any_fit)
    expected = np.sqrt(np.einsum("nc,cd,nd->n", whole.columns, whole.inverse, whole.columns))
    ours = any_fit.predict(interval="confidence")["std_error"]
    assert np.allclose(ours, expected, rtol=1e-6)


def test_a_known_relationship_enters_modes_and_their_covariances(crossed: pd.DataFrame) -> None:
    levels = sorted(crossed["g"].unique())
    distance = np.abs(np.subtract.outer(np.arange(len(levels)), np.arange(len(levels))))
    A = pd.DataFrame(0.6**distance, index=levels, columns=levels)
    fit = blm.LMM("y ~ x + (x | g) + (1 | h)", crossed, relationship={"g": A}).fit()
    whole = equations(fit)
    assert np.allclose(np.concatenate([m.ravel() for m in fit.modes]), whole.solution[:-2], rtol=1e-6, atol=1e-7)
    given_alpha = np.linalg.inv(np.linalg.inv(whole.inverse)[:-2, :-2])
    ours = np.concatenate([np.diagonal(C, axis1=1, axis2=2).ravel() for C in fit.mode_covariances])
    assert np.allclose(ours, np.diag(given_alpha), rtol=1e-6)
    expected = np.sqrt(np.einsum("nc,cd,nd->n", whole.columns, whole.inverse, whole.columns))
    assert np.allclose(fit.predict(interval="confidence")["std_error"], expected, rtol=1e-6)


def test_ranef_has_levels_as_rows_and_columns_as_coefficients_are_named(fit: blm.Fit) -> None:
    frame = fit.ranef()["Subject"]
    assert frame.columns.tolist() == ["Intercept", "Days"]
    assert frame.index.name == "Subject"
    modes, sds = fit.ranef(se=True)["Subject"]
    assert modes.equals(frame)
    assert sds.shape == frame.shape


def test_terms_on_one_factor_share_a_frame(sleepstudy: pd.DataFrame) -> None:
    fit = blm.LMM("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleepstudy).fit()
    assert list(fit.D) == list(fit.ranef()) == ["Subject"]
    assert fit.D["Subject"].loc["Intercept", "Days"] == 0.0


def test_coef_is_the_fixed_part_plus_the_mode(fit: blm.Fit) -> None:
    assert np.allclose(fit.coef()["Subject"] - fit.ranef()["Subject"], fit.fixef.to_numpy())


def test_a_random_column_without_a_fixed_one_stands_alone_in_coef(sleepstudy: pd.DataFrame) -> None:
    coef = blm.LMM("Reaction ~ 1 + (Days | Subject)", sleepstudy).fit().coef()["Subject"]
    assert coef.columns.tolist() == ["Intercept", "Days"]


@pytest.mark.parametrize(("fixed", "random"), [("x * z", "z * x"), ("x * f", "f * x"), ("f * z * x", "x:z:f + x"), ("x", "z:x")])
def test_coefficients_of_an_interaction_are_sums_in_any_order(fixed: str, random: str) -> None:
    rng = np.random.default_rng(2)
    g, f = np.repeat(np.arange(15), 12), np.tile(list("ab"), 90)
    data = pd.DataFrame({"g": g, "f": f, "x": rng.normal(size=180), "z": rng.normal(size=180)})
    data["y"] = rng.normal(size=180) + rng.normal(size=15)[g] * (1 + data.x * data.z)
    fit = blm.LMM(f"y ~ {fixed} + (1 + {random} || g)", data).fit()
    alike = {frozenset(name.split(":")): name for name in fit.fixef.index}
    modes, found = fit.ranef()["g"], fit.coef()["g"]
    alone = [name for name in modes if frozenset(name.split(":")) not in alike]
    assert list(found) == [*fit.fixef.index, *alone]
    for name in modes:
        own = alike.get(frozenset(name.split(":")), name)
        assert found[own].to_numpy() == pytest.approx(modes[name].to_numpy() + fit.fixef.get(own, 0.0))
