"""Priors: what can be said, and what cannot."""

from __future__ import annotations

import ast
import copy
import math
import pickle
import re
from typing import Any

import pytest

from bayeslmm.errors import PriorError
from bayeslmm.specification.prior_families import Prior
from bayeslmm.specification.priors import _OTHER_WORDS, Priors
from tests.covariance.cases import cases


def test_without_a_word_everything_is_left_to_the_data() -> None:
    priors = Priors()
    assert (priors.alpha, priors.sd, priors.corr, priors.sigma, priors.residual, priors.preset) == ("flat", None, None, None, (), None)


def test_the_sd_of_a_term_goes_before_that_of_its_group() -> None:
    priors = Priors(sd={"Subject": ("half_normal", 5), "Subject/Days": ("exponential", 0.1)})
    assert priors.sd_of("Subject", "Intercept") == Prior("half_normal", (5.0,))
    assert priors.sd_of("Subject", "Days") == Prior("exponential", (0.1,))
    assert priors.sd_of("Item", "Intercept") is None


def test_one_prior_for_all_sds() -> None:
    assert Priors(sd=("half_t", 3, 10)).sd_of("any", "term") == Prior("half_t", (3.0, 10.0))


def test_a_half_t_may_name_its_location_of_zero() -> None:
    assert Priors(sigma=("half_t", 3, 0, 2.5)) == Priors(sigma=("half_t", 3, 2.5))


def test_a_scale_left_out_is_filled_in_from_the_data() -> None:
    prior = Priors(sd=("half_t", 3)).sd_of("g", "Intercept")
    assert prior is not None
    assert prior.autoscaled
    assert prior.fill_scale(2.5) == Prior("half_t", (3.0, 2.5))
    assert Prior("exponential").fill_scale(4.0) == Prior("exponential", (0.25,))
    assert Prior("half_normal", (1.0,)).fill_scale(9.0) == Prior("half_normal", (1.0,))


def test_coefficients_are_named() -> None:
    priors = Priors(alpha={"Days": ("normal", 0, 10), "Intercept": "flat"})
    assert priors.alpha_of("Days") == Prior("normal", (0.0, 10.0))
    assert priors.alpha_of("Intercept") == Prior("flat")
    assert priors.alpha_of("x") is None


def test_the_bambi_preset_has_normal_coefficients_unless_told_otherwise() -> None:
    assert Priors(preset="bambi").alpha == "normal"
    assert Priors(preset="bambi", alpha="flat").alpha == "flat"
    assert Priors(preset="brms").alpha == "flat"


def test_parameters_of_the_residual_structure_go_by_name() -> None:
    assert Priors(rho=("uniform", 0, 1)) == Priors(residual={"rho": ("uniform", 0, 1)})
    assert Priors(residual={"sd[VIS1]": ("half_normal", 3)}).residual_of("sd[VIS1]") == Prior("half_normal", (3.0,))


def test_priors_that_say_the_same_are_equal() -> None:
    one = Priors(sd={"a": ("half_normal", 1), "b": "flat"}, corr=("lkj", 2))
    other = Priors(sd={"b": ("flat",), "a": ["half_normal", 1.0]}, corr=["lkj", 2])
    assert one == other
    assert hash(one) == hash(other)


SAID = [
    Priors(),
    Priors(preset="bambi", alpha="flat"),
    Priors(
        alpha={"x": ("normal", 1, 2)},
        sd={"g": ("gamma", 2.5, 0)},
        corr={"g": ("lkj", 3)},
        sigma=("inverse_gamma", 1, 2),
        rho=("normal", 0, 1),
    ),
]


@pytest.mark.parametrize("priors", SAID)
def test_what_was_told_says_the_same_again(priors: Priors) -> None:
    assert Priors(**priors.as_dict()) == priors
    assert pickle.loads(pickle.dumps(priors)) == priors  # noqa: S301
    assert copy.deepcopy(priors) == priors


