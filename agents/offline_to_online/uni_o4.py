"""Uni-O4: on-policy learning from data to the simulator (Lei et al., ICLR 2024).

1. Side by side on data (``fitting_updates``): critics by ``iql``'s equations 5 and 6, an ensemble of dynamics models,
   and n clones of the data's policy that are to disagree,
       L = -sum_i E[ log pi_i(a|s) + alpha (log pi_i(a|s) - max_{j != i} log pi_j(a|s)) ]
2. Each clone is improved offline by PPO's clipped loss at states of the data, with actions drawn by its last accepted
   policy and A = Q - V standardised, weighed by omega where positive and by 1 - omega where negative. Every
   ``select_every`` updates it is played in the models, and accepted where its mean Q there is the best so far
   (``pbrl.nets.dynamics.am_q``).
3. Online, PPO goes on with the accepted policy whose AM-Q is highest, its mean and deviation being what they were, with
   V, and with the data's normalisation.

Policies are normals with mean tanh(net) and a log-deviation in [-5, 0] that depends on the state, unclipped.

Deviations:
- V and Q are IQL's pair, one of the authors' choices; the others are Monte-Carlo and SARSA.
- The gradient of the disagreement reaches the other policies. The authors stop it there, which leaves a factor
  1 + alpha on cloning and nothing else.
- The policy that goes online is chosen by AM-Q alone; the authors' scripts look at scores in the simulator. Nothing of
  it changes at the hand-over; their network squashes the log-deviation twice online and once offline.
- What is fitted is fitted for the same number of updates; models have no early stopping, and the best by their errors
  on batches that they are about to learn from play. Each start is played in one of them.
- Learning rate and clip range of stage 2 fall linearly. Rewards are scaled by one constant in all stages, so that V
  goes over. The value's loss online is not clipped. Time limits bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.rollout import Rollout
from pbrl.data.source import Batch, Transitions, Wants
from pbrl.descent import descent
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.dynamics import StackedDynamics, am_q
from pbrl.nets.heads import Gaussian
from pbrl.nets.mlp import Normalizer, StackedMLP, critics
from pbrl.optim import Adam, track
from pbrl.parts import passes
from pbrl.parts.passes import PassesConfig
from pbrl.parts.policy_ensemble import PolicyEnsemble, PolicyEnsembleConfig, gaussian
from pbrl.spec import Spec


@dataclass(frozen=True)
class UniO4Config(PolicyEnsembleConfig, PassesConfig):
    """Settings of Uni-O4; the defaults, also of its parts, are the authors' for locomotion, where they are known."""

    lr: float = 1e-4
    """Learning rate of Adam on data, for all networks but the models."""
    expectile: float = 0.7
    """tau of V: 0.5 learns the behaviour's value, towards 1 the best action's."""
    target_rate: float = 0.005
    """Share of the critics that the target critics take on per update."""
    normalize_obs: bool = True
    """Subtract the data's mean from observations and divide by their deviation."""
    model_lr: float = 1e-3
    """Learning rate of the models."""
    max_grad: float = 0.5
    """Bound on the norm of a policy's gradient, offline (of all clones) and online."""
    fitting_updates: int = shared(2_000_000, schedule="stage")
    """Updates of the first stage, in which critics, models and clones are fitted."""
    model_steps: int = shared(1000)
    """Steps for which policies are played in the models."""
    critics: int = shared(2)
    """Q-functions, of which the smallest counts."""
    models: int = shared(7)
    """Dynamics models."""
    elites: int = shared(5)
    """Models in which policies are played: those of the smallest error."""
    v_hidden: tuple[int, ...] = shared((512, 512, 512))
    """Widths of V's."""
    q_hidden: tuple[int, ...] = shared((1024, 1024))
    """Widths of Q's."""
    model_hidden: tuple[int, ...] = shared((200, 200, 200, 200))
    """Widths of the models'."""
    batch_size: int = shared(512)
    """Transitions per update on data, and starts of AM-Q."""

    def __post_init__(self) -> None:
        PolicyEnsembleConfig.__post_init__(self)
        PassesConfig.__post_init__(self)
        for name in ("lr", "model_lr", "max_grad"):
            check_range(self, name, 0.0, open_low=True)
        for name in ("expectile", "target_rate"):
            check_range(self, name, 0.0, 1.0)
        for name in ("fitting_updates", "model_steps", "critics", "models", "batch_size"):
            check_range(self, name, 1)
        check_range(self, "elites", 1, min(self.models, self.batch_size))
        for name in ("v_hidden", "q_hidden", "model_hidden"):
            check_sizes(self, name)


