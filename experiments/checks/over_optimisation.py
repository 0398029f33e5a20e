"""O1 to O4: how much true reward a proxy buys, and when more of the proxy costs some."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from pbrl.figures import learning_curves
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.discounted import occupancy
from pbrl.theory.instances import dirichlet_discounted
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly

CORRELATED = "Correlated proxies (Laidlaw et al., ICLR 2025)"
SCALING = "Reward model over-optimisation (Gao et al., ICML 2023)"


@cache
def best_of(heavy: bool, doublings: int) -> tuple[Floats, Floats]:
    """sqrt(KL) and mean true reward [N] of taking the best by proxy of 1, 2, 4, ... draws, by quadrature.

    The true reward of a draw is standard normal; the proxy adds Gaussian noise or (``heavy``) Student's with 2 degrees
    of freedom.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    noise = stats.t(2.0) if heavy else stats.norm()
    proxy = np.sinh(np.linspace(-12.0, 12.0, 6001))
    apart = proxy[:, None] - node
    density = noise.pdf(apart) * weight
    expected = (density @ node) / np.maximum(density.sum(1), 1e-300)  # E[true reward | proxy]
    above = (noise.sf(apart) @ weight) / weight.sum()
    draws = 2.0 ** np.arange(doublings + 1)
    reached = np.exp(draws[:, None] * np.log1p(-np.minimum(above, 1.0 - 1e-16)))  # P(best proxy <= p)
    worth = (np.diff(reached, axis=1) * 0.5 * (expected[1:] + expected[:-1])).sum(1)
    return np.sqrt(np.log(draws) - (draws - 1.0) / draws), worth


def _kept(trial: Trial, heavy: bool) -> Measured:
    """Share of the largest true reward that is left with the most draws."""
    distance, worth = best_of(heavy, trial.pick(20, 24, 28))
    note = f"best {worth.max():.2f} at sqrt(KL) {distance[worth.argmax()]:.2f}, {worth[-1]:.2f} at {distance[-1]:.2f}"
    return exactly(float(worth[-1] / worth.max()), note)


def _draw(trial: Trial, path: Path) -> str:
    curves = {}
    for name, heavy in (("Gaussian noise", False), ("Student's noise", True)):
        distance, worth = best_of(heavy, trial.pick(20, 24, 28))
        curves[name] = (distance, worth[None])
    learning_curves(curves, path, title="Goodhart needs heavy tails", axis="mean true reward", progress="sqrt(KL)")
    return "True reward of the best by proxy of ever more draws, against the square root of the KL that it costs."


@cache
def tilted(trial: Trial, heavy: bool) -> tuple[Floats, Floats]:
    """sqrt(KL) and mean true reward [N] of policies over many actions that are proportional to exp(proxy / beta)."""
    count = trial.pick(50_000, 200_000, 1_000_000)
    draw = np.random.default_rng([trial.seed, 121])
    truth = draw.standard_normal(count)
    proxy = truth + (draw.standard_t(2.0, size=count) if heavy else draw.standard_normal(count))
    distance, worth = [], []
    for inverse in np.geomspace(0.01, 2.0, 30):
        logs = inverse * proxy - logsumexp(inverse * proxy)
        policy = np.exp(logs)
        distance.append(np.sqrt(max(float(policy @ logs) + np.log(count), 0.0)))
        worth.append(float(policy @ truth))
    return np.array(distance), np.array(worth)


O1 = Check(
    id="O1",
    paper=SCALING,
    claim="With Gaussian noise on the proxy the best of more draws is never truly worse.",
    setting="standard normal true rewards, the proxy adds standard normal noise; the best of 1 to 2^20 draws, exactly",
    assumptions=("light tails",),
    bound=0.98,
    bound_says="true reward with the most draws over the best on the way",
    provenance="derived",
    statistic=lambda trial: _kept(trial, False),
    control=Control("Student's noise with 2 degrees of freedom: Goodhart's law", lambda trial: _kept(trial, True)),
    at_least=True,
    figure=_draw,
)


def _linear(trial: Trial, heavy: bool) -> Measured:
    """Largest deviation of true reward from correlation times sqrt(2 KL), up to KL 2."""
    distance, worth = tilted(trial, heavy)
    near = distance**2 <= 2.0
    return exactly(float(np.abs(worth - np.sqrt(0.5) * np.sqrt(2.0) * distance)[near].max()))


