"""Policy heads: what a policy network's output means as a distribution over actions.

Each head is a frozen dataclass of tensors [P, B, A] with ``mode()``, ``sample(key)`` and ``log_prob(act) -> [P, B]``.
Actions live in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import rng
from .mlp import Init, StackedMLP

_HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Head(Protocol):
    """A distribution over actions."""

    def mode(self) -> Tensor:
        """The most likely action, [P, B, A]."""
        ...

    def sample(self, key: Tensor) -> Tensor:
        """One action per row, [P, B, A]."""
        ...

    def log_prob(self, act: Tensor) -> Tensor:
        """[P, B], summed over the dimensions of the action."""
        ...


@dataclass(frozen=True)
class Deterministic:
    """A point: its "log-probability" is -|a - mean|^2, the density scale of CPL's reference (no 1/2, no constant)."""

    mean: Tensor

    def mode(self) -> Tensor:
        """The point itself."""
        return self.mean

    def sample(self, key: Tensor) -> Tensor:
        """The point with unit-free Gaussian noise of the density's width, sigma^2 = 1/2, clipped to [-1, 1]."""
        noise = rng.normal(key, *self.mean.shape[1:], dtype=self.mean.dtype)
        return (self.mean + math.sqrt(0.5) * noise).clamp(-1.0, 1.0)

    def log_prob(self, act: Tensor) -> Tensor:
        """-sum_d (a_d - mean_d)^2."""
        return -(act - self.mean).square().sum(-1)


@dataclass(frozen=True)
class Gaussian:
    """An unsquashed normal; samples are clipped to [-1, 1] when acting, log-probabilities are not corrected for it."""

    mean: Tensor
    log_std: Tensor

    def mode(self) -> Tensor:
        """The mean, clipped to [-1, 1]."""
        return self.mean.clamp(-1.0, 1.0)

    def sample(self, key: Tensor) -> Tensor:
        """mean + std * noise, clipped to [-1, 1]."""
        noise = rng.normal(key, *self.mean.shape[1:], dtype=self.mean.dtype)
        return (self.mean + self.log_std.exp() * noise).clamp(-1.0, 1.0)

    def log_prob(self, act: Tensor) -> Tensor:
        """The normal log-density."""
        z = (act - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z.square() - self.log_std - _HALF_LOG_TAU).sum(-1)

    def entropy(self) -> Tensor:
        """[P, B] differential entropy of the unclipped normal."""
        return (self.log_std + 0.5 + _HALF_LOG_TAU).expand_as(self.mean).sum(-1)


@dataclass(frozen=True)
class TanhGaussian:
    """tanh of a normal (SAC, Haarnoja et al. 2018, appendix C)."""

    mean: Tensor
    log_std: Tensor

    def mode(self) -> Tensor:
        """tanh(mean)."""
        return torch.tanh(self.mean)

    def sample(self, key: Tensor) -> Tensor:
        """tanh(mean + std * noise)."""
        return self.sample_with_log_prob(key)[0]

    def sample_with_log_prob(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """An action [P, B, A] and its log-density [P, B], both differentiable, without inverting tanh."""
        noise = rng.normal(key, *self.mean.shape[1:], dtype=self.mean.dtype)
        raw = self.mean + self.log_std.exp() * noise
        return torch.tanh(raw), self._density(raw)

    def log_prob(self, act: Tensor) -> Tensor:
        """The density at an action; actions on the boundary are pulled in by 1e-6."""
        return self._density(torch.atanh(act.clamp(-1.0 + 1e-6, 1.0 - 1e-6)))

    def _density(self, raw: Tensor) -> Tensor:
        z = (raw - self.mean) * torch.exp(-self.log_std)
        normal = -0.5 * z.square() - self.log_std - _HALF_LOG_TAU
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), exact also where tanh(x) rounds to 1.
        return (normal - 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))).sum(-1)


@dataclass(frozen=True)
class Categorical:
    """A choice among A actions, given as integers [P, B]."""

    logits: Tensor

    def mode(self) -> Tensor:
        """[P, B] the likeliest action."""
        return self.logits.argmax(-1)

    def sample(self, key: Tensor) -> Tensor:
        """[P, B] by the Gumbel-max trick."""
        u = rng.uniform(key, *self.logits.shape[1:], dtype=torch.float64)
        gumbel = -torch.log(-torch.log(u.clamp_min(2.0**-54)))
        return (self.logits + gumbel.to(self.logits.dtype)).argmax(-1)

    def log_prob(self, act: Tensor) -> Tensor:
        """[P, B] log-softmax at the chosen actions."""
        return self.logits.log_softmax(-1).gather(-1, act.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[P, B] Shannon entropy in nats."""
        log_p = self.logits.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


Kind = Literal["deterministic", "gaussian", "tanh_gaussian"]


class StackedPolicy(nn.Module):
    """P policies: an MLP and the head that reads it.

    Kinds: "deterministic" tanh(net) (CPL's reference); "gaussian" mean tanh(net) with a state-independent log-std in
    [-5, 2] (IQL's reference); "tanh_gaussian" mean and log-std in [-20, 2] from the network (SAC).
    """

    def __init__(
        self,
        keys: Tensor,
        obs_size: int,
        act_size: int,
        *,
        kind: Kind,
        hidden: tuple[int, ...],
        dropout: Tensor | None = None,
        init: Init = "uniform",
        gain: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.kind = kind
        outputs = 2 * act_size if kind == "tanh_gaussian" else act_size
        self.net = StackedMLP(keys, (obs_size, *hidden, outputs), dropout=dropout, init=init, gain=gain, dtype=dtype)
        self.log_std: nn.Parameter | None = None
        if kind == "gaussian":
            self.log_std = nn.Parameter(torch.zeros(len(keys), 1, act_size, dtype=dtype, device=keys.device))

    def forward(self, obs: Tensor, key: Tensor | None = None) -> Deterministic | Gaussian | TanhGaussian:
        """obs [P, B, O] -> a head over [P, B, A]. ``key`` switches dropout on."""
        out = self.net(obs, key)
        if self.kind == "deterministic":
            return Deterministic(torch.tanh(out))
        if self.log_std is not None:
            return Gaussian(torch.tanh(out), self.log_std.clamp(-5.0, 2.0))
        mean, log_std = out.chunk(2, dim=-1)
        return TanhGaussian(mean, log_std.clamp(-20.0, 2.0))

    def choose(self, obs: Tensor, key: Tensor | None = None) -> Tensor:
        """obs [P, B, O] -> actions [P, B, A]: the mode, or a sample where there is a key."""
        with torch.no_grad():
            head: Head = self(obs)
            return head.mode() if key is None else head.sample(key)


def segment_likelihood(policy: StackedPolicy, obs: Tensor, act: Tensor) -> Tensor:
    """sum_t log pi(a_t|s_t) of segments: obs [P, M, T, O] (normalised), act [P, M, T, A] -> [P, M]."""
    with torch.no_grad():
        steps: Tensor = policy(obs.flatten(1, 2)).log_prob(act.flatten(1, 2))
    return steps.reshape(*obs.shape[:3]).sum(-1)
