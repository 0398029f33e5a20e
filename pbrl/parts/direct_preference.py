"""Direct preference objectives: pure losses on log-probabilities of segments, one equation each, for any leading axes.

Unless said otherwise ``first`` and ``second`` are the two segments' log-ratios log pi(segment) - log pi_ref(segment),
summed over steps, and ``label`` is the probability that the second is preferred. ``beta`` is the price of leaving the
reference. Nothing is reduced. Every loss that takes a label is linear in it: sampled labels estimate it without bias.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..losses import bradley_terry, unflipped

Number = Tensor | float


def dpo(first: Tensor, second: Tensor, label: Tensor, beta: Number) -> Tensor:
    """-log sigmoid(beta (u+ - u-)) of log-ratios u (DPO: Rafailov et al., NeurIPS 2023)."""
    return bradley_terry(beta * (second - first), label)


def rdpo(first: Tensor, second: Tensor, label: Tensor, beta: Number, flips: Number) -> Tensor:
    """DPO of the clean labels, on average over flips at rate ``flips`` < 1/2 (rDPO: Chowdhury et al., ICML 2024).

    ((1 - e) l(y) - e l(1 - y)) / (1 - 2 e). A single pair's loss has no lower bound: bound the policy.
    """
    return bradley_terry(beta * (second - first), unflipped(label, flips))


def ipo(first: Tensor, second: Tensor, label: Tensor, tau: Number) -> Tensor:
    """(u+ - u- - 1 / (2 tau))^2: log-ratios stay finite where preferences are certain (IPO: Azar et al., AISTATS 2024).

    Of pairs drawn from mu the minimiser is pi ~ pi_ref exp(P(y beats mu) / tau).
    """
    gap, target = second - first, 0.5 / tau
    return label * (gap - target).square() + (1.0 - label) * (gap + target).square()


def slic(first: Tensor, second: Tensor, label: Tensor, margin: Number) -> Tensor:
    """max(0, margin - (u+ - u-)); u may also be log-probabilities (SLiC-HF: Zhao et al., 2023)."""
    gap = second - first
    return label * F.relu(margin - gap) + (1.0 - label) * F.relu(margin + gap)


def _jensen_shannon(ratio: Tensor) -> Tensor:
    return ratio - F.softplus(ratio)


def _chi_squared(ratio: Tensor) -> Tensor:
    return ratio.exp() + ratio


LINKS: MappingProxyType[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "reverse_kl": lambda ratio: ratio,
        "forward_kl": lambda ratio: -torch.exp(-ratio),
        "jensen_shannon": _jensen_shannon,
        "alpha_half": lambda ratio: -2.0 * torch.exp(-0.5 * ratio),
        "chi_squared_kl": _chi_squared,
    }
)
"""f'(exp u) of an f-divergence of pi from pi_ref, up to a constant, as a function of the log-ratio u.

