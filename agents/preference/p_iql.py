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
from typing import Any

from torch import Tensor

from pbrl.data.files import about
from pbrl.data.source import Source
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.parts.reward_first import R, RewardFirst
from pbrl.spec import Spec

from ..offline.iql import IQL, IQLConfig
from .reward_model import Aggregate, Feedback, Link, RewardModel, RewardModelConfig


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
        with about("settings reward_..."):  # as the words of the command line have them
            _reward_config(self)  # checks what its fields say together


def _reward_config(config: PIQLConfig) -> RewardModelConfig:
    return RewardModelConfig(normalize_obs=config.normalize_obs, **prefixed(config, "reward_", RewardModelConfig))


def prefixed(config: Any, prefix: str, part: type[Any]) -> dict[str, Any]:
    """The fields of ``config`` that belong to a part of it: those named ``prefix`` and a field of the part's config."""
    names = {field.name for field in dataclasses.fields(config)}
    own = [field.name for field in dataclasses.fields(part) if prefix + field.name in names]
    return {name: getattr(config, prefix + name) for name in own}


class RewardThenIQL(RewardFirst[R, IQL]):
    """Stacked learners that fit a reward to preferences first, and let IQL learn from it then."""

    iql: IQL
    reward_bias: Tensor

    def __init__(self, spec: Spec, members: Members[Any], model: R) -> None:
        """``members`` are IQL's, with ``reward_updates`` and ``reward_bias`` beside."""
        super().__init__(members.shared, model, IQL(spec, members), "iql")
        self.register_buffer("reward_bias", members.column("reward_bias"))

    def prepare(self, source: Source) -> Source:
        """In the second stage, the source with each member's learned rewards, scaled and shifted."""
        source = super().prepare(source)
        if self.updates < self.config.reward_updates:
            return source
        prepared = self.iql.prepare(source)
        assert prepared.rew is not None  # it has just been given
        return prepared.with_reward(prepared.rew + self.reward_bias[:, None])


class PIQL(RewardThenIQL[RewardModel]):
    """Stacked P-IQL."""

    name = "p_iql"

    def __init__(self, spec: Spec, members: Members[PIQLConfig]) -> None:
        configs = tuple(_reward_config(config) for config in members.configs)
        rest = (members.seeds, members.dtype, members.device, members.compile)
        super().__init__(spec, members, RewardModel(spec, Members(configs, *rest)))
