"""Parts that several agents are built of; they know no algorithm by name."""
