"""The calibration suite: scenarios that a right sampler passes, planted errors that it must find.

`make sbc` runs all of it as tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

import bayeslmm as blm
from bayeslmm.bayes.calibration import REPLICATION_DRAWS, Calibration, calibrate, collapsed_draws
from bayeslmm.bayes.held_out import on_other_problem
from bayeslmm.bayes.log_posterior.density import Density, density
from bayeslmm.bayes.posterior.data import PosteriorDraws
from bayeslmm.bayes.sampling.importance import resample_systematically, sample_importance
from bayeslmm.bayes.sampling.mode import find_mode
from bayeslmm.bayes.sampling.random_effects import joint_draws
from bayeslmm.bayes.sampling.sample import OVERSAMPLE, sample_by_polynomials
from bayeslmm.likelihood.problem import build_problem
from tests.bayes.designs import grouped, relationship

REPLICATIONS, SEED = 1000, 7

FALSE_ALARM = 1e-3
"""How often the eight scenarios together may fail though every sampler is right. They make 66 tests: at the 1 % of a single calibration for
each, one run of thirteen would fail by chance."""

SCENARIOS: dict[str, tuple[str, dict[str, Any]]] = {
    "intercepts": ("y ~ x + (1 | g)", {}),
    "slopes": ("y ~ x + (x | g)", {}),
    "independent slopes": ("y ~ x + (x || g)", {}),
    "crossed": ("y ~ x + (1 | g) + (1 | h)", {}),
    "nested, weights": ("y ~ x + (1 | g / inner)", {"weights": "w"}),
    "related": ("y ~ x + (1 | g)", {"relationship": {"g": relationship(8)}}),
    "serial errors": ("y ~ x + (1 | g)", {"residual": "ar1(visit | g)"}),
    "variance function": ("y ~ x + (1 | g)", {"variance": "exp(x)"}),
}


def scenario(name: str, alpha: str = "normal") -> blm.LMM:
    formula, more = SCENARIOS[name]
    # tails of the default half-t(3) make data that no design would meet; the sampler is what is tested here. An exponent of 13, which the
    # default normal(0, 3.66) draws three times in a thousand, gives rows of one group sds in a ratio of 1e11: V is lost in rounding.
    residual = {"expon": ("normal", 0.0, 1.0)} if "variance" in more else None
    priors = blm.Priors(alpha=alpha, sd=("half_normal", 1.5), sigma=("half_normal", 1.5), residual=residual)
    return blm.LMM(formula, grouped(), priors=priors, check="warn", **more)


def no_volume(target: Density, draws: int, rng: np.random.Generator) -> PosteriorDraws:
    """The Jacobian of the axes is forgotten."""
    bare = target.without_volume()
    # by weights, trusted or not: where an sd may be 0 this density has no integral, and a Markov chain would wander for hours
    found = sample_importance(bare.values, find_mode(bare), REPLICATION_DRAWS, rng)
    phi = found.points[resample_systematically(found.weights, draws, rng)]
    joint = joint_draws(target, phi, rng)
    return PosteriorDraws(phi, joint.alpha, joint.beta, np.zeros(draws))


def narrow_alpha(target: Density, draws: int, rng: np.random.Generator) -> PosteriorDraws:
    """alpha is drawn with .7 of its sd."""
    found = collapsed_draws(target, draws, rng)
    centre = found.alpha.mean(0)
    return replace(found, alpha=centre + 0.7 * (found.alpha - centre))


def no_weights(target: Density, draws: int, rng: np.random.Generator) -> PosteriorDraws:
    """The likelihood does not see the weights."""
    return collapsed_draws(on_other_problem(target, build_problem(replace(target.problem.design, weights=None))), draws, rng)


@dataclass(slots=True)
class PolynomialSampler:
    """Draws by polynomials as `LMM.sample` makes them of an expensive density, by weights of the density itself where they are not fine.

    by_polynomials, in_all : posteriors drawn so far
    """

    by_polynomials: int = 0
    in_all: int = 0

    def __call__(self, target: Density, draws: int, rng: np.random.Generator) -> PosteriorDraws:
        self.in_all += 1
        found = sample_by_polynomials(target, find_mode(target), REPLICATION_DRAWS // OVERSAMPLE, 1, rng, rng, needed=False)
        if found is None:
            return collapsed_draws(target, draws, rng)
        self.by_polynomials += 1
        run, joint = found
        return PosteriorDraws(run.phi[:draws], joint.alpha[:draws], tuple(block[:draws] for block in joint.beta), np.zeros(draws))


def _of_both(*prior: str | float) -> dict[str, tuple[str | float, ...]]:
    """A prior of both coefficients."""
    return dict.fromkeys(("Intercept", "x"), prior)


EXPENSIVE: dict[str, tuple[str, int]] = {
    "slopes of many rows": ("(x | g)", 300),
    "crossed slopes": ("(x || g) + (x || k)", 100),
    "many columns": ("(1 | g)", 36),
    "unstructured errors": ("us(visit | g)", 100),
}
"""Random effects or structure of the errors, and how many replications are done in half a minute."""

HALF_NORMAL = ("half_normal", 1.5)
OTHER_PRIORS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "held sigma": ("y ~ x + (x | g)", {"sigma": 0.8}, {"alpha": "normal", "sd": HALF_NORMAL}, 300),
    "held sd": ("y ~ x + (x || g)", {}, {"alpha": "normal", "sd": {"g/Intercept": ("fixed", 0.7)}, "sigma": HALF_NORMAL}, 300),
    "product of variance functions": (
        "y ~ x + (1 | g)",
        {"variance": "exp(x) * exp(o)"},
        {"alpha": "normal", "sd": HALF_NORMAL, "sigma": HALF_NORMAL, "residual": {f"expon({v})": ("normal", 0.0, 1.0) for v in "xo"}},
        200,
    ),
    "t, lognormal": (
        "y ~ x + (1 | g)",
        {},
        {"alpha": _of_both("student_t", 4.0, 0.0, 2.0), "sd": ("lognormal", -0.5, 0.6), "sigma": ("lognormal", 0.0, 0.5)},
        400,
    ),
    "Cauchy, truncated normal": (
        "y ~ x + (1 | g)",
        {},
        {"alpha": _of_both("cauchy", 0.0, 1.0), "sd": ("truncated_normal", 1.0, 0.7), "sigma": ("truncated_normal", 1.0, 0.5)},
        300,
    ),
    "Laplace, slopes": (
        "y ~ x + (x | g)",
        {},
        {"alpha": _of_both("laplace", 0.0, 1.0), "sd": ("truncated_normal", 0.5, 1.0), "sigma": ("lognormal", 0.0, 0.5)},
        300,
    ),
    "half-Cauchy, gamma": ("y ~ x + (1 | g)", {}, {"alpha": "normal", "sd": ("half_cauchy", 0.5), "sigma": ("gamma", 4.0, 4.0)}, 300),
    "gamma, inverse gamma": (
        "y ~ x + (1 | g) + (1 | h)",
        {},
        {"alpha": "normal", "sd": {"g": ("gamma", 2.0, 2.0), "h": ("inverse_gamma", 3.0, 1.5)}, "sigma": ("inverse_gamma", 4.0, 3.0)},
        300,
    ),
    "uniform, half-Cauchy, LKJ": (
        "y ~ x + (x | g)",
        {},
        {"alpha": "normal", "sd": ("uniform", 0.0, 2.0), "sigma": ("half_cauchy", 0.7), "corr": ("lkj", 2.0)},
        300,
    ),
    "uniform sigma, exponential": (
        "y ~ x + (x || g)",
        {},
        {"alpha": "normal", "sd": ("exponential", 1.0), "sigma": ("uniform", 0.1, 2.0)},
        300,
    ),
    "unstructured errors, LKJ": (
        "y ~ x",
        {"residual": "us(visit | g)"},
        {"alpha": "normal", "sigma": HALF_NORMAL, "corr": ("lkj", 2.0)},
        200,
    ),
}
"""Formula, options and priors of what is held and of families other than those of the scenarios above, and how many replications are
done in half a minute. A prior that is flat on log sigma is improper: there is nothing to draw a truth from, and `calibrate` refuses it."""

Sampler = Callable[[Density, int, np.random.Generator], PosteriorDraws]
PLANTED: dict[str, tuple[str, Sampler]] = {
    "no_volume": ("slopes", no_volume),
    "narrow_alpha": ("intercepts", narrow_alpha),
    "no_weights": ("nested, weights", no_weights),
}


def level(quantities: int, scenarios: int = len(SCENARIOS)) -> float:
    """The smallest p value that a quantity may have, one of so many in its scenario."""
    return FALSE_ALARM / scenarios / quantities


def failing(found: Calibration, scenarios: int = len(SCENARIOS)) -> pd.DataFrame:
    """The quantities whose ranks are not uniform by the suite's rule."""
    return found.frame[found.frame["p_value"] < level(len(found.frame), scenarios)]


