"""Inference from a fit: degrees of freedom, tests, marginal means, robust covariances, comparison of models."""

from bayeslmm.inference.diagnostics import SimulatedResiduals, allfit, caic, icc, r2, simulated_residuals
from bayeslmm.inference.dynamic_prediction import predict_dynamic
from bayeslmm.inference.fixed_effects.tests import coefficient_table, covariance
from bayeslmm.inference.influence import influence
from bayeslmm.inference.intervals.bootstrap import Bootstrap, bootstrap
from bayeslmm.inference.intervals.profile import Profile, profile
from bayeslmm.inference.lrt import SimulatedTest, bootstrap_lrt, exact_rlrt, lrt, ranova
from bayeslmm.inference.means.anova import anova
from bayeslmm.inference.means.emmeans import emmeans, emtrends
from bayeslmm.inference.means.linear_functions import Contrast, contrast
from bayeslmm.inference.means.marginal_means import EMMeans
from bayeslmm.inference.tidy import confint

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
    "predict_dynamic",
    "profile",
    "r2",
    "ranova",
    "simulated_residuals",
]
