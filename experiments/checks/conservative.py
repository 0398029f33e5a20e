"""SM1 to SM6, SM9 and SM10: is conservative exploration safe in every episode, and what does it cost?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from agents.tabular.step_mix import StepMix, StepMixConfig
from agents.tabular.ucbvi import UCBVI, UCBVIConfig
from pbrl import rng
from pbrl.members import Members, sweep
from pbrl.theory.check import Check, Control, Measured, Size, Trial
from pbrl.theory.episodes import sample_counts
from pbrl.theory.figures import regret_figure
from pbrl.theory.instances import hard_family
from pbrl.theory.learner import TabularSpec
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import RESAMPLES, mean, resampled, share
from pbrl.theory.model import CountedModel
from pbrl.theory.regret import RegretTrace, play

from ..regret import curves, studies

PAPER = "StepMix (Li et al., ICML 2023)"
SEEDS: dict[Size, int] = {"smoke": 20, "standard": 300, "full": 1000}
SHARE, GROWTH, FINE = 0.6, 0.1, 0.03
"""The threshold as a share of the baseline's value, and by how much the episodes grow between plans. Growth rates of
regret need a fine one: a bad plan late in a run is played for that share of all episodes."""
COMPARED = ("ucbvi", "step_mix", "eps_mix", "budgeted", "opt_pess_lp", "baseline_only")


@cache
def _study(instance: int, episodes: int, share_of_baseline: float = SHARE) -> studies.Study:
    return studies.make("safe", episodes=episodes, seed=instance, share=share_of_baseline)


@cache
def _trace(
    name: str,
    seeds: range,
    episodes: int,
    width: float = 1.0,
    share_of_baseline: float = SHARE,
    growth: float = GROWTH,
) -> RegretTrace:
    """An agent on the "safe" study; the checks of this file share it."""
    study = _study(2, episodes, share_of_baseline)
    return curves.run(name, study, seeds, episodes, growth, {"width": width}).trace


def _seeds(trial: Trial, most: int = 1 << 30) -> range:
    first = 100_000 * trial.seed
    return range(first, first + min(SEEDS[trial.size], most))


def _violations(trial: Trial, name: str, width: float) -> Measured:
    """Share of seeds in which any episode's exact value was below the threshold."""
    episodes = trial.pick(10_000, 100_000, 1_000_000)
    trace = _trace(name, _seeds(trial), episodes, width)
    bad = trace.violations(_study(2, episodes).threshold)
    return share(int((bad > 0).sum()), len(bad), f"seeds with a violating episode, {int(bad.sum())} such episodes")


_SETTING = "random MDP S5 A3 H4 with few rewards; Boltzmann baseline; threshold 0.6 of its value; exact values"
_SAFE = ("the baseline is known and safe", "rewards are known", "the threshold is below the baseline's value")

_PLANS = "episodes between plans first grew by 10 %, now by 3 %: at 10 % single late plans had decided the slope"
_THRESHOLD = (
    "the threshold was 0.9 of the baseline's value first, and 0.6 since the second version; at 0.9 and at 0.8 StepMix "
    "violates in no seed of 300 either"
)

SM1 = Check(
    id="SM1",
    paper=PAPER,
    claim="StepMix violates the threshold in no episode, with probability at least 1 - delta (asked for: 0.99).",
    setting=f"{_SETTING}; 300 seeds of 100,000 episodes at standard size, delta 0.1",
    assumptions=_SAFE,
    bound=0.01,
    bound_says="ours, a tenth of the theorem's delta: the least that 300 seeds without a violation can show",
    provenance="practical",
    statistic=lambda trial: _violations(trial, "step_mix", 1.0),
    control=Control("confidence widths x 0.001", lambda trial: _violations(trial, "step_mix", 0.001)),
    size="standard",
    figure=lambda trial, path: _figure(trial, path),
    after_looking=_THRESHOLD,
)

SM1_EPS = replace(
    SM1,
    id="SM1-eps",
    claim="EpsMix violates the threshold in no episode, in expectation over its coin.",
    statistic=lambda trial: _violations(trial, "eps_mix", 1.0),
    control=Control("plain optimism (UCBVI)", lambda trial: _violations(trial, "ucbvi", 1.0)),
    figure=None,
)


