"""N9 to N12: which update of a preference game's policy a squared or logistic loss on pairs is, exactly."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor

from pbrl.parts import direct_preference as direct
from pbrl.theory.alignment_bandit import minimise
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly
from pbrl.theory.regularised_games import mirror_step, random_games, random_laws

CHOICES, BETA, STEP = 5, 0.4, 0.7
_SETTING = f"random games with {CHOICES} choices, random policies and references"


def _drawn(trial: Trial, number: int) -> tuple[Floats, Floats, Floats]:
    """A game [A, A], a log-policy [A] and a log-reference [A]."""
    seed = [trial.seed, number, 81]
    policy, reference = random_laws(2, CHOICES, seed=seed)
    return random_games(1, CHOICES, seed=seed)[0], policy, reference


def _gradient(game: Floats, policy: Floats, reference: Floats, share: float) -> float:
    """Error of one gradient step on online IPO with uniform pairs against the mirror step of size share lr / (b n)."""
    rate = 0.1
    start = torch.from_numpy(policy).requires_grad_()
    one, two = (index.reshape(-1) for index in torch.meshgrid(*[torch.arange(CHOICES)] * 2, indexing="ij"))
    ratio = start.log_softmax(-1) - torch.from_numpy(reference)
    # IPO with the label's mean P(second beats first against pi): the regression of both log-ratios on both win rates
    rates = torch.from_numpy(game @ np.exp(policy))
    loss = ((ratio[two] - ratio[one]) - (rates[two] - rates[one]) / BETA).square().mean()
    moved = policy - rate * torch.autograd.grad(loss, start)[0].numpy()
    step = share * rate / (BETA * CHOICES)
    return float(np.abs(log_softmax(moved) - mirror_step(game, policy, reference, step, BETA)).max())


def _uniform(trial: Trial, share: float) -> Measured:
    return exactly(max(_gradient(*_drawn(trial, n), share) for n in range(trial.pick(20, 100, 400))))


N9 = Check(
    id="N9",
    paper="EGPO (Zhou et al., 2025)",
    claim="A gradient step on online IPO with uniformly drawn pairs is a mirror step of size 4 lr / (beta n).",
    setting=f"{_SETTING}; learning rate 0.1, beta {BETA}",
    assumptions=("tabular softmax policies", "both responses of a pair are uniform"),
    bound=1e-12,
    bound_says="rounding; the gradient is (4 / n) (u - mean u) of u = logits - reference's - win rates / beta",
    provenance="derived",
    statistic=lambda trial: _uniform(trial, 4.0),
    control=Control(
        "half of that size, as the released simulation has it for Nash-MD", lambda trial: _uniform(trial, 2.0)
    ),
)


def _regressed(game: Floats, policy: Floats, reference: Floats, on_policy: bool) -> float:
    """Error of INPO's minimiser, pairs drawn from the policy (broken: uniformly), against the mirror step."""
    law = torch.from_numpy(np.exp(policy)) if on_policy else torch.full((CHOICES,), 1.0 / CHOICES, dtype=torch.float64)
    one, two = (index.reshape(-1) for index in torch.meshgrid(*[torch.arange(CHOICES)] * 2, indexing="ij"))
    often, label = law[one] * law[two], torch.from_numpy(game)[two, one]
    old, base = torch.from_numpy(policy), torch.from_numpy(reference)

    def risk(logits: Tensor) -> Tensor:
        moved = direct.towards(logits.log_softmax(-1), old, base, STEP, BETA)
        return (often * direct.inpo(moved[one], moved[two], label, STEP)).sum()

    found = minimise(risk, old).log_softmax(-1).numpy()
    return float(np.abs(found - mirror_step(game, policy, reference, STEP, BETA)).max())


def _inpo(trial: Trial, on_policy: bool) -> Measured:
    return exactly(max(_regressed(*_drawn(trial, n), on_policy) for n in range(trial.pick(10, 50, 200))))


