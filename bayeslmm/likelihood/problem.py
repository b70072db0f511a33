"""A design made ready to be evaluated: conditioning, cross-products, kernel and criterion, and the maps between x and theta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.data.design import Design
from bayeslmm.likelihood.conditioning import Conditioning, condition
from bayeslmm.likelihood.criterion import Criterion, one_thread
from bayeslmm.likelihood.crossproducts import cross_products
from bayeslmm.likelihood.kernel import RandomEffectsKernel
from bayeslmm.likelihood.parameters import RandomParameters, random_parameters


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Everything that estimation and sampling need of a design, its rows read once.

    x is on the optimiser's axes, theta on the user's columns; both run over the terms in the order of the formula.
    """

    design: Design
    conditioning: Conditioning
    criterion: Criterion
    random: RandomParameters

    @property
    def size(self) -> int:
        return self.criterion.size

    def start(self) -> Array:
        """Unit relative standard deviations on conditioned columns."""
        return np.concatenate([term.covariance.start() for term in self.random.terms] + [np.zeros(0)])

    def theta(self, x: Array) -> Array:
        w = self.conditioning.weight_mean
        return np.concatenate([term.theta(x[term.part], w) for term in self.random.terms] + [np.zeros(0)])

    def x(self, theta: Array) -> Array:
        w = self.conditioning.weight_mean
        return np.concatenate([term.x(np.asarray(theta[term.part], float), w) for term in self.random.terms] + [np.zeros(0)])

    def relative_covariances(self, x: Array) -> list[Array]:
        """D / sigma^2 of every term on the user's columns."""
        return [term.relative(x[term.part], self.conditioning.weight_mean) for term in self.random.terms]

    def sigma2(self, conditioned: float) -> float:
        """sigma^2 on the user's scale."""
        c = self.conditioning
        return conditioned * c.y_scale**2 * c.weight_mean

    def alpha(self, conditioned: Array) -> Array:
        """Coefficients of the columns kept, on the user's scale."""
        c = self.conditioning
        return np.asarray(c.alpha0 + c.y_scale * (conditioned @ c.back.T))

    def gradient_theta(self, theta: Array, restricted: bool) -> Array:
        """Derivative of the profiled criterion in theta; exact at singular theta too."""
        x = self.x(theta)
        point = self.criterion.at(x, restricted, order=1)
        w = self.conditioning.weight_mean
        if point.state is None:
            return np.full(len(theta), np.nan)
        out = np.zeros(len(theta))
        G = point.state.sigma_gradients(restricted, point.sigma2)
        for term, g in zip(self.random.terms, G, strict=True):
            user = term.map.inverse.T @ g @ term.map.inverse * w
            out[term.part] = np.einsum("ab,iab->i", user, term.theta_derivative(np.asarray(theta[term.part], float)))
        return out


def build(design: Design) -> Problem:
    """Condition the columns and add up the cross-products."""
    with one_thread():
        conditioning = condition(design)
        cross = cross_products(design, conditioning)
    parameters = random_parameters([(t.covariance, m) for t, m in zip(design.terms, conditioning.maps, strict=True)], cross.factors)
    width = max((b.index.shape[1] for b in cross.rest.batches), default=0) if cross.rest is not None else 0
    n, p = design.X.shape
    return Problem(design, conditioning, Criterion(n, p, conditioning, RandomEffectsKernel(parameters, cross), width), parameters)
