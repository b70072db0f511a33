"""A fit saved without its rows answers every verb as the whole fit does, or says that it needs the rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError, SpecificationError
from tests.laws.designs import frame
from tests.results.without_rows import Calls, check_every_member, equal

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")


def rows() -> pd.DataFrame:
    made = frame(3, 240).dropna()
    made["id"] = made["subject"].astype(str)
    made["v"] = pd.Categorical(made.groupby("id").cumcount() % 8)
    made["pair"] = [f"{who}/{k // 8}" for who, k in zip(made["id"], made.groupby("id").cumcount(), strict=True)]
    return made


MODELS: dict[str, tuple[str, Callable[[pd.DataFrame], dict[str, Any]]]] = {
    "interaction": ("y ~ x * f + (x | subject)", lambda d: {}),
    "arrays beside": ("y ~ x + f + (1 | subject)", lambda d: {"weights": d["w"].to_numpy(), "offset": d["z"].to_numpy()}),
    "columns beside": ("y ~ x + f + (1 | id)", lambda d: {"weights": "w", "offset": "z"}),
    "crossed, contrasts": ("y ~ x * f + (1 | subject) + (1 | item)", lambda d: {"contrasts": {"f": "sum"}}),
    "polynomials": ("y ~ poly(x, 2) * f + (poly(x, 2) || subject)", lambda d: {}),
    "splines": ("scale(y) ~ bs(x, df=4) + cr(z, df=3, constraints='center') + f + center(x) + (1 | subject)", lambda d: {}),
    "serial effects": ("y ~ x + f + ar1(0 + f | subject)", lambda d: {}),
    "related levels": ("y ~ x + f + (1 | item)", lambda d: {"relationship": {"item": _related(d["item"])}}),
    "structured errors": ("y ~ x + f", lambda d: {"residual": "toep(v | pair)"}),
    "errors in the order of rows": ("y ~ poly(x, 2) + f", lambda d: {"residual": "ar1(1 | pair)", "offset": d["z"].to_numpy()}),
    "no random effects": ("y ~ x * f", lambda d: {"sigma": 1.5}),
}


def _related(levels: pd.Series[Any]) -> pd.DataFrame:
    names = sorted(levels.unique())
    return pd.DataFrame(np.eye(len(names)) + 0.3, index=names, columns=names)


@cache
def pair(name: str, method: Any = "REML") -> tuple[blm.Fit, blm.Fit]:
    """A fit, and what a file without its rows gives back."""
    formula, options = MODELS[name]
    data = rows()
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        fit = blm.LMM(formula, data, **options(data)).fit(method)
        fit.save(f"{folder}/fit", rows=False)
        again = blm.load(f"{folder}/fit")
    assert isinstance(again, blm.Fit)
    return fit, again


def new(fit: blm.Fit) -> dict[str, Any]:
    """Rows to predict, and the offset beside them where the model's was."""
    return {"newdata": rows().head(7)} | ({"offset": np.arange(7.0)} if fit.model.given_offset else {})


def slope(fit: blm.Fit) -> str:
    return next(name for name in fit.fixef.index if name != "Intercept")


CALLS: Calls = {
    "contrast": lambda f, verb: verb(f"{slope(f)} = 0.1").frame,
    "contrast_rows": lambda f, verb: verb(rows().head(3)),
    "emmeans": lambda f, verb: [verb("f").frame, verb("f", at={"x": 0.5}).pairs(), verb("f", weights="proportional").frame],
    "emtrends": lambda f, verb: verb("x", "f").frame,
    "marginal_cov": lambda f, verb: verb(rows()["subject"].iloc[0]),
    "power": lambda f, verb: verb(slope(f), method="analytic").frame,
    "refit": lambda f, verb: verb(rows()["z"].to_numpy()).fixef,
    "predict": lambda f, verb: [
        verb(**new(f), level=v, interval=i) for v in ("conditional", "population") for i in ("confidence", "prediction")
    ],
    "profile": lambda f, verb: verb(terms=[slope(f)]).confint(),
}


# the profile of a Toeplitz structure takes seconds, twice
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "structured errors" else name for name in MODELS])
def test_every_member_answers_as_the_whole_fit_or_says_that_it_needs_the_rows(name: str) -> None:
    check_every_member(*pair(name), CALLS)


