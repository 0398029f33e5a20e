"""Stacked transformers: P members' self-attention networks as one batched program.

Blocks are GPT-2's (Radford et al. 2019): x + attention(norm(x)), then x + mlp(norm(x)), with normal initial weights of
deviation 0.02, zero biases, and a last norm. A padded step is really masked: no real step attends to it, so that what
lies there changes nothing. Token and position embeddings are the caller's (``StackedEmbedding``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from .mlp import StackedLinear, dropout, linear, relu

Activation = Literal["gelu", "relu"]
_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": partial(F.gelu, approximate="tanh"),
    "relu": relu,
}
_DEVIATION = 0.02
_WEIGHTS, _ATTENTION, _MLP = range(3)  # purposes of keys; the compiler cannot hash words


def attention_mask(length: int, *, causal: bool, present: Tensor | None, device: torch.device | str) -> Tensor | None:
    """Which position may attend to which: [P, B, T, T] (or [T, T] without padding) bool, or None for all to all.

    Every position may attend to itself, so that the softmax of a padded one is finite; nobody reads its output.

    Args:
        length: T.
        causal: whether positions see only themselves and what came before.
        present: [P, B, T], True (or above 0) where a position is no padding; None for no padding.
        device: where the mask shall lie.
    """
    allowed = torch.ones(length, length, dtype=torch.bool, device=device).tril() if causal else None
    if present is None:
        return allowed
    itself = torch.eye(length, dtype=torch.bool, device=device)
    seen = (present > 0).unsqueeze(-2) | itself  # [P, B, T, T]
    return seen if allowed is None else seen & allowed


def attention_weights(query: Tensor, key: Tensor, allowed: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(D)) over the allowed positions: two [P, B, H, T, D] -> [P, B, H, T, T]."""
    scores = (query * (1.0 / math.sqrt(query.shape[-1]))) @ key.mT
    if allowed is not None:
        allowed = allowed if allowed.dim() == 2 else allowed.unsqueeze(2)  # the same for all heads
        scores = scores.masked_fill(~allowed, -math.inf)
    return scores.softmax(-1)


