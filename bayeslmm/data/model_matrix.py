"""Model matrices: the columns that each term of a right-hand side needs for full rank, encoded for any rows.

Terms come from `bayeslmm.formula`, expanded and limited; their atoms (a column, `log(x)`, `poly(x, 2)`) are left to
`bayeslmm.data.expressions`.

A factor spans the intercept, so a term `A:B` spans {1, A-, B-, A-:B-}, where A- is A coded beside an intercept. What earlier terms
span is taken off, and what is left is merged by the rule `t + t:A- = t:A`. This is the rule of R, patsy and formulaic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array, FrozenMapping
from bayeslmm._validation import require_memory
from bayeslmm.data.columns import Columns
from bayeslmm.data.expressions import Atom, atom_name, read_atom
from bayeslmm.data.variables import EncodedVariable, FactorVariable, Training, encode_variable
from bayeslmm.errors import SizeError
from bayeslmm.formula.syntax import Terms


@dataclass(frozen=True, slots=True)
class Term:
    """A product of atoms; the empty product is the intercept. Two terms are equal when their atoms are, in any order."""

    atoms: tuple[str, ...]

    @property
    def name(self) -> str:
        """The term as a formula writes it, backticks left out."""
        return ":".join(atom_name(atom) for atom in self.atoms) or "Intercept"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term) and frozenset(self.atoms) == frozenset(other.atoms)

    def __hash__(self) -> int:
        return hash(frozenset(self.atoms))


@dataclass(frozen=True, slots=True)
class TermPart:
    """A factor within a term: with the columns that it has beside an intercept (`reduced`), or with all its columns."""

    atom: str
    reduced: bool


Scope = tuple[TermPart, ...]  # a product of parts; () is the intercept


@lru_cache(maxsize=1024)
def scopes(terms: Terms, factors: frozenset[str]) -> tuple[tuple[Scope, ...], ...]:
    """For every term the products of parts whose columns it contributes.

    factors : the atoms that are factors; all others are numeric
    """
    spanned: set[frozenset[TermPart]] = set()
    result: list[tuple[Scope, ...]] = []
    for term in terms:
        span = [scope for scope in _spanned_by(term, factors) if frozenset(scope) not in spanned]
        spanned.update(map(frozenset, span))
        result.append(tuple(_merge_scopes(span)))
    return tuple(result)


def _spanned_by(term: tuple[str, ...], factors: frozenset[str]) -> list[Scope]:
    choices = [((TermPart(atom, True),), ()) if atom in factors else ((TermPart(atom, False),),) for atom in term]
    return [tuple(part for chosen in choice for part in chosen) for choice in product(*choices)]


def _merge_scopes(scopes: Iterable[Scope]) -> list[Scope]:
    """The scopes with every `t + t:A-` made `t:A`, the first such pair first."""
    done: dict[frozenset[TermPart], tuple[int, Scope]] = {}
    for place, original in enumerate(sorted(scopes, key=len)):
        scope = original
        while partners := list(_partners(scope, done)):
            _, key, new = min(partners, key=lambda partner: partner[0])
            del done[key]
            scope = tuple(TermPart(part.atom, False) if part == new else part for part in scope)
        done[frozenset(scope)] = (place, scope)
    return [scope for _, scope in done.values()]


def _partners(scope: Scope, done: dict[frozenset[TermPart], tuple[int, Scope]]) -> Iterator[tuple[int, frozenset[TermPart], TermPart]]:
    """The place and key of each scope that is `scope` without one of its reduced factors, and that factor."""
    parts = frozenset(scope)
    for part in scope:
        key = parts - {part}
        if part.reduced and key in done:
            yield done[key][0], key, part


MATRIX_BYTES_LIMIT = 8 * 2**30  # bytes of one dense matrix of columns


@lru_cache(maxsize=1024)
def atoms_of(terms: Terms) -> Mapping[str, Atom]:
    """The atoms of some terms, by their text."""
    return FrozenMapping({text: read_atom(text) for term in terms for text in term})


@dataclass(frozen=True, slots=True, eq=False)
class DesignBlock:
    """A right-hand side that can be encoded.

    names : names of all columns
    terms : the name of the term that each column belongs to
    """

    scopes: tuple[Scope, ...]
    atoms: Mapping[str, EncodedVariable]
    names: tuple[str, ...]
    terms: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the data that it reads."""
        return tuple(dict.fromkeys(name for atom in self.atoms.values() for name in atom.columns))

    def indicators(self) -> int | None:
        """The first of the columns that indicate every level and add up to 1; None beside an intercept, or without such a set."""
        if () in self.scopes:
            return None
        at = 0
        for scope in self.scopes:
            if all(isinstance(self.atoms[part.atom], FactorVariable) and not part.reduced for part in scope):
                return at
            at += prod([_width(self.atoms[part.atom], part) for part in scope])
        return None

    def encode(self, source: Columns) -> Array:
        """(n, p) float64; NaN where a missing value is felt."""
        out = np.empty((len(source), len(self.names)))
        for at, factors in enumerate(self.products(lambda atom, reduced: atom.pieces(source, reduced=reduced))):
            _multiply(out[:, at], factors)
        return out

    def products[T](self, pieces: Callable[[EncodedVariable, bool], Sequence[T]]) -> Iterator[tuple[T, ...]]:
        """Whatever the columns are the products of, column by column. pieces : those of an atom, reduced beside an intercept or not"""
        made: dict[TermPart, Sequence[T]] = {}
        for scope in self.scopes:
            for part in scope:
                if part not in made:
                    made[part] = pieces(self.atoms[part.atom], part.reduced)
            yield from _choices([made[part] for part in scope])


