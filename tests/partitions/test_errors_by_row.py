"""Errors that depend on more of a row than its visit, of rows read in parts or handed out by a table: the fit on the rows in memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, DataError
from tests.partitions.test_structured_errors import sorted_parts, trial, whole_subjects
from tests.results.without_rows import equal

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

FUNCTIONS = (
    "ident(arm)",
    "ident(visit)",
    "ident(visit | arm)",
    "power(base)",
    "exp(age)",
    "exp(age | arm)",
    "const_power(k1)",
    "ident(arm) * power(base)",
    "exp(age) * power(k1)",
    "power(fitted)",
)
RESIDUALS = (None, None, "ar1(k | id)", "cs(visit | id)", "us(visit | arm / id)", "sp_exp(k | id)")


def rows_of(seed: int) -> pd.DataFrame:
    """The trial, with covariates and weights."""
    rows, rng = trial(seed, subjects=40), np.random.default_rng(seed)
    age = (rng.normal(size=200) * 10.0 ** rng.integers(-2, 3))[rows["id"] % 200]
    return rows.assign(age=age, k1=1.0 + rows["k"], w=rng.uniform(0.5, 2.0, len(rows)))


def draw(seed: int) -> tuple[str, pd.DataFrame, list[pd.DataFrame], dict[str, Any]]:
    """A formula, rows, parts and the options of a model whose rows count one by one."""
    rng = np.random.default_rng(seed)
    rows = rows_of(seed)
    variance = str(rng.choice(FUNCTIONS)) if rng.random() < 0.7 else None
    residual = rng.choice(np.array(RESIDUALS, dtype=object))
    weights = "w" if rng.random() < 0.3 else None
    formula = str(rng.choice(["y ~ base + arm * C(k)", "y ~ arm + I(base ** 2)", "y ~ base + offset(k)", "y ~ 0 + arm:base + C(k)"]))
    random = str(rng.choice(["", "", " + (1 | id)", " + (k | id)", " + (1 | site)"]))
    if residual is not None and "id" in random:  # the errors of a subject say it all: an optimum without a place
        random = ""
    parts = (sorted_parts if rng.random() < 0.5 else whole_subjects)(rows, rng)
    return formula + random, rows, parts, {"variance": variance, "residual": residual, "weights": weights}


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 30))])
def test_rows_in_parts_and_of_a_table_are_the_rows_in_memory(seed: int) -> None:
    formula, rows, parts, options = draw(seed)
    made = (lambda: blm.from_partitions(formula, parts, **options), lambda: blm.from_table(formula, duckdb.from_df(rows), **options))
    method: Any = ("REML", "ML")[seed % 2]
    try:
        whole = blm.LMM(formula, rows, **options)
        one = whole.fit(method)
    except BayesLMMError as refused:
        for make in made:
            with pytest.raises(type(refused)):
                make().fit(method)
        return
    for make in made:
        model = make()
        theta = whole.problem.theta(0.2 * np.random.default_rng(seed).normal(size=whole.problem.size) + whole.problem.start)
        assert model.criterion(theta, method) == pytest.approx(whole.criterion(theta, method), rel=1e-10)
        other = model.fit(method)
        assert (one.nobs, one.df_model, one.model.n_dropped) == (other.nobs, other.df_model, other.model.n_dropped)
        assert other.criterion == pytest.approx(one.criterion, rel=1e-10)
        errors = np.sqrt(np.diagonal(one.vcov.to_numpy()))
        # a search ends where the criterion tells points apart no longer, and rows in another order round it differently
        assert np.all(np.abs(one.fixef - other.fixef) <= 1e-6 * errors)
        assert {name: check.verdict for name, check in one.checks.items()} == {name: check.verdict for name, check in other.checks.items()}


@cache
def pair() -> tuple[blm.Fit, blm.Fit]:
    rows = rows_of(3)
    parts = sorted_parts(rows, np.random.default_rng(0))
    options: dict[str, Any] = {"residual": "ar1(k | id)", "variance": "ident(arm)", "weights": "w"}
    return blm.LMM("y ~ base + arm * k", rows, **options).fit(), blm.from_partitions("y ~ base + arm * k", parts, **options).fit()


VERBS: dict[str, Any] = {
    "tidy": lambda f: [f.tidy("all", conf_int=True), f.tidy(df="kenward-roger")],
    "anova": lambda f: f.anova(3),
    "emmeans": lambda f: f.emmeans("arm").frame,
    "predict": lambda f: f.predict(rows_of(3).dropna().head(5), level="population", interval="prediction"),
    "bootstrap": lambda f: f.bootstrap(3, seed=1).frame,
    "sample": lambda f: f.model.sample(draws=200, seed=1).summary(),
    "update": lambda f: f.update(". ~ . - base").fixef,
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_answers_as_of_the_fit_in_memory(verb: str) -> None:
    one, other = pair()
    equal(VERBS[verb](one), VERBS[verb](other))


def test_a_saved_fit_is_opened_equal_to_the_bit(tmp_path: Path) -> None:
    fit = pair()[1]
    fit.save(tmp_path / "fit")
    again = blm.load(tmp_path / "fit")
    assert isinstance(again, blm.Fit)
    assert again.criterion == fit.criterion
    assert again.fixef.equals(fit.fixef)


def test_what_is_wrong_with_a_part_names_it() -> None:
    rows = rows_of(3)
    with pytest.raises(DataError, match="age") as caught:
        blm.from_partitions("y ~ base", [rows, rows.drop(columns="age")], variance="exp(age)")
    assert "partition 2" in caught.value.where
