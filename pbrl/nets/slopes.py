"""Values of networks together with their slopes: derivatives with respect to the input, which can be trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from .mlp import StackedMLP, linear, relu


def value_and_slope(net: StackedMLP, x: Tensor) -> tuple[Tensor, Tensor]:
    """y = net(x) and dy / dx of a net of ReLUs with one output: x [P, B, in] -> [P, (E,) B] and [P, (E,) B, in].

    The slope is computed forwards, as a product of weights over the units that are on, so that gradients of it with
    respect to the weights need one backward pass (and can be compiled): W_1 D_1 W_2 D_2 ... w_n.
    """
    assert net.activation == "relu"
    if net.ensemble is not None:
        x = x.unsqueeze(1).expand(-1, net.ensemble, -1, -1)
    parameters = list(net.parameters())
    weights, on = parameters[::2], []
    for weight, bias in zip(weights[:-1], parameters[1::2]):
        x = relu(linear(x, weight, bias))
        on.append(torch.sign(x.detach()))
    y = linear(x, weights[-1], parameters[-1])
    slope = weights[-1].transpose(-2, -1).expand(*x.shape)  # [P, (E,) B, last hidden]
    for weight, mask in zip(reversed(weights[:-1]), reversed(on)):
        slope = (slope * mask) @ weight.transpose(-2, -1)
    return y.squeeze(-1), slope
