"""The demo: preference learners compared on MuJoCo data, with two kinds of labels on the same pairs.

Segments of the shipped data set are compared by two labelers, by partial return and by regret. Behaviour cloning, SFT,
CPL and P-IQL learn from the answers, IQL from the true reward as a reference; all seeds and both kinds of labels of an
agent are one stack. Every policy then plays the same episodes in the simulator.

Some episodes are kept from all agents; the pairs on which their judgement is measured are from there.

What is compared is fair in this sense: all agents make equally many updates with networks of equal size and the same
learning rate, on normalised observations; agents of two stages (SFT, CPL, P-IQL) give half of the updates to each. All
else is the paper's default. Settings were chosen for a run of some two minutes, not for the sake of an agent. Whatever
comes out is what is written.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from torch import Tensor

import envs
from pbrl import data, evaluation, statistics
from pbrl.data import Dataset
from pbrl.data.files import replacing
from pbrl.data.reference_scores import normalise
from pbrl.errors import InputError
from pbrl.records import environment

from .. import side_by_side
from ..reports import demo_figures, report
from ..reports.findings import findings
from ..reports.rows import GAPS, read_labels, read_results, write_rows
from ..reports.score_tables import accuracy_table, console_table, score_table
from .settings import LONGEST_FIRST, STACKS, DemoConfig, agent_config
from .training import Answers, Trained, ask, held_aside, train


class Tick(Protocol):
    """What hears of progress."""

    def __call__(self, agent: str, updates: int, score: float) -> None:
        """An agent's members were evaluated after so many updates (0: they begin); ``score`` is their mean."""


def run(config: DemoConfig) -> None:
    """Train, evaluate, write the results to ``config.out`` and print them.

    A demo that is stopped leaves nothing new behind; the next one starts over.

    Raises:
        InputError: unusable data, or a folder that cannot be written; before any training.
        KeyboardInterrupt: Ctrl-C, with a word on what is left.
    """
    try:
        compare(config, Console(width=None if sys.stdout.isatty() else 120))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"nothing was written to {config.out}, the next demo starts over") from None


def compare(config: DemoConfig, console: Console) -> None:
    """See ``run``."""
    began = time.perf_counter()
    dataset = data.load(config.dataset)
    path = data.resolve(config.dataset)
    reference = _check(dataset, config.out)
    console.print(
        f"[bold]{dataset.name}[/bold]: {len(dataset):,} steps of {dataset.env}. Two labelers answer {config.pairs} "
        f"pairs of {config.segment_length} steps to learn from, and {config.held_out_pairs} of other episodes.",
        highlight=False,
    )
    with side_by_side.one_thread():
        answers = ask(dataset, path, config)
    _, rest = held_aside(dataset, config)
    with _progress(config, console) as show:

        def tick(agent: str, updates: int, mean_return: float) -> None:
            show(agent, updates, float(normalise(np.array(mean_return), reference)))

        processes = min(config.processes or side_by_side.cores(), len(STACKS))
        done = side_by_side.run(train, LONGEST_FIRST, (rest, answers, config), tick, processes=processes)
    trained = [done[name] for name in STACKS]
    still = standing_still(dataset, config.episodes)
    rows = result_rows(trained, answers, dataset, still, config, time.perf_counter() - began)
    judged = [row for stack in trained for row in label_rows(stack, answers)]
    _write(config, rows, judged, curve_rows(trained, dataset))
    _print(config, console, time.perf_counter() - began)


def standing_still(dataset: Dataset, episodes: int) -> float:
    """The mean score of action 0 on the evaluation episodes: what is to be had for nothing."""

    def act(obs: Tensor, key: Tensor | None = None) -> Tensor:  # noqa: ARG001 - nothing is drawn
        return obs.new_zeros(*obs.shape[:-1], dataset.act.shape[1])

    env = envs.make(dataset.env, 1)
    try:
        scores = evaluation.rollout(act, env, members=1, episodes=episodes)
    finally:
        env.close()
    return float(normalise(scores.returns, dataset.info["reference"]).mean())


def label_rows(trained: Trained, answers: Mapping[str, Answers]) -> list[dict[str, object]]:
    """Held-out accuracy by gap: a row per member, judge and gap. Members without labels are judged by each labeler."""
    rows: list[dict[str, object]] = []
    if trained.difference is None:
        return rows
    for judge in answers:
        gap = statistics.accuracy_by_gap(trained.difference, answers[judge].difference, bins=len(GAPS))
        for member, (labels, seed) in enumerate(zip(trained.labels, trained.seeds)):
            if labels not in (judge, "none"):
                continue
            shared = {"agent": trained.agent, "labels": labels, "seed": seed, "judge": judge}
            for i, name in enumerate(GAPS):
                ends = {"gap_low": f"{gap.low[i]:.6g}", "gap_high": f"{gap.high[i]:.6g}", "pairs": int(gap.count[i])}
                rows.append({**shared, "gap": name, **ends, "accuracy": f"{gap.accuracy[member, i]:.4f}"})
    return rows


