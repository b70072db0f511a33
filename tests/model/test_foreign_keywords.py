"""Public functions and verbs answer a keyword that they do not have by an error of ours, a known foreign one by the right words."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior.plots import PosteriorPlots
from bayeslmm.errors import ForeignNameError, UnknownArgumentError
from bayeslmm.inference.intervals.bootstrap import Bootstrap
from bayeslmm.inference.intervals.profile import Profile
from bayeslmm.inference.means.emmeans import EMMeans
from bayeslmm.model.fit_plots import FitPlots

FUNCTIONS = [name for name in blm.__all__ if inspect.isfunction(getattr(blm, name)) and name != "load_dataset"]
OWNERS = [blm.LMM, blm.Fit, blm.Posterior, EMMeans, Profile, Bootstrap, FitPlots, PosteriorPlots]
VERBS = [(owner, name) for owner in OWNERS for name, value in vars(owner).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_answers_an_unknown_keyword(name: str) -> None:
    with pytest.raises(UnknownArgumentError) as caught:
        getattr(blm, name)(no_such_word=1)
    assert name in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(("owner", "name"), VERBS, ids=[f"{owner.__name__}.{name}" for owner, name in VERBS])
def test_a_verb_answers_an_unknown_keyword(owner: type, name: str) -> None:
    with pytest.raises(UnknownArgumentError):
        getattr(owner, name)(object.__new__(owner), no_such_word=1)


FOREIGN: list[tuple[Callable[..., Any], str, str]] = [
    (blm.mmrm, "method", "kenward-roger"),
    (blm.mmrm, "reml", 'fit("ML")'),
    (blm.lrt, "REML", 'fit("ML")'),
    (blm.fit_by, "groups", "formula"),
    (EMMeans.pairs, "infer", "leave it out"),
    (Bootstrap.confint, "ci_type", "interval="),
    (FitPlots.lines, "alpha", "conf_level="),
]


@pytest.mark.parametrize(("function", "keyword", "words"), FOREIGN, ids=[f"{f.__name__}-{word}" for f, word, _ in FOREIGN])
def test_a_foreign_keyword_is_answered_by_ours(function: Callable[..., Any], keyword: str, words: str) -> None:
    with pytest.raises(UnknownArgumentError) as caught:
        function(**{keyword: 1})
    assert words in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["summary", "anova", "tidy", "emmeans", "confint", "fixef", "vcov", "loglik", "aic", "predict", "residuals"]
)
def test_what_a_fit_has_is_answered_on_a_model(name: str) -> None:
    data = {"y": [1.0, 2.5, 2.0, 4.0, 3.0, 5.5], "x": [0, 1, 2] * 2, "g": list("aaabbb")}
    with pytest.raises(ForeignNameError) as caught:
        getattr(blm.LMM("y ~ x + (1 | g)", data, check="warn"), name)
    assert f"model.fit(), then fit.{name}" in caught.value.remedy
