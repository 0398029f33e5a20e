"""The online loop: P members collect in N environments each, and learn from what they have collected.

    buffer = Buffer(env.spec, members=P, capacity=100_000, streams=N)
    collector = Collector(env, buffer, learner.keys)
    for metrics in online(learner, collector, 50_000, every=1000, random_steps=1000):
        ...                                     # record, evaluate in an environment of its own, save both state_dicts

``term`` bootstraps nothing and ``trunc`` bootstraps, from the true last observation of the episode. Whatever the loop
depends on is in the states of learner and buffer, so that it goes on with the same bits where it stopped at a yield:
in the same process, or with both restored from a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import rng
from ..agent import Agent, GoesOnline, Prepares, Staged
from ..data.buffer import Reward
from ..data.source import Batch
from ..errors import InputError
from ..play.collector import Collector


def online(
    learner: Agent,
    collector: Collector,
    env_steps: int,
    *,
    every: int,
    random_steps: int = 0,
    updates_per_step: float = 1.0,
    reward: Reward | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Collect and learn until each member has taken ``env_steps`` steps in all.

    Yields whenever another ``every`` steps of each member are complete (and after the last) the metrics of the time
    since: {name: [P]}, means over the updates, and ``episode_return``, the mean over the episodes that ended of what
    the environment paid (NaN for a member without one).

    Args:
        learner: one that learns from transitions.
        collector: the environments and the buffer.
        env_steps: of each member, over all its environments; the buffer counts them.
        every: steps of each member between yields.
        random_steps: of each member at the beginning, taken at random and without updates.
        updates_per_step: updates for each step of a member after that; 0 only collects.
        reward: the reward to learn from, in place of the environment's: obs [P, N, O], act [P, N, A] -> [P, N].

    Raises:
        InputError: a learner that draws something other than transitions, or prepares data in a way that it cannot
            repeat for new steps; negative counts.
        EnvFault: the environment gives what is not a number; all steps before are in the buffer.
    """
    if every < 1 or random_steps < 0 or not 0.0 <= updates_per_step < math.inf:
        found = f"every {every}, random_steps {random_steps} and updates_per_step {updates_per_step}"
        raise InputError(f"online has {found}, expected at least 1, 0 and 0")
    if isinstance(learner, GoesOnline):
        learner.go_online()
    check_online(learner, collector)
    buffer, keys = collector.buffer, learner.keys
    exploring = rng.fold(keys, "exploration")
    seen: dict[str, list[Tensor]] = {}
    total, count = (torch.zeros(buffer.members, dtype=torch.float64) for _ in range(2))
    while buffer.env_steps < env_steps:
        before = buffer.env_steps
        key = rng.fold(exploring, before)
        if before < random_steps:
            drawn = rng.uniform(key, buffer.streams, buffer.spec.act_size, dtype=buffer.dtype)
            act = 2.0 * drawn - 1.0
        else:
            act = learner.act(collector.obs, key)
        steps = collector.step(act, reward=reward)
        if bool(steps.end.any()):
            end = steps.end.cpu()
            total += torch.where(end, steps.returns, 0.0).sum(1)
            count += end.sum(1)
        now = buffer.env_steps
        for _ in range(_due(now, random_steps, updates_per_step) - _due(before, random_steps, updates_per_step)):
            batch = _treated(learner, buffer.draw(learner.wants(), keys, learner.updates))
            for name, value in learner.update(batch).items():
                seen.setdefault(name, []).append(value)
        if now // every > before // every or now >= env_steps:
            metrics = {name: torch.stack(values).nanmean(0) for name, values in seen.items()}
            yield {**metrics, "episode_return": total / count}
            seen, total, count = {}, torch.zeros_like(total), torch.zeros_like(count)


def check_online(learner: Agent, collector: Collector) -> None:
    """Raise InputError unless ``learner`` can learn from single transitions as they come in."""
    name = type(learner).__name__
    if set(learner.wants()) != {"transitions"}:
        wanted = " and ".join(learner.wants())
        raise InputError(f"{name} learns from {wanted}, expected an agent that learns online from transitions")
    data = collector.buffer.data
    unrepeatable = isinstance(learner, Staged) and not isinstance(learner, Prepares)
    if unrepeatable and data is not None and isinstance(learner, Staged) and learner.prepare(data) is not data:
        raise InputError(
            f"{name} prepares its data in a way that it cannot repeat for new steps, expected another agent"
        )


def _due(env_steps: int, random_steps: int, updates_per_step: float) -> int:
    """How many updates are due after so many steps."""
    return math.floor(max(0, env_steps - random_steps) * updates_per_step + 1e-9)


def _treated(learner: Agent, batch: Batch) -> Batch:
    """The batch as the learner's ``prepare`` would have made it."""
    return {"transitions": learner.as_prepared(batch["transitions"])} if isinstance(learner, Prepares) else batch
