"""From a problem to its optimum: a Newton method that needs no bounds, the certificate of a boundary, and checks as values."""
