"""The bootstrap: seeds, workers, failures, interruption, and the three kinds of limits."""

from __future__ import annotations

import operator
import sys
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, InferenceError, SpecificationError
from bayeslmm.inference.intervals.bootstrap import bootstrap
from bayeslmm.inference.intervals.resampling import resample_design, without
from tests.inference.examples import fitted


@pytest.mark.parametrize("kind", ["parametric", "case"])
def test_a_seed_gives_the_same_replicates_whatever_the_number_of_workers_and_replicates(kind: str) -> None:
    fit = fitted("slope")
    one = bootstrap(fit, 12, seed=5, kind=kind).frame
    pd.testing.assert_frame_equal(one, bootstrap(fit, 12, seed=5, kind=kind, workers=3).frame, rtol=1e-7)
    pd.testing.assert_frame_equal(one.iloc[:7], bootstrap(fit, 7, seed=5, kind=kind).frame, rtol=1e-7)
    assert not one.equals(bootstrap(fit, 12, seed=6, kind=kind).frame)


@pytest.mark.parametrize("name", ["slope", "crossed_slope", "weighted", "serial", "visits"])
def test_a_parametric_replicate_is_a_refit_to_a_simulated_response(name: str) -> None:
    fit = fitted(name)
    boot = bootstrap(fit, 3, seed=2)
    drawn = fit.simulate(3, seed=2)
    for i, row in boot.frame.iterrows():
        refit = fit.refit(drawn[f"sim_{int(str(i)) + 1}"].to_numpy())
        names = list(fit.design.coef_names)
        np.testing.assert_allclose(row[names].to_numpy(float), refit.fixef.to_numpy(), rtol=1e-4, atol=1e-4)
        sds = refit.tidy("ran_pars")
        key = [t if g == "Residual" else f"{t}|{g}" for t, g in zip(sds["term"], sds["group"], strict=True)]
        np.testing.assert_allclose(row[key].to_numpy(float), sds["estimate"].to_numpy(float), rtol=2e-3, atol=2e-3)


def test_a_statistic_may_be_an_array_a_series_or_a_dict() -> None:
    fit = fitted("slope")
    by_name = bootstrap(fit, 4, seed=1, statistic=lambda f: f.fixef)
    assert by_name.frame.columns.tolist() == ["Intercept", "time", "arm"]
    pd.testing.assert_frame_equal(by_name.frame, bootstrap(fit, 4, seed=1).frame[["Intercept", "time", "arm"]], rtol=1e-4)
    assert bootstrap(fit, 2, seed=1, statistic=lambda f: {"icc": f.icc()["adjusted"].iloc[0]}).frame.columns.tolist() == ["icc"]
    assert bootstrap(fit, 2, seed=1, kind="case", statistic=lambda f: f.sigma).frame.columns.tolist() == ["statistic_1"]


def test_failed_refits_are_counted_and_kept_apart() -> None:
    def picky(fit: object) -> float:
        value = float(fit.fixef["time"])  # type: ignore[attr-defined]
        if value > 1.5:
            raise BayesLMMError("too steep")
        return value

    boot = bootstrap(fitted("slope"), 30, seed=1, statistic=lambda f: picky(f) if f is not fitted("slope") else 0.0)
    assert 0 < boot.n_failed < 30
    assert len(boot.frame) == 30 - boot.n_failed
    assert set(boot.failures.values()) == {"too steep"}
    assert not set(boot.failures) & set(boot.frame.index)


def test_an_interruption_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["bayeslmm.inference.intervals.bootstrap"], "REPLICATES_AT_ONCE", 5)
    calls = []

    def statistic(fit: object) -> float:
        calls.append(1)
        if len(calls) > 9:
            raise KeyboardInterrupt
        return 1.0

    boot = bootstrap(fitted("slope"), 20, seed=1, statistic=statistic)
    assert boot.interrupted
    assert len(boot.frame) == 5
    assert "interrupted" in repr(boot)


@pytest.mark.parametrize("kind", ["parametric", "case"])
def test_a_name_of_a_statistic_has_one_number(kind: str) -> None:
    for statistic in (lambda f: f.ranef(), lambda f: {"effects": f.fixef.to_numpy()}, lambda f: {"a": 1.0, "b": []}):
        with pytest.raises(SpecificationError, match="no numbers"):
            bootstrap(fitted("slope"), 2, seed=1, kind=kind, statistic=statistic)


