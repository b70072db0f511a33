"""The layout of the parameter vector phi in blocks, and the map from phi to the kernel's x.

phi = (random terms in the order of the formula, parameter sets of R, variance function, log sigma where R has no scale of its own,
scales of coefficients whose prior is a mixture of normals)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincc, ndtri

from bayeslmm._arrays import Array, Codes, Generator
from bayeslmm.bayes.log_posterior.priors import MatrixPriors, ModelPriors, is_unstructured_with_sds
from bayeslmm.bayes.log_posterior.transforms import (
    GeneralTransform,
    PositiveTransform,
    ScaledTransform,
    Transform,
    UnstructuredTransform,
    positive_transform,
)
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.correlation import IdentityCorrelation
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.covariance.unstructured import Diagonal, band_positions
from bayeslmm.likelihood.parameters import TermParameters
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import ParameterSet, residual_sets
from bayeslmm.specification.prior_families import FAMILIES, Prior, draw_prior, is_mixture, log_density, log_density_slope


def transform_of(covariance: Covariance, priors: MatrixPriors) -> Transform:
    """The axes of a structure under its priors."""
    sds = positive_transform(tuple(row.prior for row in priors.sds))
    shapes = tuple(row.prior for row in priors.shapes)
    if is_unstructured_with_sds(covariance):
        return UnstructuredTransform(
            sds, priors.corr.prior.parameters[0] if priors.corr is not None and priors.corr.prior.parameters else 1.0
        )
    if isinstance(covariance, Diagonal):
        return ScaledTransform(sds, IdentityCorrelation(covariance.q), ())
    if isinstance(covariance, Homogeneous | Heterogeneous):
        return ScaledTransform(sds, covariance.correlation_, shapes)
    return GeneralTransform(covariance, shapes)


def rotate_to_triangle(M: Array) -> Array:
    """Lower triangular T with T T' = M M', by Givens rotations of the columns; M (t, q, q)."""
    T = np.array(M)
    q = T.shape[-1]
    for i in range(q - 1):
        for j in range(i + 1, q):
            a, b = T[:, i, i], T[:, i, j]
            r = np.hypot(a, b)
            safe = np.where(r > 0, r, 1.0)
            c, s = np.where(r > 0, a / safe, 1.0), b / safe
            left, right = T[:, :, i].copy(), T[:, :, j].copy()
            T[:, :, i] = c[:, None] * left + s[:, None] * right
            T[:, :, j] = c[:, None] * right - s[:, None] * left
    return T


@dataclass(frozen=True, slots=True, eq=False)
class TermBlock:
    """A random term: its axes, its part of phi, its parameters within the kernel's x."""

    axes: Transform
    part: slice
    term: TermParameters

    def kernel_x(self, phi: Array, unit: Array) -> Array:
        """The term's part of x (t, size): D on standardized columns in units of unit^2."""
        covariance, A = self.term.covariance, self.term.map.inverse
        x = self.axes.values(phi[:, self.part])
        if isinstance(self.axes, UnstructuredTransform):
            rows, columns = band_positions(covariance.q, covariance.q)
            T = np.zeros((len(x), covariance.q, covariance.q))
            T[:, rows, columns] = x
            mapped = rotate_to_triangle(A @ T)[:, rows, columns]
        elif covariance.invariance == "any":
            mapped = np.stack([covariance.map_rows(row, A) for row in x])
        elif covariance.invariance == "diagonal":
            mapped = covariance.rescale_rows(x, np.diagonal(A))
        else:
            mapped = covariance.rescale(x, float(A[0, 0]))
        return np.asarray(mapped / unit[:, None] ** covariance.degrees)

    def from_kernel(self, x: Array, unit: float, typical: float) -> Array:
        """phi of the term's part of x."""
        covariance, whole = self.term.covariance, self.term.map.whole
        user = covariance.map_rows(x, whole) if covariance.invariance == "any" else x
        if covariance.invariance == "diagonal":
            user = covariance.rescale_rows(x, np.abs(np.diagonal(whole)))
        elif covariance.invariance == "scalar":
            user = covariance.rescale(x, float(whole[0, 0]))
        return self.axes.inverse(covariance.rescale(user, unit), typical)

    def covariance(self, phi: Array) -> Array:
        """D (t, q, q) on the user's columns."""
        return self.term.covariance.matrix(self.axes.values(phi[:, self.part]))

    def slopes(self, phi: Array) -> Array:
        """dD/dphi (size, q, q) at one phi."""
        own = phi[self.part]
        dx = self.term.covariance.matrix_derivative(self.axes.values(own[None])[0])
        return np.asarray(np.einsum("xf,xab->fab", self.axes.jacobian(own), dx))


@dataclass(frozen=True, slots=True, eq=False)
class MatrixBlock:
    """One parameter set of R on its axes."""

    axes: Transform
    part: slice
    own: ParameterSet

    @property
    def covariance(self) -> Covariance:
        """The structure."""
        return self.own.covariance

    def matrix(self, phi: Array) -> Array:
        """R over all visits (t, m, m), before weights and variance function."""
        return self.covariance.matrix(self.axes.values(phi[:, self.part]))


