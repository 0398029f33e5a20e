"""X1 to X4: what one reward does to a minority of users, and what maximising the worst-off user's value does."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logsumexp
from torch import Tensor

from pbrl.losses import bradley_terry
from pbrl.theory.alignment_bandit import AlignmentBandit, minimise, pairs
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly, mean

PAPER = "MaxMin-RLHF (Chakraborty et al., ICML 2024)"
UTILITIES: Floats = np.array([[2.0, 0.0, -2.0], [-2.0, 1.0, 2.0]])
BETA = 0.3
UNIFORM: Floats = np.full(3, 1.0 / 3.0)


def users(utilities: Floats) -> list[AlignmentBandit]:
    """One bandit for each row of utilities [U, Y], over a uniform reference."""
    return [AlignmentBandit(UNIFORM, row, BETA) for row in utilities]


USERS = users(UTILITIES)


def single_reward(utilities: Floats, majority: float) -> Floats:
    """[Y] one Bradley-Terry reward fitted to exact preferences, a share ``majority`` of them the first user's."""
    mixed = majority * users(utilities)[0].preference + (1.0 - majority) * users(utilities)[1].preference
    one, two = pairs(3)
    label = torch.from_numpy(mixed)[two, one]

    def risk(reward: Tensor) -> Tensor:
        return bradley_terry(reward[two] - reward[one], label).mean()

    return np.asarray(minimise(risk, torch.zeros(3, dtype=torch.float64)).numpy())


def minority_gap(utilities: Floats, majority: float) -> float:
    """How much value the second user loses under the optimum of the single reward."""
    policy = AlignmentBandit(UNIFORM, single_reward(utilities, majority), BETA).optimum
    return users(utilities)[1].lost(policy)


def _grows(trial: Trial, diverse: bool) -> Measured:
    """Least increase of the minority's loss from one majority share to the next."""
    utilities = UTILITIES if diverse else np.stack([UTILITIES[0]] * 2)
    shares = np.linspace(0.5, 0.99, trial.pick(6, 12, 30))
    gaps = [minority_gap(utilities, float(share)) for share in shares]
    return exactly(float(np.diff(gaps).min()), "losses " + " ".join(f"{gap:.2f}" for gap in gaps))


X1 = Check(
    id="X1",
    paper=PAPER,
    claim="The value that one reward for all costs the minority grows as the minority shrinks.",
    setting="three responses, utilities (2, 0, -2) and (-2, 1, 2), beta 0.3; exact preferences, majority .5 to .99",
    assumptions=("users differ", "one Bradley-Terry reward is fitted to all"),
    bound=1e-3,
    bound_says="each larger majority costs the minority clearly more",
    provenance="practical",
    statistic=lambda trial: _grows(trial, True),
    control=Control("two users who agree: no loss at any share", lambda trial: _grows(trial, False)),
    at_least=True,
)


def fair(weight: float) -> Floats:
    """[Y] the optimum of the users' utilities weighed (1 - weight, weight)."""
    return AlignmentBandit(UNIFORM, np.array([1.0 - weight, weight]) @ UTILITIES, BETA).optimum


def dual(weight: float) -> float:
    """The most that the weighed sum of both users' values can be: at least the largest least value."""
    score = np.log(UNIFORM) + np.array([1.0 - weight, weight]) @ UTILITIES / BETA
    return float(BETA * logsumexp(score))


def worst_off(policy: Floats) -> float:
    """The least value over users."""
    return min(user.value(policy) for user in USERS)


def _certified(trial: Trial, weighed: bool) -> Measured:
    """Duality gap of the fair policy: the least dual value minus the worst-off user's value."""
    del trial
    found = minimize_scalar(dual, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12})
    policy = fair(float(found.x) if weighed else 0.5)
    values = " ".join(f"{user.value(policy):.4f}" for user in USERS)
    return exactly(dual(float(found.x)) - worst_off(policy), f"users' values {values}")


X2 = Check(
    id="X2",
    paper=PAPER,
    claim="The largest least value is that of a weighed sum's optimum: minimising over weights alone certifies it.",
    setting="the same two users; a one-dimensional convex dual",
    assumptions=("a concave objective per user",),
    bound=1e-6,
    bound_says="the duality gap is 0 but for the search's tolerance",
    provenance="derived",
    statistic=lambda trial: _certified(trial, True),
    control=Control("equal weights: the utilitarian optimum", lambda trial: _certified(trial, False)),
)


