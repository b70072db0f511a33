"""Draws of a posterior with the model that they are of: what every table, figure and file of a posterior is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm._arrays import Array, FrozenMapping
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.bayes.posterior.named_draws import Variable, named_parameters
from bayeslmm.errors import Check, MismatchError, SpecificationError
from bayeslmm.likelihood.problem import Problem
from bayeslmm.results.estimates import FittedModel
from bayeslmm.results.store import AddedUp, Arrays, stored_model, to_json, weighting_fitted_values, write_archive

if TYPE_CHECKING:
    from bayeslmm.data.design import Design


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorDraws:
    """S draws, ordered by chain.

    phi : (S, d) covariance parameters on the axes of the density; alpha : (S, p) of the columns kept
    beta : (S, K, q) for every random term in the order of the formula; log_density : (S,) of phi
    """

    phi: Array
    alpha: Array
    beta: tuple[Array, ...]
    log_density: Array

    @property
    def size(self) -> int:
        return len(self.phi)


class PosteriorData:
    """Draws, their model and density, and how they were made."""

    def __init__(
        self,
        model: FittedModel,
        density: Density,
        draws: PosteriorDraws,
        *,
        chains: int,
        method: str,
        checks: Mapping[str, Check],
        elapsed: float,
        evidence: float | None = None,
        interrupted: bool = False,
        statistics: Mapping[str, Array] | None = None,
    ) -> None:
        self.model = model
        self.density = density
        self.draws = draws
        self.chains = chains
        self.method = method
        self.checks: Mapping[str, Check] = FrozenMapping(dict(checks))
        self.elapsed = elapsed
        self.interrupted = interrupted
        self.statistics = dict(statistics or {})
        self.evidence = evidence
        """log p(y) from importance weights, known or not to be of proper priors; see `log_evidence`."""

    # -- what was drawn --------------------------------------------------------------------------------------------------------------------

    @property
    def design(self) -> Design:
        """The design of the model."""
        return self.density.problem.design

    @property
    def problem(self) -> Problem:
        """The conditioned design that was sampled."""
        return self.density.problem

    @property
    def formula(self) -> str:
        """The formula as given."""
        return str(self.model.formula)

    @property
    def coef_names(self) -> list[str]:
        """Names of the coefficients drawn: aliased ones are left out."""
        return [self.design.coef_names[i] for i in self.design.kept]

    @cached_property
    def parameters(self) -> dict[str, Variable]:
        """Draws of `sigma`, sds, correlations and the parameters of R, by name."""
        return named_parameters(self.density, self.draws.phi)

    @cached_property
    def kernel_points(self) -> tuple[Array, Array]:
        """x (S, size) and sigma (S,) of the kernel, both on conditioned columns."""
        return self.density.kernel_points(self.draws.phi)

    @property
    def size(self) -> int:
        """Number of draws, of all chains."""
        return self.draws.size

    def shaped(self, values: Array) -> Array:
        """(S, ...) as (chains, draws, ...).

        Parameters
        ----------
        values : ndarray
            (S, ...) values, a row for each draw.

        Returns
        -------
        ndarray
            (chains, draws, ...) values.

        Examples
        --------
        >>> post.shaped(np.zeros((4000, 2))).shape
        (4, 1000, 2)
        """
        drawn = np.asarray(values)
        if drawn.ndim == 0 or len(drawn) != self.size:
            what = f"values has shape {drawn.shape}, and there are {self.size} draws"
            raise SpecificationError(what, "values", "give one row for each draw")
        return drawn.reshape(self.chains, -1, *drawn.shape[1:])


DENSITY_AGREEMENT = 1e-8
"""Largest difference, relative to its size, between a stored log density and the one evaluated on opening."""


def save_posterior(post: PosteriorData, path: Path, *, rows: bool = True) -> None:
    """Write a posterior to exactly this path. rows : whether they are kept, where the model has them. Errors: StoreError."""
    arrays: Arrays = {}
    content = stored_model(post.model, arrays, None if rows else AddedUp.of(post.model))
    held = weighting_fitted_values(post.problem)
    if held is not None:
        arrays["fitted"] = held
    content["posterior"] = {
        "chains": post.chains,
        "method": post.method,
        "checks": to_json(list(post.checks.values())),
        "evidence": None if post.evidence is None else float(post.evidence),
        "interrupted": post.interrupted,
        "terms": len(post.draws.beta),
    }
    arrays |= {"draws/phi": post.draws.phi, "draws/alpha": post.draws.alpha, "draws/log_density": post.draws.log_density}
    arrays |= {f"draws/beta/{i}": beta for i, beta in enumerate(post.draws.beta)}
    arrays |= {f"statistics/{name}": np.asarray(values) for name, values in post.statistics.items()}
    write_archive(path, content, arrays)


def require_same_density(post: PosteriorData, path: str) -> None:
    stored, value = float(post.draws.log_density[0]), float(post.density.values(post.draws.phi[:1])[0])
    if not abs(value - stored) <= DENSITY_AGREEMENT * max(1.0, abs(stored)):
        raise MismatchError(
            f"the log density of the saved posterior is {stored:.6f}; evaluated again it is {value:.6f}", path, "sample again"
        )
