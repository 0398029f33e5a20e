"""One stack of the study: all members of an agent on a task are trained, play and judge, and leave a file behind.

A member trains as it would alone. So members that a study has more than an earlier one are trained as a stack of their
own, and what is known of the others stays.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import agents
import envs
from pbrl import evaluation, loops, statistics
from pbrl.agent import Agent
from pbrl.data.reference_scores import normalise
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members
from pbrl.play.memory import Remembering
from pbrl.records import environment

from .. import kept
from ..held_out import difference
from ..reports.rows import GAPS
from .questions import Questions, ask, own_pairs
from .settings import GRIDS, LABELS, PROBABILISTIC, Condition, Scale, Task, agent_config, chosen, conditions

TOGETHER = 10  # episodes of a member that are played at once, at most
BINS = 10  # of predicted probabilities
WHO = ("seeds", "budgets", "noisy_budget")  # parts of the scale that say which members there are, not how they train
OWN = ("returns", "label_errors", "accuracy", "gaps", "odds")  # what a result tells of every member
MADE = ("seconds", "versions", "commit", "device", "threads")  # what it tells of how they came about
VERSIONS = ("pbrl", "python", "torch", "numpy", "gymnasium", "mujoco")

Floats = NDArray[np.float64]
Member = tuple[int, Condition, int]
"""Place of the settings, condition and seed."""


@dataclass(frozen=True)
class Plan:
    """What one stack is.

    Attributes:
        agent: name of the algorithm.
        task: the data set.
        scale: how much is computed.
        settings: of the agent, beside the study's own; several are tried side by side (in a search).
        members: who is trained.
    """

    agent: str
    task: Task
    scale: Scale
    settings: tuple[Mapping[str, Any], ...]
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """As files have it."""
        return f"{self.task.dataset.replace('/', '-')}-{self.agent}"

    def population(self) -> Members[Any]:
        """The members' configs and seeds."""
        configs = [agent_config(self.agent, self.scale, choice) for choice in self.settings]
        places, _, seeds = zip(*self.members)
        return Members(tuple(configs[place] for place in places), tuple(seeds))

    def description(self, rows: str) -> dict[str, Any]:
        """All that decides how a member trains but the code, as JSON has it; ``rows`` is the data's fingerprint."""
        configs = [dataclasses.asdict(agent_config(self.agent, self.scale, choice)) for choice in self.settings]
        scale = {name: value for name, value in dataclasses.asdict(self.scale).items() if name not in WHO}
        own = {"agent": self.agent, "configs": configs, "task": dataclasses.asdict(self.task)}
        return kept.plain({**own, "scale": scale, "rows": rows})


def plan(agent: str, task: Task, scale: Scale, *, search: bool) -> Plan:
    """The stack of an agent on a task: with the settings that were chosen, or with all of its grid."""
    settings = tuple(GRIDS[agent]) or ({},) if search else (chosen(agent),)
    whole = itertools.product(range(len(settings)), conditions(agent, scale), scale.seeds)
    return Plan(agent, task, scale, settings, tuple(whole))


def paths(one: Plan, folder: Path) -> Iterator[Path]:
    """The files that a stack leaves behind: ``NAME.json``, and ``NAME-2.json`` and on for members added later."""
    yield folder / "stacks" / f"{one.name}.json"
    for place in itertools.count(2):
        yield folder / "stacks" / f"{one.name}-{place}.json"


def trained(one: Plan, folder: Path, rows: str) -> dict[Member, tuple[dict[str, Any], int]]:
    """What earlier calls left behind of the plan's members: the result that tells of each, and its place there.

    Raises:
        InputError: a file is damaged.
    """
    known: dict[Member, tuple[dict[str, Any], int]] = {}
    for path in itertools.takewhile(Path.is_file, paths(one, folder)):
        found = kept.find(path, one.description(rows)) or {"members": []}
        for index, (place, labels, budget, noise, seed) in enumerate(found["members"]):
            known[place, Condition(labels, budget, noise), seed] = found, index
    return {member: known[member] for member in one.members if member in known}


def left(one: Plan, folder: Path, rows: str) -> Plan:
    """The plan without the members that earlier calls have trained on the same rows of data (a fingerprint)."""
    known = trained(one, folder, rows)
    return dataclasses.replace(one, members=tuple(member for member in one.members if member not in known))


def finished(one: Plan, folder: Path, rows: str) -> dict[str, Any] | None:
    """The result of all of the plan's members, once they are trained; ``made`` tells how each came about."""
    known = trained(one, folder, rows)
    if len(known) < len(one.members):
        return None
    places = [known[member] for member in one.members]
    first = places[0][0]
    shared = {name: value for name, value in first.items() if name not in MADE}
    own = {name: first[name] and [found[name][index] for found, index in places] for name in OWN}
    made = [{"members": len(found["members"]), **{name: found[name] for name in MADE}} for found, _ in places]
    return {**shared, **own, "members": listed(one.members), "made": made}


def listed(members: Sequence[Member]) -> list[list[Any]]:
    """Members as JSON has them."""
    return [[place, *dataclasses.astuple(condition), seed] for place, condition, seed in members]


def work(name: str, tick: Callable[[float, float], None], plans: Mapping[str, Plan], folder: Path) -> str:
    """Train the stack of this name and write its file; ``tick(seconds, mean score)`` at the end."""
    one = plans[name]
    result = train(one, ask(one.task, one.scale, folder))
    description = result["description"]
    kept.save(next(path for path in paths(one, folder) if kept.find(path, description) is None), result)
    last = np.asarray(result["returns"], dtype=np.float64)[:, -1]
    tick(result["seconds"], float(np.nanmean(normalise(last, result["reference"]))))
    return name


