"""Loss functions, one equation each, for any leading axes. None of them reduces over P."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expectile(error: Tensor, level: Tensor | float) -> Tensor:
    """|level - 1(error < 0)| * error^2, elementwise (Kostrikov, Nair & Levine 2022, equation 5)."""
    level = torch.as_tensor(level, dtype=error.dtype, device=error.device)  # ``where`` would round a number to float32
    return torch.where(error < 0, 1.0 - level, level) * error.square()


def advantage_weight(advantage: Tensor, inverse_temperature: Tensor | float, cap: Tensor | float) -> Tensor:
    """min(exp(inverse_temperature * advantage), cap), elementwise: what AWAC and IQL weigh an action of the data by."""
    cap = torch.as_tensor(cap, dtype=advantage.dtype, device=advantage.device)
    return torch.exp(inverse_temperature * advantage).minimum(cap)


def bradley_terry(difference: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of P(second preferred) = sigmoid(difference) with the label, elementwise.

    difference = score(second) - score(first); label = probability that the second is preferred
    (Christiano et al. 2017, equations 1 and 2; a tie is 0.5).
    """
    return label * F.softplus(-difference) + (1.0 - label) * F.softplus(difference)


def bradley_terry_with_flips(difference: Tensor, label: Tensor, rate: Tensor | float) -> Tensor:
    """Cross-entropy of the label with what is seen of P(second) = sigmoid(difference) after flips at ``rate`` < 1/2.

    Forward correction: P(label says second) = (1 - rate) P + rate (1 - P), elementwise; its minimum over ``difference``
    is the clean one. Bounded where a label contradicts a large difference; the loss of the tenth of irrational answers
    of Christiano et al. (2017) at rate 0.05.
    """
    rate = torch.as_tensor(rate, dtype=difference.dtype, device=difference.device)
    first, second = F.logsigmoid(-difference), F.logsigmoid(difference)  # log P of either
    kept, turned = torch.log1p(-rate), torch.log(rate)
    seen_second = torch.logaddexp(second + kept, first + turned)
    seen_first = torch.logaddexp(first + kept, second + turned)
    return -(label * seen_second + (1.0 - label) * seen_first)


def smoothed(label: Tensor, amount: Tensor | float) -> Tensor:
    """Labels moved towards a tie: (1 - amount) label + amount / 2."""
    return label + amount * (0.5 - label)


def unflipped(label: Tensor, rate: Tensor | float) -> Tensor:
    """Labels whose mean over flips at ``rate`` < 1/2 is the label before: (label - rate) / (1 - 2 rate).

    Backward correction: ``bradley_terry`` is linear in the label, so with these its mean over the flips is the loss of
    the clean labels, whatever the difference (the unbiased estimator of Natarajan et al. 2013). Labels leave [0, 1],
    and the loss of a single pair has no lower bound. The inverse of ``smoothed`` by twice the rate.
    """
    return (label - rate) / (1.0 - 2.0 * rate)


def plackett_luce(score: Tensor) -> Tensor:
    """-log P(this order) of lists [..., K] of scores, the best first: [...] (Plackett 1975; Luce 1959).

    P = prod_k exp(s_k) / sum_{j >= k} exp(s_j): the best is chosen among all, the next among the rest, ... For K = 2 it
    is ``bradley_terry`` of s_1 - s_2 with label 1.
    """
    rest = score.flip(-1).logcumsumexp(-1).flip(-1)  # log of the sum over j >= k
    return (rest - score)[..., :-1].sum(-1)


def contrastive(first: Tensor, second: Tensor, label: Tensor, bias: Tensor | float) -> Tensor:
    """CPL's loss from the segments' summed advantages, elementwise (Hejna et al. 2024, equations 5 and 6).

    -log sigmoid(adv+ - bias * adv-), the preferred segment being the second with probability ``label``. With bias = 1
    it is ``bradley_terry(second - first, label)``.
    """
    return label * F.softplus(bias * first - second) + (1.0 - label) * F.softplus(bias * second - first)


def triplet(first: Tensor, second: Tensor, label: Tensor, margin: Tensor | float) -> Tensor:
    """max(0, d+ - d- + margin), elementwise (Schroff, Kalenichenko & Philbin 2015, with distances not squared).

    first and second are the distances of two segments from what is wanted; the second is preferred with probability
    ``label``. The margin shrinks to 0 at a tie, where the loss is half the difference of the distances.
    """
    margin = margin * (2.0 * label - 1.0).abs()
    return label * F.relu(second - first + margin) + (1.0 - label) * F.relu(first - second + margin)


