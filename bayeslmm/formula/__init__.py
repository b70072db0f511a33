"""Formulas as data: our own reading of bars and covariance wrappers, and the list of what an expression may say."""

from bayeslmm.formula.parse import (
    bar_text,
    columns_of,
    formula_text,
    parse_formula,
    parse_residual,
    parse_variance,
    residual_text,
    variance_text,
)
from bayeslmm.formula.syntax import BarTerm, Formula, ResidualTerm, VarianceFactor, quote_name

__all__ = [
    "BarTerm",
    "Formula",
    "ResidualTerm",
    "VarianceFactor",
    "bar_text",
    "columns_of",
    "formula_text",
    "parse_formula",
    "parse_residual",
    "parse_variance",
    "quote_name",
    "residual_text",
    "variance_text",
]
