"""Uni-O4: disagreement, first steps, AM-Q against a known chain, what is accepted, and an unchanged hand-over."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.offline_to_online.uni_o4 import UniO4, UniO4Config
from pbrl import rng
from pbrl.data.rollout import Rollout
from pbrl.data.source import Transitions
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.nets.dynamics import StackedDynamics, am_q
from pbrl.optim import Adam
from pbrl.parts.policy_ensemble import disagreeing, gaussian

from .twins import DOUBLE, SPEC, A, B, noise_batch, numbers, weights

KEY = rng.keys([3])
SMALL: dict[str, Any] = {
    "hidden": (6,),
    "v_hidden": (6,),
    "q_hidden": (6,),
    "model_hidden": (6,),
    "models": 3,
    "elites": 2,
    "policies": 3,
    "model_steps": 3,
    "select_every": 1,
    "fitting_updates": 2,
    "batch_size": B,
    "steps": 4,
    "environments": 2,
    "epochs": 1,
    "minibatch_size": 8,
    "lr": 1e-2,
}


def uni(values: dict[str, list[Any]] | None = None, **settings: Any) -> UniO4:
    return UniO4(SPEC, sweep(UniO4Config(**(SMALL | settings)), [0], values, dtype=DOUBLE))


def trained(updates: int, **settings: Any) -> UniO4:
    agent = uni(**settings)
    for step in range(updates):
        agent.update({"transitions": noise_batch(step=step)})
    return agent


def rollout(agent: UniO4, steps: int = 4, copies: int = 2) -> Rollout:
    """Noise, with actions that the agent draws."""

    def normal(word: str, *shape: int) -> Tensor:
        return rng.normal(rng.fold(KEY, word), steps, copies, *shape, dtype=DOUBLE)

    obs, zero = normal("obs", SPEC.obs_size), torch.zeros(1, steps, copies, dtype=DOUBLE)
    act = agent.draw(obs.flatten(1, 2), KEY).unflatten(1, (steps, copies))
    return Rollout(obs, act, normal("rew", 1), normal("next", SPEC.obs_size), zero, zero)


# --- the clones -------------------------------------------------------------------------------------------------------


def test_without_disagreement_the_clones_are_independent() -> None:
    """Their loss is the sum of each one's own, and so each one's gradient is that of cloning alone."""
    log_prob = rng.normal(KEY, 3, B, dtype=DOUBLE).requires_grad_()
    loss = disagreeing(log_prob, numbers(0.0))
    torch.testing.assert_close(loss, -log_prob.mean(-1).sum(1))
    (grad,) = torch.autograd.grad(loss.sum(), [log_prob])
    torch.testing.assert_close(grad, torch.full_like(grad, -1.0 / B))


def test_disagreement_holds_back_whoever_is_best_where_it_is() -> None:
    """alpha = 0.1: -(1 + alpha) for everyone, + alpha for each other clone whose best other one it is."""
    log_prob = numbers(0.0, -1.0, -3.0).reshape(1, 3, 1).requires_grad_()
    loss = disagreeing(log_prob, numbers(0.1))
    torch.testing.assert_close(loss, numbers(4.0 - 0.1 * (0.0 + 1.0) + 0.1 * (1.0 - 0.0) + 0.1 * (3.0 - 0.0)))
    (grad,) = torch.autograd.grad(loss.sum(), [log_prob])
    torch.testing.assert_close(grad.flatten(), numbers(-1.1 + 0.2, -1.1 + 0.1, -1.1))


def test_a_disagreement_without_a_lower_bound_is_refused() -> None:
    with pytest.raises(InputError, match=r"disagreement is 0\.5 with 4 policies, expected less than 0\.5"):
        UniO4Config(disagreement=0.5)
    with pytest.raises(InputError, match="elites is 8"):
        UniO4Config(elites=8)


# --- stage 2 ----------------------------------------------------------------------------------------------------------


def test_the_first_step_is_the_weighted_advantages_score_function() -> None:
    """Ratios are 1: the gradient is - E[ A w grad log pi ], to 1e-6."""
    agent, data = trained(2, optimism=0.7), noise_batch(step=9)
    key = rng.fold(agent.keys, "test")
    loss, metrics = agent._improve_loss(data.obs, key, agent.clip)
    assert float(metrics["moved"].max()) < 1e-9
    head = gaussian(agent.clones(data.obs))
    act = (head.mean + head.log_std.exp() * rng.normal(key, 3, B, A, dtype=DOUBLE)).detach()
    value = torch.stack([agent._q_of(data.obs, act[:, i]) for i in range(3)], dim=1)
    advantage = value - agent.v(data.obs).squeeze(-1).unsqueeze(1)
    standard = (advantage - advantage.mean(-1, keepdim=True)) / (advantage.std(-1, correction=0, keepdim=True) + 1e-8)
    weighted = (torch.where(standard > 0, *numbers(0.7, 0.3)) * standard).detach()
    expected = -(weighted * head.log_prob(act)).mean(-1).sum()
    ours = torch.autograd.grad(loss.sum(), list(agent.clones.parameters()))
    theirs = torch.autograd.grad(expected, list(agent.clones.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_policies_are_accepted_one_by_one_and_the_best_acts() -> None:
    agent = trained(2)
    first, best = agent.accepted.get_parameter("layers.0.bias").clone(), agent.best.clone()
    for parameter in agent.clones.parameters():
        parameter.data.add_(0.1)
    agent.select(best + numbers(1.0, -1.0, math.nan))
    torch.testing.assert_close(agent.best.detach(), best + numbers(1.0, 0.0, 0.0))
    now = agent.accepted.get_parameter("layers.0.bias")
    new = agent.clones.get_parameter("layers.0.bias")
    assert torch.equal(now[0, 0], new[0, 0])
    assert torch.equal(now[0, 1:], first[0, 1:])
    chosen = int(agent.best.argmax())
    assert torch.equal(agent.policy.get_parameter("layers.0.bias")[0], now[0, chosen])


def test_the_best_am_q_never_falls_and_is_that_of_the_accepted() -> None:
    agent = trained(2)
    seen = [agent.best.clone()]
    for step in range(8):
        agent.update({"transitions": noise_batch(step=step)})
        seen.append(agent.best.clone())
        torch.testing.assert_close(agent.am_q(agent.accepted), seen[-1].data)
        assert bool((seen[-1] >= seen[-2]).all())
    assert bool((seen[-1] > seen[0]).any())


def test_ranges_and_rates_fall_to_nothing() -> None:
    agent = trained(2 + 4, improve_updates=4)
    before = weights(agent.clones)
    agent.update({"transitions": noise_batch(step=1)})
    assert all(map(torch.equal, before, weights(agent.clones)))


# --- AM-Q -------------------------------------------------------------------------------------------------------------


def test_in_an_exact_model_of_a_chain_am_q_is_what_it_should_be() -> None:
    """Three states on a line, one-hot; an action above 0 goes right, and stays at the end; Q = 10 state + action."""
    right = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=DOUBLE)
    left = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=DOUBLE)
    place = numbers(0.0, 1.0, 2.0)

    def step(obs: Tensor, act: Tensor, noise: Tensor) -> Tensor:
        assert noise.shape == obs.shape
        return torch.where(act > 0, obs @ right, obs @ left)

    def value(obs: Tensor, act: Tensor) -> Tensor:
        return 10.0 * (obs @ place) + act.squeeze(-1)

    def act(obs: Tensor) -> Tensor:  # the first policy goes right by 0.5, the second left by 0.25
        return numbers(0.5, -0.25).reshape(1, 2, 1, 1).expand(1, 2, obs.shape[2], 1)

    starts = torch.eye(3, dtype=DOUBLE)[[0, 2, 1, 1]].reshape(1, 2, 2, 3)  # two models with two starts each
    found = am_q(value, act, step, starts, KEY, policies=2, steps=3)
    goes_right = [[0, 1, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]]
    goes_left = [[0, 0, 0], [2, 1, 0], [1, 0, 0], [1, 0, 0]]
    expected = [
        sum(10 * sum(path) + 3 * a for path in paths) / 12 for paths, a in ((goes_right, 0.5), (goes_left, -0.25))
    ]
    torch.testing.assert_close(found[0], numbers(*expected))


def test_models_learn_what_follows_and_the_elites_are_the_best_of_them() -> None:
    models = StackedDynamics(KEY, 2, 1, models=3, hidden=(16,), dtype=DOUBLE)
    adam = Adam(models.net.parameters(), numbers(0.01))

    def objective(obs: Tensor, act: Tensor, next_obs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = models.losses(obs, act, next_obs)
        return loss.sum(1), {"each": loss}

    descend = descent(objective, compile=False)
    for number in range(300):
        key = rng.fold(KEY, "data", number)
        obs = rng.normal(rng.fold(key, "obs"), 64, 2, dtype=DOUBLE)
        act = rng.normal(rng.fold(key, "act"), 64, 1, dtype=DOUBLE)
        noise = 0.2 * rng.normal(rng.fold(key, "noise"), 64, 2, dtype=DOUBLE)
        models.see(descend({adam: 1.0}, obs, act, obs + 0.5 * act + noise)["each"])
    models.error.copy_(numbers(0.0, -3.0, 1.0)[None])
    step = models.elites(2)
    wide = (x.unsqueeze(1).expand(-1, 2, -1, -1) for x in (obs, act))
    obs2, act2 = wide
    mean = step(obs2, act2, torch.zeros_like(obs2))
    assert float((mean - obs2 - 0.5 * act2).abs().mean()) < 0.1
    spread = step(obs2, act2, torch.ones_like(obs2)) - mean
    assert float(spread.median()) == pytest.approx(0.2, abs=0.05)
    alone = models.net(torch.cat([obs, act], -1))[:, [1, 0]].chunk(2, -1)[0]
    torch.testing.assert_close(mean, (obs2 + alone).detach())


# --- the hand-over ----------------------------------------------------------------------------------------------------


def test_nothing_of_the_policy_changes_at_the_hand_over() -> None:
    """Divergence 0 in mean and deviation; the same actions to the bit; the same policy plays that was evaluated."""
    agent, data = trained(6), noise_batch(step=3)
    offline = gaussian(agent.policy(data.obs))
    before, drawn = agent.act(data.obs), agent.act(data.obs, KEY)
    for _ in range(2):
        agent.go_online()
        assert agent.wants() == {"rollout": 4}
        assert torch.equal(agent.act(data.obs), before)
        assert torch.equal(agent.act(data.obs, KEY), drawn)
        assert torch.equal(agent.draw(data.obs, KEY).clamp(-1, 1), drawn)
    online = gaussian(agent.policy(data.obs))
    normals = [torch.distributions.Normal(head.mean, head.log_std.exp()) for head in (offline, online)]
    assert float(torch.distributions.kl_divergence(*normals).abs().max().detach()) == 0.0


def test_the_first_step_online_has_ratios_of_one_and_only_ppos_networks_move() -> None:
    agent = trained(6)
    agent.go_online()
    played = rollout(agent)
    _, metrics = agent._online_losses(agent._rows(played))
    assert float(metrics["kl"].detach().abs()) < 1e-12
    moving, still = (agent.policy, agent.v), (agent.q, agent.clones, agent.accepted, agent.models)
    before = [weights(net) for net in (*moving, *still)]
    agent.update({"rollout": played})
    after = [weights(net) for net in (*moving, *still)]
    changed = [any(not torch.equal(a, b) for a, b in zip(x, y)) for x, y in zip(before, after)]
    assert changed == [True, True, False, False, False, False]


def test_an_agent_that_plays_remembers_it() -> None:
    agent, other = trained(6), uni()
    agent.go_online()
    agent.update({"rollout": rollout(agent)})
    other.load_state_dict(agent.state_dict())
    assert other.wants() == {"rollout": 4}
    obs = noise_batch().obs
    assert torch.equal(agent.act(obs), other.act(obs))


def test_its_state_is_what_it_was_before_its_parts_were_shared() -> None:
    """Names, shapes and sums of absolute values after all stages, recorded when the algorithm was one file."""
    agent = trained(6)
    agent.go_online()
    agent.update({"rollout": rollout(agent)})
    recorded = json.loads((Path(__file__).parent / "fixtures" / "uni_o4_state.json").read_text())
    state = agent.state_dict()
    assert state.keys() - {"keys"} == recorded.keys()
    for name, (shape, total) in recorded.items():
        assert list(state[name].shape) == shape, name
        assert float(state[name].double().abs().sum()) == pytest.approx(total, rel=1e-9, abs=1e-12), name


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_offline_steps_make_more_of_a_bandit_than_cloning() -> None:
    """One-step episodes, data around 0, and rewards that rise with both actions."""
    config = UniO4Config(
        **(
            SMALL
            | {
                "fitting_updates": 150,
                "model_steps": 1,
                "select_every": 10,
                "policies": 2,
                "lr": 3e-3,
                "batch_size": 32,
            }
        ),
        improve_updates=0,
        reward_scale=1.0,
    )
    agent = UniO4(SPEC, sweep(config, range(3), dtype=DOUBLE))
    scores = []
    for step in range(300):
        key = rng.fold(agent.keys, "data", step)
        obs = rng.normal(rng.fold(key, "obs"), 32, SPEC.obs_size, dtype=DOUBLE)
        act = 0.5 * (2.0 * rng.uniform(rng.fold(key, "act"), 32, A, dtype=DOUBLE) - 1.0)
        data = Transitions(obs, act, act.sum(-1), obs, torch.ones(3, 32, dtype=DOUBLE))
        if step in (150, 299):
            scores.append(agent.act(obs).sum(-1).mean(1))
        agent.update({"transitions": data})
    assert bool((scores[1] > scores[0] + 0.1).all()), f"{scores[0].tolist()} then {scores[1].tolist()}"