def _figure(trial: Trial, path: Path) -> str:
    episodes = trial.pick(10_000, 1_000_000, 10_000_000)
    traces = {name: _trace(name, _seeds(trial, 32), episodes) for name in COMPARED}
    study = _study(2, episodes)
    regret_figure(traces, path, title="Regret of conservative and plain exploration", threshold=study.threshold)
    return (
        "Left: cumulative pseudo-regret, mean and middle 80 % of seeds. Right: the exact value of each episode's "
        "policy, mean (thick) and least (thin) over seeds; marks below the axis are episodes below the threshold. "
        "budgeted keeps the threshold on the sum of all episodes only; opt_pess_lp keeps it in each, at a dear price."
    )


def _calibration(trial: Trial, width: float) -> Measured:
    """Share of seeds in which a lower bound was above the plan's value, or an upper one below V*, at any plan."""
    episodes = trial.pick(10_000, 100_000, 1_000_000)
    trace = _trace("step_mix", _seeds(trial), episodes, width)
    wrong = (trace.lower > trace.value + 1e-9) | (trace.upper < trace.optimum - 1e-9)
    return share(int(wrong.any(0).sum()), wrong.shape[1], "seeds with a bound that was wrong")


SM2 = Check(
    id="SM2",
    paper=PAPER,
    claim="At every plan the lower bound is below the plan's value and the upper bound above V*.",
    setting=f"{_SETTING}; every plan of 300 seeds",
    assumptions=("rewards are known",),
    bound=0.1,
    bound_says="delta = 0.1: Pinsker on the uniform KL radius, and Hoeffding for V*, at delta / 2 each",
    provenance="derived",
    statistic=lambda trial: _calibration(trial, 1.0),
    control=Control("confidence widths x 0.01", lambda trial: _calibration(trial, 0.01)),
    size="standard",
    after_looking=_THRESHOLD,
)


def _last_decade(trial: Trial, name: str, width: float) -> Measured:
    """Slope of the mean regret over the last decade, bootstrapped over seeds."""
    episodes = trial.pick(100_000, 10_000_000, 10_000_000)
    trace = _trace(name, _seeds(trial, 100), episodes, width, growth=FINE)
    return trace.slope(episodes / 10, episodes, seed=trial.seed)


SM3 = Check(
    id="SM3",
    paper=PAPER,
    claim="The regret of StepMix grows at most as the square root of the number of episodes.",
    setting=f"{_SETTING}; 100 seeds of 10^7 episodes at standard size; log-log slope over the last decade; "
    "planned anew at 3 % more episodes",
    assumptions=_SAFE,
    bound=0.5,
    bound_says="the exponent of sqrt(H^3 S A K), the leading term",
    provenance="paper",
    statistic=lambda trial: _last_decade(trial, "step_mix", 1.0),
    control=Control("the baseline alone: linear regret", lambda trial: _last_decade(trial, "baseline_only", 1.0)),
    size="standard",
    after_looking=f"{_PLANS}; {_THRESHOLD}",
)


def _price(trial: Trial, name: str) -> Measured:
    """Slope over the last decade of the regret beyond plain optimism's, relative to it: the ratio must fall to 1."""
    episodes = trial.pick(1_000_000, 10_000_000, 10_000_000)
    seeds = _seeds(trial, 100)
    when = np.array([episodes // 100, episodes])
    safe, plain = (_trace(who, seeds, episodes, 1.0, 0.9, FINE).at(when) for who in (name, "ucbvi"))
    draw = np.random.default_rng(trial.seed)
    weights = draw.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), RESAMPLES) / len(seeds)

    def change(one: Floats, two: Floats) -> Floats:
        ratio = one / two
        return ratio[..., 1] / ratio[..., 0]

    point = change(safe.mean(0), plain.mean(0))
    return resampled(
        float(point), change(weights @ safe, weights @ plain), "ratio of regrets at K over that at K / 100"
    )


SM4 = Check(
    id="SM4",
    paper=PAPER,
    claim="Safety has an additive price: StepMix's regret relative to plain optimism's falls as episodes go on.",
    setting="the MDP of SM1, threshold 0.9 of the baseline; 100 seeds; ratio of mean regrets at 10^7 over at 10^5; "
    "planned anew at 3 % more episodes",
    assumptions=_SAFE,
    bound=0.9,
    bound_says="a ratio that falls by at least a tenth over two decades; the theorem says that it tends to 1",
    provenance="practical",
    statistic=lambda trial: _price(trial, "step_mix"),
    control=Control("the baseline alone: the ratio grows", lambda trial: _price(trial, "baseline_only")),
    size="standard",
    after_looking=_PLANS,
)

