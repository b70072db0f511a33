"""Which columns of a factor each term needs, so that the terms together have structural full rank.

A factor spans the intercept, so a term `A:B` spans {1, A-, B-, A-:B-}, where A- is A coded beside an intercept. What earlier terms
span is taken off, and what is left is merged by the rule `t + t:A- = t:A`. This is the rule of R, patsy and formulaic.
"""

from __future__ import annotations

from collections.abc import Iterable
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


@lru_cache(maxsize=1024)
def scopes(terms: tuple[Term, ...], factors: frozenset[str]) -> tuple[tuple[Scope, ...], ...]:
    """For every term the products of parts whose columns it contributes.

    factors : the atoms that are factors; all others are numeric
    """
    spanned: set[frozenset[Part]] = set()
    result: list[tuple[Scope, ...]] = []
    for term in terms:
        span = [scope for scope in _spanned_by(term, factors) if frozenset(scope) not in spanned]
        spanned.update(map(frozenset, span))
        result.append(tuple(_merged(span)))
    return tuple(result)


def _spanned_by(term: Term, factors: frozenset[str]) -> list[Scope]:
    choices = [((Part(atom, True),), ()) if atom in factors else ((Part(atom, False),),) for atom in term.atoms]
    return [tuple(part for chosen in choice for part in chosen) for choice in product(*choices)]


def _merged(scopes: Iterable[Scope]) -> list[Scope]:
    done: list[Scope] = []
    for scope in sorted(scopes, key=len):
        partner = next((other for other in done if _absorbs(scope, other)), None)
        if partner is None:
            done.append(scope)
            continue
        new = next(iter(set(scope) - set(partner)))
        widened = tuple(Part(part.atom, False) if part == new else part for part in scope)
        done = _merged([*(other for other in done if other != partner), widened])
    return done


def _absorbs(scope: Scope, other: Scope) -> bool:
    """Whether `other + scope` is `scope` with one of its factors in full."""
    extra = set(scope) - set(other)
    return len(scope) == len(other) + 1 and len(extra) == 1 and next(iter(extra)).reduced
