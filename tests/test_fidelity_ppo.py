"""PPO does what its papers say: hand-made numbers, a plain implementation beside it, and problems that it solves."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import envs
from agents.on_policy.ppo import PPO, PPOConfig
from envs.point_mass import Problem, solve
from pbrl import evaluation, losses, rng
from pbrl.data.rollout import Rollout
from pbrl.errors import InputError
from pbrl.loops import Playing, on_policy
from pbrl.members import sweep
from pbrl.nets.mlp import StackedLinear, StackedMLP
from pbrl.nets.running import RewardScale, RunningMoments, RunningNormalizer
from pbrl.spec import Spec

DOUBLE = torch.float64
SMALL: dict[str, Any] = {"hidden": (8, 8), "batch_size": 10, "epochs": 3, "steps": 6, "environments": 4, "lr": 1e-2}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


# --- advantages and the clipped objective, by hand --------------------------------------------------------------------


def advantages(term: list[float], ended: list[float], decay: float, gamma: float = 0.5) -> list[float]:
    """Of three steps with rewards 1, 2, 4, values 1, 1, 1 and next values 8, 16, 32."""
    rew, value, after = (numbers(*x).reshape(1, 3, 1, 1) for x in ((1, 2, 4), (1, 1, 1), (8, 16, 32)))
    flags = [numbers(*x).reshape(1, 3, 1) for x in (term, ended)]
    found: list[float] = (
        losses.gae(rew, value, after, flags[0], flags[1], numbers(gamma), numbers(decay)).flatten().tolist()
    )
    return found


def test_advantages_by_hand() -> None:
    # deltas: 1 + 4 - 1 = 4, 2 + 8 - 1 = 9, 4 + 16 - 1 = 19
    assert advantages([0, 0, 0], [0, 0, 0], 0.0) == [4, 9, 19]
    assert advantages([0, 0, 0], [0, 0, 0], 0.5) == [4 + 0.25 * (9 + 0.25 * 19), 9 + 0.25 * 19, 19]


def test_a_true_end_counts_no_future_and_a_time_limit_does() -> None:
    assert advantages([0, 1, 0], [0, 1, 0], 0.5) == [4 + 0.25 * 1, 1, 19]
    assert advantages([0, 0, 0], [0, 1, 0], 0.5) == [4 + 0.25 * 9, 9, 19]


def test_lambda_1_is_the_discounted_return_less_the_value() -> None:
    found = advantages([0, 0, 1], [0, 0, 1], 1.0)
    assert found == [1 + 0.5 * 2 + 0.25 * 4 - 1 + 0.5 * (8 - 1) + 0.25 * (16 - 1), 2 + 0.5 * 4 - 1 + 0.5 * (16 - 1), 3]


def test_each_member_and_objective_has_its_own_advantages() -> None:
    rew, value, after = rng.normal(rng.keys([0, 1]), 3, 7, 3, 2, dtype=DOUBLE).unbind(1)
    term = (rng.uniform(rng.keys([2, 3]), 7, 3) < 0.2).double()
    ended = torch.maximum(term, (rng.uniform(rng.keys([4, 5]), 7, 3) < 0.2).double())
    gamma, decay = numbers(0.9, 0.5), numbers(0.3, 0.8)
    together = losses.gae(rew, value, after, term, ended, gamma, decay)
    for p in range(2):
        for k in range(2):
            r, v, w = (x[p : p + 1, ..., k : k + 1] for x in (rew, value, after))
            row = slice(p, p + 1)
            alone = losses.gae(r, v, w, term[row], ended[row], gamma[row], decay[row])
            assert torch.equal(together[p, ..., k], alone[0, ..., 0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),
        (0.5, 2.0, -1.0, -2.0),
        (0.5, -1.0, 0.8, 0.0),
        (1.5, -1.0, 1.5, 1.0),
    ],
)
def test_the_clipped_objective_by_hand(ratio: float, advantage: float, expected: float, slope: float) -> None:
    r = numbers(ratio).requires_grad_()
    loss = losses.ppo_clip(r, numbers(advantage), 0.2)
    (grad,) = torch.autograd.grad(loss.sum(), r)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-12)
    assert float(grad) == pytest.approx(slope, abs=1e-12)


# --- running statistics -----------------------------------------------------------------------------------------------


def test_running_moments_are_those_of_all_data() -> None:
    data = 3.0 + 2.0 * rng.normal(rng.keys([0, 1]), 60, 4, dtype=DOUBLE)
    moments = RunningMoments(rng.keys([0, 1]), 4, DOUBLE)
    for part in data.split([1, 9, 30, 20], dim=1):
        moments.see(part)
    torch.testing.assert_close(moments.mean, data.mean(1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.var, data.var(1, correction=0), rtol=1e-12, atol=1e-12)


def test_observations_are_left_alone_until_anything_was_seen_and_by_members_that_do_not_normalise() -> None:
    x = 5.0 + rng.normal(rng.keys([0, 1]), 50, 3, dtype=DOUBLE)
    normalizer = RunningNormalizer(rng.keys([0, 1]), 3, numbers(1.0, 0.0))
    assert torch.equal(normalizer(x), x)
    normalizer.see(x)
    assert torch.equal(normalizer(x)[1], x[1])
    torch.testing.assert_close(normalizer(x)[0].mean(0), torch.zeros(3, dtype=DOUBLE), atol=1e-10, rtol=0)
    torch.testing.assert_close(normalizer(x)[0].std(0, correction=0), torch.ones(3, dtype=DOUBLE), atol=1e-6, rtol=0)


def test_rewards_are_scaled_by_their_running_returns_per_objective() -> None:
    """The return of a copy runs on into the next rollout, and begins anew after an end."""
    rew = rng.normal(rng.keys([0]), 8, 2, 2, dtype=DOUBLE) * numbers(1.0, 100.0)
    ended = torch.zeros(1, 8, 2, dtype=DOUBLE)
    ended[0, 2, 0] = ended[0, 5, 1] = 1.0
    scale = RewardScale(rng.keys([0]), 2, 2, numbers(0.9), numbers(1.0))
    for part in (slice(0, 3), slice(3, 8)):
        scale.see(rew[:, part], ended[:, part])
    returns = np.zeros((8, 2, 2))
    for n in range(2):
        running = np.zeros(2)
        for t in range(8):
            running = 0.9 * running + rew[0, t, n].numpy()
            returns[t, n] = running
            running = running * (1.0 - float(ended[0, t, n]))
    deviation = torch.from_numpy(returns.reshape(-1, 2).std(0))
    torch.testing.assert_close(scale.scale[0], deviation, rtol=1e-6, atol=0)
    torch.testing.assert_close(scale(rew), (rew / deviation).clamp(-10, 10), rtol=1e-6, atol=0)


# --- the update -------------------------------------------------------------------------------------------------------


def made_up(members: int, spec: Spec, *, steps: int = 6, copies: int = 4) -> Rollout:
    """The same random rollout for each of ``members``, with ends of both kinds."""
    key = rng.keys([40])[0]

    def draw(word: str, *shape: int) -> Tensor:
        return rng.normal(rng.fold(key, word), steps, copies, *shape, dtype=DOUBLE)

    chance = rng.uniform(rng.fold(key, "ends"), steps, copies)
    act = draw("act", spec.act_size)
    if spec.actions is not None:
        act = (act > 0).double()
    parts = (
        draw("obs", spec.obs_size),
        act,
        5.0 * draw("rew", spec.objectives),
        draw("next", spec.obs_size),
        (chance < 0.2).double(),
        ((chance > 0.2) & (chance < 0.4)).double(),
    )
    return Rollout(*(x.expand(members, *x.shape) for x in parts))


def plain(net: StackedMLP, member: int) -> nn.Sequential:
    """One member of a stacked network as torch's own layers."""
    layers: list[nn.Module] = []
    for stacked in net.layers:
        assert isinstance(stacked, StackedLinear)
        weight = stacked.weight.detach()[member]
        layer = nn.Linear(weight.shape[0], weight.shape[1], dtype=DOUBLE)
        layer.weight.data, layer.bias.data = weight.T.clone(), stacked.bias.detach()[member, 0].clone()
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class PlainPPO:
    """PPO for one scalar reward and one member, with torch's own layers, optimiser, clip and distributions."""

    def __init__(self, learner: PPO, config: PPOConfig, member: int) -> None:
        self.config, self.key, self.updates = config, learner.keys[member : member + 1], 0
        self.policy, self.critic = plain(learner.policy.net, member), plain(learner.critic, member)
        log_std = learner.policy.log_std
        self.log_std = None if log_std is None else nn.Parameter(log_std.detach()[member, 0].clone())
        both = [*self.policy.parameters(), *self.critic.parameters()]
        self.parameters = both if self.log_std is None else [*both, self.log_std]
        self.adam = torch.optim.Adam(self.parameters, lr=config.lr, eps=1e-5)
        self.obs = np.zeros((0, learner.spec.obs_size))
        self.returns: list[float] = []
        self.running = np.zeros(config.environments)

    def head(self, obs: Tensor) -> torch.distributions.Distribution:
        out = self.policy(obs)
        if self.log_std is None:
            return torch.distributions.Categorical(logits=out, validate_args=False)
        normal = torch.distributions.Normal(out, self.log_std.exp(), validate_args=False)
        return torch.distributions.Independent(normal, 1, validate_args=False)

    def normal(self, obs: Tensor) -> Tensor:
        if len(self.obs) == 0:
            return obs
        mean, var = torch.from_numpy(self.obs.mean(0)), torch.from_numpy(self.obs.var(0))
        return ((obs - mean) / (var + 1e-8).sqrt()).clamp(-10, 10)

    def update(self, obs: Tensor, act: Tensor, rew: Tensor, after: Tensor, term: Tensor, trunc: Tensor) -> None:
        """Of [T, N, ...] without axes for members and objectives."""
        c, (length, copies) = self.config, rew.shape
        for t in range(length):
            self.running = c.gamma * self.running + rew[t].numpy()
            self.returns += self.running.tolist()
            self.running = self.running * (1 - torch.maximum(term[t], trunc[t]).numpy())
        scaled = (rew / math.sqrt(np.var(self.returns) + 1e-8)).clamp(-10, 10)
        x, y = self.normal(obs), self.normal(after)
        act = act[..., 0] if self.log_std is None else act
        with torch.no_grad():
            value, next_value = self.critic(x)[..., 0], self.critic(y)[..., 0]
            old = self.head(x).log_prob(act)
        advantage = torch.zeros(length, copies, dtype=DOUBLE)
        for n in range(copies):
            later = 0.0
            for t in reversed(range(length)):
                delta = scaled[t, n] + (0 if term[t, n] else c.gamma * next_value[t, n]) - value[t, n]
                later = delta + (0 if term[t, n] or trunc[t, n] else c.gamma * c.gae_decay * later)
                advantage[t, n] = later
        target = (advantage + value).flatten()
        standard = (advantage - advantage.mean()).flatten() / (advantage.std(correction=0) + 1e-8)
        x, act, old = x.flatten(0, 1), act.flatten(0, 1), old.flatten()
        for group in self.adam.param_groups:
            group["lr"] = c.lr * (1 - self.updates / c.lr_decay)
        for epoch in range(c.epochs):
            order = rng.permutation(rng.fold(self.key, "order", self.updates, epoch), length * copies)[0]
            for rows in order.split(c.batch_size):
                head = self.head(x[rows])
                ratio = (head.log_prob(act[rows]) - old[rows]).exp()
                clipped = ratio.clamp(1 - c.clip, 1 + c.clip)
                loss = -torch.min(ratio * standard[rows], clipped * standard[rows]).mean()
                loss = loss + c.value_weight * (self.critic(x[rows])[:, 0] - target[rows]).pow(2).mean()
                loss = loss - c.entropy_weight * head.entropy().mean()
                self.adam.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, c.max_grad)
                self.adam.step()
        self.obs = np.concatenate([self.obs, obs.flatten(0, 1).numpy()])
        self.updates += 1


