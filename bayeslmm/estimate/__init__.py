"""The optimum of a criterion: Newton's method without bounds, the check of a boundary, convergence checks as values."""
