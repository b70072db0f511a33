"""Conjugate gradients and Lanczos quadrature of a symmetric positive definite operator, for many vectors at once.

Conjugate gradients solve A x = b. The trace of log A is that of z' log(A) z over probes z, and m steps of Lanczos' method from z give it as
|z|^2 e' log(T) e with the tridiagonal T they leave (Golub and Meurant 1994; Ubaru, Chen and Saad 2017). What such a quadrature changes by
when A does is exact too: with the basis V of the steps and the divided differences of the logarithm at the eigenvalues of T,

    d z' log(A) z = |z|^2 sum_ij G_ij v_i' dA v_j,

so that a sum over few vectors V R, R R' = G, is the derivative of the very number that the quadrature returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array

MAX_STEPS = 1000
"""Steps after which an operator counts as too ill-conditioned."""

SOLVE_TOLERANCE = 1e-12
"""Residual, relative to the right-hand side, of a solution: quadratic forms of it are then exact to rounding."""

QUADRATURE_TOLERANCE = 1e-13
"""Change of a quadrature, relative to itself and to the trace of a unit matrix, at which it counts as found."""

BASIS_TOLERANCE = 1e-9
"""Residual, relative to the solution, of A x = z in the basis of the steps at which that is large enough for derivatives."""

CHECK_SHARE = 0.1
"""Steps between two looks at the quadrature, as a share of those made; two at least."""

NEGLIGIBLE_WEIGHT = 1e-13
"""Eigenvalues of G, relative to the largest, that are left out."""

type Operator = Callable[[Array], Array]


class NotConverged(np.linalg.LinAlgError):
    """An operator that is not positive definite to rounding, or too ill-conditioned for these methods."""


def conjugate_gradients(operator: Operator, b: Array, tolerance: float = SOLVE_TOLERANCE) -> Array:
    """A^-1 b of every column; b (m, s). Raises NotConverged."""
    x, r = np.zeros_like(b), b.copy()
    direction = r.copy()
    square = _dots(r, r)
    target = tolerance**2 * square
    stalled, best = 0, np.full(len(square), np.inf)
    for _ in range(MAX_STEPS):
        active = square > target
        if not active.any():
            return x
        image = operator(direction)
        curvature = _dots(direction, image)
        if not (curvature[active] > 0.0).all():
            raise NotConverged("not positive definite")
        step = np.where(active, square / np.where(active, curvature, 1.0), 0.0)
        x += step * direction
        r -= step * image
        new = _dots(r, r)
        # rounding may keep a residual from getting so small: what no longer falls has been found as well as it can be
        stalled = 0 if (new[active] < best[active]).any() else stalled + 1
        best = np.minimum(best, new)
        if stalled >= STALLED and (best <= (STALLED_TOLERANCE**2 / tolerance**2) * target).all():
            return x
        direction *= np.where(active, new / np.where(active, square, 1.0), 0.0)
        direction += r
        square = np.where(active, new, square)
    raise NotConverged("conjugate gradients did not converge")


STALLED, STALLED_TOLERANCE = 5, 1e-9
"""Steps without progress after which a solution with a residual no larger than this is taken."""


def _dots(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("ms,ms->s", a, b))


@dataclass(frozen=True, slots=True, eq=False)
class Quadrature:
    """The trace of f(A), f(t) = log t - (t - 1), seen from some vectors.

    values : (s,) z' f(A) z
    basis : for each step what the operator kept of it, the vectors v_j (m, s) among it; empty where only values were asked for
    alpha, beta : (j, s) the tridiagonal matrices
    """

    values: Array
    basis: list[tuple[Array, ...]]
    alpha: Array
    beta: Array

    def weights(self, s: int) -> tuple[Array, Array]:
        """R (j, r) and signs (r,) with R diag(signs) R' = G of one vector, |z|^2 left out."""
        roots, vectors = _tridiagonal(self.alpha[:, s : s + 1], self.beta[:, s : s + 1])
        theta, Y = roots[0], vectors[0]
        # log a - log b = log1p((a - b) / b): without cancelling where they are close
        difference = theta[:, None] - theta
        same = np.abs(difference) <= 1e-300
        ratio = np.log1p(difference / theta) / np.where(same, 1.0, difference)
        D = np.where(same, 1.0 / theta, ratio) - 1.0
        G = Y @ (Y[0][:, None] * D * Y[0]) @ Y.T
        values, axes = np.linalg.eigh(0.5 * (G + G.T))
        kept = np.abs(values) > NEGLIGIBLE_WEIGHT * np.abs(values).max()
        return axes[:, kept] * np.sqrt(np.abs(values[kept])), np.sign(values[kept])


