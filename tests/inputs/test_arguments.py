"""Arguments that are of another kind, misspelt, of another shape or of another size: an error of ours, whatever the verb."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.errors import BayesLMMError, FormulaLimitError, SpecificationError, StoreError
from tests.inputs.frames import MODEL, fit, refused, visits, warned

LEVELS = sorted(visits()["g"].unique())
A = pd.DataFrame(np.eye(10) + 0.2, index=LEVELS, columns=LEVELS)


@pytest.fixture(scope="module")
def found() -> blm.Fit:
    return fit("y ~ x + arm + (day | g)")


# ---------------------------------------------------------------------------------------------------------------- theta

NO_THETA = [[1.0], [1.0] * 4, [1, np.nan, 1], [1, np.inf, 1], ["a", "b", "c"], [[1, 0, 1]], 1.0, None, "abc", {"a": 1}, [1j, 1, 1], []]


@pytest.mark.parametrize("theta", NO_THETA, ids=repr)
def test_a_theta_that_does_not_fit_is_refused(found: blm.Fit, theta: Any) -> None:
    assert "3 numbers" in refused(lambda: found.model.criterion(theta), SpecificationError).remedy
    refused(lambda: found.model.gradient(theta), SpecificationError)


def test_at_a_theta_of_zeros_the_criterion_is_least_squares(found: blm.Fit) -> None:
    assert found.model.criterion([0, 0, 0]) == pytest.approx(fit("y ~ x + arm").criterion, rel=1e-12)
    assert found.model.gradient([0, 0, 0]).tolist() == [0.0, 0.0, 0.0]


def test_signs_of_columns_of_theta_do_not_matter(found: blm.Fit) -> None:
    assert found.model.criterion([-1, -0.2, 1]) == pytest.approx(found.model.criterion([1, 0.2, -1]), rel=1e-12)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x", {"residual": "ar1h(visit | g)"}),
        ("y ~ x", {"residual": "cs(visit | g)"}),
        ("y ~ x + (1 | g)", {"variance": "ident(arm)"}),
        ("y ~ x + (day | g)", {}),
        ("y ~ x", {"residual": "sp_exp(day | g)", "variance": "power(k)"}),
    ],
)
@pytest.mark.parametrize("method", ["REML", "ML"])
def test_the_gradient_in_theta_has_every_parameter(formula: str, options: dict[str, Any], method: str) -> None:
    model = blm.LMM(formula, visits(), **options)
    theta = 1.1 * model.fit().theta
    steps = 1e-5 * np.eye(len(theta))
    differences = [(model.criterion(theta + h, method) - model.criterion(theta - h, method)) / 2e-5 for h in steps]
    assert model.gradient(theta, method) == pytest.approx(differences, rel=1e-6, abs=1e-6)  # h^2 and eps |f| / h


@pytest.mark.parametrize("method", ["rem", "", None, 3, "MAP", ["REML"]])
def test_a_criterion_that_does_not_exist_is_refused(found: blm.Fit, method: Any) -> None:
    refused(lambda: found.model.criterion([1, 0, 1], method=method), SpecificationError)


@pytest.mark.parametrize("method", ["rem", "", None, 3, ["REML"], "nuts"])
def test_a_method_that_does_not_exist_is_refused(found: blm.Fit, method: Any) -> None:
    refused(lambda: found.model.fit(method), SpecificationError, "method")


# ------------------------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("name", ["missing", "check"])
@pytest.mark.parametrize("value", ["omit", None, True, 3])
def test_an_option_that_does_not_exist_is_refused(name: str, value: Any) -> None:
    refused(lambda: fit(**{name: value}), SpecificationError, name)


@pytest.mark.parametrize(
    "text",
    [
        *("us(visit | g", "us visit g", "us(visit)", "foo(visit | g)", "us(visit |)", "us(| g)", "us(visit, g)", "us(visit | arm / )"),
        *("us(visit | arm / g / h)", "us(visit | g) + us(visit | h)", "us(visit | g) + local", "us(log(day) | g)", "us(g | g)"),
        *("us(y | g)", "", " "),
        *("us(us(visit | g))", "us(visit || g)", "(visit | g)", "us(__import__('os') | g)", "us(visit | g); x", "ar1(visit + day | g)"),
    ],
)
def test_a_residual_that_cannot_be_read_is_refused(text: str) -> None:
    refused(lambda: fit("y ~ x", residual=text), BayesLMMError)


@pytest.mark.parametrize(
    "text",
    [
        *("ident", "ident()", "ident(arm", "idnet(arm)", "power()", "power(h)", "power(arm)", "power(day)", "ident(arm) * ident(arm)", ""),
        *("power(fitted", "exp(x |)", "ident(arm) + power(x)", "power(x, 2)", "ident(arm) * power(os.system)", "power(open('x'))"),
    ],
)
def test_a_variance_that_cannot_be_read_is_refused(text: str) -> None:
    refused(lambda: fit(variance=text), BayesLMMError)


@pytest.mark.parametrize("name", ["residual", "variance"])
@pytest.mark.parametrize("value", [3, ["us(visit | g)"], {"us": 1}, b"us(visit | g)"])
def test_a_structure_that_is_no_text_is_refused(name: str, value: Any) -> None:
    refused(lambda: fit("y ~ x", **{name: value}), SpecificationError, name)


@pytest.mark.parametrize(
    "contrasts",
    [
        {"arm": "foo"},
        {"arms": "sum"},
        {"x": "sum"},
        {"g": "sum"},
        {"arm": np.ones((3, 1))},
        {"arm": np.ones(2)},
        {"arm": [[1], [np.nan]]},
        {"arm": None},
        {"arm": 3},
        {"arm": [["a"], ["b"]]},
        {"arm": pd.DataFrame([[1.0], [-1.0]], index=["TRT", "nobody"])},
        ["arm"],
        "sum",
    ],
    ids=str,
)
def test_contrasts_that_do_not_fit_are_refused(contrasts: Any) -> None:
    refused(lambda: fit("y ~ x + arm + (1 | g)", contrasts=contrasts), SpecificationError)


@pytest.mark.parametrize(
    "matrix",
    [
        *(A.to_numpy(), A.iloc[1:, 1:], A.iloc[:, 1:], A - np.eye(10) * 2, A * np.triu(np.ones((10, 10))), A * 1j, A.astype(str), A * 0),
        *(A * 1e-300, A * 1e300, A.replace(0.2, np.nan), A.replace(0.2, np.inf), -A, A.set_axis(["a"] * 10), A.set_axis(range(10), axis=1)),
        *(None, pd.DataFrame()),
    ],
    ids=str,
)
def test_a_relationship_that_is_none_is_refused(matrix: Any) -> None:
    refused(lambda: fit(relationship={"g": matrix}), BayesLMMError)


@pytest.mark.parametrize("given", [{"gg": A}, {"h": A}, [A], A, "A"], ids=str)
def test_a_relationship_of_no_grouping_factor_is_refused(given: Any) -> None:
    refused(lambda: fit(relationship=given), SpecificationError)


def test_the_order_and_the_size_of_a_relationship_do_not_matter() -> None:
    plain = fit(relationship={"g": A})
    for other in (A.iloc[::-1, ::-1], A * 1e-6, A * 1e6, A.astype("float32")):
        assert fit(relationship={"g": other}).criterion == pytest.approx(plain.criterion, rel=1e-7)  # float32 has seven digits


@pytest.mark.parametrize(
    "functions",
    [
        {"f": 3},
        ["f"],
        {"f g": len},
        {3: len},
        {"f": lambda x: x[:3]},
        {"f": lambda _: 1 / 0},
        {"f": lambda x: x.__setitem__(0, 9.0)},
        {"f": lambda x: 1j * x},
        {"f": lambda x: x * np.nan},
        {"f": lambda _: None},
        {"f": lambda x: x.astype(str)[::-1].astype(object)[:1]},
    ],
)
def test_a_function_that_fails_is_an_error_of_ours(functions: Any) -> None:
    refused(lambda: fit("y ~ f(x) + (1 | g)", functions=functions), BayesLMMError)


def test_a_grouping_factor_of_three_thousand_columns_is_refused_at_once() -> None:
    for joined in "/:*":
        refused(lambda joined=joined: fit("y ~ x + (1 | " + joined.join(f"v{i}" for i in range(3000)) + ")"), FormulaLimitError)


# ------------------------------------------------------------------------------------------------------------ the fit


@pytest.mark.parametrize("verb", ["tidy", "summary", "anova", "contrast", "emmeans"])
@pytest.mark.parametrize(
    "option", [{"df": "satterthwait"}, {"df": 3}, {"df": ""}, {"vcov": "CR9"}, {"vcov": 3}, {"information": "foo"}], ids=str
)
def test_degrees_of_freedom_and_covariances_that_do_not_exist_are_refused(found: blm.Fit, verb: str, option: dict[str, Any]) -> None:
    subject = {"contrast": ("x = 0",), "emmeans": ("arm",)}.get(verb, ())
    more = {"df": "kenward-roger"} if "information" in option else {}
    refused(lambda: getattr(found, verb)(*subject, **more, **option), SpecificationError)


REFUSED: dict[str, Callable[[blm.Fit], Any]] = {
    "effects": lambda f: f.tidy("foo"),
    "level of confidence 95": lambda f: f.tidy(conf_int=True, conf_level=95),
    "level of confidence in words": lambda f: f.tidy(conf_int=True, conf_level="95%"),
    "level of confidence True": lambda f: f.predict(interval="confidence", conf_level=True),
    "method of intervals": lambda f: f.tidy(conf_int=True, conf_method="foo"),
    "type of F tests": lambda f: f.anova(4),
    "weights of a contrast too few": lambda f: f.contrast([1, 0]),
    "weights of a contrast too many": lambda f: f.contrast(np.ones((2, 5))),
    "contrast of no coefficient": lambda f: f.contrast("foo = 0"),
    "half a contrast": lambda f: f.contrast("x ="),
    "product of coefficients": lambda f: f.contrast("x * arm[T.TRT] = 0"),
    "contrast with code": lambda f: f.contrast("__import__('os').getcwd()"),
    "contrast of NaN": lambda f: f.contrast([np.nan, 0, 0]),
    "contrast of nothing": lambda f: f.contrast(None),
    "contrast nested deeply": lambda f: f.contrast("(" * 5000 + "x" + ")" * 5000),
    "right-hand sides": lambda f: f.contrast(np.eye(3), rhs=[1, 2]),
    "right-hand side in words": lambda f: f.contrast([0, 1, 0], rhs="a"),
    "means of nothing known": lambda f: f.emmeans("foo"),
    "means by nothing known": lambda f: f.emmeans("arm", by="foo"),
    "means of a grouping factor": lambda f: f.emmeans("g"),
    "means at no mapping": lambda f: f.emmeans("arm", at=3),
    "means at text": lambda f: f.emmeans("arm", at={"x": "a"}),
    "means at NaN": lambda f: f.emmeans("arm", at={"x": np.nan}),
    "means at a new level": lambda f: f.emmeans("arm", at={"arm": "NEW"}),
    "means weighted": lambda f: f.emmeans("arm", weights="foo"),
    "means adjusted": lambda f: f.emmeans("arm").pairs(adjust="foo"),
    "contrasts of means": lambda f: f.emmeans("arm").contrast([1, 2, 3]),
    "trends of a factor": lambda f: f.emtrends("arm"),
    "trends of the response": lambda f: f.emtrends("y"),
    "level of prediction": lambda f: f.predict(level="foo"),
    "kind of interval": lambda f: f.predict(interval=True),
    "new levels": lambda f: f.predict(new_levels="sample"),
    "an offset for the rows of the fit": lambda f: f.predict(offset=np.ones(3)),
    "an offset that the model does not have": lambda f: f.predict(visits(), offset=np.ones(60)),
    "level of fitted values": lambda f: f.fitted("foo"),
    "kind of residuals": lambda f: f.residuals(3),  # type: ignore[arg-type]
    "augmented text": lambda f: f.augment("abc"),
    "no simulation": lambda f: f.simulate(0),
    "half a simulation": lambda f: f.simulate(1.5),  # type: ignore[arg-type]
    "simulations in words": lambda f: f.simulate("a"),  # type: ignore[arg-type]
    "seed in words": lambda f: f.simulate(1, seed="a"),  # type: ignore[arg-type]
    "seed below 0": lambda f: f.simulate(1, seed=-1),
    "parameters that are none": lambda f: f.model.simulate(None),  # type: ignore[arg-type]
    "parameters missing": lambda f: f.model.simulate({}),
    "parameters unknown": lambda f: f.model.simulate({"alpha": [1, 1, 1], "theta": [1, 0, 1], "sigma": 1, "foo": 1}),
    "alpha in words": lambda f: f.model.simulate({"alpha": "a", "theta": [1, 0, 1], "sigma": 1}),
    "alpha too short": lambda f: f.model.simulate({"alpha": [1], "theta": [1, 0, 1], "sigma": 1}),
    "theta too short": lambda f: f.model.simulate({"alpha": [1, 1, 1], "theta": [1], "sigma": 1}),
    "sigma below 0": lambda f: f.model.simulate({"alpha": [1, 1, 1], "theta": [1, 0, 1], "sigma": -1}),
    "response too short": lambda f: f.refit(np.ones(3)),
    "response constant": lambda f: f.refit(np.ones(60)),
    "response of text": lambda f: f.refit(["a"] * 60),
    "response with NaN": lambda f: f.refit(np.where(np.arange(60) == 3, np.nan, f.model.y)),
    "response with inf": lambda f: f.refit(np.where(np.arange(60) == 3, np.inf, f.model.y)),
    "response complex": lambda f: f.refit(f.model.y + 1j),
    "response in another order": lambda f: f.refit(visits()["y"].iloc[::-1]),
    "response twice": lambda f: f.refit(np.ones((60, 2))),
    "update to no column": lambda f: f.update(". ~ . + zz"),
    "update of no argument": lambda f: f.update(foo=3),
    "update by another method": lambda f: f.update(method="foo"),
    "update to nothing": lambda f: f.update(""),
    "method of limits": lambda f: f.confint("foo"),
    "level of limits": lambda f: f.confint(level=95),
    "no replicates": lambda f: f.bootstrap(0),
    "replicates in words": lambda f: f.bootstrap("a"),  # type: ignore[arg-type]
    "seed of replicates": lambda f: f.bootstrap(2, seed="a"),  # type: ignore[arg-type]
    "kind of replicates": lambda f: f.bootstrap(2, kind="foo"),
    "influence of no group": lambda f: f.influence("foo"),
    "report nowhere": lambda f: f.report(3),  # type: ignore[arg-type]
    "no models": lambda f: blm.compare_models({}),
    "models by nothing": lambda f: blm.compare_models({"a": f}, by="foo"),
    "a number for a model": lambda f: blm.compare_models({"a": 3}),
    "no draws": lambda f: f.model.sample(draws=0),
    "no chains": lambda f: f.model.sample(chains=0),
    "seed of draws": lambda f: f.model.sample(draws=10, seed="a"),  # type: ignore[arg-type]
    "method of draws": lambda f: f.model.sample(method="foo"),
    "form of a graph": lambda f: f.model.to_pymc("foo"),
    "a program of no SAS": lambda f: blm.proc_mixed("proc mixed data=a; model y=x; run", visits()),
    "a formula without a covariance": lambda f: blm.mmrm("y ~ x", visits()),
    "ratio of one": lambda f: blm.lrt(f),
    "ratio with a number": lambda f: blm.lrt(f, 3),
    "ratio of other rows": lambda f: blm.lrt(f, fit(MODEL, visits().iloc[:50])),
    "ratio of other responses": lambda f: blm.lrt(f, fit(MODEL, visits(2))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_argument_that_makes_no_sense_is_refused(found: blm.Fit, what: str) -> None:
    refused(lambda: REFUSED[what](found))


# ------------------------------------------------------------------------------------------------------------- prediction


def test_a_missing_value_in_new_data_is_one_warning_with_its_row(found: blm.Fit) -> None:
    for column, values in (("x", [1.0, np.nan, 2.0]), ("g", ["s00", None, "s01"]), ("arm", ["CTL", None, "TRT"])):
        new = visits().iloc[:3].assign(**{column: values})
        predicted, (warning,) = warned(lambda new=new: found.predict(new))
        assert predicted["estimate"].isna().tolist() == [False, True, False]
        assert (warning.where, bool(warning.remedy)) == ("rows 1", True)


@pytest.mark.parametrize(
    "new",
    ["abc", 5, np.ones((3, 3)), [{"x": 1}], {"x": 0.1, "arm": "TRT", "g": "s00"}, visits().iloc[5], visits().drop(columns="x")],
    ids=str,
)
def test_new_data_that_are_none_are_refused(found: blm.Fit, new: Any) -> None:
    refused(lambda: found.predict(new))


def test_no_rows_have_no_predictions(found: blm.Fit) -> None:
    assert found.predict(visits().iloc[:0]).shape == (0, 1)


# ------------------------------------------------------------------------------------------------------------------ paths

NO_PATHS: list[Any] = [None, 3, "", "a\0b", ["a"]]


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_what_is_no_path_is_refused_by_every_door(found: blm.Fit, path: Any) -> None:
    for verb in (found.save, found.model.write, blm.load, blm.read_model):
        refused(lambda verb=verb: verb(path), BayesLMMError)


def test_a_device_or_a_pipe_is_not_replaced_by_a_file(found: blm.Fit, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: found.save(tmp_path / "pipe"), StoreError)
    refused(lambda: found.model.write(tmp_path / "pipe"), StoreError)
    assert (tmp_path / "pipe").is_fifo()


def test_no_folder_is_no_place_for_a_file(found: blm.Fit, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "fit", tmp_path / ("a" * 300), "/proc/fit"):
        assert "bytes" in refused(lambda path=path: found.save(path), StoreError).where
