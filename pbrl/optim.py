"""The stacked optimiser: Adam with a learning rate, weight decay and gradient clip per member, and target networks.

Parameters are [P, ...], and so are the gradients that ``pbrl.descent`` brings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

_VECTOR = 16  # float32 numbers in the widest vector register of a CPU


class Adam(nn.Module):
    """Adam (Kingma & Ba 2015) over parameters [P, ...], each member at its own learning rate.

    With weight decay it is AdamW (Loshchilov & Hutter 2019): a step also shrinks every weight by lr * decay of itself.
    A module, so that its moments are part of the agent's state_dict.

    Args:
        parameters: tensors with a leading population axis.
        lr: [P] learning rates.
        clip: [P] bounds on the global gradient norm of each member (infinity: none), or None.
        weight_decay: [P] rates of decoupled weight decay, or None.
    """

    lr: Tensor

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: Tensor,
        *,
        clip: Tensor | None = None,
        weight_decay: Tensor | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        # A plain list: the parameters belong to the networks, and must not appear here in the state_dict again.
        self.parameters_list = list(parameters)
        self.betas, self.eps = betas, eps
        self.steps = 0
        self.register_buffer("lr", lr)
        self.clip: Tensor | None
        self.register_buffer("clip", clip if clip is not None and bool(torch.isfinite(clip).any()) else None)
        self.decay: Tensor | None
        self.register_buffer("decay", weight_decay)
        self.first = nn.ParameterList(nn.Parameter(torch.zeros_like(p), False) for p in self.parameters_list)
        self.second = nn.ParameterList(nn.Parameter(torch.zeros_like(p), False) for p in self.parameters_list)
        # Plain lists of the same tensors: going through the modules at every step takes longer than the step.
        self._moments = (list(self.first), list(self.second))
        # Which of them ``_aligned`` leaves whole.
        self._whole = [len(p) == 1 or p[0].numel() % _VECTOR == 0 for p in self.parameters_list]
        # Learning rates as numbers: equal ones make a single fused call, and reading them at every step takes time.
        self.rates: list[float] = []
        self.decays: list[float] = []
        self.read_rates()

    def get_extra_state(self) -> Tensor:
        """The number of steps taken, as a tensor."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the number of steps taken."""
        self.steps = int(state)
        self.read_rates()

    def read_rates(self) -> None:
        """Takes rates of learning and decay from their buffers again, which a population may have changed."""
        self.rates = self.lr.tolist()
        self.decays = [0.0] * len(self.rates) if self.decay is None else self.decay.tolist()

    def reset(self) -> None:
        """Forgets the moments and the step count, as a fresh optimiser would have them."""
        self.steps = 0
        for moment in (*self.first, *self.second):
            moment.zero_()

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor], scale: float = 1.0) -> None:
        """One step along ``grads`` (one per parameter), every learning rate multiplied by ``scale``."""
        self.steps += 1
        if self.clip is not None:
            grads = _clipped(grads, self.clip)
        step = torch.tensor(float(self.steps), device=grads[0].device)
        flat = [g.contiguous() for g in grads]  # the fused kernel ignores strides
        tensors: list[Sequence[Tensor]] = [self.parameters_list, flat, *self._moments]
        settings = list(zip(self.rates, self.decays))
        if len(set(settings)) == 1:
            self._fused([self._aligned(group) for group in tensors], step, self.rates[0] * scale, self.decays[0])
        else:
            for member, (rate, decay) in enumerate(settings):
                self._fused([[x[member] for x in group] for group in tensors], step, rate * scale, decay)

    def _aligned(self, group: Sequence[Tensor]) -> list[Tensor]:
        """The tensors, cut into members where a member is no whole number of vectors.

        The fused kernel rounds the elements of whole vectors and of what is left over differently, so that otherwise a
        member's last bit would depend on its place in the stack.
        """
        return [part for x, whole in zip(group, self._whole) for part in ([x] if whole else x.unbind(0))]

    def _fused(self, tensors: Sequence[Sequence[Tensor]], step: Tensor, lr: float, decay: float) -> None:
        parameters, grads, first, second = map(list, tensors)
        kernel = torch._fused_adamw_ if decay else torch._fused_adam_
        kernel(
            parameters,
            grads,
            first,
            second,
            [],
            [step] * len(parameters),
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )


def _clipped(grads: Sequence[Tensor], bound: Tensor) -> list[Tensor]:
    """Each member's gradients scaled so that their global norm is at most its bound [P]."""
    norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
    factor = (bound / (norm + 1e-6)).clamp(max=1.0)  # torch.nn.utils.clip_grad_norm_ has the same 1e-6
    return [g * factor.reshape(-1, *(1,) * (g.dim() - 1)) for g in grads]


@torch.no_grad()
def track(target: nn.Module, source: nn.Module, rate: Tensor) -> None:
    """target <- target + rate * (source - target), with a rate per member [P]."""
    rates: dict[int, Tensor] = {}  # by the number of axes
    for old, new in zip(target.parameters(), source.parameters()):
        axes = old.dim()
        if axes not in rates:
            rates[axes] = rate.reshape(-1, *(1,) * (axes - 1))
        old.lerp_(new, rates[axes])
