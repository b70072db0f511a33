"""Draws of parameters, random effects and responses from the priors; the table of priors in use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm._arrays import Array, Generator, generator
from bayeslmm._validation import require_count
from bayeslmm.bayes.log_posterior.density import Density, arrange_density, require_room_for_draws
from bayeslmm.bayes.log_posterior.layout import lay_out_parameters
from bayeslmm.bayes.log_posterior.priors import ModelPriors, ParameterPrior, resolve, with_stand_ins
from bayeslmm.bayes.posterior import datatree as tree
from bayeslmm.bayes.posterior.data import PosteriorData, PosteriorDraws
from bayeslmm.bayes.posterior.predict import draw_posterior_errors, linear_predictor
from bayeslmm.covariance.linalg import cholesky
from bayeslmm.errors import BayesLMMWarning, optional, printable_text, warn_user
from bayeslmm.results.foreign_names import known_arguments
from bayeslmm.specification.prior_families import Prior, is_proper, log_density

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

    from bayeslmm._types import AxesLike


def prior_predictive(model: Any, draws: int = 500, seed: int | None = None) -> xarray.DataTree:
    """A `DataTree` with groups prior, prior_predictive, observed_data, constant_data; one chain.

    Improper priors, of which nothing can be drawn, are stood in for by normal and half-t ones at the scale of the data, with a warning.
    """
    found, errors = draw_from_prior(model, draws, seed)
    name = tree.response_label(found)
    coords = {"chain": [0], "draw": np.arange(draws), "obs": np.arange(model.design.nobs)}
    y = linear_predictor(found) + errors
    predictive = optional("xarray").Dataset({name: (("chain", "draw", "obs"), y[None])}, coords=coords)
    groups = {"prior": tree.draws_dataset(found, tree.posterior_variables(found)), "prior_predictive": predictive}
    groups |= {"observed_data": tree.observed_dataset(found), "constant_data": tree.constant_dataset(found)}
    made: xarray.DataTree = optional("xarray").DataTree.from_dict(groups)
    return made


def draw_from_prior(model: Any, draws: int, seed: int | None) -> tuple[PosteriorData, Array]:
    """Draws of all parameters from the priors, and of the errors given them, (draws, n)."""
    require_count(draws, "draws")
    priors, replaced = with_stand_ins(model.problem, resolve(model.problem, model.spec.priors))
    if replaced:
        names = ", ".join(replaced[:6])
        warn_user(
            BayesLMMWarning(
                f"nothing can be drawn from improper priors; proper ones at the scale of the data stand in: {names}",
                names,
                'say which you mean, such as Priors(alpha="normal")',
            )
        )
    target = arrange_density(model.problem, priors, lay_out_parameters(model.problem, priors))
    require_room_for_draws(target, float(draws), f"{draws:,} draws of {model.design.nobs:,} rows", rows=True)
    rng = generator(seed)
    alpha = target.alpha.draws(rng, draws)
    phi = draw_phi(target, alpha, rng)
    found = PosteriorDraws(phi, alpha, draw_beta(target, phi, rng), target.log_prior(phi))
    post = PosteriorData(model, target, found, chains=1, method="prior", checks={}, elapsed=0.0)
    return post, draw_posterior_errors(post, np.arange(draws), rng)


def draw_phi(target: Density, alpha: Array, rng: Generator) -> Array:
    """Covariance parameters (draws, d) from their priors, and the scales of mixed priors of alpha (draws, p) given it."""
    layout, draws = target.layout, len(alpha)
    parts = [block.axes.draws(rng, draws) for block in layout.matrices]
    if layout.variance is not None:
        parts.append(layout.variance.draws(rng, draws))
    if layout.sigma is not None:
        parts.append(layout.sigma.draws(rng, draws))
    if layout.mixing is not None:
        parts.append(layout.mixing.draw_given(target.alpha.to_prior_scale(alpha)[:, target.alpha.mixed], rng))
    return np.concatenate(parts, axis=1)


def draw_beta(target: Density, phi: Array, rng: Generator) -> tuple[Array, ...]:
    """Random effects of every term, (draws, K, q), given covariance parameters."""
    found = []
    for block, term in zip(target.layout.terms, target.problem.design.terms, strict=True):
        root = cholesky(block.covariance(phi))
        z = rng.standard_normal((len(phi), term.group.size, len(term.columns))) @ root.swapaxes(-1, -2)
        found.append(z if term.relationship is None else np.einsum("kl,slq->skq", cholesky(term.relationship), z))
    return tuple(found)


CURVE_POINTS = 200


def resolved_priors(model: Any) -> ResolvedPriors:
    """The priors of a model, those not said scaled from the data."""
    return ResolvedPriors(resolve(model.problem, model.spec.priors))


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedPriors:
    """Priors in use.

    Attributes
    ----------
    frame : DataFrame
        One row per parameter, `parameter, group, term, prior, proper, source`.
    """

    priors: ModelPriors

    @property
    def frame(self) -> pd.DataFrame:
        """One row per parameter."""
        rows = [
            (r.kind, r.group, r.term, prior_text(r.prior), r.kind == "corr" or is_proper(r.prior), r.source) for r in self.priors.rows()
        ]
        return pd.DataFrame(rows, columns=["parameter", "group", "term", "prior", "proper", "source"])

    def curves(self, points: int = CURVE_POINTS) -> pd.DataFrame:
        """Densities for a figure: `label, value, density`; improper priors are left out.

        Parameters
        ----------
        points : int, default CURVE_POINTS
            Points of each curve.

        Returns
        -------
        DataFrame
            Points of every curve.

        Examples
        --------
        >>> model.priors.curves(50).columns.tolist()
        ['label', 'value', 'density']
        """
        frames = [pd.DataFrame({"label": row.label, "value": v, "density": d}) for row, v, d in self._curves(points)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["label", "value", "density"])

    def _curves(self, points: int) -> Iterator[tuple[ParameterPrior, Array, Array]]:
        for row in self.priors.rows():
            prior = Prior("uniform", (-1.0, 1.0)) if row.kind == "corr" and row.prior.family != "lkj" else row.prior
            if prior.family == "lkj":
                v = np.linspace(-1.0, 1.0, points)
                # the marginal of one correlation of a 2 x 2 matrix
                d = (1.0 - v**2) ** (prior.parameters[0] - 1.0)
                yield row, v, d / (d.mean() * 2.0)
            elif is_proper(prior):
                v = np.linspace(*_range(prior), points)
                yield row, v, np.exp(log_density(prior, v))

    def plot(self, ax: AxesLike = None) -> list[Axes]:
        """The density of every proper prior, a panel each: Matplotlib axes; `curves` has the numbers.

        Parameters
        ----------
        ax : Axes or array of Axes, optional
            Axes to draw on; a new figure without.

        Returns
        -------
        list of Axes
            The axes drawn on.

        Examples
        --------
        >>> axes = model.priors.plot()
        """
        from bayeslmm.plots.intervals import priors_axes

        return priors_axes(self, ax)

    def __repr__(self) -> str:
        return printable_text(self.frame.to_string(index=False))

    def _repr_html_(self) -> str:
        return printable_text(self.frame.to_html(index=False))


known_arguments(ResolvedPriors)


def _range(prior: Prior) -> tuple[float, float]:
    """Where nearly all of a density lies."""
    last = prior.parameters[-1]
    if prior.family == "uniform":
        return prior.parameters[0], prior.parameters[1]
    if prior.family == "normal":
        return prior.parameters[0] - 4.0 * last, prior.parameters[0] + 4.0 * last
    if prior.family == "exponential":
        return 0.0, 5.0 / last
    if prior.family == "gamma":
        return 1e-9 / last, (prior.parameters[0] + 4.0 * np.sqrt(prior.parameters[0])) / last
    if prior.family == "inverse_gamma":
        return 1e-9 * last, 5.0 * last / max(prior.parameters[0], 0.5)
    return 0.0, 4.0 * last


def prior_text(prior: Prior) -> str:
    """`half_t(3, 0, 141)`: families with a location of 0 show it, as books do."""
    numbers = [f"{value:.4g}" for value in prior.parameters]
    if prior.family.startswith("half"):
        numbers.insert(len(numbers) - 1, "0")
    return f"{prior.family}({', '.join(numbers)})" if numbers else prior.family
