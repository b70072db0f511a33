"""Priors of presets, held to what the packages themselves say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as blm
from bayeslmm.bayes.log_posterior.density import density
from tests.bayes import designs

bambi = pytest.importorskip("bambi")

FORMULAS = {
    "intercepts": ("y ~ x + (1 | g)", "y ~ x + (1 | g)"),
    "two covariates": ("y ~ x + w + (1 | g)", "y ~ x + w + (1 | g)"),
    "independent slopes": ("y ~ x + (x || g)", "y ~ x + (1 | g) + (0 + x | g)"),
    "crossed": ("y ~ x * w + (1 | g) + (1 | h)", "y ~ x * w + (1 | g) + (1 | h)"),
    "a factor": ("y ~ x + h + (1 | g)", "y ~ x + h + (1 | g)"),
}
ALIKE = [
    "y ~ w * inner + (1 | g)",
    "y ~ 0 + x + (1 | g)",
    "y ~ 1 + (1 | g)",
    "y ~ x + (0 + x | g)",
    "y ~ 0 + h + (1 | g)",
    "y ~ x:w + (1 | g)",
    "y ~ x",
]
MORE = {
    **{formula: (formula, formula) for formula in ALIKE},
    "slopes of two factors": ("y ~ x + w + (x || g) + (w || h)", "y ~ x + w + (1 | g) + (0 + x | g) + (1 | h) + (0 + w | h)"),
    "nested": ("y ~ x + (1 | g / inner)", "y ~ x + (1 | g) + (1 | g:inner)"),
    "levels apart": ("y ~ x + diag(0 + h | g)", "y ~ x + (0 + h | g)"),
    "a function": ("log(y) ~ x + (1 | g)", "np.log(y) ~ x + (1 | g)"),
}
"""Bambi's own formulas beside ours, for the long form."""


def frame(seed: int = 1) -> pd.DataFrame:
    return designs.grouped(seed).assign(x=lambda d: 3.0 * d["x"] + 7.0, y=lambda d: 20.0 + 4.0 * d["y"])


@pytest.mark.parametrize("name", list(FORMULAS))
def test_the_bambi_preset_is_what_bambi_builds(name: str) -> None:
    held_to_bambi(*FORMULAS[name], frame())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("name", list(MORE))
def test_the_bambi_preset_is_what_bambi_builds_of_any_formula(name: str, seed: int) -> None:
    held_to_bambi(*MORE[name], frame(seed))


def held_to_bambi(ours: str, theirs: str, data: pd.DataFrame) -> None:
    """Every prior of the preset beside that of Bambi's own build."""
    rows = density(blm.LMM(ours, data, check="warn").problem, blm.Priors(preset="bambi")).priors
    built = bambi.Model(theirs, data)
    built.build()
    mean = built.parameters["mu"]
    intercept = [] if mean.intercept_term is None else [mean.intercept_term.prior.args]
    found = [*intercept, *(term.prior.args for term in mean.common_terms.values())]
    flat = np.concatenate([np.stack(np.broadcast_arrays(*map(np.atleast_1d, (a["mu"], a["sigma"])))).T for a in found])
    np.testing.assert_allclose([row.prior.parameters for row in rows.alpha], flat, rtol=1e-9)
    scales = [np.atleast_1d(term.prior.args["sigma"].args["sigma"]) for term in mean.group_specific_terms.values()]
    own = [row.prior.parameters[-1] for matrix in rows.terms for row in matrix.sds]
    np.testing.assert_allclose(own, np.concatenate([np.zeros(0), *scales]), rtol=1e-9)
    sigma = built.parameters["sigma"].prior
    assert rows.sigma is not None
    np.testing.assert_allclose(rows.sigma.prior.parameters, [sigma.args["nu"], sigma.args["sigma"]], rtol=1e-9)


PRINTED: dict[str, dict[str, dict[str, Any]]] = {
    "brms": {
        "alpha Intercept": {"family": "student_t", "parameters": (3.0, 288.7, 59.3)},
        "alpha Days": {"family": "flat", "parameters": ()},
        "sd Subject/Intercept": {"family": "half_t", "parameters": (3.0, 59.3)},
        "sd Subject/Days": {"family": "half_t", "parameters": (3.0, 59.3)},
        "corr Subject": {"family": "lkj", "parameters": (1.0,)},
        "sigma": {"family": "half_t", "parameters": (3.0, 59.3)},
    },
    "rstanarm": {
        "alpha Intercept": {"family": "normal", "parameters": (298.51, 140.82)},
        "alpha Days": {"family": "normal", "parameters": (0.0, 48.89)},
        "sigma": {"family": "exponential", "parameters": (0.01775,)},
    },
}
"""sleepstudy: `brms::default_prior` and `rstanarm::prior_summary` of `Reaction ~ Days + (Days | Subject)`."""