class UniO4(PolicyEnsemble):
    """Stacked Uni-O4. ``best`` is the AM-Q of the policies that were accepted."""

    keys: Tensor
    gamma: Tensor
    reward_scale: Tensor
    expectile: Tensor
    target_rate: Tensor
    disagreement: Tensor
    clip: Tensor
    optimism: Tensor
    online_clip: Tensor
    gae_decay: Tensor
    entropy_weight: Tensor
    starts: Tensor

    def __init__(self, spec: Spec, members: Members[UniO4Config]) -> None:
        config, like, dtype = members.shared, members.column("gamma"), members.dtype
        sizes = (spec.obs_size, spec.act_size)
        super().__init__(members.keys, *sizes, policies=config.policies, hidden=config.hidden, dtype=dtype)
        self.config = config
        self.count, self.online = Count(), Count()  # the second is 1 once it plays
        self.register_buffer("keys", members.keys)
        swept = ("gamma", "reward_scale", "expectile", "target_rate", "disagreement", "clip", "optimism")
        for name in (*swept, "online_clip", "gae_decay", "entropy_weight"):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        q_keys = rng.fold(members.keys, "q")
        self.q, self.target = critics(q_keys, spec, config.q_hidden, count=config.critics, dtype=dtype)
        self.v = StackedMLP(rng.fold(members.keys, "v"), (spec.obs_size, *config.v_hidden, 1), dtype=dtype)
        model_keys = rng.fold(members.keys, "models")
        self.models = StackedDynamics(model_keys, *sizes, models=config.models, hidden=config.model_hidden, dtype=dtype)
        self.register_buffer("starts", like.new_zeros(len(members), config.batch_size, spec.obs_size))
        lr, bound = members.column("lr"), members.column("max_grad")
        self.fit_adam = Adam([*self.q.parameters(), *self.v.parameters(), *self.clones.parameters()], lr)
        self.model_adam = Adam(self.models.net.parameters(), members.column("model_lr"))
        self.improve_adam = Adam(self.clones.parameters(), lr, clip=bound)
        self.online_adam = Adam(self.policy.parameters(), members.column("online_lr"), clip=bound)
        self.online_v_adam = Adam(self.v.parameters(), members.column("online_critic_lr"))
        self._descend_fit = descent(self._fit_losses, members.compile)
        self._descend_improve = descent(self._improve_loss, members.compile)
        self._descend_online = descent(self._online_losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made, on data and online."""
        return self.count.value

    @property
    def environments(self) -> int:
        """Copies of the environment per member."""
        return self.config.environments

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Policies are improved after ``fitting_updates``."""
        return (self.config.fitting_updates,)

    def wants(self) -> Wants:
        """Transitions, and once it is online rollouts."""
        return self.online_wants() if self.online.value else {"transitions": self.config.batch_size}

    def online_wants(self) -> Wants:
        """A rollout."""
        return {"rollout": self.config.steps}

    def go_online(self) -> None:
        """From now on PPO learns with the policy that acts."""
        self.online.value = 1

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.choose(self.normalizer(obs), key)

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, N, O] -> actions [P, N, A], not yet clipped."""
        return self.unclipped(self.normalizer(obs), key)

    def update(self, batch: Batch) -> Metrics:
        """One step of the present stage; online, several passes over a rollout."""
        if self.online.value:
            metrics = self._play(batch["rollout"])
        elif self.updates < self.config.fitting_updates:
            metrics = self._fit(batch["transitions"])
        else:
            metrics = self._improve(batch["transitions"])
        self.count.value += 1
        return metrics

    # Stage 1.

    def _fit(self, batch: Transitions) -> dict[str, Tensor]:
        metrics = self._descend_fit({self.fit_adam: 1.0, self.model_adam: 1.0}, batch)
        self.models.see(metrics["loss_model"])
        track(self.target, self.q, self.target_rate)
        self.begin()
        if self.updates + 1 == self.config.fitting_updates:
            self.starts.copy_(self.normalizer(batch.obs))
            self.begin(self.am_q(self.accepted))
        return {**metrics, "loss_model": metrics["loss_model"].mean(1)}

    def _fit_losses(self, batch: Transitions) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """L_V + L_Q + L of the clones and that of the models, each [P], and metrics (each model's own loss [P, E])."""
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        pair = torch.cat([obs, batch.act], dim=-1)
        with torch.no_grad():
            best = self.target(pair).squeeze(-1).amin(1)  # [P, B]
            future = self.v(next_obs).squeeze(-1)
        value = self.v(obs).squeeze(-1)
        loss_v = losses.expectile(best - value, self.expectile[:, None]).mean(-1)
        rew = self.reward_scale[:, None] * batch.rew
        goal = rew + self.gamma[:, None] * (1.0 - batch.term) * future
        loss_q = (goal.unsqueeze(1) - self.q(pair).squeeze(-1)).square().mean(-1).sum(1)
        loss_clones = self.cloning_loss(obs, batch.act, self.disagreement)
        loss_models = self.models.losses(obs, batch.act, next_obs)
        metrics = {"loss_v": loss_v, "loss_q": loss_q, "loss_pi": loss_clones, "loss_model": loss_models}
        return loss_v + loss_q + loss_clones, loss_models.sum(1), metrics

    # Stage 2.

    def _improve(self, batch: Transitions) -> dict[str, Tensor]:
        made, whole = self.updates - self.config.fitting_updates, self.config.improve_updates
        left = max(0.0, 1.0 - made / whole) if whole else 1.0
        key = rng.fold(self.keys, "improve", self.updates)
        metrics = self._descend_improve({self.improve_adam: left}, self.normalizer(batch.obs), key, self.clip * left)
        if (made + 1) % self.config.select_every == 0:
            self.select(self.am_q(self.clones))
        return {**metrics, "am_q": self.best.amax(1)}

    def _improve_loss(self, obs: Tensor, key: Tensor, clip: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The clipped loss summed over the clones, [P], and metrics; obs [P, B, O] is normalised."""
        value = self.v(obs).squeeze(-1).detach()
        return self.improvement_loss(obs, key, self._q_of, value, clip=clip, optimism=self.optimism)

    def am_q(self, policies: StackedMLP) -> Tensor:
        """[P, n] AM-Q of policies, greedy, from the same starts and with the same noise every time."""
        count = self.config.elites
        each = self.starts.shape[1] // count
        return am_q(
            self._q_of,
            lambda obs: gaussian(policies(obs)).mode(),
            self.models.elites(count),
            self.starts[:, : count * each].unflatten(1, (count, each)),
            rng.fold(self.keys, "models' noise"),
            policies=self.config.policies,
            steps=self.config.model_steps,
        )

    def _q_of(self, obs: Tensor, act: Tensor) -> Tensor:
        """The smallest Q, [P, M], of obs [P, M, O] (normalised) and actions as the environment takes them."""
        value: Tensor = self.q(torch.cat([obs, act.clamp(-1.0, 1.0)], dim=-1))
        return value.squeeze(-1).amin(1)

    # Stage 3.

    def _playing(self, obs: Tensor) -> Gaussian:
        """The policy that acts, at normalised obs."""
        return gaussian(self.policy(obs))

    def _play(self, rollout: Rollout) -> dict[str, Tensor]:
        return passes.learn(
            self._rows(rollout),
            self.keys,
            self.updates,
            lambda rows: self._descend_online({self.online_adam: 1.0, self.online_v_adam: 1.0}, rows),
            epochs=self.config.epochs,
            size=self.config.minibatch_size,
        )

    def _rows(self, rollout: Rollout) -> Tensor:
        """[P, T N, O + A + 3] of ``passes.rows_of``."""
        return passes.rows_of(
            rollout,
            self.normalizer(rollout.obs),
            self.normalizer(rollout.next_obs),
            policy=self._playing,
            value=self.v,
            gamma=self.gamma,
            gae_decay=self.gae_decay,
            reward_scale=self.reward_scale,
        )

    def _online_losses(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's loss and V's squared error, [P], of which neither reaches the other's network; and metrics."""
        size, entropy_weight = self.starts.shape[-1], self.entropy_weight
        return passes.clipped_losses(
            rows, size, self._playing, self.v, clip=self.online_clip, entropy_weight=entropy_weight
        )
