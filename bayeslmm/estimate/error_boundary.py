"""Errors at the end of their range: a likelihood without a bound, a stratum whose residual sd is 0, a singular covariance matrix.

Beside random effects the last two may be optima: where no level of a random term has more rows of a stratum than it has effects, nothing
is lost when the errors of that stratum vanish. Without random effects the likelihood has no bound there, and no search ends.

Let the covariances of some random terms grow together, T of each of some rank, by t. If X and Z T span the response, r2 falls like 1/t
while log |V0| grows like rank(Z T) log t: the likelihood of all n rows (ML) grows without end where rank(Z T) < n, the restricted one where
X and Z T together have fewer than n directions. They span any response where they have n of them. A T of rank k among q columns may be
turned in k (q - k) ways, and so meet as many equations more: then a response can, though it need not, be reproduced with fewer.

The same holds of the rows of a stratum whose sd goes to 0, the other errors and T as they are: log |V| falls like n_S - rank(Z_S T) times
the log of its variance. There no T at all is a choice as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import lsqr

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.composed import WithNugget
from bayeslmm.covariance.linalg import correlations
from bayeslmm.covariance.registry import is_serial
from bayeslmm.covariance.spatial import SpatialCovariance
from bayeslmm.errors import Check
from bayeslmm.estimate.checks import SINGULAR_SD
from bayeslmm.estimate.newton import MACHINE_EPSILON
from bayeslmm.likelihood.problem import Problem
from bayeslmm.likelihood.structured.residual_covariance import residual_sets, sigma_name
from bayeslmm.likelihood.structured.residual_structure import GroupedStructure, SpatialStructure, VisitStructure

VANISHING_SD = 1e-2
"""A stratum's residual sd relative to the largest, below which a search that does not end is on its way to 0."""

SCALE_FREE = frozenset(("rho", "range", "nu", "gamma", "nugget"))
"""Kinds of parameters that an sd of 0 leaves without a meaning; all others are 0 with it."""

OWN_SD = "its rows may repeat one another, or be all that a random effect sees; join levels of what the errors differ by, or leave it out"


@dataclass(frozen=True, slots=True, eq=False)
class _Strata:
    """Residual sds that differ between strata: what they differ by, logs of the sds, and x where the logs are others.

    scales, others : names of the parameters of each stratum: its sd, relative or not, and what means nothing without it
    """

    source: str
    labels: tuple[str, ...]
    logs: Array
    moved: Callable[[Array, Array], Array]
    scales: tuple[frozenset[str], ...]
    others: tuple[frozenset[str], ...]

    def name(self, i: int) -> str:
        """`ident(arm)[A]`."""
        return f"{self.source}[{self.labels[i]}]"

    def below(self, limit: float) -> Codes:
        """The strata whose sd is below a share of the largest one."""
        return np.flatnonzero(self.logs < np.log(limit) + self.logs.max())


def _strata(problem: Problem, x: Array) -> Iterator[_Strata]:
    """The levels of each ident(), then the groups of R."""
    kernel = problem.structured
    if kernel is None:
        return
    begin = kernel.variance_part.start
    for factor, size in zip(kernel.variance.factors, kernel.variance.sizes, strict=True):
        own = slice(begin, begin + size)
        begin += size
        if factor.kind == "ident":
            ratios = kernel.variance.names[own.start - kernel.variance_part.start : own.stop - kernel.variance_part.start]

            def by_level(x: Array, logs: Array, own: slice = own) -> Array:
                moved = x.copy()
                moved[own] = logs[1:] - logs[0]
                return _in_units(problem, moved, float(np.exp(logs[0])))

            scales = (frozenset({sigma_name(problem)}), *(frozenset({name}) for name in ratios))
            none = (frozenset[str](),) * len(scales)
            yield _Strata(f"ident({factor.spec.covariate})", factor.labels, np.append(0.0, x[own]), by_level, scales, none)
    structure, residual = kernel.structure, problem.design.residual
    if residual is None or residual.group is None or not isinstance(structure, GroupedStructure):
        return
    before, part = _set_logs(problem, structure, x), kernel.residual_part

    def by_group(x: Array, logs: Array) -> Array:
        sets = structure.split_groups(x[part])
        full = np.stack([structure.covariance.rescale(row, float(np.exp(move))) for row, move in zip(sets, logs - before, strict=True)])
        moved = x.copy()
        lead, moved[part] = structure.join_groups(full)
        return _in_units(problem, moved, lead)

    sets = residual_sets(problem)
    kinds = [parameter.kind for parameter in structure.covariance.natural_parameters]
    scales = tuple(frozenset(n for n, kind in zip(own.names, kinds, strict=True) if kind not in SCALE_FREE) for own in sets)
    others = tuple(frozenset(own.names) - scale for own, scale in zip(sets, scales, strict=True))
    yield _Strata(residual.spec.text, tuple(map(str, residual.group.levels)), before, by_group, scales, others)


