"""The terms of the fixed effects with all indicator columns of their factors, over standardized coefficients: what no coding changes.

Every term is written with all its indicator columns (overparameterised), X_o = X~ T with T (p, all columns). A function of those columns is
estimable just when it is a row a T, and then it is the function a of the standardized coefficients.

A covariate's columns are held about their means too (`centred`): where a term without the covariate is there to take the mean up, they span
the same and are far from collinear with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayeslmm._arrays import Array, Mask
from bayeslmm.data.columns import Columns
from bayeslmm.data.design import Design
from bayeslmm.data.frame import read_table
from bayeslmm.data.identifiability import column_rank
from bayeslmm.data.model_matrix import Term
from bayeslmm.data.origins import Monomial, written_powers
from bayeslmm.data.variables import EncodedVariable, FactorVariable
from bayeslmm.likelihood.standardize import Standardization


@dataclass(frozen=True, slots=True)
class TermEffect:
    """A term with its factors and its covariates, as texts of atoms.

    where : its columns of T; free : positions of those in which no factor is at its first level
    variables : columns of the data that it reads
    widths : for every atom how many columns it has, and whether these are the levels of a factor
    fewer : factors and covariates of the same effect without some of its covariates
    """

    name: str
    factors: frozenset[str]
    covariates: frozenset[str]
    where: slice
    free: tuple[int, ...]
    variables: frozenset[str]
    widths: tuple[tuple[int, bool], ...]
    fewer: frozenset[tuple[frozenset[str], frozenset[str]]]

    def contains(self, other: TermEffect) -> bool:
        """Whether `other` is marginal to this term."""
        return self.covariates == other.covariates and self.factors > other.factors

    @property
    def is_intercept(self) -> bool:
        return not (self.factors or self.covariates)


@dataclass(frozen=True, slots=True, eq=False)
class IndicatorTerms:
    """Effects in the order of the formula (the intercept too), T and its centred form (p, all columns), and X~'X~ (p, p).

    sizes : of the columns of T; moved : which of them are centred where all effects span
    """

    effects: tuple[TermEffect, ...]
    T: Array
    centred: Array
    gram: Array
    sizes: Array
    moved: Mask

    def columns(self, effects: Sequence[TermEffect], spanning: Sequence[TermEffect] | None = None) -> Array:
        """Columns of T of some effects.

        spanning : effects whose span is taken off or is among the columns: a covariate is centred where they take its mean up
        """
        spans = {(e.factors, e.covariates) for e in (effects if spanning is None else spanning)}
        return np.concatenate([np.zeros((len(self.T), 0)), *(self.own(e, spans)[:, e.where] for e in effects)], axis=1)

    def all_but(self, effects: Sequence[TermEffect]) -> tuple[Array, Array]:
        """`columns` of all other effects, and the sizes that they have about no mean."""
        lost = {(e.factors, e.covariates) for e in effects}
        kept, moved = np.ones(self.T.shape[1], np.bool_), self.moved.copy()
        for effect in self.effects:
            if not effect.fewer.isdisjoint(lost):
                moved[effect.where] = False
        for effect in effects:
            kept[effect.where] = False
        return np.where(moved, self.centred, self.T)[:, kept], self.sizes[kept]

    def own(self, effect: TermEffect, spans: set[tuple[frozenset[str], frozenset[str]]]) -> Array:
        """T, or its centred form where the effect is there without each of its covariates."""
        return self.centred if spans.issuperset(effect.fewer) else self.T


def indicator_terms(design: Design, standardization: Standardization) -> IndicatorTerms:
    """Write the design with all indicator columns and find T."""
    frame = design.spanning_frame
    if design.in_memory:
        X = standardization.design_rows(design)
    else:
        X = standardization.rows(design.encoding.encode_fixed(frame)[0][:, list(design.kept)])
    gram = X.T @ X
    raw, about, effects, begin = TermProducts(X), TermProducts(X), [], 0
    called, powers = _names(design), _powers_of(design, frame)
    for term, factors, columns in indicator_columns(design, frame):
        widths = tuple((columns[key].shape[1], key in factors) for key in term.atoms)
        own = column_products(term, columns, len(X))
        moved = {key: values if key in factors else powers.about_means(design, key, values) for key, values in columns.items()}
        raw.add(own)
        about.add(own if len(factors) == len(term.atoms) else column_products(term, moved, len(X)))
        variables = frozenset(name for key in term.atoms for name in design.encoding.fixed_block.atoms[key].columns)
        where = slice(begin, begin + own.shape[1])
        covariates = frozenset(term.atoms) - factors
        choices = product(*([*powers.lower(key), frozenset([key])] for key in sorted(covariates)))
        fewer = frozenset((factors, frozenset[str]().union(*some)) for some in choices) - {(factors, covariates)}
        name = _name(term, called)
        effects.append(TermEffect(name, factors, covariates, where, _free(widths, begin), variables, widths, fewer))
        begin = where.stop
    T, centred = (np.linalg.solve(gram, parts.whole()) for parts in (raw, about))
    if not design.in_memory:
        rows = standardization.rows(design.moments.X)
        gram = rows.T @ rows * (design.nobs / len(rows))
    spans = {(e.factors, e.covariates) for e in effects}
    whole = np.repeat([spans.issuperset(e.fewer) for e in effects], [e.where.stop - e.where.start for e in effects])
    return IndicatorTerms(tuple(effects), T, centred, gram, np.linalg.norm(T, axis=0), whole)


@dataclass(frozen=True, slots=True, eq=False)
class _WrittenPowers:
    """Atoms of the fixed effects such as `I(x ** 2)`: their covariates with powers, and the values of those."""

    of: Mapping[str, Monomial]
    values: Mapping[str, Array]

    def lower(self, key: str) -> list[frozenset[str]]:
        """The atoms that take up what another origin adds to an atom; a text that is none where one is absent."""
        if key not in self.of:
            return [frozenset()]
        every = product(*([(name, k) for k in range(power + 1)] for name, power in sorted(self.of[key])))
        wanted = {frozenset((name, k) for name, k in chosen if k) for chosen in every} - {self.of[key]}
        atoms = {monomial: key for key, monomial in self.of.items()}
        return [frozenset([atoms.get(monomial, f"no {sorted(monomial)}")]) if monomial else frozenset() for monomial in wanted]

    def about_means(self, design: Design, key: str, columns: Array) -> Array:
        """The columns of an atom about their means, or of its covariates about theirs."""
        if sum(power for _, power in self.of.get(key, ())) < 2:
            return columns - design.variable_means(key, columns)
        moved = [(self.values[name] - self.values[name].mean()) ** power for name, power in sorted(self.of[key])]
        return np.asarray(np.prod(moved, axis=0)[:, None])


def _powers_of(design: Design, frame: pd.DataFrame) -> _WrittenPowers:
    block = design.encoding.fixed_block
    source = Columns(read_table(frame, block.columns))
    found = {key: written_powers(atom, source) for key, atom in block.atoms.items()} if design.in_memory else {}
    of = {key: monomial for key, monomial in found.items() if monomial is not None}
    return _WrittenPowers(of, {name: source.numbers(name) for monomial in of.values() for name, _ in monomial})


WAITING_COLUMNS = 64
"""Columns whose products are made together: one by one they would read X as often as there are terms."""


class TermProducts:
    """X'X_o, term by term; the overparameterised columns X_o are not kept."""

    __slots__ = ("X", "parts", "waiting")

    def __init__(self, X: Array) -> None:
        self.X, self.parts, self.waiting = X, [np.zeros((X.shape[1], 0))], list[Array]()

    def add(self, columns: Array) -> None:
        """The columns of the next term."""
        self.waiting.append(columns)
        if sum(own.shape[1] for own in self.waiting) >= WAITING_COLUMNS:
            self._multiply()

    def _multiply(self) -> None:
        if self.waiting:
            self.parts.append(self.X.T @ np.concatenate(self.waiting, axis=1))
            self.waiting.clear()

    def whole(self) -> Array:
        """X'X_o of all terms, (p, columns)."""
        self._multiply()
        return np.concatenate(self.parts, axis=1)


