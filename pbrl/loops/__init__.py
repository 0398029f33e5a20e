"""Training loops: short functions that bring data to learners, one file each."""

from .offline import diverged, offline

__all__ = ["diverged", "offline"]
