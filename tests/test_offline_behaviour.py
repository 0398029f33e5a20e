"""What offline agents are for, on problems so small that the answer is known: stitching, and getting better online."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.offline.awac import AWAC, AWACConfig
from agents.offline.bc import BC, BCConfig
from agents.offline.iql import IQL, IQLConfig
from pbrl import rng
from pbrl.data import Dataset
from pbrl.data.buffer import Buffer, Replay
from pbrl.data.source import Source, Transitions
from pbrl.loops import offline, online
from pbrl.members import sweep
from pbrl.play.collector import Collector
from pbrl.spec import Spec

from .tiny_env import TinyEnv, base_reward

# --- stitching --------------------------------------------------------------------------------------------------------

# Logged: A -> B -> bad, C -> B -> goal, and A -> out, which pays a little. Nothing logged leads from A to the goal.
A, B, C, END = range(4)
LOGGED = ((A, 1.0, 0.0, B), (B, -1.0, 0.0, END), (C, 1.0, 0.0, B), (B, 1.0, 1.0, END), (A, -1.0, 0.2, END))


def walks(agent: Any, members: int) -> list[float]:
    """The return from A of every member; an action near 0 leads nowhere."""
    act = agent.act(torch.eye(3, dtype=torch.float64).expand(members, 3, 3)).squeeze(-1)  # [P, states]
    returns = []
    for choice in act.tolist():
        if choice[A] < -0.5:
            returns.append(0.2)
        else:
            returns.append(1.0 if min(choice[A], choice[B]) > 0.5 else 0.0)
    return returns


def test_iql_stitches_what_cloning_cannot() -> None:
    """Three seeds; at tau = 0.9 values are those of the better way on."""
    states = torch.cat([torch.eye(3), torch.zeros(1, 3)]).double()
    rows = LOGGED * 4
    obs, next_obs = (torch.stack([states[int(row[place])] for row in rows]) for place in (0, 3))
    act, rew = (torch.tensor([row[place] for row in rows]).double() for place in (1, 2))
    term = torch.tensor([row[3] == END for row in rows]).double()
    columns = (obs, act.unsqueeze(-1), rew, next_obs, term)
    batch = Transitions(*(column.expand(3, *column.shape) for column in columns))
    spec = Spec("chain", 3, 1)
    small: dict[str, Any] = {"hidden": (32,), "lr": 5e-3}
    config = IQLConfig(
        expectile=0.9, temperature=10.0, gamma=0.9, target_rate=0.05, rewards="raw", actor_decay=0, **small
    )
    ours = IQL(spec, sweep(config, range(3), dtype=torch.float64))
    clone = BC(spec, sweep(BCConfig(**small), range(3), dtype=torch.float64))
    for _ in range(500):
        ours.update({"transitions": batch})
        clone.update({"transitions": batch})
    assert walks(ours, 3) == [1.0, 1.0, 1.0]
    assert walks(clone, 3) == [0.0, 0.0, 0.0]  # at A and at B it goes the mean of two ways
    value = ours.v(torch.eye(3, dtype=torch.float64).expand(3, 3, 3)).squeeze(-1)  # [P, states]
    np.testing.assert_allclose(value[:, B].tolist(), 0.9, atol=0.05)  # the 0.9-expectile of 0 and 1
    assert bool((value[:, A] > 0.5).all()), "the value of A is that of going on to the goal, not of any logged return"


# --- online -----------------------------------------------------------------------------------------------------------


def drifting(keys: int = 0) -> Dataset:
    """Forty episodes of ``TinyEnv`` with actions about -0.5, where 0.5 is best."""
    env, key = TinyEnv(40, Spec("tiny", 3, 2, horizon=10), factor=1.0, constant=None, ends=False), rng.keys([keys])
    obs, parts = env.reset(range(40)), []
    for step in range(10):
        act = -0.5 + 0.3 * rng.normal(rng.fold(key, step), 40, 2, dtype=torch.float64)[0].clamp(-1.5, 1.5)
        next_obs, rew, term, trunc = env.step(act.numpy())
        parts.append((obs, act.numpy(), rew, term, trunc, next_obs))
        obs = next_obs
    columns = [np.stack(column, axis=1).reshape(400, *np.shape(column[0])[1:]) for column in zip(*parts)]
    return Dataset.from_arrays(*columns, name="tiny", env="tiny", info={"horizon": 10})


def test_awac_gets_better_online_with_the_data_in_its_replay() -> None:
    """Three seeds: what exploring finds is followed, with as much data as experience in the batches."""
    dataset, members = drifting(), 3
    config = AWACConfig(hidden=(16, 16), lr=5e-3, batch_size=32, gamma=0.0, temperature=0.1, normalize_obs=False)
    agent = AWAC(dataset.spec, sweep(config, range(members), dtype=torch.float64))
    source = Source.of(dataset, dtype=torch.float64)
    for _ in offline(agent, source, 200, every=200):
        before = worth(agent, dataset)
    env = TinyEnv.like(dataset, members)
    buffer = Buffer(env.spec, members, 1000, data=source, replay=Replay("prefill"), dtype=torch.float64)
    for _ in online(agent, Collector(env, buffer, agent.keys), 400, every=400):
        after = worth(agent, dataset)
    assert bool((after > before + 0.1).all()), f"{before.tolist()} to {after.tolist()}"


def worth(agent: AWAC, dataset: Dataset) -> Tensor:
    """[P] mean reward of the greedy actions at the data's observations."""
    obs = dataset.obs.double().expand(len(agent.keys), -1, -1)
    paid: Tensor = base_reward(obs, agent.act(obs)).mean(-1)
    return paid
