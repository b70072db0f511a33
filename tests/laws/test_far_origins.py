"""Where a covariate starts changes no rank, criterion, fitted value or test that theory says it does not, however far that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

DESIGNS: dict[str, tuple[str, dict[str, Any]]] = {
    "three factors": ("y ~ a * b * c * x + (1 | g)", {}),
    "two covariates": ("y ~ a * x * z + (1 | g)", {}),
    "two factors, two covariates": ("y ~ a * b * x * z + (1 | g)", {}),
    "no intercept": ("y ~ 0 + a:b + a:b:x + (1 | g)", {}),
    "nested": ("y ~ a / b / x + (1 | g)", {}),
    "polynomial": ("y ~ b * x + b * I(x ** 2) + I(x ** 3) + (1 | g)", {}),
    "quadratic surface": ("y ~ x * z + I(x ** 2) + I(z ** 2) + (1 | g)", {}),
    "product written": ("y ~ x + z + I(x * z) + (1 | g)", {}),
    "empty cell": ("y ~ a * b * x + (1 | g)", {}),
    "doubled": ("y ~ a + a2 + b + a2:x + a:x + (1 | g)", {}),
    "sum coding": ("y ~ C(a, Sum) * C(b, Helmert) * x + (1 | g)", {}),
    "spline": ("y ~ a * bs(x, df=4) + b * poly(x, 2) + (1 | g)", {}),
    "slopes": ("y ~ a * b * x + (x | g)", {}),
    "slopes of a product": ("y ~ b * x + (b * x | g)", {}),
    "weights": ("y ~ a * b * x + (1 | g)", {"weights": "w"}),
    "serial": ("y ~ a * b * x", {"residual": "ar1(visit | g)"}),
    "strata": ("y ~ a * b * x + (1 | g)", {"variance": "ident(b)"}),
    "crossed": ("y ~ a * b * x + (1 | g) + (1 | visit)", {}),
}
BY_DEFAULT = ("two covariates", "polynomial", "empty cell", "slopes", "serial")
EVERY = [pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.slow) for name in DESIGNS]


def trial(design: str, seed: int = 5) -> pd.DataFrame:
    """Ten groups of ten visits; covariates of exact binary fractions."""
    rng = np.random.default_rng(seed)
    g, visit = np.divmod(np.arange(100), 10)
    data = pd.DataFrame({"g": g.astype(str), "visit": visit, "a": rng.choice(list("pqr"), 100), "b": rng.choice(list("uv"), 100)})
    data["c"], data["w"] = rng.choice(list("kl"), 100), rng.uniform(0.5, 2.0, 100)
    for name in "xz":
        data[name] = np.round(rng.normal(size=100) * 64) / 64
    slopes = rng.normal(size=(10, 2))[g]
    data["y"] = slopes[:, 0] + (1 + slopes[:, 1] + (data.a == "q")) * data.x + (data.b == "v") * data.x**2 / 2 + rng.normal(size=100)
    data["a2"] = data.a.replace({"p": "one", "q": "two", "r": "three"})
    return data[~((data.a == "r") & (data.b == "v"))].reset_index(drop=True) if design == "empty cell" else data


def figures(design: str, start: float, method: str = "REML") -> dict[str, Any]:
    formula, options = DESIGNS[design]
    data = trial(design)
    new = trial(design, 6).iloc[:7]
    for frame in (data, new):
        frame[["x", "z"]] += start
    fit = blm.LMM(formula, data, **options).fit(method)
    df = "satterthwaite" if "visit |" in options.get("residual", "") else "kr"
    tests = [fit.anova(type=kind, df=df) for kind in (1, 2, 3)]
    tests[2] = tests[2].tail(1)
    # what a term of type 2 is free of are terms of the same covariates
    tests[1] = tests[2] if "z" in formula or "**" in formula else tests[1][tests[1].term.str.contains("x")]
    found: dict[str, Any] = {"rank": len(fit.fixef_kept), "criterion": fit.criterion, "fitted": fit.fitted(), "residuals": fit.residuals()}
    for number, table in enumerate(tests, 1):
        found |= {f"type {number} {column}": table[column].to_numpy(float) for column in ("num_df", "den_df", "statistic")}
    found["noted"] = [line.split()[0] for line in str(fit.checks).splitlines() if line.split()[1] != "passed"]
    if "**" not in formula and "x * z" not in formula:  # rows of these are sums of numbers that floating point no longer holds
        told = fit.predict(new, level="population", interval="confidence")
        means = fit.emmeans("b" if "Helmert" not in formula else "a", at={"x": start + 0.5})
        found |= {"new rows": told.estimate.to_numpy(), "their errors": told.std_error.to_numpy()}
        found |= {"means": means.frame["estimate"].to_numpy(), "errors of means": means.frame["std_error"].to_numpy()}
    return found


@pytest.mark.parametrize("design", EVERY)
@pytest.mark.parametrize("power", [pytest.param(10, marks=pytest.mark.slow), pytest.param(24, marks=pytest.mark.slow), 40])
def test_a_start_changes_nothing(design: str, power: int) -> None:
    at_zero, far = figures(design, 0.0), figures(design, 2.0**power)
    assert far["rank"] == at_zero["rank"] and far["noted"] == at_zero["noted"]
    held = max(1e-7, 2.0 ** (power - 48))  # what floating point holds of a row's mean, a knot or a quantile so far from 0
    for name in at_zero.keys() - {"rank", "noted"}:
        own = held if "means" in name or design == "spline" else 1e-7
        np.testing.assert_allclose(far[name], at_zero[name], rtol=own, atol=own, err_msg=name)
