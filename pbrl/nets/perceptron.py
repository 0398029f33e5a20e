"""Whole perceptrons as one node of autograd's graph, for losses that are not compiled.

With a node for each product, bias and activation, a network of a few hundred units takes nearly as long to keep account
of as to compute. Here the account is kept by hand: what a layer puts in, and how its product and activation are undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import products

_APPLY: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "leaky_relu": torch.nn.functional.leaky_relu_,
    "tanh": torch.tanh_,
}
# Of the gradient and of what the activation put out; not in place, so that gradients have gradients, too.
_UNDO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda grad, y: torch.ops.aten.threshold_backward(grad, y, 0.0),
    "leaky_relu": lambda grad, y: torch.ops.aten.leaky_relu_backward(grad, y, 0.01, True),
    "tanh": torch.ops.aten.tanh_backward,
}


def perceptron(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str) -> Tensor:
    """The perceptrons of ``weights`` [*, in, out] and ``biases`` [*, 1, out] of each layer on x [*, B, in].

    Leading axes of x and of the weights are equal, or x lacks the last of them: then networks along it share their
    input. Hidden layers end in ``activation``. Returns [*, B, out], with gradients in float32 or float64.
    """
    apply: Callable[..., Tensor] = _Perceptron.apply
    return apply(x, activation, *weights, *biases)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: str, *parameters: Tensor) -> Tensor:
        ctx.activation, ctx.shape, lead = activation, x.shape, parameters[0].shape[:-2]
        ctx.shared = x.dim() < parameters[0].dim()
        wide = x.unsqueeze(-3).expand(*lead, *x.shape[-2:]) if ctx.shared else x
        weights, biases = _flat(parameters)
        inputs = [wide.flatten(0, -3)]
        for weight, bias in zip(weights[:-1], biases):
            inputs.append(_APPLY[activation](products.product(inputs[-1], weight, bias)))
        ctx.save_for_backward(*inputs, *parameters)
        return products.product(inputs[-1], weights[-1], biases[-1]).reshape(*lead, x.shape[-2], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 3
        inputs, parameters = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        weights, _ = _flat(parameters)
        wanted = ctx.needs_input_grad[2:]
        found: list[Tensor | None] = [None] * len(parameters)
        grad = grads[0].flatten(0, -3)
        for i in range(layers - 1, -1, -1):
            if wanted[i]:
                found[i] = products.product(inputs[i].mT, grad).view_as(parameters[i])
            if wanted[layers + i]:
                found[layers + i] = grad.sum(1, keepdim=True).view_as(parameters[layers + i])
            if i > 0:
                grad = _UNDO[ctx.activation](products.product(grad, weights[i].mT), inputs[i])
        if not ctx.needs_input_grad[0]:
            return None, None, *found
        grad = products.product(grad, weights[0].mT)
        own = grad.unflatten(0, (-1, parameters[0].shape[-3])).sum(1) if ctx.shared else grad
        return own.reshape(ctx.shape), None, *found


def _flat(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases with one leading axis."""
    flat = [parameter.flatten(0, -3) for parameter in parameters]
    return flat[: len(flat) // 2], flat[len(flat) // 2 :]
