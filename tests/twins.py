"""What tests of off-policy agents compare with: batches of noise, and one member's networks as torch's own modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pbrl import rng
from pbrl.data.source import Transitions
from pbrl.nets.heads import StackedPolicy
from pbrl.nets.mlp import StackedMLP
from pbrl.spec import Spec

OBS, A, B = 3, 2, 5
SPEC = Spec("toy", OBS, A)
DOUBLE = torch.float64


def numbers(*values: float) -> Tensor:
    """[n] float64."""
    return torch.tensor(values, dtype=DOUBLE)


def noise_batch(members: int = 1, step: int = 0, rows: int = B) -> Transitions:
    """Rows of noise, the second of which truly ends."""
    key = rng.fold(rng.keys(range(members)), "batch", step)
    obs, next_obs = (rng.normal(rng.fold(key, name), rows, OBS, dtype=DOUBLE) for name in ("obs", "next"))
    act = 2.0 * rng.uniform(rng.fold(key, "act"), rows, A, dtype=DOUBLE) - 1.0
    rew = rng.normal(rng.fold(key, "rew"), rows, dtype=DOUBLE)
    term = (torch.arange(rows) == 1).to(DOUBLE).expand(members, -1)
    return Transitions(obs, act, rew, next_obs, term)


def bandit(act: Tensor, rew: Tensor, members: int = 1) -> Transitions:
    """One-step episodes at one state: act [B, 1] and rew [B], the same for all members."""
    obs = torch.zeros(members, len(act), 1, dtype=DOUBLE)
    return Transitions(
        obs,
        act.to(DOUBLE).expand(members, -1, -1),
        rew.to(DOUBLE).expand(members, -1),
        obs,
        torch.ones(members, len(act), dtype=DOUBLE),
    )


def own(batch: Transitions, member: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One member's obs, act, rew, next_obs and term."""
    return batch.obs[member], batch.act[member], batch.rew[member], batch.next_obs[member], batch.term[member]


def inner(policy: nn.Module) -> StackedMLP:
    """A policy's network."""
    assert isinstance(policy, StackedPolicy)
    return policy.net


def constant(net: nn.Module, *values: float) -> None:
    """Make the net's outputs these numbers (one per copy, or per output), whatever its input."""
    assert isinstance(net, StackedMLP)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        bias = net.layers[-1].bias
        assert isinstance(bias, Tensor)
        bias.copy_(numbers(*values).reshape(bias.shape[1:]).expand_as(bias))


def plain(net: nn.Module, member: int, copy: int | None = None) -> nn.Sequential:
    """One member's (and copy's) network as torch's own modules."""
    assert isinstance(net, StackedMLP)
    modules: list[nn.Module] = []
    for layer in net.layers:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        place = (member,) if copy is None else (member, copy)
        size_in, size_out = weight[place].shape
        linear = nn.Linear(size_in, size_out, dtype=DOUBLE)
        with torch.no_grad():
            linear.weight.copy_(weight[place].T)
            linear.bias.copy_(bias[place][0])
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def copies(net: nn.Module, member: int) -> list[nn.Sequential]:
    """One member's copies of an ensemble."""
    assert isinstance(net, StackedMLP)
    return [plain(net, member, copy) for copy in range(net.ensemble or 0)]


def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """What target networks do."""
    with torch.no_grad():
        for old, new in zip(target.parameters(), source.parameters(), strict=True):
            old.copy_((1 - rate) * old + rate * new)


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down a loss."""
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step()


def assert_same(ours: nn.Module, theirs: nn.Module, tolerance: float = 1e-7) -> None:
    """Assert that two modules have the same weights."""
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def weights(module: nn.Module) -> list[Tensor]:
    """Copies of all weights."""
    return [p.detach().clone() for p in module.parameters()]
