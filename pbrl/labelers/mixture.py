"""Several users with different tastes: every pair is answered by one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import rng
from ..data.preferences import By, Pairs, Preferences
from ..data.segments import scalar
from ..errors import InputError
from .protocols import Labeler
from .stored import contents


@dataclass(frozen=True)
class Mixture:
    """A crowd of labelers. Called, it mixes their answers and numbers the users; ``by_user`` gives a set for each.

    Attributes:
        users: the labelers.
        weights: one probability per user, that a pair is put to that user.

    Raises:
        InputError: no users, another number of weights, a negative weight, or weights that do not sum to 1.
    """

    users: tuple[Labeler, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.users or len(self.users) != len(self.weights):
            raise InputError(
                f"Mixture has {len(self.users)} users and {len(self.weights)} weights, expected one per user"
            )
        if not (min(self.weights) >= 0 and math.isclose(sum(self.weights), 1.0, abs_tol=1e-6)):
            raise InputError(f"Mixture.weights are {list(self.weights)}, expected no negative ones and a sum of 1")

    def asked(self, count: int, key: Tensor) -> Tensor:
        """[N] int64: which user each of ``count`` pairs is put to under this key."""
        bounds = torch.tensor(self.weights, dtype=torch.float64, device=key.device).cumsum(0)[:-1]
        return torch.bucketize(
            rng.uniform(rng.fold(scalar(key), "user"), count, dtype=torch.float64), bounds, right=True
        )

    def by_user(self, pairs: Pairs, key: Tensor) -> tuple[Preferences, ...]:
        """One set of preferences per user, empty for a user who answered nothing."""
        user = self.asked(len(pairs), key).to(pairs.first.device)
        return tuple(
            labeler(pairs.take(user == number), rng.fold(scalar(key), "answers", number))
            for number, labeler in enumerate(self.users)
        )

    def __call__(self, pairs: Pairs, key: Tensor) -> Preferences:
        """The same answers in one set, in the order of ``pairs``, with ``user`` saying whose each is."""
        user = self.asked(len(pairs), key).tolist()
        answers = self.by_user(pairs, key)
        questions = list(zip(user, contents(pairs)))
        # A user's answers come in the order of that user's questions, less the skipped ones.
        answered = [iter(zip(contents(answer.pairs), answer.label.tolist())) for answer in answers]
        waiting = [next(rest, None) for rest in answered]
        label: list[float | None] = []
        for number, question in questions:
            found = waiting[number]
            if found is not None and found[0] == question:
                label.append(found[1])
                waiting[number] = next(answered[number], None)
            else:
                label.append(None)
        kept = torch.tensor([p2 is not None for p2 in label], dtype=torch.bool, device=pairs.first.device)
        return Preferences(
            pairs=pairs if bool(kept.all()) else pairs.take(kept),
            label=torch.tensor([p2 for p2 in label if p2 is not None], dtype=torch.float32, device=pairs.first.device),
            user=torch.tensor(user, device=pairs.first.device)[kept],
            by=By(
                who=f"a mixture of {len(self.users)} users",
                question="; ".join(dict.fromkeys(answer.by.question for answer in answers)),
                settings={
                    "users": [answer.by.who for answer in answers],
                    "weights": list(self.weights),
                    "answered": [len(answer) for answer in answers],
                    "asked": len(user),
                    "skipped": label.count(None),
                },
            ),
        )
