"""Policies that clone the data and disagree, are improved one by one, and of which the best acts.

    fit      L = -sum_i E[ log pi_i(a|s) + alpha (log pi_i(a|s) - max_{j != i} log pi_j(a|s)) ]
    improve  PPO's clipped loss at states of the data, with actions drawn by the last accepted policy and A = Q - V
             standardised, weighed by omega where positive and by 1 - omega where negative
    accept   policy i takes the place of its accepted one where its worth is the best so far; the best of all acts

(Lei et al., Uni-O4, ICLR 2024; pi_old of PPO is the accepted policy.) Policies are normals with mean tanh(net) and a
log-deviation in [-5, 0] that depends on the state, unclipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import losses, rng
from ..errors import InputError
from ..members import check_range, check_sizes, shared
from ..nets.heads import Gaussian
from ..nets.mlp import StackedMLP, freeze

Value = Callable[[Tensor, Tensor], Tensor]
"""obs [P, M, O] and act [P, M, A], not clipped -> [P, M]."""


@dataclass(frozen=True)
class PolicyEnsembleConfig:
    """Settings of an ensemble of policies."""

    disagreement: float = 0.1
    """alpha: how much the clones' difference counts; below 1 / (policies - 2)."""
    clip: float = 0.25
    """How far a ratio may move offline before it stops to count."""
    optimism: float = 0.7
    """omega: weight of positive advantages offline; negative ones have the rest."""
    improve_updates: int = shared(10_000, schedule="run")
    """Updates of the second stage over which its learning rate and clip range fall to 0; 0 keeps both constant."""
    select_every: int = shared(100)
    """Updates of the second stage between comparisons by AM-Q."""
    policies: int = shared(4)
    """n: clones."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the policies' hidden layers."""

    def __post_init__(self) -> None:
        check_range(self, "policies", 2)
        check_range(self, "disagreement", 0.0)
        if self.disagreement * (self.policies - 2) >= 1.0:  # the loss would have no lower bound
            found = f"disagreement is {self.disagreement:g} with {self.policies} policies"
            raise InputError(f"{found}, expected less than {1.0 / (self.policies - 2):g}")
        check_range(self, "clip", 0.0, open_low=True)
        check_range(self, "optimism", 0.0, 1.0)
        check_range(self, "improve_updates", 0)
        check_range(self, "select_every", 1)
        check_sizes(self, "hidden")


