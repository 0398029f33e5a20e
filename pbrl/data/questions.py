"""Questions: what each of P members has asked, and what it has been told so far. It grows while they learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .. import rng
from ..errors import InputError
from ..spec import Spec
from .source import LabelledPairs

FREE, WAITING, ANSWERED = 0, 1, 2


class Questions(nn.Module):
    """Room for ``capacity`` questions of each member that wait or are answered; a skipped one makes room again.

    A module, so that it is saved: questions may wait through many restarts.

    Attributes:
        obs: [P, capacity, 2, T, O] both segments of each question.
        act: [P, capacity, 2, T, A].
        label: [P, capacity] probability that the second is preferred, where the question is answered.
        state: [P, capacity] 0 free, 1 waiting, 2 answered.
        name: [P, capacity] int64 that tells a question from all others.
        number: [P, capacity] int64, how many questions the member asked before this one.
        asked: [P] int64, questions in all.
        skipped: [P] int64, questions that somebody would not answer.
    """

    obs: Tensor
    act: Tensor
    label: Tensor
    state: Tensor
    name: Tensor
    number: Tensor
    asked: Tensor
    skipped: Tensor

    def __init__(
        self,
        spec: Spec,
        members: int,
        capacity: int,
        length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        for what, value in (("members", members), ("capacity", capacity), ("length", length)):
            if value < 1:
                raise InputError(f"the {what} of questions is {value}, expected at least 1")
        place, step = (members, capacity), (members, capacity, 2, length)
        self.register_buffer("obs", torch.zeros(*step, spec.obs_size, dtype=dtype, device=device))
        self.register_buffer("act", torch.zeros(*step, spec.act_size, dtype=dtype, device=device))
        self.register_buffer("label", torch.full(place, 0.5, dtype=dtype, device=device))
        for name in ("state", "name", "number"):
            self.register_buffer(name, torch.zeros(place, dtype=torch.int64, device=device))
        for name in ("asked", "skipped"):
            self.register_buffer(name, torch.zeros(members, dtype=torch.int64, device=device))

    @property
    def answered(self) -> Tensor:
        """[P] int64, how many questions have an answer."""
        return (self.state == ANSWERED).sum(1)

    @property
    def waiting(self) -> Tensor:
        """[P] int64, how many wait for one."""
        return (self.state == WAITING).sum(1)

    @property
    def room(self) -> Tensor:
        """[P] int64, how many more may be asked."""
        return (self.state == FREE).sum(1)

    def put(self, member: int, obs: Tensor, act: Tensor, names: Sequence[int]) -> None:
        """New questions of a member, which wait from now on: obs [n, 2, T, O], act [n, 2, T, A].

        Raises:
            InputError: more than there is room for.
        """
        free = (self.state[member] == FREE).nonzero().flatten()
        if len(names) > len(free):
            raise InputError(f"member {member} asks {len(names)} questions, expected at most {len(free)}")
        slot = free[: len(names)]
        self.obs[member, slot], self.act[member, slot] = obs, act
        self.name[member, slot] = torch.tensor(names, dtype=torch.int64, device=slot.device)
        self.number[member, slot] = self.asked[member] + torch.arange(len(names), device=slot.device)
        self.state[member, slot] = WAITING
        self.asked[member] += len(names)

    def tell(self, answers: Iterable[tuple[int, float | None]]) -> Tensor:
        """Take in answers by the names of their questions, None being a skip; [P] bool, who learned something.

        Answers to questions that do not wait (any more) are ignored.

        Raises:
            InputError: a label outside [0, 1].
        """
        learned = torch.zeros(len(self.asked), dtype=torch.bool, device=self.asked.device)
        waiting = (self.state == WAITING).nonzero().tolist()
        place = {int(self.name[member, slot]): (member, slot) for member, slot in waiting}
        for name, label in answers:
            if name not in place:
                continue
            member, slot = place.pop(name)
            if label is None:
                self.state[member, slot] = FREE
                self.skipped[member] += 1
            elif 0.0 <= label <= 1.0:
                self.state[member, slot] = ANSWERED
                self.label[member, slot] = label
                learned[member] = True
            else:
                raise InputError(f"the answer to question {name} is {label}, expected a probability or None")
        return learned

    def draw(self, key: Tensor, count: int) -> LabelledPairs:
        """``count`` answered pairs of each member by its key [P], every one with the same probability.

        A member without any gets ties between whatever is there.
        """
        answered = self.state == ANSWERED
        order = answered.logical_not().to(torch.int8).argsort(dim=1, stable=True)  # the answered ones first
        slot = order.gather(1, rng.indices(key, count, answered.sum(1)))  # [P, B]
        member = torch.arange(len(slot), device=slot.device)[:, None]
        label = torch.where(answered[member, slot], self.label[member, slot], 0.5)
        return LabelledPairs(self.obs[member, slot], self.act[member, slot], label)
