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
from .rankings import Rankings
from .rollout import Rollout
from .segments import Segments
from .to_go import returns_to_go
from .windows import Histories, Windows

Kind = Literal["transitions", "pairs", "rankings", "rollout", "windows"]
Wants = Mapping[Kind, int]


@dataclass(frozen=True, eq=False)
class Transitions:
    """A batch of steps: obs [P, B, O], act [P, B, A], rew [P, B], next_obs [P, B, O], term [P, B] (0 or 1).

    to_go [P, B] is the discounted return from a step on, where the source was asked for it (``Source.with_to_go``);
    -infinity where it is not known yet.
    """

    obs: Tensor
    act: Tensor
    rew: Tensor
    next_obs: Tensor
    term: Tensor
    to_go: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """A batch of answered pairs: obs [P, B, 2, T, O], act [P, B, 2, T, A], label [P, B] = P(second preferred).

    Where the segments come from a data set, last_obs [P, B, 2, O] is the state after the last action and term [P, B, 2]
    (0 or 1) says whether it truly ended the episode: then its value is 0. Human files tell neither.
    """

    obs: Tensor
    act: Tensor
    label: Tensor
    last_obs: Tensor | None = None
    term: Tensor | None = None


@dataclass(frozen=True, eq=False)
class RankedLists:
    """A batch of lists of K segments, the best first: obs [P, B, K, T, O], act [P, B, K, T, A]."""

    obs: Tensor
    act: Tensor


class Batch(TypedDict, total=False):
    """What one update gets: the kinds that it wanted.

    ``wins`` [P, N] comes with a rollout that was compared: how often each copy's trajectory is preferred to others; and
    ``comparisons`` [P], how many pairs somebody has been asked about so far.
    """

    transitions: Transitions
    pairs: LabelledPairs
    windows: Windows
    rankings: RankedLists
    rollout: Rollout
    wins: Tensor
    comparisons: Tensor


_TOGETHER = 16  # updates that are drawn at once
_AT_ONCE = 1 << 22  # numbers that are looked up at once at most