@pytest.mark.parametrize("preset", list(PRINTED))
def test_the_presets_of_stan_packages_are_what_these_print(preset: str) -> None:
    model = blm.LMM("Reaction ~ Days + (Days | Subject)", blm.load_dataset("sleepstudy"))
    rows = {row.label: row.prior for row in density(model.problem, blm.Priors(preset=preset)).priors.rows()}
    for label, printed in PRINTED[preset].items():
        assert rows[label].family == printed["family"]
        np.testing.assert_allclose(rows[label].parameters, printed["parameters"], rtol=1e-3)


RULES = {
    "sleepstudy": ("lme4/sleepstudy", "Reaction ~ Days + (Days | Subject)", "Reaction", ["Days"]),
    "pastes": ("lme4/Pastes", "strength ~ 1 + (1 | batch / cask)", "strength", []),
    "rail": ("nlme/Rail", "travel ~ 1 + (1 | Rail)", "travel", []),
    "orthodont": ("nlme/Orthodont", "distance ~ age * Sex + (age | Subject)", "distance", ["age"]),
    "oxboys": ("nlme/Oxboys", "height ~ age + (age | Subject)", "height", ["age"]),
}


@pytest.mark.parametrize("name", list(RULES))
def test_the_brms_preset_follows_the_rule_of_its_source(name: str) -> None:
    """`def_scale_prior.brmsterms` in brms' R/priors.R: student_t(3, round(median(y), 1), s) for the intercept of centred columns,
    student_t(3, 0, s) for every sd, s = max(2.5, round(mad(y), 1)), mad times 1.4826; coefficients flat; lkj(1)."""
    data, formula, response, _ = RULES[name]
    frame = blm.load_dataset(data)
    y = frame[response].to_numpy(float)
    middle = float(np.median(y))
    scale = max(2.5, round(1.4826 * float(np.median(np.abs(y - middle))), 1))
    for row in density(blm.LMM(formula, frame).problem, blm.Priors(preset="brms")).priors.rows():
        if row.label == "alpha Intercept":
            assert (row.prior.family, row.centred) == ("student_t", True)
            np.testing.assert_allclose(row.prior.parameters, [3.0, round(middle, 1), scale])
        elif row.kind == "alpha":
            assert row.prior.family == "flat"
        elif row.kind == "corr":
            assert row.prior.parameters == (1.0,)
        else:
            assert row.prior.family == "half_t"
            np.testing.assert_allclose(row.prior.parameters, [3.0, scale])


@pytest.mark.parametrize("name", list(RULES))
def test_the_rstanarm_preset_follows_the_rule_of_its_vignette(name: str) -> None:
    """The vignette "Prior Distributions for rstanarm Models": normal(mean(y), 2.5 sd(y)) for the intercept of centred columns,
    normal(0, 2.5 sd(y) / sd(x)) for coefficients, exponential(1 / sd(y)) for sigma."""
    data, formula, response, covariates = RULES[name]
    frame = blm.load_dataset(data)
    y = frame[response].to_numpy(float)
    rows = {row.label: row for row in density(blm.LMM(formula, frame).problem, blm.Priors(preset="rstanarm")).priors.rows()}
    assert rows["alpha Intercept"].centred
    np.testing.assert_allclose(rows["alpha Intercept"].prior.parameters, [y.mean(), 2.5 * y.std(ddof=1)])
    for x in covariates:
        expected = 2.5 * y.std(ddof=1) / frame[x].to_numpy(float).std(ddof=1)
        np.testing.assert_allclose(rows[f"alpha {x}"].prior.parameters, [0.0, expected])
    assert rows["sigma"].prior.family == "exponential"
    np.testing.assert_allclose(rows["sigma"].prior.parameters, [1.0 / y.std(ddof=1)])


@pytest.mark.parametrize("preset", ["brms", "rstanarm", "bambi", None])
@pytest.mark.parametrize("word", ["flat", "normal"])
def test_a_word_for_alpha_is_given_whatever_the_preset(word: str, preset: str | None) -> None:
    """Its own scales, and its source, beside sds that keep the preset's."""
    frame = designs.grouped()
    table, alone = (
        blm.LMM("y ~ x + (1 | g)", frame, priors=blm.Priors(alpha=word, preset=name)).priors.frame.set_index("parameter")
        for name in (preset, None)
    )
    assert set(table.loc["alpha", "source"]) == {"default" if (word, preset) == ("flat", None) else "given"}
    assert list(table.loc["alpha", "prior"]) == list(alone.loc["alpha", "prior"])
    assert table.loc["sd", "source"] == (preset or "default")
