"""What ties crossed factors together is one likelihood as a dense block and as a sparse map, and is dense where most levels meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.likelihood.kernel import TUNING
from bayeslmm.likelihood.random_effects import cross_products
from bayeslmm.likelihood.random_effects.off_diagonal import DenseOffDiagonal, SparseOffDiagonal
from tests.laws.definition import define

FORMULAS = ("y ~ x + (1 | a) + (1 | b)", "y ~ x + (x | a) + (1 | b)", "y ~ x + (x || a) + (x | b) + (1 | c)")


def crossed(seed: int, share: float, regions: int = 1) -> pd.DataFrame:
    """Levels of a and b of which a share meets, in regions of equal numbers of levels that do not meet."""
    rng = np.random.default_rng(seed)
    a, b = (code.ravel() for code in np.indices((150, 240)))
    met = (rng.uniform(size=len(a)) < share) & (a * regions // 150 == b * regions // 240)
    frame = pd.DataFrame({"a": a[met], "b": b[met]}).sample(frac=1.0, random_state=seed, ignore_index=True)
    n = len(frame)
    frame["c"], frame["x"] = frame["b"] % 40, rng.normal(size=n)
    effects = rng.normal(size=150)[frame["a"]] + rng.normal(size=240)[frame["b"]] * (1 + 0.5 * frame["x"])
    return frame.assign(y=effects + rng.normal(size=n), w=rng.uniform(0.5, 2.0, n))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize(("share", "regions"), [(0.05, 1), (0.7, 1), (0.9, 2)])
def test_both_forms_are_the_definition(formula: str, share: float, regions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data, found = crossed(len(formula), share, regions).iloc[:1500], {}
    for form, speed in {"dense": np.inf, "sparse": 0.0}.items():
        monkeypatch.setattr(
            cross_products, "TUNING", replace(TUNING, table_pairs=0, dense_all_factors=0, batched_columns=0, paired_speed=speed)
        )
        problem = blm.LMM(formula, data, weights="w").problem
        x = np.random.default_rng(3).uniform(0.1, 1.0, problem.size)
        found[form] = problem.criterion.at(x, True), type(problem.criterion.kernel.cross.coupling)
    judge = define(problem, x, True)
    (dense, kind), (sparse, other) = found["dense"], found["sparse"]
    assert other is SparseOffDiagonal
    assert kind is (DenseOffDiagonal if regions == 1 or "c" in formula else SparseOffDiagonal)
    assert dense.value == pytest.approx(judge.value, rel=1e-12)
    assert dense.value == pytest.approx(sparse.value, rel=1e-12)
    assert dense.gradient == pytest.approx(sparse.gradient, rel=1e-9, abs=1e-9 * np.abs(sparse.gradient).max())


@pytest.mark.parametrize(
    ("share", "regions", "kind"), [(0.6, 1, DenseOffDiagonal), (0.05, 1, SparseOffDiagonal), (0.6, 2, SparseOffDiagonal)]
)
def test_the_form_is_the_faster_one(share: float, regions: int, kind: type) -> None:
    problem = blm.LMM("y ~ x + (1 | a) + (1 | b)", crossed(1, share, regions)).problem
    assert type(problem.criterion.kernel.cross.coupling) is kind
