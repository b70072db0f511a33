"""Trials, events, references and options that cannot be used are refused with what, where and remedy, never with a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError
from tests.trials.conftest import FORMULA, events_of

REFERENCE = {"drug": "placebo"}
Change = Callable[[pd.DataFrame], pd.DataFrame]


def run(
    trial: pd.DataFrame, events: Any = None, *, formula: str = FORMULA, residual: str = "us(week | id)", **options: Any
) -> blm.Imputations:
    options = {"treatment": "arm", "reference": REFERENCE, "resampling": None} | options
    return blm.impute(blm.LMM(formula, trial, residual=residual), events=events, **options)


def with_value(column: str, rows: Any, value: Any) -> Change:
    def change(data: pd.DataFrame) -> pd.DataFrame:
        out = data.copy()
        out.loc[out.index[rows], column] = value
        return out

    return change


TRIALS: dict[str, Change] = {
    "an outcome missing for a whole arm": lambda d: d.assign(change=d["change"].where(d["arm"] != "drug")),
    "a subject without arm": with_value("arm", [7, 8], None),
    "a subject in two arms": lambda d: d.assign(arm=d["arm"].where(d.index != 7, "drug" if d["arm"][5] == "placebo" else "placebo")),
    "duplicated rows": lambda d: pd.concat([d, d.iloc[[3]]], ignore_index=True),
    "a subject without a row": lambda d: d.drop(index=d.index[6]),
    "missing covariates": lambda d: d.assign(base=d["base"].where(d["change"].notna())),
    "a visit without outcomes": lambda d: d.assign(change=d["change"].where(d["week"] != 8)),
    "an infinite outcome": with_value("change", [4], np.inf),
}


@pytest.mark.parametrize("what", TRIALS)
def test_trials_that_cannot_be_read(what: str, trial: pd.DataFrame) -> None:
    data = TRIALS[what](trial)
    with pytest.raises(BayesLMMError) as caught:
        run(data, events_of(trial), strategy="JR")
    assert caught.value.what and caught.value.where and caught.value.remedy


EVENTS: dict[str, Change] = {
    "two events of one subject": lambda e: pd.concat([e, e.iloc[[0]].assign(week=8)]),
    "a visit that does not exist": lambda e: e.assign(week=7),
    "a subject that does not exist": lambda e: e.assign(id="nobody"),
    "an unknown strategy": lambda e: e.assign(strategy="OLMCF"),
    "strategies under another name": lambda e: e.assign(Strategy="CR"),
    "strategies in a column of any name": lambda e: e.assign(handling="jump to reference"),
    "a strategy without an event": lambda e: e.assign(week=e["week"].where(e["week"] != 8), strategy="CR"),
    "no visit column": lambda e: e.drop(columns="week"),
    "LMCF from the first visit": lambda e: e.assign(week=1, strategy="LMCF"),
    "a strategy that is a number": lambda e: e.assign(strategy=3),
}


@pytest.mark.parametrize("what", EVENTS)
def test_events_that_cannot_be_read(what: str, trial: pd.DataFrame, events: pd.DataFrame) -> None:
    with pytest.raises(BayesLMMError) as caught:
        run(trial, EVENTS[what](events), strategy="JR")
    assert caught.value.what and caught.value.where and caught.value.remedy


OPTIONS: dict[str, dict[str, Any]] = {
    "a reference that lacks an arm": {"reference": {"placebo": "placebo"}},
    "a reference that is no arm": {"reference": {"drug": "plaecbo"}},
    "a reference that is no mapping": {"reference": "placebo"},
    "no reference": {"reference": None},
    "an unknown treatment": {"treatment": "ARM"},
    "an unknown strategy": {"strategy": "jump"},
    "an unknown method": {"method": "mice"},
    "an unknown resampling": {"resampling": "loo"},
    "an unknown criterion": {"criterion": "MAP"},
    "n without draws": {"n": 10},
    "one imputation": {"method": "approximate-bayes", "n": 1},
    "one number for bootstrap-mi": {"method": "bootstrap-mi", "n": 100},
    "one imputation of each sample": {"method": "bootstrap-mi", "n": (20, 1)},
    "a seed that is none": {"method": "approximate-bayes", "n": 5, "seed": -1},
    "strategies without events": {"events": None},
    "no residual structure": {"residual": None},
    "random effects": {"formula": FORMULA + " + (1 | id)", "residual": "ar1(week | id)"},
    "no arm in the formula": {"formula": "change ~ C(week) * base"},
    "an expression of the outcome": {"formula": "np.log(change) ~ arm"},
    "an own strategy of the wrong shape": {"strategy": lambda m, S, r, Q, t: (m[:1], S)},
    "an own strategy without covariance": {"strategy": lambda m, S, r, Q, t: (m, 0 * S)},
    "an own strategy that returns nothing": {"strategy": lambda m, S, r, Q, t: None},
    "an own strategy that fails": {"strategy": lambda m, S, r, Q, t: 1 / 0},
    "an own strategy of other arguments": {"strategy": lambda m, S: (m, S)},
    "more imputations than there is memory for": {"method": "approximate-bayes", "n": 10**10},
    "more bootstrap samples than there is memory for": {"resampling": "bootstrap", "n": 10**10},
}


@pytest.mark.parametrize("what", OPTIONS)
def test_options_that_cannot_be_used(what: str, trial: pd.DataFrame, events: pd.DataFrame) -> None:
    with pytest.raises(BayesLMMError) as caught:
        run(trial, **({"events": events, "strategy": "JR"} | OPTIONS[what]))
    assert caught.value.what and caught.value.where and caught.value.remedy


@pytest.mark.parametrize(
    ("word", "strategy"),
    {
        **dict.fromkeys(("JR", "jr", "J2R", "jump to reference", "Jump-to-Reference"), "JR"),
        **dict.fromkeys(("copy reference", "copy_reference"), "CR"),
        **dict.fromkeys(("copy increments in reference", "Copy Increments from Reference"), "CIR"),
        **dict.fromkeys(("lmcf", "last mean carried forward"), "LMCF"),
        "missing at random": "MAR",
    }.items(),
)
def test_a_strategy_is_known_by_what_it_stands_for(word: str, strategy: str, trial: pd.DataFrame, events: pd.DataFrame) -> None:
    late = events[events["week"] > 1]
    wanted = run(trial, late, strategy=strategy)  # type: ignore[arg-type]
    np.testing.assert_array_equal(run(trial, late, strategy=word).values, wanted.values)
    np.testing.assert_array_equal(run(trial, late.assign(strategy=word)).values, wanted.values)
    assert set(wanted.under(word).subjects["strategy"]) <= {"MAR", strategy}  # type: ignore[arg-type]


@pytest.mark.parametrize(("word", "ours"), [("CIN", "CIR"), ("J2Ref", "JR"), ("OLMCF", "LMCF")])
def test_the_nearest_strategy_is_named(word: str, ours: str, trial: pd.DataFrame, events: pd.DataFrame) -> None:
    with pytest.raises(BayesLMMError) as caught:
        run(trial, events, strategy=word)
    assert f"did you mean {ours!r}" in caught.value.remedy


@pytest.mark.parametrize("strategy", ["MAR", "LMCF", "JR", "CIR", "CR"])
def test_a_mean_that_no_outcome_tells_is_imputed_from_only_where_no_strategy_takes_it(strategy: str, trial: pd.DataFrame) -> None:
    """Where nothing of an arm is observed at a visit its mean there is unknown; what jumps to the reference does not need it."""
    lost = trial.assign(change=trial["change"].where((trial["arm"] != "drug") | (trial["week"] != 8)))
    events = pd.DataFrame({"id": lost.loc[lost["arm"] == "drug", "id"].unique(), "week": 8})
    if strategy == "MAR":
        with pytest.raises(BayesLMMError, match="mean of arm 'drug' at visit 8"):
            run(lost, events, strategy=strategy)
        return
    with pytest.warns(blm.errors.BayesLMMWarning, match="aliased"):
        imp = run(lost, events, strategy=strategy, resampling="jackknife")
    assert np.isfinite(imp.analyse("change ~ arm").pool()["std_error"]).all()
    with pytest.raises(BayesLMMError, match="under MAR"):
        imp.analyse("change ~ arm").pool(information_anchored=True)
    with pytest.raises(BayesLMMError, match="mean of arm 'drug' at visit 8"):
        imp.under("MAR")
    assert "Who was imputed" in imp.report(analysis="change ~ arm")


@pytest.mark.parametrize("labels", [("w12", "w2", "w4", "w6", "w8"), ("Week 10", "Week 2", "Week 4", "Week 6", "Week 8")])
def test_visits_in_the_order_of_text_are_those_of_their_numbers_with_a_warning(labels: tuple[str, ...], trial: pd.DataFrame) -> None:
    def renamed(column: Any) -> Any:
        return pd.Categorical.from_codes(np.searchsorted([1, 2, 4, 6, 8], column.to_numpy(float)), [*labels[1:], labels[0]], ordered=True)

    def as_text(column: Any) -> Any:
        return pd.Categorical(column.astype(str), list(labels), ordered=True)

    data, events = trial.assign(week=renamed(trial["week"])), events_of(trial)
    events = events.assign(week=renamed(events["week"]))
    # LMCF has a visit to carry forward from at week 12, which text puts first
    for residual, strategy in (("us(week | id)", "LMCF"), ("ar1(week | arm / id)", "CIR")):
        options = {"formula": "change ~ week * arm + base", "strategy": strategy, "residual": residual}
        wanted = run(data, events, **options).data(0)
        with pytest.warns(blm.errors.BayesLMMWarning, match="order of text") as caught:
            found = run(data.assign(week=as_text(data["week"])), events.assign(week=as_text(events["week"])), **options).data(0)
        np.testing.assert_allclose(found["change"], wanted["change"], rtol=0, atol=1e-8)
        remedy = str(caught[0].message).partition("data['week'] = ")[2]
        mended = data.assign(week=eval(remedy, {"pandas": pd, "data": data}))  # noqa: S307
        assert list(mended["week"].cat.categories) == [*labels[1:], labels[0]]


def test_the_order_of_text_visits_is_asked_for(trial: pd.DataFrame, events: pd.DataFrame) -> None:
    text = trial.assign(week="w" + trial["week"].astype(str))
    with pytest.raises(BayesLMMError, match="order"):
        run(text, events.assign(week="w" + events["week"].astype(str)), formula="change ~ week * arm", strategy="JR")
    last = text[text["week"] == text["week"].iloc[-1]]
    only = events.assign(week=last["week"].iloc[0])
    only = only[only.iloc[:, 0].isin(last.iloc[:, 0])]
    one = run(last, only, formula="change ~ arm", strategy="JR", residual=f"cs(week | {events.columns[0]})")
    assert np.isfinite(one.data(0)["change"]).all()


@pytest.fixture(scope="module")
def imp(trial: pd.DataFrame, events: pd.DataFrame) -> blm.Imputations:
    return run(trial, events, strategy="JR", resampling="jackknife")


def given(imp: blm.Imputations) -> blm.Imputations:
    return blm.imputations([imp.data(0)] * 3, outcome="change", visit="week", subject="id", treatment="arm")


ASKED: dict[str, Callable[[blm.Imputations], Any]] = {
    "a delta of the wrong length": lambda i: i.delta([1.0, 2.0]),
    "a lag of the wrong length": lambda i: i.delta([1.0] * 5, lag=[1.0]),
    "a delta of an arm that is none": lambda i: i.delta({"drugs": 1.0}),
    "a delta that is no number": lambda i: i.delta({"drug": "much"}),
    "a switch that is none": lambda i: i.delta({"drug": 1.0}, after_event=1),
    "an array of the wrong length": lambda i: i.analyse("change ~ arm", delta=np.ones(3)),
    "a delta frame with rows twice": lambda i: i.analyse("change ~ arm", delta=pd.concat([i.delta({"drug": 1.0})] * 2)),
    "an analysis without the arm": lambda i: i.analyse("change ~ base"),
    "an analysis with bars": lambda i: i.analyse("change ~ arm + (1 | id)"),
    "unknown weights": lambda i: i.analyse("change ~ arm", weights="ems"),
    "an unknown control": lambda i: i.analyse("change ~ arm", control="sham"),
    "a column that is none": lambda i: i.analyse("change ~ arm + sex"),
    "a function that returns nothing": lambda i: i.analyse(lambda frame: None),
    "a function that fails": lambda i: i.analyse(lambda frame: 1 / 0),
    "a function that returns no estimate": lambda i: i.analyse(lambda frame: {"mean": (np.nan, 1.0)}),
    "random imputations without standard errors": lambda i: given(i).analyse(lambda frame: {"mean": frame["change"].mean()}),
    "standard errors below 0": lambda i: given(i).analyse(lambda frame: {"mean": (1.0, -1.0)}),
    "degrees of freedom of 0": lambda i: given(i).analyse(lambda frame: {"mean": (1.0, 1.0, 0.0)}),
    "an analysis of another column": lambda i: i.analyse("base ~ arm"),
    "an analysis of an expression": lambda i: i.analyse("exp(change) ~ arm"),
    "an analysis with an offset": lambda i: i.analyse("change ~ arm + offset(base)"),
    "an MMRM of another column": lambda i: i.analyse("base ~ arm * C(week)", residual="us(week | id)"),
    "an unknown alternative": lambda i: i.analyse("change ~ arm").pool(alternative="both"),
    "a level beyond 1": lambda i: i.analyse("change ~ arm").pool(conf_level=95),
    "an unknown rule of df": lambda i: given(i).analyse("change ~ arm").pool(df="br"),
    "a grid of words": lambda i: i.tipping(["a"], "change ~ arm"),
    "a grid of three arms": lambda i: i.tipping({"drug": [1], "placebo": [1], "sham": [1]}, "change ~ arm"),
    "arms that are none": lambda i: i.tipping([1], "change ~ arm", arms=len),
    "an arm in place of a list": lambda i: i.tipping([1], "change ~ arm", arms="drugs"),
    "an unknown visit": lambda i: i.tipping([1], "change ~ arm", visit=9),
    "a data set that is none": lambda i: i.data(1000),
    "one frame": lambda i: blm.imputations([i.data(0)], outcome="change", visit="week", subject="id", treatment="arm"),
    "frames of other subjects": lambda i: blm.imputations(
        [i.data(0), i.data(1)], outcome="change", visit="week", subject="id", treatment="arm"
    ),
    "frames that are not complete": lambda i: blm.imputations(
        [i.layout.frame] * 2, outcome="change", visit="week", subject="id", treatment="arm"
    ),
    "strategies that change the fit": lambda i: i.under("MAR"),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_imputations_refuse(what: str, imp: blm.Imputations) -> None:
    with pytest.raises(BayesLMMError) as caught:
        ASKED[what](imp)
    assert caught.value.what and caught.value.where and caught.value.remedy


def test_a_refit_that_fails_is_counted_and_named_and_the_rest_is_kept() -> None:
    """Without one subject a level of a covariate is gone, and the model has no unique coefficients."""
    rng = np.random.default_rng(3)
    N = 24
    data = pd.DataFrame({"id": np.repeat(np.arange(N), 3), "visit": np.tile([1, 2, 3], N), "arm": np.repeat(["a", "b"] * (N // 2), 3)})
    data["site"] = np.where(data["id"] == 5, "rare", "common")
    data["y"] = rng.normal(size=3 * N) + np.repeat(rng.normal(size=N), 3)
    data.loc[[10, 11, 40], "y"] = np.nan
    with pytest.warns(blm.errors.BayesLMMWarning, match="without 5"):
        imp = blm.impute(blm.LMM("y ~ C(visit) * arm + site", data, residual="us(visit | id)"), treatment="arm")
    assert imp.failed == ("without 5",)
    assert imp.size == N
    assert np.isfinite(imp.analyse("y ~ arm").pool()["std_error"]).all()


@pytest.mark.parametrize("events", [np.array("w1"), np.array(3), 3, "w1", object()], ids=lambda e: type(e).__name__)
def test_events_that_are_no_table_are_refused(events: Any, model: blm.LMM) -> None:
    with pytest.raises(DataError, match="frame"):
        blm.impute(model, treatment="arm", events=events)
