"""`mmrm`: a model by mmrm's formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bayeslmm.model import LMM
from bayeslmm.spec import Priors, mmrm_spec


def mmrm(
    formula: str,
    data: Any,
    *,
    weights: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    priors: Priors | None = None,
    missing: str = "drop",
    check: str = "error",
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> LMM:
    """A model for repeated measures in mmrm's formula: fixed effects and one covariance structure of the errors.

    The other arguments are those of `LMM`. `aic` and `bic` of its fits count as mmrm does: covariance parameters only under REML, subjects
    in `bic`.

    >>> trial = blm.load_dataset("trial")
    >>> blm.mmrm("BCVA_CHG ~ BCVA_BL + ARMCD * AVISIT + cs(AVISIT | USUBJID)", trial).spec.residual.text
    'cs(AVISIT | USUBJID)'
    """
    column = weights if isinstance(weights, str) else None
    options = {"weights": column, "contrasts": contrasts, "priors": priors, "missing": missing, "check": check}
    spec = mmrm_spec(formula, functions=frozenset(functions or ()), **options)
    return LMM.from_spec(spec, data, counting="mmrm", weights=None if column else weights, functions=functions)
