"""The program ``pbrl``: which command, which errors, which exit code.

A command is a function of the words after its name that returns an exit code. Modules are imported when their command
is called, so that ``pbrl --help`` need not wait for torch.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from pbrl.errors import InputError

COMMANDS = {
    "demo": (
        "commands:demo",
        "compare preference learners on the MuJoCo data that ships, in minutes",
    ),
    "train": (
        "train_command:train",
        "train agents: seeds and settings as one stack (pbrl train --help)",
    ),
    "evaluate": (
        "evaluate:evaluate",
        "play episodes with the agents of a finished or running run",
    ),
    "data": (
        "data_commands:data",
        "make, list, describe, import and join data sets (pbrl data --help)",
    ),
    "label": (
        "label_command:label",
        "let people label pairs of clips in a browser; export, import (pbrl label --help)",
    ),
    "check": (
        "check_command:check",
        "check claims of papers, each with a control that must fail (pbrl check --help)",
    ),
    "regret": (
        "regret_command:regret",
        "regret curves of tabular agents in finite MDPs (pbrl regret --help)",
    ),
    "report": ("commands:report", "make one HTML page (and the same as Markdown) of one or more runs"),
    "bench": ("commands:bench", "measure and compare: {benches} (pbrl bench --help)"),
}
HELP = """usage: pbrl COMMAND ...

Preference-based and classical reinforcement learning on stacks of seeds.

commands:
{commands}

Start with:
  pbrl demo
  pbrl train cpl --dataset local/reacher/mixed-v1 --labels regret --seed 0 1 2 3 --updates 2000 --hidden 64 64
  pbrl COMMAND --help
"""
PACKAGES = ("pbrl", "envs", "agents", "experiments")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and give its exit code: 0, 2 for bad input (one sentence on stderr), 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        check_packages()
        if not words or words[0] in ("-h", "--help", "help"):
            benches = ", ".join(importlib.import_module(".command_line.commands", __package__).BENCHES)
            listed = (_line(name, summary.format(benches=benches)) for name, (_, summary) in COMMANDS.items())
            print(HELP.format(commands="\n".join(listed)), end="")
            return 0
        if words[0] == "--version":
            print(f"pbrl {importlib.import_module('pbrl').__version__}")
            return 0
        return _command(words[0])(words[1:])
    except InputError as error:
        return fail(str(error))
    except KeyboardInterrupt as stop:
        print(f"\npbrl: stopped{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
    except SystemExit as stop:  # tyro's way to end after help or words that it cannot read
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0
    except BrokenPipeError:  # as in `pbrl data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise
        return fail(f"{error.filename or 'the output'}: cannot be written ({error.strerror}), expected free space")
    except (MemoryError, RuntimeError) as error:
        wanted = out_of_memory(error)
        if wanted is None:
            raise
        return fail(f"the memory is not enough for {wanted}, expected smaller sizes, or fewer members or pairs")


def _line(name: str, summary: str) -> str:
    """A command in the list of all, broken where it is long."""
    return textwrap.fill(
        summary, 100, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12, break_on_hyphens=False
    )


def out_of_memory(error: Exception) -> str | None:
    """What did not fit into the memory (of the machine or of its GPU), or None for an error of another kind."""
    found = str(error)
    if not isinstance(error, MemoryError) and not re.search(r"can't allocate memory|out of memory", found):
        return None
    size = re.search(r"allocate ([\d.]+ ?\w+)", found)  # as torch and numpy tell it
    return "what is asked for" if size is None else f"another {size[1]}"


def fail(sentence: str) -> int:
    """Tell what is wrong with the input; the exit code 2."""
    print(f"pbrl: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


def check_packages() -> None:
    """Raise InputError unless the packages in use are those beside this file: their names are common."""
    parent = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        origin = Path(found.origin).resolve().parent if found is not None and found.origin else None
        if origin != parent / name:
            raise InputError(f"the package {name!r} in use is {origin}, expected {parent / name}: another one hides it")


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown command {name!r}{hint}, expected one of {', '.join(COMMANDS)}")
    module, _, function = COMMANDS[name][0].partition(":")
    module = f"experiments.command_line.{module}"
    command: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    return command
