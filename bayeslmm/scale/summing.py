"""Two passes over partitions: the first learns levels and finds the change of columns, the second adds up the cross-products.

A pass more is read where a level of a factor of the fixed effects, or of the left side of a bar, first shows itself after the first
partition with rows: its column must be known before columns can be measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.arrays import frozen, frozen_codes
from bayeslmm.data import checks
from bayeslmm.data.atoms import FactorAtom, Training
from bayeslmm.data.blocks import atoms_of
from bayeslmm.data.build import Assembly, Learnt, Read, demand_rank, refuse_constant
from bayeslmm.data.design import Design, GroupingFactor, OwnFrame
from bayeslmm.data.encoding import Encoding
from bayeslmm.data.expressions import Functions
from bayeslmm.data.plan import Plan, plan
from bayeslmm.data.rows import emptied
from bayeslmm.data.weights import scaled_weights
from bayeslmm.errors import Check, EmptyDataError, FormulaError, PredictionError, SpecificationError
from bayeslmm.likelihood.conditioning import Conditioning, condition
from bayeslmm.likelihood.criterion import one_thread
from bayeslmm.likelihood.crossproducts import Accumulator, add_rows, factors_of
from bayeslmm.likelihood.problem import Problem, summed
from bayeslmm.scale.design import without_rows
from bayeslmm.scale.partitions import Partitions
from bayeslmm.scale.parts import Encoded, Part, encode, parts, rows_design, within
from bayeslmm.scale.survey import Survey
from bayeslmm.scale.triangle import Triangle
from bayeslmm.spec.model import ModelSpec


def sum_partitions(
    spec: ModelSpec,
    partitions: Partitions,
    *,
    relationship: Mapping[str, Any] | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> Problem:
    """The problem of a model whose rows are read in parts; its design is without rows.

    Criterion, estimates and everything that follows from cross-products are those of the rows in memory, whatever their order and however
    they are divided. Memory is that of one partition, of the levels, and of the pairs of levels that occur.

    Errors: those of `build_design`, with the number of the partition; SpecificationError for structured errors, FormulaError for terms
    that learn from all rows at once.

    >>> from bayeslmm.formula import parse_formula
    >>> rows = [{"y": [1.0, 2.5, 2.0], "x": [0, 1, 2], "g": ["a"] * 3}, {"y": [4.0, 3.0, 5.5], "x": [0, 1, 2], "g": ["b"] * 3}]
    >>> problem = sum_partitions(ModelSpec(parse_formula("y ~ x + (1 | g)")), Partitions(rows))
    >>> problem.design.nobs, problem.design.groups
    (6, {'g': 2})
    """
    _refuse_errors(spec)
    beside = tuple(name for name in (spec.weights, spec.offset) if name is not None)
    asked = plan(spec.formula, None, (), beside)
    _refuse_memory(spec, asked)
    reading = _Reading(spec, asked, partitions, dict(relationship or {}), dict(functions or {}))
    with one_thread():
        return reading.problem()


def _refuse_errors(spec: ModelSpec) -> None:
    if spec.residual is not None or spec.variance:
        raise SpecificationError(
            "rows in parts are added up for independent errors only",
            "residual" if spec.residual is not None else "variance",
            "express the correlation by random effects, or fit the model on a frame in memory",
        )


@dataclass(slots=True, eq=False)
class _Measured:
    """What the columns measure: triangles of [X y] and of every Z, the range of the response."""

    border: Triangle = field(default_factory=Triangle)
    blocks: dict[int, Triangle] = field(default_factory=dict)
    largest: float = 0.0
    left: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, columns: Encoded) -> None:
        border, root = columns.border, columns.root
        self.border.add(border, root)
        for i, Z in enumerate(columns.Zs):
            self.blocks.setdefault(i, Triangle()).add(Z, root)
        self.largest = max(self.largest, float(np.abs(columns.y).max()))
        self.left = max(self.left, float(np.abs(border[:, -1]).max()))
        self.low, self.high = min(self.low, float(columns.y.min())), max(self.high, float(columns.y.max()))


@dataclass(slots=True, eq=False)
class _Reading:
    """The passes over the partitions of one model."""

    spec: ModelSpec
    asked: Plan
    partitions: Partitions
    relationship: dict[str, Any]
    functions: Functions
    scale: float = 1.0

    def problem(self) -> Problem:
        survey, learnt, measured = self._first_pass()
        design = _template(self.spec, self.asked, survey, learnt, measured, self.scale)
        conditioning = _conditioned(design, survey, self.scale)
        total, alike = self._sums(design, conditioning)
        problems = checks.unidentified(design.terms, None, survey.kept, design.X, alike)
        notes = _notes(design, learnt, survey, problems)
        known: dict[str, Any] = {"notes": notes, "unidentified": problems if self.spec.check == "error" else ()}
        known |= {} if self.spec.weights is not None else {"weights": None}
        known |= {} if self.spec.offset is not None or self.spec.formula.offsets else {"offset": None}
        spread = float(np.std(design.y))
        rowless = without_rows(design, survey.kept, (measured.largest, spread, measured.left), known)
        return summed(rowless, conditioning, total.finish())

    def _parts(self) -> Any:
        return parts(self.partitions, self.spec, self.asked)

    # -- the first pass ------------------------------------------------------------------------------------------------------------------

    def _first_pass(self) -> tuple[Survey, Learnt, _Measured]:
        survey = Survey(self.asked, tuple(dict.fromkeys(term.group for term in self.spec.formula.random)))
        early: Learnt | None = None
        measured: _Measured | None = _Measured()
        unproven = bool(self.functions)
        for part in self._parts():
            survey.add(part)
            if not len(part):
                continue
            if early is None:
                self.scale = scaled_weights(part.weights)[1]
                early = self._learnt(survey, all_groups=False)
            if measured is not None and not self._measure(measured, part, early):
                measured = None
            if unproven and measured is not None and len(part) > 1:
                _refuse_other_rows(early.encoding, part, self.functions)
                unproven = False
        if early is None:
            raise (
                emptied(survey.dropped, survey.read)
                if survey.dropped
                else EmptyDataError("the partitions have no rows", "", "give data with at least one row per parameter")
            )
        learnt = self._learnt(survey, all_groups=True)
        if measured is None or _columns(early) != _columns(learnt):
            measured = _Measured()
            for part in self._parts():
                if len(part):
                    with within(part.number):
                        measured.add(encode(part, learnt.encoding, self.scale))
        return survey, learnt, measured

    def _measure(self, measured: _Measured, part: Part, early: Learnt) -> bool:
        """Whether the columns are known for all rows of the part."""
        with within(part.number):
            try:
                measured.add(encode(part, early.encoding, self.scale))
            except PredictionError:
                return False
        return True

    def _learnt(self, survey: Survey, *, all_groups: bool) -> Learnt:
        source = survey.roster()
        rows = frozen_codes(np.arange(len(source)))
        known = self.relationship if all_groups else {}
        training = Training(dict(self.spec.contrasts), self.functions)
        spec = self.spec if all_groups else replace(self.spec, relationship=())
        return Assembly(spec, self.asked, Read(source, rows, {}, None, None), training, False, known).learnt()

    # -- the second pass -----------------------------------------------------------------------------------------------------------------

    def _sums(self, design: Design, conditioning: Conditioning) -> tuple[Accumulator, Callable[[GroupingFactor, GroupingFactor], bool]]:
        total = Accumulator.empty(factors_of(design), len(design.kept) + 1, conditioning.maps)
        together = _Together()
        for part in self._parts():
            if len(part):
                with within(part.number):
                    rows = rows_design(design, part, encode(part, design.encoding, self.scale))
                add_rows(total, rows, conditioning)
                together.add(rows)
        return total, together.alike


@dataclass(slots=True, eq=False)
class _Together:
    """Which grouping factors with as many levels have divided all rows alike so far."""

    partners: dict[tuple[str, str], Any] = field(default_factory=dict)

    def add(self, rows: Design) -> None:
        groups = list({term.group.name: term.group for term in rows.terms}.values())
        for i, a in enumerate(groups):
            for b in groups[i + 1 :]:
                if a.size == b.size and self.partners.get((a.name, b.name), 0) is not None:
                    partner = self.partners.setdefault((a.name, b.name), np.full(a.size, -1))
                    known = partner[a.codes]
                    partner[a.codes] = np.where(known < 0, b.codes, known)
                    if (partner[a.codes] != b.codes).any():
                        self.partners[(a.name, b.name)] = None

    def alike(self, a: GroupingFactor, b: GroupingFactor) -> bool:
        pair = (a.name, b.name) if (a.name, b.name) in self.partners else (b.name, a.name)
        return self.partners.get(pair) is not None


# -- what the first pass amounts to ------------------------------------------------------------------------------------------------------


def _columns(learnt: Learnt) -> list[Any]:
    """What decides the columns: names, levels and codings of every block."""
    blocks = [learnt.encoding.fixed_block, *(coder.block for coder in learnt.encoding.random_coders)]
    levels = [[atom.levels for atom in block.atoms.values() if isinstance(atom, FactorAtom)] for block in blocks]
    return [[block.names for block in blocks], levels]


def _refuse_memory(spec: ModelSpec, asked: Plan) -> None:
    """Refuse terms that learn from all rows: they would learn something else in each partition."""
    atoms = [atom for text in (spec.formula.fixed, *(term.left for term in spec.formula.random)) for atom in atoms_of(text).values()]
    for atom in (*atoms, asked.response, *asked.offsets):
        if atom.kind == "stateful":
            raise FormulaError(
                f"{atom.name!r} learns from all rows at once, which are read in parts",
                spec.formula.text,
                "write powers and logarithms, I(x ** 2), or compute the columns beforehand",
            )


def _refuse_other_rows(encoding: Encoding, part: Part, functions: Functions) -> None:
    """Refuse functions of the user's whose values depend on other rows."""
    half = replace(part, source=_first_half(part), weights=None)
    if not np.array_equal(encode(part, encoding).border[: len(half)], encode(half, encoding).border):
        raise FormulaError(
            "a function of the formula depends on other rows, which are read in parts",
            ", ".join(functions),
            "give functions that take each row by itself",
        )


