"""How good the fronts of C-MORL are, beside a sweep of fixed weights at the same number of environment steps."""
