"""D1 to D9: what the minimisers of direct preference objectives are, exactly, where everything can be enumerated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pbrl.losses import bradley_terry
from pbrl.parts import direct_preference as direct
from pbrl.theory.alignment_bandit import AlignmentBandit, divergent_optimum, minimise, pairs
from pbrl.theory.check import Check, Control, Measured, Trial
from pbrl.theory.mdps import Floats
from pbrl.theory.measures import exactly

RESPONSES, BETA = 5, 0.5
_SETTING = f"random bandits with {RESPONSES} responses, standard normal rewards and reference logits, beta {BETA}"
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _bandits(trial: Trial) -> list[AlignmentBandit]:
    return [AlignmentBandit.random(RESPONSES, BETA, seed=[trial.seed, n, 51]) for n in range(trial.pick(3, 10, 100))]


def fitted(
    loss: Loss, bandit: AlignmentBandit, preference: Floats, weight: Floats | None = None, base: Floats | None = None
) -> Floats:
    """[Y] the policy that minimises a loss over all pairs, each with the probability that the second is preferred.

    Args:
        loss: of both log-ratios and the label.
        bandit: gives the reference.
        preference: [Y, Y] P(i preferred to j).
        weight: [Y] the law that both responses of a pair are drawn from; uniform if None.
        base: [Y] the reference of the log-ratios, the bandit's if None.
    """
    one, two = pairs(len(bandit.reference))
    log_base = torch.from_numpy(np.log(bandit.reference if base is None else base))
    law = torch.ones(len(log_base), dtype=torch.float64) if weight is None else torch.from_numpy(weight)
    often, label = law[one] * law[two], torch.from_numpy(preference)[two, one]

    def risk(logits: Tensor) -> Tensor:
        ratio = logits.log_softmax(-1) - log_base
        return (often * loss(ratio[one], ratio[two], label)).sum() / often.sum()

    return np.asarray(minimise(risk, log_base).softmax(-1).numpy())


def _dpo(trial: Trial, referenced: bool) -> Measured:
    """Largest error of DPO's minimiser against the regularised optimum."""

    def error(bandit: AlignmentBandit) -> float:
        base = None if referenced else np.full(RESPONSES, 1.0 / RESPONSES)
        found = fitted(lambda a, b, y: direct.dpo(a, b, y, BETA), bandit, bandit.preference, base=base)
        return float(np.abs(found - bandit.optimum).max())

    return exactly(max(map(error, _bandits(trial))))


D1 = Check(
    id="D1",
    paper="DPO (Rafailov et al., NeurIPS 2023)",
    claim="From exact preferences between all responses DPO's minimiser is the KL-regularised optimum.",
    setting=_SETTING,
    assumptions=("preferences are Bradley and Terry's", "every pair is compared"),
    bound=1e-8,
    bound_says="rounding of Newton's method",
    provenance="paper",
    statistic=lambda trial: _dpo(trial, True),
    control=Control("log-probabilities in place of log-ratios", lambda trial: _dpo(trial, False)),
)


def _ipo(trial: Trial, squared: bool) -> Measured:
    """Error of IPO's minimiser, of preferences that no reward explains, against reference exp(win rate / tau) / Z."""
    error = 0.0
    for number, bandit in enumerate(_bandits(trial)):
        draw = np.random.default_rng([trial.seed, number, 52])
        upper = np.triu(draw.random((RESPONSES, RESPONSES)), 1)
        preference = upper + np.tril(1.0 - upper.T, -1) + 0.5 * np.eye(RESPONSES)
        law = draw.dirichlet(np.ones(RESPONSES))
        loss = (lambda a, b, y: direct.ipo(a, b, y, BETA)) if squared else (lambda a, b, y: direct.dpo(a, b, y, BETA))
        score = np.log(bandit.reference) + preference @ law / BETA
        target = np.exp(score) / np.exp(score).sum()
        error = max(error, float(np.abs(fitted(loss, bandit, preference, weight=law) - target).max()))
    return exactly(error)


