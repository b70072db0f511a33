"""R0 over blocks of rows: a structure over visits or over places, with one set of parameters or one for each group.

R = sigma^2 S R0(phi) S. The leading scale of the first group's structure is held at 1, so that sigma is its standard deviation (for a
heterogeneous structure: that of the first visit). S holds the variance function and 1/sqrt(weight); rows are divided by it before they
meet R0, so R0 alone is seen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import expit

from bayeslmm._arrays import Array, Codes
from bayeslmm.covariance.base import Covariance
from bayeslmm.covariance.registry import make
from bayeslmm.covariance.spatial import SpatialCovariance
from bayeslmm.data.design import Design, ResidualDesign, VarianceDesign


@dataclass(frozen=True, slots=True, eq=False)
class BlockRows:
    """Where the rows of some blocks stand: (B, k) each.

    place : index of the visit, or None; distances : (B, k, k) or None; group : (B, k) number of the parameter set
    same : (B, k, k) 1 where two rows share a subject, or None when every block is one subject
    """

    place: Codes | None
    distances: Array | None
    group: Codes
    same: Array | None

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self.group.shape[0]), int(self.group.shape[1]))

    def part(self, which: slice | Codes) -> BlockRows:
        """Some of the blocks."""
        return BlockRows(
            None if self.place is None else self.place[which],
            None if self.distances is None else self.distances[which],
            self.group[which],
            None if self.same is None else self.same[which],
        )


class ResidualStructure(Protocol):
    """R0 over blocks, its derivatives, and the pull-back of an adjoint."""

    @property
    def size(self) -> int: ...

    def set_matrices(self, phi: Array) -> Array:
        """What R0 of all blocks share: R of each set of parameters over all visits; empty where each block has distances of its own."""
        ...

    def matrices(self, phi: Array, block: BlockRows, whole: Array | None = None) -> Array:
        """R0 (B, k, k); whole : the `set_matrices` at phi, where they are known."""
        ...

    def set_derivatives(self, phi: Array) -> Array:
        """What the derivatives over all blocks share: dR/dx of each set of parameters; empty where each block has distances of its own."""
        ...

    def derivatives(self, phi: Array, moves: Array, block: BlockRows) -> Array:
        """dR0/dphi (size, B, k, k); moves : the `set_derivatives` at phi."""
        ...

    def contract(self, phi: Array, moves: Array, block: BlockRows, adjoint: Array) -> Array:
        """sum adjoint * dR0/dphi (size,); moves : the `set_derivatives` at phi."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class IndependentErrors:
    """R0 = I: random effects with a variance function only."""

    @property
    def size(self) -> int:
        return 0

    def set_matrices(self, phi: Array) -> Array:
        return np.zeros(0)

    def matrices(self, phi: Array, block: BlockRows, whole: Array | None = None) -> Array:
        B, k = block.shape
        return np.broadcast_to(np.eye(k), (B, k, k)).copy()

    def set_derivatives(self, phi: Array) -> Array:
        return np.zeros(0)

    def derivatives(self, phi: Array, moves: Array, block: BlockRows) -> Array:
        B, k = block.shape
        return np.zeros((0, B, k, k))

    def contract(self, phi: Array, moves: Array, block: BlockRows, adjoint: Array) -> Array:
        return np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class GroupedStructure:
    """Parameter sets of G groups: the first without its leading scale, the others whole."""

    covariance: Covariance
    groups: int

    @property
    def size(self) -> int:
        return self.groups * self.covariance.size - 1

    def split_groups(self, phi: Array) -> Array:
        """(G, size of the structure), the first leading scale 1."""
        return np.concatenate([[1.0], phi]).reshape(self.groups, self.covariance.size)

    def join_groups(self, full: Array) -> tuple[float, Array]:
        """sigma and phi of (G, size) parameters of R itself."""
        lead = float(full[0, 0])
        scaled = np.stack([self.covariance.rescale(row, 1.0 / lead) for row in full])
        return abs(lead), scaled.ravel()[1:]


