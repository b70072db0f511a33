"""Inference from a fit: degrees of freedom, tests, marginal means, robust covariances, comparison of models."""

from bayeslmm.inference.tests import coefficient_table, covariance

__all__ = ["coefficient_table", "covariance"]
