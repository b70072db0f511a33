"""GLM coding, estimable functions, hypotheses and least-squares means, against their definitions by other routes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from bayeslmm.errors import DataError, SpecificationError
from bayeslmm.sas.glm_coding import (
    ClassLevels,
    GLMLayout,
    bridge,
    class_levels,
    estimable,
    format_level,
    glm_columns,
    row_space,
    rows_on_our_columns,
)
from bayeslmm.sas.hypotheses import (
    Background,
    MeansSetting,
    coefficient_row,
    differences,
    hypothesis,
    lsmeans_rows,
    slice_groups,
)
from bayeslmm.sas.language.effects import GLMEffect
from bayeslmm.sas.language.program import ClassVariable

Array = NDArray[np.float64]

A, B = GLMEffect((), ("a",)), GLMEffect((), ("b",))
AB, NESTED = GLMEffect((), ("a", "b")), GLMEffect((), ("b",), ("a",))
X, XA = GLMEffect(("x",)), GLMEffect(("x",), ("a",))
INTERCEPT = GLMEffect()


class Data:
    """An unbalanced two-way layout with a covariate, every cell filled unless cells are taken out."""

    def __init__(self, drop: Sequence[tuple[int, int]] = (), n: int = 90) -> None:
        rng = np.random.default_rng(20240501)
        a, b = rng.integers(1, 4, n), rng.integers(1, 3, n)
        keep = np.array([(i, j) not in drop for i, j in zip(a, b, strict=True)])
        self.a, self.b = a[keep], b[keep]
        self.n = len(self.a)
        self.x = rng.normal(5, 2, n)[keep]
        self.y = rng.normal(size=n)[keep] + self.a + self.b * self.a + 0.3 * self.x
        self.classes = {"a": class_levels(ClassVariable("a"), self.a), "b": class_levels(ClassVariable("b"), self.b)}

    def layout(self, *effects: GLMEffect, intercept: bool = True) -> GLMLayout:
        return glm_columns(effects, self.classes, {"x": self.x}, self.n, intercept=intercept)

    @property
    def background(self) -> Background:
        return Background(self.classes, {"x": self.x})


def rss(X: Array, y: Array) -> float:
    fitted = X @ np.linalg.lstsq(X, y, rcond=None)[0] if X.shape[1] else 0.0
    return float(((y - fitted) ** 2).sum())


def sum_of_squares(layout: GLMLayout, y: Array, L: Array) -> float:
    """(L b)' (L (X'X)^- L')^-1 (L b) of ordinary least squares."""
    inverse = np.linalg.pinv(layout.X.T @ layout.X)
    estimate = L @ inverse @ layout.X.T @ y
    return float(estimate @ np.linalg.solve(L @ inverse @ L.T, estimate))


def test_levels_are_sorted_as_sas_sorts_them() -> None:
    assert class_levels(ClassVariable("t"), [10, 9.0, 100, 9]).levels == ("9", "10", "100")
    assert class_levels(ClassVariable("t"), ["b", "B", "a10", "a9 "]).levels == ("B", "a10", "a9", "b")
    assert class_levels(ClassVariable("t"), ["z", None, "m", "z", "", float("nan")]).codes.tolist() == [1, -1, 0, 1, -1, -1]
    assert class_levels(ClassVariable("t"), ["z", "a", "m", "a"], "data").levels == ("z", "a", "m")
    assert class_levels(ClassVariable("t"), ["z", "a", "m", "m"], "freq").levels == ("m", "a", "z")
    assert class_levels(ClassVariable("t"), ["lo", "hi", "mid"], "internal", ["lo", "mid", "hi"]).levels == ("lo", "mid", "hi")


def test_the_reference_level_moves_to_the_end() -> None:
    assert class_levels(ClassVariable("t", "value", "b"), ["a", "b", "c"]).levels == ("a", "c", "b")
    assert class_levels(ClassVariable("t", "first"), [3, 1, 2]).levels == ("2", "3", "1")
    with pytest.raises(DataError, match="REF='q' is not a level of t"):
        class_levels(ClassVariable("t", "value", "q"), ["a", "b"])


def test_columns_stand_in_the_order_of_sas() -> None:
    layout = Data().layout(A, B, AB, X, XA)
    assert [c.labels for c in layout.columns[layout.blocks[3]]] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"), ("3", "1"), ("3", "2")]
    assert [e.name for e in layout.effects] == ["Intercept", "a", "b", "a*b", "x", "x*a"]
    nested = Data().layout(A, NESTED)
    assert nested.effects[2].name == "b(a)"
    assert [c.labels for c in nested.columns[nested.blocks[2]]][:3] == [("1", "1"), ("1", "2"), ("2", "1")]


