"""The Gaussian likelihood: conditioning, cross-products, typed blocks, one criterion with its gradient, and the dense definition that judges it."""
