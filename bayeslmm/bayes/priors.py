"""Priors in use: what the user said, and defaults scaled from the data for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bayeslmm.arrays import Array
from bayeslmm.bayes.presets import Defaults, defaults
from bayeslmm.bayes.scales import WIDE, rms, rms_rows, sd_x, sd_y
from bayeslmm.covariance import Covariance
from bayeslmm.covariance.banded import Banded, Diagonal
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.covariance.spatial import Spatial
from bayeslmm.data.design import Design, RandomTerm, ResidualDesign
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.residual_structure import Grouped
from bayeslmm.spec import Priors
from bayeslmm.spec.families import Prior


@dataclass(frozen=True, slots=True)
class ParameterPrior:
    """One row of the table of priors.

    kind : "alpha", "sd", "corr", "sigma" or "residual"; group, term : where it belongs; source : "given", "default" or the preset
    """

    kind: str
    group: str
    term: str
    prior: Prior
    source: str

    @property
    def label(self) -> str:
        """What an error calls it: `sd Subject/Days`."""
        place = "/".join(part for part in (self.group, self.term) if part)
        return f"{self.kind} {place}".strip()


@dataclass(frozen=True, slots=True)
class MatrixPriors:
    """The priors of one covariance matrix: of its sds, of its correlation matrix (LKJ), of its other parameters by name."""

    sds: tuple[ParameterPrior, ...]
    corr: ParameterPrior | None
    shapes: tuple[ParameterPrior, ...]

    def rows(self) -> Iterator[ParameterPrior]:
        yield from self.sds
        if self.corr is not None:
            yield self.corr
        yield from self.shapes


@dataclass(frozen=True, slots=True)
class ModelPriors:
    """All priors of a model: alpha (columns kept), one set for each random term, for each set of R, of the variance function, sigma.

    sigma is None where R has sds of its own: its first one is sigma
    """

    alpha: tuple[ParameterPrior, ...]
    terms: tuple[MatrixPriors, ...]
    residual: tuple[MatrixPriors, ...]
    variance: tuple[ParameterPrior, ...]
    sigma: ParameterPrior | None

    def rows(self) -> list[ParameterPrior]:
        """Every prior, in the order of the parameters."""
        found = list(self.alpha)
        for matrix in (*self.terms, *self.residual):
            found += matrix.rows()
        found += self.variance
        return found if self.sigma is None else [*found, self.sigma]


def unstructured(covariance: Covariance) -> bool:
    """Whether a structure is explored through its sds and partial correlations."""
    return isinstance(covariance, Banded) and not isinstance(covariance, Diagonal) and covariance.order >= covariance.q


def shape_limits(correlation: Correlation) -> tuple[float, float]:
    """The range of the one natural parameter of a correlation."""
    ends = np.round(correlation.natural(np.array([[-60.0], [60.0]]))[:, 0], 12)
    return float(ends.min()), float(ends.max())


def shape_default(kind: str, correlation: Correlation | None, spread: float) -> Prior:
    """Correlations uniform over their range; ranges, shares, smoothness and loadings weakly informed by the data's scale."""
    if kind in ("rho", "gamma", "cov", "inner_rho", "inner_cov"):
        limits = shape_limits(correlation) if correlation is not None and correlation.size == 1 else (-1.0, 1.0)
        return Prior("uniform", limits)
    if kind == "range":
        reach = correlation.reach if isinstance(correlation, Spatial) else 1.0
        return Prior("half_t", (3.0, WIDE * reach))
    if kind == "nugget":
        return Prior("uniform", (0.0, 1.0))
    if kind == "nu":
        return Prior("gamma", (3.0, 2.0))
    if kind.startswith("loading"):
        return Prior("normal", (0.0, WIDE * spread))
    return Prior("half_t", (3.0, WIDE * spread))


