"""Playing: environments as one stack of copies, what is collected in them, and agents that remember."""
