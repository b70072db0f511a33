"""Every verb of a fit, asked of one that was read in parts: what the fit in memory says, or a refusal with its reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import InferenceError, SpecificationError
from tests.laws.designs import frame
from tests.partitions.test_partitions import divided

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "interaction": ("y ~ x * f + (x | subject)", {}),
    "weights": ("y ~ x + f + two + (1 | subject)", {"weights": "w", "offset": "z"}),
    "crossed": ("y ~ I(x + 1e4) + f * two + (1 | subject) + (1 | item)", {"contrasts": {"f": "sum"}}),
    "expressions": ("y ~ log(w) * f + I(x ** 2) + (0 + f | item)", {}),
    "covariate in one product": ("y ~ f:x + f + (1 | subject)", {}),
    "aliased": ("y ~ x + f + g + (1 | subject)", {}),
}


def rows() -> pd.DataFrame:
    made = frame(3, 240).dropna()
    made["two"] = np.where(np.arange(len(made)) % 3, 1.0, -1.0)
    made["g"] = made["f"].astype(str).replace({"a": "low", "b": "high", "c": "high"})
    return made


@cache
def pair(name: str) -> tuple[blm.Fit, blm.Fit]:
    formula, options = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return blm.LMM(formula, rows(), **options).fit(), blm.from_partitions(formula, divided(rows(), 0), **options).fit()


def grouping(fit: blm.Fit) -> str:
    return next(iter(fit.model.groups))


EQUAL: dict[str, Callable[[blm.Fit], Any]] = {
    "fixef": lambda f: f.fixef,
    "vcov": lambda f: f.vcov,
    "sigma": lambda f: f.sigma,
    "varcorr": lambda f: f.varcorr,
    "criterion": lambda f: f.criterion,
    "loglik": lambda f: f.loglik,
    "aic": lambda f: f.aic,
    "bic": lambda f: f.bic,
    "nobs": lambda f: f.nobs,
    "df_model": lambda f: f.df_model,
    "glance": lambda f: f.glance(),
    "tidy": lambda f: f.tidy("all", conf_int=True),
    "tidy by Kenward-Roger": lambda f: f.tidy(df="kenward-roger"),
    "tidy by residual df": lambda f: f.tidy(df="residual"),
    "covariance": lambda f: f.covariance("kenward-roger"),
    "contrast": lambda f: f.contrast(np.eye(len(f.fixef))[1:2]).frame,
    "anova 1": lambda f: f.anova(1),
    "anova 2": lambda f: f.anova(2),
    "anova 3": lambda f: f.anova(3),
    "anova by Kenward-Roger": lambda f: f.anova(df="kenward-roger"),
    "emmeans": lambda f: f.emmeans("f").frame,
    "emmeans pairs": lambda f: f.emmeans("f").pairs(),
    "emtrends": lambda f: f.emtrends("w" if "log(w)" in f.formula else "x" if "x" in f.formula else "two", "f").frame,
    "confint": lambda f: f.confint(),
    "r2": lambda f: f.r2(),
    "icc": lambda f: f.icc(),
    "ranef": lambda f: f.ranef()[grouping(f)],
    "ranef with sds": lambda f: f.ranef(se=True)[grouping(f)][1],
    "coef": lambda f: f.coef()[grouping(f)],
    "predict": lambda f: f.predict(rows(), interval="prediction"),
    "predict the mean": lambda f: f.predict(rows(), interval="confidence", level="population"),
    "augment other data": lambda f: f.augment(rows()),
    "MAP": lambda f: f.model.fit("MAP").fixef,
    "priors": lambda f: f.model.fit("MAP").criterion,
    "power": lambda f: f.power(next(name for name in f.fixef.dropna().index if name != "Intercept"), method="analytic").frame,
}


def equal(one: Any, other: Any) -> None:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, rtol=1e-5, atol=1e-7)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(one, other, rtol=1e-5, atol=1e-7)
    else:
        assert one == pytest.approx(other, rel=1e-7, nan_ok=True)


@pytest.mark.parametrize("verb", EQUAL)
@pytest.mark.parametrize("name", MODELS)
def test_a_fit_of_parts_says_what_the_fit_in_memory_says(name: str, verb: str) -> None:
    whole, parts = pair(name)
    equal(EQUAL[verb](whole), EQUAL[verb](parts))


@pytest.mark.parametrize("weights", ["equal", "proportional", "outer", "cells", "flat"])
@pytest.mark.parametrize("name", ["interaction", "weights", "crossed"])
def test_means_are_averaged_by_the_same_counts(name: str, weights: Any) -> None:
    whole, parts = pair(name)
    equal(whole.emmeans("f", weights=weights).frame, parts.emmeans("f", weights=weights).frame)


def test_counts_by_a_covariate_of_many_values_are_refused() -> None:
    fit = pair("interaction")[1]
    with pytest.raises(InferenceError, match="more than two values"):
        fit.emmeans("f", at={"x": [0.0, 1.0]}, weights="cells")


@pytest.mark.parametrize("name", ["interaction", "weights"])
def test_a_profile_is_that_of_the_fit_in_memory(name: str) -> None:
    whole, parts = pair(name)
    equal(whole.confint("profile"), parts.confint("profile"))


@pytest.mark.parametrize("name", ["interaction", "weights", "crossed"])
def test_a_posterior_is_that_of_the_fit_in_memory(name: str) -> None:
    whole, parts = (fit.model.sample(draws=500, chains=2, seed=1) for fit in pair(name))
    for one, other in ((whole.tidy(), parts.tidy()), (whole.r2(), parts.r2()), (whole.emmeans("f").frame, parts.emmeans("f").frame)):
        sd = one["std_error"].to_numpy()
        # two sets of a thousand draws
        assert np.all(np.abs(one["estimate"].to_numpy() - other["estimate"].to_numpy()) < 0.25 * sd)
        assert other["std_error"].to_numpy() == pytest.approx(sd, rel=0.25)
    assert set(parts.tree.children) == {"posterior", "sample_stats", "log_prior"}


NEEDS_ROWS: dict[str, Callable[[blm.Fit], Any]] = {
    "tidy by between-within": lambda f: f.tidy(df="between-within"),
    "tidy by containment": lambda f: f.tidy(df="containment"),
    "robust covariance": lambda f: f.covariance("CR2"),
    "residuals": lambda f: f.residuals(),
    "fitted": lambda f: f.fitted(),
    "augment": lambda f: f.augment(),
    "predict its own rows": lambda f: f.predict(),
    "predict observed": lambda f: f.predict(rows().assign(subject="new"), observed=True),
    "simulate": lambda f: f.simulate(),
    "refit": lambda f: f.refit(np.zeros(f.nobs)),
    "with_params": lambda f: f.with_params(sigma=1.0),
    "power by simulation": lambda f: f.power("x", nsim=10),
    "check_inference": lambda f: f.check_inference(10),
    "influence": lambda f: f.influence(),
    "case bootstrap": lambda f: f.bootstrap(3, kind="case"),
    "rows": lambda f: f.rows,
    "marginal_cov": lambda f: f.marginal_cov(f.ranef()["subject"].index[0]),
    "to_sas": lambda f: f.model.to_sas(),
    "to_pymc": lambda f: f.model.to_pymc("hierarchical"),
    "prior_predictive": lambda f: f.model.prior_predictive(5),
    "loo": lambda f: f.model.sample(100, seed=1).loo(),
    "posterior_predictive": lambda f: f.model.sample(100, seed=1).posterior_predictive(),
}


@pytest.mark.parametrize("verb", NEEDS_ROWS)
def test_what_needs_rows_is_refused_by_name(verb: str) -> None:
    with pytest.raises(InferenceError) as caught:
        NEEDS_ROWS[verb](pair("interaction")[1])
    assert "added up" in caught.value.what
    assert caught.value.remedy


def test_fits_of_parts_are_compared_by_their_likelihoods() -> None:
    whole, parts = pair("interaction")
    smaller = [fit.update(". ~ . - x:f") for fit in (whole, parts)]
    equal(blm.lrt(smaller[0], whole), blm.lrt(smaller[1], parts))
    plain = [fit.update(". ~ . - (x | subject) + (1 | subject)") for fit in (whole, parts)]
    equal(blm.lrt(plain[0], whole), blm.lrt(plain[1], parts))
    other = blm.from_partitions(MODELS["interaction"][0], divided(rows().assign(y=lambda d: d["y"] + 1.0), 0)).fit()
    with pytest.raises(InferenceError, match="different data"):
        blm.lrt(smaller[1], other)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_fit_of_parts_is_opened_equal_to_the_bit(name: str, tmp_path: Path) -> None:
    fit = pair(name)[1]
    fit.save(tmp_path / "parts.fit")
    again = blm.load(tmp_path / "parts.fit")
    assert isinstance(again, blm.Fit)
    assert again.criterion == fit.criterion
    assert again.fixef.equals(fit.fixef)
    for verb in ("tidy", "emmeans", "anova 2", "ranef", "predict", "r2"):
        equal(EQUAL[verb](fit), EQUAL[verb](again))
    with pytest.raises(SpecificationError, match="not kept"):
        again.update(". ~ . + 1")


def test_a_saved_posterior_of_parts_is_opened_again(tmp_path: Path) -> None:
    post = pair("crossed")[1].model.sample(draws=50, chains=2, seed=1)
    post.save(tmp_path / "parts.post")
    again = blm.load(tmp_path / "parts.post")
    equal(post.tidy(), again.tidy())