def resolve(problem: Problem, priors: Priors | None) -> ModelPriors:
    """What the user said and, for the rest, defaults. Raises PriorError for names that the model does not have."""
    design, said = problem.design, priors or Priors()
    known = residual_names(problem)
    terms: dict[str, list[str]] = {}
    for term in design.terms:
        terms.setdefault(term.group.name, []).extend(term.columns)
    said.demand_known([design.coef_names[i] for i in design.kept], terms, known)
    base = defaults(said.preset, design)
    spread = sd_y(design) or 1.0
    residual = _residual(problem, said, base, spread)
    return ModelPriors(
        _alpha(design, said, base),
        tuple(_term(term, said, base, spread) for term in design.terms),
        residual,
        _variance(problem, said, base),
        None if residual else _one(said.sigma_of(), base.sigma, "sigma", "", "", base),
    )


def _one(said: Prior | None, default: Prior, kind: str, group: str, term: str, base: Defaults) -> ParameterPrior:
    if said is None:
        return ParameterPrior(kind, group, term, default, base.name)
    scale = default.parameters[-1] if default.parameters and default.family.startswith("half") else 1.0
    return ParameterPrior(kind, group, term, said.scaled(scale), "given")


def _alpha(design: Design, said: Priors, base: Defaults) -> tuple[ParameterPrior, ...]:
    names = [design.coef_names[i] for i in design.kept]
    spread, widths, found = sd_y(design) or 1.0, sd_x(design), []
    for name, width in zip(names, widths, strict=True):
        own = said.alpha_of(name)
        if own is not None:
            found.append(ParameterPrior("alpha", "", name, own, "given"))
        elif said.alpha == "normal":
            intercept = name == "Intercept"
            mean = float(np.mean(design.y)) if intercept else 0.0
            prior = Prior("normal", (mean, WIDE * spread / (1.0 if intercept else float(width))))
            found.append(ParameterPrior("alpha", "", name, prior, base.name))
        else:
            found.append(ParameterPrior("alpha", "", name, Prior("flat"), base.name))
    return tuple(found)


def _term(term: RandomTerm, said: Priors, base: Defaults, spread: float) -> MatrixPriors:
    group, covariance = term.group.name, term.covariance
    if isinstance(covariance, Homogeneous):
        units, labels = np.array([rms_rows(term)]), [""]
    else:
        units, labels = rms(term), list(term.columns)
    scales = base.sds(units)
    own = [said.sd_of(group, label or term.columns[0]) for label in labels]
    sds = [_one(o, s, "sd", group, label, base) for o, s, label in zip(own, scales, labels, strict=True)]
    return _matrix(covariance, sds, said, base, spread, group, term.columns, f" | {group}")


def _matrix(
    covariance: Covariance,
    sds: list[ParameterPrior],
    said: Priors,
    base: Defaults,
    spread: float,
    group: str,
    labels: Sequence[object],
    suffix: str,
) -> MatrixPriors:
    """The priors of one matrix from those of its sds; `suffix` ends the names of its other parameters."""
    if unstructured(covariance):
        corr = None
        if covariance.q > 1:
            own = said.corr_of(group)
            corr = _one(own, Prior("lkj", (base.eta,)), "corr", group, "", base)
        return MatrixPriors(tuple(sds), corr, ())
    parameters, names = covariance.natural_parameters, covariance.natural_names_for([str(label) for label in labels])
    inner = covariance.correlation_ if isinstance(covariance, Homogeneous | Heterogeneous) else None
    if inner is not None or isinstance(covariance, Diagonal):
        parameters, names = parameters[len(sds) :], names[len(sds) :]
        kept = tuple(sds)
    else:
        kept = ()
    shapes = []
    for parameter, name in zip(parameters, names, strict=True):
        full = name + suffix
        default = shape_default(parameter.kind, inner, spread)
        if parameter.kind in ("sd", "var", "unique") and parameter.rows and parameter.rows[0] < len(sds):
            default = sds[parameter.rows[0]].prior
        shapes.append(
            _one(said.residual_of(full) or said.residual_of(name), default, "residual" if group == "" else "corr", group, full, base)
        )
    return MatrixPriors(kept, None, tuple(shapes))


