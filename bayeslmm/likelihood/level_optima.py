"""The optimum of the criterion without each level of a factor within which all grouping factors are nested, for all levels at once.

With G = [X y]' V0^-1 [X y], and G_k and V0_k of the rows of level k alone, the criterion without it follows from log |V0| - log |V0_k|
and G - G_k: no random effect is shared between levels. At common covariance parameters x these cost as much for all levels as the
criterion itself. One level moves the estimate little, and there every criterion is a polynomial but for far less than matters: values at
common points give its optimum. What a polynomial misses is seen at the points, which are twice as many as it has coefficients; such
levels, and those that move farther than the points reach, are left to a search.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np

from bayeslmm._arrays import Array, Codes, Mask
from bayeslmm.likelihood.case_deletion import COLLINEAR_EIGENVALUE, DowndatedSums
from bayeslmm.likelihood.kernel import factor_and_inverse, solve_Xy
from bayeslmm.likelihood.random_effects.blocked import evaluate_blocked
from bayeslmm.likelihood.random_effects.schur import SchurComplement

POINT_SETS = (4, 6.0), (7, 6.0), (7, 24.0), (10, 24.0)
"""Degrees of polynomials, and standard errors of x over the root of the number of levels that their points reach, in turns."""

MISSED = 1e-7
"""What a polynomial may miss -2 log likelihood by: a millionth of a standard error of x."""

LONGEST_REACH = 0.5
"""Standard errors that the points reach at most."""

LEVELS_AT_ONCE = 20_000
"""Levels whose polynomials are searched together."""


def points_of(size: int, degree: int = POINT_SETS[0][0]) -> int:
    """How many points a polynomial of `size` variables is found from: two for a coefficient. Fewer levels are left to searches."""
    return 2 * comb(size + degree, degree)


@dataclass(frozen=True, slots=True, eq=False)
class LevelOptima:
    """The fits without each level: x (K, size), sigma2 (K,), alpha (K, p), inverse (K, p, p) of X' V0^-1 X; found (K,) which there are."""

    x: Array
    sigma2: Array
    alpha: Array
    inverse: Array
    found: Mask


@dataclass(frozen=True, slots=True, eq=False)
class _Shares:
    """log |V0_k| and G_k of every level k.

    Xy : (K, r, r) [X y]' W [X y] of every level; inside : for every factor the level that each of its levels lies in, (levels,);
    alone : whether the levels are those of the only factor
    """

    sums: DowndatedSums
    Xy: Array
    inside: tuple[Codes, ...]
    alone: bool

    @classmethod
    def of(cls, sums: DowndatedSums, codes: Codes, size: int) -> _Shares:
        inside = []
        for code, factor in zip(sums.codes, sums.kernel.cross.factors, strict=True):
            level = np.zeros(factor.K, np.int64)
            level[code] = codes
            inside.append(level)
        alone = len(inside) == 1 and np.array_equal(inside[0], np.arange(size))
        return cls(sums, _by_level(sums, codes, size), tuple(inside), alone)

    def at(self, x: Array) -> tuple[Array, Array]:
        """At one x for all levels."""
        Ts = self.sums.kernel.parameters.blocks(x[None])
        logdet, own = self._of_first(Ts[0])
        if self.alone:
            return logdet, self.Xy - own
        K = len(self.Xy)
        lost, determinants = np.zeros_like(self.Xy), np.bincount(self.inside[0], logdet, K)
        _add_by_level(lost, self.inside[0], own)
        rest = evaluate_blocked(self.sums.kernel.cross, Ts, derivatives=False).rest
        if rest is not None:
            assert isinstance(rest, SchurComplement)
            level = np.concatenate([np.repeat(own, s.q) for own, s in zip(self.inside[1:], rest.layout.spans, strict=True)])
            for batch, part in zip(rest.layout.batches, rest.logdets, strict=True):
                determinants += np.bincount(level[batch.index[:, 0]], part[0], K)
            _add_by_level(lost, level, rest.V[0, :, :, None] * rest.QV[0, :, None, :])
        return determinants, self.Xy - lost

    def of_each(self, T: Array) -> tuple[Array, Array]:
        """Where the levels are those of the only factor, each at its own T (K, q, q)."""
        logdet, own = self._of_first(T)
        return logdet, self.Xy - own

    def _of_first(self, T: Array) -> tuple[Array, Array]:
        """log |T' A T + I| and C' H C by level of the first factor; T (1 or K, q, q)."""
        first = self.sums.kernel.cross.first
        assert first is not None
        A, C, transposed = first.A.transpose(2, 0, 1), first.C.transpose(2, 0, 1), T.swapaxes(1, 2)
        L, inverse = factor_and_inverse(transposed @ A @ T + np.eye(first.q))
        W = inverse @ (transposed @ C)
        return 2.0 * np.log(L.diagonal(axis1=1, axis2=2)).sum(1), W.swapaxes(1, 2) @ W


