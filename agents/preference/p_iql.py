"""P-IQL: a Bradley-Terry reward model, then IQL on its rewards (the P-IQL baseline of Hejna et al., ICLR 2024).

First stage: ``reward_model`` on the labelled pairs. Second stage: every transition of the data set gets the learned
reward, and ``iql`` learns from it. Members have reward models of their own.

Options of the reward model (``reward_...``): a discount, regret in place of return, corrections for flipped labels,
ranked lists, and pessimism, which subtracts a multiple of the ensemble's deviation from the rewards that IQL gets.

Deviations (beside those of ``reward_model`` and ``iql``):
- Networks, learning rates and the policy's head are ``iql``'s and ``reward_model``'s defaults; the authors' are 512x512
  with orthogonal weights, a deterministic actor with dropout 0.25, and a single reward network without a tanh.
- The stages follow each other; the authors' code trains both at once for the first 50,000 updates.
- IQL learns from the whole data set; the authors' from the labelled segments alone.
- Learned rewards are scaled as IQL scales true ones ("return_range"): their scale is a matter of the number of labels
  and of regularisation. Labels do not tell their zero either, which decides whether an early end is good or bad:
  ``reward_bias`` is added after scaling. 0 is only right where episodes have one length.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pbrl.agent import Judge, Metrics, RewardLearner
from pbrl.data.dataset import Dataset
from pbrl.data.source import Batch, Source, Wants
from pbrl.errors import InputError
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.spec import Spec

from ..offline.iql import IQL, IQLConfig
from .reward_model import Aggregate, Feedback, Link, RewardModel, RewardModelConfig

_ROWS = 1 << 14


@dataclass(frozen=True)
class PIQLConfig(IQLConfig):
    """Settings of P-IQL: those of IQL, and those of its reward model (``reward_...``)."""

    hidden: tuple[int, ...] = shared(IQLConfig.hidden)
    """Widths of the hidden layers of IQL's networks; the reward network has its own."""
    batch_size: int = shared(IQLConfig.batch_size)
    """Transitions per update of IQL; the reward network has its own."""
    reward_bias: float = 0.0
    """Added to every reward after scaling: the more, the better it is to stay alive."""
    reward_lr: float = RewardModelConfig.lr
    """Learning rate of the reward model."""
    reward_updates: int = shared(50_000, schedule="stage")
    """Updates of the first stage."""
    reward_gamma: float = RewardModelConfig.gamma
    """Discount per step inside a segment, as the reward model sees it."""
    reward_pessimism: float = RewardModelConfig.pessimism
    """How many standard deviations over the copies are subtracted from their mean reward, for IQL."""
    reward_label_smoothing: float = RewardModelConfig.label_smoothing
    """Share by which labels are moved towards a tie."""
    reward_flips_forward: float = RewardModelConfig.flips_forward
    """Known rate of flipped labels, below 1/2, that the model of the labels allows for."""
    reward_flips_backward: float = RewardModelConfig.flips_backward
    """Known rate of flipped labels, below 1/2, that the labels are corrected for; not with reward_flips_forward."""
    reward_aggregate: Aggregate = shared("sum")
    """What a segment's reward is: the sum or the mean over its steps."""
    reward_link: Link = shared("partial_return")
    """What preferences go by: the segment's return, or its regret (with a learned value of its ends)."""
    reward_feedback: Feedback = shared("pairs")
    """What is learned from: labelled pairs, or ranked lists."""
    reward_bounded: bool = shared(True)
    """Whether a tanh keeps each step's reward in (-1, 1)."""
    reward_ensemble: int = shared(3)
    """Copies of the reward network."""
    reward_hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the reward network's hidden layers."""
    reward_batch_size: int = shared(128)
    """Pairs (or lists) per copy and update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "reward_bias")
        check_range(self, "reward_lr", 0.0, open_low=True)
        check_range(self, "reward_updates", 1)
        check_range(self, "reward_gamma", 0.0, 1.0, open_low=True)
        check_range(self, "reward_label_smoothing", 0.0, 1.0)
        check_range(self, "reward_flips_forward", 0.0, 0.49)
        check_range(self, "reward_flips_backward", 0.0, 0.49)
        check_range(self, "reward_ensemble", 1)
        check_range(self, "reward_batch_size", 1)
        check_sizes(self, "reward_hidden")
        _reward_config(self)  # checks what its fields say together


def _reward_config(config: PIQLConfig) -> RewardModelConfig:
    return RewardModelConfig(normalize_obs=config.normalize_obs, **prefixed(config, "reward_", RewardModelConfig))


def prefixed(config: Any, prefix: str, part: type[Any]) -> dict[str, Any]:
    """The fields of ``config`` that belong to a part of it: those named ``prefix`` and a field of the part's config."""
    names = {field.name for field in dataclasses.fields(config)}
    own = [field.name for field in dataclasses.fields(part) if prefix + field.name in names]
    return {name: getattr(config, prefix + name) for name in own}


