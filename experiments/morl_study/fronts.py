"""Training of fronts: a first stage that all ways share, and what each way makes of it.

The first stage is the same whatever follows, bit for bit, so it is trained once and every way goes on from its
checkpoint. All seeds of a task are members of one stack.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import envs
from agents.multi_objective.c_morl import CMORL
from pbrl import loops, pareto, rng
from pbrl.evaluation import rollout
from pbrl.loops import Playing
from pbrl.members import sweep
from pbrl.parts.actor_critic import ActorCritic
from pbrl.records import checkpoint, environment

from .. import kept
from .settings import EXTENSIONS, SWEEP, Plan

VERSIONS = ("pbrl", "python", "torch", "numpy", "gymnasium", "mujoco")
START = "start"
"""The piece that is the first stage alone."""

Floats = NDArray[np.float64]
Result = dict[str, Any]


def pieces(plan: Plan) -> list[str]:
    """The names of what follows the first stage."""
    return [f"{plan.name}/{extension}" for extension in EXTENSIONS]


def description(plan: Plan, piece: str) -> dict[str, Any]:
    """All that decides a piece but the code, as JSON has it."""
    config = dataclasses.asdict(plan.config("none" if piece == START else piece))
    return kept.plain({"piece": piece, "config": config, **dataclasses.asdict(plan)})


def path_of(plan: Plan, piece: str, folder: Path) -> Path:
    """The file that a piece leaves behind."""
    return folder / "pieces" / f"{plan.name}-{piece}.json"


def finished(plan: Plan, piece: str, folder: Path) -> Result | None:
    """What an earlier call left behind of a piece.

    Raises:
        InputError: the file is damaged.
    """
    return kept.find(path_of(plan, piece, folder), description(plan, piece))


def work(name: str, tick: Callable[[float], None], plans: Mapping[str, Plan], folder: Path) -> str:
    """Do the piece ``task/piece`` and write its file; ``tick(seconds)`` at the end."""
    task, _, piece = name.rpartition("/")
    plan, began = plans[task], time.perf_counter()
    result = start(plan, folder) if piece == START else extend(plan, piece, folder)
    machine = environment.describe()
    result |= {
        "seconds": round(time.perf_counter() - began, 1),
        "description": description(plan, piece),
        "versions": {package: machine[package] for package in VERSIONS},
        "commit": machine["commit"],
        "threads": torch.get_num_threads(),
    }
    kept.save(path_of(plan, piece, folder), result)
    tick(result["seconds"])
    return name


def start(plan: Plan, folder: Path) -> Result:
    """The first stage; its checkpoint is kept."""
    learner, playing = _made(plan, "none")
    growth = _learn(plan, learner, playing, plan.first_updates)
    playing.env.close()
    checkpoint.save(
        _checkpoint(plan, folder),
        learner,
        agent="c_morl",
        config=_fingerprint(plan),
        collected=playing.state_dict(),
        env_steps=playing.env_steps,
    )
    return {"growth": growth}


def extend(plan: Plan, extension: str, folder: Path) -> Result:
    """The rest of the run from the first stage's checkpoint, and what the policies are worth in episodes of their own.

    Raises:
        InputError: the checkpoint is missing or damaged.
    """
    learner, playing = _made(plan, extension)
    checkpoint.load(_checkpoint(plan, folder), learner, agent="c_morl", config=_fingerprint(plan))
    checkpoint.load_collected(_checkpoint(plan, folder), playing)
    if extension != "none":
        learner.extend()
    growth = _learn(plan, learner, playing, plan.updates)
    playing.env.close()
    checkpoint.save(
        folder / "ends" / f"{plan.name}-{extension}", learner, agent="c_morl", config=_fingerprint(plan, extension)
    )
    sets = {EXTENSIONS[extension]: _archived(plan, learner)}
    if extension == "none":
        sets = {SWEEP: _last(plan, learner), **sets}
    return {"growth": growth, "sets": sets, "env_steps": playing.env_steps, "updates": learner.updates}


def _made(plan: Plan, extension: str) -> tuple[CMORL, Playing]:
    members = sweep(plan.config(extension), plan.scale.seeds)
    env = envs.make(plan.task.env, len(members) * plan.scale.policies * members.shared.environments)
    learner = CMORL(env.spec, members)
    return learner, Playing(env, learner.keys)


def _learn(plan: Plan, learner: CMORL, playing: Playing, updates: int) -> list[Result]:
    """Go on to so many updates; what the archive holds on the way, by its own account."""
    found = []
    every = max(1, plan.updates // plan.scale.measurements)
    for _ in loops.on_policy(learner, playing, updates, every=every):
        archive = learner.archive
        points = [archive.points[p][archive.used[p]].double().numpy() for p in range(len(learner.keys))]
        volumes = [pareto.hypervolume(x, plan.task.reference) if len(x) else 0.0 for x in points]
        found.append({"env_steps": playing.env_steps, "hypervolume": volumes, "points": [len(x) for x in points]})
    return found


def _archived(plan: Plan, learner: CMORL) -> list[Result]:
    """For each seed, the archive's policies: what it takes them for, and what they are worth when measured."""
    used = learner.archive.used
    count = max(1, int(used.sum(1).max()))
    rows = torch.arange(count).expand(len(used), count)
    measured = _measure(plan, learner.policies(rows), count)
    told = learner.archive.row(rows)[0].double().numpy()
    mine = used[:, :count].numpy()
    return [
        _listed({"told": told[p], **{name: x[p] for name, x in measured.items()}}, mine[p]) for p in range(len(used))
    ]


