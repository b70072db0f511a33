"""The priors of a model: those given, the others by a preset scaled from the data; and whether the posterior is proper.

brms : t(3, median y, s) for the intercept of centred columns, flat slopes, half-t(3, 0, s) for every sd with s = max(2.5, mad y), LKJ(1)
rstanarm : N(mean y, 2.5 sd(y)) for the intercept of centred columns, N(0, 2.5 sd(y)/sd(x)) for slopes, exponential(1/sd(y)) for
    sigma, LKJ(1); its decov prior makes an sd exponential in units of sigma: here in units of sd(y)
bambi : N(mean y, .) for the intercept of centred columns, N(0, 2.5 sd(y)/sd(x)) for slopes, half-normal sds of the same sizes, half-t(4, 0,
    sd(y)) for sigma, sds with divisor n, LKJ(1)
blme : sd^1.5, which is Wishart(q + 2.5) for a covariance matrix, |D|^0.75: keeps a mode off the boundary; for `fit("MAP")` only
reml : flat everywhere: the mode is the REML estimate; for `fit("MAP")` only
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from bayeslmm._arrays import Array
from bayeslmm.covariance.base import Covariance, Parameter
from bayeslmm.covariance.correlation import Correlation
from bayeslmm.covariance.scaled import Heterogeneous, Homogeneous
from bayeslmm.covariance.spatial import Spatial
from bayeslmm.covariance.unstructured import Banded, Diagonal
from bayeslmm.data.design import Design, RandomTerm
from bayeslmm.errors import PriorError
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import ParameterSet, residual_sets, variance_names
from bayeslmm.specification.prior_families import FAMILIES, Prior, is_proper
from bayeslmm.specification.priors import Priors

SCALE_FACTOR = 2.5
"""Default scales are this many times the size of the data."""


def sd_y(design: Design) -> float:
    """sd(y), divisor n - 1, over the rows used; offset and weights left aside."""
    n = design.nobs
    return float(np.std(design.moments.y)) * math.sqrt(n / (n - 1)) if n > 1 else 1.0


def mad_y(design: Design) -> float:
    """1.4826 times the median absolute deviation of y."""
    return float(1.4826 * np.median(np.abs(design.y - np.median(design.y))))


def rms(term: RandomTerm) -> Array:
    """sqrt(mean z^2) of every column of a term, (q,)."""
    size = np.sqrt(np.mean(term.moment_rows**2, axis=0))
    return np.where(size > 0, size, 1.0)


def rms_rows(term: RandomTerm) -> float:
    """sqrt of the mean squared length of a term's rows: 1 for indicators of levels. For structures with one variance."""
    size = float(np.sqrt(np.mean(np.sum(term.moment_rows**2, axis=1))))
    return size if size > 0 else 1.0


