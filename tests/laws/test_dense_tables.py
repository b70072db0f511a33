"""Every table of a fit is its textbook definition on dense matrices, for random models, their recodings and units."""

from __future__ import annotations

import pytest

from tests.laws.drawn_tables import disagreements, drawn


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")  # some of the models drawn are singular
@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 200))])
def test_tables_are_their_definitions(seed: int) -> None:
    assert disagreements(drawn(seed)) == []
