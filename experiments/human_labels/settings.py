"""Which files of human answers, which agents, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agents
from pbrl.errors import InputError

SIMULATORS = {"hopper-medium-expert-v2": "Hopper-v4", "walker2d-medium-expert-v2": "Walker2d-v4"}
"""Folders of human answers, and the simulator (Gymnasium v4) in which what has learned from them plays for a report."""
FILES = {"human": "num100_human_train.npz", "script": "num100_script_train.npz"}
"""Who answered -> the file; the script's are the returns of the very same pairs."""
AGENTS = ("preference_transformer", "oppo", "ipl", "cpl", "reward_model")
"""The longest first."""


@dataclass(frozen=True)
class HumanOptions:
    """Cross-validated agreement with held-out human answers, beside the script's answers to the same pairs."""

    folder: Path
    """Folder with hopper-medium-expert-v2 and walker2d-medium-expert-v2, in each num100_human_train.npz and
    num100_script_train.npz."""
    out: Path = Path("runs/human-labels")
    """Folder for what is computed; the same command goes on where it was stopped."""
    agents: tuple[str, ...] = ()
    """Agents; by default all that learn from pairs alone."""
    seeds: int = 2
    """Members for each fold and kind of answers: seeds 0, 1, ..."""
    folds: int = 5
    """Parts into which the pairs are divided, each held out by one member."""
    updates: int = 400
    """Updates of every agent."""
    hidden: int = 64
    """Units in each of the two hidden layers of networks; transformers are half as wide."""
    batch_pairs: int = 4
    """Pairs per update."""
    episodes: int = 3
    """Episodes that each member plays in the simulator; 0: none."""
    processes: int = 0
    """Stacks that are trained at the same time, on a core each; 0: as many as there are cores. Scores are the same."""

    def __post_init__(self) -> None:
        least = {"seeds": 1, "folds": 2, "updates": 2, "hidden": 4, "batch_pairs": 1, "episodes": 0, "processes": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"bench human-labels: {name} is {getattr(self, name)}, expected at least {low}")
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"bench human-labels: unknown agent {name!r}, expected one of {', '.join(AGENTS)}")

    @property
    def tasks(self) -> list[str]:
        """The folders that are there.

        Raises:
            InputError: none of them.
        """
        found = [name for name in SIMULATORS if (self.folder / name).is_dir()]
        if not found:
            raise InputError(f"{self.folder}: holds none of {', '.join(SIMULATORS)}, expected at least one")
        return found


def agent_config(name: str, options: HumanOptions) -> Any:
    """An agent's settings; what is not named is the paper's. None were searched: there are too few answers for it."""
    widths, half = (options.hidden, options.hidden), options.updates // 2
    wanted: dict[str, Any] = {"normalize_obs": True, "batch_size": options.batch_pairs, "lr": 1e-3}
    if name in ("reward_model", "cpl", "ipl"):
        wanted |= {"hidden": widths}
    if name == "cpl":
        wanted |= {"bc_updates": half, "warmup": options.updates // 60}
    if name == "preference_transformer":
        wanted |= {"width": options.hidden // 2, "heads": 2, "decay_updates": options.updates}
    if name == "oppo":
        wanted |= {"width": options.hidden // 2, "layers": 1, "context": 20, "code_size": 16, "policy_heads": 2}
        wanted |= {"star_lr": 1e-2, "preference_weight": 10.0, "norm": "hinge", "match_every": 2}
        wanted |= {"warmup": options.updates // 60}
    return agents.find(name).config(**wanted)
