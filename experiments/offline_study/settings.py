"""What the study compares: data sets, agents, budgets, and the agents' settings.

Settings are the published ones of each task where they are known, and ``SMALL`` says what a small budget changes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

import agents
from pbrl.data.d4rl import SIMULATOR, known_as
from pbrl.data.reference_scores import longest_match
from pbrl.errors import InputError
from pbrl.evaluation import EVALUATION_SEED

from ..command_line.options import Flag

AGENTS = ("edac", "sac_n", "cql", "a2pr", "awac", "iql", "td3_bc", "bc")
"""The longest first, so that two cores end at about the same time."""
TIERS = ("medium", "medium-replay", "medium-expert")
FORM = "hopper_medium-v2.hdf5"
Budget = Literal["small", "paper"]


@dataclass(frozen=True)
class Task:
    """A data set, how it is made or which file it is, and where agents play.

    Attributes:
        dataset: its name.
        env: id of the simulator.
        kind: the published task that settings are taken from, such as "hopper-medium".
        tier: of skill, see ``experiments.datasets.make``; "" for D4RL's files.
        steps: transitions asked for.
        folder: of a finished behaviour run, inside the folder that ``--behaviour`` names.
        file: a D4RL file; "": the data set is one of ours.
    """

    dataset: str
    env: str
    kind: str
    tier: str = ""
    steps: int = 0
    folder: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """As files have it."""
        return self.dataset.replace("/", "-")


TASKS: dict[str, Task] = {
    task.dataset: task
    for name, env in (("hopper", "Hopper-v5"), ("halfcheetah", "HalfCheetah-v5"))
    for task in (Task(f"local/{name}/{tier}-v1", env, f"{name}-{tier}", tier, 100_000, name) for tier in TIERS)
}
QUICK_TASKS: dict[str, Task] = {
    "local/reacher/mixed-v1": Task("local/reacher/mixed-v1", "Reacher-v5", "reacher-mixed", "mixed", 20_000)
}
"""No part of the whole study: it ships with the package, so that a newcomer need not wait hours for data."""


def d4rl_tasks(folder: Path) -> dict[str, Task]:
    """The tasks of D4RL's locomotion files in a folder, by their names; they are played in Gymnasium's v4.

    Raises:
        InputError: no folder, or none of the files in it.
    """
    if not folder.is_dir():
        raise InputError(f"--d4rl-dir is {folder}, expected a folder with D4RL's files, such as {FORM}")
    found: dict[str, Task] = {}
    for path in sorted(folder.glob("*.hdf5")):
        name = path.stem.replace("_", "-").lower()
        env = longest_match(SIMULATOR, known_as(name))
        if env is not None:
            kind = known_as(name)
            found[name] = Task(name, env, kind, file=str(path))
    if not found:
        raise InputError(f"{folder}: no file of {', '.join(SIMULATOR)}, expected D4RL's files, such as {FORM}")
    return found


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes:
        budget: "small", or "paper": as published.
        seeds: the members'.
        updates: of every agent; 0: the published number.
        evaluations: how often the members play; the last time is after the last update.
        episodes: per evaluation.
        hidden: widths of the hidden layers of every network; (): the published ones.
        transitions: per update; 0: the published number.
        play_seed: of the first evaluation episode.
    """

    budget: Budget
    seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    updates: int = 0
    evaluations: int = 20
    episodes: int = 10
    hidden: tuple[int, ...] = ()
    transitions: int = 0
    play_seed: int = 4 * EVALUATION_SEED


PAPER = Scale("paper")
FULL = Scale("small", updates=6000, evaluations=3, hidden=(64, 64), transitions=64)
QUICK = dataclasses.replace(FULL, updates=200, evaluations=2, episodes=2)

UPDATES = {"sac_n": 3_000_000, "edac": 3_000_000}
"""Published numbers of updates that are not ``MOST``."""
MOST = 1_000_000

PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "bc": {},
    "td3_bc": {"": {"alpha": 2.5, "normalize_obs": True}},
    "awac": {"": {"temperature": 1 / 3, "normalize_obs": True}},
    "iql": {"": {"expectile": 0.7, "temperature": 3.0}},
    "cql": {"": {"conservatism": 10.0, "policy_lr": 3e-5, "normalize_obs": True}},
    "sac_n": {
        "halfcheetah": {"critics": 10},
        "walker2d": {"critics": 20},
        "hopper": {"critics": 200},
        "hopper-medium": {"critics": 500},
    },
    "edac": {
        "": {"critics": 10, "diversity": 1.0},
        "halfcheetah-medium-expert": {"diversity": 5.0},
        "walker2d-medium-expert": {"diversity": 5.0},
        "hopper": {"critics": 50},
    },
    "a2pr": {
        "": {"alpha": 2.5, "cloning": 0.5, "vae_weight": 1.0, "normalize_obs": True},
        "hopper": {"gamma": 0.995},
        "hopper-medium": {"cloning": 0.4},
        "halfcheetah-medium": {"alpha": 40.0, "cloning": 1.0},
        "walker2d-medium": {"cloning": 1.0, "vae_weight": 1.5},
    },
}
"""Agent -> "" for all tasks, a robot, or a task of it -> settings, of which the later kinds come before the earlier.

From the authors' code (of SAC-N, EDAC, AWAC and CQL: from CORL's configurations), where other than the agents' own
defaults or tuned by task. A2PR has published three tasks' settings; the others get its program's defaults."""

SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "bc": {},
    "td3_bc": {},
    "awac": {},
    "iql": {},
    "cql": {"": {"policy_lr": 3e-4, "actions": 4}},
    "sac_n": {"hopper": {"critics": 10}, "hopper-medium": {"critics": 10}},
    "edac": {"hopper": {"critics": 10}},
    "a2pr": {"": {"vae_hidden": (64, 64)}},
}
SMALL_CHANGES = (
    "A small budget changes what is published in this: all learn at 1e-3 in place of 3e-4 and normalise observations; "
    "target critics follow at 0.02 in place of 0.005, at which values had got but a tenth of the way after 3,000 "
    "updates of TD3+BC and IQL (a trial of other seeds, 100 and 101); CQL's policy learns at 3e-4 in place of 3e-5, "
    "with 3 x 4 actions in the gap in place of 3 x 10; A2PR's autoencoder is as narrow as the rest; "
    "and on Hopper SAC-N has 10 critics in place of 200 to 500, and EDAC 10 in place of 50. After a first run of these "
    "seeds with 2,000 updates, too few to tell much, the number of updates was raised and nothing else was changed."
)
"""What ``SMALL`` and ``agent_config`` do, beside widths and batch size, in words."""


