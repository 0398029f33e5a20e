"""A Bradley-Terry reward model: an ensemble of networks fitted to preferences (Christiano et al. 2017; PEBBLE).

    P(second preferred) = sigmoid(f(second) - f(first))
    L = cross-entropy with the label, a tie being 0.5

with the score f of a segment s_0, a_0, ..., s_{T-1}, a_{T-1} by ``link``:

    partial_return   f = sum_t gamma^t r(s_t, a_t)                                    over all T steps
    regret           f = sum_t gamma^t r(s_t, a_t) + gamma^H V(s_H) - V(s_0)          over the first H = T - 1 steps

Each copy of the ensemble is fitted on batches of its own; the reward is the mean over copies, less ``pessimism``
standard deviations over them. Where labels are known to be flipped at a rate below 1/2, ``flips_forward`` puts the
flips into the model (as Christiano et al. do for a tenth of random answers, a rate of 0.05), and ``flips_backward``
makes the loss's mean over the flips the clean one (Natarajan et al. 2013). ``feedback = "rankings"`` learns from lists
of K segments in order of preference by Plackett and Luce's model, which for K = 2 is Bradley and Terry's.

Deviations:
- The defaults are BPref's (three copies of three layers of 256 leaky ReLUs, tanh output, learning rate 3e-4). BPref
  bounds each step's reward to (-1, 1) by the tanh; ``bounded = False`` leaves it out.
- "mean" divides by the number of steps, which is a temperature and changes what the same labels make of the reward.
- Batches are drawn with replacement for a number of updates; BPref shuffles epochs and stops at 97 % training accuracy.
- Regret (Knox et al.) needs the optimal value of the learned reward, which they compute from a library of policies.
  Here V is a second network that is learned from the same labels and not tied to r by Bellman's equation. What is
  learned is then r up to potential shaping, which leaves optimal policies as they are (in deterministic problems, and
  with the gamma of the policy). The last state of a segment ends it, so that the last action does not count.
- The loss of ``flips_backward`` has no lower bound on a single pair; bounded rewards keep it finite.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.asking import queries
from pbrl.data.source import Batch, LabelledPairs, RankedLists, Source, Wants
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.mlp import Activation, Normalizer, StackedMLP
from pbrl.optim import Adam
from pbrl.spec import Spec

Aggregate = Literal["sum", "mean"]
Link = Literal["partial_return", "regret"]
Feedback = Literal["pairs", "rankings"]
LABEL_NOISE = ("label_smoothing", "flips_forward", "flips_backward")


@dataclass(frozen=True)
class RewardModelConfig:
    """Settings of the reward model; the defaults are BPref's."""

    lr: float = 3e-4
    """Learning rate of Adam."""
    gamma: float = 1.0
    """Discount per step inside a segment."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    pessimism: float = 0.0
    """How many standard deviations over the copies are subtracted from their mean reward."""
    label_smoothing: float = 0.0
    """Share by which labels are moved towards a tie."""
    flips_forward: float = 0.0
    """Known rate of flipped labels, below 1/2, that the model of the labels allows for."""
    flips_backward: float = 0.0
    """Known rate of flipped labels, below 1/2, that the labels are corrected for; not with flips_forward."""
    aggregate: Aggregate = shared("sum")
    """What a segment's reward is: the sum or the mean over its steps."""
    link: Link = shared("partial_return")
    """What preferences go by: the segment's return, or its regret (with a learned value of its ends)."""
    feedback: Feedback = shared("pairs")
    """What is learned from: labelled pairs, or ranked lists."""
    bounded: bool = shared(True)
    """Whether a tanh keeps each step's reward in (-1, 1)."""
    activation: Activation = shared("leaky_relu")
    """Activation of the hidden layers."""
    ensemble: int = shared(3)
    """Copies with their own initial weights and batches."""
    hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the hidden layers."""
    batch_size: int = shared(128)
    """Pairs (or lists) per copy and update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "gamma", 0.0, 1.0, open_low=True)
        check_range(self, "pessimism")
        check_range(self, "label_smoothing", 0.0, 1.0)
        check_range(self, "flips_forward", 0.0, 0.49)
        check_range(self, "flips_backward", 0.0, 0.49)
        check_range(self, "ensemble", 1)
        check_range(self, "batch_size", 1)
        check_sizes(self, "hidden")
        if self.flips_forward and self.flips_backward:
            found = f"flips_forward is {self.flips_forward:g} and flips_backward {self.flips_backward:g}"
            raise InputError(f"{found}, expected one of them: they correct for the same flips")
        for name in LABEL_NOISE:
            if self.feedback == "rankings" and getattr(self, name):
                raise InputError(f"{name} is {getattr(self, name):g}, expected 0 with rankings: it is for pairs")


