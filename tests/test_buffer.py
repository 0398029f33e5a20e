"""The buffer: what it stores, draws, relabels and gives back, before and after the ring wraps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pbrl import rng
from pbrl.data.buffer import Buffer, Replay
from pbrl.data.source import Source
from pbrl.errors import InputError
from pbrl.spec import Spec

from .data_cases import dataset

SPEC = Spec("toy", obs_size=2, act_size=1, horizon=7)
KEYS = rng.keys([0, 1])


def filled(steps: int, capacity: int, *, streams: int = 2, lengths: tuple[int, ...] = (5, 7), **more: Any) -> Buffer:
    """Members 0 and 1 in ``streams`` environments whose episodes have these lengths in turn, the first ending truly.

    An observation is (member, number of the step in its stream + 100 x stream); the reward is that second number.
    """
    buffer = Buffer(SPEC, 2, capacity, streams=streams, **more)
    age, number = [0] * streams, list(range(streams))
    for time in range(steps):
        obs = torch.tensor([[[p, time + 100.0 * n] for n in range(streams)] for p in range(2)])
        end = torch.tensor([age[n] + 1 == lengths[number[n] % len(lengths)] for n in range(streams)])
        true = torch.tensor([number[n] % len(lengths) == 0 for n in range(streams)])
        for n in range(streams):
            age[n] = 0 if end[n] else age[n] + 1
            number[n] += int(end[n])
        flags = [(end & true).expand(2, -1), (end & ~true).expand(2, -1)]
        buffer.add(obs, 0.01 * obs[..., :1], obs[..., 1], obs + torch.tensor([0.0, 1.0]), *flags)
    return buffer


def stored(buffer: Buffer) -> list[list[float]]:
    """Each stream's stored steps, oldest first."""
    column: list[list[float]] = buffer.obs[0, :, 1][buffer.order].T.tolist()
    return column


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 9, 13])
def test_the_ring_keeps_the_last_steps_in_order(steps: int) -> None:
    buffer = filled(steps, capacity=8)
    kept = range(max(0, steps - 4), steps)
    assert stored(buffer) == [[time + 100.0 * n for time in kept] for n in range(2)]
    assert (len(buffer), buffer.env_steps, buffer.length) == (2 * len(kept), 2 * steps, 4)
    for column in (buffer.rew, buffer.env_rew, buffer.next_obs[..., 1] - 1.0, 100 * buffer.act[..., 0] + buffer.rew):
        assert column.shape == (2, len(buffer))
    assert torch.equal(buffer.rew[1], buffer.obs[1, :, 1])
    assert torch.equal(buffer.obs[:, :, 0], torch.tensor([[0.0], [1.0]]).expand(2, len(buffer)))


def test_capacity_is_rounded_up_to_the_streams() -> None:
    assert filled(9, capacity=7, streams=2).length == 4


@pytest.mark.parametrize("steps", [3, 30])
def test_draws_are_rows_of_the_own_member_and_cover_all_that_is_stored(steps: int) -> None:
    buffer = filled(steps, capacity=16)
    batch = buffer.draw({"transitions": 400}, KEYS, 0)["transitions"]
    assert batch.obs.shape == (2, 400, 2)
    assert torch.equal(batch.obs[..., 0], torch.tensor([[0.0], [1.0]]).expand(2, 400))
    assert torch.equal(batch.obs[..., 1], batch.rew)
    assert torch.equal(batch.next_obs[..., 1], batch.obs[..., 1] + 1.0)
    for member in range(2):
        assert set(batch.rew[member].tolist()) == {number for stream in stored(buffer) for number in stream}
    ends = {float(buffer.rew[0, i]) for i in range(len(buffer)) if buffer.term[0, i]}
    assert set(batch.rew[0][batch.term[0] > 0].tolist()) == ends


def test_a_draw_depends_on_key_and_update_alone() -> None:
    wide = filled(20, capacity=16)
    one = wide.draw({"transitions": 5}, KEYS, 17)["transitions"].rew
    wide.draw({"transitions": 5}, KEYS, 3)
    assert torch.equal(wide.draw({"transitions": 5}, KEYS, 17)["transitions"].rew, one)
    assert not torch.equal(wide.draw({"transitions": 5}, KEYS, 18)["transitions"].rew, one)
    swapped = wide.draw({"transitions": 5}, KEYS.flip(0), 17)["transitions"].rew
    assert torch.equal(swapped, one.flip(0))  # both members have the same rewards in each row