def test_structured_errors_are_kept_as_sums_by_pattern_of_visits() -> None:
    fit, again = pair("structured errors")
    others = rows().head(9).assign(pair="someone else")
    for level in ("conditional", "population"):
        for interval in ("confidence", "prediction"):
            equal(fit.predict(others, level, interval), again.predict(others, level, interval))
    with pytest.raises(InferenceError, match="not kept"):
        again.predict(rows().head(3))
    equal(fit.R, again.R)
    equal(fit.tidy(df="kenward-roger", information="observed"), again.tidy(df="kenward-roger", information="observed"))


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x", {"variance": "ident(f)"}),
        ("y ~ x + (1 | subject)", {"residual": "ar1(v | pair)"}),
        ("y ~ x", {"residual": "sp_exp(x, z | pair)"}),
        ("y ~ x", {"residual": "ar1(v | pair)", "weights": "w"}),
    ],
)
def test_errors_that_no_two_subjects_share_keep_their_rows(formula: str, options: dict[str, Any], tmp_path: Path) -> None:
    fit = blm.LMM(formula, rows(), **options).fit()
    with pytest.raises(SpecificationError, match="needs every row") as caught:
        fit.save(tmp_path / "fit", rows=False)
    assert caught.value.where
    assert "with its rows" in caught.value.remedy
    assert not (tmp_path / "fit").exists()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "no random effects"])
@pytest.mark.parametrize("vcov", ["CR0", "CR2"])
def test_a_robust_covariance_needs_the_rows_of_its_clusters(name: str, vcov: Any) -> None:
    _, again = pair(name)
    for ask in (lambda one: one.covariance(vcov), lambda one: one.emmeans("f", vcov=vcov), lambda one: one.anova(vcov=vcov)):
        with pytest.raises(InferenceError, match="not kept"):
            ask(again)


@pytest.mark.parametrize("method", ["ML", "MAP"])
def test_other_estimates_come_back(method: str) -> None:
    fit, again = pair("polynomials", method)
    assert again.method == method
    equal(fit.tidy("all"), again.tidy("all"))


def test_a_fit_without_rows_is_saved_again_and_opened_equal_to_the_bit(tmp_path: Path) -> None:
    again = pair("splines")[1]
    again.save(tmp_path / "again")
    third = blm.load(tmp_path / "again")
    assert isinstance(third, blm.Fit)
    assert third.fixef.equals(again.fixef)
    assert third.predict(rows()).equals(again.predict(rows()))
    with pytest.raises(SpecificationError, match="not kept"):
        third.update(". ~ . - f")


def test_no_outcome_stands_in_the_file(tmp_path: Path) -> None:
    data = rows()
    fit = blm.LMM("log(y) ~ x + (1 | subject)", data.assign(y=1234.5 + np.arange(len(data)))).fit()
    fit.save(tmp_path / "fit", rows=False)
    again = blm.load(tmp_path / "fit")
    shown = again.design.summed.survey.roster().table.frame
    assert shown["y"].nunique() == 1


def test_the_size_is_that_of_levels_and_not_of_rows(tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    sizes = []
    for n in (5_000, 50_000):
        d = pd.DataFrame({"g": np.arange(n) % 50, "x": r.normal(size=n), "f": r.choice(list("abc"), n)})
        d["y"] = d["x"] + r.normal(size=50)[d["g"]] + r.normal(size=n)
        fit = blm.LMM("y ~ x * f + (x | g)", d).fit()
        fit.save(tmp_path / "fit", rows=False)
        sizes.append((tmp_path / "fit").stat().st_size)
    assert max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize("name", ["interaction", "polynomials", "arrays beside", "structured errors"])
def test_a_posterior_comes_back_without_its_rows(name: str, tmp_path: Path) -> None:
    fit = pair(name)[0]
    post = fit.model.sample(draws=40, chains=2, seed=1)
    post.save(tmp_path / "post", rows=False)
    again = blm.load(tmp_path / "post")
    equal(post.tidy("all"), again.tidy("all"))
    equal(post.emmeans("f").frame, again.emmeans("f").frame)
    equal(post.predict(**new(fit), level="population"), again.predict(**new(fit), level="population"))
    if fit.design.residual is None:
        equal(post.r2(), again.r2())
    with pytest.raises(InferenceError, match="not kept"):
        again.loo()


def test_rows_is_a_switch(fit: blm.Fit, tmp_path: Path) -> None:
    with pytest.raises(SpecificationError):
        fit.save(tmp_path / "fit", rows="False")  # type: ignore[arg-type]
