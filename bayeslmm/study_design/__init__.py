"""Design of studies: estimates at assumed parameters, power and sample size, and whether inference holds its level in a design."""
