"""`Fit`: estimates, tables, text and HTML, predictions, and the file that a fit is kept in."""

from bayeslmm.results.fit import Fit
from bayeslmm.results.summary import Summary

__all__ = ["Fit", "Summary"]
