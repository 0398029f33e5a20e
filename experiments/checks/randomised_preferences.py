"""PL1 to PL7, PL-TS1 to 3, LM1: what do preferences cost, in regret and in questions, and is randomisation needed?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from agents.dueling.pr_lsvi import PRLSVI, PRLSVIConfig
from agents.dueling.pr_ts import PRTS, PRTSConfig, posterior
from pbrl.data.files import replacing
from pbrl.figures import FAINT, PALETTE, STYLE
from pbrl.members import Members, sweep
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.dueling import DuelingSpec, DuelTrace, Trajectories, duel, exponent
from pbrl.theory.instances import dirichlet_episodic
from pbrl.theory.linear import random_linear, solve_linear
from pbrl.theory.mdps import EpisodicMDP, Floats
from pbrl.theory.measures import exactly, mean, share

PAPER = "PR-LSVI (Wu & Sun, ICLR 2024)"
BETA = 1.0 / 3.0
"""epsilon = 4 T^-BETA: regret at most T^(1 - BETA), questions at most T^(2 BETA), up to logarithms."""
TOLERANCE = 0.1
BOUND = 1.5

LINEAR = random_linear(10, 3, 3, 6, seed=1, concentration=0.03, reward=BOUND)
"""Nearly deterministic, so that a learner who does not explore sees the same two trajectories again and again. It was
chosen for that: with concentration 1 the transitions' own noise explores, and randomisation is not missed."""
SPEC = DuelingSpec(LINEAR.features, LINEAR.horizon, BOUND)
SETTING = "linear MDP S10 A3 H3 d6, nearly deterministic; answers by sigmoid of the difference of returns"
_INSTANCE = (
    "the instance, nearly deterministic: with transitions of Dirichlet concentration 0.03 (this one), 0.1, 0.3 and 1 "
    "16, 18, 20 and 0 of 20 seeds stay without randomisation, and none with it"
)
_SMALLER = "seeds and rounds were made fewer, to fit the standard tier"


@cache
def _sides(trial: Trial, rounds: int, configs: tuple[PRLSVIConfig, ...]) -> DuelTrace:
    """All seeds of all configs in one stack, config by config; the checks of this file share it."""
    seeds = _seeds(trial)
    members = Members(tuple(one for one in configs for _ in seeds), tuple(seed for _ in configs for seed in seeds))
    return duel(PRLSVI(SPEC, members), LINEAR.tabular(), rounds)


def _seeds(trial: Trial) -> range:
    return range(1000 * trial.seed, 1000 * trial.seed + trial.pick(6, 20, 60))


def _horizons(trial: Trial) -> tuple[int, ...]:
    return trial.pick((125, 250, 500), (250, 500, 1000, 2000), (500, 1000, 2000, 4000, 8000, 16000))


def _over_horizons(trial: Trial, what: str, config: PRLSVIConfig, beta: float) -> Measured:
    """Exponent in T of the final regret (or the questions), each T with an epsilon of its own."""
    when = _horizons(trial)
    values = []
    for rounds in when:
        trace = _sides(trial, rounds, (replace(config, epsilon=4.0 * rounds**-beta if beta else config.epsilon),))
        values.append(trace.final_regret() if what == "regret" else trace.queries())
    shown = ", ".join(f"{one.mean():.0f}" for one in values)
    return exponent(np.array(when, dtype=np.float64), np.stack(values), seed=trial.seed, note=f"mean {what}: {shown}")


ASKING = PRLSVIConfig()
STILL = replace(ASKING, noise=0.0, epsilon=0.0)
ALWAYS = replace(ASKING, epsilon=0.0)
EVERY = replace(ASKING, random_queries=1.0)

