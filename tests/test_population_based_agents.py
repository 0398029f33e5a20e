"""Population-based training of every agent: a copy is complete, and a varied setting is as if it had always been that.

These hold for an agent by existing, since ``stacked`` and ``places`` find out by themselves what belongs to members.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import agents
from pbrl.agent import Learner
from pbrl.errors import InputError
from pbrl.members import Members, is_shared
from pbrl.parts.population_based import copy_members, places, set_values, stacked, values_of

from .contract import Case, tiny_data, weights
from .training import training

DOUBLE = torch.float64
QUICK = {"percent_bc", "iql", "vpl", "sac", "ppo", "c_morl"}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in agents.names()]


def case_of(name: str) -> Case:
    algorithm = agents.find(name)
    objectives = 2 if algorithm.family == "multi_objective" else 1
    return Case(
        name,
        lambda spec, members: algorithm.make(dataclasses.replace(spec, objectives=objectives), members),
        algorithm.config,
    )


def made(case: Case, members: Members[Any]) -> nn.Module:
    learner = case.make(tiny_data()[0].spec, members)
    assert isinstance(learner, nn.Module)
    return learner


def explorable(case: Case, members: Members[Any]) -> dict[str, tuple[str, ...]]:
    """The settings that can vary on the way, with their places."""
    found: dict[str, tuple[str, ...]] = {}
    for field in dataclasses.fields(case.config):
        if is_shared(field) or type(getattr(members.shared, field.name)) is not float:
            continue
        try:
            found |= places(lambda some: made(case, some), members, [field.name])
        except InputError:
            continue
    return found


def other(case: Case, config: Any, names: list[str]) -> Any:
    """The config with other values of these settings, near the old ones."""
    for name in names:
        value = getattr(config, name)
        for changed in (0.8 * value, 1.25 * value, value + 0.2):
            try:
                if changed != value:
                    config = dataclasses.replace(config, **{name: changed})
                    break
            except InputError:
                continue
    return config


def trained(learner: nn.Module, until: int) -> None:
    assert isinstance(learner, Learner)
    for _ in training(learner, tiny_data(), DOUBLE).run(until, 1):
        continue


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_complete(name: str) -> None:
    """With its source's key, too, a copy trains on as its source does: nothing of a member was left out."""
    case = case_of(name)
    config = case.small()
    floats = [
        f.name for f in dataclasses.fields(case.config) if not is_shared(f) and type(getattr(config, f.name)) is float
    ]
    members = Members((config, other(case, config, floats)), (0, 1), dtype=DOUBLE)
    learner, stacks = made(case, members), stacked(lambda some: made(case, some), members)
    trained(learner, 5)
    copy_members(learner, torch.tensor([0, 0]), stacks, wholly=True)
    trained(learner, 8)
    assert isinstance(learner, Learner)
    for ours, theirs in zip(weights(learner, 0), weights(learner, 1)):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_varied_setting_is_as_if_it_had_always_been_that(name: str) -> None:
    case = case_of(name)
    config = case.small()
    members = Members((config, config), (0, 1), dtype=DOUBLE)
    where = explorable(case, members)
    assert "lr" in where or not any(f.name == "lr" and not is_shared(f) for f in dataclasses.fields(case.config))
    changed = Members((config, other(case, config, list(where))), (0, 1), dtype=DOUBLE)
    learner, wanted, plain = made(case, members), made(case, changed), made(case, members)
    set_values(learner, {key: changed.column(key) for key in where}, where)
    assert all(torch.equal(values, changed.column(key)) for key, values in values_of(learner, where, 2).items())
    for each in (learner, wanted, plain):
        trained(each, 8)
    assert isinstance(learner, Learner)
    assert isinstance(wanted, Learner)
    assert isinstance(plain, Learner)
    for ours, theirs in zip(weights(learner, 1), weights(wanted, 1)):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert any(not torch.equal(a, b) for a, b in zip(weights(learner, 1), weights(plain, 1))), "it changes nothing"
