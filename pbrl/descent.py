"""Steps down a loss: the loss, its gradient and what is reported of it as one program, compiled where asked for.

A loss that is compiled by itself has its gradient in a second program, and autograd's bookkeeping between the two; as
one, an update of IQL takes a seventh less time on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

from .compiler import compiled
from .optim import Adam

A = ParamSpec("A")
Objective = Callable[A, tuple[*tuple[Tensor, ...], dict[str, Tensor]]]
Descend = Callable[Concatenate[Mapping[Adam, float], A], dict[str, Tensor]]


def descent(objective: Objective[A], compile: bool) -> Descend[A]:
    """A function that takes one step of each of some optimisers down an objective.

    This is the only place in the library that sums over P: each slice of a parameter depends on its own member's loss
    alone, so the gradient of the sum is every member's own gradient.

    Args:
        objective: gives losses [P], which are added up, and then metrics by name.
        compile: if this machine can.

    Returns:
        A function of the optimisers, each with what its learning rates are multiplied by in this step, and of the
        objective's arguments. It gives the metrics, without a graph.
    """

    def gradients(
        parameters: Sequence[Tensor], *args: A.args, **kwargs: A.kwargs
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        *losses, metrics = objective(*args, **kwargs)
        grads = torch.autograd.grad(sum(losses[1:], losses[0]).sum(), parameters)
        return grads, {name: metric.detach() for name, metric in metrics.items()}

    found = compiled(gradients, compile)

    def descend(optimisers: Mapping[Adam, float], /, *args: A.args, **kwargs: A.kwargs) -> dict[str, Tensor]:
        grads, metrics = found([p for optimiser in optimisers for p in optimiser.parameters_list], *args, **kwargs)
        taken = 0
        for optimiser, scale in optimisers.items():
            count = len(optimiser.parameters_list)
            optimiser.step(grads[taken : taken + count], scale)
            taken += count
        return metrics

    return descend