class SegmentReward(RewardLearner, Judge, Protocol):
    """What a first stage learns: a reward that is fitted to preferences between segments."""


R = TypeVar("R", bound=SegmentReward)


class RewardThenIQL(nn.Module, Generic[R]):
    """Stacked learners that fit a reward to preferences first, and let IQL learn from it then.

    Attributes:
        name: what an error calls the agent.
    """

    name: ClassVar[str]
    reward_bias: Tensor

    def __init__(self, spec: Spec, members: Members[Any], model: R) -> None:
        """``members`` are IQL's, with ``reward_updates`` and ``reward_bias`` beside."""
        super().__init__()
        self.config = members.shared
        self.model = model
        self.iql = IQL(spec, members)
        self.register_buffer("reward_bias", members.column("reward_bias"))

    @property
    def keys(self) -> Tensor:
        """[P] int64, the members' keys."""
        return self.iql.keys

    @property
    def updates(self) -> int:
        """How many updates have been made, of both stages."""
        return self.model.updates + self.iql.updates

    @property
    def boundaries(self) -> tuple[int, ...]:
        """IQL begins after ``reward_updates``."""
        return (self.config.reward_updates,)

    def prepare(self, source: Source) -> Source:
        """In the second stage, the source with each member's learned rewards, scaled and shifted."""
        data = source.dataset
        if data is None:
            raise InputError(f"{self.name} learns from transitions too, expected a data set and not preferences alone")
        if self.updates < self.config.reward_updates:
            return source
        prepared = self.iql.prepare(source.with_reward(self.relabel(data)))
        assert prepared.rew is not None  # it has just been given
        return prepared.with_reward(prepared.rew + self.reward_bias[:, None])

    def relabel(self, data: Dataset) -> Tensor:
        """Each member's learned rewards of all rows of a data set: [P, N]."""
        dtype = self.iql.gamma.dtype
        obs, act = (x.to(self.keys.device, dtype).expand(len(self.keys), -1, -1) for x in (data.obs, data.act))
        parts = [self.model.reward(o, a) for o, a in zip(obs.split(_ROWS, 1), act.split(_ROWS, 1))]
        return torch.cat(parts, dim=1)

    def wants(self) -> Wants:
        """Labelled pairs, then transitions."""
        return self.model.wants() if self.updates < self.config.reward_updates else self.iql.wants()

    def act(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> [P, B, A]."""
        return self.iql.act(obs, key)

    def reward(self, obs: Tensor, act: Tensor) -> Tensor:
        """The learned reward, not scaled: obs [P, B, O], act [P, B, A] -> [P, B]."""
        return self.model.reward(obs, act)

    def judge(self, obs: Tensor, act: Tensor) -> Tensor:
        """Each segment's learned reward: obs [P, M, T, O], act [P, M, T, A] -> [P, M]."""
        return self.model.judge(obs, act)

    def update(self, batch: Batch) -> Metrics:
        """One step of the reward model, then of IQL."""
        return self.model.update(batch) if self.updates < self.config.reward_updates else self.iql.update(batch)


class PIQL(RewardThenIQL[RewardModel]):
    """Stacked P-IQL."""

    name = "p_iql"

    def __init__(self, spec: Spec, members: Members[PIQLConfig]) -> None:
        configs = tuple(_reward_config(config) for config in members.configs)
        rest = (members.seeds, members.dtype, members.device, members.compile)
        super().__init__(spec, members, RewardModel(spec, Members(configs, *rest)))
