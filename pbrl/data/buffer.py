"""Buffer: what P members collect in their N environments each, and what they draw their batches from while they do.

    buffer = Buffer(spec, members=P, capacity=100_000, streams=N, device="cpu")
    buffer.add(obs, act, rew, next_obs, term, trunc)            # one step of every environment, [P, N, ...]
    buffer.draw({"transitions": 256}, learner.keys, update)     # the same batches that a Source gives
    buffer.relabel(model.reward)                                # new rewards for all that is stored
    buffer.windows(keys, count, length)                         # segments to ask about
    buffer.to_dataset(member)                                   # what a member collected

It is a ring: when full, the oldest steps go. Everything is per member, and a draw is a pure function of (member key,
update, what is stored). ``draw`` gives the rewards to learn from (``rew``), which may be a model's; what the
environment paid is kept apart (``env_rew``), for teachers, scores and data sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from ..spec import Spec
from .collected_windows import CollectedWindows, choose, starts
from .dataset import Dataset
from .replay import Replay
from .source import Batch, Source, Transitions, Wants
from .to_go import after_cut

__all__ = ["Buffer", "CollectedWindows", "Replay", "Reward"]

Reward = Callable[[Tensor, Tensor], Tensor]
"""obs [P, B, O], act [P, B, A] -> [P, B]."""

_ROWS = 8192  # relabelled at once
_TOGETHER = 16  # updates whose random numbers are drawn at once


class Buffer:
    """The last ``capacity`` steps of each of P members.

    Attributes:
        spec: of the environment.
        members: P.
        streams: N, environments of each member.
        length: steps of each stream that fit.
        data: transitions that were there before, or None.
        replay: how ``draw`` combines both.
        ended: [P, N] int64, episodes that have ended in each stream.
        running: [P, N] int64, steps so far of the episode that goes on in each stream.
        added: how many steps each stream has taken.

    Args:
        capacity: steps of a member, rounded up to a multiple of ``streams``.
        to_go_gamma: [P] discounts of the returns to go that ``draw`` tells, too (of steps of complete episodes); None:
            those of ``data``.
        dtype: of all numbers.
        device: where they lie.

    Raises:
        InputError: no capacity, or a replay that needs ``data`` without any.
    """

    def __init__(
        self,
        spec: Spec,
        members: int,
        capacity: int,
        *,
        streams: int = 1,
        data: Source | None = None,
        replay: Replay | None = None,
        to_go_gamma: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        for name, value in (("members", members), ("capacity", capacity), ("streams", streams)):
            if value < 1:
                raise InputError(f"a buffer's {name} is {value}, expected at least 1")
        self.replay = replay or Replay("empty" if data is None else "prefill")
        if self.replay.kind != "empty" and (data is None or data.steps is None):
            raise InputError(f"replay is {self.replay.kind!r} but there is no data set, expected one or 'empty'")
        width = 2 * spec.obs_size + spec.act_size + 1
        if (
            data is not None
            and data.steps is not None
            and (data.obs_size, data.steps.shape[1]) != (spec.obs_size, width)
        ):
            found = f"{data.obs_size} observations and {data.steps.shape[1] - 2 * data.obs_size - 1} actions"
            raise InputError(
                f"the data set has {found}, expected {spec.obs_size} and {spec.act_size} as {spec.name} has"
            )
        self.spec, self.members, self.streams, self.data = spec, members, streams, data
        self.length = -(-capacity // streams)
        rows = self.length * streams
        self._rows = torch.zeros(members, rows, width, dtype=dtype, device=device)
        self._rew = torch.zeros(members, rows, dtype=dtype, device=device)
        self._env_rew = torch.zeros(members, rows, dtype=dtype, device=device)
        self._trunc = torch.zeros(members, rows, dtype=torch.bool, device=device)
        self._step = torch.zeros(members, rows, dtype=torch.int64, device=device)  # number of a step in its episode
        gamma = data.to_go_gamma if to_go_gamma is None and data is not None else to_go_gamma
        self._gamma = None if gamma is None else gamma.to(device, dtype)
        self._to_go = torch.full((members, 0 if gamma is None else rows), -math.inf, dtype=dtype, device=device)
        self._place = torch.arange(members, device=device).unsqueeze(1) * rows  # [P, 1] where a member's rows begin
        self.ended = torch.zeros(members, streams, dtype=torch.int64, device=device)
        self.running = torch.zeros(members, streams, dtype=torch.int64, device=device)
        self.added = 0
        self._drawn: tuple[Tensor, int, Tensor] | None = None

    # What is stored. Rows are in no order of time once the ring has wrapped; ``order`` has it.

    def __len__(self) -> int:
        """How many steps of each member are stored."""
        return min(self.added, self.length) * self.streams

    @property
    def env_steps(self) -> int:
        """How many steps each member has taken."""
        return self.added * self.streams

    @property
    def device(self) -> torch.device:
        """Where the numbers lie."""
        return self._rows.device

    @property
    def dtype(self) -> torch.dtype:
        """Of all numbers."""
        return self._rows.dtype

    @property
    def obs(self) -> Tensor:
        """[P, size, O]."""
        return self._column(0)

    @property
    def act(self) -> Tensor:
        """[P, size, A]."""
        return self._column(1)

    @property
    def next_obs(self) -> Tensor:
        """[P, size, O]."""
        return self._column(2)

    @property
    def term(self) -> Tensor:
        """[P, size], 0 or 1."""
        return self._column(3).squeeze(-1)

    @property
    def trunc(self) -> Tensor:
        """[P, size] bool."""
        return self._trunc[:, : len(self)]

    @property
    def rew(self) -> Tensor:
        """[P, size] what is learned from."""
        return self._rew[:, : len(self)]

    @property
    def env_rew(self) -> Tensor:
        """[P, size] what the environment paid."""
        return self._env_rew[:, : len(self)]

    @property
    def order(self) -> Tensor:
        """[T, N] int64: the row of each stream's stored steps, oldest first."""
        stored = min(self.added, self.length)
        time = (self.added - stored + torch.arange(stored, device=self.device)) % self.length
        return time.unsqueeze(1) * self.streams + torch.arange(self.streams, device=self.device)

    def _columns(self) -> tuple[int, int, int, int]:
        return self.spec.obs_size, self.spec.act_size, self.spec.obs_size, 1

    def _column(self, number: int) -> Tensor:
        parts: tuple[Tensor, ...] = self._rows[:, : len(self)].split(self._columns(), dim=-1)
        return parts[number]

    def add(
        self,
        obs: Tensor,
        act: Tensor,
        rew: Tensor,
        next_obs: Tensor,
        term: Tensor,
        trunc: Tensor,
        *,
        env_rew: Tensor | None = None,
    ) -> None:
        """One step of every environment: obs and next_obs [P, N, O], act [P, N, A], the others [P, N].

        Where ``term`` or ``trunc`` is set, ``next_obs`` is the last observation of the episode and the next step of
        that stream begins another one. ``env_rew`` is what the environment paid where ``rew`` is something else.

        Raises:
            InputError: another shape.
        """
        shape = (self.members, self.streams)
        if obs.shape != (*shape, self.spec.obs_size) or act.shape != (*shape, self.spec.act_size) or rew.shape != shape:
            found = " ".join(str(list(each.shape)) for each in (obs, act, rew))
            raise InputError(f"steps have shapes {found}, expected {[*shape]} of {self.spec.obs_size} observations")
        first = self.added % self.length * self.streams
        rows = slice(first, first + self.streams)
        parts = (obs, act, next_obs, term.unsqueeze(-1))
        self._rows[:, rows] = torch.cat([part.to(self.device, self.dtype) for part in parts], dim=-1)
        self._rew[:, rows] = rew.to(self.device, self.dtype)
        self._env_rew[:, rows] = (rew if env_rew is None else env_rew).to(self.device, self.dtype)
        self._trunc[:, rows] = trunc.to(self.device)
        self._step[:, rows] = self.running
        end = (term.bool() | trunc.bool()).to(self.device)
        if self._gamma is not None:
            self._to_go[:, rows] = -math.inf
            self._settle(end, term.to(self.device, torch.bool), self._gamma.unsqueeze(1))
        self.ended += end
        self.running = torch.where(end, 0, self.running + 1)
        self.added += 1

    def _settle(self, end: Tensor, term: Tensor, gamma: Tensor) -> None:
        """Returns to go of the episodes that end [P, N] with the step that was just written, truly or not."""
        if not bool(end.any()):
            return
        steps = (self.running + 1).clamp_max(self.length)
        back = [(self.added - k) % self.length * self.streams for k in range(int(steps[end].max()))]
        total = torch.zeros_like(self._rew[:, : self.streams])
        for k, first in enumerate(back):
            total += torch.where(steps > k, self._rew[:, first : first + self.streams], 0.0)
        ahead = torch.where(term, 0.0, after_cut(total, steps, gamma))
        for k, first in enumerate(back):
            rows = slice(first, first + self.streams)
            ahead = self._rew[:, rows] + gamma * ahead
            self._to_go[:, rows] = torch.where(end & (steps > k), ahead, self._to_go[:, rows])

    def relabel(self, reward: Reward) -> None:
        """Give every stored step the reward ``reward(obs [P, B, O], act [P, B, A]) -> [P, B]`` to learn from."""
        with torch.no_grad():
            for first in range(0, len(self), _ROWS):
                rows = slice(first, min(first + _ROWS, len(self)))
                self._rew[:, rows] = reward(self.obs[:, rows], self.act[:, rows]).to(self.dtype)

    # Batches.

    def draw(self, wants: Wants, keys: Tensor, update: int) -> Batch:
        """The batch of update number ``update`` for members with these keys [P].

        Raises:
            InputError: something other than transitions is wanted, or nothing is stored.
        """
        if set(wants) != {"transitions"}:
            raise InputError(f"this learner draws {' and '.join(wants)}, expected one that learns from transitions")
        count = wants["transitions"]
        old = 0 if self.data is None or self.data.steps is None or self.replay.kind == "empty" else len(self.data.steps)
        if not old and not len(self):
            raise InputError("nothing has been collected yet, expected steps in the buffer or a data set")
        u = self._uniform(keys, update, count)  # [P, B]
        if self.replay.kind != "mixed":
            index = (u * (old + len(self))).to(torch.int64)
            if not old:
                return {"transitions": self._collected(index)}
            if not len(self):
                return {"transitions": self._recorded(index)}
            fresh = index >= old
            ours, theirs = self._collected((index - old).clamp_min(0)), self._recorded(index.clamp_max(old - 1))
            return {"transitions": _zip(lambda a, b: torch.where(_like(fresh, a), a, b), ours, theirs)}
        share = self.replay.share_at(self.env_steps) if len(self) else 1.0
        first = round(share * count)
        if not first:
            return {"transitions": self._collected((u * len(self)).to(torch.int64))}
        theirs = self._recorded((u[:, :first] * old).to(torch.int64))
        if first == count:
            return {"transitions": theirs}
        ours = self._collected((u[:, first:] * len(self)).to(torch.int64))
        return {"transitions": _zip(lambda a, b: torch.cat([b, a], dim=1), ours, theirs)}

    def _uniform(self, keys: Tensor, update: int, count: int) -> Tensor:
        """[P, count] of this update; drawn for several updates at once, which costs as much as for one."""
        first = update - update % _TOGETHER
        drawn = self._drawn
        if drawn is None or drawn[0] is not keys or drawn[1] != first or drawn[2].shape[-1] != count:
            updates = torch.arange(first, first + _TOGETHER, device=keys.device)
            key = rng.fold(rng.fold(keys, "replay").expand(_TOGETHER, -1), updates[:, None])
            drawn = self._drawn = (keys, first, rng.uniform(key, count, dtype=torch.float64))
        return drawn[2][update - first]

    def _collected(self, index: Tensor) -> Transitions:
        flat = (index + self._place).flatten()
        row = self._rows.flatten(0, 1).index_select(0, flat).reshape(*index.shape, -1)
        obs, act, next_obs, term = row.split(self._columns(), dim=-1)
        rew = self._rew.flatten().index_select(0, flat).reshape(index.shape)
        to_go = None if self._gamma is None else self._to_go.gather(1, index)
        return Transitions(obs, act, rew, next_obs, term[..., 0], to_go)

    def _recorded(self, index: Tensor) -> Transitions:
        assert self.data is not None  # by the caller
        assert self.data.steps is not None
        assert self.data.rew is not None
        row = self.data.steps.index_select(0, index.flatten()).reshape(*index.shape, -1)
        obs, act, next_obs, term = row.split(self._columns(), dim=-1)
        rew = self.data.rew
        chosen = rew.index_select(0, index.flatten()).reshape(index.shape) if rew.dim() == 1 else rew.gather(1, index)
        to_go = None if self._gamma is None else torch.full_like(chosen, -math.inf)
        if to_go is not None and self.data.to_go is not None:
            to_go = self.data.to_go.gather(1, index)
        return Transitions(obs, act, chosen, next_obs, term[..., 0], to_go)

    # Episodes and windows of them.

    def episodes(self, member: int) -> list[Tensor]:
        """The rows of each complete episode of a member, in the order in which they ended."""
        order = self.order
        end, step = (column[member][order] for column in (self._end, self._step))  # [T, N] each
        found = []
        for time, stream in end.nonzero().tolist():
            first = time - int(step[time, stream])
            if first >= 0:  # or else its beginning has been overwritten
                found.append(order[first : time + 1, stream])
        return found

    @property
    def _end(self) -> Tensor:
        """[P, size] bool, the last step of an episode."""
        return self.trunc | (self.term > 0)

    def places(self, length: int, *, recent: int | None = None) -> Tensor:
        """[P] int64, how many windows of ``length`` steps there are in complete (recent) episodes of each member."""
        return self._starts(self.order, length, recent).flatten(1).sum(1)

    def windows(
        self,
        keys: Tensor,
        count: int,
        length: int,
        *,
        recent: int | None = None,
        everyone: bool = True,
        apart: bool = False,
    ) -> CollectedWindows:
        """``count`` windows of ``length`` steps of complete episodes, every place with the same probability.

        Args:
            keys: [P] decide which.
            recent: only the last so many complete episodes of each member; None: all that are stored.
            everyone: whether each member must have one. If not, members without get windows that are good for nothing.
            apart: windows 2 i and 2 i + 1 are never the same, for a member that has two; ``count`` is even then.

        Raises:
            InputError: a member has no complete episode of that length.
        """
        order = self.order
        valid = self._starts(order, length, recent).flatten(1)  # [P, T N]
        number = valid.sum(1)
        if length < 1 or not bool((number > 0).all() if everyone else (number > 0).any()):
            raise InputError(
                f"a member has no complete episode of {length} steps among those stored, expected shorter segments or "
                "more steps before the first question"
            )
        place = choose(valid, keys, count, apart=apart)  # [P, M], numbers t N + n
        time, stream = place // self.streams, place % self.streams
        step_time = (time.unsqueeze(-1) + torch.arange(length, device=self.device)).clamp_max(len(order) - 1)
        rows = order[step_time, stream.unsqueeze(-1)]  # [P, M, T]
        flat = (rows + self._place.unsqueeze(-1)).flatten()
        step = self._rows.flatten(0, 1).index_select(0, flat).reshape(*rows.shape, -1)
        obs, act, next_obs, term = step.split(self._columns(), dim=-1)
        rew = self._env_rew.flatten().index_select(0, flat).reshape(rows.shape)
        oldest = self.added - len(order)
        return CollectedWindows(obs, act, rew, next_obs[:, :, -1], term[:, :, -1, 0], oldest * self.streams + place)

    def _starts(self, order: Tensor, length: int, recent: int | None) -> Tensor:
        """[P, T, N] bool: here begins a window of ``length`` steps of a complete (recent) episode."""
        return starts(self._end[:, order], self._step[:, order], length, recent)

    # What others keep of it.

    def to_dataset(self, member: int, *, name: str, env: str = "", info: Mapping[str, Any] | None = None) -> Dataset:
        """What a member collected (with the environment's own rewards), one stream after the other, oldest first.

        An episode of which only a part is stored begins where that part does; one that still goes on is marked
        truncated.

        Raises:
            InputError: nothing is stored, or what ``Dataset.from_arrays`` does not take.
        """
        rows = self.order.T.flatten()
        obs, act, rew, next_obs, term, trunc = (
            column[member].index_select(0, rows).cpu()
            for column in (self.obs, self.act, self.env_rew, self.next_obs, self.term, self.trunc)
        )
        if len(rows):
            last = torch.arange(1, self.streams + 1) * (len(rows) // self.streams) - 1
            trunc[last] = term[last] == 0
        facts = {"horizon": self.spec.horizon, **(info or {})}
        return Dataset.from_arrays(
            obs.float(), act.float(), rew.float(), term > 0, trunc, next_obs.float(), name=name, env=env, info=facts
        )

    def state_dict(self) -> dict[str, Tensor]:
        """All that is stored and counted; not ``data``."""
        stored = {"rows": self._rows, "rew": self._rew, "env_rew": self._env_rew, "trunc": self._trunc}
        stored |= {"step": self._step, "to_go": self._to_go}
        state = {name: tensor[:, : len(self)] for name, tensor in stored.items() if tensor.numel()}
        return {**state, "ended": self.ended, "running": self.running, "added": torch.tensor(self.added)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores it.

        Raises:
            RuntimeError: the state of a buffer of other sizes.
        """
        added = int(state["added"])
        size = min(added, self.length) * self.streams
        if (
            state["rows"].shape != (self.members, size, self._rows.shape[-1])
            or state["ended"].shape != self.ended.shape
        ):
            raise RuntimeError(f"rows are {list(state['rows'].shape)}, expected a buffer of other sizes")
        self.added = added
        for name in ("rows", "rew", "env_rew", "trunc", "step", *(["to_go"] if self._gamma is not None else [])):
            getattr(self, f"_{name}")[:, :size] = state[name].to(self.device)
        self.ended = state["ended"].to(self.device).clone()
        self.running = state["running"].to(self.device).clone()


def _like(mask: Tensor, values: Tensor) -> Tensor:
    return mask if values.dim() == mask.dim() else mask.unsqueeze(-1)


def _zip(join: Callable[[Tensor, Tensor], Tensor], one: Transitions, other: Transitions) -> Transitions:
    names = ("obs", "act", "rew", "next_obs", "term", *(["to_go"] if one.to_go is not None else []))
    return Transitions(*(join(getattr(one, name), getattr(other, name)) for name in names))