def _last(plan: Plan, learner: CMORL) -> list[Result]:
    """For each seed, the policies in training at the end: one for each of the fixed weights."""
    count, seeds = plan.scale.policies, len(learner.keys)
    measured = _measure(plan, learner.core, count)
    told = learner.returns.mean.double().reshape(count, seeds, -1).transpose(0, 1).numpy()
    every = np.ones(count, dtype=bool)
    return [_listed({"told": told[p], **{name: x[p] for name, x in measured.items()}}, every) for p in range(seeds)]


def _listed(tables: Mapping[str, Floats], mine: NDArray[np.bool_]) -> Result:
    return {name: table[mine].tolist() for name, table in tables.items()}


def _measure(plan: Plan, stack: ActorCritic, count: int) -> dict[str, Floats]:
    """[P, count, K] mean discounted returns of a stack of count P policies in new episodes.

    ``measured`` acting greedily; on some tasks ``drawn``, too, with actions drawn as in training.
    """
    found = {"measured": _played(plan, stack, count, plan.episodes, None)}
    if plan.task.drawn_episodes:
        keys = rng.fold(stack.keys, "measured")
        found["drawn"] = _played(plan, stack, count, plan.task.drawn_episodes, keys)
    return found


def _played(plan: Plan, stack: ActorCritic, count: int, episodes: int, keys: Tensor | None) -> Floats:
    seeds = len(plan.scale.seeds)
    env = envs.make(plan.task.env, count * seeds * episodes)
    try:
        scores = rollout(
            stack.act,
            env,
            members=count * seeds,
            episodes=episodes,
            seed=plan.scale.play_seed,
            gamma=plan.task.gamma,
            stochastic_keys=keys,
        )
    finally:
        env.close()
    return np.asarray(scores.mean.reshape(count, seeds, -1).transpose(1, 0, 2))


def still(plan: Plan) -> list[float]:
    """[K] the mean return of doing nothing: action 0 in every step (of choices, the first one)."""
    env = envs.make(plan.task.env, plan.episodes)
    try:
        size = env.spec.act_size

        def act(obs: Tensor, key: Tensor | None = None) -> Tensor:  # noqa: ARG001  as agents have it
            return torch.zeros(*obs.shape[:2], size)

        scores = rollout(act, env, members=1, episodes=plan.episodes, seed=plan.scale.play_seed, gamma=plan.task.gamma)
    finally:
        env.close()
    return [float(x) for x in scores.mean[0]]


def _checkpoint(plan: Plan, folder: Path) -> Path:
    return folder / "starts" / plan.name


def _fingerprint(plan: Plan, piece: str = START) -> str:
    return hashlib.sha256(json.dumps(description(plan, piece), sort_keys=True).encode()).hexdigest()
