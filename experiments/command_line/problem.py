"""The problem of a run: data, labelled pairs and simulator, from options, with every check before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envs
from pbrl import data, rng
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.checks import check_finite
from pbrl.errors import InputError
from pbrl.labelers.oracle import load_critic
from pbrl.labelers.teachers import LABELERS, make_labeler, mean_segment_return
from pbrl.spec import Spec

from .options import DataOptions, LabelOptions

UNLABELLED = ("none", "true_reward")
FILES = (".npz", ".hdf5", ".h5")


@dataclass(frozen=True, eq=False)
class Answers:
    """Labelled pairs of one labeler.

    Attributes:
        train: to learn from.
        held_out: of other rows of the data, or None.
    """

    train: Preferences
    held_out: Preferences | None


@dataclass(frozen=True, eq=False)
class Simulator:
    """Where to play.

    Attributes:
        env: its id.
        reference: returns that count 0 and 100, or None: scores are returns then.
    """

    env: str
    reference: tuple[float, float] | None


def load_dataset(options: DataOptions) -> Dataset | None:
    """The data set that is named, if any."""
    return None if options.dataset is None else data.load(options.dataset)


def load_file(name: str) -> Preferences:
    """Stored answers: ours (.hdf5) or humans' (.npz).

    Raises:
        InputError: damaged, or unusable.
    """
    stored = data.load_human(name) if name.endswith(".npz") else Preferences.load(name)
    stored.check()
    return stored


def is_file(labels: str) -> bool:
    """Whether labels are a file of answers, by name."""
    return labels.endswith(FILES)


def answers(options: LabelOptions, labels: str, dataset: Dataset | None, source: str | None) -> Answers:
    """The labelled pairs of one labeler, or of a file, split in two.

    Args:
        labels: one of ``LABELERS``, or a file.
        dataset: where pairs are drawn from; a file has its own.
        source: name or path of the data set, beside which the oracle of regret labels lies.

    Raises:
        InputError: unknown labels, no data set, no oracle, or no usable answer.
    """
    if is_file(labels):
        stored = load_file(labels)
    else:
        if labels not in LABELERS:
            expected = ", ".join((*LABELERS, *UNLABELLED))
            raise InputError(f"unknown labels {labels!r}, expected a file or one of {expected}")
        if dataset is None or source is None:
            raise InputError(f"labels {labels!r} need --dataset, expected a name such as local/reacher/mixed-v1")
        critic = load_critic(data.resolve(source)) if labels.startswith("regret") else None
        labeler = make_labeler(labels, critic=critic, gamma=options.label_gamma, **_teacher(options, dataset))
        key = rng.keys([options.label_seed])[0]
        pairs = Pairs.sample(dataset, options.pairs, options.segment_length, rng.fold(key, "pairs"))
        stored = labeler(pairs, rng.fold(key, "answers"))
        stored.check()
    if not options.held_out:
        return Answers(stored, None)
    train, held_out = stored.split(options.held_out, rng.fold(rng.keys([options.label_seed])[0], "held out"))
    train.check()
    return Answers(train, held_out)


def _teacher(options: LabelOptions, dataset: Dataset) -> Mapping[str, Any]:
    margin = options.label_margin
    if margin is None and (options.label_skip or options.label_equal):
        margin = mean_segment_return(dataset, options.segment_length)
    names = ("beta", "myopia", "skip", "equal", "mistake")
    return {name: getattr(options, f"label_{name}") for name in names} | {"margin": margin}


def spec_of(dataset: Dataset | None, stored: Preferences | None) -> Spec:
    """What the agent may know of the problem: the data set's, or that of segments without one.

    Raises:
        InputError: neither is given.
    """
    if dataset is not None:
        return dataset.spec
    if stored is None:
        raise InputError("--dataset is missing, expected a name such as local/reacher/mixed-v1 (pbrl data list)")
    segments = stored.pairs.segments
    check_finite(segments.obs, "obs")
    flat = segments.obs.double().flatten(0, 1)
    return Spec(
        name=segments.source,
        obs_size=segments.obs.shape[-1],
        act_size=segments.act.shape[-1],
        obs_mean=tuple(flat.mean(0).tolist()),
        obs_std=tuple(flat.std(0, correction=0).tolist()),
    )


def simulator(options: DataOptions, dataset: Dataset | None, spec: Spec) -> Simulator | None:
    """Where to play: the simulator that was asked for, or the data set's; None where nobody names one.

    Raises:
        InputError: an unknown simulator, other sizes than the data's, or no time limit.
    """
    env = options.env or (dataset.env if dataset is not None else "")
    if not env:
        return None
    check_simulator(env, spec)
    known = dataset is not None and env == dataset.env and "reference" in dataset.info
    low, high = dataset.info["reference"] if dataset is not None and known else (0.0, 0.0)
    return Simulator(env, (float(low), float(high)) if known and low < high else None)


def check_simulator(env: str, spec: Spec) -> None:
    """Raise InputError unless one can play in ``env`` with an agent for problems of this ``spec``."""
    probe = envs.make(env, 1)
    found = probe.spec
    probe.close()
    if (found.obs_size, found.act_size) != (spec.obs_size, spec.act_size):
        sizes = f"{found.obs_size} observations and {found.act_size} actions"
        raise InputError(f"environment {env} has {sizes}, expected {spec.obs_size} and {spec.act_size} as {spec.name}")
    if found.horizon is None:
        raise InputError(f"environment {env} has no time limit, expected one that ends every episode")


def check_labels(labels: tuple[str, ...], agent: str, wants_pairs: bool) -> tuple[str, ...]:
    """The labels to train with: those that were asked for, or the default for an agent that does or does not want any.

    Raises:
        InputError: labels for an agent that takes none, none for one that does, or the same labels twice.
    """
    if not labels:
        return ("partial_return",) if wants_pairs else ("none",)
    for name in labels:
        if labels.count(name) > 1:
            raise InputError(f"labels {name!r} are given twice, expected different ones")
        if (name in UNLABELLED) == wants_pairs:
            expected = "labels such as partial_return or regret" if wants_pairs else "none (or true_reward)"
            raise InputError(
                f"labels are {name!r} but {agent} {'needs' if wants_pairs else 'takes no'} labels, expected {expected}"
            )
    if not wants_pairs and len(labels) > 1:
        raise InputError(f"labels are {' and '.join(labels)}, expected one of them: {agent} takes none")
    return labels


def absolute(name: str | None) -> str | None:
    """A path as one that holds in every folder; a data set's name as it is."""
    return str(Path(name).expanduser().resolve()) if name is not None and Path(name).expanduser().exists() else name
