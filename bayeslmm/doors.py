"""The lazy doors of the front: names that are handed on, and verbs of rooms that a model does not know of until they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = {
    "LMM": "bayeslmm.model",
    "Fit": "bayeslmm.results",
    "Summary": "bayeslmm.results",
    "Priors": "bayeslmm.spec",
    "Check": "bayeslmm.errors",
    "load": "bayeslmm.opening",
    "load_dataset": "bayeslmm.data",
    "read_model": "bayeslmm.files",
    "from_partitions": "bayeslmm.partitioned",
    "LMMRegressor": "bayeslmm.regressor",
    "mmrm": "bayeslmm.dialects",
    "proc_mixed": "bayeslmm.dialects",
    "MixedResult": "bayeslmm.dialects",
    "lrt": "bayeslmm.inference",
    "compare_models": "bayeslmm.bayes",
    "compare": "bayeslmm.bayes",
    "Posterior": "bayeslmm.bayes",
    "Comparison": "bayeslmm.bayes",
}
"""Public name -> module that has it."""

ROOMS = frozenset({"arrays", "bayes", "covariance", "data", "errors", "estimate", "formula", "inference"}) | frozenset(
    {"likelihood", "plots", "results", "scale", "spec"}
)


ELSEWHERE = {
    **dict.fromkeys(("lmer", "lme", "MixedLM", "mixedlm", "Lmer"), "LMM(formula, data).fit()"),
    **dict.fromkeys(("gls", "Gls"), "LMM(formula, data, residual=..., variance=...).fit()"),
    **dict.fromkeys(("brm", "Model"), "LMM(formula, data).sample()"),
    "blmer": 'LMM(formula, data, priors=Priors(preset="blme")).fit("MAP")',
    "anova": "lrt(fit, other), or fit.anova()",
    "PROC": "proc_mixed(program, data)",
}
"""What other packages call it -> what to write here."""

VERBS = frozenset(
    {"confint", "contrast", "emmeans", "fixef", "icc", "influence", "plot", "predict", "ranef", "ranova", "sigma", "simulate"}
)


def hand_on(name: str) -> Any:
    """What `bayeslmm.NAME` is."""
    if name in NAMES:
        return getattr(import_module(NAMES[name]), name)
    if name in ROOMS:
        return import_module(f"bayeslmm.{name}")
    told = f"module 'bayeslmm' has no attribute {name!r}"
    if name in ("glmer", "glm", "nlmer", "nlme"):
        raise AttributeError(f"{told}: models here are linear, with normal errors")
    if name in ELSEWHERE or name in VERBS:
        raise AttributeError(f"{told}: write {ELSEWHERE.get(name, f'fit.{name}')}")
    raise AttributeError(told)


def bayes(verb: str, model: Any, *args: Any, **options: Any) -> Any:
    """Call a verb of the Bayesian room on a model."""
    return getattr(import_module("bayeslmm.bayes"), verb)(model, *args, **options)


def write_model(model: Any, path: Any) -> None:
    """Write a model's spec to a file."""
    import_module("bayeslmm.files").write_model(model, path)


def to_sas(model: Any, **options: Any) -> str:
    """The PROC MIXED program of a model."""
    return str(import_module("bayeslmm.dialects").to_sas(model, **options))
