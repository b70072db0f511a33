"""A level of confidence is one number between 0 and 1, wherever it is given; what is none is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from tests.inputs.frames import MODEL, model, posterior, refused, visits

NO_LEVELS = [
    95,
    99.9,
    0,
    1,
    -1,
    1.5,
    np.nan,
    np.inf,
    True,
    np.True_,
    None,
    pd.NA,
    "95%",
    "0.95",
    [0.95],
    np.array([0.9, 0.95]),
    {},
    0.95 + 0j,
    1e-320,
    1e-17,
    Decimal("sNaN"),
    np.array([0.95]),
]


def _many() -> Any:
    return blm.LMM(MODEL, visits()).fit_many(visits()[["y", "day"]])


VERBS: dict[str, Callable[[Any], Any]] = {
    "tidy": lambda c: model().fit().tidy(conf_int=True, conf_level=c),
    "predict": lambda c: model().fit().predict(interval="confidence", conf_level=c),
    "emmeans": lambda c: model().fit().emmeans("x", conf_level=c),
    "emtrends": lambda c: model().fit().emtrends("x", conf_level=c),
    "confint": lambda c: model().fit().confint(level=c),
    "confint, bootstrap": lambda c: model().fit().confint("bootstrap", level=c),
    "profile": lambda c: model().fit().profile(level=c),
    "plot.ranef": lambda c: model().fit().plot.ranef(conf_level=c),
    "plot.ranef, in other words": lambda c: model().fit().plot.ranef(level=c),
    "plot.lines": lambda c: model().fit().plot.lines("x", conf_level=c),
    "plot.lines, in other words": lambda c: model().fit().plot.lines("x", level=c),
    "plot.effects": lambda c: model().fit().plot.effects("x", conf_level=c),
    "plot.bootstrap": lambda c: model().fit().plot.bootstrap(conf_level=c),
    "plot.confint": lambda c: model().fit().plot.confint(conf_level=c),
    "fits: tidy": lambda c: _many().tidy(conf_int=True, conf_level=c),
    "fits: contrast": lambda c: _many().contrast("x = 0", conf_int=True, conf_level=c),
    "compare": lambda c: blm.compare(model().fit(), posterior(), conf_level=c),
    "posterior: tidy": lambda c: posterior().tidy(conf_int=True, conf_level=c),
    "posterior: predict": lambda c: posterior().predict(interval="confidence", conf_level=c),
    "posterior: contrast": lambda c: posterior().contrast("x = 0", conf_level=c),
    "posterior: emmeans": lambda c: posterior().emmeans("x", conf_level=c),
    "posterior: emtrends": lambda c: posterior().emtrends("x", conf_level=c),
    "posterior: hypothesis": lambda c: posterior().hypothesis("x > 0", conf_level=c),
    "posterior: rope": lambda c: posterior().rope(-1, 1, conf_level=c),
    "posterior: icc": lambda c: posterior().icc(conf_level=c),
    "posterior: r2": lambda c: posterior().r2(conf_level=c),
    "posterior: plot.forest": lambda c: posterior().plot.forest(conf_level=c),
    "posterior: plot.dist": lambda c: posterior().plot.dist(conf_level=c),
    "posterior: plot.ranef": lambda c: posterior().plot.ranef(conf_level=c),
    "posterior: plot.lines": lambda c: posterior().plot.lines("x", conf_level=c),
    "posterior: plot.lines, in other words": lambda c: posterior().plot.lines("x", level=c),
    "posterior: plot.effects": lambda c: posterior().plot.effects("x", conf_level=c),
    "posterior: plot.emmeans": lambda c: posterior().plot.emmeans("x", conf_level=c),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_level_of_confidence_is_refused(verb: str) -> None:
    for level in NO_LEVELS:
        error = refused(lambda level=level: VERBS[verb](level), SpecificationError, "confidence level")
        assert ("did you mean 0.95?" in error.remedy) == (type(level) is int and level == 95)


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("confint, bootstrap", "plot.bootstrap", "profile")])
def test_numbers_of_numpy_are_levels(verb: str) -> None:
    VERBS[verb](np.float64(0.9))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("level", [1e-15, 1e-6, 1 - 1e-9])
@pytest.mark.parametrize("verb", ["profile", "emmeans", "posterior: rope", "posterior: contrast", "tidy", "predict"])
def test_narrow_and_wide_levels_give_limits(verb: str, level: float) -> None:
    VERBS[verb](level)


def test_a_lower_limit_is_below_the_upper_one() -> None:
    for level in (1e-6, 0.5, 0.999):
        frame = posterior().contrast("x = 0", conf_level=level).frame
        assert (frame["conf_low"] < frame["conf_high"]).all()
