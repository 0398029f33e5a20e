"""Collector: P members in N environments each, stepped together into a buffer.

    collector = Collector(env, buffer, learner.keys)        # env has P x N copies, member by member
    steps = collector.step(act)                             # act [P, N, A]
    steps = collector.step(act, reward=model.reward)        # the buffer's ``rew`` is the model's, ``env_rew`` the env's

The seed of an episode is a function of (member key, stream, number of the episode), so that a member meets the same
episodes alone as in any stack. An environment's state is never saved: the first step after a resume begins the running
episodes again from their seeds and repeats the buffer's actions, which brings a deterministic simulator back to the
same state (and is checked).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..data.buffer import Buffer, Reward
from ..errors import InputError
from .vector_env import Flags, RestartableEnv, played_again


class EnvFault(InputError):
    """The environment gave what is not a number; all steps before are in the buffer, where there is one."""


def check_numbers(env: str, obs: NDArray[np.float64], rew: NDArray[np.float64], env_steps: int) -> None:
    """Raise EnvFault unless all is finite that an environment gave after so many steps of each member."""
    for what, values in (("an observation", obs), ("a reward", rew)):
        if not np.isfinite(values).all():
            raise EnvFault(
                f"environment {env} gave {what} that is not a number after {env_steps} steps, expected finite numbers"
            )


@dataclass(frozen=True, eq=False)
class Steps:
    """One step of every environment, as it was put into the buffer.

    Attributes:
        obs: [P, N, O].
        act: [P, N, A].
        rew: [P, N] what is learned from.
        next_obs: [P, N, O], at an end the last observation of the episode.
        term: [P, N] bool.
        trunc: [P, N] bool.
        env_rew: [P, N] what the environment paid.
        returns: [P, N] sum of ``env_rew`` over the episode so far, this step included.
    """

    obs: Tensor
    act: Tensor
    rew: Tensor
    next_obs: Tensor
    term: Tensor
    trunc: Tensor
    env_rew: Tensor
    returns: Tensor

    @property
    def end(self) -> Tensor:
        """[P, N] bool."""
        return self.term | self.trunc


class Collector:
    """See the module's docstring.

    Attributes:
        env: P x N copies; copy p N + n is the n-th of member p.
        buffer: what they fill.
        keys: [P] the members'.

    Raises:
        InputError: another number of copies, other sizes, no time limit, or a buffer that cannot hold a whole episode.
    """

    def __init__(self, env: RestartableEnv, buffer: Buffer, keys: Tensor) -> None:
        self.env, self.buffer, self.keys = env, buffer, keys
        copies = buffer.members * buffer.streams
        if env.copies != copies or len(keys) != buffer.members:
            found = f"{env.copies} environment copies and {len(keys)} keys"
            raise InputError(f"{found} for {buffer.members} members, expected {copies} copies and one key per member")
        sizes = [(spec.obs_size, spec.act_size) for spec in (env.spec, buffer.spec)]
        if sizes[0] != sizes[1]:
            found = f"environment {env.spec.name} has {sizes[0][0]} observations and {sizes[0][1]} actions"
            raise InputError(f"{found}, expected {sizes[1][0]} and {sizes[1][1]}")
        if env.spec.horizon is None:
            raise InputError(f"environment {env.spec.name} has no time limit, expected one that ends every episode")
        if buffer.length < env.spec.horizon:
            least = env.spec.horizon * buffer.streams
            raise InputError(
                f"the replay buffer holds {buffer.length * buffer.streams} steps, expected at least {least}: a whole "
                f"episode of {env.spec.name} in each of {buffer.streams} environments"
            )
        self._obs: Tensor | None = None
        self._returns = torch.zeros(buffer.members, buffer.streams, dtype=torch.float64)

    @property
    def obs(self) -> Tensor:
        """[P, N, O] where the environments are now."""
        if self._obs is None:
            self._obs = self._seen(self._begin())
        return self._obs

    def step(self, act: Tensor, *, reward: Reward | None = None) -> Steps:
        """Take the actions [P, N, A], put the steps into the buffer, and begin a new episode wherever one ended.

        ``reward(obs [P, N, O], act [P, N, A]) -> [P, N]`` is what is learned from, in place of what the environment
        pays. An action that is not a number counts as 0.

        Raises:
            EnvFault: the environment gives an observation or a reward that is not a number: such a step is not added.
        """
        buffer, shape = self.buffer, (self.buffer.members, self.buffer.streams)
        obs = self.obs
        act = act.detach().to(buffer.dtype).nan_to_num(0.0).clamp(-1.0, 1.0)
        chosen = act.to("cpu", torch.float64).numpy().reshape(self.env.copies, -1)
        arrays = self.env.step(chosen)
        self._check(arrays[0], arrays[1])
        next_obs = self._seen(arrays[0])
        env_rew = torch.as_tensor(arrays[1], dtype=torch.float64).reshape(shape)
        term, trunc = (torch.as_tensor(flag).reshape(shape) for flag in arrays[2:])
        paid = env_rew.to(buffer.device, buffer.dtype)
        returns = self._returns = self._returns + paid.to("cpu", torch.float64)
        term, trunc = term.to(buffer.device), trunc.to(buffer.device)
        rew = paid if reward is None else reward(obs, act).detach()
        buffer.add(obs, act, rew, next_obs, term, trunc, env_rew=paid)
        self._obs = next_obs
        end: Flags = arrays[2] | arrays[3]
        if end.any():
            self._returns = torch.where(torch.as_tensor(end).reshape(shape), 0.0, returns)
            fresh = self.env.restart(end, self._seeds()[end].tolist())
            self._check(fresh, np.zeros(1))
            self._obs = self._seen(fresh)
        return Steps(obs, act, rew, next_obs, term, trunc, paid, returns)

    def _seen(self, obs: NDArray[np.float64]) -> Tensor:
        shape = (self.buffer.members, self.buffer.streams, self.buffer.spec.obs_size)
        return torch.tensor(obs, dtype=self.buffer.dtype, device=self.buffer.device).reshape(shape)

    def _seeds(self) -> NDArray[np.int64]:
        """[P N] seeds of the episodes that go on, or begin: 31 bits each."""
        streams = torch.arange(self.buffer.streams, device=self.keys.device)
        key = rng.fold(rng.fold(self.keys, "episode")[:, None], streams, self.buffer.ended.to(self.keys.device))
        return (rng.bits(key, 1).flatten() & 0x7FFFFFFF).cpu().numpy()

    def _check(self, obs: NDArray[np.float64], rew: NDArray[np.float64]) -> None:
        check_numbers(self.env.spec.name, obs, rew, self.buffer.env_steps)

    def _begin(self) -> NDArray[np.float64]:
        """[P N, O] first observations, or those at which the buffer stopped."""
        seeds, buffer = self._seeds(), self.buffer
        running = buffer.running.flatten().cpu().numpy()
        longest = int(running.max())
        if not longest:
            return np.asarray(self.env.reset(seeds.tolist()))
        order = buffer.order[-longest:]  # [longest, N]
        acts = buffer.act[:, order].to("cpu", torch.float64).transpose(0, 1).flatten(1, 2).numpy()  # [longest, P N, A]
        obs = played_again(self.env, seeds, running, acts)
        paid = buffer.env_rew[:, order].to("cpu", torch.float64).transpose(0, 1).flatten(1, 2)  # [longest, P N]
        returns = torch.zeros(self.env.copies, dtype=torch.float64)
        for time, gained in enumerate(paid):
            returns += torch.where(torch.as_tensor(running) >= longest - time, gained, 0.0)
        self._returns = returns.reshape(buffer.members, buffer.streams)
        expected = buffer.next_obs[:, order[-1]]
        wrong = (self._seen(obs) != expected).any(-1).flatten().cpu().numpy() & (running > 0)
        if wrong.any():
            raise InputError(
                f"environment {self.env.spec.name} does not come back to where it was by the same seed and actions, "
                "expected a deterministic simulator: a run in it cannot be resumed"
            )
        return obs