PL1 = Check(
    id="PL1",
    paper=PAPER,
    claim="With epsilon = 4 T^(-1/3), the regret of PR-LSVI grows at most as T^(2/3).",
    setting=f"{SETTING}; 20 seeds, T = 250 to 2000, log-log slope of final regrets",
    assumptions=("the MDP is linear in known features", "answers follow the logistic link"),
    bound=1.0 - BETA + TOLERANCE,
    bound_says="1 - beta, and 0.1 for the logarithms",
    provenance="practical",
    statistic=lambda trial: _over_horizons(trial, "regret", ASKING, BETA),
    control=Control(
        "no randomisation, always asking: linear regret on this nearly deterministic instance",
        lambda trial: _over_horizons(trial, "regret", STILL, 0.0),
    ),
    size="standard",
    after_looking=f"{_INSTANCE}; {_SMALLER}",
)

PL2 = Check(
    id="PL2",
    paper=PAPER,
    claim="With epsilon = 4 T^(-1/3), PR-LSVI asks at most about T^(2/3) questions.",
    setting=f"{SETTING}; 20 seeds, T = 250 to 2000, log-log slope of the numbers of questions",
    assumptions=("the MDP is linear in known features",),
    bound=2.0 * BETA + TOLERANCE,
    bound_says="2 beta, and 0.1 for the logarithms",
    provenance="practical",
    statistic=lambda trial: _over_horizons(trial, "questions", ASKING, BETA),
    control=Control("asking in every round", lambda trial: _over_horizons(trial, "questions", EVERY, 0.0)),
    size="standard",
    after_looking=_SMALLER,
)

EPSILONS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.0)
SHARES = (0.003, 0.01, 0.03, 0.1, 0.3, 0.9)


def _frontier(trial: Trial) -> tuple[Floats, Floats]:
    """Questions and regrets [12, seeds]: by the rule with each epsilon, then at random with each share."""
    configs = [replace(ASKING, epsilon=one) for one in EPSILONS]
    configs += [replace(ASKING, random_queries=one) for one in SHARES]
    trace = _sides(trial, trial.pick(300, 1500, 4000), tuple(configs))
    size = len(_seeds(trial))
    return trace.queries().reshape(-1, size), trace.final_regret().reshape(-1, size)


def _advantage(trial: Trial, ours: int) -> Measured:
    """Log of the regret of asking at random, at as many questions by interpolation, over the regret of a way to ask."""
    queries, regret = _frontier(trial)
    at_random = slice(len(EPSILONS), None)
    known = np.log(queries[at_random].mean(1))
    there = float(np.log(queries[ours].mean()))
    seeds = [np.interp(there, known, np.log(regret[at_random, s])) for s in range(regret.shape[1])]
    ratio = np.array(seeds) - np.log(regret[ours])
    note = (
        f"{queries[ours].mean():.0f} questions: regret {regret[ours].mean():.0f}, at random {np.exp(seeds).mean():.0f}"
    )
    return mean(ratio, note)


def _draw(trial: Trial, path: Path) -> str:
    queries, regret = _frontier(trial)
    parts = {"asks where random rewards disagree": slice(0, 6), "asks at random": slice(6, None)}
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 4.4), dpi=160)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for number, (name, part) in enumerate(parts.items()):
            low, high = np.quantile(regret[part], (0.1, 0.9), axis=1)
            x, y = np.maximum(queries[part].mean(1), 1.0), regret[part].mean(1)
            axes.errorbar(x, y, [y - low, high - y], fmt="o-", color=PALETTE[number], lw=2, elinewidth=1, label=name)
        for epsilon, x, y in zip(EPSILONS, queries.mean(1), regret.mean(1)):
            axes.annotate(f"{epsilon:g}", (x, y), (4, 6), textcoords="offset points", fontsize=8, color=PALETTE[0])
        axes.set(xscale="log", yscale="log", xlabel="questions", ylabel="regret of both policies")
        axes.set_title("What questions buy: PR-LSVI")
        axes.grid(color=FAINT, lw=0.6)
        axes.legend(frameon=False, fontsize=9, loc="lower left")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    return (
        f"{SETTING}. Mean and middle 80 % of seeds of the regret against the number of questions; "
        "small numbers are epsilons of the rule."
    )


