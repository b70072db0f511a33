"""`describe()`: what it says of a model is what evaluates it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.random_effects.kernel import DenseState, RandomEffectsKernel
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel


def frame(n: int, a: int, b: int, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = {"a": rng.permutation(np.arange(n) % a), "b": rng.permutation(np.arange(n) % b), "x": rng.normal(size=n), "t": np.arange(n) // a}
    rows["inner"] = rows["a"] * 3 + rng.integers(0, 3, n)
    return pd.DataFrame(rows).assign(y=rng.normal(size=n) + rng.normal(size=a)[rows["a"]])


MODELS = {
    "least squares": ("y ~ x", {}, (400, 10, 5)),
    "one factor, few levels": ("y ~ x + (x | a)", {}, (400, 20, 5)),
    "one factor, many levels": ("y ~ x + (x | a)", {}, (1200, 150, 5)),
    "few crossed": ("y ~ x + (1 | a) + (1 | b)", {}, (400, 20, 12)),
    "many crossed": ("y ~ x + (x | a) + (1 | b)", {}, (4000, 300, 120)),
    "nested": ("y ~ x + (1 | a) + (1 | inner)", {}, (1500, 100, 5)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_described_are_the_columns_of_the_model(name: str) -> None:
    formula, options, sizes = MODELS[name]
    model = blm.LMM(formula, frame(*sizes), check="warn", **options)
    found, kernel = model.describe(), model.problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    columns = sum(block.count * block.size for block in found.blocks)
    state = kernel.evaluate(model.problem.start[None], derivatives=True)
    assert (found.factorisation == "dense Cholesky") == isinstance(state, DenseState)
    expected = {"least squares": model.X.shape[1], "dense Cholesky": sum(model.Z.shape) - model.nobs + model.X.shape[1] + 1}
    assert columns == expected.get(found.factorisation, model.Z.shape[1])
    assert (found.off_diagonal == "") == (kernel.cross.coupling is None)
    assert found.memory >= kernel.cross.Xy.nbytes
    assert found.factorisation in str(found)


def test_every_factorisation_of_independent_errors_is_among_the_models() -> None:
    found = {
        blm.LMM(formula, frame(*sizes), check="warn", **options).describe().factorisation for formula, options, sizes in MODELS.values()
    }
    assert found == {"least squares", "dense Cholesky", "blocked Cholesky"}


@pytest.mark.parametrize("formula", ["y ~ x", "y ~ x + (1 | a)"])
def test_rows_of_structured_errors_are_described_once(formula: str) -> None:
    data = frame(360, 60, 5).assign(t=lambda d: d.groupby("a").cumcount())
    data = data.drop(index=data.index[data["a"].eq(3) & data["t"].eq(2)])
    model = blm.LMM(formula, data, residual="ar1(t | a)")
    found, kernel = model.describe(), model.problem.criterion.kernel
    assert isinstance(kernel, BlockDiagonalKernel)
    assert found.factorisation == "block-diagonal Cholesky"
    single = sum(block.count * block.size for block in found.blocks if block.what == "subject of rows")
    pooled = sum(pattern.count.sum() * pattern.G.shape[1] ** 0.5 for pattern in kernel.data.pooled)
    assert single + pooled == model.nobs


def test_the_cost_grows_with_the_levels() -> None:
    sizes = ((1200, 150, 5), (4800, 600, 5))
    few, many = (blm.LMM("y ~ x + (x | a)", frame(*size), check="warn").describe() for size in sizes)
    assert many.multiplications == pytest.approx(4.0 * few.multiplications)
    assert many.memory == pytest.approx(4.0 * few.memory, rel=0.02)
