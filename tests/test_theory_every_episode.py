"""UCBVI that plans for every episode: compiled against plain, and against the agent that it stands for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.tabular.ucbvi import UCBVI, UCBVIConfig
from experiments import cli
from experiments.regret import curves, studies
from pbrl import rng
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.theory import instances
from pbrl.theory.every_episode import ucbvi_every_episode
from pbrl.theory.learner import TabularSpec
from pbrl.theory.mdps import EpisodicMDP
from pbrl.theory.regret import RegretTrace

MDP = instances.dirichlet_episodic(5, 3, 4, seed=2, rewarding=0.3)
KEYS = rng.keys([0, 1, 2]).numpy()
DELTA, WIDTH = np.array([0.1, 0.05, 0.1]), np.array([1.0, 0.5, 0.0])


@pytest.fixture(scope="module")
def plain() -> RegretTrace:
    return ucbvi_every_episode(MDP, 1500, KEYS, DELTA, WIDTH, compiled=False)


def test_compiled_equals_plain(plain: RegretTrace) -> None:
    fast = ucbvi_every_episode(MDP, 1500, KEYS, DELTA, WIDTH)
    np.testing.assert_allclose(fast.value, plain.value, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fast.upper, plain.upper, rtol=1e-12, atol=1e-12)


def test_a_member_alone_is_the_same(plain: RegretTrace) -> None:
    alone = ucbvi_every_episode(MDP, 700, KEYS[1:2], DELTA[1:2], WIDTH[1:2])
    np.testing.assert_allclose(alone.value[:, 0], plain.value[:700, 1], rtol=1e-12)


def test_it_plays_as_the_agent_would(plain: RegretTrace) -> None:
    """The agent, shown the same episodes one at a time, makes the same plans."""
    members = sweep(UCBVIConfig(), [0])
    agent = UCBVI(TabularSpec.of(MDP), members)
    folded = rng.fold(torch.from_numpy(KEYS[:1].copy()), "every episode")
    horizon, states, actions = MDP.shape
    for k in range(60):
        plan = agent.plan(1)
        assert float(plan.upper[0]) == pytest.approx(float(plain.upper[k, 0]), abs=1e-12)
        chance = rng.uniform(rng.fold(folded, k), horizon + 1, dtype=torch.float64).numpy()[0]
        counts = np.zeros((1, horizon, states, actions, states))
        state = 0  # the first state is certain here
        for h in range(horizon):
            act = int(plan.policies[0, 0, h, state].argmax())
            to = int((MDP.transition[h, state, act].cumsum() <= chance[h + 1]).sum())
            counts[0, h, state, act, to] += 1.0
            state = to
        agent.update(counts, 1)


def test_bounds_hold_and_regret_is_not_negative(plain: RegretTrace) -> None:
    assert (plain.upper[:, :1] >= plain.optimum[:1] - 1e-9).all()
    assert (plain.value <= plain.optimum + 1e-9).all()
    assert plain.episodes == 1500
    regret = plain.at([500, 1500])[0]
    assert 0 < regret[1] - regret[0] < 2.0 * regret[0], "it does not learn"


def test_what_it_cannot_play_is_told() -> None:
    stack = EpisodicMDP(np.stack([MDP.transition] * 2), np.stack([MDP.reward] * 2))
    with pytest.raises(InputError, match="expected one MDP and at least 1 episode"):
        ucbvi_every_episode(stack, 10, KEYS, DELTA, WIDTH)
    with pytest.raises(InputError, match="for 0 episodes"):
        ucbvi_every_episode(MDP, 0, KEYS, DELTA, WIDTH)


def test_regret_studies_use_it() -> None:
    study = studies.make("safe", episodes=300)
    curve = curves.run("ucbvi", study, [0, 1], 300, 0.0, {"delta": 0.1, "width": 1.0, "baseline": "given"})
    again = ucbvi_every_episode(study.mdp, 300, rng.keys([0, 1]).numpy(), np.full(2, 0.1), np.ones(2))
    np.testing.assert_array_equal(curve.trace.value, again.value)


def test_the_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--states", "4", "--actions", "2", "--horizon", "3", "--seeds", "2", "--episodes", "20"]
    assert cli.main(["bench", "ucbvi", *small, "--json", str(tmp_path / "rates.json")]) == 0
    rates = json.loads((tmp_path / "rates.json").read_text())
    assert min(rates["compiled"], rates["numpy"]) > 0
    assert "seed-episodes/s" in capsys.readouterr().out
    assert cli.main(["bench", "ucbvi", *small, "--rlberry", str(tmp_path / "python")]) == 2
    assert "cannot be run" in capsys.readouterr().err
    assert cli.main(["bench", "ucbvi", "--seeds", "0"]) == 2
