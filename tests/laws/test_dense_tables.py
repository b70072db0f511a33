"""Every table of a fit is its textbook definition on dense matrices, for random models, their recodings and units."""

from __future__ import annotations

import pytest

from tests.laws.drawn_tables import disagreements, drawn

QUICK = (0, 1, 2, 3, 4, 5, 202, 208)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")  # some of the models drawn are singular
@pytest.mark.parametrize("seed", [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(350) if seed not in QUICK)])
def test_tables_are_their_definitions(seed: int) -> None:
    assert disagreements(drawn(seed)) == []
