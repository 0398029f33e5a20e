"""OPPO: its losses against numbers worked out by hand, its memory, its budget of labels, and a choice of velocities."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.preference.oppo import OPPO, OPPOConfig, length_penalty, mean_error
from pbrl import losses, rng
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.data.preferences import By
from pbrl.data.source import Source
from pbrl.data.windows import Compared, Windows, halves, returns_ahead
from pbrl.errors import InputError
from pbrl.loops import offline
from pbrl.members import sweep
from pbrl.nets.sequences import Layout, StackedSegmentEncoder, StackedSequencePolicy
from pbrl.spec import Spec

from .contract import tiny_data, weights

DOUBLE = torch.float64
SPEC = Spec("test", 3, 2)
KEYS = rng.keys([0, 1])
SMALL: dict[str, Any] = {
    "width": 8,
    "layers": 1,
    "encoder_heads": 2,
    "policy_heads": 1,
    "context": 4,
    "code_size": 3,
    "batch_size": 6,
    "dropout": 0.0,
    "warmup": 0,
    "lr": 1e-2,
}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def learner(members: int = 2, spec: Spec = SPEC, **changes: Any) -> OPPO:
    return OPPO(spec, sweep(OPPOConfig(**{**SMALL, **changes}), range(members), dtype=DOUBLE))


def steps(count: int, length: int, members: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Random obs [P, M, T, 3], act [P, M, T, 2], and present: everything."""
    key = rng.keys(range(members))
    obs = rng.normal(rng.fold(key, "obs"), count, length, 3, dtype=DOUBLE)
    act = 2.0 * rng.uniform(rng.fold(key, "act"), count, length, 2, dtype=DOUBLE) - 1.0
    return obs, act, torch.ones(members, count, length, dtype=torch.bool)


# --- networks ---------------------------------------------------------------------------------------------------------


def encoder(longest: int = 4) -> StackedSegmentEncoder:
    return StackedSegmentEncoder(KEYS, 3, 2, 5, Layout(8, 2, 2, longest, None, DOUBLE))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("extra", [1, 3])
def test_padding_does_not_change_a_context(extra: int, left: bool) -> None:
    net, (obs, act, present) = encoder(longest=6), steps(5, 3)
    rubbish = [100.0 * torch.ones(2, 5, extra, size, dtype=DOUBLE) for size in (3, 2)]
    absent = torch.zeros(2, 5, extra, dtype=torch.bool)
    joined = [
        torch.cat((padding, x) if left else (x, padding), 2)
        for x, padding in ((obs, rubbish[0]), (act, rubbish[1]), (present, absent))
    ]
    padded = net(*joined)
    torch.testing.assert_close(padded, net(obs, act, present), rtol=1e-9, atol=1e-9)
    unmasked = net(joined[0], joined[1], torch.ones_like(joined[2]))
    assert not torch.allclose(unmasked, padded, atol=1e-3), "without the mask padding would be read"