PL4 = Check(
    id="PL4",
    paper=PAPER,
    claim="With as many questions, asking where random rewards disagree has less regret than asking at random.",
    setting=f"{SETTING}; 20 seeds of 1500 rounds, epsilon 0.5; the regret at random by interpolation over six shares",
    assumptions=("the same seeds on both sides",),
    bound=0.1,
    bound_says="the mean log ratio of regrets: at least a tenth less regret",
    provenance="practical",
    statistic=lambda trial: _advantage(trial, EPSILONS.index(0.5)),
    control=Control("asking at random on both sides", lambda trial: _advantage(trial, len(EPSILONS) + 3)),
    size="standard",
    at_least=True,
    figure=_draw,
    after_looking=_SMALLER,
)


def _rule(trial: Trial, draws_of: int) -> Measured:
    """Relative error of the closed form of the expected disagreement against Monte Carlo draws."""
    many = trial.pick(20_000, 100_000, 400_000)
    worst = 0.0
    for seed in range(trial.pick(5, 20, 50)):
        draw = np.random.default_rng([trial.seed, seed])
        factor, gap = draw.standard_normal((6, 6)), draw.standard_normal(6)
        inverse = np.linalg.inv(np.eye(6) + factor @ factor.T)
        root = np.linalg.cholesky(inverse)
        rewards = [2.0 * draw.standard_normal((many, 6)) @ root.T for _ in range(draws_of)]
        seen = float(np.abs((rewards[0] - (rewards[1] if draws_of == 2 else 0.0)) @ gap).mean())
        closed = float(2.0 / np.sqrt(np.pi) * 2.0 * np.sqrt(gap @ inverse @ gap))
        worst = max(worst, abs(seen / closed - 1.0))
    return exactly(worst)


PL6 = Check(
    id="PL6",
    paper=PAPER,
    claim="The expected disagreement of two random rewards is (2 / sqrt(pi)) sigma_r times the pair's length.",
    setting="random positive definite matrices of 6 x 6, against the mean over drawn pairs of rewards",
    assumptions=("both rewards are normal with the same mean and covariance",),
    bound=0.05,
    bound_says="many standard errors of the drawn means",
    provenance="practical",
    statistic=lambda trial: _rule(trial, 2),
    control=Control("one random reward against the mean of both", lambda trial: _rule(trial, 1)),
)


def _rounds_of(trial: Trial, scale: float) -> Measured:
    """Share of moments at which the answer to "ask?" depends on more than the length of the difference."""
    spread = PRLSVI(SPEC, sweep(PRLSVIConfig(epsilon=0.9), _seeds(trial)))
    duel(spread, LINEAR.tabular(), 100)
    other = PRLSVI(SPEC, sweep(PRLSVIConfig(epsilon=0.9), _seeds(trial)))
    other.load_state_dict(spread.state_dict())
    other.theta = np.asarray(np.random.default_rng(trial.seed).standard_normal(other.theta.shape))  # says nothing
    other.spread = other.spread * scale
    draw, size = np.random.default_rng(trial.seed), len(spread.keys)
    changed, count = 0, 0
    for _ in range(trial.pick(50, 200, 1000)):
        one, two = (Trajectories(draw.integers(10, size=(size, 4)), draw.integers(3, size=(size, 3))) for _ in range(2))
        changed += int((spread.asks(one, two) != other.asks(two, one)).sum())
        count += size
    return exactly(changed / count)


PL7 = Check(
    id="PL7",
    paper=PAPER,
    claim="Whether PR-LSVI asks depends on the pair's length in Sigma_r^-1 alone, not on order or fitted reward.",
    setting=f"{SETTING}; random pairs after 100 rounds, in both orders, under two rewards",
    assumptions=(),
    bound=0.0,
    bound_says="the rule is a function of that length",
    provenance="derived",
    statistic=lambda trial: _rounds_of(trial, 1.0),
    control=Control("Sigma_r^-1 four times as large", lambda trial: _rounds_of(trial, 4.0)),
)