@dataclass(frozen=True, eq=False)
class _Block:
    """Indices [updates, P, B] of the updates from ``first`` on, for these keys; and what lies there, once looked up."""

    keys: Tensor
    first: int
    index: Tensor
    found: list[tuple[Tensor, Tensor]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Groups:
    """Pairs by user: ``pairs`` [U, n] int64 (padded) the pairs that each user answered, ``counts`` [U] how many.

    Every run of ``size`` pairs of a batch is one user's, and no pair is twice in it.
    """

    size: int
    pairs: Tensor
    counts: Tensor

    def draw(self, key: Tensor, count: int) -> Tensor:
        """[..., count] pairs for keys [...]: users are equally likely, and so are all sets of a user's pairs."""
        user = rng.indices(rng.fold(key, "user"), count // self.size, len(self.counts))  # [..., groups]
        place = _distinct(rng.fold(key, "pairs"), self.size, self.counts[user])
        return self.pairs[user.unsqueeze(-1), place].flatten(-2)


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
        ends: [M, O + 1] the state after each segment and whether it is a true end, or None where that is unknown.
        pairs: [n, 2] int64 first and second segment of each pair, or None.
        label: [n] labels, or [P, n] with each member's own.
        pair_rows: [P, k] pairs that members may draw, padded, or None for all.
        pair_counts: [P] how many of ``pair_rows`` are valid, or None.
        user: [n] int64 who answered each pair, or None.
        groups: how pairs are drawn together, or None: each for itself.
        ranked: [m, T, O + A] the segments of ranked lists, or None.
        lists: [n, K] int64 the segments of each list, the best first, or None.
        context: [P, G, C] numbers that follow the observations of transitions, or None.
        context_of: [N] int64 which of the G each transition has, or None.
        histories: what windows are cut from, or None.
        to_go: [P, N] discounted returns from each transition on, or None.
        to_go_gamma: [P] their discounts, or None.
    """

    obs_size: int
    dataset: Dataset | None
    steps: Tensor | None
    rew: Tensor | None
    rows: Tensor | None = None
    counts: Tensor | None = None
    segments: Tensor | None = None
    ends: Tensor | None = None
    pairs: Tensor | None = None
    label: Tensor | None = None
    pair_rows: Tensor | None = None
    pair_counts: Tensor | None = None
    user: Tensor | None = None
    groups: Groups | None = None
    ranked: Tensor | None = None
    lists: Tensor | None = None
    context: Tensor | None = None
    context_of: Tensor | None = None
    histories: Histories | None = None
    to_go: Tensor | None = None
    to_go_gamma: Tensor | None = None
    _blocks: dict[str, _Block] = dataclasses.field(init=False, repr=False, default_factory=dict)

    @classmethod
    def of(
        cls,
        dataset: Dataset | None = None,
        preferences: Preferences | Sequence[Preferences] | None = None,
        *,
        rankings: Rankings | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Source:
        """A source from a data set, preferences, rankings or several of them.

        Several preferences, one per member, must answer the same pairs.

        Raises:
            InputError: none is given, unusable preferences or rankings, several objectives, preferences on different
                pairs, or sizes that differ.
        """
        if dataset is None and preferences is None and rankings is None:
            raise InputError("nothing to learn from: expected a data set, preferences or both")
        steps = rew = segments = ends = pairs = label = user = ranked = lists = None
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
            last, term = asked.segments.last_obs, asked.segments.term
            if last is not None and term is not None:
                ends = torch.cat([last, term.unsqueeze(1)], dim=1).to(device, dtype)
            user = None if answers[0].user is None else answers[0].user.to(device)
            pairs = torch.stack([asked.first, asked.second], dim=1).to(device)
            labels = torch.stack([answer.label for answer in answers]).to(device, dtype)
            label = labels[0] if isinstance(preferences, Preferences) else labels
            obs_size = asked.segments.obs.shape[-1]
            _check_sizes(f"the preferences by {answers[0].by.who}", asked.segments, dataset)
        if rankings is not None:
            rankings.check()
            ranked = torch.cat([rankings.segments.obs, rankings.segments.act], dim=-1).to(device, dtype)
            lists = rankings.lists.to(device)
            obs_size = rankings.segments.obs.shape[-1]
            _check_sizes(f"the rankings by {rankings.by.who}", rankings.segments, dataset)
        answered = cls(obs_size, dataset, steps, rew, segments=segments, ends=ends, pairs=pairs, label=label, user=user)
        return dataclasses.replace(answered, ranked=ranked, lists=lists)

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        tensor = next((x for x in (self.steps, self.segments, self.ranked) if x is not None), None)
        assert tensor is not None  # ``of`` needs one of them
        return tensor.device

    def with_reward(self, rew: Tensor) -> Source:
        """The same data with other rewards: [N], or [P, N] with each member's own."""
        return dataclasses.replace(self, rew=rew, to_go=None, to_go_gamma=None)

    def with_to_go(self, gamma: Tensor) -> Source:
        """The same data, transitions telling the return from them on, too, by each member's discount ``gamma`` [P].

        Raises:
            InputError: no data set.
        """
        if self.dataset is None or self.rew is None:
            raise InputError("returns are those of episodes, expected a data set and not preferences alone")
        found = returns_to_go(self.rew, self.dataset.lengths, self.dataset.term, gamma)
        return dataclasses.replace(self, to_go=found, to_go_gamma=gamma)

    def with_rows(self, rows: Sequence[Tensor]) -> Source:
        """The same data, each member drawing only from its own rows (P tensors of indices)."""
        padded, counts = _padded(rows)
        return dataclasses.replace(self, rows=padded, counts=counts)

    def with_pairs(self, rows: Sequence[Tensor]) -> Source:
        """The same data, each member drawing only its own labelled pairs (P tensors of indices): budgets, or folds."""
        padded, counts = _padded(rows)
        return dataclasses.replace(self, pair_rows=padded, pair_counts=counts)

    def by_user(self, size: int) -> Source:
        """The same data, every run of ``size`` pairs of a batch being answers of one user (see ``Groups``).

        Preferences that do not tell users apart are all one user's.

        Raises:
            InputError: no preferences, each member's own ones, or a user with fewer than ``size`` answers.
        """
        if self.pairs is None:
            raise InputError("this learner draws labelled pairs, expected preferences and not a data set alone")
        if self.pair_rows is not None:
            raise InputError("pairs of their own for each member cannot be drawn by user, expected the same for all")
        user = torch.zeros(len(self.pairs), dtype=torch.int64) if self.user is None else self.user.cpu()
        names, counts = user.unique(return_counts=True)
        fewest = int(counts.argmin())
        if counts[fewest] < size:
            found = f"user {int(names[fewest])} has answered {int(counts[fewest])} pairs"
            raise InputError(f"{found}, expected at least {size}, as many as are drawn of one user at a time")
        own = torch.split(user.argsort(stable=True), counts.tolist())
        padded = torch.nn.utils.rnn.pad_sequence(list(own), batch_first=True)
        return dataclasses.replace(self, groups=Groups(size, padded.to(self.device), counts.to(self.device)))

    def with_context(self, context: Tensor, context_of: Tensor) -> Source:
        """The same data, each member's observations of transitions (the next ones too) being followed by numbers.

        Args:
            context: [P, G, C] the numbers.
            context_of: [N] int64 which of the G each transition has.
        """
        return dataclasses.replace(self, context=context, context_of=context_of)

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
            elif kind == "pairs":
                batch["pairs"] = self._pairs(keys, update, count)
            elif kind == "rankings":
                batch["rankings"] = self._rankings(keys, update, count)
            else:
                raise InputError(f"this learner wants a {kind}, expected an environment to play in and not stored data")
        return batch

    def _block(
        self,
        kind: Kind,
        keys: Tensor,
        update: int,
        count: int,
        high: int | Tensor,
        rows: Tensor | None,
        groups: Groups | None = None,
    ) -> _Block:
        """What to draw in this update and those beside it: one by one, draws take as long as a small network.

        ``high``: of how many, or [P] of how many of the ``rows`` [P, n].
        """
        block = self._blocks.get(kind)
        first = update - update % _TOGETHER
        if block is None or block.keys is not keys or block.first != first or block.index.shape[-1] != count:
            updates = torch.arange(first, first + _TOGETHER, device=keys.device)
            key = rng.fold(rng.fold(keys, kind).expand(_TOGETHER, -1), updates[:, None])  # [updates, P]
            drawn = rng.indices(key, count, high) if groups is None else groups.draw(key, count)
            index = drawn if rows is None else rows.expand(_TOGETHER, -1, -1).gather(2, drawn)
            block = self._blocks[kind] = _Block(keys, first, index)
        return block

    def _transitions(self, keys: Tensor, update: int, count: int) -> Transitions:
        if self.steps is None or self.rew is None:
            raise InputError("this learner draws transitions, expected a data set and not preferences alone")
        high = len(self.steps) if self.counts is None else self.counts
        block = self._block("transitions", keys, update, count, high, self.rows)
        index = block.index[update - block.first]  # [P, B]
        row, rew = self._looked_up(self.steps, self.rew, block, update - block.first)
        obs, act, next_obs, term = row.split(self._columns(row.shape[-1]), dim=-1)
        if self.context is not None and self.context_of is not None:
            place = self.context_of[index].unsqueeze(-1).expand(-1, -1, self.context.shape[-1])
            own = self.context.gather(1, place)  # [P, B, C]
            obs, next_obs = torch.cat([obs, own], dim=-1), torch.cat([next_obs, own], dim=-1)
        to_go = None if self.to_go is None else self.to_go.gather(1, index)
        return Transitions(obs, act, rew, next_obs, term.squeeze(-1), to_go)

    def _looked_up(self, steps: Tensor, rew: Tensor, block: _Block, place: int) -> tuple[Tensor, Tensor]:
        """Rows [P, B, 2 O + A + 1] and rewards [P, B] of one update: with its neighbours', by all threads, if few."""

        def taken(index: Tensor) -> tuple[Tensor, Tensor]:
            rows = steps.index_select(0, index.flatten()).reshape(*index.shape, -1)
            return rows, rew.expand(*index.shape[:-1], -1).gather(-1, index)

        if block.index.numel() * steps.shape[1] > _AT_ONCE:
            return taken(block.index[place])
        if not block.found:
            block.found.append(taken(block.index))
        rows, rewards = block.found[0]
        return rows[place], rewards[place]

    def _pairs(self, keys: Tensor, update: int, count: int) -> LabelledPairs:
        if self.segments is None or self.pairs is None or self.label is None:
            raise InputError("this learner draws labelled pairs, expected preferences and not a data set alone")
        high = len(self.pairs) if self.pair_counts is None else self.pair_counts
        block = self._block(
            "pairs", keys, update, count, high, self.pair_rows, None if self.pair_counts is not None else self.groups
        )
        index = block.index[update - block.first]  # [P, B]
        chosen = self.pairs[index]  # [P, B, 2]
        step = self.segments.index_select(0, chosen.flatten()).reshape(*chosen.shape, *self.segments.shape[1:])
        label = self.label[index] if self.label.dim() == 1 else self.label.gather(1, index)
        last_obs = term = None
        if self.ends is not None:
            end = self.ends.index_select(0, chosen.flatten()).reshape(*chosen.shape, -1)
            last_obs, term = end[..., :-1], end[..., -1]
        return LabelledPairs(step[..., : self.obs_size], step[..., self.obs_size :], label, last_obs, term)

    def _rankings(self, keys: Tensor, update: int, count: int) -> RankedLists:
        if self.ranked is None or self.lists is None:
            raise InputError("this learner draws ranked lists, expected rankings (Source.of(..., rankings=...))")
        block = self._block("rankings", keys, update, count, len(self.lists), None)
        chosen = self.lists[block.index[update - block.first]]  # [P, B, K]
        step = self.ranked.index_select(0, chosen.flatten()).reshape(*chosen.shape, *self.ranked.shape[1:])
        return RankedLists(step[..., : self.obs_size], step[..., self.obs_size :])

    def _windows(self, keys: Tensor, update: int, count: int) -> Windows:
        if self.histories is None:
            raise InputError("this learner draws windows without having said how long, expected it to prepare its data")
        high = len(self.histories.first) if self.counts is None else self.counts
        block = self._block("windows", keys, update, count, high, self.rows)
        return self.histories.cut(block.index[update - block.first], self.rew)

    def _columns(self, width: int) -> tuple[int, int, int, int]:
        return self.obs_size, width - 2 * self.obs_size - 1, self.obs_size, 1


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """P tensors of indices as [P, k], and [P] how many of each are valid."""
    counts = torch.tensor([len(r) for r in rows], device=rows[0].device)
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), counts


def _check_sizes(whose: str, segments: Segments, dataset: Dataset | None) -> None:
    """Raise InputError where segments have observations or actions of another size than the data set."""
    if dataset is None:
        return
    for what, field in (("observations", "obs"), ("actions", "act")):
        found, expected = (getattr(part, field).shape[-1] for part in (segments, dataset))
        if found != expected:
            raise InputError(f"{whose} have {what} of {found} numbers, expected {expected} as {dataset.name} has")


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
        and (one.user is None) == (other.user is None)
        and (one.user is None or other.user is None or torch.equal(one.user, other.user))
    )


def _distinct(key: Tensor, size: int, high: Tensor) -> Tensor:
    """[..., G, size] int64: for high [..., G], ``size`` different numbers below each, in random order (Floyd)."""
    chance = rng.uniform(rng.fold(key, "which"), high.shape[-1], size, dtype=torch.float64)
    chosen: list[Tensor] = []
    for i in range(size):
        top = high - size + i
        drawn = (chance[..., i] * (top + 1)).to(torch.int64)
        taken = torch.zeros_like(drawn, dtype=torch.bool)
        for earlier in chosen:
            taken |= drawn == earlier
        chosen.append(torch.where(taken, top, drawn))
    order = rng.bits(rng.fold(key, "order"), high.shape[-1], size).argsort(dim=-1)
    return torch.stack(chosen, dim=-1).gather(-1, order)
