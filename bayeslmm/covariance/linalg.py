"""Factors of positive (semi-)definite matrices with their derivatives, and damped least squares for closest members."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy.linalg import lapack

from bayeslmm._arrays import Array

_EPS = float(np.finfo(np.float64).eps)


def transpose(matrix: Array) -> Array:
    """The last two axes exchanged."""
    return np.swapaxes(matrix, -1, -2)


def semidefinite_factor(matrix: Array) -> Array:
    """Lower T with T T' = matrix, columns of zeros where the matrix has no rank left; NaN if it is indefinite.

    matrix : (..., q, q)
    """
    q = matrix.shape[-1]
    factor = np.zeros(matrix.shape)
    with np.errstate(invalid="ignore"):
        size = np.max(np.abs(np.diagonal(matrix, axis1=-2, axis2=-1)), axis=-1, initial=0.0)
        pivot_floor, column_floor = 8 * q * _EPS * size, np.sqrt(8 * q * _EPS) * size
        indefinite = ~np.isfinite(matrix).all(axis=(-1, -2))
        for j in range(q):
            column = matrix[..., j:, j] - np.einsum("...ik,...k->...i", factor[..., j:, :j], factor[..., j, :j])
            pivot, gone = column[..., 0], column[..., 0] <= pivot_floor
            indefinite |= (pivot < -pivot_floor) | (gone & (np.abs(column).max(axis=-1) > column_floor))
            root = np.sqrt(np.where(gone, 1.0, pivot))
            factor[..., j:, j] = np.where(gone[..., None], 0.0, column / root[..., None])
    return np.where(indefinite[..., None, None], np.nan, factor)


def cholesky(matrix: Array) -> Array:
    """Lower Cholesky factor (..., q, q): LAPACK's where the matrix is definite, the semi-definite factor or NaN where it is not."""
    try:
        return np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return semidefinite_factor(matrix)


def trapezoidal(matrix: Array) -> Array:
    """A matrix (q, k) turned by an orthogonal map of its columns until it is lower trapezoidal, diagonal not negative."""
    upper = np.linalg.qr(matrix.T, mode="r")
    lower = np.zeros(matrix.shape)
    lower[:, : upper.shape[0]] = upper.T[:, : matrix.shape[1]]
    sign = np.where(np.diagonal(lower) < 0, -1.0, 1.0)
    lower[:, : sign.size] *= sign
    return lower


def guarded_inverse(factor: Array) -> Array:
    """T^-1, a vanishing diagonal entry lifted just above 0 so that the answer stays finite (NaN stays NaN)."""
    q = factor.shape[-1]
    diagonal = np.diagonal(factor, axis1=-2, axis2=-1)
    floor = np.maximum(_EPS * np.max(np.abs(diagonal), axis=-1, keepdims=True), np.finfo(np.float64).tiny ** 0.5)
    lifted = factor + np.where(np.abs(diagonal) < floor, floor, 0.0)[..., None, :] * np.eye(q)
    return np.asarray(np.linalg.inv(lifted))


def factor_tangent(factor: Array, matrix_derivative: Array) -> Array:
    """dT of T T' = Sigma for given dSigma: T Phi(T^-1 dSigma T^-T), Phi = strict lower triangle plus half the diagonal.

    factor : (..., q, q); matrix_derivative : (..., k, q, q). Exact where Sigma is definite, finite where it is singular.
    """
    inverse = guarded_inverse(factor)[..., None, :, :]
    inner = inverse @ matrix_derivative @ transpose(inverse)
    return np.asarray(factor[..., None, :, :] @ (np.tril(inner) - 0.5 * np.eye(factor.shape[-1]) * inner))


def definite_factor(matrix: Array) -> Array:
    """Lower factor of a matrix (q, q), its off-diagonal shrunk, as little as small steps find, until there is one."""
    matrix = 0.5 * (matrix + matrix.T)
    factor, failed = lapack.dpotrf(matrix, lower=1, clean=1)
    pivots = factor.diagonal()
    if not failed and pivots.min() ** 2 > 8 * len(matrix) * _EPS * pivots.max() ** 2:
        return np.asarray(factor)
    diagonal, shrunk = np.diag(np.clip(np.diag(matrix), 0.0, None)), matrix
    for _ in range(60):
        if np.isfinite(semidefinite_factor(shrunk)).all():
            return cholesky(shrunk)
        shrunk = diagonal + 0.9 * (shrunk - np.diag(np.diag(shrunk)))
    return cholesky(diagonal)


def correlations(matrix: Array) -> Array:
    """The correlation matrix (q, q); NaN in rows without variance, 1 on the diagonal."""
    sd = np.sqrt(np.clip(np.diag(matrix), 0.0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.where(np.outer(sd, sd) > 0.0, matrix / np.outer(sd, sd), np.nan)
    np.fill_diagonal(result, 1.0)
    return result


Residual = Callable[[Array], tuple[Array, Array]]


def least_squares(residual: Residual, start: Array, radius: float = np.inf, iterations: int = 200) -> tuple[Array, float]:
    """Levenberg-Marquardt: x and the sum of squares reached.

    residual(x) gives e (m,) and de/dx (m, size); NaN is stepped away from. No entry moves further than `radius` from its start.
    """
    x, damping = start, 1e-3
    error, slope = residual(x)
    total = float(error @ error)
    if not (np.isfinite(total) and np.isfinite(slope).all()):
        return x, np.inf
    for _ in range(iterations):
        curvature, downhill = slope.T @ slope, -slope.T @ error
        ridge = damping * (np.diag(curvature) + 1e-12 * max(float(np.trace(curvature)), 1e-300))
        step = np.linalg.lstsq(curvature + np.diag(ridge), downhill, rcond=None)[0]
        moved = np.clip(x + step, start - radius, start + radius)
        trial_error, trial_slope = residual(moved)
        trial = float(trial_error @ trial_error)
        if trial < total and np.isfinite(trial_slope).all():
            gain, total = total - trial, trial
            x, error, slope, damping = moved, trial_error, trial_slope, max(damping / 10.0, 1e-15)
            if gain <= 1e-16 * total or total < 1e-30:
                break
        else:
            damping *= 10.0
            if damping > 1e12:
                break
    return x, total


def best_of(residual: Residual, starts: Iterable[Array], radius: float = np.inf) -> Array:
    """The x with the smallest sum of squares over several starts."""
    found = [least_squares(residual, start, radius) for start in starts]
    return min(found, key=lambda pair: pair[1])[0]
