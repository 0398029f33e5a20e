"""The contract of every file in ``agents/dueling/``, where DESIGN.md section 4 applies.

Each check takes a learner's class and config and raises AssertionError with a sentence. ``test_contract_dueling.py``
applies them to every such algorithm, and to doubles with one planted error each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pbrl.members import Members, sweep
from pbrl.theory.dueling import DuelingLearner, DuelingSpec, DuelTrace, Trajectories, duel
from pbrl.theory.linear import random_linear
from pbrl.theory.mdps import EpisodicMDP, Floats

ROUNDS = 120
LINEAR = random_linear(5, 3, 2, 3, seed=1, concentration=0.1, reward=2.0, count=8)
CLASS = LINEAR.tabular()
TRUTH = EpisodicMDP(CLASS.transition[0], CLASS.reward[0])
SPEC = DuelingSpec(LINEAR.features, 2, 2.0, CLASS.transition, CLASS.reward)

OTHER: dict[str, float] = {
    "epsilon": 2.0,
    "sigma_r": 0.5,
    "sigma_p": 0.2,
    "lam": 5.0,
    "noise": 0.3,
    "temperature": 0.2,
    "random_queries": 0.5,
}
"""A second value of each field, by name."""


@dataclass(frozen=True)
class Case:
    """A learner's class with its config."""

    name: str
    make: Callable[[DuelingSpec, Members[Any]], DuelingLearner]
    config: type[Any]

    def train(self, members: Members[Any], rounds: int = ROUNDS) -> tuple[DuelingLearner, DuelTrace]:
        """A population that has played."""
        learner = self.make(SPEC, members)
        return learner, duel(learner, TRUTH, rounds)


def state(learner: DuelingLearner, member: int) -> list[Floats]:
    """One member's part of everything that learning changes."""
    return [np.asarray(v)[member] for _, v in sorted(learner.state_dict().items()) if np.ndim(v)]


def same(one: DuelingLearner, p: int, two: DuelingLearner, q: int) -> bool:
    """Whether two members have learned the same, to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(state(one, p), state(two, q)))


def check_shapes(case: Case) -> None:
    """Policies are actions [P, H, S], the same until the round is over; answers and metrics are [P]."""
    learner, trace = case.train(sweep(case.config(), [0, 1, 2]))
    assert isinstance(learner, DuelingLearner), "it lacks part of what a learner from preferences has"
    assert learner.rounds == trace.rounds == ROUNDS, f"rounds is {learner.rounds} after {ROUNDS}"
    assert trace.asked.shape == (ROUNDS, 3), "asks does not answer for every member"
    plan, again = learner.plan(), learner.plan()
    for policy, repeated in zip(plan, again):
        assert policy.shape == (3, *SPEC.shape[:2]), f"a policy is {policy.shape}, expected [P, H, S]"
        assert 0 <= policy.min() <= policy.max() < SPEC.shape[2], "a policy has actions that there are not"
        assert np.array_equal(policy, repeated), "a plan changes before the round is over"
    seen = one_round(3)
    for name, value in learner.update(*seen, np.zeros(3, dtype=np.bool_), np.zeros(3)).items():
        assert np.shape(value) == (3,), f"metric {name} has shape {np.shape(value)}, expected [P]"
        assert np.isfinite(value).all(), f"metric {name} is not finite"


def one_round(size: int) -> tuple[Trajectories, Trajectories]:
    """Two trajectories of each member that stay in state 0."""
    horizon = SPEC.shape[0]
    states, actions = np.zeros((size, horizon + 1), dtype=np.int64), np.zeros((size, horizon), dtype=np.int64)
    return Trajectories(states, actions), Trajectories(states.copy(), actions.copy())


def check_alone(case: Case) -> None:
    """A member of a stack is the same member alone, to the last bit."""
    members = sweep(case.config(), [3, 1, 2])
    together, trace = case.train(members)
    alone, single = case.train(members.take([1]))
    assert same(together, 1, alone, 0), "a member learns otherwise in a stack than alone"
    assert np.array_equal(trace.asked[:, 1], single.asked[:, 0]), "a member asks otherwise in a stack than alone"
    played = trace.regret.value[:, 1], single.regret.value[:, 0]
    assert np.array_equal(*played), "a member plays otherwise in a stack than alone"


def check_repeatable(case: Case) -> None:
    """Same config, same bits; another seed, other ones."""
    one, _ = case.train(sweep(case.config(), [0, 1]))
    two, _ = case.train(sweep(case.config(), [0, 1]))
    assert same(one, 0, two, 0), "the same config gives other results"
    assert not same(one, 0, one, 1), "seeds change nothing"


def check_resumes(case: Case) -> None:
    """A learner loaded from a state_dict goes on with the same bits."""
    members = sweep(case.config(), [0, 1])
    whole, _ = case.train(members)
    duel(whole, TRUTH, 40)
    first, _ = case.train(members)
    second = case.make(SPEC, members)
    second.load_state_dict(first.state_dict())
    duel(second, TRUTH, 40)
    assert same(whole, 0, second, 0), "a restored learner goes on otherwise"
    assert second.rounds == whole.rounds, "rounds are not restored"


def check_knobs(case: Case) -> None:
    """Every config field changes what is played or asked, and only its own member's."""
    _, base = case.train(sweep(case.config(), [0, 0]))
    for field in dataclasses.fields(case.config):
        changed_config = case.config(**{field.name: OTHER[field.name]})
        _, changed = case.train(Members((case.config(), changed_config), (0, 0)))
        pairs = ((base.regret.value, changed.regret.value), (base.asked, changed.asked))
        assert all(np.array_equal(a[:, 0], b[:, 0]) for a, b in pairs), f"{field.name} changes another member"
        assert not all(np.array_equal(a[:, 1], b[:, 1]) for a, b in pairs), f"{field.name} changes nothing"


def check_learns(case: Case) -> None:
    """Asked often enough, it plays better in the end than at the start, and asks less than always."""
    _, trace = case.train(sweep(case.config(), range(8)), 4 * ROUNDS)
    early, late = trace.regret.value[: ROUNDS // 2].mean(), trace.regret.value[-ROUNDS // 2 :].mean()
    assert late > early + 0.1, f"it plays {early:.3f} first and {late:.3f} in the end"
    assert 0 < trace.asked.mean() < 1, "it asks always or never"
    assert (trace.regret.value <= trace.regret.optimum + 1e-9).all(), "a plan is worth more than V*"


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_shapes,
    check_alone,
    check_repeatable,
    check_resumes,
    check_knobs,
    check_learns,
)
