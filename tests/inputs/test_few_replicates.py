"""Bootstrap limits that lie beyond the outermost replicates are said to."""

from __future__ import annotations

import pytest

from bayeslmm.errors import BayesLMMWarning
from tests.inputs.frames import fit, warned


@pytest.mark.parametrize(("n", "level"), [(3, 0.999), (3, 0.95), (38, 0.95), (18, 0.9)])
@pytest.mark.parametrize("interval", ["percentile", "basic"])
def test_too_few_replicates_for_a_level_are_told(n: int, level: float, interval: str) -> None:
    _, said = warned(lambda: fit().bootstrap(n, seed=1).confint(level, interval))
    assert [type(one) for one in said] == [BayesLMMWarning]
    assert f"{n} replicates" in said[0].what


@pytest.mark.parametrize(("n", "level"), [(3, 0.5), (39, 0.95), (19, 0.9)])
def test_enough_replicates_for_a_level_are_silent(n: int, level: float) -> None:
    table, said = warned(lambda: fit().bootstrap(n, seed=1).confint(level))
    assert said == []
    assert (table["conf_low"] <= table["conf_high"]).all()
