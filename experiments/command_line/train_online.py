"""The part of ``pbrl train`` that learns in a simulator, with a replay buffer or from rollouts.

A checkpoint holds the learner and all that was collected, so that a run that was killed goes on with the same bits:
running episodes begin again from their seeds and repeat their actions up to where they were (``pbrl.play.collector``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor, nn

import envs
from pbrl import loops
from pbrl.agent import Agent, Asker, GoesOnline, Staged
from pbrl.data import hdf5
from pbrl.data.buffer import Buffer
from pbrl.errors import InputError
from pbrl.loops.arena import Arena, Compared
from pbrl.loops.on_policy import OnPolicy
from pbrl.play.collector import Collector, EnvFault
from pbrl.records.run import Record, Run

from .plan import Plan
from .train_asking import Asked, asking, teacher


class Collected(Protocol):
    """What a loop goes on from: a buffer, or environments in the midst of their episodes."""

    @property
    def env_steps(self) -> int:
        """How many steps each member has taken."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """All of it."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Restores it."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A loop that has not begun, what it collects into, and what is to be closed after it."""

    metrics: Iterator[dict[str, Tensor]]
    collected: Collected
    close: Callable[[], None]


def train_online(
    planned: Plan,
    run: Run,
    record: Record,
    watch: Callable[[int, Mapping[str, Sequence[float]]], None],
    measure: Callable[[int], dict[str, Sequence[float]]],
) -> None:
    """Learn in the simulator from the run's checkpoint, or from where the updates on data ended, to the end.

    Args:
        planned: what to train; its learner, restored already, is changed.
        run: where checkpoints go.
        record: where metrics go.
        watch: called with the count of updates on data plus environment steps, and what was just recorded.
        measure: what is recorded beside the loop's own metrics at each evaluation, after so many steps.

    Raises:
        InputError: a checkpoint that does not fit, a folder that cannot be written, or an environment that fails; what
            was collected before is saved first.
    """
    options = planned.request.options.online
    offline = planned.request.options.offline_updates
    learner, turns = planned.learner, planned.turns
    every = options.evaluations_every * planned.request.options.population.exploit_every
    assert isinstance(learner, Agent)  # check_learner sees to it
    turned = True
    while turned:  # after each turn of population-based training it begins anew, as a resumed run does
        turned, phase = False, _phase(planned, run)
        collected = phase.collected
        try:
            run.load_collected(collected)
            before = collected.env_steps
            for metrics in phase.metrics:
                now = collected.env_steps
                last = now >= options.env_steps
                values: dict[str, Sequence[float]] = {name: value.tolist() for name, value in metrics.items()}
                due = last or now // options.evaluations_every > before // options.evaluations_every
                if due:
                    values |= measure(now)
                record(learner.updates, values, env_steps=now)
                turned = turns is not None and not last and now // every > before // every
                if turns is not None and turned:
                    turns.take(learner, run, now)
                if due:
                    run.save(learner, collected.state_dict(), env_steps=now)
                watch(offline + now, values)
                before = now
                if turned:
                    break
        except EnvFault as fault:
            raise InputError(f"{fault}; {_kept(collected, planned, run)}") from fault
        finally:
            phase.close()
    filled = _buffer(collected)
    if options.export and filled is not None:
        export(filled, planned, run)


def _phase(planned: Plan, run: Run) -> Phase:
    """The loop that the learner learns by."""
    if isinstance(planned.learner, Asker):
        return Phase(*asking(planned, run.folder))
    if isinstance(planned.learner, GoesOnline):
        planned.learner.go_online()
    return _from_rollouts(planned) if set(planned.learner.wants()) == {"rollout"} else _with_replay(planned)


def _kept(collected: Collected, planned: Plan, run: Run) -> str:
    """What is saved of a run whose environment has failed, in words."""
    buffer = _buffer(collected)
    if buffer is None:  # rollouts are forgotten once they are learned from
        saved = run.saved()
        return f"kept: {'nothing' if saved is None else f'{run.checkpoint} of {saved.env_steps} steps'}"
    return f"collected before: {export(buffer, planned, run) if buffer.env_steps else 'nothing'}"


def _buffer(collected: Collected) -> Buffer | None:
    """The steps that were collected, where they are kept."""
    collected = collected.buffer if isinstance(collected, Asked) else collected
    return collected if isinstance(collected, Buffer) else None


def export(buffer: Buffer, planned: Plan, run: Run) -> str:
    """Write what each member has collected as a data set; the name of the files."""
    assert planned.simulator is not None  # where else
    for member, row in enumerate(planned.population.rows):
        info = {"agent": planned.request.agent, "seed": row["seed"], "run": run.folder.name}
        name = f"{run.folder.name}/collected-{member}"
        made = buffer.to_dataset(member, name=name, env=planned.simulator.env, info=info)
        hdf5.save(made, run.folder / f"collected-{member}.hdf5")
    return str(run.folder / "collected-*.hdf5")


def _with_replay(planned: Plan) -> Phase:
    """Off-policy: P x N copies fill a buffer."""
    learner, options, on = planned.learner, planned.request.options.online, planned.machine
    assert isinstance(learner, Agent)
    assert planned.simulator is not None
    members, copies = len(planned.population.members), options.envs_per_member
    env = envs.make(planned.simulator.env, members * copies)
    has_data, source = planned.source is not None, planned.source
    if source is not None and isinstance(learner, Staged):
        prepared = learner.prepare(source)  # which tells the learner how to treat what it collects
        source = dataclasses.replace(source, to_go=prepared.to_go, to_go_gamma=prepared.to_go_gamma)
    replay = options.replay_of(has_data)
    buffer = Buffer(
        env.spec,
        members,
        min(options.replay_capacity, max(options.env_steps, (env.spec.horizon or 1) * copies)),
        streams=copies,
        data=None if replay.kind == "empty" else source,
        replay=replay,
        to_go_gamma=None if source is None else source.to_go_gamma,
        dtype=on.dtype,
        device=on.device,
    )
    metrics = loops.online(
        learner,
        Collector(env, buffer, learner.keys),
        options.env_steps,
        every=options.record_every,
        random_steps=options.random(has_data),
        updates_per_step=options.updates_per_step,
    )
    return Phase(metrics, buffer, env.close)


def _from_rollouts(planned: Plan) -> Phase:
    """On-policy: each update has a rollout of its own. Trajectories are compared by each member's teacher."""
    learner = cast(OnPolicy, planned.learner)  # which wants rollouts
    options, on = planned.request.options.online, planned.machine
    assert planned.simulator is not None
    env = envs.make(planned.simulator.env, len(planned.population.members) * learner.environments)
    playing = loops.Playing(env, learner.keys, dtype=on.dtype)
    rollouts = math.ceil(options.env_steps / (learner.environments * learner.wants()["rollout"]))
    updates = planned.request.options.offline_updates + rollouts
    if not isinstance(learner, Compared):
        return Phase(loops.on_policy(learner, playing, updates, every=1), playing, env.close)
    labels = planned.request.options.label
    arena = Arena([teacher(labels, name, env.spec) for name in planned.population.labels], learner, env.spec)
    metrics = loops.on_policy(learner, playing, updates, every=1, prepare=arena)
    return Phase(metrics, _Games(playing, arena), env.close)


class _Games(nn.Module):
    """Environments, and the trajectories that new ones are compared with."""

    def __init__(self, playing: loops.Playing, arena: Arena) -> None:
        super().__init__()
        self.playing, self.arena = playing, arena

    @property
    def env_steps(self) -> int:
        """How many steps each member has taken."""
        return self.playing.env_steps