def expensive(name: str) -> blm.LMM:
    """A model of the kind that polynomials are for."""
    groups, each = {"slopes of many rows": (40, 50), "unstructured errors": (60, 3)}.get(name, (25, 12))
    frame = grouped(groups=groups, each=each)
    names = [f"z{i}" for i in range(30)] if name == "many columns" else ["x"]
    rng = np.random.default_rng(3)
    frame = frame.assign(**{column: rng.normal(size=len(frame)) for column in names}, k=[f"k{i % 12}" for i in range(len(frame))])
    # sds away from 0, where the density is not flat: else most posteriors would be drawn by the weights of the kernel
    alpha = dict.fromkeys(["Intercept", *names], ("normal", 0.0, 1.5))
    priors = blm.Priors(alpha=alpha, sd=("lognormal", -0.5, 0.4), sigma=("lognormal", 0.0, 0.4), corr=("lkj", 2.0))
    fixed, structure = f"y ~ {' + '.join(names)}", EXPENSIVE[name][0]
    if name == "unstructured errors":
        return blm.LMM(fixed, frame, residual=structure, priors=priors)
    return blm.LMM(f"{fixed} + {structure}", frame, priors=priors)


def with_other_priors(name: str) -> blm.LMM:
    formula, options, priors, _ = OTHER_PRIORS[name]
    frame = grouped(each=3) if name == "unstructured errors, LKJ" else grouped()
    return blm.LMM(formula, frame, priors=blm.Priors(**priors), check="warn", **options)


def narrow_prior(target: Density, draws: int, rng: np.random.Generator) -> PosteriorDraws:
    """The Cauchy prior of alpha has a tenth of its scale."""
    priors = OTHER_PRIORS["Cauchy, truncated normal"][2] | {"alpha": _of_both("cauchy", 0.0, 0.1)}
    return collapsed_draws(density(target.problem, blm.Priors(**priors)), draws, rng)


def run(name: str) -> Calibration:
    return calibrate(scenario(name), REPLICATIONS, seed=SEED)


def run_planted(name: str) -> Calibration:
    where, sampler = PLANTED[name]
    return calibrate(scenario(where), REPLICATIONS, seed=SEED, sampler=sampler)
