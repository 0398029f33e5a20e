"""PEBBLE: SAC on a reward that it asks for (Lee, Smith & Abbeel, ICML 2021; B-Pref, Lee et al. 2021).

    P(second preferred) = sigmoid(sum_t r(s_t, a_t) over the second - over the first),    r fitted by cross-entropy
    r_int(s) = log |s - kNN_k(s)|, over its running deviation: the reward before anybody was asked

Online (``pbrl train pebble --env NAME --env-steps N``; ``loops.query_and_learn``) it explores by r_int, asks about
segments of its own episodes, fits the reward ensemble to the answers, gives the whole replay buffer the new rewards,
begins its critics afresh once, and goes on by SAC, with sessions of questions at intervals. When it asks what is the
loop's ``QuerySchedule``. From stored data it is its two halves in turn: the reward model on labelled pairs for
``reward_updates`` updates, then SAC on the data with learned rewards.

Deviations:
- The state entropy has the paper's logarithm, which the authors' code leaves out; distances below 1e-6 count as that.
- All stored steps are relabelled, also after the buffer has wrapped; the authors' misses those behind the write head.
- Skipped questions neither stop a run nor count; ties are left out of the training accuracy. A teacher's thresholds are
  set once (the authors' code multiplies them by epsilon again after the first session).
- A session of reward learning counts updates and not epochs, draws pairs with replacement, begins Adam afresh, and
  stops at the accuracy of the ensemble and not at the mean of its copies' accuracies.
- Segments may come from any complete episodes that are stored, of any length; the authors' code needs equal ones, and
  never shows the last window of an episode.
- Target critics move at every update at half the authors' rate, who move them at every other one.
- The critics begin afresh from the weights that they first had.
"""

from __future__ import annotations

from dataclasses import dataclass

from pbrl import rng
from pbrl.members import Members, check_range, check_sizes, shared
from pbrl.nets.mlp import critics
from pbrl.parts.reward_first import RewardFirst
from pbrl.spec import Spec

from ..off_policy.sac import SAC, SACConfig
from .reward_model import RewardModel, RewardModelConfig


@dataclass(frozen=True)
class PEBBLEConfig(SACConfig):
    """Settings of PEBBLE: those of SAC and of its reward model (``reward_...``); the defaults are B-Pref's (walker)."""

    lr: float = 5e-4
    """Learning rate of Adam, for all networks of SAC and the temperature."""
    target_rate: float = 0.0025
    """Share of the critics that the target critics take on per update."""
    temperature: float = 0.1
    """alpha: what a nat of entropy is worth in units of reward; where it is learned, what it begins at."""
    hidden: tuple[int, ...] = shared((1024, 1024))
    """Widths of the hidden layers of SAC's networks; the reward network has its own."""
    batch_size: int = shared(1024)
    """Transitions per update of SAC; the reward network has its own."""
    reward_lr: float = RewardModelConfig.lr
    """Learning rate of the reward model."""
    reward_updates: int = shared(5_000, schedule="stage")
    """Updates of the reward model before SAC begins, where both learn from stored data. No use online."""
    reward_bounded: bool = shared(True)
    """Whether a tanh keeps each step's reward in (-1, 1)."""
    reward_ensemble: int = shared(3)
    """Copies of the reward network."""
    reward_hidden: tuple[int, ...] = shared((256, 256, 256))
    """Widths of the reward network's hidden layers."""
    reward_batch_size: int = shared(128)
    """Pairs per copy and update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "reward_lr", 0.0, open_low=True)
        check_range(self, "reward_updates", 1)
        check_range(self, "reward_ensemble", 1)
        check_range(self, "reward_batch_size", 1)
        check_sizes(self, "reward_hidden")


def _reward_config(config: PEBBLEConfig) -> RewardModelConfig:
    return RewardModelConfig(
        lr=config.reward_lr,
        normalize_obs=config.normalize_obs,
        bounded=config.reward_bounded,
        ensemble=config.reward_ensemble,
        hidden=config.reward_hidden,
        batch_size=config.reward_batch_size,
    )


class FreshSAC(SAC):
    """SAC that can begin its critics afresh."""

    def __init__(self, spec: Spec, members: Members[SACConfig]) -> None:
        super().__init__(spec, members)
        self.spec = spec

    def forget_critic(self) -> None:
        """Critics, their targets and their optimiser are as they were before the first update."""
        config, dtype = self.config, self.gamma.dtype
        fresh, _ = critics(rng.fold(self.keys, "q"), self.spec, config.hidden, count=config.critics, dtype=dtype)
        self.q.load_state_dict(fresh.state_dict())
        self.target.load_state_dict(fresh.state_dict())
        self.critic_adam.reset()


class PEBBLE(RewardFirst[RewardModel, FreshSAC]):
    """Stacked PEBBLE: ``model`` is the reward learner, ``agent`` learns from its rewards."""

    name = "pebble"
    agent: FreshSAC

    def __init__(self, spec: Spec, members: Members[PEBBLEConfig]) -> None:
        configs = tuple(_reward_config(config) for config in members.configs)
        model = RewardModel(spec, Members(configs, members.seeds, members.dtype, members.device, members.compile))
        super().__init__(members.shared, model, FreshSAC(spec, members), "agent")
