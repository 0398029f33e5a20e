"""PT + IQL: a Preference Transformer, then IQL on its rewards (Kim et al., ICLR 2023).

First stage: ``preference_transformer`` on the labelled pairs. Second stage: every transition of the data set gets the
reward that the transformer reads in it and the steps before it, and ``iql`` learns from it. Members have transformers
of their own.

As the authors do for locomotion, rewards are scaled by episode length / (largest - smallest learned return of an
episode) ("return_range"); they then add 0.5 to each, which favours staying alive: ``reward_bias = 0.5`` does the same.

Deviations (beside those of ``preference_transformer`` and ``iql``):
- ``reward_bias`` is 0 unless you set it.
- The first steps of an episode have the histories that there are. The authors fill these up with zeros at the left,
  which the transformer has never seen in training.
- Histories are as long as the labelled segments. With ``relabel_stride`` above 1 they are up to that much shorter, and
  relabelling is about as many times faster; 1 is the authors'.
- IQL gets each step's z in place of its r (see ``preference_transformer``). The authors' code reads r, as
  ``relabel_attended = False`` does, but labels tell of r only what the preference attention looks at: steps that it
  passes over get any reward, and a policy finds that. On point-mass data IQL left the goal by r and reached it by z.
- The policy does not see the history, as theirs does not, although the reward depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pbrl.data.dataset import Dataset
from pbrl.data.files import about
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members, check_range, shared
from pbrl.spec import Spec

from ..offline.iql import IQLConfig
from .p_iql import RewardThenIQL, prefixed
from .preference_transformer import PreferenceTransformer, PreferenceTransformerConfig
from .reward_model import Aggregate


@dataclass(frozen=True)
class PTIQLConfig(IQLConfig):
    """Settings of PT + IQL: those of IQL, and those of its Preference Transformer (``reward_...``)."""

    hidden: tuple[int, ...] = shared(IQLConfig.hidden)
    """Widths of the hidden layers of IQL's networks."""
    batch_size: int = shared(IQLConfig.batch_size)
    """Transitions per update of IQL; the transformer has its own."""
    reward_bias: float = 0.0
    """Added to every reward after scaling: the more, the better it is to stay alive."""
    reward_lr: float = PreferenceTransformerConfig.lr
    """Highest learning rate of the transformer."""
    reward_weight_decay: float = PreferenceTransformerConfig.weight_decay
    """Rate of its AdamW's weight decay."""
    reward_dropout: float = PreferenceTransformerConfig.dropout
    """Share of its attention weights, and of what a block adds, that is dropped in training."""
    reward_updates: int = shared(10_000, schedule="stage")
    """Updates of the first stage, over which its learning rate rises and falls."""
    reward_aggregate: Aggregate = shared("mean")
    """What a segment's score is: the mean or the sum over its steps."""
    reward_preference_attention: bool = shared(True)
    """Whether steps are weighed by an attention over the whole segment."""
    reward_longest: int = shared(100)
    """Most steps that a segment may have."""
    reward_width: int = shared(256)
    """Numbers per token of the transformer, a multiple of its heads."""
    reward_layers: int = shared(1)
    """Its blocks."""
    reward_heads: int = shared(4)
    """Attention heads of each block."""
    reward_batch_size: int = shared(256)
    """Pairs per update."""
    relabel_stride: int = shared(1)
    """Steps between the windows that give the data set's rewards; at most as many as a segment has."""
    relabel_attended: bool = shared(True)
    """Whether the data set's rewards are those that the preference attention weighs, over the steps up to each; without
    such an attention it makes no difference."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "reward_bias")
        check_range(self, "reward_lr", 0.0, open_low=True)
        check_range(self, "reward_weight_decay", 0.0)
        check_range(self, "reward_dropout", 0.0, 0.99)
        sizes = ("updates", "longest", "width", "layers", "heads", "batch_size")
        for name in (*(f"reward_{size}" for size in sizes), "relabel_stride"):
            check_range(self, name, 1)
        with about("settings reward_..."):  # as the words of the command line have them
            _transformer_config(self)  # checks what its fields say together


def _transformer_config(config: PTIQLConfig) -> PreferenceTransformerConfig:
    own = prefixed(config, "reward_", PreferenceTransformerConfig)
    return PreferenceTransformerConfig(normalize_obs=config.normalize_obs, decay_updates=config.reward_updates, **own)


class PTIQL(RewardThenIQL[PreferenceTransformer]):
    """Stacked PT + IQL."""

    name = "pt_iql"

    def __init__(self, spec: Spec, members: Members[PTIQLConfig]) -> None:
        configs = tuple(_transformer_config(config) for config in members.configs)
        rest = (members.seeds, members.dtype, members.device, members.compile)
        super().__init__(spec, members, PreferenceTransformer(spec, Members(configs, *rest)))

    def prepare(self, source: Source) -> Source:
        """In the second stage, the source with each member's learned rewards, scaled and shifted."""
        stride = self.config.relabel_stride
        if source.segments is not None and stride > source.segments.shape[1]:
            found = f"segments have {source.segments.shape[1]} steps"
            raise InputError(f"relabel_stride is {stride} but {found}, expected at most as many")
        return super().prepare(source)

    def relabel(self, data: Dataset) -> Tensor:
        """Each member's learned rewards of all rows of a data set, by their histories: [P, N]."""
        return self.model.relabel(data, self.config.relabel_stride, attended=self.config.relabel_attended)
