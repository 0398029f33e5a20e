"""The problem of a run: data, labelled pairs and simulator, from options, with every check before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

import envs
from pbrl import data, rng
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.checks import check_finite
from pbrl.data.files import about
from pbrl.data.rankings import Rankings
from pbrl.data.segments import windows
from pbrl.errors import InputError
from pbrl.labelers.general import General
from pbrl.labelers.mixture import Mixture
from pbrl.labelers.named import EXAMPLES, is_named, make_named
from pbrl.labelers.oracle import load_critic
from pbrl.labelers.protocols import Labeler
from pbrl.labelers.ranker import rank
from pbrl.labelers.teachers import LABELERS, Teacher, make_labeler, mean_segment_return
from pbrl.spec import Spec

from ..questions import put_aside, questions
from .arguments import option
from .options import DataOptions, LabelOptions

UNLABELLED = ("none", "true_reward")
FILES = (".npz", ".hdf5", ".h5")
IN_REWARD = ("partial_return", "partial_return:sum")
"""The labelers whose scores are returns of segments."""
DISCOUNTED = "partial_return:discounted"


@dataclass(frozen=True, eq=False)
class Answers:
    """Labelled pairs of one labeler.

    Attributes:
        train: to learn from.
        held_out: of other episodes, or of a file's other rows, or None.
        note: a sentence that the user should read, or "".
        rankings: to learn from in place of ``train``, which are all pairs of them, or None.
    """

    train: Preferences
    held_out: Preferences | None
    note: str = ""
    rankings: Rankings | None = None


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


def answers(
    options: LabelOptions, labels: str, dataset: Dataset | None, source: str | None, *, ranked: bool = False
) -> Answers:
    """The labelled pairs of one labeler, or of a file, in two parts: to learn from, and held out.

    A labeler is asked about ``pairs`` pairs to learn from, and about others of episodes put aside. Stored answers are
    what they are: their split drops pairs that belong to neither side.

    Args:
        labels: one of ``LABELERS``, or a file.
        dataset: where pairs are drawn from; a file has its own.
        source: name or path of the data set, beside which the oracle of regret labels lies.
        ranked: learn from lists in order (``pairs`` of them, of ``list_length`` segments) and not from pairs.

    Raises:
        InputError: no data set, no oracle, too few episodes, or no usable answer on either side.
    """
    key = rng.keys([options.label_seed])[0]
    if is_file(labels):
        told = _split(load_file(labels), labels, options.held_out, rng.fold(key, "held out"))
    else:
        if dataset is None or source is None:
            raise InputError(f"labels {labels!r} need --dataset, expected a name such as local/reacher/mixed-v1")
        if ranked:
            told = _ranked(_teacher(options, labels, dataset, source), options, dataset, key)
        else:
            told = _asked(_labeler(options, labels, dataset, source), options, dataset, key)
    told.train.check()
    if told.held_out is not None:
        with about("held-out pairs (none with --held-out 0)"):
            told.held_out.check()
    return told


def _split(stored: Preferences, name: str, held_out: float, key: Tensor) -> Answers:
    if not held_out:
        return Answers(stored, None)
    train, held = stored.split(held_out, key)
    if not held.decisive.any():
        ties = f"the pairs of {name} that would be held out ({len(held)}) are ties, which nobody can predict"
        return Answers(stored, None, f"{ties}: all are learned from, a larger --held-out holds out more")
    dropped = len(stored) - len(train) - len(held)
    note = (
        f"{dropped} of the {len(stored)} pairs of {name} are not used, as they share steps with the pairs to learn from"
        f" ({len(train)}) and with the held-out ones ({len(held)}); --held-out 0 learns from all"
    )
    return Answers(train, held, note if dropped else "")


def _asked(labeler: Labeler, options: LabelOptions, dataset: Dataset, key: Tensor) -> Answers:
    count, length, share = options.pairs, options.segment_length, options.held_out
    places = int(windows(dataset, length).sum())
    if count > places * (places - 1) // 2:  # with a data set of any size, a typing error that would take all memory
        raise InputError(f"pairs is {count}, expected at most {places * (places - 1) // 2}: {dataset.name} has no more")
    if not share:
        return Answers(
            labeler(Pairs.sample(dataset, count, length, rng.fold(key, "pairs")), rng.fold(key, "answers")), None
        )
    held, rest = put_aside(dataset, share, length, key)
    held_out = max(1, round(share / (1.0 - share) * count))
    training, unseen = questions(held, rest, count, held_out, length, key)
    return Answers(labeler(training, rng.fold(key, "answers")), labeler(unseen, rng.fold(key, "held-out answers")))


def _ranked(teacher: Teacher | General, options: LabelOptions, dataset: Dataset, key: Tensor) -> Answers:
    if isinstance(teacher, General):
        raise InputError(f"labels by {teacher} are answers about pairs, expected a labeler with a score to rank")
    count, length, held, rest = options.pairs, options.segment_length, None, dataset
    if options.held_out:
        held, rest = put_aside(dataset, options.held_out, length, key)
    segments, lists = Rankings.sample(rest, count, options.list_length, length, rng.fold(key, "lists"))
    rankings = rank(teacher, segments, lists, rng.fold(key, "answers"))
    told = Answers(rankings.to_preferences(), None, rankings=rankings)
    if held is None:
        return told
    share = options.held_out / (1.0 - options.held_out)
    with about("held-out episodes"):
        unseen = Pairs.sample(held, max(1, round(share * count)), length, rng.fold(key, "held-out pairs"))
    return dataclasses.replace(told, held_out=teacher(unseen, rng.fold(key, "held-out answers")))


def _labeler(options: LabelOptions, labels: str, dataset: Dataset, source: str) -> Labeler:
    """The teacher who is asked, or a crowd of teachers of whom some prefer the opposite."""
    teacher, users = _teacher(options, labels, dataset, source), options.label_users
    if users == 1:
        return teacher
    opposed = round(options.label_opposed * users)
    opposite = dataclasses.replace(teacher, mistake=1.0 - teacher.mistake)
    return Mixture((teacher,) * (users - opposed) + (opposite,) * opposed, (1.0 / users,) * users)


def _teacher(options: LabelOptions, labels: str, dataset: Dataset, source: str) -> Teacher | General:
    margin = options.label_margin
    if margin is None and (options.label_skip or options.label_equal):
        if labels not in IN_REWARD:
            raise InputError(
                f"--label-margin is missing, expected a number in units of {labels!r}: the mean return of a segment is "
                f"the unit of {IN_REWARD[0]} alone"
            )
        margin = mean_segment_return(dataset, options.segment_length)
        if margin <= 0:
            raise InputError(
                f"--label-margin is missing, expected a number above 0 in units of {labels!r}: the mean return of a "
                f"segment, {margin:g}, is no unit"
            )
    faults = {name: getattr(options, f"label_{name}") for name in ("beta", "myopia", "skip", "equal", "mistake")}
    if is_named(labels):
        return make_named(labels, dataset.spec, margin=margin, **faults)
    return make_labeler(
        labels,
        critic=load_critic(data.resolve(source)) if labels.startswith("regret") else None,
        gamma=options.label_gamma if labels == DISCOUNTED else None,
        margin=margin,
        **faults,
    )


def spec_of(dataset: Dataset | None, stored: Preferences | None) -> Spec:
    """What the agent may know of the problem: the data set's, or that of segments without one.

    Raises:
        InputError: neither is given.
    """
    if dataset is not None:
        return dataset.spec
    if stored is None:
        raise InputError(
            "--dataset is missing, expected a name such as local/reacher/mixed-v1 (pbrl data list), or for agents "
            "such as sac a simulator to learn in, --env and --env-steps"
        )
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
    if found.objectives != spec.objectives:
        many = f"{found.objectives} reward{'s' * (found.objectives > 1)} per step"
        raise InputError(f"environment {env} has {many}, expected {spec.objectives} as {spec.name}")
    if found.horizon is None:
        raise InputError(f"environment {env} has no time limit, expected one that ends every episode")


def check_labels(labels: tuple[str, ...], agent: str, wants_pairs: bool) -> tuple[str, ...]:
    """The labels to train with: those that were asked for, or the default for an agent that does or does not want any.

    Raises:
        InputError: unknown labels, labels for an agent that takes none, none for one that does, or the same ones twice.
    """
    if not labels:
        return ("partial_return",) if wants_pairs else ("none",)
    for name in labels:
        if labels.count(name) > 1:
            raise InputError(f"labels {name!r} are given twice, expected different ones")
        known = name.partition(":")[0] == "page" or name in (*LABELERS, *UNLABELLED)  # a page answers those who ask
        if not known and not is_file(name) and not is_named(name):
            expected = ", ".join((*LABELERS, *EXAMPLES, *UNLABELLED))
            raise InputError(f"unknown labels {name!r}, expected a file or one of {expected}")
        if (name in UNLABELLED) == wants_pairs:
            expected = "labels such as partial_return or regret" if wants_pairs else "none (or true_reward)"
            raise InputError(
                f"labels are {name!r} but {agent} {'needs' if wants_pairs else 'takes no'} labels, expected {expected}"
            )
    if not wants_pairs and len(labels) > 1:
        raise InputError(f"labels are {' and '.join(labels)}, expected one of them: {agent} takes none")
    return labels


def check_effect(
    options: LabelOptions,
    labels: tuple[str, ...],
    agent: str,
    wants_pairs: bool,
    given: Collection[str],
    *,
    ranked: bool = False,
) -> None:
    """Raise InputError where an option of ``LabelOptions`` was ``given`` that these labels have no use for.

    ``ranked``: the agent learns from lists in order, which no file holds.
    """
    for name in filter(is_file, labels if ranked else ()):
        raise InputError(f"labels {name!r} are answers about pairs, expected a labeler such as partial_return to rank")
    own = [item.name for item in dataclasses.fields(options) if item.name != "labels"]
    unused: dict[str, str] = {}
    if not wants_pairs:
        unused = dict.fromkeys(own, f"{agent} takes no labels")
    elif all(map(is_file, labels)):
        unused = dict.fromkeys(own, "the file has its own pairs and answers")
        del unused["held_out"]
        if options.held_out:
            del unused["label_seed"]  # it says which are held out
    else:
        if DISCOUNTED not in labels:
            unused["label_gamma"] = f"it is the discount of {DISCOUNTED}"
        if not (options.label_equal or options.label_skip):
            unused["label_margin"] = "it is the unit of --label-equal and --label-skip"
        if options.label_users == 1:
            unused["label_opposed"] = "it is a share of several --label-users"
        if ranked:
            faults = ("mistake", "equal", "skip", "myopia", "margin", "users", "opposed")
            unused |= dict.fromkeys((f"label_{fault}" for fault in faults), "lists are put in order by one teacher")
    if not ranked:
        unused.setdefault("list_length", "answers are about pairs")
    for name in own:
        if name in unused and name in given:
            raise InputError(
                f"{option(name)} has no effect on labels {' '.join(labels)}: {unused[name]}, expected it left out"
            )


def absolute(name: str | None) -> str | None:
    """A path as one that holds in every folder, also in page:FOLDER; a data set's name as it is."""
    if name is not None and name.startswith("page:"):
        return f"page:{Path(name.removeprefix('page:')).expanduser().resolve()}"
    return str(Path(name).expanduser().resolve()) if name is not None and Path(name).expanduser().exists() else name


def unplaced(labels: str) -> str:
    """Labels without the folder in which their file, or the folder of page:FOLDER, lies."""
    prefix = "page:" if labels.startswith("page:") else ""
    return prefix + Path(labels.removeprefix(prefix)).name if prefix or is_file(labels) else labels
