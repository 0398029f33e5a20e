"""Agents that learn a set of policies for problems with several objectives."""
