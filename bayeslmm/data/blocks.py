"""A right-hand side as columns: trained once, encoded for any rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm.arrays import Array
from bayeslmm.data.atoms import FactorAtom, TrainedAtom, Training, train_atom
from bayeslmm.data.expressions import Atom, read_atom
from bayeslmm.data.scopes import Part, Scope, scopes
from bayeslmm.data.source import Columns
from bayeslmm.data.terms import Term, expand
from bayeslmm.errors import SizeError

SIZE_LIMIT = 8 * 2**30  # bytes of one dense matrix of columns


@lru_cache(maxsize=1024)
def atoms_of(text: str) -> Mapping[str, Atom]:
    """The atoms of a right-hand side, by their text."""
    return MappingProxyType({text: read_atom(text) for term in expand(text) for text in term.atoms})


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A right-hand side that can be encoded.

    names : names of all columns
    terms : the name of the term that each column belongs to
    """

    scopes: tuple[Scope, ...]
    atoms: Mapping[str, TrainedAtom]
    names: tuple[str, ...]
    terms: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the data that it reads."""
        return tuple(dict.fromkeys(name for atom in self.atoms.values() for name in atom.columns))

    def encode(self, source: Columns) -> Array:
        """(n, p) float64; NaN where a missing value is felt."""
        out = np.empty((len(source), len(self.names)))
        pieces: dict[Part, list[NDArray[Any]]] = {}
        at = 0
        for scope in self.scopes:
            for part in scope:
                if part not in pieces:
                    pieces[part] = self.atoms[part.atom].pieces(source, reduced=part.reduced)
            for factors in _choices([pieces[part] for part in scope]):
                _multiply(out[:, at], factors)
                at += 1
        return out


def _choices[T](parts: Sequence[Sequence[T]]) -> Iterator[tuple[T, ...]]:
    """One of each part, in every way; the first part's items change fastest, as in R."""
    return (choice[::-1] for choice in product(*reversed(parts)))


def _multiply(out: NDArray[np.float64], factors: Sequence[NDArray[Any]]) -> None:
    out[:] = factors[0] if factors else 1.0
    for values in factors[1:]:
        out *= values


def train_block(text: str, source: Columns, training: Training) -> Block:
    """The right-hand side as these rows teach it.

    Errors: those of its atoms; `SizeError` before anything large is built.
    """
    atoms = {key: train_atom(atom, source, training) for key, atom in atoms_of(text).items()}
    layout = _layout(text, frozenset([key for key, atom in atoms.items() if isinstance(atom, FactorAtom)]))
    _refuse_size(layout, atoms, len(source))
    names = [_names(scope, atoms) for scope in layout.scopes]
    return Block(
        layout.scopes,
        atoms,
        _told_apart([name for group in names for name in group]),
        tuple([name for name, group in zip(layout.names, names, strict=True) for _ in group]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What a right-hand side says without its rows: its scopes; the term of each, and what that is called."""

    scopes: tuple[Scope, ...]
    terms: tuple[Term, ...]
    names: tuple[str, ...]


@lru_cache(maxsize=1024)
def _layout(text: str, factors: frozenset[str]) -> _Layout:
    terms, atoms = expand(text), atoms_of(text)
    flat = [(scope, term) for term, group in zip(terms, scopes(terms, factors), strict=True) for scope in group]
    names = tuple(":".join(atoms[key].name for key in term.atoms) or "Intercept" for _, term in flat)
    return _Layout(tuple(scope for scope, _ in flat), tuple(term for _, term in flat), names)


def _names(scope: Scope, atoms: Mapping[str, TrainedAtom]) -> list[str]:
    if not scope:
        return ["Intercept"]
    fields = [atoms[part.atom].fields(reduced=part.reduced) for part in scope]
    return [":".join(choice) for choice in _choices(fields)]


def _told_apart(names: Iterable[str]) -> tuple[str, ...]:
    """A column that is called as something else is already, such as `Intercept`, appears in backticks."""
    seen: dict[str, None] = {}
    for name in names:
        seen[f"`{name}`" if name in seen else name] = None
    return tuple(seen)


def _refuse_size(layout: _Layout, atoms: Mapping[str, TrainedAtom], rows: int) -> None:
    widths = [prod([_width(atoms[part.atom], part) for part in scope]) for scope in layout.scopes]
    total = sum(widths)
    if 8 * rows * total <= SIZE_LIMIT:
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


def _width(atom: TrainedAtom, part: Part) -> int:
    return atom.width(reduced=part.reduced) if isinstance(atom, FactorAtom) else len(atom.fields(reduced=part.reduced))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.0f} PB"
