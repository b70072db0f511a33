"""Inference from a fit: degrees of freedom, tests, marginal means, robust covariances, comparison of models."""

from bayeslmm.inference.anova import anova
from bayeslmm.inference.contrast import Contrast, contrast
from bayeslmm.inference.emmeans import EMMeans, emmeans, emtrends
from bayeslmm.inference.lrt import lrt, ranova
from bayeslmm.inference.simulated_tests import SimulatedTest, bootstrap_lrt, exact_rlrt
from bayeslmm.inference.tests import coefficient_table, covariance

__all__ = [
    "Contrast",
    "EMMeans",
    "SimulatedTest",
    "anova",
    "bootstrap_lrt",
    "coefficient_table",
    "contrast",
    "covariance",
    "emmeans",
    "emtrends",
    "exact_rlrt",
    "lrt",
    "ranova",
]
