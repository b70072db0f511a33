"""The Gaussian likelihood: conditioning, cross-products, typed blocks, one criterion, and the dense definition that judges it."""
