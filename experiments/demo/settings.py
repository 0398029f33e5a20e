"""What the demo compares, and its settings."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.offline.bc import BCConfig
from agents.offline.iql import IQLConfig
from agents.preference.cpl import CPLConfig
from agents.preference.p_iql import PIQLConfig
from agents.preference.sft import SFTConfig
from pbrl.errors import InputError

from ..reports.rows import GAPS

LABELS = ("partial_return", "regret")
STACKS: dict[str, tuple[str, ...]] = {
    "bc": ("none",),
    "sft": LABELS,
    "cpl": LABELS,
    "p_iql": LABELS,
    "iql": ("true_reward",),
}
"""Agent -> the kinds of labels that its members learn from; one stack each."""
LONGEST_FIRST = ("p_iql", "cpl", "sft", "iql", "bc")
"""The stacks in the order in which they are begun, so that two cores end at about the same time."""


@dataclass(frozen=True)
class DemoConfig:
    """Settings of the demo."""

    out: Path = Path("runs/demo")
    """Folder for tables, figures and the report; what an earlier demo left there is replaced."""
    seeds: int = 8
    """Members per agent and kind of labels: seeds 0, 1, 2, ..."""
    updates: int = 3000
    """Updates of every agent, all stages together."""
    episodes: int = 20
    """Episodes per member and evaluation, the same ones for all."""
    evaluations: int = 8
    """How often every member is evaluated; the last time is after the last update."""
    dataset: str = "local/reacher/mixed-v1"
    """Data set, by name or file. It must hold an oracle critic, as those made by `pbrl data make` do."""
    pairs: int = 1000
    """Labelled pairs to learn from."""
    held_out_pairs: int = 500
    """Labelled pairs, of other episodes, on which agreement with the labeler is measured."""
    held_out: float = 0.2
    """Share of the episodes from which the held-out pairs come; no agent learns anything from them."""
    segment_length: int = 10
    """Steps per segment."""
    hidden: int = 64
    """Units in each of the two hidden layers of every network."""
    lr: float = 1e-3
    """Learning rate of every network: some ten times the papers', as there are a hundred times fewer updates."""
    transitions: int = 256
    """Transitions per update (BC, IQL and the second stage of P-IQL)."""
    batch_pairs: int = 32
    """Pairs per update (SFT, CPL, and each copy of P-IQL's reward model)."""
    data_seed: int = 0
    """Seed of what is the same for all members: held-out episodes and pairs."""
    processes: int = 0
    """Stacks that are trained at the same time, on a core each; 0: as many as there are cores. Scores are the same."""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "updates": 4, "episodes": 1, "evaluations": 1, "pairs": 1, "held_out_pairs": len(GAPS)}
        least |= {"segment_length": 1, "hidden": 1, "transitions": 1, "batch_pairs": 1, "data_seed": 0, "processes": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"demo: {name} is {getattr(self, name)}, expected at least {low}")
        if self.evaluations > self.updates:
            raise InputError(f"demo: evaluations is {self.evaluations}, expected at most updates = {self.updates}")
        if not 0 < self.held_out < 1:
            raise InputError(f"demo: held_out is {self.held_out:g}, expected a share above 0 and below 1")
        if not 0 < self.lr < math.inf:
            raise InputError(f"demo: lr is {self.lr:g}, expected above 0")

    @property
    def command(self) -> str:
        """The command line that does the same."""
        changed = [
            (field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return " ".join(["pbrl demo", *(f"--{name.replace('_', '-')} {shlex.quote(str(v))}" for name, v in changed)])


def agent_config(name: str, config: DemoConfig) -> Any:
    """An agent's settings in the demo: the defaults of its file, but for normalised observations and what is short.

    So SFT and CPL keep the dropout of their paper, and BC and IQL have none, as theirs.
    """
    half, hidden = config.updates // 2, (config.hidden, config.hidden)
    network: dict[str, Any] = {"lr": config.lr, "hidden": hidden, "normalize_obs": True}
    if name == "bc":
        return BCConfig(**network, batch_size=config.transitions)
    if name == "sft":
        return SFTConfig(**network, batch_size=config.batch_pairs, bc_updates=half)
    if name == "cpl":
        return CPLConfig(**network, batch_size=config.batch_pairs, bc_updates=half, warmup=config.updates // 60)
    if name == "iql":
        return IQLConfig(**network, batch_size=config.transitions, actor_decay=config.updates)
    return PIQLConfig(
        **network,
        batch_size=config.transitions,
        actor_decay=config.updates - half,
        reward_lr=config.lr,
        reward_hidden=hidden,
        reward_batch_size=config.batch_pairs,
        reward_updates=half,
    )
