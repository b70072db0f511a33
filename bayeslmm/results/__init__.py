"""The numbers of a fit: estimates, random effects, fitted values, predictions, and the file it is kept in."""
