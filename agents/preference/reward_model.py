"""A Bradley-Terry reward model: an ensemble of networks fitted to preferences (Christiano et al. 2017; PEBBLE).

    P(second preferred) = sigmoid(R(second) - R(first)),  R(segment) = sum_t r(s_t, a_t)
    L = cross-entropy with the label, a tie being 0.5

Each copy of the ensemble is fitted on batches of its own; the reward is the mean over copies.

Deviations:
- The defaults are BPref's (three copies of three layers of 256 leaky ReLUs, tanh output, learning rate 3e-4). BPref
  bounds each step's reward to (-1, 1) by the tanh; ``bounded = False`` leaves it out.
- "mean" divides by the number of steps, which is a temperature and changes what the same labels make of the reward.
- Batches are drawn with replacement for a number of updates; BPref shuffles epochs and stops at 97 % training accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.compiler import compiled
from pbrl.data.source import Batch, LabelledPairs, Wants
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets import Activation, Normalizer, StackedMLP
from pbrl.optim import Adam, minimise
from pbrl.spec import Spec


@dataclass(frozen=True)
class RewardModelConfig:
    """Settings of the reward model; the defaults are BPref's."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    aggregate: Literal["sum", "mean"] = shared("sum")
    """What a segment's reward is: the sum or the mean over its steps."""
    bounded: bool = shared(True)
    """Whether a tanh keeps each step's reward in (-1, 1)."""
    activation: Activation = shared("leaky_relu")
    """Activation of the hidden layers."""
    ensemble: int = shared(3)
    """Copies with their own initial weights and batches."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers."""
    batch_size: int = shared(128)
    """Pairs per copy and update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "ensemble", 1)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")


class RewardModel(nn.Module):
    """Stacked ensembles of reward networks."""

    keys: Tensor

    def __init__(self, spec: Spec, members: Members[RewardModelConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        self.net = StackedMLP(
            rng.fold(members.keys, "reward"),
            (spec.obs_size + spec.act_size, *config.hidden, 1),
            ensemble=config.ensemble,
            activation=config.activation,
            dtype=members.dtype,
        )
        self.adam = Adam(self.net.parameters(), members.column("lr"))
        self._objective = compiled(self._loss, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    def wants(self) -> Wants:
        """Labelled pairs, a batch for each copy."""
        return {"pairs": self.config.batch_size * self.config.ensemble}

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The mean over the ensemble: obs [P, ..., O], act [P, ..., A] -> [P, ...]."""
        lead = obs.shape[1:-1]
        with torch.no_grad():
            mean: Tensor = self.each(obs.flatten(1, -2), act.flatten(1, -2)).mean(1)
        return mean.reshape(-1, *lead)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's reward, aggregated as in training: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return self._total(self.reward(obs, act))

    def _total(self, steps: Tensor) -> Tensor:
        return steps.sum(-1) if self.config.aggregate == "sum" else steps.mean(-1)

    def each(self, obs: Tensor, act: Tensor) -> Tensor:
        """Every copy's reward: obs [P, B, O] (or [P, E, B, O], a batch per copy) and act -> [P, E, B]."""
        out: Tensor = self.net(torch.cat([self.normalizer(obs), act], dim=-1)).squeeze(-1)
        return torch.tanh(out) if self.config.bounded else out

    def update(self, batch: Batch) -> Metrics:
        """One step down the cross-entropy."""
        loss, metrics = self._objective(batch["pairs"])
        minimise(loss, {self.adam: 1.0})
        self.count.value += 1
        return metrics

    def _loss(self, pairs: LabelledPairs) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy, mean over a copy's batch and sum over copies (which share no weights), [P]; metrics."""
        copies = self.config.ensemble
        split = (copies, self.config.batch_size)
        obs, act = (x.unflatten(1, split).flatten(2, -2) for x in (pairs.obs, pairs.act))  # [P, E, B 2 T, .]
        total = self._total(self.each(obs, act).reshape(len(obs), *split, 2, -1))  # [P, E, B, 2]
        difference, label = total[..., 1] - total[..., 0], pairs.label.unflatten(1, split)
        loss = losses.bradley_terry(difference, label).mean(-1).sum(1)
        accuracy = losses.accuracy(difference.detach().flatten(1), label.flatten(1))
        return loss, {"loss_reward": loss.detach() / copies, "accuracy": accuracy}