CLASS = random_linear(6, 3, 2, 4, seed=5, concentration=0.1, reward=BOUND, count=16).tabular()
"""Sixteen transitions and, apart from them, sixteen rewards: the prior of PR-TS."""
TS_SPEC = DuelingSpec(np.eye(18).reshape(6, 3, 18), 2, BOUND, CLASS.transition, CLASS.reward)
TS_SETTING = "prior: 16 transitions and 16 rewards of linear MDPs S6 A3 H2 d4; every seed draws its truth from it"


def _sampled(trial: Trial, rounds: int, config: PRTSConfig, seeds: int) -> tuple[PRTS, DuelTrace, Floats]:
    """A stack that has played, each member in a truth of its own; and the index of its true reward [P]."""
    draw = np.random.default_rng([trial.seed, 7])
    model, reward = draw.integers(16, size=(2, seeds))
    truth = EpisodicMDP(CLASS.transition[model], CLASS.reward[reward])
    first = 10_000 * trial.seed
    learner = PRTS(TS_SPEC, sweep(config, range(first, first + seeds)))
    return learner, duel(learner, truth, rounds), reward.astype(np.float64)


def _bayes(trial: Trial, what: str, config: PRTSConfig, beta: float) -> Measured:
    """Exponent in T of the mean over truths of the final regret, or of the questions."""
    when = trial.pick((50, 100, 200), (250, 500, 1000, 2000), (500, 1000, 2000, 4000, 8000))
    values = []
    for rounds in when:
        chosen = replace(config, epsilon=2.0 * rounds**-beta if beta else config.epsilon)
        _, trace, _ = _sampled(trial, rounds, chosen, trial.pick(40, 100, 400))
        values.append(trace.final_regret() if what == "regret" else trace.queries())
    shown = ", ".join(f"{one.mean():.1f}" for one in values)
    return exponent(np.array(when, dtype=np.float64), np.stack(values), seed=trial.seed, note=f"mean {what}: {shown}")


TS1 = Check(
    id="PL-TS1",
    paper=PAPER,
    claim="With epsilon = 2 T^(-1/3), the Bayes regret of PR-TS grows at most as T^(2/3).",
    setting=f"{TS_SETTING}; 100 seeds, T = 250 to 2000, log-log slope of mean final regrets",
    assumptions=("truths are drawn from the prior",),
    bound=1.0 - BETA + TOLERANCE,
    bound_says="1 - beta, and 0.1 for the logarithms",
    provenance="practical",
    statistic=lambda trial: _bayes(trial, "regret", PRTSConfig(), BETA),
    control=Control("never asking: linear regret", lambda trial: _bayes(trial, "regret", PRTSConfig(epsilon=1e9), 0.0)),
    size="standard",
    after_looking=_SMALLER,
)

TS2 = Check(
    id="PL-TS2",
    paper=PAPER,
    claim="With epsilon = 2 T^(-1/3), PR-TS asks at most about T^(2/3) questions.",
    setting=f"{TS_SETTING}; 100 seeds, T = 250 to 2000, log-log slope of mean numbers of questions",
    assumptions=("truths are drawn from the prior",),
    bound=2.0 * BETA + TOLERANCE,
    bound_says="2 beta, and 0.1 for the logarithms",
    provenance="practical",
    statistic=lambda trial: _bayes(trial, "questions", PRTSConfig(), BETA),
    control=Control(
        "a question in half of the rounds",
        lambda trial: _bayes(trial, "questions", PRTSConfig(random_queries=0.5), 0.0),
    ),
    size="standard",
    after_looking=_SMALLER,
)


