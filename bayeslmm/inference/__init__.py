"""Inference from a fit: degrees of freedom, tests, marginal means, robust covariances, comparison of models."""

from bayeslmm.inference.anova import anova
from bayeslmm.inference.contrast import Contrast, contrast
from bayeslmm.inference.emmeans import EMMeans, emmeans, emtrends
from bayeslmm.inference.tests import coefficient_table, covariance

__all__ = ["Contrast", "EMMeans", "anova", "coefficient_table", "contrast", "covariance", "emmeans", "emtrends"]
