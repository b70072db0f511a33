"""Data frames made into a `Design`: y, X, grouping factors as codes, and the encoding for new data."""

from bayeslmm.data.build import build_design
from bayeslmm.data.design import Covariate, Design, Encoding, RandomTerm, ResidualDesign, VarianceDesign
from bayeslmm.data.grouping import GroupingFactor

__all__ = ["Covariate", "Design", "Encoding", "GroupingFactor", "RandomTerm", "ResidualDesign", "VarianceDesign", "build_design"]
