"""Cross-products that are drawn have the distribution of those of drawn rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayeslmm.inference.intervals.batch_refit import ResponseProducts
from bayeslmm.inference.intervals.resampling import ColumnValues, ProductSampler, laid_out
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from tests.laws.designs import MIXED, Example, mixed, random_x, related

EXAMPLES = [pytest.param(mixed(name, seed, weighted=bool(seed % 2)), id=f"{name}{seed}") for name in MIXED for seed in (0, 1)]
EXAMPLES.append(pytest.param(related(), id="relationship"))
SEED = np.random.SeedSequence(5)


def in_layout(example: Example, many: bool) -> Problem:
    """The problem, its cross-products as for one theta or as for many."""
    problem = example.model().problem
    kernel = problem.criterion.kernel
    assert isinstance(kernel, RandomEffectsKernel)
    cross = problem.cross_products_for_many() if many else kernel.cross
    return replace(problem, criterion=replace(problem.criterion, kernel=replace(kernel, cross=cross)))


def stacked(values: ColumnValues) -> np.ndarray:
    B = values.X.shape[1]
    return np.concatenate([values.X, values.first.reshape(-1, B), values.rest])


def taken_apart(matrix: np.ndarray, like: ColumnValues) -> ColumnValues:
    B, r, first = matrix.shape[1], len(like.X), like.first.shape[:2]
    cut = r + first[0] * first[1]
    return ColumnValues(matrix[:r], matrix[r:cut].reshape(*first, B), matrix[cut:])


def products_of_rows(problem: Problem, Y: np.ndarray) -> np.ndarray:
    found = ResponseProducts.of(problem, Y)
    parts = [found.Xy, *(own.reshape(-1, Y.shape[1]) for own in (found.first, found.rest) if own is not None)]
    return np.concatenate(parts)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_root_is_one_of_the_cross_products_of_all_columns(example: Example, many: bool) -> None:
    problem = in_layout(example, many)
    sampler, n = ProductSampler.of(problem), problem.criterion.n
    weights = problem.standardization.weights(problem.design, slice(0, n))
    columns = products_of_rows(problem, np.eye(n))
    C = columns @ (columns / (1.0 if weights is None else weights)).T
    (q, K), m, r = sampler.kept_first.shape, len(sampler.kept_rest), sampler.X_root.shape[1]
    z = ColumnValues(np.zeros((r, 0)), np.zeros((q, K, 0)), np.zeros((m, 0)))
    beta = ColumnValues(np.zeros((problem.criterion.p, 0)), z.first, z.rest)
    np.testing.assert_allclose(stacked(sampler._gram(taken_apart(np.eye(len(C)), beta))), C, atol=1e-11 * np.abs(C).max())
    root = stacked(sampler._errors(taken_apart(np.eye(r + q * K + m), z)))
    np.testing.assert_allclose(root @ root.T, C, atol=1e-11 * np.abs(C).max())
    # a direction of X that is rounding may count as one: its square is then drawn with the errors', which have it no longer
    assert 0 <= sampler.rank - np.linalg.matrix_rank(C, hermitian=True) <= problem.criterion.p


@pytest.mark.parametrize("example", EXAMPLES[::3])
def test_what_is_drawn_has_the_moments_of_the_model(example: Example) -> None:
    problem = in_layout(example, many=False)
    n, p, B, sigma2 = problem.criterion.n, problem.criterion.p, 4000, 0.7
    x = random_x(problem, 3)
    alpha = np.linspace(-1.0, 1.5, p)
    drawn = ProductSampler.of(problem).draw(x, sigma2, alpha, SEED.spawn(B))
    weights = problem.standardization.weights(problem.design, slice(0, n))
    W = np.ones(n) if weights is None else weights
    columns = products_of_rows(problem, np.eye(n)) / W
    Z, T = columns[p:].T, [own[0] for own in problem.random.blocks(x[None])]
    D = np.zeros((Z.shape[1], Z.shape[1]))
    begin = 0
    for f, own in enumerate(T):
        q, K = len(own), problem.random.factors[f].K
        first = f == 0 and laid_out(problem).first is not None
        block = np.kron(own @ own.T, np.eye(K)) if first else np.kron(np.eye(K), own @ own.T)
        D[begin : begin + q * K, begin : begin + q * K] = block
        begin += q * K
    V = sigma2 * (Z @ D @ Z.T + np.diag(1.0 / W))
    mean, half = columns[:p].T @ alpha, np.linalg.cholesky(V)
    spread = half.T @ np.diag(W) @ half
    yy = float(mean @ (W * mean) + np.trace(spread))
    sd = np.sqrt(2.0 * np.trace(spread @ spread) + 4.0 * (half.T @ (W * mean)) @ (half.T @ (W * mean)))
    assert abs(drawn.yy.mean() - yy) < 5.0 * sd / np.sqrt(B)
    np.testing.assert_allclose(drawn.yy.std(), sd, rtol=0.1)
    parts = [drawn.Xy, *(own.reshape(-1, B) for own in (drawn.first, drawn.rest) if own is not None)]
    sums, own = np.concatenate(parts), (columns * W) @ V @ (columns * W).T
    scale = np.sqrt(np.diag(own)) + (np.diag(own) == 0.0)
    np.testing.assert_allclose(np.cov(sums) / np.outer(scale, scale), own / np.outer(scale, scale), atol=0.12)
    np.testing.assert_allclose((sums.mean(axis=1) - (columns * W) @ mean) / scale, 0.0, atol=5.0 / np.sqrt(B))


def test_a_stream_gives_the_same_response_alone_and_among_others() -> None:
    problem = in_layout(mixed(next(iter(MIXED))), many=True)
    sampler, x, alpha = ProductSampler.of(problem), random_x(problem, 1), np.ones(problem.criterion.p)
    streams = SEED.spawn(5)
    whole, one = sampler.draw(x, 1.0, alpha, streams), sampler.draw(x, 1.0, alpha, streams[3:4])
    np.testing.assert_allclose(whole.yy[3], one.yy[0], rtol=1e-12)
    np.testing.assert_allclose(whole.Xy[:, 3], one.Xy[:, 0], rtol=1e-10)