def _choices[T](parts: Sequence[Sequence[T]]) -> Iterator[tuple[T, ...]]:
    """One of each part, in every way; the first part's items change fastest, as in R."""
    return (choice[::-1] for choice in product(*reversed(parts)))


def _multiply(out: NDArray[np.float64], factors: Sequence[NDArray[Any]]) -> None:
    out[:] = factors[0] if factors else 1.0
    for values in factors[1:]:
        out *= values


def train_block(terms: Terms, source: Columns, training: Training) -> DesignBlock:
    """The columns of a right-hand side as these rows teach them.

    Errors: those of its atoms; `SizeError` before anything large is built.
    """
    atoms = {key: encode_variable(atom, source, training) for key, atom in atoms_of(terms).items()}
    layout = _layout(terms, frozenset([key for key, atom in atoms.items() if isinstance(atom, FactorVariable)]))
    _check_size(layout, atoms, len(source))
    names = [_names(scope, atoms) for scope in layout.scopes]
    return DesignBlock(
        layout.scopes,
        atoms,
        tuple([name for group in names for name in group]),
        tuple([name for name, group in zip(layout.names, names, strict=True) for _ in group]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What a right-hand side says without its rows: its scopes; the term of each, and what that is called."""

    scopes: tuple[Scope, ...]
    terms: tuple[Term, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=1024)
def _layout(terms: Terms, factors: frozenset[str]) -> _Layout:
    atoms = atoms_of(terms)
    flat = [(scope, term) for term, group in zip(terms, scopes(terms, factors), strict=True) for scope in group]
    names = tuple(":".join(atoms[key].name for key in term) or "Intercept" for _, term in flat)
    return _Layout(tuple(scope for scope, _ in flat), tuple(Term(term) for _, term in flat), names)


def _names(scope: Scope, atoms: Mapping[str, EncodedVariable]) -> list[str]:
    if not scope:
        return ["Intercept"]
    fields = [[_quote(atoms[part.atom], name) for name in atoms[part.atom].fields(reduced=part.reduced)] for part in scope]
    return [":".join(choice) for choice in _choices(fields)]


def _quote(variable: EncodedVariable, name: str) -> str:
    """A bare column that would be read as something else, such as one called `Intercept`, `a:b` or `x `, stands in backticks."""
    column = variable.columns[0] if len(variable.columns) == 1 else ""
    odd = column == "Intercept" or ":" in column or column != column.strip()
    return f"`{column}`{name.removeprefix(column)}" if odd and name.startswith(column) else name


NAME_PIECE = re.compile(r"`[^`]*`|\[[^\]]*\]|\s+|.", re.DOTALL)


def name_parts(name: str) -> tuple[str, ...]:
    """The factors of an interaction in one order, spaces of an expression left out: `x:z` and `z:x` are one, `I(x**2)` and `I(x ** 2)`.

    What stands in backticks is one part, and spaces of a column's or a level's name belong to it.
    """
    parts, depth = [""], 0
    for piece in NAME_PIECE.findall(name):
        depth += (piece == "(") - (piece == ")")
        if piece == ":" and depth == 0:
            parts.append("")
        elif depth == 0 or not piece.isspace():
            parts[-1] += piece
    return tuple(sorted(part.strip() for part in parts))


def _check_size(layout: _Layout, atoms: Mapping[str, EncodedVariable], rows: int) -> None:
    widths = [prod([_width(atoms[part.atom], part) for part in scope]) for scope in layout.scopes]
    total = sum(widths)
    if 8 * rows * total <= MATRIX_BYTES_LIMIT:
        what = f"{total:,} columns for {rows:,} rows, and their cross-products,"
        require_memory("design", 2.0 * rows * total + 4.0 * total**2, what, "use a random effect for a factor of many levels: (1 | factor)")
        return
    by_term: dict[Term, int] = {}
    for term, width in zip(layout.terms, widths, strict=True):
        by_term[term] = by_term.get(term, 0) + width
    widest = max(by_term, key=lambda term: by_term[term])
    raise SizeError(
        f"{total} columns for {rows} rows would take {_bytes(8 * rows * total)}",
        f"term {widest.name!r} has {by_term[widest]} columns",
        f"use a random effect for a factor of many levels: (1 | {widest.name})",
    )


def _width(atom: EncodedVariable, part: TermPart) -> int:
    return atom.width(reduced=part.reduced) if isinstance(atom, FactorVariable) else len(atom.fields(reduced=part.reduced))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.0f} PB"
