"""Nothing depends on coding: degrees of freedom, p values and limits of means, differences and estimable rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError

METHODS = ("satterthwaite", "kenward-roger", "kenward-roger-linear", "containment", "between-within", "residual", "asymptotic")
NUMBERS = ["estimate", "std_error", "df", "conf_low", "conf_high", "statistic", "p_value"]


def trial(seed: int) -> pd.DataFrame:
    """Plots with a factor of their own and one that changes within them, unbalanced, and a covariate of either kind."""
    rng = np.random.default_rng(seed)
    plot = np.repeat(np.arange(12), 7)
    within = rng.choice(list("uvw"), len(plot))
    data = pd.DataFrame({"plot": plot, "site": np.array(list("abc"))[plot % 3], "dose": within, "x": rng.normal(size=len(plot))})
    data["depth"] = rng.normal(size=12)[plot]
    return data.assign(y=rng.normal(size=12)[plot] + (data["dose"] == "v") + data["x"] + rng.normal(size=len(plot)))


def ordered(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    return frame.assign(**{name: frame[name].astype(str) for name in by}).sort_values(by).reset_index(drop=True)


CODINGS: list[tuple[str, str, Any]] = [
    ("abc", "uvw", {"site": "sum", "dose": "sum"}),
    ("bca", "wuv", None),
    ("cab", "vwu", {"site": "helmert", "dose": np.array([[0.3, 1.0], [-2.0, 0.1], [0.5, -0.7]])}),
]


@pytest.mark.parametrize(
    ("fixed", "seed"),
    [
        ("site * dose", 1),
        ("0 + site + dose", 2),
        *(
            pytest.param(fixed, seed, marks=pytest.mark.slow)
            for fixed in ("site + dose", "site * x + dose", "site * dose", "site + depth * dose")
            for seed in (3, 4)
        ),
    ],
)
def test_means_differences_and_rows_do_not_depend_on_coding(fixed: str, seed: int) -> None:
    data = trial(seed)
    formula = f"y ~ {fixed} + (1 | plot)"
    plain = blm.LMM(formula, data).fit()
    first = data.groupby(["site", "dose"]).head(1)
    for sites, doses, contrasts in CODINGS:
        levels = {"site": pd.Categorical(data["site"], list(sites)), "dose": pd.Categorical(data["dose"], list(doses))}
        other = blm.LMM(formula, data.assign(**levels), contrasts=contrasts).fit()
        for df in METHODS:
            for specs, by in (("site", None), ("dose", None), ("site", "dose")):
                keys = [specs, by] if by else [specs]
                ours, theirs = plain.emmeans(specs, by=by, df=df), other.emmeans(specs, by=by, df=df)
                np.testing.assert_allclose(ordered(ours.frame, keys)[NUMBERS], ordered(theirs.frame, keys)[NUMBERS], rtol=2e-4, atol=1e-6)
                np.testing.assert_allclose(
                    sizes(ours.pairs(adjust="none"), by), sizes(theirs.pairs(adjust="none"), by), rtol=2e-4, atol=1e-6
                )
            # rows of the design are estimable rows of any coding
            left, right = (fit.contrast(fit.design.X[first.index], df=df) for fit in (plain, other))
            np.testing.assert_allclose(left.frame.iloc[:, 1:], right.frame.iloc[:, 1:], rtol=2e-4, atol=1e-6)


def sizes(pairs: pd.DataFrame, by: str | None) -> np.ndarray:
    """Differences without their direction, in an order of their own."""
    found = pairs[["estimate", "std_error", "df", "p_value"]].abs()
    label = ["".join(sorted(text.split(" - "))) for text in pairs["contrast"]]
    return found.assign(label=label, by=pairs[by].astype(str) if by else "").sort_values(["by", "label"]).iloc[:, :4].to_numpy(float)


def test_a_mean_has_the_denominator_of_its_term() -> None:
    """SAS's: 12 plots in 3 sites leave 9 between them, whichever site comes first."""
    data = trial(3)
    fit = blm.LMM("y ~ site * dose + (1 | plot)", data).fit()
    assert set(fit.emmeans("site", df="containment").frame["df"]) == {9.0}
    assert set(fit.emmeans("site", df="between-within").pairs()["df"]) == {9.0}
    inner = 84 - 12 - 2 - 4
    assert set(fit.emmeans("dose", df="containment").frame["df"]) == {float(inner)}
    assert set(fit.emmeans("site", by="dose", df="containment").frame["df"]) == {float(inner)}
    # a free row has the smallest of the terms that it involves
    assert fit.contrast("site[T.b] = 0", df="containment").frame["df"].item() == 9.0
    assert fit.contrast("dose[T.v] = 0", df="containment").frame["df"].item() == inner


def test_where_a_covariate_starts_does_not_count() -> None:
    data = trial(4)
    ours = blm.LMM("y ~ site * x + (1 | plot)", data).fit()
    theirs = blm.LMM("y ~ site * x + (1 | plot)", data.assign(x=data["x"] + 3.0)).fit()
    one = ours.contrast("site[T.b] + 3 * site[T.b]:x", df="containment").frame
    two = theirs.contrast("site[T.b] + 6 * site[T.b]:x", df="containment").frame
    np.testing.assert_allclose(one.iloc[:, 1:], two.iloc[:, 1:], rtol=1e-5)


def test_crossed_groups_are_refused_whatever_the_coding() -> None:
    data = trial(5).assign(batch=lambda d: np.arange(len(d)) % 5)
    fit = blm.LMM("y ~ site + (1 | plot) + (1 | batch)", data, contrasts={"site": "sum"}).fit()
    with pytest.raises(InferenceError, match="crossed"):
        fit.emmeans("site", df="containment")
