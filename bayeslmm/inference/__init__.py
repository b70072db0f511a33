"""Inference from a fit: degrees of freedom, tests, marginal means, robust covariances, comparison of models."""

from bayeslmm.inference.anova import anova
from bayeslmm.inference.bootstrap import Bootstrap, bootstrap
from bayeslmm.inference.conditional_aic import caic
from bayeslmm.inference.contrast import Contrast, contrast
from bayeslmm.inference.dynamic import predict_dynamic
from bayeslmm.inference.emmeans import EMMeans, emmeans, emtrends
from bayeslmm.inference.export import maketables_coefficients, maketables_statistic, to_marginaleffects
from bayeslmm.inference.influence import influence
from bayeslmm.inference.intervals import confint
from bayeslmm.inference.lrt import lrt, ranova
from bayeslmm.inference.other_searches import allfit
from bayeslmm.inference.profile import Profile, profile
from bayeslmm.inference.simulated_residuals import SimulatedResiduals, simulated_residuals
from bayeslmm.inference.simulated_tests import SimulatedTest, bootstrap_lrt, exact_rlrt
from bayeslmm.inference.tests import coefficient_table, covariance
from bayeslmm.inference.variance_shares import icc, r2

__all__ = [
    "Bootstrap",
    "Contrast",
    "EMMeans",
    "Profile",
    "SimulatedResiduals",
    "SimulatedTest",
    "allfit",
    "anova",
    "bootstrap",
    "bootstrap_lrt",
    "caic",
    "coefficient_table",
    "confint",
    "contrast",
    "covariance",
    "emmeans",
    "emtrends",
    "exact_rlrt",
    "icc",
    "influence",
    "lrt",
    "maketables_coefficients",
    "maketables_statistic",
    "predict_dynamic",
    "profile",
    "r2",
    "ranova",
    "simulated_residuals",
    "to_marginaleffects",
]
