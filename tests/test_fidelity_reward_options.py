"""The reward model's options: flipped labels, ranked lists, discount and regret, disagreement and pessimism."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.preference.p_iql import PIQL, PIQLConfig
from agents.preference.reward_model import RewardModel, RewardModelConfig
from pbrl import losses, rng
from pbrl.data import By, Dataset, Preferences, Rankings
from pbrl.data.source import LabelledPairs, RankedLists, Source
from pbrl.errors import InputError
from pbrl.loops import offline
from pbrl.members import sweep
from pbrl.spec import Spec

DOUBLE = torch.float64
KEY = rng.keys([81])[0]
SPEC = Spec("test", 3, 2)
LINEAR: dict[str, Any] = {"hidden": (), "ensemble": 1, "bounded": False}


def segments(*shape: int, length: int = 4) -> tuple[Tensor, Tensor]:
    """obs [1, *shape, length, 3] and act [1, *shape, length, 2], all independent."""
    obs = rng.normal(rng.fold(KEY, "obs"), *shape, length, 3, dtype=DOUBLE)
    return obs[None], (2 * rng.uniform(rng.fold(KEY, "act"), *shape, length, 2, dtype=DOUBLE) - 1)[None]


def model(values: dict[str, list[Any]] | None = None, **changes: Any) -> RewardModel:
    return RewardModel(SPEC, sweep(RewardModelConfig(**changes), [0], values, dtype=DOUBLE))


def weight(learner: RewardModel, net: str = "net") -> Tensor:
    """[P, inputs] the weights of linear models."""
    return learner.get_parameter(f"{net}.layers.0.weight").detach()[:, 0, :, 0]


def fit(learner: RewardModel, batch: Any, updates: int = 400) -> RewardModel:
    for _ in range(updates):
        learner.update(batch)
    return learner


# --- flipped labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.2, 0.3])
def test_corrected_for_flips_it_learns_what_clean_labels_teach(rate: float) -> None:
    """Flips enumerated: every pair comes flipped and not flipped, in proportion (one label between 0 and 1).

    A linear model's optimum is then that of the clean labels, exactly, with either correction; without it is another.
    """
    count = 60
    obs, act = segments(count, 2)
    truth = torch.tensor([0.5, -0.4, 0.3, 0.6, -0.5], dtype=DOUBLE)
    total = (torch.cat([obs, act], dim=-1) @ truth).sum(-1)
    clean = (total[..., 1] - total[..., 0]).sigmoid()
    flipped = (1 - rate) * clean + rate * (1 - clean)
    settings: dict[str, Any] = {**LINEAR, "batch_size": count, "lr": 0.03}
    taught = fit(model(**settings), {"pairs": LabelledPairs(obs, act, clean)})
    torch.testing.assert_close(weight(taught)[0], truth, rtol=0.0, atol=1e-5)
    batch = {"pairs": LabelledPairs(obs, act, flipped)}
    for name in ("flips_forward", "flips_backward"):
        corrected = fit(model(**(settings | {name: rate})), batch)
        torch.testing.assert_close(weight(corrected)[0], truth, rtol=0.0, atol=1e-5)
    assert weight(fit(model(**settings), batch))[0].norm() < 0.8 * truth.norm()  # flips make it timid


def test_smoothed_labels_are_the_same_as_labels_that_were_flipped() -> None:
    obs, act = segments(8, 2)
    label = (rng.uniform(rng.fold(KEY, "label"), 8, dtype=DOUBLE) < 0.5).to(DOUBLE)[None]
    smooth = model(batch_size=8, ensemble=1, label_smoothing=0.3)
    plain = model(batch_size=8, ensemble=1)
    found = smooth.update({"pairs": LabelledPairs(obs, act, label)})["loss_reward"]
    expected = plain.update({"pairs": LabelledPairs(obs, act, 0.85 * label + 0.15 * (1 - label))})["loss_reward"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_corrections_are_each_members_own() -> None:
    obs, act = segments(8, 2)
    label = torch.ones(3, 8, dtype=DOUBLE)
    stack = RewardModel(
        SPEC,
        sweep(RewardModelConfig(batch_size=8, ensemble=1), [0], {"flips_forward": [0.0, 0.1, 0.4]}, dtype=DOUBLE),
    )
    found = stack.update({"pairs": LabelledPairs(obs.expand(3, -1, -1, -1, -1), act.expand(3, -1, -1, -1, -1), label)})
    score = model(batch_size=8, ensemble=1).scores(obs.flatten(1, 2), act.flatten(1, 2)).unflatten(-1, (8, 2))
    difference = (score[..., 1] - score[..., 0]).detach()[0, 0]
    for member, rate in enumerate((0.0, 0.1, 0.4)):
        expected = losses.bradley_terry_with_flips(difference, label[0], rate).mean()
        torch.testing.assert_close(found["loss_reward"][member], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flips_forward": 0.1, "flips_backward": 0.2}, "expected one of them"),
        ({"flips_forward": 0.5}, "flips_forward is 0.5"),
        ({"feedback": "rankings", "label_smoothing": 0.1}, "it is for pairs"),
    ],
)
def test_options_that_contradict_each_other_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RewardModelConfig(**changes)
    with pytest.raises(InputError, match=message):
        PIQLConfig(**{f"reward_{name}": value for name, value in changes.items()})


# --- ranked lists -----------------------------------------------------------------------------------------------------


def test_a_list_of_two_is_a_pair() -> None:
    obs, act = segments(6, 2)
    settings: dict[str, Any] = {"batch_size": 6, "ensemble": 1}
    ranked, paired = model(feedback="rankings", **settings), model(**settings)
    assert ranked.wants() == {"rankings": 6}
    for _ in range(3):
        found = ranked.update({"rankings": RankedLists(obs, act)})
        expected = paired.update({"pairs": LabelledPairs(obs, act, torch.zeros(1, 6, dtype=DOUBLE))})
        for name in ("loss_reward", "accuracy"):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)


def test_a_linear_model_of_lists_reaches_the_maximum_likelihood_weights() -> None:
    """Against Newton's method on the Plackett-Luce likelihood of lists that a model of known weights has ordered."""
    count, size = 4000, 4
    obs, act = segments(count, size, length=2)
    features = torch.cat([obs, act], dim=-1)[0].sum(-2)  # [N, K, 5]
    truth = torch.tensor([0.8, -0.5, 0.3, 1.0, -0.7], dtype=DOUBLE)
    gumbel = -torch.log(-torch.log(rng.uniform(rng.fold(KEY, "gumbel"), count, size, dtype=DOUBLE)))
    order = (features @ truth + gumbel).argsort(-1, descending=True)  # Plackett and Luce's law by the Gumbel trick
    features = features.gather(1, order[..., None].expand_as(features))
    obs, act = (x.gather(2, order[None, :, :, None, None].expand_as(x)) for x in (obs, act))

    def loss(weights: Tensor) -> Tensor:
        return losses.plackett_luce(features @ weights).mean()

    newton = torch.zeros(5, dtype=DOUBLE)
    for _ in range(8):
        hessian = torch.autograd.functional.hessian(loss, newton)
        (slope,) = torch.autograd.functional.jacobian(loss, (newton,))
        newton = newton - torch.linalg.solve(hessian, slope)
    assert (newton - truth).abs().max() < 0.1  # the lists do say something
    learner = model(**LINEAR, feedback="rankings", batch_size=count, lr=0.03)
    found = weight(fit(learner, {"rankings": RankedLists(obs, act)}, 300))[0]
    torch.testing.assert_close(found, newton, rtol=0.0, atol=1e-4)


