"""SAC and TD3: their losses by hand, an independent implementation, and the point mass whose optimum is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import envs
from agents.off_policy.sac import SAC, SACConfig
from agents.off_policy.td3 import TD3, TD3Config
from envs import point_mass
from pbrl import evaluation, rng
from pbrl.data.buffer import Buffer
from pbrl.data.source import Transitions
from pbrl.loops import online
from pbrl.members import sweep
from pbrl.nets.heads import StackedPolicy
from pbrl.nets.mlp import StackedMLP
from pbrl.play.collector import Collector
from pbrl.spec import Spec

OBS, A, B = 3, 2, 5
SPEC = Spec("toy", OBS, A)
DOUBLE = torch.float64


def batch(members: int, step: int = 0) -> Transitions:
    """Rows of noise, the second of which truly ends."""
    key = rng.fold(rng.keys(range(members)), "batch", step)
    obs, next_obs = (rng.normal(rng.fold(key, name), B, OBS, dtype=DOUBLE) for name in ("obs", "next"))
    act = 2.0 * rng.uniform(rng.fold(key, "act"), B, A, dtype=DOUBLE) - 1.0
    rew = rng.normal(rng.fold(key, "rew"), B, dtype=DOUBLE)
    term = (torch.arange(B) == 1).to(DOUBLE).expand(members, -1)
    return Transitions(obs, act, rew, next_obs, term)


def sac(seeds: int = 1, **settings: Any) -> SAC:
    return SAC(SPEC, sweep(SACConfig(**{"hidden": (4,), "batch_size": B, **settings}), range(seeds), dtype=DOUBLE))


def td3(seeds: int = 1, **settings: Any) -> TD3:
    return TD3(SPEC, sweep(TD3Config(**{"hidden": (4,), "batch_size": B, **settings}), range(seeds), dtype=DOUBLE))


def _net(policy: nn.Module) -> nn.Module:
    assert isinstance(policy, StackedPolicy)
    return policy.net


def constant(net: nn.Module, values: list[float]) -> None:
    """Make the net's outputs these numbers (one per copy, or per output), whatever its input."""
    assert isinstance(net, StackedMLP)
    last = net.layers[-1]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        assert isinstance(last.bias, Tensor)
        last.bias.copy_(torch.tensor(values, dtype=DOUBLE).reshape(last.bias.shape))


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_sac_losses_by_hand_numbers() -> None:
    """Constant networks: Qbar = (3, 2), Q = (1, 5), policy N(0, 1) before the tanh, alpha = 0.5, gamma = 0.9."""
    agent = sac(gamma=0.9, temperature=0.5)
    constant(agent.target, [3.0, 2.0])
    constant(agent.q, [1.0, 5.0])
    constant(_net(agent.policy), [0.0] * (2 * A))
    step, key = batch(1), rng.keys([3])
    noise = rng.normal(key, B, A, dtype=DOUBLE)[0]
    log_prob = (-0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - torch.log(1 - torch.tanh(noise) ** 2)).sum(-1)
    goal = step.rew[0] + 0.9 * torch.tensor([1.0, 0, 1, 1, 1]) * (2.0 - 0.5 * log_prob)  # row 1 bootstraps nothing
    loss_q, metrics = agent._critic_loss(step, key)
    torch.testing.assert_close(loss_q[0], 0.5 * ((goal - 1.0) ** 2).mean() + 0.5 * ((goal - 5.0) ** 2).mean())
    torch.testing.assert_close(metrics["value"], torch.tensor([3.0], dtype=DOUBLE))
    loss, more = agent._actor_losses(step, key)
    pi = (0.5 * log_prob - 1.0).mean()  # the smaller of 1 and 5
    alpha = -0.5 * (log_prob.mean() - A)  # the target entropy is -A
    torch.testing.assert_close(loss[0], pi + alpha)
    torch.testing.assert_close(more["loss_pi"][0], pi)
    torch.testing.assert_close(more["entropy"][0], -log_prob.mean())
    torch.testing.assert_close(more["temperature"], torch.tensor([0.5], dtype=DOUBLE))