O2 = Check(
    id="O2",
    paper=SCALING,
    claim="For jointly Gaussian rewards true reward is the correlation times sqrt(2 KL).",
    setting="50,000 actions at smoke size, proxies with correlation sqrt(1/2), policies exp(proxy / beta); KL up to 2",
    assumptions=("jointly Gaussian", "many actions"),
    bound=0.1,
    bound_says="what a finite number of actions leaves; a tilt shifts a Gaussian by sqrt(2 KL) standard deviations",
    provenance="derived",
    statistic=lambda trial: _linear(trial, False),
    control=Control("Student's noise with 2 degrees of freedom", lambda trial: _linear(trial, True)),
)


def _standard(reward: Floats, law: Floats) -> Floats:
    centred = reward - law @ reward
    scaled: Floats = centred / np.sqrt(law @ centred**2)
    return scaled


def _bounds(seed: list[int], by_reference: bool) -> tuple[float, float]:
    """Lower bound minus true reward, of a random true reward and of the worst one for the policy."""
    mdp, draw = dirichlet_discounted(6, 3, 0.9, seed=[*seed, 122]), np.random.default_rng([*seed, 123])
    policies = draw.dirichlet(np.full(3, 0.5), size=(2, 6))
    reference, law = ((occupancy(mdp, policy) * (1.0 - mdp.gamma)).ravel() for policy in policies)
    proxy = _standard(draw.standard_normal(18), reference)
    truth = _standard(draw.uniform(0.2, 3.0) * proxy + draw.standard_normal(18), reference)
    ratio, shift = law / reference, float(law @ proxy)
    divergence = float(reference @ (ratio - 1.0) ** 2)
    along = float(reference @ (proxy * truth))
    # The part of the worst reward that is across the proxy points against the policy's ratio as far as it can.
    across = ratio - 1.0 - shift * proxy
    worst = along * proxy - np.sqrt(1.0 - along**2) * across / np.sqrt(reference @ across**2)

    def excess(reward: Floats) -> float:
        weights = reference if by_reference else np.full(18, 1.0 / 18.0)
        claimed = float(weights @ (_standard(proxy, weights) * _standard(reward, weights)))
        bound = claimed * shift - np.sqrt(max(0.0, (1.0 - claimed**2) * (divergence - shift**2)))
        return float(bound - law @ reward)

    return excess(truth), excess(worst)


def _bounded(trial: Trial, by_reference: bool) -> Measured:
    """Largest excess of the lower bound on true reward over the truth."""
    seeds = range(trial.pick(100, 500, 3000))
    return exactly(max(max(_bounds([trial.seed, seed], by_reference)) for seed in seeds))


def _attained(trial: Trial, by_reference: bool) -> Measured:
    """Largest distance of the worst reward's value from the bound."""
    seeds = range(trial.pick(100, 500, 3000))
    return exactly(max(abs(_bounds([trial.seed, seed], by_reference)[1]) for seed in seeds))


O3 = Check(
    id="O3",
    paper=CORRELATED,
    claim="A proxy that correlates with the true reward where the reference goes bounds it from below by chi^2.",
    setting="random MDPs S6 A3 and policies; random and worst rewards, standardised under the reference's visits",
    assumptions=("the correlation is under the reference's occupancy",),
    bound=1e-9,
    bound_says="r E h - sqrt((1 - r^2) (chi^2 - (E h)^2)), at least as strong as the paper's",
    provenance="derived",
    statistic=lambda trial: _bounded(trial, True),
    control=Control("the correlation under uniform visits", lambda trial: _bounded(trial, False)),
)

O4 = Check(
    id="O4",
    paper=CORRELATED,
    claim="The bound is attained: for every policy a reward with the given correlation is worth no more than it.",
    setting="random MDPs as in O3; the reward is constructed",
    assumptions=("no other knowledge of the true reward",),
    bound=1e-9,
    bound_says="rounding",
    provenance="derived",
    statistic=lambda trial: _attained(trial, True),
    control=Control("the bound with the correlation under uniform visits", lambda trial: _attained(trial, False)),
)
