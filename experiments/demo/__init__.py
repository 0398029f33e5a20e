"""``pbrl demo``: preference learners compared on the MuJoCo data set that ships."""
