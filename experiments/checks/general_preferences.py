"""G1 to G3: how many dimensions a skew-symmetric preference embedding needs, and what a reward cannot say."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import schur
from scipy.special import xlogy
from torch import Tensor

from pbrl.errors import InputError
from pbrl.losses import bradley_terry
from pbrl.theory.alignment_bandit import minimise, pairs
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.games import cycle
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly

PAPER = "GPM (Zhang et al., ICML 2025)"
SURE = 0.9


def scores(embedding: Tensor) -> Tensor:
    """[Y, 2 k] -> [Y, Y] skew scores sum_l (v_i,2l v_j,2l+1 - v_i,2l+1 v_j,2l)."""
    even, odd = embedding[:, 0::2], embedding[:, 1::2]
    return even @ odd.mT - odd @ even.mT


def embedding(skew: Floats, blocks: int) -> Floats:
    """[Y, 2 blocks] vectors whose scores are the ``blocks`` largest parts of a skew-symmetric matrix (real Schur)."""
    triangular, basis = schur(skew, output="real")
    found = []
    for first in range(len(skew) - 1):
        size = float(triangular[first, first + 1])
        if abs(size) > 1e-12 and abs(float(triangular[first + 1, first])) > 1e-12:
            found.append((abs(size), size, basis[:, first], basis[:, first + 1]))
    found.sort(key=lambda part: -part[0])
    columns = []
    for weight, size, one, two in found[:blocks]:
        columns += [np.sqrt(weight) * one, np.sign(size) * np.sqrt(weight) * two]
    return np.stack(columns, axis=-1)


def _schur(trial: Trial, fewer: int) -> Measured:
    """Largest error of the scores of the Schur embedding of random skew-symmetric logits."""
    error = 0.0
    for seed in range(trial.pick(20, 100, 400)):
        for size in (4, 7, 8):
            square = np.random.default_rng([trial.seed, seed, size]).standard_normal((size, size))
            skew = square - square.T
            found = scores(torch.from_numpy(embedding(skew, size // 2 - fewer)))
            error = max(error, float(np.abs(found.numpy() - skew).max()))
    return exactly(error)


G1 = Check(
    id="G1",
    paper=PAPER,
    claim="Any preferences between n responses are exactly those of embeddings in 2 floor(n / 2) dimensions.",
    setting="random skew-symmetric logits of 4, 7 and 8 responses; vectors from the real Schur form",
    assumptions=("no preference is certain",),
    bound=1e-10,
    bound_says="rounding",
    provenance="derived",
    statistic=lambda trial: _schur(trial, 0),
    control=Control("two dimensions fewer", lambda trial: _schur(trial, 1)),
)


def tournament(kind: str) -> Floats:
    """[Y, Y] preferences won with probability 0.9: a cycle of 3 or a rotation of 5."""
    game: Floats = np.asarray(cycle({"cycle": 3, "rotation": 5}[kind], 2.0 * SURE - 1.0).numpy())
    return game


def fitted(kind: str, dimensions: int, restarts: int, seed: int) -> float:
    """Mean cross-entropy above the least possible of the best embedding found; 0 dimensions: one reward each."""
    game = tournament(kind)
    one, two = pairs(len(game))
    won = game[two, one]
    label = torch.from_numpy(won)
    floor = float(-(xlogy(won, won) + xlogy(1 - won, 1 - won)).mean())

    def risk(flat: Tensor) -> Tensor:
        if dimensions == 0:
            return bradley_terry(flat[two] - flat[one], label).mean()
        return bradley_terry(scores(flat.reshape(-1, dimensions))[two, one], label).mean()

    best = np.inf
    for restart in range(restarts):
        draw = np.random.default_rng([seed, restart, 91]).standard_normal(len(game) * max(dimensions, 1))
        try:
            found = minimise(risk, torch.from_numpy(draw), steps=300)
        except InputError:  # a start from which Newton's method has not converged
            continue
        best = min(best, float(risk(found)) - floor)
    return best


def _cycles(trial: Trial, embeds: bool) -> Measured:
    restarts = trial.pick(2, 4, 10)
    cases = {"cycle": 2 if embeds else 0, "rotation": 4 if embeds else 0}
    above = {kind: fitted(kind, size, restarts, trial.seed) for kind, size in cases.items()}
    return exactly(max(above.values()), ", ".join(f"{kind} {value:.2g}" for kind, value in above.items()))


G2 = Check(
    id="G2",
    paper=PAPER,
    claim="Two dimensions explain a cycle of three and four a rotation of five, as well as anything can.",
    setting="each preference is 0.9 sure; cross-entropy of all pairs above its least value, the entropy 0.3251",
    assumptions=("every pair is compared",),
    bound=1e-3,
    bound_says="nats above the entropy",
    provenance="paper",
    statistic=lambda trial: _cycles(trial, True),
    control=Control("a reward for each response: log 2, the loss of a coin", lambda trial: _cycles(trial, False)),
)


def _blocks(trial: Trial, kind: str) -> Measured:
    """Cross-entropy above its least value of embeddings in 2 dimensions."""
    return exactly(fitted(kind, 2, trial.pick(4, 8, 20), trial.seed))


G3 = Check(
    id="G3",
    paper=PAPER,
    claim="A rotation of five needs four dimensions: its logits have rank 4, and two dimensions leave a loss.",
    setting="each preference is 0.9 sure; the best of several fits from random starts",
    assumptions=("the best fit is found",),
    bound=0.01,
    bound_says="nats above the entropy (0.3373 against 0.3251)",
    provenance="practical",
    statistic=lambda trial: _blocks(trial, "rotation"),
    control=Control("a cycle of three, of rank 2", lambda trial: _blocks(trial, "cycle")),
    at_least=True,
)
