"""A right-hand side as columns: trained once, encoded for any rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
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


def atoms_of(text: str) -> dict[str, Atom]:
    """The atoms of a right-hand side, by their text."""
    return {text: read_atom(text) for term in expand(text) for text in term.atoms}


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
    terms = expand(text)
    parsed = atoms_of(text)
    atoms = {key: train_atom(atom, source, training) for key, atom in parsed.items()}
    factors = frozenset(key for key, atom in atoms.items() if isinstance(atom, FactorAtom))
    scoped = scopes(terms, factors)
    _refuse_size(terms, scoped, atoms, len(source))
    flat = [(term, scope) for term, group in zip(terms, scoped, strict=True) for scope in group]
    names = [_names(scope, atoms) for _, scope in flat]
    return Block(
        tuple(scope for _, scope in flat),
        atoms,
        _told_apart(name for group in names for name in group),
        tuple(_term_name(term, parsed) for (term, _), group in zip(flat, names, strict=True) for _ in group),
    )


def _term_name(term: Term, parsed: Mapping[str, Atom]) -> str:
    return ":".join(parsed[key].name for key in term.atoms) or "Intercept"


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


def _refuse_size(terms: tuple[Term, ...], scoped: tuple[tuple[Scope, ...], ...], atoms: Mapping[str, TrainedAtom], rows: int) -> None:
    widths = [sum(prod(_width(atoms[part.atom], part) for part in scope) for scope in group) for group in scoped]
    total = sum(widths)
    if 8 * rows * total <= SIZE_LIMIT:
        return
    widest = terms[int(np.argmax(widths))].name
    raise SizeError(
        f"{total} columns for {rows} rows would take {_bytes(8 * rows * total)}",
        f"term {widest!r} has {max(widths)} columns",
        f"use a random effect for a factor of many levels: (1 | {widest})",
    )


def _width(atom: TrainedAtom, part: Part) -> int:
    return atom.width(reduced=part.reduced) if isinstance(atom, FactorAtom) else len(atom.fields(reduced=part.reduced))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.0f} PB"