SHARES = (0.95, 0.9, 0.8, 0.7, 0.6)


class RootModel(CountedModel):
    """Takes n visits for the evidence of their square root."""

    @property
    def visits(self) -> Floats:
        """[P, H, S, A], too few."""
        visits: Floats = np.sqrt(self.counts.sum(-1))
        return visits

    @property
    def law(self) -> Floats:
        """[P, H, S, A, S'] the frequencies, as they are."""
        seen = self.counts.sum(-1, keepdims=True)
        law: Floats = np.where(seen > 0, self.counts / np.maximum(seen, 1.0), 1.0 / self.counts.shape[-1])
        return law


class Slow(StepMix):
    """StepMix whose widths shrink as n^(-1/4)."""

    def __init__(self, spec: TabularSpec, members: Members[StepMixConfig]) -> None:
        super().__init__(spec, members)
        self.model = RootModel(spec, members)


def _burn_in(trial: Trial, make: type[StepMix], episodes: int) -> Measured:
    """Log-log slope, against the baseline's margin, of the episodes until the plan is fully optimistic."""
    seeds = _seeds(trial, trial.pick(20, 30, 200))
    margins, waits = [], []
    for part in SHARES:
        study = _study(2, episodes, part)
        trace = play(make(study.spec, sweep(StepMixConfig(), seeds)), study.mdp, episodes, growth=GROWTH)
        free = trace.lower > study.threshold + 1e-9  # certified beyond the threshold: no mixture is needed any more
        last = np.where(free.any(0), free.argmax(0), len(free) - 1)
        margins.append(study.baseline - study.threshold)
        waits.append(trace.ends[last])
    x, y = np.log(margins), np.log(np.array(waits, dtype=np.float64))  # [N], [N, P]
    draw = np.random.default_rng(trial.seed)
    chosen = draw.integers(len(seeds), size=(RESAMPLES, len(seeds)))

    def slope(mean: Floats) -> Floats:
        centred = x - x.mean()
        rate: Floats = mean @ centred / (centred @ centred)
        return rate

    return resampled(float(slope(y.mean(1))), slope(y.T[chosen].mean(1)), f"waits {np.exp(y.mean(1)).round()}")


SM5 = Check(
    id="SM5",
    paper=PAPER,
    claim="The time until StepMix needs its baseline no more grows at most as 1 / margin^2.",
    setting=f"the random MDP of SM1; thresholds at {', '.join(map(str, SHARES))} of the baseline's value",
    assumptions=_SAFE,
    bound=-2.0,
    bound_says="the exponent of the margin in the additive term; growing at most so fast is a slope of at least -2",
    provenance="paper",
    statistic=lambda trial: _burn_in(trial, StepMix, 10**6),
    control=Control("widths that shrink as n^(-1/4)", lambda trial: _burn_in(trial, Slow, 10**11)),
    size="standard",
    at_least=True,
    after_looking="the number of seeds was halved, to fit the standard tier",
)


FACTORS = (2.0, 2.8, 4.0, 5.6, 8.0, 11.2, 1e9)


def _worst_case(trial: Trial, width: float) -> Measured:
    """Exponent of the regret after K episodes of the instance that is worst for K, over a wide range of gaps."""
    sizes = trial.pick((10**5, 10**6), (10**5, 10**6, 10**7), (10**5, 10**6, 10**7, 10**8))
    seeds = _seeds(trial, trial.pick(20, 40, 300))
    regret = np.zeros((len(sizes), len(FACTORS), len(seeds)))
    for i, episodes in enumerate(sizes):
        for j, factor in enumerate(FACTORS):
            mdp = hard_family(episodes, factor=factor)
            learner = UCBVI(TabularSpec.of(mdp), sweep(UCBVIConfig(width=width), seeds))
            regret[i, j] = play(learner, mdp, episodes, growth=GROWTH).at([episodes])[:, 0]
    logs = np.log(np.array(sizes, dtype=np.float64))
    centred = logs - logs.mean()
    draw = np.random.default_rng(trial.seed)
    weights = draw.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), RESAMPLES) / len(seeds)

    def slope(mean: Floats) -> Floats:
        """Of mean regrets [N, factors, ...]."""
        rate: Floats = np.tensordot(centred, np.log(mean.max(1)), 1) / (centred @ centred)
        return rate

    ratios = " ".join(f"{worst / np.sqrt(k):.2f}" for worst, k in zip(regret.mean(-1).max(1), sizes))
    return resampled(float(slope(regret.mean(-1))), slope(regret @ weights.T), f"worst R / sqrt(K): {ratios}")


