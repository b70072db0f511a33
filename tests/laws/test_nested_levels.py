"""Nested factors: rows added up by level of the inner one, and blocks laid out by level of the outer one, change nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm._arrays import Array, Codes
from bayeslmm.likelihood.random_effects.cross_products import by_cell
from tests.laws.definition import define


def nested(inner: int, outer: int, rows: int, seed: int = 3) -> pd.DataFrame:
    """Rows in any order; every level of h lies within one of g."""
    rng = np.random.default_rng(seed)
    h = rng.permutation(np.repeat(np.arange(inner), rows))
    g = (h * 7 + 3) % outer
    x, w = rng.normal(size=len(h)) + 5.0, rng.uniform(0.5, 2.0, len(h))
    y = x + 0.7 * rng.normal(size=outer)[g] + rng.normal(size=inner)[h] + rng.normal(size=len(h))
    return pd.DataFrame({"y": y, "x": x, "w": w, "g": g, "h": h})


def sums(codes: list[Codes], Z: list[list[Array]], weights: Array | None, weighted: Array, sizes: tuple[int, int]) -> list[Array]:
    """What the rows add up to: by level of both factors with the border and with themselves, and by pair."""
    w = np.ones(len(codes[0])) if weights is None else weights
    z = [own[0] for own in Z]
    found = []
    for code, own, K in zip(codes, z, sizes, strict=True):
        total = np.zeros((K, 1 + len(weighted)))
        np.add.at(total, code, np.column_stack([w * own**2, *(own * column for column in weighted)]))
        found.append(total)
    pairs = np.zeros(sizes)
    np.add.at(pairs, tuple(codes), w * z[0] * z[1])
    return [*found, pairs]


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_by_cell_have_the_sums_of_all_rows(weighted: bool) -> None:
    data = nested(30, 4, 20)
    codes = [data["h"].to_numpy(np.int64), data["g"].to_numpy(np.int64)]
    Z = [[np.full(len(data), 0.5)], [np.full(len(data), -2.0)]]
    weights = data["w"].to_numpy() if weighted else None
    Xy = data[["x", "y"]].to_numpy().T * (1.0 if weights is None else weights)
    fewer = by_cell(codes, Z, weights, Xy, 30)
    assert len(fewer[0][0]) == 30
    for now, all_rows in zip(sums(*fewer, (30, 4)), sums(codes, Z, weights, Xy, (30, 4)), strict=True):
        np.testing.assert_allclose(now, all_rows, rtol=1e-12)


@pytest.mark.parametrize("late", [0, 599], ids=["first row", "last row"])
def test_a_single_row_that_crosses_is_seen(late: int) -> None:
    data = nested(30, 4, 20)
    codes = [data["h"].to_numpy(np.int64), data["g"].to_numpy(np.int64).copy()]
    codes[1][late] = (codes[1][late] + 1) % 4
    Z = [[np.ones(len(data))], [np.ones(len(data))]]
    assert by_cell(codes, Z, None, data[["y"]].to_numpy().T, 30)[0] is codes


def test_a_column_that_varies_is_left_alone() -> None:
    data = nested(30, 4, 20)
    codes = [data["h"].to_numpy(np.int64), data["g"].to_numpy(np.int64)]
    Z = [[np.ones(len(data))], [data["x"].to_numpy()]]
    assert by_cell(codes, Z, None, data[["y"]].to_numpy().T, 30)[0] is codes


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("crossing", [0, 1])
def test_the_criterion_is_that_of_the_definition(weights: str | None, crossing: int) -> None:
    data = nested(30, 4, 20)
    data.loc[data.index[:crossing], "g"] = (data["g"][:crossing] + 1) % 4
    problem = blm.LMM("y ~ x + (1 | g) + (1 | h)", data, weights=weights).problem
    x = np.array([0.6, 1.3])
    judge = define(problem, x, True)
    assert problem.criterion.at(x, True).value == pytest.approx(judge.value, rel=1e-11)


def block_criterion(data: pd.DataFrame, terms: list[tuple[Array, str]], D: list[Array]) -> float:
    """-2 log likelihood of y ~ x + terms with sigma and alpha profiled out, level of g by level of g."""
    parts = []
    for _, block in data.groupby("g"):
        V = np.eye(len(block))
        for (columns, group), own in zip(terms, D, strict=True):
            z, code = columns[block.index], block[group].to_numpy()
            V += (code[:, None] == code) * (z @ own @ z.T)
        Xy = np.column_stack([np.ones(len(block)), block["x"], block["y"]])
        parts.append((np.linalg.slogdet(V)[1], Xy.T @ np.linalg.solve(V, Xy)))
    logdet, M = sum(p[0] for p in parts), np.sum([p[1] for p in parts], axis=0)
    r2 = M[2, 2] - M[:2, 2] @ np.linalg.solve(M[:2, :2], M[:2, 2])
    return float(logdet + len(data) * (1.0 + np.log(2.0 * np.pi * r2 / len(data))))


@pytest.mark.parametrize("outer", ["(1 | g)", "(x | g)"])
def test_many_nested_levels_equal_the_sum_over_blocks(outer: str) -> None:
    """So many levels that the remaining ones are kept apart, each a block of its own."""
    data = nested(400, 100, 9)
    problem = blm.LMM(f"y ~ x + {outer} + (1 | h)", data).problem
    kernel = problem.criterion.kernel
    assert kernel.cross.rest is not None
    assert kernel.cross.rest.batches[0].index.shape[0] == 100
    x = np.linspace(0.4, 0.9, problem.size)
    D = problem.relative_covariances(x)
    ones = np.ones((len(data), 1))
    columns = ones if outer == "(1 | g)" else np.column_stack([ones, data["x"]])
    expected = block_criterion(data, [(columns, "g"), (ones, "h")], D)
    point = problem.criterion.at(x, False)
    assert point.value == pytest.approx(expected, rel=1e-11)
    moves = np.concatenate([x + 1e-5 * np.eye(len(x)), x - 1e-5 * np.eye(len(x))])
    values = problem.criterion.values(moves, False)
    np.testing.assert_allclose(point.gradient, (values[: len(x)] - values[len(x) :]) / 2e-5, rtol=1e-6, atol=1e-4)


def regional(seed: int, kinds: int, n: int = 420) -> pd.DataFrame:
    """Rows of regions in which the levels of up to four factors nest or cross; no level is in two regions."""
    rng = np.random.default_rng(seed)
    region = rng.integers(0, 12, n)
    found = {"region": region}
    for name, levels in zip("abc", rng.integers(2, 7, 3)[:kinds], strict=False):
        found[name] = region * 10 + rng.integers(0, levels, n)
    found["ab"] = found["a"] * 100 + found["b"] % 10
    data = pd.DataFrame(found)
    data["x"], data["w"] = rng.normal(size=n), rng.uniform(0.5, 2.0, n)
    data["y"] = data["x"] + rng.normal(size=12)[region] + rng.normal(size=n)
    return data


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "terms",
    ["(1 | region/a/b)", "(1 | ab) + (1 | a) + (1 | b)", "(x | ab) + (1 | a) + (x | b) + (1 | region)", "(1 | c) + (x | a) + (1 | b)"],
)
def test_three_factors_in_several_components_have_the_criterion_of_the_definition(terms: str, seed: int) -> None:
    """Pairs of levels that never met tie no components together, and have no place in any of them."""
    data = regional(seed, 3)
    problem = blm.LMM(f"y ~ x + {terms}", data, weights="w" if seed % 2 else None, check="warn").problem
    assert problem.criterion.kernel.cross.rest is not None
    rng = np.random.default_rng(seed)
    for x in (np.linspace(0.3, 1.2, problem.size), rng.normal(size=problem.size)):
        assert problem.criterion.at(x, True).value == pytest.approx(define(problem, x, True).value, rel=1e-11)
