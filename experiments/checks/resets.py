"""R1: how much do resets to recorded states save on a combination lock?"""

from __future__ import annotations

import numpy as np

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.episodic import from_start, policy_value
from pbrl.theory.instances import combination_lock
from pbrl.theory.mdps import EpisodicMDP
from pbrl.theory.measures import exactly

LENGTHS, ACTIONS = (4, 8, 12, 16), 3


def success(horizon: int, resets: bool, seed: int) -> float:
    """Exact probability that a roll-out of the uniform policy finds the reward; with resets, from a uniform depth."""
    lock = combination_lock(horizon, ACTIONS, seed=seed)
    uniform = np.full(lock.shape, 1.0 / ACTIONS)
    if not resets:
        return float(from_start(lock, policy_value(lock, uniform)))
    suffixes = [EpisodicMDP(lock.transition[h:], lock.reward[h:]) for h in range(horizon)]
    return float(np.mean([from_start(one, policy_value(one, uniform[h:])) for h, one in enumerate(suffixes)]))


def _growth(trial: Trial, resets: bool) -> Measured:
    """Log-log slope, over the lock's length, of the roll-outs needed until the first success."""
    needed = [1.0 / success(length, resets, trial.seed) for length in LENGTHS]
    slope = np.polyfit(np.log(LENGTHS), np.log(needed), 1)[0]
    return exactly(float(slope), "roll-outs " + " ".join(f"{n:.3g}" for n in needed))


R1 = Check(
    id="R1",
    paper="DR-PO (Chang et al., 2024)",
    claim="With resets to states of recorded successes the roll-outs needed grow polynomially with the length.",
    setting="combination locks of 4 to 16 stages with 3 actions; exact probabilities under the uniform policy",
    assumptions=("recorded states cover the good path", "the depth to reset to is uniform"),
    bound=1.1,
    bound_says="an exponent of 1: a reset next to the end succeeds with probability 1/3, and is drawn one time in H",
    provenance="derived",
    statistic=lambda trial: _growth(trial, True),
    control=Control("no resets: A^H roll-outs", lambda trial: _growth(trial, False)),
)