@dataclass(frozen=True, slots=True, eq=False)
class _LeftOut:
    """Criteria without the levels `some`. df : (K,)"""

    shares: _Shares
    df: Array
    some: Mask
    restricted: bool

    def values(self, x: Array) -> tuple[Array, Array, Array]:
        """The criterion without each of `some` at one x, G of all rows, and G_k of the levels `some`."""
        logdet, own = self.shares.at(x)
        G = own.sum(axis=0)
        solution = solve_Xy(logdet.sum() - logdet[self.some], G - own[self.some])
        with np.errstate(invalid="ignore", divide="ignore"):
            value = solution.logdet + self.shares.sums.problem.criterion.of_errors(solution.r2, self.df[self.some])
        return value + solution.logdet_X if self.restricted else value, G, own[self.some]


def level_optima(sums: DowndatedSums, codes: Codes, K: int, x: Array, errors: Array, restricted: bool) -> LevelOptima:
    """From the optimum x (size,) of all rows, with the standard errors of x, of a model without a relationship matrix.

    codes : (n,) of K levels, within which all factors are nested
    """
    criterion, size = sums.problem.criterion, len(x)
    p, left = criterion.p, criterion.n - np.bincount(codes, minlength=K)
    shares = _Shares.of(sums, codes, K)
    Xy = shares.Xy
    X_left = Xy[:, :p, :p].sum(axis=0) - Xy[:, :p, :p]
    eigenvalues = np.linalg.eigvalsh(X_left)
    identified = (left > p) & ((eigenvalues[:, :1] >= COLLINEAR_EIGENVALUE * eigenvalues.mean(axis=1, keepdims=True)).all(axis=1))
    none = np.full((K, p + 1, p + 1), np.nan)
    made = LevelOptima(np.tile(x, (K, 1)), none[:, 0, 0].copy(), none[:, 0, 1:].copy(), none[:, 1:, 1:].copy(), np.zeros(K, bool))
    for degree, reach in POINT_SETS:
        some = identified & ~made.found
        if some.sum() < points_of(size, degree):
            break
        radius = errors * min(LONGEST_REACH, reach / np.sqrt(K))
        powers = _powers(size, degree)
        points = np.cos(np.pi * np.random.default_rng(0).uniform(size=(points_of(size, degree), size)))
        basis = _monomials(points, powers)
        out = _LeftOut(shares, (left - p if restricted else left).astype(float), some, restricted)
        try:
            found = [out.values(x + radius * point) for point in points]
            values = np.array([value for value, _, _ in found])
            values -= values.mean(axis=0)
            coefficients = np.linalg.lstsq(basis, np.nan_to_num(values), rcond=None)[0]
            near = np.isfinite(values).all(axis=0) & (np.abs(values - basis @ coefficients) <= MISSED).all(axis=0)
            place, inside = _minima(coefficients, powers)
            at = np.flatnonzero(some)[near & inside]
            u = place[near & inside]
            whole = np.linalg.lstsq(basis, np.array([G.ravel() for _, G, _ in found]), rcond=None)[0]
            monomials = _monomials(u, powers)
            if shares.alone:
                found_T = sums.kernel.parameters.blocks(x + radius * u)[0]
                T = np.tile(np.eye(found_T.shape[1]), (K, 1, 1))
                T[at] = found_T
                own = shares.of_each(T)[1][at]
            else:
                own = _interpolate(basis, [parts[near & inside] for _, _, parts in found], monomials)
            solution = solve_Xy(np.zeros(len(at)), (monomials @ whole).reshape(own.shape) - own)
        except np.linalg.LinAlgError:
            break
        made.x[at], made.alpha[at], made.inverse[at] = x + radius * u, solution.alpha, solution.information_inverse
        made.sigma2[at] = criterion.sigma2_of(solution.r2, out.df[at])
        made.found[at] = np.isfinite(made.sigma2[at]) & (made.sigma2[at] > 0)
    return made