def ranked(count: int = 30, size: int = 3) -> Rankings:
    act = 2 * rng.uniform(rng.fold(KEY, "data"), 200, 2) - 1
    trunc = torch.arange(200) % 10 == 9
    data = Dataset.from_arrays(
        torch.zeros(200, 3), act, act[:, 0], torch.zeros(200, dtype=torch.bool), trunc, torch.zeros(200, 3)
    )
    asked, lists = Rankings.sample(data, count, size, 4, KEY)
    assert asked.rew is not None
    return Rankings.by_score(asked, lists, asked.rew.sum(1), By("returns"))


def test_rankings_by_score_are_in_order_and_become_pairs() -> None:
    rankings = ranked()
    rankings.check()
    assert rankings.segments.rew is not None
    worth = rankings.segments.rew.sum(1)
    assert bool((worth[rankings.lists].diff(dim=1) <= 0).all())
    preferences = rankings.to_preferences()
    assert isinstance(preferences, Preferences)
    preferences.check()
    assert len(preferences) == 30 * 3
    assert preferences.label.mean() == 0.5  # the better one is as often the second as the first
    difference = worth[preferences.pairs.second] - worth[preferences.pairs.first]
    assert bool((difference * (preferences.label - 0.5) > 0).all())
    assert rankings.to("cpu").lists.equal(rankings.lists)