def accuracy(difference: Tensor, label: Tensor) -> Tensor:
    """Share of decisive pairs (label not 0.5) that score(second) - score(first) ranks as labelled: [P, B] -> [P].

    An undecided score counts half; without a decisive pair the share is NaN.
    """
    decisive = label != 0.5
    right = 0.5 + 0.5 * torch.sign(difference) * torch.sign(label - 0.5)
    return (right * decisive).sum(-1) / decisive.sum(-1)


def gae(
    rew: Tensor, value: Tensor, next_value: Tensor, term: Tensor, ended: Tensor, gamma: Tensor, decay: Tensor
) -> Tensor:
    """Generalised advantages (Schulman et al. 2016), each objective for itself: [P, T, N, K].

    A_t = delta_t + gamma decay (1 - ended_t) A_{t+1},   delta_t = r_t + gamma (1 - term_t) V(s_{t+1}) - V(s_t)

    Args:
        rew: [P, T, N, K].
        value: [P, T, N, K] V(s_t).
        next_value: [P, T, N, K] V(s_{t+1}) of the state that truly followed, so that a time limit is bootstrapped.
        term: [P, T, N] 1 at true ends.
        ended: [P, T, N] 1 at true ends and time limits: the next step is of another episode.
        gamma: [P] discounts.
        decay: [P] lambda: 0 trusts the values alone, 1 the sampled rewards alone.
    """
    discount = gamma.reshape(-1, 1, 1, 1)
    delta = rew + discount * (1.0 - term.unsqueeze(-1)) * next_value - value
    carry = discount * decay.reshape(-1, 1, 1, 1) * (1.0 - ended.unsqueeze(-1))
    advantage = torch.zeros_like(delta)
    later = torch.zeros_like(delta[:, 0])
    for t in range(delta.shape[1] - 1, -1, -1):
        later = delta[:, t] + carry[:, t] * later
        advantage[:, t] = later
    return advantage


def standardised(advantage: Tensor) -> Tensor:
    """Less their mean, over their deviation, along the last axis."""
    centred = advantage - advantage.mean(-1, keepdim=True)
    return centred / (advantage.std(-1, correction=0, keepdim=True) + 1e-8)


def ppo_clip(ratio: Tensor, advantage: Tensor, clip: Tensor | float) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - c, 1 + c) A), elementwise (Schulman et al. 2017, equation 7, turned to a loss)."""
    clip = torch.as_tensor(clip, dtype=ratio.dtype, device=ratio.device)
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def gaussian_kl(mean: Tensor, log_var: Tensor, prior_mean: Tensor, prior_log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(prior_mean, exp(prior_log_var))) in nats, summed over the last axis."""
    ratio = torch.exp(log_var - prior_log_var)
    distance = (mean - prior_mean).square() * torch.exp(-prior_log_var)
    return 0.5 * (ratio + distance - 1.0 - (log_var - prior_log_var)).sum(-1)


def mirror_descent(moved: Tensor, advantage: Tensor, step: Tensor | float) -> Tensor:
    """-ratio A + (ratio log ratio - ratio + 1) / step, elementwise, of log ratio = ``moved``.

    Under the old policy the second term's mean is KL(new || old) / step: the objective of MDPO (Tomar et al. 2020).
    """
    ratio = moved.exp()
    return (ratio * moved - ratio + 1.0) / step - ratio * advantage


def conservative_gap(fresh: Tensor, log_density: Tensor, known: Tensor) -> Tensor:
    """log sum_k exp(Q(s, a_k) - log rho(a_k)) - Q(s, a), by which CQL's critics prefer other actions to the data's.

    The sum is K times an estimate of the integral of exp Q over actions a_k ~ rho (Kumar et al. 2020, CQL(H) with
    importance weights); over all actions of a finite set at log rho = 0 it is exact.

    Args:
        fresh: [..., K, B] Q(s, a_k).
        log_density: [..., K, B] log rho(a_k).
        known: [..., B] Q(s, a) of the data's actions.
    """
    return torch.logsumexp(fresh - log_density, dim=-2) - known
