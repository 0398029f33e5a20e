"""RO2O: its three losses by hand, their limits, k's fall, and what disturbed observations cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agents.off_policy.sac import SAC, SACConfig
from agents.offline_to_online.ro2o import RO2O, RO2OConfig
from pbrl import rng
from pbrl.data.source import Transitions
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.nets.heads import TanhGaussian
from pbrl.nets.mlp import StackedMLP

from .twins import DOUBLE, SPEC, A, B, assert_same, constant, noise_batch

SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": B, "lr": 1e-2, "critics": 3, "perturbations": 4}


def ro2o(values: dict[str, list[Any]] | None = None, **settings: Any) -> RO2O:
    return RO2O(SPEC, sweep(RO2OConfig(**(SMALL | settings)), [0], values, dtype=DOUBLE))


def key(agent: RO2O) -> Tensor:
    return rng.fold(agent.keys, "test")


# --- limits -----------------------------------------------------------------------------------------------------------


def test_without_radius_nothing_is_rough_and_the_last_loss_is_the_push_alone() -> None:
    agent, data = ro2o(q_radius=0.0, policy_radius=0.0, ood_radius=0.0, ood_deviations=0.7), noise_batch()
    assert agent._q_smooth(data.obs, data.act, key(agent)).abs().max() < 1e-25
    assert agent._policy_smooth(data.obs, key(agent)).abs().max() < 1e-12
    near = data.obs.repeat(1, 4, 1)
    act, _ = agent._draw(near, rng.fold(key(agent), "act"))
    spread = agent.q(torch.cat([near, act], -1)).squeeze(-1).std(1)
    torch.testing.assert_close(agent._ood(data.obs, key(agent)), (0.7 * spread).square().mean(1))


def test_without_weights_it_is_sac() -> None:
    """Twenty updates; the critics' loss being doubled does not matter to Adam but for its epsilon."""
    agent = ro2o(q_smoothing=0.0, policy_smoothing=0.0, ood_weight=0.0)
    names = {"lr", "hidden", "batch_size", "critics"}
    config = SACConfig(**{name: value for name, value in SMALL.items() if name in names}, normalize_obs=True)
    twin = SAC(SPEC, sweep(config, [0], dtype=DOUBLE))
    for step in range(20):
        for each in (agent, twin):
            each.update({"transitions": noise_batch(step=step)})
    assert_same(agent.q, twin.q, 1e-6)
    assert_same(agent.policy, twin.policy, 1e-6)


def test_critics_that_agree_are_not_pushed() -> None:
    agent, data = ro2o(), noise_batch()
    with torch.no_grad():
        for parameter in agent.q.parameters():
            parameter.copy_(parameter[:, :1].expand_as(parameter).clone())
    assert agent._ood(data.obs, key(agent)).item() < 1e-25


# --- the losses by hand -----------------------------------------------------------------------------------------------


def linear(agent: RO2O, slopes: list[list[float]]) -> None:
    """Critics that are linear in the observation."""
    assert isinstance(agent.q, StackedMLP)
    constant(agent.q, *[0.0] * len(slopes))
    with torch.no_grad():
        agent.q.get_parameter("layers.0.weight")[0, :, : SPEC.obs_size, 0] = torch.tensor(slopes, dtype=DOUBLE)


def test_of_linear_critics_the_roughness_is_exact_and_bounded_by_the_slope() -> None:
    slopes = [[1.0, -2.0, 0.5], [-1.0, 0.0, 3.0], [0.0, 0.2, 0.0]]
    agent, data = ro2o(hidden=(), q_radius=0.1, q_rise=0.8), noise_batch()
    linear(agent, slopes)
    found = agent._q_smooth(data.obs, data.act, key(agent))
    delta = 0.1 * (2.0 * rng.uniform(key(agent), 4, 1, SPEC.obs_size, dtype=DOUBLE)[0, :, 0] - 1.0)  # [n, O]
    assert bool((delta.abs() <= 0.1).all())
    moved = delta @ torch.tensor(slopes, dtype=DOUBLE).T  # [n, E]: the same for every state
    expected = torch.where(moved > 0, 0.8, 0.2) * moved.square()
    torch.testing.assert_close(found[0], expected.mean(1).max())
    assert found.item() <= max((0.1 * sum(map(abs, slope))) ** 2 for slope in slopes)


def test_the_policys_roughness_is_the_largest_divergence_both_ways() -> None:
    """Against torch's own, perturbation by perturbation, for the state's mean."""
    agent, data = ro2o(policy_radius=0.3), noise_batch()
    found = agent._policy_smooth(data.obs, key(agent))
    delta = 0.3 * (2.0 * rng.uniform(key(agent), 4, 1, SPEC.obs_size, dtype=DOUBLE) - 1.0)
    normal = torch.distributions.Normal

    def before_tanh(obs: Tensor) -> torch.distributions.Normal:
        head = agent.policy(obs)
        assert isinstance(head, TanhGaussian)
        return normal(head.mean, head.log_std.exp())

    here, both = before_tanh(data.obs), []
    for j in range(4):
        there = before_tanh(data.obs + delta[:, j])
        kl = torch.distributions.kl_divergence
        both.append((kl(here, there) + kl(there, here)).sum(-1))
    torch.testing.assert_close(found, torch.stack(both).amax(0).mean(1))


