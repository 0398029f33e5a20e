"""experiments -> {agents, envs} -> pbrl -> libraries: who may import whom, read off the syntax of every file."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "experiments": {"agents", "envs", "pbrl"},
    "agents": {"pbrl"},
    "envs": {"pbrl"},
    "pbrl": set(),
}
FILES = sorted(path.relative_to(ROOT) for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """(line, level, module) of every import, also inside functions and by name; level 0 is absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, 0, node.args[0].value


def violations(file: Path, text: str) -> list[str]:
    """What a file with this text at this path (relative to the root) imports against the rule."""
    package, depth = file.parts[0], len(file.parts) - 1
    found = []
    for line, level, module in imports(ast.parse(text)):
        top = module.split(".")[0]
        if level > depth:
            found.append(f"{file}:{line} climbs out of {package}")
        elif level == 0 and top == package:
            found.append(f"{file}:{line} imports its own package by name, not relatively")
        elif level == 0 and top == "tests":
            found.append(f"{file}:{line} imports the tests")
        elif level == 0 and top in MAY_IMPORT and top not in MAY_IMPORT[package]:
            found.append(f"{file}:{line} imports {top}, which {package} must not know")
    return found


def test_every_file_keeps_the_rule() -> None:
    assert {path.parts[0] for path in FILES} == set(MAY_IMPORT)
    assert [found for path in FILES for found in violations(path, (ROOT / path).read_text())] == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("pbrl/losses.py", "import agents", "imports agents, which pbrl must not know"),
        ("pbrl/losses.py", "from agents.offline import bc", "imports agents, which pbrl must not know"),
        ("pbrl/data/files.py", "import numpy, envs.mujoco", "imports envs, which pbrl must not know"),
        ("pbrl/loops.py", "def f():\n    from experiments import cli", ":2 imports experiments"),
        ("pbrl/loops.py", "import importlib\nimportlib.import_module('agents.offline.bc')", ":2 imports agents"),
        ("pbrl/loops.py", "__import__('envs')", "imports envs"),
        ("agents/offline/bc.py", "import envs", "imports envs, which agents must not know"),
        ("envs/mujoco.py", "from agents import find", "imports agents, which envs must not know"),
        ("agents/offline/bc.py", "from experiments.cli import main", "imports experiments"),
        ("envs/mujoco.py", "if False:\n    import experiments", ":2 imports experiments"),
        ("agents/preference/p_iql.py", "from agents.offline.iql import IQL", "imports its own package by name"),
        ("pbrl/nets/heads.py", "from pbrl.nets.mlp import StackedMLP", "imports its own package by name"),
        ("pbrl/losses.py", "from .. import envs", "climbs out of pbrl"),
        ("pbrl/data/files.py", "from ...envs import make", "climbs out of pbrl"),
        ("pbrl/nets/heads.py", "from tests import tabular", "imports the tests"),
    ],
)
def test_a_planted_violation_is_seen(file: str, text: str, complaint: str) -> None:
    found = violations(Path(file), text)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("experiments/cli.py", "import agents, envs, pbrl\nfrom . import data_make"),
        ("agents/offline/bc.py", "import torch\nfrom pbrl.nets.mlp import StackedMLP\nfrom ..preference import cpl"),
        ("pbrl/data/files.py", "from .. import rng\nfrom .dataset import Dataset\nimport h5py, minari"),
        ("pbrl/nets/heads.py", "import environs\nimport agentsmith.pbrl"),  # names that only look alike
    ],
)
def test_what_is_allowed_is_not_reported(file: str, text: str) -> None:
    assert violations(Path(file), text) == []


def rooms(files: dict[Path, str]) -> dict[str, set[str]]:
    """Which folders and files at the top of pbrl each of them imports, by files (relative to the root) and texts."""
    found: dict[str, set[str]] = {}
    for file, text in files.items():
        home = file.with_suffix("").parts
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                source = [*home[: len(home) - node.level], *(node.module or "").split(".")]
                names = [alias.name for alias in node.names] if source == ["pbrl", ""] else source[1:2]
                found.setdefault(home[1], set()).update(set(names) - {home[1]})
    return found


def test_no_folder_of_pbrl_imports_itself_by_way_of_another() -> None:
    files = {path: (ROOT / path).read_text() for path in FILES if path.parts[0] == "pbrl"}
    order = list(graphlib.TopologicalSorter(rooms(files)).static_order())
    assert order.index("errors") < order.index("rng") < order.index("nets") < order.index("parts")


def test_a_planted_circle_is_seen() -> None:
    files = {
        Path("pbrl/data/scores.py"): "from ..evaluation import rollout",
        Path("pbrl/evaluation.py"): "from . import play",
        Path("pbrl/play/memory.py"): "def f():\n    from ..data.source import Source",
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(rooms(files)).prepare()


def test_importing_the_library_loads_no_slow_or_optional_package() -> None:
    """stable-baselines3 takes seconds to import, and Minari and d4rl need not be installed."""
    modules = [".".join(path.with_suffix("").parts) for path in FILES if path.parts[0] in ("pbrl", "agents")]
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(sorted({'stable_baselines3', 'minari', 'd4rl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
