"""Behaviour by stable-baselines3's SAC, in a folder from which a killed run continues and other tiers reuse it.

Training goes in chunks of a fixed number of steps. Each starts with a fresh episode and with random numbers of its own,
so that a run that was killed and continued equals one that was not (to the bit if the task's bounds are -1 and 1). A
chunk leaves ``chunk-<steps>.npz`` (its transitions, recorded in front of stable-baselines3's automatic resets, and the
networks at its end) and then ``state-<steps>.zip`` (stable-baselines3's own format, read by itself alone). Files are
renamed when complete; the state is the last, so what is newer than the newest state is redone. The replay buffer is
refilled from the chunks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from envs.mujoco import GymnasiumCopies, action_bounds, make_one
from pbrl.data.files import replacing
from pbrl.errors import InputError

from .behaviour import Array, Behaviour, Snapshot, Transitions, concatenate, returns
from .sac_policy import sac_policy

_EPISODES = 20  # per point of the learning curve
_CHUNKS = 50  # points of the learning curve of a short run; long ones have one every 10 000 steps
_LONGEST_CHUNK = 10_000
_OPTIONS = {"env": "ENV", "steps": "--behaviour-steps", "seed": "--seed", "hidden": "--hidden"}  # of pbrl data make
_VERSIONS = ("stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")


@dataclass(frozen=True)
class SACRun:
    """What decides a behaviour run.

    Attributes:
        env: Gymnasium id.
        steps: environment steps; one gradient step each.
        seed: of everything.
        hidden: units in each of the two hidden layers of every network.
    """

    env: str
    steps: int
    seed: int
    hidden: int = 256


def versions() -> dict[str, str]:
    """Versions of the libraries that decide the numbers."""
    return {name: version(name) for name in _VERSIONS}


def behaviour(run: SACRun, folder: Path, advance: Callable[[int, str], None]) -> Behaviour:
    """Train, continue training, or only load the behaviour run of ``folder``.

    Args:
        run: settings; a folder of other settings is refused.
        folder: made if missing.
        advance: told after every step (and at the start) how many steps are done, and in words how it goes.

    Raises:
        InputError: the folder holds another run, is damaged or cannot be written.
    """
    about = _claim(run, folder)
    for left in folder.glob(".*.partial"):  # by a run that was killed while it wrote
        left.unlink()
    env = GymnasiumCopies(run.env, _EPISODES)
    horizon = env.spec.horizon or _LONGEST_CHUNK
    ends = chunk_ends(run.steps, horizon)
    done = [end for end in ends if (folder / f"state-{end}.zip").is_file()]
    if not (done and done[-1] == ends[-1]):
        _train(run, folder, ends, done[-1] if done else 0, env, advance)
    env.close()
    chunks = [_load_chunk(folder, end) for end in ends]
    snapshots = tuple(
        Snapshot(end, float(score), sac_policy(weights), sac_policy(weights, greedy=True), weights)
        for end, (_, weights, score) in zip(ends, chunks)
    )
    gamma = float(about["hyper_parameters"]["gamma"])
    return Behaviour(snapshots, concatenate([log for log, _, _ in chunks]), {"kind": "sac", "gamma": gamma}, about)


def steps_kept(folder: Path) -> int:
    """How many steps of the behaviour run in a folder are done for good: those until its newest state."""
    return max((int(path.stem.removeprefix("state-")) for path in folder.glob("state-*.zip")), default=0)


def chunk_ends(steps: int, horizon: int) -> list[int]:
    """Numbers of steps at the chunks' ends: whole multiples of the horizon, lest chunks cut every episode."""
    length = -(-min(steps // _CHUNKS, _LONGEST_CHUNK) // horizon) * horizon or horizon
    return [*range(length, steps, length), steps]


def _claim(run: SACRun, folder: Path) -> dict[str, Any]:
    """The settings stored in the folder, after storing them in a new one."""
    path = folder / "run.json"
    wanted = {field.name: getattr(run, field.name) for field in fields(run)}
    if path.is_file():
        try:
            about: dict[str, Any] = json.loads(path.read_text())
            found = {name: about[name] for name in wanted}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: damaged, expected the settings of a behaviour run") from None
        for name, value in wanted.items():
            if found[name] != value:
                option = _OPTIONS[name]
                raise InputError(
                    f"{folder}: holds a behaviour run with {option} {found[name]}, but {value} is wanted: expected "
                    f"{option} {found[name]}, another --seed, or that folder removed to train anew"
                )
        return about
    about = {"algorithm": "stable-baselines3 SAC", **wanted, "hyper_parameters": _hyper_parameters(run)}
    about["versions"] = versions()
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(about, indent=1))
    return about


def _hyper_parameters(run: SACRun) -> dict[str, Any]:
    """Those of stable-baselines3 2.x, written out since its defaults may change."""
    return {
        "learning_rate": 3e-4,
        "buffer_size": min(run.steps, 1_000_000),
        "learning_starts": min(1000, run.steps // 10),
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "train_freq": 1,
        "gradient_steps": 1,
        "ent_coef": "auto",
    }


class _Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps every transition as the task gave it: true ends, true successors, actions rescaled to [-1, 1]."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.rows: list[tuple[Any, ...]] = []
        self._low, self._high = action_bounds(env)
        self._obs: Any = None

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self._obs, info = self.env.reset(**options)
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, rew, term, trunc, info = self.env.step(action)
        act = 2.0 * (np.ravel(action) - self._low) / (self._high - self._low) - 1.0
        row = (
            np.ravel(self._obs),
            np.clip(act, -1.0, 1.0),
            float(rew),
            np.ravel(obs),
            bool(term),
            bool(trunc and not term),
        )
        self.rows.append(row)
        self._obs = obs
        return obs, rew, term, trunc, info

    def take(self) -> Transitions:
        """What was recorded since the last call; a cut last episode is marked truncated."""
        columns = [np.stack(column) for column in zip(*self.rows)]
        self.rows = []
        return Transitions(*columns).head(len(columns[0]))


class _Advance(BaseCallback):
    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell = tell

    def _on_step(self) -> bool:
        self._tell(self.num_timesteps)
        return True


def _train(
    run: SACRun, folder: Path, ends: list[int], done: int, env: GymnasiumCopies, advance: Callable[[int, str], None]
) -> None:
    recorder = _Recorder(make_one(run.env))
    flat = gymnasium.wrappers.FlattenObservation(recorder)
    vector = DummyVecEnv([lambda: Monitor(flat)])
    hyper = _hyper_parameters(run)
    net = {"net_arch": [run.hidden, run.hidden]}
    if done:
        model = SAC.load(folder / f"state-{done}.zip", env=vector, device="cpu", buffer_size=hyper["buffer_size"])
        _refill(model, concatenate([_load_chunk(folder, end)[0] for end in ends if end <= done]))
    else:
        model = SAC("MlpPolicy", vector, policy_kwargs=net, seed=_number(run.seed, 0), device="cpu", **hyper)
    words = "collecting the first steps"
    for end in (end for end in ends if end > done):
        advance(model.num_timesteps, words)
        number = _number(run.seed, end)
        random.seed(number)
        np.random.seed(number)  # noqa: NPY002  (stable-baselines3 draws its batches from it)
        torch.manual_seed(number)
        model.action_space.seed(number)
        vector.seed(number)
        model.set_env(vector, force_reset=True)
        recorder.rows = []
        tell = _Advance(lambda steps, words=words: advance(steps, words))  # type: ignore[misc]
        model.learn(end - model.num_timesteps, callback=tell, reset_num_timesteps=False)
        weights = _weights(model)
        score = float(returns(env, sac_policy(weights), _EPISODES, [run.seed, 1]).mean())
        words = f"return {score:.1f}"
        _save_chunk(folder, end, recorder.take(), weights, score)
        _save_state(model, folder, end)
    vector.close()


def _number(seed: int, steps: int) -> int:
    return int(np.random.SeedSequence([seed, 3, steps]).generate_state(1)[0])


def _save_chunk(folder: Path, end: int, log: Transitions, weights: dict[str, Array], score: float) -> None:
    arrays: dict[str, Array] = {f"log/{field.name}": getattr(log, field.name) for field in fields(log)}
    arrays |= {f"oracle/{name}": value for name, value in weights.items()}
    with replacing(folder / f"chunk-{end}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, score=np.asarray(score), **arrays)  # type: ignore[arg-type]


def _load_chunk(folder: Path, end: int) -> tuple[Transitions, dict[str, Array], float]:
    path = folder / f"chunk-{end}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            log = Transitions(*(arrays[f"log/{field.name}"] for field in fields(Transitions)))
            score = float(arrays["score"])
    except Exception as error:  # zipfile, zlib and numpy raise half a dozen kinds on damaged files
        raise InputError(
            f"{path}: unreadable, expected a chunk of a behaviour run; remove {folder} to redo it"
        ) from error
    return log, {name.removeprefix("oracle/"): value for name, value in arrays.items() if name[:7] == "oracle/"}, score


def _save_state(model: SAC, folder: Path, end: int) -> None:
    path = folder / f"state-{end}.zip"
    with replacing(path) as temporary, temporary.open("wb") as file:
        model.save(file)
    for old in folder.glob("state-*.zip"):
        if old != path:
            old.unlink()


def _refill(model: SAC, log: Transitions) -> None:
    """The replay buffer as it was when the log ended (it holds the whole run, or its last million steps)."""
    buffer = model.replay_buffer
    assert buffer is not None
    last = slice(max(0, len(log) - buffer.buffer_size), None)
    for obs, act, rew, next_obs, term, trunc in zip(*(getattr(log, field.name)[last] for field in fields(log))):
        info = {"TimeLimit.truncated": bool(trunc)}
        buffer.add(obs[None], next_obs[None], act[None], np.array([rew]), np.array([term or trunc]), [info])


def _weights(model: SAC) -> dict[str, Array]:
    """The networks in the store's layout: kernels [in, out], the twin critics stacked on a leading axis."""

    def array(tensor: torch.Tensor) -> Array:
        return tensor.detach().cpu().numpy().copy()

    def layer(name: str, linear: Any) -> dict[str, Array]:
        return {f"{name}/weight": array(linear.weight.T), f"{name}/bias": array(linear.bias)}

    actor, twins = model.actor, model.critic.q_networks
    arrays = layer("actor/0", actor.latent_pi[0]) | layer("actor/1", actor.latent_pi[2])
    arrays |= layer("actor/mean", actor.mu) | layer("actor/log_std", actor.log_std)
    for depth in range(3):
        layers = [layer(f"critic/{depth}", twin.get_submodule(str(2 * depth))) for twin in twins]
        arrays |= {name: np.stack([each[name] for each in layers]) for name in layers[0]}
    assert model.log_ent_coef is not None
    return arrays | {"log_alpha": array(model.log_ent_coef)[0]}