def test_td3_losses_by_hand_numbers() -> None:
    """Constant networks: Qbar = (3, 2), Q = (1, 5), and Q_1 alone is the policy's."""
    agent = td3(gamma=0.9)
    constant(agent.target, [3.0, 2.0])
    constant(agent.q, [1.0, 5.0])
    step = batch(1)
    goal = step.rew[0] + 0.9 * torch.tensor([1.0, 0, 1, 1, 1]) * 2.0
    loss_q, _ = agent._critic_loss(step, rng.keys([3]))
    torch.testing.assert_close(loss_q[0], ((goal - 1.0) ** 2).mean() + ((goal - 5.0) ** 2).mean())
    torch.testing.assert_close(agent._actor_loss(step)[0], torch.tensor([-1.0], dtype=DOUBLE))


def test_td3_smooths_the_target_action_within_bounds() -> None:
    """Qbar(s, a) = a_0 + a_1 tells the action: it is clip(0.9 + clip(noise, -c, c), -1, 1)."""
    agent = td3(hidden=(), smoothing=0.4, smoothing_clip=0.3, gamma=1.0)
    constant(_net(agent.target_policy), [math.atanh(0.9)] * A)
    weights = torch.tensor([0.0] * OBS + [1.0] * A, dtype=DOUBLE).reshape(1, 1, -1, 1)
    with torch.no_grad():
        for parameter in agent.target.parameters():
            parameter.copy_(weights.expand(1, 2, -1, 1) if parameter.shape[2] > 1 else torch.zeros(1, 2, 1, 1))
    constant(agent.q, [0.0, 0.0])
    step, key = batch(1), rng.keys([3])
    noise = (0.4 * rng.normal(key, B, A, dtype=DOUBLE)[0]).clamp(-0.3, 0.3)
    assert bool((noise.abs() == 0.3).any())
    act = (0.9 + noise).clamp(-1.0, 1.0)
    goal = step.rew[0] + torch.tensor([1.0, 0, 1, 1, 1]) * act.sum(-1)
    torch.testing.assert_close(agent._critic_loss(step, key)[0][0], 2.0 * (goal**2).mean())


def test_td3_explores_with_gaussian_noise_of_its_own_deviation() -> None:
    members = sweep(TD3Config(hidden=(4,)), [0], {"exploration": [0.0, 0.05]}, dtype=DOUBLE)
    agent = TD3(SPEC, members)
    obs = torch.zeros(2, 4000, OBS, dtype=DOUBLE)
    greedy, drawn = agent.act(obs), agent.act(obs, rng.keys([7, 7]))
    assert torch.equal(greedy[0], drawn[0])
    assert float((drawn - greedy)[1].std()) == pytest.approx(0.05, rel=0.03)


def test_td3_policy_and_targets_wait_for_their_turn() -> None:
    agent = td3(delay=3, target_rate=0.5)
    state = [p.clone() for net in (agent.policy, agent.target, agent.target_policy) for p in net.parameters()]
    for step in range(2):
        assert "loss_pi" not in agent.update({"transitions": batch(1, step)})
    now = [p for net in (agent.policy, agent.target, agent.target_policy) for p in net.parameters()]
    assert all(map(torch.equal, state, now))
    assert "loss_pi" in agent.update({"transitions": batch(1, 2)})
    assert not any(map(torch.equal, state, now))


# --- gradients --------------------------------------------------------------------------------------------------------


def test_the_policy_gradient_of_the_entropy_term() -> None:
    """Where Q is constant, d L_pi / d log_std = alpha d E[log pi] / d log_std (finite differences); Q gets none."""
    agent = sac(temperature=0.3)
    constant(agent.q, [1.0, 1.0])
    step, key = batch(1), rng.keys([3])
    bias = list(agent.policy.parameters())[-1]
    loss, _ = agent._actor_losses(step, key)
    grads = torch.autograd.grad(loss.sum(), [bias, *agent.q.parameters()], allow_unused=True)
    assert all(grad is None for grad in grads[1:])
    found = grads[0]
    for place in range(2 * A):
        values = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                bias[0, 0, place] += shift
                values.append(float(agent._actor_losses(step, key)[1]["loss_pi"][0]))
                bias[0, 0, place] -= shift
        assert float(found[0, 0, place]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-8)
    assert float(found[0, 0, A:].abs().min()) > 1e-4  # log-deviations: the entropy pulls


