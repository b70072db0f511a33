"""Covariance structures: one object each, for D (random effects) and R (residuals over visits) alike."""

from bayeslmm.covariance.base import Covariance, Parameter, UnitScale
from bayeslmm.covariance.registry import STRUCTURES, Structure, description, make, structure
from bayeslmm.covariance.spatial import PinnedLocated, SpatialCovariance, distance_matrix, typical_distance

__all__ = [
    "STRUCTURES",
    "Covariance",
    "Parameter",
    "PinnedLocated",
    "SpatialCovariance",
    "Structure",
    "UnitScale",
    "description",
    "distance_matrix",
    "make",
    "structure",
    "typical_distance",
]