@dataclass(frozen=True, slots=True, eq=False)
class VarianceBlock:
    """The variance function: its free parameters are phi in their units; priors on natural ones.

    units : what a move of about 1 is for each free parameter, powers of 2
    """

    priors: tuple[Prior, ...]
    positive: Codes
    part: slice
    units: Array

    def free(self, phi: Array) -> Array:
        """The free parameters in the units of the covariates."""
        return np.asarray(phi[..., self.part] * self.units)

    @property
    def log_volume(self) -> float:
        """What log densities of phi have more than those of the free parameters."""
        return float(np.log(self.units).sum())

    def natural(self, phi: Array) -> Array:
        u = self.free(phi)
        return np.asarray(np.where(self.positive == 1, np.exp(np.where(self.positive == 1, u, 0.0)), u))

    def log_prior(self, phi: Array, volume: bool) -> Array:
        v, total = self.natural(phi), np.zeros(phi.shape[:-1])
        for j, prior in enumerate(self.priors):
            total = total + log_density(prior, v[..., j])
        return total + (phi[..., self.part] * self.positive).sum(-1) + self.log_volume if volume else total

    def prior_gradient(self, phi: Array, volume: bool) -> Array:
        v = self.natural(phi)
        own = np.array([float(log_density_slope(prior, v[j])) for j, prior in enumerate(self.priors)])
        return np.asarray(own * np.where(self.positive == 1, v, self.units) + (self.positive if volume else 0.0))

    def draws(self, rng: np.random.Generator, n: int) -> Array:
        v = np.stack([draw_prior(prior, rng, n) for prior in self.priors], axis=1) if self.priors else np.zeros((n, 0))
        return np.where(self.positive == 1, np.log(np.abs(np.where(self.positive == 1, v, 1.0))), v) / self.units


@dataclass(frozen=True, slots=True, eq=False)
class MixingBlock:
    """Scales of the coefficients whose priors are mixtures of normals: the normals' variances at standard normal quantiles u."""

    priors: tuple[Prior, ...]
    part: slice

    def _each(self, phi: Array) -> list[tuple[Array, Array]]:
        u = phi[..., self.part]
        with np.errstate(all="ignore"):
            return [_mixture(prior, u[..., j]) for j, prior in enumerate(self.priors)]

    def variances(self, phi: Array) -> Array:
        """(t, m) at phi (t, size)."""
        return np.stack([variance for variance, _ in self._each(phi)], axis=-1)

    def log_slopes(self, phi: Array) -> Array:
        """d log variance / du, (m,), at one phi."""
        return np.stack([own for _, own in self._each(phi)], axis=-1)

    def log_prior(self, phi: Array) -> Array:
        u = phi[..., self.part]
        return np.asarray(-0.5 * (u**2 + np.log(2.0 * np.pi)).sum(-1))

    def draw_given(self, stated: Array, rng: Generator) -> Array:
        """u (S, m) drawn given the coefficients (S, m)."""
        return np.stack([_quantile_given(prior, stated[:, j], rng) for j, prior in enumerate(self.priors)], axis=1)


def _mixture(prior: Prior, u: Array) -> tuple[Array, Array]:
    mixture = FAMILIES[prior.family].mixture
    assert mixture is not None
    return mixture(*prior.parameters, u)


def _quantile_given(prior: Prior, alpha: Array, rng: Generator) -> Array:
    """u of the scale of one coefficient given its value: gamma for a t, inverse Gaussian for a laplace."""
    away, scale = np.abs(alpha - prior.location), prior.parameters[-1]
    if prior.family == "laplace":
        e = 0.5 / (scale**2 * rng.wald(1.0 / np.maximum(scale * away, 1e-12 * scale**2), scale**-2.0))
        return np.asarray(-ndtri(np.exp(-e)))
    df = prior.parameters[0] if prior.family == "student_t" else 1.0
    g = rng.gamma(0.5 * (df + 1.0), 2.0 / (df + (away / scale) ** 2))
    return np.asarray(ndtri(gammaincc(0.5 * df, 0.5 * df * g)))


@dataclass(frozen=True, slots=True, eq=False)
class ParameterLayout:
    """All blocks of a model; `sigma` None where R's first scale is sigma."""

    terms: tuple[TermBlock, ...]
    sets: tuple[MatrixBlock, ...]
    variance: VarianceBlock | None
    sigma: PositiveTransform | None
    sigma_part: slice
    mixing: MixingBlock | None
    size: int

    @property
    def matrices(self) -> tuple[TermBlock | MatrixBlock, ...]:
        """Every covariance matrix."""
        return (*self.terms, *self.sets)


def lay_out_parameters(problem: Problem, priors: ModelPriors) -> ParameterLayout:
    """Lay the parameters of a model out on its axes."""
    begin, terms, sets = 0, [], []
    for term, own in zip(problem.random.terms, priors.terms, strict=True):
        axes = transform_of(term.covariance, own)
        terms.append(TermBlock(axes, slice(begin, begin + axes.size), term))
        begin += axes.size
    for one, own in zip(residual_sets(problem), priors.residual, strict=True):
        axes = transform_of(one.covariance, own)
        sets.append(MatrixBlock(axes, slice(begin, begin + axes.size), one))
        begin += axes.size
    variance, kernel = None, problem.structured
    if kernel is not None and kernel.variance.size:
        size = kernel.variance.size
        positive = (kernel.variance.natural(np.zeros(size)) == 1.0).astype(np.int64)
        units = np.where(positive == 1, 1.0, 2.0 ** np.round(np.log2(problem.axis_units[kernel.variance_part])))
        variance = VarianceBlock(tuple(row.prior for row in priors.variance), positive, slice(begin, begin + size), units)
        begin += size
    sigma = None if priors.sigma is None else positive_transform((priors.sigma.prior,))
    sigma_part = slice(begin, begin + (0 if sigma is None else sigma.size))
    scales = tuple(row.prior for row in priors.alpha if is_mixture(row.prior))
    mixing = MixingBlock(scales, slice(sigma_part.stop, sigma_part.stop + len(scales))) if scales else None
    return ParameterLayout(tuple(terms), tuple(sets), variance, sigma, sigma_part, mixing, sigma_part.stop + len(scales))
