"""Tables of a model by their textbook definitions on dense matrices: every term coded by all its indicators, V as one n x n matrix.

What a table says is judged by it: GLS, Satterthwaite, Kenward and Roger, hypotheses of types 1 to 3 by SAS's definitions, marginal means
over a grid of its own, predictions and random effects. Nothing of the package is used but the variances that a fit printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd

Array = np.ndarray
Term = tuple[str, ...]


@dataclass(frozen=True)
class RandomTerm:
    """Columns that vary over the levels of groups crossed; correlated or each of its own variance."""

    columns: tuple[str, ...]
    groups: tuple[str, ...]
    correlated: bool = True


@dataclass(frozen=True, eq=False)
class Description:
    """A model as the definitions need it: factors with their levels, terms, random terms, the errors.

    residual : None, ("ident", factor), (structure, visit, subject) with one of us, cs, ar1, toep, csh, ar1h, toeph, adh
    """

    data: pd.DataFrame
    factors: dict[str, list[str]]
    terms: tuple[Term, ...]
    random: tuple[RandomTerm, ...]
    residual: tuple[str, ...] | None = None
    weights: str | None = None
    offset: str | None = None
    restricted: bool = True

    def columns(self, term: Term, data: pd.DataFrame) -> Array:
        """One column for each combination of the levels of a term's factors, times its covariates."""
        found = np.prod([data[name].to_numpy(float) for name in term if name not in self.factors], axis=0) * np.ones(len(data))
        found = found[:, None]
        for name in (name for name in term if name in self.factors):
            levels = data[name].to_numpy(object)[:, None] == np.array(self.factors[name], object)
            found = (found[:, :, None] * levels[:, None, :]).reshape(len(data), -1)
        return np.asarray(found)

    def X(self, data: pd.DataFrame) -> Array:
        return np.hstack([self.columns(term, data) for term in self.terms])

    def blocks(self) -> list[slice]:
        sizes = [int(np.prod([len(self.factors[n]) for n in term if n in self.factors])) for term in self.terms]
        ends = np.cumsum(sizes)
        return [slice(int(end - size), int(end)) for size, end in zip(sizes, ends, strict=True)]

    def error_size(self) -> int:
        """How many parameters the errors have."""
        if self.residual is None:
            return 1
        m = len(self.factors[self.residual[1]])
        kind = self.residual[0]
        lags = {"ident": 0, "us": m * (m - 1) // 2, "toep": m - 1, "toeph": m - 1, "adh": m - 1}.get(kind, 1)
        return lags + (1 if kind in ("cs", "ar1", "toep") else m)

    def linear(self) -> bool:
        """Whether V is linear in its parameters but for products that vanish at the optimum."""
        return self.residual is None or self.residual[0] in ("ident", "us", "cs", "toep")

    def serial(self) -> bool:
        """Whether errors of one subject are correlated."""
        return self.residual is not None and self.residual[0] != "ident"

    def covariates(self) -> list[str]:
        return sorted({name for term in self.terms for name in term if name not in self.factors})


def correlations(kind: str, rho: Array, m: int) -> Array:
    """Correlations of m visits."""
    apart = np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
    if kind.startswith("toep"):
        return np.asarray(np.concatenate([[1.0], rho])[apart])
    if kind.startswith("ad"):
        return np.array([[np.prod(rho[min(i, j) : max(i, j)]) for j in range(m)] for i in range(m)])
    return np.asarray(rho[0] ** apart if kind.startswith("ar1") else np.where(apart == 0, 1.0, rho[0]))


def levels_of(groups: Sequence[str], data: pd.DataFrame) -> Array:
    return np.array([":".join(row) for row in data[list(groups)].to_numpy(object)])


def row_columns(term: RandomTerm, data: pd.DataFrame) -> Array:
    return np.column_stack([np.ones(len(data)) if name == "1" else data[name].to_numpy(float) for name in term.columns])


def shared(term: RandomTerm, D: Array, one: pd.DataFrame, other: pd.DataFrame) -> Array:
    """Covariance of the random part of rows of one frame with those of another."""
    alike = levels_of(term.groups, one)[:, None] == levels_of(term.groups, other)[None, :]
    return np.asarray(alike * (row_columns(term, one) @ D @ row_columns(term, other).T))


@dataclass(frozen=True, eq=False)
class DenseFit:
    """A model at its variances: p holds the distinct elements of each D, then the parameters of the errors."""

    about: Description
    p: Array
    V: Array = field(init=False)
    inverse: Array = field(init=False)
    X: Array = field(init=False)
    y: Array = field(init=False)
    C: Array = field(init=False)
    alpha: Array = field(init=False)
    P: Array = field(init=False)

    def __post_init__(self) -> None:
        about = self.about
        V, X = self.covariance(self.p), about.X(about.data)
        y = about.data["y"].to_numpy(float) - (0.0 if about.offset is None else about.data[about.offset].to_numpy(float))
        inverse = np.linalg.inv(V)
        C = np.linalg.pinv(X.T @ inverse @ X, rcond=1e-11, hermitian=True)
        P = inverse - inverse @ X @ C @ X.T @ inverse
        for name, value in (("V", V), ("inverse", inverse), ("X", X), ("y", y), ("C", C), ("alpha", C @ X.T @ inverse @ y), ("P", P)):
            object.__setattr__(self, name, value)

    # -- variances -------------------------------------------------------------------------------------------------------------------------

    def matrices(self, p: Array) -> list[Array]:
        """D of each random term."""
        found, at = [], 0
        for term in self.about.random:
            q = len(term.columns)
            pairs = [(i, j) for i in range(q) for j in range(i + 1) if term.correlated or i == j]
            D = np.zeros((q, q))
            for value, (i, j) in zip(p[at : at + len(pairs)], pairs, strict=True):
                D[i, j] = D[j, i] = value
            found.append(D)
            at += len(pairs)
        return found

    def errors(self, p: Array, one: pd.DataFrame, other: pd.DataFrame) -> Array:
        """Covariance of the errors of structured rows of one frame with those of another; 1 / weights beside it."""
        about = self.about
        own = p[len(p) - self.about.error_size() :]
        if about.residual is None or about.residual[0] == "ident":
            size = own[0] * np.ones(len(one))
            if about.residual is not None:
                size = own[[about.factors[about.residual[1]].index(v) for v in one[about.residual[1]]]]
            R = np.diag(size) if one is other else np.zeros((len(one), len(other)))
        else:
            kind, visit, subject = about.residual
            left, right = (np.array([about.factors[visit].index(v) for v in d[visit]]) for d in (one, other))
            if kind == "us":
                m = len(about.factors[visit])
                S = np.zeros((m, m))
                S[np.tril_indices(m)] = own
                S = S + np.tril(S, -1).T
                R = S[np.ix_(left, right)]
            else:
                m = len(about.factors[visit])
                sds = own[:m] if kind.endswith("h") else np.full(m, np.sqrt(own[0]))
                R = (
                    np.multiply.outer(sds[left], sds[right])
                    * correlations(kind, own[m if kind.endswith("h") else 1 :], m)[np.ix_(left, right)]
                )
            R = R * (one[subject].to_numpy()[:, None] == other[subject].to_numpy()[None, :])
        weights = (np.ones(len(d)) if about.weights is None else d[about.weights].to_numpy(float) for d in (one, other))
        return np.asarray(R / np.sqrt(np.multiply.outer(*weights)))

    def covariance(self, p: Array) -> Array:
        data = self.about.data
        random = [shared(term, D, data, data) for term, D in zip(self.about.random, self.matrices(p), strict=True)]
        return np.asarray(sum(random, self.errors(p, data, data)))

    @cached_property
    def derivatives(self) -> tuple[list[Array], list[list[Array]]]:
        """First and second derivatives of V in p by differences; V is quadratic at most between near points."""
        size = np.maximum(np.abs(self.p), 1e-3 * np.abs(self.p).max())
        step, eye, k = 1e-4 * size, np.eye(len(self.p)), len(self.p)

        def at(shift: Array) -> Array:
            return self.covariance(self.p + shift)

        first = [(at(step[i] * eye[i]) - at(-step[i] * eye[i])) / (2 * step[i]) for i in range(k)]
        if self.about.linear():
            return first, [[np.zeros_like(self.V)] * k for _ in range(k)]
        wide = 30.0 * step
        second = [
            [
                (
                    at(wide[i] * eye[i] + wide[j] * eye[j])
                    - at(wide[i] * eye[i] - wide[j] * eye[j])
                    - at(wide[j] * eye[j] - wide[i] * eye[i])
                    + at(-wide[i] * eye[i] - wide[j] * eye[j])
                )
                / (4 * wide[i] * wide[j])
                for j in range(k)
            ]
            for i in range(k)
        ]
        return first, second

    @cached_property
    def uncertainty(self) -> tuple[Array, Array]:
        """Covariance of p: twice the inverse of the observed Hessian of the criterion, and of the expected one."""
        V1, V2 = self.derivatives
        P, y = self.P, self.y
        M = P if self.about.restricted else self.inverse
        products = [M @ A for A in V1]
        expected = np.array([[np.sum(A * B.T) for B in products] for A in products])
        bends = np.array([[np.sum(M * W) - y @ P @ W @ P @ y for W in row] for row in V2])
        left = np.array([A @ P @ y for A in V1])
        observed = -expected + 2 * left @ P @ left.T + bends
        return 2 * np.linalg.inv(observed), 2 * np.linalg.inv(expected)

    # -- linear functions ------------------------------------------------------------------------------------------------------------------

    def estimable(self, L: Array) -> Array:
        """Which rows of L are combinations of rows of X."""
        _, s, rows = np.linalg.svd(self.X, full_matrices=False)
        rows = rows[s > 1e-10 * s[0]]
        return np.asarray(np.abs(L - L @ rows.T @ rows).max(axis=1) < 1e-7 * np.abs(L).max())

    def satterthwaite(self, row: Array) -> float:
        left, A = self.inverse @ self.X @ self.C @ row, self.uncertainty[0]
        g = np.array([left @ V_i @ left for V_i in self.derivatives[0]])
        return float(2 * (row @ self.C @ row) ** 2 / (g @ A @ g))

    @cached_property
    def kenward_roger(self) -> tuple[Array, Array, list[Array]]:
        """The adjusted covariance of the coefficients, that of p by the expected information, and C'P_i C of each p; V linear in p."""
        inverse, X, C, W = self.inverse, self.X, self.C, self.uncertainty[1]
        V1, _ = self.derivatives
        first = [-X.T @ inverse @ A @ inverse @ X for A in V1]
        middle = np.zeros_like(C)
        for i, A in enumerate(V1):
            for j, B in enumerate(V1):
                Q = X.T @ inverse @ A @ inverse @ B @ inverse @ X
                middle += W[i, j] * (Q - first[i] @ C @ first[j])
        return C + 2 * C @ middle @ C, W, first

    def kenward_roger_test(self, L: Array) -> tuple[float, float]:
        """The scaled F and its denominator, Kenward and Roger (1997)."""
        adjusted, W, first = self.kenward_roger
        C, ell = self.C, np.linalg.matrix_rank(L @ self.C @ L.T, tol=1e-10 * np.abs(L @ self.C @ L.T).max())
        theta = L.T @ np.linalg.inv(L @ C @ L.T) @ L
        A1 = A2 = 0.0
        for i, P_i in enumerate(first):
            for j, P_j in enumerate(first):
                A1 += W[i, j] * np.trace(theta @ C @ P_i @ C) * np.trace(theta @ C @ P_j @ C)
                A2 += W[i, j] * np.trace(theta @ C @ P_i @ C @ theta @ C @ P_j @ C)
        B = (A1 + 6 * A2) / (2 * ell)
        g = ((ell + 1) * A1 - (ell + 4) * A2) / ((ell + 2) * A2)
        d = 3 * ell + 2 * (1 - g)
        c1, c2, c3 = g / d, (ell - g) / d, (ell + 2 - g) / d
        E, V = 1 / (1 - A2 / ell), 2 / ell * (1 + c1 * B) / ((1 - c2 * B) ** 2 * (1 - c3 * B))
        rho = V / (2 * E**2)
        m = 4 + (ell + 2) / (ell * rho - 1)
        F = float((L @ self.alpha) @ np.linalg.solve(L @ adjusted @ L.T, L @ self.alpha)) / ell
        return float(m / (E * (m - 2)) * F), float(m)

    def wald(self, L: Array) -> tuple[float, int]:
        """F over the rank of L and that rank."""
        middle = L @ self.C @ L.T
        values, vectors = np.linalg.eigh(middle)
        keep = values > 1e-9 * values[-1]
        along = vectors[:, keep].T @ (L @ self.alpha)
        return float(along @ (along / values[keep]) / keep.sum()), int(keep.sum())

    # -- hypotheses ------------------------------------------------------------------------------------------------------------------------

    def contains(self, outer: Term, inner: Term) -> bool:
        """Whether a term contains another: the same covariates and more factors."""
        factors = self.about.factors
        numbers = [sorted(n for n in term if n not in factors) for term in (outer, inner)]
        sets = [{n for n in term if n in factors} for term in (outer, inner)]
        return numbers[0] == numbers[1] and sets[1] < sets[0]

    def hypothesis(self, term: Term, kind: int) -> Array:
        """L of a term over the coefficients, by the definitions of SAS's types of estimable functions; no rows where nothing is tested."""
        about = self.about
        blocks = dict(zip(about.terms, about.blocks(), strict=True))
        size = self.X.shape[1]
        own = np.arange(size)[blocks[term]]
        position = about.terms.index(term)
        if kind == 3:
            inside = np.zeros(size, bool)
            strictly = np.zeros(size, bool)
            inside[own] = True
            for other in about.terms:
                if self.contains(other, term):
                    inside[blocks[other]] = strictly[blocks[other]] = True
            within, above = self.supported(inside), self.supported(strictly)
            # what involves the term and those containing it, orthogonal to what involves only those
            rest = within - within @ above.T @ above if len(above) else within
            return _row_basis(rest)
        before = [t for k, t in enumerate(about.terms) if (k < position if kind == 1 else t != term and not self.contains(t, term))]
        after = [t for t in about.terms if t != term and t not in before]
        X0 = np.hstack([np.zeros((len(self.X), 0)), *(self.X[:, blocks[t]] for t in before)])
        X1 = self.X[:, own]
        M = np.eye(len(self.X)) - X0 @ np.linalg.pinv(X0, rcond=1e-10)
        beside, s, _ = np.linalg.svd(M @ X1, full_matrices=False)
        beside = beside[:, s > 1e-9 * np.linalg.norm(X1)]
        L = np.zeros((beside.shape[1], size))
        for t in (term, *after):
            L[:, blocks[t]] = beside.T @ self.X[:, blocks[t]]
        return _row_basis(L)

    def supported(self, columns: Array) -> Array:
        """An orthonormal basis of the rows of X's row space that are 0 outside of columns."""
        _, s, rows = np.linalg.svd(self.X, full_matrices=False)
        rows = rows[s > 1e-10 * s[0]]
        outside = rows[:, ~columns].T
        if outside.size == 0:
            return np.asarray(rows)
        _, s, V = np.linalg.svd(outside, full_matrices=True)
        rank = int((s > 1e-9).sum())
        return np.asarray(V[rank:] @ rows)

    # -- means -----------------------------------------------------------------------------------------------------------------------------

    def means(self, factors: Sequence[str], weights: str = "equal") -> tuple[list[tuple[str, ...]], Array]:
        """Levels of factors and the rows of their marginal means: averages over the grid of all factors, covariates at their means."""
        about = self.about
        names = [name for name in about.factors if any(name in term for term in about.terms)]
        cells = pd.DataFrame(list(product(*(about.factors[name] for name in names))), columns=names, dtype=object)
        for name in about.covariates():
            cells[name] = about.data[name].mean()
        rows = about.X(cells)
        asked = list(product(*(about.factors[name] for name in factors)))
        share = np.ones(len(cells))
        if weights == "proportional":
            others = [name for name in names if name not in factors]
            seen = about.data[others].astype(str).value_counts() if others else None
            if seen is not None:
                share = np.array([seen.get(tuple(row), 0) for row in cells[others].to_numpy()], float)
        found = []
        for levels in asked:
            here = np.all([cells[n] == v for n, v in zip(factors, levels, strict=True)], axis=0) * share
            found.append(here @ rows / here.sum())
        return asked, np.array(found)

    # -- predictions -----------------------------------------------------------------------------------------------------------------------

    def predictions(self, new: pd.DataFrame, conditional: bool) -> tuple[Array, Array, Array]:
        """Estimates, standard errors of the mean and of the random part beside it, without the error of a new observation."""
        X0, inverse, data = self.about.X(new), self.inverse, self.about.data
        D = self.matrices(self.p)
        own = sum((np.diag(shared(t, M, new, new)) for t, M in zip(self.about.random, D, strict=True)), np.zeros(len(new)))
        # errors of one subject are known as far as its other rows tell them
        link = sum((shared(t, M, new, data) for t, M in zip(self.about.random, D, strict=True)), self.errors(self.p, new, data))
        known = own + (np.diag(self.errors(self.p, new, new)) if self.about.serial() else 0.0)
        fixed = X0 @ self.alpha
        plain = np.sqrt(np.einsum("ij,jk,ik->i", X0, self.C, X0))
        if not conditional:
            return fixed, plain, own
        left = X0 - link @ inverse @ self.X
        variance = known - np.einsum("ij,jk,ik->i", link, inverse, link) + np.einsum("ij,jk,ik->i", left, self.C, left)
        variance = np.where(variance > 1e-12 * known, variance, 0.0)
        return fixed + link @ inverse @ (self.y - self.X @ self.alpha), np.sqrt(variance), own

    def random_effects(self, k: int) -> tuple[list[str], Array, Array]:
        """Levels, modes and their standard errors given the coefficients, of the k-th random term."""
        term, data, D = self.about.random[k], self.about.data, self.matrices(self.p)[k]
        codes, Z = levels_of(term.groups, data), row_columns(term, data)
        levels = sorted(set(codes))
        links = [D @ (Z * (codes == level)[:, None]).T @ self.inverse for level in levels]
        modes = [link @ (self.y - self.X @ self.alpha) for link in links]
        given = [np.diag(D - link @ self.V @ link.T) for link in links]
        return levels, np.array(modes), np.sqrt(np.maximum(given, 0.0))


def _row_basis(L: Array) -> Array:
    _, s, V = np.linalg.svd(L, full_matrices=False)
    return np.asarray(V[: int((s > 1e-8 * max(s[0], 1.0)).sum())]) if len(s) else L
