"""``pbrl label``: serve a page on which people label pairs of clips; ``pbrl label export | import | results``."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from pbrl.errors import InputError

from .options import Count, Flag, Name
from .reading import read

if TYPE_CHECKING:
    from ..labelling.store import Store

NEEDED = ("starlette", "uvicorn")
DATABASE = "labels.sqlite"
_FEW = 500  # answers for which the reward model's default sizes are far too much
HELP = """usage: pbrl label DATASET|FOLDER [OPTIONS]
       pbrl label COMMAND ...

Opens a page on which people say which of two clips is better.

commands:
  DATASET        draw pairs of clips from a data set and serve them (pbrl label DATASET --help)
  FOLDER         go on with a folder of labels, or answer what a run asks (pbrl train pebble --labels page)
  export FOLDER  write the answers as a file of preferences, for pbrl train AGENT --labels FILE
  import FILES   read others' human labels: Preference Transformer, DPPO, Uni-RLHF, npz pairs
  results FOLDER print agreement between annotators and each one's consistency as JSON
"""


@dataclass(frozen=True)
class LabelOptions:
    """Serves a page on which people say which of two clips of a data set is better.

    Answers are on the disk before the page moves on. Ctrl-C stops it, and the same command goes on.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET|FOLDER")]
    """A data set that `pbrl data list` shows, or a file; or a folder of labels, or of a run that asks, to go on."""
    pairs: Count = None
    """How many pairs. By default 100, or all of a file's."""
    segment_length: Count = None
    """Steps in a clip. By default 50."""
    query: str = "uniform"
    """Which pairs: uniform (at random), disagreement (the first fifth at random, then those about which reward models
    that learned from the answers so far disagree most), or a file: of preferences (.hdf5, .npz), or of rows (.csv)."""
    question: str = "Which of the two does better?"
    """What people are asked."""
    overlap: float = 0.2
    """Share of the pairs that every annotator is asked; any other pair is for one of them."""
    repeat: float = 0.1
    """Share of the pairs that an annotator is asked twice, half of them mirrored, to see how consistent answers are."""
    seed: int = 0
    """Seed of the pairs."""
    env: Name = None
    """Simulator that draws the clips. By default the one that the data set names."""
    renderer: Literal["drawing", "mujoco"] = "drawing"
    """What draws MuJoCo's tasks: pbrl itself, which works everywhere, or MuJoCo's renderer, through EGL or OSMesa."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Folder of the labels. By default labels/ and the data set's name."""
    host: str = "127.0.0.1"
    """Address to listen at; any other than this machine's own needs --open-to-network."""
    open_to_network: Flag = False
    """Let other machines connect, such as a phone: see what is printed then."""
    port: int = 8321
    """Port to listen at. 0: any that is free."""


@dataclass(frozen=True)
class ExportOptions:
    """Writes answers as a file of preferences, which pbrl train AGENT --labels FILE takes, and a table beside it."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of labels."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The file, .hdf5. By default preferences.hdf5 in the folder. The table gets the ending .csv."""
    rows: Literal["each", "mean"] = "each"
    """each: one row for each answer, with its annotator as the user; mean: one for each pair, with the mean."""
    annotator: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="")] = ()
    """Only the answers of these."""
    question: Name = None
    """Only the answers to this question; needed where there are several."""


@dataclass(frozen=True)
class ResultOptions:
    """Prints agreement between annotators and each one's consistency as JSON."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of labels."""


def label(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    if not arguments or (arguments[0] in ("-h", "--help") and len(arguments) == 1):
        print(HELP, end="")
        return 0
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "export": lambda words: _export(read(ExportOptions, words, "pbrl label export")),
        "import": _import,
        "results": lambda words: _results(read(ResultOptions, words, "pbrl label results")),
    }
    if arguments[0] in commands:
        commands[arguments[0]](arguments[1:])
    else:
        # Help alone, as with a data set before it, the data set would not be explained.
        words = ["--help"] if {"-h", "--help"} & set(arguments) else arguments
        _serve(read(LabelOptions, words, "pbrl label"), arguments)
    return 0


def folder_of(place: Path) -> Path | None:
    """The folder of labels that a path means: itself, or that of a run; None where it has none."""
    for folder in (place, place / "labels"):
        if (folder / DATABASE).is_file():
            return folder
    return None


def _existing(place: Path) -> Path:
    folder = folder_of(place.expanduser())
    if folder is None:
        raise InputError(f"{place}: no labels there, expected a folder that pbrl label made, with {DATABASE}")
    return folder


