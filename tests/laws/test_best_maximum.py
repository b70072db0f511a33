"""No fit of few rows is above the best of many starts: random designs, separate terms of one group, likelihoods without a bound."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import bayeslmm as blm
from bayeslmm.errors import DesignError, IdentifiabilityError
from bayeslmm.estimate.batch_descent import is_crowded
from bayeslmm.estimate.error_boundary import find_unbounded
from bayeslmm.likelihood.problem import Problem
from benchmarks.optimum import compared
from benchmarks.random_designs import random_design
from benchmarks.structured_designs import structured_design

SMALL_STRUCTURED = (18, 57, 74, 113, 176, 241, 261)
"""Designs of structured errors or variance functions whose likelihood has several maxima."""


def best_of_many(problem: Problem, restricted: bool, starts: int, seed: int) -> float:
    """The lowest criterion of L-BFGS from starts far and wide."""
    rng, best = np.random.default_rng(seed), np.inf

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = problem.criterion.at(x, restricted, order=1)
        return (point.value, point.gradient) if np.isfinite(point.value) else (1e10, np.zeros(len(x)))

    for _ in range(starts):
        start = rng.normal(size=problem.size) * 10.0 ** rng.uniform(-1.3, 1.5, problem.size)
        best = min(best, minimize(function, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).fun)
    return float(best)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", [pytest.param(k, marks=pytest.mark.slow if k % 2 else ()) for k in range(40)])
def test_no_start_ends_lower_than_the_fit(seed: int) -> None:
    design = random_design(seed)
    method = "REML" if design.reml else "ML"
    try:
        model = blm.LMM(design.formula, design.data, weights=design.weights, offset=design.offset)
        fit = model.fit(method)
    except IdentifiabilityError:
        return
    if "bounded" in fit.checks:
        return
    assert fit.criterion <= best_of_many(model.problem, design.reml, 10, seed) + 1e-4
    assert fit.criterion <= model.criterion(np.zeros(model.problem.size), method) + 1e-9


def searched_from_many(seed: int) -> tuple[float, float] | None:
    """The criterion of the fit and of the best of the starts; None where a check says why there is none."""
    outcome = compared(seed, 4, structured_design)
    return None if outcome.flagged else (outcome.fit, outcome.best)


@pytest.mark.parametrize("seed", SMALL_STRUCTURED)
def test_no_start_ends_lower_than_a_fit_of_structured_errors(seed: int) -> None:
    found = searched_from_many(seed)
    assert found is None or found[0] <= found[1] + 1e-4


def test_errors_without_a_parameter_of_their_own_are_searched_as_independent_ones() -> None:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"y": rng.normal(size=20), "v": np.tile(np.arange(4), 5), "g": np.repeat(list("abcde"), 4)})
    plain, structured = (blm.LMM("y ~ 1 + (1 | g)", data, residual=residual).fit() for residual in (None, "id(v | g)"))
    assert structured.criterion == pytest.approx(plain.criterion, abs=1e-8)


@pytest.mark.parametrize("seed", [92, pytest.param(65, marks=pytest.mark.slow)])
def test_no_parameter_moved_far_from_the_end_of_a_fit_leads_lower(seed: int) -> None:
    """Ranges, correlations and loadings have other maxima a few units away, which starts far and wide seldom meet."""
    design = structured_design(seed)
    model = blm.LMM(design.formula, design.data, **design.options)
    fit, problem = model.fit("REML" if design.reml else "ML"), model.problem
    assert fit.converged

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = problem.criterion.at(x, design.reml, order=1)
        return (point.value, point.gradient) if np.isfinite(point.value) else (1e10, np.zeros(len(x)))

    for k in range(problem.random.size, problem.size):
        for far in (-6.0, -3.0, 3.0, 6.0):
            start = fit.estimate.x + far * np.eye(problem.size)[k]
            assert minimize(function, start, jac=True, method="L-BFGS-B").fun >= fit.criterion - 1e-4


@pytest.mark.parametrize("seed", [5028, 5152])
def test_no_parameter_of_errors_has_a_lower_valley_where_rows_are_many(seed: int) -> None:
    """A variance that grows with x, and a range: of 300 rows each has two maxima, and most starts find the higher one."""
    design = structured_design(seed)
    model = blm.LMM(design.formula, design.data, **design.options)
    assert not is_crowded(model.problem)
    outcome = compared(seed, 8, structured_design)
    assert not outcome.flagged
    assert outcome.fit <= outcome.best + 1e-4


@pytest.mark.slow
def test_few_starts_end_lower_than_fits_of_structured_errors() -> None:
    pairs = [found for seed in range(100) if (found := searched_from_many(seed)) is not None]
    assert len(pairs) > 60
    assert sum(fit > best + 1e-4 for fit, best in pairs) <= 2


@pytest.mark.parametrize("shift", [0.0, 10.0, -200.0])
@pytest.mark.parametrize("text", ["(x || g)", "(1 | g) + (0 + x | g)", "diag(x | g)"])
@pytest.mark.parametrize("levels", [10, 80])
def test_separate_terms_start_from_each_level_s_own_line(levels: int, text: str, shift: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        g = np.repeat(np.arange(levels), 10)
        data = pd.DataFrame({"g": g.astype(str), "x": shift + rng.normal(size=len(g))})
        data["y"] = 2 * rng.normal(size=levels)[g] * (data["x"] - shift) + rng.normal(size=len(g))
        model = blm.LMM(f"y ~ x + {text}", data)
        grid = [model.criterion([a, b]) for a in (0.0, 2.0 * abs(shift) + 0.1) for b in (0.0, 0.5, 2.0)]
        assert model.fit().criterion <= min(grid) + 1e-7


def saturated(seed: int) -> pd.DataFrame:
    """Rows of nearly as many cells, and fixed effects for the rest."""
    rng = np.random.default_rng(seed)
    g, n = np.repeat(np.arange(8), 3), 24
    h = np.tile([0, 1, 2], 8)
    h[:2] = 0
    return pd.DataFrame({"y": rng.normal(size=n), "x": rng.normal(size=n), "g": g.astype(str), "h": h.astype(str)})


@pytest.mark.parametrize("seed", range(5))
def test_a_likelihood_without_a_bound_is_refused_by_name(seed: int) -> None:
    data = saturated(seed)
    with pytest.raises(IdentifiabilityError, match="grows without end as sigma goes to 0"):
        blm.LMM("y ~ x + (1 | g/h)", data).fit("ML")
    assert "bounded" not in blm.LMM("y ~ x + (1 | g/h)", data).fit("REML").checks


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("x + (x | g) + (1 | h)", 6),
        ("x + a + (x | g) + (x | h)", 23),
        ("a + (a | g) + (1 | h)", 6),
        *(
            pytest.param(text, seed, marks=pytest.mark.slow)
            for text, seed in [("x + (x | g) + (1 | h)", 23), ("x + a + (x | g) + (x | h)", 6), ("a + (a | g) + (1 | h)", 23)]
        ),
    ],
)
def test_rows_fewer_than_effects_are_fitted_or_refused_in_words(seed: int, text: str) -> None:
    rng = np.random.default_rng(3000 + seed)
    n = int(rng.integers(8, 16))
    frame = pd.DataFrame({"g": rng.integers(0, 6, n), "h": rng.integers(0, 4, n), "x": rng.normal(size=n), "a": rng.choice(list("pq"), n)})
    frame["y"] = rng.normal(size=n)
    for method in ("REML", "ML"):
        try:
            fit = blm.LMM("y ~ " + text, frame, check="warn").fit(method)
        except blm.errors.BayesLMMError:
            continue
        assert fit.sigma > 1e-5 or any(check.verdict == "failed" for check in fit.checks.values())
        with contextlib.suppress(blm.errors.BayesLMMError):
            fit.influence()


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
def test_a_likelihood_that_is_fitted_all_the_same_fails_a_check() -> None:
    with contextlib.suppress(DesignError):  # where the search went on until nothing was left of sigma
        for seed in range(5):
            fit = blm.LMM("y ~ x + (1 | g/h)", saturated(seed), check="warn").fit("ML")
            assert fit.checks["bounded"].verdict == "failed"


def two_strata(seed: int) -> pd.DataFrame:
    """Few rows of one level of f, which the fixed effects and those of g may reproduce."""
    rng = np.random.default_rng(seed)
    few, n = int(rng.integers(2, 7)), 30
    data = pd.DataFrame(
        {"x": rng.normal(size=n), "z": rng.normal(size=n), "y": rng.normal(size=n), "f": ["few"] * few + ["many"] * (n - few)}
    )
    g = rng.permutation(np.arange(n) % 10)
    return data.assign(g=g.astype(str), f=pd.Categorical(data.f, ["many", "few"])).drop_duplicates(["g", "f"]).reset_index(drop=True)


@pytest.mark.parametrize("errors", [{"variance": "ident(f)"}, {"residual": "csh(f | g)"}, {"residual": "cs(k | f / gf)"}])
@pytest.mark.parametrize("right", ["x", "f + z", "f * x + z", "x + (1 | g)"])
def test_a_stratum_that_can_be_reproduced_leaves_the_likelihood_without_a_bound(right: str, errors: dict[str, str]) -> None:
    seen = set()
    for seed in range(12):
        data = two_strata(seed)
        data = data.assign(gf=data.g + data.f.astype(str), k="1").assign(k=lambda d: d.groupby("gf").cumcount().astype(str))
        if "csh" not in str(errors):
            data = pd.concat([data, data[data.f == "many"].assign(y=lambda d: -d.y, k="1")])
        model = blm.LMM(f"y ~ {right}", data, check="warn", **errors)
        # sds alike, that of `few` nearly 0, and nearer still
        at = np.zeros((2, model.problem.size))
        by_sd = "cs" in str(errors)
        at[:, model.problem.random.size + ("cs(" in str(errors))] = np.exp([-9.0, -12.0]) if by_sd else (-9.0, -12.0)
        values = model.problem.criterion.values(at, False)
        falls = values[1] < values[0] - 1.0
        found = find_unbounded(model.problem, False)
        assert (found is not None and found.surely) == falls
        assert find_unbounded(model.problem, True) is None
        seen.add(falls)
        if falls:
            with pytest.raises(IdentifiabilityError, match=r"the residual sd of .*few.* goes to 0"):
                blm.LMM(f"y ~ {right}", data, **errors).fit("ML")
    assert seen == {True, False}


@pytest.mark.parametrize("fixed", ["f", "f + x", "f + x + z", "f * x + z"])
@pytest.mark.parametrize("few", [3, 4, 5])
def test_a_stratum_of_as_few_rows_as_coefficients_is_searched(few: int, fixed: str) -> None:
    rng = np.random.default_rng(few)
    data = pd.DataFrame(rng.normal(size=(40, 3)), columns=["y", "x", "z"]).assign(f=["a"] * few + ["b"] * (40 - few))
    model = blm.LMM(f"y ~ {fixed}", data, variance="ident(f)", check="warn")
    for ratio in (-2.0, 0.0, 1.0):
        hessian = model.problem.criterion.at(np.array([ratio]), True).hessian
        assert hessian is not None and hessian[0, 0] > 0.1
    if few > model.problem.criterion.p - 1:
        fit = model.fit()
        assert fit.converged
        grid = model.problem.criterion.values(np.linspace(-4.0, 4.0, 81)[:, None], True)
        assert fit.criterion <= grid.min() + 1e-6


@pytest.fixture
def quiet_profile() -> Callable[[pd.DataFrame, str, str], pd.Series]:
    def limits(data: pd.DataFrame, random: str, method: str) -> pd.Series:
        fit = blm.LMM(f"y ~ t + {random}", data).fit(method)
        table = fit.confint("profile", terms=["t"]).set_index("term")
        ends = table.loc["t", ["conf_low", "conf_high"]].astype(float)
        ml = blm.LMM(f"y ~ t + {random}", data).fit("ML").criterion
        return pd.Series([blm.LMM(f"y ~ 1 + {random}", data.assign(y=data["y"] - v * data["t"])).fit("ML").criterion - ml for v in ends])

    return limits


@pytest.mark.parametrize("random", ["(1 | g)", "(0 + s | g)", "(1 | g) + (1 | h)"])
@pytest.mark.parametrize("method", ["ML", "REML"])
def test_a_limit_is_where_a_refit_says(quiet_profile: Callable[..., pd.Series], method: str, random: str) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        data = pd.DataFrame({"g": np.repeat(list("abcdef"), 8), "t": np.repeat([0.0, 1, 0, 1, 0, 1], 8)})
        data["h"], data["s"], data["y"] = np.tile(list("uvwz"), 12), rng.normal(size=48), rng.normal(size=48)
        np.testing.assert_allclose(quiet_profile(data, random, method), 3.841459, atol=5e-3)
