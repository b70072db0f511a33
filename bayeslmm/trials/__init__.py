"""Imputation in trials: strategies under estimands, analyses, pooling and tipping points."""
