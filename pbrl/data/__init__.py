"""Data: what was collected, windows of it, and what somebody preferred."""

from .dataset import Dataset
from .preferences import By, Pairs, Preferences
from .segments import Segments

__all__ = ["By", "Dataset", "Pairs", "Preferences", "Segments"]
