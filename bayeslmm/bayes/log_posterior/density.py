"""The log posterior density of the covariance parameters, alpha and beta integrated out, by the criterion's own kernel.

    log p(phi | y) = log p(y | phi) + log p(phi) + constant,   p(y | phi) = integral of N(y | X alpha, V(phi)) p(alpha) d alpha

One function over a leading axis of points serves importance sampling; one with gradient serves the mode and NUTS. There is no second
likelihood: structures, weights, relationship matrices and variance functions are whatever the kernel knows.

With standardized alpha = alpha0 + B a and prior precision L (0 where flat), u = prior mean - alpha0:

    M = X'V0^-1X + s^2 B'LB,   a^ = M^-1 (X'V0^-1 y + s^2 B'L u),
    -2 log p = log|V0| + n log(2 pi s^2) + [(y - X a^)'V0^-1 (y - X a^)] / s^2 + (B a^ - u)'L(B a^ - u)
               + log|M / s^2| - 2 log|B| - p log 2 pi + k log 2 pi - log|L_k|,   k the coefficients with a prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm._validation import require_memory
from bayeslmm.bayes.log_posterior.layout import ParameterLayout, lay_out_parameters
from bayeslmm.bayes.log_posterior.priors import ModelPriors, resolve
from bayeslmm.likelihood.kernel import Kernel, Solution, State
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.random_effects.kernel import PooledLevelsKernel, RandomEffectsKernel, RandomEffectsState, pool_levels
from bayeslmm.likelihood.structured.kernel import BlockDiagonalKernel, BlockDiagonalState
from bayeslmm.likelihood.structured.pooled import PooledSubjectsKernel, pool_subjects
from bayeslmm.likelihood.threads import one_thread
from bayeslmm.specification.prior_families import Prior, draw_prior, is_mixture, log_density
from bayeslmm.specification.priors import Priors

LOG_2PI = float(np.log(2.0 * np.pi))

NEGATIVE_SQUARES = 0.01
"""Residual variances by which a sum of squares may fall below 0 in rounding: more, and the value there would be a false peak."""


@dataclass(frozen=True, slots=True, eq=False)
class MarginalCoefficients:
    """-2 log p(y | covariances) at some points, and what it says about alpha.

    value : (t,)
    solution : the profile in alpha with the prior in it: alpha its mean, root of its precision times s^2, r2 without the prior
    """

    value: Array
    solution: Solution


def repeat_solution(solution: Solution, t: int) -> Solution:
    """A solution at t points: a model without random effects is solved once for all of them."""
    if len(solution.r2) == t:
        return solution
    parts = (solution.logdet, solution.Xy, solution.root, solution.logdet_X, solution.alpha, solution.r2)
    return Solution(*(np.repeat(part, t, axis=0) for part in parts))


@dataclass(frozen=True, eq=False)
class AlphaPrior:
    """Independent priors of the coefficients kept: flat, normal, or normal given a scale of each one's own.

    means : (p,) of the columns, where the prior of the intercept is that of centred columns, else None
    """

    problem: Problem
    priors: tuple[Prior, ...]
    means: Array | None

    @cached_property
    def flat(self) -> bool:
        return all(prior.family == "flat" for prior in self.priors)

    @cached_property
    def mean(self) -> Array:
        return np.array([prior.location for prior in self.priors])

    @cached_property
    def mixed(self) -> Codes:
        """Positions of the coefficients that have a scale of their own."""
        return np.flatnonzero([is_mixture(prior) for prior in self.priors])

    @cached_property
    def _known(self) -> Array:
        return np.array([prior.family != "flat" for prior in self.priors], bool)

    @cached_property
    def _precision(self) -> Array:
        """(p,) of the normal priors; 0 for the others."""
        return np.array([prior.parameters[1] ** -2 if prior.family == "normal" else 0.0 for prior in self.priors])

    def precision(self, variances: Array | None) -> Array:
        """(1, p), or (t, p) at variances (t, m) of the mixed ones."""
        if variances is None:
            return self._precision[None]
        out = np.broadcast_to(self._precision, (len(variances), len(self._precision))).copy()
        out[:, self.mixed] = 1.0 / variances
        return out

    def to_prior_scale(self, alpha: Array) -> Array:
        """The coefficients (.., p) as their priors speak of them: the intercept that of centred columns where that is meant."""
        if self.means is None:
            return alpha
        return np.concatenate([alpha[..., :1] + alpha[..., 1:] @ self.means[1:, None], alpha[..., 1:]], axis=-1)

    def log_density(self, alpha: Array) -> Array:
        """log p of every coefficient (S, p); 0 for a flat one."""
        stated = self.to_prior_scale(alpha)
        return np.stack([log_density(prior, stated[:, j]) for j, prior in enumerate(self.priors)], axis=1) if self.priors else stated

    def draws(self, rng: Generator, n: int) -> Array:
        """alpha (n, p) from the priors."""
        stated = np.stack([draw_prior(prior, rng, n) for prior in self.priors], axis=1) if self.priors else np.zeros((n, 0))
        if self.means is not None:
            stated[:, 0] -= stated[:, 1:] @ self.means[1:]
        return stated

    @cached_property
    def _B(self) -> Array:
        """d (coefficients as stated) / d (coefficients on standardized columns)."""
        B = self.problem.standardization.y_scale * self.problem.standardization.back
        return np.asarray(self.to_prior_scale(B.T).T)

    @cached_property
    def _offset(self) -> Array:
        """Prior means less the coefficients at the origin of standardized columns."""
        return np.asarray(self.mean - self.to_prior_scale(self.problem.standardization.alpha0))

    @cached_property
    def _quadratic(self) -> tuple[Array, Array]:
        """B'LB and B'Lu of the normal priors."""
        LB = self._precision[:, None] * self._B
        return self._B.T @ LB, LB.T @ self._offset

    @cached_property
    def _constant(self) -> float:
        """p log 2 pi - k log 2 pi + 2 log|B|, with the sign that -2 log p needs."""
        k, p = int(self._known.sum()), len(self._known)
        log_B = float(np.linalg.slogdet(self._B)[1]) if p else 0.0
        return float((k - p) * LOG_2PI - 2.0 * log_B)

    def integrate(self, solution: Solution, s2: Array, variances: Array | None = None) -> MarginalCoefficients:
        """At some points with residual variance s2 (t,) on standardized columns; variances : (t, m) of the mixed priors."""
        criterion = self.problem.criterion
        solution = repeat_solution(solution, len(s2))
        if self.flat:
            df = criterion.df(restricted=True)
            value = solution.logdet + solution.logdet_X + df * np.log(s2) + solution.r2 / s2 + criterion.constant(restricted=True) - df
            return MarginalCoefficients(value, solution)
        p = len(self.priors)
        inner, linear = self._quadratic
        precision = self.precision(variances)
        if variances is not None:
            own, u = self._B[self.mixed], self._offset[self.mixed]
            inner = inner + (own.T / variances[:, None, :]) @ own
            linear = linear + (u / variances) @ own
        XX, Xy, yy = solution.Xy[:, :p, :p], solution.Xy[:, :p, p], solution.Xy[:, p, p]
        root = np.linalg.cholesky(XX + s2[:, None, None] * inner)
        half = np.linalg.solve(root, (Xy + s2[:, None] * linear)[..., None])
        mean = np.linalg.solve(root.swapaxes(-1, -2), half)[..., 0]
        r2 = yy - 2.0 * np.einsum("tp,tp->t", Xy, mean) + np.einsum("tp,tpq,tq->t", mean, XX, mean)
        away = mean @ self._B.T - self._offset
        logdet = 2.0 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1)
        value = solution.logdet + criterion.n * np.log(s2) + r2 / s2 + (away**2 * precision).sum(-1) + logdet - p * np.log(s2)
        value = value - np.log(precision[:, self._known]).sum(-1)
        value = value + criterion.constant(restricted=False) - criterion.n + self._constant
        return MarginalCoefficients(value, Solution(solution.logdet, solution.Xy, root, logdet, mean, r2))

    def log_variance_slope(self, found: MarginalCoefficients, s2: float, variances: Array) -> Array:
        """d(-2 log p) / d log variance of every mixed prior, (m,), one point."""
        own = self._B[self.mixed]
        away = own @ found.solution.alpha[0] - self._offset[self.mixed]
        spread = s2 * np.einsum("ma,ab,mb->m", own, found.solution.information_inverse[0], own)
        return np.asarray(1.0 - (spread + away**2) / variances[0])

    def log_sigma_slope(self, found: MarginalCoefficients, s2: float) -> float:
        """d(-2 log p) / d log s at fixed covariances relative to s^2, one point."""
        solution, p = found.solution, len(self.priors)
        inverse = solution.information_inverse[0]
        trace = float(np.sum(inverse * solution.Xy[0, :p, :p])) if p else 0.0
        return 2.0 * (self.problem.criterion.n - trace - float(solution.r2[0]) / s2)


BATCH_ELEMENTS = 500_000
"""Array elements of one batch of points: the working set stays in cache."""


@dataclass(frozen=True, slots=True, eq=False)
class DensityValue:
    """The density at one point, with its gradient."""

    value: float
    gradient: Array


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """log posterior of phi.

    volume : True for a density of phi itself (sampling), False for one of the parameters that a user speaks of (MAP)
    many : the problem's kernel laid out for many points at once, where that is another; pooled : its blocks that are alike, for values
    """

    problem: Problem
    priors: ModelPriors
    layout: ParameterLayout
    alpha: AlphaPrior
    volume: bool = True
    many: Kernel | None = None
    pooled: PooledLevelsKernel | PooledSubjectsKernel | None = None

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def kernel(self) -> Kernel:
        """What evaluates many points."""
        return self.problem.criterion.kernel if self.many is None else self.many

    # -- from phi to the kernel -----------------------------------------------------------------------------------------------------------

    @property
    def sigma_unit(self) -> float:
        """sigma as users see it for sigma of 1 on standardized columns."""
        c = self.problem.standardization
        return float(c.y_scale * np.sqrt(c.weight_mean * self.problem.design.weight_scale))

    def sigma(self, phi: Array) -> Array:
        """sigma (t,) on the user's scale."""
        if self.layout.sigma is not None:
            return self.layout.sigma.values(phi[:, self.layout.sigma_part])[:, 0]
        first = self.layout.sets[0]
        return np.asarray(first.axes.values(phi[:, first.part])[:, 0])

    def kernel_points(self, phi: Array) -> tuple[Array, Array]:
        """x (t, size) and sigma (t,), both on standardized columns."""
        sets = [block.axes.values(phi[:, block.part]) for block in self.layout.sets]
        s = (self.sigma(phi) if self.layout.sigma is not None else sets[0][:, 0]) / self.sigma_unit
        unit = s * self.problem.standardization.y_scale
        parts = [block.kernel_x(phi, unit) for block in self.layout.terms]
        if sets:
            full = np.concatenate(sets, axis=1)
            degrees = np.concatenate([block.covariance.degrees for block in self.layout.sets])
            parts.append((full / full[:, :1] ** degrees)[:, 1:])
        if self.layout.variance is not None:
            parts.append(self.layout.variance.free(phi))
        return np.concatenate([*parts, np.zeros((len(phi), 0))], axis=1), s

    def phi_of(self, x: Array, sigma: float) -> Array:
        """phi of the kernel's x and sigma (standardized), sds of 0 lifted a little."""
        y_scale = self.problem.standardization.y_scale
        parts = []
        for block in self.layout.terms:
            size = np.linalg.norm(block.term.map.whole, axis=1).max()
            parts.append(block.from_kernel(x[block.term.part], sigma * y_scale, sigma * y_scale * float(size)))
        user = sigma * self.sigma_unit
        begin = sum(block.term.covariance.size for block in self.layout.terms)
        if self.layout.sets:
            full = np.concatenate([[1.0], x[begin : begin + sum(b.covariance.size for b in self.layout.sets) - 1]])
            offset = 0
            for residual in self.layout.sets:
                own = full[offset : offset + residual.covariance.size]
                parts.append(residual.axes.inverse(residual.covariance.rescale(own, user), user))
                offset += residual.covariance.size
        if self.layout.variance is not None:
            parts.append(x[len(x) - len(self.layout.variance.priors) :] / self.layout.variance.units)
        if self.layout.sigma is not None:
            parts.append(self.layout.sigma.inverse(np.array([user]), user))
        if self.layout.mixing is not None:
            parts.append(np.zeros(len(self.layout.mixing.priors)))
        return np.concatenate(parts)

    def integrate(self, solution: Solution, s2: Array, phi: Array) -> MarginalCoefficients:
        """alpha integrated out at phi (t, size), under its priors there."""
        mixing = self.layout.mixing
        return self.alpha.integrate(solution, s2, None if mixing is None else mixing.variances(phi))

    # -- values ---------------------------------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """How many points to draw random effects for at once."""
        if isinstance(self.pooled, PooledSubjectsKernel):
            return int(np.clip(BATCH_ELEMENTS // self.pooled.draw_cells, 1, 1024))
        assert isinstance(self.kernel, RandomEffectsKernel)
        cross = self.kernel.cross
        per_point = (cross.p + 1) ** 2
        if cross.first is not None:
            K, q = cross.first.K, cross.first.q
            per_point += 3 * K * q if self.pooled is not None else K * q * (q + 2 * cross.p + 2)
        if cross.rest is not None:
            per_point += 6 * cross.rest.flat + cross.rest.m * 2 * (cross.p + 1)
        return int(np.clip(BATCH_ELEMENTS // max(per_point, 1), 1, 4096))

    @property
    def value_batch(self) -> int:
        """How many points to evaluate at once."""
        if self.pooled is None:
            return self.batch
        if isinstance(self.pooled, PooledSubjectsKernel):
            return int(np.clip(BATCH_ELEMENTS // self.pooled.cells, 1, 1024))
        cross, (q, _, C) = self.pooled.cross, self.pooled.A.shape
        per_point = 3 * q * q * C + 2 * (cross.p + 1) ** 2
        if cross.rest is not None:
            per_point += 6 * cross.rest.flat + cross.rest.m * 2 * (cross.p + 1)
        return int(np.clip(BATCH_ELEMENTS // per_point, 1, 4096))

    def solve(self, x: Array) -> Solution:
        """The profile in alpha at points x (t, ..) of the kernel."""
        return self.kernel.solve(x) if self.pooled is None else self.pooled.solve(x)

    def values(self, phi: Array) -> Array:
        """log posterior (t,) at phi (t, size), up to a constant unless every prior is proper; -inf where it does not exist."""
        phi, step = np.asarray(phi, float), self.value_batch
        out = np.empty(len(phi))
        with one_thread(self.problem.criterion.width), np.errstate(all="ignore"):
            for begin in range(0, len(phi), step):
                part = phi[begin : begin + step]
                prior = self.log_prior(part)
                total = np.full(len(part), -np.inf)
                fine = np.isfinite(prior)
                if fine.any():
                    total[fine] = prior[fine] - 0.5 * self._deviances(part[fine])
                out[begin : begin + step] = np.where(np.isfinite(total), total, -np.inf)
        return out

    def _deviances(self, phi: Array) -> Array:
        x, s = self.kernel_points(phi)
        fine = np.isfinite(x).all(axis=1) & (s > 0) & np.isfinite(s)
        if not fine.all():
            out = np.full(len(phi), np.inf)
            if fine.any():
                out[fine] = self._deviances(phi[fine])
            return out
        try:
            found = self.integrate(self.solve(x), s**2, phi)
            return np.where(found.solution.r2 < -NEGATIVE_SQUARES * s**2, np.inf, found.value)
        except np.linalg.LinAlgError:
            if len(phi) == 1:
                return np.array([np.inf])
            half = len(phi) // 2
            return np.concatenate([self._deviances(phi[:half]), self._deviances(phi[half:])])

    def log_prior(self, phi: Array) -> Array:
        """log prior of the covariance parameters (t,)."""
        total = np.zeros(len(phi))
        for block in self.layout.matrices:
            total = total + block.axes.log_prior(phi[:, block.part], self.volume)
        if self.layout.variance is not None:
            total = total + self.layout.variance.log_prior(phi, self.volume)
        if self.layout.sigma is not None:
            total = total + self.layout.sigma.log_prior(phi[:, self.layout.sigma_part], self.volume)
        if self.layout.mixing is not None:
            total = total + self.layout.mixing.log_prior(phi)
        return total

    def log_priors(self, phi: Array) -> dict[str, Array]:
        """log prior (t,) of the covariance parameters of every grouping factor by its name, and of those of the errors as "residual"."""
        parts: dict[str, Array] = {}
        for block in self.layout.terms:
            group = self.problem.design.terms[self.layout.terms.index(block)].group.name
            parts[group] = parts.get(group, 0.0) + block.axes.log_prior(phi[:, block.part], self.volume)
        errors = self.log_prior(phi) - sum(parts.values(), np.zeros(len(phi)))
        return parts | {"residual": errors if self.layout.mixing is None else errors - self.layout.mixing.log_prior(phi)}

    def log_likelihood_given(self, phi: Array, alpha: Array) -> Array:
        """log p(y | alpha, phi), beta integrated out, (t,); alpha (t, p) on the user's scale."""
        criterion, c = self.problem.criterion, self.problem.standardization
        out, step, p = np.empty(len(phi)), self.value_batch, alpha.shape[1]
        with one_thread(criterion.width), np.errstate(all="ignore"):
            for begin in range(0, len(phi), step):
                part = slice(begin, begin + step)
                x, s = self.kernel_points(phi[part])
                solution = repeat_solution(self.solve(x), len(x))
                a = np.linalg.solve(c.back, (alpha[part] - c.alpha0).T).T / c.y_scale if p else alpha[part]
                v = np.concatenate([-a, np.ones((len(a), 1))], axis=1)
                r2 = np.einsum("tx,txy,ty->t", v, solution.Xy, v)
                out[part] = solution.logdet + criterion.n * np.log(s**2) + r2 / s**2 + criterion.constant(restricted=False) - criterion.n
        return -0.5 * out

    def log_likelihood(self, phi: Array) -> Array:
        """log p(y | phi), alpha and beta integrated out, (t,)."""
        with np.errstate(all="ignore"):
            return np.asarray(-0.5 * self._deviances(np.asarray(phi, float)))

    # -- one point with gradient ----------------------------------------------------------------------------------------------------------

    def at(self, phi: Array) -> DensityValue:
        """Value and gradient at one phi (size,)."""
        phi = np.asarray(phi, float)
        try:
            with one_thread(self.problem.criterion.width), np.errstate(all="ignore"):
                return self._at(phi)
        except np.linalg.LinAlgError:
            return DensityValue(-np.inf, np.full(self.size, np.nan))

    def _at(self, phi: Array) -> DensityValue:
        prior = float(self.log_prior(phi[None])[0])
        x, s = self.kernel_points(phi[None])
        if not np.isfinite(prior) or not np.isfinite(x).all() or not s[0] > 0:
            return DensityValue(-np.inf, np.full(self.size, np.nan))
        s2 = float(s[0]) ** 2
        state = self.problem.criterion.kernel.evaluate(x, derivatives=True)
        found = self.integrate(state.solution, s**2, phi[None])
        value = prior - 0.5 * float(found.value[0])
        if not np.isfinite(value) or found.solution.r2[0] < -NEGATIVE_SQUARES * s2:
            return DensityValue(-np.inf, np.full(self.size, np.nan))
        gradient = self._prior_gradient(phi) - 0.5 * self.deviance_gradient(phi, x, s2, with_solution(state, found), found)
        return DensityValue(value, gradient)

    def deviance_gradient(self, phi: Array, x: Array, s2: float, state: State, found: MarginalCoefficients) -> Array:
        out = np.zeros(self.size)
        sigma_slope = self.alpha.log_sigma_slope(found, s2)
        unit2 = s2 * self.problem.standardization.y_scale**2
        if self.layout.terms:
            for block, G in zip(self.layout.terms, state.sigma_gradients(True, s2), strict=True):
                A = block.term.map.inverse
                user = A.T @ G @ A / unit2
                out[block.part] = np.einsum("ab,fab->f", user, block.slopes(phi))
                sigma_slope -= 2.0 * float(np.sum(user * block.covariance(phi[None])[0]))
        if self.layout.sets or self.layout.variance is not None:
            self._residual_gradient(phi, x[0], s2, state, sigma_slope, out)
        if self.layout.sigma is not None:
            u = phi[self.layout.sigma_part]
            jacobian = self.layout.sigma.jacobian(u)
            out[self.layout.sigma_part] = sigma_slope * jacobian / self.layout.sigma.values(u)[: len(jacobian)]
        if self.layout.mixing is not None:
            variances = self.layout.mixing.variances(phi[None])
            out[self.layout.mixing.part] = self.alpha.log_variance_slope(found, s2, variances) * self.layout.mixing.log_slopes(phi)
        return out

    def _residual_gradient(self, phi: Array, x: Array, s2: float, state: State, sigma_slope: float, out: Array) -> None:
        """Fill in the parts of R and of the variance function; sigma is R's leading scale, whose move moves the others' ratio to it."""
        assert isinstance(state, BlockDiagonalState)
        g = state.gradient(True, s2)
        begin = self.problem.random.size
        if self.layout.variance is not None:
            out[self.layout.variance.part] = g[len(g) - len(self.layout.variance.priors) :] * self.layout.variance.units
        if not self.layout.sets:
            return
        degrees = np.concatenate([block.covariance.degrees for block in self.layout.sets])
        lead = float(np.sqrt(s2)) * self.sigma_unit
        own = np.concatenate([[0.0], g[begin : begin + len(degrees) - 1]])
        relative = np.concatenate([[1.0], x[begin : begin + len(degrees) - 1]])
        full, offset = own / lead**degrees, 0
        full[0] += (sigma_slope - float(np.sum(own * degrees * relative))) / lead
        for block in self.layout.sets:
            size = block.covariance.size
            out[block.part] += full[offset : offset + size] @ block.axes.jacobian(phi[block.part])
            offset += size

    def _prior_gradient(self, phi: Array) -> Array:
        out = np.zeros(self.size)
        for block in self.layout.matrices:
            out[block.part] = block.axes.prior_gradient(phi[block.part], self.volume)
        if self.layout.variance is not None:
            out[self.layout.variance.part] = self.layout.variance.prior_gradient(phi, self.volume)
        if self.layout.sigma is not None:
            out[self.layout.sigma_part] = self.layout.sigma.prior_gradient(phi[self.layout.sigma_part], self.volume)
        if self.layout.mixing is not None:
            out[self.layout.mixing.part] = -phi[self.layout.mixing.part]
        return out

    def without_volume(self) -> Density:
        """The same density of the parameters a user speaks of."""
        return replace(self, volume=False)


def with_solution(state: State, found: MarginalCoefficients) -> State:
    """The state as if its profile in alpha had been the penalised one: its adjoints are then those of the integrated likelihood."""
    if isinstance(state, RandomEffectsState):
        return RandomEffectsState(state.parameters, state.x, replace(state.levels, solution=found.solution))
    assert isinstance(state, BlockDiagonalState)
    return state.with_solution(found.solution)


def kernel_for_many_points(problem: Problem) -> Kernel:
    """The kernel of a problem; small crossed designs with a factor eliminated first, which pays once many points share each call."""
    kernel = problem.criterion.kernel
    if not isinstance(kernel, RandomEffectsKernel):
        return kernel
    cross = kernel.cross
    if cross.first is not None or cross.rest is None or cross.factors[0].root is not None:
        return kernel
    return RandomEffectsKernel(kernel.parameters, problem.cross_products_for_many())


def require_room_for_draws(target: Density, draws: float, what: str, rows: bool = False) -> None:
    """Raise SizeError where so many draws of all parameters and random effects would not fit; rows : with a number for each row."""
    design = target.problem.design
    effects = sum(term.group.size * len(term.columns) for term in design.terms)
    each = 3 * (target.size + len(design.kept) + effects) + (3 * design.nobs if rows else 0)
    require_memory("prior draws" if rows else "draws", draws * each, what, "ask for fewer draws")


def density(problem: Problem, priors: Priors | None = None) -> Density:
    """The posterior density of a problem under priors (defaults scaled from the data).

    Raises PriorError for names that the model does not have.
    """
    own = resolve(problem, priors)
    return arrange_density(problem, own, lay_out_parameters(problem, own))


def alpha_prior(problem: Problem, priors: ModelPriors) -> AlphaPrior:
    """The priors of alpha; an intercept of centred columns is the first of them."""
    centred = any(row.centred for row in priors.alpha)
    means = problem.design.moments.X.mean(axis=0) if centred else None
    return AlphaPrior(problem, tuple(row.prior for row in priors.alpha), means)


def arrange_density(problem: Problem, priors: ModelPriors, axes: ParameterLayout) -> Density:
    """The density of a problem on given axes, its kernels laid out for many points."""
    alpha = alpha_prior(problem, priors)
    many = kernel_for_many_points(problem)
    if isinstance(many, RandomEffectsKernel):
        return Density(problem, priors, axes, alpha, many=many, pooled=pool_levels(many))
    assert isinstance(many, BlockDiagonalKernel)
    return Density(problem, priors, axes, alpha, many=many, pooled=pool_subjects(many))