@pytest.mark.parametrize("spec", [Spec("normal", 3, 2), Spec("choice", 3, 1, actions=2)], ids=lambda spec: spec.name)
def test_an_update_equals_a_plain_ones(spec: Spec) -> None:
    """Two updates of the second of three members, statistics and annealed learning rate included."""
    config = PPOConfig(**SMALL, lr_decay=3, entropy_weight=0.01, gamma=0.9)
    members = sweep(config, [0], {"clip": [0.1, 0.2, 0.3]}, dtype=DOUBLE)
    learner = PPO(spec, members)
    with torch.no_grad():
        for parameter in learner.policy.parameters():  # far from uniform policies
            parameter.add_(0.3 * rng.normal(rng.keys([7, 8, 9]), *parameter.shape[1:], dtype=DOUBLE))
    reference = PlainPPO(learner, members.configs[1], 1)
    rollout = made_up(3, spec)
    for update in range(2):
        shifted = dataclasses.replace(rollout, obs=rollout.obs + update, rew=rollout.rew * (1 + update))
        learner.update({"rollout": shifted})
        fields = (getattr(shifted, field.name)[1] for field in dataclasses.fields(Rollout))
        obs, act, rew, after, term, trunc = fields
        reference.update(obs, act, rew[..., 0], after, term, trunc)
    for stacked, layers in ((learner.policy.net, reference.policy), (learner.critic, reference.critic)):
        for ours, theirs in zip(plain(stacked, 1).parameters(), layers.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    if reference.log_std is not None and learner.policy.log_std is not None:
        torch.testing.assert_close(learner.policy.log_std[1, 0], reference.log_std, rtol=1e-9, atol=1e-9)


def trained(spec: Spec, rollout: Rollout, weights: Tensor | None = None, updates: int = 2, **changes: Any) -> PPO:
    learner = PPO(spec, sweep(PPOConfig(**SMALL, **changes), [0, 1], dtype=DOUBLE), weights)
    for _ in range(updates):
        learner.update({"rollout": rollout})
    return learner


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


ONE, TWO = Spec("one", 3, 2), Spec("two", 3, 2, objectives=2)


def test_one_objective_is_scalar_ppo_bit_for_bit() -> None:
    rollout = made_up(2, ONE)
    vector = trained(ONE, rollout)
    assert rollout.rew.shape == (2, 6, 4, 1)
    assert same(vector, trained(ONE, dataclasses.replace(rollout, rew=rollout.rew.squeeze(-1))))


def test_an_objective_without_weight_does_not_reach_the_policy() -> None:
    """In the first update: later ones meet a critic whose layers the objectives share.

    The unit of an objective counts, for weights are in raw units.
    """
    rollout = made_up(2, TWO)
    other = dataclasses.replace(rollout, rew=rollout.rew * numbers(1.0, -3.0))
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    free: dict[str, Any] = {
        "max_grad": 1e9
    }  # a common bound on the gradient's norm would let the critic reach the policy
    one, two = trained(TWO, rollout, first, 1, **free), trained(TWO, other, first, 1, **free)
    for a, b in zip(one.policy.parameters(), two.policy.parameters(), strict=True):
        assert torch.equal(a[0], b[0])
        assert not torch.equal(a[1], b[1])
    # Weights (w, 0) on rewards (r, .) and (w / 2, .) on (2 r, .) are the same preference.
    doubled = dataclasses.replace(rollout, rew=rollout.rew * numbers(2.0, 1.0))
    mixed = trained(TWO, rollout, torch.tensor([[0.5, 0.5], [0.8, 0.2]]), **free)
    equal = trained(TWO, doubled, torch.tensor([[0.25, 0.5], [0.4, 0.2]]), **free)
    for a, b in zip(mixed.policy.parameters(), equal.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_ratios_begin_at_one() -> None:
    """A single minibatch sees the policy that played: no clip, no divergence, and minus the mean advantage as loss."""
    learner = PPO(ONE, sweep(PPOConfig(**{**SMALL, "epochs": 1, "batch_size": 24}), [0], dtype=DOUBLE))
    for _ in range(3):
        metrics = learner.update({"rollout": made_up(1, ONE)})
        assert float(metrics["clipped"]) == 0.0
        assert abs(float(metrics["kl"])) < 1e-12
        assert abs(float(metrics["loss_pi"])) < 1e-12  # advantages are standardised


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \[2, 3\], expected finite ones \[2, 2\]"):
        PPO(TWO, sweep(PPOConfig(**SMALL), [0, 1]), torch.ones(2, 3))


# --- problems that it solves ------------------------------------------------------------------------------------------


def test_it_nears_the_optimum_of_a_linear_quadratic_problem() -> None:
    config = PPOConfig(lr=1e-3, epochs=5, batch_size=128, gamma=0.95, init_log_std=-1.0, steps=100, hidden=(32, 32))
    learner = PPO(envs.make("PointMass1D-v0", 1).spec, sweep(config, range(3)))

    def scores() -> np.ndarray[Any, Any]:
        return evaluation.evaluate(learner, lambda n: envs.make("PointMass1D-v0", n), members=3, episodes=10).mean

    class Optimal:
        def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
            return torch.from_numpy(solve(Problem(dimension=1)).control(obs.numpy()))

    best = evaluation.evaluate(Optimal(), lambda n: envs.make("PointMass1D-v0", n), members=1, episodes=10).mean
    before = scores()
    playing = Playing(envs.make("PointMass1D-v0", 3 * config.environments), learner.keys)
    for _ in on_policy(learner, playing, 25, every=25):
        pass
    assert playing.env_steps == 20_000
    regret, at_first = best - scores(), best - before
    assert (regret < 0.25 * at_first).all(), f"regrets {regret} of {at_first} at first, optimum {best}"
    assert np.median(regret) < 0.1 * np.median(at_first)


def test_it_balances_the_cart_pole() -> None:
    config = PPOConfig(lr=2.5e-3, epochs=4, batch_size=128, steps=128, lr_decay=20)
    learner = PPO(envs.make("CartPole-v1", 1).spec, sweep(config, range(3)))
    playing = Playing(envs.make("CartPole-v1", 3 * config.environments), learner.keys)
    for _ in on_policy(learner, playing, 20, every=20):
        pass
    found = evaluation.evaluate(learner, lambda n: envs.make("CartPole-v1", n), members=3, episodes=5).mean
    assert np.median(found) > 450, found
