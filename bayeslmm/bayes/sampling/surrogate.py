"""A polynomial surrogate of the likelihood around the mode, for models whose evaluation is expensive.

With relative covariances psi (log sds minus log sigma, correlations as they are) the likelihood needs log |V0| and [X y]'V0^-1 [X y] at psi
only; sigma, alpha and the priors are then exact. Those few smooth functions are evaluated on a small design around the mode and fitted by
least squares; a check compares the density with the true one at places of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.special import ndtri

from bayeslmm._arrays import Array
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.bayes.log_posterior.transforms import ScaledTransform, UnstructuredTransform
from bayeslmm.bayes.sampling.mode import PosteriorMode
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.kernel import Solution, solve_Xy
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel

EXPENSIVE_MULTIPLICATIONS = 1e8
"""Multiplications of one evaluation above which it is expensive."""

SEVERAL_MULTIPLICATIONS = 5e9
"""Multiplications of all evaluations, some seconds, from which polynomials are tried first."""

SURROGATE_PARAMETERS = 3
"""Most relative parameters of a surrogate."""

SURROGATE_SDS = 4.5
"""Standard deviations around the mode where the surrogate is trusted; the density beyond is taken as 0."""

NINE_POINTS = (-4.2, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.2)
FIVE_POINTS = (-3.6, -1.8, 0.0, 1.8, 3.6)

SUFFICIENT_ERROR = 0.01
"""Error of a log density with which a design is enough: weights are then wrong by 1 %."""

TEST_POINTS = 6


def multiplications(density: Density) -> float:
    """Of one evaluation, as far as they are of what remains after the first factor; 0 where nothing does."""
    kernel = density.kernel
    if not isinstance(kernel, RandomEffectsKernel) or kernel.cross.rest is None:
        return 0.0
    if kernel.cross.remaining is not None:
        return float(np.inf)
    return float(sum(batch.index.shape[0] * float(batch.index.shape[1]) ** 3 for batch in kernel.cross.rest.batches))


def is_expensive(density: Density) -> bool:
    """Whether importance sampling by the kernel itself would take too long, judged by the size of the problem alone."""
    return multiplications(density) > EXPENSIVE_MULTIPLICATIONS


def is_worth_polynomials(density: Density, evaluations: int) -> bool:
    """Whether so many evaluations cost more than those that polynomials are fitted to, and a draw of the effects by gradients, would."""
    return multiplications(density) * evaluations > SEVERAL_MULTIPLICATIONS


def relative_map(density: Density) -> Array | None:
    """(d - 1, d) matrix with psi = M phi; None where psi is not linear in phi or has too many entries."""
    layout = density.layout
    if layout.sigma is None or layout.sets or layout.variance is not None or not 1 < density.size <= SURROGATE_PARAMETERS + 1:
        return None
    if layout.mixing is not None or layout.sigma.size == 0 or np.isfinite(layout.sigma.high).any():
        return None
    M = np.eye(density.size)[:-1]
    for block in layout.terms:
        if (
            not isinstance(block.axes, UnstructuredTransform | ScaledTransform)
            or np.isfinite(block.axes.sds.high).any()
            or block.axes.sds.size < block.axes.sds.count
        ):
            return None
        M[block.part.start : block.part.start + block.axes.sds.size, -1] = -1.0
    return M


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """The density with its likelihood replaced by polynomials.

    M : (k, d) phi to psi; root : (k, k), psi = centre + root z; powers : (terms, k); fitted : (terms, 1 + r (r + 1) / 2)
    error : largest difference of log density at places that were not fitted
    """

    density: Density
    M: Array
    centre: Array
    root: Array
    powers: Array
    fitted: Array
    error: float

    def z(self, phi: Array) -> Array:
        return np.linalg.solve(self.root, (phi @ self.M.T - self.centre).T).T

    def solution(self, phi: Array) -> Solution:
        """log |V0|, [X y] and the profile in alpha at phi (t, d)."""
        values = monomials(self.z(phi), self.powers) @ self.fitted
        r = self.density.problem.criterion.p + 1
        L = np.zeros((len(phi), r, r))
        rows, columns = np.tril_indices(r)
        L[:, rows, columns] = np.where(rows == columns, np.exp(np.where(rows == columns, values[:, 1:], 0.0)), values[:, 1:])
        return solve_Xy(values[:, 0], L @ L.swapaxes(-1, -2))

    def values(self, phi: Array) -> Array:
        """log density (t,), -inf outside the reach of the polynomials."""
        near = np.abs(self.z(phi)).max(axis=1) < SURROGATE_SDS
        out = np.full(len(phi), -np.inf)
        if near.any():
            inside = phi[near]
            s = self.density.sigma(inside) / self.density.sigma_unit
            with np.errstate(all="ignore"):
                out[near] = self.density.log_prior(inside) - 0.5 * self.density.integrate(self.solution(inside), s**2, inside).value
        return np.where(np.isfinite(out), out, -np.inf)


def monomials(z: Array, powers: Array) -> Array:
    return np.asarray(np.prod(z[:, None, :] ** powers, axis=2))


def designs(k: int) -> list[tuple[Array, Array]]:
    """Places z (n, k) and powers of the polynomials, small designs first."""
    if k == 1:
        return [(np.array(NINE_POINTS)[:, None], _powers(1, 8, 8))]
    if k == 2:
        return [
            (np.array(list(product(FIVE_POINTS, FIVE_POINTS))), _powers(2, 5, 4)),
            (np.array(list(product(NINE_POINTS, NINE_POINTS))), _powers(2, 9, 8)),
        ]
    z = np.concatenate([np.zeros((1, k)), np.clip(1.7 * ndtri(even_points(512, k)), -SURROGATE_SDS, SURROGATE_SDS)])
    return [(z[:90], _powers(k, 4, 4)), (z[:320], _powers(k, 6, 6))]


def even_points(n: int, k: int) -> Array:
    """n points that fill the unit cube (n, k) evenly: multiples of powers of 1 / g modulo 1, g^(k + 1) = g + 1."""
    g = 2.0
    for _ in range(60):
        g = (1.0 + g) ** (1.0 / (k + 1.0))
    return np.asarray((0.5 + np.arange(1, n + 1)[:, None] * g ** -np.arange(1.0, k + 1.0)) % 1.0)


def build_surrogate(density: Density, mode: PosteriorMode, M: Array) -> Surrogate:
    """Evaluate the kernel on a design around the mode and fit; on a larger one where that does not suffice."""
    values, vectors = np.linalg.eigh(M @ np.linalg.inv(mode.precision) @ M.T)
    root, centre, k = vectors * np.sqrt(values), M @ mode.phi, len(M)
    places = phi_of_psi(mode.phi, M, centre + np.random.default_rng(1).standard_normal((TEST_POINTS, k)) @ root.T)
    truth = density.values(places)
    best: Surrogate | None = None
    for z, powers in designs(k):
        data = likelihood_ingredients(density, phi_of_psi(mode.phi, M, centre + z @ root.T))
        found = Surrogate(density, M, centre, root, powers, _fit_polynomials(z, powers, data), np.nan)
        found = replace(found, error=float(np.abs(found.values(places) - truth).max()))
        best = found if best is None or found.error < best.error else best
        if best.error < SUFFICIENT_ERROR:
            break
    assert best is not None
    return best


def _fit_polynomials(z: Array, powers: Array, data: Array) -> Array:
    """Coefficients by least squares; near the mode, where the draws are, places count more."""
    offset = data[np.argmin(np.abs(z).sum(1))]
    weight = np.exp(-0.05 * (z**2).sum(1))[:, None]
    out = np.linalg.lstsq(weight * monomials(z, powers), weight * (data - offset), rcond=None)[0]
    out[0] += offset
    return np.asarray(out)


def _powers(k: int, total: int, each: int) -> Array:
    rows = [row for row in product(range(each + 1), repeat=k) if sum(row) <= total]
    return np.array(sorted(rows, key=sum))


def phi_of_psi(phi: Array, M: Array, psi: Array) -> Array:
    """phi with the given psi and the sigma of phi."""
    out = np.tile(phi, (len(psi), 1))
    out[:, :-1] = psi - phi[-1] * M[:, -1]
    return out


def likelihood_ingredients(density: Density, phi: Array) -> Array:
    """log |V0| and the Cholesky factor of [X y], its diagonal as logs, (t, 1 + r (r + 1) / 2): what is fitted is always definite."""
    x, _ = density.kernel_points(phi)
    rows, columns = np.tril_indices(density.problem.criterion.p + 1)
    out = []
    with one_thread(density.problem.criterion.width):
        for row in x:
            solution = density.kernel.solve(row[None])
            L = np.linalg.cholesky(solution.Xy[0])
            entries = np.where(rows == columns, np.log(np.where(rows == columns, L[rows, columns], 1.0)), L[rows, columns])
            out.append(np.concatenate([solution.logdet, entries]))
    return np.array(out)
