"""Population-based training: the toy of the paper, which needs both copying and varying, and copies in real stacks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import envs
from agents.on_policy.ppo import PPO, PPOConfig
from pbrl import rng
from pbrl.errors import InputError
from pbrl.loops import Playing, on_policy
from pbrl.members import Members, sweep
from pbrl.parts.population_based import Explored, copy_members, exploit, explore, places, set_values, stacked, values_of

DOUBLE = torch.float64
KEY = rng.keys([3])[0]


def toy(*, copies: bool, varies: bool, seed: int = 0) -> float:
    """max 1.2 - |theta|^2 by two members that each climb 1.2 - h . theta^2 only: the better one's value (section 4.1).

    From (.9, .9) and h = (1, 0), (0, 1), learning rate .02, 200 steps, every 4 of them a turn.
    """
    theta = torch.full((2, 2), 0.9, dtype=DOUBLE)
    h = torch.eye(2, dtype=DOUBLE)
    spec = Explored(0.0, 1.0, resample=1.0)
    key = rng.fold(rng.keys([seed])[0], "toy")
    for step in range(1, 201):
        theta = theta - 0.02 * 2.0 * h * theta
        if step % 4:
            continue
        turn = rng.fold(key, step)
        source = exploit(1.2 - theta.square().sum(1), 0.5, turn) if copies else torch.arange(2)
        theta, settings = theta[source], {"first": h[:, 0], "second": h[:, 1]}
        if varies:
            settings = explore(settings, source, dict.fromkeys(settings, spec), turn)
            h = torch.stack([settings["first"], settings["second"]], dim=1)
    return float((1.2 - theta.square().sum(1)).max())


def test_the_papers_toy() -> None:
    assert toy(copies=False, varies=False) == pytest.approx(0.390, abs=1e-3), "grid search: 1.2 - .81"
    for seed in range(5):
        assert toy(copies=True, varies=True, seed=seed) == pytest.approx(1.200, abs=2e-3)


def test_copying_weights_alone_helps_and_settings_too_without_varying_do_not() -> None:
    def both(copy_settings: bool) -> float:
        theta, h = torch.full((2, 2), 0.9, dtype=DOUBLE), torch.eye(2, dtype=DOUBLE)
        for step in range(1, 201):
            theta = theta - 0.02 * 2.0 * h * theta
            if step % 4 == 0:
                source = exploit(1.2 - theta.square().sum(1), 0.5, rng.fold(KEY, step))
                theta = theta[source]
                h = h[source] if copy_settings else h
        return float((1.2 - theta.square().sum(1)).max())

    assert both(False) == pytest.approx(1.1995, abs=1e-3)
    assert both(True) == pytest.approx(0.390, abs=1e-3)


def test_the_worst_copy_the_best() -> None:
    scores = torch.tensor([5.0, 1.0, math.nan, 9.0, 8.0, 4.0, 3.0, 2.0, 6.0, 7.0])
    seen = set()
    for seed in range(40):
        source = exploit(scores, 0.2, rng.keys([seed])[0])
        assert [i for i in range(10) if source[i] != i] == [1, 2], "the two worst, not a number being the worst of all"
        seen |= set(source[[1, 2]].tolist())
    assert seen == {3, 4}
    assert exploit(torch.zeros(2), 0.2, KEY).tolist() in ([1, 1], [0, 0]), "a tie does not stop it"
    assert exploit(torch.zeros(1), 0.2, KEY).tolist() == [0]


def test_copies_vary_within_bounds_and_others_do_not() -> None:
    settings = {"lr": torch.tensor([1.0, 2.0, 3.0, 4.0]), "clip": torch.tensor([0.1, 0.2, 0.3, 0.4])}
    source = torch.tensor([3, 1, 3, 3])
    found = explore(settings, source, {"lr": Explored(0.5, 4.2)}, KEY)
    assert found["lr"][[1, 3]].tolist() == [2.0, 4.0]
    low, high = pytest.approx(3.2), pytest.approx(4.2)  # 4 x 0.8, and 4 x 1.2 kept within the bound
    assert all(value in (low, high) for value in found["lr"][[0, 2]].tolist())
    assert torch.equal(found["clip"], settings["clip"])
    anew = [
        explore(settings, source, {"lr": Explored(1e-4, 1e-2, resample=1.0, log=True)}, rng.keys([s])[0])["lr"][
            0
        ].item()
        for s in range(200)
    ]
    assert min(anew) >= 0.999e-4
    assert max(anew) <= 1.001e-2
    assert 0.4 < sum(value < 1e-3 for value in anew) / 200 < 0.6, "even by the logarithm"


def played(learner: PPO, updates: int) -> list[Tensor]:
    env = envs.make("PointMass1D-v0", 2 * 3)
    for _ in on_policy(learner, Playing(env, learner.keys), updates, every=1):
        continue
    return [p.detach().clone() for p in learner.parameters()]


TINY = PPOConfig(steps=5, environments=2, hidden=(4,), epochs=1, batch_size=5)


def ppo(members: Members[PPOConfig]) -> PPO:
    return PPO(envs.make("PointMass1D-v0", 1).spec, members)


def test_a_copy_of_a_stacks_member_learns_as_its_source_does() -> None:
    members = sweep(TINY, [0, 1, 2], {"lr": [1e-3]})
    learner = ppo(members)
    stacks, where = stacked(ppo, members), places(ppo, members, ["lr", "clip"])
    assert where == {"lr": ("adam.lr",), "clip": ("clip",)}
    played(learner, 2)
    copy_members(learner, torch.tensor([2, 1, 2]), stacks)
    assert learner.keys[0] != learner.keys[2]
    own = ("keys", "reward_scale.returns")
    tensors = [*learner.parameters(), *(b for name, b in learner.named_buffers() if name not in own)]
    assert all(torch.equal(x[0], x[2]) for x in tensors)
    assert any(not torch.equal(x[0], x[1]) for x in tensors)
    assert not torch.equal(learner.reward_scale.returns[0], learner.reward_scale.returns[2]), "its own episodes go on"
    varied = {"lr": torch.tensor([1e-3, 1e-3, 0.0]), "clip": torch.tensor([0.1, 0.2, 0.3])}
    set_values(learner, varied, where)
    assert learner.adam.rates == pytest.approx([1e-3, 1e-3, 0.0])
    assert learner.clip.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert all(torch.equal(values, varied[name]) for name, values in values_of(learner, where, 3).items())
    before = [p.detach().clone() for p in learner.policy.parameters()]
    played(learner, 3)
    assert all(torch.equal(a[2], b[2]) for a, b in zip(before, learner.policy.parameters())), (
        "at rate 0 it stands still"
    )
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(before, learner.policy.parameters()))
    again = PPO(learner.spec, sweep(TINY, [0, 1, 2]))
    again.load_state_dict(learner.state_dict())
    assert again.adam.rates == learner.adam.rates, "a resumed population goes on at its own rates"


def test_what_has_no_row_for_each_member_is_not_copied() -> None:
    """Two members and two observations: a shape alone does not tell one from the other."""

    class Both(nn.Module):
        shared: Tensor
        own: Tensor
        many: Tensor

        def __init__(self, members: int) -> None:
            super().__init__()
            self.register_buffer("shared", torch.tensor([5.0, 6.0]))
            self.register_buffer("own", torch.arange(members).double())
            self.register_buffer("many", torch.arange(3 * members).double())

    learner = Both(2)
    stacks = stacked(lambda members: Both(len(members)), sweep(TINY, [0, 1]))
    assert stacks == {"own": 1, "many": 3}
    copy_members(learner, torch.tensor([1, 1]), stacks)
    assert learner.shared.tolist() == [5.0, 6.0]
    assert learner.own.tolist() == [1.0, 1.0]
    assert learner.many.tolist() == [1.0, 1.0, 3.0, 3.0, 5.0, 5.0], "row g P + p is member p's"


def test_nobody_becomes_one_that_has_no_score() -> None:
    scores = torch.tensor([math.nan, math.nan, 3.0, math.nan])
    for seed in range(20):
        source = exploit(scores, 0.5, rng.keys([seed])[0])
        assert source.tolist() == [2, 2, 2, 3]
    assert exploit(torch.full((4,), math.nan), 0.5, KEY).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: exploit(torch.zeros(4), 0.7, KEY), "share that is replaced is 0.7"),
        (lambda: Explored(1.0, 1.0), "expected finite numbers that rise"),
        (lambda: Explored(0.0, 1.0, log=True), "expected a bound above 0"),
        (lambda: Explored(0.0, 1.0, resample=2.0), "chance to resample is 2.0"),
        (lambda: explore({"lr": torch.zeros(2)}, torch.zeros(2), {"x": Explored(0, 1)}, KEY), "unknown setting 'x'"),
        (lambda: set_values(nn.Linear(2, 2), {"lr": torch.zeros(2)}, {"clip": ()}), "'lr' has no place in Linear"),
        (lambda: places(ppo, sweep(TINY, [0]), ["init_log_std"]), "init_log_std decides how training begins"),
        (lambda: places(ppo, sweep(TINY, [0]), ["normalize_obs"]), "normalize_obs is True, expected a setting that"),
    ],
)
def test_bad_input(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