def of_kind(table: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """The settings of a task: those for all, then those of its robot, then its own, whatever the version."""
    own = re.sub(r"-v\d+$", "", kind)
    return {name: value for key in ("", own.split("-")[0], own) for name, value in table.get(key, {}).items()}


def updates_of(agent: str, scale: Scale) -> int:
    """How many updates an agent makes."""
    return scale.updates or UPDATES.get(agent, MOST)


def agent_config(agent: str, kind: str, scale: Scale) -> Any:
    """An agent's settings on a task."""
    algorithm = agents.find(agent)
    wanted = of_kind(PUBLISHED[agent], kind)
    if scale.budget == "small":
        wanted |= {"lr": 1e-3, "normalize_obs": True} | of_kind(SMALL[agent], kind)
        wanted |= {} if agent == "bc" else {"target_rate": 0.02}
    if scale.hidden:
        wanted["hidden"] = scale.hidden
    if scale.transitions:
        wanted["batch_size"] = scale.transitions
    if agent == "iql":
        wanted["actor_decay"] = updates_of(agent, scale)
    return algorithm.config(**wanted)


def changed(agent: str, kind: str, scale: Scale) -> dict[str, Any]:
    """The settings on a task that are not the agent's defaults."""
    config, default = agent_config(agent, kind, scale), agents.find(agent).config()
    names = [field.name for field in dataclasses.fields(config)]
    return {name: getattr(config, name) for name in names if getattr(config, name) != getattr(default, name)}


@dataclass(frozen=True)
class OfflineOptions:
    """Trains offline agents on the same data, five seeds in a stack; continues where an earlier call was stopped."""

    out: Path | None = None
    """Folder for what is computed; by default runs/offline, or that with -quick, -d4rl or -paper."""
    quick: Flag = False
    """A minute or two: one task, the data set that ships with the package, and few updates."""
    tasks: tuple[str, ...] = ()
    """Data sets; by default all of the study's (of --quick: the shipped one), or all in the folder of --d4rl-dir."""
    agents: tuple[str, ...] = ()
    """Agents; by default all of the study's."""
    behaviour: Path | None = None
    """Folder with the folders hopper and halfcheetah of finished behaviour runs, from which missing data are made."""
    d4rl_dir: Annotated[Path | None, tyro.conf.arg(name="d4rl-dir")] = None
    """Folder with D4RL's own files, to learn from in place of ours; they are played in Gymnasium's v4 tasks."""
    budget: Budget = "small"
    """small: minutes per agent and data set; paper: the published updates and widths, for those with a GPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train; on cuda one stack at a time."""
    processes: int = 0
    """Stacks that are trained at the same time, on a core each; 0: as many as there are cores. Scores are the same."""

    def __post_init__(self) -> None:
        if self.quick and self.budget == "paper":
            raise InputError("bench offline: --quick and --budget paper are both given, expected one of them")
        if self.d4rl_dir is not None and self.behaviour is not None:
            raise InputError("bench offline: --behaviour makes no data for --d4rl-dir, expected one of them")
        for name, known in (("tasks", tuple(self.known_tasks)), ("agents", AGENTS)):
            for given in getattr(self, name):
                if given not in known:
                    raise InputError(f"bench offline: unknown {name} {given!r}, expected of {', '.join(known)}")
                if getattr(self, name).count(given) > 1:
                    raise InputError(f"bench offline: {name} names {given} twice, expected different ones")
        if self.processes < 0:
            raise InputError(f"bench offline: processes is {self.processes}, expected at least 0")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("bench offline: device is 'cuda', but torch finds no GPU here, expected cpu")
        if self.device == "cuda" and self.processes > 1:
            raise InputError(f"bench offline: processes is {self.processes} on cuda, expected 1 stack at a time")

    @property
    def scale(self) -> Scale:
        """How much is computed."""
        return QUICK if self.quick else PAPER if self.budget == "paper" else FULL

    @property
    def known_tasks(self) -> dict[str, Task]:
        """The tasks that may be named."""
        return TASKS | QUICK_TASKS if self.d4rl_dir is None else d4rl_tasks(self.d4rl_dir)

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        endings = {"-d4rl": self.d4rl_dir is not None, "-quick": self.quick, "-paper": self.budget == "paper"}
        return self.out or Path("runs") / f"offline{''.join(ending for ending, on in endings.items() if on)}"

    @property
    def chosen_tasks(self) -> tuple[Task, ...]:
        """The tasks."""
        known = self.known_tasks
        default = known if self.d4rl_dir is not None else QUICK_TASKS if self.quick else TASKS
        return tuple(known[name] for name in self.tasks or default)

    @property
    def command(self) -> str:
        """The command line that does the same."""
        words = ["pbrl bench offline"]
        words += ["--quick"] if self.quick else []
        words += [f"--d4rl-dir {self.d4rl_dir}"] if self.d4rl_dir is not None else []
        words += [f"--budget {self.budget}"] if self.budget != "small" else []
        words += [f"--device {self.device}"] if self.device != "cpu" else []
        for name in ("tasks", "agents"):
            words += [f"--{name} {' '.join(getattr(self, name))}"] if getattr(self, name) else []
        return " ".join(words)