@dataclass(frozen=True, slots=True, eq=False)
class VisitStructure(GroupedStructure):
    """A structure over m visits."""

    def _index(self, block: BlockRows) -> Codes:
        assert block.place is not None
        m = self.covariance.q
        return np.asarray((block.group[:, :, None] * m + block.place[:, :, None]) * m + block.place[:, None, :])

    def set_matrices(self, phi: Array) -> Array:
        return self.covariance.matrix(self.split_groups(phi))

    def matrices(self, phi: Array, block: BlockRows, whole: Array | None = None) -> Array:
        R = (self.set_matrices(phi) if whole is None else whole).ravel()[self._index(block)]
        return R if block.same is None else R * block.same

    def set_derivatives(self, phi: Array) -> Array:
        return self.covariance.matrix_derivative(self.split_groups(phi))

    def derivatives(self, phi: Array, moves: Array, block: BlockRows) -> Array:
        index, m, k = self._index(block), self.covariance.q, self.covariance.size
        out = np.zeros((self.groups * k, *index.shape))
        for g in range(self.groups):
            mine = block.group[:, :, None] == g if self.groups > 1 else None
            inner = np.clip(index - g * m * m, 0, m * m - 1)
            values = moves[g].reshape(k, m * m)[:, inner]
            out[g * k : (g + 1) * k] = values if mine is None else values * mine
        out = out[1:]
        return out if block.same is None else out * block.same

    def contract(self, phi: Array, moves: Array, block: BlockRows, adjoint: Array) -> Array:
        m = self.covariance.q
        masked = adjoint if block.same is None else adjoint * block.same
        pooled = np.bincount(self._index(block).ravel(), masked.ravel(), self.groups * m * m).reshape(self.groups, 1, m, m)
        return np.asarray((moves * pooled).sum((-1, -2)).ravel()[1:])


@dataclass(frozen=True, slots=True, eq=False)
class SpatialStructure(GroupedStructure):
    """A function of distances."""

    @property
    def located(self) -> SpatialCovariance:
        assert isinstance(self.covariance, SpatialCovariance)
        return self.covariance

    def set_matrices(self, phi: Array) -> Array:
        return np.zeros(0)

    def matrices(self, phi: Array, block: BlockRows, whole: Array | None = None) -> Array:
        assert block.distances is not None
        sets = self.split_groups(phi)
        R = self.located.matrix_at(sets[0], block.distances)
        for g in range(1, self.groups):
            R = np.where(block.group[:, :, None] == g, self.located.matrix_at(sets[g], block.distances), R)
        return R if block.same is None else R * block.same

    def set_derivatives(self, phi: Array) -> Array:
        return np.zeros(0)

    def derivatives(self, phi: Array, moves: Array, block: BlockRows) -> Array:
        assert block.distances is not None
        parts = []
        for g, x in enumerate(self.split_groups(phi)):
            dR = self._derivative_at(x, block.distances)
            parts.append(dR if self.groups == 1 else dR * (block.group[:, :, None] == g))
        out = np.concatenate(parts)[1:]
        return out if block.same is None else out * block.same

    def _derivative_at(self, x: Array, distances: Array) -> Array:
        """d(s^2 C)/dx (size, B, k, k)."""
        out = x[0] ** 2 * self.located.correlation_derivative(x, distances)
        out[0] = 2.0 * x[0] * self.located.correlation(x, distances)
        return np.asarray(out)

    def contract(self, phi: Array, moves: Array, block: BlockRows, adjoint: Array) -> Array:
        return np.asarray(np.einsum("ibjk,bjk->i", self.derivatives(phi, moves, block), adjoint))


def residual_structure(design: Design) -> ResidualStructure:
    """The structure of a design's R."""
    if design.residual is None:
        return IndependentErrors()
    covariance = residual_covariance(design.residual)
    groups = 1 if design.residual.group is None else len(design.residual.group.levels)
    return SpatialStructure(covariance, groups) if isinstance(covariance, SpatialCovariance) else VisitStructure(covariance, groups)


def residual_covariance(residual: ResidualDesign) -> Covariance:
    """The structure object of a residual design."""
    if residual.visit is None and residual.coords is not None:
        return make(residual.name, 2, residual.order, reach=_step(residual), nugget=residual.nugget)
    levels, nugget = len(residual.visit_levels), residual.nugget
    if "@" in residual.name:
        at = residual.positions
        return make(residual.name, levels, residual.order, dims=residual.shape, nugget=nugget, places=residual.places, positions=at)
    return make(residual.name, levels, residual.order, nugget=nugget, positions=residual.positions)


def _step(residual: ResidualDesign) -> float:
    """The median distance between neighbouring rows of a subject."""
    assert residual.coords is not None
    order = np.lexsort((residual.coords[:, 0], residual.subject.codes))
    same = np.diff(residual.subject.codes[order]) == 0
    steps = np.linalg.norm(np.diff(residual.coords[order], axis=0), axis=1)[same]
    return float(np.median(steps[steps > 0])) if np.any(steps > 0) else 1.0


