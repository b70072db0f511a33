"""A simulated trial of an eye treatment, for the demo: 1,000 patients, up to 10 visits, some of them missed.

The outcome is the change of best corrected visual acuity (letters) from baseline,

    BCVA_CHG = 5 + 0.30 VISITN - 0.12 (BCVA_BL - 65) + [treated] (0.5 + 0.25 VISITN) + b_i + e,   b_i ~ N(0, 3.5^2), e ~ N(0, 4.5^2).

A visit is missed by chance (6 %), and a patient leaves for good with a probability that grows as the last outcome falls
(missing at random).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COLUMNS = ("USUBJID", "VISITN", "AVISIT", "ARMCD", "RACE", "BCVA_BL", "BCVA_CHG")
RACES, RACE_SHARES = ("Asian", "Black", "White"), (0.3, 0.2, 0.5)
SD_PATIENT, SD_RESIDUAL = 3.5, 4.5
MISSED = 0.06


def simulated_trial(patients: int = 1000, visits: int = 10, seed: int = 20240607) -> pd.DataFrame:
    """The trial as a frame, one row per visit that took place, in the order of patients and visits.

    Columns USUBJID (int), VISITN (int), AVISIT (category, ordered), ARMCD (category CTL, TRT), RACE (category), BCVA_BL and
    BCVA_CHG (float, letters).
    The same seed gives the same frame with every version of NumPy.

    >>> simulated_trial().shape
    (8774, 7)
    """
    # the legacy generator is the one whose stream NumPy has frozen for good
    rng = np.random.RandomState(seed)
    arm = rng.permutation(np.arange(patients) % 2)
    race = np.searchsorted(np.cumsum(RACE_SHARES)[:-1], rng.random_sample(patients), side="right")
    baseline = np.round(65.0 + 9.0 * rng.standard_normal(patients), 1)
    number = np.arange(1, visits + 1)
    mean = 5.0 + 0.30 * number - 0.12 * (baseline - 65.0)[:, None] + arm[:, None] * (0.5 + 0.25 * number)
    noise = SD_PATIENT * rng.standard_normal((patients, 1)) + SD_RESIDUAL * rng.standard_normal((patients, visits))
    change = np.round(mean + noise, 2)
    patient, visit = np.nonzero(seen(rng, change))
    labels = [f"VIS{k:02d}" for k in number]
    return pd.DataFrame(
        {
            "USUBJID": patient + 1,
            "VISITN": visit + 1,
            "AVISIT": pd.Categorical.from_codes(visit, labels, ordered=True),
            "ARMCD": pd.Categorical.from_codes(arm[patient], ["CTL", "TRT"]),
            "RACE": pd.Categorical.from_codes(race[patient], list(RACES)),
            "BCVA_BL": baseline[patient],
            "BCVA_CHG": change[patient, visit],
        }
    )


def seen(rng: np.random.RandomState, change: NDArray[Any]) -> NDArray[np.bool_]:
    """Which visits took place: all of a patient's until the patient leaves, save those missed by chance."""
    patients, visits = change.shape
    chance = rng.random_sample((patients, visits)) < MISSED
    leaves = rng.random_sample((patients, visits - 1)) < 0.06 / (1.0 + np.exp((change[:, :-1] - 2.0) / 3.0))
    gone = np.concatenate([np.zeros((patients, 1), dtype=bool), np.cumsum(leaves, axis=1) > 0], axis=1)
    kept = ~chance & ~gone
    kept[:, 0] |= ~kept.any(axis=1)  # every patient has at least one visit
    return kept