def sd_x(design: Design) -> Array:
    """sd(x) of the columns kept, (p,); the size of the column where it does not vary."""
    n, X = design.nobs, design.moments.X
    spread = np.std(X, axis=0) * math.sqrt(n / (n - 1)) if n > 1 else np.ones(X.shape[1])
    size = np.sqrt(np.mean(X**2, axis=0))
    return np.where(spread > 1e-12 * np.maximum(size, 1e-300), spread, np.where(size > 0, size, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class PriorPreset:
    """Priors of one preset.

    intercept, slopes : of alpha, `slopes` one for each column kept; centred : whether the intercept meant is that of centred columns
    sds : family and parameters but the scale of the sd of effects, and the scale for a column of size 1; sizes : of the columns of a term
    eta : of LKJ
    """

    name: str
    intercept: Prior
    slopes: tuple[Prior, ...]
    centred: bool
    family: Prior
    sizes: Callable[[RandomTerm], Array]
    sigma: Prior
    eta: float

    def sd(self, unit: float) -> Prior:
        if self.family.family in ("flat", "gamma"):
            return self.family
        *shape, scale = self.family.parameters
        return Prior(self.family.family, (*shape, scale * unit if self.family.family == "exponential" else scale / unit))

    def sds(self, units: Array) -> list[Prior]:
        return [self.sd(float(unit)) for unit in units]


def alike(term: RandomTerm) -> Array:
    """Every column of a term as of size 1."""
    return np.ones(len(term.columns))


def prior_preset(preset: str | None, design: Design, alpha: str = "preset") -> PriorPreset:
    """The defaults of a preset, scaled from the data; `alpha` is "flat" or "normal" where that was said of the coefficients."""
    spread, widths = sd_y(design) or 1.0, sd_x(design)
    flat = (Prior("flat"),) * len(widths)
    normal = tuple(Prior("normal", (0.0, SCALE_FACTOR * spread / float(width))) for width in widths)
    mean = float(np.mean(design.moments.y))
    if preset == "brms":
        scale = max(2.5, round(mad_y(design), 1))
        of_intercept = Prior("student_t", (3.0, round(float(np.median(design.y)), 1), scale))
        found = PriorPreset("brms", of_intercept, flat, True, Prior("half_t", (3.0, scale)), alike, Prior("half_t", (3.0, scale)), 1.0)
    elif preset == "rstanarm":
        of_intercept, one = Prior("normal", (mean, SCALE_FACTOR * spread)), Prior("exponential", (1.0 / spread,))
        found = PriorPreset("rstanarm", of_intercept, normal, True, one, alike, one, 1.0)
    elif preset == "bambi":
        found = _bambi(design, mean)
    elif preset == "blme":
        found = PriorPreset("blme", Prior("flat"), flat, False, Prior("gamma", (2.5, 0.0)), alike, Prior("flat"), 1.75)
    elif preset == "reml":
        found = PriorPreset("reml", Prior("flat"), flat, False, Prior("flat"), alike, Prior("flat"), 1.0)
    else:
        own = Prior("half_t", (3.0, SCALE_FACTOR * spread))
        found = PriorPreset("default", Prior("flat"), flat, False, own, rms, own, 2.0)
    if alpha == "flat":
        return replace(found, intercept=Prior("flat"), slopes=flat, centred=False)
    if alpha == "normal":
        return replace(found, intercept=Prior("normal", (mean, SCALE_FACTOR * spread)), slopes=normal, centred=False)
    return found


def _bambi(design: Design, mean: float) -> PriorPreset:
    """Bambi's: divisors n; the intercept's sd grows with those of the slopes times the means of their columns."""
    rows = design.moments
    spread = float(np.std(rows.y)) or 1.0
    widths = _widths(rows.X)
    slopes = np.where(np.all(rows.X == 1.0, axis=0), 0.0, SCALE_FACTOR * spread / widths)
    of_intercept = float(np.sqrt((SCALE_FACTOR * spread) ** 2 + slopes**2 @ rows.X.mean(axis=0) ** 2))

    def sizes(term: RandomTerm) -> Array:
        constant = np.all(term.moment_rows == 1.0, axis=0)
        return np.where(constant, SCALE_FACTOR * spread / of_intercept, _widths(term.moment_rows))

    return PriorPreset(
        "bambi",
        Prior("normal", (mean, of_intercept)),
        tuple(Prior("normal", (0.0, SCALE_FACTOR * spread / float(width))) for width in widths),
        True,
        Prior("half_normal", (SCALE_FACTOR * spread,)),
        sizes,
        Prior("half_t", (4.0, spread)),
        1.0,
    )


def _widths(columns: Array) -> Array:
    """sd of columns with divisor n; their size where they do not vary."""
    sd, size = np.std(columns, axis=0), np.sqrt(np.mean(columns**2, axis=0))
    return np.where(sd > 1e-12 * size, sd, np.where(size > 0, size, 1.0))


@dataclass(frozen=True, slots=True)
class ParameterPrior:
    """One row of the table of priors.

    kind : "alpha", "sd", "corr", "sigma" or "residual"; group, term : where it belongs; source : "given", "default" or the preset
    centred : whether it is of the intercept of centred columns
    """

    kind: str
    group: str
    term: str
    prior: Prior
    source: str
    centred: bool = False

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


def is_unstructured_with_sds(covariance: Covariance) -> bool:
    """Whether a structure is explored through its sds and partial correlations."""
    return isinstance(covariance, Banded) and not isinstance(covariance, Diagonal) and covariance.order >= covariance.q


def shape_limits(correlation: Correlation) -> tuple[float, float]:
    """The range of the one natural parameter of a correlation."""
    ends = np.round(correlation.natural(np.array([[-60.0], [60.0]]))[:, 0], 12)
    return float(ends.min()), float(ends.max())


def shape_range(parameter: Parameter, correlation: Correlation | None) -> tuple[float, float]:
    """Where a shape parameter can be."""
    kind = parameter.kind
    if kind in ("phi", "theta") and correlation is not None:
        # the coefficients of a polynomial whose roots all lie outside the unit circle
        most = float(comb(sum(other.kind == kind for other in correlation.parameters), parameter.number))
        return -most, most
    if kind in ("rho", "gamma", "cov", "inner_rho", "inner_cov"):
        return shape_limits(correlation) if correlation is not None and correlation.size == 1 else (-1.0, 1.0)
    if kind == "nugget":
        return 0.0, 1.0
    return (-np.inf, np.inf) if kind.startswith("loading") else (0.0, np.inf)


def shape_default(parameter: Parameter, correlation: Correlation | None, spread: float) -> Prior:
    """Correlations uniform over their range; ranges, shares, smoothness and loadings weakly informed by the data's scale."""
    kind = parameter.kind
    low, high = shape_range(parameter, correlation)
    if np.isfinite(high):
        return Prior("uniform", (low, high))
    if kind == "range":
        reach = correlation.reach if isinstance(correlation, Spatial) else 1.0
        return Prior("half_t", (3.0, SCALE_FACTOR * reach))
    if kind == "nu":
        return Prior("gamma", (3.0, 2.0))
    if kind.startswith("loading"):
        return Prior("normal", (0.0, SCALE_FACTOR * spread))
    return Prior("half_t", (3.0, SCALE_FACTOR * spread))


def require_possible(row: ParameterPrior, limits: tuple[float, float]) -> ParameterPrior:
    """Raise PriorError for a prior that has no possible value of its parameter."""
    low, high = limits
    if row.prior.family == "fixed":
        raise PriorError(f"{row.term} cannot be held", row.label, "only standard deviations can be held at a value")
    support = FAMILIES[row.prior.family].support
    ends = row.prior.parameters if support == "interval" else (0.0 if support == "positive" else -np.inf, np.inf)
    if ends[1] <= low or ends[0] >= high:
        raise PriorError(
            f"the prior of {row.term} has no possible value",
            f"{row.label}: {row.prior.as_dict()}",
            f"give it values between {low:g} and {high:g}",
        )
    return row


def resolve(problem: Problem, priors: Priors | None) -> ModelPriors:
    """The priors given and, where none are, defaults. Raises PriorError for names that the model does not have."""
    design, chosen = problem.design, priors or Priors()
    known = known_names(problem)
    terms: dict[str, list[str]] = {}
    for term in design.terms:
        terms.setdefault(term.group.name, []).extend(term.columns)
    chosen.require_known([design.coef_names[i] for i in design.kept], terms, known)
    base = prior_preset(
        chosen.preset,
        design,
        chosen.alpha if chosen.alpha_given and isinstance(chosen.alpha, str) else "preset",
    )
    spread = sd_y(design) or 1.0
    residual = _residual(problem, chosen, base, spread)
    return ModelPriors(
        _alpha(design, chosen, base),
        tuple(_term(term, chosen, base, spread) for term in design.terms),
        residual,
        _variance(problem, chosen, base),
        None if residual else _sigma(design, chosen, base),
    )


def _sigma(design: Design, priors: Priors, base: PriorPreset) -> ParameterPrior:
    """The prior of sigma; where the model holds it, it is that."""
    held, own = design.spec.sigma, priors.sigma_of()
    if held is None:
        return _one(own, base.sigma, "sigma", "", "", base)
    if own is not None and own != Prior("fixed", (held,)):
        raise PriorError("sigma is held by the model and has a prior", f"sigma={held:g}, prior {own.as_dict()}", "leave one of them out")
    return ParameterPrior("sigma", "", "", Prior("fixed", (held,)), "given")


def _one(own: Prior | None, default: Prior, kind: str, group: str, term: str, base: PriorPreset) -> ParameterPrior:
    if own is None:
        return ParameterPrior(kind, group, term, default, base.name)
    scale = default.parameters[-1] if default.parameters and default.family.startswith("half") else 1.0
    scale = 1.0 / default.parameters[0] if default.family == "exponential" else scale
    return ParameterPrior(kind, group, term, own.fill_scale(scale), "given")


def _alpha(design: Design, priors: Priors, base: PriorPreset) -> tuple[ParameterPrior, ...]:
    found, source = [], "given" if isinstance(priors.alpha, str) and priors.alpha_given else base.name
    for j, i in enumerate(design.kept):
        name, own = design.coef_names[i], priors.alpha_of(design.coef_names[i])
        if own is not None:
            found.append(ParameterPrior("alpha", "", name, own, "given"))
        elif name == "Intercept":
            found.append(ParameterPrior("alpha", "", name, base.intercept, source, base.centred and j == 0))
        else:
            found.append(ParameterPrior("alpha", "", name, base.slopes[j], source))
    return tuple(found)


def _term(term: RandomTerm, priors: Priors, base: PriorPreset, spread: float) -> MatrixPriors:
    group, covariance = term.group.name, term.covariance
    if isinstance(covariance, Homogeneous):
        units, labels = np.array([rms_rows(term) if base.sizes is rms else base.sizes(term).mean()]), [""]
    else:
        units, labels = base.sizes(term), list(term.columns)
    scales = base.sds(units)
    own = [priors.sd_of(group, label or term.columns[0]) for label in labels]
    sds = [_one(o, s, "sd", group, label, base) for o, s, label in zip(own, scales, labels, strict=True)]
    return _matrix(covariance, sds, priors, base, spread, group, term.columns, f" | {group}")


def _matrix(
    covariance: Covariance,
    sds: list[ParameterPrior],
    priors: Priors,
    base: PriorPreset,
    spread: float,
    group: str,
    labels: Sequence[object],
    suffix: str,
) -> MatrixPriors:
    """The priors of one matrix from those of its sds; `suffix` ends the names of its other parameters."""
    if is_unstructured_with_sds(covariance):
        corr = None
        if covariance.q > 1:
            own = priors.corr_of(group)
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
        default = shape_default(parameter, inner, spread)
        if parameter.kind in ("sd", "var", "unique") and parameter.rows and parameter.rows[0] < len(sds):
            default = sds[parameter.rows[0]].prior
        row = _one(priors.residual_of(full) or priors.residual_of(name), default, "residual" if group == "" else "corr", group, full, base)
        shapes.append(require_possible(row, shape_range(parameter, inner)))
    return MatrixPriors(kept, None, tuple(shapes))


# -- R -----------------------------------------------------------------------------------------------------------------------------------


def _own_names(own: ParameterSet) -> tuple[str, ...]:
    """The parameters of one set of R that a prior can be about: an unstructured matrix has a prior of its sds and its correlations."""
    if is_unstructured_with_sds(own.covariance):
        return tuple(f"sd[{label}]{own.suffix}" for label in own.labels)
    return own.names


def known_names(problem: Problem) -> list[str]:
    """Names of the parameters of R and of the variance function, as a fit has them; without the ending `|A` they are said of all groups.

    Shape parameters of a term's D are known as `name | grouping factor`.
    """
    names: list[str] = []
    for one in residual_sets(problem):
        own = _own_names(one)
        names += [*own, *(name.removesuffix(one.suffix) for name in own)]
    for term in problem.design.terms:
        if not is_unstructured_with_sds(term.covariance):
            names += [f"{name} | {term.group.name}" for name in term.covariance.natural_names_for(term.columns)]
    return list(dict.fromkeys([*names, *variance_names(problem)]))


def _residual(problem: Problem, priors: Priors, base: PriorPreset, spread: float) -> tuple[MatrixPriors, ...]:
    found = []
    for one in residual_sets(problem):
        names = ["sd"] if isinstance(one.covariance, Homogeneous) else [f"sd[{label}]" for label in one.labels]
        own = [_of_error_sd(priors, name, one.suffix) for name in names]
        sds = [_one(o, base.sigma, "sigma", "", name + one.suffix, base) for o, name in zip(own, names, strict=True)]
        found.append(_matrix(one.covariance, sds, priors, base, spread, "", one.labels, one.suffix))
    return tuple(found)


def _of_error_sd(priors: Priors, name: str, suffix: str) -> Prior | None:
    """The prior given for an sd of R: of its group before all groups, by its name before all sds."""
    for key in (name + suffix, name):
        own = priors.residual_of(key) or priors.sigma_of(key)
        if own is not None:
            return own
    return priors.sigma_of()


def _variance(problem: Problem, priors: Priors, base: PriorPreset) -> tuple[ParameterPrior, ...]:
    kernel = problem.structured
    if kernel is None or not kernel.variance.size:
        return ()
    found = []
    for name, kind, width in zip(kernel.variance.names, *_variance_kinds(problem), strict=True):
        default = Prior("half_t", (3.0, SCALE_FACTOR)) if kind == "positive" else Prior("normal", (0.0, SCALE_FACTOR / width))
        limits = (0.0, np.inf) if kind == "positive" else (-np.inf, np.inf)
        found.append(require_possible(_one(priors.residual_of(name), default, "residual", "", name, base), limits))
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


PRIOR_REMEDY = 'give it a proper prior, such as ("half_t", 3, scale), or leave it to the default'


def improper_priors(priors: ModelPriors) -> list[ParameterPrior]:
    """The priors that do not integrate to 1, alpha included."""
    return [row for row in priors.rows() if row.kind != "corr" and not is_proper(row.prior)]


def with_stand_ins(problem: Problem, priors: ModelPriors) -> tuple[ModelPriors, list[str]]:
    """The priors with a default in the place of each that nothing can be drawn from, and the labels of those."""
    default = resolve(problem, Priors(alpha="normal"))
    replaced: list[str] = []

    def one(own: ParameterPrior, other: ParameterPrior) -> ParameterPrior:
        if own.kind == "corr" or is_proper(own.prior):
            return own
        replaced.append(own.label)
        return other

    def each(own: tuple[ParameterPrior, ...], other: tuple[ParameterPrior, ...]) -> tuple[ParameterPrior, ...]:
        return tuple(one(a, b) for a, b in zip(own, other, strict=True))

    def matrices(own: tuple[MatrixPriors, ...], other: tuple[MatrixPriors, ...]) -> tuple[MatrixPriors, ...]:
        return tuple(MatrixPriors(each(a.sds, b.sds), a.corr, each(a.shapes, b.shapes)) for a, b in zip(own, other, strict=True))

    found = ModelPriors(
        each(priors.alpha, default.alpha),
        matrices(priors.terms, default.terms),
        matrices(priors.residual, default.residual),
        each(priors.variance, default.variance),
        None if priors.sigma is None or default.sigma is None else one(priors.sigma, default.sigma),
    )
    return found, replaced


def require_proper_posterior(problem: Problem, priors: ModelPriors) -> None:
    """Raise PriorError with the reason where the posterior would not integrate."""
    design, p = problem.design, problem.criterion.p
    if design.nobs <= p and any(row.prior.family == "flat" for row in priors.alpha):
        raise _prior_error(
            priors.alpha[0], f"there are {design.nobs} rows for {p} coefficients under a flat prior", 'use Priors(alpha="normal")'
        )
    for term, own in zip(design.terms, priors.terms, strict=True):
        levels, needed = term.group.size, len(term.columns) + 2
        for row in own.sds:
            if row.prior.family == "gamma" and not is_proper(row.prior):
                raise _prior_error(
                    row, "its density grows without limit: it keeps a mode off the boundary and is meant for fit('MAP')", PRIOR_REMEDY
                )
            if row.prior.family == "flat_log":
                raise _prior_error(row, "its density grows without limit towards 0, where the likelihood does not vanish", PRIOR_REMEDY)
            if row.prior.family == "flat" and levels < needed:
                raise _prior_error(
                    row, f"{levels} levels of {term.group.name} do not bound an sd under a flat prior ({needed} would)", PRIOR_REMEDY
                )
            if row.prior.family == "flat" and design.unidentified:
                raise _prior_error(row, design.unidentified[0].what, PRIOR_REMEDY)
        _require_shapes(own.shapes)
    scales = [row for own in priors.residual for row in own.sds]
    scales += [] if priors.sigma is None else [priors.sigma]
    for row in scales:
        if not is_proper(row.prior) and (row.prior.family == "gamma" or design.nobs - p < 2 or design.unidentified):
            raise _prior_error(row, "the rows left over do not bound the residual sd", PRIOR_REMEDY)
    for own in priors.residual:
        _require_shapes(own.shapes)
    _require_shapes(priors.variance)


def _require_shapes(rows: tuple[ParameterPrior, ...]) -> None:
    for row in rows:
        if not is_proper(row.prior):
            raise _prior_error(row, "the likelihood does not bound it", "give it a proper prior")


def _prior_error(row: ParameterPrior, reason: str, remedy: str) -> PriorError:
    return PriorError(f"the posterior of {row.label} under a {row.prior.family} prior is improper: {reason}", row.label, remedy)


def require_evidence(priors: ModelPriors) -> None:
    """Raise PriorError unless every prior is proper."""
    loose = improper_priors(priors)
    if loose:
        names = ", ".join(row.label for row in loose[:6])
        remedy = 'use proper priors: Priors(alpha="normal") and the defaults for the rest'
        raise PriorError(f"the evidence needs proper priors; improper: {names}", names, remedy)
