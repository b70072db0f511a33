"""The parts of a formula as frozen values: fixed part, bar terms, residual structure, variance function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Terms = tuple[tuple[str, ...], ...]
"""The terms of a right-hand side by degree, the factors of each as text; () is the intercept."""

VarianceKind = Literal["ident", "power", "exp", "const_power"]


@dataclass(frozen=True, slots=True)
class BarTerm:
    """One random-effects term `(left | group)`, after `||`, `/` and `*` have been expanded.

    structure : covariance of the term's columns: "us" unless a wrapper says otherwise, e.g. "diag", "cs", "ar1", "us@ar1"
    order : number of bands or factors, as in `toep(0 + visit | g, 2)`; None when the structure has none
    left : right-hand-side text of the columns, in formulaic's syntax: "1 + Days", "0 + Machine"
    group : columns whose interaction is the grouping factor, bare names: ("batch", "cask")
    text : the term as lme4 would print it: "1 + Days | Subject"
    terms : the terms of `left` by degree, the factors of each as text: ((), ("Days",)); () is the intercept
    """

    structure: str
    order: int | None
    left: str
    group: tuple[str, ...]
    text: str
    terms: Terms

    @property
    def name(self) -> str:
        """Name of the grouping factor: "batch:cask"."""
        return ":".join(self.group)


@dataclass(frozen=True, slots=True)
class Formula:
    """A two-sided formula taken apart.

    response : text of the left side: "log(y)"
    fixed : right-hand-side text without bars and offsets, always with its intercept spelled: "1 + Days", "0 + x"
    random : the bar terms, in the order written
    offsets : the expressions inside `offset(...)`
    text : the formula as given, runs of white space made one
    terms : the terms of `fixed` by degree, the factors of each as text: ((), ("x",), ("x", "log(z)")); () is the intercept
    """

    response: str
    fixed: str
    random: tuple[BarTerm, ...]
    offsets: tuple[str, ...]
    text: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class ResidualTerm:
    """A covariance structure of the errors within a subject: `us(AVISIT | ARMCD / USUBJID)`.

    structure : "us", "ar1", "sp_exp", "us@ar1", ...
    order : number of bands or factors, as in `toep(VISIT | ID, 2)`; None when the structure has none
    visit : columns before the bar (visits, coordinates, or outcome and visit); () is the literal 1: the order of the rows
    subject : columns whose interaction is the subject
    group : columns whose levels have parameters of their own; () when all subjects share them
    nugget : True for `... + local`: sigma^2 I is added
    text : the canonical text
    """

    structure: str
    order: int | None
    visit: tuple[str, ...]
    subject: tuple[str, ...]
    group: tuple[str, ...]
    nugget: bool
    text: str


@dataclass(frozen=True, slots=True)
class VarianceFactor:
    """One factor of a variance function of the residual sd.

    kind : "ident" (a sd per level), "power" (|v|^d), "exp" (exp(d v)), "const_power" (c + |v|^d)
    covariate : a column, or "fitted" for the fitted value
    group : columns with a parameter per level; () if none
    """

    kind: VarianceKind
    covariate: str
    group: tuple[str, ...]
