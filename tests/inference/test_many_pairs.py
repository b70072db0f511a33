"""Differences of many means share what their means share, and are those of each difference by itself."""

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.inference.means import multiplicity


def spread(seed: int, K: int = 24) -> pd.DataFrame:
    """Cells of unequal size, subjects that have several of them, a covariate far from 0; one cell a thousand times less precise."""
    rng = np.random.default_rng(seed)
    cell = np.r_[np.repeat(np.arange(K), 3), rng.integers(0, K, 4 * K)]
    subject = rng.integers(0, 30, len(cell))
    x = 1e6 + rng.normal(size=len(cell))
    y = rng.normal(size=len(cell)) + 20.0 * rng.normal(size=30)[subject] + x
    return pd.DataFrame({"cell": [f"c{i:02d}" for i in cell], "h": np.where(cell % 2, "u", "v"), "id": subject.astype(str), "x": x, "y": y})


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger", "asymptotic", "residual", "CR2"])
@pytest.mark.parametrize("seed", range(2))
def test_many_differences_are_each_by_itself(seed: int, df: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = blm.LMM("y ~ cell + x + h:x + (1 | id)", spread(seed)).fit()
    options = {"vcov": "CR2"} if df == "CR2" else {"df": df}
    means = fit.emmeans("cell", **options)
    together = means.pairs(adjust="holm")
    monkeypatch.setattr(multiplicity, "MANY_PAIRS", np.inf)
    alone = means.pairs(adjust="holm")
    assert together["contrast"].equals(alone["contrast"])
    np.testing.assert_allclose(together["df"], alone["df"], rtol=1e-10)
    for name in ("estimate", "std_error", "conf_low", "conf_high"):
        assert (np.abs(together[name] - alone[name]) <= 1e-10 * alone["std_error"]).all(), name
    np.testing.assert_allclose(together["p_value"], alone["p_value"], rtol=1e-8, atol=1e-14)


def test_differences_of_cells_without_rows_stay_unknown() -> None:
    data = spread(5).query("not (cell == 'c03' and h == 'u')")
    fit = blm.LMM("y ~ cell * id2 + (1 | id)", data.assign(id2=data["id"].str[-1].isin(list("13579")).astype(str))).fit()
    pairs = fit.emmeans("cell", by="id2", df="asymptotic").pairs(adjust="none")
    means = fit.emmeans("cell", by="id2", df="asymptotic").frame
    known = means.set_index(["cell", "id2"])["estimate"].notna()
    for contrast, level, estimate in zip(pairs["contrast"], pairs["id2"], pairs["estimate"], strict=True):
        a, b = contrast.split(" - ")
        assert np.isfinite(estimate) == (known[a, level] and known[b, level])
