"""Agents that learn from preferences between segments."""
