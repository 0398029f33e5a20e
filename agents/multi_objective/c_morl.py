"""C-MORL: a Pareto front found by constrained extension of policies (Liu et al., ICLR 2025).

A member is a whole front: S policies trained side by side, and an archive of those that no other one dominates.

    initialisation   each policy by PPO on w'A with its own preference weights w, A a vector of advantages
    extension        from a chosen policy r, for each objective l:  max G_l  s.t.  G_j >= beta G_j(r), j != l
                     by the log barrier  G_l + sum_j (1/t) log(G_j - beta G_j(r))
    serving          for preference weights w the archive's policy with the best w'G

Extended are those never extended before: the extremes of the archive first, then the largest crowding distances. Every
policy is offered to the archive after every rollout, with the mean discounted return of the episodes that ended in it
among those that it played greedily: some copies of the environment are for that alone, and their steps count.

Deviations:
- The constraint is enforced, in raw returns. The released code's term is none (see ``reference`` below): its threshold
  moves with the policy, and its gradient does not know how actions change G_j.
- With G_j the mean of finished episodes and its change within an update from the ratios, the barrier is a weight on
  each objective's advantage (``pbrl.fronts.constraints``); their sum is divided by its deviation. Where a limit is
  broken, only the broken objectives are followed until all hold again.
- beta G is G - (1 - beta) |G|, since beta G of a negative return would lie above it.
- A limit is taken from what the policy gains in the first rollout of its extension, with actions drawn, as what has
  to hold it is: the archive's value is a greedy policy's, and the luckiest of many.
- All objectives of a policy are extended from the policy itself, at the full learning rate and with fresh moments.
- S policies serve both stages: S preference weights first, then ceil(S / K) policies times K objectives.
- Scaled rewards are not clipped, since clipped ones would misstate the returns that the limits are about.
- Points in the archive are means of few episodes, which may have begun under the policy of one update before: measure
  a front anew to report it. The released code spends episodes of their own on every point, and does not count them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pbrl import grouped, losses, pareto, rng
from pbrl.agent import Metrics
from pbrl.data.rollout import Rollout
from pbrl.data.source import Batch, Wants
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.fronts.archive import Archive
from pbrl.fronts.constraints import released_barrier
from pbrl.fronts.extension import Constraint, Extension
from pbrl.fronts.front_server import FrontServer
from pbrl.members import Members, check_range, shared
from pbrl.optim import Adam
from pbrl.parts.actor_critic import ActorCritic, ActorCriticConfig
from pbrl.parts.episode_returns import EpisodeReturns
from pbrl.spec import Spec


@dataclass(frozen=True)
class CMORLConfig(ActorCriticConfig):
    """Settings of C-MORL; the defaults are those of the released code."""

    gamma: float = 0.995
    """Discount per step, of training and of the returns in the archive."""
    steps: int = shared(512)
    """Steps that each copy of the environment is played between updates."""
    environments: int = shared(8)
    """Copies of the environment per policy."""
    greedy: int = shared(1)
    """Of these copies, how many are played greedily and not learned from, to measure policies for the archive; 0: what
    policies gain in training is what they are taken for."""
    beta: float = 0.9
    """Share of a policy's return in the other objectives that its extensions must keep."""
    barrier: float = 20.0
    """t of the barrier: the larger, the closer to the limits."""
    clip: float = 0.2
    """How far a ratio may move before it stops to count."""
    value_weight: float = 0.5
    """Weight of the values' squared error."""
    constraint: Constraint = shared("barrier")
    """How extension holds its limits: barrier; lagrangian, by multipliers that rise while a limit is broken;
    reference, the released code's term, which does not hold them."""
    init_updates: int = shared(240, schedule="stage")
    """Updates of the first stage."""
    extension_updates: int = shared(40, schedule="stage")
    """Updates of each round of extension; rounds follow one another to the end of the run."""
    policies: int = shared(6)
    """S, policies trained at once."""
    archive: int = shared(200)
    """Policies that are kept at most."""
    epochs: int = shared(10)
    """Passes over a rollout."""
    batch_size: int = shared(128)
    """Steps per minibatch of a policy; the last one of a pass may be smaller."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("barrier", "clip"):
            check_range(self, name, 0.0, open_low=True)
        check_range(self, "beta", 0.0, 1.0)
        check_range(self, "value_weight", 0.0)
        for name in ("init_updates", "extension_updates", "policies", "archive", "epochs", "batch_size"):
            check_range(self, name, 1)
        check_range(self, "greedy", 0)
        if self.greedy >= self.environments:
            found = f"greedy is {self.greedy} of environments {self.environments}"
            raise InputError(f"{found}, expected fewer: at least one copy must explore; 0 measures no greedy policies")


class CMORL(FrontServer):
    """Stacked C-MORL. Inside, policy s of member p is row s P + p of one stack of P S.

    Args:
        weights: [S, K] preference weights of the first stage; spread over the simplex by default.

    Raises:
        InputError: a problem with one objective, or weights of another shape or off the simplex.
    """

    keys: Tensor
    clip: Tensor
    value_weight: Tensor
    entropy_weight: Tensor

    def __init__(self, spec: Spec, members: Members[CMORLConfig], weights: Tensor | None = None) -> None:
        if spec.objectives < 2:
            raise InputError(f"{spec.name} has one objective, expected at least 2: c_morl finds fronts (try ppo)")
        super().__init__(spec, members)
        self.config, count = members.shared, members.shared.policies
        self.register_buffer("keys", members.keys)
        given = pareto.spread_weights(spec.objectives, count) if weights is None else weights.cpu().numpy()
        if given.shape != (count, spec.objectives):
            found, expected = list(given.shape), [count, spec.objectives]
            raise InputError(f"preference weights have shape {found}, expected [policies, objectives] {expected}")
        spread = torch.as_tensor(pareto.check_weights(given, spec.objectives))
        seeds = [seed for s in range(count) for seed in rng.fold(members.keys, "policy", s).tolist()]
        learning = self.config.environments - self.config.greedy
        configs = tuple(dataclasses.replace(config, environments=learning, greedy=0) for config in members.configs)
        inner = dataclasses.replace(members, configs=configs * count, seeds=tuple(seeds))
        self.core = ActorCritic(spec, inner, spread.repeat_interleave(len(members), 0))
        self.core.reward_scale.limit = math.inf  # limits are in raw returns, which clipped rewards would misstate
        for name in ("clip", "value_weight", "entropy_weight"):
            self.register_buffer(name, inner.column(name))
        both = [*self.core.policy.parameters(), *self.core.critic.parameters()]
        self.adam = Adam(both, inner.column("lr"), clip=inner.column("max_grad"), eps=1e-5)
        self.returns = EpisodeReturns(inner.column("gamma"), learning, spec.objectives)
        self.greedy = EpisodeReturns(inner.column("gamma"), self.config.greedy, spec.objectives)
        objective = (torch.arange(count, device=members.device) % spec.objectives).repeat_interleave(len(members))
        self.extension = Extension(objective, inner.column("beta"), inner.column("barrier"), spec.objectives)
        self.archive = Archive(self.core.vectors()[: len(members)], self.config.archive, spec.objectives)
        self._descend = descent(self._losses, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.core.updates

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Extension begins after ``init_updates``."""
        return (self.config.init_updates,)

    @property
    def environments(self) -> int:
        """Copies per member: those of all its policies."""
        return self.config.policies * self.config.environments

    def wants(self) -> Wants:
        """A rollout."""
        return {"rollout": self.config.steps}

    def draw(self, obs: Tensor, key: Tensor) -> Tensor:
        """obs [P, N, O] -> actions [P, N, A] of all policies in training, not yet clipped; greedy in some copies."""
        keys = torch.cat([rng.fold(key, "policy", s) for s in range(self.config.policies)])
        seen = grouped.apart(obs, self.config.policies, axis=1)
        learning = self.core.environments
        act = self.core.draw(seen[:, :learning], keys)
        if self.config.greedy:
            act = torch.cat([act, self.core.act(seen[:, learning:])], 1)
        return self._folded(act).flatten(1, 2)

    def update(self, batch: Batch) -> Metrics:
        """Archive what was played, learn from it in several passes, and begin the next round where one is due."""
        rollout, greedy = self._apart(batch["rollout"])
        self.returns.see(rollout.rew, rollout.ended)
        self.greedy.see(greedy.rew, greedy.ended)
        found = self.greedy if self.config.greedy else self.returns
        self.archive.offer(self._folded(found.mean), self._folded(self.core.vectors()), self._folded(found.count) > 0)
        extending, kind = self.updates >= self.config.init_updates, self.config.constraint
        self.extension.see(self.returns.mean, self.returns.count)
        rows = self._rows(rollout, extending)
        seen: dict[str, list[Tensor]] = {}
        for epoch in range(self.config.epochs):
            for minibatch in self.core.shuffled(rows, "order", epoch).split(self.config.batch_size, dim=1):
                metrics = self._descend({self.adam: 1.0}, minibatch, kind if extending else None)
                for name, value in metrics.items():
                    seen.setdefault(name, []).append(value)
        self.core.normalizer.see(rollout.obs)
        self.core.count.value += 1
        past = self.updates - self.config.init_updates
        if past >= 0 and past % self.config.extension_updates == 0:
            self.extend()
        means = {name: self._folded(torch.stack(values).mean(0)).mean(1) for name, values in seen.items()}
        return means | {"archived": self.archive.used.sum(1).to(self.core.gamma.dtype)}

    @torch.no_grad()
    def extend(self) -> None:
        """Every policy in training becomes one of the archive, to be improved in one objective within limits."""
        count, objectives = self.config.policies, self.spec.objectives
        chosen = self.archive.select(-(-count // objectives)).repeat_interleave(objectives, 1)[:, :count]  # [P, S]
        points, policies = (grouped.apart(x, count, axis=1).squeeze(1) for x in self.archive.row(chosen))
        self.core.load_vectors(policies)
        self.adam.reset()
        self.returns.begin(points)
        self.greedy.begin(points)
        self.extension.begin(points)

    @torch.no_grad()
    def _rows(self, rollout: Rollout, extending: bool) -> Tensor:
        """[P S, T N, columns]: obs, act, log pi, what the plain clipped objective takes, raw advantages, targets."""
        obs, act, old, advantage, target = self.core.estimates(rollout)
        raw = advantage * self.core.reward_scale.scale[:, None]
        weights = self.extension.aim if extending else self.core.weights
        plain = self.core.standardised((raw * weights[:, None]).sum(-1))
        return torch.cat([obs, act, torch.stack([old, plain], -1), raw - raw.mean(1, keepdim=True), target], -1)

    def _losses(self, rows: Tensor, constraint: Constraint | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss [P S] of a minibatch, and metrics. ``constraint`` is None in the first stage."""
        sizes = (self.spec.obs_size, self.spec.act_size, 1, 1, self.spec.objectives, self.spec.objectives)
        obs, act, old, plain, raw, target = rows.split(sizes, dim=-1)
        log_prob, entropy = self.core.policy.likelihood(obs, act)
        moved = log_prob - old.squeeze(-1)
        ratio, advantage = moved.exp(), plain.squeeze(-1)
        margin = self.returns.mean - self.extension.limit
        if constraint in ("barrier", "lagrangian"):
            shift = ((ratio.detach() - 1.0).unsqueeze(-1) * raw).mean(1)
            margin = margin + self.returns.span[:, None] * shift
            force = self.extension.force(constraint, margin, raw.std(1, correction=0))
            advantage = (raw * force[:, None]).sum(-1)
            advantage = advantage / (advantage.std(1, correction=0, keepdim=True) + 1e-8)
        loss_pi = losses.ppo_clip(ratio, advantage, self.clip[:, None]).mean(1)
        if constraint == "reference":
            loss_pi = loss_pi + released_barrier(
                ratio, target, self.extension.aim, self.clip, self.extension.beta, self.extension.barrier
            )
        loss_v = (self.core.critic(obs) - target).square().mean((1, 2))
        loss = loss_pi + self.value_weight * loss_v - self.entropy_weight * entropy.mean(1)
        metrics = {
            "loss_pi": loss_pi,
            "loss_v": loss_v,
            "entropy": entropy.mean(1),
            "kl": (ratio - 1.0 - moved).mean(1),
        }
        broken = self.extension.broken(margin)
        metrics["limits_broken"] = torch.zeros_like(broken) if constraint is None else broken
        return loss, metrics

    def _apart(self, rollout: Rollout) -> tuple[Rollout, Rollout]:
        """[P, T, S N, ...] -> [S P, T, N, ...], of the copies that are learned from and of the greedy ones."""
        fields = [
            grouped.apart(getattr(rollout, field.name), self.config.policies, axis=2)
            for field in dataclasses.fields(rollout)
        ]
        learning = self.core.environments
        return (
            Rollout(*(x[:, :, :learning].contiguous() for x in fields)),
            Rollout(*(x[:, :, learning:].contiguous() for x in fields)),
        )

    def _folded(self, x: Tensor) -> Tensor:
        """[S P, ...] -> [P, S, ...]."""
        return grouped.together(x, self.config.policies)