def test_combinations_that_do_not_occur_have_columns_in_z_alone() -> None:
    data = Data(drop=[(2, 1)])
    assert len(data.layout(A, B, AB).columns) == 1 + 3 + 2 + 5
    assert len(glm_columns([AB], data.classes, {}, data.n, intercept=False, empty=True).columns) == 6


def test_the_last_levels_are_the_reference() -> None:
    data = Data()
    layout = data.layout(A, B, AB)
    space = row_space(layout)
    assert space.kept.tolist() == [0, 1, 2, 4, 6, 8]
    # Our coefficients are cell means here; SAS's follow from them.
    cells = layout.X[:, layout.blocks[3]]
    means = np.linalg.lstsq(cells, data.y, rcond=None)[0]
    T, P = bridge(layout, space, cells), layout.X.shape[1]
    b = rows_on_our_columns(space, T, np.eye(P)) @ means
    kept = np.isin(np.arange(P), space.kept)
    assert b[0] == pytest.approx(means[5])
    assert b[1] == pytest.approx(means[1] - means[5])
    assert b[6] == pytest.approx(means[0] - means[1] - means[4] + means[5])
    assert b[~kept].tolist() == [0.0] * 6


def test_the_bridge_takes_rows_to_our_coefficients() -> None:
    data = Data()
    layout = data.layout(A, X, XA)
    space = row_space(layout)
    ours = layout.X[:, [1, 2, 3, 5, 6, 7]] @ np.triu(np.ones((6, 6)))
    T = bridge(layout, space, ours)
    alpha = np.linalg.lstsq(ours, data.y, rcond=None)[0]
    b = rows_on_our_columns(space, T, np.eye(layout.X.shape[1])) @ alpha
    L = hypothesis(layout, space, 3, 3)
    np.testing.assert_allclose(rows_on_our_columns(space, T, L) @ alpha, L @ b, rtol=1e-9)
    np.testing.assert_allclose(layout.X @ b, ours @ alpha, rtol=1e-9)


def test_a_bridge_between_different_spaces_is_refused() -> None:
    layout = Data().layout(A)
    with pytest.raises(DataError, match="do not span the same space"):
        bridge(layout, row_space(layout), layout.X[:, :2])


@pytest.mark.parametrize("scale", [1.0, 1e8, 1e-8])
def test_scales_of_covariates_do_not_change_what_depends_on_what(scale: float) -> None:
    data = Data()
    data.x = data.x * scale
    layout = data.layout(A, X, XA)
    space = row_space(layout)
    assert space.kept.tolist() == [0, 1, 2, 4, 5, 6]
    assert [hypothesis(layout, space, k, t).shape[0] for t in (1, 2, 3) for k in (1, 2, 3)] == [2, 1, 2] * 3


def test_type_1_is_the_sequence_of_models() -> None:
    data = Data()
    layout = data.layout(A, X, B, AB, XA)
    space = row_space(layout)
    for k in range(1, 6):
        stop = layout.blocks[k].stop
        before = rss(layout.X[:, : layout.blocks[k].start], data.y) - rss(layout.X[:, :stop], data.y)
        assert sum_of_squares(layout, data.y, hypothesis(layout, space, k, 1)) == pytest.approx(before, rel=1e-8)


def test_type_2_adjusts_for_all_that_does_not_contain_the_effect() -> None:
    data = Data()
    layout = data.layout(A, B, AB, X)
    space = row_space(layout)
    block = {e.name: layout.X[:, s] for e, s in zip(layout.effects, layout.blocks, strict=True)}
    one, a, b, ab, x = (block[name] for name in ("Intercept", "a", "b", "a*b", "x"))
    expected = {1: ([one, b, x], [one, a, b, x]), 3: ([one, a, b, x], [one, a, b, ab, x]), 4: ([one, a, b, ab], [one, a, b, ab, x])}
    for k, (small, large) in expected.items():
        gain = rss(np.hstack(small), data.y) - rss(np.hstack(large), data.y)
        assert sum_of_squares(layout, data.y, hypothesis(layout, space, k, 2)) == pytest.approx(gain, rel=1e-8)


def test_a_factor_is_not_contained_in_its_interaction_with_a_covariate() -> None:
    data = Data()
    layout = data.layout(A, X, XA)
    space = row_space(layout)
    np.testing.assert_allclose(hypothesis(layout, space, 1, 2), hypothesis(layout, space, 1, 3), atol=1e-9)
    assert np.abs(hypothesis(layout, space, 2, 2) - hypothesis(layout, space, 2, 3)).max() > 0.01  # x is contained in x*a


