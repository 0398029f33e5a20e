"""N1 to N8: which updates reach the equilibrium of a preference game, how fast, and which only circle around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pbrl.data.files import replacing
from pbrl.figures import FAINT, PALETTE, STYLE
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.games import cycle
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly
from pbrl.theory.regularised_games import (
    equilibrium,
    extragradient_step,
    kl,
    mirror_step,
    nash_md_step,
    random_games,
    random_laws,
)

EGPO, NASH_MD = "EGPO (Zhou et al., 2025)", "Nash-MD (Munos et al., ICML 2024)"
CHOICES = 4
ROCK: Floats = np.asarray(cycle(3).numpy())


def _threshold(beta: float) -> float:
    """The largest step for which the contraction is derived from N1's identity.

    Win rates in [0, 1] give KL(h || pi+) <= (step / 2) / (1 - step / 4) KL(h || pi), which up to this step is at most
    (1 - step beta) KL(h || pi): what the identity subtracts.
    """
    return 1.0 / (beta + 0.75)


def _one_step(trial: Trial, extra: bool, broken: bool) -> Measured:
    """Largest error of the exact one-step identity of the KL to the equilibrium, over random games and steps."""
    error = 0.0
    games = random_games(trial.pick(50, 200, 1000), CHOICES, seed=[trial.seed, 71])
    if broken and not extra:  # an asymmetric game: the win rates of the two players do not sum to 1
        games = np.triu(games)
    reference = random_laws(len(games), CHOICES, seed=[trial.seed, 72])
    policy = random_laws(len(games), CHOICES, seed=[trial.seed, 73])
    for beta, step in ((0.1, 0.3), (1.0, 0.5), (0.5, 1.2)):
        star = equilibrium(games, reference, beta)
        keep = 1.0 - step * beta
        if extra:
            after, half = extragradient_step(games, policy, reference, step, beta)
            if broken:
                half = policy
            right = keep * (kl(star, policy) - kl(half, policy)) - step * beta * kl(half, star) + kl(half, after)
        else:
            after = mirror_step(games, policy, reference, step, beta)
            right = keep * kl(star, policy) - step * beta * kl(policy, star) + kl(policy, after)
        error = max(error, float(np.abs(kl(star, after) - right).max()))
    return exactly(error)


N1 = Check(
    id="N1",
    paper=EGPO,
    claim="One extragradient step changes the KL to the equilibrium by exactly three KLs of the half step.",
    setting=f"random games with {CHOICES} choices, random policies and references; beta .1, .5, 1",
    assumptions=("P(i, j) + P(j, i) = 1",),
    bound=1e-10,
    bound_says="rounding: x P x = 0 for sum x = 0 leaves no other term",
    provenance="derived",
    statistic=lambda trial: _one_step(trial, True, False),
    control=Control("the policy in place of the half step", lambda trial: _one_step(trial, True, True)),
)

N2 = Check(
    id="N2",
    paper=NASH_MD,
    claim="One mirror step changes the KL to the equilibrium by exactly -step beta KL(pi || pi*) + KL(pi || pi+).",
    setting=f"random games with {CHOICES} choices, random policies and references; beta .1, .5, 1",
    assumptions=("P(i, j) + P(j, i) = 1",),
    bound=1e-10,
    bound_says="rounding",
    provenance="derived",
    statistic=lambda trial: _one_step(trial, False, False),
    control=Control("a game whose win rates do not sum to 1", lambda trial: _one_step(trial, False, True)),
)


def _contraction(trial: Trial, large: bool) -> Measured:
    """Largest log KL above its bound log KL_0 + t log(1 - step beta), over games, prices and rounds."""
    worst = -np.inf
    count = trial.pick(30, 200, 400)
    for certain in (False, True):
        games = random_games(count, CHOICES, seed=[trial.seed, 74, certain], certain=certain)
        reference = random_laws(count, CHOICES, seed=[trial.seed, 75])
        start = random_laws(count, CHOICES, seed=[trial.seed, 76])
        for beta in (0.1, 1.0, 3.0):
            step = 2.0 / (beta + 0.5) if large else _threshold(beta)
            star = equilibrium(games, reference, beta)
            first, policy = kl(star, start), start
            for t in range(1, 101):
                policy, _ = extragradient_step(games, policy, reference, step, beta)
                # KLs below rounding are left out: they have no meaning any more
                now = kl(star, policy)
                bound = first * (1.0 - _threshold(beta) * beta) ** t
                seen = bound > 1e-13
                if seen.any():
                    worst = max(worst, float(np.log(np.maximum(now[seen], 1e-300) / bound[seen]).max()))
    return exactly(worst, "log of the largest KL over its bound")


@cache
def paths(beta: float, step: float, rounds: int) -> dict[str, Floats]:
    """[rounds + 1] KL to the equilibrium of rock, paper and scissors for EGPO, mirror descent and Nash-MD."""
    reference = np.log(np.array([0.6, 0.3, 0.1]))
    star = equilibrium(ROCK, reference, beta)
    updates: dict[str, Callable[[Floats], Floats]] = {
        "EGPO": lambda policy: extragradient_step(ROCK, policy, reference, step, beta)[0],
        "mirror descent (online IPO, INPO)": lambda policy: mirror_step(ROCK, policy, reference, step, beta),
        "Nash-MD": lambda policy: nash_md_step(ROCK, policy, reference, step, beta),
    }
    result = {}
    for name, update in updates.items():
        policy, seen = reference, [float(kl(star, reference))]
        for _ in range(rounds):
            policy = update(policy)
            seen.append(float(kl(star, policy)))
        result[name] = np.array(seen)
    return result


def _figure(trial: Trial, path: Path) -> str:
    del trial
    with rc_context(STYLE), replacing(path) as temporary:
        figure = Figure(figsize=(11.0, 4.2), dpi=160)
        FigureCanvasAgg(figure)
        for axes, beta, rounds in zip(figure.subplots(1, 2), (0.1, 0.01), (400, 3000)):
            step = _threshold(beta)
            when = np.arange(rounds + 1)
            curves = paths(beta, step, rounds)
            for number, (name, seen) in enumerate(curves.items()):
                style = (0, (5, 2)) if name == "Nash-MD" else "-"
                axes.plot(when, np.maximum(seen, 1e-16), color=PALETTE[number], lw=2, ls=style, label=name)
            bound = curves["EGPO"][0] * (1.0 - step * beta) ** when
            axes.plot(when, bound, color="#888888", lw=1.2, ls=(0, (4, 3)), label="bound (1 - step beta)^t")
            axes.set(yscale="log", xlabel="updates", ylabel="KL(equilibrium || policy)", ylim=(1e-16, 20.0))
            axes.set_title(f"Rock, paper, scissors: beta {beta:g}, step {step:.2f}")
            axes.grid(color=FAINT, lw=0.6)
        figure.axes[0].legend(frameon=False, fontsize=8, loc="center right")
        figure.subplots_adjust(wspace=0.25)
        figure.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    return (
        "EGPO contracts at its bound or faster. Left, Nash-MD stalls at a bias; right, at a smaller beta, plain mirror "
        "descent and Nash-MD (one line upon the other) go away from the equilibrium and circle it."
    )


N3 = Check(
    id="N3",
    paper=EGPO,
    claim="EGPO's KL to the equilibrium shrinks by 1 - step beta at least in every round, from any start.",
    setting=f"random games with {CHOICES} choices, uniform and of certain preferences; beta .1, 1, 3; 100 rounds at "
    "step 1 / (beta + 3/4)",
    assumptions=("exact win rates", "step at most 1 / (beta + 3/4)"),
    bound=1e-6,
    bound_says="log of the ratio to the bound; the paper has a smaller step, the threshold is derived from N1",
    provenance="derived",
    statistic=lambda trial: _contraction(trial, False),
    control=Control("a step of 2 / (beta + 1/2)", lambda trial: _contraction(trial, True)),
    figure=_figure,
)


def _stable(trial: Trial, factor: float) -> Measured:
    """KL to the uniform equilibrium after many rounds over that of the start, for mirror descent close to it."""
    worst = 0.0
    uniform = np.log(np.full(3, 1.0 / 3.0))
    start = np.log(np.array([0.34, 0.33, 0.33]))
    for beta in (0.01, 0.05, 0.1):
        step = factor * 2.0 * beta / (beta**2 + 1.0 / 12.0)
        policy = start
        for _ in range(trial.pick(2000, 5000, 20_000)):
            policy = mirror_step(ROCK, policy, uniform, step, beta)
        worst = max(worst, float(kl(uniform, policy) / kl(uniform, start)))
    return exactly(worst)


N4 = Check(
    id="N4",
    paper=EGPO,
    claim="Plain mirror descent needs steps below 24 beta: it is stable at the equilibrium of a cycle only then.",
    setting="rock, paper, scissors with a uniform reference, beta .01, .05, .1; steps 0.8 times the threshold",
    assumptions=("a start close to the equilibrium",),
    bound=0.5,
    bound_says="KL over that of the start; the threshold 2 beta / (beta^2 + 1/12) is where |eigenvalue| = 1",
    provenance="derived",
    statistic=lambda trial: _stable(trial, 0.8),
    control=Control("steps 1.2 times the threshold", lambda trial: _stable(trial, 1.2)),
)


def _decreasing(trial: Trial, decreases: bool) -> Measured:
    """Slope of log KL against log rounds in the last decade for Nash-MD, steps 2 / (beta (t + 2))."""
    beta, rounds = 0.5, trial.pick(4000, 10_000, 100_000)
    reference = np.log(np.array([0.6, 0.3, 0.1]))
    star = equilibrium(ROCK, reference, beta)
    policy, seen = reference, np.empty(rounds)
    for t in range(rounds):
        step = 2.0 / (beta * (t + 2.0)) if decreases else 0.3
        policy = nash_md_step(ROCK, policy, reference, step, beta)
        seen[t] = max(float(kl(star, policy)), 1e-300)
    first, last = seen[rounds // 10 - 1], seen[-1]
    return exactly(float(np.log10(last / first)), f"KL {first:.2g} then {last:.2g}")


N5 = Check(
    id="N5",
    paper=NASH_MD,
    claim="With steps that decrease as 1 / t the last policy of Nash-MD converges at least as fast as 1 / t.",
    setting="rock, paper, scissors, reference (.6, .3, .1), beta 0.5, steps 2 / (beta (t + 2)); last decade of rounds",
    assumptions=("exact win rates",),
    bound=-0.95,
    bound_says="slope -1 of the last decade, with a margin of 0.05",
    provenance="practical",
    statistic=lambda trial: _decreasing(trial, True),
    control=Control("a fixed step of 0.3: a bias that stays", lambda trial: _decreasing(trial, False)),
)


def _self_play(trial: Trial, averaged: bool) -> Measured:
    """Largest exploitability over its bound, for the average or the last policy of self-play, over games."""
    worst, rounds = 0.0, trial.pick(1000, 2000, 10_000)
    for certain in (False, True):
        games = random_games(trial.pick(20, 100, 400), 6, seed=[trial.seed, 77, certain], certain=certain)
        policy = np.full(games.shape[:-1], -np.log(6.0))
        total = np.zeros_like(policy)
        for _ in range(rounds):
            total += np.exp(policy)
            policy = mirror_step(games, policy, policy, float(np.sqrt(8.0 * np.log(6.0) / rounds)), 0.0)
        played = total / rounds if averaged else np.exp(policy)
        exploited = np.einsum("...ij,...j->...i", games, played).max(-1) - 0.5
        worst = max(worst, float(exploited.max() / np.sqrt(np.log(6.0) / (2.0 * rounds))))
    return exactly(worst, "largest exploitability over its bound")


N6 = Check(
    id="N6",
    paper="SPO (Swamy et al., ICML 2024)",
    claim="The average of self-play by multiplicative weights is a minimax winner up to sqrt(log A / (2 T)).",
    setting="random games with 6 choices, uniform and of certain preferences; T = 1000 rounds at smoke size",
    assumptions=("exact win rates", "step sqrt(8 log A / T)"),
    bound=1.0,
    bound_says="regret of multiplicative weights over T",
    provenance="derived",
    statistic=lambda trial: _self_play(trial, True),
    control=Control("the last policy, which cycles", lambda trial: _self_play(trial, False)),
)


def _departs(trial: Trial, extra: bool) -> Measured:
    """Least change of KL(uniform || pi) from one round to the next in rock, paper, scissors without regularisation."""
    uniform = np.log(np.full(3, 1.0 / 3.0))
    policy, least = np.log(np.array([0.4, 0.35, 0.25])), np.inf
    for _ in range(trial.pick(500, 2000, 10_000)):
        before = kl(uniform, policy)
        if extra:
            policy, _ = extragradient_step(ROCK, policy, uniform, 0.1, 0.0)
        else:
            policy = mirror_step(ROCK, policy, uniform, 0.1, 0.0)
        least = min(least, float(kl(uniform, policy) - before))
    return exactly(least)


N7 = Check(
    id="N7",
    paper="SPPO (Wu et al., 2024)",
    claim="Without regularisation self-play's policies never come closer to the winner of a cycle: only averages do.",
    setting="rock, paper, scissors, step 0.1, 500 rounds at smoke size",
    assumptions=("the equilibrium has full support",),
    bound=-1e-12,
    bound_says="the KL from the equilibrium never decreases, but for rounding: its change is KL(pi || pi+) >= 0",
    provenance="derived",
    statistic=lambda trial: _departs(trial, False),
    control=Control("EGPO, which does come closer", lambda trial: _departs(trial, True)),
    at_least=True,
)


def _plateau(trial: Trial, scales: bool) -> Measured:
    """Largest over smallest KL / (step sigma^2 / beta) of EGPO under noisy win rates (broken: KL / (step sigma))."""
    beta, chains = 0.1, trial.pick(400, 1000, 4000)
    uniform = np.log(np.full(3, 1.0 / 3.0))
    draw = np.random.default_rng([trial.seed, 79])
    ratios = []
    for step, sigma in ((0.1, 0.1), (0.1, 0.3), (0.4, 0.1), (0.4, 0.3)):
        policy = np.tile(uniform, (chains, 1))
        kept = []
        burn = int(6.0 / (step * beta))
        for t in range(3 * burn):
            half = mirror_step(ROCK + sigma * draw.standard_normal((chains, 3, 1)), policy, uniform, step, beta)
            noisy = ROCK + sigma * draw.standard_normal((chains, 3, 1))
            policy = mirror_step(noisy, policy, uniform, step, beta, half)
            if t >= burn:
                kept.append(float(kl(uniform, policy).mean()))
        ratios.append(float(np.mean(kept)) / (step * sigma**2 / beta if scales else step * sigma / beta))
    return exactly(max(ratios) / min(ratios), "KL over step sigma^2 / beta: " + " ".join(f"{r:.3f}" for r in ratios))


N8 = Check(
    id="N8",
    paper=EGPO,
    claim="With noisy win rates EGPO settles at a KL proportional to step times the noise's variance.",
    setting="rock, paper, scissors, uniform reference, beta 0.1, steps .1 and .4, noise .1 and .3 on every win rate",
    assumptions=("independent noise in every call",),
    bound=1.25,
    bound_says="largest over smallest ratio of KL to step variance / beta over a 36-fold range",
    provenance="practical",
    statistic=lambda trial: _plateau(trial, True),
    control=Control("KL against the noise's standard deviation", lambda trial: _plateau(trial, False)),
)
