"""Teachers who put lists of segments in order, as Plackett and Luce's model has it."""

from __future__ import annotations

import math

from torch import Tensor

from .. import rng
from ..data.checks import check_finite
from ..data.preferences import By
from ..data.rankings import Rankings
from ..data.segments import Segments, scalar
from ..errors import InputError
from .teachers import Teacher

_OF_PAIRS = ("myopia", "skip", "equal", "mistake", "soft")


def rank(teacher: Teacher, segments: Segments, lists: Tensor, key: Tensor) -> Rankings:
    """Lists [N, K] of segments in the teacher's order: by score, or noisily where ``beta`` is finite.

    Then the best is chosen with probabilities softmax(beta score), the next among the others, and so on, which is what
    sorting by beta score + Gumbel noise gives (Yellott 1977). For K = 2 the odds are those of an answer to a pair.

    Raises:
        InputError: a teacher with faults that are those of answers about pairs, or scores that are not finite.
    """
    for name in _OF_PAIRS:
        if getattr(teacher, name) != getattr(type(teacher), name):
            found = f"Teacher.{name} is {getattr(teacher, name):g}"
            raise InputError(f"{found}, expected {getattr(type(teacher), name):g} for rankings: it is a fault of pairs")
    score = teacher.score(segments).double()
    check_finite(score, "score")
    worth = score[lists]  # [N, K]
    if teacher.beta < math.inf:
        draw = rng.uniform(rng.fold(scalar(key).to(score.device), "noise"), *lists.shape, dtype=score.dtype)
        worth = teacher.beta * worth - (-draw.clamp_min(1e-300).log()).log()
    order = worth.argsort(dim=-1, descending=True, stable=True)
    asked = {"beta": "inf" if teacher.beta == math.inf else teacher.beta, "asked": len(lists), "skipped": 0}
    by = By(who=str(teacher), question=f"What is the order by {teacher.score}?", when="", settings=asked)
    return Rankings(segments, lists.gather(-1, order), by)