def _by_scale(structure: GroupedStructure) -> bool:
    """Whether the first natural parameter is the leading scale (or its square), so that it is 1 in R0."""
    return not structure.covariance.name.startswith("fa")


def residual_natural(structure: ResidualStructure, phi: Array) -> Array:
    """Natural parameters of R0: standard deviations relative to sigma (the first, which is 1, left out), correlations.

    Factor-analytic structures, whose natural parameters are loadings, keep their free parameters.
    """
    if not isinstance(structure, GroupedStructure):
        return np.zeros(0)
    if not _by_scale(structure):
        return np.array(phi)
    return np.asarray(structure.covariance.natural(structure.split_groups(phi)).ravel()[1:])


def residual_free(structure: ResidualStructure, natural: Array) -> Array:
    """The inverse of `residual_natural`."""
    if not isinstance(structure, GroupedStructure):
        return np.zeros(0)
    if not _by_scale(structure):
        return np.array(natural)
    return np.asarray(structure.covariance.from_natural(structure.split_groups(natural)).ravel()[1:])


TINY_COVARIATE = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class VarianceFunction:
    """log of the multiplier of the residual standard deviation, a sum over factors; parameters one factor after the other.

    ident : one ratio for each stratum but the first (free: its log); power : |v|^d; exp : exp(d v);
    const_power : c + |v|^d, c > 0 (free: log c)
    values : (n,) the covariate of each factor, None for ident
    """

    factors: tuple[VarianceDesign, ...]
    values: tuple[Array | None, ...]
    n: int

    @property
    def sizes(self) -> tuple[int, ...]:
        found = []
        for factor in self.factors:
            sets = _n_strata(factor)
            found.append(sets - 1 if factor.kind == "ident" else 2 * sets if factor.kind == "const_power" else sets)
        return tuple(found)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def start(self) -> Array:
        """A constant standard deviation."""
        return np.zeros(self.size)

    @property
    def names(self) -> tuple[str, ...]:
        """As nlme calls them: ratios of standard deviations, `power`, `expon`, `const`, with `[stratum]`.

        Where factors share a name they carry what they are a function of: `expon(x)`, `ratio(sex)[F]`.
        """
        stems = [{stem for stem, _ in _parameters(factor)} for factor in self.factors]
        found: list[str] = []
        for factor in self.factors:
            by = ":".join(factor.spec.group)
            argument = factor.spec.covariate + (("" if not by else ":" if factor.kind == "ident" else "|") + by)
            for stem, stratum in _parameters(factor):
                shared = sum(stem in own for own in stems) > 1
                found.append(stem + (f"({argument})" if shared else "") + stratum)
        return tuple(found)

    def positive(self) -> Array:
        """Which parameters are positive and free on the log axis."""
        marks = []
        for factor, size in zip(self.factors, self.sizes, strict=True):
            half = _n_strata(factor)
            marks.append(np.arange(size) < (size if factor.kind == "ident" else half if factor.kind == "const_power" else 0))
        return np.concatenate([*marks, np.zeros(0, bool)])

    def natural(self, delta: Array) -> Array:
        """Ratios and constants as such, powers and exponents as they are."""
        positive = self.positive()
        return np.where(positive, np.exp(np.where(positive, delta, 0.0)), delta)

    def free(self, natural: Array) -> Array:
        """The inverse of `natural`."""
        positive = self.positive()
        return np.where(positive, np.log(np.where(positive, natural, 1.0)), natural)

    def origins(self, delta: Array) -> Array:
        """What the parameters are counted from, (size,): the log of a constant from that of the power beside it at a typical covariate."""
        out = np.zeros(self.size)
        for factor, value, part in self._parts():
            if factor.kind == "const_power" and value is not None and value.any():
                own, sets = delta[part], _n_strata(factor)
                out[part] = np.append(own[sets:] * np.log(np.abs(value[value != 0.0])).mean(), np.zeros(sets))
        return out

    def log_multiplier(self, delta: Array) -> tuple[Array, Array]:
        """log v (n,) and its derivatives (size, n)."""
        total, slopes = np.zeros(self.n), np.zeros((self.size, self.n))
        for factor, value, part in self._parts():
            total += _log_multiplier(factor, value, delta[None, part], slice(None))[0]
            slopes[part] = _log_multiplier_derivatives(factor, value, delta[part], self.n)
        return total, slopes

    def second_derivatives(self, delta: Array) -> Array | None:
        """Second derivatives of log v, (size, size, n), or None where log v is linear in its parameters."""
        if all(factor.kind != "const_power" for factor in self.factors):
            return None
        out = np.zeros((self.size, self.size, self.n))
        for factor, value, part in self._parts():
            if factor.kind == "const_power":
                out[part, part] = _const_power_second_derivatives(factor, value, delta[part], self.n)
        return out

    def log_multipliers(self, delta: Array, rows: Codes) -> Array:
        """log v (t, ...) of some rows (...) at delta (t, size)."""
        total = np.zeros((len(delta), *rows.shape))
        for factor, value, part in self._parts():
            total += _log_multiplier(factor, value, delta[:, part], rows)
        return total

    def _parts(self) -> Iterator[tuple[VarianceDesign, Array | None, slice]]:
        begin = 0
        for factor, value, size in zip(self.factors, self.values, self.sizes, strict=True):
            yield factor, value, slice(begin, begin + size)
            begin += size


