"""Arena: new trajectories are compared with each other and with recent ones, by somebody who prefers some to others.

A trajectory is what one copy of an environment went through in one rollout. What is kept of it for the labeler (true
rewards included, which scripted labelers go by) stays here: the learner gets win rates, and a rollout without rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .. import rng
from ..data.preferences import Pairs
from ..data.rollout import Rollout
from ..data.segments import Segments
from ..data.source import Batch
from ..errors import InputError
from ..labelers.protocols import Labeler
from ..spec import Spec
from .on_policy import OnPolicy


@runtime_checkable
class Compared(OnPolicy, Protocol):
    """A learner that learns from how often its trajectories win: its batch has ``wins`` beside a rollout."""

    @property
    def queue(self) -> int:
        """How many of a member's most recent trajectories, the new ones included, the new ones are compared with."""
        ...

    @property
    def opponents(self) -> int:
        """How many of them each new trajectory meets, drawn at random; 0: all of them."""
        ...


class Arena(nn.Module):
    """P members' recent trajectories, and their comparison.

    A trajectory against itself counts 1/2 and asks nobody. Without drawn opponents each pair of new trajectories is
    asked about once and counts for both, so that with a queue no longer than a rollout's N copies the mean win rate is
    exactly 1/2. A pair that the labeler skips does not count; a trajectory of which all pairs are skipped gets 1/2.

    Args:
        labeler: who compares, or one for each member.
        learner: for its keys, sizes, queue and opponents.
        spec: of the environment.

    Attributes:
        comparisons: [P] how many pairs were asked about, those that were skipped included.

    Raises:
        InputError: a queue shorter than N, a choice among actions, or several objectives.
    """

    obs: Tensor
    act: Tensor
    rew: Tensor
    last_obs: Tensor
    term: Tensor
    filled: Tensor
    rounds: Tensor
    comparisons: Tensor

    def __init__(self, labeler: Labeler | Sequence[Labeler], learner: Compared, spec: Spec) -> None:
        super().__init__()
        copies, steps = learner.environments, learner.wants()["rollout"]
        if learner.queue < copies:
            raise InputError(f"queue is {learner.queue}, expected at least the {copies} trajectories of a rollout")
        if spec.actions is not None or spec.objectives > 1:
            raise InputError(f"{spec.name} cannot be compared, expected one objective and actions in [-1, 1]")
        each = labeler if isinstance(labeler, Sequence) else [labeler] * len(learner.keys)
        self.labelers, self.keys, self.copies = each, learner.keys, copies
        self.opponents, self.source = learner.opponents, spec.name
        shape = (len(learner.keys), learner.queue)
        self.register_buffer("obs", torch.zeros(*shape, steps, spec.obs_size))
        self.register_buffer("act", torch.zeros(*shape, steps, spec.act_size))
        self.register_buffer("rew", torch.zeros(*shape, steps))
        self.register_buffer("last_obs", torch.zeros(*shape, spec.obs_size))
        self.register_buffer("term", torch.zeros(shape, dtype=torch.bool))
        self.register_buffer("filled", torch.tensor(0))
        self.register_buffer("rounds", torch.tensor(0))
        self.register_buffer("comparisons", torch.zeros(len(learner.keys), dtype=torch.int64))

    def __call__(self, rollout: Rollout) -> Batch:
        """The rollout without its rewards, the win rates of its trajectories, which enter the queue, and the count."""
        self._enter(rollout)
        keys = rng.fold(self.keys.cpu(), "comparisons", int(self.rounds))
        wins = torch.stack([self._compare(member, key) for member, key in enumerate(keys)])
        self.rounds += 1
        return {
            "rollout": replace(rollout, rew=torch.zeros_like(rollout.rew)),
            "wins": wins.to(rollout.rew),
            "comparisons": self.comparisons.clone(),
        }

    def _enter(self, rollout: Rollout) -> None:
        """The newest trajectories come last; the oldest leave."""
        bounded = rollout.act.nan_to_num(0.0).clamp(-1.0, 1.0)
        new = {
            "obs": rollout.obs.transpose(1, 2),
            "act": bounded.transpose(1, 2),
            "rew": rollout.rew.squeeze(-1).transpose(1, 2),
            "last_obs": rollout.next_obs[:, -1],
            "term": rollout.term[:, -1] > 0,
        }
        for name, value in new.items():
            buffer: Tensor = getattr(self, name)
            buffer.copy_(torch.cat([buffer, value.to(buffer)], dim=1)[:, self.copies :])
        self.filled.add_(self.copies).clamp_(max=self.obs.shape[1])

    def _compare(self, member: int, key: Tensor) -> Tensor:
        """[N] the win rates of one member's new trajectories."""
        size, filled = self.obs.shape[1], int(self.filled)
        new = torch.arange(size - self.copies, size)
        if self.opponents:
            drawn = rng.indices(rng.fold(key, "opponents"), self.copies * self.opponents, filled)
            first, second = size - filled + drawn, new.repeat_interleave(self.opponents)
        else:
            other = torch.arange(size - filled, size)
            first, second = (x.flatten() for x in torch.meshgrid(other, new, indexing="ij"))
            once = first < second  # new ones meet each other once, older ones come first
            first, second = torch.cat([first[once], new]), torch.cat([second[once], new])
        self_met = first == second
        ask_first, ask_second = first[~self_met], second[~self_met]
        won, met = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        if len(ask_first):
            answers = self.labelers[member](self._pairs(member, ask_first, ask_second), rng.fold(key, "answers"))
            row = answers.pairs.segments.row
            kept_first, kept_second = row[answers.pairs.first], row[answers.pairs.second]
            label = answers.label.double().cpu()
            won.index_add_(0, kept_second.cpu(), label)
            met.index_add_(0, kept_second.cpu(), torch.ones_like(label))
            if not self.opponents:
                won.index_add_(0, kept_first.cpu(), 1.0 - label)
                met.index_add_(0, kept_first.cpu(), torch.ones_like(label))
            self.comparisons[member] += len(ask_first)
        ties = self_met.double()
        won.index_add_(0, second, 0.5 * ties)
        met.index_add_(0, second, ties)
        return torch.where(met > 0, won / met.clamp(min=1.0), 0.5)[new]

    def _pairs(self, member: int, first: Tensor, second: Tensor) -> Pairs:
        """Questions about places in the queue; a segment's ``row`` is its place, so that answers can be traced."""
        segments = Segments(
            obs=self.obs[member],
            act=self.act[member],
            rew=self.rew[member],
            last_obs=self.last_obs[member],
            term=self.term[member],
            row=torch.arange(self.obs.shape[1]),
            source=self.source,
            fingerprint="",
        )
        return Pairs(segments, first, second)
