"""No figure of inference depends on where a covariate starts or in what unit it is, but as theory says; estimability least of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm

START, UNIT = 2.0**30, 2.0**36
"""1.07e9 and 6.9e10: powers of two, so that the moved column holds the same numbers to the last digit."""


@dataclass(frozen=True)
class Move:
    """x' = (x + start) * unit."""

    start: float
    unit: float

    def __call__(self, x: Any) -> Any:
        return (x + self.start) * self.unit


MOVES = {
    "later": Move(START, 1.0),
    "large": Move(0.0, UNIT),
    "tiny": Move(0.0, 1.0 / UNIT),
    "later and large": Move(START, UNIT),
    "later and tiny": Move(START, 1 / UNIT),
}
FIXED = {
    "crossed": "y ~ a * b + x + (1 | g)",
    "slopes": "y ~ a * x + b + (x | g)",
    "empty cell": "y ~ a * b + x + (1 | g)",
    "products": "y ~ a * x + b * x + (1 | g)",
}


def trial(seed: int, design: str) -> pd.DataFrame:
    """Twelve groups with two factors and a covariate of exact binary fractions."""
    rng = np.random.default_rng(seed)
    n = 144
    g = np.arange(n) % 12
    data = pd.DataFrame(
        {"g": g.astype(str), "a": rng.choice(list("pqr"), n), "b": rng.choice(list("uv"), n), "visit": (np.arange(n) // 12).astype(str)}
    )
    data["x"] = np.round(rng.normal(size=n) * 256) / 256
    data["y"] = (
        (data["a"] == "q")
        + 0.7 * data["x"] * (1 + (data["a"] == "r"))
        + rng.normal(size=12)[g]
        + rng.normal(size=12)[g] * data["x"]
        + rng.normal(size=n)
    )
    return data[~((data["a"] == "r") & (data["b"] == "v"))].reset_index(drop=True) if design == "empty cell" else data


def fitted(data: pd.DataFrame, design: str, **options: Any) -> Any:
    return blm.LMM(FIXED[design], data, **options).fit()


def agree(ours: Any, theirs: Any, rtol: float = 1e-4) -> None:
    """Numbers as near as a second search for the same optimum comes; what is not estimable is so in both."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * float(np.nanmax(np.abs(ours), initial=0.0)) * 0.05)


QUICK = {("slopes", "later"), ("empty cell", "later and tiny"), ("empty cell", "large")}


def cases(designs: list[str]) -> list[Any]:
    """Designs by moves, all but a few of them slow."""
    return [
        pytest.param(design, move, id=f"{design}-{name}", marks=() if (design, name) in QUICK else pytest.mark.slow)
        for design in designs
        for name, move in MOVES.items()
    ]


COUNTED = ["satterthwaite", "kenward-roger", "containment", "between-within", "residual"]


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize(("design", "move"), cases(list(FIXED)))
def test_tests_and_means_do_not_know_the_unit(design: str, move: Move) -> None:
    data = trial(3, design)
    moved = data.assign(x=move(data["x"]))
    ours, theirs = fitted(data, design), fitted(moved, design)
    at = {"x": [0.25, 1.0]}
    moved_at = {"x": [move(v) for v in at["x"]]}
    same_origin = move.start == 0.0
    for df in COUNTED:
        one, two = ours.tidy(df=df), theirs.tidy(df=df)
        slope = one["term"].str.contains("x").to_numpy()
        here = slope if not same_origin else np.ones(len(slope), bool)
        agree(one["df"][here], two["df"][here])
        agree(one["statistic"][here].abs(), two["statistic"][here].abs())
        for kind in (1, 2, 3):
            left, right = (f.anova(type=kind, df=df).set_index("term") for f in (ours, theirs))
            assert left["num_df"].tolist() == right["num_df"].tolist()
            # the test of a factor beside its product with x is one at x = 0
            terms = [t for t in left.index if same_origin or kind == 1 or "x" in t or f"{t}:x" not in left.index]
            agree(left.loc[terms, ["den_df", "statistic", "p_value"]], right.loc[terms, ["den_df", "statistic", "p_value"]])
        for specs, by in (("a", None), ("a", "b"), ("b", None)):
            left, right = ours.emmeans(specs, by=by, df=df), theirs.emmeans(specs, by=by, df=df)
            agree(left.frame.select_dtypes("number"), right.frame.select_dtypes("number"))
            agree(left.pairs("holm").select_dtypes("number"), right.pairs("holm").select_dtypes("number"))
        left, right = ours.emmeans(["a", "x"], at=at, df=df), theirs.emmeans(["a", "x"], at=moved_at, df=df)
        for name in ("estimate", "std_error", "df", "conf_low", "p_value"):
            agree(left.frame[name], right.frame[name])
        agree(left.joint()[["num_df", "den_df", "statistic"]], right.joint()[["num_df", "den_df", "statistic"]])
    left, right = ours.emtrends("x", "a").frame, theirs.emtrends("x", "a").frame
    agree(left["estimate"], right["estimate"] * move.unit)
    agree(left[["df", "statistic"]], right[["df", "statistic"]])
    slopes = ["x = 0"] + [f"{name} = 0" for name in ours.model.coef_names if name.endswith(":x")]
    left, right = ours.contrast(slopes).joint, theirs.contrast(slopes).joint
    agree(left, right)
    for kind in ("CR0", "CR1", "CR2", "CR3"):
        left, right = (f.emmeans("a", vcov=kind).frame.select_dtypes("number") for f in (ours, theirs))
        agree(left, right)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize(("design", "move"), cases(["slopes", "empty cell"]))
def test_predictions_and_deletions_do_not_know_the_unit(design: str, move: Move) -> None:
    data = trial(5, design)
    moved = data.assign(x=move(data["x"]))
    ours, theirs = fitted(data, design), fitted(moved, design)
    new, moved_new = data.iloc[::7], moved.iloc[::7]
    for level in ("population", "conditional"):
        for interval in ("confidence", "prediction"):
            agree(ours.predict(new, level=level, interval=interval), theirs.predict(moved_new, level=level, interval=interval))
    agree(ours.ranova()[["statistic", "p_value"]], theirs.ranova()[["statistic", "p_value"]], 1e-4)
    agree(ours.r2(), theirs.r2())
    agree(ours.icc(), theirs.icc(), 1e-4) if design == "empty cell" else None
    for refit in (True, False):
        left, right = ours.influence("g", refit=refit), theirs.influence("g", refit=refit)
        agree(left["cooks_distance"], right["cooks_distance"], 1e-3)
        agree(left["x"], right["x"] * move.unit, 1e-4)
    agree(ours.influence()["hat"], theirs.influence()["hat"])
    for kind in ("case", "parametric"):
        left, right = (f.bootstrap(8, seed=1, kind=kind).frame for f in (ours, theirs))
        assert len(left) == len(right) == 8
        agree(left["x"], right["x"] * move.unit, 1e-3)
    left, right = (f.confint("profile", terms=["x", "sd__Observation"]) for f in (ours, theirs))
    agree(left.iloc[0, 1:], right.iloc[0, 1:] * move.unit, 1e-3)
    agree(left.iloc[1, 1:], right.iloc[1, 1:], 1e-3)


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_products_of_covariates_do_not_know_where_one_starts(kind: int) -> None:
    """What a product far off has lost of its digits is no reason to cut a hypothesis into other rows."""
    data = trial(5, "crossed")
    data["z"] = np.random.default_rng(5).normal(size=len(data))
    ours, theirs = (blm.LMM("y ~ x * z + a + (1 | g)", d).fit().anova(type=kind) for d in (data, data.assign(x=data["x"] + START)))
    for name in ("num_df", "den_df", "statistic", "p_value"):
        agree(ours.set_index("term").loc[["x", "a", "x:z"], name], theirs.set_index("term").loc[["x", "a", "x:z"], name])


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLMMWarning")
@pytest.mark.parametrize("unit", [UNIT, 1.0 / UNIT], ids=["large", "tiny"])
@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_the_unit_of_the_covariate_of_a_variance_function_does_not_count(df: str, unit: float) -> None:
    data = trial(7, "crossed")
    data["y"] += np.random.default_rng(7).normal(size=len(data)) * np.exp(0.4 * data["x"])
    ours, theirs = (blm.LMM("y ~ a + b + (1 | g)", d, variance="exp(x)").fit() for d in (data, data.assign(x=data["x"] * unit)))
    agree(ours.anova(df=df).select_dtypes("number"), theirs.anova(df=df).select_dtypes("number"))
    for one in (lambda f: f.emmeans("a", df=df).frame, lambda f: f.emmeans("a", df=df).pairs("holm")):
        agree(one(ours).select_dtypes("number"), one(theirs).select_dtypes("number"))
    left, right = (f.varcomp().set_index("term")["std_error"] for f in (ours, theirs))
    agree(left[[t for t in left.index if "expon" not in t]], right[[t for t in right.index if "expon" not in t]])


def in_continuous_time(seed: int) -> pd.DataFrame:
    """15 subjects of two arms, each at six times of its own, whose errors forget in about 1.5 units."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0.0, 10.0, (15, 6)), axis=1)
    roots = [np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(own, own)) / 1.5)) for own in t]
    y = np.concatenate([root @ rng.normal(size=6) for root in roots])
    arm = np.repeat(np.array(list("pq"))[np.arange(15) % 2], 6)
    return pd.DataFrame({"g": np.repeat(np.arange(15), 6), "t": t.ravel(), "y": y, "x": rng.normal(size=90), "arm": arm})


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e-3, 1e3, 1e9])
@pytest.mark.parametrize(
    ("structure", "random"),
    [("car1(t | g)", ""), ("sp_pow(t | g) + local", ""), ("car1(t | arm / g)", ""), ("sp_pow(t | g)", " + (1 | g)"), ("sp_exp(t | g)", "")],
)
def test_the_unit_of_time_does_not_matter(structure: str, random: str, unit: float) -> None:
    data = in_continuous_time(3)
    fits = [blm.LMM(f"y ~ x{random}", data.assign(t=data.t * u), residual=structure).fit() for u in (1.0, unit)]
    assert fits[1].converged
    assert fits[1].criterion == pytest.approx(fits[0].criterion, abs=1e-7)
    for df in ("satterthwaite", "kenward-roger"):
        one, other = (fit.tidy("fixed", df=df)[["estimate", "std_error", "df"]].to_numpy() for fit in fits)
        np.testing.assert_allclose(other, one, rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(fits[1].predict(), fits[0].predict(), atol=1e-5)
    ratio = {name: fits[1].residual_params[name] / value for name, value in fits[0].residual_params.items() if name.startswith("range")}
    np.testing.assert_allclose(list(ratio.values()), unit, rtol=1e-4)
