"""The same model on rotated coordinates, in which what a profile holds fixed is one entry of x.

An unstructured T may be multiplied by any orthogonal matrix from the left if the columns of Z are turned with it. Turned so that the row of
`whole` that belongs to a column of the user's comes first, `sd_a = sigma |w_a| |T_00|`, and zero is a point like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance, Derivatives, Invariance, Parameter
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel


@dataclass(frozen=True, slots=True, eq=False)
class Rotation(Covariance):
    """Sigma = Q T T' Q' with the T of an unstructured family: the same family on turned axes.

    turn : (q, q) orthogonal
    """

    name: str
    q: int
    inner: Covariance
    turn: Array

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def scales(self) -> Codes:
        return self.inner.scales

    @property
    def natural_parameters(self) -> tuple[Parameter, ...]:
        return self.inner.natural_parameters

    @property
    def invariance(self) -> Invariance:
        return self.inner.invariance

    @property
    def linear(self) -> bool:
        return self.inner.linear

    def start(self) -> Array:
        return self.inner.start()

    def factor(self, x: Array) -> Array:
        return np.asarray(self.turn @ self.inner.factor(x))

    def factor_derivative(self, x: Array) -> Array:
        return np.asarray(self.turn @ self.inner.factor_derivative(x))

    def from_matrix(self, sigma: Array) -> Array:
        return self.inner.from_matrix(self.turn.T @ sigma @ self.turn)

    def plain(self, x: Array) -> Array:
        """x of the same Sigma on axes that are not turned."""
        return self.inner.map_rows(x, self.turn)

    def onto(self, plain: Array) -> Array:
        """x on these axes of a Sigma known on the original ones."""
        return self.inner.map_rows(plain, self.turn.T)

    def natural(self, x: Array) -> Array:
        return self.inner.natural(self.plain(x))

    def from_natural(self, values: Array) -> Array:
        return self.onto(self.inner.from_natural(values))

    def natural_derivatives(self, values: Array) -> Derivatives:
        return self.inner.natural_derivatives(values)


def rotation_towards(rows: Sequence[Array]) -> Array:
    """An orthogonal Q (q, q) under which rows become triangular: `rows[0] @ Q = (c, 0, ...)`, `rows[1] @ Q = (d, e, 0, ...)`, c, e > 0."""
    stacked = np.column_stack(rows)
    Q, R = np.linalg.qr(stacked, mode="complete")
    signs = np.ones(len(Q))
    signs[: len(rows)] = np.where(np.diagonal(R) < 0, -1.0, 1.0)
    return np.asarray(Q * signs)


def rotate_problem(problem: Problem, position: int, turn: Array) -> Problem:
    """The problem with one unstructured term on turned axes; cross-products are shared."""
    terms = list(problem.random.terms)
    inner = terms[position].covariance
    terms[position] = replace(terms[position], covariance=Rotation("turned", inner.q, inner, turn))
    random = replace(problem.random, terms=tuple(terms))
    kernel = problem.criterion.kernel
    if isinstance(kernel, RandomEffectsKernel):
        moved: RandomEffectsKernel | BlockDiagonalKernel = replace(kernel, parameters=random)
    else:
        assert isinstance(kernel, BlockDiagonalKernel)
        moved = replace(kernel, random=random)
    return replace(problem, random=random, criterion=replace(problem.criterion, kernel=moved))


def rotated_x(moved: Problem, position: int, x: Array) -> Array:
    """x of the original problem on the axes of the turned one."""
    term = moved.random.terms[position]
    assert isinstance(term.covariance, Rotation)
    out = x.copy()
    out[term.part] = term.covariance.onto(x[term.part])
    return out
