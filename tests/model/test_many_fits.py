"""Many fits at once are the fits one by one: estimates, tests, variances; missing values, weights, boundaries; groups of rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, BayesLMMWarning, DataError, SpecificationError

FORMULAS = ("y ~ x + arm + (1 | donor) + (1 | batch)", "y ~ x + (x | donor)", "y ~ x + (1 | donor)", "y ~ arm", "y ~ x + (x || donor)")


def design(seed: int, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    donor = np.arange(n) % 20
    frame = pd.DataFrame({"donor": donor.astype(str), "batch": rng.integers(0, 6, n).astype(str), "x": rng.normal(3, 1, n)})
    return frame.assign(arm=np.where(donor < 10, "a", "b"), w=rng.uniform(0.5, 2.0, n), y=rng.normal(size=n))


def responses(frame: pd.DataFrame, seed: int, count: int) -> pd.DataFrame:
    """Responses of many origins and units; some have no variance between donors."""
    rng = np.random.default_rng(seed)
    donor, batch = frame["donor"].astype(int), frame["batch"].astype(int)
    found = {}
    for b in range(count):
        effects = rng.choice([0.0, 0.5, 2.0]) * rng.normal(size=20)[donor] + rng.choice([0.0, 0.7]) * rng.normal(size=6)[batch]
        slopes = rng.choice([0.0, 0.4]) * rng.normal(size=20)[donor] * frame["x"]
        signal = rng.choice([0.0, 1e5]) + 0.2 * frame["x"] + effects + slopes + rng.normal(size=len(frame))
        found[f"gene{b}"] = rng.choice([1e-4, 1.0, 1e4]) * signal
    return pd.DataFrame(found)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_many_responses_are_fitted_as_one_by_one(formula: str, method: str) -> None:
    frame = design(1)
    Y = responses(frame, 2, 24)
    model = blm.LMM(formula, frame)
    many = model.fit_many(Y, method=method)
    tidy, glance, varcorr = many.tidy().set_index("response"), many.glance().set_index("response"), many.varcorr.set_index("response")
    assert many.converged.all()
    for name in Y:
        fit = model.with_response(Y[name]).fit(method)
        one = fit.tidy()
        error = one["std_error"].to_numpy()
        assert glance.loc[name, "criterion"] <= fit.criterion + 1e-6
        if glance.loc[name, "criterion"] < fit.criterion - 1e-6:
            continue  # a lower optimum than the search from one start has
        assert np.abs(tidy.loc[name, "estimate"].to_numpy() - one["estimate"].to_numpy()).max() <= 1e-5 * error.max()
        assert tidy.loc[name, "std_error"].to_numpy() == pytest.approx(error, rel=1e-5)
        assert tidy.loc[name, "df"].to_numpy() == pytest.approx(one["df"].to_numpy(), rel=1e-3)
        assert glance.loc[name, "sigma"] == pytest.approx(fit.sigma, rel=1e-6)
        assert varcorr.loc[[name], "sd"].dropna().to_numpy() == pytest.approx(
            fit.varcorr["sd"].dropna().to_numpy(), rel=1e-4, abs=2e-3 * fit.sigma
        )
        assert many.singular[name] == fit.singular


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger", "between-within", "residual", "asymptotic"])
def test_every_method_of_degrees_of_freedom_is_that_of_a_fit(df: str) -> None:
    frame = design(3)
    Y = responses(frame, 4, 3)
    model = blm.LMM("y ~ x + arm + (1 | donor)", frame)
    many = model.fit_many(Y)
    for name in Y:
        fit = many.fit(name)
        table = many.tidy(df=df, conf_int=True).query("response == @name")
        expected = fit.tidy(df=df, conf_int=True)
        contrast = many.contrast("x - arm[T.b] = 0.1", df=df).query("response == @name")
        for column in ("estimate", "std_error", "df", "p_value", "conf_low", "conf_high"):
            assert table[column].to_numpy(float) == pytest.approx(expected[column].to_numpy(float), rel=1e-4, abs=1e-12), column
        one = fit.contrast("x - arm[T.b] = 0.1", df=df).frame
        for column in ("estimate", "std_error", "df", "p_value"):
            assert contrast[column].to_numpy(float) == pytest.approx(one[column].to_numpy(float), rel=1e-4), column


def test_missing_values_weights_and_offsets_are_those_of_each_response() -> None:
    frame = design(5).assign(o=np.linspace(0, 3, 120))
    Y = responses(frame, 6, 6)
    Y.iloc[3:9, 1] = np.nan
    Y.iloc[3:9, 2] = np.nan
    Y.iloc[::7, 4] = np.nan
    model = blm.LMM("y ~ x + (1 | donor)", frame, weights="w", offset="o")
    many = model.fit_many(Y)
    for name in Y:
        rows = Y[name].notna()
        fit = blm.LMM("y ~ x + (1 | donor)", frame.assign(y=Y[name])[rows], weights="w", offset="o").fit()
        assert many.glance().set_index("response").loc[name, "criterion"] == pytest.approx(fit.criterion, abs=1e-6)
        assert many.glance().set_index("response").loc[name, "sigma"] == pytest.approx(fit.sigma, rel=1e-6)
        assert many.tidy().set_index("response").loc[name, "estimate"].to_numpy() == pytest.approx(fit.fixef.to_numpy(), rel=1e-6)
        assert many.fit(name).criterion == pytest.approx(fit.criterion, abs=1e-7)


RANDOM_TERMS = (
    "(1 | donor)",
    "(x | donor)",
    "(x || donor)",
    "(1 | donor) + (1 | batch)",
    "(x | donor) + (1 | batch)",
    "(1 | donor / batch)",
    "(0 + arm | donor)",
    "(1 | batch) + (0 + x | donor)",
)


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 30))])
def test_random_designs_with_missing_patterns_are_fitted_as_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = design(seed, int(rng.integers(70, 160))).assign(o=rng.normal(size=1)[0])
    formula = f"y ~ {rng.choice(['1', 'x', 'x + arm', 'x * arm'])} + {RANDOM_TERMS[seed % len(RANDOM_TERMS)]}"
    options = {key: name for key, name in (("weights", "w"), ("offset", "o")) if rng.random() < 0.4}
    method = str(rng.choice(["REML", "ML"]))
    Y = responses(frame, seed, 4)
    gone = rng.random(len(frame)) < 0.1
    Y.loc[gone, ["gene1", "gene2"]] = np.nan
    Y.loc[rng.random(len(frame)) < 0.05, "gene3"] = np.nan
    many = blm.LMM(formula, frame, check="warn", **options).fit_many(Y, method=method)
    glance, tidy = many.glance().set_index("response"), many.tidy().set_index("response")
    for name in Y:
        rows = Y[name].notna()
        fit = blm.LMM(formula, frame.assign(y=Y[name])[rows], check="warn", **options).fit(method)
        gap = glance.loc[name, "criterion"] - fit.criterion
        assert gap <= 1e-6
        if gap < -1e-6:
            continue  # a lower optimum than the search from one start has
        assert many.fit(name).criterion == pytest.approx(glance.loc[name, "criterion"], abs=1e-6)
        assert many.singular[name] == fit.singular
        error = np.sqrt(np.diagonal(fit.vcov))
        np.testing.assert_allclose(tidy.loc[[name], "std_error"], error, rtol=1e-4)
        np.testing.assert_allclose((tidy.loc[[name], "estimate"] - fit.fixef.to_numpy()) / error, 0.0, atol=2e-5)


def test_structured_errors_are_fitted_one_by_one() -> None:
    frame = design(7)
    Y = responses(frame, 8, 3)
    model = blm.LMM("y ~ x", frame, residual="cs(1 | donor)")
    many = model.fit_many(Y)
    for name in Y:
        assert many.glance().set_index("response").loc[name, "criterion"] == pytest.approx(
            model.with_response(Y[name]).fit().criterion, abs=1e-8
        )


def test_p_values_are_adjusted_within_a_term() -> None:
    frame = design(9)
    many = blm.LMM("y ~ x + (1 | donor)", frame).fit_many(responses(frame, 10, 12))
    for adjust, first in (("bh", 12.0), ("holm", 12.0), ("bonferroni", 12.0), ("none", 1.0)):
        for _, own in many.tidy(adjust=adjust).groupby("term"):
            own = own.sort_values("p_value")
            assert own["adjusted_p"].is_monotonic_increasing
            assert (own["adjusted_p"] >= own["p_value"] - 1e-15).all()
            if adjust != "bh":
                assert own["adjusted_p"].iloc[0] == pytest.approx(min(1.0, first * own["p_value"].iloc[0]))


def test_what_cannot_be_fitted_is_counted_and_named() -> None:
    frame = design(11)
    Y = responses(frame, 12, 3).assign(constant=1.0, empty=np.nan)
    with pytest.warns(BayesLMMWarning, match="2 of 5 responses"):
        many = blm.LMM("y ~ x + (1 | donor)", frame).fit_many(Y)
    assert many.failed["response"].tolist() == ["constant", "empty"]
    assert set(many.tidy()["response"]) == {"gene0", "gene1", "gene2"}
    assert many.checks.set_index("response").loc["constant", "failed"] != ""
    with pytest.raises(SpecificationError):
        many.fit("constant")
    with pytest.warns(BayesLMMWarning, match="2 of 2 responses"):
        none = blm.LMM("y ~ x + (1 | donor)", frame).fit_many(np.zeros((120, 2)))
    assert len(none.tidy()) == len(none.varcorr) == len(none.glance()) == 0


@pytest.mark.parametrize(
    "Y",
    [
        np.zeros((3, 2)),
        pd.DataFrame({"a": ["x"] * 120}),
        np.zeros((120, 0)),
        pd.DataFrame(np.zeros((120, 2)), columns=["a", "a"]),
        np.full((120, 1), np.inf),
        None,
        3,
    ],
)
def test_bad_responses_are_refused(Y: object) -> None:
    with pytest.raises(BayesLMMError):
        blm.LMM("y ~ x + (1 | donor)", design(13)).fit_many(Y)


def test_responses_in_another_order_of_rows_are_refused() -> None:
    frame = design(14).set_index(pd.Index([f"r{i}" for i in range(120)]))
    model = blm.LMM("y ~ x + (1 | donor)", frame)
    with pytest.raises(DataError, match="another order"):
        model.fit_many(responses(frame, 15, 2).iloc[::-1])


def test_groups_of_rows_are_fitted_as_one_by_one() -> None:
    data = blm.load_dataset("nlme/Orthodont")
    fits = blm.fit_by("distance ~ age + (1 | Subject)", data, by="Sex")
    for sex, own in data.groupby("Sex", observed=True):
        fit = blm.LMM("distance ~ age + (1 | Subject)", own).fit()
        assert fits.fit(sex).criterion == fit.criterion
        assert fits.tidy().query("Sex == @sex")["p_value"].tolist() == fit.tidy()["p_value"].tolist()
    assert fits.varcorr.columns[0] == "Sex"
    assert fits.converged["Male"]


def test_a_group_that_cannot_be_fitted_does_not_lose_the_others() -> None:
    frame = design(16).assign(site=lambda d: np.where(np.arange(len(d)) < 3, "tiny", np.where(np.arange(len(d)) < 60, "p", "q")), k="k")
    with pytest.warns(BayesLMMWarning, match="1 of 3 groups"):
        fits = blm.fit_by("y ~ x + (1 | donor)", frame, by=["k", "site"])
    assert fits.failed["site"].tolist() == ["tiny"]
    assert fits.fit(("k", "p")).nobs == 57
    with pytest.raises(SpecificationError):
        blm.fit_by("y ~ x + (1 | donor)", frame, by="nope")
    for index in ("site", ["k", "site"]):
        with pytest.raises(SpecificationError, match="reset_index"):
            blm.fit_by("y ~ x + (1 | donor)", frame.set_index(index), by="site")
    with pytest.raises(DataError):
        blm.fit_by("y ~ x + (1 | donor)", frame.iloc[:3], by="site")
