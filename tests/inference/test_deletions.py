"""The fit without a level, from sums and from the inverse, against the design laid out anew without its rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.data.grouping import GroupingFactor
from bayeslmm.errors import BayesLMMWarning
from bayeslmm.estimate.estimate import search
from bayeslmm.inference.influence import CaseDeletion, case_deletions
from bayeslmm.inference.intervals.parameters import parameter_values
from bayeslmm.inference.intervals.resampling import resampling_factor, without
from bayeslmm.likelihood import case_deletion as deleted
from bayeslmm.likelihood import prediction
from bayeslmm.likelihood.criterion import Criterion
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.problem import Problem, build_problem
from bayeslmm.likelihood.random_effects.kernel import RandomEffectsKernel
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, SparseOffDiagonal
from bayeslmm.model.fit import Fit
from tests.inference.examples import fitted as example

module, deleting = import_module("bayeslmm.inference.influence"), import_module("bayeslmm.inference.influence")


def ratings(students: int, lecturers: int, rows: int, seed: int = 5) -> pd.DataFrame:
    """Students who rate some of the lecturers, and these in departments: nothing balanced, one lecturer rated by one student alone."""
    rng = np.random.default_rng(seed)
    s, d = rng.integers(students, size=rows), rng.integers(lecturers - 1, size=rows)
    d[0] = lecturers - 1
    frame = pd.DataFrame({"s": s.astype(str), "d": d.astype(str), "dept": (d % 5).astype(str)})
    frame["x"], frame["w"], frame["o"] = rng.normal(size=rows), rng.uniform(0.3, 3.0, rows), rng.normal(size=rows)
    slope = 0.4 * rng.normal(size=students)[s] * frame["x"]
    frame["y"] = 3 + 0.5 * frame["x"] + rng.normal(size=students)[s] + 0.7 * rng.normal(size=lecturers)[d] + slope + rng.normal(size=rows)
    frame["v"] = frame["x"] + frame["o"]
    return frame


def casks(batches: int, seed: int = 6) -> pd.DataFrame:
    """Casks within batches within tasters; where they are many, a component for every taster, of two shapes."""
    rng = np.random.default_rng(seed)
    rows = [(f"b{a}", f"c{b}", k) for a in range(batches) for b in range(2 + a % 2) for k in range(3 if a % 3 else 2)]
    frame = pd.DataFrame(rows, columns=["batch", "cask", "k"])
    code, cask = frame["batch"].factorize()[0], (frame["batch"] + frame["cask"]).factorize()[0]
    frame["taster"] = pd.Series(code).map(lambda a: f"t{a // 3 if a < batches // 2 else a // 2}")
    frame["y"] = (
        50 + rng.normal(size=batches)[code] + 0.8 * rng.normal(size=cask.max() + 1)[cask] + 0.1 * frame["k"] + rng.normal(size=len(frame))
    )
    return frame


def kinship(levels: int) -> pd.DataFrame:
    names = sorted(str(i) for i in range(levels))
    K = 0.3 + 0.7 * np.eye(levels)
    return pd.DataFrame(K, index=names, columns=names)


def visits(subjects: int, seed: int = 7) -> pd.DataFrame:
    """Subjects of sites with up to four visits, some missing, and a covariate and weights of each row."""
    rng = np.random.default_rng(seed)
    i, t = np.divmod(np.arange(4 * subjects), 4)
    frame = pd.DataFrame(
        {"id": i.astype(str), "t": pd.Categorical(t), "site": (i % 9).astype(str), "arm": np.array(["a", "b", "c"])[i % 3]}
    )
    frame["x"], frame["w"] = rng.normal(size=len(i)), rng.uniform(0.4, 2.0, len(i))
    frame["y"] = rng.normal(size=subjects)[i] + 0.4 * t + 0.3 * frame["x"] + np.exp(0.2 * frame["x"]) * rng.normal(size=len(i))
    return frame[rng.uniform(size=len(i)) > 0.15]


MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "crossed": ("y ~ x + (1 | s) + (1 | d) + (1 | dept)", "few", {}),
    "weighted": ("y ~ x + (x | s) + (1 | d)", "few", {"weights": "w", "offset": "o"}),
    "slopes": ("y ~ x + (x | s) + (x | d)", "few", {}),
    "singular": ("v ~ x + (1 | s) + (1 | d) + (1 | dept)", "few", {}),
    "related": ("y ~ x + (1 | s) + (1 | d)", "few", {"relationship": {"d": kinship(30)}}),
    "alone": ("y ~ x + (x | s)", "few", {"weights": "w"}),
    "nested": ("y ~ k + (1 | taster / batch / cask)", "casks", {}),
    "components": ("y ~ k + (1 | taster / batch / cask)", "many casks", {}),
    "wide": ("y ~ x + (1 | s) + (1 | d)", "many", {}),
    "pooled": ("y ~ arm * t + x", "visits", {"residual": "us(t | id)"}),
    "by arm": ("y ~ arm + t", "visits", {"residual": "ar1h(t | arm / id)"}),
    "weighted visits": ("y ~ arm + x", "visits", {"residual": "ar1(t | id)", "weights": "w"}),
    "sites": ("y ~ arm + t + (1 | site)", "visits", {"residual": "ar1(t | id)"}),
    "spread": ("y ~ arm + x + (1 | id)", "visits", {"variance": "exp(x)"}),
}


FRAMES = {
    "few": lambda: ratings(70, 30, 420),
    "many": lambda: ratings(420, 300, 1500),
    "casks": lambda: casks(30),
    "many casks": lambda: casks(330),
    "visits": lambda: visits(45),
}


@cache
def fitted(name: str) -> Fit:
    if name not in MODELS:
        return example(name)
    formula, data, options = MODELS[name]
    frame = FRAMES[data]()
    fit: Fit = blm.LMM(formula, frame, **options).fit("ML" if name == "slopes" else "REML")
    return fit


def laid_out(fit: Fit, factor: GroupingFactor, levels: int) -> Iterator[Problem]:
    """The designs without each of the first levels, built from their rows."""
    for level in range(levels):
        yield build_problem(without(fit.design, factor.codes == level))


def agrees(found: CaseDeletion, fit: Fit, problem: Problem, x: np.ndarray, rtol: float) -> None:
    """x : on the conditioned columns of the problem."""
    point = problem.criterion.at(x, fit.restricted, order=0)
    assert point.state is not None
    solution, c = point.state.solution, problem.standardization
    vcov = point.sigma2 * c.y_scale**2 * (c.back @ solution.information_inverse[0] @ c.back.T)
    parameters = parameter_values(problem, x[None], np.array([point.sigma2]), solution.alpha)[0]
    np.testing.assert_allclose(found.alpha, problem.alpha(solution.alpha[0]), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.vcov, vcov, rtol=rtol, atol=rtol * np.abs(vcov).max())
    np.testing.assert_allclose(found.parameters, parameters, rtol=rtol, atol=rtol)


def factor_of(fit: Fit, group: str) -> GroupingFactor:
    found = resampling_factor(fit.design, group)
    assert found is not None
    return found


CASES = [
    ("crossed", "s"),
    ("crossed", "d"),
    ("crossed", "dept"),
    ("weighted", "s"),
    ("weighted", "d"),
    ("slopes", "s"),
    ("slopes", "d"),
    ("singular", "d"),
    ("related", "s"),
    ("related", "d"),
    ("nested", "taster"),
    ("nested", "taster:batch"),
    ("nested", "taster:batch:cask"),
    ("alone", "s"),
    ("crossed_slope", "sample"),
    ("exchangeable", "rater"),
    ("mixed_serial", "id"),
    ("pooled", "id"),
    ("by arm", "id"),
    ("weighted visits", "id"),
    ("sites", "site"),
    ("sites", "id"),
    ("spread", "id"),
]
"""Models with many levels and with few, and what is left out of them."""


def held_as_laid_out(fit: Fit, group: str, levels: int | None = None) -> None:
    factor = factor_of(fit, group)
    theta = fit.problem.theta(fit.estimate.x)
    count = factor.size if levels is None else levels
    for found, problem in zip(islice(case_deletions(fit, factor, refit=False), count), laid_out(fit, factor, count), strict=True):
        agrees(found, fit, problem, problem.x(theta), 1e-8)


@pytest.mark.parametrize(("name", "group"), CASES)
def test_held_parameters_give_the_profile_of_the_other_rows(name: str, group: str) -> None:
    held_as_laid_out(fitted(name), group)


@pytest.mark.parametrize(("name", "group"), [("wide", "s"), ("wide", "d"), ("components", "taster"), ("components", "taster:batch")])
def test_many_levels_are_left_out_alike(name: str, group: str) -> None:
    held_as_laid_out(fitted(name), group, 40)


def test_the_models_take_every_form_of_cross_products() -> None:
    kernels = {name: fitted(name).problem.criterion.kernel for name in MODELS | dict(CASES)}
    cross = {name: kernel.cross for name, kernel in kernels.items() if isinstance(kernel, RandomEffectsKernel)}
    assert isinstance(cross["components"].coupling, SparseOffDiagonal)
    assert isinstance(cross["related"].coupling, DenseOffDiagonal)
    assert cross["components"].rest is not None
    assert len(cross["components"].rest.batches) > 1
    assert cross["wide"].rest is not None
    assert cross["wide"].rest.m >= TUNING.packed_columns
    assert cross["crossed_slope"].first is None
    assert cross["alone"].rest is None
    assert fitted("singular").singular


@pytest.mark.parametrize("limit", ["DIRECT_ROWS", "LOOKED_UP_COLUMNS", "SMALLEST_PIVOT", "BLOCK_ELEMENTS"])
def test_every_way_to_the_held_profile_ends_at_the_same(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, value = {
        "DIRECT_ROWS": (deleted, 6),
        "LOOKED_UP_COLUMNS": (deleted, 3),
        "SMALLEST_PIVOT": (deleted, 0.3),
        "BLOCK_ELEMENTS": (prediction, 600),
    }[limit]
    monkeypatch.setattr(where, limit, value)
    for name, group in (("crossed", "s"), ("components", "taster"), ("weighted", "d")):
        held_as_laid_out(fitted(name), group, 20)


def test_variances_a_million_times_those_of_the_errors_keep_their_digits() -> None:
    frame = ratings(40, 25, 260)
    frame["y"] += 1e2 * (frame["s"].astype(float) + np.cos(frame["d"].astype(float)))
    held_as_laid_out(blm.LMM("y ~ x + (1 | s) + (1 | d)", frame).fit(), "s")


@pytest.mark.parametrize(("name", "group"), [case for case in CASES if case[0] != "mixed_serial"])
def test_refits_end_where_a_search_of_the_other_rows_does(name: str, group: str) -> None:
    fit = fitted(name)
    factor = factor_of(fit, group)
    for found, problem in zip(islice(case_deletions(fit, factor, refit=True), 3), laid_out(fit, factor, 3), strict=True):
        best = search(problem, fit.restricted, problem.start)[0].point
        # searches end where a predicted decrease falls below 1e-12, a millionth in the parameters
        agrees(found, fit, problem, best.x, 2e-5)


def test_levels_within_a_block_are_left_out_of_its_covariance() -> None:
    """Visits cross the subjects: a level takes a row of every block, whose others stay correlated."""
    fit = fitted("sites")
    codes = np.arange(fit.nobs) % 7
    theta = fit.problem.theta(fit.estimate.x)
    for level, found in enumerate(deleted.delete_block_levels(fit.point, codes, 7)):
        problem = build_problem(without(fit.design, codes == level))
        point = problem.criterion.at(problem.x(theta), fit.restricted, order=0)
        assert found is not None and point.state is not None
        np.testing.assert_allclose(fit.problem.alpha(found.alpha), problem.alpha(point.state.solution.alpha[0]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("group", ["id", "site"])
def test_refits_side_by_side_end_where_each_search_does(group: str) -> None:
    """Whole subjects, and sites of several, of a model of visits."""
    frame = visits(45)
    fit = blm.LMM("y ~ arm + t + x", frame, residual="toeph(t | id)").fit()
    codes = pd.factorize(frame[group], sort=True)[0]
    refits = deleting._structured_refits(fit, codes, int(codes.max()) + 1)
    for level, found in enumerate(islice(refits, 12)):
        problem = build_problem(without(fit.design, codes == level))
        agrees(found, fit, problem, search(problem, fit.restricted)[0].point.x, 1e-5)


def test_a_coefficient_that_one_level_alone_tells_is_missing_without_it() -> None:
    frame = ratings(40, 25, 260)
    frame["only"] = np.where(frame["s"] == "3", frame["o"], 0.0)
    fit = blm.LMM("y ~ x + only + (1 | s) + (1 | d)", frame).fit()
    found = fit.influence("s", refit=False).set_index("level")
    assert found.loc["3"].isna().all()
    assert found.drop(index="3").notna().all(axis=None)


def test_an_interrupted_search_is_no_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, whole, calls = fitted("crossed"), Criterion.at_in_one_thread, []

    def pressed(self: Criterion, x: np.ndarray, restricted: bool, order: int = 2) -> object:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return whole(self, x, restricted, order)

    monkeypatch.setattr(Criterion, "at_in_one_thread", pressed)
    with pytest.raises(KeyboardInterrupt):
        fit.influence("dept")


def test_a_long_run_says_how_long_it_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fitted("crossed")
    monkeypatch.setattr(module, "SURE", 0.0)
    monkeypatch.setattr(module, "LONG", 0.0)
    with pytest.warns(BayesLMMWarning, match="each of 5 levels will take about"):
        fit.influence("dept", progress=False)


ONE_FACTOR: dict[str, tuple[str, int, dict[str, Any]]] = {
    "intercepts": ("y ~ x + (1 | g)", 40, {}),
    "weights": ("y ~ x + v + (x || g)", 90, {"weights": "w"}),
    "slopes": ("y ~ x + (x | g)", 260, {}),
    "held sigma": ("y ~ x + (1 | g)", 30, {"sigma": 0.9}),
}


def subjects(levels: int, seed: int) -> pd.DataFrame:
    """Three to nine rows a level; the last level alone has values of v, and one stands far out."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rng.integers(3, 10, levels))
    frame = pd.DataFrame({"g": g.astype(str), "x": rng.normal(size=len(g)), "w": rng.uniform(0.5, 2.0, len(g)), "v": 0.0})
    frame.loc[g == levels - 1, "v"] = 1.0
    frame["y"] = frame["x"] + rng.normal(size=levels)[g] + 0.6 * frame["x"] * rng.normal(size=levels)[g] + rng.normal(size=len(g))
    frame.loc[g == 0, "y"] += 6.0
    return frame