N10 = Check(
    id="N10",
    paper="INPO (Zhang et al., ICLR 2025)",
    claim="INPO's loss on sampled preferences of pairs from the policy is minimised by mirror descent's next policy.",
    setting=f"{_SETTING}; step {STEP}, beta {BETA}; all pairs by enumeration",
    assumptions=("both responses of a pair are drawn from the present policy",),
    bound=1e-8,
    bound_says="rounding of Newton's method; no win rate is estimated",
    provenance="paper",
    statistic=lambda trial: _inpo(trial, True),
    control=Control("uniformly drawn pairs", lambda trial: _inpo(trial, False)),
)


def _distance(game: Floats, policy: Floats, step: float, centred: bool) -> float:
    """Largest difference between SPPO's minimiser and a step of multiplicative weights."""
    law, rates = torch.from_numpy(np.exp(policy)), torch.from_numpy(game @ np.exp(policy))
    old = torch.from_numpy(policy)

    def risk(logits: Tensor) -> Tensor:
        ratio = logits.log_softmax(-1) - old
        return (law * direct.sppo(ratio, rates if centred else rates + 0.5, step)).sum()

    found = minimise(risk, old).log_softmax(-1).numpy()
    return float(np.abs(found - mirror_step(game, policy, policy, step, 0.0)).max())


def _order(trial: Trial, centred: bool) -> Measured:
    """Least slope of the log distance against the log step."""
    slopes = []
    for number in range(trial.pick(5, 20, 100)):
        game, policy, _ = _drawn(trial, number)
        near, far = (_distance(game, policy, step, centred) for step in (0.05, 0.1))
        slopes.append(float(np.log2(far / near)))
    return exactly(min(slopes), "order of the difference in the step")


N11 = Check(
    id="N11",
    paper="SPPO (Wu et al., 2024)",
    claim="SPPO's squared loss is minimised by multiplicative weights up to the third order of the step.",
    setting=f"{_SETTING}; steps 0.05 and 0.1, responses drawn from the policy by enumeration",
    assumptions=("win rates are centred at 1/2, which stands for the log of the normaliser",),
    bound=2.7,
    bound_says="order 3 with a margin for finite steps: log Z - step / 2 is of order 2, and the policy is normalised",
    provenance="derived",
    statistic=lambda trial: _order(trial, True),
    control=Control("win rates that are not centred: order 2", lambda trial: _order(trial, False)),
    at_least=True,
)


def _logistic(game: Floats, policy: Floats, on_logits: bool) -> float:
    """Error of DNO's minimiser against multiplicative weights (broken: labels are the win rates' shares)."""
    rates, old = torch.from_numpy(game @ np.exp(policy)), torch.from_numpy(policy)
    one, two = torch.triu_indices(CHOICES, CHOICES, 1)
    shares = rates[two] / (rates[one] + rates[two])
    gap = rates[two] - rates[one] if on_logits else shares.logit()

    def risk(logits: Tensor) -> Tensor:
        ratio = logits.log_softmax(-1) - old
        return direct.dno(ratio[one], ratio[two], gap, STEP).mean()

    found = minimise(risk, old).log_softmax(-1).numpy()
    return float(np.abs(found - mirror_step(game, policy, policy, STEP, 0.0)).max())


def _dno(trial: Trial, on_logits: bool) -> Measured:
    drawn = (_drawn(trial, n) for n in range(trial.pick(10, 50, 200)))
    return exactly(max(_logistic(game, policy, on_logits) for game, policy, _ in drawn))


N12 = Check(
    id="N12",
    paper="DNO (Rosset et al., 2024)",
    claim="The cross-entropy of win-rate gaps is minimised by multiplicative weights, whatever pairs are drawn.",
    setting=f"{_SETTING}; step {STEP}; all pairs, equally often",
    assumptions=("every pair is drawn",),
    bound=1e-8,
    bound_says="rounding of Newton's method",
    provenance="paper",
    statistic=lambda trial: _dno(trial, True),
    control=Control("labels by the share of win rates", lambda trial: _dno(trial, False)),
)
