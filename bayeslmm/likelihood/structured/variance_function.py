"""Variance functions: the residual standard deviation as a function of a stratum, a covariate, or the fitted value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bayeslmm._arrays import Array, Codes
from bayeslmm.data.design import Design, VarianceDesign

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
        return np.where(self.positive(), np.exp(delta), delta)

    def free(self, natural: Array) -> Array:
        """The inverse of `natural`."""
        positive = self.positive()
        return np.where(positive, np.log(np.where(positive, natural, 1.0)), natural)

    def log_multiplier(self, delta: Array) -> tuple[Array, Array]:
        """log v (n,) and its derivatives (size, n)."""
        total, slopes = np.zeros(self.n), np.zeros((self.size, self.n))
        for factor, value, part in self._parts():
            total += _log_multiplier(factor, value, delta[None, part], slice(None))[0]
            slopes[part] = _log_multiplier_derivatives(factor, value, delta[part], self.n)
        return total, slopes

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
    return np.asarray(np.log(np.exp(delta[:, :sets])[:, strata] + np.exp(delta[:, sets:][:, strata] * size)))


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
    c, power = np.exp(delta[:sets])[strata], np.exp(delta[sets:][strata] * size)
    return np.concatenate([member * (c / (c + power)), member * (power * size / (c + power))])


def variance_function(design: Design, fitted: Array | None = None) -> VarianceFunction:
    """The variance function of a design, `fitted` (n,) standing in where the covariate is the fitted value."""
    values = tuple(fitted if f.covariate is None and f.kind != "ident" else f.covariate for f in design.variance)
    return VarianceFunction(design.variance, values, len(design.y))
