"""Coverage of 95 % intervals in small unbalanced designs: 2,000 data sets of 6 to 12 groups, by every method.

`python -m tests.inference.test_coverage` prints the table that the documentation shows.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

METHODS = ("wald", "satterthwaite", "kenward-roger", "profile", "bootstrap")
TERMS = ("treated", "x")
TRUTH = {"treated": 1.0, "x": 0.5}


def small_design(rng: np.random.Generator) -> pd.DataFrame:
    """6 to 12 groups of 2 to 7 rows; `treated` differs between groups, x within them; both variances are 1."""
    groups = int(rng.integers(6, 13))
    group = np.repeat(np.arange(groups), rng.integers(2, 8, groups))
    treated = (np.arange(groups) % 2)[group].astype(float)
    x = rng.normal(size=len(group))
    y = TRUTH["treated"] * treated + TRUTH["x"] * x + rng.normal(size=groups)[group] + rng.normal(size=len(group))
    return pd.DataFrame({"y": y, "treated": treated, "x": x, "g": group.astype(str)})


def limits(fit: blm.Fit, method: str, seed: int) -> pd.DataFrame:
    if method in ("satterthwaite", "kenward-roger"):
        return fit.tidy(conf_int=True, df=method).set_index("term")
    options: dict[str, object] = {"n": 200, "seed": seed} if method == "bootstrap" else {}
    return fit.confint(method, terms=list(TERMS), **options).set_index("term")


def study(sets: int, seed: int = 1) -> pd.DataFrame:
    """Share of sets whose interval holds the truth, and the mean width, by method and term."""
    held = {(m, t): [0, 0.0] for m in METHODS for t in TERMS}
    for number, stream in enumerate(np.random.SeedSequence(seed).spawn(sets)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = blm.LMM("y ~ treated + x + (1 | g)", small_design(np.random.default_rng(stream))).fit()
            for method in METHODS:
                found = limits(fit, method, number)
                for term in TERMS:
                    low, high = float(found.loc[term, "conf_low"]), float(found.loc[term, "conf_high"])
                    held[method, term][0] += low <= TRUTH[term] <= high
                    held[method, term][1] += high - low
    rows = [(m, t, count / sets, width / sets) for (m, t), (count, width) in held.items()]
    return pd.DataFrame(rows, columns=["method", "term", "coverage", "width"])


@pytest.mark.coverage
def test_intervals_with_degrees_of_freedom_hold_their_level_and_those_without_fall_short() -> None:
    found = study(2000).set_index(["method", "term"])["coverage"]
    # the standard error of a coverage of 0.95 over 2,000 sets is 0.005
    for method in ("satterthwaite", "kenward-roger"):
        for term in TERMS:
            assert 0.93 < found[method, term] < 0.975, (method, term)
    assert found["wald", "treated"] < found["kenward-roger", "treated"]


def profile_at_the_boundary(sets: int, seed: int = 2) -> tuple[float, float]:
    """Share of profile limits that hold a coefficient where the true variance between six groups is 0, and of fits that end there."""
    held = ended = 0
    for stream in np.random.SeedSequence(seed).spawn(sets):
        rng = np.random.default_rng(stream)
        data = pd.DataFrame({"g": np.repeat(list("abcdef"), 8), "t": np.repeat([0.0, 1, 0, 1, 0, 1], 8), "y": rng.normal(size=48)})
        fit = blm.LMM("y ~ t + (1 | g)", data).fit("ML")
        low, high = fit.confint("profile", terms=["t"])[["conf_low", "conf_high"]].to_numpy(float)[0]
        held, ended = held + bool(low <= 0.0 <= high), ended + fit.singular
    return held / sets, ended / sets


@pytest.mark.coverage
def test_profile_limits_hold_their_level_where_a_variance_is_0() -> None:
    held, ended = profile_at_the_boundary(2000)
    assert ended > 0.6
    # most sets profile a coefficient beside a variance that may leave 0: the limits are a little long, never short
    assert 0.945 < held < 0.985


if __name__ == "__main__":
    print(study(2000).pivot(index="method", columns="term").loc[list(METHODS)].round(3).to_string())