``chi_squared_kl`` is the sum of chi^2 and KL of chi-PO (Huang et al., 2024); ``alpha_half`` is the alpha-divergence at
1/2.
"""


def f_dpo(first: Tensor, second: Tensor, label: Tensor, beta: Number, divergence: str) -> Tensor:
    """-log sigmoid(beta (f'(e^u+) - f'(e^u-))): the price is an f-divergence (f-DPO: Wang et al., ICLR 2024).

    Raises:
        InputError: a divergence that ``LINKS`` lacks.
    """
    if divergence not in LINKS:
        raise InputError(f"unknown divergence {divergence!r}, expected one of {', '.join(LINKS)}")
    link = LINKS[divergence]
    return bradley_terry(beta * (link(second) - link(first)), label)


def simpo(first: Tensor, second: Tensor, label: Tensor, beta: Number, margin: Number) -> Tensor:
    """-log sigmoid(beta (m+ - m-) - margin) of *mean* log-probabilities, no reference (SimPO: Meng et al., 2024)."""
    gap = beta * (second - first)
    return label * F.softplus(margin - gap) + (1.0 - label) * F.softplus(margin + gap)


def odds_ratio(first: Tensor, second: Tensor, label: Tensor, weight: Number) -> Tensor:
    """-m+ - weight log sigmoid(log odds+ - log odds-) of *mean* log-probabilities m < 0 (ORPO: Hong et al., 2024)."""

    def log_odds(mean: Tensor) -> Tensor:
        return mean - torch.log(-torch.expm1(mean))

    imitation = -(label * second + (1.0 - label) * first)
    return imitation + weight * bradley_terry(log_odds(second) - log_odds(first), label)


def rpo(first: Tensor, second: Tensor, label: Tensor, beta: Number, base: Tensor, weight: Number) -> Tensor:
    """DPO - weight beta log pi(base): pessimism as imitation of a baseline (RPO: Liu et al., NeurIPS 2024).

    base: log pi (or its log-ratio) of what the baseline, such as the preferred segments' law, would do. It minimises
    over policies what the worst reward near the data maximises over rewards; ``weight`` is 1 / eta there.
    """
    return dpo(first, second, label, beta) + imitation(base, beta, weight)


def imitation(base: Tensor, beta: Number, weight: Number) -> Tensor:
    """-weight beta log pi(base): the term that ``rpo`` adds; it fits any loss of log-ratios that beta scales."""
    return -weight * beta * base


def xpo(first: Tensor, second: Tensor, label: Tensor, beta: Number, sampled: Tensor, weight: Number) -> Tensor:
    """DPO + weight log pi(sampled), of segments that the reference drew: optimism online (XPO: Xie et al., 2024)."""
    return dpo(first, second, label, beta) + weight * sampled


def vpo(first: Tensor, second: Tensor, label: Tensor, beta: Number, calibration: Tensor, weight: Number) -> Tensor:
    """DPO + weight beta log(pi / pi_ref)(calibration): a value-incentivised loss (VPO: Cen et al., ICLR 2025).

    ``weight`` > 0 is optimism, for learning online; < 0 pessimism, offline. It is the likelihood minus ``weight`` times
    the optimal value J*(r) of the reward r = beta log pi / pi_ref + const whose mean over the calibration law is 0.
    """
    return dpo(first, second, label, beta) + weight * beta * calibration


def reverse_kl(own: Tensor) -> Tensor:
    """KL(pi || pi_ref) from log-ratios of segments that pi itself drew: its value, and an unbiased gradient.

    With ``dpo`` it makes HyPO (Song et al., NeurIPS 2024), which holds the policy where no pair was compared.
    """
    still = own.detach()
    return still * (own - still) + still


def sppo(ratio: Tensor, win_rate: Tensor, step: Number) -> Tensor:
    """(log pi / pi_t - step (win rate - 1/2))^2 of single segments that pi_t drew (SPPO: Wu et al., 2024).

    ratio: log pi - log pi_t. win_rate: the segment's against pi_t. Self-play by multiplicative weights to third order
    in ``step``.
    """
    return (ratio - step * (win_rate - 0.5)).square()


def rebel(first: Tensor, second: Tensor, reward_gap: Tensor, step: Number) -> Tensor:
    """((u2 - u1) / step - reward gap)^2, u = log pi / pi_t, gap = r2 - r1 (REBEL: Gao et al., NeurIPS 2024)."""
    return ((second - first) / step - reward_gap).square()


def dno(first: Tensor, second: Tensor, reward_gap: Tensor, step: Number) -> Tensor:
    """Cross-entropy of sigmoid((u2 - u1) / step) with sigmoid(r2 - r1) (DNO: Rosset et al., 2024).

    u = log pi / pi_t, and r is the win rate against pi_t: its minimiser is a step of multiplicative weights.
    """
    return bradley_terry((second - first) / step, torch.sigmoid(reward_gap))


def towards(policy: Tensor, old: Tensor, reference: Tensor, step: Number, beta: Number) -> Tensor:
    """log pi - (1 - step beta) log pi_t - step beta log pi_ref: what ``inpo`` takes of either segment."""
    return policy - (1.0 - step * beta) * old - step * beta * reference


def inpo(first: Tensor, second: Tensor, label: Tensor, step: Number) -> Tensor:
    """(h+ - h- - step / 2)^2 of ``towards``, pairs drawn from pi_t (INPO: Zhang et al., ICLR 2025).

    Its minimiser is the step of mirror descent in the regularised game: log pi = (1 - step beta) log pi_t + step beta
    log pi_ref + step (win rate against pi_t) + const. The paper's eta is 1 / step.
    """
    return ipo(first, second, label, 1.0 / step)