SM6 = Check(
    id="SM6",
    paper="UCBVI (Azar et al., ICML 2017)",
    claim="Over instances that may be chosen for each number K of episodes, optimism's regret grows as sqrt(K).",
    setting="4 contexts, 4 actions, gaps f sqrt(16 / K) / 2 for f from 2 to 11, and 0.5; K from 10^5 to 10^7",
    assumptions=("an instance per K: on a fixed one regret is logarithmic in the end, which would prove little",),
    bound=0.55,
    bound_says="1/2, and 0.03 for the logarithm in the widths between 10^5 and 10^7 episodes, rounded up",
    provenance="practical",
    statistic=lambda trial: _worst_case(trial, 1.0),
    control=Control("widths x 0: no exploration", lambda trial: _worst_case(trial, 0.0)),
    size="standard",
    after_looking="the first version had four gaps (f from 2 to 16) and K from 10^4 to 10^6",
)


def _learned(trial: Trial, recorded: int) -> Measured:
    """Share of seeds that violate when the baseline is cloned from each seed's own recorded episodes."""
    episodes, seeds = trial.pick(3000, 20_000, 100_000), _seeds(trial)
    study = _study(2, episodes, 0.9)
    assert study.spec.baseline is not None
    members = sweep(StepMixConfig(baseline="cloned"), seeds)
    behaviour = np.broadcast_to(study.spec.baseline, (len(seeds), 1, *study.spec.shape))
    keys = rng.fold(members.keys, "recorded").numpy()
    counts = sample_counts(study.mdp, behaviour, np.ones((len(seeds), 1)), recorded, keys, 0)
    spec = TabularSpec.of(study.mdp, threshold=study.threshold, offline=counts)
    trace = play(StepMix(spec, members), study.mdp, episodes, growth=GROWTH)
    bad = trace.violations(study.threshold)
    return share(int((bad > 0).sum()), len(bad), f"seeds that violate, baseline cloned from {recorded} episodes")


SM9 = Check(
    id="SM9",
    paper=PAPER,
    claim="With a baseline cloned from enough recorded episodes StepMix is as safe as with a known one.",
    setting="the MDP of SM1, threshold 0.9 of the behaviour; 1000 recorded and 20,000 own episodes; 300 seeds",
    assumptions=("the behaviour is safe by a margin", "enough recorded episodes for the margin"),
    bound=0.01,
    bound_says="far below delta = 0.1; the paper asks for poly(H, S) / margin^2 recorded episodes",
    provenance="practical",
    statistic=lambda trial: _learned(trial, 1000),
    control=Control("a baseline cloned from 3 episodes", lambda trial: _learned(trial, 3)),
    size="standard",
)


def _margin_price(trial: Trial, name: str) -> Measured:
    """Log ratio of regrets, a learner's over OptPess-LP's, of the same seeds after a million episodes."""
    episodes = trial.pick(100_000, 1_000_000, 10_000_000)
    regrets = [_trace(who, _seeds(trial, 32), episodes).at([episodes])[:, 0] for who in (name, "opt_pess_lp")]
    return mean(np.log(regrets[0] / regrets[1]), f"mean regrets {regrets[0].mean():.3g} and {regrets[1].mean():.3g}")


SM10 = Check(
    id="SM10",
    paper=PAPER,
    claim="StepMix has less regret than exploration by constrained programs, whose leading term grows as 1 / margin.",
    setting=f"{_SETTING}; 32 seeds of a million episodes; OptPess-LP with the same confidence sets",
    assumptions=(*_SAFE, "OptPess-LP's factor on its bonus is the one derived in its file"),
    bound=float(np.log(0.5)),
    bound_says="the mean log ratio of regrets: less than half of the regret; the paper compares the orders alone",
    provenance="practical",
    statistic=lambda trial: _margin_price(trial, "step_mix"),
    control=Control("OptPess-LP against itself", lambda trial: _margin_price(trial, "opt_pess_lp")),
    size="standard",
    after_looking="the half, after a first look at both learners",
)