class StackedLayerNorm(nn.Module):
    """P layer norms over the last axis, with their own weights and biases [P, 1, D]."""

    def __init__(self, members: int, size: int, *, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, 1, size, dtype=dtype, device=device))
        self.bias = nn.Parameter(torch.zeros(members, 1, size, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[P, ..., D] -> the same shape."""
        normal = F.layer_norm(x, x.shape[-1:]).flatten(1, -2)
        return torch.addcmul(self.bias, normal, self.weight).reshape(x.shape)


class StackedEmbedding(nn.Module):
    """P tables [P, N, D] of learned vectors, such as one per time step."""

    def __init__(self, keys: Tensor, count: int, size: int, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(_DEVIATION * rng.normal(rng.fold(keys, "weight"), count, size, dtype=dtype))

    def forward(self, index: Tensor) -> Tensor:
        """int64 [P, ...] in [0, N) -> [P, ..., D]."""
        members, count, _ = self.weight.shape
        first = torch.arange(members, device=index.device) * count
        flat = index + first.reshape(-1, *(1,) * (index.dim() - 1))
        return F.embedding(flat, self.weight.flatten(0, 1))


class StackedAttention(nn.Module):
    """P multi-head self-attention layers.

    Args:
        keys: [P] member keys; initial weights are a function of them.
        size: D, numbers per position, a multiple of ``heads``.
        heads: H, how many.
        rate: [P] share of attention weights that are dropped in training, or None.

    Raises:
        InputError: a size that is no multiple of the heads.
    """

    def __init__(self, keys: Tensor, size: int, heads: int, *, rate: Tensor | None = None, dtype: torch.dtype) -> None:
        super().__init__()
        if size % heads:
            raise InputError(f"a transformer's width is {size}, expected a multiple of its {heads} heads")
        self.heads = heads
        self.projection = _linear(rng.fold(keys, "projection"), size, 3 * size, dtype)
        self.out = _linear(rng.fold(keys, "out"), size, size, dtype)
        # Keys get no bias: it would add the same to all scores of a query, and its gradient is nothing but rounding.
        self.biased: Tensor
        biased = torch.ones(3, size, dtype=dtype, device=keys.device)
        biased[1] = 0.0
        self.register_buffer("biased", biased.flatten(), persistent=False)
        self.rate: Tensor | None
        self.register_buffer("rate", rate)

    def forward(self, x: Tensor, allowed: Tensor | None = None, key: Tensor | None = None) -> Tensor:
        """x [P, B, T, D] -> the same shape.

        Args:
            x: positions.
            allowed: see ``attention_mask``.
            key: [P], switches dropout on.
        """
        members, batch, length, _ = x.shape
        weight, bias = self.projection.weight, self.projection.bias * self.biased
        parts = linear(x.flatten(1, 2), weight, bias).reshape(members, batch, length, 3, self.heads, -1)
        query, keys, value = parts.permute(3, 0, 1, 4, 2, 5)  # [P, B, H, T, D / H] each
        weights = attention_weights(query, keys, allowed)
        if self.rate is not None and key is not None:
            weights = dropout(weights, self.rate, key)
        seen = (weights @ value).transpose(2, 3)  # [P, B, T, H, D / H]
        return self.out(seen.reshape(members, batch * length, -1)).reshape(x.shape)  # type: ignore[no-any-return]


class StackedBlock(nn.Module):
    """P blocks of attention and a two-layer perceptron of width 4 D, each behind a norm."""

    def __init__(
        self, keys: Tensor, size: int, heads: int, *, activation: Activation, rate: Tensor | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.activation = activation
        self.before_attention = StackedLayerNorm(len(keys), size, dtype=dtype, device=keys.device)
        self.attention = StackedAttention(rng.fold(keys, "attention"), size, heads, rate=rate, dtype=dtype)
        self.before_mlp = StackedLayerNorm(len(keys), size, dtype=dtype, device=keys.device)
        self.wide = _linear(rng.fold(keys, "wide"), size, 4 * size, dtype)
        self.narrow = _linear(rng.fold(keys, "narrow"), 4 * size, size, dtype)
        self.rate: Tensor | None
        self.register_buffer("rate", rate)

    def forward(self, x: Tensor, allowed: Tensor | None, key: Tensor | None) -> Tensor:
        """x [P, B, T, D] -> the same shape."""
        inner = None if key is None else rng.fold(key, _WEIGHTS)
        x = x + self._dropped(self.attention(self.before_attention(x), allowed, inner), key, _ATTENTION)
        hidden = _ACTIVATIONS[self.activation](self.wide(self.before_mlp(x).flatten(1, 2)))
        return x + self._dropped(self.narrow(hidden).reshape(x.shape), key, _MLP)

    def _dropped(self, x: Tensor, key: Tensor | None, where: int) -> Tensor:
        return x if self.rate is None or key is None else dropout(x, self.rate, rng.fold(key, where))


class StackedTransformer(nn.Module):
    """P transformers: GPT-2's blocks where ``causal``, an encoder that sees the whole sequence where not.

    Args:
        keys: [P] member keys; initial weights are a function of them.
        size: D, numbers per position, a multiple of ``heads``.
        layers: how many blocks.
        heads: H, how many per block.
        causal: whether positions see only themselves and what came before.
        activation: of the blocks' perceptrons: GPT-2's "gelu" (tanh form), or "relu".
        dropout: [P] rate on attention weights and on what each half of a block adds, or None.

    Raises:
        InputError: a size that is no multiple of the heads.
    """

    def __init__(
        self,
        keys: Tensor,
        size: int,
        *,
        layers: int,
        heads: int,
        causal: bool,
        activation: Activation = "gelu",
        dropout: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.causal = causal
        rate = dropout if dropout is not None and bool((dropout > 0).any()) else None
        self.blocks = nn.ModuleList(
            StackedBlock(rng.fold(keys, i), size, heads, activation=activation, rate=rate, dtype=dtype)
            for i in range(layers)
        )
        self.norm = StackedLayerNorm(len(keys), size, dtype=dtype, device=keys.device)

    def forward(self, x: Tensor, present: Tensor | None = None, key: Tensor | None = None) -> Tensor:
        """x [P, B, T, D] -> the same shape. What it gives at padded positions means nothing.

        Args:
            x: embedded positions.
            present: [P, B, T], True (or above 0) where a position is no padding; None for no padding.
            key: [P], switches dropout on.
        """
        allowed = attention_mask(x.shape[2], causal=self.causal, present=present, device=x.device)
        for i, block in enumerate(self.blocks):
            x = block(x, allowed, None if key is None else rng.fold(key, i))
        return self.norm(x)  # type: ignore[no-any-return]


def interleave(*parts: Tensor) -> Tensor:
    """Several [P, B, T, D] -> [P, B, n T, D], step by step: first of each, second of each, ..."""
    return torch.stack(parts, dim=3).flatten(2, 3)


def _linear(keys: Tensor, size_in: int, size_out: int, dtype: torch.dtype) -> StackedLinear:
    return StackedLinear(keys, size_in, size_out, ensemble=None, init="normal", gain=_DEVIATION, dtype=dtype)
