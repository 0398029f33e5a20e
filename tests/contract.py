"""The contract that every file in ``agents/`` is put through by existing (DESIGN.md, section 4).

Each check takes a ``Case`` (a learner's class, its config and tiny data) and raises AssertionError with a sentence.
``test_contract.py`` applies them to every algorithm, and to doubles with one planted error each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

import agents
from pbrl import rng
from pbrl.agent import Agent, Judge, Learner, RewardLearner, Staged
from pbrl.data import Dataset, Pairs, Preferences
from pbrl.labelers.teachers import partial_return_labeler
from pbrl.members import Members, is_shared, sweep
from pbrl.spec import Spec

from .training import training

OBS, ACT, EPISODES, LENGTH, SEGMENT = 3, 2, 12, 10, 4

# Shared fields that say how much to train are set small here, by name; whatever else a config has keeps its default.
SMALL: Mapping[str, Any] = {
    "hidden": (8, 8),
    "reward_hidden": (8,),
    "vae_hidden": (8,),
    "batch_size": 6,
    "reward_batch_size": 4,
    "bc_updates": 3,
    "reward_updates": 3,
    "warmup": 4,
    "steps": 5,
    "environments": 3,
    "epochs": 2,
    "queue": 4,
    "snapshots": 2,
    "value_epochs": 2,
    "refresh": 3,
    "subsample": 3,
    "replay_batch_size": 6,
    "perturbations": 3,
    "ood_decay": 0.2,
    "fitting_updates": 3,
    "select_every": 1,
    "model_steps": 3,
    "models": 3,
    "elites": 2,
    "v_hidden": (8,),
    "q_hidden": (8,),
    "model_hidden": (8,),
    "minibatch_size": 6,
    "improve_updates": 4,
    "online_lr": 1e-2,
    "online_critic_lr": 1e-2,
    "actor_decay": 40,
    "width": 6,
    "layers": 1,
    "heads": 1,
    "reward_width": 6,
    "reward_heads": 1,
    "decay_updates": 40,
    "encoder_heads": 1,
    "policy_heads": 1,
    "context": 3,
    "star_lr": 5e-2,
    "init_updates": 4,
    "extension_updates": 3,
    "policies": 4,
    "archive": 1,
    "greedy": 0,  # of so few steps, greedy policies leave one point, with which archives of any size are alike
    "lr": 1e-2,
    "reward_lr": 1e-2,
    "policy_lr": 1e-2,
    "backup_actions": 1,
}
UPDATES = 8


def tiny_data(*, constant: bool = False) -> tuple[Dataset, Preferences]:
    """Twelve episodes of ten steps, half of them truly ending, whose reward depends on the action; and 40 pairs."""
    key = rng.keys([5])[0]
    count = EPISODES * LENGTH
    obs = rng.normal(rng.fold(key, "obs"), count, OBS)
    act = 2.0 * rng.uniform(rng.fold(key, "act"), count, ACT) - 1.0
    rew = torch.full((count,), 0.5) if constant else -(act - 0.5).square().sum(1) + 0.1 * obs[:, 0]
    end = torch.arange(count) % LENGTH == LENGTH - 1
    term = end & (torch.arange(count) // LENGTH % 2 == 0)
    dataset = Dataset.from_arrays(obs, act, rew, term, end & ~term, obs + 0.1, name="tiny")
    pairs = Pairs.sample(dataset, 40, SEGMENT, rng.fold(key, "pairs"))
    if constant:
        return dataset, Preferences(pairs, (torch.arange(40) % 2).float(), partial_return_labeler()(pairs, key).by)
    return dataset, partial_return_labeler()(pairs, key)


@dataclass(frozen=True)
class Case:
    """A learner's class with its config, and whether rewards or labels tell it anything (they do not tell BC)."""

    name: str
    make: Callable[[Spec, Members[Any]], Learner]
    config: type[Any]
    informed: bool = True

    def small(self, **changes: Any) -> Any:
        """The config with small sizes and these changes."""
        names = {field.name for field in dataclasses.fields(self.config)}
        return self.config(**{**{k: v for k, v in SMALL.items() if k in names}, **changes})

    def train(
        self, members: Members[Any], updates: int = UPDATES, data: tuple[Dataset, Preferences] | None = None
    ) -> tuple[Learner, list[dict[str, Tensor]]]:
        """A trained population and its metrics."""
        dataset, preferences = data or tiny_data()
        learner = self.make(dataset.spec, members)
        return learner, list(training(learner, (dataset, preferences), members.dtype).run(updates, 2))


