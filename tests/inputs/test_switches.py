"""A switch is True or False: a word, a number, an array or a missing value is refused and never taken by its truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.inputs.frames import MODEL, fit, model, posterior, refused, visits

NO_SWITCHES = ["False", "no", "", 0, 1, 1.0, [], [True], np.array([True, False]), pd.NA, {}, np.nan]

VERBS: dict[str, Callable[[Any], Any]] = {
    "ranef(se)": lambda v: fit().ranef(se=v),
    "predict(observed)": lambda v: fit().predict(visits(), observed=v),
    "tidy(conf_int)": lambda v: fit().tidy(conf_int=v),
    "ranova(boundary)": lambda v: fit().ranova(boundary=v),
    "lrt(boundary)": lambda v: blm.lrt(fit("y ~ x"), fit(), boundary=v),
    "influence(refit)": lambda v: fit().influence("g", refit=v),
    "influence(progress)": lambda v: fit().influence("g", progress=v),
    "bootstrap(progress)": lambda v: fit().bootstrap(3, seed=1, progress=v),
    "bootstrap.tidy(conf_int)": lambda v: fit().bootstrap(3, seed=1).tidy(conf_int=v),
    "emmeans.pairs(reverse)": lambda v: fit().emmeans("x", at={"x": [0, 1]}).pairs(reverse=v),
    "emmeans.plot(comparisons)": lambda v: fit().emmeans("x", at={"x": [0, 1]}).plot(comparisons=v),
    "plot.lines(levels)": lambda v: fit().plot.lines("x", levels=v),
    "plot.ranef(sort)": lambda v: fit().plot.ranef(sort=v),
    "plot.influence(refit)": lambda v: fit().plot.influence("g", refit=v),
    "plot.profile(absolute)": lambda v: fit().plot.profile(v, terms="x"),
    "plot.confint(intercept)": lambda v: fit().plot.confint(intercept=v),
    "fits: tidy(conf_int)": lambda v: blm.LMM(MODEL, visits()).fit_many(visits()[["y", "day"]]).tidy(conf_int=v),
    "fits: progress": lambda v: blm.LMM(MODEL, visits()).fit_many(visits()[["y", "day"]], progress=v),
    "posterior: ranef(se)": lambda v: posterior().ranef(se=v),
    "posterior: tidy(conf_int)": lambda v: posterior().tidy(conf_int=v),
    "posterior: loo(exact)": lambda v: posterior().loo(exact=v),
    "posterior: pairs(reverse)": lambda v: posterior().emmeans("x", at={"x": [0, 1]}).pairs(reverse=v),
    "posterior: plot.forest(intercept)": lambda v: posterior().plot.forest(intercept=v),
    "posterior: plot.dist(prior)": lambda v: posterior().plot.dist(prior=v),
    "posterior: plot.ranef(sort)": lambda v: posterior().plot.ranef(sort=v),
    "posterior: plot.lines(levels)": lambda v: posterior().plot.lines("x", levels=v),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_neither_true_nor_false_is_refused(verb: str) -> None:
    for value in NO_SWITCHES:
        assert refused(lambda value=value: VERBS[verb](value), SpecificationError).remedy.startswith("use True or False")


def test_switches_of_numpy_are_switches() -> None:
    assert model().fit().ranova(boundary=np.False_).equals(model().fit().ranova(boundary=False))
