"""Model matrices: the terms of a right-hand side, the columns each needs for full rank, encoded for any rows.

The text comes from `bayeslmm.formula`, which has walked and limited it; what stands between the operators (a column, `log(x)`,
`poly(x, 2)`) is an atom and is left to `bayeslmm.data.atoms`.

A factor spans the intercept, so a term `A:B` spans {1, A-, B-, A-:B-}, where A- is A coded beside an intercept. What earlier terms
span is taken off, and what is left is merged by the rule `t + t:A- = t:A`. This is the rule of R, patsy and formulaic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayeslmm._arrays import Array
from bayeslmm.data.columns import Columns
from bayeslmm.data.expressions import Atom, atom_name, read_atom
from bayeslmm.data.variables import EncodedVariable, FactorVariable, Training, encode_variable
from bayeslmm.errors import FormulaError, SizeError

_POWER: dict[str, tuple[int, bool]] = {  # operator -> (binding power, right associative)
    "+": (1, False),
    "-": (1, False),
    "*": (2, False),
    "/": (2, False),
    "%in%": (2, False),
    ":": (3, False),
    "^": (4, True),
    "**": (4, True),
}


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

    def __mul__(self, other: Term) -> Term:
        return Term(tuple(dict.fromkeys((*self.atoms, *other.atoms))))


@lru_cache(maxsize=1024)
def expand_text(text: str) -> tuple[Term, ...]:
    """The terms of a right-hand side, by degree, an implicit intercept first unless the text removes it.

    >>> [term.name for term in expand("0 + a * b")]
    ['a', 'b', 'a:b']
    """
    parser = _Parser(split_text(text), text)
    terms = parser.parse()
    return tuple(sorted(terms, key=lambda term: len(term.atoms)))


TermSequence = dict[Term, None]  # an ordered set
INTERCEPT_TERM = Term(())


class _Parser:
    """Precedence climbing over the tokens; sums know about `0` and `1`."""

    def __init__(self, words: list[str], text: str) -> None:
        self.words, self.text, self.at = [*words, ""], text, 0

    def parse(self) -> TermSequence:
        terms = self._sum(dict.fromkeys([INTERCEPT_TERM]))
        if self.words[self.at]:
            raise self._error(f"{self.words[self.at]!r} is out of place")
        return terms

    def _sum(self, terms: TermSequence) -> TermSequence:
        sign = "+"
        while True:
            while self.words[self.at] in ("+", "-"):
                sign = "-" if (self._next() == "-") != (sign == "-") else "+"
            terms = self._add(terms, sign)
            if self.words[self.at] not in ("+", "-"):
                return terms
            sign = self._next()

    def _add(self, terms: TermSequence, sign: str) -> TermSequence:
        if self.words[self.at] in ("0", "1") and self.words[self.at + 1] in ("+", "-", ")", ""):
            keep = (self._next() == "1") == (sign == "+")
            rest = {term: None for term in terms if term != INTERCEPT_TERM}
            return {INTERCEPT_TERM: None, **rest} if keep else rest
        operand = self._product(2)
        return {**terms, **operand} if sign == "+" else {term: None for term in terms if term not in operand}

    def _product(self, least: int) -> TermSequence:
        left = self._operand()
        while (operator := self.words[self.at]) in _POWER and _POWER[operator][0] >= least:
            power, right_first = _POWER[self._next()]
            combine = _COMBINE.get(operator)
            left = self._raise_to(left) if combine is None else combine(left, self._product(power + (not right_first)))
        return left

    def _raise_to(self, base: TermSequence) -> TermSequence:
        exponent = self._next()
        if not exponent.isdecimal() or int(exponent) < 1:
            raise self._error("an exponent is a positive integer; arithmetic goes inside I()")
        # Step by step, repetitions dropped on the way: ten terms to the eighth are 1,012 terms but 10^8 products.
        return reduce(_interact, [base] * int(exponent))

    def _operand(self) -> TermSequence:
        word = self._next()
        if word == "(":
            inside = self._sum({})
            if self._next() != ")":
                raise self._error("a bracket is not closed")
            return inside
        if word == "1":
            return {INTERCEPT_TERM: None}
        if not word or word in _POWER or word == ")" or word[0].isdigit():
            raise self._error(f"a term is missing before {word!r}" if word else "a term is missing at the end")
        return {Term((word,)): None}

    def _next(self) -> str:
        word = self.words[self.at]
        self.at += bool(word)
        return word

    def _error(self, what: str) -> FormulaError:
        return FormulaError(f"the right-hand side cannot be read: {what}", self.text, "see the formula syntax of lme4")


def _interact(left: Iterable[Term], right: Iterable[Term]) -> TermSequence:
    return dict.fromkeys(a * b for a in left for b in right)


def _cross(left: TermSequence, right: TermSequence) -> TermSequence:
    return {**left, **right, **_interact(left, right)}


def _nest(left: TermSequence, right: TermSequence) -> TermSequence:
    parent = reduce(Term.__mul__, left)
    return {**left, **_interact([parent], right)}


_COMBINE: dict[str, Callable[[TermSequence, TermSequence], TermSequence]] = {
    "*": _cross,
    "/": _nest,
    ":": _interact,
    "%in%": lambda nested, parents: _nest(parents, nested),
}


# ----------------------------------------------------------------------------------------------------------------- words


def split_text(text: str) -> list[str]:
    """Operators, brackets of the algebra, and atoms (a call is one atom, with its brackets)."""
    words: list[str] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter.isspace():
            at += 1
            continue
        end = _operator_end(text, at) or _atom_end(text, at)
        words.append(text[at:end].strip())
        at = end
    return words


def _operator_end(text: str, at: int) -> int:
    for operator in ("%in%", "**"):
        if text.startswith(operator, at):
            return at + len(operator)
    return at + 1 if text[at] in "+-:*/^()" else 0


def _atom_end(text: str, at: int) -> int:
    """The end of a name, a name in backticks, a number, or a name with its bracket."""
    end = at
    if text[at] == "`":
        end = _quote_end(text, at)
    else:
        while end < len(text) and (text[end].isalnum() or text[end] in "_." or text[end] > "\x7f"):
            end += 1
    if end == at:
        raise FormulaError(f"{text[at]!r} cannot be read in a right-hand side", text, "quote strange column names in backticks")
    if end < len(text) and text[end] == "(":
        end = _bracket_end(text, end)
    return end


def _quote_end(text: str, at: int) -> int:
    mark, end = text[at], at + 1
    while end < len(text):
        if text[end] == mark:
            if mark == "`" and text.startswith("``", end):
                end += 2
                continue
            return end + 1
        end += 1
    raise FormulaError("a quotation is not closed", text[at:], f"close it with {mark}")


def _bracket_end(text: str, at: int) -> int:
    depth, end = 0, at
    while end < len(text):
        letter = text[end]
        if letter in "`'\"":
            end = _quote_end(text, end)
            continue
        depth += (letter in "([") - (letter in ")]")
        end += 1
        if depth == 0:
            return end
    raise FormulaError("a bracket is not closed", text[at:], "close it")


@dataclass(frozen=True, slots=True)
class TermPart:
    """A factor within a term: with the columns that it has beside an intercept (`reduced`), or with all its columns."""

    atom: str
    reduced: bool


Scope = tuple[TermPart, ...]  # a product of parts; () is the intercept


def scopes(terms: tuple[Term, ...], factors: frozenset[str]) -> tuple[tuple[Scope, ...], ...]:
    """For every term the products of parts whose columns it contributes.

    factors : the atoms that are factors; all others are numeric
    """
    # Kept by the atoms as written: `a:b` and `b:a` are equal terms, but their columns have other names.
    return _scopes(tuple(term.atoms for term in terms), factors)


@lru_cache(maxsize=1024)
def _scopes(terms: tuple[tuple[str, ...], ...], factors: frozenset[str]) -> tuple[tuple[Scope, ...], ...]:
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
    for place, given in enumerate(sorted(scopes, key=len)):
        scope = given
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
def atoms_of(text: str) -> Mapping[str, Atom]:
    """The atoms of a right-hand side, by their text."""
    return MappingProxyType({text: read_atom(text) for term in expand_text(text) for text in term.atoms})


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

    def encode(self, source: Columns) -> Array:
        """(n, p) float64; NaN where a missing value is felt."""
        out = np.empty((len(source), len(self.names)))
        pieces: dict[TermPart, list[NDArray[Any]]] = {}
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


def train_block(text: str, source: Columns, training: Training) -> DesignBlock:
    """The right-hand side as these rows teach it.

    Errors: those of its atoms; `SizeError` before anything large is built.
    """
    atoms = {key: encode_variable(atom, source, training) for key, atom in atoms_of(text).items()}
    layout = _layout(text, frozenset([key for key, atom in atoms.items() if isinstance(atom, FactorVariable)]))
    _check_size(layout, atoms, len(source))
    names = [_names(scope, atoms) for scope in layout.scopes]
    return DesignBlock(
        layout.scopes,
        atoms,
        _distinguish_names([name for group in names for name in group]),
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
    terms, atoms = expand_text(text), atoms_of(text)
    flat = [(scope, term) for term, group in zip(terms, scopes(terms, factors), strict=True) for scope in group]
    names = tuple(":".join(atoms[key].name for key in term.atoms) or "Intercept" for _, term in flat)
    return _Layout(tuple(scope for scope, _ in flat), tuple(term for _, term in flat), names)


def _names(scope: Scope, atoms: Mapping[str, EncodedVariable]) -> list[str]:
    if not scope:
        return ["Intercept"]
    fields = [atoms[part.atom].fields(reduced=part.reduced) for part in scope]
    return [":".join(choice) for choice in _choices(fields)]


def _distinguish_names(names: Iterable[str]) -> tuple[str, ...]:
    """A column that is called as something else is already, such as `Intercept`, appears in backticks."""
    seen: dict[str, None] = {}
    for name in names:
        seen[f"`{name}`" if name in seen else name] = None
    return tuple(seen)


def _check_size(layout: _Layout, atoms: Mapping[str, EncodedVariable], rows: int) -> None:
    widths = [prod([_width(atoms[part.atom], part) for part in scope]) for scope in layout.scopes]
    total = sum(widths)
    if 8 * rows * total <= MATRIX_BYTES_LIMIT:
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
