"""``pbrl label import``: others' human labels as a file of preferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pbrl import data
from pbrl.errors import InputError

from ..labelling import foreign
from .options import Count, Flag, Name
from .reading import read


@dataclass(frozen=True)
class ImportOptions:
    """Reads others' human labels and writes a file of preferences, which pbrl train AGENT --labels FILE takes.

    Index files of Preference Transformer, DPPO and Uni-RLHF (pickles, of which nothing but numbers is loaded) need the
    data set whose rows they count; npz pairs have their own steps.
    """

    files: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE [FILE ...]", help_behavior_hint="")
    ]
    """The folder of the three index files, or the three (labels, indices, indices_2); or one .npz file."""
    dataset: Name = None
    """For index files: the D4RL file (.hdf5) whose rows they count, or a data set of ours."""
    segment_length: Count = None
    """For index files: steps in a segment, where their names do not tell. Those for MuJoCo of Preference Transformer
    have 100."""
    who: str = "human"
    """Who answered."""
    question: str = "Which of the two does better?"
    """What was asked."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The file to write, .hdf5. By default labels.hdf5 beside the labels, or the name of the .npz file."""
    overwrite: Flag = False
    """Replace a file of the same name."""


def run_import(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        InputError: whatever is wrong with the files or options.
    """
    options = read(ImportOptions, words, "pbrl label import")
    if not options.files:
        raise InputError("import has no files, expected the folder of index files, or an .npz file")
    paths = [path.expanduser() for path in options.files]
    if paths[0].suffix == ".npz":
        _from_npz(paths, options)
    else:
        _from_indices(paths, options)


def _from_npz(paths: Sequence[Path], options: ImportOptions) -> None:
    for name, value in (("--dataset", options.dataset), ("--segment-length", options.segment_length)):
        if value is not None:
            raise InputError(f"{name} has no effect on {paths[0]}: it has its own steps, expected it left out")
    if len(paths) > 1:
        raise InputError(f"{len(paths)} files, expected one .npz file at a time")
    target = _target(options, paths[0].with_suffix(".hdf5"))
    found = data.load_human(paths[0], who=options.who, question=options.question)
    found.save(target)
    _tell(found, target, "")


def _from_indices(paths: Sequence[Path], options: ImportOptions) -> None:
    files = foreign.find_files(paths)
    if options.dataset is None:
        raise InputError(f"--dataset is missing, expected the D4RL file whose rows {files.first.name} counts")
    length = options.segment_length or files.segment_length
    if length is None:
        raise InputError(f"--segment-length is missing, and the name of {files.first} does not tell it: expected 100?")
    if length < 1:
        raise InputError(f"segment_length is {length}, expected at least 1")
    target = _target(options, files.labels.with_name("labels.hdf5"))
    dataset = foreign.load_rows(options.dataset)
    found, crossing = foreign.load_indices(files, dataset, length, who=options.who, question=options.question)
    found.save(target)
    left = f"; left out, as a segment leaves its episode: {crossing}" if crossing else ""
    _tell(found, target, f" --dataset {options.dataset}", left)


def _target(options: ImportOptions, otherwise: Path) -> Path:
    target = otherwise if options.out is None else options.out.expanduser()
    if target.exists() and not options.overwrite:
        raise InputError(f"{target}: exists already, expected another --out, or --overwrite")
    return target


def _tell(found: data.Preferences, target: Path, dataset: str, left: str = "") -> None:
    ties = len(found) - int(found.decisive.sum())
    steps = found.pairs.segments.length
    print(f"{len(found)} answers about segments of {steps} steps, {ties} of them ties{left}: {target}")
    print(f"Train on them: pbrl train reward_model{dataset} --labels {target}")
