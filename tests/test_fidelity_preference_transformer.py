"""The Preference Transformer: it looks back only, padding is masked, it learns what no Markov reward can. PT + IQL."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.offline.iql import IQL
from agents.preference.preference_transformer import PreferenceTransformer, PreferenceTransformerConfig
from agents.preference.pt_iql import PTIQL, PTIQLConfig
from agents.preference.reward_model import RewardModel, RewardModelConfig
from pbrl import losses, rng
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.histories import Cover, relabel
from pbrl.data.source import LabelledPairs, Source
from pbrl.errors import InputError
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import offline
from pbrl.members import sweep
from pbrl.spec import Spec

DOUBLE = torch.float64
KEY = rng.keys([90])[0]
SPEC = Spec("test", 3, 2)
SMALL: dict[str, Any] = {"width": 16, "heads": 2, "layers": 2, "longest": 12, "batch_size": 8}


def model(seeds: int = 2, dtype: torch.dtype = torch.float32, **changes: Any) -> PreferenceTransformer:
    """With larger weights than at the start, so that attention is not nearly uniform."""
    config = PreferenceTransformerConfig(**(SMALL | changes))
    learner = PreferenceTransformer(SPEC, sweep(config, range(seeds), dtype=dtype))
    with torch.no_grad():
        for i, parameter in enumerate(p for p in learner.net.parameters() if p.requires_grad):
            parameter.add_(0.3 * rng.normal(rng.fold(learner.keys, "move", i), *parameter.shape[1:], dtype=dtype))
    return learner


def segments(count: int, length: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """obs [2, count, length, 3], act [2, count, length, 2]."""
    keys = rng.fold(rng.keys([4, 5]), length)
    obs = rng.normal(rng.fold(keys, "obs"), count, length, 3, dtype=dtype)
    return obs, 2 * rng.uniform(rng.fold(keys, "act"), count, length, 2, dtype=dtype) - 1


def there(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


# --- what a reward sees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [True, False])
def test_what_comes_later_changes_no_bit_of_a_reward(attention: bool) -> None:
    learner = model(preference_attention=attention)
    obs, act = segments(6, 9)
    before = learner.rewards(obs, act)
    for step in range(1, 9):
        later_obs, later_act = obs.clone(), act.clone()
        later_obs[:, :, step:] += 5.0
        later_act[:, :, step:] *= -1.0
        after = learner.rewards(later_obs, later_act)
        assert torch.equal(after[..., :step], before[..., :step])
        assert bool((after[..., step:] != before[..., step:]).all())
    assert bool((learner.judge(later_obs, later_act) != learner.judge(obs, act)).all())


def test_a_reward_depends_on_the_history_and_on_its_own_action() -> None:
    learner = model()
    obs, act = segments(6, 9)
    before = learner.rewards(obs, act)
    obs[:, :, 2] += 1.0
    assert bool((learner.rewards(obs, act)[..., 3:] != before[..., 3:]).all())
    last = act.clone()
    last[:, :, -1] *= -1.0
    assert bool((learner.rewards(obs, last)[..., -1] != learner.rewards(obs, act)[..., -1]).all())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("aggregate", ["mean", "sum"])
@pytest.mark.parametrize("attention", [True, False])
def test_padding_changes_nothing(attention: bool, aggregate: Any, side: str) -> None:
    """On the reference this fails: its mask subtracts a ten-thousandth. Places count from the first real step."""
    learner = model(preference_attention=attention, aggregate=aggregate)
    obs, act = segments(6, 8)
    score, reward = learner.judge(obs, act), learner.rewards(obs, act)
    for count in (1, 4):
        junk = 100.0 * torch.ones(2, 6, count, 5)
        real, none = there(2, 6, 8), ~there(2, 6, count)
        parts = [(obs, junk[..., :3]), (act, junk[..., 3:]), (real, none)]
        long_obs, long_act, present = (torch.cat(x if side == "right" else x[::-1], dim=2) for x in parts)
        torch.testing.assert_close(learner.judge(long_obs, long_act, present), score, rtol=1e-5, atol=1e-6)
        found = learner.rewards(long_obs, long_act, present)
        kept = found[..., :8] if side == "right" else found[..., count:]
        torch.testing.assert_close(kept, reward, rtol=1e-5, atol=1e-6)


def test_the_score_is_the_mean_of_rewards_weighed_by_attention() -> None:
    """By loops over steps, from the queries, keys and rewards that the network reads at the actions."""
    learner = model(1, dtype=DOUBLE)
    obs, act = (x[:1, :3] for x in segments(3, 5, DOUBLE))
    net, seen = learner.net, there(1, 3, 5)
    hidden = net.transformer(net.tokens(obs, act, seen))[:, :, 1::2].detach()
    query = (hidden @ net.query.weight[:, None] + net.query.bias[:, None])[0].detach()
    key_reward = (hidden @ net.key_reward.weight[:, None])[0].detach()
    keys, reward = key_reward[..., :-1], key_reward[..., -1]
    for segment in range(3):
        total = 0.0
        for t in range(5):
            logits = [float(query[segment, t] @ keys[segment, i]) / math.sqrt(16) for i in range(5)]
            share = [math.exp(x) for x in logits]
            total += sum(w * float(r) for w, r in zip(share, reward[segment])) / sum(share) / 5
        assert float(learner.judge(obs, act)[0, segment]) == pytest.approx(total, rel=1e-12)
    torch.testing.assert_close(learner.rewards(obs, act)[0], reward, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", [True, False])
def test_the_mean_of_t_times_the_reward_is_the_sum(attention: bool) -> None:
    """Aggregation is a temperature: the same preferences, and the same loss, by rewards T times as large."""
    one, other = (model(dtype=DOUBLE, aggregate=a, preference_attention=attention) for a in ("sum", "mean"))
    with torch.no_grad():
        other.net.key_reward.weight[..., -1] *= 9.0
    obs, act = segments(4, 9, DOUBLE)
    torch.testing.assert_close(other.judge(obs, act), one.judge(obs, act), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.rewards(obs, act), 9.0 * one.rewards(obs, act), rtol=1e-12, atol=1e-12)


def test_one_step_is_the_first_of_its_history() -> None:
    learner = model()
    obs, act = segments(4, 7)
    first = learner.rewards(obs, act)[..., 0]
    torch.testing.assert_close(learner.reward(obs[:, :, 0], act[:, :, 0]), first, rtol=1e-5, atol=1e-6)


def test_attended_rewards_are_the_last_terms_of_the_scores_of_segments_that_end_there() -> None:
    learner = model()
    obs, act = segments(6, 7)
    found = learner.attended(obs, act)
    for end in range(1, 8):
        part = (obs[:, :, :end], act[:, :, :end])
        with torch.no_grad():
            z = learner.net(*part, there(2, 6, end))[1]
        torch.testing.assert_close(found[..., end - 1], z[..., -1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[..., 0], learner.rewards(obs, act)[..., 0], rtol=1e-5, atol=1e-6)
    obs[:, :, 4:] += 5.0
    assert torch.equal(learner.attended(obs, act)[..., :4], found[..., :4])
    plain = model(preference_attention=False)
    assert torch.equal(plain.attended(obs, act), plain.rewards(obs, act))


def test_a_reward_that_nobody_attends_to_is_anything_and_the_attended_one_is_not() -> None:
    """Attention goes to steps above a level alone. The rewards of others show in no score, and z leaves them out."""
    learner = model(1, width=16, layers=1)
    obs, act = (x[:1] for x in segments(40, 6))
    with torch.no_grad():
        net = learner.net
        hidden = net.transformer(net.tokens(obs, act, there(1, 40, 6)))[:, :, 1::2].flatten(1, 2)
        centred = hidden - hidden.mean(1, keepdim=True)
        kind = torch.linalg.svd(centred, full_matrices=False).Vh[:, 0]  # [1, D] what the steps differ most by
        side = (centred @ kind[..., None]).squeeze(-1).unflatten(1, (40, 6))
        net.query.weight.zero_()
        net.query.bias.fill_(4.0)
        weight, level = net.key_reward.weight, float((hidden.mean(1) * kind).sum())
        weight.zero_()
        weight[0, :, :-1] = 20.0 * kind[0, :, None]  # keys: attention goes to the side above
        weight[0, :, -1] = kind[0]
    clear = side.abs().amin(-1) > 0.05  # segments whose steps are all on one side or the other
    mixed = clear & (side > 0).any(-1) & (side < 0).any(-1)
    assert int(mixed.sum()) > 3
    reward, z = learner.rewards(obs, act)[mixed], learner.attended(obs, act)[mixed]
    behind = (side[mixed] < 0) & ((side[mixed] > 0).cumsum(-1) > 0)  # below, after a step above
    assert bool((reward[behind] < level).all())
    assert bool((z[behind] > level).all())


def test_large_batches_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = model()
    obs, act = segments(7, 9)
    score = learner.judge(obs, act)
    monkeypatch.setattr("agents.preference.preference_transformer._ATTENTION", 2 * 2 * 18**2 * 3)
    torch.testing.assert_close(learner.judge(obs, act), score, rtol=1e-5, atol=1e-6)


# --- what it learns ---------------------------------------------------------------------------------------------------


def key_and_door(word: str, count: int, members: int) -> LabelledPairs:
    """Ten steps with a key at one of them and a door at another; a door pays where the key was there before.

    Both segments of a pair have one key, one door and otherwise noise, so that states and actions tell nothing apart.
    """
    key, steps = rng.fold(KEY, word), torch.arange(2 * count)
    times = rng.permutation(rng.fold(rng.fold(key, "when").expand(2 * count), steps), 10)[:, :2].sort(1).values
    second = rng.uniform(rng.fold(key, "label"), count) < 0.5
    good = torch.stack([~second, second], dim=1).flatten()
    obs = torch.zeros(2 * count, 10, 3)
    obs[steps, torch.where(good, times[:, 0], times[:, 1]), 0] = 1.0
    obs[steps, torch.where(good, times[:, 1], times[:, 0]), 1] = 1.0
    obs[..., 2] = rng.normal(rng.fold(key, "noise"), 2 * count, 10)
    act = 2 * rng.uniform(rng.fold(key, "act"), 2 * count, 10, 2) - 1
    parts = (obs.unflatten(0, (count, 2)), act.unflatten(0, (count, 2)), second.float())
    return LabelledPairs(*(x.expand(members, *x.shape) for x in parts))


def unseen_accuracy(learner: PreferenceTransformer | RewardModel, updates: int) -> list[float]:
    """[P] on 500 pairs, after training on batches of 1000 others."""
    data, test = (key_and_door(word, count, len(learner.keys)) for word, count in (("train", 1000), ("test", 500)))
    for update in range(updates):
        row = rng.indices(rng.fold(KEY, "batch", update), 64, 1000)
        learner.update({"pairs": LabelledPairs(data.obs[:, row], data.act[:, row], data.label[:, row])})
    score = learner.judge(test.obs.flatten(1, 2), test.act.flatten(1, 2)).unflatten(-1, (-1, 2))
    found: list[float] = losses.accuracy(score[..., 1] - score[..., 0], test.label).tolist()
    return found


def test_it_learns_a_reward_that_no_reward_of_states_can_be() -> None:
    changes: dict[str, Any] = {"width": 32, "heads": 4, "layers": 1, "dropout": 0.0, "lr": 3e-3, "decay_updates": 100}
    config = PreferenceTransformerConfig(**(SMALL | changes | {"batch_size": 64}))
    transformer = PreferenceTransformer(SPEC, sweep(config, [0]))
    markov = RewardModel(SPEC, sweep(RewardModelConfig(hidden=(32, 32), ensemble=1, batch_size=64, lr=1e-3), [0, 1]))
    assert min(unseen_accuracy(transformer, 80)) > 0.95
    assert max(unseen_accuracy(markov, 300)) <= 0.6


@pytest.mark.parametrize("attention", [True, False])
def test_the_gradient_by_finite_differences(attention: bool) -> None:
    learner = model(1, dtype=DOUBLE, preference_attention=attention, width=8, layers=1)
    obs, act = segments(8, 5, DOUBLE)
    label = rng.uniform(rng.fold(KEY, "y"), 4, dtype=DOUBLE)[None]
    pairs = LabelledPairs(obs[:1].unflatten(1, (4, 2)), act[:1].unflatten(1, (4, 2)), label)
    parameters = [p for p in learner.net.parameters() if p.requires_grad]
    loss, metrics = learner._loss(pairs, learner.keys)
    score = learner._score(obs[:1], act[:1], there(1, 8, 5), learner.keys).reshape(4, 2).detach()
    by_hand = losses.bradley_terry(score[:, 1] - score[:, 0], label[0]).mean()
    torch.testing.assert_close(metrics["loss_reward"][0], by_hand, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(loss.sum(), parameters)
    directions = [rng.normal(rng.fold(KEY, "direction", i), *p.shape, dtype=DOUBLE) for i, p in enumerate(parameters)]

    def moved(by: float) -> Tensor:
        with torch.no_grad():
            for p, d in zip(parameters, directions):
                p.add_(by * d)
            found = learner._loss(pairs, learner.keys)[0]
            for p, d in zip(parameters, directions):
                p.sub_(by * d)
        return found[0]

    ours = torch.stack([(g * d).sum() for g, d in zip(grads, directions)]).sum()
    torch.testing.assert_close(ours, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("update", "scale"), [(0, 0.1), (5, 0.55), (10, 1.0), (55, 0.55), (100, 0.1), (900, 0.1)])
def test_the_learning_rate_rises_and_falls_along_a_cosine(update: int, scale: float) -> None:
    assert model(decay_updates=100).scale(update) == pytest.approx(scale, abs=1e-12)


def test_segments_longer_than_the_longest_raise_before_training() -> None:
    data = walk([20, 20])
    source = Source.of(data, answered(data, 13))
    with pytest.raises(InputError, match="segments have 13 steps, expected at most longest = 12"):
        next(offline(model(), source, 1, every=1))
    with pytest.raises(InputError, match="expected a multiple of heads"):
        PreferenceTransformerConfig(width=10, heads=4)


# --- relabelling ------------------------------------------------------------------------------------------------------


def walk(lengths: list[int]) -> Dataset:
    count = sum(lengths)
    obs = rng.normal(rng.fold(KEY, "walk"), count, 3)
    act = 2 * rng.uniform(rng.fold(KEY, "steps"), count, 2) - 1
    trunc = torch.zeros(count, dtype=torch.bool)
    trunc[torch.tensor(lengths).cumsum(0) - 1] = True
    return Dataset.from_arrays(obs, act, act[:, 0], torch.zeros_like(trunc), trunc, obs)


def answered(data: Dataset, length: int) -> Preferences:
    return partial_return_labeler()(Pairs.sample(data, 60, length, rng.fold(KEY, "pairs")), KEY)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("lengths", [[7], [5], [3], [1], [12, 1, 5, 6, 4, 20]])
def test_every_row_is_read_once_with_all_the_history_that_there_is(lengths: list[int], stride: int) -> None:
    data, length = walk(lengths), 5
    cover = Cover.of(data, length, stride)
    rows = torch.arange(len(data))
    assert torch.equal(cover.rows[cover.window, cover.place], rows)
    assert bool((cover.window.diff() >= 0).all())
    assert sorted(set(cover.window.tolist())) == list(range(len(cover.rows)))  # no window in vain
    offset = torch.cat([torch.arange(n) for n in lengths])
    episode = torch.repeat_interleave(torch.tensor(lengths))
    assert bool((cover.place >= torch.minimum(offset, torch.tensor(length - stride))).all())
    assert bool((cover.place <= torch.minimum(offset, torch.tensor(length - 1))).all())
    for window, row in zip(cover.rows, cover.rows[:, 0]):
        assert len(set(episode[window].tolist())) == 1
        assert bool(((window.diff() == 1) | (window[1:] == data.start[episode[row]] + lengths[episode[row]] - 1)).all())


@pytest.mark.parametrize("stride", [1, 4])
def test_relabelled_rewards_are_those_of_each_rows_own_window(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pbrl.data.histories._STEPS", 30)  # several parts
    learner, data = model(), walk([12, 1, 5, 6, 30])
    learner.length.value = 6
    found = learner.relabel(data, stride)
    assert found.shape == (2, 54)
    starts = {int(s): int(n) for s, n in zip(data.start, data.lengths)}
    for start, count in starts.items():
        for t in range(count):
            late = max(0, t - 5)  # the paper's: the last six steps, or all that there are
            if t >= 6:
                late = -(-(t - 5) // stride) * stride
                late = min(late, count - 6)
            history = slice(start + late, start + t + 1)
            alone = learner.rewards(*(x[history].expand(2, 1, -1, -1) for x in (data.obs, data.act)))
            torch.testing.assert_close(found[:, start + t], alone[:, 0, -1], rtol=1e-5, atol=1e-5)


def test_a_sum_over_the_window_by_relabelling() -> None:
    """A reward that counts the steps of its history and adds up its first action, against a moving sum."""

    def counting(obs: Tensor, act: Tensor) -> Tensor:
        return act[..., 0].cumsum(-1) + 10.0 * torch.ones_like(obs[..., 0]).cumsum(-1)

    data = walk([9, 2, 4])
    found = relabel(counting, data, rng.keys([1, 2, 3]), window=4, dtype=DOUBLE)
    assert found.shape == (3, 15)
    for start, count in ((0, 9), (9, 2), (11, 4)):
        for t in range(count):
            first = max(0, t - 3)
            expected = 10.0 * (t + 1 - first) + float(data.act[start + first : start + t + 1, 0].double().sum())
            assert float(found[1, start + t]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("length", "stride", "message"), [(0, 1, "at least 1"), (4, 5, "1 to 4"), (4, 0, "1 to 4")])
def test_impossible_windows_raise(length: int, stride: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cover.of(walk([6]), length, stride)


# --- PT + IQL ---------------------------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "hidden": (16,), "batch_size": 32, "lr": 3e-3, "gamma": 0.0, "temperature": 10.0, "actor_decay": 0,
    "reward_width": 8, "reward_heads": 2, "reward_batch_size": 32, "reward_updates": 60, "reward_lr": 1e-2,
}  # fmt: skip


def trained(source: Source, updates: int, members: int = 1, **changes: Any) -> PTIQL:
    learner = PTIQL(SPEC, sweep(PTIQLConfig(**(TINY | changes)), [0] * members))
    for _ in offline(learner, source, updates, every=updates):
        pass
    return learner


def test_the_policy_follows_the_labels() -> None:
    data = walk([10] * 60)
    preferences = answered(data, 4)
    flipped = Preferences(preferences.pairs, 1.0 - preferences.label, preferences.by)
    learner = trained(Source.of(data, [preferences, flipped]), 400, 2)
    high, low = learner.act(torch.zeros(2, 1, 3))[:, 0, 0].tolist()
    assert high > 0.2
    assert low < -0.2


def test_iql_gets_the_rewards_by_history_scaled_and_shifted() -> None:
    data = walk([10] * 20)
    source = Source.of(data, answered(data, 4))
    settings: dict[str, Any] = {"reward_bias": 0.5, "relabel_stride": 2, "reward_updates": 3, "relabel_attended": False}
    learner = trained(source, 3, 2, **settings)
    assert learner.wants() == {"transitions": 32}
    found = learner.prepare(source).rew
    raw = learner.model.relabel(data, 2)
    assert learner.model.length.value == 4
    returns = raw.reshape(2, 20, 10).sum(2)
    span = (returns.amax(1) - returns.amin(1))[:, None]
    torch.testing.assert_close(found, raw * 10 / span + 0.5)
    history = (x[10:14].expand(2, 1, -1, -1) for x in (data.obs, data.act))  # the second episode's first steps
    torch.testing.assert_close(raw[:, 10:14], learner.model.rewards(*history)[:, 0], rtol=1e-5, atol=1e-5)
    plain = trained(source, 3, 2, **(settings | {"rewards": "raw", "reward_bias": 0.0}))
    torch.testing.assert_close(plain.prepare(source).rew, raw)


def test_iql_gets_the_attended_rewards() -> None:
    data = walk([10] * 20)
    source = Source.of(data, answered(data, 4))
    settings: dict[str, Any] = {"rewards": "raw", "reward_updates": 30, "relabel_stride": 2}
    learner = trained(source, 30, 2, **settings)
    raw = learner.prepare(source).rew
    assert raw is not None
    torch.testing.assert_close(raw, learner.model.relabel(data, 2, attended=True))
    assert not torch.allclose(raw, learner.model.relabel(data, 2), atol=1e-4)
    history = (x[10:14].expand(2, 1, -1, -1) for x in (data.obs, data.act))  # the second episode's first steps
    torch.testing.assert_close(raw[:, 10:14], learner.model.attended(*history)[:, 0], rtol=1e-5, atol=1e-5)


def test_the_second_stage_is_iql_and_never_reads_the_true_reward() -> None:
    data = walk([10] * 20)
    preferences = answered(data, 4)
    source, lie = Source.of(data, preferences), Source.of(data.with_reward(-100.0 * data.rew), preferences)
    one, other = trained(source, 70), trained(lie, 70)
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    learner = trained(source, 60)
    alone = IQL(SPEC, sweep(learner.config, [0]))
    relabelled = learner.prepare(source)
    for update in range(60, 70):
        alone.update(relabelled.draw(alone.wants(), alone.keys, update))
    for ours, theirs in zip(one.iql.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_cannot_be_relabelled_raises_before_training() -> None:
    data = walk([10] * 20)
    with pytest.raises(InputError, match="relabel_stride is 5 but segments have 4 steps"):
        trained(Source.of(data, answered(data, 4)), 1, relabel_stride=5)
    with pytest.raises(InputError, match="segments have 4 steps, expected at most longest = 3"):
        trained(Source.of(data, answered(data, 4)), 1, reward_longest=3)
    with pytest.raises(InputError, match="pt_iql learns from transitions too"):
        trained(Source.of(preferences=answered(data, 4)), 1)
    with pytest.raises(InputError, match="reward_lr is 0"):
        PTIQLConfig(reward_lr=0.0)
