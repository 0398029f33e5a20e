"""Agents that learn from data first and in the simulator then."""
