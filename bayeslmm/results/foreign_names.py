"""Names of other packages, and what they are called here."""

from __future__ import annotations

NOT_LINEAR = frozenset({"glmer", "glm", "nlmer", "nlme"})
"""Functions for models that are not linear, or whose errors are not normal."""

FOREIGN_FUNCTIONS = {
    **dict.fromkeys(("lmer", "lme", "MixedLM", "mixedlm", "Lmer"), "LMM(formula, data).fit()"),
    **dict.fromkeys(("gls", "Gls"), "LMM(formula, data, residual=..., variance=...).fit()"),
    **dict.fromkeys(("brm", "Model"), "LMM(formula, data).sample()"),
    "blmer": 'LMM(formula, data, priors=Priors(preset="blme")).fit("MAP")',
    "anova": "lrt(fit, other), or fit.anova()",
    "PROC": "proc_mixed(program, data)",
    **{
        name: f"fit.{name}"
        for name in (
            "confint",
            "contrast",
            "emmeans",
            "fixef",
            "icc",
            "influence",
            "plot",
            "predict",
            "ranef",
            "ranova",
            "sigma",
            "simulate",
        )
    },
}
"""Function or class of another package -> what to write here."""


def hint(name: str) -> str | None:
    """What to do about a name that the package does not have; None where it is unknown."""
    if name in NOT_LINEAR:
        return "models here are linear, with normal errors"
    return f"write {FOREIGN_FUNCTIONS[name]}" if name in FOREIGN_FUNCTIONS else None
