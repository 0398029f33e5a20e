"""Preference Transformer: a reward that depends on the history, and weights on its steps (Kim et al., ICLR 2023).

    P(second preferred) = sigmoid(f(second) - f(first)),   L = cross-entropy with the label, a tie being 0.5
    f = mean_t z_t,   z_t = sum_i softmax_i(q_t k_i / sqrt(D)) r_i

where r_i = r(s_0, a_0, ..., s_i, a_i), with q_i and k_i, is read from a causal transformer over states and actions at
the i-th action. The second line is the preference attention, which sees the whole segment: it weighs r_i by how much
the steps attend to it. The reward to learn from is r_i itself, which looks back only; or (``attended``) z_i of the
segment that ends at step i, which looks back, too. Labels tell of r_i only what the attention looks at.

The learning rate of AdamW rises from a tenth of ``lr`` over the first tenth of ``decay_updates`` and falls back along a
cosine. ``preference_attention = False`` is the authors' released command: f = mean_t r_t, r by a two-layer perceptron.

Deviations:
- The preference attention is on. In the authors' code it is an option that is off and that their command does not set.
- Padding is really masked, there and in the transformer; theirs adds -1e-4 (sic) to the scores of padded steps.
- A step's tokens are its state and its action, in this order, and r is read at the action; theirs come in the other
  order and r is read at the state. Both see the same.
- Blocks are pre-norm with GELUs as in GPT-2; the authors' activation is a ReLU. Initial weights are ours. Rewards and
  attention keys have no biases, which would change no preference.
- Batches are drawn with replacement for a number of updates; theirs are shuffled epochs, and they keep the model that
  is best on a part of the training labels. We keep the last.
- ``reward`` of single steps takes each as the first of its history. ``rewards`` and ``relabel`` take histories.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pbrl import losses, rng
from pbrl.agent import Count, Metrics
from pbrl.data.dataset import Dataset
from pbrl.data.histories import relabel
from pbrl.data.source import Batch, LabelledPairs, Source, Wants
from pbrl.descent import descent
from pbrl.errors import InputError
from pbrl.members import Members, check_range, shared
from pbrl.nets.history_reward import StackedHistoryReward
from pbrl.nets.mlp import Normalizer
from pbrl.nets.sequences import Layout
from pbrl.optim import Adam
from pbrl.spec import Spec

from .reward_model import Aggregate

_ATTENTION = 1 << 24
"""Attention weights that a forward pass without gradient holds at a time."""


@dataclass(frozen=True)
class PreferenceTransformerConfig:
    """Settings of the Preference Transformer; the defaults are the authors' for locomotion."""

    lr: float = 1e-3
    """Highest learning rate of AdamW; it begins and ends at a tenth of it."""
    weight_decay: float = 1e-4
    """Rate of AdamW's weight decay."""
    dropout: float = 0.1
    """Share of attention weights, and of what a block adds, that is dropped in training."""
    normalize_obs: bool = False
    """Subtract the data's mean from observations and divide by their deviation."""
    aggregate: Aggregate = shared("mean")
    """What a segment's score is: the mean or the sum over its steps."""
    preference_attention: bool = shared(True)
    """Whether steps are weighed by an attention over the whole segment."""
    decay_updates: int = shared(10_000, schedule="run")
    """Updates over which the learning rate rises (the first tenth) and falls again."""
    longest: int = shared(100)
    """Most steps that a segment may have."""
    width: int = shared(256)
    """Numbers per token, a multiple of the heads."""
    layers: int = shared(1)
    """Blocks of the transformer."""
    heads: int = shared(4)
    """Attention heads of each block."""
    batch_size: int = shared(256)
    """Pairs per update."""

    def __post_init__(self) -> None:
        check_range(self, "lr", 0.0, open_low=True)
        check_range(self, "weight_decay", 0.0)
        check_range(self, "dropout", 0.0, 0.99)
        for name in ("decay_updates", "longest", "width", "layers", "heads", "batch_size"):
            check_range(self, name, 1)
        if self.width % self.heads:
            raise InputError(f"{type(self).__name__}.width is {self.width}, expected a multiple of heads, {self.heads}")


