"""Who prefers what: partial return, regret, scripted teachers, mixtures of users, stored human answers."""
