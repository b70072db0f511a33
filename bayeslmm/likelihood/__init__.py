"""The Gaussian likelihood: standardization, cross-products, kernels, one criterion, and the dense definition that judges it."""