def test_a_long_segment_is_the_mean_over_its_pieces() -> None:
    net, (obs, act, present) = encoder(longest=4), steps(5, 6)
    parts = [net(obs[:, :, part], act[:, :, part], present[:, :, part]) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(net(obs, act, present), (parts[0] + parts[1]) / 2, rtol=1e-9, atol=1e-9)
    obs, act, present = steps(5, 5)  # pieces of 3 and 2 steps
    parts = [net(obs[:, :, part], act[:, :, part], present[:, :, part]) for part in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(net(obs, act, present), 0.6 * parts[0] + 0.4 * parts[1], rtol=1e-9, atol=1e-9)


def test_a_context_depends_on_the_order_of_steps_and_on_all_of_them() -> None:
    net, (obs, act, present) = encoder(), steps(5, 4)
    code = net(obs, act, present)
    assert not torch.allclose(net(obs.flip(2), act.flip(2), present), code, atol=1e-6)
    for t in range(4):
        other = act.clone()
        other[:, :, t] *= -1.0
        assert not torch.allclose(net(obs, other, present), code, atol=1e-6)


def test_the_policy_sees_the_past_the_code_and_no_future() -> None:
    net = StackedSequencePolicy(KEYS, 3, 2, 5, Layout(8, 2, 1, 4, None, DOUBLE))
    obs, act, present = steps(5, 4)
    code = rng.normal(KEYS, 5, 5, dtype=DOUBLE)
    guess, guessed_next = net(obs, act, present, code)
    for t in range(4):
        other_act, other_obs = act.clone(), obs.clone()
        other_act[:, :, t] *= -1.0
        other_obs[:, :, t] *= -1.0
        by_act, next_by_act = net(obs, other_act, present, code)
        by_obs, _ = net(other_obs, act, present, code)
        assert torch.equal(by_act[:, :, : t + 1], guess[:, :, : t + 1]), "an action is not read before it is taken"
        assert torch.equal(next_by_act[:, :, :t], guessed_next[:, :, :t])
        assert not torch.equal(next_by_act[:, :, t], guessed_next[:, :, t])
        assert torch.equal(by_obs[:, :, :t], guess[:, :, :t])
        assert not torch.equal(by_obs[:, :, t], guess[:, :, t])
    assert not torch.allclose(net(obs, act, present, code + 1.0)[0], guess, atol=1e-4)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    codes = torch.tensor([[[3.0, 4.0], [0.6, 0.0]]], dtype=DOUBLE)  # of lengths 5 and 0.6
    assert length_penalty(codes, "square").item() == pytest.approx((16.0 + 0.16) / 2)
    assert length_penalty(codes, "hinge").item() == pytest.approx(4.0 / 2)
    first, second = numbers(2.0, 2.0, 2.0, 2.0), numbers(1.5, 1.5, 0.5, 1.5)
    label = numbers(1.0, 0.0, 1.0, 0.5)
    # d+ - d- + 1 is 0.5; 1.5; -0.5, satisfied; a tie: half of |d1 - d2|.
    assert losses.triplet(first, second, label, 1.0).tolist() == pytest.approx([0.5, 1.5, 0.0, 0.25])
    # P = 3/4: margin 1/2, so 3/4 max(0, -0.5 + 0.5) + 1/4 max(0, 0.5 + 0.5)
    assert losses.triplet(numbers(2.0), numbers(1.5), numbers(0.75), 1.0).tolist() == pytest.approx([0.25])
    guess, target = torch.zeros(1, 1, 3, 2, dtype=DOUBLE), torch.ones(1, 1, 3, 2, dtype=DOUBLE)
    target[0, 0, 0] = 50.0
    target[0, 0, 2] = 2.0
    assert mean_error(guess, target, torch.tensor([[[False, True, True]]])).item() == pytest.approx((1.0 + 4.0) / 2)


def test_the_preference_gradient_on_the_optimal_context() -> None:
    """Zero where the margin is satisfied, else away from z- and towards z+ by unit vectors."""
    star = numbers(0.3, -0.2).requires_grad_()
    for codes, satisfied in (([[0.9, 0.3], [0.5, 0.4]], False), ([[5.0, 1.0], [0.3, -0.1]], True)):
        minus, plus = (torch.tensor(row, dtype=DOUBLE) for row in codes)
        first, second = (star - minus).norm(), (star - plus).norm()
        (grad,) = torch.autograd.grad(losses.triplet(first, second, numbers(1.0), 1.0).sum(), [star])
        unit = [(star - end).detach() / (star - end).norm().detach() for end in (plus, minus)]
        expected = torch.zeros(2, dtype=DOUBLE) if satisfied else unit[0] - unit[1]
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)


def compared(label: Tensor, length: int = 4) -> Compared:
    obs, act, present = steps(12, length)
    apart = [x.unflatten(1, (6, 2)) for x in (obs, act, present)]
    return Compared(apart[0], apart[1], apart[2], label.expand(2, 6))


def test_each_step_follows_its_own_loss() -> None:
    pairs = compared(numbers(1.0, 0.0, 0.5, 1.0, 1.0, 0.0), length=6)
    free = learner(preference_weight=0.0, norm_weight=0.0)
    other = learner(preference_weight=0.0, norm_weight=0.0)
    with torch.no_grad():
        other.star.add_(1.0)
    key = rng.fold(KEYS, "key")
    for one in (learner(preference_weight=0.7), free, other):
        loss, found = one._context_losses(pairs, key)
        grads = torch.autograd.grad(loss.sum(), [*one.encoder.parameters(), one.star], retain_graph=True)
        code = one.encoder(pairs.obs.flatten(1, 2), pairs.act.flatten(1, 2), pairs.present.flatten(1, 2)).detach()
        far = (one.star.unsqueeze(2) - code.unflatten(1, (6, 2))).norm(dim=-1)
        alone = losses.triplet(far[..., 0], far[..., 1], pairs.label, 1.0).mean(1)
        torch.testing.assert_close(grads[-1], torch.autograd.grad(alone.sum(), [one.star])[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found["loss_preference"], alone.detach(), rtol=1e-9, atol=1e-12)
        ours = torch.autograd.grad(loss.sum(), list(one.encoder.parameters()))
        if one is free:
            kept = ours
    for a, b in zip(kept, ours):
        assert torch.equal(a, b), "without its weight the preference does not reach the encoder, wherever z* is"


def test_the_weights_of_the_encoders_loss() -> None:
    """2 (match + w_norm norm) + w_pref preference, beside z*'s own."""
    pairs, key = compared(numbers(1.0, 0.0, 0.5, 1.0, 1.0, 0.0)), rng.fold(KEYS, "key")
    one = learner(preference_weight=0.7, norm_weight=0.3, margin=2.0)
    loss, found = one._context_losses(pairs, key)
    expected = 2.0 * found["loss_pairs"] + 0.6 * found["loss_norm"] + 1.7 * found["loss_preference"]
    torch.testing.assert_close(loss.detach(), expected)


def test_windows_train_both_networks_and_labelled_pairs_all_but_the_policy() -> None:
    dataset, preferences = tiny_data()
    one = learner(spec=dataset.spec, match_every=2)
    source = one.prepare(Source.of(dataset, preferences, dtype=DOUBLE))
    one.update(source.draw(one.wants(), one.keys, 0))
    assert [adam.steps for adam in (one.encoder_adam, one.policy_adam, one.star_adam)] == [2, 1, 1]
    before = [p.detach().clone() for p in (*one.policy.parameters(), *one.encoder.parameters(), one.star)]
    metrics = one.update(source.draw(one.wants(), one.keys, 1))
    after = [p.detach() for p in (*one.policy.parameters(), *one.encoder.parameters(), one.star)]
    same = [torch.equal(a, b) for a, b in zip(before, after)]
    count = len(list(one.policy.parameters()))
    assert all(same[:count])
    assert not any(same[count:])
    assert "loss_match" not in metrics


def test_matching_by_hand() -> None:
    """Squared errors of actions and, with its weight, of the true next observations, over real steps alone."""
    one = learner(state_weight=0.5)
    obs, act, present = steps(5, 4)
    present[:, 0, :2] = False
    code = rng.normal(KEYS, 5, 3, dtype=DOUBLE)
    seen = obs + 0.3 * torch.ones_like(obs)  # blurred for the policy, not for what it is to predict
    guess, guessed_next = one.policy(seen, act, present, code)
    for member in range(2):
        of_act, of_obs = [], []
        for b in range(5):
            for t in range(2 if b == 0 else 0, 4):
                of_act.append((guess - act)[member, b, t].square().mean())
                if t < 3:
                    of_obs.append((guessed_next[member, b, t] - obs[member, b, t + 1]).square().mean())
        expected = torch.stack(of_act).mean() + 0.5 * torch.stack(of_obs).mean()
        found = one.matching(obs, act, present, code, None, seen=seen)[member]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_what_it_remembers_is_what_it_was_trained_on() -> None:
    """Playing step by step gives the actions of the whole history at once, of the last ``context`` steps of it."""
    one = learner()
    obs = steps(3, 7)[0]
    memory = one.empty_memory(3)
    taken: list[Tensor] = []
    for t in range(7):
        act, after = one.act_with(memory, obs[:, :, t])
        assert after is not memory
        memory = after
        first = max(0, t - 3)
        history = torch.stack([*taken[first:], torch.zeros_like(act)], dim=2)
        seen = obs[:, :, first : t + 1]
        everything = torch.ones(seen.shape[:3], dtype=torch.bool)
        expected = one.policy(seen, history, everything, one.star.expand(-1, 3, -1))[0][:, :, -1]
        torch.testing.assert_close(act, expected, rtol=1e-9, atol=1e-9)
        taken.append(act)
    torch.testing.assert_close(one.act(obs[:, :, 0]), taken[0], rtol=0, atol=0)
    assert not torch.allclose(one.act(obs[:, :, 6]), taken[6], atol=1e-6), "the history matters"


def test_what_it_remembers_is_normalised_as_in_training() -> None:
    one = learner(spec=Spec("test", 3, 2, obs_mean=(1.0, -2.0, 0.5), obs_std=(3.0, 0.2, 1.0)), normalize_obs=True)
    obs = steps(3, 2)[0]
    memory = one.act_with(one.empty_memory(3), obs[:, :, 0])[1]
    act = one.act_with(memory, obs[:, :, 1])[0]
    before = memory["act"][:, :, -1]
    history = torch.stack([before, torch.zeros_like(before)], dim=2)
    everything, star = torch.ones(2, 3, 2, dtype=torch.bool), one.star.expand(-1, 3, -1)
    expected = one.policy(one.normalizer(obs), history, everything, star)[0][:, :, -1]
    torch.testing.assert_close(act, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(act, one.policy(obs, history, everything, star)[0][:, :, -1], atol=1e-4)


def test_the_better_segment_is_the_nearer_one() -> None:
    one = learner()
    obs, act, present = steps(5, 6)
    code = one.encoder(obs, act, present)
    expected = -(code - one.star).square().sum(-1).sqrt()
    torch.testing.assert_close(one.judge(obs, act), expected.detach())


# --- labels -----------------------------------------------------------------------------------------------------------


def budget(labels: int) -> tuple[Dataset, Preferences]:
    dataset, _ = tiny_data()
    pairs = Pairs.sample(dataset, labels, 4, rng.keys([8])[0])
    return dataset, Preferences(pairs, (torch.arange(labels) % 2).float(), By("a test"))


@pytest.mark.parametrize("labels", [3, 17])
def test_no_more_labels_than_were_given(labels: int) -> None:
    """The distinct labelled pairs that reach the updates are the stored ones, all of them and no others."""
    dataset, preferences = budget(labels)
    one = OPPO(dataset.spec, sweep(OPPOConfig(**SMALL), [0]))
    source = one.prepare(Source.of(dataset, preferences))
    seen = set()
    for update in range(60):
        batch = source.draw(one.wants(), one.keys, update)
        seen |= {tuple(row.tolist()) for row in batch["pairs"].act[0].flatten(1)}
    assert len(seen) == labels
    stored = preferences.pairs
    acts = torch.stack([stored.segments.act[stored.first], stored.segments.act[stored.second]], dim=1)
    assert seen == {tuple(row.tolist()) for row in acts.flatten(1)}


def trained(data: tuple[Dataset | None, Preferences | None], updates: int = 3, **changes: Any) -> OPPO:
    spec = data[0].spec if data[0] is not None else SPEC
    one = OPPO(spec, sweep(OPPOConfig(**{**SMALL, **changes}), [0, 1]))
    for _ in offline(one, Source.of(*data), updates, every=updates):
        pass
    return one


def test_rewards_reach_it_with_unlimited_labels_alone() -> None:
    dataset, preferences = tiny_data()
    other = dataset.with_reward(-dataset.rew)
    same = [weights(trained((data, preferences)), 1) for data in (dataset, other)]
    assert all(torch.equal(a, b) for a, b in zip(*same))
    unlimited = [trained((data, None), foresight=5) for data in (dataset, other)]
    assert unlimited[0].wants() == {"windows": 12}
    assert any(not torch.equal(a, b) for a, b in zip(*(weights(each, 1) for each in unlimited)))
    with pytest.raises(InputError, match="come from rewards, expected a data set"):
        trained((None, preferences), foresight=5)


def test_unlimited_labels_look_ahead_within_the_episode() -> None:
    dataset, _ = tiny_data()
    for ahead in (1, 4, 200):
        found = returns_ahead(torch.stack([dataset.rew, 2.0 * dataset.rew]), dataset, ahead)
        for row in (0, 6, 9, 10, 57, 119):
            expected = dataset.rew[row : min(row + ahead, row - row % 10 + 10)].sum()
            torch.testing.assert_close(found[:, row], torch.stack([expected, 2.0 * expected]))


def test_halves_are_compared_by_the_first_real_step() -> None:
    obs, act, present = steps(4, 3)
    present[:, 0, :2] = False
    rew = torch.tensor([[0.0, 0.0, 5.0], [2.0, 9.0, 9.0], [4.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=DOUBLE)
    made = halves(Windows(obs, act, present, rew.expand(2, -1, -1)))
    assert made.label.tolist() == [[0.0, 0.5], [0.0, 0.5]], "5 against 4, and 2 against 2"
    for i, (first, second) in enumerate([(0, 2), (1, 3)]):
        assert torch.equal(made.obs[:, i, 0], obs[:, first])
        assert torch.equal(made.obs[:, i, 1], obs[:, second])
        assert torch.equal(made.present[:, i, 0], present[:, first])


def test_it_learns_from_pairs_alone() -> None:
    _, preferences = tiny_data()
    one = trained((None, preferences), updates=30)
    assert all(tensor.isfinite().all() for tensor in weights(one, 1))
    fresh = trained((None, preferences), updates=1)
    segments = preferences.pairs.segments
    errors = []
    for each in (fresh, one):
        obs, act = (x.expand(2, *x.shape) for x in (segments.obs, segments.act))
        present = torch.ones(obs.shape[:3], dtype=torch.bool)
        errors.append(each.matching(obs, act, present, each.encoder(obs, act, present), None, seen=obs))
    assert (errors[1] < errors[0]).all()


def test_heads_share_the_width() -> None:
    with pytest.raises(InputError, match=r"OPPOConfig.width is 8, expected a multiple of policy_heads"):
        OPPOConfig(width=8, policy_heads=3)


# --- two velocities ---------------------------------------------------------------------------------------------------


def velocities() -> tuple[Dataset, Preferences]:
    """Episodes of two behaviours, forwards and backwards at about 0.9; forwards is preferred."""
    key, episodes, count = rng.keys([0])[0], 40, 12
    noise = 0.1 * rng.normal(rng.fold(key, "noise"), episodes, count)
    direction = torch.where(torch.arange(episodes) % 2 == 0, 1.0, -1.0)
    act = (0.9 * direction[:, None] + noise).clamp(-1.0, 1.0)
    start = 0.3 * rng.normal(rng.fold(key, "start"), episodes, 1)
    place = torch.cat([start, start + 0.1 * act.cumsum(1)], dim=1)
    end = torch.arange(episodes * count) % count == count - 1
    obs, next_obs = place[:, :-1].reshape(-1, 1), place[:, 1:].reshape(-1, 1)
    dataset = Dataset.from_arrays(
        obs, act.reshape(-1, 1), act.flatten(), torch.zeros_like(end), end, next_obs, name="velocities"
    )
    pairs = Pairs.sample(dataset, 60, 6, rng.fold(key, "pairs"))
    forwards = (pairs.segments.act.mean((1, 2)) > 0).float()
    label = 0.5 + 0.5 * (forwards[pairs.second] - forwards[pairs.first])
    return dataset, Preferences(pairs, label, By("who likes to go forwards"))


def outcome(preferences: Preferences, dataset: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """[P] the distances of z* to the mean context forwards and backwards, and the mean velocity of a roll-out."""
    config = OPPOConfig(
        width=16, layers=1, encoder_heads=1, policy_heads=1, context=5, code_size=4, batch_size=12, warmup=20,
        lr=3e-3, star_lr=1e-2, star_deviation=0.1,
    )  # fmt: skip
    one = OPPO(dataset.spec, sweep(config, [0, 1, 2]))
    for _ in offline(one, Source.of(dataset, preferences), 150, every=150):
        pass
    segments = preferences.pairs.segments
    forwards = segments.act.mean((1, 2)) > 0
    with torch.no_grad():
        obs, act = (x.expand(3, *x.shape) for x in (segments.obs, segments.act))
        code = one.encoder(one.normalizer(obs), act, torch.ones(obs.shape[:3], dtype=torch.bool))
        near, far = ((one.star[:, 0] - code[:, chosen].mean(1)).norm(dim=-1) for chosen in (forwards, ~forwards))
    memory, place, velocity = one.empty_memory(4), torch.zeros(3, 4, 1), []
    for _ in range(20):
        act, memory = one.act_with(memory, place)
        place = place + 0.1 * act
        velocity.append(act.mean((1, 2)))
    return near, far, torch.stack(velocity).mean(0)


def test_of_two_behaviours_it_chooses_the_preferred_one() -> None:
    dataset, preferences = velocities()
    near, far, velocity = outcome(preferences, dataset)
    assert (near < far).all()
    assert (velocity > 0.8).all()
    lie = dataclasses.replace(preferences, label=1.0 - preferences.label)
    near, far, velocity = outcome(lie, dataset)
    assert (near > far).all(), "with labels turned round it must fail"
    assert (velocity < -0.8).all()