def test_all_lists_of_different_windows_are_equally_likely() -> None:
    data = Dataset.from_arrays(
        torch.zeros(8, 1), torch.zeros(8, 1), torch.ones(8), torch.zeros(8, dtype=torch.bool),
        torch.arange(8) % 4 == 3, torch.zeros(8, 1),
    )  # fmt: skip
    found, lists = Rankings.sample(data, 6000, 3, 3, KEY)  # windows begin at rows 0, 1, 4 and 5: 24 lists
    seen = found.row[lists]
    kinds, counts = seen.unique(dim=0, return_counts=True)
    assert len(kinds) == 24
    assert float((counts - 250).abs().max()) < 4.5 * math.sqrt(250)
    with pytest.raises(InputError, match="has 4 windows of 3 steps, expected at least 5"):
        Rankings.sample(data, 1, 5, 3, KEY)


def test_lists_are_drawn_whole_and_in_order() -> None:
    rankings = ranked()
    batch = Source.of(rankings=rankings).draw({"rankings": 50}, rng.keys([1, 2]), 0)["rankings"]
    assert batch.obs.shape == (2, 50, 3, 4, 3)
    assert batch.act.shape == (2, 50, 3, 4, 2)
    stored = {tuple(x.flatten().tolist()) for x in rankings.segments.act[rankings.lists]}
    assert {tuple(x.flatten().tolist()) for x in batch.act.flatten(0, 1)} <= stored
    assert not torch.equal(batch.act[0], batch.act[1])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (torch.zeros(0, 3, dtype=torch.int64), "at least one list"),
        (torch.tensor([[0], [1]]), "at least two segments"),
        (torch.tensor([[0, 1], [2, 2]]), "list 1 has a segment twice"),
        (torch.tensor([[0, 90]]), "point outside the 90 segments"),
    ],
)
def test_unusable_rankings_raise(lists: Tensor, message: str) -> None:
    rankings = Rankings(ranked().segments, lists, By("nobody"))
    with pytest.raises(InputError, match=message):
        Source.of(rankings=rankings)


def test_rankings_need_finite_scores_sizes_that_fit_and_lists_of_two() -> None:
    rankings = ranked()
    with pytest.raises(InputError, match="one per segment"):
        Rankings.by_score(rankings.segments, rankings.lists, torch.zeros(3), By("x"))
    with pytest.raises(InputError, match="expected finite numbers"):
        Rankings.by_score(rankings.segments, rankings.lists, torch.full((90,), math.nan), By("x"))
    other = Dataset.from_arrays(
        torch.zeros(4, 7), torch.zeros(4, 2), torch.ones(4), torch.zeros(4, dtype=torch.bool),
        torch.arange(4) == 3, torch.zeros(4, 7),
    )  # fmt: skip
    with pytest.raises(InputError, match="rankings by returns have observations of 3 numbers, expected 7"):
        Source.of(other, rankings=rankings)
    with pytest.raises(InputError, match="at least two"):
        Rankings.sample(other, 2, 1, 2, KEY)
    with pytest.raises(InputError, match="expected rankings"):
        Source.of(other).draw({"rankings": 2}, rng.keys([0]), 0)