class RewardModel(nn.Module):
    """Stacked ensembles of reward networks."""

    keys: Tensor
    gamma: Tensor
    pessimism: Tensor
    label_smoothing: Tensor
    flips_forward: Tensor
    flips_backward: Tensor

    def __init__(self, spec: Spec, members: Members[RewardModelConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.register_buffer("keys", members.keys)
        for name in ("gamma", "pessimism", *LABEL_NOISE):
            self.register_buffer(name, members.column(name))
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))

        def network(purpose: str, inputs: int) -> StackedMLP:
            return StackedMLP(
                rng.fold(members.keys, purpose),
                (inputs, *config.hidden, 1),
                ensemble=config.ensemble,
                activation=config.activation,
                dtype=members.dtype,
            )

        self.net = network("reward", spec.obs_size + spec.act_size)
        self.potential = network("potential", spec.obs_size) if config.link == "regret" else None
        self.adam = Adam(self.parameters(), members.column("lr"))
        # On a CPU, networks that read thousands of rows in blocks (StackedMLP) outrun the compiler's whole tensors.
        self._descend = descent(self._loss, members.compile and self.keys.device.type != "cpu")

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source as it is, if its segments are long enough for the link."""
        steps = source.segments if self.config.feedback == "pairs" else source.ranked
        if self.potential is not None and steps is not None:
            _check_successor(steps.shape[1])
        return source

    def wants(self) -> Wants:
        """Labelled pairs or ranked lists, a batch for each copy."""
        return {self.config.feedback: self.config.batch_size * self.config.ensemble}

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The mean over the ensemble, less ``pessimism`` deviations: obs [P, ..., O], act [P, ..., A] -> [P, ...]."""
        with torch.no_grad():
            each = self.each(obs.flatten(1, -2), act.flatten(1, -2))
            reward: Tensor = each.mean(1) - self.pessimism[:, None] * each.std(1, correction=0)
        return reward.reshape(-1, *obs.shape[1:-1])

    def spread(self, obs: Tensor, act: Tensor) -> Tensor:
        """The deviation of each step's reward over the ensemble: obs [P, ..., O], act [P, ..., A] -> [P, ...]."""
        with torch.no_grad():
            deviation: Tensor = self.each(obs.flatten(1, -2), act.flatten(1, -2)).std(1, correction=0)
        return deviation.reshape(-1, *obs.shape[1:-1])

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's score, the mean over the ensemble: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        with torch.no_grad():
            return self.scores(obs, act).mean(1)

    def chances(self, obs: Tensor, act: Tensor) -> Tensor:
        """P(second preferred) by every copy, for pairs obs [P, N, 2, T, O], act [P, N, 2, T, A]: [P, E, N]."""
        with torch.no_grad():
            score = self.scores(obs.flatten(1, 2), act.flatten(1, 2)).unflatten(-1, (-1, 2))
            return torch.sigmoid(score[..., 1] - score[..., 0])

    def disagreement(self, obs: Tensor, act: Tensor) -> Tensor:
        """The deviation over the copies of ``chances``, for pairs as there: [P, N] (PEBBLE's criterion for queries)."""
        return queries.disagreement(self.chances(obs, act))

    def each(self, obs: Tensor, act: Tensor) -> Tensor:
        """Every copy's reward: obs [P, B, O] (or [P, E, B, O], a batch per copy) and act -> [P, E, B]."""
        out: Tensor = self.net(torch.cat([self.normalizer(obs), act], dim=-1)).squeeze(-1)
        return torch.tanh(out) if self.config.bounded else out

    def scores(self, obs: Tensor, act: Tensor) -> Tensor:
        """Every copy's score of segments: obs [P, M, T, O] (or [P, E, M, T, O]) and act -> [P, E, M]."""
        steps = self.each(obs.flatten(-3, -2), act.flatten(-3, -2)).unflatten(-1, obs.shape[-3:-1])  # [P, E, M, T]
        length = obs.shape[-2]
        weight = self.gamma[:, None] ** torch.arange(length, device=obs.device)  # [P, T]
        discount: Tensor = weight[:, None, None]
        if self.potential is None:
            total: Tensor = (discount * steps).sum(-1)
        else:
            _check_successor(length)
            length -= 1
            ends = self.normalizer(torch.stack([obs[..., 0, :], obs[..., -1, :]], dim=-2)).flatten(-3, -2)
            first, last = self.potential(ends).squeeze(-1).unflatten(-1, (-1, 2)).unbind(-1)  # [P, E, M] each
            total = (discount * steps)[..., :-1].sum(-1) + discount[..., -1] * last - first
        return total if self.config.aggregate == "sum" else total / length

    def update(self, batch: Batch) -> Metrics:
        """One step down the cross-entropy."""
        answered = batch["pairs"] if self.config.feedback == "pairs" else batch["rankings"]
        metrics = self._descend({self.adam: 1.0}, answered)
        self.count.value += 1
        return metrics

    def _loss(self, batch: LabelledPairs | RankedLists) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy, mean over a copy's batch and sum over copies (which share no weights), [P]; metrics."""
        split = (self.config.ensemble, self.config.batch_size)
        obs, act = (x.unflatten(1, split) for x in (batch.obs, batch.act))  # [P, E, B, K, T, .]
        score = self.scores(obs.flatten(2, 3), act.flatten(2, 3)).unflatten(-1, (split[1], -1))  # [P, E, B, K]
        if isinstance(batch, LabelledPairs):
            difference, label = score[..., 1] - score[..., 0], batch.label.unflatten(1, split)
            smoothing, forward, backward = (getattr(self, name)[:, None, None] for name in LABEL_NOISE)
            wanted = losses.smoothed(losses.unflipped(label, backward), smoothing)
            loss = losses.bradley_terry_with_flips(difference, wanted, forward)
        else:
            better, worse = (list(place) for place in zip(*itertools.combinations(range(score.shape[-1]), 2)))
            difference = score[..., better] - score[..., worse]
            loss, label = losses.plackett_luce(score), torch.ones_like(difference)
        loss = loss.mean(-1).sum(1)
        accuracy = losses.accuracy(difference.flatten(1), label.flatten(1))
        return loss, {"loss_reward": loss / self.config.ensemble, "accuracy": accuracy}


def _check_successor(length: int) -> None:
    if length < 2:
        raise InputError("segments have one step, expected at least two: regret needs the state after a step")
