"""Arguments and columns that nobody means: each is refused by name, none ends in somebody else's traceback."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.sampling.hierarchical import seed_of_samplers
from bayeslmm.errors import DataError, FormulaError, RankError, SizeError, SpecificationError
from tests.inputs.every_argument import frame
from tests.inputs.frames import fit, model, refused, visits

ROWS = len(visits())


@pytest.mark.parametrize("labels", [[[i % 5] for i in range(ROWS)], [{"a": i % 5} for i in range(ROWS)], [{i % 5} for i in range(ROWS)]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[object]) -> None:
    refused(lambda: fit(data=visits().assign(g=labels)), DataError, "no labels")


def test_tuples_are_labels() -> None:
    data = visits()
    pairs = [(int(g[1:]), "a") for g in data["g"]]
    assert fit(data=data.assign(g=pairs)).criterion == pytest.approx(fit().criterion, rel=1e-12)


@pytest.mark.parametrize("size", [1e300, 1e200])
def test_an_offset_whose_square_is_no_number_is_refused(size: float) -> None:
    offset = size * np.linspace(0.5, 1, ROWS)
    refused(lambda: fit(offset=offset), DataError, "offset")
    refused(lambda: fit("y ~ x + offset(z) + (1 | g)", visits().assign(z=offset)), DataError, "offset")


def test_a_contrast_is_held_against_a_number() -> None:
    for rhs in (np.nan, np.inf, [np.nan]):
        refused(lambda rhs=rhs: fit().contrast({"x": 1}, rhs=rhs), SpecificationError, "rhs")


def test_more_simulations_than_memory_are_refused_at_once() -> None:
    refused(lambda: fit().simulate(10**9), SizeError, "480 GB|simulations")


def test_levels_of_intervals_in_figures_are_checked() -> None:
    for level in (95, 0.0, np.nan):
        refused(lambda level=level: fit().plot.ranef(level=level), SpecificationError, "confidence level")
        refused(lambda level=level: fit().plot.lines("x", level=level), SpecificationError, "confidence level")


def test_a_report_takes_a_posterior() -> None:
    refused(lambda: fit().report(df="asymptotic", posterior=3), SpecificationError, "posterior is a int")


def test_a_data_set_has_a_name_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    refused(lambda: blm.load_dataset(3), SpecificationError)
    refused(lambda: blm.load_dataset("lme4/nope"), SpecificationError, "nope")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [["a"] * ROWS, [[1.0], [1.0, 2.0]], object()], ids=["text", "ragged", "object"])
def test_a_function_that_gives_no_numbers_is_named(value: object) -> None:
    refused(lambda: fit("y ~ f(x) + (1 | g)", functions={"f": lambda _: value}), FormulaError, "'f' gives")


@pytest.mark.parametrize("formula", ["y ~ label + (1 | g)", "y ~ x + label + (1 | g)", "y ~ x * label + (1 | g)"])
def test_a_factor_of_too_many_levels_is_named(formula: str) -> None:
    data = frame()
    error = refused(lambda: blm.LMM(formula, data.assign(label=[f"row {i}" for i in range(len(data))])).fit())
    assert isinstance(error, RankError)
    assert f"label: {len(data) - 1} columns" in error.where


def test_models_that_come_one_by_one_are_ranked_as_a_list_is() -> None:
    fits = [blm.LMM(formula, frame()).fit("ML") for formula in ("y ~ x + (1 | g)", "y ~ (1 | g)")]
    for given in ((one for one in fits), dict(enumerate(fits)).values(), iter(fits), tuple(fits)):
        pd.testing.assert_frame_equal(blm.compare_models(given), blm.compare_models(fits))


@pytest.mark.parametrize(
    "given", [np.array(3), pd.DataFrame({"a": [1]}), 3, "fit", set(), iter([])], ids=lambda value: type(value).__name__
)
def test_what_holds_no_models_is_not_ranked(given: Any) -> None:
    assert isinstance(refused(lambda: blm.compare_models(given)), SpecificationError)


@pytest.mark.parametrize(
    "odd", [pd.DataFrame({"g": [1.0]}), np.array(["g", "h"]), pd.Series(["g"])], ids=lambda value: type(value).__name__
)
def test_a_function_as_numerator_is_not_divided_by_what_is_no_word(odd: Any) -> None:
    assert isinstance(refused(lambda: fit().ratio(lambda found: 1.0, odd)), SpecificationError)


@pytest.mark.parametrize("power", [-300, -200, 200, 299])
def test_a_sigma_whose_square_is_no_number_beside_the_response_is_refused(power: int) -> None:
    """Whatever the units: sigma and response multiplied alike are the same model."""
    data, model = visits(), "y ~ x + (1 | g)"
    sigma = 10.0**power
    refused(lambda: fit(sigma=sigma), SpecificationError, "sigma")
    refused(lambda: blm.fit_by("y ~ x", data, by="arm", sigma=sigma), DataError, "none of")
    refused(lambda: blm.assume(model, data.drop(columns="y"), alpha=[0.0, 1.0], sd=0.5, sigma=sigma), SpecificationError, "sigma")
    unit = 10.0 ** (power / 2)
    assert fit(data=data.assign(y=data["y"] * unit), sigma=unit).theta == pytest.approx(fit(sigma=1.0).theta, rel=1e-6)


def test_a_class_variable_of_pandas_text_has_missing_values() -> None:
    data = frame()
    gaps = {name: data[name].where(np.arange(len(data)) != at) for name, at in (("f", 2), ("g", 5))}
    for where in ("", "where f = 'a' or f > 'a';", "where not missing(f);"):
        program = f"proc mixed; class g f; {where} model y = x f / solution; random intercept / subject=g; run;"
        text = blm.proc_mixed(program, data.assign(**{name: gap.astype("string") for name, gap in gaps.items()}))
        plain = blm.proc_mixed(program, data.assign(**{name: gap.astype(object) for name, gap in gaps.items()}))
        pd.testing.assert_frame_equal(text["SolutionF"], plain["SolutionF"])


def test_groups_are_no_response() -> None:
    refused(lambda: fit().refit(visits().groupby("g")), SpecificationError, "y is")


@pytest.mark.parametrize("given", [{"draws": 0}, {"chains": 0}, {"draws": np.ones(2)}, {"method": ""}, {"method": pd.NA}], ids=str)
def test_what_is_drawn_for_a_comparison_of_models_is_checked(given: dict[str, Any]) -> None:
    """0 draws are not the usual number of them."""
    models = {"a": model(), "b": model()}
    refused(lambda: blm.compare_models(models, by="loo", **given), SpecificationError, next(iter(given)))


@pytest.mark.parametrize(
    "given", [{"sampler_options": 3}, {"sampler_options": []}, {"sampler": ""}, {"sampler": np.ones(2)}, {"tune": -1}], ids=str
)
def test_options_of_the_hierarchical_sampler_are_checked(given: dict[str, Any]) -> None:
    refused(lambda: model().sample(method="hierarchical", **given), SpecificationError, next(iter(given)))


@pytest.mark.parametrize("adjust", ["mvt", "dunnett", "tukey", "holm"])
def test_a_single_mean_has_its_letter(adjust: str) -> None:
    letters = fit("y ~ arm + (1 | g)").emmeans("arm").letters(by="arm", adjust=adjust)
    assert letters["letters"].tolist() == ["a", "a"]


def test_a_covariance_is_a_word_whatever_the_degrees_of_freedom() -> None:
    for vcov in (np.ones(2), pd.DataFrame({"p": [1.0]}), pd.NA):
        refused(lambda vcov=vcov: fit().tidy(vcov=vcov, df="asymptotic"), SpecificationError, "vcov")


def test_every_seed_is_one_number_for_samplers_of_others() -> None:
    seeds = [0, 7, 2**64 - 1, 10**40, [1, 2], [2, 1], np.array([3]), np.int64(5)]
    numbers = [seed_of_samplers(seed) for seed in seeds]
    assert numbers == [seed_of_samplers(seed) for seed in seeds]
    assert numbers[:3] == seeds[:3]
    assert len(set(numbers)) == len(seeds)
    assert all(type(number) is int and number < 2**64 for number in numbers)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10**40, [1, 2]], ids=str)
def test_the_hierarchical_sampler_takes_every_seed(seed: Any) -> None:
    first, second = (model().sample(draws=5, chains=1, tune=5, seed=seed, method="hierarchical") for _ in range(2))
    np.testing.assert_array_equal(first.draws.alpha, second.draws.alpha)
