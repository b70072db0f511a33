"""Long runs of the hierarchical graph, stored: what the collapsed sampler is judged by."""