def test_the_temperature_follows_the_target_entropy() -> None:
    """d L_alpha / d log alpha = alpha (entropy - H0): too little entropy makes it grow, too much shrink."""
    for target, grows in ((-50.0, False), (50.0, True)):
        agent = sac(target_entropy=target, temperature=0.3)
        before = agent.log_alpha.exp().clone()
        loss, metrics = agent._actor_losses(batch(1), rng.keys([3]))
        (grad,) = torch.autograd.grad(loss.sum(), [agent.log_alpha])
        torch.testing.assert_close(grad[0], 0.3 * (metrics["entropy"] - A * target))
        agent.update({"transitions": batch(1)})
        assert bool(agent.log_alpha.exp() > before) is grows
    fixed = sac(learn_temperature=False, temperature=0.3)
    for step in range(3):
        fixed.update({"transitions": batch(1, step)})
    torch.testing.assert_close(fixed.log_alpha.exp(), torch.full((1, 1), 0.3, dtype=DOUBLE))


# --- an independent implementation ------------------------------------------------------------------------------------


def plain(net: nn.Module, member: int, copy: int | None = None) -> nn.Sequential:
    """One member's (and copy's) network as torch's own modules."""
    assert isinstance(net, StackedMLP)
    modules: list[nn.Module] = []
    for layer in net.layers:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        own = (weight[member], bias[member]) if copy is None else (weight[member, copy], bias[member, copy])
        size_in, size_out = own[0].shape
        linear = nn.Linear(size_in, size_out, dtype=DOUBLE)
        with torch.no_grad():
            linear.weight.copy_(own[0].T)
            linear.bias.copy_(own[1][0])
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    with torch.no_grad():
        for old, new in zip(target.parameters(), source.parameters()):
            old.copy_((1 - rate) * old + rate * new)


