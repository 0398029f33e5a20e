"""Agents that learn from rewarded transitions."""
