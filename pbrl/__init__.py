"""Classical and preference-based reinforcement learning where every learner is a stack of members."""

__version__ = "0.1.0"
