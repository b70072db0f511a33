"""Structured errors of rows read in parts: subjects added up by pattern of visits, equal to the fit on the rows in memory."""

from __future__ import annotations

import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError, IdentifiabilityError, InferenceError
from tests.results.without_rows import Calls, check_every_member, equal

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

VISITS: dict[str, Any] = {
    "text": lambda k: np.array(["base", "week 1", "week 2", "week 4"], dtype=object)[k],
    "factor": lambda k: pd.Categorical.from_codes(k + 1, ["never", "w1", "w2", "w3", "w4"], ordered=True),
    "number": lambda k: np.array([0, 1, 2, 5])[k],
    "fraction": lambda k: np.array([0.0, 0.5, 1.0, 1.5])[k],
}

STRUCTURES = ("us", "cs", "csh", "ar1", "ar1h", "toep", "ad", "diag", "id", "fa(1)")


def trial(seed: int, visits: str = "text", subjects: int = 90, missing: float = 0.2) -> pd.DataFrame:
    """Three arms, four visits, outcomes and whole rows missing, subjects in no order."""
    rng = np.random.default_rng(seed)
    k = np.tile(np.arange(4), subjects)
    who = np.repeat(rng.permutation(subjects), 4)
    d = pd.DataFrame({"id": who, "site": who % 3, "k": k, "visit": VISITS[visits](k)})
    d["arm"] = pd.Categorical(np.array(["placebo", "low", "high"])[who % 3], ["placebo", "low", "high"])
    d["base"] = 50.0 + 10.0 * rng.normal(size=subjects)[who]
    d["y"] = 0.4 * d["base"] + (who % 3) * k * 0.5 + rng.normal(size=subjects)[who] + (1.0 + 0.3 * k) * rng.normal(size=len(d))
    d.loc[rng.random(len(d)) < missing, "y"] = np.nan
    return d[rng.random(len(d)) > 0.05].reset_index(drop=True)


def sorted_parts(rows: pd.DataFrame, rng: np.random.Generator) -> list[pd.DataFrame]:
    """Rows in their order, cut anywhere, within subjects too; some parts are empty, some hold less than a subject."""
    cuts = np.sort(rng.integers(0, len(rows), 7))
    ends = [0, *cuts.tolist(), *(cuts[-1:] + 1).tolist(), len(rows)]
    return [rows.iloc[a:b] for a, b in pairwise(sorted(ends))]


def whole_subjects(rows: pd.DataFrame, rng: np.random.Generator) -> list[pd.DataFrame]:
    """Subjects in parts by lot, the rows of each part in the order of their visits."""
    names = rows["id"].unique()
    part = pd.Series(rng.integers(0, 4, len(names)), index=names)
    return [rows[rows["id"].map(part) == i].sort_values("k", kind="stable") for i in range(4)]