def quadrature(operator: Callable[[Array], tuple[Array, ...]], z: Array, keep: bool) -> Quadrature:
    """z' (log A - A + I) z of every column of z (m, s).

    operator : gives A v first, and after it whatever else is to be kept of v
    keep : keep what the operator gives, for derivatives
    Raises NotConverged.
    """
    squares = _dots(z, z)
    v = z / np.sqrt(np.where(squares > 0, squares, 1.0))
    before = np.zeros_like(v)
    beta = np.zeros(len(squares))
    alphas: list[Array] = []
    betas: list[Array] = []
    basis: list[tuple[Array, ...]] = []
    found: Array | None = None
    look = 2
    for step in range(1, MAX_STEPS + 1):
        image, *others = operator(v)
        if keep:
            basis.append((v, *others))
        w = image - beta * before
        alpha = _dots(v, w)
        w -= alpha * v
        dead = _dots(v, v) == 0.0
        alphas.append(np.where(dead, 1.0, alpha))
        beta = np.sqrt(_dots(w, w))
        betas.append(beta)
        if step == look or not beta.any():
            look = step + max(2, round(CHECK_SHARE * step))
            values = squares * _quadratures(np.array(alphas), np.array(betas))
            if not np.isfinite(values).all():
                raise NotConverged("not positive definite")
            settled = found is not None and (np.abs(values - found) <= QUADRATURE_TOLERANCE * (len(z) + np.abs(values))).all()
            if not beta.any() or (settled and (not keep or _spans_solution(np.array(alphas), np.array(betas)))):
                return Quadrature(values, basis, np.array(alphas), np.array(betas))
            found = values
        before = v
        v = np.divide(w, beta, out=np.zeros_like(w), where=beta > 0.0)
    raise NotConverged("Lanczos' method did not converge")


def _tridiagonal(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Eigenvalues (s, j) and eigenvectors (s, j, j)."""
    j, s = alpha.shape
    T = np.zeros((s, j, j))
    place = np.arange(j)
    T[:, place, place] = alpha.T
    T[:, place[1:], place[:-1]] = T[:, place[:-1], place[1:]] = beta[:-1].T
    values, vectors = np.linalg.eigh(T)
    return values, vectors


def _quadratures(alpha: Array, beta: Array) -> Array:
    values, vectors = _tridiagonal(alpha, beta)
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = vectors[:, 0] ** 2 * (np.log(values) - (values - 1.0))
    return np.asarray(terms.sum(-1))


def _spans_solution(alpha: Array, beta: Array) -> bool:
    """Whether the basis holds A^-1 z: the residual there is the last entry of T^-1 e times the last beta."""
    values, vectors = _tridiagonal(alpha, beta)
    solved = np.einsum("sij,sj,sj->si", vectors, 1.0 / values, vectors[:, 0])
    return bool((beta[-1] * np.abs(solved[:, -1]) <= BASIS_TOLERANCE * np.linalg.norm(solved, axis=1)).all())


def combine(basis: Sequence[Array], s: int, R: Array) -> Array:
    """sum_j v_j R_j for the column s of every v_j (m, s'), (m, r)."""
    return np.stack([v[:, s] for v in basis], axis=1) @ R
