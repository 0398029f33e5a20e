"""The on-policy loop: play a while with the present policy, learn from that once, forget it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import rng
from ..agent import GoesOnline, Learner
from ..data.rollout import Rollout
from ..data.source import Batch
from ..errors import InputError
from ..play.collector import check_numbers
from ..play.vector_env import RestartableEnv, played_again


class OnPolicy(Learner, Protocol):
    """A learner that learns from its own rollouts: it ``wants`` {"rollout": steps}."""

    @property
    def environments(self) -> int:
        """N, copies of the environment per member."""
        ...

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, N, O] -> actions [P, N, A] of the present policy, drawn with keys [P] and not yet clipped."""


class Playing(nn.Module):
    """P members in N copies of an environment each, in the midst of their episodes.

    Each copy's j-th episode begins from a seed that is a function of the member's key, the copy's number and j. The
    state_dict holds the actions since each episode's start: loaded, the episodes are played again up to where they
    were, so that a resumed run goes on with the same bits. (Environments are functions of seed and actions.)

    Args:
        env: P x N copies, those of member 0 first.
        keys: [P] the learner's.
        dtype: of the observations that the learner gets.

    Attributes:
        env_steps: how many steps each member has taken, in all its copies together.

    Raises:
        InputError: copies that are no multiple of the members, or no time limit.
    """

    episode: Tensor
    length: Tensor
    actions: Tensor
    returns: Tensor

    def __init__(self, env: RestartableEnv, keys: Tensor, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        spec, members = env.spec, len(keys)
        if env.copies % members or env.copies < members:
            raise InputError(f"{spec.name} has {env.copies} copies for {members} members, expected a multiple")
        if spec.horizon is None:
            raise InputError(f"environment {spec.name} has no time limit, expected one that ends every episode")
        self.env, self.keys, self.dtype = env, keys, dtype
        self.shape = (members, env.copies // members)
        self.register_buffer("episode", torch.zeros(self.shape, dtype=torch.int64))
        self.register_buffer("length", torch.zeros(env.copies, dtype=torch.int64))
        self.register_buffer("actions", torch.zeros(spec.horizon, env.copies, spec.act_size, dtype=torch.float64))
        self.register_buffer("returns", torch.zeros(*self.shape, spec.objectives, dtype=torch.float64))
        self.env_steps = 0
        self._obs: NDArray[np.float64] | None = None

    def collect(self, learner: OnPolicy, steps: int) -> tuple[Rollout, dict[str, Tensor]]:
        """The next T steps of every copy, and the mean return [P] of the episodes that ended (where each had one).

        Raises:
            EnvFault: the environment gives what is not a number; nothing is learned from this rollout.
        """
        obs = self._begin() if self._obs is None else self._obs
        spec, device = self.env.spec, self.keys.device
        lead = (steps, self.env.copies)
        seen, after = (np.zeros((*lead, spec.obs_size)) for _ in range(2))
        rew, term, trunc = np.zeros((*lead, spec.objectives)), np.zeros(lead), np.zeros(lead)
        acts = []
        finished = torch.zeros(2, *self.shape, spec.objectives, dtype=torch.float64)  # count and sum
        key = rng.fold(self.keys, "act", learner.updates)
        for t in range(steps):
            seen[t] = obs
            act = learner.draw(self._tensor(obs).reshape(*self.shape, -1), rng.fold(key, t))
            acts.append(act)
            given = act.detach().to("cpu", torch.float64).flatten(0, 1)
            if spec.actions is None:  # a member that diverged acts NaN: it stands still, the others go on
                given = given.nan_to_num(0.0).clamp(-1.0, 1.0)
            self.actions[self.length, torch.arange(self.env.copies)] = given
            self.length += 1
            after[t], gained, term[t], trunc[t] = self.env.step(given.numpy())
            check_numbers(spec.name, after[t], gained, self.env_steps + t * self.shape[1])
            rew[t] = gained.reshape(self.env.copies, -1)
            self.returns += torch.from_numpy(rew[t]).reshape(self.returns.shape)
            ended = (term[t] + trunc[t]) > 0
            obs = after[t]
            if ended.any():
                over = torch.from_numpy(ended).reshape(*self.shape, 1)
                finished += torch.stack([over.expand_as(self.returns).double(), over * self.returns])
                self.returns *= ~over
                self.episode += over.squeeze(-1)
                self.length *= torch.from_numpy(~ended)
                obs = self.env.restart(ended, self._seeds()[ended].tolist())
        self._obs = obs
        self.env_steps += steps * self.shape[1]
        members, copies = self.shape

        def stacked(x: NDArray[np.float64]) -> Tensor:  # [T, P N, ...] -> [P, T, N, ...]
            return self._tensor(x).reshape(steps, members, copies, *x.shape[2:]).transpose(0, 1).contiguous()

        rollout = Rollout(
            stacked(seen), torch.stack(acts, dim=1), stacked(rew), stacked(after), stacked(term), stacked(trunc)
        )
        mean = (finished[1].sum(1) / finished[0].sum(1)).to(device, self.dtype)  # [P, K]
        names = ["episode_return"] if spec.objectives == 1 else [f"episode_return_{k}" for k in range(spec.objectives)]
        return rollout, {name: mean[:, k] for k, name in enumerate(names)}

    def _tensor(self, x: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(x, dtype=self.dtype, device=self.keys.device)

    def _seeds(self) -> NDArray[np.int64]:
        """[P N] the seeds of the present episodes: 31 bits each, which every simulator takes."""
        keys = self.keys.cpu()[:, None].expand(self.shape)
        seeds = rng.fold(keys, "episode", torch.arange(self.shape[1]), self.episode) >> 33
        return (seeds & 0x7FFFFFFF).flatten().numpy()

    def get_extra_state(self) -> Tensor:
        """The count of steps, as a tensor."""
        return torch.tensor(self.env_steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the count of steps; the environments follow before the next step."""
        self.env_steps = int(state)
        self._obs = None

    def _begin(self) -> NDArray[np.float64]:
        """Start the present episodes and play them again up to where they were: [P N, O]."""
        length = self.length.numpy()
        total = int(length.max())
        place = np.maximum(np.arange(total)[:, None] - total + length, 0)  # [total, P N]
        acts = self.actions.numpy()[place, np.arange(self.env.copies)]
        return played_again(self.env, self._seeds(), length, acts)


def on_policy(
    learner: OnPolicy,
    playing: Playing,
    updates: int,
    *,
    every: int,
    prepare: Callable[[Rollout], Batch] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Play and learn in turn until ``updates`` updates have been made in all, one per rollout.

    Yields as ``offline`` does. Started again with a learner and a ``Playing`` that were restored from the states at a
    yield, it goes on with the same bits.

    Args:
        prepare: turns a rollout into what the learner gets; by default it gets the rollout.

    Raises:
        EnvFault: the environment gives what is not a number; the learner is as it was after its last update.
    """
    if isinstance(learner, GoesOnline):
        learner.go_online()
    seen: dict[str, list[Tensor]] = {}
    while learner.updates < updates:
        rollout, returns = playing.collect(learner, learner.wants()["rollout"])
        batch: Batch = {"rollout": rollout} if prepare is None else prepare(rollout)
        for name, value in (*learner.update(batch).items(), *returns.items()):
            seen.setdefault(name, []).append(value)
        if learner.updates % every == 0 or learner.updates == updates:
            means = {name: torch.stack(values).nanmean(0) for name, values in seen.items()}
            # A return is told once every member has finished an episode.
            yield {name: mean for name, mean in means.items() if name not in returns or mean.isfinite().all()}
            seen = {}
