"""Source: what learners draw their batches from, and the batches themselves.

A draw is a pure function of (member key, kind, update): it depends neither on the population nor on what was drawn
before. Rewards, labels and the rows in use may be the same for all members or each member's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor

from .. import rng
from ..errors import InputError
from .dataset import Dataset
from .preferences import Preferences
from .windows import Histories, Windows

Kind = Literal["transitions", "pairs", "windows"]
Wants = Mapping[Kind, int]


@dataclass(frozen=True, eq=False)
class Transitions:
    """A batch of steps: obs [P, B, O], act [P, B, A], rew [P, B], next_obs [P, B, O], term [P, B] (0 or 1)."""

    obs: Tensor
    act: Tensor
    rew: Tensor
    next_obs: Tensor
    term: Tensor


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """A batch of answered pairs: obs [P, B, 2, T, O], act [P, B, 2, T, A], label [P, B] = P(second preferred)."""

    obs: Tensor
    act: Tensor
    label: Tensor


class Batch(TypedDict, total=False):
    """What one update gets: the kinds that it wanted."""

    transitions: Transitions
    pairs: LabelledPairs
    windows: Windows


_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class _Block:
    """Indices [updates, P, B] of the updates from ``first`` on, for these keys."""

    keys: Tensor
    first: int
    index: Tensor


@dataclass(frozen=True, eq=False)
class Source:
    """Data on the learner's device, packed so that a batch is one gather.

    Attributes:
        obs_size: O.
        dataset: transitions, or None where there are only pairs (human files).
        steps: [N, 2 O + A + 1] the transitions as rows of obs, act, next_obs, term.
        rew: [N] rewards, or [P, N] with each member's own.
        rows: [P, n] rows that members may draw, padded, or None for all.
        counts: [P] how many of ``rows`` are valid, or None.
        segments: [M, T, O + A] the segments of the preferences, or None.
        pairs: [n, 2] int64 first and second segment of each pair, or None.
        label: [n] labels, or [P, n] with each member's own.
        histories: what windows are cut from, or None.
    """

    obs_size: int
    dataset: Dataset | None
    steps: Tensor | None
    rew: Tensor | None
    rows: Tensor | None = None
    counts: Tensor | None = None
    segments: Tensor | None = None
    pairs: Tensor | None = None
    label: Tensor | None = None
    histories: Histories | None = None
    _blocks: dict[str, _Block] = dataclasses.field(init=False, repr=False, default_factory=dict)

    @classmethod
    def of(
        cls,
        dataset: Dataset | None = None,
        preferences: Preferences | Sequence[Preferences] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Source:
        """A source from a data set, preferences or both.

        Several preferences, one per member, must answer the same pairs.

        Raises:
            InputError: neither is given, unusable preferences, several objectives, or preferences on different pairs.
        """
        if dataset is None and preferences is None:
            raise InputError("nothing to learn from: expected a data set, preferences or both")
        steps = rew = segments = pairs = label = None
        if dataset is not None:
            obs_size = dataset.obs.shape[1]
            if dataset.rew.dim() > 1:
                raise InputError(f"{dataset.name} has {dataset.rew.shape[1]} rewards per step, expected one")
            columns = (dataset.obs, dataset.act, dataset.next_obs, dataset.term.unsqueeze(1))
            steps = torch.cat([column.to(device, dtype) for column in columns], dim=1)
            rew = dataset.rew.to(device, dtype)
        if preferences is not None:
            answers = [preferences] if isinstance(preferences, Preferences) else list(preferences)
            for answer in answers:
                answer.check()
                if not _same_pairs(answer, answers[0]):
                    raise InputError(
                        f"the preferences by {answer.by.who} and by {answers[0].by.who} answer different pairs, "
                        "expected the same ones for all members of a stack"
                    )
            asked = answers[0].pairs
            segments = torch.cat([asked.segments.obs, asked.segments.act], dim=-1).to(device, dtype)
            pairs = torch.stack([asked.first, asked.second], dim=1).to(device)
            labels = torch.stack([answer.label for answer in answers]).to(device, dtype)
            label = labels[0] if isinstance(preferences, Preferences) else labels
            obs_size = asked.segments.obs.shape[-1]
            if dataset is not None:
                for what, field in (("observations", "obs"), ("actions", "act")):
                    found, expected = (getattr(part, field).shape[-1] for part in (asked.segments, dataset))
                    if found != expected:
                        own = f"{what} of {found} numbers, expected {expected} as {dataset.name} has"
                        raise InputError(f"the preferences by {answers[0].by.who} have {own}")
        return cls(obs_size, dataset, steps, rew, segments=segments, pairs=pairs, label=label)

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        tensor = self.steps if self.steps is not None else self.segments
        assert tensor is not None  # ``of`` needs one of both
        return tensor.device

    def with_reward(self, rew: Tensor) -> Source:
        """The same data with other rewards: [N], or [P, N] with each member's own."""
        return dataclasses.replace(self, rew=rew)

    def with_rows(self, rows: Sequence[Tensor]) -> Source:
        """The same data, each member drawing only from its own rows (P tensors of indices)."""
        counts = torch.tensor([len(r) for r in rows], device=rows[0].device)
        return dataclasses.replace(
            self, rows=torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), counts=counts
        )

    def with_windows(self, length: int) -> Source:
        """The same data, with windows of ``length`` steps: of the data set, or else of the labelled segments."""
        if self.dataset is not None and self.steps is not None:
            first, steps = self.dataset.start.repeat_interleave(self.dataset.lengths), self.steps
            act_size = self.dataset.act.shape[1]
        else:
            assert self.segments is not None  # ``of`` needs one of both
            first = torch.arange(len(self.segments)).repeat_interleave(self.segments.shape[1]) * self.segments.shape[1]
            steps = self.segments.flatten(0, 1)
            act_size = steps.shape[1] - self.obs_size
        histories = Histories(length, self.obs_size, act_size, steps, first.to(self.device))
        return dataclasses.replace(self, histories=histories)

    def draw(self, wants: Wants, keys: Tensor, update: int) -> Batch:
        """The batch of update number ``update`` for members with these keys [P]."""
        batch: Batch = {}
        for kind, count in wants.items():
            if kind == "transitions":
                batch["transitions"] = self._transitions(keys, update, count)
            elif kind == "windows":
                batch["windows"] = self._windows(keys, update, count)
            else:
                batch["pairs"] = self._pairs(keys, update, count)
        return batch

    def _index(self, kind: Kind, keys: Tensor, update: int, count: int, high: int | Tensor) -> Tensor:
        """[P, count] what to draw. Drawn for several updates at once: one by one, draws take as long as a small net."""
        block = self._blocks.get(kind)
        first = update - update % _TOGETHER
        if block is None or block.keys is not keys or block.first != first or block.index.shape[-1] != count:
            updates = torch.arange(first, first + _TOGETHER, device=keys.device)
            key = rng.fold(rng.fold(keys, kind).expand(_TOGETHER, -1), updates[:, None])  # [updates, P]
            block = self._blocks[kind] = _Block(keys, first, rng.indices(key, count, high))
        return block.index[update - first]

    def _transitions(self, keys: Tensor, update: int, count: int) -> Transitions:
        if self.steps is None or self.rew is None:
            raise InputError("this learner draws transitions, expected a data set and not preferences alone")
        if self.rows is None or self.counts is None:
            index = self._index("transitions", keys, update, count, len(self.steps))
        else:
            index = self.rows.gather(1, self._index("transitions", keys, update, count, self.counts))
        flat = index.flatten()
        row = self.steps.index_select(0, flat).reshape(*index.shape, -1)
        obs, act, next_obs, term = row.split(self._columns(row.shape[-1]), dim=-1)
        rew = self.rew.index_select(0, flat).reshape(index.shape) if self.rew.dim() == 1 else self.rew.gather(1, index)
        return Transitions(obs, act, rew, next_obs, term.squeeze(-1))

    def _pairs(self, keys: Tensor, update: int, count: int) -> LabelledPairs:
        if self.segments is None or self.pairs is None or self.label is None:
            raise InputError("this learner draws labelled pairs, expected preferences and not a data set alone")
        index = self._index("pairs", keys, update, count, len(self.pairs))  # [P, B]
        chosen = self.pairs[index]  # [P, B, 2]
        step = self.segments.index_select(0, chosen.flatten()).reshape(*chosen.shape, *self.segments.shape[1:])
        label = self.label[index] if self.label.dim() == 1 else self.label.gather(1, index)
        return LabelledPairs(step[..., : self.obs_size], step[..., self.obs_size :], label)

    def _windows(self, keys: Tensor, update: int, count: int) -> Windows:
        if self.histories is None:
            raise InputError("this learner draws windows without having said how long, expected it to prepare its data")
        if self.rows is None or self.counts is None:
            last = self._index("windows", keys, update, count, len(self.histories.first))
        else:
            last = self.rows.gather(1, self._index("windows", keys, update, count, self.counts))
        return self.histories.cut(last, self.rew)

    def _columns(self, width: int) -> tuple[int, int, int, int]:
        return self.obs_size, width - 2 * self.obs_size - 1, self.obs_size, 1


def _same_pairs(one: Preferences, other: Preferences) -> bool:
    if one is other:
        return True
    a, b = one.pairs, other.pairs
    return (
        len(a) == len(b)
        and torch.equal(a.first, b.first)
        and torch.equal(a.second, b.second)
        and torch.equal(a.segments.obs, b.segments.obs)
        and torch.equal(a.segments.act, b.segments.act)
    )