def test_priors_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Priors().alpha = "normal"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"preset": "stan"}, "preset"),
        ({"alpha": "cauchy"}, "alpha"),
        ({"alpha": {"x": ("half_t", 3, 1)}}, "alpha 'x'"),
        ({"alpha": {"x": ("normal", 0, 0)}}, "sd of the prior of alpha 'x' is 0"),
        ({"alpha": {"": "flat"}}, "no name"),
        ({"sd": ("half_t", -1, 1)}, "df of the prior of sd is -1"),
        ({"sd": ("half_normal", 0)}, "scale of the prior of sd is 0"),
        ({"sd": ("half_normal", math.nan)}, "not a finite number"),
        ({"sd": ("half_normal", math.inf)}, "not a finite number"),
        ({"sd": ("half_normal", "5")}, "not a finite number"),
        ({"sd": ("half_normal", True)}, "not a finite number"),
        ({"sd": ("half_normal", 1, 2)}, "2 parameters"),
        ({"sd": ("half_t", 3, 1, 2)}, "3 parameters"),
        ({"sd": ("inverse_gamma", 1)}, "1 parameters"),
        ({"sd": ("laplace", 0, 1)}, "cannot be used for sd"),
        ({"sd": ("student_t", 3, 1, 2)}, "around 1"),
        ({"sd": ("uniform", -3, -1)}, "no positive number"),
        ({"sd": {"Subject": ("fixed", -1)}}, "value of the prior of sd 'Subject' is -1"),
        ({"sd": 3}, "not (family"),
        ({"sd": ()}, "not (family"),
        ({"sd": {"Subject/Days": ("half_normal", -1)}}, "sd 'Subject/Days'"),
        ({"sigma": ("uniform", 2, 1)}, "empty"),
        ({"corr": ("lkj", 0)}, "eta of the prior of corr is 0"),
        ({"corr": ("half_t", 3, 1)}, "cannot be used for corr"),
        ({"rho": ("lkj", 1)}, "used for 'rho'"),
        ({"residual": {"rho": ("lkj", 1)}}, "residual 'rho'"),
    ],
)
def test_a_prior_that_is_none_is_refused_by_name(said: dict[str, object], word: str) -> None:
    with pytest.raises(PriorError) as caught:
        Priors(**said)  # type: ignore[arg-type]
    assert word in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(
    "said", [("student_t", 4, 0, 5), "student_t(4, 0, 5)", ["student_t", 4, 0, 5], Prior("student_t", (4.0, 0.0, 5.0))]
)
def test_one_prior_for_alpha_is_told_how_to_name_the_slopes(said: Any) -> None:
    with pytest.raises(PriorError, match="intercept") as caught:
        Priors(alpha=said)
    shown = re.search(r"alpha=(\{.*?\})", caught.value.remedy)
    assert shown is not None
    assert Priors(alpha=ast.literal_eval(shown[1])).alpha_of("x") == Prior("student_t", (4.0, 0.0, 5.0))


TERMS = {"Subject": ("Intercept", "Days")}


@pytest.mark.parametrize(
    ("priors", "near"),
    [
        (Priors(alpha={"Dais": ("normal", 0, 1)}), "Days"),
        (Priors(sd={"Subjekt": "flat"}), "Subject"),
        (Priors(sd={"Subject/Day": "flat"}), "Subject/Days"),
        (Priors(corr={"Item": ("lkj", 1)}), "Subject"),
        (Priors(rho=("uniform", 0, 1)), "leave it out"),
        (Priors(**{"1|Subject": ("half_normal", 2)}), 'Priors(sd={"Subject": ...})'),
        (Priors(**{"Days | Subject": "HalfNormal(2)"}), 'Priors(sd={"Subject": ...})'),
        (Priors(Subject=("half_normal", 2)), 'Priors(sd={"Subject": ...})'),
    ],
)
def test_a_prior_of_a_parameter_that_the_model_has_not_is_refused(priors: Priors, near: str) -> None:
    with pytest.raises(PriorError) as caught:
        priors.require_known(["Intercept", "Days"], TERMS)
    assert near in caught.value.remedy


def test_priors_of_parameters_that_the_model_has_are_let_through() -> None:
    priors = Priors(
        alpha={"Days": "flat"}, sd={"Subject": "flat", "Subject/Days": "flat"}, corr={"Subject": ("lkj", 1)}, rho=("uniform", -1, 1)
    )
    priors.require_known(["Intercept", "Days"], TERMS, ["rho"])


