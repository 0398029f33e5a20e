"""What the study compares: tasks, labels, agents and their settings."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agents
from pbrl.errors import InputError
from pbrl.evaluation import EVALUATION_SEED

from ..command_line.options import Flag

LABELS = ("partial_return", "regret")
BUDGETS = (50, 200, 1000, 5000)
NOISES = ("none", "beta", "mistakes")
"""none; beta: drawn answers, P(second) = sigmoid(difference / standard deviation of the pool's scores); mistakes: a
tenth of the answers turned round."""
MISTAKE = 0.1
NOISY_BUDGET = 1000
UNLABELLED = {"bc": "none", "iql": "true_reward"}
"""Agents that take no labels, and what their rows are called."""
AGENTS = ("p_iql", "pt_iql", "oppo", "ipl", "cpl_kl", "cpl_bc", "cpl", "sft", "iql", "bc")
"""The agents, the longest first, so that two cores end at about the same time."""
PROBABILISTIC = ("cpl", "cpl_bc", "cpl_kl", "p_iql", "pt_iql", "ipl")
"""Agents whose model is P(second preferred) = sigmoid(judge's difference); the others judge, but name no odds."""
SEARCH_RESULTS = Path(__file__).parents[1] / "results" / "preferences_search.csv"


@dataclass(frozen=True)
class Task:
    """A data set, how it is made, and how segments of it are compared.

    Attributes:
        dataset: its name.
        env: Gymnasium id, or the point mass.
        tier: of skill, see ``experiments.datasets.make``.
        steps: transitions asked for.
        segment_length: steps per segment.
        episodes: per evaluation.
        folder: of a finished behaviour run, inside the folder that ``--behaviour`` names; "": none is needed.
    """

    dataset: str
    env: str
    tier: str
    steps: int
    segment_length: int
    episodes: int
    folder: str = ""


def _locomotion(name: str, env: str, tier: str, episodes: int) -> Task:
    return Task(f"local/{name}/{tier}-v1", env, tier, 100_000, 20, episodes, folder=name)


TASKS: dict[str, Task] = {
    task.dataset: task
    for task in (
        Task("local/pointmass/mixed-v1", "PointMass-v0", "mixed", 20_000, 10, 20),
        Task("local/reacher/mixed-v1", "Reacher-v5", "mixed", 20_000, 10, 20),
        _locomotion("hopper", "Hopper-v5", "medium-expert", 5),
        _locomotion("hopper", "Hopper-v5", "medium-replay", 5),
        _locomotion("halfcheetah", "HalfCheetah-v5", "medium-expert", 3),
        _locomotion("halfcheetah", "HalfCheetah-v5", "medium-replay", 3),
    )
}
QUICK_TASKS = ("local/pointmass/mixed-v1", "local/reacher/mixed-v1")


@dataclass(frozen=True)
class Condition:
    """What a member learns from.

    Attributes:
        labels: who answers; or "none" or "true_reward" where nobody does.
        budget: how many answered pairs; 0 where there are none.
        noise: one of ``NOISES``.
    """

    labels: str
    budget: int = 0
    noise: str = "none"


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes:
        seeds: the members' seeds.
        updates: of every agent, all stages together.
        evaluations: how often the members play; the last time is after the last update.
        most_episodes: per evaluation; a task may ask for fewer.
        pool: labelled pairs to learn from, of which members get their share.
        held_out_pairs: pairs of other episodes to measure agreement on.
        budgets: numbers of labelled pairs.
        noisy_budget: the budget at which labels have faults; 0: none have.
        hidden: units in each of the two hidden layers of every network.
        transitions: per update.
        batch_pairs: per update.
        data_seed: of what is the same for all members: held-out episodes and pairs.
        play_seed: of the first evaluation episode.
    """

    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    updates: int = 2400
    evaluations: int = 3
    most_episodes: int = 20
    pool: int = 5000
    held_out_pairs: int = 1000
    budgets: tuple[int, ...] = BUDGETS
    noisy_budget: int = NOISY_BUDGET
    hidden: int = 64
    transitions: int = 128
    batch_pairs: int = 16
    data_seed: int = 10
    play_seed: int = 3 * EVALUATION_SEED


FULL = Scale()
"""Seeds, pairs and episodes of its own: those from 0 on served while the study was built."""
QUICK = dataclasses.replace(
    FULL, updates=600, evaluations=2, most_episodes=5, pool=1000, held_out_pairs=500, budgets=(50, 1000), noisy_budget=0
)
SEARCH = dataclasses.replace(
    FULL,
    seeds=(100, 101, 102),
    evaluations=1,
    pool=1000,
    held_out_pairs=500,
    budgets=(1000,),
    noisy_budget=0,
    data_seed=100,
    play_seed=2 * EVALUATION_SEED,
)
"""The search has its own seeds, held-out episodes, pairs and evaluation episodes."""

_IQL = [{"expectile": e, "temperature": t} for e in (0.7, 0.9) for t in (1.0, 3.0, 10.0)]
GRIDS: dict[str, list[dict[str, float]]] = {
    "bc": [{"lr": lr} for lr in (3e-4, 1e-3, 3e-3)],
    "sft": [{"dropout": d, "lr": lr} for d in (0.0, 0.25) for lr in (3e-4, 1e-3, 3e-3)],
    "cpl": [{"dropout": d, "alpha": a} for d in (0.0, 0.25) for a in (0.1, 0.3, 1.0)],
    "cpl_bc": [{"dropout": d, "alpha": a} for d in (0.0, 0.25) for a in (0.3, 1.0, 3.0)],
    "cpl_kl": [{"dropout": d, "alpha": a} for d in (0.0, 0.25) for a in (0.2, 0.6, 2.0)],
    "iql": _IQL,
    "p_iql": _IQL,
    "pt_iql": [{"expectile": e, "temperature": t} for e in (0.7, 0.9) for t in (0.3, 1.0, 3.0)],
    "ipl": [{"chi2": c, "temperature": t} for c in (0.05, 0.5) for t in (1.0, 3.0, 10.0)],
    "oppo": [{"preference_weight": w, "star_deviation": d} for w in (0.1, 1.0, 10.0) for d in (0.1, 2.0)],
}
"""The settings that are searched, at most six per agent; a member each."""


def conditions(agent: str, scale: Scale) -> list[Condition]:
    """What the members of a stack learn from: labels of both kinds without faults, and faults at one budget."""
    if agent in UNLABELLED:
        return [Condition(UNLABELLED[agent])]
    found = [Condition(labels, budget) for labels in LABELS for budget in scale.budgets]
    if scale.noisy_budget:
        found += [Condition(labels, scale.noisy_budget, noise) for labels in LABELS for noise in NOISES[1:]]
    return found


def agent_config(name: str, scale: Scale, choice: Mapping[str, Any]) -> Any:
    """An agent's settings: small networks, normalised observations, few updates, ``choice``; the rest is the paper's.

    Agents of two stages give a third of their updates to a reward model, or half to cloning.
    """
    algorithm = agents.find(name)
    widths, half, third = (scale.hidden, scale.hidden), scale.updates // 2, scale.updates // 3
    wanted: dict[str, Any] = {"lr": 1e-3, "hidden": widths, "normalize_obs": True}
    if name in ("sft", "cpl", "cpl_bc", "cpl_kl"):
        wanted |= {"batch_size": scale.batch_pairs, "bc_updates": half}
        wanted |= {} if name == "sft" else {"warmup": scale.updates // 60}
    elif name == "ipl":
        wanted |= {"batch_size": scale.batch_pairs // 2, "replay_batch_size": scale.transitions}
    elif name == "oppo":
        wanted = {"lr": 1e-3, "width": scale.hidden // 2, "layers": 1, "context": 10, "normalize_obs": True}
        wanted |= {"batch_size": scale.batch_pairs // 2, "warmup": scale.updates // 60, "star_lr": 1e-2}
        wanted |= {"match_every": 2}
    else:
        wanted |= {"batch_size": scale.transitions}
    if name == "iql":
        wanted |= {"actor_decay": scale.updates}
    if name == "p_iql":
        wanted |= {"actor_decay": scale.updates - third, "reward_lr": 1e-3, "reward_hidden": widths}
        wanted |= {"reward_updates": third, "reward_ensemble": 1, "reward_batch_size": scale.batch_pairs}
    if name == "pt_iql":
        wanted |= {"actor_decay": scale.updates - third, "reward_updates": third, "reward_width": scale.hidden // 2}
        wanted |= {"reward_heads": 2, "reward_batch_size": scale.batch_pairs // 2, "relabel_stride": 2}
    return algorithm.config(**{**wanted, **choice})


def chosen(agent: str, path: Path = SEARCH_RESULTS) -> dict[str, Any]:
    """What the recorded search chose for an agent, or {} where it has not been searched.

    Raises:
        InputError: the record is damaged.
    """
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("agent") == agent and row.get("chosen") == "yes"]
    try:
        found = {row["settings"] for row in rows}
        if len(found) > 1:
            raise ValueError
        return dict(json.loads(found.pop())) if found else {}
    except (KeyError, ValueError, TypeError):
        raise InputError(f"{path}: damaged, expected one choice of settings for {agent}, in JSON") from None


@dataclass(frozen=True)
class StudyOptions:
    """Compares preference learners on the same labels and seeds; continues where an earlier call was stopped."""

    out: Path | None = None
    """Folder for what is computed; by default runs/preferences, or that with -quick or -search."""
    quick: Flag = False
    """A few minutes: two tasks, two budgets, no noise, few updates."""
    search: Flag = False
    """Search the settings of the agents, on seeds, pairs and episodes of its own, and record what it finds."""
    tasks: tuple[str, ...] = ()
    """Data sets; by default all of the study's (of the search and of --quick: the two quick ones)."""
    agents: tuple[str, ...] = ()
    """Agents; by default all of the study's."""
    behaviour: Path | None = None
    """Folder with the folders hopper and halfcheetah of finished behaviour runs, from which missing data are made."""
    processes: int = 0
    """Stacks that are trained at the same time, on a core each; 0: as many as there are cores. Scores are the same."""

    def __post_init__(self) -> None:
        if self.quick and self.search:
            raise InputError("bench preferences: --quick and --search are both given, expected one of them")
        for name, known in (("tasks", TASKS), ("agents", AGENTS)):
            for given in getattr(self, name):
                if given not in known:
                    raise InputError(f"bench preferences: unknown {name} {given!r}, expected of {', '.join(known)}")
                if getattr(self, name).count(given) > 1:
                    raise InputError(f"bench preferences: {name} names {given} twice, expected different ones")
        if self.processes < 0:
            raise InputError(f"bench preferences: processes is {self.processes}, expected at least 0")

    @property
    def scale(self) -> Scale:
        """How much is computed."""
        return QUICK if self.quick else SEARCH if self.search else FULL

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        name = "preferences-quick" if self.quick else "preferences-search" if self.search else "preferences"
        return self.out or Path("runs") / name

    @property
    def chosen_tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        default: Sequence[str] = QUICK_TASKS if self.quick or self.search else tuple(TASKS)
        return tuple(TASKS[name] for name in self.tasks or default)

    @property
    def command(self) -> str:
        """The command line that does the same."""
        words = ["pbrl bench preferences"]
        words += [f"--{name}" for name in ("quick", "search") if getattr(self, name)]
        for name in ("tasks", "agents"):
            words += [f"--{name} {' '.join(getattr(self, name))}"] if getattr(self, name) else []
        return " ".join(words)


def beta_of(spread: float) -> float:
    """Rationality per unit of score that makes one standard deviation of scores worth one unit of log-odds."""
    return 1.0 / spread if spread > 0 else math.inf
