"""FamO2O: a family of policies, and a choice among them in each state (Wang et al., NeurIPS 2023).

One universal policy pi_u(a | s, e(beta)) is trained for all balance coefficients beta between improvement and cloning,
and a balance policy pi_b(beta | s) finds the best of them for each state:

    L_u = -E[ min(exp(beta A(s, a)), 100) log pi_u(a | s, e(beta)) ]
    L_b =  E[ T log pi_b(beta | s) - min_i Qbar_i(s, a) ],   beta ~ pi_b(.|s),  a ~ pi_u(.| s, e(beta))

From data beta is uniform in temperature +- spread; online it is drawn by pi_b, as it is to act. T keeps the entropy of
pi_b near a target. e(beta) is a code of six sines and cosines. Critics and A are those of a backbone:

    iql   those of ``iql``: A = min_i Qbar_i(s, a) - V(s)
    awac  y = r + gamma (1 - term) min_i Qbar_i(s', a'),  A = min_i Q_i(s, a) - min_i Q_i(s, a~),  a', a~ ~ pi_u

With spread = 0 the policy's loss on "iql" is IQL's. The paper's antmaze settings are temperature 11, spread 3 and
expectile 0.9.

Deviations:
- Those of ``iql``, and all losses are computed together from the weights before the update; the authors' code steps V,
  then pi_b and T, then pi_u, then Q.
- beta and the action after it are drawn by different keys; the authors' code uses one for both, so that they correlate.
- The entropy of pi_b is that of its output in (-1, 1), before it is scaled to coefficients.
- The paper's other backbone is CQL, which weighs its losses in another way; AWAC is in its place here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count
from pbrl.data.source import Transitions, Wants
from pbrl.members import Members, check_range, shared
from pbrl.nets.heads import Head, StackedPolicy, TanhGaussian
from pbrl.nets.mlp import StackedMLP
from pbrl.optim import Adam
from pbrl.spec import Spec

from ..offline.iql import IQL, IQLConfig

CODE = 6
"""Numbers that tell the universal policy its balance coefficient."""


@dataclass(frozen=True)
class FamO2OConfig(IQLConfig):
    """Settings of FamO2O: those of IQL, and those of the family; the defaults are the authors' for locomotion."""

    expectile: float = 0.7
    """tau of IQL's values; of no effect with the backbone awac."""
    temperature: float = 3.0
    """The middle of the balance coefficients: 0 is behaviour cloning, larger follows the advantage more."""
    spread: float = 2.0
    """How far balance coefficients lie from their middle at most; at most as far as 0."""
    balance_temperature: float = 1.0
    """What the weight T of the balance policy's entropy begins at."""
    balance_entropy: float = -0.5
    """The entropy that T keeps the balance policy near, in nats."""
    backbone: Literal["iql", "awac"] = shared("iql")
    """What the critics and advantages are: IQL's or AWAC's."""
    actor_decay: int = shared(0)
    """Updates over which the policies' learning rate falls to 0 along a cosine; 0 keeps it constant."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "spread", 0.0, self.temperature)
        check_range(self, "balance_temperature", 0.0, open_low=True)
        check_range(self, "balance_entropy")


class FamO2O(IQL):
    """Stacked FamO2O."""

    spread: Tensor
    balance_entropy: Tensor

    def __init__(self, spec: Spec, members: Members[FamO2OConfig]) -> None:
        super().__init__(spec, members)
        config = members.shared
        self.awac = config.backbone == "awac"
        self.online = Count()  # 1 once it plays
        self.drops = True  # every update draws, whether or not it drops units
        for name in ("spread", "balance_entropy"):
            self.register_buffer(name, members.column(name))
        self.policy = StackedPolicy(
            rng.fold(members.keys, "policy"),
            spec.obs_size + CODE,
            spec.act_size,
            kind=config.head,
            hidden=config.hidden,
            dropout=members.column("dropout"),
            dtype=members.dtype,
        )
        self.balance = StackedPolicy(
            rng.fold(members.keys, "balance"),
            spec.obs_size,
            1,
            kind="tanh_gaussian",
            hidden=config.hidden,
            dtype=members.dtype,
        )
        self.log_weight = nn.Parameter(members.column("balance_temperature").log().unsqueeze(1))  # [P, 1] log T
        lr = members.column("lr")
        if self.awac:
            del self.v
            self.critic_adam = Adam(self.q.parameters(), lr)
        self.actor_adam = Adam([*self.policy.parameters(), *self.balance.parameters(), self.log_weight], lr)

    def online_wants(self) -> Wants:
        """Transitions, as from data."""
        return self.wants()

    def go_online(self) -> None:
        """The universal policy learns for the coefficients that the balance policy draws."""
        self.online.value = 1

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]: by the balance policy's coefficient, both greedily or both drawn."""
        obs = self.normalizer(obs)
        place = self.balance.choose(obs, None if key is None else rng.fold(key, "balance"))
        return self.policy.choose(self._told(obs, self._coefficient(place)), key)

    def _coefficient(self, place: Tensor) -> Tensor:
        """place [P, B, 1] in [-1, 1] -> beta [P, B]."""
        return self.temperature[:, None] + self.spread[:, None] * place.squeeze(-1)

    def _told(self, obs: Tensor, beta: Tensor) -> Tensor:
        """What the universal policy sees: obs [P, B, O] normalised, beta [P, B] -> [P, B, O + 6]."""
        return torch.cat([obs, code(beta)], dim=-1)

    def _losses(self, batch: Transitions, key: Tensor | None) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """L_V (0 with awac), L_Q and L_u + L_b + L_T, each [P], and metrics. Each reaches its own networks alone."""
        assert key is not None  # ``drops`` sees to it
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        place, log_prob = self._draw(obs, rng.fold(key, "balance"))
        if self.online.value:
            beta = self._coefficient(place.detach())
        else:
            uniform = rng.uniform(rng.fold(key, "beta"), *place.shape[1:], dtype=place.dtype)
            beta = self._coefficient(2.0 * uniform - 1.0)
        told = self._told(obs, beta)
        pair = torch.cat([obs, batch.act], dim=-1)
        q = self.q(pair).squeeze(-1)  # [P, E, B]
        if self.awac:
            with torch.no_grad():
                future = self._fresh_value(self.target, next_obs, self._own(next_obs, key), rng.fold(key, "next"))
                advantage = q.amin(1) - self._fresh_value(self.q, obs, told, rng.fold(key, "here"))
            loss_v = advantage.new_zeros(len(obs))
        else:
            with torch.no_grad():
                best = self.target(pair).squeeze(-1).amin(1)  # [P, B]
                future = self.v(next_obs).squeeze(-1)
            advantage = best - self.v(obs).squeeze(-1)
            loss_v = losses.expectile(advantage, self.expectile[:, None]).mean(-1)
        goal = batch.rew + self.gamma[:, None] * (1.0 - batch.term) * future
        loss_q = (goal.unsqueeze(1) - q).square().mean(-1).sum(1)
        weight = torch.exp(beta * advantage.detach()).minimum(self.max_weight[:, None])
        loss_u = -(weight * self.policy(told, rng.fold(key, "dropout")).log_prob(batch.act)).mean(-1)
        act = self._frozen(self._told(obs, self._coefficient(place))).sample(rng.fold(key, "act"))
        value = self.target(torch.cat([obs, act], dim=-1)).squeeze(-1).amin(1)
        scale = self.log_weight.exp()  # [P, 1] T
        loss_b = (scale.detach() * log_prob - value).mean(-1)
        loss_t = scale.squeeze(1) * (-log_prob.detach().mean(-1) - self.balance_entropy)
        chosen = self._coefficient(place.detach()).mean(-1)
        metrics = {"loss_v": loss_v, "loss_q": loss_q, "loss_pi": loss_u, "loss_balance": loss_b, "coefficient": chosen}
        return loss_v, loss_q, loss_u + loss_b + loss_t, metrics

    def _draw(self, obs: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The balance policy's output [P, B, 1] in (-1, 1) at obs [P, B, O], drawn, and its log-density [P, B]."""
        head = self.balance(obs)
        assert isinstance(head, TanhGaussian)
        return head.sample_with_log_prob(key)

    def _own(self, obs: Tensor, key: Tensor) -> Tensor:
        """What the universal policy sees at obs [P, B, O] with coefficients that the balance policy draws."""
        return self._told(obs, self._coefficient(self._draw(obs, rng.fold(key, "next balance"))[0]))

    def _fresh_value(self, critics: StackedMLP, obs: Tensor, told: Tensor, key: Tensor) -> Tensor:
        """[P, B] the smallest value by ``critics`` of an action that the universal policy draws."""
        act = self._frozen(told).sample(key)
        value: Tensor = critics(torch.cat([obs, act], dim=-1))
        return value.squeeze(-1).amin(1)

    def _frozen(self, told: Tensor) -> Head:
        """The universal policy at ``told``, whose gradients reach the coefficients and not its weights."""
        weights = {name: parameter.detach() for name, parameter in self.policy.named_parameters()}
        head: Head = torch.func.functional_call(self.policy, weights, (told,))
        return head


def code(beta: Tensor) -> Tensor:
    """sin and cos of beta / 10000^(2 i / 6) for i = 0, 1, 2, side by side: [P, B] -> [P, B, 6]."""
    frequency = 10_000.0 ** (-torch.arange(0, CODE, 2, dtype=beta.dtype, device=beta.device) / CODE)
    angle = beta.unsqueeze(-1) * frequency  # [P, B, 3]
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