def indicator_columns(design: Design, frame: pd.DataFrame) -> Iterator[tuple[Term, frozenset[str], dict[str, Array]]]:
    """Every term, which of its atoms are factors, and the columns of its atoms over a frame: an indicator per level of a factor."""
    block = design.encoding.fixed_block
    source = Columns(read_table(frame, block.columns))
    for term in map(Term, design.spec.formula.terms):
        factors = frozenset(key for key in term.atoms if is_complete(block.atoms[key]))
        yield term, factors, {key: _all_columns(block.atoms[key], source) for key in term.atoms}


def _free(widths: Sequence[tuple[int, bool]], begin: int) -> tuple[int, ...]:
    """Columns of a product in which no factor is at its first level, the first factor fastest as R has them."""
    shape = [width for width, _ in widths]
    place = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    inner = place[tuple(slice(int(is_factor), None) for _, is_factor in widths)]
    return tuple(int(i) + begin for i in inner.ravel(order="F"))


def _names(design: Design) -> dict[frozenset[str], str]:
    """The parts of every term -> what `coef_terms` calls it."""
    return {frozenset(name.split(":")): name for name in reversed(design.coef_terms)}


def _name(term: Term, called: dict[frozenset[str], str]) -> str:
    return called.get(frozenset(term.name.split(":")), term.name) if term.atoms else "Intercept"


def is_complete(atom: EncodedVariable) -> bool:
    """Whether an atom is a factor whose own coding spans all its levels beside an intercept."""
    if not isinstance(atom, FactorVariable):
        return False
    if atom.coding.matrix is None:
        return True
    K = len(atom.levels)
    return len(column_rank(np.column_stack([np.ones(K), atom.coding.matrix]), intercept=True).kept) == K


def _all_columns(atom: EncodedVariable, source: Columns) -> Array:
    """The columns of an atom: an indicator per level of a factor."""
    reduced = not is_complete(atom)
    return np.column_stack([np.asarray(piece, float) for piece in atom.pieces(source, reduced=reduced)])


def column_products(term: Term, columns: dict[str, Array], n: int) -> Array:
    """All columns of a term over the rows, (n, width)."""

    def times(left: Array, right: Array) -> Array:
        return (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)

    return reduce(times, [columns[key] for key in term.atoms]) if term.atoms else np.ones((n, 1))


def column_units(design: Design, standardization: Standardization) -> tuple[Array, NDArray[np.bool_], frozenset[str]]:
    """Typical size (p,) of what is outside the columns before each of those kept, and which belong to terms with a covariate.

    Third, the names of the terms that have a factor.

    The products of covariates with a factor have one size.
    """
    size = 1.0 / np.abs(np.diagonal(standardization.B))
    names, slopes = np.array(design.coef_terms)[list(design.kept)], np.zeros(len(size), bool)
    factorial, called = set(), _names(design)
    for term in map(Term, design.spec.formula.terms):
        factors = [is_complete(design.encoding.fixed_block.atoms[key]) for key in term.atoms]
        name = _name(term, called)
        own = names == name
        if any(factors):
            factorial.add(name)
        slopes |= own & (not all(factors))
        if own.any() and any(factors) and not all(factors):
            size[own] = size[own].max()
    return size, slopes, frozenset(factorial)
