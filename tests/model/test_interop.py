"""A fit as other packages take models."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bayeslmm.errors import DependencyError
from bayeslmm.model.interop import rows_for, to_marginaleffects
from tests.inference.examples import fitted, subjects


def test_maketables_finds_coefficients_and_statistics() -> None:
    fit = fitted("slope")
    table = fit.__maketables_coef_table__
    assert table.index.name == "Coefficient"
    assert {"b", "se", "t", "p"} <= set(table.columns)
    np.testing.assert_allclose(table["b"], fit.fixef)
    assert fit.__maketables_depvar__ == "y"
    assert fit.__maketables_stat__("N") == fit.nobs
    assert fit.__maketables_stat__("nothing of ours") is None
    assert all(fit.__maketables_stat__(key) is not None for key in fit.__maketables_default_stat_keys__)


def test_rows_of_the_adapter_reproduce_predictions_of_the_population() -> None:
    fit = fitted("slope")
    rows = rows_for(fit, subjects())
    np.testing.assert_allclose(rows[:, :-1] @ fit.fixef_kept + rows[:, -1], fit.predict(subjects(), level="population")["estimate"])


def test_marginaleffects_gives_our_slopes() -> None:
    package = pytest.importorskip("marginaleffects")
    fit = fitted("slope")
    try:
        found = package.avg_slopes(fit.to_marginaleffects(), variables="time")
    except Exception as error:  # the package does not work with every version of polars
        pytest.skip(f"marginaleffects fails by itself here: {error}")
    assert found["estimate"][0] == pytest.approx(fit.fixef["time"], rel=1e-6)
    assert found["std_error"][0] == pytest.approx(fit.vcov.loc["time", "time"] ** 0.5, rel=1e-4)


def test_without_the_package_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "marginaleffects.classes", None)
    with pytest.raises(DependencyError, match="pip install marginaleffects"):
        to_marginaleffects(fitted("slope"))