UNINFORMED = {"bc"}
"""Algorithms that neither rewards nor labels tell anything, on purpose."""


def case_of(name: str) -> Case:
    """The case of an algorithm in ``agents/``; those of several objectives get two."""
    algorithm = agents.find(name)
    make = algorithm.make
    if algorithm.family == "multi_objective":

        def make(spec: Spec, members: Members[Any]) -> Learner:
            made: Learner = algorithm.make(dataclasses.replace(spec, objectives=2), members)
            return made

    return Case(name, make, algorithm.config, informed=name not in UNINFORMED)


def output(learner: Learner, members: int, dtype: torch.dtype) -> Tensor:
    """What a learner is for, on fixed observations: its actions and, where it has them, its rewards [P, B, ...]."""
    key = rng.keys([9])[0]
    obs = rng.normal(rng.fold(key, "obs"), 5, OBS, dtype=dtype).expand(members, -1, -1)
    act = rng.uniform(rng.fold(key, "act"), 5, ACT, dtype=dtype).expand(members, -1, -1)
    parts = []
    if isinstance(learner, Agent):
        parts += [learner.act(obs), learner.act(obs, rng.keys(range(members)))]
    if isinstance(learner, RewardLearner):
        parts.append(learner.reward(obs, act).unsqueeze(-1))
    assert parts, "a learner has neither act nor reward"
    return torch.cat(parts, dim=-1)


def weights(learner: Learner, member: int) -> list[Tensor]:
    """One member's slices of all tensors that training changes; of G P networks, row g P + p is member p's."""
    assert isinstance(learner, torch.nn.Module)
    return [p.detach()[member :: len(learner.keys)] for p in learner.parameters()]


def check_shapes(case: Case) -> None:
    """Actions are [P, B, A] in [-1, 1], metrics [P] and finite, and the count of updates is right."""
    members = sweep(case.small(), [0, 1, 2])
    learner, history = case.train(members)
    assert learner.updates == UPDATES, f"updates is {learner.updates} after {UPDATES}"
    assert history, "no metrics"
    for metrics in history:
        for name, value in metrics.items():
            assert value.shape == (3,), f"metric {name} has shape {list(value.shape)}, expected [P]"
            assert not value.requires_grad, f"metric {name} holds on to its graph"
            assert value.isfinite().all(), f"metric {name} is not finite: {value.tolist()}"
    if isinstance(learner, Agent):
        obs = torch.zeros(3, 7, OBS)
        for act in (learner.act(obs), learner.act(obs, rng.keys([4, 5, 6]))):
            assert act.shape == (3, 7, ACT), f"act gives {list(act.shape)}, expected [P, B, A]"
            assert act.abs().max() <= 1.0, "act leaves [-1, 1]"
            assert not act.requires_grad, "act holds on to its graph"


def check_judgement(case: Case) -> None:
    """Who learns from pairs can say which segment is better: [P, M], finite, each member for itself."""
    dataset, preferences = tiny_data()
    members = sweep(case.small(), [0, 1, 2])
    fresh = case.make(dataset.spec, members)
    if "pairs" in fresh.wants():
        assert isinstance(fresh, Judge), "it learns from pairs and cannot judge segments"
    learner, _ = case.train(members)
    if isinstance(learner, Judge):
        segments = preferences.pairs.segments
        worth = learner.judge(*(x.expand(3, *x.shape) for x in (segments.obs, segments.act)))
        assert worth.shape == (3, len(segments)), f"judge gives {list(worth.shape)}, expected [P, M]"
        assert worth.isfinite().all(), "judge gives what is not finite"
        assert not worth.requires_grad, "judge holds on to its graph"


def check_alone(case: Case) -> None:
    """A member of a stack equals the same member trained alone, to 1e-9 in float64, whatever P and its place."""
    changes = {"lr": [0.01, 0.003]}
    stack = sweep(case.small(), range(8), changes, dtype=torch.float64)
    together, history = case.train(stack)
    for place in (0, 5, 15):
        single, lone_history = case.train(stack.take([place]))
        for a, b in zip(weights(together, place), weights(single, 0)):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), f"member {place} of 16 differs from the same one alone"
        for ours, lone in zip(history, lone_history):
            for name in lone:
                assert torch.allclose(ours[name][place], lone[name][0], rtol=1e-9, atol=1e-9), f"metric {name} differs"


def check_alone_in_single(case: Case) -> None:
    """In float32 too, a member hardly depends on the stack: products may round differently, the optimiser may not."""
    stack = sweep(case.small(), range(8))
    together, _ = case.train(stack)
    single, _ = case.train(stack.take([3]))
    for a, b in zip(weights(together, 3), weights(single, 0)):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), "in float32 a member of 8 differs from the same one alone"


