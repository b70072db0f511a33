"""A polynomial surrogate of the likelihood around the mode, for models whose evaluation is expensive.

With relative covariances psi of random effects or of errors (log sds minus log sigma, correlations as they are) the likelihood needs
log |V0| and [X y]'V0^-1 [X y] at psi only; sigma, alpha and the priors are then exact. Those few smooth functions are evaluated on a small
design around the mode and fitted by least squares; a check compares the density with the true one at places of its own. Beyond the design,
where an sd near 0 may still have a percent of the posterior, the kernel itself is asked, unless it is expensive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import comb

import numpy as np
from scipy.linalg import lapack
from scipy.special import chdtri, ndtri

from bayeslmm._arrays import Array, Mask
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.bayes.log_posterior.layout import MatrixBlock, TermBlock
from bayeslmm.bayes.log_posterior.transforms import ScaledTransform, UnstructuredTransform
from bayeslmm.bayes.sampling.importance import WeightedDraws
from bayeslmm.bayes.sampling.mode import PosteriorMode
from bayeslmm.likelihood.kernel import SUBSTITUTED_COLUMNS, Solution, solve_Xy
from bayeslmm.likelihood.random_effects.kernel import PooledLevelsKernel, RandomEffectsKernel
from bayeslmm.likelihood.structured.pooled import PooledSubjectsKernel
from bayeslmm.likelihood.threads import one_thread

EXPENSIVE_MULTIPLICATIONS = 1e8
"""Multiplications of one evaluation above which it is expensive."""

SEVERAL_MULTIPLICATIONS = 3e9
"""Multiplications of all evaluations, some seconds, from which polynomials are tried first."""

LEVEL_OPERATIONS = 10
"""Operations on vectors of levels, each as dear as a multiplication or more, for each entry of q^3."""

CELL_OPERATIONS = 100
"""The same for each entry of the blocks that remain."""

SURROGATE_PARAMETERS = 10
"""Most relative parameters of a surrogate."""

SURROGATE_SDS = 4.5
"""Standard deviations along each axis around the mode where there are places; an expensive density is taken as 0 beyond."""

NORMAL_BEYOND = 3e-4
"""Share of a normal posterior outside the sphere where polynomials are trusted while the kernel can be asked: corners hold no places."""

TAIL_FALL = 5.0
"""What the log density must have fallen by there: a normal one by 10."""

NINE_POINTS = (-4.2, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.2)
FIVE_POINTS = (-3.6, -1.8, 0.0, 1.8, 3.6)

LARGEST_TERMS = 1100
PLACES_PER_TERM = 2.4

SUFFICIENT_ERROR = 0.01
"""Error of a log density with which a design is enough: weights are then wrong by 1 %."""

HOPELESS_ERROR = 0.3
"""Error at which larger designs are not tried: each is about ten times better than the one before."""

MOST_BEYOND = 1e-3
"""Share of the posterior that may lie beyond them: so much at 4.5 sds and more is 1 % of an sd."""

TEST_POINTS, TEST_SDS = 40, 1.2
"""Places of a test, drawn a little wider than the posterior."""

CELLS_AT_ONCE = 2_000_000
"""Elements of what is held for points at once."""


def multiplications(density: Density) -> float:
    """Of one evaluation, by what remains after the first factor; 0 where nothing does."""
    kernel = density.kernel
    if not isinstance(kernel, RandomEffectsKernel) or kernel.cross.rest is None:
        return 0.0
    if kernel.cross.remaining is not None:
        return float(np.inf)
    return float(sum(batch.index.shape[0] * float(batch.index.shape[1]) ** 3 for batch in kernel.cross.rest.batches))


def _other_multiplications(density: Density) -> float:
    """Of one evaluation: of its levels or blocks, or of classes of them, and of the profile in alpha, where polynomials save that."""
    kernel, r = density.kernel, density.problem.criterion.p + 1
    if isinstance(density.pooled, PooledSubjectsKernel):
        blocks = [kind.block.shape for kind in density.pooled.kinds] + [own.block.shape for own in density.pooled.kernel.data.pooled]
        return float(sum(B * k * k * (k + r) for B, k in blocks))
    if not isinstance(kernel, RandomEffectsKernel):
        return 0.0
    first, held = kernel.cross.first, 0 if kernel.cross.rest is None else kernel.cross.rest.flat + kernel.cross.rest.m * r
    total = (r**3 / 3.0 if density.alpha.flat else 0.0) + (0.0 if kernel.cross.rest is None else CELL_OPERATIONS * kernel.cross.rest.flat)
    if first is not None:
        levels = density.pooled.A.shape[2] if isinstance(density.pooled, PooledLevelsKernel) else first.K
        total += levels * (LEVEL_OPERATIONS * first.q**3 + first.q * (first.q + 1) / 2 * (r * r + held))
    return float(total)


def is_expensive(density: Density) -> bool:
    """Whether importance sampling by the kernel itself would take too long, judged by the size of the problem alone."""
    return multiplications(density) > EXPENSIVE_MULTIPLICATIONS


def is_worth_polynomials(density: Density, evaluations: int) -> bool:
    """Whether so many evaluations cost more than those that polynomials are fitted to, and a draw of the effects by gradients, would."""
    return (multiplications(density) + _other_multiplications(density)) * evaluations > SEVERAL_MULTIPLICATIONS


def relative_map(density: Density) -> Array | None:
    """(d - 1, d) matrix with psi = M phi; None where psi is not linear in phi or has too many entries."""
    layout = density.layout
    if layout.variance is not None or layout.mixing is not None or not 1 < density.size <= SURROGATE_PARAMETERS + 1:
        return None
    # random effects under structured errors are drawn by blocks, which costs as much as the density
    if bool(layout.terms) == bool(layout.sets):
        return None
    if layout.sigma is not None and (layout.sigma.size == 0 or np.isfinite(layout.sigma.high).any()):
        return None
    M = np.eye(density.size)
    blocks: list[TermBlock | MatrixBlock] = [*layout.terms, *layout.sets]
    for block in blocks:
        if (
            not isinstance(block.axes, UnstructuredTransform | ScaledTransform)
            or np.isfinite(block.axes.sds.high).any()
            or block.axes.sds.size < block.axes.sds.count
        ):
            return None
        M[block.part.start : block.part.start + block.axes.sds.size, scale_axis(density)] -= 1.0
    return np.delete(M, scale_axis(density), axis=0)


def scale_axis(density: Density) -> int:
    """The entry of phi that is log sigma: the last, or under structured errors the first sd of R."""
    return density.layout.sets[0].part.start if density.layout.sigma is None else density.size - 1


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """The density with its likelihood replaced by polynomials.

    M : (k, d) phi to psi; root : (k, k), psi = centre + root z; powers : (terms, k); fitted : (terms, 1 + r (r + 1) / 2)
    error : root mean square of what it misses of the log density at places that were not fitted
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

    def reaches(self, phi: Array) -> Mask:
        """Whether phi (t, d) lies where the polynomials are trusted, (t,)."""
        z = self.z(phi)
        if is_expensive(self.density):
            return np.asarray(np.abs(z).max(axis=1) < SURROGATE_SDS, np.bool_)
        return np.asarray((z**2).sum(axis=1) < chdtri(len(self.centre), NORMAL_BEYOND), np.bool_)

    @property
    def step(self) -> int:
        """How many points to hold L of at once."""
        return max(1, CELLS_AT_ONCE // int(self.fitted.shape[1]))

    def solution(self, phi: Array) -> Solution:
        """log |V0|, [X y] and the profile in alpha at phi (t, d), by the factor L of [X y], whose last row is that of y."""
        values = monomials(self.z(phi), self.powers) @ self.fitted
        r = self.density.problem.criterion.p + 1
        L = np.zeros((len(phi), r, r))
        rows, columns = np.tril_indices(r)
        L[:, rows, columns] = np.where(rows == columns, np.exp(np.where(rows == columns, values[:, 1:], 0.0)), values[:, 1:])
        if r - 1 < SUBSTITUTED_COLUMNS or not self.density.alpha.flat:
            return solve_Xy(values[:, 0], L @ L.swapaxes(-1, -2))
        root, r2 = L[:, :-1, :-1], L[:, -1, -1] ** 2
        alpha = np.array([lapack.dtrtrs(own[:-1, :-1].T, own[-1, :-1])[0] for own in L])
        logdet_X = 2.0 * np.log(root.diagonal(axis1=-2, axis2=-1)).sum(-1)
        return Solution(values[:, 0], L, root, logdet_X, alpha, r2)

    def _scalars(self, phi: Array) -> Solution:
        """All that a flat prior of alpha integrates, log |V0|, log |X'V0^-1 X| and r2: sums of the polynomials themselves."""
        diagonal = np.cumsum(np.arange(1, self.density.problem.criterion.p + 2))
        three = [self.fitted[:, 0], 2.0 * self.fitted[:, diagonal[:-1]].sum(axis=1), 2.0 * self.fitted[:, diagonal[-1]]]
        logdet, logdet_X, log_r2 = (monomials(self.z(phi), self.powers) @ np.column_stack(three)).T
        none = np.zeros((len(phi), 0, 0))
        return Solution(logdet, none, none, logdet_X, none.reshape(len(phi), 0), np.exp(log_r2))

    def values(self, phi: Array) -> Array:
        """log density (t,)."""
        reached = self.reaches(phi)
        near, out = np.flatnonzero(reached), np.full(len(phi), -np.inf)
        if not is_expensive(self.density) and not reached.all():
            out[~reached] = self.density.values(phi[~reached])
        flat = self.density.alpha.flat
        step = max(1, CELLS_AT_ONCE // len(self.powers)) if flat else self.step
        for begin in range(0, len(near), step):
            own = near[begin : begin + step]
            inside = phi[own]
            s = self.density.sigma(inside) / self.density.sigma_unit
            with np.errstate(all="ignore"):
                solution = self._scalars(inside) if flat else self.solution(inside)
                out[own] = self.density.log_prior(inside) - 0.5 * self.density.integrate(solution, s**2, inside).value
        return np.where(np.isfinite(out), out, -np.inf)

    def misses(self, phi: Array) -> float:
        """Root mean square of what it misses of the log density at phi (t, d)."""
        return float(np.sqrt(np.mean((self.values(phi) - self.density.values(phi)) ** 2)))

    def share_beyond(self, found: WeightedDraws) -> float:
        """Share of the posterior that lies where the polynomials do not reach and the kernel was not asked, from a few draws there."""
        beyond = np.flatnonzero(~self.reaches(found.points))
        if not is_expensive(self.density) or found.proposal is None or not len(beyond):
            return 0.0
        tried = found.points[beyond[:: max(1, len(beyond) // TEST_POINTS)]]
        log_weights = self.density.values(tried) - found.proposal.log_density(tried) - found.weights.evidence
        mass = len(beyond) / len(found.points) * float(np.exp(log_weights).mean())
        return mass / (1.0 + mass)


def monomials(z: Array, powers: Array) -> Array:
    """Products of powers of z (n, k), (n, terms): each is one of a degree less, times one more."""
    number = {tuple(row): i for i, row in enumerate(powers.tolist())}
    columns = np.ascontiguousarray(z.T)
    out = np.ones((len(powers), len(z)))
    for i, row in enumerate(powers.tolist()):
        used = [j for j, power in enumerate(row) if power]
        if used:
            row[used[-1]] -= 1
            np.multiply(out[number[tuple(row)]], columns[used[-1]], out=out[i])
    return out.T


def designs(k: int) -> list[tuple[Array, Array]]:
    """Places z (n, k) and powers of the polynomials, small designs first."""
    if k == 1:
        return [(np.array(NINE_POINTS)[:, None], _powers(1, 8, 8))]
    if k == 2:
        return [
            (np.array(list(product(FIVE_POINTS, FIVE_POINTS))), _powers(2, 5, 4)),
            (np.array(list(product(NINE_POINTS, NINE_POINTS))), _powers(2, 9, 8)),
        ]
    powers = [_powers(k, degree, degree) for degree in ((4, 6) if k == 3 else (3, 4, 5)) if comb(k + degree, k) <= LARGEST_TERMS]
    counts = [int(PLACES_PER_TERM * len(own)) for own in powers]
    z = np.concatenate([np.zeros((1, k)), np.clip(1.5 * ndtri(even_points(counts[-1], k)), -SURROGATE_SDS, SURROGATE_SDS)])
    return [(z[:count], own) for count, own in zip(counts, powers, strict=True)]


def even_points(n: int, k: int) -> Array:
    """n points that fill the unit cube (n, k) evenly: multiples of powers of 1 / g modulo 1, g^(k + 1) = g + 1."""
    g = 2.0
    for _ in range(60):
        g = (1.0 + g) ** (1.0 / (k + 1.0))
    return np.asarray((0.5 + np.arange(1, n + 1)[:, None] * g ** -np.arange(1.0, k + 1.0)) % 1.0)


def build_surrogate(density: Density, mode: PosteriorMode, M: Array) -> Surrogate | None:
    """Evaluate the kernel on a design around the mode and fit; on a larger one where that does not suffice.

    None where the density has not fallen off where the polynomials end: what lies beyond would be missed.
    """
    values, vectors = np.linalg.eigh(M @ np.linalg.inv(mode.precision) @ M.T)
    root, centre, k, scale = vectors * np.sqrt(values), M @ mode.phi, len(M), scale_axis(density)
    ends = SURROGATE_SDS * np.concatenate([np.eye(k), -np.eye(k)])
    if density.values(phi_of_psi(mode.phi, M, centre + ends @ root.T, scale)).max() > mode.value - TAIL_FALL:
        return None
    spread = TEST_SDS * np.random.default_rng(1).standard_normal((TEST_POINTS, k))
    places = phi_of_psi(mode.phi, M, centre + spread @ root.T, scale)
    truth = density.values(places)
    best: Surrogate | None = None
    known = np.zeros((0, k)), np.zeros((0, 0))
    for z, powers in designs(k):
        held = len(known[0]) if np.array_equal(known[0], z[: len(known[0])]) else 0
        data = likelihood_ingredients(density, phi_of_psi(mode.phi, M, centre + z[held:] @ root.T, scale))
        known = z, np.concatenate([known[1], data]) if held else data
        found = Surrogate(density, M, centre, root, powers, _fit_polynomials(z, powers, known[1]), np.nan)
        found = replace(found, error=float(np.sqrt(np.mean((found.values(places) - truth) ** 2))))
        best = found if best is None or found.error < best.error else best
        if not SUFFICIENT_ERROR <= best.error < HOPELESS_ERROR:
            break
    return best


def _fit_polynomials(z: Array, powers: Array, data: Array) -> Array:
    """Coefficients by least squares; near the mode, where the draws are, places count more."""
    offset = data[np.argmin(np.abs(z).sum(1))]
    weight = np.exp(-0.05 * (z**2).sum(1))[:, None]
    out = np.linalg.lstsq(weight * monomials(z, powers), weight * (data - offset), rcond=None)[0]
    out[0] += offset
    return np.asarray(out)


def _powers(k: int, total: int, each: int) -> Array:
    """Exponents (terms, k) of the monomials up to a total degree, low degrees first."""
    rows: list[tuple[int, ...]] = [()]
    for _ in range(k):
        rows = [(*row, power) for row in rows for power in range(min(each, total - sum(row)) + 1)]
    return np.array(sorted(rows, key=sum))


def phi_of_psi(phi: Array, M: Array, psi: Array, scale: int) -> Array:
    """phi with the given psi and the sigma of phi, its entry `scale`."""
    out = np.tile(phi, (len(psi), 1))
    out[:, np.arange(len(phi)) != scale] = psi - phi[scale] * M[:, scale]
    return out


def likelihood_ingredients(density: Density, phi: Array) -> Array:
    """log |V0| and the Cholesky factor of [X y], its diagonal as logs, (t, 1 + r (r + 1) / 2): what is fitted is always definite."""
    x, _ = density.kernel_points(phi)
    rows, columns = np.tril_indices(density.problem.criterion.p + 1)
    out = []
    with one_thread(density.problem.criterion.width):
        for begin in range(0, len(x), density.value_batch):
            solution = density.solve(x[begin : begin + density.value_batch])
            L = np.linalg.cholesky(solution.Xy)[:, rows, columns]
            out.append(np.column_stack([solution.logdet, np.where(rows == columns, np.log(np.where(rows == columns, L, 1.0)), L)]))
    return np.concatenate(out)
