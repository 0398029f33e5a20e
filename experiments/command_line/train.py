"""``pbrl train``: a population of members of one agent, trained as one stack, evaluated on the way, kept as a Run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

import envs
from pbrl import evaluation, loops
from pbrl.agent import Agent, Judge
from pbrl.data.reference_scores import normalise
from pbrl.evaluation import Floats
from pbrl.fronts import front as fronts
from pbrl.fronts.front import Frontier, Weighing
from pbrl.records.run import Run

from .. import held_out
from . import front_file
from .plan import Plan
from .population import Machine
from .train_online import train_online

Values = Mapping[str, Sequence[float]]
"""Metric names to one number per member."""


def train(planned: Plan, run: Run, watch: Callable[[int, Values], None]) -> None:
    """Train from the run's checkpoint, or from the start where none is complete, to the end.

    Args:
        planned: what to train; its learner is changed.
        run: where metrics and checkpoints go.
        watch: called with the count of updates on data plus steps online, and what was just recorded.

    Raises:
        InputError: a checkpoint that does not fit, or a folder that cannot be written.
    """
    options, learner = planned.request.options, planned.learner
    saved = run.saved()
    if saved is not None:
        run.load(learner)
    total = options.offline_updates
    steps = 0 if saved is None else saved.env_steps
    names = planned.population.names
    turns, every = planned.turns, options.eval_every * options.population.exploit_every
    with run.recording(names, updates=learner.updates, env_steps=steps, offline=total) as record:
        if turns is not None:
            turns.begin(learner, run, steps)
        while planned.source is not None and not steps and learner.updates < total:  # anew after each turn
            for metrics in loops.offline(learner, planned.source, total, every=options.record_every):
                now = learner.updates
                values: dict[str, Sequence[float]] = {name: value.tolist() for name, value in metrics.items()}
                if now % options.eval_every == 0 or now == total:
                    values |= measure(planned)
                record(now, values)
                turned = turns is not None and now % every == 0 and (now < total or options.online.env_steps > 0)
                if turns is not None and turned:
                    turns.take(learner, run, 0)
                if turned or now % options.checkpoint_every == 0 or now == total:
                    run.save(learner)
                watch(now, values)
                if turned:
                    break
        if options.online.env_steps:
            train_online(
                planned, run, record, watch, lambda now: {**measure(planned), **measure_front(planned, run, now)}
            )


def measure(planned: Plan) -> dict[str, Sequence[float]]:
    """Scores in the simulator and accuracy on held-out labels, where there are such."""
    found: dict[str, Sequence[float]] = {}
    learner, members = planned.learner, planned.population.members
    episodes = planned.request.options.run.episodes
    if planned.simulator is not None and episodes and isinstance(learner, Agent):
        scores = play(learner, planned.simulator.env, len(members), episodes, planned.machine)
        found |= {name: value.tolist() for name, value in returns_of(learner, scores).items()}
        if planned.simulator.reference is not None:
            found["score"] = normalise(scores.mean, planned.simulator.reference).tolist()
    if planned.held_out[0] is not None and isinstance(learner, Judge):
        found["held_out_accuracy"] = _held_out(planned)
    return found


def returns_of(learner: Agent, scores: evaluation.Scores) -> dict[str, Floats]:
    """Mean returns, [P] each: ``return``; of several objectives each, return_0 on, and ``return`` is what they weigh.

    The weights are those that the learner learns or acts by.
    """
    if scores.mean.ndim == 1:
        return {"return": scores.mean}
    assert isinstance(learner, Weighing)  # check_learner sees to it
    weights = learner.weights.cpu().double().numpy()
    each = {f"return_{k}": column for k, column in enumerate(scores.mean.T)}
    return {"return": np.asarray((weights * scores.mean).sum(1)), **each}


def measure_front(planned: Plan, run: Run, env_steps: int) -> dict[str, Sequence[float]]:
    """What the fronts of agents that keep an archive are worth, played anew; their points go to the run's folder."""
    learner, told = planned.learner, planned.identity.get("front")
    if told is None or not isinstance(learner, Frontier) or planned.simulator is None:
        return {}
    front = fronts.play_front(
        learner,
        partial(envs.make, planned.simulator.env),
        episodes=planned.request.options.run.episodes,
        most=told["policies"],
        gamma=told["gamma"],
        device=planned.machine.device,
        dtype=planned.machine.dtype,
    )
    front_file.write(run.folder / front_file.NAME, front, updates=planned.learner.updates, env_steps=env_steps)
    return dict(fronts.qualities(front, None if told["reference"] is None else tuple(told["reference"])))


def play(
    learner: Agent, env: str, members: int, episodes: int, on: Machine, keys: torch.Tensor | None = None
) -> evaluation.Scores:
    """The same episodes with every member: greedily, or with actions drawn by ``keys`` [P]."""
    return evaluation.evaluate(
        learner,
        lambda copies: envs.make(env, copies),
        members=members,
        episodes=episodes,
        stochastic_keys=keys,
        device=on.device,
        dtype=on.dtype,
    )


def _held_out(planned: Plan) -> list[float]:
    """[P] each member's accuracy on the labels of its own labeler."""
    shares = [0.0] * len(planned.population.members)
    for label in dict.fromkeys(planned.population.labels):
        mine = [i for i, name in enumerate(planned.population.labels) if name == label]
        preferences = planned.held_out[mine[0]]
        assert preferences is not None  # all labelers hold out, or none
        share = held_out.accuracy(planned.learner, preferences, planned.machine.dtype, planned.told[mine[0]])
        assert share is not None  # it is a judge
        for i in mine:
            shares[i] = float(share[i])
    return shares