# -- R -----------------------------------------------------------------------------------------------------------------------------------


def visit_labels(residual: ResidualDesign) -> list[str]:
    """Names of the rows of R: visits, for a Kronecker structure those of its two factors, for places their number."""
    if "@" in residual.name:
        outer, inner = residual.shape[:2]
        pairs = [str(level).split(":", 1) for level in residual.visit_levels]
        return [pairs[i * inner][0] for i in range(outer)] + [pairs[j][1] for j in range(inner)]
    return [str(level) for level in residual.visit_levels] or ["1", "2"]


def residual_sets(problem: Problem) -> list[tuple[Covariance, tuple[str, ...], str]]:
    """(structure, labels of its rows, name of the group or "") for every parameter set of R."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, Grouped):
        return []
    residual = problem.design.residual
    assert residual is not None
    groups = [""] if residual.group is None else [str(level) for level in residual.group.levels]
    labels = tuple(visit_labels(residual))
    return [(kernel.structure.covariance, labels, group) for group in groups]


def residual_names(problem: Problem) -> list[str]:
    """Names of the parameters of R and of the variance function, sds included; those of a group as `name | group`, or `name` for all.

    Shape parameters of a term's D are known as `name | grouping factor`.
    """
    names: list[str] = []
    for covariance, labels, group in residual_sets(problem):
        sds = [f"sd[{label}]" for label in labels] if unstructured(covariance) else []
        own = [*sds, *covariance.natural_names_for(labels)]
        names += own if not group else [*own, *(f"{name} | {group}" for name in own)]
    for term in problem.design.terms:
        if not unstructured(term.covariance):
            names += [f"{name} | {term.group.name}" for name in term.covariance.natural_names_for(term.columns)]
    kernel = problem.structured
    if kernel is not None:
        names += kernel.variance.names
    return list(dict.fromkeys(names))


def _residual(problem: Problem, said: Priors, base: Defaults, spread: float) -> tuple[MatrixPriors, ...]:
    found = []
    for covariance, labels, group in residual_sets(problem):
        suffix = f" | {group}" if group else ""
        names = ["sd"] if isinstance(covariance, Homogeneous) else [f"sd[{label}]" for label in labels]
        own = [said.sigma_of(name + suffix) or said.sigma_of(name) or said.sigma_of() for name in names]
        sds = [_one(o, base.sigma, "sigma", "", name + suffix, base) for o, name in zip(own, names, strict=True)]
        found.append(_matrix(covariance, sds, said, base, spread, "", labels, suffix))
    return tuple(found)


def _variance(problem: Problem, said: Priors, base: Defaults) -> tuple[ParameterPrior, ...]:
    kernel = problem.structured
    if kernel is None or not kernel.variance.size:
        return ()
    found = []
    for name, kind, width in zip(kernel.variance.names, *_variance_kinds(problem), strict=True):
        default = Prior("half_t", (3.0, WIDE)) if kind == "positive" else Prior("normal", (0.0, WIDE / width))
        found.append(_one(said.residual_of(name), default, "residual", "", name, base))
    return tuple(found)


def _variance_kinds(problem: Problem) -> tuple[list[str], list[float]]:
    """Whether each parameter of the variance function is positive, and the size of what it multiplies."""
    kernel = problem.structured
    assert kernel is not None
    at_zero = kernel.variance.natural(np.zeros(kernel.variance.size))
    kinds = ["positive" if value == 1.0 else "free" for value in at_zero]
    slopes: Array = kernel.variance.log_multiplier(np.zeros(kernel.variance.size))[1]
    widths = [float(np.std(row[row != 0.0])) or 1.0 if np.any(row != 0.0) else 1.0 for row in slopes]
    return kinds, widths
