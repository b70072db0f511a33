"""Power against textbooks, against itself by simulation, and batches of tests against fits one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from scipy import stats

import bayeslmm as blm
from bayeslmm._arrays import seed_sequence
from bayeslmm.errors import BayesLMMError, SpecificationError
from bayeslmm.study_design.power import read_dropout, simulate_fits

VISITS = 4


def two_arms(N: int) -> pd.DataFrame:
    """N clusters of 3 rows in each of two arms."""
    g = np.arange(2 * N)
    return pd.DataFrame({"g": np.repeat(g, 3), "arm": np.repeat(np.where(g % 2 == 0, "a", "b"), 3)})


def mmrm_skeleton(N: int) -> pd.DataFrame:
    i = np.repeat(np.arange(N), VISITS)
    return pd.DataFrame(
        {"id": [f"p{k}" for k in i], "visit": np.tile(np.arange(1, VISITS + 1), N), "arm": np.where(i % 2 == 0, "ctl", "trt")}
    )


def mmrm(N: int, effect: float, structure: str = "us", skeleton: pd.DataFrame | None = None) -> blm.Fit:
    R = 4.0 * 0.6 ** np.abs(np.subtract.outer(np.arange(VISITS), np.arange(VISITS)))
    alpha = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, effect]
    frame = mmrm_skeleton(N) if skeleton is None else skeleton
    return blm.assume("y ~ C(visit) * arm", frame, alpha=alpha, residual=f"{structure}(visit | id)", R=R)


LAST = {"arm[T.trt]": 1.0, "C(visit)[T.4]:arm[T.trt]": 1.0}


@pytest.mark.parametrize("N", [5, 12])
@pytest.mark.parametrize("effect", [0.0, 1.0, 2.5])
def test_the_textbook_of_two_arms_of_clusters(N: int, effect: float) -> None:
    """Means of clusters are two samples with variance sd^2 + sigma^2 / 3: a noncentral F with 2 N - 2 degrees of freedom."""
    plan = blm.assume("y ~ arm + (1 | g)", two_arms(N), alpha=[0.0, effect], sd=1.2, sigma=0.9)
    got = plan.power("arm[T.b]", method="analytic").frame["power"].item()
    noncentral = effect**2 / (2.0 / N * (1.2**2 + 0.9**2 / 3))
    limit = stats.f.ppf(0.95, 1, 2 * N - 2)
    want = stats.ncf.sf(limit, 1, 2 * N - 2, noncentral) if effect else 0.05
    assert got == pytest.approx(want, rel=1e-6)
    assert plan.power("arm", method="analytic").frame["power"].item() == pytest.approx(want, rel=1e-6)


def test_analytic_power_is_that_of_simulation_in_balanced_designs() -> None:
    for plan, test in (
        (mmrm(60, 1.2), LAST),
        (blm.assume("y ~ arm + (1 | g)", two_arms(10), alpha=[0, 1.4], sd=1.0, sigma=1.0), "arm[T.b]"),
    ):
        simulated = plan.power(test, nsim=4000, seed=3).frame
        analytic = plan.power(test, method="analytic").frame
        assert abs(simulated["power"].item() - analytic["power"].item()) < 0.02
        assert abs(simulated["estimate_bias"].item()) < 0.05
        assert simulated["failed"].item() == 0


def test_power_without_an_effect_is_the_level() -> None:
    frame = mmrm(40, 0.0).power(LAST, nsim=4000, seed=5, alpha=0.1).frame
    assert frame["conf_low"].item() < 0.1 < frame["conf_high"].item()


@pytest.mark.parametrize("which", ["visits", "clusters", "slopes"])
def test_batched_tests_are_those_of_fits_one_by_one(which: str) -> None:
    fit = {
        "visits": lambda: mmrm(24, 1.0),
        "clusters": lambda: blm.assume("y ~ arm + (1 | g)", two_arms(8), alpha=[0, 1], sd=1.0, sigma=1.0),
        "slopes": lambda: blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy")).fit(),
    }[which]()
    p = len(fit.fixef)
    found = simulate_fits(fit, np.eye(p), 6, seed_sequence(2), "satterthwaite")
    Y = fit.model.simulated(fit.fixef_kept, fit.theta, fit._sigma, 6, seed_sequence(2))
    for b in range(6):
        own = fit.model.with_response(Y.iloc[:, b].to_numpy()).fit()
        if own.singular:
            continue
        table = own.tidy(df="satterthwaite")
        np.testing.assert_allclose(found.tests.estimate[b], table["estimate"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.tests.std_error[b], table["std_error"], rtol=1e-4)
        np.testing.assert_allclose(found.tests.df[b], table["df"], rtol=2e-3)


@pytest.mark.parametrize("slopes", [pytest.param(size, marks=pytest.mark.slow) for size in (0.001, 0.1)])
def test_near_a_boundary_nothing_fails_that_a_fit_by_itself_can_do(slopes: float) -> None:
    frame = pd.DataFrame([(i, j, x) for i in range(8) for j in range(6) for x in (0.0, 1.0)], columns=["subject", "item", "x"])
    sd = {"subject": [0.5, slopes], "item": [0.3, slopes]}
    plan = blm.assume("y ~ x + (x | subject) + (x | item)", frame, alpha=[0.0, 0.4], sd=sd, sigma=1.0)
    assert plan.power("x", nsim=40, seed=3).frame["failed"].item() == 0
    assert plan.check_inference(40, seed=3).failed == 0.0
    found = simulate_fits(plan, np.eye(2), 12, seed_sequence(3), "satterthwaite")
    Y = plan.model.simulated(plan.fixef_kept, plan.theta, plan._sigma, 12, seed_sequence(3))
    for b in range(12):
        table = plan.model.with_response(Y.iloc[:, b].to_numpy()).fit().tidy()
        np.testing.assert_allclose(found.tests.std_error[b], table["std_error"], rtol=1e-4)
        np.testing.assert_allclose(found.tests.df[b], table["df"], rtol=2e-3)


def test_assumed_parameters_are_those_of_the_fit() -> None:
    plan = mmrm(20, 1.5)
    np.testing.assert_allclose(plan.R.to_numpy()[0], 4.0 * 0.6 ** np.arange(4), rtol=1e-10)
    assert plan.fixef.iloc[-1] == pytest.approx(1.5)
    assert plan.predict(level="population")["estimate"].iloc[7] == pytest.approx(1.5)
    assert plan.simulate(2, seed=1).shape == (80, 2)
    other = plan.with_params(alpha={"arm[T.trt]": 0.5})
    assert other.fixef["arm[T.trt]"] == pytest.approx(0.5) and other.fixef.iloc[-1] == pytest.approx(1.5)
    with pytest.raises(BayesLMMError, match="outcome"):
        plan.residuals()


def test_a_column_of_a_random_term_has_a_standard_deviation_of_its_own() -> None:
    frame = pd.DataFrame({"id": np.repeat(np.arange(9), 4), "t": np.tile(np.arange(4.0), 9)})
    known: dict[str, Any] = {"alpha": [1.0, 0.5], "corr": 0.2, "sigma": 1.0}
    both = blm.assume("y ~ t + (t | id)", frame, sd=[1.0, 0.3], **known)
    for sd in ({"id": 1.0, "id/t": 0.3}, {"id/t": 0.3, "id/Intercept": 1.0}, {"Intercept": 1.0, "t": 0.3}):
        pd.testing.assert_frame_equal(blm.assume("y ~ t + (t | id)", frame, sd=sd, **known).varcorr, both.varcorr)
    moved = both.with_params(sd={"id/t": 0.6}).varcorr["sd"].to_numpy(float)
    np.testing.assert_allclose(moved[:2], [1.0, 0.6], rtol=1e-6)
    with pytest.raises(SpecificationError, match="id/z"):
        blm.assume("y ~ t + (t | id)", frame, sd={"id": 1.0, "id/z": 0.3}, **known)


def test_curves_rise_and_say_what_is_required() -> None:
    power = mmrm(20, 1.0).power(LAST, n=[20, 60, 120, 200], along="id", method="analytic")
    assert power.frame["power"].is_monotonic_increasing
    n = power.required(0.9)
    assert 60 < n < 200
    near = mmrm(20, 1.0).power(LAST, n=[n - 4, n + 4], along="id", method="analytic").frame["power"]
    assert near.iloc[0] < 0.905 and near.iloc[1] > 0.895
    ax = power.plot()
    assert ax.get_ylabel() == "power"
    assert all(float(tick).is_integer() for tick in ax.get_xticks())  # there are no half subjects
    single = mmrm(20, 1.0).power(LAST, nsim=20, seed=1)
    (interval,) = [lines.get_segments()[0] for lines in single.plot().collections if isinstance(lines, LineCollection)]
    assert interval[:, 1].tolist() == single.frame[["conf_low", "conf_high"]].iloc[0].tolist()


def test_sizes_in_any_order_are_one_curve() -> None:
    plan = mmrm(20, 1.0)
    straight = plan.power(LAST, n=[20, 60, 120], along="id", method="analytic")
    mixed = plan.power(LAST, n=[120, 20, 60, 20], along="id", method="analytic")
    pd.testing.assert_frame_equal(mixed.frame, straight.frame)
    assert mixed.required(0.5) == straight.required(0.5)


def test_a_method_of_degrees_of_freedom_is_known_by_any_of_its_names() -> None:
    plan = mmrm(20, 1.0)
    for word in ("Satterthwaite", "SATTERTHWAITE"):
        pd.testing.assert_frame_equal(plan.power(LAST, nsim=20, df=word, seed=1).frame, plan.power(LAST, nsim=20, seed=1).frame)
    known, short = (plan.power(LAST, method="analytic", df=word).frame for word in ("kenward-roger", "KR"))
    pd.testing.assert_frame_equal(short, known)


def test_what_no_outcome_tells_has_no_power() -> None:
    """A cell that the design never sees is not estimable, alone or in a sum; other contrasts are."""
    frame = mmrm_skeleton(24)
    seen = frame[(frame["arm"] == "ctl") | (frame["visit"] != 4)]
    R = np.eye(4) + 1.0
    plan = blm.assume("y ~ C(visit) * arm", seen, alpha=[0.0] * 4 + [1.0, 0.0, 0.0], residual="us(visit | id)", R=R)
    for test in ("C(visit)[T.4]:arm[T.trt]", LAST):
        with pytest.raises(BayesLMMError, match="not estimable"):
            plan.power(test, nsim=5)
    assert plan.power("arm[T.trt]", method="analytic").frame["power"].item() > 0.05


@pytest.mark.slow
def test_one_sided_and_equivalence_tests() -> None:
    plan = mmrm(60, 1.2)
    power: Any = {side: plan.power(LAST, method="analytic", side=side).frame["power"].item() for side in ("two-sided", "greater", "less")}
    assert power["greater"] > power["two-sided"] > 0.1 > power["less"]
    margin = mmrm(60, 0.0)
    for options in ({"side": "greater", "delta": -1.5}, {"equivalence": 1.8}):
        analytic = margin.power(LAST, method="analytic", **options).frame["power"].item()
        simulated = margin.power(LAST, nsim=3000, seed=1, **options).frame["power"].item()
        assert abs(analytic - simulated) < 0.03, options


@pytest.mark.parametrize(("structure", "gaps"), [("us(visit | id)", False), ("ar1h(visit | arm / id)", True), ("toep(visit | id)", True)])
def test_trials_with_drop_out_are_those_of_fits_one_by_one(structure: str, gaps: bool) -> None:
    """Each simulated trial without the rows of those who have gone; also where the design has gaps of its own."""
    skeleton = mmrm_skeleton(36)
    if gaps:
        skeleton = skeleton[np.random.default_rng(1).random(len(skeleton)) > 0.1]
    R = 4.0 * 0.6 ** np.abs(np.subtract.outer(np.arange(VISITS), np.arange(VISITS)))
    by_arm: Any = {"ctl": R, "trt": 2.0 * R} if "/" in structure else R
    plan = blm.assume("y ~ C(visit) * arm", skeleton, alpha=[0.0] * 7 + [1.0], residual=structure, R=by_arm)
    lost = read_dropout(plan, {"ctl": [0.1, 0.1, 0.3, 0.4], "trt": [0.0, 0.2, 0.2, 0.5]})
    for df in ("satterthwaite", "residual"):
        found = simulate_fits(plan, np.eye(8), 4, seed_sequence(7), df, lost)
        Y = plan.model.simulated(plan.fixef_kept, plan.theta, plan._sigma, 4, seeds := seed_sequence(7))
        visits = lost.draw_visits(np.random.default_rng(seeds.spawn(1)[0]), 4)
        for b in range(4):
            there = visits[b][plan.design.residual.subject.codes] > plan.design.residual.visit
            own = skeleton.assign(y=Y.iloc[:, b].to_numpy())[there]
            table = blm.LMM("y ~ C(visit) * arm", own, residual=structure).fit().tidy(df=df)
            np.testing.assert_allclose(found.tests.estimate[b], table["estimate"], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found.tests.std_error[b], table["std_error"], rtol=1e-4)
            np.testing.assert_allclose(found.tests.df[b], table["df"], rtol=2e-3)


@pytest.mark.slow
def test_power_under_drop_out_is_that_of_the_rows_expected() -> None:
    """Analytically on a skeleton without the shares that are lost; without an effect it is the level."""
    gone = np.array([0.0, 0.1, 0.2, 0.4])
    for effect in (0.0, 1.6):
        plan = mmrm(80, effect)
        lost = plan.power(LAST, nsim=3000, seed=2, dropout=gone).frame
        skeleton = mmrm_skeleton(80)
        place = (skeleton["id"].str.slice(1).astype(int) // 2 + 0.5) / 40
        left = skeleton[place.to_numpy() >= gone[skeleton["visit"].to_numpy() - 1]]
        want = mmrm(0, effect, skeleton=left).power(LAST, method="analytic").frame["power"].item()
        assert abs(lost["power"].item() - want) < 0.02
        assert lost["failed"].item() == 0


@pytest.mark.slow
def test_drop_out_costs_power() -> None:
    plan = mmrm(40, 1.6)
    full = plan.power(LAST, nsim=60, seed=1).frame
    lost = plan.power(LAST, nsim=60, seed=1, dropout={"ctl": [0, 0.2, 0.4, 0.6], "trt": [0, 0.2, 0.4, 0.6]}).frame
    assert lost["power"].item() < full["power"].item() - 0.1


def test_a_design_is_checked_for_what_inference_does_in_it() -> None:
    fit = blm.assume("y ~ arm + (1 | g)", two_arms(4), alpha=[0, 1], sd=1.0, sigma=1.0)
    check = fit.check_inference(1500, seed=1, methods=["wald", "satterthwaite"])
    coverage = check.frame.groupby("method")["coverage"].mean()
    assert coverage["wald"] < 0.93 < coverage["satterthwaite"]
    assert check.advice.startswith("Use satterthwaite")
    assert check.plot().get_xlabel() == "coverage of 95% intervals"
    slow = fit.check_inference(20, seed=1, methods=["kenward-roger", "sandwich"])
    assert set(slow.frame["method"]) == {"kenward-roger", "sandwich"}


BAD: dict[str, dict[str, Any]] = {
    "an unknown coefficient": {"test": "armm"},
    "a level beyond 1": {"alpha": 5},
    "no data sets": {"nsim": 0},
    "n without along": {"n": [10]},
    "an unknown factor": {"n": [10], "along": "site"},
    "fewer levels than the design needs": {"n": [1], "along": "id"},
    "an unknown method": {"method": "exact"},
    "an unknown side": {"side": "up"},
    "a direction of a term": {"test": "C(visit):arm", "side": "greater"},
    "drop-out that falls": {"dropout": [0.5, 0.4, 0.3, 0.2]},
    "drop-out of the wrong length": {"dropout": [0.1]},
    "drop-out of arms that are none": {"dropout": {"x": [0, 0, 0, 0]}},
    "a limit of equivalence below 0": {"equivalence": -1.0},
    "equivalence with a side": {"equivalence": 1.0, "side": "less"},
    "an unknown method of degrees of freedom": {"df": "satterthwait"},
    "no size": {"n": [], "along": "id"},
    "a size that is no whole number": {"n": [12.5], "along": "id"},
    "a size below what the design needs": {"n": 2, "along": "id"},
    "a size at which no covariance can be estimated": {"n": 4, "along": "id"},
}


@pytest.mark.parametrize("what", BAD)
def test_power_that_cannot_be_computed(what: str) -> None:
    options = {"test": LAST, "nsim": 5} | BAD[what]
    with pytest.raises(BayesLMMError) as caught:
        mmrm(20, 1.0).power(options.pop("test"), **options)
    assert caught.value.what and caught.value.remedy


ASSUMED: dict[str, dict[str, Any]] = {
    "coefficients of the wrong number": {"alpha": [1.0]},
    "an unknown coefficient": {"alpha": {"x": 1.0}},
    "no sds": {"sd": None},
    "a negative sd": {"sd": -1.0},
    "no sigma": {"sigma": None},
    "R without structure": {"R": np.eye(3)},
    "a matrix that is no correlation": {"corr": [[1.0, 2.0], [2.0, 1.0]]},
}


@pytest.mark.parametrize("what", ASSUMED)
def test_assumptions_that_cannot_be_read(what: str) -> None:
    options = {"alpha": [0, 1], "sd": 1.0, "sigma": 1.0} | ASSUMED[what]
    with pytest.raises(BayesLMMError) as caught:
        blm.assume("y ~ arm + (1 | g)", two_arms(5), **options)
    assert caught.value.what and caught.value.remedy


@pytest.mark.parametrize("response", ["y", "`a b`", "log(y)", "I(y * 2)"])
def test_drop_out_is_of_simulated_outcomes_whatever_the_response_is(response: str) -> None:
    """The data at hand have a large effect; where none is assumed, power is the level, whichever way the response is written."""
    rng = np.random.default_rng(1)
    s, t = np.divmod(np.arange(90), 3)
    arm = s % 2
    z = 0.5 * rng.normal(size=30)[s] + 0.3 * rng.normal(size=90) + 1.5 * arm
    frame = pd.DataFrame({"id": s.astype(str), "visit": pd.Categorical([f"v{k}" for k in t]), "arm": np.where(arm, "b", "a")})
    own = {"y": ("y", z), "`a b`": ("a b", z), "log(y)": ("y", np.exp(z)), "I(y * 2)": ("y", 0.5 * z)}[response]
    fit = blm.LMM(f"{response} ~ arm", frame.assign(**{own[0]: own[1]}), residual="us(visit | id)").fit()
    lost = {"a": [0.0, 0.1, 0.2], "b": [0.0, 0.0, 0.1]}
    assert fit.power("arm[T.b]", nsim=8, seed=1, dropout=lost).frame["power"].item() == 1.0
    none = fit.with_params(alpha={"arm[T.b]": 0.0}).power("arm[T.b]", nsim=12, seed=1, dropout=lost).frame
    assert none["power"].item() < 0.4
    assert none["failed"].item() == 0


@pytest.mark.parametrize("unit", [2.0**-24, 1.0, 2.0**24])
def test_what_is_no_covariance_is_refused_in_any_unit(unit: float) -> None:
    data = pd.DataFrame({"id": np.repeat(range(12), 3), "visit": np.tile(["a", "b", "c"], 12)})
    R = unit**2 * np.array([[2.0, 0.8, 0.4], [0.8, 2.0, 0.8], [0.4, 0.8, 2.0]])
    assumed = blm.assume("y ~ visit", data, alpha=[0.0, unit, unit], residual="us(visit | id)", R=R)
    np.testing.assert_allclose(assumed.R.to_numpy(), R, rtol=1e-6)
    for i, j, value in ((0, 1, 0.1), (0, 1, 5.0), (2, 2, -1.0)):
        wrong = R.copy()
        wrong[i, j] = value * unit**2
        with pytest.raises(SpecificationError, match="no covariance matrix"):
            blm.assume("y ~ visit", data, alpha=[0.0, unit, unit], residual="us(visit | id)", R=wrong)


def schools(number: int, classes: int = 4, pupils: int = 2) -> pd.DataFrame:
    """Schools in two arms, classes within them under labels of their own, pupils."""
    s = np.repeat(np.arange(number), classes * pupils)
    c = np.repeat(np.arange(number * classes), pupils)
    return pd.DataFrame({"school": [f"s{k}" for k in s], "room": [f"c{k}" for k in c], "arm": np.where(s % 2 == 0, "a", "b")})


@pytest.mark.parametrize("formula", ["y ~ arm + (1 | school) + (1 | room)", "y ~ arm + (1 | school / room)", "y ~ arm + (1 | room)"])
def test_a_level_that_is_added_brings_its_own_classes(formula: str) -> None:
    """As many schools extended as given: factors within a school are new in its copies, whether they are spelled as nested or not."""
    known: dict[str, Any] = {"alpha": [0.0, 1.0], "sigma": 0.5}
    sd: Any = {"school": 0.5, "room": 1.0, "school:room": 1.0}
    names = {"school": ["school", "room"], "school / room": ["school", "school:room"], "room": ["room"]}
    inner = names["school / room" if "/" in formula else "room" if "(1 | school)" not in formula else "school"]
    known["sd"] = {name: sd[name] for name in inner}
    along = inner[0]
    small, large = (blm.assume(formula, schools(k), **known) for k in (6, 12))
    size = 12 if along == "school" else 48
    grown = small.power("arm[T.b]", n=size, along=along, method="analytic").frame
    assert grown["power"].item() == pytest.approx(large.power("arm[T.b]", method="analytic").frame["power"].item(), rel=1e-9)


def test_subjects_come_with_the_site_that_is_added() -> None:
    def trial(sites: int) -> pd.DataFrame:
        frame = mmrm_skeleton(8 * sites)
        return frame.assign(site=[f"site{int(label[1:]) // 8}" for label in frame["id"]])

    R = np.eye(4) + 0.5
    known: dict[str, Any] = {"alpha": [0.0] * 7 + [1.0], "sd": 0.7, "residual": "us(visit | id)", "R": R}
    few, many = (blm.assume("y ~ C(visit) * arm + (1 | site)", trial(k), **known) for k in (3, 6))
    grown = few.power(LAST, n=6, along="site", method="analytic").frame["power"].item()
    assert grown == pytest.approx(many.power(LAST, method="analytic").frame["power"].item(), rel=1e-9)


@pytest.mark.parametrize("residual", [None, "ar1(t | id)", "cs(t | id)"])
def test_visits_are_added_in_steps_as_the_last(residual: str | None) -> None:
    def plan(visits: int) -> blm.Fit:
        i = np.repeat(np.arange(20), visits)
        frame = pd.DataFrame({"id": i, "t": np.tile(2.0 * np.arange(visits), 20), "arm": np.where(i % 2 == 0, "a", "b")})
        if residual is None:
            return blm.assume("y ~ t * arm + (t | id)", frame, alpha=[0, 0, 0, 0.2], sd=[1.0, 0.3], sigma=1.0)
        lag = np.abs(np.subtract.outer(np.arange(visits), np.arange(visits)))
        R = 0.6**lag if residual.startswith("ar1") else np.where(lag == 0, 1.0, 0.4)
        return blm.assume("y ~ t * arm", frame, alpha=[0, 0, 0, 0.2], residual=residual, R=R)

    curve = plan(4).power("t:arm[T.b]", n=[3, 4, 6], along="t", method="analytic").frame["power"]
    want = [plan(visits).power("t:arm[T.b]", method="analytic").frame["power"].item() for visits in (3, 4, 6)]
    np.testing.assert_allclose(curve, want, rtol=1e-9)


@pytest.mark.parametrize("method", ["analytic", "simulation"])
def test_a_curve_along_the_effect(method: Any) -> None:
    plan = mmrm(40, 0.7)
    curve = plan.power(LAST, effect=[2.0, 0.0, 1.0], method=method, nsim=200, seed=1)
    assert curve.frame["effect"].tolist() == [0.0, 1.0, 2.0]
    if method == "analytic":
        for effect, power in zip(curve.frame["effect"], curve.frame["power"], strict=True):
            assert power == pytest.approx(mmrm(40, effect).power(LAST, method="analytic").frame["power"].item(), rel=1e-9)
        found = curve.required(0.8)
        assert 1.0 < found < 2.0
        assert plan.power(LAST, effect=[-2.0, -1.0, 0.0], method="analytic").required(0.8) == pytest.approx(-found, rel=1e-6)
        with pytest.raises(BayesLMMError, match="both sides"):
            plan.power(LAST, effect=[-2.0, 2.0], method="analytic").required(0.8)
    assert curve.plot().get_xlabel() == "effect"
    for wrong in ({"effect": [1.0], "n": [20, 40], "along": "id"}, {"effect": ["a"]}, {"effect": [np.nan]}, {"effect": []}):
        with pytest.raises(BayesLMMError):
            plan.power(LAST, method="analytic", **wrong)  # type: ignore[arg-type]
    with pytest.raises(BayesLMMError, match="no one effect"):
        plan.power("C(visit):arm", effect=1.0, method="analytic")


@pytest.mark.parametrize("method", ["analytic", "simulation"])
def test_several_tests_are_those_one_by_one_in_the_same_data(method: Any) -> None:
    plan = mmrm(24, 1.2)
    asked: list[Any] = [LAST, "arm[T.trt]", "C(visit):arm"]
    options: dict[str, Any] = {"n": [24, 40], "along": "id", "method": method, "nsim": 12, "seed": 3}
    several = plan.power(asked, **options)
    assert list(several.frame.columns[:2]) == ["test", "n"]
    for test in asked:
        own = several.frame[several.frame["test"] == str(test)].drop(columns="test").reset_index(drop=True)
        pd.testing.assert_frame_equal(own, plan.power(test, **options).frame)
    if method == "analytic":
        curve = plan.power([LAST, "C(visit):arm"], n=[24, 80, 160], along="id", method="analytic")
        alone = [plan.power(test, n=[24, 80, 160], along="id", method="analytic").required(0.8) for test in (LAST, "C(visit):arm")]
        assert curve.required(0.8) == max(alone)
        assert len(curve.plot().get_lines()) >= 2


def test_a_textbook_of_one_way_and_split_plots() -> None:
    """Balanced designs: the noncentral F of the analysis of variance, to the last digits."""
    k, n = 4, 6
    means = np.array([0.0, 0.5, 1.0, 0.2])
    groups = pd.DataFrame({"arm": np.repeat([f"a{i}" for i in range(k)], n)})
    plan = blm.assume("y ~ arm", groups, alpha=[0.0, *means[1:]], sigma=0.9)
    noncentral = n * np.sum((means - means.mean()) ** 2) / 0.9**2
    limit = stats.f.ppf(0.95, k - 1, k * (n - 1))
    want = stats.ncf.sf(limit, k - 1, k * (n - 1), noncentral)
    assert plan.power("arm", method="analytic").frame["power"].item() == pytest.approx(want, rel=1e-9)
    # whole plots get A, sub-plots B: A is tested among plots, B and A:B within
    a, b, plots = 2, 3, 5
    frame = pd.DataFrame(
        [(f"p{i}{j}", f"A{i}", f"B{m}") for i in range(a) for j in range(plots) for m in range(b)], columns=["plot", "A", "B"]
    )
    split = blm.assume("y ~ A * B + (1 | plot)", frame, alpha=[0, 0.8, 0.3, 0.6, 0, 0], sd=1.1, sigma=0.7)
    within = a * (plots - 1) * (b - 1)
    effects = np.array([0.0, 0.3, 0.6])
    of_b = a * plots * np.sum((effects - effects.mean()) ** 2) / 0.7**2
    of_a = plots * b * 2 * 0.4**2 / (0.7**2 + b * 1.1**2)
    for test, df, nu, size in (("B", b - 1, within, of_b), ("A", a - 1, a * (plots - 1), of_a)):
        want = stats.ncf.sf(stats.f.ppf(0.95, df, nu), df, nu, size)
        got = split.power(test, method="analytic").frame["power"].item()
        assert got == pytest.approx(want, rel=1e-6), test


def crossed() -> pd.DataFrame:
    s, w = np.divmod(np.arange(16 * 12), 12)
    return pd.DataFrame({"subject": s, "item": w, "kind": np.where(w % 2 == 0, "a", "b")})


def slopes(N: int) -> pd.DataFrame:
    i = np.repeat(np.arange(N), 4)
    return pd.DataFrame({"id": i, "t": np.tile(np.arange(4.0), N), "arm": np.where(i % 2 == 0, "a", "b")})


BALANCED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "two groups": (lambda: blm.assume("y ~ arm", pd.DataFrame({"arm": ["a", "b"] * 12}), alpha=[0, 1.0], sigma=1.0), "arm[T.b]", {}),
    "one-way": (lambda: blm.assume("y ~ arm", pd.DataFrame({"arm": list("abcd") * 7}), alpha=[0, 1.2, 0.4, 0], sigma=1.0), "arm[T.b]", {}),
    "few clusters": (lambda: blm.assume("y ~ arm + (1 | g)", two_arms(5), alpha=[0, 2.0], sd=1.0, sigma=0.8), "arm[T.b]", {}),
    "clusters, one-sided": (
        lambda: blm.assume("y ~ arm + (1 | g)", two_arms(9), alpha=[0, 1.0], sd=1.0, sigma=0.8),
        "arm[T.b]",
        {"side": "greater"},
    ),
    "schools and rooms": (
        lambda: blm.assume("y ~ arm + (1 | school / room)", schools(16), alpha=[0, 1.0], sd={"school": 0.6, "school:room": 0.5}, sigma=0.7),
        "arm[T.b]",
        {},
    ),
    "crossed": (
        lambda: blm.assume("y ~ kind + (1 | subject) + (1 | item)", crossed(), alpha=[0, 0.9], sd={"subject": 1.0, "item": 0.5}, sigma=1.0),
        "kind[T.b]",
        {},
    ),
    "random slopes": (
        lambda: blm.assume("y ~ t * arm + (t | id)", slopes(40), alpha=[0, 0, 0, 0.5], sd=[1.0, 0.4], corr=0.2, sigma=1.0),
        "t:arm[T.b]",
        {},
    ),
    "visits, unstructured": (lambda: mmrm(60, 1.4), LAST, {}),
    "visits, AR(1)": (lambda: mmrm(40, 1.4, "ar1"), LAST, {}),
    "non-inferiority": (lambda: mmrm(60, 0.0), LAST, {"side": "greater", "delta": -1.5}),
    "equivalence": (lambda: mmrm(60, 0.0), LAST, {"equivalence": 1.8}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BALANCED)
def test_simulated_power_is_analytic_power_within_two_points(name: str) -> None:
    plan, test, options = BALANCED[name]
    simulated = plan().power(test, nsim=8000, seed=11, **options).frame["power"].item()
    assert abs(simulated - plan().power(test, method="analytic", **options).frame["power"].item()) < 0.02
