"""Oracle critics: the values that regret labels need, stored beside a data set by whoever made it.

Two kinds: ``sac``, the networks of the behaviour run that made the data (approximate, and as good as that run), and
``lqr``, the closed form of a linear-quadratic problem (exact).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..data import hdf5
from ..errors import InputError
from .protocols import Critic

_ROWS_AT_ONCE = 8_192  # of network input: 16 MiB of float32 per hidden layer of a twin critic with 256 units
_SAMPLES = 64  # actions per state whose mean is V

Layers = tuple[tuple[Tensor, Tensor], ...]


def _mlp(layers: Layers, x: Tensor) -> Tensor:
    """ReLU network: [..., in] -> [..., out]; kernels [(E,) in, out], biases [(E,) out]."""
    for number, (weight, bias) in enumerate(layers):
        x = (x @ weight).add_(bias.unsqueeze(-2))
        x = x.relu_() if number < len(layers) - 1 else x
    return x


@dataclass(frozen=True)
class SACCritic:
    """Q and V of a soft actor-critic run (Haarnoja et al. 2018).

    Q is the mean over the critic's ensemble (not its minimum, which is a device of training). V(s) is the mean of
    Q(s, a) - alpha log pi(a|s) over 64 actions of the policy, drawn with the same noise in every state and call.

    Attributes:
        gamma: discount that the critic was trained with.
        critic: layers with kernels [E, in, out] on (obs, act); obs are raw, act in [-1, 1].
        actor: hidden layers, kernels [in, out]; then ``mean`` and ``log_std`` (clipped to [-20, 2]), tanh-squashed.
        alpha: temperature of the policy's entropy.
        entropy: whether V holds the entropy term. True is the soft value that the critic itself bootstraps from, and
            Q - V = alpha log pi for an optimal policy; False is the plain mean of Q, as in CPL's published labels.
    """

    gamma: float
    critic: Layers
    actor: Layers
    mean: tuple[Tensor, Tensor]
    log_std: tuple[Tensor, Tensor]
    alpha: float
    entropy: bool = True

    def q(self, obs: Tensor, act: Tensor) -> Tensor:
        """[..., O], [..., A] -> [...] float32."""
        return _in_chunks(self._q, _ROWS_AT_ONCE, obs, act)

    def v(self, obs: Tensor) -> Tensor:
        """[..., O] -> [...] float32; computed once for states that come several times, as in overlapping segments."""
        states, place = torch.unique(obs.detach().reshape(-1, obs.shape[-1]), dim=0, return_inverse=True)
        return _in_chunks(self._v, _ROWS_AT_ONCE // _SAMPLES, states)[place].reshape(obs.shape[:-1])

    def _q(self, obs: Tensor, act: Tensor) -> Tensor:
        return _mlp(self.critic, torch.cat([obs, act], dim=-1)).squeeze(-1).mean(0)  # [E, B, 1] -> [B]

    def _v(self, obs: Tensor) -> Tensor:
        hidden = _mlp(self.actor, obs).relu()
        mean = hidden @ self.mean[0] + self.mean[1]
        log_std = (hidden @ self.log_std[0] + self.log_std[1]).clamp(-20.0, 2.0)
        noise = rng.normal(rng.fold(rng.keys([0], device=obs.device)[0], "oracle value"), _SAMPLES, 1, mean.shape[-1])
        raw = mean + log_std.exp() * noise  # [samples, B, A]
        # log(1 - tanh(u)^2) in a form that does not underflow.
        log_slope = 2.0 * (math.log(2.0) - raw - torch.nn.functional.softplus(-2.0 * raw))
        log_pi = (-0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi) - log_slope).sum(-1)
        many = obs.expand(_SAMPLES, *obs.shape)
        q = self._q(many.flatten(0, 1), raw.tanh().flatten(0, 1)).reshape(_SAMPLES, -1)
        return (q - self.alpha * log_pi if self.entropy else q).mean(0)


def _in_chunks(function: Callable[..., Tensor], rows: int, *inputs: Tensor) -> Tensor:
    """``function`` of [B, .] tensors applied to [..., .] tensors, so many rows at a time."""
    flat = [x.detach().to(torch.float32).reshape(-1, x.shape[-1]) for x in inputs]
    with torch.no_grad():
        parts = [function(*chunk) for chunk in zip(*(torch.split(x, rows) for x in flat))]
    return torch.cat(parts).reshape(inputs[0].shape[:-1])


@dataclass(frozen=True)
class LQRCritic:
    """Exact values of a linear-quadratic problem: q = -(z' q_matrix z) - q_constant with z = (obs, act), v alike.

    Attributes:
        gamma: discount.
        q_matrix: [O + A, O + A] float64, symmetric.
        v_matrix: [O, O] float64, symmetric.
        q_constant: what noise (and entropy) cost from the next state on.
        v_constant: the same for v.
    """

    gamma: float
    q_matrix: Tensor
    v_matrix: Tensor
    q_constant: float
    v_constant: float

    def q(self, obs: Tensor, act: Tensor) -> Tensor:
        """[..., O], [..., A] -> [...] float64."""
        return -_quadratic(torch.cat([obs, act], dim=-1), self.q_matrix) - self.q_constant

    def v(self, obs: Tensor) -> Tensor:
        """[..., O] -> [...] float64."""
        return -_quadratic(obs, self.v_matrix) - self.v_constant


def _quadratic(z: Tensor, matrix: Tensor) -> Tensor:
    z = z.double()
    return ((z @ matrix) * z).sum(-1)


def make_critic(
    arrays: Mapping[str, NDArray[Any]],
    attrs: Mapping[str, Any],
    *,
    entropy: bool = True,
    device: torch.device | str = "cpu",
) -> Critic:
    """The oracle critic of the arrays and attributes of a file's ``oracle`` group, by its attribute ``kind``.

    - ``sac``: ``actor/{0,1,...,mean,log_std}/{weight,bias}`` and ``critic/{0,1,...}/{weight,bias}`` (leading axis E),
      kernels [in, out], and ``log_alpha``;
    - ``lqr``: ``q_matrix``, ``v_matrix``, ``q_constant``, ``v_constant``.

    Args:
        entropy: see ``SACCritic``; an LQR's values hold the entropy they were solved with.
        device: where the critic is to compute.

    Raises:
        InputError: an unknown kind, no discount in (0, 1], an array that is missing, holds NaN or does not fit.
    """
    kind, gamma = attrs.get("kind"), attrs.get("gamma")
    if kind not in ("sac", "lqr"):
        raise InputError(f"oracle has kind {kind!r}, expected 'sac' or 'lqr'")
    if gamma is None or not 0 < float(gamma) <= 1:
        raise InputError(f"oracle has gamma {gamma}, expected above 0 and at most 1")

    def tensor(name: str, dtype: torch.dtype) -> Tensor:
        if name not in arrays:
            raise InputError(f"oracle of kind {kind!r} lacks the array {name!r}, found {', '.join(sorted(arrays))}")
        value = torch.tensor(arrays[name], dtype=dtype, device=device)
        if not value.isfinite().all():
            raise InputError(f"oracle array {name!r} holds NaN or an infinity, expected finite numbers")
        return value

    def layer(name: str) -> tuple[Tensor, Tensor]:
        weight, bias = (tensor(f"{name}/{part}", torch.float32) for part in ("weight", "bias"))
        if weight.dim() not in (2, 3) or bias.shape != weight.shape[:-2] + weight.shape[-1:]:
            found = f"{list(weight.shape)} and bias {list(bias.shape)}"
            raise InputError(f"oracle layer {name!r} has weight {found}, expected [(E,) in, out] and [(E,) out]")
        return weight, bias

    def layers(network: str) -> Layers:
        numbers = [int(name.split("/")[1]) for name in arrays if re.match(rf"{network}/\d+/", name)]
        return tuple(layer(f"{network}/{number}") for number in range(max(numbers, default=0) + 1))

    if kind == "lqr":
        q_matrix, v_matrix = tensor("q_matrix", torch.float64), tensor("v_matrix", torch.float64)
        constants = (float(tensor(name, torch.float64)) for name in ("q_constant", "v_constant"))
        return LQRCritic(float(gamma), q_matrix, v_matrix, *constants)
    return SACCritic(
        gamma=float(gamma),
        critic=layers("critic"),
        actor=layers("actor"),
        mean=layer("actor/mean"),
        log_std=layer("actor/log_std"),
        alpha=float(tensor("log_alpha", torch.float32).exp()),
        entropy=entropy,
    )


def load_critic(path: str | Path, *, entropy: bool = True, device: torch.device | str = "cpu") -> Critic:
    """The oracle critic stored beside a data set, see ``make_critic``.

    Raises:
        InputError: no such file, a file without an oracle, or one that ``make_critic`` refuses.
    """
    return make_critic(*hdf5.load_oracle(Path(path)), entropy=entropy, device=device)
