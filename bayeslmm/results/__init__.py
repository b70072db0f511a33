"""`Fit`: estimates, tables, text and HTML, predictions, and the file that a fit is kept in."""