def test_type_3_weighs_cells_equally_where_all_are_filled() -> None:
    data = Data()
    layout = data.layout(A, B, AB)
    space = row_space(layout)
    expected = [[0, 1, 0, -1, 0, 0, 0.5, 0.5, 0, 0, -0.5, -0.5], [0, 0, 1, -1, 0, 0, 0, 0, 0.5, 0.5, -0.5, -0.5]]
    np.testing.assert_allclose(hypothesis(layout, space, 1, 3), expected, atol=1e-12)


def test_type_3_is_what_sum_to_zero_coding_tests() -> None:
    data = Data()
    layout = data.layout(A, B, AB, X)
    space = row_space(layout)
    a = np.array([[1.0, 0], [0, 1], [-1, -1]])[data.classes["a"].codes]
    b = np.array([[1.0], [-1]])[data.classes["b"].codes]
    parts = {"one": np.ones((data.n, 1)), "a": a, "b": b, "ab": a * b, "x": data.x[:, None]}
    full = rss(np.hstack(list(parts.values())), data.y)
    for k, name in ((1, "a"), (2, "b"), (3, "ab"), (4, "x")):
        gain = rss(np.hstack([p for n, p in parts.items() if n != name]), data.y) - full
        assert sum_of_squares(layout, data.y, hypothesis(layout, space, k, 3)) == pytest.approx(gain, rel=1e-8)


def test_type_3_with_an_empty_cell_stays_estimable_and_orthogonal() -> None:
    data = Data(drop=[(2, 1)])
    layout = data.layout(A, B, AB)
    space = row_space(layout)
    L = hypothesis(layout, space, 1, 3)
    assert L.shape[0] == 2
    assert estimable(space, L).all()
    assert not L[:, layout.blocks[2]].any()
    np.testing.assert_allclose(L @ hypothesis(layout, space, 3, 3).T, 0, atol=1e-12)


def test_nested_effects_share_the_space_of_the_interaction() -> None:
    data = Data()
    assert row_space(data.layout(A, NESTED)).rank == row_space(data.layout(A, B, AB)).rank == 6


def test_means_weigh_other_classes_equally_and_take_covariates_at_their_mean() -> None:
    data = Data()
    layout = data.layout(A, B, AB, X, XA)
    labels, L = lsmeans_rows(layout, A, data.background)
    mean = data.x.mean()
    assert labels == (("1",), ("2",), ("3",))
    np.testing.assert_allclose(L[0], [1, 1, 0, 0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, mean, mean, 0, 0])
    assert estimable(row_space(layout), L).all()


def test_means_of_nested_effects_weigh_the_nests_equally() -> None:
    school = class_levels(ClassVariable("a"), [1, 1, 1, 2, 2])
    room = class_levels(ClassVariable("b"), [1, 2, 3, 1, 2])
    trt = class_levels(ClassVariable("t"), [1, 2, 1, 2, 1])
    classes = {"a": school, "b": room, "t": trt}
    layout = glm_columns([GLMEffect((), ("t",)), A, NESTED], classes, {}, 5)
    _, L = lsmeans_rows(layout, GLMEffect((), ("t",)), Background(classes, {}))
    np.testing.assert_allclose(L[0], [1, 1, 0, 1 / 2, 1 / 2, 1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4])


def test_values_at_which_means_are_taken() -> None:
    data = Data()
    square = GLMEffect(("x", "x"))
    layout = data.layout(A, X, square)
    _, plain = lsmeans_rows(layout, A, data.background)
    _, at = lsmeans_rows(layout, A, data.background, MeansSetting(at={"x": 3.0}))
    _, product = lsmeans_rows(layout, A, data.background, MeansSetting(product=True))
    assert plain[0, -2:].tolist() == pytest.approx([data.x.mean(), (data.x**2).mean()])
    assert at[0, -2:].tolist() == [3.0, 9.0]
    assert product[0, -2:].tolist() == pytest.approx([data.x.mean(), data.x.mean() ** 2])


def test_observed_margins_weigh_other_classes_as_they_occur() -> None:
    data = Data()
    layout = data.layout(A, B)
    share = float((data.b == 1).mean())
    _, L = lsmeans_rows(layout, A, data.background, MeansSetting(margins=True))
    np.testing.assert_allclose(L[1], [1, 0, 1, 0, share, 1 - share])
    within = float((data.b[data.a == 2] == 1).mean())
    _, L = lsmeans_rows(layout, A, data.background, MeansSetting(margins=True, bylevel=True))
    np.testing.assert_allclose(L[1], [1, 0, 1, 0, within, 1 - within])