def _parameters(factor: VarianceDesign) -> list[tuple[str, str]]:
    """Name and stratum of every parameter of one factor."""
    strata = [""] if factor.strata is None else [f"[{label}]" for label in factor.labels]
    if factor.kind == "ident":
        return [("ratio", stratum) for stratum in strata[1:]]
    stems = {"const_power": ("const", "power"), "exp": ("expon",), "power": ("power",)}[factor.kind]
    return [(stem, stratum) for stem in stems for stratum in strata]


def _n_strata(factor: VarianceDesign) -> int:
    return 1 if factor.strata is None else len(factor.labels)


def _strata(factor: VarianceDesign, n: int) -> Codes:
    return np.zeros(n, np.int64) if factor.strata is None else factor.strata


def _log_multiplier(factor: VarianceDesign, value: Array | None, delta: Array, rows: Codes | slice) -> Array:
    """log v (t, ...) of one factor at delta (t, its size)."""
    if factor.kind == "ident":
        assert factor.strata is not None
        return np.asarray(np.concatenate([np.zeros((len(delta), 1)), delta], axis=1)[:, factor.strata[rows]])
    assert value is not None
    strata, own = _strata(factor, len(value))[rows], value[rows]
    if factor.kind == "exp":
        return np.asarray(delta[:, strata] * own)
    size = np.log(np.maximum(np.abs(own), TINY_COVARIATE))
    if factor.kind == "power":
        return np.asarray(delta[:, strata] * size)
    sets = _n_strata(factor)
    return np.asarray(np.logaddexp(delta[:, :sets][:, strata], delta[:, sets:][:, strata] * size))


def _log_multiplier_derivatives(factor: VarianceDesign, value: Array | None, delta: Array, n: int) -> Array:
    """Derivatives of log v, (its size, n)."""
    strata, sets = _strata(factor, n), _n_strata(factor)
    member = (strata == np.arange(sets)[:, None]).astype(float)
    if factor.kind == "ident":
        return np.asarray(member[1:])
    assert value is not None
    if factor.kind == "exp":
        return np.asarray(member * value)
    size = np.log(np.maximum(np.abs(value), TINY_COVARIATE))
    if factor.kind == "power":
        return np.asarray(member * size)
    share = expit(delta[:sets][strata] - delta[sets:][strata] * size)
    return np.concatenate([member * share, member * ((1.0 - share) * size)])


def _const_power_second_derivatives(factor: VarianceDesign, value: Array | None, delta: Array, n: int) -> Array:
    """Second derivatives of log(c + |v|^d) in log c and d, (its size, its size, n)."""
    first = _log_multiplier_derivatives(factor, value, delta, n)
    sets = len(first) // 2
    assert value is not None
    strata, log_size = _strata(factor, n), np.log(np.maximum(np.abs(value), TINY_COVARIATE))
    out, rows = np.zeros((len(first), *first.shape)), np.arange(n)
    # with q = c / (c + |v|^d): q (1 - q), by log |v| for each derivative in d, with its sign
    bend = first[strata, rows] * (1.0 - first[strata, rows])
    out[strata, strata, rows] = bend
    out[strata, sets + strata, rows] = out[sets + strata, strata, rows] = -bend * log_size
    out[sets + strata, sets + strata, rows] = bend * log_size**2
    return out


def variance_function(design: Design, fitted: Array | None = None) -> VarianceFunction:
    """The variance function of a design, `fitted` (n,) standing in where the covariate is the fitted value."""
    values = tuple(fitted if f.is_of_fitted else f.covariate for f in design.variance)
    return VarianceFunction(design.variance, values, len(design.y))