@pytest.mark.parametrize("steps", [3, 13])
def test_relabelling_reaches_every_stored_step_and_the_next_draw(steps: int) -> None:
    buffer = filled(steps, capacity=8)
    buffer.draw({"transitions": 4}, KEYS, 0)
    buffer.relabel(lambda obs, act: 1000.0 * obs[..., 0] + obs[..., 1] + act[..., 0])
    expected = 1000.0 * buffer.obs[..., 0] + buffer.obs[..., 1] + buffer.act[..., 0]
    assert torch.equal(buffer.rew, expected)
    assert torch.equal(buffer.env_rew, buffer.obs[..., 1])  # what was paid stays
    batch = buffer.draw({"transitions": 50}, KEYS, 0)["transitions"]
    assert torch.equal(batch.rew, 1000.0 * batch.obs[..., 0] + batch.obs[..., 1] + batch.act[..., 0])


def complete(steps: int, kept: int, stream: int) -> list[list[float]]:
    """By hand: the complete episodes among the last ``kept`` of ``steps`` steps of a stream of ``filled``."""
    found, first, number = [], 0, stream
    while first + (length := (5, 7)[number % 2]) <= steps:
        if first >= steps - kept:
            found.append([time + 100.0 * stream for time in range(first, first + length)])
        first, number = first + length, number + 1
    return found