def draw(seed: int) -> tuple[str, pd.DataFrame, list[pd.DataFrame], str]:
    """A formula, rows, parts and a structure."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(VISITS)))
    rows, name = trial(seed, kind), str(rng.choice(STRUCTURES))
    if kind == "text" and name not in ("us", "cs", "csh", "diag", "id"):
        rows["visit"] = pd.Categorical(rows["visit"], ["base", "week 1", "week 2", "week 4"], ordered=True)
    visit = str(rng.choice(["visit", "visit", "1"])) if name != "us" else "visit"
    subject = str(rng.choice(["id", "id", "arm / id", "site:id"]))
    formula = str(rng.choice(["y ~ base + arm * C(visit)", "y ~ arm + I(base ** 2)", "y ~ base + offset(k)", "y ~ 0 + arm:base + C(k)"]))
    parts = (sorted_parts if rng.random() < 0.6 or visit == "1" else whole_subjects)(rows, rng)
    return formula, rows, parts, f"{name}({visit} | {subject})"


def near(one: Any, other: Any, relative: float) -> None:
    assert np.asarray(other, float) == pytest.approx(np.asarray(one, float), rel=relative, abs=relative, nan_ok=True)


@pytest.mark.parametrize("seed", range(24))
def test_subjects_in_parts_are_the_subjects_in_memory(seed: int) -> None:
    formula, rows, parts, residual = draw(seed)
    try:
        whole = blm.LMM(formula, rows, residual=residual)
    except BayesLMMError as refused:
        with pytest.raises(type(refused)):
            blm.from_partitions(formula, parts, residual=residual)
        return
    model = blm.from_partitions(formula, parts, residual=residual)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        theta = whole.problem.theta(0.2 * rng.normal(size=whole.problem.size) + whole.problem.start)
        for method in ("REML", "ML"):
            near(whole.criterion(theta, method), model.criterion(theta, method), 1e-12)
    near(whole.problem.start, model.problem.start, 1e-9)
    one, other = whole.fit(), model.fit()
    assert (one.nobs, one.df_model, one.model.n_dropped) == (other.nobs, other.df_model, other.model.n_dropped)
    assert (one.aic, one.bic) == pytest.approx((other.aic, other.bic), rel=1e-12)
    near(one.criterion, other.criterion, 1e-12)
    scale = one.fixef.abs() + np.sqrt(np.diagonal(one.vcov.to_numpy()))
    near(one.fixef / scale, other.fixef / scale, 1e-10)
    near(one.vcov, other.vcov, 1e-8)
    assert [note.name for note in whole.design.notes] == [note.name for note in model.design.notes]
    assert {name: check.verdict for name, check in one.checks.items()} == {name: check.verdict for name, check in other.checks.items()}


@cache
def pair(residual: str = "us(visit | id)") -> tuple[blm.Fit, blm.Fit]:
    rows = trial(1)
    parts = sorted_parts(rows, np.random.default_rng(0))
    formula = "y ~ base + arm * visit"
    return blm.LMM(formula, rows, residual=residual).fit(), blm.from_partitions(formula, parts, residual=residual).fit()


CALLS: Calls = {
    "contrast": lambda f, verb: verb("base = 0.1").frame,
    "contrast_rows": lambda f, verb: verb(trial(1).dropna().head(3)),
    "emmeans": lambda f, verb: [verb("arm").frame, verb("arm", by="visit").pairs(), verb("arm", weights="proportional").frame],
    "emtrends": lambda f, verb: verb("base", "arm").frame,
    "power": lambda f, verb: verb("base", method="analytic").frame,
    "refit": lambda f, verb: verb(np.zeros(f.nobs)).fixef,
    "marginal_cov": lambda f, verb: verb(3),
    "predict": lambda f, verb: [
        verb(trial(1).dropna().head(5).assign(id="new"), level=v, interval=i)
        for v in ("conditional", "population")
        for i in ("confidence", "prediction")
    ],
    "profile": lambda f, verb: verb(terms=["base"]).confint(),
    "update": lambda f, verb: verb(". ~ . - base").fixef,
}


@pytest.mark.parametrize("residual", ["us(visit | id)", "cs(visit | arm / id)"])
def test_every_member_answers_as_the_fit_in_memory_or_says_that_it_needs_the_rows(residual: str) -> None:
    check_every_member(*pair(residual), CALLS)


def test_who_was_in_the_fit_is_known_by_the_hash_of_a_label() -> None:
    fit, parts = pair()
    new = trial(1).dropna().head(4)
    with pytest.raises(InferenceError, match="not kept"):
        parts.predict(new)
    others = new.assign(id=10**6)
    equal(fit.predict(others, "conditional", "prediction"), parts.predict(others, "conditional", "prediction"))
    equal(fit.predict(new, "population", "confidence"), parts.predict(new, "population", "confidence"))


def test_a_saved_fit_is_opened_equal_to_the_bit(tmp_path: Path) -> None:
    fit = pair()[1]
    fit.save(tmp_path / "fit")
    again = blm.load(tmp_path / "fit")
    assert isinstance(again, blm.Fit)
    assert again.fixef.equals(fit.fixef)
    assert again.criterion == fit.criterion
    assert again.tidy(df="kenward-roger").equals(fit.tidy(df="kenward-roger"))
    assert again.checks.keys() == fit.checks.keys()
    assert again.bic == fit.bic
    with pytest.raises(InferenceError, match="not kept"):
        again.predict(trial(1).dropna().head(4))


@pytest.mark.parametrize("method", ["ML", "MAP"])
def test_other_estimates_and_the_posterior(method: Any) -> None:
    whole, parts = (one.model.fit(method) for one in pair())
    near(whole.fixef, parts.fixef, 1e-7)
    near(whole.criterion, parts.criterion, 1e-10)
    if method == "MAP":
        one, other = (fit.model.sample(draws=200, chains=2, seed=1).tidy() for fit in pair())
        sd = one["std_error"].to_numpy()
        assert np.all(np.abs(one["estimate"].to_numpy() - other["estimate"].to_numpy()) < 0.4 * sd)


def test_workers_and_files_of_one_subject_after_the_other(tmp_path: Path) -> None:
    rows = trial(5).sort_values(["id", "k"], kind="stable")
    rows.to_csv(tmp_path / "trial.csv", index=False)
    whole = blm.LMM("y ~ base + arm * visit", rows.assign(arm=rows["arm"].astype(str)), residual="us(visit | id)").fit()
    one = blm.from_partitions("y ~ base + arm * visit", tmp_path / "trial.csv", residual="us(visit | id)", rows=7).fit()
    near(whole.criterion, one.criterion, 1e-12)
    near(whole.fixef, one.fixef, 1e-8)


def test_a_subject_whose_rows_stand_apart_is_named() -> None:
    rows = trial(2)
    apart = [rows[rows["k"] < 2], rows[(rows["k"] >= 2) & (rows["id"] == 17)], rows[(rows["k"] >= 2) & (rows["id"] != 17)]]
    with pytest.raises(DataError, match=r"subject \S+ are not together") as caught:
        blm.from_partitions("y ~ base + arm * visit", apart, residual="us(visit | id)")
    assert "partitions 1" in caught.value.where
    assert "sort the rows by id" in caught.value.remedy
    alone = trial(2).query("id == 17")
    others = trial(2).query("id != 17")
    with pytest.raises(DataError, match="subject 17 are not together") as caught:
        blm.from_partitions("y ~ base + arm * visit", [alone.head(1), others, alone.tail(-1)], residual="us(visit | id)")
    assert caught.value.where == "partitions 1, 3"


def test_rows_at_one_visit_and_two_groups_are_refused_within_and_between_parts() -> None:
    rows = trial(2, missing=0.0).sort_values(["id", "k"], kind="stable")
    at = np.flatnonzero(rows["id"] == 17)[-1] + 1
    twice = pd.concat([rows.iloc[at - 1 : at], rows.iloc[at:]])
    for parts in ([rows.iloc[:at], twice], [pd.concat([rows.iloc[:at], twice])]):
        with pytest.raises(DataError, match=r"rows (of|share) subject 17"):
            blm.from_partitions("y ~ base + arm", parts, residual="us(visit | id)")
    other = rows.iloc[at - 1 :].copy()
    other.iloc[0, other.columns.get_loc("arm")] = "placebo" if other["arm"].iloc[0] != "placebo" else "low"
    for parts in ([rows.iloc[: at - 1], other], [pd.concat([rows.iloc[: at - 1], other])]):
        with pytest.raises(DataError, match="'arm' varies within subject 17"):
            blm.from_partitions("y ~ base", parts, residual="us(visit | arm / id)")


def test_too_few_subjects_are_refused_as_in_memory() -> None:
    few = trial(3, subjects=4, missing=0.0)
    for make in (blm.LMM("y ~ base", few, residual="us(visit | id)"), blm.from_partitions("y ~ base", [few], residual="us(visit | id)")):
        with pytest.raises(IdentifiabilityError):
            make.fit()
    rows = trial(4, missing=0.0)
    never = rows[~((rows["k"] == 3) & (rows["id"] % 2 == 0)) & ~((rows["k"] == 2) & (rows["id"] % 2 == 1))]
    for make in (
        blm.LMM("y ~ base", never, residual="us(visit | id)"),
        blm.from_partitions("y ~ base", [never], residual="us(visit | id)"),
    ):
        with pytest.raises(IdentifiabilityError, match="has both visits"):
            make.fit()


def test_a_note_of_few_complete_subjects_is_that_of_the_rows() -> None:
    rows = trial(6, missing=0.0)
    thin = rows[(rows["k"] < 3) | (rows["id"] < 4)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = blm.LMM("y ~ base", thin, residual="us(visit | id)", check="warn")
        parts = blm.from_partitions("y ~ base", [thin], residual="us(visit | id)", check="warn")
    notes = [{note.name: note.value for note in model.design.notes} for model in (whole, parts)]
    assert "few_complete_subjects" in notes[0]
    assert notes[0]["few_complete_subjects"] == notes[1]["few_complete_subjects"]


@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-5, 1e-8, 0.0])
@pytest.mark.parametrize("origin", [0.0, 1e6])
@pytest.mark.parametrize("where", ["everywhere", "elsewhere"])
def test_few_complete_subjects_of_nearly_collinear_columns_are_noted_alike(apart: float, origin: float, where: str) -> None:
    """A second covariate moves away from the first by `apart`, on all rows or only on those of subjects who lack visits."""
    differ = set()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rows = trial(seed, missing=0.0)
        thin = rows[(rows["k"] < 3) | (rows["id"] < 2 + 2 * seed)].copy()
        moves = apart * rng.standard_normal(len(thin)) * (1.0 if where == "everywhere" else thin["id"] > 10)
        thin["near"] = origin + thin["base"] + moves
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = blm.LMM("y ~ base + near", thin, residual="us(visit | id)", check="warn")
            parts = blm.from_partitions("y ~ base + near", sorted_parts(thin, rng), residual="us(visit | id)", check="warn")
        notes = [{note.name: note.value for note in model.design.notes}.get("few_complete_subjects") for model in (whole, parts)]
        assert notes[0] == notes[1]
        differ.add(notes[0] is None)
    assert differ == {True, False}


def test_a_fit_saved_without_its_rows_is_fitted_again(tmp_path: Path) -> None:
    fit = pair()[0]
    fit.save(tmp_path / "fit", rows=False)
    again = blm.load(tmp_path / "fit")
    assert isinstance(again, blm.Fit)
    for method in ("REML", "ML"):
        near(fit.model.fit(method).criterion, again.model.fit(method).criterion, 1e-12)


def test_a_dask_frame_of_subjects_cut_anywhere() -> None:
    dask, frames = pytest.importorskip("dask"), pytest.importorskip("dask.dataframe")
    parts = [part for part in sorted_parts(trial(1), np.random.default_rng(0)) if len(part)]
    with dask.config.set(scheduler="synchronous"):
        together = frames.concat([frames.from_pandas(part, npartitions=1) for part in parts])
        other = blm.from_partitions("y ~ base + arm * visit", together, residual="us(visit | id)").fit()
    near(pair()[0].criterion, other.criterion, 1e-12)
