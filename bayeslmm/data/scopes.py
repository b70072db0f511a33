"""Which columns of a factor each term needs, so that the terms together have structural full rank.

A factor spans the intercept, so a term `A:B` spans {1, A-, B-, A-:B-}, where A- is A coded beside an intercept. What earlier terms
span is taken off, and what is left is merged by the rule `t + t:A- = t:A`. This is the rule of R, patsy and formulaic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from bayeslmm.data.terms import Term


@dataclass(frozen=True, slots=True)
class Part:
    """A factor within a term: with the columns that it has beside an intercept (`reduced`), or with all its columns."""

    atom: str
    reduced: bool


Scope = tuple[Part, ...]  # a product of parts; () is the intercept


def scopes(terms: tuple[Term, ...], factors: frozenset[str]) -> tuple[tuple[Scope, ...], ...]:
    """For every term the products of parts whose columns it contributes.

    factors : the atoms that are factors; all others are numeric
    """
    # Kept by the atoms as written: `a:b` and `b:a` are equal terms, but their columns have other names.
    return _scopes(tuple(term.atoms for term in terms), factors)


@lru_cache(maxsize=1024)
def _scopes(terms: tuple[tuple[str, ...], ...], factors: frozenset[str]) -> tuple[tuple[Scope, ...], ...]:
    spanned: set[frozenset[Part]] = set()
    result: list[tuple[Scope, ...]] = []
    for term in terms:
        span = [scope for scope in _spanned_by(term, factors) if frozenset(scope) not in spanned]
        spanned.update(map(frozenset, span))
        result.append(tuple(_merged(span)))
    return tuple(result)


def _spanned_by(term: tuple[str, ...], factors: frozenset[str]) -> list[Scope]:
    choices = [((Part(atom, True),), ()) if atom in factors else ((Part(atom, False),),) for atom in term]
    return [tuple(part for chosen in choice for part in chosen) for choice in product(*choices)]


def _merged(scopes: Iterable[Scope]) -> list[Scope]:
    """The scopes with every `t + t:A-` made `t:A`, the first such pair first."""
    done: dict[frozenset[Part], tuple[int, Scope]] = {}
    for place, given in enumerate(sorted(scopes, key=len)):
        scope = given
        while partners := list(_partners(scope, done)):
            _, key, new = min(partners, key=lambda partner: partner[0])
            del done[key]
            scope = tuple(Part(part.atom, False) if part == new else part for part in scope)
        done[frozenset(scope)] = (place, scope)
    return [scope for _, scope in done.values()]


def _partners(scope: Scope, done: dict[frozenset[Part], tuple[int, Scope]]) -> Iterator[tuple[int, frozenset[Part], Part]]:
    """The place and key of each scope that is `scope` without one of its reduced factors, and that factor."""
    parts = frozenset(scope)
    for part in scope:
        key = parts - {part}
        if part.reduced and key in done:
            yield done[key][0], key, part
