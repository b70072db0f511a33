"""Where a word or the name of a column is wanted, an array, a list, a number or a missing value is refused by an error of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.inputs.frames import fit, model, posterior, refused

NO_WORDS = [np.array(["a", "b"]), pd.NA, ["g"], {}, pd.Series(["g", "x"]), 7.5, [["g"]], np.array([]), (), np.nan]
NO_NAMES = [pd.NA, 3, {}, [], [["x"]], np.array([]), [None], np.nan]

WORDS: dict[str, Callable[[Any], Any]] = {
    "influence": lambda v: fit().influence(v),
    "covariance(cluster)": lambda v: fit().covariance("CR0", cluster=v),
    "bootstrap(group)": lambda v: fit().bootstrap(3, seed=1, kind="case", group=v),
    "anova(type)": lambda v: fit().anova(type=v),
    "emtrends(var)": lambda v: fit().emtrends(v),
    "tidy(effects)": lambda v: fit().tidy(effects=v),
    "tidy(df)": lambda v: fit().tidy(df=v),
    "predict(level)": lambda v: fit().predict(level=v),
    "predict(interval)": lambda v: fit().predict(interval=v),
    "residuals(kind)": lambda v: fit().residuals(v),
    "confint(method)": lambda v: fit().confint(v),
    "profile(criterion)": lambda v: fit().profile(v),
    "emmeans(weights)": lambda v: fit().emmeans("x", weights=v),
    "fit(method)": lambda v: model().fit(v),
    "sample(method)": lambda v: model().sample(10, method=v),
    "plot.lines(x)": lambda v: fit().plot.lines(v),
    "plot.lines(by)": lambda v: fit().plot.lines("x", by=v),
    "plot.ranef(group)": lambda v: fit().plot.ranef(v),
    "plot.influence(group)": lambda v: fit().plot.influence(v),
    "plot.acf(lags)": lambda v: fit().plot.acf(lags=v),
    "emmeans.plot(x)": lambda v: fit().emmeans("x", at={"x": [0, 1]}).plot(x=v),
    "posterior: tidy(effects)": lambda v: posterior().tidy(effects=v),
    "posterior: predict(level)": lambda v: posterior().predict(level=v),
    "posterior: loo(by)": lambda v: posterior().loo(by=v),
    "posterior: loo(group)": lambda v: posterior().loo(by="group", group=v),
    "posterior: emtrends(var)": lambda v: posterior().emtrends(v),
    "posterior: plot.ranef(group)": lambda v: posterior().plot.ranef(v),
    "posterior: rope(low)": lambda v: posterior().rope(v, 1),
}
NAMES: dict[str, Callable[[Any], Any]] = {
    "confint(terms)": lambda v: fit().confint(terms=v),
    "profile(terms)": lambda v: fit().profile(terms=v),
    "posterior: rope(terms)": lambda v: posterior().rope(-1, 1, v),
    "posterior: hypothesis": lambda v: posterior().hypothesis(v),
    "posterior: plot.forest(terms)": lambda v: posterior().plot.forest(v),
}


@pytest.mark.parametrize("verb", WORDS)
def test_what_is_no_word_is_refused(verb: str) -> None:
    for value in NO_WORDS:
        refused(lambda value=value: WORDS[verb](value))


@pytest.mark.parametrize("verb", NAMES)
def test_what_names_nothing_is_refused(verb: str) -> None:
    for value in NO_NAMES:
        refused(lambda value=value: NAMES[verb](value))
