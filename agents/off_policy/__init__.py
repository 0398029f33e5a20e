"""Agents that learn from single transitions, whoever collected them: off-policy, online or offline."""
