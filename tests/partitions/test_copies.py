"""Models without rows and all that they hold are copied, pickled and printed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import bayeslmm as blm
from tests.inputs.frames import visits


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])  # noqa: S301
def test_what_has_no_rows_can_be_copied(made: Callable[[Any], Any]) -> None:
    data = visits()
    model = blm.from_partitions("y ~ x + (1 | g)", [data.iloc[:24], data.iloc[24:]])
    fit = model.fit()
    for thing in (model, fit, model.design, model.design.terms[0], model.design.terms[0].group):
        assert repr(made(thing)) == repr(thing)
    assert made(model).fit().criterion == fit.criterion
