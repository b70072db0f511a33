"""Fits at assumed parameters: no answer depends on the outcome that stands in for one, and what needs an outcome says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, InferenceError, SpecificationError
from bayeslmm.study_design import assumed


def skeleton(N: int = 16) -> pd.DataFrame:
    i = np.repeat(np.arange(N), 3)
    return pd.DataFrame(
        {"id": i, "t": np.tile([0.0, 1.0, 2.0], N), "arm": np.where(i % 2 == 0, "a", "b"), "sex": np.where(i % 4 < 2, "f", "m")}
    )


R = np.array([[2.0, 1.0, 0.6], [1.0, 1.5, 0.8], [0.6, 0.8, 1.2]])
PLANS: dict[str, Callable[[], blm.Fit]] = {
    "slopes": lambda: blm.assume(
        "y ~ t * arm + arm:sex + (t | id)", skeleton(), alpha=[1, 2, 3, 0.5, 0.2, 0.1], sd=[1.0, 0.4], corr=0.3, sigma=0.7
    ),
    "visits": lambda: blm.assume(
        "y ~ C(t) * arm + arm:sex",
        skeleton(),
        alpha=[1, 0.5, 0.2, 3, 1, 0.1, 0.2, 0.4],
        residual="us(t | arm / id)",
        R={"a": R, "b": 2 * R},
    ),
    "by ML": lambda: blm.assume(
        "y ~ t * arm + arm:sex + (1 | id)", skeleton(), alpha=[1, 2, 3, 0.5, 0.2, 0.1], sd=1.0, sigma=0.7, method="ML"
    ),
}
WITHIN = {"design", "model", "problem", "point", "estimate", "elapsed", "counts"}
"""What a fit is made of, not what it answers."""

ASKED: dict[str, list[dict[str, Any]]] = {
    "anova": [{}, {"type": 2}, {"df": "asymptotic"}],
    "bootstrap": [{"n": 4, "seed": 1}, {"n": 4, "seed": 1, "kind": "case"}],
    "check_inference": [{"n": 6, "seed": 1}],
    "confint": [{}, {"method": "profile"}, {"method": "bootstrap", "n": 8, "seed": 1, "interval": "bca"}],
    "contrast": [{"L": "arm[T.b]"}, {"L": "arm[T.b]", "vcov": "CR2"}],
    "contrast_rows": [{"newdata": skeleton(4)}],
    "emmeans": [{"specs": "arm"}],
    "emtrends": [{"var": "t", "specs": "arm"}],
    "expanded": [{"values": np.ones(6)}],
    "fitted": [{}, {"level": "population"}],
    "marginal_cov": [{"level": 3}],
    "power": [{"test": "arm[T.b]", "method": "analytic"}, {"test": "arm[T.b]", "nsim": 6, "seed": 1}],
    "predict": [{}, {"level": "population"}, {"newdata": skeleton(20)}, {"interval": "prediction"}],
    "ratio": [{"numerator": "id"}],
    "refit": [{"y": np.sin(np.arange(48.0))}],
    "save": [{"path": "plan.blm"}],
    "simulate": [{"seed": 1}],
    "tidy": [{}, {"information": "observed"}, {"vcov": "CR0"}],
    "with_params": [{"alpha": {"arm[T.b]": 1.0}}],
}
DRAWN: dict[str, dict[str, Any]] = {
    "bootstrap": {"n": 6, "seed": 1},
    "differences": {"by": "arm"},
    "effects": {"term": "arm"},
    "emmeans": {"specs": "arm"},
    "influence": {"group": "id"},
    "lines": {"x": "t"},
    "profiles": {"by": "arm"},
    "subgroups": {"treatment": "arm"},
}
REFUSED = {"augment", "coef", "influence", "profile", "ranef", "ranova", "report", "residuals", "save", "standardized", "update"}
FIGURES_REFUSED = {"acf", "fitted", "influence", "leverage", "lines", "profile", "profiles", "qq", "ranef", "residuals", "variogram"}


def numbers(value: Any) -> Any:
    """All numbers of an answer, in order."""
    value = getattr(value, "frame", value)
    if isinstance(value, pd.DataFrame):
        return value.select_dtypes("number").to_numpy(float).ravel()
    if isinstance(value, dict | tuple | list):
        parts = [numbers(part) for part in (value.values() if isinstance(value, dict) else value)]
        return np.concatenate([np.zeros(0), *parts])
    if isinstance(value, blm.Fit):
        return np.append(value.fixef.to_numpy(), value.vcov.to_numpy())
    try:
        return np.asarray(value, float).ravel()
    except (TypeError, ValueError):
        return np.zeros(0)


def lines_of(axes: Any) -> Any:
    return [np.asarray(line.get_xydata(), float) for ax in np.ravel(np.asarray(axes, object)) for line in ax.get_lines()]


def answer(of: Any, name: str, options: dict[str, Any] | None, read: Callable[[Any], Any] = numbers) -> Any:
    try:
        found = getattr(of, name)
        return read(found if options is None else found(**options))
    except BayesLMMError as error:
        return f"{type(error).__name__}: {error.what}"


def pair(name: str, monkeypatch: pytest.MonkeyPatch) -> list[blm.Fit]:
    found = []
    for seed in (1, 2):
        monkeypatch.setattr(assumed, "SEED", seed)
        found.append(PLANS[name]())
    return found


def same(a: Any, b: Any) -> None:
    if isinstance(a, str) or isinstance(b, str):
        assert a == b
        return
    for one, other in zip(a if isinstance(a, list) else [a], b if isinstance(b, list) else [b], strict=True):
        size = float(np.max(np.abs(np.asarray(one)[np.isfinite(one)]), initial=0.0))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * size)


@pytest.mark.parametrize("name", PLANS)
def test_no_answer_depends_on_the_outcome_that_stands_in(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair(name, monkeypatch)
    for verb in (verb for verb in dir(blm.Fit) if not verb.startswith("_") and verb not in WITHIN | {"plot"}):
        if not callable(getattr(type(one), verb)):
            same(*(answer(fit, verb, None) for fit in (one, other)))
            continue
        for options in ASKED.get(verb, [{}]):
            found = [answer(fit, verb, options) for fit in (one, other)]
            same(*found)
            if verb in REFUSED:
                assert found[0].startswith(f"InferenceError: {verb} needs an outcome")


def test_no_figure_shows_the_outcome_that_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair("slopes", monkeypatch)
    for name in (name for name in dir(one.plot) if not name.startswith("_")):
        found = [answer(fit.plot, name, DRAWN.get(name, {}), lines_of) for fit in (one, other)]
        same(*found)
        refused = isinstance(found[0], str) and f"plot.{name} needs an outcome" in found[0]
        assert refused == (name in FIGURES_REFUSED), (name, found[0])
    with pytest.raises(InferenceError, match="needs an outcome"):
        one.plot()


@pytest.mark.parametrize("residual", ["us", "cs", "csh", "ar1", "ar1h", "toep", "toeph", "ad", "diag", "sp_exp"])
@pytest.mark.parametrize("bar", ["t | id", "t | arm / id"])
def test_a_fit_keeps_the_parameters_that_are_not_changed(residual: str, bar: str) -> None:
    """Whatever the structure of the errors: the covariance of the rows of a subject stays, a sigma scales all of it."""
    rng = np.random.default_rng(3)
    data = skeleton(40)
    data["y"] = rng.normal(size=len(data)) + np.repeat(rng.normal(size=40), 3)
    fit = blm.LMM("y ~ C(t) * arm", data, residual=f"{residual}({bar})", check="warn").fit()
    moved = fit.with_params(alpha={"arm[T.b]": 2.0})
    assert moved.fixef["arm[T.b]"] == pytest.approx(2.0)
    larger = fit.with_params(sigma=2.0 * float(np.sqrt(fit.marginal_cov(0).iloc[0, 0])))
    for level in (0, 1):
        V = fit.marginal_cov(level).to_numpy()
        np.testing.assert_allclose(moved.marginal_cov(level), V, rtol=1e-9)
        np.testing.assert_allclose(larger.marginal_cov(level), 4.0 * V, rtol=1e-9)
    assert 0.0 < moved.power("arm[T.b]", method="analytic").frame["power"].item() <= 1.0


def test_each_group_has_the_covariance_that_is_assumed_for_it() -> None:
    other = np.diag([1.0, 2.0, 3.0])
    plan = blm.assume("y ~ C(t) * arm", skeleton(), alpha=[0] * 6, residual="us(t | arm / id)", R={"b": other, "a": R})
    np.testing.assert_allclose(plan.R["a"], R, rtol=1e-9)
    np.testing.assert_allclose(plan.R["b"], other, rtol=1e-9, atol=1e-12)
    part = plan.with_params(R={"a": 3 * R})
    np.testing.assert_allclose(part.R["a"], 3 * R, rtol=1e-9)
    np.testing.assert_allclose(part.R["b"], other, rtol=1e-9, atol=1e-12)
    named = pd.DataFrame(R, [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]).iloc[[2, 0, 1], [1, 2, 0]]
    one = blm.assume("y ~ C(t) * arm", skeleton(), alpha=[0] * 6, residual="us(t | id)", R=named)
    np.testing.assert_allclose(one.R, R, rtol=1e-9)
    for wrong in ({"a": R}, {"a": R, "b": R, "c": R}, {"a": R, "b": -R}):
        with pytest.raises(SpecificationError):
            blm.assume("y ~ C(t) * arm", skeleton(), alpha=[0] * 6, residual="us(t | arm / id)", R=wrong)
    with pytest.raises(SpecificationError, match="mapping"):
        blm.assume("y ~ C(t) * arm", skeleton(), alpha=[0] * 6, residual="us(t | id)", R={})


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6, 1e7, 1e9, 1e12])
def test_what_is_assumed_is_what_it_has_however_large_beside_the_rest(size: float, method: str) -> None:
    for term, sd, residual in (("(1 | id)", size, None), ("(t | id)", [size, 0.4], None), ("(1 | id)", size, "ar1(t | id)")):
        errors = {"R": 0.49 * 0.3 ** np.abs(np.subtract.outer(range(3), range(3)))} if residual else {"sigma": 0.7}
        fit = blm.assume(f"y ~ t * arm + {term}", skeleton(), alpha=[1, 2, 3, 0.5], sd=sd, residual=residual, method=method, **errors)
        # a coefficient is computed to a share of its own standard error
        assert (abs(fit.fixef - [1, 2, 3, 0.5]) <= 1e-9 + 1e-7 * np.sqrt(np.diag(fit.vcov))).all()
        assert fit.varcorr["sd"].iloc[0] == pytest.approx(size, rel=1e-9)
        left = fit.R.to_numpy()[0, 0] ** 0.5 if residual else fit.sigma
        assert left == pytest.approx(0.7, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_with_a_correlation_of_one_keeps_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame, u = skeleton(), rng.normal(size=16)[skeleton()["id"]]
    frame["y"] = 3.0 * u + 2.0 * u * frame["t"] * (-1) ** seed + rng.normal(size=48)
    fit = blm.LMM("y ~ t + (t | id)", frame, check="warn").fit()
    np.testing.assert_allclose(fit.with_params(sigma=1.0).D["id"], fit.D["id"], rtol=1e-6)