def check_repeatable(case: Case) -> None:
    """Same config, same bits; another seed, other weights."""
    one, _ = case.train(sweep(case.small(), [3, 4]))
    two, _ = case.train(sweep(case.small(), [3, 4]))
    assert all(torch.equal(a, b) for a, b in zip(weights(one, 0), weights(two, 0))), "same config, other bits"
    assert any(not torch.equal(a, b) for a, b in zip(weights(one, 0), weights(one, 1))), "the seed changes nothing"


def check_resumes(case: Case) -> None:
    """state_dict holds everything: stopped at any update and restored into a new object, the bits are the same."""
    members = sweep(case.small(), [0, 1])
    dataset, preferences = tiny_data()
    whole, _ = case.train(members)
    for stop in range(1, UPDATES):
        first = case.make(dataset.spec, members)
        begun = training(first, (dataset, preferences), torch.float32)
        for _ in begun.run(stop, 1):
            pass
        second = case.make(dataset.spec, sweep(case.small(), [0, 1]))
        second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
        resumed = training(second, (dataset, preferences), torch.float32)
        resumed.state.load_state_dict({name: value.clone() for name, value in begun.state.state_dict().items()})
        before = output(first, 2, torch.float32)
        assert torch.equal(before, output(second, 2, torch.float32)), (
            f"loaded after {stop} updates, it acts differently"
        )
        for _ in resumed.run(UPDATES, 1):
            pass
        for a, b in zip(weights(whole, 1), weights(second, 1)):
            assert torch.equal(a, b), f"resumed after {stop} of {UPDATES} updates, the bits differ"


def other_values(config: Any, field: dataclasses.Field[Any], hint: Any) -> list[Any]:
    """Configs in which one field has another legal value."""
    value = getattr(config, field.name)
    if get_args(hint) and isinstance(value, str):
        choices: list[Any] = [choice for choice in get_args(hint) if choice != value]
    elif isinstance(value, bool):
        choices = [not value]
    elif isinstance(value, tuple):
        choices = [(*value, 4)]
    elif isinstance(value, int):
        choices = [value + 1]
    else:
        choices = [value * 0.5 + 0.2, value * 0.5, value * 2.0, value * 1e-3]
    legal = []
    for choice in choices:
        try:
            legal.append(dataclasses.replace(config, **{field.name: choice}))
        except ValueError:  # out of the field's range: that a check of ranges works is tested elsewhere
            continue
    assert legal, f"no other legal value found for {field.name}"
    return legal


def differs(one: Learner, other: Learner, member: int) -> bool:
    """Whether a member's weights or actions are not the same bits."""
    ours, theirs = weights(one, member), weights(other, member)
    if len(ours) != len(theirs) or any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(ours, theirs)):
        return True
    outputs = [output(learner, 2, torch.float64)[member] for learner in (one, other)]
    return not torch.equal(*outputs)


def check_knobs(case: Case) -> None:
    """Every config field changes the result, and a swept one only its own member's."""
    config = case.small()
    hints = get_type_hints(case.config)
    base, _ = case.train(Members((config, config), (0, 0), dtype=torch.float64))
    for field in dataclasses.fields(case.config):
        effective = False
        for changed in other_values(config, field, hints[field.name]):
            first = changed if is_shared(field) else config
            learner, _ = case.train(Members((first, changed), (0, 0), dtype=torch.float64))
            effective = effective or differs(learner, base, 1)
            if not is_shared(field):
                for a, b in zip(weights(learner, 0), weights(base, 0)):
                    assert torch.allclose(a, b, rtol=1e-12, atol=1e-12), f"{field.name} changes another member too"
        assert effective, f"{field.name} changes nothing"


def check_scale(case: Case) -> None:
    """No NaN at a thousand times the rewards, where the learner takes them as they are."""
    dataset, preferences = tiny_data()
    as_they_are = {"rewards": "raw"} if hasattr(case.small(), "rewards") else {}
    learner, _ = case.train(
        sweep(case.small(**as_they_are), [0, 1]), data=(dataset.with_reward(1e3 * dataset.rew), preferences)
    )
    for tensor in weights(learner, 0):
        assert tensor.isfinite().all(), "not finite at 1e3 times the rewards"


def check_divergence(case: Case) -> None:
    """A member that diverges leaves the others as they would be."""
    config = case.small()
    learner, _ = case.train(Members((config, dataclasses.replace(config, lr=1e30)), (0, 1)))
    healthy, _ = case.train(Members((config, config), (0, 1)))
    for a, b in zip(weights(learner, 0), weights(healthy, 0)):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6), "a diverging member changes another"