def test_means_over_an_empty_cell_are_not_estimable() -> None:
    data = Data(drop=[(2, 1)])
    layout = data.layout(A, B, AB)
    _, L = lsmeans_rows(layout, A, data.background)
    assert estimable(row_space(layout), L).tolist() == [True, False, True]
    with pytest.raises(SpecificationError, match="x is not an effect of the MODEL"):
        lsmeans_rows(layout, X, data.background)


def test_differences_slices_and_controls() -> None:
    labels = (("1", "p"), ("1", "q"), ("2", "p"), ("2", "q"))
    assert differences(labels)[:3] == ((0, 1), (0, 2), (0, 3))
    assert differences(labels, ()) == ((1, 0), (2, 0), (3, 0))
    assert differences(labels, ("2", "p")) == ((0, 2), (1, 2), (3, 2))
    with pytest.raises(SpecificationError, match="is not a level"):
        differences(labels, ("3", "p"))
    assert slice_groups(AB, labels, B) == ((("p",), (0, 2)), (("q",), (1, 3)))
    with pytest.raises(SpecificationError, match="is not part of"):
        slice_groups(A, labels, B)


def test_coefficients_fill_the_columns_of_their_effect_and_spread_to_those_that_contain_it() -> None:
    data = Data()
    layout = data.layout(A, B, AB)
    space = row_space(layout)
    row = coefficient_row(layout, {A: (1, -1)})
    assert row.tolist() == [0, 1, -1, 0, 0, 0, 0.5, 0.5, -0.5, -0.5, 0, 0]
    given = coefficient_row(layout, {A: (1, -1, 0, 9), AB: (1, 0, -1)})
    assert given.tolist() == [0, 1, -1, 0, 0, 0, 1, 0, -1, 0, 0, 0]
    assert estimable(space, np.stack([row, given, coefficient_row(layout, {AB: (1,)})])).tolist() == [True, True, False]
    mean = coefficient_row(layout, {INTERCEPT: (1,)})
    np.testing.assert_allclose(mean, [1, *[1 / 3] * 3, *[1 / 2] * 2, *[1 / 6] * 6])
    with pytest.raises(SpecificationError, match="x is not an effect of the model"):
        coefficient_row(layout, {X: (1,)})


def test_a_model_without_anything_but_an_intercept() -> None:
    layout = glm_columns([], {}, {}, 4)
    assert layout.X.tolist() == [[1.0]] * 4
    assert row_space(layout).kept.tolist() == [0]
    assert ClassLevels("a", (), np.zeros(0, dtype=np.int64)).levels == ()


def levels_row_by_row(values: list[object], order: str) -> tuple[list[str], list[int]]:
    """The definition: every row is printed, the levels are the texts that occur."""
    gone = [v is None or v != v or (isinstance(v, str) and not v.strip()) for v in values]
    labels = ["" if absent else format_level(v) for v, absent in zip(values, gone, strict=True)]
    seen = {label: value for label, value, absent in zip(labels, values, gone, strict=True) if not absent}
    numeric = all(isinstance(v, (int, float)) for v in seen.values())
    levels = list(seen) if order == "data" else sorted(seen, key=lambda label: float(seen[label]) if numeric else label)  # type: ignore[arg-type]
    if order == "freq":
        levels = sorted(levels, key=lambda label: -labels.count(label))
    return levels, [levels.index(label) if label in levels else -1 for label in labels]


@pytest.mark.parametrize("order", ["data", "formatted", "freq"])
@pytest.mark.parametrize("seed", range(8))
def test_levels_are_those_of_every_row_by_itself(order: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pools: list[list[object]] = [
        [3, 1.0, 2.5, 10, float("nan"), -4, 1],
        ["b", "a", "a ", "", None, "10", "9", "  "],
        [True, False, True, None],
        [1e6, 2**40, 1e-7, 0.1 + 0.2, 0.3],
    ]
    pool = pools[seed % 4]
    values = [pool[i] for i in rng.integers(0, len(pool), 40)]
    levels, codes = levels_row_by_row(values, order)
    found = class_levels(ClassVariable("t"), values, order)  # type: ignore[arg-type]
    assert (list(found.levels), found.codes.tolist()) == (levels, codes)
    if seed % 4 in (0, 3):
        array = class_levels(ClassVariable("t"), np.array(values, float), order)  # type: ignore[arg-type]
        assert (array.levels, array.codes.tolist()) == (found.levels, codes)
