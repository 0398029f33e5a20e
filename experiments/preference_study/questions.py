"""The study's data and its questions: data sets made where they are missing, pairs, and what labelers think of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pbrl import data, rng
from pbrl.data import Dataset, Pairs, Preferences, Segments
from pbrl.data.files import replacing
from pbrl.errors import InputError
from pbrl.labelers.oracle import load_critic
from pbrl.labelers.teachers import Teacher, make_labeler

from ..questions import put_aside, questions
from .settings import LABELS, MISTAKE, Condition, Scale, Task, beta_of

HELD_OUT = 0.2
"""Share of the episodes that no agent learns anything from."""


@dataclass(frozen=True)
class Known:
    """A score that was computed before, of these very segments.

    Attributes:
        name: of the score.
        values: [M] float64.
    """

    name: str
    values: Tensor

    def __str__(self) -> str:
        return self.name

    def __call__(self, segments: Segments) -> Tensor:
        """[M]."""
        assert len(segments) == len(self.values)
        return self.values


@dataclass(frozen=True, eq=False)
class Questions:
    """A task's pairs, and how labelers score their segments.

    Attributes:
        dataset: all that is learned from.
        pool: pairs to learn from; member's get their share.
        held_out: pairs of other episodes.
        scores: labels -> [M] scores of the pool's segments.
        held_out_scores: labels -> [K] scores of the held-out ones' segments.
        reference: returns that count 0 and 100.
    """

    dataset: Dataset
    pool: Pairs
    held_out: Pairs
    scores: dict[str, Tensor]
    held_out_scores: dict[str, Tensor]
    reference: tuple[float, float]

    def teacher(self, condition: Condition, *, held_out: bool = False, soft: bool = False) -> Teacher:
        """Who answers the pool's pairs (or the held-out ones) under a condition; soft: with probabilities.

        Noise of kind beta is set by the standard deviation of the pool's scores, for held-out pairs, too.
        """
        score = Known(condition.labels, (self.held_out_scores if held_out else self.scores)[condition.labels])
        faults = {"beta": beta_of(float(self.scores[condition.labels].std()))} if condition.noise == "beta" else {}
        faults |= {"mistake": MISTAKE} if condition.noise == "mistakes" else {}
        return Teacher(score, soft=soft, **faults)

    def answers(self, condition: Condition, seed: int) -> Preferences:
        """The answers that members of this seed get to all pairs of the pool."""
        return self.teacher(condition)(self.pool, rng.fold(rng.keys([seed])[0], "answers", condition.labels))

    def probability(self, condition: Condition) -> NDArray[np.float64]:
        """[K] how likely this labeler is to prefer the second segment of each held-out pair."""
        told = self.teacher(condition, held_out=True, soft=True)(self.held_out, rng.keys([0])[0])
        return told.label.double().numpy()

    def difference(self, labels: str) -> NDArray[np.float64]:
        """[K] labeler's score of the second held-out segment minus that of the first."""
        score = self.held_out_scores[labels]
        return (score[self.held_out.second] - score[self.held_out.first]).double().numpy()


def own_pairs(condition: Condition, seed: int, pool: int) -> Tensor:
    """[budget] pairs of the pool: the first ones in the seed's own order, so that more labels hold all of fewer."""
    return rng.permutation(rng.fold(rng.keys([seed])[0], "order of the pairs"), pool)[: condition.budget]


def ask(task: Task, scale: Scale, folder: Path) -> Questions:
    """A task's questions; scores are kept in ``folder``, as an oracle's values take minutes.

    Raises:
        InputError: no reference returns or no oracle critic beside the data, or too few episodes.
    """
    dataset = data.load(task.dataset)
    reference = dataset.info.get("reference")
    if not dataset.env or not reference:
        raise InputError(f"{dataset.name} names no environment with reference scores, expected one of pbrl data make")
    key = rng.keys([scale.data_seed])[0]
    held, rest = put_aside(dataset, HELD_OUT, task.segment_length, key)
    pool, unseen = questions(held, rest, scale.pool, scale.held_out_pairs, task.segment_length, key)
    made = f"{dataset.fingerprint}-{task.segment_length}-{scale.data_seed}-{scale.pool}-{scale.held_out_pairs}"
    path = folder / "scores" / f"{task.dataset.replace('/', '-')}.npz"
    stored = _stored(path, made)
    if stored is None:
        critic = load_critic(data.resolve(task.dataset))
        scores = [make_labeler(labels, critic=critic).score for labels in LABELS]
        stored = [torch.stack([score(part.segments).double() for score in scores]) for part in (pool, unseen)]
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, made=made, pool=stored[0].numpy(), held_out=stored[1].numpy())
    return Questions(
        dataset=rest,
        pool=pool,
        held_out=unseen,
        scores=dict(zip(LABELS, stored[0])),
        held_out_scores=dict(zip(LABELS, stored[1])),
        reference=(float(reference[0]), float(reference[1])),
    )


def _stored(path: Path, made: str) -> list[Tensor] | None:
    """[labels, M] scores of the pool's segments and [labels, K] of the held-out ones, if the file is of these."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return (
                [torch.from_numpy(file[name]) for name in ("pool", "held_out")] if str(file["made"]) == made else None
            )
    except (OSError, ValueError, KeyError, EOFError):
        return None
