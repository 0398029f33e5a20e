"""Making data sets as D4RL does: a behaviour policy learns, and policies of several tiers of skill collect data.

Tiers (Fu et al. 2020, section 4; the names are ours, ``local/<env>/<tier>-v1``, for the data are ours, too):

- ``random``: uniform actions.
- ``medium``: the policy whose return is nearest to a third of the way from random to expert.
- ``medium-replay``: all that was learned from until then, or N rows of it: whole episodes, evenly spread.
- ``expert``: the policy with the best learning-curve score.
- ``medium-expert``: half and half.
- ``mixed``: a quarter each of random, poor (the policy with the worst learning-curve score), medium and expert. Not one
  of D4RL's. The poor quarter errs in one direction, where noise would cancel out in a clone of everything, so that more
  is gained by telling good from bad.

Policies are stochastic while they collect, as D4RL's. The reference scores stored with the data are the mean returns of
the random policy (0) and of the expert's greedy policy (100), over episodes of their own, with their standard errors.
A folder with the replay and the weights of another run (``behaviour_folder``) may take the place of the behaviour run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import envs
from envs.point_mass import PointMass
from pbrl.data import Dataset, hdf5
from pbrl.errors import InputError
from pbrl.play.vector_env import VectorEnv

from . import behaviour_folder, behaviour_lqr
from .behaviour import Array, Behaviour, Policy, Transitions, concatenate, copies_for, returns, roll_out, uniform_policy

TIERS = ("random", "medium", "medium-replay", "medium-expert", "expert", "mixed")
REFERENCE_EPISODES = 100
_PARTS = {
    "random": ("random",),
    "medium": ("medium",),
    "expert": ("expert",),
    "medium-expert": ("medium", "expert"),
    "mixed": ("random", "poor", "medium", "expert"),
}
_BEHAVIOUR_STEPS = {"PointMass": 20_000, "InvertedPendulum": 20_000, "Reacher": 50_000, "Pusher": 200_000}


@dataclass(frozen=True)
class Made:
    """What ``make_data`` leaves behind."""

    path: Path
    dataset: Dataset


def dataset_name(env: str, tier: str) -> str:
    """``Reacher-v5`` and ``mixed`` give ``local/reacher/mixed-v1``."""
    return f"local/{_task(env).lower()}/{tier}-v1"


def default_behaviour_steps(env: str) -> int:
    """Steps after which SAC has about converged: known for the quick tasks, 1 000 000 for all others, as in D4RL."""
    return _BEHAVIOUR_STEPS.get(re.sub(r"\d+D$", "", _task(env)), 1_000_000)


def _task(env: str) -> str:
    return re.sub(r"-v\d+$", "", env).rsplit("/", 1)[-1]


def make_data(
    env: str,
    tier: str,
    steps: int,
    seed: int,
    out_dir: Path,
    *,
    behaviour_steps: int | None = None,
    hidden: int = 256,
    folder: Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Made:
    """Train (or reuse) the behaviour of an environment and seed, and store a data set of a tier with its oracle critic.

    Everything lies under ``out_dir``: the data set as ``local/<env>/<tier>-v1.hdf5``, the behaviour run under
    ``behaviour/<env>/seed<seed>/``. Killed at any moment and called again with the same arguments, it continues.

    Args:
        env: ``PointMass-v0`` (closed form, no training) or a Gymnasium id with Box spaces and a time limit.
        tier: one of ``TIERS``.
        steps: rows of the data set; the last episode of a policy may be cut. ``medium-replay`` may have fewer.
        seed: of the behaviour run and of the roll-outs.
        out_dir: the data folder.
        behaviour_steps: environment steps to learn from; None for ``default_behaviour_steps``.
        hidden: units in the two hidden layers of SAC's networks (the point mass has none).
        folder: a finished run of somebody else's, in the form of ``behaviour_folder``; nothing is trained then.
        overwrite: whether an existing data set of this name may be replaced.
        progress: whether to show a progress bar on stderr.

    Raises:
        InputError: an unknown environment or tier, too few steps, a negative seed, a folder that cannot be written, an
            existing data set, or a behaviour run of other settings in the folder.
        KeyboardInterrupt: Ctrl-C, with a word on what is kept.
    """
    learn_steps = default_behaviour_steps(env) if behaviour_steps is None else behaviour_steps
    if tier not in TIERS:
        raise InputError(f"unknown tier {tier!r}, expected one of {', '.join(TIERS)}")
    probe = envs.make(env, 1)
    horizon = probe.spec.horizon
    probe.close()
    if probe.spec.actions is not None:
        raise InputError(f"environment {env!r} has Discrete actions, expected a Box")
    if horizon is None:
        raise InputError(f"environment {env!r} has no time limit, expected one that ends every episode")
    parts = len(_PARTS.get(tier, ("log",)))
    if steps < parts * horizon:
        what = f"{parts} episodes of {horizon} steps" if parts > 1 else f"one episode of {horizon} steps"
        raise InputError(f"steps is {steps}, expected at least {parts * horizon}: {what} for tier {tier!r}")
    if learn_steps < horizon:
        raise InputError(f"behaviour_steps is {learn_steps}, expected at least one episode of {horizon} steps")
    if seed < 0:
        raise InputError(f"seed is {seed}, expected at least 0")
    if hidden < 1:
        raise InputError(f"hidden is {hidden}, expected at least 1 unit")
    if folder is not None and (behaviour_steps is not None or hidden != 256):
        raise InputError(f"the behaviour of {folder} is trained already, expected no --behaviour-steps and no --hidden")
    name = dataset_name(env, tier)
    path = Path(out_dir) / f"{name}.hdf5"
    if path.exists() and not overwrite:
        raise InputError(
            f"{path}: exists already, expected --overwrite to replace it, another --tier, "
            "or another folder for data sets (PBRL_DATA_DIR)"
        )
    _check_writable(path.parent)

    simulator = envs.make(env, copies_for(steps, horizon))
    kept = _run_folder(env, seed, Path(out_dir))
    try:
        if folder is None:
            behaviour = _learn(simulator, env, learn_steps, seed, hidden, kept, progress)
        else:
            behaviour = behaviour_folder.behaviour(simulator.spec, folder)
        transitions, info = _collect(simulator, behaviour, tier, steps, seed)
    except KeyboardInterrupt:
        nothing = "nothing was written, the same command starts over"
        raise KeyboardInterrupt(nothing if folder is not None else _left(simulator, kept, learn_steps)) from None
    simulator.close()
    info |= {
        "tier": tier,
        "seed": seed,
        "horizon": horizon,
        "command": f"pbrl data make {env} --tier {tier} --steps {steps} --seed {seed}"
        + (f" --behaviour-steps {behaviour_steps}" if behaviour_steps is not None else "")
        + (f" --hidden {hidden}" if hidden != 256 else "")
        + (f" --behaviour {folder}" if folder is not None else ""),
        "behaviour": dict(behaviour.about),
    }
    dataset = Dataset.from_arrays(**vars(transitions), name=name, env=env, info=info)
    hdf5.save(dataset, path, behaviour.expert.oracle, behaviour.oracle_attrs)
    return Made(path, dataset)


def has_learned(env: str, out_dir: Path, seed: int = 0) -> bool:
    """Whether a behaviour run of the default length is finished under ``out_dir``, so that any tier takes minutes."""
    kept = _run_folder(env, seed, out_dir)
    if not kept.is_dir():
        return False
    from . import behaviour_sac

    return behaviour_sac.steps_kept(kept) == default_behaviour_steps(env)


def _run_folder(env: str, seed: int, out_dir: Path) -> Path:
    return out_dir / "behaviour" / env.replace("/", "-") / f"seed{seed}"


def _check_writable(folder: Path) -> None:
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing}: cannot be written, expected a folder with permission to write")


def _learn(
    simulator: VectorEnv, env: str, steps: int, seed: int, hidden: int, folder: Path, progress: bool
) -> Behaviour:
    if isinstance(simulator, PointMass):
        return behaviour_lqr.behaviour(simulator, steps, seed)
    from . import behaviour_sac  # takes seconds to import, as stable-baselines3 does

    run = behaviour_sac.SACRun(env, steps, seed, hidden)
    with _bar(f"SAC on {env}", steps, shown=progress) as advance:
        return behaviour_sac.behaviour(run, folder, advance)


def _left(simulator: VectorEnv, folder: Path, steps: int) -> str:
    """What an interrupted call leaves behind, in words."""
    if isinstance(simulator, PointMass):
        return "nothing was written, the same command starts over"
    from . import behaviour_sac

    kept = behaviour_sac.steps_kept(folder)
    if not kept:
        return (
            f"none of the {steps:,} environment steps of the behaviour run are kept yet, the same command starts over"
        )
    return f"{kept:,} of {steps:,} environment steps of the behaviour run are kept, the same command goes on from there"


@contextmanager
def _bar(what: str, total: int, *, shown: bool) -> Iterator[Callable[[int, str], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, words: bar.update(task, completed=done, description=f"{what}, {words}")


def _collect(
    env: VectorEnv, behaviour: Behaviour, tier: str, steps: int, seed: int
) -> tuple[Transitions, dict[str, Any]]:
    """The transitions of a tier, and what the store's metadata says about how they came about."""
    uniform = uniform_policy(env.spec.act_size)
    random_returns = returns(env, uniform, REFERENCE_EPISODES, [seed, 4])
    expert = behaviour.expert
    medium = behaviour.medium(float(random_returns.mean()))
    poor = behaviour.poor
    policies: dict[str, Policy] = {
        "random": uniform,
        "poor": poor.sample,
        "medium": medium.sample,
        "expert": expert.sample,
    }
    if tier == "medium-replay":
        parts = {"replay": _spread(behaviour.log.head(medium.steps), steps)}
    else:
        names = _PARTS[tier]
        sizes = np.diff(np.linspace(0, steps, len(names) + 1).astype(int))
        parts = {
            name: roll_out(env, policies[name], int(rows), [seed, 5, number])
            for number, (name, rows) in enumerate(zip(names, sizes))
        }
    expert_returns = returns(env, expert.greedy, REFERENCE_EPISODES, [seed, 6])
    info = {
        "reference": [float(random_returns.mean()), float(expert_returns.mean())],
        "reference_episodes": REFERENCE_EPISODES,
        "reference_errors": [_standard_error(random_returns), _standard_error(expert_returns)],
        "parts": [
            {"policy": name, "rows": len(part), "mean_return": float(part.episode_returns().mean())}
            for name, part in parts.items()
        ],
        "curve": [[snapshot.steps, round(snapshot.score, 4)] for snapshot in behaviour.snapshots],
        "poor": {"steps": poor.steps, "score": poor.score},
        "medium": {"steps": medium.steps, "score": medium.score},
        "expert": {"steps": expert.steps, "score": expert.score},
    }
    return concatenate(list(parts.values())), info


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def doubt(info: Mapping[str, Any]) -> str:
    """A sentence on an expert that is not clearly better than the random policy, from a made data set's info; or ""."""
    (random, expert), errors = info["reference"], info["reference_errors"]
    if expert - random >= 2.0 * float(np.hypot(*errors)):
        return ""
    return (
        f"the expert's mean return of {expert:.1f} is not clearly above the random policy's {random:.1f}, so that a "
        "score of 100 means little: the behaviour policy has not learned, expected more --behaviour-steps"
    )


def _spread(log: Transitions, rows: int) -> Transitions:
    """At most ``rows`` rows of a log: whole episodes, evenly spread over it (the last of them may be cut)."""
    if len(log) <= rows:
        return log
    ends = np.flatnonzero(log.term | log.trunc)
    episode = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=-1))
    order = np.argsort(_radical_inverse(len(ends)), kind="stable")
    needed = int(np.searchsorted(np.cumsum(np.bincount(episode)[order]), rows)) + 1
    keep = np.isin(episode, order[:needed])
    return Transitions(*(column[keep] for column in vars(log).values())).head(rows)


def _radical_inverse(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[count] van der Corput numbers: the places of the k smallest are evenly spread for every k."""
    bits = np.arange(count)[:, None] >> np.arange(32) & 1
    return np.asarray(bits @ 0.5 ** np.arange(1, 33))
