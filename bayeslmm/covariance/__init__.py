"""Covariance structures: one object each, for D (random effects) and R (residuals over visits) alike."""

from bayeslmm.covariance.protocol import Covariance, Pinned
from bayeslmm.covariance.registry import STRUCTURES, make

__all__ = ["STRUCTURES", "Covariance", "Pinned", "make"]
