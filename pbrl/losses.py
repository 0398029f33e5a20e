"""Loss functions, one equation each, for any leading axes. None of them reduces over P."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expectile(error: Tensor, level: Tensor | float) -> Tensor:
    """|level - 1(error < 0)| * error^2, elementwise (Kostrikov, Nair & Levine 2022, equation 5)."""
    level = torch.as_tensor(level, dtype=error.dtype, device=error.device)  # ``where`` would round a number to float32
    return torch.where(error < 0, 1.0 - level, level) * error.square()


def bradley_terry(difference: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of P(second preferred) = sigmoid(difference) with the label, elementwise.

    difference = score(second) - score(first); label = probability that the second is preferred
    (Christiano et al. 2017, equations 1 and 2; a tie is 0.5).
    """
    return label * F.softplus(-difference) + (1.0 - label) * F.softplus(difference)


def contrastive(first: Tensor, second: Tensor, label: Tensor, bias: Tensor | float) -> Tensor:
    """CPL's loss from the segments' summed advantages, elementwise (Hejna et al. 2024, equations 5 and 6).

    -log sigmoid(adv+ - bias * adv-), the preferred segment being the second with probability ``label``. With bias = 1
    it is ``bradley_terry(second - first, label)``.
    """
    return label * F.softplus(bias * first - second) + (1.0 - label) * F.softplus(bias * second - first)


def accuracy(difference: Tensor, label: Tensor) -> Tensor:
    """Share of decisive pairs (label not 0.5) that score(second) - score(first) ranks as labelled: [P, B] -> [P].

    An undecided score counts half; without a decisive pair the share is NaN.
    """
    decisive = label != 0.5
    right = 0.5 + 0.5 * torch.sign(difference) * torch.sign(label - 0.5)
    return (right * decisive).sum(-1) / decisive.sum(-1)
