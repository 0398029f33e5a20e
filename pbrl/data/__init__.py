"""Data: what was collected, windows of it, what somebody preferred; and the files that hold it."""

from .d4rl import load_d4rl
from .dataset import Dataset
from .human import load_human
from .minari import load_minari
from .minari_writer import save_minari
from .preferences import By, Pairs, Preferences
from .rankings import Rankings
from .reference_scores import d4rl_reference, normalized_score
from .registry import destination, directory, load, names, resolve
from .segments import Segments

__all__ = [
    "By",
    "Dataset",
    "Pairs",
    "Preferences",
    "Rankings",
    "Segments",
    "d4rl_reference",
    "destination",
    "directory",
    "load",
    "load_d4rl",
    "load_human",
    "load_minari",
    "names",
    "normalized_score",
    "resolve",
    "save_minari",
]
