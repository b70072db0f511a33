"""What a spec will ask of a data frame, known before there is one: its atoms, its columns, and how each column is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from bayeslmm.data.blocks import atoms_of
from bayeslmm.data.expressions import Atom, read_atom
from bayeslmm.data.source import Columns
from bayeslmm.data.structures import is_spatial
from bayeslmm.formula.model import Formula, ResidualTerm, VarianceFactor


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """response, offsets : their atoms; columns : every column of the data that the model reads, the response first.

    numbers, factors : columns that are read as such whatever they are; natural : columns whose kind decides
    """

    response: Atom
    offsets: tuple[Atom, ...]
    columns: tuple[str, ...]
    natural: tuple[str, ...]
    numbers: tuple[str, ...]
    factors: tuple[str, ...]

    def roles(self, source: Columns) -> Iterator[tuple[str, bool]]:
        """Each column and whether it is read as a factor."""
        for name in self.numbers:
            yield name, False
        for name in self.factors:
            yield name, True
        for name in self.natural:
            yield name, source.is_factor(name)


@lru_cache(maxsize=256)
def plan(
    formula: Formula,
    residual: ResidualTerm | None,
    variance: tuple[VarianceFactor, ...],
    beside: tuple[str, ...],
) -> Plan:
    """The plan of a model.

    beside : names of the weights and offset columns, where there are such
    """
    response = read_atom(formula.response.strip())
    offsets = tuple(read_atom(text.strip()) for text in formula.offsets)
    atoms = [atom for text in (formula.fixed, *(term.left for term in formula.random)) for atom in atoms_of(text).values()]
    natural = _unique(name for atom in (*atoms, *offsets) if atom.kind != "coding" for name in atom.columns)
    coded = [name for atom in atoms if atom.kind == "coding" for name in atom.columns]
    grouped = [name for term in formula.random for name in term.group]
    numbers, strata = _of_errors(residual, variance)
    visits = () if residual is None or is_spatial(residual.structure) else residual.visit
    factors = _unique((*coded, *grouped, *strata))
    return Plan(
        response=response,
        offsets=offsets,
        columns=_unique((*response.columns, *natural, *visits, *factors, *numbers, *beside)),
        natural=_unique((*natural, *visits)),
        numbers=_unique((*response.columns, *numbers, *beside)),
        factors=factors,
    )


def _of_errors(residual: ResidualTerm | None, variance: tuple[VarianceFactor, ...]) -> tuple[list[str], list[str]]:
    """Columns that the residual structure and the variance function read as numbers, and as factors."""
    numbers = [factor.covariate for factor in variance if factor.kind != "ident" and factor.covariate != "fitted"]
    factors = [name for factor in variance for name in ((factor.covariate,) if factor.kind == "ident" else ()) + factor.group]
    if residual is not None:
        factors += [*residual.subject, *residual.group]
        numbers += residual.visit if is_spatial(residual.structure) else ()
    return numbers, factors


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
