"""D10 to D13: where one direct preference objective finds the optimum and another provably or measurably does not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.special import expit
from torch import Tensor

from pbrl.data.files import replacing
from pbrl.figures import FAINT, PALETTE, STYLE
from pbrl.parts import direct_preference as direct
from pbrl.theory.alignment_bandit import AlignmentBandit
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.figures import rates
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import RESAMPLES, exactly, mean, resampled

from .resets import LENGTHS, success

XPO_BETA, XPO_ROUNDS, OPTIMISM = 0.03, 400, 0.1


def _two_arms() -> tuple[AlignmentBandit, Floats]:
    """The good response is exponentially rare in the reference; the class holds the optimum and a policy that shuns it.

    Returns the bandit and the class [2, 2]: first the shunning policy (optimal for the reward (1/2, 0)), then the best.
    """
    rare = float(np.exp(-1.0 / (4.0 * XPO_BETA)))
    reference = np.array([1.0 - rare, rare])
    truth = AlignmentBandit(reference, np.array([0.5, 1.0]), XPO_BETA)
    shunning = AlignmentBandit(reference, np.array([0.5, 0.0]), XPO_BETA)
    return truth, np.stack([shunning.optimum, truth.optimum])


@cache
def exploring(trial: Trial, optimism: float) -> Floats:
    """[seeds, rounds] average sub-optimality so far of online learning in a class of two policies.

    Each round a response of the policy is compared with one of the reference; the next policy minimises XPO's loss over
    all rounds (``optimism`` 0: online DPO). Of equal policies the present one stays.
    """
    bandit, choices = _two_arms()
    seeds = trial.pick(20, 60, 200)
    draw = np.random.default_rng([trial.seed, 61])
    ratio = torch.from_numpy(np.log(choices) - np.log(bandit.reference))  # [2 policies, 2 responses]
    log_policy = torch.from_numpy(np.log(choices))
    loss = torch.zeros(seeds, 2, dtype=torch.float64)
    now = np.zeros(seeds, dtype=np.int64)
    lost = np.array([bandit.lost(policy) for policy in choices])
    result = np.empty((seeds, XPO_ROUNDS))
    for t in range(XPO_ROUNDS):
        result[:, t] = lost[now]
        chosen = (draw.random(seeds) < choices[now, 1]).astype(np.int64)
        other = (draw.random(seeds) < bandit.reference[1]).astype(np.int64)
        label = torch.from_numpy((draw.random(seeds) < expit(bandit.reward[other] - bandit.reward[chosen])) * 1.0)
        one, two = ratio[:, chosen].T, ratio[:, other].T  # [seeds, 2 policies]
        loss += direct.xpo(one, two, label[:, None], XPO_BETA, log_policy[:, other].T, optimism)
        gap = (loss[:, 1] - loss[:, 0]).numpy()
        now = np.where(gap < -1e-12, 1, np.where(gap > 1e-12, 0, now))
    average: Floats = result.cumsum(1) / np.arange(1, XPO_ROUNDS + 1)
    return average


def _explored(trial: Trial, optimism: float) -> Measured:
    return mean(exploring(trial, optimism)[:, -1], f"{XPO_ROUNDS} rounds")


@cache
def _uncovered() -> AlignmentBandit:
    return AlignmentBandit(np.array([0.49, 0.49, 0.02]), np.array([1.0, 0.0, 0.0]), 0.25)


def free_mass(mass: Floats | float) -> Floats:
    """[..., 3] the policies that minimise DPO's loss on pairs of responses 1 and 2, by their mass on response 3."""
    bandit = _uncovered()
    share = expit(1.0 / bandit.beta)  # pi_1 / pi_2 = (ref_1 / ref_2) exp((r_1 - r_2) / beta)
    rest = 1.0 - np.asarray(mass, dtype=np.float64)
    return np.stack([rest * share, rest * (1.0 - share), np.asarray(mass, dtype=np.float64) + 0.0 * rest], axis=-1)


def trained(weight: float, steps: int) -> Floats:
    """[3] what gradient descent on DPO + weight KL(pi || reference) finds from mass 0.999 on response 3."""
    bandit = _uncovered()
    log_reference = torch.from_numpy(np.log(bandit.reference))
    label = torch.tensor(float(bandit.preference[1, 0]), dtype=torch.float64)
    logits = torch.from_numpy(np.log(free_mass(0.999)))

    def loss(given: Tensor) -> Tensor:
        ratio = given.log_softmax(-1) - log_reference
        # reverse_kl under the exact law of own samples: its gradient is that of KL(pi || reference)
        own = (given.softmax(-1).detach() * direct.reverse_kl(ratio)).sum()
        return direct.dpo(ratio[0], ratio[1], label, bandit.beta) + weight * own

    for _ in range(steps):
        at = logits.clone().requires_grad_()
        logits = logits - 5.0 * torch.autograd.grad(loss(at), at)[0]
    return np.asarray(logits.softmax(-1).numpy())


