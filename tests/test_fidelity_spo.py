"""SPO does what its paper says: preference games exactly, and the agent's comparisons, rewards and snapshots."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import envs
from agents.on_policy.ppo import PPO, PPOConfig
from agents.preference.spo import SPO, SPOConfig
from pbrl import evaluation, rng
from pbrl.data import Pairs, Preferences
from pbrl.data.rollout import Rollout
from pbrl.errors import InputError
from pbrl.labelers.protocols import Labeler
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.loops import Playing, on_policy
from pbrl.loops.arena import Arena
from pbrl.members import sweep
from pbrl.spec import Spec
from pbrl.theory.games import (
    bradley_terry_matrix,
    cycle,
    exploitability,
    multiplicative_weights,
    win_rates,
)

DOUBLE = torch.float64


# --- games ------------------------------------------------------------------------------------------------------------

STARTS = torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.34, 0.33, 0.33]], dtype=DOUBLE)
RPS = cycle(3).expand(3, 3, 3)


def test_rock_paper_scissors_by_hand() -> None:
    assert cycle(3).tolist() == [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]
    assert win_rates(cycle(3), STARTS[0]).tolist() == pytest.approx([0.25 + 0.2, 0.5 + 0.15, 0.3 + 0.1])
    assert float(exploitability(cycle(3), STARTS[0])) == pytest.approx(0.15)
    assert float(exploitability(cycle(3), torch.full((3,), 1 / 3, dtype=DOUBLE))) == pytest.approx(0.0, abs=1e-15)


def test_the_average_of_self_play_is_a_minimax_winner_while_the_last_policy_cycles() -> None:
    played = multiplicative_weights(RPS, STARTS, rounds=20_000)
    assert (exploitability(RPS, played.average) < 0.005).all()
    torch.testing.assert_close(played.average, torch.full_like(STARTS, 1 / 3), atol=0.01, rtol=0)
    away = (played.last - 1 / 3).abs().amax(-1)
    assert (away[:2] > 0.05).all(), "the last policy has settled, so that averaging is not put to the test"
    assert (exploitability(RPS, played.last)[:2] > 0.02).all()


def test_self_play_against_sampled_batches_of_64() -> None:
    played = multiplicative_weights(RPS[:1], STARTS[:1], rounds=8_000, rate=0.05, keys=rng.keys([0]), batch=64)
    assert float(exploitability(RPS[:1], played.average)) < 0.005
    assert float((played.last - 1 / 3).abs().max()) > 0.05


def test_a_member_of_a_stack_plays_its_own_game() -> None:
    together = multiplicative_weights(RPS, STARTS, rounds=50, rate=0.1, keys=rng.keys([4, 5, 6]), batch=8)
    alone = multiplicative_weights(RPS[1:2], STARTS[1:2], rounds=50, rate=0.1, keys=rng.keys([5]), batch=8)
    torch.testing.assert_close(together.average[1:2], alone.average, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rounds", [10, 100, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_exploitability_is_bounded_by_the_regret(seed: int, rounds: int) -> None:
    """log(1 / min start) / (rate T) + rate / 8, in any preference game."""
    upper = rng.uniform(rng.keys([seed]), 6, 6, dtype=DOUBLE).triu(1)
    game = upper + (1 - upper.mT).tril(-1) + 0.5 * torch.eye(6, dtype=DOUBLE)
    start = torch.full((1, 6), 1 / 6, dtype=DOUBLE)
    rate = 0.3
    found = exploitability(game, multiplicative_weights(game, start, rounds=rounds, rate=rate).average)
    assert 0.0 <= float(found) <= np.log(6) / (rate * rounds) + rate / 8


def test_a_condorcet_winner_is_found() -> None:
    """Choice 0 beats each other one narrowly, and the others beat each other in a circle."""
    game = torch.full((4, 4), 0.5, dtype=DOUBLE)
    game[0, 1:], game[1:, 0] = 0.6, 0.4
    game[1:, 1:] = cycle(3)
    played = multiplicative_weights(game[None], torch.full((1, 4), 0.25, dtype=DOUBLE), rounds=2_000, rate=0.2)
    assert float(played.last[0, 0]) > 0.99
    assert float(played.average[0, 0]) > 0.9


def test_where_a_reward_explains_preferences_the_best_choice_is_found() -> None:
    utility = rng.normal(rng.keys(range(5)), 6, dtype=DOUBLE)
    game = bradley_terry_matrix(utility)
    played = multiplicative_weights(game, torch.full((5, 6), 1 / 6, dtype=DOUBLE), rounds=4_000, rate=0.5)
    assert torch.equal(played.last.argmax(-1), utility.argmax(-1))
    assert (played.last.amax(-1) > 0.99).all()


@pytest.mark.parametrize("game", [torch.full((2, 2), 0.6), torch.zeros(2, 3), torch.tensor([[0.5, 2.0], [-1.0, 0.5]])])
def test_what_is_no_preference_matrix_is_refused(game: Tensor) -> None:
    with pytest.raises(InputError, match="is not one, expected"):
        multiplicative_weights(game, torch.ones(2) / 2, rounds=1)


# --- the arena --------------------------------------------------------------------------------------------------------

SPEC = Spec("made up", 3, 2)
SMALL: dict[str, Any] = {"hidden": (8,), "batch_size": 10, "epochs": 2, "steps": 5, "environments": 4, "lr": 1e-2}


def learner(members: int = 2, **changes: Any) -> SPO:
    return SPO(SPEC, sweep(SPOConfig(**{**SMALL, "queue": 4, "snapshots": 3, **changes}), range(members), dtype=DOUBLE))


def made_up(seed: int, members: int = 2) -> Rollout:
    def draw(word: str, *shape: int) -> Tensor:
        return rng.normal(rng.fold(rng.keys(range(seed, seed + members)), word), 5, 4, *shape, dtype=DOUBLE)

    flags = torch.zeros(members, 5, 4, dtype=DOUBLE)
    return Rollout(draw("obs", 3), draw("act", 2), draw("rew", 1), draw("next", 3), flags, flags)


def by_hand(new: Tensor, queue: Tensor) -> list[float]:
    """Mean win rates of returns [N] against returns [Q], ties 1/2."""
    return [float(((mine > queue).double() + 0.5 * (mine == queue).double()).mean()) for mine in new]


def test_win_rates_against_everybody_by_hand() -> None:
    """With a queue of ten: the first time four are there, then eight, then the last ten."""
    arena = Arena(partial_return_labeler(), learner(queue=10), SPEC)
    seen = torch.zeros(2, 0)
    asked = 0
    for seed, waiting in ((10, 0), (20, 4), (30, 6)):
        rollout = made_up(seed)
        returns = rollout.rew.float().sum((1, 3))
        seen = torch.cat([seen, returns], dim=1)
        wins = arena(rollout)["wins"]
        for member in range(2):
            assert wins[member].tolist() == pytest.approx(by_hand(returns[member], seen[member, -10:]))
        asked += 4 * 3 // 2 + 4 * waiting
        assert arena.comparisons.tolist() == [asked, asked]


@pytest.mark.parametrize("beta", [float("inf"), 0.5])
def test_the_mean_win_rate_in_a_batch_is_one_half_exactly(beta: float) -> None:
    """Whatever the answers: every pair counts for both, and a trajectory against itself is a tie."""
    arena = Arena(partial_return_labeler(beta=beta, mistake=0.1), learner(), SPEC)
    for seed in range(5):
        wins = arena(made_up(10 * seed))["wins"]
        assert wins.mean(1).tolist() == [0.5, 0.5]
        assert (wins.std(1) > 0).all()
    assert arena.comparisons.tolist() == [30, 30]


def test_each_member_may_have_a_labeler_of_its_own() -> None:
    arena = Arena([partial_return_labeler(), partial_return_labeler(mistake=1.0)], learner(), SPEC)
    rollout = made_up(10)
    returns = rollout.rew.float().sum((1, 3))
    wins = arena(rollout)["wins"]
    assert wins[0].tolist() == pytest.approx(by_hand(returns[0], returns[0]))
    assert wins[1].tolist() == pytest.approx(by_hand(-returns[1], -returns[1]))


def test_drawn_opponents_cost_what_they_cost() -> None:
    arena = Arena(partial_return_labeler(), learner(queue=100, opponents=2), SPEC)
    total = torch.zeros(2, dtype=torch.int64)
    for seed in range(30):
        rollout = made_up(10 * seed)
        wins = arena(rollout)["wins"]
        assert set(wins.flatten().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        now = arena.comparisons - total
        assert (now <= 8).all()
        total += now
    assert (total > 200).all()  # a trajectory seldom meets itself, and then nobody is asked


class SkipsSome:
    """Answers only where the second has the higher return; else it says nothing."""

    def __call__(self, pairs: Pairs, key: Tensor) -> Preferences:
        answers = partial_return_labeler()(pairs, key)
        kept = answers.label == 1.0
        return dataclasses.replace(answers, pairs=pairs.take(kept), label=answers.label[kept])


def test_pairs_that_are_skipped_do_not_count() -> None:
    arena = Arena(SkipsSome(), learner(), SPEC)
    rollout = made_up(10)
    returns = rollout.rew.float().sum((1, 3))
    wins = arena(rollout)["wins"]
    for member in range(2):
        for i in range(4):
            # Wins over earlier ones are told, losses to later ones too, and the tie with itself.
            won = sum(bool(returns[member, j] < returns[member, i]) for j in range(i))
            lost = sum(bool(returns[member, j] > returns[member, i]) for j in range(i + 1, 4))
            assert float(wins[member, i]) == pytest.approx((won + 0.5) / (won + lost + 1))


def test_the_learner_never_sees_a_true_reward() -> None:
    batch = Arena(partial_return_labeler(), learner(), SPEC)(made_up(10))
    assert batch.keys() == {"rollout", "wins", "comparisons"}
    assert not batch["rollout"].rew.any()
    assert torch.equal(batch["rollout"].obs, made_up(10).obs)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="queue is 3 and environments 4"):
        learner(queue=3)
    for spec in (Spec("choices", 3, 1, actions=2), Spec("two", 3, 2, objectives=2)):
        with pytest.raises(InputError, match="cannot be compared"):
            Arena(partial_return_labeler(), learner(), spec)


# --- the agent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("placement", "steps"), [("spread", [0.2] * 5), ("last", [0, 0, 0, 0, 1.0])])
def test_it_is_ppo_on_win_rates(placement: str, steps: list[float]) -> None:
    spo = learner(placement=placement)
    names = {field.name for field in dataclasses.fields(PPOConfig)}
    shared = {name: getattr(spo.comparing, name) for name in names}
    ppo = PPO(SPEC, sweep(PPOConfig(**shared), range(2), dtype=DOUBLE))
    rollout, wins = made_up(10), torch.tensor([[0.1, 0.9, 0.4, 0.6]] * 2, dtype=DOUBLE)
    blind = dataclasses.replace(rollout, rew=torch.zeros_like(rollout.rew))
    metrics = spo.update({"rollout": blind, "wins": wins, "comparisons": torch.tensor([6, 6])})
    assert metrics["comparisons"].tolist() == [6.0, 6.0]
    rew = torch.tensor(steps, dtype=DOUBLE)[None, :, None, None] * wins[:, None, :, None]
    ppo.update({"rollout": dataclasses.replace(rollout, rew=rew)})
    for ours, theirs in zip(spo.policy.parameters(), ppo.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_snapshots_are_policies_that_played() -> None:
    """The first three while there is room, and then each of those that played equally likely."""
    spo = learner(members=1000, snapshots=3, epochs=1, hidden=(2,))
    obs = rng.normal(rng.keys([1]), 2, 3, dtype=DOUBLE).expand(1000, -1, -1)
    wins = torch.tensor([[0.1, 0.9, 0.4, 0.6]], dtype=DOUBLE).expand(1000, -1)
    played = []
    for update in range(6):
        played.append(spo.act(obs))
        asked = torch.full((1000,), 6 * update)
        spo.update({"rollout": made_up(1000 * update, 1000), "wins": wins, "comparisons": asked})
        if update == 1:
            for place, one in enumerate(spo.mixture()):
                assert torch.equal(one.act(obs), played[place])
            assert len(spo.mixture()) == 2
    kept = torch.stack([one.act(obs) for one in spo.mixture()])  # [3, P, B, A]
    same = (kept.unsqueeze(1) == torch.stack(played).unsqueeze(0)).flatten(3).all(-1)  # [3, 6, P]
    assert (same.sum(1) == 1).all(), "a snapshot is none of the policies that played"
    share = same.any(0).double().mean(1)  # [6] of members that kept each
    assert ((share - 0.5).abs() < 4 * np.sqrt(0.25 / 1000)).all(), share


def fitted(labeler: Labeler, updates: int) -> tuple[SPO, Arena]:
    """Three members on a point mass."""
    config = SPOConfig(lr=1e-3, epochs=5, batch_size=200, gamma=0.95, init_log_std=-1.0, hidden=(32, 32))
    spo = SPO(envs.make("PointMass1D-v0", 1).spec, sweep(config, range(3)))
    playing = Playing(envs.make("PointMass1D-v0", 48), spo.keys)
    arena = Arena(labeler, spo, playing.env.spec)
    for _ in on_policy(spo, playing, updates, every=updates, prepare=arena):
        pass
    return spo, arena


def returns(agent: evaluation.Agent) -> np.ndarray[Any, Any]:
    return evaluation.evaluate(agent, lambda n: envs.make("PointMass1D-v0", n), members=3, episodes=10).mean


def test_noisy_preferences_between_trajectories_teach_it_the_task() -> None:
    """Bernoulli answers at beta = 0.1 per unit of return, a tenth turned round besides; and the reverse, a control."""
    at_first = returns(SPO(envs.make("PointMass1D-v0", 1).spec, sweep(SPOConfig(hidden=(32, 32)), range(3))))
    spo, arena = fitted(partial_return_labeler(beta=0.1, mistake=0.1), 20)
    found = returns(spo)
    assert arena.comparisons.tolist() == [20 * 16 * 15 // 2] * 3
    assert (found > 0.5 * at_first).all(), f"{found} from {at_first}"
    mixed = np.mean([returns(one) for one in spo.mixture()], axis=0)
    assert mixed.mean() > at_first.mean() + 5.0, f"the average policy has {mixed}, {at_first} at first"
    lied_to, _ = fitted(partial_return_labeler(beta=0.1, mistake=0.9), 8)
    assert (returns(lied_to) < at_first).all()
