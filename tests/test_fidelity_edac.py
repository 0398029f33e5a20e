"""SAC-N and EDAC: SAC at two critics, cosines by double loops, an independent twin, and values outside the data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.off_policy.sac import SAC, SACConfig
from agents.offline.edac import EDAC, EDACConfig, pairwise_cosines
from agents.offline.sac_n import SACN, SACNConfig
from pbrl import rng
from pbrl.errors import InputError
from pbrl.members import sweep
from pbrl.spec import Spec

from .twins import (
    DOUBLE,
    OBS,
    SPEC,
    A,
    B,
    assert_same,
    bandit,
    copies,
    follow,
    inner,
    noise_batch,
    own,
    plain,
    step,
    weights,
)

SMALL: dict[str, Any] = {"hidden": (4,), "batch_size": B}


def edac(seeds: int = 1, values: dict[str, list[Any]] | None = None, **settings: Any) -> EDAC:
    settings = SMALL | {"critics": 4} | settings
    return EDAC(SPEC, sweep(EDACConfig(**settings), range(seeds), values, dtype=DOUBLE))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_two_critics_are_sac_to_the_bit() -> None:
    few = SACN(SPEC, sweep(SACNConfig(**SMALL, critics=2), [0, 1], dtype=DOUBLE))
    sac = SAC(SPEC, sweep(SACConfig(**SMALL), [0, 1], dtype=DOUBLE))
    for number in range(5):
        ours, theirs = (each.update({"transitions": noise_batch(2, number)}) for each in (few, sac))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(map(torch.equal, weights(few), weights(sac)))


def test_without_diversity_it_is_sac_n() -> None:
    """Member by member: the one with eta 0, and not the one with eta 1."""
    many = SACN(SPEC, sweep(SACNConfig(**SMALL, critics=4), [0, 0], dtype=DOUBLE))
    made = edac(values={"diversity": [0.0, 1.0]})
    for number in range(5):
        data = noise_batch(1, number)
        data = type(data)(
            *(x.expand(2, *x.shape[1:]) for x in (data.obs, data.act, data.rew, data.next_obs, data.term))
        )
        for each in (many, made):
            each.update({"transitions": data})
    for ours, theirs in zip(weights(made), weights(many), strict=True):
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(weights(made.q)[0][1], weights(many.q)[0][1])


def test_one_critic_has_nothing_to_differ_from() -> None:
    with pytest.raises(InputError, match="critics is 1"):
        EDACConfig(critics=1)


# --- cosines ----------------------------------------------------------------------------------------------------------


def test_the_identity_is_the_double_loop() -> None:
    slope = rng.normal(rng.keys([1, 2]), 5, 7, 3, dtype=DOUBLE)  # [P, E, B, A]
    expected = torch.zeros(2, 7, dtype=DOUBLE)
    for i in range(5):
        for j in range(5):
            if i != j:
                expected += nn.functional.cosine_similarity(slope[:, i], slope[:, j], dim=-1)
    torch.testing.assert_close(pairwise_cosines(slope), expected, rtol=1e-9, atol=1e-9)


def test_critics_that_agree_or_oppose_each_other() -> None:
    same_way = torch.ones(1, 4, 1, 2, dtype=DOUBLE) * torch.arange(1.0, 5.0, dtype=DOUBLE).reshape(1, 4, 1, 1)
    assert float(pairwise_cosines(same_way)) == pytest.approx(4 * 3, abs=1e-8)
    opposed = torch.tensor([[1.0, 0.0], [-3.0, 0.0]], dtype=DOUBLE).reshape(1, 2, 1, 2)
    assert float(pairwise_cosines(opposed)) == pytest.approx(-2.0, abs=1e-8)


def test_slopes_of_nothing_stay_finite() -> None:
    slope = torch.zeros(1, 3, 2, 2, dtype=DOUBLE, requires_grad=True)
    (grad,) = torch.autograd.grad(pairwise_cosines(slope).sum(), [slope])
    assert bool(grad.isfinite().all())


def test_linear_critics_are_charged_for_the_cosines_of_their_weights() -> None:
    """Q_i(s, a) = w_i a + ..., so that the term does not depend on the data."""
    made = edac(hidden=(), diversity=3.0)
    plainly = edac(hidden=(), diversity=0.0)
    data = noise_batch()
    loss, metrics = made._critic_loss(data, made.keys)
    bare, _ = plainly._critic_loss(data, made.keys)
    w = next(made.q.parameters())[0, :, OBS:, 0].detach()  # [N, A]
    cosines = nn.functional.cosine_similarity(w[:, None], w[None], dim=-1)
    total = float(cosines.sum() - cosines.diagonal().sum())
    assert float((loss - bare).detach()) == pytest.approx(0.5 * 3.0 / (4 - 1) * total, rel=1e-8)
    assert float(metrics["agreement"].detach()) == pytest.approx(total / 12, rel=1e-8)


# --- an independent implementation ------------------------------------------------------------------------------------


def test_it_is_an_independent_one_for_ten_updates() -> None:
    """Per member, with torch's own modules and double backward passes. All of the critics' loss is halved."""
    lr, gamma, rate, eta, critics, member = 1e-2, 0.9, 0.1, 2.0, 4, 1
    agent = edac(2, lr=lr, gamma=gamma, target_rate=rate, diversity=eta, hidden=(16, 16))
    qs, targets = copies(agent.q, member), copies(agent.target, member)
    policy = plain(inner(agent.policy), member)
    log_alpha = agent.log_alpha[member].detach().clone().requires_grad_()
    adam_q = torch.optim.Adam([p for q in qs for p in q.parameters()], lr)
    adam_pi = torch.optim.Adam([*policy.parameters(), log_alpha], lr)

    def draw(obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = policy(obs).chunk(2, -1)
        raw = mean + log_std.exp() * noise
        act = torch.tanh(raw)
        return act, (torch.distributions.Normal(mean, log_std.exp()).log_prob(raw) - torch.log(1 - act**2)).sum(-1)

    for number in range(10):
        data = noise_batch(2, number)
        obs, act, rew, next_obs, term = own(data, member)
        key = rng.fold(agent.keys, "noise", number)
        noises = [rng.normal(rng.fold(key, word), B, A, dtype=DOUBLE)[member] for word in ("target", "policy")]
        with torch.no_grad():
            next_act, log_prob = draw(next_obs, noises[0])
            best = torch.stack([q(torch.cat([next_obs, next_act], -1)).squeeze(-1) for q in targets]).amin(0)
            goal = rew + gamma * (1 - term) * (best - log_alpha.exp() * log_prob)
        slopes, errors = [], []
        for q in qs:
            given = act.clone().requires_grad_()
            value = q(torch.cat([obs, given], -1)).squeeze(-1)
            errors.append((value - goal).square().mean())
            (slope,) = torch.autograd.grad(value.sum(), [given], create_graph=True)
            slopes.append(slope / (slope.norm(dim=-1, keepdim=True) + 1e-10))
        cosines = [(slopes[i] * slopes[j]).sum(-1).mean() for i in range(critics) for j in range(critics) if i != j]
        step(adam_q, 0.5 * (torch.stack(errors).sum() + eta / (critics - 1) * torch.stack(cosines).sum()))
        fresh, log_prob = draw(obs, noises[1])
        best = torch.stack([q(torch.cat([obs, fresh], -1)).squeeze(-1) for q in qs]).amin(0)
        loss_pi = (log_alpha.exp().detach() * log_prob - best).mean()
        step(adam_pi, loss_pi + (-log_alpha.exp() * (log_prob.detach() - A)).mean())
        for target, q in zip(targets, qs):
            follow(target, q, rate)
        agent.update({"transitions": data})
    for ours, theirs in zip([*copies(agent.q, member), *copies(agent.target, member)], [*qs, *targets]):
        assert_same(ours, theirs, 1e-5)
    assert_same(plain(inner(agent.policy), member), policy, 1e-5)
    torch.testing.assert_close(agent.log_alpha[member], log_alpha, rtol=1e-6, atol=1e-6)


# --- outside the data -------------------------------------------------------------------------------------------------


def test_outside_the_data_the_smallest_of_more_critics_is_smaller() -> None:
    """Data on [-0.2, 0.2]: the smallest value at the actions -1 and 1 falls with N; five seeds."""
    spec = Spec("bandit", 1, 1)
    act = torch.linspace(-0.2, 0.2, 32, dtype=DOUBLE)[:, None]
    data = bandit(act, act[:, 0], members=5)
    outside = torch.tensor([[-1.0], [1.0]], dtype=DOUBLE).expand(5, -1, -1)
    ends = torch.cat([torch.zeros_like(outside), outside], dim=-1)
    smallest = {}
    for critics in (2, 20):
        config = SACNConfig(hidden=(16,), critics=critics, lr=1e-2)
        agent = SACN(spec, sweep(config, range(5), dtype=DOUBLE))
        for _ in range(100):
            metrics = agent.update({"transitions": data})
        assert float(metrics["loss_q"].max()) < 1e-3 * critics  # the data themselves are learned
        smallest[critics] = agent.q(ends).detach().squeeze(-1).amin(1).mean(1)
    assert bool((smallest[20] < smallest[2]).all()), smallest
