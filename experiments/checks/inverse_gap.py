"""S1: does inverse-gap weighting pay for its regret with the error of its own predictions?"""

from __future__ import annotations

import numpy as np

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly

ARMS = 5


def inverse_gap(predicted: Floats, rate: float) -> Floats:
    """[..., K] probability 1 / (K + rate gap) of each arm that is not predicted best; the best has the rest."""
    gaps = predicted.max(-1, keepdims=True) - predicted
    policy = 1.0 / (predicted.shape[-1] + rate * gaps)
    best = np.eye(predicted.shape[-1], dtype=bool)[predicted.argmax(-1)]
    rest = 1.0 - np.where(best, 0.0, policy).sum(-1, keepdims=True)
    weighed: Floats = np.where(best, rest, policy)
    return weighed


def exceeding(predicted: Floats, policy: Floats, rate: float) -> Floats:
    """[...] sup over true means f and best arms a* of E[f(a*) - f(a)] - (rate / 4) E (f - predicted)^2, a ~ policy.

    The supremum over f is of a concave quadratic: f = predicted - 2 / rate elsewhere, and at a* predicted plus
    2 (1 - p*) / (rate p*).
    """
    mean = (policy * predicted).sum(-1, keepdims=True)
    found: Floats = (predicted - mean + (1.0 - policy) / (rate * policy)).max(-1)
    return found


def _lemma(trial: Trial, weighs: bool) -> Measured:
    """Largest supremum times rate over the number of arms."""
    worst = 0.0
    predicted = np.random.default_rng([trial.seed, 131]).random((trial.pick(1000, 10_000, 100_000), ARMS))
    for rate in (1.0, 10.0, 100.0, 1000.0):
        policy = inverse_gap(predicted, rate)
        if not weighs:  # one arm in twenty uniformly, else the best
            policy = 0.05 / ARMS + 0.95 * np.eye(ARMS)[predicted.argmax(-1)]
        worst = max(worst, float(exceeding(predicted, policy, rate).max()) * rate / ARMS)
    return exactly(worst, "supremum times rate / K")


S1 = Check(
    id="S1",
    paper="SquareCB (Foster & Rakhlin, ICML 2020)",
    claim="Regret is at most 2 K / rate plus rate / 4 times the squared error of the predictions, whatever the truth.",
    setting=f"uniformly random predictions for {ARMS} arms, rates 1 to 1000; the worst truth in closed form",
    assumptions=("probabilities 1 / (K + rate gap)",),
    bound=2.0,
    bound_says="2 K / rate",
    provenance="paper",
    statistic=lambda trial: _lemma(trial, True),
    control=Control("epsilon-greedy with epsilon 0.05", lambda trial: _lemma(trial, False)),
)
