"""CQL: conservative Q-learning (Kumar, Zhou, Tucker & Levine, NeurIPS 2020).

``sac`` whose critics are also pushed down where they are high and up at the data, for each critic i:

    L_Q = 1/2 ( E[ (r + gamma (1 - term) min_j Qbar_j(s', a') - Q_i(s, a))^2 ] + w E[ gap_i ] )
    gap = log sum_k exp(Q_i(s, a_k) - log rho(a_k)) - Q_i(s, a)

over ``actions`` uniform actions a_k, as many of pi(.|s), and as many of pi(.|s'), each with its density rho. w is
``conservatism``: at 0 it is SAC (with ``backup_entropy``). With a ``target_gap`` > 0, w is multiplied by a factor of at
most 10^6 that grows while the gap is above it and shrinks below it (CQL's Lagrangian). It is CQL(H) with rho = pi and
uniform.

Deviations:
- Those of ``sac``. The order of steps is critics, policy, targets; the authors' code begins with the policy.
- All of L_Q has SAC's half, so that w means what ``cql_alpha`` or ``min_q_weight`` means in the authors' code.
- The authors multiply and shift the policy's log-deviation by learned numbers, and begin with orthogonal weights. Some
  settings bound the gap below; here nothing does.
- Time limits bootstrap; the authors' data lack the rows at time limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.data.source import Transitions
from pbrl.errors import InputError
from pbrl.members import Members, check_range, shared
from pbrl.optim import Adam
from pbrl.spec import Spec

from ..off_policy.sac import SAC, SACConfig

_LARGEST = math.log(1e6)


@dataclass(frozen=True)
class CQLConfig(SACConfig):
    """Settings of CQL; the defaults are those used for locomotion."""

    policy_lr: float = 3e-5
    """Learning rate of the policy and the temperature; ``lr`` is the critics'."""
    conservatism: float = 10.0
    """w: weight of the gap (5 for mazes, 1 for hand manipulation)."""
    target_gap: float = 0.0
    """The gap that the learned factor of w aims at (0.8 for mazes), or 0 for none."""
    backup_entropy: bool = False
    """Whether goals count the entropy of the next action, as SAC's do."""
    normalize_obs: bool = True
    """Subtract the mean of the data set's observations and divide by their deviation."""
    actions: int = shared(10)
    """Fresh actions of each of three kinds in the gap."""
    backup_actions: int = shared(1)
    """Fresh next actions whose best counts in goals, critic by critic (10 for mazes); more than 1 without entropy."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers of all networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "policy_lr", 0.0, open_low=True)
        check_range(self, "conservatism", 0.0)
        check_range(self, "target_gap", 0.0)
        check_range(self, "actions", 1)
        check_range(self, "backup_actions", 1)
        if self.backup_entropy and self.backup_actions > 1:
            found = f"backup_entropy is on and backup_actions is {self.backup_actions}"
            raise InputError(f"{type(self).__name__}.{found}, expected one action where its entropy counts")


class CQL(SAC):
    """Stacked CQL."""

    config: CQLConfig
    conservatism: Tensor
    target_gap: Tensor
    backup_entropy: Tensor

    def __init__(self, spec: Spec, members: Members[CQLConfig]) -> None:
        super().__init__(spec, members)
        for name in ("conservatism", "target_gap", "backup_entropy"):
            self.register_buffer(name, members.column(name))
        self.log_factor = nn.Parameter(torch.ones_like(self.log_alpha))  # [P, 1]
        self.critic_adam = Adam([*self.q.parameters(), self.log_factor], members.column("lr"))
        self.actor_adam = Adam([*self.policy.parameters(), self.log_alpha], members.column("policy_lr"))

    def _goal(self, batch: Transitions, key: Tensor) -> Tensor:
        """[P, B] what the critics should say of the batch, but for the gap."""
        count = self.config.backup_actions
        with torch.no_grad():
            next_obs = self.normalizer(batch.next_obs).repeat(1, count, 1)
            next_act, log_prob = self._draw(next_obs, key)  # [P, K B, A] and [P, K B]
            values = self.target(torch.cat([next_obs, next_act], dim=-1)).squeeze(-1)
            best = values.unflatten(-1, (count, -1)).amax(2).amin(1)  # [P, B]
            if count == 1:
                best = best - self.backup_entropy[:, None] * self.log_alpha.exp() * log_prob
            goal: Tensor = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * best
        return goal

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L_Q summed over the critics, [P], and metrics."""
        goal = self._goal(batch, key)
        q, gap = self._known_and_gap(batch, rng.fold(key, "gap"))
        factor, error = self._factor(gap)
        squared = (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        weighed = self.conservatism * (factor.detach() * error.sum(1) - factor * error.detach().mean(1))
        # The first part trains the critics, the second the factor, which grows while the gap is too large.
        loss = 0.5 * (squared + weighed)
        metrics = {"loss_q": 0.5 * (squared + self.conservatism * factor * error.sum(1)), "value": q.mean((1, 2))}
        metrics |= {"gap": gap.mean(1), "factor": factor}
        return loss, metrics

    def _factor(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """What w is multiplied by, [P], and the gap [P, E] less what it should be."""
        learned = self.target_gap > 0.0
        factor = self.log_factor.squeeze(1).clamp(max=_LARGEST).exp()
        return torch.where(learned, factor, torch.ones_like(factor)), gap - self.target_gap[:, None]

    def _known_and_gap(self, batch: Transitions, key: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the data's actions [P, E, B], and the gaps' means over the batch [P, E]."""
        count, rows = self.config.actions, batch.act.shape[1]
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        with torch.no_grad():
            uniform = (
                2.0 * rng.uniform(rng.fold(key, "uniform"), count * rows, batch.act.shape[-1], dtype=obs.dtype) - 1.0
            )
            here, density = self._draw(obs.repeat(1, count, 1), rng.fold(key, "here"))
            there, density_there = self._draw(next_obs.repeat(1, count, 1), rng.fold(key, "there"))
            flat = torch.full_like(density, -math.log(2.0) * batch.act.shape[-1])
            densities = torch.cat([flat, density, density_there], dim=1).unflatten(1, (3 * count, rows))
        known, fresh = self._values(batch, torch.cat([uniform, here, there], dim=1))
        return known, losses.conservative_gap(fresh, densities.unsqueeze(1), known).mean(-1)

    def _values(self, batch: Transitions, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Values in the gap: of the data's actions [P, E, B], and of fresh ones [P, 3 n B, A] there: [P, E, 3 n, B]."""
        kinds, rows = 3 * self.config.actions, batch.act.shape[1]
        obs = self.normalizer(batch.obs).repeat(1, 1 + kinds, 1)
        values = self.q(torch.cat([obs, torch.cat([batch.act, fresh], dim=1)], dim=-1)).squeeze(-1)
        return values[..., :rows], values[..., rows:].unflatten(-1, (kinds, rows))
