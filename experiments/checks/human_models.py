"""K6: which model predicts preferences on the delivery grid better, by partial return or by regret?

With ``PBRL_DELIVERY_DIR`` set to a folder that holds the published arrays of people's answers
(``Trained-Control_full_filtered_X.npy`` and ``..._Y.npy``; they have no licence and do not ship), the check is about
these; without it, about answers that a teacher who prefers by regret gives on this library's board.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from pbrl.errors import InputError
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.delivery import delivery_grid
from pbrl.theory.discounted import policy_iteration
from pbrl.theory.instances import random_walks
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import mean

FOLDER, CONDITION, FOLDS, SCALE = "PBRL_DELIVERY_DIR", "Trained-Control", 10, 0.5


def synthetic(trial: Trial, by_regret: bool) -> tuple[Floats, Floats, Floats]:
    """Differences of partial returns and of minus regrets [N], and labels [N], of pairs of segments of 3 steps."""
    mdp = replace(delivery_grid(), gamma=0.999)
    solved = policy_iteration(mdp)
    state, act = random_walks(mdp, trial.pick(6000, 12_000, 60_000), 3, seed=[trial.seed, 31])
    alive = (state[:, :-1] < len(mdp.reward) - 1).all(-1)
    state, act = state[alive], act[alive]
    returns, worth = (table[state[:, :-1], act].sum(-1) for table in (mdp.reward, solved.advantage))
    half = len(returns) // 2
    gaps = [score[half : 2 * half] - score[:half] for score in (returns, worth)]
    chance = expit(SCALE * gaps[1 if by_regret else 0])
    label = np.random.default_rng([trial.seed, 37]).random(half) < chance
    return gaps[0], gaps[1], label.astype(np.float64)


def human(folder: Path) -> tuple[Floats, Floats, Floats]:
    """The same of people's answers: X holds differences of partial return and of V* at either end.

    Raises:
        InputError: files that are missing or of another shape.
    """
    arrays = []
    for kind in ("X", "Y"):
        path = folder / f"{CONDITION}_full_filtered_{kind}.npy"
        try:
            arrays.append(np.load(path, allow_pickle=False).astype(np.float64))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}), expected the published array") from None
    gaps, label = arrays[0], arrays[1].ravel()
    if gaps.shape != (len(label), 3):
        raise InputError(f"{folder}: X is {list(gaps.shape)} and Y {list(label.shape)}, expected [N, 3] and [N]")
    return gaps[:, 0], gaps[:, 0] - gaps[:, 1] + gaps[:, 2], label


def loss(gap: Floats, label: Floats, scale: float) -> Floats:
    """[N] cross-entropy of labels under logistic(scale gap)."""
    entropy: Floats = np.logaddexp(0.0, scale * gap) - label * scale * gap
    return entropy


def held_out(gap: Floats, label: Floats, seed: int) -> Floats:
    """[N] cross-entropy of each label under the one-parameter model that the other folds fit best."""
    fold = np.random.default_rng([seed, 41]).permutation(len(gap)) % FOLDS
    result = np.empty(len(gap))
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        best = minimize_scalar(
            lambda scale, rows=train: float(loss(gap[rows], label[rows], scale).mean()),
            bounds=(0, 10),
            method="bounded",
        )
        result[test] = loss(gap[test], label[test], float(best.x))
    return result


def _difference(trial: Trial, data: tuple[Floats, Floats, Floats]) -> Measured:
    returns, worth, label = data
    by_return, by_regret = (held_out(gap, label, trial.seed) for gap in (returns, worth))
    note = f"{len(label)} pairs, cross-entropy {by_regret.mean():.3f} by regret, {by_return.mean():.3f} by return"
    return mean(by_regret - by_return, note)


def _answers(trial: Trial) -> Measured:
    folder = os.environ.get(FOLDER)
    return _difference(trial, human(Path(folder)) if folder else synthetic(trial, True))


K6 = Check(
    id="K6",
    paper="Regret preferences (Knox et al., TMLR 2024)",
    claim="Preferences that come from regret are predicted better by regret than by partial return.",
    setting="delivery grid, pairs of segments of 3 steps, one scale per model, 10-fold cross-entropy; people's answers "
    f"where {FOLDER} names a folder with the published arrays, else a teacher's",
    assumptions=("the preferences are by regret (for people: that is what the paper found)",),
    bound=-0.005,
    bound_says="a difference of held-out cross-entropy per pair that is clearly below 0",
    provenance="practical",
    statistic=_answers,
    control=Control("a teacher who prefers by return", lambda trial: _difference(trial, synthetic(trial, False))),
)
