"""Whole fits, from a data frame to the estimates, against every other library on this machine."""
