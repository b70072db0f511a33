"""One visit: every residual structure is its variance, the linear model's, in all doors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import IdentifiabilityError


def one_visit(seed: int, n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    visit = pd.Categorical(["w4"] * n, ["w4"], ordered=True)
    arm = np.tile(["p", "q"], n // 2)
    return pd.DataFrame(
        {"y": rng.normal(size=n) + (arm == "q"), "x": rng.normal(size=n), "v": visit, "id": np.arange(n).astype(str), "arm": arm}
    )


def least_squares(data: pd.DataFrame) -> tuple[float, float]:
    """REML's variance and the standard error of the difference between the arms."""
    X = np.column_stack([np.ones(len(data)), data.x, data.arm == "q"])
    y = data.y.to_numpy()
    e = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
    variance = float(e @ e) / (len(y) - 3)
    return variance, float(np.sqrt(variance * np.linalg.inv(X.T @ X)[2, 2]))


@pytest.mark.parametrize("structure", ["us", "un", "diag", "id", "cs", "csh", "ar1", "ar1h", "toep", "toeph", "ad", "adh"])
def test_a_structure_over_one_visit_is_its_variance(structure: str) -> None:
    data = one_visit(1)
    fit = blm.LMM("y ~ x + arm", data, residual=f"{structure}(v | id)").fit()
    variance, error = least_squares(data)
    assert fit.converged
    assert np.asarray(fit.R).item() == pytest.approx(variance, rel=1e-8)
    assert fit.tidy().set_index("term").loc["arm[T.q]", "std_error"] == pytest.approx(error, rel=1e-8)


def test_every_door_fits_one_visit() -> None:
    data = one_visit(2)
    variance, error = least_squares(data)
    for df in ("satterthwaite", "kenward-roger"):
        row = blm.mmrm("y ~ x + arm + us(v | id)", data).fit().tidy(df=df).set_index("term").loc["arm[T.q]"]
        assert (row["std_error"], row["df"]) == pytest.approx((error, 37.0), rel=1e-6)
    result = blm.proc_mixed("proc mixed; class id v arm; model y = x arm / solution; repeated v / type=un subject=id; run;", data)
    assert result["CovParms"].Estimate.item() == pytest.approx(variance, rel=1e-8)


def test_parameters_by_group_are_the_variances_of_the_groups() -> None:
    data = one_visit(3)
    fit = blm.LMM("y ~ arm", data, residual="us(v | arm / id)").fit()
    for arm, own in data.groupby("arm"):
        assert fit.residual_params[f"var[w4]|{arm}"] == pytest.approx(own.y.var(), rel=1e-6)


def test_a_trial_of_one_visit_is_imputed() -> None:
    data = one_visit(4)
    data.loc[[3, 8], "y"] = np.nan
    model = blm.LMM("y ~ x + arm", data, residual="us(v | id)")
    pooled = blm.impute(model, treatment="arm", reference={"p": "p", "q": "p"}).analyse("y ~ x + arm", by="v").pool()
    fit = model.fit()
    found = pooled.loc[pooled["parameter"] == "difference", "estimate"].item()
    assert found == pytest.approx(fit.fixef["arm[T.q]"], rel=1e-8)


def test_visits_that_no_subject_shares_stay_refused() -> None:
    data = one_visit(5).assign(v=np.tile(["a", "b"], 20))
    with pytest.raises(IdentifiabilityError, match="no subject of"):
        blm.LMM("y ~ x", data, residual="us(v | id)").fit()
