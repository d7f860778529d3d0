"""The blur fit: residuals, priors, solver, sliding window."""