def _descended(trial: Trial, poorest: bool) -> Measured:
    """What the worst-off user lacks under the average of policies that improve the worst-off (or the mean) value."""
    logits, total = np.zeros(3), np.zeros(3)
    rounds = trial.pick(2000, 8000, 100_000)
    for t in range(rounds):
        policy = np.exp(logits - logsumexp(logits))
        total += policy
        utility = UTILITIES[int(np.argmin(UTILITIES @ policy))] if poorest else UTILITIES.mean(0)
        slope = utility - BETA * np.log(policy / UNIFORM)  # both users share the price: the poorer has less utility
        logits = logits + 0.5 / np.sqrt(t + 1.0) * (slope - policy @ slope)
    found = minimize_scalar(dual, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12})
    return exactly(dual(float(found.x)) - worst_off(total / rounds))


X3 = Check(
    id="X3",
    paper=PAPER,
    claim="Steps that each improve the worst-off user's value reach the fair policy, on average over steps.",
    setting="the same two users; mirror ascent with steps 0.5 / sqrt(t), 2000 steps at smoke size",
    assumptions=("values are exact", "policies are averaged"),
    bound=0.01,
    bound_says="value that the worst-off user still lacks",
    provenance="practical",
    statistic=lambda trial: _descended(trial, True),
    control=Control("steps that improve the mean value", lambda trial: _descended(trial, False)),
    after_looking="rounds were made fewer, to fit the standard tier",
)

DIMENSIONS, ANSWERS, PEOPLE, KINDS = 5, 20, 60, 2


@cache
def answers(seed: int, count: int) -> tuple[Floats, Floats, Floats]:
    """Feature differences [people, count, D], labels [people, count] and each person's kind [people], 80 to 20."""
    draw = np.random.default_rng([seed, 95])
    truth = 2.0 * draw.standard_normal((KINDS, DIMENSIONS))
    kind = (np.arange(PEOPLE) >= 0.8 * PEOPLE).astype(np.int64)
    feature = draw.standard_normal((PEOPLE, count, DIMENSIONS))
    chance = expit(np.einsum("und,ud->un", feature, truth[kind]))
    return feature, (draw.random(chance.shape) < chance).astype(np.float64), kind.astype(np.float64)


def assigned(feature: Floats, label: Floats, seed: int, rounds: int = 40) -> tuple[Floats, list[float]]:
    """[people] the likelier kind of each person by expectation-maximisation, and the log-likelihood of every round."""
    draw = np.random.default_rng([seed, 96])
    signed = (2.0 * label - 1.0)[..., None] * feature
    belief = draw.dirichlet(np.ones(KINDS), size=len(feature))
    reward, path = 0.1 * draw.standard_normal((KINDS, DIMENSIONS)), []
    for _ in range(rounds):
        for k in range(KINDS):
            for _ in range(4):  # Newton, with a weak Gaussian prior
                chance = expit(-signed @ reward[k])
                slope = np.einsum("u,un,und->d", belief[:, k], chance, signed) - 0.01 * reward[k]
                weight = belief[:, k, None] * chance * (1.0 - chance)
                curvature = np.einsum("un,und,une->de", weight, signed, signed) + 0.01 * np.eye(DIMENSIONS)
                reward[k] = reward[k] + np.linalg.solve(curvature, slope)
        share = np.log(np.maximum(belief.mean(0), 1e-300))
        each = share + log_expit(signed @ reward.T).sum(1)
        path.append(float(logsumexp(each, axis=1).sum()) - 0.005 * float((reward**2).sum()))
        belief = np.exp(each - logsumexp(each, axis=1, keepdims=True))
    return belief.argmax(1).astype(np.float64), path


def _clusters(trial: Trial, count: int) -> Measured:
    """Share of people put with their kind, the best of three starts by likelihood."""
    right = []
    for seed in range(trial.pick(5, 10, 100)):
        feature, label, kind = answers(1000 * trial.seed + seed, count)
        found, _ = max((assigned(feature, label, start) for start in range(3)), key=lambda result: result[1][-1])
        same = float((found == kind).mean())
        right.append(max(same, 1.0 - same))
    return mean(right, f"{PEOPLE} people with {count} answers each")


X4 = Check(
    id="X4",
    paper=PAPER,
    claim="Expectation-maximisation over people finds who belongs to the minority.",
    setting=f"{PEOPLE} people of two kinds, 80 to 20, {ANSWERS} answers each; {DIMENSIONS} features",
    assumptions=("a kind belongs to a person, not to an answer", "enough answers per person"),
    bound=0.97,
    bound_says="share of people put with their kind",
    provenance="practical",
    statistic=lambda trial: _clusters(trial, ANSWERS),
    control=Control("one answer per person: no kinds can be told", lambda trial: _clusters(trial, 1)),
    at_least=True,
    after_looking="draws of people were made fewer, to fit the standard tier",
)
