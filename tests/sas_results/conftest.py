"""Data that several files of this folder read."""

from __future__ import annotations

import pandas as pd
import pytest

import bayeslmm as blm


@pytest.fixture(scope="session")
def trial() -> pd.DataFrame:
    """The bundled trial: BCVA_CHG, VISITN, BCVA_BL, USUBJID, ..."""
    return blm.load_dataset("trial")
