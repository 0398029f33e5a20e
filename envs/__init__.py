"""Environments: things with reset and step; they know no agent."""
