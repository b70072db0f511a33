"""What imputed values must obey, whatever the data: conditional laws written out, predictions of the fit, and refits one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

FORMULA = "y ~ visit * arm + dose"
REFERENCE = {"A": "P", "B": "P"}


def written_out(model: blm.LMM, data: pd.DataFrame, events: pd.DataFrame, left_out: set[tuple[int, str]]) -> pd.DataFrame:
    """Conditional means subject by subject from the printed fit: alpha and R of a fit without some outcomes."""
    own = data.copy()
    for subject, visit in left_out:
        own.loc[(own["id"] == subject) & (own["visit"] == visit), "y"] = np.nan
    fit = model.update(data=own).fit() if hasattr(model, "update") else model.updated(None, own, {}).fit()
    reference = data.assign(arm=pd.Categorical(["P"] * len(data), ["P", "A", "B"]))
    mean = fit.predict(data, level="population")["estimate"].to_numpy()
    other = fit.predict(reference, level="population")["estimate"].to_numpy()
    out, visits = data.copy(), list(data["visit"].cat.categories)
    by_subject = events.set_index("id")
    for subject, rows in data.groupby("id"):
        at = rows.index.to_numpy()
        mu, ref, y = mean[at], other[at], rows["y"].to_numpy()
        R = fit.R if isinstance(fit.R, pd.DataFrame) else None
        S, Q = (R.to_numpy(), R.to_numpy()) if R is not None else (fit.R[rows["arm"].iloc[0]].to_numpy(), fit.R["P"].to_numpy())
        if subject in by_subject.index:
            t, name = visits.index(by_subject.loc[subject, "visit"]), by_subject.loc[subject, "strategy"]
            mu, S = law(name, mu, S, ref, Q, t)
        o, u = np.isfinite(y), ~np.isfinite(y)
        filled = mu[u] + (S[np.ix_(u, o)] @ np.linalg.solve(S[np.ix_(o, o)], y[o] - mu[o]) if o.any() else 0.0)
        out.loc[at[u], "y"] = filled
    return out


def law(name: str, mu: Any, S: Any, ref: Any, Q: Any, t: int) -> tuple[Any, Any]:
    """The strategies entry by entry."""
    if name == "MAR":
        return mu, S
    if name == "CR":
        return ref, Q
    mean = mu.copy()
    for j in range(t, len(mu)):
        mean[j] = {"JR": ref[j], "CIR": ref[j] + (mu[t - 1] - ref[t - 1] if t else 0.0), "LMCF": mu[t - 1]}[name]
    if name == "LMCF":
        return mean, S
    if t == 0:
        return mean, Q
    B = Q[t:, :t] @ np.linalg.inv(Q[:t, :t])
    both = S.copy()
    both[t:, :t] = B @ S[:t, :t]
    both[:t, t:] = both[t:, :t].T
    both[t:, t:] = Q[t:, t:] - B @ (Q[:t, :t] - S[:t, :t]) @ B.T
    return mean, both


@pytest.mark.parametrize("structure", ["us", "toep", "ar1h", "cs"])
@pytest.mark.parametrize("by_arm", [False, True])
def test_conditional_means_are_those_of_the_strategies_written_out(
    structure: str, by_arm: bool, small: pd.DataFrame, small_events: pd.DataFrame
) -> None:
    bar = "visit | arm / id" if by_arm else "visit | id"
    model = blm.LMM(FORMULA, small, residual=f"{structure}({bar})")
    imp = blm.impute(model, treatment="arm", reference=REFERENCE, events=small_events, resampling=None)
    after = {(15, "d"), (33, "b"), (33, "c"), (33, "d")}
    want = written_out(model, small, small_events, after)
    np.testing.assert_allclose(imp.data(0)["y"], want["y"], rtol=1e-7, atol=1e-8)
    assert imp.data(0)["imputed"].equals(small["y"].isna().rename("imputed"))


def test_missing_at_random_is_the_prediction_of_the_fit(small: pd.DataFrame) -> None:
    model = blm.LMM(FORMULA, small, residual="us(visit | id)")
    imp = blm.impute(model, treatment="arm", resampling=None)
    predicted = model.fit().predict(small)["estimate"]
    np.testing.assert_allclose(imp.data(0)["y"], predicted, rtol=1e-9)


@pytest.mark.parametrize("pair", list(itertools.combinations(["MAR", "JR", "CR", "CIR"], 2)))
def test_strategies_agree_in_the_reference_arm(pair: tuple[str, str], model: blm.LMM, events: pd.DataFrame, trial: pd.DataFrame) -> None:
    """Where both are fitted to the same outcomes: MAR is compared on events without outcomes after them."""
    left = trial.copy()
    left.loc[left["stopped"].notna() & (left["week"] >= left["stopped"]).fillna(False), "change"] = np.nan
    own = blm.LMM(model.formula, left, residual="us(week | id)")
    found = [blm.impute(own, treatment="arm", reference={"drug": "placebo"}, events=events, strategy=s, resampling=None) for s in pair]
    a, b = (imp.data(0) for imp in found)
    placebo = a["arm"] == "placebo"
    np.testing.assert_allclose(a.loc[placebo, "change"], b.loc[placebo, "change"], rtol=1e-9)
    assert not np.allclose(a.loc[~placebo, "change"], b.loc[~placebo, "change"])


def test_an_own_function_that_says_what_a_strategy_says_gives_its_values(small: pd.DataFrame, small_events: pd.DataFrame) -> None:
    model = blm.LMM(FORMULA, small, residual="us(visit | arm / id)")

    def jump(mean: Any, covariance: Any, reference: Any, reference_covariance: Any, first: int) -> tuple[Any, Any]:
        return law("JR", mean, covariance, reference, reference_covariance, first)

    own = small_events.assign(strategy=[jump if s == "JR" else s for s in small_events["strategy"]])
    a, b = (blm.impute(model, treatment="arm", reference=REFERENCE, events=e, resampling=None).data(0)["y"] for e in (own, small_events))
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("structure", ["us(visit | id)", "us(visit | arm / id)", "toeph(visit | id)", "ar1(visit | id)"])
@pytest.mark.parametrize("criterion", ["REML", "ML"])
def test_the_jackknife_is_a_loop_of_fits(structure: str, criterion: str, small: pd.DataFrame, small_events: pd.DataFrame) -> None:
    whole = small if "arm" not in structure else small[small["id"] != 20]
    model = blm.LMM(FORMULA, whole, residual=structure)
    imp = blm.impute(model, treatment="arm", reference=REFERENCE, events=small_events, criterion=criterion)
    for k in (1, 2, 7, 11, 30):
        subject = imp.layout.subjects[k - 1]
        rest = whole[whole["id"] != subject]
        one = blm.impute(
            blm.LMM(FORMULA, rest, residual=structure),
            treatment="arm",
            reference=REFERENCE,
            events=small_events[small_events["id"] != subject],
            criterion=criterion,
            resampling=None,
        )
        # a fit by itself ends where 1e-12 of the criterion is left to gain, which is 1e-6 of a standard error
        np.testing.assert_allclose(imp.data(k)["y"].to_numpy(), one.data(0)["y"].to_numpy(), rtol=0, atol=1e-6 * small["y"].std())


def test_structures_over_places_are_imputed_too(trial: pd.DataFrame, events: pd.DataFrame) -> None:
    some = trial[trial["id"].isin(trial["id"].cat.categories[:24])].assign(id=lambda d: d["id"].astype(str))
    own = events[events["id"].astype(str).isin(some["id"])]
    model = blm.LMM("change ~ week * arm + base", some, residual="sp_exp(week | id)")
    imp = blm.impute(model, treatment="arm", reference={"drug": "placebo"}, events=own, strategy="CIR")
    rest = some[some["id"] != "S003"]
    one = blm.impute(
        blm.LMM("change ~ week * arm + base", rest, residual="sp_exp(week | id)"),
        treatment="arm",
        reference={"drug": "placebo"},
        events=own[own["id"] != "S003"],
        strategy="CIR",
        resampling=None,
    )
    np.testing.assert_allclose(imp.data(3)["change"].to_numpy(), one.data(0)["change"].to_numpy(), rtol=1e-6)


def test_random_imputations_have_the_conditional_mean_and_the_noise_of_the_model(model: blm.LMM, events: pd.DataFrame) -> None:
    """Approximate Bayes over many draws: their mean is the conditional mean, up to Monte Carlo error and the bias of the bootstrap."""
    options = {"treatment": "arm", "reference": {"drug": "placebo"}, "events": events, "strategy": "JR"}
    mean = blm.impute(model, resampling=None, **options).values[0]
    many = blm.impute(model, method="approximate-bayes", n=400, seed=3, **options).values
    error = many.std(axis=0, ddof=1) / 20.0
    lost = np.isnan(blm.impute(model, resampling=None, **options).layout.y)
    z = (many.mean(axis=0) - mean)[lost] / error[lost]
    assert np.abs(z).max() < 6.0 and abs(z.mean()) < 1.0


@pytest.mark.parametrize(("method", "n"), [("bayes", 30), ("approximate-bayes", 30), ("bootstrap-mi", (15, 2)), ("conditional-mean", 20)])
def test_the_same_seed_gives_the_same_imputations(method: Any, n: Any, model: blm.LMM, events: pd.DataFrame) -> None:
    def run(seed: int) -> Any:
        resampling: Any = "bootstrap" if method == "conditional-mean" else None
        return blm.impute(
            model,
            treatment="arm",
            reference={"drug": "placebo"},
            events=events,
            strategy="CR",
            method=method,
            resampling=resampling,
            n=n,
            seed=seed,
        ).values

    np.testing.assert_array_equal(run(4), run(4))
    assert not np.array_equal(run(4), run(5))


def test_completed_frames_keep_rows_order_and_types(small: pd.DataFrame, small_events: pd.DataFrame) -> None:
    shuffled = small.sample(frac=1.0, random_state=2)
    model = blm.LMM(FORMULA, shuffled, residual="us(visit | id)")
    imp = blm.impute(model, treatment="arm", reference=REFERENCE, events=small_events, resampling=None)
    done = imp.data(0)
    assert done.index.equals(shuffled.index)
    assert done.drop(columns=["y", "imputed"]).equals(shuffled.drop(columns="y"))
    straight = blm.impute(
        blm.LMM(FORMULA, small, residual="us(visit | id)"), treatment="arm", reference=REFERENCE, events=small_events, resampling=None
    )
    np.testing.assert_allclose(done.sort_index()["y"], straight.data(0)["y"], rtol=1e-7)


def test_one_visit_is_a_trial_too() -> None:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": range(30), "visit": 1, "arm": ["a", "b"] * 15, "y": rng.normal(size=30)})
    data.loc[[3, 8], "y"] = np.nan
    events = pd.DataFrame({"id": [3], "visit": [1]})
    imp = blm.impute(
        blm.LMM("y ~ arm", data, residual="cs(visit | id)", check="warn"),
        treatment="arm",
        reference={"b": "a"},
        events=events,
        strategy="JR",
    )
    means = data.groupby("arm")["y"].mean()
    np.testing.assert_allclose(imp.data(0).loc[[3, 8], "y"], [means["a"], means["a"]], rtol=1e-7)
    assert np.isfinite(imp.analyse("y ~ arm").pool()["std_error"]).all()


@pytest.mark.parametrize("method", ["conditional-mean", "bayes"])
def test_columns_of_any_name_are_imputed_and_analysed_alike(method: Any) -> None:
    """Names that a formula writes in backticks: the outcome's, the arm's, the visits', the subjects', a covariate's."""
    rng = np.random.default_rng(1)
    s, t = np.divmod(np.arange(90), 3)
    frame = pd.DataFrame({"id": s.astype(str), "visit": pd.Categorical([f"v{k}" for k in t]), "arm": np.where(s % 2, "b", "a")})
    frame["x"], frame["y"] = rng.normal(size=30)[s], rng.normal(size=90) + rng.normal(size=30)[s]
    frame.loc[[5, 8, 14], "y"] = np.nan

    def pooled(names: dict[str, str]) -> pd.DataFrame:
        y, x, arm, visit, subject = (f"`{names.get(name, name)}`" for name in ("y", "x", "arm", "visit", "id"))
        model = blm.LMM(f"{y} ~ {arm} * {visit} + {x}", frame.rename(columns=names), residual=f"us({visit} | {subject})")
        more = {} if method == "conditional-mean" else {"n": 3, "seed": 1}
        imputed = blm.impute(model, treatment=arm.strip("`"), method=method, **more)
        assert imputed.analyse(f"{arm} + {x}").pool()["estimate"].notna().all()
        return imputed.analyse(covariates=[x.strip("`")]).pool()

    own = {"y": "a b", "x": "p:q", "arm": "the arm", "visit": "1st", "id": "i|d"}
    pd.testing.assert_frame_equal(pooled(own)[["estimate", "std_error"]], pooled({})[["estimate", "std_error"]])