def train(one: Plan, asked: Questions) -> dict[str, Any]:
    """A stack's members trained in lock-step and judged: plain numbers, as JSON has them (NaN where one diverged)."""
    began = time.perf_counter()
    scale, members, rows = one.scale, one.population(), one.members
    source = source_of(asked, rows)
    learner = agents.find(one.agent).make(asked.dataset.spec, members)
    if not isinstance(learner, Agent):
        raise InputError(f"{one.agent} does not act, expected an agent that does")
    episodes = min(one.task.episodes, scale.most_episodes)
    env = envs.make(asked.dataset.env, len(members) * min(episodes, TOGETHER))
    updates, returns = [], []
    try:
        for _ in loops.offline(learner, source, scale.updates, every=scale.updates // scale.evaluations):
            played = evaluation.rollout(
                learner if isinstance(learner, Remembering) else learner.act,
                env,
                members=len(members),
                episodes=episodes,
                seed=scale.play_seed,
            )
            updates.append(learner.updates)
            returns.append(played.mean)
    finally:
        env.close()
    machine = environment.describe()
    return {
        "description": one.description(asked.dataset.fingerprint),
        "settings": [dict(choice) for choice in one.settings],
        "members": listed(rows),
        "updates": updates,
        "returns": np.stack(returns, axis=1).tolist(),
        "label_errors": [label_errors(asked, condition, seed) for _, condition, seed in rows],
        **judged(one, asked, difference(learner, asked.held_out)),
        "episodes": episodes,
        "reference": list(asked.reference),
        "data": {"name": asked.dataset.name, "env": asked.dataset.env, "rows": asked.dataset.fingerprint},
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {name: machine[name] for name in VERSIONS},
        "commit": machine["commit"],
        "device": "cpu",
        "threads": torch.get_num_threads(),
    }


def source_of(asked: Questions, rows: Sequence[Member]) -> Source:
    """The members' data: the same transitions and pairs for all, each with its own answers to its own share."""
    if rows[0][1].labels not in LABELS:
        return Source.of(asked.dataset)
    told = {}
    for _, condition, seed in rows:
        kind = dataclasses.replace(condition, budget=0), seed
        if kind not in told:
            told[kind] = asked.answers(condition, seed)
    answers = [told[dataclasses.replace(condition, budget=0), seed] for _, condition, seed in rows]
    source = Source.of(asked.dataset, answers)
    return source.with_pairs([own_pairs(condition, seed, len(asked.pool)) for _, condition, seed in rows])


def label_errors(asked: Questions, condition: Condition, seed: int) -> float:
    """The share of a member's labels that name the segment of the lower score."""
    if condition.labels not in LABELS or condition.noise == "none":
        return 0.0
    mine = own_pairs(condition, seed, len(asked.pool))
    told = asked.answers(condition, seed).label[mine]
    truth = asked.answers(dataclasses.replace(condition, noise="none"), seed).label[mine]
    return float((told != truth).double().mean())


def judged(one: Plan, asked: Questions, delta: Floats | None) -> dict[str, Any]:
    """How members judge held-out pairs, given ``delta`` [P, K] by how much they hold the second to be better.

    Accuracy is by the labeler's scores, without faults. Odds are compared with those of the labeler that the member
    has learned from, faults and all: by bins of the probability that the member gives to its own choice (count, sum of
    predictions, sum of the labeler's probabilities).
    """
    if delta is None or one.agent not in agents_that_learn_labels():
        return {"accuracy": None, "gaps": None, "odds": None}
    accuracy, by_gap, odds = [], [], []
    truth = {labels: asked.difference(labels) for labels in LABELS}
    p2 = {}
    for (_, condition, _), mine in zip(one.members, delta):
        whole = statistics.accuracy_by_gap(mine, truth[condition.labels], bins=1)
        parts = statistics.accuracy_by_gap(mine, truth[condition.labels], bins=len(GAPS))
        accuracy.append(float(whole.accuracy[0]))
        by_gap.append({"high": parts.high.tolist(), "accuracy": parts.accuracy.tolist(), "pairs": parts.count.tolist()})
        kind = dataclasses.replace(condition, budget=0)
        if kind not in p2:
            p2[kind] = asked.probability(condition)
        odds.append(reliability(mine, p2[kind]))
    return {"accuracy": accuracy, "gaps": by_gap, "odds": odds if one.agent in PROBABILISTIC else None}


def agents_that_learn_labels() -> tuple[str, ...]:
    """Those of the grid that take labels."""
    return tuple(name for name in GRIDS if name not in ("bc", "iql"))


def reliability(delta: Floats, label: Floats) -> list[list[float]]:
    """[3, BINS] count, sum of sigmoid(|delta|), and sum of P(the labeler agrees), by bins of the prediction.

    Predictions that are not finite, of a member that diverged, are left out.
    """
    delta, label = delta[np.isfinite(delta)], label[np.isfinite(delta)]
    sure = 1.0 / (1.0 + np.exp(-np.abs(delta)))  # in [0.5, 1]
    agrees = np.where(delta >= 0, label, 1.0 - label)
    place = np.clip(((sure - 0.5) * 2 * BINS).astype(int), 0, BINS - 1)
    return [np.bincount(place, weights, BINS).tolist() for weights in (np.ones_like(sure), sure, agrees)]