D2 = Check(
    id="D2",
    paper="IPO (Azar et al., AISTATS 2024)",
    claim="IPO's minimiser is reference exp(P(y beats mu) / tau) / Z for any preferences and any sampling law mu.",
    setting=f"{_SETTING}; uniformly random preference matrices, Dirichlet mu",
    assumptions=("both responses of a pair are drawn from mu, of full support",),
    bound=1e-8,
    bound_says="rounding of Newton's method",
    provenance="paper",
    statistic=lambda trial: _ipo(trial, True),
    control=Control("DPO's loss, which needs preferences that a reward explains", lambda trial: _ipo(trial, False)),
)


def _certain(trial: Trial, squared: bool) -> Measured:
    """Log-ratio of winner to loser after many gradient steps on a preference that is certain."""
    label = torch.ones(1, dtype=torch.float64)
    logit = torch.zeros(1, dtype=torch.float64)
    for _ in range(trial.pick(1000, 4000, 20_000)):
        at = logit.clone().requires_grad_()
        loss = direct.ipo(0.0 * at, at, label, BETA) if squared else direct.dpo(0.0 * at, at, label, BETA)
        logit = logit - 0.5 * torch.autograd.grad(loss.sum(), at)[0]
    return exactly(float(logit), f"1 / (2 tau) = {0.5 / BETA:g}")


D3 = Check(
    id="D3",
    paper="IPO (Azar et al., AISTATS 2024)",
    claim="Of a certain preference IPO makes a finite log-ratio, 1 / (2 tau); the reference keeps its say.",
    setting="two responses, the second is always preferred, tau = beta = 0.5, 1000 gradient steps at smoke size",
    assumptions=("deterministic preferences",),
    bound=0.5 / BETA + 1e-9,
    bound_says="1 / (2 tau)",
    provenance="paper",
    statistic=lambda trial: _certain(trial, True),
    control=Control("DPO, whose log-ratio grows with the logarithm of training", lambda trial: _certain(trial, False)),
)


def _divergences(trial: Trial, own: bool) -> Measured:
    """Largest error of f-DPO's minimiser against the optimum under the same divergence, over divergences."""
    error = 0.0
    for bandit in _bandits(trial):
        for name in direct.LINKS:
            loss = partial(direct.f_dpo, beta=BETA, divergence=name if own else "reverse_kl")
            found = fitted(loss, bandit, bandit.preference)
            error = max(error, float(np.abs(found - divergent_optimum(bandit, name)).max()))
    return exactly(error, f"over {', '.join(direct.LINKS)}")


D4 = Check(
    id="D4",
    paper="f-DPO (Wang et al., ICLR 2024)",
    claim="With f' in place of the logarithm DPO's minimiser is the optimum regularised by the divergence f.",
    setting=f"{_SETTING}; reverse and forward KL, Jensen-Shannon, alpha 1/2, chi^2 + KL; the optimum by bisection",
    assumptions=("f' is invertible and its domain excludes 0", "every pair is compared"),
    bound=1e-7,
    bound_says="rounding of Newton's method",
    provenance="paper",
    statistic=lambda trial: _divergences(trial, True),
    control=Control("DPO, whatever the divergence", lambda trial: _divergences(trial, False)),
)


def _against_adversary(bandit: AlignmentBandit, seed: list[int], imitates: bool) -> float:
    """Error of RPO's policy against the policy of the reward that its adversary chooses."""
    draw, eta = np.random.default_rng(seed), 2.0
    one, two = pairs(RESPONSES)
    count = torch.from_numpy(draw.integers(1, 20, size=(2, len(one))).astype(np.float64))
    label, often = count[1] / count.sum(0), count.sum(0) / count.sum()
    base = torch.from_numpy(draw.dirichlet(np.ones(RESPONSES)))
    log_reference = torch.from_numpy(np.log(bandit.reference))

    def adversary(reward: Tensor) -> Tensor:
        best = BETA * (log_reference + reward / BETA).logsumexp(-1)
        risk = (often * bradley_terry(reward[two] - reward[one], label)).sum()
        return best - (base * reward).sum() + eta * risk

    def policy_loss(logits: Tensor) -> Tensor:
        ratio = logits.log_softmax(-1) - log_reference
        mean = (base * ratio).sum()
        each = direct.rpo(ratio[one], ratio[two], label, BETA, mean, 1.0 / eta if imitates else 0.0)
        return (often * each).sum()

    reward = minimise(adversary, torch.zeros(RESPONSES, dtype=torch.float64))
    chosen = (log_reference + reward / BETA).softmax(-1)
    found = minimise(policy_loss, log_reference).softmax(-1)
    return float((chosen - found).abs().max())


