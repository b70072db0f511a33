"""A warning points at the line of the user's program, however deep in the package it is found."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(np.arange(10), 6)})
    return data.assign(y=rng.normal(size=60) + data["x"], z=2 * data["x"])


DATA = frame()
FIT = blm.LMM("y ~ x + (1 | g)", DATA).fit()
GAP = DATA.assign(x=DATA["x"].where(DATA.index != 3))

VERBS: dict[str, Callable[[], object]] = {
    "fit": lambda: blm.LMM("y ~ x + z + (1 | g)", DATA).fit(),
    "predict": lambda: FIT.predict(GAP),
    "augment": lambda: FIT.augment(GAP),
    "lrt": lambda: blm.lrt(FIT, blm.LMM("y ~ 1 + (1 | g)", DATA).fit()),
    "bootstrap limits": lambda: FIT.bootstrap(10, seed=1).confint(),
    "compare_models": lambda: blm.compare_models([FIT, blm.LMM("y ~ 1 + (1 | g)", DATA).fit()]),
    "posterior": lambda: FIT.model.sample(draws=20, seed=1).predict(GAP),
    "fit_by": lambda: blm.fit_by("y ~ x + (1 | g)", DATA.assign(k=np.where(DATA["g"] == 0, "one", "more")), by="k"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_warning_points_here(verb: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        VERBS[verb]()
    told = [warning for warning in caught if issubclass(warning.category, BayesLMMWarning)]
    assert told
    assert {warning.filename for warning in told} == {__file__}