def _first_half(part: Part) -> Any:
    rows = np.arange(part.read) if part.source.rows is None else part.source.rows
    return replace(part.source, rows=rows[: len(rows) // 2], _kept={})


def _template(spec: ModelSpec, asked: Plan, survey: Survey, learnt: Learnt, measured: _Measured, scale: float) -> Design:
    """A design of a few rows that stand for all: their means, squares and products are those of all rows."""
    columns = measured.border.rows()
    everything, y = columns[:, :-1], columns[:, -1]
    refuse_constant(asked.response.name, np.array([measured.low, measured.high]))
    found = demand_rank(learnt.fixed, everything, survey.kept)
    kept, names = found.kept, learnt.fixed.names
    terms = tuple(
        replace(term, Z=frozen(measured.blocks[i].rows()), group=replace(term.group, codes=frozen_codes(np.zeros(0, np.int64))))
        for i, term in enumerate(learnt.terms)
    )
    covariates = {name: survey.covariate(name) for name in learnt.encoding.covariates if name in survey.ranges}
    return Design(
        spec=spec,
        y=frozen(y.copy()),
        X=frozen(everything[:, list(kept)]),
        coef_names=names,
        kept=kept,
        aliased=tuple(name for i, name in enumerate(names) if i not in kept),
        coef_terms=learnt.fixed.terms,
        weights=None,
        offset=None,
        terms=terms,
        residual=None,
        variance=(),
        rows=frozen_codes(np.arange(len(y))),
        n_read=survey.read,
        n_dropped=survey.read - survey.kept,
        dropped=MappingProxyType(survey.dropped),
        index=pd.RangeIndex(len(y)),
        own_frame=OwnFrame(pd.DataFrame(), asked.columns),
        notes=tuple(checks.design_notes(found, names, terms, None)),
        encoding=replace(learnt.encoding, covariates=MappingProxyType(covariates)),
        weight_scale=scale,
    )


def _conditioned(design: Design, survey: Survey, scale: float) -> Conditioning:
    """The change of columns that the rows which stand for all ask for, with what only the weights of all rows know."""
    found = condition(design)
    if design.spec.weights is None:
        return found
    mean = survey.weights / survey.kept / scale
    return replace(found, weight_mean=mean, logdet_weights=survey.log_weights - survey.kept * float(np.log(mean * scale)))


def _notes(design: Design, learnt: Learnt, survey: Survey, problems: Any) -> tuple[Check, ...]:
    source = survey.roster()
    coded = [atom.column for atom in learnt.fixed.atoms.values() if isinstance(atom, FactorAtom)]
    about = checks.column_notes(source, (*survey.asked.factors, *coded), learnt.fixed)
    # the rows kept show every level, not every number
    notes = [*(note for note in about if note.name != "few_integer_values"), *design.notes]
    return tuple(notes if design.spec.check == "error" else [*notes, *checks.as_check(problems)])