def _covered(trial: Trial, weight: float) -> Measured:
    policy = trained(weight, trial.pick(3000, 6000, 20_000))
    return exactly(_uncovered().lost(policy), "policy " + " ".join(f"{p:.3f}" for p in policy))


def _spread(trial: Trial, covered: bool) -> Measured:
    """Range of the objective over the minimisers of DPO's loss, by their mass on response 3."""
    del trial
    bandit = _uncovered()
    # Comparisons with response 3 leave one minimiser, the optimum; without them its mass is free.
    masses = [float(bandit.optimum[2])] if covered else list(np.linspace(0.0, 0.999, 200))
    policies = free_mass(np.array(masses))
    ratio = torch.from_numpy(np.log(policies[:, :2]) - np.log(bandit.reference[:2]))
    label = torch.full((len(masses),), float(bandit.preference[1, 0]), dtype=torch.float64)
    risk = direct.dpo(ratio[:, 0], ratio[:, 1], label, bandit.beta)
    least = -(label * label.log() + (1 - label) * (1 - label).log())
    if float((risk - least).abs().max()) > 1e-9:
        raise ArithmeticError("these policies do not all minimise DPO's loss")
    lost = [bandit.lost(policy) for policy in policies]
    return exactly(max(lost) - min(lost), f"all of DPO's loss {float(risk[0]):.6f}")


def _figure(trial: Trial, path: Path) -> str:
    with rc_context(STYLE), replacing(path) as temporary:
        figure = Figure(figsize=(11.0, 8.8), dpi=160)
        FigureCanvasAgg(figure)
        (left, right), (flipped, reset) = figure.subplots(2, 2)
        rounds = np.arange(1, XPO_ROUNDS + 1)
        for number, (name, amount) in enumerate((("online DPO", 0.0), ("XPO", OPTIMISM))):
            left.plot(rounds, exploring(trial, amount).mean(0), color=PALETTE[number], lw=2, label=name)
        left.set(xscale="log", xlabel="rounds", ylabel="average sub-optimality so far")
        left.set_title("Exploration: XPO against online DPO")
        masses = np.linspace(0.0, 0.999, 200)
        lost = [_uncovered().lost(policy) for policy in free_mass(masses)]
        right.plot(masses, lost, color=PALETTE[0], lw=2, label="DPO: all of these minimise its loss")
        found = trained(0.02, 3000)
        right.plot(found[2], _uncovered().lost(found), "o", color=PALETTE[1], label="HyPO, from the far right")
        right.set(xlabel="mass on a response that was never compared", ylabel="sub-optimality")
        right.set_title("Coverage: HyPO against DPO")
        rates(flipped, {"corrected (rDPO)": flipped_errors(trial, True), "naive DPO": flipped_errors(trial, False)})
        flipped.set(xlabel="labels, a fifth of them flipped", ylabel="error of the reward")
        flipped.set_title("Flips: rDPO against naive DPO")
        for number, (name, resets) in enumerate((("from the start", False), ("resets to recorded states", True))):
            needed = [1.0 / success(length, resets, trial.seed) for length in LENGTHS]
            reset.plot(LENGTHS, needed, color=PALETTE[number], lw=2, marker="o", ms=4, label=name)
        reset.set(yscale="log", xlabel="length of the combination lock", ylabel="roll-outs until a success")
        reset.set_xticks(LENGTHS)
        reset.set_title("Resets against none")
        for axes in (left, right, flipped, reset):
            axes.grid(color=FAINT, lw=0.6)
            axes.legend(frameon=False, fontsize=9)
        figure.subplots_adjust(wspace=0.25, hspace=0.42)
        figure.savefig(temporary, format="png", bbox_inches="tight", metadata={"Software": None})
    return (
        "D10: where the good response is exponentially rare in the reference, online DPO never sees it; XPO's bonus on "
        "the log-likelihood does. D11, D12: DPO leaves the mass of an uncompared response open, HyPO's KL term does "
        "not. D13: of flipped labels naive DPO keeps an error that no number of labels removes. R1: roll-outs until "
        "the first success on a lock, from the start or after a reset to a state of a recorded success."
    )


