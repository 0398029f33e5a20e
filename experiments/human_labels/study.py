"""Cross-validated agreement with human answers.

The pairs of a file are divided into folds that share no step of the data (so no segment either). A member learns from
all folds but one and judges the pairs of that one; **all folds, seeds and both kinds of answers are one stack**. The
script answers the same pairs by their returns: members that learned from either are compared with both.

Agreement is the share of decisive answers that a member sides with. Members judge by the difference of two scores, so
that it does not matter in which order a pair is shown, and a habit of naming the first gains nothing.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

import agents
import envs
from pbrl import evaluation, loops, rng
from pbrl.agent import Agent
from pbrl.data import Preferences, load_human
from pbrl.data.files import replacing
from pbrl.data.leaks import folds
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.members import Members
from pbrl.records import environment
from pbrl.statistics import wilson

from .. import kept, side_by_side
from ..command_line.problem import spec_of
from ..held_out import difference
from ..reports.human_tables import agreement_table, read_human
from ..reports.rows import write_rows
from ..reports.score_tables import console_table
from .settings import AGENTS, FILES, SIMULATORS, HumanOptions, agent_config

VERSIONS = ("pbrl", "python", "torch", "numpy", "gymnasium", "mujoco")
RESULTS = "human_labels.csv"


@dataclass(frozen=True, eq=False)
class Answers:
    """One task's answers.

    Attributes:
        by: who -> the answers; all to the same pairs.
        fold: [N] of each pair.
    """

    by: Mapping[str, Preferences]
    fold: Tensor


def human_labels(options: HumanOptions) -> None:
    """Train what is not trained yet, write ``human_labels.csv`` and print it.

    Raises:
        InputError: files that are missing or do not belong together, or a folder that cannot be written.
        KeyboardInterrupt: Ctrl-C, with a word on what is kept.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    answers = {task: read(options, task) for task in options.tasks}
    probe = options.out / ".writable"
    with replacing(probe) as temporary:
        temporary.touch()
    probe.unlink()
    present = [name for name in options.agents or AGENTS if name in agents.names()]
    if absent := [name for name in options.agents or AGENTS if name not in present]:
        console.print(f"not built yet, hence left out: {', '.join(absent)}", highlight=False)
    names = [f"{task} {agent}" for agent in present for task in answers]
    left = [name for name in names if _finished(name, answers, options) is None]
    if len(left) < len(names):
        console.print(f"{len(names) - len(left)} of {len(names)} stacks are there already", highlight=False)
    try:
        if left:
            processes = min(options.processes or side_by_side.cores(), len(left))

            def tick(name: str, seconds: float) -> None:
                console.print(f"{name}: {seconds:.0f} s", highlight=False)

            side_by_side.run(work, left, (options,), tick, processes=processes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stacks that are done are kept, the same command goes on from there") from None
    results = [found for name in names if (found := _finished(name, answers, options)) is not None]
    rows = [row for task, told in answers.items() for row in script_rows(task, told)]
    rows += [row for one in results for row in learner_rows(one, answers[one["task"]])]
    write_rows(options.out / RESULTS, rows)
    table = agreement_table(read_human(options.out / RESULTS))
    console.print(console_table(table))
    console.print(table.caption, style="dim", highlight=False)


def read(options: HumanOptions, task: str) -> Answers:
    """The answers of people and of the script, and the folds of the pairs.

    Raises:
        InputError: a file is missing or damaged, other pairs in the two, or too few pairs for so many folds.
    """
    by = {who: load_human(options.folder / task / name, who=who) for who, name in FILES.items()}
    prints = {answer.pairs.segments.fingerprint for answer in by.values()}
    if len(prints) > 1:
        raise InputError(
            f"{options.folder / task}: {' and '.join(FILES.values())} have different pairs, expected equal"
        )
    return Answers(by, folds(by["human"].pairs, options.folds, rng.keys([0])[0]))


def work(name: str, tick: Callable[[float], None], options: HumanOptions) -> str:
    """Train the stack of a task and agent and write its file."""
    task, agent = name.split()
    answers = read(options, task)
    result = train(task, agent, answers, options)
    kept.save(_path(name, options), result)
    tick(result["seconds"])
    return name


def train(task: str, agent: str, answers: Answers, options: HumanOptions) -> dict[str, Any]:
    """What a stack's members say about the pairs that they have not learned from, and what they are paid."""
    began = time.perf_counter()
    rows = _members(options)
    config = agent_config(agent, options)
    members: Members[Any] = Members((config,) * len(rows), tuple(seed for _, _, seed in rows))
    told = [answers.by[who] for who, _, _ in rows]
    source = Source.of(None, told).with_pairs([(answers.fold != fold).nonzero().squeeze(1) for _, fold, _ in rows])
    learner = agents.find(agent).make(spec_of(None, told[0]), members)
    for _ in loops.offline(learner, source, options.updates, every=options.updates):
        pass
    delta = difference(learner, told[0].pairs)
    if delta is None:
        raise InputError(f"{agent} does not judge segments, expected an agent that does")
    machine = environment.describe()
    return {
        "description": _description(task, agent, answers, options),
        "task": task,
        "agent": agent,
        "predictions": held_out(delta, answers.fold, rows, options.seeds),
        "returns": played(learner, SIMULATORS[task], rows, options) if isinstance(learner, Agent) else {},
        "seconds": round(time.perf_counter() - began, 1),
        "versions": ", ".join(f"{name} {machine[name]}" for name in VERSIONS),
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }


def held_out(
    delta: NDArray[np.float64], fold: Tensor, rows: Sequence[tuple[str, int, int]], seeds: int
) -> dict[str, list[list[float]]]:
    """who -> [seeds, N] each pair's judgement by the member that has not seen it, from all judgements [P, N]."""
    made = {who: np.full((seeds, delta.shape[1]), np.nan) for who in FILES}
    for mine, (who, number, seed) in zip(delta, rows):
        out = (fold == number).numpy()
        made[who][seed, out] = mine[out]
    return {who: values.tolist() for who, values in made.items()}


def played(
    learner: Agent, env_id: str, rows: Sequence[tuple[str, int, int]], options: HumanOptions
) -> dict[str, list[float]]:
    """who -> [seeds] mean return over folds and episodes."""
    if not options.episodes:
        return {}
    env = envs.make(env_id, len(rows) * options.episodes)
    try:
        mean = evaluation.rollout(learner, env, members=len(rows), episodes=options.episodes).mean
    finally:
        env.close()
    return {
        who: [
            float(np.mean([mean[i] for i, row in enumerate(rows) if row[0] == who and row[2] == seed]))
            for seed in range(options.seeds)
        ]
        for who in FILES
    }


def _members(options: HumanOptions) -> list[tuple[str, int, int]]:
    """Who is learned from, which fold is held out, and the seed, of each member."""
    return [(who, fold, seed) for who in FILES for fold in range(options.folds) for seed in range(options.seeds)]


def _description(task: str, agent: str, answers: Answers, options: HumanOptions) -> dict[str, Any]:
    members = {name: getattr(options, name) for name in ("seeds", "folds", "updates", "episodes")}
    labels = {who: answer.label.tolist() for who, answer in answers.by.items()}
    data = {"segments": answers.by["human"].pairs.segments.fingerprint, "labels": labels}
    config = dataclasses.asdict(agent_config(agent, options))
    return kept.plain({"task": task, "agent": agent, "config": config, "data": data, **members})


def _path(name: str, options: HumanOptions) -> Path:
    return options.out / "stacks" / f"{name.replace(' ', '-')}.json"


def _finished(name: str, answers: Mapping[str, Answers], options: HumanOptions) -> dict[str, Any] | None:
    task, agent = name.split()
    return kept.find(_path(name, options), _description(task, agent, answers[task], options))


def script_rows(task: str, answers: Answers) -> list[dict[str, object]]:
    """How often the script, that is the return, sides with people."""
    label = answers.by["script"].label.double().numpy() - 0.5
    return [_row(task, "return", "-", "human", "", label, answers)]


def learner_rows(result: Mapping[str, Any], answers: Answers) -> list[dict[str, object]]:
    """A row per kind of answers learned from, judge and seed."""
    rows = []
    for who, predictions in result["predictions"].items():
        for judge in FILES:
            for seed, mine in enumerate(predictions):
                row = _row(result["task"], result["agent"], who, judge, seed, np.asarray(mine), answers)
                paid = result["returns"].get(who)
                description = result["description"]
                row |= {
                    "return": f"{paid[seed]:.1f}" if paid else "",
                    "env": SIMULATORS[result["task"]] if paid else "",
                    "episodes": description["folds"] * description["episodes"] if paid else "",
                    "updates": description["updates"],
                    "seconds": result["seconds"],
                    "device": result["device"],
                    "threads": result["threads"],
                    "versions": result["versions"],
                }
                rows.append(row)
    return rows


def _row(
    task: str, agent: str, who: str, judge: str, seed: object, delta: NDArray[np.float64], answers: Answers
) -> dict[str, object]:
    """Agreement of judgements [N] with the decisive answers of ``judge``; an undecided judgement counts half."""
    label = answers.by[judge].label.double().numpy() - 0.5
    decisive = label != 0
    sides = np.where(delta == 0, 0.5, np.sign(delta) == np.sign(label))[decisive]
    lost = ~np.isfinite(delta[decisive])
    right, count = float(np.where(lost, 0.0, sides).sum()), int(decisive.sum())
    share = wilson(right, count)
    return {
        "dataset": task,
        "agent": agent,
        "learned_from": who,
        "judged_by": judge,
        "seed": seed,
        "agreements": f"{right:g}",
        "decisive": count,
        "agreement": f"{share.point:.4f}",
        "low": f"{share.low:.4f}",
        "high": f"{share.high:.4f}",
        "pairs": len(label),
        "folds": len(answers.fold.unique()),
        **dict.fromkeys(("return", "env", "episodes", "updates", "seconds", "device", "threads", "versions"), ""),
    }