def test_sac_is_an_independent_one_for_twenty_updates() -> None:
    """Per member, with torch's own modules, optimisers, Normal and tanh transform."""
    lr, gamma, rate, seeds = 1e-2, 0.9, 0.1, 2
    agent = sac(seeds, lr=lr, gamma=gamma, target_rate=rate, temperature=0.7)
    member = 1
    qs = [plain(agent.q, member, copy) for copy in range(2)]
    targets = [plain(agent.target, member, copy) for copy in range(2)]
    policy = plain(_net(agent.policy), member)
    log_alpha = agent.log_alpha[member].detach().clone().requires_grad_()
    adam_q = torch.optim.Adam([p for q in qs for p in q.parameters()], lr)
    adam_pi, adam_alpha = torch.optim.Adam(policy.parameters(), lr), torch.optim.Adam([log_alpha], lr)

    def draw(obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = policy(obs).chunk(2, -1)
        raw = mean + log_std.exp() * noise
        act = torch.tanh(raw)
        density = torch.distributions.Normal(mean, log_std.exp()).log_prob(raw) - torch.log(1 - act**2)
        return act, density.sum(-1)

    for number in range(20):
        step = batch(seeds, number)
        obs, act, rew, next_obs, term = (
            getattr(step, name)[member] for name in ("obs", "act", "rew", "next_obs", "term")
        )
        key = rng.fold(agent.keys, "noise", number)
        noises = [rng.normal(rng.fold(key, word), B, A, dtype=DOUBLE)[member] for word in ("target", "policy")]
        with torch.no_grad():
            next_act, log_prob = draw(next_obs, noises[0])
            best = torch.min(*(q(torch.cat([next_obs, next_act], -1)).squeeze(-1) for q in targets))
            goal = rew + gamma * (1 - term) * (best - log_alpha.exp() * log_prob)
        loss = sum(0.5 * nn.functional.mse_loss(q(torch.cat([obs, act], -1)).squeeze(-1), goal) for q in qs)
        assert isinstance(loss, Tensor)
        adam_q.zero_grad()
        torch.autograd.backward(loss)
        adam_q.step()
        fresh, log_prob = draw(obs, noises[1])
        best = torch.min(*(q(torch.cat([obs, fresh], -1)).squeeze(-1) for q in qs))
        adam_pi.zero_grad()
        (log_alpha.exp().detach() * log_prob - best).mean().backward()
        adam_alpha.zero_grad()
        (-log_alpha.exp() * (log_prob.detach() - A)).mean().backward()
        adam_pi.step()
        adam_alpha.step()
        for target, q in zip(targets, qs):
            follow(target, q, rate)
        agent.update({"transitions": step})
    pairs = [
        *((plain(agent.q, member, copy), qs[copy]) for copy in range(2)),
        *((plain(agent.target, member, copy), targets[copy]) for copy in range(2)),
        (plain(_net(agent.policy), member), policy),
    ]
    for ours, theirs in pairs:
        for a, b in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(agent.log_alpha[member], log_alpha, rtol=1e-7, atol=1e-8)


def test_td3_is_an_independent_one_for_twenty_updates() -> None:
    lr, gamma, rate, seeds, member = 1e-2, 0.9, 0.1, 2, 1
    agent = td3(seeds, lr=lr, gamma=gamma, target_rate=rate, smoothing=0.5)
    qs = [plain(agent.q, member, copy) for copy in range(2)]
    targets = [plain(agent.target, member, copy) for copy in range(2)]
    policy, slow = plain(_net(agent.policy), member), plain(_net(agent.target_policy), member)
    adam_q = torch.optim.Adam([p for q in qs for p in q.parameters()], lr)
    adam_pi = torch.optim.Adam(policy.parameters(), lr)
    for number in range(20):
        step = batch(seeds, number)
        obs, act, rew, next_obs, term = (
            getattr(step, name)[member] for name in ("obs", "act", "rew", "next_obs", "term")
        )
        noise = rng.normal(rng.fold(agent.keys, "smoothing", number), B, A, dtype=DOUBLE)[member]
        with torch.no_grad():
            next_act = (torch.tanh(slow(next_obs)) + (0.5 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
            best = torch.min(*(q(torch.cat([next_obs, next_act], -1)).squeeze(-1) for q in targets))
            goal = rew + gamma * (1 - term) * best
        loss = sum(nn.functional.mse_loss(q(torch.cat([obs, act], -1)).squeeze(-1), goal) for q in qs)
        assert isinstance(loss, Tensor)
        adam_q.zero_grad()
        torch.autograd.backward(loss)
        adam_q.step()
        if number % 2:
            adam_pi.zero_grad()
            (-qs[0](torch.cat([obs, torch.tanh(policy(obs))], -1))).mean().backward()
            adam_pi.step()
            for target, q in zip([*targets, slow], [*qs, policy]):
                follow(target, q, rate)
        agent.update({"transitions": step})
    pairs = [
        *((plain(agent.q, member, copy), qs[copy]) for copy in range(2)),
        (plain(_net(agent.policy), member), policy),
        (plain(_net(agent.target_policy), member), slow),
    ]
    for ours, theirs in pairs:
        for a, b in zip(ours.parameters(), theirs.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


# --- it learns --------------------------------------------------------------------------------------------------------


class Optimal:
    """The closed-form controller."""

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        gain = point_mass.solve(point_mass.Problem(dimension=1))
        return torch.as_tensor(gain.control(obs.numpy()), dtype=obs.dtype)


@pytest.mark.parametrize(
    ("learner", "config", "bound"),
    [
        (SAC, SACConfig(lr=3e-3, gamma=0.95, target_rate=0.02, temperature=0.1, hidden=(32, 32), batch_size=64), 1.6),
        (TD3, TD3Config(lr=3e-3, gamma=0.95, target_rate=0.02, hidden=(32, 32), batch_size=64), 2.5),
    ],
    ids=["sac", "td3"],
)
def test_online_it_comes_near_the_optimum_of_the_point_mass(learner: Any, config: Any, bound: float) -> None:
    """Doing nothing costs 5.8 times as much as the optimum."""

    def mean(agent: evaluation.Agent, members: int) -> list[float]:
        made = evaluation.evaluate(
            agent, lambda n: envs.make("PointMass1D-v0", n), members=members, episodes=20, together=20
        )
        return list(made.mean)

    env = envs.make("PointMass1D-v0", 8)
    agent = learner(env.spec, sweep(config, [0, 1]))
    collector = Collector(env, Buffer(env.spec, 2, 10_000, streams=4), agent.keys)
    for _ in online(agent, collector, 6000, every=6000, random_steps=500, updates_per_step=0.5):
        pass
    (best,) = mean(Optimal(), 1)
    assert all(score > bound * best for score in mean(agent, 2)), f"{mean(agent, 2)} against {best}"
