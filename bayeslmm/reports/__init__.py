"""Reports: one HTML file that needs nothing else, of a fit, of a fit beside its posterior, of a comparison."""

from bayeslmm.reports.comparison import comparison_report
from bayeslmm.reports.fit import fit_page
from bayeslmm.reports.page import Page, Section

__all__ = ["Page", "Section", "comparison_report", "fit_page"]
