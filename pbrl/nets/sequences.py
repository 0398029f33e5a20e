"""Networks that read the steps of a segment or of an episode: an encoder of whole segments, and a policy with a memory.

A step is two tokens, its observation and its action, both with a learned embedding of the step's place, which counts
from the first step that is no padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import rng
from .mlp import StackedLinear
from .transformers import Activation, StackedEmbedding, StackedLayerNorm, StackedTransformer, interleave


@dataclass(frozen=True, eq=False)
class Layout:
    """How large a network is.

    Attributes:
        size: D, numbers per token.
        layers: blocks of the transformer.
        heads: of each block.
        longest: T, steps that the transformer sees at once.
        dropout: [P] rates, or None.
        dtype: of the weights.
        activation: of the transformer's perceptrons.
    """

    size: int
    layers: int
    heads: int
    longest: int
    dropout: Tensor | None
    dtype: torch.dtype
    activation: Activation = "gelu"

    def transformer(self, keys: Tensor, *, causal: bool) -> StackedTransformer:
        """A transformer of this layout."""
        return StackedTransformer(
            keys,
            self.size,
            layers=self.layers,
            heads=self.heads,
            causal=causal,
            activation=self.activation,
            dropout=self.dropout,
            dtype=self.dtype,
        )


class StackedTokens(nn.Module):
    """P embeddings of steps as two tokens each."""

    def __init__(self, keys: Tensor, obs_size: int, act_size: int, layout: Layout) -> None:
        super().__init__()
        size, dtype = layout.size, layout.dtype
        self.obs = linear(rng.fold(keys, "obs"), obs_size, size, dtype)
        self.act = linear(rng.fold(keys, "act"), act_size, size, dtype)
        self.place = StackedEmbedding(rng.fold(keys, "place"), layout.longest, size, dtype=dtype)
        self.norm = StackedLayerNorm(len(keys), size, dtype=dtype, device=keys.device)

    def forward(self, obs: Tensor, act: Tensor, present: Tensor, extra: Tensor | None = None) -> Tensor:
        """obs [P, B, T, O], act [P, B, T, A], present [P, B, T] -> [P, B, 2 T, D]; extra [P, B, D] is added to each."""
        place = self.place((present.long().cumsum(-1) - 1).clamp(min=0))
        if extra is not None:
            place = place + extra.unsqueeze(2)
        tokens: Tensor = self.norm(interleave(each(self.obs, obs) + place, each(self.act, act) + place))
        return tokens


class StackedSegmentEncoder(nn.Module):
    """P encoders of segments to codes of Z numbers: a transformer that sees all steps, the mean of its tokens, a layer.

    A segment of more than ``longest`` steps is read in equal pieces of at most that; the mean is over all of them.
    """

    def __init__(self, keys: Tensor, obs_size: int, act_size: int, code_size: int, layout: Layout) -> None:
        super().__init__()
        self.longest = layout.longest
        self.tokens = StackedTokens(rng.fold(keys, "tokens"), obs_size, act_size, layout)
        self.transformer = layout.transformer(rng.fold(keys, "transformer"), causal=False)
        self.code = linear(rng.fold(keys, "code"), layout.size, code_size, layout.dtype)

    def forward(self, obs: Tensor, act: Tensor, present: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, M, S, O], act [P, M, S, A], present [P, M, S] bool -> [P, M, Z]; ``key`` [P] switches dropout on."""
        count = obs.shape[1]
        obs, act, present = (pieces(x, self.longest) for x in (obs, act, present))
        real = present.repeat_interleave(2, -1)  # [P, M n, 2 T]
        hidden = self.transformer(self.tokens(obs, act, present), real, key)
        weight = real.to(hidden.dtype).unsqueeze(-1)
        total, share = (x.sum(2).unflatten(1, (count, -1)).sum(2) for x in (hidden * weight, weight))
        code: Tensor = self.code(total / share)
        return code


class StackedSequencePolicy(nn.Module):
    """P policies that see the last steps and a code: a causal transformer, as the Decision Transformer's."""

    def __init__(self, keys: Tensor, obs_size: int, act_size: int, code_size: int, layout: Layout) -> None:
        super().__init__()
        self.obs_size, self.act_size = obs_size, act_size
        self.tokens = StackedTokens(rng.fold(keys, "tokens"), obs_size, act_size, layout)
        self.code = linear(rng.fold(keys, "code"), code_size, layout.size, layout.dtype)
        self.transformer = layout.transformer(rng.fold(keys, "transformer"), causal=True)
        self.act = linear(rng.fold(keys, "act"), layout.size, act_size, layout.dtype)
        self.next_obs = linear(rng.fold(keys, "next_obs"), layout.size, obs_size, layout.dtype)

    def forward(
        self, obs: Tensor, act: Tensor, present: Tensor, code: Tensor, key: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Actions [P, B, T, A] in [-1, 1] from each step's observation and what came before, and next obs [P, B, T, O].

        Args:
            obs: [P, B, T, O], at most ``longest`` steps.
            act: [P, B, T, A].
            present: [P, B, T] bool, False for padding.
            code: [P, B, Z], one per sequence.
            key: [P], switches dropout on.
        """
        tokens = self.tokens(obs, act, present, self.code(code))
        hidden = self.transformer(tokens, present.repeat_interleave(2, -1), key)
        before, after = hidden.unflatten(2, (-1, 2)).unbind(3)  # at the observation, at the action
        return torch.tanh(each(self.act, before)), each(self.next_obs, after)


def pieces(x: Tensor, longest: int) -> Tensor:
    """[P, M, S, ...] -> [P, M n, T, ...]: S steps cut into n pieces of T <= longest, the last one filled with zeros."""
    steps = x.shape[2]
    count = -(-steps // longest)
    length = -(-steps // count)
    missing = count * length - steps
    if missing:
        x = torch.cat([x, x.new_zeros(*x.shape[:2], missing, *x.shape[3:])], dim=2)
    return x.reshape(x.shape[0], -1, length, *x.shape[3:])


def each(layer: StackedLinear, x: Tensor) -> Tensor:
    """A layer applied to [P, B, T, in] -> [P, B, T, out]."""
    y: Tensor = layer(x.flatten(1, 2))
    return y.reshape(*x.shape[:3], -1)


def linear(keys: Tensor, size_in: int, size_out: int, dtype: torch.dtype) -> StackedLinear:
    """A layer with torch's own initial weights."""
    return StackedLinear(keys, size_in, size_out, ensemble=None, init="uniform", gain=1.0, dtype=dtype)
