"""What contrastive preference learning finds, exactly and from finite data."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from pbrl.data.files import replacing
from pbrl.figures import STYLE
from pbrl.losses import contrastive
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import policy_iteration, soft_value_iteration
from pbrl.theory.figures import rates
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.mdps import DiscountedMDP, Floats
from pbrl.theory.measures import RESAMPLES, exactly, mean, resampled

PAPER = "CPL (Hejna et al., ICLR 2024)"
STATES, ACTIONS, GAMMA, ALPHA = 4, 3, 0.9, 0.5


@cache
def _mdp(seed: tuple[int, ...]) -> DiscountedMDP:
    return dirichlet_discounted(STATES, ACTIONS, GAMMA, seed=seed)


def features() -> Floats:
    """[144, S A] discounted visits of all segments of two steps."""
    pairs = list(itertools.product(range(STATES * ACTIONS), repeat=2))
    rows = np.zeros((len(pairs), STATES * ACTIONS))
    for row, (first, second) in zip(rows, pairs):
        row[first] += 1.0
        row[second] += GAMMA
    return rows


def fit(contrast: Floats, label: Floats, weight: Floats) -> Floats:
    """[S, A] log-policy that minimises CPL's loss, by Newton's method on logits (a tiny ridge picks among equals).

    Args:
        contrast: [N, S A] discounted visits of the second segments minus those of the first.
        label: [N] probability that the second is preferred.
        weight: [N] how often the pair was asked.
    """
    logits = np.zeros((STATES, ACTIONS))
    total = weight.sum()
    for _ in range(100):
        policy = np.exp(log_softmax(logits, axis=-1))
        # log pi = logits - logsumexp: its Jacobian is block diagonal, I - 1 pi'
        jacobian = np.zeros((STATES * ACTIONS, STATES * ACTIONS))
        for s in range(STATES):
            block = slice(s * ACTIONS, (s + 1) * ACTIONS)
            jacobian[block, block] = np.eye(ACTIONS) - policy[s]
        margin = ALPHA * contrast @ log_softmax(logits, axis=-1).ravel()
        share = expit(margin)
        slope = ALPHA * contrast.T @ (weight * (share - label)) / total  # in log pi
        gradient = jacobian.T @ slope
        inner = ALPHA**2 * (contrast * (weight * share * (1 - share))[:, None]).T @ contrast / total
        hessian = jacobian.T @ inner @ jacobian
        for s in range(STATES):  # the curvature of logsumexp, weighted by the slope
            block = slice(s * ACTIONS, (s + 1) * ACTIONS)
            bend = np.diag(policy[s]) - np.outer(policy[s], policy[s])
            hessian[block, block] -= slope[block].sum() * bend
        step = np.linalg.lstsq(hessian + 1e-13 * np.eye(len(hessian)), gradient, rcond=1e-11)[0]
        size = min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        logits = logits - size * step.reshape(logits.shape)
        logits -= logits.mean(-1, keepdims=True)
        if float(np.abs(step).max()) < 1e-13:
            break
    return np.asarray(log_softmax(logits, axis=-1))


def _pairs() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    one, two = np.triu_indices(len(features()), 1)
    return one, two


def _exact(trial: Trial, by_regret: bool) -> Measured:
    """Largest error of the policy that CPL finds from the exact probabilities of all pairs of segments."""
    error, rows, (one, two) = 0.0, features(), _pairs()
    contrast = rows[two] - rows[one]
    for seed in range(trial.pick(3, 10, 30)):
        mdp = _mdp((trial.seed, seed))
        soft = soft_value_iteration(mdp, ALPHA)
        table = soft.advantage if by_regret else mdp.reward
        found = fit(contrast, expit(contrast @ table.ravel()), np.ones(len(contrast)))
        error = max(error, float(np.abs(np.exp(found) - soft.policy).max()))
    return exactly(error)


_SETTING = "random MDPs, 4 states, 3 actions, gamma 0.9, temperature 0.5; segments of 2 steps"

CPL1 = Check(
    id="CPL-exact",
    paper=PAPER,
    claim="With all preferences known, CPL's minimiser is the soft-optimal policy.",
    setting=f"{_SETTING}; exact probabilities of all pairs of all 144 segments",
    assumptions=("preferences by soft-optimal advantages (regret)", "unbounded data", "lambda = 1"),
    bound=1e-8,
    bound_says="rounding of Newton's method",
    provenance="paper",
    statistic=lambda trial: _exact(trial, True),
    control=Control("preferences by partial return", lambda trial: _exact(trial, False)),
)


def _consistent(trial: Trial, normalised: bool) -> Measured:
    """How far alpha log pi is from the soft-optimal advantage of itself taken as a reward."""
    error = 0.0
    for seed in range(trial.pick(10, 50, 200)):
        mdp = _mdp((trial.seed, seed))
        logits = np.random.default_rng([trial.seed, seed, 3]).standard_normal(mdp.reward.shape)
        table = ALPHA * (np.asarray(log_softmax(logits, axis=-1)) if normalised else logits)
        again = soft_value_iteration(DiscountedMDP(mdp.transition, table, GAMMA), ALPHA)
        error = max(error, float(np.abs(again.advantage - table).max()), float(np.abs(again.value).max()))
    return exactly(error)


CPL2 = Check(
    id="CPL-consistent",
    paper=PAPER,
    claim="For any policy, alpha log pi is a consistent advantage: that of itself as a reward, whose values are 0.",
    setting=f"{_SETTING}; random policies",
    assumptions=("the policy is positive everywhere",),
    bound=1e-10,
    bound_says="rounding",
    provenance="paper",
    statistic=lambda trial: _consistent(trial, True),
    control=Control("logits that are not normalised", lambda trial: _consistent(trial, False)),
)


def _rank(trial: Trial, enough: bool) -> Measured:
    """How many dimensions of the policy random comparisons leave open, at most over repetitions."""
    draw = np.random.default_rng([trial.seed, 11])
    rows, missing = features(), 0
    for _ in range(trial.pick(20, 100, 400)):
        count = 60 if enough else 6
        one, two = draw.integers(len(rows), size=(2, count))
        contrast = rows[two] - rows[one]
        # Directions of log pi that keep it normalised to first order, at the uniform policy: rows that sum to 0.
        basis = np.kron(np.eye(STATES), np.linalg.svd(np.ones((1, ACTIONS)))[2][1:].T)
        missing = max(missing, STATES * (ACTIONS - 1) - int(np.linalg.matrix_rank(contrast @ basis)))
    return exactly(missing, "dimensions that are left open, at most")


CPL3 = Check(
    id="CPL-unique",
    paper=PAPER,
    claim="Enough comparisons determine the policy: their matrix has full rank S (A - 1) on policies.",
    setting=f"{_SETTING}; 60 random pairs",
    assumptions=("segments cover all pairs of state and action",),
    bound=0.0,
    bound_says="no direction is left open; the certificate is one matrix rank",
    provenance="derived",
    statistic=lambda trial: _rank(trial, True),
    control=Control("6 comparisons for 8 dimensions", lambda trial: _rank(trial, False)),
)


@cache
def _errors(trial: Trial, by_regret: bool) -> tuple[Floats, Floats]:
    """Sizes [N] and errors [N, repetitions] of the fitted policy from sampled labels."""
    sizes = np.array(trial.pick([1000, 4000, 16000], [1000, 4000, 16000, 64000], [1000, 4000, 16000, 64000, 256000]))
    rows, (one, two) = features(), _pairs()
    contrast = rows[two] - rows[one]
    soft = soft_value_iteration(_mdp((trial.seed, 0)), ALPHA)
    table = soft.advantage if by_regret else _mdp((trial.seed, 0)).reward
    chance = expit(contrast @ table.ravel())
    draw = np.random.default_rng([trial.seed, 13])
    errors = np.zeros((len(sizes), trial.pick(24, 30, 60)))
    for i, size in enumerate(sizes):
        for j in range(errors.shape[1]):
            asked = draw.multinomial(size, np.full(len(contrast), 1 / len(contrast)))
            wins = draw.binomial(asked, chance)
            seen = asked > 0
            found = fit(contrast[seen], wins[seen] / asked[seen], asked[seen].astype(np.float64))
            errors[i, j] = np.abs(np.exp(found) - soft.policy).max()
    return sizes.astype(np.float64), errors


def _rate(trial: Trial, by_regret: bool) -> Measured:
    sizes, errors = _errors(trial, by_regret)
    x = np.log(sizes) - np.log(sizes).mean()
    draw = np.random.default_rng([trial.seed, 17])
    chosen = draw.integers(errors.shape[1], size=(RESAMPLES, errors.shape[1]))

    def slope(logs: Floats) -> Floats:
        rate: Floats = logs @ x / (x @ x)
        return rate

    logs = np.log(errors)
    shown = " ".join(f"{error:.3g}" for error in np.exp(logs.mean(1)))
    return resampled(float(slope(logs.mean(1))), slope(logs.T[chosen].mean(1)), f"errors {shown}")


def _draw_rate(trial: Trial, path: Path) -> str:
    with rc_context(STYLE), replacing(path) as temporary:
        figure = Figure(figsize=(6.4, 4.2), dpi=160)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        rates(axes, {"regret labels": _errors(trial, True), "partial return labels": _errors(trial, False)})
        axes.set(xlabel="labels", ylabel="largest error of a probability")
        axes.set_title("CPL is consistent for regret labels")
        axes.legend(frameon=False, fontsize=9, loc="lower left")
        figure.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    return "Error of the policy that CPL finds, against the number of labels; band: middle half of the repetitions."


CPL4 = Check(
    id="CPL-rate",
    paper=PAPER,
    claim="From sampled preferences CPL's error falls as one over the square root of their number.",
    setting=f"{_SETTING}; 1000 to 64,000 labels of random pairs, 30 repetitions at standard size",
    assumptions=("labels are drawn from the regret model", "lambda = 1"),
    bound=-0.4,
    bound_says="the parametric rate -1/2, with a margin of 0.1 for the curvature at the smallest sizes",
    provenance="practical",
    statistic=lambda trial: _rate(trial, True),
    control=Control("labels by partial return: an error that stays", lambda trial: _rate(trial, False)),
    figure=_draw_rate,
    after_looking="the number of repetitions was raised from 20 to 30, at smoke size from 8 to 24",
)


def _hard(trial: Trial, same_argmax: bool) -> Measured:
    """With preferences from hard-optimal advantages: how far CPL is from their softmax, in total variation."""
    rows, (one, two) = features(), _pairs()
    contrast = rows[two] - rows[one]
    distances = []
    for seed in range(trial.pick(5, 20, 60)):
        mdp = _mdp((trial.seed, seed))
        advantage = policy_iteration(mdp).advantage if same_argmax else soft_value_iteration(mdp, ALPHA).advantage
        found = np.exp(fit(contrast, expit(contrast @ advantage.ravel()), np.ones(len(contrast))))
        target = np.exp(log_softmax(advantage / ALPHA, axis=-1))
        distances.append(0.5 * np.abs(found - target).sum(-1).max())
    return mean(distances)


CPL5 = Check(
    id="CPL-hard",
    paper=PAPER,
    claim="Preferences from hard-optimal advantages do not give their softmax: CPL needs the soft ones.",
    setting=f"{_SETTING}; exact probabilities from A* of the problem without entropy",
    assumptions=("the preference model is misspecified",),
    bound=0.005,
    bound_says="a total variation that is clearly not rounding",
    provenance="practical",
    statistic=lambda trial: _hard(trial, True),
    control=Control("soft-optimal advantages, for which they agree", lambda trial: _hard(trial, False)),
    at_least=True,
)


def _conservative(trial: Trial, bias: float) -> Measured:
    """Least increase of the loss when both segments' log-likelihoods fall by as much, over random pairs."""
    draw = np.random.default_rng([trial.seed, 19])
    first, second = (torch.from_numpy(-draw.gamma(2.0, 2.0, size=trial.pick(2000, 20_000, 200_000))) for _ in range(2))
    less = torch.from_numpy(draw.uniform(0.5, 3.0, size=len(first)))
    label = torch.from_numpy(draw.integers(2, size=len(first)).astype(np.float64))
    before, after = (contrastive(first - fall, second - fall, label, bias) for fall in (torch.zeros_like(less), less))
    return exactly(float((after - before).div(less).min()))


CPL6 = Check(
    id="CPL-bias",
    paper=PAPER,
    claim="With a bias below 1, of two policies with the same contrast the one likelier on the data has less loss.",
    setting="random log-likelihoods of both segments of a pair; both fall by the same amount; the library's own loss",
    assumptions=("lambda < 1",),
    bound=1e-9,
    bound_says="the loss must rise with every fall of likelihood: at lambda = 1 it does not",
    provenance="paper",
    statistic=lambda trial: _conservative(trial, 0.5),
    control=Control("lambda = 1, which sees the contrast alone", lambda trial: _conservative(trial, 1.0)),
    at_least=True,
)
