"""The contract that every file in ``agents/tabular/`` is put through by existing, where DESIGN.md section 4 applies.

Each check takes a learner's class and config and raises AssertionError with a sentence. ``test_contract_tabular.py``
applies them to every tabular algorithm, and to doubles with one planted error each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import numpy as np

from experiments.regret import studies
from pbrl.members import Members, is_shared, sweep
from pbrl.theory.learner import TabularLearner, TabularSpec
from pbrl.theory.mdps import Floats
from pbrl.theory.regret import RegretTrace, play

EPISODES = 4000
STUDY = studies.make("safe", episodes=EPISODES, share=0.75, offline=40)
"""Easy to be safe in, so that mixtures are reached soon."""

OTHER = {"delta": 0.02, "width": 0.5}
"""A second value of each swept field, by name; the width is a factor on the first."""


@dataclass(frozen=True)
class Case:
    """A learner's class with its config."""

    name: str
    make: Callable[[TabularSpec, Members[Any]], TabularLearner]
    config: type[Any]
    width: float | None = None
    """Factor on the widths of those whose own say nothing within so few episodes."""

    def settings(self, **changes: Any) -> Any:
        """The config with these changes."""
        return self.config(**({} if self.width is None else {"width": self.width}) | changes)

    def train(self, members: Members[Any], episodes: int = EPISODES) -> tuple[TabularLearner, RegretTrace]:
        """A population that has played."""
        learner = self.make(STUDY.spec, members)
        return learner, play(learner, STUDY.mdp, episodes, growth=0.2)


def state(learner: TabularLearner, member: int) -> list[Floats]:
    """One member's part of everything that learning changes."""
    return [np.asarray(v)[member] for _, v in sorted(learner.state_dict().items()) if np.ndim(v)]


def same(one: TabularLearner, p: int, two: TabularLearner, q: int) -> bool:
    """Whether two members have learned the same, to the last bit."""
    return all(np.array_equal(a, b) for a, b in zip(state(one, p), state(two, q)))


def check_shapes(case: Case) -> None:
    """Plans are laws [P, N, H, S, A] with weights [P, N], metrics are [P], episodes are counted."""
    learner, trace = case.train(sweep(case.settings(), [0, 1, 2]))
    assert isinstance(learner, TabularLearner), "it lacks part of what a tabular learner has"
    assert learner.episodes == trace.episodes == EPISODES, f"episodes is {learner.episodes} after {EPISODES}"
    plan = learner.plan(1)
    assert plan.policies.shape[2:] == STUDY.spec.shape, f"a plan's policies are {plan.policies.shape}"
    assert np.allclose(plan.policies.sum(-1), 1.0), "a policy's probabilities do not sum to 1"
    assert plan.policies.min() >= -1e-12, "a policy has negative probabilities"
    assert plan.weights.shape == plan.policies.shape[:2], "a plan has not one weight per policy"
    assert np.allclose(plan.weights.sum(-1), 1.0), "a plan's weights do not sum to 1"
    assert plan.lower.shape == plan.upper.shape == (3,), "a plan's bounds are not [P]"
    for name, value in learner.update(np.zeros((3, *STUDY.spec.shape, 5)), 0).items():
        assert np.shape(value) == (3,), f"metric {name} has shape {np.shape(value)}, expected [P]"
        assert np.isfinite(value).all(), f"metric {name} is not finite"


def check_alone(case: Case) -> None:
    """A member of a stack is the same member alone, to the last bit."""
    members = sweep(case.settings(), [3, 1, 2])
    together, trace = case.train(members)
    alone, single = case.train(members.take([1]))
    assert same(together, 1, alone, 0), "a member learns otherwise in a stack than alone"
    assert np.array_equal(trace.value[:, 1], single.value[:, 0]), "a member plays otherwise in a stack than alone"


def check_repeatable(case: Case) -> None:
    """Same config, same bits; another seed, other ones."""
    one, _ = case.train(sweep(case.settings(), [0, 1]))
    two, _ = case.train(sweep(case.settings(), [0, 1]))
    assert same(one, 0, two, 0), "the same config gives other results"
    assert not same(one, 0, one, 1), "seeds change nothing"


def check_resumes(case: Case) -> None:
    """A learner loaded from a state_dict goes on with the same bits."""
    members = sweep(case.settings(), [0, 1])
    whole, _ = case.train(members, EPISODES)
    play(whole, STUDY.mdp, 500)
    first, _ = case.train(members, EPISODES)
    second = case.make(STUDY.spec, members)
    second.load_state_dict(first.state_dict())
    play(second, STUDY.mdp, 500)
    assert same(whole, 0, second, 0), "a restored learner goes on otherwise"
    assert second.episodes == whole.episodes, "episodes are not restored"


def check_knobs(case: Case) -> None:
    """Every config field changes what is played; a swept one only its own member's."""
    hints = get_type_hints(case.config)
    _, base = case.train(sweep(case.settings(), [0, 0]))
    for field in dataclasses.fields(case.config):
        if is_shared(field):
            others = [value for value in get_args(hints[field.name]) if value != field.default]
            assert others, f"no other value of {field.name} is known"
            for value in others:
                _, changed = case.train(sweep(case.settings(**{field.name: value}), [0, 0]))
                assert not np.array_equal(base.value, changed.value), f"{field.name} = {value} changes nothing"
        else:
            value = OTHER[field.name] * (case.settings().width if field.name == "width" else 1.0)
            other = case.settings(**{field.name: value})
            _, changed = case.train(Members((case.settings(), other), (0, 0)))
            assert np.array_equal(base.value[:, 0], changed.value[:, 0]), f"{field.name} changes another member"
            own = [
                np.array_equal(getattr(base, n)[:, 1], getattr(changed, n)[:, 1]) for n in ("value", "lower", "upper")
            ]
            assert not all(own), f"{field.name} changes nothing"


def check_bounds(case: Case) -> None:
    """Bounds hold on this problem: lower ones on what is played, upper ones on V*."""
    _, trace = case.train(sweep(case.settings(), range(8)))
    assert (trace.lower <= trace.value + 1e-9).all(), "a lower bound is above the plan's value"
    assert (trace.upper >= trace.optimum - 1e-9).all(), "an upper bound is below V*"
    assert not np.isnan(trace.lower).any(), "a lower bound is not a number"


def check_safety(case: Case) -> None:
    """Who has a certified lower bound of its plans keeps the threshold; nobody is below 0 or above V*."""
    learner, trace = case.train(sweep(case.settings(), range(8)))
    assert (trace.value >= -1e-12).all(), "a plan is worth less than 0"
    assert (trace.value <= trace.optimum + 1e-9).all(), "a plan is worth more than V*"
    if math.isfinite(float(trace.lower[-1].max())) and not hasattr(learner, "budget"):
        assert not trace.violations(STUDY.threshold).any(), "an episode was below the threshold"


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_shapes,
    check_alone,
    check_repeatable,
    check_resumes,
    check_knobs,
    check_bounds,
    check_safety,
)
