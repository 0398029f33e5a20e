"""Regret studies: tabular agents on named instances, their curves and tables (``pbrl regret``)."""
