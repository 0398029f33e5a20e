"""Training loops: short functions that bring data to learners, one file each."""

from .offline import diverged, offline
from .on_policy import Playing, on_policy
from .online import online
from .query_and_learn import query_and_learn

__all__ = ["Playing", "diverged", "offline", "on_policy", "online", "query_and_learn"]
