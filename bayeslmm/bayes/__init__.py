"""The posterior of a mixed model: priors, the collapsed density and its samplers, `Posterior`, comparisons."""
