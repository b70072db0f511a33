"""The posterior of a mixed model: priors, the collapsed density and its samplers, `Posterior`.

Names are handed on when they are first asked for; PyMC and ArviZ are opened only by what needs them.
"""

from typing import Any

from bayeslmm.bayes import _doors as _doors

__all__ = ["Posterior", "map_estimate", "prior_predictive", "resolved_priors", "sample"]


def __getattr__(name: str) -> Any:
    value = _doors.hand_on(name)
    globals()[name] = value
    return value
