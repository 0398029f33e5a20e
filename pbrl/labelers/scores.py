"""What a segment is worth: its partial return, or its regret in four forms that are not the same.

Sources: Christiano et al. (2017) for partial return; Knox et al. (2022), "Models of human preference for learning
reward functions", for regret. Sums run in float64, so that equal rewards give equal scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..data.segments import Segments
from ..errors import InputError
from .protocols import Critic

Aggregate = Literal["sum", "mean", "discounted"]
RegretForm = Literal["dir", "dis_dir", "sum", "dis_sum"]


def discounts(gamma: float, length: int, like: Tensor) -> Tensor:
    """[T] float64: 1, gamma, gamma^2, ..."""
    return gamma ** torch.arange(length, dtype=torch.float64, device=like.device)


@dataclass(frozen=True)
class PartialReturn:
    """The rewards of a segment, added up.

    ``sum`` and ``mean`` order segments alike: for a teacher of finite rationality (and for a Bradley-Terry model) the
    mean is the sum at a temperature T times as high. ``discounted`` (sum of gamma^t r_t, t from the segment's first
    step) is about the sum at temperature T (1 - gamma) / (1 - gamma^T), and also weighs early steps more.

    Raises:
        InputError: an unknown aggregate, or a gamma outside (0, 1]; when called, segments without true scalar rewards.
    """

    aggregate: Aggregate = "sum"
    gamma: float | None = None

    def __post_init__(self) -> None:
        if self.aggregate not in get_args(Aggregate):
            raise InputError(f"aggregate is {self.aggregate!r}, expected one of {', '.join(get_args(Aggregate))}")
        if (self.gamma is not None) != (self.aggregate == "discounted"):
            raise InputError(
                f"aggregate {self.aggregate!r} has gamma {self.gamma}: 'discounted', and it alone, needs one"
            )
        if self.gamma is not None and not 0 < self.gamma <= 1:
            raise InputError(f"gamma of the partial return is {self.gamma}, expected above 0 and at most 1")

    def __str__(self) -> str:
        return f"partial_return({self.aggregate}{'' if self.gamma is None else f', gamma={self.gamma:g}'})"

    def steps(self, segments: Segments) -> Tensor:
        """[M, T] float64: what each step adds to the score."""
        rew = _rewards(segments, str(self))
        if self.aggregate == "mean":
            return rew / segments.length
        return rew if self.gamma is None else rew * discounts(self.gamma, segments.length, rew)

    def __call__(self, segments: Segments) -> Tensor:
        """[M] float64."""
        return self.steps(segments).sum(-1)


@dataclass(frozen=True)
class Regret:
    """Minus the regret of a segment, so that higher is better, by an oracle critic's Q and V.

    The four forms (gamma is the critic's; V(s_T) counts 0 where the segment's last step truly terminated):

    - ``dir``: sum of Q(s_t, a_t) - V(s_t). Knox's stochastic regret; by max-entropy values, CPL's alpha log pi*.
    - ``dis_dir``: sum of gamma^t (Q(s_t, a_t) - V(s_t)).
    - ``sum``: sum of r_t + V(s_T) - V(s_0). Knox's deterministic regret. CPL's published labels are this form with the
      V of a discounted critic, which favours segments that stay where values are high.
    - ``dis_sum``: sum of gamma^t r_t + gamma^T V(s_T) - V(s_0).

    ``dis_dir`` equals ``dis_sum`` exactly when the dynamics are deterministic and Q = r + gamma V(s'); ``dir`` equals
    ``sum`` only if, besides, gamma is 1. The first two need no rewards and hence also work on human files.

    Raises:
        InputError: an unknown form; when called with ``sum`` or ``dis_sum``, segments without rewards, last
            observations or termination flags, as human files give them.
    """

    critic: Critic
    form: RegretForm = "dir"

    def __post_init__(self) -> None:
        if self.form not in get_args(RegretForm):
            raise InputError(f"form of regret is {self.form!r}, expected one of {', '.join(get_args(RegretForm))}")

    def __str__(self) -> str:
        return f"regret({self.form})"

    @property
    def _gamma(self) -> float:
        return self.critic.gamma if self.form.startswith("dis_") else 1.0

    def steps(self, segments: Segments) -> Tensor:
        """[M, T] float64: what each step adds; in the last two forms r_t + gamma V(s_{t+1}) - V(s_t)."""
        v = self.critic.v(segments.obs).double()
        if self.form in ("dir", "dis_dir"):
            gain = self.critic.q(segments.obs, segments.act).double() - v
        else:
            v_next = torch.cat([v[:, 1:], self._v_last(segments).unsqueeze(1)], dim=1)
            gain = _rewards(segments, str(self)) + self._gamma * v_next - v
        return gain * discounts(self._gamma, segments.length, gain)

    def __call__(self, segments: Segments) -> Tensor:
        """[M] float64."""
        if self.form in ("dir", "dis_dir"):
            return self.steps(segments).sum(-1)
        # Telescoped, the sum asks for V at two states of each segment instead of T + 1.
        rew = _rewards(segments, str(self))
        total = (rew * discounts(self._gamma, segments.length, rew)).sum(-1)
        v_first = self.critic.v(segments.obs[:, 0]).double()
        return total + self._gamma**segments.length * self._v_last(segments) - v_first

    def _v_last(self, segments: Segments) -> Tensor:
        """[M] V(s_T), 0 where the last step truly terminated."""
        if segments.last_obs is None or segments.term is None:
            raise InputError(
                f"{self} needs each segment's last observation and termination, {segments.source} has none"
            )
        return self.critic.v(segments.last_obs).double() * ~segments.term


def _rewards(segments: Segments, score: str) -> Tensor:
    if segments.rew is None:
        raise InputError(f"{score} needs true rewards, but {segments.source} has none")
    if segments.rew.dim() != 2:
        found = f"{segments.rew.shape[-1]} per step"
        raise InputError(
            f"{score} needs one reward per step, but {segments.source} has {found}: weigh them into one first"
        )
    return segments.rew.double()