@pytest.mark.parametrize(("steps", "capacity"), [(4, 60), (12, 60), (29, 60), (30, 60), (31, 40), (44, 40), (57, 26)])
def test_episodes_are_complete_and_contiguous_also_after_the_wrap(steps: int, capacity: int) -> None:
    buffer = filled(steps, capacity=capacity)
    expected = [episode for stream in range(2) for episode in complete(steps, min(steps, capacity // 2), stream)]
    for member in range(2):
        found = [buffer.obs[member, rows, 1].tolist() for rows in buffer.episodes(member)]
        assert sorted(found) == sorted(expected)
        ends = [episode[-1] % 100 for episode in found]
        assert ends == sorted(ends)


@pytest.mark.parametrize(("steps", "capacity"), [(29, 60), (31, 40), (57, 26)])
@pytest.mark.parametrize("recent", [None, 1, 2, 100])
def test_windows_lie_in_complete_recent_episodes(steps: int, capacity: int, recent: int | None) -> None:
    buffer = filled(steps, capacity=capacity)
    found = buffer.windows(KEYS, 600, 4, recent=recent)
    episodes = [buffer.obs[0, rows, 1].tolist() for rows in buffer.episodes(0)][-recent if recent else 0 :]
    expected = {tuple(episode[i : i + 4]) for episode in episodes for i in range(len(episode) - 3)}
    for member in range(2):
        assert set(map(tuple, found.obs[member, :, :, 1].tolist())) == expected
    assert torch.equal(found.obs[..., 0], torch.tensor([0.0, 1.0])[:, None, None].expand(2, 600, 4))
    assert torch.equal(found.rew, found.obs[..., 1])
    assert torch.equal(found.last_obs[..., 1], found.obs[:, :, -1, 1] + 1.0)
    last = {(float(number), bool(end)) for number, end in zip(buffer.rew[0], buffer.term[0])}
    assert {(float(n), bool(t)) for n, t in zip(found.rew[0, :, -1], found.term[0])} <= last
    assert torch.equal(found.row, 2 * (found.obs[:, :, 0, 1] % 100).long() + found.obs[:, :, 0, 1].long() // 100)


def test_windows_pay_what_the_environment_paid() -> None:
    buffer = filled(29, capacity=60)
    buffer.relabel(lambda obs, act: obs[..., 1] - 500.0)
    assert buffer.windows(KEYS, 20, 3).rew.min() >= 0.0


@pytest.mark.parametrize(("steps", "length"), [(4, 2), (29, 8), (29, 0)])
def test_no_complete_episode_of_that_length(steps: int, length: int) -> None:
    with pytest.raises(InputError, match="no complete episode of"):
        filled(steps, capacity=60).windows(KEYS, 3, length)


# --- together with a data set -----------------------------------------------------------------------------------------


def recorded() -> Source:
    """Forty transitions whose rewards are negative."""
    data = dataset((20, 20), "xx")
    data = data.with_reward(-1.0 - torch.arange(40.0))
    source = Source.of(data)
    assert source.steps is not None
    return Source(2, data, torch.cat([source.steps[:, :2], source.steps[:, -4:]], dim=1), source.rew)


def share(buffer: Buffer, count: int = 1000) -> float:
    """Which share of a batch comes from the data set."""
    return float((buffer.draw({"transitions": count}, KEYS, 0)["transitions"].rew < 0).double().mean())


def test_prefill_draws_every_step_with_the_same_probability() -> None:
    assert share(filled(0, 60, data=recorded())) == 1.0
    assert share(filled(30, 40, data=recorded())) == pytest.approx(0.5, abs=0.05)
    assert share(filled(5, 60, data=recorded())) == pytest.approx(0.8, abs=0.05)
    batch = filled(30, 40, data=recorded()).draw({"transitions": 2000}, KEYS, 5)["transitions"]
    assert set(batch.rew[0][batch.rew[0] < 0].tolist()) == set((-1.0 - torch.arange(40.0)).tolist())
    fresh = batch.rew[1] >= 0
    assert torch.equal(batch.obs[1, fresh, 1], batch.rew[1, fresh])  # rows of both kinds are not confused


def test_empty_never_draws_from_the_data() -> None:
    assert share(filled(5, 60, data=recorded(), replay=Replay("empty"))) == 0.0
    with pytest.raises(InputError, match="nothing has been collected yet"):
        share(filled(0, 60, data=recorded(), replay=Replay("empty")))


def test_mixed_takes_an_exact_share() -> None:
    assert share(filled(5, 60, data=recorded(), replay=Replay("mixed", 0.25))) == 0.25
    assert share(filled(0, 60, data=recorded(), replay=Replay("mixed", 0.25))) == 1.0
    assert share(filled(5, 60, data=recorded(), replay=Replay("mixed", 1.0))) == 1.0
    assert share(filled(5, 60, data=recorded(), replay=Replay("mixed", 0.0))) == 0.0


def test_the_share_is_annealed_by_environment_steps() -> None:
    replay = Replay("mixed", 0.8, 0.2, anneal=20)  # two streams: ten steps of each
    assert share(filled(5, 60, data=recorded(), replay=replay)) == pytest.approx(0.5)
    assert share(filled(10, 60, data=recorded(), replay=replay)) == pytest.approx(0.2)
    assert share(filled(20, 60, data=recorded(), replay=replay)) == pytest.approx(0.2)


# --- kept elsewhere ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 3, 13, 57])
def test_a_restored_buffer_is_the_same_and_goes_on_the_same(steps: int) -> None:
    first, second = filled(steps, 26), Buffer(SPEC, 2, 26, streams=2)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for buffer in (first, second):
        obs = torch.full((2, 2, 2), 999.0)
        no = torch.zeros(2, 2, dtype=torch.bool)
        buffer.add(obs, obs[..., :1] * 0, obs[..., 0], obs, no, no)
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    ours, theirs = (buffer.draw({"transitions": 9}, KEYS, 4)["transitions"] for buffer in (first, second))
    assert torch.equal(ours.obs, theirs.obs)


def test_the_state_of_another_buffer_is_refused() -> None:
    with pytest.raises(RuntimeError, match="other sizes"):
        Buffer(SPEC, 2, 60, streams=2).load_state_dict(filled(57, 26).state_dict())


@pytest.mark.parametrize(("steps", "capacity"), [(29, 60), (31, 40)])
def test_export_as_a_data_set(steps: int, capacity: int) -> None:
    buffer = filled(steps, capacity)
    buffer.relabel(lambda obs, act: 0.0 * obs[..., 1])
    made = buffer.to_dataset(1, name="mine", env="Toy-v0", info={"seed": 3})
    kept = min(steps, capacity // 2)
    numbers = [time + 100.0 * n for n in range(2) for time in range(steps - kept, steps)]
    assert made.obs[:, 1].tolist() == made.rew.tolist() == numbers
    assert bool((made.obs[:, 0] == 1.0).all())
    assert (made.name, made.env, made.info["seed"], made.info["horizon"]) == ("mine", "Toy-v0", 3, 7)
    ends = [number for number, end in zip(numbers, made.term | made.trunc) if end]
    whole = [episode[-1] for n in range(2) for episode in complete(steps, steps, n) if episode[-1] in numbers]
    assert ends == sorted({*whole, steps - 1.0, steps + 99.0})
    assert not (made.term & made.trunc).any()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_sizes() -> None:
    for sizes in ((0, 5, 1), (2, 0, 1), (2, 5, 0)):
        with pytest.raises(InputError, match="expected at least 1"):
            Buffer(SPEC, sizes[0], sizes[1], streams=sizes[2])
    with pytest.raises(InputError, match="no data set"):
        Buffer(SPEC, 2, 5, replay=Replay("prefill"))
    with pytest.raises(InputError, match=r"share is 1\.5"):
        Replay("mixed", 1.5)
    with pytest.raises(InputError, match="expected a last share"):
        Replay("mixed", 0.5, anneal=3)
    empty = Buffer(SPEC, 2, 6, streams=2)
    obs, act, flags = torch.zeros(2, 3, 2), torch.zeros(2, 3, 1), torch.zeros(2, 3)
    with pytest.raises(InputError, match="steps have shapes"):
        empty.add(obs, act, flags, obs, flags, flags)
    with pytest.raises(InputError, match="the data set has 3 observations and 2 actions, expected 2 and 1"):
        Buffer(SPEC, 2, 6, data=Source.of(dataset((20, 20), "xx")))
    with pytest.raises(InputError, match="draws pairs"):
        filled(3, 8).draw({"pairs": 3}, KEYS, 0)
