"""Does potential shaping change what preferences by regret say? The example of how a check is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import soft_value_iteration
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.measures import exactly


def change(trial: Trial, sign: float) -> Measured:
    """Largest change of soft-optimal advantages when potentials are added to the reward."""
    error = 0.0
    for seed in range(trial.pick(10, 50, 200)):
        mdp = dirichlet_discounted(6, 3, 0.9, seed=[trial.seed, seed])
        potential = np.random.default_rng([trial.seed, seed, 1]).standard_normal(6)
        shaped = mdp.reward + mdp.gamma * mdp.transition @ potential - sign * potential[:, None]
        one, two = (soft_value_iteration(m, 0.5).advantage for m in (mdp, replace(mdp, reward=shaped)))
        error = max(error, float(np.abs(one - two).max()))
    return exactly(error)


SHAPING = Check(
    id="CPL-shaping",
    paper="CPL (Hejna et al., ICLR 2024)",
    claim="Potential shaping leaves soft-optimal advantages, and so all regret preferences, unchanged.",
    setting="random MDPs with 6 states, 3 actions, gamma 0.9, temperature 0.5, standard normal potentials",
    assumptions=("the potential is discounted like the reward",),
    bound=1e-10,
    bound_says="rounding",
    provenance="derived",
    statistic=lambda trial: change(trial, 1.0),
    control=Control("potentials added with the wrong sign", lambda trial: change(trial, -1.0)),
)