def _serve(options: LabelOptions, arguments: Sequence[str]) -> None:
    _check(options)
    from ..labelling import server
    from ..labelling.clips import start
    from ..labelling.supply import choosing

    server.check_address(options.host, open_to_network=options.open_to_network)
    going_on = folder_of(Path(options.dataset).expanduser())
    if going_on is not None:
        _check_nothing_new(arguments)
        folder = going_on
    else:
        folder = _with_pairs(options)
    if options.open_to_network and (text := server.warning(options.host)):
        print(f"pbrl: {text}")
    listening = server.open_socket(options.host, options.port)
    with closing(listening):
        clips = start(folder / "clips", folder / DATABASE, renderer=options.renderer)
        with choosing(folder / DATABASE):
            server.serve(
                folder,
                listening,
                clips,
                ready=lambda address: print(
                    f"{clips.sentence}\nOpen {address}\n"
                    f"Answers are kept in {folder}; Ctrl-C stops, pbrl label {folder} goes on.\n"
                    f"When there are enough: pbrl label export {folder}",
                    flush=True,
                ),
            )


def _check(options: LabelOptions) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"pbrl label needs {' and '.join(missing)}, expected the extra: pip install 'pbrl[label]'")
    for name, value in (("pairs", options.pairs), ("segment_length", options.segment_length)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")
    for name, share in (("overlap", options.overlap), ("repeat", options.repeat)):
        if not 0.0 <= share <= 1.0:
            raise InputError(f"{name} is {share:g}, expected a share of 0 to 1")
    if not 0 <= options.port < 1 << 16:
        raise InputError(f"port is {options.port}, expected 0 (any) to 65535")
    if not 0 <= options.seed < 1 << 63:
        raise InputError(f"seed is {options.seed}, expected a number from 0 to below 2 to the power of 63")
    if not options.question.strip() or len(options.question) > 300:
        raise InputError("question is empty or longer than 300 characters, expected a short one")


SERVING = ("--host", "--port", "--renderer", "--open-to-network")


def _check_nothing_new(arguments: Sequence[str]) -> None:
    """Raise InputError where an option is given that a folder has settled already."""
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in SERVING:
            raise InputError(f"{name} has no effect on a folder that has its pairs already, expected it left out")


def _with_pairs(options: LabelOptions) -> Path:
    """The folder of labels of a data set, with the pairs that the options ask for."""
    from pbrl import data

    from ..labelling.choose import Choice, first_pairs
    from ..labelling.store import Store
    from .problem import check_simulator

    place = Path(options.dataset).expanduser()
    if place.is_dir() and not (place / data.minari.DATA).is_file():
        _existing(place)  # which tells that there are no labels
    dataset = data.load(options.dataset)
    env = options.env or dataset.env
    if not env:
        raise InputError(f"{dataset.name} names no simulator that could draw it, expected --env such as Hopper-v5")
    check_simulator(env, dataset.spec)
    name = re.sub(r"[^\w.-]+", "-", dataset.name).strip("-.") or "unnamed"
    folder = Path("labels") / name if options.out is None else options.out.expanduser()
    choice = Choice(
        dataset=str(data.resolve(options.dataset).resolve()),
        fingerprint=dataset.fingerprint,
        env=env,
        query=options.query,
        question=" ".join(options.question.split()),
        pairs=options.pairs,
        segment_length=options.segment_length,
        overlap=options.overlap,
        repeat=options.repeat,
        seed=options.seed,
    )
    prepared = first_pairs(choice, dataset)
    store = Store(folder / DATABASE, create=True)
    try:
        labelled = store.about().get("fingerprint", dataset.fingerprint)
        if labelled != dataset.fingerprint:
            raise InputError(f"{folder} has labels of a data set {labelled}, expected another --out for {dataset.name}")
        known = len(store.pairs("WHERE original IS NOT NULL"))
        new = prepared(store)
        twice = len(store.pairs("WHERE original IS NOT NULL")) - known
        why = f"; {twice} of them come twice, to see how consistent answers are" if twice else ""
        print(f"{new - twice} new pairs of clips of {dataset.name}, drawn by {env}{why}.")
    finally:
        store.close()
    return folder


def _opened(folder: Path) -> Store:
    from ..labelling.store import Store

    return Store(_existing(folder) / DATABASE)


def _export(options: ExportOptions) -> None:
    from ..labelling.exported import preferences, write_table

    target = _existing(options.folder) / "preferences.hdf5" if options.out is None else options.out.expanduser()
    store = _opened(options.folder)
    try:
        found = preferences(store, rows=options.rows, annotators=options.annotator, question=options.question)
        found.save(target)
        write_table(store, target.with_suffix(".csv"))
    finally:
        store.close()
    ties = len(found) - int(found.decisive.sum())
    print(f"{len(found)} answers by {found.by.who}, {ties} of them ties: {target}\nand {target.with_suffix('.csv')}")
    source = found.pairs.segments.source
    modest = " --updates 500 --hidden 64 64 --batch-size 32" if len(found) < _FEW else ""
    print(f"Train on them: pbrl train reward_model --dataset {source} --labels {target}{modest}")


def _results(options: ResultOptions) -> None:
    from ..labelling.results import summary

    store = _opened(options.folder)
    try:
        print(json.dumps(summary(store), indent=1))
    finally:
        store.close()


def _import(words: Sequence[str]) -> None:
    from .label_import import run_import

    run_import(words)
