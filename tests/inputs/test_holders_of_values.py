"""Arrays of no dimensions, of Arrow, of text, of times where names, numbers, matrices are meant: refused, or read as what they hold."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMWarning, SpecificationError, printable_text
from bayeslmm.results.fitted import as_pandas
from tests.inputs.frames import fit, posterior, refused, visits

ROWS = len(visits())
NONE = [np.array("x"), np.array(3), np.ma.masked, np.array(None), memoryview(b"x"), Decimal("sNaN"), pd.NaT, slice(1), ...]


def serial() -> blm.Fit:
    return fit("y ~ arm", residual="ar1(visit | g)")


VERBS: dict[str, Callable[[Any], Any]] = {
    "confint": lambda v: fit().confint(terms=v),
    "profile": lambda v: fit().profile(terms=v),
    "pairs": lambda v: fit("y ~ arm + (1 | g)").emmeans("arm").pairs(by=v),
    "hypothesis": lambda v: posterior().hypothesis(v),
    "rope": lambda v: posterior().rope(-1, 1, v),
    "forest": lambda v: posterior().plot.forest(v),
    "ratio": lambda v: fit().ratio(v, of="Residual"),
    "drop-out": lambda v: serial().power("arm[T.TRT]", nsim=2, dropout=v),
    "partitions": lambda v: blm.from_partitions("y ~ x + (1 | g)", v),
    "seed": lambda v: fit().simulate(1, seed=v),
    "level": lambda v: fit().emmeans("x", conf_level=v),
}
TAKEN = {("seed", 1)}
"""A whole number in an array of no dimensions is a seed."""


@pytest.mark.parametrize("verb", VERBS)
def test_what_holds_no_value_is_refused(verb: str) -> None:
    for place, value in enumerate(NONE):
        if (verb, place) not in TAKEN:
            refused(lambda value=value: VERBS[verb](value))


@pytest.mark.parametrize("text", ["x", "1"])
@pytest.mark.parametrize("make", [pa.array, np.array, pd.Series, lambda v: pd.array(v, dtype="string[pyarrow]")])
def test_text_is_no_weight(make: Callable[[Any], Any], text: str) -> None:
    for option in ("weights", "offset"):
        refused(lambda option=option: fit(**{option: make([text] * ROWS)}))
    refused(lambda: fit("y ~ arm + (1 | g)").emmeans("arm").contrast({"k": make([text, text])}), SpecificationError)
    refused(lambda: fit("y ~ arm + (1 | g)", contrasts={"arm": make([text, text])}), SpecificationError)


def test_arrays_of_arrow_with_gaps_are_weights_with_gaps() -> None:
    refused(lambda: fit(weights=pa.array([None, *np.ones(ROWS - 1)])), match="missing")
    assert fit(offset=pa.array([None, *np.ones(ROWS - 1)])).nobs == ROWS - 1
    assert fit(weights=pa.chunked_array([np.ones(30), np.ones(30)])).criterion == fit().criterion


CONTROLS = ["\x1b[31m", "\x07", "\x00", "\r", "\x9b31m", "\u202e", "\u2028", "\x7f"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_message_has_a_control_character(control: str) -> None:
    data = visits().astype({"arm": str}).rename(columns={"x": f"x{control}"})
    data["arm"] += control
    made = fit(f"y ~ `x{control}` + arm + (1 | g)", data)
    calls = [
        lambda: made.contrast({f"z{control}": 1}),
        lambda: made.predict(data.assign(arm=f"new{control}")),
        lambda: made.emmeans("arm").contrast({"k": {f"z{control}": 1}}),
        lambda: blm.load_dataset(f"z{control}"),
        lambda: fit(f"y ~ `z{control}`", data),
        lambda: fit("y ~ z", data),
    ]
    for call in calls:
        text = str(refused(call))
        assert text == printable_text(text)
    warning = str(BayesLMMWarning(f"a{control}", f"b{control}", "c"))
    assert warning == printable_text(warning)


def test_columns_of_a_mapping_are_read_under_any_key() -> None:
    completed = {None: [1.0, 2.0], 2: ["a", "b"], "y": [0.5, 1.5]}
    assert list(as_pandas(completed).columns) == ["None", "2", "y"]
