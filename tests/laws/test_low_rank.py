"""Independent errors of unequal variance beside random effects: low-rank blocks have the likelihood and derivatives of dense ones."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.inference.fixed_effects.kenward_roger import v_derivatives
from bayeslmm.inference.fixed_effects.sandwich import whitened_blocks
from bayeslmm.inference.influence import row_inverses
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured import low_rank, pooled
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel
from bayeslmm.likelihood.structured.low_rank import LowRankKernel
from bayeslmm.likelihood.structured.prediction import ResidualIndex, subject_means, subject_mode_covariances, subject_modes, subject_rows

TERMS = (
    "(1 | g)",
    "(x | g)",
    "(x || g)",
    "(1 | g / b)",
    "(1 | g) + (1 | h)",
    "(x | g) + (0 + v | h)",
    "(1 + x | g) + (1 | b)",
    "diag(k | g)",
    "cs(0 + k | g)",
    "(1 | g) + (x | g:h)",
)
VARIANCES = ("ident(k)", "power(v)", "exp(x)", "const_power(v)", "ident(k) * power(v)", "exp(x | k)")


def unequal(seed: int) -> blm.LMM:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 120))
    data = pd.DataFrame({"g": rng.integers(0, rng.integers(2, 6), n), "h": rng.integers(0, 4, n), "k": rng.choice(list("abc"), n)})
    data = data.assign(
        b=data["g"] * 10 + rng.integers(0, 3, n), x=rng.normal(size=n), v=rng.uniform(0.5, 3.0, n), w=rng.uniform(0.5, 2.0, n)
    )
    data["y"] = 10.0 ** rng.uniform(-3, 3) * (data["x"] + rng.normal(size=6)[data["g"]] + rng.normal(size=n))
    term, variance, options = TERMS[seed % len(TERMS)], VARIANCES[seed % len(VARIANCES)], {}
    if rng.random() < 0.4:
        options["weights"] = "w"
    if term == "(1 | g)":
        levels = sorted(data["g"].unique())
        options["relationship"] = {"g": pd.DataFrame(0.5 * np.eye(len(levels)) + 0.5, levels, levels)}
    return blm.LMM(f"y ~ x + k + {term}", data, variance=variance, check="warn", **options)


def dense_criterion(problem: Problem) -> Criterion:
    kernel = problem.criterion.kernel
    assert isinstance(kernel, LowRankKernel)
    return replace(problem.criterion, kernel=BlockDiagonalKernel(*(getattr(kernel, own.name) for own in fields(kernel))))


def largest_gap(found: list[np.ndarray], right: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max() / (1.0 + np.abs(b).max())) for a, b in zip(found, right, strict=True))


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 150))])
def test_low_rank_blocks_are_dense_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "WORTH", 1e-9)
    problem, rng = unequal(seed).problem, np.random.default_rng(seed)
    dense = dense_criterion(problem)
    random = np.arange(problem.size) < problem.random.size
    for scale in (0.3, 1.0, 30.0):
        x = np.where(random, scale, 0.3) * rng.normal(size=problem.size)
        for restricted in (True, False):
            found, right = problem.criterion.at(x, restricted), dense.at(x, restricted)
            assert found.value == pytest.approx(right.value, rel=1e-10)
            assert largest_gap([found.gradient], [right.gradient]) < 1e-9
            size = np.sqrt(np.abs(np.diagonal(right.hessian))) + 1e-3
            assert largest_gap([found.hessian / np.outer(size, size)], [right.hessian / np.outer(size, size)]) < 1e-6
            assert largest_gap(found.state.scores(), right.state.scores()) < 1e-9
            assert largest_gap(found.state.residual_scores, right.state.residual_scores) < 1e-9
            own = (point.state.sigma_gradients(restricted, right.sigma2) for point in (found, right))
            assert largest_gap(*own) < 1e-9


@pytest.mark.parametrize(("formula", "options"), [("y ~ x", {"variance": "power(v)"}), ("y ~ x + (1 | g)", {"residual": "ar1(t | g)"})])
def test_other_errors_stay_in_dense_blocks(formula: str, options: dict[str, str]) -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame(
        {"g": np.repeat(list("abcdef"), 40), "t": np.tile(range(40), 6), "v": rng.uniform(1, 2, 240), "x": rng.normal(size=240)}
    )
    assert not isinstance(blm.LMM(formula, data.assign(y=rng.normal(size=240)), **options).problem.structured, LowRankKernel)


def test_levels_of_any_size_are_fitted() -> None:
    rng, n = np.random.default_rng(3), 60_000
    g, v = np.arange(n) % 3, rng.uniform(0.5, 3.0, n)
    data = pd.DataFrame({"g": g, "v": v, "y": 2.0 + rng.normal(size=3)[g] + v**0.7 * rng.normal(size=n)})
    fit = blm.LMM("y ~ 1 + (1 | g)", data, variance="power(v)").fit()
    assert fit.converged
    assert fit.residual_params["power"] == pytest.approx(0.7, abs=0.02)
    assert fit.tidy(df="satterthwaite")["df"].iloc[0] == pytest.approx(2.0, abs=0.1)
    assert fit.tidy(df="kenward-roger")["df"].iloc[0] == pytest.approx(2.0, abs=0.1)
    assert np.isfinite(fit.tidy(vcov="CR0")["std_error"]).all()
    with pytest.raises(blm.errors.SizeError, match="20,000"):
        fit.influence("g", refit=False)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 100))])
def test_predictions_by_low_rank_are_those_of_dense_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "WORTH", 1e-9)
    monkeypatch.setattr(low_rank, "GATHERED_PRODUCTS", 256 if seed % 2 else 1)
    problem, rng = unequal(seed).problem, np.random.default_rng(seed)
    whole = replace(problem, criterion=dense_criterion(problem))
    x = np.where(np.arange(problem.size) < problem.random.size, 1.0, 0.3) * rng.normal(size=problem.size)
    rows = rng.integers(0, problem.design.nobs, 25)
    X, Zs = problem.design.X[rows], [term.Z[rows] for term in problem.design.terms]
    codes = [np.where(rng.random(25) < 0.3, -1, rng.permutation(term.group.codes[rows])) for term in problem.design.terms]
    zeros = np.zeros(25, np.int64)
    place = ResidualIndex(zeros - 1, None, None, zeros, rng.normal(size=25))
    low, dense = ((own, own.criterion.at(x, restricted=True)) for own in (problem, whole))
    for where in (None, place):
        assert largest_gap(*(list(subject_rows(*own, X, Zs, codes, where)) for own in (low, dense))) < 1e-9
    assert largest_gap(*([subject_means(*own, Zs, codes, place)] for own in (low, dense))) < 1e-9
    assert largest_gap(*(subject_mode_covariances(*own) for own in (low, dense))) < 1e-9
    assert largest_gap(*(subject_modes(*own) for own in (low, dense))) < 1e-9


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(s, marks=pytest.mark.slow) for s in range(10, 100))])
def test_pieces_of_tests_by_low_rank_are_those_of_dense_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "WORTH", 1e-9)
    problem, rng = unequal(seed).problem, np.random.default_rng(seed)
    x = np.where(np.arange(problem.size) < problem.random.size, 1.0, 0.3) * rng.normal(size=problem.size)
    states = [own.at(x, restricted=True).state for own in (problem.criterion, dense_criterion(problem))]
    low, dense = (v_derivatives(state, problem, x) for state in states)
    for name in (own.name for own in fields(low)):
        found, right = getattr(low, name), getattr(dense, name)
        assert (found is None) == (right is None)
        if right is not None:
            np.testing.assert_allclose(found, right, atol=1e-10 * np.abs(right).max(), err_msg=name)
    p = problem.criterion.p
    for (rows, _, white), (same, _, right) in zip(*(whitened_blocks(state, p) for state in states), strict=True):
        np.testing.assert_array_equal(rows, same)
        products, wanted = (own.swapaxes(-1, -2) @ own for own in (white, right))
        np.testing.assert_allclose(products, wanted, atol=1e-10 * np.abs(wanted).max())
    for (_, diagonal, ViU), (_, own, right) in zip(*(row_inverses(state) for state in states), strict=True):
        np.testing.assert_allclose(diagonal, own, atol=1e-10)
        np.testing.assert_allclose(ViU, right, atol=1e-10 * np.abs(right).max())


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("seed", range(4))
def test_draws_by_low_rank_are_those_of_dense_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "WORTH", 1e-9)
    monkeypatch.setattr(Density, "batch", 16)  # the order of random numbers
    model = unequal(10 * seed + 1)
    found = []
    for cells in (0, 10**12):
        monkeypatch.setattr(pooled, "LOW_RANK_CELLS", cells)
        found.append(model.sample(seed=1, draws=50, chains=2).draws)
    np.testing.assert_allclose(found[0].phi, found[1].phi, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found[0].alpha, found[1].alpha, rtol=1e-7, atol=1e-7 * np.abs(found[1].alpha).max())
    for low, dense in zip(found[0].beta, found[1].beta, strict=True):
        np.testing.assert_allclose(low, dense, atol=1e-7 * np.abs(dense).max())