def _in_units(problem: Problem, x: Array, sd: float) -> Array:
    """Random terms relative to another sigma, `sd` times the old one: they grow as it falls."""
    for term in problem.random.terms:
        x[term.part] = term.covariance.rescale(x[term.part], 1.0 / sd)
    return x


def _set_names(problem: Problem) -> tuple[str, ...]:
    residual = problem.design.residual
    assert residual is not None and residual.spec is not None
    return (residual.spec.text,) if residual.group is None else tuple(f"{residual.spec.text}[{level}]" for level in residual.group.levels)


def _seen(problem: Problem, group: int) -> Codes:
    """The visits that the rows of a group have."""
    assert problem.structured is not None
    data = problem.structured.data
    blocks = [*(batch.block for batch in data.rows), *(batch.block for batch in data.pooled)]
    return np.unique(np.concatenate([block.place[block.group == group] for block in blocks if block.place is not None]))


def _set_logs(problem: Problem, structure: GroupedStructure, x: Array) -> Array:
    """log of the largest sd of every parameter set of R."""
    assert problem.structured is not None
    sets = structure.split_groups(x[problem.structured.residual_part])
    if isinstance(structure, SpatialStructure):
        sds = np.abs(sets[:, 0])
    else:
        matrices = structure.covariance.matrix(sets)
        sds = np.array([np.sqrt(np.diagonal(R)[_seen(problem, g)].max()) for g, R in enumerate(matrices)])
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(sds))


def vanishing_strata(problem: Problem, x: Array, limit: float = SINGULAR_SD) -> tuple[str, ...]:
    """The strata whose residual sd is below a share of the largest one, `ident(arm)[A]`."""
    return tuple(strata.name(i) for strata in _strata(problem, x) for i in strata.below(limit))


def vanishing_labels(problem: Problem, x: Array) -> tuple[str, ...]:
    """The labels of these strata alone."""
    return tuple(strata.labels[i] for strata in _strata(problem, x) for i in strata.below(SINGULAR_SD))


@dataclass(frozen=True, slots=True)
class VanishedParameters:
    """Parameters of strata without errors: `zero` are sds and ratios that are 0, `unknown` means nothing beside them."""

    zero: frozenset[str]
    unknown: frozenset[str]


def vanished_parameters(problem: Problem, x: Array) -> VanishedParameters:
    """By the names of `residual_names`."""
    zero, unknown = frozenset[str](), frozenset[str]()
    for strata in _strata(problem, x):
        for i in strata.below(SINGULAR_SD):
            zero, unknown = zero | strata.scales[i], unknown | strata.others[i]
            if i == 0 and strata.source.startswith("ident("):
                unknown = unknown.union(*strata.scales[1:])  # ratios to an sd of 0
    return VanishedParameters(zero, unknown)