def test_limits_of_a_symmetric_statistic_are_much_the_same_of_all_kinds() -> None:
    boot = bootstrap(fitted("slope"), 800, seed=3)
    kinds = {kind: boot.confint(0.9, kind).set_index("term").loc["time"].to_numpy(float) for kind in ("percentile", "basic", "bca")}
    width = np.diff(kinds["percentile"])[0]
    for limits in kinds.values():
        np.testing.assert_allclose(limits, kinds["percentile"], atol=0.2 * width)
    wald = fitted("slope").confint("wald", 0.9).set_index("term").loc["time"].to_numpy(float)
    np.testing.assert_allclose(kinds["percentile"], wald, atol=0.2 * width)


def test_basic_limits_of_a_standard_deviation_are_not_negative() -> None:
    limits = bootstrap(fitted("nested"), 200, seed=1).confint(interval="basic").set_index("term")
    sds = limits[limits.index.str.startswith("sd__")]
    assert (sds["conf_low"] >= 0).all()


def test_cases_of_nested_factors_are_drawn_from_the_top_and_keep_their_rows() -> None:
    fit = fitted("nested")
    batch = fit.design.terms[-1].group if fit.design.terms[-1].group.name == "batch" else fit.design.terms[0].group
    drawn = resample_design(fit.design, batch, np.array([2, 2, 5]))
    groups = {term.group.name: term.group for term in drawn.terms}
    assert groups["batch"].size == 3
    assert groups["batch:cask"].size == 9
    np.testing.assert_array_equal(drawn.y[:9], drawn.y[9:18])


def test_crossed_factors_need_to_be_told_what_to_draw() -> None:
    fit = fitted("crossed")
    with pytest.raises(InferenceError, match="rater"):
        bootstrap(fit, 2, kind="case")
    assert len(bootstrap(fit, 3, seed=1, kind="case", group="rater").frame) == 3


def test_without_rows_a_design_is_that_of_the_shorter_data() -> None:
    fit = fitted("slope")
    gone = fit.design.terms[0].group.codes == 3
    shorter = without(fit.design, gone)
    assert shorter.nobs == fit.nobs - gone.sum()
    assert shorter.terms[0].group.size == fit.design.terms[0].group.size - 1


@pytest.mark.parametrize("call", [{"n": 0}, {"n": 2.5}, {"kind": "wild"}, {"workers": 0}])
def test_options_without_meaning_are_refused(call: dict[str, object]) -> None:
    with pytest.raises(SpecificationError):
        bootstrap(fitted("slope"), **call)


def test_a_posterior_mode_is_not_refitted_without_its_priors() -> None:
    fit = copy(fitted("slope"))
    fit.estimate = replace(fit.estimate, method="MAP")
    for refused in (lambda: bootstrap(fit, 5), lambda: fit.influence("id")):
        with pytest.raises(InferenceError, match="posterior mode"):
            refused()


@pytest.mark.parametrize("name", ["slope", "weighted", "crossed_slope", "nested", "plain"])
def test_replicates_of_drawn_sums_are_distributed_as_those_of_drawn_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = bootstrap(fitted(name), 300, seed=8).frame
    monkeypatch.setattr(sys.modules["bayeslmm.inference.intervals.replicates"], "SUMS_FROM_ROWS", 0)
    sums = bootstrap(fitted(name), 300, seed=9).frame
    assert not sums.equals(bootstrap(fitted(name), 300, seed=8).frame)
    pd.testing.assert_frame_equal(sums.iloc[:4], bootstrap(fitted(name), 4, seed=9).frame, rtol=1e-6)
    free = rows.std() > 0.0
    error = np.sqrt((rows.var() + sums.var()) / 300)[free]
    assert (np.abs(rows.mean() - sums.mean())[free] < 4.5 * error).all()
    np.testing.assert_allclose((sums.std() / rows.std())[free], 1.0, atol=0.25)


