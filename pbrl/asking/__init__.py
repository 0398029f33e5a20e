"""Asking for preferences while learning: about what, when, and what to explore before."""
