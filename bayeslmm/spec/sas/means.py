"""Rows of coefficients on the columns of GLM coding: least-squares means, their differences and slices, ESTIMATE and CONTRAST.

A least-squares mean of an effect gives each column the product of a covariate part (means of the data, or AT values) and a class part:
the classes of the effect are held at their levels, the columns that agree with them share the weight equally (OM: as often as they
occur).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bayeslmm.arrays import Array, frozen
from bayeslmm.errors import SpecificationError
from bayeslmm.spec.sas.effects import GLMEffect, contains
from bayeslmm.spec.sas.glm import ClassLevels, GLMColumn, GLMLayout

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeansSetting:
    """How least-squares means are formed.

    at : covariates at a value; product : products of covariates at the product of the means (AT, AT MEANS), not at their mean
    margins : classes weighted as they occur (OM); bylevel : as they occur within each level of the effect
    """

    at: Mapping[str, float] = field(default_factory=dict)
    product: bool = False
    margins: bool = False
    bylevel: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """The rows of data that means are taken over.

    covariates : continuous variables, (n,) each; classes : the class variables; weights : (n,) or None, of WEIGHT
    """

    classes: Mapping[str, ClassLevels]
    covariates: Mapping[str, Array]
    weights: Array | None = None


def lsmeans_rows(
    layout: GLMLayout, effect: GLMEffect, background: Background, setting: MeansSetting | None = None
) -> tuple[tuple[Labels, ...], Array]:
    """Labels (one text per class variable) and rows (m, P) of the least-squares means of a class effect of the model.

    Raises SpecificationError when the effect is not in the model or has a continuous variable.
    """
    setting = setting or MeansSetting()
    position = layout.position(effect)
    if position is None:
        raise SpecificationError(f"LSMEANS: {effect.name} is not an effect of the MODEL statement", remedy="add it to MODEL")
    if effect.continuous or not effect.classes:
        raise SpecificationError(f"LSMEANS: {effect.name} is not an effect of class variables", remedy="use AT for values of a covariate")
    cells = layout.columns[layout.blocks[position]]
    parts = _covariate_parts(layout, background, setting)
    rows = np.zeros((len(cells), len(layout.columns)))
    for row, cell in zip(rows, cells, strict=True):
        held = dict(zip(effect.classes, cell.codes, strict=True))
        for k, (other, block) in enumerate(zip(layout.effects, layout.blocks, strict=True)):
            columns = layout.columns[block]
            shares = _observed_shares(other, columns, held, background, setting) if setting.margins else _equal_shares(other, columns, held)
            row[block] = parts[k] * shares
    return tuple(cell.labels for cell in cells), frozen(rows)


def _covariate_parts(layout: GLMLayout, background: Background, setting: MeansSetting) -> list[float]:
    """The covariate part of each effect: mean of the product by default, product of AT values and means under AT."""
    product = setting.product or bool(setting.at)
    parts = []
    for effect in layout.effects:
        columns = [background.covariates[name] for name in effect.continuous]
        if product:
            means = [setting.at.get(name, float(x.mean())) for name, x in zip(effect.continuous, columns, strict=True)]
            parts.append(float(np.prod(means)) if means else 1.0)
        else:
            parts.append(float(np.prod(columns, axis=0).mean()) if columns else 1.0)
    return parts


def _equal_shares(effect: GLMEffect, columns: Sequence[GLMColumn], held: Mapping[str, int]) -> Array:
    """Equal weights over the columns that agree with the levels held: first over the nesting combinations, then within each."""
    agree = [all(held.get(name, code) == code for name, code in zip(effect.classes, c.codes, strict=True)) for c in columns]
    nests = [c.codes[: len(effect.nested)] for c in columns]
    count: dict[tuple[int, ...], int] = {}
    for nest, agrees in zip(nests, agree, strict=True):
        if agrees:
            count[nest] = count.get(nest, 0) + 1
    return np.array([1.0 / (len(count) * count[nest]) if agrees else 0.0 for nest, agrees in zip(nests, agree, strict=True)])


def _observed_shares(
    effect: GLMEffect, columns: Sequence[GLMColumn], held: Mapping[str, int], background: Background, setting: MeansSetting
) -> Array:
    """Weights as often as the combinations of the other classes occur in the data, the held ones set to their levels."""
    n = len(next(iter(background.classes.values())).codes)
    weights = np.ones(n) if background.weights is None else background.weights
    if setting.bylevel:
        inside = np.logical_and.reduce([background.classes[name].codes == code for name, code in held.items()])
        weights = np.where(inside, weights, 0.0)
    codes = [np.full(n, held[name]) if name in held else background.classes[name].codes for name in effect.classes]
    total = weights.sum()
    shares = np.zeros(len(columns))
    for i, column in enumerate(columns):
        match = np.ones(n, dtype=np.bool_)
        for here, code in zip(codes, column.codes, strict=True):
            match &= here == code
        shares[i] = weights[match].sum() / total if total > 0 else 0.0
    return shares


def differences(labels: Sequence[Labels], controls: Sequence[str] | None = None) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j) of means to subtract, i - j: all with i < j, or each against the control.

    controls : formatted levels of the control, one per class variable; () takes the first mean; None takes all pairs
    """
    m = len(labels)
    if controls is None:
        return tuple((i, j) for i in range(m) for j in range(i + 1, m))
    target = 0
    if controls:
        wanted = tuple(c.strip() for c in controls)
        if wanted not in labels:
            known = "; ".join(" ".join(label) for label in labels[:20])
            raise SpecificationError(f"DIFF=CONTROL: {' '.join(wanted)} is not a level", remedy=f"the levels are {known}")
        target = list(labels).index(wanted)
    return tuple((i, target) for i in range(m) if i != target)


