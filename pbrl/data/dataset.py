"""Dataset: transitions of whole episodes as contiguous tensors."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..spec import Spec
from .checks import bounded, check_ends, check_finite, check_length, check_reward, flags, floats
from .tensors import map_tensors

LONGEST = 88  # characters of one metadata entry in ``describe``


@dataclass(frozen=True, eq=False)
class Dataset:
    """Transitions in the order in which they were collected; make one with ``from_arrays``, which checks them.

    Attributes:
        name: e.g. ``local/reacher/mixed-v1``.
        env: id of the simulator, "" when unknown.
        obs: [N, O] float32.
        act: [N, A] float32 in [-1, 1], whatever the environment's own bounds.
        rew: [N] float32, [N, K] for K > 1 objectives.
        next_obs: [N, O] true successors, also at an episode's end. A terminal row's may be anything: its value is 0.
        term: [N] bool, a true end of the problem.
        trunc: [N] bool, an end by time limit: the value of next_obs counts. Never set together with term. Every
            episode ends with one of both, except that the last may have neither (its recording was cut).
        start: [episodes] int64, first row of each episode.
        info: metadata that JSON can hold: versions, seeds, behaviour, horizon (steps), reference ([min, max] return).
    """

    name: str
    env: str
    obs: Tensor
    act: Tensor
    rew: Tensor
    next_obs: Tensor
    term: Tensor
    trunc: Tensor
    start: Tensor
    info: Mapping[str, Any]

    @classmethod
    def from_arrays(
        cls,
        obs: Any,
        act: Any,
        rew: Any,
        term: Any,
        trunc: Any,
        next_obs: Any = None,
        *,
        name: str = "unnamed",
        env: str = "",
        info: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """A Dataset from five or six arrays (copied), after every check.

        Episodes end where ``term`` or ``trunc`` is set. Actions up to 1e-4 outside [-1, 1] are clipped.

        Without ``next_obs``, a row's successor is the next row of its episode. A terminal row gets its own observation
        (never used, as its value is 0). The last row of any other episode has no successor and is dropped; if the
        episode was truncated, the row before becomes its truncated end.

        Args:
            obs: [N, O] array-like.
            act: [N, A] in [-1, 1].
            rew: [N], [N, 1] or [N, K].
            term: [N] bool.
            trunc: [N] bool.
            next_obs: [N, O] or None.
            name: what tables and errors call it.
            env: id of the simulator.
            info: metadata that JSON can hold.

        Raises:
            InputError: no rows, NaN or infinity, a wrong shape or length, actions outside [-1, 1], flags that are not
                bool or both set, or rewards that are all zero.
        """
        obs = floats(obs, "obs", (2,))
        count = len(obs)
        if not count:
            raise InputError("obs has no rows, expected at least one transition")
        act = floats(act, "act", (2,))
        rew = floats(rew, "rew", (1, 2))
        for field, tensor in (("act", act), ("rew", rew)):
            check_length(tensor, field, count)
        for field, tensor in (("obs", obs), ("act", act), ("rew", rew)):
            if not tensor[0].numel():
                raise InputError(f"{field} has shape {list(tensor.shape)}, expected at least one column")
        rew = rew.squeeze(1) if rew.shape[1:] == (1,) else rew
        term, trunc = flags(term, "term", count), flags(trunc, "trunc", count)
        check_ends(term, trunc)
        act = bounded(act)
        if next_obs is None:
            obs, act, rew, next_obs, term, trunc = _shift(obs, act, rew, term, trunc)
        else:
            next_obs = floats(next_obs, "next_obs", (2,))
            if next_obs.shape != obs.shape:
                raise InputError(f"next_obs has shape {list(next_obs.shape)}, expected {list(obs.shape)} as obs has")
        check_reward(rew)
        return cls(name, env, obs, act, rew, next_obs, term, trunc, _starts(term | trunc), dict(info or {}))

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def lengths(self) -> Tensor:
        """[episodes] int64 rows of each episode."""
        return torch.diff(self.start, append=self.start.new_tensor([len(self)]))

    @cached_property
    def spec(self) -> Spec:
        """What an agent may know: sizes, horizon (from ``info``) and mean and deviation of the observations."""
        obs = self.obs.double()
        return Spec(
            name=f"{self.name}@{self.env}" if self.env else self.name,
            obs_size=self.obs.shape[1],
            act_size=self.act.shape[1],
            horizon=self.info.get("horizon"),
            objectives=self.rew.shape[1] if self.rew.dim() > 1 else 1,
            obs_mean=tuple(obs.mean(0).tolist()),
            obs_std=tuple(obs.std(0, correction=0).tolist()),
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal characters of the SHA-256 of the tensors: equal for equal contents, whatever the name."""
        digest = hashlib.sha256()
        for field in ("obs", "act", "rew", "next_obs", "term", "trunc"):
            tensor = getattr(self, field).cpu().contiguous()
            digest.update(f"{field} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.numpy())
        return digest.hexdigest()[:16]

    def episode_returns(self) -> Tensor:
        """[episodes] sums of rewards ([episodes, K] for K > 1), not discounted; summed in float64."""
        episode = torch.repeat_interleave(torch.arange(len(self.start), device=self.start.device), self.lengths)
        total = self.rew.new_zeros(len(self.start), *self.rew.shape[1:], dtype=torch.float64)
        return total.index_add_(0, episode, self.rew.double()).float()

    def rows(self, keep: Tensor) -> Dataset:
        """The whole episodes ``keep``: [k] indices, in that order, or an [episodes] bool mask.

        If the cut last episode is not the last any more, its last row is marked truncated, as nothing else would
        separate it from its new neighbour.

        Raises:
            InputError: no episode, or an index out of range.
        """
        keep = torch.as_tensor(keep, device=self.start.device)
        if keep.dtype == torch.bool and keep.shape != self.start.shape:
            raise InputError(f"keep has shape {list(keep.shape)}, expected [{len(self.start)}] as there are episodes")
        keep = keep.nonzero().squeeze(1) if keep.dtype == torch.bool else keep.long().reshape(-1)
        if not len(keep):
            raise InputError("keep selects no episode, expected at least one")
        if keep.min() < 0 or keep.max() >= len(self.start):
            raise InputError(
                f"keep has indices {int(keep.min())} to {int(keep.max())}, expected 0 to {len(self.start) - 1}"
            )
        length = self.lengths[keep]
        before = length.cumsum(0) - length
        row = torch.arange(int(length.sum()), device=keep.device)
        row += torch.repeat_interleave(self.start[keep] - before, length)
        term, trunc = self.term[row], self.trunc[row]
        last = before[1:] - 1
        trunc[last] = ~term[last]
        return dataclasses.replace(
            self,
            obs=self.obs[row],
            act=self.act[row],
            rew=self.rew[row],
            next_obs=self.next_obs[row],
            term=term,
            trunc=trunc,
            start=before,
        )

    def with_reward(self, rew: Tensor) -> Dataset:
        """The same transitions with other rewards [N] (or [N, K]), as a learned reward model gives them.

        Raises:
            InputError: wrong length, NaN or infinity.
        """
        rew = rew.detach().to(self.rew)
        if rew.dim() not in (1, 2):
            raise InputError(f"rew has shape {list(rew.shape)}, expected [{len(self)}]")
        check_length(rew, "rew", len(self))
        check_finite(rew, "rew")
        return dataclasses.replace(self, rew=rew)

    def to(self, device: torch.device | str) -> Dataset:
        """The data set on a device."""
        return map_tensors(self, lambda tensor: tensor.to(device))

    def describe(self) -> str:
        """A readable table: rows, episodes, how they end, returns, ranges, fingerprint and metadata."""
        returns = self.episode_returns()
        terminated, truncated = int(self.term.sum()), int(self.trunc.sum())
        cut = len(self.start) - terminated - truncated
        ends = f"{terminated} terminated, {truncated} truncated" + (f", {cut} cut" if cut else "")
        table = {
            "data set": self.name,
            "environment": self.env or "unknown",
            "fingerprint": self.fingerprint,
            "transitions": f"{len(self):,}",
            "episodes": f"{len(self.start):,} ({ends})",
            "truncation rate": f"{truncated / len(self.start):.1%} of episodes",
            "episode length": _range(self.lengths),
            "episode return": _range(returns) if returns.dim() == 1 else "; ".join(map(_range, returns.T)),
            "obs": f"{self.obs.shape[1]} numbers, {_range(self.obs)}",
            "act": f"{self.act.shape[1]} numbers, {_range(self.act)}",
            "rew": _range(self.rew) if self.rew.dim() == 1 else "; ".join(map(_range, self.rew.T)),
        }
        for key, value in self.info.items():
            words = _words(value)
            table[f"info {key}"] = words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
        width = max(map(len, table))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in table.items())