def result_rows(
    trained: Sequence[Trained],
    answers: Mapping[str, Answers],
    dataset: Dataset,
    still: float,
    config: DemoConfig,
    seconds: float,
) -> list[dict[str, object]]:
    """A row per member: scores, and all that is needed to make them again."""
    machine = environment.describe()
    low, high = dataset.info["reference"]
    rows: list[dict[str, object]] = []
    for stack in trained:
        scores = normalise(stack.returns, (low, high))
        for member, (labels, seed) in enumerate(zip(stack.labels, stack.seeds)):
            score = scores[member]
            best = int(np.nanargmax(score)) if np.isfinite(score).any() else -1
            accuracy = np.nan
            if labels in answers and stack.difference is not None:
                judge = answers[labels].difference
                accuracy = float(statistics.accuracy_by_gap(stack.difference[member], judge, bins=1).accuracy[0])
            rows.append(
                {
                    "agent": stack.agent,
                    "labels": labels,
                    "seed": seed,
                    "score_last": f"{score[-1]:.4f}",
                    "score_best": f"{score[best]:.4f}",
                    "best_at": stack.updates[best],
                    "return_last": f"{stack.returns[member, -1]:.5f}",
                    "label_accuracy": "" if np.isnan(accuracy) else f"{accuracy:.4f}",
                    "episodes": config.episodes,
                    "updates": config.updates,
                    "members": len(stack.seeds),
                    "seconds": f"{stack.seconds:.1f}",
                    "total_seconds": f"{seconds:.1f}",
                    "score_still": f"{still:.4f}",
                    "labeler": answers[labels].training.by.who if labels in answers else "",
                    "pairs": config.pairs if labels in answers else "",
                    "held_out_pairs": config.held_out_pairs if labels in answers else "",
                    "segment_length": config.segment_length if labels in answers else "",
                    "data_set": dataset.name,
                    "fingerprint": dataset.fingerprint,
                    "env": dataset.env,
                    "reference_low": f"{low:.5f}",
                    "reference_high": f"{high:.5f}",
                    "device": "cpu",
                    "threads": 1,
                    "cores": side_by_side.cores(),
                    **{name: machine[name] for name in ("python", "pbrl", "torch", "numpy", "gymnasium", "mujoco")},
                    "command": config.command,
                }
            )
    return rows


def curve_rows(trained: Sequence[Trained], dataset: Dataset) -> list[dict[str, object]]:
    """A row per member and evaluation."""
    return [
        {"agent": stack.agent, "labels": labels, "seed": seed, "updates": updates, "score": f"{score:.4f}"}
        for stack in trained
        for labels, seed, scores in zip(
            stack.labels, stack.seeds, normalise(stack.returns, tuple(dataset.info["reference"]))
        )
        for updates, score in zip(stack.updates, scores)
    ]


def settings(config: DemoConfig) -> str:
    """The settings in a few sentences."""
    half = config.updates // 2
    return (
        f"Every agent makes {config.updates} updates at learning rate {config.lr:g} with two hidden layers of "
        f"{config.hidden} and normalised observations; SFT, CPL and P-IQL spend {half} of them on their first stage "
        f"(cloning, or the reward model). A batch is {config.batch_pairs} pairs or {config.transitions} transitions. "
        f"Scores are means over {config.episodes} greedy episodes, the same for all. The rest is as agents/ has it."
    )


def _check(dataset: Dataset, out: Path) -> tuple[float, float]:
    """The data set's reference returns, once everything that the end of the demo needs is known to be there."""
    reference = dataset.info.get("reference")
    if not dataset.env or not reference:
        missing = "reference scores" if dataset.env else "environment"
        raise InputError(f"{dataset.name} names no {missing}, expected a data set made by pbrl data make")
    probe = out / ".writable"
    with replacing(probe) as temporary:
        temporary.touch()
    probe.unlink()
    low, high = reference
    return float(low), float(high)


@contextmanager
def _progress(config: DemoConfig, console: Console) -> Iterator[Tick]:
    """A bar per stack on a terminal; elsewhere a line when a stack is done."""
    width = max(map(len, STACKS))
    said = {name: f"{name:<{width}}  {len(kinds) * config.seeds:>3} members" for name, kinds in STACKS.items()}
    if not console.is_terminal:

        def line(agent: str, updates: int, score: float) -> None:
            if updates == config.updates:
                console.print(f"{said[agent]}  {updates} updates, mean score {score:.1f}", highlight=False)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[score]}"), console=console) as bars:
        tasks = {name: bars.add_task(text, total=config.updates, score="", start=False) for name, text in said.items()}

        def move(agent: str, updates: int, score: float) -> None:
            bars.start_task(tasks[agent])
            bars.update(tasks[agent], completed=updates, score=f"mean score {score:.1f}" if updates else "")

        yield move


def _write(
    config: DemoConfig,
    rows: Sequence[dict[str, object]],
    judged: Sequence[dict[str, object]],
    curves: Sequence[dict[str, object]],
) -> None:
    """All files, each complete or not there; the report last, for it is made from the others."""
    out = config.out
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}
    agents = {name: dataclasses.asdict(agent_config(name, config)) for name in STACKS}
    about = {"config.json": {"demo": fields, "agents": agents}, "environment.json": environment.describe()}
    for name, content in about.items():
        with replacing(out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, lines in (("results.csv", rows), ("labels.csv", judged), ("curves.csv", curves)):
        write_rows(out / name, lines)
    demo_figures.draw(out)
    report.publish([out], out / "report.html")


def _print(config: DemoConfig, console: Console, seconds: float) -> None:
    rows, judged = read_results(config.out / "results.csv"), read_labels(config.out / "labels.csv")
    for table in (score_table(rows), accuracy_table(judged)):
        console.print()
        console.print(console_table(table))
        console.print(table.caption, style="dim", highlight=False)
    console.print()
    for sentence in (*findings(rows), settings(config)):
        console.print(sentence, highlight=False)
    console.print(f"{seconds:.0f} seconds. The report with figures: {config.out / 'report.html'}", highlight=False)