def slice_groups(effect: GLMEffect, labels: Sequence[Labels], by: GLMEffect) -> tuple[tuple[Labels, tuple[int, ...]], ...]:
    """The means of an effect grouped by the levels of `by`, whose classes are among its own: within each, all are tested equal."""
    if by.continuous or not set(by.classes) <= set(effect.classes):
        raise SpecificationError(f"SLICE={by.name} is not part of {effect.name}", remedy="slice by class variables of the effect")
    at = [effect.classes.index(name) for name in by.classes]
    groups: dict[Labels, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(tuple(label[k] for k in at), []).append(i)
    return tuple((label, tuple(members)) for label, members in groups.items())


def coefficient_row(layout: GLMLayout, given: Mapping[GLMEffect, Sequence[float]]) -> Array:
    """L (P,) of an ESTIMATE: numbers fill the columns of their effect in order; too many are cut, too few are followed by zeros.

    As in SAS, an effect that is not given but contains a given one gets its coefficients spread equally over the columns that agree.
    Raises SpecificationError for an effect that is not in the model.
    """
    row = np.zeros(len(layout.columns))
    for effect, values in given.items():
        position = layout.position(effect)
        if position is None:
            known = ", ".join(e.name for e in layout.effects)
            raise SpecificationError(f"{effect.name} is not an effect of the model", remedy=f"its effects are {known}")
        block = layout.blocks[position]
        size = min(len(values), block.stop - block.start)
        row[block.start : block.start + size] = values[:size]
    for k, effect in enumerate(layout.effects):
        if effect not in given and (source := _largest_contained(layout, effect, given)) is not None:
            row[layout.blocks[k]] = _spread(layout, k, source, row)
    return frozen(row)


def _largest_contained(layout: GLMLayout, effect: GLMEffect, given: Mapping[GLMEffect, Sequence[float]]) -> list[int] | None:
    """Positions of the given effects that this one contains, save those that a larger given one stands for; None if there are none."""
    inside = [e for e in given if contains(effect, e)]
    top = [e for e in inside if not any(contains(other, e) for other in inside)]
    return [layout.effects.index(e) for e in top] or None


def _spread(layout: GLMLayout, target: int, sources: Sequence[int], row: Array) -> Array:
    """Each coefficient of the sources, divided equally among the columns of the target that agree with its column."""
    columns = layout.columns[layout.blocks[target]]
    spread = np.zeros(len(columns))
    for s in sources:
        for j in range(layout.blocks[s].start, layout.blocks[s].stop):
            held = dict(zip(layout.effects[s].classes, layout.columns[j].codes, strict=True))
            spread += row[j] * _equal_shares(layout.effects[target], columns, held) if row[j] else 0.0
    return spread
