"""Fits and posteriors as releases saved them."""