def check_constant(case: Case) -> None:
    """Rewards and labels without information: everything stays finite, and of the size of the rewards."""
    learner, history = case.train(sweep(case.small(), [0]), data=tiny_data(constant=True))
    assert all(v.abs().max() < 1e4 for metrics in history for v in metrics.values()), "constant rewards are blown up"
    assert all(tensor.isfinite().all() for tensor in weights(learner, 0)), "constant rewards make it not finite"
    assert all(math.isfinite(float(v[0])) for metrics in history for v in metrics.values()), "metrics are not finite"


def check_stages(case: Case) -> None:
    """Boundaries are in order, and the metrics tell the stages apart."""
    dataset, _ = tiny_data()
    learner = case.make(dataset.spec, sweep(case.small(), [0]))
    if isinstance(learner, Staged):
        assert list(learner.boundaries) == sorted(set(learner.boundaries)), "boundaries are not in order"
        assert all(0 <= boundary < UPDATES for boundary in learner.boundaries), "a boundary lies outside the run"


def check_information(case: Case) -> None:
    """Who learns from rewards or labels acts better with the true ones than with their opposite."""
    dataset, preferences = tiny_data()
    lie = (dataset.with_reward(-dataset.rew), dataclasses.replace(preferences, label=1.0 - preferences.label))
    schedule = {"bc_updates": 20, "reward_updates": 20, "actor_decay": 0}
    members = sweep(case.small(**{k: v for k, v in schedule.items() if hasattr(case.small(), k)}), [0, 1])
    honest, _ = case.train(members, 120)
    deceived, _ = case.train(members, 120, data=lie)
    obs = dataset.obs.expand(2, -1, -1)
    if not case.informed:
        assert all(torch.equal(a, b) for a, b in zip(weights(honest, 0), weights(deceived, 0))), "rewards reach it"
        return
    if isinstance(honest, Agent) and isinstance(deceived, Agent):
        true, false = ((learner.act(obs) - 0.5).square().mean() for learner in (honest, deceived))
        assert true < false - 0.01, f"with true information it is {true:.3f} off the best action, with lies {false:.3f}"
    elif isinstance(honest, RewardLearner):
        given = -(dataset.act - 0.5).square().sum(1)
        learned = honest.reward(obs, dataset.act.expand(2, -1, -1))[0]
        agreement = float(torch.corrcoef(torch.stack([learned, given]))[0, 1])
        assert agreement > 0.3, f"the learned reward's correlation with the true one is {agreement:.2f}"


def check_swap(case: Case) -> None:
    """Which segment of a pair comes first is a matter of notation."""
    dataset, preferences = tiny_data()
    pairs = preferences.pairs
    label = torch.where(torch.arange(len(preferences)) % 4 == 0, 0.5, preferences.label)
    swapped = dataclasses.replace(pairs, first=pairs.second, second=pairs.first)
    ours = dataclasses.replace(preferences, label=label)
    theirs = dataclasses.replace(preferences, label=1.0 - label, pairs=swapped)
    # Dropout draws by position in the batch, and positions are what is swapped.
    calm = {name: 0.0 for name in ("dropout", "reward_dropout") if hasattr(case.small(), name)}
    members = sweep(case.small(**calm), [0], dtype=torch.float64)
    one, _ = case.train(members, data=(dataset, ours))
    two, _ = case.train(members, data=(dataset, theirs))
    for a, b in zip(weights(one, 0), weights(two, 0)):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), "swapping the segments of all pairs changes the result"


def check_endings(case: Case) -> None:
    """Who discounts the future tells a true end from a time limit."""
    dataset, preferences = tiny_data()
    never = dataclasses.replace(dataset, term=torch.zeros_like(dataset.term), trunc=dataset.term | dataset.trunc)
    members = sweep(case.small(), [0], dtype=torch.float64)
    one, _ = case.train(members)
    if not hasattr(case.small(), "gamma") or not one.wants().keys() & {"transitions", "rollout"}:
        return
    two, _ = case.train(members, data=(never, preferences))
    assert any(not torch.equal(a, b) for a, b in zip(weights(one, 0), weights(two, 0))), "term is never read"


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_shapes,
    check_judgement,
    check_alone,
    check_alone_in_single,
    check_repeatable,
    check_resumes,
    check_knobs,
    check_scale,
    check_divergence,
    check_constant,
    check_stages,
    check_information,
    check_swap,
    check_endings,
)
