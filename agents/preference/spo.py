"""SPO: self-play preference optimisation (Swamy et al., ICML 2024), on PPO.

    r(xi) = (1 / |B|) sum_{xi' in B} P(xi preferred to xi')

over a queue B of the learner's own recent trajectories: no reward model, and no need that preferences fit any reward.
They may be noisy, go round in circles or depend on the whole trajectory. Playing against itself, one no-regret learner
nears the minimax winner *on average*: that claim is about the mixture of all policies that were played, the present one
may cycle. ``snapshots`` keeps an even sample of them; the average policy draws one of these for each episode.

Deviations:
- A trajectory is what one copy goes through in one rollout of ``steps`` steps. That is an episode where episodes have
  that length and none ends early; otherwise it is a window, and episodes may follow one another in it.
- The queue holds as many trajectories as asked for, all of the last few policies, so that opponents are nearly the
  present policy. As it moves, values of older rewards are out of date; PPO learns from the newest rollout alone.
- How the authors spread a trajectory's reward over its steps is not known here: evenly, or all on the last step.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.agent import Metrics
from pbrl.data.source import Batch
from pbrl.errors import InputError
from pbrl.members import Members, check_range, shared
from pbrl.nets.actors import StackedActor
from pbrl.nets.running import RunningNormalizer
from pbrl.spec import Spec

from ..on_policy.ppo import PPO, PPOConfig


@dataclass(frozen=True)
class SPOConfig(PPOConfig):
    """Settings of SPO: PPO's, and those of the comparisons."""

    steps: int = shared(100)
    """Steps of a trajectory: what is compared, and what each copy of the environment is played between updates."""
    environments: int = shared(16)
    """Copies of the environment per member: new trajectories per update."""
    queue: int = shared(16)
    """|B|: a member's most recent trajectories that new ones are compared with; the new ones are among them."""
    opponents: int = shared(0)
    """How many of them each new trajectory is compared with, drawn at random; 0: all of them."""
    placement: Literal["spread", "last"] = shared("spread")
    """Where in a trajectory its win rate is rewarded: evenly over the steps, or on the last one."""
    snapshots: int = shared(8)
    """Past policies that are kept as a sample of the average policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "opponents", 0)
        check_range(self, "snapshots", 1)
        if self.queue < self.environments:
            found = f"queue is {self.queue} and environments {self.environments}"
            raise InputError(f"SPOConfig.{found}, expected a queue that holds every new trajectory")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """P policies as they were before some update."""

    normalizer: RunningNormalizer
    policy: StackedActor

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.policy.choose(self.normalizer(obs), key)


class SPO(PPO):
    """Stacked SPO: PPO on win rates."""

    def __init__(self, spec: Spec, members: Members[SPOConfig]) -> None:
        super().__init__(spec, members)
        self.comparing = members.shared
        kept = members.shared.snapshots
        self.saved = nn.ParameterList(
            nn.Parameter(p.detach().unsqueeze(1).repeat(1, kept, *(1,) * (p.dim() - 1)), False)
            for p in self.policy.parameters()
        )
        moments = self.normalizer.moments
        for name in ("count", "mean", "var"):  # a policy acts on observations as they were scaled then
            self.register_buffer(f"saved_{name}", getattr(moments, name).unsqueeze(1).repeat(1, kept, 1))

    @property
    def queue(self) -> int:
        """See ``pbrl.loops.arena.Compared``."""
        return self.comparing.queue

    @property
    def opponents(self) -> int:
        """See ``pbrl.loops.arena.Compared``."""
        return self.comparing.opponents

    def update(self, batch: Batch) -> Metrics:
        """PPO's update with win rates for rewards; the policy that played may become a snapshot."""
        self._save()
        rollout, wins = batch["rollout"], batch["wins"]
        rew = torch.zeros_like(rollout.rew)
        if self.comparing.placement == "spread":
            rew += (wins / rew.shape[1])[:, None, :, None]
        else:
            rew[:, -1] = wins.unsqueeze(-1)
        metrics = super().update({"rollout": dataclasses.replace(rollout, rew=rew)})
        return {**metrics, "win_spread": wins.std(1, correction=0), "comparisons": batch["comparisons"].to(wins)}

    @torch.no_grad()
    def _save(self) -> None:
        """Reservoir sampling: after u updates each policy that played is among the snapshots with probability S / u."""
        kept = self.comparing.snapshots
        if self.updates < kept:
            place = torch.full_like(self.keys, self.updates)
        else:
            place = rng.indices(rng.fold(self.keys, "snapshot", self.updates), 1, self.updates + 1).squeeze(1)
        chosen = place[:, None] == torch.arange(kept, device=place.device)  # [P, S]
        moments = self.normalizer.moments
        present = [*self.policy.parameters(), moments.count, moments.mean, moments.var]
        for old, new in zip(self._snapshots(), present, strict=True):
            old.copy_(torch.where(chosen.reshape(*chosen.shape, *(1,) * (new.dim() - 1)), new.unsqueeze(1), old))

    def _snapshots(self) -> list[Tensor]:
        return [*self.saved, *(getattr(self, f"saved_{name}") for name in ("count", "mean", "var"))]

    @torch.no_grad()
    def mixture(self) -> list[Snapshot]:
        """The snapshots as agents. An episode of the average policy is one of any of them, equally likely."""
        found = []
        for place in range(min(self.updates, self.comparing.snapshots)):
            one = Snapshot(copy.deepcopy(self.normalizer), copy.deepcopy(self.policy))
            moments = one.normalizer.moments
            present = [*one.policy.parameters(), moments.count, moments.mean, moments.var]
            for new, old in zip(present, self._snapshots(), strict=True):
                new.copy_(old[:, place])
            found.append(one)
        return found
