"""Trials: multiple imputation under estimands, pooling, tipping points, power, and whether a design's inference can be trusted."""
