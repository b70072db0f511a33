"""Public functions and verbs answer a keyword that they do not have by an error of ours, a known foreign one by the right words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import bayeslmm as blm
from bayeslmm.bayes.posterior.plots import PosteriorPlots
from bayeslmm.errors import BayesLMMError, ForeignNameError, UnknownArgumentError, UnknownKeyError
from bayeslmm.inference.intervals.bootstrap import Bootstrap
from bayeslmm.inference.intervals.profile import Profile
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.model.fit_plots import FitPlots
from bayeslmm.results.foreign_names import FOREIGN_KEYWORDS, VERB_KEYWORDS
from tests.contract.public import classes
from tests.inputs.every_argument import objects

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
    (EMMeans.pairs, "p_adjust", "adjust="),
    (EMMeans.contrast, "padjust", "adjust="),
    (blm.Fit.contrast, "p_adjust", "pairs(adjust="),
    (blm.Fit.emmeans, "marginal_vars", "specs="),
    (blm.Fit.emmeans, "grouping_vars", "by="),
    (blm.Fit.summary, "alpha", "fit.tidy(conf_int=True"),
    (blm.LMM, "endog", "blm.LMM(formula, data)"),
    (blm.LMM.fit, "factors", "contrasts="),
    (blm.LMM.fit, "free", "diag(x | g)"),
    (Bootstrap.confint, "ci_type", "interval="),
    (FitPlots.lines, "alpha", "conf_level="),
]


@pytest.mark.parametrize(("function", "keyword", "words"), FOREIGN, ids=[f"{f.__name__}-{word}" for f, word, _ in FOREIGN])
def test_a_foreign_keyword_is_answered_by_ours(function: Callable[..., Any], keyword: str, words: str) -> None:
    with pytest.raises(UnknownArgumentError) as caught:
        function(**{keyword: 1})
    assert words in caught.value.remedy


@pytest.mark.parametrize(("owner", "name"), VERBS, ids=[f"{owner.__name__}.{name}" for owner, name in VERBS])
def test_no_verb_is_sent_to_an_argument_that_it_does_not_have(owner: type, name: str) -> None:
    known = set(inspect.signature(getattr(owner, name)).parameters)
    for word in [*FOREIGN_KEYWORDS, *VERB_KEYWORDS.get(name, ())]:
        if word in known:
            continue
        with pytest.raises(BayesLMMError) as caught:  # a word that is read as one of the verb's own finds an empty object
            getattr(owner, name)(object.__new__(owner), **{word: 1})
        named = re.match(r"(?:did you mean )?(\w+)=", caught.value.remedy)
        assert not isinstance(caught.value, UnknownArgumentError) or named is None or named[1] in known, (word, caught.value.remedy)


VALUES = {"BayesLMMWarning", "Check", "CriterionPoint", "HtmlPage", "InformationCriteria", "KernelDescription", "Priors", "Variable"}
"""Values of lower layers, which have no verbs of their own, and text; scikit-learn asks its estimators what they have."""

ANSWERING = [owner for name, owner in classes().items() if name not in {*VALUES, "LMMRegressor"}]


@pytest.mark.parametrize("owner", ANSWERING, ids=[owner.__name__ for owner in ANSWERING])
def test_a_name_that_is_not_there_is_answered(owner: type) -> None:
    made = object.__new__(owner)
    for name in ("nothing_of_the_kind", "summry", "lsmeans"):
        with pytest.raises(ForeignNameError) as caught:
            getattr(made, name)
        assert caught.value.remedy
        assert not hasattr(made, name)
    with pytest.raises(AttributeError) as private:
        _ = made._ipython_canary_method_should_not_exist_
    assert not isinstance(private.value, BayesLMMError)


def test_a_model_where_a_word_is_asked_for_is_told_of_comparisons() -> None:
    data = {"y": [1.0, 2.5, 2.0, 4.0, 3.0, 5.5, 2.0, 4.5], "x": [0, 1] * 4}
    one = blm.LMM("y ~ x", data).fit()
    with pytest.raises(BayesLMMError, match="lrt"):
        one.anova(one)  # type: ignore[arg-type]
    with pytest.raises(BayesLMMError, match="one list"):
        blm.compare_models(one, one)  # type: ignore[call-overload, arg-type]


@pytest.mark.parametrize(
    "name", ["summary", "anova", "tidy", "emmeans", "confint", "fixef", "vcov", "loglik", "aic", "predict", "residuals"]
)
def test_what_a_fit_has_is_answered_on_a_model(name: str) -> None:
    data = {"y": [1.0, 2.5, 2.0, 4.0, 3.0, 5.5], "x": [0, 1, 2] * 2, "g": list("aaabbb")}
    with pytest.raises(ForeignNameError) as caught:
        getattr(blm.LMM("y ~ x + (1 | g)", data, check="warn"), name)
    assert f"model.fit(), then fit.{name}" in caught.value.remedy


def test_brackets_are_answered_as_attributes_are() -> None:
    made = objects()
    for name, owner in made.items():
        if hasattr(owner, "__len__") or name in {"Priors", "LMMRegressor", "Summary"}:
            continue
        for key in ("posterior", "Days", 0, slice(3), ("a", "b")):
            with pytest.raises(UnknownKeyError) as caught:
                owner[key]
            assert caught.value.remedy
        assert not isinstance(owner, Iterable)
        assert np.array([owner, owner], dtype=object).shape == (2,)
    with pytest.raises(UnknownKeyError, match=r"post\.tree"):
        made["Posterior"]["posterior"]


@pytest.mark.parametrize("owner", [blm.LMM, blm.Fit, blm.Posterior], ids=lambda owner: owner.__name__)
def test_a_class_answers_as_its_objects_do(owner: type) -> None:
    for name in ("from_formula", "from_dataframe", "nothing"):
        with pytest.raises(ForeignNameError) as caught:
            getattr(owner, name)
        assert caught.value.remedy
    assert not hasattr(owner, "_private")
    with pytest.raises(ForeignNameError, match="another package"):
        blm.LMM.from_formula  # noqa: B018
