"""What the study compares: tasks, agents, how they go online, and how much is computed."""

from __future__ import annotations

from dataclasses import dataclass

AGENTS = ("ro2o", "uni_o4", "cal_ql", "fam_o2o", "awac", "iql")
"""The agents, the longest first, so that two cores end at about the same time."""
PROTOCOL: dict[str, dict[str, object]] = {
    "iql": {"replay": "prefill"},
    "awac": {"replay": "prefill"},
    "fam_o2o": {"replay": "prefill"},
    "cal_ql": {"replay": "mixed", "replay_share": 0.5},
    "ro2o": {"replay": "empty"},
    "uni_o4": {},
}
"""Where each agent's updates online draw from, as its authors have it; Uni-O4 learns from its own rollouts alone."""


@dataclass(frozen=True)
class Task:
    """A data set, how it is made, and how much of it the small budget learns.

    Attributes:
        dataset: its name.
        env: Gymnasium id, or the point mass.
        tier: of skill, see ``experiments.datasets.make``.
        steps: transitions asked for.
        updates: on data.
        env_steps: of each member online, with an update for each (Uni-O4: passes over rollouts).
        episodes: per evaluation.
        folder: of a finished behaviour run, inside the folder that ``--behaviour`` names; "": none is needed.
    """

    dataset: str
    env: str
    tier: str
    steps: int
    updates: int
    env_steps: int
    episodes: int
    folder: str = ""


def _locomotion(name: str, env: str, tier: str, count: int) -> Task:
    return Task(f"local/{name}/{tier}-v1", env, tier, 100_000, count, count, 5, name)


TASKS: dict[str, Task] = {
    task.dataset: task
    for task in (
        Task("local/pointmass/medium-v1", "PointMass-v0", "medium", 20_000, 1000, 2500, 10),
        Task("local/reacher/mixed-v1", "Reacher-v5", "mixed", 20_000, 1000, 2500, 10),
        _locomotion("hopper", "Hopper-v5", "medium", 50_000),
        _locomotion("halfcheetah", "HalfCheetah-v5", "medium-replay", 10_000),
    )
}
QUICK_TASKS = ("local/pointmass/medium-v1",)


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    Attributes:
        seeds: the members' seeds.
        evaluations: how often the members play online, beside the time before the first step.
        small: small networks and batches and the tasks' counts; else those that each agent's authors publish.
        share: of the tasks' counts.
    """

    seeds: tuple[int, ...] = (20, 21, 22, 23, 24)
    evaluations: int = 10
    small: bool = True
    share: float = 1.0

    def counts(self, agent: str, task: Task) -> tuple[int, int]:
        """Updates on data and environment steps."""
        if self.small:
            return round(task.updates * self.share), round(task.env_steps * self.share)
        return published_counts(agent)


def published_counts(agent: str) -> tuple[int, int]:
    """Updates on data and environment steps of an agent's authors."""
    return PUBLISHED.get(agent, (1_000_000, 1_000_000))


PUBLISHED = {"ro2o": (2_500_000, 250_000), "uni_o4": (2_010_000, 1_000_000)}
"""Updates and environment steps of those that do not make a million of each."""
FULL = Scale()
QUICK = Scale(evaluations=5, share=0.2)
PAPER = Scale(evaluations=100, small=False)
"""Days of two cores."""

_NETS: dict[str, object] = {"lr": 1e-3, "hidden": (64, 64), "batch_size": 128, "normalize_obs": True}
_UNI_O4: dict[str, object] = {
    "v_hidden": (64, 64),
    "q_hidden": (64, 64),
    "model_hidden": (64, 64),
    "models": 4,
    "elites": 3,
    "model_steps": 50,
    "online_lr": 3e-4,
    "online_critic_lr": 1e-3,
    "online_clip": 0.2,
    "minibatch_size": 100,
}
_SMALL: dict[str, dict[str, object]] = {
    "iql": {},
    "fam_o2o": {},
    "awac": {},
    "cal_ql": {"policy_lr": 3e-4, "actions": 4, "backup_actions": 4},
    "ro2o": {"critics": 4, "perturbations": 2},
    "uni_o4": _UNI_O4,
}
"""What the small budget sets beside widths, batch and learning rate."""


def settings(agent: str, task: Task, scale: Scale) -> dict[str, object]:
    """An agent's settings that are not its defaults."""
    updates, env_steps = scale.counts(agent, task)
    every = max(1, env_steps // scale.evaluations)
    wanted: dict[str, object] = {"actor_decay": 0} if agent in ("iql", "fam_o2o") else {}
    if scale.small:
        wanted |= {**_NETS, **_SMALL[agent]}
        if agent == "ro2o":  # falls as far as over the published run
            wanted |= {"ood_decay": 0.9 / (updates + env_steps)}
        if agent == "uni_o4":  # half of the updates on data for each stage; a rollout between evaluations
            fitting, environments = updates // 2, 2
            improving = updates - fitting
            wanted |= {"fitting_updates": fitting, "improve_updates": improving, "select_every": improving // 10}
            wanted |= {"environments": environments, "steps": max(1, every // environments)}
    return wanted


def words(agent: str, task: Task, scale: Scale) -> list[str]:
    """The words after ``pbrl train`` that train a stack of the study."""
    updates, env_steps = scale.counts(agent, task)
    given: dict[str, object] = {
        "dataset": task.dataset,
        "updates": updates,
        "eval_every": updates,
        "env_steps": env_steps,
        "eval_every_steps": max(1, env_steps // scale.evaluations),
        "episodes": task.episodes if scale.small else 10,
        "seed": scale.seeds,
        **PROTOCOL[agent],
        **settings(agent, task, scale),
    }
    if not scale.small:
        given["checkpoint_every"] = updates // 100
    return [agent, *(word for name, value in given.items() for word in _option(name, value))]


def _option(name: str, value: object) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    return ["--" + name.replace("_", "-"), *(str(each) for each in values)]
