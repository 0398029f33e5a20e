"""A network for rewards of steps by their histories, with an attention over the steps of a segment.

After Kim et al. (ICLR 2023), the Preference Transformer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import rng
from .mlp import StackedLinear
from .sequences import Layout, StackedTokens, each, linear
from .transformers import attention_mask, attention_weights


class StackedHistoryReward(nn.Module):
    """P rewards that read histories, each with an attention over the steps of a segment (or without)."""

    def __init__(self, keys: Tensor, obs_size: int, act_size: int, layout: Layout, *, attention: bool) -> None:
        super().__init__()
        self.attention = attention
        self.tokens = StackedTokens(rng.fold(keys, "tokens"), obs_size, act_size, layout)
        self.transformer = layout.transformer(rng.fold(keys, "transformer"), causal=True)
        size, dtype = layout.size, layout.dtype
        # Queries, or the hidden layer of a perceptron; keys and rewards, or rewards.
        self.query = linear(rng.fold(keys, "query"), size, size if attention else size // 2, dtype)
        self.key_reward = _unbiased(keys, size if attention else size // 2, size + 1 if attention else 1, dtype)

    def forward(
        self, obs: Tensor, act: Tensor, present: Tensor, key: Tensor | None = None, *, causal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The steps' rewards r and what they contribute to the segment's score z, each [P, M, T].

        Args:
            obs: [P, M, T, O] (normalised).
            act: [P, M, T, A].
            present: [P, M, T] bool, False for padding, where both mean nothing.
            key: [P], switches dropout on.
            causal: each z is that of a segment which ends there.
        """
        hidden = self.transformer(self.tokens(obs, act, present), present.repeat_interleave(2, -1), key)
        hidden = hidden[:, :, 1::2]  # at the actions
        query = each(self.query, hidden)
        if not self.attention:
            reward = each(self.key_reward, torch.relu(query)).squeeze(-1)
            return reward, reward
        keys, reward = each(self.key_reward, hidden).split((hidden.shape[-1], 1), dim=-1)
        reward = reward.squeeze(-1)
        allowed = attention_mask(obs.shape[2], causal=causal, present=present, device=obs.device)
        weights = attention_weights(query.unsqueeze(2), keys.unsqueeze(2), allowed).squeeze(2)  # [P, M, T, T]
        return reward, (weights @ reward.unsqueeze(-1)).squeeze(-1)


def _unbiased(keys: Tensor, size_in: int, size_out: int, dtype: torch.dtype) -> StackedLinear:
    """A layer whose biases stay 0: that of keys or rewards changes no preference, and Adam would follow its noise."""
    layer = linear(rng.fold(keys, "key and reward"), size_in, size_out, dtype)
    layer.bias.requires_grad_(False).zero_()
    return layer
