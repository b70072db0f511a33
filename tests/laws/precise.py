"""The criterion by its definition in sixty decimal digits, by which large relative standard deviations are judged."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel

DIGITS = 60


def _decimals(M: Array) -> list[list[Decimal]]:
    return [[Decimal(float(v)) for v in row] for row in np.atleast_2d(M)]


def _eliminate(V: list[list[Decimal]], U: list[list[Decimal]]) -> tuple[Decimal, list[list[Decimal]]]:
    """log |V| and U' V^-1 U by elimination without pivots: V is positive definite."""
    n, r = len(V), len(U[0])
    V, U, logdet = [row[:] for row in V], [row[:] for row in U], Decimal(0)
    products = [[Decimal(0)] * r for _ in range(r)]
    for k in range(n):
        pivot = V[k][k]
        logdet += pivot.ln()
        for a in range(r):
            for b in range(r):
                products[a][b] += U[k][a] * U[k][b] / pivot
        for i in range(k + 1, n):
            share = V[i][k] / pivot
            if share:
                V[i] = [v - share * w for v, w in zip(V[i], V[k], strict=True)]
                U[i] = [v - share * w for v, w in zip(U[i], U[k], strict=True)]
    return logdet, products


def precise_criterion(problem: Problem, x: Array, restricted: bool) -> float:
    """The criterion at x; R and Z T as they are in double precision."""
    kernel = problem.criterion.kernel
    kernel = kernel.by_rows if isinstance(kernel, RandomEffectsKernel) else kernel
    assert isinstance(kernel, BlockDiagonalKernel)
    data = kernel.data
    n, p = data.n, data.r - 1
    log_scale = kernel.log_scale(x)[0]
    scale = np.ones(n) if log_scale is None else np.exp(log_scale)
    with localcontext() as context:
        context.prec = DIGITS
        V = [[Decimal(0)] * n for _ in range(n)]
        for batch in data.rows:
            for rows, R in zip(batch.rows, kernel.structure.matrices(x[kernel.residual_part], batch.block), strict=True):
                for i, own in zip(rows, R, strict=True):
                    for j, value in zip(rows, own, strict=True):
                        V[i][j] += Decimal(float(value))
        for term, own in zip(data.terms, problem.random.terms, strict=True):
            T = own.covariance.factor(x[own.part])
            columns = _decimals(term.Z / scale[:, None] @ T)
            for i in range(n):
                for j in range(n):
                    alike = float(term.codes[i] == term.codes[j])
                    link = alike if term.relationship is None else float(term.relationship[term.codes[i], term.codes[j]])
                    if link:
                        V[i][j] += Decimal(link) * sum((a * b for a, b in zip(columns[i], columns[j], strict=True)), Decimal(0))
        logdet, M = _eliminate(V, _decimals(data.Xy / scale[:, None]))
        logdet_X, left = _eliminate([row[:p] for row in M[:p]], [[row[p]] for row in M[:p]])
        r2, df = M[p][p] - left[0][0], n - p if restricted else n
        value = logdet + df * (r2 / df).ln() + (logdet_X if restricted else 0)
        return float(value + Decimal(problem.criterion.constant(restricted) + 2.0 * float(np.log(scale).sum())))
