"""Columns of a right-hand side about the origins of its covariates: the same span, from which a far start takes no digits.

A product such as `a:x` is nearly a multiple of `a` where x starts far from 0 in units of its own spread, and `x ** 2` of `x`. Wherever the
columns without the covariate are there to make up for it, each covariate is taken less a number near its mean before products are
formed: rank, condition and criterion are those of the model, wherever a covariate starts.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from math import comb, frexp, prod

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, freeze
from bayeslmm.data.columns import Columns
from bayeslmm.data.expressions import Atom
from bayeslmm.data.model_matrix import DesignBlock
from bayeslmm.data.variables import EncodedVariable, ExpressionVariable, FactorVariable, NumericVariable

FAR = 16.0
"""Standard deviations from 0 up to which products of a covariate lose no digits that count."""

_HIGHEST = 9  # power up to which a written power is multiplied out
_SPANNED = 1e-9  # what is left of a column of a factor outside a span, relative to its largest value, is rounding

Monomial = frozenset[tuple[str, int]]  # covariates and their powers


@dataclass(frozen=True, slots=True, eq=False)
class NearColumns:
    """columns : (n, p) = X moves, computed from the covariates themselves; moves : (p, p) of determinant 1, with ones on the diagonal.

    degree : (p,) the number of covariates that a column multiplies; `moves` takes nothing into a column but from lower degrees, and from
    earlier columns of the same
    """

    columns: Array
    moves: Array
    degree: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> NearColumns:
        """Those of some rows."""
        return replace(self, columns=freeze(self.columns[rows]))

    def extend(self, X: Array) -> NearColumns:
        """With more rows behind, given as rows of X."""
        return replace(self, columns=freeze(np.concatenate([self.columns, X @ self.moves])))

    @property
    def order(self) -> NDArray[np.int64]:
        """An order of the columns in which the first columns span what the first of X do: that of X where it is one."""
        if not np.tril(self.moves, -1).any():
            return np.arange(len(self.moves))
        return np.argsort(self.degree, kind="stable")


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """Columns as products: of factors by the patterns of rows that occur (patterns, p), and of powers of covariates."""

    patterns: Array
    of_row: NDArray[np.int64]
    monomials: tuple[Monomial, ...]
    values: Mapping[str, Array]
    origins: Mapping[str, float]

    def members(self, wanted: Monomial) -> list[int]:
        return [j for j, own in enumerate(self.monomials) if own == wanted]

    def column(self, factor: Array, monomial: Monomial, moved: frozenset[str]) -> Array:
        """The product with the covariates `moved` about their origins."""
        out = factor[self.of_row]
        for key, power in sorted(monomial):
            out = out * (self.values[key] - self.origins[key] if key in moved else self.values[key]) ** power
        return out


def near_columns(block: DesignBlock, source: Columns, kept: Sequence[int] | None = None) -> NearColumns | None:
    """The columns (those kept) about the origins of the covariates; None where no product has a covariate that starts far from 0."""
    if not any(len(scope) > 1 or any(isinstance(block.atoms[part.atom], ExpressionVariable) for part in scope) for scope in block.scopes):
        return None
    parts = _find_parts(block, source, kept)
    if parts is None:
        return None
    moves = np.eye(len(parts.monomials))
    columns = np.empty((len(parts.of_row), len(moves)))
    for j, monomial in enumerate(parts.monomials):
        columns[:, j] = _move_column(parts, j, monomial, moves)
    degree = np.array([sum(power for _, power in monomial) for monomial in parts.monomials])
    return NearColumns(freeze(columns), freeze(moves), degree)


def _move_column(parts: _Parts, j: int, monomial: Monomial, moves: Array) -> Array:
    """A column about as many origins as the others make up for; its column of `moves` is filled in."""
    far = [key for key, _ in sorted(monomial) if parts.origins[key] != 0.0]
    earlier = [i for i in parts.members(monomial) if i < j]
    for size in range(len(far), 0, -1):
        for chosen in combinations(far, size):
            lower = list(_lower(monomial, chosen, parts.origins))
            for beside in ([], earlier) if earlier else ([],):
                found = _solve(parts, j, beside, [parts.members(rest) for rest, _ in lower])
                if found is None:
                    continue
                own, others = found
                moves[beside, j] = own
                for (rest, by), weights in zip(lower, others, strict=True):
                    moves[parts.members(rest), j] += by * weights
                return parts.column(parts.patterns[:, j] + parts.patterns[:, beside] @ own, monomial, frozenset(chosen))
    return parts.column(parts.patterns[:, j], monomial, frozenset())


def _lower(monomial: Monomial, chosen: Sequence[str], origins: Mapping[str, float]) -> Iterator[tuple[Monomial, float]]:
    """What (x - c)^k (z - d)^l ... has beside the product itself: monomials and their coefficients."""
    powers = dict(monomial)
    for taken in product(*(range(powers[key] + 1) for key in chosen)):
        if any(taken):
            left = powers | {key: powers[key] - less for key, less in zip(chosen, taken, strict=True)}
            by = prod(comb(powers[key], less) * (-origins[key]) ** less for key, less in zip(chosen, taken, strict=True))
            yield frozenset((key, power) for key, power in left.items() if power), by


def _solve(parts: _Parts, j: int, beside: list[int], margins: list[list[int]]) -> tuple[Array, list[Array]] | None:
    """u and b with f_j + F u = F_m b_m for every margin m, f the factors' part of columns; None where there are none.

    beside : columns F of the same covariates
    """
    F, f = parts.patterns, parts.patterns[:, j]
    if any(not own for own in margins):
        return None
    if not beside:
        same = [[i for i in own if np.array_equal(F[:, i], f)][:1] for own in margins]
        if all(same):
            return np.zeros(0), [np.array([float(i == at[0]) for i in own]) for own, at in zip(margins, same, strict=True)]
    widths = [len(own) for own in margins]
    system = np.zeros((len(margins), len(F), len(beside) + sum(widths)))
    begin = len(beside)
    for k, own in enumerate(margins):
        system[k, :, : len(beside)] = -F[:, beside]
        system[k, :, begin : begin + len(own)] = F[:, own]
        begin += len(own)
    flat, target = system.reshape(-1, system.shape[2]), np.tile(f, len(margins))
    found = np.linalg.lstsq(flat, target, rcond=None)[0]
    whole = np.round(found)
    if np.abs(found - whole).max() < _SPANNED:  # sums of indicators
        found = whole
    if np.abs(flat @ found - target).max() > _SPANNED * max(np.abs(f).max(), np.finfo(float).tiny):
        return None
    cuts = np.cumsum([len(beside), *widths])
    return found[: len(beside)], [found[a:b] for a, b in pairwise(cuts)]


def _find_parts(block: DesignBlock, source: Columns, kept: Sequence[int] | None) -> _Parts | None:
    values: dict[str, Array] = {}
    factors: dict[tuple[str, bool, int], Array] = {}

    def pieces(atom: EncodedVariable, reduced: bool) -> list[tuple[tuple[str, bool, int] | None, Monomial]]:
        written = written_powers(atom, source)
        if written is not None:
            values.update({name: source.numbers(name) for name, _ in written})
            return [(None, written)]
        own = atom.pieces(source, reduced=reduced)
        name = getattr(atom, "name", None) or atom.fields(reduced=False)[0]
        if isinstance(atom, FactorVariable):
            factors.update({(name, reduced, k): np.asarray(piece, float) for k, piece in enumerate(own)})
            return [((name, reduced, k), frozenset()) for k in range(len(own))]
        keys = [f"{field} of {name}" for field in atom.fields(reduced=reduced)]
        values.update({key: np.asarray(piece, float) for key, piece in zip(keys, own, strict=True)})
        return [(None, frozenset([(key, 1)])) for key in keys]

    every = list(block.products(pieces))
    every = every if kept is None else [every[j] for j in kept]
    monomials = tuple(frozenset(sum((Counter(dict(power)) for _, power in column), Counter()).items()) for column in every)
    within = [tuple(key for key, _ in column if key is not None) for column in every]
    multiplied = {
        key for keys, monomial in zip(within, monomials, strict=True) if keys or sum(k for _, k in monomial) > 1 for key, _ in monomial
    }
    origins = {key: _origin(own) if key in multiplied else 0.0 for key, own in values.items()}
    if not any(origins.values()):
        return None
    names = list(dict.fromkeys(key for keys in within for key in keys))
    # rows of one pattern have one sum of random numbers
    mark = sum((rng_weight * factors[key] for key, rng_weight in zip(names, np.random.default_rng(0).random(len(names)), strict=True)), 0.0)
    mark = np.broadcast_to(mark, len(source))
    _, first, of_row = np.unique(mark, return_index=True, return_inverse=True)
    patterns = np.column_stack([prod((factors[key][first] for key in keys), start=np.ones(len(first))) for keys in within])
    return _Parts(patterns, of_row.ravel(), monomials, values, origins)


def _origin(values: Array) -> float:
    """A number near the mean of a covariate that starts far from 0, of few digits; 0 for any other."""
    center, spread = float(values.mean()), float(values.std())
    if not spread * FAR < abs(center) or spread == 0.0:
        return 0.0
    unit = 2.0 ** (frexp(spread)[1] - 1)
    return round(center / unit) * unit


def written_powers(atom: EncodedVariable, source: Columns) -> Monomial | None:
    """The covariates of `x`, `I(x ** 2)`, `I(x * z)` and their powers; None for anything else."""
    if isinstance(atom, NumericVariable):
        return frozenset([(atom.name, 1)])
    if not isinstance(atom, ExpressionVariable) or any(source.is_factor(name) for name in atom.columns):
        return None
    found = _powers(atom.atom, atom.atom.node)
    return frozenset(found.items()) if found and max(found.values()) <= _HIGHEST else None


def _powers(atom: Atom, node: ast.expr) -> Counter[str] | None:
    match node:
        case ast.Name(name) if atom.aliases.get(name, name) in atom.columns:
            return Counter([atom.aliases.get(name, name)])
        case ast.Call(ast.Name("I"), [inner], []):
            return _powers(atom, inner)
        case ast.BinOp(left, ast.Mult(), right):
            one, other = _powers(atom, left), _powers(atom, right)
            return None if one is None or other is None else one + other
        case ast.BinOp(base, ast.Pow(), ast.Constant(int(power))) if power > 0:
            own = _powers(atom, base)
            return None if own is None else Counter({name: k * power for name, k in own.items()})
    return None
