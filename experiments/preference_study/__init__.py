"""``pbrl bench preferences``: which preference method to pick, on the same labels and the same seeds."""
