"""Covariance structures: one object each, for D (random effects) and R (residuals over visits) alike."""

from bayeslmm.covariance.base import Covariance, Parameter, Structure, UnitScale
from bayeslmm.covariance.registry import STRUCTURES, description, make, register, structure
from bayeslmm.covariance.spatial import PinnedLocated, SpatialCovariance, distance_matrix, typical_distance
from bayeslmm.covariance.structures import STRUCTURE_ROWS

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
    "register",
    "structure",
    "typical_distance",
]

for _row in STRUCTURE_ROWS:
    register(_row)
