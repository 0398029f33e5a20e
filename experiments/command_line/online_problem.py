"""The problem of a run that learns in a simulator: every check of it before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import envs
from pbrl.agent import Agent, Asker, GoesOnline, Learner
from pbrl.data.source import Wants
from pbrl.errors import InputError
from pbrl.fronts.front import Frontier, Weighing
from pbrl.loops.arena import Compared
from pbrl.spec import Spec

from .arguments import option
from .front_options import FrontOptions, check_reference
from .online_options import OnlineOptions
from .options import TrainOptions
from .problem import Simulator

_SUCH_AS = "expected an agent that does, such as sac, td3, iql or ppo"


def spec_of_simulator(env: str | None) -> Spec:
    """What an agent that learns from nothing may know: the simulator's sizes and time limit.

    Raises:
        InputError: no simulator is named, or there is none of that name.
    """
    if not env:
        raise InputError(
            "neither --dataset nor --env is given, expected a simulator to learn in, such as --env Hopper-v5, a data "
            "set, or both"
        )
    probe = envs.make(env, 1)
    probe.close()
    return probe.spec


def check_effect(options: TrainOptions, given: Collection[str], *, on_policy: bool, agent: str) -> None:
    """Raise InputError where an option of ``OnlineOptions`` was ``given`` that has no effect."""
    online, data = options.online, options.data.dataset is not None
    unused: dict[str, str] = {}
    if not online.env_steps:
        unused = {item.name: "without --env-steps nothing is collected" for item in dataclasses.fields(OnlineOptions)}
    elif on_policy:
        own = ("envs_per_member", "random_steps", "updates_per_step", "export", "replay", "replay_capacity")
        unused = dict.fromkeys((*own, "replay_share", "replay_last_share", "replay_anneal"), f"{agent} keeps no replay")
        unused["envs_per_member"] = f"{agent} has --environments of its own"
    elif online.replay_of(data).kind != "mixed":
        shares = ("replay_share", "replay_last_share", "replay_anneal")
        unused = dict.fromkeys(shares, "it belongs to --replay mixed")
    if online.env_steps and not data:
        reason = "there is no data set to make them on, and the simulator's are told by --env-steps"
        unused |= {"updates": reason, "eval_every": reason, "checkpoint_every": reason}
    unused.pop("env_steps", None)
    for name in sorted(unused.keys() & set(given)):
        raise InputError(f"{option(name)} has no effect: {unused[name]}, expected it left out")


def wants_online(learner: Learner) -> Wants:
    """What the learner's updates in the simulator take."""
    return learner.online_wants() if isinstance(learner, GoesOnline) else learner.wants()


def check_learner(learner: Learner, agent: str, config: Any, options: TrainOptions) -> None:
    """Raise InputError unless the agent can learn from what it is going to get: data, a simulator, or both."""
    wants, online = set(learner.wants()), options.online
    objectives = spec_of_simulator(options.data.env).objectives if online.env_steps and options.data.env else 1
    if objectives > 1 and (not isinstance(learner, Weighing) or isinstance(learner, Compared)):
        found = f"{options.data.env} has {objectives} rewards per step"
        raise InputError(f"{agent} learns from one reward and {found}, expected an agent such as ppo, mdpo or c_morl")
    if online.env_steps and options.data.env and (wants != {"rollout"} or isinstance(learner, Compared)):
        choices = spec_of_simulator(options.data.env).actions
        if choices is not None:
            found = f"{options.data.env} has a choice among {choices}"
            raise InputError(f"{agent} acts in [-1, 1] but {found}, expected an agent that chooses, such as ppo")
    if wants == {"rollout"}:
        if not online.env_steps or options.data.dataset is not None:
            found = "a data set" if options.data.dataset is not None else "no simulator to play in"
            raise InputError(
                f"{agent} learns from its own rollouts, found {found}: expected --env and --env-steps alone"
            )
        return
    if not online.env_steps:
        return
    if "rollout" in wants_online(learner) and options.data.dataset is None:
        raise InputError(f"{agent} begins with data and plays on from there, found no data set: expected --dataset")
    if isinstance(learner, Asker):
        if options.data.dataset is not None:
            expected = "expected --env and --env-steps alone"
            raise InputError(f"{agent} asks about what it does in the simulator, found a data set, too: {expected}")
        return
    if wants != {"transitions"}:
        asks = "expected pebble, which asks about what it does there, or an agent of rewards such as sac"
        expected = asks if "pairs" in wants else _SUCH_AS
        raise InputError(f"{agent} cannot learn online: it learns from {' and '.join(sorted(wants))}, {expected}")
    if not isinstance(learner, Agent) or not hasattr(config, "gamma"):
        raise InputError(f"{agent} cannot learn online: it does not learn from rewards, {_SUCH_AS}")
    if online.replay in ("prefill", "mixed") and options.data.dataset is None:
        raise InputError(f"--replay is {online.replay} but there is no --dataset, expected one or --replay empty")


def check_front(learner: Learner, agent: str, options: TrainOptions, given: Collection[str]) -> None:
    """Raise InputError where an option of ``FrontOptions`` was ``given`` that has no effect, or does not fit."""
    named = sorted({item.name for item in dataclasses.fields(FrontOptions)} & set(given))
    if not isinstance(learner, Frontier) or not options.run.episodes:
        reason = "there is no evaluation" if isinstance(learner, Frontier) else f"{agent} keeps no archive of policies"
        for name in named:
            raise InputError(f"{option(name)} has no effect: {reason}, expected it left out")
        return
    spec = spec_of_simulator(options.data.env)
    check_reference(options.front.reference_point, spec.name, spec.objectives)


def check_place(where: Simulator | None, options: TrainOptions) -> None:
    """Raise InputError unless there is a simulator, and the replay can hold a whole episode in each copy of it."""
    if where is None:
        raise InputError("--env-steps needs a simulator and the data name none, expected --env such as Hopper-v5")
    online = options.online
    least = (spec_of_simulator(where.env).horizon or 1) * online.envs_per_member
    if online.replay_capacity < least:
        raise InputError(
            f"replay_capacity is {online.replay_capacity}, expected at least {least}: an episode of {where.env} in "
            f"each of {online.envs_per_member} copies"
        )
