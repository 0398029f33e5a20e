"""``pbrl bench human-labels``: how well learners predict the answers of people that they have not seen."""
