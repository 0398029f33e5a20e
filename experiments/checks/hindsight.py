"""F1, F2: does feedback after the outcome cure what feedback before it teaches?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from pbrl.parts import direct_preference as direct
from pbrl.theory.alignment_bandit import minimise
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import backup, policy_value
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly

PAPER = "RLHS (Liang et al., 2025)"
GOOD, CERTAINTY, BETA = 0.3, 3.0, 0.3


def advised(by_hindsight: bool) -> Floats:
    """[2, 2] a consultant's policy by item (bad, good) and advice (not to buy, to buy), by DPO.

    The user buys what is advised. Before the outcome a purchase looks worth 1, whatever the item; after it a bad item
    is worth -1. Preferences between both kinds of advice are logistic in what the user sees.
    """
    seen = torch.tensor([[0.0, -1.0 if by_hindsight else 1.0], [0.0, 1.0]], dtype=torch.float64)
    label = torch.sigmoid(CERTAINTY * (seen[:, 1] - seen[:, 0]))

    def risk(flat: Tensor) -> Tensor:
        ratio = flat.reshape(2, 2).log_softmax(-1) - np.log(0.5)
        return direct.dpo(ratio[:, 0], ratio[:, 1], label, BETA).mean()

    return np.asarray(minimise(risk, torch.zeros(4, dtype=torch.float64)).reshape(2, 2).softmax(-1).numpy())


def _utility(trial: Trial, by_hindsight: bool) -> Measured:
    """True utility of what DPO teaches: 1 for buying a good item, -1 for buying a bad one."""
    del trial
    policy = advised(by_hindsight)
    lies = float(policy[0, 1])
    return exactly(GOOD * float(policy[1, 1]) - (1.0 - GOOD) * lies, f"praises a bad item with probability {lies:.3f}")


F1 = Check(
    id="F1",
    paper=PAPER,
    claim="Preferences stated after the outcome teach honesty where those stated before it teach deception.",
    setting="a consultant knows whether an item is good (30 %); DPO from exact preferences between advices",
    assumptions=("the user believes the advice", "the outcome is seen"),
    bound=0.25,
    bound_says="true utility; honesty is worth 0.3, constant praise -0.4",
    provenance="practical",
    statistic=lambda trial: _utility(trial, True),
    control=Control("preferences stated before the outcome", lambda trial: _utility(trial, False)),
    at_least=True,
)


def _horizon(trial: Trial, own: bool) -> Measured:
    """Largest error of a label after N simulated steps over its bound, over MDPs, N and pairs of choices."""
    worst = 0.0
    for seed in range(trial.pick(10, 50, 200)):
        mdp = dirichlet_discounted(6, 3, 0.9, seed=[trial.seed, seed, 111])
        draw = np.random.default_rng([trial.seed, seed, 112])
        deployed, other = draw.dirichlet(np.full(3, 0.3), size=(2, 6))
        follows = deployed if own else other
        target = backup(mdp, policy_value(mdp, deployed))
        truth = expit(target.ravel()[:, None] - target.ravel())
        reach = float(np.abs(policy_value(mdp, deployed)).max())
        value = np.zeros(6)
        for steps in range(30):  # ``value``: of what is seen in so many simulated steps after the choice
            q = backup(mdp, value)
            error = float(np.abs(expit(q.ravel()[:, None] - q.ravel()) - truth).max())
            worst = max(worst, error / (0.5 * mdp.gamma ** (steps + 1) * reach))
            value = policy_value(replace(mdp, gamma=0.0), follows) + mdp.gamma * np.einsum(
                "ij,ijk,k->i", follows, mdp.transition, value
            )
    return exactly(worst, "largest error over its bound")


F2 = Check(
    id="F2",
    paper=PAPER,
    claim="The error of a label given after N simulated steps shrinks as gamma^N.",
    setting="random MDPs S6 A3, gamma 0.9; logistic preferences between first choices after 0 to 29 simulated steps",
    assumptions=("the simulated continuation is the deployed policy's",),
    bound=1.0,
    bound_says="gamma^(N + 1) max |V| / 2: two errors of values, and the logistic's slope of at most 1/4",
    provenance="derived",
    statistic=lambda trial: _horizon(trial, True),
    control=Control("another policy continues in simulation", lambda trial: _horizon(trial, False)),
)