def _confidence(trial: Trial, power: float) -> Measured:
    """What the posterior expects to give the true reward, minus what it gives it; the mean over truths is 0."""
    learner, _, truth = _sampled(trial, 60, PRTSConfig(epsilon=0.1), trial.pick(400, 2000, 8000))
    weight = posterior(power * learner.of_reward)
    given = weight[np.arange(len(weight)), truth.astype(np.int64)]
    return mean((weight**2).sum(-1) - given, f"mean weight of the truth {given.mean():.3f}")


TS3 = Check(
    id="PL-TS3",
    paper=PAPER,
    claim="The posterior of PR-TS is not over-confident, although its own questions chose the data.",
    setting=f"{TS_SETTING}; 60 rounds; mean over truths of the expected minus the given weight of the true reward",
    assumptions=("truths are drawn from the prior",),
    bound=0.05,
    bound_says="0 in expectation, and room for chance",
    provenance="practical",
    statistic=lambda trial: _confidence(trial, 1.0),
    control=Control("every answer counted four times", lambda trial: _confidence(trial, 4.0)),
)


def _backup(trial: Trial, linear: bool) -> Measured:
    """Largest error of fitting the Bellman backup of random functions by features."""
    worst = 0.0
    for seed in range(trial.pick(10, 50, 200)):
        mdp = random_linear(12, 4, 3, 5, seed=[trial.seed, seed])
        tables = mdp.tabular() if linear else dirichlet_episodic(12, 4, 3, seed=[trial.seed, seed])
        function = np.random.default_rng([trial.seed, seed, 1]).standard_normal(12)
        backup = (tables.reward + tables.transition @ function).reshape(3, -1).T  # [S A, H]
        flat = mdp.features.reshape(-1, 5)
        weights = np.linalg.lstsq(flat, backup, rcond=None)[0]
        worst = max(worst, float(np.abs(flat @ weights - backup).max()))
        worst = max(worst, solve_linear(mdp).residual)
    return exactly(worst)


LM1 = Check(
    id="LM1",
    paper="LSVI-UCB (Jin et al., COLT 2020)",
    claim="In a linear MDP the Bellman backup of any function is linear in the features.",
    setting="random linear MDPs S12 A4 H3 d5, standard normal functions, least squares on all pairs",
    assumptions=("transitions and rewards are linear in the features",),
    bound=1e-10,
    bound_says="rounding",
    provenance="paper",
    statistic=lambda trial: _backup(trial, True),
    control=Control("a random MDP of the same size with those features", lambda trial: _backup(trial, False)),
)


def _stuck(trial: Trial, config: PRLSVIConfig) -> Measured:
    """Share of seeds that lose in the last quarter of rounds more than half of what they lose in the first round."""
    trace = _sides(trial, trial.pick(600, 1500, 4000), (config,))
    late = trace.regret.value[-trace.rounds // 4 :].mean(0)
    optimum = trace.regret.optimum
    start = trace.regret.value[0]
    stuck = optimum - late > 0.5 * (optimum - start)
    return share(int(stuck.sum()), len(stuck), "seeds that still lose half of what they lost at first")


PL5 = Check(
    id="PL5",
    paper=PAPER,
    claim="Where transitions are nearly deterministic, randomisation is what explores: without it most seeds stay.",
    setting=f"{SETTING}; 20 seeds of 1500 rounds, always asking; stuck: the last quarter loses half of what the first "
    "round does",
    assumptions=(
        "the MDP is linear in known features",
        "nearly deterministic transitions: no claim is made for others",
    ),
    bound=0.5,
    bound_says="with randomisation at most half of the seeds are stuck, without it (the control) more",
    provenance="practical",
    statistic=lambda trial: _stuck(trial, ALWAYS),
    control=Control("no randomisation", lambda trial: _stuck(trial, STILL)),
    size="standard",
    after_looking=f"{_INSTANCE}; and the half",
)
