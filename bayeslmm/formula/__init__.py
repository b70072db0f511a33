"""Formulas as data: our own reading of bars and covariance wrappers, and the list of what an expression may say."""

from bayeslmm.formula.model import BarTerm, Formula, ResidualTerm, VarianceFactor

__all__ = ["BarTerm", "Formula", "ResidualTerm", "VarianceFactor"]
