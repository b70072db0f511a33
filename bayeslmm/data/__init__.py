"""From any frame to checked columns to a `Design`: y, X, grouping factors as codes, and the encoding that new data go through."""

from bayeslmm.data.build import build_design
from bayeslmm.data.bundled import load_dataset, simulate_trial
from bayeslmm.data.design import Design, GroupingFactor, RandomTerm, ResidualDesign, VarianceDesign
from bayeslmm.data.encoding import Covariate, Encoding

__all__ = [
    "Covariate",
    "Design",
    "Encoding",
    "GroupingFactor",
    "RandomTerm",
    "ResidualDesign",
    "VarianceDesign",
    "build_design",
    "load_dataset",
    "simulate_trial",
]