def _interpolate(basis: Array, values: list[Array], monomials: Array) -> Array:
    """Polynomials through values (K, r, r) at every point, each level's at its own place."""
    solve, out = np.linalg.pinv(basis), np.empty_like(values[0])
    for begin in range(0, len(out), LEVELS_AT_ONCE):
        part = slice(begin, begin + LEVELS_AT_ONCE)
        own = np.array([value[part] for value in values])
        weights = monomials[part] @ solve
        out[part] = np.einsum("kj,jkab->kab", weights, own)
    return out


def _add_by_level(total: Array, level: Codes, parts: Array) -> None:
    """Add matrices (m, r, r) to those of their levels."""
    r = total.shape[1]
    for a in range(r):
        for b in range(r):
            total[:, a, b] += np.bincount(level, parts[:, a, b], len(total))


def _by_level(sums: DowndatedSums, codes: Codes, K: int) -> Array:
    """[X y]' W [X y] of every level, (K, r, r)."""
    r = len(sums.Xy)
    out = np.empty((K, r, r))
    for a in range(r):
        weighted = sums.Xy[a] if sums.weights is None else sums.Xy[a] * sums.weights
        for b in range(a + 1):
            out[:, a, b] = out[:, b, a] = np.bincount(codes, weighted * sums.Xy[b], K)
    return out


def _powers(size: int, degree: int) -> Codes:
    """Exponents of every monomial, (coefficients, size)."""
    found = [np.bincount(chosen, minlength=size + 1)[:size] for chosen in combinations_with_replacement(range(size + 1), degree)]
    return np.array(found).reshape(-1, size)


def _monomials(u: Array, powers: Codes) -> Array:
    """Every monomial at u (K, size), (K, coefficients); 0 where an exponent is negative."""
    out = np.ones((len(u), len(powers)))
    for i, exponents in enumerate(powers.T):
        out *= np.where(exponents < 0, 0.0, u[:, i, None] ** np.maximum(exponents, 0))
    return out


def _minima(coefficients: Array, powers: Codes) -> tuple[Array, Mask]:
    """The minimum next to 0 of each polynomial (coefficients, K), and whether it is one and within the points."""
    parts = [coefficients[:, begin : begin + LEVELS_AT_ONCE] for begin in range(0, coefficients.shape[1], LEVELS_AT_ONCE)]
    found = [_some_minima(part.T, powers) for part in parts]
    return np.concatenate([u for u, _ in found]), np.concatenate([inside for _, inside in found])


NEWTON_STEPS = 12
"""Newton's steps on a polynomial: quadratic near the middle, it needs a few."""


def _some_minima(coefficients: Array, powers: Codes) -> tuple[Array, Mask]:
    K, size = len(coefficients), powers.shape[1]
    u, step, unit = np.zeros((K, size)), np.ones((K, size)), np.eye(size, dtype=np.int64)
    gradient, H = np.empty((K, size)), np.empty((K, size, size))
    for _ in range(NEWTON_STEPS):
        for i in range(size):
            gradient[:, i] = (_monomials(u, powers - unit[i]) * powers[:, i] * coefficients).sum(1)
            for j in range(i + 1):
                factor = powers[:, i] * (powers[:, j] - (i == j))
                H[:, i, j] = H[:, j, i] = (_monomials(u, powers - unit[i] - unit[j]) * factor * coefficients).sum(1)
        values, vectors = np.linalg.eigh(H)
        with np.errstate(divide="ignore", invalid="ignore"):
            along = np.einsum("kij,ki->kj", vectors, gradient) / np.where(values > 0, values, np.inf)
        step = -np.einsum("kij,kj->ki", vectors, along)
        u = np.clip(u + step, -2.0, 2.0)
        if np.abs(step).max(initial=0.0) < SETTLED_STEP:
            break
    return u, (np.abs(u) <= 1.0).all(axis=1) & (values > 0).all(axis=1) & (np.abs(step) < SETTLED_STEP).all(axis=1)


SETTLED_STEP = 1e-9
"""Step, as a share of how far the points reach, that ends a search."""