def without_strata(problem: Problem, x: Array) -> list[Array]:
    """Where to begin with such sds all but 0: there the criterion is level in them, while the way there has no end."""
    moved, any_gone = x, False
    for strata in _strata(problem, x):
        gone = strata.below(VANISHING_SD)
        if len(gone):
            logs = strata.logs.copy()
            logs[gone] = np.log(0.5 * SINGULAR_SD) + logs.max()
            moved, any_gone = strata.moved(moved, logs), True
    return [moved] if any_gone else []


def singular_errors(problem: Problem, x: Array) -> tuple[str, ...]:
    """The groups of R whose covariance matrix, over the visits that they have, is singular though their sds are not 0."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, VisitStructure):
        return ()
    structure, found = kernel.structure, []
    gone = vanishing_strata(problem, x)
    for g, (name, own) in enumerate(zip(_set_names(problem), structure.split_groups(x[kernel.residual_part]), strict=True)):
        seen = _seen(problem, g)
        R = structure.covariance.matrix(own)[np.ix_(seen, seen)]
        if name not in gone and (not np.isfinite(R).all() or np.linalg.eigvalsh(R)[0] < SINGULAR_SD**2 * np.diagonal(R).max()):
            found.append(name)
    return tuple(found)


NO_DECAY = 1e-3
"""One less the correlation at the largest distance, below which the errors have not been seen to decay; and the correlation at the smallest
distance below which they have decayed before the next row comes.
"""


SMOOTH = 50.0
"""Smoothness beyond which Matern's curve is told from its limit by no data."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reach:
    """Correlations of the errors of one group, a nugget left aside: over the largest and over the smallest distance within a subject.

    ranges : the range in units of the largest distance, 0 where the parameter is another one; smoothness : nu of the Matern curve
    """

    name: str
    extent: float
    over_extent: float
    over_nearest: float
    ranges: float = 0.0
    smoothness: float = 0.0

    @property
    def has_run_off(self) -> bool:
        """Whether nothing is seen of a decay, or only the first thousandth of it."""
        return 1.0 - self.over_extent < NO_DECAY or self.ranges * NO_DECAY > 1.0


def _reaches(problem: Problem, x: Array) -> Iterator[_Reach]:
    """Of every group of R whose correlation falls to 0 with a distance or with the number of steps, by one parameter."""
    kernel = problem.structured
    if kernel is None or not isinstance(kernel.structure, GroupedStructure):
        return
    structure, covariance = kernel.structure, kernel.structure.covariance
    for g, (name, own) in enumerate(zip(_set_names(problem), structure.split_groups(x[kernel.residual_part]), strict=True)):
        if isinstance(structure, SpatialStructure):
            distances = _distances(problem, g)
            if distances is not None:
                values = [_correlation(structure.located, own, distance) for distance in distances]
                known = dict(zip((p.kind for p in covariance.natural_parameters), covariance.natural(own).tolist(), strict=True))
                yield _Reach(name, distances[1], values[1], values[0], known.get("range", 0.0) / distances[1], known.get("nu", 0.0))
        elif is_serial(covariance.name) and [p.kind for p in covariance.natural_parameters].count("rho") == 1:
            seen = _seen(problem, g)
            C = np.abs(correlations(covariance.matrix(own)[np.ix_(seen, seen)]))
            # a correlation of 0 from one step to the next is within the range of rho
            yield _Reach(name, float(np.ptp(seen)), float(C.min()), 1.0)


def _correlation(covariance: SpatialCovariance, x: Array, distance: float) -> float:
    """At one distance, without a nugget."""
    curve, z = covariance.curve, x[1:]
    if isinstance(curve, WithNugget):
        curve, z = curve.at(np.zeros((2, 2))), np.append(z[:-1], -np.inf)
    return float(curve.free_at(z, np.array([[0.0, distance], [distance, 0.0]]))[0, 1])


def _distances(problem: Problem, group: int) -> tuple[float, float] | None:
    """The smallest distance above 0 and the largest one between rows of a subject."""
    kernel, found = problem.structured, []
    assert kernel is not None
    for block in (*(batch.block for batch in kernel.data.rows), *(batch.block for batch in kernel.data.pooled)):
        assert block.distances is not None
        own = block.distances * (block.group[:, :, None] == group)
        own = own[own > 0.0] if block.same is None else own[(own > 0.0) & (block.same > 0)]
        found += [float(own.min()), float(own.max())] if own.size else []
    return (min(found), max(found)) if found else None