def test_the_push_has_a_gradient_of_two_k_deviations() -> None:
    agent, data = ro2o(hidden=(), ood_deviations=0.5), noise_batch()
    constant(agent.q, 1.0, 2.0, 6.0)
    (grad,) = torch.autograd.grad(agent._ood(data.obs, key(agent)).sum(), [agent.q.get_parameter("layers.0.bias")])
    spread = torch.tensor([1.0, 2.0, 6.0], dtype=DOUBLE).std()
    torch.testing.assert_close(grad.flatten(), (2 * 0.5 * spread / 3).expand(3))


def test_k_falls_by_its_step_to_its_floor_and_is_saved() -> None:
    agent = ro2o({"ood_decay": [0.3, 5e-7]}, ood_floor=0.2)
    for _ in range(4):
        agent.update({"transitions": noise_batch(2)})
    torch.testing.assert_close(agent.ood_deviations, torch.tensor([0.2, 1.0 - 4 * 5e-7], dtype=DOUBLE))
    other = ro2o({"ood_decay": [0.3, 5e-7]}, ood_floor=0.2)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.ood_deviations, agent.ood_deviations)


def test_all_losses_are_used_whoever_brings_the_batch() -> None:
    """The loop of the online phase calls the same update; every loss is in it with its weight."""
    agent, data = ro2o(q_smoothing=0.5, ood_weight=0.3, policy_smoothing=2.0), noise_batch()
    half, _ = SAC._critic_loss(agent, data, key(agent))
    loss, metrics = agent._critic_loss(data, key(agent))
    torch.testing.assert_close(loss, 2 * half + 0.5 * metrics["loss_q_smooth"] + 0.3 * metrics["loss_ood"])
    actor, _ = SAC._actor_losses(agent, data, key(agent))
    loss, metrics = agent._actor_losses(data, key(agent))
    torch.testing.assert_close(loss, actor + 2.0 * metrics["loss_pi_smooth"])
    assert bool(metrics["loss_pi_smooth"] > 0)


def test_no_loss_of_the_critics_reaches_the_policy() -> None:
    agent = ro2o()
    loss = agent._critic_loss(noise_batch(), key(agent))[0].sum()
    grads = torch.autograd.grad(loss, list(agent.policy.parameters()), allow_unused=True)
    assert all(grad is None for grad in grads)


# --- what it is for ---------------------------------------------------------------------------------------------------


def bandit_near(members: int, step: int) -> Transitions:
    """One-step episodes whose best action is 0.8 sign(s_0): SAC learns a cliff at 0."""
    place = rng.fold(rng.keys(range(members)), "cliff", step)
    obs = rng.normal(rng.fold(place, "obs"), 32, SPEC.obs_size, dtype=DOUBLE) * 0.3
    act = 2.0 * rng.uniform(rng.fold(place, "act"), 32, A, dtype=DOUBLE) - 1.0
    best = torch.stack([0.8 * obs[..., 0].sign(), torch.zeros_like(obs[..., 0])], dim=-1)
    return Transitions(obs, act, -(act - best).square().sum(-1), obs, torch.ones(members, 32, dtype=DOUBLE))


def test_disturbed_observations_cost_it_less_than_sac_n() -> None:
    """Three seeds each, the same networks and data: what noise of the radius takes from the reward."""
    settings: dict[str, Any] = SMALL | {"hidden": (16, 16), "normalize_obs": False, "lr": 3e-3}
    on = RO2OConfig(**settings, policy_radius=0.2, q_radius=0.2, ood_radius=0.2, q_smoothing=0.1)
    off = RO2OConfig(**settings, policy_smoothing=0.0, q_smoothing=0.0, ood_weight=0.0)
    drops = []
    for config in (on, off):
        agent = RO2O(SPEC, sweep(config, range(3), dtype=DOUBLE))
        for step in range(250):
            agent.update({"transitions": bandit_near(3, step)})
        obs = torch.cat([bandit_near(3, 900 + i).obs for i in range(8)], dim=1)
        noise = 0.2 * (2.0 * rng.uniform(rng.keys([7, 7, 7]), *obs.shape[1:], dtype=DOUBLE) - 1.0)
        best = torch.stack([0.8 * obs[..., 0].sign(), torch.zeros_like(obs[..., 0])], dim=-1)
        clean, disturbed = (-(agent.act(seen) - best).square().sum(-1).mean(1) for seen in (obs, obs + noise))
        drops.append(clean - disturbed)
    assert bool((drops[0] < drops[1] - 0.01).all()), f"{drops[0].tolist()} against {drops[1].tolist()}"


def test_a_single_critic_and_a_k_below_its_floor_are_refused() -> None:
    with pytest.raises(InputError, match="critics is 1"):
        RO2OConfig(critics=1)
    with pytest.raises(InputError, match=r"ood_deviations is 0\.05"):
        RO2OConfig(ood_deviations=0.05)
