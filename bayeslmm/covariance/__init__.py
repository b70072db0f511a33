"""Covariance structures: one object each, for D (random effects) and R (residuals over visits) alike."""

from bayeslmm.covariance.base import Covariance, Parameter, Pinned
from bayeslmm.covariance.registry import STRUCTURES, Structure, description, make, structure
from bayeslmm.covariance.spatial import Located, PinnedLocated, distance_matrix, typical_distance

__all__ = [
    "STRUCTURES",
    "Covariance",
    "Located",
    "Parameter",
    "Pinned",
    "PinnedLocated",
    "Structure",
    "description",
    "distance_matrix",
    "make",
    "structure",
    "typical_distance",
]