def test_it_learns_from_ranked_lists() -> None:
    rankings = ranked()
    learner = RewardModel(SPEC, sweep(RewardModelConfig(hidden=(16,), feedback="rankings", lr=3e-3), [0, 1]))
    history = list(offline(learner, Source.of(rankings=rankings), 150, every=30))
    assert bool((history[-1]["accuracy"] > 0.9).all())
    probe = torch.tensor([[[-0.8, 0.0], [0.8, 0.0]]]).expand(2, -1, -1)
    reward = learner.reward(torch.zeros(2, 2, 3), probe)
    assert bool((reward[:, 1] > reward[:, 0]).all())


# --- discount and regret ----------------------------------------------------------------------------------------------


def test_a_discount_weighs_the_steps() -> None:
    obs, act = segments(5)
    learner = model({"gamma": [1.0, 0.5]}, hidden=(8,))
    steps = learner.each(*(x.expand(2, -1, -1, -1).flatten(1, 2) for x in (obs, act))).reshape(2, 3, 5, 4)
    found = learner.judge(*(x.expand(2, -1, -1, -1) for x in (obs, act)))
    weights = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 0.5, 0.25, 0.125]], dtype=DOUBLE)
    expected = (steps * weights[:, None, None]).sum(-1).mean(1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def regret(**changes: Any) -> RewardModel:
    return model(link="regret", **changes)


@pytest.mark.parametrize(("aggregate", "scale"), [("sum", 1.0), ("mean", 1 / 3)])
def test_regret_is_the_return_and_the_change_of_value(aggregate: Any, scale: float) -> None:
    obs, act = segments(5)
    learner = regret(hidden=(8,), gamma=0.9, aggregate=aggregate)
    assert learner.potential is not None
    r = learner.each(obs.flatten(1, 2), act.flatten(1, 2)).reshape(1, 3, 5, 4)
    v = learner.potential(obs.flatten(1, 2)).reshape(1, 3, 5, 4)
    expected = r[..., 0] + 0.9 * r[..., 1] + 0.81 * r[..., 2] + 0.729 * v[..., 3] - v[..., 0]
    torch.testing.assert_close(learner.scores(obs, act), scale * expected, rtol=1e-12, atol=1e-12)
    # It is the discounted sum of advantages r + gamma v' - v, and blind to the last action.
    advantage = r[..., :3] + 0.9 * v[..., 1:] - v[..., :3]
    summed = (advantage * torch.tensor([1.0, 0.9, 0.81], dtype=DOUBLE)).sum(-1)
    torch.testing.assert_close(learner.scores(obs, act), scale * summed, rtol=1e-12, atol=1e-12)
    idle = act.clone()
    idle[..., -1, :] = 0.0
    assert torch.equal(learner.scores(obs, idle), learner.scores(obs, act))


def test_regret_with_a_constant_value_is_the_return_of_all_steps_but_the_last() -> None:
    obs, act = segments(5)
    learner, plain = regret(hidden=(8,)), model(hidden=(8,))
    assert learner.potential is not None
    with torch.no_grad():
        for parameter in learner.potential.layers[-1].parameters():
            parameter.fill_(0.0)
        learner.potential.get_parameter("layers.1.bias").fill_(3.0)
    expected = plain.judge(obs[..., :-1, :], act[..., :-1, :])
    torch.testing.assert_close(learner.judge(obs, act), expected, rtol=1e-12, atol=1e-12)


def test_regret_is_blind_to_potential_shaping() -> None:
    """r + gamma w s' - w s in place of r, and V - w s in place of V: in deterministic dynamics the same preferences.

    Here s' = s + B a, so that the shaped reward is linear in (s, a) again.
    """
    gamma, count, length = 0.9, 7, 5
    drive = torch.tensor([[0.3, -0.2], [0.1, 0.4], [0.0, 0.5]], dtype=DOUBLE)
    act = 2 * rng.uniform(rng.fold(KEY, "drive"), count, length, 2, dtype=DOUBLE) - 1
    start = rng.normal(rng.fold(KEY, "start"), count, 1, 3, dtype=DOUBLE)
    moved = (act @ drive.T).cumsum(1)
    obs = torch.cat([start, start + moved[:, :-1]], dim=1)
    learner = regret(**LINEAR, gamma=gamma)
    before = learner.judge(obs[None], act[None])
    partial = model(**LINEAR, gamma=gamma)
    with torch.no_grad():
        partial.net.get_parameter("layers.0.weight").copy_(learner.net.get_parameter("layers.0.weight"))
    return_before = partial.judge(obs[None], act[None])
    shape = torch.tensor([0.7, -1.1, 0.4], dtype=DOUBLE)
    with torch.no_grad():
        for one in (learner, partial):
            reward = one.net.get_parameter("layers.0.weight")[0, 0, :, 0]
            reward[:3] += (gamma - 1.0) * shape
            reward[3:] += gamma * drive.T @ shape
        learner.get_parameter("potential.layers.0.weight")[0, 0, :, 0] -= shape
    torch.testing.assert_close(learner.judge(obs[None], act[None]), before, rtol=1e-10, atol=1e-10)
    assert float((partial.judge(obs[None], act[None]) - return_before).abs().max()) > 0.1  # the return changes


def test_from_labels_by_regret_it_learns_reward_and_value_where_a_return_cannot() -> None:
    """Labels P = sigmoid of a known r and V on independent states: the optimum is unique, and both are found."""
    count, length, gamma = 300, 4, 0.9
    obs, act = segments(count, 2, length=length)
    r, v = (torch.tensor(x, dtype=DOUBLE) for x in ([0.4, -0.3, 0.2, 0.5, -0.4], [1.0, -0.8, 0.6]))
    steps = (torch.cat([obs, act], dim=-1) @ r)[..., :-1] * gamma ** torch.arange(length - 1)
    score = steps.sum(-1) + gamma ** (length - 1) * (obs[..., -1, :] @ v) - obs[..., 0, :] @ v
    batch = {"pairs": LabelledPairs(obs, act, (score[..., 1] - score[..., 0]).sigmoid())}
    settings: dict[str, Any] = {**LINEAR, "gamma": gamma, "batch_size": count, "lr": 0.03}
    learner, partial = fit(regret(**settings), batch), fit(model(**settings), batch)
    torch.testing.assert_close(weight(learner)[0], r, rtol=0.0, atol=1e-4)
    torch.testing.assert_close(weight(learner, "potential")[0], v, rtol=0.0, atol=1e-4)
    assert float((weight(partial)[0] - r).abs().max()) > 0.1


def test_regret_of_one_step_raises() -> None:
    with pytest.raises(InputError, match="expected at least two"):
        regret().judge(*segments(5, length=1))


@pytest.mark.parametrize("link", ["partial_return", "regret"])
@pytest.mark.parametrize("feedback", ["pairs", "rankings"])
def test_gradients_by_finite_differences(link: Any, feedback: Any) -> None:
    noise: dict[str, Any] = {"flips_forward": 0.2, "label_smoothing": 0.1} if feedback == "pairs" else {}
    learner = model(link=link, feedback=feedback, hidden=(6,), ensemble=2, batch_size=3, gamma=0.8, **noise)
    obs, act = segments(6, 3 if feedback == "rankings" else 2)
    label = rng.uniform(rng.fold(KEY, "y"), 6, dtype=DOUBLE)[None]
    batch = LabelledPairs(obs, act, label) if feedback == "pairs" else RankedLists(obs, act)
    parameters = list(learner.parameters())
    parameters = [p for p in parameters if p.requires_grad]
    grads = torch.autograd.grad(learner._loss(batch)[0].sum(), parameters)
    directions = [rng.normal(rng.fold(KEY, "direction", i), *p.shape, dtype=DOUBLE) for i, p in enumerate(parameters)]

    def moved(by: float) -> Tensor:
        with torch.no_grad():
            for p, d in zip(parameters, directions):
                p.add_(by * d)
            loss = learner._loss(batch)[0]
            for p, d in zip(parameters, directions):
                p.sub_(by * d)
        return loss

    slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
    ours = torch.stack([(g * d).sum() for g, d in zip(grads, directions)]).sum()
    torch.testing.assert_close(ours, slope[0], rtol=1e-6, atol=1e-8)


# --- the ensemble -----------------------------------------------------------------------------------------------------


def test_disagreement_is_the_deviation_of_what_the_copies_predict() -> None:
    obs, act = segments(6, 2)
    learner = model(hidden=(8,), ensemble=4)
    score = learner.each(obs.flatten(1, 3), act.flatten(1, 3)).reshape(1, 4, 6, 2, 4).sum(-1)
    chance = (score[..., 1] - score[..., 0]).sigmoid().detach()
    torch.testing.assert_close(learner.chances(obs, act), chance, rtol=1e-12, atol=1e-12)
    found = learner.disagreement(obs, act)
    assert found.shape == (1, 6)
    torch.testing.assert_close(found, (chance - chance.mean(1, keepdim=True)).square().mean(1).sqrt())
    assert float(found.min()) > 0
    alone = model(hidden=(8,), ensemble=1)
    assert torch.equal(alone.disagreement(obs, act), torch.zeros(1, 6, dtype=DOUBLE))
    assert torch.equal(alone.spread(obs, act), torch.zeros(1, 6, 2, 4, dtype=DOUBLE))


def test_pessimism_subtracts_deviations_of_the_ensemble_from_the_reward() -> None:
    obs, act = (x.expand(3, -1, -1, -1) for x in segments(6))
    learner = model({"pessimism": [0.0, 0.5, -1.0]}, hidden=(8,))
    each = learner.each(obs.flatten(1, 2), act.flatten(1, 2)).detach().reshape(3, 3, 6, 4)
    spread = (each - each.mean(1, keepdim=True)).square().mean(1).sqrt()
    torch.testing.assert_close(learner.spread(obs, act), spread, rtol=1e-12, atol=1e-12)
    k = torch.tensor([0.0, 0.5, -1.0], dtype=DOUBLE)[:, None, None]
    torch.testing.assert_close(learner.reward(obs, act), each.mean(1) - k * spread, rtol=1e-12, atol=1e-12)
    scores = learner.judge(obs, act)  # what it predicts of labels is not pessimistic
    torch.testing.assert_close(scores[0], scores[1], rtol=0.0, atol=0.0)


def test_p_iql_passes_every_option_of_its_reward_model_on() -> None:
    given: dict[str, Any] = {
        "lr": 0.01, "gamma": 0.9, "pessimism": 1.0, "label_smoothing": 0.1, "flips_forward": 0.2,
        "aggregate": "mean", "link": "regret", "bounded": False, "ensemble": 2, "hidden": (4,), "batch_size": 3,
    }  # fmt: skip
    config = PIQLConfig(normalize_obs=True, **{f"reward_{name}": value for name, value in given.items()})
    learner = PIQL(SPEC, sweep(config, [0]))
    assert isinstance(learner.model, RewardModel)
    assert learner.model.config == RewardModelConfig(normalize_obs=True, **given)
    ranked_too = PIQL(SPEC, sweep(PIQLConfig(reward_feedback="rankings", reward_flips_backward=0.0), [0]))
    assert ranked_too.wants() == {"rankings": 3 * 128}


def test_p_iqls_policy_gets_the_pessimistic_reward() -> None:
    rankings = ranked()
    obs, act = rankings.segments.obs.flatten(0, 1), rankings.segments.act.flatten(0, 1)
    end = torch.arange(len(obs)) % 4 == 3
    data = Dataset.from_arrays(obs, act, act[:, 0], torch.zeros_like(end), end, obs)
    source = Source.of(data, rankings.to_preferences())
    config = PIQLConfig(hidden=(4,), reward_hidden=(4,), reward_updates=1, rewards="raw", reward_pessimism=2.0)
    learner = PIQL(SPEC, sweep(config, [0]))
    learner.update(source.draw(learner.wants(), learner.keys, 0))
    model_of = learner.model
    assert isinstance(model_of, RewardModel)
    each = model_of.each(data.obs[None], data.act[None]).detach()
    relabelled = learner.prepare(source).rew
    assert relabelled is not None
    torch.testing.assert_close(relabelled, each.mean(1) - 2.0 * each.std(1, correction=0), rtol=1e-5, atol=1e-6)