def test_the_words_of_brms_are_read_as_their_halves() -> None:
    words = {"student_t": (3, 0, 2.5), "cauchy": (0, 2.0), "normal": (0, 4.0)}
    halves = {"student_t": ("half_t", (3.0, 2.5)), "cauchy": ("half_cauchy", (2.0,)), "normal": ("half_normal", (4.0,))}
    for word, numbers in words.items():
        assert Priors(sd=(word, *numbers)).sd_of("g", "Intercept") == Prior(*halves[word])
        assert Priors(sigma=(word, *numbers)).sigma_of() == Prior(*halves[word])
        assert Priors(residual={"expon": (word, *numbers)}).residual_of("expon") == Prior(word, tuple(map(float, numbers)))
    assert Priors(sigma=("normal", 1, 2)).sigma_of() == Prior("truncated_normal", (1.0, 2.0))


@pytest.mark.parametrize("said", ["x:z", "z:x"])
def test_an_interaction_is_the_same_in_either_order(said: str) -> None:
    priors = Priors(alpha={said: ("cauchy", 0, 1)})
    priors.require_known(["Intercept", "x", "z", "x:z"], {})
    assert priors.alpha_of("x:z") == priors.alpha_of("z:x") == Prior("cauchy", (0.0, 1.0))


@pytest.mark.parametrize("key", ["slopes", "b"])
def test_one_prior_for_all_slopes_leaves_the_intercept_and_named_ones(key: str) -> None:
    priors = Priors(alpha={key: ("laplace", 0, 1), "z": ("normal", 0, 3)})
    priors.require_known(["Intercept", "x", "z"], {})
    assert priors.alpha_of("x") == Prior("laplace", (0.0, 1.0))
    assert priors.alpha_of("z") == Prior("normal", (0.0, 3.0))
    assert priors.alpha_of("Intercept") is None
    with pytest.raises(PriorError):
        priors.require_known(["Intercept"], {})


@pytest.mark.parametrize(
    ("word", "given", "told"),
    [
        ("b", ("normal", 0, 1), "alpha="),
        ("beta", ("normal", 0, 1), "alpha="),
        ("Intercept", ("normal", 0, 1), "alpha="),
        ("x", ("normal", 0, 1), 'alpha={"x"'),
        ("sds", ("exponential", 1), "sd="),
        ("sigma", ("exponential", 1), "sigma="),
    ],
)
def test_words_of_other_packages_are_told_where_such_a_prior_stands(word: str, given: tuple[object, ...], told: str) -> None:
    said = Priors(residual={word: given})
    with pytest.raises(PriorError) as caught:
        said.require_known(["Intercept", "x"], {"g": ["Intercept"]}, [])
    assert told in caught.value.remedy


def test_correlations_have_their_own_argument() -> None:
    for word in ("cor", "L", "rho"):
        with pytest.raises(PriorError, match="corr="):
            Priors(residual={word: ("lkj", 2)})


@pytest.mark.parametrize("value", [1, ("normal", 0, 1), "flat", None])
@pytest.mark.parametrize("word", sorted(_OTHER_WORDS.keys() - {"sigma"}))
def test_a_keyword_of_another_package_is_told_its_own_whatever_its_value(word: str, value: object) -> None:
    with pytest.raises(PriorError, match=re.escape(f"write Priors({_OTHER_WORDS[word]})")) as refusal:
        Priors(**{word: value})
    assert "residual" not in str(refusal.value)


def test_no_parameter_of_a_structure_has_the_keyword_of_another_package() -> None:
    for case in cases():
        assert not {parameter.kind for parameter in case.build().natural_parameters} & _OTHER_WORDS.keys(), case.label


def test_a_keyword_is_not_called_residual_before_the_model_is_known() -> None:
    with pytest.raises(PriorError, match=re.escape("the prior of 'Days' is not (family, *parameters)")):
        Priors(Days=1)


@pytest.mark.parametrize("family", ["halfnormal", "half-normal", "half_norm"])
def test_a_family_that_is_nearly_one_is_told(family: str) -> None:
    with pytest.raises(PriorError, match="did you mean 'half_normal'"):
        Priors(sd=(family, 1))