def _worst(
    trial: Trial, error: Callable[[AlignmentBandit, list[int], bool], float], number: int, whole: bool
) -> Measured:
    """The largest error over bandits, each with a seed of its own, of an identity that is whole or broken."""
    bandits = enumerate(_bandits(trial))
    return exactly(max(error(bandit, [trial.seed, n, number], whole) for n, bandit in bandits))


D5 = Check(
    id="D5",
    paper="RPO (Liu et al., NeurIPS 2024)",
    claim="The best policy against the worst reward near the data minimises DPO plus imitation of the baseline.",
    setting=f"{_SETTING}; random counts of answers per pair, random baseline, eta 2; both problems solved separately",
    assumptions=("the same class of rewards and policies",),
    bound=1e-7,
    bound_says="rounding of Newton's method in two different problems",
    provenance="paper",
    statistic=lambda trial: _worst(trial, _against_adversary, 53, True),
    control=Control("DPO without imitation", lambda trial: _worst(trial, _against_adversary, 53, False)),
)


def _two_forms(bandit: AlignmentBandit, seed: list[int], calibrated: bool) -> float:
    """Difference of values and gradients: likelihood minus alpha J* by reward, against VPO's loss by policy."""
    draw, alpha = np.random.default_rng(seed), 0.3
    one, two = pairs(RESPONSES)
    law = torch.from_numpy(draw.dirichlet(np.ones(RESPONSES)))
    reward = torch.from_numpy(draw.standard_normal(RESPONSES))
    label = torch.from_numpy(bandit.preference)[two, one]
    log_reference = torch.from_numpy(np.log(bandit.reference))

    def by_reward(given: Tensor) -> Tensor:
        shifted = given - (law * given).sum() if calibrated else given
        best = BETA * (log_reference + shifted / BETA).logsumexp(-1)
        return bradley_terry(given[two] - given[one], label).mean() - alpha * best

    def by_policy(given: Tensor) -> Tensor:
        ratio = (log_reference + given / BETA).log_softmax(-1) - log_reference
        return direct.vpo(ratio[one], ratio[two], label, BETA, (law * ratio).sum(), alpha).mean()

    slopes = [torch.autograd.functional.jacobian(f, reward) for f in (by_reward, by_policy)]
    values = float(by_reward(reward)) - float(by_policy(reward))
    return max(abs(values), float((slopes[0] - slopes[1]).abs().max()))


D6 = Check(
    id="D6",
    paper="VPO (Cen et al., ICLR 2025)",
    claim="Optimism about the optimal value is a term on the calibration law's log-likelihood: no inner maximisation.",
    setting=f"{_SETTING}; random rewards and calibration laws, alpha 0.3; values and gradients",
    assumptions=("rewards are shifted to mean 0 under the calibration law",),
    bound=1e-10,
    bound_says="rounding: J*(r) - E_cal r = -beta E_cal log(pi_r / reference)",
    provenance="paper",
    statistic=lambda trial: _worst(trial, _two_forms, 54, True),
    control=Control(
        "rewards that are not calibrated: J* grows with their shift", lambda trial: _worst(trial, _two_forms, 54, False)
    ),
)


