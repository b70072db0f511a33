"""Draws of a posterior with the model that they are of: what every table, figure and file is made from; their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm._arrays import Array, Checks
from bayeslmm.bayes.log_posterior.density import Density
from bayeslmm.bayes.log_posterior.layout import MatrixBlock
from bayeslmm.bayes.log_posterior.transforms import UnstructuredTransform
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.data.expressions import read_atom
from bayeslmm.errors import Check, FormatError, MismatchError, SpecificationError
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import residual_names, variance_names
from bayeslmm.results.archive import Arrays, to_json, write_archive
from bayeslmm.results.estimates import FittedModel
from bayeslmm.results.random_effects import DIAGONAL_STRUCTURES, terms_by_group
from bayeslmm.results.store import AddedUp, stored_model

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

    def __repr__(self) -> str:
        shapes = ", ".join([f"phi {self.phi.shape}", f"alpha {self.alpha.shape}", *(f"beta {one.shape}" for one in self.beta)])
        return f"PosteriorDraws({shapes})"


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
        self.checks: Mapping[str, Check] = Checks(dict(checks))
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

    def reshape_draws(self, values: Array) -> Array:
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
        >>> post.reshape_draws(np.zeros((4000, 2))).shape
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
    held = post.problem.held_fitted
    if held is not None:
        arrays["fitted"] = held
    content["posterior"] = {
        "chains": post.chains,
        "method": post.method,
        "checks": to_json(list(post.checks.values())),
        "evidence": None if post.evidence is None else float(post.evidence),
        "interrupted": post.interrupted,
        "terms": len(post.draws.beta),
        "variance_units": [] if post.density.layout.variance is None else post.density.layout.variance.units.tolist(),
    }
    arrays |= {"draws/phi": post.draws.phi, "draws/alpha": post.draws.alpha, "draws/log_density": post.draws.log_density}
    arrays |= {f"draws/beta/{i}": beta for i, beta in enumerate(post.draws.beta)}
    arrays |= {f"statistics/{name}": np.asarray(values) for name, values in post.statistics.items()}
    write_archive(path, content, arrays)


EVALUATED_AGAIN = 64
"""How many draws, spread over all chains, have their log density evaluated on opening."""


def require_same_density(post: PosteriorData, path: str) -> None:
    """Raise unless the draws have the shapes of the model and log densities that follow from its rows: those of some, spread evenly.

    Errors: FormatError for another shape or a draw that is no number, MismatchError for another density.
    """
    draws, design = post.draws, post.problem.design
    n = draws.size
    shapes = [
        ("phi", draws.phi, (n, post.density.size)),
        ("alpha", draws.alpha, (n, len(design.kept))),
        ("density", draws.log_density, (n,)),
    ]
    effects = [(n, len(term.group.levels), len(term.columns)) for term in design.terms]
    shapes += [(f"beta {i}", beta, shape) for i, (beta, shape) in enumerate(zip(draws.beta, effects, strict=True))]
    for name, values, shape in shapes:
        if values.shape != shape:
            raise FormatError(f"the draws of {name} have shape {values.shape}, the model {shape}", path, "sample again")
        if not np.all(np.isfinite(values)):
            raise FormatError(f"draws of {name} are no numbers", path, "sample again")
    if post.chains < 1 or n < 1 or n % post.chains:
        raise FormatError(f"{n} draws are said to be of {post.chains} chains", path, "sample again")
    chosen = np.unique(np.linspace(0, n - 1, EVALUATED_AGAIN).astype(np.int64))
    stored, again = draws.log_density[chosen], post.density.values(draws.phi[chosen])
    other = ~(np.abs(again - stored) <= DENSITY_AGREEMENT * np.maximum(1.0, np.abs(stored)))
    if other.any():
        what = f"the log density of a draw is {stored[other][0]:.6f} in the saved posterior; evaluated again it is {again[other][0]:.6f}"
        raise MismatchError(what, path, "sample again")


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """Draws of one named quantity: values (S, ...), dims of the axes after the first, coords of those dims."""

    values: Array
    dims: tuple[str, ...]
    coords: Mapping[str, list[Any]]


def matrix_sds(matrices: Array) -> Array:
    """sds (S, q) of covariance matrices (S, q, q)."""
    return np.sqrt(np.maximum(np.diagonal(matrices, axis1=-2, axis2=-1), 0.0))


def matrix_correlations(matrices: Array) -> Array:
    """Correlation matrices; 0 beside an sd of 0."""
    sd = matrix_sds(matrices)
    scale = sd[..., :, None] * sd[..., None, :]
    out = np.where(scale > 0, matrices / np.where(scale > 0, scale, 1.0), 0.0)
    q = out.shape[-1]
    out[..., np.arange(q), np.arange(q)] = 1.0
    return np.clip(out, -1.0, 1.0)


def group_columns(density: Density) -> dict[str, list[str]]:
    """Grouping factor -> the columns of all its terms; a column that occurs twice is told apart by its number."""
    terms, found = density.problem.design.terms, {}
    for group, members in terms_by_group(terms).items():
        names: list[str] = []
        for i in members:
            for name in terms[i].columns:
                names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
        found[group] = names
    return found


def group_covariance(density: Density, phi: Array, group: str) -> Array:
    """D (S, q, q) of a grouping factor, its terms side by side."""
    members = terms_by_group(density.problem.design.terms)[group]
    parts = [density.layout.terms[i].covariance(phi) for i in members]
    q = sum(part.shape[-1] for part in parts)
    whole, begin = np.zeros((len(phi), q, q)), 0
    for part in parts:
        end = begin + part.shape[-1]
        whole[:, begin:end, begin:end] = part
        begin = end
    return whole


RESERVED_NAMES = (
    "chain",
    "draw",
    "coef",
    "obs",
    "visit",
    "visit_bis",
    "visit_pair",
    "alpha",
    "alpha_prior",
    "sigma",
    "X",
    "offset",
    "weights",
)
"""Dims and variables that every tree and graph may have."""

STACKED = "sample"
"""What ArviZ calls chains and draws in one, beside the response."""


@dataclass(frozen=True, slots=True)
class TreeNames:
    """What trees and graphs call the grouping factors and the response: by their names, another where that is taken or holds a slash."""

    groups: Mapping[str, str]
    response: str


def tree_names(problem: Problem) -> TreeNames:
    """Names that no dim, coordinate or variable has twice: a dim called as another relabels it without a word."""
    design, found = problem.design, {}
    taken = {*RESERVED_NAMES, *residual_names(problem)}
    for group in terms_by_group(design.terms):
        label = plain_name(group)
        while taken & (own := _made_of(label)):
            label += "_group"
        found[group] = label
        taken |= own
    response = plain_response(design)
    return TreeNames(found, f"{response} (response)" if response in taken | {STACKED} else response)


def _made_of(group: str) -> set[str]:
    """The dims and variables of a grouping factor."""
    dims = {group, f"{group}_term", f"{group}_term_bis", f"{group}_pair"}
    return dims | {f"{stem}_{group}" for stem in ("sd", "corr", "cor", "beta", "Z", "index", "covariance")}


def plain_response(design: Design) -> str:
    """The response as its column is called, without the backticks of a formula; a function of it by its text."""
    return plain_name(read_atom(design.spec.formula.response).name)


def plain_name(name: str) -> str:
    """A name without the slash, which parts the groups of a tree."""
    return name.replace("/", "_per_")


def named_parameters(density: Density, phi: Array) -> dict[str, Variable]:
    """Every covariance parameter by name: `sigma`, `sd_<group>`, `corr_<group>`, then those of R and of the variance function."""
    found: dict[str, Variable] = {"sigma": Variable(density.sigma(phi), (), {})}
    terms, called = density.problem.design.terms, tree_names(density.problem).groups
    for group, members in terms_by_group(terms).items():
        D, names = group_covariance(density, phi, group), group_columns(density)[group]
        label = called[group]
        dim = f"{label}_term"
        found[f"sd_{label}"] = Variable(matrix_sds(D), (dim,), {dim: names})
        if any(terms[i].covariance.name not in DIAGONAL_STRUCTURES and terms[i].covariance.q > 1 for i in members):
            found[f"corr_{label}"] = Variable(matrix_correlations(D), (dim, f"{dim}_bis"), {dim: names, f"{dim}_bis": names})
        for i in members:
            covariance = terms[i].covariance
            if isinstance(covariance, Homogeneous | Heterogeneous) and covariance.correlation_.size:
                found |= _shapes(
                    density.layout.terms[i].axes.values(phi[:, density.layout.terms[i].part]), covariance, names, f" | {label}"
                )
    for block in density.layout.sets:
        found |= _residual(block, phi)
    if density.layout.variance is not None:
        values = density.layout.variance.natural(phi)
        found |= {name: Variable(values[:, j], (), {}) for j, name in enumerate(variance_names(density.problem))}
    return found


def _shapes(x: Array, covariance: Homogeneous | Heterogeneous, labels: list[str], suffix: str) -> dict[str, Variable]:
    names = covariance.natural_names_for(labels)
    values = covariance.natural(x)
    first = covariance.size - covariance.correlation_.size
    return {names[j] + suffix: Variable(values[:, j], (), {}) for j in range(first, covariance.size)}


def residual_draws(block: MatrixBlock, phi: Array) -> dict[str, Array]:
    """Draws (S,) of the parameters of one set of R, called as a fit calls them."""
    values = block.covariance.natural(block.axes.values(phi[:, block.part]))
    return {name: values[:, j] for j, name in enumerate(block.own.names)}


def _residual(block: MatrixBlock, phi: Array) -> dict[str, Variable]:
    """The parameters of one set of R: `sd_residual` by visit and `corr_residual` where each visit has its own, else by name."""
    suffix, covariance, x = block.own.suffix, block.covariance, block.axes.values(phi[:, block.part])
    found: dict[str, Variable] = {}
    named = {name: Variable(values, (), {}) for name, values in residual_draws(block, phi).items()}
    if isinstance(covariance, Homogeneous):
        return named if suffix else {name: variable for name, variable in named.items() if name != block.own.names[0]}
    labels = list(block.own.labels)
    if block.own.by_visit:
        R, dim = covariance.matrix(x), "visit"
        found[f"sd_residual{suffix}"] = Variable(matrix_sds(R), (dim,), {dim: labels})
        if isinstance(block.axes, UnstructuredTransform):
            found[f"corr_residual{suffix}"] = Variable(matrix_correlations(R), (dim, f"{dim}_bis"), {dim: labels, f"{dim}_bis": labels})
            return found
    sds = {f"sd[{label}]{suffix}" for label in labels} if found else set()
    return found | {name: variable for name, variable in named.items() if name not in sds}