def _range_checks(problem: Problem, x: Array) -> Iterator[Check]:
    """A range that runs off beyond the places, or to nothing before the nearest of them."""
    gone = vanishing_strata(problem, x)
    for reach in _reaches(problem, x):
        if reach.name in gone:
            continue
        if reach.has_run_off:
            value = f"the correlation over the whole extent, {reach.extent:.4g}, is 1 - {max(1.0 - reach.over_extent, 0.0):.2g}"
            value += f", the range {reach.ranges:.2g} times the extent" if reach.ranges else ""
            remedy = (
                "the range has run off beyond the rows: it and the sd are known by their ratio alone, and the intercept hardly at all; "
                "describe what all rows of a subject share by a random effect or a trend, or use another structure"
            )
            yield Check(f"range: {reach.name}", "noted", value, f"1 - {NO_DECAY:g}", remedy)
        elif reach.over_nearest < NO_DECAY:
            value = f"the correlation between the nearest rows is {reach.over_nearest:.2g}"
            remedy = "the range ends before the next row comes: the errors are independent; leave the structure out"
            yield Check(f"range: {reach.name}", "noted", value, NO_DECAY, remedy)
        elif reach.smoothness > SMOOTH:
            remedy = "the Matern curve has become the Gaussian one: sp_gau has a parameter less"
            yield Check(f"range: {reach.name}", "noted", f"nu is {reach.smoothness:.3g}", SMOOTH, remedy)


FAR_SDS = SINGULAR_SD**2
"""Smallest residual sd of a row, relative to the largest, that a function of a covariate ends at."""


def _power_checks(problem: Problem, x: Array) -> Iterator[Check]:
    """A variance function of a covariate that runs off: the sds of some rows are nothing beside others'."""
    kernel = problem.structured
    if kernel is None or all(factor.kind == "ident" for factor in kernel.variance.factors):
        return
    levels = np.zeros(kernel.variance.size, bool)
    begin = 0
    for factor, size in zip(kernel.variance.factors, kernel.variance.sizes, strict=True):
        levels[begin : begin + size] = factor.kind == "ident"  # a stratum of no errors is said by its name
        begin += size
    own = np.where(levels, 0.0, x[kernel.variance_part])
    with np.errstate(over="ignore", invalid="ignore"):
        logs = kernel.variance.log_multipliers(own[None], np.arange(kernel.variance.n))
        share = float(np.exp(logs.min() - logs.max()))
    if not share >= FAR_SDS:
        remedy = "the variance function runs off until some rows have no errors: use a simpler one, or strata of ident()"
        yield Check("variance_function", "failed", f"the smallest residual sd is {share:.2g} of the largest", FAR_SDS, remedy)


def error_boundary_checks(problem: Problem, x: Array) -> list[Check]:
    """What of the errors is at the end of its range."""
    gone = [Check(f"singular: {name}", "noted", 0.0, 0.0, f"the residual sd is 0: {OWN_SD}") for name in vanishing_strata(problem, x)]
    remedy = (
        "the covariance of the errors is singular: a variance is 0 or a correlation at the end of its range, and the random effects "
        "describe what is left; fixed effects and their standard errors are right, but consider fewer random effects or a simpler structure"
    )
    verdict: Literal["noted", "failed"] = "noted"
    if not problem.random.size:  # nothing describes what is left: the likelihood has no maximum there
        verdict = "failed"
        remedy = "the covariance of the errors is singular, where the likelihood has no maximum: use a structure with fewer parameters"
    singular = [Check(f"singular: {name}", verdict, 0.0, 0.0, remedy) for name in singular_errors(problem, x)]
    return [*gone, *singular, *_range_checks(problem, x), *_power_checks(problem, x)]


