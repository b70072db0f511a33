"""The criterion keeps its digits where relative standard deviations are very large: closed forms of balanced groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel, pool_levels
from bayeslmm.likelihood.random_effects.level_blocks import BlockDiagonal, BlockFactor
from tests.laws.precise import precise_criterion

THETAS = (1.0, 1e2, 1e4, 1e6, 1e7, 1e8, 1e9)


def balanced(levels: int, rows: int, seed: int) -> pd.DataFrame:
    """y and x of groups of one size, x with the same mean in each."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    x -= (np.bincount(g, x) / rows)[g]
    return pd.DataFrame({"y": rng.normal(size=len(g)) + rng.normal(size=levels)[g] + x, "x": x, "g": [f"s{i}" for i in g]})


def closed_form(data: pd.DataFrame, theta: float, restricted: bool, slope: bool) -> tuple[float, float]:
    """The profiled criterion and its derivative times theta, by the analysis of variance."""
    means = data.groupby("g")["y"].transform("mean")
    levels, n = data["g"].nunique(), len(data)
    rows = n // levels
    within, between = float(((data["y"] - means) ** 2).sum()), float(((means - data["y"].mean()) ** 2).sum())
    squares = float((data["x"] ** 2).sum())
    if slope:
        within -= float((data["x"] @ data["y"]) ** 2) / squares
    ratio = 1.0 + rows * theta**2
    df = n - (1 + slope) * restricted
    r2 = within + between / ratio
    value = levels * np.log(ratio) + df * (1.0 + np.log(2.0 * np.pi * r2 / df))
    if restricted:
        value += np.log(n) - np.log(ratio) + slope * np.log(squares)
    change = 2.0 * (ratio - 1.0) / ratio
    return float(value), float(change * (levels - restricted - df * between / ratio / r2))


@pytest.mark.parametrize("method", ["REML", "ML"])
@pytest.mark.parametrize("fixed", ["1", "x"])
@pytest.mark.parametrize(("levels", "rows"), [(3, 2), (12, 8), (40, 3), (100, 5), (9000, 2)])
def test_value_and_slope_at_large_relative_sds(levels: int, rows: int, fixed: str, method: str) -> None:
    data = balanced(levels, rows, seed=levels)
    model = blm.LMM(f"y ~ {fixed} + (1 | g)", data)
    kernel = model.problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    pooled = pool_levels(kernel)
    assert pooled is not None
    for theta in THETAS:
        value, slope = closed_form(data, theta, method == "REML", fixed == "x")
        assert model.criterion([theta], method) == pytest.approx(value, rel=1e-11)
        assert theta * model.gradient([theta], method)[0] == pytest.approx(slope, rel=1e-7)
        x = model.problem.x(np.array([theta]))
        together = model.problem.criterion.values(np.array([x, 2.0 * x]), method == "REML")
        assert together[0] == pytest.approx(value, rel=1e-11)
        solved, direct = pooled.solve(x[None]), kernel.solve(x[None])
        np.testing.assert_allclose(solved.r2, direct.r2, rtol=1e-9)
        np.testing.assert_allclose(solved.logdet_X, direct.logdet_X, rtol=1e-9)


@pytest.mark.parametrize("levels", [8, 90])
def test_slopes_at_large_relative_sds_are_nearly_those_of_each_level(levels: int) -> None:
    """Far out the criterion falls with the log of theta alone: one value foretells the others."""
    data = balanced(levels, 6, seed=1)
    model = blm.LMM("y ~ x + (x | g)", data)
    values = [model.criterion([theta, 0.3 * theta, theta]) - (4 * levels - 4) * np.log(theta) for theta in (1e6, 1e7, 1e8, 1e9)]
    np.testing.assert_allclose(values, values[0], rtol=1e-9)


