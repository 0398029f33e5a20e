"""Several objectives: sets of returns, archives of policies, how they grow and act."""
