"""Rows of coefficients on the columns of GLM coding: least-squares means, types 1 to 3, ESTIMATE and CONTRAST.

A least-squares mean of an effect gives each column the product of a covariate part (means of the data, or AT values) and a class part:
the classes of the effect are held at their levels, the columns that agree with them share the weight equally (OM: as often as they
occur).

Type 1 tests an effect adjusted for those before it; type 2 for all that do not contain it; type 3 by estimable functions that do not
involve effects that do not contain it, and that are orthogonal to those that involve only effects containing it (SAS/STAT, "The Four
Types of Estimable Functions"). Each matrix is (m, P), m being the numerator degrees of freedom; m = 0 where nothing is left to test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bayeslmm._arrays import Array, Mask, freeze
from bayeslmm.errors import SpecificationError
from bayeslmm.sas.glm_coding import ClassLevels, GLMColumn, GLMLayout, RowSpace
from bayeslmm.sas.language.effects import GLMEffect, contains

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
    """The rows of data that means are taken over: those without a response too, as far as their cells are in the model.

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
    return tuple(cell.labels for cell in cells), freeze(rows)


def _covariate_parts(layout: GLMLayout, background: Background, setting: MeansSetting) -> list[float]:
    """The covariate part of each effect: mean of the product by default, product of AT values and weighted means under AT."""
    product, weights = setting.product or bool(setting.at), background.weights
    parts = []
    for effect in layout.effects:
        columns = [background.covariates[name] for name in effect.continuous]
        if product:
            means = [
                setting.at.get(name, float(np.average(x, weights=weights))) for name, x in zip(effect.continuous, columns, strict=True)
            ]
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


def coefficient_row(layout: GLMLayout, coefficients: Mapping[GLMEffect, Sequence[float]]) -> Array:
    """L (P,) of an ESTIMATE: numbers fill the columns of their effect in order; too many are cut, too few are followed by zeros.

    As in SAS, an effect that is not given but contains a given one gets its coefficients spread equally over the columns that agree.
    Raises SpecificationError for an effect that is not in the model.
    """
    row = np.zeros(len(layout.columns))
    for effect, values in coefficients.items():
        position = layout.position(effect)
        if position is None:
            known = ", ".join(e.name for e in layout.effects)
            raise SpecificationError(f"{effect.name} is not an effect of the model", remedy=f"its effects are {known}")
        block = layout.blocks[position]
        size = min(len(values), block.stop - block.start)
        row[block.start : block.start + size] = values[:size]
    for k, effect in enumerate(layout.effects):
        if effect not in coefficients and (source := _largest_contained(layout, effect, coefficients)) is not None:
            row[layout.blocks[k]] = _spread(layout, k, source, row)
    return freeze(row)


def _largest_contained(layout: GLMLayout, effect: GLMEffect, coefficients: Mapping[GLMEffect, Sequence[float]]) -> list[int] | None:
    """Positions of the given effects that this one contains, save those that a larger given one stands for; None if there are none."""
    inside = [e for e in coefficients if contains(effect, e)]
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


_NEGLIGIBLE = 1e-9


def hypothesis(layout: GLMLayout, space: RowSpace, effect: int, kind: int) -> Array:
    """L (m, P) of the test of one effect; kind is 1, 2 or 3.

    effect : position in `layout.effects`
    """
    units = _effect_units(layout)
    shift = layout.shift.multiply(units[:, None]).multiply(1.0 / units).tocsr()
    scaled = replace(layout, X=layout.X / units, near=layout.near / units, shift=shift)
    change = units[space.kept][:, None] / units
    within = replace(space, near=space.near * change, C=space.C * change)
    L = _type1(scaled, within, effect) if kind == 1 else _type2(scaled, effect) if kind == 2 else _type3(scaled, within, effect)
    return freeze(L * (units / units[layout.blocks[effect].start]))


def _effect_units(layout: GLMLayout) -> Array:
    """(P,) what the columns of each effect are measured in, a power of 2: what is rounding is judged beside columns of size 1."""
    units = np.ones(len(layout.columns))
    for block in layout.blocks:
        values = layout.X[:, block]
        seen = values[values != 0.0]
        if seen.size:
            units[block] = 2.0 ** np.round(np.log2(np.sqrt(np.mean(np.square(seen)))))
    return units


def _type1(layout: GLMLayout, space: RowSpace, effect: int) -> Array:
    """The effect's rows of the triangle of the kept columns: sums of squares in the order of the model."""
    R = np.linalg.qr(layout.near[:, space.kept], mode="r") @ space.moves(layout)
    block = layout.blocks[effect]
    mine = (space.kept >= block.start) & (space.kept < block.stop)
    rows = R[mine] / np.diag(R)[mine][:, None]
    return _tidy(np.asarray(rows @ space.C))