def _corrected(trial: Trial, corrects: bool) -> Measured:
    """Largest difference between the mean over flips of the labels and the loss of the clean ones."""
    draw = torch.Generator().manual_seed(trial.seed)
    first, second = torch.randn(2, trial.pick(1000, 10_000, 100_000), generator=draw, dtype=torch.float64)
    rate = torch.rand(first.shape, generator=draw, dtype=torch.float64) * 0.45
    label = (first > 0).double()
    if corrects:
        losses = [direct.rdpo(first, second, y, BETA, rate) for y in (label, 1.0 - label)]
    else:
        losses = [direct.dpo(first, second, y, BETA) for y in (label, 1.0 - label)]
    seen = (1.0 - rate) * losses[0] + rate * losses[1]
    return exactly(float((seen - direct.dpo(first, second, label, BETA)).abs().max()))


D7 = Check(
    id="D7",
    paper="rDPO (Chowdhury et al., ICML 2024)",
    claim="The corrected loss of flipped labels has the mean of DPO's loss of the clean ones.",
    setting="random log-ratios, labels and flip rates below 0.45; the mean over flips by enumeration",
    assumptions=("the flip rate is known",),
    bound=1e-10,
    bound_says="rounding",
    provenance="paper",
    statistic=lambda trial: _corrected(trial, True),
    control=Control("DPO of the flipped labels", lambda trial: _corrected(trial, False)),
)


def _ranked(trial: Trial, shifted: bool) -> Measured:
    """Share of pairs for which "loss below the threshold" is not "preferred response is likelier"."""
    draw = np.random.default_rng([trial.seed, 55])
    count = trial.pick(20_000, 200_000, 1_000_000)
    likely = torch.from_numpy(draw.normal(0.0, 2.0, size=(2, 2, count)))  # log-probabilities: whose, loser and winner
    ratio = likely[0] - likely[1]  # policy's less reference's
    loss = direct.dpo(ratio[0], ratio[1], torch.ones_like(ratio[0]), BETA)
    apart = likely[1, 0] - likely[1, 1]  # the reference's, loser less winner
    threshold = -torch.nn.functional.logsigmoid(BETA * apart if shifted else 0.0 * apart)
    right = likely[0, 1] > likely[0, 0]
    return exactly(float((right != (loss < threshold)).double().mean()), f"of {count} pairs")


D8 = Check(
    id="D8",
    paper="Preference learning does not learn rankings (Chen et al., NeurIPS 2024)",
    claim="A pair is ranked right exactly if its DPO loss is below -log sigmoid(beta log reference(l) / reference(w)).",
    setting="20,000 random pairs at smoke size: log-probabilities of winner and loser under both, sd 2",
    assumptions=("one loss per pair",),
    bound=0.0,
    bound_says="no pair may disagree",
    provenance="paper",
    statistic=lambda trial: _ranked(trial, True),
    control=Control("log 2, the loss of the reference, as the threshold", lambda trial: _ranked(trial, False)),
)


def _suppressed(trial: Trial, imitates: bool) -> Measured:
    """Largest relative error of |dL/dx-| / |dL/dx+| = x+ / x-, x the ratios of policy to reference."""
    draw = torch.Generator().manual_seed(trial.seed + 1)
    ratio = torch.exp(torch.randn(2, trial.pick(1000, 10_000, 100_000), generator=draw, dtype=torch.float64))
    ratio.requires_grad_()
    logs = ratio.log()
    loss = direct.dpo(logs[1], logs[0], torch.ones_like(logs[0]), BETA)
    slopes = torch.autograd.grad((loss - logs[0] if imitates else loss).sum(), ratio)[0].abs()
    held = ratio.detach()
    return exactly(float((slopes[1] / slopes[0] / (held[0] / held[1]) - 1.0).abs().max()))


D9 = Check(
    id="D9",
    paper="3D-properties of DPO (Yan et al., 2024)",
    claim="DPO pushes the rejected response x+ / x- times as hard as it pulls the chosen one.",
    setting="random ratios of policy to reference, beta 0.5; gradients by automatic differentiation",
    assumptions=("ratios are free parameters",),
    bound=1e-10,
    bound_says="rounding",
    provenance="paper",
    statistic=lambda trial: _suppressed(trial, False),
    control=Control("with imitation of the chosen response", lambda trial: _suppressed(trial, True)),
)
