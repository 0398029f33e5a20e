"""The delivery domain's checks read the files that its authors publish, in the form in which they publish them.

``...board.json`` is rows of codes as floats. X [N, 3] holds, second minus first segment, partial returns and V* of the
first and of the last state; Y [N] is 0, 1/2 or 1, the probability that the second is preferred; both are float64.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from experiments import cli
from experiments.checks import human_models, partial_return
from pbrl.theory.delivery import board, delivery_grid
from pbrl.theory.discounted import policy_iteration
from pbrl.theory.instances import random_walks
from pbrl.theory.mdps import DiscountedMDP, Floats

FOLDER = human_models.FOLDER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files as they are published, of the library's own board turned upside down and a teacher's answers."""
    codes = board()[::-1]
    (tmp_path / "2021-07-29_sparseboard2-notrap_board.json").write_text(json.dumps(codes.astype(float).tolist()))
    mdp = delivery_grid(codes, gamma=1.0)
    value = policy_iteration(mdp).value
    state, act = random_walks(mdp, 4000, 3, seed=[1])
    alive = (state[:, :-1] < len(mdp.reward) - 1).all(-1)
    state, act = state[alive], act[alive]
    half = len(act) // 2
    each = np.stack([mdp.reward[state[:, :-1], act].sum(-1), value[state[:, 0]], value[state[:, -1]]], axis=1)
    gaps = each[half : 2 * half] - each[:half]
    better = gaps @ [1.0, -1.0, 1.0]
    draw = np.random.default_rng(0)
    label = np.where(np.abs(better) < 0.5, 0.5, (draw.random(half) < expit(0.5 * better)).astype(np.float64))
    np.save(tmp_path / "Trained-Control_full_filtered_X.npy", gaps)
    np.save(tmp_path / "Trained-Control_full_filtered_Y.npy", label)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def test_the_checks_are_about_those_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "K6", "K3-shift", "--size", "smoke", "--jobs", "1", "--out", str(folder / "runs")]
    assert cli.main([*words, "--json", str(folder / "out.json")]) == 0
    assert "2 PASS, 0 FAIL, 0 INCONCLUSIVE" in capsys.readouterr().out
    people, shift = json.loads((folder / "out.json").read_text())
    label = np.load(folder / "Trained-Control_full_filtered_Y.npy")
    assert 0 < (label == 0.5).sum() < len(label), "the answers must have ties"
    assert people["note"].startswith(f"{len(label)} pairs")
    assert people["estimate"] < -0.02
    found = partial_return.flips(delivery_grid(board()[::-1], gamma=1.0))
    assert shift["note"].startswith(f"of 92 greedy actions {found.greedy.sum()} change")
    assert found.greedy.sum() != partial_return.flips(delivery_grid(gamma=1.0)).greedy.sum(), "another board"


def _value_iteration(mdp: DiscountedMDP, rounds: int) -> Floats:
    """[S, A] as a plain program has it: from zero, no ties told from rounding."""
    value = np.zeros(len(mdp.reward))
    for _ in range(rounds):
        q: Floats = mdp.reward + mdp.gamma * mdp.transition @ value
        value = q.max(-1)
    return q


@pytest.mark.skipif(not os.environ.get(FOLDER), reason=f"{FOLDER} names no folder with the authors' files")
def test_the_authors_board_has_the_published_numbers() -> None:
    (path,) = Path(os.environ[FOLDER]).glob("*board.json")
    mdp = delivery_grid(board(path), gamma=1.0)
    assert policy_iteration(mdp).value[:-1].mean() == pytest.approx(41.5326, abs=1e-4)
    assert policy_iteration(replace(mdp, gamma=0.999)).value[:-1].mean() == pytest.approx(41.2079, abs=1e-4)
    found = partial_return.flips(mdp)
    assert (int(found.greedy.sum()), int(found.every.sum())) == (55, 48)
    shifted = replace(mdp, reward=np.r_[mdp.reward[:-1] + 3.0, mdp.reward[-1:]], gamma=0.999)
    plain, paid = (_value_iteration(one, 20_000)[:-1].argmax(-1) for one in (mdp, shifted))
    assert int((plain != paid).sum()) == 54