D10 = Check(
    id="D10",
    paper="XPO (Xie et al., 2024)",
    claim="Optimism finds a response that the reference draws exponentially rarely; online DPO does not.",
    setting=f"two responses, the good one of reference mass exp(-1 / (4 beta)), beta {XPO_BETA}; a class of two "
    f"policies; {XPO_ROUNDS} rounds, 20 seeds at smoke size",
    assumptions=("the optimum is in the class", "ties keep the present policy"),
    bound=0.02,
    bound_says="a tenth of 1/8, the least sub-optimality that the paper's lower bound leaves to online DPO, rounded up",
    provenance="practical",
    statistic=lambda trial: _explored(trial, OPTIMISM),
    control=Control("online DPO: optimism 0", lambda trial: _explored(trial, 0.0)),
    figure=_figure,
)

D11 = Check(
    id="D11",
    paper="HyPO (Song et al., NeurIPS 2024)",
    claim="Without global coverage policies of equal, least DPO loss differ in value by more than one unit of reward.",
    setting="three responses, reference (.49, .49, .02), rewards (1, 0, 0), beta 0.25; only 1 and 2 are compared",
    assumptions=("exact preference probabilities", "a response that is never compared"),
    bound=1.0,
    bound_says="the range of rewards on this instance",
    provenance="practical",
    statistic=lambda trial: _spread(trial, False),
    control=Control("all three compared: one minimiser", lambda trial: _spread(trial, True)),
    at_least=True,
)

D12 = Check(
    id="D12",
    paper="HyPO (Song et al., NeurIPS 2024)",
    claim="A reverse KL on the policy's own samples restores what missing coverage lost.",
    setting="the same three responses; gradient descent from mass 0.999 on response 3, KL weight 0.02",
    assumptions=("on-policy samples, here exact", "preferences of the covered pair are exact"),
    bound=0.05,
    bound_says="the cost of the additional KL, far below the 1.8 that the start loses",
    provenance="practical",
    statistic=lambda trial: _covered(trial, 0.02),
    control=Control("DPO alone, whose gradient vanishes at the start", lambda trial: _covered(trial, 0.0)),
)

FLIPS, DIMENSIONS = 0.2, 4


@cache
def flipped_errors(trial: Trial, corrects: bool) -> tuple[Floats, Floats]:
    """Numbers of labels [N] and errors [N, repetitions] of a linear reward fitted to flipped labels."""
    sizes = np.array(trial.pick([500, 2000, 8000], [500, 2000, 8000, 32_000], [500, 2000, 8000, 32_000, 128_000]))
    errors = np.zeros((len(sizes), trial.pick(20, 40, 100)))
    truth = np.array([1.0, -1.0, 0.5, 0.5])
    rate = FLIPS if corrects else 0.0
    for i, size in enumerate(sizes):
        for j in range(errors.shape[1]):
            draw = np.random.default_rng([trial.seed, 62, i, j])
            feature = draw.standard_normal((size, DIMENSIONS))
            label = (draw.random(size) < expit(feature @ truth)) != (draw.random(size) < FLIPS)
            target = (label - rate) / (1.0 - 2.0 * rate)
            weight = np.zeros(DIMENSIONS)
            for _ in range(12):  # Newton; the loss is convex, whatever the targets
                chance = expit(feature @ weight)
                curvature = (feature * (chance * (1 - chance))[:, None]).T @ feature
                weight = weight - np.linalg.solve(curvature, feature.T @ (chance - target))
                weight *= min(1.0, 10.0 / float(np.linalg.norm(weight)))
            errors[i, j] = np.linalg.norm(weight - truth)
    return sizes.astype(np.float64), errors


def _flips(trial: Trial, corrects: bool) -> Measured:
    """Slope of the log error against the log number of labels, with a bootstrap over repetitions."""
    sizes, errors = flipped_errors(trial, corrects)
    x = np.log(sizes) - np.log(sizes).mean()
    logs = np.log(errors)
    chosen = np.random.default_rng([trial.seed, 63]).integers(logs.shape[1], size=(RESAMPLES, logs.shape[1]))
    shown = " ".join(f"{error:.3g}" for error in np.exp(logs.mean(1)))
    return resampled(float(logs.mean(1) @ x / (x @ x)), logs.T[chosen].mean(1) @ x / (x @ x), f"errors {shown}")


D13 = Check(
    id="D13",
    paper="rDPO (Chowdhury et al., ICML 2024)",
    claim="With labels flipped at a known rate the corrected loss's error falls as one over the root of their number.",
    setting=f"{DIMENSIONS} standard normal features, flips at {FLIPS}; 20 times 500 to 8000 labels at smoke size",
    assumptions=("the flip rate is known", "parameters bounded by 10"),
    bound=-0.4,
    bound_says="the parametric rate -1/2, with a margin of 0.1 for the smallest sizes",
    provenance="practical",
    statistic=lambda trial: _flips(trial, True),
    control=Control("naive DPO: an error that stays", lambda trial: _flips(trial, False)),
)