RANK = 1e-12
"""Relative eigenvalue of the products of columns of length 1 that counts as 0."""

LOOKED_AT = 2000
"""Rows up to which ranks are asked for."""

COMBINED_STRATA = 6
"""How many strata that could vanish are looked at in every combination; more are looked at one by one."""


@dataclass(frozen=True, slots=True)
class Unbounded:
    """What reproduces the response, the strata whose sds go to 0 then ("" for all errors), and whether it surely does."""

    what: str
    strata: str
    surely: bool


def find_unbounded(problem: Problem, restricted: bool) -> Unbounded | None:
    """None where nothing can reproduce the response, or more rows would be looked at than are worth it."""
    design = problem.design
    n = design.nobs
    if not design.in_memory or n > LOOKED_AT:
        return None
    doubtful = None
    for strata, rows in ([("", np.ones(n, bool))] if design.terms else []) + _list_vanishing(problem):
        found = _find_reproduction(problem, restricted, rows, strata)
        if found is not None and found.surely:
            return found
        doubtful = doubtful or found
    return doubtful


def _find_reproduction(problem: Problem, restricted: bool, rows: NDArray[np.bool_], strata: str) -> Unbounded | None:
    """What reproduces these rows of the response."""
    design, count = problem.design, int(rows.sum())
    if not _can_be(problem, rows):
        return None
    levels, q = _level_sizes(problem, rows), [term.covariance.q for term in problem.random.terms]
    p = problem.criterion.p
    X = _unit(problem.standardization.Xy(design, slice(0, design.nobs))[rows, :p])
    doubtful = None
    for ranks in _ranks(problem):
        chosen = [i for i, k in enumerate(ranks) if k]
        freedom = sum(k * (size - k) for k, size in zip(ranks, q, strict=True) if k)
        if not (chosen or strata) or p + sum(_directions(levels[i], ranks[i]) for i in chosen) + freedom < count:
            continue
        Z = [_wide(problem, i, ranks[i], rows) for i in chosen]
        left = count - _rank([X, *Z])
        if left > freedom or (left == 0 if restricted else _rank(Z) == count):
            continue
        what = " + ".join(["the fixed effects", *(f"({design.terms[i].spec.text})" for i in chosen)]).replace(" + ", " and ", 1)
        if left == 0:
            return Unbounded(what, strata, True)
        doubtful = doubtful or Unbounded(what, strata, False)
    return doubtful


EXACT_RESIDUAL = 1e-10
"""Residual of all effects together, in residual sds of the fixed ones, that is none: what least squares by iteration leaves."""

LEAST_SQUARES = 1e-12
"""Relative size of what is left of the normal equations at their end."""

MOST_ITERATIONS = 300
"""A response that takes longer is left to the search."""


def reproduces_response(problem: Problem) -> bool:
    """Whether fixed and random effects, fewer than the rows, leave nothing of this response but its own rounding."""
    design, standardization = problem.design, problem.standardization
    n, p = design.nobs, problem.criterion.p
    if not (design.terms and design.in_memory) or problem.criterion.held is not None:
        return False
    if p + sum(t.group.size * t.Z.shape[1] for t in design.terms) >= n:
        return False
    Xy = standardization.Xy(design, slice(0, n))
    Z = [replace(term, Z=own.apply(term.Z)).by_level for own, term in zip(standardization.maps, design.terms, strict=True)]
    effects = sp.csc_array(sp.hstack([sp.csc_array(Xy[:, :p]), *Z]))
    lengths = np.sqrt((effects**2).sum(axis=0))
    effects = effects @ sp.diags_array(1.0 / np.where(lengths > 0.0, lengths, 1.0))
    left = lsqr(effects, Xy[:, p], atol=LEAST_SQUARES, btol=LEAST_SQUARES, conlim=0.0, iter_lim=MOST_ITERATIONS)[3]
    rounding = 64 * MACHINE_EPSILON * design.response_size[0] / standardization.y_scale
    return bool(left <= max(EXACT_RESIDUAL, rounding) * np.sqrt(n))


