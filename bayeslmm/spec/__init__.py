"""What a user can say about a model, as frozen values, and the dialects that translate into them."""

from bayeslmm.spec.families import Prior
from bayeslmm.spec.model import ModelSpec
from bayeslmm.spec.priors import Priors

__all__ = ["ModelSpec", "Prior", "Priors"]
