"""What names nothing of the model, or says nothing, is refused and not passed over."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.inputs.frames import fit, model, posterior, refused, visits

EMPTY = [{}, "2 = 2", "x = x", "x - x = 0", [0, 0], ["x = 0", "1 = 1"], {"one": {}}]


@pytest.mark.parametrize("given", EMPTY, ids=repr)
def test_a_contrast_of_no_coefficient_is_refused(given: Any) -> None:
    refused(lambda: fit().contrast(given), SpecificationError, "without a coefficient")
    refused(lambda: posterior().contrast(given), SpecificationError, "without a coefficient")


@pytest.mark.parametrize("given", [{}, [], {"none": [0, 0]}, {"none": {"CTL": 0}}, np.zeros((1, 2)), np.zeros((0, 2))], ids=repr)
def test_a_contrast_of_no_mean_is_refused(given: Any) -> None:
    for means in (fit("y ~ x + arm + (1 | g)").emmeans("arm"), model_of_arms().emmeans("arm")):
        refused(lambda means=means: means.contrast(given), SpecificationError)


@cache
def model_of_arms() -> blm.Posterior:
    return blm.LMM("y ~ x + arm + (1 | g)", visits(), priors=blm.Priors(alpha="normal")).sample(40, 2, seed=1)


def test_an_infinite_right_side_is_refused() -> None:
    refused(lambda: fit().contrast("x = 1e999"), SpecificationError, "infinite")


def test_a_report_has_degrees_of_freedom_that_exist() -> None:
    refused(lambda: fit().report(df="nonsense"), SpecificationError, "unknown df 'nonsense'")


def test_a_coefficient_that_is_none_is_told_its_nearest() -> None:
    alpha = {"Intercept": 1.0, "x": 1.0, "Intercpt": 99.0}
    error = refused(lambda: model().simulate({"alpha": alpha, "theta": [1], "sigma": 1}), SpecificationError, "Intercpt")
    assert error.remedy == "did you mean 'Intercept'?"


@pytest.mark.parametrize("draw", [lambda seed: fit().simulate(seed=seed), lambda seed: fit().bootstrap(3, seed=seed)])
def test_no_numbers_are_no_seed(draw: Callable[[Any], Any]) -> None:
    for seed in ([], (), np.array([], int)):
        refused(lambda seed=seed: draw(seed), SpecificationError, "seed")


UNREAD: dict[str, Callable[[], Any]] = {
    "a left side of means": lambda: fit("y ~ x + arm + (1 | g)").emmeans("nonsense ~ arm"),
    "a term that is not there": lambda: fit("y ~ x - nope + (1 | g)"),
    "an interaction that is not there": lambda: fit("y ~ x + arm - x:arm + (1 | g)"),
    "a term that is taken from an update": lambda: fit().update(". ~ . - xx"),
    "an offset that the model has not": lambda: posterior().predict(visits().head(2), offset=[1.0, 2.0]),
    "a control of effects": lambda: fit("y ~ x + arm + (1 | g)").emmeans("arm").contrast("effect", ref="nope"),
    "a control of pairs": lambda: fit("y ~ x + arm + (1 | g)").emmeans("arm").contrast("pairwise", ref="CTL"),
    "groups of a parametric bootstrap": lambda: fit().bootstrap(3, kind="parametric", group="g"),
    "rows that are none": lambda: blm.from_partitions("y ~ x + (1 | g)", [visits()], rows="nonsense"),
    "groups of AIC": lambda: blm.compare_models({"a": fit(), "b": model()}, by="aic", group="g"),
    "a seed of AIC": lambda: blm.compare_models({"a": fit(), "b": model()}, by="bic", seed=1),
    "groups of single observations": lambda: posterior().loo(group="g"),
    "a parameter of a simulation": lambda: model().simulate({"alpha": [1.0, 1.0], "theta": [1], "sigma": 1, "nope": 2}),
}


@pytest.mark.parametrize("question", UNREAD)
def test_what_does_not_apply_is_refused(question: str) -> None:
    refused(UNREAD[question])


@pytest.mark.parametrize("text", ["y ~ x * arm - x:arm + (1 | g)", "y ~ (x + arm)^2 - arm:x + (1 | g)", "y ~ x - 1 + (1 | g)"])
def test_a_term_that_is_there_is_taken_away(text: str) -> None:
    assert not any(":" in name for name in fit(text).fixef.index)
