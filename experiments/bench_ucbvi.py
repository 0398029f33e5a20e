"""``pbrl bench ucbvi``: seed-episodes per second of UCBVI that plans before every episode.

Each episode is a backward induction with S A S' H multiplications, an exact evaluation of the policy, and H steps. With
``--rlberry PYTHON`` the UCBVI of rlberry-scool is timed on an MDP of the same size too, by that interpreter: it must
have that package (which does not install beside ours).
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from pbrl import rng
from pbrl.errors import InputError
from pbrl.theory.every_episode import ucbvi_every_episode
from pbrl.theory.instances import dirichlet_episodic

THEIRS = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
from rlberry_scool.agents import UCBVIAgent
from rlberry.envs.finite_mdp import FiniteMDP
states, actions, horizon, episodes = map(int, sys.argv[1:])
draw = np.random.default_rng(0)
env = FiniteMDP(draw.random((states, actions)), draw.dirichlet(np.full(states, 0.3), size=(states, actions)))
agent = UCBVIAgent(env, gamma=1.0, horizon=horizon, stage_dependent=True)
agent.fit(3)
began = time.perf_counter()
agent.fit(episodes)
print(json.dumps(episodes / (time.perf_counter() - began)))
"""


@dataclass(frozen=True)
class UCBVIOptions:
    """Measure UCBVI that plans before every episode."""

    states: int = 25
    """S."""
    actions: int = 4
    """A."""
    horizon: int = 10
    """H."""
    seeds: int = 32
    """Members."""
    episodes: int = 2000
    """Episodes of each, after compiling."""
    rlberry: Annotated[Path | None, tyro.conf.arg(metavar="PYTHON", help_behavior_hint="")] = None
    """An interpreter that has rlberry-scool, to time its UCBVI as well."""
    rlberry_episodes: int = 50
    """Episodes of that, one seed."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the rates as JSON."""

    def __post_init__(self) -> None:
        for name in ("states", "actions", "horizon", "seeds", "episodes", "rlberry_episodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")


def measure(options: UCBVIOptions, compiled: bool) -> float:
    """Seed-episodes per second, without the time to compile."""
    mdp = dirichlet_episodic(options.states, options.actions, options.horizon, seed=0)
    keys = rng.keys(range(options.seeds)).numpy()
    delta, width = np.full(options.seeds, 0.1), np.ones(options.seeds)
    ucbvi_every_episode(mdp, 2, keys, delta, width, compiled=compiled)
    episodes = options.episodes if compiled else max(1, options.episodes // 10)
    began = time.perf_counter()
    ucbvi_every_episode(mdp, episodes, keys, delta, width, compiled=compiled)
    return options.seeds * episodes / (time.perf_counter() - began)


def theirs(options: UCBVIOptions) -> float:
    """Episodes per second of rlberry-scool's UCBVI.

    Raises:
        InputError: the interpreter cannot run it.
    """
    sizes = (options.states, options.actions, options.horizon, options.rlberry_episodes)
    try:
        done = subprocess.run(
            [str(options.rlberry), "-c", THEIRS, *map(str, sizes)], capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise InputError(f"{options.rlberry} cannot be run ({error.strerror}), expected a Python interpreter") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise InputError(f"{options.rlberry} cannot run rlberry-scool's UCBVI: {said}") from None
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def ucbvi(options: UCBVIOptions) -> dict[str, float]:
    """Measure, print, and give the rates by name."""
    rates = {"compiled": measure(options, True), "numpy": measure(options, False)}
    if options.rlberry is not None:
        rates["rlberry"] = theirs(options)
    out = Console()
    out.print(
        f"UCBVI, S {options.states} A {options.actions} H {options.horizon}, a plan per episode, {options.seeds} seeds",
        highlight=False,
    )
    for name, rate in rates.items():
        ratio = f"  {rate / rates['rlberry']:,.0f}x rlberry-scool" if "rlberry" in rates else ""
        out.print(f"  {name:<10}{rate:>12,.0f} seed-episodes/s{ratio}", highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
    return rates
