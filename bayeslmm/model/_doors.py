"""The lazy doors of the front: names that are handed on, and verbs of rooms that a model does not know of until they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAMES = {
    "LMM": "bayeslmm.model.lmm",
    "Fit": "bayeslmm.model.fit",
    "Summary": "bayeslmm.model.summary",
    "Priors": "bayeslmm.specification.priors",
    "Check": "bayeslmm.errors",
    "load": "bayeslmm.model.load",
    "load_dataset": "bayeslmm.datasets",
    "read_model": "bayeslmm.model.constructors",
    "from_partitions": "bayeslmm.model.constructors",
    "LMMRegressor": "bayeslmm.model.sklearn",
    "mmrm": "bayeslmm.model.constructors",
    "proc_mixed": "bayeslmm.sas_results.proc_mixed",
    "MixedResult": "bayeslmm.sas_results.proc_mixed",
    "lrt": "bayeslmm.inference.lrt",
    "compare_models": "bayeslmm.bayes.comparison",
    "compare": "bayeslmm.bayes.comparison",
    "Posterior": "bayeslmm.bayes.posterior.posterior",
    "Comparison": "bayeslmm.bayes.comparison",
}
"""Public name -> module that has it."""

ROOMS = frozenset(
    [
        "bayes",
        "covariance",
        "data",
        "estimate",
        "formula",
        "inference",
        "likelihood",
        "partitions",
        "plots",
        "reports",
        "results",
        "sas",
        "sas_results",
        "specification",
    ]
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
    import_module("bayeslmm.model.constructors").write_model(model, path)


def to_sas(model: Any, **options: Any) -> str:
    """The PROC MIXED program of a model."""
    arrays = [name for name in ("weights", "offset") if not isinstance(getattr(model.said, name), str | None)]
    return str(import_module("bayeslmm.sas.to_sas").to_sas(model.design, model._data, arrays, **options))
