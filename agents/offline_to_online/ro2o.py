"""RO2O: robust offline-to-online learning by uncertainty and smoothness (Wen et al., 2024).

``sac_n``'s losses, and three more about states s + delta near those of the data, delta uniform in +- a radius:

    L_Q smooth = E_s max_j mean_i [ 0.8 (D_ij)_+^2 + 0.2 (D_ij)_-^2 ],   D_ij = Q_i(s + delta_j, a) - Q_i(s, a)
    L_pi smooth = E_s max_j [ KL(pi(s) || pi(s + delta_j)) + KL(pi(s + delta_j) || pi(s)) ]   before the tanh
    L_ood = E[ (Q_i(s^, a^) - sg(Q_i(s^, a^) - k std_i Q(s^, a^)))^2 ],   s^ = s + delta,  a^ ~ pi(.|s^)

The last lowers values of the policy's own actions where the critics disagree, by a gradient of 2 k std; k falls a
little with each update, to a floor. Nothing changes at the hand-over: all losses are used online too, as in the paper,
which begins there with an empty replay: ``--replay empty``.

Deviations:
- Those of ``sac_n``. The authors' script for the online phase computes the three losses and leaves them out.
- delta_1 .. delta_n are each member's own, the same for its whole batch (as the authors'), and the three losses draw
  theirs apart.
- The cloning term and the optimistic or pessimistic actor of the authors' antmaze settings are left out.
- The authors collect 2500 steps with the policy before the first update online; here updates begin at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl import losses, rng
from pbrl.agent import Metrics
from pbrl.data.source import Batch, Transitions
from pbrl.members import Members, check_range, shared
from pbrl.nets.heads import TanhGaussian
from pbrl.spec import Spec

from ..off_policy.sac import SAC, SACConfig


@dataclass(frozen=True)
class RO2OConfig(SACConfig):
    """Settings of RO2O; the defaults are the authors' for Walker2d."""

    normalize_obs: bool = True
    """Subtract the data's mean from observations and divide by their deviation."""
    q_smoothing: float = 1e-4
    """Weight of L_Q smooth beside the squared errors, which are summed over the critics."""
    q_rise: float = 0.8
    """Share of a squared difference that counts where a neighbour's value is higher; the rest where it is lower."""
    q_radius: float = 0.01
    """Radius of L_Q smooth, in each (normalised) coordinate of an observation."""
    policy_smoothing: float = 1.0
    """Weight of L_pi smooth beside SAC's loss."""
    policy_radius: float = 0.01
    """Radius of L_pi smooth."""
    ood_weight: float = 0.1
    """Weight of L_ood beside the squared errors."""
    ood_radius: float = 0.01
    """Radius of L_ood."""
    ood_deviations: float = 1.0
    """k of L_ood at the beginning: deviations by which a value is lowered."""
    ood_decay: float = 5e-7
    """How much k falls per update."""
    ood_floor: float = 0.1
    """What k falls to."""
    perturbations: int = shared(20)
    """Perturbations per loss and update."""
    critics: int = shared(10)
    """Q-functions, of which the smallest counts."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers of all networks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("q_smoothing", "policy_smoothing", "ood_weight", "ood_decay", "ood_floor"):
            check_range(self, name, 0.0)
        for name in ("q_radius", "policy_radius", "ood_radius"):
            check_range(self, name, 0.0)
        check_range(self, "q_rise", 0.0, 1.0)
        check_range(self, "ood_deviations", self.ood_floor)
        check_range(self, "perturbations", 1)
        check_range(self, "critics", 2)  # one critic has no deviation


class RO2O(SAC):
    """Stacked RO2O."""

    q_smoothing: Tensor
    q_rise: Tensor
    q_radius: Tensor
    policy_smoothing: Tensor
    policy_radius: Tensor
    ood_weight: Tensor
    ood_radius: Tensor
    ood_decay: Tensor
    ood_floor: Tensor
    ood_deviations: Tensor

    def __init__(self, spec: Spec, members: Members[RO2OConfig]) -> None:
        super().__init__(spec, members)
        self.perturbations = members.shared.perturbations
        own = ("q_smoothing", "q_rise", "q_radius", "policy_smoothing", "policy_radius", "ood_weight", "ood_radius")
        for name in (*own, "ood_decay", "ood_floor"):
            self.register_buffer(name, members.column(name))
        self.register_buffer("ood_deviations", members.column("ood_deviations"))  # [P] k, which falls

    def update(self, batch: Batch) -> Metrics:
        """One step of the critics, then one of the policy and the temperature; k falls."""
        metrics = super().update(batch)
        self.ood_deviations.copy_((self.ood_deviations - self.ood_decay).maximum(self.ood_floor))
        return metrics

    def _critic_loss(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared errors summed over the critics, L_Q smooth and L_ood, weighted: [P], and metrics."""
        half, metrics = super()._critic_loss(batch, key)
        obs = self.normalizer(batch.obs)
        smooth = self._q_smooth(obs, batch.act, rng.fold(key, "q smooth"))
        ood = self._ood(obs, rng.fold(key, "ood"))
        loss = 2.0 * half + self.q_smoothing * smooth + self.ood_weight * ood
        return loss, {**metrics, "loss_q_smooth": smooth, "loss_ood": ood}

    def _actor_losses(self, batch: Transitions, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """SAC's losses of the policy and the temperature with L_pi smooth beside, [P]; and metrics."""
        loss, metrics = super()._actor_losses(batch, key)
        smooth = self._policy_smooth(self.normalizer(batch.obs), rng.fold(key, "policy smooth"))
        return loss + self.policy_smoothing * smooth, {**metrics, "loss_pi_smooth": smooth}

    def _near(self, obs: Tensor, radius: Tensor, key: Tensor) -> Tensor:
        """[P, n B, O] obs [P, B, O] moved by each of n perturbations in turn."""
        drawn = 2.0 * rng.uniform(key, self.perturbations, 1, obs.shape[-1], dtype=obs.dtype) - 1.0
        return (obs.unsqueeze(1) + radius[:, None, None, None] * drawn).flatten(1, 2)

    def _q_smooth(self, obs: Tensor, act: Tensor, key: Tensor) -> Tensor:
        """L_Q smooth, [P]."""
        near = torch.cat([self._near(obs, self.q_radius, key), act.repeat(1, self.perturbations, 1)], dim=-1)
        moved = self.q(near).squeeze(-1).unflatten(-1, (self.perturbations, -1))  # [P, E, n, B]
        rise = moved - self.q(torch.cat([obs, act], dim=-1)).squeeze(-1).unsqueeze(2)
        share = self.q_rise[:, None, None, None]
        counted: Tensor = torch.where(rise > 0, share, 1.0 - share) * rise.square()
        return counted.mean(1).amax(1).mean(-1)

    def _policy_smooth(self, obs: Tensor, key: Tensor) -> Tensor:
        """L_pi smooth, [P]."""
        here, near = self.policy(obs), self.policy(self._near(obs, self.policy_radius, key))
        assert isinstance(here, TanhGaussian)
        assert isinstance(near, TanhGaussian)
        mean, log_var = here.mean.unsqueeze(1), 2.0 * here.log_std.unsqueeze(1)  # [P, 1, B, A]
        near_mean, near_log_var = ((x.unflatten(1, (self.perturbations, -1))) for x in (near.mean, 2.0 * near.log_std))
        there = losses.gaussian_kl(mean, log_var, near_mean, near_log_var)  # [P, n, B]
        back = losses.gaussian_kl(near_mean, near_log_var, mean, log_var)
        return (there + back).amax(1).mean(-1)

    def _ood(self, obs: Tensor, key: Tensor) -> Tensor:
        """L_ood, [P]."""
        with torch.no_grad():
            near = self._near(obs, self.ood_radius, rng.fold(key, "near"))
            act, _ = self._draw(near, rng.fold(key, "act"))
        q: Tensor = self.q(torch.cat([near, act], dim=-1)).squeeze(-1)  # [P, E, n B]
        fixed = q.detach()
        goal = fixed - self.ood_deviations[:, None, None] * fixed.std(1, keepdim=True)
        return (q - goal).square().mean((1, 2))
