"""Stacked networks: P members (and E ensemble copies of each) as one batched program.

Weights are [P, in, out], or [P, E, in, out] with an ensemble axis; a forward pass is one batched product per layer.
Nothing here mixes members, so the gradient of a sum of losses over P is each member's own gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import rng
from ..spec import Spec
from . import kernels, products
from .perceptron import perceptron
from .products import affine

Activation = Literal["relu", "leaky_relu", "tanh"]
Init = Literal["uniform", "orthogonal"]


class _Relu(torch.autograd.Function):
    """ReLU whose backward saves no boolean mask: the compiler's code for such masks is scalar and five times slower."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grads[0] * torch.sign(y)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), in the form that is fastest eagerly or under the compiler."""
    if torch.compiler.is_compiling():
        return _Relu.apply(x)  # type: ignore[no-any-return,no-untyped-call]
    return torch.relu(x)


_BLOCK = 2048  # rows whose activations fit into a core's cache
_SLOPES = {"relu": 0.0, "leaky_relu": 0.01}  # below 0, of activations that the operator for whole networks knows
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": relu, "leaky_relu": F.leaky_relu, "tanh": torch.tanh}


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [*, B, in] @ weight [*, in, out] + bias [*, 1, out] -> [*, B, out], the leading axes being equal."""
    lead = weight.shape[:-2]
    x, weight, bias = x.flatten(0, -3), weight.flatten(0, -3), bias.flatten(0, -3)
    y = affine(x, weight, bias)
    return y.reshape(*lead, *y.shape[-2:])


class StackedLinear(nn.Module):
    """P (x E) linear layers with their own weights [P, (E,) in, out] and biases [P, (E,) 1, out]."""

    def __init__(
        self,
        key: Tensor,
        size_in: int,
        size_out: int,
        *,
        ensemble: int | None,
        init: Init | Literal["normal"],
        gain: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        copies = () if ensemble is None else (ensemble,)
        self.weight = nn.Parameter(_initial(rng.fold(key, "weight"), init, gain, copies, size_in, size_out, dtype))
        bound = 1.0 / math.sqrt(size_in) if init == "uniform" else 0.0
        drawn = rng.uniform(rng.fold(key, "bias"), *copies, 1, size_out, dtype=dtype)
        self.bias = nn.Parameter((2.0 * drawn - 1.0) * bound)

    def forward(self, x: Tensor) -> Tensor:
        """[P, (E,) B, in] -> [P, (E,) B, out]."""
        return linear(x, self.weight, self.bias)


def _initial(
    key: Tensor,
    init: Init | Literal["normal"],
    gain: float,
    copies: tuple[int, ...],
    size_in: int,
    size_out: int,
    dtype: torch.dtype,
) -> Tensor:
    if init == "normal":  # of deviation ``gain``, with zero biases: GPT-2's
        return gain * rng.normal(key, *copies, size_in, size_out, dtype=dtype)
    if init == "uniform":  # torch.nn.Linear's own: U(-1/sqrt(in), 1/sqrt(in))
        return (2.0 * rng.uniform(key, *copies, size_in, size_out, dtype=dtype) - 1.0) * (gain / math.sqrt(size_in))
    tall = (max(size_in, size_out), min(size_in, size_out))
    # QR in float64 on the CPU, one matrix at a time, so that a member's weights depend neither on P nor on the device.
    drawn = rng.normal(key.cpu(), *copies, *tall, dtype=torch.float64)
    q, r = zip(*(torch.linalg.qr(matrix) for matrix in drawn.reshape(-1, *tall)))
    signs = torch.stack(r).diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    weight = (torch.stack(q) * signs).reshape(*drawn.shape)
    weight = weight if size_in >= size_out else weight.transpose(-2, -1)
    return (gain * weight).to(key.device, dtype).contiguous()


class StackedMLP(nn.Module):
    """P members' (times E copies') multilayer perceptrons.

    Args:
        keys: [P] member keys; initial weights are a function of them.
        sizes: layer widths, input and output included.
        ensemble: E independent copies per member, sharing the input; None for a network without an ensemble axis.
        dropout: [P] rate between a hidden linear layer and its activation, or None.
        init: "uniform" (torch.nn.Linear's) or "orthogonal" (zero biases).
        gain: factor on the initial weights.
    """

    def __init__(
        self,
        keys: Tensor,
        sizes: Sequence[int],
        *,
        ensemble: int | None = None,
        activation: Activation = "relu",
        dropout: Tensor | None = None,
        init: Init = "uniform",
        gain: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.activation = activation
        self.layers = nn.ModuleList(
            StackedLinear(rng.fold(keys, i), a, b, ensemble=ensemble, init=init, gain=gain, dtype=dtype)
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.rate: Tensor | None
        self.register_buffer("rate", dropout if dropout is not None and bool((dropout > 0).any()) else None)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """[P, B, in] (or [P, E, B, in], a batch per copy) -> [P, (E,) B, out]. ``key`` [P] switches dropout on."""
        on_cpu, drops = x.device.type == "cpu", self.rate is not None and key is not None
        if torch.compiler.is_compiling():
            if not drops and self._as_one(x):
                return self._whole(x)
        elif on_cpu and not drops and x.shape[-2] <= _BLOCK and products.get_precision() == "float32":
            layers = cast("list[StackedLinear]", list(self.layers))
            return perceptron(x, [layer.weight for layer in layers], [layer.bias for layer in layers], self.activation)
        if self.ensemble is not None and x.dim() == 3:
            x = x.unsqueeze(1).expand(-1, self.ensemble, -1, -1)
        if on_cpu and x.shape[-2] > _BLOCK and not torch.compiler.is_compiling():
            return self._in_blocks(x, key)
        activation = _ACTIVATIONS[self.activation]
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.rate is not None and key is not None:
                x = dropout(x, self.rate, rng.fold(key, i))
            x = activation(x)
        return self.layers[-1](x)  # type: ignore[no-any-return]

    def _as_one(self, x: Tensor) -> bool:
        """Whether one operator can go through all layers, where no units are dropped."""
        if not kernels.ready() or x.dtype != torch.float32 or x.device.type != "cpu" or self.activation not in _SLOPES:
            return False
        sizes = [weight.shape[-2:] for weight in list(self.parameters())[::2]]
        return products.get_precision() == "float32" or all(
            kernels.is_rounded(*size) or min(size) < products.WIDE for size in sizes
        )

    def _whole(self, x: Tensor) -> Tensor:
        """The same by one operator."""
        parameters = [parameter.flatten(0, -3) for parameter in self.parameters()]  # weight and bias of layers in turn
        y = kernels.mlp(
            x.flatten(0, -3),
            parameters[::2],
            parameters[1::2],
            _SLOPES[self.activation],
            rounded=products.get_precision() == "bf16",
        )
        return y.reshape(*next(self.parameters()).shape[:-2], *y.shape[-2:])

    def _in_blocks(self, x: Tensor, key: Tensor | None) -> Tensor:
        """The same for many rows on a CPU: network by network, block by block, so that activations stay in cache."""
        activation, lead, hidden = _ACTIVATIONS[self.activation], x.shape[:-2], len(self.layers) - 1
        parameters = list(self.parameters())  # weight and bias of each layer in turn
        layers = [[w.flatten(0, -3).split(1) for w in pair] for pair in zip(parameters[::2], parameters[1::2])]
        masks: list[Tensor] = []
        scale = x.new_ones(len(x))
        if self.rate is not None and key is not None:
            shapes = [(*x.shape[1:-1], weight.shape[-1]) for weight in parameters[:-2:2]]
            masks = [rng.keep(rng.fold(key, i), self.rate, *shape).flatten(0, -3) for i, shape in enumerate(shapes)]
            scale = _kept_scale(self.rate).to(x.dtype)
        copies, rows = lead.numel() // len(x), []
        for i, own in enumerate(x.flatten(0, -3).split(1)):
            blocks = []
            for first, block in enumerate(own.split(_BLOCK, dim=1)):
                for depth, (weight, bias) in enumerate(layers):
                    block = affine(block, weight[i], bias[i])
                    if masks and depth < hidden:
                        mask = masks[depth][i : i + 1, first * _BLOCK : first * _BLOCK + block.shape[1]]
                        block = block * (mask * scale[i // copies])
                    block = activation(block) if depth < hidden else block
                blocks.append(block)
            rows.append(torch.cat(blocks, dim=1))
        whole: Tensor = torch.cat(rows).unflatten(0, lead)
        return whole


def dropout(x: Tensor, rate: Tensor, key: Tensor) -> Tensor:
    """x [P, ...] with elements zeroed at each member's rate [P] (in steps of 1/256) and the rest scaled up to match."""
    scale = _kept_scale(rate).to(x.dtype).reshape(-1, *(1,) * (x.dim() - 1))
    return x * (rng.keep(key, rate, *x.shape[1:]) * scale)


def _kept_scale(rate: Tensor) -> Tensor:
    """[P] 1 / (1 - rate), with the rate in steps of 1/256."""
    return 1.0 / (1.0 - (rate * 256.0).round() / 256.0)


class Normalizer(nn.Module):
    """(obs - mean) / (std + 1e-3) with the statistics of the data as buffers, so that they are saved with the agent."""

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: Spec, on: Tensor) -> None:
        """``on`` [P] is 1 for members that normalise, 0 for those that take observations as they are."""
        super().__init__()
        mean = on.new_tensor(spec.obs_mean or (0.0,) * spec.obs_size)  # [O]
        std = on.new_tensor(spec.obs_std or (1.0 - 1e-3,) * spec.obs_size)
        switch = on.reshape(-1, 1, 1)
        self.active = bool((on > 0).any())
        self.register_buffer("mean", switch * mean)  # [P, 1, O]
        self.register_buffer("scale", 1.0 / (switch * (std + 1e-3) + (1.0 - switch)))

    def forward(self, obs: Tensor) -> Tensor:
        """[P, ..., O] -> the same shape."""
        if not self.active:
            return obs
        shape = (len(self.mean), *(1,) * (obs.dim() - 2), -1)
        return (obs - self.mean.reshape(shape)) * self.scale.reshape(shape)


M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """The module with parameters that take no gradient: a target or reference network."""
    return module.requires_grad_(False)


def critics(
    keys: Tensor, spec: Spec, hidden: tuple[int, ...], *, count: int, dtype: torch.dtype
) -> tuple[StackedMLP, StackedMLP]:
    """``count`` Q-functions of [obs, act], and target networks that begin as their copies and take no gradient."""
    sizes = (spec.obs_size + spec.act_size, *hidden, 1)
    q, target = (StackedMLP(keys, sizes, ensemble=count, dtype=dtype) for _ in range(2))
    return q, freeze(target)


def through(net: StackedMLP, x: Tensor, *, copies: int | None = None) -> Tensor:
    """``net(x)`` with gradients that reach ``x`` and not the weights, as a policy's loss needs them of a critic.

    ``copies``: of the first so many copies of an ensemble alone, [P, B, in] -> [P, copies, B, out].
    """
    weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
    if copies is not None:
        weights = {name: weight[:, :copies] for name, weight in weights.items()}
        x = x.unsqueeze(1).expand(-1, copies, -1, -1)
    y: Tensor = torch.func.functional_call(net, weights, (x,))
    return y
