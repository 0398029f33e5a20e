"""Preferences that no reward explains, by name: what the command line knows beside ``teachers.LABELERS``.

majority:obs0,-obs2,act1    better by most of these columns, each by its mean over the segment (-: lower is better)
share:obs0,-obs2,act1       as likely preferred as the share of them by which it is better
slow_then_fast:obs2:0.3     |obs2| counts in the second half, if its mean over the first half is at most 0.3
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..data.segments import Segments
from ..errors import InputError
from ..spec import Spec
from .general import General, Majority, Mean, SlowThenFast
from .teachers import Teacher

VOTES = ("majority", "share")
NAMED = (*VOTES, "slow_then_fast")
EXAMPLES = ("majority:obs0,-obs1,act0", "share:obs0,obs1", "slow_then_fast:obs1:0.3")
_COLUMN = re.compile(r"(-?)(obs|act)(\d+)")


def is_named(labels: str) -> bool:
    """Whether these labels are one of this module's, to judge by the word before the first colon."""
    return labels.partition(":")[0] in NAMED


@dataclass(frozen=True)
class Size:
    """How large a column of the observations or actions is, whatever its sign: a speed, where it is a velocity."""

    column: int
    of: Literal["obs", "act"]

    def __call__(self, segments: Segments) -> Tensor:
        """[M, T]."""
        return (segments.obs if self.of == "obs" else segments.act)[..., self.column].abs()


def make_named(labels: str, spec: Spec, **faults: Any) -> Teacher | General:
    """The labeler of this name.

    Args:
        labels: as in the module's docstring.
        spec: whose columns are named.
        faults: fields of ``Teacher``, such as mistake, which is the only one that votes have.

    Raises:
        InputError: not such a name, a column that the problem does not have, or faults of scores for votes.
    """
    kind, _, rest = labels.partition(":")
    if kind in VOTES:
        defaults = {field.name: field.default for field in dataclasses.fields(Teacher)}
        for name, value in faults.items():
            if name != "mistake" and value != defaults[name]:
                raise InputError(f"labels {labels!r} have {name} {value}, expected none: votes go by no one score")
        rule: Literal["decided", "share"] = "decided" if kind == "majority" else "share"
        return General(Majority(tuple(_mean(word, labels, spec) for word in rest.split(",")), rule), faults["mistake"])
    word, _, limit = rest.partition(":")
    one = _mean(word, labels, spec)
    try:
        most = float(limit)
    except ValueError:
        raise _misread(labels) from None
    if kind != "slow_then_fast" or one.sign < 0:
        raise _misread(labels)
    return Teacher(SlowThenFast(Size(one.column, one.of), most), **faults)


def _mean(word: str, labels: str, spec: Spec) -> Mean:
    found = _COLUMN.fullmatch(word)
    if found is None:
        raise _misread(labels)
    of: Literal["obs", "act"] = "obs" if found[2] == "obs" else "act"
    size = spec.obs_size if of == "obs" else spec.act_size
    if int(found[3]) >= size:
        raise InputError(f"labels {labels!r} name {of}{found[3]}, expected {of}0 to {of}{size - 1} as {spec.name} has")
    return Mean(int(found[3]), of, -1.0 if found[1] else 1.0)


def _misread(labels: str) -> InputError:
    return InputError(f"labels {labels!r} cannot be read, expected such as {', '.join(EXAMPLES)}")
