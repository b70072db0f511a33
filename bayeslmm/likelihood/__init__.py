"""The Gaussian likelihood: standardization, cross-products, typed blocks, one criterion, and the dense definition that judges it."""