def _type2(layout: GLMLayout, effect: int) -> Array:
    """X_E' M [X_E X_F]: M projects on what the effects that do not contain E leave, X_F are the columns of those that contain it."""
    others, containing = _split_sides(layout, effect)
    block = layout.blocks[effect]
    moved = _movable_columns(layout, others)
    Q = _orthonormal(np.where(moved, layout.near, layout.X)[:, others])
    mine = np.where(moved, layout.near, layout.X)[:, block]
    left = mine - Q @ (Q.T @ mine)
    U = _orthonormal(left, np.sqrt(np.einsum("ij,ij->j", mine, mine)))
    L = np.zeros((U.shape[1], layout.X.shape[1]))
    L[:, block], L[:, containing] = U.T @ left, U.T @ layout.X[:, containing]
    return _hermite(L, block)


def _movable_columns(layout: GLMLayout, others: Mask) -> Mask:
    """The columns whose origins may be taken off beside these others: what makes up for them is among the others, and moved itself."""
    moved = np.zeros(len(others), dtype=np.bool_)
    shift = layout.shift.tocsc()
    for j in range(len(others)):
        homes = shift.indices[shift.indptr[j] : shift.indptr[j + 1]]
        homes = homes[homes != j]
        moved[j] = bool((others & moved)[homes].all())
    return moved


def _type3(layout: GLMLayout, space: RowSpace, effect: int) -> Array:
    others, containing = _split_sides(layout, effect)
    rows = space.C
    free = _left_null(rows[:, others]) @ rows
    if containing.any():
        only = _left_null(free[:, layout.blocks[effect]]) @ free
        Q = _orthonormal(only.T)
        free = free - (free @ Q) @ Q.T
    return _hermite(_independent(free, 1.0), layout.blocks[effect])


def _split_sides(layout: GLMLayout, effect: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the columns of the other effects: those that do not contain this one, those that do."""
    others = np.zeros(len(layout.columns), dtype=np.bool_)
    containing = others.copy()
    for k, (other, block) in enumerate(zip(layout.effects, layout.blocks, strict=True)):
        if k != effect:
            side = containing if contains(other, layout.effects[effect]) else others
            side[block] = True
    return others, containing


def _orthonormal(A: Array, of: Array | None = None) -> Array:
    """An orthonormal basis of the columns of A. of : what each column is judged beside; its own length if not given"""
    if A.size == 0:
        return np.zeros((A.shape[0], 0))
    length = np.sqrt(np.einsum("ij,ij->j", A, A)) if of is None else of
    U, s, _ = np.linalg.svd(A[:, length > 0] / length[length > 0], full_matrices=False)
    return np.asarray(U[:, s > _NEGLIGIBLE * (s.max(initial=0.0) if of is None else 1.0)])


def _left_null(A: Array) -> Array:
    """Rows N, orthonormal, with N A = 0."""
    if A.shape[1] == 0:
        return np.eye(A.shape[0])
    length = np.abs(A).max(axis=0, initial=0.0)
    U, s, _ = np.linalg.svd(A / np.where(length > 0, length, 1.0))
    rank = int((s > _NEGLIGIBLE * s.max(initial=0.0)).sum())
    return np.asarray(U[:, rank:].T)


def _independent(L: Array, scale: float) -> Array:
    """As many rows as the rank, spanning the rows of L; what is below 1e-9 of the scale is rounding."""
    if L.size == 0:
        return np.zeros((0, L.shape[1]))
    _, s, Vt = np.linalg.svd(L, full_matrices=False)
    return np.asarray(Vt[s > _NEGLIGIBLE * max(scale, s.max(initial=0.0))])


def _hermite(L: Array, block: slice) -> Array:
    """The same rows in echelon form on the columns of the effect, as SAS prints them: each starts with a 1 where the others have 0."""
    L = L.copy()
    row = 0
    for column in range(block.start, block.stop):
        if row == len(L):
            break
        pivot = row + int(np.argmax(np.abs(L[row:, column])))
        if abs(L[pivot, column]) > _NEGLIGIBLE:
            L[[row, pivot]] = L[[pivot, row]]
            L[row] /= L[row, column]
            rest = np.arange(len(L)) != row
            L[rest] -= np.outer(L[rest, column], L[row])
            row += 1
    return _tidy(L)


def _tidy(L: Array) -> Array:
    return np.where(np.abs(L) < 1e-12, 0.0, L)
