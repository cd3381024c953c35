"""What a run teaches: sampled queries, offset kernels, exact maps, error budgets."""