def _can_be(problem: Problem, rows: NDArray[np.bool_]) -> bool:
    """Whether so many rows can be reproduced at all, counted without looking at them."""
    q = [term.covariance.q for term in problem.random.terms]
    levels = _level_sizes(problem, rows)
    most = sum(_directions(own, size) + size * size // 4 for own, size in zip(levels, q, strict=True))
    return problem.criterion.p + most >= int(rows.sum())


def _level_sizes(problem: Problem, rows: NDArray[np.bool_]) -> list[Codes]:
    return [np.bincount(term.group.codes[rows]) for term in problem.design.terms]


def _list_vanishing(problem: Problem) -> list[tuple[str, NDArray[np.bool_]]]:
    """Strata that few rows have, and several of them together: their names and rows."""
    vanishing = [(name, rows) for name, rows in _strata_rows(problem) if rows.any() and not rows.all() and _can_be(problem, rows)]
    found = []
    for size in range(1, len(vanishing) + 1 if len(vanishing) <= COMBINED_STRATA else 2):
        for chosen in combinations(vanishing, size):
            rows = np.any([own for _, own in chosen], axis=0)
            if not rows.all():
                found.append((" and ".join(name for name, _ in chosen), rows))
    return found


def _strata_rows(problem: Problem) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Rows with an sd of their own: the levels of each ident(), the groups of R, its visits where each may have any sd."""
    for factor in problem.design.variance:
        if factor.kind == "ident" and factor.strata is not None:
            for i, label in enumerate(factor.labels):
                yield f"ident({factor.spec.covariate})[{label}]", factor.strata == i
    kernel, residual = problem.structured, problem.design.residual
    if kernel is None or residual is None or residual.spec is None or not isinstance(kernel.structure, GroupedStructure):
        return
    by_visit = residual.visit is not None and kernel.structure.covariance.invariance != "scalar"
    visits = residual.visit if by_visit and residual.visit is not None else np.zeros(problem.design.nobs, np.int64)
    groups = visits * 0 if residual.group is None else residual.group.codes
    for g in range(kernel.structure.groups):
        for v in np.unique(visits):
            labels = [] if residual.group is None else [str(residual.group.levels[g])]
            labels += [str(residual.visit_levels[v])] if by_visit else []
            yield f"{residual.spec.text}[{', '.join(labels)}]", (groups == g) & (visits == v)


def _directions(rows: Codes, rank: int) -> int:
    """Most directions that levels with so many rows can have."""
    return int(np.minimum(rows, rank).sum())


def _ranks(problem: Problem) -> Iterator[tuple[int, ...]]:
    """Ranks of T of every term that can grow, 0 for a term that does not."""
    own = [range(t.covariance.q + 1) if t.covariance.name == "us" else (0, t.covariance.q) for t in problem.random.terms]
    return product(*own)


def _wide(problem: Problem, i: int, rank: int, rows: NDArray[np.bool_]) -> Array:
    """Z T of one term, T of this rank in no special direction: a column for each level and effect."""
    term = problem.design.terms[i]
    Z, codes = problem.standardization.maps[i].apply(term.Z)[rows], term.group.codes[rows]
    if rank < Z.shape[1]:
        Z = Z @ np.random.default_rng(rank).normal(size=(Z.shape[1], rank))
    out = np.zeros((len(codes), len(term.group.levels), rank))
    out[np.arange(len(codes)), codes] = Z
    return _unit(out.reshape(len(codes), -1))


def _unit(M: Array) -> Array:
    lengths = np.linalg.norm(M, axis=0)
    return np.asarray(M[:, lengths > 0] / lengths[lengths > 0])


def _rank(parts: list[Array]) -> int:
    M = np.concatenate(parts, axis=1) if parts else np.zeros((0, 0))
    sizes = np.linalg.eigvalsh(M.T @ M if M.shape[1] < M.shape[0] else M @ M.T)
    return int((sizes > RANK * sizes[-1]).sum()) if len(sizes) else 0
