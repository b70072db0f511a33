"""A range that runs off beyond the rows, or to nothing before the next one, is said in units of the rows' own extent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

STRUCTURES = ["sp_exp", "sp_pow", "sp_gau", "sp_sph", "car1"]


def line(seed: int, kind: str, unit: float = 1.0) -> pd.DataFrame:
    """Twelve subjects at six places: random walks that begin at 0, white noise, or errors that decay within the places."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(12, 6))
    lag = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    y = {"walk": np.cumsum(z, axis=1), "white": z, "decay": z @ np.linalg.cholesky(0.5**lag).T}[kind]
    return pd.DataFrame({"id": np.repeat([f"s{i}" for i in range(12)], 6), "t": np.tile(np.arange(6) * unit, 12), "y": y.ravel()})


def range_check(fit: blm.Fit) -> str:
    return next((str(check.value) for check in fit.checks.values() if check.name.startswith("range")), "")


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_range_within_the_rows_is_not_noted(structure: str, seed: int) -> None:
    assert range_check(blm.LMM("y ~ 1", line(seed, "decay"), residual=f"{structure}(t | id)").fit()) == ""


@pytest.mark.parametrize(
    ("structure", "unit"), [("ar1", 1.0), ("car1", 1.0), *((s, u) for s in ("sp_exp", "sp_exp + local") for u in (1e-6, 1.0, 1e6))]
)
def test_walks_from_far_apart_run_off_whatever_the_unit(structure: str, unit: float) -> None:
    data = line(3, "walk", unit)
    data["y"] = data.y + 1e3 * (data.id == "s0")
    name, _, local = structure.partition(" ")
    fit = blm.LMM("y ~ 1", data, residual=f"{name}(t | id){' ' + local if local else ''}").fit()
    assert "the correlation over the whole extent" in range_check(fit)
    if name == "sp_exp":
        assert "times the extent" in range_check(fit)


@pytest.mark.parametrize("structure", ["sp_exp", "sp_pow", "car1"])
def test_white_noise_has_no_range(structure: str) -> None:
    found = [range_check(blm.LMM("y ~ 1", line(seed, "white"), residual=f"{structure}(t | id)").fit()) for seed in range(6)]
    assert any("between the nearest rows" in text for text in found)


def test_the_nugget_does_not_hide_a_range_that_runs_off() -> None:
    rng = np.random.default_rng(0)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(8.0), np.arange(8.0)))
    frame = pd.DataFrame({"x": x, "y": y, "r": 3.0 * x + rng.normal(size=64)})
    fit = blm.LMM("r ~ 1", frame, residual="sp_exp(x, y) + local").fit()
    assert "the correlation over the whole extent" in range_check(fit)


def test_beyond_the_end_of_a_range_standard_errors_are_told_without_degrees_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step from the estimates has no V, as one from a range that has run off: nothing is known of how standard errors move."""
    fit = blm.LMM("y ~ t", line(1, "decay"), residual="sp_exp(t | id)").fit()
    kernel = type(fit.problem.criterion.kernel)
    evaluate, at = kernel.evaluate, fit.point.x

    def without_neighbours(self: object, x: np.ndarray, *, derivatives: bool = False) -> object:
        if not np.array_equal(x[0], at):
            raise np.linalg.LinAlgError("Matrix is not positive definite")
        return evaluate(self, x, derivatives=derivatives)

    monkeypatch.setattr(kernel, "evaluate", without_neighbours)
    table = fit.tidy()
    assert table["std_error"].notna().all()
    assert table["df"].isna().all()