@pytest.mark.parametrize(("name", "method"), [(name, "REML") for name in ONE_FACTOR] + [("weights", "ML"), ("held sigma", "ML")])
def test_optima_of_all_levels_at_once_are_those_of_a_search_each(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    formula, levels, options = ONE_FACTOR[name]
    fit = blm.LMM(formula, subjects(levels, seed=len(name)), check="warn", **options).fit(method)
    factor, made = resampling_factor(fit.design, "g"), []
    monkeypatch.setattr(module, "_together", lambda *own, find=module._together: made.append(find(*own)) or made[0])
    together = list(case_deletions(fit, factor, refit=True))
    assert made[0].found.mean() > 0.6
    monkeypatch.setattr(module, "_together", lambda *own: None)
    alone = list(case_deletions(fit, factor, refit=True))
    errors, spread = np.sqrt(np.diagonal(fit.vcov_kept)), np.nanstd([deletion.parameters for deletion in alone], axis=0)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.alpha / errors, other.alpha / errors, rtol=0, atol=2e-6)
        np.testing.assert_allclose(one.vcov / np.outer(errors, errors), other.vcov / np.outer(errors, errors), rtol=0, atol=1e-5)
        gap = (one.parameters - other.parameters)[spread > 0] / spread[spread > 0]
        np.testing.assert_allclose(gap, np.where(np.isnan(gap), np.nan, 0.0), rtol=0, atol=1e-4)
