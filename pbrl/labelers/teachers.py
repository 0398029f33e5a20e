"""The scripted teachers of B-Pref (Lee et al. 2021), and the names by which the command line knows labelers.

Deviations from the reference code: the thresholds of skip and equal are the paper's, set once (the code multiplies by
epsilon again after the first session); exact ties of a perfectly rational teacher are 0.5 (the code says "first").
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .. import rng
from ..data.dataset import Dataset
from ..data.preferences import By, Pairs, Preferences
from ..data.segments import scalar
from ..errors import InputError
from .protocols import Critic, Score, StepScore
from .scores import Aggregate, PartialReturn, Regret, RegretForm, discounts


def mean_segment_return(dataset: Dataset, length: int) -> float:
    """The margin of B-Pref's thresholds: average episode return x segment length / average episode length."""
    episodes = dataset.episode_returns()
    return float(episodes.double().mean()) * length * len(episodes) / len(dataset)


@dataclass(frozen=True)
class Teacher:
    """A labeler that compares scores, as a human of given faults would.

    In this order, as in the reference: a pair of two poor segments is skipped; near ties are noted; the better segment
    by the (myopic) score is named, noisily where beta is finite; a mistake turns the answer round; and the near ties
    become ties, so that mistakes never touch them.

    Attributes:
        score: segments -> [M].
        beta: rationality; P(second) = sigmoid(beta (score_2 - score_1)). inf: always the better one, exact ties 0.5.
        myopia: gamma_m in (0, 1]; below 1 the comparison weighs step t by gamma_m^(T - 1 - t): late steps count most.
        skip: epsilon; pairs whose better score is at most ``skip * margin`` are skipped. 0: none.
        equal: epsilon; pairs whose scores differ by less than ``equal * margin`` are ties. 0: none.
        mistake: probability that an answer is turned round.
        margin: the unit of the two thresholds, in units of the score; B-Pref's is ``mean_segment_return``. Where that
            is negative (as in tasks of pure cost) B-Pref's rule has no meaning, and a positive margin must be named.
            "moving": for questions in the loop, each of which brings its own (see ``at``).
        soft: give the probability that this teacher answers "second" (after mistakes) instead of drawing an answer.

    Raises:
        InputError: a parameter out of its range, thresholds without a positive margin, or myopia with a score that is
            not a sum over steps.
    """

    score: Score
    beta: float = math.inf
    myopia: float = 1.0
    skip: float = 0.0
    equal: float = 0.0
    mistake: float = 0.0
    margin: float | Literal["moving"] | None = None
    soft: bool = False

    def __post_init__(self) -> None:
        bounds = {
            "beta": (0, math.inf),
            "myopia": (0, 1),
            "skip": (0, math.inf),
            "equal": (0, math.inf),
            "mistake": (0, 1),
        }
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"Teacher.{name} is {getattr(self, name)}, expected between {low} and {high}")
        if self.myopia < 1 and not isinstance(self.score, StepScore):
            raise InputError(f"Teacher.myopia is {self.myopia}, but the score {self.score} is not a sum over steps")
        if (self.skip or self.equal) and not (self.margin == "moving" or (self.margin is not None and self.margin > 0)):
            raise InputError(
                f"Teacher.margin is {self.margin}, expected above 0: skip and equal are fractions of it "
                "(with negative returns, name a margin in units of the score)"
            )
        if self.margin is not None and not (self.skip or self.equal):
            raise InputError(f"Teacher.margin is {self.margin}, but neither skip nor equal uses it: expected None")

    def at(self, margin: float | None) -> Teacher:
        """This teacher, its moving margin (if it has one) being ``margin``.

        Where that is not above 0, nothing is skipped and nothing is a tie, as in B-Pref.
        """
        if self.margin != "moving":
            return self
        if margin is None or not margin > 0:
            return dataclasses.replace(self, skip=0.0, equal=0.0, margin=None)
        return dataclasses.replace(self, margin=margin)

    def __str__(self) -> str:
        faults = [
            f"{field.name}={getattr(self, field.name):g}"
            for field in dataclasses.fields(self)
            if field.name not in ("score", "margin", "soft") and getattr(self, field.name) != field.default
        ]
        return f"{self.score}" + (f" by a teacher with {', '.join(faults)}" if faults else "")

    def __call__(self, pairs: Pairs, key: Tensor) -> Preferences:
        """Answer; see the class. The draws depend on ``key`` and on a pair's position alone."""
        if self.margin == "moving":
            raise InputError("Teacher.margin is 'moving', but these pairs bring none: expected a number")
        score = self.score(pairs.segments)
        key = scalar(key).to(score.device)
        first, second = score[pairs.first], score[pairs.second]
        margin = self.margin or 0.0
        kept = (
            torch.maximum(first, second) > self.skip * margin if self.skip else torch.ones_like(first, dtype=torch.bool)
        )
        equal = (second - first).abs() < self.equal * margin if self.equal else torch.zeros_like(kept)

        judged = self._myopic(pairs) if self.myopia < 1 else second - first
        # Equal infinities would give NaN in inf * 0: a perfectly rational teacher compares signs.
        p2 = (judged.sign() + 1) / 2 if self.beta == math.inf else torch.sigmoid(self.beta * judged)
        if self.soft:
            label = (1 - self.mistake) * p2 + self.mistake * (1 - p2)
        else:
            draw, slip = rng.uniform(torch.stack([rng.fold(key, "answer"), rng.fold(key, "mistake")]), len(p2))
            label = p2 if self.beta == math.inf else (draw < p2).to(p2.dtype)
            label = torch.where(slip < self.mistake, 1 - label, label)
        label = torch.where(equal, 0.5, label)
        return Preferences(
            pairs=pairs if bool(kept.all()) else pairs.take(kept),
            label=label[kept].float(),
            by=By(
                who=str(self),
                question=f"Which segment has the higher {self.score}?",
                when="",
                settings=self._settings() | {"asked": len(kept), "skipped": int((~kept).sum())},
            ),
        )

    def _myopic(self, pairs: Pairs) -> Tensor:
        assert isinstance(self.score, StepScore)  # checked when the teacher was made
        steps = self.score.steps(pairs.segments)
        score = (steps * discounts(self.myopia, steps.shape[-1], steps).flip(0)).sum(-1)
        return score[pairs.second] - score[pairs.first]

    def _settings(self) -> dict[str, Any]:
        """The parameters as JSON has them: it knows no infinity."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "score"}
        return {name: "inf" if value == math.inf else value for name, value in values.items()}


def partial_return_labeler(aggregate: Aggregate = "sum", gamma: float | None = None, **teacher: Any) -> Teacher:
    """A teacher that goes by partial return; ``teacher`` are fields of ``Teacher``."""
    return Teacher(PartialReturn(aggregate, gamma), **teacher)


def regret_labeler(critic: Critic, form: RegretForm = "dir", **teacher: Any) -> Teacher:
    """A teacher that goes by regret; ``teacher`` are fields of ``Teacher``."""
    return Teacher(Regret(critic, form), **teacher)


LABELERS = (
    "partial_return",
    *(f"partial_return:{aggregate}" for aggregate in get_args(Aggregate)),
    "regret",
    *(f"regret:{form}" for form in get_args(RegretForm)),
)
"""The names that ``make_labeler`` knows; without a form, partial return is ``sum`` and regret is ``dir``."""


def make_labeler(name: str, *, critic: Critic | None = None, gamma: float | None = None, **teacher: Any) -> Teacher:
    """The teacher of this name, one of ``LABELERS``.

    Args:
        critic: the oracle that regret needs; partial return has no use for it.
        gamma: the discount of ``partial_return:discounted``, for no other (regret discounts as its critic does).
        teacher: fields of ``Teacher``, such as beta or mistake.

    Raises:
        InputError: an unknown name, regret without a critic, or a gamma that is missing or of no use.
    """
    if name not in LABELERS:
        raise InputError(f"unknown labels {name!r}, expected one of {', '.join(LABELERS)}")
    kind, _, form = name.partition(":")
    if kind == "partial_return":
        return partial_return_labeler(form or "sum", gamma, **teacher)  # type: ignore[arg-type]
    if critic is None:
        raise InputError(f"labels {name!r} need an oracle critic, but this data set comes without one")
    if gamma is not None:
        raise InputError(f"labels {name!r} have gamma {gamma}, but regret discounts by its critic's gamma")
    return regret_labeler(critic, form or "dir", **teacher)  # type: ignore[arg-type]
