"""Several objectives: archives of policies, how they grow, act and are measured."""