class PolicyEnsemble(nn.Module):
    """n policies of each of P members, and the one that acts. Observations are normalised already.

    Attributes:
        policy: what acts: [P] the best policy so far, or what became of it since.
        clones: [P, n] policies that are being fitted or improved.
        accepted: [P, n] the last of each that were accepted.
        best: [P, n] their worth.
    """

    def __init__(
        self, keys: Tensor, obs_size: int, act_size: int, *, policies: int, hidden: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        super().__init__()
        sizes = (obs_size, *hidden, 2 * act_size)
        several = rng.fold(keys, "policies")
        self.clones = StackedMLP(several, sizes, ensemble=policies, dtype=dtype)
        self.accepted = freeze(StackedMLP(several, sizes, ensemble=policies, dtype=dtype))
        self.policy = StackedMLP(rng.fold(keys, "policy"), sizes, dtype=dtype)
        self.best = nn.Parameter(torch.zeros(len(keys), policies, dtype=dtype, device=keys.device), requires_grad=False)
        self.take(torch.zeros(len(keys), dtype=torch.int64, device=keys.device))

    @torch.no_grad()
    def choose(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]: the mode, or a sample where there is a key."""
        head = gaussian(self.policy(obs))
        return head.mode() if key is None else head.sample(key)

    @torch.no_grad()
    def unclipped(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, N, O] -> actions [P, N, A] as they are drawn."""
        return drawn(gaussian(self.policy(obs)), key)

    def cloning_loss(self, obs: Tensor, act: Tensor, disagreement: Tensor) -> Tensor:
        """The clones' loss, [P], of data obs [P, B, O], act [P, B, A] and alpha [P]."""
        return disagreeing(gaussian(self.clones(obs)).log_prob(act.unsqueeze(1)), disagreement)

    def improvement_loss(
        self, obs: Tensor, key: Tensor, q: Value, value: Tensor, *, clip: Tensor, optimism: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped loss summed over the clones, [P], and metrics, at obs [P, B, O] of values V [P, B].

        ``clip`` and ``optimism`` (omega) are [P]; actions are drawn with ``key`` [P].
        """
        with torch.no_grad():
            old = gaussian(self.accepted(obs))
            act = drawn(old, key)  # [P, n, B, A]
            before = old.log_prob(act)
            advantage = q(obs.repeat(1, act.shape[1], 1), act.flatten(1, 2)).unflatten(1, act.shape[1:3])
            advantage = losses.standardised(advantage - value.unsqueeze(1))  # [P, n, B]
            omega = optimism[:, None, None]
            advantage = torch.where(advantage > 0, omega, 1.0 - omega) * advantage
        ratio = (gaussian(self.clones(obs)).log_prob(act) - before).exp()
        each = losses.ppo_clip(ratio, advantage, clip[:, None, None]).mean(-1)  # [P, n]
        return each.sum(1), {"loss_pi": each.mean(1), "moved": (ratio.detach() - 1.0).abs().mean((1, 2))}

    @torch.no_grad()
    def begin(self, worth: Tensor | None = None) -> None:
        """Accept the clones as they are: the first acts, or the best by ``worth`` [P, n]; no number is the least."""
        for new, old in zip(self.accepted.parameters(), self.clones.parameters()):
            new.copy_(old)
        if worth is not None:
            self.best.copy_(torch.where(worth.isfinite(), worth, torch.finfo(worth.dtype).min))
        self.take(torch.zeros_like(self.best[:, 0], dtype=torch.int64) if worth is None else self.best.argmax(1))

    @torch.no_grad()
    def select(self, worth: Tensor) -> None:
        """Accept the clones whose worth [P, n] is the best so far; the best of all acts."""
        better = worth.isfinite() & (worth > self.best)
        self.best.copy_(torch.where(better, worth, self.best))
        for old, new in zip(self.accepted.parameters(), self.clones.parameters()):
            old.copy_(torch.where(better.reshape(*better.shape, *(1,) * (old.dim() - 2)), new, old))
        self.take(self.best.argmax(1))

    @torch.no_grad()
    def take(self, chosen: Tensor) -> None:
        """The accepted policies of these numbers [P] are those that act."""
        place = torch.arange(len(chosen), device=chosen.device)
        for own, all_ in zip(self.policy.parameters(), self.accepted.parameters()):
            own.copy_(all_[place, chosen])


def gaussian(out: Tensor) -> Gaussian:
    """A policy network's output [..., 2 A] as a normal: mean tanh(.), log-deviation in [-5, 0] by another tanh."""
    mean, raw = out.chunk(2, dim=-1)
    return Gaussian(torch.tanh(mean), -2.5 + 2.5 * torch.tanh(raw))


def drawn(head: Gaussian, key: Tensor) -> Tensor:
    """An action of a normal as it is drawn, unclipped."""
    return head.mean + head.log_std.exp() * rng.normal(key, *head.mean.shape[1:], dtype=head.mean.dtype)


def disagreeing(log_prob: Tensor, weight: Tensor) -> Tensor:
    """The clones' loss summed over them, [P], from log pi_i(a|s) [P, n, B] and alpha [P]."""
    n = log_prob.shape[1]
    itself = torch.eye(n, dtype=torch.bool, device=log_prob.device).unsqueeze(-1)
    others = log_prob.unsqueeze(1).masked_fill(itself, -torch.inf).amax(2)  # [P, n, B] the best of the others
    return -(log_prob + weight[:, None, None] * (log_prob - others)).mean(-1).sum(1)