def _starts(end: Tensor) -> Tensor:
    """First rows of the episodes whose last rows are marked in ``end`` [N]."""
    after = end[:-1].nonzero().squeeze(1) + 1
    return torch.cat([after.new_zeros(1), after])


def _shift(obs: Tensor, act: Tensor, rew: Tensor, term: Tensor, trunc: Tensor) -> tuple[Tensor, ...]:
    """Successors by shifting, and the rows that have one: obs, act, rew, next_obs, term, trunc."""
    next_obs = torch.where(term.unsqueeze(1), obs, obs.roll(-1, 0))
    keep = ~trunc
    keep[-1] &= term[-1]
    if not keep.any():
        raise InputError(f"none of the {len(obs)} rows has a successor in its episode, expected next_obs to be given")
    # The flag moves to the row before, unless that row belongs to an earlier episode (the truncated one had one row).
    earlier = trunc.roll(-1, 0)
    earlier[-1] = False
    trunc = earlier & ~term & ~trunc
    return obs[keep], act[keep], rew[keep], next_obs[keep], term[keep], trunc[keep]


def _words(value: object) -> str:
    """Metadata as words: numbers to four digits, what belongs together between semicolons."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(each, dict) for each in value)
        return "; ".join(map(_words, value)) if nested else f"[{', '.join(map(_words, value))}]"
    return str(value)


def _range(values: Tensor) -> str:
    values = values.double()
    return f"min {values.min():.4g}, mean {values.mean():.4g}, max {values.max():.4g}"