class PreferenceTransformer(nn.Module):
    """Stacked Preference Transformers."""

    keys: Tensor

    def __init__(self, spec: Spec, members: Members[PreferenceTransformerConfig]) -> None:
        super().__init__()
        self.config = config = members.shared
        self.count = Count()
        self.length = Count()  # steps of the segments that it has learned from
        self.register_buffer("keys", members.keys)
        self.normalizer = Normalizer(spec, members.column("normalize_obs"))
        dropout = members.column("dropout")
        layout = Layout(config.width, config.layers, config.heads, config.longest, dropout, members.dtype)
        keys, sizes = rng.fold(members.keys, "reward"), (spec.obs_size, spec.act_size)
        self.net = StackedHistoryReward(keys, *sizes, layout, attention=config.preference_attention)
        trained = (p for p in self.net.parameters() if p.requires_grad)
        self.adam = Adam(trained, members.column("lr"), weight_decay=members.column("weight_decay"))
        self._descend = descent(self._loss, members.compile)

    @property
    def updates(self) -> int:
        """How many updates have been made."""
        return self.count.value

    @property
    def boundaries(self) -> tuple[int, ...]:
        """One stage."""
        return ()

    def prepare(self, source: Source) -> Source:
        """The source as it is, if its segments are not too long."""
        if source.segments is not None and source.segments.shape[1] > self.config.longest:
            found = f"segments have {source.segments.shape[1]} steps"
            raise InputError(f"{found}, expected at most longest = {self.config.longest}")
        return source

    def wants(self) -> Wants:
        """Labelled pairs."""
        return {"pairs": self.config.batch_size}

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The reward of steps as the first ones of their histories: obs [P, B, O], act [P, B, A] -> [P, B]."""
        return self.rewards(obs.unsqueeze(2), act.unsqueeze(2)).squeeze(2)

    def rewards(self, obs: Tensor, act: Tensor, present: Tensor | None = None) -> Tensor:
        """Each step's reward after the steps before it: obs [P, M, T, O], act [P, M, T, A] -> [P, M, T].

        ``present`` [P, M, T] bool is False for padding, whose rewards mean nothing; None for no padding.
        """
        return self._in_parts(lambda *part: self.net(*part)[0], obs, act, present)

    def attended(self, obs: Tensor, act: Tensor, present: Tensor | None = None) -> Tensor:
        """As ``rewards``, but z in place of r: the last term of the score of a segment that ends at the step."""
        return self._in_parts(lambda *part: self.net(*part, causal=True)[1], obs, act, present)

    def judge(self, obs: Tensor, act: Tensor, present: Tensor | None = None) -> Tensor:
        """Each segment's score: obs [P, M, T, O], act [P, M, T, A] -> [P, M]; see ``rewards`` for ``present``."""
        return self._in_parts(self._score, obs, act, present)

    def relabel(self, data: Dataset, stride: int = 1, *, attended: bool = False) -> Tensor:
        """Each member's rewards of all rows of a data set, with histories as long as the segments learned from: [P, N].

        Within an episode, every step's history has the last ``length`` steps (where there are so many), less at most
        ``stride`` - 1. See ``pbrl.data.histories.relabel``. ``attended``: rewards are those of the method of this name.
        """
        reward = self.attended if attended else self.rewards
        return relabel(reward, data, self.keys, window=self.length.value, stride=stride, dtype=self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return self.net.query.weight.dtype

    def _in_parts(
        self, function: Callable[[Tensor, Tensor, Tensor], Tensor], obs: Tensor, act: Tensor, present: Tensor | None
    ) -> Tensor:
        """The function of (normalised) segments, without gradient and not of all at once: attention takes memory."""
        members, _, length = obs.shape[:3]
        present = torch.ones(obs.shape[:3], dtype=torch.bool, device=obs.device) if present is None else present > 0
        size = max(1, _ATTENTION // (members * self.config.heads * (2 * length) ** 2))
        parts = zip(*(x.split(size, dim=1) for x in (obs, act, present)))
        with torch.no_grad():
            return torch.cat([function(self.normalizer(o), a, there) for o, a, there in parts], dim=1)

    def _score(self, obs: Tensor, act: Tensor, present: Tensor, key: Tensor | None = None) -> Tensor:
        """Scores [P, M] of segments whose observations are normalised."""
        _, contribution = self.net(obs, act, present, key)
        there = present.to(contribution.dtype)
        total: Tensor = (contribution * there).sum(-1)
        return total if self.config.aggregate == "sum" else total / there.sum(-1)

    def scale(self, update: int) -> float:
        """Factor on the learning rate: linear from 0.1 to 1 over a tenth of ``decay_updates``, then a cosine to 0.1."""
        total = self.config.decay_updates
        warmup = 0.1 * total
        if update < warmup:
            return 0.1 + 0.9 * update / warmup
        gone = min(1.0, (update - warmup) / (total - warmup))
        return 0.1 + 0.45 * (1.0 + math.cos(math.pi * gone))

    def update(self, batch: Batch) -> Metrics:
        """One step down the cross-entropy."""
        pairs = batch["pairs"]
        self.length.value = pairs.obs.shape[3]
        key = rng.fold(self.keys, "dropout", self.updates)
        metrics = self._descend({self.adam: self.scale(self.updates)}, pairs, key)
        self.count.value += 1
        return metrics

    def _loss(self, pairs: LabelledPairs, key: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy, mean over the batch, [P]; metrics."""
        obs, act = (x.flatten(1, 2) for x in (pairs.obs, pairs.act))  # [P, 2 B, T, .]
        present = torch.ones(obs.shape[:3], dtype=torch.bool, device=obs.device)
        score = self._score(self.normalizer(obs), act, present, key).unflatten(-1, (-1, 2))
        difference = score[..., 1] - score[..., 0]
        loss = losses.bradley_terry(difference, pairs.label).mean(-1)
        accuracy = losses.accuracy(difference, pairs.label)
        return loss, {"loss_reward": loss, "accuracy": accuracy}