def test_many_rows_are_drawn_as_sums_and_a_statistic_still_sees_rows() -> None:
    n, rng = 6000, np.random.default_rng(4)
    g = np.arange(n) // 40
    data = pd.DataFrame({"x": rng.normal(size=n), "g": g, "y": rng.normal(size=150)[g] + rng.normal(size=n)})
    fit = blm.LMM("y ~ x + (1 | g)", data).fit()
    sums, seen = bootstrap(fit, 200, seed=1), bootstrap(fit, 5, seed=1, statistic=lambda f: [len(f.residuals()), f.fixef["x"]]).frame
    assert (seen["statistic_1"] == n).all()
    assert sums.n_failed == 0
    wald = fit.tidy("fixed").set_index("term")
    np.testing.assert_allclose(sums.frame["x"].std(), wald.loc["x", "std_error"], rtol=0.2)
    np.testing.assert_allclose(sums.frame["x"].mean(), wald.loc["x", "estimate"], atol=4.0 * wald.loc["x", "std_error"] / np.sqrt(200))


class Turns:
    """A statistic that answers otherwise from one call to the next."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.calls = answers, 0

    def __call__(self, fit: object) -> object:
        self.calls += 1
        answer = self.answers[(self.calls - 1) % len(self.answers)]
        if isinstance(answer, Exception):
            raise answer
        return answer


FIXED = operator.attrgetter("fixef")


@pytest.mark.parametrize("kind", ["parametric", "case"])
@pytest.mark.parametrize("series", [False, True])
def test_values_of_a_statistic_go_by_name(kind: str, series: bool) -> None:
    answers = [{"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}]
    boot = bootstrap(fitted("slope"), 6, seed=1, kind=kind, statistic=Turns(*(map(pd.Series, answers) if series else answers)))
    assert boot.frame.to_numpy().tolist() == [[1.0, 2.0]] * 6
    ranked, plain = (bootstrap(fitted("slope"), 6, seed=1, kind=kind, statistic=f).frame for f in (lambda f: f.fixef.sort_values(), FIXED))
    pd.testing.assert_frame_equal(ranked[plain.columns], plain)


@pytest.mark.parametrize("kind", ["parametric", "case"])
@pytest.mark.parametrize(
    "other",
    [{"a": 7.0}, {"a": 1.0, "c": 2.0}, [1.0, 2.0], 7.0, {}, "text", None, {"a": 1.0, "b": np.inf}, ValueError("no"), 10**400],
    ids=repr,
)
def test_a_replicate_whose_statistic_fails_is_counted(kind: str, other: object) -> None:
    good = {"a": 1.0, "b": 2.0}
    boot = bootstrap(fitted("slope"), 4, seed=1, kind=kind, statistic=Turns(good, good, other))
    assert (len(boot.frame), boot.n_failed) == (3, 1)
    assert "statistic" in next(iter(boot.failures.values()))
    assert boot.frame.to_numpy().tolist() == [[1.0, 2.0]] * 3


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, None, {}, [], pd.Series([1.0, 2.0], ["a", "a"]), 1j, "3", ZeroDivisionError("no")], ids=repr
)
def test_a_statistic_of_the_fit_itself_has_finite_numbers(value: object) -> None:
    with pytest.raises(SpecificationError, match="statistic"):
        bootstrap(fitted("slope"), 3, seed=1, statistic=Turns(value))


@pytest.mark.filterwarnings("error")
def test_a_value_that_no_replicate_has_is_no_number_in_the_summary() -> None:
    boot = bootstrap(
        fitted("slope"),
        3,
        seed=1,
        statistic=Turns({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": np.nan}, {"a": 1.0, "b": np.nan}, {"a": 1.0, "b": np.nan}),
    )
    assert boot.summary()["std_error"].isna().tolist() == [False, True]


def test_cases_of_a_variance_function_are_refitted_wherever_its_covariate_starts() -> None:
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(12), 5), rng.uniform(-3, 3, 60)
    data = pd.DataFrame({"g": g, "x": x, "y": rng.normal(size=12)[g] + 0.2 * x + np.exp(0.2 * x) * rng.normal(size=60)})
    near, far = (blm.LMM("y ~ x + (1 | g)", data.assign(x=x + origin), variance="exp(x)").fit() for origin in (0.0, 500.0))
    limits = [fit.bootstrap(8, kind="case", seed=1).frame[["sd__Intercept|g", "expon", "x"]] for fit in (near, far)]
    np.testing.assert_allclose(limits[1], limits[0], rtol=1e-3, atol=1e-4)
