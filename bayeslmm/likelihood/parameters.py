"""The map from the parameter vector to the blocks T of every factor, and its derivatives.

x is on the optimiser's axes and on standardized columns: the parameters of each term's structure one after the other, terms in the order of
the formula. `theta` is what users see: the relative covariance factor on their own columns, column-wise lower triangle for an unstructured
term, natural parameters (standard deviations relative to sigma, then correlations) for the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.linalg import lapack

from bayeslmm._arrays import Array, Codes, readonly
from bayeslmm.covariance.base import Covariance
from bayeslmm.likelihood.random_effects.cross_products import Factor
from bayeslmm.likelihood.standardize import ColumnMap


@lru_cache(maxsize=256)
def column_wise(q: int) -> tuple[Codes, Codes]:
    """Rows and columns of a lower triangle, column by column."""
    columns, rows = np.triu_indices(q)
    return readonly(rows.astype(np.int64)), readonly(columns.astype(np.int64))


def triangularize(M: Array) -> Array:
    """The lower triangular T with T T' = M M' and a diagonal that is not negative; singular M is fine."""
    if len(M) == 1:
        return np.abs(M)
    T = np.tril(lapack.dgeqrf(M.T)[0].T)
    return T * np.where(T.diagonal() < 0, -1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class TermParameters:
    """The parameters of one random term within x and theta."""

    covariance: Covariance
    map: ColumnMap
    part: slice

    def theta(self, x: Array, weight_mean: float) -> Array:
        """User-scale parameters from x (both of one term)."""
        if self.covariance.name == "us" and self.covariance.q == 1:
            return np.asarray(np.abs(self.map.whole[0] * x) / math.sqrt(weight_mean))
        if self.covariance.name == "us":
            root = self.map.whole @ self.covariance.factor(x) / np.sqrt(weight_mean)
            return triangularize(root)[column_wise(self.covariance.q)]
        return self.covariance.natural(self.covariance.map_rows(x, self.map.whole / np.sqrt(weight_mean)))

    def x(self, theta: Array, weight_mean: float) -> Array:
        """The inverse of `theta`."""
        back = self.map.inverse * np.sqrt(weight_mean)
        if self.covariance.name == "us":
            T = np.zeros((self.covariance.q, self.covariance.q))
            T[column_wise(self.covariance.q)] = theta
            return triangularize(back @ T)[column_wise(self.covariance.q)]
        return self.covariance.map_rows(self.covariance.from_natural(theta), back)

    def relative(self, x: Array, weight_mean: float) -> Array:
        """D / sigma^2 on the user's columns."""
        root = self.map.whole @ self.covariance.factor(x) / np.sqrt(weight_mean)
        return np.asarray(root @ root.T)

    def standardized_covariance(self, x: Array, weight_mean: float) -> Array:
        """D / sigma^2 on standardized columns.

        x : all parameters
        """
        root = self.covariance.factor(x[self.part])
        return np.asarray(root @ root.T / weight_mean)

    def root(self, x: Array, Z: Array, weight_mean: float) -> Array:
        """Rows Z (n, q) times a root of D / sigma^2: their squared length is z' D z / sigma^2, found without D of far origins.

        x : all parameters
        """
        return np.asarray(Z @ self.map.whole @ self.covariance.factor(x[self.part]) / np.sqrt(weight_mean))

    def theta_derivative(self, theta: Array) -> Array:
        """d(D / sigma^2) / d theta on the user's columns, (size, q, q)."""
        if self.covariance.name == "us":
            q = self.covariance.q
            rows, columns = column_wise(q)
            T = np.zeros((q, q))
            T[rows, columns] = theta
            out = np.zeros((len(theta), q, q))
            for i, (a, b) in enumerate(zip(rows, columns, strict=True)):
                out[i, a] += T[:, b]
                out[i, :, a] += T[:, b]
            return out
        return self.covariance.natural_derivatives(theta)[1]


@dataclass(frozen=True, eq=False)
class RandomParameters:
    """The parameters of all random terms."""

    terms: tuple[TermParameters, ...]
    factors: tuple[Factor, ...]

    @cached_property
    def size(self) -> int:
        return sum(t.covariance.size for t in self.terms)

    @cached_property
    def order(self) -> Codes | None:
        """For every parameter its place when they are taken factor after factor; None where that changes nothing."""
        taken = [np.arange(self.terms[i].part.start, self.terms[i].part.stop) for factor in self.factors for i in factor.terms]
        places = np.argsort(np.concatenate([*taken, np.zeros(0, np.int64)]))
        return None if np.array_equal(places, np.arange(self.size)) else places.astype(np.int64)

    def blocks(self, x: Array) -> list[Array]:
        """T of every factor, (t, q, q); x (t, size)."""
        out = []
        for factor in self.factors:
            if len(factor.terms) == 1:
                term = self.terms[factor.terms[0]]
                out.append(term.covariance.factor(x[:, term.part]))
                continue
            T = np.zeros((len(x), factor.q, factor.q))
            for i, own in zip(factor.terms, factor.slices, strict=True):
                term = self.terms[i]
                T[:, own, own] = term.covariance.factor(x[:, term.part])
            out.append(T)
        return out

    def derivatives(self, x: Array) -> list[tuple[int, slice, slice, Array]]:
        """For every term: its factor, its columns there, its part of x, dT/dx (t, size, q, q)."""
        out = []
        for f, factor in enumerate(self.factors):
            for i, own in zip(factor.terms, factor.slices, strict=True):
                term = self.terms[i]
                out.append((f, own, term.part, term.covariance.factor_derivative(x[:, term.part])))
        return out

    def chain(self, derivatives: Sequence[tuple[int, slice, slice, Array]], adjoints: Sequence[Array]) -> Array:
        """sum gT * dT for every parameter, (t, size); derivatives as `derivatives` gives them, adjoints[f] (t, q, q).

        Several adjoints may share the derivatives of one point.
        """
        out = np.zeros((len(adjoints[0]) if derivatives else 1, self.size))
        for f, own, part, dT in derivatives:
            out[:, part] = (adjoints[f][:, None, own, own] * dT).sum((-1, -2))
        return out


def random_parameters(terms: Sequence[tuple[Covariance, ColumnMap]], factors: tuple[Factor, ...]) -> RandomParameters:
    found, begin = [], 0
    for covariance, column_map in terms:
        found.append(TermParameters(covariance, column_map, slice(begin, begin + covariance.size)))
        begin += covariance.size
    return RandomParameters(tuple(found), factors)