@pytest.mark.parametrize("term", ["(1 | g)", "(x | g)"])
@pytest.mark.parametrize(("levels", "rows"), [(8, 6), (60, 4), (9000, 3)])
def test_one_large_theta_among_many_leaves_the_others_together(monkeypatch: pytest.MonkeyPatch, term: str, levels: int, rows: int) -> None:
    """Many thetas are solved in a few passes over the levels, whatever their size, each as if it were alone."""
    model = blm.LMM(f"y ~ x + {term}", balanced(levels, rows, seed=3))
    kernel = model.problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    pooled = pool_levels(kernel)
    rng = np.random.default_rng(4)
    size = 10.0 ** np.concatenate([rng.uniform(-1, 2, 20), rng.uniform(4, 8, 20)])[rng.permutation(40)]
    x = np.stack([model.problem.x(s * np.array([1.0] if term == "(1 | g)" else [1.0, 0.3, 1.0])) for s in size])
    alone = [kernel.solve(row[None]) for row in x]
    passes = 0
    large = BlockDiagonal.large

    def counted(self: BlockDiagonal, Xy: np.ndarray, T: np.ndarray) -> tuple[BlockFactor, np.ndarray]:
        nonlocal passes
        passes += 1
        return large(self, Xy, T)

    monkeypatch.setattr(BlockDiagonal, "large", counted)
    for solve in (kernel.solve, *([pooled.solve] if pooled is not None else [])):
        passes, together = 0, solve(x)
        assert passes <= max(1, levels // 100)
        for name in ("logdet", "logdet_X", "r2"):
            np.testing.assert_allclose(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]), rtol=1e-9)


def few_rows(seed: int) -> pd.DataFrame:
    """24 rows of 6 subjects, crossed with h, within k, with a relationship of the subjects left to the model."""
    rng = np.random.default_rng(seed)
    g, n = np.repeat(np.arange(6), 4), 24
    data = pd.DataFrame({"x": rng.normal(size=n) + 2.0, "y": rng.normal(size=n), "w": rng.uniform(0.5, 2.0, n)})
    visit = pd.Categorical(np.tile(list("pqrs"), 6), ordered=True)
    return data.assign(g=g.astype(str), h=np.tile(np.arange(3), 8).astype(str), k=(g % 3).astype(str), v=visit)


RELATED = pd.DataFrame(0.7 * np.eye(6) + 0.3, index=[str(i) for i in range(6)], columns=[str(i) for i in range(6)])

STRUCTURED = {
    "an intercept": ("y ~ x + (1 | g)", {"residual": "ar1(v | g)"}),
    "a slope": ("y ~ x + (x | g)", {"residual": "ar1(v | g)"}),
    "a slope without its intercept": ("y ~ x + (0 + x | g)", {"residual": "toep(v | g)"}),
    "a variance function": ("y ~ x + (1 | g)", {"variance": "ident(h)"}),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", {"residual": "ar1(v | g)"}),
    "nested": ("y ~ x + (1 | k / g)", {"residual": "ar1(v | g)"}),
    "weights": ("y ~ x + (1 | g)", {"residual": "ar1(v | g)", "weights": "w"}),
    "relationship": ("y ~ x + (1 | g)", {"residual": "ar1(v | g)", "relationship": {"g": RELATED}}),
    "crossed, independent": ("y ~ x + (1 | g) + (1 | h)", {}),
    "crossed, weighted": ("y ~ x + (1 | g) + (1 | h)", {"weights": "w"}),
    "nested, independent": ("y ~ x + (1 | k / g)", {}),
    "slopes beside an intercept": ("y ~ x + (x | g) + (1 | h)", {}),
    "relationship, crossed": ("y ~ x + (1 | g) + (1 | h)", {"relationship": {"g": RELATED}}),
}


@pytest.mark.parametrize("theta", [10.0, 900.0, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("kind", STRUCTURED)
def test_criterion_and_slope_keep_their_digits_by_rows(kind: str, theta: float) -> None:
    formula, options = STRUCTURED[kind]
    problem = blm.LMM(formula, few_rows(1), check="warn", **options).problem
    sizes = [theta] if len(problem.random.terms) == 1 else [theta, 1.0]
    for own in (sizes, sizes[::-1]):
        x = problem.start.copy()
        for term, size in zip(problem.random.terms, own, strict=True):
            x[term.part] = term.covariance.from_matrix(size**2 * np.eye(term.covariance.q))
        for restricted in (True, False):
            precise = precise_criterion(problem, x, restricted)
            assert problem.criterion.values(x[None], restricted)[0] == pytest.approx(precise, abs=1e-8 * max(1.0, theta / 1e6))
            # the slope along the sizes, which a step of a thousandth of each tells
            random = np.arange(len(x)) < problem.random.size
            near = problem.criterion.values(np.array([np.where(random, share * x, x) for share in (1.001, 0.999)]), restricted)
            gradient = problem.criterion.at(x, restricted, order=1).gradient[: problem.random.size]
            assert gradient @ x[: problem.random.size] == pytest.approx((near[0] - near[1]) / 0.002, abs=2e-3)
